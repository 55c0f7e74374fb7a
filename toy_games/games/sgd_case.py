"""An objective, a class of policies and a game: the exact one-step rounds that SGD is held to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from lab.specs import objective_of
from theory import TokenMDP, Unavailable, self_play, xp
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds import log_linear
from theory.rounds.one_step import local_rate_one_step, one_step_round
from toy_games.engine.policies import LogLinearPolicy, Neural, Policy, Tokens
from toy_games.engine.trainable import bends, beta_at, grouped, starts_as_sft
from toy_games.predictions.linearised import RoundLoss

CLASSES = ("tokens", "features", "network")
FEATURES, WIDTH, CONCENTRATION = 2, 2, 4.0
SMALL = 1e-3


@dataclass(frozen=True)
class Case:
    """One objective (a spec; "sft" is maximum likelihood) in one class on one random game.

    ``tokens`` is the unrestricted class of token policies, ``features`` a log-linear one of
    responses, ``network`` a small perceptron; the latter two are misspecified.
    """

    spec: str
    family: str = "tokens"
    vocab: int = 2
    horizon: int = 3
    seed: int = 0

    @cached_property
    def objective(self) -> Objective | None:
        """None is SFT."""
        return objective_of(self.spec)

    @cached_property
    def game(self) -> TokenMDP:
        """A tree with a random expert."""
        return TokenMDP.random(
            self.vocab, self.horizon, seed=self.seed, concentration=CONCENTRATION
        )

    @cached_property
    def policy(self) -> Policy:
        """The class of policies."""
        if self.family == "features":
            shape = (self.game.n_responses, FEATURES)
            return LogLinearPolicy(np.random.default_rng(self.seed).standard_normal(shape))
        return Tokens(self.game) if self.family == "tokens" else Neural(self.game, WIDTH)

    @cached_property
    def expert(self) -> Tensor:
        """The expert's law (N,)."""
        assert self.game.expert is not None
        return torch.from_numpy(self.game.sequence_law(self.game.expert)[0])

    @cached_property
    def ref(self) -> Tensor:
        """Log-law (N,) of anchors and mixtures: halfway from the uniform law to the expert."""
        return torch.as_tensor(xp.log_normalise(0.5 * self.expert.log()))

    @property
    def grouped(self) -> bool:
        """Whether the objective is a risk of groups."""
        return grouped(self.objective)

    @property
    def has_round(self) -> bool:
        """Whether one law is the exact round: a curved loss, no hinge of many minimisers."""
        return bends(self.objective)

    @cached_property
    def no_round(self) -> str | None:
        """Why no exact round is known at all: of a group risk that sees the level of rewards."""
        if self.objective is None or not self.grouped:
            return None
        even = np.array([0.5, 0.5])
        try:
            one_step_round(even, even, self.objective, 1.0)
        except Unavailable as error:
            return str(error)
        return None

    @property
    def starts_as_sft(self) -> bool:
        """T15's premise: the first gradient of every round is SFT's."""
        return starts_as_sft(self.objective)

    def start(self, scale: float = 0.5) -> Tensor:
        """Random parameters (P,)."""
        return self.policy.initial(np.random.default_rng([self.seed, 1]), scale)

    def log_law(self, theta: Tensor) -> Tensor:
        """Log-law (N,) of parameters (P,)."""
        return self.policy.log_law(theta[None])[0, 0]

    def theta_of(self, log_law: Tensor) -> Tensor:
        """Parameters (P,) of a log-law (N,) of the unrestricted class."""
        assert isinstance(self.policy, Tokens)
        return self.policy.parameters_of(self.game.policy_from_log_law(log_law[None].numpy()))

    def beta(self, effective: float) -> float:
        """``R'(0)/effective``; T-SPIN has no link, the slope of its logistic loss's is taken."""
        return beta_at(self.objective, effective)

    def tau(self, effective: float) -> float:
        """Half of beta where an anchor is needed, else 0."""
        needed = self.objective is not None and "anchor" in self.objective.needs
        return 0.5 * self.beta(effective) if needed else 0.0

    def round(
        self,
        log_law: Tensor,
        effective: float,
        group: int | None = None,
        ref: Tensor | None = None,
        history: Tensor | None = None,
    ) -> RoundLoss:
        """The round that begins at a log-law (N,); groups of that size where they matter."""
        obj, tau = self.objective, self.tau(effective)
        ref = self.ref if ref is None else ref
        history = log_law if history is None else history
        opponent = log_law if obj is None else obj.opponent(log_law, history, ref)
        return RoundLoss(
            self.policy,
            obj,
            self.expert,
            opponent,
            self.beta(effective),
            tau,
            ref if tau > 0 else None,
            history.exp() if obj is not None and "history" in obj.needs else None,
            group if self.grouped else None,
        )

    def path(
        self,
        theta: Tensor,
        effective: float,
        rounds: int,
        group: int | None = None,
        ref: Tensor | None = None,
    ) -> Tensor:
        """Log-laws (rounds + 1, N) of exact one-step rounds in the class, from parameters (P,).

        With ``group`` a group objective's rounds minimise the expected risk of groups of that size.
        Rounds of exact laws in the unrestricted and the log-linear class are theory's; the others
        are minimised here, each from the last one's parameters.
        """
        obj, start = self.objective, self.log_law(theta)
        listed = self.family in ("tokens", "features")
        if obj is not None and listed and not (self.grouped and group):
            ref = self.ref if ref is None else ref
            rest = {"rounds": rounds, "ref": ref.exp().numpy(), "tau": self.tau(effective)}
            p, beta = self.expert.numpy(), self.beta(effective)
            if isinstance(self.policy, LogLinearPolicy):
                model = log_linear.LogLinear(self.policy.features[0].numpy())
                found = model.self_play(p, theta.numpy(), obj, beta, **rest)
            else:
                q = start.exp().numpy()
                found = self_play(p, q, obj, beta, **rest, one_step=True, progress=False)
            return torch.from_numpy(np.log(np.asarray(found.policies)))
        laws = [start]
        for _ in range(rounds):
            theta = self.round(laws[-1], effective, group, ref, start).minimise(theta)
            laws.append(self.log_law(theta))
        return torch.stack(laws)

    def fixed_point(self, effective: float) -> Tensor:
        """Log-law (N,) at which unrestricted rounds rest, with the expert as reference.

        The expert itself, but for reference-free losses: there the damped iteration's limit.
        """
        law = self.expert.log()
        if self.objective is None or not self.objective.reference_free:
            return law
        p, beta = self.expert.numpy(), self.beta(effective)
        for _ in range(100):
            q = law.exp().numpy()
            history = q if "history" in self.objective.needs else None
            found = one_step_round(p, q, self.objective, beta, history=history).policy
            before, law = law, xp.log_normalise(0.5 * (law + torch.from_numpy(found).log()))
            if (law - before).abs().max() < 1e-13:
                break
        return law

    def beside(self, centre: Tensor, size: float) -> Tensor:
        """Log-law (N,) whose log-ratio to ``centre`` has that root mean square, to first order."""
        law = centre.exp()
        direction = torch.from_numpy(
            np.random.default_rng([self.seed, 2]).standard_normal(len(law))
        )
        direction = direction - law @ direction
        direction = direction / (law @ direction.square()).sqrt()
        return torch.as_tensor(xp.log_normalise(centre + size * direction))

    def factor(self, effective: float, size: float, rounds: int, group: int | None = None) -> float:
        """Factor of exact rounds from both sides of the fixed point, as SGD's is measured."""
        centre, found = self.fixed_point(effective), []
        for sign in (1.0, -1.0):
            theta = self.theta_of(self.beside(centre, sign * size))
            laws = self.path(theta, effective, rounds, group, ref=self.expert.log())
            found.append(shares(laws, laws[0], centre))
        return float(chain_factor(0.5 * (found[0] + found[1])))

    def local_factor(self, effective: float, group: int | None = None) -> float:
        """Factor of a small log-ratio in an exact round.

        Theory's closed form (T4, T6) where the opponent is pi_t; with an anchor at the expert
        ``(beta - R'(0))/(beta + tau)``; of the geometric opponent ``(1 - w)(1 - R'(0)/beta)``; else
        (T-SPIN, finite groups) the derivative of the exact round by central differences; to first
        order groups lengthen the effective step by `theory.objectives.finite_groups`'
        ``renyi_local_gain`` and ``centred_local_gain``.
        """
        obj = self.objective
        if obj is None:
            return 0.0
        if obj.reference_free or (self.grouped and group):
            return self.factor(effective, SMALL, 1, group)
        beta, tau = self.beta(effective), self.tau(effective)
        if tau > 0:
            return beta * (1.0 - effective) / (beta + tau)
        if obj.up_to_constant:  # invariant to a shift: one step is two steps (T3)
            return obj.opponent_factor * (1.0 - effective)
        return local_rate_one_step(obj, beta)


def shares(log_laws: Tensor, start: Tensor, centre: Tensor) -> Tensor:
    """Component of ``centre - log_law`` (..., N) along the start's: 1 at the start, 0 at centre."""
    weight = centre.exp()
    first = centre - start
    return (weight * first * (centre - log_laws)).sum(-1) / (weight * first.square()).sum(-1)


def chain_factor(share: Any) -> Any:
    """Least-squares factor of ``share[t+1] = f share[t]``; shares (rounds + 1, ...).

    Shares are to be averaged over both sides of the centre first: terms of second order cancel,
    and so does most of the noise, whose square would bias the factor.
    """
    return (share[1:] * share[:-1]).sum(0) / (share[:-1] ** 2).sum(0)


def least_hinge(expert: FloatArray, own: FloatArray) -> float:
    """``min_r E max(0, 1 - r(y) + r(y'))`` over rewards: a linear program in r and the slacks."""
    n = len(expert)
    cost = np.concatenate([np.zeros(n), np.outer(expert, own).ravel()])
    i, j = (x.ravel() for x in np.indices((n, n)))
    rows = np.zeros((n * n, n + n * n))
    at = np.arange(n * n)
    np.add.at(rows, (at, j), 1.0)
    np.add.at(rows, (at, i), -1.0)
    rows[at, n + at] = -1.0
    bounds = [(None, None)] * n + [(0.0, None)] * (n * n)
    return float(linprog(cost, A_ub=rows, b_ub=-np.ones(n * n), bounds=bounds).fun)

"""Stochastic losses of self-play and what their gradients estimate (reconstruction).

``p`` expert, ``q = pi_t`` opponent, ``S = grad log pi_theta(y)``, ``r = beta log pi_theta/q``. What
each one is in expectation; `toy_games.estimators.enumeration` checks it by enumerating all draws.
The other families are in `toy_games.estimators.rewards`.

* A pointwise or pairwise loss of one pair, or of all pairs of two groups (a U-statistic): its risk.
  Unbiased, for every objective of the registry.
* Centred SPIF on groups of m with their plug-in baseline: the finite-group risk of
  `theory.objectives.finite_groups`, not the risk of the exact laws (T17).
* The Renyi risk on groups of m: its risk + O(1/m), as a mean of logs is not the log of a mean.
* Any of them at ``theta = theta_t``: SFT's likelihood, times a positive number (T15). Not so if
  rewards are not 0 there: with an anchor elsewhere, a mixed opponent, without a reference.
  Away from ``theta_t`` it is another direction; NWJ at beta = 1 alone stays SFT's for ever, as
  ``q e^r = pi`` makes its own-response term ``E_pi S = 0`` at every theta.
* The same with own responses sampled at a temperature, from the likeliest tokens, or cut off and
  given an end-of-sequence token: ``E_p log pi - E_own log pi``, whose second term does not vanish.
* A squared margin on log-ratios divided by the length: at ``theta_t`` it raises
  ``E_p log pi(y)/|y|`` (SFT in which short responses count more) and lowers ``E_pi 1/|y|`` (longer
  responses).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from theory import objectives, preferences
from theory.errors import InvalidInput
from theory.objectives import Objective
from theory.objectives.implicit import implicit_reward
from toy_games.dynamics.self_play import sft_scale
from toy_games.engine.policies import Tokens
from toy_games.engine.trainable import starts_as_sft
from toy_games.estimators.enumeration import Draws, Estimator, gradient

START, AWAY = "first gradient", "later gradient"


@dataclass(frozen=True, eq=False)
class EstimationProblem:
    """One prompt of a token game with everything that an estimator may read.

    Attributes:
        policy: token policy of a game with one prompt and N responses.
        expert: law (N,).
        theta, theta_t, theta_ref: parameters (P,) now, of the opponent and of the reference.
        payoff: explicit reward (N,). preference: ``P(y > y')`` (N, N).
        beta, tau: weights of the KL step and of the anchor.
    """

    policy: Tokens
    expert: Tensor
    theta: Tensor
    theta_t: Tensor
    theta_ref: Tensor
    payoff: Tensor
    preference: Tensor
    beta: float = 1.0
    tau: float = 0.5

    def log_law(self, theta: Tensor) -> Tensor:
        """``log pi_theta(y)`` (B, N) of parameters (B, P)."""
        return self.policy.log_law(theta)[:, 0]

    def law(self, theta: Tensor) -> Tensor:
        """Probabilities (N,) of parameters (P,)."""
        return self.log_law(theta[None])[0].exp()

    @cached_property
    def log_t(self) -> Tensor:
        """Log-law of the opponent (N,)."""
        return self.log_law(self.theta_t[None])[0]

    @cached_property
    def log_ref(self) -> Tensor:
        """Log-law of the reference (N,)."""
        return self.log_law(self.theta_ref[None])[0]

    @cached_property
    def lengths(self) -> Tensor:
        """Tokens of every response (N,), the end-of-sequence token included."""
        return torch.from_numpy((self.policy.game.sequence_tokens[0] >= 0).sum(-1).astype(float))

    @cached_property
    def win_rates(self) -> Tensor:
        """``P(y > pi_t)`` (N,)."""
        return self.preference @ self.log_t.exp()


class _Loss:
    """An objective of the registry on a problem: its rewards, its laws, its extras."""

    def __init__(self, problem: EstimationProblem, objective: Objective) -> None:
        self.problem, self.objective = problem, objective
        log_t, log_ref = problem.log_t, problem.log_ref
        self.opponent = objective.opponent(log_t, log_t, log_ref)
        self.expert, self.own = problem.expert, self.opponent.exp()
        self.preferred = "preference" in objective.needs
        if self.preferred:
            pair = preferences.winner_loser(problem.preference.numpy(), log_t.exp().numpy())
            self.expert, self.own = (torch.from_numpy(np.asarray(law)) for law in pair)
        self.history = "history" in objective.needs

    def reward(self, theta: Tensor) -> Tensor:
        """Implicit reward (B, N)."""
        at = self.problem
        anchor = at.log_ref if "anchor" in self.objective.needs else None
        return implicit_reward(
            self.objective, at.log_law(theta), self.opponent, at.beta, anchor, at.tau
        )

    def risk(self, theta: Tensor) -> Tensor:
        """Exact risk (B,)."""
        r, extras = self.reward(theta), {}
        if self.history:
            extras = {"r_history": r, "history_law": self.problem.log_ref.exp()}
        if self.preferred:
            wins = self.problem.win_rates
            extras = {"expert_preference": wins, "policy_preference": wins}
        return torch.as_tensor(self.objective.reward_risk(r, r, self.expert, self.own, **extras))

    def of_pair(self, theta: Tensor, y: Tensor, own: Tensor, *first: Tensor) -> Tensor:
        """Loss of one drawn pair (B,)."""
        r, extras = self.reward(theta), {}
        if self.history:
            extras = {"r_history": r.gather(-1, first[0])}
        if self.preferred:
            wins = self.problem.win_rates
            extras = {"expert_preference": wins[y], "policy_preference": wins[own]}
        loss = self.objective.reward_loss(r.gather(-1, y), r.gather(-1, own), **extras)
        return torch.as_tensor(loss)[:, 0]

    def of_group(self, theta: Tensor, y: Tensor, own: Tensor) -> Tensor:
        """Risk of drawn groups (B,)."""
        r = self.reward(theta)
        return torch.as_tensor(self.objective.reward_risk(r.gather(-1, y), r.gather(-1, own)))

    def draws(self, count: int = 1) -> tuple[Draws, ...]:
        """Expert and own responses, and the first model's if the loss reads them."""
        both = Draws(self.expert, count), Draws(self.own, count)
        return (*both, Draws(self.problem.log_ref.exp())) if self.history else both


def one_pair(problem: EstimationProblem, objective: Objective) -> Estimator:
    """The loss of one independent pair, at ``theta``: unbiased for the risk."""
    loss = _Loss(problem, objective)
    target = gradient(loss.risk, problem.theta)
    return Estimator(
        "self-play loss",
        f"{objective.name}, one pair",
        problem.theta,
        "risk under the exact laws",
        target,
        loss.draws(),
        loss.of_pair,
        "the same",
        target,
    )


def all_pairs(problem: EstimationProblem, objective: Objective, size: int) -> Estimator:
    """A pairwise loss over all pairs of ``size`` expert and own responses: a U-statistic."""
    loss = _Loss(problem, objective)
    return dataclasses.replace(
        one_pair(problem, objective),
        name=f"{objective.name}, all pairs of {size}+{size}",
        draws=loss.draws(size),
        loss=loss.of_group,
        size=size,
    )


def grouped(problem: EstimationProblem, objective: Objective, size: int) -> Estimator:
    """A group objective on ``size`` expert and own responses, for its exact risk: biased."""
    loss = _Loss(problem, objective)
    known = known_of_groups(objective)
    return Estimator(
        "self-play loss",
        f"{objective.name}, groups of {size}+{size}",
        problem.theta,
        "risk under the exact laws",
        gradient(loss.risk, problem.theta),
        loss.draws(size),
        loss.of_group,
        "the finite-group risk (T17)" if known else "the risk + O(1/m)",
        _of_groups(loss, size),
        exact=known,
        shrinks=True,
        size=size,
    )


def finite_groups(problem: EstimationProblem, objective: Objective, size: int) -> Estimator:
    """A group objective on groups, for its expected finite-group risk: unbiased (T17)."""
    biased = grouped(problem, objective, size)
    assert biased.predicted is not None
    return dataclasses.replace(
        biased,
        name=f"{biased.name}, finite-group risk",
        claims="finite-group risk",
        target=biased.predicted,
        really="the same",
        shrinks=False,
    )


def first_gradient(
    problem: EstimationProblem, objective: Objective, away: bool = False
) -> Estimator:
    """Any loss for SFT's gradient (times its first slope): at ``theta_t``, or away from it."""
    theta = problem.theta if away else problem.theta_t
    scale = float(sft_scale(objective, torch.tensor(problem.beta, dtype=torch.float64)))
    target = gradient(lambda point: -scale * (problem.log_law(point) @ problem.expert), theta)
    loss = _Loss(problem, objective)
    group = not objective.has_loss
    unmoved = not away and starts_as_sft(objective)
    size = 2 if group else 1
    return Estimator(
        AWAY if away else START,
        objective.name,
        theta,
        "SFT's likelihood, times the first slope",
        target,
        loss.draws(size),
        loss.of_group if group else loss.of_pair,
        "the same (T15)" if unmoved else "its own risk",
        target if unmoved else None,
        size=size,
    )


def stale_samples(problem: EstimationProblem) -> list[Estimator]:
    """SPIN's first gradient with own responses that are not drawn from ``pi_t``."""
    spin = objectives.get("spin")
    base = first_gradient(problem, spin)
    scale = float(sft_scale(spin, torch.tensor(problem.beta, dtype=torch.float64)))
    cut = problem.policy.game.horizon - 1
    own_laws = {
        "own at temperature 0.7": tempered(problem, 0.7),
        "own at temperature 1.3": tempered(problem, 1.3),
        "own from the top 2 tokens": top_tokens(problem, 2),
        f"own cut at {cut} tokens, false EOS": false_ends(problem, cut),
    }

    def contrast(own: Tensor) -> Tensor:
        return gradient(
            lambda t: -scale * (problem.log_law(t) @ (problem.expert - own)), problem.theta_t
        )

    return [
        dataclasses.replace(
            base,
            name=f"spin, {name}",
            draws=(base.draws[0], Draws(own)),
            really="SFT's less the own law's likelihood",
            predicted=contrast(own),
        )
        for name, own in own_laws.items()
    ]


def length_normalised(problem: EstimationProblem, away: bool = False) -> Estimator:
    """IPO on log-ratios divided by each response's length, for IPO at ``beta/mean length``.

    With one length for all responses the two are the same loss.
    """
    theta = problem.theta if away else problem.theta_t
    ipo: Any = objectives.get("ipo")
    own = problem.log_t.exp()
    lengths, beta = problem.lengths, problem.beta
    mean = 0.5 * (problem.expert + own) @ lengths

    def score(point: Tensor, length: Tensor) -> Tensor:
        return beta * (problem.log_law(point) - problem.log_t) / length

    def loss(point: Tensor, y: Tensor, other: Tensor) -> Tensor:
        r = score(point, lengths)
        return torch.as_tensor(ipo.reward_loss(r.gather(-1, y), r.gather(-1, other)))[:, 0]

    def target(point: Tensor) -> Tensor:
        r = score(point, mean)
        return torch.as_tensor(ipo.reward_risk(r, r, problem.expert, own))

    def weighted_sft(point: Tensor) -> Tensor:
        log_law = problem.log_law(point)
        gain = log_law @ (problem.expert / lengths) - log_law.exp() @ (1.0 / lengths)
        return -2.0 * ipo.margin * beta * gain

    return Estimator(
        AWAY if away else START,
        "ipo, log-ratios divided by length",
        theta,
        "IPO on sequences at beta/mean length",
        gradient(target, theta),
        (Draws(problem.expert), Draws(own)),
        loss,
        "another risk" if away else "SFT weighted by 1/length, and longer responses",
        None if away else gradient(weighted_sft, theta),
    )


# -- laws that own responses are drawn from in practice -------------------------------------------


def tempered(problem: EstimationProblem, temperature: float) -> Tensor:
    """Law (N,) of sampling every token of ``pi_t`` at a temperature."""
    return _of_tokens(problem, _log_policy_t(problem) / temperature)


def top_tokens(problem: EstimationProblem, count: int) -> Tensor:
    """Law (N,) of sampling every token of ``pi_t`` among its ``count`` likeliest."""
    log_policy = _log_policy_t(problem)
    least = log_policy.topk(count, dim=-1).values[..., -1:]
    return _of_tokens(problem, log_policy.masked_fill(log_policy < least, -torch.inf))


def false_ends(problem: EstimationProblem, cut: int) -> Tensor:
    """Law (N,) of responses of ``pi_t`` cut after ``cut`` tokens and given an EOS there."""
    game = problem.policy.game
    if game.eos is None:
        raise InvalidInput("false ends need a game with an end-of-sequence token")
    tokens = [r.tokens for r in game.sequences()[0]]
    place = {row: i for i, row in enumerate(tokens)}
    kept = [place[row if len(row) <= cut else (*row[:cut], game.eos)] for row in tokens]
    law = torch.zeros_like(problem.expert)
    return law.index_add(0, torch.tensor(kept), problem.log_t.exp())


def _log_policy_t(problem: EstimationProblem) -> Tensor:
    return problem.policy.log_policy(problem.theta_t[None])[0]


def _of_tokens(problem: EstimationProblem, logits: Tensor) -> Tensor:
    log_policy = logits.log_softmax(-1)
    return torch.from_numpy(problem.policy.game.sequence_law(log_policy.numpy())[0])


# -- predictions ----------------------------------------------------------------------------------


def known_of_groups(objective: Objective) -> bool:
    """Whether a closed form of its best response to groups exists: its risk is quadratic (T17)."""
    return objective.has_loss or objective.writes("finite_group_reward")


def _of_groups(loss: _Loss, size: int) -> Tensor:
    """Gradient of the expected risk of groups of m, by the delta method.

    ``risk + tr(H_p (diag p - p p'))/(2 m)`` and the same of q, with H the risk's second derivative
    in the frequencies of a side: exact where the risk is a polynomial of degree two in them, as
    centred SPIF's is (T17), else of leading order in 1/m.
    """

    def second(law: Tensor, risk: Callable[[Tensor], Tensor]) -> Tensor:
        spread = torch.diag(law) - torch.outer(law, law)
        curvature = torch.autograd.functional.hessian(risk, law, create_graph=True)
        return (curvature * spread).sum()

    def corrected(theta: Tensor) -> Tensor:
        r, p, q = loss.reward(theta)[0], loss.expert, loss.own

        def risk(w_p: Tensor, w_q: Tensor) -> Tensor:
            return torch.as_tensor(loss.objective.reward_risk(r, r, w_p, w_q))

        more = second(p, lambda w: risk(w, q)) + second(q, lambda w: risk(p, w))
        return risk(p, q) + more / (2.0 * size)

    return gradient(corrected, loss.problem.theta)

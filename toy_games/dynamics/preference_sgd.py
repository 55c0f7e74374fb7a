"""Preference self-play by gradient steps on the losses that are trained in practice (T3, T11).

A round freezes ``pi_t`` and takes ``steps_per_round`` steps on the loss of the implicit reward
``beta log pi/pi_t + tau log pi/ref``, on responses drawn from ``pi_t``:

* pair losses (IPO, DPO, SPIF, ...) see K/2 pairs (winner, loser), the two of one comparison;
* SPPO sees K responses and the plug-in estimate of ``P(y > pi_t)`` from the comparisons of all
  with all, with or without each with itself;
* SFT raises the likelihood of the winners of K/2 pairs.

The rate is in units of SFT on winners: in expectation every first step of a round is that of SFT
at the same rate (T15, last statement), because ``p_w + p_l = 2 pi_t``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.streams import draw
from theory.errors import InvalidInput, Unavailable, refuse
from theory.objectives import Objective
from theory.objectives.implicit import implicit_reward
from toy_games.dynamics.preference_estimates import group_estimates
from toy_games.dynamics.preference_rounds import PreferenceBatch, algorithm_of
from toy_games.engine.simulator import State
from toy_games.engine.trainable import grouped


class PreferenceSGD(PreferenceBatch):
    """A batch of softmax policies; one step is one gradient step."""

    def __init__(
        self,
        algorithm: str,
        rows: pd.DataFrame,
        preference: Any,
        start: Any,
        ref: Any = None,
        target: Any = None,
    ) -> None:
        """As :class:`PreferenceBatch`; ``samples`` K is even, or 0 in all rows: exact expectations.

        Raises:
            InvalidInput: everything that is wrong. Unavailable: the algorithm has no loss.
        """
        super().__init__(rows, preference, start, ref, target)
        self.algorithm = algorithm_of(algorithm)
        if self.algorithm.mixture:
            raise Unavailable("nash_md is a rule for rounds: it has no loss on pairs")
        self.objective = self.algorithm.objective
        if self.objective is not None:
            self.objective.require("risk")
            if self.objective.reference_free or "history" in self.objective.needs:
                raise Unavailable(f"{algorithm} scores no pairs by log-ratios to pi_t alone")
        self.on_estimates = self.objective is not None and "preference" in self.objective.needs
        problems = []
        if bool((self.samples % 2 != 0).any()):
            problems.append("samples: needed are even numbers, a pair has two responses")
        if bool((self.samples == 0).any()) and bool((self.samples > 0).any()):
            problems.append("samples: 0 (exact) and samples do not go together in one batch")
        if bool(self.own.any()) and not self.on_estimates:
            problems.append(f"self_comparison: {algorithm} has none; it goes with sppo")
        refuse(problems)
        self.most = int(self.samples.max())
        self.steps_per_round = self.column("steps_per_round").to(torch.int64)
        scale = winner_scale(self.objective, (self.beta + self.tau)[:, 0])
        self.step_size = self.column("rate") / scale
        self.identity = f"{algorithm} {self.identity}"

    def start(self) -> State:
        """Logits, and the log-law of the opponent of the first round."""
        return {"theta": self.log_start.clone(), "opponent": self._opponent(self.log_start)}

    def _opponent(self, log_law: Tensor) -> Tensor:
        if self.objective is None:
            return log_law.clone()
        return self.objective.opponent(log_law, self.log_start, self.log_ref).clone()

    def advance(self, state: State, step: int) -> State:
        """One gradient step; at the start of a row's round its opponent is frozen anew."""
        theta, opponent = state["theta"], state["opponent"]
        due = (step % self.steps_per_round == 0)[:, None]
        opponent = torch.where(due, self._opponent(theta.log_softmax(-1)), opponent)
        with torch.enable_grad():
            point = theta.detach().requires_grad_()
            loss = self.loss(point.log_softmax(-1), opponent, step)
            (gradient,) = torch.autograd.grad(loss.sum(), point)
        return {"theta": theta - self.step_size[:, None] * gradient, "opponent": opponent}

    def measure(self, state: State, step: int) -> dict[str, Tensor]:
        """Gap of the policy, and distances to the target."""
        log_law = state["theta"].log_softmax(-1)
        return {"gap": self.gap(log_law.exp()), **self.distances(log_law)}

    def loss(self, log_law: Tensor, opponent: Tensor, step: int) -> Tensor:
        """Loss of every row (rows,), on the samples of the step or in expectation."""
        law = opponent.exp()
        reward = log_law
        if self.objective is not None:
            prior, anchor = opponent, self.log_ref
            reward = implicit_reward(self.objective, log_law, prior, self.beta, anchor, self.tau)
        if self.most == 0:
            return self._expected(log_law, reward, law)
        if self.on_estimates:
            return self._on_group(reward, law, step)
        winner, loser = self.pairs(law, step, self.most // 2)
        inside = torch.arange(self.most // 2) < (self.samples // 2)[:, None]
        weight = inside / (self.samples // 2)[:, None].to(torch.float64)
        if self.objective is None:
            return -(weight * log_law.gather(-1, winner)).sum(-1)
        r_w, r_l = reward.gather(-1, winner), reward.gather(-1, loser)
        if grouped(self.objective):
            return self.objective.reward_risk(r_w, r_l, weight, weight)
        return (weight * self.objective.reward_loss(r_w, r_l)).sum(-1)

    def _on_group(self, reward: Tensor, law: Tensor, step: int) -> Tensor:
        """Every response of the group stands on both sides of the loss, at half its weight."""
        assert self.objective is not None
        drawn = draw(law, self.streams.uniform("group", step, (self.most,)))
        luck = self.streams.uniform("group comparisons", step, (self.most, self.most))
        estimate = group_estimates(self.preference, drawn, luck, self.samples, self.own)
        r = reward.gather(-1, drawn)
        extras = {"expert_preference": estimate, "policy_preference": estimate}
        return (self.used(self.most) * self.objective.reward_loss(r, r, **extras)).sum(-1)

    def _expected(self, log_law: Tensor, reward: Tensor, law: Tensor) -> Tensor:
        """The mean over all pairs of responses and both outcomes of their comparison."""
        win = self.win_rate(law)
        won, lost = 2.0 * law * win, 2.0 * law * (1.0 - win)
        if self.objective is None:
            return -(won * log_law).sum(-1)
        if self.on_estimates:
            extras = {"expert_preference": win, "policy_preference": win}
            return (law * self.objective.reward_loss(reward, reward, **extras)).sum(-1)
        if grouped(self.objective):
            return self.objective.reward_risk(reward, reward, won, lost)
        pairs = 2.0 * law[:, :, None] * law[:, None, :] * self.preference
        losses = self.objective.reward_loss(reward[:, :, None], reward[:, None, :])
        return (pairs * losses).sum((-2, -1))


def winner_scale(objective: Objective | None, weight: Tensor) -> Tensor:
    """Factor of a round's first gradient over that of SFT on winners, by differentiation at 0.

    Losers pull as hard as winners: ``E_{p_l} grad log pi = -E_{p_w} grad log pi`` at ``pi_t``.
    ``weight`` is that of ``log pi`` in the implicit reward, ``beta + tau``.
    """
    if objective is None:
        return torch.ones_like(weight)
    on_winner, on_loser = objective.gradient_at_start
    scale = on_loser - on_winner
    if not np.isfinite(scale) or scale <= 0:
        raise InvalidInput(f"{objective.name}: its loss has no slope at reward 0 to set a rate by")
    return weight * scale

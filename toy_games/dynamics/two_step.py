"""Two-step rounds: an explicit reward player first, then a policy gradient on what it pays.

A round freezes the opponent ``pi_t`` and a reward table ``r_t``; the policy then ascends
``E_pi[r_t] - beta KL(pi||pi_t)`` within its class, in expectation or from own samples (REINFORCE
with a leave-one-out baseline). In a class that holds the exact steps this is the round of one loss
(T3); in a smaller class it is another algorithm, which descends ``D_Phi(pi_theta||p)`` (T15).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from theory.errors import InvalidInput
from theory.objectives import Objective
from theory.rounds.two_step import reward_of_log_laws
from toy_games.dynamics.self_play import SelfPlay
from toy_games.engine.policies import LogLinearPolicy, Policy
from toy_games.engine.simulator import State
from toy_games.engine.trainable import beta_at

RewardClass = Literal["tabular", "linear"]


class TwoStepRounds(SelfPlay):
    """Two-step rounds with the reward link of ``objective``; arguments as for `SelfPlay`.

    The reward player is

    * "tabular": the exact best response ``R(log p/pi_t)`` on all responses; expert responses come
      as the data's law, mixed with ``smoothing`` of the start's, which keeps log-ratios finite;
    * "linear": ``w . features(y)`` under the squared penalty ``c/2 (E_p + E_pi)[r^2]``, c = 1, in
      closed form: a reward that vanishes iff the means of the features agree. The policy is a
      `LogLinearPolicy` with features in every row.

    Rates are in SFT units: near an expert in the class the first gradient of a round is ``R'(0)``
    times SFT's, and the rate is divided by that.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        *args: Any,
        rewards: RewardClass = "tabular",
        smoothing: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """InvalidInput: a reward class or smoothing unknown. Unavailable: no best response."""
        if rewards not in ("tabular", "linear") or not 0.0 <= smoothing < 1.0:
            raise InvalidInput(
                f"rewards={rewards!r}, smoothing={smoothing!r}; needed are 'tabular' or 'linear', "
                "and a share in [0, 1)"
            )
        if rewards == "linear" and not isinstance(policy, LogLinearPolicy):
            raise InvalidInput("rewards='linear': needed is a LogLinearPolicy")
        self.rewards, self.smoothing = rewards, smoothing
        super().__init__(policy, objective, *args, **kwargs)
        objective.require("reward")
        self.identity += f" two steps, {rewards}, smoothing {smoothing}"
        self.step_size = self.column("rate") / beta_at(objective, 1.0)

    def start(self) -> State:
        """As `SelfPlay.start`, and the reward of the first round."""
        state = super().start()
        return state | {"reward": self._best_response(state["data"], state["opponent"])}

    def advance(self, state: State, step: int) -> State:
        """One policy-gradient step; where a round begins, the reward player answers first."""
        due = step % self.steps_per_round == 0
        if step and bool(due.any()):
            current = self.policy.log_law(state["theta"])
            fresh = self._best_response(state["data"], current)
            state = state | {"reward": torch.where(due[:, None, None], fresh, state["reward"])}
        return super().advance(state, step)

    def loss(self, theta: Tensor, state: State, step: int) -> Tensor:
        """``beta KL(pi||pi_t) - E_pi[r_t]`` (rows,); on a batch, a surrogate of equal gradient."""
        log_law = self.policy.log_law(theta)
        price = self.beta[:, None, None] * (log_law - state["opponent"]) - state["reward"]
        if self.data.batch is None:
            return (log_law.exp() * price).sum(-1).mean(-1)
        size = (self.policy.shape[0], self.data.batch)
        drawn = self.drawn("own", log_law.detach().exp(), step, size)
        cost = price.detach().gather(-1, drawn)
        left_out = (cost - cost.mean(-1, keepdim=True)) * size[1] / max(size[1] - 1, 1)
        return (left_out * log_law.gather(-1, drawn)).mean((-2, -1))

    def _best_response(self, data: Tensor, log_current: Tensor) -> Tensor:
        if self.rewards == "linear":
            assert isinstance(self.policy, LogLinearPolicy)
            return _linear_best_response(data, log_current.exp(), self.policy.features[:, 0])
        assert self.objective is not None
        law = (1.0 - self.smoothing) * data + self.smoothing * self.log_start.exp()
        found = reward_of_log_laws(self.objective, law.log().numpy(), log_current.numpy())
        return torch.from_numpy(found)


def _linear_best_response(p: Tensor, q: Tensor, features: Tensor) -> Tensor:
    """``max_w E_p r - E_q r - (E_p + E_q) r^2 / 2`` for ``r = w . features``, (B, 1, N).

    Features (B, N, D) may hold columns of zeros; they get weight 0.
    """
    p, q = p[:, 0], q[:, 0]
    gap = torch.einsum("bn,bnd->bd", p - q, features)
    second = torch.einsum("bn,bnd,bne->bde", p + q, features, features)
    unused = (features.abs().amax(1) == 0).to(p.dtype)
    weight = torch.linalg.solve(second + torch.diag_embed(unused), gap)
    return torch.einsum("bnd,bd->bn", features, weight)[:, None]

"""Recursions over the depths of a token MDP: soft value iteration, occupancies, chain rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from theory import arguments
from theory.errors import InvalidInput
from theory.laws import is_real
from theory.tokens.layout import TokenLayout
from theory.tokens.tree import (
    FloatArray,
    common_batch,
    numbers,
    policy_of,
    policy_problems,
)


class SoftValues(NamedTuple):
    """What one exact policy step gives, no :class:`Solution`: nothing iterates or is certified.

    Log-policy (..., S, A), V (..., S) and Q = r + V(s') (..., S, A) of soft value iteration.
    """

    policy: FloatArray
    V: FloatArray
    Q: FloatArray


@dataclass(frozen=True, eq=False, repr=False)
class TokenRecursions(TokenLayout):
    """What can be computed on states without enumerating responses."""

    def forward(self, policy: FloatArray, log: bool) -> tuple[FloatArray, FloatArray]:
        """Reach probabilities of states and state-actions (`log`: of log-probabilities)."""
        batch = policy.shape[:-2]
        reach = np.empty((*batch, self.n_states))
        flow = np.empty(policy.shape)
        flat = flow.reshape(*batch, -1)
        reach[..., : self.n_prompts] = 0.0 if log else 1.0
        for first, last in self.layers:
            if first:
                begin, end = self.edge_start[first], self.edge_start[last]
                entering = np.take(flat, self.edges[begin:end], axis=-1)
                if not self.is_tree:
                    starts = self.edge_start[first:last] - begin
                    add = np.logaddexp if log else np.add
                    entering = add.reduceat(entering, starts, axis=-1)
                reach[..., first:last] = entering
            combine = np.add if log else np.multiply
            combine(
                reach[..., first:last, None],
                policy[..., first:last, :],
                out=flow[..., first:last, :],
            )
        return reach, flow

    def backward(self, payoff: FloatArray, temperature: float) -> tuple[FloatArray, FloatArray]:
        """Log-policy and V of V(s) = T log sum_a exp((payoff(s,a) + V(s'))/T); overwrites payoff.

        States from which no response has positive weight have V = -inf and a uniform policy.
        """
        value = np.zeros((*payoff.shape[:-2], self.n_states + 1))
        for first, last in reversed(self.layers):
            block = payoff[..., first:last, :]
            block += np.take(value, self.next_state[first:last], axis=-1)
            top = block.max(-1, keepdims=True)
            dead = np.isneginf(top)
            if dead.any():
                block[...] = np.where(dead & self.allowed[first:last], 0.0, block)
                block -= np.where(dead, 0.0, top)
            else:
                block -= top
            if temperature != 1.0:
                block /= temperature
            total = np.log(np.exp(block).sum(-1, keepdims=True))
            block -= total
            value[..., first:last] = np.where(dead, -np.inf, top + temperature * total)[..., 0]
        return payoff, value[..., :-1]

    def soft_value_iteration(
        self,
        reward: ArrayLike,
        log_prior: ArrayLike | None = None,
        beta: float = 1.0,
        tau: float = 0.0,
        log_ref: ArrayLike | None = None,
        sequence_reward: ArrayLike | None = None,
    ) -> SoftValues:
        """The policy step argmax E_pi[r] - beta KL(pi||prior) - tau KL(pi||ref), exactly (T2).

            V(s) = (beta+tau) log sum_a [prior^beta ref^tau e^{r(s,a)+V(s')}]^{1/(beta+tau)}

        reward: (..., S, A) or a number, nats; -inf forbids an action.  log_prior, log_ref: (..., S,
        A), log_prior required if beta > 0, log_ref if tau > 0.  sequence_reward: (..., prompts, N)
        is added where a response ends (trees only).  Axes before the last two broadcast.
        States from which nothing is possible get V = -inf and a uniform policy.

        Raises InvalidInput for weights, shapes or values outside these, and for a prompt none of
        whose responses has positive weight.
        """
        problems = arguments.number("beta", beta, 0.0) + arguments.number("tau", tau, 0.0)
        if not problems and beta + tau == 0:
            problems.append("beta + tau must be positive (a policy step needs a KL weight)")
        payoff = numbers("reward", reward)
        cells = (self.n_states, self.n_actions)
        if payoff.ndim and payoff.shape[-2:] != cells:
            problems.append(
                f"reward must be a number or have shape (..., {cells[0]}, {cells[1]}), "
                f"got {payoff.shape}"
            )
        elif (np.isnan(payoff) | np.isposinf(payoff)).any():
            problems.append("reward must be finite or -inf, it has NaN or +inf entries")
        weights: list[tuple[float, FloatArray]] = []
        for name, weight, given in (("beta", beta, log_prior), ("tau", tau, log_ref)):
            role = "log_prior" if name == "beta" else "log_ref"
            if not is_real(weight) or weight == 0:
                continue
            if given is None:
                problems.append(f"{role} is required when {name} > 0")
            else:
                found = policy_problems(given, self.allowed, self.describe, role)
                problems += found
                if not found:
                    weights.append((weight, policy_of(given)))
        if sequence_reward is not None and not problems:
            extra = numbers("sequence_reward", sequence_reward)
            problems += self._law_shape_problems(extra, "sequence_reward")
            if not problems:
                live = extra[..., self.responses >= 0]
                if (np.isnan(live) | np.isposinf(live)).any():
                    problems.append("sequence_reward must be finite or -inf, it has NaN or +inf")
                else:
                    common_batch(reward=payoff, sequence_reward=extra)
                    payoff = payoff + self._spread(extra, 0.0)
        if problems:
            raise InvalidInput(problems)
        total = np.broadcast_to(payoff, np.broadcast_shapes(payoff.shape, cells))
        common_batch(reward=total, **{f"policy {n}": law for n, (_, law) in enumerate(weights, 1)})
        for weight, log_law in weights:
            total = total + weight * log_law
        total = np.where(self.allowed, total, -np.inf)
        policy, value = self.backward(total, beta + tau)
        dead = np.isneginf(value[..., : self.n_prompts]).any(tuple(range(value.ndim - 1)))
        if dead.any():
            raise InvalidInput(
                [
                    f"no response of {self.describe(int(s))} has positive probability and a reward "
                    "above -inf"
                    for s in np.flatnonzero(dead)[:3]
                ]
            )
        ended = np.concatenate([value, np.zeros((*value.shape[:-1], 1))], axis=-1)
        return SoftValues(policy, value, payoff + np.take(ended, self.next_state, axis=-1))

    def occupancy(self, log_policy: ArrayLike) -> FloatArray:
        """(..., S, A) probability that a response passes through s and takes a there."""
        return self.forward(np.exp(self.validate_policy(log_policy)), log=False)[1]

    def log_occupancy(self, log_policy: ArrayLike) -> FloatArray:
        """(..., S, A) log of `occupancy`, without underflow."""
        return self.forward(self.validate_policy(log_policy), log=True)[1]

    def expected_sum(self, log_policy: ArrayLike, per_state_action: ArrayLike) -> FloatArray:
        """(..., prompts) E_pi of the sum of f(s, a) along a response; 0 times inf counts as 0."""
        policy = np.exp(self.validate_policy(log_policy))
        summand = self.per_state_action(per_state_action, "per_state_action")
        batch = common_batch(policy=policy, per_state_action=summand)
        value = np.zeros((*batch, self.n_states + 1))
        for first, last in reversed(self.layers):
            law = policy[..., first:last, :]
            gain = summand[..., first:last, :] + np.take(
                value, self.next_state[first:last], axis=-1
            )
            value[..., first:last] = (law * np.where(law > 0, gain, 0.0)).sum(-1)
        return value[..., : self.n_prompts]

    def kl(self, log_policy: ArrayLike, log_other: ArrayLike) -> FloatArray:
        """(..., prompts) KL of the sequence laws in nats, by the chain rule over depths."""
        law = self.validate_policy(log_policy)
        return self.expected_sum(law, self.conditional_logratio(law, log_other))

    def conditional_logratio(self, log_policy: ArrayLike, log_other: ArrayLike) -> FloatArray:
        """(..., S, A) u_h = log p(a|s)/q(a|s) in nats; 0 where both probabilities are 0 (T14)."""
        first = self.validate_policy(log_policy, "first policy")
        second = self.validate_policy(log_other, "second policy")
        common_batch(first=first, second=second)
        absent = np.isneginf(first) & np.isneginf(second)
        return np.where(absent, 0.0, first) - np.where(absent, 0.0, second)

    def per_state_action(self, given: ArrayLike, what: str) -> FloatArray:
        """Numbers (..., S, A) of the states and actions. InvalidInput: of another shape, or none"""
        values = numbers(what, given)
        if values.ndim < 2 or values.shape[-2:] != (self.n_states, self.n_actions):
            raise InvalidInput(
                [
                    f"{what} must have shape (..., {self.n_states} states, {self.n_actions} "
                    f"actions), got {values.shape}"
                ]
            )
        return values

    def _law_shape_problems(self, law: FloatArray, what: str) -> list[str]:
        if not self.is_tree:
            return [
                f"{what} is per response, which merged states do not tell apart: use the tree, "
                "game.unrolled()[0]"
            ]
        if law.shape[-2:] != self.responses.shape:
            prompts, count = self.responses.shape
            return [
                f"{what} must have shape (..., {prompts} prompts, {count} responses), "
                f"got {law.shape}"
            ]
        return []

    def _spread(self, per_response: FloatArray, fill: float) -> FloatArray:
        """(..., S, A) array with the values of responses where they end and `fill` elsewhere."""
        live = self.responses >= 0
        cells = np.full((*per_response.shape[:-2], self.n_states * self.n_actions), fill)
        cells[..., self.responses[live]] = per_response[..., live]
        return cells.reshape(*per_response.shape[:-2], self.n_states, self.n_actions)

"""An anchored game and what is refused before it is solved (T10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from theory import arguments, laws, objectives
from theory.certificate import require_best_response, require_potential
from theory.equilibria import newton
from theory.errors import Unavailable, refuse
from theory.objectives import Objective, derivatives
from theory.result import FloatArray

Kind = Literal["saddle", "equilibrium"]
METHODS = ("fast", "convex")


@dataclass(frozen=True)
class Game:
    """A validated instance: normalised laws (..., n), objective, anchor, which equilibrium."""

    kind: Kind
    expert: FloatArray
    ref: FloatArray
    obj: Objective
    tau: float

    @property
    def has_gain(self) -> bool:
        """Whether the link has a gain that depends on ``Delta(p, pi)`` (T9)."""
        return self.obj.has_gain

    def at(self, prompt: tuple[int, ...]) -> Game:
        """The game of one prompt, laws (n,)."""
        return replace(self, expert=self.expert[prompt], ref=self.ref[prompt])

    def delta_of(self, policy: FloatArray) -> FloatArray:
        """``Delta(p, pi)`` with a last axis of 1."""
        return laws.triangular(self.expert, policy)[..., None]

    def separable(self, delta: FloatArray | None = None) -> newton.Separable:
        """The separable problem; ``delta`` (..., 1) fixes the gain of links that have one."""
        obj = self.obj
        numeric = not (obj.writes("link_formula") or obj.has_gain)

        def pay(u: FloatArray) -> FloatArray:
            with np.errstate(all="ignore"):
                return self.pay_of(np.asarray(obj.link(u, delta)))

        def torch_pay(u: Any) -> Any:
            import torch

            fixed = None if delta is None else torch.from_numpy(np.array(delta))
            return self.pay_of(obj.link_formula(u, fixed))

        def slope_pay(u: FloatArray) -> tuple[FloatArray, FloatArray]:
            if not numeric:
                return newton.value_and_slope(torch_pay, u)
            r = np.asarray(obj.link(u, delta))
            slope = derivatives.implicit_slope(obj.a, obj.b, r, obj.reward_domain)
            if self.kind == "equilibrium":
                return r, slope
            return -np.asarray(obj.b(r)), -derivatives.derivative(obj.b, r) * slope

        return newton.Separable(self.expert, self.ref, self.tau, pay, slope_pay)

    def pay_of(self, reward: Any) -> Any:
        """What the policy is paid: the reward, or ``-b(r)`` in the saddle point."""
        return reward if self.kind == "equilibrium" else -self.obj.b(reward)

    def reward(self, policy: FloatArray, pay: FloatArray, delta: FloatArray | None) -> FloatArray:
        """The reward of that pay: ``R(log p/pi)``, or within the jump of a set-valued link."""
        # where p = 0 < ref the reward is the limit, also if the policy has left the outcome
        u = np.where(self.expert == 0, -np.inf, laws.log_ratio(self.expert, policy))
        with np.errstate(all="ignore"):
            r = np.asarray(self.obj.link(u, delta))
        if self.kind == "equilibrium":
            return np.where(self.ref > 0, pay, r)
        with np.errstate(all="ignore"):
            off = np.abs(pay + np.asarray(self.obj.b(r))) > 1e-12 * (1.0 + np.abs(pay))
        if not off.any():
            return r
        width = 1e-6  # brackets the jump; the pay says where within it
        low, high = (np.asarray(self.obj.link(u + d, delta)) for d in (-width, width))
        for _ in range(100):
            middle = 0.5 * (low + high)
            below = -np.asarray(self.obj.b(middle)) < pay
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.where(off, 0.5 * (low + high), r)

    def value(self, policy: FloatArray, reward: FloatArray | None = None) -> FloatArray:
        """What is minimised, (...): the payoff or the potential, plus the anchor.

        The payoff is that of a given reward, or of the link's.
        """
        anchor = self.tau * laws.kl_stable(policy, self.ref) if self.tau > 0 else 0.0
        if self.kind == "saddle":
            if reward is None:
                with np.errstate(all="ignore"):
                    reward = np.asarray(self.obj.link(laws.log_ratio(self.expert, policy)))
            return self.obj.value(self.expert, policy, reward) + anchor
        if self.has_gain:
            gain = self.obj.gain(laws.triangular(self.expert, policy))
            middle = laws.kl_stable(self.expert, 0.5 * (self.expert + policy))
            return np.asarray(2.0 * gain * middle + anchor)
        return self.obj.potential(policy, self.expert) + anchor

    def describe(self) -> str:
        """The value by name, for the status."""
        if self.kind == "saddle":
            return "saddle point of E_p[a(r)] + E_pi[b(r)] + tau KL(pi||ref)"
        named = "2 kappa KL(p||(p+pi)/2)" if self.has_gain else "D_Phi(pi||p)"
        return f"equilibrium of the rounds, minimum of {named} + tau KL(pi||ref)"


def solve_gain(
    game: Game, policy_at: Callable[[FloatArray], FloatArray], tolerance: float
) -> FloatArray:
    """Policy whose own ``Delta(p, pi)`` is the one that its link's gain was computed from (T9).

    ``Delta(p, pi(delta)) - delta`` changes its sign over [0, 2]: Illinois method, per prompt.
    """

    def excess_at(delta: FloatArray) -> tuple[FloatArray, FloatArray]:
        policy = policy_at(delta)
        return laws.triangular(game.expert, policy) - delta, policy

    low, high = np.zeros(game.expert.shape[:-1]), np.full(game.expert.shape[:-1], 2.0)
    (at_low, policy), (at_high, _) = excess_at(low), excess_at(high)
    for _ in range(100):
        with np.errstate(divide="ignore", invalid="ignore"):
            delta = high - at_high * (high - low) / (at_high - at_low)
        delta = np.where((delta >= low) & (delta <= high), delta, 0.5 * (low + high))
        excess, policy = excess_at(delta)
        if np.all((np.abs(excess) <= tolerance) | (high - low <= tolerance)):
            break
        above = excess > 0
        # the end that stays twice counts half
        at_high = np.where(above, 0.5 * at_high, excess)
        at_low = np.where(above, excess, 0.5 * at_low)
        low, high = np.where(above, delta, low), np.where(above, high, delta)
    return policy


# --- what is refused ----------------------------------------------------------------------------


def checked(
    kind: Kind,
    expert: Any,
    ref: Any,
    obj: Objective | str,
    tau: Any,
    method: Any,
    tolerance: Any,
    max_iterations: Any,
) -> Game:
    """The game, or a refusal with everything that is wrong."""
    problems = laws.law_problems(expert, "expert") + laws.law_problems(ref, "ref")
    problems += arguments.number("tau", tau, 0.0) + arguments.choice("method", method, METHODS)
    problems += arguments.limits(tolerance, max_iterations)
    refuse(problems)
    obj = objectives.of(obj)
    _available(kind, obj)
    p, base = laws.check_laws(expert=expert, ref=ref)
    p, base = (law / law.sum(-1, keepdims=True) for law in (p, base))
    game = Game(kind, p, base, obj, float(tau))
    if game.tau > 0 and not obj.law_dependent:
        refuse(_support(game))
    return game


def _available(kind: Kind, obj: Objective) -> None:
    if kind == "saddle":
        obj.require("saddle")
        if not obj.has_link:
            raise Unavailable(f"{obj.name} has no saddle point: no link, as {obj.missing('link')}")
    else:
        if "equilibrium" in obj.absent:
            raise Unavailable(f"{obj.name} has no equilibrium: {obj.absent['equilibrium']}")
        if "preference" in obj.needs:
            raise Unavailable(
                f"{obj.name} has no equilibrium of imitation: its expert is a preference, and its "
                "equilibrium a Nash equilibrium; use preferences.nash"
            )
        if not (obj.has_link or obj.law_dependent):
            raise Unavailable(f"{obj.name} has no equilibrium: no link, as {obj.missing('link')}")
        if not (obj.has_gain or obj.law_dependent):
            obj.require("potential")
            require_potential(obj)
    require_best_response(obj)


def _support(game: Game) -> list[str]:
    """Refuse laws for which the value is infinite at every policy."""
    p, ref, problem = game.expert, game.ref, game.separable(np.zeros(()) if game.has_gain else None)
    found = []
    if np.any((p > 0) & (ref == 0)):
        where = laws.support_problems(p, "expert", ref, "ref")
        if not np.isfinite(_cost_uncovered(game)):
            found.append(f"{where[0]} (the value is infinite for {game.obj.name} otherwise)")
    alone = ~np.any((p > 0) & (ref > 0), -1)
    if alone.any() and not np.isfinite(problem.pay(np.asarray(-np.inf))):
        found.append(
            f"expert and ref share no outcome at prompt {tuple(np.argwhere(alone)[0].tolist())}; "
            f"needed is one, as the value is infinite for {game.obj.name} otherwise"
        )
    return found


def _cost_uncovered(game: Game) -> float:
    """Value per unit of expert mass where the policy has none: ``a(R(inf))``, or ``Phi(0)``."""
    with np.errstate(all="ignore"):
        top = np.asarray(game.obj.link(np.asarray([60.0, np.inf]), 0.0))
        if game.kind == "saddle":
            return float(np.asarray(game.obj.a(top[1:]))[0])
    # Phi(0) = int_0^inf R(u) e^-u du, finite iff R grows more slowly than e^u
    return float("inf") if top[0] * np.exp(-60.0) > 1e-12 else 0.0

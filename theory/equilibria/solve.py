"""The two equilibria of an anchored game (T10), solved exactly and certified.

``saddle_point``:  ``min_pi max_r E_p[a(r)] + E_pi[b(r)] + tau KL(pi || ref)``;
``equilibrium``:   the fixed point of the self-play rounds, ``r = R(log p/pi)`` and
``pi = ref e^{r/tau} / Z``, which minimises ``D_Phi(pi || p) + tau KL(pi || ref)``.

They agree iff ``b(r) + r`` is constant. Each is a separable problem
(:mod:`theory.equilibria.newton`) with the pay ``-b(R(u))`` and ``R(u)``;
``method="convex"`` solves it by cvxpy and Clarabel instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from theory import laws
from theory.equilibria import newton as separable
from theory.equilibria.newton import Separable
from theory.errors import NotConverged, Unavailable, refuse
from theory.objectives import Objective, Pointwise, derivatives
from theory.result import FloatArray, Solution

Kind = Literal["saddle", "equilibrium"]
METHODS = ("fast", "convex")
TOLERANCE = {"fast": 1e-9, "convex": 1e-8}
CLEAN = 1e-3  # a gap well below the tolerance needs no search for a better reward


def saddle_point(
    expert: Any,
    ref: Any,
    obj: Objective,
    tau: float = 0.1,
    method: str = "fast",
    *,
    tolerance: float | None = None,
    raise_on_failure: bool = True,
) -> Solution:
    """Solve ``min_pi max_r E_p[a(r)] + E_pi[b(r)] + tau KL(pi || ref)`` (reconstruction, T10).

    Args:
        expert: law p, probabilities (..., n); leading axes are prompts.
        ref: reference law, (..., n), broadcast against the expert.
        obj: objective with payoffs a, b and a link.
        tau: weight of the anchor, >= 0 (nats per nat); at 0 the policy is the expert.
        method: "fast" (Newton on one multiplier) or "convex" (cvxpy with Clarabel; n up to 10^4).
        tolerance: on the certified gap, nats; 1e-9 for "fast", 1e-8 for "convex".
        raise_on_failure: raise :class:`NotConverged` if the gap stays above the tolerance.

    Returns:
        Solution; primal, dual and gap (...) in nats. The dual value is that of ``sol.reward``,
        ``E_p[a(r)] - tau log E_ref e^{-b(r)/tau}``, and ``gap = tau KL(pi || ref e^{-b(r)/tau}/Z)``
        is evaluated in that form: it does not trust the solver, and nothing cancels.

    Raises:
        Unavailable: the objective has no saddle form, link (or conic form), with the reason.
        InvalidInput: laws, tau, method, tolerance; all problems at once.
        NotConverged: see ``raise_on_failure``; ``.solution`` holds what was found.
    """
    return _solve("saddle", expert, ref, obj, tau, method, tolerance, raise_on_failure)


def equilibrium(
    expert: Any,
    ref: Any,
    obj: Objective,
    tau: float = 0.1,
    method: str = "fast",
    *,
    tolerance: float | None = None,
    raise_on_failure: bool = True,
) -> Solution:
    """Fixed point of the rounds: ``r = R(log p/pi)``, ``pi = ref e^{r/tau}/Z`` (T9, T10).

    It minimises ``D_Phi(pi || p) + tau KL(pi || ref)``; that is the primal value. The dual value
    is the minimum after linearising ``D_Phi`` at the policy: a gap of
    ``tau KL(pi || ref e^{r/tau}/Z)``.
    With IPO's link ``kappa tanh(u/2)`` the gain kappa belongs to the policy that is found, and the
    value minimised is ``2 kappa KL(p || (p+pi)/2) + tau KL(pi || ref)``.
    Arguments, result and errors as in :func:`saddle_point`.
    """
    return _solve("equilibrium", expert, ref, obj, tau, method, tolerance, raise_on_failure)


# --- one game -----------------------------------------------------------------------------------


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
        """Whether the link has a gain ``kappa(Delta(p, pi))`` (pairwise squared losses, T9)."""
        return self.obj.has_gain

    def at(self, prompt: tuple[int, ...]) -> Game:
        """The game of one prompt, laws (n,)."""
        return replace(self, expert=self.expert[prompt], ref=self.ref[prompt])

    def delta_of(self, policy: FloatArray) -> FloatArray:
        """``Delta(p, pi)`` with a last axis of 1."""
        return laws.triangular(self.expert, policy)[..., None]

    def separable(self, delta: FloatArray | None = None) -> Separable:
        """The separable problem; ``delta`` (..., 1) fixes the gain of links that have one."""
        obj, kind = self.obj, self.kind

        def pay(u: FloatArray) -> FloatArray:
            with np.errstate(all="ignore"):
                r = np.asarray(obj.link(u, delta))
                return r if kind == "equilibrium" else -np.asarray(obj.b(r))

        def slope_pay(u: FloatArray) -> tuple[FloatArray, FloatArray]:
            if not _numeric_link(obj):
                return separable.value_and_slope(lambda v: _torch_pay(obj, kind, v, delta), u)
            r = np.asarray(obj.link(u, delta))
            slope = derivatives.implicit_slope(obj.a, obj.b, r)
            if kind == "equilibrium":
                return r, slope
            return -np.asarray(obj.b(r)), -derivatives.derivative(obj.b, r) * slope

        return Separable(self.expert, self.ref, self.tau, pay, slope_pay)

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

    def value(self, policy: FloatArray) -> FloatArray:
        """What is minimised, (...): the game's value or the potential, plus the anchor."""
        anchor = self.tau * laws.kl(policy, self.ref) if self.tau > 0 else 0.0
        return self._unanchored(policy) + anchor

    def _unanchored(self, policy: FloatArray) -> FloatArray:
        if self.kind == "saddle":
            with np.errstate(all="ignore"):
                best = np.asarray(self.obj.link(laws.log_ratio(self.expert, policy), None))
            return self.obj.value(self.expert, policy, best)
        if self.has_gain:
            gain = self.obj.gain(laws.triangular(self.expert, policy))
            return gain * 2.0 * laws.kl_stable(self.expert, 0.5 * (self.expert + policy))
        return self.obj.potential(policy, self.expert)

    def describe(self) -> str:
        """The value by name, for the status."""
        if self.kind == "saddle":
            return "saddle point of E_p[a(r)] + E_pi[b(r)] + tau KL(pi||ref)"
        named = "2 kappa KL(p||(p+pi)/2)" if self.has_gain else "D_Phi(pi||p)"
        return f"equilibrium of the rounds, minimum of {named} + tau KL(pi||ref)"


def _numeric_link(obj: Objective) -> bool:
    return type(obj).link_formula is Pointwise.link_formula


def _torch_pay(obj: Objective, kind: Kind, u: Any, delta: FloatArray | None) -> Any:
    import torch

    r = obj.link_formula(u, None if delta is None else torch.from_numpy(np.array(delta)))
    return r if kind == "equilibrium" else -obj.b(r)


# --- solving ------------------------------------------------------------------------------------


def _solve(
    kind: Kind,
    expert: Any,
    ref: Any,
    obj: Objective,
    tau: float,
    method: str,
    tolerance: float | None,
    raise_on_failure: bool,
) -> Solution:
    game = _checked(kind, expert, ref, obj, tau, method, tolerance)
    limit = TOLERANCE[method] if tolerance is None else float(tolerance)
    if method == "convex":
        from theory.equilibria import conic as convex

        policy, iterations, solver = convex.solve(game)
    else:
        policy, iterations = _fast(game)
        solver = "Newton on one multiplier"
    return certified(game, policy, iterations, solver, limit, raise_on_failure)


def _fast(game: Game) -> tuple[FloatArray, int]:
    if game.tau == 0.0:
        return game.expert.copy(), 0
    if not game.has_gain:
        return separable.solve(game.separable())
    count = 0

    def policy_at(delta: FloatArray) -> FloatArray:
        nonlocal count
        policy, used = separable.solve(game.separable(delta[..., None]))
        count += used
        return policy

    return solve_gain(game, policy_at, 1e-15), count


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


def certified(
    game: Game,
    policy: FloatArray,
    iterations: int,
    solver: str,
    tolerance: float,
    raise_on_failure: bool,
) -> Solution:
    """Attach value, reward and certificate to a policy, wherever it came from."""
    delta = game.delta_of(policy) if game.has_gain else None
    primal = game.value(policy)
    if game.tau > 0:
        problem = game.separable(delta)
        gap, pay = separable.certificate(problem, policy)
        if np.any(gap > CLEAN * tolerance):
            gap, pay = separable.certificate(problem, policy, separable.NUDGES)
        reward = game.reward(policy, pay, delta)
        dual = primal - gap
    else:  # any constant reward R(0) proves the expert's own value
        dual = game.value(game.expert)
        gap = primal - dual
        reward = np.asarray(game.obj.link(laws.log_ratio(game.expert, policy), delta))
    reward = np.where((game.expert == 0) & (game.ref == 0), 0.0, reward)
    if game.kind == "equilibrium":  # the saddle point's reward is no more free to move
        reward = game.obj.centred(reward, game.expert, policy)
    worst = float(np.max(gap, initial=0.0))
    met = bool(np.all(gap <= tolerance)) and bool(np.all(np.isfinite(primal)))
    relation = "<=" if met else "above the tolerance"
    status = (
        f"{'converged' if met else 'not converged'}: {game.describe()} by {solver}, "
        f"certified gap {worst:.2g} {relation} {tolerance:.2g}"
    )
    solution = Solution(policy, reward, primal, dual, gap, status, iterations)
    if raise_on_failure and not met:
        raise NotConverged(f"{game.obj.name}, tau={game.tau:g}: {status}", solution)
    return solution


# --- what is refused ----------------------------------------------------------------------------


def _checked(
    kind: Kind,
    expert: Any,
    ref: Any,
    obj: Objective,
    tau: float,
    method: str,
    tolerance: float | None,
) -> Game:
    problems = laws.law_problems(expert, "expert") + laws.law_problems(ref, "ref")
    if not laws.is_real(tau) or not 0 <= float(tau) < np.inf:
        problems.append(f"tau={tau!r}; needed is a finite number >= 0")
    if method not in METHODS:
        problems.append(f"method={method!r}; needed is one of {', '.join(map(repr, METHODS))}")
    if tolerance is not None and not (laws.is_real(tolerance) and 0 < float(tolerance) < np.inf):
        problems.append(f"tolerance={tolerance!r}; needed is a finite number > 0 or None")
    if not isinstance(obj, Objective):
        problems.append(f'obj={obj!r}; needed is an objective, as from objectives.get("spif")')
    refuse(problems)
    _available(kind, obj)
    p, base = laws.check_laws(expert=expert, ref=ref)
    p, base = (law / law.sum(-1, keepdims=True) for law in (p, base))
    game = Game(kind, p, base, obj, float(tau))
    if game.tau > 0:
        refuse(_support(game))
    return game


def _available(kind: Kind, obj: Objective) -> None:
    if kind == "equilibrium":
        if "equilibrium" in obj.absent:
            raise Unavailable(f"{obj.name} has no equilibrium: {obj.absent['equilibrium']}")
        if "preference" in obj.needs:
            raise Unavailable(
                f"{obj.name} has no equilibrium of imitation: its expert is a preference, and its "
                "equilibrium a Nash equilibrium; use preferences.nash"
            )
        if not obj.has_link:
            raise Unavailable(f"{obj.name} has no equilibrium: no link, as {obj.missing('link')}")
        if not obj.has_gain:
            obj.require("potential")
        return
    obj.require("saddle")
    if not obj.has_link:
        raise Unavailable(f"{obj.name} has no saddle point: no link, as {obj.missing('link')}")


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

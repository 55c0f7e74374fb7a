"""Worst cases over whole classes, by semidefinite programming: are T6's and T12's constants best?

The tests of T6 run its bounds on the objectives that are there. Here the worst function, kernel and
start are searched for: performance estimation (PEPit, an optional package: ``pip install pepit``).

    h       kernel: convex and differentiable, anything else goes; negative entropy is one of them
    f       potential: ``f - mu h`` and ``L h - f`` are convex (T6: mu = inf R', L = sup R')
    D(y,x)  ``h(y) - h(x) - <h'(x), y - x>``: KL(y||x) for the entropy
    round   ``(beta+tau) h'(x+) = beta h'(x) + tau h'(ref) - f'(x)``

A number is the supremum over *all* such kernels, in any dimension, so an upper bound over the
entropy. That the program is exact, not a relaxation, is convex interpolation of ``f - mu h`` and
``L h - f`` (Dragomir, Taylor, d'Aspremont, Bolte, arXiv 1911.08510). Everything is reconstruction.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

from theory.arguments import number, whole
from theory.errors import NotConverged, Unavailable, refuse

SOLVER = "CLARABEL"
GAP = 1e-4
"""Largest gap between the proof's value and the instance's, relative above 1: suprema that are
only approached leave the interior-point solver about 1e-5."""


@dataclass(frozen=True)
class WorstCase:
    """A supremum that was computed, beside the constant that the theorem gives for it."""

    computed: float
    """Of the dual: what the solver's multipliers prove, up to their residuals; inf if unbounded."""
    attained: float
    """Of the primal: the worst instance that was found; at most ``GAP`` away from ``computed``."""
    theorem: float
    """The constant; NaN where a premise of the theorem fails, so that it says nothing."""


def descent(L: float, beta: float, mu: float = 0.0, symmetry: float = 0.0) -> WorstCase:
    """How far a round can raise ``f``: sup ``f(x1) - f(x0)`` where ``D(x1, x0) <= 1``.

    The theorem's value is ``max(0, L - (1 + symmetry) beta)``: descent iff ``beta >= L`` (T6 i),
    and from ``L/(1 + symmetry)`` on for kernels with ``D(x0, x1) >= symmetry D(x1, x0)``.

    Args:
        L, mu: curvature of ``f`` relative to ``h``, ``0 <= mu < L``.
        beta: weight of the step, > mu.
        symmetry: in [0, 1]; 0 of the entropy, 1 of a quadratic kernel.

    Raises:
        InvalidInput: an argument is outside its range.
        Unavailable: PEPit is not installed.
        NotConverged: the solver left a gap above ``GAP``.

    Example:
        >>> found = descent(L=1.0, beta=0.75)
        >>> f"{found.computed:.4f} {found.theorem:.4f}"
        '0.2500 0.2500'
    """
    upper = [] if symmetry <= 1 else [f"symmetry={symmetry!r}; needed is at most 1"]
    refuse([*_weights(L, mu, beta, 0.0), *number("symmetry", symmetry, 0.0), *upper])
    game = _Descent(L, mu)
    start = game.point()
    end = game.point(start.slope - start.gradient / beta)
    move = game.divergence(end, start)
    game.problem.set_initial_condition(move <= 1)
    game.problem.add_constraint(game.divergence(start, end) >= symmetry * move)
    game.problem.set_performance_metric(end.value - start.value)
    return _solved(game.problem, max(0.0, L - (1 + symmetry) * beta))


def value(
    L: float, beta: float, rounds: int, mu: float = 0.0, tau: float = 0.0, plain: bool = False
) -> WorstCase:
    """What is left after ``rounds``: sup ``F(x_T) - F(x*)`` where ``D(x*, x0) <= 1``.

    ``F`` is ``f + tau D(., ref)`` and ``x*`` its minimiser. The theorem's value for
    ``beta >= L`` is ``(mu+tau) / (((beta+tau)/(beta-mu))^T - 1)``, which is ``beta/T`` at
    ``mu = tau = 0`` (T6 ii).

    Args:
        L, beta, mu: as in `descent`.
        rounds: T >= 1; the program's matrix has 2 T + 6 rows.
        tau: weight of the anchor, >= 0. Where ``ref`` lies does not matter.
        plain: put ``beta/T`` beside it, T6 (ii) as it stands, though it is loose if ``mu > 0``.

    Raises:
        As `descent`.

    Example:
        >>> found = value(L=1.0, beta=2.0, rounds=3)
        >>> f"{found.computed:.4f} {found.theorem:.4f}"
        '0.6667 0.6667'
    """
    refuse([*_weights(L, mu, beta, tau), *whole("rounds", rounds, 1)])
    game, ends = _anchored(L, mu, beta, tau, rounds)
    game.problem.set_performance_metric(game.excess(*ends, tau))
    best, growth = mu + tau, (beta + tau) / (beta - mu)
    constant = beta / rounds if plain or best == 0 else best / (growth**rounds - 1)
    return _solved(game.problem, constant if beta >= L else math.nan)


def contraction(
    L: float,
    beta: float,
    mu: float = 0.0,
    tau: float = 0.0,
    rounds: int = 1,
    with_value: bool = False,
) -> WorstCase:
    """How near ``rounds`` come: sup ``D(x*, x_T)`` where ``D(x*, x0) <= 1``.

    The theorem's value for ``beta >= L`` is ``((beta-mu)/(beta+tau))^T``: T6 (iii), (v).

    Args:
        L, beta, mu, tau, rounds: as in `value`.
        with_value: add ``(F(x_T) - F(x*))/(beta+tau)``, which the theorem bounds by the same.

    Raises:
        As `descent`.

    Example:
        >>> found = contraction(L=1.0, beta=1.5, mu=0.2, tau=0.3)
        >>> f"{found.computed:.4f} {found.theorem:.4f}"
        '0.7222 0.7222'
    """
    refuse([*_weights(L, mu, beta, tau), *whole("rounds", rounds, 1)])
    game, (end, star) = _anchored(L, mu, beta, tau, rounds)
    left = game.divergence(star, end)
    if with_value:
        left = left + game.excess(end, star, tau) / (beta + tau)
    game.problem.set_performance_metric(left)
    constant = ((beta - mu) / (beta + tau)) ** rounds
    return _solved(game.problem, constant if beta >= L else math.nan)


def preference_contraction(lipschitz: float, beta: float, tau: float) -> WorstCase:
    """Anchored preference rounds (T12 c): sup ``D(z*, x1)`` where ``D(z*, x0) <= 1``.

    The round is ``(beta+tau) h'(x+) = beta h'(x) + tau h'(ref) + G x``, with no extragradient,
    ``G`` skew of spectral norm at most ``lipschitz`` (nats) and ``h`` 1-strongly convex in the
    Euclidean norm. The entropy is one such kernel (Pinsker), so with ``lipschitz`` the *spectral*
    norm of the payoff ``g A`` its rounds are in the class; T12's ``g max|A|`` goes with another
    pair of norms. The theorem's value for ``1/beta <= tau/lipschitz^2`` is ``1/(1 + tau/beta)``.

    Args:
        lipschitz, beta, tau: each > 0.

    Raises:
        As `descent`.

    Example:
        >>> found = preference_contraction(lipschitz=1.0, beta=2.0, tau=0.5)
        >>> f"{found.computed:.4f} {found.theorem:.4f}"
        '0.8000 0.8000'
    """
    refuse([*number("lipschitz", lipschitz), *number("beta", beta), *number("tau", tau)])
    pep = _pepit()
    from PEPit.functions import StronglyConvexFunction
    from PEPit.operators import SkewSymmetricLinearOperator

    problem = pep.PEP()
    kernel = problem.declare_function(StronglyConvexFunction, mu=1.0, reuse_gradient=True)
    payoff = problem.declare_function(SkewSymmetricLinearOperator, L=lipschitz)
    star, start, end, height = pep.Point(), pep.Point(), pep.Point(), pep.Expression()
    at_star, at_start = kernel.oracle(star), kernel.oracle(start)
    won = payoff.gradient(start) - payoff.gradient(star)  # ref is eliminated by z*'s own equation
    slope = (beta * at_start[0] + tau * at_star[0] + won) / (beta + tau)
    kernel.add_point((end, slope, height))
    problem.set_initial_condition(at_star[1] - at_start[1] - at_start[0] * (star - start) <= 1)
    problem.set_performance_metric(at_star[1] - height - slope * (star - end))
    small = lipschitz**2 <= beta * tau * (1 + 1e-12)  # the edge itself belongs to the theorem
    return _solved(problem, beta / (beta + tau) if small else math.nan)


# -- the programs --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _At:
    """A point with ``h', h, f', f`` there."""

    x: Any
    slope: Any
    height: Any
    gradient: Any
    value: Any


class _Descent:
    """The class of ``(f, h)``: ``f - mu h`` and ``L h - f``, both convex, known at points."""

    def __init__(self, L: float, mu: float) -> None:
        self.pep, self.L, self.mu = _pepit(), L, mu
        from PEPit.functions import ConvexFunction

        self.problem = self.pep.PEP()
        self.above = self.problem.declare_function(ConvexFunction, reuse_gradient=True)
        self.below = self.problem.declare_function(ConvexFunction, reuse_gradient=True)

    def point(self, slope: Any = None) -> _At:
        """A new point, where ``h'`` is ``slope`` if that is given."""
        pep, L, mu = self.pep, self.L, self.mu
        x, a = pep.Point(), pep.Point()
        d = pep.Point() if slope is None else (L - mu) * slope - a
        of_a, of_d = pep.Expression(), pep.Expression()
        self.above.add_point((x, a, of_a))
        self.below.add_point((x, d, of_d))
        width = L - mu
        height, held = (of_a + of_d) / width, (L * of_a + mu * of_d) / width
        return _At(x, (a + d) / width, height, (L * a + mu * d) / width, held)

    def divergence(self, to: _At, at: _At) -> Any:
        """D(to, at)."""
        return to.height - at.height - at.slope * (to.x - at.x)

    def excess(self, at: _At, star: _At, tau: float) -> Any:
        """F(at) - F(star), ``star`` being F's minimiser: ref drops out of it."""
        f = at.value - star.value - star.gradient * (at.x - star.x)
        return f + tau * self.divergence(at, star)


def _anchored(
    L: float, mu: float, beta: float, tau: float, rounds: int
) -> tuple[_Descent, tuple[_At, _At]]:
    """The rounds: the class, (last point, minimiser); D(minimiser, start) <= 1."""
    game = _Descent(L, mu)
    star, start = game.point(), game.point()
    at = start
    for _ in range(rounds):  # tau h'(ref) = f'(x*) + tau h'(x*)
        pull = star.gradient + tau * star.slope
        at = game.point((beta * at.slope - at.gradient + pull) / (beta + tau))
    game.problem.set_initial_condition(game.divergence(star, start) <= 1)
    return game, (at, star)


def _solved(problem: Any, theorem: float) -> WorstCase:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inaccuracy: judged by the gap below
        proved = problem.solve(wrapper="cvxpy", solver=SOLVER, verbose=0)
    found = problem.wrapper.prob
    if proved is None and str(found.status).startswith("unbounded"):
        return WorstCase(math.inf, math.inf, theorem)
    attained = float(found.value) if found.value is not None else math.nan
    gap = math.nan if proved is None else abs(proved - attained)
    if not gap <= GAP * max(1.0, abs(attained)):
        raise NotConverged(f"the solver ended {found.status} with a gap of {gap:.3g} above {GAP}")
    return WorstCase(float(proved), attained, theorem)


def _weights(L: float, mu: float, beta: float, tau: float) -> list[str]:
    """What is wrong with the constants of the class and the step."""
    problems = [*number("L", L), *number("mu", mu, 0.0), *number("beta", beta)]
    problems += number("tau", tau, 0.0)
    if not problems and mu >= L:
        problems.append(f"mu={mu!r}; needed is mu < L={L!r}")
    if not problems and mu >= beta:
        problems.append(f"beta={beta!r}; needed is beta > mu={mu!r}")
    return problems


def _pepit() -> Any:
    try:
        import PEPit
    except ImportError as missing:
        raise Unavailable("worst cases need the package PEPit: pip install pepit") from missing
    return PEPit

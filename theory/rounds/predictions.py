"""What theory says of SPIF's rounds beyond first order: gap, descent, reach, burn-in, long steps
(T4, T8, T14).

All reconstruction, for ``alpha = 1/2`` and the step ``eta = 1/(beta c)``; ``t = (p-q)/(p+q)``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from theory import arguments, laws
from theory.errors import InvalidInput, refuse
from theory.result import FloatArray

_SERIES = [1.0 / math.factorial(k) for k in range(8, 1, -1)]
"""Of ``(e^x - 1 - x)/x^2``, the highest power first."""


class Reach(NamedTuple):
    """Bounds of late two-step SPIF rounds, in nats: ``-below <= log p/pi_t <= above``."""

    above: float
    below: float


def largest_log_partition(eta: float) -> float:
    """``G``, the supremum of ``log E_q e^{eta t}`` over all pairs of laws, in nats.

    It is 0 up to ``eta = 1.5936...``, where ``2 exp(-eta) = 2 - eta``, and attained by two
    outcomes of which the expert misses one.

    Raises:
        InvalidInput: eta is not a number > 0.
    """
    refuse(arguments.number("eta", eta))
    if 2.0 * np.expm1(-eta) + eta <= 0:
        return 0.0

    def missing(log_x: float) -> float:
        x = np.exp(log_x)
        shown = -log_x + eta * np.tanh(0.5 * log_x)
        return -float(np.logaddexp(shown, np.log1p(-1.0 / x) - eta))

    # (h(x) - h(0))/x, h = e^{eta t}, rises and then falls: h is convex and then concave
    found = minimize_scalar(
        missing, bounds=(1e-12, np.log(4.0 * eta + 4.0)), method="bounded", options={"xatol": 1e-12}
    )
    return max(0.0, -float(found.fun))


def spif_reach(eta: float) -> Reach:
    """Where late log-ratios of SPIF's two-step rounds lie for any start of common support (T8d).

    ``above`` is ``B* = G + eta s - 2 artanh s``, ``s = sqrt(1 - 2/eta)``, which chaotic orbits
    attain to half a per cent from eta = 12 on; ``below`` is not attained, and is less.

    Raises:
        InvalidInput: eta is not a number > 0.

    >>> [round(x, 2) for x in spif_reach(8.0)]
    [8.59, 5.36]
    """
    gap = largest_log_partition(eta)
    s = np.sqrt(max(0.0, 1.0 - 2.0 / eta))
    turn = eta * s - 2.0 * np.arctanh(s)  # sup of u - eta tanh(u/2) over u <= 0
    above = max(2.0 * np.arctanh(gap / eta), gap + turn)
    # the least E_q h of ratios below X = e^above: the convex envelope of h at 1 is a chord to X
    if above == 0:
        return Reach(0.0, 0.0)
    inverse, log_top = np.exp(-above), eta * np.tanh(0.5 * above) - above

    def log_chord(x: float) -> float:
        low = eta * (x - 1.0) / (x + 1.0) + np.log1p(-inverse)
        return float(np.logaddexp(low, log_top + np.log1p(-x)) - np.log1p(-inverse * x))

    found = minimize_scalar(
        log_chord, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-12}
    )
    least = max(0.0, -float(found.fun))
    return Reach(float(above), float(max(2.0 * np.arctanh(least / eta), least + turn)))


class BurnIn(NamedTuple):
    """Rounds of SPIF from a far start to a near one."""

    at_least: int
    at_most: float
    """``inf`` beyond ``eta = 1.5936...``, where nothing is proved."""


def spif_burn_in(nats: float, eta: float, reached: float = 1.0) -> BurnIn:
    """Rounds until the largest log-ratio, from ``nats``, is at most ``reached`` (T8e, T14).

    A round takes at most ``2 eta`` off it, and at least ``eta tanh(u/2)``. Two-step or centred
    rounds, ``alpha = 1/2``. With rewards per response ``nats`` is the largest ``log p/pi`` of a
    response; with one loss per token it is that of a token at a prefix, of any horizon. The least
    number holds for KL as well, ``nats`` then being the start's (per token: the largest of a
    prefix's next-token KL).

    Args:
        nats: largest log-ratio of the start, >= 0.
        eta: ``1/(beta c)``.
        reached: log-ratio at which the burn-in is over, nats, > 0.

    Raises:
        InvalidInput: a number that is none or out of range.

    Two hundred tokens of one nat each, per response and per token:

    >>> spif_burn_in(200.0, 0.5).at_least, spif_burn_in(1.0, 0.5, reached=1 / 200)
    (199, BurnIn(at_least=1, at_most=22.0))
    """
    problems = arguments.number("nats", nats, 0.0) + arguments.number("eta", eta)
    refuse(problems + arguments.number("reached", reached))
    if nats <= reached:
        return BurnIn(0, 0.0)
    # less a rounding, which must not add a round
    at_least = int(np.ceil((nats - reached) / (2.0 * eta) * (1.0 - 1e-12)))
    if largest_log_partition(eta) > 0:
        return BurnIn(at_least, float("inf"))
    log_sinh = [0.5 * x + np.log(-np.expm1(-x)) for x in (nats, reached)]  # of x/2, and log 2
    return BurnIn(at_least, float(np.ceil(2.0 / eta * (log_sinh[0] - log_sinh[1]))))


def gap_slope(t: Any, eta: float) -> FloatArray:
    """``[(e^{eta t} - 1)(1 - t) - eta t]/(2 t^2)``: an outcome's part in the partition gap (T4a).

    Its mean over outcomes of weight ``(p-q)^2/(p+q)`` is exactly ``(Z - 1)/Delta``. It is
    ``eta (eta - 2)/4`` at t = 0, and ``e^{-eta} - 1 + eta/2`` at -1, where the expert misses one.

    Args:
        t: ``(p-q)/(p+q)``, within [-1, 1], any shape.
        eta: ``1/(beta c)``.

    Returns:
        As t; ``inf`` where it is beyond the largest number.

    Raises:
        InvalidInput: eta is not a number > 0, or t not numbers within [-1, 1].
    """
    problems = arguments.number("eta", eta)
    try:
        t = laws.as_numbers(t)
        outside = not (np.abs(t) <= 1.0).all()
    except (TypeError, ValueError):
        outside = True
    refuse(problems + ["t: needed are numbers within [-1, 1]"] * outside)
    x = eta * t
    near = np.abs(x) < 0.01
    safe, ratio = np.where(near, 1.0, t), np.where(x == 0, 1.0, x)
    with np.errstate(over="ignore", invalid="ignore"):
        grown = np.expm1(x)
        series = 0.5 * eta * (eta * np.polyval(_SERIES, x) - np.where(x == 0, 1.0, grown / ratio))
        far = (np.where(t < 1, grown * (1.0 - t), 0.0) - x) / (2.0 * safe**2)
    return np.where(near, series, far)


def spif_descent(eta: float) -> float:
    """``kappa``: a two-step SPIF round takes at least ``kappa Delta`` off ``KL(p||pi_t)`` (T8b).

    ``eta/2 - max_t gap_slope(t, eta)``, the largest such constant for all pairs of laws. It is
    ``1 - e^{-eta}`` up to eta = 2.149, and positive below 3.7680, where convergence is global;
    ``-inf`` beyond what numbers reach.

    Raises:
        InvalidInput: eta is not a number > 0.

    >>> [round(spif_descent(eta), 3) for eta in (1.0, 3.0, 3.8)]
    [0.632, 0.75, -0.051]
    """
    t = np.linspace(-1.0, 1.0, 4001)
    values = gap_slope(t, eta)
    best = int(values.argmax())
    if not np.isfinite(values[best]):
        return -np.inf
    found = minimize_scalar(
        lambda x: -float(gap_slope(x, eta)),
        bounds=(t[max(best - 1, 0)], t[min(best + 1, len(t) - 1)]),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(0.5 * eta - max(values[best], -found.fun))


class LongStep(NamedTuple):
    """One-step pointwise SPIF with a long step (T4d), each (...) but ``law``."""

    law: FloatArray
    """``max(p - q, 0)/TV(p, q)`` (..., n), the limit as eta grows at fixed laws."""
    at_least: FloatArray
    """The round's total variation distance to it is at least this, if Z >= 1."""
    at_most: FloatArray
    """And at most this, if Z >= 1 and eta >= 1."""
    first_order: FloatArray
    """The distance to first order in 1/eta, where no outcome has p = q > 0."""


def long_step(expert: FloatArray, policy: FloatArray, eta: float) -> LongStep:
    """How near a one-step pointwise SPIF round of step ``eta`` comes to its limit (T4d).

    Args:
        expert, policy: laws (..., n) that differ; the policy with mass wherever the expert has.
        eta: ``1/(beta c)``.

    Raises:
        InvalidInput: laws, a step that is not > 0, laws that are equal, or a response that the
            expert gives and the policy does not.
    """
    refuse(arguments.number("eta", eta))
    p, q = laws.check_laws(expert=expert, policy=policy)
    if missing := np.argwhere((p > 0) & (q == 0)).tolist():
        at = ", ".join(map(str, missing[0]))
        raise InvalidInput(f"policy[{at}]=0; needed is mass wherever the expert has, as at {at}")
    excess = np.maximum(p - q, 0.0)
    total = excess.sum(-1, keepdims=True)
    if not (total > 0).all():
        raise InvalidInput("expert, policy: equal laws; needed are laws that differ")
    more, law = excess > 0, excess / total
    seen = np.where(more & (q > 0), q, 1.0)
    ratio = eta * (p - q) / np.where(p + q > 0, p + q, 1.0)
    # pi <= q e^{eta t}: a response of small q is not reached by short steps
    reached = np.exp(np.minimum(np.log(seen) + ratio, 0.0))
    at_least = np.where(more, np.maximum(law - reached, 0.0), 0.0).sum(-1)
    nats = np.maximum(_nats_of_ties(0.5 * eta * total), -np.log(seen))
    at_most = ((p + q) * nats).sum(-1) / (eta * total[..., 0])
    pull = np.where(more, (p + q) * np.log(np.where(more, law, 1.0) / seen), 0.0) / total
    shift = law * pull.sum(-1, keepdims=True) - pull
    return LongStep(law, at_least, at_most, 0.5 * np.abs(shift).sum(-1) / eta)


def _nats_of_ties(size: FloatArray) -> FloatArray:
    """Root w of ``w (e^w - 1) = size``: what keeps an outcome of p = q from leaving at once."""
    w = np.log1p(size) + 1.0
    for _ in range(40):  # Newton from above on a convex function
        w = w - (w * np.expm1(w) - size) / (np.expm1(w) + w * np.exp(w))
    return w

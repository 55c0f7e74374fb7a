"""What theory predicts of preference rounds (T12): rates, thresholds, bounds.

All take the payoff scale ``g``: the reward is ``g A pi`` with ``A = 2P - 1`` (SPIF ``g = 1/c``,
SPPO 1/2, IPO and INPO their margin m, see :func:`payoff_scale`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from theory import arguments, laws, xp
from theory.errors import Unavailable, refuse
from theory.objectives import Objective
from theory.preferences.games import check_game, check_preference, expected_win
from theory.preferences.rewards import require_reward
from theory.result import FloatArray


def payoff_scale(obj: Objective) -> float:
    """``g`` if the best response to preference pairs is ``g (2 P(y > pi) - 1)`` (T11).

    Computed from its best responses to two outcomes, at 19 win rates.

    Raises:
        Unavailable: the reward is another function of ``P``, or none, with the reason.
    """
    obj = require_reward(obj)
    wins = np.linspace(-1.0, 1.0, 21)[1:-1]  # a law of two outcomes at every win rate of the first
    preference = np.empty((len(wins), 2, 2))
    preference[:] = 0.5
    preference[:, 0, 1], preference[:, 1, 0] = 0.5 * (1.0 + wins), 0.5 * (1.0 - wins)
    law = np.full((len(wins), 2), 0.5)
    margin = expected_win(preference, law) - expected_win(np.swapaxes(preference, -1, -2), law)
    reward = obj.preference_response(preference, law)
    g = float((margin * reward).sum() / np.square(margin).sum())
    if np.isfinite(g) and np.allclose(reward, g * margin, rtol=0, atol=1e-12 * g):
        return g
    raise Unavailable(
        f"{obj.name} has no payoff scale: its reward is not a multiple of 2P(y > pi) - 1"
    )


def local_gain(obj: Objective) -> float:
    """Slope of the reward in ``2P(y > pi) - 1`` where all win rates are near 1/2: ``2 R'(0)``.

    Reconstruction, extends T12 to *every* objective whose link is differentiable at 0. For a
    pairwise loss, on dependent pairs, it is ``-l'(0)/l''(0)``, which is ``2 R'(0)`` too.

    Raises:
        Unavailable: no reward, or one that is not differentiable at 0, with the reason.
    """
    obj = require_reward(obj)
    try:
        gain = 2.0 * obj.slope_at_zero
    except Unavailable:
        gain = np.inf
    if not np.isfinite(gain):
        raise Unavailable(f"{obj.name} has no local gain: its link is not differentiable at 0")
    return gain


def _lipschitz(preference: Any, scale: float) -> FloatArray:
    """``Lip = g max |2P - 1|``, shape (...)."""
    return np.asarray(scale * np.abs(2.0 * check_preference(preference) - 1.0).max((-2, -1)))


def anchored_rate(beta: float, tau: float) -> float:
    """Factor ``1/(1 + tau/beta)`` of ``KL(z*||pi_t)`` a round, for ``beta >= anchored_beta``.

    Reconstruction, T12 (Sokota et al. 2023 for magnetic mirror descent). With ``B = g A`` skew, the
    optimality of ``pi_{t+1}`` and of ``z*`` give exactly

        (beta + tau) KL(z*||pi_{t+1}) = beta KL(z*||pi_t) - beta KL(pi_{t+1}||pi_t)
            - tau KL(pi_{t+1}||z*) + <B (pi_t - pi_{t+1}), pi_{t+1} - z*>,

    and the last term is at most ``Lip |pi_t - pi_{t+1}|_1 |pi_{t+1} - z*|_1 <=
    beta KL(pi_{t+1}||pi_t) + (Lip^2/beta) KL(pi_{t+1}||z*)`` by Pinsker.

    Raises:
        InvalidInput: not ``beta > 0`` and ``tau >= 0``.
    """
    problems = arguments.numbers("beta", beta, single=True)
    refuse(problems + arguments.numbers("tau", tau, 0.0, single=True))
    return 1.0 / (1.0 + tau / beta)


def anchored_beta(preference: Any, tau: float, scale: float = 1.0) -> FloatArray:
    """``Lip^2/tau``: the least ``beta`` that guarantees :func:`anchored_rate` (T12).

    Args:
        preference: P (..., n, n), ``P(y > y')``. tau: weight of the anchor, > 0.
        scale: payoff per win rate ``g``, nats.

    Returns:
        beta, shape (...), in the unit of tau.

    Raises:
        InvalidInput: no preference, or not ``tau > 0`` and ``scale > 0``.
    """
    refuse(arguments.numbers("tau", tau) + arguments.numbers("scale", scale, single=True))
    return _lipschitz(preference, scale) ** 2 / tau


def average_gap_bound(
    preference: Any, start: Any, beta: float | Iterable[float], rounds: int, scale: float = 1.0
) -> FloatArray:
    """Bound of the duality gap of the average policy, weights 1/beta_t, at tau = 0, shape (...).

        gap <= [log(1/min start) + sum_t Lip^2/(2 beta_t^2)] / (g sum_t 1/beta_t)

    Reconstruction, T12, by the regret of exponential weights. ``E_{pi_t} r_t = 0``, as the payoff
    is skew, so for every ``y``

        sum_t r_t(y)/beta_t <= KL(y||pi_0) + sum_t log E_{pi_t} e^{r_t/beta_t}.

    Hoeffding bounds each logarithm by ``(2 Lip/beta_t)^2/8``, and the left side at the best ``y``
    is ``g gap(average) sum_t 1/beta_t``. No factor two for the second player: the game is
    symmetric. With constant ``beta = Lip sqrt(T/(2 log n))`` and a uniform start it is
    ``max|2P-1| sqrt(2 log n / T)``.

    Raises:
        InvalidInput: no preference or law, or not ``beta > 0``, ``rounds >= 1`` and ``scale > 0``.
    """
    betas, problems = arguments.round_weights(beta, rounds, None, 0.0, fewest=1)
    refuse(problems + arguments.numbers("scale", scale, single=True))
    checked, law = check_game(preference, start=start)
    weights = 1.0 / np.array(betas)
    with np.errstate(divide="ignore"):
        distance = -np.log(law.min(-1))
    regret = distance + 0.5 * _lipschitz(checked, scale) ** 2 * np.square(weights).sum()
    return np.asarray(regret / (scale * weights.sum()))


def cycle_speed(preference: Any, policy: Any, scale: float = 1.0) -> FloatArray:
    """``sigma``, spectral radius of the payoff on mean-zero functions in L2(z), shape (...).

    The rounds' linearisation at ``z`` acts on ``x = pi/z - 1``, and ``E_z x = 0``. So the payoff
    ``(K x)(y) = g sum_j A_yj z_j x_j`` is *compressed* to mean zero, ``K x - E_z[K x]``; at an
    interior Nash equilibrium (``A z = 0``) that changes nothing, at an anchored one it does.
    ``K`` is skew in L2(z): its eigenvalues are ``+-i sigma_k``.

    Raises:
        InvalidInput: no preference or law, or not ``scale > 0``.
    """
    refuse(arguments.numbers("scale", scale, single=True))
    checked, law = check_game(preference, policy=policy)
    root = np.sqrt(law)
    skew = scale * (2.0 * checked - 1.0) * root[..., :, None] * root[..., None, :]
    # P S P with P = 1 - root root^T, and root^T S root = 0
    drift = (skew @ root[..., None])[..., 0]
    compressed = skew - drift[..., :, None] * root[..., None, :]
    compressed = compressed + root[..., :, None] * drift[..., None, :]
    return np.maximum(np.linalg.eigvalsh(1j * compressed)[..., -1], 0.0)


def local_growth(
    preference: Any, policy: Any, beta: float, tau: float, scale: float = 1.0
) -> FloatArray:
    """``sqrt(beta^2 + sigma^2)/(beta + tau)``: growth a round of the fastest cycle at ``z`` (T12).

    Args:
        preference: P (..., n, n). policy: the equilibrium z, (..., n).
        beta, tau: weights of the step and of the anchor, >= 0. scale: payoff per win rate, nats.

    Returns:
        Factor (...) on the distance to z: below 1 where rounds are locally stable.

    Raises:
        InvalidInput: no preference or law, a weight < 0, both 0, or not ``scale > 0``.
    """
    problems = arguments.numbers("beta", beta, 0.0) + arguments.numbers("tau", tau, 0.0)
    if not problems and np.any(np.equal(beta, 0) & np.equal(tau, 0)):
        problems.append(f"beta={beta!r}, tau={tau!r}; needed is beta + tau > 0")
    refuse(problems)
    sigma = cycle_speed(preference, policy, scale)
    step, anchor = np.asarray(beta)[()], np.asarray(tau)[()]
    return np.asarray(np.sqrt(step**2 + sigma**2) / (step + anchor))


def local_threshold(preference: Any, policy: Any, tau: float, scale: float = 1.0) -> FloatArray:
    """Least locally stable ``beta``: ``sigma^2 < 2 beta tau + tau^2`` (T12, sharp), shape (...).

    0 if every step is stable; +inf at ``tau = 0`` where ``sigma > 0``: no step is. Arguments as in
    :func:`local_growth`, and refused as there.
    """
    refuse(arguments.numbers("tau", tau, 0.0, single=True))
    sigma = cycle_speed(preference, policy, scale)
    if tau > 0:
        return np.maximum(0.0, (sigma**2 - tau**2) / (2.0 * tau))
    return np.where(sigma > 1e-12, np.inf, 0.0)


def nash_md_bound(tau: float, rounds: int, scale: float = 1.0) -> float:
    """``8/(t^2 (T + 1))``, ``t = tau/(2g)``: bound of ``KL(z*||pi_T)`` for Nash-MD's schedule.

    Paper (arXiv 2312.00886, from a secondary note), for ``beta_t = tau t/2`` and start ``ref``.

    Raises:
        InvalidInput: not ``tau > 0``, ``rounds >= 0`` and ``scale > 0``.
    """
    problems = arguments.numbers("tau", tau, single=True) + arguments.whole("rounds", rounds)
    refuse(problems + arguments.numbers("scale", scale, single=True))
    with np.errstate(all="ignore"):  # a bound of infinity is one
        return float(8.0 / (np.square(tau / np.float64(2.0 * scale)) * (rounds + 1.0)))


def log_partition(reward: FloatArray, policy: FloatArray, beta: float) -> FloatArray:
    """``log Z = log E_pi e^{r/beta}``: what one loss on one model misses of a round (T4).

    For ``r = g (2P - 1)`` it is ``>= 0`` by Jensen, because ``E_pi[r] = 0``.

    Raises:
        InvalidInput: no law, no reward of its outcomes, or not ``beta > 0``.
    """
    (law,) = laws.check_laws(policy=policy)
    problems = arguments.numbers("beta", beta, single=True)
    refuse(arguments.rewards(reward, law, finite=False) + problems)
    with np.errstate(divide="ignore"):
        terms = np.where(law > 0, laws.as_numbers(reward), 0.0) / beta
        return np.asarray(xp.logsumexp(np.log(law) + terms))

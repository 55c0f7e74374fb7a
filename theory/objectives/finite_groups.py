"""Finite groups and what their plug-in estimates do to a best response (reconstruction, T17).

With G expert and K own responses of a prompt the loss ``1/2 mean(r_y - b - 1/c)^2 + 1/2 mean(r_y'
- b + 1/c)^2``, ``b`` the mean of the two group means, has the expectation

    A Var_p r + B Var_q r + (D/2 - 1/c)^2,   A = 1/2 - 1/(4G),  B = 1/2 - 1/(4K),  D = E_p r - E_q r

(the variance within a group of n loses 1/n, the squared mean gap gains ``Var_p/(4G) +
Var_q/(4K)``). Setting its gradient to zero leaves ``r = const + g v``, ``v = (p - q)/(A p + B
q)``, and then ``g = 1/(2c (1 - A E_p v + (E_p v - E_q v)/4))``. The gain of that on SPIF's link
falls from ``1/(A+B)`` near the expert to ``4AB/(A+B)^2`` for disjoint laws.

Near the expert any group risk is a quadratic form in the rewards, and its effective step grows by
``centred_local_gain``, ``renyi_local_gain``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from theory import laws
from theory.errors import refuse
from theory.result import FloatArray


@dataclass(frozen=True)
class GroupLink:
    """Best response to finite groups: ``reward = gain * SPIF link of alpha`` + const.

    Attributes:
        alpha: ``A/(A+B)``, the expert's weight in SPIF's mixture.
        gain: factor on that link, (...); depends on the laws.
        reward: (..., n), of mean 0 under the policy; 0 on padding.
    """

    alpha: float
    gain: FloatArray
    reward: FloatArray


def group_coefficients(expert_size: float, own_size: float) -> tuple[float, float]:
    """``A`` and ``B`` of groups of G expert and K own responses; inf for the exact laws.

    Raises:
        InvalidInput: a group size below 1.
    """
    _check_sizes(expert_size, own_size)
    return 0.5 - 0.25 / expert_size, 0.5 - 0.25 / own_size


def centred_local_gain(expert_size: float, own_size: float) -> float:
    """Factor ``1/(A+B)`` on centred SPIF's effective step near the expert: ``2G/(2G-1)`` at G = K.

    Raises:
        InvalidInput: a group size below 1.
    """
    return 1.0 / sum(group_coefficients(expert_size, own_size))


def renyi_local_gain(order: float, expert_size: float, own_size: float) -> float:
    """Factor on the Renyi risk's effective step near the expert, groups of G and K, order k.

    ``1/((1-k)(1-1/G) + k(1-1/K))``: to second order in rewards a group's log-mean-exp is its mean
    and its variance, of which ``1/G`` and ``1/K`` are missing. ``G/(G-1)`` only at G = K; inf at
    G = K = 1, whose risk is linear.

    Raises:
        InvalidInput: a group size below 1, or an order outside (0, 1).

    >>> round(renyi_local_gain(0.2, 2, 8), 3), renyi_local_gain(0.2, 2, 2)
    (1.739, 2.0)
    """
    refuse([] if 0 < order < 1 else [f"order={order!r}; needed is within (0, 1)"])
    _check_sizes(expert_size, own_size)
    left = (1.0 - order) * (1.0 - 1.0 / expert_size) + order * (1.0 - 1.0 / own_size)
    return 1.0 / left if left > 0 else np.inf


def _check_sizes(expert_size: float, own_size: float) -> None:
    sizes = {"expert_size": expert_size, "own_size": own_size}
    refuse([f"{k}={v!r}; needed is a number >= 1" for k, v in sizes.items() if not v >= 1])


def expected_group_loss(
    expert: FloatArray,
    policy: FloatArray,
    reward: FloatArray,
    c: float,
    expert_size: float,
    own_size: float,
) -> FloatArray:
    """Expected centred SPIF loss (that is, times c) over random groups, shape (...).

    Args:
        expert: law of expert responses (..., n). policy: law of own responses.
        reward: (..., n) in nats.
        c: weight of the chi^2 penalty.
        expert_size, own_size: G and K.
    """
    a, b = group_coefficients(expert_size, own_size)
    p, q = laws.check_laws(expert=expert, policy=policy)
    mean_p, mean_q = laws.expect(p, reward), laws.expect(q, reward)
    spread_p = laws.expect(p, np.square(reward - mean_p[..., None]))
    spread_q = laws.expect(q, np.square(reward - mean_q[..., None]))
    return np.asarray(
        c * (a * spread_p + b * spread_q + np.square(0.5 * (mean_p - mean_q) - 1.0 / c))
    )


def finite_group_link(
    expert: FloatArray, policy: FloatArray, c: float, expert_size: float, own_size: float
) -> GroupLink:
    """Minimiser of :func:`expected_group_loss` over all rewards.

    ``gain`` is 1 for infinite groups, and for disjoint laws if G = K; else it lies within
    ``[4AB/(A+B)^2, 1/(A+B)]``. G = K = 1 is IPO's ``kappa tanh(u/2)`` with margin ``2/c``.
    """
    a, b = group_coefficients(expert_size, own_size)
    p, q = laws.check_laws(expert=expert, policy=policy)
    total = a * p + b * q
    v = (p - q) / np.where(total > 0, total, 1.0)
    mean_p, mean_q = laws.expect(p, v), laws.expect(q, v)
    g = 0.5 / (c * (1.0 - a * mean_p + 0.25 * (mean_p - mean_q)))
    reward: Any = np.where(total > 0, g[..., None] * (v - mean_q[..., None]), 0.0)
    return GroupLink(a / (a + b), 2.0 * c * g / (a + b), reward)

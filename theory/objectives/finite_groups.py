"""Finite groups and their plug-in estimates: centred SPIF's closed form, and any risk's by numbers
(reconstruction, T17).

With G expert and K own responses of a prompt the loss ``1/2 mean(r_y - b - 1/c)^2 + 1/2 mean(r_y'
- b + 1/c)^2``, ``b`` the mean of the two group means, has the expectation

    A Var_p r + B Var_q r + (D/2 - 1/c)^2,   A = 1/2 - 1/(4G),  B = 1/2 - 1/(4K),  D = E_p r - E_q r

(the variance within a group of n loses 1/n, the squared mean gap gains ``Var_p/(4G) +
Var_q/(4K)``). Setting its gradient to zero leaves ``r = const + g v``, ``v = (p - q)/(A p + B
q)``, and then ``g = 1/(2c (1 - A E_p v + (E_p v - E_q v)/4))``. The gain of that on SPIF's link
falls from ``1/(A+B)`` near the expert to ``4AB/(A+B)^2`` for disjoint laws.

Of any other risk the expectation is a sum over all groups there can be (multinomial), and its
minimiser is found by Newton's method. Responses of equal log-ratio ``u`` have equal rewards, as the
balance of one, ``p f(r) = q g(r)``, sees nothing else of it; so where there are too many outcomes,
those of similar ``u`` are taken together, and what finite groups change is interpolated in ``u``.

Near the expert any group risk is a quadratic form in the rewards, and its effective step grows by
``centred_local_gain``, ``renyi_local_gain``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, inf
from typing import Any

import numpy as np
from scipy.special import gammaln

from theory import arguments, laws
from theory.errors import NotConverged, refuse
from theory.objectives import risk_response
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
        InvalidInput: a group size that is no whole number >= 1.
    """
    check_sizes(expert_size, own_size)
    return 0.5 - 0.25 / expert_size, 0.5 - 0.25 / own_size


def centred_local_gain(expert_size: float, own_size: float) -> float:
    """Factor ``1/(A+B)`` on centred SPIF's effective step near the expert: ``2G/(2G-1)`` at G = K.

    Raises:
        InvalidInput: a group size that is no whole number >= 1.
    """
    return 1.0 / sum(group_coefficients(expert_size, own_size))


def renyi_local_gain(order: float, expert_size: float, own_size: float) -> float:
    """Factor on the Renyi risk's effective step near the expert, groups of G and K, order k.

    ``1/((1-k)(1-1/G) + k(1-1/K))``: to second order in rewards a group's log-mean-exp is its mean
    and its variance, of which ``1/G`` and ``1/K`` are missing. ``G/(G-1)`` only at G = K; inf at
    G = K = 1, whose risk is linear.

    Raises:
        InvalidInput: a group size that is no whole number >= 1, or an order outside (0, 1).

    >>> round(renyi_local_gain(0.2, 2, 8), 3), renyi_local_gain(0.2, 2, 2)
    (1.739, 2.0)
    """
    refuse(arguments.every("order", order, lambda k: (k > 0) & (k < 1), "within (0, 1)"))
    check_sizes(expert_size, own_size)
    left = (1.0 - order) * (1.0 - 1.0 / expert_size) + order * (1.0 - 1.0 / own_size)
    return 1.0 / left if left > 0 else np.inf


def check_sizes(expert_size: float, own_size: float) -> None:
    """Refuse group sizes G and K that are neither whole numbers >= 1 nor inf, the law itself."""
    sizes = {"expert_size": expert_size, "own_size": own_size}
    needed = "a whole number >= 1, or inf for the law itself"
    refuse([p for name, size in sizes.items() for p in arguments.every(name, size, _whole, needed)])


def _whole(size: FloatArray) -> Any:
    return size.ndim == 0 and (size >= 1) & (size == np.floor(size))


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

    Raises:
        InvalidInput: laws, rewards that do not fit them or are not finite, ``c`` or sizes.
    """
    a, b = group_coefficients(expert_size, own_size)
    p, q = laws.check_laws(expert=expert, policy=policy)
    refuse(arguments.rewards(reward, p + q) + arguments.numbers("c", c))
    reward = laws.as_numbers(reward)
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

    Raises:
        InvalidInput: laws, ``c`` or sizes.
    """
    refuse(arguments.numbers("c", c))
    a, b = group_coefficients(expert_size, own_size)
    p, q = laws.check_laws(expert=expert, policy=policy)
    total = a * p + b * q
    v = (p - q) / np.where(total > 0, total, 1.0)
    mean_p, mean_q = laws.expect(p, v), laws.expect(q, v)
    g = 0.5 / (c * (1.0 - a * mean_p + 0.25 * (mean_p - mean_q)))
    reward: Any = np.where(total > 0, g[..., None] * (v - mean_q[..., None]), 0.0)
    return GroupLink(a / (a + b), 2.0 * c * g / (a + b), reward)


# --- any risk ------------------------------------------------------------------------------------

MOST_NUMBERS = 300_000
"""Prompts x groups x outcomes that are gone through at once."""
FEWEST_KINDS, MOST_KINDS = 6, 40
"""Outcomes, or groups of outcomes of similar log-ratio, that the groups are made of."""


def best_response_to_groups(
    risk: risk_response.Risk,
    expert: FloatArray,
    policy: FloatArray,
    exact: Callable[[FloatArray, FloatArray], FloatArray],
    expert_size: float,
    own_size: float,
    free: bool,
) -> FloatArray:
    """Minimiser (..., n) over rewards of the expected risk of groups of G and K responses.

    Args:
        risk: ``risk(r_y, r_own, w_y, w_own)``, written for torch; a group's weights are its counts.
        expert, policy: valid laws (..., n). exact: best response to such laws themselves, nats.
        expert_size, own_size: G and K, whole numbers; inf is the law itself.
        free: whether a common shift of the rewards changes nothing.

    Raises:
        ValueError: too many groups, or no best response to them, in words. InvalidInput: sizes.
    """
    check_sizes(expert_size, own_size)
    n = expert.shape[-1]
    p, q = expert.reshape(-1, n), policy.reshape(-1, n)
    kinds = _kinds(len(p), n, expert_size, own_size)
    which = _alike(p, q, kinds)
    few_p, few_q = _gathered(which, p, kinds), _gathered(which, q, kinds)
    expected = _expected(risk, kinds, expert_size, own_size)
    try:
        found = risk_response.of_risk(expected, few_p, few_q, free)
        if kinds == n:
            return np.take_along_axis(found, which, axis=-1).reshape(expert.shape)
        change: FloatArray = found - risk_response.of_risk(risk, few_p, few_q, free)
    except NotConverged as error:
        raise ValueError(f"no best response to them was found ({error})") from None
    u, at = laws.log_ratio(p, q), laws.log_ratio(few_p, few_q)
    there = few_p + few_q > 0
    rows = zip(u, at, change, there, strict=True)
    moved = [np.interp(x, known[kept], y[kept]) for x, known, y, kept in rows]
    return exact(expert, policy) + np.reshape(moved, expert.shape)


def _kinds(prompts: int, n: int, expert_size: float, own_size: float) -> int:
    """As many outcomes as can be gone through."""

    def groups(kinds: int, size: float) -> int:
        return 1 if size == inf else comb(kinds + int(size) - 1, int(size))

    fits = [
        k
        for k in range(1, min(n, MOST_KINDS) + 1)
        if prompts * k * groups(k, expert_size) * groups(k, own_size) <= MOST_NUMBERS
    ]
    if not fits or fits[-1] < min(n, FEWEST_KINDS):
        raise ValueError(
            f"groups of {expert_size:g} and {own_size:g} responses of {prompts} prompts are too "
            "many to go through"
        )
    return fits[-1]


def _alike(p: FloatArray, q: FloatArray, kinds: int) -> Any:
    """Number of the kind of each outcome (prompts, n): shares of the mass in order of u, smaller
    towards both ends."""
    n = p.shape[-1]
    if kinds == n:
        return np.broadcast_to(np.arange(n), p.shape)
    order = np.argsort(laws.log_ratio(p, q), axis=-1, kind="stable")
    mass = np.take_along_axis(0.5 * (p + q), order, axis=-1)
    share = np.cumsum(mass, axis=-1) - 0.5 * mass
    angle = np.arccos(np.clip(1.0 - 2.0 * share / mass.sum(-1, keepdims=True), -1.0, 1.0)) / np.pi
    kind = np.minimum((kinds * angle).astype(np.intp), kinds - 1)
    out = np.empty_like(kind)
    np.put_along_axis(out, order, kind, axis=-1)
    return out


def _gathered(which: Any, law: FloatArray, kinds: int) -> FloatArray:
    """Mass of every kind (prompts, kinds)."""
    rows = [np.bincount(*row, kinds) for row in zip(which, law, strict=True)]
    return np.stack(rows).astype(np.float64)


def _expected(
    risk: risk_response.Risk, kinds: int, expert_size: float, own_size: float
) -> risk_response.Risk:
    """The mean of a risk over all groups, as a risk of the laws (prompts, kinds)."""
    tables = [_groups(kinds, size) for size in (expert_size, own_size)]

    def expected(r_y: Any, r_own: Any, w_y: Any, w_own: Any) -> Any:
        import torch

        weights, chances = [], []
        for (counts, ways), law in zip(tables, (w_y, w_own), strict=True):
            if counts is None:
                weights.append(law[:, None, :])
                chances.append(torch.ones_like(law[:, :1]))
                continue
            seen = torch.tensor(counts)
            weights.append((seen / seen.sum(-1, keepdim=True))[None])
            logs = torch.xlogy(seen[None], law[:, None, :]).sum(-1)
            chances.append(torch.exp(logs + torch.tensor(ways)))
        on_expert, on_own = weights[0][:, :, None, :], weights[1][:, None, :, :]
        shape = torch.broadcast_shapes(on_expert.shape, on_own.shape)
        shape = (len(r_y), *shape[1:])
        sides = [x.expand(shape) for x in (r_y[:, None, None], r_own[:, None, None])]
        values = risk(*sides, on_expert.expand(shape), on_own.expand(shape))
        return (chances[0][:, :, None] * chances[1][:, None, :] * values).sum((-1, -2))

    return expected


def _groups(kinds: int, size: float) -> tuple[FloatArray | None, FloatArray | None]:
    """All counts (groups, kinds) of so many responses, and the logarithm of their orders."""
    if size == inf:
        return None, None
    drawn = np.array(list(combinations_with_replacement(range(kinds), int(size))))
    counts = (drawn[..., None] == np.arange(kinds)).sum(-2).astype(np.float64)
    return counts, gammaln(size + 1.0) - gammaln(counts + 1.0).sum(-1)

"""One round on finite samples (T13): what is predicted of a tabular policy.

The samples alone decide: outcomes seen on the expert's side only never lose, those on the own side
only never win, shared ones do both. A bounded reward link gives them R(inf), R(-inf) and
R(log p^/q^); the logistic loss has no minimiser unless both sides saw the same outcomes (Ford's
condition for Bradley-Terry scores).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import lambertw

from theory.errors import InvalidInput
from theory.objectives import Objective
from theory.result import FloatArray


def logistic_growth(data: FloatArray, own: FloatArray) -> FloatArray:
    """Growth rates (..., N) of rewards against log t under the logistic loss (T13).

    Every level (expert only, shared, own only) that is not empty grows one faster than the next:
    each is held apart by forces that fall like e^{-distance}. Rewards of unseen outcomes stay
    and the mean of all logits is conserved, which fixes the rest: up to a constant, the normaliser.
    """
    seen, shared = (data > 0) | (own > 0), (data > 0) & (own > 0)
    between = shared.any(-1, keepdims=True).astype(float)
    level = np.where(shared, 1.0, np.where(data > 0, 1.0 + between, 0.0))
    mean = (level * seen).sum(-1, keepdims=True) / seen.sum(-1, keepdims=True)
    return np.where(seen, level - mean, 0.0)


def pair_margin(time: ArrayLike, speed: float) -> FloatArray:
    """Margin of one expert and one own sample under logistic flow: ``m + e^m - 1 = speed time``.

    ``speed`` is ``2 beta^2`` times the step size.
    """
    z = 1.0 + speed * np.asarray(time, dtype=float)
    # m = z - W(e^z), and e^z overflows: Newton from m = log z instead, which is above 0
    m = np.log(z)
    for _ in range(60):
        m = m - (m + np.exp(m) - z) / (1.0 + np.exp(m))
    return m


def bounded_range(objective: Objective, data: FloatArray, own: FloatArray) -> FloatArray:
    """Range of the best response on the samples, as the link has it (pairwise, centred), (...)."""
    reward = objective.reward(data, own)
    seen = (data > 0) | (own > 0)
    low = np.min(np.where(seen, reward, np.inf), -1)
    return np.max(np.where(seen, reward, -np.inf), -1) - low


def demanded_mass(
    objective: Objective, beta: ArrayLike, data: FloatArray, own: FloatArray, opponent: FloatArray
) -> FloatArray:
    """Mass ``sum q e^{R/beta}`` over the samples that a pointwise best response asks for, (...).

    The one-step pointwise loss attains its minimum only if this is below 1, as long as there are
    outcomes that no sample shows: they need what is left (T13).
    """
    seen = (data > 0) | (own > 0)
    wanted = np.where(seen, objective.reward(data, own), 0.0) / np.asarray(beta)
    return (seen * opponent * np.exp(wanted)).sum(-1)


class Unattained(NamedTuple):
    """Limit of a pointwise squared round that asks for more mass than there is."""

    law: FloatArray
    """The policy in the limit, (N,); nothing is left for unseen outcomes."""
    multiplier: float
    """``sum of dL/dr`` at the limit, < 0."""
    unseen_time: float
    """Unseen mass times time (steps) times step size, in the limit: it decays like 1/t."""


def squared_limit(
    c: float, beta: float, data: FloatArray, own: FloatArray, opponent: FloatArray
) -> Unattained:
    """SPIF's pointwise round (alpha = 1/2) on samples (N,) that ask for more mass than 1.

    Among policies on the samples, ``(p^+q^) c r - (p^-q^) = multiplier pi`` and ``sum pi = 1``. An
    unseen logit falls at speed ``step beta |multiplier| pi``; the samples' logits share the rise.
    InvalidInput: the minimum is attained.
    """
    seen = (data > 0) | (own > 0)
    weight = (data + own)[seen] * c * beta
    target = np.log(opponent[seen]) + (data - own)[seen] / weight
    if np.exp(target).sum() <= 1.0 or seen.all():
        raise InvalidInput("the minimum is attained: there is room for the targets, or no more")

    def law(pull: float) -> FloatArray:
        k = pull / weight
        return np.real(lambertw(k * np.exp(target))) / k

    pull = brentq(lambda m: law(m).sum() - 1.0, 1e-12, 1e6, xtol=1e-14)
    limit = np.zeros(len(seen))
    limit[seen] = law(pull)
    share = 1.0 / (~seen).sum() + 1.0 / seen.sum()
    return Unattained(limit, -float(pull), 1.0 / (beta * pull * share))

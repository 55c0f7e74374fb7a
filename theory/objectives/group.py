"""Group objectives: risks of all rewards of a prompt at once (T17)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from theory import xp
from theory.objectives import finite_groups
from theory.objectives.definition import Array
from theory.objectives.forms import Group
from theory.objectives.pointwise import ChiSquareMixture, ToReverseKL
from theory.objectives.registry import register
from theory.result import FloatArray


@register("centred_spif")
class CentredSpif(ChiSquareMixture, Group):
    """SPIF with a per-prompt baseline ``(E_p r + E_pi r)/2``: shift-invariant (T17)."""

    c: float = 1.0
    positive = ("c",)
    citation = "reconstruction, T17 (c times its L)"
    potential_name = "(2/c) KL(p||(p+pi)/2)"
    alpha = 0.5

    def group_risk(self, r_y: Array, r_own: Array, w_y: Array | None, w_own: Array | None) -> Array:
        gap = xp.weighted_mean(r_y, w_y) - xp.weighted_mean(r_own, w_own)
        spread = 0.5 * (_variance(r_y, w_y) + _variance(r_own, w_own))
        return self.c * (spread + xp.square(0.5 * gap - 1.0 / self.c))

    def finite_group_reward(
        self, expert: FloatArray, policy: FloatArray, expert_size: float, own_size: float
    ) -> FloatArray:
        """SPIF's link of another alpha with a gain of the laws (T17)."""
        return finite_groups.finite_group_link(expert, policy, self.c, expert_size, own_size).reward


@register("renyi")
class Renyi(ToReverseKL, Group):
    """Renyi variational risk ``log E_p e^{-(1-a) r}/(1-a) + log E_pi e^{a r}/a``, a = order."""

    order: float = 0.5
    unit = ("order",)
    citation = "IRIS, arXiv 2604.20933 (abstract); Birrell et al., arXiv 2007.03814"
    notes = "IRIS adapts its order during training by a rule not known here; fixed order here."
    absent: ClassVar[dict[str, str]] = {
        "loss": "a log of means, not a mean over examples; use risk",
        "saddle": "the value is a log of means, not separable over outcomes",
    }

    def group_risk(self, r_y: Array, r_own: Array, w_y: Array | None, w_own: Array | None) -> Array:
        k = self.order
        on_expert = _log_mean_exp(-(1.0 - k) * r_y, w_y) / (1.0 - k)
        return on_expert + _log_mean_exp(k * r_own, w_own) / k


def _variance(r: Array, weight: Array | None) -> Array:
    mean = xp.weighted_mean(r, weight)
    return xp.weighted_mean(xp.square(r - xp.namespace(r).expand_dims(mean, axis=-1)), weight)


def _log_mean_exp(x: Array, weight: Array | None) -> Array:
    namespace = xp.namespace(x, weight)
    weight = namespace.ones_like(x) if weight is None else weight
    shape = np.broadcast_shapes(x.shape, weight.shape)
    x, weight = (namespace.broadcast_to(v, shape) for v in (x, weight))
    low = namespace.full_like(x, -float("inf"))
    seen = weight > 0
    log_weight = namespace.where(seen, namespace.log(namespace.where(seen, weight, 1.0)), low)
    share = log_weight - namespace.expand_dims(xp.logsumexp(log_weight), axis=-1)
    return xp.logsumexp(namespace.where(seen, x + share, low))

"""Certificates that trust no solver: a convex function against its own linearisation."""

from __future__ import annotations

import numpy as np

from theory import laws, xp
from theory.objectives import Objective
from theory.result import FloatArray


def equilibrium_bounds(
    obj: Objective, expert: FloatArray, policy: FloatArray, ref: FloatArray | None, tau: float
) -> tuple[FloatArray, FloatArray]:
    """``F = D_Phi(pi||p) + tau KL(pi||ref)`` at the policy, and a lower bound of ``min F``.

    ``D_Phi`` is convex with gradient ``-r`` (T5), so
    ``F(pi') >= D_Phi(pi) + E_pi[r] - E_pi'[r] + tau KL(pi'||ref)``, whose minimum over ``pi'`` is
    closed: ``-tau log sum ref e^{r/tau}``, or ``-max r`` at tau = 0 (a Frank-Wolfe bound).
    NaN where the objective has no potential; -inf where a reward is unbounded.
    """
    if obj.missing("potential"):
        nothing = np.full(expert.shape[:-1], np.nan)
        return nothing, nothing
    divergence = obj.potential(policy, expert)
    reward = np.asarray(obj.link(laws.log_ratio(expert, policy)))
    live = (expert > 0) | (policy > 0)
    with np.errstate(invalid="ignore"):
        linear = divergence + laws.expect(policy, reward)
        if tau == 0 or ref is None:
            return divergence, linear - np.where(live, reward, -np.inf).max(-1)
        weight = np.where(ref > 0, laws.log_law(ref) + reward / tau, -np.inf)
        return divergence + tau * laws.kl(policy, ref), linear - tau * xp.logsumexp(weight)

"""The reward player's exact best response to laws that are at hand, whatever the objective."""

from __future__ import annotations

import torch
from torch import Tensor

from theory.objectives import Objective


def best_response(objective: Objective, u: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Rewards (..., n) at log-ratios ``u = log p/q`` of laws p and q (..., n), in nats.

    By the link at ``u`` (which may be cut where a law is 0) and ``Delta(p, q)``; of a loss without
    one, a pair loss or group risk of one's own, by minimising it over rewards.

    Raises:
        Unavailable: no best response exists. NotConverged: a numeric one was not reached.
    """
    if not objective.has_link:
        return torch.from_numpy(objective.reward(p.numpy(), q.numpy()))
    delta = ((p - q) ** 2 / (p + q).clamp_min(1e-300)).sum(-1, keepdim=True)
    return torch.as_tensor(objective.link_formula(u, delta.clamp(0.0, 2.0)))

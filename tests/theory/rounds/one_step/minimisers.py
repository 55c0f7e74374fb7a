"""Objectives with a one-step round, and minimisers of its risk that know nothing of the solver."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.theory.strategies import Instance
from theory import objectives
from theory.objectives import Objective
from theory.result import FloatArray

NO_ONE_STEP = {
    "gail": "log",
    "ipm": "constraint",
    "spin_hinge": "linear program",
}
EVERY = [objectives.get(name) for name in objectives.names()]
EVERY += [objectives.get("renyi", order=0.3), objectives.get("ipo", margin=2.0)]
SHIFT_INVARIANT = [o for o in EVERY if o.form != "pointwise" and o.name not in NO_ONE_STEP]
POINTWISE = [o for o in EVERY if o.form == "pointwise" and o.name not in NO_ONE_STEP]
POINTWISE += [objectives.get("spif", c=0.7, alpha=0.3), objectives.get("space", mu=3.0)]
IMITATION = [o for o in POINTWISE if not o.needs]
SPIF = objectives.get("spif")
SPIN = objectives.get("spin")


def two_step(game: Instance, obj: Objective, beta: float, tau: float = 0.0) -> FloatArray:
    """The two-step round from its definition."""
    power = (beta * np.log(game.start) + tau * np.log(game.ref)) / (beta + tau)
    with np.errstate(over="ignore"):
        power = power + np.clip(obj.reward(game.expert, game.start), -1e290, 1e290) / (beta + tau)
    weight = np.exp(power - power.max(-1, keepdims=True))
    return np.asarray(weight / weight.sum(-1, keepdims=True))


def risk_of_logits(game: Instance, obj: Objective, beta: float, tau: float, row: int = 0) -> Any:
    """The objective's own risk as a function of the logits of one prompt's policy (torch)."""
    p, q, ref = (torch.tensor(law[row]) for law in (game.expert, game.start, game.ref))

    def risk(logits: Any) -> Any:
        log_pi = logits - torch.logsumexp(logits, -1)
        if obj.reference_free:
            extras: dict[str, Any] = {"history_logratio": log_pi, "history_law": ref}
            return obj.risk(log_pi, log_pi, beta, p, q, **extras)
        ratio, anchor = log_pi - torch.log(q), log_pi - torch.log(ref)
        extras = {"tau": tau, "expert_anchor": anchor, "policy_anchor": anchor}
        return obj.risk(ratio, ratio, beta, p, q, **extras)

    return risk


def gradient_of(risk: Any, x: Any) -> Any:
    point = x.detach().requires_grad_(True)
    return torch.autograd.grad(risk(point), point)[0]


def newton_minimum(risk: Any, start: FloatArray) -> FloatArray:
    """Damped Newton's method on the logits: a minimiser that knows nothing of links."""
    x = torch.tensor(start)
    for _ in range(200):
        gradient = gradient_of(risk, x)
        if gradient.abs().max() < 1e-14:
            break
        hessian = torch.autograd.functional.hessian(risk, x)
        values, vectors = torch.linalg.eigh(hessian)
        scale = values.abs().max() * 1e-13
        inverse = torch.where(values.abs() > scale, 1 / values.abs().clamp(min=scale), 0.0)
        step = -(vectors @ (inverse * (vectors.T @ gradient)))
        step = step * min(1.0, 3.0 / float(step.abs().max().clamp(min=1e-300)))
        before, size = risk(x), 1.0
        # so near the risk is flat to rounding, and the gradient says more
        falls = float(step.abs().max()) < 1e-5 and (
            gradient_of(risk, x + step).abs().max() < gradient.abs().max()
        )
        while not falls and risk(x + size * step) > before + 1e-15 * before.abs() and size > 1e-8:
            size *= 0.5
        x = x + size * step
        if float((size * step).abs().max()) < 1e-13:
            break
    return np.asarray(torch.softmax(x, -1))

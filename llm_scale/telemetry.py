"""What theory predicts of a round, measured on held-out prompts (signatures S1-S4, reconstruction).

All are functions of log-probabilities of the same responses before and after the round, and of the
expert's where it is known; ``u = log p/pi_t`` and ``r = beta log pi_{t+1}/pi_t`` in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_scale.samples import Item, Tokens
from theory.objectives import Objective

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Log-probabilities of held-out responses, flat, one line a response.

    Attributes:
        prompt: (n,) which prompt text a response belongs to: constants are per prompt.
        side: (n,) "expert", "own" or "other" (random tokens, like neither).
        before: ``log pi_t``. after: ``log pi_{t+1}``. expert: ``log p``, or NaN where unknown.
    """

    prompt: NDArray[np.int64]
    side: NDArray[np.str_]
    before: Floats
    after: Floats
    expert: Floats

    def on(self, side: str) -> NDArray[np.bool_]:
        return np.asarray(self.side == side)


def link(measured: Measured, objective: Objective, beta: float) -> dict[str, float]:
    """S1: slope and correlation of the learned reward on the predicted one, centred per prompt.

    On expert and own responses together. The predicted one is ``R(u)`` of the exact two-step
    round; IPO's gain uses Delta estimated from the same responses.
    """
    seen = measured.on("expert") | measured.on("own")
    u = (measured.expert - measured.before)[seen]
    if objective.missing("link") or not np.isfinite(u).all():
        return {}
    is_expert = measured.on("expert")[seen]
    predicted = np.asarray(objective.link(u, triangular(u, is_expert)))
    learned = beta * (measured.after - measured.before)[seen]
    x, y = (centred(v, measured.prompt[seen]) for v in (predicted, learned))
    return {
        "link_slope": float(x @ y / (x @ x)),
        "link_correlation": float(np.corrcoef(x, y)[0, 1]),
    }


def triangular(u: Floats, is_expert: NDArray[np.bool_]) -> float:
    """``Delta(p, q) = E_p tanh(u/2) - E_q tanh(u/2)`` from samples of both laws."""
    tilt = np.tanh(0.5 * u)
    return float(np.clip(tilt[is_expert].mean() - tilt[~is_expert].mean(), 0.0, 2.0))


def contraction(measured: Measured) -> dict[str, float]:
    """S2: slope of ``log p/pi_{t+1}`` on ``log p/pi_t``, centred; locally 1 - R'(0)/beta."""
    seen = measured.on("expert") | measured.on("own")
    before = (measured.expert - measured.before)[seen]
    after = (measured.expert - measured.after)[seen]
    if not np.isfinite(before).all():
        return {}
    x, y = (centred(v, measured.prompt[seen]) for v in (before, after))
    return {"contraction": float(x @ y / (x @ x))}


def divergences(measured: Measured) -> dict[str, float]:
    """KL(p||pi_t), KL(p||pi_{t+1}) from expert responses; KL(pi_t||p) from own ones (of pi_t)."""
    p, q = measured.on("expert"), measured.on("own")
    out = {}
    if np.isfinite(measured.expert).all():
        out["kl_before"] = float((measured.expert - measured.before)[p].mean())
        out["kl"] = float((measured.expert - measured.after)[p].mean())
        out["reverse_kl_before"] = float((measured.before - measured.expert)[q].mean())
    out["nll_before"] = float(-measured.before[p].mean())
    out["nll"] = float(-measured.after[p].mean())
    return out


def rewards(measured: Measured, beta: float) -> dict[str, float]:
    """S3: largest |reward| and mean reward on expert, own and other responses; and the margin."""
    reward = beta * (measured.after - measured.before)
    out = {}
    for side in ("expert", "own", "other"):
        values = reward[measured.on(side)]
        if len(values):
            out[f"max_reward_{side}"] = float(np.abs(values).max())
            out[f"reward_{side}"] = float(values.mean())
    out["margin"] = out["reward_expert"] - out["reward_own"]
    return out


def partition(measured: Measured, objective: Objective, beta: float) -> dict[str, float]:
    """S4: ``log Z = log E_{pi_t} e^{R(u)/beta}`` from own responses and the true u."""
    q = measured.on("own")
    u = (measured.expert - measured.before)[q]
    if objective.missing("link") or not np.isfinite(u).all():
        return {}
    all_u = (measured.expert - measured.before)[q | measured.on("expert")]
    delta = triangular(all_u, measured.on("expert")[q | measured.on("expert")])
    weight = np.asarray(objective.link(u, delta)) / beta
    return {"log_partition": float(np.logaddexp.reduce(weight) - np.log(len(weight)))}


def levels(measured: Measured) -> dict[str, float]:
    """Absolute log-probabilities of expert and own responses, before and after the round."""
    out = {}
    for side in ("expert", "own", "other"):
        for name in ("before", "after"):
            values = getattr(measured, name)[measured.on(side)]
            if len(values):
                out[f"log_prob_{side}_{name}"] = float(values.mean())
    return out


def lengths(items: Sequence[Item]) -> dict[str, float]:
    """Mean length in tokens and share of responses cut at the horizon, of both sides."""
    out = {}
    for side in ("expert", "own"):
        responses = [r for item in items for r in getattr(item, side)]
        if responses:
            out[f"length_{side}"] = float(np.mean([len(r.tokens) for r in responses]))
            out[f"truncated_{side}"] = float(np.mean([r.truncated for r in responses]))
    return out


def summary(measured: Measured, objective: Objective | None, beta: float) -> dict[str, float]:
    """All of the above for a round; SFT has no reward link."""
    out = divergences(measured) | contraction(measured) | levels(measured) | rewards(measured, beta)
    if objective is not None:
        out |= link(measured, objective, beta) | partition(measured, objective, beta)
    return out


def centred(values: Floats, group: NDArray[np.int64]) -> Floats:
    """Values less the mean of their group."""
    _, index = np.unique(group, return_inverse=True)
    means = np.bincount(index, values) / np.bincount(index)
    return np.asarray(values - means[index])


def prompt_numbers(prompts: Sequence[Tokens]) -> NDArray[np.int64]:
    """The same number for the same prompt text."""
    known: dict[Any, int] = {}
    return np.array([known.setdefault(p, len(known)) for p in prompts], dtype=np.int64)

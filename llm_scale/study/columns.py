"""The columns of a tiny model's rows: functions of laws over all responses, and nothing else.

``log_p``, ``log_q``, ``log_new`` (prompts, responses) are the logarithms of the expert, of pi_t and
of pi_{t+1}, in nats; numbers are means over prompts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.stats import centred, regression
from llm_scale.measure.predicted import RewardTerms, as_trained
from theory import laws
from theory.errors import NotConverged, Unavailable
from theory.objectives import Objective
from theory.objectives.implicit import implicit_reward
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

Floats = NDArray[np.float64]
Row = dict[str, Any]

POINTS = 160
"""Responses kept for the scatter of the link."""
RARE = 1e-4
"""A response is outside if neither the expert nor pi_t gives it this probability."""


def divergences(log_p: Floats, log_q: Floats, log_new: Floats) -> Row:
    """KL both ways before and after, contraction of u, and the mass outside of both laws."""
    p, q, new = (np.exp(x) for x in (log_p, log_q, log_new))
    inside = (p >= RARE) | (q >= RARE)
    return {
        "kl_before": float(kl(log_p, log_q)),
        "kl": float(kl(log_p, log_new)),
        "reverse_kl": float(kl(log_new, log_p)),
        "tv": float(laws.total_variation(p, new).mean()),
        "delta": float(laws.triangular(p, q).mean()),
        "contraction": contraction(log_p, log_q, log_new),
        "max_u": float(np.abs(log_p - log_new)[inside].max()),
        "outside_before": float(np.where(inside, 0.0, q).sum(-1).mean()),
        "outside_expert": float(np.where(inside, 0.0, p).sum(-1).mean()),
        "outside": float(np.where(inside, 0.0, new).sum(-1).mean()),
        "level_expert": float((p * (log_new - log_q)).sum(-1).mean()),
        "level_own": float((q * (log_new - log_q)).sum(-1).mean()),
    }


def contraction(log_p: Floats, log_q: Floats, log_new: Floats) -> float:
    """Slope of the expert's log-ratio after a round on that before, under (p + q)/2."""
    weight = 0.5 * (np.exp(log_p) + np.exp(log_q))
    u, u_new = (centred(log_p - x, weight) for x in (log_q, log_new))
    return regression(u, u_new, weight).slope


def rewards(
    log_p: Floats,
    log_q: Floats,
    log_new: Floats,
    objective: Objective,
    beta: float,
    sizes: tuple[int, int],
) -> Row:
    """The learned reward against the link, and against that of the loss as it is trained."""
    p, q = np.exp(log_p), np.exp(log_q)
    weight = 0.5 * (p + q)
    learned = implicit_reward(objective, log_new, log_q, beta)
    inside = (p >= RARE) | (q >= RARE)
    link = reward_of_log_laws(objective, log_p, log_q)
    log_z = np.log((q * np.exp(link / beta)).sum(-1)) if not objective.up_to_constant else 0.0
    row: Row = {
        "log_z": float(np.mean(log_z)),
        "max_reward": float(np.abs(learned)[inside].max()),
        "max_reward_outside": float(np.abs(learned)[~inside].max(initial=0.0)),
    }
    refined = trained(p, q, RewardTerms(objective, beta, 0.0, *sizes), link)
    for name, reward in {"link": link, "predicted": refined}.items():
        if reward is not None:
            exact = gibbs_step(log_q, reward, beta, None, 0.0)
            row |= {
                f"kl_{name}": float(kl(log_p, exact)),
                f"tv_{name}": float(laws.total_variation(p, np.exp(exact)).mean()),
                f"tv_to_{name}": float(laws.total_variation(np.exp(log_new), np.exp(exact)).mean()),
                f"outside_{name}": float(np.where(inside, 0.0, np.exp(exact)).sum(-1).mean()),
                f"max_u_{name}": float(np.abs(log_p - exact)[inside].max()),
                f"contraction_{name}": contraction(log_p, log_q, exact),
                **fit(name, reward, learned, weight),
                **parts(name, log_p, log_q, reward, learned, beta),
            }
    return row


def parts(
    name: str, log_p: Floats, log_q: Floats, exact: Floats, learned: Floats, beta: float
) -> Row:
    """KL(p||.) of an exact round with one part of the learned reward's error put in.

    The learned reward is ``slope * exact + residual``: the slope shortens the step, the residual
    is noise that the round divides by beta.
    """
    weight = 0.5 * (np.exp(log_p) + np.exp(log_q))
    exact, learned = centred(exact, weight), centred(learned, weight)
    slope = fit(name, exact, learned, weight)[f"{name}_slope"]
    residual = learned - slope * exact

    def after(reward: Floats) -> float:
        return float(kl(log_p, gibbs_step(log_q, reward, beta, None, 0.0)))

    return {
        f"{name}_residual": float(np.sqrt((weight * residual**2).sum(-1).mean())),
        f"kl_{name}_slope": after(slope * exact),
        f"kl_{name}_residual": after(exact + residual),
    }


def points(log_p: Floats, log_q: Floats, log_new: Floats, objective: Objective, beta: float) -> Row:
    """The likeliest responses: u, learned reward and link, the latter two up to one constant."""
    weight = 0.5 * (np.exp(log_p) + np.exp(log_q))
    learned = implicit_reward(objective, log_new, log_q, beta)
    link = reward_of_log_laws(objective, log_p, log_q)
    shift = (weight * (learned - link)).sum(-1, keepdims=True)
    chosen = np.argsort(-weight, axis=None)[:POINTS]
    values = {"u": log_p - log_q, "learned": learned - shift, "link": link, "weight": weight}
    return {f"points_{k}": v.ravel()[chosen].tolist() for k, v in values.items()}


def trained(p: Floats, q: Floats, game: RewardTerms, link: Floats) -> Floats | None:
    """Rewards of the loss as it is trained, the link if that is the same or all that is known.

    None: not reached.
    """
    try:
        found = as_trained(p, q, game)
    except NotConverged:
        return None
    except Unavailable:
        return link
    return link if found is None else found.reward


def fit(name: str, x: Floats, y: Floats, weight: Floats) -> Row:
    """Slope of y on x and their correlation, under weights, a constant per prompt aside."""
    found = regression(centred(x, weight), centred(y, weight), weight)
    return {f"{name}_slope": found.slope, f"{name}_correlation": found.correlation}


def kl(log_p: Floats, log_q: Floats) -> Any:
    """Mean over prompts of KL(p||q) from logarithms."""
    return (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()

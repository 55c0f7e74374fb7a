"""The gap of an anchored model from listed laws, and how well samples of it tell it (T10).

``log_p``, ``log_ref``, ``log_q``, ``log_new`` (prompts, responses) are the logarithms of the
expert, of pi_0, of pi_t and of pi_{t+1}, in nats; prompts are uniform.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_scale.measure.predicted import RewardTerms
from llm_scale.study.columns import Floats, Row, kl
from theory.equilibria.sampled import SampledGap, sampled_gap
from theory.equilibria.solve import equilibrium
from theory.objectives.implicit import implicit_reward

Places = NDArray[np.int64]


class Laws(NamedTuple):
    """Log-laws of an anchored round, (prompts, responses) each."""

    log_p: Floats
    log_ref: Floats
    log_q: Floats
    log_new: Floats


class Gap(NamedTuple):
    """In nats a response: of all prompts pooled, and the mean of the prompts' own."""

    pooled: float
    prompts: float


def end_of_rounds(log_p: Floats, log_ref: Floats, game: RewardTerms) -> Floats:
    """``log pi*`` of the equilibrium of the rounds, certified to 1e-9."""
    found = equilibrium(np.exp(log_p), np.exp(log_ref), game.objective, game.tau)
    return np.log(found.policy)


def gap(log_new: Floats, log_ref: Floats, reward: Floats, tau: float) -> Gap:
    """``tau KL(pi || ref e^{r/tau}/Z)`` with one Z for all prompts, and with one for each."""
    weight = log_ref + reward / tau
    paid = (np.exp(log_new) * (log_new - weight)).sum(-1)
    log_z = np.logaddexp.reduce(weight, -1)
    pooled = paid.mean() + np.logaddexp.reduce(log_z) - np.log(len(log_z))
    return Gap(float(tau * pooled), float(tau * (paid + log_z).mean()))


def rewards(laws: Laws, game: RewardTerms) -> dict[str, Floats]:
    """The reward that each gap is against: the true one of pi_{t+1}, and the learned one."""
    log_p, log_ref, log_q, log_new = laws
    learned = implicit_reward(game.objective, log_new, log_q, game.beta, log_ref, game.tau)
    return {"gap": game.objective.link(log_p - log_new), "learned_gap": np.asarray(learned)}


def exact(laws: Laws, log_end: Floats, game: RewardTerms) -> Row:
    """Distances of the model and its gaps. ``kl_end``: KL(pi||pi*), mean over prompts."""
    row: Row = {
        "kl": float(kl(laws.log_p, laws.log_new)),
        "kl_step": float(kl(laws.log_new, laws.log_q)),
        "kl_end": float(kl(laws.log_new, log_end)),
    }
    for name, reward in rewards(laws, game).items():
        found = gap(laws.log_new, laws.log_ref, reward, game.tau)
        row |= {f"exact_{name}": found.pooled, f"exact_{name}_prompts": found.prompts}
    return row


def redrawn(
    laws: Laws, game: RewardTerms, known: Row, size: int, repetitions: int, rng: np.random.Generator
) -> Row:
    """How often intervals from fresh samples of the model cover its exact gap.

    Every time ``size`` prompts with a response of pi_{t+1} and one of pi_0 each. Of the gap from
    own responses alone ("gap"), with those of pi_0 for ``log Z`` ("gap_ref"), and of the learned
    gap: ``given_*`` the share with an interval, and of these ``covered_*`` the share of 95 %
    intervals with the exact number in them, ``ratio_*`` the mean estimate over it, ``bounded_*``
    the share of upper limits of KL(pi||pi*) that are above it.

    Args:
        known: row of `exact`.
    """
    prompt = rng.integers(len(laws.log_p), size=(repetitions, size))
    own, base = (drawn(np.exp(law), prompt, rng) for law in (laws.log_new, laws.log_ref))
    anchor = (laws.log_new - laws.log_ref)[prompt, own]
    row: Row = {}
    for name, reward in rewards(laws, game).items():
        ways: dict[str, Any] = {name: None}
        if name == "gap":
            ways["gap_ref"] = reward[prompt, base]
        for way, of_ref in ways.items():
            found = sampled_gap(
                game.objective, game.tau, reward[prompt, own], anchor, of_ref, kind="equilibrium"
            )
            row |= _hits(way, found, known[f"exact_{name}"], known["kl_end"])
    return {k: v for k, v in row.items() if k != "bounded_learned_gap"}


def drawn(law: Floats, prompt: Places, rng: np.random.Generator) -> Places:
    """Numbers of responses drawn from laws (prompts, responses) to these prompts."""
    found = np.empty(prompt.shape, dtype=np.int64)
    uniform = rng.random(prompt.shape)
    for x, below in enumerate(law.cumsum(-1)):
        to = prompt == x
        found[to] = np.searchsorted(below[:-1] / below[-1], uniform[to], side="right")
    return found


def _hits(name: str, found: SampledGap, gap: float, kl_end: float) -> Row:
    given = found.trusted
    row: Row = {f"given_{name}": float(given.mean())}
    if not given.any():
        return row
    low, high = found.interval
    return row | {
        f"covered_{name}": float(((low <= gap) & (gap <= high))[given].mean()),
        f"ratio_{name}": float(found.gap.value[given].mean() / gap),
        f"bounded_{name}": float((found.distance >= kl_end)[given].mean()),
    }

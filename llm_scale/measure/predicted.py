"""Rewards that theory predicts for a round's held-out responses (reconstruction, T1-T4, T17).

The responses of a prompt, drawn from ``p`` and from ``pi_t`` in equal number, carry discrete laws:
response ``y`` has weight ``p(y)/(p(y) + pi_t(y))`` under ``p`` and ``q(y)/(p(y) + pi_t(y))`` under
the opponent ``q`` (multiple importance sampling with the balance heuristic, normalised). On these
the exact solvers of `theory` run as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory import laws, objectives, xp
from theory.errors import NotConverged, Unavailable
from theory.objectives import Objective
from theory.objectives.finite_groups import finite_group_link, group_coefficients
from theory.objectives.group import CentredSpif
from theory.rounds.one_step import one_step_round

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST = 16
"""Responses of one prompt, both sides together, from which laws are estimated."""
TWO_STEP, ONE_STEP, GROUPS = "two-step link", "one-step round", "finite groups"
GROUPS_FITTED = "finite groups, gain fitted"


@dataclass(frozen=True)
class Points:
    """Expert and own responses with all log-probabilities that a prediction reads, in nats.

    Attributes:
        prompt: (n,) number of the prompt text.
        is_expert: (n,) drawn from ``p``; the others from ``pi_t``.
        expert: ``log p``. before: ``log pi_t``. opponent: the log-law that log-ratios divide by.
        anchor: ``log pi_0``, or None where there is no anchor.
    """

    prompt: Ints
    is_expert: NDArray[np.bool_]
    expert: Floats
    before: Floats
    opponent: Floats
    anchor: Floats | None = None

    @property
    def u(self) -> Floats:
        """True log density ratio ``log p/q``."""
        return self.expert - self.opponent


@dataclass(frozen=True)
class Game:
    """What a round's rewards depend on beside the laws."""

    objective: Objective
    beta: float
    tau: float = 0.0
    expert_samples: int = 1
    own_samples: int = 1
    level: str = "sequence"


@dataclass(frozen=True)
class Predicted:
    """Rewards (n,) that theory predicts, each up to a constant per prompt.

    Attributes:
        link: ``R(u)`` of the exact two-step round.
        refined: that of the loss as it is trained; NaN on prompts where it could not be had.
        kind: which one ``refined`` is, in words.
        delta: (n,) triangular discrimination of the prompt's laws, in [0, 2].
    """

    link: Floats
    refined: Floats
    kind: str
    delta: Floats


def predict(points: Points, game: Game) -> Predicted | None:
    """Predictions for all points; None where the objective has no link or u is not known.

    Rewards per token have none here: see `llm_scale.measure.tokens`.
    """
    u = points.u
    unknown = "preference" in game.objective.needs or game.objective.reference_free
    unknown |= game.level == "token" or bool(game.objective.missing("link"))
    if unknown or not np.isfinite(u).all():
        return None
    sampled = _sampled(points)
    delta = np.full(len(u), triangular(u, points.is_expert))
    if sampled is not None:
        delta[sampled.rows] = sampled.scatter(laws.triangular(sampled.p, sampled.q)[:, None])
    link = np.asarray(game.objective.link(u, delta))
    refined, kind = _refined(points, game, sampled)
    return Predicted(link, link if refined is None else refined, kind, delta)


def triangular(u: Floats, is_expert: NDArray[np.bool_]) -> float:
    """``Delta(p, q) = E_p tanh(u/2) - E_q tanh(u/2)`` from samples of both laws."""
    tilt = np.tanh(0.5 * u)
    return float(np.clip(tilt[is_expert].mean() - tilt[~is_expert].mean(), 0.0, 2.0))


@dataclass(frozen=True)
class _Sampled:
    """Laws (prompts, width) of the prompts with enough responses; 0 is padding.

    ``rows`` (m,) are the points in them, at (``line``, ``column``).
    """

    rows: Ints
    line: Ints
    column: Ints
    p: Floats
    q: Floats
    base: Floats | None

    def scatter(self, table: Floats) -> Floats:
        """Values (m,) of a table (prompts, width or 1) for the points in ``rows``."""
        return np.broadcast_to(table, self.p.shape)[self.line, self.column]


def _sampled(points: Points) -> _Sampled | None:
    _, index, count = np.unique(points.prompt, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(count[index] >= FEWEST)
    if not len(rows):
        return None
    rows = rows[np.argsort(index[rows], kind="stable")]
    _, line, count = np.unique(index[rows], return_inverse=True, return_counts=True)
    column = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    log_drawn = np.logaddexp(points.expert, points.before)[rows]

    def law(log_law: Floats) -> Floats:
        table = np.full((len(count), int(count.max())), -np.inf)
        table[line, column] = log_law[rows] - log_drawn
        return np.asarray(np.exp(xp.log_normalise(table)))

    base = None if points.anchor is None else law(points.anchor)
    return _Sampled(rows, line, column, law(points.expert), law(points.opponent), base)


def _refined(points: Points, game: Game, sampled: _Sampled | None) -> tuple[Floats | None, str]:
    objective = game.objective
    if isinstance(objective, CentredSpif):
        return _groups(points, game, objective.c, sampled)
    if objective.form != "pointwise" or "history" in objective.needs or sampled is None:
        return None, TWO_STEP
    tau = game.tau if sampled.base is not None else 0.0
    out = np.full(len(points.u), np.nan)
    try:
        found = one_step_round(sampled.p, sampled.q, objective, game.beta, sampled.base, tau)
    except Unavailable:
        return None, TWO_STEP
    except NotConverged as error:
        found = error.solution
    good = found.converged & (found.dumped < 0)
    out[sampled.rows] = sampled.scatter(np.where(good[:, None], found.reward, np.nan))
    return (out, ONE_STEP) if np.isfinite(out).any() else (None, TWO_STEP)


def _groups(
    points: Points, game: Game, c: float, sampled: _Sampled | None
) -> tuple[Floats | None, str]:
    sizes = game.expert_samples, game.own_samples
    if sampled is None:
        a, b = group_coefficients(*sizes)
        spif = objectives.get("spif", c=c, alpha=a / (a + b))
        return np.asarray(spif.link(points.u)), GROUPS_FITTED
    out = np.full(len(points.u), np.nan)
    found = finite_group_link(sampled.p, sampled.q, c, *sizes)
    out[sampled.rows] = sampled.scatter(found.reward)
    return out, GROUPS

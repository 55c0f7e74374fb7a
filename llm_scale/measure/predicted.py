"""Rewards that theory predicts for a round's held-out responses (reconstruction, T1-T4, T17).

The responses of a prompt, drawn from ``p`` and from ``pi_t`` in equal number, carry discrete laws:
response ``y`` has weight ``p(y)/(p(y) + pi_t(y))`` under ``p`` and ``q(y)/(p(y) + pi_t(y))`` under
the opponent ``q`` (multiple importance sampling with the balance heuristic, normalised). On these
the exact solvers of `theory` run as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from theory import laws, xp
from theory.errors import NotConverged, Unavailable
from theory.objectives import Objective
from theory.rounds.one_step import one_step_round

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST = 16
"""Responses of one prompt, both sides together, from which laws are estimated."""
MOST_POOLED = 1000
"""Responses of all prompts together from which a link that depends on the laws is solved."""
TWO_STEP, ONE_STEP, GROUPS = "two-step link", "one-step round", "finite groups"
GROUPS_POOLED = "finite groups, prompts pooled"


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
class RewardTerms:
    """What a round's rewards depend on beside the laws."""

    objective: Objective
    beta: float
    tau: float = 0.0
    expert_samples: int = 1
    own_samples: int = 1
    level: str = "sequence"
    history: float = 0.0
    ablated: bool = False
    """Whether a term of the loss, or pi_t as the source of own responses, is left out, or rewards
    are divided by lengths."""


@dataclass(frozen=True)
class Predicted:
    """Rewards (n,) that theory predicts, each up to a constant per prompt.

    Attributes:
        link: ``R(u)`` of the exact two-step round.
        refined: that of the loss as it is trained; NaN on prompts where it could not be had.
        kind: which one ``refined`` is, in words.
        why: why it is the two-step link although the loss as it is trained has another; else "".
        delta: (n,) triangular discrimination of the prompt's laws, in [0, 2].
    """

    link: Floats
    refined: Floats
    kind: str
    delta: Floats
    why: str = ""


def predict(points: Points, game: RewardTerms) -> Predicted | None:
    """Predictions for all points; None where there is none: see `unpredicted`."""
    objective, u = game.objective, points.u
    if unpredicted(points, game):
        return None
    sampled = _sampled(points)
    delta = np.full(len(u), triangular(u, points.is_expert))
    if sampled is not None:
        delta[sampled.rows] = sampled.scatter(laws.triangular(sampled.p, sampled.q)[:, None])
    link = _link(points, objective, sampled, delta)
    refined, kind, why = _refined(points, game, sampled)
    return Predicted(link, link if refined is None else refined, kind, delta, why)


def unpredicted(points: Points, game: RewardTerms) -> str:
    """Why theory predicts no reward of these points, else "".

    Rewards per token have their prediction in `llm_scale.measure.tokens`.
    """
    if "preference" in game.objective.needs:
        return "the expert is a preference, see preference_slope"
    if game.ablated:
        return "an ablation, of which the objective's best response is not that"
    if game.history > 0:
        return "own responses are in part of pi_{t-1}, and the link here is that of pi_t alone"
    if game.level == "token":
        return "rewards are per token, see token_link_slope"
    if not np.isfinite(points.u).all():
        return "a response has probability 0 under the expert or the opponent"
    return game.objective.missing("reward") or ""


@dataclass(frozen=True)
class Trained:
    """Rewards of the loss as it is trained.

    Attributes:
        reward: (prompts, n) in nats.
        near: (prompts,) whether it continues the two-step round, with nothing dumped.
        kind: which one it is, in words.
    """

    reward: Floats
    near: NDArray[np.bool_]
    kind: str


def as_trained(
    p: Floats, q: Floats, game: RewardTerms, base: Floats | None = None
) -> Trained | None:
    """Best response of the loss as it is trained; None where it is that of the two-step round.

    A loss that sees the level of rewards moves a law in one step, with a partition gap (T4); one
    of whole groups learns the error of their plug-in estimates too (T17).

    Args:
        p, q: laws (prompts, n) of expert and opponent. base: that of the anchor, None without.

    Raises:
        NotConverged: no stationary law was reached in one step.
        Unavailable: there is another one, which is not known, with the reason.
    """
    objective = game.objective
    if not objective.up_to_constant:
        tau = 0.0 if base is None else game.tau
        found = one_step_round(p, q, objective, game.beta, base, tau)
        return Trained(found.reward, found.converged & (found.dumped < 0), ONE_STEP)
    if not objective.has_loss:
        sizes = game.expert_samples, game.own_samples
        reward = objective.finite_group_reward(p, q, *sizes)
        return Trained(reward, np.ones(len(p), dtype=bool), GROUPS)
    return None


def where_near(
    p: Floats, q: Floats, game: RewardTerms, base: Floats | None = None
) -> Trained | None:
    """`as_trained`, and its Unavailable, with NaN on prompts that have no near solution."""
    try:
        found = as_trained(p, q, game, base)
    except NotConverged as error:
        step = error.solution
        found = Trained(step.reward, step.converged & (step.dumped < 0), ONE_STEP)
    if found is None:
        return None
    return replace(found, reward=np.where(found.near[:, None], found.reward, np.nan))


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
    """Laws of the prompts with enough responses; None if there are none."""
    _, index, count = np.unique(points.prompt, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(count[index] >= FEWEST)
    return _laws(points, rows) if len(rows) else None


def _laws(points: Points, rows: Ints) -> _Sampled:
    _, index = np.unique(points.prompt, return_inverse=True)
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


def _pooled(points: Points, most: int | None = None) -> _Sampled:
    """The laws of all points, or of ``most`` of them, as if they were responses to one prompt."""
    size = len(points.prompt)
    rows = np.linspace(0, size - 1, min(size, most or size)).astype(np.int64)
    return _laws(replace(points, prompt=np.zeros(size, dtype=np.int64)), rows)


def _link(points: Points, objective: Objective, sampled: _Sampled | None, delta: Floats) -> Floats:
    """Rewards of the exact two-step round; a link that depends on the laws by those of its prompt,
    or of all prompts pooled where too few responses of it are there."""
    if objective.has_link:
        return np.asarray(objective.link(points.u, delta))
    if sampled is not None and len(sampled.rows) == len(points.u):
        out = np.empty(len(points.u))
    else:
        pooled = _pooled(points, MOST_POOLED)
        out = objective.link_of(pooled.p, pooled.q)(points.u[None])[0]
    if sampled is not None:
        out[sampled.rows] = sampled.scatter(objective.reward(sampled.p, sampled.q))
    return out


def _refined(
    points: Points, game: RewardTerms, sampled: _Sampled | None
) -> tuple[Floats | None, str, str]:
    """Rewards of the loss as it is trained, None if those of the link; which they are; why not."""
    seen, kinds = sampled, {GROUPS: GROUPS}
    if seen is None:
        if not game.objective.up_to_constant:
            even = np.full((1, 2), 0.5)
            try:
                where_near(even, even, game, even)
            except Unavailable as error:  # nor would it with more responses
                return None, TWO_STEP, str(error)
            few = f"one-step rounds are of a prompt's laws, and none has {FEWEST} responses"
            return None, TWO_STEP, few
        seen, kinds = _pooled(points), {GROUPS: GROUPS_POOLED}
    try:
        found = where_near(seen.p, seen.q, game, seen.base)
    except Unavailable as error:
        return None, TWO_STEP, str(error)
    if found is None:
        return None, TWO_STEP, ""
    out = np.full(len(points.u), np.nan)
    out[seen.rows] = seen.scatter(found.reward)
    if not np.isfinite(out).any():
        return None, TWO_STEP, f"the {found.kind} has no solution near pi_t on any prompt"
    return out, kinds.get(found.kind, found.kind), ""

"""What theory predicts of a round, measured on held-out prompts (signatures S1-S4, reconstruction).

All are functions of log-probabilities of the same responses before and after the round, and of the
expert's where it is known; ``u = log p/q`` with the opponent's law ``q`` (pi_t unless said), and
``r = beta log pi_{t+1}/q + tau log pi_{t+1}/pi_0`` in nats. A mean over prompts has its standard
error beside it, under the same name with ``_se``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab import stats
from lab.stats import centred, standard_error
from llm_scale.data.items import Item, Tokens
from llm_scale.measure.predicted import Points, Predicted, RewardTerms, predict, unpredicted
from theory.errors import Unavailable
from theory.objectives.implicit import implicit_reward
from theory.rounds.one_step import local_rate_one_step

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Row = dict[str, Any]

RARE = 0.01
"""A response is typical of a law if its log-probability is above this quantile of the law's own."""
COLUMNS = (
    "prompt", "side", "log_expert", "log_opponent", "log_before", "log_after", "u", "reward",
    "link", "predicted",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Log-probabilities of held-out responses, flat, one line a response.

    Attributes:
        prompt: (n,) which prompt text a response belongs to: constants are per prompt.
        side: (n,) "expert", "own" (of pi_t) or "other" (random tokens, like neither).
        before: ``log pi_t``. after: ``log pi_{t+1}``. expert: ``log p``, or NaN where unknown.
        opponent: ``log q``; None is pi_t. anchor: ``log pi_0``; None is no anchor.
    """

    prompt: NDArray[np.int64]
    side: NDArray[np.str_]
    before: Floats
    after: Floats
    expert: Floats
    opponent: Floats | None = None
    anchor: Floats | None = None

    def on(self, *sides: str) -> Bools:
        """Which responses are of these sides."""
        return np.isin(self.side, sides)

    @property
    def against(self) -> Floats:
        """``log q``."""
        return self.before if self.opponent is None else self.opponent

    @property
    def known(self) -> bool:
        """Whether the expert's log-probabilities are."""
        return bool(np.isfinite(self.expert).all())

    def reward(self, game: RewardTerms) -> Floats:
        """Learned implicit reward (n,) in nats."""
        log_q, anchor = self.against, self.anchor
        found = implicit_reward(game.objective, self.after, log_q, game.beta, anchor, game.tau)
        return np.asarray(found)

    def points(self) -> Points:
        """Expert and own responses, for the predictions."""
        seen = self.on("expert", "own")
        anchor = None if self.anchor is None else self.anchor[seen]
        return Points(
            self.prompt[seen],
            self.on("expert")[seen],
            self.expert[seen],
            self.before[seen],
            self.against[seen],
            anchor,
        )


@dataclass(frozen=True)
class Anchored:
    """What the anchor pi_0 adds to fresh responses.

    ``own``: log pi_0 of the responses of pi_{t+1}, (m,). ``after``: log pi_{t+1} and ``expert``:
    log p (NaN where unknown) of as many responses of pi_0.
    """

    own: Floats
    after: Floats
    expert: Floats


@dataclass(frozen=True)
class Fresh:
    """Responses drawn from pi_{t+1} after the round, on the held-out prompts.

    ``before``: log pi_t, ``after``: log pi_{t+1}, ``expert``: log p (NaN where unknown), (m,) each;
    ``anchor``: None is no anchor.
    """

    items: list[Item]
    before: Floats
    after: Floats
    expert: Floats
    anchor: Anchored | None = None


def link(measured: Measured, game: RewardTerms, predicted: Predicted) -> Row:
    """S1: slope and correlation of the learned reward on the predicted ones, centred per prompt.

    ``link_*`` against ``R(u)`` of the exact two-step round, ``predicted_*`` against the prediction
    for the loss as it is trained; ``prediction`` says which that is (``prediction_reason`` why it
    is no more than the link), ``predicted_share`` on which share of the responses it could be had.
    Beside them its correlation with three curves in u, of which a link may be told: u itself
    (``linear``), ``tanh(u/2)`` (``bounded``) and the sign of u (``sign``).
    """
    seen = measured.on("expert", "own")
    learned, prompt = measured.reward(game)[seen], measured.prompt[seen]
    share = float(np.isfinite(predicted.refined).mean())
    out: Row = {"prediction": predicted.kind, "predicted_share": share}
    out |= {"prediction_reason": predicted.why} if predicted.why else {}
    for name, values in (("link", predicted.link), ("predicted", predicted.refined)):
        good = np.isfinite(values)
        x, y = (centred(v[good], group=prompt[good]) for v in (values, learned))
        out |= regression(name, x, y)
    u, y = measured.points().u, centred(learned, group=prompt)
    for name, values in (("linear", u), ("bounded", np.tanh(u / 2)), ("sign", np.sign(u))):
        out[f"{name}_correlation"] = stats.regression(centred(values, group=prompt), y).correlation
    return out


def contraction(measured: Measured, game: RewardTerms | None, predicted: Predicted | None) -> Row:
    """S2: slope of ``log p/pi_{t+1}`` on ``log p/pi_t``, centred per prompt.

    Beside it the local factor ``1 - R'(0)/beta`` (of pointwise losses that of one step as well),
    and the slope on these same points if the rewards were the predicted ones.
    """
    if not measured.known:
        return {}
    seen = measured.on("expert", "own")
    prompt = measured.prompt[seen]
    before, after = ((measured.expert - v)[seen] for v in (measured.before, measured.after))
    x, y = centred(before, group=prompt), centred(after, group=prompt)
    fit = regression("contraction", x, y)
    out = {"contraction": fit["contraction_slope"], "contraction_se": fit["contraction_slope_se"]}
    if game is None or predicted is None or game.tau > 0 or measured.opponent is not None:
        return out
    objective, slope = game.objective, np.nan
    if objective.has_link:
        slope = float(objective.slope(0.0, predicted.delta.mean()))
    else:
        with contextlib.suppress(Unavailable):
            slope = objective.slope_at_zero
    out["contraction_local"] = 1.0 - slope / game.beta
    if not objective.up_to_constant:
        with contextlib.suppress(Unavailable):
            out["contraction_local_one_step"] = local_rate_one_step(objective, game.beta)
    good = np.isfinite(predicted.refined)
    moved = centred(predicted.refined[good], group=prompt[good]) / game.beta
    x = centred(before[good], group=prompt[good])
    out["contraction_predicted"] = float(x @ (x - moved) / (x @ x))
    return out


def divergences(measured: Measured, fresh: Fresh | None) -> Row:
    """KL to and from the expert, before and after the round, and the NLL of expert responses.

    ``nll_change`` is the mean of the paired differences, of KL(p||pi) as well: log p cancels.
    ``kl`` is KL(p||pi) on expert responses; ``reverse_kl`` is KL(pi||p) on responses of that pi;
    ``kl_step`` is KL(pi_{t+1}||pi_t).
    """
    p, q = measured.on("expert"), measured.on("own")
    out = mean("nll_before", -measured.before[p]) | mean("nll", -measured.after[p])
    out |= mean("nll_change", (measured.before - measured.after)[p])
    if measured.known:
        out |= mean("kl_before", (measured.expert - measured.before)[p])
        out |= mean("kl", (measured.expert - measured.after)[p])
        out |= mean("reverse_kl_before", (measured.before - measured.expert)[q])
    if fresh is not None:
        out |= mean("kl_step", fresh.after - fresh.before)
        if measured.known:
            out |= mean("reverse_kl", fresh.after - fresh.expert)
    return out


def rewards(measured: Measured, game: RewardTerms) -> Row:
    """S3: rewards on expert, own and other responses, their margin, and the link's bounds.

    ``reward_range`` is the largest difference of two rewards of one prompt (expert and own): it
    does not depend on a constant per prompt, and is at most ``reward_range_bound`` if exact;
    ``reward_bound_reason`` says why that is not known.
    """
    reward = measured.reward(game)
    out: Row = {}
    for side in ("expert", "own", "other"):
        values = reward[measured.on(side)]
        if len(values):
            out[f"max_reward_{side}"] = float(np.abs(values).max())
            out |= mean(f"reward_{side}", values)
    out |= mean("margin", reward[measured.on("expert")] - reward[measured.on("own")])
    for name, sides in (("", ("expert", "own")), ("_other", ("expert", "own", "other"))):
        seen = measured.on(*sides)
        out[f"reward_range{name}"] = _range(reward[seen], measured.prompt[seen])
    if game.level == "sequence" and not game.ablated:
        try:
            low, high = game.objective.reward_bounds
        except Unavailable as error:
            return out | {"reward_bound_reason": str(error)}
        bounds = {"reward_low": low, "reward_high": high, "reward_range_bound": high - low}
        out |= {k: v for k, v in bounds.items() if np.isfinite(v)}
    return out


def partition(measured: Measured, game: RewardTerms, predicted: Predicted) -> Row:
    """S4: ``log Z = log E_{pi_t} e^{R(u)/beta}`` from own responses and the true u (T4).

    With an anchor ``log E_{pi_t} e^{(R(u) + tau log pi_0/pi_t)/(beta + tau)}``: its round solves
    ``pi_{t+1} ~ pi_t e^...`` with that exponent. Only pointwise rewards have a level of their own,
    and so a partition gap.
    """
    if game.objective.up_to_constant or measured.opponent is not None:
        return {}
    own = ~measured.on("expert")[measured.on("expert", "own")]
    reward = predicted.link[own]
    if game.tau > 0 and measured.anchor is not None:
        reward = reward + game.tau * (measured.anchor - measured.before)[measured.on("own")]
    weight = reward / (game.beta + game.tau)
    log_z = float(np.logaddexp.reduce(weight) - np.log(len(weight)))
    spread = float(np.exp(weight - log_z).std(ddof=1) / np.sqrt(len(weight)))
    return {"log_partition": log_z, "log_partition_se": spread}


def dumped(measured: Measured, fresh: Fresh) -> Row:
    """S4: mass of pi_{t+1} on responses that neither the expert nor pi_t would give (T4).

    ``left_own``: share of fresh responses whose log pi_t is below the 1 % quantile of log pi_t on
    own responses. ``dumped``: of these, those whose log p is also below the 1 % quantile of log p
    on expert responses. Both laws put at most about 1 % there, so what is above was dumped.
    """
    low = np.quantile(measured.before[measured.on("own")], RARE)
    left = fresh.before < low
    out = mean("left_own", left)
    if measured.known:
        rare = np.quantile(measured.expert[measured.on("expert")], RARE)
        out |= mean("dumped", left & (fresh.expert < rare))
        before = (measured.before < low) & (measured.expert < rare)
        out |= mean("dumped_before", before[measured.on("own")])
    return out


def levels(measured: Measured) -> Row:
    """Absolute log-probabilities of all sides, before and after the round."""
    out: Row = {}
    for side in ("expert", "own", "other"):
        for name in ("before", "after"):
            values = getattr(measured, name)[measured.on(side)]
            if len(values):
                out |= mean(f"log_prob_{side}_{name}", values)
    return out


def lengths(items: Sequence[Item], prefix: str = "") -> Row:
    """Mean length in tokens and share of responses cut at the horizon, of both sides."""
    out: Row = {}
    for side in ("expert", "own"):
        responses = [r for item in items for r in getattr(item, side)]
        if responses:
            out |= mean(f"{prefix}length_{side}", [len(r.tokens) for r in responses])
            out |= mean(f"{prefix}truncated_{side}", [r.truncated for r in responses])
    return out


def predictions(measured: Measured, game: RewardTerms | None) -> Predicted | None:
    """Predicted rewards of the expert and own responses; None where there are none."""
    return predict(measured.points(), game) if game is not None and measured.known else None


def summary(
    measured: Measured,
    game: RewardTerms | None,
    predicted: Predicted | None = None,
    fresh: Fresh | None = None,
) -> Row:
    """All of the above for a round; SFT (no game) has no reward."""
    out = divergences(measured, fresh) | contraction(measured, game, predicted) | levels(measured)
    if game is not None:
        out |= rewards(measured, game)
        if predicted is not None:
            out |= link(measured, game, predicted) | partition(measured, game, predicted)
        elif measured.known:
            out["prediction_reason"] = unpredicted(measured.points(), game)
    if fresh is not None:
        out |= dumped(measured, fresh)
        fresh_lengths = lengths(fresh.items, "after_")
        out |= {k: v for k, v in fresh_lengths.items() if "own" in k}
    return out


def table(measured: Measured, game: RewardTerms | None, predicted: Predicted | None = None) -> str:
    """The round's points as CSV, for the scatter of the link: one line a response, see COLUMNS.

    Unknown values are empty; log-probabilities and rewards in nats to six digits.
    """
    n = len(measured.prompt)
    values = {name: np.full(n, np.nan) for name in ("reward", "link", "predicted")}
    if game is not None:
        values["reward"] = measured.reward(game)
    if predicted is not None:
        seen = measured.on("expert", "own")
        values["link"][seen], values["predicted"][seen] = predicted.link, predicted.refined
    columns = [
        measured.expert, measured.against, measured.before, measured.after,
        measured.expert - measured.against, *values.values(),
    ]  # fmt: skip
    lines = [",".join(COLUMNS)]
    for i in range(n):
        numbers = ("" if np.isnan(c[i]) else f"{c[i]:.6g}" for c in columns)
        lines.append(f"{measured.prompt[i]},{measured.side[i]},{','.join(numbers)}")
    return "\n".join(lines) + "\n"


# -- small statistics ----------------------------------------------------------------------------


def mean(name: str, values: Any) -> dict[str, float]:
    """Mean over prompts and its standard error (0 of a single value), as name and name_se."""
    return {name: float(np.mean(values)), f"{name}_se": standard_error(values)}


def regression(name: str, x: Floats, y: Floats, **how: Any) -> dict[str, float]:
    """`lab.stats.regression` of centred y on centred x: slope, its error, their correlation."""
    found = stats.regression(x, y, **how)
    return {
        f"{name}_slope": found.slope,
        f"{name}_slope_se": found.error,
        f"{name}_correlation": found.correlation,
    }


def _range(values: Floats, group: NDArray[np.int64]) -> float:
    _, index = np.unique(group, return_inverse=True)
    high, low = (np.full(index.max() + 1, v) for v in (-np.inf, np.inf))
    np.maximum.at(high, index, values)
    np.minimum.at(low, index, values)
    return float((high - low).max())


def prompt_numbers(prompts: Sequence[Tokens]) -> NDArray[np.int64]:
    """The same number for the same prompt text."""
    known: dict[Any, int] = {}
    return np.array([known.setdefault(p, len(known)) for p in prompts], dtype=np.int64)

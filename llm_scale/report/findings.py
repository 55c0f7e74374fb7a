"""What happened, in sentences: each from the rows of the runs, with its numbers and errors.

A difference is beyond noise if it is more than two standard errors over held-out prompts, or from
three seeds on outside Student's 95 % interval over seeds.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.stats import LEAST_SEEDS, standard_error, student
from llm_scale.measure.line import WORSE_FROM, worse
from llm_scale.report.groups import Replicates
from llm_scale.report.pairs import held_out_points, same_held_out
from llm_scale.store.read import Run

Row = dict[str, Any]
Numbers = list[tuple[float, float]]
"""A value and its standard error over prompts (NaN if unknown) of every seed."""
NAMES = {"kl": "KL(p‖π)", "nll": "NLL of expert responses"}
"""Measures of quality, the better one first."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its standard error, and how many of these are beyond noise."""

    mean: float
    error: float
    limit: float
    seeds: int

    @classmethod
    def of(cls, numbers: Numbers) -> Estimate | None:
        """Over seeds from three on, else over the prompts of each; None without any."""
        if not numbers:
            return None
        values, errors = np.array(numbers).T
        if len(values) >= LEAST_SEEDS:
            return cls(
                float(values.mean()), standard_error(values), student(len(values)), len(values)
            )
        error = math.sqrt(float(np.square(errors).sum())) / len(values)
        return cls(float(values.mean()), error, WORSE_FROM, len(values))

    @property
    def known(self) -> bool:
        """Whether the error is."""
        return self.error > 0

    def above(self, value: float) -> bool:
        """Beyond noise."""
        return self.known and self.mean - value > self.limit * self.error

    def below(self, value: float) -> bool:
        """Beyond noise."""
        return self.known and value - self.mean > self.limit * self.error

    @property
    def over(self) -> str:
        """What the standard error is taken over, in words."""
        if self.seeds >= LEAST_SEEDS:
            return f"over {self.seeds} seeds"
        return f"over prompts, {self.seeds} seed{'s' * (self.seeds > 1)}"

    def __format__(self, how: str) -> str:
        """The mean with its error, as in ``{e:.2f}`` or ``{e:+.3f}``."""
        if not self.known:
            return f"{self.mean:{how}} (error unknown)"
        return f"{self.mean:{how}} ± {self.error:{how.lstrip('+')}}"


def findings(groups: Sequence[Replicates]) -> dict[str, list[str]]:
    """Questions with their answers, a sentence or more a group; those without answers left out."""
    measured = [group for group in groups if group.rounds]

    def each(*parts: Callable[[Replicates], list[str]]) -> list[str]:
        return [
            f"**{marked(group.label)}** {text}"
            for group in measured
            for part in parts
            for text in part(group)
        ]

    asked = {
        "Did anything diverge?": [_stopped(groups)],
        "Did it improve?": each(_improved, _matches, _wins, _worse_rounds),
        "Is it better than SFT?": _against_sft(measured),
        "Was the link learned?": each(_link),
        "Was mass dumped?": each(_dumped),
    }
    return {question: answers for question, answers in asked.items() if answers}


def marked(text: str) -> str:
    """A text of someone else's as plain text in a line or a cell of Markdown.

    Control characters are shown escaped: a terminal would obey them.
    """
    lines = ("".join(c if _seen(c) else repr(c)[1:-1] for c in x) for x in text.splitlines())
    plain = " ⏎ ".join(lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in r"\`*_{}[]|~#!$":
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def _seen(sign: str) -> bool:
    return unicodedata.category(sign) != "Cc" or sign == "\t"


# -- one group -----------------------------------------------------------------------------------


def _stopped(groups: Sequence[Replicates]) -> str:
    runs = [(group, run) for group in groups for run in group.runs]
    told = [
        f"{marked(group.label)}, seed {run.settings.get('seed')}: {run.state}"
        for group, run in runs
        if run.state != "finished"
    ]
    if not told:
        every = f"All {len(runs)} runs" if len(runs) > 1 else "The run"
        return f"{every} finished; none diverged."
    diverged = sum(run.state.startswith("stopped") for _, run in runs)
    count = "none diverged" if not diverged else f"**{diverged} diverged**"
    done = len(runs) - len(told)
    return f"{done} of {len(runs)} runs finished, {count} ({'; '.join(told)})."


def _improved(group: Replicates) -> list[str]:
    if _of_preferences(group):
        return []  # see `_wins`
    key = measure(group)
    if key is None:
        return ["held nothing out, so nothing is known of its quality."]
    runs = [run for run in group.runs if run.rounds and key in run.rounds[-1]]
    change = Estimate.of([_change(run, key) for run in runs])
    if change is None:
        return []
    first = np.mean([run.rounds[0][f"{key}_before"] for run in runs])
    last = np.mean([run.rounds[-1][key] for run in runs])
    said = (
        "is **worse**" if change.above(0) else "improved" if change.below(0) else "did not change"
    )
    if not change.known:
        said = "changed"
    noise = " beyond noise" if said == "did not change" else ""
    rounds = len(group.rounds)
    return [
        f"{said}{noise}: {NAMES[key]} {first:.3f} → {last:.3f} nats in {rounds} "
        f"round{'s' * (rounds > 1)}, change {change:+.3f} ({change.over})."
    ]


def _of_preferences(group: Replicates) -> bool:
    """Whether own responses are compared with each other, and not with an expert's."""
    return any("win_rate_base" in row for run in group.runs for row in run.rounds)


def measure(*groups: Replicates) -> str | None:
    """The measure of quality that all groups have: KL if the expert is known, else NLL."""
    for key in NAMES:
        if all(any(key in row for run in g.runs for row in run.rounds) for g in groups):
            return key
    return None


def _change(run: Run, key: str) -> tuple[float, float]:
    """NLL (and KL) of the last round less that before the first, paired by prompt."""
    first, last = run.rounds[0], run.rounds[-1]
    before, after = (held_out_points(run, row["round"]) for row in (first, last))
    if before and after and len(before["before"]) == len(after["after"]):
        gone = before["before"] - after["after"]
        return float(gone.mean()), _error(gone)
    change = float(last[key] - first[f"{key}_before"])
    return change, float(first.get("nll_change_se", np.nan)) if first is last else np.nan


def _error(values: np.ndarray) -> float:
    return standard_error(values) if len(values) > 1 else float("nan")


def _matches(group: Replicates) -> list[str]:
    numbers, before, after = [], [], []
    parts: dict[str, None] = {}
    for run in group.runs:
        rows = [row for row in run.rounds if "match_greedy" in row]
        if not rows:
            continue
        first, last = rows[0], rows[-1]
        if (first, last) != (run.rounds[0], run.rounds[-1]):  # eval_every, or a match that failed
            ends = dict.fromkeys(str(row["round"]) for row in (first, last))
            parts[f"round{'s' * (len(ends) > 1)} {' to '.join(ends)}"] = None
        before.append(first["match_greedy_before"])
        after.append(last["match_greedy"])
        error = float(np.hypot(first["match_greedy_before_se"], last["match_greedy_se"]))
        if first is last:
            error = last["match_greedy_change_se"]
        numbers.append((after[-1] - before[-1], error))
    change = Estimate.of(numbers)
    if change is None:
        return []
    said = "**fewer**" if change.below(0) else "more" if change.above(0) else "no more and no fewer"
    over = f"; over {' or '.join(parts)} alone, where it was measured" if parts else ""
    return [
        f"has {said} greedy matches: {np.mean(before):.3f} → {np.mean(after):.3f}, change "
        f"{change:+.3f} ({change.over}{over})."
    ]


def _wins(group: Replicates) -> list[str]:
    wins = Estimate.of(_last(group, "win_rate_base"))
    if wins is None:
        return []
    said = "**loses** to" if wins.below(0.5) else "beats" if wins.above(0.5) else "is level with"
    return [f"{said} the model it began with: wins {wins:.3f} at the end ({wins.over})."]


def _last(group: Replicates, key: str) -> Numbers:
    rows = [run.rounds[-1] for run in group.runs if run.rounds]
    return [(row[key], row.get(f"{key}_se", np.nan)) for row in rows if key in row]


def _worse_rounds(group: Replicates) -> list[str]:
    bad = [
        f"seed {run.settings.get('seed')}, round {row['round']} ({'; '.join(worse(row))})"
        for run in group.runs
        for row in run.rounds
        if worse(row)
    ]
    if not bad:
        return []
    total = sum(len(run.rounds) for run in group.runs)
    more = f"; and {len(bad) - 4} more" if len(bad) > 4 else ""
    return [f"got worse in {len(bad)} of {total} rounds: {'; '.join(bad[:4])}{more}."]


def _of_round(group: Replicates, key: str, round_: int) -> Estimate | None:
    rows = [row for run in group.runs for row in run.rounds if row["round"] == round_]
    return Estimate.of([(r[key], r.get(f"{key}_se", np.nan)) for r in rows if key in r])


def _link(group: Replicates) -> list[str]:
    rounds = [r for r in group.rounds if group.values("link_slope", r)]
    parts = []
    for round_ in dict.fromkeys(rounds[:1] + rounds[-1:]):
        slope = _of_round(group, "link_slope", round_)
        assert slope is not None
        found = group.values("link_correlation", round_)
        more = f", correlation {np.mean(found):.2f}" if found else ""
        parts.append((round_, slope, more))
    if not parts:
        return []
    first, slope, _ = parts[0]
    learned = [(r, s) for r, s, _ in parts if s.above(0)]
    late = ""
    if learned and not slope.above(0):
        late, slope = f", in round {first} not beyond noise", learned[0][1]
    if not slope.known:
        said = "learned a reward (error unknown)"
    elif not slope.above(0):
        said = "has **not learned** the link beyond noise"
    elif slope.below(1):
        said = "learned the link in part"
    else:
        said = "learned rewards steeper than the link" if slope.above(1) else "learned the link"
    each = "; ".join(f"{s:.2f}{more} in round {r}" for r, s, more in parts)
    of = "slope of the rewards on R(u) (1 is the exact round's)"
    return [f"{said}{late}: {of} {each} ({slope.over})."]


def _dumped(group: Replicates) -> list[str]:
    rounds = [r for r in group.rounds if group.values("dumped", r)]
    if not rounds:
        return []
    most = max(rounds, key=lambda r: float(np.mean(group.values("dumped", r))))
    share = _of_round(group, "dumped", most)
    assert share is not None
    usual = max(0.01, float(np.mean(group.values("dumped_before", most) or [0.0])))
    said = "**dumped** mass" if share.above(usual) else "dumped no mass beyond noise"
    if not share.known and share.mean > usual:
        said = "may have dumped mass (error unknown)"
    error = f" ± {100 * share.error:.1f}" if share.known else ""
    return [
        f"{said}: at most {100 * share.mean:.1f}{error} % of fresh responses (round {most}, "
        f"{share.over}) are unlike those of the expert and of the model before; up to "
        f"{100 * usual:.1f} % are so without it."
    ]


# -- against SFT ---------------------------------------------------------------------------------


def _against_sft(groups: Sequence[Replicates]) -> list[str]:
    baselines = [group for group in groups if group.sft]
    if not baselines:
        return ["There is no SFT baseline among these runs: make one with `sft --like RUN`."]
    out = []
    for group in groups:
        if group.sft or measure(group) is None or _of_preferences(group):
            continue
        for sft in baselines:
            gap = Estimate.of(_gaps(group, sft))
            names = f"**{marked(group.label)}** against **{marked(sft.label)}**"
            key = measure(group, sft)
            if gap is None or key is None:
                out.append(f"{names}: no seed in common with the same held-out prompts.")
                continue
            said = "behind" if gap.above(0) else "ahead" if gap.below(0) else "not told apart"
            said = said if gap.known else "difference"
            out.append(
                f"{names}: {said}, {NAMES[key]} {gap:+.3f} nats after the last common round "
                f"(paired by seed; {gap.over})."
            )
    return out


def _gaps(group: Replicates, sft: Replicates) -> Numbers:
    """NLL less that of the SFT run of the same seed, after the last round that both have."""
    out = []
    for run in group.runs:
        for other in sft.runs:
            common = {r["round"] for r in run.rounds if "nll" in r}
            common &= {r["round"] for r in other.rounds if "nll" in r}
            if common and same_held_out(run, other, max(common)):
                out.append(_gap(run, other, max(common)))
    return out


def _gap(run: Run, other: Run, round_: int) -> tuple[float, float]:
    one, two = (held_out_points(r, round_) for r in (run, other))
    if one and two:
        gap = two["after"] - one["after"]
        return float(gap.mean()), _error(gap)
    rows = (next(row for row in r.rounds if row["round"] == round_) for r in (run, other))
    return float(np.subtract(*(row["nll"] for row in rows))), float("nan")

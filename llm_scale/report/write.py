"""One run or several compared: a table of every round, and where seeds allow it intervals.

Runs that differ by their seed alone are one group. Every finished round is reported, never the
best one; runs that stopped by themselves stay in, with what they reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lab.stats import LEAST_SEEDS, interval
from llm_scale.report import plots
from llm_scale.store.read import Replicates, found, grouped
from theory.files import write_whole

QUALITY = {
    "kl": "KL(p‖π)",
    "reverse_kl": "KL(π‖p)",
    "nll": "NLL",
    "kl_to_sft": "KL(π‖SFT)",
    "log_prob_own_after": "log π (own)",
    "after_length_own": "length",
    "after_truncated_own": "cut",
}
THEORY = {
    "link_slope": "slope on R(u)",
    "link_correlation": "correlation",
    "predicted_slope": "slope on prediction",
    "predicted_correlation": "correlation with it",
    "contraction": "contraction",
    "contraction_predicted": "predicted",
    "margin": "margin",
    "reward_range": "reward range",
    "reward_range_bound": "bound",
    "max_reward_other": "max abs(r), other",
    "log_partition": "log Z",
    "dumped": "dumped mass",
    "cosine_start": "cos to SFT, first step",
    "cosine_end": "last step",
}


def write(paths: Sequence[Path], out: Path) -> list[Path]:
    """The report of the runs in folders: ``report.md`` and, with matplotlib, its plots in ``out``.

    Returns:
        The files written.

    Raises:
        InvalidInput: no runs, or runs that cannot be compared.
    """
    groups = grouped(found(paths))
    drawn = plots.draw(groups, out) if find_spec("matplotlib") else []
    write_whole(out / "report.md", markdown(groups, [path.name for path in drawn]))
    return [out / "report.md", *drawn]


# -- the text ------------------------------------------------------------------------------------


def markdown(groups: Sequence[Replicates], pictures: Sequence[str]) -> str:
    """The summary: what was run, quality and theory of every round, and the plots."""
    lines = ["# Runs", "", *_overview(groups), ""]
    lines += [_intervals(groups), _baseline(groups), ""]
    for title, columns in (("Quality", QUALITY), ("Theory", THEORY)):
        rows = _table(groups, columns)
        lines += [f"## {title} after each round", "", *rows, ""] if rows else []
    lines += [f"- {text}" for text in _predictions(groups)] + [""]
    lines += [f"![{name.removesuffix('.png')}]({name})" for name in pictures]
    lines += [] if find_spec("matplotlib") else ["No plots: matplotlib is not installed."]
    return "\n".join(lines).rstrip() + "\n"


def _overview(groups: Sequence[Replicates]) -> list[str]:
    out = ["| group | seeds | rounds | state |", "|---|---|---|---|"]
    for group in groups:
        seeds = ", ".join(str(run.settings.get("seed")) for run in group.runs)
        states: dict[str, int] = {}
        for run in group.runs:
            states[run.state] = states.get(run.state, 0) + 1
        said = "; ".join(f"{n} {state}" for state, n in states.items())
        out.append(f"| {group.label} | {seeds} | {len(group.rounds)} | {said} |")
    return out


def _intervals(groups: Sequence[Replicates]) -> str:
    few = [group.label for group in groups if len(group.runs) < LEAST_SEEDS]
    text = f"Means over seeds ± half the 95 % Student interval, from {LEAST_SEEDS} seeds on."
    return f"{text} Fewer seeds, so no interval: {'; '.join(few)}." if few else text


def _baseline(groups: Sequence[Replicates]) -> str:
    if any(group.label.startswith("sft") for group in groups):
        return "The SFT baseline stands first."
    return "There is no SFT baseline among these runs: make one with `sft --like RUN`."


def _predictions(groups: Sequence[Replicates]) -> list[str]:
    """Which prediction a group's is, and why it or a bound is not another one or is missing."""
    out = []
    for group in groups:
        rows = [row for run in group.runs for row in run.rounds]

        def said(key: str, rows: Sequence[dict[str, Any]] = rows) -> str:
            return " or ".join(dict.fromkeys(row[key] for row in rows if key in row))

        kinds, why, no_bound = map(said, ("prediction", "prediction_reason", "reward_bound_reason"))
        if kinds:
            out.append(f"{group.label}: the prediction is the {kinds}{f', as {why}' * bool(why)}.")
        elif why:
            out.append(f"{group.label}: no reward is predicted, as {why}.")
        if tokens := said("token_prediction_reason"):
            out.append(f"{group.label}: the prediction of tokens is the link, as {tokens}.")
        out += [f"{group.label}: no bound of the rewards is known, as {no_bound}."] * bool(no_bound)
    return out


def _table(groups: Sequence[Replicates], columns: dict[str, str]) -> list[str]:
    there = [k for k in columns if any(g.values(k, r) for g in groups for r in g.rounds)]
    if not there:
        return []
    head = ["group", "round", "seeds", *(columns[k] for k in there)]
    out = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for group in groups:
        for round_ in group.rounds:
            count = sum(any(row["round"] == round_ for row in run.rounds) for run in group.runs)
            cells = [_cell(group.values(key, round_)) for key in there]
            out.append(f"| {group.label} | {round_} | {count} | {' | '.join(cells)} |")
    return out


def _cell(values: list[float]) -> str:
    if not values:
        return "–"
    mean, half = interval(values)
    return f"{mean:.3g}" if np.isnan(half) else f"{mean:.3g} ± {half:.2g}"

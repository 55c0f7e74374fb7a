"""One run or several compared: what happened, a table of every round, samples, and the plots.

Runs that differ by their seed alone are one group. Every finished round is reported, never the
best one; runs that stopped by themselves stay in, with what they reached.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lab.stats import LEAST_SEEDS, interval
from llm_scale.report import plots
from llm_scale.report.findings import findings, marked
from llm_scale.report.groups import Named, Replicates, gathered
from llm_scale.store.read import samples
from theory.errors import refuse
from theory.files import write_whole

QUALITY = {
    "kl": "KL(p‖π), nats",
    "reverse_kl": "KL(π‖p), nats",
    "nll": "NLL, nats",
    "match_greedy": "greedy match",
    "kl_to_sft": "KL(π‖SFT), nats",
    "win_rate_base": "wins against π₀",
    "log_prob_own_after": "log π (own), nats",
    "after_length_own": "length, tokens",
    "after_truncated_own": "cut",
}
THEORY = {
    "link_slope": "slope on R(u)",
    "link_correlation": "correlation",
    "predicted_slope": "slope on prediction",
    "predicted_correlation": "correlation with it",
    "contraction": "contraction",
    "contraction_predicted": "predicted",
    "margin": "margin, nats",
    "reward_range": "reward range, nats",
    "reward_range_bound": "bound",
    "max_reward_other": "max abs(r), other",
    "log_partition": "log Z",
    "gap": "gap at most, nats",
    "gap_kl": "KL(π‖π*) at most",
    "dumped": "dumped mass",
    "cosine_start": "cos to SFT, first step",
    "cosine_end": "last step",
}
REPORT = "report.md"
MARK = ("<!-- of the runs ", " -->")
"""What is around the list of a report's runs."""
SHOWN, LETTERS = 4, 240
"""Samples of a group that are shown, and characters of each text."""


def write(paths: Sequence[Path], out: Path, named: Named = (), replace: bool = False) -> list[Path]:
    """The report of the runs in folders: ``report.md`` and, with matplotlib, its plots in ``out``.

    Args:
        paths: folders of runs. out: folder of the report.
        named: labels for groups, each with a folder of its runs.
        replace: whether a report of other runs that is there makes room.

    Returns:
        The files written.

    Raises:
        InvalidInput: no runs, runs that cannot be compared, or the report of others is there.
    """
    groups = gathered(paths, named)
    runs = _places(groups, out)
    if not replace:
        refuse(_of_others(out / REPORT, runs))
    text = markdown(groups)
    drawn = plots.draw(groups, out) if find_spec("matplotlib") else []
    text += _pictures([path.name for path in drawn])
    write_whole(out / REPORT, f"{text}\n{_record(runs)}\n")
    return [out / REPORT, *drawn]


# -- which runs a report is of -------------------------------------------------------------------


def _places(groups: Sequence[Replicates], out: Path) -> list[str]:
    """Where the runs are, seen from the report: the same when all are moved together."""
    here = out.resolve()
    return sorted(os.path.relpath(r.path.resolve(), here) for g in groups for r in g.runs)


def _record(runs: Sequence[str]) -> str:
    """The last line of a report, which Markdown does not show; nothing in it ends it early."""
    listed = json.dumps(runs).replace(">", "\\u003e")
    return f"{MARK[0]}{listed}{MARK[1]}"


def _of_others(file: Path, runs: Sequence[str]) -> list[str]:
    """Why a report cannot take the place of a file: it is of runs that are not among these."""
    if not file.exists():
        return []
    last = file.read_bytes().decode("utf-8", "replace").rstrip().rpartition("\n")[2]
    try:
        begun = json.loads(last.removeprefix(MARK[0]).removesuffix(MARK[1]))
        gone = [run for run in begun if run not in runs]
    except (ValueError, TypeError):
        return [f"{file}: there already, not saying of which runs; choose another --out"]
    more = f" and {len(gone) - 1} more" * (len(gone) > 1)
    said = f"{file}: the report of other runs ({''.join(gone[:1])}{more}); choose another --out"
    return [said] * bool(gone)


# -- the text ------------------------------------------------------------------------------------


def markdown(groups: Sequence[Replicates]) -> str:
    """What happened, what was run, quality and theory of every round, and samples."""
    lines = ["# Runs", "", "## What happened", ""]
    for question, answers in findings(groups).items():
        lines += [f"**{question}**", "", *(f"- {text}" for text in answers), ""]
    lines += [
        f"± is a standard error; beyond noise is more than 2 of them over prompts, and from "
        f"{LEAST_SEEDS} seeds on outside Student's 95 % interval over seeds.",
        "",
    ]
    lines += ["## Groups", "", *_overview(groups), "", _intervals(groups), ""]
    for title, columns in (("Quality", QUALITY), ("Theory", THEORY)):
        rows = _table(groups, columns)
        lines += [f"## {title} after each round", "", *rows, ""] if rows else []
    if predicted := _predictions(groups):
        lines += [*(f"- {text}" for text in predicted), ""]
    if shown := _samples(groups):
        lines += ["## Samples of the last round", "", *shown, ""]
    return "\n".join(lines).rstrip() + "\n"


def _pictures(names: Sequence[str]) -> str:
    if not find_spec("matplotlib"):
        return "\nNo plots: matplotlib is not installed.\n"
    shown = [Path(name).stem for name in names if name.endswith(".png")]
    return "".join(f"\n[![{name}]({name}.png)]({name}.pdf)\n" for name in shown)


def _overview(groups: Sequence[Replicates]) -> list[str]:
    out = ["| group | what it is | seeds | rounds | state |", "|---|---|---|---|---|"]
    for group in groups:
        seeds = ", ".join(str(run.settings.get("seed")) for run in group.runs)
        states: dict[str, int] = {}
        for run in group.runs:
            states[run.state] = states.get(run.state, 0) + 1
        said = "; ".join(f"{n} {state}" for state, n in states.items())
        names = f"{marked(group.label)} | {marked(group.name)}"
        out.append(f"| {names} | {seeds} | {len(group.rounds)} | {said} |")
    return out


def _intervals(groups: Sequence[Replicates]) -> str:
    few = [marked(group.label) for group in groups if len(group.runs) < LEAST_SEEDS]
    text = (
        f"In the tables and plots: means over seeds ± half the 95 % Student interval, from "
        f"{LEAST_SEEDS} seeds on."
    )
    return f"{text} Fewer seeds, so no interval: {'; '.join(few)}." if few else text


def _predictions(groups: Sequence[Replicates]) -> list[str]:
    """Which prediction a group's is, and why it or a bound is not another one or is missing."""
    out = []
    for group in groups:
        rows = [row for run in group.runs for row in run.rounds]

        def said(key: str, rows: Sequence[dict[str, Any]] = rows) -> str:
            return " or ".join(dict.fromkeys(row[key] for row in rows if key in row))

        label = marked(group.label)
        kinds, why, no_bound = map(said, ("prediction", "prediction_reason", "reward_bound_reason"))
        if kinds:
            out.append(f"{label}: the prediction is the {kinds}{f', as {why}' * bool(why)}.")
        elif why:
            out.append(f"{label}: no reward is predicted, as {why}.")
        if tokens := said("token_prediction_reason"):
            out.append(f"{label}: the prediction of tokens is the link, as {tokens}.")
        out += [f"{label}: no bound of the rewards is known, as {no_bound}."] * bool(no_bound)
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
            out.append(f"| {marked(group.label)} | {round_} | {count} | {' | '.join(cells)} |")
    return out


def _cell(values: list[float]) -> str:
    if not values:
        return "–"
    mean, half = interval(values)
    return f"{mean:.3g}" if np.isnan(half) else f"{mean:.3g} ± {half:.2g}"


def _samples(groups: Sequence[Replicates]) -> list[str]:
    """A few held-out prompts of the first seed of each group, with what the model said."""
    out = []
    for group in groups:
        run = group.runs[0]
        found = samples(run, run.rounds[-1]["round"]) if run.rounds else []
        first: dict[str, dict[str, Any]] = {}
        for row in found:
            first.setdefault(str(row.get("prompt")), row)
        for row in list(first.values())[:SHOWN]:
            texts = [str(row.get(name, "")) for name in ("prompt", "expert", "before", "after")]
            cells = [marked(t if len(t) <= LETTERS else t[:LETTERS] + "…") for t in texts]
            out.append(f"| {marked(group.label)} | {' | '.join(cells)} |")
    head = ["group", "prompt", "expert", "before the round", "after it"]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *out] if out else []

"""One run or several compared: a table of every round, and where seeds allow it intervals.

Runs that differ by their seed alone are one group. Every finished round is reported, never the
best one; runs that stopped by themselves stay in, with what they reached.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lab.files import write_whole
from llm_scale.launch import run_folder as runs
from llm_scale.measure.telemetry import COLUMNS
from llm_scale.store.journal import FAILURE, METRICS, POINTS
from theory.errors import InvalidInput, refuse

FEWEST_SEEDS = 3
"""Seeds from which an interval is given."""
EQUAL_COMPUTE = "equal-compute"
"""Folder of a baseline that `sft --like` makes."""
NO_SETTING = ("seed", "sft_run", "device", "checkpoint_every", "generate_batch")
"""Settings that do not tell groups apart."""

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


@dataclass(frozen=True)
class Run:
    """A run as it was recorded.

    Attributes:
        path: its folder. settings: as resolved.
        rounds, steps: lines of the metrics, a round's and a step's.
        state: "finished", "unfinished" or "stopped: ...".
    """

    path: Path
    settings: dict[str, Any]
    rounds: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    state: str


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone."""

    label: str
    runs: list[Run]

    def values(self, key: str, round_: int) -> list[float]:
        """A number of a round, of every seed that has it."""
        rows = (row for run in self.runs for row in run.rounds if row["round"] == round_)
        return [float(row[key]) for row in rows if key in row]

    @property
    def rounds(self) -> list[int]:
        """Rounds that at least one seed finished."""
        return sorted({row["round"] for run in self.runs for row in run.rounds})


def read(path: Path) -> Run:
    """A run's record, also of one that is still written.

    InvalidInput: not a run, or metrics that are not JSON lines.
    """
    settings = runs.recorded(path)
    rows = _rows(path / METRICS)
    done = (path / "final" / "config.json").is_file()
    state = "finished" if done else "unfinished"
    if not done and (path / FAILURE).is_file():
        state = _stopped(path / FAILURE)
    rounds = [row for row in rows if "round" in row]
    return Run(path, settings, rounds, [row for row in rows if "at" in row], state)


def _stopped(file: Path) -> str:
    try:
        seen = json.loads(file.read_text(encoding="utf-8"))
        where = f"in round {seen['round']}, step {seen['step']}"
        return f"stopped: {seen['what']} {seen['value']} {where}"
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{file}: not what a run wrote that stopped ({error!r})") from error


def _rows(file: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file; a last line without its end is being written and left out."""
    rows = []
    whole, _, _ = (file.read_bytes() if file.exists() else b"").rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise InvalidInput(f"{file}:{number}: not JSON in UTF-8 ({error})") from error
        if not isinstance(row, dict):
            raise InvalidInput(f"{file}:{number}: a {type(row).__name__}; needed is an object")
        rows.append(row)
    return rows


def found(paths: Sequence[Path]) -> list[Run]:
    """The runs in folders: a run's own, or those in its subfolders. InvalidInput: none there."""
    out, problems = [], []
    for path in paths:
        inner = sorted(p.parent for p in path.rglob(runs.RECORD)) if path.is_dir() else []
        if not inner:
            problems.append(f"{path}: neither a run nor a folder with runs ({runs.RECORD})")
        try:
            out += [read(p) for p in inner]
        except InvalidInput as error:
            problems += error.problems
    refuse(problems)
    if not any(run.rounds for run in out):
        raise InvalidInput(f"{', '.join(map(str, paths))}: no run has finished a round yet")
    return out


def grouped(found: Sequence[Run]) -> list[Group]:
    """Groups in order of appearance, SFT first. InvalidInput: the same settings and seed twice."""
    groups = _by_label(found, together=True)
    if any(_seed_twice(members) for members in groups.values()):
        groups = _by_label(found, together=False)
    problems = []
    for label, members in groups.items():
        if _seed_twice(members):
            where = ", ".join(str(run.path) for run in members)
            problems.append(f"{label}: a seed is there twice among {where}; leave one out")
    refuse(problems)
    ordered = sorted(groups.items(), key=lambda pair: not pair[0].startswith("sft"))
    return [Group(label, members) for label, members in ordered]


def _by_label(found: Sequence[Run], together: bool) -> dict[str, list[Run]]:
    """Runs by what they are called.

    Baselines of equal compute have as many steps as their seed's responses ask for: ``together``
    calls these numbers by one name.
    """
    kept = [{k: v for k, v in run.settings.items() if k not in NO_SETTING} for run in found]
    for run, settings in zip(found, kept, strict=True):
        if together and run.path.resolve().name == EQUAL_COMPUTE:
            settings["steps_per_round"] = "equal compute"
    names = {k for settings in kept for k in settings}
    differing = sorted(k for k in names - {"objective"} if len({str(s.get(k)) for s in kept}) > 1)
    groups: dict[str, list[Run]] = {}
    for run, settings in zip(found, kept, strict=True):
        parts = [str(settings.get("objective"))]
        ignored = ("beta", "tau", "own_samples") if parts[0] == "sft" else ()
        parts += [f"{k}={settings.get(k)}" for k in differing if k not in ignored]
        groups.setdefault(", ".join(parts), []).append(run)
    return groups


def _seed_twice(members: Sequence[Run]) -> bool:
    seeds = [run.settings.get("seed") for run in members]
    return len(set(seeds)) < len(seeds)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half its 95 % Student interval (NaN below three seeds)."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < FEWEST_SEEDS:
        return float(array.mean()), float("nan")
    from scipy import stats

    half = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return float(array.mean()), float(half)


def write(paths: Sequence[Path], out: Path) -> list[Path]:
    """The report of the runs in folders: ``report.md`` and, with matplotlib, its plots in ``out``.

    Returns:
        The files written.

    Raises:
        InvalidInput: no runs, or runs that cannot be compared.
    """
    groups = grouped(found(paths))
    from llm_scale.report import plots

    drawn = plots.draw(groups, out) if find_spec("matplotlib") else []
    write_whole(out / "report.md", markdown(groups, [path.name for path in drawn]))
    return [out / "report.md", *drawn]


# -- the text ------------------------------------------------------------------------------------


def markdown(groups: Sequence[Group], plots: Sequence[str]) -> str:
    """The summary: what was run, quality and theory of every round, and the plots."""
    lines = ["# Runs", "", *_overview(groups), ""]
    lines += [_intervals(groups), _baseline(groups), ""]
    for title, columns in (("Quality", QUALITY), ("Theory", THEORY)):
        rows = _table(groups, columns)
        lines += [f"## {title} after each round", "", *rows, ""] if rows else []
    lines += [f"- {text}" for text in _predictions(groups)] + [""]
    lines += [f"![{name.removesuffix('.png')}]({name})" for name in plots]
    lines += [] if find_spec("matplotlib") else ["No plots: matplotlib is not installed."]
    return "\n".join(lines).rstrip() + "\n"


def _overview(groups: Sequence[Group]) -> list[str]:
    out = ["| group | seeds | rounds | state |", "|---|---|---|---|"]
    for group in groups:
        seeds = ", ".join(str(run.settings.get("seed")) for run in group.runs)
        states: dict[str, int] = {}
        for run in group.runs:
            states[run.state] = states.get(run.state, 0) + 1
        said = "; ".join(f"{n} {state}" for state, n in states.items())
        out.append(f"| {group.label} | {seeds} | {len(group.rounds)} | {said} |")
    return out


def _intervals(groups: Sequence[Group]) -> str:
    few = [group.label for group in groups if len(group.runs) < FEWEST_SEEDS]
    text = f"Means over seeds ± half the 95 % Student interval, from {FEWEST_SEEDS} seeds on."
    return f"{text} Fewer seeds, so no interval: {'; '.join(few)}." if few else text


def _baseline(groups: Sequence[Group]) -> str:
    if any(group.label.startswith("sft") for group in groups):
        return "The SFT baseline stands first."
    return "There is no SFT baseline among these runs: make one with `sft --like RUN`."


def _predictions(groups: Sequence[Group]) -> list[str]:
    out = []
    for group in groups:
        rows = [row for run in group.runs for row in run.rounds if "prediction" in row]
        kinds = list(dict.fromkeys(row["prediction"] for row in rows))
        out += [f"{group.label}: the prediction is the {' or '.join(kinds)}."] if kinds else []
    return out


def _table(groups: Sequence[Group], columns: dict[str, str]) -> list[str]:
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


# -- the points ----------------------------------------------------------------------------------


def points(run: Run, round_: int) -> dict[str, np.ndarray]:
    """The stored points of a round by column, NaN where unknown; empty if there are none."""
    path = run.path / POINTS / f"round-{round_:03d}.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    out: dict[str, np.ndarray] = {}
    try:
        for name in COLUMNS if rows else ():
            column = [row[name] for row in rows]
            plain = name == "side"
            out[name] = np.array(column if plain else [float(v) if v else np.nan for v in column])
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"{path}: not the points of a round ({error})") from error
    return out

"""Runs by what they share: groups of seeds, and what they are called in tables and legends."""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.files import digest
from lab.specs import SFT, objective_of
from llm_scale.settings import Settings
from llm_scale.store.read import EQUAL_COMPUTE, Run, found
from theory.errors import InvalidInput, refuse

NO_SETTING = (
    "seed", "sft_run", "device", "checkpoint_every", "generate_batch", "match", "eval_every", "log",
)  # fmt: skip
"""Settings that do not tell groups apart: another draw, the machine, what is measured beside."""
OF_SELF_PLAY = ("beta", "tau", "own_samples")
"""Settings that do not tell SFT runs apart."""
LONGEST = 40
"""Characters of a name that is short enough to be a label; of longer ones letters are."""

Key = tuple[tuple[str, str], ...]
Named = Sequence[tuple[str, Path]]
"""Labels of a user's, each with a folder of a run or of runs."""


@dataclass(frozen=True)
class Replicates:
    """Runs that differ by their seed alone.

    Attributes:
        label: what they are called in tables and legends: short, or a user's word.
        name: the objective and the settings in which the groups differ.
    """

    label: str
    runs: list[Run]
    name: str = ""

    def values(self, key: str, round_: int) -> list[float]:
        """A number of a round, of every seed that has it."""
        rows = (row for run in self.runs for row in run.rounds if row["round"] == round_)
        return [float(row[key]) for row in rows if key in row]

    @property
    def rounds(self) -> list[int]:
        """Rounds that at least one seed finished."""
        return sorted({row["round"] for run in self.runs for row in run.rounds})

    @property
    def sft(self) -> bool:
        """Whether it is the baseline."""
        return self.runs[0].settings.get("objective") == SFT

    @property
    def seeds(self) -> str:
        """How many, in words."""
        return f"{len(self.runs)} seed{'s' * (len(self.runs) > 1)}"


def gathered(paths: Sequence[Path], named: Named = ()) -> list[Replicates]:
    """The groups of all runs in folders, also of those that have a label, SFT first.

    Raises:
        InvalidInput: no runs, the same seed twice in a group, or labels that do not fit the groups.
    """
    everywhere = [*paths, *(path for _, path in named)]
    if not everywhere:
        raise InvalidInput("say folders of runs, or --label NAME=RUN")
    runs = {run.path.resolve(): run for run in found(everywhere)}
    if not any(run.rounds for run in runs.values()):
        raise InvalidInput(f"{', '.join(map(str, everywhere))}: no run has finished a round yet")
    return grouped(list(runs.values()), named)


def grouped(runs: Sequence[Run], named: Named = ()) -> list[Replicates]:
    """Groups in order of appearance, SFT first. InvalidInput: see `gathered`."""
    groups = _by_key(runs, together=True)
    if any(_seed_twice(members) for members in groups.values()):
        groups = _by_key(runs, together=False)
    names = dict(zip(groups, _names(groups), strict=True))
    problems = []
    for key, members in groups.items():
        if _seed_twice(members):
            where = ", ".join(str(run.path) for run in members)
            problems.append(f"{names[key]}: a seed is there twice among {where}; leave one out")
    refuse(problems)
    ordered = sorted(groups, key=lambda key: dict(key)["objective"] != SFT)
    labels = _labels([names[key] for key in ordered], [groups[key] for key in ordered], named)
    return [
        Replicates(label, groups[key], names[key])
        for label, key in zip(labels, ordered, strict=True)
    ]


def _by_key(runs: Sequence[Run], together: bool) -> dict[Key, list[Run]]:
    """Runs by the settings that tell groups apart, and by their files where these changed.

    Baselines of equal compute have as many steps as their seed's responses ask for: ``together``
    calls these numbers by one name. A setting that an older run does not know has its default.
    """
    groups: dict[Key, list[Run]] = {}
    defaults = dataclasses.asdict(Settings())
    for run in runs:
        settings = defaults | run.settings
        if together and run.path.resolve().name == EQUAL_COMPUTE:
            settings["steps_per_round"] = "equal compute"
        left_out = NO_SETTING + (OF_SELF_PLAY if settings["objective"] == SFT else ())
        kept = tuple((k, str(v)) for k, v in sorted(settings.items()) if k not in left_out)
        groups.setdefault(kept, []).append(run)
    return {key: some for kept in groups.items() for key, some in _by_files(*kept).items()}


def _by_files(key: Key, members: Sequence[Run]) -> dict[Key, list[Run]]:
    """Runs of the same settings by the content of their files, where they recorded others."""
    apart: list[list[Run]] = []
    for run in members:
        told = _files(run)
        for some in apart:
            if all(_files(r).get(n, found) == found for r in some for n, found in told.items()):
                some.append(run)
                break
        else:
            apart.append([run])
    if len(apart) == 1:
        return {key: apart[0]}
    digests = [digest(json.dumps(_files(some[0]), sort_keys=True))[:8] for some in apart]
    return {(*key, ("files", found)): some for found, some in zip(digests, apart, strict=True)}


def _files(run: Run) -> dict[str, str]:
    """Digests of what a run was made of, and not of what is measured beside."""
    match, sft = (str(run.settings.get(name) or "") for name in ("match", "sft_run"))
    path = match.rpartition(":")[0]
    return {
        name: found
        for name, found in run.files.items()
        if name != path and not (sft and Path(name).is_relative_to(sft))
    }


def _seed_twice(members: Sequence[Run]) -> bool:
    seeds = [run.settings.get("seed") for run in members]
    return len(set(seeds)) < len(seeds)


# -- names ---------------------------------------------------------------------------------------


def _names(groups: Mapping[Key, Sequence[Run]]) -> list[str]:
    """The objective and the settings in which groups differ, paths by their ends where these do."""
    tables = [dict(key) for key in groups]
    values: dict[str, set[str]] = {}
    for name, value in (pair for key in groups for pair in key):
        values.setdefault(name, set()).add(value)
    objectives = {dict(key)["objective"]: _objective(runs[0]) for key, runs in groups.items()}
    if len(set(objectives.values())) < len(objectives):
        objectives = {spec: spec for spec in objectives}
    out = []
    for table in tables:
        parts = [objectives[table["objective"]]]
        for name, value in table.items():
            if name != "objective" and len(values[name]) > 1:
                parts.append(f"{name}={_short(value, values[name])}")
        out.append(", ".join(parts))
    return out


def _objective(run: Run) -> str:
    """Its own label: as the run recorded it, or as the definition gives it, or the name alone."""
    spec = str(run.settings.get("objective"))
    if run.objective:
        return run.objective
    path, _, name = spec.rpartition(":")
    if path:  # the file may be gone, or another one
        return name
    try:
        objective = objective_of(spec)
    except InvalidInput:
        return spec
    return spec if objective is None else objective.label


def _short(value: str, among: set[str]) -> str:
    """The end of a path, if no other has the same."""
    ends = [other.rpartition("/")[2] for other in among]
    end = value.rpartition("/")[2]
    return end if end and ends.count(end) == 1 else value


def _labels(names: Sequence[str], groups: Sequence[Sequence[Run]], named: Named) -> list[str]:
    """A user's labels; of the others the names if all are short, else A, B, ..."""
    chosen: dict[int, str] = {}
    problems = []
    for label, folder in named:
        inside = folder.resolve()
        where = [
            i
            for i, members in enumerate(groups)
            if any(run.path.resolve().is_relative_to(inside) for run in members)
        ]
        if len(where) != 1:
            problems.append(
                f"--label {label}={folder}: it has runs of {len(where)} kinds "
                f"({'; '.join(names[i] for i in where)}); needed is one"
            )
        elif chosen.get(where[0], label) != label:
            problems.append(
                f"--label {label}={folder}: its runs are replicates of {chosen[where[0]]!r}"
            )
        elif label in (chosen[i] for i in chosen if i != where[0]):
            problems.append(f"--label {label}={folder}: another group has this label")
        else:
            chosen[where[0]] = label
    refuse(problems)
    rest = [name for i, name in enumerate(names) if i not in chosen]
    short = all(len(name) <= LONGEST for name in rest) and not set(rest) & set(chosen.values())
    letters = (letter for letter in _letters() if letter not in chosen.values())
    return [
        chosen[i] if i in chosen else (name if short else next(letters))
        for i, name in enumerate(names)
    ]


def _letters() -> list[str]:
    one = list(string.ascii_uppercase)
    return one + [a + b for a in one for b in one]

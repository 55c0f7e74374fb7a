"""Whether an objective is what it says: its formulas against each other, before anybody relies on
them.

    from theory import check_objective
    print(check_objective("my_objective.py:mine"))        # a second
    check_objective("my_objective.py:mine").require()     # raises with what is wrong

The quick checks need a second: formulas in numpy and torch, payoffs with a best response, the link
against the payoffs or the risk, who is rewarded, the potential (:mod:`theory.checks.formulas`). The
thorough ones add the theorems on random games (:mod:`theory.checks.theorems`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from theory import laws, objectives
from theory.checks.formulas import DECISIVE, QUICK
from theory.checks.game import Comparisons, Instance
from theory.checks.theorems import CHECKS
from theory.errors import InvalidInput, NotConverged
from theory.objectives import Objective


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check: its name and the sentence of what is wrong, or that it holds or does not apply."""

    check: str
    problem: str = ""
    skipped: str = ""


@dataclasses.dataclass(frozen=True)
class Checked:
    """What :func:`check_objective` found: ``findings`` in order, ``ok``, ``problems``."""

    objective: str
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that is wrong."""
        return list(dict.fromkeys(f.problem for f in self.findings if f.problem))

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def require(self) -> None:
        """Raise :class:`InvalidInput` with all problems, if there are any."""
        if self.problems:
            raise InvalidInput([f"{self.objective}: {p}" for p in self.problems])

    def __str__(self) -> str:
        """One line if all is well, else one a problem."""
        held = sum(not f.problem and not f.skipped for f in self.findings)
        if self.ok:
            return f"checked: {self.objective}: {held} checks hold"
        return "\n".join(f"problem: {self.objective}: {p}" for p in self.problems)


def check_objective(
    objective: Objective | str, thorough: bool = False, progress: bool = True
) -> Checked:
    """Check an objective's formulas against each other and, if thorough, against the theorems.

    Args:
        objective: an objective, or its specification as in ``objectives.get``.
        thorough: run the theorems' checks on random games as well (up to minutes).
        progress: show a bar for the thorough ones, in a terminal.

    Returns:
        :class:`Checked`; nothing is raised for what is found.

    Raises:
        InvalidInput: no objective.

    >>> print(check_objective("spin"))
    checked: spin: 8 checks hold
    """
    obj = objectives.of(objective)
    findings: list[Finding] = []
    for name, (check, absent) in QUICK.items():
        reason = absent(obj)
        if reason:
            findings.append(Finding(name, skipped=reason))
            continue
        findings.append(Finding(name, problem=_first(check, obj)))
        if findings[-1].problem and name in DECISIVE:
            return Checked(obj.label, tuple(findings))
    if thorough and not any(f.problem for f in findings):
        disable = None if progress else True
        for theorem, absent in tqdm(CHECKS.items(), "theorems", disable=disable, leave=False):
            name = "theorem: " + theorem.__name__.removeprefix("check_").replace("_", " ")
            if reason := absent(obj):
                findings.append(Finding(name, skipped=reason))
            else:
                findings.append(Finding(name, problem=_theorem(theorem, obj)))
    return Checked(obj.label, tuple(findings))


def _first(check: Callable[[Objective], Iterator[str]], obj: Objective) -> str:
    """The first problem of a check, or what it stumbled on."""
    try:
        with np.errstate(all="ignore"):
            return next(check(obj), "")
    except NotConverged as error:
        return f"no best response was reached: {error}"
    except InvalidInput as error:
        return str(error).removeprefix(f"{obj.name}: ")
    except Exception as error:
        said = str(error).partition("\n")[0]
        return f"{check.__name__.strip('_')}: {type(error).__name__}: {said}"


def _theorem(check: Callable[..., None], obj: Objective, games: int = 3) -> str:
    """The sentence of the first comparison that fails on a few random games."""
    rng = np.random.default_rng(0)
    for number in range(games):
        shape = (1 + number % 2, int(rng.integers(2, 9)))
        spreads = rng.uniform(0.2, 2.0, 3)
        expert, start, ref = (laws.random_law(rng, shape, float(s)) for s in spreads)
        try:
            check(obj, Instance(expert, start, ref, rng), Comparisons())
        except (AssertionError, InvalidInput, NotConverged) as error:
            return str(error).partition("\n")[0]
    return ""

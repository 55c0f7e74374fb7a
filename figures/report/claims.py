"""The claims and their clauses, as claims.toml and premises.toml say them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lab.evidence import REGIMES

HERE = Path(__file__).parent
OF_THE_PAPER = "paper (abstract)"
SOURCES = (
    OF_THE_PAPER,
    "code of the first author",
    "published formula",
    "reconstruction",
)
PROVABLE = ("identity", "bound", "rate", "threshold")
KINDS = (*PROVABLE, "existence", "empirical")
BEFORE = "before the runs"
FIXED = (BEFORE, "after the runs")


@dataclass(frozen=True)
class Comparison:
    """What an empirical clause compares, said before anyone looks.

    Attributes:
        quantity: expression in the columns of the recorded rows; minus: another, taken off.
        arms: what the sentence is about, all of which must be recorded; against: its rivals.
        rows: which rows, by column; a cell is one length, rate, step and round of these.
        by: the columns that tell cells apart, where they are others.
        direction: "less" or "more", than 0, than the rival, or than ``bound``; by ``margin``.
        predicted, null_predicted: expressions to compare with instead, within ``tolerance``.
        seeds: fewest that decide.
        null: the null predictor, in words; fixed: whether all this was said before the runs.
    """

    regime: str
    quantity: str
    unit: str
    arms: tuple[str, ...]
    rows: dict[str, tuple[Any, ...]]
    seeds: int
    null: str
    fixed: str
    minus: str = ""
    against: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    direction: str = ""
    bound: float | None = None
    margin: float = 0.0
    predicted: str = ""
    null_predicted: str = ""
    tolerance: float = 0.0


@dataclass(frozen=True)
class Clause:
    """One sentence that can fail alone."""

    id: str
    says: str
    kind: str
    premises: tuple[str, ...] = ()
    proof: str = ""
    """Where its proof is: an anchor of theory/README.md; empty if it has none."""
    comparison: Comparison | None = None

    @property
    def claim(self) -> str:
        """Id of the claim that it belongs to."""
        return self.id.partition(".")[0]


@dataclass(frozen=True)
class Claim:
    """A claim: title, source, and the clauses that it is made of."""

    id: str
    title: str
    source: str
    clauses: tuple[Clause, ...]
    statement: str = ""
    gaps: str = ""


def read_premises(path: Path = HERE / "premises.toml") -> dict[str, str]:
    """Sentence of every premise by id."""
    return {key: str(says) for key, says in tomllib.loads(path.read_text("utf-8")).items()}


def read_claims(
    path: Path = HERE / "claims.toml", premises: dict[str, str] | None = None
) -> list[Claim]:
    """The claims in their order. ValueError with everything that is wrong in the file."""
    known = read_premises() if premises is None else premises
    wrong: list[str] = []
    claims = []
    for id_, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        about = {key: value for key, value in table.items() if not isinstance(value, dict)}
        proof = about.pop("proof", "")
        rows = {f"{id_}.{key}": value for key, value in table.items() if isinstance(value, dict)}
        clauses = tuple(_clause(key, dict(row), proof, known, wrong) for key, row in rows.items())
        if about.get("source") not in SOURCES:
            wrong.append(f"{id_}: source={about.get('source')!r} is none of {', '.join(SOURCES)}")
        strange = about.keys() - {"title", "source", "statement", "gaps"}
        wrong += [f"{id_}: unknown key {key}" for key in sorted(strange)]
        claims.append(Claim(id_, about.get("title", ""), about.get("source", ""), clauses,
                            about.get("statement", ""), about.get("gaps", "")))  # fmt: skip
    if wrong:
        raise ValueError("\n".join([f"{path.name}:", *wrong]))
    return claims


def _clause(
    id_: str, row: dict[str, Any], proof: str, premises: dict[str, str], wrong: list[str]
) -> Clause:
    says, kind = row.pop("says", ""), row.pop("kind", "")
    needs = tuple(row.pop("premises", ()))
    proved = row.pop("proof", True) and kind in PROVABLE
    if not says or kind not in KINDS:
        wrong.append(f"{id_}: says and kind are needed, kind one of {', '.join(KINDS)}")
    wrong += [f"{id_}: unknown premise {p}" for p in needs if p not in premises]
    comparison = _comparison(id_, row, wrong) if kind == "empirical" else None
    if kind != "empirical":
        wrong += [f"{id_}: unknown key {key}" for key in row]
    return Clause(id_, says, kind, needs, proof if proved else "", comparison)


def _comparison(id_: str, row: dict[str, Any], wrong: list[str]) -> Comparison | None:
    known = {f.name: f for f in fields(Comparison)}
    absent = {"regime", "quantity", "unit", "arms", "rows", "seeds", "null", "fixed"} - row.keys()
    problems = [f"unknown key {key}" for key in sorted(row.keys() - known.keys())]
    problems += [f"{key} is missing" for key in sorted(absent)]
    if not problems:
        predicts, directs = bool(row.get("predicted")), row.get("direction") in ("less", "more")
        if predicts == directs:
            problems.append("needed is direction = 'less' or 'more', or else a prediction")
        if predicts and not (row.get("null_predicted") and row.get("tolerance", 0) > 0):
            problems.append("a prediction needs null_predicted and a tolerance")
        if row["regime"] not in REGIMES:
            problems.append(f"regime is none of {', '.join(REGIMES)}")
        if row["fixed"] not in FIXED:
            problems.append(f"fixed is none of {', '.join(FIXED)}")
        if not row["arms"]:
            problems.append("no arms")
    if problems:
        wrong += [f"{id_}: {problem}" for problem in problems]
        return None
    lists: dict[str, Any] = {
        key: tuple(row[key]) for key in ("arms", "against", "by") if key in row
    }
    lists["rows"] = {key: tuple(values) for key, values in row["rows"].items()}
    return Comparison(**(row | lists))

"""The records of tests: results/*.json with a list "records" (see lab/evidence.py)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.catalogue import RESULTS
from lab.evidence import CHOSEN


@dataclass(frozen=True)
class Record:
    """What one test measured for some clauses."""

    test: str
    clauses: tuple[str, ...]
    regime: str
    drops: str = ""
    refutes: bool = False
    of: str = "runs"
    outcome: str = "passed"
    instances: int = 1
    checks: tuple[dict[str, Any], ...] = ()
    source: str = ""

    @property
    def function(self) -> str:
        """The test without the values that it was parametrised with."""
        return self.test.split("[")[0]

    @property
    def counts(self) -> bool:
        """Whether it measured something, and its own numbers say that every check held."""
        measured = self.outcome == "passed" and self.instances > 0 and bool(self.checks)
        return measured and all(map(holds, self.checks))

    @property
    def derived(self) -> bool:
        """Whether some tolerance was derived rather than chosen."""
        return any(check["because"] != CHOSEN for check in self.checks)


def holds(check: dict[str, Any]) -> bool:
    """Whether the worst instance of a check is on the right side, from its numbers alone."""
    worst = {key: float(value) for key, value in check["worst"].items()}
    if any(math.isnan(value) for value in worst.values()):
        return False
    if check["check"] == "close":
        return worst["error"] <= worst["tolerance"]
    if check["check"] == "below":
        return worst["slack"] >= -worst.get("allowed", 0.0)
    if check["check"] == "exhibits":
        return worst["value"] >= worst["at_least"]
    return check["check"] == "exact"


def read_records(folder: Path = RESULTS) -> tuple[list[Record], dict[str, dict[str, Any]]]:
    """All records, and the provenance of every file of records or rows."""
    records: list[Record] = []
    provenance: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(content, dict) and "records" in content):
            continue
        provenance[path.name] = content["provenance"]
        for row in content["records"]:
            lists = {"clauses": tuple(row["clauses"]), "checks": tuple(row.get("checks", ()))}
            records.append(Record(**{**row, **lists, "source": path.name}))
    return records, provenance


def independent(records: Iterable[Record]) -> dict[str, int]:
    """Instances by what they are, not counted again for every objective: most of each function."""
    most: dict[tuple[str, str], int] = {}
    for record in records:
        key = (record.of, record.function)
        most[key] = max(most.get(key, 0), record.instances)
    found: dict[str, int] = {}
    for (of, _), count in most.items():
        found[of] = found.get(of, 0) + count
    return found

"""The records: files results/*.json with a list "records" (see lab/evidence.py).

evidence.json is of `make evidence`; the others are of recorded runs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.catalogue import RESULTS


@dataclass(frozen=True)
class Record:
    """What one test or run measured for some claims."""

    test: str
    claims: tuple[str, ...]
    rung: str
    kind: str = "supports"  # | "necessity" | "refutes"
    condition: str = ""
    outcome: str = "passed"
    instances: int = 1
    checks: tuple[dict[str, Any], ...] = ()
    source: str = ""

    @property
    def counts(self) -> bool:
        """Whether it measured anything."""
        return self.outcome == "passed" and self.instances > 0


def read_records(folder: Path = RESULTS) -> tuple[list[Record], dict[str, dict[str, Any]]]:
    """All records, and the provenance of every file that holds some."""
    records: list[Record] = []
    provenance: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(content, dict) and "records" in content):
            continue
        provenance[path.name] = content["provenance"]
        for row in content["records"]:
            lists = {"claims": tuple(row["claims"]), "checks": tuple(row.get("checks", ()))}
            records.append(Record(**{**row, **lists, "source": path.name}))
    return records, provenance

"""One machine-readable file: results/clauses.json, and the schema that it follows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from figures.report.claims import KINDS, SOURCES, Claim
from figures.report.empirical import Cell
from figures.report.status import MEANING, Status
from lab.evidence import REGIMES, rounded

VERSION = 1


def as_data(claims: Sequence[Claim], statuses: Mapping[str, Status]) -> dict[str, Any]:
    """Claims, clauses, statuses, cells and the tests that count."""
    return {
        "version": VERSION,
        "claims": [
            {
                "id": claim.id,
                "title": claim.title,
                "source": claim.source,
                "clauses": [_clause(statuses[clause.id]) for clause in claim.clauses],
            }
            for claim in claims
        ],
    }


def _clause(status: Status) -> dict[str, Any]:
    clause = status.clause
    return {
        "id": clause.id,
        "says": clause.says,
        "kind": clause.kind,
        "premises": list(clause.premises),
        "proof": clause.proof,
        "status": status.word,
        "why": status.why,
        "sharp_in": list(status.sharp),
        "regimes": list(status.regimes),
        "comparison": None if clause.comparison is None else asdict(clause.comparison),
        "cells": [_cell(cell) for cell in status.cells],
        "records": [
            {
                "test": r.test,
                "regime": r.regime,
                "drops": r.drops,
                "instances": r.instances,
                "of": r.of,
                "file": r.source,
            }
            for r in status.records
        ],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    at = {key: int(value) if value.is_integer() else value for key, value in cell.at.items()}
    return asdict(cell) | {"half": str(cell.half), "at": at}


def as_text(data: dict[str, Any]) -> str:
    """JSON, a clause a line; what is measured to three digits, what tells a cell exactly."""
    claims = []
    for claim in data["claims"]:
        clauses = ",\n   ".join(_one_line(clause) for clause in claim["clauses"])
        head = _one_line({key: value for key, value in claim.items() if key != "clauses"})
        claims.append(f'{head[:-1]}, "clauses": [\n   {clauses}]}}')
    lines = ",\n ".join(claims)
    return f'{{"version": {data["version"]}, "claims": [\n {lines}]}}\n'


def _one_line(value: Any) -> str:
    return json.dumps(_short(value), ensure_ascii=False, allow_nan=False)


def _short(value: Any) -> Any:
    """Rounded, but for the settings of a cell, by which its rows are found in the records."""
    if isinstance(value, dict):
        return {k: v if k in ("at", "comparison") else _short(v) for k, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, list) else rounded(value)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of `as_data`."""
    text = {"type": "string"}
    texts = {"type": "array", "items": text}
    cell = {
        "arm": text, "against": text, "at": {"type": "object"}, "mean": {"type": "number"},
        "half": text, "seeds": {"type": "integer"}, "word": text,
    }  # fmt: skip
    record = {
        "test": text, "regime": {"enum": list(REGIMES)}, "drops": text,
        "instances": {"type": "integer"}, "of": text, "file": text,
    }  # fmt: skip
    clause = {
        "id": {"type": "string", "pattern": "^[CTS][0-9]+\\.[a-z0-9_]+$"},
        "says": text,
        "kind": {"enum": list(KINDS)},
        "premises": texts,
        "proof": text,
        "status": {"enum": list(MEANING)},
        "why": text,
        "sharp_in": texts,
        "regimes": {"type": "array", "items": {"enum": list(REGIMES)}},
        "comparison": {"type": ["object", "null"]},
        "cells": {"type": "array", "items": _object(cell)},
        "records": {"type": "array", "items": _object(record)},
    }
    claim = {
        "id": text,
        "title": text,
        "source": {"enum": list(SOURCES)},
        "clauses": {"type": "array", "items": _object(clause)},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Clauses, statuses and records",
        **_object({"version": {"const": VERSION},
                   "claims": {"type": "array", "items": _object(claim)}}),
    }  # fmt: skip


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }

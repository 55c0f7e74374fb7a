"""The claims, as claims.toml says them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

RUNGS = ("symbolic", "exact", "dynamics", "language model")


@dataclass(frozen=True)
class Claim:
    """A row of claims.toml."""

    id: str
    title: str
    statement: str
    source: str
    rungs: tuple[str, ...]
    gaps: str = ""


CLAIMS = Path(__file__).with_name("claims.toml")


def read_claims(path: Path = CLAIMS) -> list[Claim]:
    """The claims in their order. TypeError on a missing or unknown key."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return [Claim(id=i, **{**row, "rungs": tuple(row["rungs"])}) for i, row in table.items()]

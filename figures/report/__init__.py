"""The report, paper_repro.md: claims and records give verdicts, of which it is rendered."""

from __future__ import annotations

import json

from figures.catalogue import RESULTS, ROOT, catalogue
from figures.report.claims import read_claims
from figures.report.records import read_records
from figures.report.render import render
from theory.files import write_whole

REPORT = ROOT / "paper_repro.md"


def current() -> str:
    """The report that the records, claims and figures give."""
    records, provenance = read_records()
    path = RESULTS / "mutation.json"
    mutation = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return render(read_claims(), records, provenance, catalogue(), mutation)


def write() -> None:
    """Render paper_repro.md, whole or not at all."""
    write_whole(REPORT, current())

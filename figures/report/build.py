"""Puts the report together: reads what is recorded, and gives every file that is made of it."""

from __future__ import annotations

import json
from pathlib import Path

from figures import tidy
from figures.catalogue import OUT, RESULTS, ROOT, catalogue
from figures.recorded import campaign, llm_tiny
from figures.report import machine
from figures.report.answers import filled, problems, read_answers
from figures.report.claims import read_claims, read_premises
from figures.report.pages import page
from figures.report.records import read_records
from figures.report.render import Evidence, in_short, render
from figures.report.rows import recorded_rows
from figures.report.status import statuses
from figures.toy_games import audit
from lab.evidence import CODE
from lab.files import source_digest
from theory.files import write_whole

REPORT = ROOT / "paper_repro.md"
PAGES = RESULTS / "evidence"
README = ROOT / "README.md"
BEGIN, END = "<!-- answers: by `python -m figures.report` -->", "<!-- end of answers -->"


def gather() -> Evidence:
    """All evidence as it is recorded. ValueError: records or figures of unknown clauses."""
    claims, premises = read_claims(), read_premises()
    records, provenance = read_records()
    known = {clause.id for claim in claims for clause in claim.clauses}
    stray = {f"clause {c} of {r.function}" for r in records for c in r.clauses if c not in known}
    stray |= {f"premise {r.drops} of {r.function}" for r in records
              if r.drops and r.drops not in premises}  # fmt: skip
    entries = catalogue()
    ids = {claim.id for claim in claims}
    stray |= {f"claim {c} of figure {e.name}" for e in entries for c in e.claims if c not in ids}
    if stray:
        raise ValueError(f"unknown: {'; '.join(sorted(stray))}")
    path = RESULTS / "mutation.json"
    return Evidence(
        claims,
        premises,
        statuses(claims, records, recorded_rows(llm_tiny(), campaign())),
        read_answers(),
        provenance,
        {entry.name: entry.caption for entry in entries},
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else None,
    )


def wrong_answers(evidence: Evidence) -> list[str]:
    """Where the answers differ from the evidence."""
    return problems(evidence.answers, evidence.claims, evidence.statuses, list(evidence.captions))


def files(evidence: Evidence) -> dict[Path, str]:
    """Text of every file of the report. ValueError: the answers differ from the evidence."""
    if wrong := wrong_answers(evidence):
        raise ValueError("\n".join(["answers.toml is not what the evidence says:", *wrong]))
    shown = {e.name: e.claims for e in catalogue()}
    data = machine.as_data(evidence.claims, evidence.statuses)
    found = {
        REPORT: render(evidence),
        README: _with_answers(README.read_text(encoding="utf-8"), evidence),
        RESULTS / "clauses.json": machine.as_text(data),
        RESULTS / "clauses.schema.json": json.dumps(machine.schema(), indent=1) + "\n",
    }
    for claim in evidence.claims:
        figures = [(n, evidence.captions[n]) for n, claims in shown.items() if claim.id in claims]
        answer = evidence.answers.get(claim.id)
        said = filled(answer.answer, evidence.statuses) if answer else ""
        text = page(claim, evidence.statuses, evidence.premises, figures, said)
        found[PAGES / f"{claim.id}.md"] = text
    found[PAGES / "estimators.md"] = audit.in_words(tidy.read(OUT / "audit.csv"))
    return found


def _with_answers(text: str, evidence: Evidence) -> str:
    """README with the answers' first page in short, between its two marks."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{in_short(evidence)}\n\n{END}{after}"


def write(evidence: Evidence) -> None:
    """Write every file of the report, each whole or not at all."""
    made = files(evidence)
    PAGES.mkdir(parents=True, exist_ok=True)
    for path, text in made.items():
        write_whole(path, text)
    for old in set(PAGES.glob("*.md")) - made.keys():
        old.unlink()


def differing(evidence: Evidence) -> list[str]:
    """Files that are not what the records give."""
    return [
        path.relative_to(ROOT).as_posix()
        for path, text in files(evidence).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def stale(evidence: Evidence, root: Path = ROOT) -> list[str]:
    """Records that were made by other code than the tree's, or do not say by which."""
    now = {package: source_digest(root / package) for package in CODE}
    found = []
    for name, about in sorted(evidence.provenance.items()):
        then = about.get("code", {})
        other = [package for package in now if then.get(package, now[package]) != now[package]]
        if not then:
            found.append(f"results/{name} does not say which code made it")
        elif other:
            found.append(f"results/{name} was made by other code of {', '.join(other)}")
    return found

"""The report: `python -m figures.report [--check]` renders paper_repro.md from the records.

Records are the files results/*.json with a list "records" (see lab/evidence.py): evidence.json
from `make evidence`, and recorded runs. Nobody types a verdict: `verdict` computes it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.catalogue import Entry, catalogue

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "paper_repro.md"
RUNGS = ("symbolic", "exact", "dynamics", "language model")

HOLDS, HOLDS_IF, REFUTED, UNTESTED = "holds", "holds if", "refuted", "not tested here"


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


@dataclass(frozen=True)
class Verdict:
    """What the evidence says of one claim."""

    word: str
    conditions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.word, "; ".join(self.conditions)]).strip()


@dataclass(frozen=True)
class Claim:
    """A row of claims.toml."""

    id: str
    title: str
    statement: str
    source: str
    rungs: tuple[str, ...]
    gaps: str = ""


# --- from evidence to verdict -------------------------------------------------------------------


def verdict(evidence: Iterable[Record]) -> Verdict:
    """The rule, for the records of one claim; records that measured nothing do not count.

    A counter-example without a condition under which the claim holds refutes it. So does one with
    a condition when nothing shows that the claim holds under it. Otherwise support makes it hold:
    under the conditions that the counter-examples and the necessity tests name, if there are any.
    Without support, necessity tests alone decide nothing.
    """
    counted = [record for record in evidence if record.counts]
    supported = any(record.kind == "supports" for record in counted)
    refuting = [record for record in counted if record.kind == "refutes"]
    if any(not record.condition for record in refuting) or (refuting and not supported):
        return Verdict(REFUTED)
    if not supported:
        return Verdict(UNTESTED)
    conditions = tuple(sorted({r.condition for r in counted if r.kind != "supports"}))
    return Verdict(HOLDS_IF, conditions) if conditions else Verdict(HOLDS)


def gaps(claim: Claim, evidence: Iterable[Record]) -> list[str]:
    """What is missing before the claim is carried as far up as it goes."""
    seen = {record.rung for record in evidence if record.counts}
    missing = [rung for rung in claim.rungs if rung not in seen]
    found = [claim.gaps] if claim.gaps else []
    if missing:
        found.append(f"No evidence yet on the rung{'s' * (len(missing) > 1)} {', '.join(missing)}.")
    return found


def reach(claim: Claim, evidence: Iterable[Record]) -> str:
    """How far up the verdict reaches: the highest rung with evidence, and the highest there is."""
    seen = [rung for rung in RUNGS if any(r.counts and r.rung == rung for r in evidence)]
    top = [rung for rung in RUNGS if rung in claim.rungs][-1]
    if not seen:
        return "–"
    return seen[-1] if RUNGS.index(seen[-1]) >= RUNGS.index(top) else f"{seen[-1]}, not yet {top}"


# --- reading ------------------------------------------------------------------------------------


def read_claims(path: Path = ROOT / "figures" / "report" / "claims.toml") -> list[Claim]:
    """The claims in their order. TypeError on a missing or unknown key."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return [Claim(id=i, **{**row, "rungs": tuple(row["rungs"])}) for i, row in table.items()]


def read_records(folder: Path = ROOT / "results") -> tuple[list[Record], dict[str, dict[str, Any]]]:
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


# --- rendering ----------------------------------------------------------------------------------


def render(
    claims: Sequence[Claim],
    records: Sequence[Record],
    provenance: dict[str, dict[str, Any]],
    figures: Sequence[Entry],
    mutation: dict[str, Any] | None = None,
) -> str:
    """The whole report as Markdown; a pure function of its arguments."""
    known = {claim.id for claim in claims}
    stray = {i for r in records for i in r.claims} | {i for f in figures for i in f.claims}
    if stray - known:
        raise ValueError(f"claims not in claims.toml: {', '.join(sorted(stray - known))}")
    by_claim = {c.id: [r for r in records if c.id in r.claims] for c in claims}
    parts = [_header(provenance, mutation), _summary(claims, by_claim), _negative(records)]
    parts += [
        _section(claim, by_claim[claim.id], [f for f in figures if claim.id in f.claims])
        for claim in claims
    ]
    return "\n\n".join(parts) + "\n"


def _header(provenance: dict[str, dict[str, Any]], mutation: dict[str, Any] | None) -> str:
    lines = [
        "# What holds, what does not, and what is not known",
        "<!-- Rendered by `python -m figures.report` from results/ and figures/. Do not edit. -->",
        "This report goes through the claims of arXiv 2602.01357, *Your Self-Play Algorithm is "
        "Secretly an Adversarial Imitator*, and of the theory behind them.",
        "- **Paper.** Only the abstract and the first lines of the introduction could be read. "
        "C1–C6 are its claims (`paper (abstract)`); its theorems, loss, constants, tasks and "
        "tables are not known here.\n"
        "- **Reconstruction.** T1–T17 and S1–S8 were derived for this project (`reconstruction`; "
        "proofs in [theory/README.md](theory/README.md)). That they hold says nothing about the "
        "paper's own theorems.\n"
        "- **Measured.** Every number below was written by a test or a run, never by hand. Rungs: "
        "*symbolic* (an identity proved), *exact* (closed forms and certified solvers on random "
        "tabular games), *dynamics* (gradient descent and finite samples against the exact path), "
        "*language model* (a trained network against the prediction).\n"
        "- **Verdict.** One function computes it from the records (`figures/report/render.py`): "
        "supported claims hold, under the conditions whose necessity was exhibited; a "
        "counter-example without such a condition refutes. A finite number of random instances "
        "is evidence, not proof, and a verdict reaches no further up than the rungs that have "
        "evidence.",
        "## Where the records come from",
    ]
    if provenance:
        rows = [
            f"| `results/{name}` | `{p.get('command', '?')}` | {p.get('device', '?')} | "
            f"{_versions(p)} | {p.get('date', '–')} |"
            for name, p in sorted(provenance.items())
        ]
        head = "| file | command | device | versions | date |\n|---|---|---|---|---|"
        lines.append("\n".join([head, *rows]))
    else:
        lines.append("There are no records yet: run `make evidence`.")
    if mutation:
        total = mutation["total"]
        lines.append(
            f"How sharp the tests are (`make mutate`, table in results/mutation.md): "
            f"{total['tried']} of the {total['mutants']} mutants of the formulas were tried; "
            f"{total['equivalent']} of them change nothing that can be observed (listed with "
            f"reasons); {total['killed']} turned a test red, {total['survived']} survived."
        )
    return "\n\n".join(lines)


def _versions(provenance: dict[str, Any]) -> str:
    versions = {"Python": provenance.get("python", "?"), **provenance.get("versions", {})}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _summary(claims: Sequence[Claim], by_claim: dict[str, list[Record]]) -> str:
    rows = ["## Verdicts", "", f"| claim | source | verdict | as far as | {' | '.join(RUNGS)} |",
            "|---|---|---|---|" + "---:|" * len(RUNGS)]  # fmt: skip
    for claim in claims:
        evidence = by_claim[claim.id]
        counts = [sum(r.instances for r in evidence if r.counts and r.rung == g) for g in RUNGS]
        rows.append(
            f"| [{claim.id}](#{claim.id.lower()}) {claim.title} | {claim.source} | "
            f"{_bold(verdict(evidence))} | {reach(claim, evidence)} | "
            f"{' | '.join(str(n) if n else '–' for n in counts)} |"
        )
    return "\n".join(
        [
            *rows,
            "",
            "*As far as*: the highest rung with evidence. Numbers are "
            "instances checked on each rung.",
        ]
    )


def _bold(found: Verdict) -> str:
    return f"**{found.word}** {'; '.join(map(_cell, found.conditions))}".strip()


def _negative(records: Sequence[Record]) -> str:
    lines = [
        "## Negative results",
        "",
        "Counter-examples to a claim as stated, and failures seen when an assumption was dropped.",
        "",
    ]
    found = _grouped(r for r in records if r.counts and r.kind != "supports")
    for (test, kind, condition), group in found.items():
        what = "counter-example" if kind == "refutes" else "necessary"
        under = f": {condition}" if condition else ""
        claims = ", ".join(f"[{i}](#{i.lower()})" for i in group[0].claims)
        lines.append(f"- {claims} — *{what}{under}*: {_sentence(test)} ({_margins(group)})")
    return "\n".join(lines if found else [*lines, "None recorded yet."])


def _section(claim: Claim, evidence: Sequence[Record], figures: Sequence[Entry]) -> str:
    lines = [
        f'<a id="{claim.id.lower()}"></a>\n\n## {claim.id} {claim.title}',
        f"{claim.statement}",
        f"Source: {claim.source}. Verdict: {_bold(verdict(evidence))} (as far as: "
        f"{reach(claim, evidence)}).",
    ]
    counted = [r for r in evidence if r.counts]
    if counted:
        rows = [
            "| rung | what was tested | kind | instances | worst margin |",
            "|---|---|---|---:|---|",
        ]
        for rung in RUNGS:
            for (test, kind, condition), group in _grouped(
                r for r in counted if r.rung == rung
            ).items():
                shown = f"{kind}: {_cell(condition)}" if condition else kind
                rows.append(
                    f"| {rung} | {_sentence(test)} | {shown} | {sum(r.instances for r in group)} | "
                    f"{_cell(_margins(group))} |"
                )
        lines.append("\n".join(rows))
    skipped = sorted({_sentence(r.test) for r in evidence if not r.counts})
    if skipped:
        lines.append(f"Skipped where these records were made: {'; '.join(skipped)}.")
    lines += [f"![{f.name}](figures/out/{f.name}.png)\n\n*{f.caption}*" for f in figures]
    missing = gaps(claim, evidence)
    lines.append("Known gaps: " + (" ".join(missing) if missing else "none."))
    return "\n\n".join(lines)


def _grouped(records: Iterable[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Records of one test function together, whatever it was parametrised with."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for r in sorted(records, key=lambda r: (r.test, r.kind, r.condition)):
        groups.setdefault((r.test.split("[")[0], r.kind, r.condition), []).append(r)
    return groups


def _sentence(test: str) -> str:
    """A test's name is a sentence: tests/x.py::test_kl_is_monotone -> kl is monotone."""
    name = test.split("[")[0].split("::")[-1]
    return name.removeprefix("test_").replace("_", " ")


def _margins(group: Sequence[Record]) -> str:
    """The worst of every kind of check over a group, the tightest first."""
    worst: dict[tuple[str, str], dict[str, float]] = {}
    for row in (row for record in group for row in record.checks):
        key = (row["check"], row["what"])
        new = {name: float(value) for name, value in row["worst"].items()}
        if key not in worst or _tightness(key[0], new) > _tightness(key[0], worst[key]):
            worst[key] = new
    texts = []
    for (check, what), w in sorted(worst.items()):
        name = f"{what}: " if what else ""
        if check == "close":
            texts.append(f"{name}error {w['error']:.3g}, allowed {w['tolerance']:.3g}")
        elif check == "below":
            texts.append(f"{name}slack {w['slack']:.3g} to the bound {w['bound']:.3g}")
        elif check == "exhibits":
            texts.append(f"{name}{w['value']:.3g} seen, at least {w['at_least']:.3g} predicted")
        else:
            texts.append(f"{name}proved")
    return "; ".join(texts) or "no margin recorded"


def _tightness(check: str, worst: dict[str, float]) -> float:
    if check == "close":
        return worst["error"] / worst["tolerance"] if worst["tolerance"] else worst["error"] * 1e300
    return -worst.get("slack", worst.get("value", 0.0))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- the shell ----------------------------------------------------------------------------------


def current(root: Path = ROOT) -> str:
    """The report that the records, claims and figures of a tree give."""
    records, provenance = read_records(root / "results")
    path = root / "results" / "mutation.json"
    mutation = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    claims = read_claims(root / "figures" / "report" / "claims.toml")
    return render(claims, records, provenance, catalogue(root / "figures"), mutation)


def write(root: Path = ROOT) -> None:
    """Render paper_repro.md, whole or not at all."""
    part = root / "paper_repro.md.tmp"
    part.write_text(current(root), encoding="utf-8", newline="\n")
    part.replace(root / "paper_repro.md")


def main(argv: list[str] | None = None) -> int:
    """Write the report, or with --check exit 1 if the one that is there is not the render."""
    parser = argparse.ArgumentParser(prog="python -m figures.report")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args(argv).check:
        write()
    elif not REPORT.exists() or REPORT.read_text(encoding="utf-8") != current():
        print("paper_repro.md is not the render of the records: run python -m figures.report")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

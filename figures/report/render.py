"""The report as Markdown, from claims, records and captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from figures.catalogue import Entry
from figures.report.claims import RUNGS, Claim
from figures.report.records import Record
from figures.report.verdict import Verdict, gaps, reach, verdict


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
        "- **Verdict.** One function computes it from the records (`figures/report/verdict.py`): "
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

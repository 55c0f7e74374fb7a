"""The report as Markdown, to be read in ten minutes: pure functions of the evidence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from figures.report.answers import Answer, filled
from figures.report.claims import Claim
from figures.report.records import independent
from figures.report.status import DEDUCED, MEANING, Status
from figures.report.tests_index import place
from figures.report.words import cell_of_table, counted, span, tally, tightest
from lab.evidence import REGIMES

SAME = "as above"
EVERY = "NAME"  # of an experiment, in a file and its command


@dataclass(frozen=True)
class Evidence:
    """All that the report is made of."""

    claims: Sequence[Claim]
    premises: Mapping[str, str]
    statuses: Mapping[str, Status]
    answers: Mapping[str, Answer]
    provenance: Mapping[str, Mapping[str, Any]]
    captions: Mapping[str, str]
    mutation: Mapping[str, Any] | None = None

    def of(self, letter: str) -> list[Claim]:
        """Claims C, T or S."""
        return [claim for claim in self.claims if claim.id.startswith(letter)]


def render(evidence: Evidence) -> str:
    """The whole report."""
    parts = [
        _head(),
        _first_page(evidence),
        _practice(evidence),
        _theorems(evidence),
        _signatures(evidence),
        *(_section(claim, evidence) for claim in evidence.of("C")),
        _provenance(evidence),
    ]
    return "\n\n".join(parts) + "\n"


def _head() -> str:
    return "\n\n".join(
        [
            "# What holds, what does not, and what is not known",
            "<!-- Rendered by `python -m figures.report` from results/ and figures/report/. Do not "
            "edit. -->",
            "The claims C1–C6 of arXiv 2602.01357, *Your Self-Play Algorithm is Secretly an "
            "Adversarial Imitator*, are read off its **abstract**; its theorems, loss and "
            'tables are not known here ("first author\'s code": of a later project, which names '
            "neither it nor SPIF). T1–T18 and S1–S8 are a **reconstruction** "
            "([theory](theory/README.md)): that they hold says nothing of the paper's own "
            "theorems. Statuses of its clauses are computed from records of tests and "
            "runs; the answers below, which a person wrote, are refused if they differ.",
        ]
    )


def _first_page(evidence: Evidence) -> str:
    lines = [
        "## The six claims",
        "",
        "| | claim of the abstract | answer | true where | not where | a number |",
        "|---|---|---|---|---|---|",
    ]
    for claim in evidence.of("C"):
        answer = evidence.answers[claim.id]
        texts = (answer.answer, answer.true_where, answer.not_where, answer.number)
        row = [cell_of_table(filled(text, evidence.statuses) or "–") for text in texts]
        lines.append(f"| [{claim.id}](#{claim.id.lower()}) | {claim.title} | {' | '.join(row)} |")
    seen = {regime for status in evidence.statuses.values() for regime in status.regimes}
    absent = [f"*{g}* ({REGIMES[g]})" for g in REGIMES if g not in seen]
    known = "; ".join(f"*{g}*, {says}" for g, says in REGIMES.items() if g in seen)
    lines += [
        "",
        f"Regimes: {known}. Brackets, and cells counted alone: 95 % of one cell; yes and no: "
        "corrected for many.",
    ]
    if absent:
        lines += ["", f"**No claim was tested in: {', '.join(absent)}.**"]
    lines += [
        "",
        "u = log p/pi; R(u): reward of the best response, L its largest slope, R'(0) that at the "
        "expert; effective step s = R'(0)/beta; c: SPIF's penalty, its bound 1/c, eta = 1/(beta c) "
        "= 2s; m: IPO's margin; tau: weight of the anchor; Delta: triangular discrimination; Z: "
        "partition function of a round; solved: the round's loss minimised to the end; nearer, "
        "farther: to or from the expert, by KL(p||pi).",
    ]
    return "\n".join(lines)


def in_short(evidence: Evidence) -> str:
    """A row for each of the six claims."""
    rows = ["| claim of the abstract | answer |", "|---|---|"]
    for claim in evidence.of("C"):
        answer = cell_of_table(filled(evidence.answers[claim.id].answer, evidence.statuses))
        rows.append(f"| **{claim.id}** {claim.title} | {answer} |")
    return "\n".join(rows)


def _practice(evidence: Evidence) -> str:
    lines = ["## What a practitioner should do", ""]
    for i, answer in enumerate(a for key, a in evidence.answers.items() if key.startswith("P")):
        more = [f"`{answer.command}`"] if answer.command else []
        if answer.figure:
            more.insert(0, f"[figure](figures/out/{answer.figure}.png)")
        text = " ".join(filled(x, evidence.statuses) for x in (answer.answer, answer.number) if x)
        lines.append(f"{i + 1}. {text} ({', '.join([', '.join(answer.cited), *more])})")
    return "\n".join(lines)


def _theorems(evidence: Evidence) -> str:
    lines = [
        "## The theorems, a line each",
        "",
        "A clause's sentence, tests and margins are on the evidence page. "
        + "; ".join(f"*{word}*: {MEANING[word]}" for word in DEDUCED)
        + ". °: seen to fail when a [premise](figures/report/premises.toml) is dropped alone "
        "(which: evidence). Margin: share of a tolerance used.",
    ]
    for claim in evidence.of("T"):
        found = [evidence.statuses[c.id] for c in claim.clauses if c.comparison is None]
        words = {word: [_said(s) for s in found if s.word == word] for word in MEANING}
        told = "; ".join(f"*{word}*: {', '.join(said)}" for word, said in words.items() if said)
        links = " · ".join(_links(claim, found))
        lines += ["", f"**{claim.id} {claim.title}.** {claim.statement} {told} ({links})"]
    return "\n".join(lines)


def _links(claim: Claim, found: Sequence[Status]) -> list[str]:
    """To the evidence, the proof, the first of the tests that support; and the tightest margin."""
    links = [f"[evidence](results/evidence/{claim.id}.md)"]
    proofs = {status.clause.proof for status in found} - {""}
    links += [f"[proof](theory/README.md#{anchor})" for anchor in sorted(proofs)]
    records = [r for status in found for r in status.records if not r.drops]
    tests = sorted({r.function for r in records})
    links += [f"[test, 1 of {len(tests)}]({place(tests[0])})"] if tests else []
    margin = tightest(records)
    return [*links, f"margin {margin}"] if margin else links


def _said(status: Status) -> str:
    """A clause's name under its claim, marked if it was seen to need a premise."""
    return f"`{status.clause.id.partition('.')[2]}`" + ("°" if status.sharp else "")


def _signatures(evidence: Evidence) -> str:
    lines = [
        "## The signatures in trained models, by regime",
        "",
        "Means over seeds, paired (less a prediction, of which ± is allowed); a cell: one length, "
        "rate, step and round. *yes*: every cell, *no*: at least one, by 95 % intervals corrected "
        "for clauses (Holm), *no* for cells too; *alone*: uncorrected.",
    ]
    asked = [
        evidence.statuses[clause.id]
        for claim in evidence.claims
        for clause in claim.clauses
        if claim.id.startswith("S") or clause.comparison is not None
    ]
    for regime in REGIMES:
        if found := [s for s in asked if regime in s.regimes]:
            when = Counter(s.clause.comparison.fixed for s in found if s.clause.comparison)
            usual = max(when, key=lambda fixed: when[fixed], default="")
            fixed = f"; compared as written down {usual}" if usual else ""
            fixed += ", unless said" if len(when) > 1 else ""
            lines += ["", f"Regime *{regime}*{fixed}", ""]
            lines += ["| clause | status | means of the cells | cells |"]
            lines += ["|---|---|---|---|", *(_signature(s, usual) for s in found)]
    to_come = [s.clause.id for s in asked if not s.regimes]
    if to_come:
        said = []
        for claim, ids in groupby(to_come, key=lambda id_: id_.partition(".")[0]):
            page = f"[what they say](results/evidence/{claim}.md)"
            said.append(f"{', '.join(f'`{id_}`' for id_ in ids)} ({page})")
        lines += ["", f"Written down, their runs to come: {'; '.join(said)}."]
    return "\n".join(lines)


def _signature(status: Status, usual: str) -> str:
    text = status.clause.says.removeprefix("On real text, ").removeprefix("On real text ")
    says = f"`{status.clause.id}` {cell_of_table(text[0].upper() + text[1:])}"
    word = status.word + (f": {status.why}" if status.why else "")
    ask = status.clause.comparison
    if ask is None:
        return f"| {says} | {word} | – | – |"
    says += f" ({ask.fixed})" if ask.fixed != usual else ""
    within = f" (±{ask.tolerance:g})" if ask.predicted else ""
    means = f"{span(status.cells)} {ask.unit}{within}"
    fall = tally(status.cells, ask).removeprefix(f"{status.word} in {len(status.cells)} of ")
    fall = re.sub(r" cells?\b", "", fall)  # the column says so
    return f"| {says} | {word} | {means} | {fall} |"


def _section(claim: Claim, evidence: Evidence) -> str:
    answer = evidence.answers[claim.id]
    lines = [
        f'<a id="{claim.id.lower()}"></a>\n\n## {claim.id} {claim.title}',
        f"*{claim.statement}* ([evidence](results/evidence/{claim.id}.md))",
    ]
    if answer.figure:
        lines.append(f"![{answer.figure}](figures/out/{answer.figure}.png)")
    for head, cited in (("For", answer.because), ("Against", answer.against or {})):
        if cited:
            lines.append(f"{head}: {_cited(cited, evidence.statuses)}.")
    if answer.change:
        lines.append(f"Would change it: {answer.change}")
    absent = [g for g in REGIMES if g not in answer.regimes and g != "symbolic"]
    gaps = f"Not from: {', '.join(absent)}." if absent else ""
    lines.append(f"{gaps} {claim.gaps}".strip())
    return "\n\n".join(filter(None, lines))


def _cited(ids: Iterable[str], statuses: Mapping[str, Status]) -> str:
    """Clauses by their status, in the order in which they are cited."""
    by_word: dict[str, list[str]] = {}
    for id_ in ids:
        by_word.setdefault(statuses[id_].word, []).append(id_)
    return "; ".join(f"{', '.join(of)} {word}" for word, of in by_word.items())


def _provenance(evidence: Evidence) -> str:
    lines = ["## Provenance", ""]
    if evidence.provenance:
        lines += [
            "| file in results/ | command | device, versions | date | code |",
            "|---|---|---|---|---|",
        ]
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, found in sorted(evidence.provenance.items()):
        member, *row = _row(name, found)
        groups.setdefault(tuple(row), []).extend([member] if member else [])
    before: tuple[str, ...] = ("",) * 5
    for (file, *row), members in groups.items():
        told = [SAME if here == last else here for here, last in zip(row, before[1:], strict=True)]
        names = f": {len(members)} experiments" if members else ""
        lines.append(f"| `{file}`{names} | {' | '.join(told)} |")
        before = (file, *row)
    records = [r for s in evidence.statuses.values() for r in s.records]
    unique = {r.test: r for r in records}.values()
    tests = len({r.function for r in unique})
    lines += ["", f"{tests} tests of clauses; independent instances: "
              f"{counted(independent(unique))}. `python -m figures.report verify` "
              "derives statuses anew and names records of earlier code."]  # fmt: skip
    if evidence.mutation:
        lines += ["", _mutation(evidence.mutation["total"])]
    machines = "[clauses](results/clauses.json), [schema](results/clauses.schema.json)."
    lines += ["", f"For machines: {machines}"]
    return "\n".join(lines)


def _row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """An experiment ("" if it is none of several), then file, command, versions, date and code.

    The file and the command of an experiment have NAME in the place of its name; its date and code
    are left to the file, so that all are one row.
    """
    command = found.get("command", "?")
    _, _, rest = command.partition(" ONLY=")
    member = rest.partition(" ")[0]
    if member and name.endswith(f"_{member}.json"):
        name = name.removesuffix(f"{member}.json") + f"{EVERY}.json"
        command = command.replace(f"ONLY={member}", f"ONLY={EVERY}")
    else:
        member = ""
    versions = {"Python": found.get("python", "?"), **found.get("versions", {})}
    told = f"{found.get('device', '?')}; {', '.join(f'{k} {v}' for k, v in versions.items())}"
    if member:
        return member, name, f"`{command}`", told, "in the file", "in the file"
    code = ", ".join(f"{k} {v[:6]}" for k, v in found.get("code", {}).items())
    return "", name, f"`{command}`", told, found.get("date", "–"), code or "not recorded"


def _mutation(total: Mapping[str, int]) -> str:
    return (
        f"Mutants (`make mutate`, [table](results/mutation.md)): "
        f"{total['tried']:,} of {total['mutants']:,} tried: {total['equivalent']} change "
        f"nothing, {total['killed']:,} killed, {total['survived']} survived."
    )


def all_words(statuses: Iterable[Status]) -> dict[str, int]:
    """How many clauses have each status."""
    found: dict[str, int] = {}
    for status in statuses:
        found[status.word] = found.get(status.word, 0) + 1
    return found

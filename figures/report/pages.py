"""The evidence pages, results/evidence/<claim>.md: every record, cell and caption of one claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from figures.report.claims import Claim, Comparison
from figures.report.records import Record, independent
from figures.report.status import Status
from figures.report.tests_index import place, sentence
from figures.report.words import cell_number, cell_of_table, counted, margins


def page(
    claim: Claim,
    statuses: Mapping[str, Status],
    premises: Mapping[str, str],
    figures: Sequence[tuple[str, str]],
    answer: str = "",
) -> str:
    """The page of a claim as Markdown; figures are names with captions, answer is the report's."""
    lines = [
        f"# {claim.id} {claim.title}",
        "<!-- Rendered by `python -m figures.report`. Do not edit. -->",
        f"Source: {claim.source}. [Report](../../paper_repro.md)."
        + (f"\n\n*{claim.statement}*" if claim.statement else "")
        + (f"\n\n**{answer}**" if answer else ""),
    ]
    for clause in claim.clauses:
        status = statuses[clause.id]
        why = f" ({status.why})" if status.why else ""
        lines += [f"## {clause.id}: {status}{why}", clause.says]
        if clause.premises:
            lines.append("\n".join(f"- *{p}*: {premises[p]}" for p in clause.premises))
        if clause.comparison is not None:
            lines += [_said(clause.comparison), _cells(status, clause.comparison)]
        elif status.records:
            lines.append(_records(status.records))
    if claim.gaps:
        lines.append(f"Known gaps: {claim.gaps}")
    lines += [
        f"![{name}](../../figures/out/{name}.png)\n\n*{caption}*" for name, caption in figures
    ]
    return "\n\n".join(lines) + "\n"


def _said(ask: Comparison) -> str:
    aim = (
        f"predicted {ask.predicted} within {ask.tolerance:g}, and twice as near as the null"
        if ask.predicted
        else f"{ask.direction} than {' or '.join(ask.against) or f'{ask.bound or 0:g}'}"
        + (f" by {ask.margin:g}" if ask.margin else "")
    )
    quantity = f"{ask.quantity} - {ask.minus}" if ask.minus else ask.quantity
    return (
        f"Compared: `{quantity}` ({ask.unit}) of {', '.join(ask.arms)}: {aim}; at least "
        f"{ask.seeds} seeds; null: {ask.null}; said {ask.fixed}; regime: {ask.regime}."
    )


def _cells(status: Status, ask: Comparison) -> str:
    rows = ["| cell | mean [95 %] | seeds | decided |", "|---|---|---:|---|"]
    rows += [f"| {c.name} | {cell_number(c, ask)} | {c.seeds} | {c.word} |" for c in status.cells]
    return "\n".join(rows)


def _records(records: Iterable[Record]) -> str:
    rows = [
        "| regime | test | what it shows | instances | worst margins |",
        "|---|---|---|---:|---|",
    ]
    groups: dict[tuple[str, str, str, bool], list[Record]] = {}
    for r in sorted(records, key=lambda r: (r.regime, r.function, r.drops)):
        groups.setdefault((r.regime, r.function, r.drops, r.refutes), []).append(r)
    for (regime, test, drops, refutes), group in groups.items():
        shows = f"fails without *{drops}*" if drops else ("REFUTES" if refutes else "supports")
        rows.append(
            f"| {regime} | [{sentence(test)}](../../{place(test)}) | {shows} | "
            f"{counted(independent(group))} | {cell_of_table(margins(group))} |"
        )
    return "\n".join(rows)

"""Answers are locked to the evidence: what differs, is left out or is not there is refused."""

from dataclasses import replace

import pytest

from figures.report.answers import Answer, filled, problems
from figures.report.claims import Claim, Clause, Comparison
from figures.report.empirical import Cell
from figures.report.status import Status

RULE = Clause("C1.rule", "It is so.", "bound")
ASK = Comparison(
    regime="listed", quantity="kl", unit="nats", arms=("spif",), against=("spin",), rows={},
    seeds=5, null="", fixed="before the runs", direction="less",
)  # fmt: skip
BETTER = Clause("C1.better", "It is better.", "empirical", comparison=ASK)
CELLS = tuple(
    Cell("spif", "spin", {"steps": steps, "round": 0.0}, -0.2, 0.05, 5, "yes")
    for steps in (64.0, 256.0)
)
STATUSES = {
    "C1.rule": Status(RULE, "proved", regimes=("tabular",)),
    "C1.better": Status(BETTER, "yes", regimes=("listed",), cells=CELLS),
}
CLAIM = Claim("C1", "A claim", "paper (abstract)", (RULE, BETTER), statement="It is.")
GOOD = Answer(
    "C1", "Yes: {C1.better: steps=64}; {C1.rule}.", {"C1.rule": "proved", "C1.better": "yes"},
    ("tabular", "listed"), figure="links",
)  # fmt: skip


def wrong(answer, statuses=STATUSES):
    return problems({"C1": answer}, [CLAIM], statuses, ["links"])


def test_an_answer_that_says_what_the_evidence_says():
    assert wrong(GOOD) == []
    assert filled("{C1.better: cells}", STATUSES) == "yes in 2 of 2 cells"
    assert filled(GOOD.answer, STATUSES) == "Yes: -0.200 [-0.250, -0.150] nats; proved."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"because": {"C1.rule": "proved", "C1.better": "no"}}, "cites C1.better as 'no'"),
        ({"because": {"C1.rule": "proved"}}, "C1 leaves out C1.better"),
        ({"because": GOOD.because | {"C1.else": "proved"}}, "C1.else, which is no clause"),
        ({"regimes": ("real text",)}, "no cited clause has evidence in the regime 'real text'"),
        ({"figure": "absent"}, "no figure 'absent'"),
        ({"number": "{C1.better: round=0}"}, "fits 2 cells"),
        ({"number": "{C1.better: steps=1}"}, "fits 0 cells"),
        ({"number": "{C1.gone}"}, "no such clause"),
        ({"number": "{C1.rule: cells}"}, "C1.rule compares nothing"),
    ],
)
def test_an_answer_that_says_something_else_is_refused(change, said):
    assert any(said in found for found in wrong(replace(GOOD, **change)))


def test_an_open_clause_knows_no_regime():
    unknown = {**STATUSES, "C1.better": replace(STATUSES["C1.better"], word="open")}
    answer = replace(GOOD, because={"C1.rule": "proved", "C1.better": "open"})
    assert wrong(answer, unknown) == ["C1: no cited clause has evidence in the regime 'listed'"]


def test_a_claim_needs_an_answer():
    assert problems({}, [CLAIM], STATUSES, []) == ["C1 has no answer"]

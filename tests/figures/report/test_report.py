"""The rule from evidence to verdict, the render, and that the committed report is one."""

import json
import re

import pytest
from figures.report.verdict import Verdict, gaps, reach, verdict

from figures.catalogue import RESULTS, Entry
from figures.report import __main__ as report
from figures.report.claims import RUNGS, Claim, read_claims
from figures.report.records import Record, read_records
from figures.report.render import render
from lab import evidence


def record(kind="supports", condition="", **kwargs):
    return Record("t.py::test_it", ("T1",), "exact", kind, condition, **kwargs)


YES, NEEDS = record(), record("necessity", "beta >= L")


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        ([], "not tested here"),
        ([YES], "holds"),
        ([YES, NEEDS], "holds if beta >= L"),
        ([NEEDS, YES, record("refutes", "a < b"), NEEDS], "holds if a < b; beta >= L"),
        ([YES, record("refutes")], "refuted"),
        ([YES, NEEDS, record("refutes"), record("refutes", "a < b")], "refuted"),
        ([record("refutes", "a < b")], "refuted"),
        ([record("refutes")], "refuted"),
        ([NEEDS], "not tested here"),
        ([record(outcome="skipped")], "not tested here"),
        ([record(instances=0)], "not tested here"),
        ([YES, record("refutes", outcome="skipped")], "holds"),
        ([YES, record("necessity", "x", instances=0)], "holds"),
    ],
)
def test_the_rule_from_evidence_to_verdict(evidence, word):
    assert str(verdict(evidence)) == word
    assert verdict(reversed(evidence)) == verdict(evidence)


def test_a_missing_rung_is_a_gap():
    claim = Claim("C1", "", "", "paper (abstract)", ("exact", "language model"), "Tasks unknown.")
    assert gaps(claim, [YES]) == ["Tasks unknown.", "No evidence yet on the rung language model."]
    assert gaps(claim, []) == [
        "Tasks unknown.",
        "No evidence yet on the rungs exact, language model.",
    ]
    full = [YES, Record("run", ("C1",), "language model")]
    assert gaps(Claim("T1", "", "", "", ("exact", "language model")), full) == []


def test_the_reach_of_a_verdict_is_said():
    claim = Claim("C1", "", "", "paper (abstract)", ("exact", "language model"))
    assert reach(claim, []) == "–"
    assert reach(claim, [YES]) == "exact, not yet language model"
    assert reach(claim, [YES, Record("run", ("C1",), "language model")]) == "language model"


def test_the_claims_are_those_of_the_plugin():
    claims = read_claims()
    assert tuple(claim.id for claim in claims) == evidence.CLAIMS
    assert RUNGS == evidence.RUNGS
    for claim in claims:
        assert claim.source == ("paper (abstract)" if claim.id[0] == "C" else "reconstruction")
        assert claim.rungs
        assert set(claim.rungs) <= set(RUNGS)


CHECK = {"check": "close", "what": "KL", "instances": 2}
CLAIMS = [
    Claim("T1", "First", "One.", "reconstruction", ("exact",)),
    Claim("T2", "Second", "Two.", "reconstruction", ("dynamics",)),
]


def rendered(records, figures=()):
    return render(CLAIMS, records, {}, figures)


def test_a_section_tells_everything():
    records = [
        record(instances=2, checks=({**CHECK, "worst": {"error": 1e-9, "tolerance": 1e-8}},)),
        Record("t.py::test_it[b]", ("T1", "T2"), "exact", instances=3,
               checks=({**CHECK, "worst": {"error": 2e-9, "tolerance": 1e-8}},)),
        Record("t.py::test_dropped", ("T1",), "dynamics", "necessity", "|b| > 1",
               checks=({"check": "exhibits", "what": "", "worst": {"value": 9.0, "at_least": 1}},)),
    ]  # fmt: skip
    text = rendered(records, [Entry("links", "All links.", ("T1",))])
    assert "| exact | it | supports | 5 | KL: error 2e-09, allowed 1e-08 |" in text
    assert "**holds if** \\|b\\| > 1" in text
    assert "- [T1](#t1) — *necessary: |b| > 1*: dropped (9 seen, at least 1 predicted)" in text
    assert "![links](figures/out/links.png)\n\n*All links.*" in text
    assert "Two.\n\nSource: reconstruction. Verdict: **holds** (as far as: exact, not yet" in text
    assert "No evidence yet on the rung dynamics." in text


def test_the_order_of_the_records_does_not_matter():
    records = [record(), NEEDS, Record("a.py::test_a", ("T2",), "exact")]
    assert rendered(records) == rendered(records[::-1])


def test_the_mutation_record_is_quoted():
    total = {"mutants": 50, "tried": 48, "killed": 42, "equivalent": 3, "survived": 3}
    text = render(CLAIMS, [], {}, [], {"total": total})
    assert "48 of the 50 mutants of the formulas were tried; 3 of them change nothing" in text
    assert "42 turned a test red, 3 survived." in text


def test_without_records_nothing_is_claimed():
    text = rendered([])
    assert text.count("**not tested here**") == 4
    assert "**holds" not in text
    assert "None recorded yet." in text


@pytest.mark.parametrize(
    ("records", "figures"),
    [([Record("t", ("T99",), "exact")], []), ([], [Entry("x", "x", ("T99",))])],
)
def test_an_unknown_claim_is_refused(records, figures):
    with pytest.raises(ValueError, match="T99"):
        rendered(records, figures)


def test_what_the_plugin_writes_is_what_the_report_reads(tmp_path):
    claim = evidence.Claim()
    claim.close(1.0, 1.0, atol=0)
    claim.below(1.0, 2.0)
    claim.exhibits(2.0, 1.0)
    claim.exact(True, "identity")
    checks = [vars(c) for c in claim.checks.values()]
    row = {"test": "t.py::test_it", "outcome": "passed", **evidence.marked("T1", rung="exact"),
           "instances": 1, "checks": checks}  # fmt: skip
    provenance = evidence.provenance(tmp_path)
    evidence.write_record(tmp_path / "evidence.json", provenance, [row])
    (tmp_path / "bench.json").write_text(json.dumps({"rows": []}))
    records, found = read_records(tmp_path)
    assert found == {"evidence.json": provenance}
    assert verdict(records) == Verdict("holds")
    text = render(CLAIMS, records, found, [])
    assert "error 0, allowed 0" in text
    assert "slack 1 to the bound 2" in text
    assert "identity: proved" in text
    assert "`make evidence`" in text


def test_the_committed_report_is_the_render_of_the_committed_records():
    assert report.main(["--check"]) == 0, "run python -m figures.report"


def test_no_record_names_a_machine_or_a_person():
    for path in RESULTS.glob("*.json"):
        assert not re.search(r"/(home|root|tmp|Users)/|localhost", path.read_text()), path.name

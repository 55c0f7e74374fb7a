"""The committed report: what the records give, short, and linked both ways."""

import json
import re
from dataclasses import replace

import pytest

from figures.catalogue import RESULTS, ROOT
from figures.recorded import campaign, llm_tiny
from figures.report import build, machine
from figures.report.claims import read_claims, read_premises
from figures.report.pages import page
from figures.report.records import read_records
from figures.report.render import render
from figures.report.rows import recorded_rows
from figures.report.status import statuses
from figures.report.tests_index import place
from lab import evidence as recording

LONGEST = 40 * 1024


@pytest.fixture(scope="module")
def made(evidence):
    return build.files(evidence)


def test_the_committed_files_are_what_the_records_give(evidence):
    assert build.differing(evidence) == [], "run python -m figures.report"


def test_the_report_is_read_in_ten_minutes(made):
    assert len(made[build.REPORT].encode()) <= LONGEST


def test_every_answer_stands_on_the_first_page(evidence, made):
    page = made[build.REPORT].partition("\n## What a practitioner")[0]
    for claim in evidence.of("C"):
        assert f"| [{claim.id}](#{claim.id.lower()}) |" in page


def test_every_link_leads_somewhere(made):
    for path, text in made.items():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not target.startswith("http"):
                there = (path.parent / target).resolve()
                assert there.exists() or there in made, f"{path.name}: {target}"


def test_every_proof_is_above_a_heading_of_the_theory():
    text = (ROOT / "theory" / "README.md").read_text(encoding="utf-8")
    headed = dict(re.findall(r'<a id="(t\d+)"></a>\n\n### (T\d+)\b', text))
    assert all(name.lower() == anchor for anchor, name in headed.items())
    for claim in read_claims():
        assert {c.proof for c in claim.clauses} - {""} <= {claim.id.lower()} & set(headed)


def test_every_premise_is_used_and_no_clause_is_named_twice():
    claims = read_claims()
    clauses = [clause for claim in claims for clause in claim.clauses]
    used = {p for clause in clauses for p in clause.premises}
    assert used == set(read_premises())
    assert len({clause.id for clause in clauses}) == len(clauses)


def test_every_record_leads_to_its_test():
    for record in read_records()[0]:
        assert "#L" in place(record.test), record.test


def test_every_clause_that_tests_decide_names_regimes(evidence):
    for status in evidence.statuses.values():
        assert bool(status.regimes) == (status.word != "open") or status.cells, status.clause.id


def test_the_machine_readable_file_follows_its_schema(evidence):
    data = machine.as_data(evidence.claims, evidence.statuses)
    read = json.loads(machine.as_text(data))
    schema = machine.schema()
    follows(read, schema)
    next(c for c in read["claims"] if c["clauses"])["clauses"][0]["status"] = "surely"
    with pytest.raises(AssertionError):
        follows(read, schema)


def follows(value, schema):
    """The part of JSON Schema that ours uses."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
             "null": type(None)}  # fmt: skip
    if "enum" in schema:
        assert value in schema["enum"], value
    if "const" in schema:
        assert value == schema["const"]
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        known = [kinds[name] for name in names]
        assert any(isinstance(value, kind) for kind in known), value
    if "pattern" in schema:
        assert re.search(schema["pattern"], value), value
    if "properties" in schema:
        assert set(schema["required"]) <= set(value) <= set(schema["properties"])
        for key, part in schema["properties"].items():
            follows(value[key], part)
    for item in value if "items" in schema else ():
        follows(item, schema["items"])


def test_records_of_other_code_are_named(evidence, tmp_path):
    for package in recording.CODE:
        (tmp_path / package).mkdir()
    said = build.stale(evidence, tmp_path)
    assert any("evidence.json was made by other code of theory" in line for line in said)


def test_the_order_of_the_records_does_not_matter(evidence):
    no_rows = recorded_rows(llm_tiny(), campaign())[:0]
    turned = statuses(evidence.claims, read_records()[0][::-1], no_rows)
    for name, status in evidence.statuses.items():
        if status.clause.comparison is not None:  # of rows, which no record changes
            turned[name] = status
    assert render(replace(evidence, statuses=turned)) == render(evidence)
    for claim in evidence.claims:
        pages = [page(claim, s, evidence.premises, []) for s in (turned, evidence.statuses)]
        assert pages[0] == pages[1], claim.id


def test_no_record_names_a_machine_or_a_person():
    for path in RESULTS.rglob("*.json"):
        assert not re.search(r"/(home|root|tmp|Users)/|localhost", path.read_text()), path.name


def test_every_file_of_records_has_its_command(evidence, made):
    """An experiment's file and command have NAME for its name; each is in one row."""
    rows = [line.split(" | ") for line in made[build.REPORT].splitlines() if line.startswith("| `")]
    rows = [[cell.strip("| ") for cell in row] for row in rows if row[0].endswith("json`")
            or ".json`: " in row[0]]  # fmt: skip
    found, command = {}, ""
    for file, told, *_ in rows:
        command = command if told == "as above" else told.strip("`")
        name, _, count = file.partition(": ")
        stem, several, end = name.strip("`").partition("NAME")
        members = [x.removeprefix(stem).removesuffix(end) for x in evidence.provenance
                   if several and x.startswith(stem) and x.endswith(end)]  # fmt: skip
        assert not several or count == f"{len(members)} experiments"
        for member in members or [""]:
            found[f"{stem}{member}{end}"] = command.replace("NAME", member)
    assert found == {name: told["command"] for name, told in evidence.provenance.items()}
    assert len(rows) < len(found)

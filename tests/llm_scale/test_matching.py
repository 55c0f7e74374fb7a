"""What counts as a right answer: by-hand texts and numbers, and a user's function that fails."""

from decimal import Decimal

import pytest

from llm_scale import matching
from llm_scale.matching import build, exact, last_number, number, probe
from theory.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 42.", "42"),
        ("3 + 4 = 7", "7"),
        ("$1,234,567.50 in all", "1234567.5"),
        ("1,2,3", "3"),  # a list, no thousands
        ("12,34", "34"),
        ("1234,567", "567"),
        ("costs .5", "0.5"),
        ("x = -3", "-3"),
        ("x = \u22123", "-3"),  # the sign of typesetting
        ("10-3", "3"),  # a difference
        ("(5)-2", "2"),
        ("2.50", "2.5"),
        ("about 1.5e3", "1500"),
        ("#### 18", "18"),
        ("1e999999999999999999", "1e999999999999999999"),
        ("1e99999999999999999999", None),  # beyond what a decimal can hold
        ("2 or 0e-99999999999999999999", None),  # the last one counts, and not the one before
        ("no number", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text(text, value):
    assert last_number(text) == (None if value is None else Decimal(value))


def test_numbers_match_by_value_and_texts_by_letters():
    assert number("", "so it is 1,000.0", "#### 1000") == 1.0
    assert number("", "0.3", "#### 0.30") == 1.0
    assert number("", "0.1 + 0.2", "0.3") == 0.0
    assert number("", "none", "3") == 0.0
    assert number("", "1e99999999999999999999", "3") == 0.0
    assert number("", "1e99999999999999999999", "1e99999999999999999999") == 0.0
    assert exact("", " yes\n", "yes") == 1.0
    assert exact("", "Yes", "yes") == 0.0


FUNCTIONS = """
def right(prompt, response, reference): return response == reference
def half(prompt, response, reference, share=0.5): return share
def fails(prompt, response, reference): return int(response)
def words(prompt, response, reference): return "1"
def infinite(prompt, response, reference): return float("inf")
def late(prompt, response, reference): raise RuntimeError("late\\n\\n  failure")
def two(prompt, response): return 1.0
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return tmp_path / "mine.py"


def test_a_users_function_gives_true_false_or_a_number(file):
    assert [build(f"{file}:right")("p", r, "a") for r in "ab"] == [1.0, 0.0]
    assert build(f"{file}:half")("p", "", "a") == 0.5
    assert matching.problems(f"{file}:right") == []
    assert build("none") is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("equal", "'equal'; needed is none, exact, number or FILE.py:FUNCTION"),
        ("/nowhere/f.py:right", "no file"),
        ("FILE:lacking", "no function 'lacking'"),
        ("FILE:two", "takes 2 arguments without a default; needed are"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(file, spec, said):
    (problem,) = matching.problems(spec.replace("FILE", str(file)))
    assert said in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", "failed on the response 'two': ValueError: invalid literal"),
        ("late", "failed on the response 'two': RuntimeError: late failure$"),
        ("words", "gave '1'; needed is true, false or a finite number"),
        ("infinite", "gave inf; needed is"),
    ],
)
def test_a_function_is_tried_on_the_first_pair(file, name, said):
    with pytest.raises(InvalidInput, match=said):
        probe(build(f"{file}:{name}"), [("one", "two")])


def test_a_function_must_take_an_empty_response(tmp_path):
    (tmp_path / "first.py").write_text("def first(p, response, ref): return response[0] == ref[0]")
    with pytest.raises(InvalidInput, match="on the response '': IndexError"):
        probe(build(f"{tmp_path / 'first.py'}:first"), [("one", "two")])


def test_references_without_a_number_are_refused():
    with pytest.raises(InvalidInput, match="1 of 2 references have no number, as 'none'"):
        probe(number, [("p", "3"), ("p", "none")])

"""Settings: every problem is said at once, with what, where and what is allowed instead."""

import dataclasses

import numpy as np
import pytest

from lab.settings import BaseSettings, described, make, option, read_values
from theory.errors import InvalidInput


def odd(value):
    return [] if value % 2 else [f"{value} is even"]


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    rate: float = option(0.3, "learning rate, SFT units", gt=0)
    share: float = option(0.5, "a share", ge=0, lt=1)
    free: float = option(0.0, "any number")
    batch: int = option(8, "pairs a step", ge=8, le=64, multiple=8)
    sizes: tuple[int, ...] = option((3, 5), "sizes", ge=1, check=odd)
    parts: tuple[str, ...] = option(("a", "b"), "parts", of=("a", "b", "c"))
    fast: bool = option(True, "whether to be fast")

    def problems(self):
        return ["batch: more than 10 sizes"] if self.batch < len(self.sizes) else []


def said(**given):
    with pytest.raises(InvalidInput) as error:
        make(Settings, given)
    return error.value.problems


WRONG = [
    ({"rate": 0.0}, "rate=0.0; needed is > 0"),
    ({"rate": float("nan")}, "rate=nan; needed is a finite number > 0"),
    ({"rate": float("inf")}, "rate=inf; needed is a finite number > 0"),
    ({"rate": "fast"}, "rate='fast'; needed is a number"),
    ({"share": 1}, "share=1; needed is >= 0 and < 1"),
    ({"share": -1e-9}, "share=-1e-09; needed is >= 0 and < 1"),
    ({"free": float("-inf")}, "free=-inf; needed is a finite number"),
    ({"batch": 12}, "batch=12; needed is >= 8 and <= 64, a multiple of 8"),
    ({"batch": 72}, "batch=72; needed is >= 8 and <= 64, a multiple of 8"),
    ({"batch": 8.0}, "batch=8.0; needed is a whole number"),
    ({"batch": True}, "batch=True; needed is a whole number"),
    ({"sizes": [3, 0.5]}, "sizes=(3, 0.5); needed is a list of whole numbers"),
    ({"sizes": []}, "sizes=(); needed is a list of whole numbers"),
    ({"sizes": [3, 3]}, "sizes=(3, 3); each value may be named once"),
    ({"sizes": 4}, "sizes: 4 is even"),
    ({"parts": "d"}, "parts='d'; needed is one of a, b, c"),
    ({"fast": 1}, "fast=1; needed is true or false"),
    ({"sped": 1}, "unknown setting 'sped'; there are rate, share, free, batch, sizes, parts, fast"),
]


@pytest.mark.parametrize(("given", "problem"), WRONG, ids=lambda v: str(v)[-25:])
def test_each_problem_names_the_field_its_value_and_what_is_needed(given, problem):
    assert said(**given) == [problem]


def test_all_problems_come_at_once_also_of_kinds_and_values_together():
    assert len(said(rate=-1, share="x", sizes=[0, 2], parts=["d", "a"])) == 6
    assert said(batch=0, rate=-1)[-1] == "batch: more than 10 sizes"


def test_what_is_allowed_is_taken():
    made = make(Settings, {"rate": 1, "sizes": 7, "parts": ["c", "a"], "share": 0})
    assert made == Settings(rate=1, sizes=(7,), parts=("c", "a"), share=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.rate = 2.0


def test_numbers_of_numpy_are_numbers():
    made = Settings(rate=np.float32(0.5), batch=np.int64(16), sizes=(np.int32(3),))
    assert made == Settings(rate=0.5, batch=16, sizes=(3,))
    assert type(made.batch) is int


def test_help_says_what_a_setting_may_be():
    fields = {f.name: described(f, f.default) for f in dataclasses.fields(Settings)}
    assert fields["rate"] == "learning rate, SFT units (> 0; default: 0.3)"
    assert fields["parts"] == "parts (one of a, b, c; default: a, b)"
    assert fields["free"] == "any number (default: 0.0)"


def test_values_come_from_a_file_and_then_from_assignments(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('rate = 0.5\nparts = ["c"]\n')
    given = read_values(["rate=2", "objective=spif(c=1)", "parts=a"], path)
    assert given == {"rate": 2, "parts": "a", "objective": "spif(c=1)"}
    with pytest.raises(InvalidInput, match="'rate'; needed is key=value") as error:
        read_values(["rate", "=1"], None)
    assert len(error.value.problems) == 2
    assert read_values(["rate=2"], path)["rate"] == 2  # once there, and once here in its place
    with pytest.raises(InvalidInput) as error:
        read_values(["rate=1", "parts=a", "rate=2", "rate=1"], path)
    assert error.value.problems == [
        f"--set 'rate={value}': rate is given twice; needed is each once" for value in (2, 1)
    ]
    path.write_bytes(b"rate = \xff")
    with pytest.raises(InvalidInput, match=r"my\.toml: not a readable TOML file"):
        read_values([], path)


def test_values_that_python_does_not_read_are_text_and_refused_in_a_file(tmp_path):
    for text in ("1" * 5000, "[" * 5000):
        assert read_values([f"rate={text}"], None) == {"rate": text}
        path = tmp_path / "huge.toml"
        path.write_text(f"rate = {text}\n")
        with pytest.raises(InvalidInput, match=r"huge\.toml: not a readable TOML file"):
            read_values([], path)

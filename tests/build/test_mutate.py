"""The mutants of formulas, and mutmut with them on a package of its own."""

import json
import subprocess
import sys

import libcst as cst
import pytest

from tools import formula_mutants, mutate

SOURCE = '''"""Text with 1 - 2."""
import numpy as np
from functools import cached_property

def link(u: "int | None", c=2.0):
    """Half of 1 - e."""
    if not u < 700:
        raise ValueError("1" + f"{u + 1}")
    return np.tanh(u / c) - 0 * u

class Law:
    @property
    def mass(self):
        return 1 - self.rest

    @cached_property
    def rest(self):
        return 0.25

def untested(x):
    return x + 1
'''
TESTS = """
import pytest
from theory.laws import Law, link

def test_link():
    assert link(0.0) == 0
    assert link(2.0) == pytest.approx(0.7615941559557649)
    assert link(2.0, c=1.0) == pytest.approx(0.9640275800758169)
    with pytest.raises(ValueError):
        link(701.0)

def test_law():
    assert Law().mass == 0.75
"""


def broken(source):
    """Every mutant of an expression or statement, as text."""
    tree = cst.parse_module(source)
    found = []

    class Visitor(cst.CSTVisitor):
        def on_visit(self, node):
            for kind, operator in formula_mutants.OPERATORS:
                if isinstance(node, kind):
                    found.extend(tree.deep_replace(node, new).code for new in operator(node))
            return True

    tree.visit(Visitor())
    return found


@pytest.mark.parametrize(
    ("source", "mutants"),
    [
        ("y = a ** b", ["y = (a * b)"]),
        ("y = a < b <= c", ["y = a >= b <= c", "y = a < b > c"]),
        ("y = a and b", ["y = (a or b)"]),
        ("y = -a", ["y = a"]),
        ("y = not a", ["y = a"]),
        ("y += a", ["y -= a"]),
        ("y *= a", ["y /= a"]),
        ("y = (x - a) * b", ["y = ((x - a) / b)", "y = (x + a) * b"]),
        ("y = np.exp(x)", ["y = np.expm1(x)"]),
        ("y = max(a, b)", ["y = min(a, b)"]),
        ("y = x.max(axis)", ["y = x.min(axis)"]),
        ("y = 1e-9", ["y = 1.000000001"]),
        ("f = lambda u: u - v", ["f = lambda u: -(u - v)", "f = lambda u: (u + v)"]),
        ("def f():\n    return(np.log(x))", [
            "def f():\n    return -(np.log(x))", "def f():\n    return(np.log1p(x))"]),
        ("log1p(x)", []),
        ("'a' + b", []),
        ("y = True", []),
    ],
)  # fmt: skip
def test_a_mutant_changes_one_thing(source, mutants):
    assert sorted(broken(source)) == sorted(mutants)


@pytest.fixture
def tree(tmp_path):
    for folder in ("theory", "tests", "tools"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[tool.mutmut]\nsource_paths = ["theory"]\nprocess_isolation = "forkserver"\n'
    )
    (tmp_path / "theory" / "__init__.py").write_text("")
    (tmp_path / "theory" / "laws.py").write_text(SOURCE)
    (tmp_path / "tests" / "test_laws.py").write_text(TESTS)
    (tmp_path / "tools" / "mutate.toml").write_text(
        '[laws]\nmodules = ["theory/l*.py"]\ntests = ["tests"]\n'
    )
    (tmp_path / "tools" / "equivalent_mutants.toml").write_text(
        '[[mutant]]\nmodule = "theory/laws.py"\nfunction = "link"\nwas = "if not u < 700:"\n'
        'becomes = "if not u < 701:"\nreason = "nobody is between"\n'
    )
    return tmp_path


def campaign(tree):
    command = f"import pathlib, tools.mutate as m; exit(m.main([], pathlib.Path({str(tree)!r})))"
    return subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)


def test_a_campaign_on_a_small_package(tree):
    done = campaign(tree)
    assert done.returncode == 1
    record = json.loads((tree / "results" / "mutation.json").read_text())
    counts = record["modules"]["theory/laws.py"]
    assert [s["becomes"] for s in counts.pop("survivors")] == [
        "return (np.tanh(u / c) + 0 * u)", "return -(x + 1)", "return (x - 1)", "return x + 2",
    ], done.stdout + done.stderr  # fmt: skip
    assert {k: counts[k] for k in record["total"]} == record["total"] == {
        "mutants": 17, "tried": 17, "killed": 12, "by timeout": 0, "equivalent": 1, "survived": 4,
        "undecided": 0,
    }  # fmt: skip
    assert (tree / "theory" / "laws.py").read_text() == SOURCE


def test_tests_that_fail_before_anything_is_broken_are_no_kills(tree):
    (tree / "tests" / "test_laws.py").write_text("def test_it():\n    assert 0\n")
    done = campaign(tree)
    assert done.returncode == 2
    assert "mutmut stopped early (see above) in: laws" in done.stdout
    assert json.loads((tree / "results" / "mutation.json").read_text())["total"]["killed"] == 0


def test_a_wrong_table_is_refused(tree):
    table = tree / "tools" / "mutate.toml"
    table.write_text(table.read_text().replace('"tests"', '"tests/absent.py"'))
    with pytest.raises(ValueError, match=r"laws: no tests/absent.py"):
        mutate.groups(tree)


def test_the_committed_table_is_right():
    modules = [m for group in mutate.groups(mutate.ROOT).values() for m in group["modules"]]
    assert len(modules) == len(set(modules)), "each is watched by one group"

"""The mutation tester, on a package of its own."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools.mutants import mutants

from tools import mutate

SOURCE = '''"""Text with 1 - 2."""
import numpy as np

def link(u, c: "int | None" = 2.0):
    """Half of 1 - e."""
    if not u < 700:
        raise ValueError("1" + f"{u + 1}")
    return np.tanh(u / c) - 0 * u

def untested(x):
    return x + 1
'''
TESTS = """
import pytest
from theory.link import link

def test_link():
    assert link(0.0) == 0
    assert link(2.0) == pytest.approx(0.7615941559557649)
    assert link(2.0, c=1.0) == pytest.approx(0.9640275800758169)
    with pytest.raises(ValueError):
        link(701.0)
"""


def test_what_is_mutated_and_what_is_not():
    found = [m.mutation for m in mutants("x.py", SOURCE.encode())]
    assert found == [
        "2.0 -> 3.0",
        "not u < 700 -> u < 700",
        "u < 700 -> u >= 700",
        "700 -> 701",
        "np.tanh(u / c) -> np.sin(u / c)",
        "np.tanh(u / c) - 0 * u -> -(np.tanh(u / c) - 0 * u)",
        "np.tanh(u / c) - 0 * u -> np.tanh(u / c) + 0 * u",
        "u / c -> u * c",
        "0 -> 1",
        "0 * u -> 0 / u",
        "x + 1 -> -(x + 1)",
        "x + 1 -> x - 1",
        "1 -> 2",
    ]


@pytest.mark.parametrize(
    ("source", "mutation", "broken"),
    [
        ("y = a ** b", "a ** b -> a * b", "y = (a * b)"),
        ("y = a < b <= c", "a < b <= c -> a < b > c", "y = (a < b > c)"),
        ("y = a and b", "a and b -> a or b", "y = (a or b)"),
        ("y = -a * b", "-a -> a", "y = (a) * b"),
        ("y += a", "a -> -(a)", "y += (-(a))"),
        ("y *= a", "a -> 1 / (a)", "y *= (1 / (a))"),
        ("y = (x - 1) * 2", "x - 1 -> x + 1", "y = ((x + 1)) * 2"),
        ("y = np.exp(x)", "np.exp(x) -> np.expm1(x)", "y = (np.expm1(x))"),
        ("y = max(a, b)", "max(a, b) -> min(a, b)", "y = (min(a, b))"),
        ("y = x.max(-1)", "x.max(-1) -> x.min(-1)", "y = (x.min(-1))"),
        ("f = lambda u: u - 1", "u - 1 -> -(u - 1)", "f = lambda u: (-(u - 1))"),
        ("y = 'ü' , a - b", "a - b -> a + b", "y = 'ü' , (a + b)"),
        ("y = (a +\n     b)", "a + b -> a - b", "y = ((a - b))"),
        ("y = 1e-9", "1e-09 -> 1.000000001", "y = (1.000000001)"),
    ],
)
def test_a_mutant_changes_one_thing(source, mutation, broken):
    found = {m.mutation.replace("1e-9 ", "1e-09 "): m for m in mutants("x.py", source.encode())}
    assert found[mutation].apply(source.encode()).decode() == broken
    for mutant in found.values():
        assert ast.dump(ast.parse(mutant.apply(source.encode()))) != ast.dump(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    ["log1p(x)", "'a' + b", "f'{a + 1}'", "x: int | None", "@d(1)\ndef f(): pass", "raise E(a + 1)",
     "True", "def f() -> 'a | b': pass"],
)  # fmt: skip
def test_what_is_no_formula_is_left_alone(source):
    assert mutants("x.py", source.encode()) == []


@pytest.fixture
def tree(tmp_path):
    for folder in ("theory", "tests", "tools"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "theory" / "__init__.py").write_text("")
    (tmp_path / "theory" / "link.py").write_text(SOURCE)
    (tmp_path / "tests" / "test_link.py").write_text(TESTS)
    (tmp_path / "tools" / "mutate.toml").write_text(
        'preload = ["numpy", "hypothesis", "pytest"]\n'
        'default = ["tests"]\nskip = ["theory/__init__.py"]\n[tests]\n'
    )
    (tmp_path / "tools" / "equivalent_mutants.toml").write_text(
        '[[mutant]]\nmodule = "theory/link.py"\ntext = "if not u < 700:"\n'
        'mutation = "700 -> 701"\nreason = "nobody is between"\n'
        '[[mutant]]\nmodule = "theory/link.py"\ntext = "gone"\nmutation = "*"\nreason = "old"\n'
    )
    return tmp_path


def test_a_campaign_on_a_small_package(tree, capsys, monkeypatch):
    assert mutate.main(["--jobs", "2"], root=tree) == 1
    record = json.loads((tree / "results" / "mutation.json").read_text())
    assert [s["mutation"] for s in record["survivors"]] == [
        "np.tanh(u / c) - 0 * u -> np.tanh(u / c) + 0 * u",
        "x + 1 -> -(x + 1)",
        "x + 1 -> x - 1",
        "1 -> 2",
    ]
    assert record["total"] == {
        "mutants": 13, "equivalent": 1, "killed": 8, "of_these_by_timeout": 0, "survived": 4,
        "share": 0.6667,
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "stale entry in tools/equivalent_mutants.toml means no mutant" in shown
    assert (tree / "theory" / "link.py").read_text() == SOURCE

    def never(*args):
        raise AssertionError("run again although nothing changed")

    monkeypatch.setattr(mutate.Runner, "run", never)
    assert mutate.main(["--jobs", "1"], root=tree) == 1
    (tree / "tests" / "test_link.py").write_text(TESTS + "\n")
    with pytest.raises(AssertionError, match="run again"):
        mutate.main(["--jobs", "1"], root=tree)


def test_from_the_shell(tree):
    for path in Path(mutate.__file__).parent.glob("*.py"):
        shutil.copy(path, tree / "tools")
    command = [sys.executable, "-m", "tools.mutate", "--max-per-module", "7"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert "theory/link.py: mutants 7" in done.stdout, done.stderr
    record = json.loads((tree / "results" / "mutation.json").read_text())
    assert record["sampled_with_seed"] == 0
    assert record["total"]["killed"] >= 2  # 8 of all 13 are


def test_a_sample_is_the_same_every_time(tree, capsys):
    runs = []
    for _ in range(2):
        mutate.main(["--max-per-module", "3", "--seed", "5", "--list"], root=tree)
        runs.append(capsys.readouterr().out.splitlines())
    assert runs[0] == runs[1]
    assert len(runs[0]) == 3


def test_an_endless_mutant_is_stopped(tree, tmp_path):
    (tree / "tests" / "test_link.py").write_text("import theory.link\ndef test(): pass\n")
    runner = mutate.Runner(mutate.Plan.read(tree), tmp_path, "copy")
    assert runner.run("theory/link.py") == "survived"
    assert runner.run("theory/link.py", b"while True: pass\n", limit=2.0) == "timeout"
    assert (runner.copy / "theory" / "link.py").read_text() == SOURCE


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("def test_it(): assert 0", "fail before anything is broken"),
        ("def test_it(): pass", "they watch something else"),
        ("", "has no tests"),
    ],
)
def test_tests_that_cannot_watch_are_refused(tree, tests, message):
    (tree / "tests" / "test_link.py").write_text(tests)
    with pytest.raises(RuntimeError, match=message):
        mutate.main(["--jobs", "1"], root=tree)


def test_a_wrong_table_is_refused(tree):
    table = tree / "tools" / "mutate.toml"
    table.write_text(table.read_text() + '"theory/link.py" = ["tests/absent.py", "-k", "x"]\n'
                     '"theory/absent.py" = []\n')  # fmt: skip
    with pytest.raises(
        ValueError, match=r"no module theory/absent.py; no test file tests/absent.py"
    ):
        mutate.Plan.read(tree)
    table.write_text(table.read_text().split('"theory/link')[0])
    with pytest.raises(SystemExit):
        mutate.main(["--module", "theory/absent.py"], root=tree)


def test_the_committed_table_is_right():
    plan = mutate.Plan.read(mutate.ROOT)
    assert [module for module in plan.tests if not (mutate.ROOT / module).is_file()] == []
    listed = sorted({entry["module"] for entry in plan.equivalent})
    everything = [
        m for module in listed for m in mutants(module, (mutate.ROOT / module).read_bytes())
    ]
    assert mutate.stale(plan, everything, {}) == []

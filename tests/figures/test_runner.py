"""The figure runner, on figures of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from figures import __main__ as runner
from figures import catalogue as catalogue_module
from figures import style
from figures.catalogue import catalogue

GOOD = """
NAME = "{name}"
CAPTION = "A line " "in two literals."
CLAIMS: tuple[str, ...] = ("T1", "C1")

def table():
    import pandas as pd
    return pd.DataFrame({{"x": [0.0, 1 / 3], "y": [1.0, 2.0]}})

def plot(table):
    from figures import style
    fig, ((ax,),) = style.panel()
    ax.plot(table.x, table.y, **style.line("spif"))
    style.label(ax, "x [nats]", "y [nats]", "A line")
    return fig
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package of two good figures and a bad one, importable by child processes."""
    package = tmp_path / "fakefigures"
    family = package / "theory"
    family.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (family / "__init__.py").write_text("")
    (family / "one.py").write_text(GOOD.format(name="one"))
    (family / "two.py").write_text(GOOD.format(name="two").replace("1 / 3", "1 / 0"))
    (family / "three.py").write_text(GOOD.format(name="three"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(catalogue_module.catalogue, "__defaults__", (package,))
    monkeypatch.setattr(runner, "OUT", tmp_path / "out")
    monkeypatch.setattr(runner.report, "write", lambda: None)
    return package


def test_the_catalogue_reads_without_running(folder):
    entries = catalogue(folder)
    assert [e.name for e in entries] == ["one", "three", "two"]
    assert entries[0].caption == "A line in two literals."
    assert entries[0].claims == ("T1", "C1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('NAME = "two"', "NAME = 'two' + 'x'", "malformed"),
        ('NAME = "two"', "", "NAME must be"),
        ('NAME = "two"', 'NAME = "../two"', "NAME must be"),
        ('NAME = "two"', 'NAME = "one"', "'one' is taken twice"),
        ('"A line " "in two literals."', '""', "CAPTION must be"),
        ('("T1", "C1")', '"T1"', "CLAIMS must be"),
        ('NAME = "two"', 'SIZES = {"seeds": 5}\nNAME = "two"', "SIZES must be"),
        ('"in two literals."', '"over {seeds} seeds."', "CAPTION has .seeds., SIZES has nothing"),
    ],
)
def test_wrong_literals_are_refused_by_name(folder, old, new, message):
    text = (folder / "theory" / "two.py").read_text()
    assert old in text
    (folder / "theory" / "two.py").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        catalogue(folder)


def test_one_failure_does_not_lose_the_others(folder, tmp_path, capfd):
    assert runner.main(["--jobs", "1"]) == 1
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["one.csv", "one.pdf", "one.png", "three.csv", "three.pdf", "three.png"]
    assert pd.read_csv(tmp_path / "out" / "one.csv").x[1] == 0.333333
    assert (tmp_path / "out" / "one.png").read_bytes() == (
        tmp_path / "out" / "three.png"
    ).read_bytes()
    assert (tmp_path / "out" / "one.pdf").read_bytes() == (
        tmp_path / "out" / "three.pdf"
    ).read_bytes()
    shown = capfd.readouterr().err
    assert "ZeroDivisionError" in shown
    assert "1 of 3 figures failed: two" in shown


def test_from_the_shell_the_figures_and_the_report_are_made(folder, tmp_path):
    leave = shutil.ignore_patterns("theory", "toy_games", "llm_scale", "out", "__pycache__")
    shutil.copytree(Path(runner.__file__).parent, tmp_path / "figures", ignore=leave)
    (tmp_path / "figures" / "theory").mkdir()
    shutil.copy(folder / "theory" / "one.py", tmp_path / "figures" / "theory")
    done = subprocess.run([sys.executable, "-m", "figures"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / "out" / "one.png").exists()
    assert "![one](figures/out/one.png)" in (tmp_path / "paper_repro.md").read_text()


def test_only_the_named_figures_are_made(folder, tmp_path):
    assert runner.main(["one"]) == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"one"}


def test_an_unknown_name_is_an_error_that_lists_the_names(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        runner.main(["one", "absent"])
    assert stop.value.code == 2
    assert "no figure absent; there are: one, three, two" in capsys.readouterr().err


def test_the_committed_pictures_are_those_of_the_figures():
    for suffix in (".csv", ".png"):
        there = {path.stem for path in runner.OUT.glob(f"*{suffix}")}
        assert there == {entry.name for entry in catalogue()}, "run python -m figures"


def test_an_objective_keeps_its_line():
    lines = [tuple(sorted(style.line(name).items(), key=str)) for name in style._LINES]
    assert len(set(lines)) == len(lines)
    assert style.line("spif (c=2, alpha=0.5)") == style.line("SPIF")
    assert style.line("centred-spif") == style.line("centred_spif")
    assert style.line("somebody's own") == style.line("somebody's own")
    assert style.colour("spin") == style.RED

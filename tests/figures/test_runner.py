"""The figure runner and the catalogue, on figures of their own."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from figures import __main__ as runner
from figures import catalogue as catalogue_module
from figures import style
from figures.catalogue import OUT, catalogue, modules
from figures.runner import make

GOOD = """
CAPTION = "A line " "in two literals."
CLAIMS = ("T1", "C1")

def table():
    import pandas as pd
    names = {"panel": "a", "objective": "spif", "series": "", "kind": "theory"}
    return pd.DataFrame({**names, "x": [0.0, 1 / 3], "y": [1.0, 2.0]})

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
    package = tmp_path / f"fake{tmp_path.name}"
    family = package / "theory"
    family.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (family / "__init__.py").write_text("")
    (family / "one.py").write_text(GOOD)
    (family / "two.py").write_text(GOOD.replace("1 / 3", "1 / 0"))
    (family / "three.py").write_text(GOOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(catalogue_module.modules, "__defaults__", (package,))
    monkeypatch.setattr(runner, "OUT", tmp_path / "out")
    monkeypatch.setattr(runner.build, "write", lambda: None)
    return package


def change(folder, old, new, name="two"):
    path = folder / "theory" / f"{name}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_the_catalogue_knows_captions_and_claims(folder):
    entries = catalogue(folder)
    assert [e.name for e in entries] == ["one", "three", "two"]
    assert entries[0].caption == "A line in two literals."
    assert entries[0].claims == ("T1", "C1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"A line " "in two literals."', '""', r"theory.two: CAPTION must be a text, not ''"),
        ('("T1", "C1")', '"T1"', "theory.two: CLAIMS must be a tuple of claim ids, not 'T1'"),
        ("CLAIMS", "CLAIMED", "CLAIMS must be a tuple of claim ids, not None"),
    ],
)
def test_a_figure_without_caption_or_claims_is_refused_by_name(folder, old, new, message):
    change(folder, old, new)
    with pytest.raises(ValueError, match=message):
        catalogue(folder)


def test_a_name_taken_twice_is_refused(folder):
    shutil.copytree(folder / "theory", folder / "toy_games")
    with pytest.raises(ValueError, match="taken twice"):
        modules(folder)


def test_one_failure_does_not_lose_the_others(folder, tmp_path, capfd):
    change(folder, "CAPTION", "raise LookupError('at import')\nCAPTION", "three")
    assert runner.main(["one", "two", "three", "--jobs", "1"]) == 1
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["one.csv", "one.pdf", "one.png"]
    assert pd.read_csv(tmp_path / "out" / "one.csv").x[1] == 0.333333
    said = capfd.readouterr().err
    assert "ZeroDivisionError" in said
    assert "LookupError: at import" in said
    assert "[3/3] " in said
    assert "2 of 3 figures failed: " in said


def test_a_table_that_agrees_is_left_as_it_is_and_drawn(folder, tmp_path, monkeypatch):
    module, out = modules(folder)["one"], tmp_path / "out"
    figure = importlib.import_module(module)
    table = figure.table()

    def made(y, **how):
        monkeypatch.setattr(figure, "table", lambda: table.assign(y=y))
        said = make(module, out, **how).partition(" s, ")[2]
        return said, {path.suffix: path.read_bytes() for path in out.iterdir()}

    said, first = made([1.0, 2.0])
    assert said == "new table"
    assert made([1.0, 2.0 + 1e-5]) == ("table as recorded", first)
    assert made([1.0, 2.1], compute=False) == ("table as recorded", first)
    said, second = made([1.0, 2.1])
    assert said == "1 of 2 rows differ, most a, spif, theory: 2.1, was 2"
    assert all(second[suffix] != first[suffix] for suffix in (".csv", ".png", ".pdf"))


def test_from_the_shell_the_figures_and_the_report_are_made(folder, tmp_path):
    """On a copy of the package and the records, with a figure more."""
    leave = shutil.ignore_patterns("out", "__pycache__")
    home = Path(runner.__file__).parent
    shutil.copytree(home, tmp_path / "figures", ignore=leave)
    shutil.copytree(home.parent / "results", tmp_path / "results")
    shutil.copy(home.parent / "README.md", tmp_path)
    (tmp_path / "figures" / "out").mkdir()
    shutil.copy(OUT / "audit.csv", tmp_path / "figures" / "out")
    shutil.copy(folder / "theory" / "one.py", tmp_path / "figures" / "theory")
    command = [sys.executable, "-m", "figures", "one"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"[1/1] one: " in done.stderr
    made = {path.name for path in (tmp_path / "figures" / "out").iterdir()}
    assert made == {"audit.csv", "one.csv", "one.pdf", "one.png"}
    assert "## The six claims" in (tmp_path / "paper_repro.md").read_text()
    page = (tmp_path / "results" / "evidence" / "T1.md").read_text()
    assert "![one](../../figures/out/one.png)" in page


def test_an_unknown_name_is_an_error_that_lists_the_names(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        runner.main(["one", "absent"])
    assert stop.value.code == 2
    assert "no figure absent; there are: one, three, two" in capsys.readouterr().err


def test_the_committed_pictures_are_those_of_the_figures():
    for suffix in (".csv", ".png"):
        there = {path.stem for path in OUT.glob(f"*{suffix}")}
        assert there == set(modules()), "run python -m figures"


def test_captions_say_what_is_drawn_and_judge_nothing():
    words = {"holds", "fails", "refuted", "refutes", "proves", "confirmed", "better", "worse"}
    for entry in catalogue():
        found = {word.strip(".,:;()").lower() for word in entry.caption.split()} & words
        assert not found, f"{entry.name}: {', '.join(found)}"


def test_the_large_versions_are_settings_of_their_experiments_and_said_in_the_captions():
    """Every Settings checks itself when the module is imported."""
    code = "from figures.catalogue import catalogue; [print(e.caption) for e in catalogue()]"
    env = {**os.environ, "FULL": "1"}
    large = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    usual = "\n".join(entry.caption for entry in catalogue())
    for small, full in (("over 6 seeds", "over 20 seeds"), ("177,156", "813,616")):
        assert small in usual
        assert full in large.stdout


def test_an_objective_keeps_its_line():
    lines = [tuple(sorted(style.line(name).items(), key=str)) for name in style._LINES]
    assert len(set(lines)) == len(lines)
    assert style.line("spif (c=2, alpha=0.5)") == style.line("SPIF")
    assert style.line("centred-spif") == style.line("centred_spif")
    assert style.line("somebody's own") == style.line("somebody's own")
    assert style.colour("spin") == style.RED

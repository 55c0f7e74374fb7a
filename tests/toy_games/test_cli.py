"""The command line of the experiments, in process: what it prints, keeps, resumes and refuses."""

import json
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.toy_games import demo
from theory.errors import InvalidInput
from toy_games import launch
from toy_games.__main__ import app


@pytest.fixture(autouse=True)
def _with_the_demo(monkeypatch):
    monkeypatch.setattr(launch, "NAMES", (*launch.NAMES, "demo"))
    monkeypatch.setitem(sys.modules, "toy_games.experiments.demo", demo)


def call(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def test_settings_are_explained_with_their_defaults():
    said = call("list", "demo").output
    for part in ("Self-play on one random expert.", "rate: learning rate, SFT units", "0.3"):
        assert part in said


def test_every_experiment_says_what_it_is_and_what_its_settings_do():
    said = call("list").output
    for name in launch.NAMES:
        module = launch.load(name)
        assert name in said
        assert module.SUMMARY.endswith(".")
        for field in module.Settings.__dataclass_fields__.values():
            assert field.metadata["help"]
        cells = module.cells(module.Settings())
        assert len({cell.key for cell in cells}) == len(cells) > 0  # each can be kept in a folder


def test_without_a_folder_the_table_is_printed():
    result = call("run", "demo", "--set", "steps=10", "--set", "objectives=spif(c=2)")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("objective,seed,beta")
    assert len(lines) == 1 + 2 * 6 * 2
    assert "spif(c=2)" in lines[1]


def test_a_folder_keeps_table_and_settings_and_the_same_command_resumes(tmp_path):
    out, config = tmp_path / "run", tmp_path / "my.toml"
    config.write_text('seeds = 4\nobjectives = ["ipo"]\nsteps = 10\n')
    command = ("run", "demo", "--config", config, "--set", "steps=20", "--out", out)
    call(*command)
    record = json.loads((out / "settings.json").read_text())
    assert record["settings"] == {"objectives": ["ipo"], "seeds": 4, "steps": 20, "rate": 0.3}
    assert set(record["versions"]) >= {"python", "numpy", "torch"}
    before = (out / "table.csv").read_bytes()
    assert len(pd.read_csv(out / "table.csv")) == 2 * 8 * 3
    (out / "table.csv").unlink()
    call(*command)
    assert (out / "table.csv").read_bytes() == before
    assert "other settings" in call("run", "demo", "--out", out, code=2).stderr
    assert (out / "table.csv").read_bytes() == before


def test_your_own_objective_is_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from theory import xp\nfrom theory.objectives import Pairwise, register\n\n\n"
        '@register("mine")\nclass Mine(Pairwise):\n    k: float = 1.0\n\n'
        "    def pair_loss(self, d):\n        return xp.softplus(-self.k * d)\n"
    )
    result = call("run", "demo", "--set", "steps=10", "--set", f"objectives={path}:mine(k=2)")
    assert ":mine(k=2)" in result.stdout


WRONG = [
    (("run", "nothing"), "unknown experiment 'nothing'"),
    (("list", "nothing"), "unknown experiment"),
    (("run", "demo", "--set", "sedes=3"), "unknown setting 'sedes'; there are objectives, seeds"),
    (("run", "demo", "--set", "steps"), "'steps'; needed is key=value"),
    (("run", "demo", "--set", "seeds=0"), "seeds=0; needed is >= 1"),
    (("run", "demo", "--set", "seeds=2.5"), "seeds=2.5; needed is a whole number"),
    (("run", "demo", "--set", "seeds=true"), "seeds=True; needed is a whole number"),
    (("run", "demo", "--set", "rate=fast"), "rate='fast'; needed is a number"),
    (("run", "demo", "--set", "objectives=centred_spfi"), "Did you mean 'centred_spif'"),
    (("run", "demo", "--set", "objectives=spif(c=-1)"), "needed is a number > 0"),
    (("run", "demo", "--set", "objectives=spif(c=x)"), "needed is parameter=number"),
    (("run", "demo", "--set", "objectives=spif(c=1"), "needed is NAME, NAME(parameter=value)"),
    (("run", "demo", "--set", "objectives=spif("), "needed is NAME, NAME(parameter=value)"),
    (("run", "demo", "--set", 'objectives=["ipo", "ipo"]'), "each value may be named once"),
    (("run", "finite_samples", "--set", "objectives=gail"), "gail cannot be trained here"),
    (("run", "finite_samples", "--set", "first_seed=-1"), "first_seed=-1; needed is >= 0"),
    (("run", "dumping", "--set", "objectives=sppo"), "sppo cannot be trained here: it has no"),
    (("run", "dumping", "--set", "text_objectives=spin_hinge"), "hence no effective step"),
    (("run", "misspecification", "--set", "objectives=tspin"), "hence no effective step"),
    (("run", "misspecification", "--set", "explicit=ipm"), "ipm has no effective step"),
    (("run", "stability", "--set", "objectives=ipm"), "hence no effective step"),
    (("run", "stability", "--set", "label_noise=[0.0, nan]"), "needed is a finite number"),
    (("run", "preferences", "--set", "unanchored=ipm"), "ipm has no local gain"),
    (("run", "demo", "--set", "objectives=no.py:mine"), "no.py: no such file"),
    (("run", "demo", "--set", "objectives=[]"), "needed is a list of texts"),
    (("run", "demo", "--config", "absent.toml"), "absent.toml: not a readable TOML file"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda v: str(v)[-30:])
def test_what_cannot_be_run_is_said_in_one_clear_line(tmp_path, arguments, message):
    extra = ("--out", tmp_path / "out") if arguments[0] == "run" else ()
    result = call(*arguments, *extra, code=2)
    assert "error: " in result.stderr
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists(), "nothing is written before the input is accepted"


def test_steps_that_diverge_are_said_in_one_line():
    arguments = ("--set", "parts=round", "--set", "objectives=spin", "--set", "classes=tokens")
    result = call("run", "sgd", *arguments, "--set", "rate=1e300", "--set", "steps=20", code=1)
    assert "a smaller rate or effective step may help" in " ".join(result.stderr.split())


def test_all_problems_come_at_once(tmp_path):
    stderr = call("run", "demo", "--set", "seeds=0", "--set", "rate=-1.0", code=2).stderr
    assert stderr.count("error: ") == 2


def test_damaged_records_are_named(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"settings\.json: not a readable record"):
        launch.run("demo", folder=tmp_path, progress=False)


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "table.csv").write_text("my,results\n")
    said = call("run", "demo", "--out", tmp_path, code=2).stderr
    assert "not a run's folder, and not empty (table.csv); choose another --out" in said
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("table.csv", "my,results\n")]


@pytest.mark.parametrize("inner", ["", "/run"])
def test_a_file_is_no_folder(tmp_path, inner):
    (tmp_path / "file").write_text("x")
    said = call("run", "demo", "--out", f"{tmp_path / 'file'}{inner}", code=2).stderr
    assert "a file; needed is a folder, or a path for a new one" in said


def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "one", None)  # that would be work
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    said = call("run", "demo", "--out", tmp_path / "run", code=2).stderr
    assert f"no permission to write in {tmp_path}" in said


def test_a_full_disk_is_one_line_and_the_finished_parts_stay(tmp_path, monkeypatch):
    real = launch.write_whole

    def full(path, content):
        if path.name == "table.csv":
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(launch, "write_whole", full)
    command = ("run", "demo", "--set", "steps=10", "--out", tmp_path / "run")
    assert "error: [Errno 28] No space left on device\n" in call(*command, code=1).stderr
    monkeypatch.setattr(launch, "write_whole", real)
    monkeypatch.setattr(demo, "batch", None)  # nothing is computed again
    call(*command)
    assert (tmp_path / "run" / "table.csv").exists()

"""A report holds every round of every run, and intervals only where seeds allow them."""

import json

import numpy as np
import pytest
from scipy import stats

from lab.stats import interval
from llm_scale.report import groups as grouping
from llm_scale.report import write as report
from llm_scale.settings import Settings
from llm_scale.store import read
from tests.llm_scale.launch.refusals import contents
from theory.errors import InvalidInput

ROUNDS = 3


def make_run(folder, objective="spin", seed=0, kl=(1.0, 0.5, 0.8), state="finished", **settings):
    """A run's files as the trainer writes them, with chosen numbers."""
    folder.mkdir(parents=True)
    values = {f: getattr(Settings(), f) for f in Settings.__dataclass_fields__}
    values |= {"objective": objective, "seed": seed, **settings}
    (folder / "settings.json").write_text(json.dumps({"settings": values, "versions": {}}))
    rows = []
    for t, value in enumerate(kl):
        rows += [{"at": f"round {t}", "step": k, "loss": 0.7 / (k + 1), "gradient_norm": 1.0}
                 for k in range(4)]  # fmt: skip
        row = {"round": t, "kl": value, "kl_before": 2.0, "nll": value + 1, "tokens_expert": 4.0}
        if objective != "sft":
            row |= {"link_slope": 0.9, "prediction": "two-step link", "tokens_own": 6.0}
        rows.append(row)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    if state == "finished":
        (folder / "final").mkdir()
        (folder / "final" / "config.json").write_text("{}")
    if state == "stopped":
        (folder / "failure.json").write_text(
            '{"round": 1, "step": 2, "what": "loss", "value": "nan"}'
        )
    (folder / "rounds").mkdir()
    columns = "prompt,side,log_expert,log_opponent,log_before,log_after,u,reward,link,predicted"
    points = ["0,expert,-1,-2,-2,-1.5,1,0.5,1,1", "0,own,-3,-2,-2,-2.5,-1,-0.5,-1,",
              "0,other,,-9,-9,-9.5,,-0.5,,"]  # fmt: skip
    for t in range(len(kl)):
        path = folder / "rounds" / f"round-{t:03d}.csv"
        path.write_text("\n".join([columns, *points]) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    for seed, kl in enumerate([(1.0, 0.5, 0.8), (1.1, 0.6, 0.7), (0.9, 0.4, 0.9)]):
        make_run(tmp_path / f"spin-{seed}", seed=seed, kl=kl)
    make_run(tmp_path / "sft", objective="sft", kl=(0.7, 0.6, 0.5))
    return tmp_path


def table(text, title):
    """Rows of one table as dictionaries."""
    lines = text.split(f"## {title}")[1].split("##")[0].strip().splitlines()[2:]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if "|" in line]
    head, body = cells[0], cells[2:]
    return [dict(zip(head, row, strict=True)) for row in body]


def test_every_round_is_there_with_its_interval(runs, tmp_path):
    files = report.write([runs], tmp_path / "out")
    plots = {f"{name}.{kind}" for name in ("rounds", "link", "training") for kind in ("png", "pdf")}
    assert {f.name for f in files} == {"report.md"} | plots
    first = {".png": b"\x89PNG", ".pdf": b"%PDF", ".md": b"# Ru"}
    assert all(f.read_bytes()[:4] == first[f.suffix] for f in files)
    rows = table(files[0].read_text(), "Quality")
    assert [(r["group"], r["round"], r["seeds"]) for r in rows] == [
        (name, str(t), n) for name, n in (("sft", "1"), ("spin", "3")) for t in range(ROUNDS)
    ]
    shown = [r["KL(p‖π), nats"] for r in rows if r["group"] == "spin"]
    assert [s.split()[0] for s in shown] == ["1", "0.5", "0.8"], "all rounds, the last not the best"
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert float(shown[0].split()[2]) == pytest.approx(half, rel=0.05)
    assert "±" not in rows[0]["KL(p‖π), nats"], "one seed has no interval"


def test_an_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for sample in rng.normal(2.0, 3.0, size=(2000, 4)):
        mean, half = interval(sample)
        hits += abs(mean - 2.0) <= half
    assert hits / 2000 == pytest.approx(0.95, abs=0.02)
    assert np.isnan(interval([1.0, 2.0])[1])


def test_what_is_missing_is_said(runs, tmp_path):
    make_run(tmp_path / "alone" / "a", seed=7)
    text = report.write([tmp_path / "alone"], tmp_path / "o")[0].read_text()
    assert "no SFT baseline" in text
    assert "Fewer seeds, so no interval: spin" in text
    text = report.write([runs], tmp_path / "p")[0].read_text()
    assert "**spin** against **sft**" in text
    assert text.index("| sft |") < text.index("| spin |")


def test_groups_differ_by_settings_and_not_by_seed_or_machine(tmp_path):
    make_run(tmp_path / "a", seed=0)
    make_run(tmp_path / "b", seed=1, generate_batch=8)
    make_run(tmp_path / "c", seed=0, beta=0.5)
    make_run(tmp_path / "d", objective="sft", seed=0, beta=0.5)
    make_run(tmp_path / "e", objective="sft", seed=1)
    groups = grouping.grouped(read.found([tmp_path]))
    assert [(g.name, len(g.runs)) for g in groups] == [
        ("sft", 2), ("spin, beta=1.0", 2), ("spin, beta=0.5", 1)
    ]  # fmt: skip


def test_a_run_that_stopped_stays_in(tmp_path):
    make_run(tmp_path / "good", seed=0)
    make_run(tmp_path / "bad", seed=1, kl=(1.0,), state="stopped")
    make_run(tmp_path / "nothing", seed=2, kl=(), state="unfinished")
    text = report.write([tmp_path], tmp_path / "out")[0].read_text()
    assert "stopped: loss nan in round 1, step 2" in text
    assert "1 unfinished" in text
    assert [r["seeds"] for r in table(text, "Quality")] == ["2", "1", "1"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda runs: runs / "nowhere", "neither a run nor a folder with runs"),
        (lambda runs: (runs / "spin-0" / "metrics.jsonl").write_text("{\n"), "metrics.jsonl:1"),
        (lambda runs: (runs / "spin-0" / "settings.json").write_text("[]"), "not the record"),
        (lambda runs: make_run(runs / "copy", kl=(1.0,)), "a seed is there twice"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path, spoil, said):
    found = spoil(runs)
    path = found if found == runs / "nowhere" else runs
    with pytest.raises(InvalidInput, match=said):
        report.write([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_report_of_other_runs_stays_and_one_of_the_same_or_of_more_is_written_again(tmp_path):
    for name, kl in (("a--> b", (1.0,)), ("b", (0.7,))):
        make_run(tmp_path / "runs" / name, seed=len(name), kl=kl)
    one, two, out = tmp_path / "runs" / "a--> b", tmp_path / "runs" / "b", tmp_path / "out"
    first = report.write([one], out)[0].read_text()
    assert first.count("-->") == 1
    before = contents(out)
    with pytest.raises(InvalidInput, match=r"report.md: the report of other runs \(../runs/a--> b"):
        report.write([two], out)
    assert contents(out) == before
    assert report.write([one], out)[0].read_text() == first
    assert report.write([tmp_path / "runs"], out)[0].read_text() != first
    with pytest.raises(InvalidInput, match="the report of other runs"):
        report.write([one], out)
    report.write([one], out, replace=True)
    (out / "report.md").write_text("mine\n")
    with pytest.raises(InvalidInput, match=r"report.md: there already, not saying of which runs"):
        report.write([one], out)


def test_runs_without_a_round_are_refused(tmp_path):
    make_run(tmp_path / "early", kl=())
    with pytest.raises(InvalidInput, match="no run has finished a round"):
        report.write([tmp_path / "early"], tmp_path / "out")


def test_points_are_read_with_unknown_values(runs):
    points = read.points(read.read(runs / "spin-0"), 0)
    assert points["side"].tolist() == ["expert", "own", "other"]
    np.testing.assert_array_equal(points["link"], [1.0, -1.0, np.nan])
    assert read.points(read.read(runs / "spin-0"), 99) == {}


def test_baselines_of_equal_compute_are_one_group_whatever_their_steps(tmp_path):
    """Each seed's responses ask for another number of steps; they are the seeds of one group."""
    for seed, steps in enumerate((19, 19, 18)):
        make_run(tmp_path / f"spin-{seed}", seed=seed, steps_per_round=8)
        make_run(tmp_path / f"sft-{seed}" / "equal-data", objective="sft", seed=seed,
                 steps_per_round=8)  # fmt: skip
        make_run(tmp_path / f"sft-{seed}" / "equal-compute", objective="sft", seed=seed,
                 steps_per_round=steps)  # fmt: skip
    found = {g.name: len(g.runs) for g in grouping.grouped(read.found([tmp_path]))}
    names = ("sft, steps_per_round=8", "sft, steps_per_round=equal compute")
    assert found == dict.fromkeys((*names, "spin, steps_per_round=8"), 3)
    other = tmp_path / "other" / "equal-compute"  # of another run with the same seed
    make_run(other, objective="sft", seed=0, steps_per_round=31)
    found = {g.name: len(g.runs) for g in grouping.grouped(read.found([tmp_path]))}
    assert found["sft, steps_per_round=31"] == 1
    assert found["sft, steps_per_round=19"] == 2

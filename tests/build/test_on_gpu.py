"""The prepared script of a GPU machine, rehearsed at tiny sizes where packages are missing."""

import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from llm_scale.models.score import Scorer, score
from tests.without import ABSENT, without
from tools import on_gpu
from tools.gpu import arms, clock, packages, peer
from tools.gpu.bench import FULL, TOY, Bench, random_model
from tools.gpu.ours import STILL
from tools.gpu.parts import Part, run_parts
from tools.gpu.record import ROWS, STATES, SUMMARY, Record

ROOT = Path(__file__).parents[2]
HIDDEN = without(*ABSENT, "array_api_compat", "benchmarks", "tests")
BLOCKED = f"""{HIDDEN}
import functools
import runpy
import tools.gpu
from theory.tokens import text
text.load_pairs = functools.cache(text.load_pairs)  # the shipped text, for each of 20 tiny runs
sys.argv = ["on_gpu", *sys.argv[1:]]
runpy.run_module("tools.on_gpu", run_name="__main__", alter_sys=True)
"""


def rows_in(out):
    return [json.loads(line) for line in (out / ROWS).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu") / "out"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "--toy", "--out", str(out), "--minutes", "5"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, rows_in(out), (out / SUMMARY).read_text(encoding="utf-8")


def of(rows, part, beginning=""):
    return [r for r in rows if r["part"] == part and r["what"].startswith(beginning)]


def test_every_part_left_finite_numbers(rehearsed):
    said, rows, text = rehearsed
    wanted = {"where", "rates", "precision", "resume", "speed", "decoding", "arms"}
    assert {row["part"] for row in rows} == wanted
    stopped = [row for row in rows if set(row) & set(STATES)]
    assert [row["what"] for row in stopped] == ["TRL"]
    for part in wanted - {"where"}:
        numbers = [v for row in of(rows, part) for v in row.values() if isinstance(v, float)]
        assert numbers, part
        assert all(map(math.isfinite, numbers)), "a number that is not finite would be null"
        assert f"## {part}" in text
        assert f"{part}: " in said
    assert None not in [value for row in rows for value in row.values()]


def test_the_precisions_are_compared(rehearsed):
    rows = rehearsed[1]
    for name in ("random shape", "given model"):
        (gap,) = of(rows, "precision", f"bfloat16 against float32, {name}")
        assert 0 < gap["rms_token"] <= gap["largest_token"] < 0.1
        assert gap["largest_token"] <= gap["largest_response"] * gap["tokens"]
        narrow, wide = (
            of(rows, "precision", f"sampler against scorer, {dtype}, {name}")[0]
            for dtype in ("bfloat16", "float32")
        )
        assert 0 < wide["sampler_gap"] < 1e-4 < 10 * narrow["sampler_gap"]


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(rehearsed):
    whole, broken = of(rehearsed[1], "resume")
    for row in (whole, broken):  # on the CPU bit by bit
        assert row["largest_weight_gap"] == row["largest_loss_gap"] == 0
        assert row["losses"] == 3 * TOY.small_steps
    assert f"step {TOY.small_steps // 2}" in broken["resumed"], "from the middle of the round"


def test_both_sides_of_a_round_did_the_same_work(rehearsed):
    rows = rehearsed[1]
    for name in ("random shape", "given model"):
        for what in ("generation", "scoring and training", "whole round"):
            (row,) = of(rows, "speed", f"{what}, {name}")
            assert row["value"] == pytest.approx(row["peer_s"] / row["ours_s"], rel=1e-4)
            if name == "random shape" or what == "scoring and training":
                assert row["ours_tokens"] == row["peer_tokens"] > 0
        (row,) = of(rows, "speed", f"scoring and training, {name}")
        assert row["first_loss_gap"] < 1e-6, "ln 2 of both"
    (drawn,) = of(rows, "speed", "generation, random shape")
    assert drawn["ours_tokens"] == TOY.prompts * TOY.horizon
    for side, row in ((s, of(rows, "speed", f"{s}, random shape")[0]) for s in ("ours", "peer")):
        parts = sum(row[f"{part}_s"] for part in ("generation", "scoring", "training"))
        assert parts <= row["round_s"] < parts + 1.0, side
    (whole,) = of(rows, "speed", "whole round, random shape")
    assert whole["aim"] == 3.0
    for row in of(rows, "speed", "use of the card"):
        counted = 6 * row["weights"] * row["tokens"] / row["seconds"] / 790e12
        assert row["value"] == pytest.approx(counted, rel=1e-3)
        assert 0 < row["of_peak_strict"] < row["value"], "prompts do not reach the output layer"
    assert len(of(rows, "speed", "peak memory")) == len(of(rows, "speed", "use of the card")) == 2


def test_decoding_has_a_row_for_every_number_of_responses(rehearsed):
    rows = of(rehearsed[1], "decoding")
    assert [row["what"] for row in rows] == [f"{n} at a time" for n in TOY.decoded]
    for row, count in zip(rows, TOY.decoded, strict=True):
        assert row["tokens"] == count * TOY.decode_steps
        bound = row["read_gb"] / row["bandwidth_gb_per_s"] / (row["step_ms"] / 1e3)
        assert row["value"] == pytest.approx(bound, rel=1e-3)


def test_all_arms_began_with_one_model_and_say_every_round(rehearsed):
    rows = of(rehearsed[1], "arms")
    assert [(row["task"], row["arm"]) for row in rows] == list(
        itertools.product(arms.TASKS, arms.ARMS)
    )
    assert {row["round"] for row in rows} == {0}
    assert len({(row["task"], row["nll_before"]) for row in rows}) == len(arms.TASKS)
    assert {row["task"] for row in rows if "match_greedy" in row} == {arms.CHECKED}
    betas = {row["arm"]: row["beta"] for row in rows}
    assert betas["spin"] == 2 * betas["spif"] == 1.0, "effective step 1: beta is R'(0)"
    assert betas["author's code"] == 0.1


# -- what goes wrong -----------------------------------------------------------------------------


def test_without_time_all_parts_are_skipped_and_say_so(tmp_path, capsys):
    assert on_gpu.main(["--toy", "--minutes", "0", "--out", str(tmp_path / "out")]) == 0
    rows = rows_in(tmp_path / "out")
    bench = Bench(TOY, Record(tmp_path / "other"), tmp_path, None, "cpu", True)
    assert [row["part"] for row in rows] == [part.name for part in on_gpu.parts(bench)]
    assert all("0.0 s of the time are left" in row["skipped"] for row in rows)
    assert (tmp_path / "out" / SUMMARY).read_text().count("skipped: 0.0 s") == len(rows)
    with pytest.raises(SystemExit):
        on_gpu.main(["--toy", "--minutes", "0", "--out", str(tmp_path / "out")])
    assert "holds results already" in capsys.readouterr().err


def test_a_part_that_fails_or_is_late_does_not_stop_the_others(tmp_path):
    record = Record(tmp_path)

    def broken(_end):
        raise ValueError("no such thing")

    def late(end):
        record.write("late", "before", value=1.5)
        while time.monotonic() < end + 5.0:
            try:
                sum(range(1000))
            except Exception:  # must not hold the end of the time
                continue

    def well(_end):
        record.write("well", "number", value=float("nan"))

    def part(name, until, work):
        return Part(name, until, 0.01, work)

    parts = [part("broken", 0.5, broken), part("late", 0.6, late), part("well", 1.0, well)]
    run_parts(parts, record, 1.0)
    first, before, cut, last = rows_in(tmp_path)
    assert first["error"].startswith("ValueError: no such thing [broken (test_on_gpu.py:")
    assert before["value"] == 1.5
    assert "were over" in cut["cut"]
    assert last["value"] is None
    assert "| number | value None |  |" in (tmp_path / SUMMARY).read_text()


def test_without_a_trained_model_its_parts_say_what_is_missing(tmp_path):
    bench = Bench(TOY, Record(tmp_path), tmp_path, None, "cpu")
    for part in on_gpu.parts(bench):
        if part.name in ("precision of the model", "speed of the model", "arms"):
            part.work(time.monotonic() + 10.0)
    rows = rows_in(tmp_path)
    assert len(rows) == 3
    assert all(row["skipped"].startswith("no trained model") for row in rows)
    assert "random weights does not stand" in rows[-1]["skipped"]


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"no config\.json"):
        on_gpu.chosen_model(tmp_path)


# -- the pieces ----------------------------------------------------------------------------------


def test_the_shape_is_that_of_smollm2():
    with torch.device("meta"):
        language = random_model(FULL, torch.device("meta"))
    assert sum(p.numel() for p in language.model.parameters()) == 134_515_008


def test_the_peer_s_log_probabilities_are_ours():
    language = random_model(TOY, torch.device("cpu"))
    pairs = [((1, 2, 3), (4, 5)), ((7,), (8, 9, 10, 11)), ((5, 6), (3,))]
    with torch.no_grad():
        theirs = peer.log_probs(language.model, *peer.padded(pairs))
    ours = score(Scorer(language.model), pairs, 1024)
    assert torch.allclose(theirs, ours, atol=1e-4)
    assert STILL < 1e-9


def test_time_is_limited_in_the_main_thread_and_the_signal_is_given_back():
    began = time.monotonic()
    with pytest.raises(clock.OutOfTime), clock.limit(0.05):
        time.sleep(5.0)
    assert time.monotonic() < began + 4.0
    with clock.limit(0.05):
        pass
    time.sleep(0.1)  # nothing comes later
    assert 0.0 <= clock.age() <= clock.LONGEST_START


def test_without_a_copy_of_array_api_compat_it_says_what_to_bring(monkeypatch):
    for name in (packages.COMPAT, *packages.COPIES):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="bring its wheel"):
        packages.find_compat()

"""Objectives that nobody here wrote: a run and its report give them what a built-in of their form
gets."""

from pathlib import Path

import numpy as np
import pytest

from lab.specs import objective_of
from llm_scale.measure import telemetry
from llm_scale.measure.predicted import ONE_STEP, TWO_STEP, RewardTerms, as_trained
from llm_scale.measure.telemetry import Measured
from tests.llm_scale.commands import call, metrics
from theory import laws

FILES = Path(__file__).parents[1] / "strangers"
SMALL = ("--device=cpu", "--prompts=48", "--held-out=24", "--batch=8", "--rounds=1",
         "--steps-per-round=4", "--sft-steps=4", "--own-samples=2")  # fmt: skip
LIKE = {"huber": "ipo", "rooted": "spif", "softmargin": "centred_spif"}
"""A stranger, and the built-in objective of its form."""
BOUNDS = {"reward_low", "reward_high", "reward_range_bound"}
"""Known of a link that is a function of u; one that depends on the laws has none that hold for all
of them."""


def spec(name):
    return f"{FILES / name}.py:{name}"


def rows(out, objective, *more):
    call("train", "--out", out, *SMALL, f"--objective={objective}", *more)
    return [row for row in metrics(out) if "round" in row]


@pytest.fixture(scope="module", params=["sequence", "token"])
def runs(request, tmp_path_factory):
    """Folder and last rows of a run of every stranger and every built-in."""
    out, more = tmp_path_factory.mktemp("strangers"), f"--level={request.param}"
    specs = {name: spec(name) for name in LIKE} | {name: name for name in LIKE.values()}
    return out, {name: rows(out / name, s, more)[0] for name, s in specs.items()}


def test_a_run_measures_a_stranger_as_a_built_in(runs):
    for name, built_in in LIKE.items():
        own = runs[1][name]
        assert own.keys() | BOUNDS == runs[1][built_in].keys() | BOUNDS, name
        assert all(np.isfinite(v) for v in own.values() if isinstance(v, float)), name


def test_a_report_shows_a_stranger_beside_built_ins(runs, tmp_path):
    out, last = runs
    call("report", out, "--out", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    theory = text.split("## Theory")[1].splitlines()
    for name, row in last.items():
        (line,) = (x for x in theory if x.startswith((f"| {name} |", f"| {spec(name)} |")))
        assert f"{row['margin']:.3g}" in line
        if "link_slope" in row:
            assert f"{row['link_slope']:.3g}" in line


@pytest.mark.parametrize("name", LIKE)
def test_a_policy_that_obeys_the_theory_of_a_stranger_is_seen_to(name):
    """The round of its own best response has slope 1 on the prediction, whatever its link."""
    rng, game = np.random.default_rng(3), RewardTerms(objective_of(spec(name)), 1.5, own_samples=2)
    p, q = (laws.random_law(rng, (4, 12), 1.0) for _ in range(2))
    found = as_trained(p, q, game)
    reward = game.objective.reward(p, q) if found is None else found.reward
    after = q * np.exp(reward / game.beta)
    after /= after.sum(-1, keepdims=True)
    prompt, outcome = np.tile(np.repeat(np.arange(4), 150), 2), []
    for law in (p, q):
        outcome += [rng.choice(12, 150, p=law[x]) for x in range(4)]
    at, side = (prompt, np.concatenate(outcome)), np.repeat(["expert", "own"], 600)
    measured = Measured(prompt, side, *(np.log(law[at]) for law in (q, after, p)))
    row = telemetry.summary(measured, game, telemetry.predictions(measured, game))
    assert row["prediction"] == (ONE_STEP if name == "rooted" else TWO_STEP)
    assert row["predicted_slope"] == pytest.approx(1.0, abs=0.1)
    assert row["predicted_correlation"] > 0.995
    assert row["contraction"] == pytest.approx(row["contraction_predicted"], abs=0.05)
    assert row["contraction_local"] == pytest.approx(1 - game.objective.slope_at_zero / 1.5)


@pytest.mark.parametrize("name", LIKE)
def test_preferences_train_a_stranger(name, tmp_path):
    (row,) = rows(tmp_path / "run", spec(name), "--oracle=bradley-terry", "--own-samples=3")
    assert 0 < row["win_rate"] < 1
    assert row["preference_slope_se"] > 0

"""Objectives that nobody here wrote: a run and its report give them what a built-in of their form
gets."""

import inspect
from pathlib import Path

import numpy as np
import pytest

from lab.specs import objective_of
from llm_scale.measure import telemetry
from llm_scale.measure.predicted import GROUPS, ONE_STEP, TWO_STEP, RewardTerms, as_trained
from llm_scale.measure.telemetry import Measured
from llm_scale.report.findings import marked
from tests.llm_scale.commands import call, metrics
from theory import laws, xp
from theory.objectives import Group

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
        unknown = own.keys() & {"reward_bound_reason"}  # why, where BOUNDS are not there
        assert bool(unknown) == (name != "rooted" and "reward_low" in runs[1][built_in])
        assert (own.keys() - unknown) | BOUNDS == runs[1][built_in].keys() | BOUNDS, name
        assert all(np.isfinite(v) for v in own.values() if isinstance(v, float)), name


def test_a_report_shows_a_stranger_beside_built_ins(runs, tmp_path):
    out, last = runs
    call("report", out, "--out", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    theory = text.split("## Theory")[1].split("\n## ")[0].splitlines()
    for name, row in last.items():
        label = marked(objective_of(spec(name) if name in LIKE else name).label)
        (line,) = (x for x in theory if x.startswith(f"| {label} |"))
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
    kinds = {"huber": TWO_STEP, "softmargin": GROUPS, "rooted": ONE_STEP}
    assert row["prediction"] == kinds[name]
    assert "prediction_reason" not in row
    assert row["predicted_slope"] == pytest.approx(1.0, abs=0.1)
    assert row["predicted_correlation"] > 0.995
    assert row["contraction"] == pytest.approx(row["contraction_predicted"], abs=0.05)
    assert row["contraction_local"] == pytest.approx(1 - game.objective.slope_at_zero / 1.5)


class Fisher(Group):
    """Means apart, in units of a spread around 0: no constant is free, and no link is known."""

    def group_risk(self, r_y, r_own, w_y, w_own):
        gap = xp.weighted_mean(r_y, w_y) - xp.weighted_mean(r_own, w_own)
        second = xp.weighted_mean(xp.square(r_y), w_y) + xp.weighted_mean(xp.square(r_own), w_own)
        return 0.05 * second + 0.25 * xp.square(second) - gap


def rewarded(objective, prompts=2, responses=20, **how):
    """A round's row from drawn laws, and what was measured."""
    rng = np.random.default_rng(5)
    p, q, new = laws.random_law(rng, (3, prompts, 8), 1.0)
    prompt, side = np.tile(np.repeat(np.arange(prompts), responses), 2), ["expert", "own"]
    at = prompt, rng.integers(8, size=len(prompt))
    sides = np.repeat(side, prompts * responses)
    measured = Measured(prompt, sides, *(np.log(law[at]) for law in (q, new, p)))
    game = RewardTerms(objective, 1.0, **how)
    return telemetry.summary(measured, game, telemetry.predictions(measured, game))


def test_a_row_says_which_prediction_it_has_and_why_no_other():
    row = rewarded(Fisher())
    assert row["prediction"] == TWO_STEP
    assert "no one-step round: its risk changes when all rewards shift" in row["prediction_reason"]
    assert "depends on both laws" in row["reward_bound_reason"]
    many = rewarded(objective_of(spec("softmargin")), own_samples=64, expert_samples=64)
    assert many["prediction"] == TWO_STEP
    assert "too many to go through" in many["prediction_reason"]
    few = rewarded(objective_of("spif"), prompts=20, responses=2)
    assert "none has 16 responses" in few["prediction_reason"]
    for objective, how, reason in (
        ("spin_hinge", {}, "staircase"),
        ("sppo", {}, "preference"),
        ("spif", {"level": "token"}, "per token"),
    ):
        row = rewarded(objective_of(objective), **how)
        assert "prediction" not in row
        assert reason in row["prediction_reason"]
    for known in ("spif", "ipo", "centred_spif"):
        assert not rewarded(objective_of(known)).keys() & {
            "prediction_reason",
            "reward_bound_reason",
        }


def test_a_report_says_once_why_a_prediction_or_bound_is_missing(tmp_path):
    path = tmp_path / "fisher.py"
    lines = inspect.getsource(Fisher)
    path.write_text(f"from theory import xp\nfrom theory.objectives import Group, register\n\n\n"
                    f"@register('fisher')\n{lines}")  # fmt: skip
    (row,) = rows(tmp_path / "run", f"{path}:fisher")
    assert row["prediction"] == TWO_STEP
    call("report", tmp_path / "run", "--out", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.count("the prediction is the two-step link, as fisher has no one-step round") == 1
    assert text.count("no bound of the rewards is known, as fisher has no link") == 1


@pytest.mark.parametrize("name", LIKE)
def test_preferences_train_a_stranger(name, tmp_path):
    (row,) = rows(tmp_path / "run", spec(name), "--oracle=bradley-terry", "--own-samples=3")
    assert 0 < row["win_rate"] < 1
    assert row["preference_slope_se"] > 0

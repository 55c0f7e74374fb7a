"""The machinery of the experiment on SGD: who takes part, refusals, resumed parts."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch

from tests.toy_games.experiments.sgd.cells import GAME, run
from theory import objectives
from theory.errors import InvalidInput
from toy_games import launch
from toy_games.dynamics.self_play import SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax, Tokens
from toy_games.engine.trainable import notes
from toy_games.experiments import sgd
from toy_games.experiments.sgd import PLAYED, Settings, lacking
from toy_games.games.sgd_case import Case, chain_factor
from toy_games.predictions.linearised import RoundLoss, distance


def test_every_objective_that_can_be_trained_is_here_and_the_others_have_a_reason():
    left = set(objectives.names()) - set(PLAYED)
    assert left == {"sppo", "gail", "ipm"}
    with pytest.raises(InvalidInput) as caught:
        Settings(objectives=("spin", *sorted(left)))
    said = str(caught.value)
    for part in ("sppo cannot", "no expert law", "gail cannot", "starts at r = 0", "ipm cannot"):
        assert part in said


def test_all_problems_are_said_at_once():
    with pytest.raises(InvalidInput) as caught:
        Settings(parts=("noise",), classes=("tree",), seeds=0, rate=-1.0, group=5, effective=(0.0,))
    said = str(caught.value)
    for part in ("'noise'", "'tree'", "seeds=0", "rate=-1.0", "effective=0.0"):
        assert part in said
    assert "batch 64 is not a multiple of group=5" in said
    with pytest.raises(InvalidInput, match="leave it out"):
        Settings(objectives=("sft",))


def test_groups_too_many_to_enumerate_and_several_prompts_are_refused():
    law = torch.full((30,), 1 / 30, dtype=torch.float64)
    obj = objectives.get("renyi")
    with pytest.raises(InvalidInput, match="pairs of groups of 30"):
        RoundLoss(Softmax(30), obj, law, law.log(), 1.0, group=8)
    with pytest.raises(InvalidInput, match="2 prompts; needed is 1"):
        RoundLoss(Softmax(30, 2), None, law, law.log(), 1.0)


def test_sft_runs_beside_all_others_but_has_no_contraction():
    made = sgd.cells(Settings())
    sft = {c.arguments["part"] for c in made if c.arguments.get("spec") == "sft"}
    assert sft == {"round", "floor", "steps", "path"}
    hinge = {c.arguments["part"] for c in made if c.arguments.get("spec") == "spin_hinge"}
    assert hinge == {"round"}
    left = {tuple(line.split(":")[0].split(" is without ")) for line in notes(made)}
    assert {("contraction", "sft"), ("path", "spin_hinge"), ("steps", "inpo")} <= left
    table = run("round", "spin_hinge", steps=40)
    assert (table.excess > -1e-12).all()


def test_an_interrupted_part_resumes_to_the_same_table(tmp_path, monkeypatch):
    given = {"seeds": 2, "steps": 20, "floor_batches": (8, 16), "floor_rates": (0.2,)}
    chosen = Settings(parts=("floor",), objectives=("ipo",), **given, **GAME)
    whole = launch.run("sgd", chosen, progress=False)
    advance, calls = SelfPlay.advance, []

    def stops(self, state, step):
        calls.append(step)
        if len(calls) == 55:  # in the second batch size
            raise KeyboardInterrupt
        return advance(self, state, step)

    monkeypatch.setattr(simulator, "run", functools.partial(simulator.run, every=0.0))
    monkeypatch.setattr(SelfPlay, "advance", stops)
    with pytest.raises(KeyboardInterrupt):
        launch.run("sgd", chosen, tmp_path / "kept", progress=False)
    assert list((tmp_path / "kept" / "parts").glob("*.npz"))
    resumed = launch.run("sgd", chosen, tmp_path / "kept", progress=False)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert not list((tmp_path / "kept" / "parts").glob("*.npz"))


def test_factors_are_those_of_a_geometric_sequence():
    share = np.array([[1.0, 1.0], [0.5, -0.3], [0.25, 0.09]])
    np.testing.assert_allclose(chain_factor(share), [0.5, -0.3])
    case = Case("spin", seed=11)
    assert isinstance(case.policy, Tokens)
    near = case.beside(case.expert.log(), 0.01)
    assert float(distance(near, case.expert.log())) == pytest.approx(0.01, rel=0.05)


def test_a_group_risk_without_a_round_is_left_out_with_the_reason(tmp_path) -> None:
    """A stranger's that sees the level of rewards: said before work, and the others run."""
    path = tmp_path / "level.py"
    path.write_text(
        "from theory import xp\nfrom theory.objectives import Group, register\n\n\n"
        "@register('level')\nclass Level(Group):\n"
        "    def group_risk(self, r_y, r_own, w_y, w_own):\n"
        "        spread = xp.weighted_mean(r_y**2, w_y) + xp.weighted_mean(r_own**2, w_own)\n"
        "        return spread - xp.weighted_mean(r_y, w_y) + xp.weighted_mean(r_own, w_own)\n"
    )
    for part in ("round", "floor"):
        assert "its risk changes when all rewards shift" in lacking(part, Case(f"{path}:level"))
    assert lacking("round", Case("renyi")) is None

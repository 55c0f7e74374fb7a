"""The machinery of two players: resumed runs, games and settings that are refused, cells."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from tests.toy_games.experiments.players.tabular import games, tabular
from tests.toy_games.interrupted import interrupt
from theory import objectives
from theory.errors import InvalidInput, Unavailable
from toy_games.dynamics.two_players import METHODS, Players, Rules
from toy_games.engine import simulator
from toy_games.engine.policies import LogLinearPolicy, Softmax
from toy_games.engine.rewards import Linear, Network, Table
from toy_games.experiments import players as experiment


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_gives_bitwise_the_same_table(tmp_path, monkeypatch, method):
    p, ref, kick = games(3, 4, seed=115)

    def players(rows=slice(None)):
        rules = Rules(method, batch=8)
        seeds = [5, 9, 5][rows]
        return tabular(
            objectives.get("airl"), p[rows], ref[rows], kick[:, rows], 0.2, rules, seeds=seeds
        )

    path = tmp_path / "run.npz"
    interrupt(players(), 9, [0, 5, 20], path, monkeypatch)
    resumed = simulator.run(players(), [0, 5, 20], path, False)
    whole = simulator.run(players(), [0, 5, 20], progress=False)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    alone = simulator.run(players(slice(1, 2)), [0, 5, 20], progress=False)
    both = whole[whole.seed == 9].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone, rtol=1e-9, atol=1e-12)


def test_everything_wrong_is_said_at_once():
    rows = pd.DataFrame({"seed": [0], "step_policy": [-1.0], "tau": ["x"]})
    rules = Rules("sideways", "nothing", natural=True, reward_steps=2, batch=1)
    with pytest.raises(InvalidInput) as caught:
        Players(
            LogLinearPolicy(np.eye(4)[:, :2]), Linear(np.eye(5)), objectives.get("ipm"), rows,
            np.zeros(3), (np.zeros(9), np.zeros(5)), rules,
        )  # fmt: skip
    said = str(caught.value)
    for part in ("method", "pay=", "reward_steps", "batch", "step_policy", "tau", "shapes"):
        assert part in said
    for part in ("natural", "bound to [-1, 1]", "expert", "start of the policy"):
        assert part in said
    with pytest.raises(InvalidInput, match="width"):
        Network(np.eye(3), 0)
    with pytest.raises(InvalidInput, match="features: shape"):
        Linear(np.zeros(3))


@pytest.mark.parametrize(
    ("name", "batch", "reason"),
    [
        ("sppo", None, "preference"),
        ("centred_spif", 4, "not linear"),
        ("tspin", None, "history"),
    ],
)
def test_games_that_do_not_exist_say_why(name, batch, reason):
    p, _, _ = games(1, 4, seed=116)
    rows = pd.DataFrame({"seed": [0]})
    start = np.zeros(4), np.zeros(4)
    with pytest.raises(Unavailable, match=reason):
        Players(Softmax(4), Table(4), objectives.get(name), rows, p, start, Rules(batch=batch))


def test_settings_name_all_problems():
    with pytest.raises(InvalidInput) as caught:
        experiment.Settings(
            parts=("rates", "none"), step=-1.0, features=(0, 3), mixtures=(2.0,),
            objectives=("spif", "nonsense", "spin", "sft"), seeds=0,
        )  # fmt: skip
    said = str(caught.value)
    for part in (
        "'none'",
        "step=",
        "features",
        "mixtures",
        "nonsense",
        "spin has no saddle",
        "sft",
    ):
        assert part in said, part
    assert "seeds" in said


def test_every_part_runs_and_names_its_cells_once():
    small = experiment.Settings(
        seeds=3, steps=20, features=(2,), mixtures=(0.0,), reward_steps=(2,), widths=(2,),
        objectives=("spif",), penalties=(1.0,), batch=4,
    )  # fmt: skip
    cells = experiment.cells(small)
    assert len({cell.name for cell in cells}) == len(cells)
    kept = {cell.call.__name__: cell for cell in cells if "sft" not in cell.name}
    assert set(kept) == {"trajectories", "noise", "rates", "boundary", "few_features",
                         "reward_classes", "limit", "network"}  # fmt: skip
    assert sum("sft" in cell.name for cell in cells) == 2
    for name, cell in kept.items():
        if name != "boundary":
            table = cell.call(**cell.arguments, checkpoint=None, progress=False)
            assert len(table) >= 3, name
            assert {"part", "seed", "objective"} <= set(table.columns), name


def test_fields_of_rules_reach_the_identity_of_a_run():
    p, ref, kick = games(1, 4, seed=117)
    run = tabular(objectives.get("spif"), p, ref, kick)
    for change in ({"method": "optimistic"}, {"pay": "rounds"}, {"batch": 3}):
        rules = dataclasses.replace(Rules(), **change)
        assert tabular(objectives.get("spif"), p, ref, kick, rules=rules).identity != run.identity

"""The experiment on finite samples: its parts, rows, samples, and settings that are refused."""

import numpy as np
import pandas as pd
import pytest

from theory.errors import InvalidInput
from toy_games import launch
from toy_games.experiments import finite_samples as finite
from toy_games.predictions.finite_samples import logistic_growth

SMALL = {
    "seeds": 3, "rounds_seeds": 3, "steps": 20, "flow_steps": 10.0, "total_steps": 20,
    "text_steps": 10, "sizes": (10,), "text_sizes": (10,), "words": 3, "etas": (1.0, 2.0),
}  # fmt: skip


def test_the_experiment_has_all_parts_and_sft_beside_them():
    given_settings = finite.Settings(**SMALL, objectives=("spin", "spin_hinge"))
    table = launch.run("finite_samples", given_settings, progress=False)
    left = table[table.left_out.notna()]
    assert left[["left_out", "objective"]].to_numpy().tolist() == [["flow", "spin_hinge"]]
    table = table[table.left_out.isna()]
    assert set(table.part) == {"descent", "flow", "threshold", "rounds", "text"}
    for part in ("rounds", "text"):
        assert set(table[table.part == part].objective) == {"spin", "spin_hinge", "sft"}
    key = ["part", "objective", "seed", "overlap", "eta", "n", "step"]
    assert not table.duplicated(key).any()
    assert np.isfinite(table.kl).all()


def test_a_row_is_the_same_alone():
    several, alone = (
        finite.descent(
            finite.Settings(first_seed=first, seeds=6 - first, steps=30, outcomes=9),
            "ipo",
            progress=False,
        )
        for first in (4, 5)
    )
    several = several[several.seed == 5].reset_index(drop=True)
    pd.testing.assert_frame_equal(several, alone, rtol=1e-12)


def test_samples_show_the_outcomes_that_they_must():
    for overlap, (expert_only, shared, own_only) in finite.OVERLAPS.items():
        p, q, data, own = finite.samples(3, overlap, 11)
        for law in (p, q, data, own):
            np.testing.assert_allclose(law.sum(), 1.0)
        assert ((data > 0) & (own == 0)).sum() == expert_only
        assert ((data > 0) & (own > 0)).sum() == shared
        assert ((data == 0) & (own > 0)).sum() == own_only


def test_growth_where_one_side_has_nothing_of_its_own():
    data, own = np.array([0.5, 0.5, 0.0]), np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(logistic_growth(data, own), [0.5, -0.5, 0.0])
    np.testing.assert_allclose(logistic_growth(own, data), [-0.5, 0.5, 0.0])


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"objectives": ("spon", "sft"), "seeds": 0}, ("spon", "sft", "seeds=0")),
        ({"outcomes": 8, "rate": -1.0, "etas": (1.0, 0.0)}, ("outcomes=8", "rate=-1.0", "etas=")),
        ({"batch": 12, "sizes": (10, 0), "rounds_step": 0.0}, ("batch=12", "sizes=", "rounds_st")),
        ({"steps": 1.5, "sizes": 10}, ("steps=1.5", "sizes=10")),
    ],
)
def test_everything_wrong_is_said_at_once(wrong, parts):
    with pytest.raises(InvalidInput) as caught:
        finite.Settings(**wrong)
    for part in parts:
        assert part in str(caught.value)

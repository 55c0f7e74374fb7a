"""The experiment on stability: its steps, who takes part, its settings, all studies small."""

import dataclasses

import numpy as np
import pytest

from lab import sweep
from tests.toy_games.experiments.stability.played import LINKS
from theory import objectives, theory_card
from theory.errors import InvalidInput
from toy_games import launch
from toy_games.engine.trainable import beta_at, notes
from toy_games.experiments.stability import Settings, cells


def test_effective_steps_are_the_cards():
    for name in LINKS:
        obj = objectives.get(name)
        slope = theory_card(obj).slope_at_zero
        np.testing.assert_allclose(beta_at(obj, [0.5, 4.0]), [2 * slope, slope / 4])


def test_objectives_take_part_where_they_can_and_else_it_is_said():
    asked = Settings(studies=("map", "boundary"), objectives=("spin", "gail", "spin_hinge"))
    parts = cells(asked)
    names = [cell.name for cell in parts if "left out" not in cell.name]
    assert names == ["map-spin", "map-gail", "map-sft",
                     "boundary-spin", "boundary-spin_hinge", "boundary-sft"]  # fmt: skip
    said = notes(parts)
    assert [line.partition(":")[0] for line in said] == [
        "map is without spin_hinge",
        "boundary is without gail",
    ]
    table = sweep.run_tables([c for c in parts if "left out" in c.name])
    assert [f"{r.left_out} is without {r.objective}: {r.why}" for r in table.itertuples()] == said


def test_everything_wrong_with_settings_is_said_at_once():
    with pytest.raises(InvalidInput) as caught:
        Settings(
            studies=("map", "mop"),
            objectives=("spin", "sft", "spun"),
            steps=(1.0, 0.0),
            label_noise=(0.0, 1.0),
            batch=12,
            surplus=20,
            surplus_mass=2.0,
        )
    said = str(caught.value)
    for part in ("'mop'", "'sft' always", "spun", "steps=", "label_noise=1.0", "batch=12"):
        assert part in said
    assert "surplus=20" in said
    assert "surplus_mass" in said


def test_all_studies_run_small():
    small = dataclasses.replace(
        Settings(),
        objectives=("spif",),
        outcomes=6,
        surplus=2,
        seeds=3,
        steps=(0.5, 4.0),
        reaches=(3.0,),
        samples=(50,),
        few=(20,),
        many=50,
        rounds=20,
        boundary_steps=40,
        early_steps=40,
        early_distances=(0.5,),
        distances=(0.5,),
        break_steps=(3.0,),
    )
    table = launch.run("stability", small, progress=False)
    assert set(table.study) == set(small.studies)
    assert np.isfinite(table[table.study != "boundary"].kl).all()
    assert set(table.objective) == {"spif", "sft"}

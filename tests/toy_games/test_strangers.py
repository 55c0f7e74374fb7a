"""Objectives of strangers, each one definition in one file, in the toy experiments."""

import numpy as np
import pytest

from theory.errors import InvalidInput
from toy_games import launch

FOLDER = "tests/strangers"
# A stranger and a built-in of its form: what the one gets, the other has to get as well.
MATES = {"huber": "ipo", "softmargin": "centred_spif", "rooted": "spif"}
SMALL = {
    "stability": {
        "seeds": 1, "outcomes": 5, "steps": (0.5, 2.5), "reaches": (3.0,), "samples": (50,),
        "few": (20,), "many": 50, "rounds": 20, "label_noise": (0.1,), "surplus": 1,
        "break_steps": (3.0,), "distances": (1.0,), "boundary_steps": 20, "batch": 8,
        "early_distances": (0.5,), "early_steps": 20,
    },
    "sgd": {
        "seeds": 1, "horizon": 2, "steps": 60, "rate": 0.5, "rounds": 1, "batch": 32, "group": 4,
        "floor_batches": (16,), "floor_rates": (0.1,), "counts": (1, 8), "effective": (0.5,),
        "reach": 0.1, "classes": ("tokens", "features"),
    },
    "dumping": {
        "seeds": 3, "shares": (0.8,), "batches": (8,), "path_steps": 5, "masses": (0.01,),
        "counts": (1,), "escape_steps": 30, "sizes": (5,), "samples": (4,), "size": 6,
        "middle": 4, "steps": 5, "rounds": 2, "round_steps": 5, "text_steps": 1,
    },
}  # fmt: skip


def played(experiment, spec):
    """The experiment's table of one objective, its name taken out."""
    given = dict(SMALL[experiment], objectives=(spec,))
    if experiment == "dumping":
        given["text_objectives"] = (spec,)
    settings = launch.load(experiment).Settings(**given)
    table = launch.run(experiment, settings, progress=False)
    return table[table.objective == spec].drop(columns="objective")


def test_a_strangers_wrong_formula_is_refused_before_work(tmp_path):
    path = tmp_path / "flipped.py"
    path.write_text(
        "from theory import xp\nfrom theory.objectives import Pairwise, register\n\n\n"
        '@register("flipped")\nclass Flipped(Pairwise):\n'
        "    def pair_loss(self, d):\n        return xp.softplus(d)\n"
    )
    with pytest.raises(InvalidInput, match=r"flipped\.py:flipped: .*own responses"):
        launch.load("stability").Settings(objectives=(f"{path}:flipped",))


@pytest.mark.parametrize("experiment", list(SMALL))
@pytest.mark.parametrize("name", list(MATES))
def test_a_stranger_gets_what_a_built_in_of_its_form_gets(experiment, name):
    own = played(experiment, f"{FOLDER}/{name}.py:{name}")
    other = played(experiment, MATES[name])
    part = "study" if "study" in own else "part"
    assert own[part].value_counts().to_dict() == other[part].value_counts().to_dict()
    said = [t[["left_out", "why"]].dropna().to_numpy().tolist() if "why" in t else []
            for t in (own, other)]  # fmt: skip
    assert said[0] == said[1]
    both = set(own.columns) | set(other.columns)
    measured = [c for c in both if c in other and other[c].dtype.kind == "f"]
    for column in measured:
        there = [
            t.groupby(part)[column].apply(lambda v: np.isfinite(v).any()) for t in (own, other)
        ]
        assert there[0].equals(there[1]), f"{column}: measured of the one, not of the other"
    if experiment == "sgd":
        rounds = own[own.part == "round"]
        assert (rounds.mismatch < 1e-7).all(), "minimised from the steps, and by theory"
        near = own[own.part == "contraction"]
        np.testing.assert_allclose(near.exact, near.predicted, atol=0.05)

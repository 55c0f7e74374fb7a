"""What objectives can be played: every question, asked of objectives whose answer is known."""

import numpy as np
import pytest
import torch

from theory import objectives
from theory.objectives import registry
from toy_games.engine import trainable as asked
from toy_games.engine.rows import digest

PAIRS = ["spin", "dpo", "spin_hinge", "spin_exponential", "ipo", "inpo", "tspin", "alpha_spin"]
POINTS = ["spif", "iq_learn", "policy_only", "nwj", "gail", "airl", "ipm", "sppo"]
GROUPS = ["centred_spif", "renyi"]
EVERY = ["sft", *PAIRS, *POINTS, *GROUPS]


def get(name):
    return None if name == "sft" else objectives.get(name)


def those(question):
    return {name for name in EVERY if question(get(name))}


def test_what_has_no_expert_cannot_be_trained_on_one():
    said = "it has no expert law: see the experiment 'preferences'"
    assert asked.no_expert(get("sppo")) == said
    assert asked.no_expert(get("spin")) is None
    assert those(asked.untrainable) == {"sppo", "gail", "ipm"}
    assert asked.untrainable(get("sppo")) == said
    assert asked.untrainable(get("gail")) == get("gail").missing("risk")
    assert those(asked.no_best_response) == {"sppo", "spin_hinge", "tspin"}
    assert asked.no_best_response(get("sppo")) == said
    assert asked.no_best_response(get("tspin")) == get("tspin").missing("reward")


def test_slopes_of_rewards_and_the_beta_of_a_step():
    assert asked.slope_of(get("spif(c=4)")) == pytest.approx(0.125)
    assert np.isnan(asked.slope_of(get("tspin")))
    steps = np.array([0.5, 0.2])
    for name, slope in (("spif(c=4)", 0.125), ("spin", 1.0), ("tspin", 1.0)):
        np.testing.assert_allclose(asked.beta_at(get(name), steps), slope / steps)
    np.testing.assert_array_equal(asked.beta_at(None, steps), 1.0)


def test_which_start_as_supervised_fine_tuning():
    """Not with an anchor, a history or preferences, a mixed opponent, or no gradient at all."""
    left = {"inpo", "tspin", "alpha_spin", "sppo", "gail", "ipm"}
    assert those(asked.starts_as_sft) == set(EVERY) - left
    for opposite in ("a", "b"):
        assert asked.starts_as_sft(Backwards(opposite == "a")) == (opposite == "b")


class Backwards:
    """An objective of a given gradient at the start: of the wrong sign, or of none."""

    needs, reference_free, opponent_factor = frozenset(), False, 1.0

    def __init__(self, wrong):
        self.gradient_at_start = (0.5 if wrong else -0.5), 0.0

    def missing(self, part):
        return None


@pytest.mark.parametrize(
    "change",
    [
        {"reference_free": True},
        {"opponent_factor": 0.5},
        {"missing": lambda part: "absent"},
        {"gradient_at_start": (-np.inf, 0.0)},
        {"gradient_at_start": (0.0, 0.0)},
        {"needs": frozenset({"anchor"})},
        {"needs": frozenset({"history"})},
        {"needs": frozenset({"preference"})},
    ],
)
def test_one_reason_is_enough_not_to_start_as_fine_tuning(change):
    played = Backwards(wrong=False)
    assert asked.starts_as_sft(played)
    for name, value in change.items():
        setattr(played, name, value)
    assert not asked.starts_as_sft(played)


def test_groups_pairs_and_curves():
    assert those(asked.grouped) == set(GROUPS)
    assert those(asked.of_pairs) == set(PAIRS)
    assert those(asked.bends) == set(EVERY) - {"spin_hinge", "sppo", "gail", "ipm"}


def test_settings_name_what_cannot_be_trained():
    check = asked.trainable()
    for spec in ("spin", "spif(c=2)", "centred_spif"):
        assert check(spec) == []
    slope = "no reward link with a slope at 0, hence no effective step"
    assert check("tspin") == [f"tspin cannot be trained here: {slope}"]
    assert asked.trainable(linked=False)("tspin") == []
    said = asked.no_expert(get("sppo"))
    assert check("sppo") == [f"sppo cannot be trained here: {said}"]
    assert asked.trainable(linked=False)("gail")[0].startswith("gail cannot be trained here: ")
    assert asked.trainable(loss=False)("gail") == []
    infinite = asked.trainable(linked=False, loss=False)("ipm")
    assert infinite == [f"ipm cannot be trained here: {slope}"]
    assert check("sft") == ["'sft' always runs beside the others; leave it out"]
    assert check("none_such") != []


def test_what_is_left_out_stays_in_the_table():
    cell = asked.left_out("rounds", "gail", "no slope")
    assert cell.call(**cell.arguments) == {
        "left_out": ["rounds"], "objective": ["gail"], "why": ["no slope"],
    }  # fmt: skip
    other = type(cell)("more", print, {"left_out": "x", "objective": "y", "why": "z"})
    assert asked.notes([other, cell]) == ["rounds is without gail: no slope"]


def test_a_digest_has_sixteen_digits():
    one, two = torch.arange(3.0), torch.arange(4.0)
    assert len(digest(one, two)) == 16
    assert digest(one, two) != digest(two, one)


OWN = """
from theory.objectives import Pointwise, register

@register("mine")
class Mine(Pointwise):
    def a(self, r):
        return r - r * r / 2

    def b(self, r):
        return -r - r * r / 2

    def link_formula(self, u, delta):
        return SLOPE * u / (1.0 + abs(u))
"""


def test_formulas_of_ones_own_file_are_checked_first(tmp_path):
    path = tmp_path / "mine.py"
    with registry.kept():
        (problem,) = asked.named_problems(f"{path}:mine")  # no such file
        assert "mine.py" in problem
        path.write_text(OWN.replace("SLOPE", "3.0"))  # the payoffs say tanh(u/2)
        problems = asked.named_problems(f"{path}:mine")
    assert problems
    assert all(problem.startswith(f"{path}:mine: ") for problem in problems)

"""The registry: what exists and what does not, and objectives loaded from a file."""

from __future__ import annotations

import re

import numpy as np
import pytest

from theory import InvalidInput, Unavailable, objectives, saddle_point

POINTWISE = [
    "spif",
    "iq_learn",
    "policy_only",
    "nwj",
    "exponential",
    "gail",
    "airl",
    "space",
    "brier",
    "ipm",
    "sppo",
]
PAIRWISE = ["spin", "dpo", "spin_hinge", "spin_exponential", "ipo", "inpo", "tspin", "alpha_spin"]
GROUP = ["centred_spif", "renyi"]
PARAMETERS = {
    "spif": {"c": 1.0, "alpha": 0.5},
    "iq_learn": {"c": 1.0},
    "policy_only": {"c": 1.0},
    "ipm": {"bound": 1.0},
    "space": {"mu": 1.0},
    "ipo": {"margin": 1.0},
    "inpo": {"margin": 0.5},
    "tspin": {"history_weight": 0.1},
    "alpha_spin": {"base_weight": 0.5},
    "centred_spif": {"c": 1.0},
    "renyi": {"order": 0.5},
}


# --- what exists ---------------------------------------------------------------------------------


def test_names_forms_needs_and_parameters() -> None:
    assert objectives.names() == POINTWISE + PAIRWISE + GROUP
    forms = dict.fromkeys(POINTWISE, "pointwise") | dict.fromkeys(PAIRWISE, "pairwise")
    needs = {"sppo": {"preference"}, "inpo": {"anchor"}, "tspin": {"history"}}
    for name in objectives.names():
        obj = objectives.get(name)
        assert obj.form == forms.get(name, "group")
        assert obj.needs == needs.get(name, set())
        assert vars(obj) == PARAMETERS.get(name, {})
        assert obj.name == name
        assert obj.source in ("paper", "reconstruction")
        assert len(obj.citation) > 20
        shown = ", ".join(f"{k}={v:g}" for k, v in vars(obj).items())
        assert obj.label == (f"{name}({shown})" if shown else name)


def test_parameters_may_be_any_real_number() -> None:
    for value in (2, np.float32(2), np.int64(2), np.float64(2)):
        assert objectives.get("spif", c=value).label == "spif(c=2, alpha=0.5)"


NO_FORM = "the definition gives no"
STAIRCASE, FREE = "best response is a staircase", "reference-free"
PAIRS, VALUE = r"a mean over pairs p x pi", "a log of means"
CONIC_PAIRS = {"saddle": PAIRS, "conic_game": NO_FORM}
STEP = "the step kappa_t changes with Delta_t"
ABSENT = {
    "spif": {},
    "iq_learn": {},
    "policy_only": {},
    "nwj": {},
    "exponential": {},
    "gail": dict.fromkeys(["loss", "risk"], r"starts at r = 0, where log\(1 - e\^-r\) is -inf"),
    "airl": {},
    "space": {},
    "brier": {},
    "ipm": dict.fromkeys(["loss", "risk"], "the bound on r is a constraint"),
    "sppo": {
        "saddle": "a Nash equilibrium of the preference",
        "potential": "a skew operator without a potential",
        "conic_game": NO_FORM,
        "conic_potential": NO_FORM,
    },
    "spin": CONIC_PAIRS,
    "dpo": CONIC_PAIRS,
    "spin_hinge": CONIC_PAIRS
    | {"link": STAIRCASE, "reward": STAIRCASE, "conic_potential": NO_FORM}
    | {"potential": STAIRCASE, "equilibrium": STAIRCASE},
    "spin_exponential": CONIC_PAIRS,
    "ipo": CONIC_PAIRS | {"potential": STEP},
    "inpo": CONIC_PAIRS | {"potential": STEP},
    "tspin": CONIC_PAIRS
    | {"link": FREE, "reward": FREE, "conic_potential": NO_FORM}
    | {"potential": FREE, "equilibrium": FREE},
    "alpha_spin": CONIC_PAIRS
    | {"potential": "start from the mixture", "equilibrium": "depends on beta and on the base"},
    "centred_spif": {"loss": "needs all responses of a prompt at once; use risk"},
    "renyi": {"loss": VALUE, "saddle": VALUE, "conic_game": NO_FORM},
}
PARTS = ["link", "reward", "loss", "risk", "saddle", "potential", "equilibrium"]
PARTS += ["conic_game", "conic_potential"]
LAW = np.array([0.3, 0.7])
VERBS = {
    "link": lambda o: o.link(0.1, 0.0),
    "reward": lambda o: o.reward(LAW, LAW),
    "loss": lambda o: o.loss(0.1, 0.2, 1.0),
    "risk": lambda o: o.risk(LAW, LAW, 1.0),
    "saddle": lambda o: o.value(LAW, LAW, LAW),
    "potential": lambda o: o.potential(LAW, LAW),
    "equilibrium": lambda o: o.require("equilibrium"),
    "conic_game": lambda o: o.require("conic_game"),
    "conic_potential": lambda o: o.require("conic_potential"),
}


@pytest.mark.parametrize("name", POINTWISE + PAIRWISE + GROUP)
def test_what_is_absent_says_why(name: str) -> None:
    """Exactly these parts are missing, and the verb of each raises its sentence."""
    obj = objectives.get(name)
    assert {part for part in PARTS if obj.missing(part)} == set(ABSENT[name])
    assert obj.has_link == ("link" not in ABSENT[name])
    assert obj.has_loss == ("loss" not in ABSENT[name])
    assert obj.has_saddle == ("saddle" not in ABSENT[name])
    for part, reason in ABSENT[name].items():
        sentence = f"^{name} has no {part.replace('_', ' ')}: .*{reason}"
        with pytest.raises(Unavailable, match=sentence):
            VERBS[part](obj)
    if "saddle" in ABSENT[name] and "link" not in ABSENT[name]:
        with pytest.raises(Unavailable, match=ABSENT[name]["saddle"]):
            saddle_point(LAW, LAW, obj)


def test_an_empty_definition_says_what_it_lacks() -> None:
    for form, link, loss, reward in (
        (
            objectives.Pointwise,
            "neither link_formula nor a and b",
            "nor expert_term and",
            "a and b",
        ),
        (objectives.Pairwise, "neither link_formula nor gain", "no pair_loss", "nor pair_loss"),
        (objectives.Group, "neither link_formula nor gain", "use risk", "nor group_risk"),
    ):
        obj = type("Empty", (form,), {})()
        assert (obj.has_link, obj.has_loss, obj.has_saddle) == (False, False, False)
        for verb, reason in (("link", link), ("loss", loss), ("reward", reward)):
            with pytest.raises(Unavailable, match=reason):
                VERBS[verb](obj)
        assert obj.missing("risk")
        assert obj.missing("potential")


# --- registering and loading ---------------------------------------------------------------------


FILE = """
from theory.objectives import Pairwise, register
@register({name!r})
class Mine(Pairwise):
    power: float{default}
    def pair_loss(self, d):
        return (1 - d) ** self.power
{after}
"""


def test_a_file_is_loaded_and_read_again(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(name="first", default=" = 2.0", after=""))
    assert objectives.load_file(path) == ["first"]
    assert objectives.get("first", power=4).loss(0.0, 0.0, 1.0) == 1.0
    assert objectives.names()[-1] == "first"
    path.write_text(FILE.format(name="second", default="", after=""))
    assert objectives.load_file(str(path)) == ["second"]
    assert "first" not in objectives.names()
    with pytest.raises(InvalidInput, match="second: missing parameter 'power'"):
        objectives.get("second")


def test_a_failing_file_leaves_the_registry_alone(tmp_path) -> None:
    before = objectives.names()
    path = tmp_path / "mine.py"
    for after, message in (
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("register('spif')(Mine)", "'spif' is taken"),
    ):
        path.write_text(FILE.format(name="mine", default=" = 2.0", after=after))
        with pytest.raises(InvalidInput, match=f"^{re.escape(str(path))}: .*{message}"):
            objectives.load_file(path)
        assert objectives.names() == before

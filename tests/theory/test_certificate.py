"""Certificates that trust no link: a wrong one is not certified, wherever it is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.theory.strategies import label
from theory import equilibrium, laws, objectives, self_play, xp
from theory.certificate import BALANCE, response_imbalance
from theory.errors import NotConverged
from theory.objectives import Group, Objective, Pairwise, Pointwise, pair_response, risk_response

EVERY = [objectives.get(name) for name in objectives.names()]
RESPONDING = [obj for obj in EVERY if not obj.missing("reward") and "preference" not in obj.needs]
FAR_OFF = 9.0
"""Log-ratio from which on the twins' links are wrong: no check on fixed laws looks there."""


def twin(form: str, name: str, unit: float, wrong: float) -> Objective:
    """A built-in's formulas in another unit, with its link `wrong` times too large far out."""
    known = objectives.get(name)

    def of(formula: str) -> Any:
        return lambda self, *given: unit * getattr(known, formula)(*given)

    written = {"pointwise": ("a", "b"), "pairwise": ("pair_loss",), "group": ("group_risk",)}
    base = {"pointwise": Pointwise, "pairwise": Pairwise, "group": Group}[form]

    def link(self, u, delta):
        return known.link_formula(u, delta) * xp.where(xp.abs(u) > FAR_OFF, wrong, 1.0)

    body = {formula: of(formula) for formula in written[form]} | {"link_formula": link}
    return type(f"Twin{form}", (base,), body)()


TWINS = [("pointwise", "airl"), ("pairwise", "spin"), ("group", "renyi")]


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e6])
@pytest.mark.parametrize(("form", "name"), TWINS)
def test_a_link_that_is_wrong_where_the_policy_ends_is_not_certified(
    form: str, name: str, unit: float
) -> None:
    """Whatever the unit: the same link is right at a small tau, and wrong at the policy of a large
    one; the gap of its path is no number either."""
    p, ref = np.array([0.5, 0.3, 0.2, 1e-7]), np.array([1e-6, 0.2, 0.3, 0.5])
    p, ref = p / p.sum(), ref / ref.sum()
    right, wrong = (twin(form, name, unit, size) for size in (1.0, 1.01))
    for tau in (0.1, 10.0):
        assert equilibrium(p, ref, right, tau).gap < 1e-12
    assert equilibrium(p, ref, wrong, 0.1).gap < 1e-12
    with pytest.raises(NotConverged, match=r"no best response|not their best") as failed:
        equilibrium(p, ref, wrong, 10.0)
    gap = failed.value.solution.gap
    assert gap > 1e-9
    assert np.isinf(gap) == (form != "pointwise" or unit < 1)  # else what the payoffs gain
    assert failed.value.solution.details["reward_gradient"] > BALANCE
    for obj, finite in ((right, True), (wrong, False)):
        path = self_play(p, ref, obj, beta=1.0, rounds=0, ref=ref, tau=0.5, progress=False)
        assert np.isfinite(path.gap) == finite


def test_a_gain_of_the_laws_that_is_wrong_is_not_certified() -> None:
    """IPO's, right at the Delta that fixed laws have and wrong at that of the policy."""

    class Off(Pairwise):
        name = "off"

        def pair_loss(self, d):
            return xp.square(d - 1.0)

        def gain(self, delta):
            return xp.where(delta < 0.01, 1.001, 1.0) / (1.0 + 0.5 * delta)

    p, ref = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    assert equilibrium(p, ref, Off(), 10.0).gap < 1e-12
    with pytest.raises(NotConverged, match="no best response"):
        equilibrium(p, ref, Off(), 0.01)


@pytest.mark.parametrize("obj", RESPONDING, ids=label)
@pytest.mark.parametrize("spread", [1.0, 8.0, 40.0])
def test_imbalance_of_the_exact_link_is_rounding(obj: Objective, spread: float) -> None:
    """Also at laws hundreds of nats apart and with outcomes of one side; 1e-6 off it is seen."""
    p, q = laws.random_law(np.random.default_rng(0), (2, 4, 5), spread)
    p[2:, 0] = q[3, 1] = 0.0
    p, q = (law / law.sum(-1, keepdims=True) for law in (p, q))
    reward = obj.best_response(p, q)
    assert response_imbalance(obj, p, q, reward).max() < 1e-3 * BALANCE
    if spread == 1.0 and math.isinf(obj.reward_domain[1]):
        shifted = reward + 1e-6 * np.array([0.0, 1.0, 0.0, 0.0, 0.0])
        assert response_imbalance(obj, p[:2], q[:2], shifted[:2]).min() > BALANCE


@pytest.mark.parametrize("name", ["spin", "ipo", "spin_exponential"])
def test_pulls_of_pairs_are_the_gradient_of_the_risk(name: str, monkeypatch) -> None:
    """All pairs at once, in chunks, and of some outcomes of a large law."""
    obj = objectives.get(name)
    p, q = laws.random_law(np.random.default_rng(1), (2, 3, 7), 2.0)
    r = obj.best_response(p, q) + 0.1 * np.arange(7)
    _, *exact = risk_response.risk_gradient(obj.reward_risk, r, p, q)
    for chunk, most, shown in ((2**20, 2**20, 7), (10, 2**20, 7), (2**20, 1, 8), (10, 1, 8)):
        monkeypatch.setattr(pair_response, "CHUNK", chunk)
        monkeypatch.setattr(pair_response, "MOST_PAIRS", most)
        large = [np.concatenate([x, np.zeros((3, 7))], -1) if most == 1 else x for x in (r, p, q)]
        rows, *pulls = obj.pulls(*large)
        assert (rows is None) == (most > 1)
        for found, wanted in zip(pulls, exact, strict=True):
            if rows is not None:
                padded = np.concatenate([wanted, np.zeros((3, 7))], -1)
                wanted = np.take_along_axis(padded, rows, -1)
            assert found.shape == (3, shown)
            np.testing.assert_allclose(found, wanted, atol=1e-15)

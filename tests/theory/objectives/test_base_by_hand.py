"""What every objective derives from its formulas, by numbers written out here."""

from __future__ import annotations

import numpy as np
import pytest

from theory import objectives, xp
from theory.errors import InvalidInput
from theory.objectives import Group, Pairwise, inputs, pair_response, risk_response

U = np.linspace(-3.0, 3.0, 7)


def test_the_link_at_equal_laws_has_the_gain_of_delta_0():
    seen = 0
    for name in objectives.names():
        obj = objectives.get(name)
        if not obj.has_link:
            continue
        np.testing.assert_array_equal(obj.link_at_equal_laws(U), obj.link(U, 0.0))
        seen += obj.has_gain and not np.allclose(obj.link(U, 1.0), obj.link(U, 0.0))
    assert seen


def test_a_slope_has_one_delta_for_all():
    with pytest.raises(InvalidInput, match=r"delta=\[0.1, 0.2\]; needed is one number for all of"):
        objectives.get("spif").slope(U[:2], [0.1, 0.2])


@pytest.mark.parametrize("value", [np.nan, np.inf, "x", None, True, 10**400])
def test_parameters_are_finite_numbers(value):
    with pytest.raises(InvalidInput, match=r"spif: c=.*; needed is a finite number"):
        objectives.get("spif", c=value)


def test_pulls_are_those_of_a_risk_that_is_written():
    """Beside a pair loss too, of which it is then not the mean."""

    class Twice(Pairwise):
        name = "twice"
        citation = "an example"

        def pair_loss(self, d):
            return xp.softplus(-d)

        def reward_risk(self, r_y, r_own, w_y=None, w_own=None, **extras):
            return 2.0 * super().reward_risk(r_y, r_own, w_y, w_own, **extras)

    class Once(Twice):
        reward_risk = Pairwise.reward_risk

    p, q, r = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6]), np.array([0.4, -1.3, 2.0])
    for twice, once in zip(Twice().pulls(r, p, q)[1:], Once().pulls(r, p, q)[1:], strict=True):
        np.testing.assert_allclose(twice, 2.0 * once, atol=1e-12)


@pytest.mark.parametrize("delta", [-0.1, 2.5, [0.5, 2.01], np.nan])
def test_delta_lies_between_0_and_2(delta):
    with pytest.raises(InvalidInput, match="delta"):
        inputs.checked_delta(delta)
    assert inputs.checked_delta(2.0) == 2.0


@pytest.mark.parametrize("wins", [[0.5, 1.5], [-0.1, 0.5], [np.nan, 0.5]])
def test_one_preference_out_of_range_is_enough(wins):
    assert inputs.preference_problems(expert_preference=wins, policy_preference=[0.5, 0.5])
    assert not inputs.preference_problems(expert_preference=[0, 1], policy_preference=[0.5, 0.5])


def test_pair_losses_take_prompts_on_several_axes():
    laws = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3, 5))
    p, q = laws[0], laws[1]
    together = pair_response.of_laws(p, q, lambda d: xp.softplus(-d))
    for at in np.ndindex(p.shape[:-1]):
        alone = pair_response.of_laws(p[at], q[at], lambda d: xp.softplus(-d))
        centred = together[at] - together[at].mean() + alone.mean()
        np.testing.assert_allclose(centred, alone, atol=1e-9)


def test_a_risk_that_is_curved_on_one_side_alone_has_no_slope_at_equal_laws():
    """Rewards above the mean cost twice: of skewed laws more than those below do."""

    class Lopsided(Group):
        name = "lopsided"
        citation = "an example"

        def group_risk(self, r_y, r_own, w_y, w_own):
            up, down = xp.weighted_mean(r_y, w_y), xp.weighted_mean(r_own, w_own)
            off = r_own - down[..., None]
            above = xp.maximum(off, 0.0 * off)
            return xp.weighted_mean(xp.square(off) + xp.square(above), w_own) - (up - down)

    with pytest.raises(ValueError, match="its risk has a corner at equal laws"):
        risk_response.slope_of_risk(Lopsided().reward_risk)

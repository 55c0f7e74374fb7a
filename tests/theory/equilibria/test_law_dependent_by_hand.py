"""A pair loss without a written link: the squared margin's answer is known by hand."""

import numpy as np
import pytest

from theory import equilibrium, xp
from theory.errors import InvalidInput
from theory.objectives import Pairwise

P = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.6, 0.3, 0.0]])
REF = np.array([[0.2, 0.3, 0.5, 0.0], [0.4, 0.3, 0.3, 0.0]])


class Square(Pairwise):
    """(d - 0.7)^2: the best response is kappa (p - pi)/(p + pi), kappa = 0.7/(1 + Delta/2)."""

    name = "square"

    def pair_loss(self, d):
        return xp.square(d - 0.7)


def test_the_fixed_point_of_a_squared_margin():
    """Two prompts with an outcome that nobody plays; Newton's method needs few steps."""
    found = equilibrium(P, REF, Square(), tau=0.2)
    policy, live = found.policy, REF > 0
    assert (policy[~live] == 0).all()
    total = np.where(live, P + policy, 1.0)
    kappa = 0.7 / (1 + 0.5 * ((P - policy) ** 2 / total).sum(-1, keepdims=True))
    reward = kappa * (P - policy) / total
    target = REF * np.exp(reward / 0.2)
    np.testing.assert_allclose(policy, target / target.sum(-1, keepdims=True), atol=1e-12)
    off = np.where(live, found.reward - reward, np.nan)
    np.testing.assert_allclose(np.nanmax(off, -1), np.nanmin(off, -1), atol=1e-10)
    assert found.gap.shape == (2,)
    assert (found.gap <= 1e-13).all()
    assert np.isnan(found.primal).all()
    assert (found.details["reward_gradient"] <= 1e-10).all()
    assert found.iterations <= 8


def test_an_expert_beyond_the_reference_is_refused():
    with pytest.raises(InvalidInput, match="expert has mass"):
        equilibrium([0.5, 0.5], [1.0, 0.0], Square(), tau=0.2)
    np.testing.assert_array_equal(
        equilibrium([0.5, 0.5], [1.0, 0.0], Square(), tau=0.0).policy, [0.5, 0.5]
    )


def test_without_an_anchor_the_policy_is_the_expert():
    found = equilibrium(P, REF, Square(), tau=0.0)
    np.testing.assert_array_equal(found.policy, P)
    assert (found.iterations, found.gap.tolist()) == (0, [0.0, 0.0])
    np.testing.assert_allclose(found.reward, 0.0, atol=1e-12)


def test_a_gap_above_its_tolerance_is_not_converged():
    """Rounding alone is more than 1e-300 nats."""
    found = equilibrium(P, REF, Square(), tau=0.2, tolerance=1e-300, raise_on_failure=False)
    assert found.gap.max() > 1e-300
    assert not found.converged

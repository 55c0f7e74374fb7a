"""A pair loss without a written link: the squared margin's answer is known by hand."""

import numpy as np
import pytest

from theory import equilibrium, xp
from theory.equilibria import law_dependent
from theory.errors import InvalidInput
from theory.objectives import Pairwise

P = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.6, 0.3, 0.0]])
REF = np.array([[0.2, 0.3, 0.5, 0.0], [0.4, 0.3, 0.3, 0.0]])


class Square(Pairwise):
    """(d - 0.7)^2: the best response is kappa (p - pi)/(p + pi), kappa = 0.7/(1 + Delta/2)."""

    name = "square"

    def pair_loss(self, d):
        return xp.square(d - 0.7)


def is_fixed(found, p, ref, tau):
    """The policy is ref e^{r/tau}/Z with the best response to it, which is known."""
    policy, live = found.policy, ref > 0
    total = np.where(live, p + policy, 1.0)
    kappa = 0.7 / (1 + 0.5 * ((p - policy) ** 2 / total).sum(-1, keepdims=True))
    reward = kappa * (p - policy) / total
    target = ref * np.exp(reward / tau)
    np.testing.assert_allclose(policy, target / target.sum(-1, keepdims=True), atol=1e-12)
    off = np.where(live, found.reward - reward, np.nan)
    np.testing.assert_allclose(np.nanmax(off, -1), np.nanmin(off, -1), atol=1e-10)


def test_the_fixed_point_of_a_squared_margin():
    """Two prompts with an outcome that nobody plays; Newton's method needs few steps."""
    found = equilibrium(P, REF, Square(), tau=0.2)
    policy, live = found.policy, REF > 0
    assert (policy[~live] == 0).all()
    is_fixed(found, P, REF, 0.2)
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


def test_where_newtons_method_stops_short_rounds_bring_that_prompt_nearer(monkeypatch):
    """Of the two prompts the first is solved at once, far from the second."""
    p = np.array([[0.5, 0.3, 0.2], [0.9141, 0.0667, 0.0192]])
    ref = np.array([[0.2, 0.3, 0.5], [0.0109, 0.0373, 0.9518]])
    is_fixed(found := equilibrium(p, ref, Square(), tau=0.2), p, ref, 0.2)
    assert found.iterations > law_dependent.ROUNDS
    monkeypatch.setattr(law_dependent, "RESTARTS", 0)
    assert equilibrium(p[0], ref[0], Square(), tau=0.2).iterations in range(2, 9)
    assert (equilibrium(p, ref, Square(), tau=0.2, raise_on_failure=False).gap > 1e-9).tolist() == [
        False, True
    ]  # fmt: skip


def test_rounds_on_the_way_are_those_of_the_game():
    """One round at beta: pi <- (pi^beta ref^tau e^r)^{1/(beta + tau)}/Z."""
    p, ref, policy = P[:, :3], REF[:, :3], np.array([[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])
    total = p + policy
    kappa = 0.7 / (1 + 0.5 * ((p - policy) ** 2 / total).sum(-1, keepdims=True))
    weight = (policy**0.6 * ref**0.2 * np.exp(kappa * (p - policy) / total)) ** (1 / 0.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(law_dependent, "ROUNDS", 1)
        found = law_dependent._rounds(Square(), p, ref, 0.2, 0.6, policy)
    np.testing.assert_allclose(found, weight / weight.sum(-1, keepdims=True), atol=1e-12)

"""What an estimated gap says of the distance, and what it leaves open, from a few numbers."""

from statistics import NormalDist

import numpy as np
import pytest

from theory.equilibria.sampled import sampled_gap

RNG = np.random.default_rng(0)
OWN, REF, ANCHOR = RNG.uniform(-0.5, 0.5, (3, 200))


@pytest.mark.parametrize(("name", "mu"), [("spif", 0.0), ("spin", 1.0)])
def test_the_distance_of_rounds_is_the_gap_s_upper_end_over_the_pull(name, mu):
    """A bounded link is flat far away and pulls no more than the anchor does."""
    found = sampled_gap(name, 0.5, OWN, ANCHOR, REF, kind="equilibrium")
    upper = found.gap.value + NormalDist().inv_cdf(0.95) * found.gap.standard_error
    assert float(found.distance) == pytest.approx(max(float(upper), 0.0) / (0.5 + mu), rel=1e-9)
    assert float(found.distance) > 0


def test_without_the_expert_s_rewards_the_reward_player_s_part_is_left_open():
    found = sampled_gap("spif", 0.5, OWN, ANCHOR, REF, own_ratio=ANCHOR, expert_ratio=ANCHOR)
    assert np.isnan(found.reward_gap.value)
    assert found.gap == found.policy_gap

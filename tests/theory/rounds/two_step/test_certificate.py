"""T10: the certificate of an iterate bounds its distance, and closes where rounds have settled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.rounds.two_step.links import FIXED
from tests.theory.strategies import Instance, games, label
from theory import equilibrium, laws, objectives, self_play
from theory.result import FloatArray


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T10.certificates", regime="tabular")
@given(game=games(max_n=6), tau=st.sampled_from([0.0, 0.2, 1.0]), rounds=st.integers(0, 4))
def test_gap_of_a_path_bounds_its_distance(
    claim, obj, game: Instance, tau: float, rounds: int
) -> None:
    """The certificate of an iterate: F(pi_T) - F(any policy) <= gap, and F is what it says."""
    p, ref = game.expert, game.ref
    path = self_play(p, game.start, obj, beta=1.5, rounds=rounds, ref=ref, tau=tau)
    assume((path.policy > 0).all() and np.isfinite(path.gap).all())

    def value(policy: FloatArray) -> FloatArray:
        return obj.potential(policy, p) + tau * laws.kl(policy, ref)

    size = 1 + np.abs(path.primal).max() + np.abs(path.dual).max()
    claim.close(
        path.primal / size, value(path.policy) / size, 1e-12, what="value of the last policy"
    )
    best = p if tau == 0 else equilibrium(p, ref, obj, tau=tau).policy
    for other in (best, ref, game.start):
        claim.below(
            path.dual / size, value(other) / size, "dual below every policy's value", atol=1e-11
        )


@pytest.mark.claim("T10.certificates", "T10.rounds_end", regime="tabular")
def test_gap_of_a_settled_path_closes(claim) -> None:
    """Where rounds have settled, the certificate says so: the gap is rounding error."""
    rng = np.random.default_rng(0)
    p, q, ref = laws.random_law(rng, (3, 2, 8))
    for tau in (0.0, 0.3):
        path = self_play(p, q, objectives.get("spif"), beta=1.0, rounds=200, ref=ref, tau=tau)
        claim.close(path.gap, 0.0, atol=1e-13, what=f"gap after 200 rounds, tau = {tau:g}")


@pytest.mark.parametrize("tau", [0.0, 0.4])
def test_certificate_looks_only_at_outcomes_with_mass(tau: float) -> None:
    """Outcomes that one side leaves out count, padding does not: the bound by its definition."""
    obj = objectives.get("spif")
    p, q = np.array([0.6, 0.4, 0.0, 0.0]), np.array([0.5, 0.2, 0.3, 0.0])
    ref = np.array([0.3, 0.3, 0.4, 0.0])
    path = self_play(p, q, obj, beta=1.0, rounds=0, ref=ref, tau=tau)
    reward = np.array([np.tanh(0.5 * np.log(1.2)), np.tanh(0.5 * np.log(2.0)), -1.0])
    linear = obj.potential(q, p) + q[:3] @ reward
    best = reward.max() if tau == 0 else tau * np.log(ref[:3] @ np.exp(reward / tau))
    np.testing.assert_allclose(path.dual, linear - best, atol=1e-14)
    swapped = self_play(q, p, obj, beta=1.0, rounds=0)
    np.testing.assert_allclose(swapped.dual, obj.potential(p, q) - p[:3] @ reward - 1.0, atol=1e-14)

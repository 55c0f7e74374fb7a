"""T14 a: the best factor of a round of centred SPIF per token, where 1/(1 + M) is loose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import TokenMDP, objectives, self_play
from theory.result import FloatArray

CENTRED = objectives.get("centred_spif", c=1.0)


def share(x: FloatArray, eta: float) -> FloatArray:
    """What a rare token of ratio x alone has taken off its KL: its fall over its KL."""
    t = (x - 1.0) / (x + 1.0)
    kl = x * np.log(np.maximum(x, 1e-300)) - x + 1.0
    return np.asarray((1.0 + eta * x * t - np.exp(eta * t)) / kl)


def best(most: FloatArray, eta: float) -> FloatArray:
    """The least share among ratios up to ``most``: at one end."""
    return np.asarray(np.minimum(share(np.zeros(()), eta), share(most, eta)))


def said(most: float, eta: float) -> float:
    """T14 a's."""
    return eta * (1 - 0.5 * eta) / (1 + most)


def test_the_least_share_is_at_an_end() -> None:
    for eta in (0.01, 0.1, 0.5, 1.0, 1.5, 2.0):
        for most in np.geomspace(1.1, 1e12, 60):
            x = np.concatenate([np.linspace(0, 1, 400)[:-1], np.geomspace(1.01, most, 400)])
            assert share(x, eta).min() >= best(most, eta) * (1 - 1e-9)


@pytest.mark.claim("T14.token_descent", regime="tabular")
@given(
    seed=st.integers(0, 2**32 - 1),
    eta=st.floats(0.05, 2.0),
    far=st.sampled_from([0.1, 1.0]),
    horizon=st.integers(1, 4),
)
def test_a_round_takes_off_the_best_share(claim, seed: int, eta: float, far, horizon: int) -> None:
    rng = np.random.default_rng(seed)
    game = TokenMDP.random(3, horizon, rng=rng, concentration=far)
    assert game.expert is not None
    start = game.random_policy(rng, far)
    path = self_play(game.expert, start, CENTRED, 1 / eta, 6, one_step=True, game=game,
                     level="conditional")  # fmt: skip
    kl = path.details["kl"][:, 0]
    most = np.exp((game.expert - path.policies).max((-2, -1)))[:-1]
    bound = (1 - best(np.maximum(most, 1.001), eta)) * kl[:-1]
    claim.below(kl[1:], bound, atol=1e-9 * (1 + kl[0]), what="KL of responses, by the best share")


@pytest.mark.claim("T14.token_descent", regime="tabular")
@pytest.mark.parametrize(("ratio", "eta"), [(100.0, 0.5), (1e4, 0.1), (1e4, 1.9), (0.0, 0.5)])
def test_a_rare_token_attains_it(claim, ratio: float, eta: float) -> None:
    """Independent positions, each with a token of that ratio and mass 1e-8, beside one near 1."""
    rare = 1e-8
    game = TokenMDP.tree(vocab=2, horizon=3, eos=None)
    p, q = (np.array([mass, 1 - mass]) for mass in (rare * max(ratio, 1e-9), rare))
    expert, start = (np.tile(np.log(law), (game.n_states, 1)) for law in (p, q))
    path = self_play(expert, start, CENTRED, 1 / eta, 4, one_step=True, game=game,
                     level="conditional")  # fmt: skip
    kl = path.details["kl"][:, 0]
    most = np.exp((expert - path.policies).max((-2, -1)))[:-1]
    foretold = best(most, eta) if ratio > 1 else 1 - np.exp(-eta)
    first = (1 - kl[1] / kl[0]) / np.ravel(foretold)[0]
    claim.close(first, 1.0, 0.01, what="fall of a round over the best share", because="theory")
    if ratio > 1:
        left = kl[4] / kl[0] / np.prod(1 - foretold)
        claim.close(left, 1.0, 0.01, what="KL left by 4 rounds over the product", because="theory")


@pytest.mark.claim("T14.token_descent", regime="tabular")
def test_how_loose_one_over_one_plus_m_is(claim) -> None:
    """Half near the expert; far away M/log M; nothing at eta = 2, where a round takes 86 %."""
    near = said(1.0 + 1e-3, 1e-3) / best(np.array(1.0 + 1e-3), 1e-3)
    claim.close(near, 0.5, 1e-3, what="the stated share over the best one at M = 1",
                because="expansion")  # fmt: skip
    far = np.array(np.exp(30.0))
    claim.close(best(far, 0.5) * 29 / 0.5, 1.0, 1e-9, what="best share by eta/(log M - 1)")
    claim.below(said(float(far), 0.5) / best(far, 0.5), 1e-11, what="the stated share over it")
    assert said(10.0, 2.0) == 0.0
    assert best(np.array(10.0), 2.0) == pytest.approx(1 - np.exp(-2.0))

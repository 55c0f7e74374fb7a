"""T14: how far a round can go per response and per token, and what descends per token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from theory import TokenMDP, laws, objectives, self_play
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.predictions import spif_burn_in

SPIN = objectives.get("spin")
CENTRED = objectives.get("centred_spif", c=1.0)
LEVELS = ("sequence", "conditional")
# objectives of bounded reward, and what sup R - inf R is
BOUNDED = [
    (CENTRED, 2.0),
    (objectives.get("spif", c=2.0), 1.0),
    (objectives.get("spif", c=0.5, alpha=0.2), 6.25),
    (objectives.get("ipo", margin=0.8), 1.6),
]


@st.composite
def far_games(draw: st.DrawFn, horizon: int = 4) -> tuple[TokenMDP, FloatArray, FloatArray]:
    """A tree with an expert and a start that is far from it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    game = TokenMDP.random(
        vocab=draw(st.integers(2, 3)),
        horizon=draw(st.integers(1, horizon)),
        rng=rng,
        concentration=draw(st.sampled_from([0.1, 1.0])),
    )
    assert game.expert is not None
    return game, game.expert, game.random_policy(rng, draw(st.sampled_from([0.1, 1.0])))


def prefix_kl(p: FloatArray, q: FloatArray) -> FloatArray:
    """KL of the next-token laws (..., S)."""
    return np.asarray((np.exp(p) * np.where(np.isneginf(p), 0.0, p - q)).sum(-1))


# --- how far a round goes -------------------------------------------------------------------------


@pytest.mark.claim("T14.nats_a_round", regime="tabular")
@pytest.mark.parametrize(("obj", "spread"), BOUNDED, ids=lambda x: getattr(x, "label", ""))
@given(drawn=far_games(), beta=st.floats(0.2, 3.0))
def test_nats_a_round(claim, obj: Objective, spread: float, drawn, beta: float) -> None:
    """(sup R - inf R)/beta per response; per token as much at each, with and without values."""
    game, p, start = drawn
    length = float(game.occupancy(p).sum())
    own_rows = obj if obj.up_to_constant else None  # whose one loss is the two-step round (T3)
    for one_step, level, tokens in (
        (False, "sequence", 1.0),
        (False, "conditional", game.horizon),
        (True, "conditional", game.horizon),
    ):
        if one_step and own_rows is None:
            continue
        path = self_play(p, start, obj, beta, 3, game=game, level=level, one_step=one_step)
        most = tokens * spread / beta
        moved = np.abs(np.diff(game.log_sequence_law(path.policies), axis=0))
        scale = 1e-9 * (1.0 + np.abs(game.log_sequence_law(start)).max())
        claim.below(moved, most, atol=scale, what=f"|log pi_t+1/pi_t|, {level}")
        fell = -np.diff(path.details["kl"], axis=0)
        claim.below(fell, most, atol=scale, what=f"fall of KL a round, {level}")
        if one_step:
            what = "fall of KL a round, one loss per token: the expert's mean length"
            claim.below(fell, length * spread / beta, atol=scale, what=what)


@pytest.mark.claim("T14.nats_a_round", regime="tabular", drops="bounded_link")
def test_an_unbounded_link_goes_all_the_way(claim) -> None:
    """SPIN at beta = 1 is there in one round from any distance."""
    p = np.array([0.5, 0.5])
    for nats in (20.0, 200.0, 600.0):
        start = np.array([1.0, np.exp(-nats)])
        kl = self_play(p, start / start.sum(), SPIN, 1.0, 1).details["kl"]
        claim.exhibits((kl[0] - kl[1]) / nats, 0.45, what="fall of KL over the start's nats")


@pytest.mark.claim("T14.burn_in_ratio", regime="tabular", drops="bounded_link")
def test_with_an_unbounded_link_it_takes_no_longer_per_response(claim) -> None:
    """SPIN takes half of every log-ratio at beta = 2, whole or by tokens."""
    game, p, start = product(6, [1 - 1e-14, 1e-14], [np.exp(-80.0), 1 - np.exp(-80.0)])
    kl = [
        self_play(p, start, SPIN, 2.0, 12, one_step=True, game=game, level=level).details["kl"]
        for level in LEVELS
    ]
    claim.close(kl[0], kl[1], 1e-9, what="KL per response and per token")
    claim.below(kl[0][-1], 1.0, what="KL after 12 rounds", because="chosen")


# --- the burn-in ----------------------------------------------------------------------------------


def product(
    horizon: int, p: list[float], q: list[float]
) -> tuple[TokenMDP, FloatArray, FloatArray]:
    """Independent positions: the same next-token laws at every prefix."""
    game = TokenMDP.tree(vocab=len(p), horizon=horizon, eos=None)
    expert, start = (np.tile(np.log(law), (game.n_states, 1)) for law in (p, q))
    return game, expert, start


def rounds_until(
    game: TokenMDP, p: FloatArray, start: FloatArray, eta: float, level: str, most: int
) -> int:
    """Rounds until KL(p||pi_t) is at most 1 nat."""
    path = self_play(p, start, CENTRED, 1.0 / eta, most, one_step=True, game=game, level=level)
    near = path.details["kl"][:, 0] <= 1.0
    assert near.any()
    return int(near.argmax())


@pytest.mark.claim("T14.burn_in_ratio", regime="tabular")
def test_per_response_the_burn_in_is_h_times_as_long(claim) -> None:
    """An expert with one response: D/(2 eta) rounds per token, H D/(2 eta) per response."""
    nats, eta, sharp = 80.0, 0.25, 1e-14
    for horizon in (2, 4, 6):
        game, p, start = product(horizon, [1 - sharp, sharp], [np.exp(-nats), 1 - np.exp(-nats)])
        token, whole = (
            rounds_until(game, p, start, eta, level, int(horizon * nats / eta))
            for level in LEVELS[::-1]
        )
        least = spif_burn_in(horizon * nats, eta)
        claim.below(least.at_least, whole, what="rounds per response, at least")
        claim.close(whole, least.at_least, 0.0, 0.01, what="rounds per response", because="theory")
        bound = spif_burn_in(nats, eta, 1.0 / horizon)
        claim.below(bound.at_least, token, what="rounds per token, at least")
        claim.below(token, bound.at_most, what="rounds per token, at most")
        # the last nat has to be shared by H tokens: some log H more rounds of D/(2 eta)
        claim.exhibits(whole / token / horizon, 0.95, what="ratio of the rounds over H")


@pytest.mark.claim("T14.burn_in", regime="tabular")
@given(drawn=far_games(horizon=3), eta=st.floats(0.1, 1.59))
def test_the_burn_in_per_token_is_of_the_farthest_token(claim, drawn, eta: float) -> None:
    """Its log-ratio D needs (D - e)/(2 eta) to (2/eta) log(sinh(D/2)/sinh(e/2)) rounds."""
    game, p, start = drawn
    u = game.conditional_logratio(p, start)
    nats = float(u.max())
    said = spif_burn_in(nats, eta, 0.5)
    assume(0 < said.at_most < 1000)
    rounds = int(said.at_most)
    path = self_play(p, start, CENTRED, 1 / eta, rounds, one_step=True, game=game,
                     level="conditional")  # fmt: skip
    largest = (p - path.policies).max((-2, -1))
    done = int((largest <= 0.5).argmax()) if (largest <= 0.5).any() else rounds + 1
    claim.below(done, said.at_most, what="rounds until log p/pi <= 1/2, at most")
    claim.below(said.at_least, done, what="rounds until log p/pi <= 1/2, at least")
    seen = largest[largest > 1e-3]
    log_sinh = 0.5 * seen + np.log1p(-np.exp(-seen))
    if len(seen) > 1:
        claim.below(np.diff(log_sinh), -0.5 * eta, atol=1e-9, what="change of log sinh(u/2)")
    kl = prefix_kl(p, path.policies).max(-1)
    claim.below(kl[done] if done <= rounds else kl[-1], 0.5, what="largest KL of a prefix then")


@pytest.mark.claim("T14.burn_in", regime="tabular")
def test_both_ends_of_the_burn_in_are_attained(claim) -> None:
    """The least by an expert of one token, the most by a rare token beside one that agrees."""
    eta, nats, reached = 0.1, 300.0, 1.0
    ends = []
    for rare in (1 - 1e-14, 1e-14):
        p = np.array([rare, 1 - rare])
        q = np.array([rare * np.exp(-nats), 1 - rare * np.exp(-nats)])
        nats_ = float(np.log(p[0] / q[0]))
        said = spif_burn_in(nats_, eta, reached)
        path = self_play(p, q, CENTRED, 1 / eta, int(said.at_most), progress=False)
        u = np.log(p[0]) - np.log(path.policies[:, 0])
        ends.append((int((u <= reached).argmax()), said))
    claim.close(ends[0][0] / ends[0][1].at_least, 1.0, 0.01, what="rounds over the least",
                because="theory")  # fmt: skip
    claim.close(ends[1][0] / ends[1][1].at_most, 1.0, 0.01, what="rounds over the most",
                because="theory")  # fmt: skip


@pytest.mark.claim("T14.burn_in", regime="tabular", drops="small_step")
def test_with_long_steps_the_burn_in_need_not_end(claim) -> None:
    """At eta = 6, beyond the threshold 4, the farthest token does not come near."""
    assert spif_burn_in(5.0, 6.0).at_most == np.inf
    game, p, start = product(2, [0.6, 0.4], [0.1, 0.9])
    path = self_play(p, start, CENTRED, 1 / 6.0, 400, one_step=True, game=game,
                     level="conditional")  # fmt: skip
    largest = (p - path.policies).max((-2, -1))
    claim.exhibits(largest[100:].min(), 0.5, what="late largest log p/pi of a token")


# --- what descends --------------------------------------------------------------------------------


@pytest.mark.claim("T14.token_descent", regime="tabular")
@given(drawn=far_games(), eta=st.floats(0.05, 2.0))
def test_kl_of_responses_falls_with_one_loss_per_token(claim, drawn, eta: float) -> None:
    """By the expert's mean of eta (1 - eta/2) Delta over tokens; by 1/(1 + M), M of tokens."""
    game, p, start = drawn
    path = self_play(p, start, CENTRED, 1 / eta, 6, one_step=True, game=game, level="conditional")
    kl = path.details["kl"][:, 0]
    visits = game.occupancy(p).sum(-1)
    delta = laws.triangular(np.exp(p), np.exp(path.policies))
    step = eta * (1 - 0.5 * eta)
    fall = step * (visits * delta).sum(-1)
    claim.below(kl[1:], (kl - fall)[:-1], atol=1e-9 * (1 + kl[0]), what="KL of responses")
    largest = np.exp((p - path.policies).max((-2, -1)))
    claim.below(largest[1:], largest[:-1] * (1 + 1e-9), what="largest p/pi of a token")
    factor = 1 - step / (1 + largest[0])
    bound = kl[0] * factor ** np.arange(7)
    claim.below(kl, bound, atol=1e-9 * (1 + kl[0]), what="KL over the rounds")


@pytest.mark.claim("T14.token_descent", regime="tabular")
@given(drawn=far_games(), beta=st.floats(1.0, 3.0))
def test_spins_kl_of_responses_contracts_per_token(claim, drawn, beta: float) -> None:
    """T6 (iii) at every prefix: 1 - 1/beta for SPIN, at weights that do not move."""
    game, p, start = drawn
    path = self_play(p, start, SPIN, beta, 4, one_step=True, game=game, level="conditional")
    kl = path.details["kl"][:, 0]
    bound = (1 - 1 / beta) * kl[:-1]
    claim.below(kl[1:], bound, atol=1e-9 * (1 + kl[0]), what="KL of responses, SPIN")


SHORT = 0.5
"""SPIF's step in what follows."""


def missed(path: object, game: TokenMDP, p: FloatArray, start: FloatArray) -> tuple[float, float]:
    """What a round's fall of KL lacks of the bound, as a share; growth of the largest p/pi."""
    kl, policies = path.details["kl"][:, 0], path.policies  # type: ignore[attr-defined]
    visits = game.occupancy(p).sum(-1)
    bound = SHORT * (1 - 0.5 * SHORT) * visits @ laws.triangular(np.exp(p), np.exp(start))
    largest = (p - policies).max((-2, -1))
    return float(1 - (kl[0] - kl[1]) / bound), float(np.exp(largest[1] - largest[0]))


@pytest.mark.claim("T14.token_descent", regime="tabular", drops="no_values")
def test_with_values_the_bounds_of_tokens_do_not_hold(claim) -> None:
    """Values draw the policy from prefixes after which it is still far off."""
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        game = TokenMDP.random(3, 4, rng=rng, concentration=0.3)
        assert game.expert is not None
        start = game.random_policy(rng, 0.1)
        path = self_play(game.expert, start, CENTRED, 1 / SHORT, 1, game=game, level="conditional")
        found.append(missed(path, game, game.expert, start))
    lacks, grows = np.max(found, axis=0)
    claim.exhibits(lacks, 0.1, what="what the fall of KL lacks of the bound, as a share")
    claim.exhibits(grows, 1.05, what="growth of the largest p/pi of a token")


@pytest.mark.claim("T14.token_descent", regime="tabular", drops="shift_invariant")
def test_a_pointwise_loss_per_token_descends_less(claim) -> None:
    """It leaves 1 - Z of a position's mass to a token that nobody gives."""
    rare = 1e-9
    rows = (np.array([*row, rare]) / (1 + rare) for row in ([0.95, 0.05], [0.05, 0.95]))
    game = TokenMDP.tree(vocab=3, horizon=2, eos=None)
    p, start = (np.tile(np.log(row), (game.n_states, 1)) for row in rows)
    lacks = {}
    for name in ("spif", "centred_spif"):
        path = self_play(p, start, name, 1 / SHORT, 1, one_step="global", game=game,
                         level="conditional")  # fmt: skip
        lacks[name] = missed(path, game, p, start)[0]
    claim.below(lacks["centred_spif"], 0.0, what="share lacked, centred")
    claim.exhibits(lacks["spif"], 0.2, what="share lacked, pointwise")

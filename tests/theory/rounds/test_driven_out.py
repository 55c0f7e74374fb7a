"""T6, history and errors: which errors of the rewards drive a response out, and which cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.rounds.inexact.played import MIXED, SPIF, SPIN, against
from tests.theory.strategies import Instance, games, label, with_fixed_link
from theory.errors import InvalidInput, Unavailable
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.history import shares_of
from theory.rounds.history_errors import driving_error

BOUNDED = [obj for obj in with_fixed_link() if np.isfinite(obj.reward_bounds[1])]
THREE = np.array([0.45, 0.45, 0.1])


def log_odds(path: FloatArray) -> FloatArray:
    return np.asarray(path[..., 0] - path[..., 1])


def pull(obj: Objective, p: FloatArray, odds: FloatArray) -> FloatArray:
    """Difference of the two rewards (...) at log-odds of the own responses' law."""
    own = -np.logaddexp(0.0, np.stack([-odds, odds], -1))
    r = obj.link(np.log(p) - own, np.zeros((*odds.shape, 1)))
    return np.asarray(r[..., 0] - r[..., 1])


def outermost(obj: Objective, p: FloatArray, size: float) -> float:
    """Log-odds, at most 80, above which the pull is below ``-size``."""
    inside, outside = float(np.log(p[0] / p[1])), 80.0
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        if pull(obj, p, np.array(middle)) < -size:
            outside = middle
        else:
            inside = middle
    return outside


def farthest(obj: Objective, p: FloatArray, size: float, beta: float, earlier: int = 0) -> float:
    """Log-odds that errors of oscillation ``size`` reach at most: so many rounds past that end."""
    most = np.abs(pull(obj, p, np.linspace(-80, 80, 401))).max() + size
    return float(outermost(obj, p, size) + (earlier + 1) * most / beta)


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize("obj", BOUNDED, ids=label)
@given(mass=st.floats(0.05, 0.95), beta=st.floats(0.05, 5.0), old=MIXED,
       share=st.floats(0.0, 0.99), far=st.floats(-30.0, 30.0),
       seed=st.integers(0, 2**32 - 1))  # fmt: skip
def test_less_than_the_driving_error_leaves_log_odds_bounded(
    claim, obj: Objective, mass: float, beta: float, old: list[float], share: float, far: float,
    seed: int,
) -> None:  # fmt: skip
    """Errors that push to one side all the time, and random ones."""
    p, rng = np.array([mass, 1 - mass]), np.random.default_rng(seed)
    size, rounds = share * float(driving_error(obj, p)), 400
    start = np.exp(-np.logaddexp(0.0, [-far, far]))
    game = Instance(p[None], start[None], p[None], rng)
    ahead = rng.choice([-1.0, 1.0], rounds) if seed % 3 else np.full(rounds, 1.0)
    errors = 0.5 * size * np.stack([ahead, -ahead], -1)[:, None]
    path, *_ = against(obj, game, errors, beta, old)
    found, h = log_odds(path)[:, 0], len(shares_of(old)) - 1
    room = [farthest(obj, law, size, beta, h) for law in (p, p[::-1])]
    claim.below(found, max(room[0], far), "log-odds", atol=1e-9)
    claim.below(-found, max(room[1], -far), "log-odds the other way", atol=1e-9)


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize("history", [0.0, 0.5, [0.2, 0.3]])
@pytest.mark.parametrize("p", [[0.7, 0.3], [0.5, 0.3, 0.2], [0.05, 0.9, 0.05]])
def test_the_driving_error_drives_out_the_rarest(claim, p: list[float], history: Any) -> None:
    """All others pushed alike, 1 % beyond it: an end that comes nearer by as much a round."""
    limit, beta, rounds = float(driving_error(SPIF, p)), SPIF.beta_at(0.5), 4000
    error = 1.01 * limit * (np.arange(len(p)) != np.argmin(p))
    game = Instance(*(np.array([p]) for _ in range(3)), np.random.default_rng(0))
    path, *_ = against(SPIF, game, np.tile(error, (rounds, 1, 1)), beta, history)
    lost = -path[:, 0, np.argmin(p)]
    claim.close((lost[-1] - lost[-1001]) / (1000 * 0.01 * limit / beta), 1.0, 1e-2,
                because="expansion", what="nats a round over the excess")  # fmt: skip


def against_others(path: FloatArray, i: int) -> FloatArray:
    """Log-odds (rounds + 1, ...) of one outcome against all others together."""
    return np.asarray(path[..., i] - np.logaddexp.reduce(np.delete(path, i, -1), axis=-1))


def concave_step(obj: Objective) -> float:
    """SPIF's largest effective step at which x e^{R(-log x)/beta} is concave."""
    return float(2.0 * obj.alpha * (1.0 - obj.alpha))


SPIFS = [obj for obj in BOUNDED if obj.name == "spif"]


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize("obj", SPIFS, ids=label)
@given(game=games(max_n=7), share=st.floats(0.01, 1.0), size=st.floats(0.0, 5.0))
def test_up_to_a_step_others_do_no_more_than_one_in_their_place(
    claim, obj: Objective, game: Instance, share: float, size: float
) -> None:
    """A round from one law, and with all others lumped into one that has their largest error."""
    beta = obj.beta_at(share * concave_step(obj))
    errors = game.rng.uniform(0.0, size, (1, *game.expert.shape))
    path, *_ = against(obj, game, errors, beta, 0.0)
    for i in range(game.expert.shape[-1]):
        expert, start = (np.stack([x[:, i], 1.0 - x[:, i]], -1) for x in (game.expert, game.start))
        worst = np.stack([errors[..., i], np.delete(errors, i, -1).max(-1)], -1)
        lumped, *_ = against(obj, Instance(expert, start, expert, game.rng), worst, beta, 0.0)
        more = log_odds(lumped)[1] - against_others(path, i)[1]
        claim.below(more, 0.0, "log-odds lost beyond those of two outcomes", atol=1e-9)


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize("obj", SPIFS, ids=label)
@given(game=games(max_n=6), step=st.floats(0.1, 1.0), share=st.floats(0.0, 0.99))
def test_up_to_that_step_the_rarest_of_many_is_not_driven_out(
    claim, obj: Objective, game: Instance, step: float, share: float
) -> None:
    """All others are pushed alike, or all but one in turn, or at random."""
    p, beta, rounds = game.expert[0], obj.beta_at(step * concave_step(obj)), 300
    i, n, one = int(np.argmin(p)), len(p), slice(0, 1)
    size = share * float(driving_error(obj, p))
    two = np.array([1.0 - p[i], p[i]])
    room = farthest(obj, two, size, beta)
    turns = 1.0 - np.eye(n)[np.arange(rounds) % n]
    for pushed in (np.ones((rounds, n)), turns, game.rng.uniform(0.0, 1.0, (rounds, n))):
        errors = size * (pushed * (np.arange(n) != i))[:, None]
        alone = Instance(game.expert[one], game.start[one], game.ref[one], game.rng)
        path, *_ = against(obj, alone, errors, beta, 0.0)
        lost = -against_others(path, i)[:, 0]
        claim.below(lost, max(room, lost[0]), "log-odds against the rarest", atol=1e-9)


@pytest.mark.claim("T6.driven_out", regime="tabular")
def test_tangents_serve_where_the_weight_is_not_concave(claim) -> None:
    """On (.45, .45, .1) x e^{R(-log x)/beta} lies below those at 1/(1 - p_i) up to step .69."""
    x = np.linspace(0.0, 1.0 / THREE.min(), 200_001)[1:]

    def above(step: float, at: float) -> float:
        beta = SPIF.beta_at(step)
        weight, there = (y * np.exp(SPIF.link(-np.log(y)) / beta) for y in (x, at))
        slope = there / at * (1.0 - float(SPIF.slope(-np.log(at))) / beta)
        return float((weight - there - slope * (x - at)).max())

    for at in 1.0 / (1.0 - THREE[1:]):
        claim.below(above(0.69, at), 0.0, f"weight above the tangent at {at:.2f}", atol=1e-12)
    assert above(0.7, 1.0 / (1.0 - THREE[0])) > 1e-3


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize(
    ("step", "share", "swing"), [(1.6, 0.995, 1.8), (1.8, 0.94, 2.12), (4.0, 0.7, 2.12)]
)
def test_at_larger_steps_less_drives_out_the_third_of_three(
    claim, step: float, share: float, swing: float
) -> None:
    """The two others swing, and their mean reward rises with it: at step 4 by themselves, at less
    by errors that are smaller on the one that is ahead, by what their pull lacks to turn them."""
    top, beta = share * float(driving_error(SPIF, THREE)), SPIF.beta_at(step)
    ahead, behind = SPIF.link(np.log(THREE[:2]) + np.logaddexp(0.0, [-swing, swing]))
    less = max(0.0, 2.0 * swing * beta - (behind - ahead))
    errors = np.array([[top - less, top, 0.0], [top, top - less, 0.0]])
    start = np.array([[1.0, np.exp(-swing), 1e-3]])
    game = Instance(THREE[None], start / start.sum(), THREE[None], np.random.default_rng(0))
    for at, gone in ((0.5, False), (step, True)):
        path, *_ = against(SPIF, game, np.tile(errors, (1000, 1))[:, None], SPIF.beta_at(at), 0.0)
        third = -path[:, 0, 2]
        if gone:
            claim.exhibits(third[-1] - third[1000], 10.0, what=f"nats in 1,000 rounds, step {step}")
        else:
            claim.below(np.abs(third[-1] - third[-1001]), 1e-6, what="nats lost, step 1/2")


@pytest.mark.claim("T6.driven_out", regime="tabular", drops="bounded_link")
def test_spin_beyond_its_threshold_leaves_without_errors(claim) -> None:
    assert driving_error(SPIN, [0.6, 0.4]) == np.inf
    start = np.array([[0.5, 0.5]])
    game = Instance(np.array([[0.6, 0.4]]), start, start, np.random.default_rng(0))
    path, *_ = against(SPIN, game, np.zeros((30, 1, 2)), 0.4, 0.0)
    claim.exhibits(np.abs(log_odds(path)[-1, 0]), 1e3, what="log-odds after 30 rounds")


def test_the_driving_error_by_hand_and_refused() -> None:
    by_hand = 1.0 / 0.7 * (1.0 + 0.3 / (2.0 - 0.3))
    assert float(driving_error("spif(c=0.7)", [0.3, 0.7])) == pytest.approx(by_hand)
    assert driving_error("spif", np.full((2, 3, 4), 0.25)).shape == (2, 3)
    for wrong in ([1.0], [0.5, 0.5, 0.0]):
        with pytest.raises(InvalidInput, match="two outcomes or more"):
            driving_error("spif", wrong)
    with pytest.raises(Unavailable, match="both laws"):
        driving_error("ipo", [0.5, 0.5])
    with pytest.raises(Unavailable, match=r"^sppo has no driving error: it has no expert law$"):
        driving_error("sppo", [0.5, 0.5])

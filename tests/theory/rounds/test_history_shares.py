"""T6, history: rounds whose own responses are those of several earlier opponents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import eval_laguerre

from tests.theory.strategies import Instance, games, label, with_fixed_link
from theory import laws, objectives, self_play
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.history import (
    best_history,
    history_factor,
    history_threshold,
    shares_of,
)

SMOOTH = [obj for obj in with_fixed_link() if obj.name != "ipm"]
BOUNDED = [obj for obj in SMOOTH if np.isfinite(obj.reward_bounds).all()]
P, Q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])


def test_shares_of_the_last_two_by_hand() -> None:
    """SPIN at beta = 2; before the first policy comes the first."""
    path = self_play(P, Q, "spin", beta=2.0, rounds=3, history=[0.25, 0.5]).policies
    for t in range(3):
        last, before = path[max(t - 1, 0)], path[max(t - 2, 0)]
        mixture = 0.25 * path[t] + 0.25 * last + 0.5 * before
        after = path[t] * np.sqrt(P / mixture)
        np.testing.assert_allclose(path[t + 1], after / after.sum(), rtol=1e-12)


def test_the_average_by_hand_and_shares_that_are_one() -> None:
    path = self_play(P, Q, "spin", beta=2.0, rounds=4, history="average").policies
    for t in range(4):
        after = path[t] * np.sqrt(P / path[: t + 1].mean(0))
        np.testing.assert_allclose(path[t + 1], after / after.sum(), rtol=1e-12)
    one = self_play(P, Q, "spif", effective_step=0.7, rounds=9, history=0.3).policies
    same = self_play(P, Q, "spif", effective_step=0.7, rounds=9, history=[0.3]).policies
    zeros = self_play(P, Q, "spif", effective_step=0.7, rounds=9, history=[0.3, 0.0, 0.0]).policies
    assert (one == same).all()
    np.testing.assert_allclose(zeros, one, rtol=1e-14)


SHARES = st.integers(1, 6).flatmap(
    lambda h: st.lists(st.floats(0.01, 1.0), min_size=h + 1, max_size=h + 1).map(
        lambda w: [x / sum(w) for x in w[1:]]
    )
)


def grown(step: float, shares: list[float], rounds: int = 400) -> float:
    """Factor a round of the slowest mode, by the linear recursion itself."""
    weights = shares_of(shares)
    h = len(shares)
    companion = np.zeros((h + 1, h + 1))
    companion[0] = -step * weights
    companion[0, 0] += 1.0
    companion[1:, :-1] = np.eye(h)
    power = np.linalg.matrix_power(companion, rounds)
    return float(np.linalg.norm(power, 2) ** (1 / rounds))


@pytest.mark.claim("T6.history_shares", regime="tabular")
@given(shares=SHARES)
def test_thresholds_of_several_opponents(claim, shares: list[float]) -> None:
    """A root on the circle at the threshold, none outside below it; none stable from 2^{h+1}."""
    edge, most = history_threshold(shares), 2.0 ** (len(shares) + 1)
    claim.close(history_factor(edge, shares), 1.0, 1e-6, what="largest root at the threshold")
    claim.below(edge, most, what="threshold <= 2^{h+1}", atol=1e-9)
    for share in (0.05, 0.4, 0.8, 0.99):
        claim.below(history_factor(share * edge, shares), 1.0, what="largest root below it")
    for step in (1.0, 0.5 * most, most, 1.5 * most):
        least = step ** (1 / (len(shares) + 1)) - 1.0
        claim.below(least, history_factor(step, shares), atol=1e-9, what="s^{1/(h+1)} - 1 <= root")
    assert history_factor(0.7, shares) == pytest.approx(grown(0.7, shares), abs=0.02)


@pytest.mark.claim("T6.history_shares", regime="tabular")
@pytest.mark.parametrize("rounds", [1, 2, 3, 5])
def test_best_and_equal_shares(claim, rounds: int) -> None:
    for part in (0.3, 0.6, 0.95, 1.0):
        step = max(1.0, part * 2.0 ** (rounds + 1))
        best = best_history(step, rounds)
        assert best.shape == (rounds,)
        assert (shares_of(best) > -1e-12).all()
        factor = step ** (1 / (rounds + 1)) - 1.0
        # a root of order h + 1 moves by the (h+1)-th root of the rounding error
        slack = 4.0 * 1e-15 ** (1 / (rounds + 1))
        claim.close(
            history_factor(step, best.tolist()), factor, slack, what="largest root of the best",
            because="solver",
        )  # fmt: skip
    equal = 2 * (rounds + 1) * np.sin(np.pi / (2 * (rounds + 1))) ** 2
    found = history_threshold([1 / (rounds + 1)] * rounds)
    claim.close(found, equal, 1e-7, what="threshold of equal shares")


@pytest.mark.claim("T6.history_shares", regime="tabular")
@given(step=st.floats(1e-3, 0.999), shares=SHARES)
def test_no_shares_contract_by_less_below_step_one(claim, step: float, shares: list[float]) -> None:
    """And from 1/4 on the last opponent is enough, with 1 - sqrt s."""
    best = best_history(step, len(shares))
    factor = history_factor(step, best.tolist())
    claim.below(factor, history_factor(step, shares), atol=1e-7, what="best root <= any")
    if step >= 0.25:
        # a double root moves by the root of the rounding error
        claim.close(factor, 1.0 - np.sqrt(step), 1e-6, what="1 - sqrt s", because="solver")
        np.testing.assert_allclose(best[1:], 0.0, atol=1e-12)


@pytest.mark.claim("T6.history_shares", regime="tabular")
@pytest.mark.parametrize("step", [0.05, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("rounds", [2, 4, 6])
def test_searches_over_the_shares_find_no_better_ones(claim, rounds: int, step: float) -> None:
    """Also where that is not proved: h > 3."""
    rng = np.random.default_rng(rounds)

    def largest(logits: FloatArray) -> float:
        weights = np.exp(logits - logits.max())
        return history_factor(step, (weights / weights.sum())[1:])

    found = min(
        minimize(largest, 3.0 * rng.normal(size=rounds + 1), method="Nelder-Mead",
                 options={"maxiter": 600, "xatol": 1e-9, "fatol": 1e-12}).fun
        for _ in range(8)
    )  # fmt: skip
    best = history_factor(step, best_history(step, rounds))
    claim.below(best, found, atol=1e-7, what="best root <= the least found")


@pytest.mark.claim("T6.history_shares", regime="tabular")
@pytest.mark.parametrize(("step", "rounds"), [(0.5, 1), (0.1, 1), (0.1, 4)])
@pytest.mark.parametrize("name", ["spin", "spif"])
def test_exact_rounds_below_step_one_come_sooner_with_old_responses(
    claim, name: str, step: float, rounds: int
) -> None:
    """The linear recursion's log-ratios, so below the 1 - s of a round without."""
    p, best, played = np.array([0.5, 0.3, 0.2]), best_history(step, rounds), 12
    start = p * np.exp([1e-3, -1e-3, 2e-3])
    start /= start.sum()
    with_old, without = (
        self_play(p, start, name, effective_step=step, rounds=played, history=history)
        for history in (best, 0.0)
    )
    line = [1.0] * (rounds + 1)
    for _ in range(played):
        line.append(line[-1] - step * float(shares_of(best) @ line[: -rounds - 2 : -1]))
    sizes = np.stack([laws.log_ratio(p, law) for law in with_old.policies])
    first, last = np.abs(sizes[[0, -1]]).max(-1)
    claim.close(last / first, line[-1], 1e-2 * (1 - step) ** played, because="expansion",
                what="log-ratios left of the start's")  # fmt: skip
    share = last / np.abs(laws.log_ratio(p, without.policy)).max()
    claim.below(share, 0.9, what="log-ratios left over those without old responses")


def test_the_best_shares_by_hand() -> None:
    """(1 - sqrt s)^2/s; the last alone from 1/4 down, that before it from 4/27 down."""
    assert best_history(0.5, 1) == pytest.approx(3 - 2 * np.sqrt(2), rel=1e-9)
    assert history_factor(0.5, 3 - 2 * np.sqrt(2)) == pytest.approx(1 - np.sqrt(0.5), abs=1e-7)
    assert best_history(0.1, 1).tolist() == [1.0]
    assert history_factor(0.1, 1.0) == pytest.approx((1 + np.sqrt(0.6)) / 2, rel=1e-12)
    np.testing.assert_allclose(best_history(4 / 27, 2), [0.0, 1.0], atol=1e-9)
    assert history_factor(4 / 27, [0.0, 1.0]) == pytest.approx(2 / 3, abs=1e-7)
    a = 0.6  # 2 a (1 - a)^2 = .192; m_1 = a (2 - 3a)/s, m_2 = a^2 (2a - 1)/s
    np.testing.assert_allclose(best_history(0.192, 2), [0.625, 0.375], rtol=1e-9)
    assert history_factor(0.192, [0.625, 0.375]) == pytest.approx(a, abs=1e-7)
    assert best_history(0.02, 3).tolist() == [0.0, 0.0, 1.0]
    assert best_history(1.0, 2).tolist() == [0.0, 0.0]


def test_best_shares_are_shares_at_every_step() -> None:
    """Also where two ages become one, and at steps that rounding hardly tells from 0 or 1."""
    ages = np.arange(1.0, 7)
    edges = (ages / (ages + 1)) ** ages / (ages + 1)
    for step in (*edges, *np.nextafter(edges, 0), *np.nextafter(edges, 1), 1e-300, 1 - 1e-16):
        for rounds in (1, 2, 6, 40):
            best = best_history(float(step), rounds)
            assert best.shape == (rounds,)
            assert (shares_of(best) >= 0).all()
            assert shares_of(best).sum() == pytest.approx(1.0, abs=1e-12)


def test_beyond_the_threshold_larger_steps_may_be_stable_again() -> None:
    """So a threshold is what holds for all smaller steps, not the end of stability."""
    shares = [0.34, 0.1]
    assert history_threshold(shares) == pytest.approx(3.7176, abs=1e-4)
    assert history_factor(5.0, shares) > 1.035
    assert history_factor(6.0, shares) < 0.98
    p = np.array([0.5, 0.3, 0.2])
    near = p * np.exp([1e-4, -1e-4, 0.0])
    for step, grows in ((5.0, True), (6.0, False)):
        path = self_play(
            p, near / near.sum(), "spif", effective_step=step, rounds=150, history=shares
        )
        moved = np.abs(np.log(path.policy / p)).max()
        assert (moved > 1e-3) == grows, moved


def test_a_share_that_rounds_away_changes_no_threshold() -> None:
    assert history_threshold([0.25, 1e-300]) == pytest.approx(4.0, rel=1e-12)


@pytest.mark.claim("T6.history_geometric", regime="tabular")
@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("name", ["spin", "spif"])
def test_geometric_memory(claim, name: str, memory: float) -> None:
    """Rounds against (1-m) sum m^j pi_{t-j}: stable iff s < 2(1+m)/(1-m)."""
    edge = 2 * (1 + memory) / (1 - memory)
    rng = np.random.default_rng(3)
    p = laws.random_law(rng, (5,), 0.5)
    obj = with_name(name)
    for step in (0.97 * edge, 1.03 * edge):
        matrix = [[1 - step * (1 - memory), -step * memory], [1 - memory, memory]]
        root = np.abs(np.linalg.eigvals(matrix)).max()
        claim.exhibits((root - 1.0) * np.sign(step - edge), 1e-4, what="root - 1")
        start = p * np.exp(1e-8 * rng.standard_normal(5))
        law, mean, sizes = start / start.sum(), start / start.sum(), []
        for _ in range(400):
            mean = (1 - memory) * law + memory * mean
            reward = obj.reward(p, mean)
            law = law * np.exp(reward * step / obj.slope_at_zero)
            law = law / law.sum()
            sizes.append(np.abs(law / p - 1).max())
        settles = bool(np.mean(sizes[-20:]) < np.mean(sizes[20:40]))
        assert settles == (step < edge)


def with_name(name: str) -> Objective:
    """A built-in."""
    return next(obj for obj in SMOOTH if obj.name == name)


@pytest.mark.claim("T6.history_average", regime="tabular")
@pytest.mark.parametrize("name", ["spin", "spif", "ipo"])
@pytest.mark.parametrize("step", [0.5, 3.0, 12.0])
def test_fictitious_play_is_stable_at_every_step(claim, name: str, step: float) -> None:
    """Small log-ratios are x_t = L_t(s) x_0, Laguerre's polynomials: t^{-1/4} e^{s/2} at most."""
    rng = np.random.default_rng(5)
    p = laws.random_law(rng, (4,), 0.5)
    start = p * np.exp(1e-7 * rng.standard_normal(4))
    start /= start.sum()
    path = self_play(
        p, start, name, effective_step=step, rounds=300, history="average", progress=False
    )
    x = np.asarray(path.policies) / p - 1.0
    size = np.abs(x[0]).max()
    predicted = eval_laguerre(np.arange(301)[:, None], step) * x[0]
    room = 1e3 * np.exp(step) * size**2 + 1e-13 * np.exp(step)
    claim.close(
        x / size, predicted / size, room / size, what="x_t / |x_0|: L_t(s)", because="expansion"
    )
    late = np.abs(x[200:]).max() / np.abs(x[:40]).max()
    assert late < 1.0


@pytest.mark.claim("T6.history_average", regime="tabular")
@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@given(game=games(), step=st.floats(0.2, 30.0))
def test_the_average_opponent_comes_near_at_any_step(claim, obj, game: Instance, step) -> None:
    """T D_Phi(q_{T-1}||p) + beta KL(p||pi_T) <= beta KL(p||pi_0) + beta sum KL(pi_t||pi_{t+1})."""
    p, beta = game.expert, obj.slope_at_zero / step
    path = self_play(
        p, game.start, obj, beta=beta, rounds=8, history="average", progress=False
    ).policies
    moved = 0.0
    for t in range(8):
        if not (np.asarray(path[t + 1]) > 1e-250).all():
            return
        moved = moved + laws.kl(path[t], path[t + 1])
        average = np.mean(path[: t + 1], axis=0)
        left = (t + 1) * obj.potential(average, p) + beta * laws.kl(p, path[t + 1])
        right = beta * (laws.kl(p, path[0]) + moved)
        claim.below(left / right, 1.0, atol=1e-7, what="(T D_Phi + beta KL_T) / bound")


@pytest.mark.claim("T6.history_bounded", regime="tabular")
@pytest.mark.parametrize("obj", BOUNDED, ids=label)
@given(game=games(), step=st.floats(0.5, 20.0), shares=SHARES)
def test_bounded_rewards_stay_in_reach_whatever_the_shares(
    claim, obj: Objective, game: Instance, step: float, shares: list[float]
) -> None:
    """Log-ratios differ by at most max(at the start, (h+1) G/beta), G the rewards' range."""
    beta = obj.slope_at_zero / step
    low, high = obj.reward_bounds
    path = self_play(
        game.expert, game.start, obj, beta=beta, rounds=30, history=shares, progress=False
    )
    seen = [q for q in path.policies if (q > 1e-280).all()]  # later ones lose digits
    kept = np.stack([laws.log_ratio(game.expert, q) for q in seen])
    spread = kept.max(-1) - kept.min(-1)
    bound = np.maximum(spread[0], (len(shares) + 1) * (high - low) / beta)
    claim.below(spread / bound, 1.0, atol=1e-9, what="spread of log p/pi over its bound")


@pytest.mark.claim("T6.history_bounded", regime="tabular")
@pytest.mark.parametrize("shares", [[1.0], [0.0, 1.0], [0.0, 0.0, 1.0]])
def test_old_ones_alone_take_bounded_rewards_to_the_bound(claim, shares: list[float]) -> None:
    """Hard bounds: h + 1 rounds pass before the sign of what is seen has changed."""
    ipm, p, beta = objectives.get("ipm"), np.array([0.5, 0.5]), 0.02
    start = np.exp([0.005, -0.005]) / np.exp([0.005, -0.005]).sum()
    path = self_play(p, start, ipm, beta=beta, rounds=20, history=shares, progress=False)
    reach = (len(shares) + 1) * (ipm.reward_bounds[1] - ipm.reward_bounds[0]) / beta
    spread = np.abs(np.diff(np.stack([laws.log_ratio(p, q) for q in path.policies]))).max()
    claim.exhibits(spread / reach, 0.999, what="largest spread of log p/pi over its bound")

"""T17: centred SPIF has no partition gap, and what finite groups make of its link."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.stats import binom

from tests.theory.strategies import games
from theory import laws, objectives
from theory.errors import InvalidInput
from theory.objectives.finite_groups import (
    centred_local_gain,
    expected_group_loss,
    finite_group_link,
    group_coefficients,
    renyi_local_gain,
)
from theory.rounds.one_step import one_step_round

SIZES = st.sampled_from([1, 2, 3, 8, math.inf])
GAMMA = st.floats(0.3, 3.0)
RENYI_GROUPS = [(0.2, 2, 8), (0.9, 8, 2), (0.5, 3, 3), (0.35, 5, 2)]  # order, G, K


@pytest.mark.claim("T17", rung="exact")
@given(game=games(max_n=12), beta=st.floats(0.2, 4.0), c=GAMMA, tau=st.sampled_from([0.0, 0.5]))
def test_one_step_is_the_two_step_spif_round(claim, game, beta, c, tau):
    found = one_step_round(
        game.expert,
        game.start,
        objectives.get("centred_spif", c=c),
        beta,
        ref=game.ref,
        tau=tau,
    )
    reward = objectives.get("spif", c=c).reward(game.expert, game.start)
    weight = (beta * np.log(game.start) + tau * np.log(game.ref) + reward) / (beta + tau)
    two = np.exp(weight - weight.max(-1, keepdims=True))
    two /= two.sum(-1, keepdims=True)
    claim.below(
        laws.total_variation(found.policy, two), 1e-8, what="TV from the two-step SPIF round"
    )
    implicit = beta * np.log(found.policy / game.start) + tau * np.log(found.policy / game.ref)
    claim.close(found.reward, implicit, 1e-9, what="implicit reward")
    spread = found.reward.max(-1) - found.reward.min(-1)
    claim.below(spread, 2.0 / c, what="range of the implicit reward against 2/c", atol=1e-9)


@pytest.mark.claim("T17", rung="exact")
@pytest.mark.parametrize(("expert_size", "own_size"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)])
@given(game=games(max_n=3), c=GAMMA)
@settings(max_examples=5)
def test_expected_loss_of_finite_groups(claim, expert_size, own_size, game, c):
    """All groups, one by one, through the objective's own risk."""
    p, q = game.expert[0], game.start[0]
    n, reward = len(p), game.rng.standard_normal(len(p))
    obj = objectives.get("centred_spif", c=c)
    groups = list(itertools.product(range(n), repeat=expert_size + own_size))
    drawn = np.array(groups)
    mine, theirs = drawn[:, :expert_size], drawn[:, expert_size:]
    chance = p[mine].prod(-1) * q[theirs].prod(-1)
    average = chance @ np.asarray(obj.risk(reward[mine], reward[theirs], 1.0))
    predicted = expected_group_loss(p, q, reward, c, expert_size, own_size)
    claim.close(average, predicted, 1e-11, what="mean risk over all groups")


@pytest.mark.claim("T17", rung="exact")
@given(game=games(max_n=6, max_spread=2.0), c=GAMMA, expert_size=SIZES, own_size=SIZES)
def test_finite_group_link(claim, game, c, expert_size, own_size):
    """The closed form minimises the expected loss, and is SPIF's link of another alpha, scaled."""
    p, q = game.expert, game.start
    link = finite_group_link(p, q, c, expert_size, own_size)

    def loss(r):
        return float(expected_group_loss(p[0], q[0], r, c, expert_size, own_size))

    best = loss(link.reward[0])
    # a quadratic function: its gradient is exact by central differences of any size
    n = p.shape[-1]
    gradient = [(loss(link.reward[0] + e) - loss(link.reward[0] - e)) / 2 for e in np.eye(n)]
    claim.close(gradient, 0.0, 1e-10, what="gradient of the expected loss", rtol=0)
    found = minimize(loss, np.zeros(n), method="BFGS", options={"gtol": 1e-9})
    claim.close(best, found.fun, 1e-7, what="least expected loss")
    a, b = group_coefficients(expert_size, own_size)
    spif = objectives.get("spif", c=c, alpha=a / (a + b)).link(laws.log_ratio(p, q))
    shape = link.gain[..., None] * spif
    shape = shape - laws.expect(q, shape)[..., None]
    claim.close(link.reward, shape, 1e-10, what="gain times SPIF's link of alpha = A/(A+B)")
    assert link.alpha == pytest.approx(a / (a + b))


@pytest.mark.claim("T17", rung="exact")
@given(game=games(max_n=8), c=GAMMA)
def test_one_pair_is_ipo_and_infinite_groups_are_exact(claim, game, c):
    p, q = game.expert, game.start
    one = finite_group_link(p, q, c, 1, 1).reward
    ipo = objectives.get("ipo", margin=2.0 / c)
    claim.close(one, ipo.reward(p, q), 1e-10, what="G = K = 1 against IPO with margin 2/c")
    r = game.rng.standard_normal((2, 1))
    pair = np.asarray(objectives.get("centred_spif", c=c).risk(r[0], r[1], 1.0))
    squared = c / 4 * np.asarray(ipo.risk(r[0], r[1], 1.0))
    claim.close(pair, squared, 1e-12, rtol=1e-12, what="risk of one pair against c/4 IPO")
    exact = finite_group_link(p, q, c, math.inf, math.inf)
    claim.close(exact.gain, 1.0, 1e-12, what="gain of infinite groups")
    centred = objectives.get("centred_spif", c=c).reward(p, q)
    claim.close(exact.reward, centred, 1e-10, what="infinite groups against the exact link")


@pytest.mark.claim("T17", rung="exact")
@given(game=games(max_n=6, max_spread=8.0), c=GAMMA, expert_size=SIZES, own_size=SIZES)
def test_the_gain_lies_between_disjoint_and_equal_laws(claim, game, c, expert_size, own_size):
    p, q = game.expert, game.start
    a, b = group_coefficients(expert_size, own_size)
    gain = finite_group_link(p, q, c, expert_size, own_size).gain
    near = centred_local_gain(expert_size, own_size)
    claim.close(near * (a + b), 1.0, 1e-14, what="1/(A+B)")
    claim.below(gain, near, atol=1e-13, what="gain against 1/(A+B)")
    claim.below(-gain, -4 * a * b / (a + b) ** 2, atol=1e-13, what="minus gain, -4AB/(A+B)^2")
    close = finite_group_link(p, p * (1 - 1e-6) + q * 1e-6, c, expert_size, own_size).gain
    claim.close(close, near, 1e-4, what="gain near the expert")
    left, right = np.array([0.3, 0.7, 0.0]), np.array([0.0, 0.0, 1.0])
    apart = finite_group_link(left, right, c, expert_size, own_size).gain
    claim.close(apart, 4 * a * b / (a + b) ** 2, 1e-13, what="gain of disjoint laws")


@pytest.mark.claim(
    "T17", rung="exact", kind="refutes", condition="a gain of 1 is that of exact laws alone"
)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_disjoint_laws_have_gain_one_too(claim, size):
    left, right = np.array([0.4, 0.6, 0.0]), np.array([0.0, 0.0, 1.0])
    gain = finite_group_link(left, right, 0.7, size, size).gain
    claim.close(gain, 1.0, 1e-14, what="gain of groups of equal size, disjoint laws")
    near = finite_group_link(left, left * 0.9 + right * 0.1, 0.7, size, size).gain
    claim.exhibits(near - 1.0, 0.05, what="gain less 1 beside it, overlapping laws")


@pytest.mark.claim("T17", "T6", rung="exact")
@pytest.mark.parametrize(("order", "expert_size", "own_size"), RENYI_GROUPS)
def test_renyi_s_gain_with_groups_of_two_sizes(claim, order, expert_size, own_size):
    """By all groups of two outcomes one by one: the best response near the expert over u."""
    p = np.array([0.3, 0.7])
    slopes = []
    for sign in (1.0, -1.0):
        q = p * np.exp(sign * np.array([1e-4, 0.0]))
        q /= q.sum()
        u = np.log(p[0] / q[0]) - np.log(p[1] / q[1])
        slopes.append(renyi_group_response(p, q, order, expert_size, own_size) / u)
    gain = renyi_local_gain(order, expert_size, own_size)
    claim.close(np.mean(slopes), gain, 1e-5, rtol=1e-5, what="reward over u near the expert")
    if expert_size != own_size:
        old = expert_size / (expert_size - 1)
        claim.exhibits(abs(old / gain - 1), 0.1, what="off G/(G-1), relative")


def renyi_group_response(p, q, order, expert_size, own_size):
    """Reward gap of two outcomes that minimises the expected risk of all groups."""
    renyi = objectives.get("renyi", order=order)
    mine, theirs = (np.arange(size + 1) for size in (expert_size, own_size))
    weight = np.outer(binom.pmf(mine, expert_size, p[0]), binom.pmf(theirs, own_size, q[0])).ravel()
    i, j = (x.ravel() for x in np.indices((expert_size + 1, own_size + 1)))
    first = [np.arange(size) < k[:, None] for size, k in ((expert_size, i), (own_size, j))]

    def slope(gap):
        up, down = (renyi.reward_risk(*((gap + h) * f for f in first)) for h in (1e-5, -1e-5))
        return float(weight @ (up - down)) / 2e-5

    return brentq(slope, -0.1, 0.1, xtol=1e-13)


def test_the_gain_of_one_pair_of_renyi_is_infinite():
    assert renyi_local_gain(0.3, 1, 1) == math.inf
    assert renyi_local_gain(0.3, math.inf, math.inf) == 1.0
    for wrong in ({"order": 1.0}, {"expert_size": 0.5}, {"own_size": 0}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            renyi_local_gain(**{"order": 0.5, "expert_size": 2, "own_size": 2} | wrong)


@pytest.mark.claim("T17", rung="exact")
@pytest.mark.parametrize("own_size", [1, 2, 4, 16])
def test_weight_of_one_expert_response(claim, own_size):
    law = np.array([0.5, 0.5])
    alpha = finite_group_link(law, law, 1.0, 1, own_size).alpha
    claim.close(alpha, own_size / (3 * own_size - 1), 1e-14, what="alpha = K/(3K-1) at G = 1")


@pytest.mark.claim("T17", rung="exact")
def test_gain_on_tanh_falls_with_the_group(claim):
    """5 outcomes, Delta = .73, G = 1: 2/(1 + Delta/2) at K = 1, and less for larger K."""
    rng = np.random.default_rng(4)
    p, q = laws.random_law(rng, (4000, 5), 1.0), laws.random_law(rng, (4000, 5), 1.0)
    near = np.abs(laws.triangular(p, q) - 0.73) < 0.01
    p, q = p[near], q[near]
    shape = np.tanh(0.5 * laws.log_ratio(p, q))
    shape = shape - shape.mean(-1, keepdims=True)
    slopes = []
    for own_size in (1, 2, 4, math.inf):
        reward = finite_group_link(p, q, 1.0, 1, own_size).reward
        slopes.append((shape * reward).sum(-1) / (shape**2).sum(-1))
    steps = np.array(slopes)
    claim.close(steps[0], 2.0 / (1.0 + laws.triangular(p, q) / 2), 1e-12, what="slope at K = 1")
    claim.below(np.diff(steps, axis=0), 0.0, what="slope from one K to the next")
    quoted = np.array([1.46, 1.27, 1.20, 1.14])[:, None]
    claim.below(np.abs(steps - quoted).max(0).min(), 0.03, what="nearest to 1.46/1.27/1.20/1.14")


def test_group_sizes_below_one_are_refused():
    law = np.array([0.5, 0.5])
    with pytest.raises(InvalidInput, match="expert_size=0"):
        finite_group_link(law, law, 1.0, 0, 2)

"""T11: preference alignment is the same round, with winners and losers as expert and own laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import lambertw, logit

from tests.theory.preference_strategies import (
    EVERY,
    KINKED,
    NO_REWARD,
    REWARDED,
    SCALES,
    SMOOTH,
    PreferenceGame,
    has_scale,
    preference_games,
)
from tests.theory.strategies import label
from theory import laws, objectives, preferences, xp
from theory.errors import InvalidInput, NotConverged, Unavailable
from theory.objectives import Objective, derivatives
from theory.result import FloatArray

PAIRWISE = [obj for obj in REWARDED if obj.form == "pairwise"]
MARGINAL = [obj for obj in REWARDED if obj.form != "pairwise"]
LOGISTIC = [objectives.get("dpo"), objectives.get("spin")]


def test_objectives_without_a_reward_say_why() -> None:
    P, policy = preferences.rock_paper_scissors(0.5), np.full(3, 1 / 3)
    assert {obj.name for obj in REWARDED} | NO_REWARD == set(objectives.names())
    for name in NO_REWARD:
        obj = objectives.get(name)
        for call in (
            lambda obj=obj: preferences.reward(P, policy, obj),
            lambda obj=obj: preferences.self_play(P, policy, obj, 1.0, 2),
            lambda obj=obj: preferences.payoff_scale(obj),
            lambda obj=obj: preferences.local_gain(obj),
        ):
            with pytest.raises(Unavailable, match=f"{name} has no reward: "):
                call()


def test_objectives_of_constant_gain_are_enumerated() -> None:
    assert {obj.name for obj in EVERY if obj.name not in NO_REWARD and has_scale(obj)} == {
        obj.name for obj in SCALES
    }
    assert not has_scale(objectives.get("spif", alpha=0.3))
    for obj, scale in SCALES.items():
        assert preferences.payoff_scale(obj) == pytest.approx(scale, abs=1e-15)
    for name in KINKED:
        with pytest.raises(Unavailable, match="not differentiable at 0"):
            preferences.local_gain(objectives.get(name))
    with pytest.raises(Unavailable, match="not differentiable at 0"):
        preferences.local_gain(Flat())


class Flat(objectives.Pairwise):
    """A pairwise loss without curvature at 0."""

    name = "flat"

    def pair_loss(self, d):
        return xp.relu(1.0 - d)


# --- laws of pairs ------------------------------------------------------------------------------


@pytest.mark.claim("T11.winner_loser", regime="tabular")
@given(game=preference_games())
def test_winner_and_loser_laws(claim, game: PreferenceGame) -> None:
    won, lost = preferences.winner_loser(game.P, game.start)
    claim.close(won.sum(-1), 1.0, 1e-14, what="mass of the winner law")
    claim.close(lost.sum(-1), 1.0, 1e-14, what="mass of the loser law")
    claim.close(0.5 * (won + lost), game.start, 1e-15, what="their mean is the policy")
    u = np.log(won / lost)
    rate = preferences.win_rate(game.P, game.start)
    claim.close(u, logit(rate), 1e-12, what="log-ratio against logit P(y > pi)")
    claim.close(preferences.preference_logit(game.P, game.start), u, 1e-12, what="preference_logit")
    # against pairs counted one by one: i wins over j with probability P_ij
    pairs = game.start[..., :, None] * game.start[..., None, :] * game.P
    claim.close(pairs.sum(-1) + 0.0, 0.5 * won, 1e-15, what="winners of all pairs")
    claim.close(pairs.sum(-2), 0.5 * lost, 1e-15, what="losers of all pairs")


def test_logit_is_accurate_for_outcomes_that_nearly_always_win_or_lose() -> None:
    P = np.array([[0.5, 1.0], [0.0, 0.5]])
    u = preferences.preference_logit(P, np.array([1e-200, 1.0]))
    assert u == pytest.approx([np.log(2e200), 0.0], rel=1e-13, abs=1e-15)


# --- best responses -----------------------------------------------------------------------------


@pytest.mark.parametrize("obj", MARGINAL, ids=label)
@pytest.mark.claim("T11.winner_loser", regime="tabular")
@given(game=preference_games())
def test_pointwise_and_group_rewards_are_those_of_winner_and_loser_laws(
    claim, obj: Objective, game: PreferenceGame
) -> None:
    won, lost = preferences.winner_loser(game.P, game.start)
    extras = {}
    if "preference" in obj.needs:
        rate = preferences.win_rate(game.P, game.start)
        extras = {"expert_preference": rate, "policy_preference": rate}
    expected = obj.reward(won, lost, **extras)
    if obj.up_to_constant:
        expected = expected - laws.expect(game.start, expected)[..., None]
    r = preferences.reward(game.P, game.start, obj)
    claim.close(r, expected, 1e-12, rtol=1e-10, what="reward of preference pairs")


@pytest.mark.parametrize(("obj", "scale"), SCALES.items(), ids=str)
@pytest.mark.claim("T11.squared", "T11.sppo", regime="tabular")
@given(game=preference_games())
def test_squared_losses_give_a_multiple_of_the_win_margin(
    claim, obj: Objective, scale: float, game: PreferenceGame
) -> None:
    r = preferences.reward(game.P, game.start, obj)
    margin = 2.0 * (game.P * game.start[..., None, :]).sum(-1) - 1.0
    claim.close(r, scale * margin, 1e-14, rtol=1e-13, what="g (2 P(y > pi) - 1)")


def minimiser_over_pairs(weight: FloatArray, obj: Objective) -> FloatArray:
    """Newton's method on ``sum W_ij l(r_i - r_j)`` as it stands, damped by the risk."""
    n = weight.shape[-1]
    scale = weight.sum((-2, -1))[..., None]
    r = np.zeros(weight.shape[:-1])

    def risk(x: FloatArray) -> FloatArray:
        return (weight * np.asarray(obj.pair_loss(x[..., :, None] - x[..., None, :]))).sum((-2, -1))

    for _ in range(200):
        d = r[..., :, None] - r[..., None, :]
        first, second = (weight * derivatives.derivative(obj.pair_loss, d, k) for k in (1, 2))
        gradient = first.sum(-1) - first.sum(-2)
        if np.abs(gradient / scale).max() <= 1e-13:
            break
        pairs = second + np.swapaxes(second, -1, -2)
        hessian = np.eye(n) * pairs.sum(-1)[..., None] - pairs + scale[..., None] / n**2
        step = np.linalg.solve(hessian, -gradient[..., None])[..., 0]
        for _ in range(60):
            rises = risk(r + step) > risk(r) + 1e-14 * np.abs(risk(r))
            step = np.where(rises[..., None], 0.5 * step, step)
        r = r + step
    return r


@pytest.mark.parametrize("obj", PAIRWISE, ids=label)
@pytest.mark.claim("T11.squared", "T11.logistic", regime="tabular")
@given(game=preference_games())
def test_pairwise_rewards_minimise_the_risk_of_dependent_pairs(
    claim, obj: Objective, game: PreferenceGame
) -> None:
    """Against Newton's method on the weights of all pairs, which divides by no mass."""
    pairs = game.start[..., :, None] * game.start[..., None, :] * game.P
    found = minimiser_over_pairs(pairs, obj)
    found = found - laws.expect(game.start, found)[..., None]
    r = preferences.reward(game.P, game.start, obj)
    # that solver's tolerance, 1e-13, is on gradients; the smallest curvature of a pair divides it
    back = np.swapaxes(pairs, -1, -2)
    accuracy = 1e-12 * pairs.shape[-1] / (pairs * back / (pairs + back)).min()
    claim.close(r, found, accuracy, what="reward against Newton on W", because="solver")
    d = r[..., :, None] - r[..., None, :]
    slope = pairs * derivatives.derivative(obj.pair_loss, d)
    gradient = (slope.sum(-1) - slope.sum(-2)) / game.start
    claim.close(gradient, 0.0, 1e-13, what="gradient of the risk, over the outcome's mass")
    claim.close(laws.expect(game.start, r), 0.0, 1e-12, what="mean reward under the policy")


@pytest.mark.parametrize("name", ["ipo", "inpo"])
@pytest.mark.claim("T11.squared", regime="tabular")
@given(game=preference_games(), margin=st.floats(0.1, 3.0))
def test_dependence_of_pairs_takes_kappa_away(
    claim, name: str, game: PreferenceGame, margin: float
) -> None:
    """On independent winners and losers the same loss has gain m/(1 + Delta/2)."""
    obj = objectives.get(name, margin=margin)
    won, lost = preferences.winner_loser(game.P, game.start)
    delta = laws.triangular(won, lost)[..., None]
    independent = obj.link(np.log(won / lost), delta)
    r = preferences.reward(game.P, game.start, obj)
    claim.close(r, (1 + 0.5 * delta) * independent, 1e-12, what="gain over independent pairs")


@pytest.mark.parametrize("obj", LOGISTIC, ids=label)
@pytest.mark.claim("T11.logistic", regime="tabular")
@given(
    n=st.integers(2, 7),
    spread=st.floats(0.1, 4.0),
    rare=st.floats(0.0, 250.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_dpo_under_bradley_terry_returns_the_score(
    claim, obj: Objective, n: int, spread: float, rare: float, seed: int
) -> None:
    """Also for outcomes of mass down to 1e-250."""
    rng = np.random.default_rng(seed)
    scores, policy = spread * rng.standard_normal((2, n)), laws.random_law(rng, (2, n))
    policy[0, 0] *= 10.0**-rare
    policy /= policy.sum(-1, keepdims=True)
    r = preferences.reward(preferences.bradley_terry(scores), policy, obj)
    centred = scores - laws.expect(policy, scores)[..., None]
    # P is stored to 1e-16, and its logarithmic odds lose e^|score difference| of that
    rounding = 1e-14 * np.exp(np.ptp(scores, axis=-1))[..., None]
    claim.below(np.abs(r - centred), 1e-12 + rounding, what="distance of the reward to the score")


@pytest.mark.claim("T11.dpo_differs", regime="tabular")
def test_dpo_does_not_return_the_log_odds_of_winning(claim) -> None:
    """Scores (0, 1, 4): DPO's reward and logit P(y > pi), which SPPO and IPO see, differ."""
    P, policy = preferences.bradley_terry([0.0, 1.0, 4.0]), np.array([0.5, 0.3, 0.2])
    r = preferences.reward(P, policy, objectives.get("dpo"))
    u = logit(preferences.win_rate(P, policy))
    difference = (r - r[0]) - (u - u[0])
    claim.exhibits(
        np.ptp(difference), 0.5, what="DPO's reward less logit P, up to a constant, nats"
    )
    # so a round goes elsewhere: the same first-order step, another policy
    dpo = preferences.self_play(P, policy, objectives.get("dpo"), 1.0, 1).policy
    sppo = preferences.self_play(P, policy, objectives.get("ipo", margin=2.0), 1.0, 1).policy
    claim.exhibits(
        laws.total_variation(dpo, sppo), 0.05, what="TV of a DPO and an IPO round of equal gain"
    )


@pytest.mark.parametrize("obj", LOGISTIC, ids=label)
@pytest.mark.claim("T11.logistic", regime="tabular")
@given(game=preference_games(), size=st.floats(1e-3, 1.0))
def test_logistic_and_squared_rewards_agree_to_second_order(
    claim, obj: Objective, game: PreferenceGame, size: float
) -> None:
    """|s(d) - 1/2 - d/4| <= |d|^3/48, so r - 2(2P - 1) is at most D^3/12, D the range of r."""
    P = 0.5 + size * (game.P - 0.5)
    r = preferences.reward(P, game.start, obj)
    squared = preferences.reward(P, game.start, objectives.get("ipo", margin=2.0))
    cube = np.ptp(r, axis=-1)[..., None] ** 3
    claim.below(np.abs(r - squared), cube / 12, what="DPO less IPO (m = 2)", atol=1e-13)


def test_first_order_gain_is_the_slope_of_every_reward() -> None:
    """The reward at P = 1/2 + small: local_gain times 2P - 1, for each smooth objective."""
    rng = np.random.default_rng(5)
    small = preferences.random_preference(rng, 5, strength=1e-4)
    policy = laws.random_law(rng, (5,))
    margin = 2.0 * preferences.win_rate(small, policy) - 1.0
    for obj in SMOOTH:
        r = preferences.reward(small, policy, obj)
        r = r - laws.expect(policy, r)
        gain = preferences.local_gain(obj)
        assert r == pytest.approx(gain * margin, abs=3e-8), obj.label
        if obj.has_link:
            assert gain == pytest.approx(2 * float(obj.slope(0.0, 0.0)), rel=1e-12), obj.label


def test_outcomes_that_are_never_drawn_get_the_formula_s_value() -> None:
    P = preferences.random_preference(np.random.default_rng(3), 4)
    policy = np.array([0.2, 0.5, 0.0, 0.3])
    exact = P @ policy
    spif = preferences.reward(P, policy, objectives.get("spif"))
    assert spif == pytest.approx(2 * exact - 1, abs=1e-15)
    dpo = preferences.reward(P, policy, objectives.get("dpo"))
    predicted = (policy / (1 + np.exp(dpo - dpo[:, None]))).sum(-1)
    assert predicted == pytest.approx(exact, abs=1e-14)
    P[2], P[:, 2] = 1.0, 0.0
    P[2, 2] = 0.5
    assert preferences.reward(P, policy, objectives.get("dpo"))[2] == np.inf
    assert preferences.reward(P, policy, objectives.get("airl"))[2] == np.inf
    P[2], P[:, 2] = 0.0, 1.0
    P[2, 2] = 0.5
    assert preferences.reward(P, policy, objectives.get("dpo"))[2] == -np.inf


def test_separable_pairs_are_refused_where_the_loss_has_no_minimiser() -> None:
    order = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]])
    policy = np.full(3, 1 / 3)
    with pytest.raises(InvalidInput, match="outcome 1 never beats 0, directly or in turn"):
        preferences.reward(order, policy, objectives.get("dpo"))
    r = preferences.reward(order, policy, objectives.get("ipo"))
    assert r == pytest.approx([2 / 3, 0.0, -2 / 3])
    cycle = preferences.rock_paper_scissors(1.0)  # certain wins, but everybody beats somebody
    weights = np.array([0.5, 0.3, 0.2])
    r = preferences.reward(cycle, weights, objectives.get("dpo"))
    d = r[:, None] - r
    assert (weights / (1 + np.exp(-d))).sum(-1) == pytest.approx(cycle @ weights, abs=1e-13)
    with pytest.raises(InvalidInput, match=r"prompt \(1,\)"):
        preferences.reward(np.stack([cycle, order]), policy, objectives.get("dpo"))


# --- rounds -------------------------------------------------------------------------------------


def multiplicative_weights(P: FloatArray, start: FloatArray, eta: float, rounds: int) -> FloatArray:
    """SPPO as published: pi_T ∝ pi_0 exp(eta sum_t P(y > pi_t)), in probability space."""
    path, total = [start], np.zeros_like(start)
    for _ in range(rounds):
        total = total + np.einsum("...ij,...j->...i", P, path[-1])
        weight = start * np.exp(eta * (total - total.max(-1, keepdims=True)))
        path.append(weight / weight.sum(-1, keepdims=True))
    return np.stack(path)


@pytest.mark.parametrize(("obj", "scale"), SCALES.items(), ids=str)
@pytest.mark.claim("T11.sppo", "T11.squared", regime="tabular")
@given(game=preference_games(), beta=st.floats(0.2, 5.0))
def test_spif_ipo_and_sppo_rounds_are_multiplicative_weights(
    claim, obj: Objective, scale: float, game: PreferenceGame, beta: float
) -> None:
    """eta_SPPO = 2 g/beta: 2/(beta c) for SPIF, 2 m/beta for IPO, 1/beta for SPPO."""
    path = preferences.self_play(game.P, game.start, obj, beta, 6)
    expected = multiplicative_weights(game.P, game.start, 2.0 * scale / beta, 6)
    assert path.policies is not None
    claim.close(path.policies, expected, 1e-12, what="iterates against SPPO's closed form")


@pytest.mark.claim("T11.sppo", regime="tabular", of="identities")
@given(
    ratios=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    beta=st.floats(0.01, 10.0),
)
def test_sppo_hard_is_the_pointwise_spif_loss(claim, ratios, beta: float) -> None:
    """SPIF with c = 2 is beta^2 [(a - 1/(2 beta))^2 + (b + 1/(2 beta))^2] - 1/2."""
    a, b = (np.array([x]) for x in ratios)
    published = beta**2 * ((a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2)
    loss = objectives.get("spif", c=2.0).loss(a, b, beta)
    claim.close(loss + 0.5, published, 1e-10, rtol=1e-12, what="SPIF (c = 2) + 1/2")
    hard = objectives.get("sppo").loss(
        a, b, beta, expert_preference=np.array([1.0]), policy_preference=np.array([0.0])
    )
    claim.close(hard, published, 1e-10, rtol=1e-12, what="SPPO with labels 1 and 0")


@pytest.mark.claim("T11.anchored", regime="tabular")
@given(game=preference_games(), eta=st.floats(0.2, 5.0), share=st.floats(0.05, 0.95))
def test_inpo_is_magnetic_mirror_descent(
    claim, game: PreferenceGame, eta: float, share: float
) -> None:
    """INPO's published step ∝ exp(P(y > pi_t)/eta) ref^(tau/eta) pi_t^(1 - tau/eta)."""
    tau, pi = share * eta, game.start
    beta = eta - tau
    step = preferences.self_play(game.P, pi, objectives.get("inpo"), beta, 1, game.ref, tau)
    rate = np.einsum("...ij,...j->...i", game.P, pi)
    weight = np.exp(rate / eta) * game.ref**share * pi ** (1 - share)
    published = weight / weight.sum(-1, keepdims=True)
    claim.close(step.policy, published, 1e-13, what="INPO's published step")
    # magnetic mirror descent: the gradient of <r, pi> - beta KL(pi||pi_t) - tau KL(pi||ref) is flat
    r = preferences.reward(game.P, pi, objectives.get("inpo"))
    new = step.policy
    gradient = r - beta * np.log(new / pi) - tau * np.log(new / game.ref)
    claim.close(np.ptp(gradient, axis=-1), 0.0, 1e-11, what="range of the step's gradient, nats")


@pytest.mark.claim("T11.anchored", regime="tabular")
@given(game=preference_games(), beta=st.floats(0.1, 5.0), tau=st.floats(0.05, 2.0))
def test_nash_md_scores_against_the_mixture(
    claim, game: PreferenceGame, beta: float, tau: float
) -> None:
    """Munos et al. 2023: pi^(1 - eta t) ref^(eta t), then e^(eta P); eta t = tau/(beta+tau)."""
    eta, share = 2.0 / (beta + tau), tau / (beta + tau)
    pi = game.start
    for _ in range(2):
        mixture = pi ** (1 - share) * game.ref**share
        mixture = mixture / mixture.sum(-1, keepdims=True)
        weight = mixture * np.exp(eta * np.einsum("...ij,...j->...i", game.P, mixture))
        pi = weight / weight.sum(-1, keepdims=True)
    found = preferences.nash_md(game.P, game.start, game.ref, beta, tau, 2)
    claim.close(found.policy, pi, 1e-13, what="two Nash-MD rounds")


@pytest.mark.claim("T12.nash_md_constant_step", regime="tabular")
def test_nash_md_and_inpo_end_at_different_policies_at_constant_step(claim) -> None:
    """Nash-MD's fixed point tends to the anchored equilibrium only as beta grows."""
    P, ref, tau = preferences.rock_paper_scissors(1.0), np.array([0.6, 0.3, 0.1]), 0.5
    z = preferences.regularised_nash(P, ref, tau).policy
    distance = []
    for beta in (4.0, 40.0):
        inpo = preferences.self_play(P, ref, objectives.get("spif"), beta, 4000, ref, tau)
        claim.close(inpo.policy, z, 1e-9, what="INPO's last iterate and the equilibrium")
        other = preferences.nash_md(P, ref, ref, beta, tau, 4000).policy
        distance.append(float(laws.total_variation(other, z)))
    claim.exhibits(distance[0], 0.01, what="TV of Nash-MD's fixed point from it at beta = 4")
    share = distance[1] / distance[0]
    claim.close(share, 0.1, 0.02, what="its share left at beta = 40", because="expansion")


@pytest.mark.claim("T4.no_dumping", regime="tabular")
@given(game=preference_games(), beta=st.floats(0.2, 5.0))
def test_one_step_sppo_has_a_gap_but_dumps_no_mass(
    claim, game: PreferenceGame, beta: float
) -> None:
    """E_pi[2P - 1] = 0, so log Z >= 0 by Jensen, and the one-step problem is convex.

    min sum pi (x - r)^2 over implicit rewards with sum pi e^{x/beta} <= 1, a convex set: as r is
    outside of it, the minimum has equality, and is the global one over normalised policies.
    """
    pi = game.start[:1]
    pi[0, 0] *= 1e-9  # the rare outcome on which imitation's one step puts mass
    pi /= pi.sum(-1, keepdims=True)
    r = preferences.reward(game.P[:1], pi, objectives.get("spif"))
    log_z = preferences.log_partition(r, pi, beta)
    claim.below(-log_z, 0.0, what="-log Z", atol=1e-14)

    def implicit(multiplier: float) -> FloatArray:
        return r - beta * np.real(lambertw(multiplier * np.exp(r / beta)))

    low, high = 0.0, 1e3
    for _ in range(200):
        middle = 0.5 * (low + high)
        too_much = (pi * np.exp(implicit(middle) / beta)).sum() > 1
        low, high = (middle, high) if too_much else (low, middle)
    x = implicit(high)
    after = pi * np.exp(x / beta)
    claim.close(after.sum(-1), 1.0, 1e-9, what="mass of the one-step policy")
    claim.below(after[..., 0], pi[..., 0] * np.exp(2.0 / beta), what="mass of the rare outcome")
    loss = (pi * (x - r) ** 2).sum(-1)
    dumped = np.concatenate(
        [
            laws.random_law(game.rng, (300, pi.shape[-1]), 2.0),
            after * np.exp(0.1 * game.rng.standard_normal((300, pi.shape[-1]))),
            after + np.linspace(0, 0.5, 100)[:, None] * (np.arange(pi.shape[-1]) == 0),
        ]
    )
    dumped = dumped / dumped.sum(-1, keepdims=True)
    others = (pi * (beta * np.log(dumped / pi) - r) ** 2).sum(-1)
    claim.below(loss, others.min(keepdims=True), what="one-step loss, least rival", atol=1e-9)


# --- shapes, schedules, certificates of the path ------------------------------------------------


def test_a_path_holds_its_iterates_and_gaps() -> None:
    rng = np.random.default_rng(0)
    P, start = preferences.random_preference(rng, 4, (2, 3)), laws.random_law(rng, (3, 4))
    path = preferences.self_play(P, start, objectives.get("sppo"), [1.0, 2.0], 2)
    assert path.policies is not None
    assert path.policies.shape == (3, 2, 3, 4)
    assert path.iterations == 2
    np.testing.assert_allclose(path.policies[0, 1], start, rtol=1e-14)
    np.testing.assert_array_equal(path.policy, path.policies[-1])
    scored = (path.policies[0] / 1.0 + path.policies[1] / 2.0) / 1.5
    np.testing.assert_allclose(path.details["average"], scored, atol=1e-15)
    gaps = np.stack([preferences.duality_gap(P, pi) for pi in path.policies])
    np.testing.assert_allclose(path.details["duality_gap"], gaps, atol=1e-15)
    np.testing.assert_allclose(path.gap, gaps[-1], atol=1e-15)
    np.testing.assert_allclose(path.primal - path.dual, path.gap)
    np.testing.assert_allclose(
        path.details["average_gap"], preferences.duality_gap(P, scored), atol=1e-14
    )
    np.testing.assert_allclose(path.reward, preferences.win_rate(P, path.policy) - 0.5, atol=1e-14)
    alone = preferences.self_play(P[1, 2], start[2], objectives.get("sppo"), [1.0, 2.0], 2)
    np.testing.assert_allclose(alone.policy, path.policy[1, 2], atol=1e-15)
    assert "duality gap of the preference game" in path.status
    assert path.status.startswith("moving")


def test_no_rounds_and_settled_rounds() -> None:
    P, uniform = preferences.rock_paper_scissors(0.4), np.full(3, 1 / 3)
    none = preferences.self_play(P, uniform, objectives.get("spif"), 1.0, 0)
    assert none.policies is not None
    assert none.policies.shape == (1, 3)
    assert not none.converged
    np.testing.assert_array_equal(none.details["average"], uniform)
    still = preferences.self_play(P, uniform, objectives.get("spif"), 1.0, 3, uniform, 0.5)
    assert still.converged
    assert "gap of the anchored game" in still.status
    other = preferences.self_play(P, uniform, objectives.get("dpo"), 1.0, 3, uniform, 0.5)
    assert "gap of the preference game" in other.status
    assert other.details["scale"] is None


def test_zero_mass_stays_zero_and_underflow_does_not() -> None:
    P = preferences.rock_paper_scissors(0.5)
    path = preferences.self_play(P, [0.5, 0.5, 0.0], objectives.get("dpo"), 1.0, 5)
    assert path.policies is not None
    assert (path.policies[..., 2] == 0).all()
    # an outcome of mass e^-1500 wins for sure against the rest, and comes back
    winner = np.array([[0.5, 0.999], [0.001, 0.5]])
    back = preferences.self_play(
        winner, [0.0 + 1e-300, 1.0], objectives.get("spif", c=0.01), 1.0, 20
    )
    assert back.policy[0] > 0.999


def test_an_infinite_reward_is_reported_not_spread() -> None:
    order = np.array([[0.5, 1.0], [0.0, 0.5]])
    start = np.array([1e-20, 1.0])
    # s(-inf) arises once the loser's mass underflows: 0 log-odds of the winner against itself
    with pytest.raises(NotConverged, match="use a bounded link"):
        preferences.self_play(order, start, objectives.get("iq_learn", c=1e-3), 0.01, 50)
    bounded = preferences.self_play(order, start, objectives.get("spif"), 0.01, 50)
    assert bounded.policy == pytest.approx([1.0, 0.0])


def test_alpha_spin_draws_its_pairs_from_the_mixture() -> None:
    rng = np.random.default_rng(2)
    P, start, ref = preferences.random_preference(rng, 4), *laws.random_law(rng, (2, 4))
    obj = objectives.get("alpha_spin", base_weight=0.3)
    found = preferences.self_play(P, start, obj, 2.0, 1, ref, 0.5)
    mixture = start**0.7 * ref**0.3
    mixture /= mixture.sum()
    r = preferences.reward(P, mixture, objectives.get("dpo"))
    weight = (mixture**2.0 * ref**0.5 * np.exp(r)) ** (1 / 2.5)
    np.testing.assert_allclose(found.policy, weight / weight.sum(), atol=1e-13)
    own = preferences.self_play(P, start, obj, 2.0, 1)  # without a reference the start is the base
    plain = preferences.self_play(P, start, objectives.get("dpo"), 2.0, 1)
    np.testing.assert_allclose(own.policy, plain.policy, atol=1e-14)


# --- refusals -----------------------------------------------------------------------------------

RPS = preferences.rock_paper_scissors()
THIRD = np.full(3, 1 / 3)
SPIF = objectives.get("spif")


def changed(i: int, j: int, value: float) -> FloatArray:
    P = RPS.copy()
    P[i, j] = value
    return P


def test_narrower_types_have_their_own_rounding() -> None:
    """A matrix and laws as models give them; laws of pairs are laws again."""
    rng = np.random.default_rng(3)
    score = rng.standard_normal(6).astype(np.float32)
    P = 1.0 / (1.0 + np.exp(score[None, :] - score[:, None]))
    assert P.dtype == np.float32
    exact = preferences.bradley_terry(score)
    np.testing.assert_allclose(preferences.nash(P).policy, preferences.nash(exact).policy)
    law = np.float32(laws.random_law(rng, (6,)))
    for pair in preferences.winner_loser(P, law):
        np.testing.assert_allclose(pair.sum(), 1.0, atol=1e-12)
    with pytest.raises(InvalidInput, match=r"P \+ P\^T at"):
        preferences.nash(P.astype(np.float64) + 1e-7 * np.triu(np.ones((6, 6)), 1))
    weak = preferences.rock_paper_scissors(np.float32(0.5))
    np.testing.assert_array_equal(weak, preferences.rock_paper_scissors(0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preferences.check_preference("P"), "P: not an array of numbers"),
        (lambda: preferences.check_preference(np.ones(3)), r"P: shape \(3,\); needed is"),
        (lambda: preferences.check_preference(np.ones((2, 3))), r"P: shape \(2, 3\)"),
        (lambda: preferences.nash(np.ones((0, 0))), r"P: shape \(0, 0\)"),
        (lambda: preferences.nash(changed(0, 1, np.nan)), r"not finite at \(0, 1\)"),
        (lambda: preferences.nash(changed(0, 1, -0.5)), r"out of range at \(0, 1\) \(-0.5, 1 in"),
        (lambda: preferences.nash(changed(0, 1, 0.25)), r"P \+ P\^T at \(0, 1\) \(1.25, 2 in all"),
        (lambda: preferences.nash(changed(1, 1, 0.0)), r"diagonal at \(1, 1\) \(0, 1 in all"),
        (
            lambda: preferences.nash(changed(2, 1, 1.5) + np.diag([0.1, 0, 0])),
            r"out of range at \(2, 1\).*; .*diagonal at \(0, 0\).*; .*P \+ P\^T at \(1, 2\)",
        ),
        (lambda: preferences.duality_gap(RPS, [0.5, 0.5]), "policy: 2 outcomes on the last axis"),
        (lambda: preferences.win_rate(RPS, [0.5, 0.4, 0.0]), "policy: sums to 0.9"),
        (
            lambda: preferences.win_rate(np.stack([RPS] * 3), np.full((2, 3), 1 / 3)),
            r"prompt axes do not broadcast: P \(3,\), policy \(2,\)",
        ),
        (lambda: preferences.reward(RPS, THIRD, 1), "obj=1; needed is an objective"),
        (lambda: preferences.self_play(RPS, THIRD, 1), "obj=1; needed is an objective"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF), "beta=None; needed is a finite number"),
        (lambda: preferences.exploitability(THIRD, RPS), r"^swapped\? policy is a preference"),
        (lambda: preferences.win_rate(RPS[0], RPS), r"swapped\? policy is a preference"),
        (lambda: preferences.nash(RPS, max_iterations=0), "max_iterations=0; needed is a whole"),
        (
            lambda: preferences.self_play(RPS, THIRD, SPIF, -1.0, 1.5, None, 0.5),
            r"rounds=1.5.*; beta=-1.0.*; tau=0.5 needs ref",
        ),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, [1.0, 2.0], 3), "2 values for 3 rounds"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, "x", 3), "beta='x'; needed is a finite"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, 0.0, 3), r"beta=0.0; .*> 0"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, 1.0, True), "rounds=True; needed is"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, 1.0, 3, THIRD, -1), "tau=-1; needed is"),
        (
            lambda: preferences.self_play(RPS, THIRD, SPIF, 1.0, 3, [0.5, 0.5, 0.0], 0.1),
            r"start has mass at \(2,\) where ref has none",
        ),
        (lambda: preferences.nash_md(RPS, THIRD, THIRD, 1.0, 0.0), "Nash-MD needs ref, tau > 0"),
        (lambda: preferences.nash_md(RPS, THIRD, THIRD, -1.0, 1.0), "beta=-1.0; .*>= 0"),
        (lambda: preferences.regularised_nash(RPS, THIRD, 0.0), "tau=0.0; needed is a finite"),
        (lambda: preferences.regularised_gap(RPS, THIRD, THIRD, 1.0, -1), "scale=-1; needed is"),
        (
            lambda: preferences.regularised_gap(RPS, THIRD, [0.5, 0.5, 0.0], 1.0),
            r"policy has mass at \(2,\) where ref has none",
        ),
        (lambda: preferences.nash(RPS, tolerance=np.nan), "tolerance=nan; needed is"),
        (lambda: preferences.rock_paper_scissors(2.0, 4), r"strength=2.0.*; n=4; needed is an odd"),
        (lambda: preferences.bradley_terry("x"), "scores: not an array of numbers"),
        (lambda: preferences.bradley_terry([0.0, np.inf]), r"scores: shape \(2,\); needed are"),
        (
            lambda: preferences.low_rank(np.random.default_rng(0), 4, 3),
            "rank=3; needed is an even number",
        ),
    ],
)
def test_bad_input_is_refused_with_its_reason(call, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


def test_small_asymmetries_are_evened_out() -> None:
    P = changed(0, 1, RPS[0, 1] + 4e-10)
    checked = preferences.check_preference(P)
    np.testing.assert_array_equal(checked + checked.T, np.ones((3, 3)))
    np.testing.assert_allclose(checked, RPS, atol=3e-10)


def test_generators() -> None:
    rng = np.random.default_rng(0)
    assert preferences.rock_paper_scissors(0.4).tolist() == [
        [0.5, 0.3, 0.7],
        [0.7, 0.5, 0.3],
        [0.3, 0.7, 0.5],
    ]
    five = preferences.rock_paper_scissors(1.0, 5)
    assert five[1].tolist() == [1.0, 0.5, 0.0, 0.0, 1.0]
    assert preferences.bradley_terry([0.0, np.log(3.0)])[1, 0] == pytest.approx(0.75)
    low = preferences.low_rank(rng, 8, 4, (2,))
    assert (np.linalg.matrix_rank(logit(low), tol=1e-9) == 4).all()
    spread = preferences.random_preference(rng, 40, strength=0.5)
    assert np.abs(spread - 0.5).max() == pytest.approx(0.25, abs=0.01)
    for P in (five, low, spread):
        preferences.check_preference(P)

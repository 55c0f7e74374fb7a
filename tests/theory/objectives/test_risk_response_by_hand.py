"""Best responses to risks found by numbers, against closed forms and sums written out here."""

import numpy as np
import pytest

from theory import objectives, xp
from theory.errors import InvalidInput
from theory.objectives import finite_groups, risk_response
from theory.objectives.finite_groups import centred_local_gain, renyi_local_gain

P = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
Q = np.array([[0.2, 0.2, 0.6], [0.3, 0.4, 0.3]])


def centred(reward, law):
    return reward - (law * reward).sum(-1, keepdims=True)


def steep(r_y, r_own, w_y, w_own):
    """E_q e^r - E_p r, whose minimum is log p/q."""
    return (w_own * xp.exp(r_own)).sum(-1) - (w_y * r_y).sum(-1)


def centred_square(r_y, r_own, w_y, w_own):
    """Half the variance of r under q, less the difference of means: r = p/q - 1 up to a shift."""
    mean = (w_own * r_own).sum(-1)
    spread = (w_own * xp.square(r_own)).sum(-1) - xp.square(mean)
    return 0.5 * spread - (w_y * r_y).sum(-1) + mean


def test_best_responses_of_risks_by_their_closed_forms():
    far_p, far_q = np.array([[0.9, 0.0999, 1e-4]]), np.array([[1e-3, 0.009, 0.99]])
    for p, q in ((P, Q), (far_p, far_q)):
        found = risk_response.of_risk(steep, p, q, free=False)
        np.testing.assert_allclose(found, np.log(p / q), atol=1e-10)
        found = risk_response.of_risk(centred_square, p, q, free=True)
        np.testing.assert_allclose(centred(found, q), p / q - 1.0, rtol=1e-9, atol=1e-10)


def test_pulls_of_payoffs_are_masses_times_slopes():
    """Slopes by differences of the payoffs; no mass pulls nothing."""
    p, q, r = np.array([0.7, 0.0, 0.3]), np.array([0.0, 0.6, 0.4]), np.array([0.5, -1.0, 2.0])
    spif = objectives.get("spif", c=0.4)
    rise = np.array([spif.a(r + h) for h in (1e-6, -1e-6)])
    fall = np.array([spif.b(r + h) for h in (1e-6, -1e-6)])
    _, up, down = spif.pulls(r, p, q)
    np.testing.assert_allclose(up, -p * (rise[0] - rise[1]) / 2e-6, rtol=1e-8)
    np.testing.assert_allclose(down, -q * (fall[0] - fall[1]) / 2e-6, rtol=1e-8)
    assert (up[1], down[0]) == (0.0, 0.0)


@pytest.mark.parametrize(("expert", "own", "missing"), [(4, 2, 0.325), (2, 8, 0.3875), (1, 1, 1)])
def test_renyis_gain_in_groups_of_two_sizes(expert, own, missing):
    """Of a group's variance 1/G and 1/K are missing: .7/4 + .3/2, .7/2 + .3/8."""
    gain = renyi_local_gain(0.3, expert, own)
    assert gain == (np.inf if missing == 1 else pytest.approx(1 / (1 - missing)))


@pytest.mark.parametrize(("risk", "free"), [(steep, False), (centred_square, True)])
def test_prompts_at_rest_wait_for_no_other(risk, free):
    """Each has the rewards that it gets alone, and is not looked at again for the far ones."""
    rng = np.random.default_rng(3)
    p, q = (rng.dirichlet(np.full(4, alpha), 12) for alpha in (0.3, 5.0))
    rows = []

    def counted(r_y, *rest):
        rows.append(len(r_y))
        return risk(r_y, *rest)

    found = risk_response.of_risk(counted, p, q, free)
    together, rows[:] = sum(rows), []
    alone = [risk_response.of_risk(counted, p[k : k + 1], q[k : k + 1], free) for k in range(12)]
    np.testing.assert_allclose(found, np.concatenate(alone), rtol=1e-11, atol=1e-12)
    assert together == sum(rows)


def test_prompts_do_not_share_a_gradient():
    r = np.array([[0.3, -0.2, 0.1], [1.0, 0.5, -2.0]])
    value, on_expert, on_own = risk_response.risk_gradient(steep, r, P, Q)
    np.testing.assert_allclose(value, (Q * np.exp(r) - P * r).sum(-1))
    np.testing.assert_allclose(on_expert, -P)
    np.testing.assert_allclose(on_own, Q * np.exp(r))


def test_log_odds_of_a_further_response():
    """``p G_expert' + q G_own' = 0``: of payoffs -r and e^r at log-ratio r, of any others there."""
    reward = np.log(P / Q)
    at = np.array([[-1.0, 0.0, 0.5, 2.0], [0.3, 0.1, -0.2, 1.0]])
    found = risk_response.log_odds_of_risk(steep, at, reward, P, Q)
    np.testing.assert_allclose(found, at, rtol=1e-8, atol=1e-8)
    without = np.where([[True, True, False]] * 2, reward, np.inf)  # masses that have no reward
    np.testing.assert_allclose(
        risk_response.log_odds_of_risk(steep, at, without, P, Q), at, rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("size", [1e-3, 3.0, 1e6])
@pytest.mark.parametrize("own", [1.0, 0.3])
def test_slopes_of_risks_at_equal_laws(size, own):
    """Of a risk of any size whose best response is log p/q beside a constant, -log own: 1."""

    def weighed(r_y, r_own, w_y, w_own):
        return size * steep(r_y, r_own, w_y, own * w_own)

    assert risk_response.slope_of_risk(weighed) == pytest.approx(1.0, rel=1e-9)
    assert risk_response.slope_of_risk(centred_square) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_laws_that_are_far_apart_have_their_log_ratio_to_all_digits(unit):
    """Donsker and Varadhan's risk: r = u, however little the one law gives what the other does."""

    def risk(r_y, r_own, w_y, w_own):
        mean = xp.weighted_mean(r_y, w_y)
        return unit * xp.log(xp.weighted_mean(xp.exp(r_own / unit), w_own)) - mean

    rare = np.array([1e-3, 1e-8, 1e-12, 1e-15])
    two = np.stack([1.0 - rare, rare], -1)
    z = 8.0 * np.random.default_rng(0).normal(size=(2, 20, 7))
    seven = np.exp(z - z.max(-1, keepdims=True))
    seven /= seven.sum(-1, keepdims=True)
    for p, q in ((two, two[:, ::-1].copy()), seven):
        found = risk_response.of_risk(risk, p, q, free=True) / unit
        off = found - np.log(p / q)
        np.testing.assert_allclose(off, np.broadcast_to(off.mean(-1, keepdims=True), off.shape),
                                   atol=1e-12)  # fmt: skip


def test_outcomes_that_nobody_gives_have_no_reward():
    p, q = np.array([[0.6, 0.4, 0.0]]), np.array([[0.5, 0.5, 0.0]])
    found = risk_response.of_risk(steep, p, q, free=False)
    np.testing.assert_allclose(found, [[np.log(1.2), np.log(0.8), 0.0]], atol=1e-12)


def test_slopes_that_cancel_are_balanced_as_far_as_they_are_known():
    """An outcome that wins always: the rewards of both sides are 1e-18 from their bound."""
    p, q = np.array([[2e-18, 0.7, 0.3]]), np.array([[5e-37, 0.6, 0.4]])
    found = risk_response.of_risk(centred_spread, p, q, free=True)
    np.testing.assert_allclose(centred(found, (p + q) / 2), centred(2 * (p - q) / (p + q), p + q),
                               atol=1e-9)  # fmt: skip


def centred_spread(r_y, r_own, w_y, w_own):
    """Difference of means, and a quarter of the spread around their middle: r = 2 (p-q)/(p+q)."""
    expert, own = (w_y * r_y).sum(-1), (w_own * r_own).sum(-1)
    middle = 0.5 * (expert + own)[..., None]
    spread = (w_y * xp.square(r_y - middle)).sum(-1) + (w_own * xp.square(r_own - middle)).sum(-1)
    return own - expert + 0.25 * spread


def test_the_log_ratio_of_a_further_response_by_hand():
    """Of 3 (log E_q e^r - E_p r): the expert's side has slope -3, the own one 3 e^r / E_q e^r."""
    r = np.tile([0.5, -1.0, 2.0], (2, 1))

    def risk(r_y, r_own, w_y, w_own):
        return 3.0 * (xp.log((w_own * xp.exp(r_own)).sum(-1)) - (w_y * r_y).sum(-1))

    found = risk_response.log_odds_of_risk(risk, r, np.log(P / Q), P, Q)
    np.testing.assert_allclose(found, r, atol=1e-8)
    found = risk_response.log_odds_of_risk(risk, r, 1.0 + np.log(P / Q), P, Q)
    np.testing.assert_allclose(found, r - 1.0, atol=1e-8)


def test_a_slope_that_is_another_for_other_laws_is_none():
    """With a share of the curvature by how many responses there are."""

    def crowded(r_y, r_own, w_y, w_own):
        return centred_square(r_y, r_own, w_y, w_own) * (1.0 + 1e-3 * xp.square(w_own).sum(-1))

    def crowded_curvature(r_y, r_own, w_y, w_own):
        spread = centred_square(r_y, r_own, w_y, w_own)
        mean = (w_own * r_own).sum(-1)
        more = (w_own * xp.square(r_own)).sum(-1) - xp.square(mean)
        return spread + 0.05 * xp.square(w_own).sum(-1) * more

    assert risk_response.slope_of_risk(crowded) == pytest.approx(1.0, rel=1e-9)
    with pytest.raises(ValueError, match="no function of the laws of the rewards alone"):
        risk_response.slope_of_risk(crowded_curvature)


@pytest.mark.parametrize("missed", [1.0, 5.0, 10.0, 20.0])
def test_slopes_of_losses_that_bend_in_less_than_their_rewards(missed):
    """Of softplus(missed - d): -l'/(2 l'') = 1/(2 s(-missed)), e^missed times the loss's scale."""

    def late(r_y, r_own, w_y, w_own):
        pairs = xp.softplus(missed - r_y[..., :, None] + r_own[..., None, :])
        return xp.weighted_mean(xp.weighted_mean(pairs, w_own[..., None, :]), w_y)

    wanted = 0.5 * (1.0 + np.exp(missed))
    assert risk_response.slope_of_risk(late) == pytest.approx(wanted, rel=1e-6)


def test_an_outcome_of_little_mass_is_settled_as_any():
    p, q = np.array([[0.6, 0.4 - 1e-12, 1e-12]]), np.array([[0.3, 0.7 - 1e-7, 1e-7]])
    found = risk_response.of_risk(steep, p, q, free=False)
    np.testing.assert_allclose(found, np.log(p / q), rtol=1e-10)


def test_gains_of_groups_and_orders_out_of_range():
    assert centred_local_gain(4, 4) == pytest.approx(8 / 7)
    assert centred_local_gain(1, np.inf) == pytest.approx(1 / 0.75)
    for order in (0.0, 1.0, 1.5, -0.2):
        with pytest.raises(InvalidInput, match="within"):
            renyi_local_gain(order, 2, 2)


def test_a_link_that_jumps_has_no_slope_at_zero():
    assert objectives.get("ipm").slope_at_zero == np.inf
    assert objectives.get("spif", c=0.4).slope_at_zero == pytest.approx(1.25)


def test_as_many_kinds_are_gone_through_as_there_are_numbers_for(monkeypatch):
    """Of k kinds there are k(k+1)/2 groups of two; of all responses at once there is one."""
    monkeypatch.setattr(finite_groups, "FEWEST_KINDS", 2)
    monkeypatch.setattr(finite_groups, "MOST_NUMBERS", 5 * 7 * (7 * 8 // 2))
    for sizes in ((np.inf, 2), (2, np.inf)):
        assert finite_groups._kinds(5, 9, *sizes) == 7
        assert finite_groups._kinds(5, 6, *sizes) == 6
    assert finite_groups._kinds(5, 9, 2, 2) == 3  # 5 * 3 * 6 * 6, and not 5 * 4 * 10 * 10
    with pytest.raises(ValueError, match="too many to go through"):
        finite_groups._kinds(5000, 9, 2, 2)

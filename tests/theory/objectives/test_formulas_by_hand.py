"""Every formula of the registered objectives typed a second time, at three outcomes."""

from itertools import product
from math import inf, log

import numpy as np
import pytest
import torch

from theory import objectives, xp
from theory.errors import InvalidInput, Unavailable
from theory.objectives import Group, Objective, Pairwise, Pointwise, implicit
from theory.objectives.finite_groups import (
    expected_group_loss,
    finite_group_link,
    group_coefficients,
)

P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
U, M = np.log(P / Q), (P + Q) / 2
DELTA = ((P - Q) ** 2 / (P + Q)).sum()
C = 0.7


def close(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def kl(p, q):
    return (p * np.log(p / q)).sum()


def s(r):
    return 1 / (1 + np.exp(-r))


POINTWISE = {
    f"spif(c={C},alpha=0.3)": (
        lambda r: r - 0.3 * C * r**2,
        lambda r: -r - 0.7 * C * r**2,
        (P - Q) / (2 * C * (0.3 * P + 0.7 * Q)),
        kl(P, 0.3 * P + 0.7 * Q) / (2 * C * 0.49),
    ),
    f"iq_learn(c={C})": (
        lambda r: r - C * r**2, lambda r: -r, (1 - Q / P) / (2 * C),
        ((P - Q) ** 2 / P).sum() / (4 * C),
    ),
    f"policy_only(c={C})": (
        lambda r: r, lambda r: -r - C * r**2, (P / Q - 1) / (2 * C), kl(P, Q) / (2 * C),
    ),
    "nwj": (lambda r: r, lambda r: -np.exp(r - 1), 1 + U, kl(Q, P)),
    "exponential": (lambda r: -np.exp(-r), lambda r: -np.exp(r), U / 2, kl(Q, P) / 2),
    "gail": (
        lambda r: np.log(1 - np.exp(-r)), lambda r: -r, np.log(1 + P / Q), kl(P, M) + kl(Q, M),
    ),
    "airl": (lambda r: np.log(s(r)), lambda r: np.log(s(-r)), U, kl(Q, P)),
    "space(mu=0.6)": (
        lambda r: -np.log(1 + 0.6 * np.exp(-r)), lambda r: -0.6 * np.log(1 + np.exp(r) / 0.6),
        U, kl(Q, P),
    ),
    "brier": (lambda r: -(s(-r) ** 2), lambda r: -(s(r) ** 2), U, kl(Q, P)),
    "ipm(bound=0.7)": (
        lambda r: r, lambda r: -r, 0.7 * np.sign(U), 0.7 * np.abs(P - Q).sum(),
    ),
}  # fmt: skip


def conic_value(form):
    import cvxpy as cp

    value, cones = form
    return cp.Problem(cp.Minimize(value), cones).solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("name", POINTWISE)
def test_a_pointwise_objective(name):
    a, b, reward, potential = POINTWISE[name]
    obj = objectives.of(name)
    for r in (reward, torch.from_numpy(reward)):
        close(obj.a(r), a(reward))
        close(obj.b(r), b(reward))
    close(obj.reward(P, Q), reward)
    close(obj.link(U), reward)
    close(obj.potential(Q, P), potential, 1e-9)
    value = (P * a(reward) + Q * b(reward)).sum()
    close(obj.value(P, Q, reward), value)


@pytest.mark.parametrize("name", POINTWISE)
def test_the_cones_of_a_pointwise_objective(name):
    import cvxpy as cp

    a, b, reward, potential = POINTWISE[name]
    obj = objectives.of(name)
    value = (P * a(reward) + Q * b(reward)).sum()
    assert conic_value(obj.conic_game(P, cp.Constant(Q))) == pytest.approx(value, abs=1e-6)
    found = conic_value(obj.conic_potential(P, cp.Constant(Q)))
    assert found == pytest.approx(potential, abs=1e-6)


def test_sppos_formulas():
    sppo, r = objectives.get("sppo"), np.array([0.3, -0.2])
    close(sppo.a(r), -((r - 0.5) ** 2))
    close(sppo.b(r), -((r + 0.5) ** 2))
    close(sppo.link(U), 0.5 * (P - Q) / (P + Q))
    wins = {"expert_preference": np.array([0.9, 0.5, 0.1]), "policy_preference": Q}
    close(sppo.reward(P, Q, **wins), (P * [0.9, 0.5, 0.1] + Q * Q) / (P + Q) - 0.5)


# -- pairs ----------------------------------------------------------------------------------------


def test_pair_losses_and_their_gains():
    d = np.array([-1.2, 0.0, 0.4])
    for name in ("spin", "dpo", "alpha_spin", "tspin"):
        close(objectives.get(name).pair_loss(d), np.log(1 + np.exp(-d)))
        close(objectives.get(name).pair_loss(torch.from_numpy(d)), np.log(1 + np.exp(-d)))
    close(objectives.get("spin_exponential").pair_loss(d), np.exp(-d))
    close(objectives.get("spin_hinge").pair_loss(d), [2.2, 1.0, 0.6])
    close(objectives.get("spin_hinge").pair_loss(torch.from_numpy(d)), [2.2, 1.0, 0.6])
    ipo = objectives.get("ipo", margin=C)
    close(ipo.pair_loss(d), (d - C) ** 2)
    close(ipo.gain(DELTA), C / (1 + DELTA / 2))
    tanh = (P - Q) / (P + Q)
    expected = C / (1 + DELTA / 2) * tanh
    close(ipo.reward(P, Q), expected - (Q * expected).sum())
    wins = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.6], [0.8, 0.4, 0.5]])
    close(ipo.preference_response(wins, Q), C * (2 * wins @ Q - 1))
    batch = np.stack([wins, wins.T])
    close(ipo.preference_response(batch, np.stack([Q, P])), C * (2 * np.stack([
        wins @ Q, wins.T @ P]) - 1))  # fmt: skip


def test_the_loss_with_a_history_and_the_mixed_opponent():
    tspin = objectives.get("tspin", history_weight=0.3)
    r = {"r_history": 0.1}
    loss = np.log(1 + np.exp(-(0.4 + 0.2))) + 0.3 * np.log(1 + np.exp(-(-0.2 - 0.1)))
    close(tspin.reward_loss(0.4, -0.2, **r), loss)
    mixed = P**0.75 * Q**0.25
    mixed = np.log(mixed / mixed.sum())
    weighted = objectives.get("alpha_spin", base_weight=0.25)
    close(weighted.opponent(np.log(P), np.zeros(3), np.log(Q)), mixed)
    # sum_j (w_ij s(-d_ij) - w_ji s(d_ij)) = 0 over pairs of (expert, own) and own over history
    h = np.array([0.1, 0.6, 0.3])
    for history, pairs in ((None, np.outer(P, Q)), (h, np.outer(P, Q) + 0.3 * np.outer(Q, h))):
        found = tspin.reference_free_response(P, Q, history)
        d = found[:, None] - found
        close((pairs * s(-d) - pairs.T * s(d)).sum(-1), 0.0, 1e-10)


class Square(Pairwise):
    """A squared margin that says nothing of its link."""

    def pair_loss(self, d):
        return xp.square(d - 0.7)


def test_a_pair_loss_without_a_link():
    laws = np.stack([P, Q]), np.stack([Q, np.array([0.1, 0.1, 0.8])])
    kappa = 0.7 / (1 + 0.5 * ((laws[0] - laws[1]) ** 2 / sum(laws)).sum(-1, keepdims=True))
    reward = kappa * (laws[0] - laws[1]) / sum(laws)
    reward = reward - (laws[1] * reward).sum(-1, keepdims=True)
    obj = Square()
    assert obj.law_dependent
    close(obj.reward(*laws), reward, 1e-9)
    assert obj.slope_at_zero == pytest.approx(0.35)
    assert obj.beta_at(0.5) == pytest.approx(0.7)
    odds = obj.log_odds(reward, reward, *laws)
    close(odds, np.log(laws[0] / laws[1]), 1e-8)
    link = obj.link_of(P, Q)
    close(link(U), reward[0], 1e-8)
    for name in ("spif", "ipo", "tspin", "spin_hinge"):
        assert not objectives.get(name).law_dependent


# -- groups ---------------------------------------------------------------------------------------

R_Y, R_OWN = np.array([0.4, -0.3, 1.1]), np.array([0.2, 0.9, -0.5])


def test_risks_of_groups():
    spif, renyi = objectives.get("centred_spif", c=C), objectives.get("renyi", order=0.3)
    for w_y, w_own in ((P, Q), (None, None), (2 * P, 3 * Q)):
        p, q = (np.full(3, 1 / 3) if w is None else w / w.sum() for w in (w_y, w_own))
        gap = p @ R_Y - q @ R_OWN
        spread = p @ R_Y**2 - (p @ R_Y) ** 2 + q @ R_OWN**2 - (q @ R_OWN) ** 2
        close(spif.group_risk(R_Y, R_OWN, w_y, w_own), C * (spread / 2 + (gap / 2 - 1 / C) ** 2))
        risk = np.log(p @ np.exp(-0.7 * R_Y)) / 0.7 + np.log(q @ np.exp(0.3 * R_OWN)) / 0.3
        close(renyi.group_risk(R_Y, R_OWN, w_y, w_own), risk)
    two = np.stack([R_Y, R_OWN])
    close(spif.group_risk(two, two, None, None)[1], spif.group_risk(R_OWN, R_OWN, None, None))
    masked = renyi.group_risk(R_Y, R_OWN, np.array([0.5, 0.5, 0.0]), None)
    close(masked, renyi.group_risk(R_Y[:2], R_OWN, None, None))


def test_the_expected_loss_of_finite_groups():
    """Groups of two expert responses and one own one, all of them."""
    spif = objectives.get("centred_spif", c=C)
    total = sum(
        P[i] * P[j] * Q[k] * float(spif.group_risk(R_Y[[i, j]], R_Y[[k]], None, None))
        for i, j, k in product(range(3), repeat=3)
    )
    close(expected_group_loss(P, Q, R_Y, C, 2, 1), total)
    assert group_coefficients(2, 1) == (0.375, 0.25)
    assert group_coefficients(inf, inf) == (0.5, 0.5)
    for sizes in ((0.5, 2), (2, 0), (1.5, 2), (2, 2.5), ("a", 1), (2, True)):
        with pytest.raises(InvalidInput, match="needed is a whole number >= 1, or inf"):
            group_coefficients(*sizes)


def test_the_best_response_to_finite_groups():
    """Of one and one it is IPO's of margin 2/c, of the exact laws SPIF's; else it is least."""
    ipo = objectives.get("ipo", margin=2 / C).reward(P, Q)
    close(finite_group_link(P, Q, C, 1, 1).reward, ipo)
    exact = finite_group_link(P, Q, C, inf, inf)
    close(exact.gain, 1.0)
    close(exact.reward, objectives.get("centred_spif", c=C).reward(P, Q))
    found = finite_group_link(P, Q, C, 2, 1)
    assert found.alpha == pytest.approx(0.6)
    mixture = 2 * C * (0.6 * P + 0.4 * Q)
    link = (P - Q) / mixture
    close(found.reward, found.gain * (link - (Q * link).sum()))
    for i, sign in product(range(3), (1, -1)):
        moved = found.reward + 1e-3 * sign * np.eye(3)[i]
        least = expected_group_loss(P, Q, found.reward, C, 2, 1)
        assert expected_group_loss(P, Q, moved, C, 2, 1) > least
    padded = finite_group_link(np.append(P, 0.0), np.append(Q, 0.0), C, 2, 1)
    close(padded.reward, np.append(found.reward, 0.0))


class Unlinked(Group):
    """Centred SPIF's risk that says nothing of its link."""

    def group_risk(self, r_y, r_own, w_y, w_own):
        return objectives.get("centred_spif", c=C).group_risk(r_y, r_own, w_y, w_own)


class Level(Group):
    """A risk that sees a shift, a little."""

    def group_risk(self, r_y, r_own, w_y, w_own):
        return 0.05 * xp.weighted_mean(r_y, w_y)


def test_a_group_risk_without_a_link():
    laws = np.stack([P, Q]), np.stack([Q, np.array([0.1, 0.1, 0.8])])
    reward = (laws[0] - laws[1]) / sum(laws) / C
    reward = reward - (laws[1] * reward).sum(-1, keepdims=True)
    obj = Unlinked()
    assert obj.up_to_constant
    close(obj.reward(*laws), reward, 1e-8)
    assert obj.slope_at_zero == pytest.approx(0.5 / C)
    assert not Level().up_to_constant
    assert objectives.get("centred_spif", c=0.05).up_to_constant  # a risk of about 20


# -- what all have in common ----------------------------------------------------------------------


def test_the_implicit_reward_in_numbers():
    spin, free = objectives.get("spin"), objectives.get("tspin")
    assert implicit.of_logratios(0.3, 2.0) == pytest.approx(0.6)
    assert implicit.of_logratios(0.3, 2.0, 0.7, 0.5) == pytest.approx(0.95)
    assert implicit.of_logratios(0.3, 2.0, 0.7) == pytest.approx(0.6)
    assert implicit.implicit_reward(spin, -1.0, -3.0, 0.5) == pytest.approx(1.0)
    assert implicit.implicit_reward(spin, -1.0, -3.0, 0.5, -2.0, 3.0) == pytest.approx(4.0)
    assert implicit.implicit_reward(spin, -1.0, -3.0, 0.5, -2.0) == pytest.approx(1.0)
    assert implicit.implicit_reward(free, -1.0, None, 0.5) == pytest.approx(-0.5)


class Plain(Pointwise):
    """SPIF's payoffs of c = 1 alone."""

    def a(self, r):
        return r - 0.5 * r * r

    def b(self, r):
        return -r - 0.5 * r * r


def test_what_follows_from_payoffs_alone():
    p, q = np.array([[0.5, 0.5, 0.0]]), np.array([[0.2, 0.5, 0.3]])
    expected = 2 * np.where(p > 0, p * np.log(2 * np.maximum(p, 0.1) / (p + q)), 0.0).sum(-1)
    close(Plain().potential(q, p), expected, 1e-9)
    close(Plain().reward(p, q), (p - q) / (p + q), 1e-9)
    assert Plain().slope_at_zero == pytest.approx(0.5)
    assert Plain().has_saddle
    assert not objectives.get("spin").has_saddle


class Leap(Objective):
    """A link of slope 1/2 everywhere else that jumps by 0.2 at 0."""

    name = "leap"

    def link_formula(self, u, delta):
        return 0.5 * u + 0.1 * xp.sign(u)


def test_a_link_that_rises_and_jumps_has_no_slope_at_zero():
    assert Leap().slope_at_zero == inf
    assert Leap().reward_bounds == (-inf, inf)


def test_slopes_steps_and_first_gradients():
    assert objectives.get("ipm").slope_at_zero == inf
    with pytest.raises(Unavailable, match="jumps at 0"):
        objectives.get("ipm").beta_at(0.5)
    assert objectives.get("spif", c=C).beta_at(0.25) == pytest.approx(2 / C)
    for step in (0.0, -1.0, inf):
        with pytest.raises(InvalidInput, match="finite number > 0"):
            objectives.get("spif").beta_at(step)
    assert objectives.get("spin").gradient_at_start == pytest.approx((-0.5, 0.5))
    assert objectives.get("spif").gradient_at_start == pytest.approx((-1.0, 1.0))
    assert objectives.get("spin").rewards_expert
    for name in ("gail", "spif", "ipm"):
        assert objectives.get(name).rewards_expert
    with pytest.raises(InvalidInput):
        objectives.get("spif", c=-1.0)


def test_padding_has_no_reward_and_no_weight():
    p, q = np.append(P, 0.0), np.append(Q, 0.0)
    for name in ("spif", "ipo"):
        obj = objectives.get(name)
        close(obj.reward(p, q), np.append(obj.reward(P, Q), 0.0))
    close(objectives.get("spin").centred(np.array([1.0, 3.0, 9.0]), np.array([1.0, 0, 0]),
          np.array([0.5, 0.5, 0])), [-1.0, 1.0, 0.0])  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"beta": 0.0}, "beta=0.0; needed is a finite number > 0"),
        ({"beta": "1"}, "beta='1'; needed"),
        ({"x": None}, "expert_logratio=None; needed are numbers"),
        ({"x": "1"}, "expert_logratio='1'; needed are numbers"),
        ({"x": 1.0}, r"expert_logratio: shape \(\) has no responses"),
        ({"x": np.zeros(0)}, r"expert_logratio: shape \(0,\) has no responses"),
        ({"y": 1.0}, r"policy_logratio: shape \(\) has no responses"),
        ({"expert_weight": [1.0, -1.0]}, "expert_weight: needed are finite numbers >= 0"),
        ({"expert_weight": [1.0, np.nan]}, "expert_weight: needed are finite numbers >= 0"),
        ({"policy_weight": 1.0}, "policy_weight: a single number"),
        ({"policy_weight": [0.0, 0.0, 0.0]}, "policy_weight: all 0 for a prompt"),
        ({"policy_weight": [0.1, 0.1]}, "shapes do not broadcast"),
        ({"x": np.zeros((2, 3)), "y": np.zeros((3, 3))}, "prompt axes"),
        (
            {"tau": -1.0, "expert_anchor": np.zeros(2), "policy_anchor": np.zeros(3)},
            "tau=-1.0; needed is a finite number >= 0",
        ),
        (
            {"tau": 1.0, "expert_anchor": np.zeros(5), "policy_anchor": np.zeros(3)},
            "shapes do not broadcast: expert_logratio",
        ),
    ],
)
def test_risks_of_unusable_arguments(arguments, said):
    given = {"x": np.array([0.1, 0.2]), "y": np.array([0.3, 0.1, 0.0]), "beta": 0.5} | arguments
    with pytest.raises(InvalidInput, match=said):
        objectives.get("spin").risk(given.pop("x"), given.pop("y"), given.pop("beta"), **given)


def test_a_risk_with_weights_and_an_anchor():
    x, y, beta = np.array([0.1, 0.2]), np.array([0.3, 0.1]), 0.5
    anchors = {"tau": 0.25, "expert_anchor": np.array([1.0, 2.0]), "policy_anchor": y}
    r_y, r_own = beta * x + 0.25 * anchors["expert_anchor"], (beta + 0.25) * y
    w, v = np.array([0.1, 0.3]), np.array([0.2, 0.2])
    loss = np.log(1 + np.exp(-(r_y[:, None] - r_own)))
    found = objectives.get("spin").risk(x, y, beta, w, v, **anchors)
    close(found, (w[:, None] * v * loss).sum() / (w.sum() * v.sum()))
    many = objectives.get("spin").risk(np.stack([x, y]), y, beta)
    close(many[0], objectives.get("spin").risk(x, y, beta))
    many = objectives.get("spin").risk(x, np.stack([y, x, y]), beta)
    close(many[2], objectives.get("spin").risk(x, y, beta))
    with pytest.raises(InvalidInput, match="within"):
        objectives.get("sppo").reward(P, Q, expert_preference=P, policy_preference=-Q)
    with pytest.raises(InvalidInput, match="within"):
        objectives.get("sppo").reward(P, Q, expert_preference=P, policy_preference=1 + Q)


def test_functions_of_numpy_and_torch():
    x = np.array([-400.0, -1.5, 0.0, 2.0, 400.0])
    for kind in (np.asarray, torch.from_numpy):
        close(xp.softplus(kind(x)), np.logaddexp(0, x))
        close(xp.sigmoid(kind(x)), np.where(x > -300, 1 / (1 + np.exp(-np.maximum(x, -300))), 0))
        close(xp.relu(kind(x)), [0, 0, 0, 2, 400])
        close(xp.square(kind(x)), x**2)
        close(xp.sign(kind(x)), [-1, -1, 0, 1, 1])
        rows = kind(np.array([[1e4, 1e4 + log(3.0), 1e4], [-1e4, -1e4, -1e4]]))
        close(xp.logsumexp(rows), [1e4 + log(5.0), -1e4 + log(3.0)])
        close(xp.log_normalise(rows), np.log([[0.2, 0.6, 0.2], [1 / 3] * 3]), 1e-9)
        weight = kind(np.array([2.0, 1.0, 0.0]))
        close(xp.weighted_mean(kind(np.array([1.0, 4.0, np.nan])), weight), 2.0)
        close(xp.weighted_mean(kind(np.array([1.0, 4.0, 1.0])), None), 2.0)
    with pytest.raises(AttributeError, match="did you mean 'softplus'"):
        _ = xp.softpluss

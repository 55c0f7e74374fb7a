"""Cases that SGD is held to: their parts, rounds and factors, written out in numpy."""

import itertools

import numpy as np
import pytest
import torch

from theory import TokenMDP, objectives, xp
from theory.objectives import registry
from theory.rounds.log_linear import LogLinear
from theory.rounds.one_step import local_rate_one_step, one_step_round
from toy_games.engine.policies import LogLinearPolicy, Neural, Tokens
from toy_games.games.sgd_case import Case, chain_factor, least_hinge, shares


def close(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


def normal(law):
    return law / law.sum(-1, keepdims=True)


SPIN = Case("spin", vocab=2, horizon=2, seed=3)
GAME = TokenMDP.random(2, 2, seed=3, concentration=4.0)
P = GAME.sequence_law(GAME.expert)[0]


def test_parts_of_a_case():
    close(SPIN.expert, P)
    close(SPIN.ref.exp(), normal(np.sqrt(P)))
    assert SPIN.game.horizon == 2
    default = Case("spin").game
    assert (default.horizon, default.n_actions) == (3, 2)
    close(default.expert, TokenMDP.random(2, 3, seed=0, concentration=4.0).expert)
    assert isinstance(SPIN.policy, Tokens)
    features = Case("spin", "features", 2, 2, 3).policy
    assert isinstance(features, LogLinearPolicy)
    expected = np.random.default_rng(3).standard_normal((GAME.n_responses, 2))
    close(features.features[0], expected)
    network = Case("spin", "network", 2, 2, 3).policy
    assert isinstance(network, Neural)
    assert network.width == 2
    size = SPIN.policy.size
    normals = np.random.default_rng([3, 1]).standard_normal(size)
    close(SPIN.start(), 0.5 * normals)
    close(SPIN.start(0.2), 0.2 * normals)
    theta = SPIN.start()
    close(SPIN.log_law(theta), SPIN.policy.log_law(theta[None])[0, 0])
    law = normal(np.random.default_rng(0).uniform(size=len(P)))
    again = SPIN.log_law(SPIN.theta_of(torch.from_numpy(np.log(law))))
    close(again.exp(), law)


def test_questions_of_a_case():
    assert Case("sft").objective is None
    for spec, grouped, round_, start in (
        ("sft", False, True, True), ("spin", False, True, True), ("spin_hinge", False, False, True),
        ("centred_spif", True, True, True), ("tspin", False, True, False),
    ):  # fmt: skip
        case = Case(spec)
        assert (case.grouped, case.has_round, case.starts_as_sft) == (grouped, round_, start), spec
        assert case.no_round is None
    for spec, slope, anchored in (("sft", None, 0), ("ipo(margin=3)", 1.5, 0), ("inpo", 0.25, 0.5)):
        case = Case(spec)
        beta = 1.0 if slope is None else slope / 0.2
        close([case.beta(0.2), case.tau(0.2)], [beta, anchored * beta])


def test_a_round_of_a_case():
    start = SPIN.log_law(SPIN.start())
    mine = torch.from_numpy(np.log(normal(np.arange(1.0, len(P) + 1))))
    loss = SPIN.round(start, 0.5, group=4)
    assert (loss.beta, loss.tau, loss.group) == (2.0, 0.0, None)
    assert loss.log_ref is None
    assert loss.history is None
    assert loss.policy is SPIN.policy
    assert loss.objective is SPIN.objective
    close(loss.expert, P)
    close(loss.opponent, start)
    close(Case("sft", "tokens", 2, 2, 3).round(start, 0.5).opponent, start)
    anchored = Case("inpo", "tokens", 2, 2, 3)
    close(anchored.round(start, 0.5).log_ref, anchored.ref)
    close(anchored.round(start, 0.5, ref=mine).log_ref, mine)
    close(anchored.round(start, 0.5).tau, 0.25)
    past = Case("tspin", "tokens", 2, 2, 3)
    close(past.round(start, 0.5).history, start.exp())
    close(past.round(start, 0.5, history=mine).history, mine.exp())
    mixed = Case("alpha_spin", "tokens", 2, 2, 3)
    for ref, log_ref in ((None, mixed.ref), (mine, mine)):
        opponent = normal(np.exp(0.5 * (start + log_ref).numpy()))
        close(mixed.round(start, 0.5, ref=ref).opponent.exp(), opponent)
    groups = Case("centred_spif", "tokens", 2, 2, 3)
    assert groups.round(start, 0.5, group=2).group == 2


@pytest.mark.parametrize("spec", ["sft", "spin", "inpo", "alpha_spin"])
def test_paths_of_unrestricted_rounds_by_hand(spec):
    case = Case(spec, "tokens", 2, 2, 3)
    theta = case.start()
    q, ref = np.exp(case.log_law(theta).numpy()), np.exp(case.ref.numpy())
    expected = [q]
    for _ in range(2):
        if spec == "sft":
            q = P
        elif spec == "inpo":
            beta, tau = 0.25 / 0.5, 0.125 / 0.5
            delta = ((P - q) ** 2 / (P + q)).sum()
            r = 0.5 / (1 + delta / 2) * (P - q) / (P + q)
            q = normal(np.exp((beta * np.log(q) + tau * np.log(ref) + r) / (beta + tau)))
        else:
            base = q if spec == "spin" else normal(np.sqrt(q * ref))
            q = normal(np.sqrt(base * P))  # beta is 2
        expected.append(q)
    close(case.path(theta, 0.5, 2).exp(), np.stack(expected), 1e-5)


def test_paths_of_smaller_classes():
    """Theory's where it has them; with a mixture as opponent the round's own minimum."""
    for spec, family in (("spin", "features"), ("alpha_spin", "features"), ("spin", "network")):
        case = Case(spec, family, 2, 2, 3)
        theta = case.start()
        found = case.path(theta, 0.5, 1)
        first = case.log_law(theta)
        close(found[0], first)
        if spec == "spin" and family == "features":
            model = LogLinear(case.policy.features[0].numpy())
            path = model.self_play(P, theta.numpy(), objectives.get("spin"), 2.0, rounds=1)
            close(found[1].exp(), np.asarray(path.policies)[1])
            continue
        own = case.round(first, 0.5, None, None, first).minimise(theta)
        close(found[1].exp(), case.log_law(own).exp(), 1e-6)
        assert (found[1] - first).abs().max() > 1e-3


def test_paths_on_finite_groups_are_their_own():
    case = Case("centred_spif", "tokens", 2, 2, 3)
    theta = case.start()
    exact, grouped = (case.path(theta, 0.5, 1, group) for group in (None, 2))
    q, p = np.exp(exact[0].numpy()), P
    close(exact[1].exp(), normal(q * np.exp((p - q) / (p + q))), 1e-6)
    own = case.round(grouped[0], 0.5, 2).minimise(theta)
    close(grouped[1].exp(), case.log_law(own).exp(), 1e-6)
    assert (grouped[1] - exact[1]).abs().max() > 1e-3


def test_a_group_risk_that_sees_the_level_has_no_round():
    with registry.kept():

        @registry.register("level")
        class Level(objectives.Group):
            def group_risk(self, r_y, r_own, w_y, w_own):
                on_expert = xp.weighted_mean(xp.square(r_y - 1.0), w_y)
                return on_expert + xp.weighted_mean(xp.square(r_own), w_own)

        assert isinstance(Case("level").no_round, str)


def test_factors_are_means_over_both_sides():
    case, size = Case("spif", "tokens", 2, 2, 3), 0.4
    both = []
    for sign in (1.0, -1.0):
        start = case.beside(case.expert.log(), sign * size)
        path = case.path(case.theta_of(start), 0.4, 2, ref=case.expert.log())
        both.append(shares(path, path[0], case.expert.log()).numpy())
    share = (both[0] + both[1]) / 2
    assert case.factor(0.4, size, 2) == pytest.approx(float(chain_factor(share)), rel=1e-9)
    assert abs(float(chain_factor(both[0])) - float(chain_factor(share))) > 1e-3


def test_where_rounds_rest():
    close(SPIN.fixed_point(0.5).exp(), P)
    close(Case("sft", "tokens", 2, 2, 3).fixed_point(0.5).exp(), P)
    past = Case("tspin", "tokens", 2, 2, 3)
    law = past.fixed_point(0.5).exp().numpy()
    again = one_step_round(P, law, past.objective, past.beta(0.5), history=law).policy
    close(again, law, 1e-6)
    assert np.abs(law - P).max() > 1e-3


def test_laws_beside_a_centre():
    centre, size = SPIN.expert.log(), 1e-4
    found = SPIN.beside(centre, size)
    close(found.exp().sum(), 1.0)
    ratio = (found - centre).numpy()
    assert np.sqrt(P @ ratio**2) == pytest.approx(size, rel=1e-3)
    direction = np.random.default_rng([3, 2]).standard_normal(len(P))
    direction = direction - P @ direction
    np.testing.assert_allclose(ratio / size, direction / np.sqrt(P @ direction**2), atol=1e-3)


def test_local_factors():
    for spec, factor in (("sft", 0.0), ("spin", 0.6), ("ipo", 0.6), ("inpo", 0.6 / 1.5),
                         ("alpha_spin", 0.3)):  # fmt: skip
        close(Case(spec, "tokens", 2, 2, 3).local_factor(0.4), factor)
    spif = Case("spif", "tokens", 2, 2, 3)
    close(spif.local_factor(0.4), local_rate_one_step(spif.objective, 0.5 / 0.4))
    assert SPIN.factor(0.4, 1e-3, 1) == pytest.approx(0.6, abs=1e-3)
    assert SPIN.factor(0.4, 1e-3, 3) == pytest.approx(0.6, abs=1e-3)
    past = Case("tspin", "tokens", 2, 2, 3)
    close(past.local_factor(0.4), past.factor(0.4, 1e-3, 1))


def test_shares_of_a_deviation():
    rng = np.random.default_rng(0)
    centre, start = (np.log(normal(rng.uniform(size=4))) for _ in range(2))
    stray = rng.normal(size=(2, 3, 4))
    weight, first = np.exp(centre), centre - start
    expected = ((centre - stray) @ (weight * first)) / (weight @ first**2)
    tensors = (torch.from_numpy(x) for x in (stray, start, centre))
    close(shares(*tensors), expected)
    path = np.array([[1.0, 2.0], [0.5, 1.5], [0.4, 1.0]])
    top = path[0] * path[1] + path[1] * path[2]
    close(chain_factor(path), top / (path[0] ** 2 + path[1] ** 2))


def test_the_least_hinge_by_trying_rewards():
    """The minimum of a linear program of differences lies at whole rewards."""
    for p, q in (([0.5, 0.3, 0.2], [0.1, 0.6, 0.3]), ([0.7, 0.3, 0.0], [0.1, 0.1, 0.8])):
        tried = [
            sum(p[i] * q[j] * max(0.0, 1 - r[i] + r[j]) for i in range(3) for j in range(3))
            for r in itertools.product(range(-3, 4), repeat=3)
        ]
        close(least_hinge(np.array(p), np.array(q)), min(tried))

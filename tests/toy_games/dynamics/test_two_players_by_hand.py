"""Two explicit players in three games of two prompts and three responses: numpy by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from lab.streams import Streams, frequencies
from theory import objectives
from theory.errors import InvalidInput, Unavailable
from toy_games.dynamics import two_players
from toy_games.dynamics.best_response import best_response
from toy_games.dynamics.two_players import Players, Rules
from toy_games.engine.policies import LogLinearPolicy, Softmax
from toy_games.engine.rewards import Linear, Table

SEEDS = [3, 8, 5]
ETA, RHO = np.array([0.1, 0.3, 0.2]), np.array([0.2, 0.5, 0.1])
TAU = np.array([0.4, 0.1, 0.25])
EXPERT = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
THETA, PHI = np.random.default_rng(0).normal(size=(2, 3, 6))
REF = np.log(np.array([[0.2, 0.2, 0.6], [0.3, 0.3, 0.4]]))
PARTLY = np.where(np.arange(18).reshape(3, 6) == 7, np.inf, PHI)
FEATURES = np.random.default_rng(2).normal(size=(2, 3, 4))


def close(found, expected, rtol=1e-11):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-13)


def tensor(values):
    return torch.from_numpy(np.array(values, dtype=np.float64))


def log_law(theta):
    logits = theta.reshape(3, 2, 3)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def game(name="spif", start=(THETA, PHI), policy=None, rewards=None, tau=TAU, ref=REF, **given):
    rules = Rules(**{n: given.pop(n) for n in list(given) if hasattr(Rules(), n)})
    rows = pd.DataFrame({"seed": SEEDS, "step_policy": ETA, "step_reward": RHO, "tau": tau})
    return Players(policy or Softmax(3, 2), rewards or Table(3, 2), objectives.get(name), rows,
                   EXPERT, start, rules, ref, **given)  # fmt: skip


def numbers(state):
    return [state[name].numpy() for name in ("theta", "phi")]


def ascent(theta, phi, expert=EXPERT, own=None):
    """The reward player's move on SPIF's payoff, a mean over the two prompts."""
    own, r = np.exp(log_law(theta)) if own is None else own, phi.reshape(3, 2, 3)
    return RHO[:, None] * (expert * (1 - r) - own * (1 + r)).reshape(3, 6) / 2


def cost_of_response(theta, phi, pay):
    """Derivative of the policy's cost in its probabilities."""
    r = phi.reshape(3, 2, 3)
    main = -r if pay == "rounds" else -r - r**2 / 2
    return main + TAU[:, None, None] * (log_law(theta) - REF)


def descent(theta, phi, pay="saddle", natural=False):
    law, cost = np.exp(log_law(theta)), cost_of_response(theta, phi, pay)
    centred = cost - (law * cost).sum(-1, keepdims=True)
    return -ETA[:, None] * (centred if natural else law * centred / 2).reshape(3, 6)


# -- moves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pay", ["saddle", "rounds"])
@pytest.mark.parametrize("natural", [False, True])
def test_moves_at_once_and_in_turn(pay, natural):
    both = game(pay=pay, natural=natural)
    theta, phi = numbers(both.advance(both.start(), 0))
    close(theta, THETA + descent(THETA, PHI, pay, natural))
    close(phi, PHI + ascent(THETA, PHI))
    turns = game(pay=pay, natural=natural, method="alternating", reward_steps=2)
    theta, phi = numbers(turns.advance(turns.start(), 0))
    once = PHI + ascent(THETA, PHI)
    twice = once + ascent(THETA, once)
    close(phi, twice)
    close(theta, THETA + descent(THETA, twice, pay, natural))


def test_extragradient_moves_by_the_gradients_half_a_step_ahead():
    run = game(method="extragradient")
    theta, phi = numbers(run.advance(run.start(), 0))
    half = THETA + descent(THETA, PHI), PHI + ascent(THETA, PHI)
    close(theta, THETA + descent(*half))
    close(phi, PHI + ascent(*half))


def test_optimistic_moves_count_the_last_ones():
    run = game(method="optimistic")
    state = run.start()
    close(state["last_theta"], descent(THETA, PHI))
    close(state["last_phi"], ascent(THETA, PHI))
    one = run.advance(state, 0)
    at = numbers(one)
    close(at[0], THETA + descent(THETA, PHI))
    close(at[1], PHI + ascent(THETA, PHI))
    two = run.advance(one, 1)
    close(two["theta"], at[0] + 2 * descent(*at) - descent(THETA, PHI))
    close(two["phi"], at[1] + 2 * ascent(*at) - ascent(THETA, PHI))
    close(two["last_theta"], descent(*at))
    close(two["last_phi"], ascent(*at))


def test_optimistic_moves_on_a_batch_begin_with_those_of_the_first_step():
    run = game(method="optimistic", batch=5)
    one = run.advance(run.start(), 0)
    once = game(batch=5)
    for name, value in once.advance(once.start(), 0).items():
        close(one[name], value)


def test_smaller_classes_move_by_the_chain_rule():
    features, weights = FEATURES[..., :3], PHI[:, :4]
    run = game("spif", (THETA[:, :3], weights), LogLinearPolicy(features), Linear(FEATURES))
    theta, phi = numbers(run.advance(run.start(), 0))
    full = np.einsum("bd,xnd->bxn", THETA[:, :3], features).reshape(3, 6)
    reward = np.einsum("bd,xnd->bxn", weights, FEATURES).reshape(3, 6)
    close(theta, THETA[:, :3] + descent(full, reward) @ features.reshape(6, 3))
    close(phi, weights + ascent(full, reward) @ FEATURES.reshape(6, 4))


@pytest.mark.parametrize("method", ["simultaneous", "alternating"])
def test_moves_on_a_batch_are_those_of_its_frequencies(method):
    run = game(method=method, batch=5)
    theta, phi = numbers(run.advance(run.start(), 3))
    streams, law = Streams(SEEDS), np.exp(log_law(THETA))

    def drawn(side, part, of):
        of = tensor(np.broadcast_to(of, (3, 2, 3)))
        return frequencies(of, streams.uniform(f"{side} {part}", 3, (2, 5))).numpy()

    parts = ("", "") if method == "simultaneous" else ("reward 0", "policy")
    close(phi, PHI + ascent(THETA, PHI, drawn("expert", parts[0], EXPERT),
                            drawn("own", parts[0], law)))  # fmt: skip
    cost = cost_of_response(THETA, PHI if method == "simultaneous" else phi, "saddle")
    own = drawn("own", parts[1], law)
    centred = own * (cost - (own * cost).sum(-1, keepdims=True)) * 5 / 4
    slope = centred - law * centred.sum(-1, keepdims=True)
    close(theta, THETA - ETA[:, None] * slope.reshape(3, 6) / 2)


def test_a_natural_step_of_payoffs_needs_no_scores():
    run = game(natural=True, batch=5)
    theta, _ = numbers(run.advance(run.start(), 0))
    close(theta, THETA + descent(THETA, PHI, natural=True))


def test_a_natural_step_of_pairs_is_paid_by_drawn_expert_responses():
    run = game("ipo", natural=True, batch=5)
    theta, _ = numbers(run.advance(run.start(), 0))
    law, r, of = np.exp(log_law(THETA)), PHI.reshape(3, 2, 3), tensor([EXPERT] * 3)
    expert = frequencies(of, Streams(SEEDS).uniform("expert ", 0, (2, 5))).numpy()
    loss = (r[..., :, None] - r[..., None, :] - 1) ** 2
    cost = -(expert[..., :, None] * loss).sum(-2) + TAU[:, None, None] * (log_law(THETA) - REF)
    centred = cost - (law * cost).sum(-1, keepdims=True)
    close(theta, THETA - ETA[:, None] * centred.reshape(3, 6))


def test_differentiable_moves_are_exact_ones():
    run = game(batch=5)
    state = {n: v.requires_grad_() for n, v in run.start().items()}
    moved = run.moved(state, 0, graph=True)
    close(moved["theta"].detach(), THETA + descent(THETA, PHI))
    close(moved["phi"].detach(), PHI + ascent(THETA, PHI))
    across = torch.autograd.grad(moved["phi"][0, 1], state["theta"])[0].numpy()
    law, r = np.exp(log_law(THETA))[0, 0], PHI[0, 1]
    slope = -RHO[0] * (1 + r) / 2 * law[1] * (np.eye(3)[1] - law)
    close(across[0, :3], slope)
    assert not across[1].any()


def test_rewards_that_are_bound_stay_within():
    run = game("ipm", (THETA, np.sign(PHI)))
    low, high = run.domain
    assert (low, high) == (-1.0, 1.0)
    for method in ("simultaneous", "alternating", "extragradient", "optimistic"):
        moving = game("ipm", (THETA, np.sign(PHI)), method=method)
        state = moving.advance(moving.start(), 0)
        assert float(state["phi"].abs().max()) <= 1.0
    above = game("gail", (THETA, PHI))  # bound on one side
    assert above.domain == (0.0, np.inf)
    assert float(above.advance(above.start(), 0)["phi"].min()) == 0.0
    push = RHO[:, None] * (EXPERT - np.exp(log_law(THETA))).reshape(3, 6) / 2
    close(run.advance(run.start(), 0)["phi"], np.clip(np.sign(PHI) + push, -1, 1))


# -- measures -------------------------------------------------------------------------------------

TARGET = np.array([[[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]], [[0.1, 0.8, 0.1], [0.4, 0.35, 0.25]]])
TARGET = np.concatenate([TARGET, TARGET[:1, ::-1, ::-1]])


def test_measures_of_games():
    goal = np.random.default_rng(4).normal(size=(3, 2, 3))
    run = game(target=(TARGET, goal))
    state = run.start()
    law, r, found = np.exp(log_law(THETA)), PHI.reshape(3, 2, 3), run.measure(run.start(), 0)
    parts = np.stack([log_law(THETA) - np.log(TARGET), r - goal], axis=1)
    parts = parts - (TARGET[:, None] * parts).sum(-1, keepdims=True)
    close(two_players.observed(run, state), parts.reshape(3, 12))
    close(found["distance"], np.sqrt((parts**2).sum((1, 2, 3))))
    close(found["tv"], 0.5 * np.abs(law - TARGET).sum(-1).mean(-1))
    close(found["tv_to_expert"], 0.5 * np.abs(law - EXPERT).sum(-1).mean(-1))
    close(found["moment_residual"], np.sqrt((((EXPERT - law) / 2) ** 2).sum((1, 2))))
    close(found["largest_reward"], np.abs(PHI).max(-1))
    assert list(found) == list(two_players.MEASURES)
    assert list(game(measures={"x": two_players.tv}).measure(state, 0)) == ["x"]
    close(game().target[0][1], EXPERT)
    close(game(ref=None).log_ref, log_law(THETA))


@pytest.mark.parametrize("pay", ["saddle", "rounds"])
def test_the_gap_is_what_both_could_gain(pay):
    tau = np.array([0.4, 0.0, 0.4])
    run = game(pay=pay, tau=tau)
    law, r = np.exp(log_law(THETA)), PHI.reshape(3, 2, 3)
    best = (EXPERT - law) / (EXPERT + law)

    def payoff(x):
        return (EXPERT * (x - x**2 / 2) + law * (-x - x**2 / 2)).sum(-1)

    paid = r if pay == "rounds" else r + r**2 / 2
    regret, free = payoff(best) - payoff(r), paid.max(-1) - (law * paid).sum(-1)
    kl = (law * (log_law(THETA) - REF)).sum(-1)
    most = 0.4 * np.log((np.exp(REF) * np.exp(paid / 0.4)).sum(-1))
    anchored = most - (law * paid).sum(-1) + 0.4 * kl
    gain = np.where(tau[:, None] > 0, anchored, free)
    close(run.measure(run.start(), 0)["gap"], (regret + gain).mean(-1))
    assert torch.isnan(game("spin_hinge").measure(run.start(), 0)["gap"]).all()


def test_measures_where_mass_is_missing():
    """The target and the expert have no mass on the last response, and the policy almost none."""
    start = np.array([0.0, 1.0, -6000.0]), np.array([0.5, -0.25, 9.0])
    law, law_r = np.array([1.0, np.e]) / (1 + np.e), np.array([0.5, -0.25])
    pay = lambda x: (0.5 * (x - x**2 / 2) + law * (-x - x**2 / 2)).sum()  # noqa: E731
    regret = pay((0.5 - law) / (0.5 + law)) - pay(law_r)
    for paid, kind, tau in ((law_r + law_r**2 / 2, "saddle", 0.0), (law_r, "rounds", 0.0),
                            (law_r + law_r**2 / 2, "saddle", 0.3)):  # fmt: skip
        rows = pd.DataFrame({"seed": [0], "tau": [tau]})
        run = Players(Softmax(3), Table(3), objectives.get("spif"), rows, [0.5, 0.5, 0.0], start,
                      Rules(pay=kind))  # fmt: skip
        state = run.start()
        close(two_players.largest_reward(run, state), [0.5])
        found = two_players.observed(run, state).reshape(2, 3)
        close(found[:, :2], [[-0.5, 0.5], [0.375, -0.375]])
        assert found[:, 2].tolist() == [0.0, 0.0]
        most = tau * np.log(law @ np.exp(paid / tau)) if tau else paid.max()
        close(two_players.gap(run, state), [regret + most - law @ paid], 1e-9)
    state["theta"][0, 2] = -4000.0
    close(two_players.largest_reward(run, state), [9.0])
    state["theta"][0] = torch.tensor([-6000.0, -6000.0, 0.0])  # the expert's count all the same
    state["phi"][0] = torch.tensor([0.5, -2.0, 1.0])
    close(two_players.largest_reward(run, state), [2.0])


def test_best_responses_by_link_gain_and_search():
    p, q = (
        np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]),
        np.array([[0.2, 0.2, 0.6], [0.4, 0.5, 0.1]]),
    )
    u = tensor(np.log(p / q))
    close(best_response(objectives.get("spif"), u, tensor(p), tensor(q)), (p - q) / (p + q))
    delta = ((p - q) ** 2 / (p + q)).sum(-1, keepdims=True)
    found = best_response(objectives.get("ipo"), u, tensor(p), tensor(q))
    close(found, (p - q) / (p + q) / (1 + delta / 2))
    each = best_response(objectives.get("ipo"), u[None], tensor(p[None]), tensor(q[None]))
    close(each[0], found)
    with pytest.raises(Unavailable):
        best_response(objectives.get("spin_hinge"), u, tensor(p), tensor(q))
    apart = tensor([[1.0, 0.0]]), tensor([[0.0, 1.0]])
    far = best_response(objectives.get("ipo"), tensor([[50.0, -50.0]]), *apart)
    close(far, [[0.5, -0.5]])  # Delta is 2


# -- checks ---------------------------------------------------------------------------------------


def test_rules_that_are_wrong_are_named():
    assert Rules("alternating", reward_steps=3, batch=2).problems() == []
    for rules in (Rules(method="x"), Rules(pay="x"), Rules(reward_steps=0), Rules(reward_steps=2),
                  Rules("alternating", reward_steps=0), Rules(batch=1)):  # fmt: skip
        assert len(rules.problems()) == 1, rules


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rewards": Table(4, 2)}, "shapes .* differ"),
        ({"policy": LogLinearPolicy(FEATURES), "natural": True}, "needed is a policy of logits"),
        ({"name": "ipm", "rewards": Linear(FEATURES)}, "it needs a Table"),
        ({"start": (THETA[:, :5], PHI)}, "start of the policy: shape"),
        ({"start": (THETA, PARTLY)}, "start of the reward: shape"),
    ],
)
def test_games_that_do_not_fit_are_refused(given, said):
    with pytest.raises(InvalidInput, match=said):
        game(**given)


def test_games_that_do_not_exist_are_refused():
    for name, more in (("tspin", {}), ("centred_spif", {"batch": 4})):
        with pytest.raises(Unavailable):
            game(name, **more)
    game("centred_spif")

"""T14 and T9 under gradient steps: tokens against sequences, and IPO's own gain."""

import numpy as np
import pandas as pd
import pytest
import torch

from lab.stats import intervals
from theory import TokenMDP, laws, objectives, self_play
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax


def by_state(game, policy):
    """A game's conditional laws (S, A) as laws of as many prompts, and the class of all of them."""
    return np.exp(policy), Softmax(game.n_actions, game.n_states)


def trained(game, name, beta, start, data, seeds=1, steps=1500, rounds=2, rate=0.5):
    """Conditional policies (rows, S, A) after gradient steps on every state's own token pairs."""
    expert, policy = by_state(game, game.expert)
    rows = pd.DataFrame({"seed": range(seeds), "beta": beta, "rate": rate})
    rows["steps_per_round"] = steps
    run = SelfPlay(policy, objectives.get(name), rows, expert, start.ravel(), data)
    run.step_size *= game.n_states  # the loss is a mean over states, each with its own parameters
    kept = {}
    run.measures = {"kl": lambda r, s, t: kept.setdefault(t, r.log_law(s)).sum((1, 2))}
    simulator.run(run, [rounds * steps], progress=False)
    return kept[rounds * steps].numpy()


@pytest.mark.claim("T14.one_loss_per_token", regime="dynamics")
@pytest.mark.parametrize("name", ["spin", "spif", "ipo", "centred_spif"])
def test_token_pairs_train_the_conditional_form(claim, name):
    game = TokenMDP.random(3, 3, seed=5, concentration=5.0)
    start = game.random_policy(np.random.default_rng(6), 5.0)
    exact = self_play(
        game.expert, start, objectives.get(name), 1.5, 2, one_step=True, game=game,
        level="conditional",
    )  # fmt: skip
    found = trained(game, name, 1.5, start, Data(batch=None))
    claim.close(np.exp(found[0]), np.exp(exact.policy), 1e-6, what="conditional laws, two rounds")


def sequences_apart(game, start, beta, steps=1500):
    """TV of sequences after one SPIN round of token pairs and one of sequence pairs, by descent."""
    tokens = trained(game, "spin", beta, start, Data(batch=None), rounds=1, steps=steps)[0]
    p, q = game.sequence_law(game.expert), game.sequence_law(start)
    rows = pd.DataFrame({"seed": [0], "beta": beta, "rate": 2.0, "steps_per_round": steps})
    policy, obj = Softmax(p.shape[-1]), objectives.get("spin")
    run = SelfPlay(policy, obj, rows, p, np.log(q).ravel(), Data(batch=None))
    run.measures = {
        "tv": lambda r, s, t: (
            0.5 * (r.log_law(s).exp() - torch.from_numpy(game.sequence_law(tokens))).abs().sum(-1)
        )[:, 0]
    }
    return simulator.run(run, [steps], progress=False).tv[0]


def test_spins_tokens_and_sequences_agree_where_the_round_is_the_expert():
    game = TokenMDP.random(3, 2, seed=0, concentration=4.0)
    start = game.random_policy(np.random.default_rng(1), 4.0)
    assert sequences_apart(game, start, 1.0) < 1e-4  # TV at beta = 1


@pytest.mark.claim("T14.conditional", regime="dynamics", drops="continuation_values")
def test_without_continuation_values_tokens_and_sequences_part_even_for_spin(claim):
    game = TokenMDP.random(3, 2, seed=0, concentration=4.0)
    start = game.random_policy(np.random.default_rng(1), 4.0)
    found = sequences_apart(game, start, 2.0)
    obj, kept = objectives.get("spin"), {"game": game, "one_step": True}
    tokens = self_play(game.expert, start, obj, 2.0, 1, level="conditional", **kept).policy
    whole = self_play(game.expert, start, obj, 2.0, 1, **kept).policy
    predicted = 0.5 * np.abs(game.sequence_law(tokens) - game.sequence_law(whole)).sum()
    what = "TV at beta = 2 against the exact rounds"
    claim.close(found, predicted, 1e-4, what=what, because="chosen")
    claim.exhibits(found, 0.005, what="TV of token and sequence round, beta = 2")


@pytest.mark.claim("T14.spif_differs", regime="dynamics")
def test_spifs_tokens_and_sequences_do_not(claim):
    game = TokenMDP.random(2, 6, seed=1, eos=None)
    start = game.uniform_policy()
    tokens = trained(game, "centred_spif", 0.5, start, Data(batch=None), rounds=1)[0]
    p, q = game.sequence_law(game.expert), game.sequence_law(start)
    whole = self_play(p, q, objectives.get("centred_spif"), 0.5, 1).policy
    claim.exhibits(
        0.5 * np.abs(whole - game.sequence_law(tokens)).sum(), 0.05, what="TV of one round"
    )
    paid = 0.5 * np.ptp(game.sequence_sum(tokens - start))
    what = "half range of the token rewards' sum, in units of 1/c"
    claim.exhibits(paid, 1.05, what=what)


@pytest.mark.claim("T9.link", regime="dynamics")
@pytest.mark.parametrize("margin", [0.5, 2.0])
def test_ipos_gain_under_gradient_steps(claim, margin):
    rng = np.random.default_rng(8)
    p, q = laws.random_law(rng, (6,), 1.0), laws.random_law(rng, (6,), 1.0)
    obj = objectives.get("ipo", margin=margin)
    rows = pd.DataFrame(
        {"seed": range(8), "beta": 0.8, "rate": 0.02 * margin, "steps_per_round": 7000}
    )
    run = SelfPlay(Softmax(6), obj, rows, p, np.log(q), Data(batch=256))
    kappa = margin / (1.0 + 0.5 * laws.triangular(p, q))
    link = np.tanh(0.5 * np.log(p / q))

    def gain(run, state, step):
        reward = 0.8 * (run.log_law(state) - state["opponent"])[:, 0].numpy()
        x = link - q @ link
        y = reward - (reward @ q)[:, None]
        return torch.from_numpy(((q * x) * y).sum(-1) / (q * x * x).sum())

    run.measures = {"gain": gain}
    table = simulator.run(run, [4000, 4500, 5000, 5500, 6000], progress=False)
    late = table.groupby("seed").gain.mean().reset_index().assign(one=0)
    found = intervals(late, ["one"], "gain")
    half = float(found.high.iloc[0] - found.low.iloc[0])  # twice the 95 % half-width
    claim.close(found["mean"], [kappa], half, what="gain on tanh(u/2) against m/(1 + Delta/2)",
                because="sampling")  # fmt: skip
    what = "distance of m/(1 + Delta/2) to the m/2 of small steps"
    claim.exhibits(abs(kappa - 0.5 * margin), half, what=what, because="sampling")

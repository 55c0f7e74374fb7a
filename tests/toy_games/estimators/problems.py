"""Estimation problems by case and instance, and of restricted classes of policies."""

import numpy as np
import torch
from hypothesis import strategies as st

from theory import TokenMDP, objectives
from toy_games.engine.policies import LogLinearPolicy, Neural, Softmax, Tokens
from toy_games.estimators.losses import EstimationProblem
from toy_games.experiments.audit import make_problem

EXACT = 1e-11
FAMILIES = st.sampled_from(["random", "text", "small"])
INSTANCES = st.integers(1, 10_000)
PLAYED = [n for n in objectives.names() if not objectives.get(n).missing("risk")]


def problem_of(case="random", instance=77, beta=0.8, distance=0.6):
    return make_problem(case, instance, beta, distance)


def named(found, name):
    (one,) = [e for e in found if e.name == name]
    return one


def on_class(kind, seed):
    """A problem on a tree with an end-of-sequence token, of a restricted class of policies."""
    rng = np.random.default_rng(seed)
    game = TokenMDP.random(vocab=3, horizon=2, rng=rng)
    policy = {
        "neural": lambda: Neural(game, width=3),
        "log-linear": lambda: LogLinearPolicy(rng.standard_normal((game.n_responses, 3))),
        "softmax": lambda: Softmax(game.n_responses),
        "tokens": lambda: Tokens(game.merged(0)),
    }[kind]()
    theta, theta_t, theta_ref = (policy.initial(rng, 0.8) for _ in range(3))
    expert = torch.from_numpy(game.sequence_law(game.expert)[0].copy())
    n = game.n_responses
    payoff, compare = torch.from_numpy(rng.standard_normal(n)), torch.full((n, n), 0.5).double()
    return EstimationProblem(policy, expert, theta, theta_t, theta_ref, payoff, compare, beta=1.3)

"""Where two explicit players end when a class is smaller than a table: moments, MLE, networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize, root

from lab.streams import Streams
from theory import TokenMDP, objectives
from theory.errors import NotConverged
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.log_linear import LogLinear
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.dynamics.two_players import Players, Rules
from toy_games.engine import simulator
from toy_games.engine.policies import LogLinearPolicy, Softmax, Tokens
from toy_games.engine.rewards import Linear, Network, Rewards, Table, one_hot_tokens
from toy_games.games.two_players import instance, solved

WIDE = 12
SPREAD = 0.7
Path_ = str | Path | None


def few_features(
    count: int, natural: bool, seeds: int, steps: int,
    checkpoint: Path_ = None, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """A tabular policy from the uniform law against ``count`` features of 12 responses.

    Distances are to the most likely member of the exponential family of the same features.
    """
    expert, _, _ = instance(seeds, WIDE, SPREAD)
    rng = Streams([0]).generator(0, "features")
    features = np.linalg.qr(
        np.column_stack([np.ones(WIDE), rng.standard_normal((WIDE, WIDE - 1))])
    )[0][:, 1 : count + 1] * np.sqrt(WIDE)
    family = LogLinear(features)
    likely = np.stack([family.law(family.maximum_likelihood(p[0])) for p in expert])[:, None]
    rows = pd.DataFrame({"seed": range(seeds), "step_policy": 0.1 if natural else 4.0})
    rows["step_reward"] = 0.15
    # Paid r, a KL-proximal step adds features to the logits; paid -b(r), their squares as well.
    rules = Rules("alternating", "rounds" if natural else "saddle", natural)
    run = Players(
        Softmax(WIDE), Linear(features), _spif(), rows, expert,
        (np.zeros(WIDE), np.zeros(count)), rules,
        target=(likely, np.zeros(WIDE)),
    )  # fmt: skip
    table = simulator.run(run, [0, steps], checkpoint, progress)
    table["predicted"] = np.tile(0.5 * np.abs(likely - expert).sum((1, 2)), 2)
    return table.assign(part="features", objective="spif", features=count, natural=natural)


def reward_classes(
    kind: str, seeds: int, steps: int, checkpoint: Path_ = None, progress: bool = True
) -> pd.DataFrame:
    """A log-linear policy (12 responses, 3 features) against other rewards; and SFT.

    The column ``tv`` is the distance to the MLE in the policy's class, ``predicted`` where theory
    puts it: at the moments of the reward's features, or at the divergence's own minimum.
    """
    expert, _, _ = instance(seeds, WIDE, SPREAD)
    rng = Streams([0]).generator(0, "classes")
    own, other = rng.standard_normal((2, WIDE, 3))
    family = LogLinear(own)
    best = np.stack([family.maximum_likelihood(p[0]) for p in expert])
    likely = np.stack([family.law(theta) for theta in best])[:, None]
    policy = LogLinearPolicy(own)
    rows = pd.DataFrame({"seed": range(seeds), "step_policy": 0.5, "step_reward": 0.3})
    ends = {"part": "classes", "kind": kind, "objective": "sft" if kind == "sft" else "spif"}
    if kind == "sft":
        law = torch.from_numpy(likely)

        def to_likely(run: SelfPlay, state: simulator.State, step: int) -> torch.Tensor:
            return 0.5 * (run.log_law(state).exp() - law).abs().sum((1, 2))

        start = policy.initial(rng, 0.0)
        sft = SelfPlay(
            policy, None, rows.assign(rate=0.3), expert, start, Data(batch=None), {"tv": to_likely}
        )
        table = simulator.run(sft, [0, steps], checkpoint, progress)
        return table.assign(predicted=0.0, **ends)
    where = [
        _destination(kind, family, own, other, p[0], b) for p, b in zip(expert, best, strict=True)
    ]
    away = [0.5 * np.abs(law - m[0]).sum() for law, m in zip(where, likely, strict=True)]
    name, _, value = kind.partition(" ")
    share = float(value) if name == "mixture" else 0.0
    rewards: Rewards = Table(WIDE)
    if name == "mixture":
        rewards = Linear((1 - share) * own + share * other)
    else:
        rows["step_reward"] = 1.0
    run = Players(
        policy, rewards, _spif(), rows, expert, (np.zeros(3), np.zeros(rewards.size)),
        Rules("alternating", value if name == "table" else "saddle"),
        target=(likely, np.zeros(WIDE)),
    )  # fmt: skip
    table = simulator.run(run, [0, steps], checkpoint, progress)
    table["predicted"] = np.tile(away, 2)
    return table.assign(share=share, **ends)


def _destination(
    kind: str,
    family: LogLinear,
    own: FloatArray,
    other: FloatArray,
    p: FloatArray,
    best: FloatArray,
) -> FloatArray:
    """Law (n,) where theory puts a log-linear policy against that class of rewards, tau = 0."""
    obj = _spif()
    if kind == "table rounds":
        return family.law(family.potential_minimiser(p, obj, best))
    if kind == "table saddle":

        def value(theta: FloatArray) -> float:
            law = family.law(theta)
            return float(obj.value(p, law, np.asarray(obj.link(np.log(p / law)))))

        return family.law(minimize(value, best, options={"gtol": 1e-9}).x)
    share = float(kind.split()[1])
    seen = (1 - share) * own + share * other
    found = root(lambda theta: (family.law(theta) - p) @ seen, best, tol=1e-12)
    if not found.success:
        raise NotConverged(f"{kind}: {found.message}", None)
    return family.law(found.x)


def network(
    width: int, seeds: int, steps: int, tau: float, checkpoint: Path_ = None, progress: bool = True
) -> pd.DataFrame:
    """A token policy against a network on the tokens of a response: TV to the saddle point."""
    games = [TokenMDP.random(3, 2, seed=i) for i in range(seeds)]
    policy = Tokens(games[0])
    experts = [g.expert for g in games]
    expert = np.stack(
        [g.sequence_law(law) for g, law in zip(games, experts, strict=True) if law is not None]
    )
    streams = Streams(range(seeds))
    rewards = Network(one_hot_tokens(games[0]), width)
    phi = torch.stack([rewards.initial(streams.generator(i, "net"), 0.5) for i in range(seeds)])
    theta = policy.initial(streams.generator(0, "policy"), 0.0)
    ref = policy.log_law(theta[None]).exp().numpy()
    law, reward = solved(expert, ref, _spif(), tau, "saddle")
    rows = pd.DataFrame({"seed": range(seeds), "step_policy": 1.0, "tau": tau})
    rows["step_reward"] = 2.0 / (width + 3)
    run = Players(
        policy, rewards, _spif(), rows, expert, (theta, phi), Rules("alternating"),
        target=(law, reward),
    )  # fmt: skip
    table = simulator.run(run, [0, steps], checkpoint, progress)
    return table.assign(part="network", objective="spif", width=width)


def _spif() -> Objective:
    return objectives.get("spif")

"""Misspecified classes: where SFT, self-play and explicit reward players end, and who likes it."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.settings import BaseSettings, option
from lab.specs import objective_of
from lab.streams import Streams
from lab.sweep import Cell
from theory import objectives
from toy_games.dynamics import finite_class
from toy_games.dynamics.measures import QUALITY, distance_to
from toy_games.dynamics.self_play import Data, Measure, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import LogLinearPolicy, Neural, Policy, Tokens
from toy_games.engine.simulator import State
from toy_games.engine.trainable import (
    beta_at,
    left_out,
    named_problems,
    slope_of,
    trainable,
)
from toy_games.games.contenders import (
    Method,
    first_gradients,
    kept,
    labelled,
    methods,
    predicted,
    simulation,
)
from toy_games.games.ladder import Ladder
from toy_games.games.real_text import Phrases, read_phrases
from toy_games.predictions.misspecification import finite_class_bound, spin_round, spin_threshold

SUMMARY = (
    "Where SFT, self-play and explicit rewards end in small classes, and which measure likes it."
)
PARTS = ("ladder", "text", "gradient", "destination", "stability", "finite")
NEAR, ROUNDS, SELECTIONS = 1e-4, 12, 4


def explicit_problems(spec: str) -> list[str]:
    """Check of the objectives of two-step rounds: a potential and an effective step."""
    if problems := named_problems(spec):
        return problems
    obj = objective_of(spec)
    assert obj is not None
    if lack := obj.missing("potential"):
        return [f"{spec} has no potential: {lack}"]
    if not np.isfinite(slope_of(obj)):
        return [f"{spec} has no effective step: no link with a slope at 0"]
    return []


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    """Settings of all parts; losses and divergences are in nats, rates in units of SFT."""

    parts: tuple[str, ...] = option(PARTS, "which parts run", of=PARTS)
    objectives: tuple[str, ...] = option(
        ("spin", "spif", "centred_spif", "ipo"),
        "one-step self-play; sft runs beside them",
        check=trainable(),
    )
    explicit: tuple[str, ...] = option(
        ("spin", "spif"), "reward links of the two-step rounds", check=explicit_problems
    )
    seeds: int = option(5, "random experts, or data sets of the text", ge=3)
    effective_step: float = option(1.0, "R'(0)/beta of all objectives", gt=0)
    outcomes: int = option(20, "responses of a random expert", ge=3)
    spread: float = option(1.2, "size of its logits", gt=0)
    capacities: tuple[int, ...] = option(
        (1, 2, 4, 8, 12, 19), "features of the log-linear classes", ge=1
    )
    rate: float = option(0.15, "learning rate, log-linear classes", gt=0)
    steps: int = option(1500, "gradient steps, log-linear classes", ge=1)
    steps_per_round: int = option(25, "gradient steps a round", ge=1)
    capacity: int = option(4, "features in the parts gradient, destination and stability", ge=1)
    batch: int = option(64, "responses a side and step where they are drawn", ge=2)
    half_after: float = option(150.0, "steps after which the drawn runs' rate has halved", gt=0)
    temperatures: tuple[float, ...] = option((0.7, 1.3), "of own responses, off-policy runs", gt=0)
    tau: float = option(0.3, "anchor of the anchored runs, nats", ge=0)
    draws: int = option(200, "minibatches of the first gradient", ge=3)
    factors: tuple[float, ...] = option(
        (0.7, 0.9, 1.1, 1.4), "beta over the predicted threshold", gt=0
    )
    inner: tuple[int, ...] = option((10, 300), "gradient steps a round in the part stability", ge=1)
    words: int = option(5, "different words of the text", ge=1)
    horizon: int = option(4, "longest response of the text, tokens", ge=2)
    text_smoothing: float = option(0.05, "added to all counts of the text's model", gt=0)
    samples: int = option(200, "expert responses to train on, text", ge=1)
    orders: tuple[int, ...] = option((0, 1, 3), "order-k token classes; horizon - 1 is whole", ge=0)
    widths: tuple[int, ...] = option((1, 2, 8), "hidden units of the neural classes", ge=1)
    text_steps: int = option(400, "gradient steps, text", ge=1)
    text_rate: float = option(1.0, "learning rate, order-k classes", gt=0)
    neural_rate: float = option(
        0.3, "learning rate, neural classes; half of it for one hidden unit", gt=0
    )
    smoothing: float = option(
        0.02, "share of the start in the law that tabular rewards read", gt=0, lt=1
    )
    members: int = option(64, "laws in a finite class", ge=2)
    horizons: tuple[int, ...] = option((2, 5), "longest responses of finite classes, tokens", ge=1)
    class_spread: float = option(0.3, "how far members are apart, size of logits", gt=0)
    class_samples: tuple[int, ...] = option((10, 30, 100, 300), "samples in finite classes", ge=1)
    trials: int = option(100, "data sets a sample size, finite classes", ge=3)
    delta: float = option(0.1, "probability that the bound may fail", gt=0, lt=1)

    def problems(self) -> list[str]:
        """Features beyond those that the outcomes have, or no text, in the parts that run."""
        used = {"capacity"} if {"gradient", "destination", "stability"} & set(self.parts) else set()
        used |= {"capacities"} if "ladder" in self.parts else set()
        given = {name: getattr(self, name) for name in sorted(used)}
        # phrases have two words or more and an end; the part gradient takes one token less
        least = 4 if "gradient" in self.parts else 3 if "text" in self.parts else 2
        short = [f"horizon={self.horizon}; needed is >= {least} for these parts"]
        return short * (self.horizon < least) + [
            f"{name}={value!r}; needed is less than outcomes={self.outcomes}"
            for name, value in given.items()
            if max(value if isinstance(value, tuple) else (value,)) >= self.outcomes
        ]


def cells(settings: Settings) -> list[Cell]:
    """One cell a part and class, or a part and objective."""
    made, only = [], {"s": settings}
    for part in settings.parts:
        if part == "text":
            made += [Cell(f"text order {k}", text, only | {"order": k}) for k in settings.orders]
            made += [Cell(f"text width {w}", text, only | {"width": w}) for w in settings.widths]
        elif part == "finite":
            made += [
                Cell(f"finite {h}", finite, only | {"horizon": h}, resumes=False)
                for h in settings.horizons
            ]
            lacking = {spec: objectives.of(spec).missing("loss") for spec in settings.objectives}
            made += [left_out(part, spec, why) for spec, why in lacking.items() if why]
        else:
            made.append(Cell(part, CALLS[part], only, resumes=part != "gradient"))
    return made


# -- the parts ------------------------------------------------------------------------------------


def ladder(s: Settings, **how: Any) -> pd.DataFrame:
    """Random experts, exact laws, gradient descent: the last policies at every capacity."""
    it = Ladder.random(range(s.seeds), s.capacities, s.outcomes, s.spread)
    best = it.maximum_likelihood()
    ends: dict[str, Measure] = QUALITY | {"tv_mle": distance_to(best)}
    out = []
    for i, method in enumerate([*methods(s.objectives, s.explicit), Method("spif", "linear")]):
        beta = beta_at(method.objective, s.effective_step)
        rows = pd.DataFrame({"seed": it.seeds, "capacity": it.capacities, "class": "log-linear"})
        rows = rows.assign(beta=beta, rate=s.rate, steps_per_round=s.steps_per_round)
        measures = dict(ends)
        if method.kind == "two steps":
            assert method.objective is not None
            there = it.potential_minimiser(method.objective)
            measures |= {"tv_potential": distance_to(there)}
        width = it.policy.size
        run = simulation(
            method, it.policy, rows, it.expert, torch.zeros(width), Data(batch=None), measures
        )
        table = simulator.run(run, [s.steps], **kept(how, i))
        out.append(labelled(table, "ladder", method, beta))
    return pd.concat(out, ignore_index=True)


def text(
    s: Settings, order: int | None = None, width: int | None = None, **how: Any
) -> pd.DataFrame:
    """Samples of real phrases, minibatches: measures on the law of the whole text."""
    phrases = read_once(s.words, s.horizon, s.horizon - 1, s.text_smoothing)
    policy, start = text_class(phrases, order, width, s.seeds)
    label = {"class": "neural" if width else "order", "capacity": width or order}
    # SFT with one hidden unit, which all gradients share, swings at 0.25 and more: rounding grows.
    rate = s.text_rate if width is None else s.neural_rate if width > 1 else 0.5 * s.neural_rate
    data = Data(batch=s.batch, expert_samples=s.samples)

    def tv_mle(run: SelfPlay, state: State, step: int) -> Tensor:
        """To the class's maximum of likelihood on the samples; NaN where it is not known."""
        if order is None:
            return torch.full((s.seeds,), torch.nan)
        game = phrases.game.merged(order)
        best = game.merge_policy(phrases.game.policy_from_law(state["data"].numpy()))
        return distance_to(torch.from_numpy(game.log_sequence_law(best)))(run, state, step)

    measures = QUALITY | {"tv_mle": tv_mle}
    out = []
    for i, method in enumerate(methods(s.objectives, s.explicit)):
        beta = beta_at(method.objective, s.effective_step)
        rows = pd.DataFrame({"seed": range(s.seeds), **label, "beta": beta, "rate": rate})
        rows = rows.assign(steps_per_round=s.steps_per_round)
        run = simulation(
            method,
            policy,
            rows,
            phrases.law,
            start,
            data,
            measures,
            s.smoothing,
            s.text_steps,
        )
        table = simulator.run(run, [s.text_steps], **kept(how, i))
        out.append(labelled(table, "text", method, beta))
    return pd.concat(out, ignore_index=True)


@cache
def read_once(words: int, horizon: int, order: int, smoothing: float) -> Phrases:
    """`read_phrases`, which takes longer than a short run."""
    return read_phrases(words, horizon, order, smoothing)


def text_class(
    phrases: Phrases, order: int | None, width: int | None, seeds: int
) -> tuple[Policy, Tensor]:
    """The class of order-k models or of networks, and a start for every seed."""
    if width:
        network = Neural(phrases.game, width)
        draw = [Streams([i]).generator(0, "network") for i in range(seeds)]
        return network, torch.stack([network.initial(rng, 0.5) for rng in draw])
    policy = Tokens(phrases.game.merged(order or 0))
    return policy, torch.zeros(seeds, policy.size, dtype=torch.float64)


def gradient(s: Settings) -> pd.DataFrame:
    """First gradients of a round against SFT's: exact cosine, and the mean over minibatches.

    ``along`` is a minibatch gradient's component along SFT's exact gradient, in units of the
    predicted one; ``across`` its component along a fixed random direction orthogonal to that, in
    the same units; a line a minibatch. ``cosine`` is that of the exact gradients.
    """
    phrases = read_once(s.words, s.horizon - 1, s.horizon - 2, s.text_smoothing)
    it = Ladder.random([0], [s.capacity], s.outcomes, s.spread)
    count = s.draws
    network = Neural(phrases.game, max(s.widths))
    rng = Streams([0]).generator(0, "first gradient")
    classes: list[tuple[str, Policy, Any, Tensor]] = [
        (
            "log-linear",
            LogLinearPolicy(it.features[0].numpy()),
            it.expert[0],
            it.policy.initial(rng, 0.5),
        ),
        ("neural", network, phrases.law, network.initial(rng, 0.5)),
    ]
    out = []
    for name, policy, expert, start in classes:
        other = torch.from_numpy(rng.standard_normal(policy.size))
        for method in methods(s.objectives, s.explicit):
            if method.kind != "one step":
                continue
            for temperature in (1.0, *s.temperatures):
                values = first_gradients(
                    method, policy, expert, start, other, s.batch, count, temperature
                )
                label = {"method": method.name, "kind": method.kind, "class": name}
                table = pd.DataFrame({"seed": range(count), **values})
                out.append(table.assign(part="gradient", temperature=temperature, **label))
    return pd.concat(out, ignore_index=True)


def destination(s: Settings, **how: Any) -> pd.DataFrame:
    """Minibatch runs in a log-linear class against the predicted destination of each method."""
    it = Ladder.random(range(s.seeds), [s.capacity], s.outcomes, s.spread)
    best = it.maximum_likelihood()
    todo = [*methods(s.objectives, s.explicit), Method("spif", "linear")]
    todo += [Method("spin", "one step", temperature=t) for t in s.temperatures]
    todo += [Method("spin", "one step", tau=s.tau)] if s.tau else []
    out = []
    for i, method in enumerate(todo):
        beta = beta_at(method.objective, s.effective_step)
        rows = pd.DataFrame({"seed": it.seeds, "capacity": it.capacities, "class": "log-linear"})
        rows = rows.assign(beta=beta, rate=s.rate, steps_per_round=s.steps_per_round)
        there = predicted(it, method, beta, best)
        measures: dict[str, Measure] = {"tv_mle": distance_to(best), "off": distance_to(there)}
        start = torch.zeros(it.policy.size)
        run = simulation(
            method,
            it.policy,
            rows,
            it.expert,
            start,
            Data(batch=s.batch),
            measures,
            half_after=s.half_after,
        )
        record = simulator.log_steps(s.steps, per_decade=4, first=10)
        table = simulator.run(run, record, **kept(how, i))
        gap = 0.5 * (there.exp() - best.exp()).abs().sum((-2, -1))
        table["predicted"] = np.tile(gap.numpy(), len(record))
        out.append(labelled(table, "destination", method, beta))
    return pd.concat(out, ignore_index=True)


def stability(s: Settings, **how: Any) -> pd.DataFrame:
    """SPIN from beside the MLE, beta below and above the threshold of T15; exact expectations.

    ``distance`` is the norm of the deviation in parameters, per unit of its start, ``predicted``
    the linear prediction for as many gradient steps a round.
    """
    it = Ladder.random(range(s.seeds), [s.capacity], s.outcomes, s.spread)
    width = s.capacity
    best = torch.stack(
        [torch.from_numpy(it.model(i).maximum_likelihood(it.law(i))) for i in range(len(it.seeds))]
    )
    near = best + NEAR / np.sqrt(width)
    count = len(s.factors)
    of = torch.arange(len(it.seeds)).repeat(count)
    factor = np.repeat(s.factors, len(it.seeds))
    s_p, s_q = zip(*(it.covariances(i) for i in range(len(it.seeds))), strict=True)
    threshold = np.tile([spin_threshold(*pair) for pair in zip(s_p, s_q, strict=True)], count)
    lines = {"seed": np.tile(it.seeds, count), "factor": factor, "threshold": threshold}
    rows = pd.DataFrame(lines).assign(beta=factor * threshold, rate=2 * s.rate)

    def distance(run: SelfPlay, state: State, step: int) -> Tensor:
        return (state["theta"] - best[of]).norm(dim=-1) / NEAR

    out = []
    for i, inner in enumerate(s.inner):
        runs = zip(of.tolist(), rows.beta, rows.rate, strict=True)
        maps = np.stack([spin_round(s_p[i], s_q[i], beta, rate, inner) for i, beta, rate in runs])
        path = [np.full((len(rows), width), 1.0 / np.sqrt(width))]
        for _ in range(ROUNDS):
            path.append(np.einsum("bij,bj->bi", maps, path[-1]))
        run = simulation(
            Method("spin", "one step"),
            LogLinearPolicy(it.features[of][:, None]),
            rows.assign(steps_per_round=inner),
            it.expert[of],
            near[of],
            Data(batch=None),
            {"distance": distance},
        )
        record = [inner * t for t in range(ROUNDS + 1)]
        table = simulator.run(run, record, **kept(how, i))
        table["round"] = table.step // inner
        table["predicted"] = np.linalg.norm(np.concatenate(path), axis=-1)
        table.insert(0, "part", "stability")
        out.append(table)
    return pd.concat(out, ignore_index=True)


def finite(s: Settings, horizon: int) -> pd.DataFrame:
    """Maximum likelihood and self-play within a finite class of token policies, and its bound."""
    laws = finite_class.random_class(0, s.members, horizon, 3, s.class_spread)
    every = {spec: objectives.of(spec) for spec in s.objectives}
    players = {
        spec: (objective, beta_at(objective, s.effective_step))
        for spec, objective in every.items()
        if objective.has_loss
    }
    out = []
    for outside in (False, True):
        for n in s.class_samples:
            playing = {} if outside else players
            table = finite_class.trial(laws, range(s.trials), n, playing, SELECTIONS, outside)
            most = finite_class_bound(len(laws), s.delta, n)
            out.append(table.assign(outside=outside, bound=most))
    table = pd.concat(out, ignore_index=True).assign(horizon=horizon)
    table.insert(0, "part", "finite")
    return table


CALLS = {
    "ladder": ladder,
    "gradient": gradient,
    "destination": destination,
    "stability": stability,
}

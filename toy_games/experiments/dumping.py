"""Mass dumping (T4) by gradient descent from warm starts: when, how much, how fast, how long."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from lab.settings import BaseSettings, option
from lab.specs import objective_of
from lab.streams import Streams
from lab.sweep import Cell
from theory import laws, objectives
from theory.objectives import Objective
from theory.preferences import win_rate, winner_loser
from theory.result import FloatArray
from theory.rounds.one_step import one_step_round
from toy_games.dynamics.measures import unseen as unseen_mask
from toy_games.dynamics.self_play import FOREVER, Data, SelfPlay, kl_to_expert, total_variation
from toy_games.engine import simulator
from toy_games.engine.policies import Neural, Policy, Softmax, Tokens
from toy_games.engine.trainable import beta_at, left_out, trainable
from toy_games.games.real_text import Phrases, read_phrases
from toy_games.predictions import unseen

SUMMARY = "Mass that one-step losses move to responses outside expert and own samples."

MEASURES = {**unseen.MEASURES, "kl": kl_to_expert, "tv": total_variation}
CLASSES = ("softmax", "tokens", "neural")
SPREAD = 1.5  # of the random laws' log-probabilities, in nats


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    """Sizes of all parts."""

    objectives: tuple[str, ...] = option(
        ("spif", "centred_spif", "ipo"), "objectives; SFT runs beside them", check=trainable()
    )
    step: float = option(0.5, "effective step R'(0)/beta, the same for every objective", gt=0)
    seeds: int = option(6, "number of seeds", ge=3)
    shares: tuple[float, ...] = option(
        (0.8, 0.95),
        "expert's share of the first outcome; the policy starts at 1 - share",
        gt=0.5,
        lt=1,
    )
    rare: float = option(0.01, "start mass of the neglected outcome", gt=0, lt=1)
    batches: tuple[int, ...] = option(
        (64,), "responses a side and step on the three outcomes; 0 is the exact gradient", ge=0
    )
    path_rate: float = option(0.3, "learning rate of minibatch steps, SFT units", gt=0)
    path_steps: int = option(2000, "gradient steps on the three outcomes", ge=1)
    masses: tuple[float, ...] = option(
        (0.001, 0.003, 0.01, 0.03, 0.1),
        "start mass of all unseen outcomes, for the times",
        gt=0,
        lt=1,
    )
    counts: tuple[int, ...] = option(
        (1, 2, 8, 32), "number of unseen outcomes, for the times", ge=1
    )
    escape_steps: int = option(3600, "gradient steps, for the times", ge=1)
    sizes: tuple[int, ...] = option((8, 32, 128), "support sizes N at the middle sample size", ge=3)
    samples: tuple[int, ...] = option((4, 16, 64, 256), "samples n a side at N = size", ge=1)
    size: int = option(64, "support size of the sample sweep and of the rounds", ge=3)
    middle: int = option(32, "samples a side of the support sweep", ge=1)
    steps: int = option(1000, "gradient steps a round on samples", ge=1)
    rounds: int = option(5, "rounds, for dumped mass that comes back", ge=1)
    round_steps: int = option(600, "gradient steps a round, over several rounds", ge=1)
    text_objectives: tuple[str, ...] = option(
        ("spif", "centred_spif"), "objectives on real text; SFT runs beside them", check=trainable()
    )
    text_rate: float = option(0.05, "learning rate on real text, SFT units", gt=0)
    text_steps: int = option(300, "gradient steps on real text", ge=1)


def cells(settings: Settings) -> list[Cell]:
    """One cell an objective and part, and sizes of the samples."""
    s = settings
    names = (*s.objectives, "sft")
    given = {"s": s}
    out = [Cell(f"path-{name}", path, given | {"spec": name}) for name in (*names, "sppo")]
    for name in s.objectives:
        if why := never_dumps(objectives.of(name)):
            out.append(left_out("escape", name, why))
        else:
            out.append(Cell(f"escape-{name}", escape, given | {"spec": name}))
    pairs = dict.fromkeys([(n, s.middle) for n in s.sizes] + [(s.size, n) for n in s.samples])
    for name in names:
        one = given | {"spec": name, "rounds": 1, "steps": s.steps}
        for size, count in pairs:
            sized = one | {"size": size, "samples": count}
            out.append(Cell(f"samples-{name}-{size}-{count}", sampled, sized))
        several = {"size": s.size, "samples": s.size, "rounds": s.rounds, "steps": s.round_steps}
        out.append(Cell(f"rounds-{name}", sampled, given | {"spec": name} | several))
    for name in (*s.text_objectives, "sft"):
        for kind in CLASSES:
            out.append(Cell(f"text-{name}-{kind}", text, given | {"spec": name, "policy": kind}))
    return out


def never_dumps(obj: Objective) -> str | None:
    """Why unseen mass does not escape by its own growth (T4); None if it may."""
    if obj.up_to_constant:
        return "its loss is invariant to a shift of rewards: unseen logits stay where they are"
    return obj.missing("saddle")


# -- three outcomes: covered by the data, or not ---------------------------------------------------


def example(share: float, rare: float) -> tuple[FloatArray, FloatArray]:
    """Expert (share, 1 - share, rare), normalised, and the start that swaps the first two."""
    expert = np.array([share * (1.0 - rare), (1.0 - share) * (1.0 - rare), rare])
    return expert, expert[[1, 0, 2]]


def weights(spec: str, share: float, rare: float, covered: bool) -> tuple[FloatArray, FloatArray]:
    """Weights of the two sides of the loss; without the third outcome unless ``covered``.

    For SPPO the winner and loser law of pairs from the start: the first outcome beats the second
    with probability ``share``, all else is even.
    """
    expert, start = example(share, rare)
    if not covered:
        expert, start = (np.append(law[:2] / law[:2].sum(), 0.0) for law in (expert, start))
    if spec != "sppo":
        return expert, start
    return winner_loser(_preference(share), start)


def _preference(share: float) -> FloatArray:
    return np.array([[0.5, share, 0.5], [1.0 - share, 0.5, 0.5], [0.5, 0.5, 0.5]])


def predicted(spec: str, share: float, rare: float, covered: bool, step: float) -> float:
    """Mass of the third outcome where a round ends: on T4's near branch if covered."""
    expert, start = example(share, rare)
    obj = objective_of("spif" if spec == "sppo" else spec)
    beta = beta_at(obj, step)
    if not covered:
        data, own = weights(spec, share, rare, covered)
        return float(unseen.settled_mass(obj, data, own, start, beta))
    if obj is None:
        return float(expert[2])
    if spec == "sppo":
        sppo = objectives.of("sppo")
        wins, beta = win_rate(_preference(share), start), beta_at(sppo, step)
        return float(one_step_round(start, start, sppo, beta, preference=wins).policy[2])
    return float(one_step_round(expert, start, obj, beta).policy[2])


def path(s: Settings, spec: str, checkpoint: Any = None, progress: bool = True) -> pd.DataFrame:
    """Mass of the third outcome against steps of one round: batches, and exact gradients."""
    obj = objective_of("spif" if spec == "sppo" else spec)
    cases = [(share, covered) for share in s.shares for covered in (True, False)]
    tables = []
    for size in s.batches:
        rows = pd.DataFrame(
            [
                {"seed": seed, "share": share, "covered": covered}
                for seed in range(s.seeds if size else 1)
                for share, covered in cases
            ]
        ).assign(rate=s.path_rate, beta=beta_at(obj, s.step), steps_per_round=FOREVER)
        start = np.stack([example(share, s.rare) for share in rows.share])
        sides = [
            weights(spec, share, s.rare, covered)
            for share, covered in zip(rows.share, rows.covered, strict=True)
        ]
        data, own = (np.stack(side)[:, None] for side in zip(*sides, strict=True))
        run = SelfPlay(
            Softmax(3), obj, rows, start[:, 0, None], np.log(start[:, 1]), Data(batch=size or None),
            {"third": _third, "reward_third": _reward_third, **MEASURES},
            given={"data": data, "own": own},
        )  # fmt: skip
        at = simulator.log_steps(s.path_steps, 8)
        part = checkpoint and f"{checkpoint}.{size}.npz"
        tables.append(simulator.run(run, at, part, progress).assign(batch=size))
    return pd.concat(tables, ignore_index=True).assign(part="path", objective=spec)


def _third(run: SelfPlay, state: simulator.State, step: int) -> torch.Tensor:
    return run.log_law(state)[:, 0, 2].exp()


def _reward_third(run: SelfPlay, state: simulator.State, step: int) -> torch.Tensor:
    return run.beta * (run.log_law(state) - state["opponent"])[:, 0, 2]


# -- how long it takes -----------------------------------------------------------------------------


def spread_out(share: float, seen: int, count: int, outside: float, size: int) -> FloatArray:
    """Data, own weights and start (3, size): ``seen`` covered outcomes, ``count`` unseen ones."""
    data, own, start = np.zeros((3, size))
    half = seen // 2
    data[:half], data[half:seen] = share / half, (1.0 - share) / (seen - half)
    own[:seen] = np.concatenate([data[half:seen], data[:half]])
    start[:seen], start[seen : seen + count] = (1.0 - outside) * own[:seen], outside / count
    return np.stack([data, own, start])


def escape(s: Settings, spec: str, seen: int = 2, **how: Any) -> pd.DataFrame:
    """Steps of exact gradients until half of the missing mass is dumped, and as predicted."""
    obj = objectives.of(spec)
    beta, rate, size = beta_at(obj, s.step), 1.0, seen + max(s.counts)
    rows = pd.DataFrame(
        [
            {"seed": 0, "share": s.shares[0], "outside": u, "count_unseen": m}
            for u in s.masses for m in s.counts
        ]
    ).assign(rate=rate, beta=beta, seen=seen, steps_per_round=FOREVER)  # fmt: skip
    given = [
        spread_out(s.shares[0], seen, m, u, size)
        for u, m in zip(rows.outside, rows.count_unseen, strict=True)
    ]
    data, own, start = np.stack(given, axis=1)[:, :, None]
    policy = Softmax(size)
    run = SelfPlay(
        policy, obj, rows, data, policy.parameters_of(_log(start)), Data(batch=None),
        unseen.MEASURES, given={"data": data, "own": own},
    )  # fmt: skip
    table = simulator.run(run, simulator.log_steps(s.escape_steps, 24), **how)
    rows["part"], rows["objective"], rows["step"] = "escape", spec, s.escape_steps
    rows["end"] = table.predicted.to_numpy()[: len(rows)]
    after = table.after.to_numpy().reshape(-1, len(rows))
    at = table["step"].to_numpy().reshape(-1, len(rows))[:, 0]
    rows["after"] = after[-1]
    rows["steps_to_half"] = [
        _crossing(at, after[:, i], 0.5 * end) for i, end in enumerate(rows.end)
    ]
    rows["predicted_steps"] = [
        _predicted_steps(obj, given[i][:, :seen], row, beta, rate)
        for i, row in enumerate(rows.itertuples())
    ]
    return rows


def _predicted_steps(
    obj: Objective, laws_seen: FloatArray, row: Any, beta: float, rate: float
) -> float:
    """`unseen.escape` until half; infinite where nothing much is to be dumped."""
    if row.end <= 2.0 * row.outside:
        return np.inf
    data, own, start = laws_seen
    steps, mass = unseen.escape(obj, data, own, start, row.outside, row.count_unseen, beta, rate)
    return float(np.interp(0.5 * row.end, mass, steps))


def _crossing(at: FloatArray, value: FloatArray, level: float) -> float:
    """First step at which a rising curve reaches a level; infinite where it does not."""
    above = np.flatnonzero(value >= level)
    if not len(above) or above[0] == 0:
        return np.inf
    i = above[0]
    return float(np.interp(level, value[i - 1 : i + 1], at[i - 1 : i + 1]))


def _log(law: FloatArray) -> torch.Tensor:
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.log(law))


# -- samples ---------------------------------------------------------------------------------------


def random_laws(size: int, seeds: int) -> tuple[FloatArray, FloatArray]:
    """Experts and starts (seeds, 1, size) of independent normal log-probabilities."""
    streams = Streams(range(seeds))
    drawn = [
        laws.random_law(streams.generator(i, f"laws of {size}"), (2, size), SPREAD)
        for i in range(seeds)
    ]
    expert, start = np.stack(drawn, axis=1)
    return expert[:, None], start[:, None]


def sampled(
    s: Settings, spec: str, size: int, samples: int, rounds: int, steps: int, **how: Any
) -> pd.DataFrame:
    """Rounds on n expert and n own samples of N outcomes: unseen mass before and after each.

    Columns ``first`` and ``first_expert``: mass of policy and expert on what round 1 did not see.
    """
    obj = objective_of(spec)
    expert, start = random_laws(size, s.seeds)
    rows = pd.DataFrame({"seed": range(s.seeds), "size": size, "samples": samples})
    rows = rows.assign(rate=1.0, beta=beta_at(obj, s.step), steps_per_round=steps)
    data = Data(batch=None, expert_samples=samples, own_samples=samples)
    run = SelfPlay(Softmax(size), obj, rows, expert, np.log(start[:, 0]), data, MEASURES)
    first = unseen_mask(run.start())
    run.measures["first"] = lambda run, state, at: _mass(first, run.log_law(state).exp())
    run.measures["first_expert"] = lambda run, state, at: _mass(first, run.expert)
    table = simulator.run(run, range(0, rounds * steps + 1, steps), **how)
    return table.assign(part="rounds" if rounds > 1 else "samples", objective=spec)


def _mass(where: torch.Tensor, law: torch.Tensor) -> torch.Tensor:
    return torch.where(where, law, 0.0).sum(-1).mean(-1)


# -- real text -------------------------------------------------------------------------------------


@cache
def _phrases() -> Phrases:
    return read_phrases(words=3, horizon=4)


def text(s: Settings, spec: str, policy: str, samples: int = 64, **how: Any) -> pd.DataFrame:
    """One round on samples of real phrases, by a tabular, a token and a neural policy.

    All start at random token policies that know nothing of the text.
    """
    obj = objective_of(spec)
    phrases = _phrases()
    kinds: dict[str, Policy] = {
        "softmax": Softmax(phrases.game.n_responses),
        "tokens": Tokens(phrases.game),
        "neural": Neural(phrases.game),
    }
    streams, chosen = Streams(range(s.seeds)), kinds[policy]
    source = Tokens(phrases.game) if policy == "softmax" else chosen
    start = torch.stack([source.initial(streams.generator(i, "text"), 0.5) for i in range(s.seeds)])
    if isinstance(chosen, Softmax):
        start = chosen.parameters_of(source.log_law(start))
    rows = pd.DataFrame({"seed": range(s.seeds), "policy": policy, "samples": samples})
    rows = rows.assign(rate=s.text_rate, beta=beta_at(obj, s.step), steps_per_round=FOREVER)
    data = Data(batch=None, expert_samples=samples, own_samples=samples)
    run = SelfPlay(chosen, obj, rows, phrases.law, start, data, MEASURES)
    table = simulator.run(run, [0, s.text_steps], **how)
    return table.assign(part="text", objective=spec)

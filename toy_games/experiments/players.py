"""Two explicit players by gradients, against what theory says of their equilibria and their rates.

Parts (setting ``parts``): "trajectories" from afar, without and with the chi^2 penalty; "noise",
the same from minibatches; "rates" near the equilibrium against the Jacobian's; "boundary" of the
stable steps; "features", a tabular policy against few reward features; "classes", a log-linear
policy against other reward classes; "limit", many reward steps a policy step against the exact
rounds; "network", rewards by a network on the tokens of a response. SFT runs beside "noise" and
"classes", which are the parts with data and with a misspecified policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lab.settings import BaseSettings, option
from lab.specs import objective_of
from lab.sweep import Cell
from theory import self_play
from theory.result import FloatArray
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.dynamics.two_players import METHODS, Players, Rules
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.engine.rewards import Table
from toy_games.engine.trainable import named_problems
from toy_games.games.player_classes import WIDE, few_features, network, reward_classes
from toy_games.games.two_players import instance, tabular
from toy_games.predictions.two_players import crossing, growth, predicted_factor, predicted_spread

SUMMARY = "Two explicit players by gradient descent-ascent: equilibria, rates, reward classes."
PARTS = ("trajectories", "noise", "rates", "boundary", "features", "classes", "limit", "network")
NEAR, MIDDLE, NEARER, AFAR = 1e-2, 1e-5, 1e-9, 1.0  # sizes of kicks off an equilibrium
KICK = 0.1
CLEAR = 1e-11, 3e-2
"""Distances far above rounding, which would show in the resolution of a rate, and near."""
NEUTRAL = 1e-9
ROUNDS = 8
Path_ = str | Path | None


def saddle_problems(spec: str) -> list[str]:
    """Check of the objectives: two players need the saddle form."""
    if problems := named_problems(spec):
        return problems
    obj = objective_of(spec)
    lack = obj.missing("saddle") if obj is not None else None
    return [f"{spec} has no saddle form: {lack}"] if lack else []


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    """Settings; step sizes are those of plain gradients, in logits and in nats."""

    parts: tuple[str, ...] = option(PARTS, f"which parts: {', '.join(PARTS)}", of=PARTS)
    objectives: tuple[str, ...] = option(
        ("spif", "iq_learn", "policy_only", "airl", "nwj", "gail"),
        "pointwise, of part rates; the first two also in rounds",
        check=saddle_problems,
    )
    seeds: int = option(5, "number of random games", ge=1)
    outcomes: int = option(5, "responses of a tabular game", ge=2)
    spread: float = option(0.4, "standard deviation of the games' logits", gt=0)
    steps: int = option(400, "steps of a run", ge=20)
    step: float = option(1.5, "step size of both players", gt=0)
    c: float = option(0.25, "weight of the chi^2 penalty in trajectories and noise", gt=0)
    penalties: tuple[float, ...] = option(
        (0.15, 0.3, 0.6, 1.2, 2.5, 5.0), "c of part boundary", gt=0
    )
    tau: float = option(0.2, "weight of the anchor in rates, limit and network", gt=0)
    batch: int = option(256, "responses a side and gradient, in part noise", ge=2)
    slower: int = option(5, "how many times smaller (and more) the steps of part noise are", ge=1)
    features: tuple[int, ...] = option(
        (1, 2, 4, 8, 11), "reward features against 12 responses", ge=1, le=WIDE - 1
    )
    mixtures: tuple[float, ...] = option(
        (0.0, 0.1, 0.2, 0.3, 0.4), "how far reward features are from the policy's", ge=0, le=1
    )
    reward_steps: tuple[int, ...] = option(
        (1, 3, 10, 30, 100), "reward steps a round, in limit", ge=1
    )
    widths: tuple[int, ...] = option((1, 2, 4, 16), "hidden units, in part network", ge=1)

    @property
    def instances(self) -> tuple[int, int, float]:
        """The tabular games: how many, of how many responses, how spread."""
        return self.seeds, self.outcomes, self.spread


def cells(settings: Settings) -> list[Cell]:
    """One cell a part and what its rows cannot share: objective, method, class, batch."""
    s = settings
    plans: dict[str, list[tuple[str, Callable[..., pd.DataFrame], dict[str, object]]]] = {
        "trajectories": [
            (f"{spec}-{m}", trajectories, {"s": s, "spec": spec, "method": m})
            for spec in ("ipm(bound=5)", _penalised(s))
            for m in METHODS
        ],
        "noise": [(spec, noise, {"s": s, "spec": spec}) for spec in (_penalised(s), "sft")],
        "rates": [
            (f"{spec}-{pay}-{m}", rates, {"s": s, "spec": spec, "method": m, "pay": pay})
            for spec, pay in (
                ("ipm(bound=5)", "saddle"),
                *((o, "saddle") for o in s.objectives),
                *((o, "rounds") for o in s.objectives[:2]),
            )
            for m in METHODS
        ],
        "boundary": [(m, boundary, {"s": s, "method": m}) for m in METHODS],
        "features": [
            (f"{k}-{natural}", few_features, {"count": k, "natural": natural, "seeds": s.seeds,
             "steps": 2 * s.steps})
            for k in s.features
            for natural in (False, True)
        ],
        "classes": [
            (f"{kind}", reward_classes, {"kind": kind, "seeds": s.seeds, "steps": 3 * s.steps})
            for kind in (*(f"mixture {v:g}" for v in s.mixtures), "table saddle", "table rounds",
                         "sft")
        ],
        "limit": [
            (f"{spec}-{k}", limit, {"s": s, "spec": spec, "count": k})
            for spec in ("spif", "airl")
            for k in s.reward_steps
        ],
        "network": [
            (f"{w}", network, {"width": w, "seeds": s.seeds, "steps": 4 * s.steps, "tau": s.tau})
            for w in s.widths
        ],
    }  # fmt: skip
    return [Cell(f"{part}-{n}", call, kw) for part in s.parts for n, call, kw in plans[part]]


def _penalised(s: Settings) -> str:
    return f"spif(c={s.c!r})"


# -- parts ----------------------------------------------------------------------------------------


def _rows(s: Settings, step: float) -> pd.DataFrame:
    """One row a seed, both players with the same step."""
    return pd.DataFrame({"seed": range(s.seeds), "step_policy": step, "step_reward": step})


def trajectories(s: Settings, spec: str, method: str, **how: Any) -> pd.DataFrame:
    """Exact gradients from a kick, tau = 0: the equilibrium is the expert, the reward constant."""
    run, rest = tabular(spec, _rows(s, s.step), Rules(method), 0.0, KICK, s.instances)
    record = range(0, s.steps + 1, max(1, s.steps // 80))
    table = simulator.run(run, record, **how)
    table["predicted"] = np.tile(np.log(predicted_factor(rest, rest.start())), len(record))
    return table.assign(part="trajectories", objective=spec, method=method, pay="saddle")


def noise(s: Settings, spec: str, **how: Any) -> pd.DataFrame:
    """Sampled gradients from the same starts, with the predicted stationary spread; and SFT."""
    step, steps = s.step / s.slower, s.steps * s.slower
    rows, record = _rows(s, step), range(0, steps + 1, max(1, steps // 80))
    expert, _, direction = instance(*s.instances)
    if spec == "sft":
        start = np.log(expert[:, 0]) + AFAR * direction[:, 0]
        policy, data = Softmax(s.outcomes), Data(batch=s.batch)
        plain = SelfPlay(policy, None, rows.assign(rate=step), expert, start, data)
        table = simulator.run(plain, record, **how).rename(columns={"tv": "tv_to_expert"})
        return table.assign(part="noise", objective=spec)
    rules = Rules("simultaneous", batch=s.batch)
    run, rest = tabular(spec, rows, rules, 0.0, AFAR, s.instances)
    table = simulator.run(run, record, **how)
    table["predicted"] = np.tile(np.sqrt(predicted_spread(rest, rest.start())), len(record))
    return table.assign(part="noise", objective=spec, method=rules.method, pay="saddle")


def rates(
    s: Settings, spec: str, method: str, pay: str, checkpoint: Path_ = None, **how: Any
) -> pd.DataFrame:
    """Measured log-factor a step near the equilibrium, beside the Jacobian's."""
    tau, steps = 0.0 if spec.startswith("ipm") else s.tau, max(20, 2 * s.steps // 3)
    rows = _rows(s, s.step)
    _, rest = tabular(spec, rows, Rules(method, pay), tau, 0.0, s.instances)
    predicted = np.log(predicted_factor(rest, rest.start()))
    # From either end there are seven decades of linear regime, or more, to be seen. A rotation has
    # no rate: the sign of what is computed for it is that of a rounding error.
    kick = np.where(predicted > NEUTRAL, NEARER, NEAR)[:, None]
    run, _ = tabular(spec, rows, Rules(method, pay), tau, kick, s.instances)
    measured, error = growth(run, steps, checkpoint, CLEAR)
    table = rows.assign(tau=tau, step=steps, measured=measured, error=error, predicted=predicted)
    return table.assign(part="rates", objective=spec, method=method, pay=pay)


def boundary(s: Settings, method: str, **_: Any) -> pd.DataFrame:
    """Largest stable common step of both players, measured and predicted, by the penalty c.

    All penalties are one batch: rewards in units of 1/c turn steps (s, s) of the game with c into
    steps (s/c, c s) of the game with c = 1.
    """
    seeds, count = np.arange(s.seeds), len(s.penalties)
    games = pd.DataFrame({"seed": np.tile(seeds, count), "c": np.repeat(s.penalties, s.seeds)})

    def players(steps_: FloatArray) -> tuple[Players, Players]:
        rows = games.loc[games.index.repeat(steps_.shape[1])].reset_index(drop=True)
        flat = steps_.ravel()
        rows = rows.assign(step_policy=flat / rows.c, step_reward=flat * rows.c)
        return tabular("spif", rows, Rules(method), 0.0, MIDDLE, s.instances)

    def measured(steps_: FloatArray) -> FloatArray:
        return growth(players(steps_)[0], s.steps)[0].reshape(steps_.shape)

    def predicted(steps_: FloatArray) -> FloatArray:
        rest = players(steps_)[1]
        return np.log(predicted_factor(rest, rest.start())).reshape(steps_.shape)

    least, most = np.full(len(games), 0.1), np.full(len(games), 60.0)
    found = {name: crossing(f, least, most) for name, f in
             (("measured", measured), ("predicted", predicted))}  # fmt: skip
    return games.assign(step=s.steps, **found, part="boundary", objective="spif", method=method)


def limit(s: Settings, spec: str, count: int, **how: Any) -> pd.DataFrame:
    """KL-proximal policy steps after ``count`` reward steps each, against the exact rounds.

    The column ``worst`` is the largest TV between the two policies of one round, over the rounds.
    """
    obj, beta, tau = objective_of(spec), 1.0, 0.1
    assert obj is not None
    expert, ref, _ = instance(*s.instances)
    rows = pd.DataFrame({"seed": range(s.seeds), "step_reward": 2.0, "tau": tau})
    rows["step_policy"] = 1.0 / (beta + tau)
    rules = Rules("alternating", "rounds", natural=True, reward_steps=count)
    run = Players(
        Softmax(s.outcomes), Table(s.outcomes), obj, rows, expert,
        (np.log(ref[:, 0]), np.zeros(s.outcomes)), rules, np.log(ref),
        measures={f"law {y}": partial(_probability, y) for y in range(s.outcomes)},
    )  # fmt: skip
    table = simulator.run(run, range(ROUNDS + 1), **how)
    path = self_play(expert, ref, obj, beta, ROUNDS, ref, tau, progress=False).policies
    assert path is not None
    met = table.filter(like="law ").to_numpy().reshape(path.shape)
    worst = (0.5 * np.abs(met - path).sum(-1)).max((0, 2))
    return rows.assign(part="limit", objective=spec, reward_steps=count, worst=worst, step=ROUNDS)


def _probability(outcome: int, players: Players, state: simulator.State) -> torch.Tensor:
    return players.policy.log_law(state["theta"])[:, 0, outcome].exp()

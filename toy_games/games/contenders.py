"""Ways of training one class at equal data and equal compute, and where theory says they end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.specs import objective_of
from theory.objectives import Objective
from toy_games.dynamics.self_play import Data, Measure, SelfPlay, sft_scale
from toy_games.dynamics.two_step import RewardClass, TwoStepRounds
from toy_games.engine.policies import Policy
from toy_games.games.ladder import Ladder

LINEAR = "moment matching"


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of training: ``kind`` is "mle", "one step", "two steps" or "linear"."""

    spec: str
    kind: str
    temperature: float = 1.0
    tau: float = 0.0

    @property
    def name(self) -> str:
        """As the column ``method`` has it."""
        parts = [LINEAR if self.kind == "linear" else self.spec]
        parts += ["two steps"] if self.kind == "two steps" else []
        parts += [f"temperature {self.temperature:g}"] if self.temperature != 1 else []
        parts += [f"anchor {self.tau:g}"] if self.tau else []
        return ", ".join(parts)

    @property
    def objective(self) -> Objective | None:
        """The objective, None for SFT."""
        return objective_of(self.spec)


def methods(one_step: Sequence[str], explicit: Sequence[str]) -> list[Method]:
    """SFT first, then one loss on one model, then explicit reward players."""
    out = [Method("sft", "mle"), *(Method(spec, "one step") for spec in one_step)]
    return out + [Method(spec, "two steps") for spec in explicit]


def simulation(
    method: Method,
    policy: Policy,
    rows: pd.DataFrame,
    expert: Any,
    start: Any,
    data: Data,
    measures: dict[str, Measure],
    smoothing: float = 0.0,
    half_after: float = np.inf,
) -> SelfPlay:
    """The run of one method; at equal ``data`` all read as many responses a step."""
    rows = rows.assign(temperature=method.temperature, tau=method.tau)
    if method.kind in ("mle", "two steps", "linear") and data.batch is not None:
        data = dataclasses.replace(data, batch=2 * data.batch)
    run: dict[str, Any] = {"data": data, "measures": measures, "half_after": half_after}
    if method.kind in ("mle", "one step"):
        return SelfPlay(policy, method.objective, rows, expert, start, **run)
    assert method.objective is not None
    rewards: RewardClass = "linear" if method.kind == "linear" else "tabular"
    run |= {"rewards": rewards, "smoothing": smoothing}
    return TwoStepRounds(policy, method.objective, rows, expert, start, **run)


def labelled(table: pd.DataFrame, part: str, method: Method, beta: float) -> pd.DataFrame:
    """The table with its part, method and kind in front."""
    for name, value in (("beta", beta), ("kind", method.kind), ("method", method.name)):
        table = table.drop(columns=name, errors="ignore")
        table.insert(0, name, value)
    table.insert(0, "part", part)
    return table


def kept(how: dict[str, Any], number: int) -> dict[str, Any]:
    """How to run, with a checkpoint of its own for every run of a cell."""
    path = how.get("checkpoint")
    return how | {"checkpoint": None if path is None else Path(f"{path}.{number}")}


def predicted(it: Ladder, method: Method, beta: float, best: Tensor) -> Tensor:
    """(rows, 1, N) log-laws where theory says that a method ends (reconstruction, T15).

    At temperature T the fixed point's moments *at that temperature* match the expert's; in a
    log-linear class on the uniform law that is the maximum-likelihood law to the power T.
    """
    if method.kind == "two steps":
        assert method.objective is not None
        return it.potential_minimiser(method.objective)
    if method.tau:
        assert method.objective is not None
        return it.anchored(method.objective, beta, method.tau)
    return (best * method.temperature).log_softmax(-1)


def first_gradients(
    method: Method,
    policy: Policy,
    expert: Any,
    start: Tensor,
    other: Tensor,
    batch: int,
    count: int,
    temperature: float = 1.0,
) -> dict[str, np.ndarray]:
    """A round's first gradient on ``count`` minibatches, in units of the predicted one.

    Returns arrays (count,): ``along`` SFT's exact gradient, ``across`` it in the direction of
    ``other`` (P,), and the ``cosine`` of the exact gradients, which is one number.
    """

    def gradients(objective: Objective | None, size: int | None) -> Tensor:
        seeds = range(1 if size is None else count)
        rows = pd.DataFrame({"seed": seeds, "beta": 0.7, "temperature": temperature})
        run = SelfPlay(policy, objective, rows, expert, start, Data(batch=size))
        state = run.start()
        point = state["theta"].requires_grad_()
        (found,) = torch.autograd.grad(run.loss(point, state, 0).sum(), point)
        return found / sft_scale(objective, run.beta)[:, None]

    (sft,) = gradients(None, None)
    (whole,), drawn = gradients(method.objective, None), gradients(method.objective, batch)
    across = other - (other @ sft) / (sft @ sft) * sft
    across = across * sft.norm() / across.norm()
    cosine = whole @ sft / (whole.norm() * sft.norm())
    return {
        "along": (drawn @ sft / (sft @ sft)).numpy(),
        "across": (drawn @ across / (sft @ sft)).numpy(),
        "cosine": np.full(count, float(cosine)),
    }

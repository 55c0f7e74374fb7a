"""One round on finite samples (T13): the samples, what to measure, and what is predicted.

On a tabular policy the samples alone decide: outcomes seen on the expert's side only never lose,
those on the own side only never win, shared ones do both. A bounded reward link gives them R(inf),
R(-inf) and R(log p^/q^); the logistic loss has no minimiser unless both sides saw the same outcomes
(Ford's condition for Bradley-Terry scores).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import lambertw
from torch import Tensor

from theory.errors import InvalidInput
from theory.objectives import Objective
from theory.result import FloatArray
from toy_games.dynamics.flow import gradient
from toy_games.dynamics.self_play import Data, Measure, SelfPlay, kl_to_expert
from toy_games.engine.policies import Policy
from toy_games.engine.simulator import State

EXACT = Data(batch=None)
FOREVER = 10**12
"""Steps of a round that never ends."""


class OnSamples(SelfPlay):
    """Self-play on a given sample of the expert's responses; on one of own responses if given."""

    def __init__(
        self,
        policy: Policy,
        objective: Objective | None,
        rows: pd.DataFrame,
        expert: ArrayLike,
        start: Any,
        samples: ArrayLike,
        own: ArrayLike | None = None,
        data: Data = EXACT,
        measures: Mapping[str, Measure] | None = None,
    ) -> None:
        """As `SelfPlay`, a row having its own sample.

        Args:
            policy: the class.
            objective: None is SFT.
            rows: as in `SelfPlay`; with ``own`` there is one round that never ends.
            expert: the law that quality is measured against.
            start: parameters.
            samples: frequencies of the expert's sampled responses, (rows, X, N).
            own: frequencies of the own responses, likewise; None draws from the opponent.
            data: batches are drawn from ``samples``; no sizes of data sets.
            measures: default `MEASURES`.
        """
        rows = rows if own is None else rows.assign(steps_per_round=FOREVER)
        wanted = MEASURES if measures is None else measures
        super().__init__(policy, objective, rows, expert, start, data, wanted)
        self.samples = {"data": torch.as_tensor(samples, dtype=torch.float64)}
        if own is not None:
            self.samples["own"] = torch.as_tensor(own, dtype=torch.float64)

    def start(self) -> State:
        """The given samples in place of drawn ones."""
        given = {name: law.expand(self.expert.shape).clone() for name, law in self.samples.items()}
        return super().start() | given


# -- measures -------------------------------------------------------------------------------------


def _rewards(run: SelfPlay, state: State) -> Tensor:
    return run.beta[:, None, None] * (run.log_law(state) - state["opponent"])


def _extremes(values: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    low = values.masked_fill(~among, torch.inf).amin(-1)
    return low, values.masked_fill(~among, -torch.inf).amax(-1)


def margin(run: SelfPlay, state: State, step: int) -> Tensor:
    """Least reward of an expert's sample minus largest of an own one, in nats; least of prompts."""
    reward = _rewards(run, state)
    worst, _ = _extremes(reward, state["data"] > 0)
    _, best = _extremes(reward, state["own"] > 0)
    return (worst - best).amin(-1)


def reward_range(run: SelfPlay, state: State, step: int) -> Tensor:
    """Largest minus least implicit reward of the samples, in nats; largest of prompts."""
    low, high = _extremes(_rewards(run, state), (state["data"] > 0) | (state["own"] > 0))
    return (high - low).amax(-1)


def logit_range(run: SelfPlay, state: State, step: int) -> Tensor:
    """Largest minus least log-probability of any outcome, in nats; largest of prompts."""
    log_law = run.log_law(state)
    return (log_law.amax(-1) - log_law.amin(-1)).amax(-1)


def unseen_mass(run: SelfPlay, state: State, step: int) -> Tensor:
    """Probability of the outcomes that no sample of either side shows, mean over prompts."""
    unseen = (state["data"] == 0) & (state["own"] == 0)
    return (run.log_law(state).exp() * unseen).sum(-1).mean(-1)


def gradient_norm(run: SelfPlay, state: State, step: int) -> Tensor:
    """Euclidean norm of the loss's gradient, per unit of the SFT rate (step size times norm)."""
    rate = torch.tensor(run.rows["rate"].to_numpy(dtype=np.float64))
    size = gradient(run, state["theta"], state).norm(dim=-1)
    return size * run.step_size / rate


def loss(run: SelfPlay, state: State, step: int) -> Tensor:
    """The training loss."""
    return run.loss(state["theta"], state, step)


def missing_mass(run: SelfPlay, state: State, step: int) -> Tensor:
    """The expert's probability of what its own samples do not show, mean over prompts."""
    return (run.expert * (state["data"] == 0)).sum(-1).mean(-1)


MEASURES: dict[str, Measure] = {
    "margin": margin,
    "reward_range": reward_range,
    "logit_range": logit_range,
    "unseen_mass": unseen_mass,
    "gradient_norm": gradient_norm,
    "loss": loss,
    "kl": kl_to_expert,
}


# -- predictions, tabular policies ----------------------------------------------------------------


def logistic_growth(data: FloatArray, own: FloatArray) -> FloatArray:
    """Growth rates (..., N) of rewards against log t under the logistic loss (T13).

    Every level (expert only, shared, own only) that is not empty grows one faster than the next:
    each is held apart by forces that fall like e^{-distance}. Rewards of unseen outcomes stay
    and the mean of all logits is conserved, which fixes the rest: up to a constant, the normaliser.
    """
    seen, shared = (data > 0) | (own > 0), (data > 0) & (own > 0)
    between = shared.any(-1, keepdims=True).astype(float)
    level = np.where(shared, 1.0, np.where(data > 0, 1.0 + between, 0.0))
    mean = (level * seen).sum(-1, keepdims=True) / seen.sum(-1, keepdims=True)
    return np.where(seen, level - mean, 0.0)


def pair_margin(time: ArrayLike, speed: float) -> FloatArray:
    """Margin of one expert and one own sample under logistic flow: ``m + e^m - 1 = speed time``.

    ``speed`` is ``2 beta^2`` times the step size.
    """
    z = 1.0 + speed * np.asarray(time, dtype=float)
    # m = z - W(e^z), and e^z overflows: Newton from m = log z instead, which is above 0
    m = np.log(z)
    for _ in range(60):
        m = m - (m + np.exp(m) - z) / (1.0 + np.exp(m))
    return m


def bounded_range(objective: Objective, data: FloatArray, own: FloatArray) -> FloatArray:
    """Range of the best response on the samples, as the link has it (pairwise, centred), (...)."""
    reward = objective.reward(data, own)
    seen = (data > 0) | (own > 0)
    low = np.min(np.where(seen, reward, np.inf), -1)
    return np.max(np.where(seen, reward, -np.inf), -1) - low


def demanded_mass(
    objective: Objective, beta: ArrayLike, data: FloatArray, own: FloatArray, opponent: FloatArray
) -> FloatArray:
    """Mass ``sum q e^{R/beta}`` over the samples that a pointwise best response asks for, (...).

    The one-step pointwise loss attains its minimum only if this is below 1, as long as there are
    outcomes that no sample shows: they need what is left (T13).
    """
    seen = (data > 0) | (own > 0)
    wanted = np.where(seen, objective.reward(data, own), 0.0) / np.asarray(beta)
    return (seen * opponent * np.exp(wanted)).sum(-1)


class Unattained(NamedTuple):
    """Limit of a pointwise squared round that asks for more mass than there is."""

    law: FloatArray
    """The policy in the limit, (N,); nothing is left for unseen outcomes."""
    multiplier: float
    """``sum of dL/dr`` at the limit, < 0."""
    unseen_time: float
    """Unseen mass times time (steps) times step size, in the limit: it decays like 1/t."""


def squared_limit(
    c: float, beta: float, data: FloatArray, own: FloatArray, opponent: FloatArray
) -> Unattained:
    """SPIF's pointwise round (alpha = 1/2) on samples (N,) that ask for more mass than 1.

    Among policies on the samples, ``(p^+q^) c r - (p^-q^) = multiplier pi`` and ``sum pi = 1``. An
    unseen logit falls at speed ``step beta |multiplier| pi``; the samples' logits share the rise.
    InvalidInput: the minimum is attained.
    """
    seen = (data > 0) | (own > 0)
    weight = (data + own)[seen] * c * beta
    target = np.log(opponent[seen]) + (data - own)[seen] / weight
    if np.exp(target).sum() <= 1.0 or seen.all():
        raise InvalidInput("the minimum is attained: there is room for the targets, or no more")

    def law(pull: float) -> FloatArray:
        k = pull / weight
        return np.real(lambertw(k * np.exp(target))) / k

    pull = brentq(lambda m: law(m).sum() - 1.0, 1e-12, 1e6, xtol=1e-14)
    limit = np.zeros(len(seen))
    limit[seen] = law(pull)
    share = 1.0 / (~seen).sum() + 1.0 / seen.sum()
    return Unattained(limit, -float(pull), 1.0 / (beta * pull * share))

"""Ladders of capacity, the measures of quality on them, and what theory predicts at every rung."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.streams import Streams
from theory import laws
from theory.errors import InvalidInput
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds import log_linear as exact
from toy_games.dynamics.self_play import (
    Measure,
    SelfPlay,
    kl_to_expert,
    reverse_kl,
    total_variation,
)
from toy_games.engine.simulator import State


class RowLogLinear:
    """``pi_theta ∝ exp(features theta)`` with features of its own in every row: (rows, N, D)."""

    def __init__(self, features: Tensor) -> None:
        """InvalidInput: features that are not finite numbers (rows, N, D)."""
        if features.ndim != 3 or not torch.isfinite(features).all():
            raise InvalidInput(f"features: {tuple(features.shape)}; needed is finite (rows, N, D)")
        self.features = features
        self.shape = (1, features.shape[1])
        self.size = features.shape[2]

    def log_law(self, theta: Tensor) -> Tensor:
        """Log-laws (rows, 1, N) of parameters (rows, D)."""
        return torch.einsum("bnd,bd->bn", self.features, theta).log_softmax(-1)[:, None]

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        """Normal parameters of one row, (D,)."""
        return torch.from_numpy(scale * generator.standard_normal(self.size))


@dataclass(frozen=True)
class Ladder:
    """Random experts and nested log-linear classes, one (expert, capacity) a row.

    Attributes:
        seeds, capacities: of every row; capacity d uses the first d of N - 1 features.
        features: (rows, N, D), columns beyond the capacity are 0; the N - 1 columns of an expert
            are orthogonal with mean 0 and variance 1 under the uniform law.
        expert: laws (rows, 1, N); at capacity N - 1 they are in the class.
    """

    seeds: tuple[int, ...]
    capacities: tuple[int, ...]
    features: Tensor
    expert: Tensor

    @classmethod
    def random(
        cls, seeds: Sequence[int], capacities: Sequence[int], outcomes: int, spread: float
    ) -> Ladder:
        """Normal features, experts with normal logits of size ``spread``, all from the seeds."""
        used, features, experts = [], [], []
        width = max(capacities)
        for seed in seeds:
            rng = Streams([seed]).generator(0, "ladder of log-linear classes")
            normal = np.column_stack(
                [np.ones(outcomes), rng.standard_normal((outcomes, outcomes - 1))]
            )
            whole = np.sqrt(outcomes) * np.linalg.qr(normal)[0][:, 1:]
            law = laws.random_law(rng, (outcomes,), spread)
            for d in capacities:
                used.append((seed, d))
                features.append(np.where(np.arange(width) < d, whole[:, :width], 0.0))
                experts.append(law[None])
        seed_of, capacity_of = zip(*used, strict=True)
        return cls(
            seed_of,
            capacity_of,
            torch.from_numpy(np.stack(features)),
            torch.from_numpy(np.stack(experts)),
        )

    @property
    def policy(self) -> RowLogLinear:
        """The classes of all rows."""
        return RowLogLinear(self.features)

    def model(self, row: int) -> exact.LogLinear:
        """The class of one row, for exact solutions."""
        return exact.LogLinear(self.features[row, :, : self.capacities[row]].numpy())

    def law(self, row: int) -> FloatArray:
        """The expert of one row (N,)."""
        return self.expert[row, 0].numpy()

    def maximum_likelihood(self) -> Tensor:
        """(rows, 1, N) log-laws: where SFT and one-step rounds end (T15)."""
        return self._solved(lambda row: self.model(row).maximum_likelihood(self.law(row)))

    def potential_minimiser(self, obj: Objective) -> Tensor:
        """(rows, 1, N) log-laws of stationary points of ``D_Phi(pi_theta||p)`` reached from 0."""
        return self._solved(
            lambda row: self.model(row).potential_minimiser(
                self.law(row), obj, np.zeros(self.capacities[row])
            )
        )

    def anchored(self, obj: Objective, beta: float, tau: float) -> Tensor:
        """(rows, 1, N) log-laws where exact one-step rounds anchored at the uniform law end."""
        uniform = np.full(self.expert.shape[-1], 1.0 / self.expert.shape[-1])

        def solve(row: int) -> FloatArray:
            start = np.zeros(self.capacities[row])
            path = self.model(row).self_play(
                self.law(row), start, obj, beta, rounds=20, tau=tau, ref=uniform
            )
            return np.asarray(path.details["theta"][-1])

        return self._solved(solve)

    def covariances(self, row: int) -> tuple[FloatArray, FloatArray]:
        """Covariances (d, d) of the features under the expert and at the MLE."""
        x, p = self.features[row, :, : self.capacities[row]].numpy(), self.law(row)
        q = self.model(row).law(self.model(row).maximum_likelihood(p))
        s_p, s_q = (np.cov(x.T, aweights=weight, ddof=0).reshape(len(x.T), -1) for weight in (p, q))
        return s_p, s_q

    def _solved(self, solve: Callable[[int], FloatArray]) -> Tensor:
        found = [self.model(row).log_law(solve(row)) for row in range(len(self.seeds))]
        return torch.from_numpy(np.stack(found)[:, None])


def spin_threshold(s_p: FloatArray, s_q: FloatArray) -> float:
    """Least stable ``beta`` of exact SPIN rounds: ``lambda_max((S_p+S_q)^-1 S_q)`` (T15)."""
    return float(np.linalg.eigvals(np.linalg.solve(s_p + s_q, s_q)).real.max())


def spin_round(
    s_p: FloatArray, s_q: FloatArray, beta: float, rate: float, steps: int
) -> FloatArray:
    """Linear map (d, d) of a deviation from the MLE over a SPIN round of gradient steps.

    The round's loss has curvature ``beta^2/4 (S_p+S_q)`` and the step size is ``2 rate/beta``;
    after infinitely many steps the map is T15's ``1 - 2/beta (S_p+S_q)^-1 S_q``.
    """
    one = np.eye(len(s_p))
    undone = np.linalg.matrix_power(one - 0.5 * rate * beta * (s_p + s_q), steps)
    return np.asarray(one - (one - undone) @ np.linalg.solve(s_p + s_q, s_q) * 2.0 / beta)


# -- measures of quality --------------------------------------------------------------------------


def judge(run: SelfPlay, state: State, step: int) -> Tensor:
    """``E_pi log p`` in nats: the expert's likelihood of samples, what a judge would reward."""
    return torch.xlogy(run.log_law(state).exp(), run.expert).sum(-1).mean(-1)


def entropy(run: SelfPlay, state: State, step: int) -> Tensor:
    """Entropy of the policy in nats, mean over prompts."""
    log_law = run.log_law(state)
    return -(log_law.exp() * log_law).sum(-1).mean(-1)


def distance_to(target: Tensor) -> Measure:
    """Total variation to log-laws (rows, X, N), mean over prompts."""

    def measure(run: SelfPlay, state: State, step: int) -> Tensor:
        return 0.5 * (run.log_law(state).exp() - target.exp()).abs().sum(-1).mean(-1)

    return measure


QUALITY: dict[str, Measure] = {
    "forward_kl": kl_to_expert,
    "reverse_kl": reverse_kl,
    "judge": judge,
    "tv": total_variation,
    "entropy": entropy,
}
"""Against the expert's own law: held out, whatever samples the run was trained on."""

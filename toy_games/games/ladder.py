"""Ladders of capacity: random experts, nested log-linear classes, and their exact solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.streams import Streams
from theory import laws
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds import log_linear
from toy_games.engine.policies import LogLinearPolicy


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
    def policy(self) -> LogLinearPolicy:
        """The classes of all rows."""
        return LogLinearPolicy(self.features[:, None])

    def model(self, row: int) -> log_linear.LogLinear:
        """The class of one row, for exact solutions."""
        return log_linear.LogLinear(self.features[row, :, : self.capacities[row]].numpy())

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

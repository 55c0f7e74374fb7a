"""Gradient flow of one round in geometric time: what gradient descent of small steps follows.

Growth like log t shows only over many decades of steps. The flow is stiff (directions that relax at
once beside one that never ends), so each step solves a linear system with the exact Hessian.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from theory.errors import refuse
from toy_games.dynamics.self_play import SelfPlay
from toy_games.engine.simulator import State

GAMMA = 1.0 - 0.5**0.5
"""Makes the two-stage Rosenbrock method ROS2 (Verwer et al. 1999) L-stable, of order two."""


class Flow:
    """Simulation: step k takes a round of gradient flow from ``times[k]`` to ``times[k + 1]``.

    Time is counted in gradient steps of the round's own learning rate, so that a flow and a descent
    at equal numbers are to be compared. ``times`` grow by a constant ratio; a ratio of 1.1 errs by
    less than 1 %. Losses need second derivatives: the hinge's flow is not smooth.
    """

    def __init__(self, run: SelfPlay, last: float, per_decade: int = 25, first: float = 0.01):
        """The round ``run`` (exact expectations), up to time ``last``, from steps of ``first`` on.

        InvalidInput: times out of order, or a round on minibatches.
        """
        refuse(
            [f"first={first!r}, last={last!r}; needed is 0 < first < last < inf"]
            * (not 0.0 < first < last < np.inf)
            + [f"per_decade={per_decade!r}; needed is a whole number >= 1"] * (per_decade < 1)
            + ["run: draws minibatches; a flow needs data with batch=None"]
            * (run.data.batch is not None)
        )
        count = int(np.ceil(per_decade * np.log10(last / first))) + 1
        self.times = np.concatenate([[0.0], np.geomspace(first, last, count)])
        self.run = run
        self.rows: pd.DataFrame = run.rows
        self.identity = f"flow to {last!r} by {per_decade} from {first!r} of {run.identity}"

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.times) - 1

    def start(self) -> State:
        """The round's own start."""
        return self.run.start()

    def advance(self, state: State, step: int) -> State:
        """The state at ``times[step + 1]``."""
        span = self.times[step + 1] - self.times[step]
        h = (span * self.run.step_size)[:, None]
        theta = state["theta"]
        slope, curvature = self._derivatives(theta, state)
        unit = torch.eye(theta.shape[1], dtype=theta.dtype)
        factors = torch.linalg.lu_factor(unit + GAMMA * h[..., None] * curvature)

        def solve(right: Tensor) -> Tensor:
            return torch.linalg.lu_solve(*factors, right[..., None])[..., 0]

        k1 = solve(-slope)
        k2 = solve(-self.run.gradient(theta + h * k1, state) - 2.0 * k1)
        return state | {"theta": theta + h * (1.5 * k1 + 0.5 * k2)}

    def measure(self, state: State, step: int) -> dict[str, Tensor]:
        """The round's measures, and ``time`` in gradient steps."""
        time = torch.full((len(self.rows),), float(self.times[step]), dtype=torch.float64)
        return {"time": time, **self.run.measure(state, step)}

    def _derivatives(self, theta: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Gradient (B, P) and Hessian (B, P, P) of every row's loss."""
        rows, size = theta.shape
        with torch.enable_grad():
            point = theta.detach().requires_grad_()
            (slope,) = torch.autograd.grad(
                self.run.loss(point, state, 0).sum(), point, create_graph=True
            )
            units = torch.eye(size, dtype=theta.dtype)[:, None].expand(size, rows, size)
            (columns,) = torch.autograd.grad(slope, point, units, is_grads_batched=True)
        return slope.detach(), columns.movedim(0, 1)

"""The plug-in estimate of ``P(y > pi)`` from own responses, and its bias and variance (T11).

SPPO estimates how often a response wins against the policy by comparing the K responses of a
prompt with each other. Released code has averaged in each response's comparison with itself.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lab.streams import draw
from theory.errors import InvalidInput
from toy_games.dynamics.preference_rounds import PreferenceBatch
from toy_games.engine.simulator import State


class PlugIn(PreferenceBatch):
    """One step is one group of K own responses, all compared with all: the estimate's bias.

    The policy stays at the start. ``self_comparison`` keeps each response's comparison with itself
    (1/2) in the mean over the group.
    """

    def __init__(self, rows: pd.DataFrame, preference: Any, policy: Any) -> None:
        """As :class:`PreferenceBatch`; every row needs ``samples`` >= 2."""
        super().__init__(rows, preference, policy)
        if bool((self.samples < 2).any()):
            raise InvalidInput("samples: needed is a group of 2 own responses or more")

    def start(self) -> State:
        """Number of estimates of every response, their sum and the sum of their squares."""
        zero = torch.zeros_like(self.log_start)
        return {"count": zero, "sum": zero.clone(), "square": zero.clone()}

    def advance(self, state: State, step: int) -> State:
        """One more group."""
        most = int(self.samples.max())
        drawn = draw(self.log_start.exp(), self.streams.uniform("group", step, (most,)))
        luck = self.streams.uniform("group comparisons", step, (most, most))
        found = group_estimates(self.preference, drawn, luck, self.samples, self.own)
        inside = (self.used(most) > 0).to(torch.float64)
        return {
            name: state[name].scatter_add(-1, drawn, inside * found**power)
            for name, power in (("count", 0), ("sum", 1), ("square", 2))
        }

    def measure(self, state: State, step: int) -> dict[str, Tensor]:
        """Bias as a share of ``1/2 - P``, variance as a share of ``P (1 - P)``, mean over pi.

        Every estimate counts once, so responses weigh by how often they were drawn.
        """
        exact = self.win_rate(self.log_start.exp())
        count = state["count"].clamp_min(1.0)
        mean = state["sum"] / count
        weight = state["count"] / state["count"].sum(-1, keepdim=True)
        pull = 0.5 - exact
        bias = (weight * (mean - exact) * pull).sum(-1) / (weight * pull**2).sum(-1)
        variance = (weight * (state["square"] / count - mean**2)).sum(-1)
        return {"bias": bias, "variance": variance / (weight * exact * (1.0 - exact)).sum(-1)}


def group_estimates(
    preference: Tensor, drawn: Tensor, luck: Tensor, samples: Tensor, own: Tensor
) -> Tensor:
    """Plug-in estimates (rows, most) of ``P(y_i > pi)`` from one comparison of each two.

    Args:
        preference: (rows, n, n).
        drawn: responses (rows, most); the first ``samples`` of a row are its group.
        luck: uniform numbers (rows, most, most), those above the diagonal are used.
        samples: size K of each row's group, >= 2.
        own: whether the row keeps comparisons with oneself: a mean over K, else over K - 1.
    """
    most = drawn.shape[-1]
    row = torch.arange(len(drawn))[:, None, None]
    chance = preference[row, drawn[:, :, None], drawn[:, None, :]]
    above = (luck < chance).to(torch.float64).triu(1)
    won = above + (torch.ones(most, most).triu(1) - above).mT + 0.5 * torch.eye(most)
    inside = (torch.arange(most) < samples[:, None]).to(torch.float64)
    others = inside[:, None, :] * (1.0 - torch.eye(most, dtype=torch.float64))
    kept = torch.where(own[:, None, None], inside[:, None, :], others)
    return (won * kept).sum(-1) / kept.sum(-1)

"""Rows of a batch: one line a run, whose columns are checked on entry and read as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab import files
from lab.streams import Streams


class Column(NamedTuple):
    """Numbers that a column takes, and the one of rows without it; None: they need it.

    They are at least 0 (above 0 if ``positive``), below ``below``, at most ``most``, and whole ones
    if ``whole``.
    """

    default: float | None
    positive: bool = False
    whole: bool = False
    below: float = np.inf
    most: float = np.inf

    def takes(self, value: Any) -> bool:
        """Whether a value is such a number."""
        if not isinstance(value, (int, float, np.number)) or isinstance(value, bool):
            return False
        inside = 0 < value < self.below or (value == 0 and not self.positive)
        return bool(inside and value <= self.most and not (self.whole and value != int(value)))

    @property
    def needed(self) -> str:
        """These numbers in words."""
        end = f" and < {self.below:g}" if np.isfinite(self.below) else ""
        end += f" and <= {self.most:g}" if np.isfinite(self.most) else ""
        return f"a {'whole ' * self.whole}number {'>' if self.positive else '>='} 0{end}"


SEED = Column(None, whole=True)


class Batch:
    """What simulations of many runs share: their rows, read by column, and their random numbers."""

    columns: ClassVar[Mapping[str, Column]]
    """Columns of numbers beside ``seed``; others are labels."""
    rows: pd.DataFrame

    def row_problems(self) -> list[str]:
        """What is wrong with the rows, the first line of each column."""
        if not len(self.rows):
            return ["rows: empty; needed is a line for every run"]
        problems = []
        for name, column in {"seed": SEED, **self.columns}.items():
            if name not in self.rows:
                problems += [f"rows: no column {name!r}"] if column.default is None else []
                continue
            wrong = [(i, v) for i, v in enumerate(self.rows[name]) if not column.takes(v)]
            for i, value in wrong[:1]:
                problems.append(f"rows: {name}={value!r} in line {i}; needed is {column.needed}")
        return problems

    def column(self, name: str) -> Tensor:
        """One number a row, float64."""
        given = self.rows.get(name, [self.columns[name].default] * len(self.rows))
        return torch.tensor(np.asarray(given, dtype=np.float64))

    @cached_property
    def streams(self) -> Streams:
        """Draws for the rows, each from its seed alone."""
        return Streams(self.rows["seed"].tolist())


def digest(*tensors: Tensor) -> str:
    """16 digits of the numbers, for the identity of a run."""
    return files.digest(b"".join(t.contiguous().numpy().tobytes() for t in tensors))[:16]

"""Random numbers that depend on (seed, name, indices) alone: nothing to store, share or order.

Two shapes of the same idea, each with a key of its own that recorded runs rely on:

* `generator` and `uniform` make numbers for one purpose, as in ``uniform(size, seed, "own", round,
  prompt, k)``: the trainer's, whose responses may be drawn in any order by any process.
* `Streams` makes them for a batch of rows at a step. Each block of steps has its own counter range
  of a Philox generator, so a resumed run stores nothing, and a row draws the same numbers alone as
  in any batch. Rows of equal seed draw equal numbers (common random numbers), whatever their other
  settings.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LONGEST_BLOCK, BLOCK_NUMBERS = 64, 2**15


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """A generator for one purpose, as in ``generator(seed, "order", round, epoch)``."""
    return np.random.Generator(np.random.Philox(_key(seed, purpose, *indices)))


def uniform(size: int, seed: int, purpose: str, *indices: int) -> NDArray[np.float64]:
    """(size,) numbers on [0, 1): the noise of one response, one number a token."""
    return generator(seed, purpose, *indices).random(size)


class Streams:
    """Draws for a batch of rows, one seed a row."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds, inverse = np.unique(np.asarray(seeds, dtype=np.int64), return_inverse=True)
        self._row = torch.from_numpy(inverse.astype(np.int64))
        self._blocks: dict[tuple[str, tuple[int, ...]], tuple[int, Tensor]] = {}

    def generator(self, row: int, name: str) -> np.random.Generator:
        """Numpy generator of one row, for draws before the first step (starts, data sets)."""
        return _block(int(self.seeds[self._row[row]]), f"{name}, before the first step", 0)

    def uniform(self, name: str, step: int, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) numbers uniform on [0, 1) of this step and name, float64.

        The numbers depend on ``shape``: settings to be compared on the same draws share it.
        """
        size = int(np.prod(shape))
        length = max(1, min(LONGEST_BLOCK, BLOCK_NUMBERS // max(size, 1)))
        block, within = divmod(step, length)
        held = self._blocks.get((name, shape))
        if held is None or held[0] != block:
            numbers = np.stack(
                [_block(int(s), name, block).random((length, *shape)) for s in self.seeds]
            )
            held = block, torch.from_numpy(numbers)
            self._blocks[name, shape] = held
        return held[1][self._row, within]


def _block(seed: int, name: str, block: int) -> np.random.Generator:
    key = _key(seed, name).generate_state(2, np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, block]))


def _key(seed: int, name: str, *indices: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(name.encode()), *indices])


# -- what is drawn with them ---------------------------------------------------------------------


def draw(law: Tensor, uniform: Tensor) -> Tensor:
    """Outcomes by inversion: laws (..., n) and numbers (..., m) to indices (..., m).

    Outcomes of probability 0 are never drawn.
    """
    cdf = law.cumsum(-1)
    total = cdf[..., -1:]
    index = torch.searchsorted(cdf.contiguous(), (uniform * total).contiguous(), right=True)
    last = (law > 0).to(torch.int64).cumsum(-1).argmax(-1, keepdim=True)
    return torch.minimum(index, last)


def frequencies(law: Tensor, uniform: Tensor) -> Tensor:
    """Empirical law (..., n) of m draws, by inversion: an independent sample of a data set."""
    index = draw(law, uniform)
    counts = torch.zeros_like(law).scatter_add_(-1, index, torch.ones_like(uniform))
    return counts / uniform.shape[-1]

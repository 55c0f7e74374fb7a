"""Random numbers that depend on (seed, purpose, indices) alone: nothing to store or share."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """A generator for one purpose, as in ``generator(seed, "own", round, prompt, k)``."""
    key = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *indices])
    return np.random.Generator(np.random.Philox(key))


def uniform(size: int, seed: int, purpose: str, *indices: int) -> NDArray[np.float64]:
    """(size,) numbers on [0, 1): the noise of one response, one number a token."""
    return generator(seed, purpose, *indices).random(size)

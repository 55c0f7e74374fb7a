"""The logarithm of a mean of exponentials from samples, with what is known of its error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from theory.result import FloatArray


class LogMean(NamedTuple):
    """``log E e^x`` from samples of x (..., m), by the plug-in and what is known of its error."""

    value: FloatArray
    error: FloatArray
    """Standard error, ``cv/sqrt(m)``."""
    bias: FloatArray
    """``-cv^2/(2m)``: delta method, second order."""
    jackknife_bias: FloatArray
    size: FloatArray
    """Effective size of the weights."""
    relative: FloatArray
    """Weights over their mean, less 1 (..., m): the influence of each sample."""

    @classmethod
    def of(cls, x: FloatArray) -> LogMean:
        """From two finite samples or more."""
        count, top = x.shape[-1], x.max(-1, keepdims=True)
        weight = np.exp(x - top)
        mean = weight.mean(-1, keepdims=True)
        relative = weight / mean - 1.0
        spread = relative.var(-1, ddof=1)
        with np.errstate(divide="ignore"):  # one weight that is all there is
            without = np.log(np.maximum(1.0 - relative / (count - 1), 0.0))
        return cls(
            value=(np.log(mean) + top)[..., 0],
            error=np.sqrt(spread / count),
            bias=-spread / (2.0 * count),
            jackknife_bias=(count - 1) * without.mean(-1),
            size=count / (1.0 + (relative**2).mean(-1)),
            relative=relative,
        )

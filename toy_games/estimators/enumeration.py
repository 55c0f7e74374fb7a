"""Exact mean and covariance of a stochastic gradient, by enumeration of all that can be drawn.

An `Estimator` is what a training loop runs: a loss of drawn responses whose derivative is taken for
the gradient of something. Here each tuple that can be drawn gets a copy of the parameters, so that
one backward pass gives the gradients of all tuples, and their probabilities give the expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np
import torch
from torch import Tensor

from lab.streams import Streams, draw
from theory.errors import InvalidInput

MOST_TUPLES = 2_000_000
CHUNK = 16_384


@dataclass(frozen=True)
class Draws:
    """``count`` independent outcomes of one law (n,), whose order the loss must not read."""

    law: Tensor
    count: int = 1


@dataclass(frozen=True, eq=False)
class Estimator:
    """A stochastic gradient, what it is said to estimate and what it does estimate.

    Attributes:
        family, name: what readers call it.
        theta: parameters (P,) at which it is taken.
        claims: the objective whose gradient it is taken for. ``target``: that gradient (P,).
        draws: what is drawn for one estimate.
        loss: (parameters (T, P), indices (T, count) of every entry of ``draws``) to (T,): its
            derivative is the estimate.
        really: the objective whose gradient it is in expectation, in words.
        predicted: that gradient (P,) in closed form, or None where there is no simpler form than
            the enumeration.
        exact: whether ``predicted`` is the expectation, or its leading order in 1/size.
        shrinks: whether it is biased by about 1/size.
        size: responses of a group. ``responses``: what one estimate spends; None counts the draws.
    """

    family: str
    name: str
    theta: Tensor
    claims: str
    target: Tensor
    draws: tuple[Draws, ...]
    loss: Callable[..., Tensor]
    really: str
    predicted: Tensor | None
    exact: bool = True
    shrinks: bool = False
    size: int = 1
    responses: int | None = None


@dataclass(frozen=True)
class Audit:
    """Exact moments of an estimate, in units of the target's norm where they are relative.

    Attributes:
        mean, covariance: (P,), (P, P) of one estimate.
        relative_bias: ``||mean - target|| / ||target||``.
        cosine: between mean and target; 0 if the mean is 0.
        deviation: ``sqrt(responses x trace covariance) / ||target||``: the standard deviation of
            one estimate, times the root of the number of responses that it spends.
        unexplained: ``||mean - predicted|| / ||target||``; NaN without a prediction.
    """

    mean: Tensor
    covariance: Tensor
    relative_bias: float
    cosine: float
    deviation: float
    unexplained: float


def gradient(function: Callable[[Tensor], Tensor], theta: Tensor) -> Tensor:
    """Gradient (P,) at ``theta`` (P,) of a function of parameters (1, P)."""
    point = theta[None].clone().requires_grad_()
    with torch.enable_grad():
        (found,) = torch.autograd.grad(function(point).sum(), point)
    return found[0]


def audit(estimator: Estimator) -> Audit:
    """Mean and covariance of the estimate.

    Raises:
        InvalidInput: more tuples than can be enumerated.
    """
    mean = torch.zeros_like(estimator.theta)
    second = torch.outer(mean, mean)
    for indices, weight in _tuples(estimator.draws):
        found = _gradients(estimator, indices)
        mean += weight @ found
        second += found.T @ (weight[:, None] * found)
    covariance = second - torch.outer(mean, mean)
    size, length = estimator.target.norm(), mean.norm()
    responses = estimator.responses or sum(d.count for d in estimator.draws)
    trace = covariance.diagonal().sum().clamp_min(0.0)
    tiny = float(length) < 1e-12 * float(size)
    cosine = 0.0 if tiny else float(mean @ estimator.target / (length * size))
    missing = float("nan")
    if estimator.predicted is not None:
        missing = float((mean - estimator.predicted).norm() / size)
    return Audit(
        mean,
        covariance,
        float((mean - estimator.target).norm() / size),
        cosine,
        float((responses * trace).sqrt() / size),
        missing,
    )


def monte_carlo(estimator: Estimator, seeds: Sequence[int], samples: int) -> Tensor:
    """Mean of ``samples`` independent estimates for every seed: (seeds, P)."""
    streams, drawn = Streams(seeds), []
    for i, entry in enumerate(estimator.draws):
        name = f"{estimator.family}, {estimator.name}, {i}"
        uniform = streams.uniform(name, 0, (samples, entry.count))
        drawn.append(draw(entry.law, uniform).flatten(0, 1))
    found = torch.cat(
        [
            _gradients(estimator, [d[at : at + CHUNK] for d in drawn])
            for at in range(0, len(drawn[0]), CHUNK)
        ]
    )
    return found.reshape(len(seeds), samples, -1).mean(1)


def _gradients(estimator: Estimator, indices: Sequence[Tensor]) -> Tensor:
    """Gradient of every tuple, (T, P)."""
    point = estimator.theta.expand(len(indices[0]), -1).clone().requires_grad_()
    with torch.enable_grad():
        loss = estimator.loss(point, *indices)
        (found,) = torch.autograd.grad(loss.sum(), point)
    return found


def _tuples(draws: tuple[Draws, ...]) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Chunks of (indices of every entry, probabilities) that cover all tuples of draws."""
    supports = [int((d.law > 0).sum()) for d in draws]
    total = 1
    for d, n in zip(draws, supports, strict=True):
        total *= comb(n + d.count - 1, d.count)
    if total > MOST_TUPLES:
        raise InvalidInput(
            f"{total} tuples of draws; at most {MOST_TUPLES} are enumerated: fewer responses or "
            "smaller groups"
        )
    parts = [_multisets(d) for d in draws]
    shape = tuple(len(weight) for _, weight in parts)
    for at in range(0, total, CHUNK):
        which = np.unravel_index(np.arange(at, min(at + CHUNK, total)), shape)
        weight = torch.ones(len(which[0]), dtype=torch.float64)
        chosen = []
        for (index, probability), row in zip(parts, which, strict=True):
            chosen.append(index[row])
            weight = weight * probability[row]
        yield chosen, weight


def _multisets(draws: Draws) -> tuple[Tensor, Tensor]:
    """Multisets (M, count) of outcomes, and the probability of drawing each in any order."""
    support = np.flatnonzero(draws.law.numpy() > 0)
    index = np.array(list(combinations_with_replacement(support, draws.count)), dtype=np.int64)
    # Orders: n!/prod(m_i!), where m! is the product of the places of m equal members.
    place = np.tril(index[:, :, None] == index[:, None, :]).sum(-1)
    orders = np.prod(np.arange(1, draws.count + 1) / place, axis=-1)
    law = draws.law.numpy()[index].prod(-1)
    return torch.from_numpy(index), torch.from_numpy(orders * law)

"""The round of a model whose features do not move: linear in its weights, by Adam (T18).

Were ``log pi`` linear in the weights, a round on the exact laws would move rewards by their kernel
at the start. Adam scales every weight's step by the root mean square of its batch gradient, so

    r <- r + lr beta K force(r)/rho,     K = J D J',   D = (E z^2/B + (1 - 1/B)(E z)^2)^(-1/2),

J the gradients of ``log pi`` at the start, z their difference of a pair, B the batch, rho the root
mean square residual so far over that at the start. Nothing is fitted. Reconstruction.

Too many responses are thinned (`thinned`): the likeliest, and some of the others for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from llm_scale.data.items import Tokens
from llm_scale.models.player import Player

Floats = NDArray[np.float64]


class Thinned(NamedTuple):
    """Some of all responses: ``at`` (X, M), and laws (X, M) with the others' mass on them."""

    at: NDArray[np.int64]
    p: Floats
    q: Floats


def thinned(
    log_p: Floats, log_q: Floats, likeliest: int, drawn: int, rng: np.random.Generator
) -> Thinned:
    """The likeliest responses under (p + q)/2 and so many drawn of the rest, weighted for it.

    ``log_p``, ``log_q`` (X, N): log-laws of all responses, N > likeliest.
    """
    p, q = np.exp(log_p), np.exp(log_q)
    at, weight = [], []
    for mix in 0.5 * (p + q):
        order = np.argsort(-mix)
        top, rest = order[:likeliest], order[likeliest:]
        mass = mix[rest].sum()
        some = rng.choice(rest, drawn, p=mix[rest] / mass)
        at.append(np.concatenate([top, some]))
        weight.append(np.concatenate([np.ones(likeliest), mass / drawn / mix[some]]))
    places, scale = np.array(at), np.array(weight)
    kept = [np.take_along_axis(law, places, -1) * scale for law in (p, q)]
    return Thinned(places, *(law / law.sum(-1, keepdims=True) for law in kept))


def gradients(player: Player, prompt: Tokens, responses: Sequence[Tokens]) -> NDArray[np.float32]:
    """Gradients (M, weights) of ``log pi(y|x)`` in all trained weights, a response each."""
    weights = [w for w in player.model.parameters() if w.requires_grad]
    out = np.empty((len(responses), sum(w.numel() for w in weights)), dtype=np.float32)
    for row, response in zip(out, responses, strict=True):
        tokens = torch.tensor([[*prompt, *response]], device=player.machine.device)
        laws = player.model(input_ids=tokens).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        log_law = laws.gather(-1, tokens[0, len(prompt) :, None]).sum()
        found = torch.autograd.grad(log_law, weights)
        row[:] = torch.cat([g.ravel() for g in found]).cpu().numpy()
    return out


def adam_kernel(features: NDArray[np.float32], p: Floats, q: Floats, batch: int) -> Floats:
    """``K`` (X M, X M) of gradients (X, M, weights), which are scaled in place.

    ``p``, ``q`` (X, M): laws of expert and opponent on these responses, each of sum 1.
    """
    mean = np.zeros(features.shape[-1])
    square = np.zeros_like(mean)
    for own, of_p, of_q in zip(features, p, q, strict=True):
        mean_p, mean_q = of_p @ own, of_q @ own
        mean += (mean_p - mean_q) / len(p)
        square += ((of_p + of_q) @ own**2 - 2.0 * mean_p * mean_q) / len(p)
    second = square / batch + (1.0 - 1.0 / batch) * mean**2
    features *= (np.maximum(second, 1e-16) ** -0.25).astype(np.float32)
    flat = features.reshape(-1, features.shape[-1])
    return (flat @ flat.T).astype(np.float64)


def ipo_round(kernel: Floats, p: Floats, q: Floats, beta: float, rates: Floats) -> Floats:
    """Rewards (X, M) after a round of IPO, margin 1, by steps of these learning rates (k,)."""
    reward, squares = np.zeros_like(p), 0.0
    for k, rate in enumerate(rates, 1):
        of_p, of_q = ((law * reward).sum(-1, keepdims=True) for law in (p, q))
        force = (p * (1.0 - reward + of_q) - q * (1.0 - of_p + reward)) / len(p)
        square = ((p + q) * reward**2).sum(-1, keepdims=True) - 2.0 * of_p * of_q
        squares += float((1.0 - 2.0 * (of_p - of_q) + square).mean())
        step = rate * beta / np.sqrt(squares / k)
        reward = reward + step * (kernel @ force.ravel()).reshape(p.shape)
    return reward

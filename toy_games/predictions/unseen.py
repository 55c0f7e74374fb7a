"""Mass on responses that neither side's data hold: what gradient descent does with it.

With data laws ``p, q`` (samples or exact) a loss moves a tabular logit by

    dz_y = rate/a'(0) (pi_y G - g_y),   g_y = d loss/d r_y,   G = sum g,

and an *unseen* response, of weight 0 on both sides, has ``g = 0``: its only force is ``pi_y G``.

* Shift-invariant losses have ``G = 0``: unseen logits never move, and the seen ones keep their sum.
* A pointwise loss goes on until all seen responses stand at their best response ``R(u)``, where
  ``G = 0``; the unseen ones then hold what is left, ``1 - sum_seen pi_t e^{R(u)/beta}``, however
  little they held before.
* Supervised fine-tuning takes all mass from them.

All reconstruction, T4 and T13.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from theory.objectives import Objective, derivatives
from theory.result import FloatArray
from toy_games.dynamics.measures import NOTHING, UNSEEN
from toy_games.dynamics.self_play import Measure, SelfPlay
from toy_games.engine.simulator import State


def predicted_after(run: SelfPlay, state: State, step: int) -> Tensor:
    """`settled_mass` of the round's own data: what `mass_after` ends at in a tabular class."""
    opponent = state["opponent"].exp().numpy() * (state["opponent"] > NOTHING).numpy()
    beta = run.beta.numpy()[:, None]
    found = settled_mass(run.objective, state["data"].numpy(), state["own"].numpy(), opponent, beta)
    return torch.from_numpy(found.mean(-1))


MEASURES: dict[str, Measure] = {**UNSEEN, "predicted": predicted_after}


def settled_mass(
    obj: Objective | None, data: FloatArray, own: FloatArray, policy: FloatArray, beta: ArrayLike
) -> FloatArray:
    """Unseen mass at which gradient descent on a round's loss settles (reconstruction, T4, T13).

    In the tabular softmax class, from the warm start ``pi_t``. Pointwise losses:
    ``max(0, 1 - sum_seen pi_t e^{R(u)/beta})``, ``u`` the log-ratio of the data laws.
    Shift-invariant ones: ``U/(U + sum_seen pi_t e^{(R(u) - mean_seen R)/beta})`` with ``U`` the
    unseen mass of ``pi_t``. Unbounded rewards, supervised fine-tuning, nothing unseen: 0.

    Args:
        obj: the objective; None is supervised fine-tuning.
        data, own: weights (..., N) of the loss on either side; expert samples and own samples.
        policy: the warm start ``pi_t`` (..., N).
        beta: (...) or a number.
    """
    beta = np.asarray(beta, dtype=np.float64)[..., None]
    seen = data + own > 0
    outside = np.where(seen, 0.0, policy).sum(-1)
    if obj is None:
        return np.zeros(data.shape[:-1])
    reward = np.where(seen, obj.reward(data, own), 0.0)
    bounded = np.isfinite(reward).all(-1)
    reward = np.where(np.isfinite(reward), reward, 0.0)
    if not obj.up_to_constant:
        left = 1.0 - np.where(seen, policy * np.exp(reward / beta), 0.0).sum(-1)
        return np.where(bounded & (outside > 0), np.maximum(left, 0.0), 0.0)
    mean = reward.sum(-1, keepdims=True) / seen.sum(-1, keepdims=True)
    moved = np.where(seen, policy * np.exp((reward - mean) / beta), 0.0).sum(-1)
    return np.where(bounded, outside / (outside + moved), 0.0)


def escape(
    obj: Objective,
    data: FloatArray,
    own: FloatArray,
    seen: FloatArray,
    outside: float,
    count: int,
    beta: float,
    rate: float,
    points: int = 100,
) -> tuple[FloatArray, FloatArray]:
    """Steps of gradient descent until a pointwise loss has dumped its missing mass (T4).

    While the unseen mass ``U`` is small the ``k`` seen responses follow it: they stand at the least
    loss of mass ``1 - U``, whose multiplier ``lam`` gives ``G = lam (1 - U)``. The logits sum to a
    constant, so ``count`` equal unseen ones gain on the mean of the ``k`` seen ones

        dx/dstep = rate/a'(0) G U (1/count + 1/k):   hyperbolic growth, over after about
        k count/(k + count) / (rate/a'(0) G U) steps.

    Args:
        obj: a pointwise objective.
        data, own: weights (k,) of the seen responses, each side of sum 1.
        seen: warm start ``pi_t`` (k,) on the seen responses.
        outside: mass of ``pi_t`` on the unseen ones, in all; ``seen`` and it sum to 1.
        count: number of unseen responses, of equal mass.
        beta: weight of the KL step.
        rate: learning rate in units of SFT.
        points: of the returned curve.

    Returns:
        Steps (points,) and unseen mass (points,), from the warm start to 99.9 % of the end.
    """
    reward = np.asarray(obj.reward(data, own), dtype=np.float64)
    end = 1.0 - float((seen * np.exp(reward / beta)).sum())
    start = np.log(outside / count) - np.log(seen).mean()
    half = [
        np.geomspace(1e-3, 0.5, points),
        1.0 - np.geomspace(0.5, 0.5 * outside / end, points)[1:],
    ]
    masses = end * (1.0 - np.concatenate(half))
    lowered = reward + beta * np.log((1.0 - masses[:, None]) / (1.0 - end))
    r, multiplier = _constrained(obj, data, own, seen, beta, masses, lowered)
    gain = np.log(masses / count) - (np.log(seen) + r / beta).mean(-1)
    slope = float(derivatives.derivative(obj.a, np.zeros(())))
    speed = rate / slope * multiplier * (1.0 - masses) * masses * (1.0 / count + 1.0 / len(seen))
    gain, masses, speed = gain[::-1], masses[::-1], speed[::-1]
    inside = np.concatenate([[start], gain[gain > start]])
    speeds = np.exp(np.interp(inside, gain, np.log(speed)))
    steps = np.concatenate(
        [[0.0], np.cumsum(np.diff(inside) * (1 / speeds[1:] + 1 / speeds[:-1]) / 2)]
    )
    wanted = np.linspace(start, inside[-1], points)
    return np.interp(wanted, inside, steps), np.interp(wanted, gain, masses)


def _constrained(
    obj: Objective,
    data: FloatArray,
    own: FloatArray,
    seen: FloatArray,
    beta: float,
    outside: FloatArray,
    r: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Rewards (P, k) and multipliers (P,) of the least losses of mass ``1 - outside`` (P,).

    By Newton's method on ``g(r) = lam pi`` and the mass, from rewards ``r`` (P, k).
    """
    lam = np.zeros(len(outside))
    for _ in range(12):
        law = seen * np.exp(r / beta)
        force, curve = (
            -(
                data * derivatives.derivative(obj.a, r, k)
                + own * derivatives.derivative(obj.b, r, k)
            )
            for k in (1, 2)
        )
        stiff = curve - lam[:, None] * law / beta
        miss = lam[:, None] * law - force
        short = beta * (1.0 - outside - law.sum(-1))
        change = (short - (law * miss / stiff).sum(-1)) / (law**2 / stiff).sum(-1)
        r, lam = r + (miss + change[:, None] * law) / stiff, lam + change
    return r, lam

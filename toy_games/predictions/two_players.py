"""What to expect of two explicit players near an equilibrium, from the Jacobian of their update.

The Jacobian of the very map that `Players.advance` applies is taken by autograd, so the geometry of
the softmax, of the anchor and of every method is in it. Its eigenvalues give the asymptotic rate,
and with the covariance of the sampled gradients the stationary spread.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from theory.result import FloatArray
from toy_games.dynamics.two_players import Players, distance, observed
from toy_games.engine import simulator
from toy_games.engine.simulator import State

HIDDEN = 1e-7
DOUBLINGS = 60
LINEAR = (1e-13, 3e-2)


def update_jacobian(players: Players, state: State) -> FloatArray:
    """Jacobian (rows, D, D) of one exact step; D counts both players' parameters.

    For "optimistic" D counts the last moves as well.
    """
    names = sorted(state)

    def step(flat: Tensor) -> Tensor:
        moved = players.moved(_split(flat, state, names), graph=True)
        return torch.cat([moved[name] for name in names], dim=1)

    return _jacobian(step, torch.cat([state[name] for name in names], dim=1))


def observation_jacobian(players: Players, state: State) -> FloatArray:
    """Jacobian (rows, K, D) of the log-law and the reward, both up to constants."""
    names = sorted(state)
    return _jacobian(
        lambda flat: observed(players, _split(flat, state, names)),
        torch.cat([state[name] for name in names], dim=1),
    )


def predicted_factor(players: Players, state: State) -> FloatArray:
    """Asymptotic factor (rows,) a step of the distance to the equilibrium ``state``.

    It is the largest modulus of an eigenvalue whose eigenvector moves the policy or differences of
    rewards: constants of logits or rewards are neutral and not seen.
    """
    update, seen = update_jacobian(players, state), observation_jacobian(players, state)
    values, vectors = np.linalg.eig(update)
    moved = np.linalg.norm(seen @ vectors, axis=1)
    return np.asarray(np.where(moved > HIDDEN, np.abs(values), 0.0).max(-1))


def predicted_spread(players: Players, state: State) -> FloatArray:
    """Stationary mean square (rows,) of `distance` under batches, to first order in the noise.

    At an equilibrium the policy player's pay is constant, so its score-function gradient has no
    variance there: all noise is the reward player's. ``S = J S J' + C`` by doubling.
    """
    update, seen = update_jacobian(players, state), observation_jacobian(players, state)
    spread = _noise(players, state)
    for _ in range(DOUBLINGS):
        spread = spread + update @ spread @ update.swapaxes(-1, -2)
        update = update @ update
    return np.asarray(np.trace(seen @ spread @ seen.swapaxes(-1, -2), axis1=-2, axis2=-1))


def _noise(players: Players, state: State) -> FloatArray:
    """Covariance (rows, D, D) of one simultaneous step's noise at the equilibrium."""
    assert players.rules.method == "simultaneous"
    assert players.rules.batch is not None
    theta, phi = state["theta"], state["phi"]
    own = players.policy.log_law(theta).exp()
    rows, prompts, responses = own.shape
    total = np.zeros((rows, players.rewards.size, players.rewards.size))
    for side, law in enumerate((players.expert, own)):

        def move(flat: Tensor, side: int = side) -> Tensor:
            weights = [players.expert, own]
            weights[side] = flat.reshape(own.shape)
            point = phi.clone().requires_grad_()
            return players.reward_move(theta, point, (weights[0], weights[1]), graph=True)

        slope = _jacobian(move, law.flatten(1)).reshape(rows, -1, prompts, responses)
        mean = np.einsum("brxn,bxn->brx", slope, law.numpy())
        square = np.einsum("brxn,bsxn,bxn->brs", slope, slope, law.numpy())
        total += (square - np.einsum("brx,bsx->brs", mean, mean)) / players.rules.batch
    at = sorted(state).index("phi")
    assert at == 0
    out = np.zeros((rows, *(2 * (sum(v.shape[1] for v in state.values()),))))
    out[:, : players.rewards.size, : players.rewards.size] = total
    return out


def _jacobian(function: Callable[[Tensor], Tensor], at: Tensor) -> FloatArray:
    """Jacobians (rows, out, in) of a function of rows that do not touch each other."""
    with torch.enable_grad():
        whole = torch.autograd.functional.jacobian(lambda x: function(x).sum(0), at)
    return np.asarray(whole.permute(1, 0, 2).numpy())


def _split(flat: Tensor, like: State, names: list[str]) -> State:
    sizes = [like[name].shape[1] for name in names]
    return dict(zip(names, flat.split(sizes, dim=1), strict=True))


# -- measured -------------------------------------------------------------------------------------


def growth(
    players: Players,
    steps: int,
    checkpoint: str | Path | None = None,
    linear: tuple[float, float] = LINEAR,
) -> tuple[FloatArray, FloatArray]:
    """Log-factor (rows,) a step of the distance near an equilibrium, and its resolution.

    A line is fitted to the log of the distance from where it enters the ``linear`` regime until it
    leaves it, without the first third, where faster modes die out. A ripple of peak to
    peak A over W steps tilts it by at most 3 A/W: the resolution, without slower transients.
    """
    players.measures = {"distance": distance}
    record = np.arange(0, steps + 1, max(1, steps // 100))
    table = simulator.run(players, record, checkpoint, progress=False)
    with np.errstate(all="ignore"):
        log_size = np.log(table.distance.to_numpy().reshape(len(record), -1))
    inside = (log_size > np.log(linear[0])) & (log_size < np.log(linear[1]))
    left = np.logical_or.accumulate(inside, axis=0) & ~inside
    inside &= ~np.logical_or.accumulate(left, axis=0)
    used = inside & (inside.cumsum(0) > inside.sum(0) // 3)
    return _line(record[:, None] + np.zeros_like(log_size), log_size, used)


def _line(time: FloatArray, value: FloatArray, used: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slopes of columns over the used entries, and 3 (peak to peak of the rest) / window."""
    with np.errstate(all="ignore"):
        weight = used / used.sum(0)
        time = np.where(used, time - (weight * time).sum(0), 0.0)
        value = np.where(used, value, 0.0)
        value = np.where(used, value - (weight * value).sum(0), 0.0)
        slope = (weight * time * value).sum(0) / (weight * time**2).sum(0)
        rest = value - slope * time
        return slope, 3.0 * np.ptp(rest, axis=0) / np.ptp(time, axis=0)


def crossing(
    rate: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray, passes: int = 2
) -> FloatArray:
    """Where ``rate`` of steps (games, grid) last turns positive between low and high (games,).

    A grid of steps, equally spaced in their logarithm, is refined ``passes`` times and the last
    interval interpolated; ``high`` if the rate stays negative.
    """
    rows = np.arange(len(low))
    share = np.ones(len(low))
    for _ in range(passes):
        steps = np.geomspace(low, high, 17, axis=-1)
        found = np.nan_to_num(rate(steps), nan=1.0, posinf=1.0)
        at = (17 - (found <= 0)[:, ::-1].argmax(-1)).clip(1, 16)
        low, high = steps[rows, at - 1], steps[rows, at]
        before, after = found[rows, at - 1], found[rows, at]
        inside = np.clip(before / np.minimum(before - after, -1e-300), 0.0, 1.0)
        share = np.where(after > 0, inside, 1.0)
    return np.asarray(low * (high / low) ** share)

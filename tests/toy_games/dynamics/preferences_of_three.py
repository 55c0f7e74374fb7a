"""Two runs of preference self-play on three responses, in numpy."""

import numpy as np
import pandas as pd
import torch

from lab.streams import Streams, draw

SEEDS, BETA, TAU = [3, 8], np.array([[0.7], [2.0]]), np.array([[0.4], [0.1]])
P = np.array([
    [[0.5, 0.9, 0.4], [0.1, 0.5, 0.7], [0.6, 0.3, 0.5]],
    [[0.5, 0.2, 0.35], [0.8, 0.5, 0.55], [0.65, 0.45, 0.5]],
])  # fmt: skip
START = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
REF = np.array([[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])
NOW = np.array([[0.45, 0.35, 0.2], [0.25, 0.15, 0.6]])
TARGET = np.array([[0.5, 0.5, 0.0], [0.2, 0.4, 0.4]])
STREAMS = Streams(SEEDS)


def close(found, expected, rtol=1e-11):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-13)


def tensor(values):
    return torch.from_numpy(np.array(values, dtype=np.float64))


def normal(law):
    return law / law.sum(-1, keepdims=True)


def wins(law):
    return np.einsum("bij,bj->bi", P, law)


def play(kind, *algorithm, ref=REF, target=TARGET, start=START, preference=P, **columns):
    rows = pd.DataFrame({"seed": SEEDS, "beta": BETA[:, 0], "tau": TAU[:, 0]}).assign(**columns)
    more = {"draws": rows.pop("draws")[0]} if "draws" in rows else {}
    return kind(*algorithm, rows, preference, start, ref, target, **more)


def at(state, **given):
    return state | {name: tensor(value) for name, value in given.items()}


def pairs(law, step, count):
    """Winners and losers (rows, count)."""
    first, second = (
        draw(tensor(law), STREAMS.uniform(f"{side} of pairs", step, (count,))).numpy()
        for side in ("first", "second")
    )
    luck = STREAMS.uniform("winners of pairs", step, (count,)).numpy()
    won = luck < P[np.arange(2)[:, None], first, second]
    return np.where(won, first, second), np.where(won, second, first)

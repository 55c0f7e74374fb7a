"""Rounds of `self_play` against the rounds as one writes them in numpy, in the same run.

Both keep every policy and measure KL(p||pi_t) a round; ours also checks the laws, takes care of
masses that leave the range of numbers, and uses the cores that it finds. The two take turns and
the best of each counts, as do the seconds that the peer's own temporaries cost it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import timed
from theory import laws, objectives, self_play
from theory.objectives import Objective
from theory.result import FloatArray

BETA = 1.0
ROUNDS = 10
TURNS = 7
AIM = 2.0


def plain(
    obj: Objective, expert: FloatArray, policy: FloatArray
) -> tuple[list[FloatArray], list[float]]:
    """``pi e^{R(log p/pi)/beta}``, normalised, and KL a round: policies and divergences."""
    path, kl = [policy], [float((expert * np.log(expert / policy)).sum())]
    for _ in range(ROUNDS):
        delta = laws.triangular(expert, policy) if obj.has_gain else None
        weight = policy * np.exp(obj.link(np.log(expert / policy), delta) / BETA)
        policy = weight / weight.sum()
        path.append(policy)
        kl.append(float((expert * np.log(expert / policy)).sum()))
    return path, kl


def run(full: bool) -> list[dict[str, Any]]:
    """Rows for SPIF, SPIN and IPO at 1e6 responses and for SPIF at 4e6 (FULL=1: all at both)."""
    sizes = {10**6: ("spif", "spin", "ipo"), 4 * 10**6: ("spif",)}
    if full:
        sizes[4 * 10**6] = sizes[10**6]
    return [_row(n, name) for n, names in sizes.items() for name in names]


def _row(n: int, name: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    p, q = (rng.standard_exponential(n) for _ in range(2))
    p, q = p / p.sum(), q / q.sum()
    obj = objectives.get(name)
    ours = partial(self_play, p, q, obj, BETA, ROUNDS, progress=False)
    peer = partial(plain, obj, p, q)
    best, apart = [float("inf")] * 2, 0.0
    for _ in range(TURNS):
        peer_s, (path, _) = timed(peer, 1)
        ours_s, found = timed(ours, 1)
        best = [min(best[0], ours_s), min(best[1], peer_s)]
        apart = float(np.abs(found.policy / path[-1] - 1.0).max())
    return {
        "name": f"self_play, {name}, {ROUNDS} rounds, with KL and path",
        "size": n,
        "ours_s": best[0],
        "peer": "plain numpy",
        "peer_s": best[1],
        "aim": AIM,
        "note": f"{1e9 * best[0] / n / ROUNDS:.1f} against {1e9 * best[1] / n / ROUNDS:.1f} ns "
        f"a response and round; policies within {apart:.0e}",
    }

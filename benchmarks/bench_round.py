"""One exact round at 10^7 responses: fast_round.step against the plain numpy expression.

numpy runs elementwise expressions on one thread whatever the environment says; ours uses the
cores that it is given, and is timed on one thread as well. The calls take turns and the best of
each counts. The share of the copy bandwidth counts 24 bytes a response (two laws read, one
written) against numpy's copy of one law on one thread (16 bytes).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import timed
from theory import objectives
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds import fast_round

BETA = 1.0
TURNS = 15


def plain(obj: Objective, expert: FloatArray, policy: FloatArray, beta: float) -> FloatArray:
    """The round as one writes it: ``pi e^{R(log p/pi)/beta}``, normalised."""
    weight = policy * np.exp(obj.link(np.log(expert / policy)) / beta)
    return np.asarray(weight / weight.sum())


def run(full: bool) -> list[dict[str, Any]]:
    """Rows for SPIF and SPIN at 1e7 responses, on all cores and on one thread."""
    n = 10**7
    rng = np.random.default_rng(0)
    p, q = (rng.standard_exponential(n) for _ in range(2))
    p, q = p / p.sum(), q / q.sum()
    out = np.empty(n)
    threads = sorted({fast_round.available_cores(), 1}, reverse=True)
    rows = []
    for name, aim in (("spif", 5.0), ("spin", None)):
        obj = objectives.get(name)
        calls: dict[str, Callable[[], Any]] = {
            "copy": partial(np.copyto, out, p),
            "plain": partial(plain, obj, p, q, BETA),
            **{str(t): partial(fast_round.step, obj, p, q, BETA, out, t) for t in threads},
        }
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(TURNS):
            for key, call in calls.items():
                best[key] = min(best[key], timed(call, 1)[0])
        bandwidth = 16 * n / best["copy"]
        error = float(np.abs(calls[str(threads[0])]() / calls["plain"]() - 1.0).max())
        for t in threads:
            share = 24 * n / best[str(t)] / bandwidth
            rows.append(
                {
                    "name": f"exact round, {name}, {t} thread{'s' if t > 1 else ''}",
                    "size": n,
                    "ours_s": best[str(t)],
                    "peer": "plain numpy, 1 thread",
                    "peer_s": best["plain"],
                    "aim": aim if t == threads[0] else None,
                    "note": f"{share:.0%} of {bandwidth / 1e9:.0f} GB/s; differs by {error:.0e}",
                }
            )
    return rows

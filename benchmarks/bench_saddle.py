"""Saddle point of SPIF with an anchor: our Newton method against cvxpy with Clarabel; paths.

Both run with the threads of the environment (`make bench`: one); Clarabel's linear algebra has
one anyway. The peer is timed as a user would call it, building of the program included, at
Clarabel's own tolerances, in the first formulation of theory/equilibria/conic.py that it solves.
A path along tau, each point started from the last, is timed against as many solves of their own.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np

from benchmarks.timing import timed
from theory import laws, objectives
from theory.equilibria import conic, newton
from theory.equilibria.path import solve_path
from theory.equilibria.problem import Game
from theory.equilibria.solve import saddle_point
from theory.errors import NotConverged
from theory.result import FloatArray

TAU = 0.1
TAUS = np.geomspace(0.01, 10.0, 50)
OBJECTIVE = objectives.get("spif")


def run(full: bool) -> list[dict[str, Any]]:
    """Rows for n = 1e2, 1e3, 1e4 against the peer, 1e6 (FULL=1: 1e7) without one, and paths."""
    rows = [_row(n, with_peer=True) for n in (100, 1_000, 10_000)]
    rows += [_row(n, with_peer=False) for n in ([10**6, 10**7] if full else [10**6])]
    return rows + [_path_row(n) for n in (100, 10_000)]


def instance(n: int) -> tuple[FloatArray, FloatArray]:
    """Expert and reference of n outcomes: normal logits of standard deviation 1.5 and 1."""
    rng = np.random.default_rng(n)
    return laws.random_law(rng, (n,), 1.5), laws.random_law(rng, (n,), 1.0)


def _row(n: int, with_peer: bool) -> dict[str, Any]:
    p, ref = instance(n)
    saddle_point(p[: min(n, 10)] / p[:10].sum(), ref[:10] / ref[:10].sum(), OBJECTIVE, TAU)
    seconds, ours = timed(lambda: saddle_point(p, ref, OBJECTIVE, TAU), 10 if n <= 10_000 else 3)
    note = f"gap {float(ours.gap):.0e}, {ours.iterations} evaluations"
    peer_s = None
    if with_peer:
        peer_s, gap, apart, tried = _peer(p, ref, ours.policy)
        note += f"; peer: gap {gap:.0e}, policy within {apart:.0e}"
        note += f", {tried} formulations failed before" if tried else ""
    return {
        "name": "saddle point, SPIF, tau = 0.1",
        "size": n,
        "ours_s": seconds,
        "peer": "cvxpy + Clarabel" if with_peer else "none",
        "peer_s": peer_s,
        "aim": 100.0 if n == 10_000 else None,
        "note": note,
    }


def _path_row(n: int) -> dict[str, Any]:
    p, ref = instance(n)
    solve_path(p, ref, OBJECTIVE, TAUS[:2])
    seconds, path = timed(lambda: solve_path(p, ref, OBJECTIVE, TAUS))
    alone_s, alone = timed(lambda: [saddle_point(p, ref, OBJECTIVE, tau) for tau in TAUS])
    evaluations = int(path.iterations.sum()), sum(each.iterations for each in alone)
    return {
        "name": f"path of saddle points, SPIF, {len(TAUS)} tau from {TAUS[0]:g} to {TAUS[-1]:g}",
        "size": n,
        "ours_s": seconds,
        "peer": f"{len(TAUS)} solves by saddle_point",
        "peer_s": alone_s,
        "aim": None,
        "note": f"gap {float(path.gap.max()):.0e}; {evaluations[0]} evaluations against "
        f"{evaluations[1]}: at large n certificates and results weigh more",
    }


def _peer(p: FloatArray, ref: FloatArray, ours: FloatArray) -> tuple[float, float, float, int]:
    """Seconds, certified gap, distance of its policy from ours, formulations that failed first."""
    game = Game("saddle", p, ref, OBJECTIVE, TAU)
    for tried, (total_n, unit, _) in enumerate(conic.FORMULATIONS):

        def call(total_n: bool = total_n, unit: str = unit) -> FloatArray:
            program, policy, scale = conic.formulate(game, None, total_n, unit)
            program.solve(solver=cp.CLARABEL)
            return np.asarray(policy.value) / scale

        try:
            seconds, policy = timed(call, 3)
        except cp.SolverError:
            continue
        policy = np.maximum(policy, conic.FLOOR)
        policy = policy / policy.sum()
        gap, _ = newton.certificate(game.separable(), policy, newton.NUDGES)
        return seconds, float(gap), float(np.abs(policy - ours).max()), tried
    raise NotConverged(
        f"Clarabel failed in all {len(conic.FORMULATIONS)} formulations at n={p.size}"
    )

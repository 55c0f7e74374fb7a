"""The occupancy game on merged states: our Newton solver against cvxpy with Clarabel."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.timing import timed
from theory import objectives
from theory.occupancy.solve import occupancy_game
from theory.tokens.mdp import TokenMDP

TAU = 0.1
SIZES = ((20, 6), (42, 6), (100, 11))
"""(vocabulary, horizon) of order-1 games: about 10^3.3, 10^4 and 10^5 state-actions."""


def run(full: bool) -> list[dict[str, Any]]:
    """Rows for SPIF's saddle point and equilibrium; 10^5 state-actions only if `full`."""
    rows = []
    for vocab, horizon in SIZES if full else SIZES[:2]:
        rng = np.random.default_rng(0)
        game = TokenMDP.random(vocab, horizon, rng=rng, order=1, concentration=0.3)
        ref = game.random_policy(rng)
        for kind in ("saddle", "equilibrium"):
            rows.append(_row(game, ref, kind))
    return rows


def _row(game: TokenMDP, ref: np.ndarray, kind: Any) -> dict[str, Any]:
    obj = objectives.get("spif")
    size = game.n_states * game.n_actions

    def solve(method: Any) -> Any:
        return occupancy_game(
            game,
            game.expert,
            ref,
            obj,
            TAU,
            kind,
            method,
            raise_on_failure=False,
            solver_options={"solver": "CLARABEL"},
        )  # at the peer's own tolerances

    ours, fast = timed(lambda: solve("fast"))
    theirs, conic = timed(lambda: solve("convex"), repeat=1 if size > 3000 else 3)
    stated = conic.details["solver_status"] or "no solution"
    apart = np.abs(fast.details["occupancy"] - conic.details["occupancy"]).max()
    return {
        "name": f"occupancy game, SPIF, {kind}",
        "size": f"{size:,} state-actions",
        "ours_s": ours,
        "peer": "cvxpy + Clarabel",
        "peer_s": theirs,
        "aim": 20.0 if size > 3000 else None,
        "note": f"gap {float(fast.gap.max()):.0e} (peer: {stated}, {float(conic.gap.max()):.0e}), "
        f"occupancies within {apart:.0e}",
    }

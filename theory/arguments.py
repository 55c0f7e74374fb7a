"""Settings that imitation and preference rounds share: beta, the number of rounds, the anchor."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory import laws


def round_weights(
    beta: Any, rounds: Any, ref: Any, tau: Any, lowest: float | None = None
) -> tuple[list[float], list[str]]:
    """One beta a round, and what is wrong with the settings (then the betas mean nothing).

    ``beta`` must exceed 0, or reach ``lowest`` where that is given.
    """
    problems: list[str] = []
    counted = isinstance(rounds, (int, np.integer)) and not isinstance(rounds, bool) and rounds >= 0
    if not counted:
        problems.append(f"rounds={rounds!r}; needed is a whole number >= 0")
    try:
        values = np.atleast_1d(np.asarray(beta, dtype=np.float64))
    except (TypeError, ValueError):
        values = np.array([np.nan])
    enough = values > 0 if lowest is None else values >= lowest
    if values.ndim != 1 or not np.all(np.isfinite(values) & enough):
        sign = "> 0" if lowest is None else f">= {lowest:g}"
        problems.append(f"beta={beta!r}; needed is a finite number {sign}, or one a round")
    elif counted and len(values) not in (1, rounds):
        problems.append(f"beta: {len(values)} values for {rounds} rounds; needed is one a round")
    if not laws.is_real(tau) or not np.isfinite(tau) or tau < 0:
        problems.append(f"tau={tau!r}; needed is a finite number >= 0")
    elif tau > 0 and ref is None:
        problems.append(f"tau={tau!r} needs ref, the reference policy of the anchor")
    if problems or not rounds:
        return [], problems
    return [float(b) for b in np.broadcast_to(values, (rounds,))], problems

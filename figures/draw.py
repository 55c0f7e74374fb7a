"""From a tidy table to axes: the lines of theory, the points of measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from figures import style
from figures.tidy import INTERVAL, MEASURED, THEORY, curves

Look = Callable[[str, str], dict[str, Any] | None]
"""Style of the curve (objective, series); None: it is not drawn."""
Shift = Callable[[str, str, Any], Any]
"""Where the x of (objective, series) are drawn, so that points do not hide each other."""


def colours(name: str, series: str = "") -> dict[str, Any]:
    """The objective's colour alone: a look for solid lines."""
    return {"color": style.colour(name)}


def lines(
    ax: Axes, table: pd.DataFrame, panel: str, look: Look = colours, kind: str = THEORY
) -> None:
    """All curves of a panel, as lines."""
    for name, series, rows in curves(table, panel, kind):
        drawn = look(name, series)
        if drawn is not None:
            ax.plot(rows.x, rows.y, **{"linewidth": 1.1, **drawn})


def baseline(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    """What measurements are told against, the curves of "expert", as grey lines."""
    start = table[table.objective == "expert"]
    lines(ax, start, panel, lambda *_: {"color": style.GREY, "linewidth": 1.0})


def points(
    ax: Axes,
    table: pd.DataFrame,
    panel: str,
    look: Look = lambda name, series: style.points(name),
    shift: Shift = lambda name, series, x: x,
    kind: str = MEASURED,
    every: int = 1,
) -> None:
    """All curves of a panel, as points (every k-th), with their intervals where there are any."""
    for name, series, rows in curves(table, panel, kind):
        drawn = look(name, series)
        if drawn is not None:
            bars(ax, rows.iloc[::every].assign(x=shift(name, series, rows.x)), **drawn)


def frontiers(ax: Axes, table: pd.DataFrame, panel: str, hollow: str | None = None) -> None:
    """Models in a plane by temperature, the first point large; "expert" is a cross, the start.

    Points of the series ``hollow`` are.
    """
    for name, series, rows in curves(table, panel):
        color = style.colour(name)
        if name == "expert":
            ax.plot(rows.x, rows.y, "x", color=style.GREY, markersize=6)
            continue
        sizes, inside = [34, *[14] * (len(rows) - 1)], "white" if series == hollow else color
        ax.plot(rows.x, rows.y, color=color, linewidth=1.0)
        ax.scatter(rows.x, rows.y, s=sizes, edgecolors=color, facecolors=inside, zorder=3)


def bars(ax: Axes, rows: pd.DataFrame, **look: Any) -> None:
    """Points of one curve, with their intervals if the columns low and high are there."""
    kept: dict[str, Any] = {"elinewidth": 0.9, "capsize": 0, "markersize": 4.0, **look}
    if set(INTERVAL) <= set(rows):
        ends = np.abs(rows[list(INTERVAL)].to_numpy(dtype=float).T - rows.y.to_numpy(dtype=float))
        ax.errorbar(rows.x, rows.y, yerr=np.nan_to_num(ends), **kept)
    else:
        bare = {key: value for key, value in kept.items() if key not in ("elinewidth", "capsize")}
        ax.plot(rows.x, rows.y, **bare)


def dodge(names: list[str], step: float, log: bool = True) -> Shift:
    """Objectives side by side: `step` apart, as a share of x on a logarithmic axis."""
    middle = (len(names) - 1) / 2

    def shift(name: str, series: str, x: Any) -> Any:
        by = step * (names.index(name) - middle) if name in names else 0.0
        return x * (1.0 + by) if log else x + by

    return shift


def heat() -> Any:
    """Colours of a map: pale where it settles, dark where it is lost."""
    return style.plt.get_cmap("YlOrRd").with_extremes(under="#DCE9F5", over="#4A0010")


def cells(centres: np.ndarray) -> np.ndarray:
    """Borders of a map's cells around logarithmic centres."""
    log = np.log(centres)
    middle = 0.5 * (log[1:] + log[:-1])
    return np.exp(np.concatenate([[2 * log[0] - middle[0]], middle, [2 * log[-1] - middle[-1]]]))


def fill(axes: Any, table: pd.DataFrame, *draws: Callable[[Axes, pd.DataFrame], None]) -> None:
    """Draw one panel after the other."""
    for ax, draw in zip(np.ravel(axes), draws, strict=True):
        draw(ax, table)

"""One look for all figures: theory a line, measurement a point, an objective keeps its colour."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from theory.files import write_whole

# Okabe and Ito's colours: distinct to colour-blind readers and in grey.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#7F7F7F"
DEEP_SKY = "#2A86B8"
"""Sky for text, which is thin."""

# Families share a hue; members differ in the line.
_LINES = {
    "expert": (BLACK, "-"),
    "sft": (BLACK, "--"),
    "reference": (GREY, "-"),
    "spin": (RED, "-"),
    "spin_hinge": (RED, (0, (5, 2))),
    "dpo": (RED, "--"),
    "airl": (RED, ":"),
    "tspin": (RED, "-."),
    "alpha_spin": (RED, (0, (1, 3))),
    "spif": (BLUE, "-"),
    "sppo": (BLUE, "--"),
    "inpo": (BLUE, ":"),
    "centred_spif": (SKY, "-"),
    "ipo": (GREEN, "-"),
    "space": (GREEN, "--"),
    "brier": (GREEN, ":"),
    "iq_learn": (PURPLE, "-"),
    "policy_only": (PURPLE, "--"),
    "renyi": (PURPLE, ":"),
    "gail": (ORANGE, "-"),
    "ipm": (ORANGE, "--"),
    "nwj": (GREY, "--"),
    "exponential": (GREY, ":"),
}
_SPARE = list(product((BLACK, PURPLE, GREEN, SKY), ((0, (5, 1)), (0, (3, 1, 1, 1)))))

# A shape that tells an objective in grey, too; others are discs.
_MARKS = {"sft": "x", "spif": "s", "ipo": "^", "centred_spif": "D", "iq_learn": "p", "gail": "v"}
_MARKS |= {"nwj": "X", "exponential": "P", "spin_hinge": "*"}
_LINED = "x+|_"
"""Shapes that have no inside."""

_SHOWN = {
    "sft": "SFT",
    "spin": "SPIN",
    "dpo": "DPO",
    "airl": "AIRL",
    "space": "SPACE",
    "brier": "Brier",
    "renyi": "Rényi",
    "nwj": "NWJ",
    "exponential": "exponential",
    "spin_exponential": "SPIN-exp",
    "spin_hinge": "SPIN-hinge",
    "spif": "SPIF",
    "centred_spif": "centred SPIF",
    "ipo": "IPO",
    "inpo": "INPO",
    "sppo": "SPPO",
    "iq_learn": "IQ-Learn",
    "policy_only": "policy-only",
    "gail": "GAIL",
    "ipm": "IPM",
    "tspin": "T-SPIN",
    "alpha_spin": "α-SPIN",
}
_FRACTIONS = {0.125: "⅛", 0.25: "¼", 0.5: "½"}

WIDTHS = {1: 3.4, 2: 7.0}  # inches: one and two columns of a page

RC: dict[str, Any] = {
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 9,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "savefig.dpi": 160,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def line(name: str) -> dict[str, Any]:
    """Colour and line of an objective, the same in every figure; names may carry parameters.

    `line("spif (c=2)")` is that of `spif`. A name not in the table gets one of a few spare lines,
    always the same one.
    """
    base = name.replace("(", " ").split()[0].lower().replace("-", "_") if name.split() else ""
    colour, style = _LINES.get(base) or _SPARE[sum(base.encode()) % len(_SPARE)]
    return {"color": colour, "linestyle": style}


def colour(name: str) -> str:
    """Colour of an objective's family."""
    return str(line(name)["color"])


def shown(name: str) -> str:
    """An objective's name as readers know it."""
    return _SHOWN.get(name, name)


def points(shade: str, marker: str = "o", hollow: bool = False, **more: Any) -> dict[str, Any]:
    """Style of measured points of an objective or of a colour (#...), filled or hollow."""
    shade = shade if shade.startswith("#") else colour(shade)
    thin = hollow or marker in _LINED
    look = {"color": shade, "linestyle": "none", "marker": marker, "markeredgewidth": 0.9 * thin}
    return look | ({"markerfacecolor": "white"} if hollow else {}) | more


def shaped(name: str, hollow: bool = False, **more: Any) -> dict[str, Any]:
    """`points` in the objective's own shape, where several objectives stand close together."""
    return points(name, _MARKS.get(name, "o"), hollow, **more)


# -- figures and axes ------------------------------------------------------------------------------


def panel(
    ncols: int = 1, nrows: int = 1, *, columns: int = 2, aspect: float = 0.75, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """A figure one or two page columns wide and its axes, always an array (nrows, ncols).

    `aspect` is a panel's height over its width; `kwargs` go to `plt.subplots`.
    """
    width = WIDTHS[columns]
    size = (width, nrows * (width / ncols * aspect + 0.15))
    with mpl.rc_context(RC):
        return plt.subplots(nrows, ncols, figsize=size, squeeze=False, **kwargs)


def stacked(height: float, *ratios: float, wider: float = 0.0) -> tuple[Figure, Any]:
    """A figure two columns wide and `height` inches high, cut into rows of these proportions."""
    figure = plt.figure(figsize=(WIDTHS[2] + wider, height))
    return figure, figure.subfigures(len(ratios), 1, height_ratios=ratios)


def label(ax: Axes, x: str, y: str, title: str = "") -> Axes:
    """Name both axes, with units, and say in the title what is to be seen."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if title:
        ax.set_title(title)
    return ax


Ticks = Sequence[float] | Mapping[float, str]


def log(ax: Axes, which: str = "xy", x: Ticks = (), y: Ticks = (), base: float = 10.0) -> None:
    """Make axes logarithmic (`base` that of x); ticks given alone, see `ticks`."""
    if "x" in which:
        ax.set_xscale("log", base=base)
    if "y" in which:
        ax.set_yscale("log")
    ticks(ax, x, y)


def ticks(ax: Axes, x: Ticks = (), y: Ticks = ()) -> None:
    """These ticks and no smaller ones: numbers, or the text of each."""
    for axis, at in ((ax.xaxis, x), (ax.yaxis, y)):
        if len(at):
            texts = at.values() if isinstance(at, Mapping) else map(_number, at)
            axis.set_ticks(list(at), list(texts))
            ax.minorticks_off()


def _number(value: float) -> str:
    return _FRACTIONS.get(value, f"{value:g}")


def letters(axes: np.ndarray, size: float = 8.5) -> None:
    """Begin the titles with (a), (b), ..."""
    for letter, ax in zip("abcdefghijkl", axes.flat, strict=False):
        ax.set_title(f"({letter}) {ax.get_title(loc='left')}", fontsize=size)


def legend(on: Any, looks: Mapping[str, Mapping[str, Any]], **place: Any) -> Any:
    """A legend of axes or of a figure: text -> look of its line or point."""
    keys = [Line2D([], [], **look) for look in looks.values()]
    return on.legend(keys, list(looks), **place)


def note(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text in axis fractions (0..1), to say beside a line what it is."""
    mark(ax, x, y, text, transform=ax.transAxes, **style)


def mark(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text in data coordinates, to say beside a line what it is."""
    kept: dict[str, Any] = {"fontsize": 7.5, "ha": "left", "va": "center"}
    ax.text(x, y, text, **{**kept, **style})


def save(figure: Figure, stem: Path) -> None:
    """Write stem.png and stem.pdf, whole or not at all, without dates or versions inside."""
    for kind, blank in (("png", ["Software"]), ("pdf", ["Creator", "Producer", "CreationDate"])):
        drawn = io.BytesIO()
        with mpl.rc_context(RC):
            figure.savefig(drawn, format=kind, metadata=dict.fromkeys(blank))
        write_whole(stem.with_name(f"{stem.name}.{kind}"), drawn.getvalue())
    plt.close(figure)

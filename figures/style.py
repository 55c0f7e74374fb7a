"""One look for all figures: theory a line, measurement a point, an objective keeps its colour."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours: distinct to colour-blind readers and in grey.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#7F7F7F"

# Families share a hue; members differ in the line.
_LINES = {
    "expert": (BLACK, "-"),
    "reference": (GREY, "-"),
    "spin": (RED, "-"),
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


def label(ax: Axes, x: str, y: str, title: str = "") -> Axes:
    """Name both axes, with units, and say in the title what is to be seen."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if title:
        ax.set_title(title)
    return ax


def points(name: str) -> dict[str, Any]:
    """Style of measured points of an objective, to go with the `line` of its theory."""
    return {"color": colour(name), "linestyle": "none", "marker": "o", "markeredgewidth": 0}


def save(figure: Figure, stem: Path) -> None:
    """Write stem.png and stem.pdf, whole or not at all, without dates or versions inside."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind, blank in (("png", ["Software"]), ("pdf", ["Creator", "Producer", "CreationDate"])):
        path = stem.with_name(f"{stem.name}.{kind}")
        part = path.with_name(path.name + ".tmp")
        with mpl.rc_context(RC):
            figure.savefig(part, format=kind, metadata=dict.fromkeys(blank))
        part.replace(path)
    plt.close(figure)

"""Which figures there are: figures/FAMILY/NAME.py is one, of which out/NAME.csv and .png are made.

A figure's module has CAPTION (what is drawn, with the numbers of its settings), CLAIMS (ids of
report/claims.toml), `table() -> pandas.DataFrame`, which computes, and `plot(table) -> Figure`,
which draws; REALISATIONS, if there are any, names panels, or curves of one, that are chaotic
(`tidy.difference`).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
OUT = HERE / "out"
"""Where tables and pictures are, a name each."""
RESULTS = ROOT / "results"
"""Where the records are: of evidence, of runs that `make figures` does not repeat."""
FAMILIES = ("theory", "toy_games", "llm_scale")


@dataclass(frozen=True)
class Entry:
    """What the report says of a figure."""

    name: str
    caption: str
    claims: tuple[str, ...]


def modules(folder: Path = HERE) -> dict[str, str]:
    """Name -> module of all figures, sorted by name and not imported. ValueError: a name twice."""
    paths = [p for family in FAMILIES for p in (folder / family).glob("[a-z]*.py")]
    found = {p.stem: ".".join((*p.parts[-3:-1], p.stem)) for p in sorted(paths)}
    if len(found) < len(paths):
        raise ValueError(f"names of figures taken twice, among {', '.join(p.stem for p in paths)}")
    return dict(sorted(found.items()))


def catalogue(folder: Path = HERE) -> list[Entry]:
    """All figures by name, imported. ValueError names every module without caption or claims."""
    entries, wrong = [], []
    for name, module in modules(folder).items():
        figure = importlib.import_module(module)
        caption, claims = (getattr(figure, key, None) for key in ("CAPTION", "CLAIMS"))
        if not (isinstance(caption, str) and caption):
            wrong.append(f"{module}: CAPTION must be a text, not {caption!r}")
        elif not (isinstance(claims, tuple) and all(isinstance(c, str) for c in claims)):
            wrong.append(f"{module}: CLAIMS must be a tuple of claim ids, not {claims!r}")
        else:
            entries.append(Entry(name, caption, claims))
    if wrong:
        raise ValueError("; ".join(wrong))
    return entries

"""Which figures there are, read without running them.

A figure is a module `figures/FAMILY/NAME.py` with the literals NAME, CAPTION, CLAIMS and two
functions:
`table() -> pandas.DataFrame` computes, `plot(table) -> Figure` draws. Where the caption names
numbers that FULL=1 changes, they come from the literal SIZES: see `figures.sizes`.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from figures.sizes import filled

HERE = Path(__file__).parent
FAMILIES = ("theory", "toy_games", "llm_scale")
LITERALS = ("NAME", "CAPTION", "CLAIMS", "SIZES")


@dataclass(frozen=True)
class Entry:
    """One figure: its name, its module file and what it shows."""

    name: str
    path: Path
    caption: str
    claims: tuple[str, ...]


def catalogue(folder: Path = HERE) -> list[Entry]:
    """All figures by name. ValueError names every module whose literals are missing or wrong."""
    entries, wrong = [], []
    for path in sorted(p for family in FAMILIES for p in (folder / family).glob("[a-z]*.py")):
        try:
            entries.append(_entry(path))
        except (ValueError, SyntaxError) as error:
            wrong.append(f"{path.name}: {error}")
    names = [entry.name for entry in entries]
    wrong += [
        f"NAME {n!r} is taken twice" for n in sorted({n for n in names if names.count(n) > 1})
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    return sorted(entries, key=lambda entry: entry.name)


def _entry(path: Path) -> Entry:
    found: dict[str, object] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in LITERALS:
                assert isinstance(node, ast.Assign | ast.AnnAssign)
                assert node.value is not None
                found[target.id] = ast.literal_eval(node.value)
    name, caption, claims = (found.get(key) for key in ("NAME", "CAPTION", "CLAIMS"))
    if not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"NAME must be a literal identifier, not {name!r}")
    if not (isinstance(caption, str) and caption):
        raise ValueError("CAPTION must be a literal, non-empty string")
    if not (isinstance(claims, tuple) and all(isinstance(c, str) for c in claims)):
        raise ValueError(f"CLAIMS must be a literal tuple of claim ids, not {claims!r}")
    sizes = found.get("SIZES", {})
    if not (isinstance(sizes, dict) and all(_is_two(v) for v in sizes.values())):
        raise ValueError(f"SIZES must be a literal of name: (usual, large), not {sizes!r}")
    return Entry(name, path, filled(caption, sizes), claims)


def _is_two(values: object) -> bool:
    return isinstance(values, tuple) and len(values) == 2

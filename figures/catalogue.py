"""Which figures there are, read without running them.

A figure is a module `figures/fig_*.py` with the literals NAME, CAPTION, CLAIMS and two functions:
`table() -> pandas.DataFrame` computes, `plot(table) -> Figure` draws.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


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
    for path in sorted(folder.glob("fig_*.py")):
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
            if isinstance(target, ast.Name) and target.id in ("NAME", "CAPTION", "CLAIMS"):
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
    return Entry(name, path, caption, claims)

"""Where a test is: file and line, read off the sources."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from figures.catalogue import ROOT


@cache
def _lines(path: Path) -> dict[str, int]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {n.name: n.lineno for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    for node in tree.body:  # a test that another function made
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.lineno
    return found


def place(test: str, root: Path = ROOT) -> str:
    """``tests/x.py::test_name[spin]`` -> ``tests/x.py#L12``; without a line if it is gone."""
    file, _, name = test.split("[")[0].partition("::")
    path = root / file
    line = _lines(path).get(name.rpartition("::")[2]) if path.is_file() else None
    return f"{file}#L{line}" if line else file


def sentence(test: str) -> str:
    """A test's name is a sentence: tests/x.py::test_kl_is_monotone -> kl is monotone."""
    name = test.split("[")[0].split("::")[-1]
    return name.removeprefix("test_").replace("_", " ")

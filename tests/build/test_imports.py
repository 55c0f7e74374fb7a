"""Imports point one way, and what is heavy is imported where it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "theory": set(),
    "lab": {"theory"},
    "toy_games": {"theory", "lab"},
    "llm_scale": {"theory", "lab"},
    "figures": {"theory", "lab", "toy_games", "llm_scale"},
    "benchmarks": {"theory", "lab", "toy_games", "llm_scale"},
    "tools": {"theory", "lab", "llm_scale"},
}
OWN = {*MAY_IMPORT, "tests"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        wrong = imported(path) & OWN - MAY_IMPORT[package] - {package}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_theory_is_light_to_import():
    heavy = ("cvxpy", "matplotlib", "pandas", "sympy", "torch")
    code = f"import sys, theory; print(*(name for name in {heavy} if name in sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []

"""theory/README.md: complete, with files that exist and numbers that hold."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

from theory import objectives
from theory.rounds.one_step import one_step_round
from theory.rounds.predictions import spif_reach

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "theory" / "README.md").read_text(encoding="utf-8")


def test_every_statement_and_objective_is_there():
    missing = [f"T{i}" for i in range(1, 18) if not re.search(rf"^### T{i}\b", TEXT, re.M)]
    missing += [f"C{i}" for i in range(1, 7) if f"| C{i} |" not in TEXT]
    missing += [f"S{i}" for i in range(1, 9) if f"| S{i} |" not in TEXT]
    missing += [name for name in objectives.names() if f"`{name}`" not in TEXT]
    assert not missing


def test_files_and_anchors_exist():
    for path in re.findall(r"`(tests/[\w/]+(?:\.py)?)/?`", TEXT):
        assert (ROOT / path).exists(), path
    headings = [re.sub(r"[^\w\- ]", "", h).strip() for h in re.findall(r"^#+ (.*)$", TEXT, re.M)]
    anchors = {h.lower().replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


def test_the_tests_of_corrections_exist():
    named = set(re.findall(r"`(test_\w+)`", TEXT.partition("## 16.")[2]))
    files = (ROOT / "tests").rglob("test_*.py")
    defined = {name for f in files for name in re.findall(r"^def (test_\w+)", f.read_text(), re.M)}
    assert len(named) >= 12
    assert named <= defined, named - defined


def test_mathematics_is_not_eaten_by_markdown():
    """Inline: no `\\,` or `\\{`, no `_` that opens emphasis, no `|` in tables, no tag-like `<`."""
    text = re.sub(r"```math.*?```", "", TEXT, flags=re.S)
    for line in text.splitlines():
        assert line.count("$") % 2 == 0, line
        for formula in re.findall(r"\$([^$]+)\$", line):
            assert not re.search(r"\\[{}_!,;|]|[^A-Za-z0-9]_|\*|<\S", formula), formula
            assert formula == formula.strip(), formula
            assert not (line.startswith("|") and "|" in formula), formula


def test_numbers_of_the_dumping_example():
    p, q = np.array([0.6, 0.4, 1e-9]), np.array([0.4, 0.6, 1e-9])
    p, q = p / p.sum(), q / q.sum()
    spif = objectives.get("spif")
    found = one_step_round(p, q, spif, 1.0, branch="global")
    assert found.policy == pytest.approx([0.4886, 0.4912, 0.0202], abs=5e-5)
    assert found.reward[-1] == pytest.approx(16.8, abs=0.05)
    weight = q * np.exp(spif.reward(p, q))
    assert 1 - weight.sum() == pytest.approx(0.0202, abs=5e-5)
    assert weight / weight.sum() == pytest.approx([0.4986, 0.5014, 1e-9], abs=5e-5)


def test_numbers_of_the_bounds():
    edge = brentq(lambda eta: np.exp(-eta) - 1 + eta / 2, 1.0, 1.9)
    assert edge == pytest.approx(1.5936, abs=5e-5)
    # T8d at eta = 8: G and B*
    eta, x = 8.0, np.exp(np.linspace(0.0, 20.0, 200001))
    envelope = np.exp(eta * (x - 1) / (x + 1)) / x + (1 - 1 / x) * np.exp(-eta)
    gap, s = np.log(envelope.max()), np.sqrt(1 - 2 / eta)
    bound = max(2 * np.arctanh(gap / eta), gap + eta * s - 2 * np.arctanh(s))
    assert bound == pytest.approx(8.59, abs=5e-3)
    quoted = ((8.0, 8.59, 5.36), (12.0, 15.73, 11.86), (20.0, 30.67, 26.16))
    for eta, *reach in quoted:
        assert spif_reach(eta) == pytest.approx(reach, abs=5e-3)

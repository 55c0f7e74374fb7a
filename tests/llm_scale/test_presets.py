"""Presets: every one is a run's settings; those of the first author's code have its constants."""

import pytest

from llm_scale.settings import PRESETS, resolve
from theory import check_objective, objectives, theory_card


@pytest.mark.parametrize("name", sorted(p.stem for p in PRESETS.glob("*.toml")))
def test_every_preset_resolves(name):
    found = resolve(name, {"seed": 3})
    assert found.seed == 3
    assert check_objective(objectives.get(found.objective)).ok


@pytest.mark.parametrize(
    ("given", "width", "vocabulary"),
    [
        ({}, 192, 1024),
        ({"model": "models/another"}, 64, 512),
        ({"task": "phrases"}, 192, 512),
        ({"expert": "runs/expert"}, 192, 512),
        ({"expert": "runs/expert", "vocabulary": 300}, 192, 300),
    ],
)
def test_sizes_of_a_preset_s_model_are_not_said_of_another(given, width, vocabulary):
    """512 is the default: another model, the phrases and a named expert have words of their own."""
    found = resolve("text-expert", given)
    assert (found.width, found.vocabulary) == (width, vocabulary)


@pytest.mark.parametrize(
    ("name", "a", "step"), [("first-author-a05", 0.5, 2.475), ("first-author-a1", 1.0, 4.950)]
)
def test_the_presets_of_the_first_author_s_code(name, a, step):
    """One-step pointwise SPIF at c = (1 + 2 rho)/a, rho = .005, beta = .1; all else as tiny-cpu."""
    found, tiny = resolve(name, {}), resolve("tiny-cpu", {})
    spif = objectives.get(found.objective)
    said = (PRESETS / f"{name}.toml").read_text().splitlines()[0]
    assert said.endswith(f": effective step {step:.3g}")
    assert (spif.name, found.beta, found.level, found.tau) == ("spif", 0.1, "sequence", 0.0)
    assert (spif.c, spif.alpha) == (pytest.approx(1.01 / a, rel=1e-14), 0.5)
    card = theory_card(spif).at(found.beta)
    assert card.effective_step == pytest.approx(step, abs=1e-3)
    assert card.largest_move[1] == pytest.approx(2 * step, abs=2e-3)
    assert not card.locally_stable
    same = resolve("tiny-cpu", {"objective": found.objective, "beta": found.beta})
    assert found == same != tiny

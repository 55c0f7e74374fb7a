"""What theory says of a run before it starts, and a beta that follows from an effective step."""

import numpy as np
import pytest
from typer.testing import CliRunner

from lab.specs import objective_of
from llm_scale.__main__ import app
from llm_scale.launch import sweep
from llm_scale.launch.combinations import combination_problems
from llm_scale.launch.foretold import foretold, limit
from llm_scale.settings import Settings, resolve
from theory.errors import InvalidInput


def test_the_line_of_a_run_by_hand():
    assert foretold(Settings(objective="spin", beta=1.0)) == [
        "theory: effective step R'(0)/beta = 1 (R'(0) = 1, beta = 1); exact rounds are stable "
        "near the expert below 2: beta > 0.5; rewards have no bound"
    ]
    assert foretold(Settings(objective="ipo", history=0.25)) == [
        "theory: effective step R'(0)/beta = 0.5 (R'(0) = 0.5, beta = 1); exact rounds are stable "
        "near the expert below 4: beta > 0.125 (history 0.25; 2 without); "
        "rewards within -1 and 1 nats"
    ]


@pytest.mark.parametrize(
    ("preset", "step", "beta"), [("a05", "2.48", ".124"), ("a1", "4.95", ".248")]
)
def test_the_presets_of_the_first_author_s_code_are_warned_of(preset, step, beta):
    line, warning = foretold(resolve(f"first-author-{preset}", {}))
    assert f"R'(0)/beta = {step} " in line
    assert warning.startswith(f"WARNING: effective step {step} is not below 2:")
    assert warning.endswith(f"stable is beta > 0{beta}")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"objective": "tspin"}, "reference-free"),
        ({"objective": "spin_hinge"}, "staircase"),
        ({"objective": "sppo", "oracle": "cyclic", "own_samples": 2}, "preferences in the place"),
        ({"history": 0.5, "tau": 0.1}, "an anchor together with another opponent"),
    ],
)
def test_what_has_no_effective_step_says_why(given, why):
    (line,) = foretold(Settings(**given))
    assert line.startswith("theory: no threshold of the step: ")
    assert why in line


def test_sft_has_nothing_foretold():
    assert foretold(Settings(objective="sft")) == []


def radius(s, beta, given):
    """Largest root of the linear rounds at effective step s."""
    m, tau, f = given.get("history", 0.0), given.get("tau", 0.0), 1.0
    if given.get("opponent") == "mixture":
        return max(abs(np.roots([1, -(1 - s) / 2, -(1 - s) / 2])))
    if "alpha_spin" in given.get("objective", ""):
        f = 0.5
    if m:
        return max(abs(np.roots([1, -(1 - s * (1 - m)), s * m])))
    return abs(f * (beta - s * beta) / (beta + tau))


@pytest.mark.parametrize(
    "given",
    [{}, {"history": 0.25}, {"history": 0.1}, {"history": 0.6}, {"history": 1.0}, {"tau": 0.7},
     {"opponent": "mixture"}, {"objective": "alpha_spin"}],
)  # fmt: skip
def test_the_limit_is_where_a_root_leaves_the_circle(given):
    settings = Settings(**given, beta=0.6)
    edge = limit(settings, objective_of(settings.objective))
    assert radius(0.999 * edge, 0.6, given) < 1 < radius(1.001 * edge, 0.6, given)


def test_the_warning_begins_at_the_limit():
    def warned(beta):
        return len(foretold(Settings(history=0.25, beta=beta))) == 2

    assert warned(0.25)
    assert not warned(0.2501)


def test_beta_follows_from_an_effective_step():
    found = resolve("tiny-cpu", {"objective": "spif(c=0.5)", "effective_step": 4.0})
    assert (found.beta, found.effective_step) == (0.25, 4.0)  # R'(0) = 1/(2c) = 1
    assert not combination_problems(found)
    with pytest.raises(InvalidInput, match="both given"):
        resolve("", {"beta": 1.0, "effective_step": 1.0})
    with pytest.raises(InvalidInput, match="staircase"):
        resolve("", {"objective": "spin_hinge", "effective_step": 1.0})
    (problem,) = combination_problems(Settings(beta=0.3, effective_step=2.0))
    assert problem == "beta=0.3 and effective_step=2, of which beta is 0.5: set one of them"


def test_a_sweep_at_one_effective_step_has_a_beta_for_each_objective():
    base = Settings(effective_step=2.0, objective="sft", own_from="base")
    found = sweep.plan(base, ["sft", "spin", "ipo"], [0], [1.0])
    betas = {name: s.beta for name, s in found.items()}
    assert betas == {"sft-seed-0": 1.0, "spin-beta-0.5-seed-0": 0.5, "ipo-beta-0.25-seed-0": 0.25}
    assert not combination_problems(found["sft-seed-0"])
    asked = ["sweep", "--out=x", "--effective-step=1", "--betas=1,2"]
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code == 2
    assert "needed is one of them" in refused.output

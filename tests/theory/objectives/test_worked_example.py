"""A stranger's objective: the README's worked example, and payoffs of other kinds, from a file.

Everything that the project offers is run on them; the generic checks are those of the registry.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lab.evidence import ClaimRecorder
from tests.theory.strategies import Instance, games
from theory import (
    InvalidInput,
    Unavailable,
    check_objective,
    equilibrium,
    laws,
    objectives,
    saddle_point,
    self_play,
    theory_card,
)
from theory.__main__ import app
from theory.check import Checked
from theory.checks import theorems as checks
from theory.objectives import Objective

README = Path(__file__).parents[3] / "README.md"
MARKED = re.compile(
    r"<!-- worked example -->\s*```python\n(.*?)```\s*<!-- end worked example -->", re.DOTALL
)


def worked_example() -> str:
    """The code of the README's worked example."""
    (block,) = MARKED.findall(README.read_text(encoding="utf-8"))
    return block


COSH = '''
import cvxpy as cp

from theory import xp
from theory.objectives import Pointwise, register


@register("cosh")
class Cosh(Pointwise):
    """Bounded rewards by a penalty ``c (cosh r - 1)`` on both laws."""

    c: float = 1.0
    positive = ("c",)
    citation = "an example"

    def a(self, r):
        return r - 0.5 * self.c * (xp.expm1(r) + xp.expm1(-r))

    def b(self, r):
        return -r - 0.5 * self.c * (xp.expm1(r) + xp.expm1(-r))

    def link_formula(self, u, delta):
        return xp.asinh(xp.tanh(0.5 * u) / self.c)

    def conic_game(self, expert, policy):
        up, down = cp.Variable(expert.shape, nonneg=True), cp.Variable(expert.shape, nonneg=True)
        half = 0.5 * self.c * (expert + policy)
        value = cp.sum(cp.kl_div(up, half)) + cp.sum(cp.kl_div(down, half))
        return value, [up - down == expert - policy]
'''
PAYOFFS = '''
from theory import xp
from theory.objectives import Pairwise, Pointwise, register


@register("damped")
class Damped(Pointwise):
    """Logistic payoffs with a chi^2 penalty: no closed link is known."""

    c: float = 0.3

    def a(self, r):
        return xp.log_sigmoid(r) - self.c * xp.square(r)

    def b(self, r):
        return xp.log_sigmoid(-r) - self.c * xp.square(r)


@register("squareplus")
class Squareplus(Pairwise):
    """A convex pair loss without a link: the best response is found by Newton's method."""

    def pair_loss(self, d):
        return 0.5 * (xp.sqrt(xp.square(d - 1) + 1) - (d - 1)) + 0.1 * d * d
'''


@pytest.fixture
def stranger(tmp_path):
    """Loader of a text as a file of definitions."""

    def load(code: str) -> list[Objective]:
        path = tmp_path / "my_objective.py"
        path.write_text(code)
        return [objectives.get(name) for name in objectives.load_file(path)]

    return load


@pytest.fixture
def example(stranger) -> Objective:
    (obj,) = stranger(worked_example())
    return obj


# --- the worked example --------------------------------------------------------------------------


def test_it_is_one_short_definition() -> None:
    code = worked_example()
    lines = [x for x in code.splitlines() if x.strip() and not x.startswith(("import", "from"))]
    assert len(lines) <= 30
    assert code.count("@register(") == 1


def test_card_from_the_shell(example: Objective, tmp_path) -> None:
    done = CliRunner().invoke(app, ["card", str(tmp_path / "my_objective.py")])
    assert done.exit_code == 0, done.output
    assert example.name in done.stdout
    assert f"{theory_card(example).stability_beta:.6g}" in done.stdout


def test_all_generic_checks_pass(example: Objective) -> None:
    found = check_objective(example, thorough=True, progress=False)
    assert found.ok, found
    run = [f.check for f in found.findings if not f.skipped]
    assert len(run) >= 18, run


@pytest.mark.claim(
    "T1.best_response",
    "T1.from_payoffs",
    "T2.gibbs",
    "T5.mirror_descent",
    "T6.descent",
    regime="tabular",
)
@given(game=games(max_n=6, max_spread=2.0))
def test_theorems_hold_for_it(claim, example: Objective, game: Instance) -> None:
    checks.check_best_response(example, game, claim)
    checks.check_derived_link(example, game, claim)
    checks.check_potential(example, game, claim)
    checks.check_round(example, game, claim)


@pytest.mark.claim("T6.descent", regime="tabular")
@given(game=games(max_n=6, max_spread=2.0), factor=st.floats(1.0, 3.0))
def test_its_rounds_converge(claim, example: Objective, game: Instance, factor: float) -> None:
    """T6 (i)-(iii) with the card's constants, from the definition alone."""
    p = game.expert
    card = theory_card(example)
    beta = factor * card.L
    path = self_play(p, game.start, example, beta=beta, rounds=8)
    kl = path.details["kl"]
    potential = np.stack([example.potential(policy, p) for policy in path.policies])
    tiny = 1e-13 * (1 + kl[0].max() + potential[0].max())
    claim.below(potential[1:], potential[:-1], atol=tiny, what="(i) D_Phi decreases")
    rounds = np.arange(1, 9)[:, None]
    claim.below(potential[1:], beta * kl[0] / rounds, atol=tiny, what="(ii) D_Phi <= beta KL_0/T")
    bound = (1 - card.mu / beta) * kl[:-1] - potential[1:] / beta
    claim.below(kl[1:], bound, atol=1e-10 * (1 + kl[0].max()), what="(iii) KL contracts")


@pytest.mark.claim("T3.pointwise_differ", regime="tabular")
def test_one_step_rounds(claim, example: Objective) -> None:
    """One loss on one model: what the card says of T3 is what happens."""
    rng = np.random.default_rng(0)
    p, q = laws.random_law(rng, (2, 2, 5), 0.7)
    assert not theory_card(example).one_step_exact
    beta = 3.1  # at a single beta (1/k for Amari's game) one step can be exact by chance
    two = self_play(p, q, example, beta=beta, rounds=1)
    one = self_play(p, q, example, beta=beta, rounds=1, one_step=True)
    gap = laws.total_variation(one.policy, two.policy).max()
    claim.exhibits(gap, at_least=1e-6, what="TV of the policies of one step and of two, beta = 3.1")
    stays = self_play(p, p, example, beta=beta, rounds=1, one_step=True)
    np.testing.assert_allclose(stays.policy, p, atol=1e-8)


@pytest.mark.claim("T10.saddle_point", regime="tabular")
@given(seed=st.integers(0, 99), tau=st.floats(0.05, 2.0))
def test_saddle_point_fast_and_convex(claim, example: Objective, seed: int, tau: float) -> None:
    p, ref = laws.random_law(np.random.default_rng(seed), (2, 6), 1.0)
    fast = saddle_point(p, ref, example, tau=tau)
    claim.below(fast.gap, 1e-9, what="certified gap", because="solver")
    convex = saddle_point(p, ref, example, tau=tau, method="convex")
    claim.close(fast.policy, convex.policy, atol=1e-7, what="fast against convex policy")
    claim.close(fast.primal, convex.primal, atol=1e-8, what="fast against convex value")


@pytest.mark.claim("T10.rounds_end", "T10.fixed_point", regime="tabular")
@given(seed=st.integers(0, 99), tau=st.floats(0.05, 2.0))
def test_rounds_end_at_its_equilibrium(claim, example: Objective, seed: int, tau: float) -> None:
    p, ref = laws.random_law(np.random.default_rng(seed), (2, 6), 1.0)
    end = equilibrium(p, ref, example, tau=tau)
    claim.below(end.gap, 1e-9, what="certified gap", because="solver")
    beta = theory_card(example).L
    path = self_play(p, ref, example, beta=beta, rounds=400, ref=ref, tau=tau)
    claim.close(path.policy, end.policy, atol=1e-7, what="end of the rounds")
    reward = np.asarray(example.link(laws.log_ratio(p, end.policy)))
    weight = ref * np.exp(reward / tau)
    claim.close(end.policy, weight / weight.sum(), atol=1e-9, what="pi = ref e^{r/tau}/Z")


# --- strangers of other kinds --------------------------------------------------------------------


def left_out(found: Checked) -> set[str]:
    """Theorems that do not apply."""
    return {f.check[9:] for f in found.findings if f.skipped and f.check.startswith("theorem: ")}


def test_checks_pass_for_a_bounded_stranger(stranger) -> None:
    (obj,) = stranger(COSH)
    for c in (1.0, 0.3):
        found = check_objective(type(obj)(c=c), thorough=True, progress=False)
        assert found.ok, found
        assert left_out(found) == {"optimised risk", "conic potential"}


def test_checks_pass_for_payoffs_alone(stranger) -> None:
    damped, squareplus = stranger(PAYOFFS)
    found = check_objective(damped, thorough=True, progress=False)
    assert found.ok, found
    assert len(left_out(found)) == 4, left_out(found)
    found = check_objective(squareplus, thorough=True, progress=False)
    assert found.ok, found
    assert "best response" not in left_out(found)
    (shape,) = (f.skipped for f in found.findings if f.check == "theorem: link shape")
    assert shape.startswith("it depends on both laws")


def test_payoffs_alone_are_solved(stranger) -> None:
    """No link, no potential, no conic form: rounds, both equilibria and their certificates."""
    damped, squareplus = stranger(PAYOFFS)
    p, ref = laws.random_law(np.random.default_rng(1), (2, 5), 1.0)
    card = theory_card(damped)
    assert card.slope_at_zero == pytest.approx(1 / (1 + 8 * 0.3), rel=1e-9)
    assert card.reward_bounds[1] < 1 / 0.6
    path = self_play(p, ref, damped, beta=card.L, rounds=60, ref=ref, tau=0.4)
    end = equilibrium(p, ref, damped, tau=0.4)
    np.testing.assert_allclose(path.policy, end.policy, atol=1e-7)
    assert saddle_point(p, ref, damped, tau=0.4).gap <= 1e-9
    with pytest.raises(Unavailable, match=r"damped has no .*the definition gives no conic_game"):
        saddle_point(p, ref, damped, tau=0.4, method="convex")
    path = self_play(p, ref, squareplus, beta=2.0, rounds=30)
    assert (np.diff(path.details["kl"]) < 0).all()
    one = self_play(p, ref, squareplus, beta=2.0, rounds=1, one_step=True)
    np.testing.assert_allclose(one.policy, path.policies[1], atol=1e-8)


# --- the checks can fail -------------------------------------------------------------------------

BROKEN = {
    "link": ("asinh(xp.tanh(0.5 * u)", "asinh(xp.tanh(0.6 * u)", "contradicts a and b", False),
    "link shape": ("return xp.asinh(", "return -xp.asinh(", "rewards own|does not increase", False),
    "payoff on expert": ("return r - 0.5", "return r - 0.6", "contradicts a and b", False),
    "payoff on own": ("return -r - 0.5", "return -r - 0.4", "contradicts a and b", False),
    "conic form": ("half = 0.5 * self.c", "half = 0.6 * self.c", "conic form", True),
}


@pytest.mark.parametrize(("right", "wrong", "message", "thorough"), BROKEN.values(), ids=BROKEN)
def test_a_wrong_definition_is_found(stranger, right, wrong, message, thorough) -> None:
    assert COSH.count(right) == 1
    (obj,) = stranger(COSH.replace(right, wrong))
    found = check_objective(obj, thorough, progress=False)
    with pytest.raises(InvalidInput, match=message):
        found.require()


def test_a_wrong_potential_is_found(example: Objective, stranger) -> None:
    code = worked_example()
    if "def potential_formula" not in code:
        pytest.skip("the example leaves its potential to quadrature")
    (obj,) = stranger(re.sub(r"return laws\.(\w+)\(", r"return 1.01 * laws.\1(", code))
    rng = np.random.default_rng(0)
    drawn = (laws.random_law(rng, (1, 4)) for _ in range(3))
    with pytest.raises(AssertionError, match="quadrature of R"):
        checks.check_potential(obj, Instance(*drawn, rng), ClaimRecorder())

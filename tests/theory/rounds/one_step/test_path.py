"""T4 e: one-step rounds along beta, and the fold where the near branch ends."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

from tests.theory.rounds.one_step.outside_solver import (
    ENDS,
    PAYOFFS,
    Loss,
    descend,
    end_of_minimum,
    two_outcome_ends,
)
from tests.theory.wrong_calls import SPIN, SPPO, THREE, Call, Calls, P, Q, refused
from theory import laws, one_step_path
from theory.errors import NotConverged
from theory.rounds import one_step_path as one_step_path_module
from theory.rounds.one_step import one_step_round

EXPERT, POLICY = np.array([0.005, 0.005, 0.989, 1e-3]), np.array([0.5, 0.49, 0.009, 1e-3])
FOLD = 1.3393707842
TWO = [(1e-6, 0.1), (1e-6, 0.15), (1e-5, 0.15), (3e-4, 0.2), (1e-3, 0.2), (1e-2, 0.3)]


@pytest.mark.claim("T4.fold", regime="symbolic")
def test_where_the_jacobian_is_singular(claim):
    """Rows ``J_i dx_i - pi_i dlambda`` and ``sum pi dx``, with ``J_i = s^2 D_i``."""
    for n in (2, 3, 4):
        bend, pi = sympy.symbols(f"J1:{n + 1}"), sympy.symbols(f"pi1:{n + 1}")
        block = sympy.Matrix.hstack(sympy.diag(*bend), -sympy.Matrix(pi))
        jacobian = block.col_join(sympy.Matrix([[*pi, 0]]))
        whole = sympy.prod(bend) * sum(x**2 / d for x, d in zip(pi, bend, strict=True))
        claim.exact(sympy.expand(jacobian.det() - whole) == 0, "determinant, n outcomes")


@pytest.mark.claim("T4.fold", regime="tabular")
@pytest.mark.parametrize(("own", "mass"), TWO)
def test_the_fold_in_closed_form(claim, own, mass):
    for p, q, beta in two_outcome_ends(own, mass):
        path = one_step_path(p, q, "spif", [3.0 * beta, 0.3 * beta])
        claim.close(path.fold.beta / beta, 1.0, 1e-12, what="beta of the fold over the closed form")
        claim.close(path.fold.policy, [mass, 1 - mass], 1e-12, what="law at the fold")
        claim.below(path.fold.singular, 1e-12, what="singular value at the fold")
        assert len(path.beta) == 1
        assert path.converged


@pytest.mark.claim("T4.fold", regime="tabular")
@pytest.mark.parametrize("law", ENDS, ids=str)
def test_the_fold_against_scipy(claim, law):
    log_pi, beta = end_of_minimum(law)
    betas = [law.beta, 0.9 * beta]
    path = one_step_path(*law.laws(), law.name, betas, ref=law.ref, tau=law.tau)
    claim.close(path.fold.beta, beta, 1e-10, what="beta of the fold against scipy's root")
    claim.close(path.fold.policy, np.exp(log_pi), 1e-9, what="law at the fold")
    bend = law.loss(beta).bend(log_pi)
    assert (bend < 0).sum() == 1  # it ends beyond an inflection, not at it
    assert path.fold.outcome == np.argmin(bend)


@pytest.mark.claim("T4.fold", regime="tabular")
def test_the_fold_by_bisection_on_what_exists(claim):
    low, high = 1.3393, 1.3394
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        over = "ends at its fold" in one_step_round(EXPERT, POLICY, "spif", middle).status
        low, high = (middle, high) if over else (low, middle)
    fold = one_step_path(EXPERT, POLICY, "spif", [2.0, 1.0]).fold
    claim.close(fold.beta, low, 2e-9, what="beta of the fold against the end of the near branch")
    claim.close(fold.beta, FOLD, 1e-9, what="beta of the fold as printed")
    assert fold.outcome == 3


def test_numbers_of_the_fold_as_printed():
    """Its inflection is at beta = 1.3393716; at the fold .0027 becomes .499."""
    for beta, dumped in ((1.33937165, -1), (1.33937150, 3)):
        assert one_step_round(EXPERT, POLICY, "spif", beta).dumped == dumped
    last = [one_step_round(EXPERT, POLICY, "spif", FOLD + h).policy[3] for h in (1e-9, -1e-9)]
    assert last == pytest.approx([0.00272, 0.49922], abs=5e-6)


@pytest.mark.claim("T4.fold", regime="tabular", drops="near_branch")
def test_the_global_minimum_has_left_before(claim):
    """It changes over where two risks are equal, not at the fold, which it does not see."""
    fold = one_step_path(EXPERT, POLICY, "spif", [2.0, 1.0]).fold
    sides = [
        one_step_round(EXPERT, POLICY, "spif", fold.beta * (1.0 + off), branch="global").policy
        for off in (1e-6, -1e-6)
    ]
    claim.exhibits(laws.total_variation(sides[0], fold.policy), 0.4, what="TV to the fold, before")
    claim.below(laws.total_variation(*sides), 1e-5, what="TV across the fold", because="chosen")


def test_both_sides_of_the_fold():
    """Minima before it, saddles on the way back: stationary, and one direction falls."""
    grid = [2.0, 1.6, 1.4, 1.3395, 1.0]
    path = one_step_path(EXPERT, POLICY, "spif", grid, turns=1)
    np.testing.assert_allclose(path.beta, [*grid[:4], *grid[3::-1]], rtol=1e-13)
    assert path.side.tolist() == [0] * 4 + [1] * 4
    assert path.minimum.tolist() == [True] * 4 + [False] * 4
    for i, beta in enumerate(path.beta):
        loss = Loss(PAYOFFS["spif"], EXPERT, POLICY, np.log(POLICY), beta)
        z = np.log(path.policies[i])
        np.testing.assert_allclose(loss.gradient(z), 0.0, atol=1e-12)
        values = np.linalg.eigvalsh(loss.hessian(z))
        assert (values < -1e-9).sum() == path.side[i]
        assert path.risk[i] == pytest.approx(loss.value(z), abs=1e-13)
        np.testing.assert_allclose(path.rewards[i], beta * np.log(path.policies[i] / POLICY))
    assert "4 of 5 betas on the near branch from beta=2, which ends at a fold" in path.status
    assert path.status.endswith("4 points beyond it")


def test_the_sides_part_with_the_root_of_the_distance():
    fold = one_step_path(EXPERT, POLICY, "spif", [2.0, 1.0]).fold.beta
    grid = [1.4, fold + 4e-9, fold + 1e-9, 1.0]
    path = one_step_path(EXPERT, POLICY, "spif", grid, turns=1)
    assert path.side.tolist() == [0, 0, 0, 1, 1, 1]
    wide = path.policies[4, 3] - path.policies[1, 3], path.policies[3, 3] - path.policies[2, 3]
    assert wide[0] / wide[1] == pytest.approx(2.0, rel=1e-3)


@pytest.mark.claim("T4.solvers", regime="tabular")
@pytest.mark.parametrize("name", [name for name in PAYOFFS if name != "sppo"])
@pytest.mark.parametrize("tau", [0.0, 0.4])
def test_points_of_the_near_branch(claim, name, tau):
    """Each against the round at its beta, where no outcome is beyond its fold, and by descent."""
    rng = np.random.default_rng([len(name), int(10 * tau)])
    p, q, ref = laws.random_law(rng, (3, 9), 0.8)
    grid = np.geomspace(3.0, 0.5, 7)
    path = one_step_path(p, q, name, grid, ref, tau)
    assert path.converged
    assert path.side.max() == 0
    np.testing.assert_allclose(path.beta, grid[: len(path.beta)], rtol=1e-13)
    for i, beta in enumerate(path.beta):
        found = one_step_round(p, q, name, beta, ref, tau)
        if found.dumped >= 0:
            continue
        off = laws.total_variation(path.policies[i], found.policy)
        claim.below(off, 1e-9, what="TV of the path from the round at its beta")
        claim.close(path.rewards[i], found.reward, 1e-7, what="implicit rewards")
        claim.close(path.multiplier[i], found.multiplier, 1e-8, what="multiplier")
        loss = Loss(PAYOFFS[name], p, q, (beta * np.log(q) + tau * np.log(ref)) / (beta + tau),
                    beta + tau)  # fmt: skip
        end = descend(loss, np.log(path.policies[i]) + 0.01 * rng.normal(size=9), 0.02)
        off = laws.total_variation(np.exp(end.log_pi), path.policies[i])
        claim.below(off, 1e-6, what="TV of the path from descent next to it", because="solver")


def test_the_path_keeps_to_the_minimum_that_the_round_leaves():
    """By the total mass another outcome's fold comes first; by beta it does not."""
    p, q, beta = next(iter(two_outcome_ends(1e-3, 0.2)))
    path = one_step_path(p, q, "spif", [3.0 * beta, 1.001 * beta])
    assert path.fold is None
    assert path.policies[-1, 0] < 0.2
    loss = Loss(PAYOFFS["spif"], p, q, np.log(q), 1.001 * beta)
    end = descend(loss, np.log(q), 0.02)
    np.testing.assert_allclose(path.policies[-1], np.exp(end.log_pi), atol=1e-7)
    assert one_step_round(p, q, "spif", 1.001 * beta).policy[0] > 0.7


def test_what_a_path_keeps_to_depends_on_its_start():
    """AIRL from beta = 1 up: an outcome passes its inflection and keeps its mass, where at beta = 4
    there is a minimum without any such outcome too."""
    p, q = laws.random_law(np.random.default_rng(4), (2, 5), 1.8)
    grid = np.geomspace(1.0, 4.0, 30)
    path = one_step_path(p, q, "airl", grid)
    assert path.minimum.all()
    assert len(path.beta) == 30
    z = np.log(path.policies[0])
    for beta in grid[1:]:
        z = descend(Loss(PAYOFFS["airl"], p, q, np.log(q), beta), z, 0.02).log_pi
    np.testing.assert_allclose(path.policies[-1], np.exp(z), atol=1e-7)
    round_ = one_step_round(p, q, "airl", 4.0)
    assert round_.dumped == -1
    assert laws.total_variation(round_.policy, path.policies[-1]) > 0.2
    falling = one_step_path(p, q, "airl", [4.0, 3.0])
    np.testing.assert_allclose(falling.policies[0], round_.policy, atol=1e-9)


def test_padding_single_points_and_frames():
    pytest.importorskip("pandas")
    wide = [np.insert(x, 1, 0.0) for x in (EXPERT, POLICY)]
    path = one_step_path(*wide, "spif", [2.0, 1.0])
    assert path.fold.outcome == 4
    assert path.fold.policy[1] == path.policies[0, 1] == path.rewards[0, 1] == 0
    alone = one_step_path(*wide, "spif", [2.0])
    assert alone.fold is None
    assert alone.status == "converged: 1 of 1 betas on the near branch from beta=2"
    frame = path.to_frame()
    assert list(frame) == [
        "point", "outcome", "beta", "side", "minimum", "multiplier", "risk", "policy", "reward"
    ]  # fmt: skip
    assert len(frame) == 5
    np.testing.assert_array_equal(frame["policy"], path.policies[0])


CALLS: Calls = {
    "empty": (lambda: one_step_path(P, Q, "spif", []), r"beta=\[\]; needed are finite numbers > 0"),
    "zero": (lambda: one_step_path(P, Q, "spif", [1.0, 0.0]), r"beta=\[1\.0, 0\.0\]; needed"),
    "no order": (lambda: one_step_path(P, Q, "spif", [1.0, 2.0, 1.5]), r"strictly rising"),
    "number": (lambda: one_step_path(P, Q, "spif", 1.0), r"beta=1\.0; needed"),
    "text": (lambda: one_step_path(P, Q, "spif", "x"), "beta='x'; needed"),
    "turns": (lambda: one_step_path(P, Q, "spif", [1.0], turns=-1), "turns=-1; needed is a whole"),
    "name": (lambda: one_step_path(P, Q, "spiff", [1.0]), "unknown objective 'spiff'"),
    "pairwise": (lambda: one_step_path(P, Q, SPIN, [1.0]), "spin has no path of one-step rounds"),
    "preference": (lambda: one_step_path(P, Q, SPPO, [1.0]), "sppo has no path of one-step rounds"),
    "no loss": (lambda: one_step_path(P, Q, "gail", [1.0]), "gail has no risk"),
    "anchor": (lambda: one_step_path(P, Q, "spif", [1.0], tau=0.5), r"tau=0\.5 needs ref"),
    "prompts": (
        lambda: one_step_path([P, P], [Q, Q], "spif", [1.0]),
        r"expert: shape \(2, 2\); needed is one prompt",
    ),
    "support": (
        lambda: one_step_path([1.0, 0.0], Q, "spif", [1.0]),
        r"policy has mass at \(1,\) where expert has none",
    ),
    "outcomes": (lambda: one_step_path(P, THREE, "spif", [1.0]), "differ in the number"),
    "together": (
        lambda: one_step_path(P, Q, "spif", [], tau=-1, turns=0.5),
        ["tau=-1", "beta=", "turns=0.5"],
    ),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, said: str | list[str]) -> None:
    refused(call, said)


def test_a_path_that_is_not_ended_is_an_error_with_what_was_found(monkeypatch):
    monkeypatch.setattr(one_step_path_module, "MOST_STEPS", 3)
    with pytest.raises(NotConverged, match="lost next to beta") as caught:
        one_step_path(EXPERT, POLICY, "spif", [20.0, 15.0, 10.0, 1.5])
    found = caught.value.solution
    assert not found.converged
    assert 1 <= len(found.beta) < 4

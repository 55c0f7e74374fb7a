"""T10 along the anchor's weight: every point against a solve of its own, tangents, value, ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy
from scipy.optimize import brentq

from tests.theory.wrong_calls import SPIN, TSPIN, Call, Calls, P, Q, refused
from theory import NotConverged, equilibrium, laws, objectives, saddle_point, solve_path
from theory.equilibria import newton
from theory.equilibria.problem import Game
from theory.result import FloatArray

SOLVE = {"saddle": saddle_point, "equilibrium": equilibrium}
SMOOTH = [
    (kind, name)
    for kind in SOLVE
    for name in ("spif", "spif(c=0.7, alpha=0.2)", "gail", "airl", "brier", "nwj", "exponential",
                 "iq_learn", "policy_only", "space(mu=3)")
]  # fmt: skip
KINKED = [(kind, "ipm(bound=0.3)") for kind in SOLVE]
GRID = np.geomspace(0.01, 100.0, 9)
smooth = pytest.mark.parametrize(("kind", "name"), SMOOTH)
every = pytest.mark.parametrize(("kind", "name"), SMOOTH + KINKED)


def pair(seed: int = 0, shape: tuple[int, ...] = (2, 12)) -> FloatArray:
    return laws.random_law(np.random.default_rng(seed), (2, *shape), 1.5)


def potential(kind: Any, name: str, expert: FloatArray, ref: FloatArray, at: FloatArray) -> Any:
    """The value without its anchor: the game's, or ``D_Phi``."""
    game = Game(kind, expert, ref, objectives.get(name), 0.0)
    return game.value(at)


@pytest.mark.claim("T10.saddle_point", regime="tabular")
@every
@pytest.mark.parametrize("falling", [False, True], ids=["rising", "falling"])
def test_every_point_is_what_a_solve_of_its_own_finds(claim, kind, name, falling):
    expert, ref = pair()
    grid = GRID[::-1] if falling else GRID
    path = solve_path(expert, ref, name, grid, kind)
    assert path.converged
    assert path.status.startswith("converged: 9 points of tau")
    claim.below(path.gap, 1e-9, what="certified gap along the path")
    for i, tau in enumerate(grid):
        alone = SOLVE[kind](expert, ref, name, tau)
        off = laws.total_variation(path.policies[i], alone.policy)
        claim.below(off, 1e-12, what="TV of a warm-started point from a solve of its own")
        claim.close(path.primal[i], alone.primal, 1e-12, what="its value")
        claim.close(path.rewards[i], alone.reward, 1e-7, rtol=1e-7, what="its reward")
        assert path.divergence[i] == pytest.approx(laws.kl(alone.policy, ref), abs=1e-12)


@pytest.mark.claim("T10.saddle_point", regime="tabular")
@pytest.mark.parametrize("kind", SOLVE)
def test_a_path_against_cones(claim, kind):
    expert, ref = pair(1, (8,))
    path = solve_path(expert, ref, "spif", [0.05, 0.5, 5.0], kind)
    for policy, tau in zip(path.policies, path.tau, strict=True):
        other = SOLVE[kind](expert, ref, "spif", tau, "convex").policy
        claim.close(policy, other, 2e-7, what="policy against Clarabel's")


@pytest.mark.parametrize("name", ["spin", "ipo", "spin_exponential", "renyi(order=0.3)"])
def test_links_that_depend_on_both_laws_have_paths_too(name):
    expert, ref = pair(2, (5,))
    path = solve_path(expert, ref, name, [0.0, 0.2, 1.0], "equilibrium")
    np.testing.assert_allclose(path.policies[0], expert, rtol=0, atol=1e-15)
    for policy, tau in zip(path.policies[1:], path.tau[1:], strict=True):
        np.testing.assert_allclose(policy, equilibrium(expert, ref, name, tau).policy, atol=1e-10)


def test_spins_path_in_closed_form():
    expert, ref = pair(3)
    path = solve_path(expert, ref, "airl", GRID, "equilibrium")
    weight = np.log(expert) + GRID[:, None, None] * np.log(ref)
    exact = np.exp(weight / (1.0 + GRID[:, None, None]))
    exact /= exact.sum(-1, keepdims=True)
    np.testing.assert_allclose(path.policies, exact, atol=1e-13)
    up = np.log(ref / expert) * GRID[:, None, None] / (1.0 + GRID[:, None, None]) ** 2
    np.testing.assert_allclose(
        path.speed, exact * (up - (exact * up).sum(-1, keepdims=True)), atol=1e-12
    )


def test_two_outcomes_of_spif_by_hand():
    """Pay ``t + t^2/2`` with ``t = (p - pi)/(p + pi)``: one scalar equation."""
    p, ref = 0.8, 0.3

    def slope(x: float, tau: float) -> float:
        t, s = (p - x) / (p + x), (x - p) / (2.0 - p - x)
        return s + s**2 / 2 - t - t**2 / 2 + tau * np.log(x * (1 - ref) / (ref * (1 - x)))

    path = solve_path([p, 1 - p], [ref, 1 - ref], "spif", GRID)
    exact = [brentq(slope, 1e-9, 1 - 1e-9, args=(tau,), xtol=1e-15) for tau in GRID]
    np.testing.assert_allclose(path.policies[:, 0], exact, atol=1e-12)


@smooth
def test_tangents_against_finite_differences(kind, name):
    expert, ref = pair(4)
    path = solve_path(expert, ref, name, GRID, kind)
    for i, tau in enumerate(GRID):
        low, high = (SOLVE[kind](expert, ref, name, tau * np.exp(h)).policy for h in (-1e-4, 1e-4))
        np.testing.assert_allclose(path.speed[i], (high - low) / 2e-4, atol=2e-8)
    np.testing.assert_allclose(path.speed.sum(-1), 0.0, atol=1e-14)


def test_tangents_where_the_expert_gives_nothing():
    expert, ref = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.2, 0.3, 0.3, 0.2])
    path = solve_path(expert, ref, "spif", [0.2, 0.4], "equilibrium")
    for i, tau in enumerate(path.tau):
        low, high = (
            equilibrium(expert, ref, "spif", tau * np.exp(h)).policy for h in (-1e-4, 1e-4)
        )
        np.testing.assert_allclose(path.speed[i], (high - low) / 2e-4, atol=1e-8)


def test_a_warm_start_is_a_shorter_way():
    expert, ref = pair(5, (50,))
    grid = np.geomspace(0.02, 20.0, 40)
    path = solve_path(expert, ref, "spif", grid)
    cold = sum(saddle_point(expert, ref, "spif", tau).iterations for tau in grid)
    assert path.iterations.sum() <= 0.75 * cold


# --- the value along the path --------------------------------------------------------------------


@pytest.mark.claim("T10.envelope", regime="tabular")
@every
def test_the_value_is_concave_with_the_divergence_for_its_slope(claim, kind, name):
    expert, ref = pair(6)
    fine = np.exp(np.linspace(np.log(0.02), np.log(50.0), 60))
    path = solve_path(expert, ref, name, fine, kind)
    claim.below(path.divergence[1:], path.divergence[:-1], atol=1e-13, what="KL(pi||ref) falls")
    g = np.stack([potential(kind, name, expert, ref, law) for law in path.policies])
    claim.below(g[:-1], g[1:], atol=1e-12, what="the value without its anchor rises")
    chord = np.diff(path.primal, axis=0) / np.diff(fine)[:, None]
    claim.below(chord, path.divergence[:-1], atol=1e-11, what="chord against its first slope")
    claim.below(path.divergence[1:], chord, atol=1e-11, what="last slope against the chord")
    for tau, slope in zip(fine[::10], path.divergence[::10], strict=True):
        low, high = (SOLVE[kind](expert, ref, name, tau * (1 + h)).primal for h in (-1e-4, 1e-4))
        claim.close(
            (high - low) / (2e-4 * tau),
            slope,
            1e-7,
            what="dV/dtau, by differences, and KL(pi||ref)",
        )


@pytest.mark.claim("T10.envelope", regime="symbolic")
def test_the_slope_of_spins_value(claim):
    """``V = -(1 + tau) log sum p^{1/(1+tau)} ref^{tau/(1+tau)}``."""
    tau = sympy.Symbol("tau", positive=True)
    a, b = sympy.symbols("a1:4", real=True), sympy.symbols("b1:4", real=True)
    tops = [(x + tau * y) / (1 + tau) for x, y in zip(a, b, strict=True)]
    total = sum(sympy.exp(top) for top in tops)
    law = [sympy.exp(top) / total for top in tops]
    divergence = sum(
        mass * (top - sympy.log(total) - y) for mass, top, y in zip(law, tops, b, strict=True)
    )
    value = -(1 + tau) * sympy.log(total)
    claim.exact(sympy.simplify(sympy.diff(value, tau) - divergence) == 0, "dV/dtau = KL(pi||ref)")


@pytest.mark.claim("T10.envelope", regime="tabular", drops="one_potential")
def test_a_gain_that_moves_with_the_policy_adds_to_the_slope(claim):
    """IPO: kappa is another at every tau, and what is minimised with it."""
    expert, ref = np.array([0.9, 0.1]), np.array([0.1, 0.9])
    low, at, high = (equilibrium(expert, ref, "ipo", 0.3 + h) for h in (-1e-4, 0.0, 1e-4))
    slope = (high.primal - low.primal) / 2e-4
    divergence = laws.kl(at.policy, ref)
    claim.exhibits(abs(slope - divergence), 0.02, what="IPO's dV/dtau off KL(pi||ref)")


@pytest.mark.claim("T10.path_ends", regime="tabular")
@every
def test_from_the_expert_to_the_reference(claim, kind, name):
    expert, ref = pair(8)
    grid = np.geomspace(1e-4, 1e4, 17)
    path = solve_path(expert, ref, name, grid, kind)
    at_expert, at_ref = (potential(kind, name, expert, ref, law) for law in (expert, ref))
    whole = laws.kl(expert, ref)
    for tau, law, divergence in zip(grid, path.policies, path.divergence, strict=True):
        g = potential(kind, name, expert, ref, law)
        both = divergence + laws.kl(ref, law)
        claim.below(tau * both, at_ref - g, atol=1e-11, what="tau (KL + KL) to the reference")
        nearer = tau * (whole - divergence - laws.kl(expert, law))
        claim.below(g - at_expert, nearer, atol=1e-11, what="what the expert is better by")
    claim.below(laws.total_variation(path.policies[0], expert), 5e-3, what="TV to p, tau = 1e-4",
                because="chosen")  # fmt: skip
    claim.below(laws.total_variation(path.policies[-1], ref), 1e-2, what="TV to ref, tau = 1e4",
                because="chosen")  # fmt: skip


@pytest.mark.claim("T10.path_ends", regime="tabular")
@pytest.mark.parametrize("kind", SOLVE)
def test_both_bounds_are_attained(claim, kind):
    """Where the value is linear: the hard-bounded IPM, no outcome of which is held at p."""
    expert, ref, tau = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5]), 2.0
    found = SOLVE[kind](expert, ref, "ipm", tau).policy
    g, at_ref = (potential(kind, "ipm", expert, ref, law) for law in (found, ref))
    both = tau * (laws.kl(found, ref) + laws.kl(ref, found))
    claim.close(both, at_ref - g, 1e-12, what="tau (KL + KL) to the reference, attained")
    nearer = tau * (laws.kl(expert, ref) - laws.kl(found, ref) - laws.kl(expert, found))
    claim.close(g, nearer, 1e-12, what="what the expert is better by, attained")


@pytest.mark.claim("T10.path_ends", regime="tabular")
@smooth
def test_how_fast_the_ends_are_reached(claim, kind, name):
    """By ``tau Var_p(log p/ref)/k'(0)`` from ``KL(p||ref)``; to 0 as ``Var_ref(k)/(2 tau^2)``."""
    expert, ref = pair(9, (6,))
    game = Game(kind, expert, ref, objectives.get(name), 1.0)  # type: ignore[arg-type]
    u = np.log(expert / ref)
    k_zero = game.separable().slope_pay(np.zeros(1))[1][0]
    pay = game.separable().pay(u)
    large = 1e3 * np.abs(pay).max()
    near, far = solve_path(expert, ref, name, [1e-5, large], kind).divergence
    variance = (expert * u**2).sum() - (expert * u).sum() ** 2
    fall = (laws.kl(expert, ref) - near) / (1e-5 * variance / k_zero)
    claim.close(fall, 1.0, 1e-2, what="fall of KL(pi||ref) from tau = 0", because="expansion")
    spread = (ref * pay**2).sum() - (ref * pay).sum() ** 2
    claim.close(
        far / (0.5 * spread / large**2),
        1.0,
        1e-2,
        what="KL(pi||ref) at large tau",
        because="expansion",
    )


# --- as a tool -----------------------------------------------------------------------------------


def test_points_are_added_until_neighbours_are_near():
    expert, ref = pair(10)
    path = solve_path(expert, ref, "spif", [0.01, 1.0, 100.0], largest_move=0.03)
    moves = laws.total_variation(path.policies[1:], path.policies[:-1])
    assert moves.max() <= 0.03
    assert {0.01, 1.0, 100.0} <= set(path.tau)
    whole = laws.total_variation(path.policies[-1], path.policies[0]).max()
    assert whole / 0.03 <= len(path.tau) <= 4 * whole / 0.03
    assert np.all(np.diff(path.tau) > 0)
    falling = solve_path(expert, ref, "spif", [100.0, 0.01], largest_move=0.03)
    assert laws.total_variation(falling.policies[1:], falling.policies[:-1]).max() <= 0.03


def test_a_frame_of_a_path():
    pytest.importorskip("pandas")
    frame = solve_path(*pair(), "spif", [0.0, 0.5]).to_frame()
    assert list(frame) == ["tau", "prompt", "primal", "dual", "gap", "divergence"]
    assert frame["tau"].tolist() == [0.0, 0.0, 0.5, 0.5]
    alone = solve_path(P, Q, "spif", [0.5]).to_frame()
    assert list(alone) == ["tau", "primal", "dual", "gap", "divergence"]


def test_a_point_above_the_tolerance_is_said(monkeypatch):
    call = {"expert": P, "ref": Q, "obj": "spif", "tau": [0.1, 1.0], "tolerance": 1e-40}
    monkeypatch.setattr(newton, "NUDGES", ())
    with pytest.raises(NotConverged, match="above the tolerance"):
        solve_path(**call)
    path = solve_path(**call, raise_on_failure=False)
    assert not path.converged
    assert "not converged, the first at tau=0.1" in path.status


CALLS: Calls = {
    "empty": (lambda: solve_path(P, Q, "spif", []), r"tau=\[\]; needed are finite numbers >= 0"),
    "negative": (lambda: solve_path(P, Q, "spif", [0.1, -1.0]), r"tau=\[0\.1, -1\.0\]; needed"),
    "infinite": (lambda: solve_path(P, Q, "spif", [0.1, np.inf]), r"tau=\[0\.1, inf\]; needed"),
    "no order": (lambda: solve_path(P, Q, "spif", [0.1, 0.5, 0.2]), "in no order; needed"),
    "twice": (lambda: solve_path(P, Q, "spif", [0.1, 0.1]), "in no order"),
    "number": (lambda: solve_path(P, Q, "spif", 0.5), r"tau=0\.5; needed"),
    "text": (lambda: solve_path(P, Q, "spif", "x"), "tau='x'; needed"),
    "kind": (lambda: solve_path(P, Q, "spif", [1.0], "nash"), "'saddle', 'equilibrium'"),
    "move": (lambda: solve_path(P, Q, "spif", [1.0], largest_move=0.0), r"largest_move=0\.0"),
    "move and 0": (
        lambda: solve_path(P, Q, "spif", [0.0, 1.0], largest_move=0.1),
        "with largest_move needed are > 0",
    ),
    "move of ipo": (
        lambda: solve_path(P, Q, "ipo", [0.1, 1.0], "equilibrium", largest_move=0.1),
        "ipo has no tangent",
    ),
    "name": (lambda: solve_path(P, Q, "spiff", [1.0]), "unknown objective 'spiff'"),
    "pairwise": (lambda: solve_path(P, Q, SPIN, [1.0]), r"spin has no saddle: .* use equilibrium"),
    "no link": (lambda: solve_path(P, Q, TSPIN, [1.0], "equilibrium"), "tspin has no equilibrium"),
    "support": (
        lambda: solve_path([0.5, 0.5], [1.0, 0.0], "policy_only", [0.0, 1.0]),
        "support",
    ),
    "together": (
        lambda: solve_path(P, Q, "spif", [], "nash", largest_move=-1),
        ["tau=", "kind=", "largest_move=-1"],
    ),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, said: str | list[str]) -> None:
    refused(call, said)


def test_the_status_says_the_largest_gap_and_points_without_end_stop(monkeypatch) -> None:
    expert, ref = pair()
    path = solve_path(expert, ref, "spif", GRID)
    said = float(path.status.rpartition("largest certified gap ")[2])
    assert said == float(f"{np.max(path.gap):.2g}") < 1e-9
    monkeypatch.setattr("theory.equilibria.path.MOST_POINTS", 3)
    with pytest.raises(NotConverged, match="more than 3 points; at tau="):
        solve_path(expert, ref, "spif", GRID)

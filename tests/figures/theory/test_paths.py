"""What the figure "paths" and README's T10 and T4 e say is true of the numbers drawn."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from figures.theory import paths as figure
from figures.tidy import MEASURED, THEORY
from tests.figures.tables import drawn, is_drawn, part

P, REF = figure.EXPERT, figure.REF
PANELS = ("expert", "reference")
ON_EXPERT, OWN = np.array([0.005, 0.005, 0.989, 0.001]), np.array([0.5, 0.49, 0.009, 0.001])


def test_a_small_run_is_drawn(monkeypatch):
    monkeypatch.setattr(figure, "TAUS", np.array([0.1, 1.0, 3.0]))
    monkeypatch.setattr(figure, "FEW", np.array([0.1]))
    monkeypatch.setattr(figure, "COARSE", np.array([0.1, 1.0]))
    monkeypatch.setattr(figure, "BETAS", np.array([6.0, 2.0, 1.0]))
    monkeypatch.setattr(figure, "TRIED", np.array([1.0, 6.0]))
    monkeypatch.setattr(figure, "NEXT_TO", np.array([1e-4, 1e-2]))
    is_drawn(figure, figure.table())


# -- along tau ------------------------------------------------------------------------------------


def kl(p, q):
    return (p * np.log(p / q)).sum()


def spif_law(kind, tau):
    """Outcome by outcome ``k(t) - tau log(pi/ref) = c`` with t = (p - pi)/(p + pi), sum by c."""

    def mass(p, ref, level):
        def excess(z):
            t = (p - ref * np.exp(z)) / (p + ref * np.exp(z))
            return (t + 0.5 * t**2 if kind == "saddle" else t) - tau * z - level

        return ref * np.exp(brentq(excess, -500.0, 500.0, xtol=1e-14))

    def law(level):
        return np.array([mass(p, ref, level) for p, ref in zip(P, REF, strict=True)])

    return law(brentq(lambda level: law(level).sum() - 1.0, -3.0, 3.0, xtol=1e-14))


@pytest.mark.parametrize("kind", ["saddle", "equilibrium"])
def test_the_lines_along_tau_solve_their_equations(kind):
    table = drawn("paths")
    away, left = (part(table, p, THEORY, objective="spif", series=kind) for p in PANELS)
    laws = [spif_law(kind, tau) for tau in away.x[::6]]
    np.testing.assert_allclose(away.y[::6], [kl(P, law) for law in laws], rtol=2e-5)
    np.testing.assert_allclose(left.y[::6], [kl(law, REF) for law in laws], rtol=2e-5)
    assert away.y.is_monotonic_increasing
    assert left.y.is_monotonic_decreasing


def test_points_beside_the_lines_are_found_in_another_way():
    table = drawn("paths")
    for name, kind in figure.SAID:
        line, points = (
            part(table, "expert", k, objective=name, series=kind) for k in (THEORY, MEASURED)
        )
        assert len(points) == 7
        np.testing.assert_allclose(points.y, line.y[line.x.isin(points.x)], rtol=1e-4)
    for kind in ("saddle", "equilibrium"):
        line, slope = (part(table, "reference", k, series=kind) for k in (THEORY, MEASURED))
        line = line[line.objective == "spif"]
        np.testing.assert_allclose(slope.y, line.y[line.x.isin(slope.x)], rtol=2e-5)
    spin = part(table, "expert", THEORY, objective="spin")
    for tau, found in zip(spin.x[::15], spin.y[::15], strict=True):
        law = np.exp((np.log(P) + tau * np.log(REF)) / (1 + tau))
        assert found == pytest.approx(kl(P, law / law.sum()), rel=1e-5)


def test_the_ends_along_tau():
    """R'(0) = 1/2; to first order, so the error is of the next one."""
    table = drawn("paths")
    line = part(table, "reference", THEORY, objective="spif", series="saddle").set_index("x").y
    near, far = (part(table, "ends", THEORY, series=f"tau to {to}") for to in ("0", "infinity"))
    u = np.log(P / REF)
    variance = P @ (u - P @ u) ** 2
    np.testing.assert_allclose(near.y, kl(P, REF) - 2.0 * near.x * variance, rtol=1e-5)
    off = np.abs(near.y.to_numpy() - line[near.x].to_numpy()) / near.x
    assert off.iloc[0] < 0.1 * variance
    t = np.tanh(u / 2)
    pay = t + t**2 / 2
    np.testing.assert_allclose(far.y, REF @ (pay - REF @ pay) ** 2 / (2 * far.x**2), rtol=1e-5)
    assert far.y.iloc[-1] / line.iloc[-1] == pytest.approx(1.0, abs=0.03)


def test_certificates_bound_the_distance_and_tangents_are_nearer():
    table = drawn("paths")
    gap = part(table, "gap").pivot(index="x", columns="series", values="y")
    least = part(table, "gap", THEORY).pivot(index="x", columns="series", values="y")
    assert len(gap) == 20
    assert (gap.found < 1e-20).all()
    assert (least <= gap[["before", "tangent"]] * (1 + 1e-5)).all(axis=None)
    assert (gap.tangent < 0.1 * gap.before).all()
    tau = float(gap.index[-1])
    before, found = spif_law("saddle", float(figure.COARSE[-2])), spif_law("saddle", tau)
    assert least.before.iloc[-1] == pytest.approx(tau * kl(before, found), rel=1e-3)
    t = (P - before) / (P + before)
    best = REF * np.exp((t + t**2 / 2) / tau)
    assert gap.before.iloc[-1] == pytest.approx(tau * kl(before, best / best.sum()), rel=1e-3)


# -- along beta -----------------------------------------------------------------------------------


def total(beta, mass):
    """Sum of the law, less 1, whose last outcome has this mass and that is stationary else.

    ``beta ((p + q) r - (p - q)) = lambda pi``, r = beta log(pi/q): the last outcome gives lambda,
    each of the others one mass on its convex part.
    """
    weight = (ON_EXPERT + OWN) * beta
    level = (weight[3] * np.log(mass / OWN[3]) - ON_EXPERT[3] + OWN[3]) / mass
    found = []
    for p, q, w in zip(ON_EXPERT[:3], OWN[:3], weight[:3], strict=True):
        excess = lambda x, p=p, q=q, w=w: w * np.log(x / q) - (p - q) - level * x  # noqa: E731
        found.append(brentq(excess, 1e-12, w / level, xtol=1e-15))
    return sum(found) + mass - 1.0


def test_the_lines_along_beta_are_stationary():
    table = drawn("paths")
    for side in figure.SIDES:
        line = part(table, "branches", THEORY, series=side)
        assert len(line) > 15
        for beta, mass in line[["x", "y"]].to_numpy()[::5]:
            assert abs(total(beta, mass)) < 2e-5  # a thousandth of beta is 1e-4


def test_the_folds_are_where_beta_turns():
    folds = part(drawn("paths"), "folds", THEORY)[["x", "y"]].to_numpy()
    for sign, (beta, mass) in zip((1.0, -1.0), folds, strict=True):
        found = minimize_scalar(
            lambda m, s=sign, b=beta: s * brentq(total, 0.99 * b, 1.01 * b, args=(m,), xtol=1e-14),
            bounds=(0.9 * mass, 1.1 * mass), method="bounded", options={"xatol": 1e-9},
        )  # fmt: skip
        assert beta == pytest.approx(sign * found.fun, rel=1e-5)
        assert mass == pytest.approx(found.x, rel=1e-3)
    np.testing.assert_allclose(folds, [[1.33937, 0.0027], [5.30394, 0.0788]], atol=5e-5)


def test_descents_take_the_minimum_that_they_are_next_to():
    table = drawn("paths")
    low, high = part(table, "folds", THEORY).x
    lines = {s: part(table, "branches", THEORY, series=s).set_index("x").y for s in figure.SIDES}
    for series, turn in (("descent", low), ("beta rises", high)):
        for beta, mass in part(table, "branches", series=series)[["x", "y"]].to_numpy():
            line = lines["dumped" if beta < turn else "near"]
            predicted = np.exp(np.interp(np.log(beta), np.log(line.index), np.log(line)))
            assert mass == pytest.approx(predicted, rel=0.02)


def test_the_least_risk_changes_over_between_the_folds():
    table = drawn("paths")
    dumped = part(table, "risk", THEORY, series="dumped")
    over = brentq(lambda beta: np.interp(beta, dumped.x, dumped.y), 2.0, 5.0)
    assert over == pytest.approx(4.14, abs=0.005)
    least = part(table, "risk", series="global")
    assert least.y[least.x > over].abs().max() < 1e-12
    below = least[least.x < over]
    assert len(below) > 5
    np.testing.assert_allclose(below.y, np.interp(below.x, dumped.x, dumped.y), atol=1e-6)
    assert (part(table, "risk", THEORY, series="saddle").y > 0).all()


def test_minimum_and_saddle_part_with_the_root_of_the_distance():
    table = drawn("paths")
    for side in ("near", "dumped"):
        for what, power in (("mass", 0.5), ("risk", 1.5)):
            found = part(table, "beside", series=f"{what}, {side}")
            slope = np.polyfit(np.log(found.x[:5]), np.log(found.y[:5]), 1)[0]
            assert slope == pytest.approx(power, abs=0.01)
            line = part(table, "beside", THEORY, series=f"{what}, {side}")
            np.testing.assert_allclose(found.y[:5], line.y[:5], rtol=0.05)


def test_the_numbers_of_the_readme():
    table = drawn("paths")
    at = part(table, "expert", THEORY)
    at = at[np.isclose(at.x, 0.5477, rtol=1e-3)].set_index(["objective", "series"]).y
    told = {("spif", "saddle"): 0.20, ("spif", "equilibrium"): 0.15, ("spin", "equilibrium"): 0.05}
    assert at.round(2).to_dict() == told
    gap = part(table, "gap").pivot(index="x", columns="series", values="y")
    least = part(table, "gap", THEORY).pivot(index="x", columns="series", values="y")
    ends = gap.agg(["min", "max"]).map(lambda y: float(f"{y:.0e}"))
    assert ends.before.tolist() == [6e-4, 1e-2]
    assert ends.tangent.tolist() == [2e-5, 2e-4]
    assert gap.found.max() < 1e-29
    loose = (gap / least)[["before", "tangent"]]
    assert loose.iloc[0].between(1e3, 1.5e3).all()
    np.testing.assert_allclose(loose.iloc[-1], 1.026, atol=0.002)
    assert kl(P, REF) == pytest.approx(0.63, abs=0.005)

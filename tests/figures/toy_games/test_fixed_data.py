"""What the figure "fixed_data" and README's T16 say is true of the numbers drawn."""

import numpy as np
import pytest

from figures.tidy import MEASURED, THEORY
from figures.toy_games import fixed_data as figure
from tests.figures.tables import drawn, is_drawn, part

P, N, SAMPLES = figure.P, 8, 1000
FLOOR = 7 / 2000


def test_a_small_run_is_drawn(monkeypatch):
    monkeypatch.setattr(figure, "SEEDS", 3)
    monkeypatch.setattr(figure, "STOP_SEEDS", 3)
    monkeypatch.setattr(figure, "OWN", (1,))
    monkeypatch.setattr(figure, "LATE", range(2, 5))
    monkeypatch.setattr(figure, "INNER", {1: (0.5, 4.0), 2: (0.5,)})
    is_drawn(figure, figure.table())


def by_hand(step, own, rounds, seeds, fixed=True):
    """Excess over F of SPIF's rounds from the data's law, in numpy with numbers of its own."""
    rng = np.random.default_rng(7)
    data = rng.multinomial(SAMPLES, P, seeds)
    law = data / SAMPLES if fixed else np.tile(P, (seeds, 1))
    found = []
    for t in range(rounds):
        k = data if fixed else rng.multinomial(SAMPLES, P, seeds)
        q = np.stack([rng.multinomial(SAMPLES * own, of) for of in law]) / own
        reward = (k - q) / (k + q + 1.0)  # tanh(u/2), a half count added to each
        law = law * np.exp(2.0 * step * reward)  # beta = R'(0)/s
        law /= law.sum(-1, keepdims=True)
        if t > rounds // 2:
            base = data / SAMPLES if fixed else P
            found.append((base * np.log(base / law)).sum(-1).mean())
    return np.mean(found) / FLOOR


@pytest.mark.parametrize(("step", "own"), [(0.5, 1), (1.5, 1), (1.0, 4)])
def test_points_against_rounds_by_hand(step, own):
    row = part(drawn("fixed_data"), "own", series=f"s={step:g}")
    row = row[row.x == own].iloc[0]
    assert row.y == pytest.approx(by_hand(step, own, 40, 150), abs=1.5 * (row.high - row.y))


def test_fresh_points_against_rounds_by_hand():
    row = part(drawn("fixed_data"), "factor", series="fresh").iloc[3]
    assert row.x == 0.5
    assert row.y == pytest.approx(by_hand(0.5, 1, 30, 150, fixed=False), abs=0.1)


def test_lines_of_the_floor():
    table = drawn("fixed_data")
    for own in (1, 4):
        line = part(table, "factor", THEORY, series=f"K={own}")
        np.testing.assert_allclose(line.y, 1 + line.x / ((2 - line.x) * own), rtol=1e-4)
        assert line.y.iloc[0] == pytest.approx(1.0, abs=0.05)
    line = part(table, "factor", THEORY, series="fresh")
    np.testing.assert_allclose(line.y, 2 * line.x / (2 - line.x), rtol=1e-4)
    for step in figure.FEW_STEPS:
        line = part(table, "own", THEORY, series=f"s={step:g}")
        np.testing.assert_allclose(line.y, step / ((2 - step) * line.x), rtol=1e-5)


def near(points, predicted, share=0.03):
    """Within twice a 95 % interval's half-width and the next order."""
    off = np.abs(points.y.to_numpy() - predicted)
    assert (off <= 2.0 * (points.high - points.y) + share * predicted).all()


def test_points_lie_on_the_lines_of_the_floor():
    table = drawn("fixed_data")
    for name in figure.BESIDE:
        points = part(table, "factor", objective=name, series="K=1")
        assert len(points) == 8
        points = points[points.x < 1.4]
        near(points, 1 + points.x / (2 - points.x))
    for step in figure.FEW_STEPS:
        points = part(table, "own", series=f"s={step:g}")
        assert points.x.tolist() == [1, 2, 4, 8]
        near(points, step / ((2 - step) * points.x))
    fixed = part(table, "factor")
    fresh = fixed.series == "fresh"
    assert fixed.y[~fresh].min() > 0.98
    assert fixed.y[fresh & (fixed.x < 0.6)].max() < 0.75


def test_stopping_by_hand():
    """A start of D = KL(p||pi_0), the share c of the way to the data, then g = .7^t of it."""
    table = drawn("fixed_data")
    way = np.array([1.0, -1.0] * 4)
    way -= P @ way
    v = 0.3 / 1.7
    for series, size, learned in (("far", 2.0, 0.0), ("trained", 0.3, 1 / 3), ("mle", 0.0, 1.0)):
        law = P * np.exp(way * np.sqrt(2 * size * FLOOR / (P @ way**2)))
        law /= law.sum()
        distance = (P * np.log(P / law)).sum() / FLOOR
        line = part(table, "stop", THEORY, series=series)
        g = 0.7**line.x
        f = (1 - learned) * g
        expected = f**2 * distance + (1 - f) ** 2 + v * (1 - g**2)
        np.testing.assert_allclose(line.y, expected, rtol=1e-5)
        points = part(table, "stop", series=series)
        assert points.x.tolist() == list(range(13))
        near(points, np.interp(points.x, line.x, line.y), 0.05)
        assert line.y.iloc[-1] == pytest.approx(1 + v, rel=0.05)
    far, ring = part(table, "stop", THEORY, series="far"), part(table, "best", THEORY).iloc[0]
    assert ring.y == pytest.approx(far.y.min(), rel=1e-3)
    assert ring.x == pytest.approx(far.x[far.y.idxmin()], abs=0.1)
    assert part(table, "stop", series="far").high.iloc[3] < 1.0
    for series in ("trained", "mle"):
        assert part(table, "stop", THEORY, series=series).y.is_monotonic_increasing


def test_gradient_steps_by_hand():
    """Directions of Fisher's matrix, each with the effective step s (1 - (1 - lambda/s)^k)."""
    table = drawn("fixed_data")
    values = np.linalg.eigh(np.diag(P) - np.outer(P, P))[0][1:]
    for s, most in ((0.5, 16), (1.5, 16), (4.0, 12)):
        line, points = (
            part(table, "inner", k, series=f"s={s:g}").set_index("x").y for k in (THEORY, MEASURED)
        )
        each = s * (1 - (1 - values / s) ** line.index.to_numpy()[:, None])
        np.testing.assert_allclose(line, (each / (2 - each)).mean(-1), rtol=1e-4)
        assert points.index.max() == most
        whole = part(table, "inner", series=f"s={s:g}")
        near(whole, np.interp(whole.x, line.index, line), 0.1)
        if s < 2:
            solved = part(table, "inner", THEORY, series=f"s={s:g}, solved")
            np.testing.assert_allclose(solved.y, s / (2 - s), rtol=1e-5)
            assert line.max() < solved.y.iloc[0]


def test_the_numbers_of_the_readme():
    table = drawn("fixed_data")
    for series, told in (("K=1", [1.07, 2.03, 6.2]), ("fresh", [0.10, 2.1, 10.4])):
        points = part(table, "factor", objective="spif", series=series).set_index("x").y
        np.testing.assert_allclose(
            points[[0.1, 1.0, 1.7]], told, rtol=0.05 if told[0] < 1 else 5e-3
        )
    own = part(table, "own", series="s=1").set_index("x").y
    np.testing.assert_allclose(own[[1, 8]], [1.00, 0.13], atol=5e-3)
    assert part(table, "stop", series="far").y.iloc[3] == pytest.approx(0.82, abs=5e-3)
    ring = part(table, "best", THEORY).iloc[0]
    np.testing.assert_allclose([ring.x, ring.y], [2.9, 0.82], rtol=0.01)
    inner, line = (part(table, "inner", k, series="s=4") for k in (MEASURED, THEORY))
    assert inner.y[inner.x == 8].iloc[0] == pytest.approx(0.87, abs=5e-3)
    assert np.interp(8.0, line.x, line.y) == pytest.approx(0.88, abs=5e-3)

"""The table of the dumping figure: complete, finite, measurement beside theory."""

import dataclasses

import numpy as np

from figures.tidy import MEASURED, THEORY
from figures.toy_games import dumping as figure

SMALL = {
    "objectives": ("spif", "centred_spif"), "text_objectives": ("spif",), "seeds": 3,
    "path_steps": 300, "path_rate": 1.0, "escape_steps": 400, "masses": (0.01, 0.03),
    "counts": (1, 4), "sizes": (6, 12), "samples": (8, 24), "size": 20, "middle": 10,
    "steps": 500, "rounds": 2, "round_steps": 150, "text_steps": 10,
}  # fmt: skip


def test_measurements_lie_on_the_theory_of_a_smaller_run(monkeypatch):
    monkeypatch.setattr(figure, "SETTINGS", dataclasses.replace(figure.SETTINGS, **SMALL))
    table = figure.table()
    assert set(table.panel) == {"path", "time", "mass", "reward", "rounds", "text"}
    assert np.isfinite(table[["x", "y"]].to_numpy()).all()
    assert {"sft", "sppo", "centred_spif", "spif"} <= set(table.objective)
    keys = ["panel", "objective", "series", "x"]
    both = table[table.kind == MEASURED].merge(table[table.kind == THEORY], on=keys)
    time = both[both.panel == "time"]
    assert len(time) == 4
    np.testing.assert_allclose(time.y_x, time.y_y, rtol=0.12)
    mass = both[(both.panel == "mass") & (both.objective == "centred_spif")]
    np.testing.assert_allclose(mass.y_x, mass.y_y, atol=2e-3)
    path = table[(table.panel == "path") & (table.series == figure.UNSEEN) & (table.x == 300)]
    ends = path[path.kind == MEASURED].set_index("objective").y
    theory = table[(table.panel == "path") & (table.objective == "spif")]
    theory = theory[(theory.series == figure.UNSEEN) & (theory.kind == THEORY)].y.max()
    assert abs(ends["spif"] / theory - 1.0) < 0.1
    assert ends["spif"] > 5.0 * ends[["centred_spif", "sppo", "sft"]].max()
    figure.style.plt.close(figure.plot(table))

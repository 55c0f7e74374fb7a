"""What the figure "dumping" shows is true of the numbers that it is drawn from."""

import dataclasses

import numpy as np

from figures.tidy import THEORY
from figures.toy_games import dumping as figure
from tests.figures.tables import drawn, is_drawn, matched, part

SMALL = {
    "objectives": ("spif", "centred_spif"), "text_objectives": ("spif",), "seeds": 3,
    "path_steps": 30, "escape_steps": 40, "masses": (0.01, 0.03), "counts": (1, 4),
    "sizes": (6, 12), "samples": (8, 24), "size": 20, "middle": 10, "steps": 50, "rounds": 2,
    "round_steps": 20, "text_steps": 5,
}  # fmt: skip


def test_a_small_run_is_drawn():
    is_drawn(figure, figure.table(dataclasses.replace(figure.SETTINGS, **SMALL)))


def test_what_is_drawn():
    table = drawn("dumping")
    last = part(table, "path", series=figure.UNSEEN).groupby("objective").y.last()
    line = part(table, "path", THEORY, objective="spif", series=figure.UNSEEN).y.max()
    assert abs(last["spif"] / line - 1.0) < 0.1
    assert last["spif"] > 5.0 * last[["centred_spif", "sppo", "sft"]].max()
    time = matched(table, "time")
    assert time.series.nunique() == 4
    late = time[time.y > 20]  # the leading order is that of little unseen mass
    np.testing.assert_allclose(late.y, late.theory, rtol=0.1)
    mass = matched(table[table.objective.isin(["centred_spif", "ipo"])], "mass")
    assert (mass.low <= mass.theory + 1e-9).all()
    assert (mass.theory <= mass.high + 1e-9).all()
    rewards = part(table, "reward", objective="spif").y.to_numpy()
    assert np.all(np.diff(rewards) > 0)
    assert rewards[-1] > 1.0, "SPIF's bound on rewards"
    expert = part(table, "rounds", THEORY).y.iloc[0]
    spif = part(table, "rounds", objective="spif").y.to_numpy()
    assert spif[1] > 2.0 * expert
    assert spif[-1] < expert
    text = part(table, "text", series="neural").set_index("objective").y
    assert text["spif"] > text["start"] > text["sft"]

"""The captions of the two figures of recorded runs are true of what is drawn."""

import json

import numpy as np
import pytest

from figures.llm_scale import llm_link as llm_link_figure
from figures.llm_scale import llm_stability as llm_stability_figure
from figures.recorded import llm_tiny
from figures.tidy import MEASURED, THEORY
from tests.figures.test_figures_tables import tidy


def drawn(table, panel, kind=MEASURED, **where):
    chosen = table[(table.panel == panel) & (table.kind == kind)]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    return chosen.sort_values("x")


def test_llm_link():
    table = tidy(llm_link_figure)
    for name in llm_link_figure.PLAYED:
        for panel in ("slope", "correlation"):
            y = drawn(table, panel, objective=name).y.to_numpy()
            assert np.all(np.diff(np.abs(y - 1.0)) < 0.0)
        learned, link = (
            drawn(table, "points", kind, objective=name) for kind in (MEASURED, THEORY)
        )
        assert np.array_equal(learned.x, link.x)
        assert np.corrcoef(learned.y, link.y)[0, 1] > 0.75
        kl = drawn(table, "kl", objective=name).y.to_numpy()
        sft = drawn(table, "kl", objective="sft", series="after the round").y.to_numpy()
        assert np.all(sft < kl)
    slopes = [drawn(table, "slope", objective=n).y.max() for n in llm_link_figure.PLAYED]
    assert min(slopes) == slopes[0]


def test_llm_stability():
    table = tidy(llm_stability_figure)
    after = {
        n: drawn(table, "rounds", objective=n, x=1.0).y.item() for n in ("spin", "ipo", "spif")
    }
    assert after["spin"] > after["ipo"] > after["spif"]
    assert drawn(table, "bound", objective="spif").y.max() < 2.0 * llm_stability_figure.ETA
    exact, slope, noise, trained = drawn(table, "parts", objective="ipo").y
    assert slope < exact < noise
    assert abs(np.log(noise / trained)) < abs(np.log(exact / trained)) / 2
    levels = drawn(table, "level").y.to_numpy()
    assert np.all(np.diff(levels) < 0.0)
    for panel, name in (("near", "equal data"), ("near", "equal compute")):
        for x in (1.0, 2.0):
            sft = drawn(table, panel, objective="sft", series=name, x=x).y.item()
            assert sft < drawn(table, panel, x=x)[lambda t: t.objective != "sft"].y.min()


def test_a_table_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="make llm-tiny"):
        llm_tiny(tmp_path / "llm_tiny.json")
    (tmp_path / "llm_tiny.json").write_text(json.dumps({"rows": [{"objective": "spif(c=1)"}]}))
    assert llm_tiny(tmp_path / "llm_tiny.json").name.tolist() == ["spif"]

"""The experiment that audits estimators: its table, a sweep that goes on, settings refused."""

import numpy as np
import pytest

from theory.errors import InvalidInput
from toy_games import launch
from toy_games.experiments.audit import Settings


def test_the_table_and_its_intervals():
    few = Settings(cases=("text",), instance=3, size=2, sizes=(2, 4), seeds=6, samples=300)
    table = launch.run("audit", few, progress=False)
    assert table.groupby(["case", "family", "name", "size"]).seed.nunique().eq(6).all()
    again = launch.run("audit", few, progress=False)
    assert again.equals(table)
    exact = table[table.exact & table.unexplained.notna()]
    assert exact.unexplained.max() < 1e-9
    means = table.groupby(["case", "family", "name", "size"]).agg(
        mean=("measured", "mean"), bias=("relative_bias", "first"), error=("error", "first")
    )
    score = (means["mean"] - means.bias) / (means.error / np.sqrt(6))
    assert (score.abs() > 1.96).mean() < 0.15
    assert score.abs().max() < 5.0


def test_an_interrupted_sweep_goes_on(tmp_path):
    few = Settings(cases=("text",), size=2, sizes=(2,), seeds=3, samples=10)
    whole = launch.run("audit", few, folder=tmp_path, progress=False)
    next((tmp_path / "parts").glob("sizes-*")).unlink()
    assert launch.run("audit", few, folder=tmp_path, progress=False).equals(whole)


def test_bad_settings_are_refused_together():
    with pytest.raises(InvalidInput) as refused:
        Settings(cases=("random", "poem"), sizes=(1, 4), beta=0.0, seeds=2)
    text = str(refused.value)
    for part in ("poem", "sizes=1;", "beta=0.0", "seeds=2"):
        assert part in text
    with pytest.raises(InvalidInput, match="once"):
        Settings(cases=("text", "text"))

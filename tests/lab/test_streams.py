"""Random numbers: a function of seed, name and step, uniform, and drawn from the law."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lab.streams import Streams, draw, frequencies, generator, uniform


@given(
    seeds=st.lists(st.integers(0, 50), min_size=1, max_size=5),
    step=st.integers(0, 500),
    size=st.integers(1, 40),
)
def test_a_row_draws_the_same_alone_as_in_any_batch(seeds, step, size):
    together = Streams(seeds).uniform("own", step, (2, size))
    for row, seed in enumerate(seeds):
        alone = Streams([seed])
        alone.uniform("own", step + 1, (2, size))  # another order of calls
        assert torch.equal(alone.uniform("own", step, (2, size))[0], together[row])


def test_names_steps_and_seeds_are_independent():
    streams = Streams([0, 1])
    drawn = [streams.uniform(name, t, (400,)) for name in ("own", "expert") for t in (0, 1, 64, 65)]
    numbers = torch.cat(drawn).numpy()
    assert len(np.unique(numbers)) == numbers.size
    off_diagonal = np.corrcoef(numbers) - np.eye(len(numbers))
    assert np.abs(off_diagonal).max() < 4.5 / np.sqrt(400)
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3


def test_generators_before_the_first_step_differ_from_the_draws_of_steps():
    streams = Streams([3, 3, 4])
    first = [streams.generator(row, "start").random(5) for row in range(3)]
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.isin(first[0], first[2]).any()
    assert not np.isin(first[0], streams.uniform("start", 0, (500,)).numpy()).any()


def test_draws_follow_the_law_and_never_leave_its_support():
    law = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0], dtype=torch.float64)
    uniform = Streams([5]).uniform("own", 0, (20_000,))
    index = draw(law.expand(1, 6), uniform)
    counts = np.bincount(index.numpy().ravel(), minlength=6)
    assert (counts[[0, 2, 5]] == 0).all()
    assert stats.chisquare(counts[[1, 3, 4]], 20_000 * law.numpy()[[1, 3, 4]]).pvalue > 1e-3
    np.testing.assert_allclose(frequencies(law.expand(1, 6), uniform)[0], counts / 20_000)


@pytest.mark.parametrize("law", [[1.0, 0.0], [0.0, 1.0], [0.1] * 10, [1 / 3] * 3])
def test_the_ends_of_the_unit_interval(law):
    law = torch.tensor(law, dtype=torch.float64)
    ends = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    low, high = draw(law, ends).tolist()
    positive = np.flatnonzero(law.numpy())
    assert (low, high) == (positive[0], positive[-1])


def test_numbers_are_those_that_recorded_runs_have_drawn():
    assert uniform(2, 7, "own", 1, 2).tolist() == [0.9443681650962011, 0.6716965732844383]
    assert generator(7, "order", 1).integers(1000, size=3).tolist() == [528, 553, 42]
    streams = Streams([7])
    assert streams.uniform("own", 130, (2,))[0].tolist() == [0.6389921359249425, 0.9233403335659051]
    assert streams.generator(0, "start").random() == 0.04378940481913862

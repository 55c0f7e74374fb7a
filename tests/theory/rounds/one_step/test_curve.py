"""The bordered diagonal that a step along the curve solves, against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import laws, one_step_path
from theory.rounds.one_step import one_step_round
from theory.rounds.one_step_curve import Bordered


def bordered(seed: int, n: int, k: int, least: float) -> tuple[Bordered, np.ndarray]:
    """A random one whose first entry on the diagonal is the least, and the same written out."""
    rng = np.random.default_rng(seed)
    diagonal = rng.choice([-1.0, 1.0], n) * rng.uniform(0.5, 1.0, n)
    diagonal[0] = least
    columns, rows = rng.normal(size=(n, k)), rng.normal(size=(k, n + k))
    dense = np.vstack([np.column_stack([np.diag(diagonal), columns]), rows])
    return Bordered(diagonal, columns, rows), dense


@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([1, 2]),
       st.sampled_from([0.0, 1e-200, -1e-9, 0.3]))  # fmt: skip
def test_a_bordered_diagonal_is_the_matrix_written_out(seed, n, k, least):
    ours, dense = bordered(seed, n, k, least)
    value = np.random.default_rng(seed).normal(size=n + k)
    allowed = 1e-13 * np.linalg.cond(dense)
    np.testing.assert_allclose(ours @ value, dense @ value, atol=1e-13)
    np.testing.assert_allclose(ours.transposed() @ value, dense.T @ value, atol=1e-13)
    exact = np.linalg.solve(dense, value)
    assert np.abs(ours.solve(value) - exact).max() <= allowed * (1.0 + np.abs(exact).max())
    assert ours.sign() == np.linalg.slogdet(dense)[0]


@pytest.mark.parametrize("seed", range(5))
def test_its_condition_is_that_of_the_singular_values(seed):
    ours, dense = bordered(seed, 8, 1, 0.0)
    values = np.linalg.svd(dense, compute_uv=False)
    assert ours.condition() == pytest.approx(values[-1] / values[0], rel=0.02)


def test_a_path_of_many_outcomes():
    rng = np.random.default_rng(0)
    p, q = laws.random_law(rng, (20_000,), 1.0), laws.random_law(rng, (20_000,), 1.0)
    path = one_step_path(p, q, "spif", [4.0, 3.0])
    assert path.converged
    there = one_step_round(p, q, "spif", 3.0).policy
    np.testing.assert_allclose(path.policies[-1], there, rtol=1e-9)

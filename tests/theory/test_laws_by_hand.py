"""Laws where a formula changes its form: values worked by hand."""

import numpy as np
import pytest

from theory import laws


def test_a_truth_value_and_a_text_are_no_number():
    assert laws.is_real(0.5)
    assert laws.is_real(np.float32(0.5))
    assert not laws.is_real(True)
    assert not laws.is_real("1")


def test_the_logarithm_of_a_quotient_far_below_1():
    """There 1 + (q - p)/p is 0 to rounding."""
    assert laws.log_quotient(np.array(1e-20), np.array(1.0)) == pytest.approx(-20 * np.log(10.0))


def test_random_laws_of_extreme_logits_and_by_default():
    rng = np.random.default_rng(0)
    drawn = laws.random_law(rng, (2, 40, 3), spread=1e3)  # most rows are far below the largest
    np.testing.assert_allclose(drawn.sum(-1), 1.0, rtol=1e-12)
    assert 0.9 < np.log(laws.random_law(rng, (20, 500))).std(-1).mean() < 1.1

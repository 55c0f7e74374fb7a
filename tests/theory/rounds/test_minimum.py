"""Least points of smooth risks, against what is known by hand."""

import numpy as np
import pytest

from theory.errors import NotConverged
from theory.rounds.minimum import minimum


def test_newton_ends_at_the_least_point_and_stays_in_flat_directions():
    """``(x - 1)^2 + 3 (y - x)^4 + (y - x)^2``, and a third parameter that nothing depends on."""

    def risk(t):
        return (t[0] - 1.0) ** 2 + 3.0 * (t[1] - t[0]) ** 4 + (t[1] - t[0]) ** 2

    found = minimum(risk, np.array([-2.0, 3.0, 0.7]), 1e-10, "it")
    np.testing.assert_allclose(found, [1.0, 1.0, 0.7], atol=1e-9)


def test_a_direction_that_is_flat_but_for_rounding_is_not_followed():
    """Its own least point is 5 away, of which a curvature of 1e-11 tells nothing."""
    found = minimum(
        lambda t: (t[0] - 1.0) ** 2 + 1e-11 * (t[1] - 5.0) ** 2, np.zeros(2), 1e-9, "it"
    )
    np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-9)


def test_where_newton_climbs_bfgs_goes_before_it():
    """``log(1 + x^2)`` curves downwards beyond 1, so that Newton's step leads away from 0."""
    found = minimum(lambda t: (1.0 + t.square()).log().sum(), np.array([3.0, 0.2]), 1e-10, "it")
    np.testing.assert_allclose(found, 0.0, atol=1e-9)


def test_a_risk_without_a_least_point_is_not_converged():
    with pytest.raises(NotConverged, match=r"^the fall stopped at gradient 1\.0e\+00$") as caught:
        minimum(lambda t: -t.sum(), np.zeros(2), 1e-10, "the fall")
    assert caught.value.solution.shape == (2,)

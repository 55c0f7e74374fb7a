"""The bounds as functions: by hand, of several games at once, and calls that they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from theory.errors import InvalidInput
from theory.rounds.inexact import error_spread, last_iterate_bound, mean_bound


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: last_iterate_bound(1.0, [0.1], beta=1.0), r"needed is mu \+ tau > 0"),
        (lambda: last_iterate_bound(1.0, [0.1], beta=0.5, mu=1.0), "at least L"),
        (lambda: last_iterate_bound(-1.0, [0.1], beta=0.0, mu=1.0), "(?s)beta=0.0.*first_kl=-1.0"),
        (lambda: last_iterate_bound(1.0, 0.1, beta=1.0, mu=1.0), "one a round"),
        (lambda: last_iterate_bound([1.0, 2.0], np.ones((4, 3)), 1.0, 1.0), "do not fit"),
        (lambda: mean_bound(1.0, [np.nan], beta=1.0), "ranges=.*finite"),
        (lambda: mean_bound(1.0, "wide", beta=1.0), "ranges: not an array of numbers"),
        (lambda: mean_bound(1.0, [2.0], beta=True), "beta=True"),
        (lambda: error_spread(1.0, 1.0, 2.0), "step=2.0"),
        (lambda: error_spread(1.0, 1.0, 0.5, -1.0), "correlation=-1.0"),
        (lambda: error_spread(-1.0, 0.0, 0.5), "(?s)beta=0.0.*sd=-1.0"),
    ],
)
def test_what_cannot_be_used_is_refused(call: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        call()


def test_bounds_of_several_games_are_those_of_each() -> None:
    sizes = np.array([[0.1, 0.4], [0.3, 0.0], [0.2, 0.2]])
    both = last_iterate_bound([1.0, 0.5], sizes, 2.0, 1.0, 0.1)
    means = mean_bound([1.0, 0.5], sizes, 2.0)
    for i, kl in enumerate((1.0, 0.5)):
        assert np.allclose(both[:, i], last_iterate_bound(kl, sizes[:, i], 2.0, 1.0, 0.1))
        assert np.allclose(means[:, i], mean_bound(kl, sizes[:, i], 2.0))


def test_bounds_by_hand() -> None:
    """beta 3, mu 1, tau 1: rho = 1/2 and eps^2/32; G^2/(8 beta) beside KL/T; a gain of sqrt."""
    path = last_iterate_bound(2.0, [0.8, 0.0, 1.6], 3.0, 1.0, 1.0)
    np.testing.assert_allclose(path, [2.0, 1.01, 0.505, 0.2925])
    np.testing.assert_allclose(last_iterate_bound(2.0, [0.8], 1.0, 0.0, 1.0), [2.0, 1.04])
    np.testing.assert_allclose(mean_bound(0.6, [2.0, 4.0], 0.5), [1.3, 2.65])
    np.testing.assert_allclose(error_spread([3.0, 0.0], 2.0, 0.4), [1.5 / 0.8, 0.0])
    np.testing.assert_allclose(error_spread(3.0, 2.0, 0.4, 0.5), 1.5 * np.sqrt(1.3 / 0.7) / 0.8)
    np.testing.assert_allclose(error_spread(1.0, 1.0, 1.6, 1.0), 1 / 1.6)
    for step in (1e-9, 1e-17):  # 1 - (1 - step)^2 would cancel
        np.testing.assert_allclose(error_spread(0.3, 1.0, step, 1.0), 0.3 / step, rtol=1e-14)
        fresh = 0.3 / np.sqrt(2 * step)
        np.testing.assert_allclose(error_spread(0.3, 1.0, step), fresh, rtol=1e-8)
    assert last_iterate_bound(1.0, np.zeros((0, 2)), 1.0, 1.0).shape == (1, 2)

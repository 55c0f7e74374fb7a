"""Derivatives, inverses and ranges of formulas whose answers are known in closed form."""

import math

import mpmath
import numpy as np
import pytest
import torch

from theory import xp
from theory.errors import InvalidInput
from theory.objectives import derivatives

INF = np.inf


def close(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


def test_derivatives_of_any_order():
    close(derivatives.derivative(lambda r: r**3, [1.0, -2.0]), [3.0, 12.0])
    close(derivatives.derivative(lambda r: r**3, [1.0, -2.0], 2), [6.0, -12.0])
    close(derivatives.derivative(lambda r: r**3, 5.0, 3), 6.0)
    close(derivatives.derivative(lambda r: 0.0 * r.detach() + 2.0, [1.0, 2.0]), [0.0, 0.0])


def test_an_inverse_stays_within_its_domain():
    def odds(r):
        return np.where((r > -1.0) & (r < 3.0), 2.0 * r, np.nan)

    target = np.array([1.0, -1.9, 5.99, 100.0, -100.0, -INF])
    found = derivatives.invert(odds, target, np.array(0.5))
    close(found, [0.5, -0.95, 2.995, 3.0, -1.0, -1.0])
    close(derivatives.invert(lambda r: r, np.array([1e200, -1e-4]), np.array(0.0)), [1e200, -1e-4])


@pytest.mark.parametrize(
    ("odds", "inverse", "most"),
    [
        (lambda r: 2.0 * np.arctanh(r), lambda u: np.tanh(u / 2), 18),
        (lambda r: r, lambda u: u, 13),
        (lambda r: r**3, np.cbrt, 15),
    ],
    ids=["bounded", "linear", "flat at 0"],
)
def test_an_inverse_takes_few_evaluations(odds, inverse, most):
    """Bisection to the last digit takes 70."""
    asked = []

    def counted(r):
        asked.append(r)
        with np.errstate(invalid="ignore", divide="ignore"):
            return odds(r)

    u = np.linspace(-6.0, 6.0, 13)
    np.testing.assert_allclose(
        derivatives.invert(counted, u, np.array(0.0)), inverse(u), rtol=1e-14, atol=1e-16
    )
    assert len(asked) <= most, len(asked)


def test_links_of_squared_penalties():
    """(1 + r)/(1 - r) = e^u on both sides: tanh(u/2); 1/(1 - 2r) = e^u on one: (1 - e^-u)/2."""
    both = lambda r: r - r**2 / 2, lambda r: -r - r**2 / 2
    one = lambda r: r - r**2, lambda r: -r
    u = np.array([-3.0, 0.0, 0.7, 5.0])
    close(derivatives.invert_link(*both, u), np.tanh(u / 2))
    close(derivatives.invert_link(*one, u), (1 - np.exp(-u)) / 2)
    ends = np.array([-INF, INF])
    close(derivatives.invert_link(*both, ends), [-1.0, 1.0])
    found = derivatives.invert_link(*one, ends)
    assert found[0] == -INF
    close(found[1], 0.5)
    close(derivatives.implicit_slope(*both, np.array([0.0, 0.5])), [0.5, 0.375])
    close(derivatives.implicit_slope(*one, np.array([0.0, -1.0])), [0.5, 1.5])
    point = torch.tensor([0.4, INF], dtype=torch.float64, requires_grad=True)
    value = derivatives.invert_link(*both, point)
    (slope,) = torch.autograd.grad(value[0], point)
    close(value[0].item(), np.tanh(0.2))
    close(slope[0].item(), (1 - np.tanh(0.2) ** 2) / 2)
    with pytest.raises(InvalidInput, match="no reward was found"):
        derivatives.invert_link(lambda r: -r, lambda r: -r, u)


def test_a_link_whose_interior_is_off_zero():
    """a = log r, b = -r: defined at r > 0 only, R = e^u."""
    u = np.array([-2.0, 0.0, 3.0])
    found = derivatives.invert_link(lambda r: r.log() if hasattr(r, "log") else np.log(r),
                                    lambda r: -r, u)  # fmt: skip
    close(found, np.exp(u))


def test_log_odds_only_where_both_sides_pull():
    """a = r - r^2/2 stops rising at 1; a = r + 0 log(3 - r) has a slope, but no value, beyond 3."""
    found = derivatives.log_odds(lambda r: r - r**2 / 2, lambda r: -r, np.array([0.5, 1.0, 2.0]))
    np.testing.assert_allclose(found, [np.log(2.0), np.nan, np.nan])
    found = derivatives.log_odds(lambda r: r + 0.0 * xp.log(3.0 - r), lambda r: -r,
                                 np.array([1.0, 4.0]))  # fmt: skip
    np.testing.assert_allclose(found, [0.0, np.nan])
    found = derivatives.log_odds(lambda r: r, lambda r: r**2, np.array([-0.5, 0.5]))
    np.testing.assert_allclose(found, [0.0, np.nan])


def test_an_interval_far_out_does_not_disturb_the_one_at_zero():
    """-b' = e^r within (-1, 1) and 1e-3 beyond 3, where a reward would cost next to nothing."""

    def b(r):
        inner = xp.where(r < 1.0, -xp.exp(r), xp.where(r < 3.0, r, -1e-3 * r))
        return xp.where(r < -1.0, r, inner)

    close(derivatives.invert_link(lambda r: r, b, np.array([-INF, -0.5])), [-1.0, -0.5])


def test_potentials_by_quadrature():
    """Of R = u: ``int_0^u v e^-v dv = 1 - (1 + u) e^-u``."""
    u = np.array([-2.0, 0.0, 0.5, 30.0, INF])
    expected = 1 - (1 + np.minimum(u, 1e3)) * np.exp(-np.minimum(u, 1e3))
    close(derivatives.potential_density(lambda v: v, u), expected)
    steep = derivatives.potential_density(np.exp, np.array([2.0, INF]))
    close(steep[0], 2.0)
    assert steep[1] == INF


# rewards, the same in mpmath's functions, and where they have a corner or jump
LINKS = {
    "smooth": (lambda v: np.tanh(v / 2), lambda v: mpmath.tanh(v / 2), []),
    "corners": (
        lambda v: np.clip(np.tanh(v / 2), -0.2, 0.6),
        lambda v: min(max(mpmath.tanh(v / 2), mpmath.mpf(-0.2)), mpmath.mpf(0.6)),
        [-2 * math.atanh(0.2), 2 * math.atanh(0.6)],
    ),
    "jumps": (
        lambda v: v + 2.0 * (v > 0.37) - 3.0 * (v < -3.1),
        lambda v: v + 2 * int(v > 0.37) - 3 * int(v < -3.1),
        [-3.1, 0.37],
    ),
    "far corners": (
        lambda v: 0.1 * v + 5 * np.maximum(v - 8.3, 0) - 3 * np.maximum(-650.1 - v, 0),
        lambda v: 0.1 * v + 5 * max(v - 8.3, 0) - 3 * max(-650.1 - v, 0),
        [-650.1, 8.3],
    ),
    "jump at 0": (lambda v: 0.5 * v + 0.1 * np.sign(v), lambda v: v / 2 + 0.1 * mpmath.sign(v), []),
    "jump by 0": (lambda v: v + (v > 5e-4), lambda v: v + int(v > 5e-4), [5e-4]),
    "stairs": (np.floor, mpmath.floor, [float(k) for k in range(-700, 700) if abs(k) < 40]),
}
AT = np.array(
    [-700.0, -655.0, -20.0, -3.1, -1.0, -1e-3, 0.0, 1e-8, 1e-3, 0.5, 1.0, 9.0, 100.0, INF]
)


@pytest.mark.parametrize("name", LINKS)
def test_potentials_of_links_with_corners_and_jumps(name):
    """Against mpmath between corners, each log-ratio alone and all at once."""
    link, exactly, corners = LINKS[name]
    at = AT[2:] if name == "stairs" else AT  # whose hundreds of steps mpmath takes long over
    expected = []
    for u in np.minimum(at, 700.0):
        least, most = min(u, 0.0), max(u, 0.0)
        ends = [c for c in [*corners, *range(-690, 0, 15), 5, 20, 80, 300] if least < c < most]
        ends = sorted({0.0, float(u), *map(float, ends)}, key=abs)
        parts = mpmath.quad(lambda v: exactly(v) * mpmath.exp(-v), ends) if u else 0.0
        expected.append(float(parts))
    close(derivatives.potential_density(link, at), expected, 1e-12)
    alone = [float(derivatives.potential_density(link, u)) for u in at]
    close(alone, expected, 1e-12)


def test_a_potential_asks_no_more_of_a_link_than_it_needs():
    """Smooth: 48 rewards an interval. Each corner: some levels of one interval, however many."""
    asked = []

    def counted(v):
        asked.append(np.size(v))
        return np.tanh(v / 2)

    u = np.random.default_rng(0).normal(0.0, 5.0, 3000)
    derivatives.potential_density(counted, u)
    assert sum(asked) <= 50 * len(u)
    asked.clear()
    derivatives.potential_density(lambda v: np.clip(counted(v), -0.2, 0.6), u)
    assert sum(asked) <= 55 * len(u)


@pytest.mark.parametrize("size", [3, 3000])
def test_a_potential_of_a_noisy_link_comes_to_an_end(size):
    """As of one solved to 1e-6 only: no interval of it agrees with its halves."""
    asked = []

    def noisy(v):
        asked.append(np.size(v))
        return np.tanh(v / 2) * (1.0 + 1e-6 * np.sin(1e9 * v))

    u = np.random.default_rng(0).normal(0.0, 3.0, size)
    found = derivatives.potential_density(noisy, u)
    close(found, derivatives.potential_density(lambda v: np.tanh(v / 2), u), 1e-5)
    assert sum(asked) <= 4e6


def test_potentials_of_laws_keep_their_shape():
    u = np.array([[1.0, -2.0], [0.0, np.nan]])
    found = derivatives.potential_density(lambda v: 1.0 + 0.0 * v, u)
    close(found, 1.0 - np.exp(-u))
    assert derivatives.potential_density(lambda v: v, np.zeros((2, 0))).shape == (2, 0)
    infinite = derivatives.potential_density(lambda v: np.where(v > 2.0, INF, v), np.array([1, 3]))
    close(infinite, [1.0 - 2.0 / math.e, INF])


def test_ranges_of_slopes():
    close(derivatives.slope_range(lambda u: 3.0 * u), (3.0, 3.0))
    close(derivatives.slope_range(lambda u: (u / 2).tanh()), (0.0, 0.5), 1e-6)
    close(derivatives.slope_range(lambda u: -2 * (u - 0.3123).tanh()), (-2.0, 0.0), 1e-11)
    bump = 5.5 * np.sqrt(np.pi) / 2  # slope e^{-((u - 540)/5.5)^2}, between the last grid points
    close(derivatives.slope_range(lambda u: bump * ((u - 540.0) / 5.5).erf()), (0.0, 1.0), 1e-6)
    low, high = derivatives.slope_range(lambda u: -(-u).expm1() / 2)
    assert low == pytest.approx(0.0, abs=1e-9)
    assert high == INF
    low, high = derivatives.slope_range(lambda u: u + (1 + u**2).sqrt())  # 0 to 2, slowly
    np.testing.assert_allclose((low, high), (0.0, 2.0), atol=1e-4)
    assert np.isnan(derivatives.slope_range(lambda u: u * np.nan)).all()


def test_where_values_go_that_are_found_nearer_and_nearer():
    assert derivatives.end_of([1.0, 2.0, 4.0, 8.0], 1.5) == math.inf
    assert derivatives.end_of([8.0, 4.0, 2.0, 1.0], 1.5) == 0.0
    assert derivatives.end_of([9.0, 1.0, 1.5, 1.7, 1.7], 1.5) == 1.7
    assert derivatives.end_of([1.0, 2.0, 4.0], 1.5) == 4.0  # too few to tell


@pytest.mark.parametrize(
    ("values", "end"),
    [
        ([1.0, 2.0, 4.0, 8.0], INF),
        ([8.0, 4.0, 2.0, 1.0], 0.0),
        ([1.0, 2.0, 4.0, 5.0], 5.0),
        ([7.0, 1.0, 2.0, 4.0, 8.0], INF),
        ([1.0, 2.0, 4.0], 4.0),  # three values are too few to say
        ([4.0, 2.0, 1.0], 1.0),
    ],
)
def test_where_values_go_takes_three_steps_of_one_kind(values, end):
    assert derivatives.end_of(values, 2.0) == end


def test_the_slope_of_a_link_far_away_has_a_small_limit():
    """u/1000 + arcsinh u: slopes fall from 1.001 to .001 on both sides."""

    def link(u):
        return 1e-3 * u + xp.asinh(u)

    low, high = derivatives.slope_range(link)
    assert low == pytest.approx(1e-3, rel=0.02)  # extrapolated: d/u and not yet its square
    assert high == pytest.approx(1.001, rel=1e-6)


def test_the_limits_of_slopes_on_both_sides():
    """2u - log cosh u beside a tail in 1/u: from 3 on the left to 1 on the right."""

    def link(u):
        return 2.0 * u - (xp.softplus(2.0 * u) - u) + 0.1 * xp.asinh(u)

    low, high = derivatives.slope_range(link)
    assert low == pytest.approx(1.0, rel=1e-4)
    assert high == pytest.approx(3.0, rel=0.02)


def test_a_formula_that_takes_no_tensors_says_why():
    with pytest.raises(InvalidInput, match=r"RuntimeError: .*numpy"):
        derivatives.derivative(lambda x: np.add(x, x), 1.0)
    with pytest.raises(InvalidInput, match=r"it returns float"):
        derivatives.derivative(lambda x: 2.0, 1.0)


def test_a_slope_that_rounding_hides_is_not_called_0():
    """R = e^u: its curvature underflows to 0 at 500 nats. Linear payoffs, which jump, have none."""
    u = torch.tensor([-2.0, 1.0, 500.0], dtype=torch.float64, requires_grad=True)
    found = derivatives.invert_link(torch.log, lambda r: -r, u, (0.5, np.inf))
    (slope,) = torch.autograd.grad(found.sum(), u)
    close(slope[:2].numpy(), [0.0, np.e])
    assert slope[2].isnan()

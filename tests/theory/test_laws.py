"""Laws: what is refused, and divergences against their definitions, on random and on edge laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.strategies import Instance, games
from theory import InvalidInput, laws

DEEP = np.random.default_rng(0).dirichlet(np.ones(4), (2, 2, 3))
PADDED = np.array([[0.5, 0.5, 0.0, 0.0], [0.2, 0.0, 0.8, 0.0]])
OTHER = np.array([[0.25, 0.75, 0.0, 0.0], [0.2, 0.3, 0.5, 0.0]])


def each(p: np.ndarray, q: np.ndarray, term) -> np.ndarray:
    """Sum of a term over outcomes, in Python's own arithmetic."""
    rows = zip(p.reshape(-1, p.shape[-1]), q.reshape(-1, p.shape[-1]), strict=True)
    sums = [math.fsum(term(a, b) for a, b in zip(*row, strict=True)) for row in rows]
    return np.array(sums).reshape(p.shape[:-1])


def kl_term(a: float, b: float) -> float:
    return 0.0 if a == 0 else (math.inf if b == 0 else a * math.log(a / b))


DEFINITIONS = {
    laws.kl: kl_term,
    laws.kl_stable: kl_term,
    laws.total_variation: lambda a, b: 0.5 * abs(a - b),
    laws.triangular: lambda a, b: (a - b) ** 2 / (a + b) if a + b else 0.0,
    laws.pearson: lambda a, b: (0.0 if a == 0 else math.inf) if b == 0 else (a - b) ** 2 / b,
    laws.js: lambda a, b: 0.5 * (kl_term(a, (a + b) / 2) + kl_term(b, (a + b) / 2)),
}


@pytest.mark.parametrize("divergence", DEFINITIONS, ids=lambda f: f.__name__)
@given(game=games())
def test_divergences_are_their_definitions(divergence, game: Instance) -> None:
    pairs = [(game.expert, game.start), (PADDED, OTHER), (OTHER, PADDED), (PADDED, PADDED)]
    for p, q in [*pairs, (PADDED[0], OTHER[0]), (DEEP[0], DEEP[1])]:
        expected = each(p, q, DEFINITIONS[divergence])
        np.testing.assert_allclose(divergence(p, q), expected, rtol=1e-12, atol=1e-15)
        assert divergence(p, q).shape == p.shape[:-1]


@given(game=games())
def test_order_between_divergences(game: Instance) -> None:
    """Pinsker, Jensen-Shannon and the triangular discrimination in their known order."""
    p, q = game.expert, game.start
    tv, delta = laws.total_variation(p, q), laws.triangular(p, q)
    assert (tv**2 <= 0.5 * laws.kl(p, q) + 1e-15).all()
    assert (2 * tv**2 <= delta + 1e-15).all()
    assert (delta <= 2 * tv + 1e-15).all()
    assert (0.25 * delta <= laws.js(p, q) + 1e-15).all()
    assert (laws.js(p, q) <= math.log(2) * tv + 1e-15).all()
    assert (laws.kl(p, q) <= np.log1p(laws.pearson(p, q)) + 1e-12).all()


@given(game=games(), power=st.floats(-12, -3))
def test_kl_of_nearby_laws_keeps_its_digits(game: Instance, power: float) -> None:
    """To 1e-16/|u| relatively, where sum p log p/q has lost everything."""
    p, size = game.expert, 10.0**power
    q = p * np.exp(size * game.rng.uniform(-1, 1, p.shape))
    q = q / q.sum(-1, keepdims=True)
    change = (q - p) / p
    exact = (p * (change**2 / 2 - change**3 / 3 + change**4 / 4)).sum(-1)
    error = np.abs(laws.kl_stable(p, q) - exact)
    top = np.abs(change).max(-1)
    assert (error <= 1e-15 * top + 1e-9 * exact).all()
    tilt = size * game.rng.uniform(-1, 1, p.shape)
    q = p * np.exp(-tilt)  # laws up to normalisation: sum p (e^-u - 1 + u)
    exact = (p * (tilt**2 / 2 - tilt**3 / 6 + tilt**4 / 24)).sum(-1)
    error = np.abs(laws.kl_of_logratio(p, tilt, q) - exact)
    assert (error <= 1e-15 * size + 1e-9 * exact).all()


@given(game=games(max_spread=8.0))
def test_kl_of_logratio_far_away(game: Instance) -> None:
    p, q = game.expert, game.start
    u = np.log(p / q)
    np.testing.assert_allclose(laws.kl_of_logratio(p, u, q), laws.kl(p, q), rtol=1e-9, atol=1e-14)


def test_kl_of_logratio_at_the_edge() -> None:
    p, q = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    assert laws.kl_of_logratio(p, np.array([800.0, 0.0, 0.0]), q) == pytest.approx(800.0)
    half = np.array([0.5, 0.5, 0.0])
    u = laws.log_ratio(p, half)
    assert laws.kl_of_logratio(p, u, half) == pytest.approx(math.log(2))


def test_log_ratio_on_every_kind_of_support() -> None:
    p, q = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.25, 0.0, 0.75, 0.0])
    np.testing.assert_array_equal(laws.log_ratio(p, q), [math.log(2), np.inf, -np.inf, 0.0])
    np.testing.assert_array_equal(laws.log_law(p), [math.log(0.5), math.log(0.5), -np.inf, -np.inf])


def test_expect_ignores_what_has_no_mass() -> None:
    value = np.array([1.0, np.inf, np.nan])
    assert laws.expect(np.array([1.0, 0.0, 0.0]), value) == 1.0
    assert laws.expect(np.array([0.5, 0.5, 0.0]), value) == np.inf


@given(game=games())
def test_entropy_and_random_laws(game: Instance) -> None:
    p = game.expert
    n = p.shape[-1]
    uniform = np.full(p.shape, 1 / n)
    np.testing.assert_allclose(laws.entropy(p), math.log(n) - laws.kl(p, uniform), atol=1e-12)
    assert laws.entropy(np.array([1.0, 0.0])) == 0.0
    drawn = laws.random_law(game.rng, (3, 1000), spread=2.0)
    np.testing.assert_allclose(drawn.sum(-1), 1.0, atol=1e-12)
    assert 1.8 < np.log(drawn).std(-1).mean() < 2.2
    wide = laws.random_law(game.rng, (2, 3, 8), spread=1e3)
    np.testing.assert_allclose(wide.sum(-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(laws.entropy(DEEP), -(DEEP * np.log(DEEP)).sum(-1), rtol=1e-13)


def test_check_laws_returns_copies_of_one_shape() -> None:
    given_law = np.array([0.5, 0.5])
    p, q = laws.check_laws(expert=given_law, policy=[[1, 0], [0.25, 0.75]])
    assert p.shape == q.shape == (2, 2)
    assert p.dtype == q.dtype == np.float64
    p[0, 0] = 7.0
    assert given_law[0] == 0.5
    (single,) = laws.check_laws(expert=np.array([0.3, 0.7], dtype=np.float32))
    assert single.dtype == np.float64


WRONG = {
    "text": ("a", r"^expert: not an array of numbers"),
    "ragged": ([[0.5, 0.5], [1.0]], r"^expert: not an array of numbers"),
    "a number": (1.0, r"shape \(\) has no outcomes; needed is \(\.\.\., n\), all >= 1"),
    "empty": (np.zeros((2, 0)), r"shape \(2, 0\) has no outcomes"),
    "no prompts": (np.zeros((0, 3)), r"shape \(0, 3\) has no prompts"),
    "complex": ([0.5 + 0j, 0.5], r"not an array of numbers \(complex128 values\)"),
    "texts": (["0.5", "0.5"], r"not an array of numbers \(<U3 values\)"),
    "negative": ([[0.5, 0.5], [1.5, -0.5]], r"negative at \(1, 1\) \(-0\.5\); needed .* \[0, 1\]"),
    "NaN": ([0.5, np.nan], r"not finite at \(1,\) \(nan\)"),
    "infinite": ([0.5, np.inf], r"not finite at \(1,\) \(inf\)"),
    "sum": ([[0.5, 0.5], [0.5, 0.4]], r"sums to 0\.9 at prompt \(1,\); needed is 1"),
    "logits": ([2.0, 3.0], r"sums to 5 at prompt \(\); needed is 1"),
}


@pytest.mark.parametrize(("law", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_law(law, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        laws.check_laws(expert=law)


@pytest.mark.parametrize("law", [["0.5", "0.5"], np.array(["0.5", "0.5"], object), [b"1", 0.0]])
def test_texts_are_no_numbers(law: object) -> None:
    with pytest.raises(InvalidInput, match=r"p: not an array of numbers"):
        laws.check_laws(p=law)


def test_all_problems_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        laws.check_laws(expert=[0.5, -0.5], policy=[np.nan, 1.0], ref=[0.5, 0.4])
    assert [p.split(":")[0] for p in caught.value.problems] == ["expert", "policy", "ref"]
    both = laws.law_problems([[np.nan, -1.0]], "law", outcomes=3)
    assert len(both) == 3
    assert "2 outcomes on the last axis, needed 3" in both[0]


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(InvalidInput, match=r"differ in the number of outcomes: .*\(2,\).*\(1,\)"):
        laws.check_laws(expert=[0.5, 0.5], policy=[1.0])
    with pytest.raises(InvalidInput, match="prompt axes do not broadcast"):
        laws.check_laws(expert=np.full((2, 2), 0.5), policy=np.full((3, 2), 0.5))


def test_rounding_is_no_mistake() -> None:
    p = np.full(3, 1 / 3)
    assert laws.law_problems(p * (1 + 5e-9), "law") == []
    assert laws.law_problems(p * (1 + 5e-8), "law") != []


def test_single_precision_is_rounded_more_and_normalised_again() -> None:
    p = laws.random_law(np.random.default_rng(0), (3, 1000)).astype(np.float32) * np.float32(
        1.000005
    )
    (wide,) = laws.check_laws(expert=p)
    assert np.abs(p.astype(np.float64).sum(-1) - 1).min() > 1e-6
    np.testing.assert_allclose(wide.sum(-1), 1.0, atol=1e-14)
    np.testing.assert_allclose(wide, p, rtol=1e-4)
    assert laws.law_problems(p.astype(np.float64), "law")
    exact = np.array([0.1, 0.2, 0.7])
    np.testing.assert_array_equal(laws.check_laws(expert=exact)[0], exact)


def test_number_of_outcomes() -> None:
    assert laws.law_problems(np.array([0.5, 0.5]), "law", outcomes=2) == []
    assert laws.law_problems(DEEP[0], "law", outcomes=4) == []
    assert laws.law_problems(DEEP[0], "law", outcomes=3)[0].startswith("law: 4 outcomes")


def test_support_problems() -> None:
    p, q = np.array([[0.5, 0.5, 0.0]]), np.array([[0.5, 0.0, 0.5]])
    assert laws.support_problems(p, "start", p, "ref") == []
    (problem,) = laws.support_problems(p, "start", q, "ref")
    assert problem == (
        "start has mass at (0, 1) where ref has none; needed is support(start) within support(ref)"
    )


def test_kl_of_subnormal_probabilities() -> None:
    """x = q/p exceeds the floating-point range, the divergence does not."""
    p, q = np.array([1.0, 1e-321]), np.array([0.4, 0.6])
    np.testing.assert_allclose(laws.kl_stable(p, q), np.log(2.5), rtol=1e-12)
    assert np.isinf(laws.kl_stable(p, np.array([1.0, 0.0])))

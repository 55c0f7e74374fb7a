"""Blocks, threads and the change to logarithms give the numbers of the plain rounds (T1, T2)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.strategies import label
from theory import laws, objectives, self_play
from theory.objectives import Objective
from theory.result import FloatArray, Outcome, Solution
from theory.rounds import iterates
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

LINKED = [obj for obj in map(objectives.get, objectives.names()) if obj.has_link]
LINKED = [obj for obj in LINKED if "preference" not in obj.needs]
LINKED += [objectives.get("spif", c=0.6, alpha=0.2), objectives.get("spif", c=2.0, alpha=0.9)]
BY_DENSITY = [obj for obj in LINKED if obj.writes("density_link") or obj.has_gain]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iterates, "BLOCK", 64)  # many blocks, rows of several, at small sizes
    monkeypatch.setattr(iterates, "THREADED", 200)
    monkeypatch.setattr(iterates, "idle_cores", lambda: 3)


def plain(
    obj: Objective,
    p: FloatArray,
    q: FloatArray,
    beta: float,
    rounds: int,
    ref: FloatArray | None = None,
    tau: float = 0.0,
) -> list[FloatArray]:
    """The policies by log-laws as they are, one round after the other."""
    path = [laws.log_law(q)]
    log_p, log_ref = laws.log_law(p), None if ref is None else laws.log_law(ref)
    for _ in range(rounds):
        prior = np.asarray(obj.opponent(path[-1], path[0], path[0] if ref is None else log_ref))
        reward = reward_of_log_laws(obj, log_p, prior)
        path.append(gibbs_step(prior, reward, beta, log_ref, tau))
    return path


def check(found: Solution, p: FloatArray, path: list[FloatArray], rtol: float) -> None:
    assert found.policies is not None
    assert not np.isnan(found.policies).any()
    np.testing.assert_allclose(found.policies, np.exp(path), rtol=rtol, atol=1e-290)
    np.testing.assert_allclose(found.policies.sum(-1), 1.0, rtol=1e-13)
    log_p = laws.log_law(p)
    with np.errstate(invalid="ignore"):
        ratio = np.where(p == 0, 0.0, log_p - np.stack(path))
    kl = laws.kl_of_logratio(p, ratio, np.exp(path))
    np.testing.assert_allclose(found.details["kl"], kl, rtol=1e-7, atol=1e-24)
    reach = np.abs(ratio).max(-1)
    np.testing.assert_allclose(found.details["max_logratio"], reach, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("obj", LINKED, ids=label)
@given(
    rows=st.integers(1, 5),
    n=st.integers(1, 300),
    spread=st.floats(0.1, 1.5),
    beta=st.floats(0.3, 5.0),
    tau=st.sampled_from([0.0, 0.0, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_numbers_of_plain_rounds(obj, rows, n, spread, beta, tau, seed) -> None:
    rng = np.random.default_rng(seed)
    p, q, ref = (laws.random_law(rng, (rows, n), spread) for _ in range(3))
    path = plain(obj, p, q, beta, 3, ref, tau)
    assume(np.min(path[1]) > -60.0)  # exponents of hundreds: their rounding counts
    found = self_play(p, q, obj, beta, 3, ref=ref, tau=tau, progress=False)
    # a rounding of u moves the next log-law by R'(u)/beta, and so on
    reach = [np.abs(np.log(p) - log_q).max() for log_q in path[:-1]]
    steep = np.abs(obj.slope(np.linspace(-1.0, 1.0, 41) * np.array(reach)[:, None], 0.0)).max(-1)
    growth = float(np.prod(1.0 + steep / beta))
    assume(growth < 1e6)
    check(found, p, path, rtol=1e-11 * growth)


@pytest.mark.parametrize("obj", LINKED, ids=label)
@pytest.mark.parametrize("n", [40, 300])
def test_zeros_denormals_and_huge_exponents(obj: Objective, n: int) -> None:
    """Padding, p = 0 < q, q = 0 < p, masses near 1e-308, beta = 1e-3: as log-laws have them."""
    rng = np.random.default_rng(n)
    p, q = laws.random_law(rng, (2, n), 1.0), laws.random_law(rng, (2, n), 1.0)
    p[0, :3], q[0, 2:5], p[1, 7], q[1, 9] = 0.0, 0.0, 1e-305, 1e-309
    if obj.name in ("policy_only", "iq_learn", "nwj"):  # e^{+-u} leaves every range there
        p, q = np.maximum(p, 1e-3), np.maximum(q, 1e-3)
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    for beta in (1.0, 1e-3):
        found = self_play(p, q, obj, beta, 1, progress=False)
        assert (found.policy[q == 0] == 0).all()
        check(found, p, plain(obj, p, q, beta, 1), rtol=1e-9)


def test_a_diverging_run_stays_exact_in_logarithms() -> None:
    """SPIN at beta = 0.1: log-ratios grow by 9 a round, far beyond what probabilities hold."""
    rng = np.random.default_rng(0)
    p, q = laws.random_law(rng, (2, 200), 0.5)
    found = self_play(p, q, "spin", 0.1, 8, progress=False)
    u = np.log(p / q)
    spans = [np.ptp(np.where(np.isfinite(x), x, 0.0)) for x in plain_ratios(p, q, 8)]
    assert spans[-1] > 1e6
    np.testing.assert_allclose(spans[1:], np.ptp(u) * 9.0 ** np.arange(1, 9), rtol=1e-9)
    top = found.details["max_logratio"]
    np.testing.assert_allclose(top[1:] / top[:-1], 9.0, rtol=0.9)
    np.testing.assert_allclose(top[-1], np.abs(plain_ratios(p, q, 8)[-1]).max(), rtol=1e-9)


def plain_ratios(p: FloatArray, q: FloatArray, rounds: int) -> list[FloatArray]:
    path = plain(objectives.get("spin"), p, q, 0.1, rounds)
    return [np.log(p) - x for x in path]


@pytest.mark.parametrize(
    "obj", [o for o in LINKED if o.writes("density_link") or o.has_gain], ids=label
)
def test_links_by_densities_are_the_links(obj: Objective) -> None:
    rng = np.random.default_rng(1)
    p, q = laws.random_law(rng, (2, 4, 50), 3.0)
    delta = laws.triangular(p, q)[..., None]
    expected = obj.link(np.log(p / q), delta)
    np.testing.assert_allclose(obj.density_link(p, q, delta), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("size", [1e-9, 1e-4, 0.02, 0.5, 5.0])
def test_small_divergences_keep_their_digits(size: float) -> None:
    """KL next to the expert, by series or expm1, against extended precision."""
    rng = np.random.default_rng(2)
    p = laws.random_law(rng, (500,), 1.0)
    start = p * np.exp(size * rng.uniform(-1.0, 1.0, 500))
    start /= start.sum()
    kl = self_play(p, start, "spif", 1.0, 0, progress=False).details["kl"][0]
    wide, other = p.astype(np.longdouble), start.astype(np.longdouble)
    change = (other - wide) / wide
    exact = float((wide * (change - np.log1p(change))).sum())
    np.testing.assert_allclose(kl, exact, rtol=1e-13 + 1e-15 / size)


def test_a_path_that_left_the_range_of_numbers_does_not_come_back():
    """Rewards are cut at 1e300, and from there the cut alone would lead the policy home."""
    p = np.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2]])
    q = np.array([[0.02, 0.9, 0.08], [0.45, 0.33, 0.22]])
    path = self_play(p, q, "policy_only", beta=0.3, rounds=40, progress=False)
    reach = path.details["max_logratio"]
    first = int(np.argmax(np.isinf(reach[:, 0])))
    assert 1 < first < 10
    assert np.isinf(reach[first:, 0]).all()
    assert np.isinf(path.details["kl"][first:, 0]).all()
    np.testing.assert_array_equal(path.policies[-1, 0], path.policies[first, 0])
    assert path.outcome is Outcome.DIVERGED
    assert np.isfinite(reach[:, 1]).all()  # the other prompt's path goes on
    np.testing.assert_allclose(path.policies[-1, 1], p[1], atol=1e-9)


@pytest.mark.parametrize(("beta", "tau"), [(2.0, 1.0), (0.5, 0.5), (3.0, 0.25)])
def test_a_step_is_divided_by_the_sum_of_beta_and_tau(beta: float, tau: float) -> None:
    """Also where their difference, or the sum, is 1: SPIN's reward is log p/q."""
    rng = np.random.default_rng(11)
    p, q, ref = rng.dirichlet(np.full(6, 2.0), 3)
    path = self_play(p, q, "spin", beta=beta, rounds=1, ref=ref, tau=tau).policies
    assert path is not None
    weight = (q**beta * ref**tau * (p / q)) ** (1.0 / (beta + tau))
    np.testing.assert_allclose(path[1], weight / weight.sum(), rtol=1e-12)


def test_reach_is_counted_where_the_expert_has_mass_alone() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.4, 0.4, 0.2])
    with np.errstate(divide="ignore"):
        found = iterates.Iterates.of(np.log(p), [np.log(q)])
    np.testing.assert_allclose(found.reach, [np.log(1.25)], rtol=1e-12)
    np.testing.assert_allclose(found.kl, [np.log(1.25)], rtol=1e-12)

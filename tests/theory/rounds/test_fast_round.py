"""The blocked round gives the numbers of the plain expression (T1, T2), whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.strategies import label
from theory import laws, objectives
from theory.errors import InvalidInput, Unavailable
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds import fast_round
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

LINKED = [obj for obj in map(objectives.get, objectives.names()) if obj.has_link]
LINKED += [objectives.get("spif", c=0.6, alpha=0.2), objectives.get("spif", c=2.0, alpha=0.9)]
SPIF = objectives.get("spif")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_round, "BLOCK", 64)  # many blocks, rows of several, at small sizes


def plain(obj: Objective, p: FloatArray, q: FloatArray, beta: float) -> FloatArray:
    delta = laws.triangular(p, q)[..., None]
    weight = q * np.exp(np.asarray(obj.link(np.log(p / q), delta)) / beta)
    return np.asarray(weight / weight.sum(-1, keepdims=True))


@pytest.mark.parametrize("obj", LINKED, ids=label)
@given(
    rows=st.integers(1, 5),
    n=st.integers(1, 400),
    spread=st.floats(0.1, 1.5),
    beta=st.floats(0.3, 5.0),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_equal_to_the_plain_expression(
    obj: Objective, rows: int, n: int, spread: float, beta: float, threads: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    p, q = (laws.random_law(rng, (rows, n), spread) for _ in range(2))
    # exponents reach hundreds for the unbounded links: their rounding counts, not the method's
    exponent = np.abs(np.asarray(obj.link(np.log(p / q), laws.triangular(p, q)[..., None]))) / beta
    assume(exponent.max() < 600)  # the plain expression overflows
    expected = plain(obj, p, q, beta)
    seen = expected > 1e-290
    after = fast_round.step(obj, p, q, beta, threads=threads)
    limit = 1e-14 + 4e-16 * exponent.max()
    assert np.abs(after[seen] / expected[seen] - 1.0).max() <= limit


def test_out_and_in_place() -> None:
    rng = np.random.default_rng(0)
    p, q = laws.random_law(rng, (300,), 1.0), laws.random_law(rng, (300,), 1.0)
    for obj in (SPIF, objectives.get("spin")):
        expected = fast_round.step(obj, p, q, 1.0)
        out = np.full(300, np.nan)
        assert fast_round.step(obj, p, q, 1.0, out=out) is out
        np.testing.assert_array_equal(out, expected)
        policy = q.copy()
        np.testing.assert_array_equal(fast_round.step(obj, p, policy, 1.0, out=policy), expected)


@pytest.mark.parametrize("obj", LINKED, ids=label)
@pytest.mark.parametrize("n", [40, 300])
def test_zeros_denormals_and_huge_exponents(obj: Objective, n: int) -> None:
    """Padding, p = 0 < q, q = 0 < p, masses near 1e-308, beta = 1e-3: as the rounds have them."""
    rng = np.random.default_rng(n)
    p, q = laws.random_law(rng, (2, n), 1.0), laws.random_law(rng, (2, n), 1.0)
    p[0, :3], q[0, 2:5], p[1, 7], q[1, 9] = 0.0, 0.0, 1e-305, 1e-309
    if obj.name in ("policy_only", "iq_learn", "nwj"):  # e^{+-u} leaves every range there
        p, q = np.maximum(p, 1e-3), np.maximum(q, 1e-3)
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    for beta in (1.0, 1e-3):
        after = fast_round.step(obj, p, q, beta)
        assert not np.isnan(after).any()
        assert (after[q == 0] == 0).all()
        np.testing.assert_allclose(after.sum(-1), 1.0, rtol=1e-13)
        log_p, log_q = laws.log_law(p), laws.log_law(q)
        reward = reward_of_log_laws(obj, log_p, log_q)
        expected = np.exp(gibbs_step(log_q, reward, beta, None, 0.0))
        np.testing.assert_allclose(after, expected, rtol=1e-9, atol=1e-290)


def test_bad_input() -> None:
    law = np.array([0.5, 0.5])
    with pytest.raises(Unavailable, match="spin_hinge has no link"):
        fast_round.step(objectives.get("spin_hinge"), law, law, 1.0)
    with pytest.raises(InvalidInput) as failure:
        fast_round.step(SPIF, law, [0.5, 0.5], -1.0, out=np.zeros(3), threads=0)
    assert [problem.split(":")[0] for problem in failure.value.problems] == [
        "policy",
        "out",
        "beta=-1.0; needed is a finite number > 0",
        "threads=0; needed is an integer >= 1 or None",
    ]
    with pytest.raises(InvalidInput, match="expert: needed is a C-contiguous array"):
        fast_round.step(SPIF, np.full((2, 4), 0.25)[:, ::2], np.full((2, 2), 0.5), 1.0)
    assert fast_round.step(SPIF, np.zeros((0, 3)), np.zeros((0, 3)), 1.0).shape == (0, 3)

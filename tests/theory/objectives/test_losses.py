"""Losses and links against independent formulas, and at extreme log-ratios."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given
from hypothesis import strategies as st

from lab.evidence import ClaimRecorder
from tests.theory.objectives.test_links import EVERY
from tests.theory.objectives.test_objectives import LAW
from tests.theory.strategies import Instance, label
from theory import objectives, xp
from theory.checks import theorems as checks
from theory.checks.game import extras_for
from theory.objectives import Objective

SIDES = ("expert", "policy")
beta_strategy = st.floats(0.02, 5.0)


def logps(seed: int, size: int = 64):
    """Log-probabilities of winner and loser under policy and reference, as a trainer has them."""
    drawn = np.random.default_rng(seed).normal(-40, 15, (4, size))
    return (torch.tensor(x, dtype=torch.float64) for x in drawn)


@given(seed=st.integers(0, 2**32 - 1), beta=beta_strategy)
def test_losses_are_those_of_the_common_trainer(seed: int, beta: float) -> None:
    """sigmoid, hinge and ipo as published in TRL 1.16, written out from their definitions."""
    policy_w, policy_l, ref_w, ref_l = logps(seed)
    logits = (policy_w - policy_l) - (ref_w - ref_l)
    expected = {
        "spin": -functional.logsigmoid(beta * logits),
        "dpo": -functional.logsigmoid(beta * logits),
        "spin_hinge": torch.relu(1 - beta * logits),
        "ipo": beta**2 * (logits - 1 / (2 * beta)) ** 2,
        "inpo": beta**2 * (logits - 1 / (2 * beta)) ** 2,
    }
    for name, loss in expected.items():
        obj = objectives.get(name, **({"margin": 0.5} if name == "ipo" else {}))
        x, y = policy_w - ref_w, policy_l - ref_l
        ours = obj.loss(x, y, beta, **extras_for(obj, x, y))
        np.testing.assert_allclose(ours, loss, atol=1e-9, rtol=1e-10, err_msg=f"{name}, TRL")


@pytest.mark.claim("T11.sppo", regime="tabular")
@given(seed=st.integers(0, 2**32 - 1), beta=beta_strategy)
def test_sppo_hard_is_pointwise_spif(claim, seed: int, beta: float) -> None:
    """beta^2 sppo_hard = SPIF(c = 2) + 1/2 = SPPO with P = 1 and 0."""
    policy_w, policy_l, ref_w, ref_l = logps(seed)
    a, b = policy_w - ref_w, policy_l - ref_l
    hard = beta**2 * ((a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2)
    spif = objectives.get("spif", c=2.0).loss(a, b, beta)
    claim.close(spif + 0.5, hard, atol=1e-9, rtol=1e-10, what="SPIF(c=2) + 1/2")
    labels = {"expert_preference": 1.0, "policy_preference": 0.0}
    sppo = objectives.get("sppo").loss(a, b, beta, **labels)
    claim.close(sppo, hard, atol=1e-9, rtol=1e-10, what="SPPO with hard labels")
    soft = np.random.default_rng(seed).uniform(size=(2, 64))
    given_p = {f"{k}_preference": torch.tensor(p) for k, p in zip(SIDES, soft, strict=True)}
    terms = [
        beta**2 * (x - (p - 0.5) / beta) ** 2 for x, p in zip((a, b), given_p.values(), strict=True)
    ]
    sppo = objectives.get("sppo").loss(a, b, beta, **given_p)
    claim.close(sppo, sum(terms), atol=1e-9, rtol=1e-10, what="SPPO, eq. 4.7 times beta^2")


LOSS = {
    "spif": lambda x, y: -x + x**2 / 2 + y + y**2 / 2,
    "iq_learn": lambda x, y: -x + x**2 + y,
    "policy_only": lambda x, y: -x + y + y**2,
    "nwj": lambda x, y: -x + mp.exp(y - 1),
    "exponential": lambda x, y: mp.exp(-x) + mp.exp(y),
    "airl": lambda x, y: mp.log(1 + mp.exp(-x)) + mp.log(1 + mp.exp(y)),
    "space": lambda x, y: mp.log(1 + mp.exp(-x)) + mp.log(1 + mp.exp(y)),
    "brier": lambda x, y: (1 + mp.exp(x)) ** -2 + (1 + mp.exp(-y)) ** -2,
    "sppo": lambda x, y: (x - 0.5) ** 2 + (y + 0.5) ** 2,
    "spin": lambda x, y: mp.log(1 + mp.exp(y - x)),
    "dpo": lambda x, y: mp.log(1 + mp.exp(y - x)),
    "spin_hinge": lambda x, y: max(mp.mpf(0), 1 - x + y),
    "spin_exponential": lambda x, y: mp.exp(y - x),
    "ipo": lambda x, y: (x - y - 1) ** 2,
    "inpo": lambda x, y: (x - y - 0.5) ** 2,
    "tspin": lambda x, y: mp.log(1 + mp.exp(y - x)) + mp.log(1 + mp.exp(-y)) / 10,
    "alpha_spin": lambda x, y: mp.log(1 + mp.exp(y - x)),
    "centred_spif": lambda x, y: ((x - y) / 2 - 1) ** 2,
    "renyi": lambda x, y: y - x,
}
"""Loss at implicit rewards x (expert) and y (own), default parameters; history reward 0."""


@pytest.mark.parametrize("name", LOSS)
def test_loss_at_extreme_logratios(name: str) -> None:
    """Exact to the dtype at +-700 nats, in value and gradient; inf only beyond its range."""
    obj = objectives.get(name)
    grid = [(x, y) for x in checks.RATIOS for y in checks.RATIOS]
    with mp.workdps(700):
        at = [(mp.mpf(float(x)), mp.mpf(float(y))) for x, y in grid]
        true = [LOSS[name](x, y) for x, y in at]
        h = mp.mpf(10) ** -30
        slopes = [
            [(LOSS[name](x + h, y) - LOSS[name](x - h, y)) / (2 * h) for x, y in at],
            [(LOSS[name](x, y + h) - LOSS[name](x, y - h)) / (2 * h) for x, y in at],
        ]
    for dtype in (torch.float64, torch.float32):
        x, y = (torch.tensor(z, dtype=dtype, requires_grad=True) for z in np.transpose(grid))
        extras = extras_for(obj, x.detach(), y.detach())
        if obj.has_loss:
            value = obj.loss(x, y, 1.0, **extras)
        else:
            value = obj.risk(x[:, None], y[:, None], 1.0, **extras)
        found = [value, *torch.autograd.grad(value.sum(), (x, y))]
        size = (1 + np.abs(grid).sum(-1)) ** 2
        names = ("loss", "d/dx", "d/dy")
        for what, got, expected in zip(names, found, [true, *slopes], strict=True):
            assert_to_dtype(got.detach().numpy(), expected, size, f"{name} {what} {dtype}")
        if obj.has_loss:
            arrays = [z.detach().numpy() for z in (x, y)]
            extras = extras_for(obj, *arrays)
            ours = obj.loss(*arrays, 1.0, **extras)
            assert ours.dtype == arrays[0].dtype
            assert_to_dtype(ours, true, size, f"{name} numpy {dtype}")


def assert_to_dtype(got: np.ndarray, true: list, size: np.ndarray, what: str) -> None:
    """Compare with exact numbers: rounding of the dtype, and infinite iff beyond its range."""
    limits = np.finfo(got.dtype)
    for value, exact, scale in zip(got, true, size, strict=True):
        if abs(exact) > float(limits.max):
            assert np.isinf(value), f"{what}: {value} where the truth is {mp.nstr(exact, 5)}"
            assert (value > 0) == (exact > 0), what
        else:
            error = abs(mp.mpf(float(value)) - exact)
            allowed = float(limits.eps) * (2000 * abs(exact) + 8 * scale)
            assert np.isfinite(value), f"{what}: {value} where the truth is {mp.nstr(exact, 5)}"
            assert error <= allowed, f"{what}: {value} against {mp.nstr(exact, 12)}"


LINK = {
    "spif": lambda u: mp.tanh(u / 2),
    "iq_learn": lambda u: (1 - mp.exp(-u)) / 2,
    "policy_only": lambda u: (mp.exp(u) - 1) / 2,
    "nwj": lambda u: 1 + u,
    "exponential": lambda u: u / 2,
    "gail": lambda u: mp.log(1 + mp.exp(u)),
    "sppo": lambda u: mp.tanh(u / 2) / 2,
    "spin_exponential": lambda u: u / 2,
    "ipo": lambda u: mp.tanh(u / 2) / 1.25,
    "inpo": lambda u: mp.tanh(u / 2) / 2.5,
    "centred_spif": lambda u: mp.tanh(u / 2),
} | dict.fromkeys(["airl", "space", "brier", "spin", "dpo", "alpha_spin", "renyi"], lambda u: u)
"""Links at Delta = 1/2, default parameters."""


@pytest.mark.parametrize("name", LINK)
def test_link_at_extreme_logratios(name: str) -> None:
    obj = objectives.get(name)
    with mp.workdps(700):
        at = [mp.mpf(float(u)) for u in checks.RATIOS]
        h = mp.mpf(10) ** -30
        true = [LINK[name](u) for u in at]
        slope = [(LINK[name](u + h) - LINK[name](u - h)) / (2 * h) for u in at]
    for dtype in (torch.float64, torch.float32):
        u = torch.tensor(checks.RATIOS, dtype=dtype, requires_grad=True)
        r = obj.link(u, 0.5)
        (gradient,) = torch.autograd.grad(r.sum(), u)
        size = 1 + np.abs(checks.RATIOS)
        assert_to_dtype(r.detach().numpy(), true, size, f"{name} link {dtype}")
        assert_to_dtype(gradient.numpy(), slope, size, f"{name} slope {dtype}")
        as_numpy = obj.link(u.detach().numpy(), 0.5)
        assert as_numpy.dtype == u.detach().numpy().dtype
        assert_to_dtype(as_numpy, true, size, f"{name} numpy {dtype}")
    assert set(LINK) == {n for n in objectives.names() if objectives.get(n).has_link} - {"ipm"}


@pytest.mark.parametrize("obj", EVERY, ids=label)
def test_no_nan_at_extremes(obj: Objective) -> None:
    game = Instance(LAW[None], LAW[None], LAW[None], np.random.default_rng(0))
    checks.check_extremes(obj, game, ClaimRecorder())


@pytest.mark.parametrize("obj", EVERY, ids=label)
@given(seed=st.integers(0, 2**32 - 1))
def test_numpy_and_torch_agree(obj: Objective, seed: int) -> None:
    game = Instance(LAW[None], LAW[None], LAW[None], np.random.default_rng(seed))
    checks.check_numpy_and_torch(obj, game, ClaimRecorder())


ELEMENTARY = {
    "exp": mp.exp,
    "expm1": mp.expm1,
    "tanh": mp.tanh,
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "log_sigmoid": lambda x: -mp.log1p(mp.exp(-x)),
    "square": lambda x: x * x,
}


@pytest.mark.parametrize("name", ELEMENTARY)
def test_elementary_functions_keep_their_digits(name: str) -> None:
    """Relative accuracy of value, slope and curvature, far out and near 0."""
    x = np.array([-600.0, -90.0, -37.5, -1.5, -1.0, -1e-3, -1e-9, 0, 1e-9, 0.3, 1.5, 40, 90, 600])
    with mp.workdps(600):
        at = [mp.mpf(float(v)) for v in x]
        h = mp.mpf(10) ** -60
        f = ELEMENTARY[name]
        value = [f(v) for v in at]
        slope = [(f(v + h) - f(v - h)) / (2 * h) for v in at]
        bend = [(f(v + h) - 2 * f(v) + f(v - h)) / h**2 for v in at]
        true = [np.array([float(v) for v in row]) for row in (value, slope, bend)]
    point = torch.tensor(x, requires_grad=True)
    first = getattr(xp, name)(point)
    (second,) = torch.autograd.grad(first.sum(), point, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), point)
    for got, expected in zip((first, second, third), true, strict=True):
        got = got.detach().numpy()
        # 1 - tanh^2, and the curvature of s near 0, are accurate absolutely, not relatively
        absolute = {"tanh": 1e-15, "sigmoid": 1e-16 if expected is true[2] else 1e-300}
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=absolute.get(name, 1e-300))
    np.testing.assert_allclose(getattr(xp, name)(x), true[0], rtol=1e-12, atol=1e-300)


def test_array_helpers() -> None:
    x = np.array([[0.0, -np.inf, 3.0], [-np.inf, -np.inf, -np.inf]])
    np.testing.assert_allclose(xp.logsumexp(x), [np.logaddexp(0, 3), -np.inf])
    np.testing.assert_allclose(xp.logsumexp(x, axis=0), [0, -np.inf, 3])
    huge = np.array([1e300, 1e300 * (1 - 1e-15)])
    np.testing.assert_array_equal(np.exp(xp.log_normalise(huge)), [1, 0])
    np.testing.assert_allclose(xp.log_normalise(np.array([-2000.0, -2000.0])), -np.log(2))
    for weight in ([1e16, 1e16 + 2], [1e16, 1e16 + 2, -1e18]):  # steps of 2 are all that is left
        total = np.exp(xp.log_normalise(np.array(weight))).sum()
        np.testing.assert_allclose(total, 1.0, rtol=1e-14)
    np.testing.assert_array_equal(xp.sign(np.array([-2.0, 0.0, 5.0])), [-1, 0, 1])
    np.testing.assert_array_equal(xp.relu(np.array([-2.0, 0.0, 5.0])), [0, 0, 5])
    value, weight = np.array([[1.0, np.nan], [3.0, 5.0]]), np.array([[2.0, 0.0], [1.0, 3.0]])
    np.testing.assert_allclose(xp.weighted_mean(value, weight), [1.0, 4.5])
    np.testing.assert_allclose(xp.weighted_mean(value[1], None), 4.0)
    np.testing.assert_allclose(xp.weighted_mean(value[1:], weight[1:], axis=0), [3, 5])


@pytest.mark.parametrize("name", ["dpo", "spin_exponential", "ipo", "gail"])
def test_derivatives_are_the_same_where_the_caller_has_switched_gradients_off(name):
    obj = objectives.get(name)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    slope, reward = obj.slope(np.array([-1.0, 2.0]), 0.5), obj.reward(p, q)
    with torch.no_grad():
        np.testing.assert_array_equal(obj.slope(np.array([-1.0, 2.0]), 0.5), slope)
        np.testing.assert_array_equal(obj.reward(p, q), reward)

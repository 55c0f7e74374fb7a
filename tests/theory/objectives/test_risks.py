"""Risks: means over pairs, weights, shapes, groups, and what an objective takes besides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.evidence import ClaimRecorder
from tests.theory.objectives.test_links import applies
from tests.theory.objectives.test_losses import beta_strategy
from tests.theory.strategies import Instance, games, label
from theory import objectives
from theory.checks import theorems as checks
from theory.checks.game import extras_for
from theory.objectives import Objective

# --- risks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", applies(checks.check_risk_is_expectation), ids=label)
@given(game=games())
def test_risk_is_the_mean_over_pairs(obj: Objective, game: Instance) -> None:
    checks.check_risk_is_expectation(obj, game, ClaimRecorder())


@pytest.mark.parametrize("name", [n for n in objectives.names() if n not in ("gail", "ipm")])
@pytest.mark.parametrize("torch_too", [False, True], ids=["numpy", "torch"])
def test_weight_zero_ignores_what_stands_there(name: str, torch_too: bool) -> None:
    """NaN and inf at weight 0 reach neither value nor gradient, in log-ratios and extras."""
    obj = objectives.get(name)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 3)), rng.normal(size=(2, 4))
    w, v = rng.uniform(0.1, 1, (2, 3)), rng.uniform(0.1, 1, (2, 4))
    extras = extras_for(obj, x, y, tau=0.7)
    if "history" in obj.needs:
        extras["history_law"] = v
    clean = obj.risk(x, y, 0.8, w, v, **extras)
    assert clean.shape == (2,)
    bad = np.array([[np.nan, np.inf], [-np.inf, np.nan]])

    def padded(array, filling):
        return np.concatenate([array, filling], axis=-1)

    wide = [padded(x, bad), padded(y, bad), padded(w, 0 * w[:, :2]), padded(v, 0 * v[:, :2])]
    wide_extras = {
        k: e if np.ndim(e) == 0 else padded(e, 0 * v[:, :2] if k == "history_law" else bad)
        for k, e in extras.items()
    }
    if not torch_too:
        padded_risk = obj.risk(wide[0], wide[1], 0.8, wide[2], wide[3], **wide_extras)
        np.testing.assert_allclose(padded_risk, clean, rtol=1e-14)
        return
    x, y = (torch.tensor(z, requires_grad=True) for z in wide[:2])
    given_extras = {k: e if np.ndim(e) == 0 else torch.tensor(e) for k, e in wide_extras.items()}
    risk = obj.risk(x, y, 0.8, *map(torch.tensor, wide[2:]), **given_extras)
    np.testing.assert_allclose(risk.detach().numpy(), clean, rtol=1e-14)
    for gradient, inner in zip(torch.autograd.grad(risk.sum(), (x, y)), (3, 4), strict=True):
        assert torch.isfinite(gradient).all()
        assert (gradient[:, inner:] == 0).all()
        assert (gradient[:, :inner] != 0).any()


def test_weights_are_normalised_and_none_is_uniform() -> None:
    rng = np.random.default_rng(2)
    x, y, w, v = rng.normal(size=(4, 2, 5))
    w, v = np.exp(w), np.exp(v)
    for name in ("spif", "spin", "centred_spif", "renyi"):
        obj = objectives.get(name)
        once = obj.risk(x, y, 1.0, w, v)
        np.testing.assert_allclose(obj.risk(x, y, 1.0, 7 * w, 0.1 * v), once, rtol=1e-13)
        ones = np.ones(5)
        np.testing.assert_allclose(obj.risk(x, y, 1.0), obj.risk(x, y, 1.0, ones, ones), rtol=1e-14)


@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from([(), (3,), (2, 1, 3)]))
def test_shapes(seed: int, shape: tuple[int, ...]) -> None:
    """Losses broadcast elementwise; risks reduce G and K to one number a prompt."""
    rng = np.random.default_rng(seed)
    for name in objectives.names():
        obj = objectives.get(name)
        x, y = rng.normal(size=(*shape, 3)), rng.normal(size=(*shape, 5))
        if not obj.missing("risk"):
            assert np.shape(obj.risk(x, y, 1.0, **extras_for(obj, x, y))) == shape
        if obj.has_loss:
            x, y = x[..., :, None], y[..., None, :]
            assert np.shape(obj.loss(x, y, 1.0, **extras_for(obj, x, y))) == (*shape, 3, 5)


@pytest.mark.claim("T17.finite_groups", regime="tabular")
@given(seed=st.integers(0, 2**32 - 1), c=st.floats(0.1, 5), beta=beta_strategy)
def test_single_pair_of_centred_spif_is_ipo(claim, seed: int, c: float, beta: float) -> None:
    """G = K = 1: c/4 times IPO with margin 2/c."""
    x, y = np.random.default_rng(seed).normal(size=(2, 50))
    group = objectives.get("centred_spif", c=c).risk(x[:, None], y[:, None], beta)
    pair = objectives.get("ipo", margin=2 / c).loss(x, y, beta)
    claim.close(group, 0.25 * c * pair, atol=1e-12, rtol=1e-11, what="centred SPIF of one pair")


@pytest.mark.claim("T17.exact", regime="tabular")
@given(game=games(), c=st.floats(0.1, 5))
def test_centred_spif_is_spif_with_its_best_baseline(claim, game: Instance, c: float) -> None:
    """SPIF's risk minimised over a per-prompt shift of the reward, up to the constant 1/c."""
    p, q = game.expert, game.start
    x, y = game.rng.normal(size=(2, *p.shape))
    spif = objectives.get("spif", c=c)
    baseline = 0.5 * ((p * x).sum(-1) + (q * y).sum(-1))[..., None]
    best = spif.risk(x - baseline, y - baseline, 1.0, p, q)
    centred = objectives.get("centred_spif", c=c).risk(x, y, 1.0, p, q)
    claim.close(centred, best + 1 / c, atol=1e-10, rtol=1e-11, what="SPIF at the baseline")
    for shift in (-0.1, 0.1):
        other = spif.risk(x - baseline - shift, y - baseline - shift, 1.0, p, q)
        claim.below(best, other, what="no other baseline is better")


@given(game=games(), order=st.floats(0.05, 0.95))
def test_renyi_risk(game: Instance, order: float) -> None:
    p, q = game.expert, game.start
    x, y = game.rng.normal(size=(2, *p.shape))
    expected = (
        np.log((p * np.exp(-(1 - order) * x)).sum(-1)) / (1 - order)
        + np.log((q * np.exp(order * y)).sum(-1)) / order
    )
    ours = objectives.get("renyi", order=order).risk(x, y, 1.0, p, q)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


# --- extras --------------------------------------------------------------------------------------


def test_anchor_adds_to_the_implicit_reward() -> None:
    """tau log pi/pi_ref on both sides, for every loss that has an anchor."""
    rng = np.random.default_rng(3)
    x, y, ax, ay = rng.normal(size=(4, 6))
    for name in objectives.names():
        obj = objectives.get(name)
        if not obj.has_loss or obj.reference_free:
            continue
        own = {k: v for k, v in extras_for(obj, x, y).items() if "preference" in k}
        got = obj.loss(x, y, 0.7, tau=0.3, expert_anchor=ax, policy_anchor=ay, **own)
        moved = (0.7 * x + 0.3 * ax) / 0.7, (0.7 * y + 0.3 * ay) / 0.7
        rest = extras_for(obj, *moved)
        np.testing.assert_allclose(got, obj.loss(*moved, 0.7, **rest), rtol=1e-12)


def test_extras_may_be_lists() -> None:
    obj = objectives.get("inpo")
    x, y, ax, ay = np.random.default_rng(3).normal(size=(4, 6))
    for verb in (obj.loss, obj.risk):
        lists = verb(
            x.tolist(), y.tolist(), 0.7, tau=0.3, expert_anchor=ax.tolist(), policy_anchor=list(ay)
        )
        arrays = verb(x, y, 0.7, tau=0.3, expert_anchor=ax, policy_anchor=ay)
        np.testing.assert_array_equal(lists, arrays)


def test_history_term() -> None:
    rng = np.random.default_rng(4)
    x, y, h = rng.normal(-3, 1, size=(3, 6))
    obj = objectives.get("tspin", history_weight=0.4)

    def logistic(d):
        return np.log1p(np.exp(-d))

    got = obj.loss(x, y, 0.5, history_logratio=h)
    expected = logistic(0.5 * (x - y)) + 0.4 * logistic(0.5 * (y - h))
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    p, q, start = (w / w.sum() for w in rng.uniform(0.1, 1, (3, 6)))
    risk = obj.risk(x, y, 0.5, p, q, history_logratio=h, history_law=start)
    first = np.einsum("i,j,ij", p, q, logistic(0.5 * (x[:, None] - y)))
    second = np.einsum("i,j,ij", q, start, logistic(0.5 * (y[:, None] - h)))
    np.testing.assert_allclose(risk, first + 0.4 * second, rtol=1e-13)
    uniform = obj.risk(x, y, 0.5, p, q, history_logratio=h)
    even = obj.risk(x, y, 0.5, p, q, history_logratio=h, history_law=np.full(6, 1 / 6))
    np.testing.assert_allclose(uniform, even, rtol=1e-13)


@given(game=games(), seed=st.integers(0, 99))
def test_sppo_reward_is_the_mean_win_rate(game: Instance, seed: int) -> None:
    p, q = game.expert, game.start
    on_p, on_q = np.random.default_rng(seed).uniform(size=(2, *p.shape))
    reward = objectives.get("sppo").reward(p, q, expert_preference=on_p, policy_preference=on_q)
    np.testing.assert_allclose(reward, (p * on_p + q * on_q) / (p + q) - 0.5, atol=1e-14)


def test_opponents() -> None:
    rng = np.random.default_rng(5)
    now, first, base = np.log(rng.dirichlet(np.ones(4), 3))
    for name in objectives.names():
        obj = objectives.get(name)
        if name != "alpha_spin":
            assert obj.opponent(now, first, base) is now
    weight = np.exp(now) ** 0.75 * np.exp(base) ** 0.25
    mixed = objectives.get("alpha_spin", base_weight=0.25).opponent(now, first, base)
    np.testing.assert_allclose(np.exp(mixed), weight / weight.sum(), rtol=1e-13)

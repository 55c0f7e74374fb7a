"""theory.xp is the array API for numpy and torch alike, numbers beside arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from theory import xp

X = np.array([-2.0, -0.5, 0.0, 1.5])
SAME = {
    "sqrt": (lambda x: xp.sqrt(xp.abs(x)), np.sqrt(np.abs(X))),
    "log1p": (lambda x: xp.log1p(x * x), np.log1p(X * X)),
    "where": (lambda x: xp.where(x > 0, x, 7.0), np.where(X > 0, X, 7.0)),
    "where, array last": (lambda x: xp.where(x > 0, 7.0, x), np.where(X > 0, 7.0, X)),
    "where, numbers": (lambda x: xp.where(x > 0, 1.0, -1.0), np.where(X > 0, 1.0, -1.0)),
    "maximum": (lambda x: xp.maximum(x, 0.25), np.maximum(X, 0.25)),
    "minimum": (lambda x: xp.minimum(0, x), np.minimum(0, X)),
    "clip": (lambda x: xp.clip(x, -1.0, 1.0), np.clip(X, -1, 1)),
    "pow": (lambda x: xp.pow(x, 2), X**2),
    "atan2": (lambda x: xp.atan2(x, 1.0), np.arctan2(X, 1.0)),
    "sum": (lambda x: xp.sum(x, axis=-1), X.sum()),
    "stack": (lambda x: xp.stack([x, x], axis=0), np.stack([X, X])),
    "isfinite": (lambda x: xp.isfinite(x), np.isfinite(X)),
}


@pytest.mark.parametrize(
    ("name", "formula", "expected"), [(k, *v) for k, v in SAME.items()], ids=SAME
)
def test_the_same_for_numpy_and_torch(name, formula, expected) -> None:
    np.testing.assert_allclose(formula(X), expected)
    for dtype in (torch.float64, torch.float32):
        value = formula(torch.tensor(X, dtype=dtype))
        assert value.dtype in (dtype, torch.bool) or name == "where, numbers"
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6)


def test_gradients_and_plain_numbers() -> None:
    x = torch.tensor(X, requires_grad=True)
    (slope,) = torch.autograd.grad(xp.maximum(x, 0.25).sum() + xp.abs(x).sum(), x)
    np.testing.assert_allclose(slope, [-1, -1, 0, 2])
    assert xp.sqrt(2.25) == 1.5
    assert xp.maximum(1, 2) == 2


@pytest.mark.parametrize("name", sorted(xp.STANDARD))
def test_every_function_is_in_both(name: str) -> None:
    import array_api_compat.numpy
    import array_api_compat.torch

    assert callable(getattr(xp, name))
    assert hasattr(array_api_compat.numpy, name)
    assert hasattr(array_api_compat.torch, name)


@pytest.mark.parametrize(
    ("name", "close"), [("sqrtt", "sqrt"), ("softpluss", "softplus"), ("maximun", "maximum")]
)
def test_unknown_names(name: str, close: str) -> None:
    with pytest.raises(AttributeError, match=f"theory.xp has no '{name}'.*did you mean '{close}'"):
        getattr(xp, name)
    assert not hasattr(xp, "nan_to_num")


def test_a_numpy_scalar_stands_beside_torch() -> None:
    x = torch.tensor([0.5, 2.0])
    assert xp.maximum(np.float64(1.0), x).tolist() == [1.0, 2.0]

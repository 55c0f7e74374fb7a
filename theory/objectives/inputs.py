"""Checks of what a caller passes to an objective's verbs: all problems at once, before any work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import array_api_compat
import numpy as np

from theory import arguments, laws, xp
from theory.errors import InvalidInput, refuse
from theory.result import FloatArray

Array = xp.Array


def numbers(x: Any, name: str) -> Array:
    """``x`` as an array of its own kind, or refuse what is none."""
    try:
        if x is None or isinstance(x, str):  # numpy would read None as NaN, and "1" as 1
            raise TypeError(type(x).__name__)
        array = xp.as_array(x)
        if isinstance(array, np.ndarray) and array.dtype.kind not in "biuf":
            raise TypeError(f"{array.dtype} values")
        return array
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name}={x!r}; needed are numbers ({error})") from None


def detached(x: Any) -> FloatArray:
    """The values of an array or a number as numpy, NaN for what is no number."""
    try:
        return laws.as_numbers(x)
    except (TypeError, ValueError):
        return np.asarray(np.nan)


def beta_problem(beta: Any) -> str | None:
    """Why ``beta`` is no weight of a KL step."""
    return next(iter(arguments.numbers("beta", beta)), None)


def tau_problem(tau: Any) -> str | None:
    """Why ``tau`` is no weight of an anchor."""
    return next(iter(arguments.numbers("tau", tau, 0.0)), None)


def extras_problems(
    extras: dict[str, Any], required: tuple[str, ...], optional: tuple[str, ...]
) -> list[str]:
    """Extras that are missing, or that nothing would use."""
    known = set(required) | set(optional)
    return [f"missing extra {e!r}" for e in required if e not in extras] + [
        f"unused extra {e!r}; it takes {sorted(known) or 'none'}" for e in extras if e not in known
    ]


def kind_problems(**arrays: Any) -> list[str]:
    """Say if numpy and torch are mixed."""
    kinds = {
        name: "numpy" if isinstance(array, np.ndarray) else "torch"
        for name, array in arrays.items()
        if array_api_compat.is_array_api_obj(array) and not isinstance(array, np.generic)
    }
    if len(set(kinds.values())) < 2:
        return []
    listed = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
    return [f"{listed}; needed is one kind for all"]


def shape_problems(**arrays: Any) -> list[str]:
    """Say if shapes do not broadcast."""
    shapes = {name: tuple(np.shape(array)) for name, array in arrays.items() if array is not None}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        return [f"shapes do not broadcast: {', '.join(f'{n} {s}' for n, s in shapes.items())}"]
    return []


def response_problems(side: str, count: str, logratio: Any, weight: Any) -> list[str]:
    """What is wrong with the responses of one side of a risk and their weights."""
    name, shape = f"{side}_logratio", tuple(np.shape(logratio))
    if not shape or shape[-1] == 0:
        return [
            f"{name}: shape {shape} has no responses; needed is (..., {count}) with {count} >= 1"
        ]
    if weight is None:
        return []
    problems = shape_problems(**{name: logratio, f"{side}_weight": weight})
    if (
        isinstance(weight, np.ndarray) and weight.dtype.kind == "O"
    ):  # symbolic: shapes are all there is to check
        return problems
    values = detached(weight)
    if not np.all(np.isfinite(values) & (values >= 0)):
        problems.append(f"{side}_weight: needed are finite numbers >= 0")
    elif values.ndim == 0:
        problems.append(f"{side}_weight: a single number; needed is one for every response")
    elif not np.all(values.sum(-1) > 0):
        problems.append(f"{side}_weight: all 0 for a prompt; needed is some response to weigh")
    return problems


def prompt_problems(x: Any, y: Any, extras: dict[str, Any]) -> list[str]:
    """Say if the prompts of both sides, or an extra and its side, do not fit."""
    prompts = {"expert": np.shape(x)[:-1], "policy": np.shape(y)[:-1]}
    try:
        np.broadcast_shapes(*prompts.values())
    except ValueError:
        listed = ", ".join(f"{side} {tuple(shape)}" for side, shape in prompts.items())
        return [f"prompt axes (all but the last) do not broadcast: {listed}"]
    problems = []
    for side, logratio in (("expert", x), ("policy", y)):
        own = {name: e for name, e in extras.items() if name.startswith(side)}
        if own:
            problems += shape_problems(**{f"{side}_logratio": logratio}, **own)
    return problems


def preference_problems(**preferences: Any) -> list[str]:
    """Preferences P(y > pi_t) that are no probabilities."""
    out = []
    for name, preference in preferences.items():
        values = detached(preference)
        if not np.all((values >= 0) & (values <= 1)):
            out.append(f"{name}: needed are probabilities P(y > pi_t), within [0, 1]")
    return out


def checked_delta(delta: Any) -> Any:
    """``delta`` if it is within [0, 2], the range of ``Delta(p, q)``."""
    values = detached(delta)
    if np.all((values >= -1e-9) & (values <= 2 + 1e-9)):
        return values if isinstance(delta, (list, tuple)) else delta
    raise InvalidInput(f"delta={delta!r}; needed is Delta(p, q), within [0, 2]")


def masked(x: Array, weight: Array | None) -> Array:
    """Zero where the weight is 0, so that padding reaches neither value nor gradient."""
    if weight is None or not array_api_compat.is_array_api_obj(x):
        return x
    namespace = xp.namespace(x, weight)
    return namespace.where(weight > 0, x, namespace.zeros_like(x))


def refuse_for(name: str, problems: Iterable[str | None]) -> None:
    """Raise :class:`InvalidInput` naming the objective, if there is any problem."""
    refuse([f"{name}: {p}" for p in problems if p])

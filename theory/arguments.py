"""Named checks of what solvers take: each lists what is wrong as "name=value; needed is ..."."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from theory import laws
from theory.errors import Unavailable
from theory.result import FloatArray

LONGEST = 2**48
"""Entries of an axis that any memory has room for."""


def number(name: str, value: Any, least: float | None = None, optional: bool = False) -> list[str]:
    """A finite number > 0, or >= ``least`` where that is given; None too if ``optional``."""
    if optional and value is None:
        return []
    good = laws.is_real(value) and np.isfinite(value)
    if good and (value > 0 if least is None else value >= least):
        return []
    return [f"{name}={value!r}; needed is {_finite_from(least)}{' or None' * optional}"]


def _finite_from(least: float | None) -> str:
    return "a finite number " + ("> 0" if least is None else f">= {least:g}")


def reals(x: Any) -> FloatArray:
    """As :func:`laws.as_numbers`, but truth values are no numbers either."""
    kind = getattr(x, "dtype", None)
    listed = np.asarray(x, dtype=object).flat if str(kind) in ("None", "object") else ()
    if str(kind).endswith("bool") or any(isinstance(v, (bool, np.bool_)) for v in listed):
        raise TypeError("truth values")
    return laws.as_numbers(x)


def every(name: str, value: Any, good: Callable[[FloatArray], Any], needed: str) -> list[str]:
    """One number, or an array of at least one, that are all ``good``."""
    try:
        values = reals(value)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    return [] if values.size and np.all(good(values)) else [f"{name}={value!r}; needed is {needed}"]


def numbers(name: str, value: Any, least: float | None = None, single: bool = False) -> list[str]:
    """As :func:`number` of one or an array of them (of one alone if ``single``)."""

    def good(values: FloatArray) -> Any:
        enough = values > 0 if least is None else values >= least
        return np.isfinite(values) & enough & (values.ndim == 0 or not single)

    return every(name, value, good, _finite_from(least))


def fitting(**values: Any) -> list[str]:
    """Numbers and arrays, each checked before, of shapes that broadcast."""
    shapes = {name: np.shape(value) for name, value in values.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape)
        return [f"{listed}: shapes do not fit; needed are numbers, or arrays that broadcast"]
    return []


def rewards(reward: Any, mass: FloatArray, finite: bool = True) -> list[str]:
    """A reward ``(..., n)`` with a number, or a ``finite`` one, where outcomes have ``mass``."""
    try:
        values = reals(reward)
    except (TypeError, ValueError) as error:
        return [f"reward: not an array of numbers ({error})"]
    shape, n = values.shape, mass.shape[-1]
    if shape[-1:] != (n,):
        return [f"reward: shape {shape}; needed is (..., {n}), one number an outcome"]
    try:
        values, mass = np.broadcast_arrays(values, mass)
    except ValueError:
        return [f"reward: its prompts {shape[:-1]} do not fit the laws' {mass.shape[:-1]}"]
    bad = (mass > 0) & ~(np.isfinite(values) if finite else ~np.isnan(values))
    if not bad.any():
        return []
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    needed = "a finite number" if finite else "a number"
    return [f"reward: {values[where]} at {where}; needed is {needed} wherever a law has mass"]


def whole(name: str, value: Any, least: int = 0) -> list[str]:
    """A whole number from ``least`` on."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least:
        return []
    return [f"{name}={value!r}; needed is a whole number >= {least}"]


def choice(name: str, value: Any, allowed: Iterable[Any]) -> list[str]:
    """One of a few values."""
    allowed = list(allowed)
    if isinstance(value, str) and value in allowed:
        return []
    return [f"{name}={value!r}; needed is one of {', '.join(map(repr, allowed))}"]


def generator(name: str, value: Any) -> list[str]:
    """A generator of random numbers."""
    if isinstance(value, np.random.Generator):
        return []
    return [f"{name}: a {type(value).__name__}; needed is a numpy Generator"]


def shape(name: str, value: Any) -> list[str]:
    """Lengths of axes; none is one without."""
    if isinstance(value, Sequence) and all(
        not whole(name, length) and length <= LONGEST for length in value
    ):
        return []
    return [f"{name}={value!r}; needed are whole numbers >= 0, the lengths of leading axes"]


def limits(tolerance: Any, max_iterations: Any = 1, optional: bool = True) -> list[str]:
    """The options that every solver has: ``tolerance`` and ``max_iterations``.

    An ``optional`` tolerance may be None, the solver's own.
    """
    return number("tolerance", tolerance, optional=optional) + whole(
        "max_iterations", max_iterations, 1
    )


def anchor(tau: Any, ref: Any) -> list[str]:
    """A weight of ``KL(pi||ref)`` >= 0, and the ``ref`` that a positive one needs."""
    problems = number("tau", tau, 0.0)
    if not problems and tau > 0 and ref is None:
        problems.append(f"tau={tau!r} needs ref, the reference policy of the anchor")
    return problems


def round_weights(
    beta: Any,
    rounds: Any,
    ref: Any,
    tau: Any,
    lowest: float | None = None,
    name: str = "beta",
    fewest: int = 0,
) -> tuple[list[float], list[str]]:
    """One beta (or effective step) a round, and what is wrong with the settings.

    ``beta`` must exceed 0, or reach ``lowest`` where that is given, and ``rounds`` reach
    ``fewest``. With problems the list is empty.
    """
    problems = whole("rounds", rounds, fewest)
    try:
        values = np.atleast_1d(reals(beta))
    except (TypeError, ValueError):
        values = np.array([np.nan])
    enough = values > 0 if lowest is None else values >= lowest
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values) & enough):
        problems.append(f"{name}={beta!r}; needed is {_finite_from(lowest)}, or one a round")
    elif not problems and len(values) not in (1, rounds):
        problems.append(f"{name}: {len(values)} values for {rounds} rounds; needed is one a round")
    problems += anchor(tau, ref)
    if problems:
        return [], problems
    return [float(b) for b in np.broadcast_to(values, (max(rounds, 1),))[:rounds]], problems


def steps(
    obj: Any, beta: Any, effective_step: Any, rounds: Any, ref: Any, tau: Any
) -> tuple[list[float], list[str]]:
    """One beta a round, from ``beta`` or ``effective_step`` (``R'(0)/beta``); 1 if from neither."""
    if beta is not None and effective_step is not None:
        problems = [
            "beta and effective_step: both given; needed is one of them, the weight of the KL step "
            "or R'(0)/beta"
        ]
        return [], problems + round_weights(1.0, rounds, ref, tau)[1]
    if effective_step is None:
        return round_weights(1.0 if beta is None else beta, rounds, ref, tau)
    values, problems = round_weights(effective_step, rounds, ref, tau, name="effective_step")
    try:
        return [float(obj.beta_at(step)) for step in values], problems
    except Unavailable as error:
        return [], [*problems, *(f"effective_step: {p}" for p in error.problems)]


def described(betas: list[float], beta: Any, effective_step: Any) -> str:
    """The weights of a path for its status, as "beta 1 (effective step 0.5)"."""
    if not betas:
        return "no beta used"
    low, high = min(betas), max(betas)
    said = f"beta {low:g}" if low == high else f"beta {low:g} to {high:g}"
    if effective_step is None:
        return f"{said}, as none was given" if beta is None else said
    step = np.unique(np.asarray(effective_step, dtype=np.float64))
    named = f"{step[0]:g}" if len(step) == 1 else f"{step[0]:g} to {step[-1]:g}"
    return f"{said} (effective step {named})"

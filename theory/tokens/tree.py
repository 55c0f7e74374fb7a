"""Layouts of token MDPs: sizes, enumeration, merging, and the checks of what a user passes in.

A layout is a layered graph of states.  `next_state[s, a]` is the state after action a, or -1 when
the response ends there; every edge goes from depth d to depth d + 1, and states are sorted by
depth, so that all recursions loop over depth alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory import laws
from theory.errors import InvalidInput
from theory.laws import is_real

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MAX_STATE_ACTIONS = 20_000_000
"""Largest number of state-action pairs (or responses) that is enumerated unasked."""

ROW_TOLERANCE = 1e-9
"""How far a row of a policy may miss total probability 1, or by the rounding of a narrower type."""

_SHOWN = 3


def is_whole(value: Any, least: int) -> bool:
    """Whether the value is an integer (no boolean) of at least `least`."""
    return (
        isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= least
    )


def numbers(what: str, given: Any) -> FloatArray:
    """The values as float64. InvalidInput: no numbers."""
    try:
        return laws.as_numbers(given)
    except (TypeError, ValueError) as error:
        raise InvalidInput([f"{what} must be an array of numbers ({error})"]) from None


def common_batch(**arrays: FloatArray) -> tuple[int, ...]:
    """Axes before the last two of arrays that broadcast. InvalidInput: they do not."""
    try:
        return np.broadcast_shapes(*(array.shape[:-2] for array in arrays.values()))
    except ValueError:
        named = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InvalidInput([f"axes before the last two do not fit: {named}"]) from None


def tree_size(vocab: int, horizon: int, prompts: int, eos: int | None, order: int | None) -> int:
    """Number of states of the layout that `tree_layout` would build (exact, no allocation)."""
    branching = vocab - (eos is not None)
    longest = horizon - 1 if order is None else order
    return sum(prompts * branching ** min(depth, longest) for depth in range(horizon))


def check_tree(
    vocab: Any, horizon: Any, prompts: Any, eos: Any, order: Any, max_state_actions: Any
) -> None:
    """Refuse vocabularies, horizons and sizes that cannot be enumerated; nothing is allocated."""
    problems = []
    for name, value, least in (
        ("vocab", vocab, 1 if eos is None else 2),
        ("horizon", horizon, 1),
        ("prompts", prompts, 1),
        ("order", 0 if order is None else order, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            problems.append(f"{name} must be a whole number, got {value!r}")
        elif value < least:
            problems.append(f"{name} must be at least {least}, got {value}")
    if not problems and eos is not None:
        if isinstance(eos, bool) or not isinstance(eos, (int, np.integer)):
            problems.append(f"eos must be a token index or None, got {eos!r}")
        elif not 0 <= eos < vocab:
            problems.append(f"eos must be a token index in 0..{vocab - 1} or None, got {eos}")
    if not is_real(max_state_actions):
        problems.append(f"max_state_actions must be a number, got {max_state_actions!r}")
    if not problems:
        count = tree_size(int(vocab), int(horizon), int(prompts), eos, order) * int(vocab)
        if count > max_state_actions:
            problems.append(
                f"vocab={vocab}, horizon={horizon}, prompts={prompts}, order={order} has "
                f"{count:,} state-action pairs, more than max_state_actions={max_state_actions:,}; "
                "shorten it, merge states (order=k), or raise max_state_actions"
            )
    if problems:
        raise InvalidInput(problems)


def tree_layout(
    vocab: int, horizon: int, prompts: int, eos: int | None, order: int | None
) -> tuple[IntArray, IntArray, IntArray]:
    """(next_state, depth, prompt) of the full tree, or of its merger by the last `order` tokens.

    Within a layer states are numbered by prompt, then by their tokens read as digits.
    """
    going_on = np.array([a for a in range(vocab) if a != eos], dtype=np.int64)
    branching = len(going_on)
    longest = horizon - 1 if order is None else order
    widths = [branching ** min(depth, longest) for depth in range(horizon)]
    starts = np.concatenate([[0], np.cumsum([prompts * w for w in widths])])
    next_state = np.full((int(starts[-1]), vocab), -1, dtype=np.int64)
    digits = np.arange(branching)
    for depth in range(horizon - 1):
        width, child_width = widths[depth], widths[depth + 1]
        codes = (np.arange(width)[:, None] * branching + digits) % child_width
        offsets = starts[depth + 1] + np.arange(prompts)[:, None, None] * child_width
        block = (offsets + codes).reshape(prompts * width, branching)
        next_state[starts[depth] : starts[depth + 1], going_on] = block
    depths = np.repeat(np.arange(horizon), [prompts * w for w in widths])
    owners = np.concatenate([np.repeat(np.arange(prompts), w) for w in widths])
    return next_state, depths, owners


def _where(mask: Any, described: Sequence[str] | None = None) -> str:
    rows = np.flatnonzero(mask)
    shown = ", ".join(described[:_SHOWN] if described else [str(r) for r in rows[:_SHOWN]])
    more = len(rows) - min(_SHOWN, len(rows))
    return shown + (f" and {more} more" if more else "")


def _array(given: Any) -> NDArray[Any]:
    """As numpy reads it; of rows of several lengths an array of lists, which nothing takes."""
    try:
        return np.asarray(given)
    except ValueError:
        return np.asarray(given, dtype=object)


def check_layout(
    next_state: Any, depth: Any, prompt: Any, allowed: Any
) -> tuple[IntArray, IntArray, IntArray, BoolArray]:
    """Check the arrays of a layout and return them as int64 / bool; all problems at once.

    `depth` and `prompt` may be None: depth is then counted from the states that no edge enters,
    which are the prompts in order.  `allowed` None allows every action.
    """
    try:
        successors = np.asarray(next_state)
        if successors.ndim != 2 or 0 in successors.shape:
            raise ValueError(f"shape {successors.shape}")
        if not np.issubdtype(successors.dtype, np.integer):
            raise ValueError(f"dtype {successors.dtype}")
    except ValueError as error:
        raise InvalidInput(
            [f"next_state must be a non-empty (states, actions) array of integers, got {error}"]
        ) from None
    successors = successors.astype(np.int64)
    states, actions = successors.shape
    problems: list[str] = []
    permitted = np.ones((states, actions), dtype=bool)
    if allowed is not None:
        given = _array(allowed)
        if given.shape != successors.shape or given.dtype != bool:
            problems.append(
                f"allowed must be a boolean array of shape {successors.shape}, got {given.dtype} "
                f"of shape {given.shape}"
            )
        else:
            permitted = given.copy()
    outside = ((successors < -1) | (successors >= states)).any(-1)
    if outside.any():
        problems.append(
            f"next_state must be -1 (the response ends) or a state 0..{states - 1}; "
            f"other values at states {_where(outside)}"
        )
        raise InvalidInput(problems)
    successors = np.where(permitted, successors, -1)
    stuck = ~permitted.any(-1)
    if stuck.any():
        problems.append(f"no action is allowed at states {_where(stuck)}")
    entered = np.zeros(states, dtype=bool)
    entered[successors[successors >= 0]] = True
    depths = _given_or_counted(depth, "depth", successors, problems)
    owners = None if depths is None else _owners(prompt, successors, depths, entered, problems)
    if depths is not None:
        if (np.diff(depths) < 0).any():
            problems.append("states must be sorted by depth")
        source, action = np.nonzero(successors >= 0)
        target = successors[source, action]
        jumps = np.zeros(states, dtype=bool)
        jumps[source[depths[target] != depths[source] + 1]] = True
        if jumps.any():
            problems.append(f"an action must lead one depth further; not so at {_where(jumps)}")
        orphans = (depths > 0) & ~entered
        if orphans.any():
            problems.append(f"no action leads to states {_where(orphans)}")
        if owners is not None:
            crossing = np.zeros(states, dtype=bool)
            crossing[source[owners[target] != owners[source]]] = True
            if crossing.any():
                problems.append(f"an action leads to another prompt's state at {_where(crossing)}")
    if problems or depths is None or owners is None:
        raise InvalidInput(problems)
    return successors, depths, owners, permitted


def _given_or_counted(
    depth: Any, name: str, successors: IntArray, problems: list[str]
) -> IntArray | None:
    states = len(successors)
    if depth is not None:
        given = _array(depth)
        if given.shape != (states,) or not np.issubdtype(given.dtype, np.integer):
            problems.append(f"{name} must be {states} integers, got {given.dtype} {given.shape}")
            return None
        if given.min() != 0:
            problems.append(f"{name} must start at 0, its least value is {given.min()}")
            return None
        return given.astype(np.int64)
    entered = np.zeros(states, dtype=bool)
    entered[successors[successors >= 0]] = True
    depths = np.full(states, -1, dtype=np.int64)
    layer = np.flatnonzero(~entered)
    for level in range(states + 1):
        if not len(layer):
            break
        depths[layer] = level
        following = successors[layer]
        layer = np.unique(following[following >= 0])
    if len(layer) or (depths < 0).any():
        problems.append("next_state has a cycle: every response must end within a fixed horizon")
        return None
    return depths


def _owners(
    prompt: Any, successors: IntArray, depths: IntArray, entered: BoolArray, problems: list[str]
) -> IntArray | None:
    roots = np.flatnonzero(depths == 0)
    if entered[roots].any():
        problems.append(f"an action leads back to a prompt's first state {_where(entered[roots])}")
        return None
    if prompt is not None:
        given = _array(prompt)
        if given.shape != depths.shape or not np.issubdtype(given.dtype, np.integer):
            problems.append(
                f"prompt must be {len(depths)} integers, got {given.dtype} {given.shape}"
            )
            return None
        if not np.array_equal(given[roots], np.arange(len(roots))):
            problems.append(
                "the states of depth 0 must be prompts 0, 1, 2, ... in this order, one state each; "
                f"got {given[roots].tolist()[:10]}"
            )
            return None
        return given.astype(np.int64)
    owners = np.full(len(depths), -1, dtype=np.int64)
    owners[roots] = np.arange(len(roots))
    for level in range(int(depths.max())):
        rows = np.flatnonzero(depths == level)
        following = successors[rows]
        owner = np.broadcast_to(owners[rows, None], following.shape)
        owners[following[following >= 0]] = owner[following >= 0]
    return owners


def policy_problems(
    log_policy: Any, allowed: BoolArray, describe: Any, what: str, normalised: bool = True
) -> list[str]:
    """What is wrong with an array of state-action log-probabilities, in words (or nothing)."""
    try:
        given = laws.as_numbers(log_policy)
    except (TypeError, ValueError):
        return [f"{what} must be an array of log-probabilities, got {type(log_policy).__name__}"]
    if given.ndim < 2 or given.shape[-2:] != allowed.shape:
        return [
            f"{what} must have shape (..., {allowed.shape[0]} states, {allowed.shape[1]} actions), "
            f"got {given.shape}"
        ]
    flat = given.reshape(-1, *allowed.shape)
    problems = []

    def report(mask: BoolArray, sentence: str) -> None:
        bad = mask.any(-1)
        if bad.any():
            named = []
            for batch, state in np.argwhere(bad)[:_SHOWN]:
                prefix = f"policy {batch}, " if len(flat) > 1 else ""
                named.append(f"{prefix}{describe(int(state))}")
            problems.append(f"{what}: {sentence} at " + _where(bad.reshape(-1), named))

    report(np.isnan(flat), "NaN")
    tolerance = laws.rounding_of(log_policy, ROW_TOLERANCE)
    report(flat > tolerance, "log-probabilities above 0 (probabilities given as they are?)")
    report((flat > -np.inf) & ~allowed, "probability on actions that are not allowed")
    if not problems and normalised:
        totals = np.exp(flat).sum(-1)
        off = np.abs(totals - 1.0) > tolerance
        if off.any():
            named = [
                (f"policy {batch}, " if len(flat) > 1 else "")
                + f"{describe(int(state))} (sum {totals[batch, state]:.9g})"
                for batch, state in np.argwhere(off)[:_SHOWN]
            ]
            problems.append(
                f"{what}: probabilities do not sum to 1 at {_where(off.reshape(-1), named)}; "
                f"needed is 1 to within {tolerance:g}"
            )
    return problems


def policy_of(log_policy: Any) -> FloatArray:
    """A policy without problems in float64; one of a narrower type is normalised again there."""
    given = laws.as_numbers(log_policy)
    narrow = laws.rounding_of(log_policy, ROW_TOLERANCE) > ROW_TOLERANCE
    return given - np.logaddexp.reduce(given, axis=-1, keepdims=True) if narrow else given

"""What an estimate from samples refuses: arguments, shapes, and rewards outside of the game's."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory import arguments, laws
from theory.errors import refuse
from theory.objectives import Objective
from theory.result import FloatArray


def level_problems(level: Any) -> list[str]:
    """What is wrong with the level of an interval."""
    if laws.is_real(level) and 0 < level < 1:
        return []
    return [f"level={level!r}; needed is a number within (0, 1)"]


def checked(
    tau: Any, highest: Any, kind: Any, level: Any, least_size: Any, **samples: Any
) -> dict[str, FloatArray]:
    """Samples (..., count) as arrays of common prompts, or a refusal with all that is wrong."""
    problems = arguments.number("tau", tau, 0.0) + level_problems(level)
    problems += arguments.choice("kind", kind, ("saddle", "equilibrium"))
    problems += arguments.number("least_size", least_size, 1.0)
    arrays: dict[str, FloatArray] = {}
    for name, values in samples.items():
        if values is None:
            continue
        try:
            array = laws.as_numbers(values)
        except (TypeError, ValueError) as error:
            problems.append(f"{name}: not an array of numbers ({error})")
            continue
        if array.ndim == 0 or array.shape[-1] < 2:
            problems.append(f"{name}: shape {array.shape}; needed are two responses or more")
        elif not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            problems.append(f"{name}: {array[where]} at {where}; needed are finite numbers")
        else:
            arrays[name] = array
    if samples["own_reward"] is None:
        problems.append("own_reward: missing; needed are rewards of the policy's responses")
    if not problems and tau > 0 and "own_anchor" not in arrays:
        problems.append(f"tau={tau!r} needs own_anchor, log pi/pi_ref of own responses")
    if not problems and tau == 0:
        problems += _highest_problems(highest, arrays)
    problems += _shape_problems(arrays)
    refuse(problems)
    prompts = np.broadcast_shapes(*(array.shape[:-1] for array in arrays.values()))
    return {
        name: np.broadcast_to(array, (*prompts, array.shape[-1])) for name, array in arrays.items()
    }


def _highest_problems(highest: Any, arrays: dict[str, FloatArray]) -> list[str]:
    if not (laws.is_real(highest) and np.isfinite(highest)):
        said = "needed is the largest reward of any response, which samples do not show"
        return [f"tau=0 with highest={highest!r}; {said}"]
    most = max(float(arrays[n].max()) for n in arrays if n.endswith("reward"))
    if most > highest:
        return [f"highest={highest!r} is below a reward that was given, {most:g}"]
    return []


def domain_problems(
    obj: Objective, arrays: dict[str, FloatArray], highest: float | None
) -> list[str]:
    """Rewards that the game's reward player may not play."""
    low, high = obj.reward_domain
    rewards = {name: values for name, values in arrays.items() if name.endswith("reward")}
    rewards |= {} if highest is None else {"highest": np.array([float(highest)])}
    problems = []
    for name, values in rewards.items():
        least, most = float(values.min()), float(values.max())
        slack = 1e-9 * (1.0 + max(abs(least), abs(most)))
        if least < low - slack or most > high + slack:
            problems.append(
                f"{name}: {least:g} to {most:g}; rewards of {obj.label} are within "
                f"[{low:g}, {high:g}]"
            )
    return problems


def best_problems(best: float, highest: float | None, *pays: FloatArray | None) -> list[str]:
    """At tau = 0 the highest reward must be the one that is paid most."""
    most = max(float(pay.max()) for pay in pays if pay is not None)
    if most <= best + 1e-9 * (1.0 + abs(best)):
        return []
    return [
        f"highest={highest!r} is paid {best:g} and a reward that was given {most:g}: -b(r) falls "
        "there as r grows; needed are rewards where it rises"
    ]


def _shape_problems(arrays: dict[str, FloatArray]) -> list[str]:
    """Arrays of one side must be of one count; prompts of all must broadcast."""
    problems = []
    for side in ("own", "expert"):
        counts = {n: a.shape[-1] for n, a in arrays.items() if n.startswith(side)}
        if len(set(counts.values())) > 1:
            problems.append(f"{side} responses differ in number: {counts}")
    try:
        np.broadcast_shapes(*(array.shape[:-1] for array in arrays.values()))
    except ValueError:
        shapes = {name: array.shape[:-1] for name, array in arrays.items()}
        problems.append(f"prompt axes do not broadcast: {shapes}")
    return problems

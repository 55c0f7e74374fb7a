"""What theory says of a run before it starts: its effective step, and whether rounds are stable.

Of exact two-step rounds near the expert (T6 iv), whatever the model: with ``s = R'(0)/beta`` a
small log-ratio ``x = log pi_t/p`` becomes ``(1 - s) x``, or what the opponent makes of it.
"""

from __future__ import annotations

import math

from lab.specs import objective_of
from llm_scale.data.user_file import PAIRS
from llm_scale.oracle_spec import NONE
from llm_scale.settings import Settings
from theory.errors import Unavailable
from theory.objectives import Objective
from theory.rounds.one_step import local_rate_one_step


def foretold(settings: Settings) -> list[str]:
    """The line of a run, and a warning where its step is beyond the threshold; none of SFT."""
    objective = objective_of(settings.objective)
    if objective is None:
        return []
    if reason := _nothing(settings, objective):
        return [f"theory: no threshold of the step: {reason}"]
    try:
        at_zero = objective.slope_at_zero
    except Unavailable as error:
        return [f"theory: no threshold of the step: {error}"]
    s, step = settings, at_zero / settings.beta
    line = f"theory: effective step R'(0)/beta = {step:.3g} (R'(0) = {at_zero:.4g}, "
    line += f"beta = {s.beta:.4g})"
    plain = limit(s, objective)
    parts = [line, f"exact rounds are stable near the expert {_below(plain, at_zero, s.tau)}"]
    if why := _opponent(s, objective):
        parts[-1] += f" ({why}; 2 without)"
    if objective.form == "pointwise" and plain == 2.0:
        factor = _one_step(objective, s.beta)
        if math.isfinite(factor):
            parts.append(f"one step of this loss on one model: a small log-ratio x {factor:.2f}")
    parts.append(_bounds(objective))
    out = ["; ".join(parts)]
    if step >= plain:
        out.append(
            f"WARNING: effective step {step:.3g} is not below {plain:.3g}: near the expert exact "
            f"rounds move away from it; stable is {_betas(plain, at_zero, s.tau)}"
        )
    return out


def limit(settings: Settings, objective: Objective) -> float:
    """Effective steps below this are locally stable.

    Own responses and log-ratios by pi_t: ``|1 - s| < 1``. With an anchor the factor is
    ``(beta - R'(0))/(beta + tau)``. With history m the polynomial is ``z^2 - (1 - s(1-m)) z + sm``;
    with the mean of the last two laws as the opponent it is ``z^2 - (1 - s)(z + 1)/2``; an opponent
    that follows pi_t by the share f gives ``f (1 - s)``. From pi_0 in every round nothing
    compounds, and below 2 a round ends nearer to the expert than pi_0.
    """
    s, m = settings, settings.history
    if m > 0:
        return min(1.0 / m, 2.0 / (1.0 - 2.0 * m) if m < 0.5 else math.inf)
    if objective.opponent_factor not in (0.0, 1.0):
        return 1.0 + 1.0 / objective.opponent_factor
    return 3.0 if s.opponent == "mixture" else 2.0 + s.tau / s.beta


def _nothing(settings: Settings, objective: Objective) -> str:
    """Why there is no such number."""
    s = settings
    if "preference" in objective.needs or s.oracle != NONE or s.data == PAIRS:
        return "preferences in the place of an expert, whose game is another one (T11, T12)"
    if s.terms != "both":
        return f"the term of {s.terms} responses alone: its best response is one for all of them"
    if s.own_from != "current":
        return "own responses of pi_0: every round adds R(log p/pi_0)/beta again, and none settles"
    if s.own_temperature != 1:
        return f"own responses at temperature {s.own_temperature:g}: pi at it, not pi, goes to p"
    if s.own_cut != "kept":
        return "own responses that are closed where they were cut: no samples of pi_t"
    if s.own_prompt != "whole":
        return "own responses that are drawn after another prompt: no samples of pi_t"
    if s.length_normalised:
        return "rewards divided by lengths: steps are as many times longer as responses have tokens"
    if s.tau > 0 and (s.history > 0 or s.opponent != "last" or objective.opponent_factor != 1.0):
        return "an anchor together with another opponent than pi_t"
    return ""


def _opponent(settings: Settings, objective: Objective) -> str:
    s = settings
    if s.history > 0:
        return f"history {s.history:g}"
    if objective.opponent_factor not in (0.0, 1.0):
        return "the objective's own opponent"
    if s.opponent != "last":
        return f"opponent {s.opponent}" if s.opponent == "mixture" else ""
    return f"anchor tau {s.tau:g}" if s.tau > 0 else ""


def _below(most: float, at_zero: float, tau: float) -> str:
    return f"below {most:.3g}: {_betas(most, at_zero, tau)}"


def _betas(most: float, at_zero: float, tau: float) -> str:
    """The same as a bound on beta; an anchor's is ``2 beta + tau > R'(0)``."""
    if math.isinf(at_zero):
        return "no beta"
    least = (at_zero - tau) / 2.0 if tau > 0 else at_zero / most
    return f"beta > {max(0.0, least):.3g}"


def _one_step(objective: Objective, beta: float) -> float:
    try:
        return local_rate_one_step(objective, beta)
    except Unavailable:
        return math.nan


def _bounds(objective: Objective) -> str:
    """What the rewards of exact best responses stay within."""
    try:
        low, high = objective.reward_bounds
    except Unavailable:
        return "no bound of rewards is known"
    if math.isinf(low) and math.isinf(high):
        return "rewards have no bound"
    return f"rewards within {low:g} and {high:g} nats"

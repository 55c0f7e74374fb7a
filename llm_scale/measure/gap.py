"""How far an anchored run is from where its rounds end, at most (T10, reconstruction).

The equilibrium ``pi*`` of the rounds is the least of ``D_Phi(pi||p) + tau KL(pi||pi_0)`` at every
prompt. The gap of pi_{t+1} and a reward ``r`` there is ``tau KL(pi_{t+1} || pi_0 e^{r/tau}/Z)``;
with ``r = R(log p/pi_{t+1})`` it bounds what is left, with the learned reward it is what the
policy did not take of what it has learned. One response a prompt cannot show ``log Z`` of each, so
prompts are pooled: by Jensen's inequality that is never below the mean of the prompts' gaps.

``Z`` of the true reward is a mean over responses of pi_0: pi_{t+1} hardly gives those that carry
it where the anchor is weak. In the learned gap pi_0 cancels, and own responses show all of it.
"""

from __future__ import annotations

import numpy as np

from llm_scale.measure.predicted import RewardTerms
from llm_scale.measure.telemetry import Floats, Fresh, Row
from theory.equilibria.sampled import sampled_gap
from theory.errors import InvalidInput
from theory.objectives.implicit import implicit_reward


def gap(fresh: Fresh, game: RewardTerms, opponent: str = "last") -> Row:
    """Gaps in nats a response, from fresh responses; empty without an anchor.

    ``gap``: with the true reward, and ``gap_kl``: the upper 95 % limit of the mean KL(pi||pi*)
    that follows. ``learned_gap``: with the learned reward. Each gap has its standard error; where
    it cannot be had, ``gap_reason`` and ``learned_gap_reason`` say why in its place.

    Args:
        fresh: responses of pi_{t+1}, with what the anchor adds to them.
        game: the objective and its weights.
        opponent: whose law the log-ratios divide by; "last" is pi_t's.
    """
    if fresh.anchor is None or game.tau == 0:
        return {}
    objective = game.objective
    if game.level != "sequence" or game.ablated or game.history > 0 or opponent != "last":
        return {"gap_reason": "T10 is of rewards per response against pi_t, and of whole losses"}
    if reason := objective.missing("potential"):
        return {"gap_reason": reason}
    anchor = fresh.anchor
    learned = implicit_reward(objective, fresh.after, fresh.before, game.beta, anchor.own, game.tau)
    ratio = fresh.after - anchor.own
    out = _one("learned_gap", learned, ratio, game)
    if not (np.isfinite(fresh.expert).all() and np.isfinite(anchor.expert).all()):
        return out | {"gap_reason": "the expert's law is not known, or is 0 at a response"}
    own, base = fresh.expert - fresh.after, anchor.expert - anchor.after
    return out | _one("gap", objective.link(own), ratio, game, objective.link(base))


def _one(
    name: str, reward: Floats, ratio: Floats, game: RewardTerms, of_base: Floats | None = None
) -> Row:
    try:
        found = sampled_gap(game.objective, game.tau, reward, ratio, of_base, kind="equilibrium")
    except InvalidInput as error:
        return {f"{name}_reason": str(error)}
    if not found.trusted:
        return {f"{name}_reason": found.status}
    row = {name: float(found.gap.value), f"{name}_se": float(found.gap.standard_error)}
    known = name == "gap" and np.isfinite(found.distance)
    return row | ({"gap_kl": float(found.distance)} if known else {})

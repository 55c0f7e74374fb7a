"""What a preference round did, on held-out prompts: wins, and the reward against ``2P - 1`` (S6);
of given pairs how their rewards order them.

Fresh responses only, never those that were trained on. A mean over prompts has its standard error
beside it, under the same name with ``_se``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lab import streams
from lab.stats import centred
from llm_scale.data.items import Item, Response
from llm_scale.data.oracles import CLASSES, Cyclic, Oracle
from llm_scale.measure import telemetry
from llm_scale.measure.predicted import RewardTerms
from llm_scale.models.player import Player
from llm_scale.models.weights import Weights
from llm_scale.rounds.opponent import over_positions, references
from llm_scale.rounds.preferences import compare
from theory.errors import Unavailable
from theory.objectives import Objective
from theory.objectives.implicit import implicit_reward
from theory.preferences import local_gain, payoff_scale, rock_paper_scissors

FloatArray = NDArray[np.float64]

PROMPTS = 64
"""Held-out prompts on which rewards are compared with win rates."""
JUDGED, AGAINST = 6, 3
"""Responses of such a prompt, and opponents of them in each of two independent estimates."""


def measured(
    player: Player,
    start: Player,
    oracle: Oracle,
    game: RewardTerms,
    items: Sequence[Item],
    fresh: Sequence[Response],
    base: Weights,
    round_: int,
) -> telemetry.Row:
    """S6 and the wins of a round.

    ``win_rate``, ``win_rate_base``: ``P(pi_{t+1} > pi_t)`` and ``P(pi_{t+1} > pi_0)``, one response
    of each to a prompt; ``preference_*``: see `regression`, with the slope that theory predicts.

    Args:
        player: plays pi_{t+1}. start: plays pi_t.
        oracle: the preference. game: the objective and its weights.
        items: held-out prompts with their reference and one response of pi_t.
        fresh: one response of pi_{t+1} to each.
        base: weights of pi_0. round_: key of the noise.
    """
    with start.frozen(base) as first:
        of_base = draw(first, items, "held out base", round_)
        triples = [
            [new.tokens, item.own[0].tokens, old[0].tokens]
            for item, new, old in zip(items, fresh, of_base, strict=True)
        ]
        won = compare(oracle, items, triples)
        out = telemetry.mean("win_rate", won[:, 0, 1])
        out |= telemetry.mean("win_rate_base", won[:, 0, 2])
        if isinstance(oracle, Cyclic):
            out |= class_shares(start, items, "_before") | class_shares(player, items)
        if game.objective.reference_free or player.settings.opponent != "last":
            return out
        some = list(items[:PROMPTS])
        judged = draw(start, some, "judged", round_, JUDGED + 2 * AGAINST)
        pairs = [
            (i.prompt, r.tokens) for i, rs in zip(some, judged, strict=True) for r in rs[:JUDGED]
        ]
        before, after = start.score(pairs).double(), player.score(pairs).double()
        anchor = first.score(pairs).double() if game.tau > 0 else None
        reward = implicit_reward(game.objective, after, before, game.beta, anchor, game.tau)
    chances = compare(oracle, some, [[r.tokens for r in rs] for rs in judged])[:, :JUDGED]
    halves = np.split(2.0 * chances[:, :, JUDGED:] - 1.0, 2, axis=-1)
    x, y = (half.mean(-1) for half in halves)
    out |= regression(reward.numpy().reshape(len(some), JUDGED), x, y)
    return out | predicted_slope(game.objective)


def class_shares(player: Player, items: Sequence[Item], at: str = "") -> telemetry.Row:
    """``class_0`` to ``class_2``: how often the player gives a response of a class, exactly.

    A mean over prompts of the first token's law, with its standard error.
    """
    every = torch.arange(player.language.model.config.vocab_size)[None, :]
    pairs = [(item.prompt, (0,)) for item in items]
    laws = over_positions(
        [player], pairs, [every] * len(pairs), lambda laws, chosen: laws[0].gather(-1, chosen)
    )
    law = torch.cat(laws).double().exp().numpy()
    kind = every[0].numpy() % CLASSES
    out: telemetry.Row = {}
    for k in range(CLASSES):
        out |= telemetry.mean(f"class_{k}{at}", law[:, kind == k].sum(-1))
    return out


def exploitability(shares: FloatArray, strength: float = 1.0) -> FloatArray:
    """How much more than 1/2 the best class wins (...) against these shares (..., 3) of classes.

    Of one class at all prompts; 0 at equal shares only.
    """
    edge = rock_paper_scissors(strength, CLASSES) - 0.5
    return np.asarray((shares @ edge.T).max(-1))


def on_given_pairs(
    player: Player,
    start: Player,
    game: RewardTerms,
    items: Sequence[Item],
    base: Weights,
) -> telemetry.Row:
    """Rewards of held-out given pairs: ``given_margin`` of winner over loser in nats, and
    ``given_accuracy``, the share of pairs whose winner has the higher one (a tie is half).

    Args:
        player: plays pi_{t+1}. start: plays pi_t.
        game: the objective and its weights.
        items: prompts with their winner as the expert's response and their loser as the own one.
        base: weights of pi_0.
    """
    pairs = [(i.prompt, side[0].tokens) for i in items for side in (i.expert, i.own)]
    opponent, anchor = references(start, pairs, start.score(pairs), game.objective, {}, base)
    after = player.score(pairs)
    log_anchor = anchor.double() if len(anchor) else None
    reward = implicit_reward(
        game.objective, after.double(), opponent.double(), game.beta, log_anchor, game.tau
    )
    winner, loser = reward.numpy().reshape(len(items), 2).T
    won = (1.0 + np.sign(winner - loser)) / 2.0
    return telemetry.mean("given_margin", winner - loser) | telemetry.mean("given_accuracy", won)


def regression(reward: FloatArray, first: FloatArray, second: FloatArray) -> dict[str, float]:
    """Slope of rewards on ``2P(y > pi_t) - 1``, centred per prompt, and their correlation.

    The win rate is known from few opponents only, which would flatten the slope; with two
    independent estimates ``x, x'`` of it, ``sum r (x + x')/2 / sum x x'`` is consistent.

    Args:
        reward: (prompts, responses) in nats.
        first, second: estimates of ``2P - 1``, same shape, from different opponents.
    """
    r, x, y = (centred(v) for v in (reward, first, second))
    x, y = (np.round(v, 12) for v in (x, y))  # equal win rates differ by their mean's last digit
    if not np.any(r):
        return {}
    found = telemetry.regression("preference", x, r, cluster=np.arange(len(r))[:, None], again=y)
    return {name: value for name, value in found.items() if np.isfinite(value)}


def predicted_slope(objective: Objective) -> dict[str, float]:
    """T11: the exact slope where the reward is ``g (2P - 1)``, else that near ``P = 1/2``."""
    try:
        return {"preference_slope_predicted": payoff_scale(objective)}
    except Unavailable:
        pass
    try:
        return {"preference_slope_local": local_gain(objective)}
    except Unavailable:
        return {}


def draw(
    player: Player, items: Sequence[Item], purpose: str, round_: int, count: int = 1
) -> list[list[Response]]:
    """``count`` responses of the player to every prompt: a function of purpose and round."""
    s = player.settings
    keys = [(item, k) for item in items for k in range(count)]

    def number(i: int) -> NDArray[np.float64]:
        item, k = keys[i]
        return streams.uniform(s.max_new_tokens, s.seed, purpose, round_, item.id, k)

    drawn = player.sample([item.prompt for item, _ in keys], number, purpose)[0]
    return [drawn[i * count : (i + 1) * count] for i in range(len(items))]

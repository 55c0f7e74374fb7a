"""A round's row: everything that is measured on held-out prompts when its steps are done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from llm_scale.data.items import Response
from llm_scale.data.oracles import Oracle
from llm_scale.data.tasks import Task
from llm_scale.data.user_file import PAIRS
from llm_scale.matching import Match
from llm_scale.measure import gap, held_out, matches, preferences, samples, telemetry, tokens
from llm_scale.measure.held_out import HeldOut
from llm_scale.measure.predicted import RewardTerms
from llm_scale.models.player import Player
from llm_scale.models.weights import Weights
from llm_scale.rounds.opponent import opponent_kind


class Row(NamedTuple):
    """What was measured, its points as CSV, fresh held-out responses of the model, and texts."""

    values: telemetry.Row
    points: str
    own: list[Response]
    samples: list[dict[str, Any]]


def measure(
    player: Player,
    task: Task,
    held: HeldOut,
    game: RewardTerms | None,
    oracle: Oracle | None,
    weights: Callable[[str], Weights],
    round_: int,
    match: Match | None = None,
) -> Row:
    """Measure the round that has just been trained.

    Args:
        player: plays pi_{t+1}.
        task: with its expert, whose log-probabilities are used where there is no oracle.
        held: held-out responses as pi_t scored them.
        game: the objective and its weights; None is SFT.
        oracle: the preference, or None.
        weights: those of pi_0 by "base", of pi_t by "current".
        round_: part of the key of the noise.
        match: how greedy responses are compared with the reference; None: they are not made.
    """
    if not held.items:
        return Row({}, "", [], [])
    expert = task.expert if oracle is None else None
    measured = held.measured(player, expert)
    own, texts = held_out.own_responses(player, held.items, round_ + 1), task.held_out_texts()
    said: dict[str, list[str]] = {}
    items = held_out.with_own(held.items, own)
    with player.frozen(weights("current")) as start:
        before = start.score(held_out.own_pairs(items))
        more: telemetry.Row = {}
        if game is not None and oracle is not None:
            more = preferences.measured(
                player, start, oracle, game, held.items, own, weights("base"), round_
            )
        elif game is not None and player.settings.data == PAIRS:
            if player.settings.opponent != "mixture":  # of which pi_{t-1} is not kept until here
                more = preferences.on_given_pairs(
                    player, start, game, task.held_out(), weights("base")
                )
        elif game is not None and game.level == "token":
            more = tokens.measured(player, start, held.items, expert, game)
        if match is not None:
            greedy = matches.measured(start, player, [i.prompt for i in items], texts, match)
            more |= greedy.values
            said = {"greedy_before": greedy.before, "greedy_after": greedy.after}
    imitated = game if oracle is None and player.settings.data != PAIRS else None
    anchor = None
    if imitated is not None and imitated.tau > 0:
        anchor = held_out.anchored(player, weights("base"), items, expert, round_ + 1)
    fresh = held_out.fresh(player, before, items, expert, anchor)
    predicted = telemetry.predictions(measured, game)
    row = telemetry.summary(measured, game, predicted, fresh)
    if imitated is not None:
        row |= gap.gap(fresh, imitated, opponent_kind(player, imitated.objective))
    row |= telemetry.lengths(held.items, "held_out_") | more
    row |= task.text_row([item.own[0] for item in held.items], "_before") | task.text_row(own)
    if folder := player.settings.sft_run:
        row |= held_out.sft_distance(player, Path(folder), held, items)
    shown = samples.table(task.tokenizer, texts, held.items, own, said)
    return Row(row, telemetry.table(measured, game, predicted), own, shown)

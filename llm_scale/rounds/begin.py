"""The start of a round: own responses, and the log-probabilities that stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lab import streams
from llm_scale.data.items import Item, Response, Tokens
from llm_scale.data.oracles import Oracle
from llm_scale.data.user_file import PAIRS
from llm_scale.models.player import Noise, Player
from llm_scale.models.weights import Weights
from llm_scale.rounds import tokens as token_level
from llm_scale.rounds.opponent import join, opponent_kind, references
from llm_scale.rounds.preferences import GivenPairs, PreferenceRound, given_pairs, judged
from llm_scale.rounds.sequence import Round
from llm_scale.rounds.tokens import TokenRound
from llm_scale.settings import Settings
from theory.objectives import Objective


@dataclasses.dataclass(frozen=True)
class Started:
    """A round and what the sampler itself saw of it.

    Attributes:
        data: the round.
        sampler: the sampler's log-probabilities of the own responses (monitor only); empty where
            none were sampled.
        own: the stored ones of the same responses. Where only some are drawn from pi_t
            (``history``, opponent "mixture", own responses of pi_0), both are of these alone.
    """

    data: Round
    sampler: Tensor
    own: Tensor


def begin(
    player: Player,
    items: Sequence[Item],
    round_: int,
    objective: Objective | None,
    previous: Weights,
    base: Weights,
    oracle: Oracle | None = None,
) -> Started:
    """Draw own responses to all items and score every response once.

    Args:
        player: plays pi_t.
        items: prompts with their expert responses.
        round_: number of the round, part of the key of the noise.
        objective: decides the opponent and whether pi_0's responses are needed; None is SFT.
        previous: weights of pi_{t-1} (opponent "mixture", or ``history``). base: weights of pi_0.
        oracle: compares own responses, and then no expert's is used; None is imitation.
    """
    settings = player.settings
    if settings.level == "token":
        return Started(*token_level.begin(player, items, round_, objective, base))
    if settings.data == PAIRS:
        return _given(player, items, objective, previous, base)
    kind = opponent_kind(player, objective)
    count, cut = settings.own_samples, settings.own_prompt == "cut"
    prompts = [seen_prompt(item.prompt, cut) for item in items for _ in range(count)]
    keys = [(item.id, k) for item in items for k in range(count)]

    def number(i: int) -> np.ndarray:
        return streams.uniform(settings.max_new_tokens, settings.seed, "own", round_, *keys[i])

    now = list(range(len(prompts)))  # whose sampler's law is the stored one
    if kind == "last" and settings.history > 0:
        of_now = _drawn_now(settings, len(prompts), round_)
        now = [i for i in now if of_now[i]]
        own, seen = _from_two(player, prompts, number, of_now, previous)
    elif kind == "last" and settings.own_from == "base":
        now = []
        with player.frozen(base) as other:
            own, seen = _own(other, prompts, number)
    elif kind == "last":
        own, seen = _own(player, prompts, number)
    elif kind == "base":
        with player.frozen(base) as other:
            own, seen = other.sample(prompts, number, "own responses")
    elif kind == "geometric":
        assert objective is not None
        with player.frozen(base) as other:
            join_with = join(objective)
            own, seen = player.sample(prompts, number, "own responses", [other.model], join_with)
    else:
        of_now = _of_mixture(settings.seed, keys, round_)
        now = [i for i in now if of_now[i]]
        own, seen = _from_two(player, prompts, number, of_now, previous)
    if settings.own_cut == "ended":
        now = [i for i in now if not own[i].truncated]
        own = [closed(response, player.language.ends[0]) for response in own]
    now = [] if cut else now
    full = [
        dataclasses.replace(
            item,
            expert=item.expert if oracle is None else (),
            own=tuple(own[i * count : (i + 1) * count]),
        )
        for i, item in enumerate(items)
    ]
    if objective is not None and "history" in objective.needs:
        full = _with_history(player, full, round_, base)
    pairs = [(item.prompt, r.tokens) for item in full for r in item.responses]
    current = player.score(pairs)
    opponent, anchor = references(player, pairs, current, objective, previous, base)
    data = Round(full, current, opponent, anchor)
    if oracle is not None:
        exact = settings.comparisons == "exact"
        data = judged(data, oracle, items, round_, settings.seed, exact)
    mask = torch.tensor([False, True, False])
    sizes = torch.tensor([len(full[0].expert), count, len(full[0].history)])
    is_own = mask.repeat_interleave(sizes).repeat(len(full))
    seen_by = torch.tensor(seen, dtype=torch.float64)
    drawn_from = current if kind == "mixture" else opponent  # that of its part, not of both
    return Started(data, seen_by[now], drawn_from[is_own][now])


def _given(
    player: Player,
    items: Sequence[Item],
    objective: Objective | None,
    previous: Weights,
    base: Weights,
) -> Started:
    """The round of given pairs: nothing is sampled, winners and losers are scored once."""
    pairs = [(item.prompt, r.tokens) for item in items for r in item.responses]
    current = player.score(pairs)
    opponent, anchor = references(player, pairs, current, objective, previous, base)
    data = given_pairs(Round(list(items), current, opponent, anchor))
    return Started(data, torch.empty(0, dtype=torch.float64), torch.empty(0))


def restore(tensors: dict[str, Tensor]) -> Round:
    """Inverse of a round's `tensors`, whatever its kind."""
    kinds = {"wins": PreferenceRound, "own": TokenRound, "share": GivenPairs}
    kind = next((c for name, c in kinds.items() if name in tensors), Round)
    return kind.of(tensors)


def _of_mixture(seed: int, keys: Sequence[tuple[int, int]], round_: int) -> list[bool]:
    """Which own responses come from pi_t: of the arithmetic mixture with pi_{t-1}, about half."""
    return [bool(streams.uniform(1, seed, "component", round_, *key)[0] < 0.5) for key in keys]


def _drawn_now(settings: Settings, count: int, round_: int) -> list[bool]:
    """Which own responses are drawn from pi_t: all but the share ``history``, to the nearest one.

    Which ones is drawn for the round as a whole, so the share is met and does not vary.
    """
    order = streams.generator(settings.seed, "history share", round_).permutation(count)
    old = set(order[: round(settings.history * count)].tolist())
    return [i not in old for i in range(count)]


def _from_two(
    player: Player,
    prompts: Sequence[Tokens],
    number: Noise,
    first: Sequence[bool],
    previous: Weights,
) -> tuple[list[Response], list[float]]:
    """Responses of pi_t where ``first`` says so, else of pi_{t-1}; each with its sampler's law."""
    drawn: dict[int, tuple[Response, float]] = {}
    with player.frozen(previous) as other:
        for who, chosen in ((player, True), (other, False)):
            index = [i for i, c in enumerate(first) if c == chosen]
            chosen_noise = partial(_at, number, index)
            part = who.sample([prompts[i] for i in index], chosen_noise, "own responses")
            drawn |= {i: (r, p) for i, r, p in zip(index, *part, strict=True)}
    return [drawn[i][0] for i in range(len(prompts))], [drawn[i][1] for i in range(len(prompts))]


def _own(
    player: Player, prompts: Sequence[Tokens], number: Noise
) -> tuple[list[Response], list[float]]:
    """Responses at the run's temperature for own ones; log-probabilities are those at 1."""
    temperature = player.settings.own_temperature
    return player.sample(prompts, number, "own responses", temperature=temperature)


def seen_prompt(prompt: Tokens, cut: bool) -> Tokens:
    """What own responses are drawn after; a cut prompt keeps its first token."""
    return prompt[: max(1, len(prompt) - 1)] if cut else prompt


def closed(response: Response, end: int) -> Response:
    """A response that was cut, with an end in the place of its last token."""
    if not response.truncated:
        return response
    return Response((*response.tokens[:-1], end), truncated=False)


def _at(noise_of: Noise, index: list[int], j: int) -> np.ndarray:
    return noise_of(index[j])


def _with_history(player: Player, items: list[Item], round_: int, base: Weights) -> list[Item]:
    """One response of pi_0 beside every item, for the history term."""
    settings = player.settings

    def number(i: int) -> np.ndarray:
        return streams.uniform(
            settings.max_new_tokens, settings.seed, "history", round_, items[i].id
        )

    with player.frozen(base) as other:
        first, _ = other.sample([item.prompt for item in items], number, "history")
    return [dataclasses.replace(i, history=(r,)) for i, r in zip(items, first, strict=True)]

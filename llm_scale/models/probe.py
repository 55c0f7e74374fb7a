"""A look at a model before work: does it sample what it scores, whatever is beside it in a batch?

Planned responses to random prompts of different lengths go through the sampler, one ending before
the others, and through the scorer, in a batch and row by row. All laws must agree token by token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from lab import streams
from llm_scale.models import output
from llm_scale.models.language import Language, Past
from llm_scale.models.sample import generate, places
from llm_scale.models.score import Pair, Scorer, collate
from theory.errors import InvalidInput, gist

HORIZON = 6
SHORT = (3, 7, 7)
"""Lengths of the prompts, in tokens; the first two are padded in one batch."""
ENDED = 3
"""Tokens of the response that ends first."""
ABSOLUTE, RELATIVE = 1e-3, 1e-4
"""Nats a token that float32 may round: hidden states are off by 1e-5 of their size, log pi of a
random token is 10 to 20, and 30 layers add up to a few 1e-5 (measured: 3e-5 a response on small
models, 4e-4 on one of 135 M). A state that is lost, or padding that is seen, changes it by 0.01 to
several nats."""
SLOW = {
    "kept rows": "its cache cannot drop responses that ended: they stay in the batch",
    "none": "its state cannot be kept from token to token as transformers' caches do: it is "
    "sampled by whole forward passes, which is exact and slow",
}


def fitted(
    language: Language, longest: int, say: Callable[[str], None] = lambda text: None
) -> Language:
    """The language with the fastest way of sampling that gives its own law.

    Args:
        longest: tokens of the longest prompt with its response.
        say: told if that is not the usual way.

    Raises:
        InvalidInput: the model's scores depend on what is beside them, or on what follows.
    """
    model, kind = language.model, type(language.model).__name__
    try:
        scorer = Scorer(model)
        pairs = planned(language, SHORT)
        alone = _alone(scorer, pairs)
        batch = _scored(scorer, pairs)
    except InvalidInput:
        raise
    except Exception as error:  # whatever a class raises that is no causal LM of tokens alone
        raise InvalidInput(
            f"{kind} cannot be run as a causal language model of text alone "
            f"({type(error).__name__}: {gist(error)[:160]})"
        ) from error
    if _gap(batch, alone) > 1.0:
        raise InvalidInput(
            f"{kind}: log pi of a token depends on what is beside it in a batch or follows it (by "
            f"{_nats(batch, alone)}): it is no causal language model"
        )
    refuse_switch(language, longest)
    apart = ""
    for way in get_args(Past):
        seen = _sampled(language, pairs, way)
        if seen is not None and _gap(seen, alone) <= 1.0:
            if way in SLOW:
                say(f"{kind}: {SLOW[way]}")
            return dataclasses.replace(language, past=way)
        apart = apart if seen is None else f" (a token differs by {_nats(seen, alone)})"
    raise InvalidInput(f"{kind}: what is sampled is not what is scored{apart}")


def refuse_switch(language: Language, longest: int) -> None:
    """InvalidInput: sequences as long as these make the model see their beginning differently."""
    switch = switches_at(language.model)
    if switch is None or longest <= switch:
        return
    scorer = Scorer(language.model)
    pairs = planned(language, (SHORT[0], switch - ENDED))
    alone = _alone(scorer, pairs)
    if _gap(_scored(scorer, pairs), alone) > 1.0 or _early_differs(scorer, pairs[1], switch):
        raise InvalidInput(
            f"{type(language.model).__name__}: its rotary factors switch for all tokens when a "
            f"sequence is longer than original_max_position_embeddings={switch} (log pi of a token "
            f"then differs by {_nats(_scored(scorer, pairs), alone)}), so that log pi would depend "
            f"on what follows; the longest prompt and max_new_tokens are {longest} tokens, needed "
            f"are at most {switch}"
        )


def switches_at(model: Any) -> int | None:
    """Length beyond which rotary factors may be others; None if there is none."""
    config = output.text_config(model)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    found = rope.get("original_max_position_embeddings") if isinstance(rope, dict) else None
    at = found or getattr(config, "original_max_position_embeddings", None)
    return None if at is None else int(at)


def planned(language: Language, lengths: Sequence[int]) -> list[Pair]:
    """Random prompts of these lengths, the shortest first, and responses; the first ends early."""
    rng, tokenizer = streams.generator(0, "probe"), language.tokenizer
    known = np.arange(min(len(tokenizer), output.vocabulary(language.model)))
    words = np.setdiff1d(known, [*language.ends, *tokenizer.added_tokens_decoder])
    words = words if len(words) else np.setdiff1d(known, language.ends)
    pairs = []
    for i, length in enumerate(lengths):
        prompt, response = (rng.choice(words, n).tolist() for n in (length, HORIZON))
        response = response if i else [*response[: ENDED - 1], language.eos]
        pairs.append((tuple(prompt), tuple(response)))
    return pairs


@torch.no_grad()
def _scored(scorer: Scorer, pairs: Sequence[Pair]) -> Tensor:
    device = next(scorer.parameters()).device
    scores: Tensor = scorer(*collate(pairs, device))[:, 0].cpu()
    return scores


def _alone(scorer: Scorer, pairs: Sequence[Pair]) -> Tensor:
    return torch.cat([_scored(scorer, [pair]) for pair in pairs])


def _early_differs(scorer: Scorer, pair: Pair, switch: int) -> bool:
    """Whether tokens before the switch are scored otherwise when others follow."""
    prompt, response = pair
    kept = response[: switch - len(prompt)]
    whole = _scored(scorer, [pair])[: len(kept)]
    return _gap(whole, _scored(scorer, [(prompt, kept)])) > 1.0


def _sampled(language: Language, pairs: Sequence[Pair], past: Past) -> Tensor | None:
    """The sampler's log pi of all planned tokens; None if the class cannot be sampled so."""
    found: list[list[float]] = [[] for _ in pairs]
    rows = list(range(len(pairs)))

    def force(laws: list[Tensor]) -> Tensor:
        """Note the law at the planned tokens, and let these be drawn."""
        step = max(map(len, found))
        alive = torch.tensor([len(pairs[i][1]) > step for i in rows])
        rows[:] = [rows[place] for place in places(alive).tolist()]
        wanted = torch.tensor([[pairs[i][1][step]] for i in rows], device=laws[0].device)
        for i, value in zip(rows, laws[0].gather(-1, wanted)[:, 0].tolist(), strict=True):
            found[i].append(value)
        return torch.full_like(laws[0], -torch.inf).scatter(-1, wanted, 0.0)

    prompts, half = [prompt for prompt, _ in pairs], np.full(HORIZON, 0.5)
    try:
        generate(
            [language.model], prompts, lambda _: half, HORIZON, language.ends, len(pairs), force,
            past=past,
        )  # fmt: skip
    except Exception:  # whatever a class raises that has no such cache
        return None
    return torch.tensor([value for row in found for value in row])


def _gap(a: Tensor, b: Tensor) -> float:
    """Largest difference in units of what rounding may do; infinite if a value is no number."""
    off = float(((a - b).abs() / (ABSOLUTE + RELATIVE * b.abs())).max())
    return off if np.isfinite(off) else float("inf")


def _nats(a: Tensor, b: Tensor) -> str:
    return f"{float((a - b).abs().max()):.2g} nats"

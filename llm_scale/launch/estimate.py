"""What a run will need, said before it starts: tokens, memory, and about how long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab.specs import objective_of
from llm_scale import processes
from llm_scale.data.items import Item
from llm_scale.data.tasks import Task
from llm_scale.models import Language, output
from llm_scale.models.player import Machine
from llm_scale.models.sample import generate
from llm_scale.models.score import CHUNK_LOGITS, Pair, Scorer, sequence_log_probs
from llm_scale.oracle_spec import NONE
from llm_scale.settings import Settings

LOOKED_AT = 64
"""Items whose lengths stand for all: held-out ones, which are drawn already."""
TRIED = 128
"""Padded tokens of the forward and backward pass that is timed, and no less than one response."""
SAMPLED = 4
"""Tokens of the responses whose sampling is timed."""


@dataclass(frozen=True)
class Needs:
    """Bytes of a run on one process, by what holds them.

    Attributes:
        weights: 4 bytes a parameter. gradients: the same of those that train.
        optimiser: AdamW's two moments and a count, 8 bytes a parameter that trains and 4 a tensor.
        activations: what the backward pass keeps of the largest forward pass: bytes a padded token
            as found on a small one, times `Settings.tokens_per_batch` or a step's tokens if these
            are fewer; and three times the logits of one chunk. With `Settings.recompute` the
            inputs of all layers are added, and that of the one layer at work is not.
        cache: keys and values of the responses sampled at a time, at their longest:
            2 x layers x key heads x head width x bytes a number x tokens x responses.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    cache: int

    @property
    def total(self) -> int:
        """The most at a time: activations and cache are not there together."""
        held = self.weights + self.gradients + self.optimiser
        return held + max(self.activations, self.cache)


def line(settings: Settings, language: Language, task: Task, machine: Machine) -> str:
    """One sentence: parameters, tokens a round and in all, memory and time."""
    s, some = settings, (task.held_out() or task.items(0))[:LOOKED_AT]
    size = sum(p.numel() for p in language.model.parameters())
    pairs = _pairs(some, s)
    share = [p for p in pairs if p[1]][: max(1, TRIED // max(1, _longest(pairs)))]
    bytes_a_token, seconds = tried(language, share, machine)
    needed = memory(s, language, task, pairs, bytes_a_token, machine)
    trained, started = tokens(s, pairs)
    drawn = (
        0.0 if s.level == "token" or s.objective == "sft" else _sampling(s, language, some, machine)
    )
    a_round = seconds * trained + drawn
    whole = s.rounds * a_round + seconds * started
    return (
        f"{_short(size)} parameters; {_short(trained)} training tokens a round, "
        f"{_short(s.rounds * trained + started)} in all; memory about {_bytes(needed.total)} "
        f"(weights {_bytes(needed.weights)}, gradients {_bytes(needed.gradients)}, optimiser "
        f"{_bytes(needed.optimiser)}, activations {_bytes(needed.activations)}, cache "
        f"{_bytes(needed.cache)}); time about {_time(whole)} without measuring"
    )


def tokens(settings: Settings, pairs: Sequence[Pair]) -> tuple[float, float]:
    """Prompt and response tokens that training sends through the model: a round, the SFT start.

    Own responses are taken to be as long as the expert's; a row shared by responses counts twice.
    """
    s, mean = settings, float(np.mean([len(p) + len(r) for p, r in pairs]))
    return (
        s.steps_per_round * s.batch * _sides(s) * mean,
        s.sft_steps * s.batch * s.expert_samples * mean,
    )


def memory(
    settings: Settings,
    language: Language,
    task: Task,
    pairs: Sequence[Pair],
    bytes_a_token: float,
    machine: Machine,
) -> Needs:
    """Of one process; see `Needs` for the formulas."""
    s, model = settings, language.model
    trains = [p for p in model.parameters() if p.requires_grad]
    held = sum(p.numel() * p.element_size() for p in trains)
    a_step = -(-s.batch // processes.announced()) * _sides(s) * _longest(pairs)
    at_once = max(min(s.tokens_per_batch, a_step), _longest(pairs))
    chunk = min(CHUNK_LOGITS, at_once * output.vocabulary(model))
    longest = task.longest_prompt + s.max_new_tokens
    rows = min(s.generate_batch, task.size * s.own_samples)
    cached = language.past != "none" and s.level != "token"
    wide = torch.empty((), dtype=machine.dtype).element_size()
    bytes_a_token += wide * layer_inputs(model) if s.recompute else 0
    return Needs(
        weights=sum(p.numel() * p.element_size() for p in model.parameters()),
        gradients=held,
        optimiser=2 * held + 4 * len(trains),
        activations=int(bytes_a_token * at_once) + 3 * 4 * chunk,
        cache=cache_width(model) * wide * longest * rows if cached else 0,
    )


def layer_inputs(model: Any) -> int:
    """Numbers that a token is to all layers together."""
    config = output.text_config(model)
    return int(getattr(config, "num_hidden_layers", 0) * getattr(config, "hidden_size", 0))


def cache_width(model: Any) -> int:
    """Numbers that a token leaves in the cache: keys and values of all layers."""
    config = output.text_config(model)
    heads = getattr(config, "num_attention_heads", None) or 1
    width = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    return 2 * int(getattr(config, "num_hidden_layers", 0)) * int(keys) * int(width)


def tried(language: Language, pairs: Sequence[Pair], machine: Machine) -> tuple[float, float]:
    """Bytes kept and seconds taken by a token of a forward and backward pass; nothing changes."""
    scorer = Scorer(language.model)
    size = sum(len(p) + len(r) for p, r in pairs)
    with machine.precision():  # first, as the first call of a kernel takes longer
        kept, _ = saved_bytes(lambda: sequence_log_probs(scorer, pairs), list(scorer.parameters()))
    began = time.perf_counter()
    _passes(scorer, pairs, machine)
    return kept / size, (time.perf_counter() - began) / size


def saved_bytes(forward: Any, parameters: Sequence[Tensor]) -> tuple[int, Any]:
    """Bytes that a forward pass keeps for the backward one, each storage once; and its result.

    Weights do not count, nor do inputs of layers that are computed again: see `layer_inputs`.
    """
    known = {p.untyped_storage().data_ptr() for p in parameters}
    seen: dict[int, tuple[int, Tensor]] = {}  # a storage that is held keeps its address

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    return sum(size for size, _ in seen.values()), result


def _passes(scorer: Scorer, pairs: Sequence[Pair], machine: Machine) -> None:
    with machine.precision():
        total = sequence_log_probs(scorer, pairs).sum()
    total.backward()
    scorer.zero_grad(set_to_none=True)
    float(total.detach())  # on a GPU: when it is done


def _sampling(
    settings: Settings, language: Language, items: Sequence[Item], machine: Machine
) -> float:
    """Seconds that the own responses of a round take to sample."""
    s = settings
    rows = min(s.generate_batch, s.prompts * s.own_samples or s.generate_batch)
    prompts = [items[i % len(items)].prompt for i in range(min(rows, 16))]
    noise, steps = np.full(SAMPLED, 0.5), min(SAMPLED, s.max_new_tokens)
    began = time.perf_counter()
    with machine.precision():
        generate(
            [language.model], prompts, lambda _: noise, steps, (-1,), len(prompts),
            past=language.past,
        )  # fmt: skip
    a_token = (time.perf_counter() - began) / steps / len(prompts)
    length = float(np.mean([len(r.tokens) for item in items for r in item.expert]))
    return a_token * length * len(items) * s.own_samples * max(1, s.prompts) / len(items)


def _sides(settings: Settings) -> int:
    """Responses of a prompt that a step of self-play reads."""
    s, objective = settings, objective_of(settings.objective)
    if objective is None or s.level == "token":
        return s.expert_samples
    if s.oracle != NONE:
        return s.own_samples
    return s.expert_samples + s.own_samples


def _pairs(items: Sequence[Item], settings: Settings) -> list[Pair]:
    return [(item.prompt, r.tokens) for item in items for r in item.expert[:1]]


def _longest(pairs: Sequence[Pair]) -> int:
    return max(len(p) + len(r) for p, r in pairs)


def _short(number: float) -> str:
    for size, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{_plain(number / size, 3)}{name}"
    return _plain(number, 3)


def _bytes(number: float) -> str:
    return f"{_short(number)}B" if number >= 1e3 else f"{number:.0f} B"


def _time(seconds: float) -> str:
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{_plain(seconds / size, 2)} {name}"
    return f"{_plain(max(seconds, 1), 2)} s"


def _plain(number: float, digits: int) -> str:
    """Rounded to so many digits, and not as 1e+02."""
    return f"{float(f'{number:.{digits}g}'):g}"

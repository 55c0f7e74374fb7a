"""A trained model outside its run: responses to prompts, and its loss on given pairs."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab import streams
from lab.settings import make
from llm_scale import models
from llm_scale.data import tasks, user_file, verses
from llm_scale.data.formats import Turns, read_examples
from llm_scale.data.items import Response, Tokens
from llm_scale.data.prompts import format_prompt, text_of, written
from llm_scale.launch import sources
from llm_scale.matching import Match
from llm_scale.matching import probe as probe_match
from llm_scale.measure import matches
from llm_scale.measure.telemetry import mean
from llm_scale.models import hub, output, probe
from llm_scale.models.player import Machine, Player
from llm_scale.models.score import Pair
from llm_scale.settings import Settings
from llm_scale.store import identity
from llm_scale.store.expert import NONE
from llm_scale.store.read import model_of, record_of
from theory.errors import InvalidInput, refuse

HORIZON = 64
"""Longest response of a model that is not of a run, in tokens."""


@dataclass(frozen=True)
class Opened:
    """A model ready to sample and score.

    ``settings`` are those of its run (or defaults) with its own directory as the model;
    ``task`` is what the run was trained on, "" for a model without a run; ``expert`` its expert;
    ``files`` are digests of what it was begun with.
    """

    player: Player
    settings: Settings
    task: str
    expert: str = NONE
    files: dict[str, str] = field(default_factory=dict)


def opened(
    path: Path, given: dict[str, Any], say: Callable[[str], None] = lambda text: None
) -> Opened:
    """Load the model of a run's folder or of a directory, with some settings replaced.

    ``say`` is told what is worth knowing of the model and what was done with its files.

    Raises:
        InvalidInput: nothing to load there, or settings that do not work.
    """
    where, settings = (path, {}) if hub.is_name(path) else model_of(path)
    start = settings or {"max_new_tokens": HORIZON}
    unread = {"task": "phrases", "objective": "sft", "oracle": "none", "expert": NONE}
    # ... which may name files long gone
    made: Settings = make(Settings, start | {"model": str(where)} | unread | given)
    if made.max_new_tokens == 0:
        raise InvalidInput("max_new_tokens=0; needed is >= 1")
    machine = Machine.of(made)
    language = models.load(where, torch.float32, machine.device, made.prompt_style, say)
    language = probe.fitted(language, 0, say)
    player, known = Player(language, made, machine), settings.get("expert", NONE)
    begun = record_of(path)["files"] if settings else {}
    return Opened(player, made, settings.get("task", ""), known, begun)


def _formatted(model: Opened, prompts: Sequence[str | Turns]) -> list[Tokens]:
    """Prompts as tokens. InvalidInput: all that are not plain text or too long, by number."""
    tokenizer, s = model.player.language.tokenizer, model.settings
    made, problems = [], []
    for number, prompt in enumerate(prompts, 1):
        try:
            made.append(tuple(format_prompt(tokenizer, prompt, s.prompt_style, s.prompt_date)))
        except InvalidInput as error:
            said = (problem.removeprefix("prompt ") for problem in error.problems)
            problems += [f"prompt {number}: {problem}" for problem in said]
    refuse(problems)
    _refuse_long(model, made)
    return made


def temperature_problems(temperature: float, count: int = 1) -> list[str]:
    """Why responses cannot be drawn at a temperature."""
    if not 0 <= temperature < float("inf"):
        return [f"--temperature {temperature}; needed is a finite number >= 0"]
    if temperature == 0 and count > 1:
        return [f"--temperature 0 has one response to a prompt; --count {count} must be 1"]
    return []


def warning(temperature: float) -> str:
    """What is to be known of responses that are not drawn at temperature 1; "" at 1."""
    how = "the likeliest token each time, " if temperature == 0 else ""
    return "" if temperature == 1 else f"temperature {temperature:g}: {how}not a sample of pi"


def responses(
    model: Opened, prompts: Sequence[str | Turns], count: int, seed: int, temperature: float = 1.0
) -> list[dict[str, Any]]:
    """``count`` samples of every prompt, in order; those of temperature 1 are exact ones of pi.

    Returns:
        Records of prompt, sample number, response text, number of tokens, whether it was cut at
        the horizon (it then has no EOS), and log-probability under pi in nats; of another
        temperature than 1 that as well.

    Raises:
        InvalidInput: prompts that do not fit into the model's context, or have unknown words.
    """
    tokenizer = model.player.language.tokenizer
    formatted = _formatted(model, prompts)
    drawn, log_probs = _sampled(model, formatted, count, seed, temperature)
    out = []
    for i, (response, log_prob) in enumerate(zip(drawn, log_probs, strict=True)):
        record: dict[str, Any] = {"prompt": _told(prompts[i // count]), "sample": i % count}
        record["response"] = text_of(tokenizer, response)
        record |= {"tokens": len(response.tokens), "truncated": response.truncated}
        record |= {"log_prob": round(float(log_prob), 5)}
        out.append(record | ({} if temperature == 1 else {"temperature": temperature}))
    return out


def _sampled(
    model: Opened, prompts: Sequence[Tokens], count: int, seed: int, temperature: float
) -> tuple[list[Response], list[float]]:
    horizon = model.settings.max_new_tokens
    each = [tokens for tokens in prompts for _ in range(count)]

    def number(i: int) -> np.ndarray:
        return streams.uniform(horizon, seed, "generate", *divmod(i, count))

    return model.player.sample(each, number, "responses", temperature=temperature)


def _told(prompt: str | Turns) -> str | list[dict[str, str]]:
    """A prompt for people: the text of a single turn, else the turns."""
    if isinstance(prompt, str):
        return prompt
    return prompt[0].content if len(prompt) == 1 else [turn._asdict() for turn in prompt]


def _refuse_long(model: Opened, prompts: Sequence[Tokens]) -> None:
    language, longest = model.player.language, model.settings.max_new_tokens
    room = output.context(language.model)
    refuse(
        f"prompt {i}: {len(p)} tokens and {longest} of a response; the model's context is {room}"
        for i, p in enumerate(prompts, 1)
        if room is not None and len(p) + longest > room
    )
    probe.refuse_switch(language, max(map(len, prompts), default=0) + longest)


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs to be scored, their texts (prompt, response), and the expert if known."""

    pairs: list[Pair]
    truncated: list[bool]
    texts: Sequence[tuple[str | Turns, str]]
    expert: Any = None


def examples(model: Opened, data: str, count: int) -> ScoredPairs:
    """The first ``count`` pairs (0: all) of a file, or the held-out ones of a task.

    Args:
        model: decides the tokens and the horizon.
        data: a file (see `llm_scale.data.formats`), "phrases", "verses", "text" (as the texts
            are), or "" for the held-out prompts of its own run, with that run's expert.
        count: pairs at most.

    Raises:
        InvalidInput: unreadable data, a task with other words than the model's, or files of its
            own run that are others now.
    """
    own = model.player.language.tokenizer
    if data and data not in tasks.NAMED:
        return _of_file(model, Path(data), count)
    name = data or model.task
    if not name:
        raise InvalidInput(
            "a model without a run has no task: say --data FILE.jsonl, phrases, verses or text"
        )
    settings = model.settings
    if not data and model.expert != NONE:
        settings = dataclasses.replace(settings, expert=model.expert)
    elif name == verses.NAME:
        return _verses(model, count)
    settings = dataclasses.replace(settings, task=name)
    refuse(_changed(model, settings) if not data else ())
    known = sources.known_expert(settings, model.player.machine)
    task = sources.task_of(settings, model.player.language, known)
    if task.tokenizer.get_vocab() != own.get_vocab():
        raise InvalidInput(f"data={name!r} has its own words, and the model knows others")
    items = task.held_out()[: count or None]
    if not items:
        raise InvalidInput(f"the run on {name} has no held-out prompts; say --data FILE.jsonl")
    first = [item.expert[0] for item in items]
    pairs = [(item.prompt, r.tokens) for item, r in zip(items, first, strict=True)]
    texts = task.held_out_texts()[: len(items)]
    return ScoredPairs(pairs, [r.truncated for r in first], texts, task.expert)


def _changed(model: Opened, settings: Settings) -> list[str]:
    """Data and expert of the model's own run that are not what it was begun with."""
    read = dataclasses.replace(settings, model="tiny", sft_run="", match="none")
    return [
        f"the run was begun with another content of {name}; put it back, or say --data FILE.jsonl "
        "to measure on another file"
        for name in identity.changed(model.files, read)
    ]


def _of_file(model: Opened, path: Path, count: int) -> ScoredPairs:
    """The first pairs of a file; of preferences the chosen responses."""
    found = read_examples(path)
    some = dataclasses.replace(found, examples=found.examples[: count or None])
    anything = {"max_prompt_tokens": user_file.WHOLE, "data": user_file.RESPONSES}
    settings = dataclasses.replace(model.settings, **anything)  # type: ignore[arg-type]
    language = model.player.language
    rows, problems = user_file.encoded(some, language.tokenizer, settings, language.ends)
    refuse((f"{found.records.where(n)}: {problem}" for n, problem in problems), most=10)
    _refuse_long(model, [row.prompt for row in rows])
    made = [user_file.cut(row.response, settings.max_new_tokens) for row in rows]
    pairs = [(row.prompt, r.tokens) for row, r in zip(rows, made, strict=True)]
    texts = [(e.prompt, e.response) for e in some.examples]
    return ScoredPairs(pairs, [r.truncated for r in made], texts)


def _verses(model: Opened, count: int) -> ScoredPairs:
    """The first verses held out by the model's settings, or ``count`` of them."""
    most = count or model.settings.held_out
    task = verses.verses(
        dataclasses.replace(model.settings, held_out=most, rounds=0, sft_steps=0),
        model.player.language.tokenizer,
        model.player.language.ends,
    )
    items = task.held_out()
    pairs = [(item.prompt, item.expert[0].tokens) for item in items]
    _refuse_long(model, [prompt for prompt, _ in pairs])
    cut = [item.expert[0].truncated for item in items]
    return ScoredPairs(pairs, cut, task.held_out_texts())


def evaluated(model: Opened, given: ScoredPairs) -> dict[str, float]:
    """Negative log-likelihood of the responses in nats, each mean with its standard error.

    ``nll`` per response, ``nll_per_token`` as the ratio of sums, ``kl`` from the expert if known.
    """
    nll = -model.player.score(given.pairs, progress=True).double().numpy()
    size = np.array([len(r) for _, r in given.pairs], dtype=np.float64)
    ratio = nll.sum() / size.sum()
    off = mean("off", (nll - ratio * size) / size.mean())["off_se"]
    out: dict[str, float] = {"responses": len(nll), **mean("nll", nll)}
    out |= {"nll_per_token": float(ratio), "nll_per_token_se": off}
    out |= {"perplexity": float(np.exp(ratio))}
    out |= mean("length", size) | mean("truncated", given.truncated)
    if given.expert is not None:
        out |= mean("kl", nll + given.expert.log_probs(given.pairs))
    return out


def matched(
    model: Opened, given: ScoredPairs, match: Match, seed: int, temperature: float = 1.0
) -> dict[str, float]:
    """How many prompts are answered right: greedily, and by one sample at a temperature above 0.

    ``match_greedy`` and ``match_sampled`` are means over prompts with standard errors;
    ``match_prompts`` is how many there are.

    Raises:
        InvalidInput: a user's function fails (it is tried on the first pair before any response is
            drawn), or references without the number that they are to give.
    """
    texts = [(written(prompt), reference) for prompt, reference in given.texts]
    probe_match(match, texts)
    prompts = [prompt for prompt, _ in given.pairs]
    out: dict[str, float] = {"match_prompts": len(prompts)}

    def score(name: str, drawn: Sequence[Response]) -> dict[str, float]:
        answers = [text_of(model.player.language.tokenizer, r) for r in drawn]
        return mean(name, matches.scores(match, texts, answers))

    out |= score("match_greedy", matches.responses(model.player, prompts))
    if temperature > 0:
        drawn, _ = _sampled(model, prompts, 1, seed, temperature)
        out |= score("match_sampled", drawn) | {"temperature": temperature}
    return out


def text_metrics(
    model: Opened, given: ScoredPairs, seed: int, temperature: float = 1.0
) -> dict[str, float]:
    """BLEU and chrF of one sampled response a prompt against the given ones, by sacrebleu.

    Responses are drawn after the tokens that are scored, not after their texts for people.

    ``archaic`` is the mean share of archaic words in the sampled ones: `data.verses.archaic`.

    Raises:
        InvalidInput: sacrebleu is not installed, or there are no texts to compare with.
    """
    try:
        sacrebleu = importlib.import_module("sacrebleu")
    except ImportError as error:
        raise InvalidInput("--text-metrics needs the package sacrebleu: install it") from error
    if not given.texts:
        raise InvalidInput("--text-metrics needs texts to compare with: say --data FILE.jsonl")
    drawn, _ = _sampled(model, [prompt for prompt, _ in given.pairs], 1, seed, temperature)
    said = [text_of(model.player.language.tokenizer, r) for r in drawn]
    wanted = [[response for _, response in given.texts]]
    return {
        "bleu": float(sacrebleu.corpus_bleu(said, wanted).score),
        "chrf": float(sacrebleu.corpus_chrf(said, wanted).score),
        "archaic": float(np.mean([verses.archaic(text) for text in said])),
        "generated_truncated": float(np.mean([r.truncated for r in drawn])),
    }

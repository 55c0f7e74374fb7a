"""Which tokens end a response: the template's, the tokenizer's and the model's own say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from theory.errors import InvalidInput

CONTENT = "answer"
IGNORED = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": None, "top_h": None, "typical_p": 1.0,
    "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "repetition_penalty": 1.0, "length_penalty": 1.0,
    "encoder_repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1,
    "bad_words_ids": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "sequence_bias": None,
    "exponential_decay_length_penalty": None, "guidance_scale": None, "min_length": 0,
    "min_new_tokens": None, "stop_strings": None, "penalty_alpha": None,
}  # fmt: skip
"""Options of transformers' generation that would change the law, and the values that do not."""


def of_template(tokenizer: Any) -> int | None:
    """The token that the chat template writes after an assistant's turn.

    The first control token after the content; white space may be between. None if there is no
    template, if it fails, or if it writes no such token.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": CONTENT}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:  # whatever a template raises: some know no assistant
        return None
    _, there, rest = text.rpartition(CONTENT)
    for token in tokenizer(rest, add_special_tokens=False)["input_ids"] if there else ():
        if int(token) in control(tokenizer):
            return int(token)
        if str(tokenizer.decode([token])).strip():
            return None
    return None


def control(tokenizer: Any) -> set[int]:
    """Tokens that are no piece of text."""
    return {int(i) for i in (*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder)}


def declared(model: Any) -> list[int]:
    """Ends of generation_config.json and config.json, each once."""
    found: list[int] = []
    for config in (getattr(model, "generation_config", None), model.config):
        ends = getattr(config, "eos_token_id", None)
        found += ends if isinstance(ends, list) else [] if ends is None else [ends]
    return list(dict.fromkeys(int(end) for end in found))


def find(model: Any, tokenizer: Any, style: str) -> tuple[tuple[int, ...], list[str]]:
    """All tokens that end a response, first the one that closes an expert's; and what to say.

    An end that the model declares and that is a piece of text for the tokenizer is left out: it is
    the default of a configuration that nobody filled in. The model's own declaration is completed,
    so that what is saved ends where it was trained to.

    Args:
        style: of the prompts (`llm_scale.data.prompts`); "plain" leaves the template out.

    Raises:
        InvalidInput: there is no end at all.
    """
    template = None if style == "plain" else of_template(tokenizer)
    own = None if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
    own_control, says = control(tokenizer), declared(model)
    meant = [end for end in says if end in own_control]
    ends = tuple(dict.fromkeys(end for end in (template, own, *meant) if end is not None))
    if not ends:
        reason = f", and eos_token_id={says} of the model is no control token" if says else ""
        raise InvalidInput(
            "its tokenizer has no EOS token, its chat template (if any) writes none after an "
            f"answer{reason}; set eos_token in its tokenizer_config.json"
        )
    said = []
    if len(ends) > 1 or set(says) != set(ends):
        said.append(_disagreement(tokenizer, template, own, says, ends))
    if not set(ends) <= set(says) and getattr(model, "generation_config", None) is not None:
        model.generation_config.eos_token_id = list(ends) if len(ends) > 1 else ends[0]
    return ends, said


def _disagreement(
    tokenizer: Any, template: int | None, own: int | None, says: Sequence[int], ends: Sequence[int]
) -> str:
    def names(tokens: Sequence[int | None]) -> str:
        known = [repr(tokenizer.convert_ids_to_tokens(t)) for t in tokens if t is not None]
        return ", ".join(known) or "none"

    left = [end for end in says if end not in ends]
    ignored = f" ({names(left)} is a piece of text and is no end)" if left else ""
    return (
        f"ends of a response: the chat template writes {names([template])}, the tokenizer's EOS is "
        f"{names([own])}, the model declares {names(says)}{ignored}; expert responses end with "
        f"{names(ends[:1])}, own ones with {'any of ' if len(ends) > 1 else ''}{names(ends)}"
    )


def ignored_options(model: Any) -> list[str]:
    """What to say of options in generation_config.json that would change the law."""
    config = getattr(model, "generation_config", None)
    given = {} if config is None else config.to_dict()
    found = [
        f"{name}={given[name]}"
        for name, plain in IGNORED.items()
        if given.get(name) is not None and given[name] != plain
    ]
    told = "responses are samples of the whole law at temperature 1"
    return [f"ignored of its generation_config.json: {', '.join(found)}; {told}"] if found else []

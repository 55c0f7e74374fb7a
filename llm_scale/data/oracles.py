"""Known preferences: how likely one response to a prompt beats another (theory, section 4)."""

from __future__ import annotations

import importlib.util
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from theory.errors import InvalidInput
from theory.preferences import bradley_terry, rock_paper_scissors

if TYPE_CHECKING:
    from llm_scale.data.experts import Expert
    from llm_scale.data.items import Item, Tokens

FloatArray = NDArray[np.float64]
NONE = "none"
CLASSES = 3
BUILT_IN = {"bradley-terry": ("scale", 1.0), "cyclic": ("strength", 1.0)}
"""Name of an oracle and its one parameter with the default."""


class Oracle(Protocol):
    """A general preference that can be evaluated."""

    def compare(self, item: Item, responses: Sequence[Tokens]) -> FloatArray:
        """``P[i, j] = P(y_i > y_j | x)`` (k, k), ``P + P^T = 1``.

        Args:
            item: the prompt; its expert response is the reference where there is no known expert.
            responses: k responses to it, EOS included where they ended.
        """
        ...


@dataclass(frozen=True)
class BradleyTerry:
    """``P(y > y') = s(scale (score(y) - score(y')))`` of a known score in nats."""

    score: Callable[[Item, Sequence[Tokens]], FloatArray]
    scale: float = 1.0

    def compare(self, item: Item, responses: Sequence[Tokens]) -> FloatArray:
        return bradley_terry(self.scale * self.score(item, responses))


@dataclass(frozen=True)
class Cyclic:
    """Rock, paper, scissors: a response's class is its first token's number modulo 3.

    ``strength`` is ``2P - 1`` between two classes, in (0, 1]; within a class nothing wins.
    """

    strength: float = 1.0

    def compare(self, item: Item, responses: Sequence[Tokens]) -> FloatArray:
        kind = np.array([r[0] % CLASSES for r in responses])
        return rock_paper_scissors(self.strength, CLASSES)[kind[:, None], kind[None, :]]


@dataclass(frozen=True)
class Judge:
    """A user's preference ``function(prompt, first, second)`` -> ``P(first > second)`` of texts.

    Each two responses are shown once, in the order of the arguments; the other order is 1 - P.
    """

    function: Callable[[str, str, str], float]
    tokenizer: Any
    name: str

    def compare(self, item: Item, responses: Sequence[Tokens]) -> FloatArray:
        prompt, *texts = _texts(self.tokenizer, item, responses)
        out = np.full((len(texts), len(texts)), 0.5)
        for i in range(len(texts)):
            for j in range(i + 1, len(texts)):
                out[i, j] = _number(self.name, self.function, prompt, texts[i], texts[j])
                out[j, i] = 1.0 - out[i, j]
        if not np.all((out >= 0) & (out <= 1)):
            wrong = out[(out < 0) | (out > 1)][0]
            raise InvalidInput(f"oracle={self.name!r} gave {wrong:g}; needed is within [0, 1]")
        return out


def build(spec: str, expert: Expert | None, tokenizer: Any) -> Oracle | None:
    """The oracle of a specification (see `problems`); None for "none".

    "bradley-terry" scores with the known expert's mean log-probability per token; without a known
    expert with the token F1 of a response and the prompt's reference response.

    Args:
        expert: known expert of the task, if any. tokenizer: writes texts for a user's function.

    Raises:
        InvalidInput: see `problems`.
    """
    if spec == NONE:
        return None
    path, name, value = _parse(spec)
    if path:
        function = _load(path, name)
        if len(inspect.signature(function).parameters) == 3:
            return Judge(function, tokenizer, spec)
        return BradleyTerry(_user_score(function, tokenizer, spec))
    if name == "cyclic":
        return Cyclic(value)
    return BradleyTerry(overlap if expert is None else _per_token(expert), value)


def problems(spec: str) -> list[str]:
    """What is wrong with a specification.

    It is "none", "bradley-terry(scale=S)", "cyclic(strength=S)" or "FILE.py:NAME", a function of
    texts: ``(prompt, response)`` gives a score (in nats, for Bradley-Terry), ``(prompt, first,
    second)`` a probability.
    """
    if spec == NONE:
        return []
    try:
        path, name, _ = _parse(spec)
        if path:
            _load(path, name)
    except InvalidInput as error:
        return list(error.problems)
    return []


def overlap(item: Item, responses: Sequence[Tokens]) -> FloatArray:
    """Token F1 (k,) of responses with the item's reference response, in [0, 1]."""
    reference = Counter(item.expert[0].tokens)
    size = sum(reference.values())
    common = [sum((Counter(r) & reference).values()) for r in responses]
    return np.array([2.0 * n / (size + len(r)) for n, r in zip(common, responses, strict=True)])


def _per_token(expert: Expert) -> Callable[[Item, Sequence[Tokens]], FloatArray]:
    def score(item: Item, responses: Sequence[Tokens]) -> FloatArray:
        whole = expert.log_probs([(item.prompt, r) for r in responses])
        return whole / np.array([len(r) for r in responses])

    return score


def _user_score(
    function: Callable[..., Any], tokenizer: Any, name: str
) -> Callable[[Item, Sequence[Tokens]], FloatArray]:
    def score(item: Item, responses: Sequence[Tokens]) -> FloatArray:
        prompt, *texts = _texts(tokenizer, item, responses)
        return np.array([_number(name, function, prompt, text) for text in texts])

    return score


def _texts(tokenizer: Any, item: Item, responses: Sequence[Tokens]) -> list[str]:
    """The prompt as it is formatted, then the responses, without special tokens."""
    return [
        str(tokenizer.decode(list(t), skip_special_tokens=True)) for t in (item.prompt, *responses)
    ]


def _number(name: str, function: Callable[..., Any], *texts: str) -> float:
    try:
        value = float(function(*texts))
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"oracle={name!r} failed: {type(error).__name__}: {error}") from error
    if not np.isfinite(value):
        raise InvalidInput(f"oracle={name!r} gave {value}; needed is a finite number")
    return value


def _parse(spec: str) -> tuple[str, str, float]:
    """Path ("" if built in), name, parameter."""
    path, _, rest = spec.rpartition(":")
    if path:
        return path, rest, 0.0
    name, bracket, inner = rest.partition("(")
    if name not in BUILT_IN or (bracket and not inner.endswith(")")):
        known = ", ".join(f"{n}({p}=NUMBER)" for n, (p, _) in BUILT_IN.items())
        raise InvalidInput(f"{spec!r}; needed is none, {known} or FILE.py:FUNCTION")
    parameter, value = BUILT_IN[name]
    if inner:
        key, _, given = inner.removesuffix(")").partition("=")
        try:
            value = float(given)
        except ValueError:
            value = np.nan
        high = 1.0 if name == "cyclic" else np.inf
        if key.strip() != parameter or not (0 < value <= high and np.isfinite(value)):
            needed = f"{parameter}=NUMBER, > 0" + (" and <= 1" if name == "cyclic" else "")
            raise InvalidInput(f"{spec!r}; needed is {name}({needed})")
    return "", name, value


def _load(path: str, name: str) -> Callable[..., Any]:
    """A function of a Python file. InvalidInput: no file, an error in it, or no such function."""
    where = f"{path}:{name}"
    if not Path(path).is_file():
        raise InvalidInput(f"{where}: no file {path}")
    made = importlib.util.spec_from_file_location(f"_oracle_{Path(path).stem}", path)
    if made is None or made.loader is None:
        raise InvalidInput(f"{where}: not a Python file")
    module = importlib.util.module_from_spec(made)
    try:
        made.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"{where}: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InvalidInput(f"{where}: the file has no function {name!r}")
    try:
        count = len(inspect.signature(function).parameters)
    except ValueError as error:
        raise InvalidInput(f"{where}: its arguments are not known ({error})") from error
    if count not in (2, 3):
        raise InvalidInput(
            f"{where} takes {count} arguments; needed are (prompt, response) for a score or "
            "(prompt, first, second) for a preference"
        )
    return function

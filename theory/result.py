"""The one result type of every solver: what was found, what certifies it, how it ended."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from theory.errors import InvalidInput
from theory.files import whole

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
ARRAYS = ("policy", "reward", "primal", "dual", "gap", "policies")


def frame(columns: Mapping[str, Any]) -> Any:
    """A pandas table of columns of one size, each array laid out row by row.

    Raises:
        InvalidInput: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise InvalidInput("to_frame needs pandas: pip install pandas") from None
    return pd.DataFrame({name: np.ravel(values) for name, values in columns.items()})


def prompt_columns(indices: Sequence[Any]) -> dict[str, Any]:
    """Index columns of the axes of prompts: "prompt", or "prompt_0", ... of several."""
    names = ["prompt"] if len(indices) == 1 else [f"prompt_{i}" for i in range(len(indices))]
    return dict(zip(names, indices, strict=True))


class Outcome(enum.Enum):
    """How a solver ended; ``Solution.status`` says it in a sentence."""

    CONVERGED = "converged"
    NOT_CONVERGED = "not converged"
    MOVING = "moving"
    CYCLE = "cycle of period two"
    DIVERGED = "diverged"
    NO_ROUNDS = "no rounds"


class Later:
    """A value of a :class:`Solution` that is computed when it is first looked at."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute


@dataclass(frozen=True)
class Solution:
    """What a solver found, and what certifies it.

    Attributes:
        policy: the policy, probabilities ``(..., n)`` (log-policy ``(S, A)`` for a TokenMDP).
        reward: the reward player's best response to it, same shape, in nats.
        primal: value of the policy, ``(...)`` in nats; what is minimised is named in ``status``.
        dual: a lower bound of the minimum, ``(...)``, from a feasible reward.
        gap: ``primal - dual >= 0``: a certificate that does not trust the solver, nor, where the
            objective has payoffs or a loss, its link: infinite where the link's reward is no best
            response to the laws at hand.
        outcome: an :class:`Outcome`.
        status: the same as a sentence, with the numbers; it starts with the outcome.
        iterations: iterations or rounds spent.
        policies: for paths, every iterate ``(rounds + 1, ..., n)``, the start first.
        details: further measurements by name; those of a path are ``(rounds + 1, ...)``.

    What takes a pass over large laws is computed when it is first read (:class:`Later`).
    """

    policy: FloatArray
    reward: FloatArray
    primal: FloatArray
    dual: FloatArray
    gap: FloatArray
    outcome: Outcome
    status: str
    iterations: int
    policies: FloatArray | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if isinstance(value, Later):
            value = value.compute()
            object.__setattr__(self, name, value)
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @property
    def converged(self) -> bool:
        """Whether the tolerance was met."""
        return self.outcome is Outcome.CONVERGED

    def to_frame(self) -> Any:
        """A pandas table.

        Of a path: one row a round and prompt with every measurement of ``details`` that is one
        number each. Otherwise one row a prompt and outcome with policy and reward.

        Raises:
            InvalidInput: pandas is not installed.
        """
        if self.policies is None:
            shape, own = self.policy.shape, ("outcome", -1)
            columns = {"policy": self.policy, "reward": self.reward}
        else:
            shape, own = self.policies.shape[:1] + np.shape(self.primal), ("round", 0)
            found = {k: v for k, v in self.details.items() if isinstance(v, np.ndarray)}
            columns = {k: v for k, v in found.items() if v.shape == shape}
        index = dict(enumerate(np.indices(shape).reshape(len(shape), -1)))
        named = {own[0]: index.pop(own[1] % len(shape))}
        return frame(named | prompt_columns(list(index.values())) | columns)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one .npz file, whole or not at all; read by :meth:`load`.

        Raises:
            InvalidInput: no path, or a detail that is no array, number, sentence or list of such.
            OSError: the file cannot be written.
        """
        _check_path(path)
        arrays = {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}
        plain: dict[str, Any] = {}
        for name, value in self.details.items():
            if isinstance(value, np.ndarray):
                arrays[f"details/{name}"] = value
            else:
                plain[name] = value.item() if isinstance(value, np.generic) else value
        words = {"outcome": self.outcome.name, "status": self.status, "details": plain}
        try:
            text = json.dumps({**words, "iterations": int(self.iterations)})
        except TypeError as error:
            raise InvalidInput(f"details: {error}") from None
        with whole(Path(path)) as part, part.open("wb") as file:
            np.savez(file, metadata=np.array(text), **arrays)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Solution:
        """Read what :meth:`save` wrote.

        Raises:
            InvalidInput: no path, no such file, or another kind of file.
        """
        _check_path(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            words = json.loads(str(arrays.pop("metadata")))
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInput(f"{path}: no saved solution ({error})") from None
        details = {k.split("/", 1)[1]: v for k, v in arrays.items() if k.startswith("details/")}
        return cls(
            **{name: arrays.get(name) for name in ARRAYS},  # type: ignore[arg-type]
            outcome=Outcome[words["outcome"]],
            status=words["status"],
            iterations=words["iterations"],
            details=words["details"] | details,
        )


def _check_path(path: Any) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidInput(f"path={path!r}; needed is the path of a file")

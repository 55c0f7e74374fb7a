"""The model at work: it samples and scores on its device, at its precision."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lab.progress import progress
from llm_scale import models, processes
from llm_scale.data.items import Response, Tokens
from llm_scale.models.sample import Combine, generate
from llm_scale.models.score import Pair, Scorer, score
from llm_scale.models.weights import Played, Weights
from llm_scale.settings import Settings
from theory.errors import InvalidInput

Noise = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Machine:
    """Device and precision of a run."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, settings: Settings) -> Machine:
        """Resolve "auto". InvalidInput: CUDA asked for and not there, or bfloat16 on the CPU."""
        there = torch.cuda.is_available()
        name = settings.device if settings.device != "auto" else ("cuda" if there else "cpu")
        if name == "cuda" and not there:
            raise InvalidInput("device='cuda': torch sees no CUDA device here; use auto or cpu")
        if name == "cpu" and settings.dtype == "bfloat16":
            raise InvalidInput("dtype='bfloat16' is for CUDA; on the CPU use auto or float32")
        wide = settings.dtype == "float32" or name == "cpu"
        dtype = torch.float32 if wide else torch.bfloat16
        if name == "cpu" or processes.announced() == 1:
            return cls(torch.device(name), dtype)
        if processes.local() >= torch.cuda.device_count():
            raise InvalidInput(
                f"{processes.announced()} processes; needed is a CUDA device for each, "
                f"and there are {torch.cuda.device_count()}"
            )
        return cls(torch.device("cuda", processes.local()), dtype)

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Computation in the run's precision; the parameters themselves stay float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)


class Player:
    """A language model that samples and scores; the only model in memory.

    Attributes:
        model: what is called to sample: ``language.model``, or that with other weights (`frozen`).
        scorer: what is called to score.
    """

    def __init__(self, language: models.Language, settings: Settings, machine: Machine) -> None:
        self.language, self.settings, self.machine = language, settings, machine
        self.model: Any = language.model
        self.scorer: nn.Module = Scorer(self.model)

    def score(self, pairs: Sequence[Pair], progress: bool = False) -> Tensor:
        """``log pi(y|x)`` (n,) in nats, float32 on the CPU: the forward pass of training."""
        share = processes.mine(range(len(pairs)))
        with self.machine.precision():
            part = score(self.scorer, [pairs[i] for i in share], self.settings.tokens_per_batch)
        return torch.tensor(processes.together(part.tolist()))

    def sample(
        self,
        prompts: Sequence[Tokens],
        noise: Noise,
        what: str,
        others: Sequence[Any] = (),
        combine: Combine | None = None,
        temperature: float = 1.0,
    ) -> tuple[list[Response], list[float]]:
        """One response to every prompt from this model (or joined with others): `generate`."""
        share = processes.mine(range(len(prompts)))
        bar = progress(None, len(share), "response", processes.rank() == 0, what=what)
        with bar, self.machine.precision():
            drawn, log_probs = generate(
                [self.model, *others],
                [prompts[i] for i in share],
                lambda i: noise(share[i]),
                self.settings.max_new_tokens,
                self.language.ends,
                self.settings.generate_batch,
                combine,
                lambda n: bar.update(n) and None,
                past=self.language.past,
                temperature=temperature,
            )
        together = processes.together(list(zip(drawn, log_probs, strict=True)))
        return [r for r, _ in together], [p for _, p in together]

    @contextlib.contextmanager
    def frozen(self, weights: Weights) -> Iterator[Player]:
        """This model played with other weights, beside itself: see `Played`. It never trains."""
        other = copy.copy(self)
        other.model = Played(self.language.model, weights)
        other.scorer = Scorer(other.model, bool(self.scorer.shares_prompts))
        yield other

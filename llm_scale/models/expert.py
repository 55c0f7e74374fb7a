"""A language model as a known expert: it answers, and its log-probabilities can be evaluated."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.progress import progress
from llm_scale import processes
from llm_scale.data.experts import Noise
from llm_scale.data.items import Response, Tokens
from llm_scale.models.player import Player
from llm_scale.models.sample import generate
from llm_scale.models.score import Pair, over_laws, score

FloatArray = NDArray[np.float64]

REMEMBERED = 8
_said: OrderedDict[str, list[Response]] = OrderedDict()
"""The last answers in this process: runs of a sweep ask one expert the same with the same noise."""


class ModelExpert:
    """A causal LM whose law is the truth; it stays as it is.

    It samples and scores as a player does (batches, device, precision), so that a learner with its
    weights has ``u = 0``. It works on what it is given: callers share between processes.
    """

    def __init__(self, player: Player) -> None:
        """``player``: of the expert's model, with the run's machine and batch sizes."""
        self.player = player
        player.language.model.requires_grad_(False)

    def log_probs(self, pairs: Sequence[Pair]) -> FloatArray:
        """``log p(y|x)`` (n,) in nats; of a response cut at the horizon that of its tokens."""
        with self.player.machine.precision():
            found = score(self.player.scorer, pairs, self.player.settings.tokens_per_batch)
        return np.asarray(found.double().numpy())

    def sample(self, prompts: Sequence[Tokens], noise: Noise) -> list[Response]:
        """A response to every prompt at temperature 1, with one uniform number a token."""
        key = self._question(prompts, noise)
        if key not in _said:
            _said[key] = self._drawn(prompts, noise)
        _said.move_to_end(key)
        while len(_said) > REMEMBERED:
            _said.popitem(last=False)
        return list(_said[key])

    def _question(self, prompts: Sequence[Tokens], noise: Noise) -> str:
        """Digest of all that decides the answers: weights, precision, prompts, noise."""
        found = hashlib.sha256(repr((self.player.machine, self.player.language.ends)).encode())
        for name, value in self.player.language.model.state_dict().items():
            found.update(name.encode())
            found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        for i, prompt in enumerate(prompts):
            found.update(repr(prompt).encode())
            found.update(noise(i).tobytes())
        return found.hexdigest()

    def _drawn(self, prompts: Sequence[Tokens], noise: Noise) -> list[Response]:
        language = self.player.language
        lead = processes.rank() == 0
        bar = progress(None, len(prompts), "response", lead, what="expert responses")
        with bar, self.player.machine.precision():
            drawn, _ = generate(
                [language.model],
                prompts,
                noise,
                len(noise(0)) if prompts else 0,
                language.ends,
                self.player.settings.generate_batch,
                advance=lambda n: bar.update(n) and None,
                past=language.past,
            )
        return drawn

    def laws_along(self, pairs: Sequence[Pair]) -> FloatArray:
        """Log-laws (T, V) of the next token at all positions of the responses, normalised."""

        def read(laws: list[Tensor], _: Tensor) -> Tensor:
            return laws[0].double()

        rows = [torch.zeros(len(y), 0) for _, y in pairs]
        size = self.player.settings.tokens_per_batch
        with self.player.machine.precision():
            found = torch.cat(over_laws([self.player.scorer], pairs, rows, size, read))
        return np.asarray(found.log_softmax(-1).numpy())

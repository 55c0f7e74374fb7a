"""Short phrases of real text as an expert: a law over all responses of a small token tree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory import TokenMDP
from theory.result import FloatArray
from theory.tokens.text import common_phrases, load_pairs


@dataclass(frozen=True)
class Phrases:
    """Phrases of the shipped text (World English Bible) that use few different words.

    Attributes:
        game: the tree of all responses; ``game.expert`` is the order-``order`` model of the text.
        law: that model's law over complete responses, (1, N).
        counts: how often each response stands in the text, (1, N).
    """

    game: TokenMDP
    law: FloatArray
    counts: FloatArray

    @property
    def empirical(self) -> FloatArray:
        """The text's own frequencies, (1, N): what an order-k model only approximates."""
        return self.counts / self.counts.sum(-1, keepdims=True)


def read_phrases(
    words: int = 6, horizon: int = 4, order: int = 2, smoothing: float = 0.01
) -> Phrases:
    """Phrases of 2 to ``horizon - 1`` words among the ``words`` commonest, each ended by EOS.

    ``smoothing`` is added to all counts of the model of the text, so that it covers every response.
    """
    texts = common_phrases((pair.response for pair in load_pairs()), words, 2, horizon - 1)
    game = TokenMDP.from_text(
        texts, order=order, tree=True, vocab_size=words + 2, horizon=horizon, smoothing=smoothing
    )
    assert game.expert is not None
    names = {r.text.removesuffix(" </s>"): i for i, r in enumerate(game.sequences()[0])}
    counts = np.zeros((1, game.n_responses))
    for text in texts:
        counts[0, names[text]] += 1.0
    return Phrases(game, game.sequence_law(game.expert), counts)

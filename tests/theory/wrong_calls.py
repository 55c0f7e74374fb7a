"""What wrong calls of public verbs have in common: the arguments, and how they are refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from theory import InvalidInput, TokenMDP, Unavailable, objectives, preferences

get = objectives.get
P, Q, THREE = np.array([0.3, 0.7]), np.array([0.5, 0.5]), np.full(3, 1 / 3)
BATCH = np.full((2, 3), 1 / 3), np.full((4, 3), 1 / 3)
SPIF, SPIN, IPO = get("spif"), get("spin"), get("ipo")
SPPO, INPO, TSPIN = get("sppo"), get("inpo"), get("tspin")
GAME = TokenMDP.random(vocab=3, horizon=2, seed=0)
RPS = preferences.rock_paper_scissors()

Call = Callable[[], object]
Calls = dict[str, tuple[Call, str | list[str]]]
"""By name: a call, and the message, or what the problems name that come at once."""


def refused(call: Call, said: str | list[str]) -> None:
    """InvalidInput with the message, or with every part; a part that is absent is Unavailable."""
    with pytest.raises(InvalidInput, match=said if isinstance(said, str) else None) as caught:
        call()
    assert caught.value.problems
    absent = re.match(r"\w+ has no [\w ]+: ", str(caught.value))
    assert not absent or isinstance(caught.value, Unavailable)
    for part in said if isinstance(said, list) else []:
        assert any(part in problem for problem in caught.value.problems), (part, str(caught.value))
        assert len(caught.value.problems) >= len(said)

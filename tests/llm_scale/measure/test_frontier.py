"""KL at several temperatures against the sums over all responses of a game that can be listed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llm_scale.data.items import Response
from llm_scale.measure.frontier import frontier, tempered
from tests.llm_scale import tiny_game

PAIRS = [(tiny_game.PROMPT, response) for response in tiny_game.RESPONSES]
MANY = 4000


@pytest.fixture(scope="module")
def who():
    return tiny_game.player(tiny_game.settings(seed=3))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.3])
def test_a_tempered_law_is_a_law_and_at_one_the_model_itself(who, temperature: float) -> None:
    log_law = tempered(who, PAIRS, temperature)
    assert np.isclose(np.exp(log_law).sum(), 1.0, atol=1e-6)
    same = np.allclose(log_law, who.score(PAIRS).numpy(), atol=1e-5)
    assert same == (temperature == 1.0)


def test_every_token_is_tempered_and_not_the_response(who) -> None:
    """Per-token temperature is another law than pi^(1/T) normalised over responses."""
    whole = who.score(PAIRS).double().numpy() / 0.5
    whole -= np.logaddexp.reduce(whole)
    assert np.abs(np.exp(whole) - np.exp(tempered(who, PAIRS, 0.5))).max() > 0.01


def test_the_numbers_are_those_of_the_listed_laws(who) -> None:
    task = tiny_game.task(who.settings)
    log_p = task.expert.log_probs(PAIRS)
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(PAIRS), size=MANY, p=np.exp(log_p) / np.exp(log_p).sum())
    prompt = task.items(0)[0]
    items = [
        replace(prompt, id=i, expert=(Response(PAIRS[k][1], False),)) for i, k in enumerate(drawn)
    ]
    for row in frontier(who, task.expert, items, (1.0, 0.5)):
        log_q = tempered(who, PAIRS, row["temperature"])
        p, q = np.exp(log_p), np.exp(log_q)
        exact = {
            "kl": p @ (log_p - log_q),
            "reverse_kl": q @ (log_q - log_p),
            "own_expert_nll": -q @ log_p,
            "entropy": -q @ log_q,
            "own_length": q @ [len(response) for _, response in PAIRS],
        }
        for name, value in exact.items():
            assert abs(row[name] - value) < 4 * row[f"{name}_se"], name

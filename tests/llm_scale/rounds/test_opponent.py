"""Who the log-ratios divide by, and when the first model has to be read."""

from types import SimpleNamespace

import pytest
import torch

from llm_scale.data.items import Item, Response
from llm_scale.models import weights
from llm_scale.rounds.batches import tokens_of
from llm_scale.rounds.opponent import needs_base, opponent_kind, references
from tests.llm_scale import tiny_game
from theory import objectives

CASES = [  # objective, opponent, tau -> whose law, whether pi_0 is read
    (None, "last", 0.0, "last", False),
    ("spin", "last", 0.0, "last", False),
    ("spin", "mixture", 0.0, "mixture", False),
    ("spin", "base", 0.0, "base", True),
    ("spin", "last", 0.5, "last", True),
    ("inpo", "last", 0.0, "last", True),
    ("alpha_spin", "last", 0.0, "geometric", True),
]


@pytest.mark.parametrize(("name", "opponent", "tau", "kind", "read"), CASES)
def test_an_objective_s_own_opponent_goes_before_the_setting(name, opponent, tau, kind, read):
    player = SimpleNamespace(settings=SimpleNamespace(opponent=opponent, tau=tau))
    objective = None if name is None else objectives.get(name)
    assert opponent_kind(player, objective) == kind
    assert needs_base(player, objective) == read


def test_tokens_are_those_of_prompts_and_all_responses():
    items = [
        Item(0, (1, 2), (Response((3, 4, 5), False),), (Response((6,), False),)),
        Item(1, (7,), (Response((8,), False),), ()),
    ]
    assert tokens_of(SimpleNamespace(items=items), [0, 1, 1]) == 6 + 2 + 2


def next_laws(who, response):
    """Next-token log-laws (length, vocabulary) along a response, by transformers."""
    ids = torch.tensor([[*tiny_game.PROMPT, *response]])
    with torch.no_grad():
        logits = who.language.model(input_ids=ids).logits[0]
    return logits[len(tiny_game.PROMPT) - 1 : -1].double().log_softmax(-1)


def test_the_log_laws_of_every_opponent():
    """pi_t itself, pi_0, the mixture of two rounds, and a geometric one a token, normalised."""
    now, first, last = (tiny_game.player(tiny_game.settings(seed=seed)) for seed in range(3))
    pairs = [(tiny_game.PROMPT, r) for r in tiny_game.RESPONSES[:20]]
    of_now, of_first, of_last = (who.score(pairs).double() for who in (now, first, last))
    base, previous = (weights.copy_of(who.language) for who in (first, last))

    def found(name, opponent="last"):
        now.settings = tiny_game.settings(opponent=opponent)
        objective = None if name is None else objectives.get(name)
        return references(now, pairs, of_now, objective, previous, base)

    for name in (None, "spin"):
        opponent, anchor = found(name)
        assert torch.equal(opponent, of_now)
        assert len(anchor) == 0
    opponent, anchor = found("spin", "base")
    torch.testing.assert_close(opponent.double(), of_first, atol=1e-5, rtol=0)
    assert torch.equal(opponent, anchor)
    opponent, _ = found("spin", "mixture")
    mixed = torch.log(0.5 * of_now.exp() + 0.5 * of_last.exp())
    torch.testing.assert_close(opponent.double(), mixed, atol=1e-5, rtol=0)
    opponent, anchor = found("alpha_spin(base_weight=0.3)")
    torch.testing.assert_close(anchor.double(), of_first, atol=1e-5, rtol=0)
    for value, (_, response) in zip(opponent.tolist(), pairs, strict=True):
        joint = 0.7 * next_laws(now, response) + 0.3 * next_laws(first, response)
        law = joint.log_softmax(-1).gather(-1, torch.tensor(response)[:, None])
        assert value == pytest.approx(float(law.sum()), abs=1e-5)

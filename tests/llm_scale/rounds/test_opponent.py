"""Who the log-ratios divide by, and when the first model has to be read."""

from types import SimpleNamespace

import pytest

from llm_scale.data.items import Item, Response
from llm_scale.rounds.batches import tokens_of
from llm_scale.rounds.opponent import needs_base, opponent_kind
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

"""Listed responses, the levelled loss and the plan of runs, item by item."""

import itertools
import math

import numpy as np
import pytest
import torch

from lab.specs import objective_of
from llm_scale.study import listed_laws, tiny_runs
from theory.errors import InvalidInput


def test_responses_of_two_words():
    assert listed_laws.size(3, 2) == 1 + 2 + 4
    assert listed_laws.size(4, 3) == 1 + 3 + 9 + 27
    expected = [(1,), (0, 1), (2, 1), (0, 0), (0, 2), (2, 0), (2, 2)]
    assert listed_laws.responses(3, 1, 2) == expected
    with pytest.raises(InvalidInput, match="at most 2000000 can be listed"):
        listed_laws.responses(20, 0, 6)


def test_laws_are_products_along_the_listed_responses():
    """A next token's law that depends on the whole sequence before it."""

    def next_law(sequences):
        score = (sequences * np.arange(1, sequences.shape[1] + 1)).sum(-1)
        logits = np.cos(score[:, None] + np.arange(3) * 1.7)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    prompts, eos = [(4, 2), (5,)], 1
    found = listed_laws.log_laws(next_law, prompts, 3, eos, 3)
    assert found.shape == (2, 15)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1.0)
    for row, prompt in zip(found, prompts, strict=True):
        for value, response in zip(row, listed_laws.responses(3, eos, 3), strict=True):
            known = [
                next_law(np.array([[*prompt, *response[:i]]]))[0, token]
                for i, token in enumerate(response)
            ]
            assert value == pytest.approx(sum(known))


def test_the_levelled_loss():
    loss = objective_of(f"{tiny_runs.LEVELLED}:levelled_ipo(level=0.3)")
    d = np.array([-0.5, 2.0])
    np.testing.assert_allclose(loss.pair_loss(d), (d - 1.3) ** 2)
    assert loss.reward_loss(0.4, -0.1) == pytest.approx((0.5 - 1.3) ** 2 + 0.3 * 0.3**2)
    x, y = torch.tensor([0.4, 1.0]).double(), torch.tensor([-0.1, 0.2, 0.7]).double()
    w, v = torch.tensor([1.0, 3.0]).double(), torch.tensor([2.0, 1.0, 1.0]).double()
    each = [[float(loss.reward_loss(a, b)) for b in y] for a in x]
    mean = np.average(np.average(each, axis=1, weights=v), weights=w)
    assert float(loss.reward_risk(x, y, w, v)) == pytest.approx(mean)
    assert float(loss.reward_risk(x, y)) == pytest.approx(np.mean(each))


def test_a_job_at_an_effective_step():
    made = tiny_runs.job("link", "spif", 10.0, seed=0, steps_per_round=256, rounds=2)
    s = made.settings
    assert (s.objective, s.beta, s.rounds) == ("spif(c=1)", 0.05, 2)
    assert (s.steps_per_round, s.prompts) == (256, 32 * 256)
    assert (made.arm, made.level, made.points) == ("spif(c=1)", None, True)
    assert not tiny_runs.job("link", "spif", seed=1).points
    assert not tiny_runs.job("link", "spif", seed=0, steps_per_round=64).points
    assert not tiny_runs.job("rate", "spif", seed=0).points
    levelled = tiny_runs.job("level", "ipo", 10.0, 0.3, seed=0)
    assert levelled.settings.objective.endswith("levelled_ipo.py:levelled_ipo(level=0.3)")
    assert (levelled.arm, levelled.level, levelled.settings.beta) == ("ipo(margin=1)", 0.3, 0.05)
    assert levelled.settings.steps_per_round == 256


@pytest.mark.parametrize("full", [False, True])
def test_the_plan(full):
    jobs = tiny_runs.plan(full)
    seeds = range(5 if full else 3)
    kinds = {}
    for made in jobs:
        kinds.setdefault(made.study, []).append(made)
    a_seed = {"equal compute": 1, "stability": 4, "level": 4, "rate": 12, "link": 9}
    a_seed |= {"link": 13, "more data": 2} if full else {}
    assert {k: len(v) for k, v in kinds.items()} == {k: len(seeds) * n for k, n in a_seed.items()}
    assert {j.settings.seed for j in jobs} == set(seeds)
    costs = [
        j.settings.steps_per_round * j.settings.rounds * j.settings.batch
        * (1 + j.settings.own_samples) for j in jobs
    ]  # fmt: skip
    assert costs == sorted(costs, reverse=True)
    groups = [j.settings.own_samples for j in jobs if j.arm.startswith("centred")]
    assert groups == [4] * (2 * len(seeds))
    middle = [j for j in kinds["link"] if j.settings.steps_per_round == 256 and j.arm[0] != "c"]
    assert {j.settings.rounds for j in middle} == {2}
    assert {j.settings.rounds for j in kinds["stability"] if j.arm[0] != "c"} == {2}
    assert {j.settings.batch for j in kinds["equal compute"]} == {128}
    rates = {(j.settings.lr, j.settings.steps_per_round) for j in kinds["rate"]}
    assert rates == set(itertools.product(tiny_runs.RATES, [tiny_runs.SHORT]))


def test_numbers_as_they_are_recorded():
    row = {"a": 0.123456, "b": math.nan, "c": [1.23456, {"d": math.inf, "e": 2}], "f": "x", "g": 3}
    assert tiny_runs.rounded(row) == {"a": 0.1235, "c": [1.235, {"e": 2}], "f": "x", "g": 3}

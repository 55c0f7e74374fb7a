"""One round of gradient steps, by hand: risks, curvature, noise, examples, Fisher's matrix."""

import dataclasses
from math import exp, log, log1p, sqrt

import numpy as np
import pytest
import torch

from tests.toy_games.predictions.by_hand.examples import SPIN, close
from theory import TokenMDP, objectives
from theory.errors import InvalidInput, NotConverged
from toy_games.engine.policies import Softmax, Tokens
from toy_games.predictions import linearised


def spin_of_two(**given):
    """SPIN, beta = 2, expert (3/4, 1/4) against an even coin: a logistic regression in 2 t."""
    expert = torch.tensor([0.75, 0.25], dtype=torch.float64)
    opponent = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    return linearised.RoundLoss(Softmax(2), SPIN, expert, opponent, 2.0, **given)


def logits(t):
    return torch.tensor([t / 2, -t / 2], dtype=torch.float64)


def test_the_risk_of_a_round_and_its_minimum():
    t = 0.3
    pairs = 0.5 * log(2.0) + 0.375 * log1p(exp(-2 * t)) + 0.125 * log1p(exp(2 * t))
    close(float(spin_of_two().risk(logits(t))), pairs)
    settled = spin_of_two().minimise(logits(0.0))
    close(float(settled[0] - settled[1]), log(3.0) / 2)
    anchor = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    d = 2 * t + 1.5 * (t + log(3.0))
    anchored = 0.5 * log(2.0) + 0.375 * log1p(exp(-d)) + 0.125 * log1p(exp(d))
    close(float(spin_of_two(tau=1.5, log_ref=anchor).risk(logits(t))), anchored)


def test_the_risk_of_supervised_fine_tuning_is_the_cross_entropy():
    round_ = spin_of_two()
    sft = linearised.RoundLoss(round_.policy, None, round_.expert, round_.opponent, 2.0)
    law = 1 / (1 + exp(-0.3))
    close(float(sft.risk(logits(0.3))), -0.75 * log(law) - 0.25 * log(1 - law))


def test_steps_near_a_rounds_minimum():
    """Curvature and noise are both 3/4 along (1, -1)/sqrt 2, as in every logistic regression."""
    round_ = spin_of_two()
    settled = logits(log(3.0) / 2)
    local = round_.near(settled)
    close(local.values.numpy(), [0.75])
    close(local.noise.numpy(), [[0.75]])
    close(local.rate(0.4), 0.7)
    close(local.rate(4.0), 2.0)
    spread = 2 * sqrt(3.0) / (1 + sqrt(3.0)) ** 2  # D^2 of a unit error: 2 pi_1 pi_2
    close(local.decay(settled + logits(0.2), 0.4, [0, 1, 3]),
          0.1 * sqrt(2.0) * sqrt(spread) * np.array([1.0, 0.7, 0.343]))  # fmt: skip
    close(local.floor(0.4, 10), 0.16 / 10 * 0.75 / (1 - 0.49) * spread)


def test_noise_away_from_the_minimum_and_tiny_curvature():
    """Gradients of pairs at logit 0: -1 at 3/8, 1 at 1/8, else 0."""
    spread = 0.5 - 0.25**2
    close(spin_of_two().noise(logits(0.0)).numpy(), spread * np.array([[1, -1], [-1, 1]]))
    tiny = dataclasses.replace(spin_of_two(), beta=1e-6).near(logits(0.0))
    close(tiny.values.numpy() * 1e12, [2 * 0.5 / 4], 1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_common_shift_of_all_logits_has_no_curvature(seed):
    """Three responses have two directions, however rounding turns the third."""
    rng = np.random.default_rng(seed)
    expert, opponent = (torch.from_numpy(rng.dirichlet(np.ones(3))) for _ in range(2))
    round_ = linearised.RoundLoss(Softmax(3), SPIN, expert, opponent.log(), 2.0)
    theta = torch.from_numpy(rng.standard_normal(3))
    local = round_.near(theta)
    assert local.values.shape == (2,)
    close(local.values.sum(), round_.hessian(theta).trace(), 1e-9)


def test_a_round_that_starts_where_one_parameter_is_lost():
    game = TokenMDP.tree(3, 2)
    policy = Tokens(game)
    law = torch.full((game.n_responses,), 1.0 / game.n_responses, dtype=torch.float64)
    round_ = linearised.RoundLoss(policy, None, law, law.log(), 1.0)
    start = policy.initial(np.random.default_rng(0), 0.5)
    start[-1] = np.nan
    with pytest.raises(NotConverged, match="the round starts where steps have diverged"):
        round_.minimise(start)


def test_the_examples_of_pairs_and_of_groups():
    pairs = spin_of_two().examples
    chances = dict(zip(map(tuple, torch.cat([pairs.expert, pairs.own], 1).tolist()),
                       pairs.probability.tolist(), strict=True))  # fmt: skip
    assert chances == {(1, 0, 1, 0): 0.375, (1, 0, 0, 1): 0.375,
                       (0, 1, 1, 0): 0.125, (0, 1, 0, 1): 0.125}  # fmt: skip
    grouped = linearised.RoundLoss(
        Softmax(2), objectives.get("centred_spif"), spin_of_two().expert,
        spin_of_two().opponent, 2.0, group=2,
    ).examples  # fmt: skip
    for laws, known in ((grouped.expert, (9, 6, 1)), (grouped.own, (4, 8, 4))):
        found = {tuple(law): 0.0 for law in laws.tolist()}
        for law, chance in zip(laws.tolist(), grouped.probability.tolist(), strict=True):
            found[tuple(law)] += chance
        shares = zip([(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)], known, strict=True)
        assert found == pytest.approx({law: share / 16 for law, share in shares})


def test_a_round_with_a_history_averages_over_its_examples():
    tspin = dataclasses.replace(spin_of_two(), objective=objectives.get("tspin"))
    history = torch.tensor([0.1, 0.9], dtype=torch.float64)
    given = dataclasses.replace(tspin, history=history)
    for round_ in (tspin, given):
        copies = round_.log_law(logits(0.3)).expand_as(round_.examples.own)
        mean = round_.examples.probability @ round_.losses(copies)
        close(float(round_.risk(logits(0.3))), float(mean))
    assert float(given.risk(logits(0.3))) != pytest.approx(float(tspin.risk(logits(0.3))))


def test_groups_too_many_to_list_are_refused():
    obj, expert, opponent = objectives.get("centred_spif"), *(torch.full((2,), x) for x in (0.5, 0))
    linearised.RoundLoss(Softmax(2), obj, expert, opponent, 1.0, group=446)  # 447^2 pairs
    linearised.RoundLoss(Softmax(30), obj, torch.full((30,), 1 / 30), torch.zeros(30), 1.0)
    with pytest.raises(InvalidInput, match="200704 pairs"):
        linearised.RoundLoss(Softmax(2), obj, expert, opponent, 1.0, group=447)
    with pytest.raises(InvalidInput, match="2 prompts"):
        linearised.RoundLoss(Softmax(2, prompts=2), SPIN, expert, opponent, 1.0)


def test_the_factor_of_a_round_of_steps():
    close(linearised.step_factor(0.5, 0.2, 0.3, [0, 1, 2]), [1.0, 0.94, 1 - 0.5 * (1 - 0.88**2)])


def test_fishers_matrix_and_the_distance_of_laws():
    values, vectors = linearised.fisher(Softmax(2), logits(log(3.0)))  # law (3/4, 1/4)
    close(values.numpy(), [0.0, 2 * 3 / 16])
    close(np.abs(vectors[:, 1].numpy()), sqrt(0.5))
    target = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    other = target + torch.tensor([0.2, -0.4], dtype=torch.float64)
    close(float(linearised.distance(other, target)), sqrt(0.25 * 0.04 + 0.75 * 0.16))

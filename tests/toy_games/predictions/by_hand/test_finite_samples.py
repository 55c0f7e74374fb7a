"""Finite samples by hand: responses in nobody's data, growth of rewards, best responses."""

from math import cosh, exp, log, sqrt
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.toy_games.predictions.by_hand.examples import SPIF, close
from theory import objectives
from theory.errors import InvalidInput
from toy_games.dynamics.measures import NOTHING
from toy_games.predictions import finite_samples, unseen

DATA, OWN, START = np.array([0.75, 0.25, 0.0]), np.array([0.25, 0.75, 0.0]), [0.4, 0.4, 0.2]


def settled(name, data=DATA, own=OWN, start=START, beta=2.0):
    obj = None if name is None else objectives.get(name)
    return unseen.settled_mass(obj, data, np.asarray(own), np.asarray(start), beta)


def test_where_the_mass_of_unseen_responses_settles():
    """SPIF asks for rewards (1/2, -1/2), SPIN for +-log 3 up to a constant."""
    close(settled("spif"), 1 - 0.8 * cosh(0.25))
    close(settled("spin"), 0.2 / (0.2 + 0.4 * (sqrt(3.0) + 1 / sqrt(3.0))))
    mean = log(0.75) / 2
    moved = 0.5 * exp((log(1.5) - mean) / 2) + 0.3 * exp((log(0.5) - mean) / 2)
    uneven = settled("spin", own=[0.5, 0.5, 0.0], start=[0.5, 0.3, 0.2])
    close(uneven, 0.2 / (0.2 + moved))
    assert settled(None) == 0.0
    assert settled("spif", start=[0.499, 0.499, 0.002]) == 0.0  # more is asked for than there is
    assert settled("spif", start=[0.6, 0.4, 0.0]) == 0.0
    assert settled("spin", own=[1.0, 0.0, 0.0]) == 0.0  # an unbounded reward takes all
    close(settled("spif", beta=[2.0, 4.0]), 1 - 0.8 * np.cosh([0.25, 0.125]))


def test_the_measure_of_settled_mass_is_that_of_each_rows_data():
    run = SimpleNamespace(objective=SPIF, beta=torch.tensor([2.0, 4.0], dtype=torch.float64))
    law = torch.tensor(START, dtype=torch.float64).log()
    closed = torch.cat([law[:2], torch.tensor([NOTHING])])  # padding in the second prompt
    weights = {k: torch.from_numpy(v).expand(2, 2, 3) for k, v in (("data", DATA), ("own", OWN))}
    found = unseen.predicted_after(run, weights | {"opponent": torch.stack([law, closed])}, 0)
    close(found.numpy(), (1 - 0.8 * np.cosh([0.25, 0.125])) / 2)


@pytest.mark.parametrize("name", ["spif(c=0.5)", "brier"])
def test_escape_is_the_path_of_gradient_descent(name):
    """The loss's own descent on two seen and two unseen logits, in small steps."""
    obj, beta, rate = objectives.get(name), 2.0, 0.2
    data, own, seen, outside = DATA[:2], OWN[:2], np.array([0.19, 0.80]), 0.01
    steps, masses = unseen.escape(obj, data, own, seen, outside, 2, beta, rate, 400)
    end = 1 - (seen * np.exp(np.asarray(obj.reward(data, own)) / beta)).sum()
    close(masses[-1], 0.999 * end, 1e-3)
    assert steps[0] == 0.0
    assert steps[-1] < 10_000
    start = np.log(np.concatenate([seen, [outside / 2, outside / 2]]))
    z, path = start.copy(), []
    slope = {"spif(c=0.5)": 1.0, "brier": 0.25}[name]
    for _ in range(int(steps[-1]) + 1):
        law = np.exp(z) / np.exp(z).sum()
        path.append(law[2:].sum())
        r = torch.tensor(beta * (np.log(law[:2]) - start[:2]), requires_grad=True)
        loss = -(torch.from_numpy(data) * obj.a(r) + torch.from_numpy(own) * obj.b(r)).sum()
        force = np.append(torch.autograd.grad(loss, r)[0].numpy(), [0.0, 0.0])
        z = z + rate / slope * (law * force.sum() - force)
    for share in (0.2, 0.5, 0.8):
        reached = steps[np.searchsorted(masses, share * end)]
        assert np.argmax(np.array(path) > share * end) == pytest.approx(reached, rel=0.01)


def test_growth_of_rewards_under_the_logistic_loss():
    data, own = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.5, 0.5, 0.0])
    close(finite_samples.logistic_growth(data, own), [1.0, 0.0, -1.0, 0.0])
    apart = finite_samples.logistic_growth(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
    close(apart, [0.5, -0.5, 0.0])


def test_the_margin_of_one_pair():
    margin = np.array([1e-3, 2.0, 30.0])
    time = (margin + np.expm1(margin)) / 0.4
    close(finite_samples.pair_margin(time, 0.4), margin, 1e-9)


def test_what_a_best_response_asks_for():
    close(finite_samples.bounded_range(SPIF, DATA, OWN), 1.0)
    close(finite_samples.demanded_mass(SPIF, 2.0, DATA, OWN, np.array(START)), 0.8 * cosh(0.25))


def test_what_samples_of_different_outcomes_ask_for():
    """SPIF pays 1 where only the expert was seen, -1 where only the policy was."""
    data, own, law = np.eye(3)[0], np.eye(3)[1], np.array([0.5, 0.2, 0.3])
    asked = finite_samples.demanded_mass(SPIF, 2.0, data, own, law)
    close(asked, 0.5 * exp(0.5) + 0.2 * exp(-0.5))
    close(finite_samples.bounded_range(SPIF, data, own), 2.0)


def test_the_limit_of_a_round_that_asks_for_too_much():
    data, own, beta, c = np.array([0.6, 0.4, 0.0]), np.array([0.2, 0.8, 0.0]), 0.3, 2.0
    opponent = np.array([0.45, 0.45, 0.1])
    found = finite_samples.squared_limit(c, beta, data, own, opponent)
    law = found.law[:2]
    assert law.sum() == pytest.approx(1.0)
    assert found.law[2] == 0.0
    r = beta * np.log(law / opponent[:2])
    close((data + own)[:2] * c * r - (data - own)[:2], found.multiplier * law, 1e-9)
    close(found.unseen_time, 1 / (beta * -found.multiplier * (1 / 1 + 1 / 2)))
    apart = finite_samples.squared_limit(
        1.0, 0.3, np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), opponent
    )
    r = 0.3 * np.log(apart.law[:2] / opponent[:2])
    close(r - np.array([1.0, -1.0]), apart.multiplier * apart.law[:2], 1e-9)
    with pytest.raises(InvalidInput, match="attained"):  # there is room
        finite_samples.squared_limit(c, beta, data, own, np.array([0.3, 0.3, 0.4]))
    with pytest.raises(InvalidInput, match="attained"):  # nothing is unseen
        finite_samples.squared_limit(c, beta, data[:2], own[:2], np.array([0.9, 0.1]))

"""T15: the first gradient of a minibatch is SFT's, in log-linear and neural classes."""

import numpy as np
import pytest
import torch

from theory import objectives, theory_card
from toy_games.engine.policies import LogLinearPolicy, Neural
from toy_games.experiments.misspecification import read_once
from toy_games.games.contenders import Method, first_gradients
from toy_games.games.ladder import Ladder

ONE_STEP = [o.name for o in map(objectives.get, objectives.names())
            if theory_card(o).fixed_point_is_mle]  # fmt: skip


@pytest.fixture(scope="module")
def classes():
    """A log-linear and a neural class, expert, parameters and another direction of each."""
    it = Ladder.random([3], [5], 15, 1.0)
    game = read_once(4, 3, 2, 0.1)
    network = Neural(game.game, 3)
    rng = np.random.default_rng(11)
    many = LogLinearPolicy(it.features[0].numpy())
    pairs = ((many, it.expert[0]), (network, game.law))
    return [
        (
            policy,
            expert,
            policy.initial(rng, 0.5),
            torch.from_numpy(rng.standard_normal(policy.size)),
        )
        for policy, expert in pairs
    ]


def test_every_objective_is_tried_or_named_absent():
    elsewhere = {"gail", "ipm", "sppo", "inpo", "tspin", "alpha_spin"}
    assert set(ONE_STEP) | elsewhere == set(objectives.names())


@pytest.mark.parametrize("name", ONE_STEP)
@pytest.mark.claim("T15.first_gradient", regime="dynamics")
def test_the_first_minibatch_gradient_is_the_sft_gradient_in_expectation(claim, classes, name):
    """Log-linear and neural: exact cosine 1, minibatch mean along SFT's gradient, none across."""
    for policy, expert, start, other in classes:
        found = first_gradients(Method(name, "one step"), policy, expert, start, other, 32, 150)
        claim.close(found["cosine"][0], 1.0, atol=1e-9, what="cosine with the SFT gradient")
        for part, target in (("along", 1.0), ("across", 0.0)):
            noise = 4 * found[part].std(ddof=1) / np.sqrt(len(found[part]))
            what = f"{part} the SFT gradient, 4 standard errors"
            claim.close(found[part].mean(), target, atol=noise, what=what, because="sampling")


@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="own_from_current")
def test_at_another_temperature_the_first_gradient_is_not_sfts(claim, classes, temperature):
    """Own responses hotter or colder than pi_t: the exact cosine falls and the mean leaves."""
    for policy, expert, start, other in classes:
        method = Method("spin", "one step")
        found = first_gradients(method, policy, expert, start, other, 32, 600, temperature)
        noise = found["along"].std(ddof=1) / np.sqrt(len(found["along"]))
        claim.exhibits(1.0 - found["cosine"][0], 1e-4, what="1 - cosine")
        off = abs(found["along"].mean() - 1.0) / noise
        claim.exhibits(off, 4.0, what="standard errors off", because="sampling")

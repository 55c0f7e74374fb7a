"""Rewards per token against K own tokens, for every objective that has a loss of them."""

import itertools

import numpy as np
import pytest
import torch

from lab.specs import objective_of
from llm_scale.launch.combinations import combination_problems
from llm_scale.settings import Settings
from llm_scale.train import losses
from tests.llm_scale.tiny_game import player, settings, start
from theory import objectives

K, BETA, TAU = 3, 0.7, 0.4
BY_HAND = {
    "spin": lambda x, y: np.log1p(np.exp(y - x[:, None])).mean(1),
    "ipo": lambda x, y: ((x[:, None] - y - 1.0) ** 2).mean(1),
    "spif(c=0.5)": lambda x, y: -x + x**2 / 4 + (y + y**2 / 4).mean(1),
    "centred_spif(c=2)": lambda x, y: 2 * (y.var(1) / 2 + ((x - y.mean(1)) / 2 - 1 / 2) ** 2),
    "renyi(order=0.25)": lambda x, y: (
        -x + np.log(np.exp(0.25 * y).mean(1)) / 0.25
    ),
}  # fmt: skip
"""Loss of a position of the expert's reward (T,) and the own ones (T, K)."""
REFUSED = {
    "gail": "has no loss to train",
    "ipm": "has no loss to train",
    "sppo": "needs preferences",
    "tspin": "level must be sequence",
}


def moved(name, tau=0.0):
    """A round of token rewards and log-probabilities away from its start."""
    who = player(settings(objective=name, level="token", own_samples=K, prompts=6, tau=tau))
    data = start(who).data
    noise = torch.randn(data.current.shape, generator=torch.manual_seed(0))
    return who, data, (data.current + 0.5 * noise).double()


@pytest.mark.parametrize("name", BY_HAND)
def test_a_step_s_loss_by_hand(name):
    _, data, log_pi = moved(name)
    reward = BETA * (log_pi - data.opponent.double()).numpy()
    each = BY_HAND[name](reward[:, 0], reward[:, 1:])
    ends = np.cumsum([0, *(len(item.expert[0].tokens) for item in data.items)])
    wanted = [each[a:b].sum() for a, b in itertools.pairwise(ends)]
    found = losses(objective_of(name), data, log_pi, BETA, 0.0)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", objectives.names())
def test_every_objective_trains_with_k_tokens_or_says_why_not(name):
    objective = objective_of(name)
    tau = TAU if "anchor" in objective.needs else 0.0
    asked = Settings(objective=name, level="token", own_samples=K, tau=tau)
    found = combination_problems(asked)
    if name in REFUSED:
        assert len(found) == 1
        assert REFUSED[name] in found[0]
        return
    assert not found
    who, data, _ = moved(name, tau)
    loss = losses(objective, data, data.log_probs(who.scorer), BETA, tau).mean()
    loss.backward()
    norms = [float(p.grad.norm()) for p in who.language.model.parameters() if p.grad is not None]
    assert np.isfinite([float(loss.detach()), *norms]).all()
    assert max(norms) > 0

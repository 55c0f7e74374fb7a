"""A round's first steps by Adam: as far as those of SFT but for the noise of own samples.

Dense features, so that a batch's gradient is nearly Gaussian, and an expert so near that noise
exceeds the mean: many replicas at once, their mean displacement against SFT's.
"""

import numpy as np
import pytest
import torch

from lab.stats import standard_error
from theory import objectives
from theory.objectives.implicit import implicit_reward

OUTCOMES, FEATURES, REPLICAS, BATCH, STEPS, RATE = 60, 6, 20_000, 16, 12, 1e-5
SLOPES = {"spin": 1.0, "ipo(margin=1)": 1.0, "spif(c=1)": 1.0, "nwj": np.exp(-1.0)}
SLOPES |= {"centred_spif(c=1)": 1.0}
"""|b'(0)| / a'(0): how much the loss weighs an own response beside an expert's at the start."""


@pytest.fixture(scope="module")
def game():
    """Features, log of the start's law (uniform), log of the expert's."""
    rng = np.random.default_rng(7)
    features = torch.tensor(rng.standard_normal((OUTCOMES, FEATURES)))
    near = torch.tensor(0.08 * rng.choice([-1.0, 1.0], FEATURES))
    start = torch.zeros(OUTCOMES, dtype=torch.float64).log_softmax(-1)
    return features, start, (features @ near).log_softmax(-1)


def displacement(game, name, seed, own=1, optimiser=torch.optim.Adam):
    """Where every replica is after the steps, in learning rates: (replicas, features)."""
    features, start, expert = game
    objective = None if name == "sft" else objectives.get(name)
    generator = torch.Generator().manual_seed(seed)
    at = torch.zeros(REPLICAS, FEATURES, dtype=torch.float64, requires_grad=True)
    steps = optimiser([at], lr=RATE)

    def drawn(law, count):
        size = REPLICAS * BATCH * count
        picks = torch.multinomial(law.exp(), size, replacement=True, generator=generator)
        return picks.view(REPLICAS, BATCH, count)

    def seen(log_pi, picks):
        return log_pi.gather(-1, picks.flatten(1)).view_as(picks)

    for _ in range(STEPS):
        log_pi = (at @ features.T).log_softmax(-1)
        given = drawn(expert, 1)
        if objective is None:
            loss = -seen(log_pi, given)[..., 0]
        else:
            said, beta = drawn(start, own), objective.beta_at(1.0)
            rewards = (
                implicit_reward(objective, seen(log_pi, y), start[y], beta) for y in (given, said)
            )
            loss = objective.reward_risk(*rewards)
        steps.zero_grad()
        loss.mean(-1).sum().backward()
        steps.step()
    return at.detach().numpy() / RATE


@pytest.fixture(scope="module")
def sft(game):
    return displacement(game, "sft", 0)


def share(moved, by):
    """Displacement along SFT's mean one, over that of SFT, and its standard error."""
    direction = by.mean(0) / (by.mean(0) @ by.mean(0))
    along = moved @ direction
    return along.mean(), standard_error(along) * np.sqrt(2)


@pytest.mark.claim("T15.adam", regime="dynamics", of="replicas")
@pytest.mark.parametrize(("name", "slope"), SLOPES.items())
def test_own_samples_shorten_the_first_steps_of_adam_by_their_noise_alone(
    game, sft, claim, name, slope
):
    own = 4 if name.startswith("centred") else 1
    found, error = share(displacement(game, name, 1, own), sft)
    predicted = (1 + slope**2 / own) ** -0.5
    what = f"displacement along SFT's, over SFT's, with {own} own responses"
    claim.close(found, predicted, atol=4 * error, what=what, because="sampling")
    assert 4 * error < 1 - predicted  # far from "as far as SFT"


def test_the_noise_and_not_the_loss_decides(game, sft):
    """SPIN and IPO, whose gradients differ by a factor 4, go equally far."""
    spin, ipo = (share(displacement(game, n, 2), sft) for n in ("spin", "ipo(margin=1)"))
    assert abs(spin[0] - ipo[0]) < 4 * np.hypot(spin[1], ipo[1])


def test_without_normalisation_the_factor_of_the_gradient_decides(game):
    """Gradient descent goes beta a'(0) times as far as on the likelihood, whatever the noise."""
    by = displacement(game, "sft", 0, optimiser=torch.optim.SGD)
    found, error = share(displacement(game, "spin", 1, optimiser=torch.optim.SGD), by)
    assert abs(found - 0.5) < 4 * error

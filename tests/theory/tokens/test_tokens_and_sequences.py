"""T14: rewards of tokens and of responses: telescoping, shaping, links, occupancy rounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.tokens.trees import games
from theory import TokenMDP, objectives


@pytest.mark.claim("T14.telescopes", regime="tabular")
@given(games(tree=False), st.floats(0.1, 3))
def test_log_ratios_telescope_to_the_sequence_reward(claim, case, beta):
    game, rng = case
    prior = game.random_policy(rng)
    reward = rng.normal(size=prior.shape)
    out = game.soft_value_iteration(reward, prior, beta)
    ratio = beta * game.conditional_logratio(out.policy, prior)
    ended = np.append(out.V, 0.0)
    predicted = reward + ended[game.next_state] - out.V[:, None]
    kept = game.allowed
    claim.close(ratio[kept], predicted[kept], 1e-11, what="beta log pi/pi_t = r + V(s') - V(s)")
    total = game.sequence_sum(reward) - out.V[: game.n_prompts, None]
    live = game.unrolled()[0].responses >= 0
    claim.close(game.sequence_sum(ratio)[live], total[live], 1e-11, what="its sum over a response")


def shaping(game, rng, terminal):
    """f(s') - f(s) with random f; `terminal` gives f where responses end, (S, A) or a number."""
    inner = np.append(rng.normal(size=game.n_states), 0.0)
    after = np.where(game.next_state >= 0, inner[game.next_state], terminal)
    return after - inner[:-1, None]


@pytest.mark.claim("T14.shaping", regime="tabular")
@given(games(tree=False), st.floats(0.1, 3), st.floats(-2, 2))
def test_shaping_constant_on_terminal_states_changes_no_policy(claim, case, beta, end):
    game, rng = case
    prior = game.random_policy(rng)
    reward = rng.normal(size=prior.shape)
    plain = game.soft_value_iteration(reward, prior, beta)
    shaped = game.soft_value_iteration(reward + shaping(game, rng, end), prior, beta)
    claim.close(np.exp(shaped.policy), np.exp(plain.policy), 1e-12, what="policy after shaping")


@pytest.mark.claim("T14.shaping", regime="tabular", drops="terminal_shaping")
def test_shaping_that_differs_on_terminal_states_changes_the_policy(claim):
    game = TokenMDP.tree(3, 3)
    rng = np.random.default_rng(0)
    prior, reward = game.random_policy(rng), rng.normal(size=(game.n_states, 3))
    plain = game.soft_value_iteration(reward, prior)
    added = shaping(game, rng, rng.normal(size=reward.shape))
    shaped = game.soft_value_iteration(reward + added, prior)
    moved = np.abs(game.sequence_law(shaped.policy) - game.sequence_law(plain.policy)).sum() / 2
    claim.exhibits(moved, 0.1, what="total variation between the policies")


@pytest.mark.claim("T14.conditional", "T14.spif_differs", regime="tabular")
@given(games(), st.floats(0.2, 3))
def test_the_conditional_spin_link_is_the_sequence_link_and_spif_stays_in_its_bounds(
    claim, case, c
):
    game, rng = case
    p, q = game.random_policy(rng, 0.3), game.random_policy(rng, 0.3)
    token, live = game.conditional_logratio(p, q), game.responses >= 0
    whole = game.log_sequence_law(p)[live] - game.log_sequence_law(q)[live]
    spin, spif = objectives.get("spin"), objectives.get("spif", c=c)
    summed = game.sequence_sum(spin.link(token))[live]
    claim.close(summed, spin.link(whole), 1e-11, what="SPIN: sum of token links")
    summed = game.sequence_sum(spif.link(token))[live]
    claim.below(np.abs(summed), game.horizon / c, what="SPIF: summed token rewards", atol=1e-12)
    claim.below(np.abs(spif.link(whole)), 1 / c, what="SPIF: sequence rewards", atol=1e-12)


@pytest.mark.claim("T14.spif_differs", regime="tabular")
def test_the_conditional_spif_link_is_not_the_sequence_link(claim):
    game = TokenMDP.random(3, 4, seed=0, concentration=0.5)
    start = game.random_policy(np.random.default_rng(1))
    spif = objectives.get("spif")
    token = spif.link(game.conditional_logratio(game.expert, start))
    whole = spif.link(game.log_sequence_law(game.expert) - game.log_sequence_law(start))
    conditional = game.soft_value_iteration(token, start).policy
    sequence = game.soft_value_iteration(0.0, start, sequence_reward=whole).policy
    claim.exhibits(np.abs(game.sequence_sum(token) - whole).max(), 0.5, what="reward difference")
    law_gap = game.sequence_law(conditional) - game.sequence_law(sequence)
    claim.exhibits(np.abs(law_gap).sum() / 2, 0.05, what="TV between the policies")


def occupancy_spectrum(game, policy, beta, slope):
    """Eigenvalues of a round with rewards slope * log d_E/d_pi at its fixed point, numerically."""
    fixed = game.log_occupancy(policy)
    step, columns = 1e-5, []
    directions = np.eye(policy.size).reshape(-1, *policy.shape)
    for sign in (1.0, -1.0):
        moved = policy + sign * step * directions
        moved = moved - np.logaddexp.reduce(moved, axis=-1, keepdims=True)
        reward = slope * (fixed - game.log_occupancy(moved))
        columns.append(game.soft_value_iteration(reward, moved, beta).policy)
    jacobian = ((columns[0] - columns[1]) / (2 * step)).reshape(policy.size, -1)
    values = np.linalg.eigvals(jacobian)
    return np.sort(values[np.abs(values) > 1e-6].real), np.abs(values.imag).max()


@pytest.mark.claim("T14.occupancy", regime="tabular")
@given(st.integers(2, 3), st.integers(1, 3), st.integers(0, 10**6), st.floats(3.2, 9))
def test_occupancy_rounds_contract_by_one_minus_k_over_beta(claim, vocab, horizon, seed, beta):
    game = TokenMDP.random(vocab, horizon, seed=seed, eos=None)
    values, imaginary = occupancy_spectrum(game, game.expert, beta, 1.0)
    depth = np.repeat(game.depth, vocab - 1)
    predicted = np.sort(1 - (horizon - depth) / beta)
    claim.close(values, predicted, 1e-5, what="eigenvalues, k = 1..H", because="expansion")
    claim.below(imaginary, 0.0, what="imaginary parts", atol=1e-6)


@pytest.mark.claim("T14.any_length", regime="tabular")
@given(st.integers(2, 3), st.integers(2, 3), st.integers(0, 10**6))
def test_with_variable_length_the_eigenvalues_lie_between(claim, vocab, horizon, seed):
    game = TokenMDP.random(vocab, horizon, seed=seed)
    beta = 10.0 * horizon
    values, _ = occupancy_spectrum(game, game.expert, beta, 1.0)
    counts = beta * (1 - values)
    claim.below(1.0, counts.min(), what="least k", atol=1e-3, because="expansion")
    claim.below(counts.max(), horizon, what="largest k", atol=1e-3, because="expansion")


@pytest.mark.claim("T14.occupancy", regime="tabular", drops="equal_length")
def test_with_variable_length_they_are_no_whole_numbers(claim):
    game = TokenMDP.random(3, 3, seed=0)
    counts = 30 * (1 - occupancy_spectrum(game, game.expert, 30.0, 1.0)[0])
    claim.exhibits(np.abs(counts - np.round(counts)).max(), 0.05, what="distance to whole numbers")

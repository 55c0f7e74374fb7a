"""Token MDPs: laws and policies, soft value iteration (T2), tokens and sequences (T14), merging."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import TokenMDP, objectives
from theory.errors import InvalidInput


def pruned(vocab: int, horizon: int, prompts: int, rng: np.random.Generator) -> TokenMDP:
    """A tree with some actions forbidden or ending early, so that prompts differ in responses."""
    full = TokenMDP.tree(vocab, horizon, prompts, eos=None)
    allowed = rng.random(full.allowed.shape) < 0.75
    allowed[np.arange(full.n_states), rng.integers(vocab, size=full.n_states)] = True
    goes_on = allowed & (full.next_state >= 0) & (rng.random(allowed.shape) < 0.8)
    kept = np.zeros(full.n_states, dtype=bool)
    kept[: full.n_prompts] = True
    for first, last in full.layers:
        leaving = goes_on[first:last] & kept[first:last, None]
        kept[full.next_state[first:last][leaving]] = True
    number = np.cumsum(kept) - 1
    following = np.where(goes_on, number[full.next_state], -1)[kept]
    return TokenMDP.from_arrays(following, allowed=allowed[kept])


@st.composite
def games(draw: st.DrawFn, max_horizon: int = 4, tree: bool = True) -> tuple:
    """(game, generator): a full tree, a pruned one, or (tree=False) a merged one."""
    vocab = draw(st.integers(2, 4))
    horizon = draw(st.integers(1, max_horizon))
    prompts = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if not tree and draw(st.booleans()):
        return TokenMDP.tree(vocab, horizon, prompts, order=draw(st.integers(0, 2))), rng
    if draw(st.booleans()):
        return pruned(vocab, horizon, prompts, rng), rng
    return TokenMDP.tree(vocab, horizon, prompts, eos=draw(st.sampled_from([None, 0, 1]))), rng


def enumerate_responses(game: TokenMDP) -> list[dict]:
    """Per prompt {tokens: [(state, action), ...]}, by plain recursion: the independent oracle."""

    def below(state: int) -> dict:
        out = {}
        for action in np.flatnonzero(game.allowed[state]).tolist():
            after = int(game.next_state[state, action])
            tails = {(): []} if after < 0 else below(after)
            out |= {(action, *t): [(state, action), *path] for t, path in tails.items()}
        return out

    return [below(prompt) for prompt in range(game.n_prompts)]


def with_zeros(policy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cut = np.where(rng.random(policy.shape) < 0.3, -np.inf, policy)
    cut = np.where(np.isneginf(cut).all(-1, keepdims=True), policy, cut)
    return cut - np.logaddexp.reduce(cut, axis=-1, keepdims=True)


# --- laws and policies ---------------------------------------------------------------------------


@given(games(tree=False))
def test_the_law_is_the_product_along_every_response(case):
    game, rng = case
    policy = with_zeros(game.random_policy(rng, batch=(2,)), rng)
    law = game.sequence_law(policy)
    np.testing.assert_allclose(law.sum(-1), 1.0, atol=1e-12)
    oracle, named = enumerate_responses(game), game.sequences()
    for prompt in range(game.n_prompts):
        assert {r.tokens for r in named[prompt]} == set(oracle[prompt])
        for n, response in enumerate(named[prompt]):
            steps = oracle[prompt][response.tokens]
            product = np.prod([np.exp(policy[:, s, a]) for s, a in steps], axis=0)
            np.testing.assert_allclose(law[:, prompt, n], product, atol=1e-14)
        assert (law[:, prompt, len(named[prompt]) :] == 0).all()


@given(games())
def test_policies_and_laws_are_in_bijection(case):
    game, rng = case
    policy = game.random_policy(rng, 0.3, batch=(3,))
    back = game.policy_from_law(game.sequence_law(policy))
    np.testing.assert_allclose(np.exp(back), np.exp(policy), atol=1e-12)
    law = rng.dirichlet(np.ones(game.responses.size)).reshape(game.responses.shape)
    law = np.where(game.responses >= 0, law, 0.0)
    law /= law.sum(-1, keepdims=True)
    np.testing.assert_allclose(game.sequence_law(game.policy_from_law(law)), law, atol=1e-14)


def test_the_bijection_keeps_log_laws_far_below_the_smallest_number():
    game = TokenMDP.tree(3, 3)
    rng = np.random.default_rng(0)
    logits = rng.uniform(-700, 0, size=(game.n_states, 3))
    policy = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    log_law = game.log_sequence_law(policy)
    assert log_law.min() < -900
    np.testing.assert_allclose(game.policy_from_log_law(log_law), policy, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(game.log_occupancy(policy).min(), log_law.min())


def test_states_of_probability_zero_get_a_uniform_policy():
    game = TokenMDP.tree(3, 2)
    law = np.zeros((1, game.n_responses))
    law[0, 0] = 1.0
    policy = np.exp(game.policy_from_law(law))
    first = game.sequences()[0][0]
    assert first.tokens == (0,)
    np.testing.assert_array_equal(policy[0], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(policy[1:], 1 / 3)


@given(games(tree=False))
def test_occupancies_are_sums_of_sequence_probabilities(case):
    game, rng = case
    policy = with_zeros(game.random_policy(rng), rng)
    law, expected = game.sequence_law(policy), np.zeros((game.n_states, game.n_actions))
    oracle = enumerate_responses(game)
    for prompt, named in enumerate(game.sequences()):
        for n, response in enumerate(named):
            for state, action in oracle[prompt][response.tokens]:
                expected[state, action] += law[prompt, n]
    np.testing.assert_allclose(game.occupancy(policy), expected, atol=1e-14)
    np.testing.assert_allclose(np.exp(game.log_occupancy(policy)), expected, atol=1e-14)
    reward = rng.normal(size=expected.shape)
    totals = (law * game.sequence_sum(reward)).sum(-1)
    np.testing.assert_allclose(game.expected_sum(policy, reward), totals, atol=1e-12)


@given(games(tree=False))
def test_kl_of_sequences_is_the_chain_rule(case):
    game, rng = case
    p, q = with_zeros(game.random_policy(rng), rng), game.random_policy(rng)
    law = game.sequence_law(p)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(law > 0, law * (np.log(law) - game.log_sequence_law(q)), 0.0)
    np.testing.assert_allclose(game.kl(p, q), terms.sum(-1), atol=1e-12)
    outside = game.kl(q, p)
    missed = ((game.sequence_law(q) > 0) & (law == 0)).any(-1)
    np.testing.assert_array_equal(np.isinf(outside), missed)


def test_log_ratios_are_infinite_on_one_side_and_zero_where_both_are_absent():
    game = TokenMDP.tree(4, 1)
    p, q = np.array([[0.5, 0.5, 0, 0]]), np.array([[0.25, 0, 0.75, 0]])
    with np.errstate(divide="ignore"):
        u = game.conditional_logratio(np.log(p), np.log(q))
    np.testing.assert_allclose(u, [[np.log(2), np.inf, -np.inf, 0.0]])
    np.testing.assert_allclose(game.sequence_sum(u), u)


def test_infinities_that_meet_on_a_response_count_as_nothing():
    game = TokenMDP.tree(2, 2, eos=None)
    u = np.array([[np.inf, 1.0], [-np.inf, np.inf], [2.0, -np.inf]])
    np.testing.assert_array_equal(game.sequence_sum(u), [[0.0, np.inf, 3.0, -np.inf]])


# --- soft value iteration ------------------------------------------------------------------------


@pytest.mark.claim("T2.soft_value_iteration", regime="tabular")
@given(games(), st.floats(0.05, 5), st.sampled_from([0.0, 0.1, 2.0]), st.booleans(), st.booleans())
def test_soft_value_iteration_is_the_gibbs_policy_of_sequences(claim, case, beta, tau, rare, both):
    game, rng = case
    prior = game.random_policy(rng, batch=(2,))
    prior = with_zeros(prior, rng) if rare else prior
    ref = game.random_policy(rng, 0.5)
    per_token = rng.normal(size=prior.shape, scale=2.0)
    per_sequence = rng.normal(size=game.responses.shape, scale=2.0) if both else None
    out = game.soft_value_iteration(per_token, prior, beta, tau, ref, per_sequence)
    with np.errstate(invalid="ignore"):
        weight = beta * game.log_sequence_law(prior) + game.sequence_sum(per_token)
        weight = weight + (0.0 if per_sequence is None else per_sequence)
        if tau:
            weight = weight + tau * game.log_sequence_law(ref)
    weight = np.where(game.responses >= 0, weight, -np.inf) / (beta + tau)
    top = weight.max(-1, keepdims=True)
    mass = np.exp(weight - top)
    gibbs = mass / mass.sum(-1, keepdims=True)
    claim.close(game.sequence_law(out.policy), gibbs, 1e-12, what="law after a policy step")
    normaliser = (beta + tau) * (top[..., 0] + np.log(mass.sum(-1)))
    claim.close(out.V[..., : game.n_prompts], normaliser, 1e-10, what="V at the prompts")


@pytest.mark.claim("T2.gibbs", "T2.soft_value_iteration", regime="tabular")
@given(games(), st.floats(0.1, 3), st.floats(0.0, 2))
def test_the_policy_step_beats_every_other_policy(claim, case, beta, tau):
    game, rng = case
    prior, ref = game.random_policy(rng), game.random_policy(rng)
    reward = rng.normal(size=(game.n_states, game.n_actions))

    def value(policy):
        paid = game.expected_sum(policy, reward)
        return paid - beta * game.kl(policy, prior) - tau * game.kl(policy, ref)

    out = game.soft_value_iteration(reward, prior, beta, tau, ref)
    claim.close(value(out.policy), out.V[: game.n_prompts], 1e-11, what="value of the step is V")
    other = game.random_policy(rng, batch=(5,))
    claim.below(value(other), value(out.policy), what="value of other policies", atol=1e-11)


def test_only_the_anchor_is_a_policy_step_from_the_reference():
    game = TokenMDP.random(3, 3)
    rng = np.random.default_rng(1)
    reward, ref = rng.normal(size=(game.n_states, 3)), game.random_policy(rng)
    anchored = game.soft_value_iteration(reward, beta=0.0, tau=0.7, log_ref=ref)
    plain = game.soft_value_iteration(reward, ref, beta=0.7)
    np.testing.assert_array_equal(anchored.policy, plain.policy)


def test_rewards_of_minus_infinity_forbid_and_never_make_nan():
    game = TokenMDP.tree(3, 3)
    reward = np.zeros((game.n_states, 3))
    reward[1] = -np.inf  # everything after token 1
    out = game.soft_value_iteration(reward, game.uniform_policy())
    assert np.isneginf(out.V[1])
    assert not np.isnan(out.policy).any()
    assert not np.isnan(out.Q).any()
    np.testing.assert_allclose(np.exp(out.policy[1]), 1 / 3)
    assert np.exp(out.policy[0, 1]) == 0
    assert game.occupancy(out.policy)[1].sum() == 0
    allowed = np.ones((2, 2), dtype=bool)
    allowed[1, 1] = False
    narrow = TokenMDP.from_arrays([[1, -1], [-1, -1]], allowed=allowed)
    late = np.where(narrow.depth[:, None] == 1, -np.inf, 0.0) * np.ones((2, 2))
    out = narrow.soft_value_iteration(late, narrow.uniform_policy())
    np.testing.assert_array_equal(np.exp(out.policy), [[0.0, 1.0], [1.0, 0.0]])
    reward[0] = -np.inf
    with pytest.raises(InvalidInput, match=r"no response of state 0 \(prompt 0, after no tokens\)"):
        game.soft_value_iteration(reward, game.uniform_policy())


# --- tokens and sequences (T14) ------------------------------------------------------------------


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


# --- merged states -------------------------------------------------------------------------------


@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.booleans())
def test_merging_a_tree_and_building_merged_are_the_same(vocab, horizon, prompts, order, ends):
    eos = 0 if ends else None
    merged = TokenMDP.tree(vocab, horizon, prompts, eos).merged(order)
    direct = TokenMDP.tree(vocab, horizon, prompts, eos, order=order)
    for name in ("next_state", "depth", "prompt", "allowed"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(direct, name))
    if order >= horizon - 1:
        np.testing.assert_array_equal(merged.source_state, np.arange(merged.n_states))


@given(
    st.integers(2, 4), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2), st.integers(0, 99)
)
def test_what_merged_states_determine_is_the_same_on_the_tree(vocab, horizon, prompts, order, seed):
    rng = np.random.default_rng(seed)
    tree = TokenMDP.tree(vocab, horizon, prompts)
    game = tree.merged(order)
    policy, ref = game.random_policy(rng), game.random_policy(rng)
    reward = rng.normal(size=policy.shape)
    lifted = tree.soft_value_iteration(
        game.lift(reward), game.lift(policy), 0.8, 0.3, game.lift(ref)
    )
    merged = game.soft_value_iteration(reward, policy, 0.8, 0.3, ref)
    np.testing.assert_allclose(game.lift(merged.policy), lifted.policy, atol=1e-12)
    np.testing.assert_allclose(merged.V[: game.n_prompts], lifted.V[: game.n_prompts], atol=1e-12)
    np.testing.assert_allclose(game.sequence_law(policy), tree.sequence_law(game.lift(policy)))
    np.testing.assert_allclose(game.kl(policy, ref), tree.kl(game.lift(policy), game.lift(ref)))
    np.testing.assert_allclose(game.merge_policy(game.lift(policy)), policy, atol=1e-12)


@given(games(), st.integers(0, 10**6))
def test_a_merged_expert_keeps_its_occupancy(case, seed):
    rng = np.random.default_rng(seed)
    tree = TokenMDP.random(3, 4, rng=rng, prompts=2)
    game = tree.merged(1)
    pooled = np.zeros((game.n_states, 3))
    np.add.at(pooled, game.source_state, tree.occupancy(tree.expert))
    np.testing.assert_allclose(game.occupancy(game.expert), pooled, atol=1e-14)
    twice = game.merged(0)
    np.testing.assert_allclose(twice.expert, tree.merged(0).expert, atol=1e-12)


def test_a_merged_game_unrolls_to_its_tree():
    game = TokenMDP.tree(3, 4, prompts=2, order=1)
    tree, where = game.unrolled()
    np.testing.assert_array_equal(tree.next_state, TokenMDP.tree(3, 4, prompts=2).next_state)
    np.testing.assert_array_equal(tree.merged(1).source_state, where)
    assert game.n_responses == tree.n_responses == 2 * 2 * 2 * 3 + 1 + 2 + 4


def test_names_read_as_text():
    game = TokenMDP.tree(3, 2, 2, vocabulary=[".", "so", "be"], prompt_names=["why", "what"])
    assert game.sequences()[1][2] == (1, (1, 1), "so so")
    assert game.describe(3) == "state 3 (prompt 'why', after be)"
    assert repr(game) == "TokenMDP(tree, states=6, actions=3, horizon=2, prompts=2)"


# --- bad input -----------------------------------------------------------------------------------

GAME = TokenMDP.tree(3, 2)
UNIFORM = GAME.uniform_policy()


def broken(where, value):
    policy = UNIFORM.copy()
    policy[where] = value
    return policy


BAD = {
    "vocab": (lambda: TokenMDP.tree(1, 2), "vocab must be at least 2, got 1"),
    "horizon": (lambda: TokenMDP.tree(3, 0), "horizon must be at least 1, got 0"),
    "two at once": (lambda: TokenMDP.tree(0, 2.5), "vocab must be .*; horizon must be a whole"),
    "eos": (lambda: TokenMDP.tree(3, 2, eos=3), r"token index in 0..2 or None, got 3"),
    "too large": (
        lambda: TokenMDP.tree(50, 12),
        r"has 199,563,782,688,.* state-action pairs, more than max_state_actions=20,000,000",
    ),
    "concentration": (lambda: TokenMDP.random(concentration=0.0), "concentration must be positive"),
    "next_state type": (lambda: TokenMDP.from_arrays([[0.5]]), "array of integers, got dtype"),
    "next_state range": (lambda: TokenMDP.from_arrays([[1, -2]]), "0..0; other values at states 0"),
    "cycle": (lambda: TokenMDP.from_arrays([[1], [2], [1]]), "every response must end"),
    "root entered": (
        lambda: TokenMDP.from_arrays([[0]], depth=[0]),
        "leads back to a prompt's first state 0",
    ),
    "stuck": (
        lambda: TokenMDP.from_arrays([[-1, -1]], allowed=np.zeros((1, 2), bool)),
        "no action is allowed at states 0",
    ),
    "depth jump": (
        lambda: TokenMDP.from_arrays([[1, 2], [2, -1], [-1, -1]], depth=[0, 1, 2]),
        "one depth further; not so at 0",
    ),
    "orphan": (
        lambda: TokenMDP.from_arrays([[-1], [-1]], depth=[0, 1], prompt=[0, 0]),
        "no action leads to states 1",
    ),
    "unsorted": (lambda: TokenMDP.from_arrays([[-1], [0]]), "states must be sorted by depth"),
    "prompts": (
        lambda: TokenMDP.from_arrays([[-1], [-1]], prompt=[0, 5]),
        r"prompts 0, 1, 2, .* got \[0, 5\]",
    ),
    "other prompt": (
        lambda: TokenMDP.from_arrays([[2], [2], [-1]]),
        "another prompt's state at 0",
    ),
    "names": (
        lambda: TokenMDP.tree(3, 2, vocabulary="ab"),
        "vocabulary must have 3 entries, got 2",
    ),
    "eos goes on": (
        lambda: TokenMDP.from_arrays([[1, -1], [-1, -1]], eos=0),
        "token 0 must end every response",
    ),
    "expert": (
        lambda: TokenMDP.from_arrays([[-1, -1]], expert=[[0.0, 0.0]]),
        r"expert: probabilities do not sum to 1 at state 0 .*sum 2\)",
    ),
    "policy shape": (
        lambda: GAME.occupancy(UNIFORM[0]),
        r"\(..., 3 states, 3 actions\), got \(3,\)",
    ),
    "policy of text": (lambda: GAME.occupancy("uniform"), "array of log-probabilities, got str"),
    "probabilities": (lambda: GAME.occupancy(np.exp(UNIFORM)), "above 0 .*given as they are"),
    "nan": (
        lambda: GAME.occupancy(broken((2, 1), np.nan)),
        r"NaN at state 2 \(prompt 0, after 2\)",
    ),
    "unnormalised": (
        lambda: GAME.sequence_law(broken((1, 0), -np.inf)),
        r"sum to 1 at state 1 \(prompt 0, after 1\) \(sum 0.6666",
    ),
    "which of a batch": (
        lambda: GAME.occupancy(np.stack([UNIFORM, broken((0, 0), -5.0)])),
        r"at policy 1, state 0 \(prompt 0, after no tokens\)",
    ),
    "forbidden action": (
        lambda: TokenMDP.from_arrays([[-1, -1]], allowed=[[True, False]]).validate_policy(
            np.log([[0.5, 0.5]])
        ),
        "on actions that are not allowed at state 0",
    ),
    "law shape": (
        lambda: GAME.policy_from_law(np.ones(7)),
        r"1 prompts, 7 responses\), got \(7,\)",
    ),
    "law sum": (lambda: GAME.policy_from_law(np.ones((1, 7))), "law of prompt 0 sums to 7, not 1"),
    "law sign": (lambda: GAME.policy_from_law([[2.0, -1.0, 0, 0, 0, 0, 0]]), "negative entries"),
    "law of merged": (
        lambda: TokenMDP.tree(3, 3, order=0).policy_from_law(np.ones((1, 7)) / 7),
        "merged states do not tell apart",
    ),
    "weights": (
        lambda: GAME.soft_value_iteration(0.0, UNIFORM, beta=-1.0, tau=np.nan),
        "beta=-1.0; needed is .*; tau=nan; needed is",
    ),
    "no weight": (
        lambda: GAME.soft_value_iteration(0.0, beta=0.0),
        "beta \\+ tau must be positive",
    ),
    "no prior": (lambda: GAME.soft_value_iteration(0.0), "log_prior is required when beta > 0"),
    "no ref": (lambda: GAME.soft_value_iteration(0.0, UNIFORM, tau=1.0), "log_ref is required"),
    "reward": (
        lambda: GAME.soft_value_iteration(broken((0, 0), np.inf), UNIFORM),
        "finite or -inf, it has NaN or \\+inf",
    ),
    "order": (lambda: GAME.merged(-1), "order must be a whole number >= 0, got -1"),
    "merge clash": (
        lambda: TokenMDP.from_arrays(
            [[1, 2], [-1, -1], [-1, -1]], allowed=[[True, True], [True, True], [True, False]]
        ).merged(0),
        "share the last 0 tokens allow different actions: state 1 .* and state 2",
    ),
    "no source": (lambda: GAME.merge_policy(UNIFORM), "a game made by merged"),
    "summand": (lambda: GAME.sequence_sum(np.ones(3)), r"shape \(..., 3, 3\) and no NaN"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_what_and_where(name):
    call, message = BAD[name]
    with pytest.raises(InvalidInput, match=message):
        call()


def test_a_tree_too_large_to_unroll_is_refused_with_its_size():
    game = TokenMDP.tree(50, 12, order=1)
    assert game.n_states < 1000
    with pytest.raises(
        InvalidInput, match=r"the tree behind .* has 199,563,782,688,.* cannot be enumerated"
    ):
        game.sequence_law(game.uniform_policy())

"""The occupancy game on merged states: two solvers, certificates, what theory says of it (T10)."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import TokenMDP, objectives, xp
from theory.errors import InvalidInput, NotConverged, Unavailable
from theory.objectives import Pointwise
from theory.occupancy.problem import OccupancyProblem
from theory.occupancy.solve import occupancy_game
from theory.tokens import text

FEW = max(3, settings.default.max_examples // 5)
NO_LINK_SLOPE = {"ipm"}


def playable(kind):
    """Names of the registered objectives that have the game, from what they say of themselves."""
    found = []
    for name in objectives.names():
        obj = objectives.get(name)
        parts = ("saddle", "link", "conic_game")
        if kind == "equilibrium":
            parts = ("equilibrium", "link", "potential", "conic_potential")
        if all(obj.missing(p) is None for p in parts) and name not in NO_LINK_SLOPE:
            found.append(name)
    return found


GAMES = [(n, k) for k in ("saddle", "equilibrium") for n in playable(k)]


@st.composite
def instances(draw, max_order=2):
    """(game with expert, reference, tau)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    game = TokenMDP.random(
        draw(st.integers(2, 4)),
        draw(st.integers(1, 4)),
        rng=rng,
        prompts=draw(st.integers(1, 2)),
        order=draw(st.integers(0, max_order)),
        eos=draw(st.sampled_from([0, None])),
    )
    return game, game.random_policy(rng), draw(st.sampled_from([0.03, 0.1, 0.5, 2.0]))


def visited(game, solution, least=1e-2):
    return solution.details["occupancy"].sum(-1) > least


# --- two solvers ---------------------------------------------------------------------------------


@pytest.mark.claim("T10.occupancy", regime="tabular")
@pytest.mark.parametrize(("name", "kind"), GAMES)
@given(instances())
@settings(max_examples=FEW)  # a conic program each
def test_newton_and_the_conic_program_agree(claim, name, kind, instance):
    game, ref, tau = instance
    obj = objectives.get(name)
    fast = occupancy_game(game, game.expert, ref, obj, tau, kind)
    conic = occupancy_game(game, game.expert, ref, obj, tau, kind, "convex")
    mass = fast.details["occupancy"], conic.details["occupancy"]
    claim.close(*mass, 1e-6, what="occupancies, Newton and conic", because="solver")
    rows = visited(game, fast)
    policies = np.exp(fast.policy[rows]), np.exp(conic.policy[rows])
    what = "policies at visited states, Newton and conic"
    claim.close(*policies, 1e-6, what=what, because="solver")
    claim.below(
        fast.gap,
        1e-10 * np.maximum(1, np.abs(fast.primal)),
        what="duality gap of Newton",
        because="solver",
    )
    claim.below(-fast.gap, 0.0, what="negative gap", atol=1e-12)
    value = conic.details["solver_value"]
    claim.close(fast.primal.sum(), value, 1e-6, what="value of the program", because="solver")


def test_the_games_cover_the_registry():
    names = {n for n, _ in GAMES}
    assert {"spif", "spin", "iq_learn", "gail", "airl", "nwj", "centred_spif"} <= names
    assert len(GAMES) >= 20


@given(instances(), st.sampled_from(GAMES))
def test_both_agree_when_supports_differ(instance, which):
    game, ref, tau = instance
    obj = objectives.get(which[0])
    rng = np.random.default_rng(game.n_states)

    def cut(policy):
        out = np.where(rng.random(policy.shape) < 0.25, -np.inf, policy)
        out = np.where(np.isneginf(out).all(-1, keepdims=True), policy, out)
        return out - np.logaddexp.reduce(out, axis=-1, keepdims=True)

    expert, ref = cut(game.expert), cut(ref)
    reasons: list[str] = []
    try:
        fast = occupancy_game(game, expert, ref, obj, tau, which[1])
    except InvalidInput as refused:
        reasons.append(str(refused))
    if reasons:
        assert re.search("no policy has a finite value|infinite for every policy", reasons[0])
        return
    conic = occupancy_game(game, expert, ref, obj, tau, which[1], "convex")
    assert not np.isnan(fast.policy).any()
    assert (fast.details["occupancy"][np.isneginf(ref)] == 0).all()
    np.testing.assert_allclose(fast.details["occupancy"], conic.details["occupancy"], atol=1e-6)
    np.testing.assert_allclose(fast.primal, conic.primal, atol=1e-8)


@pytest.mark.parametrize("name", ["policy_only", "spif", "nwj"])
def test_conjugate_gradients_need_few_products_also_where_links_are_steep(name):
    rng = np.random.default_rng(0)
    game = TokenMDP.random(8, 5, rng=rng, order=1, concentration=0.3)
    found = occupancy_game(game, game.expert, game.random_policy(rng), objectives.get(name), 0.05)
    assert found.details["products"] <= 60  # without the preconditioner about 100


# --- what the solution is ------------------------------------------------------------------------


@pytest.mark.claim("T10.occupancy", regime="tabular")
@pytest.mark.parametrize("name", playable("equilibrium"))
@given(instances())
def test_the_equilibrium_is_the_fixed_point_of_the_rounds(claim, name, instance):
    game, ref, tau = instance
    obj = objectives.get(name)
    found = occupancy_game(game, game.expert, ref, obj, tau, "equilibrium")
    ratio = game.log_occupancy(game.expert) - game.log_occupancy(found.policy)
    step = game.soft_value_iteration(obj.link(ratio), beta=0.0, tau=tau, log_ref=ref)
    rows = visited(game, found, 1e-6)
    claim.close(
        np.exp(step.policy[rows]), np.exp(found.policy[rows]), 1e-7, what="pi = pi_ref e^{R/tau}"
    )
    claim.close(found.reward, obj.link(ratio), 1e-12, what="reward = R(log d_E/d_pi)")


@pytest.mark.claim("T10.occupancy", regime="tabular")
@pytest.mark.parametrize("name", playable("saddle"))
@given(instances())
def test_neither_player_of_the_saddle_point_can_do_better(claim, name, instance):
    game, ref, tau = instance
    obj = objectives.get(name)
    found = occupancy_game(game, game.expert, ref, obj, tau, "saddle")
    rng = np.random.default_rng(0)
    expert = game.occupancy(game.expert)

    def payoff(policy, reward):
        mass = game.occupancy(policy)
        paid = (expert * obj.a(reward) + mass * obj.b(reward)).sum(-1)
        per_prompt = np.array([paid[game.prompt == p].sum() for p in range(game.n_prompts)])
        return per_prompt + tau * game.kl(policy, ref)

    value = payoff(found.policy, found.reward)
    claim.close(value, found.primal, 1e-9, rtol=1e-9, what="value of the game")
    soft = game.soft_value_iteration(-obj.b(found.reward), beta=0.0, tau=tau, log_ref=ref)
    best = payoff(soft.policy, found.reward)
    claim.below(value, best, what="value against the best response policy", atol=1e-8)
    other = found.reward + 0.1 * rng.normal(size=ref.shape)
    if name == "gail":  # whose rewards are positive
        other = found.reward * np.exp(0.1 * rng.normal(size=ref.shape))
    claim.below(payoff(found.policy, other), value, what="value of other rewards", atol=1e-8)


@pytest.mark.claim("T10.occupancy", regime="tabular")
@pytest.mark.parametrize(("name", "kind"), GAMES)
@given(instances())
def test_every_policy_is_above_every_bound(claim, name, kind, instance):
    game, ref, tau = instance
    obj = objectives.get(name)
    problem = OccupancyProblem.build(game, game.expert, ref, obj, tau, kind)
    found = occupancy_game(game, game.expert, ref, obj, tau, kind)
    at = problem.evaluate(game.random_policy(np.random.default_rng(1)))
    claim.below(found.primal, at.primal, what="least value against another policy's", atol=1e-9)
    scale = 1e-10 * (1 + np.abs(at.given).sum())
    claim.below(problem.lower_bound(at), found.primal, what="another bound", atol=scale)


@pytest.mark.claim("T10.occupancy", regime="tabular")
@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0.05, 3))
def test_one_token_is_the_game_on_laws(claim, vocab, seed, tau):
    game = TokenMDP.random(vocab, 1, seed=seed)
    ref = game.random_policy(np.random.default_rng(seed))
    spin = occupancy_game(game, game.expert, ref, objectives.get("spin"), tau, "equilibrium")
    mixed = (game.expert + tau * ref) / (1 + tau)
    mixed = np.exp(mixed - np.logaddexp.reduce(mixed, axis=-1, keepdims=True))
    claim.close(np.exp(spin.policy), mixed, 1e-9, what="p^{1/(1+tau)} ref^{tau/(1+tau)}")


@pytest.mark.claim("T10.rounds_end", regime="tabular")
@given(instances(), st.sampled_from(["spif", "spin", "iq_learn"]))
@settings(max_examples=FEW)
def test_occupancy_rounds_converge_to_the_equilibrium(claim, instance, name):
    game, ref, _ = instance
    tau = 1.0
    obj = objectives.get(name, c=2.0) if name != "spin" else objectives.get(name)
    found = occupancy_game(game, game.expert, ref, obj, tau, "equilibrium")
    beta = 4.0 * game.horizon * float(np.max(obj.slope(np.array([-2.0, 0.0]))))
    expert, policy = game.log_occupancy(game.expert), ref
    distance = [float(game.kl(found.policy, policy).sum())]
    for _ in range(int(12 * (1 + beta / tau))):
        reward = obj.link(expert - game.log_occupancy(policy))
        policy = game.soft_value_iteration(reward, policy, beta, tau, ref).policy
        distance.append(float(game.kl(found.policy, policy).sum()))
    end = 1e-6 * distance[0] + 1e-9
    claim.below(distance[-1], end, what="KL to the equilibrium at the end", because="chosen")


# --- occupancies are no laws ---------------------------------------------------------------------


def lengths(name, tau, kind, eos):
    rng = np.random.default_rng(3)
    game = TokenMDP.random(3, 6, rng=rng, order=1, eos=eos)
    ref = game.random_policy(rng)
    found = occupancy_game(game, game.expert, ref, objectives.get(name), tau, kind)
    apart = np.abs(found.details["occupancy"] - game.occupancy(game.expert)).max()
    return found.details["occupancy"].sum() - game.occupancy(game.expert).sum(), apart


def falls_with_the_anchor(claim, name, kind, eos):
    """The distance to the expert vanishes in proportion to tau."""
    apart = [lengths(name, tau, kind, eos)[1] for tau in (1e-3, 1e-4)]
    what = "distance to the expert falls tenfold with tau, up to O(tau)"
    claim.close(apart[1] / apart[0], 0.1, atol=1e-3, what=what, because="expansion")


@pytest.mark.claim("T10.unanchored", regime="tabular", drops="payoff_zero_at_one")
@pytest.mark.parametrize(
    ("name", "kind"),
    [("gail", "saddle"), ("nwj", "equilibrium"), ("airl", "saddle"), ("exponential", "saddle")],
)
def test_a_payoff_at_ratio_one_rewards_length(claim, name, kind):
    longer, _ = lengths(name, 1e-3, kind, eos=0)
    claim.exhibits(longer, 0.05, what="expected tokens more than the expert's, tau = 0.001")
    falls_with_the_anchor(claim, name, kind, eos=None)  # where responses have one length


@pytest.mark.claim("T10.unanchored", regime="tabular")
@pytest.mark.parametrize(
    ("name", "kind"), [("spif", "saddle"), ("spif", "equilibrium"), ("spin", "equilibrium")]
)
def test_without_it_the_expert_is_the_limit(claim, name, kind):
    falls_with_the_anchor(claim, name, kind, eos=0)


@given(instances())
def test_prompts_do_not_interact(instance):
    game, ref, tau = instance
    spif = objectives.get("spif")
    both = occupancy_game(game, game.expert, ref, spif, tau)
    own = game.prompt == 0
    number = np.cumsum(own) - 1
    first = TokenMDP.from_arrays(
        np.where(game.next_state[own] >= 0, number[game.next_state[own]], -1),
        expert=game.expert[own],
    )
    alone = occupancy_game(first, first.expert, ref[own], spif, tau)
    np.testing.assert_allclose(alone.primal[0], both.primal[0], atol=1e-10)
    np.testing.assert_allclose(
        alone.details["occupancy"], both.details["occupancy"][own], atol=1e-8
    )


def test_an_expert_from_real_text_is_certified():
    texts = text.phrases(p.response for p in text.load_pairs()[:6000])
    game = TokenMDP.from_text(texts, vocab_size=42, horizon=6, order=1)
    ref = TokenMDP.from_text(texts, vocab_size=42, horizon=6, order=0).expert
    ref = ref[game.depth]  # the unigram model
    for kind in ("saddle", "equilibrium"):
        found = occupancy_game(game, game.expert, ref, objectives.get("spif"), 0.1, kind)
        assert game.n_states * game.n_actions > 8000
        assert found.gap.max() <= 1e-10
        assert 0 < game.kl(game.expert, found.policy)[0] < game.kl(game.expert, ref)[0]


def test_an_objective_whose_potential_is_written_off_by_a_multiple_of_the_mass_is_put_right():
    class Tilted(type(objectives.get("spif"))):
        def potential_formula(self, policy, expert):
            return super().potential_formula(policy, expert) + 3.0 * policy.sum(-1)

    game = TokenMDP.random(3, 3, order=1)
    ref = game.uniform_policy()
    tilted = occupancy_game(game, game.expert, ref, Tilted(), 0.1, "equilibrium")
    plain = occupancy_game(game, game.expert, ref, objectives.get("spif"), 0.1, "equilibrium")
    np.testing.assert_allclose(tilted.policy, plain.policy, atol=1e-9)
    np.testing.assert_allclose(tilted.gap, 0.0, atol=1e-10)

    class Wrong(type(objectives.get("spif"))):
        def potential_formula(self, policy, expert):
            return 2.0 * super().potential_formula(policy, expert)

    with pytest.raises(Unavailable, match="not the integral of its link"):
        occupancy_game(game, game.expert, ref, Wrong(), 0.1, "equilibrium")


class WrongLink(Pointwise):
    """SPIF's payoffs at c = 1/2 with a link that is not their best response."""

    name = "wrong_link"
    times: float = 3.0

    def a(self, r):
        return r - 0.25 * r * r

    def b(self, r):
        return -r - 0.25 * r * r

    def link_formula(self, u, delta):
        return self.times * xp.tanh(0.5 * u)


def test_a_wrong_link_is_not_certified():
    """Primal and dual come from the payoffs: they still enclose the value of the game."""
    game = TokenMDP.random(3, 3, order=1)
    given_ = (game, game.expert, game.uniform_policy())
    right = occupancy_game(*given_, "spif(c=0.5)", 0.3)
    with pytest.raises(NotConverged, match=r"the payoffs gain .*: no best response"):
        occupancy_game(*given_, WrongLink(), 0.3, "equilibrium")
    with pytest.raises(NotConverged, match="not converged: duality gap"):
        occupancy_game(*given_, WrongLink(), 0.3)
    found = occupancy_game(*given_, WrongLink(), 0.3, raise_on_failure=False)
    assert found.dual <= right.primal + 1e-12
    assert right.dual <= found.primal + 1e-12
    assert found.gap >= found.primal - right.primal - 1e-12


# --- refusals ------------------------------------------------------------------------------------

GAME = TokenMDP.random(3, 2)
REF = GAME.uniform_policy()
SPIF = objectives.get("spif")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tau": 0.0}, InvalidInput, r"tau=0\.0; needed is a finite number > 0"),
        (
            {"tau": "0.1", "kind": "nash"},
            InvalidInput,
            "kind='nash'; needed is one of 'saddle', .*; tau='0.1'",
        ),
        ({"method": "slow"}, InvalidInput, "method='slow'; needed is one of 'fast', 'convex'"),
        (
            {"expert": REF[None], "ref": REF[0]},
            InvalidInput,
            "expert must be one policy.*; ref must",
        ),
        ({"ref": np.exp(REF)}, InvalidInput, "ref: log-probabilities above 0"),
        ({"obj": objectives.get("spin")}, Unavailable, "spin has no saddle: its payoff is a mean"),
        ({"obj": objectives.get("ipm")}, Unavailable, "link jumps at u = 0.* use method='convex'"),
        (
            {"obj": objectives.get("ipo"), "kind": "equilibrium"},
            Unavailable,
            "ipo has no potential",
        ),
        (
            {"obj": objectives.get("spin_hinge"), "kind": "equilibrium"},
            Unavailable,
            "spin_hinge has no link",
        ),
    ],
)
def test_bad_input_is_refused(change, error, message):
    given_ = {"game": GAME, "expert": GAME.expert, "ref": REF, "obj": SPIF, "tau": 0.1} | change
    with pytest.raises(error, match=message):
        occupancy_game(**given_)


def test_games_without_a_finite_value_are_refused():
    def only(action):
        return np.where(np.arange(3) == action, 0.0, -np.inf) * np.ones((GAME.n_states, 1))

    with pytest.raises(InvalidInput, match="no policy has a finite value at prompt 0"):
        occupancy_game(GAME, only(1), only(2), objectives.get("spin"), 0.1, "equilibrium")
    with pytest.raises(InvalidInput, match=r"infinite for every policy: nwj .* state 0"):
        occupancy_game(GAME, GAME.expert, only(2), objectives.get("nwj"), 0.1)
    bounded = occupancy_game(GAME, only(1), only(2), SPIF, 0.1)
    assert bounded.primal == pytest.approx(2 * 0.5 + 2 * 0.5)  # two tokens each, 1/(2c) apiece


def test_a_solver_that_stops_early_raises_and_keeps_what_it_had():
    with pytest.raises(NotConverged, match="no convergence within 1 iterations") as caught:
        occupancy_game(GAME, GAME.expert, REF, SPIF, 0.1, max_iterations=1)
    assert caught.value.solution.gap.max() > 1e-10
    kept = occupancy_game(
        GAME, GAME.expert, REF, SPIF, 0.1, max_iterations=1, raise_on_failure=False
    )
    assert not kept.converged

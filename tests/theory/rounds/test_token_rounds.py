"""T14: rewards per token against rewards per sequence, on token MDPs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from theory import TokenMDP, laws, objectives, self_play
from theory.result import FloatArray

IMITATION = [
    name
    for name in objectives.names()
    if objectives.get(name).has_link and "preference" not in objectives.get(name).needs
]
SPIN, SPIF = objectives.get("spin"), objectives.get("spif", c=1.0)


@st.composite
def token_games(draw: st.DrawFn) -> tuple[TokenMDP, FloatArray, FloatArray]:
    """A tree, an expert and a start policy."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    game = TokenMDP.random(
        vocab=draw(st.integers(2, 4)),
        horizon=draw(st.integers(1, 4)),
        prompts=draw(st.integers(1, 2)),
        rng=rng,
    )
    assert game.expert is not None
    return game, game.expert, game.random_policy(rng, 2.0)


@pytest.mark.parametrize("name", IMITATION)
@pytest.mark.claim("T2.soft_value_iteration", regime="tabular")
@given(drawn=token_games(), beta=st.floats(0.6, 3.0))
def test_sequence_rounds_are_rounds_on_sequence_laws(claim, name: str, drawn, beta: float) -> None:
    """Rounds on state-action policies and on the sequence laws are the same path."""
    obj = objectives.get(name)
    game, expert, start = drawn
    on_tree = self_play(expert, start, obj, beta=beta, rounds=3, game=game)
    on_laws = self_play(
        game.sequence_law(expert), game.sequence_law(start), obj, beta=beta, rounds=3
    )
    # a rounding of u moves the next log-law by R'(u)/beta: by a lot where the link is steep
    furthest = np.minimum(on_laws.details["max_logratio"], 30.0)
    steep = float(np.max(obj.slope(np.stack([-furthest, furthest]), np.asarray(0.0)))) / beta
    atol = max(1e-12, 64 * np.finfo(float).eps * steep)
    assume(atol <= 1e-6)
    claim.close(game.sequence_law(on_tree.policies), on_laws.policies, atol, what="sequence laws")


@pytest.mark.claim("T14.conditional", regime="tabular")
@given(drawn=token_games(), beta=st.floats(0.6, 3.0))
def test_spin_per_token_is_spin_per_sequence(claim, drawn, beta: float) -> None:
    """sum_h u_h = u: SPIN's conditional and sequence-level rounds are one path."""
    game, expert, start = drawn
    u = game.sequence_sum(game.conditional_logratio(expert, start))
    whole = laws.log_ratio(game.sequence_law(expert), game.sequence_law(start))
    claim.close(u, whole, atol=1e-10, what="sum of conditional log-ratios")
    kwargs = {"beta": beta, "rounds": 4, "game": game}
    token = self_play(expert, start, SPIN, level="conditional", **kwargs)
    sequence = self_play(expert, start, SPIN, level="sequence", **kwargs)
    claim.close(
        game.sequence_law(token.policies),
        game.sequence_law(sequence.policies),
        atol=1e-11,
        what="conditional against sequence path",
    )


@pytest.mark.claim("T14.spif_differs", regime="tabular")
def test_spif_per_token_is_another_algorithm(claim) -> None:
    """sum tanh(u_h/2) is not tanh(sum u_h/2): other policies, bound H/c instead of 1/c."""
    moved, largest = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        game = TokenMDP.random(vocab=3, horizon=4, rng=rng, concentration=0.3)
        assert game.expert is not None
        start = game.random_policy(rng, 0.3)
        token, sequence = (
            self_play(game.expert, start, SPIF, beta=0.5, rounds=1, game=game, level=level)
            for level in ("conditional", "sequence")
        )
        both = game.sequence_law(token.policy), game.sequence_law(sequence.policy)
        moved.append(float(laws.total_variation(*both).max()))
        per_token = np.asarray(SPIF.link(game.conditional_logratio(game.expert, start)))
        total = np.abs(game.sequence_sum(per_token)).max()
        largest.append(float(total))
        claim.below(total, game.horizon, what="sum of token rewards <= H/c")
    claim.exhibits(moved, at_least=0.01, what="TV between token and sequence rounds")
    claim.exhibits(max(largest), at_least=1.5, what="largest summed token reward times c")


def _linear_part(game: TokenMDP, expert: FloatArray, beta: float, level: str) -> FloatArray:
    """Eigenvalues of one SPIF round linearised at the expert, on sequence log-ratio tangents."""
    law = game.sequence_law(expert)[0]
    n = len(law)
    columns = []
    step = 1e-5
    for j in range(n - 1):  # tangents d with E_p d = 0
        tangent = (np.arange(n) == j) / law[j] - (np.arange(n) == n - 1) / law[n - 1]
        tangent = step * tangent / np.abs(tangent).max()
        ends = []
        for sign in (1, -1):
            moved = law * (1 + sign * tangent)
            start = game.policy_from_law(moved[None])
            path = self_play(expert, start, SPIF, beta=beta, rounds=1, game=game, level=level)
            ends.append(np.log(game.sequence_law(path.policy)[0] / law))
        columns.append((ends[0] - ends[1]) / (2 * step) * (step / np.abs(tangent).max()))
    basis = []
    for j in range(n - 1):
        tangent = (np.arange(n) == j) / law[j] - (np.arange(n) == n - 1) / law[n - 1]
        basis.append(tangent / np.abs(tangent).max())
    matrix = np.linalg.lstsq(np.stack(basis, 1), np.stack(columns, 1), rcond=None)[0]
    return np.sort(np.linalg.eigvals(matrix).real)


@pytest.mark.parametrize(
    "level",
    [
        pytest.param(level, marks=pytest.mark.claim(clause, regime="tabular"))
        for level, clause in {
            "sequence": "T14.same_local_rate",
            "conditional": "T14.same_local_rate",
            "occupancy": "T14.occupancy",
        }.items()
    ],
)
@given(seed=st.integers(0, 2**31), beta=st.floats(0.5, 4.0), horizon=st.integers(1, 3))
def test_local_rates_by_level(claim, level: str, seed: int, beta: float, horizon: int) -> None:
    """Local eigenvalues: 1 - R'(0)/beta for sequence and conditional; 1 - k R'(0)/beta, k = 1..H
    for occupancy ratios."""
    game = TokenMDP.tree(vocab=2, horizon=horizon, eos=None)
    expert = game.random_policy(np.random.default_rng(seed), 5.0)
    eigenvalues = _linear_part(game, expert, beta, level)
    rate = 0.5 / beta
    if level == "occupancy":
        # a token at depth h is seen by the H - h + 1 occupancies from it to the end
        depth = np.repeat(np.arange(horizon), 2 ** np.arange(horizon))
        predicted = np.sort(1 - (horizon - depth) * rate)
    else:
        predicted = np.full(len(eigenvalues), 1 - rate)
    atol = 2e-4 * (1 + rate)  # of differences 1e-5 wide
    claim.close(
        eigenvalues, predicted, atol, what=f"eigenvalues, {level} level", because="expansion"
    )


@pytest.mark.claim("T14.occupancy", regime="tabular")
def test_occupancy_rewards_need_a_larger_beta(claim) -> None:
    """beta between R'(0)/2 and H R'(0)/2: conditional rounds converge, occupancy rounds do not."""
    game = TokenMDP.tree(vocab=2, horizon=4, eos=None)
    rng = np.random.default_rng(0)
    expert = game.random_policy(rng, 5.0)
    near = game.policy_from_law(
        _tilted(game.sequence_law(expert), 1e-4 * rng.standard_normal((1, 16)))
    )
    kwargs = {"beta": 0.5, "rounds": 120, "game": game}
    stable = self_play(expert, near, SPIF, level="conditional", **kwargs)
    unstable = self_play(expert, near, SPIF, level="occupancy", **kwargs)
    claim.below(stable.details["max_logratio"][-1], 1e-12, what="late max |u|, conditional")
    claim.exhibits(
        unstable.details["max_logratio"][-1], at_least=1e-2, what="late max |u|, occupancy"
    )
    safe = self_play(expert, near, SPIF, level="occupancy", **(kwargs | {"beta": 1.2}))
    claim.below(safe.details["max_logratio"][-1], 1e-12, what="late max |u|, beta > H/4")


def _tilted(law: FloatArray, tilt: FloatArray) -> FloatArray:
    weight = law * np.exp(tilt)
    return np.asarray(weight / weight.sum(-1, keepdims=True))


@pytest.mark.parametrize("one_step", [False, True])
@given(drawn=token_games(), beta=st.floats(0.6, 3.0))
def test_alpha_spin_mixes_its_opponent_at_every_token(one_step: bool, drawn, beta: float) -> None:
    """Conditional rounds are those of each state's own law if no value comes after it."""
    game, expert, start = drawn
    obj = objectives.get("alpha_spin", base_weight=0.3)
    if game.horizon > 1 and not one_step:  # continuation values: a round of SPIN from the mixture
        base = game.random_policy(np.random.default_rng(0), 1.0)
        prior = np.asarray(obj.opponent(start, start, base))
        got = self_play(
            expert, start, obj, beta, 1, ref=base, game=game, level="conditional"
        ).policies[-1]
        expected = self_play(expert, prior, SPIN, beta, 1, game=game, level="conditional").policy
    else:
        got = self_play(
            expert, start, obj, beta, 3, one_step=one_step, game=game, level="conditional"
        ).policies[-1]
        rows = self_play(np.exp(expert), np.exp(start), obj, beta, 3, one_step=one_step)
        expected = laws.log_law(rows.policy)
    np.testing.assert_allclose(np.exp(got), np.exp(expected), atol=1e-10)


def test_tspin_per_token_has_each_states_history() -> None:
    game = TokenMDP.random(vocab=3, horizon=2, seed=3)
    start, tspin = game.uniform_policy(), objectives.get("tspin")
    path = self_play(
        game.expert, start, tspin, 2.0, 3, one_step=True, game=game, level="conditional"
    )
    rows = self_play(np.exp(game.expert), np.exp(start), tspin, 2.0, 3, one_step=True)
    np.testing.assert_allclose(np.exp(path.policies), rows.policies, atol=1e-12)

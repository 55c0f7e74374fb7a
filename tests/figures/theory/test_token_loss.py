"""What the figure "token_loss" and README's T14 say is true of the numbers drawn."""

import numpy as np
import pytest

from figures.theory import token_loss as figure
from figures.tidy import THEORY
from tests.figures.tables import drawn, is_drawn, matched, part
from theory import TokenMDP


def test_a_small_run_is_drawn(monkeypatch):
    monkeypatch.setattr(figure, "BETAS", np.array([0.8, 1.0]))
    monkeypatch.setattr(figure, "ROUNDS", 20)
    monkeypatch.setattr(figure, "GAMES", 2)
    monkeypatch.setattr(figure, "HORIZONS", (1, 4))
    monkeypatch.setattr(figure, "DEPTHS", (1, 4))
    monkeypatch.setattr(figure, "OFTEN", (0.5, 1.0))
    is_drawn(figure, figure.table())


def test_two_rounds_are_one_at_beta_1_and_for_independent_positions():
    table = drawn("token_loss")
    tree, flat = (part(table, "apart", series=s) for s in ("a tree", "independent"))
    assert flat.y.max() < 1e-14
    assert tree.y[tree.x == 1.0].iloc[0] < 1e-14
    assert tree.y[tree.x != 1.0].min() > 0.05
    both = matched(table[(table.series == "a tree") & (table.x != 1.0)], "apart")
    np.testing.assert_allclose(both.y, both.theory, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.6, 2.0])
def test_their_distance_response_by_response(beta):
    """Products along each response: normalised at every token, or once."""
    rng = np.random.default_rng(0)
    game = TokenMDP.tree(vocab=3, horizon=3, eos=None)
    p, q = (np.exp(game.random_policy(rng, 1.0)) for _ in range(2))
    mixed = p ** (1 / beta) * q ** (1 - 1 / beta)
    local = mixed / mixed.sum(-1, keepdims=True)
    tokens, whole = [], []
    for a in range(3):
        for b in range(3):
            for c in range(3):
                first = game.next_state[0, a]
                at = [(0, a), (first, b), (game.next_state[first, b], c)]
                tokens.append(np.prod([local[cell] for cell in at]))
                whole.append(np.prod([mixed[cell] for cell in at]))
    whole = np.array(whole) / np.sum(whole)
    found = part(drawn("token_loss"), "apart", series="a tree").set_index("x").y[beta]
    assert found == pytest.approx(0.5 * np.abs(whole - tokens).sum(), rel=1e-5)


def test_both_end_at_the_expert_at_one_local_rate():
    table = drawn("token_loss")
    for name, factor, end in (("spin", 0.5, 1e-12), ("centred_spif", 0.75, 1e-4)):
        for series in figure.WAYS:
            kl = part(table, "path", objective=name, series=series).y.to_numpy()
            assert kl[-1] < end
            np.testing.assert_allclose(kl[-1] / kl[-2], factor**2, rtol=0.02)
            line = part(table, "path", THEORY, objective=name, series=series).y.to_numpy()
            np.testing.assert_allclose(line[1:] / line[:-1], factor**2, rtol=1e-4)
            if series == "no values" and name == "spin":
                assert (kl[1:] <= 0.5 * kl[:-1]).all()  # T6 iii, at weights that do not move


def test_the_bound_of_tokens():
    fall = part(drawn("token_loss"), "fall")
    without, with_values = (fall.y[fall.series == s] for s in figure.WAYS)
    assert len(without) == len(with_values) == 60
    assert without.min() == pytest.approx(1.19, abs=0.005)
    assert with_values.min() == pytest.approx(0.83, abs=0.005)
    assert (with_values < 1.0).sum() == 12
    rng = np.random.default_rng(3)  # the fourth game, prefix by prefix
    game = TokenMDP.random(3, 4, rng=rng, concentration=0.3)
    p, q = np.exp(game.expert), np.exp(game.random_policy(rng, 0.1))
    visits = {0: 1.0}
    for s in range(game.n_states):
        for a in range(game.n_actions):
            if (after := int(game.next_state[s, a])) >= 0:
                visits[after] = visits[s] * p[s, a]
    delta = sum(v * ((p[s] - q[s]) ** 2 / (p[s] + q[s]))[p[s] + q[s] > 0].sum()
                for s, v in visits.items())  # fmt: skip
    assert fall.x[fall.x.sub(0.375 * delta).abs().idxmin()] == pytest.approx(
        0.375 * delta, rel=1e-5
    )


def test_rounds_by_length():
    table = drawn("token_loss")
    whole, token = (
        part(table, "burn-in", series=f"per {s}").set_index("x").y for s in ("response", "token")
    )
    assert whole.to_dict() == {h: 20 * h for h in range(1, 7)}
    assert token.tolist() == [20, 22, 22, 23, 23, 24]
    for h, rounds in token.items():
        least = np.ceil(20 - 1 / h)  # 2 eta = 1 nat a round
        most = np.ceil(4 * np.log(np.sinh(10.0) / np.sinh(0.5 / h)))
        ends = [
            part(table, "burn-in", THEORY, series=f"per token, at {e}") for e in ("least", "most")
        ]
        assert [float(end.y[end.x == h].iloc[0]) for end in ends] == [least, most]
        assert least <= rounds <= most
    line = part(table, "burn-in", THEORY, series="per response")
    np.testing.assert_allclose(line.y, 20 * line.x - 1)


def test_mass_left_by_length():
    """Z = E_q e^{t}, t = (p - q)/(p + q): .95 against .05 at one token."""
    table = drawn("token_loss")
    z = 0.05 * np.exp(0.9) + 0.95 * np.exp(-0.9)
    line = part(table, "left", THEORY, series="per token")
    np.testing.assert_allclose(line.y, z**line.x, rtol=1e-5)
    for series in ("per token", "per response"):
        both = matched(table[(table.series == series) & (table.objective == "spif")], "left")
        np.testing.assert_allclose(both.y, both.theory, rtol=1e-3)
    whole = part(table, "left", THEORY, series="per response").y.to_numpy()
    ratio = (0.95 / 0.05) ** np.arange(-5.0, 6.0, 2.0)  # of p to q by number of likely tokens
    ways = np.array([1, 5, 10, 10, 5, 1])
    own = ways * 0.05 ** np.arange(6) * 0.95 ** np.arange(5, -1, -1)
    assert whole[-1] == pytest.approx(own @ np.exp((ratio - 1) / (ratio + 1)), rel=1e-4)
    assert whole.min() > np.exp(-1.0)
    assert part(table, "left", objective="centred_spif").y.min() > 1 - 1e-6


def test_own_prefixes():
    table = drawn("token_loss")
    for eta in (0.5, 1.0, 3.0):
        points = part(table, "own", series=f"{eta:g}")
        assert len(points) == (5 if eta > 1 else 8)
        expected = eta / ((1 + points.x) + eta * (1 - points.x))
        np.testing.assert_allclose(points.y, expected, rtol=2e-3)
        line = part(table, "own", THEORY, series=f"{eta:g}")
        np.testing.assert_allclose(line.y, eta / ((1 + line.x) + eta * (1 - line.x)), rtol=1e-4)


def test_the_numbers_of_the_readme():
    table = drawn("token_loss")
    tree = part(table, "apart", series="a tree").set_index("x").y
    np.testing.assert_allclose(tree[[0.6, 1.0, 2.0]], [0.36, 0.0, 0.12], atol=5e-3)
    fall = part(table, "fall").groupby("series").y.max()
    np.testing.assert_allclose(fall[list(figure.WAYS)], [1.33, 2.53], atol=5e-3)
    left = part(table, "left", objective="spif")
    found = left[left.x == 5].set_index("series").y
    np.testing.assert_allclose(found[["per token", "per response"]], [0.034, 0.371], atol=5e-4)

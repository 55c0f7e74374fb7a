"""Preference self-play of two runs on three responses: rounds and estimates in numpy."""

import numpy as np
import pytest
import torch

from lab.streams import draw
from tests.toy_games.dynamics.preferences_of_three import (
    BETA,
    NOW,
    REF,
    START,
    STREAMS,
    TARGET,
    TAU,
    P,
    at,
    close,
    normal,
    pairs,
    play,
    tensor,
    wins,
)
from theory import preferences
from theory.errors import InvalidInput, Unavailable
from toy_games.dynamics.preference_rounds import (
    PreferenceRounds,
    algorithm_of,
    games,
    reward_of_counts,
)


def test_an_exact_round_is_a_step_from_the_policy_and_the_anchor():
    run = play(PreferenceRounds, "spif(c=0.5)", beta_growth=[0.1, 0.3])
    state = at(run.start(), log_law=np.log(NOW), total=START)
    close(run.start()["log_law"], np.log(START))
    found = run.advance(state, 2)
    beta = BETA + 2 * np.array([[0.1], [0.3]])
    reward = (2 * wins(NOW) - 1) / 0.5
    new = np.exp((beta * np.log(NOW) + TAU * np.log(REF) + reward) / (beta + TAU))
    close(found["log_law"].exp(), normal(new))
    close(found["total"], START + NOW)


def test_nash_md_is_scored_against_the_mixture_and_starts_at_the_policy():
    run = play(PreferenceRounds, "nash_md")
    mixed = normal(np.exp((BETA * np.log(START) + TAU * np.log(REF)) / (BETA + TAU)))
    found = run.advance(run.start(), 0)
    reward = 0.5 * (2 * wins(mixed) - 1)
    close(found["log_law"].exp(), normal(mixed * np.exp(reward / (BETA + TAU))))
    close(found["total"], mixed)
    close(run.reward(tensor(mixed), 0), reward)


def test_a_round_on_winners_and_one_from_a_mixture():
    run = play(PreferenceRounds, "sft")
    close(run.advance(run.start(), 0)["log_law"].exp(), normal(START * wins(START)))
    run = play(PreferenceRounds, "alpha_spin")
    mixed = normal(np.sqrt(START * REF))
    reward = preferences.reward(P, mixed, "alpha_spin")
    new = (BETA * np.log(mixed) + TAU * np.log(REF) + reward) / (BETA + TAU)
    found = run.advance(run.start(), 0)
    close(found["log_law"].exp(), normal(np.exp(new)))
    close(found["total"], mixed)


def test_rows_rest_after_their_horizon():
    run = play(PreferenceRounds, "sppo", horizon=[0, 2])
    for step, moved in ((1, [True, True]), (2, [True, False])):
        state = run.start()
        found = run.advance(state, step)
        for name in ("log_law", "total"):
            assert (found[name] != state[name]).any(-1).tolist() == moved


def comparisons(law, step, most, samples, own):
    """Share of wins of K comparisons of every response, the first with itself if ``own``."""
    numbers = STREAMS.uniform("opponents", step, (3 * most,))
    opponent = draw(tensor(law), numbers).reshape(2, 3, most).numpy()
    luck = STREAMS.uniform("comparisons", step, (3, most)).numpy()
    share = np.zeros((2, 3))
    for b, y in np.ndindex(2, 3):
        for k in range(samples[b]):
            win = luck[b, y, k] < P[b, y, opponent[b, y, k]]
            share[b, y] += (0.5 if own[b] and k == 0 else win) / samples[b]
    return share


def test_estimates_are_shares_of_wins():
    run = play(PreferenceRounds, "spif(c=0.5)", samples=[5, 3], self_comparison=[0, 1])
    share = comparisons(NOW, 4, 5, [5, 3], [False, True])
    close(run.estimate(tensor(NOW), 4), share)
    close(run.reward(tensor(NOW), 4), (2 * share - 1) / 0.5)
    mixed = play(PreferenceRounds, "ipo(margin=1.3)", samples=[0, 4])
    found = mixed.reward(tensor(NOW), 4)
    close(found[0], 1.3 * (2 * wins(NOW) - 1)[0])
    close(found[1], 1.3 * (2 * comparisons(NOW, 4, 4, [0, 4], [0, 0]) - 1)[1])


def test_one_comparison_and_a_strong_anchor():
    run = play(PreferenceRounds, "sppo", samples=[1, 1], tau=[0.9, 0.1])
    close(run.used(3), [[1, 0, 0], [1, 0, 0]])
    close(run.reward(tensor(NOW), 2), comparisons(NOW, 2, 1, [1, 1], [0, 0]) - 0.5)


def test_pairs_are_counted_and_answered():
    run = play(PreferenceRounds, "spif(c=0.5)", samples=[7, 4], draws="pairs")
    winner, loser = pairs(NOW, 4, 7)
    expected = np.zeros((2, 3))
    for b, count in ((0, 7), (1, 4)):
        won, lost = (np.bincount(x[b, :count], minlength=3) for x in (winner, loser))
        expected[b] = (won - lost) / np.maximum(won + lost, 1) / 0.5
    close(run.reward(tensor(NOW), 4), expected)


def test_rewards_of_counted_pairs():
    counts = tensor([[[5, 3, 0], [1, 2, 2], [1, 0, 0]], [[0, 4, 0], [0, 0, 0], [0, 0, 0]]])
    seen = reward_of_counts(counts, 0.7, False)
    won, lost = np.array([[8, 5, 1], [4, 0, 0]]), np.array([[7, 5, 2], [0, 4, 0]])
    close(seen, 0.7 * (won - lost) / np.maximum(won + lost, 1))
    found = reward_of_counts(counts, 0.7, True).numpy()
    both = np.array([[0, 4, 1], [4, 0, 2], [1, 2, 0]])  # comparisons of each two, but with itself
    met = both.sum(-1)
    close((np.diag(met) - both) @ found[0], 0.7 * np.array([3 - 2, 3 - 3, 1 - 2]))
    close(met @ found[0], 0.0)
    close(found[1], [0.35, -0.35, 0.0])
    apart = np.zeros((4, 4))
    apart[0, 1], apart[1, 0], apart[2, 3] = 3, 1, 5
    r = reward_of_counts(tensor(apart[None]), 1.0, True)[0].numpy()
    close(r, [0.25, -0.25, 0.5, -0.5])


def test_measures_of_rounds():
    run = play(PreferenceRounds, "sppo")
    state = at(run.start(), log_law=np.log(NOW), total=4 * START)
    found = run.measure(state, 1)
    for name, law in (("gap", NOW), ("average_gap", START)):
        close(found[name], 2 * wins(law).max(-1) - 1)
    close(found["average_tv"], 0.5 * np.abs(START - TARGET).sum(-1))
    close(found["tv"], 0.5 * np.abs(NOW - TARGET).sum(-1))
    inside = np.where(TARGET > 0, TARGET, 1.0)
    close(found["kl"], (TARGET * np.log(inside / NOW)).sum(-1))
    close(found["norm"], np.sqrt(((NOW / inside - 1) ** 2 * TARGET).sum(-1)))
    at_once = run.measure(state | {"total": torch.zeros(2, 3)}, 0)
    close(at_once["average_gap"], at_once["gap"])
    uniform = play(PreferenceRounds, "sppo", target=None, ref=None)
    close(uniform.target, 1 / 3)
    close(uniform.log_ref, np.log(START))


def test_what_an_algorithm_is_paid():
    for spec, scale, gain in (("nash_md", 0.5, 0.5), ("sppo", 0.5, 0.5), ("spif(c=0.4)", 2.5, 2.5),
                              ("ipo(margin=1.3)", 1.3, 1.3)):  # fmt: skip
        found = algorithm_of(spec)
        assert (found.mixture, found.objective is None) == (spec == "nash_md",) * 2
        close([found.scale, found.gain], [scale, gain])
    close([algorithm_of("dpo").gain, algorithm_of("sft").gain], [2.0, 1.0])
    with pytest.raises(Unavailable, match="no payoff scale"):
        algorithm_of("sft").scale  # noqa: B018


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"preference": P[:, :2]}, "square|shape"),
        ({"preference": P[[0, 1, 0]]}, "preference: shape"),
        ({"preference": P[None]}, "preference: shape"),
        ({"start": START[:, :2]}, "start: shape"),
        ({"start": 2 * START}, "start: needed are laws"),
        ({"ref": TARGET}, "ref: needed are laws"),
        ({"target": TARGET - [0.6, 0.0, -0.6]}, "target: needed are laws"),
        ({"tau": [0.0, 0.1], "beta": [0.0, 1.0]}, r"needed is beta \+ tau > 0"),
        ({"draws": "x"}, "needed is one of"),
        ({"draws": "pairs", "self_comparison": [0, 1]}, "pairs have none"),
        ({"algorithm": "nash_md", "tau": [0.0, 0.1]}, "nash_md: needed is tau > 0"),
    ],
)
def test_rounds_that_do_not_fit_are_refused(given, said):
    with pytest.raises(InvalidInput, match=said):
        play(PreferenceRounds, given.pop("algorithm", "sppo"), **given)


def test_kinds_of_games():
    rng = lambda: [np.random.default_rng(s) for s in (1, 2)]  # noqa: E731
    for n, odd in ((4, 3), (5, 5)):
        cyclic = games("rps", n, rng(), 0.8)
        assert cyclic.shape == (2, odd, odd)
        close(np.abs(2 * cyclic - 1), 0.8 * (1 - np.eye(odd)[None].repeat(2, 0)))
        close(cyclic.sum(-1), odd / 2)
    random = games("random", 4, rng(), 0.8)
    assert random.shape == (2, 4, 4)
    assert 0.5 < np.abs(2 * random - 1).max() <= 0.8
    scored = games("bradley_terry", 4, rng(), 0.8)
    logit = np.log(scored) - np.log1p(-scored)
    steps = np.sort(logit - logit.min(-1, keepdims=True), axis=-1)
    close(steps, np.broadcast_to(2 * np.arctanh(0.8) / 3 * np.arange(4), (2, 4, 4)))
    assert (scored[0] != scored[1]).any()
    flat = 2 * games("low_rank", 5, rng(), 0.8) - 1
    assert np.linalg.matrix_rank(flat, tol=1e-9).tolist() == [2, 2]
    close(np.abs(flat).max((1, 2)), 0.8)
    assert (flat.min(-1) < 0).all()
    tried, three = [], [np.random.default_rng(seed) for seed in range(9)]
    for seed, found in enumerate(games("low_rank", 3, three, 0.8)):
        again, area = np.random.default_rng(seed), np.ones((3, 3))
        while ((area > 0).sum(-1) >= 2).any():  # who wins against all others
            chance = preferences.low_rank(again, 3, 2)
            area = np.log(chance / (1 - chance)) * (1 - np.eye(3))
            tried.append(seed)
        close(found, 0.5 + 0.4 * area / np.abs(area).max(), 1e-9)
    assert len(tried) > 9
    with pytest.raises(InvalidInput, match="game 'chess'"):
        games("chess", 3, rng(), 0.8)

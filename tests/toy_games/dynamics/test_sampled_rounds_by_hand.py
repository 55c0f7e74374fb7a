"""Rounds on samples of three runs, two of one seed, and trials of finite classes, in numpy."""

import numpy as np
import pandas as pd
import pytest
import torch

from lab.streams import Streams, draw
from theory import TokenMDP, objectives, self_play
from theory.errors import InvalidInput, Unavailable
from toy_games.dynamics.finite_class import hellinger, random_class, trial
from toy_games.dynamics.sampled_rounds import LARGEST, SampledRounds, far_start

SEEDS, BETA, SHARE = [3, 8, 3], np.array([0.7, 2.0, 1.5]), np.array([[0.2], [0.0], [0.5]])
P = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
Q = np.array([[0.25, 0.25, 0.1, 0.4], [0.3, 0.3, 0.2, 0.2], [0.2, 0.2, 0.5, 0.1]])


def close(found, expected, rtol=1e-11):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-13)


def normal(law):
    return law / law.sum(-1, keepdims=True)


def play(name="spif", expert=P, log_start=None, share=SHARE, **given):
    rows = pd.DataFrame({"seed": SEEDS, "beta": BETA, "label_noise": share[:, 0]})
    log_start = np.log(Q) if log_start is None else log_start
    return SampledRounds(None if name == "sft" else objectives.get(name), rows, expert, log_start,
                         **given)  # fmt: skip


def counts(side, law, step, n):
    """How many of a seed's n numbers fall in each interval of a row's distribution function."""
    numbers = Streams(SEEDS).uniform(side, step, (n,)).numpy()
    return np.array([
        np.histogram(numbers[b], np.concatenate([[0.0], law[b].cumsum()[:-1], [1.0]]))[0]
        for b in range(3)
    ])  # fmt: skip


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", ["spif", "ipo", "sft"])
def test_a_round_on_samples(name, fixed):
    run = play(name, samples=20, smoothing=0.3, per_expert=2, fixed_data=fixed)
    seen = np.array([[1.0, 2.0, 0.0, 3.0]] * 3)
    state = run.start() | {"seen": torch.from_numpy(seen)}
    labels = (1 - SHARE) * P + SHARE / 4
    expert = counts("expert", labels, 0 if fixed else 5, 20)
    own = counts("own", Q, 5, 40) / 2
    assert (expert.sum(-1) == 20).all()
    assert (own.sum(-1) == 20).all()
    found = run.advance(state, 5)
    if name == "sft":
        total = expert if fixed else seen + expert
        close(found["seen"], total)
        close(found["log_q"].exp(), normal(total + 0.3))
        return
    p, q = normal(expert + 0.3), normal(own + 0.3)
    reward = (p - q) / (p + q)  # u is of counts, of equal totals
    if name == "ipo":
        reward = reward / (1 + ((p - q) ** 2 / (p + q)).sum(-1, keepdims=True) / 2)
    close(found["log_q"].exp(), normal(Q * np.exp(reward / BETA[:, None])))
    close(found["seen"], seen)


def test_counts_come_from_numbers_that_rows_of_a_seed_share():
    run = play(samples=15)
    found = run.counts("own", torch.from_numpy(P), 2).numpy()
    close(found, counts("own", P, 2, 15))
    close(run.counts("own", torch.from_numpy(2 * P), 2), found)  # laws need no total of 1
    same = run.counts("own", torch.from_numpy(P[[0, 0, 0]]), 2).numpy()
    assert (same[0] == same[2]).all()
    assert (same[0] != same[1]).any()
    coin = np.array([[0.3, 0.7]] * 3)
    close(run.counts("own", torch.from_numpy(coin), 2), counts("own", coin, 2, 15))
    assert run.counts("own", torch.ones(3, 1), 2, 7).tolist() == [[7.0]] * 3


def test_own_samples_are_partly_the_last_opponents():
    """A share a row: none, a half, all; the step still starts from the present policy."""
    share = np.array([[0.0], [0.5], [1.0]])
    for name in ("spin", "spif"):
        obj = objectives.get(name)
        run = play(name, share=0 * SHARE)
        run = SampledRounds(obj, run.rows.assign(history=share[:, 0]), P, np.log(Q))
        state, old, law = run.start(), Q, Q
        for step in range(3):
            state = run.advance(state, step)
            mixed = (1 - share) * law + share * old
            reward = np.asarray(obj.link(np.log(P / mixed)))
            old, law = law, normal(law * np.exp(reward / BETA[:, None]))
            close(state["log_q"].exp(), law)
    with pytest.raises(InvalidInput, match=r"history=1\.5 in line 2; needed is a number >= 0"):
        SampledRounds(obj, run.rows.assign(history=[0.0, 1.0, 1.5]), P, np.log(Q))


@pytest.mark.parametrize(
    "history",
    [
        0.5,
        [0.2, 0.3],
        [0.0, 0.0, 1.0],
        "average",
        (0.2, 0.3),
        np.array([0.2, 0.3]),
        [],
        np.zeros(0),
    ],
)
def test_own_samples_of_several_earlier_opponents_are_those_of_the_exact_rounds(history):
    """Without samples the rounds are `self_play`'s."""
    run = play("spif", share=0 * SHARE)
    run = SampledRounds(objectives.get("spif"), run.rows, P, np.log(Q), history=history)
    state = run.start()
    for step in range(7):
        state = run.advance(state, step)
    for i, beta in enumerate(BETA):
        exact = self_play(
            P[i], Q[i], "spif", beta=float(beta), rounds=7, history=history, progress=False
        )
        close(state["log_q"][i].exp(), exact.policy)


def test_shares_by_list_tuple_and_array_are_one_run():
    given = {"share": 0 * SHARE, "samples": 20}
    runs = [play(history=shares, **given) for shares in ([0.2, 0.3], (0.2, 0.3), np.r_[0.2, 0.3])]
    assert len({run.identity for run in runs}) == 1
    assert runs[0].identity.endswith(" history=[0.2, 0.3]")
    laws = [run.advance(run.advance(run.start(), 0), 1)["log_q"] for run in runs]
    assert all((law == laws[0]).all() for law in laws)


def test_a_history_is_given_once_and_in_range():
    rows = play("spif").rows
    for history, column, said in (
        ([0.5, 0.6], {}, "a sum of at most 1"),
        (np.array([0.5, 0.6]), {}, "a sum of at most 1"),
        (np.eye(2), {}, "needed is a number in"),
        ("all", {}, "needed are shares, or 'average'"),
        ([0.5], {"history": 0.1}, "given for all rows, and as their column"),
    ):
        with pytest.raises(InvalidInput, match=said):
            SampledRounds(
                objectives.get("spif"), rows.assign(**column), P, np.log(Q), history=history
            )


def test_exact_rounds_with_the_policys_own_noise():
    run = play("spif(c=0.5)", noise="own")
    labels = (1 - SHARE) * P + SHARE * Q
    reward = (labels - Q) / (labels + Q) / 0.5
    found = run.advance(run.start(), 0)["log_q"].exp()
    close(found, normal(Q * np.exp(reward / BETA[:, None])))
    close(play("sft").advance(run.start(), 0)["log_q"].exp(), (1 - SHARE) * P + SHARE / 4)


def test_what_nobody_or_one_side_produced():
    """Unsmoothed counts: u is 0, or infinite and cut at the largest move."""
    run = play("spin", samples=2, smoothing=0.0, share=0 * SHARE)
    expert, own = (counts(side, law, 0, 2) for side, law in (("expert", P), ("own", Q)))
    found = run.advance(run.start(), 0)["log_q"].numpy()
    for b in range(3):
        only, lost, none = (
            np.flatnonzero(mask)
            for mask in (
                (expert[b] > 0) & (own[b] == 0),
                (expert[b] == 0) & (own[b] > 0),
                (expert[b] == 0) & (own[b] == 0),
            )
        )
        assert len(only) > 0
        assert len(none) > 0
        close(np.exp(found[b, only]), normal(Q[b, only]))
        close(found[b, only[0]] - found[b, none], LARGEST + np.log(Q[b, only[0]] / Q[b, none]))
        close(found[b, only[0]] - found[b, lost], 2 * LARGEST + np.log(Q[b, only[0]] / Q[b, lost]))
    assert LARGEST == 1e6


def test_exact_rounds_of_responses_that_one_side_or_none_gives():
    expert = np.array([[0.5, 0.5, 0, 0]] * 3)
    start = np.array([[0.2, 0.3, 0.5, 0]] * 3)
    with np.errstate(divide="ignore"):
        run = play(expert=expert, log_start=np.log(start), share=0 * SHARE)
    found = run.advance(run.start(), 0)["log_q"].exp()
    reward = np.array([0.3 / 0.7, 0.2 / 0.8, -1.0, 0.0])
    close(found, normal(start * np.exp(reward / BETA[:, None])))


def test_measures_and_burn_in():
    expert = np.array([[0.5, 0.5, 0, 0], [0.25] * 4, [0, 0, 0.3, 0.7]])
    run = play(expert=expert)
    state = run.start()
    inside = expert > 0
    u = np.where(inside, np.log(np.where(inside, expert, 1) / Q), 0)
    found = run.measure(state, 0)
    close(found["kl"], (expert * u).sum(-1))
    close(found["max_logratio"], np.abs(u).max(-1))
    close(found["outside"], np.where(inside, 0, Q).sum(-1))
    first = {"burn_in_u": u.max(-1) <= 1, "burn_in_kl": (expert * u).sum(-1) <= 1}
    for done in first.values():
        assert done.tolist() == [True, True, False]
    for name, done in first.items():
        assert found[name].tolist() == [0.0 if d else -1.0 for d in done]
    late = state | {"log_q": torch.from_numpy(np.log(expert + 1e-9))}
    after = run.measure(run.advance(late, 6), 7)
    assert after["burn_in_u"].tolist() == [0.0, 0.0, 7.0]
    again = state | {"burn_in_u": torch.tensor([5.0, -1.0, -1.0], dtype=torch.float64)}
    assert run.advance(again | {"log_q": late["log_q"]}, 6)["burn_in_u"].tolist() == [5, 7, 7]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"expert": P[:2]}, "needed are"),
        ({"expert": P[0], "log_start": np.log(Q[0])}, "needed are"),
        ({"log_start": np.log(Q[:2])}, "needed are"),
        ({"expert": P[:, None], "log_start": np.log(Q)[:, None]}, "needed are"),
        ({"expert": P[0, :3] / 0.9, "log_start": np.log(Q[0, :3])}, "needed are"),
        ({"expert": P[:2], "log_start": np.log(Q[:2])}, "needed are"),
        ({"expert": P + [0.1, -0.1, 0.3, -0.3]}, "probabilities that sum to 1"),
        ({"expert": P * [[1.0], [1.0], [1.01]]}, "probabilities that sum to 1"),
        ({"log_start": np.array([[-1.0, -1, -1, -np.inf]] + [[-1.0] * 4] * 2)}, "finite values"),
        ({"samples": 0}, "samples=0"),
        ({"smoothing": -0.1}, "smoothing"),
        ({"smoothing": np.inf}, "smoothing"),
        ({"noise": "x"}, "noise='x'"),
        ({"fixed_data": True, "noise": "own"}, "a policy that changes"),
        ({"per_expert": 0}, "per_expert=0"),
        ({"per_expert": 1.5}, "per_expert=1.5"),
    ],
)
def test_rounds_that_do_not_fit_are_refused(given, said):
    with pytest.raises(InvalidInput, match=said):
        play(**given)


def test_rounds_need_a_best_response():
    play(samples=1, smoothing=0.0, noise="own")
    assert play(fixed_data=True).smoothing == 0.5
    assert "fixed data" in play(fixed_data=True).identity
    assert "K=2" in play(per_expert=2).identity
    assert "K=" not in play().identity
    with pytest.raises(Unavailable):
        play("spin_hinge")


def test_a_far_start_reaches_as_far_as_asked():
    expert = np.array([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]])
    direction, reach = np.array([[0.1, -0.2, 0.3], [0.0, 0.01, 3.0]]), np.array([7.0, 0.02])
    start = far_start(expert, direction, reach)
    close(np.exp(start).sum(-1), 1.0)
    with np.errstate(divide="ignore"):
        ratio = np.where(expert > 0, np.log(np.where(expert > 0, expert, 1)) - start, -np.inf)
    close(ratio.max(-1), reach, 2e-6)
    for b, span in ((0, slice(0, 3)), (1, slice(0, 2))):  # log p/pi is affine in the direction
        v, u = direction[b, span], ratio[b, span]
        slope = (u[1] - u[0]) / (v[1] - v[0])
        assert slope > 0
        close(u - u[0], slope * (v - v[0]), 1e-9)
    for wrong, said in ((np.array([7.0, 0.0]), "needed is > 0"), (reach, "different values")):
        with pytest.raises(InvalidInput, match=said):
            far_start(expert, direction * [[1.0], [float("needed" in said)]], wrong)
    direction = np.array([[1.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    with pytest.raises(InvalidInput, match="not attained"):
        far_start(np.array([[0.5, 0.5, 0.0]] * 2), direction, np.array([1e-4, 0.5]))


# -- finite classes -------------------------------------------------------------------------------


def test_members_of_a_random_class_are_near_one_another():
    laws = random_class(5, 4, 3, 2, 0.5).numpy()
    game = TokenMDP.tree(2, 3)
    assert laws.shape == (4, game.n_responses)
    rng = Streams([5]).generator(0, "finite class, horizon 3")
    centre = rng.standard_normal((game.n_states, 2))
    logits = centre + 0.5 * rng.standard_normal((4, game.n_states, 2))
    steps = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    close(laws, game.sequence_law(np.log(steps))[:, 0])
    close(laws.sum(-1), 1.0)


@pytest.mark.parametrize("outside", [False, True])
def test_a_trial_by_hand(outside):
    laws, seeds, n, beta = normal(np.random.default_rng(0).uniform(size=(4, 5))), [3, 8, 5], 6, 0.7
    given = {"ipo": (objectives.get("ipo"), beta)}
    found = trial(torch.from_numpy(laws), seeds, n, given, 2, outside)
    assert found.columns.tolist() == ["seed", "n", "method", "hellinger", "wrong"]
    streams = Streams(seeds)
    for b, seed in enumerate(seeds):
        mine = lambda *key, b=b: streams.uniform(*key)[b]  # noqa: E731
        first = (4 * mine("expert", 0, (2,)).numpy()).astype(int)
        expert = 0.5 * laws[first[0]] + 0.1 if outside else laws[first[0]]
        sample = draw(torch.from_numpy(expert), mine("expert data", 0, (n,))).numpy()
        chosen = {"mle": np.log(laws[:, sample]).mean(1).argmax(), "ipo": first[1]}
        for t in range(2):
            now = laws[chosen["ipo"]]
            own = draw(torch.from_numpy(now), mine("own", t, (n,))).numpy()
            r = beta * np.log(laws / now)
            chosen["ipo"] = ((r[:, sample] - r[:, own] - 1) ** 2).mean(1).argmin()
        for name, index in chosen.items():
            (line,) = found[(found.seed == seed) & (found.method == name)].itertuples()
            assert line.n == n
            close(line.hellinger, ((np.sqrt(laws[index]) - np.sqrt(expert)) ** 2).sum())
            assert line.wrong == float(index != first[0])


def test_hellingers_distance_is_over_the_last_axis():
    p, q = torch.from_numpy(P), torch.from_numpy(Q)
    close(hellinger(p, q), ((np.sqrt(P) - np.sqrt(Q)) ** 2).sum(1))

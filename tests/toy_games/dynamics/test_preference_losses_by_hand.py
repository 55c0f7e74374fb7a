"""Preference self-play of two runs on three responses: one loss, and plug-in estimates."""

import numpy as np
import pandas as pd
import pytest
import torch

from lab.streams import draw
from tests.toy_games.dynamics.preferences_of_three import (
    BETA,
    NOW,
    REF,
    SEEDS,
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
from theory import objectives, xp
from theory.errors import InvalidInput, Unavailable
from theory.objectives import registry
from toy_games.dynamics.preference_estimates import PlugIn, group_estimates
from toy_games.dynamics.preference_sgd import PreferenceSGD, winner_scale


def test_losses_on_preferences_in_expectation():
    r = BETA * np.log(NOW / START) + TAU * np.log(NOW / REF)
    win = wins(START)
    won, lost = 2 * START * win, 2 * START * (1 - win)
    d = r[:, :, None] - r[:, None, :]
    chosen = 2 * START[:, :, None] * START[:, None, :] * P
    gap = ((won - lost) * r).sum(-1)
    spread = sum((w * r**2).sum(-1) - (w * r).sum(-1) ** 2 for w in (won, lost))
    for name, expected in {
        "sft": -(won * np.log(NOW)).sum(-1),
        "ipo": (chosen * (d - 1) ** 2).sum((1, 2)),
        "sppo": (START * 2 * (r - (win - 0.5)) ** 2).sum(-1),
        "centred_spif": 0.5 * spread + (0.5 * gap - 1) ** 2,
    }.items():
        run = play(PreferenceSGD, name)
        close(run.loss(tensor(np.log(NOW)), tensor(np.log(START)), 0), expected)


def test_losses_on_preferences_on_samples():
    r = BETA * np.log(NOW / START) + TAU * np.log(NOW / REF)
    winner, loser = pairs(START, 4, 4)
    for name in ("sft", "ipo", "centred_spif"):
        run = play(PreferenceSGD, name, samples=[8, 6])
        found = run.loss(tensor(np.log(NOW)), tensor(np.log(START)), 4)
        for b, count in ((0, 4), (1, 3)):
            w, l = r[b, winner[b, :count]], r[b, loser[b, :count]]  # noqa: E741
            spread = 0.5 * (w.var() + l.var())
            expected = {"sft": -np.log(NOW[b, winner[b, :count]]).mean(),
                        "ipo": ((w - l - 1) ** 2).mean(),
                        "centred_spif": spread + (0.5 * (w - l).mean() - 1) ** 2}  # fmt: skip
            close(found[b], expected[name])


def group(step, most, samples, own):
    """Responses (rows, most), and what each one's group says of it (zeros after the group)."""
    responses = draw(tensor(START), STREAMS.uniform("group", step, (most,))).numpy()
    luck = STREAMS.uniform("group comparisons", step, (most, most)).numpy()
    share = np.zeros((2, most))
    for b in range(2):
        for i in range(samples[b]):
            total = 0.5 * own[b]
            for j in range(samples[b]):
                low, high = min(i, j), max(i, j)
                first = luck[b, low, high] < P[b, responses[b, low], responses[b, high]]
                total += 0.0 if i == j else float(first == (i < j))
            share[b, i] = total / (samples[b] - 1 + own[b])
    return responses, share


def test_a_group_compares_all_with_all():
    run = play(PreferenceSGD, "sppo", samples=[6, 4], self_comparison=[0, 1])
    responses, share = group(4, 6, [6, 4], [0, 1])
    luck = STREAMS.uniform("group comparisons", 4, (6, 6))
    found = group_estimates(tensor(P), torch.from_numpy(responses), luck, torch.tensor([6, 4]),
                            torch.tensor([False, True]))  # fmt: skip
    close(found[0], share[0])
    close(found[1, :4], share[1, :4])
    r = np.take_along_axis(BETA * np.log(NOW / START) + TAU * np.log(NOW / REF), responses, -1)
    each = 2 * (r - (share - 0.5)) ** 2
    expected = [each[0].mean(), each[1, :4].mean()]
    close(run.loss(tensor(np.log(NOW)), tensor(np.log(START)), 4), expected)


def test_gradient_steps_and_their_opponents():
    rate = np.array([0.1, 0.3])
    run = play(PreferenceSGD, "ipo", rate=rate, steps_per_round=[2, 3])
    close(run.step_size, rate / (4 * (BETA + TAU)[:, 0]))  # a slope of 2 on either side
    state = at(run.start(), theta=np.log(NOW) + 1.0)
    close(state["opponent"], np.log(START))
    found = run.advance(state, 3)
    close(found["opponent"].exp(), np.stack([START[0], NOW[1]]))
    for b, opponent in ((0, START[0]), (1, NOW[1])):

        def loss(theta, b=b, opponent=opponent):
            log_law = theta - np.log(np.exp(theta).sum())
            r = BETA[b] * (log_law - np.log(opponent)) + TAU[b] * (log_law - np.log(REF[b]))
            chosen = 2 * opponent[:, None] * opponent * P[b]
            return (chosen * (r[:, None] - r - 1) ** 2).sum()

        theta = np.log(NOW[b]) + 1.0
        kicks = 1e-6 * np.eye(3)
        slope = np.array([(loss(theta + k) - loss(theta - k)) / 2e-6 for k in kicks])
        close(found["theta"][b], theta - run.step_size[b].item() * slope, 1e-7)
    measured = run.measure(state, 0)
    close(measured["gap"], 2 * wins(NOW).max(-1) - 1)
    close(measured["tv"], 0.5 * np.abs(NOW - TARGET).sum(-1))
    mixed = play(PreferenceSGD, "alpha_spin")
    close(mixed.start()["opponent"].exp(), normal(np.sqrt(START * REF)))
    sft = play(PreferenceSGD, "sft").start()
    close(sft["opponent"], np.log(START))


def test_the_scale_of_winners():
    weight = tensor([2.0, 3.0])
    assert winner_scale(None, weight).tolist() == [1.0, 1.0]
    for name, scale in (("dpo", 1.0), ("ipo", 4.0), ("spif", 2.0), ("sppo", 2.0)):
        close(winner_scale(objectives.get(name), weight), [2 * scale, 3 * scale])


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("ipo", {"samples": [2, 3]}, "even numbers"),
        ("ipo", {"samples": [0, 2]}, "do not go together"),
        ("ipo", {"self_comparison": [0, 1]}, "it goes with sppo"),
        ("nash_md", {}, "no loss on pairs"),
        ("tspin", {}, "scores no pairs"),
    ],
)
def test_losses_that_do_not_fit_are_refused(name, given, said):
    with pytest.raises(InvalidInput, match=said):
        play(PreferenceSGD, name, **given)


def test_losses_without_a_reference_or_of_the_wrong_sign():
    with registry.kept():

        @registry.register("free")
        class Free(objectives.Pairwise):
            reference_free = True

            def pair_loss(self, d):
                return xp.softplus(-d)

        @registry.register("upside_down")
        class UpsideDown(objectives.Pairwise):
            def pair_loss(self, d):
                return xp.softplus(d)

        with pytest.raises(Unavailable, match="scores no pairs"):
            play(PreferenceSGD, "free")
        with pytest.raises(InvalidInput, match="no slope at reward 0"):
            play(PreferenceSGD, "upside_down")


def test_bias_and_variance_of_plug_in_estimates():
    rows = pd.DataFrame({"seed": SEEDS, "samples": [5, 3], "self_comparison": [0, 1]})
    run = PlugIn(rows, P, START)
    state, each = run.start(), [[[] for _ in range(3)] for _ in range(2)]
    for step in range(4):
        state = run.advance(state, step)
        responses, share = group(step, 5, [5, 3], [0, 1])
        for b, count in ((0, 5), (1, 3)):
            for i in range(count):
                each[b][responses[b, i]].append(share[b, i])
        for name, power in (("count", 0), ("sum", 1), ("square", 2)):
            close(state[name], [[sum(x**power for x in found) for found in row] for row in each])
        found = run.measure(state, step)
        for b in range(2):
            win = wins(START)[b]
            weight = np.array([len(x) for x in each[b]]) / sum(len(x) for x in each[b])
            mean, var = (np.array([f(x) if x else 0.0 for x in each[b]]) for f in (np.mean, np.var))
            pull = 0.5 - win
            bias = (weight * (mean - win) * pull).sum() / (weight * pull**2).sum()
            close(found["bias"][b], bias)
            close(found["variance"][b], (weight * var).sum() / (weight * win * (1 - win)).sum())
    with pytest.raises(InvalidInput, match="2 own responses or more"):
        PlugIn(rows.assign(samples=[2, 1]), P, START)
    PlugIn(rows.assign(samples=2), P, START)

"""T14: one loss per token with K own tokens a position, and with one data set in all rounds."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from tests.theory.next_token import NextToken
from tests.theory.strategies import label
from theory import TokenMDP, objectives, theory_card
from theory.objectives import Objective
from theory.result import FloatArray

NAMES = ("spin", "ipo", "spif", "nwj", "space", "centred_spif")
SAMPLED = [objectives.get(n, mu=3.0) if n == "space" else objectives.get(n) for n in NAMES]
BETA = 0.7


def gradient_table(
    model: NextToken, theta: FloatArray, old: FloatArray, obj: Objective, own: int
) -> FloatArray:
    """Gradient (S, A, A^K, d) of a position's loss: expert's token and K own ones, in order."""
    point = torch.tensor(theta, requires_grad=True)
    reward = BETA * (model.log_policy(point) - model.log_policy(old).detach())
    states, actions = reward.shape
    drawn = list(product(range(actions), repeat=own))
    out = np.empty((states, actions, len(drawn), len(theta)))
    for s, a, k in np.ndindex(*out.shape[:3]):
        risk: Any = obj.reward_risk(reward[s, [a]], reward[s, list(drawn[k])])
        out[s, a, k] = torch.autograd.grad(risk, point, retain_graph=True)[0]
    return out


def moments(model: NextToken, table: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of a response's gradient, by listing responses and own tokens (law q)."""
    game, p = model.game, np.asarray(model.p)
    own = np.ones((game.n_states, 1))
    while own.shape[1] < table.shape[2]:
        own = (own[:, :, None] * q[:, None, :]).reshape(game.n_states, -1)
    paths = [(0, 1.0, np.zeros(table.shape[-1]))]
    ended = []
    while paths:
        s, weight, done = paths.pop()
        for a, k in np.ndindex(*table.shape[1:3]):
            path = int(game.next_state[s, a]), weight * p[s, a] * own[s, k], done + table[s, a, k]
            (paths if path[0] >= 0 else ended).append(path)
    weights, gradients = np.array([w for _, w, _ in ended]), np.array([g for *_, g in ended])
    assert abs(weights.sum() - 1.0) < 1e-12
    mean = weights @ gradients
    return mean, (weights[:, None] * gradients).T @ gradients - np.outer(mean, mean)


def scores(model: NextToken, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``grad log pi`` (S, A, d), and its covariance under pi at prefixes of the expert (d, d)."""
    q = np.exp(np.asarray(model.log_policy(theta)))
    features = np.asarray(model.features)
    score = features - np.einsum("sa,sai->si", q, features)[:, None]
    return score, np.einsum("s,sa,sai,saj->ij", np.asarray(model.visits), q, score, score)


def of_a_round(obj: Objective, own: int) -> tuple[float, float]:
    """``beta a'(0)``, and what own tokens add to the gradient's covariance, ``(b'/a')^2/K``."""
    slopes = theory_card(obj).gradient_at_start
    return -BETA * slopes[0], (slopes[1] / slopes[0]) ** 2 / own


@pytest.mark.parametrize("own", [1, 2])
@pytest.mark.parametrize("obj", SAMPLED, ids=label)
@pytest.mark.claim("T14.own_tokens", regime="tabular")
def test_the_noise_of_a_round_s_first_gradient(claim, obj: Objective, own: int) -> None:
    """Cov of SFT's gradient, and (b'/a')^2/K Fisher matrices at expert prefixes."""
    for seed in range(2):
        model = NextToken(seed, d=2, horizon=2)
        theta = np.random.default_rng(seed).standard_normal(2)
        q = np.exp(np.asarray(model.log_policy(theta)))
        scale, added = of_a_round(obj, own)
        score, fisher = scores(model, theta)
        sft_mean, sft = moments(model, score[:, :, None], q)
        table = gradient_table(model, theta, theta, obj, own)
        mean, found = moments(model, table, q)
        claim.close(-mean, scale * sft_mean, 1e-10, what="mean: SFT's times beta a'")
        claim.close(found, scale**2 * (sft + added * fisher), 1e-10, what="covariance")
        # where pi_t is the expert the two matrices are one
        model.p = torch.tensor(q)
        model.visits = torch.tensor(model.game.occupancy(np.log(q)).sum(-1))
        _, found = moments(model, table, q)
        _, fisher = scores(model, theta)
        what = "covariance at the expert: SFT's times 1 + (b'/a')^2/K"
        claim.close(found, scale**2 * (1 + added) * fisher, 1e-10, what=what)


@pytest.mark.parametrize("obj", SAMPLED, ids=label)
@pytest.mark.claim("T14.vocabulary", regime="tabular")
def test_the_whole_vocabulary_takes_own_tokens_noise_away(claim, obj: Objective) -> None:
    """Every response's first gradient is then beta a'(0) times SFT's, not only their mean."""
    model = NextToken(3, d=2, horizon=2)
    theta = np.array([0.3, -0.8])
    summed = vocabulary_table(model, theta, theta, obj)
    scale, _ = of_a_round(obj, 1)
    claim.close(-summed, scale * scores(model, theta)[0], 1e-10, what="first gradient of a token")


@pytest.mark.claim("T14.own_tokens", regime="tabular", drops="at_start")
def test_later_gradients_have_another_noise(claim) -> None:
    model = NextToken(0, d=2, horizon=2)
    old, theta = np.array([0.3, -0.8]), np.array([1.1, 0.4])
    q = np.exp(np.asarray(model.log_policy(old)))
    obj = objectives.get("spin")
    scale, added = of_a_round(obj, 1)
    score, fisher = scores(model, theta)
    sft = moments(model, score[:, :, None], q)[1]
    found = moments(model, gradient_table(model, theta, old, obj, 1), q)[1]
    off = np.trace(found) / (scale**2 * np.trace(sft + added * fisher))
    claim.exhibits(abs(off - 1), 0.05, what="trace of the covariance over the start's, less 1")


@pytest.mark.claim("T14.vocabulary", "T15.nwj", regime="tabular")
def test_nwj_with_the_vocabulary_is_sfts_loss(claim) -> None:
    """At beta = 1 its own term is the sum of pi/e: every response's gradient, all along."""
    model = NextToken(3, d=2, horizon=2)
    old, theta = np.array([0.3, -0.8]), np.array([1.1, 0.4])
    summed = vocabulary_table(model, theta, old, objectives.get("nwj"), beta=1.0)
    claim.close(-summed, scores(model, theta)[0], 1e-10, what="gradient of a token")


def vocabulary_table(
    model: NextToken, theta: FloatArray, old: FloatArray, obj: Objective, beta: float = BETA
) -> FloatArray:
    """Gradient (S, A, d) of a position's loss with all tokens as own ones, weighted by pi_t."""
    point = torch.tensor(theta, requires_grad=True)
    log_q = model.log_policy(old).detach()
    reward = beta * (model.log_policy(point) - log_q)
    out = np.empty((*reward.shape, len(theta)))
    for s, a in np.ndindex(*reward.shape):
        risk: Any = obj.reward_risk(reward[s, [a]], reward[s], w_own=torch.exp(log_q[s]))
        out[s, a] = torch.autograd.grad(risk, point, retain_graph=True)[0]
    return out


def mean_over_own(table: FloatArray, q: FloatArray, own: int) -> FloatArray:
    weights = np.ones((len(q), 1))
    for _ in range(own):
        weights = (weights[:, :, None] * q[:, None, :]).reshape(len(q), -1)
    return np.einsum("sk,sakd->sad", weights, table)


@pytest.mark.parametrize("obj", [o for o in SAMPLED if o.form != "group"], ids=label)
@pytest.mark.claim("T14.vocabulary", regime="tabular")
def test_it_is_the_mean_over_own_tokens_all_along_a_round(claim, obj: Objective) -> None:
    """So the same rounds with less noise: what own tokens add to the covariance is gone."""
    model = NextToken(4, d=2, horizon=2)
    old, theta = np.array([0.3, -0.8]), np.array([1.1, 0.4])
    q = np.exp(np.asarray(model.log_policy(old)))
    summed = vocabulary_table(model, theta, old, obj)
    table = gradient_table(model, theta, old, obj, 2)
    claim.close(mean_over_own(table, q, 2), summed, 1e-10, what="mean gradient over own tokens")
    less = moments(model, table, q)[1] - moments(model, summed[:, :, None], q)[1]
    claim.exhibits(np.linalg.eigvalsh(less)[0], 1e-6, what="least eigenvalue of what is gone")


@pytest.mark.claim("T14.vocabulary", regime="tabular", drops="mean_over_own")
def test_a_group_s_baseline_is_another_loss_with_the_vocabulary(claim) -> None:
    """Centred SPIF's baseline is that of few tokens: its loss is not a mean over them (T17)."""
    model = NextToken(4, d=2, horizon=2)
    old, theta = np.array([0.3, -0.8]), np.array([1.1, 0.4])
    q = np.exp(np.asarray(model.log_policy(old)))
    obj = objectives.get("centred_spif")
    summed = vocabulary_table(model, theta, old, obj)
    sampled = mean_over_own(gradient_table(model, theta, old, obj, 2), q, 2)
    claim.exhibits(np.abs(sampled - summed).max(), 0.01, what="mean gradient, against vocabulary's")


# --- one data set ---------------------------------------------------------------------------------

SMOOTHING = 0.5
SEEDS = 80


def counts(game: TokenMDP, n: int, rng: np.random.Generator) -> FloatArray:
    """Tokens (SEEDS, S, A) at every state in n responses of the expert, of as many data sets."""
    assert game.expert is not None
    p, seen = np.exp(game.expert), np.zeros((SEEDS, game.n_states), dtype=int)
    seen[:, 0] = n
    out = np.empty((SEEDS, *p.shape))
    for s in range(game.n_states):  # sorted by depth
        out[:, s] = rng.multinomial(seen[:, s], p[s])
        for a, following in enumerate(game.next_state[s]):
            if following >= 0:
                seen[:, following] += out[:, s, a].astype(int)
    return out


def floors(
    game: TokenMDP, obj: Objective, step: float, n: int, own: int, late: range, seed: int
) -> tuple[FloatArray, FloatArray]:
    """KL(p||pi) of responses: mean over late rounds per token on one data set, and SFT's."""
    assert game.expert is not None
    rng = np.random.default_rng(seed)
    p, data, beta = np.exp(game.expert), counts(game, n, rng), obj.slope_at_zero / step
    weight = game.occupancy(game.expert).sum(-1)[:, None] * p
    visits = data.sum(-1).astype(int)
    shown = data + SMOOTHING
    sft = np.log(shown / shown.sum(-1, keepdims=True))
    log_q, after = np.broadcast_to(game.expert, data.shape), []
    for t in range(late.stop):
        own_tokens = rng.multinomial(own * visits, np.exp(log_q)) / own
        u = np.log(shown / (own_tokens + SMOOTHING))
        log_q = log_q + np.asarray(obj.link(u, 0.0)) / beta
        log_q = log_q - np.logaddexp.reduce(log_q, -1, keepdims=True)
        if t in late:
            after.append((weight * (game.expert - log_q)).sum((-1, -2)))
    return np.mean(after, axis=0), (weight * (game.expert - sft)).sum((-1, -2))


CASES = [("spif", 1.0, 1), ("spin", 0.6, 1), ("spif", 1.4, 2), ("spin", 1.0, 4)]


@pytest.mark.claim("T14.fixed_data_floor", regime="dynamics")
@pytest.mark.parametrize("order", [None, 1], ids=["tree", "merged"])
@pytest.mark.parametrize(("name", "step", "own"), CASES)
def test_on_one_data_set_the_floor_counts_prefixes(
    claim, name: str, step: float, own: int, order: int | None
) -> None:
    """S(A-1)/2n for the likelihood's own error, and s/((2-s)K) of it for own tokens' noise."""
    horizon, vocab = (3, 2) if order is None else (12, 3)
    game = TokenMDP.random(vocab, horizon, seed=0, concentration=8.0, eos=None, order=order)
    n = 6000
    rounds, sft = floors(game, objectives.get(name), step, n, own, range(12, 44), seed=1)
    likelihood = game.n_states * (game.n_actions - 1) / (2 * n)
    for found, predicted, what in (
        (sft, likelihood, "SFT's KL: S(A-1)/2n"),
        (rounds - sft, likelihood * step / ((2 - step) * own), f"KL above SFT's, {name}"),
    ):
        error = found.std(ddof=1) / np.sqrt(len(found))
        claim.close(found.mean(), predicted, 4.0 * error, rtol=0.03, because="sampling",
                    what=f"{what}: 4 standard errors and the next order")  # fmt: skip
        claim.below(4.0 * error / predicted, 0.5, what=f"{what}: 4 standard errors over it",
                    because="chosen")  # fmt: skip


def as_responses(game: TokenMDP) -> TokenMDP:
    """The responses of a game as the tokens of another, of one token each."""
    assert game.expert is not None
    law = game.log_sequence_law(game.expert)
    return replace(TokenMDP.tree(law.shape[-1], 1, eos=None), expert=law)


@pytest.mark.claim("T14.fixed_data_floor", regime="dynamics")
def test_on_a_tree_the_floor_is_that_of_responses(claim) -> None:
    """At equal data and K, while all responses are seen often."""
    game, n = TokenMDP.random(2, 3, seed=0, concentration=8.0, eos=None), 6000
    found = [
        np.subtract(*floors(g, objectives.get("spif"), 1.0, n, 1, range(12, 44), seed))
        for seed, g in enumerate((game, as_responses(game)))
    ]
    means, errors = zip(*((x.mean(), x.std(ddof=1) / np.sqrt(len(x))) for x in found), strict=True)
    what = "KL above SFT's per token over that per response: 4 standard errors"
    ratio, error = means[0] / means[1], np.hypot(*np.divide(errors, means))
    claim.close(ratio, 1.0, 4.0 * error, rtol=0.03, what=what, because="sampling")
    claim.below(4.0 * error, 0.2, what="4 standard errors", because="chosen")


@pytest.mark.claim("T14.fixed_data_floor", regime="dynamics", drops="many_visits")
@pytest.mark.parametrize("concentration", [1.0, 8.0])
def test_rare_responses_cost_more_than_rare_tokens(claim, concentration: float) -> None:
    """81 responses, 100 examples: beyond first order KL per token is less, at K = 1."""
    game = TokenMDP.random(3, 4, seed=0, concentration=concentration, eos=None)
    token, whole = (
        floors(g, objectives.get("spif"), 1.0, 100, 1, range(12, 44), seed)[0]
        for seed, g in enumerate((game, as_responses(game)), start=1)
    )
    error = np.hypot(*(x.std(ddof=1) / np.sqrt(len(x)) for x in (token, whole)))
    apart = whole.mean() - token.mean()
    claim.exhibits((apart - 4.0 * error) / whole.mean(), 0.05, what="KL saved, less 4 errors")


@pytest.mark.claim("T14.fixed_data_floor", regime="dynamics", drops="many_visits")
def test_where_prefixes_are_rare_the_floor_is_another(claim) -> None:
    """A deep tree with a few visits a prefix: second order in 1/n is no longer small."""
    game = TokenMDP.random(3, 6, seed=0, concentration=1.0, eos=None)
    n, step = 100, 1.0
    rounds, sft = floors(game, objectives.get("spif"), step, n, 1, range(12, 44), seed=1)
    likelihood = game.n_states * (game.n_actions - 1) / (2 * n)
    claim.exhibits(likelihood / sft.mean(), 1.5, what="S(A-1)/2n over SFT's KL")
    claim.exhibits(likelihood / (rounds - sft).mean(), 1.5, what="predicted excess over the excess")

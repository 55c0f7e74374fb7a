"""T14: what one loss per token optimises, and where it ends, in any class of next-token laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from tests.theory.next_token import NextToken
from tests.theory.strategies import label
from theory import TokenMDP, laws, objectives, self_play, theory_card
from theory.result import FloatArray
from theory.rounds.one_step import local_rate_one_step, one_step_round, partition_gap

SPIN, SPIF = objectives.get("spin"), objectives.get("spif", c=1.0)
CENTRED = objectives.get("centred_spif", c=1.0)
EVERY = [objectives.get(name) for name in objectives.names()]
MLE = [obj for obj in EVERY if theory_card(obj).fixed_point_is_mle and obj.name != "spin_hinge"]
MATCHED = [obj for obj in MLE if obj.name != "nwj"]  # a'(0) = -b'(0)
NWJ = objectives.get("nwj")


# --- with and without continuation values --------------------------------------------------------


def spins_rounds(
    game: TokenMDP, p: FloatArray, start: FloatArray, beta: float
) -> tuple[FloatArray, FloatArray]:
    """Policies after a round of one loss per token, and of soft value iteration."""
    token, whole = (
        self_play(p, start, SPIN, beta, 1, game=game, level="conditional", one_step=one_step)
        for one_step in (True, False)
    )
    return game.sequence_law(token.policy), game.sequence_law(whole.policy)


@pytest.mark.claim("T14.token_values", regime="tabular")
@given(seed=st.integers(0, 2**31), beta=st.floats(0.6, 3.0))
def test_values_are_divergences_of_what_follows(claim, seed: int, beta: float) -> None:
    rng = np.random.default_rng(seed)
    game = TokenMDP.tree(vocab=3, horizon=2, eos=None)
    p, start = game.random_policy(rng, 2.0), game.random_policy(rng, 2.0)
    u = game.conditional_logratio(p, start)
    values = game.soft_value_iteration(u, start, beta).V
    power = np.exp(p / beta + (1 - 1 / beta) * start)  # of last tokens: all that follows them
    claim.close(values[1:], beta * np.log(power[1:].sum(-1)), 1e-9, what="V of the last prefixes")
    whole = [game.log_sequence_law(law) for law in (p, start)]
    power = np.exp(whole[0] / beta + (1 - 1 / beta) * whole[1])
    claim.close(values[:1], beta * np.log(power.sum(-1)), 1e-9, what="V of the prompt")
    rows = np.exp(p[0]), np.exp(start[0])
    independent = [np.log(np.tile(row, (game.n_states, 1))) for row in rows]
    token, with_values = spins_rounds(game, *independent, beta)
    claim.close(token, with_values, 1e-10, what="independent positions: both rounds")
    token, with_values = spins_rounds(game, p, start, 1.0)
    claim.close(token, with_values, 1e-10, what="beta = 1: both rounds")


@pytest.mark.claim("T14.token_values", regime="tabular", drops="equal_values")
def test_where_values_differ_the_rounds_do(claim) -> None:
    rng = np.random.default_rng(0)
    game = TokenMDP.tree(vocab=3, horizon=3, eos=None)
    p, start = game.random_policy(rng, 1.0), game.random_policy(rng, 1.0)
    token, with_values = spins_rounds(game, p, start, 2.0)
    claim.exhibits(laws.total_variation(token, with_values), 0.02, what="TV of the two rounds")


# --- the destination ------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", MLE, ids=label)
@pytest.mark.claim("T14.token_destination", regime="tabular")
@given(seed=st.integers(0, 2**31))
def test_first_gradient_per_token_is_sfts(claim, obj, seed: int) -> None:
    """beta a'(0) times the likelihood's of whole responses, which is 0 at the MLE alone."""
    model = NextToken(seed)
    theta = np.random.default_rng(seed).standard_normal(3)
    scale = -0.7 * theory_card(obj).gradient_at_start[0]
    found = model.gradient(model.risk, theta, theta, obj, 0.7)
    claim.close(found, scale * model.gradient(model.sft, theta), 1e-11, what="first gradient")
    if obj.form == "pointwise":  # own tokens have mean score 0 at every prefix, whosever it is
        other = torch.tensor(np.random.default_rng(seed).uniform(0.0, 2.0, len(model.p)))
        found = model.gradient(model.risk, theta, theta, obj, 0.7, other)
        what = "first gradient, own tokens at other prefixes"
        claim.close(found, scale * model.gradient(model.sft, theta), 1e-11, what=what)


@pytest.mark.claim("T14.token_destination", regime="tabular")
@pytest.mark.parametrize("name", ["spin", "ipo"])
def test_rounds_per_token_end_at_the_mle_of_responses(claim, name: str) -> None:
    """Class without the expert, logits linear in theta: from far starts, to one law."""
    obj = objectives.get(name)
    for seed in range(2):
        model = NextToken(seed)
        best = model.least(model.sft, np.zeros(3))
        for start in np.random.default_rng(seed).standard_normal((2, 3)):
            path = model.rounds(start, obj, 1.2, 60)
            off = np.abs(path[-1] - best).max()
            claim.close(off, 0.0, 1e-7, what="parameters of the last round, to the MLE's")
        gap = torch.exp(model.log_policy(best)) - model.p
        claim.exhibits(gap.abs().max(), 0.05, what="the expert is outside of the class")


def whole(model: NextToken, theta: Any, old: FloatArray, beta: float) -> torch.Tensor:
    """SPIN's risk of whole responses in the same class."""
    game, tokens = model.game, torch.tensor(model.game.responses)

    def log_law(x: Any) -> torch.Tensor:
        sums = _along(game, model.log_policy(x))
        return sums[tokens[0]]

    log_q = log_law(old).detach()
    ratio = log_law(theta) - log_q
    p = torch.tensor(game.sequence_law(model.expert)[0])
    return torch.as_tensor(SPIN.risk(ratio, ratio, beta, p, torch.exp(log_q)))


def _along(game: TokenMDP, per_cell: torch.Tensor) -> torch.Tensor:
    """Sums along every path, at the flat index of its last (state, action)."""
    total: list[Any] = [None] * game.n_states
    total[0] = torch.zeros((), dtype=torch.float64)
    for s in range(game.n_states):
        for a in range(game.n_actions):
            child = int(game.next_state[s, a])
            if child >= 0:
                total[child] = total[s] + per_cell[s, a]
    return torch.cat([total[s] + per_cell[s] for s in range(game.n_states)])


@pytest.mark.claim("T14.token_convex", regime="tabular")
@given(seed=st.integers(0, 2**31), beta=st.floats(0.3, 2.0))
def test_a_convex_pair_loss_is_convex_in_the_logits(claim, seed: int, beta: float) -> None:
    """Both tokens of a pair follow one prefix, so its normaliser cancels."""
    model = NextToken(seed)
    old, theta = np.random.default_rng(seed).standard_normal((2, 3))
    for obj in (SPIN, objectives.get("ipo"), objectives.get("spin_exponential")):
        curved = np.linalg.eigvalsh(model.hessian(model.risk, 2.0 * theta, old, obj, beta))
        claim.below(-curved[0], 1e-10 * curved[-1], what="least curvature, negative")


@pytest.mark.claim("T14.token_convex", regime="tabular", drops="token_ratios")
def test_of_whole_responses_it_is_not_convex(claim) -> None:
    """Two responses pass other prefixes, whose normalisers do not cancel."""
    rng = np.random.default_rng(0)
    least = []
    for seed in range(10):
        model = NextToken(seed)
        old, theta = rng.standard_normal((2, 3))
        curved = np.linalg.eigvalsh(model.hessian(lambda x, m=model, o=old: whole(m, x, o, 1.0),
                                                  3.0 * theta))  # fmt: skip
        least.append(curved[0] / np.abs(curved).max())
    claim.exhibits(-min(least), 0.05, what="negative curvature over the largest")


def local_matrices(model: NextToken, best: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``S_p``, ``S_q`` and ``B`` at the maximum likelihood, means over the expert's prefixes."""
    q = torch.exp(model.log_policy(best))
    means = [(w[..., None] * model.features).sum(1) for w in (model.p, q)]
    s_p, s_q = (
        torch.einsum("s,sa,sai,saj->ij", model.visits, w, model.features - m[:, None],
                     model.features - m[:, None])
        for w, m in zip((model.p, q), means, strict=True)
    )  # fmt: skip
    apart = means[0] - means[1]
    b = torch.einsum("s,si,sj->ij", model.visits, apart, apart)
    return np.asarray(s_p), np.asarray(s_q), np.asarray(b)


@pytest.mark.claim("T14.token_stability", regime="tabular")
def test_the_local_round_per_token(claim) -> None:
    """I - (2/beta)(S_p + S_q + B)^-1 S_q at the MLE, so stable iff beta > lambda_max."""
    for seed in range(3):
        model = NextToken(seed)
        best = model.least(model.sft, np.zeros(3))
        s_p, s_q, b = local_matrices(model, best)
        edge, plain = (
            np.linalg.eigvals(np.linalg.solve(s, s_q)).real.max()
            for s in (s_p + s_q + b, s_p + s_q)
        )
        claim.exhibits(plain / edge - 1, 0.01, what="threshold without B, in excess")
        away = 1e-4 * np.random.default_rng(seed).standard_normal(3)
        for factor in (0.9, 1.1):
            beta = factor * edge
            path = np.array(model.rounds(best + away, SPIN, beta, 24)) - best
            step = np.eye(3) - 2.0 / beta * np.linalg.solve(s_p + s_q + b, s_q)
            error = np.linalg.norm(path[3] - np.linalg.matrix_power(step, 3) @ away)
            what = "three rounds against the linear map, relative"
            claim.close(error / np.linalg.norm(away), 0.0, 2e-3, what=what, because="expansion")
            off = np.linalg.norm(path, axis=-1)
            if factor < 1:
                claim.exhibits(off[24] / off[12], 2.0, what="growth of 12 rounds, 10 % below")
            else:
                claim.below(off[24] / off[12], 0.5, what="decay of 12 rounds, 10 % above",
                            because="chosen")  # fmt: skip


@pytest.mark.claim("T14.token_stability", regime="tabular", drops="solved_rounds")
def test_one_gradient_step_a_round_is_stable_below(claim) -> None:
    """It is a step of supervised fine-tuning, whatever beta."""
    model = NextToken(0)
    best = model.least(model.sft, np.zeros(3))
    s_p, s_q, b = local_matrices(model, best)
    beta = 0.9 * np.linalg.eigvals(np.linalg.solve(s_p + s_q + b, s_q)).real.max()
    theta = best + 1e-4 * np.random.default_rng(0).standard_normal(3)
    off = [np.linalg.norm(theta - best)]
    for _ in range(200):
        theta = theta - 0.2 / beta * model.gradient(model.risk, theta, theta, SPIN, beta)
        off.append(np.linalg.norm(theta - best))
    claim.below(off[-1] / off[0], 0.5, what="decay over 200 rounds of a step", because="chosen")


@pytest.mark.claim("T14.token_destination", regime="tabular", drops="own_from_current")
@pytest.mark.parametrize("obj", MATCHED, ids=label)
def test_own_tokens_at_a_temperature_move_the_destination(claim, obj) -> None:
    model = NextToken(2)
    best = model.least(model.sft, np.zeros(3))
    model.temperature = 0.7
    found = model.gradient(model.risk, best, best, obj, 0.7)
    claim.exhibits(np.abs(found).max(), 5e-3, what="first gradient at the MLE")


# --- own tokens at other prefixes -----------------------------------------------------------------


@pytest.mark.claim("T14.own_prefixes", regime="tabular")
@pytest.mark.parametrize("name", ["spif", "nwj"])
def test_at_own_prefixes_the_local_factor_is_that_of_a_law(claim, name: str) -> None:
    """T4 b's at every depth, as each prefix's law is normalised, and not 1 - k R'(0)/beta."""
    obj, beta = objectives.get(name), 1.3
    for seed in range(2):
        model = NextToken(seed, full=True)
        logits = model.expert[:, :-1] - model.expert[:, -1:]
        start = logits.ravel() + 1e-4 * np.random.default_rng(seed).standard_normal(logits.size)
        own = model.game.occupancy(np.asarray(model.log_policy(start))).sum(-1)
        after = model.least(model.risk, start, start, obj, beta, torch.tensor(own))
        ratios = (after - logits.ravel()) / (start - logits.ravel())
        predicted = local_rate_one_step(obj, beta)
        what = f"factor of every logit after a round at own prefixes, {name}"
        claim.close(ratios, predicted, 5e-3, what=what, because="expansion")


@pytest.mark.claim("T14.own_prefixes", regime="tabular")
@pytest.mark.parametrize("eta", [0.5, 3.0])
def test_prefixes_that_own_responses_visit_more_often(claim, eta: float) -> None:
    """eta/((1 + rho) + eta (1 - rho)) of u a round; beyond the pole p is no minimum."""
    model = NextToken(0, horizon=1, full=True)
    logits = model.expert[0, :-1] - model.expert[0, -1]
    pole = (eta + 1) / (eta - 1) if eta > 1 else np.inf
    for rho in (0.3, 1.0, 1.5, 0.9 * pole, 1.1 * pole):
        if not np.isfinite(rho):
            continue
        weight = torch.tensor([rho])
        curved = np.linalg.eigvalsh(
            model.hessian(model.risk, logits, logits, SPIF, 1 / eta, weight)
        )
        beyond = rho > pole
        claim.exhibits((-curved if beyond else curved).min(), 1e-4, what="least curvature at p")
        if not beyond:
            start = logits + np.array([1e-4, -2e-4])
            after = model.least(model.risk, start, start, SPIF, 1 / eta, weight)
            share = (after - start) / (logits - start)
            predicted = eta / ((1 + rho) + eta * (1 - rho))
            claim.close(share / predicted, 1.0, 1e-2, what="share of u that a round goes",
                        because="expansion")  # fmt: skip


@pytest.mark.claim("T14.own_prefixes", regime="tabular", drops="no_values")
def test_with_values_own_prefixes_count_depth(claim) -> None:
    """Occupancy rewards move a first token by H times as much near the expert."""
    rng = np.random.default_rng(0)
    game = TokenMDP.tree(vocab=2, horizon=3, eos=None)
    p = game.random_policy(rng, 3.0)
    start = p.copy()
    start[0] += [1e-5, -1e-5]
    start[0] -= np.logaddexp(*start[0])
    path = self_play(p, start, SPIF, 2.0, 1, game=game, level="occupancy")
    off = np.diff(path.policies[:, 0] - p[0])
    factor = float(off[1, 0] / off[0, 0])
    claim.close(factor, 1 - 3 * 0.25, 1e-3, what="factor of a first token", because="expansion")
    claim.exhibits(local_rate_one_step(SPIF, 2.0) - factor, 0.3, what="T4 b's factor, in excess")


# --- a temperature --------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", MATCHED, ids=label)
@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.claim("T14.token_temperature", regime="tabular")
def test_at_a_temperature_the_logits_are_the_mles_times_it(claim, obj, temperature: float) -> None:
    """Own tokens at temperature T: sampled at T, the destination is the maximum likelihood."""
    for seed in range(3):
        model = NextToken(seed)
        best = model.least(model.sft, np.zeros(3))
        model.temperature = temperature
        rests = temperature * best
        found = model.gradient(model.risk, rests, rests, obj, 0.7)
        claim.close(found, 0.0, 1e-9, what="first gradient at T times the MLE's logits")


@pytest.mark.claim("T14.token_temperature", regime="tabular")
def test_rounds_at_a_temperature_go_there(claim) -> None:
    model = NextToken(1)
    best = model.least(model.sft, np.zeros(3))
    model.temperature = 0.7
    path = model.rounds(np.zeros(3), SPIN, 1.5, 60)
    claim.close(path[-1], 0.7 * best, 1e-7, what="parameters of the last round")


@pytest.mark.claim("T14.token_temperature", regime="tabular", drops="no_base_measure")
def test_with_a_base_measure_they_are_not(claim) -> None:
    model = NextToken(1, base=1.0)
    best = model.least(model.sft, np.zeros(3))
    model.temperature = 0.7
    path = model.rounds(best, SPIN, 1.5, 60)
    moved = np.abs(path[-1] - path[-2]).max()
    claim.below(moved, 1e-8, what="the last round's move", because="chosen")
    claim.exhibits(np.abs(path[-1] - 0.7 * best).max(), 0.01, what="distance to T times the MLE's")


@pytest.mark.claim("T14.token_temperature", regime="tabular", drops="matched_slopes")
def test_where_slopes_do_not_cancel_they_are_not(claim) -> None:
    model = NextToken(1)
    rests = 0.7 * model.least(model.sft, np.zeros(3))
    model.temperature = 0.7
    found = model.gradient(model.risk, rests, rests, NWJ, 0.7)
    claim.exhibits(np.abs(found).max(), 0.01, what="NWJ's first gradient there")


# --- room -----------------------------------------------------------------------------------------

NEGLECTED = 1e-9


def with_neglected(
    horizon: int, p: list[float], q: list[float]
) -> tuple[TokenMDP, FloatArray, FloatArray]:
    """Independent positions, and at each a token beside that neither player gives."""
    game = TokenMDP.tree(vocab=len(p) + 1, horizon=horizon, eos=None)
    rows = (np.array([*law, NEGLECTED]) / (1 + NEGLECTED) for law in (p, q))
    expert, start = (np.tile(np.log(row), (game.n_states, 1)) for row in rows)
    return game, expert, start


def left(game: TokenMDP, policy: FloatArray) -> float:
    """Mass of the responses without a neglected token."""
    kept = (game.sequence_tokens[0] < game.n_actions - 1).all(-1)
    return float(game.sequence_law(policy)[0][kept].sum())


@pytest.mark.claim("T14.token_dumping", regime="tabular")
@pytest.mark.parametrize("far", [0.6, 0.95])
def test_dumped_mass_adds_up_along_a_response(claim, far: float) -> None:
    """1 - prod Z per token; 1 - Z of responses, at most 1 - e^-eta, per response."""
    eta, p, q = 1.0, [far, 1 - far], [1 - far, far]
    kept = []
    for horizon in (1, 2, 4):
        game, expert, start = with_neglected(horizon, p, q)
        z = np.exp(partition_gap(np.exp(expert), np.exp(start), SPIF, 1 / eta))
        path = self_play(
            expert, start, SPIF, 1 / eta, 1, one_step="global", game=game, level="conditional"
        )
        share = left(game, path.policy)
        claim.close(share, z[0] ** horizon, 0.0, 0.02, what="mass left per token: prod Z",
                    because="expansion")  # fmt: skip
        law_p, law_q = (game.sequence_law(law)[0] for law in (expert, start))
        whole = one_step_round(law_p, law_q, SPIF, 1 / eta, branch="global")
        z_whole = float(np.exp(partition_gap(law_p, law_q, SPIF, 1 / eta)))
        dumped = float(whole.dumped_mass)
        claim.close(1 - dumped, z_whole, 0.0, 0.02, what="mass left per response: Z",
                    because="expansion")  # fmt: skip
        claim.below(np.exp(-eta), z_whole, what="e^-eta, of Z of responses")
        kept.append((share, z_whole))
    if far > 0.9:
        claim.exhibits(np.exp(-eta) / kept[-1][0], 3.0, what="e^-eta over what is left per token")


@pytest.mark.claim("T14.token_dumping", regime="tabular", drops="level_seen")
def test_a_pair_loss_dumps_at_no_prefix(claim) -> None:
    game, expert, start = with_neglected(4, [0.95, 0.05], [0.05, 0.95])
    found = self_play(expert, start, CENTRED, 1.0, 1, one_step=True, game=game,
                      level="conditional")  # fmt: skip
    claim.exhibits(left(game, found.policy), 1 - 1e-7, what="mass left")


@pytest.mark.claim("T14.token_room", regime="tabular")
def test_a_likely_token_has_no_room(claim) -> None:
    """One expert and one own token at a prefix: the least loss is attained iff q e^R < 1."""
    eta = 1.0
    for likely, room in ((0.3, True), (0.9, False)):
        q = np.array([likely, 0.5 * (1 - likely), 0.5 * (1 - likely)])
        total = q[0] * np.exp(eta) + q[1] * np.exp(-eta)
        assert (total < 1) == room

        def least(unseen: float, q: FloatArray = q) -> float:
            """Least risk of both tokens' rewards with this mass left for the unseen one."""

            def risk(share: float) -> float:
                law = (1 - unseen) * np.array([share, 1 - share])
                r = np.log(law / q[:2]) / eta
                return float(-(r[0] - 0.5 * r[0] ** 2) + r[1] + 0.5 * r[1] ** 2)

            bounds = (1e-12, 1 - 1e-12)
            options = {"xatol": 1e-13}
            return float(
                minimize_scalar(risk, bounds=bounds, method="bounded", options=options).fun
            )

        if room:
            found = minimize_scalar(least, bounds=(1e-9, 0.9), method="bounded").x
            claim.close(found, 1 - total, 1e-4, what="unseen mass: 1 - sum q e^R",
                        because="solver")  # fmt: skip
            claim.close(least(1 - total), -1.0, 1e-9, what="the loss of free rewards, -1/c")
        else:
            risks = np.array([least(m) for m in np.geomspace(1e-8, 0.5, 15)])
            claim.exhibits(np.diff(risks).min(), 1e-9, what="rise of the loss with unseen mass")
            claim.exhibits(risks[0] + 1.0, 0.05, what="its infimum above that of free rewards")


@pytest.mark.claim("T14.token_room", regime="tabular", drops="separable")
def test_an_own_token_that_is_the_expert_s_leaves_room(claim) -> None:
    """Its reward is R(0) = 0, so the token keeps its probability, however likely it is."""
    q, sides = np.array([0.9, 0.05, 0.05]), (np.array([1.0, 0.0, 0.0]),) * 2

    def risk(x: float) -> float:
        ratio = np.log([x, 0.5 * (1 - x), 0.5 * (1 - x)]) - np.log(q)
        return float(SPIF.risk(ratio, ratio, 1.0, *sides))

    found = minimize_scalar(risk, bounds=(1e-6, 1 - 1e-6), method="bounded").x
    claim.close(found, 0.9, 1e-4, what="probability of the token", because="solver")
    claim.exhibits(min(risk(1e-6), risk(1 - 1e-6)) - risk(found), 0.01, what="risk at the ends")

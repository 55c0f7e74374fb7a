"""T5-T7: a two-step round is mirror descent on an f-divergence; its constants and thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.strategies import Instance, games, label, with_fixed_link
from theory import equilibrium, laws, objectives, self_play, theory_card
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

FIXED = with_fixed_link()
SMOOTH = [obj for obj in FIXED if obj.name != "ipm"]
ABSENT = {"sppo", "spin_hinge", "ipo", "inpo", "tspin", "alpha_spin"}


def test_every_objective_is_here_or_named_absent() -> None:
    assert {obj.name for obj in FIXED} | ABSENT == set(objectives.names())
    for name in ABSENT:
        obj = objectives.get(name)
        assert obj.missing("link") or obj.missing("potential")


def slope_range(obj: Objective, *ratios: FloatArray) -> tuple[float, float]:
    """inf and sup of R' over the hull of 0 and the given log-ratios."""
    stacked = np.concatenate([np.ravel(u) for u in ratios] + [np.zeros(1)])
    grid = np.linspace(stacked.min(), stacked.max(), 801)
    slopes = obj.slope(grid)
    return float(slopes.min()), float(slopes.max())


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T5.mirror_descent", regime="tabular")
@given(game=games())
def test_reward_is_minus_gradient_of_potential(claim, obj: Objective, game: Instance) -> None:
    """d/dpi D_Phi(pi||p) = -r + const: directional derivatives along random tangents."""
    p, q = game.expert, game.start
    if obj.name == "ipm":  # kinks where p = pi: stay on one side of all of them
        assume(np.abs(np.log(p / q)).min() > 1e-2)
    direction = q * game.rng.standard_normal(q.shape)
    direction -= q * direction.sum(-1, keepdims=True)
    step = 1e-5 / np.abs(direction / q).max()
    ahead, behind = obj.potential(q + step * direction, p), obj.potential(q - step * direction, p)
    slope = (ahead - behind) / (2 * step)
    predicted = -(obj.reward(p, q) * direction).sum(-1)
    scale = np.abs(obj.reward(p, q) * direction).sum(-1).max() + obj.potential(q, p).max()
    atol = 2e-5 * scale + 1e-9  # of differences 1e-5 wide
    what = "directional derivative of D_Phi"
    claim.close(slope, predicted, atol, what=what, because="expansion")


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T5.mirror_descent", "T2.gibbs", regime="tabular")
@given(game=games())
def test_round_is_the_mirror_descent_step(claim, obj: Objective, game: Instance) -> None:
    """pi_{t+1} minimises <-r_t, pi> + beta KL(pi||pi_t): no random policy does better."""
    beta = float(game.rng.uniform(0.3, 3.0))
    after = self_play(game.expert, game.start, obj, beta=beta, rounds=1).policy
    # an unbounded reward can push mass to where numbers have fewer digits, or to 0
    assume((after >= np.finfo(float).tiny).all())
    reward = obj.reward(game.expert, game.start)

    def surrogate(policy: FloatArray) -> FloatArray:
        return -laws.expect(policy, reward) + beta * laws.kl(policy, game.start)

    for other in (game.start, game.ref, game.expert, 0.99 * after + 0.01 * game.ref):
        # strong convexity: the excess is beta KL(other || pi_{t+1}) exactly
        excess = surrogate(other) - surrogate(after)
        size = 1.0 + np.abs(reward).max()
        predicted = beta * laws.kl(other, after) / size
        claim.close(excess / size, predicted, 1e-12, rtol=1e-9, what="excess = beta KL")


def _rounds_in_range(obj: Objective, game: Instance, rounds: int = 6):
    """A path whose beta is at least sup R' over every hull of {0, u_t, u_{t+1}} on it."""
    p, q = game.expert, game.start
    card = theory_card(obj)
    beta = card.L if np.isfinite(card.L) else 1.2 * slope_range(obj, laws.log_ratio(p, q))[1]
    beta *= float(game.rng.uniform(1.0, 3.0))
    path = self_play(p, q, obj, beta=beta, rounds=rounds)
    ratios = [laws.log_ratio(p, policy) for policy in path.policies]
    assume(slope_range(obj, *ratios)[1] <= beta * (1 + 1e-9))
    return beta, path, ratios


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.descent", regime="tabular")
@given(game=games())
def test_convergence_bounds(claim, obj: Objective, game: Instance) -> None:
    """T6 (i)-(iii), with its constants, at every round."""
    p = game.expert
    beta, path, ratios = _rounds_in_range(obj, game)
    divergence = np.stack([obj.potential(policy, p) for policy in path.policies])
    kl = path.details["kl"]
    tiny = 1e-13 * (1 + divergence[0].max() + kl[0].max())
    claim.below(divergence[1:], divergence[:-1], atol=tiny, what="(i) D_Phi decreases")
    rounds = np.arange(1, len(kl))[:, None]
    claim.below(divergence[1:], beta * kl[0] / rounds, atol=tiny, what="(ii) D_Phi <= beta KL_0/T")
    for t in range(len(kl) - 1):
        mu = slope_range(obj, ratios[t], ratios[t + 1])[0]
        bound = (1 - mu / beta) * kl[t] - divergence[t + 1] / beta
        claim.below(kl[t + 1], bound, atol=1e-10 * (1 + kl[0].max()), what="(iii) KL contracts")


def of_log_odds(x: float) -> FloatArray:
    """Law of two outcomes."""
    return np.exp(-np.logaddexp(0.0, [-x, x]))


@pytest.mark.claim("T6.descent", regime="tabular")
@pytest.mark.parametrize("beta", [1.5, 2.0, 3.0])
def test_the_contraction_is_attained_from_afar(claim, beta: float) -> None:
    """(iii): SPIN multiplies log-odds by 1 - 1/beta, and KL is linear in them far away."""
    p = of_log_odds(0.0)
    kl = self_play(p, of_log_odds(600.0), "spin", beta=beta, rounds=1).details["kl"]
    claim.exhibits(kl[1] / ((1 - 1 / beta) * kl[0]), 0.99, what="(iii) share of the bound, SPIN")


@pytest.mark.claim("T6.anchored", regime="tabular")
@pytest.mark.parametrize(("beta", "tau"), [(1.5, 0.5), (2.0, 0.5), (2.0, 2.0), (3.0, 2.0)])
def test_the_anchored_contraction_is_attained_from_afar(claim, beta: float, tau: float) -> None:
    """(v): the equilibrium is the reference, which is the expert."""
    p = of_log_odds(0.0)
    path = self_play(p, of_log_odds(600.0), "spin", beta=beta, rounds=1, ref=p, tau=tau)
    kl = [laws.kl(p, policy) for policy in path.policies]
    share = kl[1] / (kl[0] * (beta - 1) / (beta + tau))
    claim.exhibits(share, 0.98, what="(v) share of the bound, SPIN")


@pytest.mark.claim("T6.descent", regime="tabular")
@pytest.mark.parametrize(("distance", "share"), [(20.0, 0.55), (80.0, 0.64), (300.0, 0.67)])
def test_how_much_of_the_rate_spif_needs_from_afar(claim, distance: float, share: float) -> None:
    """(ii): while the expert's one response is rare, D_Phi is near (2/c) log 2 and rewards are
    near 1/c and -1/c, so that T = beta KL_0 c/2 rounds pass: log 2 = .693 of the bound, at most."""
    p, start = of_log_odds(np.log(1e6)), of_log_odds(-distance)
    beta, spif = 4.0, objectives.get("spif")
    path = self_play(p, start, spif, beta=beta, rounds=700, progress=False)
    potential = np.array([spif.potential(policy, p) for policy in path.policies[1:]])
    used = potential * np.arange(1, 701) / (beta * path.details["kl"][0])
    claim.exhibits(used.max(), share, what="(ii) share of the bound, SPIF")
    claim.below(used, np.log(2.0), what="that share: log 2", because="chosen")


LIPSCHITZ = [obj for obj in SMOOTH if np.isfinite(theory_card(obj).L)]


@pytest.mark.parametrize("obj", LIPSCHITZ, ids=label)
@pytest.mark.claim("T6.inexact", regime="tabular")
@given(game=games(), share=st.floats(0.3, 1.0), size=st.floats(0.0, 3.0))
def test_rounds_with_reward_errors(claim, obj, game: Instance, share: float, size: float) -> None:
    """(vi): errors e_t of the rewards cost <e_t, pi_{t+1} - p> a round, and no more."""
    card, p, log_q = theory_card(obj), game.expert, np.log(game.start)
    beta, first = card.L / share, laws.kl(game.expert, game.start)
    potentials, costs, bounds = [], [], []
    for _ in range(6):
        error = size * game.rng.standard_normal(p.shape)
        reward = reward_of_log_laws(obj, np.log(p), log_q)
        log_next = gibbs_step(log_q, reward + error, beta, None, 0.0)
        after = np.exp(log_next)
        costs.append((error * (after - p)).sum(-1))
        potentials.append(obj.potential(after, p))
        kept = (beta - card.mu) * laws.kl(p, np.exp(log_q)) - beta * laws.kl(p, after)
        scale = 1e-11 * (1.0 + beta * laws.kl(p, after).max() + size)
        claim.below(potentials[-1], kept + costs[-1], atol=scale, what="D_Phi after a round")
        bounds.append(np.ptp(error, axis=-1) * laws.total_variation(after, p))
        log_q = log_next
    claim.below(costs, np.array(bounds), atol=1e-12, what="cost against osc(e) TV(pi, p)")
    mean = beta * first / 6 + np.mean(costs, 0)
    claim.below(np.mean(potentials, 0), mean, atol=1e-10 * (1 + beta), what="mean D_Phi, 6 rounds")


@pytest.mark.claim("T6.inexact", regime="tabular", drops="beta_at_least_L")
def test_below_the_largest_slope_a_round_costs_more_than_its_errors(claim) -> None:
    """SPIN at beta = L/2 without any error: the right side of (vi) is negative, D_Phi is not."""
    p, start = of_log_odds(0.0), of_log_odds(3.0)
    path = self_play(p, start, "spin", beta=0.5, rounds=1)
    before, after = path.details["kl"]
    potential = objectives.get("spin").potential(path.policy, p)
    bound = (0.5 - 1.0) * before - 0.5 * after
    claim.exhibits(potential - bound, 1.0, what="D_Phi less its bound, nats")


@pytest.mark.claim("T6.inexact", regime="tabular")
@given(game=games(), size=st.floats(0.01, 3.0))
def test_the_cost_of_reward_errors_is_attained(claim, game: Instance, size: float) -> None:
    """SPIN at beta = 1: D_Phi + KL(p||pi) *is* <e, pi - p>, as pi is p e^e normalised."""
    spin, error = objectives.get("spin"), size * game.rng.standard_normal(game.expert.shape)
    reward = reward_of_log_laws(spin, np.log(game.expert), np.log(game.start))
    after = np.exp(gibbs_step(np.log(game.start), reward + error, 1.0, None, 0.0))
    both = spin.potential(after, game.expert) + laws.kl(game.expert, after)
    cost = (error * (after - game.expert)).sum(-1)
    claim.close(
        both, cost, 1e-12 * (1 + size), rtol=1e-9, what="D_Phi + KL(p||pi) against the cost"
    )


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.local_rate", regime="tabular")
@given(game=games(), beta=st.floats(0.3, 4.0))
def test_local_rate(claim, obj: Objective, game: Instance, beta: float) -> None:
    """(iv): log-ratios near the expert contract by 1 - R'(0)/beta, up to a constant."""
    p = game.expert
    tilt = 1e-6 * game.rng.standard_normal(p.shape)
    start = p * np.exp(tilt)
    start /= start.sum(-1, keepdims=True)
    path = self_play(p, start, obj, beta=beta, rounds=1)
    before, after = (laws.log_ratio(p, policy) for policy in path.policies)
    factor = 1 - float(obj.slope(0.0)) / beta
    centred = after - (p * after).sum(-1, keepdims=True)
    expected = factor * (before - (p * before).sum(-1, keepdims=True))
    claim.close(centred, expected, atol=1e-10 * (1 + 1 / beta), what="log-ratio after a round")


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.diverges", regime="tabular")
@given(game=games(max_spread=1.0), below=st.floats(0.3, 0.95))
def test_below_the_threshold_the_expert_repels(claim, obj, game: Instance, below: float) -> None:
    """beta < R'(0)/2: a start next to the expert is driven away from it."""
    p = game.expert
    start = p * np.exp(1e-6 * game.rng.standard_normal(p.shape))
    start /= start.sum(-1, keepdims=True)
    beta = below * theory_card(obj).stability_beta
    factor = float(obj.slope(0.0)) / beta - 1
    rounds = int(np.ceil(np.log(1e5) / np.log(factor)))
    path = self_play(p, start, obj, beta=beta, rounds=rounds)
    tilt = path.details["max_logratio"]
    early = max(1, int(np.log(100.0) / np.log(factor)))  # where log-ratios are still small
    what = "growth of max |u| up to 1e-4"
    claim.close(
        tilt[early] / tilt[0], factor**early, 0.0, rtol=5e-3, what=what, because="expansion"
    )
    claim.exhibits(tilt[-1] / tilt[0], at_least=50.0, what="growth of max |u|")


@pytest.mark.parametrize("name", ["gail", "nwj", "spif", "spin"])
def test_padding_gets_no_reward_on_a_path(name: str) -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.8, 0.0])
    assert self_play(p, q, objectives.get(name), 1.0, rounds=2).reward[-1] == 0.0


def test_numpy_numbers_are_numbers() -> None:
    p, q, obj = [0.5, 0.5], [0.2, 0.8], objectives.get("spif")
    for tau in (np.float32(0.5), np.float64(0.5)):
        path = self_play(
            p, q, obj, np.int64(1), rounds=np.int64(2), ref=q, tau=tau, one_step=np.False_
        )
        expected = self_play(p, q, obj, 1.0, rounds=2, ref=q, tau=0.5)
        np.testing.assert_array_equal(path.policies, expected.policies)


@pytest.mark.parametrize("obj", [o for o in SMOOTH if o.reward_bounds[0] > -np.inf], ids=label)
@pytest.mark.claim("T6.outside_support", regime="tabular")
@given(game=games(), beta=st.floats(0.3, 4.0))
def test_mass_where_the_expert_has_none_decays(claim, obj: Objective, game: Instance, beta) -> None:
    """Where p = 0 < pi mass decays by e^{(R(-inf)-R(0))/beta} a round once pi is p elsewhere."""
    n = game.expert.shape[-1]
    weight = np.where(np.arange(n) == 0, 0.0, game.expert)
    p = weight / weight.sum(-1, keepdims=True)
    start = 1e-9 * (np.arange(n) == 0) + (1 - 1e-9) * p
    path = self_play(p, start, obj, beta=beta, rounds=1)
    decay = path.policies[1, :, 0] / path.policies[0, :, 0]
    predicted = np.exp((obj.reward_bounds[0] - float(obj.link(0.0))) / beta)
    claim.close(decay, np.full_like(decay, predicted), atol=1e-7, what="decay of unsupported mass")


@pytest.mark.claim("T6.stable", regime="tabular", drops="differentiable_link")
@given(game=games(max_spread=1.0), beta=st.floats(1.0, 20.0))
def test_hard_bounded_rewards_never_settle(claim, game: Instance, beta: float) -> None:
    """The sign link ends in a two-cycle of size about bound/beta, however small the step."""
    obj = objectives.get("ipm", bound=1.0)
    path = self_play(game.expert, game.start, obj, beta=beta, rounds=400)
    late = path.details["max_logratio"][-50:].max(0)
    claim.exhibits(late * beta, at_least=0.2, what="late max |u| in units of bound/beta")
    claim.below(late, 2.5 / beta, what="late max |u| stays within 2.5 bound/beta", because="chosen")


@pytest.mark.claim("T7.path", regime="tabular")
@given(game=games(), beta=st.floats(0.05, 5.0), rounds=st.integers(0, 12))
def test_spin_in_closed_form(claim, game: Instance, beta: float, rounds: int) -> None:
    path = self_play(game.expert, game.start, objectives.get("spin"), beta=beta, rounds=rounds)
    log_p, log_0 = np.log(game.expert), np.log(game.start)
    logits = log_p + (1 - 1 / beta) ** rounds * (log_0 - log_p)
    logits -= logits.max(-1, keepdims=True)
    predicted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    scale = max(1.0, abs(1 - 1 / beta) ** rounds)
    assume(scale <= 1e5)  # the rounding of the start grows by it
    claim.close(path.policy, predicted, atol=1e-12 * scale, what="SPIN's geometric path")


@pytest.mark.claim("T7.diverges", regime="tabular")
@given(game=games(max_spread=1.0))
def test_spin_at_its_published_beta_diverges(claim, game: Instance) -> None:
    """beta = 0.1: every log-ratio difference is multiplied by -9 a round."""
    spin = objectives.get("spin")
    path = self_play(game.expert, game.start, spin, beta=0.1, rounds=2)
    u = laws.log_ratio(game.expert, game.start)
    wide = np.ptp(u, axis=-1)
    assume(wide.min() > 1e-3 and 81 * wide.max() < 600)
    spans = np.ptp(laws.log_ratio(game.expert, path.policies), axis=-1)
    claim.close(spans[1:] / spans[:-1], 9.0, atol=1e-9, what="growth of the log-ratio range")
    claim.exhibits(path.details["kl"][-1] / path.details["kl"][0], at_least=9.0, what="KL growth")
    cycle = self_play(game.expert, game.start, spin, beta=0.5, rounds=2).policy
    claim.close(cycle, game.start, atol=1e-12, what="period two at beta = 1/2")


@pytest.mark.parametrize("name", ["iq_learn", "policy_only"])
@pytest.mark.claim("T8.bounded", regime="tabular", drops="penalty_on_mixture")
def test_one_sided_penalties_are_unbounded(claim, name: str) -> None:
    """Penalties on one side: the reward grows without bound with the mismatch; SPIF stays in."""
    mismatch = np.array([1e-2, 1e-4, 1e-6])
    p = np.stack([1 - mismatch, mismatch], -1)
    q = p[:, ::-1]
    largest = np.abs(objectives.get(name).reward(p, q)).max(-1)
    growth = largest[1:] / largest[:-1]  # of 1/mismatch - 2
    claim.exhibits(growth, 100.0, what="reward growth per 100x mismatch", because="theory")
    claim.below(np.abs(objectives.get("spif").reward(p, q)).max(), 1.0, what="SPIF reward <= 1/c")


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T10.certificates", regime="tabular")
@given(game=games(max_n=6), tau=st.sampled_from([0.0, 0.2, 1.0]), rounds=st.integers(0, 4))
def test_gap_of_a_path_bounds_its_distance(
    claim, obj, game: Instance, tau: float, rounds: int
) -> None:
    """The certificate of an iterate: F(pi_T) - F(any policy) <= gap, and F is what it says."""
    p, ref = game.expert, game.ref
    path = self_play(p, game.start, obj, beta=1.5, rounds=rounds, ref=ref, tau=tau)
    assume((path.policy > 0).all() and np.isfinite(path.gap).all())

    def value(policy: FloatArray) -> FloatArray:
        return obj.potential(policy, p) + tau * laws.kl(policy, ref)

    size = 1 + np.abs(path.primal).max() + np.abs(path.dual).max()
    claim.close(
        path.primal / size, value(path.policy) / size, 1e-12, what="value of the last policy"
    )
    best = p if tau == 0 else equilibrium(p, ref, obj, tau=tau).policy
    for other in (best, ref, game.start):
        claim.below(
            path.dual / size, value(other) / size, "dual below every policy's value", atol=1e-11
        )


@pytest.mark.claim("T10.certificates", "T10.rounds_end", regime="tabular")
def test_gap_of_a_settled_path_closes(claim) -> None:
    """Where rounds have settled, the certificate says so: the gap is rounding error."""
    rng = np.random.default_rng(0)
    p, q, ref = laws.random_law(rng, (3, 2, 8))
    for tau in (0.0, 0.3):
        path = self_play(p, q, objectives.get("spif"), beta=1.0, rounds=200, ref=ref, tau=tau)
        claim.close(path.gap, 0.0, atol=1e-13, what=f"gap after 200 rounds, tau = {tau:g}")


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.anchored", regime="tabular")
@given(game=games(), tau=st.floats(0.05, 3.0))
def test_anchored_rounds_are_globally_linear(claim, obj, game: Instance, tau: float) -> None:
    """(v): KL(pi*||pi_t) contracts by (beta - mu)/(beta + tau) to the anchored equilibrium."""
    p, q, ref = game.expert, game.start, game.ref
    target = equilibrium(p, ref, obj, tau=tau).policy
    ratios = [laws.log_ratio(p, x) for x in (q, target)]
    low, high = slope_range(obj, *ratios)
    card = theory_card(obj)
    beta = card.L if np.isfinite(card.L) else 1.5 * high
    path = self_play(p, q, obj, beta=beta, rounds=6, ref=ref, tau=tau)
    ratios += [laws.log_ratio(p, x) for x in path.policies]
    low, high = slope_range(obj, *ratios)
    assume(high <= beta * (1 + 1e-9))
    kl = np.stack([laws.kl_stable(target, policy) for policy in path.policies])
    bound = (beta - low) / (beta + tau) * kl[:-1]
    claim.below(kl[1:], bound, atol=1e-11 * (1 + kl[0].max()), what="(v) KL(pi*||pi_t)")


def test_the_anchored_contraction_reads_slopes_up_to_the_equilibrium() -> None:
    """With pi_t next to the expert and pi* far from both, the hull of 0, u_t, u_{t+1} is too
    small: its least slope is above that on the way to pi*."""
    p, ref, tau, spif = (
        np.array([1e-6, 1 - 1e-6]),
        np.array([0.6, 0.4]),
        0.2,
        objectives.get("spif"),
    )
    target = equilibrium(p, ref, spif, tau=tau).policy
    for beta in (2.0, 10.0, 100.0):
        after = self_play(p, p, spif, beta=beta, rounds=1, ref=ref, tau=tau).policy
        kl, left = laws.kl(target, p), laws.kl(target, after)
        ratios = [laws.log_ratio(p, x) for x in (p, after, target)]
        short, whole = (slope_range(spif, *some)[0] for some in (ratios[:2], ratios))
        assert (beta - whole) / (beta + tau) * kl >= left > (beta - short) / (beta + tau) * kl


def test_a_step_of_any_size_makes_no_law_nan() -> None:
    for name in ("spin", "spif", "ipo"):
        path = self_play([0.7, 0.2, 0.1], [0.2, 0.3, 0.5], name, beta=1e-300, rounds=3)
        assert np.isfinite(path.policies).all()


def test_laws_in_single_precision_are_normalised_again() -> None:
    p, q = np.float32([0.3, 0.7]), np.float32([0.1, 0.9])
    path = self_play(p, q, objectives.get("spin"), beta=1.0, rounds=1)
    exact = p.astype(np.float64) / p.astype(np.float64).sum()
    np.testing.assert_allclose(path.policy, exact, atol=1e-15)


@pytest.mark.parametrize("name", ["spin", "ipo", "centred_spif", "gail"])
def test_rewards_of_solutions_are_those_of_the_objective(name: str) -> None:
    """Centred where only defined up to a constant, 0 on padding, from every solver alike."""
    p, q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.1, 0.2, 0.7, 0.0])
    obj = objectives.get(name)
    path = self_play(p, q, obj, beta=2.0, rounds=2)
    np.testing.assert_allclose(path.reward, obj.reward(p, path.policy), atol=1e-13)
    point = equilibrium(p, q, obj, tau=0.3)
    np.testing.assert_allclose(point.reward, obj.reward(p, point.policy), atol=1e-9)


@pytest.mark.parametrize("tau", [0.0, 0.4])
def test_certificate_looks_only_at_outcomes_with_mass(tau: float) -> None:
    """Outcomes that one side leaves out count, padding does not: the bound by its definition."""
    obj = objectives.get("spif")
    p, q = np.array([0.6, 0.4, 0.0, 0.0]), np.array([0.5, 0.2, 0.3, 0.0])
    ref = np.array([0.3, 0.3, 0.4, 0.0])
    path = self_play(p, q, obj, beta=1.0, rounds=0, ref=ref, tau=tau)
    reward = np.array([np.tanh(0.5 * np.log(1.2)), np.tanh(0.5 * np.log(2.0)), -1.0])
    linear = obj.potential(q, p) + q[:3] @ reward
    best = reward.max() if tau == 0 else tau * np.log(ref[:3] @ np.exp(reward / tau))
    np.testing.assert_allclose(path.dual, linear - best, atol=1e-14)
    swapped = self_play(q, p, obj, beta=1.0, rounds=0)
    np.testing.assert_allclose(swapped.dual, obj.potential(p, q) - p[:3] @ reward - 1.0, atol=1e-14)


def test_default_margins_are_those_of_the_literature() -> None:
    assert objectives.get("ipo").label == "ipo(margin=1)"
    assert objectives.get("inpo").label == "inpo(margin=0.5)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "(beta 1, as none was given)"),
        ({"beta": 0.25}, "(beta 0.25)"),
        ({"effective_step": 0.5}, "(beta 1 (effective step 0.5))"),
        ({"beta": [1.0, 2.0]}, "(beta 1 to 2)"),
    ],
)
def test_the_status_says_which_beta_was_used(given, said):
    path = self_play([0.7, 0.3], [0.4, 0.6], "spif", rounds=2, **given)
    assert path.status.endswith(said)

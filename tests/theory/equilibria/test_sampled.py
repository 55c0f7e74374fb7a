"""T10: the duality gap from samples, and what it says of the distance to the equilibrium."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom

from tests.theory.strategies import Instance, games, label, with_fixed_link
from theory import equilibrium, laws, objectives, saddle_point
from theory.certificate import reward_gain
from theory.equilibria.log_mean import LogMean
from theory.equilibria.sampled import SampledGap, sampled_gap
from theory.errors import InvalidInput, Unavailable
from theory.objectives import Objective
from theory.result import FloatArray

SADDLE = [o for o in map(objectives.get, objectives.names()) if not o.missing("saddle")]
SADDLE = [obj for obj in SADDLE if "preference" not in obj.needs]
LINKED = with_fixed_link()
SPIF, SPIN, IPM = (objectives.get(name) for name in ("spif", "spin", "ipm"))
REPLICATIONS, RESPONSES = 600, 500


def exact_gap(
    obj: Objective, kind: str, policy: FloatArray, ref: FloatArray, r: FloatArray, tau: float
) -> FloatArray:
    """``tau KL(pi || ref e^{pay/tau}/Z)``."""
    pay = r if kind == "equilibrium" else -np.asarray(obj.b(r))
    weight = ref * np.exp((pay - pay.max(-1, keepdims=True)) / tau)
    best = weight / weight.sum(-1, keepdims=True)
    return np.asarray(tau * laws.kl_stable(policy, best))


def finite_reward(obj: Objective, game: Instance) -> FloatArray:
    """A reward that is no best response, within the payoffs' range."""
    r = obj.reward(game.expert, game.start)
    return np.asarray(r * (0.3 + 0.7 * game.rng.random(r.shape)))


# --- what the gap says of the distance ------------------------------------------------------------


@pytest.mark.parametrize("obj", SADDLE, ids=label)
@pytest.mark.claim("T10.gap_bounds_distance", regime="tabular")
@given(game=games(max_n=6, max_spread=2.0), tau=st.floats(0.1, 3.0))
def test_the_gap_bounds_both_distances(claim, obj: Objective, game: Instance, tau: float) -> None:
    """tau (KL(pi||pi*) + KL(pi*||pi_r)) is at most the gap of any policy and any reward."""
    p, q, ref = game.expert, game.start, game.ref
    r = finite_reward(obj, game)
    star = saddle_point(p, ref, obj, tau=tau).policy
    pay = -np.asarray(obj.b(r))
    assume(np.isfinite(pay).all())
    weight = ref * np.exp((pay - pay.max(-1, keepdims=True)) / tau)
    gibbs = weight / weight.sum(-1, keepdims=True)
    gap = exact_gap(obj, "saddle", q, ref, r, tau) + reward_gain(obj, p, q, r).sum(-1)
    assume((gibbs > 1e-280).all() and np.isfinite(gap).all())
    apart = tau * (laws.kl_stable(q, star) + laws.kl_stable(star, gibbs))
    scale = 1 + np.abs(pay).max() + apart.max()
    what = "tau (KL(pi||pi*) + KL(pi*||pi_r))"
    claim.below(apart / scale, gap / scale, what, atol=1e-9, because="solver")


@pytest.mark.parametrize("obj", LINKED, ids=label)
@pytest.mark.claim("T10.gap_bounds_distance", regime="tabular")
@given(game=games(max_n=6, max_spread=2.0), tau=st.floats(0.1, 3.0))
def test_the_gap_of_the_rounds_bounds_the_distance(
    claim, obj: Objective, game: Instance, tau: float
) -> None:
    """(tau + mu) KL(pi||pi*) <= F(pi) - F(pi*) <= tau KL(pi || ref e^{R/tau}/Z)."""
    p, q, ref = game.expert, game.start, game.ref
    star = equilibrium(p, ref, obj, tau=tau).policy

    def value(policy: FloatArray) -> FloatArray:
        return np.asarray(obj.potential(policy, p) + tau * laws.kl(policy, ref))

    more = value(q) - value(star)
    gap = exact_gap(obj, "equilibrium", q, ref, obj.reward(p, q), tau)
    mu = max(float(obj.slope_range()[0]), 0.0)
    scale = 1 + np.max(gap, initial=0.0, where=gap < np.inf)  # an infinite one bounds nothing
    distance = (tau + mu) * laws.kl_stable(q, star) / scale
    claim.below(distance, more / scale, "(tau + mu) KL(pi||pi*)", atol=1e-9, because="solver")
    claim.below(more / scale, gap / scale, "F(pi) - F(pi*)", atol=1e-9, because="solver")


@pytest.mark.claim("T10.gap_bounds_distance", regime="tabular")
def test_the_distances_are_attained(claim) -> None:
    """IPM's game is linear where no outcome changes sides; SPIN's potential is (1 + tau) KL."""
    p, ref = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.5, 0.4])
    for tau in (2.0, 5.0):
        star = saddle_point(p, ref, IPM, tau=tau).policy
        near = star * np.exp([0.02, -0.03, 0.01])
        near /= near.sum()
        assert (np.sign(p - near) == np.sign(p - star)).all()
        r = IPM.reward(p, near)
        gap = exact_gap(IPM, "saddle", near, ref, r, tau) + reward_gain(IPM, p, near, r).sum()
        claim.close(tau * laws.kl_stable(near, star), gap, 1e-9, because="solver",
                    what="IPM: tau KL(pi||pi*) against the gap")  # fmt: skip
    q, tau = np.array([0.3, 0.3, 0.4]), 0.5
    star = equilibrium(p, ref, SPIN, tau=tau).policy
    value = [SPIN.potential(x, p) + tau * laws.kl(x, ref) for x in (q, star)]
    apart = (1 + tau) * laws.kl_stable(q, star)
    claim.close(apart, value[0] - value[1], 1e-12, what="SPIN: F(pi) - F(pi*)")
    tau = 200.0
    star = equilibrium(p, ref, SPIN, tau=tau).policy
    gap = exact_gap(SPIN, "equilibrium", q, ref, SPIN.reward(p, q), tau)
    shown = (1 + tau) * laws.kl_stable(q, star) / gap
    claim.exhibits(shown, 0.99, what="SPIN: (tau + mu) KL over the gap of the rounds")


# --- the estimate ---------------------------------------------------------------------------------


def counted(rng: np.random.Generator, n: int = 5) -> tuple[FloatArray, np.ndarray[Any, Any]]:
    """A law of whole parts of 400, and 400 responses that show it exactly."""
    counts = 1 + rng.multinomial(400 - n, laws.random_law(rng, (n,), 1.0))
    return counts / 400, np.repeat(np.arange(n), counts)


@pytest.mark.parametrize("obj", SADDLE, ids=label)
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.claim("T10.sampled_gap", regime="tabular")
def test_samples_that_show_the_laws_give_the_gap(claim, obj: Objective, alone: bool) -> None:
    """All of it: value, both players' parts and KL, but for what is taken off as bias."""
    rng = np.random.default_rng(3)
    (p, of_p), (q, of_q), (ref, of_ref) = (counted(rng) for _ in range(3))
    r, tau, u = obj.reward(p, q) * rng.uniform(0.5, 1.0, 5), 0.8, np.log(p / q)
    found = sampled_gap(
        obj, tau, r[of_q], np.log(q / ref)[of_q], None if alone else r[of_ref], r[of_p],
        own_ratio=u[of_q], expert_ratio=u[of_p], least_size=1,
    )  # fmt: skip
    exact, gain = exact_gap(obj, "saddle", q, ref, r, tau), reward_gain(obj, p, q, r).sum()
    scale = 1e-11 * (1 + gain)
    claim.close(found.policy_gap.value + found.bias, exact, scale, what="the policy's part")
    claim.close(found.reward_gap.value, gain, scale, what="the reward player's part")
    claim.close(found.gap.value + found.bias, exact + gain, scale, what="the gap")
    value = obj.value(p, q, r) + tau * laws.kl(q, ref)
    claim.close(found.value.value, value, scale, what="the payoff")
    claim.close(found.kl_to_expert.value, laws.kl(p, q), 1e-12, what="KL(p||pi)")
    claim.below(found.bias, 0.0, what="bias of the plug-in")


@pytest.mark.claim("T10.sampled_gap", regime="tabular")
def test_bias_of_the_logarithm_of_a_mean(claim) -> None:
    """Two weights: the exact mean over all samples against -cv^2/(2m), and the jackknife's."""
    for share, ratio in ((0.3, 4.0), (0.1, 8.0), (0.5, 2.0)):
        for count in (500, 2000):
            k = np.arange(count + 1)
            chance = binom.pmf(k, count, share)
            mean = 1 + (ratio - 1) * share
            exact = chance @ np.log1p((ratio - 1) * k / count) - np.log(mean)
            cv = (ratio - 1) ** 2 * share * (1 - share) / mean**2
            claim.close(exact, -cv / (2 * count), 0.0, rtol=0.02, because="expansion",
                        what="bias of log mean e^x")  # fmt: skip
            seen = round(share * count)
            found = LogMean.of(np.log(np.repeat([ratio, 1.0], [seen, count - seen])))
            claim.close(found.bias, -cv / (2 * count), 0.0, rtol=0.01, because="expansion",
                        what="delta method")  # fmt: skip
            claim.close(found.jackknife_bias, found.bias, 0.0, rtol=0.02, because="expansion",
                        what="jackknife")  # fmt: skip


def test_the_jackknife_leaves_out_each_sample_once() -> None:
    x = np.array([[0.3, -1.0, 2.0, 0.0], [5.0, 900.0, 899.0, 1.0]])
    top = x.max(-1)
    whole = np.log(np.exp(x - top[:, None]).mean(-1)) + top
    without = np.zeros(2)
    for i in range(4):
        kept = np.delete(x, i, axis=-1)
        without += (np.log(np.exp(kept - top[:, None]).mean(-1)) + top) / 4
    found = LogMean.of(x)
    np.testing.assert_allclose(found.value, whole)
    np.testing.assert_allclose(found.jackknife_bias, 3 * (without - whole), rtol=1e-9)
    assert np.isneginf(LogMean.of(np.array([0.0, 800.0])).jackknife_bias)


def replicated(
    obj: Objective, kind: str, seed: int, tau: float, alone: bool, spread: float = 1.0, **more: Any
) -> tuple[SampledGap, float]:
    """Many independent estimates of one gap, and the gap."""
    rng = np.random.default_rng(seed)
    p, q, ref = laws.random_law(rng, (3, 8), spread)
    r, u = obj.reward(p, q), np.log(p / q)
    if kind == "saddle":
        r = r * rng.uniform(0.5, 1.0, 8)
    shape = (REPLICATIONS, RESPONSES)
    own, base, expert = (rng.choice(8, shape, p=law) for law in (q, ref, p))
    given_ = {"own_ratio": u[own], "expert_ratio": u[expert]} if kind == "saddle" else {}
    found = sampled_gap(
        obj, tau, r[own], np.log(q / ref)[own], None if alone else r[base],
        r[expert] if kind == "saddle" else None, kind=kind, **given_, **more,
    )  # fmt: skip
    exact = exact_gap(obj, kind, q, ref, r, tau)
    if kind == "saddle":
        exact = exact + reward_gain(obj, p, q, r).sum()
    return found, float(exact)


def off(share: float) -> float:
    """Four standard errors of a share of so many replications."""
    return 4 * float(np.sqrt(share * (1 - share) / REPLICATIONS))


@pytest.mark.claim("T10.sampled_gap", regime="dynamics", of="runs")
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    ("obj", "kind"),
    [(SPIF, "saddle"), (objectives.get("gail"), "saddle"), (SPIN, "equilibrium")],
    ids=["spif", "gail", "spin"],
)
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_intervals_cover_the_gap(claim, obj: Objective, kind: str, tau: float, alone) -> None:
    for seed in range(2):
        found, exact = replicated(obj, kind, seed, tau, alone, spread=0.6)
        kept = found.trusted
        claim.exhibits(kept.mean(), 0.99, what="share of estimates that are given")
        for level in (0.8, 0.95):
            low, high = found.gap.interval(level)
            covered = ((low <= exact) & (exact <= high))[kept].mean()
            claim.close(covered, level, off(level), because="sampling", what=f"coverage at {level}")
        error = (found.gap.value[kept].mean() - exact) / found.gap.standard_error[kept].mean()
        claim.close(error, 0.0, 4 / np.sqrt(kept.sum()), because="sampling",
                    what="mean error in standard errors")  # fmt: skip


@pytest.mark.claim("T10.sampled_gap", regime="dynamics", drops="enough_weight", of="runs")
def test_heavy_weights_are_refused_and_would_not_cover(claim) -> None:
    """Log-normal weights of 3.5 nats: the plug-in misses most of the mean, its error too."""
    rng = np.random.default_rng(0)
    shape = (400, 300)
    x = 3.5 * rng.standard_normal(shape)
    own = {"own_reward": 0 * x + rng.standard_normal(shape), "own_anchor": 0 * x}
    for least, refused in ((100.0, True), (1.0, False)):
        # blind to the own side: its weights are of another size
        found = sampled_gap("iq_learn", 1.0, ref_reward=x, least_size=least, kind="saddle", **own)
        if refused:
            claim.exhibits(1 - found.trusted.mean(), 0.99, what="share refused")
            assert np.isnan(found.gap.value[~found.trusted]).all()
            assert "an effective size of the weights below 100" in found.status
    log_mean = LogMean.of(x)
    truth = 3.5**2 / 2
    near = np.abs(log_mean.value - log_mean.bias - truth) <= 1.96 * log_mean.error
    claim.exhibits(0.95 - near.mean(), 0.15, what="95 % less the coverage, weights unlooked at")


def test_reference_weights_that_no_sample_met_are_seen_on_own_responses() -> None:
    """An outcome of reference mass 1e-6 that the reward makes most of what the policy does."""
    ref = np.array([0.5, 0.5 - 1e-6, 1e-6])
    r = np.array([0.0, 0.1, 14.0])
    weight = ref * np.exp(r)
    q = weight / weight.sum()
    rng = np.random.default_rng(0)
    own, base = (rng.choice(3, 2000, p=law) for law in (q, ref))
    found = sampled_gap("iq_learn", 1.0, r[own], np.log(q / ref)[own], r[base])
    assert found.effective_size > 1900
    assert not found.trusted
    assert "disagree" in found.status
    assert np.isnan(found.interval).all()
    alone = sampled_gap("iq_learn", 1.0, r[own], np.log(q / ref)[own])
    assert alone.trusted
    assert abs(alone.gap.value) < 1e-12
    assert "own responses alone" in alone.status


def test_upper_limit_of_the_distance() -> None:
    """One-sided, from gap and anchor, and the slope of the link in the rounds' problem."""
    for obj, kind, mu in ((SPIF, "saddle", 0.0), (SPIN, "equilibrium", 1.0)):
        found, _ = replicated(obj, kind, 0, 1.0, False, level=0.9)
        upper = found.gap.value + 1.2815515655446004 * found.gap.standard_error
        np.testing.assert_allclose(found.distance, upper / (1.0 + mu), rtol=1e-9)
        rng = np.random.default_rng(0)
        p, q, ref = laws.random_law(rng, (3, 8), 1.0)
        solve = saddle_point if kind == "saddle" else equilibrium
        apart = laws.kl(q, solve(p, ref, obj, tau=1.0).policy)
        assert (found.distance >= apart).mean() >= 0.9


def test_without_the_reward_player_s_part_there_is_no_distance() -> None:
    found = sampled_gap("spif", 1.0, [0.1, 0.2, 0.0], [0.0, 0.1, -0.1], [0.1, 0.0], least_size=1)
    assert np.isnan([found.distance, found.reward_gap.value, found.value.value]).all()
    assert found.gap == found.policy_gap
    assert np.isnan(found.kl_to_expert.value)


def test_without_an_anchor_the_highest_reward_is_needed() -> None:
    r = np.array([0.2, -0.5, 0.1, 0.4])
    found = sampled_gap("iq_learn", 0.0, r, highest=0.5)
    assert found.gap.value == pytest.approx(0.5 - r.mean())
    assert found.gap.standard_error == pytest.approx(r.std(ddof=1) / 2)
    assert (found.bias, found.effective_size) == (0.0, 4.0)
    assert found.trusted
    rounds = sampled_gap("spin", 0.0, r, highest=0.5, kind="equilibrium")
    assert rounds.distance == pytest.approx(rounds.gap.interval(0.9)[1])  # over mu = 1
    bounded = sampled_gap("spif", 0.0, r, highest=1.0)  # b(1) = -1.5
    assert bounded.gap.value == pytest.approx(1.5 + np.mean(-r - 0.5 * r**2))


def test_rewards_outside_of_the_game_are_refused() -> None:
    """The reward player of the IPM may not play 10, so no gap can be certified with it."""
    rng = np.random.default_rng(0)
    p, ref, tau, r = np.array([0.9, 0.1]), np.array([0.1, 0.9]), 10.0, np.array([10.0, -10.0])
    pi = ref * np.exp(r / tau)
    pi /= pi.sum()
    own, base, expert = (rng.choice(2, 500, p=law) for law in (pi, ref, p))
    for name, found in (("own", own), ("ref", base), ("expert", expert)):
        given = {f"{n}_reward": np.clip(r, -1, 1)[x] for n, x in
                 (("own", own), ("ref", base), ("expert", expert))}  # fmt: skip
        given[f"{name}_reward"] = r[found]
        with pytest.raises(InvalidInput, match=rf"{name}_reward: -10 to 10; .*\[-1, 1\]"):
            sampled_gap("ipm", tau, own_anchor=np.log(pi / ref)[own], **given)
    with pytest.raises(InvalidInput, match="highest: 3 to 3"):
        sampled_gap("ipm", 0.0, np.zeros(10), highest=3.0)


def test_at_no_anchor_the_highest_reward_must_be_paid_most() -> None:
    """SPIF pays -b(r) = r + r^2/2, which falls below -1: 7.5 for -5, and 0 for 0."""
    for r in (np.full(300, -5.0), np.array([-5.0, 0.0] * 100)):
        with pytest.raises(InvalidInput, match=r"highest=0\.0 is paid 0 and .* given 7\.5"):
            sampled_gap("spif", 0.0, r, highest=0.0)
    assert sampled_gap("spif", 0.0, np.linspace(-1.0, 0.0, 200), highest=0.0).trusted


def test_prompts_are_estimated_each() -> None:
    rng = np.random.default_rng(0)
    own, anchor = rng.uniform(-1, 1, (2, 3, 50))
    ref, expert = rng.uniform(-1, 1, (2, 3, 40))
    ratio = rng.uniform(-1, 1, (3, 50))
    given_: dict[str, Any] = {"own_ratio": ratio, "expert_ratio": expert}
    every = sampled_gap("spif", 2.0, own, anchor, ref, expert, **given_, least_size=1)
    for i in range(3):
        one = sampled_gap("spif", 2.0, own[i], anchor[i], ref[i], expert[i], own_ratio=ratio[i],
                          expert_ratio=expert[i], least_size=1)  # fmt: skip
        for name in ("gap", "value", "policy_gap", "reward_gap", "kl_to_expert"):
            many, single = (np.stack(getattr(x, name)) for x in (every, one))
            np.testing.assert_allclose(many[:, i], single, rtol=1e-12)
        for name in ("bias", "jackknife_bias", "effective_size", "distance"):
            np.testing.assert_allclose(getattr(every, name)[i], getattr(one, name), rtol=1e-12)
    shared = sampled_gap("spif", 2.0, own, anchor, ref[0], least_size=1)
    again = sampled_gap("spif", 2.0, own[1], anchor[1], ref[0], least_size=1)
    assert shared.gap.value[1] == pytest.approx(again.gap.value)
    some = sampled_gap("spif", 2.0, own, anchor, np.stack([ref[0], 60 * ref[1], ref[2]]) / 2,
                       least_size=30, kind="equilibrium")  # fmt: skip
    assert some.trusted.tolist() == [True, False, True]
    assert "refused at 1 of 3 prompts, the first (1,)" in some.status


GOOD: dict[str, Any] = {
    "own_reward": [0.1, 0.2],
    "own_anchor": [0.0, 0.1],
    "ref_reward": [0.3, 0.1],
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tau": -1.0}, "tau=-1.0"),
        ({"tau": 0.0}, "tau=0 with highest=None; needed is the largest reward"),
        ({"tau": 0.0, "highest": 0.25}, "highest=0.25 is below a reward that was given, 0.3"),
        ({"own_anchor": None}, "tau=1.0 needs own_anchor"),
        ({"own_reward": None}, "own_reward: missing"),
        ({"own_reward": [0.1]}, r"own_reward: shape \(1,\); needed are two"),
        ({"own_reward": [0.1, 0.2, 0.3]}, "own responses differ in number"),
        ({"ref_reward": [[0.1, np.nan]]}, r"ref_reward: nan at \(0, 1\); needed are finite"),
        ({"ref_reward": "high"}, "ref_reward: not an array of numbers"),
        ({"ref_reward": np.ones((2, 3)), "expert_reward": np.ones((3, 3))}, "do not broadcast"),
        ({"level": 1.0}, "level=1.0"),
        ({"least_size": 0}, "least_size=0"),
        ({"kind": "nash", "level": None}, "(?s)level=None.*kind='nash'"),
        (
            {"obj": "gail", "expert_reward": [-1.0, 1.0]},
            r"expert_reward: -1 to 1; .* within \[0, inf\]",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        sampled_gap(**({"obj": "spif", "tau": 1.0} | GOOD | wrong))


def test_objectives_without_a_game_or_a_potential_are_refused() -> None:
    for obj, kind, said in (
        ("spin", "saddle", "no saddle"),
        ("ipo", "equilibrium", "no potential"),
    ):
        with pytest.raises(Unavailable, match=said):
            sampled_gap(obj, 1.0, **GOOD, kind=kind)


def test_every_leading_axis_must_agree() -> None:
    """The first one alone is not enough."""
    with pytest.raises(InvalidInput, match=r"own_reward.*\(2, 3\).*\(2, 4\)"):
        sampled_gap("spif", 1.0, np.zeros((2, 3, 50)), np.zeros((2, 4, 50)))

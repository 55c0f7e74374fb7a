"""T8 and T9: SPIF's and IPO's rounds are bounded, stable further out, and slower far away."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import brentq

from tests.theory.strategies import Instance, games, label
from theory import laws, objectives, self_play
from theory.result import FloatArray
from theory.rounds.predictions import spif_descent, spif_reach
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

SPIF = [objectives.get("spif", c=1.0), objectives.get("centred_spif", c=0.5)]


@pytest.mark.parametrize("obj", SPIF, ids=label)
@pytest.mark.claim("T8.bounded", regime="tabular")
@given(game=games(max_spread=30.0), beta=st.floats(0.02, 10.0), disjoint=st.booleans())
def test_rewards_and_steps_are_bounded(
    claim, obj, game: Instance, beta: float, disjoint: bool
) -> None:
    """(a): |c r| <= 1 and |log pi_{t+1}/pi_t| <= 2/(beta c), disjoint supports included."""
    p, q = game.expert, game.start
    if disjoint:
        left = np.arange(p.shape[-1]) % 2 == 0
        p = np.where(left, p, 0.0) / np.where(left, p, 0.0).sum(-1, keepdims=True)
        q = np.where(left, 0.0, q) / np.where(left, 0.0, q).sum(-1, keepdims=True)
    path = self_play(p, q, obj, beta=beta, rounds=3)
    reward = reward_of_log_laws(obj, laws.log_law(p), laws.log_law(q))
    claim.below(obj.c * np.abs(reward), 1.0, atol=1e-15, what="c |r| on any data")
    live = q > 0
    change = np.where(live, laws.log_ratio(path.policies[1], np.where(live, q, 1.0)), 0.0)
    claim.below(
        np.abs(change), 2 / (beta * obj.c), atol=1e-12 * (1 + 1 / beta), what="|log pi_1/pi_0|"
    )


@pytest.mark.parametrize("obj", SPIF, ids=label)
@pytest.mark.claim("T8.descends", regime="tabular")
@given(game=games(), eta=st.floats(0.05, 3.76))
def test_global_convergence(claim, obj, game: Instance, eta: float) -> None:
    """(b): KL falls by kappa Delta, and contracts linearly from M_0 or the reach on."""
    path = self_play(game.expert, game.start, obj, beta=1 / (eta * obj.c), rounds=8)
    kl = path.details["kl"]
    delta = laws.triangular(game.expert, path.policies)
    largest = (game.expert / path.policies).max(-1)
    tiny, kappa = 1e-12 * (1 + kl[0].max()), spif_descent(eta)
    claim.below(kl[1:], kl[:-1] - kappa * delta[:-1], atol=tiny, what="KL descent")
    if eta <= 2:
        claim.below(largest[1:], largest[:-1] * (1 + 1e-12), what="M_{t+1} <= M_t")
        claim.below(eta * (1 - eta / 2), kappa, what="eta(1 - eta/2) against kappa", atol=1e-12)
        most = largest[0]
    else:
        most = np.maximum(largest[0], np.exp(spif_reach(eta).above))
    rounds = np.arange(len(kl))[:, None]
    bound = (1 - kappa / (1 + most)) ** rounds * kl[0]
    claim.below(kl, bound, atol=tiny, what="KL_T <= rate^T KL_0")


def rare(t: float, mass: float = 1e-5) -> tuple[FloatArray, FloatArray]:
    """Expert and start that differ by one rare outcome of ``(p - q)/(p + q) = t``."""
    p, q = mass * (1 + t), mass * (1 - t)
    return np.array([p, 1 - p]), np.array([q, 1 - q])


def fall(eta: float, t: float) -> float:
    """What a round takes off KL, in units of Delta."""
    p, q = rare(t)
    after = self_play(p, q, SPIF[0], beta=1 / eta, rounds=1).policy
    fallen = laws.kl_stable(p, q) - laws.kl_stable(p, after)
    return float(fallen / laws.triangular(p, q))


@pytest.mark.claim("T8.descends", regime="tabular")
def test_the_descent_is_attained(claim) -> None:
    """(b): to 1 % by one rare outcome; kappa in closed form, and where it ends."""
    for eta in (0.5, 1.5, 2.5, 3.3, 3.6):
        falls = [fall(eta, t) for t in np.linspace(-0.9999, 0.9, 381)]
        claim.close(min(falls), spif_descent(eta), 0.0, rtol=1e-2, because="expansion",
                    what="least fall of KL over Delta")  # fmt: skip
    for eta in (0.1, 1.0, 2.14):
        claim.close(spif_descent(eta), -np.expm1(-eta), 1e-9, what="kappa = 1 - e^-eta")
    claim.exhibits(-np.expm1(-2.2) - spif_descent(2.2), 1e-4, what="less than that at 2.2")
    edge = brentq(spif_descent, 3.5, 3.9, xtol=1e-10)
    claim.close(edge, 3.7680, 5e-5, because="theory", what="eta at which kappa is 0")


@pytest.mark.claim("T8.descends", regime="tabular", drops="monotone_step")
def test_beyond_it_kl_can_grow_next_to_the_expert(claim) -> None:
    """Locally stable up to 4, and yet a rare outcome makes KL grow by .2 Delta in a round."""
    growth = -min(fall(3.9, t) for t in np.linspace(0.05, 0.9, 86))
    claim.exhibits(growth, 0.2, what="growth of KL over Delta at eta = 3.9")


@pytest.mark.parametrize("obj", SPIF, ids=label)
@pytest.mark.claim("T8.bounded_failure", regime="tabular")
@given(game=games(max_n=20, max_spread=1.0), eta=st.floats(4.2, 7.0))
def test_beyond_the_threshold_it_cycles_in_bounds(claim, obj, game: Instance, eta: float) -> None:
    """(c), (d): eta > 4 leaves the expert, but late iterates stay within the reach, below 2 eta."""
    assume(laws.total_variation(game.expert, game.start).min() > 1e-3)
    path = self_play(game.expert, game.start, obj, beta=1 / (eta * obj.c), rounds=800)
    late = path.details["max_logratio"][-200:]
    claim.exhibits(late.max(0), at_least=0.02, what="late max |u|: it does not settle")
    u = laws.log_ratio(game.expert, path.policies[-200:])
    reach = spif_reach(eta)
    claim.below(u.max((0, -1)), reach.above, what="late max u against B*")
    claim.below(-u.min((0, -1)), reach.below, what="late max -u")
    assert max(reach) < 2 * eta


@pytest.mark.claim("T8.reach", regime="tabular")
@pytest.mark.parametrize(
    ("eta", "n", "attained"), [(8.0, 6, 0.97), (12.0, 6, 0.99), (20.0, 6, 0.99)]
)
def test_the_reach_is_attained(claim, eta: float, n: int, attained: float) -> None:
    """(d): B* = G + eta s - 2 artanh s is the sharp constant; 2 eta is a fifth or more above it."""
    p, q = laws.random_law(np.random.default_rng(12), (2, 40, n), 1.0)
    u = laws.log_ratio(p, self_play(p, q, SPIF[0], beta=1 / eta, rounds=900).policies[400:])
    x, s = np.exp(np.linspace(1e-3, 12.0, 200_001)), np.sqrt(1 - 2 / eta)
    envelope = np.logaddexp(eta * (x - 1) / (x + 1) - np.log(x), np.log1p(-1 / x) - eta)
    by_hand = envelope.max() + eta * s - 2 * np.arctanh(s)
    claim.close(spif_reach(eta).above, by_hand, 1e-7, what="B* by hand")
    claim.below(u.max(), by_hand, what="late max u against B*")
    claim.exhibits(u.max() / by_hand, attained, what="late max u over B*")
    claim.below(-u.min(), spif_reach(eta).below, what="late max -u")


@pytest.mark.claim("T8.reach", regime="tabular")
def test_the_reach_from_below(claim) -> None:
    """It is less than that from above, and no pair of laws of ratio below e^{B*} has less Z."""
    for eta in (1.7, 2.5, 4.0, 8.0, 30.0, 200.0):
        above, below = spif_reach(eta)
        claim.below(below, above, what="reach below against above")
        claim.below(above, 2 * eta, what="B* against 2 eta")
    assert spif_reach(1.59) == (0.0, 0.0)
    eta, (above, below) = 6.0, spif_reach(6.0)
    s = np.sqrt(1 - 2 / eta)
    least = below - (eta * s - 2 * np.arctanh(s))  # -inf log Z
    low, high = np.linspace(0.0, 0.999, 1001)[:, None], np.exp(np.linspace(1e-3, above, 301))
    share = (1 - low) / (high - low)  # two ratios of mean one under q
    ratios = [np.exp(eta * (x - 1) / (x + 1)) for x in (low, high)]
    z = (1 - share) * ratios[0] + share * ratios[1]
    claim.close(
        -np.log(z.min()),
        least,
        1e-4,
        what="-inf log Z over pairs of two outcomes",
        because="expansion",
    )


def lyapunov(eta: float, seed: int, n: int = 50, burn_in: int = 500, rounds: int = 600) -> float:
    """Largest Lyapunov exponent (nats a round) of SPIF's rounds, by a shadow orbit 1e-9 apart."""
    rng = np.random.default_rng(seed)
    spif, p, q = objectives.get("spif", c=1.0), *laws.random_law(rng, (2, n))
    orbit = np.log(self_play(p, q, spif, beta=1 / eta, rounds=burn_in).policy)
    log_p = np.log(p)

    def step(x: FloatArray) -> FloatArray:
        return gibbs_step(x, reward_of_log_laws(spif, log_p, x), 1 / eta, None, 0.0)

    offset, total = 1e-9 * rng.standard_normal(n), 0.0
    size = np.linalg.norm(offset)
    for _ in range(rounds):
        shadow, orbit = step(orbit + offset), step(orbit)
        offset = shadow - orbit
        grown = np.linalg.norm(offset)
        total += np.log(grown / size)
        offset *= size / grown
    return float(total / rounds)


@pytest.mark.claim("T8.bounded_failure", regime="tabular")
def test_far_beyond_the_threshold_it_is_chaotic(claim) -> None:
    """(d): at eta = 8 (n = 50) the Lyapunov exponent is positive, about +0.39; at 3 negative."""
    chaotic = [lyapunov(8.0, seed) for seed in range(3)]
    claim.exhibits(chaotic, at_least=0.3, what="Lyapunov exponent at eta = 8 (nats a round)")
    mean, quoted = np.mean(chaotic), 0.39
    claim.close(mean, quoted, atol=0.05, what="mean Lyapunov exponent at eta = 8", because="chosen")
    settled = lyapunov(3.0, 0, burn_in=5, rounds=40)
    claim.below(settled, -0.3, what="exponent at eta = 3", because="chosen")


@pytest.mark.claim("T8.burn_in", regime="tabular")
@given(game=games(max_n=30, max_spread=12.0), eta=st.floats(0.1, 1.59))
def test_burn_in(claim, game: Instance, eta: float) -> None:
    """(e): the largest log-ratio falls by at most 2 eta and, above 4, at least 0.96 eta a round.

    So a burn-in to O(1) takes between 1/2 and about 1 times beta c max u_0 rounds. This is the
    time of the largest log-ratio: KL can be O(1) earlier, where that outcome has little mass.
    """
    u_0 = laws.log_ratio(game.expert, game.start).max(-1)
    rounds = int(np.ceil(u_0.max() / (0.96 * eta))) + 1
    path = self_play(game.expert, game.start, SPIF[0], beta=1 / eta, rounds=rounds)
    u = laws.log_ratio(game.expert, path.policies).max(-1)
    taken = (u > 4.0).sum(0)
    claim.below(
        (u_0 - 4.0) / (2 * eta), taken, atol=1e-9, what="burn-in is at least (u_0 - 4)/2eta"
    )
    claim.below(taken, np.maximum(u_0 / (np.tanh(2.0) * eta), 0.0) + 1, what="burn-in is at most")


@pytest.mark.claim("T8.slower_far_away", regime="tabular")
@given(spread=st.floats(20.0, 60.0))
def test_far_away_spif_is_slower_than_spin(claim, spread: float) -> None:
    """(e): at matched effective step 1, SPIN is done in one round and SPIF needs its burn-in."""
    p = np.array([0.5, 0.5])
    q = np.array([1.0, np.exp(-spread)]) / (1 + np.exp(-spread))
    spif = self_play(p, q, SPIF[0], beta=0.5, rounds=int(spread))
    spin = self_play(p, q, objectives.get("spin"), beta=1.0, rounds=1)
    claim.below(spin.details["kl"][1], 1e-12, what="SPIN's KL after one round")
    rounds = float((spif.details["kl"] > 1.0).sum())
    # KL = log 0.5 + s/2 + log(1 + e^-s) for odds e^s, and a round takes at most 2 eta = 4 of s
    least = (spread - 2.0 * (1.0 + np.log(2.0))) / 4.0
    what = "SPIF's rounds to KL <= 1, per nat of u_0"
    claim.exhibits(rounds / spread, at_least=least / spread, what=what, because="theory")


@pytest.mark.claim("T8.general_alpha", regime="tabular")
@given(game=games(), alpha=st.floats(0.1, 0.9), share=st.floats(0.2, 1.0))
def test_general_alpha(claim, game: Instance, alpha: float, share: float) -> None:
    """T6 (i)-(iii) for eta <= 8 alpha (1 - alpha); bounds -1/(2c(1-alpha)) and 1/(2c alpha)."""
    obj = objectives.get("spif", c=1.0, alpha=alpha)
    beta = 1 / (8 * alpha * (1 - alpha) * share)
    path = self_play(game.expert, game.start, obj, beta=beta, rounds=5)
    potential = np.stack([obj.potential(policy, game.expert) for policy in path.policies])
    claim.below(potential[1:], potential[:-1], atol=1e-12, what="D_Phi decreases")
    kl = path.details["kl"]
    claim.below(
        kl[1:], kl[:-1] - potential[1:] / beta, atol=1e-11 * (1 + kl[0].max()), what="(iii)"
    )
    claim.below(path.reward, 1 / (2 * alpha), atol=1e-14, what="r <= 1/(2 c alpha)")
    claim.below(-path.reward, 1 / (2 * (1 - alpha)), atol=1e-14, what="-r <= 1/(2c(1-alpha))")


# --- T9: the pairwise squared loss -----------------------------------------------------------


@pytest.mark.claim("T9.link", "T9.meter", regime="tabular")
@given(game=games(), margin=st.floats(0.1, 5.0))
def test_ipo_gain_and_meters(claim, game: Instance, margin: float) -> None:
    """kappa = m/(1 + Delta/2) solves IPO's normal equations; its minimal loss reads off Delta."""
    p, q = game.expert, game.start
    ipo = objectives.get("ipo", margin=margin)
    delta = laws.triangular(p, q)
    # normal equations of min E_{p x q} (r-r"-m)^2: (p+q) r - p (m + E_q r) - q (E_p r - m) = 0
    r = (margin / (1 + delta / 2))[:, None] * np.tanh(laws.log_ratio(p, q) / 2)
    residual = (p + q) * r - p * (margin + (q * r).sum(-1, keepdims=True))
    residual -= q * ((p * r).sum(-1, keepdims=True) - margin)
    claim.close(residual, 0.0, atol=1e-13 * margin, what="normal equations at kappa tanh(u/2)")
    reward = ipo.reward(p, q)
    claim.close(
        np.ptp(reward - r, axis=-1), 0.0, atol=1e-12 * margin, what="reward up to a constant"
    )
    loss = ipo.risk(reward, reward, 1.0, p, q)
    predicted = margin**2 * (2 - delta) / (2 + delta)
    claim.close(loss, predicted, atol=1e-12 * margin**2, what="minimal loss m^2 (2-D)/(2+D)")
    spif = objectives.get("spif", c=1.0)
    best = spif.reward(p, q)
    claim.close(spif.value(p, q, best), delta / 2, atol=1e-13, what="SPIF's value Delta/(2c)")


@pytest.mark.claim("T9.descends", regime="tabular")
@given(game=games(), margin=st.floats(0.2, 3.0), step=st.floats(0.05, 1.0))
def test_ipo_rounds_descend(claim, game: Instance, margin: float, step: float) -> None:
    """For beta >= m/2, with the adaptive step kappa_t/beta on 2 KL(p||(p+pi)/2)."""
    beta = margin / (2 * step)
    path = self_play(game.expert, game.start, objectives.get("ipo", margin=margin), beta, rounds=6)
    kl = path.details["kl"]
    delta = laws.triangular(game.expert, path.policies)
    kappa = margin / (1 + delta / 2)
    middle = 0.5 * (game.expert + path.policies)
    potential = 2 * laws.kl_stable(game.expert, middle)
    bound = kl[:-1] - kappa[:-1] / beta * potential[1:]
    claim.below(kl[1:], bound, atol=1e-11 * (1 + kl[0].max()), what="KL descent, step kappa_t/beta")
    claim.below(potential[1:], potential[:-1], atol=1e-12, what="2 KL(p||(p+pi)/2) decreases")


@pytest.mark.claim("T9.descends", regime="tabular")
@given(game=games(), margin=st.floats(0.2, 3.0), eta=st.floats(0.05, 3.76))
def test_kl_of_ipo_rounds_is_monotone(claim, game: Instance, margin: float, eta: float) -> None:
    """T8 b at the step kappa_t/beta <= eta: it falls by what that says, from everywhere."""
    ipo, beta = objectives.get("ipo", margin=margin), margin / eta
    path = self_play(game.expert, game.start, ipo, beta, rounds=6)
    kl, delta = path.details["kl"], laws.triangular(game.expert, path.policies)
    steps = eta / (1 + delta[:-1] / 2)
    kappa = np.vectorize(spif_descent)(steps)
    claim.below(kl[1:], kl[:-1] - kappa * delta[:-1], atol=1e-12 * (1 + kl[0].max()), what="KL")
    claim.below(0.0, kappa.min(), what="0 against kappa")


@pytest.mark.claim("T9.local_rate", regime="tabular")
@given(game=games(), margin=st.floats(0.2, 3.0), beta=st.floats(0.1, 4.0))
def test_ipo_local_rate(claim, game: Instance, margin: float, beta: float) -> None:
    """Log-ratios near the expert contract by 1 - m/(2 beta): stable iff beta > m/4."""
    p = game.expert
    start = p * np.exp(1e-6 * game.rng.standard_normal(p.shape))
    start /= start.sum(-1, keepdims=True)
    path = self_play(p, start, objectives.get("ipo", margin=margin), beta=beta, rounds=1)
    before, after = (laws.log_ratio(p, policy) for policy in path.policies)
    centred = after - (p * after).sum(-1, keepdims=True)
    expected = (1 - margin / (2 * beta)) * (before - (p * before).sum(-1, keepdims=True))
    claim.close(centred, expected, atol=1e-10 * (1 + margin / beta), what="log-ratio after a round")


@pytest.mark.claim("T9.cycles", regime="tabular")
@given(game=games(max_spread=1.0), below=st.floats(0.6, 0.95))
def test_ipo_below_its_threshold_cycles_in_bounds(claim, game: Instance, below: float) -> None:
    assume(laws.total_variation(game.expert, game.start).min() > 1e-3)
    path = self_play(
        game.expert, game.start, objectives.get("ipo", margin=1.0), beta=below / 4, rounds=800
    )
    late = path.details["max_logratio"][-200:]
    claim.exhibits(late.max(0), at_least=0.02, what="late max |u|: it does not settle")
    # kappa <= m in every round, and what SPIF's rounds reach (T8d) grows with the step
    reach = max(spif_reach(4.0 / below))
    claim.below(
        late.max(0), np.full(late.max(0).shape, reach), what="late max |u| within B*(m/beta)"
    )

"""T6 (vii, viii), learned rewards: the identities behind rounds with errors, by algebra."""

import pytest
import sympy as sp

from tests.theory.symbolic.algebra import array, constant, equal, exact, symbolic, vanishes, weights
from theory.rounds import two_step as rounds

BETA, TAU, A, PULL = sp.symbols("beta tau a m", positive=True)
NAMES = ["spin", "spif", "iq_learn", "gail", "exponential"]


def laws_of_three(*names):
    """Laws of three outcomes, weights divided by their sum."""
    return [w / sum(w) for w in (weights(name, 3) for name in names)]


def logs(*of):
    return [array(*map(sp.log, law)) for law in of]


def kl(first, second):
    return sum(a * sp.log(a / b) for a, b in zip(first, second, strict=True))


def lifted(law, error, pull):
    """``law e^{error/pull}`` normalised, and the logarithm of what it is divided by."""
    weight = law * array(*(sp.exp(e / pull) for e in error))
    return weight / sum(weight), sp.log(sum(weight))


@pytest.mark.claim("T6.inexact_last", regime="symbolic")
def test_what_an_error_can_gain_against_a_kl(claim):
    """<e, pi - z> - m KL(pi||z) is m log E_z e^{e - E_z e} less a KL: its largest value."""
    policy, z = laws_of_three("q", "z")
    error = array(*sp.symbols("e1:4", real=True))
    best, log_z = lifted(z, error, PULL)
    gained = sum(error * (policy - z)) - PULL * kl(policy, z)
    most = PULL * log_z - sum(error * z)
    difference = gained - (most - PULL * kl(policy, best))
    claim.exact(vanishes(sp.expand_log(difference, force=True)), "Donsker-Varadhan")


@pytest.mark.claim("T6.inexact_last", regime="symbolic")
def test_spin_with_an_error_that_stays_rests_where_the_bound_ends(claim):
    p, ref = weights("p", 3), weights("f", 3)
    error = array(*sp.symbols("e1:4", real=True))
    anchored = p ** (1 / (1 + TAU)) * ref ** (TAU / (1 + TAU))
    target = anchored / sum(anchored)
    rest, log_z = lifted(target, error, 1 + TAU)
    reward = array(*(symbolic("spin").link(u, None) for u in logs(p)[0] - logs(rest)[0]))
    moved = rounds.gibbs_step(logs(rest)[0], reward + error, BETA, logs(ref)[0], TAU)
    moved = moved - logs(rest)[0]
    claim.exact(equal(moved[1:], moved[0]), "a round with the error leaves it")
    floor = log_z - sum(target * error) / (1 + TAU)
    distance = sp.expand_log(kl(target, rest) - floor, force=True)
    claim.exact(vanishes(distance), "KL(pi*||.) there is log E e^{(e - E e)/(1 + tau)}")


@pytest.mark.claim("T6.learned_reward", regime="symbolic")
@pytest.mark.parametrize("name", NAMES)
def test_a_reward_with_a_slope_is_a_round_at_another_beta(name, claim):
    obj = symbolic(name)
    p, q, ref = weights("p", 3), weights("q", 3), weights("f", 3)
    error = array(*sp.symbols("e1:4", real=True))
    reward = array(*(exact(obj.link(u, None)) for u in logs(p)[0] - logs(q)[0]))
    log_q, log_ref = logs(q, ref)
    learned = rounds.gibbs_step(log_q, A * reward + error, BETA, log_ref, TAU)
    scaled = rounds.gibbs_step(log_q, reward + error / A, BETA / A, log_ref, TAU / A)
    difference = learned - scaled
    claim.exact(equal(difference[1:], difference[0]), "beta/a, tau/a, e/a")
    without = rounds.gibbs_step(log_q, A * reward, BETA, log_ref, TAU)
    left = learned - without - error / (BETA + TAU)
    claim.exact(equal(left[1:], left[0]), "log-ratios move by e/(beta + tau)")


@pytest.mark.claim("T6.error_spread", regime="symbolic")
def test_stationary_variances(claim):
    """x' = g x + n with n' = k n + fresh: the second moments rest there."""
    g, k, var = sp.symbols("g k v", positive=True)
    x_n = k * var / (1 - g * k)  # E x_t n_t
    x_x = var * (1 + g * k) / ((1 - g * k) * (1 - g**2))
    claim.exact(vanishes(g * k * x_n + k * var - x_n), "E x n")
    claim.exact(vanishes(g**2 * x_x + 2 * g * x_n + var - x_x), "E x^2")
    s = sp.Symbol("s", positive=True)
    fresh = x_x.subs({k: 0, g: 1 - s})
    claim.exact(vanishes(fresh - var / (s * (2 - s))), "fresh errors: 1 - (1 - s)^2 = s(2 - s)")
    claim.exact(vanishes(x_x.subs(k, 1) - var / (1 - g) ** 2), "errors that stay: 1/(1 - g)^2")


@pytest.mark.claim("T6.any_step", regime="symbolic")
def test_change_of_kl_in_a_round_of_any_rewards(claim):
    z, q = laws_of_three("z", "q")
    reward = array(*sp.symbols("r1:4", real=True))
    after, log_z = lifted(q, reward, BETA)
    change = kl(z, after) - kl(z, q) - (log_z - sum(z * reward) / BETA)
    claim.exact(vanishes(sp.expand_log(change, force=True)), "-E_z r/beta + log E_q e^{r/beta}")
    log_step = rounds.gibbs_step(logs(q)[0], reward, BETA, None, 0)
    difference = log_step - logs(after)[0]
    claim.exact(equal(difference[1:], difference[0]), "it is the policy step")


@pytest.mark.claim("T6.any_step", regime="symbolic")
def test_hoeffding_s_constant(claim):
    """(log E e^{hX})'' is a variance, at most 1/4 for X in [0, 1], attained by two halves."""
    h, w = sp.symbols("h w", positive=True)
    log_mean = sp.log(1 - w + w * sp.exp(h))
    tilted = w * sp.exp(h) / (1 - w + w * sp.exp(h))
    variance = sp.diff(log_mean, h, 2)
    claim.exact(vanishes(variance - tilted * (1 - tilted)), "the variance at the tilted weight")
    claim.exact(vanishes(sp.Rational(1, 4) - variance - (tilted - sp.Rational(1, 2)) ** 2), "1/4")
    claim.exact(vanishes(variance.subs(w, sp.Rational(1, 2)).subs(h, 0) - sp.Rational(1, 4)), "at")


@pytest.mark.claim("T6.any_step", regime="symbolic")
def test_the_two_cycle_of_hard_bounded_rewards_attains_it(claim):
    """Log-odds +-B/beta about two equal outcomes: D_Phi over G^2/(8 beta) tends to 1."""
    b, x = sp.symbols("B x", positive=True)  # x = B/beta
    up = sp.exp(x) / (1 + sp.exp(x))
    total_variation = up - sp.Rational(1, 2)
    q = array(up, 1 - up)
    reward = array(-b, b)
    after = rounds.gibbs_step(logs(q)[0], reward, b / x, None, 0)
    claim.exact(vanishes(after[0] - after[1] + x), "a round turns log-odds x into -x")
    ratio = 2 * b * total_variation / ((2 * b) ** 2 / (8 * b / x))
    claim.exact(sp.limit(ratio, x, 0) == 1, "2B TV over (2B)^2/(8 beta)")
    claim.exact(constant(ratio, b), "whatever the bound")


@pytest.mark.claim("T6.any_step_anchored", regime="symbolic")
def test_change_of_kl_in_an_anchored_round(claim):
    """Both three-point identities in one: linear in both laws, whatever normalises them."""
    log_q, log_ref, reward, rest = (array(*sp.symbols(f"{n}1:3", real=True)) for n in "qfrs")
    star, after = (array(x, 1 - x) for x in sp.symbols("z w", positive=True))
    log_z, log_w = sp.symbols("log_z log_w", real=True)
    log_after = rounds.gibbs_step(log_q, reward, BETA, log_ref, TAU) - log_w
    log_star = log_ref + rest / TAU - log_z
    to_star = (BETA + TAU) * sum(star * (log_star - log_after))
    kept = BETA * sum(star * (log_star - log_q)) - BETA * sum(after * (log_after - log_q))
    kept = kept - TAU * sum(after * (log_after - log_star))
    paid = sum((after - star) * (reward - rest))
    claim.exact(
        vanishes(to_star - kept - paid),
        "(beta+tau) KL(z||pi') = beta KL(z||q) - beta KL(pi'||q) - tau KL(pi'||z) + <r-r*, pi'-z>",
    )

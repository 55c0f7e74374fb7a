"""T17: centred SPIF, exact and with finite groups; fixed points of the other pairwise methods."""

import itertools

import numpy as np
import pytest
import sympy as sp

from tests.theory.symbolic.algebra import array, exact, link, risk, symbolic, vanishes, weights
from theory import xp

P, Q, X, C, BETA, W = sp.symbols("p q x c beta w", positive=True)
MP, MQ, VP, VQ, BASE = sp.symbols("m_p m_q v_p v_q b", real=True)
HALF = sp.Rational(1, 2)
SIZES = (1, 2, 4)  # powers of two: 0.5 / 3 would be rounded


@pytest.mark.claim("T17.exact", regime="symbolic")
def test_centred_loss_is_spif_with_its_best_baseline(claim):
    obj = symbolic("centred_spif")
    p, q = weights("p", 2), weights("q", 2)
    r = array(*sp.symbols("r1:3", real=True))
    loss = risk(obj, r, p, q)
    mean = [sum(w * x for w, x in zip(law, r, strict=True)) / sum(law) for law in (p, q)]

    def written_out(base):
        sides = ((p, -1 / C), (q, 1 / C))
        squares = [
            sum(w * (x - base + t) ** 2 for w, x in zip(law, r, strict=True)) / sum(law)
            for law, t in sides
        ]
        return C * sum(squares) / 2

    baseline = sum(mean) / 2
    claim.exact(vanishes(loss - written_out(baseline)), "c (E_p(r-b-1/c)^2 + E_q(r-b+1/c)^2)/2")
    slope = sp.diff(written_out(BASE), BASE).subs(BASE, baseline)
    claim.exact(vanishes(slope), "b = (E_p r + E_q r)/2 is the best baseline")
    spif = symbolic("spif", alpha=HALF)
    gap = written_out(sp.S.Zero) - risk(spif, r, p, q) - 1 / C
    claim.exact(vanishes(gap), "without a baseline it is SPIF's loss + 1/c")
    claim.exact(vanishes(link(obj, X) - link(spif, X)), "and it has SPIF's link, tanh(u/2)/c")
    # jointly in (r, b): stationary at r - b = (p-q)/(c(p+q)), where the best b is b itself
    centred = link(obj, P / Q)
    both = P * (centred - 1 / C) + Q * (centred + 1 / C)
    claim.exact(vanishes(both), "for any number of outcomes")


def expected_risk(group, own):
    """E over samples of the code's group risk: a polynomial in the laws' means and variances."""
    y, o = sp.symbols(f"y1:{group + 1}", real=True), sp.symbols(f"o1:{own + 1}", real=True)
    loss = sp.Poly(
        exact(symbolic("centred_spif").group_risk(array(*y), array(*o), None, None)), *y, *o
    )
    total = sp.S.Zero
    for powers, coefficient in sp.Poly(loss, *y, *o).terms():
        term = coefficient
        for k, power in enumerate(powers):
            mean, variance = (MP, VP) if k < group else (MQ, VQ)
            term *= {0: 1, 1: mean, 2: mean**2 + variance}[power]
        total += term
    return sp.expand(total)


@pytest.mark.claim("T17.finite_groups", regime="symbolic")
@pytest.mark.parametrize(("group", "own"), list(itertools.product(SIZES, SIZES)))
def test_expected_loss_of_finite_groups(group, own, claim):
    a, b = HALF - sp.Rational(1, 4 * group), HALF - sp.Rational(1, 4 * own)
    predicted = C * (a * VP + b * VQ + ((MP - MQ) / 2 - 1 / C) ** 2)
    claim.exact(
        vanishes(expected_risk(group, own) - predicted),
        "(1/2 - 1/(4G)) Var_p + (1/2 - 1/(4K)) Var_q + (D/2 - 1/c)^2, for any laws",
    )


@pytest.mark.claim("T17.finite_groups", regime="symbolic")
def test_link_of_finite_groups(claim):
    a, b, chi = sp.symbols("A B chi", positive=True)  # chi = sum (p-q)^2/(A p + B q)
    share = a * b / (a + b)
    scale = 1 / (2 * C) / (1 + chi * (sp.Rational(1, 4) - share))
    r = scale * (P - Q) / (a * P + b * Q)
    spread = scale * chi  # E_p r - E_q r
    mean_p, mean_q = spread * b / (a + b), -spread * a / (a + b)  # A E_p r + B E_q r = 0
    gradient = 2 * a * P * (r - mean_p) + 2 * b * Q * (r - mean_q)
    gradient += (spread / 2 - 1 / C) * (P - Q)
    claim.exact(vanishes(gradient), "r = gain (p-q)/(A p + B q) is stationary")
    spif = link(symbolic("spif", alpha=a / (a + b)), P / Q)
    gain = 1 / ((a + b) * (1 + chi * (sp.Rational(1, 4) - share)))
    claim.exact(vanishes(r - gain * spif), "SPIF's link at alpha = A/(A+B) times a gain")
    claim.exact(vanishes(gain.subs({a: HALF, b: HALF}) - 1), "the gain is 1 for exact laws")
    own = sp.Symbol("K", positive=True)
    one = sp.Rational(1, 4)
    share_of_one = one / (one + HALF - 1 / (4 * own))
    claim.exact(vanishes(share_of_one - own / (3 * own - 1)), "G = 1: alpha = K/(3K-1)")
    delta = chi / 4  # A = B = 1/4
    ipo = link(symbolic("ipo", margin=2 / C), P / Q, delta)
    claim.exact(vanishes(r.subs({a: one, b: one}) - ipo), "G = K = 1: IPO's link with m = 2/c")
    y, o = sp.symbols("y o", real=True)
    loss = exact(symbolic("centred_spif").group_risk(array(y), array(o), None, None))
    pair = exact(symbolic("ipo", margin=2 / C).pair_loss(y - o))
    claim.exact(vanishes(loss - C * pair / 4), "and its loss, times c/4")


@pytest.mark.claim("T17.finite_groups", regime="symbolic")
def test_finite_group_gain_on_random_laws(claim):
    rng = np.random.default_rng(0)
    rewards = array(*sp.symbols("r1:5", real=True))
    for _ in range(4):
        group, own = (int(k) for k in rng.choice(SIZES, 2))
        laws = [[sp.Rational(int(k)) for k in rng.integers(1, 20, 4)] for _ in range(2)]
        p, q = ([k / sum(law) for k in law] for law in laws)
        a, b = HALF - sp.Rational(1, 4 * group), HALF - sp.Rational(1, 4 * own)
        means = [sum(w * r for w, r in zip(law, rewards, strict=True)) for law in (p, q)]
        second = [sum(w * r**2 for w, r in zip(law, rewards, strict=True)) for law in (p, q)]
        variances = [s - m**2 for s, m in zip(second, means, strict=True)]
        values = dict(zip((MP, MQ, VP, VQ), (*means, *variances), strict=True))
        loss = expected_risk(group, own).subs(values)
        chi = sum((x - y) ** 2 / (a * x + b * y) for x, y in zip(p, q, strict=True))
        scale = 1 / (2 * C) / (1 + chi * (sp.Rational(1, 4) - a * b / (a + b)))
        best = {r: scale * (x - y) / (a * x + b * y) for r, x, y in zip(rewards, p, q, strict=True)}
        claim.exact(
            all(vanishes(sp.diff(loss, r).subs(best)) for r in rewards),
            "the finite-group link is stationary (exact rational check, random laws, G, K <= 4)",
        )


@pytest.mark.claim("T15.fixed_point", regime="symbolic", drops="own_reference")
def test_reference_free_rounds_rest_away_from_the_expert(claim):
    # without history term: best response of the pairwise logistic loss in r = beta log pi
    rest = P ** (1 / (1 + BETA))
    best = link(symbolic("spin"), P / rest)
    claim.exact(vanishes(BETA * sp.log(rest) - best), "T-SPIN: p^(1/(1+beta)) rests, not p")


def test_history_term_of_tspin():
    obj, weight = symbolic("tspin"), sp.Symbol("history_weight", positive=True)
    y, own, first = sp.symbols("y own first", real=True)
    written = sp.log(1 + sp.exp(own - y)) + weight * sp.log(1 + sp.exp(first - own))
    assert vanishes(exact(obj.reward_loss(y, own, r_history=first)) - written), "its loss"
    rewards = array(*sp.symbols("r1:3", real=True))
    p, q, h = weights("p", 2), weights("q", 2), weights("h", 2)
    mean = sum(
        a * b * k * written.subs({y: i, own: j, first: z}, simultaneous=True)
        for a, i in zip(p, rewards, strict=True)
        for b, j in zip(q, rewards, strict=True)
        for k, z in zip(h, rewards, strict=True)
    )
    found = risk(obj, rewards, p, q, r_history=rewards, history_law=h)
    assert vanishes(found - mean / (sum(p) * sum(q) * sum(h))), "and its risk, over all three"


@pytest.mark.claim("T7.alpha_spin", regime="symbolic")
def test_alpha_spin_rests_between_expert_and_base(claim):
    share, base = sp.symbols("w base", positive=True)
    obj = symbolic("alpha_spin", base_weight=share)
    power = 1 / (1 - (1 - 1 / BETA) * (1 - share))
    log_rest = power * (sp.log(P) / BETA + (1 - 1 / BETA) * share * sp.log(base))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xp, "log_normalise", lambda x: x)  # a constant per prompt
        opponent = exact(obj.opponent(log_rest, sp.S.Zero, sp.log(base)))
    moved = opponent + exact(obj.link_formula(sp.log(P) - opponent, None)) / BETA
    claim.exact(vanishes(moved - log_rest), "(p^(1/beta) base^((1-1/beta) w))^power rests")
    weight = sp.diff(log_rest.expand(), P) * P + sp.diff(log_rest.expand(), base) * base
    claim.exact(vanishes(weight - 1), "the exponents add up to one")
    claim.exact(vanishes(log_rest.subs(BETA, 1) - sp.log(P)), "it is p at beta = 1")
    claim.exact(vanishes(log_rest.subs(base, P) - sp.log(P)), "and where the base is p")

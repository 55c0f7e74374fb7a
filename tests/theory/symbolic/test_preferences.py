"""T11, T12: preferences as another expert law, and what that costs in convergence."""

import numpy as np
import pytest
import sympy as sp

from tests.theory.symbolic.algebra import array, exact, link, symbolic, vanishes, weights
from theory import objectives

P, X, C, MARGIN, BETA, TAU = sp.symbols("P x c margin beta tau", positive=True)
D, R, SIGMA = sp.symbols("d r sigma", real=True)
HALF = sp.Rational(1, 2)


def preference(n):
    """P(y > y') with P + P^T = 1: symbols above the diagonal."""
    above = {
        (i, j): sp.Symbol(f"P{i}{j}", positive=True) for i in range(n) for j in range(i + 1, n)
    }
    return sp.Matrix(
        n, n, lambda i, j: HALF if i == j else above[i, j] if i < j else 1 - above[j, i]
    )


def win_rates(table, law):
    return [sum(table[i, j] * law[j] for j in range(len(law))) for i in range(len(law))]


def dependent_gradient(obj, table, law, rewards, i):
    """d/dr_i of the mean pair loss of (winner, loser) of one comparison, over 2 pi_i."""
    slope = sp.diff(exact(obj.pair_loss(D)), D)
    return sum(
        law[j]
        * (
            table[i, j] * slope.subs(D, rewards[i] - rewards[j])
            - table[j, i] * slope.subs(D, rewards[j] - rewards[i])
        )
        for j in range(len(law))
    )


@pytest.mark.claim("T11.winner_loser", regime="symbolic")
def test_winner_and_loser_laws(claim):
    law, table = weights("q", 3), preference(3)
    law = law / sum(law)
    wins = win_rates(table, law)
    claim.exact(
        vanishes(2 * sum(q * w for q, w in zip(law, wins, strict=True)) - 1), "laws sum to 1"
    )
    ratio = (2 * law[0] * wins[0]) / (2 * law[0] * (1 - wins[0]))
    claim.exact(vanishes(ratio - wins[0] / (1 - wins[0])), "log p_w/p_l = logit P(y > pi)")


@pytest.mark.claim("T11.sppo", regime="symbolic")
@pytest.mark.parametrize("name", ["spif", "centred_spif"])
def test_spif_on_winner_and_loser_laws_is_sppo(name, claim):
    obj = symbolic(name, alpha=HALF)
    reward = link(obj, P / (1 - P))
    claim.exact(vanishes(reward - (2 * P - 1) / C), "SPIF's link at logit P is (2P - 1)/c")
    sppo = symbolic("sppo")
    claim.exact(vanishes(link(sppo, P / (1 - P)) - (P - HALF)), "SPPO's is P - 1/2")
    inpo = objectives.get("inpo").margin * (2 * P - 1)
    claim.exact(vanishes(inpo - (P - HALF)), "and INPO's with its default margin")
    claim.exact(
        vanishes(reward / BETA - P * 2 / (BETA * C) - link(obj, 1) + 1 / (BETA * C)),
        "so the step is e^(eta P), eta = 2/(beta c), up to a constant",
    )


@pytest.mark.claim("T11.sppo", regime="symbolic")
def test_sppo_loss_is_spif_with_c_two(claim):
    spif, sppo = symbolic("spif", c=2, alpha=HALF), symbolic("sppo")
    w, own = sp.symbols("w l", real=True)
    hard = {"expert_preference": 1, "policy_preference": 0}
    gap = exact(sppo.reward_loss(w, own, **hard)) - exact(spif.reward_loss(w, own))
    claim.exact(vanishes(gap - HALF), "hard-label SPPO loss = SPIF loss (c = 2) + 1/2")
    claim.exact(
        vanishes(exact(sppo.reward_loss(w, own, **hard) + sppo.a(w) + sppo.b(own))),
        "and it is -a - b",
    )
    p, q, r = *sp.symbols("p q", positive=True), R
    win = {"expert_preference": P, "policy_preference": P}
    mean = exact(p * sppo.expert_term(r, **win) + q * sppo.policy_term(r, **win))
    best = sppo.best_response(array(p), array(q), **win)
    claim.exact(
        vanishes(sp.diff(mean, r).subs(r, exact(best))), "P - 1/2 minimises the soft-label loss"
    )
    first, second = sp.symbols("P1 P2", positive=True)
    mean = p * exact(sppo.expert_term(r, expert_preference=first))
    mean += q * exact(sppo.policy_term(r, policy_preference=second))
    best = sppo.best_response(array(p), array(q), expert_preference=first, policy_preference=second)
    claim.exact(
        vanishes(sp.diff(mean, r).subs(r, exact(best))), "with two labels, their mean by mass - 1/2"
    )


@pytest.mark.claim("T11.squared", regime="symbolic")
@pytest.mark.parametrize("name", ["ipo", "inpo"])
def test_squared_loss_on_dependent_pairs_has_gain_m(name, claim):
    law, table = weights("q", 3), preference(3)
    law = law / sum(law)
    wins = win_rates(table, law)
    rewards = [MARGIN * (2 * w - 1) for w in wins]
    for i in range(3):
        claim.exact(
            vanishes(dependent_gradient(symbolic(name), table, law, rewards, i)),
            "m (2 P(y > pi) - 1) is stationary: gain m, no kappa (3 outcomes)",
        )


@pytest.mark.claim("T11.logistic", regime="symbolic")
@pytest.mark.parametrize("name", ["dpo", "spin"])
def test_logistic_loss_on_dependent_pairs(name, claim):
    obj = symbolic(name)
    slope = sp.diff(exact(obj.pair_loss(D)), D)
    pair = P * slope - (1 - P) * slope.subs(D, -D)
    s = sp.exp(D) / (1 + sp.exp(D))
    claim.exact(vanishes(pair - (s - P)), "stationary iff E_y' s(r(y) - r(y')) = P(y > pi)")
    score = sp.symbols("x1:4", positive=True)  # e^score
    law = weights("q", 3)
    table = sp.Matrix(3, 3, lambda i, j: score[i] / (score[i] + score[j]))
    rewards = [sp.log(x) for x in score]
    for i in range(3):
        claim.exact(
            vanishes(dependent_gradient(obj, table, law, rewards, i)),
            "under Bradley-Terry the reward is the score (3 outcomes)",
        )
    half, scores = [HALF, HALF], [sp.Integer(3), sp.Integer(1)]
    win = sum(h * scores[0] / (scores[0] + s) for h, s in zip(half, scores, strict=True))
    lose = sum(h * scores[1] / (scores[1] + s) for h, s in zip(half, scores, strict=True))
    odds = (win / (1 - win)) / (lose / (1 - lose))
    claim.exact(odds != scores[0] / scores[1], f"not logit P: odds {odds} for scores of ratio 3")
    first = sp.diff(s, D).subs(D, 0), sp.diff(sp.log(X / (1 - X)), X).subs(X, HALF)
    claim.exact(first == (sp.Rational(1, 4), 4), "to first order both are 4 (P - 1/2)")


def test_the_preference_payoff_is_skew():
    law, other, table = weights("q", 3), weights("f", 3), preference(3)
    law, other = law / sum(law), other / sum(other)
    payoff = 2 * table - sp.ones(3, 3)
    assert (payoff + payoff.T).expand().is_zero_matrix, "A = 2P - 1 is skew"
    own = sum(law[i] * (2 * w - 1) for i, w in enumerate(win_rates(table, law)))
    assert vanishes(own), "E_pi r = 0: a policy does not beat itself"
    cross = [
        sum(a[i] * (2 * w - 1) for i, w in enumerate(win_rates(table, b)))
        for a, b in ((law, other), (other, law))
    ]
    assert vanishes(sum(cross)), "<pi, A pi'> = -<pi', A pi>: no potential"


@pytest.mark.claim("T12.local_threshold", "T12.repels", regime="symbolic")
def test_local_threshold_of_anchored_preference_rounds(claim):
    # log z' = (beta log z + tau log ref + r)/(beta + tau), r = g A z; x = z/z* - 1, E_z* x = 0
    gain = sp.Symbol("g", positive=True)
    payoff = gain * sp.Matrix([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
    nash = sp.Rational(1, 3)
    step = (BETA * sp.eye(3) + payoff * nash) / (BETA + TAU)
    centre = sp.eye(3) - nash * sp.ones(3, 3)
    growth = sp.Symbol("lambda")
    found = sp.factor((centre * step * centre).charpoly(growth).as_expr())
    sigma2 = gain**2 / 3
    predicted = growth * ((growth * (BETA + TAU) - BETA) ** 2 + sigma2) / (BETA + TAU) ** 2
    claim.exact(
        vanishes(found - predicted),
        "rock-paper-scissors: eigenvalues (beta +- i sigma)/(beta + tau), sigma = g/sqrt(3)",
    )
    modulus2 = (BETA**2 + SIGMA**2) / (BETA + TAU) ** 2
    claim.exact(
        vanishes((1 - modulus2) * (BETA + TAU) ** 2 - (2 * BETA * TAU + TAU**2 - SIGMA**2)),
        "below 1 in modulus iff sigma^2 < 2 beta tau + tau^2",
    )
    unanchored = modulus2.subs(TAU, 0) - 1
    claim.exact(vanishes(unanchored - (SIGMA / BETA) ** 2), "tau = 0: always above 1")


@pytest.mark.claim("T12.local_threshold", "T12.repels", regime="symbolic")
def test_eigenvalues_are_imaginary_only_on_mean_zero_functions(claim):
    """For any z: the compressed payoff is skew in L2(z); uncompressed it maps 1 to A z."""
    z = weights("z", 3)
    z = np.append(z[:-1], 1 - sum(z[:-1]))
    entries = sp.symbols("a01 a02 a12", real=True)
    payoff = sp.Matrix(
        [[0, *entries[:2]], [-entries[0], 0, entries[2]], [-entries[1], -entries[2], 0]]
    )
    weight = sp.diag(*z)
    mean = sp.ones(3, 1) * sp.Matrix([list(z)])
    compressed = (sp.eye(3) - mean) * payoff * weight * (sp.eye(3) - mean)
    skew = (weight * compressed + (weight * compressed).T).applyfunc(sp.expand)
    claim.exact(skew.is_zero_matrix, "D(I-1z')A D(I-1z') is skew (3 outcomes)")
    claim.exact(
        (compressed * sp.ones(3, 1)).applyfunc(sp.expand).is_zero_matrix, "and kills constants"
    )
    drift = payoff * weight * sp.ones(3, 1)
    claim.exact(not (drift[0] - drift[1]).expand().is_zero, "A z is no constant unless z is Nash")

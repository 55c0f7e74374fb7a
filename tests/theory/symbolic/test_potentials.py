"""T5, T6, T10: potentials, their curvature, game values, and the conic forms of both."""

import pytest
import sympy as sp

from tests.theory.symbolic.algebra import (
    array,
    constant,
    equal,
    exact,
    link,
    minimum,
    sign,
    symbolic,
    vanishes,
    weights,
)
from theory import laws, objectives

P, Q, X, C, MU, BOUND, SCALE = sp.symbols("p q x c mu bound scale", positive=True)
NAMES = objectives.names()
NO_POTENTIAL = {"spin_hinge", "sppo", "ipo", "inpo", "tspin", "alpha_spin"}
POTENTIALS = [n for n in NAMES if n not in NO_POTENTIAL | {"ipm"}]  # ipm: see below
PAIRWISE = {n for n in NAMES if objectives.get(n).form == "pairwise"}
GAMES = [n for n in NAMES if n not in PAIRWISE | {"sppo", "renyi", "ipm"}]
CANONICAL = {"iq_learn", "gail"}  # b(r) = -r + const
ALPHA = symbolic("spif").alpha


def density(name):
    """D_Phi's contribution of one outcome with expert mass p and policy mass q."""
    return exact(symbolic(name).potential_formula(array(Q), array(P)))


def game_density(name):
    """Contribution of one outcome to max_r E_p[a(r)] + E_q[b(r)]."""
    obj, r = symbolic(name), sp.Symbol("r", positive=True)
    return (P * exact(obj.a(r)) + Q * exact(obj.b(r))).subs(r, link(obj, P / Q))


@pytest.mark.claim("T5.mirror_descent", regime="symbolic")
@pytest.mark.parametrize("name", POTENTIALS)
def test_gradient_of_the_potential_is_minus_the_link(name, claim):
    gradient = sp.diff(density(name), Q) + link(symbolic(name), P / Q)
    claim.exact(constant(gradient, P, Q), "d/dq p Phi(q/p) = -R(log p/q) + a constant")
    claim.exact(vanishes(density(name).subs(Q, P)), "Phi(1) = 0")
    scaled = density(name).subs({P: SCALE * P, Q: SCALE * Q}, simultaneous=True)
    claim.exact(vanishes(scaled - SCALE * density(name)), "the density is p Phi(q/p)")


@pytest.mark.claim("T6.curvature", regime="symbolic")
@pytest.mark.parametrize("name", POTENTIALS)
def test_relative_curvature_of_the_potential_is_the_slope_of_the_link(name, claim):
    curvature = Q * sp.diff(density(name), Q, 2)
    slope = -Q * sp.diff(link(symbolic(name), P / Q), Q)  # du = -dq/q
    claim.exact(vanishes(curvature - slope), "x Phi''(x) = R'(u) at x = e^-u")
    claim.exact(sign(sp.simplify(curvature)) == 1, "Phi'' > 0: D_Phi is strictly convex")


@pytest.mark.claim("T5.value_is_potential", "T10.value", regime="symbolic")
def test_hard_bounded_potential_is_total_variation(claim):
    obj = symbolic("ipm")
    for expert, policy, side in ((Q + X, Q, 1), (P, P + X, -1)):
        potential = exact(obj.potential_formula(array(policy), array(expert)))
        game = exact(minimum(obj.conic_game(array(expert), array(policy))))
        reward = exact(link(obj, 1 + X if side == 1 else 1 / (1 + X)))
        value = exact(expert * obj.a(reward) + policy * obj.b(reward))
        claim.exact(equal([potential, game, value], BOUND * X), "D_Phi = game value = B |p - q|")
        claim.exact(
            vanishes(minimum(obj.conic_potential(array(expert), array(policy))) - game), "cone"
        )
        claim.exact(reward == side * BOUND, "its gradient in q is -B sign(p - q) = -R(u)")


def test_every_potential_and_every_game_is_proved():
    assert {n for n in NAMES if objectives.get(n).missing("potential")} == NO_POTENTIAL
    lacking = {n for n in NAMES if objectives.get(n).missing("saddle")}
    assert lacking == PAIRWISE | {"sppo", "renyi"}


VALUES = {
    "spif": (P - Q) ** 2 / (4 * C * (ALPHA * P + (1 - ALPHA) * Q)),
    "centred_spif": (P - Q) ** 2 / (2 * C * (P + Q)),
    "iq_learn": (P - Q) ** 2 / (4 * C * P),
    "policy_only": (P - Q) ** 2 / (4 * C * Q),
    "nwj": P * sp.log(P / Q),
    "exponential": -2 * sp.sqrt(P * Q),
    "gail": P * sp.log(P / (P + Q)) + Q * sp.log(Q / (P + Q)),
    "airl": P * sp.log(P / (P + Q)) + Q * sp.log(Q / (P + Q)),
    "space": P * sp.log(P / (P + MU * Q)) + MU * Q * sp.log(MU * Q / (P + MU * Q)),
    "brier": -P * Q / (P + Q),
}


def own_payoff(name):
    """Evidence for the clause, or that it fails where the own payoff is not minus the reward."""
    drops = "" if name in CANONICAL else "b_is_minus_r"
    return pytest.mark.claim("T5.value_is_potential", regime="symbolic", drops=drops)


@pytest.mark.claim("T10.value", regime="symbolic")
@pytest.mark.parametrize("name", GAMES)
def test_game_value(name, claim):
    value = game_density(name)
    claim.exact(vanishes(value - VALUES[name]), "max_r p a(r) + q b(r) in closed form")
    convex = sign(sp.simplify(sp.diff(VALUES[name], Q, 2)))
    claim.exact(convex == 1, "strictly convex in q: the saddle point at tau = 0 is p (Jensen)")
    cone = minimum(symbolic(name).conic_game(array(P), array(Q)))
    claim.exact(vanishes(cone - value), "the conic form has the game's value")


@pytest.mark.claim("T10.value", regime="symbolic")
def test_values_in_terms_of_known_divergences(claim):
    p, q = weights("p", 2), weights("q", 2)
    total = {p[1]: 1 - p[0], q[1]: 1 - q[0]}
    delta, js = (exact(f(p, q)).subs(total) for f in (laws.triangular, laws.js))
    both = [(p[i].subs(total), q[i].subs(total)) for i in range(2)]
    half = sp.Rational(1, 2)
    value = {n: sum(VALUES[n].subs({P: a, Q: b}) for a, b in both) for n in VALUES}
    claim.exact(vanishes(value["centred_spif"] - delta / (2 * C)), "SPIF: Delta/(2c)")
    claim.exact(vanishes(value["brier"] - delta / 4 + half), "Brier: Delta/4 - 1/2")
    rest = value["airl"] - 2 * js + 2 * sp.log(2)
    claim.exact(
        constant(rest, p[0], q[0]) and vanishes(rest.subs({p[0]: half, q[0]: half})),
        "logistic: 2 JS - 2 log 2",
    )
    claim.exact(vanishes(value["nwj"] - exact(laws.kl(p, q)).subs(total)), "NWJ: KL(p||pi)")
    claim.exact(
        vanishes((laws.kl(p, q) - laws.kl_stable(p, q)).subs(total)), "two formulas for KL agree"
    )


@pytest.mark.parametrize("name", [pytest.param(n, marks=own_payoff(n)) for n in GAMES])
def test_value_is_the_potential_iff_the_own_payoff_is_minus_the_reward(name, claim):
    obj, r = symbolic(name), sp.Symbol("r", positive=True)
    paid = exact(obj.b(r)).subs(r, link(obj, P / Q))
    claim.exact(vanishes(sp.diff(VALUES[name], Q) - paid), "d/dq of the game value is b(R(u))")
    same_payoff = constant(exact(obj.b(r)) + r, r)
    same_gradient = constant(sp.diff(VALUES[name] - density(name), Q), P, Q)
    claim.exact(same_payoff == same_gradient, "game value = D_Phi + const iff b(r) = -r + const")
    claim.exact(same_payoff == (name in CANONICAL), "so for IQ-Learn and GAIL only")


CONIC = [n for n in NAMES if objectives.get(n).missing("conic_potential") is None and n != "ipm"]


@pytest.mark.claim("T10.value", regime="symbolic")
@pytest.mark.parametrize("name", CONIC)
def test_conic_potential(name, claim):
    obj = symbolic(name, margin=1)  # the pairwise squared losses: at gain 1
    p, q = weights("p", 2), weights("q", 2)
    cone = minimum(obj.conic_potential(p, q))
    reward = link(obj, P / Q, 0 if name in ("ipo", "inpo") else None)
    gradient = sp.diff(cone, q[0]).subs({p[0]: P, q[0]: Q}) + reward
    claim.exact(constant(gradient, P, Q), "the conic form's gradient is -R(u) + a constant")
    here = {q[0]: p[0], q[1]: p[1]}
    claim.exact(vanishes(cone.subs(here).subs(p[1], 1 - p[0])), "it is 0 at pi = p")


@pytest.mark.claim("T5.value_is_potential", regime="symbolic")
def test_every_link_has_a_game_whose_value_is_its_potential(claim):
    r = sp.Symbol("r", real=True)
    payoff = 2 * sp.log(1 + r) - r
    ratio = (1 + r) / (1 - r)
    spif = symbolic("spif", c=1, alpha=sp.Rational(1, 2))
    claim.exact(vanishes(link(spif, ratio) - r), "u(r) = log (1+r)/(1-r) inverts tanh(u/2)")
    claim.exact(vanishes(sp.diff(payoff, r) - 1 / ratio), "a'(r) = e^-u(r) for 2 log(1+r) - r")
    reward = link(spif, P / Q)
    value = P * payoff.subs(r, reward) - Q * reward
    potential = exact(spif.potential_formula(array(Q), array(P)))
    claim.exact(constant(sp.diff(value - potential, Q), P, Q), "its game value is D_Phi ...")
    claim.exact(vanishes(value.subs(Q, P)), "... up to a term that sums to zero over laws")


@pytest.mark.claim("T10.fixed_point", regime="symbolic")
def test_equilibrium_of_the_rounds(claim):
    tau, ref = sp.symbols("tau ref", positive=True)
    policy = P ** (1 / (1 + tau)) * ref ** (tau / (1 + tau))
    claim.exact(
        vanishes(tau * sp.log(policy / ref) - link(symbolic("spin"), P / policy)),
        "SPIN: tau log pi/pi_ref = R(log p/pi) at p^(1/(1+tau)) pi_ref^(tau/(1+tau))",
    )
    for name in POTENTIALS:
        anchored = density(name) + tau * Q * sp.log(Q / ref)
        condition = tau * sp.log(Q / ref) - link(symbolic(name), P / Q)
        claim.exact(
            constant(sp.diff(anchored, Q) - condition, P, Q, ref),
            "D_Phi + tau KL is stationary where pi is proportional to pi_ref e^(R/tau)",
        )


@pytest.mark.claim("T10.sampled_gap", "T10.gap_bounds_distance", regime="symbolic")
def test_the_gap_reads_no_expert_and_is_a_kl(claim):
    tau = sp.Symbol("tau", positive=True)
    policy, ref, star = (w / sum(w) for w in (weights(name, 3) for name in "qfz"))
    pay = array(*sp.symbols("s1:4", real=True))

    def kl(first, second):
        return sum(a * sp.log(a / b) for a, b in zip(first, second, strict=True))

    weight = ref * array(*(sp.exp(s / tau) for s in pay))
    log_mean, gibbs = sp.log(sum(weight)), weight / sum(weight)

    def paid(law):
        return tau * kl(law, ref) - sum(law * pay)

    def zero(expression):
        return vanishes(sp.expand_log(expression, force=True))

    gap = paid(policy) + tau * log_mean - tau * kl(policy, gibbs)
    claim.exact(zero(gap), "E[tau log pi/ref - pay] + tau log E_ref e^{pay/tau} = tau KL(pi||pi_r)")
    mixed = policy * array(*(sp.exp(s / tau) for s in pay)) * ref / policy
    claim.exact(vanishes(sum(mixed) - sum(weight)), "the mean over own responses is the same")
    tangent = sum((policy - star) * array(*(sp.log(a / b) for a, b in zip(star, ref, strict=True))))
    bend = kl(policy, ref) - kl(star, ref) - tangent - kl(policy, star)
    claim.exact(zero(bend), "the anchor exceeds its tangent at pi* by KL(pi||pi*)")
    mean, moved = sp.symbols("mean moved", positive=True)
    second = sp.series(sp.log(mean + moved), moved, 0, 3).removeO().coeff(moved, 2)
    claim.exact(vanishes(second + 1 / (2 * mean**2)), "log of a mean: -variance/(2 mean^2)")

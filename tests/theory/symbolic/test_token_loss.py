"""T14: one loss per token, in algebra."""

import pytest
import sympy as sp

from tests.theory.symbolic.algebra import array, exact, link, symbolic, vanishes, weights
from theory import objectives
from theory.rounds import two_step as rounds

R, U, W = sp.symbols("r u w", real=True)
BETA, C, ETA, RHO, X = sp.symbols("beta c eta rho x", positive=True)
POINTWISE = [
    n
    for n in objectives.names()
    if objectives.get(n).form == "pointwise" and objectives.get(n).missing("risk") is None
]


@pytest.mark.claim("T14.own_prefixes", regime="symbolic")
@pytest.mark.parametrize("name", POINTWISE)
def test_a_round_at_prefixes_that_come_rho_times_as_often(name, claim):
    obj = symbolic(name)
    a, b = (exact(f(R)) for f in (obj.a, obj.b))
    a1, a2, b1, b2 = (sp.diff(f, R, n).subs(R, 0) for f in (a, b) for n in (1, 2))
    # p a'(r) + rho q b'(r) = lambda pi with log p/q = u, log pi/q = w, r = beta w, over q
    balance = sp.exp(U) * sp.diff(a, R).subs(R, BETA * W)
    balance = balance + RHO * sp.diff(b, R).subs(R, BETA * W) - (a1 + RHO * b1) * sp.exp(W)
    origin = {U: 0, W: 0}
    claim.exact(vanishes(balance.subs(origin)), "pi = p rests at any rho")
    goes = -sp.diff(balance, U).subs(origin) / sp.diff(balance, W).subs(origin)
    bracket = BETA * (-a2 - RHO * b2) + a1 + RHO * b1
    claim.exact(vanishes(goes - a1 / bracket), "w = a' u/(beta(|a''| + rho|b''|) + a' + rho b')")
    # the loss of log pi/q = w - log E_q e^w along w of mean 0: half the bracket times beta Var w
    rare = sp.Symbol("s", real=True)
    q = weights("q", 2)
    q = array(q[0], 1 - q[0])
    w = array(rare * q[1], -rare * q[0])
    w = w - sp.log(sum(x * sp.exp(y) for x, y in zip(q, w, strict=True)))
    loss = -sum(
        x * (a.subs(R, BETA * y) + RHO * b.subs(R, BETA * y)) for x, y in zip(q, w, strict=True)
    )
    curved = sp.diff(loss, rare, 2).subs(rare, 0)
    claim.exact(vanishes(curved - BETA * bracket * q[0] * q[1]), "second variation: the bracket")
    if name == "spif":
        at = {BETA: 1 / (ETA * C), obj.alpha: sp.Rational(1, 2)}
        spif = (a1 / bracket).subs(at)
        claim.exact(vanishes(spif - ETA / ((1 + RHO) + ETA * (1 - RHO))), "SPIF's share of u")


@pytest.mark.claim("T14.burn_in", regime="symbolic")
def test_a_round_takes_half_the_step_off_log_sinh(claim):
    move = link(symbolic("spif", alpha=sp.Rational(1, 2)), X) * C * ETA  # of u = log x
    u = sp.log(X)
    log_sinh = sp.log((sp.exp(U / 2) - sp.exp(-U / 2)) / 2)
    slope = sp.diff(log_sinh, U).subs(U, u)
    claim.exact(vanishes(move * slope - ETA / 2), "eta tanh(u/2) times its slope is eta/2")
    bend = sp.diff(log_sinh, U, 2) * (sp.exp(U / 2) - sp.exp(-U / 2)) ** 2
    claim.exact(vanishes(bend + 1), "concave, so that the fall is at least that")


@pytest.mark.claim("T14.token_convex", regime="symbolic")
def test_the_normaliser_of_a_prefix_cancels(claim):
    theta = sp.Symbol("theta", real=True)
    phi = sp.symbols("phi1:7", real=True)
    here, there = (sp.log(sum(sp.exp(theta * f) for f in part)) for part in (phi[:3], phi[3:]))
    pair = (theta * phi[0] - here) - (theta * phi[1] - here)
    claim.exact(vanishes(sp.diff(pair, theta, 2)), "tokens of one prefix: linear in theta")
    apart = (theta * phi[0] - here) - (theta * phi[3] - there)
    claim.exact(not vanishes(sp.diff(apart, theta, 2).subs({theta: 0, **dict.fromkeys(phi, 1),
                phi[0]: 2})), "of two prefixes: not")  # fmt: skip


@pytest.mark.claim("T14.token_values", regime="symbolic")
def test_a_round_with_values_is_one_of_tokens_if_they_are_equal(claim):
    p, q = weights("p", 2), weights("q", 2)
    v = array(*sp.symbols("v1:3", real=True))
    logs = [array(*map(sp.log, law)) for law in (p, q)]
    reward = logs[0] - logs[1]
    with_values, without = (
        rounds.gibbs_step(logs[1], r, BETA, None, 0) for r in (reward + v, reward)
    )
    odds = (with_values - without)[0] - (with_values - without)[1]
    claim.exact(vanishes(odds - (v[0] - v[1]) / BETA), "log-odds of the two rounds: (V - V')/beta")
    weight = sp.exp(logs[1][0] + reward[0] / BETA)
    power = p[0] ** (1 / BETA) * q[0] ** (1 - 1 / BETA)
    claim.exact(vanishes(sp.expand_log(sp.log(weight / power))), "q e^(u/beta) = p^(1/b) q^(1-1/b)")

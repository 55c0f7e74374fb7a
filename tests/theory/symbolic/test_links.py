"""T1: every closed-form link is the best response that its own payoffs or pair loss define."""

import numpy as np
import pytest
import sympy as sp

from tests.theory.symbolic.algebra import (
    ODDS,
    array,
    equal,
    exact,
    fraction_law,
    link,
    risk,
    sign,
    symbolic,
    triangular,
    vanishes,
    weights,
)
from theory import objectives
from theory.objectives import Pointwise

X, P, Q = sp.symbols("x p q", positive=True)  # x = p/q = e^u
R, S, D = sp.symbols("r s d", real=True)
C, MU, BOUND, MARGIN = sp.symbols("c mu bound margin", positive=True)
POINTWISE = [n for n in objectives.names() if objectives.get(n).form == "pointwise"]
WITH_LINK = [n for n in objectives.names() if objectives.get(n).has_link]
PAIRWISE = [n for n in WITH_LINK if objectives.get(n).form == "pairwise"]


def slope(name, delta=None):
    """R'(u) as a function of x = e^u."""
    return exact(sp.simplify(X * sp.diff(link(symbolic(name), X, delta), X)))


@pytest.mark.claim("T1.best_response", regime="symbolic")
@pytest.mark.parametrize("name", POINTWISE)
def test_link_is_the_best_response_of_its_payoffs(name, claim):
    obj = symbolic(name)
    claim.exact(
        type(obj).link_formula is not Pointwise.link_formula, "the link is written in closed form"
    )
    gain, cost = sp.diff(exact(obj.a(R)), R), sp.diff(exact(obj.b(R)), R)
    if name == "ipm":
        claim.exact((gain, cost) == (1, -1), "the payoff (p - q) r is linear in r")
        claim.exact(link(obj, 1 + X) == BOUND, "its maximum over |r| <= B is at B where p > q")
        claim.exact(link(obj, 1 / (1 + X)) == -BOUND, "and at -B where p < q")
        return
    best = link(obj, P / Q)
    claim.exact(vanishes((P * gain + Q * cost).subs(R, best)), "p a'(R(u)) + q b'(R(u)) = 0")
    at = link(obj, X)
    claim.exact(sign(gain.subs(R, at)) == 1, "a' > 0 at the best response")
    claim.exact(sign(cost.subs(R, at)) == -1, "b' < 0 at the best response")
    claim.exact(sign(slope(name)) == 1, "R' > 0, so -b'/a' is increasing and R(u) the one maximum")


@pytest.mark.parametrize("name", [n for n in POINTWISE if n not in ("brier", "ipm")])
def test_payoffs_are_concave_one_of_them_strictly(name):
    obj = symbolic(name)
    reward = link(obj, X)
    signs = [sign(sp.diff(exact(f(R)), R, 2).subs(R, reward)) for f in (obj.a, obj.b)]
    assert set(signs) <= {0, -1}, "a'' <= 0 and b'' <= 0 on R's range"
    assert -1 in signs, "and one of them is negative"


def test_brier_payoffs_are_concave_in_the_sigmoid_only():
    obj = symbolic("brier")
    logit = sp.log(X / (1 - X))
    for payoff, squared in ((obj.a, (1 - X) ** 2), (obj.b, X**2)):
        assert equal(exact(payoff(logit)), -squared), "a = -(1 - s)^2, b = -s^2 in s = s(r)"
    curvature = sp.diff(exact(obj.a(R)), R, 2)
    assert curvature.subs(R, -5) > 0 > curvature.subs(R, 5), "a is not concave in r"


@pytest.mark.claim("T1.group_and_pair", regime="symbolic")
@pytest.mark.parametrize("name", PAIRWISE)
def test_pairwise_link_is_the_best_response_of_the_pair_loss(name, claim):
    obj = symbolic(name)
    loss = exact(obj.pair_loss(D))
    claim.exact(sp.diff(loss, D).subs(D, 0) < 0, "l'(0) < 0")
    claim.exact(sign(sp.diff(loss, D, 2).subs(D, sp.log(X))) == 1, "l'' > 0: unique up to a shift")
    if name in ("ipo", "inpo"):
        return  # below: its gradient vanishes only when summed over all pairs
    p1, p2, q1, q2 = sp.symbols("p1 p2 q1 q2", positive=True)
    r1, r2 = link(obj, p1 / q1), link(obj, p2 / q2)
    one, other = (sp.diff(loss, D).subs(D, d) for d in (r1 - r2, r2 - r1))
    claim.exact(vanishes(p1 * q2 * one - p2 * q1 * other), "p q' l'(r - r') is symmetric in y, y'")


@pytest.mark.claim("T1.group_and_pair", "T9.link", "T9.meter", regime="symbolic")
@pytest.mark.parametrize("name", ["ipo", "inpo"])
def test_squared_loss_has_the_tanh_link_with_gain_kappa(name, claim):
    obj = symbolic(name)
    rng = np.random.default_rng(0)
    for n in range(2, 7):
        p, q = weights("p", n), weights("q", n)
        rewards = array(*sp.symbols(f"r1:{n + 1}", real=True))
        loss = risk(obj, rewards, p, q)
        for _ in range(3):
            here, own = fraction_law(rng, n), fraction_law(rng, n)
            laws = dict(zip([*p, *q], [*here, *own], strict=True))
            delta = triangular(here, own)
            best = {r: link(obj, a / b, delta) for r, a, b in zip(rewards, here, own, strict=True)}
            at_laws = loss.xreplace(laws)
            claim.exact(
                all(vanishes(sp.diff(at_laws, r).subs(best)) for r in rewards),
                "kappa tanh(u/2) is stationary (exact rational check, random laws)",
            )
            claim.exact(
                vanishes(at_laws.subs(best) - MARGIN**2 * (2 - delta) / (2 + delta)),
                "the minimal loss is m^2 (2 - Delta)/(2 + Delta) (exact rational check)",
            )


@pytest.mark.claim("T9.link", "T9.meter", regime="symbolic")
def test_kappa_for_any_number_of_outcomes(claim):
    # with E_p r = -E_q r = kappa Delta/2 the gradient at y is (p - q) times a number
    kappa, delta = sp.symbols("kappa delta", positive=True)
    r, mean = kappa * (P - Q) / (P + Q), kappa * delta / 2
    gradient = P * (r + mean - MARGIN) + Q * (r - mean + MARGIN)
    claim.exact(
        vanishes(gradient - (P - Q) * (kappa * (1 + delta / 2) - MARGIN)),
        "gradient = (p - q)(kappa (1 + Delta/2) - m)",
    )
    gain = exact(symbolic("ipo").gain(delta))
    claim.exact(sp.solve(kappa * (1 + delta / 2) - MARGIN, kappa) == [gain.factor()], "kappa")
    claim.exact((gain.subs(delta, 0), gain.subs(delta, 2)) == (MARGIN, MARGIN / 2), "in [m/2, m]")
    second, spread = delta * kappa**2, kappa * delta  # E_p r^2 + E_q r^2, E_p r - E_q r
    loss = second - spread**2 / 2 + (spread - MARGIN) ** 2
    claim.exact(
        vanishes(loss.subs(kappa, gain) - MARGIN**2 * (2 - delta) / (2 + delta)),
        "the minimal loss is m^2 (2 - Delta)/(2 + Delta)",
    )


# range of the link, R'(0), L = sup R', mu = inf R' over all u, with A = alpha and B = 1 - alpha
A = ODDS / (1 + ODDS)
B = sp.simplify(1 - A)
oo, half = sp.oo, sp.Rational(1, 2)
TABLE = {
    "spin": ((-oo, oo), 1, 1, 1),
    "dpo": ((-oo, oo), 1, 1, 1),
    "airl": ((-oo, oo), 1, 1, 1),
    "alpha_spin": ((-oo, oo), 1, 1, 1),
    "renyi": ((-oo, oo), 1, 1, 1),
    "space": ((-oo, oo), 1, 1, 1),
    "brier": ((-oo, oo), 1, 1, 1),
    "nwj": ((-oo, oo), 1, 1, 1),
    "exponential": ((-oo, oo), half, half, half),
    "spin_exponential": ((-oo, oo), half, half, half),
    "spif": ((-1 / (2 * C * B), 1 / (2 * C * A)), 1 / (2 * C), 1 / (8 * C * A * B), 0),
    "centred_spif": ((-1 / C, 1 / C), 1 / (2 * C), 1 / (2 * C), 0),
    "sppo": ((-half, half), half / 2, half / 2, 0),
    "iq_learn": ((-oo, 1 / (2 * C)), 1 / (2 * C), oo, 0),
    "policy_only": ((-1 / (2 * C), oo), 1 / (2 * C), oo, 0),
    "gail": ((0, oo), half, 1, 0),
    "ipo": ((-MARGIN, MARGIN), MARGIN / 2, MARGIN / 2, 0),
    "inpo": ((-MARGIN, MARGIN), MARGIN / 2, MARGIN / 2, 0),
    "ipm": ((-BOUND, BOUND), None, oo, 0),
}


def test_the_table_has_every_link():
    assert set(TABLE) == set(WITH_LINK)


@pytest.mark.claim("T1.increasing", regime="symbolic")
@pytest.mark.parametrize("name", TABLE)
def test_range_and_slopes_of_the_link(name, claim):
    bounds, at_zero, largest, smallest = TABLE[name]
    delta = 0 if name in ("ipo", "inpo") else None  # where kappa is largest
    if name == "ipm":
        found = link(symbolic(name), X / (1 + X)), link(symbolic(name), 1 + X)
        claim.exact(found == bounds, "range of the link (a step at u = 0)")
        return
    reward, rise = link(symbolic(name), X, delta), slope(name, delta)
    found = tuple(sp.limit(reward, X, end, side) for end, side in ((0, "+"), (oo, "-")))
    claim.exact(all(a == b or vanishes(a - b) for a, b in zip(found, bounds, strict=True)), "range")
    claim.exact(vanishes(rise.subs(X, 1) - at_zero), "R'(0)")
    ends = [sp.limit(rise, X, 0, "+"), sp.limit(rise, X, oo)]
    claim.exact(sp.simplify(rise - smallest) == 0 or smallest in ends, "mu is attained or a limit")
    claim.exact(sign(rise - smallest) in (0, 1), "R' >= mu")
    if largest is oo:
        claim.exact(oo in ends, "R' is unbounded")
        return
    room = sp.factor(sp.together(largest - rise))
    claim.exact(room.is_nonnegative or sign(room) in (0, 1), "R' <= L")
    touched = sp.solve(sp.numer(room), X) if room.has(X) else [sp.S.One]
    claim.exact(any(x.is_positive for x in touched) or largest in ends, "L is attained or a limit")


@pytest.mark.claim("T8.bounded", regime="symbolic")
@pytest.mark.parametrize(("name", "low", "high"), [("spif", B, A), ("centred_spif", half, half)])
def test_spif_rewards_stay_strictly_within_their_bounds(name, low, high, claim):
    reward = link(symbolic(name), X)
    claim.exact(sign(1 / (2 * C * high) - reward) == 1, "R(u) < 1/(2 c alpha)")
    claim.exact(sign(reward + 1 / (2 * C * low)) == 1, "R(u) > -1/(2 c (1 - alpha))")


@pytest.mark.claim("T1.group_and_pair", regime="symbolic")
@pytest.mark.parametrize(("name", "n", "power"), [("centred_spif", 2, 1), ("renyi", 3, 4)])
def test_group_link_is_the_best_response_of_the_group_risk(name, n, power, claim):
    # Renyi's at order 1/4, for laws that are fourth powers: then all is rational
    obj = symbolic(name)
    p, q = weights("p", n) ** power, weights("q", n) ** power
    rewards = array(*sp.symbols(f"r1:{n + 1}", real=True))
    loss = risk(obj, rewards, p, q).subs(ODDS, sp.Rational(1, 3))
    ratios = [a * sum(q) / (b * sum(p)) if power == 1 else a / b for a, b in zip(p, q, strict=True)]
    best = {r: link(obj, x) + S for r, x in zip(rewards, ratios, strict=True)}
    for r in rewards:
        gradient = sp.diff(loss, r).subs(best)
        claim.exact(vanishes(gradient), f"R(u) + any constant is stationary ({n} outcomes)")

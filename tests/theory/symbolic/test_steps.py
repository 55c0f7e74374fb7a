"""T2-T4, T7, T14: the policy step, one loss on one model, and rounds on tokens."""

import pytest
import sympy as sp

from tests.theory.symbolic.algebra import (
    array,
    constant,
    equal,
    exact,
    link,
    risk,
    sign,
    symbolic,
    vanishes,
    weights,
)
from theory import objectives
from theory.rounds import two_step as rounds

X, BETA, TAU, C, ETA = sp.symbols("x beta tau c eta", positive=True)
R, S, U, W = sp.symbols("r s u w", real=True)
NAMES = objectives.names()
LOSSES = [n for n in NAMES if objectives.get(n).missing("risk") is None]
ONE_STEP = [n for n in LOSSES if objectives.get(n).form == "pointwise"]
MATCHED = {"airl", "spif", "iq_learn", "policy_only", "exponential", "brier", "sppo", "space"}


def local_factor(name):
    """Evidence for the factor, and where the slopes at 0 cancel for its being the two-step one."""
    same = ["T4.same_local_factor"] if name in MATCHED else []
    return pytest.mark.claim("T4.local_factor", *same, regime="symbolic")


def log_ratio_to(first, second):
    return array(*(sp.log(a / b) for a, b in zip(first, second, strict=True)))


@pytest.mark.claim("T2.gibbs", regime="symbolic")
def test_policy_step_is_the_gibbs_policy(claim):
    q, ref, other = weights("q", 3), weights("f", 3), weights("o", 3)
    reward = array(*sp.symbols("r1:4", positive=True))
    logs = [array(*map(sp.log, law)) for law in (q, ref, other)]
    step = rounds.gibbs_step(logs[0], reward, BETA, logs[1], TAU)
    # for any law o: E_o r - beta KL(o||q) - tau KL(o||ref) + (beta+tau) KL(o||step) is one number,
    # so the payoff is largest where KL(o||step) = 0; it is so outcome by outcome
    rest = reward - BETA * (logs[2] - logs[0]) - TAU * (logs[2] - logs[1])
    rest = rest + (BETA + TAU) * (logs[2] - step)
    claim.exact(equal(rest[1:], rest[0]), "payoff = (beta + tau)(log Z - KL(pi||step))")


@pytest.mark.claim("T7.path", "T10.fixed_point", regime="symbolic")
def test_spin_path_in_closed_form(claim):
    p, q, ref = weights("p", 2), weights("q", 2), weights("f", 2)
    rounds_done = sp.Symbol("T", integer=True, positive=True)
    factor = 1 - 1 / BETA
    log_q = factor**rounds_done * log_ratio_to(q, p) + array(*map(sp.log, p))  # log pi_T + const
    reward = array(*(symbolic("spin").link(u, None) for u in array(*map(sp.log, p)) - log_q))
    after = rounds.gibbs_step(log_q, reward, BETA, None, 0) - array(*map(sp.log, p))
    predicted = factor ** (rounds_done + 1) * log_ratio_to(q, p)
    claim.exact(
        vanishes((after - predicted)[0] - (after - predicted)[1]),
        "a round takes (1 - 1/beta)^T log(pi_0/p) + const to the same with T + 1",
    )
    claim.exact(factor.subs(BETA, sp.Rational(1, 10)) == -9, "beta = 0.1: factor -9")
    anchored = p ** (1 / (1 + TAU)) * ref ** (TAU / (1 + TAU))
    logs = [array(*map(sp.log, law)) for law in (anchored, ref)]
    reward = array(*(symbolic("spin").link(u, None) for u in log_ratio_to(p, anchored)))
    moved = rounds.gibbs_step(logs[0], reward, BETA, logs[1], TAU) - logs[0]
    claim.exact(vanishes(moved[0] - moved[1]), "anchored: p^(1/(1+tau)) ref^(tau/(1+tau)) rests")


@pytest.mark.claim("T3.invariant", regime="symbolic")
@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_ignore_a_shift_of_the_reward(name, claim):
    obj = symbolic(name)
    p, q = weights("p", 2), weights("q", 2)
    r = array(*sp.symbols("r1:3", real=True))
    moved, still = (
        risk(obj, r + S, p, q, **extras(obj, r + S)),
        risk(obj, r, p, q, **extras(obj, r)),
    )
    if obj.form == "pointwise":
        at = {v: sp.Rational(k, 7) for k, v in enumerate([*r, *p, *q], start=1)}
        slope = sp.diff(moved, S).subs(S, 0).subs(at)
        claim.exact(not vanishes(slope), "pointwise: the loss depends on the constant")
    else:
        claim.exact(vanishes(moved - still), "the loss is that of r + const")


def extras(obj, rewards):
    """What else the risk reads: hard labels as preferences, the policy itself as history."""
    if "preference" in obj.needs:
        return {"expert_preference": 1, "policy_preference": 0}
    return {"r_history": rewards, "history_law": weights("h", 2)} if "history" in obj.needs else {}


@pytest.mark.claim("T4.squared_losses", regime="symbolic")
def test_spif_is_ipo_that_sees_the_level(claim):
    margin = sp.Symbol("m", positive=True)
    pair = exact(symbolic("ipo", margin=margin).reward_loss(R, S))
    spif = symbolic("spif", c=2 / margin, alpha=sp.Rational(1, 2))
    whole = 2 * margin * exact(spif.reward_loss(R, S)) + margin**2
    claim.exact(vanishes(whole - pair - (R + S) ** 2), "2m SPIF(2/m) + m^2 = IPO(m) + (r + r')^2")


@pytest.mark.claim("T4.partition_gap", regime="symbolic")
def test_partition_gap_of_spif(claim):
    weight = exact(sp.exp(link(symbolic("spif", alpha=sp.Rational(1, 2)), X) / BETA))
    weight = weight.subs(BETA, 1 / (ETA * C))  # e^(R/beta) as a function of x = p/q, E_q x = 1
    # log Z = E_q f(x) - 1 + ... = f''(1)/2 E_q (x-1)^2, and Delta = E_q (x-1)^2/2
    claim.exact(vanishes(weight.subs(X, 1) - 1), "e^(R(0)/beta) = 1")
    claim.exact(
        vanishes(sp.diff(weight, X, 2).subs(X, 1) - ETA * (ETA - 2) / 4),
        "log Z = eta (eta - 2)/4 Delta + o(Delta)",
    )
    bend = sp.diff(weight, X, 2) / weight * (X + 1) ** 4 / (4 * ETA)
    claim.exact(
        vanishes(bend - (ETA - 1 - X)),
        "e^(R/beta) is concave in x > eta - 1: for eta <= 1, log Z <= 0 by Jensen",
    )
    tangent = weight.subs(X, 1) - sp.diff(weight, X).subs(X, 1)
    claim.exact(vanishes(tangent - (1 - ETA / 2)), "its tangent at 1 starts at 1 - eta/2")
    claim.exact(
        vanishes(sp.limit(weight, X, 0) - sp.exp(-ETA)),
        "and the function at e^-eta: log Z <= 0 for all laws iff e^-eta <= 1 - eta/2",
    )


@pytest.mark.parametrize("name", [pytest.param(n, marks=local_factor(n)) for n in ONE_STEP])
def test_local_rate_of_one_step_rounds(name, claim):
    obj = symbolic(name)
    a, b = (exact(f(R)) for f in (obj.a, obj.b))
    slopes = {k: sp.diff(f, R, n).subs(R, 0) for k, f, n in
              (("a1", a, 1), ("b1", b, 1), ("a2", a, 2), ("b2", b, 2))}  # fmt: skip
    total = slopes["a1"] + slopes["b1"]
    # p a'(r) + q b'(r) = lambda pi with log p/q = u, log pi/q = w, r = beta w, over p
    balance = sp.diff(a, R).subs(R, BETA * W) + sp.exp(-U) * sp.diff(b, R).subs(R, BETA * W)
    balance = balance - total * sp.exp(W - U)
    origin = {U: 0, W: 0}
    claim.exact(vanishes(balance.subs(origin)), "pi = p rests")
    response = -sp.diff(balance, U).subs(origin) / sp.diff(balance, W).subs(origin)
    rate = 1 - slopes["a1"] / (BETA * (-slopes["a2"] - slopes["b2"]) + total)
    claim.exact(vanishes(1 - response - rate), "rate 1 - a'/(beta(|a''| + |b''|) + a' + b')")
    ratio = link(obj, X)
    two_step = 1 - (X * sp.diff(ratio, X)).subs(X, 1) / BETA
    same = vanishes(two_step - rate)
    claim.exact(same == vanishes(total), "the two-step rate at every beta iff a'(0) = -b'(0)")
    claim.exact(same == (name in MATCHED), "which ones")


@pytest.mark.claim("T4.same_local_factor", regime="symbolic", drops="matched_slopes")
def test_rates_can_agree_at_one_beta_without_matched_slopes(claim):
    obj = symbolic("nwj")
    a, b = (exact(f(R)) for f in (obj.a, obj.b))
    gain, cost = (sp.diff(f, R).subs(R, 0) for f in (a, b))
    claim.exact(not vanishes(gain + cost), "a'(0) is not -b'(0)")
    rate = 1 - gain / (BETA * -sp.diff(b, R, 2).subs(R, 0) + gain + cost)
    claim.exact(vanishes(rate.subs(BETA, 1)), "and yet both rates are 0 at beta = 1")
    claim.exact(not vanishes(rate.subs(BETA, 2) - sp.Rational(1, 2)), "at beta = 2 they differ")


@pytest.mark.claim("T4.stationarity", regime="symbolic")
def test_stationarity_of_the_one_step_spif_loss(claim):
    obj = symbolic("spif", alpha=sp.Rational(1, 2))
    p, q = weights("p", 3), weights("q", 3)
    totals = {p[2]: 1 - p[0] - p[1], q[2]: 1 - q[0] - q[1]}
    r = array(*sp.symbols("r1:4", real=True))
    loss = risk(obj, r, p, q)
    force = [sp.diff(loss, x).subs(totals) for x in r]
    parts = [C * (a + b) * x - (a - b) for a, b, x in zip(p, q, r, strict=True)]
    claim.exact(
        all(vanishes(f - e.subs(totals)) for f, e in zip(force, parts, strict=True)),
        "the loss's gradient is c (p+q) r - (p-q); set to a multiple of pi: T4's equation",
    )
    both = sum((a + b) * x for a, b, x in zip(p, q, r, strict=True))
    claim.exact(
        vanishes((sum(parts) - C * both).subs(totals)), "summed, the multiple is c (E_p r + E_q r)"
    )


@pytest.mark.claim("T8.descends", regime="symbolic")
def test_spif_round_moves_kl_by_the_triangular_discrimination(claim):
    p, q, t = sp.symbols("p q t", positive=True)
    tanh = link(symbolic("spif", c=1, alpha=sp.Rational(1, 2)), p / q)
    claim.exact(vanishes((p + q) * tanh - (p - q)), "(p+q) R = (p-q)/c: E_p R + E_q R = 0")
    claim.exact(vanishes((p - q) * tanh - (p - q) ** 2 / (p + q)), "E_p R - E_q R = Delta/c")
    # change of KL = -eta E_p t + log Z <= -eta Delta/2 + (Z - 1), with (Z - 1)/Delta a mean of g
    g = ((sp.exp(ETA * t) - 1) * (1 - t) - ETA * t) / (2 * t**2)
    ratio = (1 + t) / (1 - t)
    part = (sp.exp(ETA * t) - 1) - ETA / 2 * (ratio - 1)  # E_q(x - 1) = 0
    weight = (ratio - 1) ** 2 / (ratio + 1)
    claim.exact(vanishes(part - weight * g), "q(e^(eta t) - 1) = g (p-q)^2/(p+q), up to E_q x = 1")
    missed = ETA / 2 - g.subs(t, -1)
    claim.exact(vanishes(missed - (1 - sp.exp(-ETA))), "where p misses it: kappa = 1 - e^-eta")
    turn = sp.diff(g, t).subs(t, -1) * 2 - (3 + 2 * ETA) * sp.exp(-ETA) + 3 - ETA
    claim.exact(vanishes(turn), "g'(-1) = 0 where (3 + 2 eta) e^-eta = 3 - eta")
    claim.exact(vanishes(sp.limit(g, t, 0) - ETA * (ETA - 2) / 4), "near p: kappa = eta(1 - eta/4)")


@pytest.mark.claim("T14.telescopes", "T14.shaping", regime="symbolic")
def test_token_rewards_telescope_and_shaping_cancels(claim):
    horizon = 4
    r = sp.symbols(f"r1:{horizon + 1}", real=True)
    v = [*sp.symbols(f"v0:{horizon}", real=True), 0]  # V = 0 at terminal states
    f = sp.symbols(f"f0:{horizon + 1}", real=True)
    tokens = [r[h] + v[h + 1] - v[h] for h in range(horizon)]
    claim.exact(vanishes(sum(tokens) - (sum(r) - v[0])), "sum of token log-ratios = R(y) - V(s_0)")
    shaped = sum(r[h] + f[h + 1] - f[h] for h in range(horizon))
    claim.exact(vanishes(shaped - (sum(r) + f[-1] - f[0])), "shaping adds f(terminal) - f(s_0)")


@pytest.mark.claim("T14.conditional", "T14.spif_differs", "T14.same_local_rate", regime="symbolic")
def test_conditional_links_add_up_for_spin_and_not_for_spif(claim):
    first, second = sp.symbols("x1 x2", positive=True)
    spin, spif = symbolic("spin"), symbolic("spif", alpha=sp.Rational(1, 2))
    both = link(spin, first) + link(spin, second)
    claim.exact(vanishes(both - link(spin, first * second)), "SPIN: sum R(u_h) = R(sum u_h)")
    tokens, whole = 2 * link(spif, 2), link(spif, 4)
    claim.exact(equal([tokens * C, whole * C], [sp.Rational(2, 3), sp.Rational(3, 5)]),
                "SPIF at u_h = log 2: 2/3 against 3/5")  # fmt: skip
    claim.exact(
        all(sp.limit(h * link(spif, X), X, sp.oo) == h / C for h in (1, 3)), "bounds H/c and 1/c"
    )
    slopes = [sp.diff(f, first).subs({first: 1, second: 1}) for f in
              (link(spif, first) + link(spif, second), link(spif, first * second))]  # fmt: skip
    claim.exact(equal(*slopes), "the same slope at 0, so the same local rate")


@pytest.mark.claim("T14.occupancy", regime="symbolic")
def test_occupancy_rewards_contract_by_depth(claim):
    # linearised: token h earns R'(0) (u_1 + ... + u_h); E_pi of later u_h is 0 to first order
    horizon, rise = 4, sp.Symbol("rise", positive=True)
    u = sp.symbols(f"u1:{horizon + 1}", real=True)
    earned = [rise * sum(u[: h + 1]) for h in range(horizon)]

    def value(h):
        """V at depth h (after h tokens), up to a constant: what later tokens earn on average."""
        return sum(earned[k].subs(dict.fromkeys(u[h:], 0)) for k in range(h, horizon))

    moved = [u[h] - (earned[h] + value(h + 1) - value(h)) / BETA for h in range(horizon)]
    jacobian = sp.Matrix(moved).jacobian(u)
    predicted = sp.diag(*(1 - (horizon - h) * rise / BETA for h in range(horizon)))
    claim.exact(sp.simplify(jacobian - predicted).is_zero_matrix, "1 - k R'(0)/beta, k = 1..H")


@pytest.mark.claim("T6.local_rate", regime="symbolic")
@pytest.mark.parametrize("name", [n for n in NAMES if objectives.get(n).has_link and n != "ipm"])
def test_local_contraction_of_a_round(name, claim):
    # u' = u - R(u)/beta + log Z, and log Z = (R(0) + R'(0) E_q u)/beta + ... has no first order
    obj = symbolic(name)
    reward = link(obj, X, 0 if name in ("ipo", "inpo") else None)
    rise = (X * sp.diff(reward, X)).subs(X, 1)
    claim.exact(sign(rise) == 1, "R'(0) > 0: the factor 1 - R'(0)/beta is below 1")
    edge = (1 - rise / BETA).subs(BETA, rise / 2)
    claim.exact(vanishes(edge + 1), "and -1 at beta = R'(0)/2")
    mean = sp.expand(sp.series(sp.exp(-U) * U + U**2, U, 0, 3).removeO())
    claim.exact(constant(mean - U, U), "q u = p (u - u^2 + ...): E_q u is of second order")


@pytest.mark.claim("T3.one_beta", regime="symbolic")
@pytest.mark.parametrize(
    ("name", "beta"),
    [("airl", 1), ("space", 1), ("brier", 1), ("exponential", sp.Rational(1, 2)), ("nwj", 1)],
)
def test_pointwise_losses_that_are_exact_at_one_beta(name, beta, claim):
    obj = symbolic(name)
    weight = sp.exp(link(obj, X) / beta)
    if name == "nwj":
        claim.exact(vanishes(weight - sp.E * X), "NWJ: log Z = 1 at beta = 1 ...")
        claim.exact(constant(exact(obj.b(R)) * sp.exp(-R), R), "... but E_q b(r) is then fixed")
        return
    claim.exact(vanishes(weight - X), "E_q e^(R/beta) = E_q p/q = 1: the best response is feasible")
    off = sp.exp(link(obj, X) / (2 * beta))
    claim.exact(sign(-sp.diff(off, X, 2)) == 1, "at twice that beta log Z < 0, by Jensen")

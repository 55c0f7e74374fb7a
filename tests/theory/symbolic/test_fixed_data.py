"""T16: rounds on one data set are an autoregression with the data's own covariance."""

import pytest
import sympy as sp

from tests.theory.symbolic.algebra import (
    array,
    exact,
    law,
    link,
    risk,
    symbolic,
    triangular,
    vanishes,
    weights,
)
from theory import objectives
from theory.rounds import two_step as rounds

X = sp.Symbol("x", positive=True)
BETA, STEP, OWN = sp.symbols("beta s K", positive=True)
LINKED = [n for n in objectives.names() if objectives.get(n).has_link and n != "ipm"]


@pytest.mark.claim("T6.fixed_data_floor", "T6.noise_floor", regime="symbolic")
@pytest.mark.parametrize("name", LINKED)
def test_a_round_moves_by_the_step_towards_data_and_own_error(name, claim):
    """d log pi' = (1 - s) d log pi + s d(expert's error - own error), at pi = p, up to a shift."""
    obj, data = symbolic(name), law("p", 3)
    moves, errors = sp.symbols("x1:4", real=True), sp.symbols("e1:4", real=True)
    theirs = sp.symbols("d1:4", real=True)  # of the expert's samples
    log_q = array(*(sp.log(w) + x for w, x in zip(data, moves, strict=True)))
    shown = [sp.exp(x) * (1 + e) for x, e in zip(moves, errors, strict=True)]
    delta = 0 if name in ("ipo", "inpo") else None  # of second order: see below
    ratios = [(1 + d) / r for d, r in zip(theirs, shown, strict=True)]
    reward = array(*(link(obj, X, delta).subs(X, r) for r in ratios))
    after = rounds.gibbs_step(log_q, reward, BETA, None, 0)
    origin = dict.fromkeys((*moves, *errors, *theirs), 0)
    slope = link(obj, X, delta)
    step = (X * sp.diff(slope, X)).subs(X, 1) / BETA
    apart = exact(after[0] - after[1])  # a shift drops out
    for symbols, factor in ((moves, 1 - step), (errors, -step), (theirs, step)):
        for symbol, sign_of in zip(symbols, (1, -1, 0), strict=True):
            found = sp.diff(apart, symbol).subs(origin)
            claim.exact(vanishes(found - sign_of * factor), "1 - s on log pi, s on errors")
    own = array(*(w * r for w, r in zip(data, shown, strict=True)))
    gap = triangular(data, own)
    flat = all(vanishes(sp.diff(gap, x).subs(origin)) for x in (*moves, *errors))
    claim.exact(flat, "Delta is of second order")


@pytest.mark.claim("T6.fixed_data_floor", "T6.noise_floor", regime="symbolic")
def test_the_stationary_covariance_of_that_recursion(claim):
    """Own errors have covariance (diag 1/p - 1)/nK, and 1/n is the data's: n is taken out."""
    p = law("p", 3)
    data = sp.Matrix(3, 3, lambda i, j: sp.KroneckerDelta(i, j) / p[i] - 1)
    sigma = STEP / ((2 - STEP) * OWN) * data
    rest = sigma - (1 - STEP) ** 2 * sigma - STEP**2 / OWN * data
    claim.exact(all(vanishes(e) for e in rest), "Sigma = (1-s)^2 Sigma + s^2 C/K")
    fresh = STEP / (2 - STEP) * (1 + 1 / OWN) * data  # the expert's errors are new as well
    rest = fresh - (1 - STEP) ** 2 * fresh - STEP**2 * (1 + 1 / OWN) * data
    claim.exact(all(vanishes(e) for e in rest), "fresh expert samples: (1 + 1/K) s/(2-s) of C")
    total = data + sigma
    kl = sum(p[i] * total[i, i] for i in range(3)) / 2
    claim.exact(
        vanishes(kl - (1 + STEP / ((2 - STEP) * OWN))), "KL = (N-1)/2 (1 + s/((2-s)K)), N = 3"
    )
    t = sp.Symbol("t", positive=True)
    kept = (1 - STEP) ** t
    after = (1 - STEP) ** 2 * (1 - kept**2) * sigma + STEP**2 / OWN * data
    claim.exact(
        all(vanishes(sp.simplify(e)) for e in after - (1 - kept**2 * (1 - STEP) ** 2) * sigma),
        "own noise after t rounds from none: 1 - (1-s)^{2t} of it",
    )


@pytest.mark.claim("T16.early_stop", regime="symbolic")
def test_the_best_stop_in_closed_form(claim):
    kept, noise = sp.symbols("g v", real=True)
    start, floor = sp.symbols("D F", positive=True)
    kl = kept**2 * start + floor * ((1 - kept) ** 2 + noise * (1 - kept**2))
    best = floor / (start + floor * (1 - noise))
    claim.exact(vanishes(sp.diff(kl, kept).subs(kept, best)), "g = F/(D + F(1-v))")
    least = floor * (1 + noise) - floor * best
    claim.exact(vanishes(kl.subs(kept, best) - least), "least KL")
    border = floor * (1 / noise - 1 + noise)
    claim.exact(vanishes(least.subs(start, border) - floor), "it is F at D = F(1/v - 1 + v)")
    claim.exact(vanishes(sp.diff(least, start) - best**2), "and grows with D")
    gap = kl - kl.subs(noise, 0)
    claim.exact(vanishes(gap - floor * noise * (1 - kept**2)), "own noise costs F v (1 - g^2)")


@pytest.mark.claim("T16.trained_start", regime="symbolic")
def test_when_rounds_improve_on_a_trained_start(claim):
    """The slope of KL in the share that is left, at the start, changes its sign there."""
    kept, noise, shared = sp.symbols("g v c", positive=True)
    start, floor = sp.symbols("D F", positive=True)
    left = (1 - shared) * kept
    kl = left**2 * start + floor * ((1 - left) ** 2 + noise * (1 - kept**2))
    border = floor * (shared / (1 - shared) + noise / (1 - shared) ** 2)
    slope = sp.diff(kl, kept).subs(kept, 1)
    claim.exact(vanishes(slope - 2 * (1 - shared) ** 2 * (start - border)), "2(1-c)^2 (D - border)")
    bare = shared**2 * floor + (1 - shared) ** 2 * start  # supervised fine-tuning's own KL
    best = start / (start + floor)
    claim.exact(vanishes(sp.diff(bare, shared).subs(shared, best)), "SFT's best: c/(1-c) = D/F")
    beyond = (border - start).subs(shared, best)
    what = "there the border is above D by v (D+F)^2/F"
    claim.exact(vanishes(beyond - noise * (start + floor) ** 2 / floor), what)


@pytest.mark.claim("T16.unseen", "T6.tail", regime="symbolic")
def test_moments_of_an_unseen_response(claim):
    """In log time tmq grows at rate 1 and falls by e^-L at rate tmq: its stationary moments."""
    fall, k = sp.symbols("L k", positive=True)
    first = 1 / fall  # E Y, where E log Y rests: 1 = L E Y
    second = 1 / (1 - sp.exp(-fall)) * first  # where E Y rests
    factor = k / (1 - sp.exp(-k * fall))  # E Y^(k+1) / E Y^k
    claim.exact(vanishes(factor.subs(k, 1) * first - second), "moments")
    bound = 1 / (1 - sp.exp(-fall))
    claim.exact(sp.limit(bound / first, fall, 0) == 1, "small L: E Y is T6's bound")
    claim.exact(sp.limit(factor, k, 0) == first, "E Y is the limit of the factor at k = 0")
    head = sp.gamma(k) * (1 - sp.exp(-k * fall))
    slope = sp.series(head, k, 0, 2).removeO()
    rate = sp.simplify(slope.coeff(k, 1) / slope.coeff(k, 0))
    claim.exact(vanishes(rate + sp.EulerGamma + fall / 2), "the head's part of E log Y")
    shift = sp.gamma(k + 1) / sp.gamma(k)
    claim.exact(sp.gammasimp(shift) == k, "Gamma(k+1) = k Gamma(k); the product loses 1 - e^-kL")


@pytest.mark.claim("T16.unseen", regime="symbolic")
def test_the_swing_of_an_unseen_response(claim):
    """X = q/q_0 falls by e^-L at rate X: its moments' series, and the poles of its Mellin form."""
    fall, k, tau = sp.symbols("L k tau", positive=True)

    def coefficient(power, r):
        falls = [1 - sp.exp(-(power + i) * fall) for i in range(r)]
        return (-1) ** r * sp.prod(falls) / sp.factorial(r)

    for r in range(4):  # d/dtau E X^k = -(1 - e^-kL) E X^(k+1), term by term
        left = (r + 1) * coefficient(k, r + 1)
        claim.exact(vanishes(left + (1 - sp.exp(-k * fall)) * coefficient(k + 1, r)), "moments")
    # phi(r) = prod_{j>=1} (1 - e^-jL)/(1 - e^-(r+j)L) goes on what the product of r factors is
    ratio = (1 - sp.exp(-(k + 1) * fall)) / 1
    steps = [(1 - sp.exp(-(k + j) * fall)) / (1 - sp.exp(-(k + 1 + j) * fall)) for j in range(1, 6)]
    rest = 1 - sp.exp(-(k + 6) * fall)
    claim.exact(vanishes(sp.simplify(sp.prod(steps) * rest - ratio)), "phi(r+1) over phi(r)")
    x, n = sp.Symbol("x"), sp.Symbol("n", integer=True)
    turn = sp.exp(-(1 - (1 + 2 * sp.pi * sp.I * n / fall)) * fall)
    claim.exact(sp.simplify(turn) == 1, "1 - e^-(1-z)L is 0 at z = 1 + 2 pi i n/L")
    claim.exact(sp.limit(x / (1 - sp.exp(x * fall)), x, 0) == -1 / fall, "residue -1/L there")
    power = 2 * sp.pi * sp.I * n / fall
    slope = sp.diff(-sp.gamma(1 + power) / -power * tau**-power, tau)
    claim.exact(vanishes(slope + sp.gamma(1 + power) * tau ** (-1 - power)), "E log X, integrated")
    squared = sp.pi * (2 * sp.pi / fall) / sp.sinh(2 * sp.pi**2 / fall)
    for at in (1, 3.8, 6):
        found = abs(complex(sp.gamma(1 + 2 * sp.pi * sp.I / at))) ** 2
        claim.close(found / float(squared.subs(fall, at)), 1.0, 1e-9, what="|Gamma(1 + i w)|^2")


ONE_LOSS = ("spif", "iq_learn", "policy_only", "exponential", "airl", "brier", "space")
ONE_LOSS += ("spin", "spin_exponential", "ipo", "centred_spif", "renyi")


@pytest.mark.claim("T6.k_steps", "T16.inner_path", "T16.inner_floor", regime="symbolic")
@pytest.mark.parametrize("name", ONE_LOSS)
def test_the_gradient_within_a_round_is_linear_in_fishers_matrix(name, claim):
    """Along any direction phi of log pi: gradient h (E_data - E_p) phi, Hessian (h/s) Var phi.

    So steps on it are the module's recursion, whatever the loss.
    """
    obj, theta = symbolic(name), sp.Symbol("theta", real=True)
    p, data, phi = weights("p", 3), weights("w", 3), sp.symbols("f1:4", real=True)
    laws = {both[2]: 1 - both[0] - both[1] for both in (p, data)}
    tilted = [w * sp.exp(theta * f) for w, f in zip(p, phi, strict=True)]
    reward = array(*(BETA * sp.log(x / (w * sum(tilted))) for w, x in zip(p, tilted, strict=True)))

    def derivative(expert, order):
        return sp.diff(risk(obj, reward, expert, p), theta, order).subs(theta, 0).subs(laws)

    def mean(weight, values):
        return sum(w * v for w, v in zip(weight, values, strict=True)).subs(laws)

    covariance = mean(data, phi) - mean(p, phi)
    h = sp.simplify(sp.cancel(sp.together(-derivative(data, 1) / covariance)))
    free = {*p, *data, *phi}
    claim.exact(not h.free_symbols & free, "gradient h (E_data phi - E_p phi), h the loss's number")
    variance = mean(p, [f**2 for f in phi]) - mean(p, phi) ** 2
    slope = link(obj, X, 0 if name == "ipo" else None)
    step = (X * sp.diff(slope, X)).subs(X, 1) / BETA
    claim.exact(vanishes(derivative(p, 2) - h / step * variance), "Hessian (h/s) Var phi")
    k, rho = sp.symbols("k rho", positive=True)
    share = (1 - rho) * (1 - rho**k) / (1 - rho) + rho**k * (1 - rho)
    claim.exact(vanishes(share - (1 - rho ** (k + 1))), "one step more: share 1 - rho^{k+1}")

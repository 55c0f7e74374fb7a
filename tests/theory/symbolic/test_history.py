"""T6, history: the linear maps of rounds against earlier opponents, and their roots, by algebra."""

from __future__ import annotations

import pytest
import sympy as sp

from tests.theory.symbolic.algebra import array, equal, exact, link, symbolic, vanishes, weights

S, M, BETA = sp.symbols("s m beta", positive=True)
Z, EPS, THETA = sp.symbols("z epsilon theta")
NAMES = ["spin", "spif", "gail", "exponential"]


@pytest.mark.claim("T6.history", regime="symbolic")
@pytest.mark.parametrize("name", NAMES)
def test_small_log_ratios_follow_a_line_of_two_terms(name, claim):
    """x' = x - s((1 - m) x + m x_old) + const, s = R'(0)/beta, from the link itself."""
    obj, p = symbolic(name), weights("p", 3)
    p = p / sum(p)
    new, old = (array(*sp.symbols(f"{x}1:4", real=True)) for x in "xy")

    def law(x):
        weight = p * array(*(sp.exp(EPS * e) for e in x))
        return weight / sum(weight)

    mixture = (1 - M) * law(new) + M * law(old)
    u = array(*(sp.log(a / b) for a, b in zip(p, mixture, strict=True)))
    reward = array(*(exact(obj.link(e, None)) for e in u))
    log_next = array(*map(sp.log, law(new))) + reward / BETA
    moved = array(*(sp.diff(e, EPS).subs(EPS, 0) for e in log_next))
    slope = exact(sp.diff(exact(obj.link(Z, None)), Z).subs(Z, 0))
    line = new - slope / BETA * ((1 - M) * new + M * old)
    left = moved - line
    claim.exact(equal(left[1:], left[0]), "a round's derivative less the line: a constant")


@pytest.mark.claim("T6.history", regime="symbolic")
def test_where_the_two_roots_leave_the_circle(claim):
    """Schur-Cohn: both are inside iff b < 1, 1 + a + b > 0 and 1 - a + b > 0."""
    a, b = S * (1 - M) - 1, S * M
    line = Z - S * (1 - M) * Z - S * M
    claim.exact(vanishes(sp.expand(Z**2 - line - (Z**2 + a * Z + b))), "z^2 + a z + b")
    claim.exact(vanishes(1 + a + b - S), "1 + a + b = s > 0")
    claim.exact(vanishes(1 - a + b - (2 - S * (1 - 2 * M))), "1 - a + b = 2 - s(1 - 2m)")
    at_one = (a**2 - 4 * b).subs(S, 1 / M)
    claim.exact(vanishes(at_one - (1 - 4 * M) / M**2), "b = 1: a pair on the circle iff m > 1/4")
    edge = (Z**2 + a * Z + b).subs({S: 2 / (1 - 2 * M), Z: -1})
    claim.exact(vanishes(edge), "s = 2/(1 - 2m): the root -1")
    quarter = sp.Rational(1, 4)
    claim.exact((1 / M - 2 / (1 - 2 * M)).subs(M, quarter) == 0, "both bounds meet at 1/4, 4")


@pytest.mark.claim("T6.history_shares", regime="symbolic")
@pytest.mark.parametrize("h", [1, 2, 3, 4])
def test_the_best_shares_have_one_root(h, claim):
    """P(z) = z^{h+1} - z^h + s sum m_j z^{h-j} is (z + rho)^{h+1}, s = (1 + rho)^{h+1}."""
    rho = sp.Symbol("rho", nonnegative=True)
    step = (1 + rho) ** (h + 1)
    shares = [(1 + (h + 1) * rho) / step]
    shares += [sp.binomial(h + 1, j + 1) * rho ** (j + 1) / step for j in range(1, h + 1)]
    claim.exact(vanishes(sum(shares) - 1), "they sum to 1")
    of_shares = step * sum(share * Z ** (h - j) for j, share in enumerate(shares))
    found = Z ** (h + 1) - Z**h + of_shares - (Z + rho) ** (h + 1)
    claim.exact(sp.simplify(sp.expand(found)) == 0, "one root, -rho, of order h + 1")


@pytest.mark.claim("T6.history_shares", regime="symbolic")
def test_below_step_one_a_share_of_the_last_makes_the_root_less(claim):
    """P = z^2 - (1 - s(1-m)) z + s m rises in m at z < 1; its double root is 1 - sqrt s."""
    of_share = Z**2 - (1 - S * (1 - M)) * Z + S * M
    claim.exact(vanishes(sp.diff(of_share, M) - S * (1 - Z)), "dP/dm = s(1 - z)")
    claim.exact(vanishes(of_share.subs(Z, 1 - S) - S**2 * M), "P(1 - s) = s^2 m > 0")
    root = sp.Symbol("w", positive=True)  # of the step
    best = of_share.subs({M: (1 - root) ** 2 / root**2, S: root**2})
    claim.exact(vanishes(best - (Z - 1 + root) ** 2), "(z - 1 + sqrt s)^2 at (1 - sqrt s)^2/s")
    alone = of_share.subs({M: 1, Z: (1 + sp.sqrt(1 - 4 * S)) / 2})
    claim.exact(vanishes(alone), "the root (1 + sqrt(1 - 4s))/2 at m = 1")


@pytest.mark.claim("T6.history_shares", regime="symbolic")
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_below_step_one_two_ages_make_the_largest_root_a_double_one(k, claim):
    """f(w) = w^{h+1} P(1/w) is (1 - aw)^2 sum q_n w^n, and the certificate that none are better."""
    a, w = sp.symbols("a w", positive=True)
    step = k * a ** (k - 1) * (1 - a) ** 2
    young, old = a ** (k - 1) * (k - (k + 1) * a), a**k * (k * a - k + 1)  # times s
    claim.exact(vanishes(young + old - step), "they sum to 1")
    rest = sum(a**n * (n + 1 - n / a) * w**n for n in range(k))
    found = 1 - w + young * w**k + old * w ** (k + 1) - (1 - a * w) ** 2 * rest
    claim.exact(vanishes(found), "a double root 1/a, the others of q")
    beta = (1 / a - 1) * a**k
    alpha = beta * a * (k + 1 / (1 - a))
    for j in (k - 1, k):
        secant = alpha * a ** -(j + 1) - beta * (j + 1) * a**-j
        claim.exact(vanishes(secant - 1), "1 = alpha W^{j+1} - beta (j+1) W^j at both ages")
    claim.exact(vanishes(alpha * (1 / a - 1) - beta - step), "alpha (W - 1) - beta = s")


@pytest.mark.claim("T6.history_shares", regime="symbolic")
@pytest.mark.parametrize("h", [1, 2, 3, 4])
def test_equal_shares_reach_the_circle_first_at_pi_over_their_number(h, claim):
    """sum cos (j + 1/2) theta = 0 first there, and s = 2 (h+1) sin^2(pi/(2(h+1)))."""
    half = sp.sin(THETA / 2)
    cosines = sum(sp.cos((j + sp.Rational(1, 2)) * THETA) for j in range(h + 1))
    sines = sum(sp.sin((j + sp.Rational(1, 2)) * THETA) for j in range(h + 1))
    for total, closed in (
        (cosines, sp.sin((h + 1) * THETA)),
        (sines, 1 - sp.cos((h + 1) * THETA)),
    ):
        difference = (2 * half * total - closed).rewrite(sp.exp)
        claim.exact(sp.simplify(sp.expand(difference)) == 0, "2 sin(theta/2) times the sum")
    angle = sp.pi / (h + 1)  # the least zero of sin (h+1) theta
    step = 2 * half * (h + 1) / ((1 - sp.cos((h + 1) * THETA)) / (2 * half))
    edge = 2 * (h + 1) * sp.sin(angle / 2) ** 2
    claim.exact(sp.simplify(step.subs(THETA, angle) - edge) == 0, "the step there")


@pytest.mark.claim("T6.history_geometric", regime="symbolic")
def test_the_map_of_a_geometric_memory(claim):
    """y_t = (1 - m) x_t + m y_{t-1}, x_{t+1} = x_t - s y_t: trace, determinant, Schur-Cohn."""
    x, y = sp.symbols("x y")
    seen = (1 - M) * x + M * y
    matrix = sp.Matrix([x - S * seen, seen]).jacobian([x, y])
    trace, determinant = matrix.trace(), matrix.det()
    claim.exact(vanishes(determinant - M), "determinant m")
    claim.exact(vanishes(trace - (1 + M - S * (1 - M))), "trace 1 + m - s(1 - m)")
    claim.exact(vanishes(1 - trace + determinant - S * (1 - M)), "1 - trace + det = s(1 - m)")
    edge = 2 * (1 + M) / (1 - M)
    other = 1 + trace + determinant
    claim.exact(vanishes(other.subs(S, edge)), "at s = 2(1 + m)/(1 - m) a root is -1")
    claim.exact(vanishes(sp.diff(other, S) + (1 - M)), "and 1 + trace + det falls in s")


@pytest.mark.claim("T6.history_average", regime="symbolic")
@pytest.mark.parametrize("t", range(12))
def test_the_average_of_all_opponents_makes_laguerres_polynomials(t, claim):
    """x_{t+1} = x_t - s (x_0 + ... + x_t)/(t+1) with x_0 = 1."""
    mean = sum(sp.laguerre(k, S) for k in range(t + 1)) / (t + 1)
    left = sp.laguerre(t + 1, S) - (sp.laguerre(t, S) - S * mean)
    claim.exact(sp.expand(left) == 0, "L_{t+1}(s)")


@pytest.mark.claim("T6.history_errors", regime="symbolic")
def test_the_stationary_variance_of_that_recursion(claim):
    """Yule and Walker's equations, and the share at which the variance is least."""
    first, second = 1 - S * (1 - M), -S * M
    v = (1 + S * M) / (S * (1 - S * M) * (2 - S * (1 - 2 * M)))
    one = first * v / (1 - second)  # autocovariance of one round apart
    two = first * one + second * v
    claim.exact(vanishes(first * one + second * two + 1 - v), "v = a1 c1 + a2 c2 + 1")
    claim.exact(vanishes(v.subs(M, 0) - 1 / (S * (2 - S))), "without history")
    root = sp.Symbol("w", positive=True)  # the root of the step
    best = (root - 1) / root**2
    claim.exact(vanishes(sp.diff(v, M).subs(M, best).subs(S, root**2)), "stationary at the share")
    least = 1 / (root**2 * (2 - root) ** 2)
    claim.exact(vanishes(v.subs(M, best).subs(S, root**2) - least), "and its variance")
    slope = 2 * S * ((1 + S * M) ** 2 - S) / ((1 - (S * M) ** 2) * (2 - S * (1 - 2 * M)))
    claim.exact(vanishes(sp.diff(v, M) / v - slope), "falls below that share and rises beyond it")


@pytest.mark.claim("T6.driven_out", regime="symbolic")
def test_where_a_rounds_weight_is_concave_in_the_density(claim):
    """x e^{R(-log x)/beta} of SPIF: its second derivative has the sign of s - 2a(1-a) - 2 a^2/x."""
    obj, x = symbolic("spif"), sp.Symbol("x", positive=True)
    a, reward = obj.alpha, link(obj, 1 / x)
    step = -sp.diff(reward, x).subs(x, 1) / BETA
    weight = x * sp.exp(reward / BETA)
    bend = sp.diff(weight, x, 2) * (a + (1 - a) * x) ** 4 / (weight * step)
    claim.exact(equal(bend, step - 2 * a * (1 - a) - 2 * a**2 / x), "the sign of the bend")

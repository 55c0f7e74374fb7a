"""One-step losses written anew, and scipy on them: L-BFGS-B, SLSQP, a trust region, root.

Nothing of the package is used to find a law here: payoffs and their derivatives are those of the
table in theory/README.md, typed again; gradient and Hessian are of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize, root
from scipy.special import expit, log_expit

from theory import laws
from theory.result import FloatArray
from theory.rounds.one_step import OneStep, one_step_round

Payoffs = Callable[[FloatArray], tuple[Any, ...]]
"""a, a', a'', b, b', b'' at rewards r."""


def chi_square(c: float = 1.0, on_expert: float = 0.5, on_own: float = 0.5) -> Payoffs:
    x, y = c * on_expert, c * on_own
    return lambda r: (
        r - x * r**2, 1 - 2 * x * r, -2 * x + 0 * r, -r - y * r**2, -1 - 2 * y * r, -2 * y + 0 * r
    )  # fmt: skip


def logistic(mu: float = 1.0) -> Payoffs:
    def at(r: FloatArray) -> tuple[Any, ...]:
        x = r - np.log(mu)
        up, down = expit(-x), expit(x)
        both = up * down
        return log_expit(x), up, -both, mu * log_expit(-x), -mu * down, -mu * both

    return at


def exponential(r: FloatArray) -> tuple[Any, ...]:
    up, down = np.exp(-r), np.exp(r)
    return -up, up, -up, -down, -down, -down


def nwj(r: FloatArray) -> tuple[Any, ...]:
    e = np.exp(r - 1.0)
    return r, 1.0 + 0 * r, 0 * r, -e, -e, -e


def brier(r: FloatArray) -> tuple[Any, ...]:
    s, z = expit(r), expit(-r)
    a = -(z**2), 2 * s * z**2, 2 * s * z**2 * (z - 2 * s)
    return *a, -(s**2), -2 * s**2 * z, -2 * s**2 * z * (2 * z - s)


def labelled(r: FloatArray) -> tuple[Any, ...]:
    """SPPO's hard labels: squares of the distance to 1/2 and to -1/2."""
    x, y, two = r - 0.5, r + 0.5, 2.0 + 0 * r
    return -(x**2), -2 * x, -two, -(y**2), -2 * y, -two


PAYOFFS: dict[str, Payoffs] = {
    "spif": chi_square(),
    "spif(c=0.7, alpha=0.3)": chi_square(0.7, 0.3, 0.7),
    "iq_learn": chi_square(1.0, 1.0, 0.0),
    "policy_only": chi_square(1.0, 0.0, 1.0),
    "nwj": nwj,
    "exponential": exponential,
    "airl": logistic(),
    "space(mu=3)": logistic(3.0),
    "brier": brier,
    "sppo": labelled,
}


@dataclass(frozen=True)
class Loss:
    """``-sum p a(r) - sum q b(r)``, ``r = s log(pi/w)``, of one prompt's logits z."""

    payoffs: Payoffs
    p: FloatArray
    q: FloatArray
    log_w: FloatArray
    s: float

    def terms(self, log_pi: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Loss, slope and curvature of every outcome in its reward."""
        a, a1, a2, b, b1, b2 = self.payoffs(self.s * (log_pi - self.log_w))
        return -self.p * a - self.q * b, -self.p * a1 - self.q * b1, -self.p * a2 - self.q * b2

    def value(self, z: FloatArray) -> float:
        with np.errstate(all="ignore"):
            return float(self.terms(normal(z))[0].sum())

    def gradient(self, z: FloatArray) -> FloatArray:
        log_pi = normal(z)
        slope = self.terms(log_pi)[1]
        return self.s * (slope - np.exp(log_pi) * slope.sum())

    def hessian(self, z: FloatArray) -> FloatArray:
        log_pi = normal(z)
        pi = np.exp(log_pi)
        _, slope, curvature = self.terms(log_pi)
        centre = np.eye(len(pi)) - pi[:, None]
        spread = np.diag(pi) - np.outer(pi, pi)
        return self.s**2 * (centre * curvature) @ centre.T - self.s * slope.sum() * spread

    def bend(self, log_pi: FloatArray) -> FloatArray:
        """The sign of every loss's second derivative in its own mass, ``f'' - f'/s``."""
        _, slope, curvature = self.terms(log_pi)
        return curvature - slope / self.s


def normal(z: FloatArray) -> FloatArray:
    return z - np.logaddexp.reduce(z)


class Point(NamedTuple):
    """Where a solver stopped: log-law, loss, largest gradient relative to the slopes there."""

    log_pi: FloatArray
    risk: float
    slack: float


def stopped(loss: Loss, z: FloatArray) -> Point:
    log_pi = normal(z)
    size = np.abs(loss.s * loss.terms(log_pi)[1]).max() + 1e-300
    return Point(log_pi, loss.value(z), float(np.abs(loss.gradient(z)).max() / size))


def descend(loss: Loss, z: FloatArray, radius: float = 0.1) -> Point:
    """By a trust region that never moves a logit further than 4 radii: descent, not a search."""
    with np.errstate(all="ignore"):
        found = minimize(
            loss.value,
            z,
            jac=loss.gradient,
            hess=loss.hessian,
            method="trust-exact",
            options={
                "initial_trust_radius": radius,
                "max_trust_radius": 4 * radius,
                "gtol": 1e-14,
                "maxiter": 5000,
            },
        )
    return stopped(loss, found.x)


def settled(loss: Loss, log_pi: FloatArray) -> FloatArray:
    """A log-law next to a stationary one, to rounding: scipy's root of ``s f' = lambda pi``."""

    def equations(y: FloatArray) -> FloatArray:
        x = y[:-1]
        return np.append(loss.s * loss.terms(x)[1] - y[-1] * np.exp(x), np.exp(x).sum() - 1.0)

    multiplier = loss.s * loss.terms(log_pi)[1].sum()
    found = root(equations, np.append(log_pi, multiplier), tol=1e-15)
    return normal(found.x[:-1])


def search(loss: Loss, z: FloatArray) -> Point:
    with np.errstate(all="ignore"):
        options = {"ftol": 0.0, "gtol": 1e-13, "maxiter": 2000, "maxcor": 30}
        found = minimize(loss.value, z, jac=loss.gradient, method="L-BFGS-B", options=options)
    return stopped(loss, found.x)


def constrained(loss: Loss, z: FloatArray) -> Point:
    """SLSQP on the log-masses x, subject to ``sum e^x = 1``: separable, no logits."""
    mass = {
        "type": "eq",
        "fun": lambda x: np.exp(x).sum() - 1.0,
        "jac": lambda x: np.exp(x),
    }
    with np.errstate(all="ignore"):
        found = minimize(
            lambda x: float(loss.terms(x)[0].sum()),
            normal(z),
            jac=lambda x: loss.s * loss.terms(x)[1],
            constraints=[mass],
            bounds=[(-60.0, 0.0)] * len(z),
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 300},
        )
    return stopped(loss, found.x)


class Case(NamedTuple):
    """One prompt: what `one_step_round` takes, and the loss that it minimises."""

    call: dict[str, Any]
    loss: Loss

    def ours(self, branch: str = "near") -> tuple[OneStep, FloatArray]:
        """The round and its log-law, which may be out of range of the law itself."""
        found = one_step_round(**self.call, branch=branch)
        return found, normal(self.loss.log_w + found.reward / self.loss.s)


def case(name: str, rng: np.random.Generator, max_n: int = 50) -> Case:
    """Laws of 2..max_n outcomes, beta in [.25, 4]; every third has an anchor."""
    n = int(rng.integers(2, max_n + 1))
    spread, beta = rng.uniform(0.3, 2.5), float(np.exp(rng.uniform(-1.4, 1.4)))
    p, q, ref = (laws.random_law(rng, (n,), spread) for _ in range(3))
    tau = float(rng.choice([0.0, 0.0, 0.4]))
    call = {"expert": p, "policy": q, "obj": name, "beta": beta, "ref": ref, "tau": tau}
    if name == "sppo":  # (p + q)(r - (P - 1/2))^2 but for a constant
        call["preference"] = wins = rng.random(n)
        p, q = (p + q) * wins, (p + q) * (1.0 - wins)
    log_w = (beta * np.log(call["policy"]) + tau * np.log(ref)) / (beta + tau)
    return Case(call, Loss(PAYOFFS[name], p, q, log_w, beta + tau))


def cases(name: str, seed: int, count: int, max_n: int = 50) -> Iterator[Case]:
    rng = np.random.default_rng([seed, *name.encode()])
    return (case(name, rng, max_n) for _ in range(count))


def apart(x: FloatArray, y: FloatArray) -> float:
    """Total variation of two log-laws."""
    return float(laws.total_variation(np.exp(x), np.exp(y)))


# --- where a local minimum is over ---------------------------------------------------------------


class Neglected(NamedTuple):
    """Laws of n outcomes and one more, which both give ``rare``; where to look for the end."""

    name: str
    seed: int
    n: int
    rare: float
    beta: float
    step: float
    tau: float = 0.0
    spread: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}-{self.n + 1}-{self.rare:g}" + (f"-{self.tau:g}" if self.tau else "")

    def loss(self, beta: float) -> Loss:
        p, q = self.laws()
        s = beta + self.tau
        log_w = (beta * np.log(q) + self.tau * np.log(self.ref)) / s
        return Loss(PAYOFFS[self.name], p, q, log_w, s)

    @property
    def ref(self) -> FloatArray:
        """Uniform: an anchor gives the neglected outcome more mass than policy and expert do."""
        return np.full(self.n + 1, 1.0 / (self.n + 1))

    def laws(self) -> FloatArray:
        both = laws.random_law(np.random.default_rng(self.seed), (2, self.n), self.spread)
        return np.append(both * (1.0 - self.rare), np.full((2, 1), self.rare), axis=1)


def follow(law: Neglected) -> tuple[FloatArray, float]:
    """Log-law and beta shortly before descent, warm-started as beta moves, leaves the minimum."""
    beta, step = law.beta, law.step
    z = descend(law.loss(beta), np.log(law.laws()[1])).log_pi
    while abs(step) > 1e-5:
        after = descend(law.loss(beta * np.exp(step)), z, 0.02).log_pi
        if apart(after, z) > 0.03:
            step *= 0.25
        else:
            z, beta = after, beta * np.exp(step)
        assert 0.05 < beta < 20.0, "no end on the way"
    return z, beta


def end_of_minimum(law: Neglected) -> tuple[FloatArray, float]:
    """Log-law and beta where stationarity has a singular Jacobian, by scipy's root.

    With ``D_i = f_i'' - f_i'/s`` the Hessian on ``sum v = 0`` is singular where
    ``sum pi_i^2/D_i = 0``; multiplied by the one ``D_j < 0`` it is regular where that vanishes.
    """
    start, beta = follow(law)
    n = len(start)
    j = int(np.argmin(law.loss(beta).bend(start)))
    others = np.arange(n) != j

    def equations(y: FloatArray) -> FloatArray:
        loss, log_pi = law.loss(float(np.exp(y[-1]))), y[:n]
        pi, bend = np.exp(log_pi), loss.bend(log_pi)
        singular = pi[j] ** 2 + bend[j] * (pi[others] ** 2 / bend[others]).sum()
        slack = loss.s * loss.terms(log_pi)[1] - y[n] * pi
        return np.concatenate([slack, [pi.sum() - 1.0, singular]])

    loss = law.loss(beta)
    multiplier = loss.s * loss.terms(start)[1].sum()
    found = root(equations, [*start, multiplier, np.log(beta)], tol=1e-13)
    assert np.abs(found.fun).max() < 1e-12
    return found.x[:n], float(np.exp(found.x[-1]))


ENDS = [
    Neglected("spif", 2, 3, 1e-3, 5.0, -0.02),
    Neglected("spif", 2, 3, 1e-2, 5.0, -0.02),
    Neglected("spif", 2, 3, 1e-4, 5.0, -0.02),
    Neglected("iq_learn", 0, 49, 1e-3, 5.0, -0.02),
    Neglected("spif", 2, 3, 1e-3, 5.0, -0.02, 0.4),
    Neglected("iq_learn", 0, 49, 1e-3, 5.0, -0.02, 0.1),
    Neglected("spif", 0, 49, 1e-3, 1.2, -0.02, spread=2.0),
    Neglected("spif", 1, 49, 1e-2, 1.2, -0.02, spread=2.0),
]


def two_outcome_ends(own: float, mass: float) -> Iterator[tuple[FloatArray, FloatArray, float]]:
    """Experts and betas at which SPIF's minimum over two outcomes ends at a given law.

    Let ``q = (own, 1 - own)``, ``pi = (mass, 1 - mass)``, ``p = q + (d, -d)`` and ``G`` the loss as
    a function of ``mass``. Both ``G' = 0`` and ``G'' = 0`` are bilinear in ``d`` and beta, so that
    beta drops out and a quadratic in d is left.
    """
    w, v = np.log(mass / own), np.log((1.0 - mass) / (1.0 - own))
    x, y = 1.0 / mass, 1.0 / (1.0 - mass)
    first = np.poly1d([w * x + v * y, 2 * own * w * x - 2 * (1 - own) * v * y])
    of_first = np.poly1d([x + y, 0.0])  # beta first(d) = of_first(d)
    g, h = (1.0 - w) * x**2, (1.0 - v) * y**2
    second, of_second = (
        np.poly1d([g - h, 2 * own * g + 2 * (1 - own) * h]),
        np.poly1d([y**2 - x**2, 0.0]),
    )
    for d in (first * of_second - second * of_first).roots:
        if abs(d.imag) < 1e-12 and abs(d.real) > 1e-12 and 0.0 < own + d.real < 1.0:
            beta = float(of_first(d.real) / first(d.real))
            if beta > 0:
                yield np.array([own + d.real, 1 - own - d.real]), np.array([own, 1 - own]), beta


def two_outcome_slope(p: FloatArray, q: FloatArray, beta: float, mass: Any) -> Any:
    """``G'(mass)`` of SPIF at c = 1, over beta."""
    law = np.stack([np.asarray(mass), 1.0 - np.asarray(mass)], axis=-1)
    slope = ((p + q) * beta * np.log(law / q) - (p - q)) / law
    return slope[..., 0] - slope[..., 1]

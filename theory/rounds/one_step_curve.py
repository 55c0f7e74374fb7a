"""The curve of stationary laws of one-step rounds in beta: its equations, its points (T4 e).

Stationary laws of a pointwise loss are zeros of n + 1 equations in ``x = log pi``, the multiplier
lambda and ``b = log beta``,

    s f_i'(r_i) = lambda pi_i,   sum pi = 1,   s = beta + tau,
    r_i = s x_i - beta log pi_t(i) - tau log pi_ref(i),

a curve whose arclength is measured by ``sum pi dx^2 + db^2``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.errors import NotConverged
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.one_step_problem import BoolArray, slopes

CORRECTIONS = 12
SOLVED = 1e-13


@dataclass(frozen=True)
class Point:
    """``y = (x, lambda, b)`` of n + 2 numbers, the unit tangent there, and the sign of the
    determinant of the Jacobian above the tangent, which is one along the whole curve."""

    y: FloatArray
    tangent: FloatArray
    orientation: float

    @property
    def beta(self) -> float:
        """Weight of the KL step there."""
        return float(np.exp(self.y[-1]))


@dataclass(frozen=True)
class Curve:
    """The n + 1 equations of one prompt, on the outcomes that have mass."""

    obj: Objective
    p: FloatArray
    q: FloatArray
    log_ref: FloatArray
    tau: float
    live: BoolArray

    def reward(self, y: FloatArray) -> FloatArray:
        """Implicit rewards (n,), nats."""
        x, beta = y[:-2], np.exp(y[-1])
        anchored = self.tau * (x - self.log_ref) if self.tau > 0 else 0.0
        return np.asarray(beta * (x - np.log(self.q)) + anchored)

    def forces(self, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """``f'`` and ``f''``, and the size of what cancels in ``f'``."""
        r = self.reward(y)
        with np.errstate(all="ignore"):
            (a1, a2), (b1, b2) = slopes(self.obj.a, r), slopes(self.obj.b, r)
        up, down = self.p * a1, self.q * b1
        return -up - down, -self.p * a2 - self.q * b2, np.abs(up) + np.abs(down)

    def risk(self, y: FloatArray) -> float:
        """``sum f_i(r_i)``: the loss of the round."""
        r = self.reward(y)
        return float(
            (-self.p * np.asarray(self.obj.a(r)) - self.q * np.asarray(self.obj.b(r))).sum()
        )

    def equations(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Residual (n + 1,) and its Jacobian (n + 1, n + 2), rows over the size of their terms."""
        x, lam, beta = y[:-2], y[-2], np.exp(y[-1])
        n, s = len(x), beta + self.tau
        pi, (first, second, pull) = np.exp(x), self.forces(y)
        jacobian = np.zeros((n + 1, n + 2))
        jacobian[:n, :n] = np.diag(s**2 * second - lam * pi)
        jacobian[:n, n] = -pi
        jacobian[:n, n + 1] = beta * first + s * second * beta * (x - np.log(self.q))
        jacobian[n, :n] = pi
        size = s**2 * np.abs(second) + s * pull + np.abs(lam) * pi + 1e-300
        residual = np.append((s * first - lam * pi) / size, pi.sum() - 1.0)
        jacobian[:n] /= size[:, None]
        return residual, jacobian

    def weights(self, y: FloatArray) -> FloatArray:
        """Of the arclength: lambda follows from the others and has none."""
        return np.append(np.exp(y[:-2]), [0.0, 1.0])

    def point(self, y: FloatArray, before: FloatArray) -> Point:
        """With the unit tangent that has a positive product with the one before."""
        weights, jacobian = self.weights(y), self.equations(y)[1]
        rows = np.vstack([jacobian, weights * before])
        found = np.linalg.solve(rows, np.append(np.zeros(len(y) - 1), 1.0))
        unit = found / np.sqrt((weights * found**2).sum())
        return Point(y, unit, np.linalg.slogdet(np.vstack([jacobian, weights * unit]))[0])

    def corrected(self, guess: FloatArray, row: FloatArray) -> FloatArray | None:
        """The point of the curve in the hyperplane of a guess, by Newton's method."""
        y = guess.copy()
        for _ in range(CORRECTIONS):
            residual, jacobian = self.equations(y)
            if not np.isfinite(residual).all():
                return None
            try:
                step = np.linalg.solve(
                    np.vstack([jacobian, row]), np.append(-residual, row @ (guess - y))
                )
            except np.linalg.LinAlgError:
                return None
            if np.abs(step[:-2]).max() > 2.0:
                return None
            y = y + step
            size = np.abs(step[:-2])  # masses are asked for to rounding, their logarithms to less
            if size.max() <= 1e-9 and (np.exp(y[:-2]) * size).max() <= 1e-14:
                return y if np.abs(self.equations(y)[0]).max() <= SOLVED else None
        return None

    def at_beta(self, guess: FloatArray, beta: float) -> FloatArray | None:
        """The point of the curve at a beta."""
        fixed = np.append(guess[:-1], np.log(beta))
        return self.corrected(fixed, np.append(np.zeros(len(guess) - 1), 1.0))

    def on_curve(self, reward: FloatArray, multiplier: float, beta: float) -> FloatArray:
        """A point from the implicit reward at ``beta``."""
        prior = beta * np.log(self.q) + (self.tau * self.log_ref if self.tau > 0 else 0.0)
        guess = np.append((reward + prior) / (beta + self.tau), [multiplier, np.log(beta)])
        found = self.at_beta(guess, beta)
        if found is None:
            raise NotConverged(f"{self.obj.name}: no stationary law to rounding at beta={beta:.6g}")
        return found

    def bend(self, y: FloatArray) -> FloatArray:
        """``s^2 f'' - s f'``: the sign of every loss's curvature in its own mass."""
        first, second, _ = self.forces(y)
        s = np.exp(y[-1]) + self.tau
        return np.asarray(s**2 * second - s * first)

    def is_minimum(self, y: FloatArray) -> bool:
        """Whether ``sum bend v^2 > 0`` wherever ``sum pi v = 0``: at most one is below 0."""
        bend, pi = self.bend(y), np.exp(y[:-2])
        below = bend < 0
        return bool(not below.any() or (below.sum() == 1 and (pi**2 / bend).sum() < 0))

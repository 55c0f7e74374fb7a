"""The curve of stationary laws of one-step rounds in beta: its equations, its points (T4 e).

Stationary laws of a pointwise loss are zeros of n + 1 equations in ``x = log pi``, the multiplier
lambda and ``b = log beta``,

    s f_i'(r_i) = lambda pi_i,   sum pi = 1,   s = beta + tau,
    r_i = s x_i - beta log pi_t(i) - tau log pi_ref(i),

a curve whose arclength is measured by ``sum pi dx^2 + db^2``. Each outcome meets the others in
lambda, b and the sum alone, so the Jacobian is a diagonal with a border, and a step costs O(n).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from theory.errors import NotConverged
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.one_step_problem import BoolArray, payoff_slopes

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


class Bordered:
    """A diagonal (n,), columns (n, k) to its right, rows (k, n + k) below: a square matrix.

    Its smallest entry on the diagonal, which may vanish where a loss has no curvature, goes to the
    border; what is left is eliminated.
    """

    def __init__(self, diagonal: FloatArray, columns: FloatArray, rows: FloatArray) -> None:
        n, k = columns.shape
        self.diagonal, self.columns, self.rows = diagonal, columns, rows
        self.out = int(np.argmin(np.abs(diagonal)))
        self.kept = np.arange(n) != self.out
        self.down = diagonal[self.kept]
        self.right = np.column_stack([np.zeros(n - 1), columns[self.kept]])
        self.below = np.vstack([np.zeros(n - 1), rows[:, :n][:, self.kept]])
        corner = np.zeros((k + 1, k + 1))
        corner[0] = np.append(diagonal[self.out], columns[self.out])
        corner[1:] = np.column_stack([rows[:, self.out], rows[:, n:]])
        self.corner = corner - self.below @ (self.right / self.down[:, None])

    def solve(self, value: FloatArray) -> FloatArray:
        """The x (n + k,) that the matrix turns into ``value``. LinAlgError: it is singular."""
        n = len(self.diagonal)
        mine = value[:n][self.kept]
        edge = np.append(value[self.out], value[n:]) - self.below @ (mine / self.down)
        border = np.linalg.solve(self.corner, edge)
        x = np.empty(len(value))
        x[:n][self.kept] = (mine - self.right @ border) / self.down
        x[self.out], x[n:] = border[0], border[1:]
        return x

    def sign(self) -> float:
        """Of the determinant."""
        return float(np.sign(self.down).prod() * np.linalg.slogdet(self.corner)[0])

    def transposed(self) -> Bordered:
        """Its transpose."""
        n = len(self.diagonal)
        return Bordered(
            self.diagonal, self.rows[:, :n].T, np.column_stack([self.columns.T, self.rows[:, n:].T])
        )

    def __matmul__(self, x: FloatArray) -> FloatArray:
        n = len(self.diagonal)
        return np.append(self.diagonal * x[:n] + self.columns @ x[n:], self.rows @ x)

    def condition(self) -> float:
        """Smallest singular value over the largest, by 10 inverse and 100 direct iterations."""
        turned = self.transposed()
        small = large = np.full(len(self.diagonal) + len(self.rows), 1.0)
        for _ in range(100):
            large = turned @ (self @ (large / np.linalg.norm(large)))
        for _ in range(10):
            small = self.solve(turned.solve(small / np.linalg.norm(small)))
        return float(1.0 / np.sqrt(np.linalg.norm(small) * np.linalg.norm(large)))


@dataclass(frozen=True)
class Jacobian:
    """Of the equations in (x, lambda, b): diagonal (n,) and columns (n, 2); below them ``pi``."""

    diagonal: FloatArray
    columns: FloatArray
    pi: FloatArray

    def over(self, row: FloatArray) -> Bordered:
        """With a further row (n + 2,)."""
        total = np.append(self.pi, [0.0, 0.0])
        return Bordered(self.diagonal, self.columns, np.vstack([total, row]))

    def at_fixed_beta(self) -> Bordered:
        """In (x, lambda)."""
        return Bordered(self.diagonal, self.columns[:, :1], np.append(self.pi, 0.0)[None, :])


@dataclass(frozen=True)
class Curve:
    """The n + 1 equations of one prompt, on the outcomes that have mass."""

    obj: Objective
    p: FloatArray
    q: FloatArray
    log_ref: FloatArray
    tau: float
    live: BoolArray

    @cached_property
    def log_q(self) -> FloatArray:
        """Of the policy (n,)."""
        return np.log(self.q)

    def reward(self, y: FloatArray) -> FloatArray:
        """Implicit rewards (n,), nats."""
        x, beta = y[:-2], np.exp(y[-1])
        anchored = self.tau * (x - self.log_ref) if self.tau > 0 else 0.0
        return np.asarray(beta * (x - self.log_q) + anchored)

    def forces(self, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """``f'`` and ``f''``, and the size of what cancels in ``f'``."""
        with np.errstate(all="ignore"):
            (a1, a2), (b1, b2) = payoff_slopes(self.obj, self.reward(y))
        up, down = self.p * a1, self.q * b1
        return -up - down, -self.p * a2 - self.q * b2, np.abs(up) + np.abs(down)

    def risk(self, y: FloatArray) -> float:
        """``sum f_i(r_i)``: the loss of the round."""
        r = self.reward(y)
        return float(
            (-self.p * np.asarray(self.obj.a(r)) - self.q * np.asarray(self.obj.b(r))).sum()
        )

    def equations(self, y: FloatArray) -> tuple[FloatArray, Jacobian]:
        """Residual (n + 1,) and its Jacobian, the first n rows over the size of their terms."""
        x, lam, beta = y[:-2], y[-2], np.exp(y[-1])
        s = beta + self.tau
        pi, (first, second, pull) = np.exp(x), self.forces(y)
        size = s**2 * np.abs(second) + s * pull + np.abs(lam) * pi + 1e-300
        along = beta * first + s * second * beta * (x - self.log_q)
        columns = np.column_stack([-pi, along]) / size[:, None]
        residual = np.append((s * first - lam * pi) / size, pi.sum() - 1.0)
        return residual, Jacobian((s**2 * second - lam * pi) / size, columns, pi)

    def weights(self, y: FloatArray) -> FloatArray:
        """Of the arclength: lambda follows from the others and has none."""
        return np.append(np.exp(y[:-2]), [0.0, 1.0])

    def point(self, y: FloatArray, before: FloatArray) -> Point:
        """With the unit tangent that has a positive product with the one before."""
        weights, jacobian = self.weights(y), self.equations(y)[1]
        found = jacobian.over(weights * before).solve(np.append(np.zeros(len(y) - 1), 1.0))
        unit = found / np.sqrt((weights * found**2).sum())
        return Point(y, unit, jacobian.over(weights * unit).sign())

    def corrected(self, guess: FloatArray, row: FloatArray) -> FloatArray | None:
        """The point of the curve in the hyperplane of a guess, by Newton's method."""
        y = guess.copy()
        for _ in range(CORRECTIONS):
            residual, jacobian = self.equations(y)
            if not np.isfinite(residual).all():
                return None
            try:
                step = jacobian.over(row).solve(np.append(-residual, row @ (guess - y)))
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
        prior = beta * self.log_q + (self.tau * self.log_ref if self.tau > 0 else 0.0)
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

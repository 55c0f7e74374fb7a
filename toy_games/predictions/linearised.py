"""One round of gradient steps near its minimiser: what it minimises, how fast, and to what noise.

Let ``theta*`` minimise a round's expected loss, H its Hessian there, and C the covariance of one
example's gradient (a pair of responses, or a group a side). Steps of size s on m independent
examples obey, to first order in the error ``e = theta - theta*`` (reconstruction),

    e_{k+1} = (I - s H) e_k + s xi_k,      Cov xi_k = C/m.

(1) Without noise a direction of eigenvalue lambda shrinks by ``1 - s lambda`` a step.
(2) The stationary covariance solves the discrete Lyapunov equation
    ``Sigma = (I - sH) Sigma (I - sH) + s^2 C/m``; in H's basis
    ``Sigma_ij = s^2 C_ij/m / (1 - (1 - s l_i)(1 - s l_j))``, about ``s/m C_ij/(l_i + l_j)``: a
    floor of slope 1 in log(s/m).
(3) Directions that do not move the law (a softmax's common shift) have lambda = 0 and no noise,
    and drop out.

Near the expert, where the opponent is ``pi_t = p e^{-u}``, H is ``h/(1 - rho)`` times Fisher's
matrix F, with h the scale of the first gradient (`self_play.sft_scale`) and rho the factor of an
exact round. So k steps at the rate ``r`` (SFT units) multiply an eigen-direction of F by

    1 - (1 - rho) (1 - (1 - r lambda/(1 - rho))^k),

which is SFT's ``1 - r lambda`` at k = 1 for every objective (T15) and rho for many steps (T6).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from math import factorial, prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from theory.errors import NotConverged, refuse
from theory.objectives import Objective
from theory.objectives.implicit import implicit_reward
from theory.result import FloatArray
from theory.rounds.minimum import minimum
from toy_games.engine.policies import Policy
from toy_games.engine.trainable import grouped

SMALLER = "a smaller rate or effective step may help"
SETTLED = 1e-10
MOST_EXAMPLES = 200_000


class ExampleLaws(NamedTuple):
    """All examples that one draw can give, as laws: ``probability`` (S,), the rest (S, N)."""

    probability: Tensor
    expert: Tensor
    own: Tensor
    history: Tensor


@dataclass(frozen=True, eq=False)
class RoundLoss:
    """One round on one prompt: the loss that its steps descend.

    Attributes:
        policy: class of policies of one prompt.
        objective: None is SFT.
        expert: law (N,) of expert responses.
        opponent: log-law (N,) that own responses are drawn from and log-ratios divide by.
        beta, tau: weights of the KL step and of the anchor.
        log_ref: log-law (N,) of the anchor; None without one.
        history: law (N,) of the history term; None without one.
        group: responses a side and example of a group objective; None takes the exact laws.
    """

    policy: Policy
    objective: Objective | None
    expert: Tensor
    opponent: Tensor
    beta: float
    tau: float = 0.0
    log_ref: Tensor | None = None
    history: Tensor | None = None
    group: int | None = None

    def __post_init__(self) -> None:
        """Refuse more than one prompt, and groups too many to enumerate."""
        n = self.policy.shape[1]
        groups = _multisets(n, self.group or 1) ** 2 if grouped(self.objective) else 1
        problems = [f"policy: {self.policy.shape[0]} prompts; needed is 1"]
        problems = problems if self.policy.shape[0] != 1 else []
        if groups > MOST_EXAMPLES:
            problems.append(
                f"group={self.group}: {groups} pairs of groups of {n} responses; needed are at "
                f"most {MOST_EXAMPLES}"
            )
        refuse(problems)

    def log_law(self, theta: Tensor) -> Tensor:
        """``log pi`` (N,) of parameters (P,)."""
        return self.policy.log_law(theta[None])[0, 0]

    def risk(self, theta: Tensor) -> Tensor:
        """Expected loss of parameters (P,): a number."""
        log_law = self.log_law(theta)
        if grouped(self.objective) and self.group is not None:
            return self.examples.probability @ self.losses(log_law.expand_as(self.examples.own))
        history = self.opponent.exp() if self.history is None else self.history
        one = ExampleLaws(
            torch.ones(1), self.expert[None], self.opponent.exp()[None], history[None]
        )
        return self._losses(log_law[None], one)[0]

    def losses(self, log_laws: Tensor) -> Tensor:
        """Loss (S,) of every example, each with its own copy of the log-law (S, N)."""
        return self._losses(log_laws, self.examples)

    def _losses(self, log_laws: Tensor, examples: ExampleLaws) -> Tensor:
        if self.objective is None:
            return -(examples.expert * log_laws).sum(-1)
        reward = implicit_reward(
            self.objective, log_laws, self.opponent, self.beta, self.log_ref, self.tau
        )
        extras = {}
        if "history" in self.objective.needs:
            extras = {"r_history": reward, "history_law": examples.history}
        return self.objective.reward_risk(reward, reward, examples.expert, examples.own, **extras)

    @cached_property
    def examples(self) -> ExampleLaws:
        """Every example with its probability: pairs, triples with a history, or pairs of groups."""
        n, p, q = len(self.expert), self.expert, self.opponent.exp()
        size = (self.group or 1) if grouped(self.objective) else 1
        shares, first = _empirical(p, size)
        _, second = _empirical(q, size)
        third, kinds = torch.ones(1, dtype=torch.float64), torch.full((1, n), 1.0 / n)
        if self.history is not None:
            third, kinds = self.history, torch.eye(n)
        i, j, k = (x.flatten() for x in torch.meshgrid(
            *(torch.arange(len(x)) for x in (first, second, third)), indexing="ij"
        ))  # fmt: skip
        kinds = kinds.to(torch.float64)
        return ExampleLaws(first[i] * second[j] * third[k], shares[i], shares[j], kinds[k])

    def minimise(self, start: Tensor) -> Tensor:
        """Stationary parameters (P,) of least risk near ``start``.

        See `theory.rounds.minimum`; in flat directions it stays where it is.

        Raises:
            NotConverged: the gradient stays above 1e-10, or is not finite at the start.
        """
        with torch.enable_grad():
            point = start.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.risk(point), point)
        if not gradient.isfinite().all():
            raise NotConverged(f"the round starts where steps have diverged; {SMALLER}", start)
        try:
            return torch.from_numpy(minimum(self.risk, start.numpy(), SETTLED, "the round"))
        except NotConverged as error:
            raise NotConverged(f"{error}; {SMALLER}", torch.from_numpy(error.solution)) from None

    def hessian(self, theta: Tensor) -> Tensor:
        """Second derivative (P, P) of the risk."""
        with torch.enable_grad():
            return torch.autograd.functional.hessian(self.risk, theta)

    def jacobian(self, theta: Tensor) -> Tensor:
        """Derivative (N, P) of the log-law."""
        with torch.enable_grad():
            return torch.autograd.functional.jacobian(self.log_law, theta)

    def noise(self, theta: Tensor) -> Tensor:
        """Covariance (P, P) of one example's gradient, by enumeration."""
        with torch.enable_grad():
            copies = self.log_law(theta).detach().expand(self.examples.own.shape)
            copies = copies.clone().requires_grad_()
            (by_law,) = torch.autograd.grad(self.losses(copies).sum(), copies)
        gradients = by_law @ self.jacobian(theta)
        weight = self.examples.probability[:, None]
        gradients = gradients - (weight * gradients).sum(0)
        return gradients.T @ (weight * gradients)

    def near(self, theta: Tensor) -> Local:
        """The linearised round at its minimiser ``theta`` (P,)."""
        values, vectors = torch.linalg.eigh(self.hessian(theta))
        kept = values > 1e-8 * values.max()
        values, vectors = values[kept], vectors[:, kept]
        law = self.log_law(theta).exp()
        moves = law.sqrt()[:, None] * (self.jacobian(theta) @ vectors)
        return Local(theta, values, vectors, moves, vectors.T @ self.noise(theta) @ vectors)


class Local(NamedTuple):
    """A round to first order around its minimiser, in the eigenvectors of its Hessian.

    Distances are of laws: ``D^2 = E_{pi*}[(log pi - log pi*)^2]``, about twice the KL divergence.
    """

    theta: Tensor
    values: Tensor
    vectors: Tensor
    moves: Tensor
    noise: Tensor

    def rate(self, step_size: float) -> float:
        """Factor of the slowest direction, a step."""
        return float((1.0 - step_size * self.values).abs().max())

    def decay(self, theta: Tensor, step_size: float, steps: ArrayLike) -> FloatArray:
        """Distances D (K,) after so many noiseless steps from ``theta``."""
        factors = (1.0 - step_size * self.values) ** torch.tensor(np.asarray(steps))[:, None]
        error = self.vectors.T @ (theta - self.theta)
        return ((factors * error) @ self.moves.T).norm(dim=-1).numpy()

    def floor(self, step_size: float, examples: int) -> float:
        """Stationary ``E D^2`` of steps on batches of so many independent examples."""
        factors = 1.0 - step_size * self.values
        sigma = step_size**2 / examples * self.noise / (1.0 - factors[:, None] * factors)
        return float(((self.moves @ sigma) * self.moves).sum())


def step_factor(rho: float, rate: float, eigenvalue: float, steps: ArrayLike) -> FloatArray:
    """Factor of a round of k gradient steps near the expert (see the module's head).

    Args:
        rho: factor of the exact round; SFT's is 0.
        rate: learning rate, SFT units.
        eigenvalue: of Fisher's matrix, of the direction.
        steps: k.
    """
    inner = (1.0 - rate * eigenvalue / (1.0 - rho)) ** np.asarray(steps, dtype=np.float64)
    return np.asarray(1.0 - (1.0 - rho) * (1.0 - inner))


def fisher(policy: Policy, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (P,) and eigenvectors (P, P) of Fisher's matrix of one prompt, ascending."""
    with torch.enable_grad():
        found = torch.autograd.functional.jacobian(lambda x: policy.log_law(x[None])[0, 0], theta)
    law = policy.log_law(theta[None])[0, 0].exp()
    values, vectors = torch.linalg.eigh(found.T @ (law[:, None] * found))
    return values, vectors


def distance(log_law: Tensor, target: Tensor) -> Tensor:
    """``D`` of log-laws (..., N) from a target (N,): root mean square log-ratio under it."""
    return (target.exp() * (log_law - target).square()).sum(-1).sqrt()


def _multisets(n: int, size: int) -> int:
    return factorial(n + size - 1) // (factorial(size) * factorial(n - 1))


def _empirical(law: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Empirical laws (M, n) of all multisets of ``size`` outcomes, and their probabilities (M,)."""
    n = len(law)
    kinds = combinations_with_replacement(range(n), size)
    counts = np.array([np.bincount(kind, minlength=n) for kind in kinds])
    ways = np.array([factorial(size) / prod(map(factorial, row)) for row in counts.tolist()])
    weight = torch.from_numpy(counts.astype(np.float64))
    return weight / size, torch.from_numpy(ways) * (law**weight).prod(-1)

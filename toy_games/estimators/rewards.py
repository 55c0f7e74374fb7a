"""KL penalties, preferences estimated from samples, policy gradients: what they estimate.

``k = log pi/ref`` of a sequence, ``k_h`` of a token, ``S = grad log pi``; responses are drawn from
``pi_theta`` itself unless said. What each one is in expectation, checked by enumeration:

* k1 = k as a loss: nothing, because ``E_pi S = 0``.
* k2 = k^2/2 as a loss (derivative ``k S``): KL(pi||ref), unbiased on fresh samples. On samples of
  ``pi_t``: ``E_{pi_t} k^2/2``, which is no KL.
* k3 = e^-k - 1 + k as a loss (derivative ``(1 - e^-k) S``): KL(ref||pi), the other direction.
* k1 in the reward, whole or as each token's reward to go: KL(pi||ref), unbiased; on samples of
  ``pi_t`` if reweighted by ``pi/pi_t``.
* k2 in the reward: ``E_pi k^2/2`` less KL(pi||ref). k3 in the reward: KL(pi||ref) less KL(ref||pi).
* k1, k2, k3 token by token as losses: nothing; the token KLs at prefixes held fixed; those in the
  other direction. What misses is the score of earlier tokens: right for last tokens only.
* The token KL over the whole vocabulary at sampled prefixes: the same, with less noise; with the
  score of earlier tokens KL(pi||ref), unbiased and with the least noise.
* SPPO's target from K own samples compared with each other, or from single coin flips: SPPO's risk,
  unbiased because its gradient is linear in the target. With each sample's comparison with itself:
  targets shrunk towards 1/2 by (K-1)/K.
* A squared loss to the logit of that share: its risk + O(1/K), because the logit is not linear.
* A policy gradient without baseline or with the others' mean: the expected reward, unbiased. With
  the group's mean: (K-1)/K of it, a smaller step in the same direction. That divided by the
  group's standard deviation: another direction for small K; 1/deviation of it as K grows.
* The others' mean, and each response's mean over its tokens: ``E R/|y|`` less ``E R E 1/|y|``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from theory import objectives
from toy_games.estimators.enumeration import Draws, Estimator, gradient
from toy_games.estimators.losses import EstimationProblem

SPREAD = 1e-4
"""Added to a group's standard deviation before dividing by it, as trainers do."""


# -- KL penalties ---------------------------------------------------------------------------------


class _Kl:
    """Log-ratios to the reference of a problem's policy, whole and token by token."""

    def __init__(self, problem: EstimationProblem) -> None:
        self.problem = problem
        self.log_policy_ref = problem.policy.log_policy(problem.theta_ref[None])
        self.tokens_ref = problem.policy.along(self.log_policy_ref)[0, 0]

    def sequence(self, theta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """``log pi`` and ``k`` of the drawn responses (T,)."""
        score = self.problem.log_law(theta).gather(-1, y)[:, 0]
        return score, score - self.problem.log_ref[y[:, 0]]

    def tokens(self, theta: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """``log pi`` and ``k_h`` of the drawn responses' tokens (T, H), 0 after the end."""
        policy = self.problem.policy
        score = _of(policy.along(policy.log_policy(theta))[:, 0], y)
        return score, score - self.tokens_ref[y[:, 0]]

    def conditional(self, theta: Tensor, forward: bool = False) -> Tensor:
        """Token KL over the vocabulary at every token's prefix (T, N, H), 0 after the end."""
        policy = self.problem.policy
        log_policy = policy.log_policy(theta)
        ref = self.log_policy_ref.expand_as(log_policy)
        live = torch.isfinite(log_policy)
        ratio = torch.where(live, log_policy - ref, 0.0)
        weight = -ref.exp() if forward else log_policy.exp()
        kl = (weight * ratio).sum(-1, keepdim=True)
        return policy.along(kl.expand_as(log_policy))[:, 0]

    def at_fixed_prefixes(self, theta: Tensor, forward: bool = False) -> Tensor:
        """Sum of the token KLs (B,), at prefixes of a law that is not differentiated."""
        law = self.problem.law(self.problem.theta)
        return self.conditional(theta, forward).sum(-1) @ law

    def divergence(self, theta: Tensor) -> Tensor:
        """``KL(pi||ref)`` (B,)."""
        log_law = self.problem.log_law(theta)
        return (log_law.exp() * (log_law - self.problem.log_ref)).sum(-1)

    def reverse(self, theta: Tensor) -> Tensor:
        """``KL(ref||pi)`` (B,)."""
        ref = self.problem.log_ref
        return (ref.exp() * (ref - self.problem.log_law(theta))).sum(-1)


def kl_penalties(problem: EstimationProblem) -> list[Estimator]:
    """The estimators of a KL penalty in use, at ``theta``, each for the gradient of KL(pi||ref)."""
    kl, theta = _Kl(problem), problem.theta
    target, reverse = gradient(kl.divergence, theta), gradient(kl.reverse, theta)
    fixed, fixed_reverse = (
        gradient(partial(kl.at_fixed_prefixes, forward=f), theta) for f in (False, True)
    )
    nothing = torch.zeros_like(target)
    fresh, old = problem.law(theta), problem.log_t.exp()

    def square(t: Tensor) -> Tensor:
        log_law = problem.log_law(t)
        return 0.5 * (log_law.exp() * (log_law - problem.log_ref) ** 2).sum(-1)

    def old_square(t: Tensor) -> Tensor:
        return 0.5 * ((problem.log_law(t) - problem.log_ref) ** 2 @ old)

    def entry(
        name: str,
        loss: Callable[[Tensor, Tensor], Tensor],
        really: str,
        predicted: Tensor,
        law: Tensor = fresh,
    ) -> Estimator:
        return Estimator(
            "KL penalty", name, theta, "KL(pi||ref)", target, (Draws(law),), loss, really, predicted
        )

    def whole(value: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda t, y: value(kl.sequence(t, y)[1])

    def scored(value: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def loss(t: Tensor, y: Tensor) -> Tensor:
            score, k = kl.sequence(t, y)
            return score * value(k).detach()

        return loss

    def tokenwise(value: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda t, y: value(kl.tokens(t, y)[1]).sum(-1)

    def to_go(t: Tensor, y: Tensor) -> Tensor:
        score, k = kl.tokens(t, y)
        return (score * _later(k).detach()).sum(-1)

    def vocabulary(t: Tensor, y: Tensor) -> Tensor:
        return _of(kl.conditional(t), y).sum(-1)

    def vocabulary_scored(t: Tensor, y: Tensor) -> Tensor:
        score, later = kl.tokens(t, y)[0], _of(kl.conditional(t), y)
        return later.sum(-1) + (score * (_later(later) - later).detach()).sum(-1)

    def reweighted(t: Tensor, y: Tensor) -> Tensor:
        score, k = kl.sequence(t, y)
        return score * (k * torch.exp(score - problem.log_t[y[:, 0]])).detach()

    squared, squared_old = gradient(square, theta), gradient(old_square, theta)
    same, wrong_way = "KL(pi||ref)", "KL(ref||pi)"
    prefixes = "token KLs at fixed prefixes"
    return [
        entry("k1 as a loss", whole(_k1), "nothing (0)", nothing),
        entry("k2 as a loss", whole(_k2), same, target),
        entry("k3 as a loss", whole(_k3), wrong_way, reverse),
        entry("k1 in the reward", scored(_k1), same, target),
        entry("k1 in the reward to go", to_go, same, target),
        entry("k2 in the reward", scored(_k2), f"E k²/2 - {same}", squared - target),
        entry("k3 in the reward", scored(_k3), f"{same} - {wrong_way}", target - reverse),
        entry("k1 a token, as a loss", tokenwise(_k1), "nothing (0)", nothing),
        entry("k2 a token, as a loss", tokenwise(_k2), prefixes, fixed),
        entry("k3 a token, as a loss", tokenwise(_k3), f"{prefixes}, ref||pi", fixed_reverse),
        entry("vocabulary KL at prefixes", vocabulary, prefixes, fixed),
        entry("vocabulary KL + score of prefixes", vocabulary_scored, same, target),
        entry("k2 as a loss, old samples", whole(_k2), "E_old k²/2", squared_old, old),
        entry("k1 in the reward, old, reweighted", reweighted, same, target, old),
    ]  # fmt: skip


def _k1(k: Tensor) -> Tensor:
    return k


def _k2(k: Tensor) -> Tensor:
    return 0.5 * k**2


def _k3(k: Tensor) -> Tensor:
    return torch.exp(-k) - 1.0 + k


def _later(values: Tensor) -> Tensor:
    """Sums from each token to the end (T, H)."""
    return values.flip(-1).cumsum(-1).flip(-1)


def _of(values: Tensor, y: Tensor) -> Tensor:
    """Values (T, N, H) of the drawn responses y (T, 1): (T, H)."""
    return values.gather(1, y[..., None].expand(-1, -1, values.shape[-1]))[:, 0]


# -- preferences estimated from own samples -------------------------------------------------------


def preference_targets(problem: EstimationProblem, size: int) -> list[Estimator]:
    """SPPO's squared loss on ``size`` own samples that are compared with each other, at ``theta``.

    The objective is ``E_{pi_t} (r - f(P(y > pi_t)))^2``, f affine for SPPO; the last one takes the
    logit, the target that a logistic link would want.
    """
    theta, own, wins = problem.theta, problem.log_t.exp(), problem.win_rates
    sppo: object = objectives.get("sppo")
    n, compare = len(own), problem.preference

    def reward(t: Tensor) -> Tensor:
        return problem.beta * (problem.log_law(t) - problem.log_t)

    def to_share(r: Tensor, share: Tensor) -> Tensor:
        return torch.as_tensor(sppo.expert_term(r, expert_preference=share))  # type: ignore[attr-defined]

    def to_logit(r: Tensor, share: Tensor) -> Tensor:
        return (r - share.logit()) ** 2

    def true(term: Callable[[Tensor, Tensor], Tensor], share: Tensor) -> Tensor:
        return gradient(lambda t: term(reward(t), share) @ own, theta)

    def sampled(
        term: Callable[[Tensor, Tensor], Tensor], itself: bool
    ) -> Callable[[Tensor, Tensor], Tensor]:
        def loss(t: Tensor, y: Tensor) -> Tensor:
            table = compare[y[:, :, None], y[:, None, :]]
            total = table.sum(-1) if itself else table.sum(-1) - 0.5
            return term(reward(t).gather(-1, y), total / (size if itself else size - 1)).mean(-1)

        return loss

    def flipped(t: Tensor, outcome: Tensor) -> Tensor:
        pair, first_won = outcome // 2, (outcome % 2).to(torch.float64)
        y = torch.cat([pair // n, pair % n], dim=-1)
        shares = torch.cat([first_won, 1.0 - first_won], dim=-1)
        return to_share(reward(t).gather(-1, y), shares).mean(-1)

    coin = torch.stack([1.0 - compare, compare], dim=-1)
    joint = (own[:, None, None] * own[:, None] * coin).flatten()
    sppo_risk, group = true(to_share, wins), (Draws(own, size),)
    shrunk = 0.5 + (wins - 0.5) * (size - 1) / size
    spread = compare**2 @ own - wins**2
    curved = wins.logit() + 0.5 * (2 * wins - 1) / (wins * (1 - wins)) ** 2 * spread / (size - 1)
    bent = gradient(lambda t: (reward(t) - curved) ** 2 @ own, theta)
    family = "preference from samples"
    risk = "SPPO's risk"
    return [
        Estimator(
            family, f"SPPO, {size} samples, others only", theta, risk, sppo_risk, group,
            sampled(to_share, False), "the same", sppo_risk, size=size,
        ),
        Estimator(
            family, f"SPPO, {size} samples, itself too", theta, risk, sppo_risk, group,
            sampled(to_share, True), "targets shrunk by (K-1)/K", true(to_share, shrunk),
            shrinks=True, size=size,
        ),
        Estimator(
            family, "SPPO, one coin flip a pair", theta, risk, sppo_risk, (Draws(joint),),
            flipped, "the same", sppo_risk, size=2, responses=2,
        ),
        Estimator(
            family, f"logit target, {size} samples, others only", theta, "risk to logit P",
            true(to_logit, wins), group, sampled(to_logit, False), "its risk + O(1/K)", bent,
            exact=False, shrinks=True, size=size,
        ),
    ]  # fmt: skip


# -- policy gradients of an explicit reward -------------------------------------------------------


def policy_gradients(problem: EstimationProblem, size: int) -> list[Estimator]:
    """Score-function gradients of ``E_pi R`` from ``size`` responses, at ``theta``."""
    theta, payoff, lengths = problem.theta, problem.payoff, problem.lengths
    law = problem.law(theta)

    def value(t: Tensor) -> Tensor:
        return problem.log_law(t).exp() @ payoff

    def shortened(t: Tensor) -> Tensor:
        mean = law @ payoff
        return problem.log_law(t).exp() @ ((payoff - mean) / lengths)

    target = gradient(value, theta)
    deviation = (law @ payoff**2 - (law @ payoff) ** 2).sqrt()

    def entry(
        name: str,
        advantage: Callable[[Tensor], Tensor],
        really: str,
        predicted: Tensor,
        exact: bool = True,
        a_token: bool = False,
        shrinks: bool = False,
    ) -> Estimator:
        def loss(t: Tensor, y: Tensor) -> Tensor:
            score = problem.log_law(t).gather(-1, y)
            score = score / lengths[y] if a_token else score
            return (score * advantage(payoff[y])).mean(-1)

        return Estimator(
            "policy gradient", name, theta, "E_pi R", target, (Draws(law, size),), loss, really,
            predicted, exact, shrinks, size,
        )  # fmt: skip

    share = (size - 1) / size
    return [
        entry("no baseline", lambda r: r, "the same", target),
        entry(f"leave-one-out baseline, K={size}", _others, "the same", target),
        entry(f"group-mean baseline, K={size}", _centred, "(K-1)/K of it", share * target,
              shrinks=True),
        entry(f"mean and deviation, K={size}", _standardised, "E_pi R / deviation + O(1/K)",
              target / deviation, exact=False),
        entry(f"leave-one-out, mean over tokens, K={size}", _others, "E R/|y| - E R E 1/|y|",
              gradient(shortened, theta), a_token=True),
    ]  # fmt: skip


def _centred(r: Tensor) -> Tensor:
    return r - r.mean(-1, keepdim=True)


def _others(r: Tensor) -> Tensor:
    return _centred(r) * r.shape[-1] / (r.shape[-1] - 1)


def _standardised(r: Tensor) -> Tensor:
    return _centred(r) / (r.std(-1, keepdim=True) + SPREAD)

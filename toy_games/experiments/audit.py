"""Estimator audit: what every stochastic loss estimates, by enumeration of all that is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from lab.settings import BaseSettings, option
from lab.sweep import Cell
from theory import TokenMDP, objectives, preferences
from theory.objectives import Objective
from theory.tokens.text import load_pairs, phrases, tokens
from toy_games.engine.policies import Tokens
from toy_games.engine.trainable import of_pairs
from toy_games.estimators import losses as estimators
from toy_games.estimators import rewards as reward_estimators
from toy_games.estimators.enumeration import Audit, Estimator, audit, monte_carlo
from toy_games.estimators.losses import EstimationProblem, known_of_groups

SUMMARY = "Exact bias and variance of stochastic gradients, by enumeration of all draws."
CASES = ("random", "text")
UNBIASED = 1e-9
"""Relative bias below which an estimate counts as unbiased, and no direction of bias exists."""


@dataclass(frozen=True)
class Settings(BaseSettings):
    """Which problems to audit, and how much Monte Carlo to hold against the enumeration."""

    cases: tuple[str, ...] = option(CASES, "where the expert comes from: random, text", of=CASES)
    instance: int = option(0, "seed of the games, parameters, rewards and preferences", ge=0)
    size: int = option(3, "responses of a group, and side of all-pairs losses", ge=2)
    sizes: tuple[int, ...] = option((2, 4, 8), "group sizes over which biases are followed", ge=2)
    beta: float = option(1.0, "weight of the KL step", gt=0)
    distance: float = option(0.5, "standard deviation of theta - theta_t, a parameter", gt=0)
    seeds: int = option(8, "Monte Carlo repetitions", ge=3)
    samples: int = option(2000, "estimates in each repetition", ge=1)


def cells(settings: Settings) -> list[Cell]:
    """One part a case, and one for the biases against the size of groups."""
    cases = [Cell(c, of_case, {"case": c, "s": settings}, resumes=False) for c in settings.cases]
    return [*cases, Cell("sizes", over_sizes, {"s": settings}, resumes=False)]


def of_case(s: Settings, case: str) -> pd.DataFrame:
    """All estimators on one problem: a row an estimator and Monte Carlo seed."""
    problem = make_problem(case, s.instance, s.beta, s.distance)
    rows = [describe(case, e, range(s.seeds), s.samples) for e in catalogue(problem, s.size)]
    return pd.concat(rows, ignore_index=True)


def over_sizes(s: Settings) -> pd.DataFrame:
    """Estimators whose bias depends on the size of a group, on a game of four responses."""
    problem = make_problem("small", s.instance, s.beta, s.distance)
    rows = []
    for size in s.sizes:
        for estimator in shrinking(problem, size):
            part = describe("sizes", estimator, range(s.seeds), s.samples)
            part["name"] = (
                estimator.name.replace(f"{size}+{size}", "K+K")
                .replace(f"={size}", "")
                .replace(f"{size} ", "K ")
            )
            rows.append(part)
    return pd.concat(rows, ignore_index=True)


def catalogue(problem: EstimationProblem, size: int) -> list[Estimator]:
    """Every estimator that is audited."""
    every = [objectives.get(name) for name in objectives.names()]
    losses = [o for o in every if o.has_loss]
    plain = [o for o in every if not o.missing("risk") and "preference" not in o.needs]
    pairwise = [o for o in losses if of_pairs(o) and not o.needs]
    return [
        *(estimators.one_pair(problem, o) for o in losses),
        *(estimators.all_pairs(problem, o, 2) for o in pairwise),
        *(estimators.grouped(problem, o, 2) for o in _groups()),
        *(estimators.finite_groups(problem, o, 2) for o in _groups() if known_of_groups(o)),
        *(estimators.first_gradient(problem, o) for o in plain),
        *estimators.stale_samples(problem),
        estimators.length_normalised(problem),
        *(estimators.first_gradient(problem, o, away=True) for o in plain),
        estimators.length_normalised(problem, away=True),
        *reward_estimators.kl_penalties(problem),
        *reward_estimators.preference_targets(problem, size),
        *reward_estimators.policy_gradients(problem, size),
    ]


def shrinking(problem: EstimationProblem, size: int) -> list[Estimator]:
    """Estimators whose bias falls with the size of a group."""
    found = [
        *(estimators.grouped(problem, o, size) for o in _groups()),
        *reward_estimators.preference_targets(problem, size),
        *reward_estimators.policy_gradients(problem, size),
    ]
    return [e for e in found if e.shrinks]


def _groups() -> list[Objective]:
    return [objectives.get(name) for name in ("centred_spif", "renyi")]


def describe(case: str, estimator: Estimator, seeds: range, samples: int) -> pd.DataFrame:
    """Exact moments, and along the bias (the target, if there is none) what each seed measured.

    ``measured`` is a component of (estimate - target)/||target||: its expectation is
    ``relative_bias``, and ``error`` the exact standard deviation.
    """
    found = audit(estimator)
    target = estimator.target
    bias = found.mean - target
    length = bias.norm() if found.relative_bias > UNBIASED else target.norm()
    direction = (bias if found.relative_bias > UNBIASED else target) / length
    measured = (monte_carlo(estimator, list(seeds), samples) - target) @ direction / target.norm()
    error = (direction @ found.covariance @ direction / samples).clamp_min(0.0).sqrt()
    return pd.DataFrame(
        {
            "case": case,
            "family": estimator.family,
            "name": estimator.name,
            "size": estimator.size,
            "seed": np.arange(len(measured)),
            "measured": measured.numpy(),
            "error": float(error / target.norm()),
            **_numbers(estimator, found),
            "claims": estimator.claims,
            "really": estimator.really,
        }
    )


def _numbers(estimator: Estimator, found: Audit) -> dict[str, float | bool]:
    predicted = np.nan
    if estimator.predicted is not None:
        away = (estimator.predicted - estimator.target).norm()
        predicted = float(away / estimator.target.norm())
    return {
        "relative_bias": found.relative_bias,
        "cosine": found.cosine,
        "deviation": found.deviation,
        "predicted_bias": predicted,
        "unexplained": found.unexplained,
        "exact": estimator.exact,
    }


# -- problems -------------------------------------------------------------------------------------


def make_problem(case: str, instance: int, beta: float, distance: float) -> EstimationProblem:
    """A game, an expert and random parameters; the same instance gives the same problem.

    ``random``: a tree of 15 responses with an unrestricted token policy; ``small``: one of 4;
    ``text``: phrases of up to three words of the shipped text, with "and" and "the rest" for
    words, and a policy that reads the last token and the position only.
    """
    generator = np.random.default_rng([instance, len(case)])
    if case == "text":
        texts = [p for p in phrases(q.response for q in load_pairs()) if len(tokens(p)) <= 3]
        tree = TokenMDP.from_text(texts, order=2, tree=True, vocab_size=3, horizon=3, smoothing=1.0)
    else:
        tree = TokenMDP.random(vocab=3 if case == "random" else 2, horizon=3, rng=generator)
    policy = Tokens(tree.merged(1) if case == "text" else tree)
    assert tree.expert is not None
    n = tree.n_responses

    def random(scale: float) -> torch.Tensor:
        return policy.initial(generator, scale)

    theta_t, theta_ref = random(0.7), random(0.7)
    compare = preferences.random_preference(generator, n, strength=0.8)
    return EstimationProblem(
        policy,
        torch.from_numpy(tree.sequence_law(tree.expert)[0].copy()),
        theta_t + random(distance),
        theta_t,
        theta_ref,
        torch.from_numpy(generator.standard_normal(n)),
        torch.from_numpy(compare),
        beta,
    )

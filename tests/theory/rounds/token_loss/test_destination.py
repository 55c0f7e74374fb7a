"""T14: rounds of one loss per token end at the maximum likelihood of whole responses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.next_token import NextToken
from tests.theory.rounds.token_loss.losses import MLE, SPIN
from tests.theory.strategies import label
from theory import TokenMDP, objectives, theory_card
from theory.result import FloatArray


@pytest.mark.parametrize("obj", MLE, ids=label)
@pytest.mark.claim("T14.token_destination", regime="tabular")
@given(seed=st.integers(0, 2**31))
def test_first_gradient_per_token_is_sfts(claim, obj, seed: int) -> None:
    """beta a'(0) times the likelihood's of whole responses, which is 0 at the MLE alone."""
    model = NextToken(seed)
    theta = np.random.default_rng(seed).standard_normal(3)
    scale = -0.7 * theory_card(obj).gradient_at_start[0]
    found = model.gradient(model.risk, theta, theta, obj, 0.7)
    claim.close(found, scale * model.gradient(model.sft, theta), 1e-11, what="first gradient")
    if obj.form == "pointwise":  # own tokens have mean score 0 at every prefix, whosever it is
        other = torch.tensor(np.random.default_rng(seed).uniform(0.0, 2.0, len(model.p)))
        found = model.gradient(model.risk, theta, theta, obj, 0.7, other)
        what = "first gradient, own tokens at other prefixes"
        claim.close(found, scale * model.gradient(model.sft, theta), 1e-11, what=what)


@pytest.mark.claim("T14.token_destination", regime="tabular")
@pytest.mark.parametrize("name", ["spin", "ipo"])
def test_rounds_per_token_end_at_the_mle_of_responses(claim, name: str) -> None:
    """Class without the expert, logits linear in theta: from far starts, to one law."""
    obj = objectives.get(name)
    for seed in range(2):
        model = NextToken(seed)
        best = model.least(model.sft, np.zeros(3))
        for start in np.random.default_rng(seed).standard_normal((2, 3)):
            path = model.rounds(start, obj, 1.2, 60)
            off = np.abs(path[-1] - best).max()
            claim.close(off, 0.0, 1e-7, what="parameters of the last round, to the MLE's")
        gap = torch.exp(model.log_policy(best)) - model.p
        claim.exhibits(gap.abs().max(), 0.05, what="the expert is outside of the class")


def whole(model: NextToken, theta: Any, old: FloatArray, beta: float) -> torch.Tensor:
    """SPIN's risk of whole responses in the same class."""
    game, tokens = model.game, torch.tensor(model.game.responses)

    def log_law(x: Any) -> torch.Tensor:
        sums = _along(game, model.log_policy(x))
        return sums[tokens[0]]

    log_q = log_law(old).detach()
    ratio = log_law(theta) - log_q
    p = torch.tensor(game.sequence_law(model.expert)[0])
    return torch.as_tensor(SPIN.risk(ratio, ratio, beta, p, torch.exp(log_q)))


def _along(game: TokenMDP, per_cell: torch.Tensor) -> torch.Tensor:
    """Sums along every path, at the flat index of its last (state, action)."""
    total: list[Any] = [None] * game.n_states
    total[0] = torch.zeros((), dtype=torch.float64)
    for s in range(game.n_states):
        for a in range(game.n_actions):
            child = int(game.next_state[s, a])
            if child >= 0:
                total[child] = total[s] + per_cell[s, a]
    return torch.cat([total[s] + per_cell[s] for s in range(game.n_states)])


@pytest.mark.claim("T14.token_convex", regime="tabular")
@given(seed=st.integers(0, 2**31), beta=st.floats(0.3, 2.0))
def test_a_convex_pair_loss_is_convex_in_the_logits(claim, seed: int, beta: float) -> None:
    """Both tokens of a pair follow one prefix, so its normaliser cancels."""
    model = NextToken(seed)
    old, theta = np.random.default_rng(seed).standard_normal((2, 3))
    for obj in (SPIN, objectives.get("ipo"), objectives.get("spin_exponential")):
        curved = np.linalg.eigvalsh(model.hessian(model.risk, 2.0 * theta, old, obj, beta))
        claim.below(-curved[0], 1e-10 * curved[-1], what="least curvature, negative")


@pytest.mark.claim("T14.token_convex", regime="tabular", drops="token_ratios")
def test_of_whole_responses_it_is_not_convex(claim) -> None:
    """Two responses pass other prefixes, whose normalisers do not cancel."""
    rng = np.random.default_rng(0)
    least = []
    for seed in range(10):
        model = NextToken(seed)
        old, theta = rng.standard_normal((2, 3))
        curved = np.linalg.eigvalsh(model.hessian(lambda x, m=model, o=old: whole(m, x, o, 1.0),
                                                  3.0 * theta))  # fmt: skip
        least.append(curved[0] / np.abs(curved).max())
    claim.exhibits(-min(least), 0.05, what="negative curvature over the largest")

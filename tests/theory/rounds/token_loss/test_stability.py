"""T14: the local round per token in a class without the expert, and its threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.theory.next_token import NextToken
from tests.theory.rounds.token_loss.losses import SPIN
from theory.result import FloatArray


def local_matrices(model: NextToken, best: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``S_p``, ``S_q`` and ``B`` at the maximum likelihood, means over the expert's prefixes."""
    q = torch.exp(model.log_policy(best))
    means = [(w[..., None] * model.features).sum(1) for w in (model.p, q)]
    s_p, s_q = (
        torch.einsum("s,sa,sai,saj->ij", model.visits, w, model.features - m[:, None],
                     model.features - m[:, None])
        for w, m in zip((model.p, q), means, strict=True)
    )  # fmt: skip
    apart = means[0] - means[1]
    b = torch.einsum("s,si,sj->ij", model.visits, apart, apart)
    return np.asarray(s_p), np.asarray(s_q), np.asarray(b)


@pytest.mark.claim("T14.token_stability", regime="tabular")
def test_the_local_round_per_token(claim) -> None:
    """I - (2/beta)(S_p + S_q + B)^-1 S_q at the MLE, so stable iff beta > lambda_max."""
    for seed in range(3):
        model = NextToken(seed)
        best = model.least(model.sft, np.zeros(3))
        s_p, s_q, b = local_matrices(model, best)
        edge, plain = (
            np.linalg.eigvals(np.linalg.solve(s, s_q)).real.max()
            for s in (s_p + s_q + b, s_p + s_q)
        )
        claim.exhibits(plain / edge - 1, 0.01, what="threshold without B, in excess")
        away = 1e-4 * np.random.default_rng(seed).standard_normal(3)
        for factor in (0.9, 1.1):
            beta = factor * edge
            path = np.array(model.rounds(best + away, SPIN, beta, 24)) - best
            step = np.eye(3) - 2.0 / beta * np.linalg.solve(s_p + s_q + b, s_q)
            error = np.linalg.norm(path[3] - np.linalg.matrix_power(step, 3) @ away)
            what = "three rounds against the linear map, relative"
            claim.close(error / np.linalg.norm(away), 0.0, 2e-3, what=what, because="expansion")
            off = np.linalg.norm(path, axis=-1)
            if factor < 1:
                claim.exhibits(off[24] / off[12], 2.0, what="growth of 12 rounds, 10 % below")
            else:
                claim.below(off[24] / off[12], 0.5, what="decay of 12 rounds, 10 % above",
                            because="chosen")  # fmt: skip


@pytest.mark.claim("T14.token_stability", regime="tabular", drops="solved_rounds")
def test_one_gradient_step_a_round_is_stable_below(claim) -> None:
    """It is a step of supervised fine-tuning, whatever beta."""
    model = NextToken(0)
    best = model.least(model.sft, np.zeros(3))
    s_p, s_q, b = local_matrices(model, best)
    beta = 0.9 * np.linalg.eigvals(np.linalg.solve(s_p + s_q + b, s_q)).real.max()
    theta = best + 1e-4 * np.random.default_rng(0).standard_normal(3)
    off = [np.linalg.norm(theta - best)]
    for _ in range(200):
        theta = theta - 0.2 / beta * model.gradient(model.risk, theta, theta, SPIN, beta)
        off.append(np.linalg.norm(theta - best))
    claim.below(off[-1] / off[0], 0.5, what="decay over 200 rounds of a step", because="chosen")

"""T14: own tokens at prefixes of own responses: the local factor at every depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.theory.next_token import NextToken
from tests.theory.rounds.token_loss.losses import SPIF
from theory import TokenMDP, objectives, self_play
from theory.rounds.one_step import local_rate_one_step


@pytest.mark.claim("T14.own_prefixes", regime="tabular")
@pytest.mark.parametrize("name", ["spif", "nwj"])
def test_at_own_prefixes_the_local_factor_is_that_of_a_law(claim, name: str) -> None:
    """T4 b's at every depth, as each prefix's law is normalised, and not 1 - k R'(0)/beta."""
    obj, beta = objectives.get(name), 1.3
    for seed in range(2):
        model = NextToken(seed, full=True)
        logits = model.expert[:, :-1] - model.expert[:, -1:]
        start = logits.ravel() + 1e-4 * np.random.default_rng(seed).standard_normal(logits.size)
        own = model.game.occupancy(np.asarray(model.log_policy(start))).sum(-1)
        after = model.least(model.risk, start, start, obj, beta, torch.tensor(own))
        ratios = (after - logits.ravel()) / (start - logits.ravel())
        predicted = local_rate_one_step(obj, beta)
        what = f"factor of every logit after a round at own prefixes, {name}"
        claim.close(ratios, predicted, 5e-3, what=what, because="expansion")


@pytest.mark.claim("T14.own_prefixes", regime="tabular")
@pytest.mark.parametrize("eta", [0.5, 3.0])
def test_prefixes_that_own_responses_visit_more_often(claim, eta: float) -> None:
    """eta/((1 + rho) + eta (1 - rho)) of u a round; beyond the pole p is no minimum."""
    model = NextToken(0, horizon=1, full=True)
    logits = model.expert[0, :-1] - model.expert[0, -1]
    pole = (eta + 1) / (eta - 1) if eta > 1 else np.inf
    for rho in (0.3, 1.0, 1.5, 0.9 * pole, 1.1 * pole):
        if not np.isfinite(rho):
            continue
        weight = torch.tensor([rho])
        curved = np.linalg.eigvalsh(
            model.hessian(model.risk, logits, logits, SPIF, 1 / eta, weight)
        )
        beyond = rho > pole
        claim.exhibits((-curved if beyond else curved).min(), 1e-4, what="least curvature at p")
        if not beyond:
            start = logits + np.array([1e-4, -2e-4])
            after = model.least(model.risk, start, start, SPIF, 1 / eta, weight)
            share = (after - start) / (logits - start)
            predicted = eta / ((1 + rho) + eta * (1 - rho))
            claim.close(share / predicted, 1.0, 1e-2, what="share of u that a round goes",
                        because="expansion")  # fmt: skip


@pytest.mark.claim("T14.own_prefixes", regime="tabular", drops="no_values")
def test_with_values_own_prefixes_count_depth(claim) -> None:
    """Occupancy rewards move a first token by H times as much near the expert."""
    rng = np.random.default_rng(0)
    game = TokenMDP.tree(vocab=2, horizon=3, eos=None)
    p = game.random_policy(rng, 3.0)
    start = p.copy()
    start[0] += [1e-5, -1e-5]
    start[0] -= np.logaddexp(*start[0])
    path = self_play(p, start, SPIF, 2.0, 1, game=game, level="occupancy")
    off = np.diff(path.policies[:, 0] - p[0])
    factor = float(off[1, 0] / off[0, 0])
    claim.close(factor, 1 - 3 * 0.25, 1e-3, what="factor of a first token", because="expansion")
    claim.exhibits(local_rate_one_step(SPIF, 2.0) - factor, 0.3, what="T4 b's factor, in excess")

"""T6 (iv) and T7: rates near the expert, where it repels, and SPIN's path in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.rounds.two_step.links import SMOOTH
from tests.theory.strategies import Instance, games, label
from theory import laws, objectives, self_play, theory_card
from theory.objectives import Objective


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.local_rate", regime="tabular")
@given(game=games(), beta=st.floats(0.3, 4.0))
def test_local_rate(claim, obj: Objective, game: Instance, beta: float) -> None:
    """(iv): log-ratios near the expert contract by 1 - R'(0)/beta, up to a constant."""
    p = game.expert
    tilt = 1e-6 * game.rng.standard_normal(p.shape)
    start = p * np.exp(tilt)
    start /= start.sum(-1, keepdims=True)
    path = self_play(p, start, obj, beta=beta, rounds=1)
    before, after = (laws.log_ratio(p, policy) for policy in path.policies)
    factor = 1 - float(obj.slope(0.0)) / beta
    centred = after - (p * after).sum(-1, keepdims=True)
    expected = factor * (before - (p * before).sum(-1, keepdims=True))
    claim.close(centred, expected, atol=1e-10 * (1 + 1 / beta), what="log-ratio after a round")


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.diverges", regime="tabular")
@given(game=games(max_spread=1.0), below=st.floats(0.3, 0.95))
def test_below_the_threshold_the_expert_repels(claim, obj, game: Instance, below: float) -> None:
    """beta < R'(0)/2: a start next to the expert is driven away from it."""
    p = game.expert
    start = p * np.exp(1e-6 * game.rng.standard_normal(p.shape))
    start /= start.sum(-1, keepdims=True)
    beta = below * theory_card(obj).stability_beta
    factor = float(obj.slope(0.0)) / beta - 1
    rounds = int(np.ceil(np.log(1e5) / np.log(factor)))
    path = self_play(p, start, obj, beta=beta, rounds=rounds)
    tilt = path.details["max_logratio"]
    early = max(1, int(np.log(100.0) / np.log(factor)))  # where log-ratios are still small
    what = "growth of max |u| up to 1e-4"
    claim.close(
        tilt[early] / tilt[0], factor**early, 0.0, rtol=5e-3, what=what, because="expansion"
    )
    claim.exhibits(tilt[-1] / tilt[0], at_least=50.0, what="growth of max |u|")


@pytest.mark.parametrize("obj", [o for o in SMOOTH if o.reward_bounds[0] > -np.inf], ids=label)
@pytest.mark.claim("T6.outside_support", regime="tabular")
@given(game=games(), beta=st.floats(0.3, 4.0))
def test_mass_where_the_expert_has_none_decays(claim, obj: Objective, game: Instance, beta) -> None:
    """Where p = 0 < pi mass decays by e^{(R(-inf)-R(0))/beta} a round once pi is p elsewhere."""
    n = game.expert.shape[-1]
    weight = np.where(np.arange(n) == 0, 0.0, game.expert)
    p = weight / weight.sum(-1, keepdims=True)
    start = 1e-9 * (np.arange(n) == 0) + (1 - 1e-9) * p
    path = self_play(p, start, obj, beta=beta, rounds=1)
    decay = path.policies[1, :, 0] / path.policies[0, :, 0]
    predicted = np.exp((obj.reward_bounds[0] - float(obj.link(0.0))) / beta)
    claim.close(decay, np.full_like(decay, predicted), atol=1e-7, what="decay of unsupported mass")


@pytest.mark.claim("T6.stable", regime="tabular", drops="differentiable_link")
@given(game=games(max_spread=1.0), beta=st.floats(1.0, 20.0))
def test_hard_bounded_rewards_never_settle(claim, game: Instance, beta: float) -> None:
    """The sign link ends in a two-cycle of size about bound/beta, however small the step."""
    obj = objectives.get("ipm", bound=1.0)
    path = self_play(game.expert, game.start, obj, beta=beta, rounds=400)
    late = path.details["max_logratio"][-50:].max(0)
    claim.exhibits(late * beta, at_least=0.2, what="late max |u| in units of bound/beta")
    claim.below(late, 2.5 / beta, what="late max |u| stays within 2.5 bound/beta", because="chosen")


@pytest.mark.claim("T7.path", regime="tabular")
@given(game=games(), beta=st.floats(0.05, 5.0), rounds=st.integers(0, 12))
def test_spin_in_closed_form(claim, game: Instance, beta: float, rounds: int) -> None:
    path = self_play(game.expert, game.start, objectives.get("spin"), beta=beta, rounds=rounds)
    log_p, log_0 = np.log(game.expert), np.log(game.start)
    logits = log_p + (1 - 1 / beta) ** rounds * (log_0 - log_p)
    logits -= logits.max(-1, keepdims=True)
    predicted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    scale = max(1.0, abs(1 - 1 / beta) ** rounds)
    assume(scale <= 1e5)  # the rounding of the start grows by it
    claim.close(path.policy, predicted, atol=1e-12 * scale, what="SPIN's geometric path")


@pytest.mark.claim("T7.diverges", regime="tabular")
@given(game=games(max_spread=1.0))
def test_spin_at_its_published_beta_diverges(claim, game: Instance) -> None:
    """beta = 0.1: every log-ratio difference is multiplied by -9 a round."""
    spin = objectives.get("spin")
    path = self_play(game.expert, game.start, spin, beta=0.1, rounds=2)
    u = laws.log_ratio(game.expert, game.start)
    wide = np.ptp(u, axis=-1)
    assume(wide.min() > 1e-3 and 81 * wide.max() < 600)
    spans = np.ptp(laws.log_ratio(game.expert, path.policies), axis=-1)
    claim.close(spans[1:] / spans[:-1], 9.0, atol=1e-9, what="growth of the log-ratio range")
    claim.exhibits(path.details["kl"][-1] / path.details["kl"][0], at_least=9.0, what="KL growth")
    cycle = self_play(game.expert, game.start, spin, beta=0.5, rounds=2).policy
    claim.close(cycle, game.start, atol=1e-12, what="period two at beta = 1/2")

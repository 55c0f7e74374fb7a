"""What is measured of two explicit players: distances, a certificate, moments, sizes of rewards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from toy_games.engine.policies import PADDING
from toy_games.engine.simulator import State

if TYPE_CHECKING:
    from toy_games.dynamics.two_players import Players

Measure = Callable[["Players", State], Tensor]


def distance(players: Players, state: State) -> Tensor:
    """Euclidean distance to the target of log-laws and rewards, each centred under the target."""
    return observed(players, state).square().sum(-1).sqrt()


def observed(players: Players, state: State) -> Tensor:
    """(rows, 2 X N): log-ratio to the target and reward minus the target's, centred.

    Constants are taken out: no policy depends on them.
    """
    law, reward = players.target
    log_ratio = players.policy.log_law(state["theta"]) - law.log().clamp_min(PADDING)
    parts = torch.stack([log_ratio, players.rewards.reward(state["phi"]) - reward], dim=1)
    parts = parts - (law[:, None] * parts).sum(-1, keepdim=True)
    return torch.where(law[:, None] > 0, parts, 0.0).flatten(1)


def tv(players: Players, state: State) -> Tensor:
    """Total variation of policy and target, mean over prompts."""
    law = players.policy.log_law(state["theta"]).exp()
    return 0.5 * (law - players.target[0]).abs().sum(-1).mean(-1)


def tv_to_expert(players: Players, state: State) -> Tensor:
    """Total variation of policy and expert, mean over prompts."""
    law = players.policy.log_law(state["theta"]).exp()
    return 0.5 * (law - players.expert).abs().sum(-1).mean(-1)


def gap(players: Players, state: State) -> Tensor:
    """What both players together could still gain alone, nats, mean over prompts: a certificate.

    With pay "saddle" it is the duality gap: the primal value ``max_r`` of the policy minus the dual
    value ``min_pi`` of the reward. The policy's part is ``tau KL(pi||ref e^{pay/tau}/Z)``, at
    tau = 0 the largest pay minus the mean. NaN without a link.
    """
    obj = players.objective
    log_law = players.policy.log_law(state["theta"])
    law, reward = log_law.exp(), players.rewards.reward(state["phi"])
    if not obj.has_link:
        return torch.full_like(players.tau, torch.nan)
    p = players.expert
    total = (p + law).clamp_min(1e-300)
    delta = ((p - law).square() / total).sum(-1, keepdim=True)
    best = obj.link_formula(p.log().clamp_min(PADDING) - log_law, delta)
    regret = obj.reward_risk(reward, reward, p, law) - obj.reward_risk(best, best, p, law)
    with torch.enable_grad():
        point = law.detach().requires_grad_()
        (slope,) = torch.autograd.grad(
            players.cost(point, players.log_ref, reward, p).sum(), point
        )  # at log_law = log_ref the anchor drops out
    tau = players.tau[:, None, None]
    gibbs = (players.log_ref - slope / tau.clamp_min(1e-300)).log_softmax(-1)
    anchored = torch.where(law > 0, law * (log_law - gibbs), 0.0)
    live = log_law > 0.5 * PADDING
    free = (law * slope).sum(-1) - torch.where(live, slope, torch.inf).amin(-1)
    kl = torch.where(tau[..., 0] > 0, tau[..., 0] * anchored.sum(-1), free)
    return (regret + kl).mean(-1)


def moment_residual(players: Players, state: State) -> Tensor:
    """``|grad_phi (E_p r_phi - E_pi r_phi)|``: the mismatch of moments that the class can see."""
    law = players.policy.log_law(state["theta"]).exp()
    with torch.enable_grad():
        phi = state["phi"].detach().requires_grad_()
        seen = ((players.expert - law) * players.rewards.reward(phi)).sum(-1).mean(-1)
        (slope,) = torch.autograd.grad(seen.sum(), phi)
    return slope.square().sum(-1).sqrt()


def largest_reward(players: Players, state: State) -> Tensor:
    """Largest |reward| over all responses with mass on either side, nats."""
    live = (players.expert > 0) | (players.policy.log_law(state["theta"]) > 0.5 * PADDING)
    reward = players.rewards.reward(state["phi"])
    return torch.where(live, reward.abs(), 0.0).flatten(1).amax(-1)


MEASURES: dict[str, Measure] = {
    "distance": distance,
    "tv": tv,
    "tv_to_expert": tv_to_expert,
    "gap": gap,
    "moment_residual": moment_residual,
    "largest_reward": largest_reward,
}

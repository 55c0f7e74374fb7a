"""What is measured of `SelfPlay` beside distances to the expert: samples, unseen mass, quality."""

from __future__ import annotations

import torch
from torch import Tensor

from toy_games.dynamics.self_play import (
    Measure,
    SelfPlay,
    kl_to_expert,
    reverse_kl,
    total_variation,
)
from toy_games.engine.simulator import State

NOTHING = -600.0
"""Responses whose log-probability under the opponent is below are padding, not unseen."""

# -- a round on finite samples --------------------------------------------------------------------


def _extremes(values: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    low = values.masked_fill(~among, torch.inf).amin(-1)
    return low, values.masked_fill(~among, -torch.inf).amax(-1)


def margin(run: SelfPlay, state: State, step: int) -> Tensor:
    """Least reward of an expert's sample minus largest of an own one, in nats; least of prompts."""
    reward = run.implicit_reward(run.log_law(state), state)
    worst, _ = _extremes(reward, state["data"] > 0)
    _, best = _extremes(reward, state["own"] > 0)
    return (worst - best).amin(-1)


def reward_range(run: SelfPlay, state: State, step: int) -> Tensor:
    """Largest minus least implicit reward of the samples, in nats; largest of prompts."""
    reward = run.implicit_reward(run.log_law(state), state)
    low, high = _extremes(reward, (state["data"] > 0) | (state["own"] > 0))
    return (high - low).amax(-1)


def logit_range(run: SelfPlay, state: State, step: int) -> Tensor:
    """Largest minus least log-probability of any outcome, in nats; largest of prompts."""
    log_law = run.log_law(state)
    return (log_law.amax(-1) - log_law.amin(-1)).amax(-1)


def gradient_norm(run: SelfPlay, state: State, step: int) -> Tensor:
    """Euclidean norm of the loss's gradient, per unit of the SFT rate (step size times norm)."""
    size = run.gradient(state["theta"], state).norm(dim=-1)
    return size * run.step_size / run.column("rate")


def loss(run: SelfPlay, state: State, step: int) -> Tensor:
    """The training loss."""
    return run.loss(state["theta"], state, step)


def missing_mass(run: SelfPlay, state: State, step: int) -> Tensor:
    """The expert's probability of what its own samples do not show, mean over prompts."""
    return (run.expert * (state["data"] == 0)).sum(-1).mean(-1)


# -- mass outside of both sides' data -------------------------------------------------------------


def unseen(state: State) -> Tensor:
    """Responses (rows, X, N) without weight in either side's data of the round, as a mask."""
    return (state["data"] + state["own"] == 0) & (state["opponent"] > NOTHING)


def mass_before(run: SelfPlay, state: State, step: int) -> Tensor:
    """Mass of the opponent ``pi_t`` on unseen responses, mean over prompts."""
    return torch.where(unseen(state), state["opponent"].exp(), 0.0).sum(-1).mean(-1)


def mass_after(run: SelfPlay, state: State, step: int) -> Tensor:
    """Mass of the policy on the responses unseen in its round, mean over prompts."""
    return torch.where(unseen(state), run.log_law(state).exp(), 0.0).sum(-1).mean(-1)


def reward_unseen(run: SelfPlay, state: State, step: int) -> Tensor:
    """Largest ``|beta log pi/pi_t|`` over unseen responses, in nats; 0 where there are none."""
    return _largest_reward(run, state, unseen(state))


def reward_seen(run: SelfPlay, state: State, step: int) -> Tensor:
    """Largest ``|beta log pi/pi_t|`` over responses in the data of either side, in nats."""
    return _largest_reward(run, state, state["data"] + state["own"] > 0)


def _largest_reward(run: SelfPlay, state: State, where: Tensor) -> Tensor:
    ratio = torch.where(where, run.log_law(state) - state["opponent"], 0.0)
    return run.beta * ratio.abs().flatten(1).amax(-1)


def stray(run: SelfPlay, state: State, step: int) -> Tensor:
    """Mass beyond what expert *and* start would give: ``sum (pi - max(p, pi_0))_+``, in [0, 1]."""
    most = torch.maximum(run.expert, run.log_start.exp())
    return (run.log_law(state).exp() - most).clamp_min(0.0).sum(-1).mean(-1)


ON_SAMPLES: dict[str, Measure] = {
    "margin": margin,
    "reward_range": reward_range,
    "logit_range": logit_range,
    "unseen_mass": mass_after,
    "gradient_norm": gradient_norm,
    "loss": loss,
    "kl": kl_to_expert,
}
"""Of a round on finite samples."""
UNSEEN: dict[str, Measure] = {
    "before": mass_before,
    "after": mass_after,
    "reward_unseen": reward_unseen,
    "reward_seen": reward_seen,
    "stray": stray,
}
"""Of mass outside of both sides' data."""


# -- quality against the expert's own law, held out -----------------------------------------------


def judge(run: SelfPlay, state: State, step: int) -> Tensor:
    """``E_pi log p`` in nats: the expert's likelihood of samples, what a judge would reward."""
    return torch.xlogy(run.log_law(state).exp(), run.expert).sum(-1).mean(-1)


def entropy(run: SelfPlay, state: State, step: int) -> Tensor:
    """Entropy of the policy in nats, mean over prompts."""
    log_law = run.log_law(state)
    return -(log_law.exp() * log_law).sum(-1).mean(-1)


def distance_to(target: Tensor) -> Measure:
    """Total variation to log-laws (rows, X, N), mean over prompts."""

    def measure(run: SelfPlay, state: State, step: int) -> Tensor:
        return 0.5 * (run.log_law(state).exp() - target.exp()).abs().sum(-1).mean(-1)

    return measure


QUALITY: dict[str, Measure] = {
    "forward_kl": kl_to_expert,
    "reverse_kl": reverse_kl,
    "judge": judge,
    "tv": total_variation,
    "entropy": entropy,
}
"""Whatever samples the run was trained on."""

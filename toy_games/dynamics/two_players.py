"""Two explicit players: a reward player ascends and a policy player descends, by gradients.

    the reward player's payoff   E_p[a(r_phi)] + E_pi[b(r_phi)]       (other forms: minus the risk)
    the policy player's cost     E_pi[b(r)] + tau KL(pi||ref)         pay "saddle"  (T10)
                                 -E_pi[r]   + tau KL(pi||ref)         pay "rounds"

With the first cost the game is zero-sum and its equilibrium `theory.saddle_point`; with the second
it is `theory.equilibrium`. Gradients are exact, or estimated from a batch a side: the reward's by
expert and own samples, the policy's by the score function with a leave-one-out baseline.

``natural`` takes the policy player's step in the geometry of KL: on logits it adds the pay itself,
and a step of ``1/(beta+tau)`` is exactly the KL-proximal step T2 of a self-play round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.streams import frequencies
from theory.errors import Unavailable, refuse
from theory.objectives import Objective
from toy_games.dynamics.best_response import best_response
from toy_games.engine.policies import PADDING, Policy, Softmax
from toy_games.engine.rewards import Rewards, Table
from toy_games.engine.rows import Batch, Column, digest
from toy_games.engine.simulator import State
from toy_games.engine.trainable import grouped

METHODS = ("simultaneous", "alternating", "extragradient", "optimistic")
PAYS = ("saddle", "rounds")
Laws = tuple[Tensor, Tensor]
Measure = Callable[["Players", State], Tensor]


@dataclasses.dataclass(frozen=True)
class Rules:
    """How the players move.

    Attributes:
        method: one of `METHODS`; "alternating" lets the reward player move first.
        pay: what the policy player is paid, one of `PAYS`.
        natural: take the policy step in KL's geometry (logits only).
        reward_steps: steps of the reward player a step of the policy ("alternating" only).
        batch: responses drawn a side, prompt and gradient; None takes exact expectations.
    """

    method: str = "simultaneous"
    pay: str = "saddle"
    natural: bool = False
    reward_steps: int = 1
    batch: int | None = None

    def problems(self) -> list[str]:
        """What is wrong with them."""
        out = []
        for name, known in (("method", METHODS), ("pay", PAYS)):
            if getattr(self, name) not in known:
                out.append(f"{name}={getattr(self, name)!r}; needed is one of {', '.join(known)}")
        several = self.method == "alternating"
        if self.reward_steps < 1 or (self.reward_steps > 1 and not several):
            out.append(
                f"reward_steps={self.reward_steps!r}; needed is 1, or more if method is alternating"
            )
        if self.batch is not None and self.batch < 2:
            out.append(f"batch={self.batch!r}; needed is a whole number >= 2, or None for exact")
        return out


class Players(Batch):
    """A batch of games with one objective and one class a player; a `simulator.Simulation`."""

    columns: ClassVar[dict[str, Column]] = {
        "step_policy": Column(0.1, positive=True),
        "step_reward": Column(0.1, positive=True),
        "tau": Column(0.0),
    }

    def __init__(
        self,
        policy: Policy,
        rewards: Rewards,
        objective: Objective,
        rows: pd.DataFrame,
        expert: Any,
        start: tuple[Any, Any],
        rules: Rules = Rules(),
        ref: Any = None,
        target: tuple[Any, Any] | None = None,
        measures: Mapping[str, Measure] | None = None,
    ) -> None:
        """Set up; nothing is drawn before `start`.

        Args:
            policy: class of the policy player.
            rewards: class of the reward player.
            objective: of payoffs, pairs or, with exact gradients, groups.
                Rewards of a `Table` are kept within the objective's ``reward_domain``.
            rows: one line a run: ``seed`` and any of step_policy, step_reward (step sizes > 0),
                tau (>= 0); other columns are kept as labels.
            expert: laws (N,), (X, N) or (rows, X, N).
            start: parameters of both players, (P,) or (rows, P), and (R,) or (rows, R).
            rules: how the players move.
            ref: log-law of the anchor, broadcast to (rows, X, N); the start's if None.
            target: law and reward that distances are measured to, broadcast to (rows, X, N); the
                expert and a constant if None.
            measures: name to function (players, state) -> (rows,); default `MEASURES`.

        Raises:
            InvalidInput: everything that is wrong, at once. Unavailable: no such game.
        """
        self.policy, self.rewards, self.objective, self.rules = policy, rewards, objective, rules
        self.rows = rows.reset_index(drop=True)
        self.measures = dict(MEASURES if measures is None else measures)
        full = (len(self.rows), *policy.shape)
        problems = [*rules.problems(), *self.row_problems()]
        if policy.shape != rewards.shape:
            problems.append(f"policy and rewards: shapes {policy.shape} and {rewards.shape} differ")
        if rules.natural and not isinstance(policy, Softmax):
            problems.append(f"natural: needed is a policy of logits, not {type(policy).__name__}")
        self.domain = objective.reward_domain
        self.confined = np.isfinite(self.domain).any()
        if self.confined and not isinstance(rewards, Table):
            low, high = self.domain
            problems.append(
                f"{objective.name}: its rewards are bound to [{low:g}, {high:g}]: it needs a Table"
            )
        sizes = (len(self.rows), policy.size), (len(self.rows), rewards.size)
        given = {
            "expert": (expert, full),
            "start of the policy": (start[0], sizes[0]),
            "start of the reward": (start[1], sizes[1]),
        }
        found = {name: _expanded(*parts) for name, parts in given.items()}
        problems += [
            f"{name}: shape {np.shape(given[name][0])}; needed are numbers that go with "
            f"{given[name][1]}"
            for name, tensor in found.items()
            if tensor is None
        ]
        refuse(problems)
        _refuse_unplayable(objective, rules)
        self.expert, self._theta, self._phi = (t for t in found.values() if t is not None)
        column = self.column
        self.step_policy, self.step_reward = column("step_policy"), column("step_reward")
        self.tau = column("tau")
        log_start = policy.log_law(self._theta)
        self.log_ref = log_start if ref is None else torch.as_tensor(ref).expand(full)
        law, reward = (self.expert, torch.zeros(())) if target is None else target
        self.target = (
            torch.as_tensor(law, dtype=torch.float64).expand(full),
            torch.as_tensor(reward, dtype=torch.float64).expand(full),
        )
        parts = (self.expert, self.log_ref, *self.target)
        self.identity = " ".join(
            [
                f"{objective.label} {type(policy).__name__} {type(rewards).__name__} {rules}",
                *(digest(part) for part in parts),
            ]
        )

    # -- the simulation ---------------------------------------------------------------------------

    def start(self) -> State:
        """Both players' parameters; for "optimistic" the last moves, too (the first repeats)."""
        state = {"theta": self._theta.clone(), "phi": self._phi.clone()}
        if self.rules.method == "optimistic":
            moves = self._both(state, 0, "", False)
            state |= {"last_theta": moves[0], "last_phi": moves[1]}
        return state

    def advance(self, state: State, step: int) -> State:
        """One step of the policy player and one or more of the reward player."""
        return self.moved(state, step)

    def measure(self, state: State, step: int) -> dict[str, Tensor]:
        """All measures of the state."""
        return {name: measure(self, state) for name, measure in self.measures.items()}

    # -- the players ------------------------------------------------------------------------------

    def moved(self, state: State, step: int = 0, graph: bool = False) -> State:
        """The next state. With ``graph`` from exact expectations and differentiable in the state,
        whatever the rules say of batches (for `predictions.two_players`)."""
        theta, phi = state["theta"], state["phi"]
        method = self.rules.method
        if method == "alternating":
            for j in range(self.rules.reward_steps):
                draws = None if graph else self._draws(theta, step, f"reward {j}")
                phi = self._within(phi + self.reward_move(theta, phi, draws, graph))
            draws = None if graph else self._draws(theta, step, "policy")
            return {"theta": theta + self.policy_move(theta, phi, draws, graph), "phi": phi}
        moves = self._both(state, step, "", graph)
        last: State = {}
        if method == "extragradient":
            half = {"theta": theta + moves[0], "phi": self._within(phi + moves[1])}
            moves = self._both(half, step, "half", graph)
        elif method == "optimistic":
            last = {"last_theta": moves[0], "last_phi": moves[1]}
            moves = 2.0 * moves[0] - state["last_theta"], 2.0 * moves[1] - state["last_phi"]
        return {"theta": theta + moves[0], "phi": self._within(phi + moves[1]), **last}

    def _both(self, state: State, step: int, part: str, graph: bool) -> tuple[Tensor, Tensor]:
        theta, phi = state["theta"], state["phi"]
        draws = None if graph else self._draws(theta, step, part)
        policy = self.policy_move(theta, phi, draws, graph)
        return policy, self.reward_move(theta, phi, draws, graph)

    def _within(self, phi: Tensor) -> Tensor:
        return phi.clamp(*self.domain) if self.confined else phi

    def reward_move(
        self, theta: Tensor, phi: Tensor, draws: Laws | None = None, graph: bool = False
    ) -> Tensor:
        """Step (rows, R) up the reward player's payoff; ``draws`` None is exact."""
        with torch.enable_grad():
            phi = _own(phi, graph)
            expert, own = draws or (self.expert, self.policy.log_law(theta).exp())
            reward = self.rewards.reward(phi)
            loss = self.objective.reward_risk(reward, reward, expert, own).mean(-1)
            (slope,) = torch.autograd.grad(loss.sum(), phi, create_graph=graph)
        return -self.step_reward[:, None] * slope

    def policy_move(
        self, theta: Tensor, phi: Tensor, draws: Laws | None = None, graph: bool = False
    ) -> Tensor:
        """Step (rows, P) down the policy player's cost; ``draws`` None is exact."""
        with torch.enable_grad():
            theta = _own(theta, graph)
            log_law, reward = self.policy.log_law(theta), self.rewards.reward(phi)
            if self.rules.natural or draws is None:
                expert = self.expert if draws is None else draws[0]
                law = log_law.exp()
                cost = self.cost(law, log_law, reward, expert)
                if self.rules.natural:
                    (slope,) = torch.autograd.grad(cost.sum(), law, create_graph=graph)
                    slope = (slope - (law * slope).sum(-1, keepdim=True)).flatten(1)
                else:
                    (slope,) = torch.autograd.grad(cost.mean(-1).sum(), theta, create_graph=graph)
            else:
                slope = self._score_gradient(theta, log_law, reward.detach(), draws)
        return -self.step_policy[:, None] * (slope if graph else slope.detach())

    def cost(self, law: Tensor, log_law: Tensor, reward: Tensor, expert: Tensor) -> Tensor:
        """The policy player's cost a prompt (rows, X); the constant ``E_p[a]`` is left in."""
        if self.rules.pay == "rounds":
            main = -(law * reward).sum(-1)
        else:
            main = -self.objective.reward_risk(reward, reward, expert, law)
        return main + self.tau[:, None] * (law * (log_law - self.log_ref)).sum(-1)

    def _score_gradient(
        self, theta: Tensor, log_law: Tensor, reward: Tensor, draws: Laws
    ) -> Tensor:
        """``mean_i (cost_i - mean of the others' costs) grad log pi(y_i)``: unbiased."""
        assert self.rules.batch is not None
        expert, own = draws
        weight = own.clone().requires_grad_()
        cost = self.cost(weight, log_law.detach(), reward, expert)
        (of_response,) = torch.autograd.grad(cost.sum(), weight)
        centred = of_response - (own * of_response).sum(-1, keepdim=True)
        score = (own * centred * log_law).sum(-1).mean(-1)
        leave_one_out = self.rules.batch / (self.rules.batch - 1)
        (slope,) = torch.autograd.grad(leave_one_out * score.sum(), theta)
        return slope

    def _draws(self, theta: Tensor, step: int, part: str) -> Laws | None:
        """Frequencies of the expert's and the own responses drawn for one gradient."""
        if self.rules.batch is None:
            return None
        shape = (self.policy.shape[0], self.rules.batch)
        law = self.policy.log_law(theta).exp()
        uniform = self.streams.uniform
        return (
            frequencies(self.expert, uniform(f"expert {part}", step, shape)),
            frequencies(law, uniform(f"own {part}", step, shape)),
        )


# -- measures --------------------------------------------------------------------------------------


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
    tau = 0 the largest pay minus the mean. NaN without a best response.
    """
    obj = players.objective
    log_law = players.policy.log_law(state["theta"])
    law, reward = log_law.exp(), players.rewards.reward(state["phi"])
    if obj.missing("reward"):
        return torch.full_like(players.tau, torch.nan)
    p = players.expert
    best = best_response(obj, p.log().clamp_min(PADDING) - log_law, p, law)
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


# -- checks ---------------------------------------------------------------------------------------


def _own(parameters: Tensor, graph: bool) -> Tensor:
    """What a player differentiates by: a copy, as the other's move may depend on the original."""
    return parameters.clone() if graph else parameters.detach().requires_grad_()


def _expanded(given: Any, shape: tuple[int, ...]) -> Tensor | None:
    try:
        tensor = torch.as_tensor(given, dtype=torch.float64).expand(shape).clone()
    except (RuntimeError, TypeError, ValueError):
        return None
    return tensor if bool(torch.isfinite(tensor).all()) else None


def _refuse_unplayable(objective: Objective, rules: Rules) -> None:
    if objective.needs:
        raise Unavailable(
            f"{objective.name} needs {', '.join(sorted(objective.needs))}: it has no game of two "
            "explicit players"
        )
    if objective.missing("risk"):
        objective.require("saddle")
    if grouped(objective) and rules.batch is not None:
        raise Unavailable(f"{objective.name}: a group's risk is not linear in laws; use exact ones")

"""Stochastic self-play: rounds of gradient steps on the one loss in ``beta log pi_theta/pi_t``.

A round freezes the opponent ``pi_t`` and takes ``steps_per_round`` steps of (stochastic) gradient
descent on the objective's own loss, whose expert responses come from the expert's law or from n
samples of it, and whose own responses come from the opponent or from a pool drawn once a round.

The learning rate is given in units of SFT: every objective's first gradient of a round is a
multiple of SFT's (T15), and the rate is divided by that multiple, so that equal rates are equal
first steps (`sft_scale`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.streams import draw, frequencies
from theory import objectives, xp
from theory.errors import Unavailable, refuse
from theory.objectives import Objective
from theory.objectives.implicit import implicit_reward
from toy_games.engine.policies import Policy
from toy_games.engine.rows import Batch, Column, digest
from toy_games.engine.simulator import State
from toy_games.engine.trainable import grouped, no_expert

Measure = Callable[["SelfPlay", State, int], Tensor]
FOREVER = 10**12
"""``steps_per_round`` of a round that never ends."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Where responses come from.

    Attributes:
        batch: pairs a prompt and step; None takes the exact expectation under the two laws.
        expert_samples: size n of a fixed expert data set a prompt; None draws from the law itself.
        own_samples: size of the pool of own responses drawn at the start of every round; None
            draws fresh ones from the opponent at every step.
        group: responses a side and group of group objectives (must divide ``batch``).
    """

    batch: int | None = 64
    expert_samples: int | None = None
    own_samples: int | None = None
    group: int = 8

    def problems(self) -> list[str]:
        """What is wrong with the sizes."""
        out = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.name != "group":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                out.append(f"data: {field.name}={value!r}; needed is a whole number >= 1")
        return out


class SelfPlay(Batch):
    """A batch of self-play runs with one objective and one class of policies; see `simulator`."""

    columns: ClassVar[dict[str, Column]] = {
        "beta": Column(1.0, positive=True),
        "rate": Column(0.1, positive=True),
        "tau": Column(0.0),
        "temperature": Column(1.0, positive=True),
        "steps_per_round": Column(100, positive=True, whole=True),
    }

    def __init__(
        self,
        policy: Policy,
        objective: Objective | str | None,
        rows: pd.DataFrame,
        expert: Any,
        start: Any,
        data: Data = Data(),
        measures: Mapping[str, Measure] | None = None,
        ref: Any = None,
        given: Mapping[str, Any] | None = None,
        half_after: float = np.inf,
    ) -> None:
        """Set up; nothing is drawn before `start`.

        Args:
            policy: the class.
            objective: of the registry or one's own, or its specification; None is SFT: maximum
                likelihood on the same expert responses and at the same rates.
            rows: one line a run: ``seed``, and any of beta, rate (SFT units), tau, temperature (of
                own responses; log-ratios always divide by pi_t), steps_per_round; other columns
                are kept as labels.
            expert: laws (N,), (X, N) or (rows, X, N).
            start: parameters (P,) or (rows, P).
            data: where responses come from.
            measures: name to function (simulation, state, step) -> (rows,); default `MEASURES`.
            ref: log-law (X, N) of the anchor; the start's if None.
            given: what is not left to ``data`` and ``start``: weights (rows, X, N) of the loss,
                "data" on expert and "own" on own responses, the latter in every round; "theta"
                (P,) or (rows, P), where steps begin (the first opponent is ``start`` all the same).
            half_after: steps after which the step size has halved, ``1/(1 + step/half_after)``.

        Raises:
            InvalidInput: everything that is wrong, at once. Unavailable: the objective has no loss.
        """
        self.policy, self.data = policy, data
        self.objective = None if objective is None else objectives.of(objective)
        self.grouped = grouped(self.objective)
        self.rows = rows.reset_index(drop=True)
        self.measures = dict(MEASURES if measures is None else measures)
        problems = [*data.problems(), *self.row_problems()]
        count = len(self.rows)
        laws, law_problems = _laws(expert, (count, *policy.shape))
        theta = torch.as_tensor(start, dtype=torch.float64)
        if theta.shape not in ((policy.size,), (count, policy.size)):
            problems.append(
                f"start: shape {tuple(theta.shape)}; needed is ({policy.size},) or "
                f"({count}, {policy.size})"
            )
        elif not torch.isfinite(theta).all():
            problems.append("start: needed are finite parameters")
        if self.grouped and data.batch is not None and data.batch % max(data.group, 1):
            problems.append(f"data: batch={data.batch} is not a multiple of group={data.group}")
        if not half_after > 0:
            problems.append(f"half_after={half_after!r}; needed is > 0")
        refuse(problems + law_problems)
        _refuse_unplayable(self.objective)
        assert laws is not None
        self.expert = laws
        self._start = theta.expand(count, policy.size).clone()
        self.log_start = policy.log_law(self._start)
        self.log_ref = (
            self.log_start
            if ref is None
            else torch.as_tensor(ref, dtype=torch.float64).expand(self.log_start.shape)
        )
        column = self.column
        self.beta, self.tau = column("beta"), column("tau")
        self.temperature = column("temperature")
        self.steps_per_round = column("steps_per_round").to(torch.int64)
        self.anchored = bool((self.tau > 0).any())
        if self.objective is not None and self.objective.reference_free and self.anchored:
            raise Unavailable(
                f"{self.objective.name} is reference-free: it has no anchor, tau must be 0"
            )
        self.step_size = column("rate") / sft_scale(self.objective, self.beta + self.tau)
        self.half_after = half_after
        self.given = {
            name: torch.as_tensor(value, dtype=torch.float64)
            for name, value in (given or {}).items()
        }
        label = "sft" if self.objective is None else self.objective.label
        self.identity = (
            f"{label} {type(policy).__name__} {policy.shape} {data} {digest(laws)} {half_after}"
        )

    # -- the simulation ---------------------------------------------------------------------------

    def start(self) -> State:
        """Parameters, the opponent's log-law, and the laws that responses are drawn from."""
        data_law = self.given.get("data", self.expert).expand(self.expert.shape)
        if self.data.expert_samples is not None:
            shape = (self.policy.shape[0], self.data.expert_samples)
            data_law = frequencies(self.expert, self.streams.uniform("expert data", 0, shape))
        theta = self.given.get("theta", self._start).expand(self._start.shape)
        state = {"theta": theta.clone(), "data": data_law.clone()}
        return state | self._opponent(self.log_start, 0)

    def advance(self, state: State, step: int) -> State:
        """One gradient step; at the start of a row's round its opponent is frozen anew."""
        theta = state["theta"]
        state = dict(state)
        size = self.step_size / (1.0 + step / self.half_after)
        due = step % self.steps_per_round == 0
        if step and bool(due.any()):
            fresh = self._opponent(self.policy.log_law(theta), step)
            keep = due[:, None, None]
            state |= {name: torch.where(keep, new, state[name]) for name, new in fresh.items()}
        state["theta"] = theta - size[:, None] * self.gradient(theta, state, step)
        return state

    def measure(self, state: State, step: int) -> dict[str, Tensor]:
        """All measures of the state."""
        return {name: measure(self, state, step) for name, measure in self.measures.items()}

    # -- its parts --------------------------------------------------------------------------------

    def log_law(self, state: State) -> Tensor:
        """``log pi_theta`` (rows, X, N)."""
        return self.policy.log_law(state["theta"])

    def gradient(self, theta: Tensor, state: State, step: int = 0) -> Tensor:
        """Gradient (rows, P) of every row's loss at parameters (rows, P)."""
        with torch.enable_grad():
            point = theta.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.loss(point, state, step).sum(), point)
        return slope

    def loss(self, theta: Tensor, state: State, step: int) -> Tensor:
        """Loss of every row (rows,), a mean over prompts: on a batch, or in expectation."""
        log_law = self.policy.log_law(theta)
        if self.objective is None:
            return self._sft_loss(log_law, state, step)
        reward = self.implicit_reward(log_law, state)
        if self.data.batch is None:
            extras = {}
            if "history" in self.objective.needs:
                extras = {"r_history": reward, "history_law": self.log_start.exp()}
            risk = self.objective.reward_risk(reward, reward, state["data"], state["own"], **extras)
            return risk.mean(-1)
        size = (self.policy.shape[0], self.data.batch)
        on_expert = reward.gather(-1, self.drawn("expert", state["data"], step, size))
        on_own = reward.gather(-1, self.drawn("own", state["own"], step, size))
        if self.grouped:
            sides = (r.unflatten(-1, (-1, self.data.group)) for r in (on_expert, on_own))
            return self.objective.reward_risk(*sides).mean((-2, -1))
        extras = {}
        if "history" in self.objective.needs:
            first = self.drawn("history", self.log_start.exp(), step, size)
            extras = {"r_history": reward.gather(-1, first)}
        return self.objective.reward_loss(on_expert, on_own, **extras).mean((-2, -1))

    def _sft_loss(self, log_law: Tensor, state: State, step: int) -> Tensor:
        if self.data.batch is None:
            return -(state["data"] * log_law).sum(-1).mean(-1)
        size = (self.policy.shape[0], self.data.batch)
        return -log_law.gather(-1, self.drawn("expert", state["data"], step, size)).mean((-2, -1))

    def implicit_reward(self, log_law: Tensor, state: State) -> Tensor:
        """``beta log pi/pi_t + tau log pi/pi_ref`` (rows, X, N) of a log-law, in nats."""
        assert self.objective is not None
        beta, tau = self.beta[:, None, None], self.tau[:, None, None]
        anchor = self.log_ref if self.anchored or "anchor" in self.objective.needs else None
        return implicit_reward(self.objective, log_law, state["opponent"], beta, anchor, tau)

    def drawn(self, side: str, law: Tensor, step: int, size: tuple[int, int]) -> Tensor:
        """Responses (rows, X, batch) of a side and step from laws (rows, X, N)."""
        return draw(law, self.streams.uniform(side, step, size))

    def _opponent(self, log_current: Tensor, step: int) -> State:
        """The opponent's log-law, and the law that own responses of this round are drawn from."""
        opponent = log_current
        if self.objective is not None:
            opponent = self.objective.opponent(log_current, self.log_start, self.log_ref)
        hot = opponent / self.temperature[:, None, None]
        own = xp.log_normalise(hot).exp()
        if self.data.own_samples is not None:
            shape = (self.policy.shape[0], self.data.own_samples)
            own = frequencies(own, self.streams.uniform("own pool", step, shape))
        own = self.given.get("own", own).expand(self.expert.shape).clone()
        return {"opponent": opponent, "own": own}


def sft_scale(objective: Objective | None, weight: Tensor) -> Tensor:
    """Factor of a round's first gradient over SFT's (T15), by differentiation at reward 0.

    At ``theta = theta_t`` the gradient of the loss is ``-scale E_p grad log pi`` with
    ``scale = -weight d loss/d r(y)``: ``weight a'(0)``, ``weight |l'(0)|``, or the group risk's.
    ``weight`` is that of ``log pi`` in the implicit reward, ``beta + tau``. A loss without such a
    slope keeps its own scale: 1.
    """
    if objective is None or objective.missing("risk"):
        return torch.ones_like(weight)
    scale = -objective.gradient_at_start[0]
    return weight * scale if 0 < scale < np.inf else torch.ones_like(weight)


# -- measures -------------------------------------------------------------------------------------


def kl_to_expert(run: SelfPlay, state: State, step: int) -> Tensor:
    """``KL(p||pi)`` in nats, mean over prompts, to the expert's law (not its samples)."""
    log_law, p = run.log_law(state), run.expert
    return (torch.xlogy(p, p) - p * log_law).sum(-1).mean(-1)


def reverse_kl(run: SelfPlay, state: State, step: int) -> Tensor:
    """``KL(pi||p)`` in nats, mean over prompts; +inf where pi has mass outside of p's support."""
    log_law = run.log_law(state)
    law = log_law.exp()
    density = torch.where(law > 0, law * (log_law - run.expert.log()), 0.0)
    return density.sum(-1).mean(-1)


def total_variation(run: SelfPlay, state: State, step: int) -> Tensor:
    """``TV(p, pi)``, mean over prompts."""
    return 0.5 * (run.log_law(state).exp() - run.expert).abs().sum(-1).mean(-1)


def max_logratio(run: SelfPlay, state: State, step: int) -> Tensor:
    """Largest ``|log p/pi|`` over the expert's support."""
    inside = run.expert > 0
    u = torch.where(inside, run.expert.log() - run.log_law(state), 0.0)
    return u.abs().flatten(1).amax(-1)


def max_reward(run: SelfPlay, state: State, step: int) -> Tensor:
    """Largest ``|beta log pi/pi_t|`` over all responses with mass on either side, in nats."""
    log_law, opponent = run.log_law(state), state["opponent"]
    live = torch.maximum(log_law, opponent) > -745.0
    ratio = torch.where(live, log_law - opponent, 0.0)
    return run.beta * ratio.abs().flatten(1).amax(-1)


MEASURES: dict[str, Measure] = {
    "kl": kl_to_expert,
    "tv": total_variation,
    "max_logratio": max_logratio,
    "max_reward": max_reward,
}


# -- checks ---------------------------------------------------------------------------------------


def _laws(expert: Any, shape: tuple[int, int, int]) -> tuple[Tensor | None, list[str]]:
    try:
        laws = torch.as_tensor(expert, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        return None, [f"expert: {error}; needed are probabilities"]
    try:
        laws = laws.expand(shape)
    except RuntimeError:
        return None, [f"expert: shape {tuple(laws.shape)}; needed is that of {shape} or its end"]
    if not torch.isfinite(laws).all() or (laws < 0).any():
        return None, ["expert: needed are finite probabilities >= 0"]
    off = float((laws.sum(-1) - 1.0).abs().sum())
    if off > 1e-9:
        return None, [f"expert: laws sum to 1 within {off:.1e}; needed is 1e-9"]
    return laws.clone(), []


def _refuse_unplayable(objective: Objective | None) -> None:
    if objective is None:
        return
    if why := no_expert(objective):
        raise Unavailable(f"{objective.name}: {why}")
    objective.require("risk")

"""Self-play in sampled rounds: a best response to n expert and n own samples, a round a step.

    u = log (k_p + a)/(k_q + a),   log pi_{t+1} = log pi_t + R(u)/beta - const

``k_p``, ``k_q`` count a response among the round's n expert and n own samples and ``a`` is the
smoothing. A response that neither side produced tells nothing: u = 0. With a = 0 one that only one
side produced has u = +-inf: a bounded link gives it its largest reward, an unbounded one an
infinite reward, cut at `LARGEST`. The policy step is the exact one (T2), so a round differs from
the exact round by its samples alone; without samples it is the exact round.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.streams import Streams
from theory import xp
from theory.errors import InvalidInput, refuse
from theory.objectives import Objective
from theory.rounds.history import AVERAGE, History, history_problems, shares_of
from toy_games.dynamics.best_response import best_response
from toy_games.engine.rows import Batch, Column, digest
from toy_games.engine.simulator import State

LARGEST = 1e6
"""Largest move of a log-probability in one round: a run that comes here has diverged."""

REACHED = 1.0
"""Nats of log-ratio and of KL at which the burn-in is over."""


class SampledRounds(Batch):
    """A batch of runs with one objective; a step is a round. See `simulator.Simulation`."""

    columns: ClassVar[dict[str, Column]] = {
        "beta": Column(None, positive=True),
        "label_noise": Column(0.0, below=1.0),
        "history": Column(0.0, most=1.0),
    }

    def __init__(
        self,
        objective: Objective | None,
        rows: pd.DataFrame,
        expert: Any,
        log_start: Any,
        samples: int | None = None,
        smoothing: float = 0.5,
        noise: str = "uniform",
        fixed_data: bool = False,
        per_expert: int = 1,
        history: History | None = None,
    ) -> None:
        """Set up; nothing is drawn before the first step.

        Args:
            objective: one with a best response; None is SFT: maximum likelihood on all
                expert samples so far, with the same smoothing.
            rows: one line a run: ``seed``, ``beta`` > 0, and, 0 if not given, ``label_noise`` in
                [0, 1), the share of expert samples that come from ``noise``, and ``history`` in
                [0, 1], that of own samples that come from the last round's policy (T6: history).
            expert: laws (rows, N).
            log_start: log-laws (rows, N), finite wherever the expert has mass.
            samples: n of each side and round; None plays exact rounds.
            smoothing: a >= 0, in counts.
            noise: "uniform" over the N responses, or "own": the policy's own law.
            fixed_data: whether all rounds have the same n expert samples; own ones are always new.
            per_expert: K, own samples to an expert sample; they count 1/K each.
            history: in place of that column, for all rows: shares of own samples that come from
                earlier rounds' policies, the last one's first, or "average" for all so far alike.

        Raises:
            InvalidInput: everything that is wrong, at once. Unavailable: no best response.
        """
        self.objective, self.samples, self.smoothing = objective, samples, smoothing
        self.rows, self.noise = rows.reset_index(drop=True), noise
        self.fixed_data, self.per_expert, self.history = fixed_data, per_expert, history
        self.expert = torch.as_tensor(expert, dtype=torch.float64)
        self.log_start = torch.as_tensor(log_start, dtype=torch.float64)
        refuse(self._problems())
        if objective is not None:
            objective.require("reward")
        self.share, self.beta = self.column("label_noise")[:, None], self.column("beta")[:, None]
        self.average = isinstance(history, str) and history == AVERAGE
        if history is None:
            self.old_shares = self.column("history")[:, None]
        else:
            shares = [0.0] if self.average else shares_of(history)[1:]
            self.old_shares = torch.as_tensor(shares, dtype=torch.float64)[None]
        self.seeds, group = np.unique(self.rows["seed"], return_inverse=True)
        self.streams = Streams(self.seeds.tolist())
        self._members = _members(group, len(self.seeds))
        label = "sft" if objective is None else objective.label
        laws = digest(self.expert)
        self.identity = f"{label} n={samples} a={smoothing} noise={noise} expert={laws}"
        self.identity += " fixed data" * fixed_data + f" K={per_expert}" * (per_expert != 1)
        listed = not (history is None or isinstance(history, (str, float, int)))
        shown = np.asarray(history).tolist() if listed else history
        self.identity += f" history={shown}" * (history is not None)

    def _problems(self) -> list[str]:
        out = self.row_problems()
        shapes = tuple(self.expert.shape), tuple(self.log_start.shape)
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != len(self.rows):
            out.append(
                f"expert {shapes[0]}, log_start {shapes[1]}; needed are ({len(self.rows)}, N)"
            )
        elif (self.expert < 0).any() or ((self.expert.sum(-1) - 1).abs() > 1e-9).any():
            out.append("expert: needed are probabilities that sum to 1")
        elif ((self.expert > 0) & ~torch.isfinite(self.log_start)).any():
            out.append("log_start: needed are finite values wherever the expert has mass")
        if self.samples is not None and self.samples < 1:
            out.append(f"samples={self.samples!r}; needed is a whole number >= 1, or None")
        if not 0 <= self.smoothing < np.inf:
            out.append(f"smoothing={self.smoothing!r}; needed is >= 0")
        if self.noise not in ("uniform", "own"):
            out.append(f"noise={self.noise!r}; needed is 'uniform' or 'own'")
        if self.fixed_data and self.noise == "own":
            out.append("fixed_data: noise='own' draws labels from a policy that changes")
        if self.per_expert < 1 or self.per_expert != int(self.per_expert):
            out.append(f"per_expert={self.per_expert!r}; needed is a whole number >= 1")
        if self.history is not None:
            out += history_problems(self.history)
            out += ["history: given for all rows, and as their column"] * ("history" in self.rows)
        return out

    # -- the simulation ---------------------------------------------------------------------------

    def start(self) -> State:
        """The log-policy, counts of expert samples (SFT), and rounds at which burn-ins ended."""
        log_q = xp.log_normalise(self.log_start)
        never = torch.full((len(self.rows),), -1.0, dtype=torch.float64)
        old = log_q[:, None].repeat(1, self.old_shares.shape[-1], 1)
        state = {"log_q": log_q, "old": old, "seen": torch.zeros_like(log_q)}
        return self._note_burn_in(state | {"burn_in_u": never, "burn_in_kl": never}, 0)

    def advance(self, state: State, step: int) -> State:
        """One round."""
        log_q = state["log_q"]
        q = log_q.exp()
        other = q if self.noise == "own" else torch.full_like(q, 1.0 / q.shape[-1])
        labels = (1.0 - self.share) * self.expert + self.share * other
        state = dict(state)
        if self.objective is None:
            state["log_q"], state["seen"] = self._likelihood(labels, state["seen"], step)
        else:
            own, state["old"] = self._own(log_q, state["old"], step)
            reward = self._best_response(self.objective, labels, own, step)
            move = (reward / self.beta).clamp(-LARGEST, LARGEST)
            state["log_q"] = xp.log_normalise(log_q + move)
        return self._note_burn_in(state, step + 1)

    def measure(self, state: State, step: int) -> dict[str, Tensor]:
        """``kl`` = KL(p||pi) and ``max_logratio`` in nats, ``outside`` = mass where p = 0, and
        the first rounds at which ``max log p/pi`` and KL were at most 1 nat (-1: never)."""
        u = self._log_ratio(state)
        outside = torch.where(self.expert > 0, 0.0, state["log_q"].exp()).sum(-1)
        return {
            "kl": (self.expert * u).sum(-1).clamp_min(0.0),
            "max_logratio": u.abs().amax(-1),
            "outside": outside,
            "burn_in_u": state["burn_in_u"],
            "burn_in_kl": state["burn_in_kl"],
        }

    # -- its parts --------------------------------------------------------------------------------

    def _log_ratio(self, state: State) -> Tensor:
        """``log p/pi`` where the expert has mass, else 0."""
        inside = self.expert > 0
        return torch.where(
            inside, torch.where(inside, self.expert, 1.0).log() - state["log_q"], 0.0
        )

    def _note_burn_in(self, state: State, done: int) -> State:
        u = self._log_ratio(state)
        sizes = {"burn_in_u": u.amax(-1), "burn_in_kl": (self.expert * u).sum(-1)}
        for name, size in sizes.items():
            first = (state[name] < 0) & (size <= REACHED)
            state[name] = torch.where(first, float(done), state[name])
        return state

    def _own(self, log_q: Tensor, old: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Log-law of the own samples, and ``old`` (rows, h, N) for the next round.

        That is the policies before, the last one first, or the average's law alone. Without old
        samples the law is the policy's, to the bit.
        """
        if self.average:
            before = torch.tensor(step / (step + 1.0), dtype=torch.float64)
            mean = torch.logaddexp(log_q + (-before).log1p(), old[:, 0] + before.log())
            return mean, mean[:, None]
        total = self.old_shares.sum(-1, keepdim=True).clamp_max(1.0)
        mixed = log_q + (-total).log1p()
        for j in range(old.shape[1]):
            mixed = torch.logaddexp(mixed, old[:, j] + self.old_shares[:, j : j + 1].log())
        following = torch.cat([log_q[:, None], old], dim=1)[:, : old.shape[1]]
        return torch.where(total > 0, mixed, log_q), following

    def _best_response(self, obj: Objective, p: Tensor, log_q: Tensor, step: int) -> Tensor:
        """``R(u)`` of the exact or of the sampled laws; 0 on what nobody produces."""
        q = log_q.exp()
        if self.samples is None:
            dead = (p == 0) & torch.isneginf(log_q)
            u = torch.where(dead, 0.0, p.log() - log_q)
        else:
            a = self.smoothing
            k = self.per_expert
            p = self.counts("expert", p, 0 if self.fixed_data else step) + a
            q = self.counts("own", q, step, self.samples * k) / k + a
            u = torch.where((p == 0) & (q == 0), 0.0, p.log() - q.log())
            p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
        return best_response(obj, u, p, q)

    def _likelihood(self, labels: Tensor, seen: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if self.samples is None:
            return labels.log(), seen
        if self.fixed_data:
            seen = self.counts("expert", labels, 0)
        else:
            seen = seen + self.counts("expert", labels, step)
        return xp.log_normalise((seen + self.smoothing).log()), seen

    def counts(self, side: str, law: Tensor, step: int, samples: int | None = None) -> Tensor:
        """Counts (rows, N) of n draws by inversion; rows of one seed share the n numbers.

        The numbers are sorted once a seed and each law's distribution function is looked up among
        them: the cost of a row does not grow with n.
        """
        n = self.samples if samples is None else samples
        assert n is not None
        if law.shape[-1] < 2:
            return torch.full_like(law, n)
        numbers = self.streams.uniform(side, step, (n,)).sort(-1).values
        cdf = law.cumsum(-1)
        cdf = cdf / cdf[:, -1:]
        wanted = cdf[self._members].flatten(1).contiguous()
        below = torch.searchsorted(numbers, wanted).reshape(*self._members.shape, -1)
        total = torch.empty_like(cdf)
        total[self._members] = below.to(torch.float64)
        return torch.diff(total, dim=-1, prepend=torch.zeros_like(total[:, :1]))


def _members(group: np.ndarray, count: int) -> Tensor:
    """Row numbers of every seed (seeds, most), filled up with the seed's first row."""
    rows = [np.flatnonzero(group == g) for g in range(count)]
    most = max(len(r) for r in rows)
    return torch.from_numpy(np.stack([np.append(r, np.full(most - len(r), r[0])) for r in rows]))


def far_start(expert: np.ndarray, direction: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Log-laws (rows, N) whose largest ``log p/pi`` is ``reach`` (rows,), in nats.

    ``pi ∝ p e^{-s v}`` with the directions v (rows, N), and s found by bisection. Responses that
    the expert never gives keep the direction's own law in place of p.

    Raises:
        InvalidInput: a reach that is not > 0, or a direction that is constant.
    """
    reach, v = np.asarray(reach, dtype=float), np.asarray(direction, dtype=float)
    refuse(
        ([] if (reach > 0).all() else ["reach: needed is > 0"])
        + ([] if (np.ptp(v, axis=-1) > 0).all() else ["direction: needed are different values"])
    )
    low, high = np.zeros_like(reach), 1e3 * reach / np.ptp(v, axis=-1) + 1e3
    for _ in range(100):
        middle = 0.5 * (low + high)
        top = _top(expert, middle[:, None] * v)
        low, high = np.where(top < reach, middle, low), np.where(top < reach, high, middle)
    s = low[:, None] * v
    found = _top(expert, s)
    if (np.abs(found - reach) > 1e-6 * reach).any():
        raise InvalidInput("reach: not attained along the direction")
    with np.errstate(divide="ignore"):
        return np.asarray(xp.log_normalise(np.log(expert) - s))


def _top(expert: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Largest log p/pi of ``pi ∝ p e^{-tilt}``: tilt + log E_p e^{-tilt}."""
    with np.errstate(divide="ignore"):
        log_z = xp.logsumexp(np.log(expert) - tilt)
    return np.asarray((np.where(expert > 0, tilt, -np.inf)).max(-1) + log_z)

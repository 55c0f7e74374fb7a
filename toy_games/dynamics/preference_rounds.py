"""Preference self-play from samples: rounds whose payoffs are estimated from comparisons.

Every policy step is the exact one (T2); only what it is paid is estimated (reconstruction, T11):

* *comparisons*: every response meets K responses drawn from ``pi_t``, the winner of each is drawn
  by the preference, and the share of wins stands for ``P(y > pi_t)``; *self-comparison* lets one
  of the K opponents be the response itself, which counts 1/2;
* *pairs*: K pairs are drawn from ``pi_t``, and the reward player answers their winners and losers;
* K = 0 is the exact preference.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.specs import objective_of
from lab.streams import draw
from theory import preferences, xp
from theory.errors import InvalidInput, Unavailable, refuse
from theory.objectives import Objective
from theory.result import FloatArray
from toy_games.engine.rows import Batch, Column, digest
from toy_games.engine.simulator import State
from toy_games.engine.trainable import of_pairs

NASH_MD = "nash_md"
NASH_MD_SCALE = 0.5  # reward of a certain win, INPO's
DRAWS = ("comparisons", "pairs")


class Algorithm(NamedTuple):
    """What is played: an objective of the registry, SFT on winners, or Nash-MD."""

    spec: str
    objective: Objective | None

    @property
    def mixture(self) -> bool:
        """Whether responses are scored against the geometric mixture with the anchor."""
        return self.spec == NASH_MD

    @property
    def scale(self) -> float:
        """Reward ``g`` of a certain win. Unavailable: the reward is no multiple of 2P - 1."""
        if self.mixture:
            return NASH_MD_SCALE
        if self.objective is None:
            raise Unavailable("sft has no payoff scale: a round of it is the law of winners")
        return preferences.payoff_scale(self.objective)

    @property
    def gain(self) -> float:
        """Slope of the reward in ``2P - 1`` near 1/2: a round's effective step is gain/beta."""
        if self.mixture:
            return NASH_MD_SCALE
        return 1.0 if self.objective is None else preferences.local_gain(self.objective)


def algorithm_of(spec: str) -> Algorithm:
    """The algorithm of ``"nash_md"``, ``"sft"`` or an objective's specification."""
    return Algorithm(spec, None if spec == NASH_MD else objective_of(spec))


class PreferenceBatch(Batch):
    """The rows that all dynamics share: games, starts, anchors and weights; checked on entry."""

    columns: ClassVar[dict[str, Column]] = {
        "beta": Column(1.0),
        "beta_growth": Column(0.0),
        "tau": Column(0.0),
        "samples": Column(0, whole=True),
        "self_comparison": Column(0, whole=True),
        "horizon": Column(0, whole=True),
        "rate": Column(0.1, positive=True),
        "steps_per_round": Column(100, positive=True, whole=True),
    }

    def __init__(
        self, rows: pd.DataFrame, preference: Any, start: Any, ref: Any = None, target: Any = None
    ) -> None:
        """Set up.

        Args:
            rows: one line a run: ``seed``, and any of `columns`; other columns are labels. Round
                t (from 0) has the weight ``beta + beta_growth t``; rows rest after ``horizon``
                rounds, if that is not 0.
            preference: ``P`` (n, n) or (rows, n, n).
            start: first policies, probabilities (n,) or (rows, n), with mass everywhere.
            ref: anchors of the same shape; the starts if None.
            target: policies to which distances are measured; uniform ones if None.

        Raises:
            InvalidInput: everything that is wrong, at once.
        """
        self.rows = rows.reset_index(drop=True)
        problems = self.row_problems()
        checked = preferences.check_preference(preference)
        count, n = len(self.rows), checked.shape[-1]
        given = {"start": start, "ref": start if ref is None else ref}
        given["target"] = np.full(n, 1.0 / n) if target is None else target
        if checked.ndim > 3 or (checked.ndim == 3 and len(checked) != count):
            problems.append(f"preference: shape {checked.shape}; needed is (n, n) or (rows, n, n)")
        laws = {name: np.asarray(law, dtype=np.float64) for name, law in given.items()}
        for name, law in laws.items():
            if law.shape not in ((n,), (count, n)):
                problems.append(f"{name}: shape {law.shape}; needed is ({n},) or ({count}, {n})")
            elif not np.allclose(law.sum(-1), 1.0, rtol=0.0, atol=1e-9) or not (
                (law >= 0).all() if name == "target" else (law > 0).all()
            ):
                problems.append(f"{name}: needed are laws with mass on every response")
        refuse(problems)
        self.preference = torch.from_numpy(np.broadcast_to(checked, (count, n, n)).copy())
        full = {name: np.broadcast_to(law, (count, n)).copy() for name, law in laws.items()}
        self.log_start, self.log_ref = (torch.from_numpy(full[k]).log() for k in ("start", "ref"))
        self.target = torch.from_numpy(full["target"])
        self.n = n
        self.beta, self.tau = self.column("beta")[:, None], self.column("tau")[:, None]
        self.growth = self.column("beta_growth")[:, None]
        refuse(["rows: needed is beta + tau > 0"] if (self.beta + self.tau <= 0).any() else [])
        self.samples = self.column("samples").to(torch.int64)
        self.own = self.column("self_comparison") > 0
        self.identity = digest(self.preference, self.log_start, self.log_ref, self.target)

    def win_rate(self, law: Tensor) -> Tensor:
        """Exact ``P(y > law)`` (rows, n)."""
        return torch.einsum("bij,bj->bi", self.preference, law)

    def pairs(self, law: Tensor, step: int, count: int) -> tuple[Tensor, Tensor]:
        """Winners and losers (rows, count) of pairs drawn from a law."""
        first, second = (
            draw(law, self.streams.uniform(f"{side} of pairs", step, (count,)))
            for side in ("first", "second")
        )
        row = torch.arange(len(law))[:, None]
        chance = self.preference[row, first, second]
        won = self.streams.uniform("winners of pairs", step, (count,)) < chance
        return torch.where(won, first, second), torch.where(won, second, first)

    def used(self, most: int) -> Tensor:
        """Weights (rows, most) of the first K of ``most`` draws: 1/K, then 0."""
        inside = torch.arange(most) < self.samples[:, None]
        return inside / self.samples.clamp_min(1)[:, None].to(torch.float64)

    def distances(self, log_law: Tensor) -> dict[str, Tensor]:
        """To the target z: ``KL(z||pi)``, TV, and the norm of ``pi/z - 1`` in L2(z)."""
        z, law = self.target, log_law.exp()
        live = z > 0
        kl = (torch.xlogy(z, z) - torch.where(live, z * log_law, 0.0)).sum(-1)
        square = torch.where(live, (law - z) ** 2 / torch.where(live, z, 1.0), 0.0).sum(-1)
        return {"kl": kl, "tv": 0.5 * (law - z).abs().sum(-1), "norm": square.sqrt()}

    def gap(self, law: Tensor) -> Tensor:
        """Duality gap of the plain game, in win probability."""
        found = preferences.duality_gap(self.preference.numpy(), law.numpy())
        return torch.from_numpy(np.asarray(found))


class PreferenceRounds(PreferenceBatch):
    """One step is one round: the exact policy step on an exact or estimated payoff."""

    def __init__(
        self,
        algorithm: str,
        rows: pd.DataFrame,
        preference: Any,
        start: Any,
        ref: Any = None,
        target: Any = None,
        draws: str = "comparisons",
    ) -> None:
        """As :class:`PreferenceBatch`; ``samples`` K of 0 is the exact preference.

        Raises:
            InvalidInput: everything that is wrong. Unavailable: the algorithm has no such reward.
        """
        super().__init__(rows, preference, start, ref, target)
        self.algorithm, self.draws = algorithm_of(algorithm), draws
        problems = [] if draws in DRAWS else [f"draws={draws!r}; needed is one of {DRAWS}"]
        if self.algorithm.mixture and bool((self.tau <= 0).any()):
            problems.append("nash_md: needed is tau > 0")
        if draws == "pairs" and bool(self.own.any()):
            problems.append("self_comparison: pairs have none; it goes with comparisons")
        refuse(problems)
        self.sampled = bool((self.samples > 0).any())
        if self.sampled:
            self.scale = self.algorithm.scale
        self.horizon = self.column("horizon")[:, None]
        self.identity = f"{algorithm} {draws} {self.identity}"

    def start(self) -> State:
        """Log-policies, and the sum of the policies that were scored."""
        return {"log_law": self.log_start.clone(), "total": torch.zeros_like(self.log_start)}

    def advance(self, state: State, step: int) -> State:
        """A round of every row that has not reached its horizon."""
        new = self._round(state["log_law"], step)
        live = (self.horizon == 0) | (step < self.horizon)
        return {
            "log_law": torch.where(live, new[0], state["log_law"]),
            "total": state["total"] + torch.where(live, new[1], 0.0),
        }

    def _round(self, log_law: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Score responses against the opponent, then T2's step from there; and the law scored.

        The opponent is ``pi_t`` unless the objective has another; Nash-MD's is the mixture, but its
        step starts at ``pi_t``.
        """
        if self.algorithm.objective is not None:
            log_law = self.algorithm.objective.opponent(log_law, self.log_start, self.log_ref)
        scored = log_law
        beta = self.beta + self.growth * step
        weight = beta + self.tau
        if self.algorithm.mixture:
            scored = xp.log_normalise((beta * log_law + self.tau * self.log_ref) / weight)
        law = scored.exp()
        if self.algorithm.spec == "sft":
            return xp.log_normalise(log_law + self.win_rate(law).log()), law
        reward = self.reward(law, step)
        new = (beta * log_law + self.tau * self.log_ref + reward) / weight
        return xp.log_normalise(new), law

    def measure(self, state: State, step: int) -> dict[str, Tensor]:
        """Gaps of the last and of the average policy, and distances to the target."""
        last = state["log_law"]
        average = state["total"] / state["total"].sum(-1, keepdim=True) if step else last.exp()
        out = {"gap": self.gap(last.exp()), "average_gap": self.gap(average)}
        out["average_tv"] = 0.5 * (average - self.target).abs().sum(-1)
        return out | self.distances(last)

    def reward(self, law: Tensor, step: int) -> Tensor:
        """Exact or estimated best response (rows, n) to preference pairs from a law, in nats."""
        if not self.sampled:
            return self._exact(law)
        if self.draws == "pairs":
            found = self._of_pairs(law, step)
        else:
            found = self.scale * (2.0 * self.estimate(law, step) - 1.0)
        exact = self.samples == 0
        return torch.where(exact[:, None], self._exact(law), found) if exact.any() else found

    def estimate(self, law: Tensor, step: int) -> Tensor:
        """Share of wins (rows, n) of every response in its K comparisons."""
        most = int(self.samples.max())
        drawn = self.streams.uniform("opponents", step, (self.n * most,))
        opponent = draw(law, drawn).unflatten(-1, (self.n, most))
        chance = self.preference.gather(-1, opponent)
        luck = self.streams.uniform("comparisons", step, (self.n, most))
        won = (luck < chance).to(torch.float64)
        won[..., 0] = torch.where(self.own[:, None], 0.5, won[..., 0])
        return (won * self.used(most)[:, None]).sum(-1)

    def _exact(self, law: Tensor) -> Tensor:
        if self.algorithm.mixture:
            return self.algorithm.scale * (2.0 * self.win_rate(law) - 1.0)
        assert self.algorithm.objective is not None
        known = self.preference.numpy(), law.numpy()
        return torch.from_numpy(preferences.reward(*known, self.algorithm.objective))

    def _of_pairs(self, law: Tensor, step: int) -> Tensor:
        most = int(self.samples.max())
        winner, loser = self.pairs(law, step, most)
        counts = torch.zeros(len(law), self.n * self.n, dtype=torch.float64)
        counts.scatter_add_(-1, winner * self.n + loser, self.used(most))
        counts = counts.unflatten(-1, (self.n, self.n))
        return reward_of_counts(counts, self.scale, of_pairs(self.algorithm.objective))


def reward_of_counts(counts: Tensor, scale: float, dependent: bool) -> Tensor:
    """Best response to winners and losers that were counted: ``counts[i, j]`` wins of i over j.

    Without ``dependent`` only the marginals are seen: ``g (wins - losses)/(wins + losses)`` (SPIF,
    SPPO). With it the squared loss of all pairs is minimised (IPO, INPO): the least-squares
    solution of the comparison graph, least in norm where the graph is not connected. Responses that
    were not drawn get 0.
    """
    counts = counts - torch.diag_embed(counts.diagonal(dim1=-2, dim2=-1)) if dependent else counts
    wins, losses = counts.sum(-1), counts.sum(-2)
    met = wins + losses
    if not dependent:
        return scale * (wins - losses) / torch.where(met > 0, met, 1.0)
    both = counts + counts.mT
    system = torch.diag_embed(met) - both + met[..., :, None] * met[..., None, :]
    solved = torch.linalg.pinv(system, hermitian=True) @ (wins - losses)[..., None]
    return scale * solved[..., 0]


def games(name: str, n: int, generators: list[np.random.Generator], strength: float) -> FloatArray:
    """Preferences (rows, n, n) of one kind, a game a row; ``strength`` is the largest |2P - 1|.

    "rps" (the odd number of responses up to n), "random", "bradley_terry" (scores whose largest
    difference gives the strength), "low_rank" (``2P - 1`` of rank 2: a set of equilibria).
    """
    if name == "rps":
        odd = n if n % 2 else n - 1
        return np.stack([preferences.rock_paper_scissors(strength, odd)] * len(generators))
    if name == "random":
        return np.stack([preferences.random_preference(g, n, (), strength) for g in generators])
    if name == "bradley_terry":
        spread = 2.0 * np.arctanh(strength) * np.arange(n) / (n - 1)
        return preferences.bradley_terry(np.stack([g.permutation(spread) for g in generators]))
    if name == "low_rank":
        return np.stack([_rank_two(g, n, strength) for g in generators])
    raise InvalidInput(f"game {name!r}; there are {', '.join(GAMES)}")


GAMES = ("rps", "random", "bradley_terry", "low_rank")


def _rank_two(generator: np.random.Generator, n: int, strength: float) -> FloatArray:
    """Signed areas of theory's rank-2 plane, redrawn until no response wins against all others."""
    while True:
        chance = preferences.low_rank(generator, n, 2)
        area = np.log(chance) - np.log1p(-chance)
        if (area.min(-1) < -1e-6).all():
            return np.asarray(0.5 + 0.5 * strength * area / np.abs(area).max())

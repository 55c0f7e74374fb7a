"""Rounds of a tiny model against exact rounds; `llm_scale.study.tiny_runs` runs and records them.

The game is that of task "phrases" with a horizon at which every response can be listed, so laws
are compared with laws: what the trained model is, and what exact rounds from the same start give.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from lab.specs import objective_of
from llm_scale.data.experts import Ngram
from llm_scale.data.tasks import KnownExpert
from llm_scale.launch import prepare
from llm_scale.models.language import Language
from llm_scale.models.player import Player
from llm_scale.settings import Settings
from llm_scale.store.journal import METRICS
from llm_scale.study import listed_laws as listed
from llm_scale.train import Diverged, Trainer
from theory import laws
from theory.errors import InvalidInput, NotConverged, Unavailable
from theory.objectives import Objective
from theory.objectives.finite_groups import finite_group_link
from theory.objectives.forms import Pairwise
from theory.objectives.group import CentredSpif
from theory.rounds.one_step import one_step_round
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

Floats = NDArray[np.float64]
Row = dict[str, Any]

START_BATCH, START_RATE = 64, 2e-3
POINTS = 160
RARE = 1e-4
"""A response is outside if neither the expert nor pi_t gives it this probability."""
KEPT = (
    "cosine_start", "cosine_end", "link_slope", "link_slope_se", "link_correlation", "dumped",
    "dumped_se", "kl", "kl_se", "stored_gap", "sampler_gap",
)  # fmt: skip
"""What the run's own telemetry says of the same round, from held-out samples."""


@dataclass(frozen=True)
class Job:
    """One run: its study and what it sets; ``sft_steps`` at a constant rate make its start.

    Attributes:
        study: name that its rows carry.
        settings: of the run.
        level: weight of `LevelledIpo`, which is trained then in place of the settings' objective.
        points: whether the listed points of the first round are kept, for the scatter of the link.
    """

    study: str
    settings: Settings
    level: float | None = None
    points: bool = False


@dataclass(frozen=True)
class LevelledIpo(Pairwise):
    """``(r_y - r_y' - m)^2 + level (r_y + r_y')^2``: from IPO to pointwise SPIF (reconstruction).

    At level 0 it is IPO. At 1 it is ``2m`` times pointwise SPIF's loss with ``c = 2/m``, plus
    ``m^2``: SPIF is IPO that also sees the level of the rewards, which a pair's difference does
    not. Near the expert its link is ``m/(1+level) tanh(u/2)``: m = 1 + level keeps the effective
    step.
    """

    level: float
    absent: ClassVar[dict[str, str]] = {
        "link": "not invariant to a shift of the reward",
        "reward": "not invariant to a shift of the reward",
    }

    def pair_loss(self, d: Any) -> Any:
        return (d - (1.0 + self.level)) ** 2

    def reward_loss(self, r_y: Any, r_own: Any, **extras: Any) -> Any:
        return self.pair_loss(r_y - r_own) + self.level * (r_y + r_own) ** 2

    def reward_risk(
        self, r_y: Any, r_own: Any, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Any:
        """Mean over all pairs of a prompt, unweighted."""
        return self.reward_loss(r_y[..., :, None], r_own[..., None, :]).mean((-2, -1))


def run(job: Job) -> list[Row]:
    """Train in a folder that is thrown away; a row a round."""
    torch.set_num_threads(1)
    made = prepare.prepare(job.settings)
    if not (isinstance(made.task, KnownExpert) and isinstance(made.task.expert, Ngram)):
        raise InvalidInput(f"task={job.settings.task!r}; needed is 'phrases'")
    with tempfile.TemporaryDirectory() as folder:
        start(job.settings, Path(folder) / "start", made.language, made.task)
        settings = dataclasses.replace(job.settings, sft_steps=0)
        trainer = Trainer(settings, Path(folder), made.language, made.task)
        if job.level is not None:
            trainer.objective = LevelledIpo(job.level)
        watch = Watch(trainer, made.task, job.points)
        rows: list[Row] = []
        try:
            trainer.run(lambda _: rows.append(watch.round(len(rows))))
        except Diverged:
            rows.append({"round": len(rows), "diverged": True})
        seen = [json.loads(line) for line in (Path(folder) / METRICS).read_text().splitlines()]
        told = [row for row in seen if "round" in row]
        losses = [row["loss"] for row in seen if "loss" in row]
    s = job.settings
    same = {
        "study": job.study, "objective": s.objective, "seed": s.seed, "prompts": s.prompts,
        "steps": s.steps_per_round, "batch": s.batch, "lr": s.lr, "schedule": s.schedule,
        "beta": s.beta, "G": s.expert_samples, "K": s.own_samples, "level": job.level,
        "effective_step": _effective_step(s),
    }  # fmt: skip
    for row, own in zip(rows, told, strict=False):
        row |= {f"sampled_{k}": own[k] for k in KEPT if k in own}
    tail = max(1, s.steps_per_round // 10)
    for i, row in enumerate(rows):
        end = len(losses) - (len(rows) - 1 - i) * s.steps_per_round
        row["loss"] = float(np.mean(losses[max(0, end - tail) : end]))
    return [same | row for row in rows]


def start(settings: Settings, out: Path, language: Language, task: KnownExpert) -> None:
    """Train the model by maximum likelihood, the same for all runs of a seed."""
    chosen = dataclasses.replace(
        settings, objective="sft", rounds=0, prompts=settings.sft_steps * START_BATCH,
        batch=START_BATCH, schedule="constant", lr=START_RATE, expert_samples=1,
    )  # fmt: skip
    out.mkdir()
    some = dataclasses.replace(task, settings=chosen)
    Trainer(chosen, out, language, some).run(lambda _: None)


class Watch:
    """Lists the laws of a trainer's model after each of its rounds."""

    def __init__(self, trainer: Trainer, task: KnownExpert, points: bool = False) -> None:
        self.points = points
        self.trainer, self.objective = trainer, trainer.objective
        self.task = task
        self.log_p = expert_law(task)
        self.log_q: Floats | None = None

    def round(self, number: int) -> Row:
        """Measurements of the round that has just ended."""
        player, s = self.trainer.player, self.trainer.settings
        if self.log_q is None:
            with player.frozen(load_file(self.trainer.out / "base.safetensors")) as start:
                self.log_q = law(start, self.task)
        before, after = self.log_q, law(player, self.task)
        self.log_q = after
        row = {"round": number} | divergences(self.log_p, before, after)
        if self.objective is not None and self.objective.has_link:
            sizes = s.expert_samples, s.own_samples
            row |= rewards(self.log_p, before, after, self.objective, s.beta, sizes)
            if self.points and number == 0:
                row |= points(self.log_p, before, after, self.objective, s.beta)
        return row


def expert_law(task: KnownExpert) -> Floats:
    """``log p`` of all responses, (prompts, responses)."""
    assert isinstance(task.expert, Ngram)
    return _listed(task.expert.next_log_laws, task)


def law(player: Player, task: KnownExpert) -> Floats:
    """``log pi`` of all responses, (prompts, responses)."""
    return _listed(listed.of_player(player), task)


def _listed(next_law: listed.NextLaw, task: KnownExpert) -> Floats:
    vocabulary, eos = len(task.tokenizer), int(task.tokenizer.eos_token_id)
    horizon = task.settings.max_new_tokens
    return listed.log_laws(next_law, task.prompts, vocabulary, eos, horizon)


def _effective_step(s: Settings) -> float:
    """``R'(0)/beta`` (nearest to the expert, where Delta is 0); NaN for SFT."""
    objective = objective_of(s.objective)
    return float("nan") if objective is None else float(objective.slope(0.0, 0.0)) / s.beta


def divergences(log_p: Floats, log_q: Floats, log_new: Floats) -> Row:
    """KL both ways before and after, contraction of u, and the mass outside of both laws."""
    p, q, new = (np.exp(x) for x in (log_p, log_q, log_new))
    inside = (p >= RARE) | (q >= RARE)
    return {
        "kl_before": float(kl(log_p, log_q)),
        "kl": float(kl(log_p, log_new)),
        "reverse_kl": float(kl(log_new, log_p)),
        "tv": float(laws.total_variation(p, new).mean()),
        "delta": float(laws.triangular(p, q).mean()),
        "contraction": contraction(log_p, log_q, log_new),
        "max_u": float(np.abs(log_p - log_new)[inside].max()),
        "outside_before": float(np.where(inside, 0.0, q).sum(-1).mean()),
        "outside_expert": float(np.where(inside, 0.0, p).sum(-1).mean()),
        "outside": float(np.where(inside, 0.0, new).sum(-1).mean()),
        "level_expert": float((p * (log_new - log_q)).sum(-1).mean()),
        "level_own": float((q * (log_new - log_q)).sum(-1).mean()),
    }


def contraction(log_p: Floats, log_q: Floats, log_new: Floats) -> float:
    """Slope of the expert's log-ratio after a round on that before, under (p + q)/2."""
    weight = 0.5 * np.exp(np.logaddexp(log_p, log_q))
    u, u_new = (centred(log_p - x, weight) for x in (log_q, log_new))
    return float((weight * u * u_new).sum() / (weight * u * u).sum())


def rewards(
    log_p: Floats,
    log_q: Floats,
    log_new: Floats,
    objective: Objective,
    beta: float,
    sizes: tuple[int, int],
) -> Row:
    """The learned reward against the link, and against that of the loss as it is trained."""
    p, q = np.exp(log_p), np.exp(log_q)
    weight = 0.5 * (p + q)
    learned = beta * (log_new - log_q)
    inside = (p >= RARE) | (q >= RARE)
    link = reward_of_log_laws(objective, log_p, log_q)
    log_z = np.log((q * np.exp(link / beta)).sum(-1)) if not objective.up_to_constant else 0.0
    row: Row = {
        "log_z": float(np.mean(log_z)),
        "max_reward": float(np.abs(learned)[inside].max()),
        "max_reward_outside": float(np.abs(learned)[~inside].max(initial=0.0)),
    }
    refined = trained(p, q, objective, beta, sizes)
    for name, reward in {"link": link, "predicted": refined}.items():
        if reward is not None:
            exact = gibbs_step(log_q, reward, beta, None, 0.0)
            row |= {
                f"kl_{name}": float(kl(log_p, exact)),
                f"tv_{name}": float(laws.total_variation(p, np.exp(exact)).mean()),
                f"tv_to_{name}": float(laws.total_variation(np.exp(log_new), np.exp(exact)).mean()),
                f"outside_{name}": float(np.where(inside, 0.0, np.exp(exact)).sum(-1).mean()),
                f"max_u_{name}": float(np.abs(log_p - exact)[inside].max()),
                f"contraction_{name}": contraction(log_p, log_q, exact),
                **fit(name, reward, learned, weight),
                **parts(name, log_p, log_q, reward, learned, beta),
            }
    return row


def parts(
    name: str, log_p: Floats, log_q: Floats, exact: Floats, learned: Floats, beta: float
) -> Row:
    """KL(p||.) of an exact round with one part of the learned reward's error put in.

    The learned reward is ``slope * exact + residual``: the slope shortens the step, the residual
    is noise that the round divides by beta.
    """
    weight = 0.5 * np.exp(np.logaddexp(log_p, log_q))
    exact, learned = centred(exact, weight), centred(learned, weight)
    slope = fit(name, exact, learned, weight)[f"{name}_slope"]
    residual = learned - slope * exact

    def after(reward: Floats) -> float:
        return float(kl(log_p, gibbs_step(log_q, reward, beta, None, 0.0)))

    return {
        f"{name}_residual": float(np.sqrt((weight * residual**2).sum(-1).mean())),
        f"kl_{name}_slope": after(slope * exact),
        f"kl_{name}_residual": after(exact + residual),
    }


def points(log_p: Floats, log_q: Floats, log_new: Floats, objective: Objective, beta: float) -> Row:
    """The likeliest responses: u, learned reward and link, the latter two up to one constant."""
    weight = 0.5 * np.exp(np.logaddexp(log_p, log_q))
    learned = beta * (log_new - log_q)
    link = reward_of_log_laws(objective, log_p, log_q)
    shift = (weight * (learned - link)).sum(-1, keepdims=True)
    chosen = np.argsort(-weight, axis=None)[:POINTS]
    values = {"u": log_p - log_q, "learned": learned - shift, "link": link, "weight": weight}
    return {f"points_{k}": v.ravel()[chosen].tolist() for k, v in values.items()}


def trained(
    p: Floats, q: Floats, objective: Objective, beta: float, sizes: tuple[int, int]
) -> Floats | None:
    """Rewards of the loss as it is trained: one step, or finite groups; None where it has none."""
    if isinstance(objective, CentredSpif):
        return finite_group_link(p, q, objective.c, *sizes).reward
    try:
        return one_step_round(p, q, objective, beta).reward
    except (NotConverged, Unavailable):
        return None


def fit(name: str, x: Floats, y: Floats, weight: Floats) -> Row:
    """Slope of y on x and their correlation, under weights, a constant per prompt aside."""
    x, y = centred(x, weight), centred(y, weight)
    xx, xy, yy = ((weight * a * b).sum() for a, b in ((x, x), (x, y), (y, y)))
    return {f"{name}_slope": float(xy / xx), f"{name}_correlation": float(xy / np.sqrt(xx * yy))}


def centred(values: Floats, weight: Floats) -> Floats:
    """Values less their weighted mean per prompt; weights sum to 1."""
    return np.asarray(values - (weight * values).sum(-1, keepdims=True))


def kl(log_p: Floats, log_q: Floats) -> Any:
    """Mean over prompts of KL(p||q) from logarithms."""
    return (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()

"""A run as a part of a sweep: its expert and start are parts before it, its rows are its result.

A part that is interrupted goes on from its newest checkpoint; of a run that is done its rows stay.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab.specs import objective_of
from lab.sweep import Cell, run_cells
from llm_scale.campaign.plan import (
    BEST_STUDY,
    CHOOSING,
    DISTANCE_STUDY,
    END_STUDY,
    NO_STEP,
    TEMPERATURE,
    Run,
    Size,
    end_settings,
    expert_settings,
    of_study,
    start_settings,
)
from llm_scale.data.oracles import CLASSES
from llm_scale.launch import prepare, run_folder
from llm_scale.measure.frontier import frontier
from llm_scale.measure.preferences import exploitability
from llm_scale.models.player import Player
from llm_scale.settings import Settings
from llm_scale.store import expert
from llm_scale.store.read import read
from llm_scale.train import Diverged

Row = dict[str, Any]
KEPT = (
    "kl_before", "kl", "reverse_kl_before", "reverse_kl", "kl_step", "nll_change", "validation_nll",
    "contraction", "contraction_predicted", "contraction_local", "link_slope", "link_correlation",
    "predicted_slope", "predicted_correlation", "linear_correlation", "bounded_correlation",
    "sign_correlation", "margin", "reward_range", "max_reward_expert",
    "max_reward_own", "max_reward_other", "reward_expert", "reward_own", "reward_other",
    "log_partition", "dumped", "dumped_before", "left_own", "held_out_length_own",
    "after_length_own", "after_truncated_own", "held_out_length_expert", "held_out_truncated_own",
    "cosine_start", "cosine_end", "kl_to_sft", "kl_gap_to_sft", "tokens_expert", "tokens_own",
    "token_link_slope", "token_link_correlation", "nll_before", "nll", "archaic_before", "archaic",
    "match_greedy_before", "match_greedy", "win_rate", "win_rate_base", "preference_slope",
    "preference_correlation", "preference_slope_predicted", *map("class_{}".format, range(CLASSES)),
    *map("class_{}_before".format, range(CLASSES)),
)  # fmt: skip
"""Columns of a run's rounds that its rows keep, with their errors where they have one."""
BEST_MODEL = "best"
BY_NLL, BY_BOTH = ("validation_nll",), ("validation_kl", "validation_reverse_kl")
"""What is least, as a sum, in the row that validation chooses: of rounds, and of temperatures."""
_TOLD = (
    "arm", "method", "seed", "prompts", "epochs", "steps", "lr", "beta", "K", "effective_step",
    "round", "passes",
)  # fmt: skip
"""What the rows of a best model repeat of its round's."""


def sweep(runs: Sequence[Run], size: Size, folder: Path, workers: int = 1) -> list[Row]:
    """The rows of all runs in their order, a round each; finished parts are kept in the folder."""
    named = _expert(size, folder)
    seeds = sorted({run.seed for run in runs})
    starts = [
        Cell(f"start {seed}", start, {"seed": seed, "size": size, "expert_folder": named})
        for seed in seeds
    ]
    models = dict(zip(seeds, run_cells(starts, folder, workers), strict=True))
    measured = sorted({run.seed for run in runs if run.study == END_STUDY})
    ends = [
        Cell(f"end {seed}", end, {"seed": seed, "size": size, "expert_folder": named,
                                  "model": models[seed]})
        for seed in measured
    ]  # fmt: skip
    reached = dict(zip(measured, run_cells(ends, folder, workers), strict=True)) if ends else {}
    cells = [
        Cell(name(run), play, {"run": run, "size": size, "expert_folder": named,
                               "model": models[run.seed], "end_folder": reached.get(run.seed, "")})
        for run in runs
    ]  # fmt: skip
    return with_chosen([row for rows in run_cells(cells, folder, workers) for row in rows])


def name(run: Run) -> str:
    """Of a run's part: unique within an experiment."""
    told = [run.study, run.arm, f"s {run.effective_step:g}", f"beta {run.beta:g}"]
    told += [
        f"{key} {value if isinstance(value, str) else f'{value:g}'}" for key, value in run.given
    ]
    told += [f"prompts {run.prompts}"] if run.prompts else []
    told += [f"epochs {run.epochs:g}", f"rounds {run.rounds}", f"seed {run.seed}"]
    return ", ".join(told)


def _expert(size: Size, folder: Path) -> str:
    """Folder of the expert, made if it is not there: the text game's, or the size's own."""
    game = start_settings(size, 0)
    if game.expert != expert.MADE:
        return game.expert
    if expert_settings(size) is None:
        run_folder.make_expert(game, print)
        return str(expert.made_run(game))
    made = run_cells([Cell("expert", make_expert, {"size": size})], folder)
    return str(made[0])


def make_expert(size: Size, checkpoint: Path | None, progress: bool) -> str:
    """Folder of the run that made the size's own expert."""
    settings = expert_settings(size)
    assert settings is not None
    return str(_done(settings, checkpoint))


def start(
    seed: int, size: Size, expert_folder: str, checkpoint: Path | None, progress: bool
) -> str:
    """Directory of the model with which all runs of a seed begin."""
    settings = start_settings(size, seed, expert_folder)
    return str(_done(settings, checkpoint) / "final")


def end(
    seed: int, size: Size, expert_folder: str, model: str, checkpoint: Path | None, progress: bool
) -> str:
    """Folder of the SFT run from whose model runs of a seed are measured."""
    return str(_done(end_settings(size, seed, expert_folder, model), checkpoint))


def play(
    run: Run,
    size: Size,
    expert_folder: str,
    model: str,
    checkpoint: Path | None,
    progress: bool,
    end_folder: str = "",
) -> list[Row]:
    """Rows of a run, a round each; one that diverged ends with a row that says so."""
    settings = run.settings(size, expert_folder, model, end_folder)
    folder = _folder(checkpoint)
    with contextlib.suppress(Diverged):
        _done(settings, checkpoint)
    rows = rows_of(folder, run, settings)
    if (folder / BEST_MODEL).is_dir():
        rows += at_temperatures(folder / BEST_MODEL, rows, settings)
    shutil.rmtree(folder)
    return rows


def rows_of(folder: Path, run: Run, settings: Settings) -> list[Row]:
    """What is kept of a finished or diverged run: numbers to five digits."""
    s, seen = settings, read(folder)
    same = {
        "study": run.study, "arm": run.arm + _told(run, s), "seed": s.seed, "epochs": run.epochs,
        "steps": s.steps_per_round, "lr": s.lr, "beta": s.beta, "K": s.own_samples,
        "history": s.history, "effective_step": _effective_step(run, s),
    }  # fmt: skip
    anew = s.round_data == "fresh"
    if run.study == DISTANCE_STUDY:
        same |= {"max_new_tokens": s.max_new_tokens}
    if run.study in CHOOSING:  # prompts: of all data; passes: over each response
        same |= {"method": run.arm, "prompts": s.prompts * (s.rounds if anew else 1)}
    keys = [key for name in KEPT for key in (name, f"{name}_se")]
    out = []
    for number in range(s.rounds):
        found = next((row for row in seen.rounds if row["round"] == number), None)
        row = same | {"round": number}
        if run.study in CHOOSING:
            row["passes"] = run.epochs * (1 if anew else number + 1)
        if found is None:
            out.append(row | {"diverged": True})
            break
        losses = [r["loss"] for r in seen.steps if r["at"] == f"round {number}"]
        tail = losses[-max(1, len(losses) // 10) :]
        row |= {key: found[key] for key in keys if key in found}
        row |= {"loss": float(np.mean(tail)) if tail else math.nan}
        out.append(row)
    return [_rounded(row) for row in exploited(out)]


def exploited(rows: Sequence[Row]) -> list[Row]:
    """Rows of a cyclic preference with how far it is exploited: the model, and all so far at once.

    ``exploitability`` of the round's classes, ``exploitability_average`` of their mean over the
    rounds; ``exploitability_before`` of the round's start.
    """
    if not all("class_0" in row for row in rows):
        return list(rows)
    before, after = (
        np.array([[row[f"class_{k}{at}"] for k in range(CLASSES)] for row in rows])
        for at in ("_before", "")
    )
    mean = after.cumsum(0) / np.arange(1, len(rows) + 1)[:, None]
    found = {"": after, "_average": mean, "_before": before}
    columns = {f"exploitability{name}": exploitability(of) for name, of in found.items()}
    return [row | {k: float(v[t]) for k, v in columns.items()} for t, row in enumerate(rows)]


def at_temperatures(model: Path, rows: Sequence[Row], settings: Settings) -> list[Row]:
    """Of the best round's model: KL both ways at temperatures, on test and validation prompts."""
    measured = [row for row in rows if "validation_nll" in row]
    of = min(measured, key=lambda row: row["validation_nll"])
    made = prepare.load(replace(settings, model=str(model)))
    player, game = Player(made.language, made.settings, made.machine), made.task
    assert game.expert is not None, "the text game's responses are an expert's"
    test = frontier(player, game.expert, game.held_out())
    chosen_by = frontier(player, game.expert, game.validation())
    out = []
    for seen, by in zip(test, chosen_by, strict=True):
        row = {key: of[key] for key in _TOLD if key in of} | seen
        row |= {"study": of_study(of["study"], TEMPERATURE)}
        out.append(_rounded(row | {f"validation_{k}": by[k] for k in ("kl", "reverse_kl")}))
    return out


def with_chosen(rows: Sequence[Row]) -> list[Row]:
    """All rows, and again, under the method's name, those that validation chose of its rows.

    Study ``chosen``: the round of a method and seed with the least ``validation_nll``, of all its
    settings; ``chosen temperature``: the model and temperature with the least sum of KL both ways.
    Of rounds on new responses they are ``chosen fresh`` and ``chosen fresh temperature``.
    """
    out = list(rows)
    for study in CHOOSING:
        for of, score in ((study, BY_NLL), (of_study(study, TEMPERATURE), BY_BOTH)):
            out += _chosen([r for r in rows if r["study"] == of], score)
    return out


def _chosen(rows: Sequence[Row], score: Sequence[str]) -> list[Row]:
    """Of every method, seed and size the row with the least score, as the method's own."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if all(name in row for name in score):
            groups.setdefault((row["method"], row["seed"], row["prompts"]), []).append(row)
    out = []
    for (method, *_), mine in sorted(groups.items()):
        least = min(mine, key=lambda row: sum(row[name] for name in score))
        study = f"chosen {least['study']}".removesuffix(f" {BEST_STUDY}")
        out.append(least | {"study": study, "arm": method, "setting": least["arm"]})
    return out


def _told(run: Run, settings: Settings) -> str:
    """What a run's arm adds to the name of its method."""
    rounds = ", in rounds" if run.arm == "sft" and run.rounds > 1 else ""
    shown = {"old": settings.history, "smoothing": settings.label_smoothing,
             "weight decay": settings.weight_decay, "anchor": settings.tau}  # fmt: skip
    if settings.own_temperature != 1:
        rounds += f", own at temperature {settings.own_temperature:g}"
    if settings.own_cut != "kept":
        rounds += ", cut own ended"
    if settings.own_prompt != "whole":
        rounds += ", own of a cut prompt"
    return rounds + "".join(f", {value:g} {name}" for name, value in shown.items() if value)


def _effective_step(run: Run, settings: Settings) -> float:
    """``R'(0)/beta``; NaN of an arm that has none."""
    objective = objective_of(settings.objective)
    if objective is None or run.arm in NO_STEP:
        return math.nan
    return float(objective.slope_at_zero / settings.beta)


def _folder(checkpoint: Path | None) -> Path:
    assert checkpoint is not None, "runs are folders: a campaign is kept in one"
    return checkpoint.with_suffix("")


def _done(settings: Settings, checkpoint: Path | None) -> Path:
    """The folder of a run, finished."""
    torch.set_num_threads(1)
    folder = _folder(checkpoint)
    run_folder.run(settings, folder, lambda text: None)
    return folder


def _rounded(row: Row) -> Row:
    """Without what is not finite; numbers to five digits."""
    finite = {k: v for k, v in row.items() if not isinstance(v, float) or math.isfinite(v)}
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in finite.items()}


def as_json(rows: Sequence[Row]) -> str:
    """The rows, a line each."""
    return ",\n  ".join(json.dumps(row, allow_nan=False) for row in rows)

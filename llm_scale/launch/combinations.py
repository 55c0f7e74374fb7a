"""Settings that are each right and do not go together, said before anything is loaded."""

from __future__ import annotations

import math

from lab.specs import objective_of
from llm_scale import matching
from llm_scale.data import tasks, text_game, user_file
from llm_scale.launch import sources
from llm_scale.models import lora
from llm_scale.oracle_spec import NONE
from llm_scale.settings import LINEAR, SIZES, Settings, at_step
from llm_scale.store import expert
from theory.errors import InvalidInput
from theory.objectives import Objective


def combination_problems(settings: Settings) -> list[str]:
    """Settings that are each right and do not go together."""
    objective = objective_of(settings.objective)
    name, problems = f"objective={settings.objective!r}", []
    by_oracle, by_token = settings.oracle != NONE, settings.level == "token"
    problems += _size_problems(settings)
    if settings.task == "phrases" and settings.model != "tiny":
        problems.append(
            f"task='phrases' has its own words; it goes with model='tiny', not {settings.model!r}"
        )
    if settings.task in sources.OWN_FORMAT and settings.prompt_style != "auto":
        problems.append(
            f"task={settings.task!r} has its own format: prompt_style must be auto, not "
            f"{settings.prompt_style!r}"
        )
    paired = settings.data == user_file.PAIRS
    may_be = paired or (settings.data == "auto" and settings.task not in tasks.NAMED)
    if paired:
        problems += _pair_problems(settings, objective)
    if settings.match != matching.NONE and settings.held_out == 0:
        problems.append(f"match={settings.match!r} is of held-out prompts; set held_out > 0")
    if settings.match == matching.NONE and settings.eval_every > 1:
        problems.append(f"eval_every={settings.eval_every} is for match; set one")
    if settings.lora and not lora.installed():
        problems.append(f"lora={settings.lora} {lora.NEEDED}")
    if not settings.lora and (settings.lora_alpha or settings.lora_targets != LINEAR):
        problems.append("lora_alpha and lora_targets are of an adapter: set lora to its rank")
    if settings.expert == expert.MADE and settings.task != text_game.NAME:
        problems.append(
            f"expert='made' is for task='text', not {settings.task!r}; name a directory"
        )
    if settings.expert == expert.MADE and settings.model != "tiny":
        problems.append(
            f"expert='made' has tokens of its own, which model='tiny' takes; {settings.model!r} "
            "has others: name a directory of an expert with the same tokenizer"
        )
    if settings.measured_on != "validation" and settings.task != text_game.NAME:
        problems.append(f"measured_on={settings.measured_on!r} is for task='text'; leave it out")
    problems += _choice_problems(settings) + _ablation_problems(settings, objective)
    if settings.history > 0:
        problems += _history_problems(settings, objective)
    if settings.sft_run and settings.held_out == 0:
        problems.append("sft_run is compared with on held-out prompts; set held_out > 0")
    if by_oracle:
        problems += _preference_problems(settings, objective)
    elif settings.comparisons != "drawn":
        problems.append(f"comparisons={settings.comparisons!r} is for an oracle; set one")
    if by_token:
        problems += _token_problems(settings, objective)
    if settings.label_smoothing and objective is not None and settings.sft_steps == 0:
        problems.append(
            f"label_smoothing={settings.label_smoothing:g} is of maximum likelihood: set objective "
            "to sft, or sft_steps > 0 (it is then of the SFT start alone)"
        )
    if objective is None:
        return problems
    if settings.effective_step > 0:
        problems += _step_problems(settings)
    if reason := objective.missing("risk"):
        problems.append(f"{name} has no loss to train: {reason}")
    if "preference" in objective.needs and not (by_oracle or may_be):
        problems.append(
            f"{name} needs preferences: set oracle to bradley-terry, cyclic or your own, or give "
            "a file with chosen and rejected responses"
        )
    if "anchor" in objective.needs and settings.tau == 0:
        problems.append(f"{name} is anchored: set tau > 0")
    if objective.writes("opponent") and settings.opponent != "last":
        problems.append(
            f"{name} has an opponent of its own; opponent={settings.opponent!r} must be last"
        )
    if objective.reference_free and settings.tau > 0:
        problems.append(f"{name} is reference-free: tau must be 0")
    ours, theirs = settings.own_samples, settings.expert_samples
    grouped = not (objective.has_loss or objective.missing("risk")) and not by_oracle
    if grouped and ours == 1 and (by_token or theirs == 1):
        problems.append(f"{name} needs a group: own_samples >= 2")
    return problems


def _size_problems(settings: Settings) -> list[str]:
    """What does not go together of the sizes of the model made on the spot."""
    s, plain = settings, Settings()
    sizes = {name: getattr(s, name) for name in SIZES}
    given = [f"{name}={size}" for name, size in sizes.items() if size != getattr(plain, name)]
    if s.model != "tiny":
        told = "size of model='tiny'; another model has its own"
        return [f"{', '.join(given)}: {told}"] if given else []
    out = []
    if s.width % (2 * s.heads):
        out.append(
            f"width={s.width}, heads={s.heads}; needed is a width that is a multiple of 2 heads"
        )
    if s.task == "phrases" and s.vocabulary != plain.vocabulary:
        out.append(f"vocabulary={s.vocabulary}: task='phrases' has its own words; leave it out")
    return out


def _choice_problems(settings: Settings) -> list[str]:
    """Why nothing can be chosen by validation."""
    out = []
    if settings.keep_best and settings.validation == 0:
        out.append("keep_best chooses by validation_nll: set validation > 0")
    if settings.keep_best and settings.rounds == 0:
        out.append("keep_best chooses a round: set rounds > 0")
    on_test = settings.task != text_game.NAME or settings.measured_on == "test"
    if settings.validation and not on_test:
        out.append(
            f"validation={settings.validation}: task='text' is then measured on prompts that are "
            "not chosen by: set measured_on to test"
        )
    if settings.validation and settings.oracle != NONE:
        out.append(
            f"validation={settings.validation} is of expert responses, which oracle="
            f"{settings.oracle!r} does not have"
        )
    return out


def _ablation_problems(settings: Settings, objective: Objective | None) -> list[str]:
    """Why a part of self-play cannot be left out."""
    s, terms = settings, f"terms={settings.terms!r}"
    if objective is None:
        given = [terms] * (s.terms != "both") + s.not_of_current
        given += ["length_normalised"] * s.length_normalised
        given += [f"history={s.history:g}"] * (s.history > 0)
        return [f"{name} is of self-play; sft has no such part" for name in given]
    out = []
    if s.terms != "both" and objective.form != "pointwise":
        out.append(
            f"{terms}: {s.objective!r} is {objective.form}: its loss reads expert and own "
            "responses together and has no term of one side (pointwise are "
            "spif, brier, airl and others: python -m theory list)"
        )
    if s.terms != "both" and s.oracle != NONE:
        out.append(f"{terms}: with an oracle every response is on both sides; oracle must be none")
    if s.length_normalised and s.level == "token":
        out.append("length_normalised: rewards per token are not summed; level must be sequence")
    if s.not_of_current:
        own_opponent = objective.writes("opponent")
        out += [
            f"{', '.join(s.not_of_current)}: own responses are no samples of pi_t, with which they "
            f"are compared: {needed}"
            for needed, broken in (
                ("opponent must be last (base draws from pi_0 and compares with it)",
                 s.opponent != "last"),
                ("history must be 0", s.history > 0),
                ("level must be sequence", s.level == "token"),
                ("oracle must be none", s.oracle != NONE),
                ("data must be responses", s.data == user_file.PAIRS),
                (f"objective={s.objective!r} has an opponent of its own", own_opponent),
            )
            if broken
        ]  # fmt: skip
    return out


def _step_problems(settings: Settings) -> list[str]:
    """Why beta is not that of the effective step."""
    try:
        beta = at_step(settings).beta
    except InvalidInput as error:
        return error.problems
    if math.isclose(beta, settings.beta, rel_tol=1e-9):
        return []
    step = f"effective_step={settings.effective_step:g}"
    return [f"beta={settings.beta:g} and {step}, of which beta is {beta:g}: set one of them"]


def _history_problems(settings: Settings, objective: Objective | None) -> list[str]:
    """Why a share of own responses cannot be those of the model before."""
    name = f"history={settings.history:g}"
    own_opponent = objective is not None and objective.writes("opponent")
    return [
        f"{name} draws from pi_{{t-1}} and compares with pi_t: {needed}"
        for needed, broken in (
            ("opponent must be last", settings.opponent != "last"),
            ("level must be sequence", settings.level == "token"),
            ("oracle must be none", settings.oracle != NONE),
            ("data must be responses", settings.data == user_file.PAIRS),
            (f"objective={settings.objective!r} has an opponent of its own", own_opponent),
        )
        if broken
    ]


def _pair_problems(settings: Settings, objective: Objective | None) -> list[str]:
    """What does not go together with given pairs of winner and loser."""
    name, out = "data='pairs'", []
    if settings.task in tasks.NAMED:
        out.append(f"{name} is for a file; task={settings.task!r} has no given pairs")
    if settings.oracle != NONE:
        out.append(f"{name} says who won: oracle must be none, not {settings.oracle!r}")
    if settings.expert != expert.NONE:
        out.append(f"{name} has its own responses: expert must be none, not {settings.expert!r}")
    if settings.level == "token":
        out.append(f"{name} compares whole responses: level must be sequence")
    for number in ("expert_samples", "own_samples"):
        if getattr(settings, number) > 1:
            out.append(
                f"{name} has one winner and one loser: {number}={getattr(settings, number)} must "
                "be 1, or data responses"
            )
    if objective is not None and "history" in objective.needs:
        out.append(
            f"{name}: nothing is sampled, and objective={settings.objective!r} needs responses of "
            "pi_0; set data to responses"
        )
    return out


def _preference_problems(settings: Settings, objective: Objective | None) -> list[str]:
    name, oracle = f"objective={settings.objective!r}", f"oracle={settings.oracle!r}"
    out = []
    if settings.own_samples < 2:
        out.append(
            f"{oracle} compares own responses with each other: own_samples="
            f"{settings.own_samples}; needed is >= 2"
        )
    if settings.expert_samples > 1:
        out.append(
            f"{oracle}: no expert response is trained on, expert_samples="
            f"{settings.expert_samples} must be 1"
        )
    if settings.level == "token":
        out.append(f"{oracle} compares whole responses: level must be sequence")
    if objective is None:
        return [*out, f"{name} learns from expert responses: oracle must be none"]
    if "history" in objective.needs:
        out.append(f"{name} needs responses of pi_0 beside an expert's: oracle must be none")
    if not objective.has_loss and settings.own_samples == 2:
        out.append(f"{name} needs a group: own_samples >= 3")
    return out


def _token_problems(settings: Settings, objective: Objective | None) -> list[str]:
    out = []
    if settings.opponent == "mixture":
        out.append(
            "opponent='mixture' draws a whole response from one of two models: level must be "
            "sequence (per token there are last, base, and objectives with a geometric mixture)"
        )
    if objective is not None and "history" in objective.needs:
        out.append(
            f"objective={settings.objective!r} compares with whole responses of pi_0: level must "
            "be sequence"
        )
    return out

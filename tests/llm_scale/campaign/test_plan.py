"""What the campaign runs: nothing twice, one step for all, and parts of the text apart."""

from __future__ import annotations

import math

import pytest

from lab.specs import objective_of
from llm_scale.campaign import experiments, plan
from llm_scale.campaign.cells import name
from llm_scale.campaign.experiments import EXPERIMENTS, size_of
from llm_scale.campaign.plan import ARMS, FULL, NO_STEP, SHORT, Run, Size
from llm_scale.settings import Settings, resolve

HERE = "here"


PLANNED = [(run, size_of(e)) for e in EXPERIMENTS for run in experiments.runs(e, size_of(e))]
ALL = [run for run, _ in PLANNED]
SHORTER = [(run, SHORT) for e in EXPERIMENTS for run in experiments.runs(e, SHORT)]


@pytest.mark.parametrize("planned", [PLANNED, SHORTER], ids=["full", "short"])
def test_no_run_is_planned_twice_and_all_can_be_made(planned: list[tuple[Run, Size]]) -> None:
    assert len({name(run) for run, _ in planned}) == len(planned)
    for run, size in planned:
        s = run.settings(size, HERE, HERE)
        assert s.prompts == (run.prompts or size.prompts)
        assert s.batch * size.epoch == size.prompts
        assert s.steps_per_round == max(1, round(run.epochs * s.prompts / s.batch))
        data = "fresh" if run.study.startswith("fresh") and run.rounds > 1 else "fixed"
        assert (s.round_data, s.expert_samples, s.sft_steps) == (data, 1, 0)


def test_arms_are_compared_at_one_effective_step() -> None:
    for run, size in PLANNED:
        if run.beta or run.arm in NO_STEP:
            continue
        s = run.settings(size, HERE, HERE)
        objective = objective_of(s.objective)
        assert objective is not None
        assert math.isclose(objective.slope_at_zero / s.beta, run.effective_step)


def test_every_study_has_every_seed_and_supervised_fine_tuning_is_beside_rates_and_lengths() -> (
    None
):
    runs = ALL
    for study in {run.study for run in runs}:
        cells = {(r.arm, r.epochs, r.rounds, r.effective_step, r.beta, r.given) for r in runs
                 if r.study == study}  # fmt: skip
        count = sum(run.study == study for run in runs)
        assert count == len(cells) * len(experiments.SIZES.get(study, FULL).seeds)
    beside = {r.study for r in runs if r.arm == "sft"}
    assert beside == {
        "rate", "length", "best", "best, larger rate", "fresh", "fresh, larger rate", "few", "many",
        "longer", "realisable", "realisable, larger rate", "distance", "destination",
        "real", "checked",
    }  # fmt: skip


def test_where_the_learner_can_be_the_expert_it_has_its_architecture() -> None:
    size = size_of("realisable")
    expert = plan.expert_settings(size)
    assert expert is not None
    learner = plan.start_settings(size, 0, HERE)  # the model of all runs; tokens are the expert's
    for part in ("width", "layers", "heads"):
        assert getattr(learner, part) == getattr(expert, part)
    assert expert.steps_per_round == resolve("text-expert", {}).steps_per_round


def test_with_another_expert_and_more_responses_the_grid_is_that_of_the_best() -> None:
    def of(experiment: str, study: str) -> set[tuple[object, ...]]:
        runs = experiments.runs(experiment, size_of(experiment))
        return {(r.arm, r.seed, r.epochs, r.rounds, r.beta, r.given) for r in runs
                if r.study == study}  # fmt: skip

    known = {cell for e in ("best", "best_others") for cell in of(e, "best")}
    assert of("best", "best") < of("realisable", "realisable") < known
    rates = {dict(r.given).get("lr", plan.RATE) for e in ("best", "best_rate")
             for r in experiments.runs(e, FULL) if r.arm == plan.AUTHOR}  # fmt: skip
    assert rates == {dict(given).get("lr", plan.RATE) for _, _, given in experiments.SFT_SETTINGS}
    (own,) = {r[2:5] for r in of("best_rate", "best, larger rate")}
    assert own == (4, experiments.ROUNDS, plan.PUBLISHED_BETA)
    (sft,) = {r[2:] for r in of("best_rate_sft", "best, larger rate")}
    assert sft == (4, experiments.ROUNDS, 0.0, (("lr", plan.RATES[2]),))
    larger = (("lr", plan.RATES[2]),)
    at_one_rate = {r for r in of("best_others", "best") if not r[-1]}
    others = of("best_rate_others", "best, larger rate")
    assert others == {(*run[:-1], larger) for run in at_one_rate}
    short = {run for run in of("best_others", "best") if run[-1]}
    assert of("best_lengths", "best, longer rounds") == {(*r[:2], 4, *r[3:]) for r in short}
    again = of("realisable_rate", "realisable, larger rate")
    in_rounds = {r for r in of("realisable", "realisable") if r[2:4] == (4, experiments.ROUNDS)}
    assert again == {(*run[:-1], larger) for run in in_rounds}
    fresh_again = of("fresh_rate", "fresh, larger rate")
    in_rounds = {r for r in of("fresh", "fresh") if r[3] == experiments.FRESH_ROUNDS}
    assert fresh_again == {(*run[:-1], (*larger, *run[-1])) for run in in_rounds}
    many = experiments.runs("many", FULL)
    assert {r.settings(FULL, HERE, HERE).prompts for r in many} == {experiments.MANY}
    tried = [sorted(r.given for r in many if r.arm == arm and r.seed == 0) for arm in ARMS]
    assert len({str(t) for t in tried if t}) == 1
    longer = experiments.runs("longer", FULL)
    assert {(r.arm, r.beta, r.prompts, r.given) for r in longer} < {
        (r.arm, r.beta, r.prompts, r.given) for r in many
    }
    assert {r.rounds for r in longer} == {experiments.LONGER_ROUNDS}


def test_each_of_two_losses_has_the_step_of_the_other():
    rate, step, betas = plan.RATES[2], experiments.published_step(), {}
    for run in experiments.runs("best_steps", FULL):
        s = run.settings(FULL, HERE, HERE)
        assert (s.lr, run.epochs, s.rounds) == (rate, 4, experiments.ROUNDS)
        betas[run.arm] = s.beta
    assert betas["space"] == pytest.approx(1 / step)  # its link has slope 1
    assert betas[plan.AUTHOR] == pytest.approx(plan.PUBLISHED_BETA * step)


def _settings(experiment: str, size: Size) -> list[Settings]:
    return [run.settings(size, HERE, HERE) for run in experiments.runs(experiment, size)]


def test_fresh_rounds_and_all_at_once_read_as_many_responses() -> None:
    runs = _settings("fresh", FULL)
    seen = {s.prompts * (s.rounds if s.round_data == "fresh" else 1) for s in runs}
    assert seen == {4 * FULL.prompts}


def test_a_distance_is_a_number_of_tokens_from_a_start_of_one_epoch() -> None:
    size = size_of("distance")
    runs = _settings("distance", size)
    assert {s.max_new_tokens for s in runs} == set(experiments.HORIZONS)
    assert {(s.prompts, s.steps_per_round) for s in runs} == {(4 * FULL.prompts, 8 * FULL.epoch)}
    start = plan.start_settings(size, 0)
    assert (start.sft_steps, start.prompts, start.max_new_tokens) == (48, 3072, 32)


def test_the_destination_is_supervised_fine_tuning_of_as_many_steps_at_the_same_rate() -> None:
    end = plan.end_settings(FULL, 1, HERE, HERE)
    assert (end.objective, end.rounds, end.sft_run) == ("sft", 1, "")
    for run in experiments.runs("destination", FULL):
        s = run.settings(FULL, HERE, HERE, "the end")
        assert s.sft_run == "the end"
        assert (s.rounds * s.steps_per_round, s.lr) == (end.steps_per_round, end.lr)
        assert s.cosines == experiments.COSINES


@pytest.mark.parametrize(
    ("arm", "preset"),
    [("author, a=1/2", "first-author-a05"), ("author, a=1", "first-author-a1")],
)
def test_published_constants_are_those_of_the_presets(arm: str, preset: str) -> None:
    told = resolve(preset, {})
    published = [(run, size) for run, size in PLANNED if run.study != plan.BEST_STEP_STUDY]
    runs = [(run, size) for run, size in published if run.arm == arm]
    assert runs
    for run, size in runs:
        found = run.settings(size, HERE, HERE)
        assert (found.objective, found.beta) == (told.objective, told.beta)


def test_what_is_chosen_by_is_not_what_is_recorded() -> None:
    assert {FULL.settings(seed)["measured_on"] for seed in FULL.seeds} == {"test"}
    assert FULL.settings(plan.EXPLORED_FROM)["measured_on"] == "validation"


def test_a_start_has_other_prompts_and_no_rounds() -> None:
    s = plan.start_settings(FULL, 3)
    assert (s.seed, s.rounds, s.sft_steps, s.width) == (3, 0, 6 * 48, 96)
    s = plan.start_settings(plan.REAL, 2)
    assert (s.task, s.expert, s.lora, s.rounds, s.sft_steps) == ("verses", "none", 16, 0, 16)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_an_objective_with_a_name_of_its_own(arm: str) -> None:
    assert "objective" in ARMS[arm]
    assert sum(ARMS[arm] == other for other in ARMS.values()) == 1

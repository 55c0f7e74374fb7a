"""Numbers of a round's row on instances made by hand, and monitors that must see what is wrong."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import DynamicCache
from typer.testing import CliRunner

from lab.specs import objective_of
from llm_scale import boards, models
from llm_scale.__main__ import app
from llm_scale.data.items import Response
from llm_scale.launch import evaluate, run_folder
from llm_scale.launch.combinations import combination_problems
from llm_scale.measure import monitors, telemetry
from llm_scale.measure.telemetry import Fresh, Measured
from llm_scale.models import sample, weights
from llm_scale.models.player import Machine, Player
from llm_scale.models.score import Scorer
from llm_scale.models.shared_prompts import SHARED_FROM
from llm_scale.rounds.begin import begin
from llm_scale.rounds.opponent import references
from llm_scale.rounds.sequence import Round
from llm_scale.settings import Settings
from llm_scale.store.journal import Journal
from llm_scale.store.read import settings_of
from llm_scale.train import losses
from tests.llm_scale import tiny_game
from tests.llm_scale.commands import metrics
from theory import objectives
from theory.errors import InvalidInput

FEW = 200
"""Responses a side of which two lie below the 1 % quantile."""


def laws_by_hand():
    """200 expert and 200 own responses; usual is -1 to -0.5 nats, and what is rare is -9.

    The 1 % quantile of 200 numbers lies between the second and the third smallest.
    """
    usual = np.linspace(-1.0, -0.5, FEW)
    own_before, own_expert, expert_before, expert_expert = (usual.copy() for _ in range(4))
    own_before[[3, 7]] = -9.0
    own_expert[[3, 7, 11]] = -9.0  # two own responses are rare of both laws
    expert_expert[[20, 190]] = -9.0
    expert_before[20:26] = -9.0  # an expert response rare of both does not count
    side = np.repeat(["expert", "own"], FEW)
    before = np.concatenate([expert_before, own_before])
    expert = np.concatenate([expert_expert, own_expert])
    return Measured(np.zeros(2 * FEW, dtype=np.int64), side, before, np.zeros(2 * FEW), expert)


def test_dumped_mass_before_and_after_on_an_instance_by_hand():
    usual, rare = -0.8, -9.0
    before = np.array([rare, rare, rare, usual, usual])
    expert = np.array([rare, rare, usual, rare, usual])
    found = telemetry.dumped(laws_by_hand(), Fresh([], before, before, expert))
    share = 2 / FEW
    assert found == pytest.approx(
        {
            "left_own": 3 / 5,
            "left_own_se": (3 / 5 * 2 / 5 / 4) ** 0.5,
            "dumped": 2 / 5,
            "dumped_se": (2 / 5 * 3 / 5 / 4) ** 0.5,
            "dumped_before": share,
            "dumped_before_se": (share * (1 - share) / (FEW - 1)) ** 0.5,
        },
        rel=1e-12,
    )


def test_dumped_mass_needs_a_known_expert():
    known = laws_by_hand()
    blind = Measured(known.prompt, known.side, known.before, known.after, known.expert * np.nan)
    fresh = Fresh([], np.array([-9.0, -1.0]), np.zeros(2), np.full(2, np.nan))
    assert set(telemetry.dumped(blind, fresh)) == {"left_own", "left_own_se"}


# -- the monitor of stored log-probabilities ------------------------------------------------------


def begun(level="sequence", prompts=12):
    s = tiny_game.settings(prompts=prompts, level=level, own_samples=2)
    who = tiny_game.player(s)
    base = weights.copy_of(who.language)
    return who, begin(who, tiny_game.task(s).items(0), 0, objective_of("spin"), base, base)


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("prompts", [1, 12, 80])
def test_a_wrong_stored_log_probability_is_seen(level, prompts):
    who, made = begun(level, prompts)
    assert monitors.of_round(who, made)["stored_gap"] < 2e-6
    for at in (0, -1):  # the first response and the last
        wrong = made.data.current.clone()
        wrong.view(-1)[at] += 0.01
        broken = dataclasses.replace(made, data=dataclasses.replace(made.data, current=wrong))
        assert monitors.of_round(who, broken)["stored_gap"] == pytest.approx(0.01, abs=1e-5)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_score_that_depends_on_its_batch_is_seen(level):
    """The round is small enough to be stored in one forward pass, which a bug of padding moves."""
    s = tiny_game.settings(prompts=12, level=level, own_samples=2)
    who = tiny_game.player(s)
    plain = who.scorer.forward

    def of_batch(ids, *given):
        return plain(ids, *given) + 1e-3 * (len(ids) > 1)

    who.scorer.forward = of_batch
    base = weights.copy_of(who.language)
    made = begin(who, tiny_game.task(s).items(0), 0, objective_of("spin"), base, base)
    assert monitors.of_round(who, made)["stored_gap"] >= 0.9e-3


# -- tokens through the model, and SFT at equal compute ------------------------------------------


def through_the_model(who, data, items):
    """Tokens that the round's log-probabilities send through the model, counted there.

    Padding and EOS are the token 0, prompts have none: what ended is added to the other tokens.
    """
    seen = []
    hook = who.language.model.base_model.register_forward_pre_hook(
        lambda module, args, known: seen.append(int((known["input_ids"] != 0).sum())),
        with_kwargs=True,
    )
    for i in range(len(items)):
        data.subset([i]).log_probs(who.scorer)
    hook.remove()
    ended = sum(not r.truncated for item in data.items for r in item.responses)
    return (sum(seen) + ended) / len(items)


@pytest.mark.parametrize("words", [3, 40], ids=["short prompts", "shared prompts"])
@pytest.mark.parametrize(
    "given",
    [
        {"own_samples": 2},
        {"own_samples": 3, "expert_samples": 2, "objective": "centred_spif"},
        {"objective": "tspin"},
        {"level": "token", "own_samples": 2},
        {"level": "token", "expert_samples": 2},
    ],
    ids=str,
)
def test_tokens_are_those_that_go_through_the_model(given, words):
    s = tiny_game.settings(prompts=6, **given)
    who = tiny_game.player(s)
    items = [
        dataclasses.replace(item, prompt=tuple(1 + (i + at) % 3 for at in range(words)))
        for i, item in enumerate(tiny_game.task(s).items(0))
    ]
    base = weights.copy_of(who.language)
    made = begin(who, items, 0, objective_of(s.objective), base, base)
    found = monitors.of_round(who, made)
    assert found["tokens_expert"] == through_the_model(who, Round.plain(items), items)
    whole = through_the_model(who, made.data, items)
    assert found["tokens_expert"] + found["tokens_own"] == pytest.approx(whole, rel=1e-12)
    assert found["tokens_own"] >= 0


def test_rewards_per_token_cost_what_sft_costs_and_that_baseline_runs_once(tmp_path):
    size = ["--device=cpu", "--prompts=8", "--held-out=4", "--batch=4", "--rounds=1",
            "--steps-per-round=2"]  # fmt: skip
    run, out = tmp_path / "run", tmp_path / "sft"
    called = CliRunner().invoke(app, ["train", "--out", str(run), *size, "--level=token"])
    assert called.exit_code == 0, called.output
    row = metrics(run)[-1]
    assert row["tokens_own"] == 0
    called = CliRunner().invoke(app, ["sft", "--like", str(run), "--out", str(out)])
    assert called.exit_code == 0, called.output
    assert "sends no more through the model than SFT's: equal-data is both" in called.output
    assert [path.name for path in out.iterdir()] == ["equal-data"]
    made = Settings(**settings_of(out / "equal-data"))
    assert (made.objective, made.level, made.steps_per_round) == ("sft", "sequence", 2)
    assert run_folder.finished(out / "equal-data", made)


def test_preferences_have_no_expert_whose_compute_could_be_matched(tmp_path):
    size = ["--device=cpu", "--prompts=8", "--held-out=4", "--batch=4", "--rounds=1",
            "--steps-per-round=2", "--own-samples=2", "--oracle=bradley-terry"]  # fmt: skip
    run, out = tmp_path / "run", tmp_path / "sft"
    called = CliRunner().invoke(app, ["train", "--out", str(run), *size])
    assert called.exit_code == 0, called.output
    called = CliRunner().invoke(app, ["sft", "--like", str(run), "--out", str(out)])
    assert called.exit_code == 2
    assert called.output.count("error: ") == 1
    assert "no finished self-play round with expert responses to match" in called.output
    assert not out.exists()


# -- packages that may be installed -------------------------------------------------------------


def events(folder):
    """(step, value) of every scalar, as TensorBoard itself reads it."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for group in ("steps", "rounds"):
        read = reader.EventAccumulator(str(folder / group), size_guidance={"scalars": 0})
        read.Reload()
        tags = read.Tags()["scalars"]
        found |= {t: [(e.step, pytest.approx(e.value)) for e in read.Scalars(t)] for t in tags}
    return found


def test_tensorboard_shows_a_run_and_an_interrupted_one_once(tmp_path):
    """A process killed after its last checkpoint writes rows again: steps 9 and 10, and round 1."""
    pytest.importorskip("tensorboard")
    rows = [({"at": "x", "step": s, "loss": 1.0 / s}, s) for s in range(1, 11)]
    rows.insert(6, ({"round": 0, "kl": 0.5, "prediction": "words"}, 6))
    rows.append(({"round": 1, "kl": 0.25}, 10))
    for again in ([], rows[9:]):
        for part in (rows, again):
            journal = Journal(tmp_path, boards.opened("tensorboard", tmp_path, {}))
            for row, at in part:
                journal.write(row, at)
        seen = events(tmp_path / "tensorboard")
        assert seen == {
            "step/loss": [(s, 1.0 / s) for s in range(1, 11)],
            "round/kl": [(0, 0.5), (1, 0.25)],
        }


def test_scores_of_texts_are_sacrebleus(monkeypatch):
    sacrebleu = pytest.importorskip("sacrebleu")
    pairs = [("a", "you shall not go up to the city"), ("b", "they all heard what he had said")]
    said = ["you shall go up to the city", "they all heard what he had said"]

    def sampled(model, prompts, count, seed, temperature):
        assert (prompts, count) == ([(1,), (2,)], 1)
        return [Response(tuple(text.encode()), truncated=True) for text in said], [0.0, 0.0]

    spoken = SimpleNamespace(decode=lambda tokens: bytes(tokens).decode())
    opened = SimpleNamespace(player=SimpleNamespace(language=SimpleNamespace(tokenizer=spoken)))
    given = evaluate.ScoredPairs([((1,), (3,)), ((2,), (4,))], [False, False], pairs)
    monkeypatch.setattr(evaluate, "_sampled", sampled)
    found = evaluate.text_metrics(opened, given, seed=0)
    single = [
        sacrebleu.corpus_bleu([s], [[r]]).score for s, (_, r) in zip(said, pairs, strict=True)
    ]
    assert single[0] < found["bleu"] < single[1] == pytest.approx(100.0)
    assert 0.0 < found["chrf"] < 100.0
    assert (found["archaic"], found["generated_truncated"]) == (0.0, 1.0)
    said.reverse()
    assert evaluate.text_metrics(opened, given, seed=0)["bleu"] < 0.5 * found["bleu"]


def test_words_that_a_word_tokenizer_does_not_know_are_refused(task, language, settings):
    known = task.tokenizer.decode(task.prompts[0])
    opened = evaluate.Opened(Player(language, settings, Machine.of(settings)), settings, "")
    with pytest.raises(InvalidInput) as seen:
        evaluate.responses(opened, [known, f"{known} xyzzy"], 1, 0)
    assert seen.value.problems == [
        f"prompt 2: '{known} xyzzy': the tokenizer does not know 'xyzzy'"
    ]


def test_a_geometric_opponent_is_joined_token_by_token(task, language, settings):
    player = Player(language, settings, Machine.of(settings))
    other = Player(models.tiny(task.tokenizer, 7, torch.device("cpu")), settings, player.machine)
    pairs = [(item.prompt, item.expert[0].tokens) for item in task.items(0)[:5]]
    objective = objectives.get("alpha_spin", base_weight=0.25)
    base = weights.copy_of(other.language)
    found, _ = references(player, pairs, player.score(pairs), objective, {}, base)
    for (prompt, response), value in zip(pairs, found, strict=True):
        ids = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            now, base = (p.language.model(ids).logits[0].log_softmax(-1) for p in (player, other))
        joined = (0.75 * now + 0.25 * base).log_softmax(-1)[len(prompt) - 1 : -1]
        assert value.item() == pytest.approx(
            joined.gather(-1, torch.tensor(response)[:, None]).sum().item(), abs=1e-5
        )


# -- what a GPU would meet ------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch):
    """bfloat16 by autocast on the CPU, as a run on CUDA has it."""
    made = classmethod(lambda cls, settings: cls(torch.device("cpu"), torch.bfloat16))
    monkeypatch.setattr(Machine, "of", made)


@pytest.mark.parametrize(
    "given",
    [
        {"level": "token", "own_samples": 2, "opponent": "base", "tau": 0.1},
        {"objective": "alpha_spin"},
        {"objective": "centred_spif", "oracle": "bradley-terry", "own_samples": 4},
        {"objective": "tspin", "opponent": "mixture"},
    ],
    ids=str,
)
def test_every_kind_of_run_works_in_bfloat16(given, narrow, tmp_path):
    s = Settings(
        prompts=8, held_out=4, batch=4, rounds=1, steps_per_round=2, sft_steps=1, device="cpu",
        max_new_tokens=6, **given,
    )  # fmt: skip
    run_folder.run(s, tmp_path / "run", lambda text: None)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    *steps, row = map(json.loads, lines)
    assert all(np.isfinite(step["loss"]) and step["gradient_norm"] > 0 for step in steps)
    assert row["stored_gap"] < 0.05
    assert row["sampler_gap"] < 0.05


def test_losses_stay_on_the_device_of_the_log_probabilities():
    """On "meta" nothing can be read back or mixed with the CPU: a loss that passes waits for no
    transfer."""
    meta, seen = torch.device("meta"), 0
    for name in objectives.names():
        for extra in ({}, {"tau": 0.3}, {"opponent": "base"}, {"oracle": "bradley-terry"}):
            s = tiny_game.settings(objective=name, own_samples=3, prompts=4, **extra)
            if combination_problems(s):
                continue
            data = tiny_game.start(tiny_game.player(s, width=16)).data.to(meta)
            log_probs = torch.zeros(len(data.pairs), device=meta, requires_grad=True)
            loss = losses(objective_of(name), data, log_probs, s.beta, s.tau)
            loss.sum().backward()
            assert loss.device == log_probs.grad.device == meta
            assert loss.dtype == torch.float32
            seen += 1
    assert seen >= 40


def test_the_cache_under_autocast_has_its_precision_and_the_same_responses(monkeypatch):
    who = tiny_game.player(tiny_game.settings())
    kept = []

    def drawn(cache):
        class Watched(cache):
            def update(self, *args, **kwargs):
                out = super().update(*args, **kwargs)
                kept.append({t.dtype for t in out})
                return out

        monkeypatch.setattr(sample, "_Cache", Watched)
        prompts = [(0,), (0, 1), (0, 2, 3)] * 4
        luck = np.random.default_rng(0).random((len(prompts), 6))
        with torch.autocast("cpu", torch.bfloat16):
            return sample.generate([who.language.model], prompts, lambda i: luck[i], 6, (0,), 5)

    ours = drawn(sample._Cache)
    assert kept
    assert all(types == {torch.bfloat16} for types in kept)
    kept.clear()
    assert drawn(DynamicCache) == ours
    assert all(types == {torch.float32} for types in kept), "what transformers alone would keep"


@pytest.mark.parametrize(("noise", "shares"), [(0.0, True), (1e-4, True), (3e-3, False)])
def test_prompts_are_shared_whatever_the_kernel_rounds(noise, shares):
    """Another kernel on another mask rounds elsewhere: by 1e-5 of the hidden states' size on a
    model of 30 layers, more on more, also where a single state is near 0."""
    model = tiny_game.player(tiny_game.settings()).language.model
    draw = torch.Generator().manual_seed(0)

    def rounds_elsewhere(module, given, out):
        state = out.last_hidden_state
        off = torch.randn(state.shape, generator=draw)
        if state.shape[1] > SHARED_FROM:  # the probe of the logits stays as it is
            out.last_hidden_state = state + noise * state.square().mean().sqrt() * off
        return out

    model.base_model.register_forward_hook(rounds_elsewhere)
    assert Scorer(model).shares_prompts == shares

"""A tiny model against exact rounds: listed laws, parts of an error, runs made here."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from lab.specs import objective_of
from lab.sweep import run_cells
from llm_scale import train as training
from llm_scale.data.tasks import phrases
from llm_scale.models.player import Machine, Player
from llm_scale.study import columns, tiny_model, tiny_runs
from llm_scale.study import listed_laws as listed
from llm_scale.study.tiny_model import expert_law, law
from theory import objectives
from theory.errors import InvalidInput


@pytest.fixture(scope="module")
def small(settings):
    return phrases(dataclasses.replace(settings, max_new_tokens=3, held_out=8, prompts=16))


def test_listed_laws_sum_to_one_and_are_those_of_scoring(small, language, settings):
    player = Player(language, settings, Machine.of(settings))
    everything = listed.responses(len(small.tokenizer), small.expert.eos, 3)
    assert len(everything) == listed.size(len(small.tokenizer), 3) == 1 + 11 + 11**2 + 11**3
    assert len(set(everything)) == len(everything)
    log_p, log_q = expert_law(small), law(player, small)
    for log_law in (log_p, log_q):
        np.testing.assert_allclose(np.exp(log_law).sum(-1), 1.0, atol=1e-12)
    chosen = np.random.default_rng(0).choice(len(everything), 60, replace=False)
    prompt = small.prompts[2]
    pairs = [(prompt, everything[i]) for i in chosen]
    np.testing.assert_allclose(log_p[2, chosen], small.expert.log_probs(pairs), atol=1e-12)
    np.testing.assert_allclose(log_q[2, chosen], player.score(pairs).numpy(), atol=2e-5)


def test_a_game_too_large_to_list_is_refused(small):
    with pytest.raises(InvalidInput, match="at most 2000000 can be listed"):
        listed.log_laws(small.expert.next_log_laws, small.prompts, 12, 0, 8)


@pytest.fixture
def laws_of_a_round():
    rng = np.random.default_rng(3)
    log_p, log_q, noise = rng.normal(size=(3, 2, 50))
    return *(x - np.logaddexp.reduce(x, -1, keepdims=True) for x in (log_p, log_q)), noise


def test_an_exact_round_has_slope_one_and_no_residual(laws_of_a_round):
    log_p, log_q, _ = laws_of_a_round
    spin = objectives.get("spin")
    row = columns.rewards(log_p, log_q, log_p, spin, 1.0, (1, 1))
    assert row["link_slope"] == pytest.approx(1.0)
    assert row["link_correlation"] == pytest.approx(1.0)
    assert row["link_residual"] == pytest.approx(0.0, abs=1e-12)
    assert row["tv_to_link"] == pytest.approx(0.0, abs=1e-12)
    assert columns.divergences(log_p, log_q, log_p)["kl"] == pytest.approx(0.0, abs=1e-12)


def test_contraction_is_t6_s_factor_and_mass_outside_is_counted(laws_of_a_round):
    log_p, log_q, _ = laws_of_a_round
    spin = objectives.get("spin")
    row = columns.rewards(log_p, log_q, log_p, spin, 2.0, (1, 1))
    assert row["contraction_link"] == pytest.approx(1.0 - 1.0 / 2.0)
    assert row["link_slope"] == pytest.approx(2.0)
    assert columns.contraction(log_p, log_q, log_q) == pytest.approx(1.0)
    thin = np.log([[0.5, 0.5 - 3e-5, 1e-5, 2e-5]])
    wide = np.log([[0.4, 0.3, 0.1, 0.2]])
    found = columns.divergences(thin, np.log([[0.4, 0.6 - 3e-5, 1e-5, 2e-5]]), wide)
    assert found["outside_before"] == pytest.approx(3e-5)
    assert found["outside"] == pytest.approx(0.3)
    assert found["max_u"] == pytest.approx(np.log((0.5 - 3e-5) / 0.3))


def test_the_parts_of_an_error_are_told_apart(laws_of_a_round):
    log_p, log_q, noise = laws_of_a_round
    exact = log_p - log_q
    for slope, size in ((0.5, 0.0), (1.0, 0.3)):
        learned = slope * exact + size * noise
        row = columns.parts("link", log_p, log_q, exact, learned, 0.5)
        after = np.logaddexp.reduce(log_q + learned / 0.5, -1, keepdims=True)
        whole = columns.kl(log_p, log_q + learned / 0.5 - after)
        if size == 0.0:
            assert row["kl_link_slope"] == pytest.approx(whole)
            assert row["link_residual"] == pytest.approx(0.0, abs=1e-12)
        else:
            assert row["kl_link_residual"] == pytest.approx(whole, rel=0.2)
            assert row["link_residual"] == pytest.approx(size, rel=0.4)


def test_levelled_ipo_goes_from_ipo_to_pointwise_spif():
    r_y, r_own = torch.randn(2, 7, 1, dtype=torch.float64)
    levelled = [objective_of(f"{tiny_runs.LEVELLED}:levelled_ipo(level={w})") for w in (0, 1)]
    ipo = objectives.get("ipo", margin=1.0).reward_risk(r_y, r_own)
    torch.testing.assert_close(levelled[0].reward_risk(r_y, r_own), ipo)
    spif = objectives.get("spif", c=1.0).reward_risk(r_y, r_own)
    torch.testing.assert_close(levelled[1].reward_risk(r_y, r_own), 4.0 * spif + 4.0)


@pytest.fixture(scope="module")
def margins(settings, tmp_path_factory):
    """Mean and least ``beta`` log-ratio difference on 24 pairs seen over and over, by steps."""
    at = (40, 160, 320)

    def run(spec, beta):
        s = dataclasses.replace(
            settings, objective=spec, beta=beta, prompts=24, batch=24, held_out=0, rounds=1,
            steps_per_round=at[-1], schedule="constant", lr=3e-3, cosines=0, sft_steps=0,
        )  # fmt: skip
        task = phrases(s)
        language = tiny_model.prepare.prepare(s).language
        parts = training.assemble(s, tmp_path_factory.mktemp("margins"), language, task)
        found, optimise = [], training.optimise

        def watched(parts, state, *rest):
            out = optimise(parts, state, *rest)
            if state.step in at:
                ratio = state.data.rescored(parts.player) - state.data.current
                expert, own = beta * ratio.reshape(-1, 2).T
                different = [i.expert[0].tokens != i.own[0].tokens for i in state.data.items]
                found.append(float((expert - own)[torch.tensor(different)].mean()))
            return out

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "optimise", watched)
            training.train(parts)
        return np.array(found)

    return {"spin": run("spin", 1.0), "ipo": run("ipo(margin=1)", 0.5)}


@pytest.mark.claim("S3.margins", regime="listed")
def test_margins_on_repeated_pairs_grow_for_spin_and_stop_for_ipo(claim, margins):
    spin, ipo = margins["spin"], margins["ipo"]
    what = "SPIN: growth of the mean margin when the steps grow 4 and 2 times"
    claim.exhibits(np.diff(spin), 0.5, what=what)
    claim.close(ipo[1:], 1.0, 0.1, what="IPO: mean margin against m", because="chosen")


def test_every_run_of_the_plan_is_one_of_a_kind():
    cells = tiny_runs.cells(tiny_runs.plan(full=True))
    assert len({cell.key for cell in cells}) == len({cell.name for cell in cells}) == len(cells)
    kinds = [json.dumps(dataclasses.asdict(cell.arguments["job"])) for cell in cells]
    assert len(set(kinds)) == len(kinds)
    assert {cell.arguments["job"].settings.seed for cell in cells} == set(range(5))


def test_finished_runs_are_not_run_again_after_an_interruption(tmp_path, monkeypatch):
    cells = tiny_runs.cells(tiny_runs.plan()[:2])
    monkeypatch.setattr(tiny_runs, "run", lambda job: [{"seed": job.settings.seed, "kl": 1 / 3}])
    expected = [[{"seed": c.arguments["job"].settings.seed, "kl": 0.3333}] for c in cells]
    assert run_cells(cells, tmp_path, progress=False) == expected
    monkeypatch.setattr(tiny_runs, "run", None)
    assert run_cells(cells, tmp_path, progress=False) == expected

"""The gap of an anchored model again, from laws by plain loops, and how samples cover it."""

import numpy as np
import pytest

from llm_scale.measure.predicted import RewardTerms
from llm_scale.study import exact_gap
from llm_scale.study.exact_gap import Laws
from theory import laws, objectives

PROMPTS, RESPONSES, BETA, TAU, C = 3, 12, 0.7, 0.6, 0.8
GAMES = {
    "spin": RewardTerms(objectives.get("spin"), BETA, TAU),
    "spif": RewardTerms(objectives.get("spif", c=C), BETA, TAU),
}


@pytest.fixture(scope="module")
def played():
    """p, pi_0, pi_t and pi_{t+1}."""
    return laws.random_law(np.random.default_rng(5), (4, PROMPTS, RESPONSES), 0.8)


def true_reward(name, p, new):
    return np.log(p / new) if name == "spin" else (p - new) / (C * (p + new))


def kl(a, b):
    return float(sum(x * np.log(x / y) for x, y in zip(a, b, strict=True)))


def known(name, played):
    log_laws = Laws(*np.log(played))
    log_end = exact_gap.end_of_rounds(log_laws.log_p, log_laws.log_ref, GAMES[name])
    return log_laws, log_end, exact_gap.exact(log_laws, log_end, GAMES[name])


@pytest.mark.parametrize("name", GAMES)
def test_the_exact_columns(name, played):
    p, ref, before, new = played
    _, log_end, row = known(name, played)
    learned = BETA * np.log(new / before) + TAU * np.log(new / ref)
    expected = {
        "kl": sum(kl(p[x], new[x]) for x in range(PROMPTS)) / PROMPTS,
        "kl_step": sum(kl(new[x], before[x]) for x in range(PROMPTS)) / PROMPTS,
        "kl_end": sum(kl(new[x], np.exp(log_end[x])) for x in range(PROMPTS)) / PROMPTS,
    }
    for column, reward in (("gap", true_reward(name, p, new)), ("learned_gap", learned)):
        weight = ref * np.exp(reward / TAU)
        own = [kl(new[x], weight[x] / weight[x].sum()) for x in range(PROMPTS)]
        pooled = kl(new.ravel() / PROMPTS, weight.ravel() / weight.sum())
        expected[f"exact_{column}_prompts"] = TAU * sum(own) / PROMPTS
        expected[f"exact_{column}"] = TAU * pooled
    assert row.keys() == expected.keys()
    for column, value in expected.items():
        assert row[column] == pytest.approx(value, rel=1e-9), column
    mu = {"spin": 1.0, "spif": 0.0}[name]
    assert row["kl_end"] < row["exact_gap_prompts"] / (TAU + mu)  # T10
    assert row["exact_gap_prompts"] < row["exact_gap"]  # Jensen


def test_the_learned_gap_is_the_step_of_the_round_alone(played):
    """``tau log E_pi (pi/pi_t)^{beta/tau} - beta KL(pi||pi_t)``: neither p nor pi_0 is in it."""
    _, _, before, new = played
    _, _, row = known("spif", played)
    power = [(new[x] * (new[x] / before[x]) ** (BETA / TAU)).sum() for x in range(PROMPTS)]
    own = [TAU * np.log(power[x]) - BETA * kl(new[x], before[x]) for x in range(PROMPTS)]
    assert row["exact_learned_gap_prompts"] == pytest.approx(sum(own) / PROMPTS)


def test_the_end_of_spin_s_rounds(played):
    """``p^{1/(1+tau)} pi_0^{tau/(1+tau)}``, normalised; there the prompts' gap is 0."""
    p, ref, _, _ = played
    weight = p ** (1 / (1 + TAU)) * ref ** (TAU / (1 + TAU))
    end = weight / weight.sum(-1, keepdims=True)
    found = exact_gap.end_of_rounds(np.log(p), np.log(ref), GAMES["spin"])
    np.testing.assert_allclose(np.exp(found), end, rtol=1e-9)
    gap = exact_gap.gap(np.log(end), np.log(ref), np.log(p / end), TAU)
    assert gap.prompts == pytest.approx(0.0, abs=1e-12)
    assert gap.pooled > 1e-3  # the prompts' constants differ


def test_draws_follow_their_laws():
    law = np.array([[0.5, 0.3, 0.0, 0.2], [0.0, 0.1, 0.9, 0.0]])
    prompt = np.repeat([[0], [1]], 40_000, axis=1)
    found = exact_gap.drawn(law, prompt, np.random.default_rng(1))
    for x in range(2):
        share = np.bincount(found[prompt == x], minlength=4) / 40_000
        np.testing.assert_allclose(share, law[x], atol=4.5 * 0.5 / 200)
        assert (share[law[x] == 0.0] == 0.0).all()


@pytest.mark.parametrize("name", GAMES)
def test_intervals_of_light_weights_cover_as_they_say(name):
    """Laws near each other: 300 times 1,000 responses, 4.5 standard errors of a share of .95."""
    rng = np.random.default_rng(8)
    p, ref, before, new = laws.random_law(rng, (4, PROMPTS, RESPONSES), 0.2)
    log_laws, _, row = known(name, (p, ref, before, new))
    found = exact_gap.redrawn(log_laws, GAMES[name], row, 1000, 300, rng)
    for way in ("gap", "gap_ref", "learned_gap"):
        assert found[f"given_{way}"] == 1.0
        assert found[f"covered_{way}"] == pytest.approx(0.95, abs=4.5 * np.sqrt(0.95 * 0.05 / 300))
        assert found[f"ratio_{way}"] == pytest.approx(1.0, abs=0.1)
    assert found["bounded_gap"] > 0.9
    assert "bounded_learned_gap" not in found


def test_mass_that_the_model_never_gives_is_seen_by_responses_of_pi_0_alone():
    """Half of the expert's and of pi_0's is on what 2,000 samples of pi hardly ever show."""
    rare = 1e-6
    p, ref, new = (np.array([[1.0 - x, x]]) for x in (0.5, 0.5, rare))
    log_laws = Laws(*(np.log(law) for law in (p, ref, ref, new)))
    game = RewardTerms(objectives.get("spif"), BETA, 1.0)
    log_end = exact_gap.end_of_rounds(log_laws.log_p, log_laws.log_ref, game)
    row = exact_gap.exact(log_laws, log_end, game)
    found = exact_gap.redrawn(log_laws, game, row, 2000, 50, np.random.default_rng(2))
    assert found["given_gap"] > 0.9
    assert found["covered_gap"] < 0.1
    assert found["ratio_gap"] < 0.5
    assert found["given_gap_ref"] == 0.0  # the two disagree on log Z


def test_nothing_is_said_of_intervals_that_are_not_given(played):
    log_laws, _, row = known("spin", played)
    found = exact_gap.redrawn(log_laws, GAMES["spin"], row, 50, 20, np.random.default_rng(3))
    assert found == {"given_gap": 0.0, "given_gap_ref": 0.0, "given_learned_gap": 0.0}

"""Every number of a round's row again, from log-probabilities by plain loops."""

import io

import numpy as np
import pandas as pd
import pytest

from llm_scale.measure import telemetry
from llm_scale.measure.predicted import FEWEST, TWO_STEP, RewardTerms, predict
from llm_scale.measure.telemetry import Fresh, Measured
from theory import objectives

BETA, TAU, EACH = 0.7, 0.4, 30
SIDES = ("expert", "own", "other")


@pytest.fixture(scope="module")
def numbers():
    """Log-probabilities of 30 responses of every side to 5 prompts, as a round leaves them."""
    rng = np.random.default_rng(5)
    n = 3 * EACH
    out = {k: -5.0 + rng.normal(size=n) for k in ("expert", "before", "after", "other", "anchor")}
    out["expert"][:EACH] += 1.0
    out["prompt"] = np.tile(np.arange(EACH) % 5, 3)
    out["side"] = np.repeat(SIDES, EACH)
    return out


def measured(numbers, *, opponent=False, anchor=False):
    return Measured(
        *(numbers[k] for k in ("prompt", "side", "before", "after", "expert")),
        numbers["other"] if opponent else None,
        numbers["anchor"] if anchor else None,
    )


def of(numbers, key, *sides):
    return numbers[key][np.isin(numbers["side"], sides)]


def centred(values, prompt):
    return np.array([v - values[prompt == x].mean() for v, x in zip(values, prompt, strict=True)])


def ipo_link(u, is_expert, margin):
    """``m/(1 + Delta/2) tanh(u/2)``, Delta from samples of both laws."""
    tilt = np.tanh(u / 2)
    delta = tilt[is_expert].mean() - tilt[~is_expert].mean()
    return margin / (1 + delta / 2) * tilt, delta


def check(row, expected):
    for column, value in expected.items():
        assert row[column] == pytest.approx(value, rel=1e-9), column


@pytest.mark.parametrize("tau", [0.0, TAU])
def test_log_z_divides_by_both_weights_and_sees_own_responses_only(numbers, tau):
    spif = objectives.get("spif", c=0.8)
    game = RewardTerms(spif, BETA, tau)
    told = measured(numbers, anchor=tau > 0)
    row = telemetry.partition(told, game, predict(told.points(), game))
    u = of(numbers, "expert", "own") - of(numbers, "before", "own")
    pull = tau * (of(numbers, "anchor", "own") - of(numbers, "before", "own"))
    z = np.exp((np.tanh(u / 2) / 0.8 + pull) / (BETA + tau))
    expected = {"log_partition": np.log(z.mean())}
    expected["log_partition_se"] = z.std(ddof=1) / np.sqrt(EACH) / z.mean()
    check(row, expected)
    assert telemetry.partition(told, RewardTerms(objectives.get("spin"), BETA), None) == {}


def test_log_z_of_an_anchored_round_is_the_normaliser_of_its_exact_law():
    """Three outcomes: pi_{t+1}^(beta + tau) ~ pi_t^beta pi_0^tau e^R, each drawn in its share."""
    p, q, base = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.25, 0.25]), np.array([0.1, 0.6, 0.3])
    at = np.array([0, 0, 1, 2] * 2)
    side = np.repeat(["expert", "own"], 4)
    logs = [np.log(law)[at] for law in (q, q, p)]
    told = Measured(np.zeros(8, int), side, *logs, anchor=np.log(base)[at])
    game = RewardTerms(objectives.get("spif"), BETA, TAU)
    row = telemetry.partition(told, game, predict(told.points(), game))
    reward = (p - q) / (p + q)
    z = (q**BETA * base**TAU * np.exp(reward)) ** (1 / (BETA + TAU))
    assert row["log_partition"] == pytest.approx(np.log(z.sum()), rel=1e-12)


def test_few_responses_a_prompt_share_one_delta(numbers):
    assert 2 * EACH / 5 < FEWEST
    told = measured(numbers)
    found = predict(told.points(), RewardTerms(objectives.get("ipo", margin=1.3), BETA))
    sides = ("expert", "own")
    u = of(numbers, "expert", *sides) - of(numbers, "before", *sides)
    link, delta = ipo_link(u, of(numbers, "side", *sides) == "expert", 1.3)
    assert delta > 0.1
    np.testing.assert_allclose(found.delta, delta)
    np.testing.assert_allclose(found.link, link)
    assert found.kind == TWO_STEP


def test_many_responses_a_prompt_carry_its_own_laws():
    """Weights p/(p + pi_t) and q/(p + pi_t), the opponent's law q another one than pi_t."""
    rng = np.random.default_rng(8)
    n = 60
    log_p, log_q, log_before, log_after = rng.normal(-2.0, 0.7, (4, n))
    prompt = np.arange(n) % 3
    side = np.where(np.arange(n) < n // 2, "expert", "own")
    told = Measured(prompt, side, log_before, log_after, log_p, log_q)
    found = predict(told.points(), RewardTerms(objectives.get("ipo", margin=1.3), BETA))
    for x in range(3):
        here = prompt == x
        p, q, drawn = (np.exp(v[here]) for v in (log_p, log_q, log_before))
        p, q = p / (p + drawn), q / (np.exp(log_p[here]) + drawn)
        p, q = p / p.sum(), q / q.sum()
        delta = ((p - q) ** 2 / (p + q)).sum()
        np.testing.assert_allclose(found.delta[here], delta)
        link = 1.3 / (1 + delta / 2) * np.tanh((log_p - log_q)[here] / 2)
        np.testing.assert_allclose(found.link[here], link)


@pytest.mark.parametrize("anchor", [False, True])
def test_rewards_margins_and_ranges(numbers, anchor):
    tau = TAU if anchor else 0.0
    game = RewardTerms(objectives.get("spif", c=0.8), BETA, tau)
    row = telemetry.rewards(measured(numbers, opponent=True, anchor=anchor), game)
    reward = BETA * (numbers["after"] - numbers["other"])
    if anchor:
        reward = reward + TAU * (numbers["after"] - numbers["anchor"])
    by = dict(zip(SIDES, reward.reshape(3, EACH), strict=True))
    expected = {f"max_reward_{s}": np.abs(by[s]).max() for s in SIDES}
    expected |= {f"reward_{s}": by[s].mean() for s in SIDES}
    expected |= {f"reward_{s}_se": by[s].std(ddof=1) / np.sqrt(EACH) for s in SIDES}
    expected["margin"] = (by["expert"] - by["own"]).mean()
    expected["margin_se"] = (by["expert"] - by["own"]).std(ddof=1) / np.sqrt(EACH)
    prompt = numbers["prompt"].reshape(3, EACH)[0]
    for name, sides in (("reward_range", SIDES[:2]), ("reward_range_other", SIDES)):
        spans = [np.ptp(np.concatenate([by[s][prompt == x] for s in sides])) for x in range(5)]
        expected[name] = max(spans)
    expected |= {"reward_low": -1 / 0.8, "reward_high": 1 / 0.8, "reward_range_bound": 2 / 0.8}
    assert row.keys() == expected.keys()
    check(row, expected)


def test_slopes_on_the_link_and_the_contraction(numbers):
    game = RewardTerms(objectives.get("spin"), BETA)
    told = measured(numbers)
    found = predict(told.points(), game)
    row = telemetry.summary(told, game, found)
    sides = ("expert", "own")
    p, before, after = (of(numbers, k, *sides) for k in ("expert", "before", "after"))
    prompt = of(numbers, "prompt", *sides)
    expected = {}
    for name, x, y in (
        ("link_slope", p - before, BETA * (after - before)),
        ("contraction", p - before, p - after),
        ("contraction_predicted", p - before, p - before - (p - before) / BETA),
    ):
        x, y = centred(x, prompt), centred(y, prompt)
        slope = (x * y).sum() / (x * x).sum()
        expected[name] = slope
        if name == "contraction_predicted":
            continue
        error = np.sqrt(((x * (y - slope * x)) ** 2).sum()) / (x * x).sum()
        expected[f"{name}_se"] = error
        if name == "link_slope":
            lengths = (x * x).sum() * (y * y).sum()
            expected["link_correlation"] = (x * y).sum() / np.sqrt(lengths)
    expected |= {k.replace("link", "predicted"): v for k, v in expected.items() if "link" in k}
    expected |= {"contraction_local": 1 - 1 / BETA, "predicted_share": 1.0}
    check(row, expected)
    game = RewardTerms(objectives.get("ipo", margin=1.3), BETA)
    row = telemetry.contraction(told, game, predict(told.points(), game))
    u = p - before
    _, delta = ipo_link(u, np.arange(2 * EACH) < EACH, 1.3)
    check(row, {"contraction_local": 1 - 1.3 / (1 + delta / 2) / 2 / BETA})


def test_divergences_levels_and_dumped_mass(numbers):
    rng = np.random.default_rng(9)
    fresh = Fresh([], *(-5.0 + 2.0 * rng.normal(size=(3, 200))))
    row = telemetry.summary(measured(numbers), None, None, fresh)
    p, q = ({k: of(numbers, k, s) for k in ("expert", "before", "after")} for s in SIDES[:2])
    means = {
        "nll_before": -p["before"],
        "nll": -p["after"],
        "nll_change": p["before"] - p["after"],
        "kl_before": p["expert"] - p["before"],
        "kl": p["expert"] - p["after"],
        "reverse_kl_before": q["before"] - q["expert"],
        "kl_step": fresh.after - fresh.before,
        "reverse_kl": fresh.after - fresh.expert,
    }
    for side in SIDES:
        for when in ("before", "after"):
            means[f"log_prob_{side}_{when}"] = of(numbers, when, side)
    low, rare = np.quantile(q["before"], 0.01), np.quantile(p["expert"], 0.01)
    means["left_own"] = (fresh.before < low) * 1.0
    means["dumped"] = ((fresh.before < low) & (fresh.expert < rare)) * 1.0
    means["dumped_before"] = ((q["before"] < low) & (q["expert"] < rare)) * 1.0
    expected = {k: v.mean() for k, v in means.items()}
    expected |= {f"{k}_se": v.std(ddof=1) / np.sqrt(len(v)) for k, v in means.items()}
    assert 0 < expected["dumped"] < expected["left_own"]
    assert expected.keys() | {"contraction", "contraction_se"} == row.keys()
    check(row, expected)


def test_correlations_with_three_curves_in_u(numbers):
    game, told = RewardTerms(objectives.get("spin"), BETA), measured(numbers)
    row = telemetry.link(told, game, predict(told.points(), game))
    sides = ("expert", "own")
    p, before, after = (of(numbers, k, *sides) for k in ("expert", "before", "after"))
    prompt, u = of(numbers, "prompt", *sides), p - before
    y = centred(BETA * (after - before), prompt)
    for name, curve in (("linear", u), ("bounded", np.tanh(u / 2)), ("sign", np.sign(u))):
        x = centred(curve, prompt)
        expected = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
        assert row[f"{name}_correlation"] == pytest.approx(expected, rel=1e-9), name


def test_the_table_has_a_line_a_response_and_leaves_out_what_is_not_known(numbers):
    game, told = RewardTerms(objectives.get("spin"), BETA), measured(numbers)
    found = predict(told.points(), game)

    def read(*given):
        text = telemetry.table(told, *given)
        return pd.read_csv(io.StringIO(text), keep_default_na=True)

    whole, plain = read(game, found), read(None)
    assert list(whole.columns) == list(telemetry.COLUMNS)
    assert len(whole) == len(plain) == 3 * EACH
    np.testing.assert_allclose(whole.reward, BETA * (numbers["after"] - numbers["before"]), 2e-5)
    seen = whole.side != "other"
    np.testing.assert_allclose(whole.link[seen], found.link, rtol=2e-5)
    np.testing.assert_allclose(whole.predicted[seen], found.refined, rtol=2e-5)
    assert whole.link[~seen].isna().all()
    assert plain[["reward", "link", "predicted"]].isna().all(axis=None)

"""Every recorded column again, from laws by plain loops: what a row says is what the laws are."""

import numpy as np
import pytest

from llm_scale.study import columns
from theory import objectives
from theory.rounds.one_step import one_step_round

PROMPTS, RESPONSES, BETA, SIZES = 3, 40, 0.7, (2, 3)
OBJECTIVES = {
    "spin": objectives.get("spin"),
    "spif": objectives.get("spif", c=0.8),
    "ipo": objectives.get("ipo", margin=1.3),
    "centred_spif": objectives.get("centred_spif", c=0.8),
}


@pytest.fixture(scope="module")
def laws():
    """p, pi_t and pi_{t+1}: responses rare under both, under one alone, and under none."""
    rng = np.random.default_rng(11)
    p, q, new = np.exp(rng.normal(0.0, 1.5, (3, PROMPTS, RESPONSES)))
    p[:, :6] *= 1e-6
    q[:, 3:9] *= 1e-6
    new[:, [3, 4, 5, 12]] *= 1e-12  # the largest rewards and log-ratios are of either sign
    return [x / x.sum(-1, keepdims=True) for x in (p, q, new)]


def normalised(weights):
    return weights / weights.sum()


def by_hand(name, p, q):
    """Link and reward as trained of one prompt, and the laws that exact rounds end at."""
    u = np.log(p / q)
    delta = ((p - q) ** 2 / (p + q)).sum()
    own = OBJECTIVES[name]
    link = {
        "spin": u,
        "spif": (p - q) / (0.8 * (p + q)),
        "ipo": 1.3 / (1.0 + delta / 2.0) * (p - q) / (p + q),
        "centred_spif": (p - q) / (0.8 * (p + q)),
    }[name]
    predicted = link
    if name == "spif":
        predicted = BETA * np.log(one_step_round(p, q, own, BETA).policy / q)
    if name == "centred_spif":  # T17, G = 2, K = 3
        a, b = 0.5 - 1 / 8, 0.5 - 1 / 12
        v = (p - q) / (a * p + b * q)
        gap = (p * v).sum() - (q * v).sum()
        predicted = v / (2 * 0.8 * (1 - a * (p * v).sum() + gap / 4))
    return link, predicted


def mean_of(values):
    return sum(values) / PROMPTS


def fitted(w, x, y):
    """Slope of y on x and their correlation under weights (lists over prompts)."""
    x = [a - (b * a).sum() / b.sum() for a, b in zip(x, w, strict=True)]
    y = [a - (b * a).sum() / b.sum() for a, b in zip(y, w, strict=True)]
    xy, xx, yy = (
        sum((c * a * b).sum() for a, b, c in zip(*pair, w, strict=True))
        for pair in ((x, y), (x, x), (y, y))
    )
    rest = [b - xy / xx * a for a, b in zip(x, y, strict=True)]
    residual = np.sqrt(mean_of([(c * r**2).sum() for r, c in zip(rest, w, strict=True)]))
    return xy / xx, xy / np.sqrt(xx * yy), residual, x, rest


@pytest.mark.parametrize("name", OBJECTIVES)
def test_columns_of_rewards(name, laws):
    p, q, new = laws
    row = columns.rewards(*(np.log(x) for x in laws), OBJECTIVES[name], BETA, SIZES)
    prompts = range(PROMPTS)
    learned = [BETA * np.log(new[i] / q[i]) for i in prompts]
    weight = [(p[i] + q[i]) / 2 for i in prompts]
    inside = [(p[i] >= 1e-4) | (q[i] >= 1e-4) for i in prompts]
    links, predictions = zip(*(by_hand(name, p[i], q[i]) for i in prompts), strict=True)
    expected = {
        "max_reward": max(np.abs(learned[i][inside[i]]).max() for i in prompts),
        "max_reward_outside": max(np.abs(learned[i][~inside[i]]).max() for i in prompts),
        "log_z": mean_of([np.log((q[i] * np.exp(links[i] / BETA)).sum()) for i in prompts]),
    }
    if name != "spif":  # rewards up to a constant have no level, and so no partition gap
        expected["log_z"] = 0.0
    for what, reward in (("link", links), ("predicted", predictions)):
        exact = [normalised(q[i] * np.exp(reward[i] / BETA)) for i in prompts]
        slope, correlation, residual, x, rest = fitted(weight, reward, learned)
        _, _, _, before, _ = fitted(weight, [np.log(p[i] / q[i]) for i in prompts], learned)
        after = [np.log(p[i] / exact[i]) for i in prompts]
        short = [normalised(q[i] * np.exp(slope * x[i] / BETA)) for i in prompts]
        noisy = [normalised(q[i] * np.exp((x[i] + rest[i]) / BETA)) for i in prompts]
        expected |= {
            f"kl_{what}": mean_of([(p[i] * np.log(p[i] / exact[i])).sum() for i in prompts]),
            f"tv_{what}": mean_of([np.abs(p[i] - exact[i]).sum() / 2 for i in prompts]),
            f"tv_to_{what}": mean_of([np.abs(new[i] - exact[i]).sum() / 2 for i in prompts]),
            f"outside_{what}": mean_of([exact[i][~inside[i]].sum() for i in prompts]),
            f"max_u_{what}": max(np.abs(after[i][inside[i]]).max() for i in prompts),
            f"contraction_{what}": fitted(weight, before, after)[0],
            f"{what}_slope": slope,
            f"{what}_correlation": correlation,
            f"{what}_residual": residual,
            f"kl_{what}_slope": mean_of([(p[i] * np.log(p[i] / short[i])).sum() for i in prompts]),
            f"kl_{what}_residual": mean_of(
                [(p[i] * np.log(p[i] / noisy[i])).sum() for i in prompts]
            ),
        }
    assert row.keys() == expected.keys()
    for column, value in expected.items():
        assert row[column] == pytest.approx(value, rel=1e-7, abs=1e-12), column


def test_columns_of_divergences(laws):
    p, q, new = laws
    row = columns.divergences(*(np.log(x) for x in laws))
    prompts = range(PROMPTS)
    inside = [(p[i] >= 1e-4) | (q[i] >= 1e-4) for i in prompts]
    apart = [np.abs(np.log(p[i] / new[i]))[inside[i]].max() for i in prompts]
    w = [(p[i] + q[i]) / 2 for i in prompts]
    u, u_new = ([np.log(p[i] / x[i]) for i in prompts] for x in (q, new))
    expected = {
        "kl_before": mean_of([(p[i] * np.log(p[i] / q[i])).sum() for i in prompts]),
        "kl": mean_of([(p[i] * np.log(p[i] / new[i])).sum() for i in prompts]),
        "reverse_kl": mean_of([(new[i] * np.log(new[i] / p[i])).sum() for i in prompts]),
        "tv": mean_of([np.abs(p[i] - new[i]).sum() / 2 for i in prompts]),
        "delta": mean_of([((p[i] - q[i]) ** 2 / (p[i] + q[i])).sum() for i in prompts]),
        "contraction": fitted(w, u, u_new)[0],
        "max_u": max(apart),
        "outside_before": mean_of([q[i][~inside[i]].sum() for i in prompts]),
        "outside_expert": mean_of([p[i][~inside[i]].sum() for i in prompts]),
        "outside": mean_of([new[i][~inside[i]].sum() for i in prompts]),
        "level_expert": mean_of([(p[i] * np.log(new[i] / q[i])).sum() for i in prompts]),
        "level_own": mean_of([(q[i] * np.log(new[i] / q[i])).sum() for i in prompts]),
    }
    assert row.keys() == expected.keys()
    for column, value in expected.items():
        assert row[column] == pytest.approx(value, rel=1e-9), column
    assert any(((p[i] < 1e-4) & (q[i] >= 1e-4)).any() for i in prompts), "rare for p alone"


def test_points_are_the_likeliest_responses_with_rewards_up_to_one_constant(laws, monkeypatch):
    monkeypatch.setattr(columns, "POINTS", 20)
    p, q, new = laws
    row = columns.points(*(np.log(x) for x in laws), OBJECTIVES["spif"], BETA)
    weight, link, learned = (p + q) / 2, (p - q) / (0.8 * (p + q)), BETA * np.log(new / q)
    shift = [[(weight[i] * (learned[i] - link[i])).sum()] for i in range(PROMPTS)]
    expected = {"u": np.log(p / q), "learned": learned - shift, "link": link, "weight": weight}
    first = sorted(range(weight.size), key=lambda i: -weight.flat[i])[:20]
    for name, values in expected.items():
        np.testing.assert_allclose(row[f"points_{name}"], [values.flat[i] for i in first])

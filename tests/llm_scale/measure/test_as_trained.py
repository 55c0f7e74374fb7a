"""The reward of the loss as it is trained: its anchor, and prompts without a near solution."""

import numpy as np
import pytest

from llm_scale.measure import predicted, telemetry
from llm_scale.measure.predicted import FEWEST, RewardTerms, as_trained, predict, where_near
from llm_scale.measure.telemetry import Measured
from theory import objectives, xp
from theory.errors import NotConverged
from theory.objectives import Pairwise
from theory.rounds.one_step import one_step_round

SPIF, SPIN = objectives.get("spif"), objectives.get("spin")
P = np.array([[0.4, 0.35, 0.25], [0.98, 0.01, 0.01]])
Q = np.array([[0.3, 0.4, 0.3], [0.01, 0.01, 0.98]])
BASE = np.array([[0.2, 0.5, 0.3], [0.3, 0.3, 0.4]])


def test_the_anchor_counts_where_there_is_one():
    game = RewardTerms(SPIF, 2.0, 0.7)
    with_anchor = one_step_round(P, Q, SPIF, 2.0, BASE, 0.7)
    np.testing.assert_array_equal(as_trained(P, Q, game, BASE).reward, with_anchor.reward)
    without = one_step_round(P, Q, SPIF, 2.0)
    np.testing.assert_array_equal(as_trained(P, Q, game).reward, without.reward)
    assert not np.allclose(with_anchor.reward, without.reward)


@pytest.mark.parametrize(("P", "Q", "at"), [(P, Q, 1), (P[:, [1, 0, 2]], Q[:, [1, 0, 2]], 0)])
def test_a_prompt_without_a_near_solution_has_no_reward(monkeypatch, P, Q, at):
    """Mass was dumped in the second (beta = 1); a solver that gives up says the same."""
    game, step = RewardTerms(SPIF, 1.0), one_step_round(P, Q, SPIF, 1.0)
    assert step.dumped.tolist() == [-1, at]

    def gives_up(*arguments):
        raise NotConverged("gave up", step)

    for solve in (one_step_round, gives_up):
        monkeypatch.setattr(predicted, "one_step_round", solve)
        found = where_near(P, Q, game)
        np.testing.assert_array_equal(found.reward[0], step.reward[0])
        assert np.isnan(found.reward[1]).all()
        assert found.near.tolist() == [True, False]


def two_prompts(**given):
    rng = np.random.default_rng(3)
    numbers = {k: -5.0 + rng.normal(size=8) for k in ("before", "after", "expert")}
    side = np.repeat(["expert", "own"], 4)
    parts = {"prompt": np.arange(8) % 2, "side": side, **numbers, "opponent": None, "anchor": None}
    return Measured(*(parts | given).values())


def test_a_local_factor_is_told_where_it_holds_only():
    """Without an anchor, and where own responses are those of pi_t."""
    told = two_prompts()
    plain = RewardTerms(SPIN, 2.0)
    row = telemetry.contraction(told, plain, telemetry.predictions(told, plain))
    assert row["contraction_local"] == 0.5
    other = two_prompts(opponent=np.full(8, -5.0))
    for measured, game in ((told, RewardTerms(SPIN, 2.0, 0.5)), (other, plain), (told, None)):
        found = telemetry.predictions(measured, game)
        row = telemetry.contraction(measured, game, found)
        assert row.keys() == {"contraction", "contraction_se"}


def test_an_expert_known_in_part_is_not_known():
    told = two_prompts(expert=np.append(np.full(7, -5.0), np.nan))
    assert not told.known
    assert telemetry.predictions(told, RewardTerms(SPIN, 2.0)) is None
    assert telemetry.contraction(told, RewardTerms(SPIN, 2.0), None) == {}
    assert "kl" not in telemetry.summary(told, None, None)


def test_predictions_of_prompts_with_uneven_numbers_of_responses():
    """Each prompt's own laws, padding aside; SPIF's loss is that of one step, without a start."""
    rng = np.random.default_rng(4)
    sizes = FEWEST, FEWEST + 7
    n = sum(sizes)
    log_p, log_q = rng.normal(-3.0, 0.4, (2, n))
    told = Measured(np.repeat([0, 1], sizes), np.where(np.arange(n) % 2, "own", "expert"),
                    log_q, log_q, log_p, None, None)  # fmt: skip
    found = predict(told.points(), RewardTerms(SPIF, 2.0))
    for here in (slice(0, sizes[0]), slice(sizes[0], n)):
        p, q = (
            np.exp(x[here]) / (np.exp(log_p[here]) + np.exp(log_q[here])) for x in (log_p, log_q)
        )
        p, q = p / p.sum(), q / q.sum()
        np.testing.assert_allclose(found.delta[here], ((p - q) ** 2 / (p + q)).sum())
        step = one_step_round(p, q, SPIF, 2.0)
        np.testing.assert_allclose(found.refined[here], step.reward, atol=1e-9)
    assert found.kind == predicted.ONE_STEP
    assert predict(told.points(), RewardTerms(SPIF, 2.0, level="token")) is None
    told.expert[3] = -np.inf
    assert predict(told.points(), RewardTerms(SPIF, 2.0)) is None


class Quartic(Pairwise):
    """A loss whose best response is solved for, from the laws."""

    name = "quartic of the margin"

    def pair_loss(self, d):
        return xp.square(d - 1.0) + 0.1 * xp.square(xp.square(d - 1.0))


def test_a_link_of_laws_is_that_of_all_prompts_where_each_has_few_responses():
    log_p = np.random.default_rng(5).normal(-3.0, 0.8, 12)
    log_q = log_p[::-1]  # so that laws of the twelve have the ratios of the whole laws
    told = Measured(np.arange(12) % 4, np.where(np.arange(12) < 6, "own", "expert"),
                    log_q, log_q, log_p, None, None)  # fmt: skip
    objective = Quartic()
    found = predict(told.points(), RewardTerms(objective, 2.0)).link
    both = np.logaddexp(log_p, log_q)
    p, q = (np.exp(x - both) for x in (log_p, log_q))
    p, q = p / p.sum(), q / q.sum()
    difference = found - objective.reward(p, q)
    np.testing.assert_allclose(difference, difference[0], atol=1e-9)
    assert np.ptp(found) > 0.3

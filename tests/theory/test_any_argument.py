"""Any argument of a public verb may be None, text, or of another shape: it is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.theory.wrong_calls import GAME, INPO, IPO, RPS, SPIF, THREE, P, Q
from theory import (
    InvalidInput,
    NotConverged,
    TokenMDP,
    check_objective,
    equilibrium,
    objectives,
    one_step_path,
    preferences,
    saddle_point,
    self_play,
    solve_path,
    theory_card,
)
from theory.equilibria.sampled import sampled_gap
from theory.occupancy.solve import occupancy_game
from theory.rounds import history, history_errors, inexact, one_step, predictions

ANY: list[Any] = [
    None, "x", [], {}, np.nan, -1, np.inf, True, 1j, object(), [None, None], [[1, 2], [3]],
    [10**400], (1.0, 2.0),
    np.array(["a", "b"]), np.array([0.5, 0.6]), np.array([0.5, 0.5, 0.0]), np.full(5, 0.2),
    np.full((4, 2), 0.5), np.zeros((2, 2, 2)), GAME,
]  # fmt: skip
RNG, HALF = np.random.default_rng(0), np.array([0.5, 0.5])
EVEN, FLAT = GAME.uniform_policy(), np.zeros((GAME.n_states, GAME.n_actions))
LOGS = RNG.normal(size=300) * 0.1
MERGED = GAME.merged(0)

Good = tuple[Callable[..., object], tuple[Any, ...]]
VERBS: dict[str, Good] = {
    "equilibrium": (equilibrium, (P, Q, SPIF, 0.5)),
    "saddle_point": (saddle_point, (P, Q, SPIF, 0.5)),
    "solve_path": (solve_path, (P, Q, SPIF, [0.5, 1.0])),
    "self_play": (self_play, (P, Q, SPIF, 1.0, 2, Q, 0.5)),
    "self_play: history": (
        lambda p, q, m: self_play(p, q, SPIF, 1.0, 2, history=m),
        (P, Q, 0.2),
    ),
    "one_step_path": (one_step_path, (P, Q, SPIF, [1.0, 2.0])),
    "one_step_round": (one_step.one_step_round, (P, Q, SPIF, 1.0, Q, 0.5, "near")),
    "one_step_round: history": (
        lambda p, q, h: one_step.one_step_round(p, q, "tspin", 1.0, history=h),
        (P, Q, Q),
    ),
    "one_step_round: preference": (
        lambda p, q, w: one_step.one_step_round(p, q, "sppo", 1.0, preference=w),
        (P, Q, HALF),
    ),
    "partition_gap": (one_step.partition_gap, (P, Q, SPIF, 1.0)),
    "local_rate_one_step": (one_step.local_rate_one_step, (SPIF, 1.0)),
    "theory_card": (theory_card, (SPIF,)),
    "theory_card: at": (theory_card(SPIF).at, (1.0,)),
    "check_objective": (check_objective, (SPIF,)),
    "objectives.get": (objectives.get, ("spif",)),
    "sampled_gap": (
        lambda obj, tau, own, ref, expert, most: sampled_gap(
            obj, tau, own, own_anchor=ref, expert_reward=expert, highest=most
        ),
        (SPIF, 0.0, LOGS, np.zeros(300), LOGS, 1.0),
    ),
    "Solution.save": (equilibrium(P, Q, SPIF, 0.5).save, (Path("solution.npz"),)),
    # preferences
    "nash": (preferences.nash, (RPS, 1e-9)),
    "regularised_nash": (preferences.regularised_nash, (RPS, THREE, 0.5, 1.0, 1e-12)),
    "regularised_gap": (preferences.regularised_gap, (RPS, THREE, THREE, 0.5, 1.0)),
    "duality_gap": (preferences.duality_gap, (RPS, THREE)),
    "exploitability": (preferences.exploitability, (RPS, THREE)),
    "preferences.self_play": (preferences.self_play, (RPS, THREE, INPO, 5.0, 3, THREE, 0.5)),
    "nash_md": (preferences.nash_md, (RPS, THREE, THREE, 5.0, 0.5, 3, 1.0)),
    "nash_md_bound": (preferences.nash_md_bound, (0.5, 3, 1.0)),
    "anchored_beta": (preferences.anchored_beta, (RPS, 0.5, 1.0)),
    "anchored_rate": (preferences.anchored_rate, (5.0, 0.5)),
    "average_gap_bound": (preferences.average_gap_bound, (RPS, THREE, 5.0, 3, 1.0)),
    "bradley_terry": (preferences.bradley_terry, (THREE,)),
    "check_preference": (preferences.check_preference, (RPS,)),
    "cycle_speed": (preferences.cycle_speed, (RPS, THREE, 1.0)),
    "local_gain": (preferences.local_gain, (IPO,)),
    "local_growth": (preferences.local_growth, (RPS, THREE, 5.0, 0.5, 1.0)),
    "local_threshold": (preferences.local_threshold, (RPS, THREE, 0.5, 1.0)),
    "log_partition": (preferences.log_partition, (THREE, THREE, 1.0)),
    "low_rank": (preferences.low_rank, (RNG, 4, 2, (), 1.0)),
    "payoff_scale": (preferences.payoff_scale, (IPO,)),
    "preference_logit": (preferences.preference_logit, (RPS, THREE)),
    "random_preference": (preferences.random_preference, (RNG, 4, (), 1.0)),
    "reward": (preferences.reward, (RPS, THREE, IPO)),
    "rock_paper_scissors": (preferences.rock_paper_scissors, (1.0, 3)),
    "win_rate": (preferences.win_rate, (RPS, THREE)),
    "winner_loser": (preferences.winner_loser, (RPS, THREE)),
    # tokens
    "occupancy_game": (
        occupancy_game, (GAME, GAME.expert, EVEN, SPIF, 0.1, "saddle", "fast", 1e-10, 100)
    ),
    "policy_from_law": (GAME.policy_from_law, (GAME.sequence_law(EVEN),)),
    "policy_from_log_law": (GAME.policy_from_log_law, (GAME.log_sequence_law(EVEN),)),
    "sequence_law": (GAME.sequence_law, (EVEN,)),
    "sequence_sum": (GAME.sequence_sum, (FLAT, 0.0)),
    "lift": (GAME.lift, (FLAT,)),
    "merged": (GAME.merged, (1,)),
    "merge_policy": (MERGED.merge_policy, (EVEN,)),
    "soft_value_iteration": (
        GAME.soft_value_iteration, (FLAT, EVEN, 0.5, 0.5, EVEN, GAME.log_sequence_law(EVEN))
    ),
    "occupancy": (GAME.occupancy, (EVEN,)),
    "expected_sum": (GAME.expected_sum, (EVEN, FLAT)),
    "kl": (GAME.kl, (EVEN, EVEN)),
    "conditional_logratio": (GAME.conditional_logratio, (EVEN, EVEN)),
    "validate_policy": (GAME.validate_policy, (EVEN,)),
    "decode": (GAME.decode, ([0, 1],)),
    "random_policy": (GAME.random_policy, (RNG, 1.0, ())),
    "tree": (TokenMDP.tree, (3, 2, 1, 0, None, None, None)),
    "random": (TokenMDP.random, (3, 2, 0, None, 1, None, 0, 1.0)),
    "from_arrays": (
        TokenMDP.from_arrays,
        (GAME.next_state, GAME.depth, GAME.prompt, GAME.allowed, 0, None, None, GAME.expert),
    ),
    "from_text": (TokenMDP.from_text, (["a cat sat", "a dog ran"], None, 2, 1, 1, 0.1, "word")),
    # predictions
    "error_spread": (inexact.error_spread, (0.1, 1.0, 0.5, 0.0)),
    "last_iterate_bound": (inexact.last_iterate_bound, (0.1, np.array([0.1, 0.2]), 1.0, 0.1, 0.1)),
    "mean_bound": (inexact.mean_bound, (0.1, np.array([0.1, 0.2]), 1.0)),
    "best_history": (history.best_history, (1.5, 2)),
    "history_factor": (history.history_factor, (0.5, 0.2)),
    "history_threshold": (history.history_threshold, (0.2,)),
    "driving_error": (history_errors.driving_error, (SPIF, P)),
    "history_mean_bound": (history_errors.history_mean_bound, (0.1, 1.0, 1.0, 3, 0.2)),
    "history_noise": (history_errors.history_noise, (0.5, 0.2, 0.0)),
    "history_reach": (history_errors.history_reach, (0.5, 0.2)),
    "mean_age": (history_errors.mean_age, (0.2,)),
    "quietest_share": (history_errors.quietest_share, (0.5,)),
    "sampled_noise": (history_errors.sampled_noise, (0.5, 0.2)),
    "gap_slope": (predictions.gap_slope, (0.1, 0.5)),
    "largest_log_partition": (predictions.largest_log_partition, (0.5,)),
    "long_step": (predictions.long_step, (P, Q, 0.5)),
    "spif_burn_in": (predictions.spif_burn_in, (3.0, 0.5, 1.0)),
    "spif_descent": (predictions.spif_descent, (0.5,)),
    "spif_reach": (predictions.spif_reach, (0.5,)),
}  # fmt: skip


def refusal(call: Callable[..., object], given: list[Any]) -> str:
    """The message; "taken" where there is none. Any other error is raised."""
    try:
        call(*given)
    except (InvalidInput, NotConverged) as error:
        return str(error)
    return "taken"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", VERBS)
def test_it_is_refused_in_words_or_taken(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, good = VERBS[name]
    call(*good)
    for place in range(len(good)):
        for value in ANY:
            said = refusal(call, [*good[:place], value, *good[place + 1 :]])
            assert len(said.splitlines()) == 1, said


def test_policies_of_other_batches_are_refused_with_their_shapes() -> None:
    two, three = (np.broadcast_to(EVEN, (n, *EVEN.shape)) for n in (2, 3))
    flat = np.broadcast_to(FLAT, three.shape)
    law = np.broadcast_to(GAME.log_sequence_law(EVEN), (3, 1, GAME.n_responses))
    for call in (
        lambda: GAME.kl(two, three),
        lambda: GAME.expected_sum(two, flat),
        lambda: GAME.soft_value_iteration(flat, two),
        lambda: GAME.soft_value_iteration(np.broadcast_to(FLAT, two.shape), EVEN,
                                          sequence_reward=law),
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match=r"axes before the last two do not fit: .*\(3, "):
            call()
    assert GAME.kl(two, EVEN).shape == (2, 1)


def test_a_policy_in_the_place_of_the_game_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        occupancy_game(GAME.expert, GAME, EVEN, SPIF)  # type: ignore[arg-type]
    assert caught.value.problems == [
        "game: a ndarray; needed is a TokenMDP, before expert and ref; swapped?"
    ]
    with pytest.raises(InvalidInput, match=r"game: a NoneType; needed is .* and ref$"):
        occupancy_game(None, GAME.expert, EVEN, SPIF)  # type: ignore[arg-type]

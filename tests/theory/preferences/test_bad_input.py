"""Wrong calls of preferences: each is refused before any work, in words that help."""

from __future__ import annotations

import numpy as np
import pytest

from tests.theory.wrong_calls import RPS, SPIF, THREE, Call, Calls, P, Q, get, refused
from theory import preferences

nan = np.nan
RNG = np.random.default_rng(0)
NO_PROMPTS = np.full((0, 2, 2), 0.5)


CALLS: Calls = {
    "nash: no preference": (
        lambda: preferences.nash([[0.5, 0.2], [0.2, 0.5]]),
        r"P: P \+ P\^T at \(0, 1\) .*needed is P\(y > y'\) \+ P\(y' > y\) = 1",
    ),
    "nash: out of range": (
        lambda: preferences.nash([[0.5, 1.2], [-0.2, 0.5]]),
        r"P: out of range at \(0, 1\) \(1\.2.*needed is a value in \[0, 1\]",
    ),
    "nash: no tolerance": (
        lambda: preferences.nash(RPS, None),
        r"^tolerance=None; needed is a finite number > 0$",
    ),
    "random_preference: no generator": (
        lambda: preferences.random_preference(0, 3, 2),
        r"^rng: a int; needed is a numpy Generator; shape=2; needed are whole numbers >= 0, the",
    ),
    "cycle_speed: a scale an outcome": (
        lambda: preferences.cycle_speed(RPS, THREE, [1.0, 2.0, 3.0]),
        r"^scale=\[1\.0, 2\.0, 3\.0\]; needed is a finite number > 0$",
    ),
    "nash: a row": (
        lambda: preferences.nash([0.5, 0.5]),
        r"P: shape \(2,\); needed is \(\.\.\., n, n\) with n >= 1",
    ),
    "nash: no prompts": (
        lambda: preferences.nash(NO_PROMPTS),
        r"P: shape \(0, 2, 2\) has no prompts; needed is \(\.\.\., n, n\), all >= 1",
    ),
    "regularised_nash: no prompts": (
        lambda: preferences.regularised_nash(NO_PROMPTS, Q, 0.5),
        r"P: shape \(0, 2, 2\) has no prompts; needed is \(\.\.\., n, n\), all >= 1",
    ),
    "preferences.self_play: no prompts": (
        lambda: preferences.self_play(NO_PROMPTS, Q, SPIF, 1.0, 3),
        r"P: shape \(0, 2, 2\) has no prompts; needed is \(\.\.\., n, n\), all >= 1",
    ),
    "nash_md: no prompts": (
        lambda: preferences.nash_md(NO_PROMPTS, Q, Q, 1.0, 0.5, 3),
        r"P: shape \(0, 2, 2\) has no prompts; needed is \(\.\.\., n, n\), all >= 1",
    ),
    "duality_gap: no prompts": (
        lambda: preferences.duality_gap(NO_PROMPTS, Q),
        r"P: shape \(0, 2, 2\) has no prompts; needed is \(\.\.\., n, n\), all >= 1",
    ),
    "duality_gap: other outcomes": (
        lambda: preferences.duality_gap(RPS, P),
        r"policy: 2 outcomes on the last axis, needed 3",
    ),
    "preferences.self_play: no objective": (
        lambda: preferences.self_play(RPS, THREE, 2.0, 1.0, 3),
        r"obj=2.0; needed is an objective",
    ),
    "preferences.self_play: no reward": (
        lambda: preferences.self_play(RPS, THREE, get("spin_hinge"), 1.0, 3),
        r"spin_hinge has no reward: the best response is a staircase",
    ),
    "preferences.self_play: no ref": (
        lambda: preferences.self_play(RPS, THREE, SPIF, 1.0, 3, tau=1.0),
        r"tau=1\.0 needs ref, the reference policy of the anchor",
    ),
    "bradley_terry: text": (
        lambda: preferences.bradley_terry("scores"),
        r"scores: not an array of numbers",
    ),
    "bradley_terry: no scores": (
        lambda: preferences.bradley_terry([]),
        r"scores: shape \(0,\); needed are finite numbers",
    ),
    "bradley_terry: texts": (
        lambda: preferences.bradley_terry(["1", "2"]),
        r"scores: not an array of numbers",
    ),
    "random_preference: strength": (
        lambda: preferences.random_preference(RNG, 3, strength=5),
        r"strength=5; needed is within \[0, 1\]",
    ),
    "random_preference: no outcomes": (
        lambda: preferences.random_preference(RNG, 0),
        r"n=0; needed is a whole number >= 1",
    ),
    "low_rank: spread": (
        lambda: preferences.low_rank(RNG, 4, spread=nan),
        r"spread=nan; needed is a finite number >= 0",
    ),
    "nash_md: scale of text": (
        lambda: preferences.nash_md(RPS, THREE, THREE, 1.0, 1.0, scale="a"),
        r"scale='a'; needed is a finite number > 0",
    ),
    "nash_md: infinite scale": (
        lambda: preferences.nash_md(RPS, THREE, THREE, 1.0, 1.0, scale=np.inf),
        r"scale=inf; needed is a finite number > 0",
    ),
    "preferences.self_play: a truth value": (
        lambda: preferences.self_play(RPS, THREE, SPIF, True, 3),
        r"beta=True; needed is a finite number > 0, or one a round",
    ),
    # predictions
    "average_gap_bound: negative beta": (
        lambda: preferences.average_gap_bound(RPS, THREE, -1, 10),
        r"beta=-1; needed is a finite number > 0, or one a round",
    ),
    "average_gap_bound: beta": (
        lambda: preferences.average_gap_bound(RPS, THREE, nan, 10),
        r"beta=nan; needed is a finite number > 0",
    ),
    "average_gap_bound: no beta": (
        lambda: preferences.average_gap_bound(RPS, THREE, 0, 10),
        r"beta=0; needed is a finite number > 0",
    ),
    "average_gap_bound: half a round": (
        lambda: preferences.average_gap_bound(RPS, THREE, 1.0, 2.5),
        r"rounds=2\.5; needed is a whole number >= 1",
    ),
    "average_gap_bound: negative rounds": (
        lambda: preferences.average_gap_bound(RPS, THREE, 1.0, -3),
        r"rounds=-3; needed is a whole number >= 1",
    ),
    "average_gap_bound: no rounds": (
        lambda: preferences.average_gap_bound(RPS, THREE, 1.0, 0),
        r"rounds=0; needed is a whole number >= 1",
    ),
    "average_gap_bound: no law": (
        lambda: preferences.average_gap_bound(RPS, [1, 2], 1.0, 3),
        r"start: 2 outcomes on the last axis, needed 3",
    ),
    "anchored_beta: negative tau": (lambda: preferences.anchored_beta(RPS, -1), r"tau=-1; .* > 0"),
    "anchored_beta: tau": (lambda: preferences.anchored_beta(RPS, nan), r"tau=nan; .* > 0"),
    "anchored_beta: no tau": (lambda: preferences.anchored_beta(RPS, 0), r"tau=0; .* > 0"),
    "anchored_beta: scale": (
        lambda: preferences.anchored_beta(RPS, 0.1, -1),
        r"scale=-1; .* > 0",
    ),
    "anchored_rate: beta": (lambda: preferences.anchored_rate(nan, 1), r"beta=nan; .* > 0"),
    "anchored_rate: no beta": (lambda: preferences.anchored_rate(0, 1), r"beta=0; .* > 0"),
    "anchored_rate: text": (lambda: preferences.anchored_rate("1", 1), r"beta='1'; .* > 0"),
    "anchored_rate: tau": (lambda: preferences.anchored_rate(1, -1), r"tau=-1; .* >= 0"),
    "cycle_speed: scale": (
        lambda: preferences.cycle_speed(RPS, THREE, nan),
        r"scale=nan; needed is a finite number > 0",
    ),
    "local_threshold: negative tau": (
        lambda: preferences.local_threshold(RPS, THREE, -1),
        r"tau=-1; needed is a finite number >= 0",
    ),
    "local_threshold: tau": (
        lambda: preferences.local_threshold(RPS, THREE, nan),
        r"tau=nan; needed is a finite number >= 0",
    ),
    "local_growth: beta": (
        lambda: preferences.local_growth(RPS, THREE, -1, 0.5),
        r"beta=-1; needed is a finite number >= 0",
    ),
    "local_growth: no weight": (
        lambda: preferences.local_growth(RPS, THREE, 0, 0),
        r"beta=0, tau=0; needed is beta \+ tau > 0",
    ),
    "nash_md_bound: negative tau": (lambda: preferences.nash_md_bound(-1, 10), r"tau=-1; .* > 0"),
    "nash_md_bound: no tau": (lambda: preferences.nash_md_bound(0, 10), r"tau=0; .* > 0"),
    "nash_md_bound: rounds": (
        lambda: preferences.nash_md_bound(1, -1),
        r"rounds=-1; needed is a whole number >= 0",
    ),
    "log_partition: no law": (
        lambda: preferences.log_partition(np.array([1.0, 2.0]), np.array([0.5, 0.6]), 1),
        r"policy: sums to 1\.1 at prompt \(\); needed is 1",
    ),
    "log_partition: reward": (
        lambda: preferences.log_partition([1.0, nan], Q, 1.0),
        r"reward: nan at \(1,\); needed is a number wherever a law has mass",
    ),
    "log_partition: rewards": (
        lambda: preferences.log_partition([1.0, 2.0, 3.0], Q, 1.0),
        r"reward: shape \(3,\); needed is \(\.\.\., 2\), one number an outcome",
    ),
    "log_partition: beta": (lambda: preferences.log_partition(P, Q, 0.0), r"beta=0\.0; .* > 0"),
    # all problems at once
    "preferences.self_play: all at once": (
        lambda: preferences.self_play(RPS, THREE, SPIF, -1.0, -3, tau=-1.0),
        ["rounds=-3", "beta=-1.0", "tau=-1.0"],
    ),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, said: str | list[str]) -> None:
    refused(call, said)


def test_what_looks_wrong_but_is_right() -> None:
    """Lists, numpy's own numbers, arrays of one number, a reward where there is no mass."""
    one = np.array(1.0)
    assert preferences.anchored_rate(one, np.float32(1)) == 0.5
    assert preferences.nash_md_bound(1, np.int64(3), one) == 8.0
    assert preferences.local_threshold(RPS, THREE, np.array(2.0)) == 0.0
    assert preferences.local_growth(RPS, THREE, [1.0, 2.0], one).shape == (2,)
    assert preferences.log_partition([2.0, nan], [1.0, 0.0], 1) == 2.0
    assert preferences.average_gap_bound(RPS, THREE, np.array([1, 2]), np.int64(2)) > 0

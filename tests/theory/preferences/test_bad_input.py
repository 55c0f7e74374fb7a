"""Wrong calls of preferences: each is refused before any work, in words that help."""

from __future__ import annotations

import pytest

from tests.theory.wrong_calls import RPS, SPIF, THREE, Call, Calls, P, get, refused
from theory import preferences

CALLS: Calls = {
    "nash: no preference": (
        lambda: preferences.nash([[0.5, 0.2], [0.2, 0.5]]),
        r"P: P \+ P\^T at \(0, 1\) .*needed is P\(y > y'\) \+ P\(y' > y\) = 1",
    ),
    "nash: out of range": (
        lambda: preferences.nash([[0.5, 1.2], [-0.2, 0.5]]),
        r"P: out of range at \(0, 1\) \(1\.2.*needed is a value in \[0, 1\]",
    ),
    "nash: a row": (
        lambda: preferences.nash([0.5, 0.5]),
        r"P: shape \(2,\); needed is \(\.\.\., n, n\) with n >= 1",
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
    # all problems at once
    "preferences.self_play: all at once": (
        lambda: preferences.self_play(RPS, THREE, SPIF, -1.0, -3, tau=-1.0),
        ["rounds=-3", "beta=-1.0", "tau=-1.0"],
    ),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, said: str | list[str]) -> None:
    refused(call, said)

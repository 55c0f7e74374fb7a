"""Wrong calls of equilibria: each is refused before any work, in words that help."""

from __future__ import annotations

import numpy as np
import pytest

from tests.theory.wrong_calls import SPIF, SPIN, SPPO, TSPIN, Call, Calls, P, Q, get, refused
from theory import equilibrium, saddle_point

OF_BOTH = {
    "obj": ({"obj": "spiff"}, "unknown objective 'spiff'"),
    "expert: sum": ({"expert": [0.5, 0.6]}, "expert: sums to 1.1"),
    "expert: NaN": ({"expert": [0.5, np.nan]}, r"expert: not finite at \(1,\)"),
    "expert: text": ({"expert": "text"}, "expert: not an array of numbers"),
    "ref: negative": ({"ref": [1.5, -0.5]}, r"ref: negative at \(1,\)"),
    "ref: outcomes": ({"ref": [0.2, 0.3, 0.5]}, "laws differ in the number of outcomes"),
    "prompts": (
        {"expert": np.full((2, 2), 0.5), "ref": np.full((3, 2), 0.5)},
        "prompt axes do not broadcast",
    ),
    "tau: negative": ({"tau": -0.1}, r"tau=-0\.1; needed is a finite number >= 0"),
    "tau: infinite": ({"tau": np.inf}, "tau=inf"),
    "tau: NaN": ({"tau": np.nan}, "tau=nan"),
    "tau: a truth value": ({"tau": True}, "tau=True"),
    "tau: text": ({"tau": "x"}, "tau='x'; needed is a finite number >= 0"),
    "method": ({"method": "slow"}, "method='slow'; needed is one of 'fast', 'convex'"),
    "tolerance": (
        {"tolerance": 0.0},
        r"tolerance=0\.0; needed is a finite number > 0 or None",
    ),
    "iterations": ({"max_iterations": 0}, "max_iterations=0; needed is a whole number >= 1"),
}
CALLS: Calls = {
    "saddle_point: pairwise": (
        lambda: saddle_point(P, Q, SPIN),
        r"spin has no saddle: .* use equilibrium",
    ),
    "equilibrium: no link": (
        lambda: equilibrium(P, Q, TSPIN),
        r"tspin has no equilibrium: no link, as reference-free",
    ),
    "equilibrium: moving opponent": (
        lambda: equilibrium(P, Q, get("alpha_spin")),
        r"alpha_spin has no equilibrium: the fixed point depends on beta and on the base",
    ),
    "equilibrium: preference": (
        lambda: equilibrium(P, Q, SPPO),
        r"sppo has no equilibrium of imitation: .* use preferences\.nash",
    ),
    "saddle_point: all at once": (
        lambda: saddle_point(
            [0.5, 0.6], [-1, 2], SPIF, tau=-1, method="slow", tolerance=-1, max_iterations=0.5
        ),
        ["expert: sums", "ref: negative", "tau=-1", "method='slow'", "tolerance=-1", "max_iter"],
    ),
}


@pytest.mark.parametrize("solve", [saddle_point, equilibrium])
@pytest.mark.parametrize(("changed", "said"), OF_BOTH.values(), ids=OF_BOTH)
def test_wrong_argument(solve, changed: dict[str, object], said: str) -> None:
    call = {"expert": P, "ref": Q, "obj": SPIF, "tau": 0.1, **changed}
    refused(lambda: solve(**call), said)


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, said: str | list[str]) -> None:
    refused(call, said)

"""Wrong calls of equilibria: each is refused before any work, in words that help."""

from __future__ import annotations

import pytest

from tests.theory.wrong_calls import (
    SPIF,
    SPIN,
    SPPO,
    TSPIN,
    Call,
    Calls,
    P,
    Q,
    get,
    refused,
)  # fmt: skip
from theory import equilibrium, saddle_point

CALLS: Calls = {
    "saddle_point: a name": (
        lambda: saddle_point(P, Q, "spiff"),
        r"unknown objective 'spiff'",
    ),
    "saddle_point: tau": (
        lambda: saddle_point(P, Q, SPIF, tau="x"),
        r"tau='x'; needed is a finite number >= 0",
    ),
    "saddle_point: method": (
        lambda: saddle_point(P, Q, SPIF, method="slow"),
        r"method='slow'; needed is one of 'fast', 'convex'",
    ),
    "saddle_point: tolerance": (
        lambda: saddle_point(P, Q, SPIF, tolerance=0.0),
        r"tolerance=0\.0; needed is a finite number > 0 or None",
    ),
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
    # all problems at once
    "saddle_point: all at once": (
        lambda: saddle_point([0.5, 0.6], [-1, 2], SPIF, tau=-1, method="slow", tolerance=-1),
        ["expert: sums", "ref: negative", "tau=-1", "method='slow'", "tolerance=-1"],
    ),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, said: str | list[str]) -> None:
    refused(call, said)

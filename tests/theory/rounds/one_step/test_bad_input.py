"""One-step rounds that cannot be: wrong calls, no convergence, no partition function."""

from __future__ import annotations

import numpy as np
import pytest

from tests.theory.rounds.one_step.minimisers import SPIF, SPIN
from theory import laws, objectives
from theory.errors import InvalidInput, NotConverged, Unavailable
from theory.rounds.one_step import one_step_round, partition_gap

LAW = np.array([0.5, 0.5])
WRONG = [
    ({"obj": 1}, "needed is an objective"),
    ({"beta": 0.0}, "beta=0.0"),
    ({"beta": np.nan}, "beta=nan"),
    ({"tau": -1.0}, "tau=-1.0"),
    ({"tau": 0.5}, "needs ref"),
    ({"branch": "far"}, "'near', 'global'"),
    ({"history": LAW}, "history: spif does not take it"),
    ({"preference": LAW}, "preference: spif does not take it"),
    ({"obj": objectives.get("tspin")}, "history: tspin needs it"),
    ({"obj": objectives.get("sppo")}, "preference: sppo needs it"),
    ({"obj": objectives.get("sppo"), "preference": LAW + 1}, "outside"),
    ({"obj": objectives.get("tspin"), "history": LAW, "tau": 0.1, "ref": LAW}, "reference-free"),
    ({"expert": np.array([0.5, 0.6])}, "sums to 1.1"),
    ({"ref": np.array([1.0, 0.0]), "tau": 0.1}, "support"),
    ({"obj": SPIN, "expert": np.eye(2)[0], "policy": np.eye(2)[1]}, "no law follows"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[m for _, m in WRONG])
def test_wrong_calls(change, message):
    call = {"expert": LAW, "policy": LAW, "obj": SPIF, "beta": 1.0} | change
    with pytest.raises(InvalidInput, match=message):
        one_step_round(**call)


def test_not_converged_carries_what_there_is():
    rng = np.random.default_rng(0)
    p, q = laws.random_law(rng, (1, 50), 100.0), laws.random_law(rng, (1, 50), 100.0)
    with pytest.raises(NotConverged, match="not converged") as error:
        one_step_round(p, q, objectives.get("iq_learn"), 0.1)
    assert not error.value.solution.converged.all()


def test_partition_gap_needs_a_level():
    with pytest.raises(Unavailable, match="up to a constant"):
        partition_gap(LAW, LAW, objectives.get("spin"), 1.0)

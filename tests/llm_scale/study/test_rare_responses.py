"""The largest reward may be that of a response which only one of the two laws gives."""

import numpy as np
import pytest

from llm_scale.study import columns
from theory import objectives


@pytest.mark.parametrize(("first", "second"), [(1e-5, 0.4), (0.4, 1e-5)])
def test_a_response_rare_under_one_law_alone_is_inside(first, second):
    """The step takes 999 parts of 1000 from it."""

    def with_last(mass):
        return np.array([[(1 - mass) / 2, (1 - mass) / 2, mass]])

    p, q, new = with_last(first), with_last(second), with_last(second / 1000)
    logs = [np.log(x) for x in (p, q, new)]
    row = columns.rewards(*logs, objectives.get("spin"), 0.7, (2, 3))
    assert row["max_reward"] == pytest.approx(0.7 * np.log(1000.0))
    assert row["max_reward_outside"] == 0.0
    divided = columns.divergences(*logs)
    assert divided["max_u"] == pytest.approx(abs(np.log(first / second * 1000)))
    assert divided["outside"] == divided["outside_expert"] == 0.0


def test_mass_that_moves_to_what_neither_law_gives_is_outside():
    """0.3 of one prompt and 0.1 of the other; 2e-5 and 4e-5 before, 6e-5 and 2e-5 of the expert."""

    def laws(*last):
        return np.array([[0.25 * (1 - x), 0.75 * (1 - x), x] for x in last])

    p, q, new = laws(6e-5, 2e-5), laws(2e-5, 4e-5), laws(0.3, 0.1)
    logs = [np.log(x) for x in (p, q, new)]
    row = columns.divergences(*logs)
    assert row["outside"] == pytest.approx(0.2)
    assert row["outside_before"] == pytest.approx(3e-5)
    assert row["outside_expert"] == pytest.approx(4e-5)
    row = columns.rewards(*logs, objectives.get("spin"), 2.0, (2, 3))
    assert row["max_reward_outside"] == pytest.approx(2 * np.log(0.3 / 2e-5))
    exact = np.sqrt(p * q)
    exact = exact / exact.sum(-1, keepdims=True)
    assert row["outside_link"] == pytest.approx(exact[:, 2].mean())
    assert row["outside_predicted"] == pytest.approx(exact[:, 2].mean())

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

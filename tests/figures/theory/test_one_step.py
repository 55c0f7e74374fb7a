"""What the figure "one_step" shows is true of the numbers that it is drawn from."""

import numpy as np

from figures.theory import one_step as figure
from figures.tidy import MEASURED
from tests.figures.tables import checked, matched


def test_one_step():
    table = checked(figure.table())
    gap = matched(table, "gap")
    np.testing.assert_allclose(gap[gap.x < 1e-3].y, gap[gap.x < 1e-3].theory, rtol=0.05)
    cost = matched(table, "cost")
    np.testing.assert_allclose(cost[cost.x < 1e-3].y, cost[cost.x < 1e-3].theory, rtol=0.05)
    measured = table[(table.panel == "cost") & (table.kind == MEASURED)]
    assert measured[measured.objective != "spif"].y.max() < 1e-14
    even = measured[(measured.objective == "spif") & (measured.series == "1")]
    slope = np.polyfit(np.log(even.x[:5]), np.log(even.y[:5]), 1)[0]
    assert abs(slope - 2.0) < 0.01
    mass = table[(table.panel == "mass") & (table.kind == MEASURED)]
    np.testing.assert_allclose(mass.y, mass.x, rtol=2e-3)
    found = table[table.panel == "example"].set_index("series").x
    assert abs(found["one-step SPIF, global optimum"] - 0.0202) < 5e-5
    assert (found[~found.index.str.contains("global")] < 1.1e-9).all()
    reward = matched(table, "reward")
    np.testing.assert_allclose(reward.y, reward.theory, rtol=5e-3)  # as the mass tends to 0
    part = table[(table.panel == "reward") & (table.kind == MEASURED)]
    bounded = part[(part.series == "two steps") | (part.objective == "centred_spif")]
    assert len(bounded) == 18
    assert (bounded.y <= 1.0).all()

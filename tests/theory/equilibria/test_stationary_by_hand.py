"""Equilibria of small games: every used response has one and the same advantage."""

import numpy as np
import pytest

from theory import equilibrium, objectives, saddle_point
from theory.equilibria import newton
from theory.equilibria.problem import checked

P = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.6, 0.0, 0.3]])
REF = np.array([[0.1, 0.4, 0.2, 0.3], [0.3, 0.3, 0.4, 0.0]])


@pytest.mark.parametrize("tau", [0.02, 0.3, 5.0])
def test_spifs_pay_less_the_anchors_is_level(tau):
    """R = tanh(u/2), -1 where the expert gives nothing; against the reward, r + r^2/2."""
    for solve, pay in ((equilibrium, lambda r: r), (saddle_point, lambda r: r + r**2 / 2)):
        found = solve(P, REF, objectives.get("spif"), tau).policy
        reward = (P - found) / np.where(P + found > 0, P + found, 1.0)
        for i, used in enumerate(REF > 0):
            level = pay(reward[i, used]) - tau * np.log(found[i, used] / REF[i, used])
            np.testing.assert_allclose(level, level[0], atol=1e-9)
        assert (found[REF == 0] == 0).all()
        np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-12)


def test_spins_equilibrium_is_the_geometric_mixture():
    p, ref, tau = P[:1, :3], REF[:1, :3] / 0.7, 0.25
    mixture = p ** (1 / 1.25) * ref ** (0.25 / 1.25)
    found = equilibrium(p, ref, objectives.get("spin"), tau)
    np.testing.assert_allclose(found.policy, mixture / mixture.sum(), atol=1e-12)
    assert (found.gap <= 1e-12).all()


def test_a_step_ahead_with_a_point_before_is_of_second_order():
    """Errors of multiplier and log-ratios fall by eight when both steps are halved, not by four."""

    def errors(step):
        laws, spif = (P[:1, :3], REF[:1, :3] / 0.7), objectives.get("spif")
        problems = [
            checked("saddle", *laws, spif, 0.3 * np.exp(x), "fast", None, 100).separable()
            for x in (-step, 0.0, step)
        ]
        back, here, there = (newton.trace(problem) for problem in problems)
        plain, bent = here.ahead(step), here.ahead(step, (step, back))
        return [np.abs(x - y).max() for found in (plain, bent)
                for x, y in zip(found, (there.c, there.u), strict=True)]  # fmt: skip

    orders = np.log2(np.array(errors(0.1)) / np.array(errors(0.05)))
    np.testing.assert_allclose(orders[:2], 2.0, atol=0.2)
    np.testing.assert_allclose(orders[2:], 3.0, atol=0.3)

"""T6's and T12 c's constants against worst cases over all kernels, found by PEPit."""

import math
import sys
from types import SimpleNamespace

import pytest

from theory import InvalidInput, Unavailable, worst_case
from theory.errors import NotConverged

CLASSES = [(1.0, 0.0), (1.0, 0.2), (2.0, 0.5)]  # (L, mu)


def tight(claim, found: worst_case.WorstCase, what: str) -> None:
    """Dual, primal and theorem agree: no constant is better over the class, and this one holds."""
    for side in ("computed", "attained"):
        claim.close(
            getattr(found, side), found.theorem, 1e-6, 1e-4, what=f"{what}: {side}",
            because="solver",
        )  # fmt: skip


@pytest.mark.claim("T6.worst_case", regime="tabular")
@pytest.mark.parametrize(("L", "mu"), CLASSES)
@pytest.mark.parametrize("symmetry", [0.0, 0.5, 1.0])
def test_descent_iff_beta_is_at_least_its_threshold(claim, L, mu, symmetry):
    edge = L / (1 + symmetry)
    for beta in (0.7 * edge, 0.95 * edge, edge, 1.5 * edge):
        found = worst_case.descent(L, beta, mu, symmetry)
        tight(claim, found, "largest rise of a round")
        assert (found.attained > 1e-3 * L) == (beta < edge)  # below it a round can climb


@pytest.mark.claim("T6.worst_case", regime="tabular")
@pytest.mark.parametrize(("L", "mu"), CLASSES)
@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_values_and_contraction(claim, L, mu, tau):
    for beta in (L, 1.7 * L):
        for rounds in (1, 2, 4):
            found = worst_case.value(L, beta, rounds, mu, tau)
            tight(claim, found, "value: (mu+tau)/(((beta+tau)/(beta-mu))^T - 1), beta/T at 0")
            found = worst_case.contraction(L, beta, mu, tau, rounds)
            tight(claim, found, "contraction: ((beta-mu)/(beta+tau))^T")
        found = worst_case.contraction(L, beta, mu, tau, with_value=True)
        tight(claim, found, "contraction with the value")


@pytest.mark.claim("T6.worst_case_loose", regime="tabular")
def test_one_over_t_is_loose_where_mu_is_positive(claim):
    mu = 0.2
    for rounds in (1, 2, 4, 8):
        found = worst_case.value(1.0, 1.0, rounds, mu, plain=True)
        exact = mu / ((1 / (1 - mu)) ** rounds - 1)
        assert found.theorem == 1 / rounds
        assert found.computed == pytest.approx(exact, rel=1e-4)
        claim.exhibits(found.theorem / found.computed, 1.24, what="beta/T over the worst value")


@pytest.mark.claim("T6.worst_case", regime="tabular", drops="beta_at_least_L")
@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_below_l_nothing_is_bounded_over_all_kernels(claim, tau):
    for found in (
        worst_case.value(1.0, 0.9, 1, 0.2, tau),
        worst_case.contraction(1.0, 0.9, 0.2, tau),
    ):
        claim.exact(found.computed == math.inf, "no bound below L")
        assert math.isnan(found.theorem)


@pytest.mark.claim("T12.worst_case", regime="tabular")
@pytest.mark.parametrize(("norm", "tau"), [(1.0, 0.5), (1.0, 0.2), (2.0, 1.0)])
def test_anchored_preference_rounds(claim, norm, tau):
    for share in (0.2, 0.5, 0.9, 1.0, 1.5, 3.0):
        beta = share * norm**2 / tau
        found = worst_case.preference_contraction(norm, beta, tau)
        quadratic = (beta**2 + norm**2) / (beta + tau) ** 2  # what the kernel |x|^2/2 attains
        expected = max(beta / (beta + tau), quadratic)
        what = "max(beta/(beta+tau), (beta^2+Lip^2)/(beta+tau)^2)"
        claim.close(found.computed, expected, 0.0, 1e-4, what=what, because="solver")
        if share >= 1:
            tight(claim, found, "1/(1 + tau/beta) within the step condition")
        else:
            assert math.isnan(found.theorem)
            assert found.attained > 1.001 * beta / (beta + tau)


def test_wrong_arguments_and_a_missing_package(monkeypatch):
    with pytest.raises(InvalidInput, match="mu < L"):
        worst_case.value(1.0, 2.0, 1, mu=1.0)
    with pytest.raises(InvalidInput, match="symmetry"):
        worst_case.descent(1.0, 1.0, symmetry=2.0)
    monkeypatch.setitem(sys.modules, "PEPit", None)
    with pytest.raises(Unavailable, match="pip install pepit"):
        worst_case.descent(1.0, 1.0)


def test_a_solvers_gap_is_judged_by_the_size_of_the_value():
    def solved(proved, attained):
        found = SimpleNamespace(status="optimal", value=attained)
        wrapper = SimpleNamespace(prob=found)
        return worst_case._solved(SimpleNamespace(solve=lambda **_: proved, wrapper=wrapper), 1.0)

    assert solved(400.01, 400.0).computed == 400.01
    assert solved(0.00101, 0.001).attained == 0.001
    for proved, attained in ((400.05, 400.0), (0.0012, 0.001), (1.0, None), (None, 1.0)):
        with pytest.raises(NotConverged, match="gap"):
            solved(proved, attained)

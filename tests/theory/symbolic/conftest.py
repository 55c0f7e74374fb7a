import pytest

from tests.theory.symbolic.algebra import read_by_sympy


@pytest.fixture(autouse=True)
def _formulas_read_by_sympy(monkeypatch):
    read_by_sympy(monkeypatch)

import pytest

from tests.theory.symbolic.algebra import read_by_sympy
from theory import objectives

# What objectives lack is kept by the process once it was asked for, and numpy is to be asked.
for name in objectives.names():
    objectives.get(name).missing("link")


@pytest.fixture(autouse=True)
def _formulas_read_by_sympy(monkeypatch):
    read_by_sympy(monkeypatch)

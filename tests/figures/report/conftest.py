"""The committed evidence, gathered once: its comparisons over all cells take ten seconds."""

import pytest

from figures.report import build


@pytest.fixture(scope="session")
def evidence():
    return build.gather()

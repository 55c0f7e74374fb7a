"""Settings shared by all tests: hypothesis profiles and the recording of evidence."""

import functools
import gc
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from lab.files import folder_problems
from theory.objectives import registry
from theory.tokens import text

pytest_plugins = ["pytester", "lab.evidence_plugin"]

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "test")

# A checkout that cannot be written (a read-only mount, another user's) keeps no examples, of which
# hypothesis would warn in the middle of some test.
if folder_problems(Path(os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis"))):
    ELSEWHERE = tempfile.TemporaryDirectory(prefix="hypothesis-")
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = ELSEWHERE.name

# `claim` is function-scoped on purpose: it gathers what all examples of one test measured.
_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
# New examples at every run here, the same ones on a build server: a rare draw is found by people.
# What fails at few draws only is found by the many of `make evidence`.
SERVER = os.environ.get("CI", "").lower() in ("1", "true")
settings.register_profile("test", max_examples=10, derandomize=SERVER, **_COMMON)
settings.register_profile("evidence", max_examples=60, derandomize=True, **_COMMON)
# A broken formula need not be explained by a small example.
settings.register_profile(
    "mutate",
    max_examples=6,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
    **_COMMON,
)
settings.load_profile(PROFILE)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection():
    """Thousands of tests that live to the end: to look again and again whether one of them is
    garbage would be a quarter of the time of collecting them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _shipped_text_read_once():
    """Whatever plays on the shipped text parses its 30,000 lines of JSON; here once a process."""
    real, kept = text.json_lines, functools.cache(text.json_lines)

    def json_lines(path, *asked):
        return (kept if path == text.SHIPPED else real)(path, *asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "json_lines", json_lines)
        yield


@pytest.fixture(autouse=True, scope="module")
def _objectives_of_a_module():
    """What a module's fixtures register is gone after it."""
    with registry.kept():
        yield


@pytest.fixture(autouse=True)
def _objectives_of_a_test():
    """A user's objective, however bad, is gone after the test that loads it."""
    with registry.kept():
        yield

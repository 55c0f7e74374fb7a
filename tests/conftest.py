"""Settings shared by all tests: hypothesis profiles and the recording of evidence."""

import os

from hypothesis import HealthCheck, Phase, settings

pytest_plugins = ["pytester", "lab.evidence_plugin"]

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "test")

# `claim` is function-scoped on purpose: it gathers what all examples of one test measured.
_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile("test", max_examples=15, **_COMMON)
settings.register_profile("evidence", max_examples=60, derandomize=True, **_COMMON)
# A broken formula need not be explained by a small example.
settings.register_profile(
    "mutate",
    max_examples=15,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
    **_COMMON,
)
settings.load_profile(PROFILE)

"""The plugin that records evidence, on small suites of its own."""

import json

import numpy as np
import pytest

from lab.evidence import ClaimRecorder, rounded

PLUGINS = ["-p", "lab.evidence_plugin", "-p", "no:cacheprovider"]


@pytest.fixture
def run(pytester, monkeypatch):
    """Run a test file under the plugin alone, as a whole suite; returns its outcome and record."""
    monkeypatch.setenv("HYPOTHESIS_PROFILE", "evidence")
    monkeypatch.setenv("PYTHONPATH", str(pytest.importorskip("lab.evidence").__file__ + "/../.."))
    pytester.makeini("[pytest]\ntestpaths = suite\naddopts = --strict-markers\n")

    def run(source, *args, in_process=True):
        path = pytester.path / "suite" / "test_it.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "import pytest\nC = pytest.mark.claim\nM = C('T1.x', regime='tabular')\n" + source
        )
        record = pytester.path / "out" / "evidence.json"
        start = pytester.runpytest_inprocess if in_process else pytester.runpytest_subprocess
        result = start(*PLUGINS, f"--evidence={record}", *args)
        return result, json.loads(record.read_text()) if record.exists() else None

    return run


GREEN = """
@C("T6.descent", "T5.mirror_descent", regime="tabular")
@pytest.mark.parametrize("size", [1e-9, 4e-9, 2e-9])
def test_b(claim, size):
    for scale in (1, 2):
        claim.close(scale * size, 0, atol=1e-8, what="KL")
        claim.below([0.5, 0.7], 1.0, what="rate")

@C("T8.bounded", regime="tabular", drops="two_step")
def test_a(claim):
    claim.exhibits(9.123456, 1.0, what="factor")

def test_of_no_claim():
    pass
"""


def test_a_green_whole_run_is_recorded(run):
    result, evidence = run(GREEN)
    result.assert_outcomes(passed=5)
    assert [r["test"].split("::")[1] for r in evidence["records"]] == [
        "test_a", "test_b[1e-09]", "test_b[2e-09]", "test_b[4e-09]",
    ]  # fmt: skip
    assert evidence["records"][0] == {
        "test": "suite/test_it.py::test_a", "outcome": "passed", "clauses": ["T8.bounded"],
        "regime": "tabular", "drops": "two_step", "refutes": False, "of": "games", "instances": 1,
        "checks": [{"check": "exhibits", "what": "factor", "because": "chosen", "instances": 1,
                    "worst": {"value": 9.12, "at_least": 1.0}}],
    }  # fmt: skip
    last = evidence["records"][-1]
    assert last["clauses"] == ["T5.mirror_descent", "T6.descent"]
    assert last["instances"] == 2  # two examples, not two times two checks
    assert [check["worst"] for check in last["checks"]] == [
        {"slack": 0.3, "bound": 1.0, "allowed": 0.0},
        {"error": 8e-9, "tolerance": 1e-8},
    ]
    assert set(evidence["provenance"]["code"]) == {"theory", "lab", "toy_games", "llm_scale"}


def test_processes_give_the_same_record_as_one(run):
    _, alone = run(GREEN)
    result, together = run(GREEN, "-n2", in_process=False)
    result.assert_outcomes(passed=5)
    assert together == alone


@pytest.mark.parametrize(
    ("extra", "args", "reason"),
    [
        ("@M\ndef test_r(claim): claim.exact(0, 'x')", [], "test_r failed"),
        ("@M\ndef test_red(claim, absent): pass", [], "test_red failed"),
        ("@pytest.mark.xfail\n@M\ndef test_x(claim): claim.close(1, 2, atol=0)",
         [], "test_x failed"),
        ("", ["-k", "test_a"], "option keyword selects"),
        ("", ["-k", "test_a"], "3 tests of claims were deselected"),
        ("", ["-m", "not claim"], "option markexpr selects"),
        ("", ["--deselect", "suite/test_it.py::test_a"], "option deselect selects"),
        ("", ["suite/test_it.py"], "tests were named on the command line"),
        ("def test_0(): assert 0", ["-x"], "the run was stopped early"),
        ("raise ValueError", [], "could not collect suite/test_it.py"),
    ],
)  # fmt: skip
def test_a_partial_or_red_run_is_refused_with_the_reason(run, extra, args, reason):
    result, evidence = run(extra + "\n" + GREEN, *args)
    assert evidence is None
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*NOT written*", f"*{reason}*"])


def test_a_red_test_of_no_claim_does_not_lose_the_record(run):
    result, evidence = run(GREEN + "\ndef test_other(): assert 0")
    assert result.ret == 1
    assert len(evidence["records"]) == 4


def test_the_tests_of_claims_alone_are_a_whole_run(run):
    result, evidence = run(GREEN, "-m", "claim")
    result.assert_outcomes(passed=4, deselected=1)
    assert evidence == run(GREEN)[1]


def test_a_skipped_test_is_recorded_as_skipped_and_measures_nothing(run):
    skipped = "\n@C('T2.gibbs', regime='tabular')\ndef test_s(claim): pytest.skip('no device')"
    _, evidence = run(GREEN + skipped)
    (record,) = [r for r in evidence["records"] if r["clauses"] == ["T2.gibbs"]]
    assert (record["outcome"], record["instances"]) == ("skipped", 0)


def test_the_profile_is_demanded(run, monkeypatch):
    monkeypatch.setenv("HYPOTHESIS_PROFILE", "test")
    result, evidence = run(GREEN)
    assert evidence is None
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("body", ["def test_it(claim): pass", "def test_it(): pass"])
def test_a_claim_that_measures_nothing_fails(run, body):
    result, _ = run(f"@C('T1.x', regime='tabular')\n{body}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no claim.[*] check measured anything*"])


def test_hypothesis_examples_are_counted(run):
    _, evidence = run("""
from hypothesis import given, settings, HealthCheck, strategies as st

@C("T1.x", regime="tabular")
@settings(max_examples=7, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.floats(0, 1))
def test_h(claim, x):
    claim.close(x, x, atol=1e-12)
""")
    assert evidence["records"][0]["instances"] == 7


def test_the_fixture_without_the_marker_is_refused(run):
    result, _ = run("def test_it(claim): claim.exact(True, 'x')")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*needs @pytest.mark.claim*"])


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("C('T1', regime='tabular')", "'T1' is no clause"),
        ("C('X1.a', 'C7.', regime='tabular')", "'X1.a' is no clause*'C7.' is no clause"),
        ("C(regime='tabular')", "no clause"),
        ("C('T1.x')", "regime='' is none of symbolic"),
        ("C('T1.x', regime='hearsay')", "regime='hearsay'"),
        ("C('T1.x', regime='tabular', drops='room', refutes=True)", "does not refute"),
        ("C('T1.x', regime='tabular', colour='red')", "colour"),
        ("C('T1.x', regime='tabular')\n@C('T2.x', regime='tabular')", "one claim marker a test"),
    ],
)
@pytest.mark.parametrize(
    "where",
    ["@{}\ndef test_it(claim): pass", "@{}\nclass TestIt:\n    def test_it(self, claim): pass"],
)
def test_a_wrong_marker_is_a_collection_error(run, marker, message, where):
    result, _ = run(where.format(marker))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*test_it: claim marker: *{message}*"])


# --- the checks ---------------------------------------------------------------------------------

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("check", "args"),
    [
        ("close", (1.0, 1.1, 0.05)),
        ("close", ([1.0, 2.0], [1.0, 2.2], 0.1, 0.01)),
        ("close", (NAN, 1.0, 10.0)),
        ("close", (NAN, NAN, 10.0)),
        ("close", (INF, 1.0, 10.0)),
        ("close", (1.0, INF, 10.0, 1.0)),
        ("close", (INF, -INF, 10.0, 1.0)),
        ("close", ([], [], 1.0)),
        ("close", (1.0, [1.0, 1.0], 1.0)),
        ("close", ([1.0, 1.0], [1.0, 1.0, 1.0], 1.0)),
        ("below", (1.1, 1.0)),
        ("below", ([0.0, NAN], 1.0)),
        ("below", (1.0, NAN)),
        ("below", (INF, 1.0)),
        ("exhibits", (0.9, 1.0)),
        ("exhibits", ([2.0, 0.9], 1.0)),
        ("exhibits", (NAN, 1.0)),
        ("exhibits", (1.0, -INF)),
        ("exact", (False, "x")),
        ("exact", (np.bool_(False), "x")),
    ],
)
def test_what_must_fail_fails(check, args):
    more = {} if check == "exact" else {"because": "chosen"}
    with pytest.raises(AssertionError):
        getattr(ClaimRecorder(), check)(*args, **more)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.close(1.0, 1.0, atol=1e-3, what="KL"), "KL: a tolerance of 1.0e-03 is more"),
        (lambda c: c.close(1.0, 1.0, atol=0, rtol=1e-5), "more than rounding"),
        (lambda c: c.below(1.0, 2.0, atol=0.1), "more than rounding"),
        (lambda c: c.exhibits(1.0, 0.5, because="luck"), "because='luck' is none of rounding"),
    ],
)
def test_a_tolerance_has_a_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call(ClaimRecorder())


def test_what_must_pass_passes_and_the_worst_is_kept():
    claim = ClaimRecorder()
    claim.close([1.0, INF], [1.0 + 1e-9, INF], atol=1e-8)
    claim.close(np.zeros((2, 3)), np.zeros(3), atol=0)
    claim.close(100.0, 100.5, atol=0, rtol=0.01, because="chosen")
    claim.close(1.0, 1.0, atol=1e-8)
    claim.below([1.0, 3.0], [2.0, INF], atol=0)
    claim.below(2.0 + 1e-13, 2.0, atol=1e-12)
    claim.below(7.0, INF)
    claim.exhibits([3.0, 5.0], 1.0)
    claim.exhibits(4.0, 1.0)
    claim.exact(np.bool_(True), "identity")
    worst = {name: check.worst for (name, _), check in claim.checks.items()}
    assert worst["close"] == pytest.approx({"error": 0.5, "tolerance": 1.005})
    assert worst["below"] == pytest.approx(
        {"slack": 0.0, "bound": 2.0, "allowed": 1e-12}, abs=1e-12
    )
    assert worst["exhibits"] == {"value": 3.0, "at_least": 1.0}
    counts = {name: check.instances for (name, _), check in claim.checks.items()}
    assert counts == {"close": 4, "below": 2, "exhibits": 2, "exact": 1}
    assert claim.instances == 4


def test_tensors_are_compared_too():
    torch = pytest.importorskip("torch")
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    ClaimRecorder().close(x, np.ones(3), atol=0)


def test_margins_are_rounded_to_what_can_be_repeated():
    assert rounded({"a": [1.23456e-9, INF, 3], "b": ("x", True)}) == {
        "a": [1.23e-9, "inf", 3],
        "b": ["x", True],
    }

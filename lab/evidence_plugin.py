"""Pytest plugin: a test that carries a claim's id measures something, and that is recorded.

    @pytest.mark.claim("T6.descent", regime="tabular")   # drops="exact_laws", refutes=True
    def test_kl_is_monotone(claim):
        claim.below(kl_after, kl_before, what="KL after a round")

`-m claim --evidence=PATH` writes the records of a whole, green run.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lab.evidence import PROFILE, ClaimRecorder, marked, provenance, write_record

_RECORDER = pytest.StashKey[ClaimRecorder]()
_PROPERTY = "claim"


@pytest.fixture
def claim(request: pytest.FixtureRequest) -> ClaimRecorder:
    """Assertions that record their margins; only for tests marked with a claim."""
    if request.node.get_closest_marker("claim") is None:
        pytest.fail("the fixture `claim` needs @pytest.mark.claim(...) on the test", pytrace=False)
    return request.node.stash.setdefault(_RECORDER, ClaimRecorder())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--evidence", metavar="PATH", help="write the claims' records to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "claim(*clauses, regime, drops='', refutes=False, of=''): the test is evidence for them",
    )
    path = config.getoption("--evidence")
    if path and not hasattr(config, "workerinput"):
        if os.environ.get("HYPOTHESIS_PROFILE") != PROFILE:
            raise pytest.UsageError(f"--evidence needs HYPOTHESIS_PROFILE={PROFILE}")
        config.pluginmanager.register(_Writer(config, Path(path)), "evidence-writer")


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: pytest.Collector) -> Generator[None, Any, Any]:
    made = yield
    for item in made if isinstance(made, list) else []:
        markers = list(item.iter_markers("claim")) if isinstance(item, pytest.Item) else []
        if not markers:
            continue
        try:
            if len(markers) > 1:
                raise ValueError("one claim marker a test: give it all the ids")
            record = marked(*markers[0].args, **markers[0].kwargs)
        except (TypeError, ValueError) as error:
            raise collector.CollectError(f"{item.nodeid}: claim marker: {error}") from None
        item.user_properties.append((_PROPERTY, record))
    return made


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    result = yield
    record = dict(pyfuncitem.user_properties).get(_PROPERTY)
    if record is None:
        return result
    recorder = pyfuncitem.stash.get(_RECORDER, ClaimRecorder())
    assert isinstance(record, dict)
    record["instances"] = recorder.instances
    record["checks"] = [asdict(c) for _, c in sorted(recorder.checks.items())]
    if not recorder.instances:
        pytest.fail("marked with a claim, but no claim.* check measured anything", pytrace=False)
    return result


class _Writer:
    """Gathers the records where the run is controlled, and writes them if the run was whole."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config, self.path = config, path
        self.records: list[dict[str, Any]] = []
        self.refusals: list[str] = []

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        lost = [item for item in items if item.get_closest_marker("claim")]
        if lost:
            self.refusals.append(f"{len(lost)} tests of claims were deselected")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.refusals.append(f"could not collect {report.nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        record = dict(report.user_properties).get(_PROPERTY)
        if not isinstance(record, dict):
            return
        if report.failed or hasattr(report, "wasxfail"):
            self.refusals.append(f"{report.nodeid} failed")
        elif report.skipped or report.when == "call":
            self.records.append({"test": report.nodeid, "outcome": report.outcome, **record})

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        options = self.config.option
        narrowed = ["keyword", "markexpr", "deselect", "lf", "stepwise", "ignore", "ignore_glob"]
        self.refusals += [
            f"option {name} selects"
            for name in narrowed
            if getattr(options, name, None) and (name, options.markexpr) != ("markexpr", "claim")
        ]
        if self.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
            self.refusals.append("tests were named on the command line")
        if session.shouldstop or session.shouldfail:
            self.refusals.append("the run was stopped early")
        if not self.records:
            self.refusals.append("no test of a claim ran")
        if self.refusals:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        else:
            records = sorted(self.records, key=lambda record: record["test"])
            where = provenance(self.config.rootpath)
            write_record(self.path, where, records)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("evidence")
        if self.refusals:
            terminalreporter.line(f"{self.path} NOT written; it records a whole, green run:")
            for refusal in sorted(set(self.refusals))[:20]:
                terminalreporter.line(f"  {refusal}")
        else:
            terminalreporter.line(f"{self.path}: {len(self.records)} tests of claims recorded")

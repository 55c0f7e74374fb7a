"""Pytest plugin: a test that carries a claim's id measures something, and that is recorded.

    @pytest.mark.claim("T6", rung="exact")            # kind="supports" | "necessity" | "refutes"
    def test_kl_is_monotone(claim):
        claim.below(kl_after, kl_before, what="KL after a round")

`-m claim --evidence=PATH` writes the records of a whole, green run. The verdicts are computed from
them in `figures/report/render.py`; nothing here judges a claim.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.files import source_digest, versions, write_whole

CLAIMS = tuple(
    f"{letter}{i}" for letter, n in (("C", 6), ("T", 17), ("S", 8)) for i in range(1, n + 1)
)
RUNGS = ("symbolic", "exact", "dynamics", "language model")
KINDS = ("supports", "necessity", "refutes")
PROFILE = "evidence"
PACKAGES = ("cvxpy", "clarabel", "hypothesis", "numpy", "scipy", "sympy", "torch")

_RECORDS = pytest.StashKey[list[dict[str, Any]]]()
_RECORDER = pytest.StashKey["Claim"]()
_PROPERTY = "claim"


# --- what a test measures -----------------------------------------------------------------------


@dataclass
class Check:
    """One kind of comparison in one test: how often it was made and how near it came to failing."""

    check: str
    what: str
    instances: int = 0
    worst: dict[str, float] = field(default_factory=dict)


class Claim:
    """The fixture `claim`: assertions that record their margin. One call is one instance."""

    def __init__(self) -> None:
        self.checks: dict[tuple[str, str], Check] = {}

    @property
    def instances(self) -> int:
        """Instances of the check made most often: checks of one example are not added up."""
        return max((check.instances for check in self.checks.values()), default=0)

    def close(
        self, actual: Any, predicted: Any, atol: float, rtol: float = 0.0, what: str = ""
    ) -> None:
        """Assert |actual - predicted| <= atol + rtol |predicted| everywhere; record the worst."""
        a, p = _paired(actual, predicted, what)
        with np.errstate(invalid="ignore"):
            error = np.where(a == p, 0.0, np.abs(a - p))
        tolerance = atol + rtol * np.where(np.isfinite(p), np.abs(p), 0.0)
        excess = np.where(np.isnan(error), np.inf, error - tolerance)
        at = int(excess.argmax())
        worst = {"error": float(error.flat[at]), "tolerance": float(tolerance.flat[at])}
        self._record("close", what, worst, rank=_ratio(**worst))
        assert excess.flat[at] <= 0, (
            f"{what or 'close'}: error {worst['error']:.3g} exceeds {worst['tolerance']:.3g}: "
            f"{a.flat[at]!r} against the predicted {p.flat[at]!r} (flat index {at} of {a.size})"
        )

    def below(self, value: Any, bound: Any, what: str = "", atol: float = 0.0) -> None:
        """Assert value <= bound + atol everywhere; record the least slack bound - value.

        A bound of +inf passes and is not counted: it bounds nothing.
        """
        v, b = _paired(value, bound, what)
        v, b = v.ravel()[~np.isposinf(b.ravel())], b.ravel()[~np.isposinf(b.ravel())]
        if b.size == 0:
            return
        slack = np.where(np.isnan(b - v), -np.inf, b - v)
        at = int(slack.argmin())
        worst = {"slack": float(slack[at]), "bound": float(b[at])}
        self._record("below", what, worst, rank=-worst["slack"])
        assert slack[at] >= -atol, (
            f"{what or 'below'}: {v[at]!r} exceeds the bound {b[at]!r} by {-slack[at]:.3g} "
            f"(allowed {atol:.3g}; flat index {at} of {b.size})"
        )

    def exhibits(self, value: Any, at_least: float, what: str = "") -> None:
        """Assert value >= at_least > -inf everywhere: a failure that theory predicts is seen."""
        v, _ = _paired(value, at_least, what)
        smallest = float(v.min())  # NaN if any is NaN, and then the assertion fails
        worst = {"value": smallest, "at_least": float(at_least)}
        self._record("exhibits", what, worst, rank=-smallest)
        assert np.isfinite(at_least), f"{what or 'exhibits'}: at_least={at_least} asks for nothing"
        assert smallest >= at_least, f"{what or 'exhibits'}: {smallest!r} is less than {at_least!r}"

    def exact(self, condition: bool, what: str) -> None:
        """Assert an identity that is decided without rounding (sympy, rationals, integers)."""
        self._record("exact", what, {}, rank=0.0)
        assert bool(condition), f"{what}: false"

    def _record(self, check: str, what: str, worst: dict[str, float], rank: float) -> None:
        record = self.checks.setdefault((check, what), Check(check, what))
        record.instances += 1
        if not record.worst or rank > _rank(check, record.worst):
            record.worst = worst


def _ratio(error: float, tolerance: float) -> float:
    return error / tolerance if tolerance > 0 else (0.0 if error == 0 else np.inf)


def _rank(check: str, worst: dict[str, float]) -> float:
    if check == "close":
        return _ratio(**worst)
    return -worst["slack"] if check == "below" else -worst["value"]


def _paired(actual: Any, other: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    a, b = (_array(x) for x in (actual, other))
    assert a.size > 0, f"{what or 'check'}: nothing to compare"
    # `other` may be a scalar or a row; `actual` is never broadcast, that would hide a wrong shape.
    fits = b.ndim <= a.ndim and all(
        m in (1, n) for m, n in zip(b.shape[::-1], a.shape[::-1], strict=False)
    )
    assert fits, f"{what or 'check'}: shape {b.shape} does not broadcast to {a.shape}"
    return a, np.array(np.broadcast_to(b, a.shape))


def _array(x: Any) -> np.ndarray:
    if hasattr(x, "detach"):
        x = x.detach().cpu().numpy()
    return np.asarray(x, dtype=np.float64)


# --- the marker and the fixture -----------------------------------------------------------------


def _marked(
    *ids: str, rung: str = "", kind: str = "supports", condition: str = ""
) -> dict[str, Any]:
    """The record a marker opens; ValueError with everything that is wrong with it."""
    wrong = [f"unknown claim {i!r} (known: C1-C6, T1-T17, S1-S8)" for i in ids if i not in CLAIMS]
    if not ids:
        wrong.append("no claim id")
    if rung not in RUNGS:
        wrong.append(f"rung={rung!r} is none of {', '.join(RUNGS)}")
    if kind not in KINDS:
        wrong.append(f"kind={kind!r} is none of {', '.join(KINDS)}")
    if kind == "necessity" and not condition:
        wrong.append("kind='necessity' needs condition=..., the assumption that was dropped")
    if kind == "supports" and condition:
        wrong.append("condition=... belongs to kind='necessity' or 'refutes'")
    if wrong:
        raise ValueError("; ".join(wrong))
    return {"claims": sorted(set(ids), key=CLAIMS.index), "rung": rung, "kind": kind,
            "condition": condition, "instances": 0, "checks": []}  # fmt: skip


@pytest.fixture
def claim(request: pytest.FixtureRequest) -> Claim:
    """Assertions that record their margins; only for tests marked with a claim."""
    if request.node.get_closest_marker("claim") is None:
        pytest.fail("the fixture `claim` needs @pytest.mark.claim(...) on the test", pytrace=False)
    return request.node.stash.setdefault(_RECORDER, Claim())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--evidence", metavar="PATH", help="write the claims' records to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "claim(*ids, rung, kind='supports', condition=''): the test is evidence for these claims",
    )
    path = config.getoption("--evidence")
    if path and not hasattr(config, "workerinput"):
        config.stash[_RECORDS] = []
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
            record = _marked(*markers[0].args, **markers[0].kwargs)
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
    recorder = pyfuncitem.stash.get(_RECORDER, Claim())
    assert isinstance(record, dict)
    record["instances"] = recorder.instances
    record["checks"] = [asdict(c) for _, c in sorted(recorder.checks.items())]
    if not recorder.instances:
        pytest.fail("marked with a claim, but no claim.* check measured anything", pytrace=False)
    return result


# --- the record ---------------------------------------------------------------------------------


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


def provenance(root: Path) -> dict[str, Any]:
    """Versions and platform, without the names of machines or people; and of what code."""
    known = versions(*PACKAGES)
    return {
        "command": "make evidence",
        "hypothesis_profile": PROFILE,
        "device": f"CPU, {platform.machine()}",
        "platform": platform.system(),
        "python": known.pop("python"),
        "versions": {package: version.split("+")[0] for package, version in known.items()},
        "theory_sha256": source_digest(root / "theory"),
    }


def rounded(value: Any) -> Any:
    """Floats to three significant digits, and the infinities as words, which JSON can hold."""
    if isinstance(value, float):
        return float(f"{value:.3g}") if np.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list | tuple) else value


def write_record(path: Path, where: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Write rounded, stable JSON, one test a line; the old file stays whole until it is there."""
    head, *lines = (
        json.dumps(rounded(part), ensure_ascii=False, allow_nan=False) for part in [where, *records]
    )
    rows = ",\n  ".join(lines)
    write_whole(path, f'{{"provenance": {head},\n "records": [\n  {rows}\n]}}\n')

"""What is measured for a claim: assertions that record their margins, and the record they make.

    claim = ClaimRecorder()
    claim.below(kl_after, kl_before, what="KL after a round")

Nothing here needs pytest: a check or a study may measure too. `lab.evidence_plugin` gives tests the
fixture and the marker; the verdicts are computed from the records in `figures/report`.
"""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lab.files import source_digest, versions
from theory.files import write_whole

REGIMES = {
    "symbolic": "an identity proved by algebra",
    "tabular": "exact laws, closed forms and certified solvers",
    "dynamics": "gradient descent and finite samples",
    "listed": "a neural policy on a game small enough to list",
    "real text": "a language model on real text",
    "135M": "a pretrained language model of 135 M weights",
}
INSTANCES = {"symbolic": "identities", "tabular": "games"}  # what one is, else: runs
CHOSEN = "chosen"
BECAUSE = ("rounding", "solver", "expansion", "sampling", "theory", CHOSEN)
ROUNDING = 1e-6
PROFILE = "evidence"
_CLAUSE = re.compile(r"[CTS][0-9]+\.[a-z][a-z0-9_]*")
CODE = ("theory", "lab", "toy_games", "llm_scale")
PACKAGES = ("cvxpy", "clarabel", "hypothesis", "numpy", "scipy", "sympy", "torch")


@dataclass
class Check:
    """One kind of comparison in one test: how often it was made and how near it came to failing."""

    check: str
    what: str
    because: str = "rounding"
    instances: int = 0
    worst: dict[str, float] = field(default_factory=dict)


class ClaimRecorder:
    """Assertions that record their margin. One call is one instance.

    ``because`` says where a tolerance comes from: "rounding" (up to 1e-6), "solver" (a certified
    gap), "expansion" (the order of an expansion), "sampling" (standard errors), "theory" (the
    number is the theorem's), "chosen" (nobody derives it). Larger tolerances than rounding's must
    say so; what `exhibits` asks for is chosen unless it is said to be theory's.
    """

    def __init__(self) -> None:
        self.checks: dict[tuple[str, str], Check] = {}

    @property
    def instances(self) -> int:
        """Instances of the check made most often: checks of one example are not added up."""
        return max((check.instances for check in self.checks.values()), default=0)

    def close(
        self,
        actual: Any,
        predicted: Any,
        atol: float,
        rtol: float = 0.0,
        what: str = "",
        because: str = "rounding",
    ) -> None:
        """Assert |actual - predicted| <= atol + rtol |predicted| everywhere; record the worst."""
        _check_reason(what, because, np.max(atol), rtol)
        a, p = _paired(actual, predicted, what)
        with np.errstate(invalid="ignore"):
            error = np.where(a == p, 0.0, np.abs(a - p))
        tolerance = atol + rtol * np.where(np.isfinite(p), np.abs(p), 0.0)
        excess = np.where(np.isnan(error), np.inf, error - tolerance)
        at = int(excess.argmax())
        worst = {"error": float(error.flat[at]), "tolerance": float(tolerance.flat[at])}
        self._record("close", what, worst, because, rank=_ratio(**worst))
        assert excess.flat[at] <= 0, (
            f"{what or 'close'}: error {worst['error']:.3g} exceeds {worst['tolerance']:.3g}: "
            f"{a.flat[at]!r} against the predicted {p.flat[at]!r} (flat index {at} of {a.size})"
        )

    def below(
        self,
        value: Any,
        bound: Any,
        what: str = "",
        atol: float = 0.0,
        because: str = "rounding",
    ) -> None:
        """Assert value <= bound + atol everywhere; record the least slack bound - value.

        A bound of +inf passes and is not counted: it bounds nothing. Where the bound itself is
        not the theorem's, ``because`` is "chosen".
        """
        _check_reason(what, because, np.max(atol), 0.0)
        v, b = _paired(value, bound, what)
        v, b = v.ravel()[~np.isposinf(b.ravel())], b.ravel()[~np.isposinf(b.ravel())]
        if b.size == 0:
            return
        slack = np.where(np.isnan(b - v), -np.inf, b - v)
        at = int(slack.argmin())
        worst = {"slack": float(slack[at]), "bound": float(b[at]), "allowed": float(np.max(atol))}
        self._record("below", what, worst, because, rank=-worst["slack"])
        assert slack[at] >= -atol, (
            f"{what or 'below'}: {v[at]!r} exceeds the bound {b[at]!r} by {-slack[at]:.3g} "
            f"(allowed {atol:.3g}; flat index {at} of {b.size})"
        )

    def exhibits(
        self, value: Any, at_least: float, what: str = "", because: str = "chosen"
    ) -> None:
        """Assert value >= at_least > -inf everywhere: an effect is seen; its least size is kept."""
        _check_reason(what, because, 0.0, 0.0)
        v, _ = _paired(value, at_least, what)
        smallest = float(v.min())  # NaN if any is NaN, and then the assertion fails
        worst = {"value": smallest, "at_least": float(at_least)}
        self._record("exhibits", what, worst, because, rank=-smallest)
        assert np.isfinite(at_least), f"{what or 'exhibits'}: at_least={at_least} asks for nothing"
        assert smallest >= at_least, f"{what or 'exhibits'}: {smallest!r} is less than {at_least!r}"

    def exact(self, condition: bool, what: str) -> None:
        """Assert an identity that is decided without rounding (sympy, rationals, integers)."""
        self._record("exact", what, {}, "rounding", rank=0.0)
        assert bool(condition), f"{what}: false"

    def _record(
        self, check: str, what: str, worst: dict[str, float], because: str, rank: float
    ) -> None:
        record = self.checks.setdefault((check, what), Check(check, what, because))
        record.instances += 1
        if not record.worst or rank > _rank(check, record.worst):
            record.worst = worst


def _check_reason(what: str, because: str, atol: float, rtol: float) -> None:
    if because not in BECAUSE:
        raise ValueError(f"{what}: because={because!r} is none of {', '.join(BECAUSE)}")
    if because == "rounding" and max(atol, rtol) > ROUNDING:
        raise ValueError(
            f"{what}: a tolerance of {max(atol, rtol):.1e} is more than rounding; say because="
            "'solver', 'expansion', 'sampling', 'theory' or 'chosen'"
        )


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


# --- the record ---------------------------------------------------------------------------------


def marked(
    *clauses: str, regime: str = "", drops: str = "", refutes: bool = False, of: str = ""
) -> dict[str, Any]:
    """The record that a claim's marker opens; ValueError with everything that is wrong with it.

    Args:
        clauses: ids as in figures/report/claims.toml, "T7.diverges".
        regime: where it is measured, one of `REGIMES`.
        drops: premise (figures/report/premises.toml) that this test drops alone, to show that the
            clause fails without it.
        refutes: the clause fails although all its premises hold.
        of: what one instance is; "identities", "games" or "runs" by the regime if not said.
    """
    wrong = [
        f"{i!r} is no clause, as in 'T7.diverges'" for i in clauses if not _CLAUSE.fullmatch(i)
    ]
    if not clauses:
        wrong.append("no clause")
    if regime not in REGIMES:
        wrong.append(f"regime={regime!r} is none of {', '.join(REGIMES)}")
    if drops and refutes:
        wrong.append("a test that drops a premise does not refute")
    if wrong:
        raise ValueError("; ".join(wrong))
    return {"clauses": sorted(set(clauses)), "regime": regime, "drops": drops, "refutes": refutes,
            "of": of or INSTANCES.get(regime, "runs"), "instances": 0, "checks": []}  # fmt: skip


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
        "code": {package: source_digest(root / package) for package in CODE},
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

"""What was measured: a line of JSON a row, safe on the disk at once, and a summary for people."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from theory.files import write_whole

Row = dict[str, Any]
ROWS, SUMMARY = "results.jsonl", "summary.md"
SHOWN = (
    "beta", "nll_before", "nll", "nll_change", "nll_change_se", "kl_step", "margin",
    "max_reward_other", "after_length_own", "after_truncated_own", "archaic", "sampler_gap",
)  # fmt: skip
"""Of a row of self-play (`arm`), which has many numbers, those that are shown."""
STATES = ("skipped", "cut", "error")
"""Of a row that says why something was not measured, the key of the reason."""


class Record:
    """Rows in a folder, in the order in which they were measured."""

    def __init__(self, out: Path, head: str = "") -> None:
        self.out, self.head, self.began = out, head, time.monotonic()
        self.rows: list[Row] = []
        self.out.mkdir(parents=True, exist_ok=True)
        (out / ROWS).write_bytes(b"")

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def write(self, part: str, what: str, **values: Any) -> Row:
        """Add a row and say it; numbers that are not finite become null, which JSON has."""
        row = {"part": part, "what": what, **{k: _plain(v) for k, v in values.items()}}
        row["at_s"] = round(self.seconds, 2)
        self.rows.append(row)
        with (self.out / ROWS).open("ab") as file:
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        print(f"[{self.seconds:6.1f} s] {part}: {what}: {told(row)}", flush=True)
        return row

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{self.seconds:6.1f} s] {text}", flush=True)

    def summarise(self) -> None:
        """Write the summary anew."""
        write_whole(self.out / SUMMARY, summary(self.rows, self.head))


def summary(rows: list[Row], head: str) -> str:
    """A table a part: what was measured, its numbers, and the aim beside them if there is one."""
    lines = ["# Measured", "", head] if head else ["# Measured"]
    for part in dict.fromkeys(row["part"] for row in rows):
        lines += ["", f"## {part}", "", "| what | measured | aim |", "|---|---|---|"]
        lines += [
            f"| {row['what']} | {told(row)} | {_aim(row)} |" for row in rows if row["part"] == part
        ]
    return "\n".join([*lines, ""])


def told(row: Row) -> str:
    """A row's numbers and words in one line."""
    for state in STATES:
        if state in row:
            return f"{state}: {row[state]}"
    left_out = ("part", "what", "at_s", "aim")
    kept = SHOWN if "arm" in row else [k for k in row if k not in left_out]
    return ", ".join(f"{k} {_short(row[k])}" for k in kept if k in row)


def _aim(row: Row) -> str:
    """The aim, and whether the row's ``value`` reaches it."""
    if "aim" not in row:
        return ""
    value = row.get("value")
    reached = "" if value is None else (": reached" if value >= row["aim"] else ": not reached")
    return f">= {_short(row['aim'])}{reached}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else str(value).replace("|", "/")


def _plain(value: Any) -> Any:
    """As JSON holds it: tensors' and numpy's numbers as Python's, floats to six digits."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value

"""What a run writes beside its checkpoints: metrics, times, the points of every round."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_scale import processes
from llm_scale.boards import Board
from theory.files import clear, write_whole

METRICS, TIMING, POINTS = "metrics.jsonl", "timing.jsonl", "rounds"
SAMPLES = "samples"
FAILURE = "failure.json"


class Journal:
    """Files of a run; only the first process writes.

    ``metrics.jsonl`` (a line a step, a line a round), ``rounds/round-NNN.csv`` and
    ``samples/round-NNN.jsonl`` hold no time of day, so that a run that was interrupted ends with
    the same bytes. Numbers go to ``boards`` as well.
    """

    def __init__(self, out: Path, boards: Sequence[Board] = ()) -> None:
        self.out, self.boards = out, boards

    def digest(self) -> tuple[int, str]:
        """Bytes of the metrics so far, on the disk, and their digest: see `holds`."""
        path = self.out / METRICS
        if not path.exists():
            return 0, hashlib.sha256().hexdigest()
        with path.open("rb") as file:
            content = file.read()
            os.fsync(file.fileno())
        return len(content), hashlib.sha256(content).hexdigest()

    def holds(self, size: int, digest: str) -> bool:
        """Whether the metrics begin with what they were when `digest` said so."""
        path = self.out / METRICS
        content = path.read_bytes()[:size] if path.exists() else b""
        return len(content) == size and hashlib.sha256(content).hexdigest() == digest

    def cut(self, size: int) -> None:
        """Forget metrics, and a failure, written after a checkpoint: they are written again.

        So are files that a killed process was writing.
        """
        path = self.out / METRICS
        if processes.rank() == 0:
            (self.out / FAILURE).unlink(missing_ok=True)
            clear(self.out, re.escape(FAILURE))
            clear(self.out / POINTS, r"round-\d+\.csv")
            clear(self.out / SAMPLES, r"round-\d+\.jsonl")
            if path.exists():
                with path.open("r+b") as file:
                    file.truncate(size)
        processes.wait()

    def write(self, row: dict[str, Any], at: int) -> None:
        """A line of metrics; ``at`` is the number of optimiser steps so far.

        Values that JSON cannot hold (NaN, infinities) are left out.
        """
        if processes.rank() != 0:
            return
        row = {k: v for k, v in row.items() if not isinstance(v, float) or math.isfinite(v)}
        self._append(METRICS, row)
        group = "round" if "round" in row else "step"
        at = row.get("round", at)
        kept = {k: v for k, v in row.items() if isinstance(v, (int, float))}
        numbers = {k: v for k, v in kept.items() if k not in ("step", "round")}
        for board in self.boards:
            board.write(group, at, numbers)

    def time(self, round_: int, seconds: float) -> None:
        """How long a round took, in a file of its own."""
        if processes.rank() == 0:
            self._append(TIMING, {"round": round_, "seconds": round(seconds, 3)})

    def points(self, round_: int, table: str) -> None:
        """The measured points of a round as CSV."""
        if processes.rank() == 0:
            write_whole(self.out / POINTS / f"round-{round_:03d}.csv", table)

    def samples(self, round_: int, rows: Sequence[dict[str, Any]]) -> None:
        """Responses of a round as text, a JSON object a line."""
        if processes.rank() == 0:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_whole(self.out / SAMPLES / f"round-{round_:03d}.jsonl", text)

    def failure(self, content: dict[str, Any]) -> None:
        """What was seen when the run had to stop."""
        if processes.rank() == 0:
            write_whole(self.out / FAILURE, json.dumps(content) + "\n")

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with (self.out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

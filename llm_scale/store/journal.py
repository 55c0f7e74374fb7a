"""What a run writes beside its checkpoints: metrics, times, the points of every round."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from llm_scale import processes
from theory.files import write_whole

METRICS, TIMING, POINTS = "metrics.jsonl", "timing.jsonl", "rounds"
FAILURE = "failure.json"


class Journal:
    """Files of a run; only the first process writes.

    ``metrics.jsonl`` (a line a step, a line a round) and ``rounds/round-NNN.csv`` hold no time of
    day, so that a run that was interrupted ends with the same bytes. TensorBoard's events are
    written as well where ``torch.utils.tensorboard`` can be imported.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._boards: dict[str, Any] = {}

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
        """Forget metrics, and a failure, written after a checkpoint: they are written again."""
        path = self.out / METRICS
        if processes.rank() == 0:
            (self.out / FAILURE).unlink(missing_ok=True)
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
        board = self._tensorboard(group, at)
        if board is not None:
            for name, value in row.items():
                if isinstance(value, (int, float)) and name not in ("step", "round"):
                    board.add_scalar(f"{group}/{name}", value, at)
            board.flush()

    def time(self, round_: int, seconds: float) -> None:
        """How long a round took, in a file of its own."""
        if processes.rank() == 0:
            self._append(TIMING, {"round": round_, "seconds": round(seconds, 3)})

    def points(self, round_: int, table: str) -> None:
        """The measured points of a round as CSV."""
        if processes.rank() == 0:
            write_whole(self.out / POINTS / f"round-{round_:03d}.csv", table)

    def failure(self, content: dict[str, Any]) -> None:
        """What was seen when the run had to stop."""
        if processes.rank() == 0:
            write_whole(self.out / FAILURE, json.dumps(content) + "\n")

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with (self.out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _tensorboard(self, group: str, at: int) -> Any:
        """The writer of a group, None without TensorBoard; what was there from ``at`` on, goes.

        Steps and rounds are counted apart, so each has a writer: a purge is of one count.
        """
        if group not in self._boards:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._boards[group] = None
            else:
                folder = str(self.out / "tensorboard" / f"{group}s")
                self._boards[group] = SummaryWriter(folder, purge_step=at)
        return self._boards[group]

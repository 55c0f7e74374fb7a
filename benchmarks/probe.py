"""Seconds or peak memory of the parts of a benchmark."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import torch


class Probe:
    """Seconds, or bytes above what is there at the start, of named parts.

    On CUDA bytes are those of torch's allocator, else the process's resident pages, whose peak
    the kernel keeps and resets on request.
    """

    def __init__(self, memory: bool) -> None:
        self.memory, self.cuda = memory, torch.cuda.is_available()
        self.seen: dict[str, float] = {}
        self.running: dict[str, float] = {}
        self.beside = 0
        """Bytes of models beside the trained one."""

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.start(name)
        yield
        self.stop(name)

    def start(self, name: str) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        self.running[name] = self._reset() if self.memory else time.perf_counter()

    def stop(self, name: str) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        now = self._peak() + self.beside if self.memory else time.perf_counter()
        self.seen[name] = now - self.running.pop(name)

    def _reset(self) -> int:
        gc.collect()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        Path("/proc/self/clear_refs").write_text("5")
        return self._pages("VmRSS")

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self.cuda else self._pages("VmHWM")

    @staticmethod
    def _pages(name: str) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise OSError(f"no {name} in /proc/self/status")

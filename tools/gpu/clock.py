"""Time and memory on a device, and an end to what takes too long."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

STARTED = 19
"""Place of the start's time among the numbers of Linux's stat file, after the process's name."""
LONGEST_START = 60.0
"""Seconds that imports may take; a process that is older did other things before."""


class OutOfTime(BaseException):
    """A part's time is over. No Exception, so that nothing in between takes it for a failure."""


class Stopwatch:
    """Seconds of named sections, the device's work done before and after each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seen: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        synchronise(self.device)
        began = time.perf_counter()
        yield
        synchronise(self.device)
        self.seen[name] = time.perf_counter() - began


def age() -> float:
    """Seconds since this process began, its imports among them; 0 where Linux does not say."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(after_name[STARTED]) / os.sysconf("SC_CLK_TCK")
        return min(max(time.clock_gettime(time.CLOCK_BOOTTIME) - began, 0.0), LONGEST_START)
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give memory that nothing holds back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reset_peak(device: torch.device) -> None:
    """Peaks of memory count from here on; on the CPU the process's peak cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float:
    """Peak of torch's allocator on the device in GiB; on the CPU of the process's pages."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block once so many seconds have passed.

    By a signal, which only a process's main thread can have; in another one nothing is limited.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)

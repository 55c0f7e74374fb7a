"""Which machine this is, and what it can do at best: products of matrices, copies of memory."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from typing import Any

import torch

from tools.gpu.bench import Bench
from tools.gpu.clock import Stopwatch, release

PACKAGES = ("torch", "transformers", "numpy", "tokenizers", "safetensors", "peft", "trl")
PEAK_FLOPS = 790e12
"""Operations a second of bfloat16 products on a card of the H200's class, as utilisation counts."""
TURNS, REPEATS = 5, 10
QUERY = "driver_version,power.limit,clocks.max.sm"


def where(bench: Bench, _deadline: float) -> None:
    """Device, memory, driver and versions."""
    device, named = bench.device, dict[str, Any]()
    if device.type == "cuda":
        seen = torch.cuda.get_device_properties(device)
        named = {
            "name": seen.name, "memory_gib": seen.total_memory / 2**30,
            "processors": seen.multi_processor_count,
            "capability": f"{seen.major}.{seen.minor}", "cuda": str(torch.version.cuda),
            "driver": _driver(),
        }  # fmt: skip
    else:
        named = {"name": platform.machine(), "memory_gib": _memory_gib(), "driver": "none"}
    row = {"device": device.type, "dtype": str(bench.machine.dtype), **named}
    bench.record.write("where", "device", **row, cores=os.cpu_count(), load=os.getloadavg()[0])
    versions = {name: _version(name) for name in PACKAGES}
    bench.record.write("where", "versions", python=platform.python_version(), **versions)


def rates(bench: Bench, _deadline: float) -> None:
    """Measured rates of this machine; `matrix_flops` and `copy_bytes` are what others divide by."""
    size, dtype = bench.size, bench.machine.dtype
    flops = matrix_flops(bench.device, dtype, size.matrix)
    bench.record.write(
        "rates", "matrix product", tera_operations_per_s=flops / 1e12, rows=size.matrix,
        dtype=str(dtype), of_peak=flops / PEAK_FLOPS,
    )  # fmt: skip
    moved = copy_bytes(bench.device, size.copied)
    bench.record.write("rates", "copy", gb_per_s=moved / 1e9, bytes=size.copied)


def matrix_flops(device: torch.device, dtype: torch.dtype, rows: int) -> float:
    """Operations a second of the product of two square matrices: the best of some turns."""
    left = torch.randn(rows, rows, device=device).to(dtype)
    right, out = torch.randn_like(left), torch.empty_like(left)
    return REPEATS * 2.0 * rows**3 / _best(device, lambda: torch.mm(left, right, out=out))


def copy_bytes(device: torch.device, size: int) -> float:
    """Bytes a second that a copy within the device's memory reads and writes together."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return REPEATS * 2.0 * size / _best(device, lambda: target.copy_(source))


def _best(device: torch.device, work: Any) -> float:
    """Seconds of `REPEATS` times the work, the first turn being its warm-up."""
    watch, found = Stopwatch(device), []
    for _ in range(1 + TURNS):
        with watch("work"):
            for _ in range(REPEATS):
                work()
        found.append(watch.seen["work"])
    release(device)
    return min(found[1:])


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _driver() -> str:
    """What nvidia-smi says of the driver, the power limit and the clock."""
    if shutil.which("nvidia-smi") is None:
        return "unknown (no nvidia-smi)"
    line = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
    return " ".join((done.stdout or done.stderr).split())[:200]


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30

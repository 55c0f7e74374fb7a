"""One process or several (torchrun): who this one is, and how work and results are shared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from theory.errors import InvalidInput

T = TypeVar("T")
MEETING = ("RANK", "MASTER_ADDR", "MASTER_PORT")


def announced() -> int:
    """Number of processes that torchrun announces, before they have met."""
    return _number("WORLD_SIZE", 1)


def local() -> int:
    """Number of this process on its machine: which of the machine's GPUs it takes."""
    return _number("LOCAL_RANK", 0)


def _number(variable: str, without: int) -> int:
    """A whole number of the environment, which launchers may leave empty."""
    text = os.environ.get(variable, "").strip()
    if not text.isdecimal() and text:
        raise InvalidInput(f"{variable}={text!r} in the environment; needed is a whole number")
    return int(text or without)


def start(device: torch.device) -> None:
    """Join the group that torchrun announces; nothing to do in a single process.

    InvalidInput: several are announced, but not all that they need to meet.
    """
    if announced() == 1 or dist.is_initialized():
        return
    lacking = [name for name in MEETING if not os.environ.get(name)]
    if lacking:
        raise InvalidInput(
            f"WORLD_SIZE={announced()} in the environment, but no {', '.join(lacking)}: start the "
            "processes with torchrun, or unset WORLD_SIZE"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def mine(everything: Sequence[T]) -> list[T]:
    """This process's share: every size-th element."""
    return shares(everything)[rank()]


def shares(everything: Sequence[T]) -> list[list[T]]:
    """`mine` of every process."""
    return [list(everything[i :: size()]) for i in range(size())]


def together(share: Sequence[T]) -> list[T]:
    """Inverse of `mine`: the shares of all processes in their common order, on every process."""
    if size() == 1:
        return list(share)
    shares: list[Any] = [None] * size()
    dist.all_gather_object(shares, list(share))
    total = sum(map(len, shares))
    return [shares[i % size()][i // size()] for i in range(total)]


def wait() -> None:
    """Until all processes are here."""
    if size() > 1:
        dist.barrier()

"""Weights, gradients and moments in shards, one a process (FSDP2 of torch).

In training every layer is gathered for its own pass. To sample and to score, processes run
different numbers of passes, and would wait for each other's layers for ever: there all weights are
gathered on every process (`gathered`), as they are to be written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from llm_scale.models.score import collate


def shard(scorer: Any) -> None:
    """Leave this process its share of the weights; they are equal on all processes before."""
    device = next(scorer.parameters()).device
    mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
    names = set(scorer.model._no_split_modules or ())
    for module in list(scorer.model.modules()):
        if type(module).__name__ in names:
            fully_shard(module, mesh=mesh)
    fully_shard(scorer, mesh=mesh)
    with torch.no_grad():  # the first pass tells its parts which module is the outermost
        scorer(*collate([((0,), (0,))], device))
    scorer.reshard()  # the outermost one stays gathered after a pass


def no_sync(scorer: nn.Module, last: bool) -> Any:
    """Where every process has all weights, gradients are summed with a step's last part only."""
    if last or not isinstance(scorer, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    return scorer.no_sync()


@contextlib.contextmanager
def gathered(scorer: nn.Module) -> Iterator[None]:
    """All weights as plain parameters on every process, which all enter and leave together.

    What is written into them meanwhile is lost. Nothing happens where they are whole already.
    """
    if not any(isinstance(p, DTensor) for p in scorer.parameters()):
        yield
        return
    parts = [module for module in scorer.modules() if isinstance(module, FSDPModule)]
    inner = [module for module in parts if module is not scorer]  # the outermost one stays anyway
    for module in inner:
        module.set_reshard_after_forward(False, recurse=False)
    for module in parts:
        module.unshard()
    try:
        yield
    finally:
        for module in parts:
            module.reshard()
        for module in inner:
            module.set_reshard_after_forward(True, recurse=False)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor in shards, on every process (all call this); another as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, which every process has, in shards as another is; or as it is."""
    if not isinstance(other, DTensor):
        return tensor
    there = tensor.to(other.device)
    return distribute_tensor(there, other.device_mesh, other.placements, src_data_rank=None)

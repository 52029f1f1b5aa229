"""Plain torch.distributed: works the same without `torchrun`, as one process."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def init(device: torch.device) -> None:
    """Join the process group that `torchrun` has announced; does nothing without it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def close() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's number, 0 for the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        dist.barrier()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes, in one message.

    Gradients of spread parameters are means already.
    """
    if world_size() == 1:
        return
    found = [p.grad for p in parameters if p.grad is not None]
    gradients = [grad for grad in found if not hasattr(grad, "full_tensor")]
    if not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(mean.view_as(gradient))


def sum_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum each tensor over processes."""
    if world_size() > 1:
        for name in sorted(tensors):
            dist.all_reduce(tensors[name])
    return tensors


def from_rank_zero(value: float, device: torch.device) -> float:
    """Return process 0's `value` on every process."""
    if world_size() == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return float(tensor)

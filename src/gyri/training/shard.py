"""Weights, gradients, averages and optimiser states spread over processes (FSDP2).

Each process keeps its share of every tensor; a network's weights are together only while it works
(Zhao et al., 2023, arXiv:2304.11277; Rajbhandari et al., 2020, arXiv:1910.02054). Checkpoints hold
whole tensors, so that a run may go on with another number of processes, or with none of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from gyri.runtime import distributed


def shard(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Spread networks over all processes, in place.

    Whatever uses a network afterwards must call it as a module, on all processes together.
    """
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    for network in networks:
        for parameter in network.parameters():
            # Shares are cut from one axis; a memory format of pictures does not survive that.
            parameter.data = parameter.data.contiguous()
        fully_shard(network, mesh=mesh)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put spread tensors together; every process must ask, others come back as they are."""
    return {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in tensors.items()
    }


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Spread a whole tensor as `like` is, if it is."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements)

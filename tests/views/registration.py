"""A registration that no one trained, whose fields still differ from scan to scan."""

from __future__ import annotations

import torch

from gyri.methods.voxelmorph import VoxelMorph, VoxelMorphConfig
from gyri.networks.registration_unet import RegistrationUNet, RegistrationUNetConfig
from gyri.types import Grid, ItemSpec


def registration(channels: int, grid: Grid, form: str = "velocity", size: float = 0.3):
    """Return a VoxelMorph with random weights; `size` of its last convolution's, in voxels."""
    spec = ItemSpec(channels, grid.shape)
    config = VoxelMorphConfig(form=form)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RegistrationUNet(
            RegistrationUNetConfig(down=(8, 8), up=(8, 8), last=(8,)),
            VoxelMorph.network_specs(config, spec)["registration"],
        )
        torch.nn.init.normal_(network.out.weight, std=size)
        template = torch.randn(channels, *grid.shape).clamp(-1, 1)
    method = VoxelMorph(config, spec, {"registration": network.eval()})
    method.take_template(template)
    return method

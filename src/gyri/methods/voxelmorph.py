"""VoxelMorph: a network that registers a template to a scan in one pass.

Balakrishnan et al., 2019, arXiv:1809.05231; Dalca et al., 2019, arXiv:1903.03545 (stationary
velocities). Trained on scans alone, with no labels and no known deformations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gyri.methods.atlas_registration import AtlasRegistration, AtlasRegistrationConfig
from gyri.registry import METHODS
from gyri.types import (
    Batch,
    ItemSpec,
    Loss,
    NetworkSpec,
    OptimiserConfig,
    Phase,
    Progress,
    SampleRng,
)


@dataclass(frozen=True, kw_only=True)
class VoxelMorphConfig(AtlasRegistrationConfig):
    """Settings of `VoxelMorph`.

    Parameters
    ----------
    optimiser : of the network; the published rate is 1e-4.
    """

    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(lr=1e-4))


@METHODS.register("voxelmorph", VoxelMorphConfig)
class VoxelMorph(AtlasRegistration):
    """One network from template and scan to a field."""

    config: VoxelMorphConfig
    phases = (Phase("register", ("registration",), "registration"),)

    def __init__(
        self, config: VoxelMorphConfig, spec: ItemSpec, networks: dict[str, nn.Module]
    ) -> None:
        super().__init__(config, spec, networks)
        self.optimisers = {"registration": config.optimiser}

    @classmethod
    def network_specs(cls, config: VoxelMorphConfig, spec: ItemSpec) -> dict[str, NetworkSpec]:
        """The network reads template and scan and writes three components."""
        cls.refuse_other_items(spec)
        return {"registration": NetworkSpec(2 * spec.channels, 3, spec.shape)}

    @classmethod
    def default_networks(cls, config: VoxelMorphConfig) -> dict[str, str]:
        """The published U-Net."""
        return {"registration": "registration_unet"}

    def propose(self, x: Tensor) -> Tensor:
        """Return fields (B, 3, I', J', K') to scans (B, C, I, J, K), voxels of their own grid."""
        moving = self.template.expand(len(x), *x.shape[1:])
        found: Tensor = self.networks["registration"](torch.cat([moving, x], dim=1))
        return found.float()

    def loss(self, phase: str, batch: Batch, progress: Progress, rng: SampleRng) -> Loss:
        """Mean over items of unlikeness and roughness."""
        losses, logs = self.registration_loss(batch.x, self.propose(batch.x))
        return Loss(losses.mean(), logs)

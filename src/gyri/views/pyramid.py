"""A volume on a coarser grid: the first stage of a cascade.

Ho et al., 2021, arXiv:2106.15282 (cascaded diffusion); Xu et al., 2023, arXiv:2310.03559 (MedSyn),
whose first stage keeps the depth. `gyri.views.detail` makes the second stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.types import ConditionLayout, Grid, Items, ItemSpec
from gyri.views.base import View


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """Settings of the pyramid view.

    Parameters
    ----------
    factor : voxels that are averaged to one along I, J and K; 1 keeps an axis.
    upsampling : how a volume is made of them: ``linear`` between their centres, or ``nearest``,
        every voxel of a block the same, as published.
    """

    factor: tuple[int, int, int] = (2, 2, 2)
    upsampling: Literal["linear", "nearest"] = "linear"

    def __post_init__(self) -> None:
        """Refuse factors that average nothing."""
        if min(self.factor) < 1 or max(self.factor) == 1:
            raise UsageError(
                f"view.factor is {list(self.factor)}; give the voxels that become one along I, J "
                "and K, each at least 1 and one of them more."
            )


@VIEWS.register("pyramid", PyramidConfig)
class PyramidView(View):
    """Blocks of a volume averaged to one voxel each; a volume again by interpolation.

    It does not lift. Averages of white noise are white and would do, were they a volume's whole
    noise; but interpolation is not the inverse of averaging, and a sampler that kept the volume
    would carry noise on the fine grid that says nothing. So the averages are sampled on their own
    grid, where they are intensities in [-1, 1] like the volume's.
    """

    kind = "lossy"
    lifts = False

    def __init__(self, config: PyramidConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.item_channels = channels
        self.item_shape = tuple(
            -(-n // factor) for n, factor in zip(grid.shape, config.factor, strict=True)
        )

    def item_spec(
        self,
        condition: ConditionLayout,
        num_train: int,
        context: Mapping[str, int] | None = None,
    ) -> ItemSpec:
        """Describe the averages to a method."""
        if context:
            raise UsageError(
                f"data.context gives {', '.join(context)}; a coarse volume is sampled on a grid of "
                "its own and follows no image. Make it a channel that is made too (data.channels), "
                "or let the second stage follow it."
            )
        return super().item_spec(condition, num_train)

    def encode(self, volumes: Tensor) -> Items:
        """(V, C, I, J, K) -> block averages; a block cut off by the border has fewer voxels."""
        return Items(avg_pool3d(volumes, self.config.factor, ceil_mode=True))

    def decode(self, items: Tensor) -> Tensor:
        """Interpolate to the volume's grid."""
        whole = [n * factor for n, factor in zip(self.item_shape, self.config.factor, strict=True)]
        if self.config.upsampling == "nearest":
            volumes = interpolate(items, size=whole, mode="nearest")
        else:
            volumes = interpolate(items, size=whole, mode="trilinear", align_corners=False)
        i, j, k = self.grid.shape
        return volumes[:, :, :i, :j, :k]

    def bounded(self, items: Tensor, bound: float) -> Tensor:
        """Bring clean items into ``[-bound, bound]``; interpolation then stays inside too."""
        return items.clamp(-bound, bound)

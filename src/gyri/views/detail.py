"""A volume given what a coarser view keeps of it: the second stage of a cascade.

In training the coarse form is a real scan's; in sampling it is what a model made, faults included.
Noise conditioning augmentation (Ho et al., 2021, arXiv:2106.15282; MedSyn: Xu et al., 2023,
arXiv:2310.03559) lets the second stage learn to repair it: the coarse form is mixed with noise,
``(1 - a) coarse + a noise`` with ``a ~ U(0, corruption)``. The published code does so in training
alone. Here the model is told `a`, in a channel of its own, and sampling mixes in a level that the
settings fix: its network then meets what it was trained on and knows how far to trust it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gyri.errors import UsageError
from gyri.registry import VIEWS
from gyri.types import Grid, Items, SampleRng
from gyri.views.base import Changed, Trained, View, Volumes, subjects
from gyri.views.kept import Kept
from gyri.views.slab import SlabConfig, SlabView
from gyri.views.volume import VolumeConfig, VolumeView

COARSE = "coarse"


@dataclass(frozen=True, kw_only=True)
class DetailConfig:
    """Settings of the detail view.

    Parameters
    ----------
    slab : cut the volume and its coarse form into the slabs of these settings, as the slab view
        does; None takes both whole.
    corruption : largest share of noise in the coarse form in training, in [0, 1); 0 leaves it as it
        is. Above 0 it comes with one more channel, its share of noise, and cannot be the method's
        `residual`: differences from it would hold that noise.
    sampling_corruption : share of noise in sampling, from 0 to `corruption`; None for half of it.
    """

    slab: SlabConfig | None = None
    corruption: float = 0.0
    sampling_corruption: float | None = None

    def __post_init__(self) -> None:
        """Refuse shares that are none, and one in sampling that training never shows."""
        if not 0 <= self.corruption < 1:
            raise UsageError(
                f"view.corruption is {self.corruption:g}; it is the largest share of noise, at "
                "least 0 and below 1."
            )
        if not 0 <= self.sampled <= self.corruption:
            raise UsageError(
                f"view.sampling_corruption is {self.sampled:g}, and training shows shares of noise "
                f"from 0 to {self.corruption:g} (view.corruption). Choose one of these."
            )

    @property
    def sampled(self) -> float:
        """Share of noise in sampling."""
        if self.sampling_corruption is None:
            return self.corruption / 2
        return self.sampling_corruption


@VIEWS.register("detail", DetailConfig)
class DetailView(View):
    """The volume, with what another run's view keeps of it given beside, as context ``coarse``.

    In training that is what the needed run's view keeps of the volume: for a model of fields the
    warped template, for a pyramid the interpolated averages. In sampling it is a sample of that
    run.
    """

    needs: ClassVar[tuple[str, ...]] = (COARSE,)

    def __init__(self, config: DetailConfig, channels: int, grid: Grid) -> None:
        super().__init__(config, channels, grid)
        self.cut: View = VolumeView(VolumeConfig(), channels, grid)
        if config.slab is not None:
            self.cut = SlabView(config.slab, channels, grid)
        self.item_channels = self.cut.item_channels
        self.item_shape = self.cut.item_shape
        self.items_per_volume = self.cut.items_per_volume
        self.position_size = self.cut.position_size
        per_channel = self.item_channels // channels
        self.context = {COARSE: (channels + (config.corruption > 0)) * per_channel}
        self._kept = Kept(self._coarse)

    @property
    def state(self) -> dict[str, Tensor]:
        """What was measured for slabs."""
        return self.cut.state if hasattr(self, "cut") else {}

    @state.setter
    def state(self, state: dict[str, Tensor]) -> None:
        if hasattr(self, "cut"):
            self.cut.state = state

    def use(self, needs: Mapping[str, Trained]) -> None:
        """Take the run whose samples are refined."""
        self.coarse_view = needs[COARSE].view

    def _coarse(self, volumes: Volumes, rows: Tensor) -> Tensor:
        """Return what the needed run's view keeps of the volumes `rows` (B,)."""
        # Channels that the recipe gives come after those that the view makes.
        made = Changed(volumes[rows][:, : self.volume_shape[0]], subjects(volumes, rows))
        with torch.no_grad():
            return torch.cat([self.coarse_view.kept(made, i) for i in range(len(rows))])

    def fit(self, volumes: Volumes) -> None:
        """Measure what slabs need."""
        self.cut.fit(volumes)

    def encode(self, volumes: Tensor) -> Items:
        """Return the volumes, or their slabs."""
        return self.cut.encode(volumes)

    def items_of(self, volumes: Volumes, row: int) -> Items:
        """Return the items and beside them their coarse form, without noise, made once a volume."""
        rows = torch.tensor([row])
        coarse = self._kept.of(volumes, rows)
        if self.config.corruption:
            coarse = with_share(coarse, coarse.new_zeros(1))
        return self._parted(self.cut.encode(torch.cat([volumes[rows], coarse], dim=1)))

    def training_items(self, volumes: Volumes, rows: Tensor, rng: SampleRng) -> Items:
        """Return items and beside them their coarse form, which is made once a volume."""
        coarse = self._kept.of(volumes, rows)
        if self.config.corruption:
            coarse = self._corrupted(coarse, self.config.corruption * rng.uniform(), rng)
        joined = torch.cat([volumes[rows], coarse], dim=1)
        everyone = torch.arange(len(rows), device=joined.device)
        return self._parted(self.cut.training_items(joined, everyone, rng))

    def _parted(self, items: Items) -> Items:
        """Part items of volumes and coarse forms, joined along channels."""
        width = self.context[COARSE]
        return Items(items.x[:, :-width], items.position, {COARSE: items.x[:, -width:]})

    def given(self, images: Mapping[str, Tensor], rng: SampleRng) -> dict[str, Tensor]:
        """Mix the noise of sampling into the coarse form that another run has made."""
        if not self.config.corruption:
            return dict(images)
        coarse = images[COARSE]
        share = coarse.new_full((len(coarse),), self.config.sampled)
        return {**images, COARSE: self._corrupted(coarse, share, rng)}

    def _corrupted(self, coarse: Tensor, share: Tensor, rng: SampleRng) -> Tensor:
        """Mix a `share` (V,) of white noise into (V, C, I, J, K) and say how much that is."""
        part = share.reshape(-1, 1, 1, 1, 1)
        return with_share((1 - part) * coarse + part * rng.normal(coarse.shape[1:]), share)

    def decode(self, items: Tensor) -> Tensor:
        """Put items together again."""
        return self.cut.decode(items)


def with_share(coarse: Tensor, share: Tensor) -> Tensor:
    """Append a channel that is `share` (V,) everywhere to (V, C, I, J, K)."""
    level = share.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *coarse.shape[2:])
    return torch.cat([coarse, level], dim=1)

"""What a method can do besides training: one protocol a capability, known by its functions.

Shapes as in `gyri.types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from gyri.types import Batch, Lift, Method, SampleRng

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Sampler(Protocol):
    """Makes new volumes."""

    def sample(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """(V, D) conditions and one random stream a volume -> (V, C, I, J, K)."""
        ...


@runtime_checkable
class ContextSampler(Protocol):
    """Makes new volumes that follow given images, such as a mask."""

    def sample_given(
        self, lift: Lift, condition: Tensor, context: Mapping[str, Tensor], rng: SampleRng
    ) -> Tensor:
        """Return (V, C, I, J, K) of conditions (V, D) and images (V, C', I, J, K) by name."""
        ...


@runtime_checkable
class Reconstructor(Protocol):
    """Encodes items and decodes them again."""

    def reconstruct(self, batch: Batch) -> Tensor:
        """Return the reconstruction of ``batch.x``."""
        ...


@runtime_checkable
class Autoencoder(Protocol):
    """Gives each item a code and makes items of codes."""

    def codes(self, batch: Batch) -> Tensor:
        """Return the code (B, L) of each item, without noise."""
        ...

    def decode(self, z: Tensor, condition: Tensor, position: Tensor | None) -> Tensor:
        """Return the items (B, C, *S) of codes (B, L)."""
        ...


@runtime_checkable
class LatentAutoencoder(Protocol):
    """Gives each item a small grid of codes and makes items of such grids, under no conditions."""

    @property
    def factor(self) -> int:
        """Voxels of an item along each axis for one of its code."""
        ...

    @property
    def latent_channels(self) -> int:
        """Channels C' of the code."""
        ...

    def latents(self, x: Tensor) -> Tensor:
        """Return codes (B, C', *ceil(S / factor)) of items (B, C, *S), without noise."""
        ...

    def from_latents(self, z: Tensor) -> Tensor:
        """Return (B, C, *S' factor) in [-1, 1] of codes (B, C', *S') on any grid."""
        ...


@dataclass(frozen=True)
class StyleStage:
    """What works on one grid of a `Stylist`'s generator.

    Parameters
    ----------
    grid : spatial shape of its features.
    first : its first layer of styles, counted from 0; the next stage's ends it.
    module : what it returns are the features (B, U, *grid), a unit a channel.
    """

    grid: tuple[int, ...]
    first: int
    module: nn.Module


@runtime_checkable
class Stylist(Protocol):
    """Makes items of styles: a vector for each layer, from the coarsest grid to the finest."""

    def style_stages(self) -> tuple[StyleStage, ...]:
        """Return the stages, the coarsest first."""
        ...

    def styles_of(self, lift: Lift, condition: Tensor, rng: SampleRng) -> Tensor:
        """Return styles (V * items_per_volume, L, W) of what `Sampler.sample` makes of these."""
        ...

    def mean_styles(self, lift: Lift, condition: Tensor) -> Tensor:
        """Return the mean styles (V * items_per_volume, L, W) of conditions (V, D)."""
        ...

    def from_styles(self, styles: Tensor) -> Tensor:
        """Return the items (B, C, *S) of styles (B, L, W), differentiable and without chance."""
        ...


@runtime_checkable
class Editor(Protocol):
    """Noises real volumes part of the way and makes them clean again (SDEdit)."""

    def edit(
        self, lift: Lift, volumes: Tensor, condition: Tensor, strength: float, rng: SampleRng
    ) -> Tensor:
        """(V, C, I, J, K) and (V, D) -> (V, C, I, J, K).

        `strength` is the share of the sampler's steps that are taken: 0 returns `volumes`, 1 is
        sampling.
        """
        ...


@runtime_checkable
class Translator(Protocol):
    """Makes items of one level of a condition look like items of another."""

    def translations(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Return a column of the condition, and pairs (from, to) of its levels, from 0."""
        ...

    def translate(self, batch: Batch, source: int, target: int) -> Tensor:
        """Return ``batch.x``, items of level `source`, as they would look at level `target`."""
        ...


@runtime_checkable
class Registrar(Protocol):
    """Deforms a template to scans; conventions in `gyri.nn.deformation`."""

    @property
    def form(self) -> Literal["velocity", "displacement"]:
        """What a field is."""
        ...

    @property
    def template(self) -> Tensor:
        """The template (1, C, I, J, K) in [-1, 1]."""
        ...

    def take_template(self, template: Tensor) -> None:
        """Deform this volume (C, I, J, K) in [-1, 1] from now on."""
        ...

    def field(self, x: Tensor) -> Tensor:
        """Return fields (B, 3, I', J', K') to scans (B, C, I, J, K), voxels of their own grid."""
        ...

    def displacement(self, field: Tensor, eta: float = 1.0) -> Tensor:
        """Return (B, 3, I, J, K), the share `eta` of the way from template to scan."""
        ...

    def trajectory(self, x: Tensor, eta: float) -> Tensor:
        """Return the displacement (B, 3, I, J, K) at the share `eta` of the method's own way."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Gives each item a loss; membership inference reads it."""

    def score(self, batch: Batch, rng: SampleRng) -> Tensor:
        """Return (B,) losses; lower means better explained."""
        ...


@runtime_checkable
class FitOnce(Protocol):
    """Is fitted in one go instead of trained by gradients."""

    def fit(self, x: Tensor, condition: Tensor) -> dict[str, float]:
        """Fit on all TRAIN items (N, C, *S) and their conditions (N, D); return logs."""
        ...


CAPABILITIES: dict[str, type] = {
    "Sampler": Sampler,
    "ContextSampler": ContextSampler,
    "Reconstructor": Reconstructor,
    "Autoencoder": Autoencoder,
    "LatentAutoencoder": LatentAutoencoder,
    "Stylist": Stylist,
    "Editor": Editor,
    "Translator": Translator,
    "Registrar": Registrar,
    "Scorer": Scorer,
    "FitOnce": FitOnce,
}


def capabilities(method: type | Method) -> list[str]:
    """Names of the capabilities that a method has."""
    kind = method if isinstance(method, type) else type(method)
    return [
        name
        for name, protocol in CAPABILITIES.items()
        if all(hasattr(kind, member) for member in vars(protocol) if not member.startswith("_"))
    ]

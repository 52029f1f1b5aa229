"""Features of networks trained elsewhere, of volumes or of slices at fixed places.

**Why slices become columns.** The Frechet distance of 2D networks is mostly computed on a pool of
slices, each a row. A pool knows neither subject nor position: a volume made of one slice repeated
passes if the pool is right, and its n counts slices as if they were subjects. Here the slices of a
plane lie at fixed millimetres, and their features are the columns of one row a volume. Position is
then part of the feature and so is how slices go together; the distance of whole rows is never
below the sum of the distances at each position (the marginals of a coupling are couplings); and a
row is a subject, so that bootstraps, permutations and neighbours need no other rule than for every
feature set. The price is dimension, 2048 a slice, which the metrics' own projection and kernels
bear. These numbers are therefore not the FID of the literature, and no name here says so. That one
is a call of torchmetrics with our network, see the guide on pretrained extractors.

**Why channels are rotated.** Many channels of such a network are almost never active. The protocol
z-scores every column by TRAIN, and a channel that rested on TRAIN and stirs on one real subject of
HOLD would be a thousand standard deviations away and decide every score. So the 2048 channels of an
image are first turned by a fixed orthonormal matrix. Distances between images stay what they are,
every column then holds a share of all channels and about the same variance, and z-scoring them
comes close to what it should be for a network: one scale for all.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation import weights
from gyri.evaluation.features import FeatureSet, FloatArray
from gyri.evaluation.segment import Segmented
from gyri.registry import FEATURES
from gyri.runtime.seeding import numpy_rng
from gyri.types import Grid

if TYPE_CHECKING:
    from torch import Tensor, nn

NUM_FEATURES = 2048
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Axis along which each plane's slices follow one another."""
OFFSETS_MM = (-40.0, -20.0, 0.0, 20.0, 40.0)
"""Places of the slices, from the grid's centre."""
PLACES = "5x20mm"
ISOTROPY = 0.01


@functools.cache
def rotation() -> FloatArray:
    """Return the (2048, 2048) orthonormal matrix: Hadamard's, its rows under seeded signs."""
    from scipy.linalg import hadamard

    signs = numpy_rng("pretrained", "rotation").choice([-1.0, 1.0], NUM_FEATURES)
    return np.asarray(signs[:, None] * hadamard(NUM_FEATURES) / np.sqrt(NUM_FEATURES))


class Pretrained(FeatureSet):
    """Base of sets that need weights: measured only where asked for, refused without them.

    Attributes
    ----------
    weights_name : which weights, see ``gyri weights list``.
    """

    default = False
    weights_name: ClassVar[str]

    @classmethod
    def refusal(cls, grid: Grid) -> str | None:
        """Say which weights are missing or damaged, and the command that adds them."""
        return weights.problem(cls.weights_name)

    def network(self) -> nn.Module:
        """Return the network with its weights."""
        return weights.load(self.weights_name)

    def fit(self, train: Segmented) -> None:
        """Load the network; nothing is fitted to TRAIN."""
        self._network = self.network()
        manifest = weights.read_manifest(self.weights_name)
        assert manifest is not None
        self._sha256 = manifest.sha256

    def features(self, images: Tensor) -> FloatArray:
        """Return (B, 2048) rotated channels of one volume's images.

        On the CPU alone, so that no machine's features differ from another's by its device.
        """
        import torch

        with torch.inference_mode():
            channels = self._network(images).double().numpy()
        return np.asarray(channels @ rotation())

    def row(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> FloatArray:
        """Return the features of one (I, J, K) volume."""
        raise NotImplementedError

    def extract(self, segmented: Segmented) -> FloatArray:
        """Return (N, d); a volume's images are one batch, so that its company changes nothing."""
        images = np.nan_to_num(segmented.image)
        return np.stack([self.row(image, mask) for image, mask in zip(images, segmented.mask)])

    def definition(self) -> str:
        """SHA-256 of the code of features and network, and of the weights."""
        digest = hashlib.sha256((super().definition() + self._sha256).encode())
        modules = {type(part).__module__ for part in self._network.modules()}
        for name in sorted(m for m in {*modules, __name__} if m.startswith("gyri.")):
            digest.update(inspect.getsource(sys.modules[name]).encode())
        return digest.hexdigest()


class PretrainedSlices(Pretrained):
    """Base of sets of five slices of one plane, their features side by side in one row.

    Slices lie 20 mm apart around the grid's centre, at the nearest voxel; superior, else anterior,
    is up and left is left. They are padded with zeros to squares, so that nothing is stretched.
    """

    plane: ClassVar[str]

    @classmethod
    def refusal(cls, grid: Grid) -> str | None:
        """Refuse also grids that the slices do not fit, or whose pixels are not square."""
        axis = PLANES[cls.plane]
        within = [s for a, s in enumerate(grid.spacing_mm) if a != axis]
        if max(within) > (1 + ISOTROPY) * min(within):
            return (
                f"{cls.plane} pixels are {within[0]:g} x {within[1]:g} mm and {cls.name} needs "
                "square ones. Prepare with one --spacing for all axes."
            )
        extent = (grid.shape[axis] - 1) * grid.spacing_mm[axis]
        if extent < OFFSETS_MM[-1] - OFFSETS_MM[0]:
            return (
                f"The grid reaches over {extent:g} mm across {cls.plane} slices; {cls.name} takes "
                f"slices over {OFFSETS_MM[-1] - OFFSETS_MM[0]:g} mm."
            )
        return super().refusal(grid)

    @property
    def names(self) -> tuple[str, ...]:
        """2048 rotated channels for each place, from low to high coordinate."""
        return tuple(f"{mm:+g}mm.{index:04d}" for mm in OFFSETS_MM for index in range(NUM_FEATURES))

    def network(self) -> nn.Module:
        """Return the network, its weights laid out as CPUs convolve slices fastest."""
        import torch

        return super().network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def fit(self, train: Segmented) -> None:
        """Load the network and keep the spacing."""
        super().fit(train)
        self._spacing_mm = train.spacing_mm[PLANES[self.plane]]

    def images(self, slices: NDArray[np.float32]) -> Tensor:
        """Return (B, 3, H, W) images, as the network takes them, of (B, S, S) slices."""
        raise NotImplementedError

    def row(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> FloatArray:
        """Return (5 * 2048,) features of one volume; the mask is not used."""
        slices = plane_slices(image, PLANES[self.plane], self._spacing_mm)
        return self.features(self.images(slices)).ravel()


def plane_slices(image: NDArray[np.float32], axis: int, spacing_mm: float) -> NDArray[np.float32]:
    """Return (5, S, S) slices of an (I, J, K) volume at `OFFSETS_MM`, upright, padded with 0.

    Parameters
    ----------
    axis : across the slices.
    spacing_mm : along that axis.
    """
    centre = (image.shape[axis] - 1) / 2
    places = [int(np.floor(centre + mm / spacing_mm + 0.5)) for mm in OFFSETS_MM]
    chosen = np.moveaxis(image, axis, 0)[places]
    upright = chosen.transpose(0, 2, 1)[:, ::-1]
    height, width = upright.shape[1:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    margins = ((0, 0), (top, side - height - top), (left, side - width - left))
    return np.pad(upright, margins)


Base = TypeVar("Base", bound=type[PretrainedSlices])


def one_per_plane(stem: str) -> Callable[[Base], Base]:
    """Decorate a class of slices to register it for each plane, as ``stem-plane-5x20mm``."""

    def decorate(base: Base) -> Base:
        for plane in PLANES:
            name = f"{stem}-{plane}-{PLACES}"
            members: dict[str, Any] = {
                "name": name,
                "plane": plane,
                "__doc__": (base.__doc__ or "").replace("of one plane", f"of the {plane} plane"),
                "__module__": base.__module__,
            }
            FEATURES.register(name)(type(f"{base.__name__}{plane.capitalize()}", (base,), members))
        return base

    return decorate

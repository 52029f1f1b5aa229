"""Features of the FID's Inception-v3, by the first resizing and by the clean one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.features.pretrained import PretrainedSlices, one_per_plane

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gyri.evaluation.extractors.inception import Resize


class Inception(PretrainedSlices):
    """Base of both: slices rounded to 0 .. 255, grey in three channels, 299 x 299."""

    weights_name = "inception-tf"
    resize: ClassVar[Resize]

    def network(self) -> nn.Module:
        """Return Inception-v3, resizing as the set says."""
        network = super().network()
        network.resize = self.resize  # type: ignore[assignment]
        return network

    def images(self, slices: NDArray[np.float32]) -> Tensor:
        """Return (B, 3, S, S) uint8; beyond [0, 1] is cut, as the network knows no more."""
        import torch

        grey = torch.from_numpy(np.rint(np.clip(slices, 0, 1) * 255).astype(np.uint8))
        return grey[:, None].expand(-1, 3, -1, -1)


@one_per_plane("inception-tf")
class InceptionTf(Inception):
    """Inception-v3 of the FID on five slices of one plane, 20 mm apart, side by side in a row.

    TensorFlow 1's bilinear resizing without antialiasing, as in the first FID. 10240 features a
    volume, which is not the FID of pooled slices. Trained on photographs: sees texture and edges,
    knows no anatomy, and sees nothing between its slices. Needs the weights ``inception-tf``.
    """

    resize = "tf"


@one_per_plane("inception-clean")
class InceptionClean(Inception):
    """Inception-v3 of the FID on five slices of one plane, resized by an antialiased filter.

    Pillow's bicubic on floats, as clean-fid (Parmar et al. 2022); all else as ``inception-tf``,
    whose weights it needs.
    """

    resize = "clean"

"""Features of RadImageNet's ResNet-50."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.features.pretrained import PretrainedSlices, one_per_plane

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 224
"""Side of the images that the network was trained on."""


@one_per_plane("radimagenet-resnet50")
class RadImageNetSlices(PretrainedSlices):
    """ResNet-50 of RadImageNet on five slices of one plane, 20 mm apart, side by side in a row.

    Slices in [0, 1] are resized to 224 x 224 by Pillow's antialiased bicubic filter, put into
    three channels, and have (0.406, 0.456, 0.485) subtracted in the order BGR. 10240 features a
    volume. Trained on radiology; sees nothing between its slices. Needs the weights
    ``radimagenet-resnet50``.
    """

    weights_name = "radimagenet-resnet50"

    def images(self, slices: NDArray[np.float32]) -> Tensor:
        """Return (B, 3, 224, 224) float32."""
        import torch

        from gyri.evaluation.extractors.inception import resize_clean

        grey = resize_clean(torch.from_numpy(np.ascontiguousarray(slices))[:, None], SIZE)
        return grey.expand(-1, 3, -1, -1)

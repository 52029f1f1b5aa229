"""MedicalNet: 3D residual networks trained to segment 8 or 23 medical data sets.

Chen, Ma, Zheng 2019 (arXiv:1904.00625). The last two stages dilate (2 and 4) in place of striding,
shortcuts are projections (type B), and the segmentation head gives way to a global average.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.extractors.resnet import Layout, ResNet

DEPTHS: dict[int, tuple[int, int, int, int]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def medicalnet(depth: Literal[50, 101] = 50) -> ResNet:
    """Return the network without weights: (B, 1, D, H, W) becomes (B, 2048).

    D is the axial axis, as in the data that it was trained on.
    """
    return ResNet(
        Layout(
            dims=3,
            channels=1,
            depths=DEPTHS[depth],
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
        )
    )


def znz0(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the image z-scored over its own mask, with a background of 0.

    The network was trained with N(0, 1) noise in the background; 0 is its mean and lets features
    depend on the volume alone. An empty mask, or a constant image, gives zeros.

    Parameters
    ----------
    image, mask : (I, J, K).
    """
    inside = image[mask].astype(np.float64)
    out = np.zeros(image.shape, np.float32)
    if inside.size and inside.std() > 0:
        out[mask] = (inside - inside.mean()) / inside.std()
    return out

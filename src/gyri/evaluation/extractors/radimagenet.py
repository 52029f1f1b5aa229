"""RadImageNet's ResNet-50: trained on 1.35 million CT, MR and ultrasound images.

Mei et al. 2022 (doi:10.1148/ryai.210315). The Keras network, as converted to torch for MONAI's
perceptual loss (``RadImageNet-ResNet50_notop.pth``): convolutions have a bias and blocks stride
in their first convolution. The authors' own torch file ``ResNet50.pt`` is another network.
"""

from __future__ import annotations

from torch import Tensor

from gyri.evaluation.extractors.resnet import Layout, ResNet

MEAN_BGR = (0.406, 0.456, 0.485)
LAYOUT = Layout(
    dims=2,
    channels=3,
    depths=(3, 4, 6, 3),
    strides=(1, 2, 2, 2),
    strides_first=True,
    bias=True,
    eps=1.001e-5,
)


class RadImageNet(ResNet):
    """ResNet-50 of RadImageNet up to its last pool: (B, 3, H, W) in [0, 1] becomes (B, 2048)."""

    def __init__(self) -> None:
        super().__init__(LAYOUT)

    @staticmethod
    def prepare(images: Tensor) -> Tensor:
        """Return (B, 3, H, W) RGB in [0, 1] as BGR without the training images' mean."""
        mean = images.new_tensor(MEAN_BGR).reshape(1, 3, 1, 1)
        return images.flip(1) - mean

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 2048) features of (B, 3, H, W) RGB images in [0, 1]."""
        return super().forward(self.prepare(images))

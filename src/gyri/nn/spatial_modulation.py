"""Images that say what is where: a scale and a shift at every place (SPADE).

Park et al., 2019, arXiv:1903.07291, equation 1, without its normalisation, which a style's
demodulation makes needless.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate

from gyri.nn.layers import conv, zero_init


class SpatialModulation(nn.Module):
    """Scales and shifts maps as an image says; leaves them alone at the start.

    Parameters
    ----------
    dims : spatial axes.
    channels : C of the maps.
    context_channels : C' of the image.
    """

    def __init__(self, dims: int, channels: int, context_channels: int) -> None:
        super().__init__()
        self.said = zero_init(conv(dims, context_channels, 2 * channels))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, C, *S) and an image (B, C', *S') on the same or a finer grid -> (B, C, *S)."""
        seen = interpolate(context, size=x.shape[2:], mode="area")
        scale, shift = self.said(seen).chunk(2, dim=1)
        return x * (1 + scale) + shift

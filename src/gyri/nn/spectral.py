"""Spectral normalisation: a layer's weights divided by the largest singular value of their matrix.

Miyato et al., 2018, arXiv:1802.05957. The published power iteration keeps a vector that moves with
every pass, so that results depend on how a batch was cut; here the value is exact.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gyri.nn.layers import CONVOLUTIONS

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Spectral(nn.Module):
    """Divides weights (C_out, ...), as a matrix of C_out rows, by its largest singular value."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return weights of the same shape."""
        # In float64, which autocast leaves alone.
        rows = weight.flatten(1).double()
        if rows.shape[0] > rows.shape[1]:
            rows = rows.T
        # The square root of the largest eigenvalue of the small Gram matrix: no long vectors.
        largest = torch.linalg.eigvalsh(rows @ rows.T)[-1].sqrt()
        return weight / largest.to(weight.dtype)


def spectrally_normalised(network: AnyModule) -> AnyModule:
    """Put `Spectral` on the weights of every convolution in `network`."""
    for module in list(network.modules()):
        if isinstance(module, tuple(CONVOLUTIONS.values())):
            parametrize.register_parametrization(module, "weight", Spectral())
    return network

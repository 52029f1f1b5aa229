"""Features of MedicalNet's 3D residual networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.features import FloatArray
from gyri.evaluation.features.pretrained import NUM_FEATURES, Pretrained
from gyri.registry import FEATURES


class MedicalNet(Pretrained):
    """Base of all: whole volumes as ``znz0``, averaged over the last grid."""

    @property
    def names(self) -> tuple[str, ...]:
        """2048 rotated channels."""
        return tuple(f"{index:04d}" for index in range(NUM_FEATURES))

    def row(self, image: NDArray[np.float32], mask: NDArray[np.bool_]) -> FloatArray:
        """Return (2048,) features of one volume on its own grid, the axial axis first."""
        import torch

        from gyri.evaluation.extractors.medicalnet import znz0

        normalised = np.ascontiguousarray(znz0(image, mask).T)
        return self.features(torch.from_numpy(normalised)[None, None])[0]


@FEATURES.register("medicalnet-50-znz0")
class MedicalNet50(MedicalNet):
    """MedicalNet's 3D ResNet-50 of 8 data sets, volumes z-scored over their mask (2048 features).

    The background is 0 and no volume knows of another, unlike in most published MedicalNet
    distances, which differ from one another, too. Features depend on the voxel spacing. Needs the
    weights ``medicalnet-50``.
    """

    name = "medicalnet-50-znz0"
    weights_name = "medicalnet-50"


@FEATURES.register("medicalnet-50-23datasets-znz0")
class MedicalNet50Of23(MedicalNet):
    """MedicalNet's 3D ResNet-50 of 23 data sets, volumes z-scored over their mask (2048 features).

    As ``medicalnet-50-znz0``. Needs the weights ``medicalnet-50-23datasets``.
    """

    name = "medicalnet-50-23datasets-znz0"
    weights_name = "medicalnet-50-23datasets"


@FEATURES.register("medicalnet-101-znz0")
class MedicalNet101(MedicalNet):
    """MedicalNet's 3D ResNet-101 of 8 data sets, volumes z-scored over their mask (2048 features).

    As ``medicalnet-50-znz0``. Needs the weights ``medicalnet-101``.
    """

    name = "medicalnet-101-znz0"
    weights_name = "medicalnet-101"

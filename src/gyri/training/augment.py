"""Augmentation: whole TRAIN volumes changed at random, by MONAI's transforms.

The randomness of an item follows from its position in the run's stream and the run's seed, for
each augmentation apart: batch size, processes and a restart change nothing, and neither does
adding another augmentation at the end of the list. Volumes are changed before the view cuts items
out of them, so that neighbouring slices of an item change alike.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gyri.errors import UnavailableError
from gyri.recipe import (
    Augment,
    BiasField,
    Crop,
    Elastic,
    Flip,
    Gamma,
    Rotate,
    Scale,
    Shift,
    Zoom,
)
from gyri.runtime.seeding import derive_seed
from gyri.training.labels import to_inside, to_outside
from gyri.types import Channel

INTENSITY, LABEL = "intensity", "label"
AXES = {"left_right": 0, "back_front": 1, "foot_head": 2}

Data = dict[str, Tensor]
"""``intensity`` (C, I, J, K) in [0, 1] with a background of 0, ``label`` (L, I, J, K) integers."""

_log = logging.getLogger(__name__)


def build_augmentation(
    configs: Sequence[Augment], channels: Sequence[Channel]
) -> Augmentation | None:
    """Return what a recipe's ``data.augment`` does, or None where it is empty.

    Raises
    ------
    UnavailableError
        MONAI is not installed.
    """
    if not configs:
        return None
    if any(isinstance(config, Flip) and config.axis == "left_right" for config in configs):
        _log.warning(
            "data.augment flips left and right: laterality is lost, synthetic brains may be "
            "mirrored, and conditions on handedness or side of a lesion mean nothing."
        )
    return Augmentation(configs, channels)


class Augmentation:
    """Changes volumes, each by its own seed.

    Parameters
    ----------
    configs : what is done, in order.
    channels : of the volumes. Intensities are interpolated linearly, labels by the nearest voxel.

    Raises
    ------
    UnavailableError
        MONAI is not installed.
    """

    def __init__(self, configs: Sequence[Augment], channels: Sequence[Channel]) -> None:
        try:
            from monai import transforms
        except ImportError:
            raise UnavailableError(
                "data.augment needs MONAI, which is not installed. Run "
                "`pip install 'gyri[augment]'`, or leave data.augment out."
            ) from None
        self.channels = tuple(channels)
        self._monai: Any = transforms
        self._configs = tuple(configs)
        has_labels = any(channel.kind == "label" for channel in channels)
        self._keys = [INTENSITY, LABEL] if has_labels else [INTENSITY]
        self._modes = ["bilinear", "nearest"][: len(self._keys)]

    def __call__(self, volumes: Tensor, seeds: Tensor) -> Tensor:
        """Change each volume by its own seed.

        Parameters
        ----------
        volumes : (B, C, I, J, K) as a model sees them: in [-1, 1], labels one-hot.
        seeds : (B,) int64.

        Returns
        -------
        Tensor
            Of the same shape, range and device. The work is done on the CPU, so that every device
            trains on the same volumes.
        """
        changed = [self._change(v, s) for v, s in zip(volumes.cpu(), seeds.tolist(), strict=True)]
        return torch.stack(changed).to(volumes.device)

    def _change(self, volume: Tensor, seed: int) -> Tensor:
        parts = to_outside(volume, self.channels, axis=0)
        kinds = [channel.kind for channel in self.channels]
        data = {
            key: torch.stack([part for part, kind in zip(parts, kinds) if kind == key]).float()
            for key in self._keys
        }
        data[INTENSITY] = (data[INTENSITY] + 1) / 2
        for place, config in enumerate(self._configs):
            rng = np.random.RandomState(derive_seed(seed, place, config.name) % 2**32)
            if rng.uniform() < config.p:
                data = self._apply(config, data, rng)
        data[INTENSITY] = data[INTENSITY] * 2 - 1
        rest = {key: iter(tensor) for key, tensor in data.items()}
        return to_inside([next(rest[kind]) for kind in kinds], self.channels, axis=0)

    def _apply(self, config: Augment, data: Data, rng: np.random.RandomState) -> Data:
        transform = self._transform(config, data[INTENSITY].shape[1:])
        transform.set_random_state(state=rng)
        changed = transform(dict(data))
        result = {key: torch.as_tensor(changed[key]).as_subclass(Tensor) for key in self._keys}
        if not config.moves:
            # A background that is not exactly 0 would be foreground to everything that follows.
            result[INTENSITY] = result[INTENSITY] * (data[INTENSITY] > 0)
        result[INTENSITY] = result[INTENSITY].clamp(0, 1)
        return result

    @singledispatchmethod
    def _transform(self, config: Any, shape: Sequence[int]) -> Any:
        """Return the MONAI transform of a config; probabilities are drawn before."""
        raise TypeError(f"{type(config).__name__} is no augmentation")

    @_transform.register
    def _(self, config: Flip, shape: Sequence[int]) -> Any:
        return self._monai.RandFlipd(self._keys, prob=1.0, spatial_axis=AXES[config.axis])

    @_transform.register
    def _(self, config: Rotate, shape: Sequence[int]) -> Any:
        radians = tuple(math.radians(angle) for angle in config.degrees)
        around = {f"range_{'xyz'[AXES[config.axis]]}": radians}
        return self._monai.RandRotated(
            self._keys, prob=1.0, mode=self._modes, padding_mode="zeros", **around
        )

    @_transform.register
    def _(self, config: Zoom, shape: Sequence[int]) -> Any:
        low, high = config.factor
        return self._monai.RandZoomd(
            self._keys,
            prob=1.0,
            min_zoom=low,
            max_zoom=high,
            mode=["trilinear", "nearest-exact"][: len(self._keys)],
            padding_mode="constant",
        )

    @_transform.register
    def _(self, config: Crop, shape: Sequence[int]) -> Any:
        size = [max(1, round(config.share * length)) for length in shape]
        return self._monai.Compose(
            [
                self._monai.RandSpatialCropd(self._keys, roi_size=size, random_size=False),
                self._monai.Resized(
                    self._keys,
                    spatial_size=tuple(shape),
                    mode=["trilinear", "nearest-exact"][: len(self._keys)],
                ),
            ]
        )

    @_transform.register
    def _(self, config: Elastic, shape: Sequence[int]) -> Any:
        return self._monai.Rand3DElasticd(
            self._keys,
            sigma_range=config.sigma,
            magnitude_range=config.magnitude,
            prob=1.0,
            mode=self._modes,
            padding_mode="zeros",
        )

    @_transform.register
    def _(self, config: Shift, shape: Sequence[int]) -> Any:
        return self._monai.RandShiftIntensityd([INTENSITY], offsets=config.offset, prob=1.0)

    @_transform.register
    def _(self, config: Scale, shape: Sequence[int]) -> Any:
        low, high = config.factor
        return self._monai.RandScaleIntensityd([INTENSITY], factors=(low - 1, high - 1), prob=1.0)

    @_transform.register
    def _(self, config: Gamma, shape: Sequence[int]) -> Any:
        return self._monai.RandAdjustContrastd([INTENSITY], gamma=config.gamma, prob=1.0)

    @_transform.register
    def _(self, config: BiasField, shape: Sequence[int]) -> Any:
        return self._monai.RandBiasFieldd(
            [INTENSITY], degree=config.degree, coeff_range=config.coefficients, prob=1.0
        )

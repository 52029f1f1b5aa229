"""Features that TRAIN itself teaches: what tells its people apart, whatever the scanner did."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.features import FeatureSet, FloatArray, sliced
from gyri.evaluation.features.sliced import BoolArray, Images, brain_support, masked_downsample
from gyri.evaluation.segment import Segmented, bounding_box
from gyri.registry import FEATURES
from gyri.runtime.cache import cache_folder

if TYPE_CHECKING:
    from gyri.evaluation.simclr import Encoder, SimCLR

NUM_FEATURES = 64
LOG = logging.getLogger(__name__)
_TORCH = Lock()
"""The number of torch's threads is one for the whole process."""


@FEATURES.register("ssl-v1")
class SelfSupervised(FeatureSet):
    """64 features of a small 3D encoder trained by SimCLR on TRAIN alone, on the unit sphere.

    Coarse masked volumes (32^3 cells) in which everybody of TRAIN is to be recognised after small
    rotations, changes of size and place, of gain, contrast, shading and noise, and with a part cut
    out; see `gyri.evaluation.simclr`. No mirror images: sides differ. The number of steps is
    fixed, so that the same TRAIN on the same machine gives the same weights, which are part of
    the definition: distances of encoders from different TRAINs, or trained twice on different
    processors, are not comparable and their names say so. The weights stay in this machine's
    cache (`gyri.runtime.cache.cache_folder`), never beside samples: they know TRAIN.

    Sees blur, repeated slices, missing variety, turned and clipped brains. Blind to what is smaller
    than a cell (texture, fine noise), to global gain, and little sensitive to what training changes
    at random: contrast, bias fields, coarse noise, poses a few degrees or a few percent off. People
    of TRAIN are told apart better than others.
    """

    name = "ssl-v1"
    min_people = 40

    def __init__(self, settings: SimCLR | None = None) -> None:
        from gyri.evaluation.simclr import SimCLR

        super().__init__()
        self._settings = settings or SimCLR()
        self._encoder: Encoder | None = None
        self._box: tuple[slice, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """One name a coordinate."""
        return tuple(f"coordinate_{index:02d}" for index in range(NUM_FEATURES))

    def learn(self, train: VolumeSet) -> None:
        """Train the encoder, or read it where this machine has trained it before."""
        import torch

        from gyri.evaluation.simclr import Encoder, train_encoder

        images = train.volumes[:, 0]
        support = brain_support(images)
        self.state = {"support": support.astype(np.float64)}
        share = masked_downsample(support[None].astype(np.float32), support)[0]
        self._box = bounding_box(share > 0)
        coarse, mask = self._coarse(images), np.ascontiguousarray(share[self._box])
        file = self._file(coarse, train.ids)
        encoder = Encoder.for_train(torch.from_numpy(coarse), torch.from_numpy(mask)).eval()
        if not _read(encoder, file):
            LOG.info("ssl-v1: training an encoder on %d volumes of %s", len(train), train.name)
            encoder = train_encoder(coarse, mask, train.ids, self._settings)
            with suppress(OSError):
                _write(encoder, file)
        weights = encoder.state_dict()
        self.state |= {key: value.double().numpy() for key, value in weights.items()}
        self._encoder = encoder

    @property
    def _support(self) -> BoolArray:
        return self.state["support"] > 0

    def _coarse(self, images: Images) -> Images:
        """Return the coarse volumes, cut to the cells that hold brain."""
        cells = masked_downsample(images, self._support)
        return np.ascontiguousarray(cells[(slice(None), *self._box)])

    def _file(self, coarse: Images, people: list[str]) -> Path:
        key = hashlib.sha256(self._source())
        key.update(repr((self._settings, coarse.shape, people)).encode())
        key.update(self._support.tobytes())
        key.update(coarse.tobytes())
        return cache_folder() / f"ssl-v1-{key.hexdigest()[:32]}.safetensors"

    def _source(self) -> bytes:
        from gyri.evaluation import simclr

        modules = (sys.modules[__name__], simclr, sliced)
        return "".join(inspect.getsource(module) for module in modules).encode()

    def extract(self, segmented: Segmented) -> FloatArray:
        """Return (N, 64) points on the unit sphere; NaN on another grid than TRAIN's."""
        import torch

        from gyri.evaluation.simclr import one_thread

        assert self._encoder is not None
        if segmented.image.shape[1:] != self._support.shape:
            return np.full((len(segmented), NUM_FEATURES), np.nan)
        coarse = torch.from_numpy(self._coarse(np.nan_to_num(segmented.image)))
        with _TORCH, one_thread(), torch.inference_mode():
            # One at a time: in a batch the last bits would depend on its size.
            rows = [self._encoder(coarse[row : row + 1]) for row in range(len(coarse))]
        return torch.cat(rows).double().numpy()

    def definition(self) -> str:
        """SHA-256 of the code of encoder and training, the settings and the weights."""
        parts = super().definition().encode() + self._source() + repr(self._settings).encode()
        return hashlib.sha256(parts).hexdigest()


def _digest(weights: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode() + np.ascontiguousarray(weights[key]).tobytes())
    return digest.hexdigest()


def _read(encoder: Encoder, file: Path) -> bool:
    """Fill the encoder from a file; False, and nothing changed, if that is absent or damaged."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as kept:
            names = list(kept.keys())
            weights = {name: kept.get_tensor(name) for name in names}
            digest = (kept.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return False
    if digest != _digest(weights):
        LOG.warning("%s is damaged; training its encoder again.", file)
        return False
    encoder.load_state_dict({key: torch.from_numpy(array) for key, array in weights.items()})
    return True


def _write(encoder: Encoder, file: Path) -> None:
    from safetensors.numpy import save_file

    weights = {key: value.numpy() for key, value in encoder.state_dict().items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{os.getpid()}-{file.name}")
    save_file(weights, temporary, {"sha256": _digest(weights)})
    temporary.replace(file)

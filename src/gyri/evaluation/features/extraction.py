"""Every feature of a set of volumes in one pass, kept by content in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.features import FeatureSet, FloatArray
from gyri.evaluation.segment import Segmented, TissueModel, fit_tissue_model, segment
from gyri.registry import FEATURES

CHUNK = 8
FIT_VOLUMES = 40
"""TRAIN volumes, evenly spaced, on which bins and planes are fitted."""
QUALITY = "quality"
"""Key of the segmentation's own (N, 2): pieces and the largest one's share."""


def volume_hashes(volumes: VolumeSet) -> list[str]:
    """Return the SHA-256 of each volume's voxels."""
    return [
        hashlib.sha256(np.ascontiguousarray(v, np.float32).tobytes()).hexdigest()
        for v in volumes.volumes
    ]


def num_workers() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Extractor:
    """Fitted feature sets and tissue model, applied to sets of volumes.

    Parameters
    ----------
    train : TRAIN; everything that is fitted is fitted here.
    cache : folder that keeps features by content (safetensors), or None.
    names : feature sets to measure; by default all that need not be asked for.

    Attributes
    ----------
    refused : why a set that was asked for cannot be measured, by name.
    """

    def __init__(
        self, train: VolumeSet, cache: Path | None = None, names: Sequence[str] | None = None
    ) -> None:
        wanted = [n for n in FEATURES if FEATURES[n].component.default] if names is None else names
        reasons = {n: _refusal(FEATURES[n].component, train) for n in wanted}
        self.refused = {n: reason for n, reason in reasons.items() if reason}
        rows = np.unique(np.linspace(0, len(train) - 1, FIT_VOLUMES).round().astype(int))
        self.cache = cache
        self.model: TissueModel = fit_tissue_model(train)
        self.sets: Mapping[str, FeatureSet] = {
            n: FEATURES[n].component() for n in wanted if n not in self.refused
        }
        fitted = segment(train.take(rows), self.model)
        for feature_set in self.sets.values():
            feature_set.fit(fitted)
            feature_set.learn(train)
        self.definitions = {n: s.definition() for n, s in self.sets.items()}

    def extract(
        self, volumes: VolumeSet, advance: Callable[[int], None] | None = None
    ) -> dict[str, FloatArray]:
        """Return (N, d) for every feature set, and `QUALITY`.

        Parameters
        ----------
        volumes : at least one volume; equal volumes are measured once.
        advance : called with the number of volumes that have just been finished.
        """
        hashes = volume_hashes(volumes)
        unique = {h: row for row, h in reversed(list(enumerate(hashes)))}
        place = {h: index for index, h in enumerate(unique)}
        rows = np.array(list(unique.values()))
        kept = self._load(volumes, list(unique))
        if kept is None:
            kept = self._measure(volumes.take(rows), advance)
            self._save(volumes, list(unique), kept)
        elif advance:
            advance(len(rows))
        order = [place[h] for h in hashes]
        return {name: array[order] for name, array in kept.items()}

    def _measure(
        self, volumes: VolumeSet, advance: Callable[[int], None] | None
    ) -> dict[str, FloatArray]:
        def chunk(start: int) -> dict[str, FloatArray]:
            part = segment(
                volumes.take(np.arange(start, min(start + CHUNK, len(volumes)))), self.model
            )
            found = {name: s.extract(part) for name, s in self.sets.items()}
            found[QUALITY] = _quality(part)
            if advance:
                advance(len(part))
            return found

        with ThreadPoolExecutor(num_workers()) as pool:
            parts = list(pool.map(chunk, range(0, len(volumes), CHUNK)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _file(self, volumes: VolumeSet, hashes: list[str]) -> Path | None:
        if self.cache is None:
            return None
        key = hashlib.sha256()
        for text in (*sorted(self.definitions.values()), repr(volumes.grid.spacing_mm), *hashes):
            key.update(text.encode())
        return self.cache / f"features-{key.hexdigest()[:32]}.safetensors"

    def _load(self, volumes: VolumeSet, hashes: list[str]) -> dict[str, FloatArray] | None:
        from safetensors.numpy import load_file

        file = self._file(volumes, hashes)
        return None if file is None or not file.exists() else load_file(file)

    def _save(self, volumes: VolumeSet, hashes: list[str], arrays: dict[str, FloatArray]) -> None:
        from safetensors.numpy import save_file

        file = self._file(volumes, hashes)
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, temporary)
        temporary.replace(file)


def _refusal(kind: type[FeatureSet], train: VolumeSet) -> str | None:
    people = len(set(train.ids))
    if people < kind.min_people:
        return (
            f"{people} people in {train.name}; {kind.name} learns from at least {kind.min_people}."
        )
    return kind.refusal(train.grid)


def _quality(part: Segmented) -> FloatArray:
    return np.stack([part.components.astype(np.float64), part.largest_share], axis=1)

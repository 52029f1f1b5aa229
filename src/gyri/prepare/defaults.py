"""Which steps a cohort goes through where the caller names none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gyri.cohort.nifti import read_volume
from gyri.errors import DataError
from gyri.prepare.brain_mask import BrainMaskConfig
from gyri.prepare.crop import CropConfig
from gyri.prepare.intensity import IntensityConfig
from gyri.prepare.parallel import Workers
from gyri.prepare.register import RegisterConfig
from gyri.prepare.reorient import ReorientConfig
from gyri.prepare.resample import ResampleConfig
from gyri.prepare.scan import is_stripped
from gyri.prepare.survey import Session
from gyri.prepare.template import CENTRE_MM

SPACING_MM = 4.0
FIELD_OF_VIEW_MM = (160, 192, 160)
"""Holds an adult brain; its quarter and eighth are grids that halve evenly."""

PROBES = 5
"""Scans that are looked at before the steps are chosen."""


def default_shape(spacing_mm: float) -> tuple[int, int, int]:
    """Return the grid that covers 160 x 192 x 160 mm: 40 x 48 x 40 voxels at 4 mm."""
    counts = [max(1, round(extent / spacing_mm)) for extent in FIELD_OF_VIEW_MM]
    return counts[0], counts[1], counts[2]


def default_steps(
    spacing_mm: float,
    shape: tuple[int, int, int] | None = None,
    *,
    whole_heads: bool = False,
    mask: bool | None = None,
    register: bool | None = None,
) -> dict[str, Any]:
    """Return steps with their settings, in order.

    Always reorient, resample, crop and intensity; with `mask` brain_mask and with `register`
    register after reorient. Registered scans share one window around the MNI152 brain.

    Parameters
    ----------
    whole_heads : what `mask` and `register` are where they are None.
    """
    mask = whole_heads if mask is None else mask
    register = whole_heads if register is None else register
    shape = shape or default_shape(spacing_mm)
    steps: dict[str, Any] = {"reorient": ReorientConfig()}
    if mask:
        steps["brain_mask"] = BrainMaskConfig()
    if register:
        steps["register"] = RegisterConfig()
    centre_mm = CENTRE_MM if register else None
    through_mm = _first_voxel_mm(shape, spacing_mm) if register else None
    steps["resample"] = ResampleConfig(spacing_mm=spacing_mm, through_mm=through_mm)
    steps["crop"] = CropConfig(shape=shape, centre_mm=centre_mm)
    steps["intensity"] = IntensityConfig()
    return steps


def _first_voxel_mm(shape: tuple[int, int, int], spacing_mm: float) -> tuple[float, float, float]:
    x, y, z = (c - spacing_mm * (n - 1) / 2 for c, n in zip(CENTRE_MM, shape))
    return x, y, z


def has_whole_heads(sessions: Sequence[Session], workers: Workers) -> bool:
    """Say whether most of five scans, evenly spread over the cohort, show a whole head.

    Scans that cannot be read do not count. The last two are not read where the first three agree:
    everything else waits for this answer.
    """
    last = len(sessions) - 1
    chosen = sorted({round(last * part / (PROBES - 1)) for part in range(PROBES)})
    majority = PROBES // 2 + 1
    votes: list[bool] = []
    for part in (chosen[:majority], chosen[majority:]):
        if not part or (len(votes) == majority and len(set(votes)) == 1):
            break
        calls = [(_is_head, (sessions[index],)) for index in part]
        seen = workers.map(calls, "Looking for heads")
        votes += [head for head in seen if head is not None]
    return sum(votes) > len(votes) / 2


def _is_head(session: Session) -> bool | None:
    """Say whether a session's intensities show a whole head; None where none can be read."""
    for path, channel in zip(session.files, session.channels):
        if channel.kind == "label":
            continue
        try:
            volume, affine, _ = read_volume(Path(path))
        except DataError:
            return None
        if not is_stripped(volume, affine):
            return True
    return False

"""Features for other tools: one safetensors file a feature set and side."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gyri.evaluation.metrics import Evidence, Study


def export_features(
    folder: Path, generated: Evidence, study: Study, definitions: Mapping[str, str]
) -> list[Path]:
    """Write the features of TRAIN, HOLD and the generated set for tools that compute their own.

    Each file ``<set>-<side>.safetensors``, side ``train``, ``hold`` or ``generated``, holds two
    float32 tensors of one row a volume: ``features`` (N, d), z-scored by TRAIN without the
    columns that TRAIN holds constant, which is what the distances read, and ``raw`` (N, D), the
    values in their own units. The metadata holds JSON: ``ids`` and ``names`` (rows, and columns
    of ``raw``), and ``feature_set``, ``side`` and ``definition``, the SHA-256 in the sheet.

    Parameters
    ----------
    folder : made where it is missing; older files of the same names are replaced.
    definitions : SHA-256 by feature set.

    Returns
    -------
    list of Path
    """
    folder.mkdir(parents=True, exist_ok=True)
    sides = {"train": study.train, "hold": study.hold, "generated": generated}
    return [
        _write(folder, name, side, evidence, study, definitions[name])
        for name in study.feature_sets
        for side, evidence in sides.items()
    ]


def _write(
    folder: Path, name: str, side: str, evidence: Evidence, study: Study, definition: str
) -> Path:
    from safetensors.numpy import save_file

    path = folder / f"{name}-{side}.safetensors"
    tensors = {"features": evidence.features[name], "raw": evidence.raw[name]}
    metadata = {
        "feature_set": name,
        "side": side,
        "definition": definition,
        "ids": json.dumps(evidence.volumes.ids),
        "names": json.dumps(study.feature_sets[name].names),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(
        {key: np.ascontiguousarray(array, np.float32) for key, array in tensors.items()},
        temporary,
        metadata,
    )
    temporary.replace(path)
    return path

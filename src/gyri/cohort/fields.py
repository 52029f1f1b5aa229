"""A folder of deformation fields: a template's to every scan of a prepared cohort.

::

    OUT/template.nii.gz, average.nii.gz      what was deformed; the mean of all scans brought to it
    OUT/sub-X/anat/sub-X_from-template_to-T1w_mode-image_xfm.nii.gz     displacement
    OUT/sub-X/anat/sub-X_from-T1w_to-template_mode-image_xfm.nii.gz     its inverse
    OUT/sub-X/anat/sub-X_from-template_to-T1w_mode-image_desc-velocity_xfm.nii.gz
    OUT/sub-X/anat/sub-X_desc-template_T1w.nii.gz     the template as this scan
    OUT/sub-X/anat/sub-X_space-template_T1w.nii.gz    the scan as the template
    OUT/sub-X/anat/sub-X_desc-jacobian_T1w.nii.gz     local volume; 0 or less is a fold
    OUT/registration.json, .tsv, .html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gyri import __version__
from gyri.cohort import bids
from gyri.cohort.files import read_json, write_json
from gyri.cohort.nifti import write_volume
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.vectors import read_vectors, write_vectors
from gyri.errors import UsageError

STARTED = ".gyri-registration.json"
SUMMARY, TABLE = "registration.json", "registration.tsv"
DECISIVE = ("method", "template", "channel", "checkpoint_sha256", "overrides", "data_hash")
"""What may not differ where a registration goes on."""
IGNORED = (STARTED, "registration.*", "run", "template.nii.gz", "average.nii.gz", "*_xfm.*")
"""Files that BIDS does not know."""
FROM_TEMPLATE = "_from-template_to-T1w_mode-image"
TO_TEMPLATE = "_from-T1w_to-template_mode-image"
DISPLACEMENT, VELOCITY = "_xfm", "_desc-velocity_xfm"
README = (
    "The fields and volumes in this folder show real people, under their labels: personal data "
    "like the scans. Vector images are in millimetres along ITK's axes (left, back, up); "
    "from-template_to-* brings images of the template to a scan, from-*_to-template the other "
    "way, as antsApplyTransforms and SimpleITK's DisplacementFieldTransform take them."
)


@dataclass(frozen=True)
class FieldFolder:
    """The folder.

    Parameters
    ----------
    root : it.
    cohort : whose scans are deformed to.
    """

    root: Path
    cohort: PreparedCohort

    def start(self, about: Mapping[str, Any]) -> None:
        """Describe the data set, or refuse the folder of another registration.

        Parameters
        ----------
        about : what decides the fields; of these keys `DECISIVE` may not differ.
        """
        mine = {**about, "data_hash": self.cohort.data_hash}
        old = read_json(self.root / STARTED, missing_ok=True)
        if old and any(old.get(key) != mine.get(key) for key in DECISIVE):
            raise UsageError(
                f"{self.root} holds the fields of another registration ({old.get('method')}, "
                f"template {old.get('template')}). Register into another folder."
            )
        write_json(self.root / STARTED, mine)
        bids.write_derivative_description(
            self.root,
            f"Deformations of a template to the scans of {self.cohort.name}",
            [{"Name": "gyri", "Version": __version__, "Description": about["method"]}],
            [{"URL": self.cohort.root.as_uri()}],
            ignore=IGNORED,
        )
        bids.write_readme(self.root, "Deformation fields", README)

    def _path(self, subject: str, session: str, ending: str) -> Path:
        base = self.root / bids.stem(subject, session)
        return base.with_name(f"{base.name}{ending}")

    def measures(self, subject: str, session: str) -> dict[str, float] | None:
        """Return the numbers of a scan whose files are all written, else None."""
        about = read_json(
            self._path(subject, session, f"{FROM_TEMPLATE}{DISPLACEMENT}.json"), missing_ok=True
        )
        return about.get("Measures")

    def finish(self, subject: str, session: str, measures: Mapping[str, float]) -> None:
        """Say that all files of a scan are written."""
        path = self._path(subject, session, f"{FROM_TEMPLATE}{DISPLACEMENT}.json")
        write_json(path, {"Measures": dict(measures)})

    def write_field(
        self, subject: str, session: str, way: str, field: np.ndarray, kind: str = DISPLACEMENT
    ) -> None:
        """Write a field (3, I, J, K) in voxels.

        Parameters
        ----------
        way : `FROM_TEMPLATE` or `TO_TEMPLATE`.
        kind : `DISPLACEMENT` or `VELOCITY`.
        """
        path = self._path(subject, session, f"{way}{kind}.nii.gz")
        write_vectors(path, field, self.cohort.grid, "gyri register, mm, LPS")

    def read_field(self, subject: str, session: str, way: str) -> np.ndarray | None:
        """Return a displacement as `write_field` takes it, None where the method has none."""
        path = self._path(subject, session, f"{way}{DISPLACEMENT}.nii.gz")
        return read_vectors(path, self.cohort.grid) if path.is_file() else None

    def write_volume(self, subject: str, session: str, entity: str, volume: np.ndarray) -> None:
        """Write a volume (I, J, K) of a scan; `entity` is ``space-template``, for example."""
        path = self._path(subject, session, f"_{entity}_T1w.nii.gz")
        write_volume(path, volume, np.array(self.cohort.grid.affine), descrip="gyri register")
        about: dict[str, Any] = {"SkullStripped": self.cohort.skull_stripped}
        if entity.startswith("space-"):
            about["SpatialReference"] = "bids::template.nii.gz"
        write_json(path.with_name(path.name.replace(".nii.gz", ".json")), about)

    def write_common(self, name: str, volume: np.ndarray) -> None:
        """Write a volume (I, J, K) of nobody, ``template`` or ``average``."""
        path = self.root / f"{name}.nii.gz"
        write_volume(path, volume, np.array(self.cohort.grid.affine), descrip="gyri register")

"""Where every bad file is tried: a folder of good scans with a bad one among them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tests.cohort.small import AFFINE, brain

from gyri.cohort.quarantine import refuse_beyond
from gyri.cohort.sources.folder import folder
from gyri.cohort.table import Cohort
from gyri.errors import DataError

GOOD = ("a", "b")
BAD = "bad"


def good_bytes(seed: int = 7) -> bytes:
    """Return an uncompressed NIfTI-1 file of int16 voxels (22, 26, 22)."""
    return nib.Nifti1Image(np.rint(brain(seed)).astype(np.int16), AFFINE).to_bytes()


def patched(content: bytes, offset: int, layout: str, *values: Any) -> bytes:
    """Return `content` with header fields overwritten (little-endian)."""
    field = struct.pack(f"<{layout}", *values)
    return content[:offset] + field + content[offset + len(field) :]


def put(path: Path, content: bytes) -> Path:
    """Write a scan's bytes, compressed where its name says so."""
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def data_set(root: Path, name: str, write: Callable[[Path], Any]) -> Path:
    """Make a folder of two good scans, a table, and the file `name` that `write` makes."""
    root.mkdir()
    for seed, label in enumerate(GOOD):
        put(root / f"{label}.nii.gz", good_bytes(seed))
    write(root / name)
    people = "".join(f"{label},{30 + n}\n" for n, label in enumerate((*GOOD, BAD)))
    (root / "people.csv").write_text("id,age\n" + people)
    return root


def rule_for(tmp_path: Path, name: str, write: Callable[[Path], Any], **options: Any) -> str:
    """Import a data set with one bad file; return why it is in quarantine.

    What must hold for every such file: the others go on, the bad one is not copied, it is listed
    for the user with its name and for the data set without, and the end is exit code 65.
    """
    src = data_set(tmp_path / "src", name, write)
    cohort = folder(src, tmp_path / "raw", **options)
    assert list(cohort.subjects.index) == list(GOOD)
    assert len(list((tmp_path / "raw").rglob("*.nii*"))) == len(GOOD)
    assert len(cohort.quarantine) == 1
    assert any(str(src / name) in note for note in cohort.notes)
    rule = cohort.quarantine[0]["rule"]
    assert str(tmp_path) not in rule
    with pytest.raises(DataError, match="--max-bad 1") as error:
        refuse_beyond(cohort.quarantine)
    assert error.value.exit_code == 65
    refuse_beyond(cohort.quarantine, max_bad=1)
    return rule


def rule_for_bytes(tmp_path: Path, content: bytes, name: str = "bad.nii.gz", **options: Any) -> str:
    """Return why a file of these (uncompressed) bytes is in quarantine."""
    return rule_for(tmp_path, name, lambda path: put(path, content), **options)


def accepted(tmp_path: Path, content: bytes, **options: Any) -> Cohort:
    """Import a data set whose third file must be accepted; return the cohort."""
    src = data_set(tmp_path / "src", f"{BAD}.nii.gz", lambda path: put(path, content))
    cohort = folder(src, tmp_path / "raw", **options)
    assert cohort.quarantine == []
    assert BAD in cohort.subjects.index
    return cohort


def volume_path(cohort: Cohort, label: str = BAD) -> Path:
    """Return the file of a subject's only scan."""
    rows = cohort.scans[cohort.scans["subject"] == label]
    return Path(rows["path"].iloc[0])


def everything(root: Path) -> bytes:
    """Return all bytes that a data set holds, names included, compressed files unpacked."""
    parts = []
    for path in sorted(root.rglob("*")):
        parts.append(str(path.relative_to(root)).encode())
        if path.is_file():
            content = path.read_bytes()
            parts.append(gzip.decompress(content) if path.suffix == ".gz" else content)
    return b"\n".join(parts)

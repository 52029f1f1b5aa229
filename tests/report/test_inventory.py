"""The page of a raw cohort."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.cohort.small import AFFINE, brain, small_cohort
from tests.report.test_page import Page

from gyri.cohort.bids import Scan
from gyri.cohort.nifti import write_volume
from gyri.report.inventory import first_scans, look, write_cohort_page


@pytest.fixture
def cohort(tmp_path: Path):
    """Eight brains: one noisy, one in a file that is no image."""
    noisy = brain(2)
    noisy[noisy > 0] += np.random.default_rng(0).normal(0, 40, int((noisy > 0).sum())).clip(-60)
    cohort = small_cohort(tmp_path / "raw", 8, {"S002": Scan("S002", "T1w", noisy, AFFINE)})
    Path(cohort.scans["path"].iloc[5]).write_bytes(b"no image")
    return cohort


def test_the_page_shows_who_how_and_every_scan(cohort, tmp_path: Path) -> None:
    path = write_cohort_page(cohort, tmp_path / "page.html", jobs=1)
    page = Page(path.read_text(encoding="utf-8"))
    scans = [f for f in page.all("figure") if "scan" in f.get("class", "").split()]
    assert len(scans) == 8
    odd = [scan["id"] for scan in scans if "odd" in scan["class"].split()]
    assert odd == ["scan-6", "scan-3"]
    for said in ("22 x 26 x 22", "LAS", "8 x 8 x 8", "age (years)", "Missing", "Cannot be used"):
        assert said in page.text
    assert "orbits" not in page.text.split("<main")[1]
    for _, attributes in page.elements:
        assert attributes.get("src", "data:").startswith("data:")
    assert not page.all("script")


def test_one_scan_a_subject_the_preferred_modality_first(cohort) -> None:
    more = cohort.scans.assign(modality="T2w")
    both = replace(cohort, scans=pd.concat([more, cohort.scans], ignore_index=True))
    chosen = first_scans(both)
    assert len(chosen) == 8
    assert set(chosen["modality"]) == {"T1w"}


def head(path: Path) -> Path:
    """Write a head-like ellipsoid in noisy air, 220 mm high, vertex inside the image."""
    i, j, k = np.indices((50, 56, 64))
    inside = ((i - 25) / 19) ** 2 + ((j - 28) / 24) ** 2 + ((k - 28) / 28) ** 2 <= 1
    noise = np.random.default_rng(0).normal(0, 2, inside.shape)
    volume = np.where(inside, 100, 3) + np.abs(noise)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    write_volume(path, volume.astype(np.float32), affine, descrip="test")
    return path


def test_a_whole_head_is_pictured_above_the_orbits_only(tmp_path: Path) -> None:
    path = head(tmp_path / "head.nii")
    careful, careless = look(path, 100_000), look(path, 100_000, allow_faces=True)
    assert careful.is_head
    assert careless.is_head
    assert careful.picture is not None
    assert careless.picture is not None
    # Three axial slices of one size against three planes: 56 voxels deep and 57 high.
    assert careful.picture.height_mm != careless.picture.height_mm
    assert careful.picture.outline.count("M") >= 3
    stripped = look(Path(head(tmp_path / "head.nii")).with_name("none.nii"), 1000)
    assert "no such file" in stripped.fault
    assert stripped.picture is None


@pytest.mark.realdata
def test_no_head_of_ixi_is_cut_at_the_eyes(real_data: Path) -> None:
    paths = sorted((real_data / "ixi" / "IXI-T1").glob("*.nii.gz"))[:3]
    assert paths
    for path in paths:
        seen = look(path, 30_000)
        assert seen.is_head
        assert seen.picture is not None

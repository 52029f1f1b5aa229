"""The quality page of a prepared cohort."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.cohort.small import AFFINE, brain, small_cohort
from tests.report.test_page import ATTACK, Page

from gyri.cohort.bids import Scan
from gyri.cohort.prepared import PreparedCohort
from gyri.prepare.pipeline import prepare
from gyri.report.quality import write_quality_page


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> PreparedCohort:
    """Ten brains at 8 mm, of which S003 lacks a half."""
    root = tmp_path_factory.mktemp("quality")
    volume = brain(3)
    volume[:11] = 0
    small_cohort(root / "raw", 10, {"S003": Scan("S003", "T1w", volume, AFFINE)})
    return prepare(root / "raw", root / "out", spacing_mm=8.0, shape=(20, 24, 20), jobs=1)


@pytest.fixture(scope="module")
def page(cohort: PreparedCohort) -> Page:
    path = write_quality_page(cohort)
    assert path == cohort.root / "quality.html"
    return Page(path.read_text(encoding="utf-8"))


def test_nothing_is_loaded_and_no_script_runs(page: Page) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert not page.all("script")
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_every_scan_is_pictured_once_with_its_outline(page: Page, cohort: PreparedCohort) -> None:
    scans = [f for f in page.all("figure") if "scan" in f.get("class", "").split()]
    assert len(scans) == len(cohort.table) == len({scan["id"] for scan in scans})
    masks = [path for path in page.all("path") if path.get("class") == "mask"]
    assert len(masks) == len(scans)
    assert all(path["d"].startswith("M") for path in masks)
    edges = next(path for path in page.all("path") if path.get("id") == "template-edges")
    assert len(edges["d"]) > 200
    assert all(use["href"] == "#template-edges" for use in page.all("use") if "edges" in str(use))
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_the_outlier_comes_first_with_its_reason(page: Page) -> None:
    scans = [f for f in page.all("figure") if "scan" in f.get("class", "").split()]
    assert "odd" in scans[0]["class"].split()
    assert scans[0]["id"] == "scan-4"
    assert re.search(r"<b>volume in ml [\d,]+, z −[\d.,]+</b>", page.text)
    assert "No scan is in quarantine." in page.text


def test_quarantined_scans_are_listed_with_reasons_and_text_is_escaped(
    cohort: PreparedCohort, tmp_path: Path
) -> None:
    entry = {"subject": "S9", "session": "", "file": "x.nii", "rule": f"truncated {ATTACK}"}
    ill = replace(cohort, quarantine=[entry], name=ATTACK)
    text = write_quality_page(ill, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "truncated" in text
    assert not Page(text).all("script")
    assert "1 scan could not be used" in text


def test_whole_heads_are_not_pictured_in_three_planes(
    cohort: PreparedCohort, tmp_path: Path
) -> None:
    first = cohort.path(str(cohort.table.index[0]), "", cohort.channels[0]).with_suffix(".json")
    before = first.read_text()
    try:
        first.write_text(json.dumps({**json.loads(before), "SkullStripped": False}))
        hidden = write_quality_page(cohort, tmp_path / "hidden.html").read_text()
        shown = write_quality_page(cohort, tmp_path / "shown.html", allow_faces=True).read_text()
    finally:
        first.write_text(before)
    # The ellipsoid is too narrow for a head, so its vertex is not trusted.
    assert hidden.count("not pictured") == 1
    assert "only axial slices above the orbits" in hidden
    assert "Mean and spread" not in hidden
    assert "not pictured" not in shown
    assert "Mean and spread" in shown


def test_three_hundred_scans_fit_into_fifteen_megabytes() -> None:
    from gyri.report.quality import MOST_PICTURE_BYTES, PAGE_BYTES

    outline_bytes = 8_000
    for count in (1, 50, 300):
        pictures = count * min(MOST_PICTURE_BYTES, PAGE_BYTES // count) * 4 / 3
        assert pictures + count * outline_bytes < 15e6
    assert np.isfinite(PAGE_BYTES)

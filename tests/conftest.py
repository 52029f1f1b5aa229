"""Shared fixtures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory) -> Iterator[Path]:
    """Folder in which this session keeps what it computes once; the user's own stays untouched."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GYRI_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans; the test is skipped where it is absent."""
    root = Path(os.environ.get("GYRI_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip("no real scans: set GYRI_DATA to their folder")
    return root


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory) -> Path:
    """Fourteen phantoms at 8 mm (20x24x20), prepared: TRAIN 8, VAL 1, HOLD 4, TEST 1."""
    from gyri import api

    root = tmp_path_factory.mktemp("tiny")
    api.import_cohort("phantom", None, root / "raw", num_subjects=14, spacing_mm=8.0, jobs=1)
    api.prepare(
        root / "raw",
        root / "prepared",
        spacing_mm=8.0,
        sizes={"TRAIN": 8, "VAL": 1, "HOLD": 4, "TEST": 1},
        jobs=1,
    )
    return root / "prepared"

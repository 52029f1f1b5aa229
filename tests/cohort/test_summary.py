from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from tests.cohort.small import AFFINE, brain, small_cohort

from gyri.cohort.bids import Scan
from gyri.cohort.summary import counted, describe, describe_grids, read_headers
from gyri.cohort.table import CONVENTIONAL


def test_columns_in_lines() -> None:
    table = pd.DataFrame({"age": [20.0, 40.0, np.nan], "sex": ["F", "F", None]})
    lines = describe(table, {name: CONVENTIONAL[name] for name in ("age", "sex", "cdr")})
    assert lines == [
        "age            20 to 40, mean 30, SD 14.1 year; 1 missing",
        "sex            F 2; 1 missing",
    ]


def test_levels_beyond_eight_are_counted() -> None:
    levels = pd.Series([*"aabcdefghij"])
    assert counted(levels).startswith("a 2, ")
    assert counted(levels).endswith(" and 2 more")


def test_grids_orientations_and_broken_headers_are_counted(tmp_path: Path) -> None:
    finer = AFFINE.copy()
    finer[0, 0], finer[2, 2] = 4.0, 2.5
    odd = Scan("S001", "T1w", brain(1), finer, sidecar={"ManufacturersModelName": "Intera"})
    cohort = small_cohort(tmp_path / "raw", 4, {"S001": odd})
    broken = Path(cohort.scans["path"].iloc[3])
    broken.write_bytes(b"no image")
    headers = read_headers(cohort.scans)
    assert headers["orientation"].tolist() == ["LAS", "RAS", "LAS", None]
    assert headers["spacing_mm"].iloc[1] == "4 x 8 x 2.5"
    assert headers["scanner"].iloc[1] == "Intera"
    lines = describe_grids(headers)
    assert lines[:3] == [
        "T1w            voxels: 3 of 22 x 26 x 22",
        "T1w            spacing in mm: 2 of 8 x 8 x 8, 1 of 4 x 8 x 2.5",
        "T1w            orientation: 2 of LAS, 1 of RAS",
    ]
    assert lines[-1].startswith("unreadable     1 scans; the first: ")
    assert broken.name in lines[-1]

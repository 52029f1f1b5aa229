"""Small cohorts that tests write for themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from gyri.cohort.bids import Scan, write_raw
from gyri.cohort.nifti import write_volume
from gyri.cohort.table import CONVENTIONAL, Cohort

SHAPE = (22, 26, 22)
AFFINE = np.array([[-8.0, 0, 0, 84], [0, 8.0, 0, -100], [0, 0, 8.0, -84], [0, 0, 0, 1]])
"""LAS, 8 mm, as the scans of OASIS-1 are."""


def brain(seed: int, centre: tuple[float, float, float] = (10.5, 12.5, 10.5)) -> np.ndarray:
    """Return an ellipsoid with one bright block that breaks all its symmetries, in air of 0."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices(SHAPE)
    radius = ((i - centre[0]) / 7) ** 2 + ((j - centre[1]) / 9) ** 2 + ((k - centre[2]) / 7) ** 2
    volume = np.where(radius <= 1, 100 + rng.normal(0, 5, SHAPE), 0)
    a, b, c = (round(x) for x in centre)
    volume[a + 2 : a + 4, b + 3 : b + 5, c + 1 : c + 3] += 80
    return volume.astype(np.float32)


def subjects(count: int) -> pd.DataFrame:
    """Return a table of ages and sexes; every fifth age is missing."""
    labels = pd.Index([f"S{n:03d}" for n in range(count)], name="subject")
    age = [float("nan") if n % 5 == 4 else 20.0 + 3 * n for n in range(count)]
    return pd.DataFrame({"age": age, "sex": ["F" if n % 2 else "M" for n in range(count)]}, labels)


def scans(count: int) -> list[Scan]:
    return [Scan(f"S{n:03d}", "T1w", brain(n), AFFINE) for n in range(count)]


def small_cohort(root: Path, count: int = 6, replace: dict[str, Scan] | None = None) -> Cohort:
    """Write a raw cohort; scans of single subjects can be replaced."""
    chosen = [(replace or {}).get(scan.subject, scan) for scan in scans(count)]
    columns = {name: CONVENTIONAL[name] for name in ("age", "sex")}
    return write_raw(
        root, name="Small", subjects=subjects(count), columns=columns, scans=chosen, license="CC0"
    )


def write_oasis1(folder: Path, people: int = 5) -> None:
    """Write a miniature of OASIS-1 in its published names, with one second session."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"]
    for n in range(1, people + 1):
        young = n % 2 == 0
        tested = ",," if young else f"{n % 4},29,{'0.5' if n == 1 else '0'}"
        educ = "" if young else "3"
        lines.append(
            f"OAS1_{n:04d}_MR1,{'F' if n % 2 else 'M'},R,{20 + 10 * n},{educ},{tested},"
            f"{1300 + n},0.8,1.2,N/A"
        )
        save(folder / f"OAS1_{n:04d}_MR1_T1w.nii.gz", brain(n))
    lines.append("OAS1_0002_MR2,M,R,41,,,,,1310,0.79,1.21,20")
    lines.append("OAS1_0400_MR1,F,R,60,2,2,30,0,1400,0.75,1.25,N/A")
    save(folder / "OAS1_0002_MR2_T1w.nii.gz", brain(102))
    (folder / "oasis_cross-sectional.csv").write_text("\n".join(lines) + "\n")


def save(path: Path, volume: np.ndarray) -> None:
    stored = np.rint(volume).astype(np.uint8)
    write_volume(path, stored, AFFINE, descrip="test", scale=0.01)

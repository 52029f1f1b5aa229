"""The page of a cohort: who is in it, how it was scanned, and what every scan looks like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from gyri.cohort.nifti import read_volume
from gyri.cohort.summary import HEADER_COLUMNS, describe_grids, read_headers, summarise
from gyri.cohort.table import Cohort
from gyri.errors import DataError
from gyri.prepare.quality import LIMIT, measure_scan, robust_z
from gyri.prepare.reorient import ReorientConfig, reorient
from gyri.prepare.scan import PreparedScan, bounding_box, foreground, is_stripped
from gyri.report import dots, mosaic
from gyri.report.faces import HEAD_NOTE, Cut, cuts_above_orbits, middle_cuts
from gyri.report.quality import MOST_PICTURE_BYTES, PAGE_BYTES
from gyri.report.render import write_page
from gyri.report.sections import Context, chart
from gyri.report.text import ages, number, plural, sexes, subject_facts
from gyri.runtime.progress import progress_bar
from gyri.types import Channel
from gyri.views.base import PLANE_AXIS

MARGIN_MM = 6.0
PREFERRED = ("T1w", "T1c", "T2w", "FLAIR")
"""Which modality is pictured where a cohort has several."""

MEASURES = {"brain_ml": "volume in ml", "contrast": "contrast", "noise": "noise"}
"""What scans are compared by; raw intensities have no common unit."""

_GRID_COLUMNS = {
    "shape": "Voxels",
    "spacing_mm": "Spacing (mm)",
    "orientation": "Orientation",
    "scanner": "Scanner, by the sidecar",
}


@dataclass(frozen=True)
class Look:
    """What was seen of one scan.

    Parameters
    ----------
    measures : see `measure_scan`; empty where the scan cannot be read.
    picture : None where the scan cannot be read or might show a face.
    is_head : whether it shows a whole head.
    fault : why it cannot be read.
    """

    measures: dict[str, float] = field(default_factory=dict)
    picture: mosaic.Picture | None = None
    is_head: bool = False
    fault: str = ""


def look(path: Path, most_bytes: int, allow_faces: bool = False) -> Look:
    """Read, measure and draw one raw scan.

    Parameters
    ----------
    path : NIfTI file.
    most_bytes : of the picture.
    allow_faces : draw a whole head in three planes; otherwise only above the orbits.
    """
    try:
        volume, affine, _ = read_volume(path)
        mask = foreground(volume, affine)
    except DataError as error:
        return Look(fault=str(error))
    is_head = not is_stripped(volume, affine)
    scan = reorient(
        PreparedScan(volume[None], (Channel("scan"),), affine, mask.astype(np.float32)),
        ReorientConfig(),
    )
    volume, mask = scan.image[0], scan.foreground > 0
    voxel_ml = float(np.prod(scan.spacing_mm)) / 1000
    measures = measure_scan(volume, mask, voxel_ml)
    free = allow_faces or not is_head
    cuts = middle_cuts(mask) if free else cuts_above_orbits(mask, scan.spacing_mm)
    if not cuts:
        return Look(measures, None, is_head)
    return Look(measures, _draw(volume, mask, scan.spacing_mm, cuts, most_bytes), is_head)


def _draw(
    volume: np.ndarray,
    mask: np.ndarray,
    spacing_mm: np.ndarray,
    cuts: tuple[Cut, ...],
    most_bytes: int,
) -> mosaic.Picture:
    """Draw slices of the mask's box with a margin, in the scan's own window."""
    margin = np.ceil(MARGIN_MM / spacing_mm).astype(int)
    box = bounding_box(mask)
    low = np.maximum(box[:, 0] - margin, 0)
    high = np.minimum(box[:, 1] + margin + 1, mask.shape)
    inside = tuple(slice(a, b) for a, b in zip(low, high))
    moved = [Cut(cut.plane, cut.index - int(low[PLANE_AXIS[cut.plane]])) for cut in cuts]
    sizes = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    layout = mosaic.arrange(moved, mask[inside].shape, sizes)
    window = (0.0, float(np.percentile(volume[mask], 99.5)) or 1.0)
    return mosaic.picture(
        volume[inside], mask[inside], sizes, layout, window=window, most_bytes=most_bytes
    )


def write_cohort_page(
    cohort: Cohort, out: Path, *, allow_faces: bool = False, jobs: int = -1
) -> Path:
    """Write the page of a raw cohort, with the first scan of every subject.

    Parameters
    ----------
    cohort : raw cohort.
    out : the file.
    allow_faces : picture whole heads in three planes. Otherwise heads are shown in axial slices
        above the orbits only.
    jobs : processes; -1 takes all cores.
    """
    headers = read_headers(cohort.scans)
    chosen = first_scans(cohort)
    most_bytes = min(MOST_PICTURE_BYTES, PAGE_BYTES // max(len(chosen), 1))
    looks = list(_look_at_all(chosen, most_bytes, allow_faces, jobs))
    cards = _cards(cohort, chosen, looks)
    odd = sorted((card for card in cards if card["odd"]), key=lambda card: -card["farthest"])
    num_heads = sum(seen.is_head for seen in looks)
    return write_page(
        out,
        "inventory.html",
        title=cohort.name,
        facts=_facts(cohort, num_heads),
        notes=cohort.notes,
        columns=_columns(cohort),
        histogram=_histogram(cohort),
        grids=_grids(headers),
        grid_faults=[line for line in describe_grids(headers) if line.startswith("unreadable")],
        limit=f"{LIMIT:g}",
        odd=odd,
        usual=[card for card in cards if not card["odd"]],
        faults=[seen.fault for seen in looks if seen.fault],
        num_hidden=sum(seen.is_head and seen.picture is None for seen in looks),
        head_note=HEAD_NOTE if num_heads and not allow_faces else "",
    )


def first_scans(cohort: Cohort) -> pd.DataFrame:
    """Return one scan a subject: of the preferred modality, its first session."""
    rank = {name: place for place, name in enumerate(PREFERRED)}
    scans = cohort.scans[~cohort.scans["path"].str.contains("_dseg.", regex=False)]
    order = scans.assign(rank=scans["modality"].map(rank).fillna(len(rank)))
    order = order.sort_values(["subject", "rank", "modality", "session"], kind="stable")
    return order.drop_duplicates("subject").drop(columns="rank")


def _look_at_all(
    scans: pd.DataFrame, most_bytes: int, allow_faces: bool, jobs: int
) -> Iterator[Look]:
    from joblib import Parallel, delayed

    calls = (delayed(look)(Path(path), most_bytes, allow_faces) for path in scans["path"])
    with progress_bar("Looking at scans", len(scans)) as advance:
        for seen in Parallel(n_jobs=jobs, return_as="generator")(calls):
            advance()
            yield seen


def _cards(cohort: Cohort, scans: pd.DataFrame, looks: list[Look]) -> list[Context]:
    measured = pd.DataFrame([seen.measures for seen in looks], columns=list(MEASURES), dtype=float)
    scores = measured.apply(robust_z)
    cards = []
    for row, (subject, modality, seen) in enumerate(
        zip(scans["subject"], scans["modality"], looks)
    ):
        z = scores.iloc[row].fillna(0.0)
        place = int(np.flatnonzero(cohort.subjects.index == subject)[0])
        reasons = [
            f"{label} {number(measured[name].iloc[row])}, z {number(z[name], 2)}"
            for name, label in MEASURES.items()
            if abs(z[name]) > LIMIT
        ]
        facts = [subject_facts(cohort.subjects, place), modality]
        cards.append(
            {
                "key": f"scan-{row + 1}",
                "name": str(subject),
                "facts": " · ".join(fact for fact in facts if fact),
                "picture": seen.picture,
                "edges": False,
                "alt": f"{modality} of {subject}: slices",
                "odd": bool(reasons) or bool(seen.fault),
                "farthest": np.inf if seen.fault else float(z.abs().max()),
                "reasons": reasons or (["cannot be used"] if seen.fault else []),
            }
        )
    return cards


def _facts(cohort: Cohort, num_heads: int) -> list[tuple[str, str, str]]:
    """(what, how much, more) for the page's head."""
    sessions = cohort.scans[["subject", "session"]].drop_duplicates()
    years, sex = ages(cohort.subjects), sexes(cohort.subjects)
    facts = [
        ("Subjects", number(len(cohort.subjects)), plural(len(sessions), "session")),
        *(
            (str(modality), number(count), "scans")
            for modality, count in cohort.scans["modality"].value_counts().items()
        ),
    ]
    if years is not None:
        facts.append(("Age", f"{years.min():.0f} to {years.max():.0f}", "years"))
    if sex is not None:
        first = sex.str[:1]
        facts.append(("Women / men", f"{(first == 'F').sum()} / {(first == 'M').sum()}", ""))
    return [*facts, ("Whole heads", number(num_heads), "of the scans below")]


def _columns(cohort: Cohort) -> list[Context]:
    """What each column holds, and how much of it is missing."""
    rows = []
    for name, column in cohort.columns.items():
        if name in cohort.subjects:
            text, missing = summarise(cohort.subjects[name], column)
            share = missing / max(len(cohort.subjects), 1)
            rows.append(
                {
                    "name": name,
                    "description": column.description,
                    "text": text,
                    "missing": number(missing) if missing else "",
                    "share": f"{100 * share:.0f}",
                }
            )
    return rows


def _histogram(cohort: Cohort) -> Context | None:
    years, sex = ages(cohort.subjects), sexes(cohort.subjects)
    if years is None:
        return None
    figure = dots.age_histogram(years.to_numpy(), None if sex is None else sex.to_numpy())
    return chart(figure, "How many subjects are of what age and sex", "ages")


def _grids(headers: pd.DataFrame) -> list[Context]:
    """Counts of every grid, orientation and scanner, by modality."""
    rows = []
    for modality, scans in headers.groupby("modality", sort=True):
        for column in HEADER_COLUMNS[:-1]:
            counts = scans[column].dropna().value_counts()
            for place, (level, count) in enumerate(counts.items()):
                rows.append(
                    {
                        "modality": modality if column == "shape" and place == 0 else "",
                        "what": _GRID_COLUMNS[column] if place == 0 else "",
                        "level": level,
                        "count": number(count),
                        "share": f"{100 * count / len(scans):.0f}",
                    }
                )
    return rows

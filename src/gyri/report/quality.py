"""The quality control page of a prepared cohort: what to look at before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gyri.cohort.files import read_json
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError
from gyri.prepare.quality import LIMIT, MEASURES, outliers, robust_limits
from gyri.prepare.scan import MAX_BRAIN_ML, foreground
from gyri.prepare.template import mni152
from gyri.report import dots, mosaic
from gyri.report.faces import HEAD_NOTE, Cut, cuts_above_orbits
from gyri.report.figures import PLANES, Window, colour, display_window, tile
from gyri.report.render import write_page
from gyri.report.sections import Context, chart, picture, spread
from gyri.report.text import number, plural, subject_facts
from gyri.runtime.progress import progress_bar

PAGE_BYTES = 9_000_000
"""All pictures together, before base64 adds a third; outlines come on top."""

MOST_PICTURE_BYTES = 40_000
MOST_ROWS = 2000
_NUM_FOR_WINDOW = 24
_TEMPLATE_LEVELS = (0.35, 0.77)
"""Of the MNI152 template in [0, 1]: between CSF and grey, and between grey and white matter."""

LABELS = {
    "brain_ml": "volume in ml",
    "mean_intensity": "mean intensity",
    "contrast": "contrast",
    "noise": "noise",
    "correlation": "correlation with the mean",
}


@dataclass
class _Sums:
    """Running sums over scans, for the mean and SD images."""

    count: int
    first: np.ndarray
    second: np.ndarray
    masks: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, int, int]) -> _Sums:
        return cls(0, np.zeros(shape), np.zeros(shape), np.zeros(shape))

    def add(self, volume: np.ndarray) -> None:
        self.count += 1
        self.first += volume
        self.second += volume.astype(np.float64) ** 2
        self.masks += volume > 0

    @property
    def mean(self) -> np.ndarray:
        return np.asarray(self.first / self.count)

    @property
    def sd(self) -> np.ndarray:
        return np.asarray(np.sqrt(np.maximum(self.second / self.count - self.mean**2, 0)))


def write_quality_page(
    prepared: PreparedCohort, out: Path | None = None, *, allow_faces: bool = False
) -> Path:
    """Write the page: outliers, pictures with outlines, mean images, quarantined scans.

    Parameters
    ----------
    prepared : the cohort; its first intensity channel is shown.
    out : file, by default ``quality.html`` in the cohort's folder.
    allow_faces : picture whole heads in three planes. Otherwise heads are shown in axial slices
        above the orbits only.

    Returns
    -------
    Path
        The file; it loads nothing from outside and stays below 15 MB with 300 scans.
    """
    table = outliers(prepared)
    cards, sums, num_heads = _pictures(prepared, table, allow_faces)
    odd = sorted((card for card in cards if card["odd"]), key=lambda card: -card["farthest"])
    channel = _channel_name(prepared)
    return write_page(
        out or prepared.root / "quality.html",
        "quality.html",
        title=f"{prepared.name}: quality of the prepared scans",
        channel=channel,
        verdict=_verdict(len(cards), len(odd), len(prepared.quarantine)),
        facts=_facts(prepared, len(odd)),
        limit=f"{LIMIT:g}",
        panels=_panels(prepared, table),
        odd=odd,
        usual=[card for card in cards if not card["odd"]],
        registered="register" in _steps(prepared),
        edges=_template_edges(prepared, _middle(prepared)),
        head_note=HEAD_NOTE if num_heads and not allow_faces else "",
        images=_images(sums, prepared) if sums.count == len(cards) else [],
        columns=[LABELS[name] for name in MEASURES],
        rows=_rows(prepared, table),
        quarantine=prepared.quarantine[:MOST_ROWS],
    )


def _channel_name(prepared: PreparedCohort) -> str:
    return next(c.name for c in prepared.channels if c.kind == "intensity")


def _steps(prepared: PreparedCohort) -> list[str]:
    return [step["step"] for step in prepared.manifest.get("preparation", {}).get("steps", [])]


def _scan_name(prepared: PreparedCohort, row: int) -> str:
    """Subject, with its session where it has several."""
    subject, session = prepared.table.index[row], prepared.table["session"].iloc[row]
    several = prepared.table.index.duplicated(keep=False)[row]
    return f"{subject} {session}".strip() if several else str(subject)


def _middle(prepared: PreparedCohort) -> mosaic.Layout:
    shape = prepared.grid.shape
    cuts = [Cut(plane, shape[axis] // 2) for plane, axis in zip(PLANES, (2, 1, 0))]
    return mosaic.arrange(cuts, shape, prepared.grid.spacing_mm)


def _volumes(prepared: PreparedCohort) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield each scan's first intensity channel and whether it shows no head."""
    channel = next(c for c in prepared.channels if c.kind == "intensity")
    index = prepared.channels.index(channel)
    voxel_ml = float(np.prod(prepared.grid.spacing_mm)) / 1000
    for row in range(len(prepared.table)):
        rows = prepared.table.iloc[row : row + 1]
        stored, scale = prepared.load(rows)
        path = prepared.path(str(rows.index[0]), rows["session"].iloc[0], channel)
        # The sidecar says what `is_stripped` found on the whole scan, before it was cropped.
        stripped = bool(read_json(path.with_suffix(".json"))["SkullStripped"])
        volume = stored[0, index].astype(np.float32) * np.float32(scale)
        yield volume, stripped and float((volume > 0).sum() * voxel_ml) <= MAX_BRAIN_ML


def _pictures(
    prepared: PreparedCohort, table: pd.DataFrame, allow_faces: bool
) -> tuple[list[Context], _Sums, int]:
    """Draw every scan; heads are counted, and left out of the sums where faces are not allowed."""
    count = len(table)
    most_bytes = min(MOST_PICTURE_BYTES, PAGE_BYTES // count)
    window = _window(prepared)
    middle = _middle(prepared)
    sums = _Sums.empty(prepared.grid.shape)
    cards, num_heads = [], 0
    with progress_bar("Drawing scans", count) as advance:
        for row, (volume, stripped) in enumerate(_volumes(prepared)):
            num_heads += not stripped
            free = stripped or allow_faces
            layout: mosaic.Layout | None = middle
            if free:
                sums.add(volume)
            else:
                layout = _head_layout(prepared, volume)
            drawn = None
            if layout is not None:
                drawn = mosaic.picture(
                    volume,
                    volume > 0,
                    prepared.grid.spacing_mm,
                    layout,
                    window=window,
                    most_bytes=most_bytes,
                )
            cards.append(_card(prepared, table, row, drawn, edges=free))
            advance()
    return cards, sums, num_heads


def _window(prepared: PreparedCohort) -> Window:
    """One window for all scans, so that a dark or a bright one stands out."""
    rows = spread(len(prepared.table), _NUM_FOR_WINDOW)
    stored, scale = prepared.load(prepared.table.iloc[rows])
    index = next(i for i, c in enumerate(prepared.channels) if c.kind == "intensity")
    return display_window(stored[:, index].astype(np.float32) * np.float32(scale))


def _head_layout(prepared: PreparedCohort, volume: np.ndarray) -> mosaic.Layout | None:
    try:
        head = foreground(volume, np.array(prepared.grid.affine))
    except DataError:
        return None
    cuts = cuts_above_orbits(head, np.array(prepared.grid.spacing_mm))
    return mosaic.arrange(cuts, volume.shape, prepared.grid.spacing_mm) if cuts else None


def _card(
    prepared: PreparedCohort,
    table: pd.DataFrame,
    row: int,
    drawn: mosaic.Picture | None,
    *,
    edges: bool,
) -> Context:
    name = _scan_name(prepared, row)
    facts = [subject_facts(prepared.table, row), str(prepared.table["split"].iloc[row])]
    measured = table.iloc[row]
    return {
        "key": f"scan-{row + 1}",
        "name": name,
        "facts": " · ".join(fact for fact in facts if fact),
        "picture": drawn,
        "edges": edges,
        "alt": f"{_channel_name(prepared)} of {name}: slices",
        "odd": bool(measured["outlier"]),
        "farthest": max(abs(float(measured[f"z_{name}"])) for name in MEASURES),
        "reasons": [
            f"{LABELS[name]} {number(measured[name])}, z {number(measured[f'z_{name}'], 2)}"
            for name in MEASURES
            if _is_odd(name, float(measured[f"z_{name}"]))
        ],
    }


def _is_odd(name: str, z: float) -> bool:
    return z < -LIMIT if name == "correlation" else abs(z) > LIMIT


def _template_edges(prepared: PreparedCohort, layout: mosaic.Layout) -> str:
    """Outlines of the MNI152 template as it lies on the cohort's grid."""
    from scipy.ndimage import affine_transform

    template = mni152()
    to_template = np.linalg.inv(template.affine) @ np.array(prepared.grid.affine)
    field = affine_transform(
        template.image, to_template[:3, :3], to_template[:3, 3], prepared.grid.shape, order=1
    )
    spacing_mm = prepared.grid.spacing_mm
    return "".join(
        mosaic.outline(field, spacing_mm, layout, level=level) for level in _TEMPLATE_LEVELS
    )


def _images(sums: _Sums, prepared: PreparedCohort) -> list[Context]:
    """Mean, standard deviation and share of masks over all scans."""
    share = sums.masks / sums.count
    drawn = (
        ("Mean", sums.mean, display_window(sums.mean), "gray"),
        ("Standard deviation", sums.sd, display_window(sums.sd), "inferno"),
        ("Scans in which a voxel is not background", share, (0.0, 1.0), "viridis"),
    )
    pixel_mm = max(1.0, min(prepared.grid.spacing_mm))
    images = []
    for title, image, window, colours in drawn:
        flat = tile(image, prepared.grid.spacing_mm, pixel_mm=pixel_mm, side_by_side=True)
        pixels = colour(flat, window, colours)
        facts = f"{number(window[0], 2)} to {number(window[1], 2)}"
        images.append(picture(pixels, f"{title} over all scans: mid-slices", title, facts))
    return images


def _panels(prepared: PreparedCohort, table: pd.DataFrame) -> list[Context]:
    names = [_scan_name(prepared, row) for row in range(len(table))]
    panels = []
    for measure in MEASURES:
        odd = np.array([_is_odd(measure, z) for z in table[f"z_{measure}"]])
        low, high = robust_limits(table[measure])
        figure = dots.measure_dots(
            table[measure].to_numpy(float),
            odd,
            names,
            LABELS[measure],
            (low, np.inf if measure == "correlation" else high),
        )
        alt = f"{LABELS[measure]} of {len(table)} scans, {int(odd.sum())} of them outliers"
        panels.append(chart(figure, alt, f"dots-{measure}"))
    return panels


def _rows(prepared: PreparedCohort, table: pd.DataFrame) -> list[Context]:
    """Every scan's measures, the farthest outlier first."""
    scores = table[[f"z_{name}" for name in MEASURES]].abs().max(axis=1).to_numpy()
    order = np.lexsort((-scores, ~table["outlier"].to_numpy(bool)))[:MOST_ROWS]
    return [
        {
            "key": f"scan-{row + 1}",
            "name": _scan_name(prepared, row),
            "facts": subject_facts(prepared.table, row),
            "split": prepared.table["split"].iloc[row],
            "odd": bool(table["outlier"].iloc[row]),
            "cells": [_cell(table.iloc[row], name) for name in MEASURES],
        }
        for row in order
    ]


def _cell(measured: pd.Series, name: str) -> Mapping[str, Any]:
    z = float(measured[f"z_{name}"])
    return {"text": number(measured[name]), "z": number(z, 2), "odd": _is_odd(name, z)}


def _verdict(num_scans: int, num_odd: int, num_quarantined: int) -> str:
    stand_out = {0: "none stands out", 1: "1 stands out"}.get(num_odd, f"{num_odd} stand out")
    kept_out = (
        "No scan is in quarantine."
        if num_quarantined == 0
        else f"{plural(num_quarantined, 'scan')} could not be used; the reasons are below."
    )
    scans = plural(num_scans, "prepared scan")
    return f"Of {scans}, {stand_out} by volume, intensity or place. {kept_out}"


def _facts(prepared: PreparedCohort, num_odd: int) -> list[tuple[str, str, str]]:
    """(what, how much, more) for the page's head."""
    splits = prepared.table["split"].groupby(level=0).first().value_counts()
    grid = prepared.grid
    sizes = " × ".join(number(size) for size in dict.fromkeys(grid.spacing_mm))
    return [
        ("Scans", number(len(prepared.table)), plural(prepared.table.index.nunique(), "subject")),
        ("To look at", number(num_odd), f"robust z beyond {LIMIT:g}"),
        ("Quarantine", number(len(prepared.quarantine)), ""),
        ("Grid", " × ".join(map(str, grid.shape)), f"{sizes} mm"),
        (
            "Split",
            " / ".join(str(splits.get(name, 0)) for name in ("TRAIN", "VAL", "HOLD", "TEST")),
            "TRAIN / VAL / HOLD / TEST",
        ),
    ]

"""Categorical conditions on the page: distances and pictures of every level beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.labels import levels, shared_columns
from gyri.report import charts, figures
from gyri.report.sections import Context, chart, gallery_pixel_mm, match_subjects, picture
from gyri.report.strip import finite
from gyri.report.text import number, plural, words
from gyri.views.base import Plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRIC = "fd_by_level"
NUM_PICTURES = 4
MAX_LEVELS = 8
"""Levels of a column that are pictured, those of most samples."""
PLANES: tuple[Plane, ...] = ("axial", "coronal")
"""No sagittal slice: of a whole head it would be a profile."""
_GAP_PX = 2

Entry = Mapping[str, Any]


def by_level(
    scores: Mapping[str, Any], generated: VolumeSet, hold: VolumeSet, channel: int
) -> list[Context]:
    """Describe every categorical condition: a chart a feature set, pictures of every level.

    Parameters
    ----------
    scores : the parsed scores file.
    generated, hold : samples and real people, finite.
    channel : which channel is pictured.

    Returns
    -------
    list
        One entry a column that both sets have; empty where no condition is categorical.
    """
    shared = shared_columns(generated.table, hold.table)
    entries = [e for e in scores.get("scores") or [] if e.get("metric") == METRIC]
    return [
        _column(str(name), entries, generated, hold, channel)
        for name, numeric in shared.items()
        if not numeric
    ]


def _column(
    column: str, entries: Sequence[Entry], generated: VolumeSet, hold: VolumeSet, channel: int
) -> Context:
    found = [e for e in entries if _level(e, column) is not None]
    drawn = [e for e in found if e.get("draws")]
    panels = []
    for place, features in enumerate(dict.fromkeys(str(e["features"]) for e in drawn)):
        rows = {str(_level(e, column)): e for e in drawn if e["features"] == features}
        means = "; ".join(f"{name} {number(e['value'])}" for name, e in rows.items())
        alt = f"Fréchet distance on {features} by {column}. Means over draws: {means}."
        panels.append(chart(draw_boxes(rows), alt, f"level-{_key(column)}-{place}", features))
    made, real = (levels(members.table[column]) for members in (generated, hold))
    counts = {name: made.count(name) for name in sorted({n for n in made if n is not None})}
    shown = sorted(counts, key=lambda name: -counts[name])[:MAX_LEVELS]
    return {
        "name": words(column),
        "panels": panels,
        "left_out": [
            f"{_level(e, column)}: {e.get('note') or 'not judged'}"
            for e in found
            if not e.get("draws")
        ],
        "levels": [
            _pictures(column, name, made, real, generated, hold, channel)
            for name in counts
            if name in shown
        ],
        "num_left_out": len(counts) - len(shown),
    }


def _level(entry: Entry, column: str) -> str | None:
    """Return the level of `column` that a score is about, None for another column's."""
    _, _, words_of_level = str(entry.get("key")).rpartition(f"/{column}=")
    return words_of_level if f"/{column}=" in str(entry.get("key")) else None


def _key(column: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in column)


def _pictures(
    column: str,
    name: str,
    made: Sequence[str | None],
    real: Sequence[str | None],
    generated: VolumeSet,
    hold: VolumeSet,
    channel: int,
) -> Context:
    """Picture the first samples of a level and as many real people of it, alike in age and sex."""
    rows = np.array([row for row, level in enumerate(made) if level == name])
    pool = np.array([row for row, level in enumerate(real) if level == name], int)
    chosen = rows[:NUM_PICTURES]
    sides = [("Synthetic", "synthetic", generated, chosen, len(rows))]
    if len(pool):
        partners = match_subjects(generated.table.iloc[chosen], hold.table.iloc[pool])
        sides.append((f"Real, {hold.name}", "hold", hold, pool[partners], len(pool)))
    window = figures.display_window(hold.volumes[:8, channel])
    pictures = []
    for kind, colour, members, picked, count in sides:
        ids = [members.ids[row] for row in picked]
        alt = f"{kind}, {column} {name}: mid-slices of {', '.join(ids)}"
        image = _row([members.volumes[row, channel] for row in picked], members, window)
        facts = f"{len(ids)} of {plural(count, 'volume')}: {', '.join(ids)}"
        pictures.append({**picture(image, alt, kind, facts), "colour": colour})
    return {"name": f"{words(column)} {name}", "pictures": pictures}


def _row(volumes: Sequence[np.ndarray], members: VolumeSet, window: figures.Window) -> np.ndarray:
    """Draw volumes side by side; returns uint8 (rows, columns)."""
    spacing_mm = members.grid.spacing_mm
    pixel_mm = max(1.5, gallery_pixel_mm(spacing_mm))
    images = [
        figures.colour(figures.tile(v, spacing_mm, planes=PLANES, pixel_mm=pixel_mm), window)
        for v in volumes
    ]
    gap = np.zeros((len(images[0]), _GAP_PX), np.uint8)
    parts = [part for image in images for part in (gap, image)][1:]
    blank = np.zeros((len(images[0]), images[0].shape[1] + _GAP_PX), np.uint8)
    return np.concatenate(parts + [blank] * (NUM_PICTURES - len(images)), axis=1)


def draw_boxes(rows: Mapping[str, Entry]) -> Figure:
    """Draw the draws of each level as a box, with its interval and its anchors.

    Parameters
    ----------
    rows : level -> score with ``draws``, ``low``, ``high`` and ``anchors``.
    """
    ink, made, hold, train = (charts.PALETTE[n] for n in ("ink", "synthetic", "hold", "train"))
    figure, axes = charts.panel(3.7, 0.75 + 0.42 * len(rows))
    for row, entry in enumerate(rows.values()):
        draws = np.asarray(entry["draws"], float)
        least, quarter, middle, three, most = np.percentile(draws, [0, 25, 50, 75, 100])
        axes.plot([least, most], [row, row], color=made, linewidth=2.4, zorder=3)
        axes.barh(row, three - quarter, 0.46, quarter, color=made, edgecolor=made, zorder=3)
        axes.plot([middle, middle], [row - 0.23, row + 0.23], color=ink, linewidth=1.6, zorder=5)
        low, high = finite(entry.get("low")), finite(entry.get("high"))
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=ink, linewidth=0.8, zorder=2)
        anchors = entry.get("anchors") or {}
        for name, colour in (("ceiling", hold), ("other_levels", train)):
            if (spot := finite(anchors.get(name))) is not None:
                axes.plot([spot], [row], "|", color=colour, markersize=16, mew=2.2, zorder=4)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", labelcolor=ink, length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=charts.PALETTE["rule"], linewidth=0.5)
    axes.set_xlabel("Fréchet distance", fontsize=8.5, color=charts.PALETTE["muted"])
    return figure

"""What each section of the page shows, computed from the sets, the scores and the log.

Pictures are limited to the numbers below, so that a page stays small whatever the size of the
sets; every caption says how many are shown and how they were chosen.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gyri.cohort.volumes import VolumeSet
from gyri.report import charts, figures, measures
from gyri.report.strip import ANCHORS, anchor_strip_svg, finite
from gyri.report.text import (
    ages,
    interval,
    number,
    p_value,
    score_label,
    sexes,
    subject_facts,
    words,
)
from gyri.report.verdict import is_open, leading_scores, lights

NUM_PICTURES = 8
NUM_PAIRS = 6
NUM_PREVIEWS = 6
MAX_CHANNELS = 4
MAX_SAMPLE_ROWS = 200
MAX_PREVIEW_BYTES = 200_000

_SEX_PENALTY_YEARS = 30.0

QUESTIONS = {
    "fidelity": "Do they look like real scans?",
    "diversity": "Do they differ as real people do?",
    "anatomy": "Are they brains of the right size and place?",
    "coherence": "Do their slices belong together?",
    "conditioning": "Do they follow age, sex and scanner?",
    "privacy": "Do they copy training subjects?",
}
LIGHTS = {"green": "good", "amber": "between", "red": "poor", "grey": "not judged"}
"""What a light says to those who do not see its colour."""

Context = dict[str, Any]


def picture(pixels: np.ndarray | bytes, alt: str, title: str = "", facts: str = "") -> Context:
    """Describe one inline picture: source, size, text for those who do not see it, caption."""
    data = figures.png(pixels) if isinstance(pixels, np.ndarray) else pixels
    size = {"height": pixels.shape[0], "width": pixels.shape[1]} if hasattr(pixels, "shape") else {}
    source = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"src": source, "alt": alt, "title": title, "facts": facts, **size}


def chart(figure: Any, alt: str, key: str, title: str = "") -> Context:
    """Describe one inline chart."""
    return {"svg": charts.themed_svg(figure, alt, key), "title": title}


def spread(count: int, most: int) -> np.ndarray:
    """Rows of at most `most` members of `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def gallery_pixel_mm(spacing_mm: figures.Spacing) -> float:
    """Pixel size of the gallery: the voxel, halved while coarser than 2 mm, at least 1 mm."""
    size = max(1.0, min(spacing_mm))
    while size > 2.0:
        size /= 2
    return size


def match_subjects(chosen: pd.DataFrame, pool: pd.DataFrame) -> np.ndarray:
    """Pick a different row of `pool` for each row of `chosen`, alike in age and sex where known.

    Returns
    -------
    np.ndarray
        (min(len(chosen), len(pool)),) rows of `pool`; the first ones when nothing is known.
    """
    count = min(len(chosen), len(pool))
    years = ages(chosen), ages(pool)
    if years[0] is None or years[1] is None:
        return np.arange(count)
    pool_years = years[1].to_numpy()
    sex = sexes(chosen), sexes(pool)
    free = np.ones(len(pool), bool)
    rows = []
    for row in range(count):
        wanted = years[0].iloc[row]
        cost = np.nan_to_num(np.abs(pool_years - wanted), nan=_SEX_PENALTY_YEARS)
        if sex[0] is not None and sex[1] is not None and sex[0].iloc[row]:
            other = np.array([s[:1] != sex[0].iloc[row][:1] for s in sex[1]])
            cost = cost + _SEX_PENALTY_YEARS * other
        rows.append(int(np.where(free, cost, np.inf).argmin()))
        free[rows[-1]] = False
    return np.array(rows)


def gallery(generated: VolumeSet, hold: VolumeSet) -> Context:
    """Pictures of the first samples and of HOLD subjects, every channel in its own window."""
    most = NUM_PICTURES if len(generated.channels) == 1 else NUM_PICTURES // 2
    rows = np.arange(min(len(generated), most))
    partners = match_subjects(generated.table.iloc[rows], hold.table)
    matched = ages(generated.table.iloc[rows]) is not None and ages(hold.table) is not None
    spacing_mm = generated.grid.spacing_mm
    channels = []
    for channel, name in enumerate(generated.channels[:MAX_CHANNELS]):
        window = figures.display_window(hold.volumes[: max(NUM_PICTURES, 1), channel])

        def tiles(
            members: VolumeSet,
            chosen: np.ndarray,
            kind: str,
            channel: int = channel,
            name: str = name,
            window: figures.Window = window,
        ) -> list[Context]:
            drawn = []
            for row in chosen:
                image = figures.tile(
                    members.volumes[row, channel],
                    spacing_mm,
                    pixel_mm=gallery_pixel_mm(spacing_mm),
                )
                subject, facts = members.ids[row], subject_facts(members.table, int(row))
                alt = f"{kind} {name} of {subject}{', ' + facts if facts else ''}: mid-slices"
                drawn.append(picture(figures.colour(image, window), alt, subject, facts))
            return drawn

        channels.append(
            {
                "name": name,
                "window": f"{number(window[0], 2)} to {number(window[1], 2)}",
                "synthetic": tiles(generated, rows, "Synthetic"),
                "real": tiles(hold, partners, f"Real {hold.name}"),
            }
        )
    return {
        "channels": channels,
        "num_synthetic": len(rows),
        "num_channels": len(generated.channels),
        "matched": matched,
    }


def neighbours(generated: VolumeSet, train: VolumeSet, hold: VolumeSet, channel: int) -> Context:
    """The samples most like a TRAIN subject, beside it, against how alike HOLD subjects are."""
    gallery_volumes = train.volumes[:, channel]
    found = measures.nearest_residual(generated.volumes[:, channel], gallery_volumes)
    against = measures.nearest_residual(hold.volumes[:, channel], gallery_volumes)
    most_alike = np.argsort(-found.correlation, kind="stable")[:NUM_PAIRS]
    spacing_mm = generated.grid.spacing_mm
    images = figures.nearest_pairs(
        [generated.volumes[row, channel] for row in most_alike],
        [
            gallery_volumes[found.index[row]][:: -1 if found.mirrored[row] else 1]
            for row in most_alike
        ],
        spacing_mm=spacing_mm,
        window=figures.display_window(gallery_volumes[:NUM_PICTURES]),
        planes=("axial", "coronal"),
        pixel_mm=max(2.0, gallery_pixel_mm(spacing_mm)),
    )
    pairs = []
    for row, image in zip(most_alike, images):
        sample, partner = generated.ids[row], train.ids[found.index[row]]
        r = float(found.correlation[row])
        higher = float((against.correlation >= r).mean())
        pairs.append(
            {
                **picture(
                    image, f"Sample {sample}, its nearest TRAIN subject {partner}, difference"
                ),
                "sample": sample,
                "partner": partner + (" (mirrored)" if found.mirrored[row] else ""),
                "correlation": number(r),
                "higher": f"{100 * higher:.0f} %",
            }
        )
    limit = float(np.percentile(against.correlation, 95))
    return {
        "pairs": pairs,
        "num_train": len(train),
        "limit": number(limit),
        "num_above": int((found.correlation > limit).sum()),
        "num_generated": len(generated),
        "num_expected": number(0.05 * len(generated), 2),
        "chart": chart(
            charts.neighbour_distribution(found.correlation, against.correlation),
            "Largest correlation with TRAIN: samples and held-out subjects, one dot each",
            "neighbours",
        ),
    }


def _score_row(entry: Mapping[str, Any], anchor_names: Sequence[str]) -> Context:
    """One row of the score sheet."""
    anchors = entry.get("anchors") or {}
    target = finite(entry.get("target"))
    near = f"best near {number(target)}" if target is not None else ""
    aims = {"lower": "lower is better", "higher": "higher is better"}
    return {
        "label": score_label(entry),
        "aim": aims.get(str(entry.get("better")), near),
        "unit": entry.get("unit") or "",
        "value": number(entry.get("value")),
        "interval": interval(entry.get("low"), entry.get("high")),
        "num_generated": number(entry.get("n_generated")),
        "num_real": number(entry.get("n_real")),
        "p_value": p_value(entry.get("p_value")),
        "anchors": [number(anchors.get(name)) for name in anchor_names],
        "strip": anchor_strip_svg(entry),
        "unreliable": entry.get("reliable") is False,
        "note": entry.get("note") or "",
    }


def gate_chip(name: str, gate: Mapping[str, Any]) -> Context:
    """Name, outcome and detail of a gate."""
    outcome = "pass" if gate.get("passed") else "open" if is_open(gate) else "fail"
    return {"name": words(name), "outcome": outcome, "detail": gate.get("detail")}


def light_row(family: Mapping[str, Any]) -> Context:
    """Name, light, question and reason of a family."""
    name, light = str(family.get("family") or ""), str(family.get("light") or "grey")
    return {
        "key": name,
        "name": words(name),
        "question": QUESTIONS.get(name, ""),
        "light": light if light in LIGHTS else "grey",
        "word": LIGHTS.get(light, LIGHTS["grey"]),
        "reason": family.get("reason") or "",
    }


def family_details(scores: Mapping[str, Any], used: Sequence[str]) -> list[Context]:
    """Every family's light, gates and scores; empty for sheets without families."""
    by_name = {entry.get("name"): entry for entry in scores.get("scores") or []}
    gates = scores.get("gates") or {}
    return [
        {
            **light_row(family),
            "gates": [gate_chip(n, gates[n]) for n in family.get("gates") or [] if n in gates],
            "rows": [
                _score_row(by_name[n], used) for n in family.get("scores") or [] if n in by_name
            ],
        }
        for family in lights(scores)
    ]


def score_sheet(scores: Mapping[str, Any]) -> Context:
    """Leading scores, the others by family where the sheet has families, what was refused.

    All scores lead where none is named.
    """
    entries = list(scores.get("scores") or [])
    leading = leading_scores(scores) or entries
    told = {name for family in lights(scores) for name in family.get("scores") or []}
    others = [
        entry
        for entry in entries
        if entry.get("name") not in told and not any(entry is first for first in leading)
    ]
    used = [
        name
        for name in ANCHORS
        if any(finite((entry.get("anchors") or {}).get(name)) is not None for entry in entries)
    ]
    refused = [
        {
            "metric": words(entry.get("metric", "")),
            "features": entry.get("features") or "",
            "reason": entry.get("reason") or "no reason given",
        }
        for entry in scores.get("refused") or []
    ]
    return {
        "leading": [_score_row(entry, used) for entry in leading],
        "families": family_details(scores, used),
        "others": [_score_row(entry, used) for entry in others],
        "anchors": [ANCHORS[name] for name in used],
        "refused": refused,
    }


def training(log: Sequence[Mapping[str, Any]] | None, previews: Sequence[Path]) -> Context | None:
    """Training curves, losses first, and up to six previews from first to last."""
    curves = charts.training_curves(log or [])
    panels = [
        {**chart(figure, f"{name} during training", f"curve-{place}", name), "facts": last}
        for place, (name, (figure, last)) in enumerate(curves.items())
    ]
    usable = [path for path in previews if path.stat().st_size <= MAX_PREVIEW_BYTES]
    shown = [usable[row] for row in spread(len(usable), NUM_PREVIEWS)] if usable else []
    pictures = [
        picture(path.read_bytes(), f"Preview {path.stem} during training", path.stem)
        for path in shown
    ]
    if not panels and not pictures:
        return None
    return {
        "panels": panels,
        "previews": pictures,
        "num_previews": len(previews),
        "held_out": any(key.startswith(charts.VALIDATION) for entry in log or [] for key in entry),
    }


def sample_rows(scores: Mapping[str, Any]) -> Context:
    """Per-sample findings as a table; only columns that any sample fills."""
    samples = list(scores.get("samples") or [])
    columns = [
        column
        for column in dict.fromkeys(key for sample in samples for key in sample)
        if any(sample.get(column) is not None for sample in samples)
    ]

    def cell(value: Any) -> Context:
        if isinstance(value, bool):
            return {"text": "yes" if value else "no", "kind": "yes" if value else "no"}
        if isinstance(value, (int, float)) or value is None:
            return {"text": number(value), "kind": "num"}
        return {"text": str(value), "kind": "text"}

    return {
        "columns": [words(column) for column in columns],
        "rows": [[cell(s.get(c)) for c in columns] for s in samples[:MAX_SAMPLE_ROWS]],
        "num_left_out": max(0, len(samples) - MAX_SAMPLE_ROWS),
    }


def known_facts(members: VolumeSet) -> str:
    """Age range of a set, empty where ages are not known."""
    years = ages(members.table)
    return "" if years is None else f"{years.min():.0f} to {years.max():.0f} years"

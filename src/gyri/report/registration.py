"""The page of a registration: what was achieved, which scans to look at, what was done to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from gyri.evaluation.registration import WINDOW, Registered
from gyri.nn.deformation import jacobian_determinant
from gyri.prepare.quality import LIMIT, robust_limits
from gyri.registration import Shown
from gyri.report import charts
from gyri.report.deformation import (
    LATTICE_MM,
    checkerboard,
    deformation_section,
    grid_picture,
    jacobian_key,
    jacobian_picture,
    stacked,
)
from gyri.report.figures import PLANES, Spacing, colour, display_window, slice_image, tile
from gyri.report.render import write_page
from gyri.report.sections import Context, chart, picture
from gyri.report.text import MISSING, duration, interval, number, plural
from gyri.runtime.seeding import numpy_rng

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 10
FEWEST = 5
"""Scans from which on one can stand out among the others."""
FOLDED_SHARE = 0.001
PIXEL_MM = 0.75

LIKENESS = {
    "correlation": "Correlation",
    "local_correlation": "Local correlation",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
}
"""Measures with a before and an after; more is more alike."""
SHAPE = {
    "displacement_mm": "Displacement, mm",
    "sd_log_jacobian": "SD of log volume",
    "min_jacobian": "Least Jacobian",
    "folded": "Folded, %",
    "inverse_mm": "There and back, mm",
}
PLACES = {1: ("The only scan",), 2: ("Best", "Worst"), 3: ("Best", "Median", "Worst")}


def write_registration(
    out: Path,
    summary: Mapping[str, Any],
    registered: Sequence[Registered],
    shown: Sequence[Shown],
    spacing_mm: Spacing,
    template: np.ndarray,
    average: np.ndarray | None,
) -> Path:
    """Write the self-contained page; see `gyri.report.render.write_page`.

    Parameters
    ----------
    out : the file.
    summary : content of ``registration.json``.
    registered : every scan.
    shown : from the best to the worst; none where scans show heads, and then nothing is pictured.
    spacing_mm : of the grid.
    template, average : (I, J, K) in [0, 1]; the second is the mean of the scans brought to the
        template, None where they could not be.
    """
    reasons = _reasons(registered)
    return write_page(
        out,
        "registration.html",
        title=f"Registration by {summary['method']}",
        verdict=_verdict(summary, registered),
        facts=_facts(summary),
        likeness=_likeness(summary),
        shapes=_shapes(summary),
        shape_names=list(SHAPE.values()),
        overlaps=_overlaps(summary),
        window=WINDOW,
        likeness_panels=_likeness_panels(registered),
        shape_panels=_shape_panels(registered),
        worst=_worst(registered, reasons),
        num_scans=len(registered),
        num_suspect=sum(map(bool, reasons)),
        limit=LIMIT,
        lattice_mm=LATTICE_MM,
        shown=[
            _pictures(one, place, spacing_mm, k)
            for k, (one, place) in enumerate(zip(shown, PLACES.get(len(shown), ())))
        ],
        key=picture(jacobian_key(), "from blue over gray to orange"),
        averages=_averages(template, average, spacing_mm) if shown else [],
        inverted=average is not None,
        diffeomorphic=summary["form"] == "velocity",
        provenance={
            name: value
            for name, value in summary.items()
            if name not in ("splits", "dice") and value is not None
        },
    )


def registration_text(summary: Mapping[str, Any]) -> str:
    """Return the summary of a registration for the terminal.

    Parameters
    ----------
    summary : content of ``registration.json``.
    """
    lines = [
        f"{plural(summary['n'], 'scan')} registered to {_template_words(summary)} by "
        f"{summary['method']}, {duration(summary['seconds_per_scan'])} a scan.",
        "The fields and volumes show real people: personal data like the scans themselves.",
        f"{'':20}{'split':7}{'scans':>6}{'before':>26}{'after':>26}",
    ]
    for row in _likeness(summary):
        lines.append(
            f"{row['name']:20}{row['split']:7}{row['n']:>6}{row['before']:>26}{row['after']:>26}"
        )
    for name, label in SHAPE.items():
        for split, found in summary["splits"].items():
            if name in found:
                lines.append(
                    f"{label:20}{split:7}{found['n']:>6}{'':26}{_shape_cell(name, found):>26}"
                )
    for overlap in _overlaps(summary):
        lines.append(
            f"Dice between people, {overlap['name']}: {overlap['before']} before, "
            f"{overlap['after']} after, gain {overlap['gain']}"
        )
    return "\n".join(lines)


def _template_words(summary: Mapping[str, Any]) -> str:
    template = str(summary["template"])
    known = {"mean": "the mean of TRAIN", "MNI": "MNI152"}
    return known.get(template, Path(template).name)


def _with_interval(found: Mapping[str, float], factor: float = 1.0) -> str:
    low, high = (number(factor * found[end]) for end in ("low", "high"))
    return f"{number(factor * found['value'])} [{low}, {high}]"


def _shape_cell(name: str, found: Mapping[str, Any]) -> str:
    if name not in found:
        return MISSING
    return _with_interval(found[name], 100.0 if name == "folded" else 1.0)


def _likeness(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a measure and split, before and after with their intervals."""
    return [
        {
            "name": label,
            "split": split,
            "n": found["n"],
            "before": _with_interval(found[f"{name}_before"]),
            "after": _with_interval(found[f"{name}_after"]),
        }
        for name, label in LIKENESS.items()
        for split, found in summary["splits"].items()
    ]


def _shapes(summary: Mapping[str, Any]) -> list[Context]:
    return [
        {"split": split, "n": found["n"], "cells": [_shape_cell(name, found) for name in SHAPE]}
        for split, found in summary["splits"].items()
    ]


def _overlaps(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the Dice between people of every label channel, and of its regions."""
    return [
        {
            "name": name,
            **{when: _with_interval(found[when]) for when in ("before", "after", "gain")},
            "regions": [
                {"name": region, "before": number(two["before"]), "after": number(two["after"])}
                for region, two in found["regions"].items()
            ],
        }
        for name, found in (summary.get("dice") or {}).items()
    ]


def _leading(summary: Mapping[str, Any]) -> str:
    """Return the split to speak of first: one that nothing was trained on, if there is one."""
    splits = list(summary["splits"])
    return next((split for split in ("HOLD", "TEST", "VAL") if split in splits), splits[0])


def _verdict(summary: Mapping[str, Any], registered: Sequence[Registered]) -> str:
    split = _leading(summary)
    found = summary["splits"][split]
    before, after = (found[f"local_correlation_{when}"] for when in ("before", "after"))
    way = "rose" if after["value"] > before["value"] else "fell"
    less = sum(_lost(one) for one in registered)
    folding = sum(one.measures["folded"] > 0 for one in registered)
    return (
        f"{split}: the local correlation of template and scan {way} from "
        f"{number(before['value'])} to {number(after['value'])} "
        f"({interval(after['low'], after['high'])}). Of {plural(len(registered), 'scan')}, "
        f"{less or 'none'} became less alike and {folding or 'none'} "
        f"{'folds' if folding == 1 else 'fold'} anywhere in the brain."
    )


def _lost(one: Registered) -> bool:
    return one.measures["local_correlation_after"] < one.measures["local_correlation_before"]


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, how much, more) for the page's head."""
    form = {
        "velocity": ("Velocity", "has an inverse"),
        "displacement": ("Displacement", "as found"),
    }[summary["form"]]
    mean = summary["template"] == "mean"
    template = ("Mean", "of TRAIN") if mean else (_template_words(summary), "")
    facts = [
        ("Scans", number(summary["n"]), " / ".join(summary["splits"])),
        ("Template", *template),
        ("Fields", *form),
        ("A scan", duration(summary["seconds_per_scan"]), "median"),
    ]
    if summary.get("training_s") is not None:
        steps = summary.get("steps")
        more = plural(steps, "step") if steps is not None else ""
        facts.append(("Training", duration(summary["training_s"]), more))
    return facts


def _likeness_panels(registered: Sequence[Registered]) -> list[Context]:
    panels = []
    for name in ("local_correlation", "correlation"):
        alt = f"{LIKENESS[name]} of template and scan before and after, one dot a scan"
        panels.append(chart(before_after(registered, name), alt, f"likeness-{name}"))
    return panels


def _shape_panels(registered: Sequence[Registered]) -> list[Context]:
    """Describe a chart a measure of the deformations; of folds only where there are any."""
    panels = []
    for name, quantity in (
        ("sd_log_jacobian", "SD of log volume in the brain"),
        ("displacement_mm", "mean displacement in the brain (mm)"),
        ("folded", "folded (% of the brain)"),
        ("inverse_mm", "there and back misses by (mm)"),
    ):
        values = _by_split(registered, name, 100.0 if name == "folded" else 1.0)
        if not values or (name == "folded" and not any(v.any() for v in values.values())):
            continue
        figure = charts.volume_distributions(values, quantity)
        panels.append(chart(figure, f"{quantity}, one dot a scan", f"shape-{name}"))
    return panels


def _by_split(
    registered: Sequence[Registered], name: str, factor: float = 1.0
) -> dict[str, np.ndarray]:
    """Return a measure by split, (N,) each; splits that lack it are left out."""
    splits = dict.fromkeys(one.split for one in registered)
    values = {
        split: factor * np.array(
            [o.measures[name] for o in registered if o.split == split and name in o.measures]
        )
        for split in splits
    }  # fmt: skip
    return {split: found for split, found in values.items() if len(found)}


def before_after(registered: Sequence[Registered], name: str) -> Figure:
    """Draw a dot a scan, before above and after below, with medians and middle halves.

    Parameters
    ----------
    name : of `LIKENESS`.
    """
    splits = list(dict.fromkeys(one.split for one in registered))
    figure, axes = charts.panel(3.7, 0.8 + 0.62 * len(splits))
    palette = charts.PALETTE
    for when, colour_name, shift in (("before", "train", -0.2), ("after", "synthetic", 0.2)):
        found = _by_split(registered, f"{name}_{when}")
        for row, (split, values) in enumerate(found.items()):
            jitter = numpy_rng(0, "report", f"{split}{when}").uniform(-0.13, 0.13, len(values))
            dots: dict[str, Any] = {"markersize": 3.2, "alpha": 0.5, "markeredgewidth": 0}
            axes.plot(values, row + shift + jitter, "o", color=palette[colour_name], **dots)
            quarter, middle, three = np.percentile(values, [25, 50, 75])
            ends = [row + shift] * 2
            axes.plot([quarter, three], ends, color=palette[colour_name], linewidth=3.5)
            axes.plot([middle], ends[:1], "|", color=palette["ink"], markersize=13, mew=2)
    axes.set_yticks(range(len(splits)), splits)
    axes.set_ylim(len(splits) - 0.5, -0.5)
    axes.tick_params(axis="y", labelcolor=palette["ink"], length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=palette["rule"], linewidth=0.5)
    axes.set_xlabel(LIKENESS[name].lower(), fontsize=8.5, color=palette["muted"])
    return figure


def _worst(registered: Sequence[Registered], reasons: Sequence[list[str]]) -> list[Context]:
    """Return the scans to look at first: those with most reasons, then those least alike."""

    def order(row: int) -> tuple[int, float]:
        return -len(reasons[row]), registered[row].measures["local_correlation_after"]

    rows = []
    for row in sorted(range(len(registered)), key=order)[:MOST_ROWS]:
        one, found = registered[row], registered[row].measures
        rows.append(
            {
                "name": f"{one.subject} {one.session}".strip(),
                "split": one.split,
                "cells": [
                    number(found["local_correlation_before"]),
                    number(found["local_correlation_after"]),
                    number(found["displacement_mm"]),
                    number(found["sd_log_jacobian"]),
                    number(100 * found["folded"]),
                ],
                "reasons": reasons[row],
            }
        )
    return rows


def _reasons(registered: Sequence[Registered]) -> list[list[str]]:
    """Say of every scan why it is to be looked at; of most nothing."""
    reasons: list[list[str]] = [[] for _ in registered]
    for one, why in zip(registered, reasons):
        if _lost(one):
            why.append("less alike than before")
        if (share := one.measures["folded"]) > FOLDED_SHARE:
            why.append(f"folds in {number(100 * share)} % of the brain")
    if len(registered) < FEWEST:
        return reasons
    for name, sign, words in (
        ("local_correlation_after", -1, "far less alike than the others"),
        ("sd_log_jacobian", 1, "stretched far more than the others"),
        ("displacement_mm", 1, "moved far more than the others"),
        ("inverse_mm", 1, "there and back misses by far more than for the others"),
    ):
        values = pd.Series([sign * one.measures.get(name, np.nan) for one in registered])
        _, high = robust_limits(values)
        for value, why in zip(values, reasons):
            if value > high:
                why.append(words)
    return reasons


def _pictures(one: Shown, place: str, spacing_mm: Spacing, k: int) -> Context:
    """Describe what is shown of a scan."""
    found, name = one.registered.measures, one.registered.subject
    determinant = jacobian_determinant(torch.from_numpy(one.u)[None])[0].numpy()

    def columns() -> Iterator[tuple[str, list[np.ndarray]]]:
        volumes = [("Scan", one.scan), ("Warped template", one.warped)]
        if one.redrawn is not None:
            volumes.append(("Template redrawn by diffusion", one.redrawn))
        for title, volume in volumes:
            window = display_window(volume)
            cuts = [slice_image(volume, p, spacing_mm, pixel_mm=PIXEL_MM) for p in PLANES]
            yield title, [colour(cut, window) for cut in cuts]
        at: dict[str, Any] = {"pixel_mm": PIXEL_MM}
        yield (
            "Both in turn",
            [checkerboard(one.scan, one.warped, spacing_mm, p, **at) for p in PLANES],
        )
        yield (
            "Lattice of the template",
            [grid_picture(one.u, spacing_mm, p, under=one.warped, **at) for p in PLANES],
        )
        yield (
            "Local volume",
            [jacobian_picture(determinant, spacing_mm, p, under=one.scan, **at) for p in PLANES],
        )

    return {
        "id": f"scan-{k + 1}",
        "place": place,
        "name": name,
        "facts": f"local correlation {number(found['local_correlation_before'])} before, "
        f"{number(found['local_correlation_after'])} after",
        "tiles": [
            picture(stacked(images), f"{title} of {name} in three planes", title)
            for title, images in columns()
        ],
        **deformation_section(one.steps, spacing_mm, name, one.scan),
    }


def _averages(
    template: np.ndarray, average: np.ndarray | None, spacing_mm: Spacing
) -> list[Context]:
    """Picture the template and the mean of the scans brought to it."""
    drawn = [("Template", template)]
    if average is not None:
        drawn.append(("Mean of the scans, brought to the template", average))
    images = []
    for title, volume in drawn:
        flat = tile(volume, spacing_mm, pixel_mm=PIXEL_MM, side_by_side=True)
        pixels = colour(flat, display_window(volume))
        images.append(picture(pixels, f"{title}: mid-slices", title))
    return images

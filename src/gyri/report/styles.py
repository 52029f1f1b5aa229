"""The page of what a generator's styles and units do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gyri.cohort.prepared import PreparedCohort
from gyri.dissection import CONTROLS, Dissected, dissect, label_refusal
from gyri.errors import UsageError
from gyri.latent_walk import Walk
from gyri.report.dissection import dissection_figure
from gyri.report.figures import PLANES, Spacing, png
from gyri.report.reconstruction import reconstruction_figure, walk_figure
from gyri.report.render import write_page
from gyri.report.sections import Context, picture
from gyri.report.text import join, number
from gyri.runtime.progress import progress_bar
from gyri.scans import refuse_strangers
from gyri.style_walk import (
    ITERATIONS,
    Mixing,
    Projection,
    first_intensity,
    interpolations,
    load_stylist,
    mixings,
    projections,
    styles_of,
)
from gyri.synthesis import run_facts, sampled_rows
from gyri.training.run import Run
from gyri.views.base import PLANE_AXIS, Plane


@dataclass(frozen=True)
class Inside:
    """What was found inside a generator.

    Parameters
    ----------
    name : of the recipe.
    walks : between samples.
    mixings : one a crossover.
    projections : of real scans, none where there is no cohort.
    projected_pictures : whether these scans may be pictured (brains without heads).
    dissected : one a label.
    refusal : why nothing was dissected, empty where something was.
    intensity : the channel inside the model that is shown.
    spacing_mm : of the grid.
    plane : in which volumes are shown: that of the view's slices.
    provenance : run, checkpoint, settings.
    """

    name: str
    walks: Sequence[Walk]
    mixings: Sequence[Mixing]
    projections: Sequence[Projection]
    projected_pictures: bool
    dissected: Sequence[Dissected]
    refusal: str
    intensity: int
    spacing_mm: Spacing
    plane: Plane
    provenance: Mapping[str, Any]


def look_inside(
    run: Run,
    cohort: PreparedCohort | None = None,
    *,
    split: str = "HOLD",
    num: int = 4,
    condition: Mapping[str, str] | None = None,
    subjects: int = 3,
    iterations: int = ITERATIONS,
    samples: int = 8,
    quantile: float | None = None,
    seed: int = 0,
    step: int | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> Inside:
    """Find what the page shows.

    Parameters
    ----------
    run : of a `gyri.capabilities.Stylist`.
    cohort : whose scans are projected; None for none.
    split, subjects, iterations : whose scans, how many, and steps of the search for each.
    num : samples that are walked between and mixed, at least two.
    condition : the same for all samples; by default drawn from the mix that the run was trained on.
    samples, quantile : see `gyri.dissection.dissect`; used where the run makes a label.
    seed : of the samples, which are those of `gyri sample` but for their noise.
    step : a numbered checkpoint instead of the last.
    overrides : changes of the method's sampling, ``"sampling_noise=none"``.

    Raises
    ------
    UsageError
        If the method has no styles, or the cohort is another one or dealt differently.
    """
    if num < 2:
        raise UsageError(f"num is {num}; walks and mixtures need at least 2 samples.")
    if cohort is not None:
        refuse_strangers(run, cohort)
    model, channel = load_stylist(run, step, device, overrides), first_intensity(run)
    rows = sampled_rows(run, max(num, samples), condition, None, None, "TRAIN", seed)
    labels = sum(max(c.num_labels - 1, 0) for c in run.channels)
    total = 2 + (subjects if cohort is not None else 0) + labels
    found: list[Projection] = []
    dissected: list[Dissected] = []
    with progress_bar(f"styles {run.recipe.name}", total) as advance:
        walks = interpolations(model, rows[:num], seed, channel)
        advance()
        mixed = mixings(model, rows[:num], seed, channel)
        advance()
        if cohort is not None:
            found = projections(
                model,
                run,
                cohort,
                split=split,
                subjects=subjects,
                iterations=iterations,
                seed=seed,
                channel=channel,
                advance=advance,
            )
        refusal = label_refusal(run.channels)
        if refusal is None:
            styles = styles_of(model, rows[:samples], seed, range(samples))
            dissected = dissect(
                model,
                run.channels,
                styles,
                intensity=channel,
                quantile=quantile,
                seed=seed,
                advance=advance,
            )
            if not dissected:
                refusal = f"Of {samples} samples none has a voxel of a label but the background."
    return Inside(
        name=run.recipe.name,
        walks=walks,
        mixings=mixed,
        projections=found,
        projected_pictures=cohort is not None and cohort.skull_stripped,
        dissected=dissected,
        refusal=refusal or "",
        intensity=channel,
        spacing_mm=run.grid.spacing_mm,
        plane=plane_of(model.view.slice_axis),
        provenance={
            **run_facts(run, run.recipe, step),
            "overrides": list(overrides),
            "seed": seed,
            "projected": None if cohort is None else f"{split} of {cohort.name}",
            "iterations": iterations,
            "dissected samples": samples,
        },
    )


def plane_of(slice_axis: int | None) -> Plane:
    """Return the plane of a view's slices; the axial one for views without."""
    return next((plane for plane in PLANES if PLANE_AXIS[plane] == slice_axis), "axial")


def grid_name(grid: Sequence[int]) -> str:
    """Write a grid: ``(4, 6)`` is ``"4 x 6"``."""
    return " x ".join(map(str, grid))


def write_styles(out: Path, inside: Inside) -> Path:
    """Write the self-contained page; see `gyri.report.render.write_page`."""
    return write_page(
        out,
        "styles.html",
        title=f"Inside the generator of {inside.name}",
        facts=_facts(inside),
        walks=_walks(inside),
        mixings=_mixings(inside),
        projections=_projections(inside),
        dissected=[_label(found, inside) for found in inside.dissected],
        refusal=inside.refusal,
        controls=CONTROLS,
        provenance=inside.provenance,
    )


def numbers(inside: Inside) -> dict[str, Any]:
    """Return all numbers of the page as plain data."""
    return {
        "projections": [
            {"subject": p.name, "reach": p.reach, "scores": p.scores} for p in inside.projections
        ],
        "dissection": [
            {
                "label": d.name,
                "number": d.number,
                "share": d.share,
                "quantile": d.quantile,
                "stages": [
                    {"grid": list(grid), "iou": np.round(iou, 5).tolist()}
                    for grid, iou in zip(d.grids, d.iou)
                ],
                "stage": d.stage,
                "units": list(d.units),
                **{
                    name: {"before": e.before, "after": e.after, "control": e.control}
                    for name, e in (("ablation", d.ablation), ("insertion", d.insertion))
                },
            }
            for d in inside.dissected
        ],
        "refusal": inside.refusal,
        "provenance": dict(inside.provenance),
    }


def _facts(inside: Inside) -> list[tuple[str, str, str]]:
    facts = [
        ("Walks", str(len(inside.walks)), "between samples"),
        ("Crossovers", str(len(inside.mixings)), "of mixed styles"),
    ]
    if inside.projections:
        gained = [
            p.scores["projection"]["psnr"] - p.scores["mean styles"]["psnr"]
            for p in inside.projections
        ]
        facts.append(
            ("Projection gains", f"{number(np.mean(gained))} dB", "PSNR over the mean styles")
        )
    if inside.dissected:
        best = max(float(iou.max()) for d in inside.dissected for iou in d.iou)
        facts.append(("Best unit", number(best), "agreement with a label"))
    return facts


def _walks(inside: Inside) -> Context:
    figure = walk_figure(inside.walks, inside.spacing_mm, "", inside.plane)
    return picture(png(figure), f"{join([walk.label for walk in inside.walks])}.")


def _mixings(inside: Inside) -> list[Context]:
    pictures = []
    for mixing in inside.mixings:
        grid = grid_name(mixing.grid)
        figure = walk_figure(mixing.rows, inside.spacing_mm, "", inside.plane)
        alt = f"Samples mixed from the grid of {grid} on; the sources are on the diagonal."
        pictures.append(picture(png(figure), alt, f"Fine from {grid} on"))
    return pictures


def _projections(inside: Inside) -> list[Context]:
    found = []
    for p in inside.projections:
        image: Context | None = None
        if inside.projected_pictures:
            arms = {"mean styles": p.mean, "projection": p.projected}
            figure = reconstruction_figure(p.scan, arms, inside.spacing_mm, p.name)
            alt = f"{p.name}: scan, mean styles and projection, each with its difference."
            image = picture(png(figure), alt)
        cells = {
            arm: [number(scores[name]) for name in ("psnr", "nrmse", "ssim")]
            for arm, scores in p.scores.items()
        }
        found.append({"name": p.name, "cells": cells, "reach": number(p.reach), "image": image})
    return found


def _label(found: Dissected, inside: Inside) -> Context:
    """Describe one label's section."""
    stages = [
        {
            "grid": grid_name(grid),
            "units": len(iou),
            "best": number(iou.max()),
            "unit": int(iou.argmax()),
            "chosen": k == found.stage,
        }
        for k, (grid, iou) in enumerate(zip(found.grids, found.iou))
    ]
    ablation, insertion = found.ablation, found.insertion
    effects = [
        (
            "set to 0 everywhere",
            "voxels of the label in a sample",
            *map(number, (ablation.before, ablation.after, ablation.control)),
        ),
        (
            "set high at a place",
            "share of the place with the label, in %",
            *(number(100 * x) for x in (insertion.before, insertion.after, insertion.control)),
        ),
    ]
    figure = dissection_figure(found, inside.intensity, inside.spacing_mm, inside.plane)
    name = f"{found.name}, label {found.number}"
    alt = f"{name}: samples, where its best units are high, and what setting them does."
    return {
        "name": name,
        "share": f"{number(100 * found.share)} %",
        "top": f"{number(100 * (1 - found.quantile))} %",
        "stages": stages,
        "grid": grid_name(found.grids[found.stage]),
        "units": join([str(unit) for unit in found.units]),
        "effects": effects,
        "image": picture(png(figure), alt),
    }

"""What compares whole sets: tissue volumes, age, mean and SD images, texture, continuity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.segment import CSF, GM, WM, central_csf, fit_tissue_model, segment
from gyri.report import charts, figures, measures
from gyri.report.sections import Context, chart, gallery_pixel_mm, picture, spread
from gyri.report.text import ages, number

MAX_MEASURED = 128

_TISSUES = {
    "brain_ml": "brain (ml)",
    "gm_ml": "grey matter (ml)",
    "wm_ml": "white matter (ml)",
    "csf_ml": "CSF (ml)",
    "central_csf_ml": "central CSF, mostly ventricles (ml)",
}
_MAX_LAG_MM = 40.0


def measure_tissues(generated: VolumeSet, hold: VolumeSet, train: VolumeSet) -> Context:
    """Segment at most 128 members of each set, all with TRAIN's starting point.

    Returns
    -------
    dict
        Set -> table with ``brain_ml``, ``gm_ml``, ``wm_ml``, ``csf_ml``, ``central_csf_ml`` and
        the set's own covariates.
    """
    model = fit_tissue_model(train)
    tables = {}
    for key, members in (("generated", generated), ("HOLD", hold), ("TRAIN", train)):
        chosen = members.take(spread(len(members), MAX_MEASURED))
        found = segment(chosen, model)
        counts = {
            "brain_ml": found.mask.sum(axis=(1, 2, 3)),
            **{
                f"{name}_ml": (found.labels == label).sum(axis=(1, 2, 3))
                for name, label in (("gm", GM), ("wm", WM), ("csf", CSF))
            },
            "central_csf_ml": np.array(
                [
                    central_csf(labels, mask).sum() if mask.any() else 0
                    for labels, mask in zip(found.labels, found.mask)
                ]
            ),
        }
        measured = pd.DataFrame(
            {name: count * found.voxel_ml for name, count in counts.items()},
            index=chosen.table.index,
        )
        others = chosen.table.drop(columns=list(measured), errors="ignore")
        tables[key] = pd.concat([others, measured], axis=1)
    return tables


def anatomy(tables: Mapping[str, pd.DataFrame]) -> Context:
    """Distributions of the tissue volumes and the central CSF against age."""
    panels = []
    for column, label in _TISSUES.items():
        values = {name: table[column].to_numpy() for name, table in tables.items()}
        medians = "; ".join(
            f"{charts.SET_NAMES[name]} {number(np.median(v))}" for name, v in values.items()
        )
        panels.append(
            chart(
                charts.volume_distributions(values, label),
                f"Distribution of {label}. Medians: {medians}.",
                f"volume-{column}",
            )
        )
    found = {
        name: (years.to_numpy(), table["central_csf_ml"].to_numpy())
        for name, table in tables.items()
        if (years := ages(table)) is not None
    }
    ageing = None
    if found:
        figure, slopes = charts.against_age(found, "central CSF (ml)")
        told = "; ".join(
            f"{charts.SET_NAMES[name]} {number(slope, 2)} ml a year"
            for name, slope in slopes.items()
        )
        ageing = {
            **chart(figure, f"Central CSF against age. Slopes: {told}.", "ageing"),
            "slopes": told,
            "has_generated": "generated" in found,
        }
    return {"panels": panels, "ageing": ageing, "most": MAX_MEASURED}


def appearance(generated: VolumeSet, hold: VolumeSet, train: VolumeSet, channel: int) -> Context:
    """Mean and SD images, power spectrum and slice correlation of synthetic and real sets."""
    spacing_mm = generated.grid.spacing_mm
    sets = {"generated": generated, "HOLD": hold, "TRAIN": train}
    means = {k: s.volumes[:, channel].mean(axis=0) for k, s in sets.items()}
    sds = {k: s.volumes[:, channel].std(axis=0, ddof=1) for k, s in sets.items() if len(s) > 1}
    pixel_mm = max(2.0, gallery_pixel_mm(spacing_mm))
    images = []
    for kind, volumes, colours in (("Mean", means, "gray"), ("SD", sds, "magma")):
        reference = next((volumes[k] for k in ("HOLD", "TRAIN", "generated") if k in volumes), None)
        if reference is None:
            continue
        window = figures.display_window(reference)
        for key, volume in volumes.items():
            image = figures.tile(volume, spacing_mm, pixel_mm=pixel_mm, side_by_side=True)
            name = charts.SET_NAMES[key]
            images.append(
                picture(
                    figures.colour(image, window, colours),
                    f"{kind} image of {name} in three planes",
                    f"{kind}, {name}",
                    f"{number(window[0])} to {number(window[1], 2)}",
                )
            )
    compared = {
        k: s.volumes[spread(len(s), MAX_MEASURED), channel] for k, s in sets.items() if k != "TRAIN"
    }
    return {
        "images": images,
        "charts": [_spectrum_chart(compared, spacing_mm), _slices_chart(compared, spacing_mm[2])],
    }


def _spectrum_chart(compared: Mapping[str, np.ndarray], spacing_mm: figures.Spacing) -> Context:
    """Power of synthetic and HOLD volumes as a ratio to the mean of HOLD."""
    spectra = {name: measures.radial_spectrum(volumes) for name, volumes in compared.items()}
    frequency, reference = spectra["HOLD"][0], spectra["HOLD"][1].mean(axis=0)
    isotropic = max(spacing_mm) - min(spacing_mm) < 1e-3
    figure = charts.band(
        frequency / spacing_mm[0] if isotropic else frequency,
        {name: power - reference for name, (_, power) in spectra.items()},
        f"spatial frequency (cycles / {'mm' if isotropic else 'voxel'})",
        "log₁₀ power, held out = 0",
    )
    return chart(
        figure,
        "Power by spatial frequency, synthetic and held out, as a ratio to the mean held-out",
        "spectrum",
        "Texture: power against held-out subjects",
    )


def _slices_chart(compared: Mapping[str, np.ndarray], spacing_mm: float) -> Context:
    """Correlation of axial slices up to 40 mm apart."""
    num_slices = compared["generated"].shape[3]
    lags = max(1, min(num_slices - 1, round(_MAX_LAG_MM / spacing_mm)))
    figure = charts.band(
        spacing_mm * np.arange(1, lags + 1),
        {name: measures.slice_correlation(v, lags) for name, v in compared.items()},
        "distance between axial slices (mm)",
        "correlation",
    )
    return chart(
        figure,
        "Correlation of axial slices against their distance, synthetic and held out",
        "slices",
        "Continuity: likeness of slices",
    )

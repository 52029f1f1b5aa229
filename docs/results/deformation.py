"""Numbers and pictures of s3-cortex.md that no verb gives.

python docs/results/deformation.py PREPARED RUN ... [--published RUN] [--fields RUN ...] [--out P]

Every RUN is a trained registration: its way from template to scan, and how much it finds of known
deformations. FIELDS-RUN are models of fields: the Jacobians of what they make beside TRAIN's; the
published one also shows what its scaling and turning do to TRAIN's own fields.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gyri.cohort.prepared import PreparedCohort
from gyri.nn.deformation import exponential, folded, jacobian_determinant, resize_field, warp
from gyri.nn.local_correlation import local_correlation
from gyri.report.figures import png, tile
from gyri.runtime.seeding import derive_seed, numpy_rng
from gyri.runtime.streams import SampleRng
from gyri.synthesis import sampled_rows
from gyri.training.run import Model, Run

CPU = torch.device("cpu")
ETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
NUM_SCANS, NUM_WARPS, NUM_FIELDS = 22, 20, 64
LARGEST_VOXELS = 1.5
"""Peak of the velocities that known deformations are made of."""


class Fields:
    """The items of a view of fields in the place of its volumes."""

    lifts, slice_axis = False, None

    def __init__(self, view: Any) -> None:
        self.volume_shape = (view.item_channels, *view.item_shape)
        self.item_channels, self.item_shape = view.item_channels, view.item_shape

    def decode(self, items: Tensor) -> Tensor:
        """Return the items unchanged."""
        return items


def scans(cohort: PreparedCohort, split: str) -> Tensor:
    """Return a split's scans (N, 1, I, J, K) in [-1, 1]."""
    return 2 * torch.from_numpy(cohort.volume_set(split).volumes[:, :1]) - 1


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio over whole volumes in dB, the peak being 1."""
    return float(-10 * (a - b).square().mean().log10())


def range_fault(cohort: PreparedCohort, template: Tensor) -> dict[str, float]:
    """Compare a template with scans when both are in [0, 1], and when one is in [-1, 1]."""
    real = (scans(cohort, "VAL") + 1) / 2
    unit = (template + 1) / 2
    return {
        "both in [0, 1]": float(np.mean([psnr(unit, x[None]) for x in real])),
        "template in [-1, 1]": float(np.mean([psnr(template, x[None]) for x in real])),
    }


def trajectory(run: Run, cohort: PreparedCohort) -> list[dict[str, float]]:
    """Say how far a registration's way has moved the template at each share, and where it folds."""
    method: Any = run.load(CPU).method
    x, spacing = scans(cohort, "VAL")[:NUM_SCANS], cohort.grid.spacing_mm[0]
    rows = []
    for eta in ETAS:
        with torch.no_grad():
            u = torch.cat([method.trajectory(scan[None], eta) for scan in x])
        likeness = local_correlation(warp(method.template, u), x)
        rows.append(
            {
                "eta": eta,
                "displacement_mm": float(u.norm(dim=1).mean()) * spacing,
                "folded": float(folded(u).float().mean()),
                "local_correlation": float(likeness.mean()),
            }
        )
    return rows


def known_warps(run: Run, cohort: PreparedCohort) -> dict[str, float]:
    """Deform the template by smooth random velocities and measure what of them is found."""
    method: Any = run.load(CPU).method
    spacing, brain = cohort.grid.spacing_mm[0], method.template[0, 0] > -0.9
    errors, sizes = [], []
    for k in range(NUM_WARPS):
        nodes = numpy_rng(derive_seed("warp", k)).normal(size=(1, 3, 5, 6, 5)).astype(np.float32)
        field = resize_field(torch.from_numpy(nodes), cohort.grid.shape)
        true = exponential(field * (LARGEST_VOXELS / field.norm(dim=1).max()))
        with torch.no_grad():
            found = method.displacement(method.field(warp(method.template, true)))
        sizes.append(float(true.norm(dim=1)[0][brain].mean()) * spacing)
        errors.append(float((found - true).norm(dim=1)[0][brain].mean()) * spacing)
    return {"true_mm": float(np.mean(sizes)), "error_mm": float(np.mean(errors))}


def made_fields(model: Model, run: Run) -> Tensor:
    """Draw fields (n, 3, *S) of a run as its view sees them."""
    rows = sampled_rows(run, NUM_FIELDS, None, None, None, "HOLD", 0)
    condition = model.schema.encode(rows)
    rng = SampleRng(torch.tensor([derive_seed(0, "fields", k) for k in range(NUM_FIELDS)]))
    method: Any = model.method
    return method.sample(Fields(model.view), condition, rng)


def jacobians(run: Run, cohort: PreparedCohort) -> dict[str, Any]:
    """Return how local volumes spread in generated fields, TRAIN's and HOLD's."""
    model = run.load(CPU)
    view: Any = model.view
    found = {"generated": made_fields(model, run)}
    found |= {
        split: view.encode(scans(cohort, split)[:NUM_FIELDS]).x for split in ("TRAIN", "HOLD")
    }
    brain = view.registrar.template[0, 0] > -0.9
    rows = {}
    for name, items in found.items():
        u = torch.cat([view.displacement(item[None]) for item in items])
        determinant = jacobian_determinant(u)[:, brain]
        logs = determinant.clamp_min(1e-3).log()
        quantiles = np.quantile(logs.numpy(), [0.01, 0.25, 0.5, 0.75, 0.99])
        rows[name] = {
            "sd_log_jacobian": float(logs.std()),
            "sd_of_volume": float(determinant.mean(1).std()),
            "quantiles": [round(float(q), 3) for q in quantiles],
            "folded": float(folded(u).float().mean()),
            "displacement_mm": float(u.norm(dim=1).mean()) * cohort.grid.spacing_mm[0],
        }
    return rows


def handling(run: Run, cohort: PreparedCohort) -> tuple[dict[str, float], np.ndarray]:
    """Show what the published scaling and turning do to a registration's own fields.

    Returns
    -------
    numbers : local correlation of scans with the template warped by fields as they are, clipped,
        turned, and both.
    picture : scan, then those four, in three planes (rows, columns) in [0, 1].
    """
    view: Any = run.load(CPU).view
    x, likeness, shown = scans(cohort, "VAL")[:NUM_SCANS], {}, []
    fields = view.fields(x)
    clipped = fields.clamp(0, 1)
    forms = {
        "as it is": fields,
        "clipped to 0 to 1 voxel": clipped,
        "grid turned, components left": fields.rot90(1, (2, 4)),
        "both": clipped.rot90(1, (2, 4)),
    }
    spacing = cohort.grid.spacing_mm
    shown.append(tile(((x[0, 0] + 1) / 2).numpy(), spacing, pixel_mm=2.0))
    for name, field in forms.items():
        u = view.registrar.displacement(field)
        warped = warp(view.registrar.template, u)
        likeness[name] = float(local_correlation(warped, x).mean())
        shown.append(tile(((warped[0, 0] + 1) / 2).numpy(), spacing, pixel_mm=2.0))
    return likeness, np.concatenate(shown, axis=1)


def main() -> None:
    """Measure, print as JSON, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("registrations", type=Path, nargs="+")
    parser.add_argument("--published", type=Path)
    parser.add_argument("--fields", type=Path, nargs="*", default=[])
    parser.add_argument("--out", default="s3-cortex")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cohort = PreparedCohort.read(arguments.prepared)
    found: dict[str, Any] = {}
    for path in arguments.registrations:
        run = Run.read(path)
        method: Any = run.load(CPU).method
        found[path.name] = {
            "trajectory": trajectory(run, cohort),
            "known_warps": known_warps(run, cohort),
            "range": range_fault(cohort, method.template),
        }
    for path in arguments.fields:
        found[path.name] = jacobians(Run.read(path), cohort)
    if arguments.published is not None:
        found["published handling"], picture = handling(Run.read(arguments.published), cohort)
        shown = (255 * picture.clip(0, 1)).round().astype(np.uint8)
        Path(f"{arguments.out}-handling.png").write_bytes(png(shown))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

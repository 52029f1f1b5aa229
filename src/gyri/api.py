"""Every verb of the command line as a function of the same name.

Examples
--------
>>> from gyri import api
>>> api.import_cohort("oasis1", "downloads/oasis1", "oasis1")     # doctest: +SKIP
>>> api.prepare("oasis1", "oasis1-4mm", spacing_mm=4)             # doctest: +SKIP
>>> run = api.train("recipes/oasis1/slice-ddpm-4mm.yaml", "oasis1-4mm", "run")  # doctest: +SKIP
>>> synthetic, warnings = api.sample("run", num=32, condition={"age": "70"})    # doctest: +SKIP
>>> scores = api.evaluate("run/samples", against="oasis1-4mm")    # doctest: +SKIP
>>> api.report("run/samples", against="oasis1-4mm")               # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.table import Cohort
from gyri.errors import DataError, UsageError
from gyri.prepare.pipeline import prepare
from gyri.recipe import Recipe
from gyri.registry import SOURCES
from gyri.runtime.device import machine
from gyri.runtime.progress import progress_bar
from gyri.runtime.seeding import derive_seed
from gyri.synthesis import draw, sample
from gyri.training import log
from gyri.training import run as runs
from gyri.training.run import Model, Run

if TYPE_CHECKING:
    from gyri.evaluation.scores import Scores

__all__ = ["evaluate", "import_cohort", "prepare", "report", "sample", "train"]


def import_cohort(source: str, src: Path | str | None, out: Path | str, **options: Any) -> Cohort:
    """Read a data set in its published layout and write it as raw BIDS.

    Parameters
    ----------
    source : name of a registered source, see ``gyri list sources``.
    src : folder of the data set; None for sources that make their own scans.
    out : new folder.
    options : settings of the source.
    """
    component = SOURCES[source].component
    cohort: Cohort = component(None if src is None else Path(src), Path(out), **options)
    return cohort


def train(
    recipe: Recipe | Path | str,
    data: Path | str,
    out: Path | str,
    *,
    overrides: tuple[str, ...] = (),
    device: str = "auto",
) -> Run:
    """Train a recipe; see `gyri.training.run.train`. Previews are drawn into ``out/previews``."""
    return runs.train(recipe, data, out, overrides=overrides, device=device, preview=_preview)


def _preview(model: Model, path: Path) -> None:
    """Draw four samples with the averaged weights, always of the same seeds and conditions."""
    from gyri.report.figures import preview

    rows = [model.schema.assign({})] * 4
    seeds = torch.tensor([derive_seed("preview", k) for k in range(4)])
    volumes = ((draw(model, rows, seeds) + 1) / 2).clamp(0, 1).numpy()
    path.write_bytes(preview(volumes, spacing_mm=model.view.grid.spacing_mm))


def evaluate(
    synthetic: Path | str,
    against: Path | str,
    *,
    split: str = "HOLD",
    out: Path | str | None = None,
    seed: int = 0,
    bootstrap: int = 2000,
) -> Scores:
    """Judge a synthetic cohort against subjects that its model never saw.

    Parameters
    ----------
    synthetic : folder made by `sample`.
    against : prepared cohort.
    split : the reference: HOLD to report, VAL to choose.
    out : folder of ``scores.json``, by default ``SYNTHETIC/evaluation``.
    seed : of subsampling and bootstraps.
    bootstrap : number of resamples behind every interval.

    Raises
    ------
    UsageError
        If the cohort was dealt differently from the one that the model was trained on.
    """
    from gyri.evaluation import protocol

    samples = SyntheticCohort.read(synthetic)
    cohort = PreparedCohort.read(Path(against))
    if samples.facts["data_hash"] == cohort.data_hash and (
        samples.facts["split_hash"] != cohort.split_hash
    ):
        raise UsageError(
            f"{against} deals its subjects differently from the cohort that the model was trained "
            "on: its HOLD may hold training subjects. Evaluate against the original."
        )
    folder = Path(out) if out is not None else samples.root / "evaluation"
    with progress_bar("evaluate", None) as advance:
        scores = protocol.evaluate(
            samples.volume_set(),
            cohort.volume_set("TRAIN"),
            cohort.volume_set(split),
            seed=seed,
            cache=folder / "features",
            bootstrap=bootstrap,
            progress=lambda task, done, total: advance(completed=done, total=total, note=task),
            provenance={"split_hash": cohort.split_hash, "data_hash": cohort.data_hash},
        )
    scores.write(folder / "scores.json")
    return scores


def report(
    synthetic: Path | str,
    against: Path | str,
    *,
    split: str = "HOLD",
    out: Path | str | None = None,
) -> Path:
    """Write the self-contained ``report.html`` of a synthetic cohort that has been evaluated.

    Parameters
    ----------
    out : file, by default ``SYNTHETIC/report.html``.

    Raises
    ------
    DataError
        If there is no evaluation yet.
    """
    from gyri.evaluation.scores import Scores
    from gyri.report.page import write_report

    samples = SyntheticCohort.read(synthetic)
    cohort = PreparedCohort.read(Path(against))
    scores_path = samples.root / "evaluation" / "scores.json"
    if not scores_path.is_file():
        raise DataError(
            f"{synthetic} has no scores. Run `gyri evaluate {synthetic} --against {against}` first."
        )
    run_root = Path(samples.facts["run"])
    rows, cost = None, {}
    if (run_root / "run.json").is_file():
        rows = log.read(run_root / "log.jsonl")
        cost = Run.read(run_root).info.get("cost", {})
    facts = {k: v for k, v in samples.facts.items() if k not in ("conditions", "grid")}
    with progress_bar("report", 4) as advance:
        generated = samples.volume_set()
        advance()
        train_set = cohort.volume_set("TRAIN")
        advance()
        hold = cohort.volume_set(split)
        advance()
        page = write_report(
            Path(out) if out is not None else samples.root / "report.html",
            title=f"Synthetic brains by {samples.facts['recipe_name']}",
            training_log=rows,
            generated=generated,
            train=train_set,
            hold=hold,
            scores=Scores.read(scores_path).to_dict(),
            provenance={**facts, "cost": cost, "machine": machine()},
            conditions_table=generated.table,
            previews=sorted((run_root / "previews").glob("*.png")),
        )
        advance()
    return page

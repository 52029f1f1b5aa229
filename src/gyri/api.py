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

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gyri.bundle import import_bundle
from gyri.capabilities import Sampler
from gyri.cohort.archive import opened
from gyri.cohort.brats_layout import write_brats
from gyri.cohort.prepared import MANIFEST, PreparedCohort
from gyri.cohort.synthetic import SyntheticCohort
from gyri.cohort.table import Cohort
from gyri.errors import DataError, UsageError
from gyri.prepare.pipeline import prepare
from gyri.prepare.plan import Choices
from gyri.recipe import Recipe
from gyri.registry import SOURCES
from gyri.report.release import release
from gyri.runtime.device import machine, pick_device
from gyri.runtime.progress import progress_bar
from gyri.runtime.seeding import derive_seed
from gyri.synthesis import draw, sample
from gyri.training import log
from gyri.training import run as runs
from gyri.training.run import PREVIEWS, Model, Run
from gyri.training.scoring import score

if TYPE_CHECKING:
    from gyri.evaluation.scores import Scores
    from gyri.evaluation.selftest import SelfTest
    from gyri.evaluation.utility.arms import Balance
    from gyri.reconstruction import Reconstructions
    from gyri.translation import Translations

__all__ = [
    "cohort_page",
    "evaluate",
    "import_bundle",
    "import_cohort",
    "prepare",
    "quality_page",
    "reconstruct",
    "release",
    "report",
    "sample",
    "score",
    "self_test",
    "styles",
    "train",
    "translate",
    "utility",
    "utility_fraction",
    "write_brats",
]


def import_cohort(source: str, src: Path | str | None, out: Path | str, **options: Any) -> Cohort:
    """Read a data set in its published layout and write it as raw BIDS.

    Parameters
    ----------
    source : name of a registered source, see ``gyri list sources``.
    src : folder of the data set, or an archive of it; None for sources that make their own scans.
    out : new folder.
    options : settings of the source.
    """
    component = SOURCES[source].component
    if src is None:
        made: Cohort = component(None, Path(out), **options)
        return made
    with opened(Path(src)) as folder:
        cohort: Cohort = component(folder, Path(out), **options)
    return cohort


def preview_preparation(
    cohort: Path | Cohort,
    out: Path,
    num: int = 3,
    choices: Choices | None = None,
    *,
    jobs: int | None = None,
    dask: str | None = None,
) -> list[Path]:
    """Picture what each step of a preparation makes of some scans; nothing is prepared.

    Whole heads are pictured only where the choices allow faces.

    Parameters
    ----------
    cohort, out : as for `prepare`; the pictures go to ``out/preview``.
    num : scans, evenly spread over the cohort.
    choices : steps, channels and so on, under the names that `prepare` gives them.
    jobs, dask : as for `prepare`; all scans are looked at, whose common window is needed.

    Returns
    -------
    list of Path
        One PNG a scan: a row a step, before and after it.
    """
    from gyri.prepare.preview import PREVIEWS, previewed
    from gyri.report.figures import png
    from gyri.report.steps import stages_figure

    choices = choices or Choices()
    folder = Path(out) / PREVIEWS
    pictures = []
    for preview in previewed(cohort, out, choices, num, jobs, dask):
        path = folder / f"{preview.session.label.replace(' ', '_')}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(stages_figure(preview, allow_faces=choices.allow_faces)))
        pictures.append(path)
    return pictures


def train(
    recipe: Recipe | Path | str,
    data: Path | str,
    out: Path | str,
    *,
    overrides: tuple[str, ...] = (),
    begin_from: Path | str | None = None,
    device: str = "auto",
) -> Run:
    """Train a recipe; see `gyri.training.run.train`. Previews are drawn into ``out/previews``."""
    return runs.train(
        recipe, data, out, overrides=overrides, begin_from=begin_from, device=device,
        preview=_preview,
    )  # fmt: skip


def _preview(model: Model, path: Path) -> None:
    """Draw four samples with the averaged weights, always of the same seeds and conditions.

    Methods that make no samples, such as translators and classifiers, have no preview.
    """
    from gyri.report.figures import preview

    if not isinstance(model.method, Sampler):
        return
    rows = [model.schema.assign({})] * PREVIEWS
    seeds = torch.tensor([derive_seed("preview", k) for k in range(PREVIEWS)])
    volumes = ((draw(model, rows, seeds, model.shown) + 1) / 2).clamp(0, 1).numpy()
    path.write_bytes(preview(volumes, spacing_mm=model.view.grid.spacing_mm))


def evaluate(
    synthetic: Path | str,
    against: Path | str,
    *,
    split: str = "HOLD",
    out: Path | str | None = None,
    seed: int = 0,
    bootstrap: int = 2000,
    features: Sequence[str] | None = None,
    legacy: bool = False,
    export_features: bool = False,
    cache: Path | str | None = None,
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
    features : feature sets to measure; by default all that need not be asked for.
    legacy : compute the published definitions that are wrong, too, for comparison with papers.
    export_features : write the features of all sets for other tools into ``OUT/features``.
    cache : folder that keeps measured features, by default ``OUT/features``; several evaluations
        against one cohort may share it.

    Raises
    ------
    UsageError
        If the cohort was dealt differently from the one that the model was trained on.
    """
    from gyri.evaluation import protocol
    from gyri.evaluation.selftest import find_self_test

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
    tested = find_self_test(cohort.root, cohort.data_hash)
    with progress_bar("evaluate", None) as advance:
        scores = protocol.evaluate(
            samples.volume_set(),
            cohort.volume_set("TRAIN"),
            cohort.volume_set(split),
            seed=seed,
            cache=Path(cache) if cache is not None else folder / "features",
            bootstrap=bootstrap,
            features=features,
            legacy=legacy,
            export=folder / "features" if export_features else None,
            distrusted=tested.failed if tested else None,
            progress=lambda task, done, total: advance(completed=done, total=total, note=task),
            provenance={
                "split_hash": cohort.split_hash,
                "data_hash": cohort.data_hash,
                "self_test": {"done": bool(tested), "failed": tested.failed if tested else {}},
            },
        )
    scores.write(folder / "scores.json")
    return scores


def self_test(
    prepared: Path | str,
    *,
    out: Path | str | None = None,
    num: int = 40,
    seed: int = 0,
    features: Sequence[str] | None = None,
) -> SelfTest:
    """Corrupt held-out scans and record which metric notices; see `gyri.evaluation.selftest`.

    Some of HOLD play the generated set, the others are the reference. Later evaluations against
    this cohort read the result from ``PREPARED/self-test``.

    Parameters
    ----------
    prepared : prepared cohort.
    out : folder of ``self-test.json``, ``self-test.md`` and ``self-test.html``, by default
        ``PREPARED/self-test``.
    num : HOLD subjects that are corrupted, at most half of them.
    seed : who they are.
    features : feature sets to measure; by default all that need not be asked for.
    """
    from gyri.evaluation import selftest
    from gyri.report.selftest import write_self_test
    from gyri.runtime.seeding import numpy_rng

    cohort = PreparedCohort.read(Path(prepared))
    folder = Path(out) if out is not None else cohort.root / selftest.FOLDER
    hold = cohort.volume_set("HOLD")
    order = numpy_rng("self-test", seed).permutation(len(hold))
    num = min(num, len(hold) // 2)
    with progress_bar("self-test", None) as advance:
        result = selftest.self_test(
            hold.take(order[:num], "corrupted HOLD"),
            cohort.volume_set("TRAIN"),
            hold.take(order[num:]),
            seed=seed,
            cache=folder / "features",
            features=features,
            progress=lambda task, done, total: advance(completed=done, total=total, note=task),
            provenance={
                "cohort": cohort.name,
                "split_hash": cohort.split_hash,
                "data_hash": cohort.data_hash,
            },
        )
    result.write(folder)
    write_self_test(result, folder)
    return result


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


def reconstruct(
    run: Path | str, cohort: Path | str, out: Path | str, **options: Any
) -> Reconstructions:
    """Let a run rebuild real scans and compare each with its original.

    Where the cohort shows brains without heads, ``OUT/paired.png`` pictures the subject whose PSNR
    is the median, and ``OUT/latent.png`` walks through the code of an autoencoder.

    Parameters
    ----------
    run, cohort, out, options : see `gyri.reconstruction.reconstruct`.
    """
    from gyri import reconstruction
    from gyri.report.figures import png
    from gyri.report.reconstruction import reconstruction_figure

    made = reconstruction.reconstruct(run, cohort, out, **options)
    if made.cohort.skull_stripped:
        name, original, arms = made.typical()
        figure = reconstruction_figure(original, arms, made.cohort.grid.spacing_mm, f"sub-{name}")
        (made.root / "paired.png").write_bytes(png(figure))
        if "Autoencoder" in Run.read(run).capabilities:
            _picture_code(Path(run), Path(cohort), made.root, options)
    return made


def _picture_code(run: Path, cohort: Path, out: Path, options: dict[str, Any]) -> None:
    """Draw walks through the code of a run's autoencoder into ``OUT/latent.png``."""
    from gyri.latent_walk import latent_walks
    from gyri.report.figures import png
    from gyri.report.reconstruction import walk_figure

    given = {key: options[key] for key in ("split", "step", "device") if key in options}
    walks = latent_walks(run, cohort, **given)
    figure = walk_figure(walks, Run.read(run).grid.spacing_mm, "Walks through the code")
    (out / "latent.png").write_bytes(png(figure))


def styles(
    run: Path | str,
    cohort: Path | str | None = None,
    out: Path | str | None = None,
    **options: Any,
) -> Path:
    """Write a page of what the styles and units of a run's generator do, and its numbers as JSON.

    Parameters
    ----------
    run : run folder of a `gyri.capabilities.Stylist`.
    cohort : prepared cohort on the run's grid, whose scans are projected; None for none.
    out : the page, by default ``RUN/styles.html``; the numbers are beside it.
    options : see `gyri.report.styles.look_inside`.
    """
    from gyri.cohort.files import write_json
    from gyri.report.styles import look_inside, numbers, write_styles

    trained = Run.read(run)
    prepared = PreparedCohort.read(Path(cohort)) if cohort is not None else None
    inside = look_inside(trained, prepared, **options)
    page = write_styles(Path(out) if out is not None else trained.root / "styles.html", inside)
    write_json(page.with_suffix(".json"), numbers(inside))
    return page


def translate(
    run: Path | str, cohort: Path | str, out: Path | str, to: str, **options: Any
) -> Translations:
    """Translate real scans to a level of a condition, ``"scanner=B"``, and measure what it did.

    Where the cohort shows brains without heads, ``OUT/evaluation/translated.png`` pictures the
    subject whose change is the median.

    Parameters
    ----------
    run, cohort, out, to, options : see `gyri.translation.translate`.
    """
    from gyri import translation
    from gyri.report.figures import png
    from gyri.report.reconstruction import reconstruction_figure

    done = translation.translate(run, cohort, out, to, **options)
    if done.cohort.skull_stripped:
        name, original, after = done.typical()
        spacing_mm = done.cohort.grid.spacing_mm
        figure = reconstruction_figure(original, {f"as {to}": after}, spacing_mm, f"sub-{name}")
        (done.made.root / translation.FOLDER / "translated.png").write_bytes(png(figure))
    return done


def register(cohort: Path | str, out: Path | str, **options: Any) -> tuple[Path, dict[str, Any]]:
    """Deform a template to every scan and write ``OUT/registration.html``.

    Three scans are pictured where the cohort shows brains without heads.

    Parameters
    ----------
    cohort, out, options : see `gyri.registration.register`.

    Returns
    -------
    tuple
        The page, and the content of ``OUT/registration.json``.
    """
    from gyri import registration
    from gyri.report.registration import write_registration

    done = registration.register(cohort, out, **options)
    stripped = PreparedCohort.read(Path(cohort)).skull_stripped
    page = write_registration(
        done.root / "registration.html",
        done.summary,
        done.registered,
        done.shown if stripped else [],
        done.grid.spacing_mm,
        done.template,
        done.average,
    )
    return page, done.summary


def quality_page(
    prepared: Path | str, *, out: Path | str | None = None, allow_faces: bool = False
) -> Path:
    """Write the quality page of a prepared cohort; see `gyri.report.quality`.

    Parameters
    ----------
    prepared : prepared cohort.
    out : file, by default ``PREPARED/quality.html``.
    allow_faces : picture whole heads in three planes; otherwise only above the orbits.
    """
    from gyri.report.quality import write_quality_page

    cohort = PreparedCohort.read(Path(prepared))
    return write_quality_page(cohort, Path(out) if out else None, allow_faces=allow_faces)


def cohort_page(cohort: Path | str, out: Path | str, *, allow_faces: bool = False) -> Path:
    """Write a page of who is in a cohort and what every scan looks like.

    Parameters
    ----------
    cohort : raw cohort; of a prepared one the quality page is written.
    out : file.
    allow_faces : picture whole heads in three planes; otherwise only above the orbits.
    """
    from gyri.cohort import bids
    from gyri.report.inventory import write_cohort_page

    root = Path(cohort)
    if (root / MANIFEST).is_file():
        return quality_page(root, out=out, allow_faces=allow_faces)
    return write_cohort_page(bids.read(root), Path(out), allow_faces=allow_faces)


def utility(
    synthetic: Path | str | Sequence[Path | str],
    against: Path | str,
    task: str,
    *,
    estimator: str | None = None,
    fractions: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
    alphas: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
    seeds: int = 5,
    balance: Sequence[Balance] = (),
    synthetic_for: Mapping[float, Sequence[Path | str]] | None = None,
    test: Sequence[str] = ("TEST",),
    test_cohort: Path | str | None = None,
    minimum: float | None = None,
    margin: float | None = None,
    bootstrap: int = 10_000,
    steps: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    device: str = "auto",
    allow_leaks: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Measure whether a model trained for a task gains from synthetic volumes.

    Finished cells of the grid are kept in ``OUT/cells.jsonl`` and done again only where something
    that decides them has changed.

    Parameters
    ----------
    synthetic : folder made by `sample`, or several, of generators trained on the same TRAIN.
    against : prepared cohort.
    task : column, label channel or ``tissue``.
    estimator : ``linear``, ``cnn`` or ``unet``; by default what suits the task and is fastest.
    fractions, alphas, seeds, balance, minimum, margin, bootstrap, seed : see
        `gyri.evaluation.utility.study.Plan`.
    synthetic_for : folders of generators that were trained on a fraction of TRAIN alone.
    test, test_cohort : whom the models are asked about; see `gyri.evaluation.utility.judge`.
    steps : updates of every arm, for networks.
    out : folder of ``utility.json`` and ``utility.html``, by default
        ``SYNTHETIC/evaluation/utility/TASK-ESTIMATOR``.
    allow_leaks : go on where test subjects are known to training; results are tagged LEAKY.

    Returns
    -------
    tuple
        The sheet, and the folder it was written to.
    """
    from gyri.cohort.files import write_json
    from gyri.evaluation.utility.estimators import DEFAULT, Place
    from gyri.evaluation.utility.judge import judge, task_of
    from gyri.evaluation.utility.study import Plan
    from gyri.report.usefulness import write_usefulness

    given = [synthetic] if isinstance(synthetic, (str, Path)) else synthetic
    folders = [Path(folder) for folder in given]
    kind = task_of(PreparedCohort.read(Path(against)), task).kind
    name = estimator or DEFAULT[kind]
    folder = Path(out) if out else folders[0] / "evaluation" / "utility" / f"{task}-{name}"
    plan = Plan(
        fractions=tuple(fractions),
        alphas=tuple(alphas),
        seeds=seeds,
        balance=tuple(balance),
        minimum=minimum,
        margin=margin,
        resamples=bootstrap,
        seed=seed,
    )
    with progress_bar("utility", None) as advance:
        sheet = judge(
            folders,
            Path(against),
            task,
            plan,
            estimator_name=name,
            place=Place(steps, pick_device(device)),
            by_fraction={f: [Path(p) for p in ps] for f, ps in (synthetic_for or {}).items()},
            test=test,
            test_cohort=Path(test_cohort) if test_cohort else None,
            ledger=folder / "cells.jsonl",
            allow_leaks=allow_leaks,
            progress=lambda note, done, total: advance(completed=done, total=total, note=note),
        )
    write_json(folder / "utility.json", sheet)
    write_usefulness(folder / "utility.html", sheet)
    return sheet, folder


def utility_fraction(
    prepared: Path | str, out: Path | str, task: str, fraction: float, *, seed: int = 0
) -> PreparedCohort:
    """Write a prepared cohort with a fraction of TRAIN, to train a generator on no more.

    See `gyri.evaluation.utility.fraction.write_fraction`.
    """
    from gyri.evaluation.utility.fraction import write_fraction
    from gyri.evaluation.utility.judge import task_of

    cohort = PreparedCohort.read(Path(prepared))
    return write_fraction(cohort, task_of(cohort, task), fraction, Path(out), seed)

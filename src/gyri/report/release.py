"""The release of samples: audit, verdict, the page behind it, and the cards that go along."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gyri.cohort.files import write_json, write_text, write_tsv
from gyri.cohort.prepared import PreparedCohort
from gyri.cohort.synthetic import FACTS, SyntheticCohort
from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError, UsageError
from gyri.report import cards
from gyri.report.figures import PLANES, display_window, nearest_pairs
from gyri.report.render import write_page
from gyri.report.sections import NUM_PICTURES, gallery_pixel_mm, picture
from gyri.report.text import interval, number, p_value
from gyri.runtime.progress import progress_bar

if TYPE_CHECKING:
    from gyri.evaluation.privacy.audit import Audit
    from gyri.evaluation.privacy.controls import Control
    from gyri.evaluation.privacy.gate import Gate
    from gyri.evaluation.privacy.membership import Membership
    from gyri.evaluation.privacy.pairs import Pair
    from gyri.evaluation.scores import Scores
    from gyri.training.run import Run

SCHEMA = "gyri-release-1"
SHARE = "share"
NUM_SHOWN = 24
PRIVATE = ("evaluation", "report.html", "release", ".*")
"""What a folder of samples may hold that shows or names real people."""
MODEL_CARD, DATA_CARD = "MODEL_CARD.md", "DATA_CARD.md"


@dataclass(frozen=True)
class Release:
    """What `release` made.

    Parameters
    ----------
    folder : holds release.json, release.html, pairs.tsv, the cards and, on a pass, ``share``.
    gate : the verdict.
    promise : what a run with differential privacy promises, empty for another.
    """

    folder: Path
    gate: Gate
    promise: list[str]


@dataclass(frozen=True)
class Findings:
    """Everything that the verdict rests on."""

    audit: Audit
    controls: list[Control]
    membership: Membership | None
    directions: list[str]
    gate: Gate


def release(
    run: Path | str,
    samples: Path | str,
    against: Path | str,
    *,
    out: Path | str | None = None,
    reviewed: Path | str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Release:
    """Audit the samples of a run before they leave.

    Parameters
    ----------
    run : run folder.
    samples : folder made from the run by ``gyri sample`` and judged by ``gyri evaluate``.
    against : prepared cohort that the run was trained on.
    out : folder of what is written, by default ``RUN/release/SAMPLES``.
    reviewed : table of pairs with decisions, see `gyri.evaluation.privacy.pairs.read_reviews`.
    seed : of permutations and controls.
    device : where losses are computed that are not there yet.

    Raises
    ------
    UsageError
        If the samples are not of the run, or the cohort is not the one it was trained on.
    DataError
        If the samples were not evaluated, or are made of training voxels.
    """
    from gyri.evaluation.privacy.pairs import read_reviews
    from gyri.training.run import Run

    trained, cohort = Run.read(run), PreparedCohort.read(Path(against))
    made = SyntheticCohort.read(samples)
    step = _check(trained, made, cohort)
    scores = _scores(made, Path(against))
    reviews = read_reviews(Path(reviewed)) if reviewed is not None else {}
    folder = Path(out) if out is not None else trained.root / "release" / made.root.name
    if folder.resolve().is_relative_to(made.root.resolve()):
        raise UsageError(
            f"{folder} lies inside the samples, and the pages of a release show real people. "
            "Give a folder outside."
        )
    generated = made.volume_set("samples")
    train = cohort.volume_set("TRAIN", trained.recipe.data.sessions)
    found = _find(trained, made, cohort, generated, train, reviews, seed, device, step)
    _write(folder, trained, made, cohort, scores, found, generated, train)
    return Release(folder, found.gate, cards.privacy_promise(trained.info))


def _check(run: Run, samples: SyntheticCohort, cohort: PreparedCohort) -> int | None:
    """Refuse what does not belong together; return the step that the samples are of."""
    from gyri.training import checkpoint
    from gyri.training.disclosure import with_training_data

    if kinds := with_training_data(run):
        raise DataError(
            f"{run.root} is a {', '.join(kinds)}, whose samples are made of training voxels. "
            "Such samples are training data and are not released; choose another method."
        )
    if {"reconstruction", "translation"} & samples.facts.keys():
        raise DataError(
            f"{samples.root} shows real people as the model rebuilds them, not new ones, and is "
            "not released. Give a folder that `gyri sample` made."
        )
    if given := samples.facts.get("given"):
        raise DataError(
            f"{samples.root} holds {', '.join(given['images'])} of real people of "
            f"{given['split']}, which the images follow. That is data of theirs and is not "
            "released. Give a folder that a run made without `data.context`."
        )
    step = int(str(samples.facts["checkpoint"]).removeprefix("step-"))
    if checkpoint.digest(run.checkpoint(step)) != samples.facts["checkpoint_sha256"]:
        raise UsageError(
            f"{samples.root} was not made by {run.root} (another {samples.facts['checkpoint']}). "
            f"Give the run that made it: {samples.facts['run']}."
        )
    for key, value in (("data_hash", cohort.data_hash), ("split_hash", cohort.split_hash)):
        if run.info[key] != value:
            raise UsageError(
                f"{cohort.root} is not the cohort that {run.root} was trained on ({key} "
                f"{value[:12]}, there {run.info[key][:12]}), so that its TRAIN are other people. "
                "Give the original."
            )
    return step


def _scores(samples: SyntheticCohort, against: Path) -> Scores:
    from gyri.evaluation.scores import Scores

    path = samples.root / "evaluation" / "scores.json"
    command = f"gyri evaluate {samples.root} --against {against}"
    if not path.is_file():
        raise DataError(f"{samples.root} was not evaluated. Run `{command}` first.")
    scores = Scores.read(path)
    judged = {str(row.get("id")) for row in scores.samples}
    written = {name for name in samples.table.index if samples.is_written(name)}
    if judged != written:
        raise DataError(
            f"{path} judges {len(judged)} samples, {samples.root} holds {len(written)}, "
            f"{len(judged ^ written)} of them in one only. Run `{command}` again."
        )
    return scores


def _find(
    run: Run,
    samples: SyntheticCohort,
    cohort: PreparedCohort,
    generated: VolumeSet,
    train: VolumeSet,
    reviews: Mapping[tuple[str, str], str],
    seed: int,
    device: str,
    step: int | None,
) -> Findings:
    """Audit, controls, membership and verdict."""
    from threadpoolctl import threadpool_limits

    from gyri.evaluation.features.extraction import Extractor
    from gyri.evaluation.privacy import audit, controls
    from gyri.evaluation.privacy.gate import decide
    from gyri.training.disclosure import kept_directions

    sessions = run.recipe.data.sessions
    with progress_bar("release", None) as advance, threadpool_limits(1):
        extractor = Extractor(train, samples.root / "evaluation" / "features")
        planted = controls.canaries(train, seed)
        cast = audit.measure_distances(
            train,
            cohort.volume_set("HOLD", sessions),
            [cohort.volume_set(s, sessions) for s in ("VAL", "TEST") if len(cohort.rows(s))],
            [generated, controls.noisy_copies(train, controls.NUM_COPIES, seed)],
            extractor.extract,
            by_voxels=[planted],
            progress=lambda task: advance(note=task),
        )
        advance(note="controls")
        ran = [
            controls.negative_control(cast, seed),
            controls.positive_control(cast, seed),
            controls.canary_control(cast, planted),
        ]
        advance(note="audit")
        found = audit.audit(cast, generated, seed=seed)
    membership = _membership(run, cohort, step, device)
    gate = decide(found, ran, membership, reviews)
    return Findings(found, ran, membership, kept_directions(run, step), gate)


def _membership(
    run: Run, cohort: PreparedCohort, step: int | None, device: str
) -> Membership | None:
    """Attack the run by its losses, which are computed where they are not there yet."""
    from gyri.evaluation.privacy.membership import infer_membership
    from gyri.training import scoring

    if not scoring.can_score(run):
        return None
    table = scoring.read_scores(run, cohort, step)
    if table is None:
        table = scoring.score(run.root, cohort.root, step=step, device=device)
    return infer_membership(table)


def _write(
    folder: Path,
    run: Run,
    samples: SyntheticCohort,
    cohort: PreparedCohort,
    scores: Scores,
    found: Findings,
    generated: VolumeSet,
    train: VolumeSet,
) -> None:
    """Write the verdict, the page, the table of pairs, the cards and what may be shared."""
    flagged = [pair for pair in found.audit.pairs if pair.flagged]
    content = {
        "schema": SCHEMA,
        "verdict": "PASS" if found.gate.passed else "FAIL",
        "reasons": found.gate.reasons,
        "audit": found.audit.to_dict(),
        "controls": [vars(control) for control in found.controls],
        "membership": vars(found.membership) if found.membership else None,
        "checkpoint_keeps": found.directions,
        "differential_privacy": run.info.get("differential_privacy"),
        "checkpoint_sha256": samples.facts["checkpoint_sha256"],
        "data_hash": cohort.data_hash,
        "split_hash": cohort.split_hash,
    }
    write_json(folder / "release.json", json.loads(json.dumps(content, default=float)))
    write_tsv(
        folder / "pairs.tsv",
        pd.DataFrame(
            [[p.sample, p.subject, p.correlation, None] for p in flagged],
            columns=["sample", "subject", "correlation", "decision"],
        ),
    )
    facts = cards.CardFacts(run, samples, cohort, scores, found)
    model_card, data_card = cards.model_card(facts), cards.data_card(facts)
    write_text(folder / MODEL_CARD, model_card)
    write_text(folder / DATA_CARD, data_card)
    shutil.rmtree(folder / SHARE, ignore_errors=True)
    if found.gate.passed:
        share(samples, folder / SHARE, {MODEL_CARD: model_card, DATA_CARD: data_card})
    write_page(
        folder / "release.html",
        "release.html",
        title=f"Release of {samples.root.name}",
        passed=found.gate.passed,
        reasons=found.gate.reasons,
        n=found.audit.n,
        controls=found.controls,
        findings=_rows(found.audit),
        membership=_membership_row(found.membership),
        promise=cards.privacy_promise(run.info),
        directions=found.directions,
        pairs=_pictures(found.audit.pairs[:NUM_SHOWN], generated, train),
        num_flagged=len(flagged),
        num_shown=NUM_SHOWN,
    )


def share(samples: SyntheticCohort, folder: Path, texts: Mapping[str, str]) -> None:
    """Copy what may leave: volumes, sidecars and tables of the samples, with `texts` beside them.

    Left out is whatever shows or names real people (the report, the evaluation) and the place of
    the run on this machine.
    """
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(samples.root, partial, ignore=shutil.ignore_patterns(*PRIVATE))
    for name, text in texts.items():
        write_text(partial / name, text)
    write_text(partial / ".bidsignore", "\n".join([FACTS, *texts]) + "\n")
    facts = {key: value for key, value in samples.facts.items() if key != "run"}
    facts["recipe"] = cards.without_places(facts["recipe"])
    write_json(partial / FACTS, facts)
    partial.replace(folder)


def _rows(audit: Audit) -> list[dict[str, Any]]:
    return [
        {
            "space": f.space,
            "label": f.label[:1].upper() + f.label[1:],
            "worse": f"{f.worse} is worse",
            "value": number(f.value),
            "interval": interval(f.low, f.high),
            "expected": number(f.expected),
            "p_value": p_value(f.p_value),
            "odd": f.p_value <= 0.05,
        }
        for f in audit.findings
    ]


def _membership_row(membership: Membership | None) -> dict[str, Any] | None:
    if membership is None:
        return None
    return {
        "auc": number(membership.auc),
        "interval": interval(membership.low, membership.high),
        "tpr": f"{membership.tpr:.1%}",
        "alarm": membership.alarm,
    }


def _pictures(
    pairs: Sequence[Pair], generated: VolumeSet, train: VolumeSet
) -> list[dict[str, Any]]:
    """Draw pairs in three planes: sample, training subject, difference."""
    spacing_mm = generated.grid.spacing_mm
    window = display_window(train.volumes[:NUM_PICTURES, 0])
    mean = train.volumes[:, 0].mean(0)
    mean = (mean + mean[::-1]) / 2
    drawn = []
    for pair in pairs:
        sample = generated.volumes[generated.ids.index(pair.sample), 0]
        rows = [row for row, name in enumerate(train.ids) if name == pair.subject]
        likenesses = [
            (float(((sample - mean) * (turned - mean)).sum()), mirrored, turned)
            for row in rows
            for mirrored, turned in enumerate((train.volumes[row, 0], train.volumes[row, 0, ::-1]))
        ]
        _, mirrored, partner = max(likenesses, key=lambda entry: entry[0])
        image = nearest_pairs(
            [sample],
            [np.ascontiguousarray(partner)],
            spacing_mm=spacing_mm,
            window=window,
            planes=PLANES,
            pixel_mm=max(2.0, gallery_pixel_mm(spacing_mm)),
        )[0]
        alt = f"Sample {pair.sample}, TRAIN subject {pair.subject}, difference, in three planes"
        drawn.append(
            {
                **picture(image, alt),
                "sample": pair.sample,
                "partner": pair.subject + (" (mirrored)" if mirrored else ""),
                "correlation": number(pair.correlation),
                "higher": f"{100 * pair.hold_as_close:.0f} %",
                "flagged": pair.flagged,
            }
        )
    return drawn

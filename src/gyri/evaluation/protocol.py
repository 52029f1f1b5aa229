"""One protocol for every generated set: all metrics, all anchors, one sheet of scores."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError
from gyri.evaluation.anchors import ANCHORS, build_anchor
from gyri.evaluation.export import export_features
from gyri.evaluation.faults import Fault, find_faults
from gyri.evaluation.features import FloatArray
from gyri.evaluation.features.extraction import QUALITY, Extractor, volume_hashes
from gyri.evaluation.gates import gates
from gyri.evaluation.metrics import Evidence, Metric, Refusal, Score, Study
from gyri.evaluation.scores import Refused, Scores
from gyri.registry import METRICS
from gyri.runtime.seeding import numpy_rng

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""

MIN_REAL = 4
READ_BY_METRICS = ("morph-v1", "spectrum-v1")
"""Feature sets that metrics of their own read; measured whatever is asked for."""


def evaluate(
    generated: VolumeSet,
    train: VolumeSet,
    hold: VolumeSet,
    *,
    seed: int = 0,
    cache: Path | None = None,
    bootstrap: int = 2000,
    features: Sequence[str] | None = None,
    legacy: bool = False,
    export: Path | None = None,
    distrusted: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
    provenance: dict[str, Any] | None = None,
) -> Scores:
    """Judge a generated set against subjects it was trained on and subjects nobody saw.

    Parameters
    ----------
    generated : the set to be judged; the first channel is read.
    train, hold : TRAIN fits everything and is the reference of copying; HOLD is the reference
        of quality. Both finite, on one grid.
    seed : of subsamples, anchors and resamples.
    cache : folder that keeps the features of sets already measured.
    bootstrap : resamples of subjects behind every interval.
    features : feature sets to measure beside `READ_BY_METRICS`; by default all that need not be
        asked for.
    legacy : compute the published definitions that are wrong, too, for comparison with papers.
    export : folder into which the features of all three sets are written; see
        `gyri.evaluation.export`.
    distrusted : keys of scores that failed the cohort's self-test, with the corruptions that they
        did not see; such scores are marked unreliable, and neither lead nor decide.
    progress : called as ``progress(task, done, total)``.
    provenance : entries to be added to the sheet's own (split hash, data hash, run).

    Returns
    -------
    Scores
        The sheet. What could not be computed is in its `refused`, with the reason.

    Raises
    ------
    DataError
        If TRAIN or HOLD cannot serve as references.
    """
    from threadpoolctl import threadpool_limits

    _check_references(train, hold)
    # Volumes are spread over threads; threads inside each small matrix product would fight them.
    with threadpool_limits(1):
        judge = Judge(
            train, hold, len(generated), seed, cache, bootstrap, progress, features, legacy, export
        )
        scores, refused, samples = judge.judge(generated)
    _mark(scores, distrusted or {})
    return Scores(
        generated=generated.name,
        channel=generated.channels[0],
        n={"TRAIN": len(train), "HOLD": len(hold), "generated": len(generated)},
        spacing_mm=tuple(float(s) for s in generated.grid.spacing_mm),
        seed=seed,
        provenance=judge.provenance() | {"bootstrap": bootstrap} | (provenance or {}),
        scores=scores,
        refused=[*refused, *judge.unmeasured(), *judge.dropped()],
        gates=gates(scores, judge.feature_sets, refused),
        samples=samples,
    )


def _mark(scores: Sequence[Score], distrusted: Mapping[str, Sequence[str]]) -> None:
    """Mark scores that failed the self-test."""
    for score in scores:
        if unseen := distrusted.get(score.key):
            score.reliable = False
            words = f"failed this cohort's self-test: not monotone under {', '.join(unseen)}"
            score.note = f"{score.note}; {words}" if score.note else words


def _check_references(train: VolumeSet, hold: VolumeSet) -> None:
    for real in (train, hold):
        if len(real) < MIN_REAL:
            raise DataError(
                f"{real.name} has {len(real)} volumes; judging needs at least {MIN_REAL}."
            )
        broken = ~np.isfinite(real.volumes).all(axis=(1, 2, 3, 4))
        if broken.any():
            names = ", ".join(np.asarray(real.ids)[broken][:5])
            raise DataError(
                f"{int(broken.sum())} volumes of {real.name} hold NaN or Inf ({names}); "
                "prepare the cohort again, which quarantines them."
            )
    if train.grid != hold.grid:
        raise DataError(
            f"{train.name} is on {train.grid.shape} at {train.grid.spacing_mm} mm, {hold.name} on "
            f"{hold.grid.shape} at {hold.grid.spacing_mm} mm; references must share a grid."
        )
    shared = sorted(set(train.ids) & set(hold.ids))
    if shared:
        raise DataError(
            f"{len(shared)} subjects are in both {train.name} and {hold.name} "
            f"({', '.join(shared[:5])}); split the cohort by subject."
        )


def without_nan(volumes: VolumeSet) -> tuple[VolumeSet, NDArray[np.bool_]]:
    """Return the set with zeros for volumes that are not finite, and which those are."""
    failed = ~np.isfinite(volumes.volumes).all(axis=(1, 2, 3, 4))
    if not failed.any():
        return volumes, failed
    return replace(
        volumes, volumes=np.where(failed[:, None, None, None, None], 0, volumes.volumes)
    ), failed


class Judge:
    """The real sets, measured once, and every set judged against them.

    Parameters
    ----------
    train, hold : real sets, finite, on one grid.
    num_generated : size of the sets to be judged.
    seed, cache, bootstrap, progress, features, legacy, export : as in `evaluate`.
    """

    def __init__(
        self,
        train: VolumeSet,
        hold: VolumeSet,
        num_generated: int,
        seed: int,
        cache: Path | None,
        bootstrap: int,
        progress: Progress | None,
        features: Sequence[str] | None = None,
        legacy: bool = False,
        export: Path | None = None,
    ) -> None:
        self.metrics = [n for n in METRICS if legacy or METRICS[n].component.default]
        self.export = export
        self.progress = progress
        self.done = 0
        self.total = len(train) + len(hold) + num_generated * (len(ANCHORS) + 1)
        self.total -= num_generated - 1  # the mean image is one volume
        self.extractor = Extractor(train, cache, features and [*READ_BY_METRICS, *features])
        self.feature_sets = dict(self.extractor.sets)
        raw = self._extract(train)
        self.centre, self.spread, self.kept = {}, {}, {}
        for name in self.feature_sets:
            spread = raw[name].std(0, ddof=1)
            level = np.abs(raw[name]).mean(0)
            self.kept[name] = spread > 1e-9 * np.maximum(level, 1e-12)
            self.centre[name] = raw[name].mean(0)
            self.spread[name] = spread
        self.study = Study(
            train=self._evidence(train, raw, np.zeros(len(train), bool)),
            hold=self.evidence(hold),
            num_generated=num_generated,
            seed=seed,
            resamples=bootstrap,
            feature_sets=self.feature_sets,
        )

    def _report(self, task: str, steps: int) -> None:
        self.done += steps
        if self.progress:
            self.progress(task, min(self.done, self.total), self.total)

    def _extract(self, volumes: VolumeSet) -> dict[str, FloatArray]:
        return self.extractor.extract(volumes, lambda n: self._report(f"measure {volumes.name}", n))

    def evidence(self, volumes: VolumeSet, failed: NDArray[np.bool_] | None = None) -> Evidence:
        """Measure a set; `failed` (N,) marks volumes that were not finite."""
        failed = np.zeros(len(volumes), bool) if failed is None else failed
        return self._evidence(volumes, self._extract(volumes), failed)

    def _evidence(
        self, volumes: VolumeSet, raw: dict[str, FloatArray], failed: np.ndarray
    ) -> Evidence:
        features = {
            name: (raw[name][:, kept] - self.centre[name][kept]) / self.spread[name][kept]
            for name, kept in self.kept.items()
        }
        names = self.feature_sets["morph-v1"].names
        morph = {name: raw["morph-v1"][:, column] for column, name in enumerate(names)}
        plain = {name: raw[name] for name in self.feature_sets}
        return Evidence(volumes, failed, features, morph, raw[QUALITY], plain)

    def judge(
        self, generated: VolumeSet
    ) -> tuple[list[Score], list[Refused], list[dict[str, Any]]]:
        """Return the scores with their anchors, what was refused, and the table of samples."""
        train, hold = self.study.train.volumes, self.study.hold.volumes
        faults = find_faults(generated, train, volume_hashes(hold))
        evidence = self.evidence(*without_nan(generated))
        if self.export is not None:
            export_features(self.export, evidence, self.study, self.extractor.definitions)
        scores, refused = self.scores(evidence, faults)
        self.add_anchors(scores, {score.metric for score in scores})
        samples = self.samples(evidence, faults)
        self._report("done", self.total - self.done)
        return scores, refused, samples

    def scores(self, generated: Evidence, faults: list[Fault]) -> tuple[list[Score], list[Refused]]:
        """Return the scores of every metric that can be computed, and why the others cannot."""
        scores: list[Score] = []
        refused: list[Refused] = []
        for name in self.metrics:
            metric: Metric = METRICS[name].component()
            reasons = [fault.reason for fault in faults if fault.stops(metric)]
            if len(generated) < metric.min_generated:
                reasons.append(
                    f"{len(generated)} generated volumes; {name} needs at least "
                    f"{metric.min_generated}."
                )
            if reasons:
                refused.append(Refused(name, None, " ".join(reasons)))
                continue
            try:
                scores += metric.scores(generated, self.study)
            except Refusal as refusal:
                refused.append(Refused(name, None, str(refusal)))
        return scores, refused

    def add_anchors(self, scores: list[Score], metrics: set[str]) -> None:
        """Judge every anchor by the same metrics and write its values into `scores`.

        An anchor that a metric has measured itself, at its own sample size, stays.
        """
        by_key = {score.key: score for score in scores}
        plain = self.study.without_intervals()

        def note(anchor: str, name: str, evidence: Evidence) -> None:
            try:
                found = METRICS[name].component().scores(evidence, plain)
            except Refusal:
                return
            for score in found:
                if score.key in by_key and np.isfinite(score.value):
                    by_key[score.key].anchors.setdefault(anchor, score.value)

        for name in sorted(metrics):
            if (side := METRICS[name].component.ceiling) is not None:
                note("ceiling", name, self._ceiling(side))
        for anchor in ANCHORS:
            volumes = build_anchor(
                anchor,
                self.study.train.volumes,
                self.study.hold.volumes,
                self.study.num_generated,
                self.study.seed,
            )
            evidence = self.evidence(volumes)
            for name in sorted(metrics):
                note(anchor, name, evidence)

    def _ceiling(self, side: str) -> Evidence:
        real = self.study.train if side == "TRAIN" else self.study.hold
        size = min(len(real), self.study.num_generated)
        rng = numpy_rng("evaluation", self.study.seed, "ceiling", side)
        return real.take(np.sort(rng.permutation(len(real))[:size]))

    def samples(self, generated: Evidence, faults: list[Fault]) -> list[dict[str, Any]]:
        """Return the table of samples; a column stays out where its numbers would mean nothing."""
        rows: list[dict[str, Any]] = [{"id": name} for name in generated.volumes.ids]
        for name in self.metrics:
            metric: Metric = METRICS[name].component()
            if any(f.stops(metric) for f in faults if f.kind in ("grid", "range")):
                continue
            for column, values in metric.samples(generated, self.study).items():
                for row, value in zip(rows, values):
                    row[column] = value
        return rows

    def unmeasured(self) -> list[Refused]:
        """Say why feature sets that were asked for are not in the sheet."""
        return [Refused("feature", n, reason) for n, reason in self.extractor.refused.items()]

    def dropped(self) -> list[Refused]:
        """Name the features that TRAIN holds constant."""
        found = []
        for name, kept in self.kept.items():
            if not kept.all():
                constant = [n for n, keep in zip(self.feature_sets[name].names, kept) if not keep]
                found.append(
                    Refused("feature", name, f"constant on TRAIN, dropped: {', '.join(constant)}")
                )
        return found

    def provenance(self) -> dict[str, Any]:
        """Return versions and the definitions of everything measured."""
        import importlib.metadata as metadata

        packages = ("gyri", "numpy", "scipy", "torch")
        return {
            "versions": {"python": platform.python_version()}
            | {name: metadata.version(name) for name in packages},
            "features": {
                name: {"sha256": digest, "dimensions": int(self.kept[name].sum())}
                for name, digest in self.extractor.definitions.items()
            },
        }

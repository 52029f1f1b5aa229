"""Whether label channels fit the images that they come with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.bootstrap import draw_counts, mean_interval, percentile_interval
from gyri.evaluation.metrics import NAN, Evidence, FloatArray, Metric, Refusal, Score, Study
from gyri.evaluation.voxelwise import LEAST_VOXELS, VoxelSegmenter, dice
from gyri.registry import METRICS

LEAST_CASES = 3
"""Fewest volumes with a label, on every side, of which a mean is given."""
MOST_CASES = 200
"""Volumes of a set that are searched at most."""
FEW_CASES = 10
"""With fewer, a score does not lead."""


def shared_labels(generated: Evidence, study: Study) -> list[str]:
    """Return the label channels that the generated volumes, TRAIN and HOLD all have.

    Raises
    ------
    Refusal
        If there are none.
    """
    sides = (generated.volumes, study.train.volumes, study.hold.volumes)
    shared = [name for name in sides[0].labels if all(name in side.labels for side in sides)]
    if not shared:
        have = "; ".join(f"{side.name}: {', '.join(side.labels) or 'none'}" for side in sides)
        raise Refusal(f"no label channel is on every side ({have}); there is nothing to compare.")
    return shared


@dataclass(frozen=True)
class Agreement:
    """What a segmenter finds in the images, against the labels.

    Parameters
    ----------
    ids : n subjects.
    dice : (n, 1 + values) of the whole label and of each value; NaN where a volume has none.
    strangers : the mean Dice of the whole label with that of another volume of the set.
    """

    ids: list[str]
    dice: FloatArray
    strangers: float

    @classmethod
    def of(
        cls, volumes: VolumeSet, label: str, segmenter: VoxelSegmenter, rng: np.random.Generator
    ) -> Agreement:
        """Search at most `MOST_CASES` volumes that have the label."""
        maps = volumes.labels[label]
        have = np.flatnonzero((maps > 0).sum((1, 2, 3)) >= LEAST_VOXELS)
        rows = np.sort(rng.permutation(have)[:MOST_CASES])
        found, values = segmenter.find(volumes, rows), segmenter.values
        values = values if len(values) > 1 else ()
        own = [dice(seen, maps[row], values) for seen, row in zip(found, rows, strict=True)]
        others = [dice(seen, maps[row], ()) for seen, row in zip(found, np.roll(rows, 1))]
        return cls(
            [volumes.ids[row] for row in rows],
            np.array(own).reshape(len(rows), 1 + len(values)),
            float(np.mean(others)) if others else NAN,
        )

    def column(self, column: int) -> tuple[FloatArray, list[str]]:
        """Return the known Dice of one part and whose they are."""
        values = self.dice[:, column]
        known = np.isfinite(values)
        return values[known], [name for name, keep in zip(self.ids, known) if keep]


@METRICS.register("label_agreement")
class LabelAgreement(Metric):
    """Dice of the labels with what a segmenter of real scans finds in the same images.

    A voxel classifier (`gyri.evaluation.voxelwise`) learns the label from TRAIN and looks for it
    in the generated images and in HOLD's. Higher is better, in [0, 1]: of the whole label, and of
    each value that `LEAST_CASES` volumes of every side have. HOLD's own Dice is the ceiling;
    ``ratio`` is the share of it that is reached (0.6 is a modest wish). Only channels that the
    generated volumes have are read, on both sides. Volumes without the label are left out; how
    many there are says `label_anatomy`. Needs 3 volumes with a label on every side; below 10 it
    does not lead.
    """

    name = "label_agreement"
    family = "anatomy"
    ceiling = None
    needs_unseen = False
    sees: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "label_agreement/*/whole": ("-noise", "-blur", "-rotation", "-left_right_flip"),
        "label_agreement/*/ratio": ("-noise", "-blur", "-rotation", "-left_right_flip"),
    }
    blind_to = (
        "how large labels are, where and how often, copies of TRAIN, and what is drawn in the "
        "images of volumes without the label"
    )

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return Dice of each label channel and its parts, and the share of HOLD's."""
        labels = shared_labels(generated, study)
        known = set(study.train.volumes.channels) & set(study.hold.volumes.channels)
        channels = tuple(name for name in generated.volumes.channels if name in known)
        if not channels:
            raise Refusal(f"no channel of {generated.volumes.name} is known in TRAIN and HOLD.")
        reasons: list[str] = []
        scores: list[Score] = []
        for label in labels:
            try:
                scores += self._label(label, channels, generated, study)
            except Refusal as refusal:
                reasons.append(str(refusal))
        if not scores:
            raise Refusal(" ".join(reasons))
        return scores

    def _label(
        self, label: str, channels: tuple[str, ...], generated: Evidence, study: Study
    ) -> list[Score]:
        for side in (study.train.volumes, study.hold.volumes, generated.volumes):
            have = int(((side.labels[label] > 0).sum((1, 2, 3)) >= LEAST_VOXELS).sum())
            if have < LEAST_CASES:
                raise Refusal(
                    f"{have} of {len(side)} volumes of {side.name} have {LEAST_VOXELS} voxels of "
                    f"{label}; {LEAST_CASES} are needed."
                )
        segmenter, real = study.once(
            f"label_agreement/{label}/{','.join(channels)}",
            lambda: _on_real(label, channels, study),
        )
        rng = study.rng("label_agreement", label, "generated")
        made = Agreement.of(generated.volumes, label, segmenter, rng)
        parts = ["whole", *(str(v) for v in segmenter.values)]
        scores = []
        for column in range(real.dice.shape[1]):
            part = parts[column]
            own, ids = made.column(column)
            reference, _ = real.column(column)
            if min(len(own), len(reference)) < LEAST_CASES:
                continue
            low, high = mean_interval(
                own, ids, study.resamples, study.rng("label_agreement", label, part)
            )
            words = label if part == "whole" else f"{label} {part}"
            note = f"{own.mean() / max(reference.mean(), 1e-9):.0%} of HOLD's"
            if part == "whole":
                note += f"; with another volume's label {made.strangers:.2f}"
            scores.append(
                _score(
                    f"{label}/{part}",
                    "dice",
                    (len(reference), len(own)),
                    label=f"{words}: Dice with a segmenter's",
                    value=float(own.mean()),
                    low=low,
                    high=high,
                    note=note,
                    anchors={"ceiling": float(reference.mean())},
                )
            )
        return [*scores, self._ratio(label, made, real, study)]

    def _ratio(self, label: str, made: Agreement, real: Agreement, study: Study) -> Score:
        sides = made.column(0), real.column(0)
        own, reference = (values for values, _ in sides)
        low, high = NAN, NAN
        if study.resamples:
            rng = study.rng("label_agreement", label, "ratio")
            means = []
            for values, names in sides:
                counts = draw_counts(names, study.resamples, rng)
                means.append(counts @ values / counts.sum(1))
            low, high = percentile_interval(means[0] / np.maximum(means[1], 1e-9))
        return _score(
            f"{label}/ratio",
            "dice",
            (len(reference), len(own)),
            label=f"{label}: Dice as a share of HOLD's",
            value=float(own.mean() / max(reference.mean(), 1e-9)),
            low=low,
            high=high,
            anchors={"ceiling": 1.0},
        )


def _on_real(
    label: str, channels: tuple[str, ...], study: Study
) -> tuple[VoxelSegmenter, Agreement]:
    """Learn a label from TRAIN and look for it in HOLD."""
    rng = study.rng("label_agreement", label, "train")
    segmenter = VoxelSegmenter.fit(study.train.volumes, label, channels, rng)
    rng = study.rng("label_agreement", label, "hold")
    return segmenter, Agreement.of(study.hold.volumes, label, segmenter, rng)


def _score(quantity: str, what: str, n: tuple[int, int], **rest: Any) -> Score:
    return Score(
        key=f"label_agreement/{quantity}",
        name=f"label_agreement[{quantity.replace('/', ',')},{what},voxelwise,n={n[0]}/{n[1]}]",
        metric="label_agreement",
        features=None,
        n_real=n[0],
        n_generated=n[1],
        better="higher",
        reliable=min(n) >= FEW_CASES,
        **rest,
    )

"""Whether a volume's slices belong together: repeated, shuffled and flickering slices."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.bootstrap import mean_interval, share_interval
from gyri.evaluation.metrics import Evidence, FloatArray, Metric, Score, Study
from gyri.evaluation.slices import CRITERIA, Band, Image, SliceModel
from gyri.registry import METRICS


@METRICS.register("coherence")
class Coherence(Metric):
    """Share of volumes whose slices belong together as a real volume's do, along three axes.

    Higher is better, 95 % wanted; read it beside the ceiling, HOLD's own share. Four criteria:
    the profile of slice correlation over distance; pairs of distant slices that are too alike,
    and pairs that are equal; the position that a regressor reads off each slice (slope, fit,
    longest plateau, steps backwards); and flicker of one axis against the others. A volume passes
    a criterion where no statistic lies farther from TRAIN's mean, in standard deviations, than in
    99 % of TRAIN and HOLD; positions in TRAIN are cross-fitted. Slice correlation does not see
    white noise: the share inside the spectrum's band stands beside it. Works from one volume.
    """

    name = "coherence"
    sees: ClassVar = {
        "coherence": ("-blur", "-repetition"),
        "coherence/profile": ("-blur", "-repetition"),
        "coherence/duplicates": ("-repetition",),
        "coherence/position": ("-repetition",),
        "coherence/flicker": ("-blur",),
        "coherence/spectrum": ("-blur", "-noise"),
        "coherence/plateau": ("+repetition",),
    }
    blind_to = (
        "how volumes differ from one another; the shares by slices do not see white noise until it "
        "is gross, under which repeated slices even seem to vanish"
    )
    family = "coherence"
    ceiling = "HOLD"
    min_generated = 1
    counts_failures = True
    needs_unseen = False

    def scores(self, generated: Evidence, study: Study) -> list[Score]:
        """Return the share coherent, the share by criterion, and the mean longest plateau."""
        inside, statistics = self._judge(generated, study)
        n = f"n={len(study.train)}/{len(generated)}"
        words = {
            "all": "coherent volumes",
            "profile": "slice correlation as in real volumes",
            "duplicates": "no repeated slices",
            "position": "slices at their places",
            "flicker": "no flicker between slices",
            "spectrum": "spatial frequencies as in real volumes",
        }
        scores = []
        for name, passed in inside.items():
            low, high = share_interval(int(passed.sum()), len(passed))
            scores.append(
                Score(
                    key="coherence" if name == "all" else f"coherence/{name}",
                    name=f"coherence[{name},real-99,{n}]",
                    metric="coherence",
                    features="spectrum-v1" if name == "spectrum" else None,
                    label=words[name],
                    value=float(passed.mean()),
                    low=low,
                    high=high,
                    n_real=len(study.train),
                    n_generated=len(passed),
                    better="higher",
                    note="slices only; noise is seen by the spectrum" if name == "all" else "",
                )
            )
        return [*scores, self._plateau(generated, statistics, study, n)]

    def _plateau(
        self, generated: Evidence, statistics: dict[str, FloatArray], study: Study, n: str
    ) -> Score:
        model = self._model(study)
        longest = np.max([model.plateau(statistics, axis) for axis in range(3)], axis=0)
        target = np.max([model.plateau(model.hold, axis) for axis in range(3)], axis=0)
        low, high = mean_interval(
            longest, generated.volumes.ids, study.resamples, study.rng("coherence", "plateau")
        )
        return Score(
            key="coherence/plateau",
            name=f"plateau[longest-of-3-axes,{n}]",
            metric="coherence",
            features=None,
            label="longest run of slices at one place",
            value=float(longest.mean()),
            low=low,
            high=high,
            n_real=len(study.train),
            n_generated=len(longest),
            better="near",
            target=float(target.mean()),
            unit="slices",
            note=f"longest of all samples: {longest.max():.0f}",
        )

    def _model(self, study: Study) -> SliceModel:
        model: SliceModel = study.once(
            "coherence/model",
            lambda: SliceModel(
                _first(study.train), _first(study.hold), study.train.volumes.grid.spacing_mm
            ),
        )
        return model

    def _judge(
        self, evidence: Evidence, study: Study
    ) -> tuple[dict[str, NDArray[np.bool_]], dict[str, FloatArray]]:
        model = self._model(study)
        statistics = model.statistics(_first(evidence))
        inside = {name: model.bands[name].inside(statistics[name]) for name in CRITERIA}
        inside = {name: passed & ~evidence.failed for name, passed in inside.items()}
        band = study.once(
            "coherence/spectrum",
            lambda: Band.of(
                study.train.features["spectrum-v1"], study.hold.features["spectrum-v1"]
            ),
        )
        spectrum = band.inside(evidence.features["spectrum-v1"]) & ~evidence.failed
        every = np.logical_and.reduce(list(inside.values()))
        return {"all": every, **inside, "spectrum": spectrum}, statistics

    def samples(self, generated: Evidence, study: Study) -> dict[str, list[Any]]:
        """Return whether each sample is coherent."""
        return {"coherent": [bool(v) for v in self._judge(generated, study)[0]["all"]]}


def _first(evidence: Evidence) -> Image:
    return evidence.volumes.volumes[:, 0]

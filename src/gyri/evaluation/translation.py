"""What a translation between levels does: is a classifier fooled, and do tissues keep their volume.

For harmonisation both must hold. A model that changes nothing keeps every volume, one that paints
the same brain for everybody fools every classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.bootstrap import mean_interval, share_interval
from gyri.evaluation.features import FloatArray
from gyri.evaluation.features.extraction import Extractor
from gyri.evaluation.segment import CSF, GM, WM, TissueModel, central_csf, fit_tissue_model, segment
from gyri.runtime.seeding import derive_seed, numpy_rng

FEATURES = "radiomics-v1"
FOLDS = 5
FEWEST = 5
"""TRAIN scans of each side that a classifier or a segmentation of its own needs."""
STRENGTH = 0.1
"""C of the logistic regression: features are many and scans few."""
LIMIT_SD = 6.0
"""Features farther from TRAIN's mean are cut, or one broken volume would decide."""
TISSUES = ("gm", "wm", "csf", "ventricle")
SETS = ("originals", "translated", "real_target")


@dataclass(frozen=True)
class LevelClassifier:
    """A logistic regression that tells real scans of one level from those of others.

    Parameters
    ----------
    fold : TRAIN subject -> the fold that he was left out of.
    models : one fitted scikit-learn pipeline a fold, and one of all TRAIN subjects.
    accuracy : balanced accuracy on the subjects left out; 0.5 knows nothing.
    """

    fold: dict[str, int]
    models: tuple[Any, ...]
    accuracy: float

    @classmethod
    def fit(
        cls, features: FloatArray, is_target: NDArray[np.bool_], ids: Sequence[str], seed: int
    ) -> LevelClassifier:
        """Fit on TRAIN's features (N, d) and sides (N,); `ids` are N different subjects."""
        from sklearn.metrics import balanced_accuracy_score
        from sklearn.model_selection import StratifiedKFold

        folds = min(FOLDS, int(np.bincount(is_target, minlength=2).min()))
        split = StratifiedKFold(
            folds, shuffle=True, random_state=derive_seed("folds", seed) % 2**32
        )
        fold: dict[str, int] = {}
        models = []
        found = np.zeros(len(ids), bool)
        for number, (kept, left) in enumerate(split.split(features, is_target)):
            model = _pipeline().fit(features[kept], is_target[kept])
            found[left] = model.predict(features[left])
            fold |= {ids[row]: number for row in left}
            models.append(model)
        accuracy = float(balanced_accuracy_score(is_target, found))
        return cls(fold, (*models, _pipeline().fit(features, is_target)), accuracy)

    def probability(self, features: FloatArray, ids: Sequence[str]) -> FloatArray:
        """Return (N,) probabilities of the target level; nobody is judged by a model that saw him.

        Parameters
        ----------
        features : (N, d).
        ids : whose they are.
        """
        number = np.array([self.fold.get(name, len(self.models) - 1) for name in ids], int)
        found = np.zeros(len(ids))
        for k in np.unique(number):
            found[number == k] = self.models[k].predict_proba(features[number == k])[:, 1]
        return found


def _pipeline() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    return make_pipeline(
        StandardScaler(),
        FunctionTransformer(np.clip, kw_args={"a_min": -LIMIT_SD, "a_max": LIMIT_SD}),
        LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000),
    )


def tissue_volumes(volumes: VolumeSet, model: TissueModel) -> pd.DataFrame:
    """Return the `TISSUES` of every volume in millilitres, a row a volume."""
    found = segment(volumes, model)
    rows = [
        [
            *(int((labels == label).sum()) for label in (GM, WM, CSF)),
            central_csf(labels, mask).sum(),
        ]
        for labels, mask in zip(found.labels, found.mask)
    ]
    ml = np.array(rows, float).reshape(len(rows), len(TISSUES)) * found.voxel_ml
    return pd.DataFrame(ml, index=volumes.ids, columns=list(TISSUES))


def judge_translation(
    train: VolumeSet,
    side: NDArray[np.int64],
    originals: VolumeSet,
    translated: VolumeSet,
    real_target: VolumeSet,
    *,
    seed: int = 0,
    bootstrap: int = 2000,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Measure what a translation did.

    Parameters
    ----------
    train : TRAIN, real; the classifier is fitted on it, and the segmentation of each side on its
        scans of that side: the same tissue has another intensity there.
    side : (N,) of TRAIN: 1 of the target level, 0 of those translated from, -1 of neither.
    originals, translated : the same subjects in the same order, before and after.
    real_target : real scans that are of the target level; may be none.
    seed : of folds and resamples.
    bootstrap : resamples of the subjects behind every interval of a change.

    Returns
    -------
    tuple
        Summary as plain data, and one row a translated subject.
    """
    extractor = Extractor(train, names=(FEATURES,))
    new = _own_model(train, side == 1, extractor)
    before = tissue_volumes(originals, _own_model(train, side == 0, extractor))
    after, untouched = tissue_volumes(translated, new), tissue_volumes(originals, new)
    table = pd.concat([before.add_suffix("_ml"), after.add_suffix("_ml_translated")], axis=1)
    classifier, chances = _classify(
        extractor, train, side, dict(zip(SETS, (originals, translated, real_target))), seed
    )
    if chances:
        table.insert(0, "p_target", chances["originals"])
        table.insert(1, "p_target_translated", chances["translated"])
    tissue = {
        name: {
            **_change(before[name], after[name], seed, bootstrap),
            "untouched_ml": float((untouched[name] - before[name]).mean()),
        }
        for name in TISSUES
    }
    return {"classifier": classifier, "tissue": tissue}, table


def _own_model(train: VolumeSet, rows: NDArray[np.bool_], extractor: Extractor) -> TissueModel:
    """Return the classes of TRAIN's scans in `rows`, of all of TRAIN where these are too few."""
    if rows.sum() < FEWEST:
        return extractor.model
    return fit_tissue_model(train.take(np.flatnonzero(rows)))


def _classify(
    extractor: Extractor,
    train: VolumeSet,
    side: NDArray[np.int64],
    sets: dict[str, VolumeSet],
    seed: int,
) -> tuple[dict[str, Any], dict[str, FloatArray]]:
    """Return the classifier's summary and, of each set, the probabilities of the target level."""
    counts = {"target": int((side == 1).sum()), "others": int((side == 0).sum())}
    about = {"features": FEATURES, "train": counts}
    if min(counts.values()) < FEWEST or FEATURES in extractor.refused:
        few = f"TRAIN has fewer than {FEWEST} scans of a side"
        return {**about, "refusal": extractor.refused.get(FEATURES, few)}, {}
    known = train.take(np.flatnonzero(side >= 0))
    fitted = LevelClassifier.fit(
        extractor.extract(known)[FEATURES], side[side >= 0] == 1, known.ids, seed
    )
    chances = {
        name: fitted.probability(extractor.extract(volumes)[FEATURES], volumes.ids)
        for name, volumes in sets.items()
        if len(volumes)
    }
    shares = {name: _share(chance > 0.5) for name, chance in chances.items()}
    accuracy = {"balanced_accuracy": fitted.accuracy, "folds": len(fitted.models) - 1}
    return {**about, **accuracy, "called_target": shares}, chances


def _share(called: NDArray[np.bool_]) -> dict[str, float]:
    low, high = share_interval(int(called.sum()), len(called))
    return {"value": float(called.mean()), "low": low, "high": high, "n": len(called)}


def _change(before: pd.Series, after: pd.Series, seed: int, bootstrap: int) -> dict[str, Any]:
    """Return mean, interval and largest size of a tissue's change, and what subjects differ by."""
    ml = (after - before).to_numpy()
    percent = 100 * ml / np.maximum(before.to_numpy(), 1e-9)
    found: dict[str, Any] = {
        "original_ml": float(before.mean()),
        "original_sd_ml": float(before.std(ddof=1)) if len(before) > 1 else float("nan"),
    }
    for name, values in (("change_ml", ml), ("change_percent", percent)):
        rng = numpy_rng(seed, "translation", name)
        low, high = mean_interval(values, list(before.index), bootstrap, rng)
        found[name] = {
            "value": float(values.mean()),
            "low": low,
            "high": high,
            "largest": float(values[np.abs(values).argmax()]),
        }
    return found

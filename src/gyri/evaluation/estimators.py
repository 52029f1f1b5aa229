"""Estimators of a column of the subject table from volumes, without pretrained weights.

Linear on purpose: a volume that overdoes what a column does to real brains gets an estimate
beyond the real ones, where a forest or a kernel would saturate and hide it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gyri.evaluation.labels import Label
from gyri.evaluation.metrics import Evidence, FloatArray
from gyri.runtime.seeding import derive_seed

FEATURES = ("morph-v1", "radiomics-v1", "spectrum-v1")
ALONE = ("radiomics-v1",)
"""Sets that are also tried without the others: on real scans the best for age."""
LIMIT_SD = 6.0
"""Features farther from TRAIN's mean are cut, or one broken volume would decide an error."""
BLOCK_MM = 8.0
MASK_SHARE = 0.05
LARGEST_RANK = 200
COMPONENTS = (10, 20, 40, 60)
RIDGE_ALPHAS = (3.0, 30.0)
LOGISTIC_CS = (0.03, 0.3)
FOLDS = 5
SEEDS = 5
SUBJECT_SHARE = 0.8
"""Share of TRAIN's subjects that the estimator of one seed is trained on."""

Views = dict[str, FloatArray]


def block_means(volumes: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> FloatArray:
    """Average (N, I, J, K) volumes over blocks of about 8 mm; returns (N, blocks).

    Zeros are added at the ends of axes that the blocks do not divide.
    """
    size = [max(1, round(BLOCK_MM / s)) for s in spacing_mm]
    short = [-n % b for n, b in zip(volumes.shape[1:], size)]
    padded = np.pad(volumes, [(0, 0), *((0, n) for n in short)])
    i, j, k = (n // b for n, b in zip(padded.shape[1:], size))
    blocks = padded.reshape(-1, i, size[0], j, size[1], k, size[2])
    return blocks.mean((2, 4, 6), dtype=np.float64).reshape(len(volumes), -1)


class Designs:
    """What estimators read of a volume, in three ways; fitted on TRAIN.

    ``features``: the weight-free feature sets beside each other, z-scored by TRAIN, cut at six
    standard deviations. ``radiomics-v1``: that one alone, where it was measured. ``image``: block
    means of 8 mm inside TRAIN's mean mask, turned onto TRAIN's principal axes (all of them up to
    200, so that nothing TRAIN spans is lost).

    Parameters
    ----------
    train : TRAIN.
    """

    def __init__(self, train: Evidence) -> None:
        blocks = self._blocks(train)
        mean = blocks.mean(0)
        self.inside = mean > MASK_SHARE * mean.max()
        self.mean = mean[self.inside]
        axes = np.linalg.svd(blocks[:, self.inside] - self.mean, full_matrices=False)[2]
        self.axes = axes[: min(LARGEST_RANK, len(train) - 1)]
        self.train = self(train)

    @staticmethod
    def _blocks(evidence: Evidence) -> FloatArray:
        return block_means(evidence.volumes.volumes[:, 0], evidence.volumes.grid.spacing_mm)

    def __call__(self, evidence: Evidence) -> Views:
        """Return (N, d) for every way of reading the volumes."""
        known = {
            name: evidence.features[name].clip(-LIMIT_SD, LIMIT_SD)
            for name in FEATURES
            if name in evidence.features
        }
        blocks = self._blocks(evidence)[:, self.inside] - self.mean
        return {
            "features": np.concatenate(list(known.values()), axis=1),
            **{name: known[name] for name in ALONE if name in known},
            "image": blocks @ self.axes.T,
        }


@dataclass(frozen=True)
class Estimator:
    """A linear model of principal components, trained once a seed.

    Parameters
    ----------
    label : what is estimated.
    view, components, strength : chosen by cross-validation on TRAIN.
    models : one fitted scikit-learn pipeline a seed, each on another 80 % of TRAIN's subjects.
    """

    label: Label
    view: str
    components: int
    strength: float
    models: tuple[Any, ...]

    @property
    def words(self) -> str:
        """The definition, for example ``image-pca40-ridge30``."""
        kind = "ridge" if self.label.continuous else "logistic"
        return f"{self.view}-pca{self.components}-{kind}{self.strength:g}"

    def estimate(self, views: Views) -> FloatArray:
        """Return (seeds, N, 1) numbers or (seeds, N, levels) probabilities."""
        x = views[self.view]
        if self.label.continuous:
            return np.stack([model.predict(x)[:, None] for model in self.models])
        found = np.zeros((len(self.models), len(x), len(self.label.levels)))
        for row, model in zip(found, self.models):
            row[:, model.classes_] = model.predict_proba(x)
        return found


def fit_estimator(
    label: Label, designs: Designs, codes: FloatArray, subjects: list[str], seed: int
) -> Estimator:
    """Choose view, components and strength by cross-validation on TRAIN, then fit every seed.

    The choice minimises the squared error of a number and the log loss of levels over five
    folds of subjects.

    Parameters
    ----------
    codes : (N, c) TRAIN's labels as `Label.encode` gives them; rows of NaN are left out.
    subjects : N subject ids.
    seed : of folds and of the seeds' subjects.
    """
    rows = np.flatnonzero(np.isfinite(codes).all(1))
    y = codes[rows, 0] if label.continuous else codes[rows].argmax(1)
    groups = np.asarray(subjects)[rows]
    views = {name: x[rows] for name, x in designs.train.items()}
    searches = {name: _search(label, x, y, groups, seed) for name, x in views.items()}
    view = max(searches, key=lambda name: searches[name].best_score_)
    best = searches[view].best_params_
    models = []
    for part in range(SEEDS):
        kept = _subjects(groups, np.random.default_rng(derive_seed(label.column, seed, part)))
        model = _pipeline(label).set_params(**best)
        models.append(model.fit(views[view][kept], y[kept]))
    return Estimator(
        label,
        view,
        int(best["pca__n_components"]),
        float(best.get("ridge__alpha", best.get("logisticregression__C"))),
        tuple(models),
    )


def _pipeline(label: Label) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    last = Ridge() if label.continuous else LogisticRegression(class_weight="balanced")
    return make_pipeline(PCA(svd_solver="full"), StandardScaler(), last)


def _search(label: Label, x: FloatArray, y: FloatArray, groups: np.ndarray, seed: int) -> Any:
    """Search components and strength; returns the fitted scikit-learn search."""
    from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold

    fewest = int(len(x) * SUBJECT_SHARE * (1 - 1 / FOLDS)) - 1
    sizes = [size for size in COMPONENTS if size < min(fewest, x.shape[1])]
    grid: dict[str, list[Any]] = {
        "pca__n_components": sizes or [max(1, min(fewest, x.shape[1]) // 2)]
    }
    if label.continuous:
        folds, scoring = GroupKFold(FOLDS), "neg_mean_squared_error"
        grid["ridge__alpha"] = list(RIDGE_ALPHAS)
    else:
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        scoring = "neg_log_loss"
        grid["logisticregression__C"] = list(LOGISTIC_CS)
    search = GridSearchCV(_pipeline(label), grid, scoring=scoring, cv=folds, refit=False)
    return search.fit(x, y, groups=groups)


def _subjects(groups: np.ndarray, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows of a random 80 % of the subjects."""
    names = np.unique(groups)
    kept = rng.permutation(names)[: round(SUBJECT_SHARE * len(names))]
    return np.flatnonzero(np.isin(groups, kept))

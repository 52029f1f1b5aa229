"""Linear baseline: principal components, then logistic or ridge regression.

Exact and free of chance: copies of cases change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gyri.evaluation.metrics import Refusal
from gyri.evaluation.utility.arms import Training
from gyri.evaluation.utility.augment import augment
from gyri.evaluation.utility.estimators import Place
from gyri.evaluation.utility.measures import Answers
from gyri.evaluation.utility.tasks import Cases, Task
from gyri.runtime.seeding import derive_seed

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LinearSettings:
    """Settings of `Linear`.

    Parameters
    ----------
    components : principal components at most; up to that many cases the model is that of all
        voxels.
    penalties : strengths of the L2 penalty on components scaled by the first one's spread, in
        units of the mean loss of a case, so that copies of cases change nothing. The best on VAL
        is taken.
    augmented_copies : changed copies of every case in the arm with augmentation.
    foreground : a voxel is used where the mean case is at least this bright, in [0, 1].
    """

    components: int = 300
    penalties: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1, 1.0)
    augmented_copies: int = 4
    foreground: float = 0.05


class Linear:
    """PCA of the voxels, then logistic regression (classes) or ridge regression (values)."""

    def __init__(self, place: Place) -> None:
        self.settings = LinearSettings()

    def answer(
        self, task: Task, training: Training, val: Cases, asked: Cases, seed: int
    ) -> Answers:
        """See `Estimator`."""
        target = training.cases.target
        if len(np.unique(target)) < 2:
            raise Refusal(f"All {len(target)} training cases have the same {task.name}.")
        if training.augment:
            training = self._augmented(training, seed)
        x, project = self._components(training)
        shown, questions = project(val), project(asked)
        models = [self._fit(task, x, training, penalty) for penalty in self.settings.penalties]
        losses = [_loss(task, model, shown, val.target) for model in models]
        best = models[int(np.argmin(losses))]
        if task.kind == "regression":
            return {"prediction": best.predict(questions)}
        return {"probability": _probability(task, best, questions)}

    def _augmented(self, training: Training, seed: int) -> Training:
        generator = torch.Generator().manual_seed(derive_seed(seed, "augment"))
        copies = self.settings.augmented_copies
        repeated = training.cases.take(np.tile(np.arange(len(training.cases)), 1 + copies))
        start = len(training.cases)
        changed, _ = augment(torch.from_numpy(repeated.volumes[start:]), None, generator)
        volumes = np.concatenate([repeated.volumes[:start], changed.numpy()])
        cases = Cases(volumes, repeated.target, repeated.subjects, repeated.spacing_mm)
        return Training(cases, np.tile(training.weights, 1 + copies))

    def _components(self, training: Training) -> tuple[FloatArray, Any]:
        """Return the training cases' components (N, k) and the projection of other cases."""
        from sklearn.decomposition import KernelPCA

        volumes = training.cases.volumes
        inside = volumes.mean(0) >= self.settings.foreground
        # Of fewer cases than voxels the components follow exactly from the cases' products.
        count = min(self.settings.components, len(volumes) - 1)
        pca = KernelPCA(count, kernel="linear", eigen_solver="dense", remove_zero_eig=True)
        x = pca.fit_transform(volumes[:, inside])
        scale = max(float(x[:, 0].std()), 1e-12)

        def project(cases: Cases) -> FloatArray:
            return np.asarray(pca.transform(cases.volumes[:, inside]) / scale, np.float64)

        return (x / scale).astype(np.float64), project

    def _fit(self, task: Task, x: FloatArray, training: Training, penalty: float) -> Any:
        from sklearn.linear_model import LogisticRegression, Ridge

        strength = penalty * training.weights.sum()
        if task.kind == "regression":
            model = Ridge(alpha=strength)
        else:
            model = LogisticRegression(C=1 / strength, max_iter=1000)
        return model.fit(x, training.cases.target, sample_weight=training.weights)


def _probability(task: Task, model: Any, x: FloatArray) -> FloatArray:
    """Return (N, K) probabilities; a class that was never shown has 0."""
    probability = np.zeros((len(x), len(task.levels)))
    probability[:, model.classes_.astype(int)] = model.predict_proba(x)
    return probability


def _loss(task: Task, model: Any, x: FloatArray, target: NDArray[np.generic]) -> float:
    """Return the mean absolute error, or the mean negative log-likelihood."""
    if task.kind == "regression":
        return float(np.abs(model.predict(x) - target.astype(float)).mean())
    probability = _probability(task, model, x)[np.arange(len(x)), target.astype(int)]
    return float(-np.log(np.maximum(probability, 1e-6)).mean())

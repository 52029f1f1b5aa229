"""Cases of random voxels whose target is known, and a study on them."""

from __future__ import annotations

import numpy as np
import pytest

from gyri.evaluation.utility.data import Generated
from gyri.evaluation.utility.estimators import Place, build_estimator
from gyri.evaluation.utility.study import Material, Plan, Study
from gyri.evaluation.utility.tasks import Cases, Task

SEX = Task("sex", "classification", "sex", ("F", "M"))
SHAPE = (1, 8, 8, 8)


def blobs(num: int, seed: int, name: str, strength: float = 0.15, share: float = 0.5) -> Cases:
    """Return noise with a brighter corner in class 1; with strength 0 the labels mean nothing."""
    rng = np.random.default_rng(seed)
    target = (np.arange(num) < share * num).astype(np.int64)
    volumes = 0.5 + 0.2 * rng.standard_normal((num, *SHAPE))
    volumes[target == 1, :, :4, :4, :4] += strength
    names = tuple(f"{name}{k}" for k in range(num))
    return Cases(volumes.clip(0, 1).astype(np.float32), target, names, (4.0, 4.0, 4.0))


def as_generated(cases: Cases, trained_on: frozenset[str] | None, folder: str = "S") -> Generated:
    return Generated(folder, cases, len(cases), trained_on)


@pytest.fixture
def make_study():
    """Return a function that builds a study of `SEX` by the linear estimator."""

    def make(train, test, generated, plan=None, *, ledger=None, estimator=None, **rest) -> Study:
        plan = plan or Plan(fractions=(1.0,), alphas=(1.0,), seeds=2, resamples=500)
        found = estimator or build_estimator("linear", SEX, Place())[1]
        material = Material(train, blobs(20, 99, "val"), test, (generated,), rest.pop("by", {}))
        return Study(plan, SEX, material, found, ledger, **rest)

    return make

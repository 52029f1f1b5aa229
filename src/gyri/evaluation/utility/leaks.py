"""Where knowledge of test subjects, or of people an arm should not know, gets into training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from gyri.cohort.table import listed
from gyri.evaluation.utility.data import Generated
from gyri.evaluation.utility.tasks import Cases

TAG = "LEAKY"


def shared_people(train: Cases, test: Cases) -> list[str]:
    """Say which people are on both sides: by name, or by equal voxels under different names.

    Cases that are slices or sessions of one person carry that person's name, so a split by slice
    shows here.
    """
    found = []
    if names := sorted(set(train.subjects) & set(test.subjects)):
        found.append(
            f"{len(names)} people are in the training set (or tune it) and in the test set "
            f"({listed(names)}): the model may know them again. Split by subject."
        )
    known = {_voxels(volume) for volume in train.volumes}
    twins = [n for n, v in zip(test.subjects, test.volumes) if _voxels(v) in known]
    if twins := sorted(set(twins) - set(names)):
        found.append(
            f"{len(twins)} test volumes have exactly the voxels of a training volume "
            f"({listed(twins)}). Remove one of each pair."
        )
    return found


def _voxels(volume: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(volume).data).digest()


def seen_by_generator(generated: Generated, test: Cases) -> list[str]:
    """Say whether a generator has seen test subjects, or whether this cannot be excluded."""
    if generated.trained_on is None:
        return [
            f"It cannot be found out whom the generator of {generated.folder} was trained on: its "
            "run or that run's cohort is gone or has changed. It may have seen the test subjects."
        ]
    seen = sorted(generated.trained_on & set(test.subjects))
    if not seen:
        return []
    return [
        f"The generator of {generated.folder} was trained on {len(seen)} of the "
        f"{len(set(test.subjects))} test subjects ({listed(seen)})."
    ]


def seen_beyond_arm(generated: Generated, arm: Iterable[str], train: Cases) -> list[str]:
    """Say whether a generator knows training subjects that an arm is not given.

    A gain of synthetic over few real subjects may then be the others' doing.
    """
    arm = set(arm)
    everyone = set(train.subjects)
    seen = everyone if generated.trained_on is None else generated.trained_on & everyone
    if not seen - arm:
        return []
    return [
        f"The generator has seen {len(seen)} TRAIN subjects, this arm is given {len(arm)}: a gain "
        "may come from the others. Train a generator on this fraction alone and name its samples "
        "by --synthetic-for."
    ]

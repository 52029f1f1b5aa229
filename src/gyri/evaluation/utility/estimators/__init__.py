"""Estimators: models that are trained for a task, all arms alike."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from gyri.errors import UsageError, nearest
from gyri.evaluation.utility import arms, augment, overlap, tasks
from gyri.evaluation.utility.arms import Training
from gyri.evaluation.utility.measures import Answers
from gyri.evaluation.utility.tasks import Cases, Kind, Task

DEFAULT: Mapping[Kind, str] = {
    "classification": "linear",
    "regression": "linear",
    "segmentation": "unet",
}


@dataclass(frozen=True)
class Place:
    """Where and how long gradient training runs; estimators without it ignore this.

    Parameters
    ----------
    steps : updates of every arm, or None for the estimator's own number.
    device : of the networks.
    """

    steps: int | None = None
    device: torch.device = torch.device("cpu")


class Estimator(Protocol):
    """A model that is trained on an arm and asked about cases."""

    def answer(
        self, task: Task, training: Training, val: Cases, asked: Cases, seed: int
    ) -> Answers:
        """Train on an arm, tune on VAL, and answer for the volumes of `asked`.

        The targets of `asked` are read by segmentations alone, to compare with.
        """
        ...


def estimators() -> dict[str, tuple[type[Any], tuple[Kind, ...]]]:
    """Return every estimator's class and the kinds of task that it can do, by name."""
    from gyri.evaluation.utility.estimators.linear import Linear
    from gyri.evaluation.utility.estimators.networks import ConvolutionalNetwork, SegmentingUNet

    return {
        "linear": (Linear, ("classification", "regression")),
        "cnn": (ConvolutionalNetwork, ("classification", "regression")),
        "unet": (SegmentingUNet, ("segmentation",)),
    }


def build_estimator(name: str | None, task: Task, place: Place) -> tuple[str, Estimator]:
    """Return an estimator for a task by name, or the kind's default one, with its name.

    Raises
    ------
    UsageError
        There is none of that name, or it cannot do the task.
    """
    name = name or DEFAULT[task.kind]
    known = estimators()
    if name not in known:
        raise UsageError(
            f"There is no estimator {name!r}.{nearest(name, known)} Known: {', '.join(known)}."
        )
    kind, able = known[name]
    if task.kind not in able:
        fitting = ", ".join(n for n, (_, kinds) in known.items() if task.kind in kinds)
        raise UsageError(
            f"{name} cannot do {task.name}, which is a {task.kind}; take one of: {fitting}."
        )
    estimator: Estimator = kind(place)
    return name, estimator


def settings(estimator: Estimator) -> dict[str, Any]:
    """Return an estimator's settings, by name."""
    return dataclasses.asdict(estimator.settings)  # type: ignore[attr-defined]


def definition(estimator: Estimator) -> str:
    """SHA-256 of everything but the data that decides an answer: settings and code."""
    digest = hashlib.sha256(repr(sorted(settings(estimator).items())).encode())
    own = sys.modules[type(estimator).__module__]
    for module in (own, arms, augment, overlap, tasks):
        digest.update(inspect.getsource(module).encode())
    return digest.hexdigest()

"""The self-test: which metric notices which fault, on real volumes of one cohort.

Real subjects that nobody trained on play the generated set, once as they are and once for every
severity of every corruption. A score must move monotonically where its metric claims to see the
corruption; one that does not is not to be trusted on this cohort, and `gyri.evaluation.protocol`
takes it out of the scores that lead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gyri.cohort.files import write_json
from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError
from gyri.evaluation.corruptions import CORRUPTIONS, LEVELS, corrupt
from gyri.evaluation.metrics import Evidence, Metric, Refusal, Score, Study
from gyri.evaluation.protocol import Judge, Progress
from gyri.evaluation.scores import Refused, plain
from gyri.registry import METRICS

SCHEMA = "gyri-self-test-1"
FOLDER, FILE = "self-test", "self-test.json"
"""Where evaluations against a prepared cohort look for its self-test."""
LEAST_RHO = 0.9
MIN_VOLUMES = 10
"""Fewer volumes that play the generated set say nothing about modes."""

Sign = Literal["+", "-", ""]


@dataclass(frozen=True)
class Response:
    """One score under the five severities of one corruption.

    Parameters
    ----------
    values : of the score, uncorrupted and at levels 1 to 5.
    low, high : 95 % interval of the uncorrupted score; NaN where the metric gives none.
    claimed : direction in which the metric claims that the score moves, empty for no claim.
    reliable : False where the metric itself says that the uncorrupted score is not; its claims
        are not held against it.
    """

    key: str
    metric: str
    features: str | None
    label: str
    better: str
    corruption: str
    values: tuple[float, ...]
    low: float
    high: float
    claimed: Sign
    reliable: bool = True

    @cached_property
    def rho(self) -> float:
        """Spearman correlation of value and severity in [-1, 1]; NaN where nothing moves."""
        from scipy.stats import rankdata

        if not np.isfinite(self.values).all() or len(set(self.values)) == 1:
            return float("nan")
        return float(np.corrcoef(np.arange(len(self.values)), rankdata(self.values))[0, 1])

    @cached_property
    def moves(self) -> Sign:
        """Direction of a monotone movement, empty where there is none.

        Monotone is a rank correlation of at least 0.9, or never a step back where the score
        saturates.
        """
        values = np.asarray(self.values)
        if not np.isfinite(values).all() or values[-1] == values[0]:
            return ""
        sign = float(np.sign(values[-1] - values[0]))
        steady = bool((sign * np.diff(values) >= 0).all())
        if not (steady or sign * self.rho >= LEAST_RHO):
            return ""
        return "+" if sign > 0 else "-"

    @property
    def effect(self) -> Literal["worse", "better", "moved", ""]:
        """What a monotone movement says of the set: ``"better"`` is a score that is fooled."""
        if not self.moves:
            return ""
        if self.better == "near":
            return "moved"
        return "worse" if (self.moves == "+") == (self.better == "lower") else "better"

    @property
    def seen_from(self) -> int | None:
        """First level from which on the score leaves the uncorrupted score's interval."""
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            return None
        outside = [v < self.low or v > self.high for v in self.values]
        levels = [n for n in range(1, len(outside)) if all(outside[n:])]
        return levels[0] if levels else None

    @property
    def holds(self) -> bool | None:
        """Whether the claim holds; None where nothing is claimed of a reliable score."""
        return self.moves == self.claimed if self.claimed and self.reliable else None


@dataclass
class SelfTest:
    """What every score did under every corruption.

    Parameters
    ----------
    n : volumes of ``TRAIN``, ``HOLD`` and ``generated``.
    spacing_mm : of the grid.
    provenance : hashes of cohort and split, versions, definitions of the features.
    """

    n: dict[str, int]
    spacing_mm: tuple[float, ...]
    seed: int
    provenance: dict[str, Any]
    responses: list[Response]
    refused: list[Refused] = field(default_factory=list)

    @property
    def failed(self) -> dict[str, list[str]]:
        """Corruptions whose claim failed, by score key."""
        found: dict[str, list[str]] = {}
        for response in self.responses:
            if response.holds is False:
                found.setdefault(response.key, []).append(response.corruption)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values with what is derived from them."""
        derived = ("rho", "moves", "effect", "seen_from", "holds")
        content = {
            "schema": SCHEMA,
            "n": self.n,
            "spacing_mm": list(self.spacing_mm),
            "seed": self.seed,
            "provenance": self.provenance,
            "corruptions": {
                c.name: {"summary": c.summary, "unit": c.unit, "severities": c.severities}
                for c in CORRUPTIONS.values()
            },
            "failed": self.failed,
            "responses": [
                asdict(r) | {name: getattr(r, name) for name in derived} for r in self.responses
            ],
            "refused": [asdict(r) for r in self.refused],
        }
        result: dict[str, Any] = plain(content)
        return result

    def write(self, folder: Path) -> Path:
        """Write ``self-test.json`` into a folder, replacing the file in one step."""
        path = Path(folder) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_dict())
        return path

    @classmethod
    def read(cls, path: Path) -> SelfTest:
        """Read the file that `write` made.

        Raises
        ------
        DataError
            If the file is no self-test of this schema.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.get("schema") != SCHEMA:
                raise ValueError(f"schema {content.get('schema')!r}, expected {SCHEMA!r}")
            return cls(
                n=content["n"],
                spacing_mm=tuple(content["spacing_mm"]),
                seed=content["seed"],
                provenance=content["provenance"],
                responses=[_parsed(entry) for entry in content["responses"]],
                refused=[Refused(**entry) for entry in content["refused"]],
            )
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read as a self-test: {error}. Run `gyri evaluate self-test` "
                "again, or delete the file to judge without it."
            ) from error


def find_self_test(prepared: Path, data_hash: str) -> SelfTest | None:
    """Return the self-test kept in a prepared cohort, None if there is none of these voxels."""
    path = Path(prepared) / FOLDER / FILE
    if not path.is_file():
        return None
    found = SelfTest.read(path)
    return found if found.provenance.get("data_hash") == data_hash else None


def _parsed(entry: Mapping[str, Any]) -> Response:
    names = Response.__dataclass_fields__
    content = {name: entry[name] for name in names}
    nan = float("nan")
    for name in ("low", "high"):
        content[name] = nan if content[name] is None else content[name]
    content["values"] = tuple(nan if v is None else v for v in content["values"])
    return Response(**content)


def claim(metric: type[Metric], key: str, corruption: str) -> Sign:
    """Return the direction in which `metric` claims that its score `key` moves."""
    for pattern, corruptions in metric.sees.items():
        for entry in corruptions:
            if entry[1:] == corruption and fnmatchcase(key, pattern):
                return "+" if entry[0] == "+" else "-"
    return ""


def self_test(
    generated: VolumeSet,
    train: VolumeSet,
    hold: VolumeSet,
    *,
    seed: int = 0,
    cache: Path | None = None,
    bootstrap: int = 500,
    features: Sequence[str] | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> SelfTest:
    """Corrupt real volumes and record what every score makes of it.

    Parameters
    ----------
    generated : real subjects that are in neither `train` nor `hold`.
    train, hold, seed, cache, features, progress, provenance : as in
        `gyri.evaluation.protocol.evaluate`.
    bootstrap : resamples behind the intervals of the uncorrupted scores.

    Raises
    ------
    DataError
        If there are too few volumes, or subjects are in two of the sets.
    """
    from threadpoolctl import threadpool_limits

    if len(generated) < MIN_VOLUMES:
        raise DataError(
            f"{len(generated)} volumes would play the generated set; a self-test needs at least "
            f"{MIN_VOLUMES}. Prepare the cohort with a larger HOLD."
        )
    if shared := sorted({*generated.ids} & {*train.ids, *hold.ids}):
        raise DataError(
            f"{len(shared)} subjects play the generated set and are in TRAIN or the reference "
            f"({', '.join(shared[:5])}); give disjoint sets."
        )
    with threadpool_limits(1):
        judge = Judge(train, hold, len(generated), seed, cache, bootstrap, None, features)
        responses, refused = _study(judge, generated, progress)
    return SelfTest(
        n={"TRAIN": len(train), "HOLD": len(hold), "generated": len(generated)},
        spacing_mm=tuple(float(s) for s in train.grid.spacing_mm),
        seed=seed,
        provenance=judge.provenance() | dict(provenance or {}),
        responses=responses,
        refused=[*refused, *judge.unmeasured()],
    )


def _study(
    judge: Judge, generated: VolumeSet, progress: Progress | None
) -> tuple[list[Response], list[Refused]]:
    """Judge every corrupted set."""
    real = judge.evidence(generated)
    scores, refused = judge.scores(real, [])
    # Without intervals some metrics draw fewer pairs; all levels are judged alike.
    study = judge.study.without_intervals()
    metrics: list[Metric] = [METRICS[name].component() for name in judge.metrics]
    start = _values(metrics, real, study)
    done, total = 0, len(CORRUPTIONS) * LEVELS
    responses = []
    for name in CORRUPTIONS:
        levels = [start]
        for level in range(1, LEVELS + 1):
            if progress:
                progress(f"{name} {level}", done, total)
            evidence = judge.evidence(corrupt(generated, name, level))
            levels.append(_values(metrics, evidence, study))
            done += 1
        responses += [_response_of(score, name, levels) for score in scores]
    if progress:
        progress("done", total, total)
    return responses, refused


def _values(metrics: list[Metric], evidence: Evidence, study: Study) -> dict[str, float]:
    """Return the value of every score that can be computed."""
    found: dict[str, float] = {}
    for metric in metrics:
        if len(evidence) < metric.min_generated:
            continue
        try:
            found |= {score.key: score.value for score in metric.scores(evidence, study)}
        except Refusal:
            continue
    return found


def _response_of(score: Score, corruption: str, levels: list[dict[str, float]]) -> Response:
    return Response(
        key=score.key,
        metric=score.metric,
        features=score.features,
        label=score.label,
        better=score.better,
        corruption=corruption,
        values=tuple(level.get(score.key, float("nan")) for level in levels),
        low=score.low,
        high=score.high,
        claimed=claim(METRICS[score.metric].component, score.key, corruption),
        reliable=score.reliable,
    )

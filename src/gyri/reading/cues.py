"""Cues: what tells real from synthetic without a look at anatomy, and voids a reader's score.

A logistic model sees how a volume ends (border), how its intensities are spread (histogram) and
its file; never where anything lies in the brain. Pairs stay together in cross-validation, five
folds, five times. The check fails when the mean share of volumes that it calls right in left-out
pairs is above 55 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gyri.evaluation.bootstrap import share_interval
from gyri.runtime.seeding import numpy_rng

LIMIT = 0.55
FOLDS = 5
REPEATS = 5
PERMUTATIONS = 49
LEAST_PAIRS = 20
"""With fewer pairs the check can tell nothing, and a study is refused."""


@dataclass(frozen=True)
class CueCheck:
    """What the logistic model reached.

    Parameters
    ----------
    accuracy : mean share of left-out volumes called right, over repeats.
    interval : Wilson's 95 % interval of that share at the number of volumes.
    p_value : share of labelings, real and synthetic exchanged within pairs, that do as well.
    num_pairs : pairs that were used.
    groups : accuracy with the features of one group alone.
    strongest : features with the largest weights, and their signs: + means synthetic.
    """

    accuracy: float
    interval: tuple[float, float]
    p_value: float
    num_pairs: int
    groups: dict[str, float]
    strongest: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether readers can be asked: no better than 55 %."""
        return self.accuracy <= LIMIT

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            **vars(self),
            "interval": list(self.interval),
            "limit": LIMIT,
            "passed": self.passed,
        }

    def sentence(self) -> str:
        """Say what came out."""
        low, high = self.interval
        groups = ", ".join(f"{name} {value:.0%}" for name, value in self.groups.items())
        return (
            f"{self.accuracy:.1%} of {2 * self.num_pairs} left-out volumes called right "
            f"({low:.0%} to {high:.0%}; limit {LIMIT:.0%}; p = {self.p_value:.2f}); alone: "
            f"{groups}; strongest: {', '.join(self.strongest)}"
        )


def cue_features(encoded: np.ndarray, file: bytes) -> dict[str, float]:
    """Describe an encoded volume without its anatomy.

    Parameters
    ----------
    encoded : (I, J, K) uint8, 0 outside.
    file : the bytes that a browser gets.

    Returns
    -------
    dict
        Features named ``border/...``, ``histogram/...`` and ``file/...``.
    """
    header = file[: len(file) - encoded.size]
    return {
        **{f"border/{name}": value for name, value in _border(encoded).items()},
        **{f"histogram/{name}": value for name, value in _histogram(encoded).items()},
        "file/bytes": float(len(file)),
        "file/header": float(sum((place + 1) * byte for place, byte in enumerate(header))),
    }


def _border(encoded: np.ndarray) -> dict[str, float]:
    from scipy.ndimage import binary_erosion, distance_transform_cdt, gaussian_gradient_magnitude

    inside = encoded > 0
    rim = inside & ~binary_erosion(inside)
    second = binary_erosion(inside) & ~binary_erosion(inside, iterations=2)
    spans = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    grey = encoded.astype(np.float32) / 255
    faces = [np.take(inside, place, axis) for axis in range(3) for place in (0, -1)]
    steps = gaussian_gradient_magnitude(grey, 1.0)
    return {
        "volume": float(inside.mean()),
        "roughness": float(rim.sum() / max(inside.sum(), 1) ** (2 / 3)),
        "depth": float(distance_transform_cdt(inside).max()),
        "touching": float(np.mean([face.mean() for face in faces])),
        **{f"low {axis}": float(span[0]) for axis, span in zip("ijk", spans)},
        **{f"high {axis}": float(span[-1]) for axis, span in zip("ijk", spans)},
        "rim mean": float(grey[rim].mean()),
        "rim spread": float(grey[rim].std()),
        "rim step": float(grey[second].mean() - grey[rim].mean()) if second.any() else 0.0,
        "rim gradient": float(steps[rim].mean()),
    }


def _histogram(encoded: np.ndarray) -> dict[str, float]:
    values = encoded[encoded > 0]
    counts = np.bincount(values, minlength=256)[1:]
    share = counts / max(len(values), 1)
    used = share[share > 0]
    quantiles = (5, 25, 50, 75, 95)
    return {
        **{f"q{q}": float(np.percentile(values, q)) for q in quantiles},
        "spread": float(values.std()),
        "darkest": float(share[0]),
        "brightest": float(share[-1]),
        "entropy": float(-(used * np.log2(used)).sum()),
        "levels": float((counts > 0).sum()),
        "even": float((values % 2 == 0).mean()),
        "comb": float(np.abs(np.diff(share, 2)).sum()),
    }


def check_cues(
    real: Sequence[Mapping[str, float]], synthetic: Sequence[Mapping[str, float]], seed: int = 0
) -> CueCheck:
    """Ask whether the features tell real from synthetic in pairs that the model did not see.

    Parameters
    ----------
    real, synthetic : features of pair 0, 1, ...; see `cue_features`.
    seed : of folds and exchanges.
    """
    names = list(real[0])
    table = np.array([[row[name] for name in names] for row in (*real, *synthetic)], float)
    # What is the same in all volumes tells nothing; the file's features should all be gone here.
    varies = np.ptp(table, axis=0) > 0
    names, table = [n for n, keep in zip(names, varies) if keep], table[:, varies]
    pair = np.tile(np.arange(len(real)), 2)
    label = np.repeat([0, 1], len(real))
    accuracy = _accuracy(table, label, pair, seed)
    rng = numpy_rng("cue check", seed)
    exchanged = [
        _accuracy(table, label ^ rng.integers(0, 2, len(real))[pair], pair, seed)
        for _ in range(PERMUTATIONS)
    ]
    groups = {
        group: _accuracy(table[:, [name.startswith(group) for name in names]], label, pair, seed)
        for group in ("border", "histogram", "file")
    }
    weights = _model().fit(table, label)[-1].coef_[0]
    order = np.argsort(-np.abs(weights))[:4]
    return CueCheck(
        accuracy=accuracy,
        interval=share_interval(round(accuracy * len(table)), len(table)),
        p_value=(1 + sum(value >= accuracy for value in exchanged)) / (1 + PERMUTATIONS),
        num_pairs=len(real),
        groups=groups,
        strongest={names[i]: float(weights[i]) for i in order},
    )


def _model() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), LogisticRegression(C=1.0, solver="newton-cholesky", max_iter=200)
    )


def _accuracy(table: np.ndarray, label: np.ndarray, pair: np.ndarray, seed: int) -> float:
    """Return the mean share of left-out volumes called right; pairs are never torn apart."""
    if not table.shape[1]:
        return 0.5
    right = 0
    for repeat in range(REPEATS):
        fold = numpy_rng("cue folds", seed, repeat).permutation(pair.max() + 1)[pair] % FOLDS
        for k in range(FOLDS):
            fit, left = fold != k, fold == k
            called = _model().fit(table[fit], label[fit]).predict(table[left])
            right += int((called == label[left]).sum())
    return right / (REPEATS * len(label))

"""Frechet distance, kernel distance and PRDC together, against the usual code, in one run.

The usual code is torchmetrics' FrechetInceptionDistance and KernelInceptionDistance, fed with
features (no network, no weights), and the path of generative-evaluation-prdc: pairwise distances
by scikit-learn, `np.partition` for the radii. Both sides get the same float64 features and the
same threads. torchmetrics' kernel distance is timed as it comes, 100 subsets of 1,000; its value
is compared once more on one subset of everything, which is what we compute.

Run ``python benchmarks/judge.py``; the last line is JSON.
"""

import argparse
import json
import warnings
from typing import Any

import numpy as np
import torch
from frechet import timed
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from gyri.evaluation.metrics.frechet import frechet_distance
from gyri.evaluation.metrics.kernel import kernel_distance
from gyri.evaluation.metrics.manifold import NEIGHBOURS, prdc

TARGET = 1 / 3
TOLERANCE = 1e-6


class Features(nn.Module):
    """Gives back the features that it is fed with, in the place of a network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def torchmetrics_fid(x: np.ndarray, y: np.ndarray) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=Features(x.shape[1])).set_dtype(torch.float64)
    metric.update(torch.from_numpy(x), real=True)
    metric.update(torch.from_numpy(y), real=False)
    return float(metric.compute())


def torchmetrics_kid(x: np.ndarray, y: np.ndarray, **settings: Any) -> float:
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = KernelInceptionDistance(feature=Features(x.shape[1]), **settings)
    metric.update(torch.from_numpy(x), real=True)
    metric.update(torch.from_numpy(y), real=False)
    return float(metric.compute()[0])


def reference_prdc(real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """The published path (Naeem 2020): full distance matrices by scikit-learn."""
    from sklearn.metrics import pairwise_distances

    def radii(points: np.ndarray) -> np.ndarray:
        return np.partition(pairwise_distances(points, points), k, axis=-1)[:, k]

    real_radii, fake_radii = radii(real), radii(fake)
    between = pairwise_distances(real, fake)
    in_real = between < real_radii[:, None]
    return {
        "precision": float(in_real.any(0).mean()),
        "recall": float((between < fake_radii[None, :]).any(1).mean()),
        "density": float(in_real.sum(0).mean() / k),
        "coverage": float((between.min(1) < real_radii).mean()),
    }


def draw(rng: np.random.Generator, n: int, d: int, scale: float) -> np.ndarray:
    """Correlated features of few effective dimensions, as networks give them."""
    latent = rng.standard_normal((n, d)) * np.geomspace(1, 0.01, d)
    mixing = np.linalg.qr(np.random.default_rng(1).standard_normal((d, d)))[0]
    return scale * latent @ mixing + 0.1


def gap(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(abs(theirs), 1e-300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    n, d = options.samples, options.features
    rng = np.random.default_rng(0)
    x, y = draw(rng, n, d, 1.0), draw(rng, n, d, 1.1)
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        ours, theirs, seconds = {}, {}, {}
        pairs = {
            "fd": (frechet_distance, torchmetrics_fid),
            "kid": (kernel_distance, torchmetrics_kid),
            "prdc": (prdc, reference_prdc),
        }
        for name, (our, their) in pairs.items():
            ours[name], our_s = timed(our, x, y, repeats=options.repeats)
            theirs[name], their_s = timed(their, x, y, repeats=options.repeats)
            seconds[name] = {"ours_s": our_s, "theirs_s": their_s, "ratio": our_s / their_s}
        theirs["kid"] = torchmetrics_kid(x, y, subsets=1, subset_size=n)
    gaps = {name: gap(ours[name], theirs[name]) for name in ("fd", "kid")}
    gaps |= {name: gap(ours["prdc"][name], theirs["prdc"][name]) for name in ours["prdc"]}
    total = {side: sum(s[side] for s in seconds.values()) for side in ("ours_s", "theirs_s")}
    ratio = total["ours_s"] / total["theirs_s"]
    for name, entry in seconds.items():
        print(f"{name:5} {entry['ours_s']:7.2f} s against {entry['theirs_s']:7.2f} s")
    print(f"together {ratio:.3f} of their time; largest relative gap {max(gaps.values()):.1e}")
    result = {
        "benchmark": "judge",
        "samples": n,
        "features": d,
        "threads": options.threads,
        "seconds": seconds,
        "total": total,
        "ratio": ratio,
        "relative_gaps": gaps,
    }
    passed = ratio <= TARGET and max(gaps.values()) <= TOLERANCE
    print(json.dumps(result | {"passed": passed}))


if __name__ == "__main__":
    main()

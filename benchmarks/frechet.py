"""Frechet distance: nuclear norm against `scipy.linalg.sqrtm`, in one run.

The usual code takes the matrix square root of the product of two covariances. With fewer samples
than features that product is singular: the root is complex, its imaginary part is dropped or an
offset is added to the covariances, and the answer is off. (``sqrtm(..., disp=False)``, which
those codes call, is deprecated and goes in SciPy 1.18.) The closed forms say what is right:
a set is at distance 0 from itself (T1), and (a - 1)^2 (Tr C + |m|^2) from a times itself (T3).

Run ``python benchmarks/frechet.py``; the last line is JSON.
"""

import argparse
import json
import time
import warnings

import numpy as np
from scipy import linalg

from gyri.evaluation.metrics.frechet import frechet_distance


def sqrtm_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The textbook way."""
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    gap = x.mean(0) - y.mean(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = linalg.sqrtm(cov_x @ cov_y)
    return float(gap @ gap + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(root).real)


def timed(function, *arguments, repeats: int = 1):
    """Value and least wall time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = function(*arguments)
        times.append(time.perf_counter() - start)
    return value, min(times)


def draw(rng: np.random.Generator, n: int, d: int, scale: float) -> np.ndarray:
    return scale * rng.standard_normal((n, d)) * np.geomspace(1, 0.1, d) + 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--features", type=int, default=2048)
    options = parser.parse_args()
    n, d = options.samples, options.features
    rng = np.random.default_rng(0)

    x, y = draw(rng, n, d, 1.0), draw(rng, n, d, 1.2)
    ours, our_seconds = timed(frechet_distance, x, y, repeats=3)
    theirs, their_seconds = timed(sqrtm_distance, x, y)

    a = 1.7
    scaled = (a - 1) ** 2 * (x.var(0, ddof=1).sum() + x.mean(0) @ x.mean(0))
    trace = x.var(0, ddof=1).sum()
    t1 = abs(frechet_distance(x, x)) / trace
    t3 = abs(frechet_distance(x, a * x) / scaled - 1)

    many_x, many_y = draw(rng, 3000, 256, 1.0), draw(rng, 3000, 256, 1.2)
    many_ours, many_our_seconds = timed(frechet_distance, many_x, many_y, repeats=3)
    many_theirs, many_their_seconds = timed(sqrtm_distance, many_x, many_y)
    agreement = abs(many_ours / many_theirs - 1)

    result = {
        "benchmark": "frechet",
        "samples": n,
        "features": d,
        "ours_s": our_seconds,
        "sqrtm_s": their_seconds,
        "speedup": their_seconds / our_seconds,
        "value_ours": ours,
        "value_sqrtm": theirs,
        "t1_relative_error": t1,
        "t3_relative_error": t3,
        "many_samples": {"samples": 3000, "features": 256, "relative_gap": agreement}
        | {"ours_s": many_our_seconds, "sqrtm_s": many_their_seconds},
    }
    passed = result["speedup"] >= 10 and agreement < 1e-6 and t1 < 1e-9 and t3 < 1e-9
    print(f"{n} x {d}: {our_seconds:.3f} s against {their_seconds:.3f} s with sqrtm,")
    print(f"  {result['speedup']:.0f} times faster; {ours:.6f} against {theirs:.6f}")
    print(f"  closed forms, relative error: T1 {t1:.1e}, T3 {t3:.1e}")
    print(f"3000 x 256: {many_our_seconds:.3f} s against {many_their_seconds:.3f} s, ", end="")
    print(f"relative gap {agreement:.1e}")
    print(json.dumps(result | {"passed": bool(passed)}))


if __name__ == "__main__":
    main()

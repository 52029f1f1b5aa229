"""How preparation scales with processes, and how its resampling compares with nilearn's.

    python benchmarks/prepare.py NATIVE [--repeats 3] [--spacing 2]

NATIVE is a BIDS data set of native, stripped scans (six of OpenNeuro ds002748 in the published
figures). Two ratios are printed, each from runs taken in turn, medians over the repeats:

- the whole pipeline (reorient, register, resample, crop, intensity): one process with one thread
  over two processes with one thread each (target: at least 1.8), and one process with a thread a
  core over the same two processes (target: at least 1). Each run is a fresh Python.
- resample + crop + intensity of scans in memory on one thread: nilearn's `resample_to_img` and
  NumPy over gyri (target: at least 2). gyri smooths before it coarsens; nilearn is timed with its
  `smooth_img` of the same width, which is the same chain, and without it. The agreement of the two
  results is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)  # fmt: skip
CASES = {"one_thread": (1, 1), "two_processes": (2, 1), "multithreaded": (1, os.cpu_count() or 1)}
"""Name -> (processes, threads in each)."""

PERCENTILE, LEVEL = 95.0, 0.8


def limited(threads: int) -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(THREADS, str(threads))}


def child(arguments: list[str], threads: int) -> dict[str, Any]:
    """Run this file in a fresh process and return what it prints."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=limited(threads), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def pipeline_seconds(raw: Path, spacing_mm: float, jobs: int) -> dict[str, float]:
    """Prepare `raw` once, from its files to a finished cohort."""
    from gyri.prepare.pipeline import prepare

    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        cohort = prepare(raw, Path(out) / "out", spacing_mm=spacing_mm, register=True, jobs=jobs)
        seconds = time.perf_counter() - began
        if cohort.quarantine:
            raise RuntimeError(f"in quarantine: {cohort.quarantine}")
        return {"seconds": seconds}


def part_seconds(raw: Path, spacing_mm: float, repeats: int) -> dict[str, float]:
    """Time resample + crop + intensity of both, scan by scan in turn, after one unmeasured."""
    from gyri.prepare.defaults import default_steps
    from gyri.prepare.plan import Choices, plan
    from gyri.prepare.reorient import ReorientConfig, reorient
    from gyri.prepare.session import through
    from gyri.prepare.survey import read_session

    steps = default_steps(spacing_mm)
    steps.pop("reorient")
    with tempfile.TemporaryDirectory() as folder:
        planned = plan(raw, Choices(spacing_mm=spacing_mm))
        planned, _ = planned.surveyed(Path(folder) / "survey.jsonl")
    scans = [reorient(read_session(session), ReorientConfig()) for session in planned.sessions]
    spent: dict[str, list[float]] = {"gyri": [], "nilearn": [], "nilearn_unsmoothed": []}
    alike = []
    for number, scan in enumerate([scans[0], *scans * repeats]):
        began = time.perf_counter()
        *_, ours = through(scan, steps)
        times = {"gyri": time.perf_counter() - began}
        for name, smooth in (("nilearn", True), ("nilearn_unsmoothed", False)):
            began = time.perf_counter()
            theirs = nilearn_chain(scan, ours, spacing_mm, smooth=smooth)
            times[name] = time.perf_counter() - began
            if smooth:
                alike.append(float(np.corrcoef(ours.image[0].ravel(), theirs.ravel())[0, 1]))
        if number:
            for name, seconds in times.items():
                spent[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in spent.items()}
    return {
        **{f"{name}_s_a_scan": seconds for name, seconds in medians.items()},
        "nilearn_over_gyri": medians["nilearn"] / medians["gyri"],
        "nilearn_unsmoothed_over_gyri": medians["nilearn_unsmoothed"] / medians["gyri"],
        "least_correlation": min(alike),
    }


def nilearn_chain(scan: Any, ours: Any, spacing_mm: float, *, smooth: bool) -> np.ndarray:
    """Do the same with nilearn and NumPy: smooth, resample onto the window, mask, scale."""
    import nibabel as nib
    from nilearn.image import resample_to_img, smooth_img

    # The window as crop found it, in the scan's own world.
    affine = np.array(ours.affine)
    affine[:3, 3] -= next(e for e in ours.history if e["step"] == "crop")["moved_mm"]
    target = nib.Nifti1Image(np.zeros(ours.shape, np.float32), affine)
    images = {
        "values": nib.Nifti1Image(scan.image[0], scan.affine),
        "mask": nib.Nifti1Image(scan.foreground, scan.affine),
    }
    if smooth:
        fwhm = np.sqrt(np.maximum(spacing_mm**2 - scan.spacing_mm**2, 0))
        images = {name: smooth_img(image, fwhm) for name, image in images.items()}
    moved = {
        name: resample_to_img(
            image, target, interpolation="linear", copy_header=True, force_resample=True
        ).get_fdata(dtype=np.float32)
        for name, image in images.items()
    }
    mask = moved["mask"] >= 0.5
    zero = min(0.0, float(np.percentile(moved["values"][mask], 0.5)))
    top = float(np.percentile(moved["values"][mask], PERCENTILE))
    scaled = np.zeros_like(moved["values"])
    scaled[mask] = np.clip((moved["values"][mask] - zero) * (LEVEL / (top - zero)), 0, 1)
    return scaled


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("native", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--spacing", type=float, default=2.0)
    parser.add_argument("--pipeline", type=int, metavar="JOBS", help=argparse.SUPPRESS)
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.pipeline is not None:
        print(json.dumps(pipeline_seconds(given.native, given.spacing, given.pipeline)))
        return
    if given.part:
        print(json.dumps(part_seconds(given.native, given.spacing, given.repeats)))
        return
    from gyri.cohort.sources.bids import bids

    with tempfile.TemporaryDirectory() as folder:
        raw = bids(given.native, Path(folder) / "raw").root
        common = [str(raw), "--spacing", str(given.spacing), "--repeats", str(given.repeats)]
        results: dict[str, Any] = {"part": child([*common, "--part"], 1)}
        seconds: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(given.repeats):
            for name, (jobs, threads) in CASES.items():
                took = child([*common, "--pipeline", str(jobs)], threads)["seconds"]
                seconds[name].append(took)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    results["pipeline"] = {
        **{f"{name}_s": value for name, value in medians.items()},
        "one_thread_over_two_processes": medians["one_thread"] / medians["two_processes"],
        "multithreaded_over_two_processes": medians["multithreaded"] / medians["two_processes"],
    }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

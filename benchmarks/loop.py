"""How long the trainer waits for data, and how long `gyri --help` takes.

    python benchmarks/loop.py [--seconds 30]

Trains a slice and a volume model on phantoms at 4 mm and prints the share of the time that went
into making batches (target: under 2 %), and the median of ten `gyri --help` (target: under 0.5 s).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gyri import api
from gyri.recipe import parse_recipe
from gyri.training.run import train

UNET = {"widths": [16, 32], "num_res_blocks": 1, "attention": [False, False]}
VIEWS = {"slice": {"batch_size": 32, "patch": 1}, "volume": {"batch_size": 4, "patch": 2}}


def data_wait(view: str, cohort: Path, out: Path, seconds: float) -> dict[str, float]:
    """Train `view` x ddpm for `seconds` and return its cost."""
    settings = VIEWS[view]
    recipe = parse_recipe(
        {
            "name": view,
            "view": view,
            "method": "ddpm",
            "networks": {"denoiser": {**UNET, "patch": settings["patch"]}},
            "conditions": ["age", "sex"],
            "training": {"budget_s": seconds, "batch_size": settings["batch_size"]},
        }
    )
    cost: dict[str, float] = train(recipe, cohort, out, quiet=True).info["cost"]
    return cost


def help_seconds() -> float:
    """Return the median wall time of `gyri --help`."""
    times = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "gyri", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    seconds = parser.parse_args().seconds
    results: dict[str, float] = {"help_s": help_seconds()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        api.import_cohort("phantom", None, root / "raw", num_subjects=40, spacing_mm=4.0)
        api.prepare(root / "raw", root / "prepared", spacing_mm=4.0)
        for view in VIEWS:
            cost = data_wait(view, root / "prepared", root / view, seconds)
            results[f"{view}_data_wait_share"] = cost["data_wait_share"]
            results[f"{view}_steps"] = cost["steps"]
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

"""How long a reader waits: until the first case is on the screen, and from an answer to the next.

    python benchmarks/reading.py [--cases 200] [--spacing 2] [--answers 20] [--chromium PATH]

A study of random volumes of a brain's size is sealed and served as `gyri read serve` does, and read
in headless Chromium through playwright. The first time runs from the start of loading the page (a
reader who comes back, so that no text is between) to the frame in which the first volume is drawn;
the others from the key of an answer to the frame with the next volume. Both clocks are the page's.
WebGL2 is drawn by the processor here (SwiftShader); a graphics card is faster.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gyri.cohort.files import write_json, write_text
from gyri.cohort.nifti import write_volume
from gyri.reading.design import Pair, deal, trials_of
from gyri.reading.ledger import FILE, Ledger
from gyri.reading.new import LINKS, RECORD, VOLUMES
from gyri.reading.study import FAULTS, SCALES, Blocks

EXTENT_MM = (182, 218, 182)
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader",
         "--enable-unsafe-swiftshader"]  # fmt: skip


def seal(root: Path, cases: int, spacing_mm: float) -> str:
    """Write a study of `cases` volumes; returns the reader's token."""
    rng = np.random.default_rng(0)
    shape = tuple(round(extent / spacing_mm) for extent in EXTENT_MM)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = [-spacing_mm * size / 2 for size in shape]
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
    ball = (place**2).sum(0) < 0.7
    volumes = []
    for k in range(cases):
        path = root / VOLUMES / f"{k:032x}.nii"
        write_volume(
            path, (ball * rng.integers(1, 256, shape)).astype(np.uint8), affine, descrip=""
        )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        kind = ("real", "synthetic")[k % 2]
        volumes.append(
            {"id": path.stem, "kind": kind, "source": "", "subject": "", "sha256": digest}
        )
    blocks = Blocks(yes_no=cases, pairs=0, ratings=0, repeats=0)
    pairs = [Pair(volumes[k]["id"], volumes[k + 1]["id"]) for k in range(0, cases, 2)]
    ledger, tokens = Ledger.create(
        root / FILE, volumes, trials_of("reader", deal(pairs, blocks, 0), 0, 0)
    )
    record = {"study": {"name": "bench"}, "seal": ledger.seal(), "passed_cue_check": True,
              "scales": list(SCALES), "faults": list(FAULTS)}  # fmt: skip
    ledger.consent("reader")
    ledger.close()
    write_json(root / RECORD, record)
    write_text(root / LINKS, f"reader\t{tokens['reader']}\n")
    return tokens["reader"]


def read(link: str, chromium: str, answers: int) -> tuple[float, list[float]]:
    """Return seconds to the first case and from each answer to the next case."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)
        # The introduction is read before, so that the first case follows the page at once.
        page.add_init_script("addEventListener('DOMContentLoaded', () => { block = 'yes_no'; })")
        page.goto(link)
        page.wait_for_selector("body[data-trial]")
        first = page.evaluate("Number(document.body.dataset.waitedMs)") / 1000
        waits = []
        for _ in range(answers):
            before = page.evaluate("document.body.dataset.trial")
            page.wait_for_timeout(300)  # nobody answers faster; the next volume is loaded meanwhile
            page.keyboard.press("1")
            page.keyboard.press("Enter")
            page.wait_for_function("b => document.body.dataset.trial !== b", arg=before)
            waits.append(page.evaluate("Number(document.body.dataset.waitedMs)") / 1000)
        browser.close()
    return first, waits


def share_of_a_processor(seconds: float = 0.5) -> float:
    """Return how much of a processor a busy process gets now; 1 on a machine that is idle."""
    began, spent = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        pass
    return (time.process_time() - spent) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--spacing", type=float, default=2.0)
    parser.add_argument("--answers", type=int, default=20)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    if options.chromium is None:
        print("no Chromium: apt-get install chromium, or give --chromium")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seal(root, options.cases, options.spacing)
        server = subprocess.Popen(
            [sys.executable, "-m", "gyri", "read", "serve", str(root), "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        link = server.stdout.readline().split(": ", 1)[1].strip()
        free = share_of_a_processor()
        try:
            first, waits = read(link, options.chromium, options.answers)
        finally:
            server.terminate()
            server.wait()
    print(json.dumps({
        "cases": options.cases, "spacing_mm": options.spacing,
        "first_case_s": round(first, 3), "next_case_median_s": round(statistics.median(waits), 3),
        "next_case_most_s": round(max(waits), 3), "answers": len(waits),
        "share_of_a_processor": [round(free, 2), round(share_of_a_processor(), 2)],
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "processors": os.cpu_count(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()

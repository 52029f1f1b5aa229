"""Print several score sheets as one Markdown table, with the anchors of the first.

python docs/results/table.py SAMPLES [SAMPLES ...]

With --all every score of the sheets and every anchor.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROWS = (
    "fd/morph-v1", "fd/radiomics-v1", "fd/spectrum-v1", "kid/morph-v1", "kid/radiomics-v1",
    "coverage/morph-v1", "coverage/radiomics-v1", "coverage/spectrum-v1", "msssim/delta",
    "coherence", "components", "orientation", "volumes/in_range", "volumes/brain_ml/d",
    "volumes/gm_ml/d", "volumes/wm_ml/d", "volumes/central_csf_ml/mean", "nearest/copy_rate",
    "nearest/closer",
)  # fmt: skip
ANCHORS = ("ceiling", "mean_image", "phase_random", "noise")
ALL_ANCHORS = ("ceiling", "train_copies", "pca_gaussian", "blurred", *ANCHORS[1:])


def finished(study: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of a study with their first trial, where that is done."""
    rows = json.loads((study / "results.json").read_text())["rows"]
    return [(r, t) for r in rows for t in r["trials"][:1] if t["state"] == "done"]


def number(value: float | None) -> str:
    """Write a number with three digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cell(score: dict[str, Any]) -> str:
    """Write a value with its interval."""
    if score["value"] is None or score["low"] is None or score["low"] == score["high"]:
        return number(score["value"])
    return f"{number(score['value'])} ({number(score['low'])}, {number(score['high'])})"


def main() -> None:
    """Print the table and which gates each passes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path, nargs="+")
    parser.add_argument("--all", action="store_true")
    given = parser.parse_args()
    folders, anchors = given.samples, ALL_ANCHORS if given.all else ANCHORS
    sheets = [json.loads((f / "evaluation" / "scores.json").read_text()) for f in folders]
    scores = [{score["key"]: score for score in sheet["scores"]} for sheet in sheets]
    print("| | " + " | ".join([folder.name for folder in folders] + list(anchors)) + " |")
    print("|---" * (1 + len(folders) + len(anchors)) + "|")
    for key in scores[0] if given.all else ROWS:
        cells = [cell(of[key]) for of in scores]
        cells += [number(scores[0][key]["anchors"].get(anchor)) for anchor in anchors]
        print(f"| {scores[0][key]['label']} | " + " | ".join(cells) + " |")
    for folder, sheet in zip(folders, sheets):
        print(f"\n{folder.name}: {json.dumps(sheet['gates'])}")


if __name__ == "__main__":
    main()

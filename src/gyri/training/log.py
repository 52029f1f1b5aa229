"""The training log: one JSON line a row, cut back to the checkpoint when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class JsonLog:
    """Appends rows to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def cut_back(self, step: int) -> None:
        """Drop rows written after `step`: they belong to updates that a checkpoint lost."""
        kept = [row for row in read(self.path) if row["step"] <= step]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))


def read(path: Path) -> list[dict[str, Any]]:
    """Return all whole rows; a last line cut short by a crash is left out."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows

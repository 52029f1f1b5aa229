"""The sheet of scores, as it is kept in a file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gyri.errors import DataError
from gyri.evaluation.families import FamilyVerdict, verdicts
from gyri.evaluation.metrics import NAN, Score

SCHEMA = "gyri-scores-1"
LEAD = (
    "fd/*",
    "kid/*",
    "coverage/*",
    "volumes/brain_ml/d",
    "volumes/in_range",
    "label_agreement/*/whole",
)
"""Patterns of score keys, first things first."""
REQUIRED = ("generated", "channel", "n", "spacing_mm", "seed", "provenance", "scores", "gates")


@dataclass(frozen=True)
class Refused:
    """A metric that was not computed, and why."""

    metric: str
    features: str | None
    reason: str


@dataclass
class Scores:
    """Everything that is known about one generated set.

    Parameters
    ----------
    generated : name of the set.
    channel : the channel that was judged.
    n : volumes of ``TRAIN``, ``HOLD`` and ``generated``.
    spacing_mm : of the generated grid.
    scores : one number each, with interval and anchors.
    refused : metrics that could not be computed.
    gates : pass or fail, by name, with share and detail.
    samples : one row a volume.
    """

    generated: str
    channel: str
    n: dict[str, int]
    spacing_mm: tuple[float, ...]
    seed: int
    provenance: dict[str, Any]
    scores: list[Score]
    gates: dict[str, dict[str, Any]]
    refused: list[Refused] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def __getitem__(self, key: str) -> Score:
        """Return the score called `key`, a name or a name without sample sizes."""
        for score in self.scores:
            if key in (score.key, score.name):
                return score
        raise KeyError(f"no score {key!r}; there are {', '.join(s.key for s in self.scores)}")

    @property
    def lead(self) -> list[str]:
        """Names of the scores to be read first: those in `LEAD` that are reliable."""
        order = [s for pattern in LEAD for s in self.scores if fnmatchcase(s.key, pattern)]
        return [score.name for score in order if score.reliable]

    @property
    def families(self) -> list[FamilyVerdict]:
        """One light a family, derived from scores and gates; see `gyri.evaluation.families`."""
        reasons = {entry.metric: entry.reason for entry in self.refused}
        return verdicts(self.scores, self.gates, reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return the sheet as plain values; what is not finite becomes None."""
        content = asdict(self)
        content["spacing_mm"] = list(self.spacing_mm)
        derived = {"lead": self.lead, "families": [asdict(family) for family in self.families]}
        content = {"schema": SCHEMA, **content, **derived}
        result: dict[str, Any] = plain(content)
        return result

    def write(self, path: Path) -> None:
        """Write the sheet as JSON, replacing the file in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Scores:
        """Read a sheet.

        Raises
        ------
        DataError
            If the file is no sheet of this schema.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a sheet of scores: {error}") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            found = content.get("schema") if isinstance(content, dict) else type(content).__name__
            raise DataError(
                f"{path} has schema {found!r}, expected {SCHEMA!r}; run `gyri evaluate` again."
            )
        missing = [key for key in REQUIRED if key not in content]
        if missing:
            raise DataError(f"{path} lacks {', '.join(missing)}; run `gyri evaluate` again.")
        return cls(
            generated=content["generated"],
            channel=content["channel"],
            n=content["n"],
            spacing_mm=tuple(content["spacing_mm"]),
            seed=content["seed"],
            provenance=content["provenance"],
            scores=[Score(**_with_nan(score)) for score in content["scores"]],
            gates=content["gates"],
            refused=[Refused(**entry) for entry in content.get("refused", [])],
            samples=content.get("samples", []),
        )


def _with_nan(score: dict[str, Any]) -> dict[str, Any]:
    return score | {k: NAN for k in ("value", "low", "high") if score.get(k) is None}


def plain(value: Any) -> Any:
    """Return nested values as JSON knows them; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):
        return plain(value.item())
    return value

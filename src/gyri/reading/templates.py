"""Texts that go beside a study: pre-registration and consent, filled in as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from gyri.reading.equivalence import trials_needed
from gyri.reading.study import Blocks

_TEXTS = Path(__file__).parent / "texts"
PREREGISTRATION = "preregistration.md"
CONSENT = "consent.md"


def filled(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts by file name.

    Parameters
    ----------
    record : content of ``gyri-reading.json``.
    """
    study = record["study"]
    blocks = Blocks(**study["blocks"])
    repeats = sum(round(n * blocks.repeats) for n in (blocks.yes_no, blocks.pairs, blocks.ratings))
    trials = blocks.yes_no + blocks.pairs + blocks.ratings
    values = {
        "name": study["name"],
        "split": study["split"],
        "cohort": Path(study["cohort"]).name,
        "models": "\n".join(f"- `{Path(folder)}`" for folder in study["synthetic"]),
        "matched": ", ".join(f"{c} ({r})" for c, r in record["matched"].items()) or "nothing",
        "encoding": ", ".join(f"{key}: {value}" for key, value in study["encoding"].items()),
        "cues": "\n".join(
            f"- `{Path(folder)}`: {check['accuracy']:.1%} "
            f"({check['interval'][0]:.0%} to {check['interval'][1]:.0%}), "
            + ("passed" if check["passed"] else "**not passed: this is a pilot**")
            for folder, check in record["cues"].items()
        ),
        "num_readers": len(study["readers"]),
        "yes_no": blocks.yes_no,
        "pairs": blocks.pairs,
        "ratings": blocks.ratings,
        "repeats": repeats,
        "trials": trials + repeats,
        "margin": f"{100 * study['margin']:g}",
        "needed": trials_needed(study["margin"]),
        "planned": blocks.yes_no * len(study["readers"]),
        "seal": record["seal"],
        "seed": study["seed"],
    }
    return {
        path.name: Template(path.read_text(encoding="utf-8")).substitute(values)
        for path in (_TEXTS / PREREGISTRATION, _TEXTS / CONSENT)
    }

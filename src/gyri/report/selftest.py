"""The page and the Markdown table of a self-test: metric by corruption."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gyri.evaluation.corruptions import CORRUPTIONS, Corruption
from gyri.evaluation.metrics import Metric, family_of
from gyri.evaluation.selftest import Response, SelfTest
from gyri.registry import METRICS
from gyri.report.render import write_page
from gyri.report.text import MISSING, interval, join, number, plural, score_label, words

PAGE, TABLE = "self-test.html", "self-test.md"


def rho_words(response: Response) -> str:
    """Write a rank correlation, a dash where the score did not move."""
    return MISSING if math.isnan(response.rho) else f"{response.rho:+.2f}".replace("-", "−")


def severities(corruption: Corruption) -> str:
    """Write the severities with their unit, for example ``"1, 2, 3, 5, 8 (mm)"``."""
    return f"{', '.join(f'{size:g}' for size in corruption.severities)} ({corruption.unit})"


def verdict(result: SelfTest) -> str:
    """Say in a sentence how many claims hold."""
    claims = [r for r in result.responses if r.holds is not None]
    held = sum(bool(r.holds) for r in claims)
    text = (
        f"{held} of {plural(len(claims), 'claim')} hold on {result.n['generated']} real subjects "
        f"of {result.provenance.get('cohort', 'this cohort')}, corrupted in "
        f"{plural(len(CORRUPTIONS), 'way')}."
    )
    if result.failed:
        keys = list(result.failed)
        text += (
            f" {plural(len(keys), 'score')} failed and neither lead nor decide in evaluations "
            f"against this cohort: {join(keys)}."
        )
    return text


def rows(result: SelfTest) -> dict[str, list[Response]]:
    """Return the responses by score key, in the order of the sheet, one a corruption."""
    found: dict[str, list[Response]] = {}
    for response in result.responses:
        found.setdefault(response.key, []).append(response)
    return found


def _state(response: Response) -> str:
    """Class of a cell: a claim that failed, or what the movement says of the set."""
    return "failed" if response.holds is False else response.effect or "blind"


def _cell(response: Response) -> dict[str, Any]:
    values = ", ".join(number(v) for v in response.values)
    seen = response.seen_from
    told = f"{words(response.corruption)}: {values}"
    if seen:
        told += f"; outside {interval(response.low, response.high)} from level {seen} on"
    return {
        "state": _state(response),
        "rho": rho_words(response),
        "claimed": response.holds is not None,
        "seen": f"from {CORRUPTIONS[response.corruption].severities[seen - 1]:g}" if seen else "",
        "detail": told,
    }


def _families(result: SelfTest) -> Iterator[dict[str, Any]]:
    by_family: dict[str, list[dict[str, Any]]] = {}
    for responses in rows(result).values():
        first = responses[0]
        label = score_label({"label": first.label, "features": first.features})
        cells = {r.corruption: _cell(r) for r in responses}
        by_family.setdefault(family_of(first.metric) or "other", []).append(
            {"label": label, "key": first.key, "cells": [cells[name] for name in CORRUPTIONS]}
        )
    for family, lines in by_family.items():
        yield {"name": words(family), "rows": lines}


def _blindness(result: SelfTest) -> list[tuple[str, str]]:
    """What each metric says that it cannot see."""
    found = []
    for name in dict.fromkeys(r.metric for r in result.responses):
        metric: type[Metric] = METRICS[name].component
        if metric.blind_to:
            found.append((name, metric.blind_to))
    return found


def markdown(result: SelfTest) -> str:
    """Write the table for a results page: Spearman's rho, the level from which it is seen.

    A star marks a claim, ``!`` one that failed; bold is a monotone movement.
    """
    names = list(CORRUPTIONS)
    lines = [
        f"| score | {' | '.join(words(name).lower() for name in names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for key, responses in rows(result).items():
        cells = []
        for r in responses:
            text = f"**{rho_words(r)}**" if r.moves else rho_words(r)
            text += f" ({r.seen_from})" if r.moves and r.seen_from else ""
            cells.append(text + {True: " *", False: " !", None: ""}[r.holds])
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(
        [
            verdict(result),
            "",
            "Spearman's rho between severity (none and five levels) and score; bold where the "
            "score moves monotonically; in brackets the level from which on it leaves the interval "
            "of the uncorrupted score; * a claim that holds, ! one that fails.",
            "",
            *lines,
            "",
            *(f"- {words(c.name).lower()}: {severities(c)}" for c in CORRUPTIONS.values()),
            "",
        ]
    )


def write_self_test(result: SelfTest, folder: Path) -> Path:
    """Write ``self-test.md`` and ``self-test.html`` into a folder; return the page."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).write_text(markdown(result), encoding="utf-8")
    spacing = " × ".join(number(s) for s in sorted(set(result.spacing_mm)))
    return write_page(
        folder / PAGE,
        PAGE,
        title=f"Self-test of the metrics on {result.provenance.get('cohort', 'real scans')}",
        verdict=verdict(result),
        facts=[
            ("Corrupted", number(result.n["generated"]), "of HOLD"),
            ("Reference", number(result.n["HOLD"]), "other HOLD subjects"),
            ("Trained on", number(result.n["TRAIN"]), "TRAIN"),
            ("Grid", f"{spacing} mm", ""),
        ],
        corruptions=[
            {
                "name": words(c.name),
                "summary": c.summary,
                "unit": c.unit,
                "severities": severities(c),
            }
            for c in CORRUPTIONS.values()
        ],
        families=list(_families(result)),
        blindness=_blindness(result),
        refused=result.refused,
        provenance=result.provenance,
    )

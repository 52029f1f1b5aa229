"""The report: one self-contained HTML page that asks nothing from any network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gyri.cohort.volumes import VolumeSet
from gyri.errors import DataError
from gyri.report import citation, comparison, levels, sections
from gyri.report.render import write_page
from gyri.report.text import costs, number
from gyri.report.verdict import lights, verdict

SCHEMA = "gyri-scores-1"


def _check(scores: Mapping[str, Any], sets: Sequence[VolumeSet], generated: VolumeSet) -> None:
    """Refuse input that no page can be made of."""
    if scores.get("schema") != SCHEMA:
        raise DataError(
            f"The scores have schema {scores.get('schema')!r}; the report reads {SCHEMA!r}. "
            "Run `gyri evaluate` again with this version."
        )
    for members in (generated, *sets):
        if not len(members):
            raise DataError(
                f"The set {members.name} is empty; give at least one volume of each set."
            )
        if members.grid != generated.grid or members.channels != generated.channels:
            raise DataError(
                f"{members.name} has grid {members.grid.shape} at {members.grid.spacing_mm} mm and "
                f"channels {members.channels}, {generated.name} has {generated.grid.shape} at "
                f"{generated.grid.spacing_mm} mm and {generated.channels}; give sets of one "
                "prepared cohort."
            )


def _channel(scores: Mapping[str, Any], generated: VolumeSet) -> int:
    """Index of the channel that was judged; the first where the scores name none."""
    name = scores.get("channel")
    return generated.channels.index(name) if name in generated.channels else 0


def _finite(members: VolumeSet) -> tuple[VolumeSet, int]:
    """Replace values that are not finite by 0 and count the volumes that held some."""
    broken = ~np.isfinite(members.volumes).all(axis=(1, 2, 3, 4))
    if not broken.any():
        return members, 0
    return replace(members, volumes=np.nan_to_num(members.volumes, posinf=0, neginf=0)), int(
        broken.sum()
    )


def _gates(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Chips of the gates that no family holds: all of them in sheets without families."""
    held = {name for family in lights(scores) for name in family.get("gates") or []}
    gates = scores.get("gates") or {}
    return [sections.gate_chip(n, gate) for n, gate in gates.items() if n not in held]


def _facts(
    generated: VolumeSet,
    train: VolumeSet,
    hold: VolumeSet,
    provenance: Mapping[str, Any],
) -> list[tuple[str, str, str]]:
    """Numbers beside the verdict: (what, how much, more)."""
    grid = generated.grid
    spacing = sorted(set(round(size, 3) for size in grid.spacing_mm))
    facts = [
        ("Synthetic", number(len(generated)), sections.known_facts(generated)),
        ("Held out", number(len(hold)), sections.known_facts(hold)),
        ("Trained on", number(len(train)), sections.known_facts(train)),
        (
            "Grid",
            " × ".join(str(size) for size in grid.shape),
            " × ".join(number(size) for size in spacing) + " mm, " + ", ".join(generated.channels),
        ),
    ]
    spent = [f"{what.lower()} {how_much}" for what, how_much in costs(provenance)]
    return facts + ([("Cost", spent[0], " · ".join(spent[1:]))] if spent else [])


def write_report(
    out: Path,
    *,
    title: str,
    training_log: Sequence[Mapping[str, Any]] | None,
    generated: VolumeSet,
    train: VolumeSet,
    hold: VolumeSet,
    scores: Mapping[str, Any],
    provenance: Mapping[str, Any],
    conditions_table: pd.DataFrame | None = None,
    previews: Sequence[Path] = (),
) -> Path:
    """Write the report of one synthetic cohort.

    Parameters
    ----------
    out : the file to write, usually ``report.html``; a folder gets ``report.html`` inside.
    title : heading of the page.
    training_log : entries of the run's JSON-lines log (``step``, ``images_seen``, ``loss/...``),
        or None where there was no training.
    generated, train, hold : volumes in [0, 1] on one grid with the same channels.
    scores : the parsed scores file, schema ``gyri-scores-1``; any value may be None or NaN.
    provenance : nested names and values; text of several lines (a recipe) is kept as it is.
        ``provenance["cost"]`` is shown beside the verdict, units from the names (``_s``, ``_gib``).
    conditions_table : covariates of the synthetic volumes, by default ``generated.table``.
    previews : PNG files written during training, in order.

    Returns
    -------
    Path
        The file. It loads nothing from outside: pictures and styles are inside, scripts there
        are none, and a content security policy forbids both.

    Raises
    ------
    DataError
        If a set is empty, if the sets do not share grid and channels, or if the scores have
        another schema.
    """
    _check(scores, (train, hold), generated)
    if conditions_table is not None:
        generated = replace(generated, table=conditions_table.loc[generated.table.index])
    generated, num_broken = _finite(generated)
    channel = _channel(scores, generated)
    return write_page(
        out,
        "report.html",
        title=title,
        verdict=verdict(scores, len(generated), len(hold)),
        lights=[sections.light_row(family) for family in lights(scores)],
        gates=_gates(scores),
        hold_name=hold.name,
        num_broken=num_broken,
        facts=_facts(generated, train, hold, provenance),
        gallery=sections.gallery(generated, hold),
        neighbours=sections.neighbours(generated, train, hold, channel),
        sheet=sections.score_sheet(scores),
        by_level=levels.by_level(scores, generated, hold, channel),
        anatomy=comparison.anatomy(comparison.measure_tissues(generated, hold, train)),
        training=sections.training(training_log, previews),
        appearance=comparison.appearance(generated, hold, train, channel),
        samples=sections.sample_rows(scores),
        provenance=provenance,
        software=citation.software(),
        methods=citation.methods(scores, provenance),
    )

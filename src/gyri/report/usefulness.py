"""Page and terminal summary of a study of usefulness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from gyri.errors import DataError
from gyri.report.charts import PALETTE, panel, themed_svg
from gyri.report.render import write_page
from gyri.report.text import interval, number, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA = "gyri-utility-1"
_DECISIONS = {"helps": "pass", "no harm": "pass", "not shown": "doubtful"}
_STYLES = {"helps": "green", "no harm": "green", "not shown": "yellow"}
_REAL, _AUGMENTED, _DUPLICATED = "R", "R + augmentation", "R duplicated"
_COLOURS = {_REAL: "hold", _AUGMENTED: "train"}

Sheet = Mapping[str, Any]


def _check(sheet: Sheet) -> None:
    if sheet.get("schema") != SCHEMA:
        raise DataError(
            f"The sheet has schema {sheet.get('schema')!r}; this page reads {SCHEMA!r}. Run `gyri "
            "utility` again: finished cells are kept."
        )


def write_usefulness(out: Path, sheet: Sheet) -> Path:
    """Write the self-contained page of a study.

    Parameters
    ----------
    out : the file.
    sheet : content of ``utility.json``.

    Raises
    ------
    DataError
        The sheet is of another schema.
    """
    _check(sheet)
    main = sheet["measures"][0]
    curves = learning_curves(sheet)
    fractions = sorted(sheet["plan"]["fractions"])
    forests = [
        {
            "title": f"{fraction:.0%} of TRAIN",
            "svg": themed_svg(figure, f"Gains with {fraction:.0%} of TRAIN", f"forest{place}"),
        }
        for place, fraction in enumerate(fractions)
        if (figure := gain_forest(sheet, fraction)) is not None
    ]
    return write_page(
        out,
        "usefulness.html",
        title=f"Usefulness: {sheet['task']['name']}",
        sheet=sheet,
        verdict=sheet["summary"],
        facts=_facts(sheet),
        measure=f"{main['label']}{', ' + main['unit'] if main['unit'] else ''}",
        better=main["better"],
        verdicts=[v | {"kind": _DECISIONS[v["decision"]]} for v in sheet["verdicts"]],
        curves=[
            {"title": name, "svg": themed_svg(figure, f"Learning curve of {name}", f"curve{place}")}
            for place, (name, figure) in enumerate(curves.items())
        ],
        forests=forests,
        columns=_columns(sheet),
        tables=[
            {"fraction": f"{fraction:.0%}", "rows": _rows(sheet, fraction)}
            for fraction in reversed(fractions)
        ],
    )


def _facts(sheet: Sheet) -> list[tuple[str, str, str]]:
    counts, plan, estimator = sheet["n"], sheet["plan"], sheet["provenance"]["estimator"]
    more = f"{estimator['steps']} updates" if "steps" in estimator else "fitted"
    task = sheet["task"]
    return [
        ("Task", task["name"], task["kind"]),
        ("Estimator", estimator["name"], more),
        ("TEST", number(counts["TEST"]), "real, never learned from"),
        ("TRAIN", number(counts["TRAIN"]), "real, with a known target"),
        ("Synthetic", number(counts["synthetic"]), f"generators: {counts['generators']}"),
        ("Seeds", number(plan["seeds"]), f"resamples: {number(plan['resamples'])}"),
        ("Interesting", number(sheet["minimum"]), f"margin: {number(sheet['margin'])}"),
    ]


def _shown_measures(sheet: Sheet) -> list[Mapping[str, Any]]:
    """Measures of the whole; those of single structures are in the file."""
    return [measure for measure in sheet["measures"] if "/" not in measure["name"]]


def _columns(sheet: Sheet) -> list[str]:
    arrows = {"higher": "↑", "lower": "↓"}
    return [
        f"{words(m['label'])}{', ' + m['unit'] if m['unit'] else ''} {arrows[m['better']]}"
        for m in _shown_measures(sheet)
    ]


def _rows(sheet: Sheet, fraction: float) -> list[dict[str, Any]]:
    """Table of one fraction: arms, training cases, and each measure with its interval."""
    names = [measure["name"] for measure in _shown_measures(sheet)]
    return [
        {
            "arm": row["arm"],
            "tags": row["tags"],
            "num_real": number(row["num_real"]),
            "num_synthetic": number(row["num_synthetic"]),
            "cells": [
                {"value": number(m["value"]), "interval": interval(m["low"], m["high"])}
                for m in (row["measures"][name] for name in names)
            ],
        }
        for row in sheet["rows"]
        if row["fraction"] == fraction
    ]


def _mixed(sheet: Sheet) -> list[str]:
    """Names of the arms of real and synthetic cases, smallest alpha first."""
    return [f"R + {alpha:g} S" for alpha in sorted(sheet["plan"]["alphas"])]


def _ends(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Distances from a value to the ends of its interval."""
    if entry["value"] is None or entry["low"] is None or entry["high"] is None:
        return 0.0, 0.0
    return max(0.0, entry["value"] - entry["low"]), max(0.0, entry["high"] - entry["value"])


def learning_curves(sheet: Sheet) -> dict[str, Figure]:
    """Draw the deciding measure against real subjects: one panel for each alpha.

    Returns
    -------
    dict
        Arm -> panel with R (blue), R + augmentation (grey) and the arm (orange) with 95 %
        intervals, all panels on one axis. Hollow: LEAKY. Arms without results have no panel.
    """
    have = {row["arm"] for row in sheet["rows"]}
    panels, axes = {}, []
    for arm in (name for name in (*_mixed(sheet), "S only") if name in have):
        figure, own = panel(3.7, 2.5)
        for place, name in enumerate((_REAL, _AUGMENTED, arm)):
            _curve(own, sheet, name, (place - 1) * 0.02)
        own.set_xlabel("real TRAIN subjects", fontsize=8.5, color=PALETTE["muted"])
        panels[arm] = figure
        axes.append(own)
    if axes:
        limits = np.array([own.get_ylim() for own in axes])
        for own in axes:
            own.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    return panels


def _curve(axes: Axes, sheet: Sheet, arm: str, shift: float) -> None:
    """Draw one arm over the fractions, moved aside by a share of the axis."""
    name = sheet["measures"][0]["name"]
    colour = PALETTE[_COLOURS.get(arm, "synthetic")]
    total = sheet["n"]["TRAIN"]
    rows = [row for row in sheet["rows"] if row["arm"] == arm]
    rows = [row for row in rows if row["measures"][name]["value"] is not None]
    rows.sort(key=lambda row: row["fraction"])
    x = [total * (row["fraction"] + shift) for row in rows]
    values = [row["measures"][name]["value"] for row in rows]
    errors = np.array([_ends(row["measures"][name]) for row in rows]).T
    axes.plot(x, values, color=colour, linewidth=1.6)
    if len(rows):
        axes.errorbar(x, values, errors, fmt="none", ecolor=colour, elinewidth=1.1, capsize=2)
    for place, row in enumerate(rows):
        face = "none" if row["tags"] else colour
        axes.plot(x[place], values[place], "o", color=colour, markerfacecolor=face, markersize=5)
    axes.set_xticks([total * f for f in sorted(sheet["plan"]["fractions"])])
    axes.xaxis.set_major_formatter(lambda value, _: f"{round(value):,}")
    axes.set_xlim(0, total * 1.08)


def gain_forest(sheet: Sheet, fraction: float) -> Figure | None:
    """Draw the gains over R + augmentation and R duplicated at one fraction; None without any.

    The shaded band reaches from minus the margin to the smallest interesting gain.
    """
    name = sheet["measures"][0]["name"]
    gains = {
        (g["arm"], g["baseline"]): g
        for g in sheet["gains"]
        if g["measure"] == name and g["fraction"] == fraction and g["value"] is not None
    }
    arms = [a for a in (*_mixed(sheet), "S only") if (a, _AUGMENTED) in gains]
    if not arms:
        return None
    figure, axes = panel(5.2, 0.9 + 0.38 * len(arms))
    axes.axvspan(-sheet["margin"], sheet["minimum"], color=PALETTE["rule"], alpha=0.6, linewidth=0)
    axes.axvline(0, color=PALETTE["muted"], linewidth=0.8)
    for row, arm in enumerate(arms):
        for baseline, colour, move in ((_AUGMENTED, "train", -0.14), (_DUPLICATED, "hold", 0.14)):
            if gain := gains.get((arm, baseline)):
                error = np.array([_ends(gain)]).T
                axes.errorbar(
                    gain["value"],
                    row + move,
                    xerr=error,
                    fmt="o",
                    color=PALETTE[colour],
                    markersize=4.5,
                    elinewidth=1.6,
                )
    axes.set_yticks(range(len(arms)), arms)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.tick_params(axis="y", labelcolor=PALETTE["ink"], length=0)
    axes.grid(axis="y", visible=False)
    main = sheet["measures"][0]
    unit = f" ({main['unit']})" if main["unit"] else ""
    axes.set_xlabel(f"gain in {main['label']}{unit}", fontsize=8.5, color=PALETTE["muted"])
    return figure


def usefulness_summary(sheet: Sheet) -> Group:
    """Build what the terminal shows: a table of arms, the verdicts, and what cannot be shown.

    Parameters
    ----------
    sheet : content of ``utility.json``.
    """
    _check(sheet)
    table = Table(
        title=f"{escape(sheet['task']['name'])}: {sheet['n']['TEST']} TEST subjects, "
        f"{sheet['plan']['seeds']} seeds",
        title_justify="left",
        caption="95 % intervals over subjects and seeds",
        caption_justify="left",
    )
    table.add_column("TRAIN", justify="right")
    table.add_column("Arm")
    table.add_column("R | S", justify="right")
    first, *rest = _columns(sheet)
    for column in (first, "95 % interval", *rest):
        table.add_column(column, justify="right")
    for fraction in sorted(sheet["plan"]["fractions"], reverse=True):
        rows = _rows(sheet, fraction)
        for place, row in enumerate(rows):
            tag = " [yellow]LEAKY[/]" if row["tags"] else ""
            main, *others = row["cells"]
            table.add_row(
                f"{fraction:.0%}" if place == 0 else "",
                f"{escape(row['arm'])}{tag}",
                f"{row['num_real']} | {row['num_synthetic']}",
                f"[bold]{main['value']}[/]",
                main["interval"],
                *(cell["value"] for cell in others),
                end_section=place == len(rows) - 1,
            )
    return Group(table, _verdict_grid(sheet), f"\n{escape(sheet['summary'])}", _notes(sheet))


def _verdict_grid(sheet: Sheet) -> Table:
    grid = Table.grid(padding=(0, 2))
    for verdict in sheet["verdicts"]:
        style = _STYLES[verdict["decision"]]
        grid.add_row(f"[{style}]{verdict['decision']}[/]", escape(verdict["text"]))
    return grid


def _notes(sheet: Sheet) -> Table:
    """List leaks, limits and refused arms."""
    grid = Table.grid(padding=(0, 2))
    for leak in sheet["leaks"]:
        share = ", ".join(f"{fraction:.0%}" for fraction in leak["fractions"])
        grid.add_row("[yellow]LEAKY[/]", f"{share} of TRAIN: {escape(leak['text'])}")
    for text in sheet["limits"]:
        grid.add_row("[dim]limit[/]", f"[dim]{escape(text)}[/]")
    for text in _reasons(sheet["refused"]):
        grid.add_row("[yellow]left out[/]", f"[dim]{escape(text)}[/]")
    return grid


def _reasons(refused: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(f"{r['arm']} at {r['fraction']:.0%}: {r['reason']}" for r in refused))

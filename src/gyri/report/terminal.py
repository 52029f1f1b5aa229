"""The summary that the command line prints after an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from gyri.evaluation.selftest import SelfTest
from gyri.report.selftest import verdict
from gyri.report.text import interval, number, score_label, words
from gyri.report.verdict import is_open, leading_scores, lights, ordered_scores

_ANCHORS = {"ceiling": "Real ceiling", "pca_gaussian": "PCA-Gaussian", "noise": "Noise floor"}
_COLOURS = {"green": "green", "amber": "yellow", "red": "red"}
_ARROWS = {"lower": "↓", "higher": "↑", "near": "≈"}


def terminal_summary(scores: Mapping[str, Any]) -> Group:
    """Build the lights of the families, a table of the leading scores and one of the gates.

    Parameters
    ----------
    scores : the parsed scores file, schema ``gyri-scores-1``. All scores are shown when none
        leads.
    """
    counts = scores.get("n") or {}
    made, real = number(counts.get("generated")), number(counts.get("HOLD"))
    table = Table(
        title=f"{escape(str(scores.get('generated', 'Synthetic')))}: "
        f"{made} synthetic against {real} held-out",
        title_justify="left",
        caption="↓ lower, ↑ higher is better, ≈ best near the real ceiling or its target",
        caption_justify="left",
    )
    table.add_column("Score")
    for name in ("Value", "95 % interval", *_ANCHORS.values()):
        table.add_column(name, justify="right")
    for entry in leading_scores(scores) or ordered_scores(scores):
        anchors = entry.get("anchors") or {}
        label = escape(score_label(entry))
        doubt = " [yellow](unreliable)[/]" if entry.get("reliable") is False else ""
        table.add_row(
            f"{label} {_ARROWS.get(str(entry.get('better')), '')}{doubt}",
            f"[bold]{number(entry.get('value'))}[/]",
            interval(entry.get("low"), entry.get("high")),
            *(number(anchors.get(name)) for name in _ANCHORS),
        )
    families = Table.grid(padding=(0, 2))
    for family in lights(scores):
        colour = _COLOURS.get(str(family.get("light")), "dim")
        families.add_row(
            f"[{colour}]●[/] {escape(words(family.get('family')))}",
            escape(str(family.get("light"))),
            f"[dim]{escape(str(family.get('reason') or ''))}[/]",
        )
    gates = Table.grid(padding=(0, 2))
    for name, gate in (scores.get("gates") or {}).items():
        missed = "[yellow]open[/]" if is_open(gate) else "[red]FAIL[/]"
        passed = "[green]pass[/]" if gate.get("passed") else missed
        why = "" if gate.get("passed") else escape(str(gate.get("detail") or ""))
        gates.add_row(passed, escape(words(name)), f"[dim]{why}[/]")
    return Group(families, table, gates)


def self_test_summary(result: SelfTest) -> Group:
    """Build the verdict of a self-test and a table of the claims that failed."""
    table = Table.grid(padding=(0, 2))
    for response in result.responses:
        if response.holds is False:
            table.add_row(
                "[red]FAIL[/]",
                escape(response.key),
                f"under {words(response.corruption).lower()}",
                f"[dim]{', '.join(number(value) for value in response.values)}[/]",
            )
    return Group(escape(verdict(result)), table)

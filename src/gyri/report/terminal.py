"""The summary that the command line prints after an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from gyri.report.text import interval, number, score_label, words
from gyri.report.verdict import leading_scores, ordered_scores

_ANCHORS = {"ceiling": "Real ceiling", "pca_gaussian": "PCA-Gaussian", "noise": "Noise floor"}
_ARROWS = {"lower": "↓", "higher": "↑", "near": "≈"}


def terminal_summary(scores: Mapping[str, Any]) -> Group:
    """Build a table of the leading scores with interval and anchors, then one of the gates.

    Parameters
    ----------
    scores : the parsed scores file, schema ``gyri-scores-1``. All scores are shown when none
        leads.
    """
    counts = scores.get("n") or {}
    table = Table(
        title=f"{escape(str(scores.get('generated', 'Synthetic')))}: "
        f"{number(counts.get('generated'))} synthetic against {number(counts.get('HOLD'))} HOLD",
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
    gates = Table.grid(padding=(0, 2))
    for name, gate in (scores.get("gates") or {}).items():
        passed = "[green]pass[/]" if gate.get("passed") else "[red]FAIL[/]"
        why = "" if gate.get("passed") else escape(str(gate.get("detail") or ""))
        gates.add_row(passed, escape(words(name)), f"[dim]{why}[/]")
    return Group(table, gates)

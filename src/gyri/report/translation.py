"""What a translation did, as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SETS = {
    "originals": "originals",
    "translated": "translated",
    "real_target": "real {to}",
}


def translation_text(summary: Mapping[str, Any]) -> str:
    """Return the summary of a translation for the terminal.

    Parameters
    ----------
    summary : content of ``translation.json``.
    """
    column, to, sources = summary["column"], summary["to"], " or ".join(summary["from"])
    lines = [
        f"{summary['translated']} scans of {column}={sources} written as {column}={to}, "
        f"{len(summary['skipped'])} left out (listed in translation.json).",
        "They show real people: personal data like the scans themselves, not to be shared as "
        "synthetic.",
        *_classifier(summary["classifier"], column, to),
        f"{'tissue':12}{'before, ml':>18}{'change, ml':>28}{'change, %':>28}{'untouched, ml':>16}",
    ]
    for name, tissue in summary["tissue"].items():
        before = f"{tissue['original_ml']:.1f} (sd {tissue['original_sd_ml']:.1f})"
        ml, percent = _interval(tissue["change_ml"], ".1f"), _interval(tissue["change_percent"])
        untouched = f"{tissue['untouched_ml']:.1f}"
        lines.append(f"{name:12}{before:>18}{ml:>28}{percent:>28}{untouched:>16}")
    return "\n".join(lines)


def _classifier(found: Mapping[str, Any], column: str, to: str) -> list[str]:
    if "refusal" in found:
        return [f"No classifier of {column}: {found['refusal']}."]
    train = found["train"]
    lines = [
        f"Called {column}={to} by a classifier of {found['features']}, fitted on "
        f"{train['target']} + {train['others']} real TRAIN scans (balanced accuracy "
        f"{found['balanced_accuracy']:.2f} in {found['folds']} folds; at 0.5 it knows nothing):"
    ]
    for name, share in found["called_target"].items():
        told = SETS[name].format(to=to)
        lines.append(f"  {told:12} {_interval(share, '.2f')} of {share['n']}")
    return lines


def _interval(found: Mapping[str, float], form: str = ".2f") -> str:
    return f"{found['value']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"

from __future__ import annotations

import io
import math

from rich.console import Console

from gyri.report.terminal import terminal_summary


def rendered(scores) -> str:
    console = Console(file=io.StringIO(), width=140, color_system=None)
    console.print(terminal_summary(scores))
    return console.file.getvalue()


def test_leading_scores_and_gates_are_shown(scores):
    text = rendered(scores)
    assert "Coverage, spectrum-v1 ↑" in text
    assert "0.700 to 0.900" in text
    assert "Kernel distance" not in text  # does not lead
    assert "Slice coherence" in text
    assert "FAIL" in text
    assert "2 of 4" in text  # why
    assert "4 of 4" not in text


def test_lights_are_shown_with_their_reasons(scores):
    scores["families"] = [{"family": "privacy", "light": "red", "reason": "[b]copies of TRAIN"}]
    text = rendered(scores)
    assert text.index("● Privacy") < text.index("Coverage")
    assert "red" in text
    assert "[b]copies of TRAIN" in text


def test_all_scores_are_shown_when_none_leads_and_missing_values_are_dashes(scores):
    scores["lead"] = []
    scores["scores"][0].update(value=math.nan, low=None, reliable=False, label="[red]odd")
    text = rendered(scores)
    assert "[red]odd, spectrum-v1 ↓ (unreliable)" in text
    assert "–" in text


def test_an_almost_empty_file_is_no_error():
    assert "synthetic against" in rendered({"scores": []})

"""Page, figures and terminal summary of a study of usefulness."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gyri.report.usefulness import (
    gain_forest,
    learning_curves,
    usefulness_summary,
    write_usefulness,
)


def row(
    arm: str, fraction: float, value: float | None, tags: tuple[str, ...] = ()
) -> dict[str, Any]:
    ends = (
        {"low": None, "high": None} if value is None else {"low": value - 0.1, "high": value + 0.1}
    )
    return {
        "arm": arm,
        "fraction": fraction,
        "num_real": 150 * fraction,
        "num_synthetic": 0,
        "num_asked": 30,
        "measures": {"auroc": {"value": value, **ends}},
        "tags": list(tags),
        "leaks": [],
    }


def gain(arm: str, baseline: str, value: float) -> dict[str, Any]:
    ends = {"low": value - 0.05, "high": value + 0.05, "p_value": 0.1, "adjusted_p": 0.2}
    about = {"arm": arm, "baseline": baseline, "fraction": 1.0, "measure": "auroc"}
    return about | {"value": value} | ends


@pytest.fixture
def sheet() -> dict[str, Any]:
    arms = ("R", "R + augmentation", "R duplicated", "R + 1 S")
    return {
        "schema": "gyri-utility-1",
        "task": {"name": "sex", "kind": "classification", "source": "sex"},
        "measures": [{"name": "auroc", "label": "AUROC", "unit": "", "better": "higher"}],
        "minimum": 0.01,
        "margin": 0.01,
        "plan": {"fractions": [0.5, 1.0], "alphas": [2.0, 1.0], "seeds": 5, "resamples": 10000},
        "n": {"TRAIN": 150, "VAL": 22, "TEST": 30, "synthetic": 640, "generators": 1},
        "rows": [
            *[row(arm, 1.0, 0.7 + 0.02 * k) for k, arm in enumerate(arms)],
            row("R", 0.5, 0.6),
            row("R + 1 S", 0.5, 0.65, ("LEAKY",)),
            row("R + augmentation", 0.5, None),
        ],
        "gains": [
            gain("R + 1 S", "R + augmentation", 0.04),
            gain("R + 1 S", "R duplicated", 0.02),
        ],
        "verdicts": [
            {
                "arm": "R + 1 S",
                "fraction": 1.0,
                "decision": "not shown",
                "gains": [],
                "leaks": [],
                "text": "R + 1 S <b>: gain",
            }
        ],
        "leaks": [{"fractions": [0.5], "text": "The generator has seen more."}],
        "refused": [{"arm": "R + 2 S", "fraction": 1.0, "reason": "needs 300 synthetic cases"}],
        "half_width": 0.05,
        "summary": "Task: sex.",
        "limits": ["With 30 TEST subjects little is seen."],
        "rules": ["helps: the rule"],
        "provenance": {"estimator": {"name": "linear"}},
    }


def test_curves_show_every_arm_with_results_on_one_axis(sheet):
    curves = learning_curves(sheet)
    assert list(curves) == ["R + 1 S"]  # R + 2 S was refused
    sheet["rows"].append(row("S only", 1.0, 0.4))
    curves = learning_curves(sheet)
    limits = {figure.axes[0].get_ylim() for figure in curves.values()}
    assert len(limits) == 1
    assert limits.pop()[0] < 0.3
    ticks = curves["S only"].axes[0].get_xticks()
    assert list(ticks) == [75, 150]


def test_a_leaky_point_is_hollow(sheet):
    axes = learning_curves(sheet)["R + 1 S"].axes[0]
    faces = {
        (round(line.get_xdata()[0]), line.get_markerfacecolor())
        for line in axes.lines
        if line.get_marker() == "o"
    }
    assert any(x < 80 and face == "none" for x, face in faces)
    assert all(face != "none" for x, face in faces if x > 140)


def test_gains_are_drawn_where_there_are_any(sheet):
    figure = gain_forest(sheet, 1.0)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["R + 1 S"]
    assert gain_forest(sheet, 0.5) is None


def test_the_page_holds_verdicts_leaks_and_reasons_and_loads_nothing(sheet, tmp_path):
    page = write_usefulness(tmp_path / "page.html", sheet).read_text()
    for text in (
        "R + 1 S &lt;b&gt;: gain",
        "helps: the rule",
        "50 % of TRAIN: The generator has seen more.",
        "needs 300 synthetic cases",
        "With 30 TEST subjects little is seen.",
    ):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == 2


def test_the_terminal_says_the_same(sheet):
    console = Console(file=io.StringIO(), width=140, color_system=None)
    console.print(usefulness_summary(sheet))
    text = console.file.getvalue()
    for part in ("R + 1 S LEAKY", "0.600 to 0.800", "not shown", "seen more", "needs 300", "–"):
        assert part in text

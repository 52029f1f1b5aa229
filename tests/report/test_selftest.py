from __future__ import annotations

import io

import pytest
from rich.console import Console
from tests.report.test_page import Page

from gyri.evaluation.corruptions import CORRUPTIONS
from gyri.evaluation.scores import Refused
from gyri.evaluation.selftest import Response, SelfTest
from gyri.report.selftest import markdown, write_self_test
from gyri.report.terminal import self_test_summary

NAN = float("nan")


@pytest.fixture
def result() -> SelfTest:
    """The kernel distance sees blur, fails under noise and does not notice the others."""
    moves = {"blur": (1.0, 2, 3, 4, 5, 6), "noise": (1.0, 0, 3, 2, 1, 0)}
    responses = [
        Response(
            key="kid/morph-v1",
            metric="kid",
            features="morph-v1",
            label="kernel distance",
            better="lower",
            corruption=name,
            values=tuple(map(float, moves.get(name, (1,) * 6))),
            low=0.0,
            high=2.5,
            claimed="+" if name in moves else "",
        )
        for name in CORRUPTIONS
    ]
    n = {"TRAIN": 30, "HOLD": 20, "generated": 12}
    provenance = {"cohort": "<b>oasis</b>", "data_hash": "abc"}
    refused = [Refused("feature", "cortex-v1", "not at 8 mm")]
    return SelfTest(n, (8.0, 8.0, 8.0), 0, provenance, responses, refused)


def test_the_page_is_a_heat_map(result, tmp_path):
    path = write_self_test(result, tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"self-test.html", "self-test.md"}
    page = Page(path.read_text(encoding="utf-8"))
    cells = [c["class"] for c in page.all("td") if c.get("class", "").startswith("heat")]
    assert cells.count("heat worse") == 1
    assert cells.count("heat failed") == 1
    assert cells.count("heat blind") == len(CORRUPTIONS) - 2
    assert "1 of 2 claims hold on 12 real subjects" in page.text
    assert "from 2<" in page.text  # 3, the first value above 2.5
    assert "not at 8 mm" in page.text
    assert "dropped modes" in page.text  # what the metric says that it is blind to
    assert "<b>oasis" not in page.text
    assert not page.all("script")


def test_the_table_marks_claims(result):
    lines = markdown(result).splitlines()
    row = next(line for line in lines if line.startswith("| `kid/morph-v1`"))
    assert "**+1.00** (2) *" in row
    assert "−0.15 !" in row
    assert row.count("–") == len(CORRUPTIONS) - 2
    header = next(line for line in lines if line.startswith("| score"))
    assert row.count("|") == header.count("|")


def test_failed_claims_are_printed(result):
    console = Console(file=io.StringIO(), width=140, color_system=None)
    console.print(self_test_summary(result))
    text = console.file.getvalue()
    assert "kid/morph-v1" in text
    assert "under noise" in text
    assert "under blur" not in text

"""What the terminal says of a translation."""

from __future__ import annotations

from gyri.report.translation import translation_text

CHANGE = {"value": 1.25, "low": -0.5, "high": 3.0, "largest": 7.0}
SUMMARY = {
    "column": "scanner",
    "from": ["A", "C"],
    "to": "B",
    "translated": 12,
    "skipped": {"x": "is scanner=B already"},
    "tissue": {
        "gm": {
            "original_ml": 612.34,
            "original_sd_ml": 40.0,
            "change_ml": CHANGE,
            "change_percent": CHANGE,
            "untouched_ml": -3.25,
        }
    },
}
SHARE = {"value": 0.75, "low": 0.4, "high": 0.9, "n": 12}


def text(classifier: dict) -> list[str]:
    return translation_text({**SUMMARY, "classifier": classifier}).splitlines()


def test_shares_and_changes_have_their_intervals():
    lines = text(
        {
            "features": "radiomics-v1",
            "train": {"target": 20, "others": 30},
            "folds": 5,
            "balanced_accuracy": 0.91,
            "called_target": {"originals": SHARE, "translated": SHARE, "real_target": SHARE},
        }
    )
    assert lines[0].startswith("12 scans of scanner=A or C written as scanner=B, 1 left out")
    assert "20 + 30 real TRAIN scans (balanced accuracy 0.91 in 5 folds" in lines[2]
    assert [line.split("0.75")[0].strip() for line in lines[3:6]] == [
        "originals", "translated", "real B",
    ]  # fmt: skip
    assert all(line.endswith("0.75 [0.40, 0.90] of 12") for line in lines[3:6])
    assert lines[-1].split() == [
        "gm", "612.3", "(sd", "40.0)", "1.2", "[-0.5,", "3.0]", "1.25", "[-0.50,", "3.00]", "-3.2",
    ]  # fmt: skip


def test_without_a_classifier_the_reason_is_said():
    assert text({"refusal": "TRAIN has few scans"})[2] == (
        "No classifier of scanner: TRAIN has few scans."
    )

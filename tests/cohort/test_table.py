from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gyri.cohort.table import (
    CONVENTIONAL,
    Cohort,
    ColumnType,
    bids_label,
    cell,
    infer_columns,
    snake_case,
    typed,
)
from gyri.errors import DataError, UsageError


def cohort(tmp_path: Path, subjects: pd.DataFrame, owners: list[str]) -> Cohort:
    path = tmp_path / "scan.nii.gz"
    path.touch()
    rows = [(owner, "", "T1w", str(path)) for owner in owners]
    scans = pd.DataFrame(rows, columns=["subject", "session", "modality", "path"])
    return Cohort("test", tmp_path, subjects, infer_columns(subjects), scans)


def table(labels: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"age": [50.0] * len(labels)}, index=labels)


def test_a_consistent_cohort_passes(tmp_path: Path) -> None:
    cohort(tmp_path, table(["A", "B"]), ["A", "B"]).check()


def test_disagreement_is_listed_in_both_directions(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        cohort(tmp_path, table(["A", "B"]), ["B", "C"]).check()
    assert "1 subjects have no scan: A" in str(error.value)
    assert "scans of 1 subjects have no row: C" in str(error.value)


def test_no_subjects(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no subjects"):
        cohort(tmp_path, table([]), []).check()


@pytest.mark.parametrize("label", ["../../x", "a\x00b", "x" * 65, "", "a b", "sub_1"])
def test_unsafe_labels_are_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(DataError, match="cannot be subject labels"):
        cohort(tmp_path, table([label]), [label]).check()


def test_doubled_subjects_and_scans(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="subjects listed more than once: A.*scans listed more"):
        cohort(tmp_path, table(["A", "A"]), ["A", "A"]).check()


def test_columns_and_types_must_match(tmp_path: Path) -> None:
    wrong = cohort(tmp_path, table(["A"]), ["A"])
    wrong.columns = {"sex": CONVENTIONAL["sex"]}
    with pytest.raises(DataError, match="without a type: age.*does not have: sex"):
        wrong.check()


def test_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'agee'. Did you mean 'age'"):
        cohort(tmp_path, table(["A"]), ["A"]).column("agee")


def test_ages_outside_a_life_are_refused(tmp_path: Path) -> None:
    wrong = table(["A", "B", "C"])
    wrong["age"] = [999.0, -1.0, 40.0]
    with pytest.raises(DataError, match="ages outside 0-120 years for A, B"):
        cohort(tmp_path, wrong, ["A", "B", "C"]).check()


def test_a_vanished_scan_is_refused(tmp_path: Path) -> None:
    gone = cohort(tmp_path, table(["A"]), ["A"])
    (tmp_path / "scan.nii.gz").unlink()
    with pytest.raises(DataError, match="do not exist"):
        gone.check()


def test_typed_casts_and_keeps_missing() -> None:
    raw = pd.DataFrame({"age": ["61,5", "n/a"], "cdr": ["0.50", ""]}, index=["A", "B"])
    out = typed(raw, {name: CONVENTIONAL[name] for name in ("age", "cdr")})
    assert out["age"].tolist()[0] == 61.5
    assert np.isnan(out["age"]["B"])
    assert out["cdr"].tolist() == ["0.5", None]


def test_text_in_a_number_column_names_the_subject() -> None:
    raw = pd.DataFrame({"age": ["45y"]}, index=["A"])
    with pytest.raises(DataError, match="'age' should hold numbers, but has A: '45y'"):
        typed(raw, {"age": CONVENTIONAL["age"]})


def test_an_undeclared_level_is_refused() -> None:
    raw = pd.DataFrame({"sex": ["X"]}, index=["A"])
    with pytest.raises(DataError, match=r"levels that are not declared: A: 'X'.*F, M, O"):
        typed(raw, {"sex": CONVENTIONAL["sex"]})


def test_columns_are_inferred() -> None:
    raw = pd.DataFrame({"iq": ["100", "n/a"], "city": ["Bern", "7"], "age": ["3", "4"]})
    kinds = {name: column.kind for name, column in infer_columns(raw).items()}
    assert kinds == {"iq": "continuous", "city": "categorical", "age": "continuous"}
    assert infer_columns(raw)["age"].unit == "year"


def test_names_and_labels() -> None:
    headings = ["M/F", "ICD-10", "Subject ID", "HADS-anx", "\ufeffID"]
    assert [snake_case(h) for h in headings] == ["m_f", "icd_10", "subject_id", "hads_anx", "id"]
    assert bids_label("OAS1_0001") == "OAS10001"
    for bad in ("../x", "a/b", "x" * 65, "", "a\x00"):
        with pytest.raises(DataError):
            bids_label(bad)


def test_cells_are_safe_for_sheets() -> None:
    assert cell(None) == cell(float("nan")) == "n/a"
    assert cell(74.0) == "74"
    assert cell(-1.5) == "-1.5"
    assert cell("=cmd()") == "'=cmd()"
    assert cell("-2") == "-2"
    assert cell("a\tb") == "a b"


def test_a_session_knows_better_than_the_subject(tmp_path: Path) -> None:
    both = cohort(tmp_path, table(["A"]), ["A"])
    both.columns["etiv"] = ColumnType(kind="continuous")
    both.sessions = pd.DataFrame(
        {"subject": ["A", "A"], "session": ["1", "2"], "age": [50.0, 52.0], "etiv": [1.0, np.nan]}
    )
    assert both.covariates("A", "1") == {"age": 50.0, "etiv": 1.0}
    assert both.covariates("A", "2") == {"age": 52.0}

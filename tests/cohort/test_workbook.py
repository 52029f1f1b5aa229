from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gyri.cohort.workbook import find_table, read_table
from gyri.errors import DataError


def test_a_workbook_reads_as_its_csv(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "ID": ["a", "b", None],
            "Age": [71, None, None],
            "nWBV": [0.7, 0.65, None],
            "Sex": ["M", "F", None],
        }
    )
    table.to_excel(tmp_path / "t.xlsx", index=False)
    (tmp_path / "t.csv").write_text("ID,Age,nWBV,Sex\na,71,0.7,M\nb,,0.65,F\n")
    assert read_table(tmp_path / "t.xlsx").equals(read_table(tmp_path / "t.csv"))
    (tmp_path / "bad.xlsx").write_bytes(b"no workbook")
    with pytest.raises(DataError, match="no readable workbook"):
        read_table(tmp_path / "bad.xlsx")


def test_find_table(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x_people.csv").write_text("a\n1\n")
    (tmp_path / "x_people.xlsx").write_bytes(b"")
    (tmp_path / "x_people_reliability.csv").write_text("a\n1\n")
    found = find_table(tmp_path, "x_people*", "x_people.csv", ignore="*reliability*")
    assert found == tmp_path / "deep" / "x_people.csv"
    with pytest.raises(DataError, match="holds 2 tables like x_people.csv"):
        find_table(tmp_path, "x_people*", "x_people.csv")
    with pytest.raises(DataError, match="holds 0 tables"):
        find_table(tmp_path, "y*", "y.csv")


def test_other_files_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a table that ends in"):
        read_table(tmp_path / "t.pdf")
    with pytest.raises(DataError, match="no such table"):
        read_table(tmp_path / "t.csv")

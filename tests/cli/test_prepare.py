"""`gyri prepare`: its options, exit codes and pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cohort.small import small_cohort

from gyri.cli import main
from gyri.cohort.prepared import MANIFEST, PreparedCohort

GRID = ["--spacing", "8", "--shape", "20", "24", "20", "--jobs", "1"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return small_cohort(tmp_path / "raw", 5).root


def run(raw: Path, out: Path, *options: str) -> int:
    return main(["prepare", str(raw), str(out), *options])


def test_a_pipeline_file_takes_the_place_of_the_options(raw: Path, tmp_path: Path, capsys) -> None:
    steps = tmp_path / "steps.yaml"
    steps.write_text("- reorient\n- {name: crop, shape: [20, 24, 20]}\n- intensity\n")
    assert run(raw, tmp_path / "one", "--steps", str(steps), "--jobs", "1") == 0
    assert run(raw, tmp_path / "two", *GRID) == 0
    hashes = {PreparedCohort.read(tmp_path / name).data_hash for name in ("one", "two")}
    assert len(hashes) == 1
    assert run(raw, tmp_path / "no", "--steps", str(steps), "--spacing", "2", "--mask") == 2
    assert "spacing_mm and mask came together with steps" in capsys.readouterr().err
    steps.write_text("- reorient\n- {name: crop, shapes: [20, 24, 20]}\n")
    assert run(raw, tmp_path / "no", "--steps", str(steps)) == 2
    assert "step 2.shapes: there is no such key. Did you mean 'shape'" in capsys.readouterr().err


def test_mask_and_register_are_flags(raw: Path, tmp_path: Path, capsys) -> None:
    assert run(raw, tmp_path / "out", *GRID, "--no-mask", "--no-register") == 0
    steps = PreparedCohort.read(tmp_path / "out").manifest["preparation"]["steps"]
    assert [s["step"] for s in steps] == ["reorient", "resample", "crop", "intensity"]
    assert run(raw, tmp_path / "masked", *GRID, "--mask", "--no-register") == 0
    steps = PreparedCohort.read(tmp_path / "masked").manifest["preparation"]["steps"]
    assert steps[1]["step"] == "brain_mask"
    assert run(raw, tmp_path / "both", "--mask", "--no-mask") == 2
    assert "--mask and --no-mask came together" in capsys.readouterr().err


def test_too_many_bad_scans_exit_with_65_and_the_rest_is_there(
    raw: Path, tmp_path: Path, capsys
) -> None:
    for subject in ("S001", "S003"):
        (raw / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz").write_bytes(b"<html>")
    assert run(raw, tmp_path / "out", *GRID) == 65
    assert "--max-bad 2" in capsys.readouterr().err
    assert (tmp_path / "out" / MANIFEST).is_file()
    assert len(PreparedCohort.read(tmp_path / "out").table) == 3
    assert run(raw, tmp_path / "out", *GRID, "--max-bad", "1") == 65
    assert run(raw, tmp_path / "out", *GRID, "--max-bad", "2") == 0


def test_a_preview_pictures_and_prepares_nothing(raw: Path, tmp_path: Path, capsys) -> None:
    assert run(raw, tmp_path / "out", *GRID, "--preview", "2") == 0
    pictures = capsys.readouterr().out.split()
    assert [Path(p).name for p in pictures] == ["sub-S000.png", "sub-S004.png"]
    assert all(Path(p).read_bytes().startswith(b"\x89PNG") for p in pictures)
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert run(raw, tmp_path / "out", *GRID) == 0
    assert "preview" in (tmp_path / "out" / ".bidsignore").read_text().split()

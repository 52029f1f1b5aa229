from __future__ import annotations

from pathlib import Path

import pytest

from gyri.errors import DataError, UsageError
from gyri.prepare.crop import CropConfig
from gyri.prepare.defaults import default_steps
from gyri.prepare.steps import intensity_range, load_steps, parse_steps, plain, recorded

SHIPPED = sorted((Path(__file__).parents[2] / "recipes" / "prepare").glob("*.yaml"))


def test_a_file_is_read_in_order_with_typed_settings(tmp_path: Path) -> None:
    path = tmp_path / "steps.yaml"
    path.write_text(
        "- reorient\n- {name: resample, spacing_mm: 2}\n- {name: crop, shape: [8, 9, 8]}"
    )
    steps = load_steps(path)
    assert list(steps) == ["reorient", "resample", "crop"]
    assert steps["resample"].spacing_mm == 2.0
    assert steps["crop"] == CropConfig(shape=(8, 9, 8))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (["reorient", "crops"], "step 2: There is no step 'crops'. Did you mean 'crop'"),
        ([{"name": "crop", "shap": [1, 1, 1]}], "step 1.shap: .*Did you mean 'shape'"),
        ([{"name": "crop", "shape": [1, 1]}], "step 1.shape.2: Field required"),
        ([{"name": "resample", "spacing_mm": "two"}], "step 1.spacing_mm.*got 'two'"),
        ([{"name": "resample", "spacing_mm": 99}], "expected 0.1 to 16 mm"),
        ([{"crop": {"shape": [1, 1, 1]}}], "step 1: expected a mapping with a 'name'"),
        (["reorient", "reorient"], "step 2: 'reorient' comes a second time"),
        ({"reorient": None}, "a list of steps"),
        ([], "a list of steps"),
        ("reorient", "a list of steps"),
        (None, "a list of steps"),
    ],
)
def test_wrong_steps_and_settings_name_the_place_and_the_right_one(sections, message) -> None:
    with pytest.raises(UsageError, match=message):
        parse_steps(sections)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pipeline"):
        load_steps(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("- [")
    with pytest.raises(DataError, match="bad.yaml is no valid YAML"):
        load_steps(path)
    path.write_text("- crops")
    with pytest.raises(UsageError, match=r"bad.yaml: step 1: .*'crops'"):
        load_steps(path)


def test_records_are_read_back() -> None:
    steps = default_steps(4.0, whole_heads=True)
    assert recorded(plain(steps)) == steps
    older = [{k: v for k, v in entry.items() if k != "output_range"} for entry in plain(steps)]
    assert recorded(older) == steps


def test_the_range_is_that_of_the_intensity_step() -> None:
    assert intensity_range(parse_steps(["intensity"])) == (0, 1)
    chosen = parse_steps([{"name": "intensity", "output_range": [-1, 1]}, "central_slices"])
    assert intensity_range(chosen) == (-1, 1)
    with pytest.raises(UsageError, match=r"the steps are reorient, crop. Add the step intensity"):
        intensity_range(parse_steps(["reorient", "crop"]))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_pipelines_are_right(path: Path) -> None:
    steps = load_steps(path)
    assert next(iter(steps)) == "reorient"
    low, high = intensity_range(steps)
    assert low < high


def test_there_are_shipped_pipelines() -> None:
    assert len(SHIPPED) >= 5

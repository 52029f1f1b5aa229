"""`gyri styles`: from a run to the page, with labels and without."""

from __future__ import annotations

import json

import pytest
from tests.contracts.tiny import recipe

from gyri import api
from gyri.cli import main
from gyri.cohort.prepared import PreparedCohort
from gyri.recipe import parse_recipe
from gyri.training.run import train


@pytest.fixture(scope="module")
def tumours(tmp_path_factory) -> PreparedCohort:
    """Five phantoms with tumours at 8 mm, T1w and segmentation."""
    root = tmp_path_factory.mktemp("tumours")
    api.import_cohort("phantom", None, root / "raw", num_subjects=5, spacing_mm=8.0, tumours=1.0)
    return api.prepare(
        root / "raw",
        root / "prepared",
        spacing_mm=8.0,
        channels=("T1w", "tumour"),
        sizes={"TRAIN": 3, "VAL": 0, "HOLD": 2, "TEST": 0},
        jobs=1,
    )


def test_a_page_of_a_run_that_makes_labels(tumours, tmp_path, capsys):
    small = {"widths": [16, 8], "mapping_layers": 2}
    made = parse_recipe(
        {
            "name": "tiny-labels",
            "view": "slice",
            "data": {"channels": ["tumour", "T1w"]},
            "method": {"name": "stylegan2", "latent_size": 8},
            "networks": {
                "generator": {**small, "w_size": 8},
                "discriminator": {**small, "stddev_group": 1},
            },
            "training": {"steps": 2, "batch_size": 2},
        }
    )
    run = train(made, tumours.root, tmp_path / "run", quiet=True)
    page = tmp_path / "page.html"
    command = ["styles", str(run.root), str(tumours.root), "--out", str(page), "--num", "2"]
    assert main([*command, "--subjects", "1", "--iterations", "3", "--samples", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text()
    assert "tumour, label 1" in text
    assert "Personal data" in text
    assert 'src="http' not in text
    found = json.loads(page.with_suffix(".json").read_text())
    assert found["refusal"] == ""
    (projected,) = found["projections"]
    assert projected["subject"] in text
    assert set(projected["scores"]) == {"mean styles", "projection"}
    num_labels = tumours.channels[1].num_labels
    assert {entry["number"] for entry in found["dissection"]} <= set(range(1, num_labels))
    for entry in found["dissection"]:
        assert entry["label"] == "tumour"
        assert [len(stage["iou"]) for stage in entry["stages"]] == [16, 8]
        assert entry["ablation"]["before"] > 0
    # One walk and one crossover, the scan, and a picture for each label.
    assert text.count("data:image/png") == 3 + len(found["dissection"])


def test_a_page_without_cohort_and_labels_says_what_is_missing(tiny_cohort, tmp_path, capsys):
    made = recipe("stylegan2", steps=2)
    run = train(made, tiny_cohort, tmp_path / "run", quiet=True)
    assert main(["styles", str(run.root), "--num", "2", "--condition", "age=70", "sex=F"]) == 0
    text = (run.root / "styles.html").read_text()
    assert "No cohort was given" in text
    assert "The model makes T1w and no label" in text
    assert "Personal data" not in text
    # Both samples have the same conditions: one walk, and the one crossover of two stages.
    assert text.count("data:image/png") == 2
    assert main(["styles", str(run.root), "--num", "1"]) == 2
    assert "at least 2 samples" in capsys.readouterr().err

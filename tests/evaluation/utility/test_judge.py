"""The whole path, from folders to a sheet and a page, by the command line."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from tests.evaluation.utility.folders import write_samples

from gyri import api
from gyri.cli import main
from gyri.cohort.prepared import PreparedCohort
from gyri.errors import DataError, UsageError
from gyri.report.usefulness import usefulness_summary, write_usefulness


@pytest.fixture(scope="module")
def samples(tiny_cohort, tmp_path_factory):
    cohort = PreparedCohort.read(tiny_cohort)
    return write_samples(tmp_path_factory.mktemp("utility") / "samples", cohort, 12, seed=5)


def command(samples, cohort, *more: str) -> int:
    quick = ["--seeds", "2", "--bootstrap", "200", "--test", "TEST", "HOLD"]
    return main(["utility", str(samples), "--against", str(cohort), *quick, *more])


def test_a_study_by_the_command_line(samples, tiny_cohort, capsys):
    options = ["--task", "age", "--fractions", "0.5", "1", "--alphas", "0.5", "1"]
    assert command(samples, tiny_cohort, *options) == 0
    folder = samples / "evaluation" / "utility" / "age-linear"
    sheet = json.loads((folder / "utility.json").read_text())
    assert sheet["n"]["TEST"] == 5
    assert {r["fraction"] for r in sheet["rows"]} == {0.5, 1.0}
    assert len((folder / "cells.jsonl").read_text().split("\n")) == 1 + 2 * 2 * 7
    out = " ".join(capsys.readouterr().out.split())
    assert sheet["summary"] in out
    assert "LEAKY" in out
    page = (folder / "utility.html").read_text()
    assert page.count("<svg") == 5  # three curves, two forests
    assert "src=" not in page
    assert "Train a generator on this fraction alone" in page


def test_a_segmentation(samples, tiny_cohort, tmp_path):
    sheet, folder = api.utility(
        samples,
        tiny_cohort,
        "tissue",
        fractions=(1.0,),
        alphas=(1.0,),
        seeds=1,
        steps=2,
        bootstrap=100,
        test=("HOLD",),
        out=tmp_path,
    )
    assert (folder / "utility.html").is_file()
    assert "dice/WM" in sheet["rows"][0]["measures"]
    assert any("segmenter" in text for text in sheet["limits"])
    assert any("claims need five" in text for text in sheet["limits"])


def test_a_fraction_with_its_own_generator_is_clean(samples, tiny_cohort, tmp_path):
    half = api.utility_fraction(tiny_cohort, tmp_path / "half", "age", 0.5)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"data": str(half.root)}))
    own = write_samples(tmp_path / "own", half, 6, seed=6, run=run)
    common = {"fractions": (0.5,), "alphas": (1.0,), "seeds": 1, "bootstrap": 100}
    common |= {"test": ("HOLD",), "out": tmp_path / "out"}
    sheet, _ = api.utility(samples, tiny_cohort, "age", synthetic_for={0.5: [own]}, **common)
    assert not any(r["tags"] for r in sheet["rows"])
    sheet, _ = api.utility(samples, tiny_cohort, "age", **common)
    assert any(r["tags"] for r in sheet["rows"])
    with pytest.raises(UsageError, match="generator saw 4 of them"):
        api.utility(samples, tiny_cohort, "age", synthetic_for={0.25: [own]}, **common)


def test_test_subjects_of_the_generator_are_refused(samples, tiny_cohort, tmp_path):
    # The same people, dealt anew: the generator's TRAIN reaches into the other HOLD.
    raw = tiny_cohort.parent / "raw"
    sizes = {"TRAIN": 6, "VAL": 2, "HOLD": 4, "TEST": 2}
    other = api.prepare(raw, tmp_path / "other", spacing_mm=8.0, sizes=sizes, seed=7, jobs=1)
    with pytest.raises(UsageError, match="LEAKY"):
        api.utility(samples, tiny_cohort, "age", test_cohort=other.root, test=("HOLD", "TRAIN"))


def test_mistakes_say_what_to_do(samples, tiny_cohort, capsys):
    assert command(samples, tiny_cohort, "--task", "agee") == 2
    assert "Did you mean 'age'" in capsys.readouterr().err
    assert command(samples, tiny_cohort, "--task", "age", "--balance", "smote") == 2
    assert "only classes can be balanced" in capsys.readouterr().err
    assert command(samples, tiny_cohort, "--task", "age", "--synthetic-for", "0.5") == 2
    assert "FRACTION=FOLDER" in capsys.readouterr().err
    assert main(["utility", str(samples), "--against", str(samples), "--task", "age"]) == 65
    arguments = ["--task", "age", "--test", "TRAIN"]
    assert main(["utility", str(samples), "--against", str(tiny_cohort), *arguments]) == 2


def test_a_sheet_of_another_schema_is_refused(tmp_path):
    with pytest.raises(DataError, match="gyri-utility-1"):
        write_usefulness(tmp_path / "a.html", {"schema": "other"})
    with pytest.raises(DataError, match="gyri-utility-1"):
        Console(file=io.StringIO()).print(usefulness_summary({"schema": "other"}))

"""Whole studies: random labels, copies, leaks, and a grid that goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.utility.conftest import SEX, as_generated, blobs

from gyri.errors import UsageError
from gyri.evaluation.utility.arms import AUGMENTED, REAL, mixed
from gyri.evaluation.utility.estimators import Place, build_estimator
from gyri.evaluation.utility.sheet import build_sheet
from gyri.evaluation.utility.study import Cell, Plan, Study
from gyri.evaluation.utility.tasks import Cases

TRAIN, TEST = blobs(60, 0, "train"), blobs(40, 1, "test")
NAMES = frozenset(TRAIN.subjects)


def finished(study: Study) -> dict:
    study.run()
    return build_sheet(study, {})


def row(sheet: dict, arm: str, fraction: float = 1.0) -> dict:
    return next(r for r in sheet["rows"] if (r["arm"], r["fraction"]) == (arm, fraction))


def gain(sheet: dict, arm: str, baseline: str) -> dict:
    return next(
        g
        for g in sheet["gains"]
        if (g["arm"], g["baseline"], g["measure"]) == (arm, baseline, "auroc")
    )


def test_random_labels_split_by_subject_are_not_predicted(make_study):
    train, test = blobs(60, 0, "train", strength=0), blobs(60, 1, "test", strength=0)
    synthetic = as_generated(blobs(60, 2, "syn", strength=0), NAMES)
    sheet = finished(make_study(train, test, synthetic))
    for arm in ("R", "R + 1 S", "S only"):
        found = row(sheet, arm)["measures"]["auroc"]
        assert found["low"] < 0.5 < found["high"]
    assert {v["decision"] for v in sheet["verdicts"]} <= {"not shown", "no harm"}
    assert any("the same answer for everybody" in text for text in sheet["limits"])


def slices(cases: Cases) -> Cases:
    """Return four cases a person, each the person's volume with a little noise of its own."""
    rows = np.repeat(np.arange(len(cases)), 4)
    rng = np.random.default_rng(5)
    many = cases.take(rows)
    noise = 0.01 * rng.standard_normal(many.volumes.shape).astype(np.float32)
    return replace(many, volumes=many.volumes + noise)


def test_a_split_by_slice_is_refused_or_tagged(make_study):
    everyone = slices(blobs(40, 0, "person", strength=0))
    order = np.random.default_rng(0).permutation(len(everyone))
    train, test = everyone.take(order[:120]), everyone.take(order[120:])
    synthetic = as_generated(blobs(120, 2, "syn", strength=0), NAMES)
    with pytest.raises(UsageError, match=r"people are in the training set .* and in the test set"):
        make_study(train, test, synthetic)
    sheet = finished(make_study(train, test, synthetic, allow_leaks=True))
    # Random labels, and yet: this is what the tag warns of.
    assert row(sheet, "R")["measures"]["auroc"]["low"] > 0.9
    assert all(r["tags"] == ["LEAKY"] for r in sheet["rows"])


def test_equal_voxels_under_two_names_are_a_leak(make_study):
    test = replace(TEST, volumes=TEST.volumes.copy())
    test.volumes[3] = TRAIN.volumes[7]
    with pytest.raises(UsageError, match=r"exactly the voxels.*test3"):
        make_study(TRAIN, test, as_generated(blobs(60, 2, "syn"), NAMES))


def test_a_generator_that_knows_test_subjects_is_a_leak(make_study):
    synthetic = as_generated(blobs(60, 2, "syn"), NAMES | {"test3"})
    with pytest.raises(UsageError, match="trained on 1 of the 40 test subjects"):
        make_study(TRAIN, TEST, synthetic)
    unknown = as_generated(blobs(60, 2, "syn"), None)
    with pytest.raises(UsageError, match="cannot be found out"):
        make_study(TRAIN, TEST, unknown)
    sheet = finished(make_study(TRAIN, TEST, unknown, allow_leaks=True))
    assert row(sheet, "R + 1 S")["tags"] == ["LEAKY"]
    assert row(sheet, "R")["tags"] == []


def test_copies_of_real_cases_gain_nothing(make_study):
    copies = replace(TRAIN, subjects=tuple(f"syn{k}" for k in range(len(TRAIN))))
    sheet = finished(make_study(TRAIN, TEST, as_generated(copies, NAMES)))
    for baseline in ("R", "R duplicated"):
        found = gain(sheet, "R + 1 S", baseline)
        assert found["low"] <= 0 <= found["high"]
    assert sheet["verdicts"][0]["decision"] != "helps"


def test_useful_cases_help_and_useless_ones_do_not(make_study):
    train, test = blobs(12, 0, "train", strength=0.1), blobs(120, 1, "test", strength=0.1)
    names = frozenset(train.subjects)
    plan = Plan(fractions=(1.0,), alphas=(20.0,), seeds=2, resamples=500)
    good = as_generated(blobs(240, 2, "syn", strength=0.1), names)
    sheet = finished(make_study(train, test, good, plan))
    assert sheet["verdicts"][0]["decision"] == "helps"
    assert not any("the same answer for everybody" in text for text in sheet["limits"])
    assert "helps: R + 20 S" in sheet["summary"]
    wrong = replace(good, cases=replace(good.cases, target=1 - good.cases.target))
    sheet = finished(make_study(train, test, wrong, plan))
    assert sheet["verdicts"][0]["decision"] == "not shown"
    assert "it hurts" in sheet["verdicts"][0]["text"]


def test_augmentation_that_harms_is_named_as_no_hurdle(make_study):
    # Mirroring tears the class's corner from its place.
    train, test = blobs(60, 0, "train", strength=0.1), blobs(200, 1, "test", strength=0.1)
    synthetic = as_generated(blobs(60, 2, "syn", strength=0.1), frozenset(train.subjects))
    sheet = finished(make_study(train, test, synthetic))
    assert gain(sheet, "R + augmentation", "R")["high"] < 0
    assert any("no hurdle" in text for text in sheet["limits"])


def test_fractions_leak_unless_the_generator_saw_no_more(make_study):
    synthetic = as_generated(blobs(60, 2, "syn"), NAMES, "all")
    plan = Plan(fractions=(0.25, 1.0), alphas=(1.0,), seeds=2, resamples=200)
    study = make_study(TRAIN, TEST, synthetic, plan)
    sheet = finished(study)
    assert row(sheet, "R", 0.25)["num_real"] == 15
    assert row(sheet, "R", 0.25)["tags"] == row(sheet, "R + 1 S", 1.0)["tags"] == []
    assert row(sheet, "R + 1 S", 0.25)["tags"] == ["LEAKY"]
    assert "seen 60 TRAIN subjects, this arm is given 15" in sheet["leaks"][0]["text"]

    quarter = frozenset(TRAIN.subjects[::4])
    own = as_generated(blobs(30, 3, "few"), quarter, "quarter")
    study = make_study(TRAIN, TEST, synthetic, plan, by={0.25: (own,)})
    sheet = finished(study)
    assert row(sheet, "R + 1 S", 0.25)["tags"] == []
    assert sheet["leaks"] == []
    assert study.results[Cell(REAL, 0.25, 0)].num_real == len(quarter)


def test_what_cannot_be_done_is_left_out_with_its_reason(make_study):
    plan = Plan(fractions=(1.0,), alphas=(1.0, 4.0), seeds=2, resamples=200)
    sheet = finished(make_study(TRAIN, TEST, as_generated(blobs(60, 2, "syn"), NAMES), plan))
    assert [r["arm"] for r in sheet["refused"]] == ["R + 4 S"]
    assert "needs 240" in sheet["refused"][0]["reason"]
    assert [v["arm"] for v in sheet["verdicts"]] == ["R + 1 S"]
    nobody = as_generated(TRAIN.take(np.arange(0)), NAMES)
    sheet = finished(make_study(TRAIN, TEST, nobody, plan))
    assert "conditioned" in sheet["refused"][0]["reason"]
    assert sheet["verdicts"] == []


class Counting:
    """The linear estimator, counting how often it is trained."""

    def __init__(self) -> None:
        self.inner = build_estimator("linear", SEX, Place())[1]
        self.settings = self.inner.settings
        self.count = 0

    def answer(self, *args):
        self.count += 1
        return self.inner.answer(*args)


def test_finished_cells_are_not_done_again_unless_something_changed(make_study, tmp_path):
    path = tmp_path / "cells.jsonl"
    synthetic = as_generated(blobs(60, 2, "syn"), NAMES)

    def run(train=TRAIN, generated=synthetic) -> tuple[dict, int]:
        counting = Counting()
        study = make_study(train, TEST, generated, ledger=path, estimator=counting)
        return finished(study), counting.count

    first, count = run()
    assert count == 12  # six arms, two seeds
    again, count = run()
    assert (count, again) == (0, first)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:50])  # the last write was cut
    again, count = run()
    assert (count, again) == (1, first)
    # Other synthetic cases: the real arms stand.
    _, count = run(generated=as_generated(blobs(60, 7, "syn"), NAMES))
    assert count == 6
    _, count = run(train=blobs(60, 8, "train"))
    assert count == 12


def test_seeds_take_generators_in_turn(make_study):
    one, two = (as_generated(blobs(60, s, f"g{s}-"), NAMES, f"g{s}") for s in (2, 3))
    study = make_study(TRAIN, TEST, one)
    study.material = replace(study.material, generated=(one, two))
    study._digests["g3"] = two.cases.digest()
    sources = [study._source(Cell(mixed(1.0), 1.0, seed))[0].folder for seed in range(3)]
    assert sources == ["g2", "g3", "g2"]


def test_a_sheet_is_strict_json_and_repeats(make_study):
    synthetic = as_generated(blobs(60, 2, "syn"), NAMES)
    sheets = [finished(make_study(TRAIN, TEST, synthetic)) for _ in range(2)]
    texts = [json.dumps(sheet, allow_nan=False) for sheet in sheets]
    assert texts[0] == texts[1]
    assert row(sheets[0], AUGMENTED.name)["num_real"] == 60


@pytest.mark.parametrize(
    "wrong", [{"fractions": (0.0,)}, {"fractions": (1.5,)}, {"alphas": ()}, {"seeds": 0}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        Plan(**wrong)

"""Tumours, labelled rightly and wrongly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from scipy.stats import rankdata

from gyri.cohort.phantom import make_subject, phantom_grid, subject_seed
from gyri.cohort.phantom_truth import draw_covariates
from gyri.cohort.volumes import VolumeSet
from gyri.evaluation.corruptions import LEVELS, corrupt
from gyri.evaluation.metrics import Evidence, Refusal, Study
from gyri.evaluation.metrics.labels import LabelAgreement
from gyri.evaluation.protocol import evaluate
from gyri.evaluation.selftest import LEAST_RHO, claim
from gyri.types import Grid

NUM_TRAIN, NUM_HOLD, NUM_GENERATED = 16, 10, 10
SHAPE, SPACING_MM = (20, 24, 20), 8.0
GRID = Grid(SHAPE, tuple(map(tuple, np.diag([SPACING_MM] * 3 + [1.0]))))
CHANNELS = ("T1w", "FLAIR")
KEY = "label_agreement/tumour/whole"
CLAIMED = ("noise", "blur", "rotation", "left_right_flip")


def evidence(volumes: VolumeSet) -> Evidence:
    """Voxels alone: these metrics read no features."""
    return Evidence(volumes, np.zeros(len(volumes), bool), {}, {}, np.ones((len(volumes), 2)))


def patient(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two textured channels of a brain with a bright rim (2) around a dark core (1)."""
    place = np.stack(np.indices(SHAPE), -1) - (np.array(SHAPE) - 1) / 2
    brain = ((place / (np.array(SHAPE) * 0.45)) ** 2).sum(-1) < 1
    texture = ndimage.gaussian_filter(rng.standard_normal((2, *SHAPE)), (0, 1.5, 1.5, 1.5))
    images = (0.5 + 0.5 * texture) * brain
    centre = rng.uniform(-3, 3, 3)
    centre[0] += 4 * rng.choice([-1, 1])
    distance = np.linalg.norm(place - centre, axis=-1)
    labels = np.select([distance < rng.uniform(1.5, 2), distance < rng.uniform(3, 4)], [1, 2])
    labels = (labels * brain).astype(np.int16)
    images[0] -= 0.25 * (labels == 1)
    images[1] += 0.3 * (labels == 2)
    images += 0.04 * rng.standard_normal(images.shape) * brain
    return images.clip(0, 1).astype(np.float32), labels


@pytest.fixture(scope="module")
def cohort() -> dict[str, VolumeSet]:
    """TRAIN, HOLD and other people, each with a tumour."""
    rng = np.random.default_rng(0)
    num = NUM_TRAIN + NUM_HOLD + NUM_GENERATED
    images, labels = map(np.stack, zip(*(patient(rng) for _ in range(num)), strict=True))
    return dealt(VolumeSet("people", images, people_of(num), GRID, CHANNELS, {"tumour": labels}))


def people_of(num: int) -> pd.DataFrame:
    return pd.DataFrame(index=[f"p{k:02d}" for k in range(num)])


def dealt(volumes: VolumeSet) -> dict[str, VolumeSet]:
    stops = np.cumsum([0, NUM_TRAIN, NUM_HOLD, NUM_GENERATED])
    names = ("TRAIN", "HOLD", "generated")
    return {n: volumes.take(np.arange(a, b), n) for n, a, b in zip(names, stops, stops[1:])}


@pytest.fixture(scope="module")
def study(cohort) -> Study:
    return Study(evidence(cohort["TRAIN"]), evidence(cohort["HOLD"]), NUM_GENERATED, resamples=200)


def judge(volumes: VolumeSet, study: Study, **labels: np.ndarray) -> dict[str, object]:
    """Scores by key, of the volumes with other labels."""
    changed = replace(volumes, labels=labels or volumes.labels)
    return {s.key: s for s in LabelAgreement().scores(evidence(changed), study)}


def test_right_labels_reach_real_ones(cohort, study):
    scores = judge(cohort["generated"], study)
    whole, ratio = scores[KEY], scores["label_agreement/tumour/ratio"]
    assert whole.value > 0.75
    assert abs(whole.value - whole.anchors["ceiling"]) < 0.1
    assert whole.low < whole.value < whole.high
    assert ratio.value == pytest.approx(whole.value / whole.anchors["ceiling"])
    assert ratio.low < ratio.value < ratio.high
    assert ratio.anchors == {"ceiling": 1.0}
    assert scores["label_agreement/tumour/2"].value > 0.7
    assert whole.n_real == NUM_HOLD
    assert whole.reliable


def test_labels_in_another_place_do_not_agree(cohort, study):
    maps = np.roll(cohort["generated"].labels["tumour"], 5, axis=2)
    scores = judge(cohort["generated"], study, tumour=maps)
    assert scores[KEY].value < 0.1
    assert scores["label_agreement/tumour/ratio"].value < 0.15


def test_labels_of_other_people_do_not_agree(cohort, study):
    right = judge(cohort["generated"], study)[KEY]
    maps = np.roll(cohort["generated"].labels["tumour"], 1, axis=0)
    wrong = judge(cohort["generated"], study, tumour=maps)[KEY]
    assert wrong.value < 0.35
    strangers = float(right.note.rsplit(" ", 1)[1])
    assert strangers == pytest.approx(wrong.value, abs=0.006)


def test_exchanged_values_are_seen_in_the_parts_alone(cohort, study):
    maps = cohort["generated"].labels["tumour"]
    swapped = np.array([0, 2, 1], np.int16)[maps]
    right, wrong = (
        judge(cohort["generated"], study),
        judge(cohort["generated"], study, tumour=swapped),
    )
    assert wrong[KEY].value == right[KEY].value
    assert wrong["label_agreement/tumour/2"].value < 0.2


def falls(volumes: VolumeSet, study: Study, corruption: str) -> bool:
    """Say whether Dice falls with the severity, as the self-test asks."""
    values = [
        judge(corrupt(volumes, corruption, level), study)[KEY].value for level in range(LEVELS + 1)
    ]
    return bool(np.corrcoef(np.arange(LEVELS + 1), rankdata(values))[0, 1] <= -LEAST_RHO)


@pytest.mark.parametrize("corruption", CLAIMED)
def test_claims_hold(cohort, study, corruption):
    assert claim(LabelAgreement, KEY, corruption) == "-"
    assert falls(cohort["generated"], study.without_intervals(), corruption)


def test_only_channels_that_are_generated_are_read(cohort, study):
    made = cohort["generated"]
    single = replace(made, volumes=made.volumes[:, 1:], channels=("FLAIR",))
    both = judge(made, study)[KEY]
    one = judge(single, study)[KEY]
    assert one.anchors["ceiling"] != both.anchors["ceiling"]
    assert one.value > 0.5


def test_single_slices_are_judged(cohort):
    """Slices through the tumour, one voxel deep."""
    deep = [8, 9, 10, 11]

    def flat(volumes: VolumeSet) -> VolumeSet:
        return replace(
            volumes,
            volumes=np.concatenate([volumes.volumes[..., k : k + 1] for k in deep]),
            labels={
                "tumour": np.concatenate([volumes.labels["tumour"][..., k, None] for k in deep])
            },
            table=volumes.table.iloc[np.tile(np.arange(len(volumes)), len(deep))],
            grid=replace(volumes.grid, shape=(*volumes.grid.shape[:2], 1)),
        )

    sides = {name: flat(volumes) for name, volumes in cohort.items()}
    study = Study(evidence(sides["TRAIN"]), evidence(sides["HOLD"]), 40, resamples=50)
    score = judge(sides["generated"], study)[KEY]
    assert score.value > 0.6
    assert score.n_generated <= 40


def test_what_has_no_labels_is_refused(cohort, study):
    bare = replace(cohort["generated"], labels={})
    with pytest.raises(Refusal, match="generated: none; TRAIN: tumour"):
        LabelAgreement().scores(evidence(bare), study)
    empty = {"tumour": np.zeros_like(cohort["generated"].labels["tumour"])}
    with pytest.raises(Refusal, match="0 of 10 volumes of generated"):
        judge(cohort["generated"], study, **empty)
    other = replace(cohort["generated"], channels=("PD", "DWI"))
    with pytest.raises(Refusal, match="no channel"):
        judge(other, study)


@pytest.fixture(scope="module")
def phantoms() -> dict[str, VolumeSet]:
    """Phantoms with tumours at 8 mm."""
    num, spacing_mm = NUM_TRAIN + NUM_HOLD + NUM_GENERATED, 8.0
    table, grid = draw_covariates(num, 5), phantom_grid(spacing_mm)
    images = np.empty((num, len(CHANNELS), *grid.shape), np.float32)
    labels = np.empty((num, *grid.shape), np.int16)
    for i, (name, row) in enumerate(table.iterrows()):
        made = make_subject(row, subject_seed(5, str(name)), spacing_mm, CHANNELS, tumour=True)
        for c, image in enumerate(made.images.values()):
            images[i, c] = np.minimum(image / np.percentile(image[image > 0], 99.5), 1.0)
        labels[i] = made.segmentation
    return dealt(VolumeSet("phantoms", images, table, grid, CHANNELS, {"tumour": labels}))


@pytest.mark.slow
def test_the_sheet_holds_labels_beside_their_anchors(phantoms):
    sheet = evaluate(phantoms["generated"], phantoms["TRAIN"], phantoms["HOLD"], bootstrap=20)
    whole = sheet[KEY]
    assert set(whole.anchors) == {"ceiling"}
    assert whole.value > 0.75
    assert sheet["label_agreement/tumour/ratio"].value > 0.9
    size = sheet["label_anatomy/tumour/median_ml"]
    assert set(size.anchors) == {"ceiling"}
    anatomy = next(f for f in sheet.families if f.family == "anatomy")
    assert {whole.name, size.name} <= set(anatomy.scores)
    voxel_ml = 0.512
    maps = phantoms["generated"].labels["tumour"]
    assert sheet.samples[0]["tumour_ml"] == pytest.approx((maps[0] > 0).sum() * voxel_ml)


@pytest.mark.slow
@pytest.mark.parametrize("corruption", CLAIMED)
def test_claims_hold_on_phantoms(phantoms, corruption):
    study = Study(evidence(phantoms["TRAIN"]), evidence(phantoms["HOLD"]), NUM_GENERATED, 0, 0)
    assert falls(phantoms["generated"], study, corruption)

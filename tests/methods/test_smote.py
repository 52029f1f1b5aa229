import sys

import numpy as np
import pytest
import torch

from gyri.errors import DataError, UnavailableError, UsageError
from gyri.methods.smote import SMOTE, SMOTEConfig
from gyri.runtime.streams import SampleRng
from gyri.types import ConditionLayout, ItemSpec

SHAPE = (5, 4, 3)
LAYOUT = ConditionLayout(((0, 3), (4, 5)))
KINDS = ("smote", "borderline", "adasyn")


class Lift:
    volume_shape = (1, *SHAPE)
    slice_axis = None

    def encode(self, volumes):
        raise NotImplementedError

    def decode(self, items):
        return items


def conditions(levels):
    rows = torch.zeros(len(levels), LAYOUT.size)
    for row, level in zip(rows, levels):
        row[3 if level is None else level] = 1.0
    return rows


def subjects(levels, apart=0.6):
    """Subjects of noise with a shift for each level, classes overlapping."""
    noise = torch.randn(len(levels), 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    shift = torch.tensor([0.0 if level is None else apart * level for level in levels])
    return noise * 0.3 + shift[:, None, None, None, None] * 0.2


def fitted(levels, **settings):
    method = SMOTE(
        SMOTEConfig(**{"neighbours": 3, "components": 8, **settings}),
        ItemSpec(1, SHAPE, condition=LAYOUT, num_train=len(levels)),
        {},
    )
    x = subjects(levels)
    return method, x, method.fit(x, conditions(levels))


def draw(method, levels, seeds=None):
    seeds = torch.arange(len(levels)) if seeds is None else seeds
    return method.sample(Lift(), conditions(levels), SampleRng(seeds))


LEVELS = [k % 3 for k in range(30)]


def between(sample, x):
    """The pair of rows of x between which a sample lies, by its distance to their line."""
    flat = x.flatten(1).double()
    best = None
    for a in range(len(flat)):
        for b in range(len(flat)):
            if a == b:
                continue
            way = flat[b] - flat[a]
            gap = ((sample - flat[a]) @ way / way.square().sum()).clamp(0, 1)
            error = (flat[a] + gap * way - sample).norm().item()
            if best is None or error < best[0]:
                best = (error, a, b)
    return best


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_voxels_lies_between_two_subjects_of_the_level_asked_for(kind):
    method, x, _ = fitted(LEVELS, kind=kind, space="voxels")
    asked = [0, 1, 2, 2]
    for sample, level in zip(draw(method, asked), asked):
        error, a, b = between(sample.flatten().double(), x)
        assert error < 1e-4
        assert LEVELS[a] == LEVELS[b] == level


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", ["pca", "voxels"])
def test_a_sample_depends_on_its_own_seed_alone(kind, space):
    method, _, _ = fitted(LEVELS, kind=kind, space=space)
    together = draw(method, [0, 1, 2], torch.tensor([4, 5, 6]))
    alone = draw(method, [1], torch.tensor([5]))
    assert torch.allclose(together[1:2], alone, atol=1e-6)
    other = draw(method, [1], torch.tensor([7]))
    assert not torch.allclose(alone, other, atol=1e-3)


def test_the_samples_of_a_space_of_few_components_lie_in_it():
    method, x, logs = fitted(LEVELS, space="pca", components=2)
    assert logs["components"] == 2
    flat = draw(method, [0, 1, 2, 0, 1, 2]).flatten(1)
    centred = flat - x.flatten(1).mean(0)
    assert np.linalg.matrix_rank(centred.numpy(), tol=1e-3) == 2


def test_a_missing_class_is_left_out_of_fitting_and_drawn_in_sampling():
    levels = [None, None, *LEVELS]
    method, x, logs = fitted(levels, space="voxels")
    assert logs["class_missing"] == 2
    assert [logs[f"class_{c}"] for c in range(3)] == [10, 10, 10]
    found = set()
    for sample in draw(method, [None] * 12):
        _, a, b = between(sample.flatten().double(), x)
        assert levels[a] == levels[b] is not None
        found.add(levels[a])
    assert len(found) > 1


def test_levels_after_the_first_become_one_class():
    method, x, logs = fitted(LEVELS, space="voxels", first_against_rest=True)
    assert (logs["class_0"], logs["class_1"]) == (10, 20)
    pairs = [between(s.flatten().double(), x) for s in draw(method, [1] * 8)]
    assert {LEVELS[a] for _, a, _ in pairs} <= {1, 2}
    assert any(LEVELS[a] != LEVELS[b] for _, a, b in pairs)


def test_a_class_with_too_few_neighbours_is_named():
    with pytest.raises(DataError, match=r"1 of level 2 .* needs at least 4 of each. Lower"):
        fitted([0] * 8 + [1] * 8 + [2])


@pytest.mark.parametrize(
    ("kind", "message"),
    [("borderline", "No TRAIN subject of level 0 lies at the border"), ("adasyn", "made nothing")],
)
def test_classes_far_apart_have_no_border(kind, message):
    levels = [k % 3 for k in range(60)]
    method = SMOTE(
        SMOTEConfig(kind=kind, neighbours=3),
        ItemSpec(1, SHAPE, condition=LAYOUT, num_train=60),
        {},
    )
    with pytest.raises(DataError, match=message):
        method.fit(subjects(levels, apart=100.0), conditions(levels))


def test_views_and_columns_that_do_not_serve_are_refused():
    with pytest.raises(UsageError, match="needs one item a volume"):
        SMOTE(SMOTEConfig(), ItemSpec(1, (5, 4), condition=LAYOUT, items_per_volume=3), {})
    with pytest.raises(UsageError, match="column is 2; the condition has 2 columns"):
        SMOTE(SMOTEConfig(column=2), ItemSpec(1, SHAPE, condition=LAYOUT), {})
    with pytest.raises(UsageError, match="no categorical column"):
        SMOTE(SMOTEConfig(column=1), ItemSpec(1, SHAPE, condition=LAYOUT), {})
    with pytest.raises(UsageError, match="neighbours is 0"):
        SMOTEConfig(neighbours=0)


def test_without_imbalanced_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn", None)
    with pytest.raises(UnavailableError, match=r"pip install 'gyri\[utility\]'"):
        fitted(LEVELS)


def test_its_samples_are_made_of_training_voxels():
    assert SMOTE.contains_training_data

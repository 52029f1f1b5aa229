from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from tests.prepare.heads import phantom_head

from gyri.prepare.align import _distinct, align, moved
from gyri.prepare.mutual_information import Match
from gyri.prepare.scan import foreground
from gyri.prepare.template import mni152


def shifted(mm: float) -> sitk.AffineTransform:
    transform = sitk.AffineTransform(3)
    transform.SetTranslation((mm, 0.0, 0.0))
    return transform


def test_one_match_of_each_basin_goes_on() -> None:
    found = [Match(0.1, shifted(0.0)), Match(0.3, shifted(1.0)), Match(0.2, shifted(9.0))]
    kept = _distinct(found, mni152())
    assert [match.information for match in kept] == [0.3, 0.2]


def test_a_template_on_itself_stays() -> None:
    template = mni152()
    found = align(template, template.image, template.affine, template.mask, whole_head=False)
    points = np.argwhere(template.mask)[::500] @ template.affine[:3, :3].T + template.affine[:3, 3]
    there = points @ found.matrix[:3, :3].T + found.matrix[:3, 3]
    assert np.linalg.norm(there - points, axis=1).max() < 0.5
    np.testing.assert_allclose(moved(template.affine, found) @ [0, 0, 0, 1], [-98, -134, -72, 1],
                               atol=0.7)  # fmt: skip


def test_hair_above_a_head_does_not_lift_the_brain() -> None:
    values, affine, truth = phantom_head()
    head = foreground(values, affine)
    i, j, _ = np.argwhere(head).mean(axis=0).astype(int)
    top = np.argwhere(head)[:, 2].max()
    head[i - 3 : i + 3, j - 3 : j + 3, : top + 4] = True
    found = align(mni152(), values, affine, head, whole_head=True)
    middle_mm = affine[:3, :3] @ np.argwhere(truth).mean(axis=0) + affine[:3, 3]
    there = found.matrix @ [*mni152().centre_mm, 1]
    assert np.linalg.norm(there[:3] - middle_mm) < 4

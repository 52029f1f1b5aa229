from __future__ import annotations

import numpy as np
import pytest

from gyri.prepare.preview import Previewed, Stage
from gyri.prepare.scan import PreparedScan
from gyri.prepare.survey import Session
from gyri.report.figures import png
from gyri.report.steps import stages_figure
from gyri.types import Channel

SESSION = Session("A", "", ("a.nii",), (Channel("T1w"),))


def stage(step: str, *, face: bool = False, tilt: float = 0.0) -> Stage:
    volume = np.zeros((12, 14, 10), np.float32)
    volume[3:9, 3:11, 2:8] = 1 + np.arange(6)[:, None, None]
    affine = np.diag([2.0, 2, 2, 1])
    affine[:2, :2] @= [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    scan = PreparedScan(volume[None], (Channel("T1w"),), affine, (volume > 0).astype(np.float32))
    return Stage(step, {"step": step, "spacing_mm": 2.0}, scan, face)


def words(figure) -> str:
    texts = [t.get_text() for t in figure.texts]
    return "\n".join(texts + [t.get_text() for axes in figure.axes for t in axes.texts])


def images(figure) -> list[int]:
    return [len(axes.images) for axes in figure.axes]


def test_one_row_a_step_with_three_planes_before_and_after() -> None:
    stages = (stage("read"), stage("reorient"), stage("register", tilt=0.2), stage("crop"))
    figure = stages_figure(Previewed(SESSION, stages))
    assert images(figure) == [3] * 6
    assert "register" in words(figure)
    assert "12x14x10 at 2x2x2 mm, values 0 to 6" in words(figure)
    assert png(figure, dpi=40).startswith(b"\x89PNG")


@pytest.mark.parametrize("allowed", [False, True])
def test_faces_are_pictured_only_where_that_is_allowed(allowed: bool) -> None:
    stages = (
        stage("read", face=True), stage("reorient", face=True), stage("brain_mask"), stage("crop"),
    )  # fmt: skip
    figure = stages_figure(Previewed(SESSION, stages), allow_faces=allowed)
    assert images(figure) == ([3] * 6 if allowed else [0, 3, 3, 3])
    assert ("a face could be recognised: reorient." in words(figure)) is not allowed


def test_a_refused_scan_says_why() -> None:
    figure = stages_figure(Previewed(SESSION, (stage("read", face=True),), "No brain was found."))
    assert images(figure) == []
    assert "Refused: No brain was found." in words(figure)

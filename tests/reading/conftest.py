"""A little study, drawn once and copied for every test that changes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.reading import brains

from gyri.reading import cues
from gyri.reading.new import new_study
from gyri.reading.study import Blocks, Study


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    return brains.write_cohort(tmp_path_factory.mktemp("reading") / "cohort")


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> Path:
    return brains.write_samples(tmp_path_factory.mktemp("reading") / "samples")


@pytest.fixture(scope="session")
def plan(cohort, samples) -> Study:
    blocks = Blocks(yes_no=8, pairs=4, ratings=4, repeats=0.25)
    return Study("little", cohort, (samples,), ("ann", "ben"), blocks=blocks)


@pytest.fixture(scope="session")
def drawn(plan, tmp_path_factory) -> Path:
    """The study as it was drawn; never changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cues, "PERMUTATIONS", 1)
        patch.setattr(cues, "REPEATS", 1)
        return new_study(plan, tmp_path_factory.mktemp("reading") / "drawn", allow_cues=True).root


@pytest.fixture
def study(drawn, tmp_path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "study"))


@pytest.fixture
def tokens() -> Callable[[Path], dict[str, str]]:
    def read(root: Path) -> dict[str, str]:
        lines = (root / "readers.txt").read_text().splitlines()
        return dict(line.split("\t") for line in lines)

    return read

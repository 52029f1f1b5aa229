"""The study file: whose volumes are read, how they are matched, and how many trials there are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gyri.errors import UsageError
from gyri.settings import read_yaml, typed

Rule = float | Literal["exact"]
"""How far two people of a pair may differ: a distance of numbers, or not at all."""

USUAL_RULES: dict[str, Rule] = {"age": 5.0, "sex": "exact", "scanner": "exact"}
"""What is matched where the study file says nothing and both tables have the column."""

SCALES = ("anatomy", "contrast", "noise", "artefacts", "acceptability")
"""What a rated volume is given 1 (poor) to 5 (excellent) for."""

FAULTS = (
    "repeated slice",
    "fused sulci",
    "wrong side",
    "truncated",
    "implausible ventricles",
    "other",
)
"""What a reader can find wrong with a rated volume, each with a place."""


@dataclass(frozen=True)
class Encoding:
    """Steps that every volume of a study goes through, real or synthetic.

    Parameters
    ----------
    smooth_fwhm_mm : full width at half maximum of a Gaussian; 0 leaves the volumes sharp.
    mask : what is kept: each volume's own brain, or the voxels in which most real ones have brain.
    intensity : each brain's own 0.5 to 99.5 % window, or the mean histogram of the real ones.
    """

    smooth_fwhm_mm: float = 0.0
    mask: Literal["own", "common"] = "own"
    intensity: Literal["window", "matched"] = "window"


@dataclass(frozen=True)
class Blocks:
    """Numbers of trials a reader sees; 0 leaves a block out.

    Parameters
    ----------
    yes_no : volumes called real or synthetic, half of each.
    pairs : forced choices between a real and a synthetic volume, matched.
    ratings : volumes rated, half of each.
    repeats : share of each block's trials that come a second time in its second half.
    """

    yes_no: int = 60
    pairs: int = 30
    ratings: int = 20
    repeats: float = 0.1

    @property
    def pairs_needed(self) -> int:
        """Matched pairs that the blocks take; no volume is in two blocks."""
        return self.yes_no // 2 + self.pairs + self.ratings // 2


@dataclass(frozen=True)
class Study:
    """A reader study, as its YAML file says it.

    Parameters
    ----------
    name : letters, digits and hyphens.
    cohort : prepared cohort; relative paths are seen from the study file.
    synthetic : folders that ``gyri sample`` made; each gives an equal share of the pairs.
    readers : what the readers are called in results, for example ``neuroradiologist-1``.
    split : real people who are shown; the model must not have been trained on them.
    channel : intensity channel; by default the first.
    match : rule a column; by default age within 5, sex and scanner, where both tables have them.
    margin : how far from guessing an accuracy may be to count as indistinguishable.
    seed : of draw and order.
    allow_faces : show whole heads to readers.
    """

    name: str
    cohort: Path
    synthetic: tuple[Path, ...]
    readers: tuple[str, ...]
    split: Literal["HOLD", "TEST", "VAL"] = "HOLD"
    channel: str = ""
    match: Mapping[str, Rule] | None = None
    blocks: Blocks = field(default_factory=Blocks)
    encoding: Encoding = field(default_factory=Encoding)
    margin: float = 0.1
    seed: int = 0
    allow_faces: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", self.name):
            raise UsageError(f"name is {self.name!r}; expected letters, digits and hyphens.")
        if not self.synthetic:
            raise UsageError("synthetic is empty; name at least one folder of samples.")
        if not self.readers or len(set(self.readers)) < len(self.readers):
            raise UsageError("readers: name every reader once, for example [reader-1, reader-2].")
        if not 0 < self.margin < 0.5:
            raise UsageError(f"margin is {self.margin}; expected above 0 and below 0.5.")
        blocks = self.blocks
        if min(blocks.yes_no, blocks.pairs, blocks.ratings) < 0 or not blocks.pairs_needed:
            raise UsageError("blocks: numbers of trials are 0 or more, and one is above 0.")
        if blocks.yes_no % 2 or blocks.ratings % 2:
            raise UsageError("blocks: yes_no and ratings are even; half of the volumes are real.")
        if not 0 <= blocks.repeats <= 0.5:
            raise UsageError(f"blocks.repeats is {blocks.repeats}; expected 0 to 0.5.")
        if self.encoding.smooth_fwhm_mm < 0:
            raise UsageError("encoding.smooth_fwhm_mm is below 0.")


def load_study(path: Path) -> Study:
    """Read a study file; relative paths are seen from its folder.

    Raises
    ------
    DataError
        There is no such file, or it is no YAML.
    UsageError
        Naming the key, what came and the nearest right one.
    """
    content: Any = read_yaml(path, "reader study")
    if not isinstance(content, Mapping):
        raise UsageError(f"{path} holds no keys; expected name, cohort, synthetic and readers.")
    content = dict(content)
    if isinstance(content.get("synthetic"), str):
        content["synthetic"] = [content["synthetic"]]
    study: Study = typed(content, Study, path.stem)
    root = path.resolve().parent
    return typed(
        content
        | {
            "cohort": root / study.cohort.expanduser(),
            "synthetic": [root / folder.expanduser() for folder in study.synthetic],
        },
        Study,
        path.stem,
    )

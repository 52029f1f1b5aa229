"""Brain masks by programs that the user has installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gyri.cohort.nifti import read_volume, write_volume
from gyri.errors import DataError, UnavailableError
from gyri.prepare.survey import same_grid

LAST_WORDS = 300
"""Characters of a failed program's output that are passed on."""


@dataclass(frozen=True)
class Tool:
    """A program that finds brains.

    Parameters
    ----------
    programs : names on PATH, the first there is is used.
    arguments : (scan's file, mask's file) -> arguments.
    install : where to get it.
    """

    programs: tuple[str, ...]
    arguments: Callable[[Path, Path], Sequence[str]]
    install: str


def _synthstrip(scan: Path, mask: Path) -> list[str]:
    return ["-i", str(scan), "-m", str(mask)]


def _hd_bet(scan: Path, mask: Path) -> list[str]:
    import torch

    # It writes the mask beside the brain that it would write, under that one's name and _bet.
    brain = mask.with_name(mask.name.replace("_bet.nii.gz", ".nii.gz"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ["-i", str(scan), "-o", str(brain), "-device", device, "--disable_tta",
            "--save_bet_mask", "--no_bet_image"]  # fmt: skip


TOOLS = {
    "synthstrip": Tool(
        ("mri_synthstrip", "synthstrip-docker"),
        _synthstrip,
        "It comes with FreeSurfer (surfer.nmr.mgh.harvard.edu/docs/synthstrip).",
    ),
    "hd-bet": Tool(
        ("hd-bet",),
        _hd_bet,
        "Run `pip install hd-bet` (version 2) in an environment of its own; it downloads its "
        "weights when it is first run.",
    ),
}
"""A. Hoopes et al., "SynthStrip: skull-stripping for any brain image", NeuroImage 260, 119474
(2022); F. Isensee et al., "Automated brain extraction of multisequence MRI using artificial neural
networks", Human Brain Mapping 40, 4952 (2019)."""


def tool_mask(name: str, volume: np.ndarray, affine: np.ndarray, timeout_s: float) -> np.ndarray:
    """Return the brain's mask (I, J, K) bool that a program finds.

    Parameters
    ----------
    name : of `TOOLS`.
    volume, affine : (I, J, K) values of a head and (4, 4) voxel to world.
    timeout_s : after this the program is stopped.

    Raises
    ------
    UnavailableError
        The program is not installed.
    DataError
        It failed, took too long, or wrote no mask on the scan's grid.
    """
    tool = TOOLS[name]
    program = next((found for p in tool.programs if (found := shutil.which(p))), None)
    if program is None:
        raise UnavailableError(
            f"The brain mask's method is {name!r}, but there is no {' or '.join(tool.programs)} on "
            f"PATH. {tool.install} Or choose the method 'template', which needs nothing more."
        )
    with tempfile.TemporaryDirectory(prefix="gyri-brain-") as folder:
        scan, mask = Path(folder) / "scan.nii.gz", Path(folder) / "brain_bet.nii.gz"
        write_volume(scan, volume.astype(np.float32), affine, descrip="")
        _run([program, *tool.arguments(scan, mask)], Path(program).name, timeout_s)
        if not mask.is_file():
            raise DataError(f"{Path(program).name} ended well but wrote no mask. Run it by hand.")
        values, mask_affine, _ = read_volume(mask)
    if not same_grid(values.shape, mask_affine, volume.shape, affine):
        raise DataError(
            f"{Path(program).name} wrote a mask on the grid {values.shape}, which is not the "
            f"scan's {volume.shape}. Run it by hand, and choose the method 'provided'."
        )
    return values > 0


def _run(command: Sequence[str], name: str, timeout_s: float) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{name} was stopped after {timeout_s:g} s. Raise brain_mask.timeout_s."
        ) from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-LAST_WORDS:]
        raise DataError(f"{name} failed with exit status {done.returncode}: {said}")

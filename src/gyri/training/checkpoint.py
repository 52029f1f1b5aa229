"""Checkpoints: folders of safetensors and JSON, the manifest written last, swapped in atomically.

A folder counts only when its manifest exists and every file has the hash that the manifest says;
otherwise the one before it is used. Nothing is pickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gyri.errors import DataError, ResumableStop

log = logging.getLogger(__name__)


def save(root: Path, step: int, files: Mapping[str, Mapping[str, Tensor]], state: Any) -> Path:
    """Write ``root/step-N``.

    Parameters
    ----------
    root : the run's checkpoint folder.
    files : file name without ending -> tensors by name.
    state : plain data for ``state.json``.

    Raises
    ------
    ResumableStop
        If the disk is full; the older checkpoints are untouched.
    """
    final = root / f"step-{step:08d}"
    temporary = root / f".writing-{step:08d}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, tensors in files.items():
            contiguous = {
                key: tensor.detach().contiguous().cpu() for key, tensor in tensors.items()
            }
            save_file(contiguous, temporary / f"{name}.safetensors")
        (temporary / "state.json").write_text(json.dumps(state))
        manifest = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        for path in temporary.iterdir():
            _fsync(path)
        (temporary / "manifest.json").write_text(json.dumps({"step": step, "sha256": manifest}))
        _fsync(temporary / "manifest.json")
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _fsync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            kept = latest(root)
            raise ResumableStop(
                f"The disk is full: checkpoint {final} could not be written. "
                f"{kept.name if kept else 'No checkpoint'} is intact. Free some space and run "
                "the same command again."
            ) from error
        raise
    return final


def load(folder: Path) -> tuple[dict[str, dict[str, Tensor]], Any]:
    """Read a checkpoint: tensors by file and name, and the state.

    Raises
    ------
    DataError
        If a tensor holds NaN or infinity.
    """
    files = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    for name, tensors in files.items():
        for key, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise DataError(f"{folder / name}.safetensors: {key} holds NaN or infinity.")
    return files, json.loads((folder / "state.json").read_text())


def is_whole(folder: Path) -> bool:
    """Say whether the manifest exists and every file has its hash."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())["sha256"]
        return all(_sha256(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, KeyError):
        return False


def numbered(root: Path) -> list[Path]:
    """Return all checkpoint folders, oldest first, whole or not."""
    return sorted(root.glob("step-????????"))


def latest(root: Path) -> Path | None:
    """Return the newest whole checkpoint; warns about newer broken ones."""
    for folder in reversed(numbered(root)):
        if is_whole(folder):
            return folder
        log.warning("%s is incomplete or damaged, going back to the checkpoint before it", folder)
    return None


def keep_only(root: Path, steps: set[int]) -> None:
    """Delete all checkpoints but the newest and those of `steps`."""
    for folder in numbered(root)[:-1]:
        if int(folder.name.removeprefix("step-")) not in steps:
            shutil.rmtree(folder)


def digest(folder: Path) -> str:
    """Return the checkpoint's own hash: that of its manifest."""
    return _sha256(folder / "manifest.json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems know no fsync of a folder; a full disk must still be reported.
        if error.errno == errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)

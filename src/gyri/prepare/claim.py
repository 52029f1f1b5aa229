"""Hold a result folder for one process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gyri.cohort.files import read_json, write_json
from gyri.cohort.prepared import MANIFEST, STATE_FOLDER
from gyri.errors import DataError


@contextmanager
def claimed(out: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Hold `out` while the block runs, and record the settings it is made with.

    Raises
    ------
    DataError
        `out` holds something else, a cohort finished with other settings, or is in use.
    """
    from filelock import FileLock, Timeout

    state = out / STATE_FOLDER
    if out.exists() and not state.is_dir() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f"{out} exists and is no prepared cohort. Give another folder for the result."
        )
    state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DataError(
            f"{out} is in use by another preparation. Wait for it, or give another folder."
        ) from None
    try:
        _record(out, state / "settings.json", json.loads(json.dumps(settings)))
        yield
    finally:
        lock.release()


def _record(out: Path, record: Path, settings: dict[str, Any]) -> None:
    finished = record.is_file() and (out / MANIFEST).is_file()
    if finished and read_json(record) != settings:
        raise DataError(
            f"{out} holds a cohort that was prepared with other settings (see {record}). "
            "Choose another folder, or use the same settings."
        )
    write_json(record, settings)

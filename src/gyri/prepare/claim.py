"""Hold a result folder for one process."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gyri import __version__
from gyri.cohort.files import read_json, write_json
from gyri.cohort.prepared import MANIFEST, STATE_FOLDER
from gyri.errors import DataError, GyriError
from gyri.prepare.session import CODE_VERSION
from gyri.prepare.steps import plain, recorded

_log = logging.getLogger(__name__)


@contextmanager
def claimed(out: Path, settings: Mapping[str, Any] | None) -> Iterator[None]:
    """Hold `out` while the block runs, and record the settings it is made with.

    Parameters
    ----------
    settings : plain data with ``steps`` as `plain` returns them; None records nothing and leaves
        a finished cohort what it is.

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
        if settings is not None:
            _record(out, state / "settings.json", json.loads(json.dumps(settings)))
        yield
    finally:
        lock.release()


def _record(out: Path, record: Path, settings: dict[str, Any]) -> None:
    """Write down what `out` is made with; refuse where it was finished with other settings.

    A cohort that older code made with the same settings loses its manifest: it counts as
    unfinished until the new one is written.
    """
    made_by = {"gyri": __version__, "preparation": CODE_VERSION}
    before = read_json(record, missing_ok=True)
    if before and (out / MANIFEST).is_file():
        # Records of the first versions held the settings alone.
        differing = _differences(_completed(before.get("settings", before)), settings)
        if differing:
            raise DataError(
                f"{out} holds a cohort that was prepared with other settings: "
                f"{'; '.join(differing)}. Choose another folder, or use the same settings."
            )
        if (by := before.get("made_by", {})) != made_by:
            _log.warning(
                "%s was prepared by gyri %s (preparation %s); preparing it again with gyri %s "
                "(preparation %s). Scans that would come out the same are kept.",
                out, by.get("gyri", "before 0.1"), by.get("preparation", "unknown"),
                __version__, CODE_VERSION,
            )  # fmt: skip
            (out / MANIFEST).unlink()
    write_json(record, {"made_by": made_by, "settings": settings})


def _completed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return older settings with the defaults of what steps have learned since."""
    try:
        steps = json.loads(json.dumps(plain(recorded(settings["steps"]))))
    except (GyriError, KeyError, TypeError):
        return settings
    return {**settings, "steps": steps}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name every setting that is not the same, with both values."""
    old, new = _flat(before), _flat(now)
    return [
        f"{key} was {old.get(key, 'not set')} and is {new.get(key, 'not set')} now"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def _flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """Return ``{"split.seed": "0", "crop.shape": "[40, 48, 40]", ...}``."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if key == "steps":
            flat["steps"] = ", ".join(entry["step"] for entry in value)
            for entry in value:
                inner = {name: v for name, v in entry.items() if name != "step"}
                flat |= _flat(inner, f"{entry['step']}.")
        elif isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value)
    return flat

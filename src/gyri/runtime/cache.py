"""Where this user's machine keeps what need not be computed or given twice."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder; it need not exist.

    ``$GYRI_CACHE``, else the system's own place for caches: ``$XDG_CACHE_HOME/gyri`` or
    ``~/.cache/gyri``, ``~/Library/Caches/gyri`` on macOS, ``%LOCALAPPDATA%/gyri`` on Windows.
    """
    if given := os.environ.get("GYRI_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "gyri"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/gyri"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gyri"

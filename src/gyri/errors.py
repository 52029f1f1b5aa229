"""Errors that say what came, what was expected and what to do.

Every error that a user can cause is a `GyriError`; the command line turns it into one message
and an exit code (0 ok, 2 usage, 65 bad data, 69 unavailable, 70 bug, 75 resumable).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class GyriError(Exception):
    """Base of every error that is the answer to a user's input."""

    exit_code = 70


class UsageError(GyriError, ValueError):
    """A wrong option, recipe key, name or condition."""

    exit_code = 2


class DataError(GyriError, ValueError):
    """A file, table or cohort that cannot be used as it is."""

    exit_code = 65


class FileFault(DataError):
    """One file that cannot be used; the others can.

    Parameters
    ----------
    path : the file.
    rule : what is wrong with it.
    fix : what to do about it, a sentence.
    """

    def __init__(self, path: Path, rule: str, fix: str) -> None:
        super().__init__(path, rule, fix)
        self.path = path
        self.reason = f"{rule}. {fix}"
        """What is wrong, without the file's name: names of files may name people."""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class UnavailableError(GyriError, RuntimeError):
    """Something needed is missing: a file of weights, an optional package, a device."""

    exit_code = 69


class ResumableStop(GyriError, RuntimeError):
    """Work stopped before its end, everything so far is saved, the same command goes on."""

    exit_code = 75


def nearest(name: str, options: Iterable[str]) -> str:
    """Say which of `options` was probably meant by `name`.

    Parameters
    ----------
    name : the name that was given and is not among `options`.
    options : the names that exist.

    Returns
    -------
    str
        `" Did you mean 'x'?"` or an empty string, to be appended to a message.
    """
    match = difflib.get_close_matches(name, list(options), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""

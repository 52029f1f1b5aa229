"""The command line: one file a verb, imported only when that verb is asked for.

A verb's file offers a dataclass `Command` whose fields are its options and whose `run` does the
work. The first line of the file's docstring is what ``gyri --help`` prints.
"""

from __future__ import annotations

import ast
import errno
import importlib
import pkgutil
import sys
from pathlib import Path

from gyri import __version__
from gyri.errors import GyriError, ResumableStop, UsageError, nearest

DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Faults of the disk or its rights that the user can mend; all others are bugs."""
ORDER = (
    "demo", "cohort", "prepare", "register", "train", "sample", "reconstruct", "translate",
    "styles", "view", "score", "evaluate", "utility", "read", "report", "release", "study",
)  # fmt: skip


def verbs() -> dict[str, str]:
    """Return every verb with its one line of help, read without importing it."""
    folder = Path(__file__).parent
    names = [module.name for module in pkgutil.iter_modules([str(folder)])]
    names.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    found = {}
    for name in names:
        docstring = ast.get_docstring(ast.parse((folder / f"{name}.py").read_text())) or ""
        found[name] = docstring.split("\n")[0]
    return found


def usage() -> str:
    """Return what ``gyri --help`` prints."""
    lines = [
        f"gyri {__version__}: synthetic brain MRI, from a cohort of scans to a judged new one.",
        "",
        "usage: gyri VERB [options]      gyri VERB --help",
        "",
        *[f"  {name:11} {summary}" for name, summary in verbs().items()],
        "",
        "Start with `gyri demo`: it needs no data and takes some minutes.",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code (see `gyri.errors`)."""
    # Not list(...): importing the verb `list` puts a module of that name into this package.
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    verb, *rest = arguments
    try:
        if verb not in verbs():
            raise UsageError(
                f"There is no verb {verb!r}.{nearest(verb, verbs())} Known: {', '.join(verbs())}."
            )
        importlib.import_module(f"gyri.cli.{verb}").main(rest)
    except GyriError as error:
        print(f"gyri {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        print(
            f"gyri {verb}: {error}. What was finished is kept; mend this and run the same command "
            "again.",
            file=sys.stderr,
        )
        return ResumableStop.exit_code
    return 0

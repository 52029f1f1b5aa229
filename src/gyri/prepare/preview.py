"""What every step makes of a scan, to be looked at before a cohort is prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gyri.cohort.prepared import STATE_FOLDER
from gyri.cohort.table import Cohort
from gyri.errors import DataError, UsageError
from gyri.prepare.claim import claimed
from gyri.prepare.plan import Choices, plan
from gyri.prepare.scan import PreparedScan
from gyri.prepare.session import shows_brain_only, through
from gyri.prepare.steps import Steps
from gyri.prepare.survey import Session, read_session

PREVIEWS = "preview"
"""Folder of the pictures inside the prepared cohort's."""


@dataclass(frozen=True)
class Stage:
    """A scan after one of the steps.

    Parameters
    ----------
    step : what was done, ``"read"`` for the raw scan.
    facts : what the step noted.
    scan : the result.
    shows_face : it is a whole head that no step has stripped or defaced yet.
    """

    step: str
    facts: dict[str, Any]
    scan: PreparedScan
    shows_face: bool


@dataclass(frozen=True)
class Previewed:
    """One session's stages, up to the step that refused it.

    Parameters
    ----------
    session : whose they are.
    stages : first the raw scan; none where it cannot be read.
    fault : why it went no further; "" where all is well.
    """

    session: Session
    stages: tuple[Stage, ...]
    fault: str = ""


def previewed(
    cohort: Path | Cohort,
    out: Path,
    choices: Choices,
    count: int,
    jobs: int | None = None,
    dask: str | None = None,
) -> list[Previewed]:
    """Take `count` scans, evenly spread over a cohort, through the steps; nothing is prepared.

    All scans are surveyed, as their common window needs them all; the survey is kept in `out`.

    Raises
    ------
    UsageError
        `count` is less than 1, or see `plan`.
    """
    if count < 1:
        raise UsageError(f"A preview of {count} scans was asked for; expected at least 1.")
    planned = plan(cohort, choices, jobs=jobs, dask=dask)
    with claimed(Path(out).resolve(), None):
        log = Path(out).resolve() / STATE_FOLDER / "survey.jsonl"
        planned, _ = planned.surveyed(log)
    last = len(planned.sessions) - 1
    indices = sorted({round(last * k / max(count - 1, 1)) for k in range(count)})
    return [_preview(planned.sessions[index], planned.steps) for index in indices]


def _preview(session: Session, steps: Steps) -> Previewed:
    stages: list[Stage] = []
    try:
        raw = read_session(session, apart="coregister" in steps)
        head = not shows_brain_only(raw)
        for name, scan in zip(["read", *steps], through(raw, steps)):
            facts = scan.history[-1] if scan.history else {}
            stages.append(Stage(name, facts, scan, head and not _faceless(scan)))
    except DataError as error:
        return Previewed(session, tuple(stages), str(error))
    return Previewed(session, tuple(stages))


def _faceless(scan: PreparedScan) -> bool:
    return any(
        entry["step"] == "deface" or (entry["step"] == "brain_mask" and entry["applied"])
        for entry in scan.history
    )

"""The readers' server: one page, volumes under random names, answers once.

The browser learns the ids of the present trial and of the next one (to load it ahead), what kind
of question they are, and how far the reader is. Truth, sources and the rest of the order stay here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse

from gyri.cohort.files import read_json
from gyri.errors import DataError
from gyri.reading.answers import Answer, Consent, Enter
from gyri.reading.guard import Guard, own_names
from gyri.reading.ledger import FILE, Ledger
from gyri.reading.new import RECORD, VOLUMES
from gyri.reading.pages import add_pages
from gyri.reading.templates import CONSENT

COOKIE = "gyri_reader"
_MONTH_S = 30 * 86_400


class Reading:
    """A study that is being read.

    Parameters
    ----------
    root : folder made by `gyri.reading.new.new_study`.
    """

    def __init__(self, root: Path) -> None:
        if not (root / RECORD).is_file():
            raise DataError(f"{root} is no reader study (it has no {RECORD}); make one with "
                            "`gyri read new`.")  # fmt: skip
        self.root, self.record = root, read_json(root / RECORD)
        self.ledger = Ledger(root / FILE)
        if wrong := self.ledger.verify(self.record["seal"]):
            raise DataError(f"{root / FILE}: {' '.join(wrong)} It cannot be read any further; keep "
                            "it as it is and draw a new study.")  # fmt: skip

    def state(self, reader: sqlite3.Row) -> dict[str, Any]:
        """Return what the reader's page shows now."""
        state: dict[str, Any] = {"study": self.record["study"]["name"], "reader": reader["name"]}
        if not self.record["passed_cue_check"]:
            state["pilot"] = True
        if reader["consented"] is None:
            text = (self.root / CONSENT).read_text(encoding="utf-8")
            return state | {"stage": "consent", "consent": text}
        counts = self.ledger.rows(
            "SELECT block, COUNT(*) AS total, SUM(id IN (SELECT trial FROM answers)) AS done "
            "FROM trials WHERE reader = ? GROUP BY block ORDER BY MIN(position)", reader["name"],
        )  # fmt: skip
        state["blocks"] = [dict(row) for row in counts]
        following = self.ledger.open_trials(reader["name"])
        if not following:
            return state | {"stage": "done", "receipt": self.ledger.head()}
        self.ledger.shown(following[0]["id"])
        state["scales"], state["faults"] = self.record["scales"], self.record["faults"]
        state["trials"] = [
            {"id": t["id"], "block": t["block"], "cases": self.ledger.cases_of(t["id"])}
            for t in following
        ]
        return state | {"stage": "trial"}

    def volume(self, reader: str, case: str) -> Path | None:
        """Return a volume that the reader may see now: of the present trial or of the next."""
        for trial in self.ledger.open_trials(reader):
            if case in self.ledger.cases_of(trial["id"]):
                row = self.ledger.row("SELECT volume FROM cases WHERE id = ?", case)
                return self.root / VOLUMES / f"{row['volume']}.nii" if row else None
        return None

    def answer(self, reader: str, given: Answer) -> tuple[int, str]:
        """Keep an answer; returns a status of HTTP and, above 200, why it was refused."""
        trial = self.ledger.row(
            "SELECT * FROM trials WHERE id = ? AND reader = ?", given.trial, reader
        )
        if trial is None:
            return 404, "no such trial"
        if self.ledger.row("SELECT 1 FROM answers WHERE trial = ?", given.trial):
            return 409, "answered before"
        if self.ledger.open_trials(reader, 1)[0]["id"] != given.trial:
            return 409, "not the present trial"
        kept = given.kept(trial["block"])
        if kept is None:
            return 422, "no answer to this question"
        try:
            self.ledger.answer(trial, kept)
        except sqlite3.IntegrityError:
            return 409, "answered before"
        return 200, ""


def create_app(root: Path, host: str, port: int, names: Iterable[str] = ()) -> Any:
    """Return the ASGI application of a study.

    Parameters
    ----------
    root : the study's folder.
    host, port : where it will listen.
    names : further names under which readers reach it.
    """
    reading = Reading(root)
    ledger = reading.ledger
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def refuse(status: int, reason: str, reader: str = "") -> HTTPException:
        ledger.refuse(reason, reader)
        return HTTPException(status, reason)

    def entered(request: Request) -> sqlite3.Row:
        session = request.cookies.get(COOKIE, "")
        reader = ledger.reader_of(session) if session else None
        if reader is None:
            if session:
                ledger.refuse("forged or ended session")
            raise HTTPException(401, "no session")
        return reader

    def consented(reader: sqlite3.Row = Depends(entered)) -> str:  # noqa: B008
        if reader["consented"] is None:
            raise refuse(403, "no consent", reader["name"])
        return str(reader["name"])

    @app.exception_handler(RequestValidationError)
    def _(request: Request, error: RequestValidationError) -> JSONResponse:
        ledger.refuse("malformed request")
        return JSONResponse({"detail": "malformed request"}, 422)

    @app.post("/api/enter")
    def _(given: Enter, request: Request, response: Response) -> dict[str, bool]:
        session = ledger.enter(given.token)
        if session is None:
            raise refuse(403, "unknown token")
        response.set_cookie(
            COOKIE, session, max_age=_MONTH_S, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return {"entered": True}

    @app.get("/api/state")
    def _(reader: sqlite3.Row = Depends(entered)) -> dict[str, Any]:  # noqa: B008
        return reading.state(reader)

    @app.post("/api/consent")
    def _(given: Consent, reader: sqlite3.Row = Depends(entered)) -> dict[str, Any]:  # noqa: B008
        if reader["consented"] is None:
            ledger.consent(reader["name"])
        again = ledger.row("SELECT name, consented FROM readers WHERE name = ?", reader["name"])
        assert again is not None
        return reading.state(again)

    @app.get("/api/case/{case}.nii")
    def _(case: str, reader: str = Depends(consented)) -> FileResponse:
        path = reading.volume(reader, case)
        if path is None:
            raise refuse(404, "no such case", reader)
        return FileResponse(path, media_type="application/octet-stream")

    @app.post("/api/answer")
    def _(given: Answer, reader: str = Depends(consented)) -> dict[str, Any]:
        status, reason = reading.answer(reader, given)
        if status != 200:
            raise refuse(status, reason, reader)
        row = ledger.row("SELECT name, consented FROM readers WHERE name = ?", reader)
        assert row is not None
        return reading.state(row)

    add_pages(app, "read.html")
    return Guard(app, own_names(host, port, names), ledger.refuse)

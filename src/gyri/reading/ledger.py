"""What is known and what was answered: one SQLite file that only the server reads.

The log is a chain: every entry holds the hash of the one before it, so that an entry that is
changed, inserted or removed later breaks all that follow. Answers are entries of the log; the
table of answers only makes them quick to find, and an analysis compares the two.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gyri.errors import DataError
from gyri.reading.design import Trial

FILE = "sealed.sqlite"
MAX_REFUSALS = 10_000
"""Refused requests that are logged; a flood must not fill the disk."""
_GENESIS = "0" * 64

_TABLES = """
CREATE TABLE volumes (id TEXT PRIMARY KEY, kind TEXT, source TEXT, subject TEXT, sha256 TEXT);
CREATE TABLE readers (name TEXT PRIMARY KEY, token TEXT UNIQUE, session TEXT, consented REAL);
CREATE TABLE trials (id TEXT PRIMARY KEY, reader TEXT, block TEXT, position INTEGER, truth TEXT,
                     repeat_of TEXT, first_shown REAL, UNIQUE (reader, position));
CREATE TABLE cases (id TEXT PRIMARY KEY, trial TEXT, side INTEGER, volume TEXT);
CREATE TABLE answers (trial TEXT PRIMARY KEY, at REAL, answer TEXT);
CREATE TABLE log (seq INTEGER PRIMARY KEY, at REAL, event TEXT, detail TEXT, hash TEXT);
"""


def digest(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(content: Any) -> str:
    """Return JSON with sorted keys and no spaces, equal for equal content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Ledger:
    """The sealed file of a study, safe to use from several threads.

    Parameters
    ----------
    path : an existing file, see `create`.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DataError(f"There is no {path}. Make the study with `gyri read new`.")
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA synchronous = FULL")
        self._lock = threading.RLock()

    @classmethod
    def create(
        cls,
        path: Path,
        volumes: Iterable[Mapping[str, str]],
        trials: Sequence[Trial],
    ) -> tuple[Ledger, dict[str, str]]:
        """Write volumes, trials and a token for every reader.

        Returns
        -------
        tuple
            The ledger, and the tokens by reader; only their hashes are kept.
        """
        # Nobody else may read it, not even between its making and the first byte.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        ledger = cls(path)
        tokens = {trial.reader: secrets.token_urlsafe(24) for trial in trials}
        with ledger._write() as db:
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.executemany(
                "INSERT INTO volumes VALUES (:id, :kind, :source, :subject, :sha256)", volumes
            )
            db.executemany(
                "INSERT INTO readers (name, token) VALUES (?, ?)",
                [(reader, digest(token)) for reader, token in tokens.items()],
            )
            for trial in trials:
                db.execute(
                    "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, NULL)",
                    (trial.id, trial.reader, trial.block, trial.position, trial.truth,
                     trial.repeat_of),
                )  # fmt: skip
                db.executemany(
                    "INSERT INTO cases VALUES (?, ?, ?, ?)",
                    [
                        (c, trial.id, k, v)
                        for k, (c, v) in enumerate(zip(trial.cases, trial.volumes))
                    ],
                )
            ledger._append("sealed", {"seal": ledger.seal()})
        return ledger, tokens

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _write(self) -> _Transaction:
        return _Transaction(self._db, self._lock)

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        return next(iter(self.rows(query, *values)), None)

    def seal(self) -> str:
        """Return the SHA-256 of all that was drawn: volumes, order, sides and truth."""
        drawn = [
            [list(row) for row in self.rows(f"SELECT {columns} FROM {table} ORDER BY id")]
            for table, columns in (
                ("volumes", "id, kind, source, subject, sha256"),
                ("trials", "id, reader, block, position, truth, repeat_of"),
                ("cases", "id, trial, side, volume"),
            )
        ]
        return digest(canonical(drawn))

    # Readers

    def enter(self, token: str) -> str | None:
        """Open a session for the reader with this token; the reader's older session ends.

        Returns
        -------
        str or None
            The session's secret, or None where nobody has this token.
        """
        reader = self.row("SELECT name FROM readers WHERE token = ?", digest(token))
        if reader is None:
            return None
        session = secrets.token_urlsafe(32)
        with self._write() as db:
            db.execute(
                "UPDATE readers SET session = ? WHERE name = ?", (digest(session), reader["name"])
            )
            self._append("entered", {"reader": reader["name"]})
        return session

    def reader_of(self, session: str) -> sqlite3.Row | None:
        """Return the reader whose session this is: ``name`` and ``consented``."""
        return self.row("SELECT name, consented FROM readers WHERE session = ?", digest(session))

    def consent(self, reader: str) -> None:
        """Note that a reader agrees to take part."""
        with self._write() as db:
            at = self._append("consented", {"reader": reader})
            db.execute("UPDATE readers SET consented = ? WHERE name = ?", (at, reader))

    # Trials

    def open_trials(self, reader: str, num: int = 2) -> list[sqlite3.Row]:
        """Return the reader's next unanswered trials, in order."""
        return self.rows(
            "SELECT * FROM trials WHERE reader = ? AND id NOT IN (SELECT trial FROM answers) "
            "ORDER BY position LIMIT ?", reader, num,
        )  # fmt: skip

    def cases_of(self, trial: str) -> list[str]:
        """Return the names of a trial's volumes in the order of the screen."""
        found = self.rows("SELECT id FROM cases WHERE trial = ? ORDER BY side", trial)
        return [row["id"] for row in found]

    def shown(self, trial: str) -> None:
        """Note when a trial was handed out for the first time."""
        with self._write() as db:
            db.execute(
                "UPDATE trials SET first_shown = ? WHERE id = ? AND first_shown IS NULL",
                (time.time(), trial),
            )

    def answer(self, trial: sqlite3.Row, answer: Mapping[str, Any]) -> None:
        """Keep an answer; it can be given once.

        Raises
        ------
        sqlite3.IntegrityError
            There is an answer already.
        """
        with self._write() as db:
            text = canonical(answer)
            db.execute("INSERT INTO answers VALUES (?, ?, ?)", (trial["id"], time.time(), text))
            self._append("answered", {"trial": trial["id"], "reader": trial["reader"],
                                      "answer": answer})  # fmt: skip

    # The log

    def refuse(self, reason: str, reader: str = "") -> None:
        """Log a request that was refused, up to a limit."""
        with self._write() as db:
            (count,) = db.execute("SELECT COUNT(*) FROM log WHERE event = 'refused'").fetchone()
            if count < MAX_REFUSALS:
                self._append("refused", {"reason": reason[:200], "reader": reader})

    def head(self) -> str:
        """Return the hash of the last entry, which stands for the whole log."""
        last = self.row("SELECT hash FROM log ORDER BY seq DESC LIMIT 1")
        return last["hash"] if last else _GENESIS

    def _append(self, event: str, detail: Mapping[str, Any]) -> float:
        at, before = time.time(), self.head()
        text = canonical(detail)
        self._db.execute(
            "INSERT INTO log (at, event, detail, hash) VALUES (?, ?, ?, ?)",
            (at, event, text, _link(before, at, event, text)),
        )
        return at

    def verify(self, seal: str) -> list[str]:
        """Return what is wrong with the file: an empty list, or sentences.

        Parameters
        ----------
        seal : what `seal` was when the study was drawn.
        """
        wrong, before = [], _GENESIS
        logged = {}
        for row in self.rows("SELECT * FROM log ORDER BY seq"):
            if row["hash"] != _link(before, row["at"], row["event"], row["detail"]):
                wrong.append(
                    f"Entry {row['seq']} of the log was changed, or one before it removed."
                )
                break
            before = row["hash"]
            if row["event"] == "answered":
                detail = json.loads(row["detail"])
                logged[detail["trial"]] = canonical(detail["answer"])
        kept = {row["trial"]: row["answer"] for row in self.rows("SELECT * FROM answers")}
        if not wrong and kept != logged:
            wrong.append("The answers are not those of the log.")
        if self.seal() != seal:
            wrong.append("Volumes, order or truth are not those that were sealed.")
        return wrong


def _link(before: str, at: float, event: str, detail: str) -> str:
    return digest(canonical([before, at, event, detail]))


class _Transaction:
    """All of a change or nothing of it, one thread at a time."""

    def __init__(self, db: sqlite3.Connection, lock: threading.RLock) -> None:
        self._db, self._lock = db, lock

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("ROLLBACK" if kind else "COMMIT")
        self._lock.release()

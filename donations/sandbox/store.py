"""The sandbox's state: one SQLite file, one connection, one transaction at a time.

`objects` holds what the API shows (`body`) and what it does not (`hidden`); deliveries, jobs, stored answers and
settings have tables of their own. The file is locked for this process: a second sandbox can't share it.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clock import Clock

Json = dict[str, Any]
VERSION = 1
SCHEMA = """
CREATE TABLE objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, created INTEGER NOT NULL,
    body TEXT NOT NULL, hidden TEXT NOT NULL);
CREATE INDEX objects_by_kind ON objects (kind, seq);
CREATE INDEX objects_by_payment ON objects (kind, json_extract(body, '$.payment_intent'));
CREATE INDEX objects_by_charge ON objects (kind, json_extract(body, '$.charge'));
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL REFERENCES objects (id), state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, claimed INTEGER NOT NULL DEFAULT 0,
    by_hand INTEGER NOT NULL DEFAULT 0, last_status INTEGER, last_error TEXT, delivered_at REAL);
CREATE INDEX deliveries_due ON deliveries (state, claimed, next_at);
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL);
CREATE INDEX jobs_due ON jobs (at);
CREATE TABLE answers (
    key TEXT PRIMARY KEY, endpoint TEXT NOT NULL, fingerprint TEXT NOT NULL, request TEXT NOT NULL,
    status INTEGER NOT NULL, body TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class StateUnusable(Exception):
    """The state file can't be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The API request that an event is due to; both None for what happened elsewhere."""

    request: str | None = None
    idempotency_key: str | None = None


class Tx:
    """One transaction. Objects are plain JSON, as the API shows them."""

    def __init__(self, db: sqlite3.Connection, clock: Clock, cause: Cause) -> None:
        self.db = db
        self.clock = clock
        self.cause = cause

    def add(self, body: Json, hidden: Json | None = None) -> Json:
        """Insert an object; `hidden` is what the API does not show of it."""
        self.db.execute(
            "INSERT INTO objects (id, kind, created, body, hidden) VALUES (?, ?, ?, ?, ?)",
            (body["id"], body["object"], body["created"], json.dumps(body), json.dumps(hidden or {})),
        )
        return body

    def save(self, body: Json) -> Json:
        """Write an object back."""
        self.db.execute("UPDATE objects SET body = ? WHERE id = ?", (json.dumps(body), body["id"]))
        return body

    def get(self, kind: str, object_id: str) -> Json | None:
        row = self.db.execute("SELECT body FROM objects WHERE id = ? AND kind = ?", (object_id, kind)).fetchone()
        return None if row is None else json.loads(row[0])

    def hidden(self, object_id: str) -> Json:
        """What the API does not show of an object."""
        row = self.db.execute("SELECT hidden FROM objects WHERE id = ?", (object_id,)).fetchone()
        return json.loads(row[0]) if row else {}

    def select(self, kind: str, where: str = "1", values: tuple[Any, ...] = (), *, limit: int = 100) -> list[Json]:
        """Objects of a kind, the newest first. `where` is our own SQL, never a caller's text."""
        rows = self.db.execute(
            f"SELECT body FROM objects WHERE kind = ? AND {where} ORDER BY seq DESC LIMIT ?",  # noqa: S608
            (kind, *values, limit),
        )
        return [json.loads(row[0]) for row in rows]

    def of_payment(self, kind: str, payment: str) -> list[Json]:
        """Objects of a kind that belong to a PaymentIntent, the newest first."""
        return self.select(kind, "json_extract(body, '$.payment_intent') = ?", (payment,))

    def schedule(self, at: float, action: str, target: str) -> None:
        """Have `jobs` do something to an object at a time of the sandbox's clock."""
        self.db.execute("INSERT INTO jobs (at, action, target) VALUES (?, ?, ?)", (at, action, target))

    def setting(self, name: str, default: Any) -> Any:
        row = self.db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def set_setting(self, name: str, value: Any) -> None:
        self.db.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, json.dumps(value)))


class Store:
    """The state file. Threads take turns; what they wrote is on disk when `transaction` ends."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.clock = clock
        self.after_commit: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._open = True
        self._db = _connect(path)

    @contextmanager
    def transaction(self, cause: Cause | None = None) -> Iterator[Tx]:
        """All or nothing. Raises StateUnusable once the store is closed."""
        with self._lock:
            if not self._open:
                raise StateUnusable("The sandbox is stopping.")
            before = self._db.total_changes
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield Tx(self._db, self.clock, cause or Cause())
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            changed = self._db.total_changes != before
        if changed:
            self.after_commit()

    def close(self) -> None:
        with self._lock:
            self._open = False
            self._db.close()


def _connect(path: Path) -> sqlite3.Connection:
    """The connection, with the schema in place and the file locked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        _prepare(db, path)
    except sqlite3.OperationalError as error:
        db.close()
        raise StateUnusable(f"{path} can't be used ({error}): is another sandbox running on it?") from error
    except sqlite3.DatabaseError as error:
        db.close()
        raise StateUnusable(f"{path} is not a state file of the sandbox: delete it, or name another.") from error
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        db.close()
        raise StateUnusable(f"{path} is of another version of the sandbox: delete it to start afresh.")
    # What was under way when the last process ended is not any more.
    db.execute("UPDATE deliveries SET claimed = 0 WHERE claimed = 1")

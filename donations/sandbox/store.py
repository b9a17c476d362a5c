"""The sandbox's state: one SQLite file, one connection, one transaction at a time.

`objects` holds what the API shows (`body`) and what it does not (`hidden`); `lookups` finds them by their fields'
values, the newest first (see `lookups`). The account's balance, deliveries, jobs, stored answers and settings have
tables of their own. The file is locked for this process: a second sandbox can't share it.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import lookups
from .clock import Clock, Stopped

Json = dict[str, Any]
VERSION = 2
SCHEMA = """
CREATE TABLE objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, created INTEGER NOT NULL,
    lookups TEXT NOT NULL, body TEXT NOT NULL, hidden TEXT NOT NULL);
CREATE INDEX objects_by_kind ON objects (kind, created, seq);
CREATE TABLE lookups (
    kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, created INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (kind, name, value, created, seq)) WITHOUT ROWID;
CREATE TABLE balance (
    seq INTEGER PRIMARY KEY, created INTEGER NOT NULL, currency TEXT NOT NULL, net INTEGER NOT NULL,
    available_on INTEGER NOT NULL, payout TEXT NOT NULL DEFAULT '');
CREATE INDEX balance_by_payout ON balance (payout, created, seq);
CREATE INDEX balance_free ON balance (currency, available_on, net) WHERE payout = '';
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL REFERENCES objects (id), state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, claimed INTEGER NOT NULL DEFAULT 0,
    by_hand INTEGER NOT NULL DEFAULT 0, last_status INTEGER, last_error TEXT, delivered_at REAL);
CREATE INDEX deliveries_due ON deliveries (state, claimed, next_at);
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
    UNIQUE (action, target, at));
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

    def add(self, body: Json, hidden: Json | None = None, **found_by: str) -> Json:
        """Insert an object; `hidden` is what the API does not show of it, `found_by` are lookups beside its own."""
        values = lookups.of(body) | found_by
        seq = self.db.execute(
            "INSERT INTO objects (id, kind, created, lookups, body, hidden) VALUES (?, ?, ?, ?, ?, ?)",
            (
                body["id"],
                body["object"],
                body["created"],
                json.dumps(values),
                json.dumps(body),
                json.dumps(hidden or {}),
            ),
        ).lastrowid
        self._enter(body["object"], values, body["created"], int(seq or 0))
        return body

    def save(self, body: Json) -> Json:
        """Write an object back."""
        self._move(body["id"], lookups.of(body))
        self.db.execute("UPDATE objects SET body = ? WHERE id = ?", (json.dumps(body), body["id"]))
        return body

    def found_by(self, object_id: str, **values: str) -> None:
        """Have an object found by these values from now on."""
        self._move(object_id, values)

    def _move(self, object_id: str, values: dict[str, str]) -> None:
        row = self.db.execute("SELECT kind, created, seq, lookups FROM objects WHERE id = ?", (object_id,)).fetchone()
        kind, created, seq, before = row[0], row[1], row[2], json.loads(row[3])
        changed = {name: value for name, value in values.items() if before.get(name) != value}
        if not changed:
            return
        self.db.executemany(
            "DELETE FROM lookups WHERE kind = ? AND name = ? AND value = ? AND created = ? AND seq = ?",
            [(kind, name, before[name], created, seq) for name in changed if name in before],
        )
        self._enter(kind, changed, created, seq)
        self.db.execute("UPDATE objects SET lookups = ? WHERE seq = ?", (json.dumps(before | changed), seq))

    def _enter(self, kind: str, values: dict[str, str], created: int, seq: int) -> None:
        self.db.executemany(
            "INSERT INTO lookups (kind, name, value, created, seq) VALUES (?, ?, ?, ?, ?)",
            [(kind, name, value, created, seq) for name, value in values.items()],
        )

    def get(self, kind: str, object_id: str) -> Json | None:
        row = self.db.execute("SELECT body FROM objects WHERE id = ? AND kind = ?", (object_id, kind)).fetchone()
        return None if row is None else json.loads(row[0])

    def hidden(self, object_id: str) -> Json:
        """What the API does not show of an object."""
        row = self.db.execute("SELECT hidden FROM objects WHERE id = ?", (object_id,)).fetchone()
        return json.loads(row[0]) if row else {}

    def hide(self, object_id: str, **more: Any) -> None:
        """Add to what the API does not show of an object."""
        hidden = json.dumps(self.hidden(object_id) | more)
        self.db.execute("UPDATE objects SET hidden = ? WHERE id = ?", (hidden, object_id))

    def latest(self, kind: str, limit: int = 100) -> list[Json]:
        """Objects of a kind, the newest first."""
        rows = self.db.execute(
            "SELECT body FROM objects WHERE kind = ? ORDER BY created DESC, seq DESC LIMIT ?", (kind, limit)
        )
        return [json.loads(row[0]) for row in rows]

    def where(self, kind: str, name: str, value: str) -> list[Json]:
        """The objects of a kind that a lookup has a value for, the newest first."""
        rows = self.db.execute(
            "SELECT o.body FROM lookups l JOIN objects o ON o.seq = l.seq WHERE l.kind = ? AND l.name = ? "
            "AND l.value = ? ORDER BY l.created DESC, l.seq DESC",
            (kind, name, value),
        )
        return [json.loads(row[0]) for row in rows]

    def schedule(self, at: float, action: str, target: str) -> None:
        """Have `jobs` do something to an object at a time of the sandbox's clock; the same thing only once."""
        self.db.execute("INSERT OR IGNORE INTO jobs (at, action, target) VALUES (?, ?, ?)", (at, action, target))

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
        with self.transaction() as tx:
            clock.ahead = tx.setting("clock_ahead", clock.ahead)

    @contextmanager
    def transaction(self, cause: Cause | None = None, *, at: float | None = None) -> Iterator[Tx]:
        """All or nothing, by a clock that stands `at` a moment if so told. StateUnusable once the store is closed."""
        clock = self.clock if at is None else Stopped(at, self.clock.ahead)
        with self._lock:
            if not self._open:
                raise StateUnusable("The sandbox is stopping.")
            before = self._db.total_changes
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield Tx(self._db, clock, cause or Cause())
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

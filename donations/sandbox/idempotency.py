"""Idempotency-Key: the first answer to a key is kept and replayed. https://docs.stripe.com/api/idempotent_requests.

Kept is what the endpoint answered, its refusals too; not kept is what never reached it (a parameter that can't be
read, a conflict, trouble).
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import params
from .clock import real
from .errors import ApiError, key_in_use, other_endpoint, other_parameters
from .store import Tx

KEPT_FOR = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given before."""

    request: str
    status: int
    body: Any


class KeysInUse:
    """The keys of requests that are under way in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[str] = set()

    @contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """Hold a key. Raises ApiError 409 if another request does."""
        with self._lock:
            if key in self._keys:
                raise key_in_use(key)
            self._keys.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._keys.discard(key)


def check_key(key: str) -> None:
    if len(key) > 255:
        raise ApiError("Idempotency keys can be up to 255 characters long.", kind="idempotency_error")


def fingerprint(form: str) -> str:
    """The same for the same parameters, in whatever order."""
    return hashlib.sha256(json.dumps(sorted(params.pairs(form))).encode()).hexdigest()


def find(tx: Tx, key: str, endpoint: str, form: str) -> Kept | None:
    """The answer that was kept for a key. Raises ApiError if it was for something else."""
    tx.db.execute("DELETE FROM answers WHERE key = ? AND created < ?", (key, real() - KEPT_FOR))
    row = tx.db.execute(
        "SELECT endpoint, fingerprint, request, status, body FROM answers WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    if row[0] != endpoint:
        raise other_endpoint(key, row[0], endpoint)
    if row[1] != fingerprint(form):
        raise other_parameters(key)
    return Kept(row[2], row[3], json.loads(row[4]))


def keep(tx: Tx, key: str, endpoint: str, form: str, kept: Kept) -> None:
    tx.db.execute(
        "INSERT INTO answers (key, endpoint, fingerprint, request, status, body, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key, endpoint, fingerprint(form), kept.request, kept.status, json.dumps(kept.body), real()),
    )

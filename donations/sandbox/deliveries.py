"""Deliveries: each event POSTed, signed, to the webhook endpoint until it answers 2xx.

The queue is a table, so a restart goes on where the last process stopped. Waits double from `retry_base` to
`retry_cap`. Several threads send, so events may arrive in any order and at once, as Stripe's do.
https://docs.stripe.com/webhooks#signatures; a redirect counts as a failure there, and here.
"""

import http.client
import json
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from stripe import WebhookSignature

from . import events
from .clock import real
from .store import StateUnusable, Store, Tx

Json = dict[str, Any]
IDLE = 5.0
READ = 2000


@dataclass(frozen=True, slots=True)
class Target:
    """Where events go, how they are signed, and how long one attempt may take."""

    url: str
    secret: str
    retry_base: float = 1.0
    retry_cap: float = 30.0
    timeout: float = 10.0
    threads: int = 4


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is to be tried now."""

    id: int
    attempts: int
    event: Json


class Courier:
    """The threads that send. `wake` them when there may be something to send."""

    def __init__(self, store: Store, target: Target) -> None:
        self.store = store
        self.target = target
        self._news = threading.Condition()
        self._count = 0
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"delivery-{number}", daemon=True)
            for number in range(target.threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        with self._news:
            self._count += 1
            self._news.notify_all()

    def stop(self) -> None:
        """Let the threads end; one in the middle of an attempt is not waited for, its row stays queued."""
        self._stopping = True
        self.wake()

    def _work(self) -> None:
        while not self._stopping:
            seen = self._count
            try:
                due, wait = self._next()
                if due:
                    self._attempt(due)
                    continue
            except StateUnusable:
                return
            with self._news:
                if self._count == seen and not self._stopping:
                    self._news.wait(wait)

    def _next(self) -> tuple[Due | None, float]:
        """Claim a due delivery; or none, and how long to wait for the next one."""
        with self.store.transaction() as tx:
            return claim(tx)

    def _attempt(self, due: Due) -> None:
        status, error = self._post(due.event)
        with self.store.transaction() as tx:
            record(tx, due, status, error, self._wait_after(due.attempts))

    def _wait_after(self, attempts: int) -> float:
        return min(self.target.retry_cap, self.target.retry_base * 2.0 ** min(attempts, 30))

    def _post(self, event: Json) -> tuple[int | None, str]:
        """Send one event. Returns the status, or None and what went wrong."""
        payload = json.dumps(event | {"pending_webhooks": 1}, indent=2, ensure_ascii=False)
        try:
            return post(self.target, payload)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return None, getattr(error, "strerror", None) or str(error) or type(error).__name__


def claim(tx: Tx) -> tuple[Due | None, float]:
    """Take the delivery that has been due longest. In the mode `never`, only those by hand are."""
    never = tx.setting("deliveries", "normal") == "never"
    which = "state = 'queued' AND claimed = 0" + (" AND by_hand = 1" if never else "")
    row = tx.db.execute(
        f"SELECT id, event, attempts, next_at FROM deliveries WHERE {which} ORDER BY next_at, id LIMIT 1"  # noqa: S608
    ).fetchone()
    if row is None:
        return None, IDLE
    wait = row[3] - real()
    if wait > 0:
        return None, min(wait, IDLE)
    tx.db.execute("UPDATE deliveries SET claimed = 1 WHERE id = ?", (row[0],))
    event = tx.get("event", row[1])
    return Due(row[0], row[2], event or {}), 0


def record(tx: Tx, due: Due, status: int | None, error: str, wait: float) -> None:
    """Write down how an attempt went."""
    done = status is not None and 200 <= status < 300
    now = real()
    tx.db.execute(
        "UPDATE deliveries SET claimed = 0, attempts = attempts + 1, last_status = ?, last_error = ?, state = ?, "
        "delivered_at = ?, next_at = ? WHERE id = ?",
        (status, error, "delivered" if done else "queued", now if done else None, now + wait, due.id),
    )
    if done:
        events.delivered(tx, due.event["id"])


def post(target: Target, payload: str) -> tuple[int, str]:
    """POST a signed payload, and read the status. Raises OSError and its like if nobody answers."""
    parts = urlsplit(target.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=target.timeout)
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Stripe-Signature": WebhookSignature.generate_signature_header(payload, target.secret, int(real())),
    }
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, payload.encode(), headers)
        response = connection.getresponse()
        body = response.read(READ)
        text = "" if 200 <= response.status < 300 else body.decode("utf-8", "replace")[:200]
        return response.status, text
    finally:
        connection.close()

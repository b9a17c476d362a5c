"""Events: written down with what they tell of, and queued for delivery, in the same transaction."""

import copy
from typing import Any

from . import objects
from .clock import DAY, real
from .errors import missing
from .store import Tx

Json = dict[str, Any]
MODES = ("normal", "twice", "never")
LISTED_FOR = 30 * DAY


def emit(tx: Tx, kind: str, subject: Json, previous: Json | None = None) -> Json:
    """Record an event with a copy of its object as it is now, and queue its deliveries."""
    request = {"id": tx.cause.request, "idempotency_key": tx.cause.idempotency_key}
    event = objects.event(kind, copy.deepcopy(subject), previous, now=tx.clock.seconds(), request=request)
    tx.add(event, delivery_success="false")
    mode = tx.setting("deliveries", "normal")
    for _ in range(2 if mode == "twice" else 1):
        queue(tx, event["id"], state="held" if mode == "never" else "queued")
    return event


def queue(tx: Tx, event_id: str, *, state: str = "queued", by_hand: bool = False) -> None:
    """Queue one delivery of an event. One by hand goes out whatever the mode."""
    tx.db.execute(
        "INSERT INTO deliveries (event, state, next_at, by_hand) VALUES (?, ?, ?, ?)",
        (event_id, state, real(), int(by_hand)),
    )
    if by_hand:
        tx.found_by(event_id, delivery_success="false")


def delivered(tx: Tx, event_id: str) -> None:
    """A delivery arrived: if it was the last one that was wanted, lists know the event as delivered."""
    if not _is_undelivered(tx, event_id):
        tx.found_by(event_id, delivery_success="true")


def release(tx: Tx, *, twice: bool = False) -> int:
    """Let the held deliveries go out, if wanted twice. Returns how many events were held."""
    held = tx.db.execute(
        "UPDATE deliveries SET state = 'queued', next_at = ? WHERE state = 'held' RETURNING event", (real(),)
    )
    found = [row[0] for row in held.fetchall()]
    for event_id in found if twice else ():
        queue(tx, event_id)
    return len(found)


def oldest(tx: Tx) -> int:
    """From when on the API knows events: it forgets them after 30 days."""
    return tx.clock.seconds() - LISTED_FOR


def find(tx: Tx, event_id: str) -> Json:
    """An event as the API shows it. Raises ApiError 404, also for one that is too old."""
    event = tx.get("event", event_id)
    if event is None or event["created"] < oldest(tx):
        raise missing("event", event_id)
    return shown(tx, event)


def shown(tx: Tx, event: Json) -> Json:
    """An event as the API shows it: with how many endpoints (there is one) have yet to confirm it."""
    return event | {"pending_webhooks": int(_is_undelivered(tx, event["id"]))}


def _is_undelivered(tx: Tx, event_id: str) -> bool:
    undelivered = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE event = ? AND state != 'delivered')"
    return bool(tx.db.execute(undelivered, (event_id,)).fetchone()[0])

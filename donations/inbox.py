"""The inbox: receive, claim, process, quarantine, replay. Its table is the queue, and the one way to book money.

A batch is one transaction: claimed rows, ledger entries, totals, receipts and the rows' own new states stand or fall
together. What fails as a batch is tried one by one; what fails alone is recorded in a transaction of its own.
"""

import gc
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from donations import booking, bulk, processors
from donations.booking import Outcome
from donations.booking.books import wake
from donations.models import InboxEvent, TypesRead
from donations.models.inbox import GAVE_UP, PAID_TWICE, STILL, UNBOOKABLE, UNREADABLE
from donations.processors.base import Interpretation, Malformed
from donations.processors.facts import fact_from_json, fact_to_json

log = logging.getLogger(__name__)
State = InboxEvent.State
DELIVERY = InboxEvent.Origin.DELIVERY.value
BATCH = 500
RESTARTED_WITHIN = timedelta(hours=1)  # all processes of the site, after the first one of a new version
PATIENCE = timedelta(hours=72)  # from when it first waited or failed: waiting and failing by turns have no more
LONGEST_WAIT = 300


def receive(*, processor: str, body: bytes, signature: str | None) -> None:
    """Verify a delivery and store it; returns once it is committed. Raises BadDelivery; stores nothing then.

    One insert, one commit: a repeated delivery of the same event is passed over by the table's own constraint.
    """
    source = processors.get(processor)
    source.verify(body, signature)
    envelope = source.envelope(body)
    told = NewEvent(processor=processor, origin=DELIVERY, event_id=envelope.event_id, type=envelope.type, body=body)
    bulk.run(INSERT, _told(told, timezone.now()))


# A new row: what is told of it, and what each begins with, as neither a statement nor `bulk` knows Django's defaults.
TOLD = ("processor", "event_id", "origin", "type", "received_at", "body", "body_sha256", "next_try_at")
EMPTY = ("reason", "subject", "payment", "gift_reference", "decision", "decision_reason")
BEGINNING: dict[str, str | int] = {"state": State.READY.value, "attempts": 0, **dict.fromkeys(EMPTY, "")}
NEW = (*TOLD, *BEGINNING)
# What it begins with stands in the statement itself, and Python writes these as SQL does: 'ready', 0, ''.
INSERT = f"""
INSERT INTO {InboxEvent._meta.db_table} ({", ".join(NEW)})
VALUES ({", ".join(["%s"] * len(TOLD))}, {", ".join(map(repr, BEGINNING.values()))})
ON CONFLICT (processor, event_id) DO NOTHING
"""  # noqa: S608 (the only texts put in are names and values of our own)


# ---- what no delivery brought: found at the processor, or told by staff


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to be put in. `origin` is one of InboxEvent.Origin, `body` what `processor` can interpret."""

    processor: str
    origin: str
    event_id: str
    type: str
    body: bytes


def put(*, processor: str, origin: str, event_id: str, type: str, body: bytes) -> bool:  # noqa: A002 (the field's name)
    """Store an event that no delivery brought; False where it stands already. Inside or outside a transaction."""
    return bool(put_many([NewEvent(processor=processor, origin=origin, event_id=event_id, type=type, body=body)]))


def put_many(events: Iterable[NewEvent]) -> list[NewEvent]:
    """Store many at once, and return those that are new. It takes no more than a statement for each thousand."""
    by_key = {(event.processor, event.event_id): event for event in events}
    now = timezone.now()
    # Keys in one order: two who put the same events wait for one another and never deadlock.
    rows = [[*_told(by_key[key], now), *BEGINNING.values()] for key in sorted(by_key)]
    unless_there = "ON CONFLICT (processor, event_id) DO NOTHING RETURNING processor, event_id"
    return [by_key[key] for key in bulk.insert(InboxEvent, NEW, rows, then=unless_there)]


def _told(event: NewEvent, now: datetime) -> list[Any]:
    digest = hashlib.sha256(event.body).digest()
    return [event.processor, event.event_id, event.origin, event.type, now, event.body, digest, now]


def book_now(*, processor: str, event_id: str) -> None:
    """Process this event in the caller's transaction, once. Raises CannotBook unless it is in the books then."""
    row = InboxEvent.objects.filter(processor=processor, event_id=event_id).only("pk").get()
    _book_or_refuse(row.pk)


# ---- draining


def drain(*, seconds: float | None = None) -> int:
    """Process what is due until nothing is, or the time is up; returns how many rows were looked at."""
    end = time.monotonic() + seconds if seconds is not None else None
    total = 0
    while done := process_batch():
        total += done
        if end is not None and time.monotonic() >= end:
            break
    return total


def is_left_lying(age: timedelta) -> bool:
    """Whether an event, ready or waiting, has been due for longer than this: the workers are away."""
    return InboxEvent.objects.filter(next_try_at__lt=timezone.now() - age).exists()


def process_batch(limit: int = BATCH) -> int:
    """Claim and process up to `limit` due rows; how many there were."""
    identities: list[int] = []
    try:
        with _uncollected(), transaction.atomic():
            rows = _claim(limit)
            identities = [row.pk for row in rows]
            _process(rows)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        log.exception("a batch of %d events failed; each is tried alone", len(identities))
        for identity in identities:
            process_alone(identity)
    return len(identities)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's collector of cycles: it would look in vain at all that a batch makes and keeps until its end."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _claim(limit: int) -> list[InboxEvent]:
    """Due rows, locked until the batch ends; rows that another worker holds are passed over, not waited for."""
    due = f"WHERE next_try_at <= %s ORDER BY next_try_at, id LIMIT {limit} {bulk.locked(skip=True)}"
    rows = bulk.select(InboxEvent, due, [timezone.now()])
    # One processor's at a time: gifts and totals are locked in one order a processor, and an adjustment by staff may
    # be of any processor's gift. The others are next.
    return [row for row in rows if row.processor == rows[0].processor]


def process_alone(identity: int) -> None:
    """Process this one row now, if it is still to be; whoever holds it is waited for."""
    try:
        with transaction.atomic():
            row = (
                InboxEvent.objects.select_for_update(no_key=True).filter(pk=identity, next_try_at__isnull=False).first()
            )
            if row:
                _process([row])
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        log.exception("event %d failed", identity)
        _record_failure(identity, error)


def _record_failure(identity: int, error: Exception) -> None:
    """In a transaction of its own: the one that failed has taken everything else back."""
    with transaction.atomic():
        row = InboxEvent.objects.select_for_update(no_key=True).get(pk=identity)
        if row.next_try_at is None:
            return
        now = timezone.now()
        row.attempts += 1
        row.reason = _failure_text(error)
        # Not since it was received: it may be read again long after, or lie for days while no worker runs.
        row.waiting_since = row.waiting_since or now
        if now - row.waiting_since > PATIENCE:
            row.reason = f"{GAVE_UP}: {row.reason}"[:300]
            row.state, row.next_try_at, row.settled_at = State.QUARANTINED, None, now
        else:
            row.next_try_at = now + _backoff(row.attempts)
        row.save(update_fields=["attempts", "waiting_since", "reason", "state", "next_try_at", "settled_at"])


def _failure_text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300].replace("\x00", "")


def _backoff(attempts: int) -> timedelta:
    """1 s, doubling, to 5 min."""
    return timedelta(seconds=min(LONGEST_WAIT, 2 ** max(0, min(attempts, 20) - 1)))


# ---- processing a batch


@dataclass(slots=True)
class Reading:
    """A row, what it means, and what became of it."""

    row: InboxEvent
    interpretation: Interpretation | None = None
    outcome: Outcome = field(default_factory=lambda: Outcome(State.NOTHING))


def _process(rows: list[InboxEvent]) -> None:
    """Book these rows, all of one processor, and write their new states, in the caller's transaction."""
    readings = [_read(row) for row in rows]
    bookable = [reading for reading in readings if reading.interpretation and reading.interpretation.fact]
    items = [booking.Item(r.row, r.interpretation) for r in bookable if r.interpretation]
    outcomes = booking.book(items[0].row.processor, items) if items else []
    for reading, outcome in zip(bookable, outcomes, strict=True):
        reading.outcome = outcome
    _settle(readings)


def _read(row: InboxEvent) -> Reading:
    """What a row means, without touching the database; rows that need no booking have their outcome already."""
    processor = processors.get(row.processor)
    try:
        interpretation = _interpretation(row)
    except Malformed as error:
        return Reading(row, None, Outcome(State.QUARANTINED, f"{UNREADABLE}: {error}"))
    if interpretation.livemode not in {None, processor.livemode}:
        other = "live" if interpretation.livemode else "test"
        reason = f"it is of the {other} mode, which this site's key is not"
        return Reading(row, _without_fact(interpretation), Outcome(State.WRONG_MODE, reason))
    if interpretation.foreign:
        return Reading(row, interpretation, Outcome(State.FOREIGN, "it does not name a gift of ours"))
    return Reading(row, interpretation)


def _interpretation(row: InboxEvent) -> Interpretation:
    """From the body; where that was erased, from the facts that stay."""
    if row.body is not None:
        return processors.get(row.processor).interpret(bytes(row.body))
    return Interpretation(
        livemode=row.livemode,
        created=row.created,
        subject=row.subject,
        payment=row.payment,
        fact=fact_from_json(row.facts) if row.facts else None,
    )


def _without_fact(told: Interpretation) -> Interpretation:
    return Interpretation(told.livemode, told.created, told.subject, told.payment)


SETTLED = (
    "id",
    "state",
    "next_try_at",
    "attempts",
    "waiting_since",
    "reason",
    "settled_at",
    "livemode",
    "created",
    "facts",
    "subject",
    "payment",
    "gift_reference",
)


def _settle(readings: list[Reading]) -> None:
    """Write each row's new state."""
    now = timezone.now()
    bulk.update(InboxEvent, SETTLED, [_settled_row(reading, now) for reading in readings])


def _settled_row(reading: Reading, now: datetime) -> list[Any]:
    row, told, outcome = reading.row, reading.interpretation, reading.outcome
    state, reason, since = outcome.state, outcome.reason, row.waiting_since
    next_try: datetime | None = None
    if state == State.WAITING:
        since = since or now
        if now - since > PATIENCE:
            state, reason = outcome.at_last, f"{STILL}{reason}"
        else:
            next_try = now + _backoff(row.attempts + 1)
    if state == State.QUARANTINED:
        log.warning("inbox event %s is quarantined: %s", row.event_id, reason)
    facts = json.dumps(fact_to_json(told.fact)) if told and told.fact else None
    return [
        row.pk,
        str(state),
        next_try,
        row.attempts + 1,
        since,
        reason[:300],
        None if next_try else now,
        told.livemode if told else None,
        told.created if told else None,
        facts,
        told.subject if told else "",
        told.payment if told else "",
        outcome.gift,
    ]


# ---- what staff decide


class CannotDecide(Exception):
    """A decision that cannot be taken; its text says why and what to do."""


def accept(event: InboxEvent, *, user: User, reason: str = "") -> None:
    """Post a quarantined event all the same, with its own dates. Raises CannotDecide with what stands in the way.

    One transaction: what cannot be booked stays in quarantine, with why, and nobody has decided about it.
    """
    try:
        with transaction.atomic():
            _decide(event, user=user, decision="accept", reason=reason, state=State.READY)
            _book_or_refuse(event.pk)
    except CannotBook as refusal:
        # What was paid twice stays that, whatever else stands in the way: it is to be given back.
        twice = event.reason.startswith(PAID_TWICE) and not str(refusal).startswith(PAID_TWICE)
        why = f"{PAID_TWICE}: {refusal}" if twice else str(refusal)
        InboxEvent.objects.filter(pk=event.pk, state=State.QUARANTINED).update(reason=why[:300])
        raise CannotDecide(f"It could not be booked: {str(refusal).removeprefix(f'{UNBOOKABLE}: ')}.") from refusal
    finally:
        event.refresh_from_db()


class CannotBook(Exception):
    """An event that a person wants booked and that cannot be; its text says why."""


def _book_or_refuse(identity: int) -> None:
    row = InboxEvent.objects.select_for_update(no_key=True).get(pk=identity)
    try:
        with transaction.atomic():
            _process([row])
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        log.exception("event %d was to be booked at once and failed", identity)
        raise CannotBook(_failure_text(error)) from error
    row.refresh_from_db(fields=["state", "reason"])
    if row.state != State.PROCESSED:
        raise CannotBook(row.reason or "it needs nothing")


def dismiss(event: InboxEvent, *, user: User, reason: str) -> None:
    """Close a quarantined event without booking it. Raises CannotDecide without a reason."""
    if not reason.strip():
        raise CannotDecide("Give a reason: finance will ask why this money is not in the books.")
    _decide(event, user=user, decision="dismiss", reason=reason, state=State.DISMISSED)


def replay(event: InboxEvent) -> None:
    """Read an event again, as if it had just come; what is booked already stays as it is.

    A dismissal is undone with it, and its words go: whoever undoes it keeps a trace, if one is wanted. What was set
    aside because of it is looked at again, too.
    """
    with transaction.atomic():
        InboxEvent.objects.filter(pk=event.pk, decision="dismiss").update(
            decision="", decision_reason="", decided_by=None, decided_at=None
        )
        _begin_anew(InboxEvent.objects.filter(pk=event.pk))
        wake(event.processor, "payment", {event.payment} - {""})
    process_alone(event.pk)


def read_again(
    *,
    states: Iterable[str],
    types: Iterable[str] | None = None,
    since: datetime | None = None,
    processor: str = "",
) -> int:
    """Have settled rows read again, by what the adapter knows by now: what is booked already stays as it is.

    In batches, each a transaction of its own, so that workers are not held up; drain afterwards. How many there were.
    """
    rows = InboxEvent.objects.filter(state__in=list(states))
    if types is not None:
        rows = rows.filter(type__in=list(types))
    if since is not None:
        rows = rows.filter(received_at__gte=since)
    if processor:
        rows = rows.filter(processor=processor)
    total, last = 0, 0
    while batch := list(rows.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[: 2 * BATCH]):
        total += _begin_anew(rows.filter(pk__in=batch))
        last = batch[-1]
    return total


def _begin_anew(rows: QuerySet[InboxEvent]) -> int:
    """Have these looked at as if they had just come: their tries and their 72 hours begin once more. How many.

    What has neither body nor facts, as somebody was erased, stays what it was: there is nothing to be read.
    """
    rows = rows.exclude(body__isnull=True, facts__isnull=True)
    return rows.update(state=State.READY, next_try_at=timezone.now(), attempts=0, waiting_since=None, settled_at=None)


def read_newly_known(processor: str) -> int:
    """After an upgrade: read again what needed nothing, of types that the adapter reads now and did not then.

    The types read so far are stored, so this costs a look at one row. How many rows are read again.
    """
    now, reads = timezone.now(), processors.get(processor).reads
    stored = TypesRead.objects.filter(pk=processor).first() or TypesRead(types=[])
    known = set(stored.types)
    found, news = 0, dict[str, Any](types=sorted(reads), fresh=None, fresh_at=None)
    if fresh := reads - known:
        found = read_again(states=[State.NOTHING], types=fresh, processor=processor)
        news |= {"fresh": sorted(fresh), "fresh_at": now}
    elif stored.fresh_at and now - stored.fresh_at <= RESTARTED_WITHIN:
        return 0  # processes of two versions may be at work
    elif stored.fresh and not known - reads:
        since = (stored.fresh_at or now) - PATIENCE
        found = read_again(states=[State.NOTHING], types=stored.fresh, since=since, processor=processor)
    elif known == reads:
        return 0
    # Only now: whoever is killed before this reads them again. What an older version cannot read is forgotten by it, so
    # that a newer one reads anew what came meanwhile.
    TypesRead.objects.update_or_create(pk=processor, defaults=news)
    return found


# In literal states, as SQLite takes the partial index for these alone.
OF_THE_MODE = f"""
SELECT id, processor FROM {InboxEvent._meta.db_table}
WHERE state IN ('quarantined', 'wrong_mode') AND state = 'wrong_mode' AND livemode = %s ORDER BY id
"""  # noqa: S608 (the only text put in is our own table name)


def read_of_this_mode(processor: str) -> int:
    """Read again what was kept as of the other mode, and is of the mode that the site's key is now. How many."""
    rows = bulk.run(OF_THE_MODE, [processors.get(processor).livemode])
    ours = [number for number, told_by in rows if told_by == processor]
    batches = (ours[start : start + 2 * BATCH] for start in range(0, len(ours), 2 * BATCH))
    return sum(_begin_anew(InboxEvent.objects.filter(state=State.WRONG_MODE, pk__in=some)) for some in batches)


def erase_bodies(rows: QuerySet[InboxEvent]) -> int:
    """Erase what these were received as, which may name people; what it came to stays. How many."""
    return rows.update(body=None)


def _decide(event: InboxEvent, *, user: User, decision: str, reason: str, state: str) -> None:
    now = timezone.now()
    # The condition decides between two people who decide at once: one of them changes the row.
    decided = InboxEvent.objects.filter(pk=event.pk, state=State.QUARANTINED).update(
        state=state,
        next_try_at=now if state == State.READY else None,
        waiting_since=None,
        decision=decision,
        decision_reason=reason.strip()[:300],
        decided_by=user,
        decided_at=now,
    )
    if not decided:
        raise CannotDecide("It is not in quarantine any more: somebody has decided, or it was replayed.")

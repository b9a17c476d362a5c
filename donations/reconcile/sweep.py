"""Fetching what was missed: page by page into the inbox, so that there is one way to book money."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.utils import timezone

from donations import inbox, processors
from donations.booking.books import told_of
from donations.inbox import NewEvent
from donations.models import InboxEvent
from donations.processors.base import (
    Interpretation,
    KeyRefused,
    Malformed,
    Page,
    ProcessorRefused,
    ProcessorUnavailable,
    Sighting,
)
from donations.processors.facts import fact_to_json
from donations.reconcile.runs import Rest, Run

log = logging.getLogger(__name__)
State = InboxEvent.State
LONGEST_WAIT = 60.0  # that we choose; the processor may ask for more
DELIVERED_WITHIN = timedelta(hours=1)  # by then the processor has tried some times
PATIENCE = 250.0  # seconds of waiting in all, about four minutes
READ_LATER = {"invoice": {"amounts", "total"}, "paid": {"fee_cover"}}
Answer = TypeVar("Answer")


def patiently(call: Callable[[], Answer], rest: Rest) -> Answer:
    """Ask until there is an answer, for about four minutes: again after 1 s, doubling to a minute.

    The processor's `Retry-After` is the least wait; where it says the same again, it is waited for longer all the same.
    `rest` sleeps so many seconds. Raises ProcessorUnavailable at last, and KeyRefused at once.
    """
    wait = waited = 0.0
    while True:
        try:
            return call()
        except KeyRefused:
            raise
        except ProcessorUnavailable as problem:
            told = 1.0 if problem.wait is None else max(problem.wait, 0.1)
            wait = max(told, min(LONGEST_WAIT, wait * 2))
            if waited + wait > PATIENCE:
                raise
            log.info("the processor does not answer (%s); asked again in %.1f s", problem, wait)
            rest(wait)
            waited += wait


def page_of(run: Run, step: str) -> Page:
    """The page at which a run stands."""
    source = processors.get(run.row.processor)
    try:
        return patiently(lambda: source.sweep(step, since=run.row.since, after=run.row.cursor), run.rest)
    except ProcessorRefused:
        if not run.row.cursor:
            raise
        # The object that we stopped at is gone, as events are after a month: what was read stays read.
        run.keep(cursor="")
        return patiently(lambda: source.sweep(step, since=run.row.since), run.rest)


def store(processor: str, page: Page) -> int:
    """Put a page into the inbox, but for what is known; how much was new."""
    rows = unknown(processor, page.sightings)
    events = [
        NewEvent(processor=processor, origin=r.origin, event_id=r.event_id, type=r.type, body=r.body) for r in rows
    ]
    return len(inbox.put_many(events))


def undelivered_at(processor: str, page: Page) -> datetime | None:
    """Of when the latest event of a page of undelivered ones is that no delivery brought here for over an hour.

    Of what is ours: other events are delivered to other software on the account, if at all.
    """
    latest, made = timezone.now() - DELIVERED_WITHIN, dict[str, datetime]()
    for row in page.sightings:
        told = told_by(processor, row) if row.origin == InboxEvent.Origin.EVENTS_API else None
        if told and told.created and told.created < latest and told.fact:
            made[row.event_id] = told.created
    rows = InboxEvent.objects.filter(processor=processor, event_id__in=made, origin=InboxEvent.Origin.DELIVERY)
    # To us it was delivered: it is to another's endpoint that it was not.
    delivered = set(rows.values_list("event_id", flat=True))
    return max((created for event_id, created in made.items() if event_id not in delivered), default=None)


def drain(run: Run) -> None:
    """Process what is due, and hold the run meanwhile."""
    processed = 0
    while some := inbox.process_batch():
        processed += some
        run.show(f"events processed: {processed:,}")
    run.doing = ""


# ---- what is known


def unknown(processor: str, rows: Iterable[Sighting]) -> list[Sighting]:
    """Those that tell what the inbox was never told. Events are known by their ids: the inbox looks at those itself.

    An object is known when the inbox has been told the same of it, whenever that was said to be.
    """
    rows = list(rows)
    told = {row.event_id: told_by(processor, row) for row in rows if row.origin == "sweep"}
    subjects = {each.subject for each in told.values() if each}
    known: defaultdict[str, list[Any]] = defaultdict(list)
    for stored in told_of(processor, "subject", subjects, columns=("subject", "state", "facts")):
        known[stored.subject].append(_essence(stored.facts) if stored.facts else stored.state)
    return [row for row in rows if row.origin != "sweep" or _is_news(told[row.event_id], known)]


def told_by(processor: str, row: Sighting) -> Interpretation | None:
    """What a sighting means; None where it cannot be read."""
    try:
        return processors.get(processor).interpret(row.body)
    except Malformed:
        return None


def _is_news(told: Interpretation | None, known: dict[str, list[Any]]) -> bool:
    """What cannot be read is put into the inbox, too: there it is quarantined, and seen."""
    if told is None:
        return True
    if told.foreign:
        return State.FOREIGN not in known[told.subject]
    return told.fact is not None and not _tells_no_more(_essence(fact_to_json(told.fact)), known[told.subject])


def _tells_no_more(new: dict[str, Any], known: list[Any]) -> bool:
    """Of a balance transaction, which payout carried it is told by that payout's list alone.

    What an earlier version did not read is no news alone: an invoice's lines and sum, a payment's fee cover. What a
    monthly gift's subscription is now, is always news: it may have been otherwise since it was last told the same.
    """
    if new["kind"] == "recurring":
        return False
    if later := READ_LATER.get(new["kind"]):
        new, known = _without(later, new), [_without(later, each) for each in known]
    if new["kind"] == "transaction" and not new["payout"]:
        known = [each | {"payout": ""} if isinstance(each, dict) else each for each in known]
    return new in known


def _without(names: set[str], facts: Any) -> Any:
    """Facts without these; or a state, as it is."""
    return {name: value for name, value in facts.items() if name not in names} if isinstance(facts, dict) else facts


def _essence(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "occurred_at"}

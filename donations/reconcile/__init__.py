"""Fetching what was missed, and comparing both books: `run`, hourly; what events named and did not tell: `look_up`.

run: undelivered events › checkouts › payments of invoices › refunds › disputes › payouts › balance transactions
     (each page into the inbox, each balance transaction compared) › what is to be looked up › the verdict
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from donations import health, inbox, processors
from donations.health import Result
from donations.models import Lookup, Reconciliation
from donations.processors.base import SWEEP, ProcessorRefused, ProcessorUnavailable
from donations.reconcile import lookups, runs, sweep
from donations.reconcile.pages import Comparison
from donations.reconcile.runs import EARLIEST, STEPS, Busy, LostLease, Rest, Run, Tell

__all__ = ["EARLIEST", "Busy", "Comparison", "LostLease", "Run", "check", "look_up", "run", "tick"]

log = logging.getLogger(__name__)


def run(
    *, processor: str = "", since: datetime | None = None, tell: Tell = lambda _: None, rest: Rest = time.sleep
) -> Reconciliation:
    """Fetch what was missed, compare, and store the result. `tell` is called after each page; `rest` sleeps seconds.

    `since` makes it look farther back than its window, never less far. Raises Busy where another run is at it;
    ProcessorUnavailable or ProcessorRefused where the processor does not answer: the next run goes on from there.
    """
    name = processor or processors.default().name
    inbox.read_newly_known(name)
    inbox.read_of_this_mode(name)
    held = runs.begin(name, since=since, tell=tell, rest=rest)
    try:
        _from_where_it_stands(held)
    except (ProcessorUnavailable, ProcessorRefused) as problem:
        held.pause(str(problem))
        raise
    except LostLease:
        raise
    except Exception as error:
        # Whatever it is, staff read why the run stands still; where even that cannot be written, the error is logged.
        with suppress(DatabaseError, LostLease):
            held.pause(f"{type(error).__name__}: {error}")
        raise
    except BaseException:
        held.let_go()
        raise
    return held.row


def _from_where_it_stands(held: Run) -> None:
    for step in STEPS[STEPS.index(held.row.step) :]:
        held.keep(step=step)
        held.tell(held)
        if step in SWEEP:
            _sweep(held, step)
        elif step == "lookups":
            _look_up(held)
        else:
            _conclude(held)
    held.tell(held)


def _sweep(held: Run, step: str) -> None:
    """A page is in the inbox before the cursor moves past it: killed in between, it is read again, and stored once."""
    while True:
        page = sweep.page_of(held, step)
        new = sweep.store(held.row.processor, page)
        if step == "refunds":
            lookups.ask_after_refunds(held.row.processor, page)
        more: dict[str, Any] = {}
        if step == "transactions":
            sweep.drain(held)
            compared = _comparison(held)
            compared.page(page)
            held.doing = ""
            more = {"books": compared.state, "differences": compared.differences}
        counts = held.count(step, listed=page.listed, new=new)
        if (
            step == "events"
            and held.undelivered_at is None
            and (late := sweep.undelivered_at(held.row.processor, page))
        ):
            counts["events"]["undelivered_at"] = late.isoformat()  # the newest are listed first
        held.keep(cursor=page.cursor, counts=counts, **more)
        held.tell(held)
        if not page.cursor:
            break
    sweep.drain(held)
    if step == "payouts":
        # Before all balance transactions are listed, so that most are told of once: with the payout that carried them.
        _fetch(held, kinds=[Lookup.Kind.PAYOUT_TRANSACTIONS])
    held.keep(step=STEPS[STEPS.index(step) + 1], cursor="")


def _comparison(held: Run) -> Comparison:
    row = held.row
    return Comparison(row.processor, row.since, row.started_at, dict(row.books), list(row.differences), show=held.show)


def _look_up(held: Run) -> None:
    """What the books asked for while they were filled; twice, as answers ask for more."""
    lookups.ask_after_silent(held.row.processor)
    lookups.ask_after_awaiting(held.row.processor)
    for _ in range(2):
        _fetch(held, kinds=Lookup.Kind.values)


def _fetch(held: Run, *, kinds: Iterable[str]) -> None:
    answers = itertools.count(1)

    def show() -> None:
        held.show(f"answers to what was asked for: {next(answers):,}")

    while lookups.fetch(held.row.processor, rest=held.rest, hold=show, kinds=kinds):
        held.hold()
    held.doing = ""
    sweep.drain(held)


def _conclude(held: Run) -> None:
    compared = _comparison(held)
    compared.conclude(held.rest)
    held.doing = ""
    runs.finish(
        held,
        books=compared.sums,
        differences=compared.shown(),
        equal=not compared.found,
        unexplained=compared.unexplained,
    )
    _tell_health(held, compared)
    if compared.found:
        log.warning("both books differ: %d ways, %d unexplained", compared.found, compared.unexplained)


def _tell_health(held: Run, compared: Comparison) -> None:
    """What staff, metrics and the alarm go by: a difference of a known cause, such as an event that waits, is told too.

    It alarms nobody: time, or the page where it is settled, sees to it.
    """
    words = [f"{one['reference']}: {one['words']} {one['remedy']}" for one in compared.shown() if not one["explained"]]
    explained = compared.found - compared.unexplained
    result = Result(
        findings=compared.unexplained,
        explained=explained,
        words=tuple(words),
        unseen=held.row.unseen,
        undelivered_at=held.undelivered_at,
    )
    health.keep("reconcile", result)


def check(
    *, processor: str = "", since: datetime | None = None, show: Callable[[str], object] = lambda _: None
) -> Comparison:
    """Compare both books from `since` on, or of the next run's window, and change nothing. Raises as `run` does.

    `show` is told in words how far it is.
    """
    name = processor or processors.default().name
    now = timezone.now()
    since = max(runs.EARLIEST, min(since or runs.window(name, now), now))
    compared, listed, after = Comparison(name, since, now, asks=False, show=show), 0, ""
    while True:
        ask = partial(compared.source.sweep, "transactions", since=compared.since, after=after)
        page = sweep.patiently(ask, time.sleep)
        compared.page(page)
        listed, after = listed + len(page.sightings), page.cursor
        show(f"balance transactions: {listed:,} looked at")
        if not after:
            break
    compared.conclude(time.sleep)
    return compared


# ---- what beat and the ticker call


def look_up(*, processor: str = "") -> int:
    """Ask for what events named and did not tell; how much was answered."""
    name = processor or processors.default().name
    inbox.read_newly_known(name)
    try:
        return lookups.fetch(name, rounds=10)
    except ProcessorUnavailable as problem:
        log.warning("what events named could not be asked for: %s", problem)
        return 0


def tick(*, processor: str = "") -> None:
    """What is due by now: lookups, and each hour a run. Safe in any number of processes."""
    name = processor or processors.default().name
    look_up(processor=name)
    if not runs.is_due(name):
        return
    try:
        run(processor=name)
    except (Busy, LostLease) as reason:
        log.info("no reconciliation here: %s", reason)
    except (ProcessorUnavailable, ProcessorRefused) as problem:
        log.warning("the reconciliation stands still: %s", problem)

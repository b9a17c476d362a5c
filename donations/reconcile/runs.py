"""Runs: one at a time, by a lease; each knows where it stands, so that one that was killed is gone on with.

Sole writer of their table. No transaction is open while the processor is asked.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Min, Q, QuerySet
from django.utils import timezone

from donations import processors
from donations.models import Reconciliation
from donations.processors.base import SWEEP
from donations.reconcile.verdicts import CORRECTED

LEASE = timedelta(seconds=60)  # longer than any one call, or batch takes
LONGEST_SLEEP = LEASE.total_seconds() / 3  # a longer wait is slept in parts, and held between them
STANDS_STILL = timedelta(minutes=10)
LONGEST_HELD = timedelta(days=90)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # no processor has anything that is older
Rest = Callable[[float], None]
STEPS = (*SWEEP, "lookups", "comparison")


class Busy(Exception):
    """Somebody else works on it; the text says until when at least."""


class LostLease(Exception):
    """Somebody else took the run up, as it had not been heard of for too long."""


@dataclass(slots=True)
class Run:
    """A run that we hold. `row` is what stands in its table, `doing` what is done beside reading its step's list.

    `tell` is called after each page, and whenever there is more to say of what is done.
    """

    row: Reconciliation
    sleep: Rest = time.sleep
    tell: "Tell" = lambda _: None
    doing: str = ""

    def rest(self, seconds: float) -> None:
        """Sleep, and hold it meanwhile."""
        self.keep()
        while seconds > 0:
            self.sleep(min(seconds, LONGEST_SLEEP))
            self.keep()
            seconds -= LONGEST_SLEEP

    def show(self, doing: str) -> None:
        """Tell what is done, and hold it on."""
        self.hold()
        self.doing = doing
        self.tell(self)

    def keep(self, **fields: Any) -> None:
        """Write down where it stands, and hold it on. Raises LostLease."""
        fields["held_until"] = timezone.now() + LEASE
        mine = Reconciliation.objects.filter(pk=self.row.pk, holder=self.row.holder, finished_at=None)
        # The condition decides: whoever was thought dead and comes back changes nothing.
        if not mine.update(**fields):
            raise LostLease("another run has taken this one up: it was not heard of for too long")
        for name, value in fields.items():
            setattr(self.row, name, value)

    def hold(self) -> None:
        """Hold it on, at most now and then."""
        if self.row.held_until - timezone.now() < LEASE / 2:
            self.keep()

    def count(self, step: str, *, listed: int, new: int) -> dict[str, Any]:
        """The counts with these added."""
        counts: dict[str, Any] = self.row.counts
        before = counts.get(step, {"listed": 0, "new": 0})
        return counts | {step: before | {"listed": before["listed"] + listed, "new": before["new"] + new}}

    @property
    def undelivered_at(self) -> datetime | None:
        """Of when the latest event is, of those read so far, that was not delivered for an hour."""
        found = self.row.counts.get("events", {}).get("undelivered_at")
        return datetime.fromisoformat(found) if found else None

    def pause(self, error: str) -> None:
        """Let go of it: whoever comes next goes on with it."""
        self.keep(error=error[:300].replace("\x00", ""))
        self.let_go()

    def let_go(self) -> None:
        """Whoever comes next need not wait."""
        Reconciliation.objects.filter(pk=self.row.pk, holder=self.row.holder).update(held_until=timezone.now())


Tell = Callable[[Run], None]


def begin(
    processor: str, *, since: datetime | None = None, tell: Tell = lambda _: None, rest: Rest = time.sleep
) -> Run:
    """The run that was not finished, taken up; or a new one. Raises Busy.

    It looks back to `since`, and as far as its window at least: it counts as whole, and the next window follows it.
    """
    holder, now = secrets.token_hex(8), timezone.now()
    usual = window(processor, now)
    since = max(EARLIEST, min(since or usual, usual))
    held = Reconciliation.objects.filter(processor=processor, finished_at=None).first()
    if held is None:
        return Run(_new(processor, holder, since), rest, tell)
    taken = Reconciliation.objects.filter(pk=held.pk, finished_at=None, held_until__lte=now)
    if not taken.update(holder=holder, held_until=now + LEASE, error=""):
        raise Busy(f"another run is at it; it is held until {held.held_until:%H:%M:%S} UTC at least")
    held.refresh_from_db()
    run = Run(held, rest, tell)
    mode = processors.get(processor).livemode
    is_of_other_mode = held.livemode not in {None, mode}
    if since < held.since or held.since < EARLIEST or is_of_other_mode:
        run.keep(since=since, step=STEPS[0], cursor="", books={}, differences=[], counts={}, livemode=mode)
    return run


def _new(processor: str, holder: str, since: datetime) -> Reconciliation:
    now = timezone.now()
    try:
        with transaction.atomic():
            return Reconciliation.objects.create(
                processor=processor,
                livemode=processors.get(processor).livemode,
                since=since,
                started_at=now,
                holder=holder,
                held_until=now + LEASE,
                step=STEPS[0],
            )
    except IntegrityError as error:
        raise Busy("another run has just begun") from error


def window(processor: str, now: datetime) -> datetime:
    """From when on to ask: some days before the last whole run began, so that windows overlap.

    What nobody can explain is looked at again until somebody has: a difference does not end by growing old. So is what
    waits for staff or for time, for LONGEST_HELD: all lists are read from there on, each time, and staff are told of
    the quarantine anyhow. What staff have corrected is settled, and stays a difference.
    """
    last = finished(processor)
    if last is None:
        return now - timedelta(days=settings.RECONCILE_FIRST_DAYS)
    usual = last.started_at - timedelta(days=settings.RECONCILE_OVERLAP_DAYS)
    if last.unexplained:
        return max(EARLIEST, min(usual, last.since))
    if any(each["cause"] != CORRECTED.name for each in last.differences):
        return min(usual, max(last.since, now - LONGEST_HELD))
    return usual


def read_since(processor: str, since: datetime) -> datetime:
    """Where the lists begin that whole runs have read, or one that looks back to `since`.

    Their windows overlap, so nothing of this account in this mode lies between them.
    """
    first: datetime | None = _done(processor).aggregate(first=Min("since"))["first"]
    return min(first or since, since)


def finished(processor: str) -> Reconciliation | None:
    """The last run that came to its end."""
    return _done(processor).order_by("-finished_at").first()


def _done(processor: str) -> QuerySet[Reconciliation]:
    """Whole runs in the mode of the site's key: under another key it was another account's lists that were read."""
    of_this_mode = Q(livemode=processors.get(processor).livemode) | Q(livemode=None)
    return Reconciliation.objects.filter(of_this_mode, processor=processor, finished_at__isnull=False)


def finish(run: Run, *, books: dict[str, Any], differences: list[Any], equal: bool, unexplained: int) -> None:
    """It came to its end."""
    now, last = timezone.now(), finished(run.row.processor)
    same = last is not None and last.equal is equal
    run.keep(
        finished_at=now,
        books=books,
        differences=differences,
        equal=equal,
        equal_since=last.equal_since if last and same else now,
        unexplained=unexplained,
        unseen=sum(count["new"] for count in run.row.counts.values()),
        error="",
    )


def is_due(processor: str) -> bool:
    """Whether the next run's time has come: one stands still, or the last one began long enough ago."""
    now = timezone.now()
    held = Reconciliation.objects.filter(processor=processor, finished_at=None).first()
    if held is not None:
        # One that the processor did not answer waits for a while; one that was killed does not.
        return now >= held.held_until + (STANDS_STILL if held.error else timedelta(0))
    last = finished(processor)
    return last is None or now - last.started_at >= timedelta(minutes=settings.RECONCILE_EVERY_MINUTES)

"""Sole writer of check results and of alerts: what staff are told of the site's own health."""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from donations import outbox
from donations.models import Alert, CheckResult
from donations.selectors.health import EXPLAINED, SEEN_LASTS, Trouble

log = logging.getLogger(__name__)
WORDS_KEPT = 5
QUIET_FOR = timedelta(minutes=15)  # a trouble that comes and goes is one trouble, and one mail


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a check found: how many findings, the first of them in words, and how much was looked at.

    `explained` counts what is not equal though its cause is known: it is no finding, and wants nobody. `unseen` counts
    what was not here and was fetched; `undelivered_at` is of when the latest event is that was not delivered
    for an hour; `longest_gap` is of the check of deliveries alone.
    """

    findings: int
    explained: int = 0
    words: tuple[str, ...] = ()
    checked: Mapping[str, int] = field(default_factory=dict)
    unseen: int | None = None
    undelivered_at: datetime | None = None
    longest_gap: timedelta | None = None


# ---- checks


EVERY = {
    CheckResult.Kind.BOOKS: timedelta(minutes=10),
    CheckResult.Kind.RECONCILE: timedelta(hours=1),
    CheckResult.Kind.DELIVERIES: timedelta(hours=1),
}
LEASE = timedelta(minutes=2)  # of a check whose process died, another one is begun then


def claim(kind: str) -> bool:
    """Whether this check is due and now ours: of several processes one runs it. It is due again after it was kept."""
    now = timezone.now()
    CheckResult.objects.get_or_create(kind=kind, defaults={"due_at": now})
    # The condition decides between two processes: one of them changes the row.
    return bool(CheckResult.objects.filter(kind=kind, due_at__lte=now).update(due_at=now + LEASE))


@contextmanager
def held(kind: str, lease: timedelta = LEASE) -> Iterator[None]:
    """Hold a claimed check while it runs, for however long that is.

    On a connection of another thread's: the check itself reads in one snapshot, in which nothing can be written.
    """
    is_done = threading.Event()
    holder = threading.Thread(target=_hold, args=(kind, lease, is_done), name=f"holds-{kind}", daemon=True)
    holder.start()
    try:
        yield
    finally:
        is_done.set()
        holder.join()


def _hold(kind: str, lease: timedelta, is_done: threading.Event) -> None:
    while not is_done.wait(lease.total_seconds() / 4):
        until = timezone.now() + lease
        try:
            # Only ever later: a result that was kept meanwhile says when it is due.
            CheckResult.objects.filter(kind=kind, due_at__lt=until).update(due_at=until)
        except DatabaseError:
            log.exception("the check of %s could not be held; it goes on, and is held at the next try", kind)
        finally:
            connection.close()


def keep(kind: str, result: Result) -> None:
    """Store a check's result. `since` stays while the answer stays the same."""
    now, is_equal = timezone.now(), not (result.findings or result.explained)
    with transaction.atomic():
        row, _ = CheckResult.objects.select_for_update(no_key=True).get_or_create(kind=kind, defaults={"due_at": now})
        if row.is_equal is not is_equal:
            row.is_equal, row.since = is_equal, now
        row.due_at = now + EVERY[CheckResult.Kind(kind)]
        row.finished_at, row.findings, row.checked = now, result.findings, dict(result.checked)
        if result.explained:
            row.checked[EXPLAINED] = result.explained
        row.words = "\n".join(result.words[:WORDS_KEPT])
        row.unseen, row.undelivered_at, row.longest_gap = result.unseen, result.undelivered_at, result.longest_gap
        row.save()


# ---- alerts


def note(troubles: Iterable[Trouble]) -> None:
    """Begin an alert for each new trouble, and end those that were not there for a while.

    Mail tells of both, and once a day of what still stands: by then it may be more.
    """
    now, standing = timezone.now(), {trouble.kind: trouble for trouble in troubles}
    with transaction.atomic():
        alerts = Alert.objects.select_for_update(no_key=True).filter(ended_at__isnull=True)
        known = {alert.kind: alert for alert in alerts}
        for kind in sorted(standing.keys() | known.keys()):
            _note(known.get(kind), standing.get(kind), now)


def _note(alert: Alert | None, trouble: Trouble | None, now: datetime) -> None:
    if alert and trouble:
        # In today's words: the numbers may have grown since it was mailed.
        Alert.objects.filter(pk=alert.pk).update(
            seen_at=now, words=trouble.words[:300], remedy=trouble.remedy[:300], path=trouble.path
        )
        if days := (now - alert.began_at).days:
            _mail(f"{alert.pk}:stands:{days}")
    elif trouble:
        _begin(trouble, now)
    elif alert and now - alert.seen_at >= QUIET_FOR + SEEN_LASTS:
        Alert.objects.filter(pk=alert.pk).update(ended_at=now)
        _mail(f"{alert.pk}:ended")
    elif alert:
        # The banner shows it no longer: who acted on it now, would act on what is settled. Put back by as much as the
        # quiet is longer, so that it is mailed to be over QUIET_FOR after this look.
        Alert.objects.filter(pk=alert.pk, seen_at__gt=now - SEEN_LASTS).update(seen_at=now - SEEN_LASTS)


def _begin(trouble: Trouble, now: datetime) -> None:
    # Of two processes that see it at once, the table's constraint lets one begin it.
    begun = Alert.objects.bulk_create(
        [
            Alert(
                kind=trouble.kind,
                words=trouble.words[:300],
                remedy=trouble.remedy[:300],
                path=trouble.path,
                began_at=now,
                seen_at=now,
            )
        ],
        ignore_conflicts=True,
    )
    alert = Alert.objects.filter(kind=begun[0].kind, ended_at__isnull=True).get()
    _mail(f"{alert.pk}:began")


def _mail(subject: str) -> None:
    if settings.STAFF_MAIL:
        outbox.enqueue("alert", [subject])

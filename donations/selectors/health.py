"""Whether the site is well: its inbox, its mail, its checks, and the troubles that need a person."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.admin.utils import quote
from django.contrib.humanize.templatetags.humanize import apnumber
from django.db import connection
from django.db.models import Count, Min, Q
from django.urls import reverse
from django.utils import timezone

from donations.models import Alert, CheckResult, InboxEvent, OutboxMessage, Reconciliation, RefundRequest
from donations.models.inbox import GAVE_UP, PAID_TWICE
from donations.processors.base import KEY_LASTS
from donations.selectors import refunds

PATIENCE = timedelta(minutes=1)
WRONG_MODE_LASTS = timedelta(days=1)
MAIL_LASTS = timedelta(days=3)
REFUND_PATIENCE = timedelta(hours=1)
KEY_HOURS = KEY_LASTS // timedelta(hours=1)
SHORTEST_SILENCE = timedelta(hours=1)
SILENT = "deliveries_silent"
SILENCE = 4  # times the longest usual one
SHORTEST_SPAN = timedelta(days=1)  # of less than a day, nobody can say what is usual
CHECKED_WITHIN = timedelta(hours=1)
RECONCILED_WITHIN = timedelta(hours=3)
EXPLAINED = "explained"  # the name of that number among those that a check keeps
SEEN_LASTS = timedelta(seconds=100)  # somebody looks every minute, at least
State = InboxEvent.State
Kind = CheckResult.Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The last result of a check; `is_equal` is None until it has run.

    What is not equal and `explained` is no finding: it is told, and alarms nobody.
    """

    finished_at: datetime | None = None
    is_equal: bool | None = None
    since: datetime | None = None
    findings: int = 0
    explained: int = 0
    words: tuple[str, ...] = ()
    unseen: int | None = None
    undelivered_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether what the processor tells us arrives, is made something of, and adds up. Times are UTC.

    `wrong_mode_lately` are of the last day; mail that is unsure or failed is of the last three. `refunds_unanswered`
    got no answer for an hour; `unanswered_refunds` are the gifts, one a refund, of those that are not sent again.
    `reconciling_since` is when a reconciliation began that has not come to its end, and `reconcile_error` why.
    """

    now: datetime
    last_received: datetime | None
    last_delivered: datetime | None
    longest_gap: timedelta | None
    oldest_unprocessed: datetime | None
    unprocessed: int
    waiting: int
    quarantined: int
    paid_twice: int
    dead_letters: int
    wrong_mode: int
    wrong_mode_lately: int
    mail_unsure: int
    mail_failed: int
    mail_given_up: int
    refunds_unanswered: int
    unanswered_refunds: tuple[str, ...]
    books: Check
    reconcile: Check
    reconciling_since: datetime | None
    reconcile_error: str

    def is_late(self) -> bool:
        """Whether an event has lain unprocessed for longer than a minute."""
        return self.oldest_unprocessed is not None and self.now - self.oldest_unprocessed > PATIENCE

    def is_silent(self) -> bool:
        """Whether deliveries have been away four times as long as they ever are, and an hour at least; or are lost."""
        if self.is_lost():
            return True
        if self.longest_gap is None or self.last_delivered is None:
            return self._is_unheard()
        return self.now - self.last_delivered > max(SHORTEST_SILENCE, SILENCE * self.longest_gap)

    def is_lost(self) -> bool:
        """Whether an event had to be fetched that was not delivered within an hour, and nothing was delivered since."""
        lost = self.reconcile.undelivered_at
        return lost is not None and (self.last_delivered is None or self.last_delivered < lost)

    def _is_unheard(self) -> bool:
        """Whether events are fetched in these days, and none is delivered: nobody knows yet what is usual."""
        if self.last_received is None or self.now - self.last_received > SHORTEST_SPAN:
            return False
        return self.last_delivered is None or self.last_received - self.last_delivered > SHORTEST_SPAN

    def is_unchecked(self) -> bool:
        """Whether the books were checked once, and not for an hour since."""
        return self.books.finished_at is not None and self.now - self.books.finished_at > CHECKED_WITHIN

    def is_unreconciled(self) -> bool:
        """Whether a reconciliation has not ended for over three hours, or was due for as long and did not begin."""
        began, ended = self.reconciling_since, self.reconcile.finished_at
        if began is not None and self.now - began > RECONCILED_WITHIN:
            return True
        pause = timedelta(minutes=settings.RECONCILE_EVERY_MINUTES)
        return ended is not None and self.now - ended > pause + RECONCILED_WITHIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What needs a person: in words without personal data, what to do, and where."""

    kind: str
    words: str
    remedy: str
    path: str

    @property
    def permission(self) -> str:
        """The right that one needs where it is mended."""
        for room in ("inboxevent", "outboxmessage", "gift"):
            if self.path.startswith(reverse(f"admin:donations_{room}_changelist")):
                return f"donations.view_{room}"
        return "donations.view_monthtotal"


def health() -> Health:
    """The state of inbox, mail, refunds and checks, each found by an index of its own."""
    now, alarms = timezone.now(), _alarms()
    is_ready = Q(state=State.READY)
    queue = InboxEvent.objects.filter(next_try_at__isnull=False).aggregate(
        oldest=Min("received_at", filter=is_ready),
        unprocessed=Count("id", filter=is_ready),
        waiting=Count("id", filter=Q(state=State.WAITING)),
    )
    last_received, last_delivered = _last_events()
    unanswered = list(refunds.unanswered(now=now, age=REFUND_PATIENCE).values_list("gift_id", "requested_at"))
    checks = {row.kind: row for row in CheckResult.objects.all()}
    deliveries = checks.get(Kind.DELIVERIES)
    standing = Reconciliation.objects.filter(finished_at=None).order_by("started_at").first()
    return Health(
        now=now,
        last_received=last_received,
        last_delivered=last_delivered,
        longest_gap=deliveries.longest_gap if deliveries else None,
        oldest_unprocessed=queue["oldest"],
        unprocessed=queue["unprocessed"],
        waiting=queue["waiting"],
        **alarms,
        **_mail(now),
        refunds_unanswered=len(unanswered),
        unanswered_refunds=tuple(gift for gift, asked_at in unanswered if asked_at <= now - KEY_LASTS),
        books=_check(checks.get(Kind.BOOKS)),
        reconcile=_check(checks.get(Kind.RECONCILE)),
        reconciling_since=standing.started_at if standing else None,
        reconcile_error=standing.error if standing else "",
    )


def _last_events() -> tuple[datetime | None, datetime | None]:
    """When the last event came, and the last one that the processor delivered: nearly always the same.

    What staff enter tells nothing of whether the processor reaches us.
    """
    newest = InboxEvent.objects.order_by("-id").values_list("received_at", "origin")
    last = newest.exclude(origin=InboxEvent.Origin.STAFF).first()
    delivery = InboxEvent.Origin.DELIVERY
    delivered = last if last is None or last[1] == delivery else newest.filter(origin=delivery).first()
    return (last[0] if last else None, delivered[0] if delivered else None)


MAIL = f"""
SELECT state, COUNT(*), SUM(CASE WHEN attempts >= {OutboxMessage.MOST_ATTEMPTS} THEN 1 ELSE 0 END)
FROM {OutboxMessage._meta.db_table} WHERE state IN ('failed', 'unsure') AND next_try_at > %s GROUP BY state
"""  # noqa: S608 (the only text put in is our own table name)


def _mail(now: datetime) -> dict[str, int]:
    """Mail that was not sent; in literal states, as SQLite takes the partial index for these alone.

    What the mail server refused for good is about one address; what was given up is about the server, or about us.
    """
    with connection.cursor() as cursor:
        cursor.execute(MAIL, [connection.ops.adapt_datetimefield_value(now - MAIL_LASTS)])
        found = {state: (number, given_up) for state, number, given_up in cursor.fetchall()}
    (unsure, _), (failed, given_up) = (found.get(state, (0, 0)) for state in ("unsure", "failed"))
    return {"mail_unsure": unsure, "mail_failed": failed, "mail_given_up": given_up}


def _check(row: CheckResult | None) -> Check:
    if row is None:
        return Check()
    return Check(
        finished_at=row.finished_at,
        is_equal=row.is_equal,
        since=row.since,
        findings=row.findings,
        explained=row.checked.get(EXPLAINED, 0),
        words=tuple(row.words.splitlines()),
        unseen=row.unseen,
        undelivered_at=row.undelivered_at,
    )


ALARMS = f"""
SELECT
  SUM(CASE WHEN state = 'quarantined' THEN 1 ELSE 0 END) AS quarantined,
  SUM(CASE WHEN state = 'quarantined' AND reason LIKE '{PAID_TWICE}%%' THEN 1 ELSE 0 END) AS paid_twice,
  SUM(CASE WHEN state = 'quarantined' AND reason LIKE '{GAVE_UP}%%' THEN 1 ELSE 0 END) AS dead_letters,
  SUM(CASE WHEN state = 'wrong_mode' THEN 1 ELSE 0 END) AS wrong_mode,
  SUM(CASE WHEN state = 'wrong_mode' AND received_at > %s THEN 1 ELSE 0 END) AS wrong_mode_lately
FROM {InboxEvent._meta.db_table} WHERE state IN ('quarantined', 'wrong_mode')
"""  # noqa: S608 (the only texts put in are our own table name and constants)


def _alarms() -> dict[str, int]:
    """How many rows are in each state that wants a person. SQLite takes the partial index for literal states alone."""
    lately = connection.ops.adapt_datetimefield_value(timezone.now() - WRONG_MODE_LASTS)
    with connection.cursor() as cursor:
        cursor.execute(ALARMS, [lately])
        names = [column[0] for column in cursor.description]
        return {name: int(number or 0) for name, number in zip(names, cursor.fetchone(), strict=True)}


# ---- what needs a person


def troubles(health: Health) -> list[Trouble]:
    """Everything that somebody has to look at, what matters most first."""
    return [*_of_the_books(health), *_of_the_inbox(health), *_of_calls_and_mail(health)]


def _of_the_books(health: Health) -> Iterator[Trouble]:
    if health.books.is_equal is False:
        yield Trouble(
            kind="books_unequal",
            words=f"The books are not equal: {_count(health.books.findings, 'finding')}.",
            remedy="Read the findings on the health page; manage.py check_books prints all of them with what to do.",
            path=reverse("staff-health"),
        )
    if health.is_unchecked():
        yield Trouble(
            kind="books_unchecked",
            words="The books were not checked for over an hour.",
            remedy="Run manage.py check_books: it says what stops it. Then look whether the worker, or the site, runs.",
            path=reverse("staff-health"),
        )
    if health.reconcile.findings:
        yield Trouble(
            kind="processor_unequal",
            words="Our books and the processor’s are not equal: "
            f"{_count(health.reconcile.findings, 'difference')} without a reason.",
            remedy="Read the differences on the health page; manage.py reconcile --check prints all of them "
            "as they are now, each with what to do.",
            path=reverse("staff-health"),
        )
    if health.is_unreconciled():
        yield Trouble(
            kind="unreconciled",
            words="For over three hours nothing that was missed was fetched, and both books were not compared.",
            remedy="Read on the health page why. manage.py reconcile goes on with it, or begins one; "
            "then look whether the worker, or the site, runs.",
            path=reverse("staff-health"),
        )


def _of_the_inbox(health: Health) -> Iterator[Trouble]:
    inbox = reverse("admin:donations_inboxevent_changelist")
    others = health.quarantined - health.paid_twice
    if others:
        yield Trouble(
            kind="quarantine",
            words=f"{_count(others, 'event')} {_are(others)} in quarantine and not in the figures.",
            remedy=f"Open the quarantine, and accept or dismiss {'it' if others == 1 else 'each of them'}.",
            path=f"{inbox}?state__exact=quarantined",
        )
    if health.paid_twice:
        gifts = "a gift that was" if health.paid_twice == 1 else "gifts that were"
        yield Trouble(
            kind="paid_twice",
            words=f"{_count(health.paid_twice, 'payment')} came for {gifts} paid already.",
            remedy=f"Refund {'it' if health.paid_twice == 1 else 'each'} in the processor’s dashboard "
            "and dismiss its event, or accept it.",
            path=f"{inbox}?state__exact=quarantined",
        )
    if health.wrong_mode_lately:
        yield Trouble(
            kind="wrong_mode",
            words=f"{_count(health.wrong_mode_lately, 'event')} of the other mode came within a day.",
            remedy="Look at the mode of the webhook endpoint in the processor’s dashboard, and at the site’s key.",
            path=f"{inbox}?state__exact=wrong_mode",
        )


def _of_calls_and_mail(health: Health) -> Iterator[Trouble]:
    if health.is_silent():
        yield Trouble(
            kind=SILENT,
            words="Nothing arrives of what the processor tells us: for over an hour it has had to be fetched."
            if health.is_lost()
            else "The processor has told us nothing for longer than usual.",
            remedy="Look in its dashboard whether the webhook endpoint is enabled, and which answers it got.",
            path=reverse("staff-health"),
        )
    if health.mail_unsure:
        yield Trouble(
            kind="mail_unsure",
            words=f"{_count(health.mail_unsure, 'message')} may or may not have been sent within three days.",
            remedy=f"Look at the mail server’s log; the site never sends {_them(health.mail_unsure)} again by itself.",
            path=f"{reverse('admin:donations_outboxmessage_changelist')}?state__exact=unsure",
        )
    if health.mail_given_up:
        yield Trouble(
            kind="mail_given_up",
            words=f"{_count(health.mail_given_up, 'message')} could not be sent within three days: "
            f"the mail server took nothing in {apnumber(OutboxMessage.MOST_ATTEMPTS)} tries.",
            remedy="Read in the outbox why; then look at the mail server, EMAIL_URL and MAIL_FROM.",
            path=f"{reverse('admin:donations_outboxmessage_changelist')}?state__exact=failed",
        )
    yield from _of_refunds(health)


def _of_refunds(health: Health) -> Iterator[Trouble]:
    """After an hour somebody may look; after 23, when they are not sent again, somebody has to."""
    if health.unanswered_refunds:
        number, gifts = len(health.unanswered_refunds), sorted(set(health.unanswered_refunds))
        gift_page = reverse("admin:donations_gift_change", args=[quote(gifts[0])])
        yield Trouble(
            kind="refund_unanswered",
            words=f"{_count(number, 'refund')} got no answer from the payment service for {KEY_HOURS} hours, "
            f"and {_are(number)} not sent again.",
            remedy=f"Look for {_them(number)} there, and see the page of the gift for what to do.",
            path=gift_page if len(gifts) == 1 else reverse("staff-health"),
        )
    elif health.refunds_unanswered:
        number = health.refunds_unanswered
        yield Trouble(
            kind="refund_unanswered",
            words=f"{_count(number, 'refund')} {_are(number)} without an answer from the processor for over an hour.",
            remedy=f"Look in the processor’s dashboard whether {'it was' if number == 1 else 'they were'} made; "
            f"the site asks again for {KEY_HOURS} hours.",
            path=reverse("staff-health"),
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _them(number: int) -> str:
    return "it" if number == 1 else "them"


def troubles_seen() -> list[Trouble]:
    """The troubles that were there when somebody looked last: one row each, for pages that must cost little."""
    seen = Alert.objects.filter(ended_at__isnull=True, seen_at__gt=timezone.now() - SEEN_LASTS).order_by("began_at")
    return [Trouble(kind=alert.kind, words=alert.words, remedy=alert.remedy, path=alert.path) for alert in seen]


def unanswered_refunds(now: datetime, most: int = 20) -> list[RefundRequest]:
    """Refunds that the processor has not answered for an hour, the oldest first."""
    return list(refunds.unanswered(now=now, age=REFUND_PATIENCE)[:most])


# ---- how often the processor calls

USUAL = timedelta(days=30)


def longest_gap() -> timedelta | None:
    """The longest time without a delivery in the 30 days up to the last one; None where they span less than a day.

    A silence that staff were told of is not usual: after one, the next would be told of four times later.
    """
    deliveries = InboxEvent.objects.filter(origin=InboxEvent.Origin.DELIVERY).order_by("id")
    last = deliveries.values_list("received_at", flat=True).last()
    if last is None:
        return None
    told = list(Alert.objects.filter(kind=SILENT, began_at__gte=last - USUAL).values_list("began_at", flat=True))
    longest, first, before = timedelta(), None, None
    for at in deliveries.filter(received_at__gte=last - USUAL).values_list("received_at", flat=True).iterator():
        first = first or at
        if before and not any(before < began < at for began in told):
            longest = max(longest, at - before)
        before = at
    return longest if first and last - first >= SHORTEST_SPAN else None

"""Closing a month: a statement that stays, and whatever is booked later shown beside it. Nothing is reopened.

A statement is about the entries up to the newest one when it was made. They are a fixed set, so that its file can be
made again, byte for byte, at any time.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import chain, islice
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from donations import exports, money, processors
from donations.models import Campaign, Gift, InboxEvent, LedgerEntry, Lookup, MonthStatement, OfflineRequest
from donations.periods import Month
from donations.processors.base import Malformed
from donations.processors.facts import Fact, fact_from_json
from donations.selectors import finance, statements
from donations.selectors.finance import LEDGER, Selection
from donations.selectors.statements import Change, Total

log = logging.getLogger(__name__)
State = InboxEvent.State
MOST_OPEN_EVENTS = 1000
MOST_NAMED = 5
MOST_LATER = 200
GIFTS_AT_ONCE = 500
LONGEST_LOCK_WAIT = timedelta(seconds=5)
LOCK_NOT_AVAILABLE = "55P03"


class CannotClose(Exception):
    """A month that cannot be closed; its text says why and what to do."""


class OpenEvents(CannotClose):
    """What may belong to the month is not settled: inbox events, what staff entered and nobody has approved, fees.

    With a reason it can be closed in spite of them.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A figure as closed and restated; `amount` is minor units, signed. The bar's figure has no rows and no kind."""

    kind: str
    currency: str
    rows: tuple[int, int]
    amount: tuple[int, int]

    @property
    def difference(self) -> int:
        closed, restated = self.amount
        return restated - closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A statement beside what its month's books say now, `lines` for finance's month and `counted` for the bar's.

    `later` and `changes` are the latest entries that were booked since: for the month's days, and for its gifts.
    """

    lines: tuple[Line, ...]
    counted: tuple[Line, ...]
    later: tuple[LedgerEntry, ...]
    changes: tuple[Change, ...]

    @property
    def books_are_restated(self) -> bool:
        return any(line.rows[0] != line.rows[1] for line in self.lines)

    @property
    def bar_is_restated(self) -> bool:
        return any(line.difference for line in self.counted)


# ---- closing


def close(*, campaign: Campaign, month: Month, user: User, in_spite_because: str = "") -> MonthStatement:
    """Close a month of the site's own mode. `in_spite_because` closes it though something of it is not settled.

    Raises CannotClose; OpenEvents where a reason would let it be closed all the same.
    """
    _refuse_early(campaign, month)
    chosen = statements.selection(campaign=campaign.pk, month=month, livemode=settings.LIVEMODE)
    reason, waiting = in_spite_because.strip()[:300], list(waiting_requests(campaign=campaign, month=month))
    events = open_events(campaign=campaign, month=month)
    fees = fees_looked_up(campaign=campaign, month=month)
    is_open = events + len(waiting) + fees
    if is_open and not reason:
        raise OpenEvents(_open_words(events, waiting, fees))
    newest = _newest_entry()
    statement = MonthStatement(
        campaign=campaign,
        month=str(month),
        livemode=settings.LIVEMODE,
        newest_entry=newest,
        open_events=is_open,
        reason=reason if is_open else "",
        closed_by=user,
        closed_at=timezone.now(),
        **_figures(chosen, month=month, newest=newest),
    )
    try:
        with transaction.atomic():
            statement.save(force_insert=True)
    except IntegrityError as error:
        raise CannotClose(_closed_words(campaign, month)) from error
    log.info("%s %s is closed up to entry %d", campaign.pk, month, newest)
    return statement


def _refuse_early(campaign: Campaign, month: Month) -> None:
    if timezone.now() < month.next.start(campaign.time_zone):
        raise CannotClose(f"{month.label} is not over yet in {campaign.time_zone}. Close it when it is.")
    if statements.of_month(campaign=campaign.pk, month=month, livemode=settings.LIVEMODE):
        raise CannotClose(_closed_words(campaign, month))


def _closed_words(campaign: Campaign, month: Month) -> str:
    return (
        f"{month.label} of “{campaign.name}” is closed already, and a closed month stays closed. "
        "What was booked since stands beside it as restated."
    )


def _open_words(events: int, waiting: list[OfflineRequest], fees: int) -> str:
    found = [_events_words(events) if events else "", _waiting_words(waiting) if waiting else ""]
    found.append(_fees_words(fees) if fees else "")
    return f"{' '.join(filter(None, found))} Settle that first, or close it all the same and say why."


def _events_words(number: int) -> str:
    many = f"At least {number:,}" if number == MOST_OPEN_EVENTS else f"{number:,}"
    return (
        f"{many} inbox event{'' if number == 1 else 's'} may belong to this month and {'is' if number == 1 else 'are'} "
        "not settled: unprocessed, waiting or quarantined."
    )


def _waiting_words(waiting: list[OfflineRequest]) -> str:
    named = [
        f"{request} of {money.format_minor(request.amount, request.currency)} for {request.day}"
        for request in waiting[:MOST_NAMED]
    ]
    rest = len(waiting) - len(named)
    return f"Not approved or rejected yet: {', '.join(named)}{f', and {rest:,} more' if rest else ''}."


def _fees_words(number: int) -> str:
    many = (
        f"At least {number:,} gifts" if number == MOST_OPEN_EVENTS else f"{number:,} gift{'' if number == 1 else 's'}"
    )
    return (
        f"Of {many} of this month the fee is not booked yet: the payment service is still being asked for it, "
        "which manage.py reconcile does at once."
    )


def _newest_entry() -> int:
    """The number of the newest entry, none with a smaller one being under way.

    PostgreSQL gives out numbers before it commits, so that a smaller one may become visible after a larger. The lock
    waits for every transaction that has begun to book and holds back others, which get their numbers behind it; it is
    held for one look at an index. SQLite has one writer, and here this is it.
    """
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(f"SET LOCAL lock_timeout = {LONGEST_LOCK_WAIT // timedelta(milliseconds=1)}")
                cursor.execute(f"LOCK TABLE {LedgerEntry._meta.db_table} IN SHARE MODE")
            return finance.newest_entry()
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != LOCK_NOT_AVAILABLE:
            raise
        raise CannotClose(
            "Something has been booking for longer than a few seconds, and a month is closed between bookings. "
            "Nothing was closed: try again in a minute."
        ) from error


def _figures(chosen: Selection, *, month: Month, newest: int) -> dict[str, Any]:
    """What a statement says of the entries up to `newest`."""
    totals = statements.totals(chosen, newest=newest)
    return {
        "totals": [asdict(total) for total in totals],
        "counted": statements.counted(chosen, month=month, newest=newest),
        "rows": sum(total.rows for total in totals),
        "sha256": _digest(exports.stream(LEDGER, chosen, newest=newest)),
    }


def _digest(chunks: Iterator[bytes]) -> str:
    digest = sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


# ---- what may belong to a month, and is not in the books


def open_events(*, campaign: Campaign, month: Month) -> int:
    """How many inbox events that may belong to a campaign's month are unprocessed, waiting or quarantined.

    It counts to MOST_OPEN_EVENTS. Whatever does not say when it was, or whose, may belong to it.
    """
    since = InboxEvent.objects.filter(received_at__gte=month.start(campaign.time_zone))
    unprocessed = since.filter(next_try_at__isnull=False).iterator(chunk_size=100)
    # In the words of its index, which SQLite finds by them alone.
    alarms = since.extra(where=["state IN ('quarantined', 'wrong_mode')"])
    quarantined = alarms.filter(state=State.QUARANTINED).iterator(chunk_size=100)
    found = (event for event in chain(unprocessed, quarantined) if _may_belong(event, campaign, month))
    return sum(1 for _ in islice(found, MOST_OPEN_EVENTS))


def waiting_requests(*, campaign: Campaign, month: Month) -> QuerySet[OfflineRequest]:
    """What staff entered for a day of a campaign's month, or an earlier one, and wait to have approved; oldest first.

    It becomes an inbox event only when it is approved, so that the inbox knows nothing of it.
    """
    standing = OfflineRequest.objects.filter(
        status=OfflineRequest.Status.WAITING, campaign=campaign, livemode=settings.LIVEMODE
    )
    return standing.filter(day__lt=month.next.first_day).order_by("day", "pk")


def fees_looked_up(*, campaign: Campaign, month: Month) -> int:
    """Of how many of the month's gifts the fee is not booked, and still being asked for. To MOST_OPEN_EVENTS.

    What is asked for is known by the processor's id alone, which an event of the gift named.
    """
    pending = Lookup.objects.filter(kind=Lookup.Kind.BALANCE_TRANSACTION, next_try_at__isnull=False)
    wanted = set(pending.values_list("object_id", flat=True))
    if not wanted:
        return 0
    without = statements.gifts_without_fee(campaign=campaign.pk, month=month, livemode=settings.LIVEMODE)
    pages = (without[first : first + GIFTS_AT_ONCE] for first in range(0, len(without), GIFTS_AT_ONCE))
    return min(sum(len(_naming(gifts, wanted)) for gifts in pages), MOST_OPEN_EVENTS)


def _naming(gifts: list[str], wanted: set[str]) -> set[str]:
    """Those of these gifts of which an event names something of what is wanted."""
    events = InboxEvent.objects.filter(gift_reference__in=gifts).exclude(gift_reference="")  # its index holds no ""
    named = events.values_list("gift_reference", "facts")
    return {gift for gift, facts in named if facts and not wanted.isdisjoint(map(str, facts.values()))}


def _may_belong(event: InboxEvent, campaign: Campaign, month: Month) -> bool:
    """By every time that it names: a refund's own may be earlier than that of the event which tells of it."""
    try:
        fact, created = _told(event)
    except Malformed:
        return True
    if event.state == State.READY and fact is None:
        return False
    times = [value for value in _values(fact) if isinstance(value, datetime)]
    times += [created] if created else []
    if times and (min(times) >= month.next.start(campaign.time_zone) or max(times) < month.start(campaign.time_zone)):
        return False
    reference = event.gift_reference or getattr(fact, "gift", "")
    gift = Gift.objects.filter(pk=reference).first() if reference else None
    return gift is None or gift.campaign_id == campaign.pk


def _values(fact: Fact | None) -> list[object]:
    return [getattr(fact, field.name) for field in fields(fact)] if fact else []


def _told(event: InboxEvent) -> tuple[Fact | None, datetime | None]:
    """What an event says, and when it was; read from its body where nobody has read it yet. Raises Malformed."""
    if event.state != State.READY or event.body is None:
        return (fact_from_json(event.facts) if event.facts else None), event.created
    told = processors.get(event.processor).interpret(bytes(event.body))
    return (None if told.foreign else told.fact), told.created


# ---- afterwards


def compare(statement: MonthStatement) -> Comparison:
    """A statement beside what the ledger says of the same days now."""
    now = _figures_now(statement)
    return Comparison(
        lines=_lines(closed_totals(statement), now[0]),
        counted=_lines(_as_totals(statement.counted), _as_totals(now[1])),
        later=tuple(statements.booked_later(statement, most=MOST_LATER)),
        changes=tuple(statements.changed_later(statement, most=MOST_LATER)),
    )


def _figures_now(statement: MonthStatement) -> tuple[list[Total], dict[str, int]]:
    chosen, newest = statements.selection_of(statement), finance.newest_entry()
    month = Month.parse(statement.month)
    return statements.totals(chosen, newest=newest), statements.counted(chosen, month=month, newest=newest)


def closed_totals(statement: MonthStatement) -> list[Total]:
    """The totals of a statement, as they were closed."""
    return [Total(**total) for total in statement.totals]


def _as_totals(sums: dict[str, int]) -> list[Total]:
    return [Total(kind="", currency=currency, rows=0, amount=amount) for currency, amount in sums.items()]


def _lines(closed: list[Total], restated: list[Total]) -> tuple[Line, ...]:
    before, after = ({(total.kind, total.currency): total for total in totals} for totals in (closed, restated))
    return tuple(
        Line(
            kind=kind,
            currency=currency,
            rows=_pair(before.get((kind, currency)), after.get((kind, currency)), "rows"),
            amount=_pair(before.get((kind, currency)), after.get((kind, currency)), "amount"),
        )
        for kind, currency in sorted(before.keys() | after.keys())
    )


def _pair(closed: Total | None, restated: Total | None, figure: str) -> tuple[int, int]:
    return getattr(closed, figure, 0), getattr(restated, figure, 0)


def as_closed(statement: MonthStatement) -> Iterator[bytes]:
    """The ledger file of a closed month as it was when it was closed, made anew."""
    return exports.stream(LEDGER, statements.selection_of(statement), newest=statement.newest_entry)


def verify(statement: MonthStatement) -> list[str]:
    """What of a statement the ledger does not bear out any more; nothing, unless somebody has tampered with it."""
    chosen, month = statements.selection_of(statement), Month.parse(statement.month)
    figures = _figures(chosen, month=month, newest=statement.newest_entry)
    return [name for name, value in figures.items() if getattr(statement, name) != value]

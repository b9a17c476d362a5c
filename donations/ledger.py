"""post(): the sole writer of ledger entries."""

from dataclasses import dataclass, fields
from datetime import date, datetime
from operator import attrgetter

from django.utils import timezone

from donations import bulk, periods
from donations.models import Campaign, LedgerEntry

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """A movement to be booked. Field names are the table's columns; amounts are minor units, signed."""

    effective_at: datetime
    local_date: date
    campaign: str
    campaign_month: str
    time_zone: str
    kind: str
    processor: str
    reference: str
    gift: str | None
    tier: str
    currency: str
    amount: int
    goal_amount: int
    livemode: bool
    inbox_event_id: int | None
    settlement_currency: str = ""
    settlement_amount: int | None = None

    @property
    def key(self) -> Key:
        return (self.processor, self.kind, self.reference)


def entry(
    *,
    campaign: Campaign,
    effective_at: datetime,
    kind: str,
    processor: str,
    reference: str,
    currency: str,
    amount: int,
    livemode: bool,
    gift: str | None = None,
    tier: str = "",
    goal_amount: int = 0,
    campaign_month: str = "",
    inbox_event_id: int | None = None,
    settlement_currency: str = "",
    settlement_amount: int | None = None,
) -> NewEntry:
    """An entry with its dates worked out in the campaign's zone; the campaign month is its own unless given."""
    zone = campaign.time_zone
    return NewEntry(
        effective_at=effective_at,
        local_date=periods.local_date(effective_at, zone),
        campaign=campaign.pk,
        campaign_month=campaign_month or str(periods.Month.of(effective_at, zone)),
        time_zone=zone,
        kind=kind,
        processor=processor,
        reference=reference,
        gift=gift,
        tier=tier,
        currency=currency,
        amount=amount,
        goal_amount=goal_amount,
        livemode=livemode,
        inbox_event_id=inbox_event_id,
        settlement_currency=settlement_currency,
        settlement_amount=settlement_amount,
    )


FIELDS = tuple(field.name for field in fields(NewEntry))
COLUMNS = (*FIELDS, "booked_at")
UNLESS_BOOKED = "ON CONFLICT (processor, kind, reference) DO NOTHING RETURNING processor, kind, reference"
_values = attrgetter(*FIELDS)


def post(entries: list[NewEntry]) -> list[NewEntry]:
    """Book what is not booked yet and return just that. Call it inside a transaction, with the gifts locked.

    Keys are sorted first, so that two workers that book the same movements wait for one another and never deadlock.
    """
    by_key = {new.key: new for new in reversed(entries)}
    now = timezone.now()
    rows = [(*_values(by_key[key]), now) for key in sorted(by_key)]
    return [by_key[key] for key in bulk.insert(LedgerEntry, COLUMNS, rows, then=UNLESS_BOOKED)]

"""The ledger, entry by entry: each is explained by an event and agrees with its gift."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from donations import money, periods
from donations.invariants.corrections import is_corrected
from donations.invariants.findings import Finding, Tally, pages
from donations.invariants.heard import facts_of
from donations.invariants.movements import Movement, movements
from donations.models import Gift, InboxEvent, LedgerEntry

PAGE = 1000
CLOCKS = timedelta(minutes=5)  # by which two machines' clocks may differ
Kind = LedgerEntry.Kind
State = InboxEvent.State

RESTORE = "Restore the ledger’s row from a backup, then run manage.py rebuild."


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry with its gift, the gift's own month, the event that it names, and what that event tells of it."""

    entry: LedgerEntry
    gift: Gift | None
    gift_month: str
    event: InboxEvent | None
    told: Movement | None

    @property
    def key(self) -> str:
        return f"entry {self.entry.pk}, {self.entry.kind} {self.entry.reference}"


def check_entries(tally: Tally) -> Iterator[Finding]:
    """Every entry of the ledger, against its event, its gift and its dates."""
    for entries in pages(LedgerEntry.objects.all(), PAGE):
        tally["entries"] += len(entries)
        for entry in _page(entries):
            for invariant in INVARIANTS:
                for words in invariant(entry):
                    yield Finding(invariant=invariant.__name__, key=entry.key, words=words, remedy=RESTORE)


def _page(entries: list[LedgerEntry]) -> list[Entry]:
    references = {entry.gift_id for entry in entries if entry.gift_id}
    gifts = Gift.objects.in_bulk(references)
    paid = LedgerEntry.objects.filter(gift__in=references, kind__in=LedgerEntry.GIFT_KINDS)
    months: dict[str | None, str] = dict(paid.values_list("gift_id", "campaign_month"))
    numbers = {entry.inbox_event_id for entry in entries if entry.inbox_event_id}
    events = InboxEvent.objects.defer("body").in_bulk(numbers)
    told = _told(events)
    return [
        Entry(
            entry,
            gifts.get(entry.gift_id or ""),
            months.get(entry.gift_id or "", ""),
            events.get(entry.inbox_event_id or 0),
            told.get((entry.inbox_event_id or 0, entry.kind, entry.reference)),
        )
        for entry in entries
    ]


def _told(events: dict[int, InboxEvent]) -> dict[tuple[int, str, str], Movement]:
    facts = facts_of(events.values())
    return {
        (number, str(movement.kind), movement.reference): movement
        for number, row in events.items()
        if (heard := facts.heard(row))
        for movement in movements(heard)
    }


# ---- the invariants: each tells what is wrong with an entry

Told = Iterator[str]


def entry_is_told_of(entry: Entry) -> Told:
    """Every entry names the event that it was booked for, and that event tells of just this movement and time."""
    booked, event, told = entry.entry, entry.event, entry.told
    if event is None:
        yield "the event that it was booked for is not here"
        return
    if event.state not in InboxEvent.HEARD or event.processor != booked.processor:
        yield f"the event that it was booked for is of {event.processor}, its state “{event.get_state_display()}”"
    if told is None:
        yield f"the event that it was booked for, {event.event_id}, does not tell of it"
        return
    if booked.effective_at not in told.moments:
        yield f"it has the time {booked.effective_at}, and its event tells another"
    sums = (booked.currency, booked.settlement_amount, booked.settlement_currency)
    is_amount = booked.amount == told.amount or is_corrected(booked, told)
    if not is_amount or sums != (told.currency, told.settlement_amount, told.settlement_currency):
        yield "its amount or currency is not the one that its event tells"
    if told.campaign and told.campaign != booked.campaign_id:
        yield f"its campaign is {booked.campaign_id}, and its event tells of {told.campaign}"


def entry_was_booked_in_time(entry: Entry) -> Told:
    """It was booked after its event was received, and before that event was settled."""
    event, booked_at = entry.event, entry.entry.booked_at
    if event is None:
        return
    is_late = event.settled_at is not None and booked_at > event.settled_at + CLOCKS
    if is_late or booked_at < event.received_at - CLOCKS:
        yield f"it says that it was booked at {booked_at}, which is not when its event was processed"


def signs_are_of_the_kind(entry: Entry) -> Told:
    """What comes in is positive, what is taken is negative, and nothing is zero; settlement comes with a currency."""
    booked = entry.entry
    wrong_way = (booked.kind in LedgerEntry.ADDING and booked.amount < 0) or (
        booked.kind in LedgerEntry.TAKING and booked.amount > 0
    )
    if wrong_way or not booked.amount:
        yield f"its amount of {money.with_code(booked.amount, booked.currency)} has the wrong sign"
    if (booked.settlement_amount is None) != (booked.settlement_currency == ""):
        yield "its settlement has an amount without a currency, or the other way round"


def entry_is_like_its_gift(entry: Entry) -> Told:
    """An entry has its gift's campaign, currency, mode and tier."""
    booked, gift = entry.entry, entry.gift
    if booked.gift_id is None:
        if booked.kind not in {Kind.FEE, Kind.ADJUSTMENT}:
            yield "it belongs to no gift"
        if booked.tier:
            yield f"it belongs to no gift, and has the tier {booked.tier}"
        return
    if gift is None:
        yield f"its gift {booked.gift_id} is not here"
        return
    pairs = {
        "campaign": (booked.campaign_id, gift.campaign_id),
        "mode": (booked.livemode, gift.livemode),
        "tier": (booked.tier, gift.tier),
    }
    if booked.kind != Kind.FEE:
        pairs["currency"] = (booked.currency, gift.currency)
    for name, (own, its_gift) in pairs.items():
        if own != its_gift:
            yield f"its {name} is {own}, and its gift’s {its_gift}"


def goal_amount_leaves_out_the_cover(entry: Entry) -> Told:
    """What counts toward the goal is the gift without its fee cover, and nothing of other movements."""
    booked, gift = entry.entry, entry.gift
    is_gift = booked.kind in LedgerEntry.GIFT_KINDS
    expected = max(0, booked.amount - gift.fee_cover) if gift and is_gift else 0
    if booked.goal_amount != expected and (gift or not is_gift):
        counts, should = (money.with_code(each, booked.currency) for each in (booked.goal_amount, expected))
        yield f"{counts} count toward the goal, and {should} should"


def gift_was_paid_as_asked(entry: Entry) -> Told:
    """A gift's entry is what the gift asks for, unless staff accepted another amount than its checkout asked for."""
    booked, gift, event = entry.entry, entry.gift, entry.event
    if gift is None or booked.kind not in LedgerEntry.GIFT_KINDS:
        return
    if event and event.decision == "accept" and gift.checkout_parameters:
        return
    if booked.amount != gift.total:
        paid, asked = (money.with_code(each, booked.currency) for each in (booked.amount, gift.total))
        yield f"{paid} were booked, and its gift asks for {asked}"


def dates_are_of_the_zone(entry: Entry) -> Told:
    """The day is that of the stored time in the stored zone; the month is the gift's, and a gift's month its own."""
    booked = entry.entry
    if not periods.is_zone(booked.time_zone):
        yield f"{booked.time_zone} is no time zone"
        return
    day = periods.local_date(booked.effective_at, booked.time_zone)
    if booked.local_date != day:
        yield f"its day is {booked.local_date}, and by its time and zone {day}"
    month = str(periods.Month.of(booked.effective_at, booked.time_zone))
    if booked.kind not in LedgerEntry.GIFT_KINDS and booked.gift_id:
        month = entry.gift_month
    if booked.campaign_month != month:
        yield f"its month is {booked.campaign_month}, and should be {month or 'that of a gift, which is not booked'}"


INVARIANTS: tuple[Callable[[Entry], Told], ...] = (
    entry_is_told_of,
    entry_was_booked_in_time,
    signs_are_of_the_kind,
    entry_is_like_its_gift,
    goal_amount_leaves_out_the_cover,
    gift_was_paid_as_asked,
    dates_are_of_the_zone,
)

"""What a batch knows while it decides: gifts, locked, and what stands or is about to be booked of each."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, TypeVar

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from donations import bulk, ledger, projections
from donations.ledger import NewEntry
from donations.models import Campaign, Gift, InboxEvent, LedgerEntry, Lookup, RecurringGift
from donations.models.inbox import UNBOOKABLE, WANTS_PAYMENT
from donations.processors.base import Contact, Interpretation
from donations.processors.facts import PayoutChanged, TransactionSeen
from donations.recurring import RecurringNews

Given = TypeVar("Given", Gift, RecurringGift)
State = InboxEvent.State
Kind = LedgerEntry.Kind
ANY = Q()
PATIENT_FOR = timedelta(minutes=10)  # deliveries come in any order, but seldom so far apart
# Of another software for certain: what has facts is foreign for want of a gift alone, which may come yet.
OF_OTHERS = Q(state=State.FOREIGN, facts__isnull=True)
WAITED = Q(state=State.WAITING) | Q(state=State.FOREIGN, facts__isnull=False) | InboxEvent.IN_WANT
# What tells that a payment is none of our gifts: it is another software's, or staff dismissed it.
STRANGERS = (
    OF_OTHERS
    | Q(state=State.FOREIGN, facts__kind="invoice_paid")
    | Q(state=State.DISMISSED, facts__kind__in=["paid", "invoice_paid"])
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of an inbox row: its state, why, and the gift, or monthly gift, that it is about.

    `at_last` is what becomes of one that waits when it has waited for too long.
    """

    state: str
    reason: str = ""
    gift: str = ""
    at_last: str = State.QUARANTINED


@dataclass(frozen=True, slots=True)
class Item:
    """A claimed row with its interpretation, which has a fact."""

    row: InboxEvent
    told: Interpretation

    @property
    def accepted(self) -> bool:
        """Whether staff decided that it is booked though it surprises us."""
        return self.row.decision == "accept"


@dataclass(frozen=True, slots=True)
class KnownInvoice:
    """What was told of an invoice: the monthly gift that it is of, "" for what is not ours; and what its lines ask.

    They are told once it is final. `amounts` is empty where they say no more than its payment does. `total` is what it
    comes to after discounts, taxes and the payer's balance, or 0: not told.
    """

    recurring_gift: str
    is_final: bool = True
    amounts: tuple[int, ...] = ()
    total: int = 0


@dataclass
class Books:
    """The books of one processor, open for one batch. What is planned here is written at the end, all at once."""

    processor: str
    gifts: dict[str, Gift]
    gift_of_payment: dict[str, str]
    entries: dict[str, dict[tuple[str, str], int]]
    payments: set[str]
    recurring: dict[str, RecurringGift] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    told_invoices: dict[str, KnownInvoice] = field(default_factory=dict)
    planned: list[NewEntry] = field(default_factory=list)
    news: list[projections.CheckoutNews] = field(default_factory=list)
    recurring_news: list[RecurringNews] = field(default_factory=list)
    contacts: dict[str, Contact] = field(default_factory=dict)
    transactions: list[tuple[TransactionSeen, str, bool]] = field(default_factory=list)
    payouts: list[tuple[PayoutChanged, bool]] = field(default_factory=list)
    lookups: set[tuple[str, str]] = field(default_factory=set)
    troubles: list[tuple[str, str]] = field(default_factory=list)
    invoices: set[str] = field(default_factory=set)

    def plan(self, entry: NewEntry) -> None:
        """Book it with the batch, unless that movement stands already."""
        held = self.entries[entry.gift or ""]
        if (entry.kind, entry.reference) not in held:
            held[entry.kind, entry.reference] = entry.amount
            self.planned.append(entry)
        if entry.kind == Kind.GIFT:
            self.gift_of_payment[entry.reference] = entry.gift or ""

    def ask(self, kind: Lookup.Kind, *identities: str) -> None:
        """Have the processor asked for these, once; an empty id is none."""
        self.lookups |= {(str(kind), identity) for identity in identities if identity}

    def sum_of(self, gift: str, *kinds: str) -> int:
        return sum(amount for (kind, _), amount in self.entries[gift].items() if kind in kinds)

    @cached_property
    def foreign(self) -> set[str]:
        """The payments of this batch that are known not to be ours."""
        unknown = self.payments - self.gift_of_payment.keys()
        return {row.payment for row in told_of(self.processor, "payment", unknown, among=STRANGERS)}

    @cached_property
    def months(self) -> dict[str, str]:
        """The campaign month of each gift that has a gift entry."""
        entries = entries_of(self.gifts, "kind", "campaign_month")
        return {str(entry.gift_id): entry.campaign_month for entry in entries if entry.kind in LedgerEntry.GIFT_KINDS}

    def month_of(self, gift: Gift) -> str:
        """The month that every movement of this gift belongs to."""
        for entry in self.planned:
            if entry.gift == gift.pk and entry.kind in LedgerEntry.GIFT_KINDS:
                return entry.campaign_month
        return self.months[gift.pk]

    def entry_of(self, gift: Gift, item: Item, **fields: Any) -> NewEntry:
        """A movement of a gift, in the gift's currency and month unless `fields` say otherwise."""
        common: dict[str, Any] = {
            "campaign": gift.campaign,
            "processor": self.processor,
            "gift": gift.pk,
            "tier": gift.tier,
            "currency": gift.currency,
            "livemode": gift.livemode,
            "inbox_event_id": item.row.pk,
        }
        return ledger.entry(**(common | fields))


def entries_of(gifts: Iterable[str], *columns: str) -> list[LedgerEntry]:
    """All entries of these gifts, with these columns and "gift"."""
    return bulk.select(LedgerEntry, f"WHERE {bulk.among('gift')}", [bulk.listed(gifts)], columns=("gift", *columns))


def lock(model: type[Given], references: Collection[str]) -> dict[str, Given]:
    """Gifts, or monthly gifts, locked in one order, each with its campaign."""
    if not references:
        return {}
    in_one_order = f"WHERE {bulk.among('reference')} ORDER BY reference {bulk.locked()}"
    found = {row.pk: row for row in bulk.select(model, in_one_order, [bulk.listed(references)])}
    slugs = bulk.listed({row.campaign_id for row in found.values()})
    campaigns = {row.pk: row for row in bulk.select(Campaign, f"WHERE {bulk.among('slug')}", [slugs])}
    for row in found.values():
        row.campaign = campaigns[row.campaign_id]
    return found


def told_of(
    processor: str,
    column: str,
    objects: Collection[str],
    *,
    among: Q = ANY,
    columns: tuple[str, ...] = ("payment", "subject", "facts"),
    free: bool = False,
) -> list[InboxEvent]:
    """The rows that tell of one of these objects, found by the index of this column, however large the inbox is.

    `columns` are read of each; `free` leaves out those that a worker holds, and locks the others.

    The index holds no "", and that the query wants none must be said: PostgreSQL looks for it in no list of more than
    100 values, SQLite in none. SQLite would also rather look through all rows of a processor.
    """
    if not objects:
        return []
    rows = InboxEvent.objects.filter(among, **{f"{column}__in": objects}).exclude(**{column: ""})
    if free:
        rows = rows.select_for_update(skip_locked=True, no_key=True)
    return [row for row in rows.only("processor", *columns) if row.processor == processor]


def wake(processor: str, column: str, objects: Collection[str]) -> None:
    """Have what waited for these objects looked at now, and what was set aside for want of them.

    Rows that a worker holds are passed over, and waited for once this is committed, when nothing else is held: what it
    decides about them, it may decide by what stood before.
    """
    waiting = {row.pk for row in told_of(processor, column, objects, among=WAITED, columns=())}
    if not waiting:
        return
    free = {row.pk for row in told_of(processor, column, objects, among=WAITED, columns=(), free=True)}
    _look_at(free)
    if held := waiting - free:
        transaction.on_commit(partial(_wake_held, held), robust=True)


def _wake_held(numbers: set[int]) -> None:
    with transaction.atomic():
        if connection.vendor == "postgresql":
            connection.cursor().execute("SET LOCAL lock_timeout = '10s'")  # longer than any batch takes
        rows = InboxEvent.objects.select_for_update(no_key=True).filter(WAITED, pk__in=numbers).order_by("pk")
        _look_at({row.pk for row in rows.only("pk")})


def _look_at(numbers: set[int]) -> None:
    rows = InboxEvent.objects.filter(pk__in=numbers)
    rows.update(state=State.WAITING, next_try_at=timezone.now(), waiting_since=None, settled_at=None)


def quarantine(gift: Gift, reason: str) -> Outcome:
    return Outcome(State.QUARANTINED, reason, gift.pk)


def unbookable(reference: str, reason: str) -> Outcome:
    """What becomes of what no decision can bring into the books of a gift, or monthly gift: another currency, say."""
    return Outcome(State.QUARANTINED, f"{UNBOOKABLE}: {reason}", reference)


def gift_of(books: Books, item: Item, payment: str, what: str, *, at_last: str = State.QUARANTINED) -> Gift | Outcome:
    """The gift that a payment was booked as; or what becomes of an event for which there is none (yet).

    A payment that staff would be asked about in the end is asked for at the processor before, once: it may be missed.
    """
    reference = books.gift_of_payment.get(payment)
    if reference is None:
        if payment in books.foreign:
            return Outcome(State.FOREIGN, f"{WANTS_PAYMENT} {what} is not ours, or was dismissed")
        if at_last == State.QUARANTINED and _has_waited(item.row):
            books.ask(Lookup.Kind.PAYMENT, payment)
        return Outcome(State.WAITING, f"{WANTS_PAYMENT} {what} is not booked here", at_last=at_last)
    return books.gifts[reference]  # locked when the books were opened, or made in this batch


def _has_waited(row: InboxEvent) -> bool:
    return row.waiting_since is not None and row.waiting_since <= timezone.now() - PATIENT_FOR


def of_type(numbered: Iterable[tuple[int, Item]], *shapes: type[Any]) -> list[tuple[int, Item, Any]]:
    """Those whose fact is of one of these shapes, with the fact."""
    return [(position, item, item.told.fact) for position, item in numbered if isinstance(item.told.fact, shapes)]

"""The inbox in itself, and that what was processed stands in the ledger."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import Q

from donations import money, processors
from donations.booking.books import OF_OTHERS, STRANGERS
from donations.booking.monthly import gift_reference
from donations.invariants.corrections import corrected_by, is_corrected
from donations.invariants.findings import Finding, Tally, pages
from donations.invariants.heard import Facts, facts_of
from donations.invariants.movements import LASTING, SUBJECTS, Movement, movements
from donations.models import (
    BalanceTransaction,
    Gift,
    InboxEvent,
    LedgerEntry,
    Lookup,
    OutboxMessage,
    Payout,
    RecurringGift,
)
from donations.processors.base import BadDelivery, Interpretation, Malformed
from donations.processors.facts import (
    CHECKOUT_STATUSES,
    INVOICE_STATUSES,
    MONTHLY_CHECKOUT_STATUSES,
    REFUND_STATUSES,
    Adjusted,
    ChargeSettled,
    CheckoutChanged,
    DisputeChanged,
    Fact,
    InvoicePaid,
    InvoiceSeen,
    MonthlyCheckout,
    OfflineReceived,
    Paid,
    PayoutChanged,
    RecurringChanged,
    RefundChanged,
    TransactionSeen,
    as_far_as_stored,
)

PAGE = 200  # rows: each may bring a body of 256 KB
State = InboxEvent.State
Origin = InboxEvent.Origin
Key = tuple[str, str, str]
NOTHING_TOLD = Interpretation(None, None)
IS_READ_AGAIN = Q(state=State.READY)
STATUSES: dict[type, frozenset[str]] = {
    CheckoutChanged: CHECKOUT_STATUSES,
    MonthlyCheckout: MONTHLY_CHECKOUT_STATUSES,
    RefundChanged: REFUND_STATUSES,
    InvoiceSeen: INVOICE_STATUSES | {""},
}

ASK_AGAIN = "Compare the row with a backup, or with the event in the processor’s dashboard."
READ_AGAIN = "Replay the event in the admin."
CORRECT = (
    "Compare it with the processor’s dashboard; enter an adjustment with the movement’s number as its reference. Where "
    "one stands already and is not enough, enter the rest as another, with /2 after the number."
)
RESTORE = "Restore the row from a backup, then run manage.py rebuild."


@dataclass
class Event:
    """An inbox row with what stands beside it: `foreign` are payments and invoices that are known not to be ours."""

    row: InboxEvent
    facts: Facts
    entries: dict[Key, LedgerEntry]
    gifts: dict[str, Gift | RecurringGift]
    foreign: set[tuple[str, str]]
    paid: dict[tuple[str, str], str]
    kept: set[tuple[str, str]]
    asked: set[tuple[str, str]]

    @property
    def key(self) -> str:
        return f"inbox event {self.row.event_id}"

    @property
    def fact(self) -> Fact | None:
        return self.facts.of_row.get(self.row.pk)

    @property
    def is_settled(self) -> bool:
        return self.row.next_try_at is None

    @cached_property
    def told(self) -> Interpretation | None:
        """What the body means, read anew; None where it is erased, or is not as its type promises."""
        if self.row.body is None:
            return None
        try:
            return processors.get(self.row.processor).interpret(bytes(self.row.body))
        except (Malformed, KeyError):
            return None

    @property
    def is_blank(self) -> bool:
        """Whether nothing of its meaning was ever stored: it is new, malformed, or failed each time."""
        row = self.row
        return (row.livemode, row.created, row.facts, row.subject, row.payment) == (None, None, None, "", "")


def check_events(tally: Tally) -> Iterator[Finding]:
    """Every row of the inbox, against its body, its state and the ledger."""
    for rows in pages(InboxEvent.objects.all(), PAGE):
        tally["inbox events"] += len(rows)
        for event in _page(rows):
            for invariant in INVARIANTS:
                for words, remedy in invariant(event):
                    yield Finding(invariant=invariant.__name__, key=event.key, words=words, remedy=remedy)
    yield from _removed_events()


def _removed_events() -> Iterator[Finding]:
    """Those that somebody decided about in the admin, by its history: one that is not booked leaves no other trace.

    One that was fetched again stands under another number, with its own id, and is to be decided anew.
    """
    decided = LogEntry.objects.filter(content_type__app_label="donations", content_type__model="inboxevent")
    named = dict(decided.filter(action_flag=CHANGE).values_list("object_id", "object_repr"))
    numbers = InboxEvent.objects.filter(pk__in=[number for number in named if number and number.isdecimal()])
    gone = named.keys() - {str(number) for number in numbers.values_list("pk", flat=True)}
    ids = {number: named[number].rpartition(" ")[0] for number in gone}  # the type comes last, and has no space
    again = InboxEvent.objects.filter(processor__in=processors.PROCESSORS, event_id__in=ids.values())
    standing = set(again.values_list("event_id", flat=True))
    for number in sorted(gone, key=str):
        if ids[number] not in standing:
            yield Finding(
                invariant="decided_events_stay",
                key=f"inbox event {named[number]}",
                words="the admin’s history says that somebody decided about it, and it is gone",
                remedy="Restore the event from a backup, or run manage.py reconcile; and find out who removed it.",
            )


def _page(rows: list[InboxEvent]) -> list[Event]:
    facts = facts_of(rows)
    named = {str(getattr(fact, "gift", "")) for fact in facts.of_row.values()}
    named |= {row.gift_reference for row in rows} - {""}
    gifts: dict[str, Gift | RecurringGift] = {**Gift.objects.in_bulk(named), **RecurringGift.objects.in_bulk(named)}
    entries, foreign = _entries(rows, facts), _foreign(rows)
    paid = _gifts_of_payments({row.payment for row in rows} - {""})
    kept, asked = _kept(facts), _asked(facts)
    return [Event(row, facts, entries, gifts, foreign, paid, kept, asked) for row in rows]


def _kept(facts: Facts) -> set[tuple[str, str]]:
    """The transactions and payouts of these facts that are kept, by processor and id."""
    of_transactions = (TransactionSeen, ChargeSettled)
    transactions = {fact.transaction for fact in facts.of_row.values() if isinstance(fact, of_transactions)}
    payouts = {fact.payout for fact in facts.of_row.values() if isinstance(fact, PayoutChanged)}
    found: set[tuple[str, str]] = set()
    for model, references in ((BalanceTransaction, transactions), (Payout, payouts)):
        # Named by both, so that the unique index finds each.
        rows = model.objects.filter(processor__in=processors.PROCESSORS, reference__in=references)
        found |= set(rows.values_list("processor", "reference"))
    return found


def _asked(facts: Facts) -> set[tuple[str, str]]:
    """The transactions that charges among these facts name, and that are or were asked for."""
    named = {fact.transaction for fact in facts.of_row.values() if isinstance(fact, ChargeSettled)}
    asked = Lookup.objects.filter(
        processor__in=processors.PROCESSORS, kind=Lookup.Kind.BALANCE_TRANSACTION, object_id__in=named
    )
    return set(asked.values_list("processor", "object_id"))


def _foreign(rows: list[InboxEvent]) -> set[tuple[str, str]]:
    """The payments and invoices of foreign rows that something without a gift of ours tells of."""
    strangers = [row for row in rows if row.state == State.FOREIGN and row.facts]
    found: set[tuple[str, str]] = set()
    for column, tells in (("payment", STRANGERS), ("subject", OF_OTHERS)):
        wanted = {getattr(row, column) for row in strangers} - {""}
        # What is read again told of them. SQLite takes the index, which holds no "", for who says that none is wanted.
        told = InboxEvent.objects.filter(tells | IS_READ_AGAIN, **{f"{column}__in": wanted}).exclude(**{column: ""})
        found |= set(told.values_list("processor", column))
    return found


def _gifts_of_payments(payments: set[str]) -> dict[tuple[str, str], str]:
    """The gifts that these payments paid for."""
    entries = LedgerEntry.objects.filter(
        processor__in=processors.PROCESSORS, kind=LedgerEntry.Kind.GIFT, reference__in=payments
    )
    return {
        (processor, payment): str(gift)
        for processor, payment, gift in entries.values_list("processor", "reference", "gift_id")
    }


def _entries(rows: Iterable[InboxEvent], facts: Facts) -> dict[Key, LedgerEntry]:
    """The entries that these rows' facts must have made, as far as they stand."""
    wanted = {
        (row.processor, movement.kind, movement.reference)
        for row in rows
        if (heard := facts.heard(row))
        for movement in movements(heard)
    }
    # Named by all three, so that the unique index finds each.
    standing = LedgerEntry.objects.filter(
        processor__in={processor for processor, _, _ in wanted},
        kind__in={kind for _, kind, _ in wanted},
        reference__in={reference for _, _, reference in wanted},
    )
    return {(entry.processor, entry.kind, entry.reference): entry for entry in standing}


# ---- the invariants: each tells what is wrong with an event, and the remedy

Told = Iterator[tuple[str, str]]


def body_is_as_received(event: Event) -> Told:
    """The body's SHA-256 is the stored one, and its id and type are the row's; as long as the body stands."""
    row = event.row
    if row.body is None:
        return
    body = bytes(row.body)
    if hashlib.sha256(body).digest() != bytes(row.body_sha256):
        yield "its body is not the one that was received: the SHA-256 differs", ASK_AGAIN
        return
    if row.origin not in {Origin.DELIVERY, Origin.EVENTS_API}:
        return
    try:
        envelope = processors.get(row.processor).envelope(body)
    except KeyError:
        yield f"there is no processor “{row.processor}”", ASK_AGAIN
    except BadDelivery:
        yield "its body is no event", ASK_AGAIN
    else:
        if (envelope.event_id, envelope.type) != (row.event_id, row.type):
            yield f"its body is of {envelope.event_id}, {envelope.type}", ASK_AGAIN


def facts_are_what_the_body_says(event: Event) -> Told:
    """What is stored of an event's meaning is what its body says when it is read anew.

    What only a later version reads may be missing, all of it: an earlier one stored the event. And what told nothing
    and is read again, may tell something by now.
    """
    row, told = event.row, event.told
    if row.body is None or event.is_blank or (row.state == State.READY and not row.facts):
        return
    if told is None:
        yield "its facts are stored, though its body cannot be read", ASK_AGAIN
        return
    if bool(row.facts) != (event.fact is not None):
        yield "its facts cannot be read", READ_AGAIN
        return
    expected = None if row.state == State.WRONG_MODE else told.fact
    if expected and row.facts:
        expected = as_far_as_stored(expected, row.facts)
    stored = (row.livemode, row.created, row.subject, row.payment, event.fact)
    if stored != (told.livemode, told.created, told.subject, told.payment, expected):
        yield "its stored facts are not what its body says", READ_AGAIN


def staff_told_of_just_this(event: Event) -> Told:
    """An event of staff is named after what it tells: its kind, and its reference with its campaign."""
    row, fact = event.row, event.fact
    if row.origin != Origin.STAFF or not isinstance(fact, (OfflineReceived, Adjusted)):
        return
    kind = "offline_gift" if isinstance(fact, OfflineReceived) else "adjustment"
    if (row.type, row.event_id) != (kind, f"staff:{kind}:{fact.reference}"):
        yield "it is named otherwise than what it tells", ASK_AGAIN


def facts_agree_with_their_row(event: Event) -> Told:
    """Where the body was erased, facts still agree with the columns beside them, and with their gift."""
    row, fact = event.row, event.fact
    if row.body is not None or not row.facts:
        return
    if fact is None:
        yield "its facts cannot be read", ASK_AGAIN
        return
    # Staff tell of a day when it is over; all others of what has just been.
    beside: dict[str, object] = {} if isinstance(fact, (OfflineReceived, Adjusted)) else {"occurred_at": row.created}
    subject = SUBJECTS.get(type(fact))
    if subject:
        beside[subject] = row.subject
    for name, value in beside.items():
        if getattr(fact, name, value) != value:
            yield f"its facts and its row disagree about {name}", ASK_AGAIN
    if row.payment != _payment_told(fact, row):
        yield "its facts and its row disagree about payment", ASK_AGAIN
    named = getattr(fact, "gift", row.gift_reference)
    gift, filed_under = event.gifts.get(named), event.gifts.get(row.gift_reference)
    # A second payment that staff accept names the first gift, and is a gift of its own.
    is_second = filed_under is not None and filed_under.source == "paid twice" and gift is not None
    if row.state == State.PROCESSED and named != row.gift_reference and not is_second:
        yield "its facts name another gift than the one that it is filed under", ASK_AGAIN
    if gift:
        yield from _unlike_its_gift(row, fact, gift)


def _unlike_its_gift(row: InboxEvent, fact: Fact, gift: Gift | RecurringGift) -> Told:
    """What a checkout tells of a gift, against the gift. What a subscription's metadata name, can be changed later."""
    if row.subject[:3] == (gift.checkout_id or "")[:3] and row.subject != gift.checkout_id:
        yield "it is of another checkout than its gift", ASK_AGAIN
    if not isinstance(fact, RecurringChanged):
        campaign = getattr(fact, "campaign", "")
        if campaign and campaign != gift.campaign_id and row.decision != "accept":
            yield "its facts name another campaign than its gift", ASK_AGAIN
    if isinstance(fact, Paid) and fact.fee_cover not in {0, gift.fee_cover}:
        yield "its facts tell of another fee cover than its gift has", ASK_AGAIN


def words_are_known(event: Event) -> Told:
    """The words that stand in facts alone once the body was erased are words that there are."""
    fact = event.fact
    if isinstance(fact, InvoiceSeen) and fact.trouble and fact.trouble not in OutboxMessage.OF_TROUBLE:
        yield "its facts tell of a trouble that there is not", ASK_AGAIN
    known = STATUSES.get(type(fact))
    if known and getattr(fact, "status", "") not in known:
        yield "its facts have a status that there is not", ASK_AGAIN


def _payment_told(fact: Fact, row: InboxEvent) -> str:
    """The payment that a row with these facts is filed under."""
    if isinstance(fact, OfflineReceived):
        return fact.reference
    if isinstance(fact, CheckoutChanged):
        return row.payment  # one that is not paid yet may have a payment, which its facts leave out
    return str(getattr(fact, "payment", ""))


def sightings_agree(event: Event) -> Told:
    """Two sightings of one object tell the same of what cannot change."""
    heard = event.facts.heard(event.row)
    if heard is None:
        return
    for other in heard.alike:
        if type(other) is not type(heard.fact):
            continue
        for name in LASTING.get(type(heard.fact), ()):
            if getattr(other, name) != getattr(heard.fact, name):
                yield f"it and another event of {event.row.subject} disagree about {name}", ASK_AGAIN
                return


def state_has_its_reason(event: Event) -> Told:
    """What is settled says when; what was set aside says why; what was decided says by whom."""
    row = event.row
    if event.is_settled != (row.settled_at is not None):
        yield "it is settled without a time, or has a time and is not settled", READ_AGAIN
    is_well = row.state in {State.PROCESSED, State.NOTHING}
    if event.is_settled and is_well == bool(row.reason):
        yield f"its state is “{row.get_state_display()}”, and its reason does not fit that", READ_AGAIN
    if (row.decision == "dismiss") != (row.state == State.DISMISSED):
        yield "it is dismissed without a decision, or decided and not dismissed", READ_AGAIN
    if row.decision == "accept" and row.state not in {State.PROCESSED, State.READY, State.QUARANTINED}:
        yield f"it was accepted, and its state is “{row.get_state_display()}”", READ_AGAIN
    if bool(row.decision) != (row.decided_by_id is not None and row.decided_at is not None):
        yield "a decision stands without who took it and when, or the other way round", ASK_AGAIN


def state_fits_the_facts(event: Event) -> Told:
    """A processed event has facts, one that needs nothing has none, one that is not ours is foreign."""
    row = event.row
    if row.state == State.READY:
        return
    if event.is_blank:
        if not _may_be_blank(event):
            yield f"its state is “{row.get_state_display()}”, and nothing was stored of what it says", READ_AGAIN
    elif not _state_fits(event):
        yield f"its state is “{row.get_state_display()}”, and its facts come to another", READ_AGAIN


def _may_be_blank(event: Event) -> bool:
    """Of what cannot be read, or failed each time, nothing is stored; other kinds of event may tell nothing."""
    if event.row.state in {State.QUARANTINED, State.DISMISSED}:
        return True
    return event.row.state == State.NOTHING and (event.row.body is None or event.told == NOTHING_TOLD)


def _state_fits(event: Event) -> bool:
    row, told = event.row, event.told
    match row.state:
        case State.NOTHING:
            return row.facts is None and not (told and told.foreign)
        case State.FOREIGN:
            if row.facts is not None:
                return _is_of_no_gift(event)
            return told is None or told.foreign
        case State.WRONG_MODE:
            return row.facts is None and row.livemode != processors.get(row.processor).livemode
        case _:
            return row.facts is not None


def _is_of_no_gift(event: Event) -> bool:
    """Whether its payment or invoice is known to be another's; of charges and transactions, is not ours so far."""
    row, fact = event.row, event.fact
    if isinstance(fact, (ChargeSettled, TransactionSeen)) and (row.processor, row.payment) not in event.paid:
        return True
    told_by = row.subject if isinstance(fact, InvoicePaid) else row.payment
    return (row.processor, told_by) in event.foreign


def processor_is_known(event: Event) -> Told:
    """It came from a processor that this site has."""
    if event.row.processor not in processors.PROCESSORS:
        yield f"there is no processor “{event.row.processor}”", ASK_AGAIN


def gift_is_the_right_one(event: Event) -> Told:
    """An event is filed under the gift that its facts, its payment or its invoice lead to; of our own mode."""
    row, fact = event.row, event.fact
    if row.state == State.READY:
        return
    if row.gift_reference not in _gifts_it_may_have(event, fact):
        yield f"it is filed under the gift {row.gift_reference or '(none)'}, and is about another", READ_AGAIN
    if row.state != State.PROCESSED:
        return
    gift = event.gifts.get(row.gift_reference)
    if gift is None:
        if row.gift_reference:
            yield f"its gift {row.gift_reference} is not here", RESTORE
    elif gift.livemode != row.livemode:
        yield "its gift is of the other mode", ASK_AGAIN


def _gifts_it_may_have(event: Event, fact: Fact | None) -> set[str]:
    """The gift, or monthly gift, that its facts name, that its payment paid for, or whose movements it tells of.

    An invoice's payment has a gift of its own, made from it; until then it is filed under its monthly gift.
    None, where it tells of no gift; and where it waits or is quarantined, since the gift may not have been known.
    """
    row, heard = event.row, event.facts.heard(event.row)
    if fact is None or heard is None:
        return {row.gift_reference} if row.facts else {""}
    told = [(row.processor, movement.kind, movement.reference) for movement in movements(heard)]
    booked = {event.entries[key].gift_id or "" for key in told if key in event.entries}
    if isinstance(fact, InvoicePaid):
        owners = event.facts.owners[row.processor, row.subject] | {""}
        return {gift_reference(fact.payment)} if row.state == State.PROCESSED else owners
    leads = {str(getattr(fact, name, "")) for name in ("gift", "recurring_gift")}
    leads |= {event.paid.get((row.processor, row.payment), "")} | booked
    tells_of_none = not any(getattr(fact, name, "") for name in ("gift", "recurring_gift", "payment"))
    return leads | {""} if tells_of_none or row.state != State.PROCESSED else leads - {""}


def movements_are_booked(event: Event) -> Told:
    """What a processed event's facts must have made stands in the ledger: same money, same gift."""
    row = event.row
    heard = event.facts.heard(row)
    if row.state != State.PROCESSED or heard is None:
        return
    for movement in movements(heard):
        entry = event.entries.get((row.processor, movement.kind, movement.reference))
        if entry is None:
            yield f"its {movement.kind} {movement.reference} is not in the ledger", RESTORE
        else:
            yield from _differences(event, movement, entry)


def _differences(event: Event, movement: Movement, entry: LedgerEntry) -> Told:
    row, booked_as = event.row, f"{movement.kind} {movement.reference}"
    sums = (movement.amount, movement.currency), (entry.amount, entry.currency)
    if sums[0] != sums[1] and not (movement.currency == entry.currency and is_corrected(entry, movement)):
        told, booked = (money.with_code(*each) for each in sums)
        yield f"it tells of {told}, and {booked_as} is of {booked}", RESTORE
    if row.gift_reference != (entry.gift_id or ""):
        yield f"it is of the gift {row.gift_reference or '(none)'}, and {booked_as} of {entry.gift_id}", RESTORE
    if row.livemode != entry.livemode:
        yield f"it is of the {_mode(row.livemode)} mode, and {booked_as} of the {_mode(entry.livemode)} one", RESTORE


def _mode(livemode: bool | None) -> str:
    return "live" if livemode else "test"


def dispute_returns_what_it_took(event: Event) -> Told:
    """By the ledger, a dispute whose withdrawal is told has not returned more than it took.

    Nor does it keep more than any sighting says is disputed, where it was exchanged: in one currency the processor has
    the last word.
    """
    heard, fact = event.facts.heard(event.row), event.fact
    if event.row.state != State.PROCESSED or heard is None or not isinstance(fact, DisputeChanged):
        return
    kinds = (LedgerEntry.Kind.DISPUTE_WITHDRAWN, LedgerEntry.Kind.DISPUTE_REINSTATED)
    keys = [(event.row.processor, kind, moved.transaction) for moved in fact.movements for kind in kinds]
    entries = [event.entries[key] for key in keys if key in event.entries]
    took = -sum(entry.amount for entry in entries if entry.amount < 0)
    disputed = max(other.amount for other in heard.alike if isinstance(other, DisputeChanged))
    most = disputed if any(moved.currency != fact.currency for moved in fact.movements) else took
    kept = -sum(entry.amount for entry in entries)
    if took and not 0 <= kept <= most:
        kept -= sum(corrected_by(entry) for entry in entries)
    if took and not 0 <= kept <= most:
        sums = [money.with_code(each, fact.currency) for each in (took, kept, disputed)]
        yield "by the ledger it took {} and keeps {}; {} are disputed".format(*sums), CORRECT


def settlements_are_kept(event: Event) -> Told:
    """A transaction or payout that was told of is kept; that it is kept as told: see `settlements`.

    One that a charge names alone may be asked for yet, or have been asked for in vain.
    """
    row, fact = event.row, event.fact
    if row.state != State.PROCESSED or not isinstance(fact, (TransactionSeen, PayoutChanged, ChargeSettled)):
        return
    told = fact.payout if isinstance(fact, PayoutChanged) else fact.transaction
    standing = event.kept | event.asked if isinstance(fact, ChargeSettled) else event.kept
    if (row.processor, told) not in standing:
        yield f"{told}, which it tells of, is not kept", READ_AGAIN


INVARIANTS: tuple[Callable[[Event], Told], ...] = (
    body_is_as_received,
    facts_are_what_the_body_says,
    staff_told_of_just_this,
    facts_agree_with_their_row,
    words_are_known,
    sightings_agree,
    state_has_its_reason,
    state_fits_the_facts,
    processor_is_known,
    gift_is_the_right_one,
    movements_are_booked,
    dispute_returns_what_it_took,
    settlements_are_kept,
)

"""Both books beside one another: each movement that the processor lists, and what our ledger says of it.

What they disagree about has a cause, in words, and what to do about it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db.models import Exists, OuterRef
from django.utils import timezone

from donations import money, settlements
from donations.booking.books import OF_OTHERS, told_of, wake
from donations.models import BalanceTransaction, Campaign, InboxEvent, LedgerEntry, Lookup, Payout
from donations.processors.facts import TransactionSeen
from donations.reconcile import delayed
from donations.reconcile.delayed import FAILURES
from donations.reconcile.verdicts import (
    AMOUNT,
    ASKED_FOR,
    AWAITED,
    CORRECTED,
    DISMISSED,
    FOREIGN,
    MISSING_HERE,
    MISSING_THERE,
    OUT_AND_BACK,
    OWN,
    QUARANTINED,
    RECENT,
    UNBOOKED,
    UNSETTLED,
    WAITING,
    Cause,
    Verdict,
)
from donations.selectors.adjustments import under_numbers
from donations.selectors.settlements import PAYMENTS

State = InboxEvent.State
Kind = LedgerEntry.Kind

REFUNDS = {"refund", "payment_refund"}
RETURNS = {"refund_failure", "payment_refund_failure"}
PAYOUTS = {"payout", "payout_failure", "payout_cancel"}
UNSETTLED_STATES = {State.READY, State.WAITING}
PAYING = ("paid", "invoice_paid")
REFUND_IDS = ("re_", "pyr_")  # the second of payments by other means than a card
SETTLES_WITHIN = timedelta(days=3)
EDGE = timedelta(days=1)  # an entry's time and its movement's may lie on two sides of where the first list begins
MOST_DIFFERENCES = 200


@dataclass(slots=True)
class Shelf:
    """What our side has on a page of movements, read at once."""

    processor: str
    asks: bool
    copies: dict[str, BalanceTransaction]
    entries: dict[tuple[str, str], LedgerEntry]
    payouts: dict[str, Payout]
    delayed: dict[str, list[BalanceTransaction]]
    """Of payments by other means than a card, what brought money and what took it back, the oldest first."""


def _shelf(processor: str, facts: list[TransactionSeen], asks: bool) -> Shelf:
    references = {name for fact in facts for name in (fact.transaction, fact.source, fact.payment) if name}
    entries = LedgerEntry.objects.filter(processor=processor, kind__in=Kind.values, reference__in=references)
    copies = BalanceTransaction.objects.filter(processor=processor, reference__in=[fact.transaction for fact in facts])
    payouts = Payout.objects.filter(processor=processor, reference__in=references)
    return Shelf(
        processor,
        asks,
        {copy.reference: copy for copy in copies},
        {(entry.kind, entry.reference): entry for entry in entries},
        {payout.reference: payout for payout in payouts},
        delayed.kept_of(processor, facts),
    )


def judge(processor: str, facts: list[TransactionSeen], *, asks: bool = True) -> list[Verdict]:
    """A verdict on each of these movements. `asks`: what nobody told us is queued to be asked for."""
    shelf = _shelf(processor, facts, asks)
    return [_judge(shelf, fact) for fact in facts]


def unequal(processor: str, facts: list[TransactionSeen]) -> list[Verdict]:
    """Of these movements, those that both books have and say different things of, and nobody corrected."""
    shelf = _shelf(processor, facts, asks=False)
    verdicts = [_judge(shelf, fact) for fact in facts if _booked_as(fact) in shelf.entries]
    return [each for each in corrected(verdicts) if each.cause is AMOUNT]


def corrected(verdicts: list[Verdict]) -> list[Verdict]:
    """The same; those whose difference the adjustments under the movement's number come to say so."""
    unexplained = {each.reference for each in verdicts if each.is_unexplained}
    if not unexplained:
        return verdicts
    campaigns = Campaign.objects.values_list("pk", flat=True)
    adjusted = under_numbers(campaigns, unexplained, livemode=settings.LIVEMODE)
    return [
        _corrected(each, adjusted[each.reference]) if each.is_unexplained and each.reference in adjusted else each
        for each in verdicts
    ]


def _corrected(verdict: Verdict, adjustments: list[LedgerEntry]) -> Verdict:
    """One cent must not explain away a whole gift: together they are the difference, with its fee or without."""
    gross = verdict.theirs - verdict.ours
    net = gross - (verdict.their_fee - verdict.our_fee)
    exact = [_exchanged(entry, verdict.currency, verdict.exchange_rate) for entry in adjustments]
    booked = sum((amount for amount in exact if amount is not None), Decimal(0))
    if None in exact:
        # Nobody knows the rate: then they are to go the same way at least.
        is_settled = sum(entry.amount for entry in adjustments) * gross > 0
    else:
        converted = sum(entry.currency != verdict.currency for entry in adjustments)
        is_settled = any(abs(booked - wanted) <= converted for wanted in (gross, net))
    if is_settled:
        return replace(verdict, cause=CORRECTED)
    detail = f"adjustments under its number do not come to the difference; {verdict.detail}".removesuffix("; ")
    return replace(verdict, detail=detail)


def _exchanged(entry: LedgerEntry, currency: str, rate: str) -> Decimal | None:
    """An entry's amount in minor units of another currency; None without a rate, which is one of minor units."""
    if entry.currency == currency:
        return Decimal(entry.amount)
    return entry.amount * Decimal(rate) if rate else None


def _judge(shelf: Shelf, fact: TransactionSeen) -> Verdict:
    copy = shelf.copies.get(fact.transaction)
    if copy and (copy.amount, copy.fee, copy.currency) != (fact.amount, fact.fee, fact.currency):
        return _verdict(
            fact, copy.amount, copy.fee, AMOUNT, "the processor's movement is kept with another amount here"
        )
    if fact.type in PAYOUTS:
        return _payout(shelf, fact)
    wanted = _booked_as(fact)
    if wanted is None:
        # What no payment caused is kept, and booked nowhere: the copy is our side.
        if fact.payment:
            return _verdict(fact, 0, 0, FOREIGN if _is_foreign(shelf, fact.payment) else UNBOOKED, fact.type)
        return _verdict(fact, fact.amount, fact.fee, OWN) if copy else _missing(shelf, fact)
    entry = shelf.entries.get(wanted)
    if fact.type in FAILURES and entry is None:
        return _taken_back(shelf, fact)
    if fact.type in PAYMENTS and _came_to_nothing(shelf, fact):
        return _nothing(shelf, fact)
    if entry is None and fact.amount:
        return _missing(shelf, fact)
    return _both(shelf, fact, entry)


def _came_to_nothing(shelf: Shelf, fact: TransactionSeen) -> bool:
    """Whether a movement of a payment is of a charge that failed, or took the money of such a one back.

    A bank debit is announced by a movement when it begins, and may fail days later.
    """
    has_gift = (Kind.GIFT.value, fact.payment) in shelf.entries
    if fact.type in FAILURES and not has_gift:
        return True
    return fact.transaction in delayed.in_vain(shelf.delayed.get(fact.payment, []), has_gift=has_gift)


def _taken_back(shelf: Shelf, fact: TransactionSeen) -> Verdict:
    """Of money that was announced and went back, and that no refund here tells of."""
    if _is_foreign(shelf, fact.payment):
        return _verdict(fact, 0, 0, FOREIGN, fact.type)
    if _came_to_nothing(shelf, fact):
        return _nothing(shelf, fact)
    return _missing(shelf, fact) if fact.source.startswith(REFUND_IDS) else _verdict(fact, 0, 0, UNBOOKED, fact.type)


def _nothing(shelf: Shelf, fact: TransactionSeen) -> Verdict:
    return _verdict(fact, 0, _fee_of(shelf, fact), OUT_AND_BACK, fact.type)


def _fee_of(shelf: Shelf, fact: TransactionSeen) -> int:
    fee = shelf.entries.get((Kind.FEE.value, fact.transaction))
    return -fee.amount if fee else 0


def _booked_as(fact: TransactionSeen) -> tuple[str, str] | None:
    """The kind and reference of the entry that books a movement; None: no entry does."""
    if fact.type in PAYMENTS and fact.payment:
        return Kind.GIFT.value, fact.payment
    if fact.type in REFUNDS | FAILURES and fact.payment:
        return Kind.REFUND.value, fact.source
    if fact.type in RETURNS and fact.payment:
        return Kind.REFUND_REVERSAL.value, fact.source
    if fact.type == "adjustment" and fact.payment:
        kind = Kind.DISPUTE_WITHDRAWN if fact.amount < 0 else Kind.DISPUTE_REINSTATED
        return kind.value, fact.transaction
    return None


def _both(shelf: Shelf, fact: TransactionSeen, entry: LedgerEntry | None) -> Verdict:
    fee, our_fee = shelf.entries.get((Kind.FEE.value, fact.transaction)), _fee_of(shelf, fact)
    ours = _settled(entry, fact) if entry else 0
    if ours != fact.amount:
        return _verdict(fact, ours, our_fee, AMOUNT)
    if our_fee != fact.fee:
        state = _state_of(shelf, fact.transaction) if fee is None else ""
        if state == State.FOREIGN and entry:
            return _verdict(fact, ours, our_fee, _looked_at_again(shelf, fact), "its fee")
        cause = WAITING if state in UNSETTLED_STATES else QUARANTINED if state == State.QUARANTINED else AMOUNT
        return _verdict(fact, ours, our_fee, cause, "its fee")
    return _verdict(fact, ours, our_fee)


def _settled(entry: LedgerEntry, fact: TransactionSeen) -> int:
    """An entry's amount in the settlement's currency, by the rate of the movement, rounded as theirs may be."""
    if entry.currency == fact.currency:
        return entry.amount
    told = entry.settlement_amount if entry.settlement_currency == fact.currency else None
    exact = _exchanged(entry, fact.currency, fact.exchange_rate)
    if exact is None or told not in {None, fact.amount}:
        return told or 0
    # What is told in the settlement's currency alone was rounded twice: there, and to the gift's unit.
    to_our_unit = 0 if told is None else Decimal(fact.exchange_rate) / 2
    return fact.amount if abs(exact - fact.amount) <= money.exchange_slack(exact) + to_our_unit else int(exact)


def _payout(shelf: Shelf, fact: TransactionSeen) -> Verdict:
    payout = shelf.payouts.get(fact.source)
    if payout is None:
        return _missing(shelf, fact)
    ours = -payout.amount if fact.type == "payout" else payout.amount
    return _verdict(fact, ours, fact.fee, None if ours == fact.amount else AMOUNT)


def _verdict(fact: TransactionSeen, ours: int, our_fee: int, cause: Cause | None = None, detail: str = "") -> Verdict:
    return Verdict(
        fact.type,
        fact.currency,
        fact.transaction,
        fact.payment,
        fact.amount,
        fact.fee,
        ours,
        our_fee,
        cause,
        detail,
        fact.exchange_rate,
    )


# ---- why something is not here


def _missing(shelf: Shelf, fact: TransactionSeen) -> Verdict:
    cause, detail = _why(shelf, fact)
    return _verdict(fact, 0, 0, cause, detail)


def _why(shelf: Shelf, fact: TransactionSeen) -> tuple[Cause, str]:
    """Why a movement has no entry, by what the inbox was told of it; what it was not told of is asked for."""
    columns = ("state", "reason", "facts")
    if fact.type in PAYMENTS and fact.payment:
        of_payment = told_of(shelf.processor, "payment", [fact.payment], columns=columns)
        rows = [row for row in of_payment if not row.facts or row.facts["kind"] in PAYING]
        heard = [row.facts for row in of_payment if row.facts and row.state in InboxEvent.HEARD]
        checkouts = {facts["status"] for facts in heard if facts["kind"] == "checkout"}
    else:
        checkouts = set()
        rows = told_of(shelf.processor, "subject", [fact.source or fact.transaction], columns=columns)
    by_state = {row.state: row.reason for row in rows}
    is_in_want = shelf.asks and any(row.is_in_want for row in rows)
    if (Kind.GIFT.value, fact.payment) in shelf.entries:
        if is_in_want or State.FOREIGN in by_state:
            return _looked_at_again(shelf, fact), "its payment is booked"
    elif is_in_want:
        # An earlier version never asked for it, and what is in quarantine is not tried any more.
        if _has_its_invoice(shelf, rows):
            return _looked_at_again(shelf, fact), "its invoice is known"
        settlements.ask(shelf.processor, [(Lookup.Kind.PAYMENT.value, fact.payment)])
    for state, cause in (
        (State.QUARANTINED, QUARANTINED),
        (State.READY, WAITING),
        (State.WAITING, WAITING),
        (State.FOREIGN, FOREIGN),
        (State.DISMISSED, DISMISSED),
    ):
        if state in by_state:
            return cause, by_state[state]
    statuses = {row.facts["status"] for row in rows if row.facts and row.facts["kind"] == "refund"}
    if statuses and "succeeded" not in statuses:
        return (OUT_AND_BACK if statuses & {"failed", "canceled"} else UNSETTLED), ""
    if checkouts & {"failed", "awaiting"}:
        return (OUT_AND_BACK if "failed" in checkouts else AWAITED), ""
    return _ask(shelf, fact)


def _has_its_invoice(shelf: Shelf, rows: Iterable[InboxEvent]) -> bool:
    """Whether one of these, in quarantine for want of its invoice, could be booked by it now."""
    wanted = {row.facts["invoice"] for row in rows if row.is_in_want and row.facts and "invoice" in row.facts}
    told = told_of(shelf.processor, "subject", wanted, columns=("state", "facts"))
    known = [row.facts for row in told if row.state == State.PROCESSED and row.facts and row.facts["kind"] == "invoice"]
    return any(not facts.get("draft") for facts in known)


def _ask(shelf: Shelf, fact: TransactionSeen) -> tuple[Cause, str]:
    """Have the processor asked what a movement is of. A payment of no checkout and no invoice is foreign."""
    kind, identity = _told_by(fact)
    before = Lookup.objects.filter(processor=shelf.processor, kind=kind, object_id=identity, last_error="")
    if kind == Lookup.Kind.PAYMENT and before.filter(next_try_at=None).exists():
        return FOREIGN, "it was made on no checkout and paid no invoice"
    if before.filter(next_try_at__gt=timezone.now() + settlements.LEASE).exists():
        return AWAITED, "it is asked for daily"
    if before.filter(next_try_at__gt=timezone.now()).exists():
        return ASKED_FOR, ""
    if shelf.asks and kind == Lookup.Kind.PAYMENT:
        settlements.ask(shelf.processor, [(kind.value, identity)])
    elif shelf.asks:
        settlements.ask_again(shelf.processor, kind, [identity])
    return MISSING_HERE, ""


def _told_by(fact: TransactionSeen) -> tuple[Lookup.Kind, str]:
    """What has to be asked for to be told of a movement."""
    if fact.type in PAYMENTS and fact.payment:
        return Lookup.Kind.PAYMENT, fact.payment
    if fact.source.startswith(REFUND_IDS):
        return Lookup.Kind.REFUND, fact.source
    if fact.payment:
        return Lookup.Kind.DISPUTE, fact.source
    return Lookup.Kind.BALANCE_TRANSACTION, fact.transaction


def _looked_at_again(shelf: Shelf, fact: TransactionSeen) -> Cause:
    """Of what can be booked by now: what it lacked came just while another worker held it and set it aside."""
    if not shelf.asks:
        return MISSING_HERE
    wake(shelf.processor, "payment", [fact.payment])
    return WAITING


def _is_foreign(shelf: Shelf, payment: str) -> bool:
    return bool(told_of(shelf.processor, "payment", [payment], among=OF_OTHERS, columns=()))


def _state_of(shelf: Shelf, subject: str) -> str:
    rows = told_of(shelf.processor, "subject", [subject], columns=("state",))
    return str(max(rows, key=lambda row: row.pk).state) if rows else ""


# ---- what the processor does not list


@dataclass(frozen=True, slots=True)
class Place:
    """How far a list, the newest first, was compared: down to the second `until`, whose listed ids are `carried`.

    One second may lie on two pages, or on many.
    """

    until: datetime
    carried: frozenset[str]


def not_listed(
    processor: str, facts: list[TransactionSeen], *, since: datetime, place: Place | None, is_last: bool, livemode: bool
) -> tuple[list[str], Place]:
    """Movements that are kept here, of the time that a page covers, and are not on it; and the next page's place."""
    newest = max((fact.created for fact in facts), default=since)
    until = place.until if place else newest if facts else timezone.now()
    oldest = min((fact.created for fact in facts), default=since)
    listed = {fact.transaction for fact in facts} | (place.carried if place else set())
    # SQLite takes the index for a mode that is compared, as in a list; Django asks for one alone by NOT.
    kept = BalanceTransaction.objects.filter(processor=processor, livemode__in=[livemode], created__lte=until)
    kept = kept.filter(created__gte=since) if is_last else kept.filter(created__gt=oldest)
    extra = sorted(set(kept.values_list("reference", flat=True)) - listed)
    carried = {fact.transaction for fact in facts if fact.created == oldest}
    if place and place.until == oldest:
        carried |= place.carried
    return extra, Place(oldest, frozenset(carried))


def without_movement(
    processor: str, *, since: datetime, until: datetime, read_since: datetime, livemode: bool
) -> list[Verdict]:
    """Entries booked since then, or not long before, that no movement of the processor's is known for.

    One that was young at `until`, when the list began to be read, is no difference yet: it is looked at again when it
    is not any more, however narrow the windows are. `read_since` is where the lists that were ever read begin.
    """
    earlier = LedgerEntry.objects.filter(booked_at__lt=since - SETTLES_WITHIN)
    booked_before = earlier.order_by("-pk").values_list("pk", flat=True).first()
    entries = LedgerEntry.objects.filter(
        processor=processor, livemode=livemode, pk__gt=booked_before or 0, effective_at__gte=read_since + EDGE
    )
    moved = BalanceTransaction.objects
    # A payment, and a gift, is one processor's: its name beside theirs would lead SQLite through all that it moved.
    by_payment = moved.filter(payment=OuterRef("reference"), type__in=PAYMENTS).exclude(payment="")
    # A refund's movements are found by its gift, which has an index, and told apart by what moved.
    of_gift = moved.filter(gift=OuterRef("gift"), source=OuterRef("reference"))
    by_itself = moved.filter(processor=processor, reference=OuterRef("reference"))
    alone = [
        entries.filter(~Exists(by_payment), kind=Kind.GIFT),
        entries.filter(~Exists(of_gift.filter(type__in=REFUNDS | FAILURES)), kind=Kind.REFUND),
        entries.filter(~Exists(of_gift.filter(type__in=RETURNS)), kind=Kind.REFUND_REVERSAL),
        entries.filter(~Exists(by_itself), kind__in=[Kind.FEE, Kind.DISPUTE_WITHDRAWN, Kind.DISPUTE_REINSTATED]),
    ]
    # The oldest first: what may still be listed leaves out nothing that should have been.
    return [_alone(entry, until) for rows in alone for entry in rows.order_by("pk")[:MOST_DIFFERENCES]]


def _alone(entry: LedgerEntry, until: datetime) -> Verdict:
    cause = RECENT if entry.effective_at > until - SETTLES_WITHIN else MISSING_THERE
    payment = entry.reference if entry.kind == Kind.GIFT else ""
    detail = f"entry {entry.pk}, {entry.get_kind_display()} {entry.reference}"
    return Verdict(entry.kind, entry.currency, entry.reference, payment, 0, 0, entry.amount, 0, cause, detail)


def kept_alone(processor: str, reference: str) -> Verdict:
    """The verdict on a movement that is kept here, and that the processor does not know."""
    kept = BalanceTransaction.objects.get(processor=processor, reference=reference)
    return Verdict(
        kept.type,
        kept.currency,
        reference,
        kept.payment,
        0,
        0,
        kept.amount,
        kept.fee,
        MISSING_THERE,
        "a kept movement",
        kept.exchange_rate,
    )

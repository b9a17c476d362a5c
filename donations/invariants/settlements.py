"""The processor's own books as it told them, transactions and payouts: against the events that told, and our ledger."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from donations import money
from donations.invariants.findings import Finding, Tally, pages
from donations.invariants.heard import stored_fact
from donations.models import BalanceTransaction, InboxEvent, Payout
from donations.processors.facts import PayoutChanged, TransactionSeen
from donations.reconcile import comparison
from donations.reconcile.verdicts import AMOUNT
from donations.settlements import RANK

PAGE = 500
ASK_AGAIN = "Compare the row with a backup, or with the processor’s dashboard."
State = InboxEvent.State
Told = TypeVar("Told", TransactionSeen, PayoutChanged)
Key = tuple[str, str]  # processor and reference
MONEY = ("type", "source", "currency", "amount", "fee", "net", "exchange_rate", "created")
LASTING = ("currency", "amount", "created", "automatic")


@dataclass(frozen=True, slots=True)
class Telling(Generic[Told]):
    """A fact, and the row that tells it."""

    fact: Told
    row: InboxEvent


def check_transactions(tally: Tally) -> Iterator[Finding]:
    """Every transaction that is kept is told of, with the same values, and the ledger has it with the same money.

    That what was told is kept: see `events`.
    """
    for rows in pages(BalanceTransaction.objects.all(), PAGE):
        tally["transactions"] += len(rows)
        told = _told(rows, TransactionSeen)
        yield from _conserved(told)
        for row in rows:
            for words in _transaction(row, told[row.processor, row.reference]):
                yield Finding(
                    invariant="transactions_are_as_told",
                    key=f"transaction {row.reference}",
                    words=words,
                    remedy=ASK_AGAIN,
                )


def _conserved(told: dict[Key, list[Telling[TransactionSeen]]]) -> Iterator[Finding]:
    """What both books have is of one amount. What is in one of them alone may be on its way: `reconcile` sees to it."""
    facts: defaultdict[str, list[TransactionSeen]] = defaultdict(list)
    for (processor, _), tellings in told.items():
        facts[processor] += [telling.fact for telling in tellings if telling.row.state == State.PROCESSED][:1]
    for processor, seen in facts.items():
        for verdict in comparison.unequal(processor, seen):
            amounts = (verdict.theirs, verdict.their_fee, verdict.ours, verdict.our_fee)
            theirs, their_fee, ours, our_fee = (money.with_code(each, verdict.currency) for each in amounts)
            yield Finding(
                invariant="what_moved_is_what_is_booked",
                key=f"transaction {verdict.reference}",
                words=f"the processor moved {theirs} and took {their_fee} of it; the ledger says {ours} and {our_fee}",
                remedy=AMOUNT.remedy,
            )


def check_payouts(tally: Tally) -> Iterator[Finding]:
    """Every payout that is kept is told of, with the highest status. That what was told is kept: see `events`."""
    for rows in pages(Payout.objects.all(), PAGE):
        tally["payouts"] += len(rows)
        told = _told(rows, PayoutChanged)
        for row in rows:
            for words in _payout(row, told[row.processor, row.reference]):
                yield Finding(
                    invariant="payouts_are_as_told", key=f"payout {row.reference}", words=words, remedy=ASK_AGAIN
                )


def _told(rows: Iterable[BalanceTransaction | Payout], shape: type[Told]) -> defaultdict[Key, list[Telling[Told]]]:
    """What any event, processed or waiting, tells of these objects."""
    found: defaultdict[Key, list[Telling[Told]]] = defaultdict(list)
    events = InboxEvent.objects.filter(subject__in=[row.reference for row in rows], facts__isnull=False)
    # SQLite takes the index, which holds no "", for who says that none is wanted.
    for event in events.exclude(subject="").defer("body"):
        fact = stored_fact(event)
        if isinstance(fact, shape):
            found[event.processor, event.subject].append(Telling(fact, event))
    return found


def _transaction(row: BalanceTransaction, told: list[Telling[TransactionSeen]]) -> Iterator[str]:
    if not told:
        yield "no event tells of it"
    for telling in told:
        for name in MONEY:
            if getattr(row, name) != getattr(telling.fact, name):
                yield f"its {name} is {_shown(row, name)}, and was told as {_shown(telling.fact, name)}"
        if row.livemode != telling.row.livemode:
            yield "it is of the other mode than its event"
    # These may be told by one event and not by another.
    settled = [telling.row for telling in told if telling.row.state in InboxEvent.HEARD]
    if told and row.available_on not in {telling.fact.available_on for telling in told}:
        yield f"its available_on is {row.available_on}, and was told as another"
    beside = {
        "payment": {telling.fact.payment for telling in told},
        "payout": {telling.fact.payout for telling in told},
        "gift_id": {event.gift_reference for event in settled},
    }
    for name, values in beside.items():
        if (getattr(row, name) or "") not in ((values - {""}) or {""}):
            yield f"its {name.removesuffix('_id')} is {getattr(row, name) or '(none)'}, and was told as another"


def _shown(of: BalanceTransaction | TransactionSeen, name: str) -> str:
    value = getattr(of, name)
    return money.with_code(value, of.currency) if name in {"amount", "fee", "net"} else str(value)


def _payout(row: Payout, told: list[Telling[PayoutChanged]]) -> Iterator[str]:
    if not told:
        yield "no event tells of it"
        return
    facts = [telling.fact for telling in told]
    highest = max(facts, key=lambda fact: (RANK[fact.status], fact.arrival))
    if (row.status, row.arrival) != (highest.status, highest.arrival):
        yield f"it is {row.status}, arriving {row.arrival}, and {highest.status} was told, arriving {highest.arrival}"
    if row.reconciled != any(fact.reconciled for fact in facts):
        yield "whether it is reconciled was told otherwise"
    for name in LASTING:
        if getattr(row, name) not in {getattr(fact, name) for fact in facts}:
            yield f"its {name} is {getattr(row, name)}, and was told as another"
    if {row.livemode} != {telling.row.livemode for telling in told}:
        yield "it is of the other mode than one of its events"

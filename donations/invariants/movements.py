"""What each kind of fact must have put into the ledger: the one place that says it apart from `booking`.

Apart from what a dispute comes to in its gift's currency, which is reckoned as `booking` does; the comparison with the
processor's books multiplies by the rates anew.

A new kind of fact needs a line in MUST_MAKE, and a function where it moves money.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from donations.booking.disputes import in_currency_of_gift
from donations.models import LedgerEntry
from donations.processors.facts import (
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
)
from donations.processors.facts import Movement as Moved

Kind = LedgerEntry.Kind
CAME_BACK = {"failed", "canceled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """A movement that a fact tells of. `amount` is minor units, signed; `moments` when it may have happened, UTC.

    `campaign` is told only where the movement may belong to no gift.
    """

    kind: str
    reference: str
    amount: int
    currency: str
    moments: frozenset[datetime]
    settlement_currency: str = ""
    settlement_amount: int | None = None
    campaign: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """A fact, and where its kind is TOLD_TOGETHER, all facts of the same subject that stand, itself among them."""

    fact: Fact
    alike: tuple[Fact, ...]


def movements(heard: Heard) -> Iterator[Movement]:
    """What must stand in the ledger because of this fact and those of the same subject."""
    return MUST_MAKE[type(heard.fact)](heard)


def _paid(heard: Heard) -> Iterator[Movement]:
    """A payment, of an invoice too, is a gift, at the time of the event that told of it."""
    fact = heard.fact
    if isinstance(fact, (Paid, InvoicePaid)):
        moments = frozenset({fact.occurred_at})
        yield Movement(
            kind=Kind.GIFT, reference=fact.payment, amount=fact.amount, currency=fact.currency, moments=moments
        )


def _nothing(heard: Heard) -> Iterator[Movement]:
    """What moves no money makes no entry.

    A checkout makes a state, see `projections.state_drift`; a monthly gift too, see `recurring.drift`. An invoice
    leads its payment to a monthly gift, and a charge to its transaction. Of payouts see `settlements`.
    """
    yield from ()


def _refund(heard: Heard) -> Iterator[Movement]:
    """A refund that was ever seen to succeed is one; that also failed, it came back. In whatever order."""
    sightings = [fact for fact in heard.alike if isinstance(fact, RefundChanged)]
    succeeded = [fact for fact in sightings if fact.status == "succeeded" and fact.amount]
    if not succeeded:
        return
    first = min(succeeded, key=lambda fact: fact.occurred_at)
    yield Movement(
        kind=Kind.REFUND,
        reference=first.refund,
        amount=-first.amount,
        currency=first.currency,
        moments=frozenset({first.created}),
    )
    failures = frozenset(fact.occurred_at for fact in sightings if fact.status in CAME_BACK)
    if failures:
        yield Movement(
            kind=Kind.REFUND_REVERSAL,
            reference=first.refund,
            amount=first.amount,
            currency=first.currency,
            moments=failures,
        )


def _disputed(heard: Heard) -> Iterator[Movement]:
    """Each movement of a dispute is one, in the gift's currency, and its fee another."""
    fact = heard.fact
    if not isinstance(fact, DisputeChanged):
        return
    for moved, amount in in_currency_of_gift(fact):
        if amount:
            yield Movement(
                kind=Kind.DISPUTE_WITHDRAWN if amount < 0 else Kind.DISPUTE_REINSTATED,
                reference=moved.transaction,
                amount=amount,
                currency=fact.currency,
                moments=frozenset({moved.created}),
                settlement_currency=moved.currency,
                settlement_amount=moved.amount,
            )
        yield from _fee(moved)


def _transaction(heard: Heard) -> Iterator[Movement]:
    """The fee of a payment's transaction is one. The account's own fees belong to no gift, and are not booked."""
    fact = heard.fact
    if isinstance(fact, TransactionSeen) and fact.payment:
        yield from _fee(fact)


def _fee(moved: Moved | TransactionSeen) -> Iterator[Movement]:
    if moved.fee:
        yield Movement(
            kind=Kind.FEE,
            reference=moved.transaction,
            amount=-moved.fee,
            currency=moved.currency,
            moments=frozenset({moved.created}),
            settlement_currency=moved.currency,
            settlement_amount=-moved.fee,
        )


def _told_by_staff(heard: Heard) -> Iterator[Movement]:
    """An offline gift is one, and so is an adjustment."""
    fact = heard.fact
    if isinstance(fact, (OfflineReceived, Adjusted)):
        yield Movement(
            kind=Kind.OFFLINE_GIFT if isinstance(fact, OfflineReceived) else Kind.ADJUSTMENT,
            reference=fact.reference,
            amount=fact.amount,
            currency=fact.currency,
            moments=frozenset({fact.occurred_at}),
            campaign=fact.campaign,
        )


MUST_MAKE: dict[type[Fact], Callable[[Heard], Iterator[Movement]]] = {
    Paid: _paid,
    CheckoutChanged: _nothing,
    RefundChanged: _refund,
    MonthlyCheckout: _nothing,
    RecurringChanged: _nothing,
    InvoiceSeen: _nothing,
    InvoicePaid: _paid,
    DisputeChanged: _disputed,
    ChargeSettled: _nothing,
    TransactionSeen: _transaction,
    PayoutChanged: _nothing,
    OfflineReceived: _told_by_staff,
    Adjusted: _told_by_staff,
}

SUBJECTS: dict[type[Fact], str] = {
    CheckoutChanged: "checkout",
    RefundChanged: "refund",
    MonthlyCheckout: "checkout",
    RecurringChanged: "subscription",
    InvoiceSeen: "invoice",
    InvoicePaid: "invoice",
    DisputeChanged: "dispute",
    ChargeSettled: "charge",
    TransactionSeen: "transaction",
    PayoutChanged: "payout",
    OfflineReceived: "reference",
    Adjusted: "reference",
}
"""Where a fact names the object that its row is filed under."""

LASTING: dict[type[Fact], tuple[str, ...]] = {
    RefundChanged: ("payment", "amount", "currency", "created"),
    MonthlyCheckout: ("recurring_gift",),
    RecurringChanged: ("recurring_gift",),
    InvoiceSeen: ("recurring_gift", "subscription"),
    DisputeChanged: ("payment", "currency"),
    TransactionSeen: ("type", "amount", "fee", "net", "currency", "created"),
    PayoutChanged: ("amount", "currency", "created", "automatic"),
    OfflineReceived: ("gift", "campaign", "amount", "currency", "occurred_at"),
    Adjusted: ("gift", "campaign", "amount", "currency", "occurred_at"),
}
"""What does not change between two sightings of one object."""

TOLD_TOGETHER: frozenset[type[Fact]] = frozenset({InvoicePaid, *LASTING})
"""Kinds of fact of which several, of one subject, are held against one another: of an invoice also whose it is."""

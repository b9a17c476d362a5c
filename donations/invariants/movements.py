"""What each kind of fact must have put into the ledger: the one place that says it apart from `booking`.

A new kind of fact needs a line in MUST_MAKE, and a function where it moves money.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from donations.models import LedgerEntry
from donations.processors.base import CheckoutChanged, Fact, Paid, RefundChanged

Kind = LedgerEntry.Kind
CAME_BACK = {"failed", "canceled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """A movement that a fact tells of. `amount` is minor units, signed; `moments` when it may have happened, UTC."""

    kind: str
    reference: str
    amount: int
    currency: str
    moments: frozenset[datetime]
    settlement_currency: str = ""
    settlement_amount: int | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """A fact, and where its kind is TOLD_TOGETHER, all processed facts of the same subject, itself among them."""

    fact: Fact
    alike: tuple[Fact, ...]


def movements(heard: Heard) -> Iterator[Movement]:
    """What must stand in the ledger because of this fact and those of the same subject."""
    return MUST_MAKE[type(heard.fact)](heard)


def _paid(heard: Heard) -> Iterator[Movement]:
    """A payment is a gift, at the time of the event that told of it."""
    fact = heard.fact
    if isinstance(fact, Paid):
        moments = frozenset({fact.occurred_at})
        yield Movement(
            kind=Kind.GIFT, reference=fact.payment, amount=fact.amount, currency=fact.currency, moments=moments
        )


def _checkout(heard: Heard) -> Iterator[Movement]:
    """A checkout without money makes a state and no entry; see `projections.state_drift`."""
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


MUST_MAKE: dict[type[Fact], Callable[[Heard], Iterator[Movement]]] = {
    Paid: _paid,
    CheckoutChanged: _checkout,
    RefundChanged: _refund,
}

TOLD_TOGETHER: frozenset[type[Fact]] = frozenset({RefundChanged})
"""Kinds of fact of which several, of one subject, together tell what must stand in the ledger."""

SUBJECTS: dict[type[Fact], str] = {CheckoutChanged: "checkout", RefundChanged: "refund"}
"""Where a fact names the object that its row is filed under."""

LASTING: dict[type[Fact], tuple[str, ...]] = {RefundChanged: ("payment", "amount", "currency", "created")}
"""What does not change between two sightings of one object."""

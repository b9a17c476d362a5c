"""The facts that processors tell of, and how the inbox stores them as JSON.

Amounts are integers in the currency's minor unit; times are aware, in UTC; currencies are upper case.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment that arrived for one of our gifts. `payment` is the movement's id (`pi_…`).

    `fee_cover` is what of its amount the checkout asked for the fee, less than all; 0 where that is not told.
    """

    gift: str
    campaign: str
    payment: str
    amount: int
    currency: str
    occurred_at: datetime
    fee_cover: int = 0


CHECKOUT_STATUSES = frozenset({"awaiting", "failed", "expired"})


@dataclass(frozen=True, slots=True)
class CheckoutChanged:
    """A checkout that moved no money: `awaiting` (completed, unpaid), `failed` or `expired`."""

    gift: str
    status: str
    checkout: str
    occurred_at: datetime


REFUND_STATUSES = frozenset({"pending", "requires_action", "succeeded", "failed", "canceled"})


@dataclass(frozen=True, slots=True)
class RefundChanged:
    """One sighting of a refund. `amount` is positive; `created` is the refund's time, `occurred_at` the event's.

    `status` is one of REFUND_STATUSES.
    """

    refund: str
    payment: str
    amount: int
    currency: str
    status: str
    created: datetime
    occurred_at: datetime
    request_key: str = ""
    transaction: str = ""
    failure_transaction: str = ""


MONTHLY_CHECKOUT_STATUSES = frozenset({"completed", "failed", "expired"})


@dataclass(frozen=True, slots=True)
class MonthlyCheckout:
    """The checkout of a monthly gift: `completed`, `failed` or `expired`. Its money comes with its invoices."""

    recurring_gift: str
    status: str
    checkout: str
    subscription: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class RecurringChanged:
    """One sighting of a monthly arrangement, in the processor's own words for its `status`.

    `amounts` is what each of its items asks each period, minor units of `currency`, before discounts and taxes;
    `interval` how long a period is: "month", "year", "3 months". All three are empty where that is not told, or is no
    fixed sum. `campaign` and `fee_cover` are what its checkout was for, the latter less than all that it asks; "" and 0
    where that is not told.
    """

    recurring_gift: str
    subscription: str
    status: str
    cancel_at: datetime | None
    ended_at: datetime | None
    occurred_at: datetime
    amounts: tuple[int, ...] = ()
    currency: str = ""
    interval: str = ""
    campaign: str = ""
    fee_cover: int = 0


INVOICE_STATUSES = frozenset({"draft", "open", "paid", "uncollectible", "void"})


@dataclass(frozen=True, slots=True)
class InvoiceSeen:
    """What ties an invoice to a monthly gift.

    `trouble` is "failed" or "action_required", with the `page` to pay it on and, where it is told, what is due, minor
    units of `currency`; else empty. A `draft` may still change. What each line of any other asks, signed, stands in
    `amounts` where there are several and all are told, and in `total` what the invoice comes to, after discounts, taxes
    and the payer's balance. `status` is one of INVOICE_STATUSES, or empty: not told.
    """

    invoice: str
    recurring_gift: str
    subscription: str
    trouble: str
    page: str
    occurred_at: datetime
    amount_due: int = 0
    currency: str = ""
    draft: bool = False
    amounts: tuple[int, ...] = ()
    status: str = ""
    total: int = 0


@dataclass(frozen=True, slots=True)
class InvoicePaid:
    """A payment that arrived for an invoice. Whose it is, is told by the invoice alone."""

    invoice: str
    payment: str
    amount: int
    currency: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Movement:
    """One movement of a dispute's money: `amount` is signed; it and `fee` are in the settlement's `currency`.

    `exchange_rate` is an exact decimal: the amount in the payment's currency times it is `amount`, both in minor units.
    Empty where nothing was exchanged, or it is not told.
    """

    transaction: str
    amount: int
    fee: int
    currency: str
    created: datetime
    exchange_rate: str = ""


@dataclass(frozen=True, slots=True)
class DisputeChanged:
    """One sighting of a dispute. `amount` is positive, in the payment's `currency`; an inquiry has no movements."""

    dispute: str
    payment: str
    status: str
    reason: str
    amount: int
    currency: str
    movements: tuple[Movement, ...]
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class ChargeSettled:
    """A payment whose balance transaction is known by its id; what it says is to be asked for."""

    charge: str
    payment: str
    transaction: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class TransactionSeen:
    """A movement on our balance at the processor. Amounts are signed, in the settlement's `currency`.

    `payout` is known only where the transactions of a payout were asked for.
    """

    transaction: str
    type: str
    source: str
    payment: str
    amount: int
    fee: int
    net: int
    currency: str
    exchange_rate: str
    created: datetime
    available_on: datetime
    payout: str


@dataclass(frozen=True, slots=True)
class PayoutChanged:
    """One sighting of a payout. `reconciled`: the processor can tell what it carried."""

    payout: str
    status: str
    amount: int
    currency: str
    created: datetime
    arrival: datetime
    automatic: bool
    reconciled: bool
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class OfflineReceived:
    """Money that reached us without a processor, for one of our gifts. `reference` is the movement's: `campaign:…`."""

    gift: str
    campaign: str
    reference: str
    amount: int
    currency: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What staff put right. `amount` is signed; `gift` is "" where it belongs to the campaign as a whole."""

    gift: str
    campaign: str
    reference: str
    amount: int
    currency: str
    occurred_at: datetime


Fact = (
    Paid
    | CheckoutChanged
    | RefundChanged
    | MonthlyCheckout
    | RecurringChanged
    | InvoiceSeen
    | InvoicePaid
    | DisputeChanged
    | ChargeSettled
    | TransactionSeen
    | PayoutChanged
    | OfflineReceived
    | Adjusted
)
FACTS: dict[str, type[Fact]] = {
    "paid": Paid,
    "checkout": CheckoutChanged,
    "refund": RefundChanged,
    "monthly_checkout": MonthlyCheckout,
    "recurring": RecurringChanged,
    "invoice": InvoiceSeen,
    "invoice_paid": InvoicePaid,
    "dispute": DisputeChanged,
    "charge": ChargeSettled,
    "transaction": TransactionSeen,
    "payout": PayoutChanged,
    "offline": OfflineReceived,
    "adjustment": Adjusted,
}
KINDS = {shape: kind for kind, shape in FACTS.items()}
LATER: dict[type[Fact | Movement], tuple[dict[str, Any], ...]] = {
    Paid: ({"fee_cover": 0},),
    InvoiceSeen: ({"amount_due": 0, "currency": ""}, {"draft": False, "amounts": ()}, {"status": ""}, {"total": 0}),
    RecurringChanged: ({"amounts": (), "currency": "", "interval": ""}, {"campaign": "", "fee_cover": 0}),
    Movement: ({"exchange_rate": ""},),
}
"""What facts that an earlier version stored lack, a group a version. Of a group what is not empty is stored."""
OPTIONAL_TIMES = ("cancel_at", "ended_at")
TIMES = ("created", "occurred_at", "cancel_at", "ended_at", "available_on", "arrival")


def fact_to_json(fact: Fact) -> dict[str, Any]:
    """A fact as JSON, with its kind and ISO times."""
    return {"kind": KINDS[type(fact)]} | _fields_of(fact)


def as_far_as_stored(fact: Fact, stored: dict[str, Any]) -> Fact:
    """A fact without what only a later version reads, where nothing of it was stored: an earlier one wrote it then."""
    for group in LATER.get(type(fact), ()):
        if not group.keys() & stored.keys():
            fact = replace(fact, **group)
    if isinstance(fact, DisputeChanged) and not any("exchange_rate" in moved for moved in stored.get("movements", ())):
        fact = replace(fact, movements=tuple(replace(moved, exchange_rate="") for moved in fact.movements))
    return fact


def _fields_of(fact: Fact | Movement) -> dict[str, Any]:
    # Not asdict: it copies what is never changed, at ten times the cost.
    fields = {name: _to_json(getattr(fact, name)) for name in fact.__dataclass_fields__}
    for group in LATER.get(type(fact), ()):
        for name, empty in group.items():
            # Left out, so that what was told of an object before and after an upgrade is the same.
            if getattr(fact, name) == empty:
                del fields[name]
    return fields


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_fields_of(each) if isinstance(each, Movement) else each for each in value]
    return value


def fact_from_json(stored: dict[str, Any]) -> Fact:
    """The fact that `fact_to_json` wrote. What only a later version knows of it is passed over."""
    shape = FACTS[stored["kind"]]
    fields = _fields_for(shape, stored)
    if "movements" in fields:
        fields["movements"] = tuple(Movement(**_fields_for(Movement, each)) for each in fields["movements"])
    if "amounts" in fields:
        fields["amounts"] = tuple(fields["amounts"])
    return shape(**fields)


def _fields_for(shape: type[Fact | Movement], stored: dict[str, Any]) -> dict[str, Any]:
    return _with_times({name: value for name, value in stored.items() if name in shape.__dataclass_fields__})


def _with_times(fields: dict[str, Any]) -> dict[str, Any]:
    for name in TIMES:
        if name in fields and not (fields[name] is None and name in OPTIONAL_TIMES):
            fields[name] = datetime.fromisoformat(fields[name]).astimezone(UTC)
    return fields

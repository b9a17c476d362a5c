"""What a processor must do, and the facts it tells. No model is seen from here.

Amounts are integers in the currency's minor unit; times are aware, in UTC; currencies are upper case.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

KEY_LASTS = timedelta(hours=23)
"""A processor forgets a key after a day: what is sent under it later could be done a second time."""


class BadDelivery(Exception):
    """A delivery that is not the processor's, or is not an event: answered 400, nothing stored."""


class Malformed(Exception):
    """A signed event whose object lacks what its type promises: quarantined with this text."""


class ProcessorUnavailable(Exception):
    """The processor was away, slow or limiting; the same call may be sent again, unchanged.

    `wait` is after how many seconds, where the processor says so.
    """

    def __init__(self, text: str, *, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class KeyRefused(ProcessorUnavailable):
    """The processor does not take our key (for this): nothing changes by asking again, a person must see to it."""


class ProcessorBusy(ProcessorUnavailable):
    """The processor is answering the very same call at this moment: whoever made it first will know the answer."""


MORE_THAN_LEFT = "more_than_left"
"""Our own code where more is asked back of a payment than is left of it: a processor may have none for that."""


class ProcessorRefused(Exception):
    """The processor said no, for good. `reader_text` is a sentence for the reader, `code` the processor's own."""

    def __init__(self, reader_text: str, code: str = "") -> None:
        super().__init__(f"{code}: {reader_text}" if code else reader_text)
        self.reader_text = reader_text
        self.code = code


@dataclass(frozen=True, slots=True)
class Envelope:
    """The outside of an event: enough to store it."""

    event_id: str
    type: str


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment that arrived for one of our gifts. `payment` is the movement's id (`pi_…`)."""

    gift: str
    campaign: str
    payment: str
    amount: int
    currency: str
    occurred_at: datetime


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
    """One sighting of a monthly arrangement, in the processor's own words for its `status`."""

    recurring_gift: str
    subscription: str
    status: str
    cancel_at: datetime | None
    ended_at: datetime | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class InvoiceSeen:
    """What ties an invoice to a monthly gift.

    `trouble` is "failed" or "action_required", with the `page` to pay it on and, where it is told, what is due, minor
    units of `currency`; else empty.
    """

    invoice: str
    recurring_gift: str
    subscription: str
    trouble: str
    page: str
    occurred_at: datetime
    amount_due: int = 0
    currency: str = ""


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
    """One movement of a dispute's money: `amount` is signed; it and `fee` are in the settlement's `currency`."""

    transaction: str
    amount: int
    fee: int
    currency: str
    created: datetime


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
LATER: dict[type[Fact], dict[str, Any]] = {InvoiceSeen: {"amount_due": 0, "currency": ""}}
"""What facts that an earlier version stored lack. It is empty or told as a whole, and stored where it is told."""
OPTIONAL_TIMES = ("cancel_at", "ended_at")
TIMES = ("created", "occurred_at", "cancel_at", "ended_at", "available_on", "arrival")


@dataclass(frozen=True, slots=True)
class Contact:
    """What the donor told the processor; personal, so it is used and not kept among the facts."""

    email: str
    name: str


@dataclass(frozen=True, slots=True)
class Interpretation:
    """What an event means to us. `fact` is None where it needs nothing; `foreign` where it is not ours.

    `livemode` and `created` are None where an event that needs nothing does not tell them; one with a fact always does.
    """

    livemode: bool | None
    created: datetime | None
    subject: str = ""
    payment: str = ""
    fact: Fact | None = None
    foreign: bool = False
    contact: Contact | None = None


@dataclass(frozen=True, slots=True)
class CheckoutOrder:
    """What a hosted payment page is asked for. `reference` is the gift's, or the monthly gift's."""

    reference: str
    monthly: bool
    campaign: str
    campaign_name: str
    amount: int
    fee_cover: int
    currency: str
    email: str
    success_url: str
    cancel_url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """What saved parameters ask a donor to pay, the fee cover included. `reference` is the gift's or monthly gift's."""

    reference: str
    campaign: str
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """A hosted payment page: its id at the processor and its address."""

    checkout_id: str
    url: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """Something that the processor has, as the inbox takes it.

    `origin` is "events_api" for an event of its list, with its own id; "sweep" for an object, put into an event's
    envelope under the id `sweep:<type>:<object>:<status>`.
    """

    origin: str
    event_id: str
    type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, the newest first: `listed` objects were on it; a `cursor` of "" says that it is the last."""

    sightings: tuple[Sighting, ...] = ()
    listed: int = 0
    cursor: str = ""


SWEEP = ("events", "checkouts", "invoice_payments", "refunds", "disputes", "payouts", "transactions")
"""What is asked for when something may have been missed, in this order: what belongs to something comes after it."""


class Processor(Protocol):
    """Who moves the money. `livemode` is the mode of our key."""

    name: str
    livemode: bool
    reads: frozenset[str]
    """The types of events that it reads; all others need nothing."""

    def verify(self, body: bytes, signature: str | None) -> None:
        """Raise BadDelivery unless the body was signed with one of our secrets, just now."""

    def envelope(self, body: bytes) -> Envelope:
        """The event's id and type. Raises BadDelivery for a body that is no event."""

    def interpret(self, body: bytes) -> Interpretation:
        """What a stored event means. Raises Malformed."""

    def checkout_parameters(self, order: CheckoutOrder) -> dict[str, Any]:
        """The exact parameters of a checkout, to be saved before they are sent."""

    def asked(self, parameters: dict[str, Any]) -> Asked:
        """What these parameters, which `checkout_parameters` made, ask for. Raises Malformed for others."""

    def create_checkout(self, parameters: dict[str, Any], key: str) -> Checkout:
        """Open the hosted page, within 4 s. Raises ProcessorBusy, ProcessorUnavailable or ProcessorRefused."""

    def expire_checkout(self, checkout_id: str) -> None:
        """Close a hosted page. Raises ProcessorUnavailable or ProcessorRefused (it is over already)."""

    def portal_url(self, arrangement: str, back: str) -> str:
        """The address of a page on which the donor changes the card of a monthly gift or stops it; it leads to `back`.

        Each of its calls within 4 s. Raises ProcessorUnavailable or ProcessorRefused.
        """

    def refund(self, payment: str, amount: int, key: str) -> str:
        """Ask for a refund and return its id. Raises ProcessorUnavailable or ProcessorRefused."""

    def sweep(self, step: str, *, since: datetime, after: str = "") -> Page:
        """A page of what it has of a step of SWEEP, made since then; `after` is the cursor of the page before.

        Raises ProcessorUnavailable, or ProcessorRefused (a cursor that it does not know any more).
        """

    def look_up(self, kind: str, object_id: str, *, after: str = "") -> Page:
        """What it says of one object that an event named: `kind` as `Lookup` has it. Raises as `sweep` does."""


def fact_to_json(fact: Fact) -> dict[str, Any]:
    """A fact as JSON, with its kind and ISO times."""
    stored = {"kind": KINDS[type(fact)]} | _fields_of(fact)
    for name, empty in LATER.get(type(fact), {}).items():
        # Left out, so that what was told of an object before and after an upgrade is the same.
        if stored[name] == empty:
            del stored[name]
    return stored


def as_far_as_stored(fact: Fact, stored: dict[str, Any]) -> Fact:
    """A fact without what only a later version reads, where none of it was stored: an earlier one wrote it then."""
    later = LATER.get(type(fact), {})
    return fact if later.keys() & stored.keys() else replace(fact, **later)


def _fields_of(fact: Fact | Movement) -> dict[str, Any]:
    # Not asdict: it copies what is never changed, at ten times the cost.
    return {name: _to_json(getattr(fact, name)) for name in fact.__dataclass_fields__}


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return [_fields_of(movement) for movement in value] if isinstance(value, tuple) else value


def fact_from_json(stored: dict[str, Any]) -> Fact:
    """The fact that `fact_to_json` wrote."""
    fields = _with_times({name: value for name, value in stored.items() if name != "kind"})
    if "movements" in fields:
        fields["movements"] = tuple(Movement(**_with_times(dict(movement))) for movement in fields["movements"])
    return FACTS[stored["kind"]](**fields)


def _with_times(fields: dict[str, Any]) -> dict[str, Any]:
    for name in TIMES:
        if name in fields and not (fields[name] is None and name in OPTIONAL_TIMES):
            fields[name] = datetime.fromisoformat(fields[name]).astimezone(UTC)
    return fields

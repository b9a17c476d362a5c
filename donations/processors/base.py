"""What a processor must do, and the facts it tells. No model is seen from here.

Amounts are integers in the currency's minor unit; times are aware, in UTC; currencies are upper case.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol


class BadDelivery(Exception):
    """A delivery that is not the processor's, or is not an event: answered 400, nothing stored."""


class Malformed(Exception):
    """A signed event whose object lacks what its type promises: quarantined with this text."""


class ProcessorUnavailable(Exception):
    """The processor was away, slow or limiting; the same call may be sent again, unchanged."""


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


@dataclass(frozen=True, slots=True)
class CheckoutChanged:
    """A checkout that moved no money: `awaiting` (completed, unpaid), `failed` or `expired`."""

    gift: str
    status: str
    checkout: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class RefundChanged:
    """One sighting of a refund. `amount` is positive; `created` is the refund's time, `occurred_at` the event's."""

    refund: str
    payment: str
    amount: int
    currency: str
    status: str
    created: datetime
    occurred_at: datetime
    request_key: str = ""


Fact = Paid | CheckoutChanged | RefundChanged
FACTS: dict[str, type[Fact]] = {"paid": Paid, "checkout": CheckoutChanged, "refund": RefundChanged}


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
    """What a hosted payment page is asked for."""

    gift: str
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
    """What saved parameters ask a donor to pay, the fee cover included."""

    gift: str
    campaign: str
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """A hosted payment page: its id at the processor and its address."""

    checkout_id: str
    url: str


class Processor(Protocol):
    """Who moves the money. `livemode` is the mode of our key."""

    name: str
    livemode: bool

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
        """Open the hosted page, within 4 s. Raises ProcessorUnavailable or ProcessorRefused."""

    def expire_checkout(self, checkout_id: str) -> None:
        """Close a hosted page. Raises ProcessorUnavailable or ProcessorRefused (it is over already)."""

    def refund(self, payment: str, amount: int, key: str) -> str:
        """Ask for a refund and return its id. Raises ProcessorUnavailable or ProcessorRefused."""


def fact_to_json(fact: Fact) -> dict[str, Any]:
    """A fact as JSON, with its kind and ISO times."""
    kind = next(name for name, shape in FACTS.items() if isinstance(fact, shape))
    # Not asdict: it copies what is never changed, at ten times the cost.
    values = {name: getattr(fact, name) for name in fact.__dataclass_fields__}
    return {"kind": kind} | {k: v.isoformat() if isinstance(v, datetime) else v for k, v in values.items()}


def fact_from_json(stored: dict[str, Any]) -> Fact:
    """The fact that `fact_to_json` wrote."""
    fields = {k: v for k, v in stored.items() if k != "kind"}
    for name in ("created", "occurred_at"):
        if name in fields:
            fields[name] = datetime.fromisoformat(fields[name]).astimezone(UTC)
    return FACTS[stored["kind"]](**fields)

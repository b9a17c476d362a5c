"""What a processor must do: the contract of every adapter. No model is seen from here.

Amounts are integers in the currency's minor unit; times are aware, in UTC; currencies are upper case.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from donations.processors.facts import Fact

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


class AnswerKept(ProcessorUnavailable):
    """The processor failed, and keeps that as its answer to this key: the call may be sent again under another one.

    Whether anything was done before it failed, nobody knows: money is looked for first.
    """


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

    @classmethod
    def from_settings(cls, settings: Any) -> "Processor":
        """It, with what the settings say of its key, mode and addresses."""

    def verify(self, body: bytes, signature: str | None) -> None:
        """Raise BadDelivery unless the body was signed with one of our secrets, just now."""

    def envelope(self, body: bytes) -> Envelope:
        """The event's id and type. Raises BadDelivery for a body that is no event."""

    def interpret(self, body: bytes) -> Interpretation:
        """What a stored event means. Raises Malformed."""

    def checkout_parameters(self, order: CheckoutOrder) -> dict[str, Any]:
        """The exact parameters of a checkout, to be saved before they are sent. They name no one."""

    def asked(self, parameters: dict[str, Any]) -> Asked:
        """What these parameters, which `checkout_parameters` made, ask for. Raises Malformed for others."""

    def create_checkout(self, parameters: dict[str, Any], key: str, *, email: str, within: float) -> Checkout:
        """Open the hosted page, `within` so many seconds, with the donor's email filled in where it isn't empty.

        Raises ProcessorBusy, AnswerKept, another ProcessorUnavailable, or ProcessorRefused.
        """

    def expire_checkout(self, checkout_id: str) -> None:
        """Close a hosted page. Raises ProcessorUnavailable or ProcessorRefused (it is over already)."""

    def portal_url(self, arrangement: str, back: str, *, within: float) -> str:
        """The address of a page on which the donor changes the card of a monthly gift or stops it; it leads to `back`.

        Raises ProcessorUnavailable, also where it takes longer than `within` seconds, or ProcessorRefused.
        """

    def refund(self, payment: str, amount: int, request: str, key: str) -> str:
        """Ask for a refund under an idempotency key and return its id. It carries `request`, our name for it, for good.

        Raises AnswerKept, another ProcessorUnavailable, or ProcessorRefused.
        """

    def refund_of(self, payment: str, request: str) -> str:
        """The id of the refund of this payment that carries this request of ours; empty where it has none.

        Raises ProcessorUnavailable or ProcessorRefused.
        """

    def sweep(self, step: str, *, since: datetime, after: str = "") -> Page:
        """A page of what it has of a step of SWEEP, made since then; `after` is the cursor of the page before.

        Raises ProcessorUnavailable, or ProcessorRefused (a cursor that it does not know any more).
        """

    def look_up(self, kind: str, object_id: str, *, after: str = "") -> Page:
        """What it says of one object that an event named: `kind` as `Lookup` has it. Raises as `sweep` does."""

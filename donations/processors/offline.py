"""Money that no processor moves: staff tell of it, in events that the application writes and reads itself.

It takes no deliveries and makes no calls. An event's body is JSON: the mode, when staff told it, and the fact.
"""

import json
from datetime import UTC, datetime
from typing import Any

from donations.processors.base import (
    Asked,
    BadDelivery,
    Checkout,
    CheckoutOrder,
    Envelope,
    Interpretation,
    Malformed,
    Page,
    Processor,
    ProcessorRefused,
)
from donations.processors.facts import Adjusted, OfflineReceived, fact_from_json, fact_to_json

Told = OfflineReceived | Adjusted
TEST_MODE = "test_mode:"
"""How what is told in test mode begins. No campaign's slug has a "_", so that nothing live begins like it."""
NO_LISTS = "What staff told stands in our books alone: nobody can be asked for it."
NO_PAGE = "This money comes without a payment service: there is no page to pay on."
NO_REFUND = (
    "This gift came without a payment service. Give the money back by hand, and enter an adjustment of the gift."
)


def movement(campaign: str, reference: str, *, livemode: bool) -> str:
    """The reference in the ledger of what staff tell of. On a site that goes live, no test stands in the way."""
    return f"{'' if livemode else TEST_MODE}{campaign}:{reference}"


def names_in_ledger(campaign: str, reference: str, *, livemode: bool) -> set[str]:
    """All references under which it may stand there: in test mode an earlier version wrote as live."""
    return {movement(campaign, reference, livemode=mode) for mode in (True, livemode)}


def event_body(fact: Told, *, livemode: bool, created: datetime) -> bytes:
    """The body of the event by which staff tell of this fact; `created` is when they did."""
    told = {"livemode": livemode, "created": created.isoformat(), "fact": fact_to_json(fact)}
    return json.dumps(told, indent=2).encode()


class OfflineProcessor:
    """Bank transfers, cash and cheques: a processor that only staff speak for. See the Protocol for the contracts."""

    name = "offline"
    reads = frozenset({"offline_gift", "adjustment"})

    def __init__(self, *, livemode: bool) -> None:
        self.livemode = livemode

    @classmethod
    def from_settings(cls, settings: Any) -> "OfflineProcessor":
        """In the site's mode: money that is entered on a test site is a test."""
        return cls(livemode=settings.LIVEMODE)

    # ---- deliveries: there are none

    def verify(self, body: bytes, signature: str | None) -> None:
        raise BadDelivery("nobody delivers offline gifts")

    def envelope(self, body: bytes) -> Envelope:
        raise BadDelivery("nobody delivers offline gifts")

    def interpret(self, body: bytes) -> Interpretation:
        """What staff told. Raises Malformed for a body that `event_body` did not write."""
        try:
            told = json.loads(body)
            fact = fact_from_json(told["fact"])
            livemode, created = told["livemode"], datetime.fromisoformat(told["created"]).astimezone(UTC)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Malformed(f"it is not as we write it ({type(error).__name__})") from error
        if not isinstance(fact, Told) or type(fact.amount) is not int or not isinstance(livemode, bool):
            raise Malformed("it is not as we write it")
        return Interpretation(livemode, created, fact.reference, _payment(fact), fact)

    # ---- calls: there are none

    def checkout_parameters(self, order: CheckoutOrder) -> dict[str, Any]:
        raise ProcessorRefused(NO_PAGE, "offline")

    def asked(self, parameters: dict[str, Any]) -> Asked:
        raise Malformed("offline gifts have no checkout")

    def create_checkout(self, parameters: dict[str, Any], key: str, *, email: str, within: float) -> Checkout:
        raise ProcessorRefused(NO_PAGE, "offline")

    def expire_checkout(self, checkout_id: str) -> None:
        raise ProcessorRefused(NO_PAGE, "offline")

    def refund(self, payment: str, amount: int, request: str, key: str) -> str:
        raise ProcessorRefused(NO_REFUND, "offline")

    def refund_of(self, payment: str, request: str) -> str:
        raise ProcessorRefused(NO_REFUND, "offline")

    def portal_url(self, arrangement: str, back: str, *, within: float) -> str:
        raise ProcessorRefused(NO_PAGE, "offline")

    def sweep(self, step: str, *, since: datetime, after: str = "") -> Page:
        raise ProcessorRefused(NO_LISTS, "offline")

    def look_up(self, kind: str, object_id: str, *, after: str = "") -> Page:
        raise ProcessorRefused(NO_LISTS, "offline")


def _payment(fact: Told) -> str:
    return fact.reference if isinstance(fact, OfflineReceived) else ""


_IS_WHOLE: type[Processor] = OfflineProcessor  # for the type checker: it is imported by its name alone

"""Twelve kinds of event and more, each with what must have come before it: what is killed, repeated and swept."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from donations.models import Gift, RecurringGift
from tests import factories
from tests.factories import NOON, Event, make_campaign, make_gift, make_recurring_gift

LATER = NOON + timedelta(hours=1)


@dataclass(frozen=True)
class Scene:
    """`before` has come and been processed; `event` is what is told then."""

    event: Event
    before: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Cast:
    """What the publisher and the readers did: the same for every scene."""

    gift: Gift
    monthly: RecurringGift


def make_cast() -> Cast:
    campaign = make_campaign()
    gift = make_gift(campaign, reference="gift_1")
    return Cast(gift, make_recurring_gift(campaign, reference="recurring_1"))


def paid(cast: Cast) -> Event:
    return factories.checkout_event(cast.gift)


def invoice(kind: str = "invoice.paid") -> Event:
    details = {"subscription": "sub_1", "metadata": {"recurring_gift": "recurring_1"}}
    page = "https://pay.example.org/in_1"
    return factories.event(
        kind, {"id": "in_1", "hosted_invoice_url": page, "parent": {"subscription_details": details}}
    )


def invoice_payment() -> Event:
    payment = {"type": "payment_intent", "payment_intent": "pi_monthly"}
    told = {"id": "inpay_1", "invoice": "in_1", "amount_paid": 1000, "currency": "usd", "payment": payment}
    return factories.event("invoice_payment.paid", told)


def subscription(status: str = "active") -> Event:
    told = {"id": "sub_1", "status": status, "metadata": {"recurring_gift": "recurring_1"}}
    return factories.event("customer.subscription.updated", told)


def taken(cast: Cast) -> Event:
    return factories.dispute_event(cast.gift, factories.movement("txn_taken", -50000, fee=1500))


def refunded(cast: Cast, status: str, kind: str = "refund.updated") -> Event:
    return factories.refund_event(cast.gift, 20000, refund="re_1", status=status, kind=kind, at=LATER)


def charge(cast: Cast) -> Event:
    return factories.transaction_event(cast.gift, factories.movement("txn_1", 50000, fee=1480))


SCENES: dict[str, Callable[[Cast], Scene]] = {
    "paid": lambda cast: Scene(paid(cast)),
    "unpaid": lambda cast: Scene(factories.checkout_event(cast.gift, paid=False)),
    "failed": lambda cast: Scene(factories.checkout_event(cast.gift, "checkout.session.async_payment_failed")),
    "expired": lambda cast: Scene(factories.checkout_event(cast.gift, "checkout.session.expired")),
    "paid_twice": lambda cast: Scene(factories.checkout_event(cast.gift, payment="pi_again"), (paid(cast),)),
    "refunded": lambda cast: Scene(refunded(cast, "succeeded"), (paid(cast),)),
    "refund_failed": lambda cast: Scene(
        refunded(cast, "failed", "refund.failed"), (paid(cast), refunded(cast, "succeeded"))
    ),
    "paid_after_its_refund": lambda cast: Scene(paid(cast), (refunded(cast, "succeeded"),)),
    "disputed": lambda cast: Scene(taken(cast), (paid(cast),)),
    "invoice_paid": lambda cast: Scene(invoice_payment(), (invoice(),)),
    "invoice_after_its_payment": lambda cast: Scene(invoice(), (invoice_payment(),)),
    "invoice_failed": lambda cast: Scene(invoice("invoice.payment_failed")),
    "subscription": lambda cast: Scene(subscription("past_due"), (subscription(),)),
    "fee": lambda cast: Scene(charge(cast), (paid(cast),)),
    "payout": lambda cast: Scene(
        factories.payout_event("po_1", 48520, reconciliation_status="completed"), (charge(cast), paid(cast))
    ),
    "foreign": lambda cast: Scene(factories.checkout_event(cast.gift, metadata={})),
}

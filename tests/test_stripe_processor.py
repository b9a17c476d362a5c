"""Stripe's adapter: whose deliveries it takes, what it reads in them, what it asks for, what it makes of answers."""

import json
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from donations import inbox
from donations.models import Gift, InboxEvent
from donations.periods import Month
from donations.processors import stripe as module
from donations.processors.base import (
    MORE_THAN_LEFT,
    AnswerKept,
    Asked,
    BadDelivery,
    Checkout,
    CheckoutOrder,
    Contact,
    Envelope,
    Interpretation,
    KeyRefused,
    Malformed,
    ProcessorBusy,
    ProcessorRefused,
    ProcessorUnavailable,
)
from donations.processors.facts import (
    FACTS,
    ChargeSettled,
    CheckoutChanged,
    DisputeChanged,
    InvoicePaid,
    InvoiceSeen,
    MonthlyCheckout,
    Movement,
    Paid,
    PayoutChanged,
    RecurringChanged,
    RefundChanged,
    TransactionSeen,
    as_far_as_stored,
    fact_from_json,
    fact_to_json,
)
from donations.processors.stripe import StripeProcessor, reading
from donations.sandbox.objects import API_VERSION
from tests import factories
from tests.factories import NOON, Event, body_of, checkout_event, items_of, lines_of, refund_event, signature_of
from tests.services import free_port

SECRET, NEXT_SECRET = "whsec_current", "whsec_next"
NOWHERE = "http://127.0.0.1:9"
REQUEST = "refund_" + "0" * 32
GIFT = Gift(pk="gift_0001", campaign_id="general", currency="EUR", amount=2500, livemode=False)
YEN = Gift(pk="gift_0002", campaign_id="tokyo", currency="JPY", amount=500, livemode=False)
LATER = NOON + timedelta(days=5)
SUBSCRIPTION = {"id": "sub_1", "status": "active", "metadata": {"recurring_gift": "recurring_1"}}
ARRANGED = RecurringChanged("recurring_1", "sub_1", "active", None, None, NOON)
IN_DOLLARS_EACH_MONTH: dict[str, Any] = {"currency": "USD", "interval": "month"}
MONTHLY_SESSION = {
    "id": "cs_test_1",
    "mode": "subscription",
    "payment_status": "paid",
    "subscription": "sub_1",
    "metadata": {"recurring_gift": "recurring_1"},
    "customer_details": {"email": "reader@example.org", "name": "A Reader"},
}
INVOICE = {
    "id": "in_1",
    "hosted_invoice_url": "https://pay.example.org/in_1",
    "parent": {"subscription_details": {"subscription": "sub_1", "metadata": {"recurring_gift": "recurring_1"}}},
}
INVOICE_PAYMENT = {
    "id": "inpay_1",
    "invoice": "in_1",
    "amount_paid": 1000,
    "currency": "eur",
    "payment": {"type": "payment_intent", "payment_intent": "pi_1"},
}


def asks(items: Any) -> dict[str, Any]:
    """What a subscription in dollars asks."""
    return {"currency": "usd", "items": items}


def adapter(
    *, api_key: str = "sk_test_x", api_base: str = NOWHERE, secrets: tuple[str, ...] = (), livemode: bool = False
) -> StripeProcessor:
    own = list(secrets or (SECRET,))
    return StripeProcessor(api_key=api_key, api_base=api_base, webhook_secrets=own, livemode=livemode)


def read(told: Event) -> Interpretation:
    return adapter().interpret(body_of(told))


def changed(told: Event, **fields: Any) -> Event:
    """The same event with other fields in its object; a field that is `...` is left out."""
    copy = deepcopy(told)
    subject = {**copy["data"]["object"], **fields}
    copy["data"]["object"] = {name: value for name, value in subject.items() if value is not ...}
    return copy


def plainly(value: Any) -> str:
    """A test's id of letters and digits: pytest finds it again when it is named on a command line."""
    return re.sub(r"[^A-Za-z0-9]+", "-", repr(value)[:60])


# ---- whose deliveries are taken


def sign(body: bytes, *, at: float | None = None, secret: str = SECRET) -> str:
    return signature_of(body, at=at, secret=secret)


@pytest.mark.parametrize("age", [0, 290, -290])
def test_a_delivery_that_was_signed_within_five_minutes_either_way_is_taken(age: float) -> None:
    adapter().verify(b"{}", sign(b"{}", at=time.time() - age))


@pytest.mark.parametrize("age", [310, 86400, -310, -86400, -(10**11)])
def test_a_delivery_that_was_signed_earlier_or_is_from_the_future_is_refused(age: float) -> None:
    with pytest.raises(BadDelivery):
        adapter().verify(b"{}", sign(b"{}", at=time.time() - age))


def test_the_five_minutes_are_exact_on_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_795_000_000
    monkeypatch.setattr("time.time", lambda: float(now))
    for age in (300, -300):
        adapter().verify(b"{}", sign(b"{}", at=now - age))
    for age, why in ((301, "the signature is not of our secret, or too old"), (-301, "its timestamp is in the future")):
        with pytest.raises(BadDelivery, match=f"^{why}$"):
            adapter().verify(b"{}", sign(b"{}", at=now - age))


def test_a_signature_of_two_thousand_characters_is_looked_at_and_a_longer_one_is_not() -> None:
    signature = f"{sign(b'{}')},v0="
    adapter().verify(b"{}", signature.ljust(2000, "0"))
    with pytest.raises(BadDelivery, match=r"^no usable signature$"):
        adapter().verify(b"{}", signature.ljust(2001, "0"))


def test_what_is_signed_well_but_does_not_tell_one_plain_moment_is_refused() -> None:
    """The SDK takes all of these: it reads one of the moments, and signs, blanks and underscores in it."""
    moment, digest = sign(b"{}").split(",")
    adapter().verify(b"{}", f"{digest},{moment}")
    seconds = moment.removeprefix("t=")
    odd = (f"+{seconds}", f" {seconds}", f"{seconds[0]}_{seconds[1:]}", f"000{seconds}")
    for told in (f"{moment},{moment}", f"{moment},t=1", *(f"t={each}" for each in odd)):
        with pytest.raises(BadDelivery, match=r"^no usable timestamp$"):
            adapter().verify(b"{}", f"{told},{digest}")
    with pytest.raises(BadDelivery, match=r"^no usable timestamp$"):
        adapter().verify(b"{}", digest)


@pytest.mark.parametrize("secret", [SECRET, NEXT_SECRET])
def test_any_of_our_secrets_will_do(secret: str) -> None:
    adapter(secrets=(SECRET, NEXT_SECRET)).verify(b"{}", sign(b"{}", secret=secret))


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "v1=" + "0" * 64,
        "t=,v1=",
        "t=1",
        "t=now,v1=" + "0" * 64,
        "t=NOW,v1",
        "t=NOW,v0=" + "0" * 64,
        "t=NOW,v1=é",
        "t=١٧٩٥٠٠٠٠٠٠,v1=" + "0" * 64,
        "t=NOW,v1=" + "0" * 2000,
        "t=" + "9" * 5000 + ",v1=" + "0" * 64,
        "\x00",
        ",,=,==,",
    ],
    ids=plainly,
)
def test_what_is_no_signature_is_refused(signature: str | None) -> None:
    with pytest.raises(BadDelivery):
        adapter().verify(b"{}", signature and signature.replace("NOW", str(int(time.time()))))


@given(signature=st.text(), moment=st.booleans())
def test_no_signature_raises_anything_else(signature: str, moment: bool) -> None:
    with pytest.raises(BadDelivery):
        adapter().verify(b"{}", f"t={int(time.time())},{signature}" if moment else signature)


def test_another_secret_or_another_body_is_refused() -> None:
    for body, signature in ((b"{}", sign(b"{}", secret="whsec_another")), (b"{ }", sign(b"{}"))):
        with pytest.raises(BadDelivery, match=r"^the signature is not of our secret, or too old$"):
            adapter().verify(body, signature)


def test_without_secrets_nothing_is_taken() -> None:
    nobody = StripeProcessor(api_key="sk_test_x", api_base=NOWHERE, webhook_secrets=[], livemode=False)
    with pytest.raises(BadDelivery):
        nobody.verify(b"{}", sign(b"{}"))


def test_a_signed_body_that_is_not_text_is_refused() -> None:
    with pytest.raises(BadDelivery, match=r"^not UTF-8$"):
        adapter().verify(b"\xff\xfe", sign(b"\xff\xfe"))


# ---- what is stored of an event unread


def test_an_envelope_is_the_events_id_and_type() -> None:
    told = checkout_event(GIFT)
    assert adapter().envelope(body_of(told)) == Envelope(told["id"], "checkout.session.completed")


@pytest.mark.parametrize("kind", ["Ein Typ", "a" * 101, "a\n", "é", ""])
def test_a_type_of_odd_characters_is_stored_as_unrecognised(kind: str) -> None:
    assert adapter().envelope(json.dumps({"id": "evt_1", "type": kind}).encode()).type == "unrecognised"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"evt_1"',
        b"1e999",
        b"\xff",
        b"{}",
        b'{"id": "evt_1"}',
        b'{"id": "evt_1", "type": 1}',
        b'{"id": 1, "type": "a"}',
        b'{"id": "evt_", "type": "a"}',
        b'{"id": "evt_1\\n", "type": "a"}',
        b'{"id": "cs_1", "type": "a"}',
        b'{"id": "evt_' + b"1" * 201 + b'", "type": "a"}',
        b"[" * 100_000,
        b'{"id": "evt_1", "type": "a", "data": ' + b"[" * 100_000,
    ],
    ids=plainly,
)
def test_a_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(BadDelivery):
        adapter().envelope(body)


@pytest.mark.parametrize("body, why", [(b"{", "not JSON"), (b"[]", "not an object"), (b"{}", "not an event")])
def test_a_body_that_is_no_event_is_told_from_one_that_is_no_json(body: bytes, why: str) -> None:
    with pytest.raises(BadDelivery, match=f"^{why}$"):
        adapter().envelope(body)


# ---- what an event means


PAID = Paid("gift_0001", "general", "pi_0001", 2500, "EUR", NOON)
READER = Contact("reader@example.org", "A Reader")
MEANT: dict[str, tuple[Event, Interpretation]] = {
    "a checkout that was paid": (
        checkout_event(GIFT),
        Interpretation(False, NOON, "cs_test_0001", "pi_0001", PAID, contact=READER),
    ),
    "a checkout that was paid later": (
        checkout_event(GIFT, "checkout.session.async_payment_succeeded", at=LATER),
        Interpretation(False, LATER, "cs_test_0001", "pi_0001", replace(PAID, occurred_at=LATER), contact=READER),
    ),
    "a checkout in yen, which have no minor unit": (
        checkout_event(YEN),
        Interpretation(
            False,
            NOON,
            "cs_test_0002",
            "pi_0002",
            Paid("gift_0002", "tokyo", "pi_0002", 500, "JPY", NOON),
            contact=READER,
        ),
    ),
    "a checkout whose money is on its way": (
        checkout_event(GIFT, paid=False),
        Interpretation(
            False, NOON, "cs_test_0001", "pi_0001", CheckoutChanged("gift_0001", "awaiting", "cs_test_0001", NOON)
        ),
    ),
    "a checkout whose money did not come": (
        checkout_event(GIFT, "checkout.session.async_payment_failed", paid=False),
        Interpretation(
            False, NOON, "cs_test_0001", "pi_0001", CheckoutChanged("gift_0001", "failed", "cs_test_0001", NOON)
        ),
    ),
    "a checkout that was left": (
        checkout_event(GIFT, "checkout.session.expired", paid=False, payment_intent=None),
        Interpretation(False, NOON, "cs_test_0001", "", CheckoutChanged("gift_0001", "expired", "cs_test_0001", NOON)),
    ),
    "a checkout with its payment written out": (
        checkout_event(GIFT, payment_intent={"id": "pi_0001", "object": "payment_intent"}, customer_details=None),
        Interpretation(False, NOON, "cs_test_0001", "pi_0001", PAID),
    ),
    "a checkout without a campaign": (
        checkout_event(GIFT, metadata={"gift": "gift_0001"}, customer_details={"email": None}),
        Interpretation(False, NOON, "cs_test_0001", "pi_0001", replace(PAID, campaign="")),
    ),
    "a live checkout": (
        checkout_event(Gift(pk="gift_0001", campaign_id="general", currency="EUR", amount=2500, livemode=True)),
        Interpretation(True, NOON, "cs_test_0001", "pi_0001", PAID, contact=READER),
    ),
    "a checkout of somebody else's": (
        checkout_event(GIFT, metadata={}),
        Interpretation(False, NOON, "cs_test_0001", "pi_0001", foreign=True),
    ),
    "a checkout of somebody else's, whose metadata is nothing": (
        checkout_event(GIFT, metadata=None),
        Interpretation(False, NOON, "cs_test_0001", "pi_0001", foreign=True),
    ),
    "a checkout of somebody else's, whose gifts are named otherwise": (
        checkout_event(GIFT, metadata={"gift": "of flowers"}),
        Interpretation(False, NOON, "cs_test_0001", "pi_0001", foreign=True),
    ),
    "a subscription's checkout that does not name a monthly gift": (
        checkout_event(GIFT, mode="subscription", payment_intent=None),
        Interpretation(False, NOON, "cs_test_0001", "", foreign=True),
    ),
    "a checkout that keeps a card for later": (
        checkout_event(GIFT, mode="setup", payment_intent=None),
        Interpretation(False, NOON, "cs_test_0001", ""),
    ),
    "a checkout of a mode that we do not know": (
        checkout_event(GIFT, mode="instalments"),
        Interpretation(False, NOON, "cs_test_0001", "pi_0001"),
    ),
    "a refund of a bare charge, which is never ours": (
        refund_event(GIFT, 500, refund="re_1", payment_intent=None),
        Interpretation(False, NOON, "re_1", foreign=True),
    ),
    "a payment that succeeded: its checkout tells of the same": (
        factories.event("payment_intent.succeeded", {"id": "pi_0001", "amount": 2500, "status": "succeeded"}),
        Interpretation(False, NOON, "pi_0001"),
    ),
    "a charge that was refunded: its refunds tell of the same": (
        factories.event("charge.refunded", {"id": "ch_0001", "amount_refunded": 2500}),
        Interpretation(False, NOON, "ch_0001"),
    ),
    "a monthly gift's checkout, paid for by its invoice": (
        factories.event("checkout.session.completed", MONTHLY_SESSION),
        Interpretation(
            False,
            NOON,
            "cs_test_1",
            fact=MonthlyCheckout("recurring_1", "completed", "cs_test_1", "sub_1", NOON),
            contact=READER,
        ),
    ),
    "a monthly gift's checkout that nobody paid": (
        factories.event(
            "checkout.session.expired", {**MONTHLY_SESSION, "subscription": None, "customer_details": None}
        ),
        Interpretation(False, NOON, "cs_test_1", fact=MonthlyCheckout("recurring_1", "expired", "cs_test_1", "", NOON)),
    ),
    "a monthly gift that will end": (
        factories.event("customer.subscription.updated", {**SUBSCRIPTION, "cancel_at": int(LATER.timestamp())}),
        Interpretation(
            False, NOON, "sub_1", fact=RecurringChanged("recurring_1", "sub_1", "active", LATER, None, NOON)
        ),
    ),
    "a monthly gift whose invoices are held back": (
        factories.event("customer.subscription.updated", {**SUBSCRIPTION, "pause_collection": {"behavior": "void"}}),
        Interpretation(False, NOON, "sub_1", fact=RecurringChanged("recurring_1", "sub_1", "paused", None, None, NOON)),
    ),
    "a monthly gift with its fee cover": (
        factories.event("customer.subscription.updated", {**SUBSCRIPTION, **asks(items_of(1000, 61))}),
        Interpretation(False, NOON, "sub_1", fact=replace(ARRANGED, amounts=(1000, 61), **IN_DOLLARS_EACH_MONTH)),
    ),
    "a monthly gift with what its checkout was for": (
        factories.event(
            "customer.subscription.updated",
            {
                **SUBSCRIPTION,
                **asks(items_of(1000, 61)),
                "metadata": {"recurring_gift": "recurring_1", "campaign": "general", "fee_cover": "61"},
            },
        ),
        Interpretation(
            False,
            NOON,
            "sub_1",
            fact=replace(ARRANGED, amounts=(1000, 61), campaign="general", fee_cover=61, **IN_DOLLARS_EACH_MONTH),
        ),
    ),
    "a monthly gift whose fee cover is more than all that it asks": (
        factories.event(
            "customer.subscription.updated",
            {
                **SUBSCRIPTION,
                **asks(items_of(61)),
                "metadata": {"recurring_gift": "recurring_1", "campaign": "No", "fee_cover": "61"},
            },
        ),
        Interpretation(False, NOON, "sub_1", fact=replace(ARRANGED, amounts=(61,), **IN_DOLLARS_EACH_MONTH)),
    ),
    "an invoice of several lines": (
        factories.event("invoice.paid", {**INVOICE, "status": "paid", "lines": lines_of(-500, 2000, 61)}),
        Interpretation(
            False,
            NOON,
            "in_1",
            fact=InvoiceSeen("in_1", "recurring_1", "sub_1", "", "", NOON, amounts=(-500, 2000, 61), status="paid"),
        ),
    ),
    "an invoice of several lines with a discount and a balance": (
        factories.event(
            "invoice.paid",
            {**INVOICE, "status": "paid", "lines": lines_of(2000, 61), "total": 1900, "starting_balance": -100},
        ),
        Interpretation(
            False,
            NOON,
            "in_1",
            fact=InvoiceSeen(
                "in_1", "recurring_1", "sub_1", "", "", NOON, amounts=(2000, 61), status="paid", total=1800
            ),
        ),
    ),
    "an invoice that may still change": (
        factories.event("invoice.created", {**INVOICE, "status": "draft", "lines": lines_of(2000, 61)}),
        Interpretation(
            False,
            NOON,
            "in_1",
            fact=InvoiceSeen("in_1", "recurring_1", "sub_1", "", "", NOON, draft=True, status="draft"),
        ),
    ),
    "somebody else's subscription": (
        factories.event("customer.subscription.created", {**SUBSCRIPTION, "metadata": {}}),
        Interpretation(False, NOON, "sub_1", foreign=True),
    ),
    "an invoice of a monthly gift": (
        factories.event("invoice.paid", INVOICE),
        Interpretation(False, NOON, "in_1", fact=InvoiceSeen("in_1", "recurring_1", "sub_1", "", "", NOON)),
    ),
    "an invoice of a monthly gift that was not paid": (
        factories.event("invoice.payment_failed", INVOICE),
        Interpretation(
            False,
            NOON,
            "in_1",
            fact=InvoiceSeen("in_1", "recurring_1", "sub_1", "failed", "https://pay.example.org/in_1", NOON),
        ),
    ),
    "an invoice to be authenticated, on a page with an address that is none": (
        factories.event("invoice.payment_action_required", {**INVOICE, "hosted_invoice_url": "javascript:pay()"}),
        Interpretation(
            False, NOON, "in_1", fact=InvoiceSeen("in_1", "recurring_1", "sub_1", "action_required", "", NOON)
        ),
    ),
    "an invoice of no subscription": (
        factories.event("invoice.created", {**INVOICE, "parent": None}),
        Interpretation(False, NOON, "in_1", foreign=True),
    ),
    "a payment of an invoice": (
        factories.event("invoice_payment.paid", INVOICE_PAYMENT),
        Interpretation(False, NOON, "in_1", "pi_1", InvoicePaid("in_1", "pi_1", 1000, "EUR", NOON)),
    ),
    "an invoice that was paid out of band": (
        factories.event("invoice_payment.paid", {**INVOICE_PAYMENT, "payment": {"type": "payment_record"}}),
        Interpretation(False, NOON, "in_1"),
    ),
    "an invoice of nothing": (
        factories.event("invoice_payment.paid", {**INVOICE_PAYMENT, "amount_paid": 0}),
        Interpretation(False, NOON, "in_1", "pi_1"),
    ),
    "a dispute with what it moved": (
        factories.dispute_event(GIFT, factories.movement("txn_1", -2500, fee=2000, currency="eur")),
        Interpretation(
            False,
            NOON,
            "du_0001",
            "pi_0001",
            DisputeChanged(
                "du_0001",
                "pi_0001",
                "needs_response",
                "fraudulent",
                2500,
                "EUR",
                (Movement("txn_1", -2500, 2000, "EUR", NOON),),
                NOON,
            ),
        ),
    ),
    "a charge that knows its balance transaction": (
        factories.charge_event(GIFT, "txn_1"),
        Interpretation(False, NOON, "ch_0001", "pi_0001", ChargeSettled("ch_0001", "pi_0001", "txn_1", NOON)),
    ),
    "a charge that does not know it yet": (
        factories.charge_event(GIFT, None),
        Interpretation(False, NOON, "ch_0001", "pi_0001"),
    ),
    "a balance transaction that was asked for": (
        factories.transaction_event(GIFT, factories.movement("txn_1", 2500, fee=63), payout="po_1"),
        Interpretation(
            False,
            NOON,
            "txn_1",
            "pi_0001",
            TransactionSeen(
                "txn_1",
                "charge",
                "ch_0001",
                "pi_0001",
                2500,
                63,
                2437,
                "USD",
                "",
                NOON,
                NOON + timedelta(days=2),
                "po_1",
            ),
        ),
    ),
    "a payout": (
        factories.payout_event("po_1", -300, reconciliation_status="completed"),
        Interpretation(
            False,
            NOON,
            "po_1",
            fact=PayoutChanged("po_1", "paid", -300, "USD", NOON, NOON + timedelta(days=2), True, True, NOON),
        ),
    ),
    "a monthly gift's checkout whose money did not come": (
        factories.event("checkout.session.async_payment_failed", {**MONTHLY_SESSION, "customer_details": []}),
        Interpretation(
            False, NOON, "cs_test_1", fact=MonthlyCheckout("recurring_1", "failed", "cs_test_1", "sub_1", NOON)
        ),
    ),
    "a checkout of a reader without a name": (
        checkout_event(GIFT, customer_details={"email": "reader@example.org", "name": None}),
        Interpretation(False, NOON, "cs_test_0001", "pi_0001", PAID, contact=Contact("reader@example.org", "")),
    ),
    "a monthly gift that has ended": (
        factories.event(
            "customer.subscription.deleted",
            {**SUBSCRIPTION, "status": "canceled", "ended_at": int(LATER.timestamp())},
        ),
        Interpretation(
            False, NOON, "sub_1", fact=RecurringChanged("recurring_1", "sub_1", "canceled", None, LATER, NOON)
        ),
    ),
    "a monthly gift whose invoices are held back after one was not paid": (
        factories.event(
            "customer.subscription.updated",
            {**SUBSCRIPTION, "status": "past_due", "pause_collection": {"behavior": "void"}},
        ),
        Interpretation(
            False, NOON, "sub_1", fact=RecurringChanged("recurring_1", "sub_1", "past_due", None, None, NOON)
        ),
    ),
    "an invoice of somebody else's subscription": (
        factories.event(
            "invoice.paid", {**INVOICE, "parent": {"subscription_details": {"subscription": "sub_1", "metadata": {}}}}
        ),
        Interpretation(False, NOON, "in_1", foreign=True),
    ),
    "an invoice of a parent that is no subscription": (
        factories.event("invoice.paid", {**INVOICE, "parent": {"quote_details": {"quote": "qt_1"}}}),
        Interpretation(False, NOON, "in_1", foreign=True),
    ),
    "an invoice that was paid without a payment": (
        factories.event("invoice_payment.paid", {**INVOICE_PAYMENT, "payment": None}),
        Interpretation(False, NOON, "in_1"),
    ),
    "a refund with the movements that took it out and brought it back": (
        refund_event(
            GIFT,
            500,
            refund="re_1",
            status="failed",
            balance_transaction="txn_1",
            failure_balance_transaction={"id": "txn_2", "object": "balance_transaction"},
        ),
        Interpretation(
            False,
            NOON,
            "re_1",
            "pi_0001",
            RefundChanged("re_1", "pi_0001", 500, "EUR", "failed", NOON, NOON, "", "txn_1", "txn_2"),
        ),
    ),
    "an inquiry, which moves nothing, for a reason that is no word": (
        factories.dispute_event(GIFT, status="warning_needs_response", reason="Not mine!", balance_transactions=None),
        Interpretation(
            False,
            NOON,
            "du_0001",
            "pi_0001",
            DisputeChanged("du_0001", "pi_0001", "warning_needs_response", "", 2500, "EUR", (), NOON),
        ),
    ),
    "a dispute that was won, for no reason": (
        factories.dispute_event(
            GIFT,
            factories.movement("txn_1", -2500, fee=2000),
            factories.movement("txn_2", 2500, fee=-2000, at=LATER, exchange_rate=1.09),
            amount=2400,
            status="won",
            reason=None,
            at=LATER,
        ),
        Interpretation(
            False,
            LATER,
            "du_0001",
            "pi_0001",
            DisputeChanged(
                "du_0001",
                "pi_0001",
                "won",
                "",
                2400,
                "EUR",
                (Movement("txn_1", -2500, 2000, "USD", NOON), Movement("txn_2", 2500, -2000, "USD", LATER, "1.09")),
                LATER,
            ),
        ),
    ),
    "a dispute of a bare charge, which is never ours": (
        factories.dispute_event(GIFT, payment_intent=None),
        Interpretation(False, NOON, "du_0001", foreign=True),
    ),
    "a charge without a payment": (
        factories.charge_event(GIFT, "txn_1", payment_intent=None),
        Interpretation(False, NOON, "ch_0001"),
    ),
    "a charge that shows that it is somebody else's": (
        factories.charge_event(GIFT, "txn_1", object="charge", metadata={}, customer=None),
        Interpretation(False, NOON, "ch_0001", "pi_0001", foreign=True),
    ),
    "a balance transaction in another currency, whose charge is not written out": (
        factories.transaction_event(
            None, factories.movement("txn_1", 2725, fee=109, exchange_rate=1.09, source="ch_0001", at=LATER)
        ),
        Interpretation(
            False,
            NOON,
            "txn_1",
            "",
            TransactionSeen(
                "txn_1",
                "charge",
                "ch_0001",
                "",
                2725,
                109,
                2616,
                "USD",
                "1.09",
                LATER,
                LATER + timedelta(days=2),
                "",
            ),
        ),
    ),
    "a balance transaction of nothing that is known, at a rate that is none": (
        factories.transaction_event(
            None, factories.movement("txn_1", -500, type="adjustment", exchange_rate="one to one")
        ),
        Interpretation(
            False,
            NOON,
            "txn_1",
            "",
            TransactionSeen(
                "txn_1", "adjustment", "", "", -500, 0, -500, "USD", "", NOON, NOON + timedelta(days=2), ""
            ),
        ),
    ),
    "a payout by hand that failed": (
        factories.payout_event("po_1", 300, status="failed", kind="payout.failed", automatic=False),
        Interpretation(
            False,
            NOON,
            "po_1",
            fact=PayoutChanged("po_1", "failed", 300, "USD", NOON, NOON + timedelta(days=2), False, False, NOON),
        ),
    ),
    "a type that nobody has heard of": (
        factories.event("moon.risen", {"phase": "full"}),
        Interpretation(False, NOON),
    ),
}


@pytest.mark.parametrize("told, meant", MEANT.values(), ids=MEANT)
def test_an_event_means(told: Event, meant: Interpretation) -> None:
    assert read(told) == meant


ANOTHERS: dict[str, Any] = {"id": "pi_1", "object": "payment_intent", "customer": None, "metadata": {}}


@pytest.mark.parametrize(
    "fields, payment",
    [
        ({}, "pi_1"),
        ({"metadata": {"gift": "of flowers", "order": "1"}}, "pi_1"),
        ({"customer_account": None}, "pi_1"),
        ({"object": "charge", "id": "ch_1", "payment_intent": "pi_2"}, "pi_2"),
        ({"object": "charge", "id": "ch_1", "payment_intent": None}, ""),
        ({"object": "charge", "id": "ch_1", "payment_intent": {"id": "pi_2"}}, "pi_2"),
        ({"object": "setup_intent", "id": "seti_1"}, ""),
        ({"object": ...}, ""),
        ({"metadata": {"gift": "gift_0001"}}, ""),
        ({"metadata": {"recurring_gift": "anything"}}, ""),
        ({"metadata": None}, ""),
        ({"metadata": ...}, ""),
        ({"customer": "cus_1"}, ""),
        ({"customer": ...}, ""),
        ({"customer_account": "acct_1"}, ""),
    ],
    ids=repr,
)
def test_a_payment_is_somebody_elses_only_where_it_certainly_is(fields: dict[str, Any], payment: str) -> None:
    """Ours carry their gift, or, where an invoice made them, have a customer; what does not tell may be ours."""
    told = changed(factories.event("payment_intent.succeeded", ANOTHERS), **fields)
    subject = told["data"]["object"]["id"]
    assert read(told) == Interpretation(False, NOON, subject, payment, foreign=bool(payment))


@pytest.mark.parametrize("kind", ["refund.created", "refund.updated", "refund.failed"])
@pytest.mark.parametrize("status", ["pending", "requires_action", "succeeded", "failed", "canceled"])
def test_a_refund_is_told_with_its_own_time_and_the_events(kind: str, status: str) -> None:
    told = refund_event(GIFT, 500, refund="re_1", status=status, kind=kind, at=LATER, metadata={"request": REQUEST})
    fact = RefundChanged("re_1", "pi_0001", 500, "EUR", status, NOON, LATER, REQUEST)
    assert read(told) == Interpretation(False, LATER, "re_1", "pi_0001", fact)


@pytest.mark.parametrize("metadata", [None, {}, [], {"request": "refund_"}, {"request": 1}, {"other": REQUEST}])
def test_a_refund_that_somebody_else_asked_for_carries_no_request_of_ours(metadata: Any) -> None:
    fact = read(refund_event(GIFT, 500, metadata=metadata)).fact
    assert isinstance(fact, RefundChanged)
    assert fact.request_key == ""


@pytest.mark.parametrize("told, meant", MEANT.values(), ids=MEANT)
def test_a_fact_survives_being_stored_as_json(told: Event, meant: Interpretation) -> None:
    fact = read(told).fact
    assert fact is None or fact_from_json(json.loads(json.dumps(fact_to_json(fact)))) == meant.fact


@pytest.mark.parametrize(
    "fact",
    [
        ARRANGED,
        InvoiceSeen("in_1", "recurring_1", "sub_1", "failed", "", NOON),
        InvoiceSeen("in_1", "recurring_1", "sub_1", "failed", "", NOON, amount_due=1000, currency="USD"),
    ],
)
def test_facts_of_an_earlier_version_are_read_and_are_what_they_were(fact: RecurringChanged | InvoiceSeen) -> None:
    """Nothing is stored of what only a later version reads, and nothing of it is asked of what was stored before."""
    stored = fact_to_json(fact)
    assert not stored.keys() & {"amounts", "interval", "draft", "status"} - (
        {"status"} if isinstance(fact, RecurringChanged) else set()
    )
    assert fact_from_json(stored) == fact
    later: dict[str, Any] = {"amounts": (1000, 61)}
    later |= {"total": 1061} if isinstance(fact, InvoiceSeen) else {"campaign": "general", "fee_cover": 61}
    read_now = replace(fact, **later, **(IN_DOLLARS_EACH_MONTH if isinstance(fact, RecurringChanged) else {}))
    assert as_far_as_stored(read_now, stored) == fact
    assert as_far_as_stored(read_now, fact_to_json(read_now)) == read_now
    in_part = {name: [] if name == "amounts" else value for name, value in later.items()}
    assert as_far_as_stored(read_now, stored | in_part) == read_now, "told in part is not what was stored then"


@pytest.mark.parametrize(
    ("told", "cover"),
    [
        ("106", 106),
        ("2605", 2605),
        ("0", 0),
        ("2606", 0),
        ("9" * 13, 0),
        ("9" * 5000, 0),
        ("-1", 0),
        ("1.5", 0),
        ("٣", 0),
    ],
)
def test_the_fee_cover_of_a_payment_is_less_than_all_of_it(told: str, cover: int) -> None:
    metadata = {"gift": GIFT.pk, "campaign": "general", "fee_cover": told}
    fact = read(checkout_event(GIFT, amount_total=2606, metadata=metadata)).fact
    assert isinstance(fact, Paid)
    assert fact.fee_cover == cover


def test_what_a_later_version_stored_is_passed_over() -> None:
    """Processes of two versions may be at work for a while."""
    fact = read(checkout_event(GIFT, amount_total=2606)).fact
    assert fact is not None
    assert fact_from_json(fact_to_json(fact) | {"told_later": [1]}) == fact
    moved = read(factories.dispute_event(GIFT, factories.movement("txn_1", -100))).fact
    assert isinstance(moved, DisputeChanged)
    stored = fact_to_json(moved)
    later = [movement | {"told_later": ""} for movement in stored["movements"]]
    assert later
    assert fact_from_json(stored | {"movements": later}) == moved


def test_a_payment_that_an_earlier_version_stored_tells_no_fee_cover() -> None:
    fact = Paid("gift_1", "general", "pi_1", 2606, "USD", NOON)
    stored, read_now = fact_to_json(fact), replace(fact, fee_cover=106)
    assert "fee_cover" not in stored
    assert as_far_as_stored(read_now, stored) == fact_from_json(stored) == fact
    assert as_far_as_stored(read_now, fact_to_json(read_now)) == fact_from_json(fact_to_json(read_now)) == read_now


def test_a_stored_fact_holds_nothing_personal() -> None:
    fact = read(checkout_event(GIFT)).fact
    assert fact is not None
    stored = json.dumps(fact_to_json(fact))
    assert "reader@example.org" not in stored
    assert "A Reader" not in stored


def test_a_contact_is_plain_text_of_a_bounded_length() -> None:
    odd = {"email": "a\x00b\ud800\u202e@example.org" + "g" * 300, "name": "Ä\n" + "n" * 300}
    contact = read(checkout_event(GIFT, customer_details=odd)).contact
    assert contact == Contact(("ab@example.org" + "g" * 300)[:255], ("Ä" + "n" * 300)[:100])


# ---- what a subscription asks


def arranged(items: Any, **fields: Any) -> RecurringChanged:
    fact = read(factories.event("customer.subscription.updated", {**SUBSCRIPTION, **asks(items), **fields})).fact
    assert isinstance(fact, RecurringChanged)
    return fact


def with_price(**fields: Any) -> dict[str, Any]:
    """One item of 10 $ each month, with other fields in its price."""
    items = items_of(1000)
    items["data"][0]["price"] |= fields
    return items


def with_item(**fields: Any) -> dict[str, Any]:
    items = items_of(1000)
    items["data"][0] |= fields
    return items


@pytest.mark.parametrize(
    "items, amounts, interval",
    [
        (items_of(2000), (2000,), "month"),
        (items_of(0), (0,), "month"),
        (items_of(2000, 61), (2000, 61), "month"),
        (items_of(500, quantity=3), (1500,), "month"),
        (items_of(500, quantity=0), (0,), "month"),
        (items_of(500, interval="year"), (500,), "year"),
        (items_of(500, interval_count=3), (500,), "3 months"),
        (items_of(500, interval="day", interval_count=1200), (500,), "1200 days"),
        (items_of(*[1] * 100), (1,) * 100, "month"),
        (items_of(10**12), (10**12,), "month"),
    ],
)
def test_what_each_item_asks_is_told(items: Any, amounts: tuple[int, ...], interval: str) -> None:
    assert arranged(items) == replace(ARRANGED, amounts=amounts, currency="USD", interval=interval)


@pytest.mark.parametrize(
    "items",
    [
        None,
        {},
        items_of(),
        items_of(None),
        items_of(1000, None),
        items_of(1000) | {"has_more": True},
        items_of(*[1] * 101),
        items_of(1000, usage_type="metered"),
        items_of(1000, currency="eur"),
        with_price(recurring=None),
        with_price(transform_quantity={"divide_by": 10, "round": "up"}),
        with_item(price=None),
        with_item(quantity=None),
        {"data": [*items_of(1000)["data"], *items_of(61, interval="year")["data"]]},
    ],
)
def test_where_it_is_no_fixed_sum_in_one_rhythm_nothing_of_it_is_told_and_all_else_is(items: Any) -> None:
    assert arranged(items) == ARRANGED


def test_other_currencies_of_a_price_are_not_taken_for_its_own() -> None:
    """A subscription in euros on a price in dollars: its amount in euros stands in no event."""
    assert arranged(items_of(1000), currency="eur") == ARRANGED


@pytest.mark.parametrize(
    "lines",
    [None, {}, [], "x", lines_of(1000), lines_of(1, 2) | {"has_more": True}, lines_of(*[1] * 101), {"data": [{}, {}]},
     {"data": [{"amount": 1}, {"amount": "2"}]}, {"data": [{"amount": 1}, {"amount": 10**13}]}],
)  # fmt: skip
def test_lines_that_cannot_all_be_told_apart_keep_no_payment_out_of_the_books(lines: Any) -> None:
    told = factories.event("invoice.paid", {**INVOICE, "status": "paid", "lines": lines})
    assert read(told) == read(factories.event("invoice.paid", {**INVOICE, "status": "paid"}))


def test_two_lines_are_told_apart() -> None:
    lines = {"data": [{"amount": 1000}, {"amount": 61}]}
    assert invoiced("invoice.paid", status="paid", lines=lines).amounts == (1000, 61)
    assert invoiced("invoice.paid", status="paid", lines={"data": lines["data"][:1]}).amounts == ()


@pytest.mark.parametrize("kind", ["invoice.payment_failed", "invoice.payment_action_required"])
def test_what_is_due_is_told_of_an_invoice_that_was_not_paid(kind: str) -> None:
    def due(**told: Any) -> tuple[int, str]:
        fact = invoiced(kind, **told)
        return fact.amount_due, fact.currency

    assert due(amount_due=1250, currency="eur") == (1250, "EUR")
    # Both or neither, for a mail alone: what is missing or odd keeps nothing out.
    odd: list[dict[str, Any]] = [{}, {"amount_due": 1250}, {"currency": "eur"}, {"amount_due": 0, "currency": "eur"}]
    odd += [{"amount_due": "1250", "currency": "eur"}, {"amount_due": 1250, "currency": 978}]
    assert {due(**told) for told in odd} == {(0, "")}
    assert invoiced("invoice.paid", amount_due=1250, currency="eur").amount_due == 0


@pytest.mark.parametrize("kind", ["invoice.paid", "invoice.voided", "invoice.marked_uncollectible", "invoice.created"])
def test_how_an_invoice_stands_is_told(kind: str) -> None:
    for status in ("draft", "open", "paid", "uncollectible", "void"):
        assert invoiced(kind, status=status).status == status
    for odd in (None, "Paid", "", 1, ["paid"], {}):
        assert invoiced(kind, status=odd).status == ""


def invoiced(kind: str, **told: Any) -> InvoiceSeen:
    fact = read(factories.event(kind, {**INVOICE, **told})).fact
    assert isinstance(fact, InvoiceSeen)
    return fact


# ---- events that are not as their type promises


WRONG: dict[str, list[Any]] = {
    "id": [..., None, 1, "", "cs test", "cs_1\n", ["cs_1"], "CS_1", "cs_" + "1" * 201],
    "amount_total": [..., None, -1, 0, 1.5, "2500", True, 10**13, [], {}],
    "currency": [..., None, "", "EUR", "euro", "e\n", 978, ["eur"]],
    "payment_intent": [..., None, "", 1, [], {}, {"id": 1}, "pi 1"],
    "payment_status": [..., None, "", "no_payment_required", "Paid", 1, [], {}],
}
WRONG_REFUND: dict[str, list[Any]] = {
    "id": [..., None, 1, "", ["re_1"]],
    "amount": [..., None, -1, 1.5, "500", False, 10**13],
    "currency": [..., None, "EUR", 978, {}],
    "created": [..., None, -1, 1.5, "now", True, 10**12],
    "status": [..., None, "", "Succeeded", 1, [], {}, ["succeeded"], {"succeeded": 1}],
}


SUBSCRIBED = factories.event("customer.subscription.updated", SUBSCRIPTION)
INVOICED = factories.event("invoice.paid", INVOICE)
INVOICE_WAS_PAID = factories.event("invoice_payment.paid", INVOICE_PAYMENT)
DISPUTED = factories.dispute_event(GIFT, factories.movement("txn_1", -2500))
SETTLED = factories.transaction_event(GIFT, factories.movement("txn_1", 2500, fee=63))
PAYOUT = factories.payout_event("po_1", 300)
SAYS: list[tuple[Event, dict[str, Any], str]] = [
    (checkout_event(GIFT), {"id": 1}, "id is not what it should be"),
    (checkout_event(GIFT), {"payment_status": "Paid"}, "payment_status is neither paid nor unpaid"),
    (checkout_event(GIFT), {"payment_intent": None}, "a paid checkout without a payment or an amount"),
    (checkout_event(GIFT), {"amount_total": 0}, "a paid checkout without a payment or an amount"),
    (checkout_event(GIFT), {"amount_total": -1}, "amount_total is below zero"),
    (checkout_event(GIFT), {"amount_total": "2500"}, "amount_total is not a whole number in range"),
    (checkout_event(GIFT), {"currency": "EUR"}, "currency is not what it should be"),
    *((SUBSCRIBED, {"status": status}, "the subscription's status is not known") for status in ("Active", [], {}, 1)),
    (SUBSCRIBED, {"id": "sub 1"}, "id is not what it should be"),
    *((SUBSCRIBED, asks(items), "items is not an object") for items in ([], "x", 1)),
    *((SUBSCRIBED, asks({"data": wrong}), "data is not a list of objects") for wrong in ({"a": 1}, "x", [1], [None])),
    (SUBSCRIBED, asks(items_of(1)) | {"currency": None}, "currency is not what it should be"),
    (SUBSCRIBED, asks(items_of(1, currency="USD")), "currency is not what it should be"),
    (SUBSCRIBED, asks(items_of(-1)), "unit_amount is below zero"),
    *(
        (SUBSCRIBED, asks(with_price(unit_amount=wrong)), "unit_amount is not a whole number in range")
        for wrong in ("1000", 10.5, True, [], 10**13)
    ),
    *(
        (SUBSCRIBED, asks(with_item(quantity=wrong)), "quantity is not a whole number in range")
        for wrong in ("1", 1.5, True, {}, 10**13)
    ),
    (SUBSCRIBED, asks(with_item(quantity=-1)), "quantity is below zero"),
    *((SUBSCRIBED, asks(with_item(price=wrong)), "price is not an object") for wrong in ("price_1", 1, [])),
    (SUBSCRIBED, asks(with_price(recurring="month")), "recurring is not an object"),
    *(
        (SUBSCRIBED, asks(items_of(1, interval=wrong)), "the subscription's interval is not known")
        for wrong in ("fortnight", None, [], {}, 1)
    ),
    *(
        (SUBSCRIBED, asks(items_of(1, interval_count=wrong)), "the subscription's interval is not known")
        for wrong in (0, 1201)
    ),
    (SUBSCRIBED, asks(items_of(1, interval_count="1")), "interval_count is not a whole number in range"),
    (SUBSCRIBED, asks(items_of(10**12, quantity=2)), "what the subscription asks is not in range"),
    (SUBSCRIBED, asks(items_of(10**12, 1)), "what the subscription asks is not in range"),
    (SUBSCRIBED, {"cancel_at": "soon"}, "cancel_at is not a time in range"),
    (SUBSCRIBED, {"ended_at": -1}, "ended_at is not a time in range"),
    (INVOICED, {"id": None}, "id is not what it should be"),
    (
        INVOICED,
        {"parent": {"subscription_details": {"metadata": {"recurring_gift": "recurring_1"}}}},
        "subscription is not what it should be",
    ),
    (INVOICE_WAS_PAID, {"invoice": None}, "invoice is not what it should be"),
    (INVOICE_WAS_PAID, {"amount_paid": -1}, "amount_paid is below zero"),
    (INVOICE_WAS_PAID, {"currency": None}, "currency is not what it should be"),
    (refund_event(GIFT, 500), {"status": "Succeeded"}, "the refund's status is not known"),
    (refund_event(GIFT, 500), {"amount": -1}, "amount is below zero"),
    (refund_event(GIFT, 500), {"created": "now"}, "created is not a time in range"),
    (DISPUTED, {"status": "Won"}, "status is not what it should be"),
    (DISPUTED, {"amount": None}, "amount is not a whole number in range"),
    *(
        (DISPUTED, {"balance_transactions": wrong}, "balance_transactions is not a list of objects")
        for wrong in ({"id": "txn_1"}, ["txn_1"], [{"id": "txn_1"}, None], "txn_1")
    ),
    (DISPUTED, {"balance_transactions": [{}]}, "id is not what it should be"),
    *(
        (DISPUTED, {"balance_transactions": [{**factories.movement("txn_1", -2500), name: None}]}, says)
        for name, says in (
            ("amount", "amount is not a whole number in range"),
            ("fee", "fee is not a whole number in range"),
            ("currency", "currency is not what it should be"),
            ("created", "created is not a time in range"),
        )
    ),
    *((told, {"created": 0}, "created is not a time in range") for told in (SETTLED, PAYOUT, refund_event(GIFT, 500))),
    (SUBSCRIBED, {"ended_at": 0}, "ended_at is not a time in range"),
    (SETTLED, {"type": "Charge"}, "type is not what it should be"),
    (SETTLED, {"amount": 2500.0}, "amount is not a whole number in range"),
    (SETTLED, {"fee": None}, "fee is not a whole number in range"),
    (SETTLED, {"net": True}, "net is not a whole number in range"),
    (SETTLED, {"net": 2438}, "net is not the amount less the fee"),
    (SETTLED, {"net": 2563}, "net is not the amount less the fee"),
    (SETTLED, {"available_on": None}, "available_on is not a time in range"),
    *((PAYOUT, {"status": status}, "the payout's status is not known") for status in ("Paid", None, [], {})),
    (PAYOUT, {"arrival_date": None}, "arrival_date is not a time in range"),
    (PAYOUT, {"automatic": 1}, "automatic is not true or false"),
]


@pytest.mark.parametrize("told, fields, says", SAYS, ids=lambda value: None if isinstance(value, dict) else str(value))
def test_what_staff_read_of_a_malformed_event_names_what_is_wrong(
    told: Event, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(Malformed) as wrong:
        read(changed(told, **fields))
    assert str(wrong.value) == says


@pytest.mark.parametrize(
    "outside, says",
    [
        ({"livemode": None}, "livemode is not true or false"),
        ({"created": None}, "created is not a time in range"),
        ({"data": {"object": []}}, "the event has no object"),
        ({"data": []}, "the event has no object"),
    ],
)
def test_what_staff_read_of_an_event_whose_outside_is_wrong_names_it(outside: dict[str, Any], says: str) -> None:
    with pytest.raises(Malformed) as wrong:
        read(checkout_event(GIFT) | outside)
    assert str(wrong.value) == says


MOST, FIRST, LAST = 10**12, 946_771_200, 4_102_444_800


@pytest.mark.parametrize("amount", [MOST, 0, -1, -MOST])
def test_amounts_are_read_up_to_a_million_million_and_below_zero_where_they_may_be(amount: int) -> None:
    fact = read(factories.payout_event("po_1", amount)).fact
    assert isinstance(fact, PayoutChanged)
    assert fact.amount == amount
    if amount >= 0:
        refunded = read(refund_event(GIFT, amount)).fact
        assert isinstance(refunded, RefundChanged)
        assert refunded.amount == amount


@pytest.mark.parametrize("amount", [MOST + 1, -MOST - 1])
def test_amounts_beyond_are_not_read(amount: int) -> None:
    with pytest.raises(Malformed):
        read(factories.payout_event("po_1", amount))


@pytest.mark.parametrize("zone", ["Etc/GMT+12", "Pacific/Kiritimati"])
def test_a_month_of_the_first_time_that_is_read_has_a_page_in_every_zone(zone: str) -> None:
    month = Month.of(datetime.fromtimestamp(FIRST, UTC), zone)
    assert Month.parse(str(month)) == month


@pytest.mark.parametrize("seconds", [FIRST, LAST])
def test_times_are_read_from_2000_to_2100(seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    told = refund_event(GIFT, 500, created=moment)
    fact = read(told).fact
    assert isinstance(fact, RefundChanged)
    assert (fact.created, fact.occurred_at) == (moment, moment)


@pytest.mark.parametrize("field, value", [(field, value) for field, wrong in WRONG.items() for value in wrong])
def test_a_paid_checkout_that_lacks_something_is_malformed(field: str, value: Any) -> None:
    with pytest.raises(Malformed):
        read(changed(checkout_event(GIFT), **{field: value}))


@pytest.mark.parametrize("field, value", [(field, value) for field, wrong in WRONG_REFUND.items() for value in wrong])
def test_a_refund_that_lacks_something_is_malformed(field: str, value: Any) -> None:
    with pytest.raises(Malformed):
        read(changed(refund_event(GIFT, 500), **{field: value}))


@pytest.mark.parametrize(
    "outside",
    [
        {"livemode": None},
        {"livemode": "false"},
        {"livemode": 0},
        {"created": None},
        {"created": -1},
        {"created": 0},
        {"created": 946_771_199},
        {"created": 4_102_444_801},
        {"created": True},
        {"created": 1.5},
        {"data": None},
        {"data": []},
        {"data": {}},
        {"data": {"object": None}},
        {"data": {"object": "cs_1"}},
    ],
    ids=repr,
)
@pytest.mark.parametrize("told", [checkout_event(GIFT), refund_event(GIFT, 500)], ids=["checkout", "refund"])
def test_an_event_whose_outside_is_wrong_is_malformed(told: Event, outside: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        read({**told, **outside})


@pytest.mark.parametrize(
    "told, meant",
    [
        ({"type": "account.updated"}, Interpretation(None, None)),
        ({"type": "account.updated", "data": {}, "livemode": True}, Interpretation(True, None)),
        ({"type": "account.updated", "data": {"object": {"id": "acct_1"}}}, Interpretation(None, None, "acct_1")),
        ({"type": "a", "created": int(NOON.timestamp()), "livemode": "no"}, Interpretation(None, NOON)),
        ({"type": "a", "created": 10**18, "livemode": 0, "data": []}, Interpretation(None, None)),
        (
            {
                "type": "v1.billing.meter.error_report_triggered",
                "object": "v2.core.event",
                "livemode": False,
                "created": "2024-09-17T06:20:52.246Z",
                "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
            },
            Interpretation(False, None),
        ),
    ],
)
def test_an_event_of_a_type_that_is_not_booked_may_have_any_shape(told: Event, meant: Interpretation) -> None:
    assert read({"id": "evt_1", **told}) == meant


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"NaN"], ids=plainly)
def test_a_body_that_is_no_object_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match=r"^not an object$" if body in {b"[]", b"NaN"} else "^not JSON$"):
        adapter().interpret(body)


@given(body=st.binary())
@example(body=b"{}")
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    with suppress(Malformed):
        assert adapter().interpret(body).fact is None
    with pytest.raises(BadDelivery):
        adapter().envelope(body)


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(),
        st.text(),
        st.sampled_from(
            ["\x00", "\ud800", "\u202e", "evt_1", "pi_1", "re_1", "succeeded", "paid", "unpaid", "payment"]
        ),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every field of an event, at any depth."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inside:
        yield (*path, name)
        yield from places(part, (*path, name))


@st.composite
def damaged_events(draw: st.DrawFn) -> Event:
    """A valid event of which a few fields are gone or are something else."""
    choices = [
        *(told for told, _ in MEANT.values()),
        *(refund_event(GIFT, 500, refund="re_1", status=status) for status in ("pending", "succeeded", "failed")),
    ]
    told = deepcopy(draw(st.sampled_from(choices)))
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(list(places(told)) or [("id",)]))
        holder: Any = told
        for name in parents:
            holder = holder[name]
        if draw(st.booleans()) and isinstance(holder, dict):
            holder.pop(last, None)
        else:
            holder[last] = draw(JUNK)
    return told


@given(told=damaged_events())
def test_a_damaged_event_is_read_or_malformed_and_nothing_else(told: Event) -> None:
    body = json.dumps(told).encode()
    try:
        found = adapter().interpret(body)
    except Malformed as error:
        str(error).encode()
        return
    assert isinstance(found, Interpretation)
    texts = [found.subject, found.payment, *((found.contact.email, found.contact.name) if found.contact else ())]
    if found.fact:
        stored = fact_to_json(found.fact)
        assert fact_from_json(json.loads(json.dumps(stored))) == found.fact
        texts += [value for value in stored.values() if isinstance(value, str)]
        amount = getattr(found.fact, "amount", 0)
        assert type(amount) is int
        assert abs(amount) <= 10**12
        assert amount >= 0 or isinstance(found.fact, (TransactionSeen, PayoutChanged))
        assert type(found.fact) in FACTS.values()
        amounts = getattr(found.fact, "amounts", ())
        assert all(abs(each) <= 10**12 for each in amounts)
        assert not isinstance(found.fact, RecurringChanged) or 0 <= sum(amounts) <= 10**12
    # The address of an invoice's page is the longest text that is kept.
    assert all(text.isprintable() and len(text) <= 1010 for text in texts)


@pytest.mark.django_db
def test_a_malformed_event_is_quarantined_with_what_is_wrong_and_not_tried_again() -> None:
    factories.deliver(changed(refund_event(GIFT, 500), status=["succeeded"]))
    inbox.drain()
    row = InboxEvent.objects.get()
    assert (row.state, row.next_try_at, row.attempts) == ("quarantined", None, 1)
    assert "the refund's status is not known" in row.reason


# ---- what is asked for


ORDER = CheckoutOrder(
    reference="gift_0001",
    monthly=False,
    campaign="general",
    campaign_name="Größere Reportagen",
    amount=2500,
    fee_cover=0,
    currency="EUR",
    success_url="https://news.example.org/thanks/gift_0001/",
    cancel_url="https://news.example.org/give/general/",
    expires_at=datetime(2026, 11, 24, 12, tzinfo=UTC),
)


def test_a_checkout_is_asked_for_with_the_amount_and_the_gift_and_nothing_personal() -> None:
    line = {
        "quantity": 1,
        "price_data": {"currency": "eur", "unit_amount": 2500, "product_data": {"name": "Größere Reportagen"}},
    }
    assert adapter().checkout_parameters(ORDER) == {
        "mode": "payment",
        "submit_type": "donate",
        "client_reference_id": "gift_0001",
        "line_items": [line],
        "metadata": {"gift": "gift_0001", "campaign": "general"},
        "payment_intent_data": {"metadata": {"gift": "gift_0001", "campaign": "general"}},
        "adaptive_pricing": {"enabled": False},
        "expires_at": 1795521600,
        "success_url": "https://news.example.org/thanks/gift_0001/",
        "cancel_url": "https://news.example.org/give/general/",
    }


def test_a_fee_cover_is_a_line_of_its_own_and_the_only_addition() -> None:
    plain = adapter().checkout_parameters(ORDER)
    more = adapter().checkout_parameters(replace(ORDER, fee_cover=90))
    assert {name for name in more if more[name] != plain.get(name)} == {
        *("line_items", "metadata", "payment_intent_data"),
    }
    assert more["metadata"] == {"gift": "gift_0001", "campaign": "general", "fee_cover": "90"}
    assert more["payment_intent_data"] == {"metadata": more["metadata"]}
    assert [item["price_data"]["unit_amount"] for item in more["line_items"]] == [2500, 90]
    assert [item["price_data"]["product_data"]["name"] for item in more["line_items"]][1] == "Fee cover"


def test_yen_are_sent_as_they_are() -> None:
    [line] = adapter().checkout_parameters(replace(ORDER, amount=500, currency="JPY"))["line_items"]
    assert (line["price_data"]["unit_amount"], line["price_data"]["currency"]) == (500, "jpy")


MONTHLY = replace(ORDER, reference="recurring_1", monthly=True, amount=1000, fee_cover=45)


def test_a_monthly_checkout_recurs_with_its_fee_cover_and_marks_the_subscription() -> None:
    parameters = adapter().checkout_parameters(MONTHLY)
    metadata = {"recurring_gift": "recurring_1", "campaign": "general", "fee_cover": "45"}
    assert (parameters["mode"], parameters["metadata"]) == ("subscription", metadata)
    assert parameters["subscription_data"] == {"metadata": metadata}
    assert "payment_intent_data" not in parameters
    assert [(line["quantity"], line["price_data"]) for line in parameters["line_items"]] == [
        (
            1,
            {
                "currency": "eur",
                "unit_amount": amount,
                "product_data": {"name": name},
                "recurring": {"interval": "month"},
            },
        )
        for name, amount in (("Größere Reportagen", 1000), ("Fee cover", 45))
    ]


@pytest.mark.parametrize(
    "order, wanted",
    [
        (ORDER, Asked("gift_0001", "general", 2500, "EUR")),
        (replace(ORDER, fee_cover=90, currency="JPY"), Asked("gift_0001", "general", 2590, "JPY")),
        (MONTHLY, Asked("recurring_1", "general", 1045, "EUR")),
    ],
)
def test_saved_parameters_tell_what_they_ask_of_whom(order: CheckoutOrder, wanted: Asked) -> None:
    parameters = adapter().checkout_parameters(order)
    assert adapter().asked(parameters) == wanted
    for line in parameters["line_items"]:
        line["quantity"] = 3
    assert adapter().asked(parameters) == replace(wanted, amount=3 * wanted.amount)


@pytest.mark.parametrize(
    "wrong",
    [
        {"line_items": ...},
        {"line_items": None},
        {"line_items": []},
        {"line_items": [1]},
        {"line_items": [{"quantity": 1}]},
        {"line_items": [{"quantity": 1, "price_data": {"currency": 978, "unit_amount": 2500}}]},
        {
            "line_items": [
                {"quantity": 1, "price_data": {"currency": currency, "unit_amount": 2500}}
                for currency in ("eur", "usd")
            ]
        },
        {"mode": ...},
        {"mode": "subscription"},
        {"metadata": None},
        {"metadata": {"gift": "gift_0001"}},
    ],
    ids=repr,
)
def test_parameters_that_are_not_of_a_checkout_are_malformed(wrong: dict[str, Any]) -> None:
    parameters = {**adapter().checkout_parameters(ORDER), **wrong}
    with pytest.raises(Malformed, match=r"^these are not the parameters of a checkout$"):
        adapter().asked({name: value for name, value in parameters.items() if value is not ...})


def test_the_parameters_can_be_saved() -> None:
    parameters = adapter().checkout_parameters(ORDER)
    assert json.loads(json.dumps(parameters)) == parameters


def settings_of(api_base: str, *, livemode: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        STRIPE_SECRET_KEY="sk_test_y", STRIPE_API_BASE=api_base, STRIPE_WEBHOOK_SECRETS=(SECRET,), LIVEMODE=livemode
    )


@pytest.mark.parametrize("live", [True, False])
def test_the_mode_is_the_sites(live: bool) -> None:
    processor = StripeProcessor.from_settings(settings_of(NOWHERE, livemode=live))
    assert processor.livemode is live
    assert processor.webhook_secrets == [SECRET]


# ---- what is made of answers


class Answers(BaseHTTPRequestHandler):
    """A processor of a few lines: it answers what the test put up, and remembers what it was asked."""

    status: int
    answer: bytes
    answers: dict[str, bytes]
    headers_sent: dict[str, str]
    wait: threading.Event | None
    calls: list[tuple[str, dict[str, str], str]]

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        heard = type(self)
        heard.calls.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        if heard.wait:
            heard.wait.wait(10)
        with suppress(BrokenPipeError):
            answer = heard.answers.get(self.path, heard.answer)
            self.send_response(heard.status)
            for name, value in {"Content-Length": str(len(answer)), **heard.headers_sent}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


class Served:
    """A listening processor, and an adapter that calls it."""

    def __init__(self) -> None:
        fields = {"status": 200, "answer": b"{}", "answers": {}, "headers_sent": {}, "wait": None, "calls": []}
        self.handler = type("Handler", (Answers,), fields)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, status: int, body: Any) -> None:
        self.handler.status, self.handler.answer = status, json.dumps(body).encode()

    def answer_at(self, path: str, body: Any) -> None:
        self.handler.answers[path] = json.dumps(body).encode()

    def refuse(self, status: int, kind: str, code: str = "") -> None:
        self.answer(status, {"error": {"type": kind, "message": "no", **({"code": code} if code else {})}})

    @property
    def calls(self) -> list[tuple[str, dict[str, str], str]]:
        return self.handler.calls


@pytest.fixture
def served() -> Iterator[Served]:
    running = Served()
    yield running
    if running.handler.wait:
        running.handler.wait.set()
    running.server.shutdown()
    running.server.server_close()


SESSION = {"id": "cs_test_1", "object": "checkout.session", "url": "https://checkout.example/cs_test_1"}


def checkout(served: Served, parameters: Any = None, key: str = "k", *, email: str = "") -> Checkout:
    return adapter(api_base=served.url).create_checkout(parameters or {"mode": "payment"}, key, email=email, within=5)


def test_a_checkout_is_its_id_and_its_address(served: Served) -> None:
    served.answer(200, SESSION)
    opened = checkout(served, adapter().checkout_parameters(ORDER), "gift_0001-1")
    assert (opened.checkout_id, opened.url) == ("cs_test_1", "https://checkout.example/cs_test_1")
    [(path, headers, body)] = served.calls
    assert path == "/v1/checkout/sessions"
    assert headers["idempotency-key"] == "gift_0001-1"
    assert headers["authorization"] == "Bearer sk_test_x"
    assert headers["stripe-version"] == API_VERSION
    assert ("line_items[0][price_data][unit_amount]", "2500") in parse_qsl(body)


def test_the_page_opens_with_the_address_that_the_donor_gave(served: Served) -> None:
    served.answer(200, SESSION)
    parameters = adapter().checkout_parameters(ORDER)
    checkout(served, parameters)
    checkout(served, parameters, email="reader@example.org")
    without, with_it = [dict(parse_qsl(body, keep_blank_values=True)) for _, _, body in served.calls]
    assert "customer_email" not in without
    assert with_it == without | {"customer_email": "reader@example.org"}


def test_the_site_calls_the_address_of_its_settings_with_its_key(served: Served) -> None:
    served.answer(200, SESSION)
    StripeProcessor.from_settings(settings_of(served.url)).expire_checkout("cs_test_1")
    assert [headers["authorization"] for _, headers, _ in served.calls] == ["Bearer sk_test_y"]


def test_parameters_that_come_back_in_another_order_are_sent_as_the_same_bytes(
    served: Served, rng: random.Random
) -> None:
    served.answer(200, SESSION)
    parameters = adapter().checkout_parameters(replace(ORDER, fee_cover=90))
    for _ in range(3):
        checkout(served, dict(rng.sample(list(parameters.items()), len(parameters))), email="reader@example.org")
    checkout(served, json.loads(json.dumps(parameters, sort_keys=True)), email="reader@example.org")
    assert len({body for _, _, body in served.calls}) == 1


def test_a_checkout_that_is_over_has_no_address_and_is_refused(served: Served) -> None:
    served.answer(200, {**SESSION, "url": None, "status": "complete"})
    with pytest.raises(ProcessorRefused) as refused:
        checkout(served)
    assert (refused.value.code, refused.value.reader_text) == ("no_url", "This checkout is over already.")


def test_a_checkout_is_expired_by_its_id(served: Served) -> None:
    served.answer(200, {**SESSION, "status": "expired"})
    adapter(api_base=served.url).expire_checkout("cs_test_1")
    assert [path for path, _, _ in served.calls] == ["/v1/checkout/sessions/cs_test_1/expire"]


@pytest.mark.parametrize("customer", ["cus_1", {"id": "cus_1", "object": "customer"}])
def test_the_portal_is_opened_for_whoever_pays_the_subscription(served: Served, customer: Any) -> None:
    served.answer_at("/v1/subscriptions/sub_1", {"id": "sub_1", "object": "subscription", "customer": customer})
    portal = {"object": "billing_portal.session", "url": "https://portal.example/1"}
    served.answer_at("/v1/billing_portal/sessions", portal)
    back = "https://news.example.org/manage/recurring_1/"
    assert adapter(api_base=served.url).portal_url("sub_1", back, within=5) == "https://portal.example/1"
    assert [path for path, _, _ in served.calls] == ["/v1/subscriptions/sub_1", "/v1/billing_portal/sessions"]
    assert dict(parse_qsl(served.calls[1][2])) == {"customer": "cus_1", "return_url": back}


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_subscription_that_is_not_told_opens_no_portal(served: Served, status: int) -> None:
    served.refuse(status, "invalid_request_error")
    with pytest.raises((ProcessorRefused, ProcessorUnavailable)):
        adapter(api_base=served.url).portal_url("sub_1", "https://news.example.org/", within=5)
    assert len(served.calls) == 1


NOT_ACCEPTED = "The payment service did not accept this. Please try another amount."
REFUSALS = [
    (
        400,
        "invalid_request_error",
        "amount_too_small",
        "This amount is too small to be paid by card. Please choose a larger one.",
    ),
    (
        400,
        "invalid_request_error",
        "amount_too_large",
        "This amount is too large to be paid at once. Please choose a smaller one.",
    ),
    (
        400,
        "invalid_request_error",
        "email_invalid",
        "The payment service does not accept this email address. Please look at it once more.",
    ),
    (400, "invalid_request_error", "charge_already_refunded", "This payment has been refunded already."),
    (400, "invalid_request_error", "parameter_unknown", NOT_ACCEPTED),
    (400, "invalid_request_error", "", NOT_ACCEPTED),
    (404, "invalid_request_error", "resource_missing", NOT_ACCEPTED),
    (402, "card_error", "card_declined", NOT_ACCEPTED),
    (402, "card_error", "", NOT_ACCEPTED),
]


@pytest.mark.parametrize("status, kind, code, words", REFUSALS)
def test_a_no_for_good_is_refused_with_a_sentence_for_the_reader(
    served: Served, status: int, kind: str, code: str, words: str
) -> None:
    served.refuse(status, kind, code)
    adapting = adapter(api_base=served.url)
    for call in (
        lambda: checkout(served),
        lambda: adapting.expire_checkout("cs_test_1"),
        lambda: adapting.refund("pi_1", 500, REQUEST, REQUEST),
    ):
        with pytest.raises(ProcessorRefused) as refused:
            call()
        assert refused.value.code == (code or str(status))
        assert refused.value.reader_text == words
    assert len(served.calls) == 3


def test_more_asked_back_than_is_left_is_known_by_its_parameter_as_it_has_no_code(served: Served) -> None:
    served.answer(400, {"error": {"type": "invalid_request_error", "message": "no", "param": "amount"}})
    with pytest.raises(ProcessorRefused) as refused:
        adapter(api_base=served.url).refund("pi_1", 500, REQUEST, REQUEST)
    assert refused.value.code == MORE_THAN_LEFT


FAULTS = [
    (401, "invalid_request_error", ""),
    (403, "invalid_request_error", ""),
    (409, "invalid_request_error", "idempotency_key_in_use"),
    (429, "invalid_request_error", "rate_limit"),
    (429, "invalid_request_error", "lock_timeout"),
    (500, "api_error", ""),
    (503, "api_error", ""),
]


@pytest.mark.parametrize("status, kind, code", FAULTS)
def test_a_fault_that_may_pass_is_no_refusal_and_no_reader_waits_for_a_second_try(
    served: Served, status: int, kind: str, code: str
) -> None:
    served.refuse(status, kind, code)
    with pytest.raises(ProcessorUnavailable):
        checkout(served)
    assert len(served.calls) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_told_from_a_fault(served: Served, status: int) -> None:
    served.refuse(status, "invalid_request_error")
    adapting = adapter(api_base=served.url)
    for call in (
        lambda: checkout(served),
        lambda: adapting.sweep("payouts", since=NOON),
    ):
        with pytest.raises(KeyRefused, match=rf"^the key was refused: {status}$") as refused:
            call()
        assert refused.value.wait is None


@pytest.mark.parametrize(
    "told, wait",
    [
        ("0", 0.0),
        ("7", 7.0),
        ("99999", 99_999.0),
        ("100000", None),
        ("1.5", None),
        ("-1", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_a_fault_tells_after_how_many_seconds_to_ask_again(
    served: Served, told: str | None, wait: float | None
) -> None:
    served.handler.headers_sent = {} if told is None else {"Retry-After": told}
    for status, says, fault in ((429, "RateLimitError", ProcessorUnavailable), (409, "APIError", ProcessorBusy)):
        served.refuse(status, "invalid_request_error", "lock_timeout")
        with pytest.raises(fault, match=rf"^{says}: {status}$") as found:
            adapter(api_base=served.url).sweep("payouts", since=NOON)
        assert found.value.wait == wait
    assert len(served.calls) == 2


def test_a_call_that_is_being_answered_already_is_told_from_a_fault(served: Served) -> None:
    served.refuse(409, "idempotency_error", "idempotency_key_in_use")
    with pytest.raises(ProcessorBusy):
        checkout(served)
    served.refuse(429, "invalid_request_error", "rate_limit")
    with pytest.raises(ProcessorUnavailable) as fault:
        checkout(served)
    assert not isinstance(fault.value, ProcessorBusy)


def test_a_failure_that_is_kept_for_the_key_is_told_from_one_that_is_new(served: Served) -> None:
    served.refuse(500, "api_error")
    with pytest.raises(ProcessorUnavailable) as fault:
        checkout(served)
    assert not isinstance(fault.value, AnswerKept)
    served.handler.headers_sent = {"Idempotent-Replayed": "true"}
    with pytest.raises(AnswerKept):
        checkout(served)
    # What was refused is refused: another key would change nothing.
    served.refuse(400, "invalid_request_error", "amount_too_large")
    with pytest.raises(ProcessorRefused):
        checkout(served)


def test_a_refund_is_tried_twice_with_one_key(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.refuse(500, "api_error")
    monkeypatch.setattr("stripe.HTTPClient.MAX_DELAY", 0.01)
    monkeypatch.setattr("stripe.HTTPClient.INITIAL_DELAY", 0.01)
    with pytest.raises(ProcessorUnavailable):
        adapter(api_base=served.url).refund("pi_1", 500, REQUEST, REQUEST)
    assert {(path, headers["idempotency-key"]) for path, headers, _ in served.calls} == {("/v1/refunds", REQUEST)}
    assert len(served.calls) == 2
    sent = dict(parse_qsl(served.calls[0][2]))
    assert sent == {"payment_intent": "pi_1", "amount": "500", "metadata[request]": REQUEST}


def test_an_accepted_refund_is_its_id(served: Served) -> None:
    served.answer(200, {"id": "re_1", "object": "refund", "status": "pending"})
    assert adapter(api_base=served.url).refund("pi_1", 500, REQUEST, REQUEST) == "re_1"


def test_a_refund_is_found_among_all_of_its_payments_refunds_by_the_request_that_it_carries(served: Served) -> None:
    others = [{"id": "re_1", "metadata": None}, {"id": "re_2", "metadata": {"request": REQUEST[:-1] + "1"}}]
    served.answer(200, {"object": "list", "data": others, "has_more": False})
    adapting = adapter(api_base=served.url)
    assert adapting.refund_of("pi_1", REQUEST) == ""
    ours = {"id": "re_3", "metadata": {"request": REQUEST}}
    served.answer(200, {"object": "list", "data": [*others, ours], "has_more": True})
    assert adapting.refund_of("pi_1", REQUEST) == "re_3"
    path, query = "/v1/refunds", {"payment_intent": "pi_1", "limit": "100"}
    assert [(each, dict(asked)) for each, asked in queries(served)] == [(path, query)] * 2


@pytest.mark.parametrize("body", [b"<html>Welcome to the airport's network</html>", b"", b"{"])
def test_an_answer_that_is_not_json_is_no_answer(served: Served, body: bytes) -> None:
    served.handler.answer = body
    with pytest.raises(ProcessorUnavailable):
        checkout(served)


def test_a_processor_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(ProcessorUnavailable, match=r"^APIConnectionError: APIConnectionError$") as fault:
        adapter(api_base=f"http://127.0.0.1:{free_port()}").create_checkout({}, "k", email="", within=5)
    assert fault.value.wait is None


def test_a_processor_that_does_not_answer_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKOUT_TIMEOUT", (0.2, 0.2))
    served.handler.wait = threading.Event()
    began = time.monotonic()
    with pytest.raises(ProcessorUnavailable):
        checkout(served)
    assert time.monotonic() - began < 2
    assert len(served.calls) == 1


def test_a_reader_is_let_go_at_the_deadline_of_the_whole_call(served: Served) -> None:
    served.handler.wait = threading.Event()
    adapting, began = adapter(api_base=served.url), time.monotonic()
    with pytest.raises(ProcessorUnavailable, match=r"^no whole answer within 0\.2 s$"):
        adapting.create_checkout({"mode": "payment"}, "k", email="", within=0.2)
    with pytest.raises(ProcessorUnavailable, match=r"^no whole answer within 0\.3 s$"):
        adapting.portal_url("sub_1", "https://news.example.org/", within=0.3)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("timeout, calls", [("OTHER_TIMEOUT", 2), ("LIST_TIMEOUT", 1)])
def test_a_processor_that_does_not_answer_staff_or_a_sweep_is_given_up_too(
    served: Served, monkeypatch: pytest.MonkeyPatch, timeout: str, calls: int
) -> None:
    for name in ("CHECKOUT_TIMEOUT", "OTHER_TIMEOUT", "LIST_TIMEOUT"):
        monkeypatch.setattr(module, name, (0.2, 0.2) if name == timeout else (5.0, 5.0))
    monkeypatch.setattr("stripe.HTTPClient.MAX_DELAY", 0.01)
    monkeypatch.setattr("stripe.HTTPClient.INITIAL_DELAY", 0.01)
    served.handler.wait = threading.Event()
    adapting = adapter(api_base=served.url)
    began = time.monotonic()
    with pytest.raises(ProcessorUnavailable):
        adapting.refund("pi_1", 500, REQUEST, REQUEST) if calls == 2 else adapting.sweep("payouts", since=NOON)
    assert time.monotonic() - began < 2
    assert len(served.calls) == calls


# ---- what is asked for by lists


def queries(served: Served) -> list[tuple[str, list[tuple[str, str]]]]:
    """Path and query of each call."""
    found = [urlsplit(path) for path, _, _ in served.calls]
    return [(each.path, parse_qsl(each.query)) for each in found]


@pytest.mark.parametrize("key, live", [("sk_test_x", False), ("rk_live_x", True)])
def test_a_list_is_asked_for_page_by_page_and_is_of_the_mode_of_our_key(served: Served, key: str, live: bool) -> None:
    told = factories.event("payout.paid", {"id": "po_1", "object": "payout"})
    served.answer(200, {"object": "list", "data": [told], "has_more": True})
    adapting = adapter(api_key=key, api_base=served.url, livemode=live)
    page = adapting.sweep("events", since=NOON)
    assert (page.listed, page.cursor) == (1, told["id"])
    assert [json.loads(sighting.body) for sighting in page.sightings] == [told]
    payout = factories.payout_event("po_1", 300)["data"]["object"]
    served.answer(200, {"object": "list", "data": [payout], "has_more": False})
    page = adapting.sweep("payouts", since=NOON, after="po_2")
    assert (page.listed, page.cursor) == (1, "")
    [sighting] = page.sightings
    meant = adapting.interpret(sighting.body)
    assert (meant.subject, meant.livemode) == ("po_1", live)
    since = str(int(NOON.timestamp()))
    [events, payouts] = queries(served)
    assert events[0] == "/v1/events"
    assert dict(events[1]) == {"created[gte]": since, "delivery_success": "false", "limit": "100"}
    assert payouts[0] == "/v1/payouts"
    assert dict(payouts[1])["starting_after"] == "po_2"


def test_what_an_event_named_is_looked_up_by_its_id(served: Served) -> None:
    refund = refund_event(GIFT, 500, refund="re_1", metadata={"request": REQUEST})["data"]["object"]
    served.answer(200, refund)
    adapting = adapter(api_key="sk_live_x", api_base=served.url, livemode=True)
    page = adapting.look_up("refund", "re_1")
    assert (page.listed, page.cursor) == (1, "")
    meant = [adapting.interpret(sighting.body) for sighting in page.sightings]
    fact = RefundChanged("re_1", "pi_0001", 500, "EUR", "succeeded", NOON, NOON, REQUEST)
    assert meant == [Interpretation(True, NOON, "re_1", "pi_0001", fact)]
    served.answer(200, {"object": "list", "data": [], "has_more": False})
    adapting.look_up("payout", "po_1")
    adapting.look_up("payout", "po_1", after="txn_1")
    assert queries(served) == [
        ("/v1/refunds/re_1", [("expand[0]", "failure_balance_transaction")]),
        ("/v1/balance_transactions", [("payout", "po_1"), ("expand[0]", "data.source"), ("limit", "100")]),
        (
            "/v1/balance_transactions",
            [("payout", "po_1"), ("expand[0]", "data.source"), ("limit", "100"), ("starting_after", "txn_1")],
        ),
    ]


# ---- numbers


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ("1.0875", "1.0875"),
        ("1.50", "1.5"),
        ("6.25e-05", "0.0000625"),
        ("158", "158"),
        ("100", "100"),
        ("true", ""),
        ("null", ""),
        ('"1.0875"', ""),
        ("0", ""),
        ("-1.5", ""),
        ("1e99", ""),
        ("1e12", ""),
        ("999999999999", "999999999999"),
        ("1e-12", ""),
        ("1.5e-12", "0.0000000000015"),
    ],
)
def test_a_rate_is_read_as_an_exact_decimal_or_not_at_all(told: str, read: str) -> None:
    assert reading.rate(reading.parsed(f'{{"exchange_rate": {told}}}'.encode())) == read


def test_beside_a_number_that_is_too_long_to_read_all_others_are_numbers() -> None:
    longest, longer = "1" * 19, "1" * 20
    read = reading.parsed(f'{{"a": 1.50, "b": {longest}, "c": {longer}, "d": {"9" * 5000}}}'.encode())
    assert (read["a"].text, read["b"]) == ("1.50", int(longest))
    assert (read["c"], read["d"]) == (longer, "9" * 5000)

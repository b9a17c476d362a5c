"""What the adapter sends is what Stripe's description says it takes. A sandbox answers, and the wire is read."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from donations.processors.base import SWEEP, CheckoutOrder
from donations.processors.stripe import StripeProcessor
from donations.sandbox.objects import API_VERSION
from tests.conformance.openapi import Description
from tests.sandbox import KEY, SECRET, Sandboxed

ORDER = CheckoutOrder(
    reference="gift_0001",
    monthly=False,
    campaign="general",
    campaign_name="Größere Reportagen & mehr = besser?",
    amount=2500,
    fee_cover=0,
    currency="USD",
    success_url="https://news.example.org/thanks/gift_0001/?a=1&b=2",
    cancel_url="https://news.example.org/give/general/",
    expires_at=datetime.now(UTC) + timedelta(hours=1),
)
WITH_EVERYTHING = replace(ORDER, amount=2_000, fee_cover=90, currency="EUR")
ZERO_DECIMAL = replace(ORDER, amount=500, fee_cover=20, currency="JPY")
MONTHLY = replace(WITH_EVERYTHING, reference="recurring_0001", monthly=True)
ORDERS = pytest.mark.parametrize(
    "order",
    [ORDER, WITH_EVERYTHING, ZERO_DECIMAL, MONTHLY],
    ids=["plain", "with everything", "zero-decimal", "monthly"],
)


@dataclass(frozen=True)
class Sent:
    """One request as it went over the wire."""

    method: str
    path: str
    body: str
    key: str
    version: str
    query: str

    @property
    def fields(self) -> dict[str, str]:
        return dict(parse_qsl(self.body, keep_blank_values=True))


@pytest.fixture
def sent(box: Sandboxed) -> Iterator[list[Sent]]:
    """Every request that reaches the sandbox, the oldest first."""
    found: list[Sent] = []
    app = box.running.server.get_app()

    def recorder(environ: dict[str, Any], start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = (environ.get("HTTP_IDEMPOTENCY_KEY", ""), environ.get("HTTP_STRIPE_VERSION", ""))
        found.append(
            Sent(environ["REQUEST_METHOD"], environ["PATH_INFO"], body.decode(), *headers, environ["QUERY_STRING"])
        )
        return app(environ | {"wsgi.input": io.BytesIO(body)}, start_response)

    box.running.server.set_app(recorder)
    yield found
    box.running.server.set_app(app)


@pytest.fixture
def adapter(box: Sandboxed) -> StripeProcessor:
    return StripeProcessor(api_key=KEY, api_base=box.url, webhook_secrets=[SECRET], livemode=False)


@ORDERS
def test_a_new_checkout(
    stripe_says: Description, adapter: StripeProcessor, sent: list[Sent], order: CheckoutOrder
) -> None:
    parameters = adapter.checkout_parameters(order)
    checkout = adapter.create_checkout(parameters, "gift_0001-checkout", email="a.reader@example.org", within=5)
    assert checkout.checkout_id.startswith("cs_test_")
    [request] = sent
    assert (request.method, request.path, request.key) == ("POST", "/v1/checkout/sessions", "gift_0001-checkout")
    assert stripe_says.request_errors("POST", request.path, request.body) == []


@ORDERS
def test_a_new_checkout_asks_for_the_amount_in_whole_minor_units(
    adapter: StripeProcessor, box: Sandboxed, sent: list[Sent], order: CheckoutOrder
) -> None:
    checkout = adapter.create_checkout(adapter.checkout_parameters(order), "k", email="", within=5)
    lines = [value for name, value in sent[0].fields.items() if name.endswith("[unit_amount]")]
    assert lines == [str(amount) for amount in (order.amount, order.fee_cover) if amount]
    session = box.api("GET", f"/v1/checkout/sessions/{checkout.checkout_id}").json
    assert (session["amount_total"], session["currency"]) == (order.amount + order.fee_cover, order.currency.lower())
    assert session["metadata"].get("fee_cover", "0") == str(order.fee_cover)


def test_a_new_checkout_shows_the_address_of_the_donor(
    adapter: StripeProcessor, box: Sandboxed, sent: list[Sent]
) -> None:
    parameters = adapter.checkout_parameters(ORDER)
    checkout = adapter.create_checkout(parameters, "k", email="a.reader@example.org", within=5)
    session = box.api("GET", f"/v1/checkout/sessions/{checkout.checkout_id}").json
    assert sent[0].fields["customer_email"] == session["customer_email"] == "a.reader@example.org"


def test_a_new_checkout_leaves_the_methods_to_the_dashboard_and_marks_the_payment(
    adapter: StripeProcessor, sent: list[Sent]
) -> None:
    adapter.create_checkout(adapter.checkout_parameters(ORDER), "k", email="", within=5)
    fields = sent[0].fields
    assert not [name for name in fields if name.startswith(("payment_method_types", "allowed_payment_method_types"))]
    assert fields["payment_intent_data[metadata][gift]"] == fields["metadata[gift]"] == ORDER.reference
    assert fields["adaptive_pricing[enabled]"] == "false"
    assert fields["success_url"] == ORDER.success_url


def test_a_monthly_checkout_marks_the_subscription_and_recurs_with_its_fee_cover(
    adapter: StripeProcessor, sent: list[Sent]
) -> None:
    adapter.create_checkout(adapter.checkout_parameters(MONTHLY), "k", email="", within=5)
    fields = sent[0].fields
    assert (
        fields["subscription_data[metadata][recurring_gift]"] == fields["metadata[recurring_gift]"] == "recurring_0001"
    )
    assert [fields[f"line_items[{line}][price_data][recurring][interval]"] for line in (0, 1)] == ["month", "month"]
    assert not [name for name in fields if name.startswith("payment_intent_data") or name.endswith("[gift]")]


def test_the_billing_portal(
    stripe_says: Description, adapter: StripeProcessor, box: Sandboxed, sent: list[Sent]
) -> None:
    subscription, back = box.subscribed()["subscription"], "https://news.example.org/manage/recurring_1:x/"
    sent.clear()
    assert adapter.portal_url(subscription, back, within=5).startswith(f"{box.url}/portal/")
    asked, opened = sent
    assert (asked.method, asked.path) == ("GET", f"/v1/subscriptions/{subscription}")
    assert (opened.method, opened.path) == ("POST", "/v1/billing_portal/sessions")
    customer = box.one(f"subscriptions/{subscription}")["customer"]
    assert opened.fields == {"customer": customer, "return_url": back}
    for request in sent[:2]:
        assert stripe_says.request_errors(request.method, request.path, request.body) == []


def test_a_checkout_that_is_expired(
    stripe_says: Description, adapter: StripeProcessor, box: Sandboxed, sent: list[Sent]
) -> None:
    session = box.checkout()["id"]
    adapter.expire_checkout(session)
    request = sent[-1]
    assert (request.method, request.path) == ("POST", f"/v1/checkout/sessions/{session}/expire")
    assert stripe_says.request_errors("POST", request.path, request.body) == []


def test_a_refund(stripe_says: Description, adapter: StripeProcessor, box: Sandboxed, sent: list[Sent]) -> None:
    payment, key = box.paid()["payment_intent"], "refund_" + "0" * 32
    refund = adapter.refund(payment, 500, key, key)
    request = sent[-1]
    assert (request.method, request.path, request.key) == ("POST", "/v1/refunds", key)
    assert stripe_says.request_errors("POST", request.path, request.body) == []
    assert box.api("GET", f"/v1/refunds/{refund}").json["metadata"] == {"request": key}


def test_a_refund_that_is_looked_for_by_its_request(
    stripe_says: Description, adapter: StripeProcessor, box: Sandboxed, sent: list[Sent]
) -> None:
    """Also on a later page."""
    payment, key = box.paid(20_000)["payment_intent"], "refund_" + "0" * 32
    refund = adapter.refund(payment, 500, key, f"{key}-1")
    for _ in range(100):
        box.control("refunds", payment_intent=payment, amount=1)
    sent.clear()
    assert adapter.refund_of(payment, key) == refund
    assert [request.path.partition("?")[0] for request in sent] == ["/v1/refunds"] * 2
    for request in sent:
        assert stripe_says.request_errors(request.method, request.path, request.body) == []


def test_what_is_asked_for_when_something_was_missed(
    stripe_says: Description, adapter: StripeProcessor, box: Sandboxed, sent: list[Sent]
) -> None:
    """Every list and every look-up, also from the middle of a list on."""
    for _ in range(101):
        box.paid()
    subscribed, disputed = box.subscribed(), box.paid()
    refund = box.control("refunds", payment_intent=disputed["payment_intent"], amount=100)["id"]
    sent.clear()
    pages = [adapter.sweep(step, since=datetime.now(UTC) - timedelta(days=1)) for step in SWEEP]
    adapter.sweep("events", since=datetime.now(UTC) - timedelta(days=1), after=pages[0].cursor)
    asked = {
        "balance_transaction": box.listed("balance_transactions")[0]["id"],
        "invoice": subscribed["invoice"],
        "payment": box.listed("invoice_payments")[0]["payment"]["payment_intent"],
        "refund": refund,
        "subscription": subscribed["subscription"],
        "dispute": box.control("disputes", payment_intent=box.paid()["payment_intent"])["id"],
    }
    for kind, identity in asked.items():
        assert adapter.look_up(kind, identity).listed
    box.advance("4d")
    adapter.look_up("payout", box.listed("payouts")[0]["id"])
    ours = [request for request in sent if request.version]
    assert len(ours) == len(SWEEP) + 1 + len(asked) + 2
    errors = {
        f"{request.path}?{request.query}": stripe_says.query_errors(request.path, request.query) for request in ours
    }
    assert {name: found for name, found in errors.items() if found} == {}


def test_the_adapter_speaks_the_version_that_the_description_is_of(
    stripe_says: Description, adapter: StripeProcessor, sent: list[Sent]
) -> None:
    adapter.create_checkout(adapter.checkout_parameters(ORDER), "k", email="", within=5)
    assert sent[0].version == stripe_says.version == API_VERSION


def test_the_description_would_notice(stripe_says: Description) -> None:
    """A check that finds no fault with anything would pass all of the above."""
    wrong = ["amount=much", "payment_intnet=pi_1", "reason=because"]
    assert all(stripe_says.request_errors("POST", "/v1/refunds", body) for body in wrong)

"""Stripe: the only module that imports its SDK. Facts about it are from its documentation and OpenAPI description.

SDK objects never leave this module: events are read as plain JSON, answers as their two or three fields.
"""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import stripe

from donations.processors.base import (
    Asked,
    BadDelivery,
    Checkout,
    CheckoutChanged,
    CheckoutOrder,
    Contact,
    Envelope,
    Interpretation,
    Malformed,
    Paid,
    ProcessorRefused,
    ProcessorUnavailable,
    RefundChanged,
)

EVENT_ID = re.compile(r"evt_[A-Za-z0-9_]{1,200}", re.ASCII)
EVENT_TYPE = re.compile(r"[a-z0-9_.]{1,100}", re.ASCII)
OBJECT_ID = re.compile(r"[a-z]{2,12}_[A-Za-z0-9_]{1,200}", re.ASCII)
GIFT = re.compile(r"gift_[A-Za-z0-9]{1,64}", re.ASCII)
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,49}", re.ASCII)
CURRENCY = re.compile(r"[a-z]{3}", re.ASCII)
TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
REQUEST_KEY = re.compile(r"refund_[0-9a-f]{32}", re.ASCII)
TOLERANCE_SECONDS = 300
LARGEST_AMOUNT = 10**12
LATEST_TIME = 4_102_444_800  # the year 2100
CHECKOUT_TIMEOUT = (1.0, 2.5)  # connecting, reading: a reader waits 4 s at most
OTHER_TIMEOUT = (3.05, 10.0)

CHECKOUT_ENDS = {
    "checkout.session.expired": "expired",
    "checkout.session.async_payment_failed": "failed",
}
CHECKOUT_PAYS = {"checkout.session.completed", "checkout.session.async_payment_succeeded"}
REFUND_TYPES = {"refund.created", "refund.updated", "refund.failed"}
REFUND_STATUSES = {"pending", "requires_action", "succeeded", "failed", "canceled"}

Json = dict[str, Any]
Told = TypeVar("Told")


class StripeProcessor:
    """Stripe Checkout, refunds and webhooks."""

    name = "stripe"

    def __init__(self, *, api_key: str, api_base: str, webhook_secrets: list[str]) -> None:
        self.livemode = api_key.startswith(("sk_live_", "rk_live_"))
        self.webhook_secrets = webhook_secrets
        self.checkout_client = _client(api_key, api_base, CHECKOUT_TIMEOUT, retries=0)
        self.client = _client(api_key, api_base, OTHER_TIMEOUT, retries=1)

    @classmethod
    def from_settings(cls, settings: Any) -> "StripeProcessor":
        """Stripe with the site's key, address and webhook secrets."""
        return cls(
            api_key=settings.STRIPE_SECRET_KEY,
            api_base=settings.STRIPE_API_BASE,
            webhook_secrets=list(settings.STRIPE_WEBHOOK_SECRETS),
        )

    # ---- deliveries

    def verify(self, body: bytes, signature: str | None) -> None:
        """Raise BadDelivery unless one of our secrets signed this body within five minutes of now, either way."""
        if not signature or not signature.isascii() or len(signature) > 2000:
            raise BadDelivery("no usable signature")
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadDelivery("not UTF-8") from error
        _refuse_future(signature)
        for secret in self.webhook_secrets:
            try:
                if stripe.WebhookSignature.verify_header(text, signature, secret, TOLERANCE_SECONDS):
                    return
            except stripe.SignatureVerificationError:
                continue
        raise BadDelivery("the signature is not of our secret, or too old")

    def envelope(self, body: bytes) -> Envelope:
        """The id and type of an event; a type of odd characters is stored as "unrecognised"."""
        event = _json(body)
        event_id, event_type = event.get("id"), event.get("type")
        if not isinstance(event_id, str) or not EVENT_ID.fullmatch(event_id) or not isinstance(event_type, str):
            raise BadDelivery("not an event")
        return Envelope(event_id, event_type if EVENT_TYPE.fullmatch(event_type) else "unrecognised")

    def interpret(self, body: bytes) -> Interpretation:
        """What an event means: see the table "which events mean what" in docs/processors.md."""
        try:
            event = _json(body)
        except BadDelivery as error:
            raise Malformed(str(error)) from error
        event_type = str(event.get("type"))
        is_checkout = event_type in CHECKOUT_PAYS or event_type in CHECKOUT_ENDS
        if not is_checkout and event_type not in REFUND_TYPES:
            return _needs_nothing(event)
        livemode, created = _boolean(event, "livemode"), _time(event, "created")
        subject = _subject(event)
        if is_checkout:
            return _checkout(event_type, subject, livemode, created)
        return _refund(subject, livemode, created)

    # ---- calls

    def checkout_parameters(self, order: CheckoutOrder) -> Json:
        """A Checkout Session in payment mode. No payment method is named: the dashboard's own rules apply."""
        metadata = {"gift": order.gift, "campaign": order.campaign}
        parameters: Json = {
            "mode": "payment",
            "submit_type": "donate",
            "client_reference_id": order.gift,
            "line_items": [_line(order.campaign_name, order.amount, order.currency)],
            "metadata": metadata,
            # Session metadata is not copied onto the payment.
            "payment_intent_data": {"metadata": metadata},
            "adaptive_pricing": {"enabled": False},
            "expires_at": int(order.expires_at.timestamp()),
            "success_url": order.success_url,
            "cancel_url": order.cancel_url,
        }
        if order.fee_cover:
            parameters["line_items"].append(_line("Fee cover", order.fee_cover, order.currency))
        if order.email:
            parameters["customer_email"] = order.email
        return parameters

    def asked(self, parameters: Json) -> Asked:
        """The sum of the lines, in their currency, for the gift that the metadata names."""
        try:
            prices = [(line["quantity"], line["price_data"]) for line in parameters["line_items"]]
            (currency,) = {price["currency"].upper() for _, price in prices}
            amount = sum(quantity * price["unit_amount"] for quantity, price in prices)
            metadata = parameters["metadata"]
            return Asked(metadata["gift"], metadata["campaign"], amount, currency)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Malformed("these are not the parameters of a checkout") from error

    def create_checkout(self, parameters: Json, key: str) -> Checkout:
        """Create the session; the same key and parameters give the same session again."""
        with _translated():
            session = self.checkout_client.v1.checkout.sessions.create(
                _in_order(parameters),
                {"idempotency_key": key},
            )
        if not session.url:
            raise ProcessorRefused("This checkout is over already.", "no_url")
        return Checkout(session.id, session.url)

    def expire_checkout(self, checkout_id: str) -> None:
        """Expire the session; refused when it is complete or expired."""
        with _translated():
            self.checkout_client.v1.checkout.sessions.expire(checkout_id)

    def refund(self, payment: str, amount: int, key: str) -> str:
        """Create a refund that carries our key, so that its events lead back to the request."""
        with _translated():
            refund = self.client.v1.refunds.create(
                {"payment_intent": payment, "amount": amount, "metadata": {"request": key}}, {"idempotency_key": key}
            )
        return refund.id


def _in_order(parameters: Any) -> Any:
    """The same parameters with their names sorted: what was saved comes back from PostgreSQL in an order of its own."""
    if isinstance(parameters, dict):
        return {name: _in_order(parameters[name]) for name in sorted(parameters)}
    return [_in_order(part) for part in parameters] if isinstance(parameters, list) else parameters


def _client(api_key: str, api_base: str, timeout: tuple[float, float], *, retries: int) -> stripe.StripeClient:
    return stripe.StripeClient(
        api_key,
        base_addresses={"api": api_base},
        max_network_retries=retries,
        http_client=stripe.RequestsClient(timeout=timeout),
    )


def _line(name: str, amount: int, currency: str) -> Json:
    price = {"currency": currency.lower(), "unit_amount": amount, "product_data": {"name": name}}
    return {"quantity": 1, "price_data": price}


class _translated:  # noqa: N801 (reads as a statement: with _translated())
    """The SDK's errors in our words."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, stripe.StripeError):
            return
        code = str(getattr(error, "code", "") or error.http_status or type(error).__name__)
        if isinstance(error, (stripe.InvalidRequestError, stripe.CardError)):
            raise ProcessorRefused(_reader_text(code), code) from error
        if isinstance(error, (stripe.AuthenticationError, stripe.PermissionError)):
            raise ProcessorUnavailable(f"the key was refused: {code}") from error
        raise ProcessorUnavailable(f"{type(error).__name__}: {code}") from error


def _reader_text(code: str) -> str:
    return {
        "amount_too_small": "This amount is too small to be paid by card. Please choose a larger one.",
        "amount_too_large": "This amount is too large to be paid at once. Please choose a smaller one.",
        "email_invalid": "The payment service does not accept this email address. Please look at it once more.",
        "charge_already_refunded": "This payment has been refunded already.",
    }.get(code, "The payment service did not accept this. Please try another amount.")


# ---- reading what Stripe wrote


def _json(body: bytes) -> Json:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadDelivery("not JSON") from error
    if not isinstance(event, dict):
        raise BadDelivery("not an object")
    return event


def _refuse_future(signature: str) -> None:
    """The SDK accepts a timestamp in the future; a captured delivery could then be kept for later.

    One timestamp, in plain digits: of two, the SDK might read the other one.
    """
    moments = [part[2:] for part in signature.split(",") if part.startswith("t=")]
    if len(moments) != 1 or not TIMESTAMP.fullmatch(moments[0]):
        raise BadDelivery("no usable timestamp")
    if int(moments[0]) > time.time() + TOLERANCE_SECONDS:
        raise BadDelivery("its timestamp is in the future")


def _needs_nothing(event: Json) -> Interpretation:
    """Of a type that we book nothing of, so it may have any shape: thin events, say, have no object and an ISO time."""
    subject = _if_told(_subject, event) or {}
    livemode, created = _if_told(_boolean, event, "livemode"), _if_told(_time, event, "created")
    return Interpretation(livemode, created, _optional_id(subject.get("id")))


def _if_told(read: Callable[..., Told], *arguments: Any) -> Told | None:
    try:
        return read(*arguments)
    except Malformed:
        return None


def _subject(event: Json) -> Json:
    holder = event.get("data")
    subject = holder.get("object") if isinstance(holder, dict) else None
    if not isinstance(subject, dict):
        raise Malformed("the event has no object")
    return subject


def _boolean(holder: Json, name: str) -> bool:
    value = holder.get(name)
    if not isinstance(value, bool):
        raise Malformed(f"{name} is not true or false")
    return value


def _integer(holder: Json, name: str, largest: int) -> int:
    value = holder.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise Malformed(f"{name} is not a whole number in range")
    return value


def _time(holder: Json, name: str) -> datetime:
    return datetime.fromtimestamp(_integer(holder, name, LATEST_TIME), UTC)


def _text(holder: Json, name: str, pattern: re.Pattern[str]) -> str:
    value = holder.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Malformed(f"{name} is not what it should be")
    return value


def _optional_id(value: Any) -> str:
    """An object's id, also where Stripe expanded it; empty for anything else."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) and OBJECT_ID.fullmatch(value) else ""


def _metadata(subject: Json, name: str, pattern: re.Pattern[str]) -> str:
    metadata = subject.get("metadata")
    value = metadata.get(name) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def _checkout(event_type: str, session: Json, livemode: bool, created: datetime) -> Interpretation:
    checkout, payment = _text(session, "id", OBJECT_ID), _optional_id(session.get("payment_intent"))
    gift = _metadata(session, "gift", GIFT)
    if session.get("mode") != "payment":
        # A subscription's money comes with its invoices.
        return Interpretation(livemode, created, checkout, payment)
    if not gift:
        return Interpretation(livemode, created, checkout, payment, foreign=True)
    if event_type in CHECKOUT_ENDS:
        fact = CheckoutChanged(gift, CHECKOUT_ENDS[event_type], checkout, created)
        return Interpretation(livemode, created, checkout, payment, fact)
    if session.get("payment_status") == "unpaid":
        return Interpretation(
            livemode, created, checkout, payment, CheckoutChanged(gift, "awaiting", checkout, created)
        )
    if session.get("payment_status") != "paid":
        raise Malformed("payment_status is neither paid nor unpaid")
    return Interpretation(
        livemode, created, checkout, payment, _paid(session, gift, created), contact=_contact(session)
    )


def _paid(session: Json, gift: str, created: datetime) -> Paid:
    payment = _optional_id(session.get("payment_intent"))
    amount = _integer(session, "amount_total", LARGEST_AMOUNT)
    if not payment or not amount:
        raise Malformed("a paid checkout without a payment or an amount")
    currency = _text(session, "currency", CURRENCY).upper()
    return Paid(gift, _metadata(session, "campaign", SLUG), payment, amount, currency, created)


def _contact(session: Json) -> Contact | None:
    details = session.get("customer_details")
    if not isinstance(details, dict) or not isinstance(details.get("email"), str):
        return None
    name = details.get("name")
    # One more than an address can have, so that a longer one is not taken for another.
    return Contact(_plain(details["email"], 255), _plain(name, 100) if isinstance(name, str) else "")


def _plain(text: str, longest: int) -> str:
    """Text that every database takes: no NUL, no lone surrogates, no control characters, bounded."""
    kept = "".join(c for c in text if c.isprintable())
    return kept.encode("utf-8", "ignore").decode()[:longest]


def _refund(refund: Json, livemode: bool, created: datetime) -> Interpretation:
    reference, payment = _text(refund, "id", OBJECT_ID), _optional_id(refund.get("payment_intent"))
    status = refund.get("status")
    if not isinstance(status, str) or status not in REFUND_STATUSES:
        raise Malformed("the refund's status is not known")
    if not payment:
        # A refund of a bare charge: our payments always have a PaymentIntent.
        return Interpretation(livemode, created, reference, foreign=True)
    fact = RefundChanged(
        refund=reference,
        payment=payment,
        amount=_integer(refund, "amount", LARGEST_AMOUNT),
        currency=_text(refund, "currency", CURRENCY).upper(),
        status=status,
        created=_time(refund, "created"),
        occurred_at=created,
        request_key=_metadata(refund, "request", REQUEST_KEY),
    )
    return Interpretation(livemode, created, reference, payment, fact)

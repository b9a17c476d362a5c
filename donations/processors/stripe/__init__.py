"""Stripe: the only module that imports its SDK. Facts about it are from its documentation and OpenAPI description.

SDK objects never leave this module: events are read as plain JSON, answers as their two or three fields.
"""

import re
import time
from datetime import datetime
from typing import Any

import stripe

from donations.processors import deadline
from donations.processors.base import (
    MORE_THAN_LEFT,
    AnswerKept,
    Asked,
    BadDelivery,
    Checkout,
    CheckoutOrder,
    Envelope,
    Interpretation,
    KeyRefused,
    Malformed,
    Page,
    Processor,
    ProcessorBusy,
    ProcessorRefused,
    ProcessorUnavailable,
)
from donations.processors.stripe import events, lists
from donations.processors.stripe.reading import Json, parsed

EVENT_ID = re.compile(r"evt_[A-Za-z0-9_]{1,200}", re.ASCII)
EVENT_TYPE = re.compile(r"[a-z0-9_.]{1,100}", re.ASCII)
WAIT = re.compile(r"[0-9]{1,5}", re.ASCII)
TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
TOLERANCE_SECONDS = 300
CHECKOUT_TIMEOUT = (1.0, 2.5)  # connecting to an address, one read; for the whole call there is a deadline
OTHER_TIMEOUT = (3.05, 10.0)
CONFLICT = 409  # a call with this key is being answered
LIST_TIMEOUT = (3.05, 30.0)


class StripeProcessor:
    """Stripe Checkout, refunds and webhooks."""

    name = "stripe"
    reads = frozenset(events.READERS)

    def __init__(self, *, api_key: str, api_base: str, webhook_secrets: list[str], livemode: bool) -> None:
        self.livemode = livemode
        self.webhook_secrets = webhook_secrets
        self.checkout_client = _client(api_key, api_base, CHECKOUT_TIMEOUT, retries=0)
        self.client = _client(api_key, api_base, OTHER_TIMEOUT, retries=1)
        # Whoever lists waits as told, which the SDK does not.
        self.list_client = _client(api_key, api_base, LIST_TIMEOUT, retries=0)

    @classmethod
    def from_settings(cls, settings: Any) -> "StripeProcessor":
        """Stripe with the site's key and its mode, address and webhook secrets."""
        return cls(
            api_key=settings.STRIPE_SECRET_KEY,
            api_base=settings.STRIPE_API_BASE,
            webhook_secrets=list(settings.STRIPE_WEBHOOK_SECRETS),
            livemode=settings.LIVEMODE,
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
        event = parsed(body)
        event_id, event_type = event.get("id"), event.get("type")
        if not isinstance(event_id, str) or not EVENT_ID.fullmatch(event_id) or not isinstance(event_type, str):
            raise BadDelivery("not an event")
        return Envelope(event_id, event_type if EVENT_TYPE.fullmatch(event_type) else "unrecognised")

    def interpret(self, body: bytes) -> Interpretation:
        """What an event means: see the table "which events mean what" in docs/processors.md."""
        try:
            event = parsed(body)
        except BadDelivery as error:
            raise Malformed(str(error)) from error
        return events.interpret(event)

    # ---- calls

    def checkout_parameters(self, order: CheckoutOrder) -> Json:
        """A Checkout Session. No payment method is named: the dashboard's own rules apply."""
        metadata = {"recurring_gift" if order.monthly else "gift": order.reference, "campaign": order.campaign}
        lines = [_line(order, order.campaign_name, order.amount)]
        if order.fee_cover:
            lines.append(_line(order, "Fee cover", order.fee_cover))
            metadata["fee_cover"] = str(order.fee_cover)
        return {
            "mode": "subscription" if order.monthly else "payment",
            "submit_type": "donate",
            "client_reference_id": order.reference,
            "line_items": lines,
            "metadata": metadata,
            # Session metadata is not copied onto what it makes.
            "subscription_data" if order.monthly else "payment_intent_data": {"metadata": metadata},
            "adaptive_pricing": {"enabled": False},
            "expires_at": int(order.expires_at.timestamp()),
            "success_url": order.success_url,
            "cancel_url": order.cancel_url,
        }

    def asked(self, parameters: Json) -> Asked:
        """The sum of the lines, in their currency, for the gift or monthly gift that the metadata names."""
        try:
            prices = [(line["quantity"], line["price_data"]) for line in parameters["line_items"]]
            (currency,) = {price["currency"].upper() for _, price in prices}
            amount = sum(quantity * price["unit_amount"] for quantity, price in prices)
            metadata = parameters["metadata"]
            reference = metadata["recurring_gift" if parameters["mode"] == "subscription" else "gift"]
            return Asked(reference, metadata["campaign"], amount, currency)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Malformed("these are not the parameters of a checkout") from error

    def create_checkout(self, parameters: Json, key: str, *, email: str, within: float) -> Checkout:
        """Create the session; the same key, parameters and email give the same session again."""
        whole = _in_order(parameters | ({"customer_email": email} if email else {}))

        def open_page() -> Checkout:
            with _translated():
                session = self.checkout_client.v1.checkout.sessions.create(whole, {"idempotency_key": key})
            if not session.url:
                raise ProcessorRefused("This checkout is over already.", "no_url")
            return Checkout(session.id, session.url)

        return deadline.within(within, open_page)

    def expire_checkout(self, checkout_id: str) -> None:
        """Expire the session; refused when it is complete or expired."""
        with _translated():
            self.checkout_client.v1.checkout.sessions.expire(checkout_id)

    def portal_url(self, arrangement: str, back: str, *, within: float) -> str:
        """A session of the billing portal, for whoever pays the subscription. We keep no customer's id."""
        api = self.checkout_client.v1

        def open_portal() -> str:
            with _translated():
                customer = api.subscriptions.retrieve(arrangement).customer
                customer_id = customer if isinstance(customer, str) else customer.id
                return api.billing_portal.sessions.create({"customer": customer_id, "return_url": back}).url

        return deadline.within(within, open_portal)

    def refund(self, payment: str, amount: int, request: str, key: str) -> str:
        """Create a refund whose metadata name the request, so that its events lead back to it."""
        with _translated():
            refund = self.client.v1.refunds.create(
                {"payment_intent": payment, "amount": amount, "metadata": {"request": request}},
                {"idempotency_key": key},
            )
        return refund.id

    def refund_of(self, payment: str, request: str) -> str:
        """Looked for in the list of the payment's refunds, by their metadata."""
        return lists.refund_of(self._get, payment, request)

    def sweep(self, step: str, *, since: datetime, after: str = "") -> Page:
        """A page of a list; each object is an event of the type that would have told of it."""
        return lists.sweep(self._get, step, since=since, after=after, livemode=self.livemode)

    def look_up(self, kind: str, object_id: str, *, after: str = "") -> Page:
        """One object, or the list that belongs to it."""
        return lists.look_up(self._get, kind, object_id, after=after, livemode=self.livemode)

    def _get(self, path: str, parameters: Json) -> Json:
        """What the API answers, as plain JSON: the SDK's objects cost more than the call."""
        with _translated():
            answer = self.list_client.raw_request("get", path, **parameters)
        found: Json = answer.data
        return found


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


def _line(order: CheckoutOrder, name: str, amount: int) -> Json:
    price: Json = {"currency": order.currency.lower(), "unit_amount": amount, "product_data": {"name": name}}
    if order.monthly:
        price["recurring"] = {"interval": "month"}
    return {"quantity": 1, "price_data": price}


class _translated:  # noqa: N801 (reads as a statement: with _translated())
    """The SDK's errors in our words."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, stripe.StripeError):
            return
        code = str(error.code or _told_by_parameter(error) or error.http_status or type(error).__name__)
        if isinstance(error, (stripe.InvalidRequestError, stripe.CardError)):
            raise ProcessorRefused(_reader_text(code), code) from error
        if isinstance(error, (stripe.AuthenticationError, stripe.PermissionError)):
            raise KeyRefused(f"the key was refused: {code}") from error
        raise _fault(error)(f"{type(error).__name__}: {code}", wait=_wait_told(error)) from error


def _fault(error: stripe.StripeError) -> type[ProcessorUnavailable]:
    """An answer to a key is kept, failures of the processor's own too: https://docs.stripe.com/api/idempotent_requests."""
    if error.http_status == CONFLICT:
        return ProcessorBusy
    is_kept = (error.headers or {}).get("Idempotent-Replayed") == "true"
    return AnswerKept if is_kept else ProcessorUnavailable


def _told_by_parameter(error: stripe.StripeError) -> str:
    """What the parameter says that is wrong, where no code does. Of our calls a refund alone has an `amount`."""
    return MORE_THAN_LEFT if getattr(error, "param", None) == "amount" else ""


def _wait_told(error: stripe.StripeError) -> float | None:
    told = str((error.headers or {}).get("Retry-After", ""))
    return float(told) if WAIT.fullmatch(told) else None


def _reader_text(code: str) -> str:
    return {
        "amount_too_small": "This amount is too small to be paid by card. Please choose a larger one.",
        "amount_too_large": "This amount is too large to be paid at once. Please choose a smaller one.",
        "email_invalid": "The payment service does not accept this email address. Please look at it once more.",
        "charge_already_refunded": "This payment has been refunded already.",
    }.get(code, "The payment service did not accept this. Please try another amount.")


def _refuse_future(signature: str) -> None:
    """The SDK accepts a timestamp in the future; a captured delivery could then be kept for later.

    One timestamp, in plain digits: of two, the SDK might read the other one.
    """
    moments = [part[2:] for part in signature.split(",") if part.startswith("t=")]
    if len(moments) != 1 or not TIMESTAMP.fullmatch(moments[0]):
        raise BadDelivery("no usable timestamp")
    if int(moments[0]) > time.time() + TOLERANCE_SECONDS:
        raise BadDelivery("its timestamp is in the future")


_IS_WHOLE: type[Processor] = StripeProcessor  # for the type checker: it is imported by its name alone

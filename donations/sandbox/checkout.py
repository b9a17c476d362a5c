"""Checkout Sessions: https://docs.stripe.com/api/checkout/sessions."""

from typing import Any

from . import amounts, objects, params
from .errors import ApiError, missing, missing_parameter, not_here
from .events import emit
from .store import Tx

Json = dict[str, Any]
SHORTEST, LONGEST = 30 * 60, 24 * 60 * 60
LOCALES = (
    "auto bg cs da de el en en-GB es es-419 et fi fil fr fr-CA hr hu id it ja ko lt lv ms mt nb nl pl pt pt-BR ro ru "
    "sk sl sv th tr vi zh zh-HK zh-TW"
).split()
ELSEWHERE = (
    "after_expiration allow_promotion_codes allowed_payment_method_types automatic_tax billing_address_collection "
    "branding_settings consent_collection currency custom_fields custom_text customer customer_account "
    "customer_creation customer_update discounts excluded_payment_method_types integration_identifier "
    "invoice_creation managed_payments name_collection optional_items origin_context payment_method_collection "
    "payment_method_configuration payment_method_data payment_method_options permissions phone_number_collection "
    "redirect_on_completion return_url saved_payment_method_options setup_intent_data shipping_address_collection "
    "shipping_options subscription_data tax_id_collection ui_mode wallet_options"
).split()

_product = params.group(
    {"name": params.text(), "metadata": params.metadata},
    required=("name",),
    elsewhere=("images", "tax_code", "unit_label"),
)
_price_data = params.group(
    {"currency": amounts.currency, "unit_amount": params.whole(0), "product_data": _product},
    required=("currency", "product_data", "unit_amount"),
    elsewhere=("product", "recurring", "tax_behavior", "unit_amount_decimal"),
)
_line = params.group(
    {"price_data": _price_data, "quantity": params.whole(1)},
    required=("price_data",),
    elsewhere=("adjustable_quantity", "dynamic_tax_rates", "metadata", "price", "tax_rates"),
)
_payment = params.group(
    {
        "metadata": params.metadata,
        "description": params.text(),
        "receipt_email": params.email,
        "statement_descriptor_suffix": params.text(22),
    },
    elsewhere=(
        "application_fee_amount capture_method on_behalf_of setup_future_usage shipping statement_descriptor "
        "transfer_data transfer_group"
    ).split(),
)
FIELDS = {
    "adaptive_pricing": params.group({"enabled": params.flag}),
    "cancel_url": params.url,
    "client_reference_id": params.text(200),
    "customer_email": params.email,
    "expires_at": params.whole(),
    "line_items": params.listing(_line),
    "locale": params.choice(*LOCALES),
    "metadata": params.metadata,
    "mode": params.choice("payment", "setup", "subscription"),
    "payment_intent_data": _payment,
    "submit_type": params.choice("auto", "book", "donate", "pay", "subscribe"),
    "success_url": params.url,
}


def create(tx: Tx, given: Json, *, origin: str) -> Json:
    """Open a session. Refuses amounts that Stripe would refuse."""
    if given.get("mode") != "payment":
        raise not_here(f"`mode={given['mode']}`", "mode") if "mode" in given else missing_parameter("mode")
    for name in ("line_items", "success_url"):
        if not given.get(name):
            raise missing_parameter(name)
    now = tx.clock.seconds()
    given = given | {"expires_at": _expiry(given.get("expires_at"), now)}
    currency = _one_currency(given["line_items"])
    items = [objects.line_item(item, now=now, currency=currency) for item in given["line_items"]]
    amount = sum(item["amount_total"] for item in items)
    amounts.check_total(amount, currency)
    session = objects.checkout_session(given, now=now, origin=origin, amount=amount, currency=currency)
    tx.schedule(session["expires_at"], "expire_session", session["id"])
    return tx.add(session, {"line_items": items, "payment_intent_data": given.get("payment_intent_data", {})})


def _expiry(wanted: int | None, now: int) -> int:
    if wanted is None:
        return now + LONGEST
    if wanted < now + SHORTEST:
        raise ApiError(
            "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation.", param="expires_at"
        )
    if wanted > now + LONGEST:
        raise ApiError(
            "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.", param="expires_at"
        )
    return wanted


def _one_currency(items: list[Json]) -> str:
    found = {item["price_data"]["currency"] for item in items}
    if len(found) > 1:
        raise ApiError("All line items must have the same currency.", param="line_items")
    return str(found.pop())


def find(tx: Tx, session_id: str) -> Json:
    """A session, expired if its time is over. Raises ApiError 404."""
    session = tx.get("checkout.session", session_id)
    if session is None:
        raise missing("checkout.session", session_id, "session")
    if session["status"] == "open" and session["expires_at"] <= tx.clock.now():
        return _close(tx, session)
    return session


def line_items(tx: Tx, session_id: str) -> list[Json]:
    items: list[Json] = tx.hidden(session_id).get("line_items", [])
    return items


def expire(tx: Tx, session_id: str) -> Json:
    """Close an open session at once, as the API's `expire` does."""
    session = find(tx, session_id)
    if session["status"] != "open":
        raise ApiError(
            'Only Checkout Sessions with a status in ["open"] can be expired. '
            f"This Checkout Session has a status of `{session['status']}`."
        )
    return _close(tx, session)


def expire_due(tx: Tx, session_id: str) -> None:
    """Close a session whose time is over, if it is still open."""
    find(tx, session_id)


def _close(tx: Tx, session: Json) -> Json:
    session |= {"status": "expired", "url": None}
    tx.save(session)
    emit(tx, "checkout.session.expired", session)
    return session

"""Checkout Sessions: https://docs.stripe.com/api/checkout/sessions."""

from typing import Any

from . import amounts, objects, params
from .errors import ApiError, missing, missing_in, missing_parameter, not_here
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
    "branding_settings consent_collection currency custom_fields custom_text customer_account "
    "customer_creation customer_update discounts excluded_payment_method_types integration_identifier "
    "invoice_creation managed_payments name_collection optional_items origin_context payment_method_collection "
    "payment_method_configuration payment_method_data payment_method_options permissions phone_number_collection "
    "redirect_on_completion return_url saved_payment_method_options setup_intent_data shipping_address_collection "
    "shipping_options tax_id_collection ui_mode wallet_options"
).split()

_product = params.group(
    {"name": params.text(), "metadata": params.metadata},
    required=("name",),
    elsewhere=("images", "tax_code", "unit_label"),
)
_recurring = params.group(
    {"interval": params.choice("day", "week", "month", "year"), "interval_count": params.whole(1)},
    required=("interval",),
)
_price_data = params.group(
    {
        "currency": amounts.currency,
        "unit_amount": params.whole(0),
        "product_data": _product,
        "recurring": _recurring,
    },
    required=("currency", "product_data", "unit_amount"),
    elsewhere=("product", "tax_behavior", "unit_amount_decimal"),
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
_subscription = params.group(
    {"metadata": params.metadata, "description": params.text(500)},
    elsewhere=(
        "application_fee_percent billing_cycle_anchor billing_mode default_tax_rates invoice_settings on_behalf_of "
        "pending_invoice_item_interval proration_behavior transfer_data trial_end trial_period_days trial_settings"
    ).split(),
)
FIELDS = {
    "adaptive_pricing": params.group({"enabled": params.flag}),
    "cancel_url": params.url,
    "client_reference_id": params.text(200),
    "customer": params.text(),
    "customer_email": params.email,
    "expires_at": params.whole(),
    "line_items": params.listing(_line),
    "locale": params.choice(*LOCALES),
    "metadata": params.metadata,
    "mode": params.choice("payment", "setup", "subscription"),
    "payment_intent_data": _payment,
    "submit_type": params.choice("auto", "book", "donate", "pay", "subscribe"),
    "subscription_data": _subscription,
    "success_url": params.url,
}


def create(tx: Tx, given: Json, *, origin: str) -> Json:
    """Open a session. Refuses amounts that Stripe would refuse."""
    _check_mode(given)
    for name in ("line_items", "success_url"):
        if not given.get(name):
            raise missing_parameter(name)
    _check_customer(tx, given)
    now = tx.clock.seconds()
    ends = _expiry(given.get("expires_at"), now, int(tx.clock.ahead))
    given = given | {"expires_at": given.get("expires_at", ends)}
    currency = _one_currency(given["line_items"])
    _check_intervals(given)
    items = [objects.line_item(item, now=now, currency=currency) for item in given["line_items"]]
    amount = sum(item["amount_total"] for item in items)
    amounts.check_total(amount, currency)
    session = objects.checkout_session(given, now=now, origin=origin, amount=amount, currency=currency)
    tx.schedule(ends, "expire_session", session["id"])
    kept = {name: given.get(name, {}) for name in ("payment_intent_data", "subscription_data")}
    return tx.add(session, {"line_items": items, "ends": ends} | kept)


def _check_mode(given: Json) -> None:
    mode = given.get("mode")
    if mode not in ("payment", "subscription"):
        raise not_here(f"`mode={mode}`", "mode") if mode else missing_parameter("mode")
    other = "payment_intent_data" if mode == "subscription" else "subscription_data"
    if other in given:
        raise ApiError(f"You can not pass `{other}` in `{mode}` mode.", param=other)


def _check_customer(tx: Tx, given: Json) -> None:
    if "customer" not in given:
        return
    if "customer_email" in given:
        raise ApiError("You may only specify one of these parameters: customer, customer_email.")
    if tx.get("customer", given["customer"]) is None:
        raise missing_in("customer", given["customer"], "customer")


def _check_intervals(given: Json) -> None:
    """A subscription's lines recur, all as often; those of a payment do not."""
    found = [item["price_data"].get("recurring") for item in given["line_items"]]
    if given["mode"] == "payment":
        if any(found):
            raise ApiError(
                "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or "
                "use only one-time prices.",
                param="line_items",
            )
        return
    if not all(found):
        raise ApiError(
            "You must provide at least one recurring price in `subscription` mode when using prices; the sandbox "
            "takes recurring ones alone.",
            param="line_items",
        )
    if any(one != found[0] for one in found):
        raise ApiError("All recurring prices must have the same interval and interval count.", param="line_items")


def _expiry(wanted: int | None, now: int, ahead: int) -> int:
    """When the session ends by our clock; `wanted` is by the caller's, which nobody moved ahead."""
    if wanted is None:
        return now + LONGEST
    wanted += ahead
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
    if session["status"] == "open" and tx.hidden(session_id)["ends"] <= tx.clock.now():
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

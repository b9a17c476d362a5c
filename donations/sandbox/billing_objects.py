"""Stripe's objects of what is paid again and again: customers, subscriptions, invoices and their payments."""

from typing import Any

from .clock import add_months
from .ids import new_id, random_text
from .objects import NO_ADDRESS

Json = dict[str, Any]
DAY = 24 * 60 * 60
LENGTHS = {"day": DAY, "week": 7 * DAY}
SELF = {"type": "self"}
NO_TAX = {"disabled_reason": None, "enabled": False, "liability": None}


def customer(email: str | None, name: str | None, *, now: int) -> Json:
    """Somebody who pays again and again."""
    settings = dict.fromkeys(("custom_fields", "default_payment_method", "footer", "rendering_options"))
    return {
        "id": new_id("customer"),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": now,
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": email,
        "invoice_prefix": random_text(8).upper(),
        "invoice_settings": settings,
        "livemode": False,
        "metadata": {},
        "name": name,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def subscription(customer_id: str, method_id: str, lines: list[Json], data: Json, *, now: int, currency: str) -> Json:
    """A subscription, not yet paid for. `lines` are a checkout's, `data` is its `subscription_data`."""
    subscription_id = new_id("subscription")
    url = f"/v1/subscription_items?subscription={subscription_id}"
    items = [_item(line, subscription_id, now=now) for line in lines]
    return {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": NO_TAX,
        "billing_cycle_anchor": now,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"flexible": None, "type": "classic"},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": currency,
        "customer": customer_id,
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": method_id,
        "default_source": None,
        "default_tax_rates": [],
        "description": data.get("description"),
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": SELF},
        "items": {"object": "list", "data": items, "has_more": False, "url": url},
        "latest_invoice": None,
        "livemode": False,
        "metadata": data.get("metadata", {}),
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": "incomplete",
        "test_clock": None,
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": None,
    }


def _item(line: Json, subscription_id: str, *, now: int) -> Json:
    return {
        "id": new_id("subscription_item"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": now,
        "current_period_end": period_end(line["price"]["recurring"], now, 1),
        "current_period_start": now,
        "discounts": [],
        "metadata": {},
        "price": line["price"] | {"active": True},
        "quantity": line["quantity"],
        "subscription": subscription_id,
        "tax_rates": [],
    }


def period_end(recurring: Json, anchor: int, periods: int) -> int:
    """When the so-manyth period since the anchor ends: months by the calendar, on the anchor's day if there is one."""
    count = int(recurring["interval_count"]) * periods
    if recurring["interval"] in LENGTHS:
        return anchor + count * int(LENGTHS[recurring["interval"]])
    return add_months(anchor, count * (12 if recurring["interval"] == "year" else 1))


def invoice(
    subscription_: Json, payer: Json, names: list[str], *, now: int, reason: str, period: tuple[int, int]
) -> Json:
    """A draft of what a subscription asks for, for its period as it is now. `names` are those of its items."""
    invoice_id = new_id("invoice")
    items = zip(subscription_["items"]["data"], names, strict=True)
    lines = [_line(item, name, invoice_id) for item, name in items]
    total = sum(line["amount"] for line in lines)
    parent = {"subscription": subscription_["id"], "metadata": subscription_["metadata"]}
    url = f"/v1/invoices/{invoice_id}/lines"
    return {
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Sandbox",
        "account_tax_ids": None,
        "amount_due": total,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_paid_off_stripe": 0,
        "amount_remaining": total,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": NO_TAX | {"provider": None, "status": None},
        "automatically_finalizes_at": None,
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": subscription_["currency"],
        "custom_fields": None,
        "customer": payer["id"],
        "customer_account": None,
        "customer_address": NO_ADDRESS,
        "customer_email": payer["email"],
        "customer_name": payer["name"],
        "customer_phone": None,
        "customer_shipping": None,
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": SELF,
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": {"object": "list", "data": lines, "has_more": False, "url": url},
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": {"quote_details": None, "subscription_details": parent, "type": "subscription_details"},
        "payment_settings": dict.fromkeys(("default_mandate", "payment_method_options", "payment_method_types")),
        "period_end": period[1],
        "period_start": period[0],
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": dict.fromkeys(("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")),
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "test_clock": None,
        "total": total,
        "total_discount_amounts": [],
        "total_excluding_tax": total,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": now,
    }


def _line(item: Json, name: str, invoice_id: str) -> Json:
    price = item["price"]
    amount = price["unit_amount"] * item["quantity"]
    details = {"invoice_item": None, "proration": False, "proration_details": {"credited_items": None}}
    details |= {"subscription": item["subscription"], "subscription_item": item["id"]}
    pricing = {"price": price["id"], "product": price["product"]}
    return {
        "id": new_id("line_item"),
        "object": "line_item",
        "amount": amount,
        "currency": price["currency"],
        "description": f"{item['quantity']} × {name}",
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": {},
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": details,
            "type": "subscription_item_details",
        },
        "period": {"end": item["current_period_end"], "start": item["current_period_start"]},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": pricing,
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": item["quantity"],
        "quantity_decimal": str(item["quantity"]),
        "subtotal": amount,
        "taxes": [],
    }


def invoice_payment(invoice_: Json, intent_id: str, *, now: int) -> Json:
    """What joins an invoice to the payment that is to pay it."""
    return {
        "id": new_id("invoice_payment"),
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": invoice_["amount_due"],
        "created": now,
        "currency": invoice_["currency"],
        "invoice": invoice_["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": intent_id, "type": "payment_intent"},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }


def portal_session(customer_id: str, return_url: str | None, locale: str | None, *, now: int, origin: str) -> Json:
    """A page where a customer can see to their subscriptions. Its address is all that one needs to know."""
    session_id = new_id("billing_portal.session")
    return {
        "id": session_id,
        "object": "billing_portal.session",
        "configuration": "bpc_1SandboxConfiguration",
        "created": now,
        "customer": customer_id,
        "customer_account": None,
        "flow": None,
        "livemode": False,
        "locale": locale,
        "on_behalf_of": None,
        "return_url": return_url,
        "url": f"{origin}/portal/{session_id}",
    }

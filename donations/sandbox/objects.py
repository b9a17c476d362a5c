"""Stripe's objects, as its API shows them, with what the sandbox does not have left null.

The shapes are those of Stripe's OpenAPI description, version `API_VERSION`; the conformance tests hold them to it.
"""

from typing import Any

from .errors import doc_url
from .ids import new_id, random_text

Json = dict[str, Any]
API_VERSION = "2026-10-28.endive"
NO_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


def checkout_session(params: Json, *, now: int, origin: str, amount: int, currency: str) -> Json:
    """An open session, as `POST /v1/checkout/sessions` answers it. `params` are checked."""
    session_id = new_id("checkout.session")
    email = params.get("customer_email")
    return {
        "id": session_id,
        "object": "checkout.session",
        "adaptive_pricing": params.get("adaptive_pricing") or {"enabled": True},
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": amount,
        "amount_total": amount,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": now,
        "currency": currency,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": dict.fromkeys(("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")),
        "customer": params.get("customer"),
        "customer_account": None,
        "customer_creation": "always" if params["mode"] == "subscription" else "if_required",
        "customer_details": customer_details(email, None) if email else None,
        "customer_email": email,
        "discounts": [],
        "expires_at": params["expires_at"],
        "integration_identifier": None,
        "invoice": None,
        "invoice_creation": _invoice_creation() if params["mode"] == "payment" else None,
        "livemode": False,
        "locale": params.get("locale"),
        "metadata": params.get("metadata", {}),
        "mode": params["mode"],
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "always" if params["mode"] == "subscription" else "if_required",
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card", debit_type(currency)],
        "payment_status": "unpaid",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": params.get("submit_type"),
        "subscription": None,
        "success_url": params["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"{origin}/pay/{session_id}",
        "wallet_options": None,
    }


def _invoice_creation() -> Json:
    names = ("account_tax_ids", "custom_fields", "description", "footer", "issuer", "rendering_options")
    return {"enabled": False, "invoice_data": dict.fromkeys(names) | {"metadata": {}}}


def customer_details(email: str | None, name: str | None) -> Json:
    """Who paid, as far as the payment page asked."""
    return {
        "address": None,
        "business_name": None,
        "email": email,
        "individual_name": None,
        "name": name,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }


def line_item(item: Json, *, now: int, currency: str) -> Json:
    """One line of a checkout, from its checked parameters."""
    price_data, quantity = item["price_data"], item.get("quantity", 1)
    total = price_data["unit_amount"] * quantity
    return {
        "id": new_id("item"),
        "object": "item",
        "amount_discount": 0,
        "amount_subtotal": total,
        "amount_tax": 0,
        "amount_total": total,
        "currency": currency,
        "description": price_data["product_data"]["name"],
        "price": _price(price_data, now=now, currency=currency),
        "quantity": quantity,
    }


def _price(price_data: Json, *, now: int, currency: str) -> Json:
    unit_amount, often = price_data["unit_amount"], price_data.get("recurring")
    recurring = {"interval_count": 1, "meter": None, "usage_type": "licensed"} | often if often else None
    return {
        "id": new_id("price"),
        "object": "price",
        "active": False,
        "billing_scheme": "per_unit",
        "created": now,
        "currency": currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": new_id("product"),
        "recurring": recurring,
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if recurring else "one_time",
        "unit_amount": unit_amount,
        "unit_amount_decimal": str(unit_amount),
    }


def payment_intent(amount: int, currency: str, data: Json, *, now: int) -> Json:
    """A payment that is to be made. `data` is a checkout's `payment_intent_data`, or its like; also `customer`."""
    intent_id = new_id("payment_intent")
    return {
        "id": intent_id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": f"{intent_id}_secret_{random_text(25)}",
        "confirmation_method": "automatic",
        "created": now,
        "currency": currency,
        "customer": data.get("customer"),
        "customer_account": None,
        "description": data.get("description"),
        "excluded_payment_method_types": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": data.get("metadata", {}),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": _card_options()},
        "payment_method_types": ["card", debit_type(currency)],
        "processing": None,
        "receipt_email": data.get("receipt_email"),
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": data.get("statement_descriptor_suffix"),
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
    }


def _card_options() -> Json:
    return {"installments": None, "mandate_options": None, "network": None, "request_three_d_secure": "automatic"}


def charge(intent: Json, method: Json, *, now: int, status: str) -> Json:
    """One attempt to take an intent's money with a payment method; `status` succeeded, pending or failed."""
    done = status == "succeeded"
    return {
        "id": new_id("charge"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if done else 0,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "SANDBOX",
        "captured": done,
        "created": now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "fraud_details": {},
        "livemode": False,
        # A charge made through an intent takes the intent's metadata.
        "metadata": intent["metadata"],
        "on_behalf_of": None,
        "outcome": outcome(status),
        "paid": done,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": method_details(method, intent["amount"]),
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": status,
        "transfer_data": None,
        "transfer_group": None,
    }


def outcome(status: str, reason: str | None = None) -> Json:
    """What the network said: https://docs.stripe.com/declines."""
    refused = status == "failed"
    return {
        "advice_code": "try_again_later" if refused else None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if refused else "approved_by_network",
        "reason": reason,
        "risk_level": "normal",
        "risk_score": 20,
        "seller_message": "The bank did not accept this payment." if refused else "Payment complete.",
        "type": "issuer_declined" if refused else "authorized",
    }


def debit_type(currency: str) -> str:
    """The bank debit that a currency is paid with: a delayed method."""
    return "us_bank_account" if currency == "usd" else "sepa_debit"


def payment_method(kind: str, last4: str, *, email: str | None, name: str | None, now: int) -> Json:
    """How the donor pays; `kind` is card, sepa_debit or us_bank_account."""
    details = {"card": _card, "sepa_debit": _sepa, "us_bank_account": _us_bank}[kind](last4)
    return {
        "id": new_id("payment_method"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {"address": NO_ADDRESS, "email": email, "name": name, "phone": None, "tax_id": None},
        "created": now,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": kind,
        kind: details,
    }


def _card(last4: str) -> Json:
    return {
        "brand": "visa",
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": None},
        "country": "US",
        "display_brand": "visa",
        "exp_month": 12,
        "exp_year": 2040,
        "fingerprint": "sandbox" + last4,
        "funding": "credit",
        "generated_from": None,
        "last4": last4,
        "networks": {"available": ["visa"], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def _sepa(last4: str) -> Json:
    return {
        "bank_code": "37040044",
        "branch_code": "",
        "country": "DE",
        "fingerprint": "sandbox" + last4,
        "generated_from": {"charge": None, "setup_attempt": None},
        "last4": last4,
    }


def _us_bank(last4: str) -> Json:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "SANDBOX BANK",
        "financial_connections_account": None,
        "fingerprint": "sandbox" + last4,
        "last4": last4,
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
        "status_details": {},
    }


def method_details(method: Json, amount: int) -> Json:
    """A payment method as a charge tells of it."""
    kind = method["type"]
    kept = {"sepa_debit": _SEPA_KEPT, "us_bank_account": _US_BANK_KEPT}.get(kind, _CARD_KEPT)
    details = {name: method[kind][name] for name in kept}
    if kind == "card":
        details |= dict.fromkeys(("authorization_code", "installments", "mandate", "network_token"))
        details |= {"amount_authorized": amount, "network": "visa", "network_transaction_id": None}
        details |= {"three_d_secure": None}
    elif kind == "us_bank_account":
        details |= {"payment_reference": None}
    else:
        details |= {"mandate": None}
    return {"type": kind, kind: details}


_CARD_KEPT = "brand checks country exp_month exp_year fingerprint funding last4 regulated_status wallet".split()
_SEPA_KEPT = "bank_code branch_code country fingerprint last4".split()
_US_BANK_KEPT = "account_holder_type account_type bank_name fingerprint last4 routing_number".split()


def payment_error(charge_id: str, method: Json, *, code: str, decline_code: str | None, message: str) -> Json:
    """An intent's `last_payment_error`."""
    error: Json = {
        "charge": charge_id,
        "code": code,
        "doc_url": doc_url(code),
        "message": message,
        "payment_method": method,
        "type": "card_error" if decline_code else "invalid_request_error",
    }
    if decline_code:
        error |= {"decline_code": decline_code}
    return error


def refund(charge_: Json, amount: int, *, now: int, status: str, reason: str | None, metadata: Json) -> Json:
    """Money on its way back; `status` succeeded or pending."""
    return {
        "id": new_id("refund"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge_["id"],
        "created": now,
        "currency": charge_["currency"],
        "destination_details": _destination(charge_),
        "metadata": metadata,
        "payment_intent": charge_["payment_intent"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": status,
        "transfer_reversal": None,
    }


def _destination(charge_: Json) -> Json:
    kind = charge_["payment_method_details"]["type"]
    if kind == "card":
        pending = {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"}
        return {"card": pending, "type": "card"}
    bank = {"reference": None, "reference_status": None}
    return {f"{'us' if kind == 'us_bank_account' else 'eu'}_bank_transfer": bank} | {
        "type": "us_bank_transfer" if kind == "us_bank_account" else "eu_bank_transfer"
    }


def event(kind: str, subject: Json, previous: Json | None, *, now: int, request: Json) -> Json:
    """Something that happened. `previous` holds what an `updated` event's object was before."""
    data: Json = {"object": subject}
    if previous is not None:
        data["previous_attributes"] = previous
    return {
        "id": new_id("event"),
        "object": "event",
        "api_version": API_VERSION,
        "created": now,
        "data": data,
        "livemode": False,
        "pending_webhooks": 0,
        "request": request,
        "type": kind,
    }

"""Stripe's objects of the account's own money: balance transactions, disputes, payouts and the balance."""

from typing import Any

from .ids import new_id

Json = dict[str, Any]
CATEGORIES = {
    "charge": "charge",
    "payment": "charge",
    "refund": "refund",
    "payment_refund": "refund",
    "refund_failure": "refund_failure",
    "payout": "payout",
    "payout_cancel": "payout_reversal",
    "payout_failure": "payout_reversal",
}
EVIDENCE = (
    "access_activity_log billing_address cancellation_policy cancellation_policy_disclosure cancellation_rebuttal "
    "customer_communication customer_email_address customer_name customer_purchase_ip customer_signature "
    "duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id product_description receipt "
    "refund_policy refund_policy_disclosure refund_refusal_explanation service_date service_documentation "
    "shipping_address shipping_carrier shipping_date shipping_documentation shipping_tracking_number "
    "uncategorized_file uncategorized_text"
).split()
DAY = 24 * 60 * 60
RESPONSE_TIME = 9 * DAY


def balance_transaction(
    kind: str,
    source: str,
    amount: int,
    currency: str,
    *,
    now: int,
    available_on: int,
    fee: int = 0,
    fee_description: str = "",
    description: str | None = None,
    category: str = "",
    exchange_rate: float | None = None,
) -> Json:
    """One movement of the account's balance; a negative amount leaves it. The fee always leaves it."""
    details = {"amount": fee, "application": None, "currency": currency, "type": "stripe_fee"}
    return {
        "id": new_id("balance_transaction"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": available_on,
        "balance_type": "payments",
        "created": now,
        "currency": currency,
        "description": description,
        "exchange_rate": exchange_rate,
        "fee": fee,
        "fee_details": [details | {"description": fee_description}] if fee else [],
        "net": amount - fee,
        "reporting_category": category or CATEGORIES[kind],
        "source": source,
        "status": "available" if available_on <= now else "pending",
        "type": kind,
    }


def dispute(charge: Json, amount: int, *, now: int, reason: str, inquiry: bool) -> Json:
    """A bank's question about a charge (an inquiry), or its withdrawal."""
    return {
        "id": new_id("dispute"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": charge["id"],
        "created": now,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": dict.fromkeys(EVIDENCE) | {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": now + RESPONSE_TIME,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": inquiry,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": "visa",
                "case_type": "inquiry" if inquiry else "chargeback",
                "network_reason_code": "10.4" if reason == "fraudulent" else "13.7",
            },
            "type": "card",
        },
        "reason": reason,
        "status": "warning_needs_response" if inquiry else "needs_response",
    }


def payout(amount: int, currency: str, *, now: int, arrival: int, automatic: bool) -> Json:
    """A transfer of the available balance to the bank, not yet on its way."""
    return {
        "id": new_id("payout"),
        "object": "payout",
        "amount": amount,
        "application_fee": None,
        "application_fee_amount": None,
        "arrival_date": arrival,
        "automatic": automatic,
        "balance_transaction": None,
        "created": now,
        "currency": currency,
        "description": "STRIPE PAYOUT",
        "destination": "ba_1SandboxBankAccount",
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "livemode": False,
        "metadata": {},
        "method": "standard",
        "original_payout": None,
        "payout_method": None,
        "reconciliation_status": "in_progress" if automatic else "not_applicable",
        "reversed_by": None,
        "source_type": "card",
        "statement_descriptor": None,
        "status": "pending",
        "trace_id": None,
        "type": "bank_account",
    }


def balance(available: dict[str, int], pending: dict[str, int]) -> Json:
    """What the account holds, by currency."""
    return {
        "object": "balance",
        "available": [_held(amount, currency) for currency, amount in sorted(available.items())],
        "livemode": False,
        "pending": [_held(amount, currency) for currency, amount in sorted(pending.items())],
    }


def _held(amount: int, currency: str) -> Json:
    return {"amount": amount, "currency": currency, "source_types": {"card": amount}}

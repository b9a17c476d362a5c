"""Subscriptions: https://docs.stripe.com/api/subscriptions. `renewals` begins and renews them."""

import copy
from typing import Any

from . import amounts, params
from .errors import ApiError, missing
from .events import emit
from .ids import new_id
from .lists import Filter, field_in
from .store import Tx

Json = dict[str, Any]
ALIVE = ("active", "incomplete", "past_due", "paused", "trialing", "unpaid")
OVER = ("canceled", "incomplete_expired")
STATUSES = (*ALIVE, *OVER, "all", "ended")
FEEDBACK = (
    "customer_service low_quality missing_features other switched_service too_complex too_expensive unused".split()
)
_details = params.group({"comment": params.text(), "feedback": params.choice(*FEEDBACK)})
_pause = params.group(
    {"behavior": params.choice("keep_as_draft", "mark_uncollectible", "void"), "resumes_at": params.whole(0)},
    required=("behavior",),
)
FIELDS = {
    "cancel_at_period_end": params.flag,
    "cancellation_details": _details,
    "default_payment_method": params.text(),
    "description": params.text(500),
    "metadata": params.metadata,
    "pause_collection": params.or_unset(_pause),
}
ELSEWHERE = (
    "add_invoice_items application_fee_percent automatic_tax billing_cycle_anchor billing_schedules "
    "billing_thresholds cancel_at collection_method days_until_due default_source default_tax_rates discounts "
    "invoice_settings items off_session on_behalf_of payment_behavior payment_settings pending_invoice_item_interval "
    "proration_behavior proration_date transfer_data trial_end trial_from_plan trial_settings"
).split()
CANCEL_FIELDS = {"cancellation_details": _details, "invoice_now": params.flag, "prorate": params.flag}


def find(tx: Tx, subscription_id: str) -> Json:
    found = tx.get("subscription", subscription_id)
    if found is None:
        raise missing("subscription", subscription_id)
    return found


def find_customer(tx: Tx, customer_id: str) -> Json:
    found = tx.get("customer", customer_id)
    if found is None:
        raise missing("customer", customer_id)
    return found


def with_status(status: str) -> list[Filter]:
    """The filter of a list's `status`. Without one, those that are not over."""
    groups = {"": ALIVE, "ended": OVER}
    return [] if status == "all" else [field_in("subscription", "status", groups.get(status, (status,)))]


def period_end(subscription: Json) -> int:
    """When what is paid for ends."""
    return int(subscription["items"]["data"][0]["current_period_end"])


def change(tx: Tx, subscription: Json, changes: Json, before: Json | None = None) -> Json:
    """Change a subscription, and tell what it was before; `before` stands for more that had changed already."""
    previous = {name: subscription[name] for name, value in changes.items() if subscription[name] != value}
    previous |= before or {}
    subscription |= changes
    tx.save(subscription)
    if previous:
        emit(tx, "customer.subscription.updated", subscription, previous)
    return subscription


def update(tx: Tx, subscription_id: str, given: Json) -> Json:
    """What the API's update can change. Raises ApiError for one that is over."""
    subscription = _alive(tx, subscription_id)
    changes: Json = {name: given[name] for name in ("description", "pause_collection") if name in given}
    if "metadata" in given:
        changes["metadata"] = params.merged(subscription["metadata"], given["metadata"])
    if "default_payment_method" in given:
        changes["default_payment_method"] = _own_method(tx, subscription, given["default_payment_method"])
    if given.get("pause_collection"):
        changes["pause_collection"] = {"resumes_at": None} | given["pause_collection"]
        if changes["pause_collection"]["resumes_at"]:
            tx.schedule(changes["pause_collection"]["resumes_at"], "resume_collection", subscription_id)
    changes |= _cancellation(tx, subscription, given)
    return change(tx, subscription, changes)


def reprice(tx: Tx, subscription_id: str, unit_amount: int, item_id: str = "") -> Json:
    """Have an item, the first unless told otherwise, ask another amount from the next invoice on: nothing is prorated.

    Prices never change: it is another one, as from Stripe's dashboard. Raises ApiError.
    """
    subscription = _alive(tx, subscription_id)
    items = subscription["items"]["data"]
    found = next((item for item in items if item_id in ("", item["id"])), None)
    if found is None:
        raise missing("subscription_item", item_id)
    amounts.check_step(unit_amount, subscription["currency"], "amount")
    before = {"items": {"data": copy.deepcopy(items)}}
    another = {"id": new_id("price"), "created": tx.clock.seconds(), "unit_amount": unit_amount}
    found["price"] |= another | {"unit_amount_decimal": str(unit_amount)}
    return change(tx, subscription, {}, before)


def _cancellation(tx: Tx, subscription: Json, given: Json) -> Json:
    """What changes when a subscription is to end with its period, or is to go on after all."""
    details = subscription["cancellation_details"] | given.get("cancellation_details", {})
    ends = given.get("cancel_at_period_end", subscription["cancel_at_period_end"])
    if ends == subscription["cancel_at_period_end"]:
        return {"cancellation_details": details}
    return {
        "cancel_at_period_end": ends,
        "cancel_at": period_end(subscription) if ends else None,
        "canceled_at": tx.clock.seconds() if ends else None,
        "cancellation_details": details | {"reason": "cancellation_requested" if ends else None},
    }


def _own_method(tx: Tx, subscription: Json, method_id: str) -> str:
    method = tx.get("payment_method", method_id)
    if method is None or method["customer"] != subscription["customer"]:
        raise ApiError(
            f"The customer does not have a payment method with the ID {method_id}.",
            code="resource_missing",
            param="default_payment_method",
        )
    return method_id


def cancel(tx: Tx, subscription_id: str, given: Json | None = None, *, reason: str = "cancellation_requested") -> Json:
    """End a subscription at once. Raises ApiError 404 if it is over."""
    subscription = _alive(tx, subscription_id)
    now = tx.clock.seconds()
    details = subscription["cancellation_details"] | (given or {}).get("cancellation_details", {})
    subscription |= {"status": "canceled", "ended_at": now, "canceled_at": subscription["canceled_at"] or now}
    subscription["cancellation_details"] = details | {"reason": reason}
    tx.save(subscription)
    emit(tx, "customer.subscription.deleted", subscription)
    return subscription


def resume_collection_due(tx: Tx, subscription_id: str) -> None:
    """Collect again from when it was said that it would be, unless that has changed."""
    subscription = _alive(tx, subscription_id)
    pause = subscription["pause_collection"]
    if pause and pause["resumes_at"] and pause["resumes_at"] <= tx.clock.now():
        change(tx, subscription, {"pause_collection": None})


def _alive(tx: Tx, subscription_id: str) -> Json:
    subscription = find(tx, subscription_id)
    if subscription["status"] in OVER:
        raise missing("subscription", subscription_id)
    return subscription

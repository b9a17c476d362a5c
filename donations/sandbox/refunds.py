"""Refunds: https://docs.stripe.com/api/refunds. One that succeeded may still fail, and then the money comes back to us.

Outcomes: `succeed`; `pending` (until it is told to succeed or fail); `fail_later` (succeeds, and fails by itself).
"""

from typing import Any

from . import amounts, balance, objects, params, payments
from .errors import ApiError, missing, missing_in, missing_parameter
from .events import emit
from .store import Tx

Json = dict[str, Any]
OUTCOMES = ("succeed", "pending", "fail_later")
FIELDS = {
    "amount": params.whole(1),
    "charge": params.text(),
    "metadata": params.metadata,
    "payment_intent": params.text(),
    "reason": params.choice("duplicate", "fraudulent", "requested_by_customer"),
}
ELSEWHERE = "currency customer instructions_email origin refund_application_fee reverse_transfer".split()
UPDATE_FIELDS = {"metadata": params.metadata}
FAILS_AFTER = 2.0
REFERENCE_AFTER = 4.0


def create(tx: Tx, given: Json, *, outcome: str = "") -> Json:
    """Refund a payment, or a part of it. Without an outcome, the card that paid decides."""
    charge = _charge(tx, given)
    amount = _amount(charge, given.get("amount"))
    outcome = outcome or tx.hidden(charge["id"]).get("refunds", "succeed")
    refund = objects.refund(
        charge,
        amount,
        now=tx.clock.seconds(),
        status="pending" if outcome == "pending" else "succeeded",
        reason=given.get("reason"),
        metadata=given.get("metadata", {}),
    )
    kind = "refund" if balance.is_card(charge) else "payment_refund"
    moved = balance.book(tx, kind, refund["id"], -amount, refund["currency"], description="REFUND FOR CHARGE")
    refund["balance_transaction"] = moved["id"]
    tx.add(refund)
    emit(tx, "refund.created", refund)
    _return(tx, charge, amount, "charge.refunded")
    if outcome == "fail_later":
        tx.schedule(tx.clock.now() + FAILS_AFTER, "fail_refund", refund["id"])
    elif outcome == "succeed":
        tx.schedule(tx.clock.now() + REFERENCE_AFTER, "refer_refund", refund["id"])
    return refund


def update(tx: Tx, refund_id: str, given: Json) -> Json:
    """Change a refund's metadata."""
    refund = find(tx, refund_id)
    before = refund["metadata"]
    refund["metadata"] = params.merged(before, given["metadata"]) if "metadata" in given else before
    tx.save(refund)
    if refund["metadata"] != before:
        emit(tx, "refund.updated", refund, {"metadata": before})
    return refund


def succeed(tx: Tx, refund_id: str) -> Json:
    """A pending refund reaches the donor."""
    refund = find(tx, refund_id)
    if refund["status"] != "pending":
        raise _wrong_status(refund, "pending")
    refund["status"] = "succeeded"
    tx.save(refund)
    emit(tx, "refund.updated", refund, {"status": "pending"})
    return refund


def fail(tx: Tx, refund_id: str) -> Json:
    """A refund does not reach the donor, perhaps after it had succeeded: its money is ours again."""
    refund = find(tx, refund_id)
    if refund["status"] not in ("pending", "succeeded"):
        raise _wrong_status(refund, "pending or succeeded")
    refund |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
    _take_back(tx, refund)
    emit(tx, "refund.failed", refund)
    _return(tx, payments.find_charge(tx, refund["charge"]), -refund["amount"], "charge.updated")
    return refund


def cancel(tx: Tx, refund_id: str) -> Json:
    """A pending refund is called off: its money is ours again."""
    refund = find(tx, refund_id)
    if refund["status"] != "pending":
        raise _wrong_status(refund, "pending")
    refund |= {"status": "canceled", "failure_reason": "merchant_request"}
    _take_back(tx, refund)
    emit(tx, "refund.updated", refund, {"status": "pending"})
    _return(tx, payments.find_charge(tx, refund["charge"]), -refund["amount"], "charge.updated")
    return refund


def _take_back(tx: Tx, refund: Json) -> None:
    moved = balance.book(
        tx, "refund_failure", refund["id"], refund["amount"], refund["currency"], description="REFUND FAILURE"
    )
    refund["failure_balance_transaction"] = moved["id"]
    tx.save(refund)


def fail_due(tx: Tx, refund_id: str) -> None:
    """Fail a refund that was to fail later, unless it has by now."""
    if find(tx, refund_id)["status"] == "succeeded":
        fail(tx, refund_id)


def refer_due(tx: Tx, refund_id: str) -> None:
    """A card refund learns the reference by which the bank can trace it."""
    refund = find(tx, refund_id)
    card = refund["destination_details"].get("card")
    if refund["status"] != "succeeded" or card is None:
        return
    before = {"card": {"reference_status": card["reference_status"]}}
    card |= {"reference": refund["id"][-8:].upper(), "reference_status": "available"}
    tx.save(refund)
    emit(tx, "refund.updated", refund, {"destination_details": before})


def find(tx: Tx, refund_id: str) -> Json:
    refund = tx.get("refund", refund_id)
    if refund is None:
        raise missing("refund", refund_id, "refund")
    return refund


def _return(tx: Tx, charge: Json, amount: int, event: str) -> None:
    """Move a charge's refunded amount, up or down, and tell of it."""
    before = {"amount_refunded": charge["amount_refunded"], "refunded": charge["refunded"]}
    refunded = charge["amount_refunded"] + amount
    charge |= {"amount_refunded": refunded, "refunded": refunded == charge["amount"]}
    tx.save(charge)
    emit(tx, event, charge, {name: value for name, value in before.items() if value != charge[name]})


def _charge(tx: Tx, given: Json) -> Json:
    """The succeeded charge that a refund is of."""
    if "charge" in given:
        charge = tx.get("charge", given["charge"])
        if charge is None:
            raise missing_in("charge", given["charge"], "charge")
        intent_id = charge["payment_intent"]
    elif "payment_intent" in given:
        intent_id = given["payment_intent"]
        intent = tx.get("payment_intent", intent_id)
        if intent is None:
            raise missing_in("payment_intent", intent_id, "payment_intent")
        charge = tx.get("charge", intent["latest_charge"] or "")
    else:
        raise missing_parameter("payment_intent")
    if charge is None or charge["status"] != "succeeded":
        raise ApiError(f"This PaymentIntent ({intent_id}) does not have a successful charge to refund.")
    if charge["disputed"] and any(
        not one["is_charge_refundable"] for one in tx.where("dispute", "charge", charge["id"])
    ):
        raise ApiError(f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed")
    return charge


def _amount(charge: Json, wanted: int | None) -> int:
    left: int = charge["amount"] - charge["amount_refunded"]
    if left <= 0:
        raise ApiError(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    if wanted is None or wanted == left:
        return left
    if wanted < left:
        amounts.check_step(wanted, charge["currency"], "amount")
        return wanted
    limit, what = (left, "unrefunded amount on charge") if charge["amount_refunded"] else (left, "charge amount")
    sums = [amounts.written(amount, charge["currency"]) for amount in (wanted, limit)]
    raise ApiError(f"Refund amount ({sums[0]}) is greater than {what} ({sums[1]})", param="amount")


def _wrong_status(refund: Json, wanted: str) -> ApiError:
    return ApiError(f"The refund must be {wanted}; {refund['id']} has a status of `{refund['status']}`.")

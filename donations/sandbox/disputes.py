"""Disputes: a bank takes a payment's money back, or asks about it first (an inquiry). https://docs.stripe.com/disputes.

    inquiry   warning_needs_response → warning_under_review → warning_closed, or a dispute after all
    dispute   needs_response → under_review → won or lost; what was won may be lost after all

Money moves when a dispute begins (its amount, and a fee), and when it is won (all of it or a part); never for an
inquiry. The movements stand in the dispute's `balance_transactions`.
"""

from typing import Any

from . import account, balance, money_objects, params, payments
from .errors import ApiError, missing
from .events import emit
from .store import Tx

Json = dict[str, Any]
REASONS = (
    "bank_cannot_process check_returned credit_not_processed customer_initiated debit_not_authorized duplicate "
    "fraudulent general incorrect_account_details insufficient_funds product_not_received product_unacceptable "
    "subscription_canceled unrecognized"
).split()
INQUIRY = ("warning_needs_response", "warning_under_review")
OPEN = ("needs_response", "under_review")
_evidence = params.group({name: params.or_unset(params.text(20_000)) for name in money_objects.EVIDENCE})
FIELDS = {"evidence": _evidence, "metadata": params.metadata, "submit": params.flag}


def find(tx: Tx, dispute_id: str) -> Json:
    """A dispute with its movements as they stand now. Raises ApiError 404."""
    found = tx.get("dispute", dispute_id)
    if found is None:
        raise missing("dispute", dispute_id)
    return shown(tx, found)


def shown(tx: Tx, dispute: Json) -> Json:
    moved = [balance.shown(tx, one) for one in dispute["balance_transactions"]]
    return dispute | {"balance_transactions": moved}


def create(
    tx: Tx, charge_id: str, *, amount: int | None = None, reason: str = "fraudulent", inquiry: bool = False
) -> Json:
    """Dispute a charge that succeeded, a part of it, or, as where rates have moved, somewhat more than it."""
    charge = payments.find_charge(tx, charge_id)
    if charge["status"] != "succeeded":
        raise ApiError(f"Charge {charge_id} did not succeed: there is nothing to dispute.")
    if charge["disputed"]:
        raise ApiError(f"Charge {charge_id} is disputed already.")
    most = 2 * charge["amount"]
    if amount is not None and not 0 < amount <= most:
        raise ApiError(f"amount must be between 1 and {most}", param="amount")
    dispute = money_objects.dispute(
        charge, amount or charge["amount"], now=tx.clock.seconds(), reason=reason, inquiry=inquiry
    )
    if not inquiry:
        _withdraw(tx, dispute)
    charge["disputed"] = True
    tx.save(charge)
    tx.add(dispute)
    emit(tx, "charge.dispute.created", dispute)
    if not inquiry:
        emit(tx, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def create_due(tx: Tx, charge_id: str, *, inquiry: bool = False) -> None:
    """The dispute that a test card brings about by itself."""
    create(tx, charge_id, inquiry=inquiry)


def respond(tx: Tx, dispute_id: str) -> Json:
    """Evidence is submitted: the bank looks at it."""
    dispute = find(tx, dispute_id)
    if dispute["status"] not in ("needs_response", "warning_needs_response"):
        raise _wrong_status(dispute, "wait for a response")
    dispute["evidence_details"] |= {"has_evidence": True, "submission_count": 1}
    return _change(tx, dispute, dispute["status"].replace("needs_response", "under_review"))


def update(tx: Tx, dispute_id: str, given: Json) -> Json:
    """The API's update: evidence, metadata, and `submit` (true unless told otherwise)."""
    dispute = find(tx, dispute_id)
    before = {name: dispute[name] for name in ("evidence", "metadata")}
    dispute["evidence"] = dispute["evidence"] | given.get("evidence", {})
    if "metadata" in given:
        dispute["metadata"] = params.merged(dispute["metadata"], given["metadata"])
    tx.save(dispute)
    if given.get("submit", True) and "evidence" in given:
        return respond(tx, dispute_id)
    changed = {name: value for name, value in before.items() if value != dispute[name]}
    if changed:
        emit(tx, "charge.dispute.updated", dispute, changed)
    return dispute


def escalate(tx: Tx, dispute_id: str) -> Json:
    """An inquiry becomes a dispute: now the money is withdrawn."""
    dispute = find(tx, dispute_id)
    if dispute["status"] not in INQUIRY:
        raise _wrong_status(dispute, "be an inquiry")
    _withdraw(tx, dispute)
    dispute["is_charge_refundable"] = False
    dispute["payment_method_details"]["card"]["case_type"] = "chargeback"
    dispute = _change(tx, dispute, "needs_response")
    emit(tx, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def win(tx: Tx, dispute_id: str, *, amount: int | None = None, return_fee: bool = False) -> Json:
    """The bank decides for us, at last or after all: its money, or a part of it, is reinstated; the fee if so told."""
    dispute = find(tx, dispute_id)
    if dispute["status"] not in (*OPEN, "lost"):
        raise _wrong_status(dispute, "be open, or lost")
    if amount is not None and not 0 < amount <= dispute["amount"]:
        raise ApiError(f"amount must be between 1 and {dispute['amount']}", param="amount")
    fee = -sum(one["fee"] for one in dispute["balance_transactions"]) if return_fee else 0
    reinstated = amount or dispute["amount"]
    tx.hide(dispute_id, reinstated=reinstated)
    _move(tx, dispute, reinstated, fee, "dispute_reversal")
    dispute = _close(tx, dispute, "won")
    emit(tx, "charge.dispute.funds_reinstated", dispute)
    return dispute


def lose(tx: Tx, dispute_id: str) -> Json:
    """The bank decides against us; also after it had decided for us, and then what was reinstated is withdrawn."""
    dispute = find(tx, dispute_id)
    if dispute["status"] not in (*OPEN, "won"):
        raise _wrong_status(dispute, "be open or won")
    again = dispute["status"] == "won"
    if again:
        _move(tx, dispute, -tx.hidden(dispute_id)["reinstated"], 0, "dispute")
    dispute = _close(tx, dispute, "lost")
    if again:
        emit(tx, "charge.dispute.funds_withdrawn", dispute)
    return dispute


def close(tx: Tx, dispute_id: str) -> Json:
    """An inquiry ends with nothing; of a dispute, that we accept it."""
    dispute = find(tx, dispute_id)
    return _close(tx, dispute, "warning_closed") if dispute["status"] in INQUIRY else lose(tx, dispute_id)


def _withdraw(tx: Tx, dispute: Json) -> None:
    _move(tx, dispute, -dispute["amount"], account.of(tx).dispute_fee, "dispute")


def _move(tx: Tx, dispute: Json, amount: int, fee: int, category: str) -> None:
    charge = dispute["charge"]
    words = f"Chargeback {'withdrawal' if amount < 0 else 'reversal'} for {charge}"
    more = {"fee": fee, "fee_description": "Dispute fee", "description": words, "category": category}
    moved = balance.book(tx, "adjustment", dispute["id"], amount, dispute["currency"], **more)
    dispute["balance_transactions"] = [*dispute["balance_transactions"], moved]


def _change(tx: Tx, dispute: Json, status: str) -> Json:
    before = {"status": dispute["status"]}
    dispute["status"] = status
    tx.save(dispute)
    emit(tx, "charge.dispute.updated", dispute, before)
    return dispute


def _close(tx: Tx, dispute: Json, status: str) -> Json:
    before = {"status": dispute["status"]}
    dispute["status"] = status
    tx.save(dispute)
    emit(tx, "charge.dispute.closed", dispute, before)
    return dispute


def _wrong_status(dispute: Json, wanted: str) -> ApiError:
    return ApiError(f"The dispute must {wanted}; {dispute['id']} has a status of `{dispute['status']}`.")

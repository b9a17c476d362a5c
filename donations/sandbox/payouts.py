"""Payouts: what is available goes to the bank once a day, and arrives two days later. https://docs.stripe.com/payouts.

One that was paid may fail after all; its money is then available again, by a movement of its own.
"""

from typing import Any

from . import account, balance, money_objects
from .clock import midnight_after
from .errors import ApiError, missing
from .events import emit
from .store import Tx

Json = dict[str, Any]
ARRIVES_AFTER = 2
STATUSES = ("canceled", "failed", "in_transit", "paid", "pending")


def find(tx: Tx, payout_id: str) -> Json:
    found = tx.get("payout", payout_id)
    if found is None:
        raise missing("payout", payout_id)
    return found


def create(tx: Tx, currency: str, *, hold: bool = False) -> Json:
    """Pay out all that is available in a currency. To `hold` it back keeps it pending, so that it can be canceled."""
    amount = balance.available(tx, currency)
    if amount <= 0:
        raise ApiError(
            "You have insufficient funds in your Stripe account for this payout.", code="balance_insufficient"
        )
    now = tx.clock.seconds()
    arrival = midnight_after(now, ARRIVES_AFTER)
    payout = money_objects.payout(amount, currency, now=now, arrival=arrival, automatic=True)
    balance.take(tx, currency, payout["id"])
    moved = balance.book(
        tx, "payout", payout["id"], -amount, currency, description="STRIPE PAYOUT", available_on=arrival
    )
    tx.db.execute(
        "UPDATE balance SET payout = ? WHERE seq = (SELECT seq FROM objects WHERE id = ?)", (payout["id"], moved["id"])
    )
    payout["balance_transaction"] = moved["id"]
    emit(tx, "payout.created", tx.add(payout))
    return payout if hold else send(tx, payout["id"])


def send(tx: Tx, payout_id: str) -> Json:
    """A payout goes on its way to the bank."""
    payout = _in(tx, payout_id, "pending")
    payout["status"] = "in_transit"
    tx.save(payout)
    emit(tx, "payout.updated", payout, {"status": "pending"})
    tx.schedule(max(payout["arrival_date"], tx.clock.seconds()), "arrive_payout", payout_id)
    return payout


def pay(tx: Tx, payout_id: str) -> Json:
    """A payout is expected to have arrived, and what it is made of is known from now on."""
    if find(tx, payout_id)["status"] == "pending":
        send(tx, payout_id)
    payout = _in(tx, payout_id, "in_transit")
    payout["status"] = "paid"
    tx.save(payout)
    emit(tx, "payout.paid", payout)
    payout["reconciliation_status"] = "completed"
    tx.save(payout)
    emit(tx, "payout.reconciliation_completed", payout)
    return payout


def fail(tx: Tx, payout_id: str) -> Json:
    """The bank sends the money back, perhaps after the payout was said to be paid."""
    payout = _in(tx, payout_id, "pending", "in_transit", "paid")
    payout |= {"status": "failed", "failure_code": "account_closed"}
    payout["failure_message"] = "The bank account has been closed."
    _take_back(tx, payout, "payout_failure", "STRIPE PAYOUT FAILURE")
    emit(tx, "payout.failed", payout)
    return payout


def cancel(tx: Tx, payout_id: str) -> Json:
    """Call off a payout that is not on its way yet."""
    payout = _in(tx, payout_id, "pending")
    payout["status"] = "canceled"
    _take_back(tx, payout, "payout_cancel", "STRIPE PAYOUT CANCEL")
    emit(tx, "payout.canceled", payout)
    return payout


def _take_back(tx: Tx, payout: Json, kind: str, words: str) -> None:
    moved = balance.book(tx, kind, payout["id"], payout["amount"], payout["currency"], description=words)
    payout["failure_balance_transaction"] = moved["id"]
    tx.save(payout)


def pay_out_due(tx: Tx, currency: str) -> None:
    """The day's payout, if payouts are made by themselves and there is anything to pay out."""
    if account.of(tx).payouts == "daily" and balance.available(tx, currency) > 0:
        create(tx, currency)


def arrive_due(tx: Tx, payout_id: str) -> None:
    """A payout arrives, unless it failed."""
    if find(tx, payout_id)["status"] == "in_transit":
        pay(tx, payout_id)


def _in(tx: Tx, payout_id: str, *statuses: str) -> Json:
    payout = find(tx, payout_id)
    if payout["status"] not in statuses:
        wanted = " or ".join(statuses)
        raise ApiError(f"The payout must be {wanted}; {payout_id} has a status of `{payout['status']}`.")
    return payout

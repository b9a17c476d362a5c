"""What the payment page does: PaymentIntents, charges and their events, in the order in which Stripe sends them.

Test cards: https://docs.stripe.com/testing. Delayed methods: https://docs.stripe.com/payments/payment-methods (their
money arrives, or fails to, days after the checkout is complete).
"""

from dataclasses import dataclass
from typing import Any

from . import checkout, objects
from .errors import ApiError, missing
from .events import emit
from .ids import new_id
from .store import Tx

Json = dict[str, Any]
DEBIT_LAST4 = "6789"


@dataclass(frozen=True, slots=True)
class Card:
    """A test card: what it does when it pays (`decline` is Stripe's decline code), and what its refunds do."""

    decline: str = ""
    message: str = ""
    refunds: str = "succeed"


CARDS = {
    "4242424242424242": Card(),
    "4000000000000002": Card("generic_decline", "Your card was declined."),
    "4000000000009995": Card("insufficient_funds", "Your card has insufficient funds."),
    "4000000000007726": Card(refunds="pending"),
    "4000000000005126": Card(refunds="fail_later"),
}


@dataclass(frozen=True, slots=True)
class Payer:
    """What the donor typed beside the card."""

    email: str | None = None
    name: str | None = None


class NotPayable(Exception):
    """The session is complete or expired."""


def pay_by_card(tx: Tx, session_id: str, number: str, payer: Payer) -> Card:
    """Try to pay a session by a card of CARDS. The card's `message` says why it was declined; empty: paid."""
    card, session = CARDS[number], _payable(tx, session_id)
    intent = _intent(tx, session)
    method = _method("card", number[-4:], payer, tx)
    if card.decline:
        _decline(tx, intent, method, card)
        return card
    charge = _charge(tx, intent, method, "succeeded", {"refunds": card.refunds})
    emit(tx, "charge.succeeded", charge)
    _succeed(tx, intent, charge)
    _complete(tx, session, payer, "paid")
    _settle_charge(tx, charge)
    return card


def pay_by_debit(tx: Tx, session_id: str, payer: Payer) -> None:
    """Complete a session with a bank debit, whose money is yet to come: `settle` or `fail` decides."""
    session = _payable(tx, session_id)
    intent = _intent(tx, session)
    method = _method(objects.debit_type(session["currency"]), DEBIT_LAST4, payer, tx)
    charge = _charge(tx, intent, method, "pending")
    intent |= {"status": "processing", "latest_charge": charge["id"], "payment_method": method["id"]}
    tx.save(intent)
    emit(tx, "payment_intent.processing", intent)
    emit(tx, "charge.pending", charge)
    _complete(tx, session, payer, "unpaid")


def settle(tx: Tx, intent_id: str) -> Json:
    """A delayed payment's money arrives. Returns the PaymentIntent."""
    intent, charge, session = _processing(tx, intent_id)
    charge |= {"status": "succeeded", "paid": True, "captured": True, "amount_captured": charge["amount"]}
    charge |= {"balance_transaction": new_id("balance_transaction"), "outcome": objects.outcome("succeeded")}
    tx.save(charge)
    emit(tx, "charge.succeeded", charge)
    _succeed(tx, intent, charge)
    session["payment_status"] = "paid"
    tx.save(session)
    emit(tx, "checkout.session.async_payment_succeeded", session)
    return intent


def fail(tx: Tx, intent_id: str) -> Json:
    """A delayed payment's money does not arrive. Returns the PaymentIntent."""
    intent, charge, session = _processing(tx, intent_id)
    reason = Card("insufficient_funds", "The bank account has insufficient funds.")
    _fail_charge(charge, reason)
    tx.save(charge)
    emit(tx, "charge.failed", charge)
    method = tx.get("payment_method", charge["payment_method"]) or {}
    error = objects.payment_error(
        charge["id"], method, code="payment_intent_payment_attempt_failed", decline_code=None, message=reason.message
    )
    _fail_intent(tx, intent, charge, error)
    emit(tx, "checkout.session.async_payment_failed", session)
    return intent


def find(tx: Tx, intent_id: str) -> Json:
    intent = tx.get("payment_intent", intent_id)
    if intent is None:
        raise missing("payment_intent", intent_id, "intent")
    return intent


def _payable(tx: Tx, session_id: str) -> Json:
    session = checkout.find(tx, session_id)
    if session["status"] != "open":
        raise NotPayable(session["status"])
    return session


def _intent(tx: Tx, session: Json) -> Json:
    """The session's PaymentIntent: made at the first attempt, kept for the next."""
    if session["payment_intent"]:
        return find(tx, session["payment_intent"])
    data = tx.hidden(session["id"]).get("payment_intent_data", {})
    intent = tx.add(objects.payment_intent(session, data, now=tx.clock.seconds()), {"session": session["id"]})
    session["payment_intent"] = intent["id"]
    tx.save(session)
    emit(tx, "payment_intent.created", intent)
    return intent


def _method(kind: str, last4: str, payer: Payer, tx: Tx) -> Json:
    now = tx.clock.seconds()
    return tx.add(objects.payment_method(kind, last4, email=payer.email, name=payer.name, now=now))


def _charge(tx: Tx, intent: Json, method: Json, status: str, hidden: Json | None = None) -> Json:
    return tx.add(objects.charge(intent, method, now=tx.clock.seconds(), status=status), hidden)


def _succeed(tx: Tx, intent: Json, charge: Json) -> None:
    intent |= {"status": "succeeded", "amount_received": intent["amount"], "last_payment_error": None}
    intent |= {"latest_charge": charge["id"], "payment_method": charge["payment_method"]}
    tx.save(intent)
    emit(tx, "payment_intent.succeeded", intent)


def _complete(tx: Tx, session: Json, payer: Payer, payment_status: str) -> None:
    session |= {"status": "complete", "payment_status": payment_status, "url": None}
    session["customer_details"] = objects.customer_details(payer.email or session["customer_email"], payer.name)
    tx.save(session)
    emit(tx, "checkout.session.completed", session)


def _settle_charge(tx: Tx, charge: Json) -> None:
    """The asynchronous capture: the charge learns its balance transaction a little later than it succeeds."""
    charge["balance_transaction"] = new_id("balance_transaction")
    tx.save(charge)
    emit(tx, "charge.updated", charge, {"balance_transaction": None})


def _decline(tx: Tx, intent: Json, method: Json, card: Card) -> None:
    charge = objects.charge(intent, method, now=tx.clock.seconds(), status="failed")
    _fail_charge(charge, card)
    tx.add(charge)
    emit(tx, "charge.failed", charge)
    error = objects.payment_error(
        charge["id"], method, code="card_declined", decline_code=card.decline, message=card.message
    )
    _fail_intent(tx, intent, charge, error)


def _fail_charge(charge: Json, reason: Card) -> None:
    code = "card_declined" if charge["payment_method_details"]["type"] == "card" else reason.decline
    charge |= {"status": "failed", "failure_code": code, "failure_message": reason.message}
    charge["outcome"] = objects.outcome("failed", reason.decline)


def _fail_intent(tx: Tx, intent: Json, charge: Json, error: Json) -> None:
    intent |= {"status": "requires_payment_method", "latest_charge": charge["id"], "payment_method": None}
    intent["last_payment_error"] = error
    tx.save(intent)
    emit(tx, "payment_intent.payment_failed", intent)


def _processing(tx: Tx, intent_id: str) -> tuple[Json, Json, Json]:
    """A payment whose money is yet to come, with its charge and its session."""
    intent = find(tx, intent_id)
    if intent["status"] != "processing":
        raise ApiError(
            f"Only a delayed payment that is processing can be settled or failed; {intent_id} has a status of "
            f"`{intent['status']}`.",
            code="payment_intent_unexpected_state",
        )
    charge = tx.get("charge", intent["latest_charge"])
    session = tx.get("checkout.session", tx.hidden(intent_id)["session"])
    if charge is None or session is None:
        raise missing("charge", intent["latest_charge"])
    return intent, charge, session

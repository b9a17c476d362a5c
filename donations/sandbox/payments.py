"""PaymentIntents and charges, and their events, in the order in which Stripe sends them.

What a payment is for (a checkout, an invoice) is `paying`'s and `invoices`' to know.
"""

from dataclasses import dataclass
from typing import Any

from . import account, balance, objects
from .cards import CARDS, PLAIN, Card
from .errors import ApiError, missing
from .events import emit
from .store import Tx

Json = dict[str, Any]
DEBIT_LAST4 = "6789"
DISPUTED_AFTER = 2.0
NO_MONEY = Card("insufficient_funds", "The bank account has insufficient funds.")


@dataclass(frozen=True, slots=True)
class Payer:
    """What the donor typed beside the card."""

    email: str | None = None
    name: str | None = None


def find(tx: Tx, intent_id: str) -> Json:
    intent = tx.get("payment_intent", intent_id)
    if intent is None:
        raise missing("payment_intent", intent_id, "intent")
    return intent


def find_charge(tx: Tx, charge_id: str) -> Json:
    charge = tx.get("charge", charge_id)
    if charge is None:
        raise missing("charge", charge_id, "charge")
    return charge


def begin(tx: Tx, amount: int, currency: str, data: Json, **hidden: str) -> Json:
    """A PaymentIntent; `hidden` says what it is for."""
    intent = tx.add(objects.payment_intent(amount, currency, data, now=tx.clock.seconds()), hidden)
    emit(tx, "payment_intent.created", intent)
    return intent


def card_method(tx: Tx, number: str, payer: Payer, customer: str | None = None) -> Json:
    """A test card as a payment method, kept for a customer if there is one."""
    return _method(tx, "card", number[-4:], payer, customer, card=number)


def debit_method(tx: Tx, currency: str, payer: Payer, customer: str | None = None) -> Json:
    """A bank account that a currency's debits are taken from: a delayed method."""
    return _method(tx, objects.debit_type(currency), DEBIT_LAST4, payer, customer)


def _method(tx: Tx, kind: str, last4: str, payer: Payer, customer: str | None, **hidden: str) -> Json:
    method = objects.payment_method(kind, last4, email=payer.email, name=payer.name, now=tx.clock.seconds())
    method["customer"] = customer
    tx.add(method, hidden)
    if customer:
        emit(tx, "payment_method.attached", method)
    return method


def card_of(tx: Tx, method_id: str) -> Card:
    """What the card of a payment method does; a bank account does as the plain card."""
    return CARDS[tx.hidden(method_id).get("card", PLAIN)]


def take(tx: Tx, intent: Json, method: Json, card: Card) -> Json:
    """Charge a card that pays. The charge; `capture` is to follow once what it was for has been told of."""
    charge = objects.charge(intent, method, now=tx.clock.seconds(), status="succeeded")
    if account.of(tx).capture == "sync":
        charge["balance_transaction"] = balance.book_charge(tx, charge, at_once=card.at_once)
    tx.add(charge, {"refunds": card.refunds, "at_once": card.at_once})
    if card.dispute:
        tx.schedule(tx.clock.now() + DISPUTED_AFTER, f"dispute_{card.dispute}", charge["id"])
    emit(tx, "charge.succeeded", charge)
    succeed(tx, intent, charge)
    return charge


def capture(tx: Tx, charge: Json) -> None:
    """The asynchronous capture: the charge learns its balance transaction a little later than it succeeds."""
    terms = account.of(tx)
    if terms.capture == "async" and terms.capture_after:
        tx.schedule(tx.clock.now() + terms.capture_after, "capture_charge", charge["id"])
    else:
        capture_due(tx, charge["id"])


def capture_due(tx: Tx, charge_id: str) -> None:
    """Give a charge its balance transaction, unless it has one."""
    charge = find_charge(tx, charge_id)
    if charge["balance_transaction"]:
        return
    charge["balance_transaction"] = balance.book_charge(tx, charge, at_once=tx.hidden(charge_id).get("at_once", False))
    tx.save(charge)
    emit(tx, "charge.updated", charge, {"balance_transaction": None})


def take_later(tx: Tx, intent: Json, method: Json) -> Json:
    """Begin a bank debit: its money arrives, or fails to, days later."""
    charge = tx.add(objects.charge(intent, method, now=tx.clock.seconds(), status="pending"))
    intent |= {"status": "processing", "latest_charge": charge["id"], "payment_method": method["id"]}
    intent["next_action"] = None
    tx.save(intent)
    emit(tx, "payment_intent.processing", intent)
    emit(tx, "charge.pending", charge)
    return charge


def arrive(tx: Tx, intent_id: str) -> Json:
    """The money of a bank debit arrives. Returns the PaymentIntent."""
    intent, charge = _processing(tx, intent_id)
    charge |= {"status": "succeeded", "paid": True, "captured": True, "amount_captured": charge["amount"]}
    moved = charge["balance_transaction"] or balance.book_charge(tx, charge)
    charge |= {"balance_transaction": moved, "outcome": objects.outcome("succeeded")}
    tx.save(charge)
    emit(tx, "charge.succeeded", charge)
    succeed(tx, intent, charge)
    return intent


def fail_to_arrive(tx: Tx, intent_id: str) -> Json:
    """The money of a bank debit does not arrive. Returns the PaymentIntent."""
    intent, charge = _processing(tx, intent_id)
    _fail_charge(charge, NO_MONEY)
    tx.save(charge)
    emit(tx, "charge.failed", charge)
    method = tx.get("payment_method", charge["payment_method"]) or {}
    code = "payment_intent_payment_attempt_failed"
    error = objects.payment_error(charge["id"], method, code=code, decline_code=None, message=NO_MONEY.message)
    _fail_intent(tx, intent, charge, error)
    return intent


def decline(tx: Tx, intent: Json, method: Json, card: Card) -> None:
    """A card is charged in vain."""
    charge = objects.charge(intent, method, now=tx.clock.seconds(), status="failed")
    _fail_charge(charge, card)
    tx.add(charge)
    emit(tx, "charge.failed", charge)
    code = "authentication_required" if card.decline == "authentication_required" else "card_declined"
    error = objects.payment_error(charge["id"], method, code=code, decline_code=card.decline, message=card.message)
    _fail_intent(tx, intent, charge, error)


def ask_to_authenticate(tx: Tx, intent: Json, method: Json, url: str) -> None:
    """The bank wants to hear from the donor, at `url`, before it pays."""
    intent |= {"status": "requires_action", "payment_method": method["id"]}
    intent["next_action"] = {"type": "redirect_to_url", "redirect_to_url": {"return_url": None, "url": url}}
    tx.save(intent)
    emit(tx, "payment_intent.requires_action", intent)


def succeed(tx: Tx, intent: Json, charge: Json) -> None:
    """A PaymentIntent's charge succeeded."""
    intent |= {"status": "succeeded", "amount_received": intent["amount"], "last_payment_error": None}
    intent |= {"latest_charge": charge["id"], "payment_method": charge["payment_method"], "next_action": None}
    tx.save(intent)
    emit(tx, "payment_intent.succeeded", intent)


def cancel(tx: Tx, intent: Json) -> None:
    """Give a payment up that was not made."""
    if intent["status"] in ("succeeded", "canceled", "processing"):
        return
    intent |= {"status": "canceled", "canceled_at": tx.clock.seconds(), "cancellation_reason": "void_invoice"}
    intent["next_action"] = None
    tx.save(intent)
    emit(tx, "payment_intent.canceled", intent)


def _fail_charge(charge: Json, reason: Card) -> None:
    code = "card_declined" if balance.is_card(charge) else reason.decline
    charge |= {"status": "failed", "failure_code": code, "failure_message": reason.message}
    charge["outcome"] = objects.outcome("failed", reason.decline)


def _fail_intent(tx: Tx, intent: Json, charge: Json, error: Json) -> None:
    intent |= {"status": "requires_payment_method", "latest_charge": charge["id"], "payment_method": None}
    intent |= {"last_payment_error": error, "next_action": None}
    tx.save(intent)
    emit(tx, "payment_intent.payment_failed", intent)


def _processing(tx: Tx, intent_id: str) -> tuple[Json, Json]:
    """A payment whose money is yet to come, with its charge."""
    intent = find(tx, intent_id)
    if intent["status"] != "processing":
        raise ApiError(
            f"Only a delayed payment that is processing can be settled or failed; {intent_id} has a status of "
            f"`{intent['status']}`.",
            code="payment_intent_unexpected_state",
        )
    return intent, find_charge(tx, intent["latest_charge"])

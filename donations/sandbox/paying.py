"""Paying a checkout, on its page or by the controls; a subscription's first payment too.

Delayed methods (https://docs.stripe.com/payments/payment-methods): their money arrives, or fails to, days after the
checkout is complete; `settle` or `fail` decides.
"""

from typing import Any

from . import checkout, invoices, objects, payments, renewals
from .cards import CARDS, NOT_AUTHENTICATED, Card
from .events import emit
from .payments import Payer
from .store import Tx

Json = dict[str, Any]


class NotPayable(Exception):
    """The session is complete or expired."""


def pay_by_card(tx: Tx, session_id: str, number: str, payer: Payer, *, authenticated: bool = True) -> Card:
    """Try to pay a session by a card of CARDS. The card's `message` says why it was declined; empty: paid."""
    card, session = CARDS[number], _payable(tx, session_id)
    if card.authenticates and not authenticated:
        card = NOT_AUTHENTICATED
    if session["mode"] == "subscription":
        return _subscribe_by_card(tx, session, number, payer, card)
    intent = _intent(tx, session)
    method = payments.card_method(tx, number, payer)
    if card.decline:
        payments.decline(tx, intent, method, card)
        return card
    charge = payments.take(tx, intent, method, card)
    _complete(tx, session, payer, "paid")
    payments.capture(tx, charge)
    return card


def _subscribe_by_card(tx: Tx, session: Json, number: str, payer: Payer, card: Card) -> Card:
    if card.decline:
        # Nothing is made of a subscription whose first payment was declined on the page.
        return card
    invoice = renewals.begin(tx, session, payer, number)
    charge = invoices.pay_first(tx, invoice, card)
    _complete(tx, checkout.find(tx, session["id"]), payer, "paid")
    payments.capture(tx, charge)
    return card


def pay_by_debit(tx: Tx, session_id: str, payer: Payer) -> None:
    """Complete a session with a bank debit, whose money is yet to come."""
    session = _payable(tx, session_id)
    if session["mode"] == "subscription":
        invoices.pay_first_later(tx, renewals.begin(tx, session, payer, None))
    else:
        payments.take_later(tx, _intent(tx, session), payments.debit_method(tx, session["currency"], payer))
    _complete(tx, checkout.find(tx, session_id), payer, "unpaid")


def settle(tx: Tx, intent_id: str) -> Json:
    """A delayed payment's money arrives. Returns the PaymentIntent."""
    intent = payments.arrive(tx, intent_id)
    made_for = tx.hidden(intent_id)
    if "invoice" in made_for:
        invoices.paid(tx, made_for["invoice"])
    _tell_session(tx, made_for, "checkout.session.async_payment_succeeded", "paid")
    return intent


def fail(tx: Tx, intent_id: str) -> Json:
    """A delayed payment's money does not arrive. Returns the PaymentIntent."""
    intent = payments.fail_to_arrive(tx, intent_id)
    made_for = tx.hidden(intent_id)
    if "invoice" in made_for:
        invoices.failed(tx, made_for["invoice"])
    _tell_session(tx, made_for, "checkout.session.async_payment_failed", "unpaid")
    return intent


def settle_due(tx: Tx, intent_id: str) -> None:
    """A renewal's bank debit arrives by itself, unless somebody decided otherwise."""
    if payments.find(tx, intent_id)["status"] == "processing":
        settle(tx, intent_id)


def _tell_session(tx: Tx, made_for: Json, event: str, payment_status: str) -> None:
    session = tx.get("checkout.session", made_for.get("session", ""))
    if session is None:
        return
    session["payment_status"] = payment_status
    tx.save(session)
    emit(tx, event, session)


def _payable(tx: Tx, session_id: str) -> Json:
    session = checkout.find(tx, session_id)
    if session["status"] != "open":
        raise NotPayable(session["status"])
    return session


def _intent(tx: Tx, session: Json) -> Json:
    """The session's PaymentIntent: made at the first attempt, kept for the next."""
    if session["payment_intent"]:
        return payments.find(tx, session["payment_intent"])
    data = tx.hidden(session["id"]).get("payment_intent_data", {})
    intent = payments.begin(tx, session["amount_total"], session["currency"], data, session=session["id"])
    session["payment_intent"] = intent["id"]
    tx.save(session)
    return intent


def _complete(tx: Tx, session: Json, payer: Payer, payment_status: str) -> None:
    session |= {"status": "complete", "payment_status": payment_status, "url": None}
    session["customer_details"] = objects.customer_details(payer.email or session["customer_email"], payer.name)
    tx.save(session)
    emit(tx, "checkout.session.completed", session)

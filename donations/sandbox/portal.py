"""The billing portal: where a donor sees to their monthly gifts. https://docs.stripe.com/customer-management."""

from typing import Any

from . import billing_objects, params, payments, subscriptions
from .checkout import LOCALES
from .errors import ApiError, missing, missing_in
from .events import emit
from .store import Tx

Json = dict[str, Any]
LASTS = 60 * 60
ELSEWHERE = ("configuration", "customer_account", "flow_data", "on_behalf_of")
FIELDS = {"customer": params.text(), "locale": params.choice(*LOCALES), "return_url": params.url}


def create(tx: Tx, given: Json, *, origin: str) -> Json:
    """Open a session for a customer; whoever has its address may act for them, for an hour."""
    customer = given.get("customer", "")
    if tx.get("customer", customer) is None:
        raise missing_in("customer", customer, "customer")
    session = billing_objects.portal_session(
        customer, given.get("return_url"), given.get("locale"), now=tx.clock.seconds(), origin=origin
    )
    tx.add(session)
    emit(tx, "billing_portal.session.created", session)
    return session


def find(tx: Tx, session_id: str) -> Json:
    """A session that has not ended. Raises ApiError 404."""
    session = tx.get("billing_portal.session", session_id)
    if session is None or session["created"] + LASTS < tx.clock.now():
        raise missing("billing_portal.session", session_id)
    return session


def subscriptions_of(tx: Tx, session: Json) -> list[Json]:
    return tx.where("subscription", "customer", session["customer"])


def change_card(tx: Tx, subscription: Json, number: str) -> Json:
    """Have a subscription be paid by another test card from now on."""
    customer = subscriptions.find_customer(tx, subscription["customer"])
    payer = payments.Payer(customer["email"], customer["name"])
    method = payments.card_method(tx, number, payer, customer["id"])
    return subscriptions.update(tx, subscription["id"], {"default_payment_method": method["id"]})


def act(tx: Tx, session_id: str, subscription_id: str, action: str, number: str) -> Json:
    """What a donor may do on the page: cancel (at the end of the period), resume, or change the card."""
    session = find(tx, session_id)
    subscription = subscriptions.find(tx, subscription_id)
    if subscription["customer"] != session["customer"]:
        raise missing("subscription", subscription_id)
    if action == "card":
        return change_card(tx, subscription, number)
    if action not in ("cancel", "resume"):
        raise ApiError("action must be cancel, resume or card", param="action")
    return subscriptions.update(tx, subscription_id, {"cancel_at_period_end": action == "cancel"})

"""The life of a subscription: it begins with a checkout, and is renewed when its period ends."""

from typing import Any

from . import billing_objects, invoices, payments, subscriptions
from .errors import missing_in
from .events import emit
from .payments import Payer
from .store import Tx
from .web import origin_of

Json = dict[str, Any]


def begin(tx: Tx, session: Json, payer: Payer, number: str | None) -> Json:
    """Make what a checkout asked for, to be paid by a card, or by debit. Returns its first invoice, which is owed."""
    now = tx.clock.seconds()
    customer = _customer(tx, session, payer)
    if number:
        method = payments.card_method(tx, number, payer, customer["id"])
    else:
        method = payments.debit_method(tx, session["currency"], payer, customer["id"])
    hidden = tx.hidden(session["id"])
    lines, data = hidden["line_items"], hidden.get("subscription_data", {})
    subscription = billing_objects.subscription(
        customer["id"], method["id"], lines, data, now=now, currency=session["currency"]
    )
    names = [line["description"] for line in lines]
    invoice = billing_objects.invoice(
        subscription, customer, names, now=now, reason="subscription_create", period=(now, now)
    )
    subscription["latest_invoice"] = invoice["id"]
    tx.add(subscription, {"names": names, "origin": origin_of(session["url"] or ""), "periods": 1})
    emit(tx, "customer.subscription.created", subscription)
    emit(tx, "invoice.created", tx.add(invoice))
    session |= {"customer": customer["id"], "subscription": subscription["id"], "invoice": invoice["id"]}
    tx.save(session)
    tx.schedule(subscriptions.period_end(subscription), "renew", subscription["id"])
    return invoices.finalize(tx, invoice, session=session["id"])


def _customer(tx: Tx, session: Json, payer: Payer) -> Json:
    if session["customer"]:
        found = tx.get("customer", session["customer"])
        if found is None:
            raise missing_in("customer", session["customer"], "customer")
        return found
    email = payer.email or session["customer_email"]
    customer = tx.add(billing_objects.customer(email, payer.name, now=tx.clock.seconds()))
    emit(tx, "customer.created", customer)
    return customer


def renew_due(tx: Tx, subscription_id: str) -> None:
    """A period has ended: the subscription ends with it, or the next one begins with an invoice."""
    subscription = subscriptions.find(tx, subscription_id)
    start = subscriptions.period_end(subscription)
    if subscription["status"] in subscriptions.OVER or start > tx.clock.now():
        return
    if subscription["cancel_at_period_end"]:
        subscriptions.cancel(tx, subscription_id)
        return
    hidden, before = tx.hidden(subscription_id), _period(subscription)
    periods = hidden["periods"] + 1
    tx.hide(subscription_id, periods=periods)
    for item in subscription["items"]["data"]:
        item["current_period_start"] = start
        item["current_period_end"] = billing_objects.period_end(
            item["price"]["recurring"], subscription["billing_cycle_anchor"], periods
        )
    invoice = billing_objects.invoice(
        subscription,
        subscriptions.find_customer(tx, subscription["customer"]),
        hidden["names"],
        now=tx.clock.seconds(),
        reason="subscription_cycle",
        period=before,
    )
    invoice["automatically_finalizes_at"] = tx.clock.seconds() + invoices.DRAFT_FOR
    emit(tx, "invoice.created", tx.add(invoice))
    previous = {"items": {"data": [dict(zip(("current_period_start", "current_period_end"), before, strict=True))]}}
    subscriptions.change(tx, subscription, {"latest_invoice": invoice["id"]}, previous)
    tx.schedule(tx.clock.seconds() + invoices.DRAFT_FOR, "finalize_invoice", invoice["id"])
    tx.schedule(subscriptions.period_end(subscription), "renew", subscription_id)


def _period(subscription: Json) -> tuple[int, int]:
    item = subscription["items"]["data"][0]
    return item["current_period_start"], item["current_period_end"]

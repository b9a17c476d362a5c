"""Invoices of subscriptions, and their payment: https://docs.stripe.com/api/invoices.

A renewal's invoice is a draft for an hour, then it is finalized and paid. What fails is tried again, on the days that
the account says; after the last the subscription is canceled (https://docs.stripe.com/billing/revenue-recovery).
"""

from typing import Any

from . import account, billing_objects, params, payments, subscriptions
from .cards import DECLINED, Card
from .clock import DAY
from .errors import ApiError, declined, missing
from .events import emit
from .store import Tx

Json = dict[str, Any]
DRAFT_FOR = 60 * 60
DEBIT_TAKES = 3 * DAY
PAY_FIELDS = {"off_session": params.flag, "paid_out_of_band": params.flag, "payment_method": params.text()}
PAY_ELSEWHERE = ("forgive", "mandate", "source")
STATUSES = ("draft", "open", "paid", "uncollectible", "void")


def find(tx: Tx, invoice_id: str) -> Json:
    found = tx.get("invoice", invoice_id)
    if found is None:
        raise missing("invoice", invoice_id)
    return found


def subscription_of(tx: Tx, invoice: Json) -> Json:
    return subscriptions.find(tx, invoice["parent"]["subscription_details"]["subscription"])


def payment_of(tx: Tx, invoice: Json) -> Json:
    """What joins a finalized invoice to its PaymentIntent."""
    found = tx.where("invoice_payment", "invoice", invoice["id"])
    if not found:
        raise ApiError(f"The invoice {invoice['id']} has no payment: it is a draft.")
    return found[0]


def finalize(tx: Tx, invoice: Json, **made_for: str) -> Json:
    """Have a draft be owed: from now on it has a number and a payment. `made_for` is the payment's, beside it."""
    now = tx.clock.seconds()
    payer = subscriptions.find_customer(tx, invoice["customer"])
    origin = tx.hidden(subscription_of(tx, invoice)["id"]).get("origin", "")
    invoice |= {"status": "open", "number": f"{payer['invoice_prefix']}-{payer['next_invoice_sequence']:04d}"}
    invoice |= {"effective_at": now, "automatically_finalizes_at": None}
    invoice["hosted_invoice_url"] = f"{origin}/invoice/{invoice['id']}"
    invoice["status_transitions"]["finalized_at"] = now
    payer["next_invoice_sequence"] += 1
    tx.save(payer)
    first = invoice["billing_reason"] == "subscription_create"
    data = {"customer": payer["id"], "description": "Subscription creation" if first else "Subscription update"}
    tx.save(invoice)
    emit(tx, "invoice.finalized", invoice)
    amount, currency = invoice["amount_due"], invoice["currency"]
    intent = payments.begin(tx, amount, currency, data, invoice=invoice["id"], **made_for)
    tx.add(billing_objects.invoice_payment(invoice, intent["id"], now=now))
    return invoice


def pay_first(tx: Tx, invoice: Json, card: Card) -> Json:
    """Pay a subscription's first invoice by a card that pays, the donor being there. Returns the charge."""
    intent, method = _intent_and_method(tx, invoice)
    _attempted(tx, invoice)
    charge = payments.take(tx, intent, method, card)
    paid(tx, invoice["id"])
    return charge


def pay_first_later(tx: Tx, invoice: Json) -> None:
    """Pay a subscription's first invoice by a bank debit: it is active while the money is on its way."""
    intent, method = _intent_and_method(tx, invoice)
    _attempted(tx, invoice)
    payments.take_later(tx, intent, method)
    subscriptions.change(tx, subscription_of(tx, invoice), {"status": "active"})


def attempt(tx: Tx, invoice: Json, *, authenticated: bool = False) -> str:
    """Try to pay an open invoice with the subscription's payment method. Returns why not, if so."""
    intent, method = _intent_and_method(tx, invoice)
    card = payments.card_of(tx, method["id"])
    _attempted(tx, invoice)
    if method["type"] != "card":
        payments.take_later(tx, intent, method)
        tx.schedule(tx.clock.now() + DEBIT_TAKES, "settle_payment", intent["id"])
        return ""
    if card.decline or card.later == "declines":
        refusal = card if card.decline else DECLINED
        payments.decline(tx, intent, method, refusal)
        failed(tx, invoice["id"])
        return refusal.message
    if card.later == "authenticate" and not authenticated:
        payments.ask_to_authenticate(tx, intent, method, invoice["hosted_invoice_url"])
        failed(tx, invoice["id"], "invoice.payment_action_required")
        return "This payment requires additional user action before it can be completed successfully."
    charge = payments.take(tx, intent, method, card)
    paid(tx, invoice["id"])
    payments.capture(tx, charge)
    return ""


def _intent_and_method(tx: Tx, invoice: Json) -> tuple[Json, Json]:
    intent = payments.find(tx, payment_of(tx, invoice)["payment"]["payment_intent"])
    method_id = subscription_of(tx, invoice)["default_payment_method"]
    method = tx.get("payment_method", method_id)
    if method is None:
        raise missing("payment_method", method_id)
    return intent, method


def _attempted(tx: Tx, invoice: Json) -> None:
    invoice |= {"attempted": True, "attempt_count": invoice["attempt_count"] + 1, "next_payment_attempt": None}
    tx.save(invoice)


def paid(tx: Tx, invoice_id: str) -> None:
    """An invoice's payment succeeded: tell of it, and have its subscription be active."""
    invoice, now = find(tx, invoice_id), tx.clock.seconds()
    payment = payment_of(tx, invoice)
    payment |= {"status": "paid", "amount_paid": invoice["amount_due"]}
    payment["status_transitions"]["paid_at"] = now
    tx.save(payment)
    emit(tx, "invoice_payment.paid", payment)
    _close(tx, invoice, amount_paid=invoice["amount_due"])
    emit(tx, "invoice.payment_succeeded", invoice)
    subscription = subscription_of(tx, invoice)
    if subscription["status"] in ("incomplete", "past_due", "unpaid"):
        subscriptions.change(tx, subscription, {"status": "active"})


def _close(tx: Tx, invoice: Json, *, amount_paid: int) -> None:
    invoice |= {"status": "paid", "amount_paid": amount_paid, "amount_remaining": 0, "auto_advance": False}
    invoice |= {"next_payment_attempt": None}
    invoice["status_transitions"]["paid_at"] = tx.clock.seconds()
    tx.save(invoice)
    emit(tx, "invoice.paid", invoice)


def failed(tx: Tx, invoice_id: str, also: str = "") -> None:
    """An invoice's payment failed: tell of it, `also` by another event, and try again later; or give up."""
    invoice, subscription = find(tx, invoice_id), subscription_of(tx, find(tx, invoice_id))
    days = account.of(tx).retry_after(invoice["attempt_count"])
    if days is None:
        invoice["auto_advance"] = False
    else:
        invoice["next_payment_attempt"] = tx.clock.seconds() + days * DAY
        tx.schedule(invoice["next_payment_attempt"], "retry_invoice", invoice_id)
    tx.save(invoice)
    emit(tx, "invoice.payment_failed", invoice)
    if also:
        emit(tx, also, invoice)
    if subscription["status"] in subscriptions.OVER:
        return
    subscriptions.change(tx, subscription, {"status": "past_due"})
    if days is None:
        subscriptions.cancel(tx, subscription["id"], reason="payment_failed")


def finalize_due(tx: Tx, invoice_id: str) -> None:
    """A renewal's draft has been one for long enough: it is owed, and paid; or not, while collection is paused."""
    invoice = find(tx, invoice_id)
    subscription = subscription_of(tx, invoice)
    pause = subscription["pause_collection"]
    if invoice["status"] != "draft" or subscription["status"] in subscriptions.OVER:
        return
    if pause and pause["behavior"] == "keep_as_draft":
        return
    finalize(tx, invoice)
    if pause:
        _give_up(tx, invoice, pause["behavior"])
    else:
        attempt(tx, invoice)


def _give_up(tx: Tx, invoice: Json, behavior: str) -> None:
    """Void an invoice, or mark it as one that will not be paid."""
    status, moment = ("void", "voided_at") if behavior == "void" else ("uncollectible", "marked_uncollectible_at")
    invoice |= {"status": status, "auto_advance": False}
    invoice["status_transitions"][moment] = tx.clock.seconds()
    tx.save(invoice)
    _cancel_payment(tx, invoice)
    emit(tx, "invoice.voided" if behavior == "void" else "invoice.marked_uncollectible", invoice)


def _cancel_payment(tx: Tx, invoice: Json) -> None:
    payment = payment_of(tx, invoice)
    payments.cancel(tx, payments.find(tx, payment["payment"]["payment_intent"]))
    payment["status"] = "canceled"
    payment["status_transitions"]["canceled_at"] = tx.clock.seconds()
    tx.save(payment)


def retry_due(tx: Tx, invoice_id: str) -> None:
    """Try once more to pay an invoice, if it is still open and its time has come."""
    invoice = find(tx, invoice_id)
    due = invoice["next_payment_attempt"]
    over = subscription_of(tx, invoice)["status"] in subscriptions.OVER
    if invoice["status"] == "open" and not over and due and due <= tx.clock.now():
        attempt(tx, invoice)


def pay(tx: Tx, invoice_id: str, given: Json) -> Json | ApiError:
    """The API's `pay`: now, or as paid elsewhere. A refusal is returned, since the attempt has happened."""
    invoice = find(tx, invoice_id)
    if invoice["status"] == "paid":
        raise ApiError("Invoice is already paid", code="invoice_already_paid")
    if invoice["status"] == "draft":
        finalize(tx, invoice)
    if invoice["status"] not in ("open", "uncollectible"):
        raise ApiError(f"This invoice is {invoice['status']}: it can't be paid.")
    if given.get("paid_out_of_band"):
        _cancel_payment(tx, invoice)
        invoice["amount_paid_off_stripe"] = invoice["amount_due"]
        _close(tx, invoice, amount_paid=invoice["amount_due"])
        subscriptions.change(tx, subscription_of(tx, invoice), {"status": "active"})
        return invoice
    if "payment_method" in given:
        subscriptions.update(
            tx, subscription_of(tx, invoice)["id"], {"default_payment_method": given["payment_method"]}
        )
    message = attempt(tx, invoice)
    return declined(message) if message else find(tx, invoice_id)


def pay_by_card(tx: Tx, invoice_id: str, number: str, *, authenticated: bool = True) -> str:
    """Pay an invoice on its page, with whatever card. Returns why not, if so."""
    invoice = find(tx, invoice_id)
    if invoice["status"] != "open":
        raise ApiError(f"This invoice is {invoice['status']}: it can't be paid.")
    subscription = subscription_of(tx, invoice)
    payer = subscriptions.find_customer(tx, invoice["customer"])
    who = payments.Payer(payer["email"], payer["name"])
    method = payments.card_method(tx, number, who, payer["id"])
    subscriptions.change(tx, subscription, {"default_payment_method": method["id"]})
    return attempt(tx, invoice, authenticated=authenticated)

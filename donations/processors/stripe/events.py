"""What Stripe's events mean: a table from a type to the function that reads its object.

Types and fields are those of Stripe's documentation and OpenAPI description, API version 2026-10-28. Types that begin
with "sweep." are our own: objects that were asked for, in the same envelope.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from donations.processors.base import Contact, Interpretation, Malformed
from donations.processors.facts import (
    INVOICE_STATUSES,
    REFUND_STATUSES,
    ChargeSettled,
    CheckoutChanged,
    DisputeChanged,
    Fact,
    InvoicePaid,
    InvoiceSeen,
    MonthlyCheckout,
    Movement,
    Paid,
    PayoutChanged,
    RecurringChanged,
    RefundChanged,
    TransactionSeen,
)
from donations.processors.stripe import reading
from donations.processors.stripe.reading import Json

GIFT = re.compile(r"gift_[A-Za-z0-9]{1,64}", re.ASCII)
RECURRING = re.compile(r"recurring_[A-Za-z0-9]{1,60}", re.ASCII)
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,49}", re.ASCII)
MINOR_UNITS = re.compile(r"[0-9]{1,13}", re.ASCII)
REQUEST_KEY = re.compile(r"refund_[0-9a-f]{32}", re.ASCII)
WORD = re.compile(r"[a-z0-9_]{1,60}", re.ASCII)
PAGE = re.compile(r"https?://[!-;=?-~]{1,1000}", re.ASCII)

PAYOUT_STATUSES = {"pending", "in_transit", "paid", "failed", "canceled"}
ARRANGEMENT_STATUSES = {
    "incomplete",
    "trialing",
    "active",
    "past_due",
    "unpaid",
    "paused",
    "incomplete_expired",
    "canceled",
}
INTERVALS = {"day", "week", "month", "year"}
LONGEST_COUNT = 1200  # of intervals; Stripe itself stops at three years
MOST_PARTS = 100  # items or lines: Stripe's own limit is 20 items
Asked = tuple[tuple[int, ...], str, str]
NOT_ASKED: Asked = ((), "", "")


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a type that we read: its object, and what stands around it."""

    type: str
    subject: Json
    around: Json
    livemode: bool
    created: datetime

    def means(self, subject: str, payment: str = "", fact: Fact | None = None) -> Interpretation:
        """Without a fact it needs nothing."""
        return Interpretation(self.livemode, self.created, subject, payment, fact)

    def foreign(self, subject: str, payment: str = "") -> Interpretation:
        return Interpretation(self.livemode, self.created, subject, payment, foreign=True)


def interpret(event: Json) -> Interpretation:
    """What an event means. Raises Malformed where it lacks what its type promises."""
    event_type = str(event.get("type"))
    read = READERS.get(event_type)
    if read is None:
        return _needs_nothing(event)
    livemode, created = reading.boolean(event, "livemode"), reading.moment(event, "created")
    return read(Told(event_type, reading.subject_of(event), event["data"], livemode, created))


def _needs_nothing(event: Json) -> Interpretation:
    """Of a type that we book nothing of, so it may have any shape: thin events, say, have no object and an ISO time."""
    subject = reading.if_told(reading.subject_of, event) or {}
    livemode = reading.if_told(reading.boolean, event, "livemode")
    created = reading.if_told(reading.moment, event, "created")
    payment = _payment_of_another(subject)
    identity = reading.optional_id(subject.get("id"))
    return Interpretation(livemode, created, identity, payment, foreign=bool(payment))


def _payment_of_another(subject: Json) -> str:
    """The payment that this payment or charge shows to be certainly not ours; empty where it may be ours.

    Ours of one-time gifts carry their gift. Those of invoices carry nothing, but they always have a customer.
    """
    metadata = subject.get("metadata")
    has_customer = subject.get("customer", "?") is not None or bool(subject.get("customer_account"))
    if not isinstance(metadata, dict) or has_customer or "recurring_gift" in metadata:
        return ""
    if reading.metadata(subject, "gift", GIFT):
        return ""
    names = {"payment_intent": "id", "charge": "payment_intent"}
    return reading.optional_id(subject.get(names.get(str(subject.get("object")), "")))


# ---- checkouts


CHECKOUT_ENDS = {
    "checkout.session.expired": "expired",
    "checkout.session.async_payment_failed": "failed",
}


def _checkout(told: Told) -> Interpretation:
    session = told.subject
    if session.get("mode") == "subscription":
        return _monthly_checkout(told)
    checkout, payment = reading.identity(session), reading.optional_id(session.get("payment_intent"))
    if session.get("mode") != "payment":
        return told.means(checkout, payment)
    gift = reading.metadata(session, "gift", GIFT)
    if not gift:
        return told.foreign(checkout, payment)
    if told.type in CHECKOUT_ENDS:
        fact = CheckoutChanged(gift, CHECKOUT_ENDS[told.type], checkout, told.created)
        return told.means(checkout, payment, fact)
    if session.get("payment_status") == "unpaid":
        return told.means(checkout, payment, CheckoutChanged(gift, "awaiting", checkout, told.created))
    if session.get("payment_status") != "paid":
        raise Malformed("payment_status is neither paid nor unpaid")
    return replace(told.means(checkout, payment, _paid(told, gift)), contact=_contact(session))


def _paid(told: Told, gift: str) -> Paid:
    session = told.subject
    payment, amount = reading.optional_id(session.get("payment_intent")), reading.amount(session, "amount_total")
    if not payment or not amount:
        raise Malformed("a paid checkout without a payment or an amount")
    campaign = reading.metadata(session, "campaign", SLUG)
    return Paid(gift, campaign, payment, amount, reading.currency(session), told.created, _cover(session, amount))


def _cover(subject: Json, amount: int) -> int:
    """What of this amount the metadata says was asked for the fee; 0 where they say none, or none that can be."""
    cover = int(reading.metadata(subject, "fee_cover", MINOR_UNITS) or 0)
    return cover if cover < amount else 0


def _monthly_checkout(told: Told) -> Interpretation:
    """The money of a monthly gift comes with its invoices; the session tells how it began, and who gives."""
    session = told.subject
    checkout, recurring_gift = reading.identity(session), reading.metadata(session, "recurring_gift", RECURRING)
    if not recurring_gift:
        return told.foreign(checkout)
    fact = MonthlyCheckout(
        recurring_gift=recurring_gift,
        status=CHECKOUT_ENDS.get(told.type, "completed"),
        checkout=checkout,
        subscription=reading.optional_id(session.get("subscription")),
        occurred_at=told.created,
    )
    return replace(told.means(checkout, "", fact), contact=_contact(session))


def _contact(session: Json) -> Contact | None:
    details = session.get("customer_details")
    if not isinstance(details, dict) or not isinstance(details.get("email"), str):
        return None
    name = details.get("name")
    # One more than an address can have, so that a longer one is not taken for another.
    return Contact(reading.plain(details["email"], 255), reading.plain(name, 100) if isinstance(name, str) else "")


# ---- monthly gifts


def _arrangement(told: Told) -> Interpretation:
    subscription, recurring_gift = told.subject, reading.metadata(told.subject, "recurring_gift", RECURRING)
    identity = reading.identity(subscription)
    if not recurring_gift:
        return told.foreign(identity)
    status = subscription.get("status")
    if not isinstance(status, str) or status not in ARRANGEMENT_STATUSES:
        raise Malformed("the subscription's status is not known")
    amounts, currency, interval = _asked(subscription)
    fact = RecurringChanged(
        recurring_gift=recurring_gift,
        subscription=identity,
        # Stripe goes on calling an arrangement active whose invoices it holds back.
        status="paused" if subscription.get("pause_collection") and status == "active" else status,
        cancel_at=reading.optional_moment(subscription, "cancel_at"),
        ended_at=reading.optional_moment(subscription, "ended_at"),
        occurred_at=told.created,
        amounts=amounts,
        currency=currency,
        interval=interval,
        campaign=reading.metadata(subscription, "campaign", SLUG),
        fee_cover=_cover(subscription, sum(amounts)),
    )
    return told.means(identity, "", fact)


def _asked(subscription: Json) -> Asked:
    """What each item asks, in which currency, how often; nothing where all of it is not a fixed sum in one rhythm."""
    items = _whole_list(subscription, "items")
    if not items:
        return NOT_ASKED
    currency = reading.currency(subscription)
    asked = [_asked_by(item, currency) for item in items]
    amounts = tuple(amount for amount, _ in asked if amount is not None)
    intervals = {interval for _, interval in asked}
    if len(amounts) < len(asked) or len(intervals) > 1:
        return NOT_ASKED
    if sum(amounts) > reading.LARGEST_AMOUNT:
        raise Malformed("what the subscription asks is not in range")
    return amounts, currency, intervals.pop()


def _asked_by(item: Json, currency: str) -> tuple[int | None, str]:
    """What an item asks each period, and how long that is; None where its price is no fixed sum in this currency.

    A price of tiers, or of parts of a minor unit, has no `unit_amount`; one that is by use, no `quantity`. One that
    has other currencies as options tells the amount in its own.
    """
    price = _optional_object(item, "price")
    rhythm = _optional_object(price, "recurring")
    if not rhythm or price.get("unit_amount") is None or item.get("quantity") is None:
        return None, ""
    amount = reading.amount(price, "unit_amount") * reading.amount(item, "quantity")
    is_fixed = rhythm.get("usage_type") != "metered" and price.get("transform_quantity") is None
    return amount if is_fixed and reading.currency(price) == currency else None, _interval(rhythm)


def _interval(rhythm: Json) -> str:
    """How long a period is: "month", "3 months"."""
    interval, count = rhythm.get("interval"), reading.amount(rhythm, "interval_count")
    if not isinstance(interval, str) or interval not in INTERVALS or not 1 <= count <= LONGEST_COUNT:
        raise Malformed("the subscription's interval is not known")
    return interval if count == 1 else f"{count} {interval}s"


def _optional_object(holder: Json, name: str) -> Json:
    """An object in another; absent is one with nothing in it."""
    found = holder.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Malformed(f"{name} is not an object")
    return found


def _whole_list(holder: Json, name: str) -> list[Json]:
    """The objects of a list that has no further page, and is not beyond measure; else none."""
    listed = _optional_object(holder, name)
    found = reading.objects(listed, "data")
    return [] if listed.get("has_more") or len(found) > MOST_PARTS else found


INVOICE_TROUBLE = {"invoice.payment_failed": "failed", "invoice.payment_action_required": "action_required"}


def _invoice(told: Told) -> Interpretation:
    """An invoice books nothing: it tells which monthly gift its payments belong to."""
    invoice = reading.identity(told.subject)
    parent = told.subject.get("parent")
    found = parent.get("subscription_details") if isinstance(parent, dict) else None
    details: Json = found if isinstance(found, dict) else {}
    recurring_gift = reading.metadata(details, "recurring_gift", RECURRING)
    if not recurring_gift:
        return told.foreign(invoice)
    trouble, page = INVOICE_TROUBLE.get(told.type, ""), told.subject.get("hosted_invoice_url")
    due, status = _due(told.subject) if trouble else (0, ""), told.subject.get("status")
    is_draft = status == "draft"
    amounts = () if is_draft else reading.if_told(_lines, told.subject) or ()
    fact = InvoiceSeen(
        invoice=invoice,
        recurring_gift=recurring_gift,
        subscription=reading.identity(details, "subscription"),
        trouble=trouble,
        page=page if trouble and isinstance(page, str) and PAGE.fullmatch(page) else "",
        occurred_at=told.created,
        amount_due=due[0],
        currency=due[1],
        draft=is_draft,
        amounts=amounts,
        status=status if isinstance(status, str) and status in INVOICE_STATUSES else "",
        total=(reading.if_told(_total, told.subject) or 0) if amounts else 0,
    )
    return told.means(invoice, "", fact)


def _lines(invoice: Json) -> tuple[int, ...]:
    """What each line of an invoice asks, where there are several: of one alone its payment tells as much."""
    lines = _whole_list(invoice, "lines")
    return tuple(reading.signed(line, "amount") for line in lines) if len(lines) > 1 else ()


def _total(invoice: Json) -> int:
    """What an invoice comes to. Not its `amount_due`: a credit note changes that, and the order of news no division."""
    return reading.signed(invoice, "total") + reading.signed(invoice, "starting_balance")


def _due(invoice: Json) -> tuple[int, str]:
    """What an invoice asks for, and the currency; both or neither. It stands in a mail alone, so it may be missing."""
    amount = reading.if_told(reading.amount, invoice, "amount_due")
    currency = reading.if_told(reading.currency, invoice)
    return (amount, currency) if amount and currency else (0, "")


def _invoice_payment(told: Told) -> Interpretation:
    """Its subject is the invoice: that is what leads to the monthly gift."""
    invoice, holder = reading.identity(told.subject, "invoice"), told.subject.get("payment")
    payment = reading.optional_id(holder.get("payment_intent")) if isinstance(holder, dict) else ""
    if not payment:
        # Paid out of band, or by other means than a payment of the processor: no money of ours moved here.
        return told.means(invoice)
    amount = reading.amount(told.subject, "amount_paid")
    if not amount:
        return told.means(invoice, payment)
    fact = InvoicePaid(invoice, payment, amount, reading.currency(told.subject), told.created)
    return told.means(invoice, payment, fact)


# ---- refunds and disputes


def _refund(told: Told) -> Interpretation:
    refund = told.subject
    reference, payment = reading.identity(refund), reading.optional_id(refund.get("payment_intent"))
    status = refund.get("status")
    if not isinstance(status, str) or status not in REFUND_STATUSES:
        raise Malformed("the refund's status is not known")
    if not payment:
        # A refund of a bare charge: our payments always have a PaymentIntent.
        return told.foreign(reference)
    fact = RefundChanged(
        refund=reference,
        payment=payment,
        amount=reading.amount(refund),
        currency=reading.currency(refund),
        status=status,
        created=reading.moment(refund, "created"),
        occurred_at=told.created,
        request_key=reading.metadata(refund, "request", REQUEST_KEY),
        transaction=reading.optional_id(refund.get("balance_transaction")),
        failure_transaction=reading.optional_id(refund.get("failure_balance_transaction")),
    )
    return told.means(reference, payment, fact)


def _dispute(told: Told) -> Interpretation:
    dispute = told.subject
    reference, payment = reading.identity(dispute), reading.optional_id(dispute.get("payment_intent"))
    if not payment:
        return told.foreign(reference)
    reason = dispute.get("reason")
    fact = DisputeChanged(
        dispute=reference,
        payment=payment,
        status=reading.text(dispute, "status", WORD),
        reason=reason if isinstance(reason, str) and WORD.fullmatch(reason) else "",
        amount=reading.amount(dispute),
        currency=reading.currency(dispute),
        movements=tuple(_movement(movement) for movement in reading.objects(dispute, "balance_transactions")),
        occurred_at=told.created,
    )
    return told.means(reference, payment, fact)


def _movement(transaction: Json) -> Movement:
    return Movement(
        transaction=reading.identity(transaction),
        amount=reading.signed(transaction, "amount"),
        fee=reading.signed(transaction, "fee"),
        currency=reading.currency(transaction),
        created=reading.moment(transaction, "created"),
        exchange_rate=reading.rate(transaction),
    )


# ---- the processor's own books


def _charge(told: Told) -> Interpretation:
    """A charge repeats what its checkout or invoice tells; but it knows the balance transaction, and so the fee."""
    charge = reading.identity(told.subject)
    payment = reading.optional_id(told.subject.get("payment_intent"))
    transaction = reading.optional_id(told.subject.get("balance_transaction"))
    if _payment_of_another(told.subject):
        return told.foreign(charge, payment)
    if not payment or not transaction:
        return told.means(charge, payment)
    return told.means(charge, payment, ChargeSettled(charge, payment, transaction, told.created))


def _transaction(told: Told) -> Interpretation:
    """One that was asked for, with what moved expanded."""
    transaction, source = told.subject, told.subject.get("source")
    payment = reading.optional_id(source.get("payment_intent")) if isinstance(source, dict) else ""
    fact = TransactionSeen(
        transaction=reading.identity(transaction),
        type=reading.text(transaction, "type", WORD),
        source=reading.optional_id(source),
        payment=payment,
        amount=reading.signed(transaction, "amount"),
        fee=reading.signed(transaction, "fee"),
        net=reading.signed(transaction, "net"),
        currency=reading.currency(transaction),
        exchange_rate=reading.rate(transaction),
        created=reading.moment(transaction, "created"),
        available_on=reading.moment(transaction, "available_on"),
        payout=reading.optional_id(told.around.get("payout")),
    )
    if fact.net != fact.amount - fact.fee:
        raise Malformed("net is not the amount less the fee")
    return told.means(fact.transaction, payment, fact)


def _payout(told: Told) -> Interpretation:
    payout = told.subject
    status = payout.get("status")
    if not isinstance(status, str) or status not in PAYOUT_STATUSES:
        raise Malformed("the payout's status is not known")
    fact = PayoutChanged(
        payout=reading.identity(payout),
        status=status,
        amount=reading.signed(payout, "amount"),
        currency=reading.currency(payout),
        created=reading.moment(payout, "created"),
        arrival=reading.moment(payout, "arrival_date"),
        automatic=reading.boolean(payout, "automatic"),
        reconciled=payout.get("reconciliation_status") == "completed",
        occurred_at=told.created,
    )
    return told.means(fact.payout, "", fact)


READERS: dict[str, Callable[[Told], Interpretation]] = {
    "checkout.session.completed": _checkout,
    "checkout.session.async_payment_succeeded": _checkout,
    "checkout.session.async_payment_failed": _checkout,
    "checkout.session.expired": _checkout,
    "customer.subscription.created": _arrangement,
    "customer.subscription.updated": _arrangement,
    "customer.subscription.deleted": _arrangement,
    "customer.subscription.paused": _arrangement,
    "customer.subscription.resumed": _arrangement,
    "invoice.created": _invoice,
    "invoice.finalized": _invoice,
    "invoice.paid": _invoice,
    "invoice.payment_succeeded": _invoice,
    "invoice.payment_failed": _invoice,
    "invoice.payment_action_required": _invoice,
    "invoice.voided": _invoice,
    "invoice.marked_uncollectible": _invoice,
    "invoice_payment.paid": _invoice_payment,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.closed": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
    "charge.succeeded": _charge,
    "charge.updated": _charge,
    "payout.created": _payout,
    "payout.updated": _payout,
    "payout.paid": _payout,
    "payout.failed": _payout,
    "payout.canceled": _payout,
    "payout.reconciliation_completed": _payout,
    "sweep.balance_transaction": _transaction,
}

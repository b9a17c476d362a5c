"""What Stripe has, asked for by lists: events as they are, objects as the event that would have told of them.

An object that was asked for stands in the envelope of an event, under an id of ours:
`sweep:<type>:<object>:<status>`. Its `created` is when the money moved, as far as the object tells.
https://docs.stripe.com/api/pagination.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from donations.processors.base import Page, Sighting
from donations.processors.stripe.reading import Json, optional_id

Get = Callable[[str, Json], Json]
Told = tuple[str, str, str, int, Json]  # type, object, status, created, the object
LIMIT = 100

# What became of these may be told long after they were made: so much farther back they are looked at.
REACH = {
    "refunds": timedelta(days=30),
    "disputes": timedelta(days=120),
    "payouts": timedelta(days=14),
}


def sweep(get: Get, step: str, *, since: datetime, after: str, livemode: bool) -> Page:
    """One page of a step. Raises KeyError for a step that there is not."""
    path, more, read = LISTS[step]
    begin = int(since.timestamp() - REACH.get(step, timedelta(0)).total_seconds())
    return _page(get, path, {"created": {"gte": begin}} | more, read, after, livemode)


def look_up(get: Get, kind: str, object_id: str, *, after: str, livemode: bool) -> Page:
    """One object, as an event; a payment as its checkout or invoice; a payout as a page of its transactions."""
    if kind == "payout":
        parameters = {"payout": object_id, "expand": ["data.source"]}
        return _page(get, TRANSACTIONS, parameters, _transaction, after, livemode, payout=object_id)
    if kind == "payment":
        return _of_payment(get, object_id, livemode)
    path, expand, read = OBJECTS[kind]
    found = get(f"{path}/{object_id}", {"expand": expand} if expand else {})
    return Page(tuple(_sightings(read(found), livemode)), 1)


def refund_of(get: Get, payment: str, request: str) -> str:
    """The id of the payment's refund whose metadata name this request; empty where none of them does."""
    which: Json = {"payment_intent": payment, "limit": LIMIT}
    while True:
        answer = get(REFUNDS, which)
        refunds: list[Json] = answer["data"]
        for refund in refunds:
            if (refund.get("metadata") or {}).get("request") == request:
                return str(refund["id"])
        if not answer["has_more"]:
            return ""
        which["starting_after"] = refunds[-1]["id"]


def _of_payment(get: Get, payment: str, livemode: bool) -> Page:
    """The checkout that a payment was made on, or the invoice that it pays; a bank debit's money is days on its way."""
    path, more, read = LISTS["checkouts"]
    page = _page(get, path, more | {"payment_intent": payment}, read, "", livemode)
    if page.listed:
        return page
    path, more, read = LISTS["invoice_payments"]
    which = {"payment": {"type": "payment_intent", "payment_intent": payment}, "expand": more["expand"]}
    return _page(get, path, which, read, "", livemode)


def _page(
    get: Get, path: str, parameters: Json, read: "Read | None", after: str, livemode: bool, *, payout: str = ""
) -> Page:
    answer = get(path, parameters | {"limit": LIMIT} | ({"starting_after": after} if after else {}))
    objects: list[Json] = answer["data"]
    found: list[Sighting] = []
    for each in objects:
        found += _sightings(read(each), livemode, payout) if read else [_event(each)]
    cursor = str(objects[-1]["id"]) if objects and answer["has_more"] else ""
    return Page(tuple(found), len(objects), cursor)


def _event(event: Json) -> Sighting:
    return Sighting("events_api", str(event["id"]), str(event["type"]), json.dumps(event).encode())


def _sightings(told: Iterator[Told], livemode: bool, payout: str = "") -> Iterator[Sighting]:
    for kind, identity, status, created, subject in told:
        is_carried = payout and kind == "sweep.balance_transaction"
        around: Json = {"object": subject} | ({"payout": payout} if is_carried else {})
        event_id = f"sweep:{kind}:{identity}:{payout if is_carried else status}"
        event = {"id": event_id, "object": "event", "type": kind, "created": created, "livemode": livemode}
        yield Sighting("sweep", event_id, kind, json.dumps(event | {"data": around}).encode())


# ---- from an object to the events that would have told of it


def _checkout(session: Json) -> Iterator[Told]:
    """An open checkout has nothing to tell yet. The payment, expanded, tells when it was made."""
    intent = session.get("payment_intent")
    expanded: Json = intent if isinstance(intent, dict) else {}
    plain = session | {"payment_intent": optional_id(intent) or None}
    status, identity = session.get("status"), str(session["id"])
    if status == "expired":
        yield "checkout.session.expired", identity, "expired", int(session["expires_at"]), plain
    elif status == "complete" and session.get("mode") == "subscription":
        yield "checkout.session.completed", identity, "complete", int(session["created"]), plain
    elif status == "complete" and session.get("payment_status") == "unpaid":
        failed = expanded.get("status") in {"requires_payment_method", "canceled"}
        kind = "checkout.session.async_payment_failed" if failed else "checkout.session.completed"
        yield kind, identity, "failed" if failed else "unpaid", int(session["created"]), plain
    elif status == "complete":
        created = _paid_at(expanded) or int(session["created"])
        yield "checkout.session.completed", identity, str(session.get("payment_status")), created, plain


def _paid_at(intent: Json) -> int:
    """A card pays at once; other methods when their money is booked. 0: it does not tell."""
    charge = intent.get("latest_charge")
    if not isinstance(charge, dict):
        return 0
    details, transaction = charge.get("payment_method_details"), charge.get("balance_transaction")
    at_once = isinstance(details, dict) and details.get("type") == "card"
    return int(charge["created"] if at_once or not isinstance(transaction, dict) else transaction["created"])


def _invoice_payment(payment: Json) -> Iterator[Told]:
    """The invoice, expanded, goes first: it tells whose the payment is."""
    invoice = payment.get("invoice")
    if isinstance(invoice, dict):
        yield from _invoice(invoice)
    if payment.get("status") == "paid":
        paid_at = (payment.get("status_transitions") or {}).get("paid_at") or payment["created"]
        plain = payment | {"invoice": optional_id(invoice)}
        yield "invoice_payment.paid", str(payment["id"]), "paid", int(paid_at), plain


def _invoice(invoice: Json) -> Iterator[Told]:
    is_paid = invoice.get("status") == "paid"
    kind = "invoice.paid" if is_paid else "invoice.finalized"
    yield kind, str(invoice["id"]), str(invoice.get("status")), int(invoice["created"]), invoice


def _refund(refund: Json) -> Iterator[Told]:
    """One that came back tells when by the transaction of its return."""
    returned = refund.get("failure_balance_transaction")
    created = returned["created"] if isinstance(returned, dict) else refund["created"]
    plain = refund | {"failure_balance_transaction": optional_id(returned) or None}
    plain |= {name: optional_id(refund.get(name)) or None for name in ("balance_transaction", "payment_intent")}
    yield "refund.updated", str(refund["id"]), str(refund.get("status")), int(created), plain


def _dispute(dispute: Json) -> Iterator[Told]:
    moved = len(dispute.get("balance_transactions") or [])
    status = f"{dispute.get('status')}.{moved}"
    yield "charge.dispute.updated", str(dispute["id"]), status, int(dispute["created"]), dispute


def _payout(payout: Json) -> Iterator[Told]:
    status = f"{payout.get('status')}.{payout.get('reconciliation_status')}.{payout.get('arrival_date')}"
    yield "payout.updated", str(payout["id"]), status, int(payout["created"]), payout


def _subscription(subscription: Json) -> Iterator[Told]:
    """It is so now: a subscription does not tell since when."""
    now = int(datetime.now().astimezone().timestamp())
    status = f"{subscription.get('status')}.{now}"
    yield "customer.subscription.updated", str(subscription["id"]), status, now, subscription


def _transaction(transaction: Json) -> Iterator[Told]:
    """With what moved: a refund, dispute or payout of long ago that moves money again is told of by it alone."""
    source = transaction.get("source")
    moved: Json = source if isinstance(source, dict) else {}
    if moved.get("object") == "refund":
        yield from _refund_that_moved(moved, transaction)
    elif read := SOURCES.get(str(moved.get("object"))):
        yield from read(moved)
    names = ("id", "object", "payment_intent")
    plain = transaction | {"source": {name: moved.get(name) for name in names} if moved else source}
    yield "sweep.balance_transaction", str(transaction["id"]), "seen", int(transaction["created"]), plain


def _refund_that_moved(refund: Json, transaction: Json) -> Iterator[Told]:
    """When one came back is known by the movement that brought it back alone."""
    came_back = refund.get("status") in {"failed", "canceled"}
    brought_back = optional_id(refund.get("failure_balance_transaction")) == transaction["id"]
    if brought_back or not came_back:
        yield from _refund(refund | ({"failure_balance_transaction": transaction} if brought_back else {}))


Read = Callable[[Json], Iterator[Told]]
SOURCES: dict[str, Read] = {"dispute": _dispute, "payout": _payout}
TRANSACTIONS = "/v1/balance_transactions"
REFUNDS = "/v1/refunds"
# A step's path, its parameters beside the period's, and what reads an object of it; None: events are what they are.
LISTS: dict[str, tuple[str, Json, Read | None]] = {
    "events": ("/v1/events", {"delivery_success": False}, None),
    "checkouts": (
        "/v1/checkout/sessions",
        {"expand": ["data.payment_intent.latest_charge.balance_transaction"]},
        _checkout,
    ),
    "invoice_payments": ("/v1/invoice_payments", {"status": "paid", "expand": ["data.invoice"]}, _invoice_payment),
    "refunds": (REFUNDS, {"expand": ["data.failure_balance_transaction"]}, _refund),
    "disputes": ("/v1/disputes", {}, _dispute),
    "payouts": ("/v1/payouts", {}, _payout),
    "transactions": (TRANSACTIONS, {"expand": ["data.source"]}, _transaction),
}
OBJECTS: dict[str, tuple[str, list[str], Read]] = {
    "balance_transaction": (TRANSACTIONS, ["source"], _transaction),
    "invoice": ("/v1/invoices", [], _invoice),
    "refund": (REFUNDS, ["failure_balance_transaction"], _refund),
    "dispute": ("/v1/disputes", [], _dispute),
    "subscription": ("/v1/subscriptions", [], _subscription),
}

"""The endpoints under /v1/: what each takes, and what it does.

An endpoint is a row of ENDPOINTS. To add one: a row, its rule, and a function from a Call to an answer.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import (
    balance,
    checkout,
    disputes,
    events,
    invoices,
    lists,
    params,
    payments,
    payouts,
    portal,
    refunds,
    subscriptions,
)
from .errors import ApiError, missing
from .lists import Filter, field_in, field_is
from .store import Tx

Json = dict[str, Any]
Shown = Callable[[Tx, Json], Json]
EXPAND = {"expand": lists.FIELDS["expand"]}
MOST_TYPES = 20


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an endpoint: its checked parameters, the ids in its path, and who asks."""

    tx: Tx
    given: Json
    ids: tuple[str, ...]
    path: str
    origin: str


Run = Callable[[Call], Json | ApiError]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and path, the rule of its parameters, and what it does; a refusal may be returned, too."""

    method: str
    path: re.Pattern[str]
    rule: params.Rule
    run: Run


def _endpoint(method: str, path: str, fields: Mapping[str, params.Rule], run: Run, **more: Any) -> Endpoint:
    pattern = re.compile(re.sub(r"\{[a-z]+\}", r"([A-Za-z0-9_]+)", path), re.ASCII)
    return Endpoint(method, pattern, params.group({**fields, **EXPAND}, **more), run)


def _list(path: str, kind: str, filters: Mapping[str, params.Rule], *, elsewhere: str = "", shown: Shown) -> Endpoint:
    """A list with filters on lookups of the same names."""

    def run(call: Call) -> Json:
        used = [field_is(kind, name)(call.given[name]) for name in filters if name in call.given]
        return _shown(call.tx, lists.page(call.tx, kind, call.given, used, call.path), shown)

    return _endpoint("GET", path, {**lists.FIELDS, **filters}, run, elsewhere=elsewhere.split())


def _shown(tx: Tx, page: Json, shown: Shown) -> Json:
    return page | {"data": [shown(tx, item) for item in page["data"]]}


def _as_it_is(tx: Tx, item: Json) -> Json:
    return item


def _one(path: str, find: Callable[[Tx, str], Json], fields: Mapping[str, params.Rule] | None = None) -> Endpoint:
    return _endpoint("GET", path, fields or {}, lambda call: find(call.tx, call.ids[0]))


def _find_invoice_payment(tx: Tx, payment_id: str) -> Json:
    found = tx.get("invoice_payment", payment_id)
    if found is None:
        raise missing("invoice_payment", payment_id)
    return found


def _list_events(call: Call) -> Json:
    given, tx = call.given, call.tx
    if "type" in given and "types" in given:
        raise ApiError("You may only specify one of these parameters: type, types.")
    if len(given.get("types", [])) > MOST_TYPES:
        raise ApiError(f"You can list up to {MOST_TYPES} types.", param="types")
    used = []
    if "delivery_success" in given:
        used.append(field_in("event", "delivery_success", [str(given["delivery_success"]).lower()]))
    if "types" in given:
        used.append(field_in("event", "type", given["types"]))
    if "type" in given:
        used.append(field_in("event", "type", _matching(tx, given["type"])))
    page = lists.page(tx, "event", given, used, call.path, since=events.oldest(tx))
    return _shown(tx, page, events.shown)


def _matching(tx: Tx, pattern: str) -> list[str]:
    """A type; or those that there are of many, by a star at the end: `charge.*`."""
    if not pattern.endswith("*"):
        return [pattern]
    found, last = [], ""
    following = "SELECT min(value) FROM lookups WHERE kind = 'event' AND name = 'type' AND value > ?"
    while last := tx.db.execute(following, (last,)).fetchone()[0] or "":
        found.append(last)
    return [kind for kind in found if kind.startswith(pattern[:-1])]


def _list_movements(call: Call) -> Json:
    """Balance transactions. Those of a payout are known once it is reconciled."""
    given, tx = call.given, call.tx
    used: list[Filter] = []
    if "payout" in given:
        payout = tx.get("payout", given["payout"])
        if payout is None:
            raise missing("payout", given["payout"], "payout")
        ready = payout["reconciliation_status"] == "completed"
        used.append(balance.of_payout(payout["id"] if ready else "-"))
    used += [
        field_is("balance_transaction", name)(given[name]) for name in ("source", "type", "currency") if name in given
    ]
    return _shown(tx, lists.page(tx, "balance_transaction", given, used, call.path), balance.shown)


def _list_subscriptions(call: Call) -> Json:
    given = call.given
    used = [field_is("subscription", "customer")(given["customer"])] if "customer" in given else []
    used += subscriptions.with_status(given.get("status", ""))
    return lists.page(call.tx, "subscription", given, used, call.path)


def _list_invoice_payments(call: Call) -> Json:
    given = dict(call.given)
    given |= {"payment_intent": given["payment"]["payment_intent"]} if "payment" in given else {}
    names = ("payment_intent", "invoice", "status")
    used = [field_is("invoice_payment", name)(given[name]) for name in names if name in given]
    return lists.page(call.tx, "invoice_payment", given, used, call.path)


def _line_items(call: Call) -> Json:
    checkout.find(call.tx, call.ids[0])
    return lists.whole(checkout.line_items(call.tx, call.ids[0]), call.path)


_text = params.text()
_items_list = {name: lists.FIELDS[name] for name in ("limit", "starting_after", "ending_before")}
_payment = params.group(
    {"type": params.choice("payment_intent", "payment_record"), "payment_intent": _text},
    required=("type", "payment_intent"),
    elsewhere=("payment_record",),
)

ENDPOINTS = (
    # Checkout
    _endpoint(
        "POST",
        "/v1/checkout/sessions",
        checkout.FIELDS,
        lambda call: checkout.create(call.tx, call.given, origin=call.origin),
        elsewhere=checkout.ELSEWHERE,
    ),
    _list(
        "/v1/checkout/sessions",
        "checkout.session",
        {
            "customer": _text,
            "payment_intent": _text,
            "subscription": _text,
            "status": params.choice("complete", "expired", "open"),
        },
        elsewhere="customer_account customer_details payment_link",
        shown=_as_it_is,
    ),
    _one("/v1/checkout/sessions/{id}", checkout.find),
    _endpoint("GET", "/v1/checkout/sessions/{id}/line_items", _items_list, _line_items),
    _endpoint("POST", "/v1/checkout/sessions/{id}/expire", {}, lambda call: checkout.expire(call.tx, call.ids[0])),
    # Payments
    _list("/v1/payment_intents", "payment_intent", {"customer": _text}, elsewhere="customer_account", shown=_as_it_is),
    _one("/v1/payment_intents/{id}", payments.find, {"client_secret": _text}),
    _list(
        "/v1/charges",
        "charge",
        {"customer": _text, "payment_intent": _text},
        elsewhere="transfer_group",
        shown=_as_it_is,
    ),
    _one("/v1/charges/{id}", payments.find_charge),
    # Money back
    _endpoint(
        "POST",
        "/v1/refunds",
        refunds.FIELDS,
        lambda call: refunds.create(call.tx, call.given),
        elsewhere=refunds.ELSEWHERE,
    ),
    _list("/v1/refunds", "refund", {"charge": _text, "payment_intent": _text}, shown=_as_it_is),
    _one("/v1/refunds/{id}", refunds.find),
    _endpoint(
        "POST",
        "/v1/refunds/{id}",
        refunds.UPDATE_FIELDS,
        lambda call: refunds.update(call.tx, call.ids[0], call.given),
    ),
    _list("/v1/disputes", "dispute", {"charge": _text, "payment_intent": _text}, shown=disputes.shown),
    _one("/v1/disputes/{id}", disputes.find),
    _endpoint(
        "POST", "/v1/disputes/{id}", disputes.FIELDS, lambda call: disputes.update(call.tx, call.ids[0], call.given)
    ),
    _endpoint("POST", "/v1/disputes/{id}/close", {}, lambda call: disputes.close(call.tx, call.ids[0])),
    # The account's money
    _endpoint("GET", "/v1/balance", {}, lambda call: balance.held(call.tx)),
    _endpoint(
        "GET",
        "/v1/balance_transactions",
        {**lists.FIELDS, "currency": _text, "payout": _text, "source": _text, "type": _text},
        _list_movements,
    ),
    _one("/v1/balance_transactions/{id}", balance.find),
    _list(
        "/v1/payouts",
        "payout",
        {"status": params.choice(*payouts.STATUSES)},
        elsewhere="arrival_date destination",
        shown=_as_it_is,
    ),
    _one("/v1/payouts/{id}", payouts.find),
    # What is paid again and again
    _list("/v1/customers", "customer", {"email": _text}, elsewhere="test_clock", shown=_as_it_is),
    _one("/v1/customers/{id}", subscriptions.find_customer),
    _endpoint(
        "GET",
        "/v1/subscriptions",
        {**lists.FIELDS, "customer": _text, "status": params.choice(*subscriptions.STATUSES)},
        _list_subscriptions,
        elsewhere=(
            "automatic_tax collection_method current_period_end current_period_start customer_account price test_clock"
        ).split(),
    ),
    _one("/v1/subscriptions/{id}", subscriptions.find),
    _endpoint(
        "POST",
        "/v1/subscriptions/{id}",
        subscriptions.FIELDS,
        lambda call: subscriptions.update(call.tx, call.ids[0], call.given),
        elsewhere=subscriptions.ELSEWHERE,
    ),
    _endpoint(
        "DELETE",
        "/v1/subscriptions/{id}",
        subscriptions.CANCEL_FIELDS,
        lambda call: subscriptions.cancel(call.tx, call.ids[0], call.given),
    ),
    _list(
        "/v1/invoices",
        "invoice",
        {"customer": _text, "subscription": _text, "status": params.choice(*invoices.STATUSES)},
        elsewhere="collection_method customer_account due_date",
        shown=_as_it_is,
    ),
    _one("/v1/invoices/{id}", invoices.find),
    _endpoint(
        "POST",
        "/v1/invoices/{id}/pay",
        invoices.PAY_FIELDS,
        lambda call: invoices.pay(call.tx, call.ids[0], call.given),
        elsewhere=invoices.PAY_ELSEWHERE,
    ),
    _endpoint(
        "GET",
        "/v1/invoice_payments",
        {
            **lists.FIELDS,
            "invoice": _text,
            "payment": _payment,
            "status": params.choice("canceled", "open", "paid"),
        },
        _list_invoice_payments,
    ),
    _one("/v1/invoice_payments/{id}", _find_invoice_payment),
    _endpoint(
        "POST",
        "/v1/billing_portal/sessions",
        portal.FIELDS,
        lambda call: portal.create(call.tx, call.given, origin=call.origin),
        elsewhere=portal.ELSEWHERE,
    ),
    # What happened
    _endpoint(
        "GET",
        "/v1/events",
        {**lists.FIELDS, "type": _text, "types": params.listing(_text), "delivery_success": params.flag},
        _list_events,
    ),
    _one("/v1/events/{id}", events.find),
)

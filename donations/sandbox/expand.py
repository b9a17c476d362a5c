"""`expand[]=payment_intent.latest_charge`: ids replaced by their objects. https://docs.stripe.com/api/expanding_objects."""

from collections.abc import Callable
from typing import Any

from . import balance, checkout, lists
from .errors import ApiError
from .store import Tx

Json = dict[str, Any]
FIELDS = {
    "charge": {
        "balance_transaction": "balance_transaction",
        "customer": "customer",
        "payment_intent": "payment_intent",
    },
    "checkout.session": {
        "customer": "customer",
        "invoice": "invoice",
        "payment_intent": "payment_intent",
        "subscription": "subscription",
    },
    "dispute": {"charge": "charge", "payment_intent": "payment_intent"},
    "invoice": {"customer": "customer"},
    "invoice_payment": {"invoice": "invoice"},
    "payment_intent": {"customer": "customer", "latest_charge": "charge", "payment_method": "payment_method"},
    "payout": {"balance_transaction": "balance_transaction", "failure_balance_transaction": "balance_transaction"},
    "refund": {
        "balance_transaction": "balance_transaction",
        "charge": "charge",
        "failure_balance_transaction": "balance_transaction",
        "payment_intent": "payment_intent",
    },
    "subscription": {
        "customer": "customer",
        "default_payment_method": "payment_method",
        "latest_invoice": "invoice",
    },
    # A part of an object, by the object's kind and the part's name.
    "invoice_payment.payment": {"payment_intent": "payment_intent"},
    "invoice.parent": {},
    "invoice.parent.subscription_details": {"subscription": "subscription"},
}
SOURCES = {"ch_": "charge", "re_": "refund", "du_": "dispute", "po_": "payout"}
DEEPEST = 4


def expand(tx: Tx, answer: Json, paths: list[str]) -> Json:
    """The answer with these paths expanded. Raises ApiError for what can't be."""
    for path in paths:
        parts = path.split(".")
        is_list = answer["object"] == "list"
        if len(parts) - is_list > DEEPEST:
            raise ApiError(f"You cannot expand more than {DEEPEST} levels of a property.", param="expand")
        if is_list and parts[0] != "data":
            raise _impossible(path)
        for item in answer["data"] if is_list else [answer]:
            _expand(tx, item, str(item["object"]), parts[1:] if is_list else parts, path)
    return answer


def _expand(tx: Tx, holder: Json, kind: str, parts: list[str], path: str) -> None:
    if not parts:
        return
    name = parts[0]
    if (kind, name) in LISTS:
        holder[name] = LISTS[kind, name](tx, holder)
        for item in holder[name]["data"] if parts[1:2] == ["data"] else []:
            _expand(tx, item, str(item["object"]), parts[2:], path)
        return
    target = _target(holder, kind, name, path)
    if target and isinstance(holder.get(name), str):
        holder[name] = _object(tx, target, holder[name])
    if isinstance(holder.get(name), dict):
        _expand(tx, holder[name], target or f"{kind}.{name}", parts[1:], path)


def _target(holder: Json, kind: str, name: str, path: str) -> str:
    """The kind of object that a field leads to; empty for a part of the holder itself."""
    if (kind, name) == ("balance_transaction", "source"):
        return SOURCES.get(str(holder["source"])[:3], "")
    if f"{kind}.{name}" in FIELDS:
        return ""
    if name not in FIELDS.get(kind, {}):
        raise _impossible(path)
    return FIELDS[kind][name]


def _object(tx: Tx, kind: str, object_id: str) -> Any:
    if kind == "balance_transaction":
        return balance.find(tx, object_id)
    return tx.get(kind, object_id) or object_id


def _line_items(tx: Tx, session: Json) -> Json:
    return lists.whole(checkout.line_items(tx, session["id"]), f"/v1/checkout/sessions/{session['id']}/line_items")


def _refunds(tx: Tx, charge: Json) -> Json:
    return lists.whole(tx.where("refund", "charge", charge["id"]), f"/v1/charges/{charge['id']}/refunds")


def _payments(tx: Tx, invoice: Json) -> Json:
    url = f"/v1/invoice_payments?invoice={invoice['id']}"
    return lists.whole(tx.where("invoice_payment", "invoice", invoice["id"]), url)


LISTS: dict[tuple[str, str], Callable[[Tx, Json], Json]] = {
    ("charge", "refunds"): _refunds,
    ("checkout.session", "line_items"): _line_items,
    ("invoice", "payments"): _payments,
}


def _impossible(path: str) -> ApiError:
    return ApiError(f"This property cannot be expanded ({path}).", param="expand")

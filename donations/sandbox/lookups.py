"""What lists are filtered by: for each kind, the fields whose values are kept in an index beside the objects."""

from typing import Any

Json = dict[str, Any]
Path = tuple[str, ...]


def _fields(names: str) -> dict[str, Path]:
    return {name: (name,) for name in names.split()}


LOOKUPS: dict[str, dict[str, Path]] = {
    "balance_transaction": _fields("source type currency"),
    "charge": _fields("payment_intent customer"),
    "checkout.session": _fields("payment_intent status subscription customer"),
    "customer": _fields("email"),
    "dispute": _fields("charge payment_intent"),
    "event": _fields("type"),
    "invoice": _fields("customer status") | {"subscription": ("parent", "subscription_details", "subscription")},
    "invoice_payment": _fields("invoice status") | {"payment_intent": ("payment", "payment_intent")},
    "payment_intent": _fields("customer status"),
    "payout": _fields("status"),
    "refund": _fields("charge payment_intent status"),
    "subscription": _fields("customer status"),
}


def of(body: Json) -> dict[str, str]:
    """An object's values, by the names of its lookups; what it has none of is left out."""
    found = {name: _value(body, path) for name, path in LOOKUPS.get(body["object"], {}).items()}
    return {name: value for name, value in found.items() if value}


def _value(body: Any, path: Path) -> str | None:
    for name in path:
        body = body.get(name) if isinstance(body, dict) else None
    return body if isinstance(body, str) else None

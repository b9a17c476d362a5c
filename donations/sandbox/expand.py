"""`expand[]=payment_intent.latest_charge`: ids replaced by their objects. https://docs.stripe.com/api/expanding_objects."""

from typing import Any

from . import checkout, lists
from .errors import ApiError
from .store import Tx

Json = dict[str, Any]
FIELDS = {
    ("checkout.session", "payment_intent"): "payment_intent",
    ("payment_intent", "latest_charge"): "charge",
    ("payment_intent", "payment_method"): "payment_method",
    ("charge", "payment_intent"): "payment_intent",
    ("refund", "charge"): "charge",
    ("refund", "payment_intent"): "payment_intent",
}
DEEPEST = 4


def expand(tx: Tx, answer: Json, paths: list[str]) -> Json:
    """The answer with these paths expanded. Raises ApiError for what can't be."""
    for path in paths:
        parts = path.split(".")
        if len(parts) > DEEPEST:
            raise ApiError(f"You cannot expand more than {DEEPEST} levels of a property.", param="expand")
        if answer["object"] == "list":
            if parts[0] != "data":
                raise _impossible(path)
            for item in answer["data"]:
                _expand(tx, item, parts[1:], path)
        else:
            _expand(tx, answer, parts, path)
    return answer


def _expand(tx: Tx, holder: Json, parts: list[str], path: str) -> None:
    if not parts:
        return
    name = parts[0]
    if (holder["object"], name) == ("checkout.session", "line_items"):
        url = f"/v1/checkout/sessions/{holder['id']}/line_items"
        holder[name] = lists.whole(checkout.line_items(tx, holder["id"]), url)
        return
    if (holder["object"], name) == ("charge", "refunds"):
        found = [item for item in tx.of_payment("refund", holder["payment_intent"]) if item["charge"] == holder["id"]]
        holder[name] = lists.whole(found, f"/v1/charges/{holder['id']}/refunds")
        return
    if (holder["object"], name) not in FIELDS:
        raise _impossible(path)
    if isinstance(holder[name], str):
        holder[name] = tx.get(FIELDS[holder["object"], name], holder[name]) or holder[name]
    if isinstance(holder[name], dict):
        _expand(tx, holder[name], parts[1:], path)


def _impossible(path: str) -> ApiError:
    return ApiError(f"This property cannot be expanded ({path}).", param="expand")

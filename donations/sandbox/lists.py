"""Lists in pages, the newest first, and the filters on them: https://docs.stripe.com/api/pagination."""

import json
from collections.abc import Callable
from typing import Any

from . import params
from .errors import ApiError, missing_in
from .store import Tx

Json = dict[str, Any]
Filter = tuple[str, tuple[Any, ...]]
COMPARISONS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
FIELDS = {
    "created": params.moment_or_range,
    "ending_before": params.text(),
    "expand": params.listing(params.text()),
    "limit": params.whole(1),
    "starting_after": params.text(),
}


def field_is(name: str) -> Callable[[Any], Filter]:
    """A filter on a field of the object; `name` is ours, never a caller's text."""
    return lambda value: (f"json_extract(body, '$.{name}') = ?", (value,))


def created(bounds: dict[str, int]) -> Filter:
    """`created[gte]=…` and its like, joined by and."""
    parts = [f"created {COMPARISONS[name]} ?" for name in bounds]
    return " AND ".join(parts) or "1", tuple(bounds.values())


def page(tx: Tx, kind: str, given: Json, filters: list[Filter], url: str) -> Json:
    """One page of a kind's objects. `given` are checked parameters."""
    limit = given.get("limit", 10)
    if limit > 100:
        raise ApiError("This value must be less than or equal to 100 (it currently is more).", param="limit")
    if "created" in given:
        filters = [*filters, created(given["created"])]
    backwards = "ending_before" in given
    for name, sign in (("starting_after", "<"), ("ending_before", ">")):
        if name in given:
            filters = [*filters, (f"seq {sign} ?", (_place(tx, kind, given[name], name),))]
    found = _select(tx, kind, filters, limit + 1, oldest_first=backwards)
    data = found[:limit][::-1] if backwards else found[:limit]
    return {"object": "list", "data": data, "has_more": len(found) > limit, "url": url}


def whole(items: list[Json], url: str) -> Json:
    """A short list in one page."""
    return {"object": "list", "data": items, "has_more": False, "url": url}


def _place(tx: Tx, kind: str, object_id: str, param: str) -> int:
    row = tx.db.execute("SELECT seq FROM objects WHERE id = ? AND kind = ?", (object_id, kind)).fetchone()
    if row is None:
        raise missing_in(kind, object_id, param)
    return int(row[0])


def _select(tx: Tx, kind: str, filters: list[Filter], limit: int, *, oldest_first: bool) -> list[Json]:
    where = " AND ".join(f"({condition})" for condition, _ in filters) or "1"
    values = [value for _, some in filters for value in some]
    order = "ASC" if oldest_first else "DESC"
    rows = tx.db.execute(
        f"SELECT body FROM objects WHERE kind = ? AND {where} ORDER BY seq {order} LIMIT ?",  # noqa: S608
        (kind, *values, limit),
    )
    return [json.loads(row[0]) for row in rows]

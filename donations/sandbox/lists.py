"""Lists in pages, the newest first, and the filters on them: https://docs.stripe.com/api/pagination.

Every filter reads an index in the order of the page, so that a page of a long list costs as little as one of a short.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import params
from .errors import ApiError, missing_in
from .store import Tx

Json = dict[str, Any]
Values = tuple[Any, ...]
COMPARISONS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
FIELDS = {
    "created": params.moment_or_range,
    "ending_before": params.text(),
    "expand": params.listing(params.text()),
    "limit": params.whole(1),
    "starting_after": params.text(),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Objects that are in any of these `places`: a table with `created` and `seq`, our own condition, its values."""

    places: tuple[tuple[tuple[str, str], Values], ...]


def field_in(kind: str, name: str, values: Sequence[str]) -> Filter:
    """Objects of a kind whose lookup has one of these values."""
    where = "lookups", "kind = ? AND name = ? AND value = ?"
    return Filter(tuple((where, (kind, name, value)) for value in values))


def field_is(kind: str, name: str) -> Callable[[Any], Filter]:
    """A filter on a lookup of a kind."""
    return lambda value: field_in(kind, name, [str(value)])


def bounds(given: dict[str, int]) -> tuple[str, Values]:
    """`created[gte]=…` and its like, joined by and."""
    return "".join(f" AND created {COMPARISONS[name]} ?" for name in given), tuple(given.values())


def page(tx: Tx, kind: str, given: Json, filters: list[Filter], url: str, *, since: int | None = None) -> Json:
    """One page of a kind's objects, not older than `since`. `given` are checked parameters."""
    limit = given.get("limit", 10)
    if limit > 100:
        raise ApiError("This value must be less than or equal to 100 (it currently is more).", param="limit")
    condition, values = bounds(given.get("created", {}))
    if since is not None:
        condition, values = f"{condition} AND created >= ?", (*values, since)
    backwards = "ending_before" in given
    for name, sign in (("starting_after", "<"), ("ending_before", ">")):
        if name in given:
            condition += f" AND (created, seq) {sign} (?, ?)"
            values += _place(tx, kind, given[name], name)
    found = _select(tx, kind, filters, (condition, values), limit + 1, oldest_first=backwards)
    data = found[:limit][::-1] if backwards else found[:limit]
    return {"object": "list", "data": data, "has_more": len(found) > limit, "url": url}


def whole(items: list[Json], url: str) -> Json:
    """A short list in one page."""
    return {"object": "list", "data": items, "has_more": False, "url": url}


def _place(tx: Tx, kind: str, object_id: str, param: str) -> Values:
    row = tx.db.execute("SELECT created, seq FROM objects WHERE id = ? AND kind = ?", (object_id, kind)).fetchone()
    if row is None:
        raise missing_in(kind, object_id, param)
    return tuple(row)


def _select(
    tx: Tx, kind: str, filters: list[Filter], condition: tuple[str, Values], limit: int, *, oldest_first: bool
) -> list[Json]:
    """Walk the first filter's indexes in order, each for a page at most, and keep what the others have too."""
    direction = "ASC" if oldest_first else "DESC"
    order = f"ORDER BY created {direction}, seq {direction} LIMIT {limit:d}"
    filters = _rarest_first(tx, filters)
    walked = filters[0].places if filters else ((("objects", "kind = ?"), (kind,)),)
    others, other_values = _also(filters[1:])
    parts, values = [], []
    for (table, where), some in walked:
        # Our own SQL throughout: what callers sent is in the values.
        rows = f"SELECT created, seq FROM {table} walked WHERE {where}{condition[0]}{others} {order}"  # noqa: S608
        parts.append(f"SELECT * FROM ({rows})")  # noqa: S608
        values += [*some, *condition[1], *other_values]
    if not parts:
        return []
    found = tx.db.execute(f"SELECT created, seq FROM ({' UNION ALL '.join(parts)}) {order}", values)  # noqa: S608
    body = "SELECT body FROM objects WHERE seq = ?"
    return [json.loads(tx.db.execute(body, (seq,)).fetchone()[0]) for _, seq in found.fetchall()]


def _rarest_first(tx: Tx, filters: list[Filter]) -> list[Filter]:
    """The filter that fewest objects pass goes first, as far as a short count can tell."""
    if len(filters) < 2:
        return filters

    def passing(one: Filter) -> int:
        counts = [
            tx.db.execute(f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {where} LIMIT 1000)", some).fetchone()[0]  # noqa: S608
            for (table, where), some in one.places
        ]
        return sum(counts)

    return sorted(filters, key=passing)


def _also(filters: list[Filter]) -> tuple[str, list[Any]]:
    """The condition that what is walked is in a place of each of these filters."""
    conditions, values = "", []
    for one in filters:
        same = "also.created = walked.created AND also.seq = walked.seq"
        inside = [
            f"EXISTS (SELECT 1 FROM {table} also WHERE {where} AND {same})"  # noqa: S608
            for (table, where), _ in one.places
        ]
        conditions += f" AND ({' OR '.join(inside) or '0'})"
        values += [value for _, some in one.places for value in some]
    return conditions, values

"""What the checks find, and what they read it from: one snapshot, a page at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from django.db import connection, transaction
from django.db.models import Model, QuerySet

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as the books promise. `key` names the row, never a person."""

    invariant: str
    key: str
    words: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.words} ({self.invariant}). {self.remedy}"


Tally = Counter[str]
"""How many rows were looked at, by what they are."""


@contextmanager
def one_snapshot() -> Iterator[None]:
    """Read everything as it was at one moment, whatever is booked meanwhile; nobody is made to wait for it.

    Inside a transaction of the caller's it is that one.
    """
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield
    else:
        # Django would begin an IMMEDIATE one, for which every writer waits. A plain one only reads.
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")


def pages(rows: QuerySet[Row], size: int) -> Iterator[list[Row]]:
    """All rows in the order of their key, `size` at a time; each page begins where the one before it ended."""
    ordered = rows.order_by("pk")
    page = list(ordered[:size])
    while page:
        yield page
        page = list(ordered.filter(pk__gt=page[-1].pk)[:size]) if len(page) == size else []

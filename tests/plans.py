"""How the database finds what a query asks for: by which index, or through the whole table."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

ALL_OF_A_TABLE = r"SCAN (?!.*\bjson_each\b)|Seq Scan"
ALL_OF_A_PROCESSOR = r"INDEX \w+ \(processor=\?\)$"
THROUGH_ALL = re.compile(f"{ALL_OF_A_TABLE}|{ALL_OF_A_PROCESSOR}", re.MULTILINE)


@contextmanager
def explained(*tables: str) -> Iterator[list[tuple[str, str]]]:
    """The queries that read these tables, each with its plan. PostgreSQL is made to take an index where there is one.

    Its tables are too small in a test to be worth one otherwise.
    """
    found: list[tuple[str, str]] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("SELECT") and any(table in sql for table in tables):
            with connection.cursor() as cursor:  # its own: that of a large result is the server's
                cursor.execute(f"EXPLAIN {'QUERY PLAN ' * (connection.vendor == 'sqlite')}{sql}", params)
                found.append((sql, "\n".join(str(row[-1]) for row in cursor.fetchall())))
        return execute(sql, params, many, context)

    if connection.vendor == "postgresql":
        connection.cursor().execute("SET LOCAL enable_seqscan = off")
    with connection.execute_wrapper(explain):
        yield found


def through_all(found: list[tuple[str, str]]) -> list[str]:
    """Those that go through a whole table, or through all that one processor has in it."""
    return [f"{plan}\n{sql}" for sql, plan in found if THROUGH_ALL.search(plan)]

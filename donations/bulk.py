"""Many rows in one statement: arrays on PostgreSQL, a list of values on SQLite.

On PostgreSQL the statement is the same however many rows it carries, so that it is planned once a connection, and the
values travel in binary: a row of eighteen columns costs 7 µs, where a list of values costs 67. What is read here is
what every batch reads: the ORM takes ten times longer to write a short statement than a database to answer it.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.models import Model
from django.db.models.expressions import Col

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from psycopg import Cursor

CHUNK = 1000  # rows a statement
Rows = Sequence[Sequence[Any]]
Converter = Callable[[Any], Any]
AnyModel = TypeVar("AnyModel", bound=Model)


def select(
    model: type[AnyModel], rest: str, parameters: Sequence[Any], *, columns: tuple[str, ...] = (), source: str = ""
) -> list[AnyModel]:
    """Rows as objects, as the ORM would make them: these columns, or all. `rest` begins with WHERE.

    `source` is what is read instead of the model's table, and has these columns of it.
    """
    selected, names, converters = _reading(model, columns, connection.vendor)
    statement = f"SELECT {selected} FROM {source or model._meta.db_table} {rest}"  # noqa: S608 (names of our own)
    rows = [list(row) for row in run(statement, parameters)]
    for position, convert in converters:
        for row in rows:
            row[position] = convert(row[position])
    return [model.from_db(connection.alias, names, row) for row in rows]


def among(column: str) -> str:
    """The condition that a column is one of many: a parameter made by `listed`. One text, however many there are."""
    if connection.vendor == "postgresql":
        return f"{column} = ANY(%s)"
    return f"{column} IN (SELECT value FROM json_each(%s))"  # noqa: S608 (the name of a column of our own)


def listed(values: Iterable[Any]) -> list[Any] | str:
    """The parameter of `among`."""
    return list(values) if connection.vendor == "postgresql" else json.dumps(list(values))


def locked(*, skip: bool = False) -> str:
    """What locks the rows that are read until the transaction ends; `skip` passes over those that another has."""
    if connection.vendor != "postgresql":  # SQLite lets one write at a time
        return ""
    return f"FOR NO KEY UPDATE{' SKIP LOCKED' if skip else ''}"


def hold(names: Iterable[str]) -> None:
    """Hold these names until the transaction ends. Whoever else wants one of them waits, before it locks any row."""
    if connection.vendor == "postgresql":  # SQLite lets one write at a time
        run("SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest(%s) AS name", [sorted(names)])


@lru_cache
def _reading(
    model: type[Model], columns: tuple[str, ...], vendor: str
) -> tuple[str, list[str], list[tuple[int, Converter]]]:
    """The columns as SQL, what their fields are called, and by position what makes a database's values Python's."""
    fields = [field for field in model._meta.concrete_fields if not columns or field.column in columns]
    columns_read = [Col(model._meta.db_table, field) for field in fields]
    converters: list[tuple[int, Converter]] = [
        (position, partial(_convert, converter, column))
        for position, column in enumerate(columns_read)
        for converter in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection))
    ]
    return ", ".join(str(field.column) for field in fields), [field.attname for field in fields], converters


def _convert(converter: Callable[..., Any], column: Col, value: Any) -> Any:
    return converter(value, column, connection)


def insert(model: type[Model], columns: tuple[str, ...], rows: Rows, *, then: str) -> list[tuple[Any, ...]]:
    """Insert rows, values in the columns' order. `then` is the ON CONFLICT clause; its RETURNING is what is returned.

    Every column that has no default in the database must be named: Django's defaults are not applied.
    """
    table, names = model._meta.db_table, ", ".join(columns)
    answered: list[tuple[Any, ...]] = []
    for chunk in _chunks(rows, _most_rows(len(columns))):
        if connection.vendor == "postgresql":
            source = f"SELECT {_cast(model, columns)} FROM {_arrays(model, columns)}"  # noqa: S608 (names of our own tables)
            answered += run(f"INSERT INTO {table} ({names}) {source} {then}", _turned(chunk))
        else:
            places = f"({', '.join(['%s'] * len(columns))})"
            source = f"VALUES {', '.join([places] * len(chunk))}"
            answered += run(f"INSERT INTO {table} ({names}) {source} {then}", [value for row in chunk for value in row])
    return answered


def update(model: type[Model], columns: tuple[str, ...], rows: Rows) -> None:
    """Write rows, values in the columns' order; the first column is the key that finds the row."""
    if not rows:
        return
    table, key, others = model._meta.db_table, columns[0], columns[1:]
    if connection.vendor == "postgresql":
        written = ", ".join(f"{name} = new.{name}" for name in others)
        source = f"(SELECT {_cast(model, columns)} FROM {_arrays(model, columns)}) AS new"  # noqa: S608
        for chunk in _chunks(rows, CHUNK):
            run(f"UPDATE {table} SET {written} FROM {source} WHERE {table}.{key} = new.{key}", _turned(chunk))  # noqa: S608
        return
    written = ", ".join(f"{name} = %s" for name in others)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {table} SET {written} WHERE {key} = %s",  # noqa: S608 (names of our own tables)
            [[*row[1:], row[0]] for row in map(_adapted, rows)],
        )


def run(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run one statement, `%s` being a value's place, and return its rows. On PostgreSQL statement and values go apart.

    Django's own cursor writes the values into the statement's text, to be read again by the server.
    """
    database = connections[DEFAULT_DB_ALIAS]  # once: `connection` looks this thread's up for each of its attributes
    if database.vendor != "postgresql":
        with database.cursor() as cursor:
            cursor.execute(sql, _adapted(parameters))
            return list(cursor.fetchall()) if cursor.description else []
    from psycopg import Cursor  # on SQLite nobody waits for it

    if database.connection is None:  # asked here, as it looks for an event loop each time that it is called
        database.ensure_connection()
    database.validate_no_broken_transaction()
    if database.queries_logged:
        # What Django tells of its queries is to be complete; how long this one takes is not measured.
        database.queries_log.append({"sql": sql, "time": "0.000"})
    # The statement is prepared once a connection (see prepare_threshold in the settings).
    with database.wrap_database_errors, Cursor(database.connection) as cursor:
        _execute(database, cursor, sql, parameters)
        return cursor.fetchall() if cursor.description else []


def _execute(
    database: "BaseDatabaseWrapper", cursor: "Cursor[tuple[Any, ...]]", sql: str, parameters: Sequence[Any]
) -> None:
    """Through whatever was hung around Django's queries, as Django's own cursor does."""

    def execute(sql: str, parameters: Sequence[Any], many: bool, context: dict[str, Any]) -> Any:
        return cursor.execute(sql.replace("%s", "%b"), parameters)

    for wrapper in reversed(database.execute_wrappers):
        execute = partial(wrapper, execute)
    execute(sql, parameters, False, {"connection": database, "cursor": cursor})


def _chunks(rows: Rows, most: int) -> Iterator[Rows]:
    for start in range(0, len(rows), most):
        yield rows[start : start + most]


def _most_rows(columns: int) -> int:
    """SQLite takes so many parameters a statement, and PostgreSQL's arrays are one each."""
    if connection.vendor == "postgresql":
        return CHUNK
    connection.ensure_connection()
    parameters = int(connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
    return min(CHUNK, parameters // columns)


def _turned(rows: Rows) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _adapted(row: Sequence[Any]) -> list[Any]:
    """As SQLite keeps them: moments and days are text."""
    moment, day = connection.ops.adapt_datetimefield_value, connection.ops.adapt_datefield_value
    return [moment(v) if isinstance(v, datetime) else day(v) if isinstance(v, date) else v for v in row]


@lru_cache
def _arrays(model: type[Model], columns: tuple[str, ...]) -> str:
    """One array a column, laid side by side as rows."""
    types = (_type(model, name) for name in columns)
    arrays = ", ".join(f"%s::{'text' if name == 'jsonb' else name}[]" for name in types)
    return f"unnest({arrays}) AS given ({', '.join(columns)})"


@lru_cache
def _cast(model: type[Model], columns: tuple[str, ...]) -> str:
    """JSON comes as text: PostgreSQL reads it once, when the row is written."""
    return ", ".join(f"given.{name}::jsonb" if _type(model, name) == "jsonb" else f"given.{name}" for name in columns)


def _type(model: type[Model], column: str) -> str:
    """A column's type in PostgreSQL, without a length: a cast to one would cut in silence what is too long."""
    field = next(field for field in model._meta.concrete_fields if field.column == column)
    kind = str(field.rel_db_type(connection) if field.is_relation else field.db_type(connection))
    return "text" if kind.startswith("varchar") else kind


def whole(value: Any) -> Any:
    """PostgreSQL adds whole numbers up to a decimal; amounts are whole."""
    return int(value) if isinstance(value, Decimal) else value

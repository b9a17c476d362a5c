"""Finance's files as CSV, streamed: the same bytes from PostgreSQL, where COPY writes the lines, and from SQLite.

A page is read in a transaction of its own and set aside in a temporary file: neither a slow reader nor a large ledger
holds a transaction or memory.
"""

import csv
import io
import re
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import chain, repeat
from typing import IO, Any

from django.db import connection, transaction

from donations import money
from donations.letters import CONTROL, CONTROLS
from donations.selectors import finance
from donations.selectors.finance import Column, File, Form, Key, Selection

SIZES = (500, 5_000, 50_000)
SIZE = 250_000  # 40 MB, and under a second of a transaction
CHUNK = 64 * 1024
LINES_AT_ONCE = 256

QUOTE, ESCAPE = b'"', b"\\"
CELL = re.compile(r"(?:^|,)((?:[^\\,]|\\.)*)")
ESCAPED = re.compile(r"\\(.)")
FORMULA = re.compile("[ \u00a0]*[=+@\\-\uff0b\uff0d\uff1d\uff20]")

SMALLER = ", ".join(f"'{code}'" for code in sorted(money.ZERO_DECIMAL | money.THREE_DECIMAL))
THREE = ", ".join(f"'{code}'" for code in sorted(money.THREE_DECIMAL))


def stream(file: File, selection: Selection, *, newest: int | None = None) -> Iterator[bytes]:
    """The file in chunks, its header first; of the entries up to the one numbered `newest`, or of all there are now."""
    yield _line([column.name for column in file.columns]).encode()
    write = _copy_page if connection.vendor == "postgresql" else _write_page
    newest, after = finance.newest_entry() if newest is None else newest, None
    # The first pages are small, so that the first rows are there at once.
    for size in chain(SIZES, repeat(SIZE)):
        with tempfile.TemporaryFile() as page:
            rows, last = write(page, file, selection, newest, after, size)
            page.seek(0)
            while chunk := page.read(CHUNK):
                yield chunk
        if rows < size:
            return
        after = finance.key_of(file, last)


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()


# ---- PostgreSQL writes the lines itself


def _copy_page(
    page: IO[bytes], file: File, selection: Selection, newest: int, after: Key | None, size: int
) -> tuple[int, str]:
    """Copy a page; how many rows it has, and the first cell of the last one."""
    sql, parameters = finance.page(file, selection, cell=_cell_sql, newest=newest, after=after, size=size)
    rows, line, lines = 0, b"", []
    with transaction.atomic(), connection.cursor() as cursor:
        # Compiling a statement that runs for a fraction of a second costs more than it gains. And a time is in UTC
        # by the session's zone, which PostgreSQL looks up once, where AT TIME ZONE looks it up in every row.
        cursor.execute("SET LOCAL jit = off; SET LOCAL timezone = 'UTC'")
        # The text format is written in less time than CSV, which compares each cell with the word for NULL.
        with cursor.cursor.copy(f"COPY ({sql}) TO STDOUT (DELIMITER ',', NULL '')", parameters) as copy:
            for rows, line in enumerate(copy, 1):  # noqa: B007 (the count of the last one is the count)
                lines.append(line)
                if len(lines) == LINES_AT_ONCE:
                    page.write(_joined(lines))
                    lines.clear()
        page.write(_joined(lines))
    return rows, bytes(line).partition(b",")[0].rstrip().decode()


def _joined(lines: list[bytes]) -> bytes:
    """Lines of COPY's text format as those of CSV: the same, but where a cell has a quote, a comma or a backslash."""
    text = b"".join(lines)
    if _is_plain(text):
        # No cell has a line feed in it, so each that is there ends a line.
        return text.replace(b"\n", b"\r\n")
    return b"".join(_as_csv(bytes(line)) for line in lines)


def _is_plain(text: bytes) -> bool:
    return QUOTE not in text and ESCAPE not in text


def _as_csv(line: bytes) -> bytes:
    if _is_plain(line):
        return line.replace(b"\n", b"\r\n")
    return _line([ESCAPED.sub(r"\1", cell) for cell in CELL.findall(line.decode().removesuffix("\n"))]).encode()


def _cell_sql(column: Column) -> str:
    sql = column.sql
    match column.form:
        case Form.TEXT:
            spaced = f"regexp_replace({sql}, '[{CONTROLS}]', ' ', 'g')"
            return f"CASE WHEN {spaced} ~ '^{FORMULA.pattern}' THEN '''' || {spaced} ELSE {spaced} END"
        case Form.AMOUNT:
            return _amount_sql(sql, "e.currency")
        case Form.SETTLEMENT:
            return f"CASE WHEN {sql} IS NOT NULL THEN {_amount_sql(sql, 'e.settlement_currency')} END"
        case Form.INSTANT:
            return f"CAST({sql} AS timestamp)"
        case Form.FLAG:
            return f"CASE WHEN {sql} THEN 'true' ELSE 'false' END"
        case Form.PLAIN:
            return sql


def _amount_sql(sql: str, currency: str) -> str:
    """Minor units as a decimal text. Whole amounts, which most are, without a detour over `numeric`."""
    return (
        f"CASE WHEN {currency} IN ({SMALLER}) THEN "
        f"CASE WHEN {currency} IN ({THREE}) THEN (({sql}) * 0.001)::text ELSE ({sql})::text END "
        f"WHEN ({sql}) %% 100 = 0 THEN (({sql}) / 100)::text || '.00' ELSE (({sql}) * 0.01)::text END"
    )


# ---- elsewhere, we do


def _write_page(
    page: IO[bytes], file: File, selection: Selection, newest: int, after: Key | None, size: int
) -> tuple[int, str]:
    """Write a page; how many rows it has, and the first cell of the last one."""
    sql, parameters = finance.page(file, selection, cell=_plain_sql, newest=newest, after=after, size=size)
    rows, cells = 0, [""]
    names = [column.name for column in file.columns]
    text = io.TextIOWrapper(page, "utf-8", newline="", write_through=True)
    lines = csv.writer(text, lineterminator="\r\n")
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        while found := cursor.fetchmany(LINES_AT_ONCE):
            for row in found:
                values = dict(zip(names, row, strict=True))
                cells = [_cell(column, values) for column in file.columns]
                lines.writerow(cells)
            rows += len(found)
    text.detach()
    return rows, cells[0]


def _plain_sql(column: Column) -> str:
    return column.sql


def _cell(column: Column, values: dict[str, Any]) -> str:
    value = values[column.name]
    if value is None:
        return ""
    match column.form:
        case Form.TEXT:
            return _guarded(str(value))
        case Form.AMOUNT:
            return money.decimal_text(int(value), values["currency"])
        case Form.SETTLEMENT:
            return money.decimal_text(int(value), values["settlement_currency"])
        case Form.INSTANT:
            return _instant(value)
        case Form.FLAG:
            return "true" if value else "false"
        case Form.PLAIN:
            return str(value)


def _guarded(text: str) -> str:
    """Nothing that breaks a line, and nothing that a spreadsheet would run."""
    spaced = CONTROL.sub(" ", text)
    return f"'{spaced}" if FORMULA.match(spaced) else spaced


def _instant(value: datetime | str) -> str:
    """As PostgreSQL writes a time: without zeros at the end of a fraction. SQLite hands times over as text, in UTC."""
    text = value if isinstance(value, str) else value.isoformat(" ")
    return text.rstrip("0").rstrip(".") if "." in text else text

"""The reads behind finance's two files: their columns, which rows, in which order, a page at a time.

Both come from the ledger alone, in the order of its index `entries_in_order`; a page begins after the key at which the
one before it ended, so that no page costs more than the first. Texts are ordered by their bytes in every database,
whatever its collation: the hash of a closed month's file is of its lines in their order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum, auto
from typing import Any

from django.db import connection

from donations.models import Gift, LedgerEntry
from donations.selectors.sums import COUNTED, GIFT_KINDS, SUMS

ENTRIES, GIFTS = LedgerEntry._meta.db_table, Gift._meta.db_table
KEY = "e.effective_at, e.processor, e.kind, e.reference"
# SQLite orders by bytes by itself, and calls that otherwise.
KEY_BY_BYTES = 'e.effective_at, e.processor COLLATE "C", e.kind COLLATE "C", e.reference COLLATE "C"'
OFFSETS = timedelta(days=1)  # no zone's calendar is further than this from UTC's

Key = tuple[Any, ...]


class Form(Enum):
    """How a cell is written."""

    PLAIN = auto()  # ours, or kept plain by a constraint; or nothing
    TEXT = auto()  # anybody's
    AMOUNT = auto()  # minor units, in the currency that the column `currency` names
    SETTLEMENT = auto()  # minor units, in the currency that the column `settlement_currency` names
    INSTANT = auto()  # a time, UTC
    FLAG = auto()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a file, and the SQL that it is read by."""

    name: str
    sql: str
    form: Form = Form.PLAIN
    meaning: str = ""
    """For who reads the file; docs/exports.md says the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows: of a campaign ("" for all), with a day in [start, end) in its zone, of a mode (None for both)."""

    campaign: str = ""
    start: date | None = None
    end: date | None = None
    livemode: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One of finance's files. `entries` narrows the ledger; the first column names a row, by `named`."""

    name: str
    columns: tuple[Column, ...]
    entries: str
    named: str
    rows: str


LEDGER = File(
    name="ledger",
    columns=(
        Column("entry_id", "e.id", meaning="the entry's number"),
        Column("effective_at", "e.effective_at", Form.INSTANT, meaning="when the money moved, UTC"),
        Column("local_date", "e.local_date", meaning="that day in the campaign's time zone"),
        Column("campaign", "e.campaign", meaning="the campaign's name in addresses"),
        Column("campaign_month", "e.campaign_month", meaning="the month of the gift, such as 2024-11"),
        Column(
            "kind",
            "e.kind",
            meaning="gift, offline_gift, refund, refund_reversal, "
            "dispute_withdrawn, dispute_reinstated, fee, adjustment",
        ),
        Column("processor", "e.processor", meaning="who moved it: stripe, or offline for what staff entered"),
        Column(
            "reference",
            "e.reference",
            meaning="the processor's id of the movement; offline, campaign:reference, in test mode after test_mode:",
        ),
        Column("gift", "e.gift", meaning="our reference of the gift; empty for an adjustment of a campaign"),
        Column("tier", "e.tier", meaning="the tier that was chosen, or custom"),
        Column("currency", "e.currency", meaning="ISO code"),
        Column("amount", "e.amount", Form.AMOUNT, meaning="signed: what came in is positive"),
        Column("goal_amount", "e.goal_amount", Form.AMOUNT, meaning="what of it counts toward the goal"),
        Column(
            "settlement_currency",
            "e.settlement_currency",
            meaning="the currency of the processor's account; of fee, dispute_withdrawn and dispute_reinstated alone, "
            "empty for all other kinds",
        ),
        Column(
            "settlement_amount",
            "e.settlement_amount",
            Form.SETTLEMENT,
            meaning="the amount in it, of the same kinds; "
            "that of a gift or refund stands among the balance transactions of its payout",
        ),
        Column("livemode", "e.livemode", Form.FLAG, meaning="true for money, false for tests"),
    ),
    entries="TRUE",
    named="e.id = %s",
    rows=f"SELECT {{cells}} FROM {ENTRIES} e WHERE {{conditions}} ORDER BY {{key}} LIMIT {{size}}",  # noqa: S608
)
"""One row a movement of money."""

GIFT_ROWS = f"""
WITH page AS (SELECT e.* FROM {ENTRIES} e WHERE {{conditions}} ORDER BY {{key}} LIMIT {{size}})
SELECT {{cells}} FROM page e JOIN {GIFTS} g ON g.reference = e.gift JOIN {{sums}} ORDER BY {{key}}
"""  # noqa: S608 (the only texts put in are our own names)
OF_THE_PAGE = (
    f"(SELECT gift, {SUMS} FROM {ENTRIES} WHERE id <= %s AND gift IN (SELECT gift FROM page) GROUP BY gift) sums "  # noqa: S608
    "ON sums.gift = e.gift"
)
# Where PostgreSQL expects few rows, as of many gifts in one second, it may read the sums of the whole page once a row.
# Asked for gift by gift, they come by the index, whatever it expects.
OF_EACH_GIFT = f"LATERAL (SELECT {SUMS} FROM {ENTRIES} WHERE id <= %s AND gift = e.gift) sums ON TRUE"  # noqa: S608

ALL_GIFTS = File(
    name="gifts",
    columns=(
        Column("gift", "e.gift", meaning="our reference"),
        Column("campaign", "e.campaign", meaning="the campaign's name in addresses"),
        Column("campaign_month", "e.campaign_month", meaning="the month in which it was paid"),
        Column("confirmed_at", "e.effective_at", Form.INSTANT, meaning="when it was paid, UTC"),
        Column("status", "'confirmed'", meaning="confirmed"),
        Column("tier", "e.tier", meaning="the tier that was chosen, or custom"),
        Column("frequency", "g.frequency", Form.TEXT, meaning="once or monthly"),
        Column("currency", "e.currency", meaning="ISO code"),
        Column("amount", "e.goal_amount", Form.AMOUNT, meaning="what was given, without the fee cover"),
        Column(
            "fee_cover",
            "e.amount - e.goal_amount",
            Form.AMOUNT,
            meaning="what the donor added for the processor's fee; a part of charged, never of counted",
        ),
        Column("charged", "CAST(charged AS bigint)", Form.AMOUNT, meaning="what was paid"),
        Column("refunded", "CAST(refunded AS bigint)", Form.AMOUNT, meaning="what was given back"),
        Column("disputed", "CAST(disputed AS bigint)", Form.AMOUNT, meaning="what was taken back by disputes"),
        Column(
            "counted",
            f"CAST({COUNTED} AS bigint)",
            Form.AMOUNT,
            meaning="what the bar counts; adjustments of the gift, which are rows of ledger, lower it too",
        ),
        Column("source", "g.source", Form.TEXT, meaning="where the reader came from"),
        Column("livemode", "e.livemode", Form.FLAG, meaning="true for money, false for tests"),
    ),
    entries=f"e.kind IN {GIFT_KINDS}",
    named=f"e.gift = %s AND e.kind IN {GIFT_KINDS}",
    rows=GIFT_ROWS,
)
"""One row a gift that has an entry; over a campaign month the sum of `counted` is the bar."""

FILES = {file.name: file for file in (LEDGER, ALL_GIFTS)}


def newest_entry() -> int:
    """The number of the newest entry: what is booked after it waits for the next file."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COALESCE(MAX(id), 0) FROM {ENTRIES}")  # noqa: S608 (our own name)
        return int(cursor.fetchone()[0])


def page(
    file: File, selection: Selection, *, cell: Callable[[Column], str], newest: int, after: Key | None, size: int
) -> tuple[str, list[Any]]:
    """The statement that reads the rows after a key, with its parameters; `cell` writes a column's expression."""
    key = KEY_BY_BYTES if connection.vendor == "postgresql" else KEY
    where, parameters = conditions(selection)
    where += [file.entries, "e.id <= %s"]
    parameters.append(newest)
    if after is not None:
        where.append(f"({key}) > (%s, %s, %s, %s)")
        parameters += after
    if file is ALL_GIFTS:
        parameters.append(newest)
    cells = ", ".join(cell(column) for column in file.columns)
    sums = OF_EACH_GIFT if connection.vendor == "postgresql" else OF_THE_PAGE
    return file.rows.format(cells=cells, conditions=" AND ".join(where), key=key, size=size, sums=sums), parameters


def key_of(file: File, first_cell: str) -> Key:
    """The key of a row, by its first cell: where the next page begins."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {KEY} FROM {ENTRIES} e WHERE {file.named}", [first_cell])  # noqa: S608 (our own names)
        return tuple(cursor.fetchone())


def conditions(selection: Selection) -> tuple[list[str], list[Any]]:
    """What the entries `e` of a selection fulfil, as SQL with its parameters."""
    adapt_date, adapt = connection.ops.adapt_datefield_value, connection.ops.adapt_datetimefield_value
    where: list[str] = []
    parameters: list[Any] = []
    if selection.campaign:
        where.append("e.campaign = %s")
        parameters.append(selection.campaign)
    if selection.livemode is not None:
        where.append(f"e.livemode = {'TRUE' if selection.livemode else 'FALSE'}")
    # The day decides; the time beside it lets the index leave out the rest of history.
    if selection.start:
        where.append("e.local_date >= %s AND e.effective_at >= %s")
        parameters += [adapt_date(selection.start), adapt(_shifted(selection.start, -OFFSETS))]
    if selection.end:
        where.append("e.local_date < %s AND e.effective_at < %s")
        parameters += [adapt_date(selection.end), adapt(_shifted(selection.end, OFFSETS))]
    return where, parameters


def _shifted(day: date, by: timedelta) -> datetime:
    """A day's midnight, UTC, and some time before or after it; at the ends of the calendar the midnight itself."""
    midnight = datetime.combine(day, time.min, UTC)
    try:
        return midnight + by
    except OverflowError:
        return midnight

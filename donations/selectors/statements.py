"""The reads behind a closed month: its sums up to an entry, the bar's beside them, and what was booked later.

All come from the ledger alone, never from a projection. Entries up to a number are a fixed set, so what is read of
them is the same for ever.
"""

from dataclasses import dataclass
from typing import Any

from django.db import connection

from donations.models import LedgerEntry, MonthStatement
from donations.periods import Month
from donations.selectors.finance import ENTRIES, Selection, conditions
from donations.selectors.sums import COUNTED, GIFT_KINDS, SUMS

TOTALS_SQL = f"""
SELECT e.kind, e.currency, COUNT(*), SUM(e.amount) FROM {ENTRIES} e WHERE {{conditions}} AND e.id <= %s
GROUP BY e.kind, e.currency
"""  # noqa: S608 (the only texts put in are our own names)

LATER_SQL = f"SELECT e.id FROM {ENTRIES} e WHERE {{conditions}} AND e.id > %s ORDER BY e.id DESC LIMIT %s"  # noqa: S608

# The gifts of a campaign month by the index of their days, and of each what the bar counts.
COUNTED_SQL = f"""
SELECT currency, SUM({COUNTED}) FROM (
  SELECT gift, MAX(CASE WHEN kind <> 'fee' THEN currency END) AS currency, {SUMS}
  FROM {ENTRIES} WHERE id <= %s AND gift IN (
    SELECT e.gift FROM {ENTRIES} e WHERE {{conditions}} AND e.kind IN {GIFT_KINDS} AND e.campaign_month = %s)
  GROUP BY gift
) sums GROUP BY currency ORDER BY currency
"""  # noqa: S608 (the only texts put in are our own names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What the entries of one kind and currency add up to; `amount` is minor units, signed."""

    kind: str
    currency: str
    rows: int
    amount: int


def selection(*, campaign: str, month: Month, livemode: bool) -> Selection:
    """Finance's month: the entries whose day, in the campaign's zone, lies in it."""
    return Selection(campaign=campaign, start=month.first_day, end=month.next.first_day, livemode=livemode)


def selection_of(statement: MonthStatement) -> Selection:
    """The entries that a statement is about, whenever they were booked."""
    month = Month.parse(statement.month)
    return selection(campaign=statement.campaign_id, month=month, livemode=statement.livemode)


def totals(chosen: Selection, *, newest: int) -> list[Total]:
    """Rows and sums per kind and currency, in their order, of the entries up to the one numbered `newest`."""
    where, parameters = conditions(chosen)
    # Sorted here: a statement compares them in order, which a database's collation must not decide.
    found = sorted(_read(TOTALS_SQL.format(conditions=" AND ".join(where)), [*parameters, newest]))
    return [Total(kind=kind, currency=currency, rows=rows, amount=int(sum_)) for kind, currency, rows, sum_ in found]


def counted(chosen: Selection, *, month: Month, newest: int) -> dict[str, int]:
    """What the bar of the campaign month shows by the entries up to the one numbered `newest`; minor units."""
    where, parameters = conditions(chosen)
    found = _read(COUNTED_SQL.format(conditions=" AND ".join(where)), [newest, *parameters, str(month)])
    return {currency: int(sum_) for currency, sum_ in found}


def booked_later(statement: MonthStatement, *, most: int) -> list[LedgerEntry]:
    """The entries of a closed month's days that were booked after it was closed: the latest ones, the latest first."""
    where, parameters = conditions(selection_of(statement))
    found = _read(LATER_SQL.format(conditions=" AND ".join(where)), [*parameters, statement.newest_entry, most])
    return list(LedgerEntry.objects.filter(pk__in=[identity for (identity,) in found]).order_by("-pk"))


def of_month(*, campaign: str, month: Month, livemode: bool) -> MonthStatement | None:
    """The statement of a month that is closed."""
    found: dict[str, Any] = {"campaign": campaign, "month": str(month), "livemode__in": [livemode]}
    return MonthStatement.objects.select_related("closed_by").filter(**found).first()


def _read(sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())

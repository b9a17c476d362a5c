"""The reads behind a closed month: its sums up to an entry, the bar's beside them, and what was booked later.

All come from the ledger alone, never from a projection. Entries up to a number are a fixed set, so what is read of
them is the same for ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connection

from donations.models import LedgerEntry, MonthStatement
from donations.periods import Month
from donations.selectors.finance import ENTRIES, Selection, conditions
from donations.selectors.sums import COUNTED, GIFT_KINDS, NO_FEE, SUMS

TOTALS_SQL = f"""
SELECT e.kind, e.currency, COUNT(*), SUM(e.amount) FROM {ENTRIES} e WHERE {{conditions}} AND e.id <= %s
GROUP BY e.kind, e.currency
"""  # noqa: S608 (the only texts put in are our own names)

LATER_SQL = f"SELECT e.id FROM {ENTRIES} e WHERE {{conditions}} AND e.id > %s ORDER BY e.id DESC LIMIT %s"  # noqa: S608

# The gifts of a campaign month, by the index of their days.
ITS_GIFTS = f"SELECT e.gift FROM {ENTRIES} e WHERE {{conditions}} AND e.kind IN {GIFT_KINDS} AND e.campaign_month = %s"  # noqa: S608

# Of each of them what the bar counts.
COUNTED_SQL = f"""
SELECT currency, SUM({COUNTED}) FROM (
  SELECT gift, MAX(CASE WHEN {NO_FEE} THEN currency END) AS currency, {SUMS}
  FROM {ENTRIES} WHERE id <= %s AND gift IN ({ITS_GIFTS})
  GROUP BY gift
) sums GROUP BY currency ORDER BY currency
"""  # noqa: S608 (the only texts put in are our own names)

# What was booked for them later; and by how much each entry of a gift changed what the bar counts of it.
LATER_OF_GIFTS_SQL = f"""
SELECT id, gift FROM {ENTRIES} WHERE id > %s AND {NO_FEE} AND gift IN ({ITS_GIFTS}) ORDER BY id DESC LIMIT %s
"""  # noqa: S608 (the only texts put in are our own names)
CHANGES_SQL = f"""
SELECT id, {COUNTED} - COALESCE(LAG({COUNTED}) OVER (PARTITION BY gift ORDER BY id), 0) FROM (
  SELECT id, gift, SUM(goal_amount) OVER entries AS goal, SUM(amount) OVER entries AS held
  FROM {ENTRIES} WHERE {NO_FEE} AND gift IN ({{gifts}}) WINDOW entries AS (PARTITION BY gift ORDER BY id)
) sums
"""  # noqa: S608 (the only texts put in are our own names)


WITHOUT_FEE_SQL = f"""
SELECT e.gift FROM {ENTRIES} e WHERE {{conditions}} AND e.kind = 'gift'
AND NOT EXISTS (SELECT 1 FROM {ENTRIES} f WHERE f.gift = e.gift AND f.kind = 'fee') ORDER BY e.id
"""  # noqa: S608 (the only texts put in are our own names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An entry, and by how much it changed what the bar counts of its gift; minor units, signed."""

    entry: LedgerEntry
    counted: int


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
    return _entries(identity for (identity,) in found)


def changed_later(statement: MonthStatement, *, most: int) -> list[Change]:
    """The entries of the campaign month's gifts that were booked after it was closed, of any day; as `booked_later`.

    Together they make the difference of the bar's figure. Fees are left out: the bar never counts them.
    """
    where, parameters = conditions(selection_of(statement))
    sql = LATER_OF_GIFTS_SQL.format(conditions=" AND ".join(where))
    found = _read(sql, [statement.newest_entry, *parameters, statement.month, most])
    gifts = sorted({gift for _, gift in found})
    places = ", ".join(["%s"] * len(gifts)) or "NULL"
    changes = dict(_read(CHANGES_SQL.format(gifts=places), gifts))
    later = _entries(identity for identity, _ in found)
    return [Change(entry=entry, counted=int(changes[entry.pk])) for entry in later]


def _entries(identities: Iterable[int]) -> list[LedgerEntry]:
    return list(LedgerEntry.objects.filter(pk__in=list(identities)).order_by("-pk"))


def gifts_without_fee(*, campaign: str, month: Month, livemode: bool) -> list[str]:
    """The gifts that a processor moved in a month and of which no fee is booked, the first booked first."""
    where, parameters = conditions(selection(campaign=campaign, month=month, livemode=livemode))
    return [gift for (gift,) in _read(WITHOUT_FEE_SQL.format(conditions=" AND ".join(where)), parameters)]


def of_month(*, campaign: str, month: Month, livemode: bool) -> MonthStatement | None:
    """The statement of a month that is closed."""
    found: dict[str, Any] = {"campaign": campaign, "month": str(month), "livemode__in": [livemode]}
    return MonthStatement.objects.select_related("closed_by").filter(**found).first()


def _read(sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())

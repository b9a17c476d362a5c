"""Totals of months and days: sole writer of MonthTotal and DailyRollup.

They change by what single gifts and followers contribute, in the transaction that changes these; and can be added up
anew from the ledger, the states and the followers.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import date
from typing import Any

from django.db import connection, transaction
from django.db.models import Model
from django.utils import timezone

from donations import bulk, periods
from donations.models import Campaign, DailyRollup, Follower, GiftState, LedgerEntry, MonthTotal
from donations.projections.drifts import Drift
from donations.selectors.sums import CHANGES_A_GIFT, COUNTED, GIFT_KINDS, SUMS

MONTH_SUMS = (
    "raised",
    "gifts",
    "charged",
    "refunded",
    "refunds",
    "disputed",
    "awaiting",
    "awaiting_gifts",
    "followers",
)
DAY_SUMS = ("raised", "gifts")
LEDGER_SUMS = ("raised", "gifts", "charged", "refunded", "refunds", "disputed")
AWAITING_SUMS = ("awaiting", "awaiting_gifts")
MONTH_KEY = ("campaign_id", "month", "livemode", "currency")
DAY_KEY = (*MONTH_KEY, "day", "dimension", "value")

# A gift is its own entry, less what later ones change of it: they are few, and an index of their own leads to them. So
# the ledger is added up as it is read, and no gift is put together first.
COUNTED_SQL = f"""
SELECT campaign AS campaign_id, campaign_month AS month, livemode, currency, local_date AS day, tier,
  SUM({COUNTED}) AS raised, SUM(CASE WHEN {COUNTED} > 0 THEN 1 ELSE 0 END) AS gifts, SUM(charged) AS charged,
  COALESCE(SUM(refunded), 0) AS refunded, SUM(CASE WHEN refunded > 0 THEN 1 ELSE 0 END) AS refunds,
  COALESCE(SUM(disputed), 0) AS disputed
FROM (
  SELECT own.campaign, own.campaign_month, own.livemode, own.currency, own.local_date, own.tier,
    own.amount AS charged, own.goal_amount AS goal, own.amount + COALESCE(changes.held, 0) AS held, refunded, disputed
  FROM {LedgerEntry._meta.db_table} own LEFT JOIN (
    SELECT gift, CAST(held AS bigint) AS held, CAST(refunded AS bigint) AS refunded,
      CAST(disputed AS bigint) AS disputed
    FROM (
      SELECT gift, {SUMS}
      FROM {LedgerEntry._meta.db_table} WHERE {CHANGES_A_GIFT} GROUP BY gift
    ) sums
  ) changes ON changes.gift = own.gift
  WHERE own.kind IN {GIFT_KINDS}
) gifts GROUP BY campaign, campaign_month, livemode, currency, local_date, tier
"""  # noqa: S608 (the only texts put in are our own names)

AWAITING_SQL = f"""
SELECT campaign_id, campaign_month AS month, livemode, currency, SUM(awaiting) AS awaiting, COUNT(*) AS awaiting_gifts
FROM {GiftState._meta.db_table} WHERE status = 'awaiting' GROUP BY campaign_id, campaign_month, livemode, currency
"""  # noqa: S608

FOLLOWERS_SQL = f"""
SELECT f.campaign_id, f.confirmed_month AS month, f.livemode, c.default_goal_currency AS currency, COUNT(*) AS followers
FROM {Follower._meta.db_table} f JOIN {Campaign._meta.db_table} c ON c.slug = f.campaign_id
WHERE f.confirmed_at IS NOT NULL GROUP BY f.campaign_id, f.confirmed_month, f.livemode, c.default_goal_currency
"""  # noqa: S608

MonthKey = tuple[str, str, bool, str]
DayKey = tuple[str, str, bool, str, date, str, str]


class Deltas:
    """What totals change by: the difference of two sets of contributions."""

    def __init__(self) -> None:
        self.months: defaultdict[MonthKey, Counter[str]] = defaultdict(Counter)
        self.days: defaultdict[DayKey, Counter[str]] = defaultdict(Counter)

    def add(self, state: GiftState, sign: int) -> None:
        """Add (1) or take away (-1) what one gift contributes."""
        if not state.campaign_month:
            return
        month = (state.campaign_id, state.campaign_month, state.livemode, state.currency)
        sums = {
            "raised": state.counted,
            "gifts": int(state.counted > 0),
            "charged": state.charged,
            "refunded": state.refunded,
            "refunds": int(state.refunded > 0),
            "disputed": state.disputed,
            "awaiting": state.awaiting,
            "awaiting_gifts": int(state.awaiting > 0),
        }
        _accumulate(self.months[month], sums, sign)
        if state.local_date:
            for dimension, value in (("all", ""), ("tier", state.tier)):
                day = (*month, state.local_date, dimension, value)
                _accumulate(self.days[day], {name: sums[name] for name in DAY_SUMS}, sign)

    def write(self) -> None:
        """Add the differences to the stored sums, in the keys' order so that two workers never deadlock."""
        months = {key: sums for key, sums in sorted(self.months.items()) if any(sums.values())}
        days = {key: sums for key, sums in sorted(self.days.items()) if any(sums.values())}
        _add(MonthTotal, MONTH_KEY, MONTH_SUMS, months, {"changed_at": timezone.now()})
        _add(DailyRollup, DAY_KEY, DAY_SUMS, days, {})


def _accumulate(into: Counter[str], sums: Mapping[str, int], sign: int) -> None:
    for name, value in sums.items():
        into[name] += sign * value


def _add(
    model: type[Model],
    key: tuple[str, ...],
    sums: tuple[str, ...],
    rows: dict[Any, Counter[str]],
    extra: dict[str, Any],
) -> None:
    """One statement: rows that are missing begin at their difference, the others grow by it."""
    grown = [f"{name} = {model._meta.db_table}.{name} + excluded.{name}" for name in sums]
    grown += [f"{name} = excluded.{name}" for name in extra]
    values = [(*where, *(counted[name] for name in sums), *extra.values()) for where, counted in rows.items()]
    then = f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(grown)}"
    bulk.insert(model, (*key, *sums, *extra), values, then=then)


# ---- followers


def confirm_follower(follower: Follower) -> bool:
    """Count a follower in the month of this moment, once; False where they were counted before."""
    now, zone = timezone.now(), follower.campaign.time_zone
    month = str(periods.Month.of(now, zone))
    with transaction.atomic():
        # The condition decides between two clicks at once: one of them changes a row.
        counted = Follower.objects.filter(pk=follower.pk, confirmed_at__isnull=True).update(
            confirmed_at=now, confirmed_month=month, confirmed_date=periods.local_date(now, zone)
        )
        if counted:
            deltas = Deltas()
            deltas.months[follower.campaign_id, month, follower.livemode, follower.campaign.currency]["followers"] = 1
            deltas.write()
    return bool(counted)


# ---- rebuilding, and comparing


def rebuild_totals() -> None:
    """Make every total and rollup anew from the ledger, the states and the followers, in the caller's transaction."""
    sums = _all_sums()
    MonthTotal.objects.all().delete()
    DailyRollup.objects.all().delete()
    sums.write()


def total_drift() -> list[Drift]:
    """Where stored totals and rollups differ from what the ledger, the states and the followers say."""
    sums = _all_sums()
    return [
        *_table_drift(MonthTotal, MONTH_KEY, MONTH_SUMS, sums.months),
        *_table_drift(DailyRollup, DAY_KEY, DAY_SUMS, sums.days),
    ]


def _all_sums() -> Deltas:
    """Every sum from nothing: the ledger is read once, and its few groups are added up to months and days."""
    sums = Deltas()
    for row in _counted_rows():
        month = _month_key(row)
        _accumulate(sums.months[month], {name: row[name] for name in LEDGER_SUMS}, 1)
        for dimension, value in (("all", ""), ("tier", row["tier"])):
            day = sums.days[(*month, row["day"], dimension, value)]
            _accumulate(day, {name: row[name] for name in DAY_SUMS}, 1)
    for row in _rows(AWAITING_SQL):
        _accumulate(sums.months[_month_key(row)], {name: row[name] for name in AWAITING_SUMS}, 1)
    for row in _rows(FOLLOWERS_SQL):
        _accumulate(sums.months[_month_key(row)], {"followers": row["followers"]}, 1)
    return sums


def _counted_rows() -> list[dict[str, Any]]:
    if connection.vendor != "postgresql":
        return _rows(COUNTED_SQL)
    with transaction.atomic(), connection.cursor() as cursor:
        # The changes of ten million entries find room in it; with less, the ledger goes through temporary files.
        cursor.execute("SET LOCAL work_mem = '64MB'")
        return _rows(COUNTED_SQL)


def _month_key(row: dict[str, Any]) -> MonthKey:
    return (row["campaign_id"], row["month"], bool(row["livemode"]), row["currency"])


def _rows(sql: str) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, map(bulk.whole, row), strict=True)) for row in cursor.fetchall()]


def _table_drift(
    model: Any, key: tuple[str, ...], sums: tuple[str, ...], rebuilt: dict[Any, Counter[str]]
) -> list[Drift]:
    stored = {
        row[: len(key)]: dict(zip(sums, row[len(key) :], strict=True)) for row in model.objects.values_list(*key, *sums)
    }
    made = {where: {name: counted[name] for name in sums} for where, counted in rebuilt.items()}
    nothing = dict.fromkeys(sums, 0)
    return [
        Drift(model._meta.db_table, _named(*where), where[key.index("currency")], stored.get(where), made.get(where))
        for where in sorted(stored.keys() | made.keys())
        if stored.get(where, nothing) != made.get(where, nothing)
    ]


def _named(campaign: str, month: str, livemode: bool, currency: str, *of_day: object) -> str:
    """A month's key in words, or a day's: what each part is can be seen."""
    words = [f"campaign {campaign}", month, f"{'live' if livemode else 'test'} mode", currency]
    if of_day:
        day, dimension, value = of_day
        words += [str(day), f"{dimension} {value}" if value else "all tiers"]
    return ", ".join(words)

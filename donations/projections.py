"""Sole writer of totals and of GiftState: functions of the ledger's entries and of the processor's facts.

A gift counts `max(0, min(sum of goal_amount, sum of amount over all kinds but fee))`: what we still hold of it,
without its fee cover. It is a function of the set of entries, so any order of deliveries ends in the same sums.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Model, QuerySet
from django.utils import timezone

from donations import bulk, periods
from donations.models import (
    Campaign,
    CampaignMonth,
    DailyRollup,
    Follower,
    Gift,
    GiftState,
    InboxEvent,
    LedgerEntry,
    MonthTotal,
    RefundRequest,
)
from donations.selectors import refunds
from donations.selectors.sums import COUNTED, GIFT_KINDS, SUMS

Status = GiftState.Status
RANK = {status.value: rank for rank, status in enumerate(Status)}
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
STATE_FIELDS = [
    field.name for field in GiftState._meta.concrete_fields if field.name not in {"gift", "refund_requested"}
]

STATE_KEPT = ("gift_id", *(field.attname for field in GiftState._meta.concrete_fields if field.name in STATE_FIELDS))
STATE_COLUMNS = (*STATE_KEPT, "refund_requested")
OF_ENTRIES = ("campaign_month", "local_date", "confirmed_at", "payment", "charged", "refunded", "disputed", "adjusted")
_renewed = ", ".join(f"{name} = excluded.{name}" for name in STATE_KEPT[1:])
OVER_THE_OLD = f"ON CONFLICT (gift_id) DO UPDATE SET {_renewed}"
_state_values = attrgetter(*STATE_KEPT)

# What the ledger says of each gift. Who wants some gifts alone puts another condition where {which} stands.
GIFTS_SQL = f"""
SELECT gift AS gift_id, campaign AS campaign_id, livemode, campaign_month, local_date, confirmed_at, payment, tier,
  currency, charged, refunded, disputed, adjusted, goal,
  {COUNTED} AS counted
FROM (
  SELECT gift, campaign, livemode,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN campaign_month END) AS campaign_month,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN local_date END) AS local_date,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN effective_at END) AS confirmed_at,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN reference END) AS payment,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN tier END) AS tier,
    MAX(CASE WHEN kind <> 'fee' THEN currency END) AS currency,
    {SUMS}
  FROM {LedgerEntry._meta.db_table} WHERE {{which}} GROUP BY gift, campaign, livemode
) sums WHERE charged > 0
"""  # noqa: S608 (the only text put in is our own table name)
GIFT_SQL = GIFTS_SQL.format(which="gift IS NOT NULL")

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
      FROM {LedgerEntry._meta.db_table} WHERE kind NOT IN ('gift', 'offline_gift', 'fee') GROUP BY gift
    ) sums
  ) changes ON changes.gift = own.gift
  WHERE own.kind IN {GIFT_KINDS}
) gifts GROUP BY campaign, campaign_month, livemode, currency, local_date, tier
"""  # noqa: S608 (the only texts put in are our own names)

OWN_ENTRY = (
    f"SELECT 1 FROM {LedgerEntry._meta.db_table} WHERE gift = {GiftState._meta.db_table}.gift_id "  # noqa: S608
    f"AND kind IN {GIFT_KINDS}"
)
_made = {"status": "'confirmed'", "awaiting": "0"}
_stored, _excluded = (
    ", ".join(f"{where}.{name}" for name in STATE_KEPT[1:]) for where in (GiftState._meta.db_table, "excluded")
)
# "WHERE TRUE" lets SQLite tell ON CONFLICT from a join's ON.
CONFIRMED_STATES = f"""
INSERT INTO {GiftState._meta.db_table} ({", ".join(STATE_COLUMNS)})
SELECT {", ".join(_made.get(name, name) for name in STATE_KEPT)}, 0 FROM ({GIFT_SQL}) made WHERE TRUE
{OVER_THE_OLD}
WHERE ({_stored}) {{unequal}} ({_excluded})
"""  # noqa: S608

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


@dataclass(frozen=True, slots=True)
class CheckoutNews:
    """What was learned of a gift's checkout without money: its status, and when."""

    gift: str
    status: str
    occurred_at: datetime


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
        sums = Counter(
            raised=state.counted,
            gifts=int(state.counted > 0),
            charged=state.charged,
            refunded=state.refunded,
            refunds=int(state.refunded > 0),
            disputed=state.disputed,
            awaiting=state.awaiting,
            awaiting_gifts=int(state.awaiting > 0),
        )
        _accumulate(self.months[month], sums, sign)
        if state.local_date:
            for dimension, value in (("all", ""), ("tier", state.tier)):
                day = (*month, state.local_date, dimension, value)
                _accumulate(self.days[day], Counter({name: sums[name] for name in DAY_SUMS}), sign)

    def write(self) -> None:
        """Add the differences to the stored sums, in the keys' order so that two workers never deadlock."""
        months = {key: sums for key, sums in sorted(self.months.items()) if any(sums.values())}
        days = {key: sums for key, sums in sorted(self.days.items()) if any(sums.values())}
        _add(MonthTotal, MONTH_KEY, MONTH_SUMS, months, {"changed_at": timezone.now()})
        _add(DailyRollup, DAY_KEY, DAY_SUMS, days, {})


def _accumulate(into: Counter[str], sums: Counter[str], sign: int) -> None:
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


# ---- applying what was booked


def apply(*, gifts: Iterable[Gift], news: Iterable[CheckoutNews] = ()) -> None:
    """Bring these gifts' states and all totals up to date. Call it in the booking transaction, gifts locked.

    Gifts come with their campaign selected. States are recomputed from all of a gift's entries, never added to.
    """
    by_reference = {gift.pk: gift for gift in gifts}
    if not by_reference:
        return
    stored = bulk.select(GiftState, f"WHERE {bulk.among('gift_id')}", [bulk.listed(by_reference)])
    old = {state.gift_id: state for state in stored}
    confirmed = _confirmed(by_reference)
    heard = {item.gift: item for item in sorted(news, key=_weight)}
    deltas, changed = Deltas(), []
    for reference, gift in by_reference.items():
        before = old.get(reference)
        after = _state(gift, before, confirmed.get(reference), heard.get(reference))
        if before:
            deltas.add(before, -1)
        deltas.add(after, 1)
        changed.append(after)
    _open_months(changed, by_reference)
    _store(changed)
    deltas.write()


def _store(states: list[GiftState]) -> None:
    """Write states; the counter of refunds that our staff asked for is not theirs, and stays."""
    bulk.insert(GiftState, STATE_COLUMNS, [(*_state_values(state), 0) for state in states], then=OVER_THE_OLD)


def _weight(news: CheckoutNews) -> tuple[int, float]:
    """What decides between news of one gift: the highest status, and of equal ones the earliest."""
    return (RANK[news.status], -news.occurred_at.timestamp())


def _confirmed(references: Iterable[str]) -> dict[str, GiftState]:
    """Of those of these gifts that have a gift entry: what all of their entries make, as OF_ENTRIES, and `counted`."""
    source = f"({GIFTS_SQL.format(which=bulk.among('gift'))}) confirmed"
    columns = ("gift_id", *OF_ENTRIES, "counted")
    made = bulk.select(GiftState, "", [bulk.listed(references)], columns=columns, source=source)
    return {state.gift_id: state for state in made}


def _state(gift: Gift, before: GiftState | None, made: GiftState | None, news: CheckoutNews | None) -> GiftState:
    """A gift's state: confirmed by its entries, else the highest-ranking status ever heard of it."""
    state = GiftState(
        gift=gift, campaign_id=gift.campaign_id, livemode=gift.livemode, currency=gift.currency, tier=gift.tier
    )
    if made:
        state.status = Status.CONFIRMED
        for name in (*OF_ENTRIES, "counted"):
            setattr(state, name, _whole(getattr(made, name)))
        return state
    heard = news.status if news else Status.PENDING.value
    known = before.status if before else Status.PENDING.value
    state.status = max(heard, known, key=RANK.__getitem__)
    if state.status == Status.AWAITING:
        months = {before.campaign_month if before else ""}
        if news and news.status == Status.AWAITING:
            months.add(str(periods.Month.of(news.occurred_at, gift.campaign.time_zone)))
        # The earliest, in whatever order they are heard.
        state.campaign_month = min(months - {""}, default="")
        state.awaiting = gift.amount
    return state


def _open_months(states: list[GiftState], gifts: dict[str, Gift]) -> None:
    """A month's goal is settled when its first money is booked: a later change of the default leaves it alone."""
    campaigns = {
        (state.campaign_id, state.campaign_month): gifts[state.gift_id].campaign
        for state in states
        if state.status == Status.CONFIRMED
    }
    rows = [(*where, campaigns[where].default_goal_minor, "[]") for where in sorted(campaigns)]
    bulk.insert(CampaignMonth, ("campaign_id", "month", "goal", "scale"), rows, then="ON CONFLICT DO NOTHING")


# ---- followers, and the counter that guards our own refunds


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


def reserve_refund(*, gift: str, amount: int) -> bool:
    """Set aside an amount for a refund of ours; False where that would give back more than is left of the gift."""
    # One conditional statement: of two requests at once that do not both fit, one finds no row.
    confirmed = GiftState.objects.filter(pk=gift, status=Status.CONFIRMED).annotate(left=refunds.LEFT)
    fitting = confirmed.filter(left__gte=amount)
    return bool(fitting.update(refund_requested=F("refund_requested") + amount))


def release_refund(*, request: RefundRequest, status: str, error: str = "") -> bool:
    """Free what a refund that will not happen had set aside, once; its request ends as `status`."""
    with transaction.atomic():
        open_request = RefundRequest.objects.filter(pk=request.pk, status__in=["sending", "accepted"])
        released = open_request.update(status=status, error=error[:300])
        if released:
            GiftState.objects.filter(pk=request.gift_id).update(refund_requested=F("refund_requested") - request.amount)
    return bool(released)


# ---- rebuilding, and comparing


@dataclass(frozen=True, slots=True)
class Drift:
    """A stored row that differs from what the ledger says. `stored` or `rebuilt` is None where a row is missing."""

    table: str
    key: str
    stored: dict[str, Any] | None
    rebuilt: dict[str, Any] | None

    def __str__(self) -> str:
        return f"{self.table} {self.key}: stored {self.stored}, rebuilt {self.rebuilt}"


def rebuild() -> None:
    """Make every state and total anew from the ledger, the processed facts and the followers, in one transaction."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            tables = ", ".join(model._meta.db_table for model in (GiftState, MonthTotal, DailyRollup))
            bulk.run(f"LOCK TABLE {tables} IN EXCLUSIVE MODE", [])
        _rebuild_states()
        rebuild_totals()


def rebuild_totals() -> None:
    """Make every total and rollup anew from the ledger, the states and the followers, in the caller's transaction."""
    sums = _all_sums()
    MonthTotal.objects.all().delete()
    DailyRollup.objects.all().delete()
    sums.write()


def drift() -> list[Drift]:
    """Where what is stored differs from what the ledger says. Zero rows that nothing contributes to are no drift."""
    return [*_state_drift(), *total_drift()]


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
        _accumulate(sums.months[month], Counter({name: row[name] for name in LEDGER_SUMS}), 1)
        for dimension, value in (("all", ""), ("tier", row["tier"])):
            day = sums.days[(*month, row["day"], dimension, value)]
            _accumulate(day, Counter({name: row[name] for name in DAY_SUMS}), 1)
    for row in _rows(AWAITING_SQL):
        _accumulate(sums.months[_month_key(row)], Counter({name: row[name] for name in AWAITING_SUMS}), 1)
    for row in _rows(FOLLOWERS_SQL):
        _accumulate(sums.months[_month_key(row)], Counter(followers=row["followers"]), 1)
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
        return [dict(zip(names, map(_whole, row), strict=True)) for row in cursor.fetchall()]


def _whole(value: Any) -> Any:
    """PostgreSQL adds whole numbers up to a decimal; amounts are whole."""
    return int(value) if isinstance(value, Decimal) else value


def _table_drift(
    model: Any, key: tuple[str, ...], sums: tuple[str, ...], rebuilt: dict[Any, Counter[str]]
) -> list[Drift]:
    stored = {
        row[: len(key)]: dict(zip(sums, row[len(key) :], strict=True)) for row in model.objects.values_list(*key, *sums)
    }
    made = {where: {name: counted[name] for name in sums} for where, counted in rebuilt.items()}
    nothing = dict.fromkeys(sums, 0)
    return [
        Drift(model._meta.db_table, str(tuple(map(_plain, where))), stored.get(where), made.get(where))
        for where in sorted(stored.keys() | made.keys())
        if stored.get(where, nothing) != made.get(where, nothing)
    ]


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def state_drift(gifts: Iterable[Gift]) -> Iterator[Drift]:
    """Where the stored states of these gifts differ from what their entries and their checkouts' facts say.

    Gifts come with their campaign selected.
    """
    by_reference = {gift.pk: gift for gift in gifts}
    stored, confirmed = GiftState.objects.in_bulk(by_reference), _confirmed(by_reference)
    heard = _heard(InboxEvent.objects.filter(gift_reference__in=by_reference))
    for reference, gift in by_reference.items():
        news = max(heard[reference], key=_weight) if heard[reference] else None
        before = _fields(stored.get(reference))
        after = _fields(_state(gift, None, confirmed.get(reference), news))
        if before != after:
            yield Drift(GiftState._meta.db_table, reference, before, after)


def _state_drift() -> Iterator[Drift]:
    """Gift by gift, a part at a time: a long history is never held in memory."""
    gifts, last = Gift.objects.select_related("campaign").order_by("pk"), ""
    while part := list(gifts.filter(pk__gt=last)[:PART]):
        last = part[-1].pk
        yield from state_drift(part)


def _fields(state: GiftState | None) -> dict[str, Any] | None:
    """What is compared of a state; None for one that is as good as none: pending, with no sums."""
    sums = ("charged", "refunded", "disputed", "adjusted", "counted", "awaiting")
    if state is None or (state.status == Status.PENDING and not any(getattr(state, name) for name in sums)):
        return None
    fields = [field for field in GiftState._meta.concrete_fields if field.name in STATE_FIELDS]
    return {field.name: getattr(state, field.attname) for field in fields}


PART = 500  # gifts a statement


def _parts(references: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(references)
    for start in range(0, len(ordered), PART):
        yield ordered[start : start + PART]


def _rebuild_states() -> None:
    """Confirmed states by one statement, which writes those alone that differ; then those that entries do not make."""
    unequal = "IS DISTINCT FROM" if connection.vendor == "postgresql" else "IS NOT"
    bulk.run(CONFIRMED_STATES.format(unequal=unequal), [])
    bulk.run(f"DELETE FROM {GiftState._meta.db_table} WHERE NOT EXISTS ({OWN_ENTRY})", [])  # noqa: S608 (our own names)
    heard = _heard(InboxEvent.objects.exclude(gift_reference=""))
    for some in _parts(heard):
        gifts = Gift.objects.filter(pk__in=some).exclude(entries__kind__in=LedgerEntry.GIFT_KINDS)
        unconfirmed = gifts.select_related("campaign")
        _store([_state(gift, None, None, max(heard[gift.pk], key=_weight)) for gift in unconfirmed])


def _heard(events: QuerySet[InboxEvent]) -> defaultdict[str, list[CheckoutNews]]:
    """What processed events of these tell of checkouts without money, by gift."""
    heard: defaultdict[str, list[CheckoutNews]] = defaultdict(list)
    told = events.filter(state="processed", facts__kind="checkout").values_list("facts", flat=True)
    for facts in told.iterator():
        if facts:
            occurred_at = datetime.fromisoformat(facts["occurred_at"])
            heard[facts["gift"]].append(CheckoutNews(facts["gift"], facts["status"], occurred_at))
    return heard

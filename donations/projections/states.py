"""What became of each gift: sole writer of GiftState, a function of its entries and of its checkout's facts.

A gift counts `max(0, min(sum of goal_amount, sum of amount over all kinds but fee))`: what we still hold of it,
without its fee cover.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.db import connection, transaction
from django.db.models import F, QuerySet

from donations import bulk, periods
from donations.models import Gift, GiftState, InboxEvent, LedgerEntry, RefundRequest
from donations.projections.drifts import Drift
from donations.selectors import refunds
from donations.selectors.sums import COUNTED, GIFT_KINDS, NO_FEE, SUMS

Status = GiftState.Status
RANK = {status.value: rank for rank, status in enumerate(Status)}
STATE_FIELDS = [
    field.name for field in GiftState._meta.concrete_fields if field.name not in {"gift", "refund_requested"}
]
STATE_KEPT = ("gift_id", *(field.attname for field in GiftState._meta.concrete_fields if field.name in STATE_FIELDS))
STATE_COLUMNS = (*STATE_KEPT, "refund_requested")
OF_ENTRIES = ("campaign_month", "local_date", "confirmed_at", "payment", "charged", "refunded", "disputed", "adjusted")
_renewed = ", ".join(f"{name} = excluded.{name}" for name in STATE_KEPT[1:])
OVER_THE_OLD = f"ON CONFLICT (gift_id) DO UPDATE SET {_renewed}"
_state_values = attrgetter(*STATE_KEPT)

# PostgreSQL adds whole numbers up to a decimal; amounts are whole.
_sums = ", ".join(f"CAST({name} AS bigint) AS {name}" for name in ("charged", "refunded", "disputed", "adjusted"))

# What the ledger says of each gift. Who wants some gifts alone puts another condition where {which} stands.
GIFTS_SQL = f"""
SELECT gift AS gift_id, campaign AS campaign_id, livemode, campaign_month, local_date, confirmed_at, payment, tier,
  currency, {_sums}, CAST({COUNTED} AS bigint) AS counted
FROM (
  SELECT gift, campaign, livemode,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN campaign_month END) AS campaign_month,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN local_date END) AS local_date,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN effective_at END) AS confirmed_at,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN reference END) AS payment,
    MAX(CASE WHEN kind IN {GIFT_KINDS} THEN tier END) AS tier,
    MAX(CASE WHEN {NO_FEE} THEN currency END) AS currency,
    {SUMS}
  FROM {LedgerEntry._meta.db_table} WHERE {{which}} GROUP BY gift, campaign, livemode
) sums WHERE charged > 0
"""  # noqa: S608 (the only text put in is our own table name)
GIFT_SQL = GIFTS_SQL.format(which="gift IS NOT NULL")

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
PART = 500  # gifts a statement


@dataclass(frozen=True, slots=True)
class CheckoutNews:
    """What was learned of a gift's checkout without money: its status, and when."""

    gift: str
    status: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Renewed:
    """A gift's state as it was stored, None where it wasn't, and as it is now."""

    before: GiftState | None
    after: GiftState


def renew(gifts: Mapping[str, Gift], news: Iterable[CheckoutNews]) -> list[Renewed]:
    """Make the states of these gifts anew, by reference, and store them. Gifts are locked, with their campaign.

    They are recomputed from all of a gift's entries, never added to.
    """
    stored = bulk.select(GiftState, f"WHERE {bulk.among('gift_id')}", [bulk.listed(gifts)])
    old = {state.gift_id: state for state in stored}
    confirmed = _confirmed(gifts)
    heard = {item.gift: item for item in sorted(news, key=_weight)}
    renewed = []
    for reference, gift in gifts.items():
        before = old.get(reference)
        renewed.append(Renewed(before, _state(gift, before, confirmed.get(reference), heard.get(reference))))
    _store([each.after for each in renewed])
    return renewed


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
    state = made or GiftState(gift_id=gift.pk)
    state.campaign_id, state.livemode = gift.campaign_id, gift.livemode
    state.currency, state.tier = gift.currency, gift.tier
    if made:
        state.status, state.awaiting = Status.CONFIRMED, 0
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


# ---- the counter that guards our own refunds


def hold_gift(reference: str) -> bool:
    """Lock a gift, before its requests and its state, as whoever books about it does; False where there is none."""
    return Gift.objects.select_for_update(no_key=True).filter(pk=reference).exists()


def reserve_refund(*, gift: str, amount: int) -> bool:
    """Set aside an amount for a refund of ours; False where that would give back more than is left of the gift."""
    with transaction.atomic():
        # Locked, and read only then: a condition of the update would, after a wait, see the state as it is now, and
        # entries and requests as they were before. Of two requests at once that do not both fit, one is too late.
        if not hold_gift(gift) or amount > refunds.left_of(gift):
            return False
        state = GiftState.objects.filter(pk=gift, status=Status.CONFIRMED)
        return bool(state.update(refund_requested=F("refund_requested") + amount))


def release_refund(*, request: RefundRequest, status: str, error: str = "") -> bool:
    """Free what a refund that will not happen had set aside, once; its request ends as `status`."""
    with transaction.atomic():
        hold_gift(request.gift_id)
        open_request = RefundRequest.objects.filter(pk=request.pk, status__in=["sending", "accepted"])
        released = open_request.update(status=status, error=error[:300])
        if released:
            GiftState.objects.filter(pk=request.gift_id).update(refund_requested=F("refund_requested") - request.amount)
    return bool(released)


# ---- rebuilding, and comparing


def state_drift(gifts: Iterable[Gift]) -> Iterator[Drift]:
    """Where the stored states of these gifts differ from what their entries and their checkouts' facts say.

    Gifts come with their campaign selected.
    """
    by_reference = {gift.pk: gift for gift in gifts}
    stored, confirmed = GiftState.objects.in_bulk(by_reference), _confirmed(by_reference)
    # SQLite takes the index, which holds no "", for who says that none is wanted.
    heard = _heard(InboxEvent.objects.filter(gift_reference__in=by_reference).exclude(gift_reference=""))
    for reference, gift in by_reference.items():
        news = max(heard[reference], key=_weight) if heard[reference] else None
        before = _fields(stored.get(reference))
        after = _fields(_state(gift, None, confirmed.get(reference), news))
        if before != after:
            yield Drift(GiftState._meta.db_table, reference, gift.currency, before, after)


def all_state_drift() -> Iterator[Drift]:
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


def rebuild_states() -> None:
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
    """What those of these events that stand tell of checkouts without money, by gift."""
    heard: defaultdict[str, list[CheckoutNews]] = defaultdict(list)
    told = events.filter(InboxEvent.STANDS, facts__kind="checkout").values_list("facts", flat=True)
    for facts in told.iterator():
        if facts:
            occurred_at = datetime.fromisoformat(facts["occurred_at"])
            heard[facts["gift"]].append(CheckoutNews(facts["gift"], facts["status"], occurred_at))
    return heard


def _parts(references: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(references)
    for start in range(0, len(ordered), PART):
        yield ordered[start : start + PART]

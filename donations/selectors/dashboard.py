"""The reads of the month at a glance: rollups and rows found by index, never a scan of history.

The number of queries is the same however many gifts there are.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from django.db import connection
from django.db.models import BooleanField, Count, Exists, OuterRef, Q, QuerySet, Sum
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce

from donations import money, periods
from donations.models import (
    Campaign,
    CampaignMonth,
    DailyRollup,
    Follower,
    GiftState,
    LedgerEntry,
    MonthTotal,
    OfflineRequest,
    RecurringGift,
    Tier,
)
from donations.models.recurring import MONTH
from donations.periods import Month
from donations.selectors.health import Health, health

FIRST_MONTH, LAST_MONTH = Month(2000, 1), Month(2999, 12)  # what `Month.parse` reads, and so what has a page
MONTHS_SHOWN = 6
LATEST = 6
Status = GiftState.Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """A campaign month's totals, minor units; all zero where nothing has happened."""

    raised: int = 0
    gifts: int = 0
    charged: int = 0
    refunded: int = 0
    refunds: int = 0
    disputed: int = 0
    awaiting: int = 0
    awaiting_gifts: int = 0
    followers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a month stands to its goal. A goal of 0 is no goal."""

    month: Month
    goal: int
    raised: int

    @property
    def percent(self) -> int | None:
        """Floored, not clamped; None without a goal."""
        return self.raised * 100 // self.goal if self.goal else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierShare:
    """What one choice of the form brought. `amount` is None for an amount of the donor's own."""

    amount: int | None
    name: str
    label: str
    raised: int
    supporters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiftLine:
    """A gift in one of the lists of latest gifts, minor units: `charged` is with its fee cover, `amount` without.

    What is refunded is refunded of the charge.
    """

    reference: str
    name: str
    tier: str
    status: str
    currency: str
    amount: int
    charged: int
    refunded: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerLine:
    """A follower in the list of latest followers."""

    name: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Monthly:
    """The campaign's monthly gifts as they stand now: how many are paid, and minor units a month without fee cover.

    `failing` are past due or unpaid; `failing_amount` is what they would bring.
    """

    active: int = 0
    amount: int = 0
    failing: int = 0
    failing_amount: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """A campaign month as managers see it, minor units of one currency."""

    campaign: Campaign
    month: Month
    currency: str
    elapsed: int
    goal: int
    sums: Sums
    monthly: Monthly
    failing_monthly: int
    to_approve: int
    other_currencies: tuple[tuple[str, int], ...]
    days: tuple[int, ...]
    days_before: tuple[int, ...]
    standings: tuple[Standing, ...]
    tiers: tuple[TierShare, ...]
    latest_gifts: tuple[GiftLine, ...]
    latest_awaiting: tuple[GiftLine, ...]
    latest_refunds: tuple[GiftLine, ...]
    latest_followers: tuple[FollowerLine, ...]
    health: Health

    @property
    def is_future(self) -> bool:
        return self.elapsed == 0

    @property
    def is_over(self) -> bool:
        return self.elapsed > self.month.days

    @property
    def percent(self) -> int | None:
        return self.standings[-1].percent

    @property
    def pace(self) -> int | None:
        """What an even pace to the goal has by the end of today; None without a goal or before the month."""
        if not self.goal or self.is_future:
            return None
        day = min(self.elapsed, self.month.days)
        return even_pace(goal=self.goal, currency=self.currency, day=day, days=self.month.days)

    @property
    def forecast(self) -> int | None:
        """What the month ends with if its pace holds; None unless it is under way and has raised something."""
        if self.is_future or self.is_over or not self.sums.raised:
            return None
        return money.floored(self.sums.raised * self.month.days // self.elapsed, self.currency)

    @property
    def supporters(self) -> int:
        """Gifts that count, and followers confirmed this month."""
        return self.sums.gifts + self.sums.followers


def even_pace(*, goal: int, currency: str, day: int, days: int) -> int:
    """What an even pace to the goal has at the end of a day of the month, in minor units that the currency can have."""
    return money.floored(goal * day // days, currency)


def campaigns() -> list[Campaign]:
    """Every campaign, the default one first."""
    return list(Campaign.objects.order_by("-is_default", "slug"))


def glance(*, campaign: Campaign, month: Month, livemode: bool, now: datetime) -> Glance:
    """All that the page of a campaign month shows, in the campaign's currency and one mode."""
    # Django writes `livemode=False` as NOT livemode, for which SQLite leaves the index of a month aside.
    of_mode: dict[str, Any] = {"campaign": campaign, "livemode__in": [livemode]}
    currency = campaign.currency
    shown = _last_months(month)
    totals = list(MonthTotal.objects.filter(month__in=map(str, shown), **of_mode))
    sums = {total.month: _sums(total) for total in totals if total.currency == currency}
    standings = _standings(campaign=campaign, months=shown, sums=sums)
    elapsed = _elapsed(month=month, zone=campaign.time_zone, now=now)
    rollups = DailyRollup.objects.filter(currency=currency, **of_mode)
    by_day = _by_day(rollups=rollups, months=[month.previous, month])
    states = GiftState.objects.filter(campaign_month=str(month), **of_mode).select_related("gift")
    own = sums.get(str(month), Sums())
    return Glance(
        campaign=campaign,
        month=month,
        currency=currency,
        elapsed=elapsed,
        goal=standings[-1].goal,
        sums=own,
        monthly=_monthly(campaign=campaign, livemode=livemode),
        **_in_all_campaigns(livemode=livemode),
        other_currencies=_other_currencies(totals=totals, month=month, currency=currency),
        days=_cumulative(by_day=by_day, month=month, upto=elapsed),
        days_before=_days_before(by_day=by_day, month=month.previous, zone=campaign.time_zone, now=now),
        standings=standings,
        tiers=_tiers(campaign=campaign, rollups=rollups.filter(month=str(month)), followers=own.followers),
        latest_gifts=_latest_gifts(states),
        latest_awaiting=_latest_awaiting(states),
        latest_refunds=_latest_refunds(month=month, **of_mode) if own.refunds else (),
        latest_followers=_latest_followers(Follower.objects.filter(confirmed_month=str(month), **of_mode)),
        health=health(),
    )


# ---- monthly gifts


def _monthly(*, campaign: Campaign, livemode: bool) -> Monthly:
    """Sums over the arrangements that stand, from an index that has all of it: what each asks by now.

    What is asked in another currency, or not each month, is not among them.
    """
    rows = RecurringGift.objects.filter(
        campaign=campaign,
        livemode__in=[livemode],
        status__in=[*RecurringGift.GOING_WELL, *RecurringGift.FAILING],
        now_interval__in=["", MONTH],
    )
    rows = rows.filter(Q(now_currency="", currency=campaign.currency) | Q(now_currency=campaign.currency))
    asked = Sum(Coalesce("now_amount", "amount"))
    found = rows.order_by().values_list("status").annotate(number=Count("*"), amount=asked)
    active = [(number, amount) for status, number, amount in found if status in RecurringGift.GOING_WELL]
    failing = [(number, amount) for status, number, amount in found if status in RecurringGift.FAILING]
    return Monthly(
        active=sum(number for number, _ in active),
        amount=sum(amount for _, amount in active),
        failing=sum(number for number, _ in failing),
        failing_amount=sum(amount for _, amount in failing),
    )


# ---- totals, goals and days


def _last_months(month: Month) -> list[Month]:
    """The months up to this one that have a page, the oldest first."""
    months = [month]
    while len(months) < MONTHS_SHOWN and months[0] > FIRST_MONTH:
        months.insert(0, months[0].previous)
    return months


def _sums(total: MonthTotal) -> Sums:
    return Sums(**{name: getattr(total, name) for name in Sums.__dataclass_fields__})


def _other_currencies(*, totals: list[MonthTotal], month: Month, currency: str) -> tuple[tuple[str, int], ...]:
    """What the month raised before the campaign's currency was changed: sums are per currency, always."""
    return tuple(
        (total.currency, total.raised)
        for total in totals
        if total.month == str(month) and total.currency != currency and total.raised
    )


def _standings(*, campaign: Campaign, months: list[Month], sums: dict[str, Sums]) -> tuple[Standing, ...]:
    rows = CampaignMonth.objects.filter(campaign=campaign, month__in=map(str, months))
    goals = dict(rows.values_list("month", "goal"))
    return tuple(
        Standing(
            month=month,
            goal=goals.get(str(month), campaign.default_goal_minor),
            raised=sums.get(str(month), Sums()).raised,
        )
        for month in months
    )


def _elapsed(*, month: Month, zone: str, now: datetime) -> int:
    """Days of the month that have begun in a zone: 0 before it, one more than it has when it is over."""
    current = Month.of(now, zone)
    if current == month:
        return periods.local_date(now, zone).day
    return 0 if current < month else month.days + 1


def _by_day(*, rollups: QuerySet[DailyRollup], months: list[Month]) -> Counter[date]:
    rows = rollups.filter(month__in=map(str, months), dimension="all", value="")
    return Counter(dict(rows.values_list("day", "raised")))


def _days_before(*, by_day: Counter[date], month: Month, zone: str, now: datetime) -> tuple[int, ...]:
    """The month before by day; nothing where it raised nothing."""
    if not any(by_day[day] for day in _dates(month)):
        return ()
    return _cumulative(by_day=by_day, month=month, upto=_elapsed(month=month, zone=zone, now=now))


def _dates(month: Month) -> list[date]:
    return [month.first_day + timedelta(days=number) for number in range(month.days)]


def _cumulative(*, by_day: Counter[date], month: Month, upto: int) -> tuple[int, ...]:
    """Raised so far at the end of each day that has begun; a later day counts where the processor's clock is ahead."""
    dates = _dates(month)
    latest = max((day.day for day in dates if by_day[day]), default=0)
    so_far, sums = 0, []
    for day in dates[: max(upto, latest)]:
        so_far += by_day[day]
        sums.append(so_far)
    return tuple(sums)


# ---- tiers


def _tiers(*, campaign: Campaign, rollups: QuerySet[DailyRollup], followers: int) -> tuple[TierShare, ...]:
    """Every tier of the form and every other that gifts came by: the largest first, then own amounts, then $0."""
    currency = campaign.currency
    labels = _labels(campaign)
    raised: Counter[int | None] = Counter(dict.fromkeys(labels, 0))
    gifts: Counter[int | None] = Counter({0: followers})
    by_value = rollups.filter(dimension="tier").values("value").order_by()
    for row in by_value.annotate(sum=Sum("raised"), number=Sum("gifts")):
        amount = tier_amount(row["value"], currency)
        raised[amount] += row["sum"]
        gifts[amount] += row["number"]
    amounts = {amount for amount in (*raised, *gifts) if amount != 0 or 0 in labels or followers}
    return tuple(
        TierShare(
            amount=amount,
            name=_amount_name(amount, currency),
            label=labels.get(amount or 0, "") if amount is not None else "",
            raised=raised[amount],
            supporters=gifts[amount],
        )
        for amount in sorted(amounts, key=_tier_order)
    )


def _labels(campaign: Campaign) -> dict[int, str]:
    """The tiers' labels by amount; a one-time tier's goes before a monthly one's."""
    tiers: Iterable[Tier] = Tier.objects.filter(campaign=campaign).order_by("frequency")
    return {tier.amount_minor: tier.label for tier in tiers}


def _tier_order(amount: int | None) -> tuple[int, int]:
    if amount is None:
        return (1, 0)
    return (0, -amount) if amount else (2, 0)


def tier_amount(value: str, currency: str) -> int | None:
    """A gift's tier as minor units; None for an amount of the donor's own."""
    try:
        scaled = Decimal(value).scaleb(money.exponent(currency))
        return int(scaled)
    except (InvalidOperation, ValueError, OverflowError):
        return None


def tier_name(value: str, currency: str) -> str:
    """A gift's tier for people."""
    return _amount_name(tier_amount(value, currency), currency)


def _amount_name(amount: int | None, currency: str) -> str:
    return "Other amount" if amount is None else money.format_minor(amount, currency)


# ---- the latest


def _latest_gifts(states: QuerySet[GiftState]) -> tuple[GiftLine, ...]:
    confirmed = states.filter(confirmed_at__isnull=False).order_by("-confirmed_at")
    return tuple(map(_gift_line, confirmed[:LATEST]))


def _latest_awaiting(states: QuerySet[GiftState]) -> tuple[GiftLine, ...]:
    """Of a month's states only awaiting ones have no time of confirmation: the index finds them."""
    awaiting = states.filter(confirmed_at__isnull=True, status=Status.AWAITING).order_by("-gift__created_at")
    return tuple(map(_gift_line, awaiting[:LATEST]))


# As a literal: SQLite takes a partial index for no other.
IS_REFUND = RawSQL(f"{LedgerEntry._meta.db_table}.kind = 'refund'", (), BooleanField())  # noqa: S611 (our own name)


def _latest_refunds(*, month: Month, **of_mode: Any) -> tuple[GiftLine, ...]:
    """The newest refunds of a month's gifts, each with its own amount and time; not those whose money came back."""
    same = {"processor": OuterRef("processor"), "reference": OuterRef("reference")}
    came_back = LedgerEntry.objects.filter(kind=LedgerEntry.Kind.REFUND_REVERSAL, **same)
    entries = LedgerEntry.objects.filter(IS_REFUND, ~Exists(came_back), campaign_month=str(month), **of_mode)
    latest = entries.select_related("gift__state").order_by("-effective_at", "-pk")[:LATEST]
    return tuple(
        replace(_gift_line(entry.gift.state), refunded=-entry.amount, at=entry.effective_at)
        for entry in latest
        if entry.gift
    )


def _gift_line(state: GiftState) -> GiftLine:
    gift = state.gift
    return GiftLine(
        reference=gift.pk,
        name="Anonymous" if gift.anonymous or not gift.public_name else gift.public_name,
        tier=tier_name(gift.tier, gift.currency),
        status=_status(state),
        currency=gift.currency,
        amount=max(0, state.charged - gift.fee_cover) if state.charged else gift.amount,
        charged=state.charged,
        refunded=state.refunded,
        at=state.confirmed_at or gift.created_at,
    )


def _status(state: GiftState) -> str:
    """What became of a gift, in words: what was taken back goes before what was confirmed."""
    if state.disputed > 0:
        return "disputed"
    if state.refunded > 0:
        return "refunded" if state.refunded >= state.charged else "partly refunded"
    if state.adjusted < 0:
        return "reversed" if state.is_reversed else "adjusted"
    return str(Status(state.status).label)


def _latest_followers(followers: QuerySet[Follower]) -> tuple[FollowerLine, ...]:
    latest = followers.select_related("donor").order_by("-confirmed_at")[:LATEST]
    return tuple(
        FollowerLine(name=(follower.donor and follower.donor.name) or "No name given", at=follower.confirmed_at)
        for follower in latest
        if follower.confirmed_at
    )


IN_ALL_CAMPAIGNS = f"""
SELECT
  (SELECT COUNT(*) FROM {RecurringGift._meta.db_table} WHERE status IN ('past_due', 'unpaid') AND livemode = %s),
  (SELECT COUNT(*) FROM {OfflineRequest._meta.db_table} WHERE status = 'waiting' AND livemode = %s)
"""  # noqa: S608 (the only texts put in are our own table names)


def _in_all_campaigns(*, livemode: bool) -> dict[str, int]:
    """Monthly gifts that fail, and what staff entered and another person has to approve or reject.

    In literal states, as SQLite takes the partial indexes for these alone.
    """
    with connection.cursor() as cursor:
        cursor.execute(IN_ALL_CAMPAIGNS, [livemode, livemode])
        return dict(zip(("failing_monthly", "to_approve"), cursor.fetchone(), strict=True))

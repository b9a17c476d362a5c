"""The month at a glance, for managers: `/staff/` and `/staff/<campaign>/<YYYY-MM>/`."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib.auth.decorators import login_required, user_passes_test
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from donations import charts, money
from donations.charts import amount_text
from donations.models import Campaign, MonthStatement
from donations.periods import Month
from donations.selectors import dashboard, statements
from donations.selectors.dashboard import FollowerLine, GiftLine, Glance, TierShare
from donations.selectors.health import Check, Health, troubles
from donations.views.context import banner


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A figure with its name and what it means. Where a card is too narrow, its amount breaks before the currency."""

    name: str
    value: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRow:
    """A day of the curve's table, in words."""

    day: str
    raised: str
    pace: str
    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRow:
    """A tier's line, in words; `width` is its share of what was raised, 0 to 100."""

    name: str
    label: str
    width: int
    share: str
    supporters: str
    raised: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestRow:
    """A line of one of the lists of what came last, in words."""

    reference: str
    name: str
    amount: str
    tier: str
    status: str
    at: datetime
    when: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestList:
    """One of the lists of gifts."""

    title: str
    empty: str
    rows: list[LatestRow]


def may_see_totals(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether a signed-in user is of the staff and may see totals. Raises PermissionDenied else."""
    if isinstance(user, User) and user.is_staff and user.has_perm("donations.view_monthtotal"):
        return True
    raise PermissionDenied


@cache_control(no_store=True)
@require_safe
@login_required(login_url="admin:login")
@user_passes_test(may_see_totals)
def this_month(request: HttpRequest) -> HttpResponse:
    """To the current month of the default campaign; without a campaign, a page that says so."""
    campaign = next(iter(dashboard.campaigns()), None)
    if campaign is None:
        return render(request, "donations/staff/month.html", {"glance": None})
    return redirect("staff-month", campaign.slug, str(Month.of(timezone.now(), campaign.time_zone)))


@cache_control(no_store=True)
@require_safe
@login_required(login_url="admin:login")
@user_passes_test(may_see_totals)
def month(request: HttpRequest, campaign: str, month: str) -> HttpResponse:
    """A campaign month in the site's own mode. A campaign or month that cannot be is not found."""
    shown, campaigns = _month(month), dashboard.campaigns()
    chosen = next((each for each in campaigns if each.slug == campaign), None)
    if chosen is None:
        raise Http404("There is no such campaign.")
    now = timezone.now()
    glance = dashboard.glance(campaign=chosen, month=shown, livemode=settings.LIVEMODE, now=now)
    statement = statements.of_month(campaign=campaign, month=shown, livemode=settings.LIVEMODE)
    # A name may be that of a donor who wants to stay unnamed.
    named = request.user.has_perm("donations.view_donor")
    page = _page(glance=glance, campaigns=campaigns, now=now, named=named)
    page |= {
        "banner": banner(request.user, troubles(glance.health)),
        "statement": statement,
        "restated": _restated(glance, statement) if statement else "",
    }
    return render(request, "donations/staff/month.html", page)


def _restated(glance: Glance, statement: MonthStatement) -> str:
    """What was raised when the month was closed, where it is another sum now."""
    closed = int(statement.counted.get(glance.currency, 0))
    return amount_text(closed, glance.currency) if closed != glance.sums.raised else ""


def _month(text: str) -> Month:
    try:
        return Month.parse(text)
    except ValueError as error:
        raise Http404("A month is written like 2024-11.") from error


def _page(*, glance: Glance, campaigns: list[Campaign], now: datetime, named: bool) -> dict[str, object]:
    """Everything that the template writes, in words and places. `named`: also who followed."""
    figures = charts.Figures(
        currency=glance.currency,
        days=glance.month.days,
        raised=glance.days,
        before=glance.days_before,
        goal=glance.goal,
        forecast=glance.forecast,
    )
    return {
        "glance": glance,
        "campaigns": campaigns if len(campaigns) > 1 else [],
        "earlier": glance.month.previous if glance.month > dashboard.FIRST_MONTH else None,
        "later": glance.month.next if glance.month < dashboard.LAST_MONTH else None,
        "current": Month.of(now, glance.campaign.time_zone),
        "cards": list(_cards(glance)),
        "other_currencies": [amount_text(raised, currency) for currency, raised in glance.other_currencies],
        "curves": [charts.curve(figures=figures, frame=frame) for frame in (charts.WIDE, charts.NARROW)],
        "summary": " ".join(_summary(glance)),
        "days": list(_day_rows(glance)),
        "tiers": [_tier_row(tier=tier, glance=glance) for tier in glance.tiers],
        "columns": charts.columns(standings=glance.standings),
        "latest": list(_latest(glance)),
        "followers": [
            _follower_row(line=line, zone=glance.campaign.time_zone, named=named) for line in glance.latest_followers
        ],
        "health": list(_health_words(health=glance.health, now=now)),
        "books": "; ".join(_books_words(health=glance.health, now=now)),
        "to_approve": _to_approve_words(glance.to_approve),
        "is_late": glance.health.is_late(),
    }


# ---- the figures


def _cards(glance: Glance) -> Iterator[Card]:
    sums = glance.sums
    yield Card(name="Raised", value=money.format_minor(sums.raised, glance.currency), notes=_against_goal(glance))
    yield Card(name="Pace", value=_pace_value(glance), notes=_pace_notes(glance))
    yield _forecast_card(glance)
    on_the_way = f"{count_text(sums.awaiting_gifts, 'gift')}, not counted yet" if sums.awaiting_gifts else "no gifts"
    yield Card(name="Awaiting", value=money.format_minor(sums.awaiting, glance.currency), notes=(on_the_way,))
    yield _refunds_card(glance)
    if glance.monthly.active or glance.monthly.failing:
        yield _monthly_card(glance)
    yield Card(
        name="Followers",
        value=f"{sums.followers:,}",
        notes=("the month has not begun" if glance.is_future else "confirmed in this month",),
    )


def _against_goal(glance: Glance) -> tuple[str, ...]:
    """How much of the goal, and what is missing or above it."""
    if glance.percent is None:
        return ("no goal is set",)
    goal, difference = amount_text(glance.goal, glance.currency), glance.sums.raised - glance.goal
    share = f"{glance.percent:,}% of {goal}"
    if difference >= 0:
        above = amount_text(difference, glance.currency)
        return (share, f"{above} above the goal" if difference else "exactly the goal")
    return (share, f"{amount_text(-difference, glance.currency)} to go")


def _pace_value(glance: Glance) -> str:
    if glance.pace is None:
        return "–"
    difference = glance.sums.raised - glance.pace
    return ("+" if difference > 0 else "") + money.format_minor(difference, glance.currency)


def _pace_notes(glance: Glance) -> tuple[str, ...]:
    if not glance.goal:
        return ("no goal to keep pace with",)
    if glance.pace is None:
        return ("the month has not begun",)
    difference = glance.sums.raised - glance.pace
    words = "ahead of" if difference > 0 else "behind" if difference < 0 else "exactly on"
    until = "the goal; the month is over" if glance.is_over else f"an even pace by the end of day {glance.elapsed}"
    return (f"{words} {until}",)


def _forecast_card(glance: Glance) -> Card:
    if glance.forecast is not None:
        notes: tuple[str, ...] = ("if the pace holds",)
        if glance.goal:
            notes += (f"{glance.forecast * 100 // glance.goal:,}% of the goal",)
        return Card(name="Forecast", value=money.format_minor(glance.forecast, glance.currency), notes=notes)
    return Card(name="Forecast", value="–", notes=(_why_no_forecast(glance),))


def _why_no_forecast(glance: Glance) -> str:
    if glance.is_future:
        return "the month has not begun"
    return "the month is over" if glance.is_over else "nothing to go by yet"


def _refunds_card(glance: Glance) -> Card:
    sums = glance.sums
    notes = [count_text(sums.refunds, "gift") if sums.refunds else "no gifts"]
    if sums.refunds and sums.charged > 0:
        notes.append(f"{share_text(sums.refunded, sums.charged)} of what was paid")
    if sums.disputed > 0:
        notes.append(f"and {amount_text(sums.disputed, glance.currency)} disputed")
    return Card(name="Refunds", value=money.format_minor(sums.refunded, glance.currency), notes=tuple(notes))


def _monthly_card(glance: Glance) -> Card:
    """What stands now, whichever month is shown."""
    monthly = glance.monthly
    notes = [f"{count_text(monthly.active, 'monthly gift')}, as of now"]
    if monthly.failing:
        amount = amount_text(monthly.failing_amount, glance.currency)
        notes.append(f"and {amount} past due or unpaid ({monthly.failing:,})")
    return Card(name="Each month", value=money.format_minor(monthly.amount, glance.currency), notes=tuple(notes))


def share_text(part: int, whole: int) -> str:
    """A share in percent to a tenth; what is not nothing never reads as nothing."""
    tenths = (part * 2000 + whole) // (whole * 2)
    if part > 0 and not tenths:
        return "under 0.1%"
    return f"{tenths // 10:,}.{tenths % 10}%" if tenths % 10 else f"{tenths // 10:,}%"


def count_text(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# ---- the curve, in words


def _summary(glance: Glance) -> Iterator[str]:
    """What the drawing says, for those who do not see it."""
    name, raised = glance.month.label, amount_text(glance.sums.raised, glance.currency)
    if glance.is_future:
        yield f"{name} has not begun."
    else:
        yield f"{name}: {raised} raised" + ("." if glance.is_over else f" by day {glance.elapsed}.")
    if glance.goal:
        yield f"The goal is {amount_text(glance.goal, glance.currency)}."
    if glance.pace is not None and not glance.is_over:
        yield f"An even pace would be at {amount_text(glance.pace, glance.currency)} by the end of today."
    if glance.forecast is not None:
        yield f"If the pace holds, the month ends with {amount_text(glance.forecast, glance.currency)}."
    if glance.days_before:
        before = amount_text(glance.days_before[-1], glance.currency)
        ended = "has so far" if len(glance.days_before) < glance.month.previous.days else "ended with"
        yield f"{glance.month.previous.label} {ended} {before}."
    yield "The table below has each day."


def _day_rows(glance: Glance) -> Iterator[DayRow]:
    month = glance.month
    for day in range(1, month.days + 1):
        pace = dashboard.even_pace(goal=glance.goal, currency=glance.currency, day=day, days=month.days)
        yield DayRow(
            day=str(day),
            raised=_sum_of_day(glance.days, day, glance.currency) or "not yet",
            pace=amount_text(pace, glance.currency),
            before=_sum_of_day(glance.days_before, day, glance.currency)
            or ("not yet" if day <= month.previous.days else "no such day"),
        )


def _sum_of_day(sums: tuple[int, ...], day: int, currency: str) -> str:
    return amount_text(sums[day - 1], currency) if day <= len(sums) else ""


# ---- tiers


def _tier_row(*, tier: TierShare, glance: Glance) -> TierRow:
    noun = "follower" if tier.amount == 0 else "gift"
    supporters = count_text(tier.supporters, noun)
    if tier.supporters:
        supporters += f", {share_text(tier.supporters, max(glance.supporters, 1))} of supporters"
    whole = max(glance.sums.raised, 1)
    return TierRow(
        name=tier.name,
        label=tier.label,
        width=min(100, tier.raised * 100 // whole),
        share="no money asked" if tier.amount == 0 else share_text(tier.raised, whole),
        supporters=supporters,
        raised="–" if tier.amount == 0 else amount_text(tier.raised, glance.currency),
    )


# ---- the latest


def _latest(glance: Glance) -> Iterator[LatestList]:
    zone = glance.campaign.time_zone
    for title, empty, lines in (
        ("Latest gifts", "No gifts are confirmed in this month.", glance.latest_gifts),
        ("Latest awaiting", "No payments are on their way.", glance.latest_awaiting),
        ("Latest refunds", "No refunds of this month’s gifts.", glance.latest_refunds),
    ):
        rows = [_latest_row(line=line, zone=zone, refund=lines is glance.latest_refunds) for line in lines]
        yield LatestList(title=title, empty=empty, rows=rows)


def _latest_row(*, line: GiftLine, zone: str, refund: bool) -> LatestRow:
    amount, charged, refunded = (
        amount_text(each, line.currency) for each in (line.amount, line.charged, line.refunded)
    )
    return LatestRow(
        reference=line.reference,
        name=line.name,
        amount=f"{refunded} of {charged}" if refund else amount,
        tier=line.tier,
        status=line.status,
        at=line.at,
        when=_when(line.at, zone),
    )


def _follower_row(*, line: FollowerLine, zone: str, named: bool) -> dict[str, object]:
    return {"name": line.name if named else "A follower", "at": line.at, "when": _when(line.at, zone)}


def _when(instant: datetime, zone: str) -> str:
    """An instant by the campaign's clocks: `18 Nov, 09:05`."""
    local = instant.astimezone(ZoneInfo(zone))
    return f"{local.day} {local:%b, %H:%M}"


# ---- health


def _health_words(*, health: Health, now: datetime) -> Iterator[str]:
    """The line of health: what arrived last, what lies in the inbox, and which refunds nobody answered."""
    if health.last_received is None:
        yield "No event was ever received"
    else:
        yield f"Last event {ago(now - health.last_received)} ago"
    if health.oldest_unprocessed is None:
        yield "nothing unprocessed"
    else:
        yield f"{health.unprocessed:,} unprocessed, the oldest for {ago(now - health.oldest_unprocessed)}"
    yield f"{health.waiting:,} waiting"
    yield f"{health.quarantined:,} quarantined"
    yield f"{health.wrong_mode:,} of the wrong mode"
    yield f"{count_text(health.refunds_unanswered, 'refund')} unanswered"


def _to_approve_words(number: int) -> str:
    if not number:
        return ""
    return "1 entry waits for approval" if number == 1 else f"{number:,} entries wait for approval"


def _books_words(*, health: Health, now: datetime) -> Iterator[str]:
    """Whether the books are equal in themselves and, once compared, to the processor's; and since when."""
    yield _check_words(check=health.books, now=now)
    if health.reconcile.is_equal is not None:
        yield f"against the processor’s: {_check_words(check=health.reconcile, now=now)}"


def _check_words(*, check: Check, now: datetime) -> str:
    if check.is_equal is None or check.since is None:
        return "not checked yet"
    return f"{answer_words(check)} for {ago(now - check.since)}"


def answer_words(check: Check) -> str:
    """Whether a check found both equal."""
    if check.is_equal:
        return "equal"
    return "not equal" if check.findings else f"differ, all explained ({check.explained:,})"


def ago(age: timedelta) -> str:
    """A length of time in its largest unit: `3 minutes`."""
    seconds = max(0, int(age.total_seconds()))
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return count_text(seconds // size, unit)
    return count_text(seconds, "second")

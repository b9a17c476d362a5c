"""Months that staff close, and what the statement of each must go on saying, whatever is booked afterwards."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib.auth.models import User

from donations import closing
from donations.models import Campaign, LedgerEntry, MonthStatement
from donations.periods import Month

Sums = dict[tuple[str, str], tuple[int, int]]  # kind and currency: rows, and minor units
IsWaiting = Callable[[str, date], bool]


@dataclass(frozen=True)
class Closed:
    """A statement, and what our own reading of the entries said when it was made."""

    statement: MonthStatement
    sums: Sums
    bar: dict[str, int]


class Months:
    """`wrong` is what was closed though it may not, and statements that the books do not bear out."""

    def __init__(self, rng: random.Random, campaigns: list[Campaign], is_waiting: IsWaiting) -> None:
        self.rng, self.campaigns, self.is_waiting = rng, campaigns, is_waiting
        self.closed: dict[tuple[str, str], Closed] = {}
        self.wrong: list[str] = []

    def close(self, user: User) -> None:
        """The last month, mostly; else one that is not over. What is open stands in the way, unless with a reason."""
        campaign = self.rng.choice(self.campaigns)
        now = datetime.now(UTC).astimezone(ZoneInfo(campaign.time_zone))
        month = Month(now.year, now.month) if self.rng.random() < 0.2 else Month(now.year, now.month).previous
        reason = "the auditor waits" if self.rng.random() < 0.7 else ""
        statement = closing.close(campaign=campaign, month=month, user=user, in_spite_because=reason)
        made = Closed(statement, sums_of(statement, newest=True), bar_of(statement, newest=True))
        if (campaign.pk, str(month)) in self.closed:
            self.wrong.append(f"{statement} was closed a second time")
        if now.date() < month.next.first_day:
            self.wrong.append(f"{statement} was closed before it was over")
        if not reason and self.is_waiting(campaign.pk, month.next.first_day - timedelta(days=1)):
            self.wrong.append(f"{statement} was closed over what waits for approval")
        self.closed[campaign.pk, str(month)] = made

    def look_back(self, bars: dict[tuple[str, str, str], int]) -> None:
        """In the end: each statement as it was, and beside it what the books say now; `bars` is what bars must show."""
        for (campaign, month), made in self.closed.items():
            statement = MonthStatement.objects.get(pk=made.statement.pk)
            told = {(row["kind"], row["currency"]): (row["rows"], row["amount"]) for row in statement.totals}
            now, bar = sums_of(statement, newest=False), bar_of(statement, newest=False)
            compared = closing.compare(statement)
            self._expect(statement, "totals", told, made.sums)
            self._expect(statement, "entries", sums_of(statement, newest=True), made.sums)
            self._expect(statement, "bar", without_zeros(statement.counted), without_zeros(made.bar))
            lines = {(line.kind, line.currency): (line.rows[1], line.amount[1]) for line in compared.lines}
            self._expect(statement, "restated", {key: both for key, both in lines.items() if any(both)}, now)
            counted = {line.currency: line.amount[1] for line in compared.counted}
            self._expect(statement, "restated bar", without_zeros(counted), without_zeros(bar))
            for currency, amount in counted.items():
                self._expect(statement, "bar by now", amount, bars.get((campaign, month, currency), 0))
            self._expect(statement, "is restated", compared.is_restated, (now, bar) != (made.sums, made.bar))
            self.wrong += [f"{statement} is not borne out: {name}" for name in closing.verify(statement)]

    def _expect(self, statement: MonthStatement, what: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            self.wrong.append(f"{statement}, {what}: {found}, and it should be {wanted}")


def sums_of(statement: MonthStatement, *, newest: bool) -> Sums:
    """What the entries of its days add up to: those of then, or all by now."""
    zone = ZoneInfo(statement.campaign.time_zone)
    rows, amounts = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    entries = _entries(statement, newest=newest).values_list("kind", "currency", "amount", "effective_at")
    for kind, currency, amount, at in entries:
        if f"{at.astimezone(zone):%Y-%m}" == statement.month:
            rows[kind, currency] += 1
            amounts[kind, currency] += amount
    return {key: (rows[key], amounts[key]) for key in rows}


def bar_of(statement: MonthStatement, *, newest: bool) -> dict[str, int]:
    """What the month's gifts count, by those entries."""
    entries = _entries(statement, newest=newest)
    gifts = entries.filter(kind__in=["gift", "offline_gift"], campaign_month=statement.month).values("gift_id")
    goal, held, currencies = Counter[str](), Counter[str](), {}
    for entry in entries.filter(gift__in=gifts).exclude(kind="fee"):
        goal[str(entry.gift_id)] += entry.goal_amount
        held[str(entry.gift_id)] += entry.amount
        currencies[str(entry.gift_id)] = entry.currency
    bar: defaultdict[str, int] = defaultdict(int)
    for gift, currency in currencies.items():
        bar[currency] += max(0, min(goal[gift], held[gift]))
    return dict(bar)


def _entries(statement: MonthStatement, *, newest: bool) -> Any:
    entries = LedgerEntry.objects.filter(campaign=statement.campaign_id)
    return entries.filter(pk__lte=statement.newest_entry) if newest else entries


def without_zeros(sums: dict[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in sums.items() if amount}

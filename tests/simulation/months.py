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
        """One of the last months, or the one that is not over. What is open stands in the way, unless with a reason."""
        campaign = self.rng.choice(self.campaigns)
        now = datetime.now(UTC).astimezone(ZoneInfo(campaign.time_zone))
        month = Month(now.year, now.month)
        for _ in range(self.rng.randint(0, 3)):
            month = month.previous
        reason = "the auditor waits" if self.rng.random() < 0.7 else ""
        statement = closing.close(campaign=campaign, month=month, user=user, in_spite_because=reason)
        if (campaign.pk, str(month)) in self.closed:
            self.wrong.append(f"{statement} was closed a second time")
        if now.date() < month.next.first_day:
            self.wrong.append(f"{statement} was closed before it was over")
        if not reason and self.is_waiting(campaign.pk, month.next.first_day - timedelta(days=1)):
            self.wrong.append(f"{statement} was closed over what waits for approval")
        self.closed[campaign.pk, str(month)] = closed(statement)

    def look_back(self, bars: dict[tuple[str, str, str], int]) -> None:
        """In the end: each statement as it was, and beside it what the books say now; `bars` is what bars must show."""
        for (campaign, month), made in self.closed.items():
            self.wrong += differences(made)
            for line in closing.compare(made.statement).counted:
                if line.amount[1] != (wanted := bars.get((campaign, month, line.currency), 0)):
                    self.wrong.append(f"beside {made.statement} the bar is {line.amount[1]}, and it should be {wanted}")


def closed(statement: MonthStatement) -> Closed:
    """A statement that was just made, with our own reading of its entries."""
    return Closed(statement, sums_of(statement, then=True), bar_of(statement, then=True))


def differences(made: Closed) -> list[str]:
    """What a statement says otherwise than when it was made, or says of now and is not so."""
    statement = MonthStatement.objects.get(pk=made.statement.pk)
    told = {(row["kind"], row["currency"]): (row["rows"], row["amount"]) for row in statement.totals}
    now, bar, compared = sums_of(statement, then=False), bar_of(statement, then=False), closing.compare(statement)
    lines = {(line.kind, line.currency): (line.rows[1], line.amount[1]) for line in compared.lines}
    counted = {line.currency: line.amount[1] for line in compared.counted}
    found = {
        "totals": (told, made.sums),
        "entries": (sums_of(statement, then=True), made.sums),
        "bar": (without_zeros(statement.counted), made.bar),
        "restated": ({key: both for key, both in lines.items() if any(both)}, now),
        "restated bar": (without_zeros(counted), bar),
        "whether the books are restated": (compared.books_are_restated, now != made.sums),
        "whether the bar is restated": (compared.bar_is_restated, bar != made.bar),
        "what is not borne out": (closing.verify(statement), []),
    }
    return [f"{statement}, {what}: {one}, and it should be {two}" for what, (one, two) in found.items() if one != two]


def sums_of(statement: MonthStatement, *, then: bool) -> Sums:
    """What the entries of its days add up to: those of then, or all by now."""
    zone = ZoneInfo(statement.campaign.time_zone)
    rows, amounts = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    entries = _entries(statement, then=then).values_list("kind", "currency", "amount", "effective_at")
    for kind, currency, amount, at in entries:
        if f"{at.astimezone(zone):%Y-%m}" == statement.month:
            rows[kind, currency] += 1
            amounts[kind, currency] += amount
    return {key: (rows[key], amounts[key]) for key in rows}


def bar_of(statement: MonthStatement, *, then: bool) -> dict[str, int]:
    """What the month's gifts count, by those entries."""
    entries = _entries(statement, then=then)
    gifts = entries.filter(kind__in=["gift", "offline_gift"], campaign_month=statement.month).values("gift_id")
    goal, held, currencies = Counter[str](), Counter[str](), {}
    for entry in entries.filter(gift__in=gifts).exclude(kind="fee"):
        goal[str(entry.gift_id)] += entry.goal_amount
        held[str(entry.gift_id)] += entry.amount
        currencies[str(entry.gift_id)] = entry.currency
    bar: defaultdict[str, int] = defaultdict(int)
    for gift, currency in currencies.items():
        bar[currency] += max(0, min(goal[gift], held[gift]))
    return without_zeros(bar)


def _entries(statement: MonthStatement, *, then: bool) -> Any:
    entries = LedgerEntry.objects.filter(campaign=statement.campaign_id)
    return entries.filter(pk__lte=statement.newest_entry) if then else entries


def without_zeros(sums: dict[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in sums.items() if amount}

"""The bar of a campaign month: one query, and a read-cache that is never more than a second behind."""

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from donations import money
from donations.models import Campaign, CampaignMonth, MonthTotal
from donations.models.campaigns import SLUG
from donations.periods import Month
from donations.reconnecting import AWAY, reconnecting

log = logging.getLogger(__name__)
FRESH_SECONDS = 0.8
OLDEST_SECONDS = 0.9
MOST_KEPT = 256
LOCKS = 64
T = TypeVar("T")


class UnknownCampaign(LookupError):
    """There is no campaign of this name, or none is the default."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a campaign month's bar shows. Amounts are minor units of `currency`; `changed_at` is UTC."""

    campaign: str
    name: str
    month: Month
    currency: str
    time_zone: str
    goal: int
    scale: tuple[int, ...]
    """The marks, from 0 to the goal; 0 alone where the goal is 0, which is no goal."""
    raised: int
    pending: int
    gifts: int
    followers: int
    changed_at: datetime

    @property
    def supporters(self) -> int:
        return self.gifts + self.followers


def bar(campaign: str | None, month: Month | None) -> Bar:
    """The bar of a month, now the current one in the campaign's zone. Raises UnknownCampaign. Always read anew."""
    # What is no campaign's name is not asked for: PostgreSQL fails on some texts.
    if campaign is not None and not re.fullmatch(SLUG, campaign):
        raise UnknownCampaign(campaign)
    chosen = Q(pk=campaign) if campaign is not None else Q(is_default=True)
    fund = Campaign.objects.filter(chosen).first()
    if fund is None:
        raise UnknownCampaign(campaign or "the default")
    shown = month or Month.of(timezone.now(), fund.time_zone)
    own = CampaignMonth.objects.filter(campaign=fund, month=str(shown)).first()
    total = MonthTotal.objects.filter(
        campaign=fund, month=str(shown), livemode=settings.LIVEMODE, currency=fund.currency
    ).first()
    goal = own.goal if own else fund.default_goal_minor
    return Bar(
        campaign=fund.pk,
        name=fund.name,
        month=shown,
        currency=fund.currency,
        time_zone=fund.time_zone,
        goal=goal,
        scale=marks(own.scale if own else (), goal, fund.currency),
        raised=total.raised if total else 0,
        pending=total.awaiting if total else 0,
        gifts=total.gifts if total else 0,
        followers=total.followers if total else 0,
        changed_at=total.changed_at if total else shown.start(fund.time_zone),
    )


def marks(own: Iterable[int], goal: int, currency: str) -> tuple[int, ...]:
    """A bar's marks, minor units in rising order: 0, the month's own below the goal or else its half, and the goal.

    The bar ends at the goal, so there is no place for a mark above it.
    """
    between = tuple(own) or (money.floored(goal // 2, currency),)
    return tuple(sorted({0, goal, *(mark for mark in between if 0 < mark < goal)}))


class Fresh(Generic[T]):
    """A read-cache of one process: each key is made anew by one thread, and none is served when it is a second old.

    While the database is away nothing can be booked that it would lack: then the last one stands, however old.
    """

    def __init__(
        self, make: Callable[[str | None, str | None], T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.make = make
        self.clock = clock
        self.kept: OrderedDict[tuple[str | None, str | None], tuple[float, T]] = OrderedDict()
        # As many as there ever are: what readers ask for must not grow them.
        self.locks = [threading.Lock() for _ in range(LOCKS)]

    def get(self, campaign: str | None, month: str | None) -> T:
        """The value, at most a second old. While one thread makes it anew the others are served the last one."""
        key = (campaign, month)
        held = self.kept.get(key)
        age = self.clock() - held[0] if held else OLDEST_SECONDS
        if held and age < FRESH_SECONDS:
            return held[1]
        lock = self.locks[hash(key) % LOCKS]
        if held and age < OLDEST_SECONDS:
            if not lock.acquire(blocking=False):
                return held[1]
        else:
            lock.acquire()
        try:
            return self._made(key, held)
        finally:
            lock.release()

    def _made(self, key: tuple[str | None, str | None], seen: tuple[float, T] | None) -> T:
        held = self.kept.get(key)
        if held and held is not seen and self.clock() - held[0] < FRESH_SECONDS:
            return held[1]
        began = self.clock()
        try:
            value = reconnecting(lambda: self.make(*key))
        except AWAY:
            if held is None:
                raise
            log.warning("the database is away: readers are shown the last bar that was read")
            return held[1]
        self.kept[key] = (began, value)
        while len(self.kept) > MOST_KEPT:
            self.kept.popitem(last=False)
        return value

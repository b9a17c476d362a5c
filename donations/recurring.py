"""Sole writer of the state of monthly gifts: a function of what the processor told of each, in any order."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import transaction

from donations import bulk
from donations.models import InboxEvent, RecurringGift
from donations.processors.facts import (
    MonthlyCheckout,
    RecurringChanged,
    fact_from_json,
)

Status = RecurringGift.Status
RANK = {status.value: rank for rank, status in enumerate(Status)}
BEFORE_IT_BEGAN = {Status.PENDING.value, Status.EXPIRED.value}
ENDS = {Status.CANCELED.value, Status.INCOMPLETE_EXPIRED.value}
COLUMNS = ("reference", "status", "subscription", "heard_at", "cancel_at", "ended_at")
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RecurringNews:
    """What was learned of a monthly gift. Of two news the heavier stands, whatever order they are heard in."""

    recurring_gift: str
    status: str
    subscription: str
    heard_at: datetime | None = None
    cancel_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def weight(self) -> tuple[bool, bool, datetime, int, datetime]:
        """An end outweighs all; then what is told later; within a second, what comes later in a subscription's life."""
        begun = self.status not in BEFORE_IT_BEGAN
        return (self.status in ENDS, begun, self.heard_at or NEVER, RANK[self.status], self.cancel_at or NEVER)


def news_of(fact: RecurringChanged | MonthlyCheckout) -> RecurringNews:
    """What a fact says of a monthly gift's state. A completed checkout says which subscription it began, no more."""
    if isinstance(fact, MonthlyCheckout):
        ended = fact.status in {"expired", "failed"}
        return RecurringNews(fact.recurring_gift, Status.EXPIRED if ended else Status.PENDING, fact.subscription)
    return RecurringNews(
        fact.recurring_gift, fact.status, fact.subscription, fact.occurred_at, fact.cancel_at, fact.ended_at
    )


def apply(recurring: Mapping[str, RecurringGift], news: Iterable[RecurringNews]) -> None:
    """Bring these monthly gifts' states up to date. Call it in the booking transaction, their rows locked."""
    heard: defaultdict[str, list[RecurringNews]] = defaultdict(list)
    for each in news:
        heard[each.recurring_gift].append(each)
    rows = [state_of([_stored(recurring[reference]), *heard[reference]]) for reference in sorted(heard)]
    bulk.update(RecurringGift, COLUMNS, rows)


def state_of(news: list[RecurringNews]) -> list[Any]:
    """The row that all that was ever heard of one monthly gift amounts to, as COLUMNS has it."""
    heaviest = max(news, key=lambda each: each.weight)
    subscription = heaviest.subscription or max(each.subscription for each in news)
    return [
        heaviest.recurring_gift,
        heaviest.status,
        subscription,
        heaviest.heard_at,
        heaviest.cancel_at,
        heaviest.ended_at,
    ]


def _stored(gift: RecurringGift) -> RecurringNews:
    return RecurringNews(gift.pk, gift.status, gift.subscription, gift.heard_at, gift.cancel_at, gift.ended_at)


# ---- from nothing


def rebuild() -> None:
    """Make every state anew from the processed facts, in one transaction."""
    with transaction.atomic():
        locked = {gift.pk: gift for gift in RecurringGift.objects.order_by("pk").select_for_update(no_key=True)}
        bulk.update(RecurringGift, COLUMNS, [state_of(_all_news(reference)) for reference in locked])


@dataclass(frozen=True, slots=True)
class Drift:
    """A monthly gift whose stored state differs from what the facts say, as COLUMNS has them."""

    reference: str
    stored: list[Any]
    rebuilt: list[Any]

    def __str__(self) -> str:
        return f"monthly gift {self.reference}: stored {self.stored[1:]}, rebuilt {self.rebuilt[1:]}"


def drift() -> list[Drift]:
    """Where what is stored differs from what the facts say."""
    differing = []
    for gift in RecurringGift.objects.order_by("pk").iterator():
        stored, rebuilt = state_of([_stored(gift)]), state_of(_all_news(gift.pk))
        if stored != rebuilt:
            differing.append(Drift(gift.pk, stored, rebuilt))
    return differing


def _all_news(reference: str) -> list[RecurringNews]:
    events = InboxEvent.objects.filter(gift_reference=reference, state="processed", facts__isnull=False)
    facts = [fact_from_json(facts) for facts in events.values_list("facts", flat=True) if facts]
    told = [news_of(fact) for fact in facts if isinstance(fact, (RecurringChanged, MonthlyCheckout))]
    return [RecurringNews(reference, Status.PENDING, ""), *told]

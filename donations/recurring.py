"""Sole writer of the state of monthly gifts: a function of what the processor told of each, in any order."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import transaction

from donations import bulk, money
from donations.models import InboxEvent, RecurringGift
from donations.models.recurring import Terms
from donations.processors.facts import MonthlyCheckout, RecurringChanged, fact_from_json

Status = RecurringGift.Status
RANK = {status.value: rank for rank, status in enumerate(Status)}
COLUMNS = (
    "reference",
    "status",
    "subscription",
    "heard_at",
    "cancel_at",
    "ended_at",
    "now_amount",
    "now_fee_cover",
    "now_currency",
    "now_interval",
)
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
    terms: Terms | None = None

    @property
    def weight(self) -> tuple[bool, bool, datetime, int, datetime, tuple[int | str, ...]]:
        """An end outweighs all; then what is told later; within a second, what comes later in a subscription's life.

        Of two that are alike in all that, the one that tells what is asked; of two such, the one that asks more.
        """
        begun = self.status not in RecurringGift.WITHOUT_SUBSCRIPTION
        ended = self.status in RecurringGift.ENDED
        asks = _columns_of(self.terms) if self.terms else ()
        return (ended, begun, self.heard_at or NEVER, RANK[self.status], self.cancel_at or NEVER, asks)


def fee_cover_among(amounts: tuple[int, ...], currency: str, gift: RecurringGift) -> int:
    """How much of what is asked in these parts is the monthly gift's fee cover: the part that is as its checkout was.

    Where there is none, or nothing beside it, all is the gift. What a part is called is not told.
    """
    is_unchanged = currency == gift.currency and gift.fee_cover in amounts
    return gift.fee_cover if is_unchanged and gift.fee_cover < sum(amounts) else 0


def news_of(fact: RecurringChanged | MonthlyCheckout, gift: RecurringGift) -> RecurringNews:
    """What a fact says of this monthly gift's state. A completed checkout says which subscription it began, no more."""
    if isinstance(fact, MonthlyCheckout):
        ended = fact.status in {"expired", "failed"}
        return RecurringNews(fact.recurring_gift, Status.EXPIRED if ended else Status.PENDING, fact.subscription)
    return RecurringNews(
        fact.recurring_gift,
        fact.status,
        fact.subscription,
        fact.occurred_at,
        fact.cancel_at,
        fact.ended_at,
        _terms_of(fact, gift),
    )


def _terms_of(fact: RecurringChanged, gift: RecurringGift) -> Terms | None:
    if not fact.amounts:
        return None
    cover = fee_cover_among(fact.amounts, fact.currency, gift)
    return Terms(sum(fact.amounts) - cover, cover, fact.currency, fact.interval)


def _columns_of(terms: Terms) -> tuple[int, int, str, str]:
    return terms.amount, terms.fee_cover, terms.currency, terms.interval


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
        *(_columns_of(heaviest.terms) if heaviest.terms else (None, 0, "", "")),
    ]


def _stored(gift: RecurringGift) -> RecurringNews:
    return RecurringNews(
        gift.pk,
        gift.status,
        gift.subscription,
        gift.heard_at,
        gift.cancel_at,
        gift.ended_at,
        gift.terms if gift.now_amount is not None else None,
    )


# ---- from nothing


def rebuild() -> None:
    """Make every state anew from the facts that stand, in one transaction."""
    with transaction.atomic():
        locked = {gift.pk: gift for gift in RecurringGift.objects.order_by("pk").select_for_update(no_key=True)}
        bulk.update(RecurringGift, COLUMNS, [state_of(_all_news(gift)) for gift in locked.values()])


@dataclass(frozen=True, slots=True)
class Drift:
    """A monthly gift whose stored state differs from what the facts say, as COLUMNS has them."""

    reference: str
    stored: list[Any]
    rebuilt: list[Any]

    def __str__(self) -> str:
        return f"monthly gift {self.reference}: {self.words}"

    @property
    def words(self) -> str:
        """What is stored otherwise than it comes to, one by one."""
        shown = _shown(self.stored), _shown(self.rebuilt)
        return "; ".join(
            f"its {name.replace('_', ' ')} is stored as {stored}, and comes to {rebuilt}"
            for name, was, comes_to, stored, rebuilt in zip(COLUMNS, self.stored, self.rebuilt, *shown, strict=True)
            if was != comes_to
        )


def _shown(row: list[Any]) -> list[str]:
    """A row as COLUMNS has it, in words: money in the units of the currency that stands in it."""
    currency = row[COLUMNS.index("now_currency")]
    return [
        money.with_code(each, currency) if isinstance(each, int) and currency else str(each or "(none)") for each in row
    ]


def drift() -> list[Drift]:
    """Where what is stored differs from what the facts say."""
    differing = []
    for gift in RecurringGift.objects.order_by("pk").iterator():
        stored, rebuilt = state_of([_stored(gift)]), state_of(_all_news(gift))
        if stored != rebuilt:
            differing.append(Drift(gift.pk, stored, rebuilt))
    return differing


def _all_news(gift: RecurringGift) -> list[RecurringNews]:
    events = InboxEvent.objects.filter(InboxEvent.STANDS, gift_reference=gift.pk, facts__isnull=False)
    events = events.exclude(gift_reference="")  # said so that SQLite takes the index, which holds no ""
    facts = [fact_from_json(facts) for facts in events.values_list("facts", flat=True) if facts]
    told = [news_of(fact, gift) for fact in facts if isinstance(fact, (RecurringChanged, MonthlyCheckout))]
    return [RecurringNews(gift.pk, Status.PENDING, ""), *told]

"""The state of monthly gifts: a function of all that the processor told of each, in any order."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command

from donations import inbox, invariants, recurring
from donations.models import Campaign, InboxEvent, RecurringGift
from donations.models.recurring import Terms
from donations.processors.facts import MonthlyCheckout, RecurringChanged
from donations.recurring import RecurringNews
from tests.factories import (
    NOON,
    Event,
    deliver,
    invoice_event,
    items_of,
    make_campaign,
    make_recurring_gift,
    monthly_checkout_event,
    subscription_event,
)

pytestmark = pytest.mark.django_db
LATER = NOON + timedelta(seconds=1)
ENDS = datetime(2024, 12, 18, 12, tzinfo=UTC)
COVERED = RecurringGift(amount=1000, fee_cover=61, currency="USD")
TWENTY = Terms(2000, 61, "USD")
NOT_TOLD = [None, 0, "", ""]


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def monthly(campaign: Campaign) -> RecurringGift:
    return make_recurring_gift(campaign)


def told(*events: Event) -> None:
    deliver(*events)
    inbox.drain()
    assert set(InboxEvent.objects.values_list("state", flat=True)) == {"processed"}


def stored(gift: RecurringGift) -> list[Any]:
    """A row as `recurring.COLUMNS` has it."""
    return list(RecurringGift.objects.values_list(*recurring.COLUMNS).get(pk=gift.pk))


def news(status: str, heard_at: datetime | None = NOON, **fields: Any) -> RecurringNews:
    return RecurringNews("recurring_1", status, **{"subscription": "sub_1", "heard_at": heard_at, **fields})


def heavier(*found: RecurringNews) -> str:
    """The status that stands, whatever the order."""
    statuses = {recurring.state_of(list(order))[1] for order in itertools.permutations(found)}
    assert len(statuses) == 1
    return str(statuses.pop())


# ---- what stands


@pytest.mark.parametrize("end", ["canceled", "incomplete_expired"])
def test_an_end_outweighs_what_is_told_later(end: str) -> None:
    assert heavier(news(end), news("active", LATER), news("pending", None)) == end


def test_what_is_told_later_outweighs_what_comes_later_in_a_life() -> None:
    assert heavier(news("past_due"), news("active", LATER)) == "active"
    assert heavier(news("canceled", LATER), news("incomplete_expired")) == "canceled"


def test_within_a_second_what_comes_later_in_a_life_stands() -> None:
    assert heavier(news("incomplete"), news("active")) == "active"
    assert heavier(news("active"), news("past_due"), news("trialing")) == "past_due"


@pytest.mark.parametrize("before", ["pending", "expired"])
def test_what_has_begun_outweighs_how_its_checkout_ended(before: str) -> None:
    assert heavier(news(before, LATER), news("incomplete")) == "incomplete"


def test_a_checkout_that_expired_outweighs_none() -> None:
    assert heavier(news("pending", None), news("expired", None)) == "expired"


def test_within_a_second_the_later_end_that_was_asked_for_stands() -> None:
    with_end, without = news("active", cancel_at=ENDS), news("active")
    for order in ([with_end, without], [without, with_end]):
        assert recurring.state_of(order)[4] == ENDS


def test_a_state_is_all_that_its_heaviest_news_say() -> None:
    heaviest = news("canceled", LATER, subscription="sub_2", cancel_at=ENDS, ended_at=LATER)
    row = ["recurring_1", "canceled", "sub_2", LATER, ENDS, LATER]
    assert recurring.state_of([news("active", terms=TWENTY), heaviest]) == [*row, *NOT_TOLD]
    asks = replace(heaviest, terms=TWENTY)
    assert recurring.state_of([news("active"), asks]) == [*row, 2000, 61, "USD", "month"]


def test_within_a_second_what_is_asked_stands_before_what_is_not_told_and_more_before_less() -> None:
    thirty = Terms(3000, 61, "USD")
    for order in itertools.permutations([news("active", terms=TWENTY), news("active"), news("active", terms=thirty)]):
        assert recurring.state_of(list(order))[6] == 3000


def test_the_subscription_stands_whoever_told_it() -> None:
    assert recurring.state_of([news("active", subscription=""), news("pending", None)])[2] == "sub_1"


# ---- what a fact says


def test_a_change_says_all_that_it_carries() -> None:
    fact = RecurringChanged("recurring_1", "sub_1", "active", ENDS, LATER, NOON)
    assert recurring.news_of(fact, COVERED) == RecurringNews("recurring_1", "active", "sub_1", NOON, ENDS, LATER)
    asks = replace(fact, amounts=(2000, 61), currency="USD", interval="month")
    assert recurring.news_of(asks, COVERED).terms == Terms(2000, 61, "USD", "month")


@pytest.mark.parametrize(
    ("amounts", "currency", "cover"),
    [
        ((1000, 61), "USD", 61),
        ((61, 2000), "USD", 61),
        ((2000, 61, 300), "USD", 61),
        ((1000, 100), "USD", 0),  # the cover was changed: all is the gift
        ((1000,), "USD", 0),  # it was taken away
        ((1061,), "USD", 0),
        ((61,), "USD", 0),  # nothing beside it
        ((0, 61), "USD", 0),
        ((1000, 61), "EUR", 0),  # of another currency, so not the same
        ((), "", 0),
    ],
)
def test_the_fee_cover_is_the_part_that_is_as_the_checkout_was(
    amounts: tuple[int, ...], currency: str, cover: int
) -> None:
    assert recurring.fee_cover_among(amounts, currency, COVERED) == cover
    assert recurring.fee_cover_among(amounts, currency, RecurringGift(amount=1061, currency="USD")) == 0


@pytest.mark.parametrize(
    ("told_status", "status"), [("completed", "pending"), ("expired", "expired"), ("failed", "expired")]
)
def test_a_checkout_says_which_subscription_it_began_or_that_there_is_none(told_status: str, status: str) -> None:
    fact = MonthlyCheckout("recurring_1", told_status, "cs_1", "sub_1", NOON)
    assert recurring.news_of(fact, COVERED) == RecurringNews("recurring_1", status, "sub_1")


# ---- the rows


def test_each_of_a_batch_gets_its_own_state(campaign: Campaign, monthly: RecurringGift) -> None:
    other = make_recurring_gift(campaign)
    told(subscription_event(monthly), subscription_event(other, "past_due", at=LATER), monthly_checkout_event(monthly))
    assert stored(monthly) == [monthly.pk, "active", f"sub_{monthly.pk[10:]}", NOON, None, None, *NOT_TOLD]
    assert stored(other) == [other.pk, "past_due", f"sub_{other.pk[10:]}", LATER, None, None, *NOT_TOLD]


def test_what_was_heard_before_counts_with_what_is_heard_now(monthly: RecurringGift) -> None:
    told(subscription_event(monthly, "canceled", at=LATER, cancel_at=int(ENDS.timestamp())))
    told(subscription_event(monthly, "active", at=ENDS))
    assert stored(monthly) == [monthly.pk, "canceled", f"sub_{monthly.pk[10:]}", LATER, ENDS, LATER, *NOT_TOLD]


def test_drift_is_found_told_and_mended(monthly: RecurringGift) -> None:
    told(monthly_checkout_event(monthly), subscription_event(monthly), invoice_event(monthly))
    right = stored(monthly)
    assert recurring.drift() == []
    RecurringGift.objects.update(
        status="paused", subscription="sub_wrong", now_amount=1, now_currency="USD", now_interval="year"
    )
    (drift,) = recurring.drift()
    assert (drift.reference, drift.stored, drift.rebuilt) == (monthly.pk, stored(monthly), right)
    assert str(drift) == (
        f"monthly gift {monthly.pk}: its status is stored as paused, and comes to active; "
        f"its subscription is stored as sub_wrong, and comes to {right[2]}; "
        "its now amount is stored as 0.01 USD, and comes to (none); "
        "its now currency is stored as USD, and comes to (none); "
        "its now interval is stored as year, and comes to (none)"
    )
    recurring.rebuild()
    assert (stored(monthly), recurring.drift()) == (right, [])


def test_what_it_asks_is_what_was_told_last_in_every_order(campaign: Campaign) -> None:
    changes = [items_of(1000, 61), items_of(2000, 61), items_of(2500)]
    moments = [NOON + timedelta(hours=number) for number in range(3)]
    for order in itertools.permutations(range(3)):
        one = make_recurring_gift(campaign, fee_cover=61)
        told(*(subscription_event(one, at=moments[number], items=changes[number]) for number in order))
        assert stored(one)[6:] == [2500, 0, "USD", "month"]
        one.refresh_from_db()
        assert (one.total, one.terms.total, one.terms.often) == (1061, 2500, "each month")
    assert recurring.drift() == []


def test_an_end_says_what_was_asked_at_last_whatever_is_told_later(monthly: RecurringGift) -> None:
    told(subscription_event(monthly, "canceled", items=items_of(2000)))
    told(subscription_event(monthly, at=LATER, items=items_of(3000)))
    assert stored(monthly)[1:2] + stored(monthly)[6:] == ["canceled", 2000, 0, "USD", "month"]


def test_where_the_price_is_no_fixed_sum_by_now_what_the_checkout_asked_for_is_shown(monthly: RecurringGift) -> None:
    told(subscription_event(monthly, items=items_of(2000)), subscription_event(monthly, at=LATER, items=items_of(None)))
    monthly.refresh_from_db()
    assert (monthly.now_amount, monthly.terms) == (None, Terms(1000, 0, "USD"))


def test_drift_of_what_it_asks_is_found_and_mended(monthly: RecurringGift) -> None:
    told(subscription_event(monthly, items=items_of(6000, interval_count=3)))
    right = stored(monthly)
    assert right[6:] == [6000, 0, "USD", "3 months"]
    for wrong in ({"now_amount": 1}, {"now_fee_cover": 1}, {"now_currency": "EUR"}, {"now_interval": "month"}):
        RecurringGift.objects.update(**wrong)
        assert len(recurring.drift()) == 1
        recurring.rebuild()
        assert (stored(monthly), recurring.drift()) == (right, [])


def test_facts_of_an_earlier_version_are_right_as_they_are_and_reading_them_again_fills_in_what_is_asked(
    monthly: RecurringGift,
) -> None:
    """As they were stored before a price was read, and their row with them."""
    told(subscription_event(monthly, items=items_of(2000)))
    row = InboxEvent.objects.get()
    assert row.facts is not None
    old = {name: value for name, value in row.facts.items() if name not in {"amounts", "currency", "interval"}}
    InboxEvent.objects.update(facts=old)
    RecurringGift.objects.update(now_amount=None, now_currency="", now_interval="")
    assert (recurring.drift(), list(invariants.check())) == ([], [])
    told(subscription_event(monthly, at=NOON - timedelta(hours=1), items=items_of(1500)))
    assert stored(monthly)[6:] == NOT_TOLD, "what is older is no word on what stands now"
    call_command("replay", state="processed", type=["customer.subscription.updated"])
    assert stored(monthly)[6:] == [2000, 0, "USD", "month"]
    assert (recurring.drift(), list(invariants.check())) == ([], [])


def test_each_is_rebuilt_from_its_own_news_alone(campaign: Campaign, monthly: RecurringGift) -> None:
    other, silent = make_recurring_gift(campaign), make_recurring_gift(campaign)
    told(subscription_event(monthly, "past_due"), subscription_event(other))
    RecurringGift.objects.update(status="paused")
    assert [drift.reference for drift in recurring.drift()] == sorted([monthly.pk, other.pk, silent.pk])
    recurring.rebuild()
    assert [stored(gift)[1] for gift in (monthly, other, silent)] == ["past_due", "active", "pending"]


def test_what_was_not_processed_is_no_news(monthly: RecurringGift) -> None:
    told(subscription_event(monthly))
    InboxEvent.objects.update(state="dismissed")
    (drift,) = recurring.drift()
    assert drift.rebuilt[:3] == [monthly.pk, "pending", ""]

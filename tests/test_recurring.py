"""The state of monthly gifts: a function of all that the processor told of each, in any order."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from donations import inbox, recurring
from donations.models import Campaign, InboxEvent, RecurringGift
from donations.processors.facts import (
    MonthlyCheckout,
    RecurringChanged,
)
from donations.recurring import RecurringNews
from tests.factories import (
    NOON,
    Event,
    deliver,
    invoice_event,
    make_campaign,
    make_recurring_gift,
    monthly_checkout_event,
    subscription_event,
)

pytestmark = pytest.mark.django_db
LATER = NOON + timedelta(seconds=1)
ENDS = datetime(2024, 12, 18, 12, tzinfo=UTC)


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
    assert recurring.state_of([news("active"), heaviest]) == ["recurring_1", "canceled", "sub_2", LATER, ENDS, LATER]


def test_the_subscription_stands_whoever_told_it() -> None:
    assert recurring.state_of([news("active", subscription=""), news("pending", None)])[2] == "sub_1"


# ---- what a fact says


def test_a_change_says_all_that_it_carries() -> None:
    fact = RecurringChanged("recurring_1", "sub_1", "active", ENDS, LATER, NOON)
    assert recurring.news_of(fact) == RecurringNews("recurring_1", "active", "sub_1", NOON, ENDS, LATER)


@pytest.mark.parametrize(
    ("told_status", "status"), [("completed", "pending"), ("expired", "expired"), ("failed", "expired")]
)
def test_a_checkout_says_which_subscription_it_began_or_that_there_is_none(told_status: str, status: str) -> None:
    fact = MonthlyCheckout("recurring_1", told_status, "cs_1", "sub_1", NOON)
    assert recurring.news_of(fact) == RecurringNews("recurring_1", status, "sub_1")


# ---- the rows


def test_each_of_a_batch_gets_its_own_state(campaign: Campaign, monthly: RecurringGift) -> None:
    other = make_recurring_gift(campaign)
    told(subscription_event(monthly), subscription_event(other, "past_due", at=LATER), monthly_checkout_event(monthly))
    assert stored(monthly) == [monthly.pk, "active", f"sub_{monthly.pk[10:]}", NOON, None, None]
    assert stored(other) == [other.pk, "past_due", f"sub_{other.pk[10:]}", LATER, None, None]


def test_what_was_heard_before_counts_with_what_is_heard_now(monthly: RecurringGift) -> None:
    told(subscription_event(monthly, "canceled", at=LATER, cancel_at=int(ENDS.timestamp())))
    told(subscription_event(monthly, "active", at=ENDS))
    assert stored(monthly) == [monthly.pk, "canceled", f"sub_{monthly.pk[10:]}", LATER, ENDS, LATER]


def test_drift_is_found_told_and_mended(monthly: RecurringGift) -> None:
    told(monthly_checkout_event(monthly), subscription_event(monthly), invoice_event(monthly))
    right = stored(monthly)
    assert recurring.drift() == []
    RecurringGift.objects.update(status="paused", subscription="sub_wrong")
    (drift,) = recurring.drift()
    assert (drift.reference, drift.stored, drift.rebuilt) == (monthly.pk, stored(monthly), right)
    assert str(drift) == f"monthly gift {monthly.pk}: stored {stored(monthly)[1:]}, rebuilt {right[1:]}"
    recurring.rebuild()
    assert (stored(monthly), recurring.drift()) == (right, [])


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

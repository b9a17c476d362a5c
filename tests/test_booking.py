"""What the books make of facts: refunds and reversals in any order, their dates, and states that never go back."""

import itertools
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from donations import inbox, invariants, money, projections, refunding
from donations.models import (
    Campaign,
    CampaignMonth,
    DailyRollup,
    Donor,
    Gift,
    GiftState,
    InboxEvent,
    LedgerEntry,
    Lookup,
    MonthTotal,
    OutboxMessage,
    RefundRequest,
)
from tests.factories import (
    NOON,
    Event,
    charge_event,
    checkout_event,
    confirm,
    deliver,
    dispute_event,
    invoice_event,
    invoice_paid_event,
    make_campaign,
    make_gift,
    make_recurring_gift,
    make_staff,
    refund_event,
    told,
)
from tests.plans import explained

pytestmark = pytest.mark.django_db
DECEMBER = datetime(2024, 12, 3, 12, tzinfo=UTC)
JANUARY = datetime(2025, 1, 7, 12, tzinfo=UTC)


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def gift(campaign: Campaign) -> Gift:
    return make_gift(campaign)


@pytest.fixture
def paid(gift: Gift) -> Gift:
    """A gift of 50000 that was paid at noon of 18 November."""
    confirm(gift)
    return gift


def try_again() -> None:
    """Have what waits looked at now."""
    InboxEvent.objects.filter(state="waiting").update(next_try_at=timezone.now())
    inbox.drain()


def booked() -> list[tuple[str, str, int]]:
    return sorted(LedgerEntry.objects.values_list("kind", "reference", "amount"))


def refunds() -> list[tuple[str, str, int]]:
    return [entry for entry in booked() if entry[0] != "gift"]


def raised(month: str = "2024-11") -> int:
    total = MonthTotal.objects.filter(month=month).first()
    return total.raised if total else 0


def outcome(deliveries: Iterable[Event]) -> tuple[Any, ...]:
    """What deliveries in this order end in; afterwards all is as it was before them."""
    with transaction.atomic():
        told(*deliveries)
        try_again()
        try_again()
        entries = LedgerEntry.objects.order_by("kind", "reference").values_list(
            "kind", "reference", "amount", "effective_at", "local_date", "campaign_month", "goal_amount", "gift"
        )
        states = GiftState.objects.order_by("pk").values_list("pk", "status", "charged", "refunded", "counted")
        found = (
            list(entries),
            list(states),
            raised(),
            projections.drift(),
            sorted(InboxEvent.objects.values_list("event_id", "state")),
            sorted(OutboxMessage.objects.values_list("subject_id", "state")),
        )
        transaction.set_rollback(True)
    return found


def the_one_outcome(deliveries: Sequence[Event]) -> tuple[Any, ...]:
    """What every order of these deliveries ends in."""
    found = [outcome(order) for order in itertools.permutations(deliveries)]
    assert [one for one in found if one != found[0]] == []
    assert found[0][3] == []
    return found[0]


# ---- refunds


def test_a_refund_above_its_gift_waits_and_changes_nothing(paid: Gift) -> None:
    assert told(refund_event(paid, 50001)) == ["waiting"]
    assert (refunds(), raised()) == ([], 50000)
    assert "more would be refunded than was charged" in InboxEvent.objects.get(state="waiting").reason


def test_refunds_are_booked_up_to_the_last_cent_and_the_next_one_waits(paid: Gift) -> None:
    steps = [refund_event(paid, amount) for amount in (20000, 29999, 1, 1)]
    assert told(*steps) == ["processed", "processed", "processed", "waiting"]
    state = GiftState.objects.get()
    assert (raised(), state.refunded, state.status) == (0, 50000, "confirmed")


def test_refunds_above_the_gift_in_one_batch_wait_too(paid: Gift) -> None:
    deliver(*[refund_event(paid, 30000, created=NOON + timedelta(hours=hour)) for hour in (2, 1)])
    inbox.drain()
    assert sorted(InboxEvent.objects.values_list("state", flat=True)) == ["processed", "processed", "waiting"]
    assert LedgerEntry.objects.get(kind="refund").effective_at == NOON + timedelta(hours=1)


def test_a_refund_that_waits_for_room_is_booked_once_another_has_come_back(paid: Gift) -> None:
    told(refund_event(paid, 50000, refund="re_a"))
    second = refund_event(paid, 50000, refund="re_b")
    assert told(second) == ["waiting"]
    assert told(refund_event(paid, 50000, refund="re_a", status="failed", kind="refund.failed")) == ["processed"]
    try_again()
    assert refunds() == [("refund", "re_a", -50000), ("refund", "re_b", -50000), ("refund_reversal", "re_a", 50000)]
    assert (raised(), projections.drift()) == (0, [])


@pytest.mark.parametrize("statuses", list(itertools.permutations(("pending", "requires_action", "succeeded"))), ids=str)
def test_a_refund_is_booked_once_whenever_it_was_seen_to_succeed(paid: Gift, statuses: tuple[str, ...]) -> None:
    for status in statuses:
        told(refund_event(paid, 20000, refund="re_1", status=status, kind="refund.updated"))
        wanted = "succeeded" in statuses[: statuses.index(status) + 1]
        assert refunds() == ([("refund", "re_1", -20000)] if wanted else [])
    assert raised() == 30000


@pytest.mark.parametrize("status", ["pending", "requires_action", "failed", "canceled"])
def test_a_refund_that_was_never_seen_to_succeed_is_not_booked(paid: Gift, status: str) -> None:
    for kind in ("refund.created", "refund.updated", "refund.failed"):
        assert told(refund_event(paid, 20000, refund="re_1", status=status, kind=kind)) == ["processed"]
    assert (refunds(), raised()) == ([], 50000)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["failed", "canceled"])
def test_a_refund_that_came_back_is_reversed_in_every_order(gift: Gift, ending: str) -> None:
    refund = {"refund": "re_1", "created": DECEMBER}
    story = [
        checkout_event(gift),
        refund_event(gift, 20000, status="pending", **refund),
        refund_event(gift, 20000, kind="refund.updated", at=DECEMBER + timedelta(days=1), **refund),
        refund_event(gift, 20000, status=ending, kind="refund.failed", at=JANUARY, **refund),
    ]
    entries, states, month, *_ = the_one_outcome(story)
    assert [(kind, reference, amount, at) for kind, reference, amount, at, *_ in entries] == [
        ("gift", f"pi_{gift.pk[5:]}", 50000, NOON),
        ("refund", "re_1", -20000, DECEMBER),
        ("refund_reversal", "re_1", 20000, JANUARY),
    ]
    assert (states, month) == ([(gift.pk, "confirmed", 50000, 0, 50000)], 50000)


@pytest.mark.slow
def test_two_sightings_of_a_failure_reverse_once_in_every_order(gift: Gift) -> None:
    refund = {"refund": "re_1", "created": DECEMBER, "at": JANUARY}
    story = [
        checkout_event(gift),
        refund_event(gift, 20000, **refund),
        refund_event(gift, 20000, status="failed", kind="refund.updated", **refund),
        refund_event(gift, 20000, status="failed", kind="refund.failed", **refund),
    ]
    entries, *_ = the_one_outcome(story)
    assert [amount for _, _, amount, *_ in entries] == [50000, -20000, 20000]


def test_a_refund_and_its_failure_in_one_batch_are_both_booked(paid: Gift) -> None:
    deliver(
        refund_event(paid, 20000, refund="re_1", status="failed", kind="refund.failed"),
        refund_event(paid, 20000, refund="re_1"),
    )
    inbox.drain()
    assert refunds() == [("refund", "re_1", -20000), ("refund_reversal", "re_1", 20000)]


@pytest.mark.slow
def test_refunds_in_several_steps_end_in_one_state_in_every_order(gift: Gift) -> None:
    story = [
        checkout_event(gift),
        *[
            refund_event(gift, amount, refund=f"re_{amount}", created=DECEMBER + timedelta(days=day))
            for day, amount in enumerate((5000, 15000, 30000))
        ],
    ]
    entries, states, month, *_ = the_one_outcome(story)
    assert sorted(amount for _, _, amount, *_ in entries) == [-30000, -15000, -5000, 50000]
    assert (states, month) == ([(gift.pk, "confirmed", 50000, 50000, 0)], 0)


def test_a_refund_in_another_currency_is_quarantined(paid: Gift) -> None:
    assert told(refund_event(paid, 100, currency="eur")) == ["quarantined"]
    assert (
        InboxEvent.objects.get(state="quarantined").reason
        == "it cannot be accepted: it refunds EUR, and the gift is in USD"
    )
    assert refunds() == []


def test_a_refund_of_our_own_that_comes_back_frees_what_it_had_set_aside_once(paid: Gift) -> None:
    request = RefundRequest.objects.create(gift=paid, amount=20000, status="accepted")
    GiftState.objects.update(refund_requested=20000)
    ours: dict[str, Any] = {"refund": "re_1", "metadata": {"request": request.key}}
    told(refund_event(paid, 20000, **ours))
    assert GiftState.objects.get().refund_requested == 20000
    for kind in ("refund.failed", "refund.updated"):
        told(refund_event(paid, 20000, status="failed", kind=kind, **ours))
    request.refresh_from_db()
    assert (GiftState.objects.get().refund_requested, request.status, raised()) == (0, "failed", 50000)


# ---- dates


def test_a_gift_stands_on_the_day_of_the_event_that_confirmed_it(gift: Gift) -> None:
    # Midnight of 1 December in New York is 05:00 UTC.
    told(checkout_event(gift, at=datetime(2024, 12, 1, 4, 59, 59, tzinfo=UTC)))
    entry = LedgerEntry.objects.get()
    assert (entry.campaign_month, str(entry.local_date), entry.time_zone) == (
        "2024-11",
        "2024-11-30",
        "America/New_York",
    )
    assert entry.effective_at == datetime(2024, 12, 1, 4, 59, 59, tzinfo=UTC)


def test_a_refund_of_a_second_payment_that_staff_dismissed_needs_nobody(paid: Gift) -> None:
    second = checkout_event(paid, payment="pi_second")
    assert told(second) == ["quarantined"]
    refund = refund_event(paid, 50000, payment="pi_second")
    assert told(refund) == ["waiting"]
    inbox.dismiss(InboxEvent.objects.get(event_id=second["id"]), user=make_staff(), reason="refunded")
    try_again()
    assert told(refund) == ["foreign"]
    assert refunds() == []
    assert list(invariants.check()) == []


def test_a_gift_a_second_later_is_of_the_next_month(gift: Gift) -> None:
    told(checkout_event(gift, at=datetime(2024, 12, 1, 5, tzinfo=UTC)))
    entry = LedgerEntry.objects.get()
    assert (entry.campaign_month, str(entry.local_date)) == ("2024-12", "2024-12-01")
    assert (raised("2024-11"), raised("2024-12")) == (0, 50000)


def test_decembers_refund_of_a_november_gift_lowers_novembers_bar_and_stands_in_decembers_books(paid: Gift) -> None:
    told(refund_event(paid, 20000, created=DECEMBER, at=DECEMBER + timedelta(days=2)))
    entry = LedgerEntry.objects.get(kind="refund")
    assert (entry.campaign_month, entry.effective_at, str(entry.local_date)) == ("2024-11", DECEMBER, "2024-12-03")
    assert (raised("2024-11"), raised("2024-12")) == (30000, 0)
    assert sum(DailyRollup.objects.filter(dimension="all").values_list("raised", flat=True)) == 30000
    assert {str(day) for day in DailyRollup.objects.values_list("day", flat=True)} == {"2024-11-18"}


def test_a_reversal_in_january_raises_novembers_bar_again_and_stands_in_januarys_books(paid: Gift) -> None:
    refund = {"refund": "re_1", "created": DECEMBER}
    told(
        refund_event(paid, 20000, **refund),
        refund_event(paid, 20000, status="failed", kind="refund.failed", at=JANUARY, **refund),
    )
    entry = LedgerEntry.objects.get(kind="refund_reversal")
    assert (entry.campaign_month, entry.effective_at) == ("2024-11", JANUARY)
    assert {month: raised(month) for month in ("2024-11", "2024-12", "2025-01")} == {
        "2024-11": 50000,
        "2024-12": 0,
        "2025-01": 0,
    }


def test_a_refund_in_one_batch_with_its_gift_is_of_its_gifts_month(gift: Gift) -> None:
    deliver(refund_event(gift, 20000, created=DECEMBER), checkout_event(gift))
    inbox.drain()
    assert set(LedgerEntry.objects.values_list("campaign_month", flat=True)) == {"2024-11"}
    assert raised() == 30000


def test_of_several_gifts_in_one_batch_each_refund_is_of_its_own_gifts_month(campaign: Campaign) -> None:
    november, december = make_gift(campaign), make_gift(campaign)
    deliver(
        checkout_event(december, at=DECEMBER, payment="pi_december"),
        refund_event(december, 10000, created=JANUARY, payment="pi_december", refund="re_december"),
        refund_event(november, 20000, created=JANUARY, payment="pi_november", refund="re_november"),
        checkout_event(november, payment="pi_november"),
    )
    inbox.drain()
    assert sorted(LedgerEntry.objects.values_list("reference", "campaign_month")) == [
        ("pi_december", "2024-12"),
        ("pi_november", "2024-11"),
        ("re_december", "2024-12"),
        ("re_november", "2024-11"),
    ]


def test_a_payment_wakes_what_waits_for_it_and_nothing_else(campaign: Campaign) -> None:
    gift, other = make_gift(campaign), make_gift(campaign)
    told(refund_event(gift, 10000), refund_event(other, 10000, payment="pi_other"))
    InboxEvent.objects.update(next_try_at=timezone.now() + timedelta(minutes=5))
    told(checkout_event(gift), checkout_event(make_gift(campaign), metadata={}, payment="pi_stranger"))
    assert sorted(InboxEvent.objects.exclude(state="processed").values_list("payment", "state")) == [
        ("pi_other", "waiting"),
        ("pi_stranger", "foreign"),
    ]
    assert InboxEvent.objects.get(state="waiting").attempts == 1


def test_the_date_that_was_booked_first_stands(paid: Gift) -> None:
    told(checkout_event(paid, "checkout.session.async_payment_succeeded", at=DECEMBER))
    entry = LedgerEntry.objects.get()
    assert (entry.effective_at, entry.campaign_month) == (NOON, "2024-11")
    assert (raised("2024-11"), raised("2024-12")) == (50000, 0)


def test_of_two_sightings_in_one_batch_the_earlier_date_is_booked(gift: Gift) -> None:
    deliver(
        checkout_event(gift, "checkout.session.async_payment_succeeded", at=DECEMBER), checkout_event(gift, at=NOON)
    )
    inbox.drain()
    assert LedgerEntry.objects.get().effective_at == NOON


def test_the_first_money_of_a_month_settles_its_goal(campaign: Campaign, paid: Gift) -> None:
    assert CampaignMonth.objects.get().goal == campaign.default_goal_minor


# ---- payments that surprise us


@pytest.mark.parametrize("amount", [49999, 50001, 1, 5000000])
def test_a_payment_of_another_amount_is_quarantined(gift: Gift, amount: int) -> None:
    assert told(checkout_event(gift, amount_total=amount)) == ["quarantined"]
    assert InboxEvent.objects.get().reason == f"{money.with_code(amount, 'USD')} were paid, and 500.00 USD were asked"
    assert (booked(), raised(), GiftState.objects.count()) == ([], 0, 0)


def test_a_payment_in_another_currency_is_quarantined(gift: Gift) -> None:
    assert told(checkout_event(gift, currency="eur")) == ["quarantined"]
    assert InboxEvent.objects.get().reason == "it cannot be accepted: it was paid in EUR, and asked in USD"
    assert booked() == []


def test_a_payment_counts_for_the_gift_that_it_was_booked_to_whatever_another_event_names(
    campaign: Campaign, paid: Gift
) -> None:
    other = make_gift(campaign)
    assert told(checkout_event(other, payment=f"pi_{paid.pk[5:]}")) == ["processed"]
    assert booked() == [("gift", f"pi_{paid.pk[5:]}", 50000)]
    assert raised() == 50000


def test_the_fee_cover_is_booked_and_never_counts_toward_the_goal(campaign: Campaign) -> None:
    gift = make_gift(campaign, 50000, fee_cover=1500)
    confirm(gift)
    entry = LedgerEntry.objects.get()
    assert (entry.amount, entry.goal_amount, raised()) == (51500, 50000, 50000)
    told(refund_event(gift, 1500))
    assert raised() == 50000
    told(refund_event(gift, 1000))
    assert (raised(), projections.drift()) == (49000, [])


# ---- checkouts


STATUSES = {"completed unpaid": "awaiting", "expired": "expired", "async_payment_failed": "failed"}


def news(gift: Gift, name: str) -> Event:
    if name == "completed unpaid":
        return checkout_event(gift, paid=False)
    return checkout_event(gift, f"checkout.session.{name}", paid=name == "async_payment_succeeded")


@pytest.mark.parametrize(("name", "status"), list(STATUSES.items()))
def test_a_checkout_without_money_has_its_state_and_counts_nothing(gift: Gift, name: str, status: str) -> None:
    assert told(news(gift, name)) == ["processed"]
    assert GiftState.objects.get().status == status
    assert (booked(), raised(), OutboxMessage.objects.count()) == ([], 0, 0)
    pending = MonthTotal.objects.first()
    assert (pending.awaiting if pending else 0) == (50000 if status == "awaiting" else 0)


@pytest.mark.parametrize("name", STATUSES)
def test_no_news_of_a_checkout_lowers_a_paid_gift(paid: Gift, name: str) -> None:
    assert told(news(paid, name)) == ["processed"]
    state = GiftState.objects.get()
    assert (state.status, state.counted, state.awaiting, raised()) == ("confirmed", 50000, 0, 50000)
    assert projections.drift() == []


@pytest.mark.slow
def test_all_news_of_a_checkout_that_is_paid_in_the_end_say_confirmed_in_every_order(gift: Gift) -> None:
    story = [news(gift, name) for name in (*STATUSES, "async_payment_succeeded")]
    entries, states, month, *_ = the_one_outcome(story)
    assert [(kind, amount) for kind, _, amount, *_ in entries] == [("gift", 50000)]
    assert (states, month) == ([(gift.pk, "confirmed", 50000, 0, 50000)], 50000)


def test_a_delayed_payment_that_failed_has_failed_in_every_order(gift: Gift) -> None:
    entries, states, month, *_ = the_one_outcome([news(gift, name) for name in STATUSES])
    assert (entries, states, month) == ([], [(gift.pk, "failed", 0, 0, 0)], 0)


def test_what_awaits_its_money_is_no_longer_awaited_once_it_has_come_or_failed(campaign: Campaign) -> None:
    first, second = make_gift(campaign, 20000), make_gift(campaign, 30000)
    told(news(first, "completed unpaid"), news(second, "completed unpaid"))
    total = MonthTotal.objects.get()
    assert (total.awaiting, total.awaiting_gifts, total.raised) == (50000, 2, 0)
    told(news(first, "async_payment_succeeded"), news(second, "async_payment_failed"))
    total = MonthTotal.objects.get()
    assert (total.awaiting, total.awaiting_gifts, total.raised, total.gifts) == (0, 0, 20000, 1)
    assert projections.drift() == []


# ---- who gave


def test_the_address_from_the_hosted_page_is_kept_where_the_donor_gave_us_none(campaign: Campaign, gift: Gift) -> None:
    known = Donor.objects.create(email="known@example.org")
    named = make_gift(campaign, donor=known)
    typed = {"email": "Reader@Example.org", "name": "A Reader"}
    told(checkout_event(gift, customer_details=typed), checkout_event(named, customer_details=typed))
    assert Gift.objects.get(pk=named.pk).donor == known
    kept = Gift.objects.get(pk=gift.pk).donor
    assert kept is not None
    assert (kept.email, kept.name) == ("reader@example.org", "A Reader")
    told(checkout_event(make_gift(campaign), customer_details=typed | {"name": "Another"}))
    assert Donor.objects.count() == 2


# ---- refunds that our own staff asked for


KEY = "refund_" + "0" * 32


@pytest.fixture
def asked(paid: Gift) -> RefundRequest:
    """A refund whose answer was lost: as far as we know, it is still being sent."""
    assert projections.reserve_refund(gift=paid.pk, amount=20000)
    return RefundRequest.objects.create(key=KEY, gift=paid, amount=20000, error="timed out")


def refunded(paid: Gift, asked: RefundRequest) -> tuple[str, str, str, int]:
    asked.refresh_from_db()
    return asked.status, asked.refund_id, asked.error, GiftState.objects.get(pk=paid.pk).refund_requested


@pytest.mark.parametrize("status", ["pending", "requires_action", "succeeded"])
def test_a_refund_of_our_own_is_known_by_its_event_where_the_answer_was_lost(
    paid: Gift, asked: RefundRequest, status: str
) -> None:
    assert told(refund_event(paid, 20000, refund="re_1", status=status, metadata={"request": KEY})) == ["processed"]
    assert refunded(paid, asked) == ("accepted", "re_1", "", 20000)
    assert asked.next_try_at <= timezone.now()
    assert refunding.send_refunds_again() == 0


@pytest.mark.parametrize(
    ("status", "why"), [("failed", "the processor could not refund it"), ("canceled", "nothing was given back")]
)
def test_a_refund_of_our_own_that_came_back_frees_what_it_had_set_aside(
    paid: Gift, asked: RefundRequest, status: str, why: str
) -> None:
    told(refund_event(paid, 20000, refund="re_1", status=status, kind="refund.failed", metadata={"request": KEY}))
    assert refunded(paid, asked) == (status, "re_1", why, 0)
    told(refund_event(paid, 20000, refund="re_1", metadata={"request": KEY}))
    assert refunded(paid, asked)[0] == status
    assert projections.drift() == []


@pytest.mark.parametrize("metadata", [{}, {"request": "refund_" + "1" * 32}, {"request": "nonsense"}])
def test_a_refund_that_somebody_else_made_is_not_taken_for_ours(
    paid: Gift, asked: RefundRequest, metadata: dict[str, str]
) -> None:
    told(refund_event(paid, 20000, refund="re_1", metadata=metadata))
    assert refunded(paid, asked) == ("sending", "", "timed out", 20000)


# ---- a payment that may be missed


def wait_for(span: timedelta) -> None:
    """Have what waits looked at as if it had waited for so long."""
    InboxEvent.objects.filter(state="waiting").update(waiting_since=timezone.now() - span)
    try_again()


@pytest.mark.parametrize("kind", ["refund", "dispute"])
def test_what_waits_for_a_payment_has_it_asked_for_once_it_has_waited_for_a_while(gift: Gift, kind: str) -> None:
    asked = Lookup.objects.filter(kind="payment", object_id=f"pi_{gift.pk[5:]}")
    assert told(refund_event(gift, 100) if kind == "refund" else dispute_event(gift)) == ["waiting"]
    for _ in range(5):
        wait_for(timedelta(minutes=9))
    assert not asked.exists()
    wait_for(timedelta(minutes=11))
    assert asked.get().next_try_at <= timezone.now()
    asked.update(next_try_at=None)
    wait_for(timedelta(hours=73))
    assert (InboxEvent.objects.get().state, asked.get().next_try_at) == ("quarantined", None)


def test_what_no_person_would_be_asked_about_costs_the_processor_no_call(gift: Gift) -> None:
    assert told(charge_event(gift, "txn_charge")) == ["waiting"]
    wait_for(timedelta(hours=1))
    assert not Lookup.objects.exists()


# ---- in a large inbox


def test_a_large_batch_finds_earlier_events_by_an_index(campaign: Campaign) -> None:
    plans: list[str] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("SELECT") and "donations_inboxevent" in sql:
            execute(f"EXPLAIN {'QUERY PLAN ' * (connection.vendor == 'sqlite')}{sql}", params, many, context)
            plans.append("\n".join(str(row[-1]) for row in context["cursor"].fetchall()))
        return execute(sql, params, many, context)

    gifts = [make_gift(campaign) for _ in range(101)]  # PostgreSQL looks into a list of up to 100 by itself
    deliver(*(checkout_event(gift) for gift in gifts))
    deliver(*(refund_event(gift, 100, payment=f"pi_not_here{place}") for place, gift in enumerate(gifts)))
    if connection.vendor == "postgresql":
        connection.cursor().execute("SET LOCAL enable_seqscan = off")  # the table is too small to be worth an index
    with connection.execute_wrapper(explain):
        inbox.drain()
    found = [re.search(r"inbox_\w+", plan) for plan in plans]
    assert [index and index[0] for index in found] == [
        "inbox_queue", "inbox_by_subject", "inbox_by_payment", "inbox_by_payment", "inbox_queue"
    ]  # fmt: skip


def test_what_a_payment_wakes_is_found_by_an_index_however_much_is_quarantined(campaign: Campaign) -> None:
    gifts = [make_gift(campaign) for _ in range(101)]
    deliver(*(refund_event(gift, 100) for gift in gifts))
    inbox.drain()
    wait_for(timedelta(hours=73))
    assert InboxEvent.objects.filter(state="quarantined").count() == 101
    deliver(*(checkout_event(gift) for gift in gifts))
    with explained("donations_inboxevent") as found:
        inbox.process_batch()
    plans = [plan for sql, plan in found if "LIKE" in sql]
    assert [re.findall(r"inbox_\w+", plan) for plan in plans] == [["inbox_by_payment"]] * 2, "what waits, what is free"
    inbox.drain()
    assert set(InboxEvent.objects.values_list("state", flat=True)) == {"processed"}


@pytest.mark.postgres
def test_payments_are_looked_up_one_by_one_however_small_the_ledger_is(campaign: Campaign) -> None:
    """A plan made for a small ledger stays for a large one: it may not go through all of a processor's gifts."""
    gifts = [make_gift(campaign) for _ in range(3)]
    deliver(*(checkout_event(gift) for gift in gifts))
    with explained("donations_ledgerentry") as found:
        inbox.drain()
    plans = [plan for sql, plan in found if "kind = 'gift'" in sql]
    assert len(plans) == 1
    assert re.search(r"one_entry_a_movement .*\n *Index Cond: .*processor.* AND .*kind.* AND .*reference", plans[0])


# ---- what an event is filed under


def test_whatever_tells_of_a_payment_again_is_filed_under_its_gift(campaign: Campaign) -> None:
    gift, monthly = make_gift(campaign), make_recurring_gift(campaign)
    again = checkout_event(gift, "checkout.session.async_payment_succeeded")
    paid, paid_again = invoice_paid_event(monthly), invoice_paid_event(monthly)
    assert told(checkout_event(gift), invoice_event(monthly, status="paid"), paid) == ["processed"] * 3
    assert told(again, paid_again) == ["processed"] * 2
    filed = dict(InboxEvent.objects.values_list("event_id", "gift_reference"))
    assert filed[again["id"]] == gift.pk
    assert filed[paid_again["id"]] == filed[paid["id"]] != ""
    assert LedgerEntry.objects.count() == 2
    assert list(invariants.check()) == []


def test_a_refund_that_does_not_fit_waits_under_its_gift_and_says_why(paid: Gift) -> None:
    assert told(refund_event(paid, 50000), refund_event(paid, 100, refund="re_2")) == ["processed", "waiting"]
    row = InboxEvent.objects.get(state="waiting")
    assert (row.reason, row.gift_reference) == ("with it, more would be refunded than was charged", paid.pk)


def test_the_movements_of_a_refund_are_asked_for(paid: Gift) -> None:
    told(refund_event(paid, 100, balance_transaction="txn_out"))
    told(refund_event(paid, 100, status="failed", balance_transaction="txn_out", failure_balance_transaction="txn_in"))
    asked = Lookup.objects.filter(kind="balance_transaction").values_list("object_id", flat=True)
    assert set(asked) == {"txn_out", "txn_in"}

"""Disputes: money that a bank takes back and returns, in any order, in parts, above the gift, in another currency."""

import itertools
from datetime import UTC, datetime

import pytest
from django.db import transaction

from donations import inbox, invariants, projections
from donations.models import Campaign, Gift, GiftState, InboxEvent, LedgerEntry, Lookup, MonthTotal
from tests.factories import (
    NOON,
    Event,
    checkout_event,
    confirm,
    dispute_event,
    event,
    make_campaign,
    make_gift,
    movement,
    refund_event,
    told,
)

pytestmark = pytest.mark.django_db
DECEMBER = datetime(2024, 12, 3, 12, tzinfo=UTC)
JANUARY = datetime(2025, 1, 7, 12, tzinfo=UTC)
TAKEN = movement("txn_taken", -50000, fee=1500, at=DECEMBER, type="adjustment")
RETURNED = movement("txn_returned", 50000, fee=-1500, at=JANUARY, type="adjustment")
Row = tuple[str, str, int]
BOTH: list[Row] = [("dispute_reinstated", "txn_returned", 50000), ("dispute_withdrawn", "txn_taken", -50000)]


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def paid(campaign: Campaign) -> Gift:
    """A gift of 50000 that was paid at noon of 18 November."""
    gift = make_gift(campaign)
    confirm(gift)
    return gift


def disputes() -> list[Row]:
    found = LedgerEntry.objects.filter(kind__startswith="dispute").order_by("kind", "reference")
    return list(found.values_list("kind", "reference", "amount"))


def fees() -> list[tuple[str, int]]:
    return list(LedgerEntry.objects.filter(kind="fee").order_by("reference").values_list("reference", "amount"))


def raised(month: str = "2024-11") -> int:
    return MonthTotal.objects.get(month=month).raised


def test_what_a_bank_takes_back_does_not_count_any_more(paid: Gift) -> None:
    assert told(dispute_event(paid, TAKEN, kind="charge.dispute.funds_withdrawn")) == ["processed"]
    state = GiftState.objects.get()
    assert (disputes(), state.disputed, state.counted, raised()) == ([BOTH[1]], 50000, 0, 0)


def test_a_dispute_stands_in_its_own_month_in_the_books_and_in_the_gifts_month_in_the_bar(paid: Gift) -> None:
    told(dispute_event(paid, TAKEN))
    entry = LedgerEntry.objects.get(kind="dispute_withdrawn")
    assert (entry.effective_at, str(entry.local_date), entry.campaign_month) == (DECEMBER, "2024-12-03", "2024-11")


def test_a_dispute_that_is_won_gives_the_gift_back_to_the_bar(paid: Gift) -> None:
    told(dispute_event(paid, TAKEN), dispute_event(paid, TAKEN, RETURNED, status="won"))
    assert (disputes(), fees(), raised()) == (BOTH, [("txn_returned", 1500), ("txn_taken", -1500)], 50000)


def test_a_dispute_may_be_won_after_it_was_lost_and_lost_again(paid: Gift) -> None:
    again = movement("txn_again", -50000, at=JANUARY)
    told(dispute_event(paid, TAKEN, status="lost"), dispute_event(paid, TAKEN, RETURNED, status="won"))
    told(dispute_event(paid, TAKEN, RETURNED, again, status="lost"))
    assert (len(disputes()), raised(), GiftState.objects.get().disputed) == (3, 0, 50000)


def test_a_part_that_is_returned_counts_as_that_part(paid: Gift) -> None:
    told(dispute_event(paid, TAKEN, movement("txn_part", 20000, at=JANUARY)))
    assert (raised(), GiftState.objects.get().disputed) == (20000, 30000)


def test_a_dispute_may_exceed_its_gift_and_counts_nothing_below_zero(paid: Gift) -> None:
    assert told(dispute_event(paid, movement("txn_more", -60000), amount=60000)) == ["processed"]
    state = GiftState.objects.get()
    assert (state.disputed, state.counted, raised()) == (60000, 0, 0)


def test_a_dispute_of_a_gift_that_was_refunded_takes_it_a_second_time(paid: Gift) -> None:
    told(refund_event(paid, 50000), dispute_event(paid, TAKEN))
    state = GiftState.objects.get()
    assert (state.refunded, state.disputed, state.counted) == (50000, 50000, 0)


def test_an_inquiry_moves_no_money(paid: Gift) -> None:
    opened = dispute_event(paid, status="warning_needs_response", kind="charge.dispute.created")
    closed = dispute_event(paid, status="warning_closed", kind="charge.dispute.closed")
    assert told(opened, closed) == ["processed", "processed"]
    assert (disputes(), fees(), raised()) == ([], [], 50000)


@pytest.mark.slow
def test_every_order_of_a_payment_and_its_dispute_ends_in_one_state(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    events = [
        checkout_event(gift),
        dispute_event(gift, TAKEN, kind="charge.dispute.created"),
        dispute_event(gift, TAKEN, kind="charge.dispute.funds_withdrawn"),
        dispute_event(gift, TAKEN, RETURNED, kind="charge.dispute.funds_reinstated"),
    ]
    found = set()
    for order in itertools.permutations(events):
        with transaction.atomic():
            told(*order)
            inbox.drain()
            state = GiftState.objects.get()
            found.add((*disputes(), *fees(), state.disputed, state.counted, raised(), len(projections.drift())))
            transaction.set_rollback(True)
    assert found == {(*BOTH, ("txn_returned", 1500), ("txn_taken", -1500), 0, 50000, 50000, 0)}


def test_a_dispute_waits_for_its_gift_and_is_woken_by_it(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    assert told(dispute_event(gift, TAKEN)) == ["waiting"]
    confirm(gift)
    assert (disputes(), raised()) == ([BOTH[1]], 0)


def test_what_a_dispute_waits_for_and_belongs_to_is_told(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    told(dispute_event(gift, TAKEN))
    assert InboxEvent.objects.get().reason == "the payment that it disputes is not booked here"
    confirm(gift)
    assert set(InboxEvent.objects.values_list("gift_reference", "reason")) == {(gift.pk, "")}


def test_a_part_of_what_is_disputed_may_be_withdrawn(paid: Gift) -> None:
    told(dispute_event(paid, movement("txn_part", -30000), amount=50000))
    assert (disputes(), raised()) == ([("dispute_withdrawn", "txn_part", -30000)], 20000)


def test_the_smallest_unit_may_come_back_in_another_currency(paid: Gift) -> None:
    taken, cent = movement("txn_taken", -50000, currency="eur"), movement("txn_cent", 1, currency="eur", at=JANUARY)
    told(dispute_event(paid, taken, cent))
    assert disputes() == [("dispute_reinstated", "txn_cent", 1), ("dispute_withdrawn", "txn_taken", -50000)]


def test_a_fee_without_a_movement_is_no_measure_for_what_follows(paid: Gift) -> None:
    fee = movement("txn_fee", 0, fee=1500, currency="eur", at=NOON)
    assert told(dispute_event(paid, fee, movement("txn_taken", -46000, currency="eur", at=DECEMBER))) == ["processed"]
    assert (disputes(), fees()) == ([BOTH[1]], [("txn_fee", -1500)])


def test_a_dispute_in_another_currency_than_its_gift_is_quarantined(paid: Gift) -> None:
    assert told(dispute_event(paid, TAKEN, currency="eur")) == ["quarantined"]
    assert disputes() == []


def test_what_was_settled_in_another_currency_is_booked_in_the_gifts_with_the_settlement_beside_it(paid: Gift) -> None:
    taken = movement("txn_taken", -46000, fee=1400, currency="eur", at=DECEMBER)
    returned = movement("txn_returned", 15333, currency="eur", at=JANUARY)
    assert told(dispute_event(paid, taken, returned)) == ["processed"]
    rows = LedgerEntry.objects.filter(kind__startswith="dispute").order_by("kind")
    columns = ("amount", "currency", "settlement_amount", "settlement_currency")
    # A third of what was withdrawn came back: 50000 × 15333 / 46000 = 16666.3.
    assert list(rows.values_list(*columns)) == [(16666, "USD", 15333, "EUR"), (-50000, "USD", -46000, "EUR")]
    assert list(LedgerEntry.objects.filter(kind="fee").values_list("amount", "currency")) == [(-1400, "EUR")]


@pytest.mark.parametrize("second", ["txn_a", "txn_z"])
def test_of_what_was_withdrawn_twice_in_one_second_the_larger_is_the_measure(paid: Gift, second: str) -> None:
    moved = [
        movement("txn_m", -40000, currency="eur"),
        movement("txn_n", 28000, currency="eur"),
        movement(second, -28000, currency="eur"),
    ]
    told(dispute_event(paid, *moved))
    amounts = dict(LedgerEntry.objects.filter(kind__startswith="dispute").values_list("reference", "amount"))
    assert amounts == {"txn_m": -50000, "txn_n": 35000, second: -35000}
    assert list(invariants.check()) == []


def test_a_return_without_its_withdrawal_in_another_currency_is_for_a_person(paid: Gift) -> None:
    returned = dispute_event(paid, movement("txn_returned", 46000, currency="eur"))
    assert told(returned) == ["quarantined"]
    reason = "it returns money in another currency than the gift's, and tells no withdrawal"
    assert InboxEvent.objects.get(event_id=returned["id"]).reason == reason


def test_the_transactions_of_a_dispute_are_looked_up_once(paid: Gift) -> None:
    told(dispute_event(paid, TAKEN), dispute_event(paid, TAKEN, status="lost"))
    assert list(Lookup.objects.values_list("kind", "object_id")) == [("balance_transaction", "txn_taken")]


def test_all_transactions_that_one_sighting_names_are_looked_up(paid: Gift) -> None:
    told(dispute_event(paid, TAKEN, RETURNED))
    assert sorted(Lookup.objects.values_list("object_id", flat=True)) == ["txn_returned", "txn_taken"]


def test_a_dispute_takes_nothing_from_what_may_be_refunded_and_booked(paid: Gift) -> None:
    assert told(dispute_event(paid, TAKEN), refund_event(paid, 50000, refund="re_a")) == ["processed", "processed"]
    assert told(refund_event(paid, 1, refund="re_b")) == ["waiting"]


def test_a_dispute_of_a_bare_charge_or_of_a_foreign_payment_is_not_ours(campaign: Campaign, paid: Gift) -> None:
    stranger = make_gift(campaign)
    told(checkout_event(stranger, metadata={}))
    theirs, bare = dispute_event(stranger, TAKEN), dispute_event(paid, TAKEN, payment_intent=None)
    assert told(theirs, bare) == ["foreign", "foreign"]


def test_what_was_set_aside_as_foreign_is_booked_when_its_payment_is_ours_after_all(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    elsewhere = event("checkout.session.completed", {**checkout_event(gift)["data"]["object"], "metadata": {}})
    assert told(elsewhere, dispute_event(gift, TAKEN)) == ["foreign", "foreign"]
    confirm(gift)
    assert disputes() == [BOTH[1]]


@pytest.mark.parametrize("broken", [{"balance_transactions": "none"}, {"amount": -1}, {"status": None}])
def test_a_dispute_that_is_not_as_promised_is_quarantined(paid: Gift, broken: Event) -> None:
    assert told(dispute_event(paid, TAKEN, **broken)) == ["quarantined"]

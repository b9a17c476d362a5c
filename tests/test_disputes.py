"""Disputes: money that a bank takes back and returns, in any order, in parts, above the gift, in another currency."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, Decimal

import pytest
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from donations import inbox, invariants, offline, projections
from donations.booking.disputes import in_currency_of_gift
from donations.models import Campaign, Gift, GiftState, InboxEvent, LedgerEntry, Lookup, MonthTotal
from donations.processors.facts import DisputeChanged, Movement
from tests.factories import (
    NOON,
    Event,
    body_of,
    charge_event,
    checkout_event,
    confirm,
    dispute_event,
    event,
    make_campaign,
    make_gift,
    make_staff,
    movement,
    refund_event,
    told,
    transaction_event,
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


def exchanged(reference: str, amount: int, rate: float | None, at: datetime = DECEMBER, currency: str = "eur") -> Event:
    """A movement that was exchanged from the gift's currency at this rate."""
    return movement(reference, amount, currency=currency, at=at, exchange_rate=rate, type="adjustment")


def amounts() -> dict[str, int]:
    return {reference: amount for _, reference, amount in disputes()}


def disputed() -> int:
    return GiftState.objects.get().disputed


@pytest.mark.parametrize("rate, settled", [(0.95, 47500), (0.85, 42500), (1.08771, 54386), (0.333333, 16667)])
def test_what_comes_back_at_another_rate_is_what_was_withdrawn(paid: Gift, rate: float, settled: int) -> None:
    taken, back = exchanged("txn_taken", -46000, 0.92), exchanged("txn_back", settled, rate, JANUARY)
    assert told(dispute_event(paid, taken), dispute_event(paid, taken, back, status="won")) == ["processed"] * 2
    assert (amounts(), disputed(), raised()) == ({"txn_taken": -50000, "txn_back": 50000}, 0, 50000)
    assert list(invariants.check()) == []


@pytest.mark.parametrize("rounded", [-1, 0, 1])
def test_however_the_processor_rounds_nothing_of_a_whole_return_stays_disputed(
    campaign: Campaign, rounded: int
) -> None:
    gift = make_gift(campaign, 4999)
    confirm(gift)
    # 4999 × 0.9177 is 4587.58, and times 0.8713 it is 4355.63.
    taken, back = exchanged("txn_a", -4587 - (rounded > 0), 0.9177), exchanged("txn_b", 4355 + (rounded > 0), 0.8713)
    told(dispute_event(gift, taken, {**back, "created": int(JANUARY.timestamp())}))
    assert amounts() == {"txn_a": -4999, "txn_b": 4999}


def test_parts_are_exchanged_back_each_at_its_own_rate_and_the_last_is_the_rest(paid: Gift) -> None:
    taken = exchanged("txn_taken", -46000, 0.92)
    third = exchanged("txn_third", 15833, 0.95, JANUARY)  # of 166.66 it would be 158.327
    rest = exchanged("txn_rest", 28334, 0.85, JANUARY + timedelta(days=1))  # of 333.34 it is 283.339
    told(dispute_event(paid, taken, third, rest))
    assert amounts() == {"txn_taken": -50000, "txn_third": 16666, "txn_rest": 33334}
    assert (disputed(), list(invariants.check())) == (0, [])


def test_what_was_returned_may_be_withdrawn_again_at_a_third_rate(paid: Gift) -> None:
    moved = [
        exchanged("txn_taken", -46000, 0.92),
        exchanged("txn_part", 28500, 0.95, JANUARY),
        exchanged("txn_again", -25500, 0.85, JANUARY + timedelta(days=1)),
    ]
    told(dispute_event(paid, *moved, status="lost"))
    assert amounts() == {"txn_taken": -50000, "txn_part": 30000, "txn_again": -30000}
    assert (disputed(), list(invariants.check())) == (50000, [])


def test_what_happens_in_one_second_is_the_same_whether_it_is_told_at_once_or_one_by_one(campaign: Campaign) -> None:
    moved = [exchanged("txn_a", -4588, 0.9177), exchanged("txn_b", 4355, 0.8713), exchanged("txn_c", -4419, 0.8841)]
    found = set()
    for apart in (1, 2, 3):
        gift = make_gift(campaign, 4999)
        confirm(gift)
        mine = [{**each, "id": f"{each['id']}{apart}"} for each in moved]
        told(*(dispute_event(gift, *mine[:count]) for count in range(apart, 4)))
        rows = LedgerEntry.objects.filter(gift=gift, kind__startswith="dispute").order_by("reference")
        found.add(tuple(rows.values_list("amount", flat=True)))
    assert (found, list(invariants.check())) == ({(-4999, 4999, -4999)}, [])


rates = st.decimals("0.00001", "99999", allow_nan=False, allow_infinity=False, places=6).filter(bool)
ways_to_round = st.sampled_from([ROUND_DOWN, ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_UP])


@given(st.integers(1, 99_999_999), st.lists(rates, min_size=4, max_size=4), ways_to_round)
def test_whatever_the_rates_and_the_rounding_what_is_taken_and_returned_as_a_whole_stays_whole(
    amount: int, rates: list[Decimal], rounding: str
) -> None:
    told = []
    for number, rate in enumerate(rates):
        settled = int((amount * rate).quantize(Decimal(1), rounding)) or 1  # less than a unit cannot move
        at, signed = NOON + timedelta(seconds=number), settled if number % 2 else -settled
        told.append(Movement(f"txn_{number}", signed, 0, "EUR", at, f"{rate:f}"))
    fact = DisputeChanged("du_1", "pi_1", "won", "", amount, "USD", tuple(told), NOON)
    assert [of for _, of in in_currency_of_gift(fact)] == [-amount, amount] * 2


@given(
    st.integers(1, 99_999_999),
    st.lists(rates, min_size=2, max_size=2),
    st.sampled_from([ROUND_HALF_UP, ROUND_HALF_EVEN]),
)
def test_a_rate_that_is_told_in_six_digits_leaves_no_cents_behind(
    amount: int, rates: list[Decimal], rounding: str
) -> None:
    told = []
    for number, rate in enumerate(rates):
        settled = int((amount * rate).quantize(Decimal(1), rounding)) or 1
        at, signed = NOON + timedelta(seconds=number), settled if number % 2 else -settled
        told.append(Movement(f"txn_{number}", signed, 0, "EUR", at, f"{Decimal(f'{rate:.6g}'):f}"))
    fact = DisputeChanged("du_1", "pi_1", "won", "", amount, "USD", tuple(told), NOON)
    assert [of for _, of in in_currency_of_gift(fact)] == [-amount, amount]


def test_a_rate_is_of_minor_units_so_a_currency_without_decimals_needs_no_more(campaign: Campaign) -> None:
    tokyo = make_campaign("tokyo", currency="JPY", is_default=False)
    gift = make_gift(tokyo, 30000)
    confirm(gift)
    taken = exchanged("txn_taken", -20025, 0.6675, currency="usd")  # 30,000 yen are 200.25 $
    told(dispute_event(gift, taken, exchanged("txn_back", 6833, 0.6833, JANUARY, currency="usd")))
    assert amounts() == {"txn_taken": -30000, "txn_back": 10000}


def test_what_was_withdrawn_in_the_gifts_currency_may_be_returned_in_another(paid: Gift) -> None:
    told(dispute_event(paid, TAKEN, exchanged("txn_back", 46000, 0.92, JANUARY), status="won"))
    assert (amounts(), disputed()) == ({"txn_taken": -50000, "txn_back": 50000}, 0)


def test_a_return_in_another_currency_tells_nothing_by_its_ratio_to_a_withdrawal_in_the_gifts(paid: Gift) -> None:
    assert told(dispute_event(paid, TAKEN, exchanged("txn_back", 46000, None, JANUARY))) == ["quarantined"]


def test_a_return_whose_withdrawal_is_not_told_is_booked_by_its_rate(paid: Gift) -> None:
    whole, part = exchanged("txn_whole", 42501, 0.85001), exchanged("txn_part", 25500, 0.85)
    told(dispute_event(paid, whole), dispute_event(paid, part, id="du_other"))
    assert amounts() == {"txn_whole": 50000, "txn_part": 30000}


def test_a_rate_is_read_to_its_last_digit(paid: Gift) -> None:
    body = body_of(dispute_event(paid, exchanged("txn_part", -1000, 0.5))).replace(b"0.5", b"0.8000000000000000000001")
    assert inbox.put(processor="stripe", origin="delivery", event_id="evt_exact", type="dispute", body=body)
    inbox.drain()
    [row] = InboxEvent.objects.filter(event_id="evt_exact")
    assert row.facts is not None
    assert row.facts["movements"][0]["exchange_rate"] == "0.8000000000000000000001"
    assert amounts() == {"txn_part": -1250}


@pytest.mark.parametrize("rate", ["0.92", True, 0, -0.92, 1e-300, 1e300, [0.92]])
def test_what_is_no_rate_is_not_told(paid: Gift, rate: object) -> None:
    taken = movement("txn_taken", -46000, currency="eur", exchange_rate=rate)
    told(dispute_event(paid, taken))
    assert amounts() == {"txn_taken": -50000}
    assert "exchange_rate" not in InboxEvent.objects.get(type="charge.dispute.updated").facts["movements"][0]


def test_a_sighting_of_an_earlier_version_without_rates_stands_beside_one_with_them(paid: Gift) -> None:
    taken = exchanged("txn_taken", -46000, 0.92)
    told(dispute_event(paid, taken))
    row = InboxEvent.objects.get(type="charge.dispute.updated")
    for moved in row.facts["movements"]:
        del moved["exchange_rate"]
    row.save(update_fields=["facts"])
    told(dispute_event(paid, taken, exchanged("txn_back", 42500, 0.85, JANUARY), status="won"))
    assert (amounts(), list(invariants.check())) == ({"txn_taken": -50000, "txn_back": 50000}, [])
    InboxEvent.objects.filter(pk=row.pk).update(body=None)
    inbox.replay(row)
    assert list(invariants.check()) == []


@pytest.mark.parametrize("booked, correction", [(51630, -1630), (46196, 3804)])
def test_what_an_earlier_version_booked_wrongly_is_found_until_an_adjustment_puts_it_right(
    paid: Gift, booked: int, correction: int
) -> None:
    rate, settled = (0.95, 47500) if correction < 0 else (0.85, 42500)
    taken, back = exchanged("txn_taken", -46000, 0.92), exchanged("txn_back", settled, rate, JANUARY)
    # As then: without rates the return is booked by its ratio to the withdrawal.
    told(dispute_event(paid, {**taken, "exchange_rate": None}, {**back, "exchange_rate": None}, status="won"))
    assert amounts()["txn_back"] == booked
    told(dispute_event(paid, taken, back, status="won"), transaction_event(paid, back))
    found = {finding.invariant for finding in invariants.check()}
    assert {"movements_are_booked", "what_moved_is_what_is_booked"} <= found
    assert ("dispute_returns_what_it_took" in found) == (booked > 50000)
    for amount, reference in {30: "txn_back/2", correction - 30: "txn_back"}.items():
        assert list(invariants.check()) != []
        offline.record_adjustment(
            campaign=paid.campaign,
            gift=paid if amount < 0 else None,  # a gift is given no more than was taken from it
            amount=amount,
            day=NOON.date(),
            reference=reference,
            reason="the rate changed",
            user=make_staff(superuser=True),
        )
    assert list(invariants.check()) == []


def test_of_large_sums_a_rate_that_is_told_in_six_digits_leaves_nothing_open(campaign: Campaign) -> None:
    gift = make_gift(campaign, 500_000)
    confirm(gift)
    settled = 541_727  # at 1.0834549; at the rate as told it would be 541,725
    charged = movement("txn_charge", settled, currency="eur", exchange_rate=1.08345)
    taken = exchanged("txn_taken", -settled, 1.08345)
    assert (
        told(
            charge_event(gift, "txn_charge"),
            transaction_event(gift, charged),
            dispute_event(gift, taken, amount=500_000),
            transaction_event(gift, taken),
        )
        == ["processed"] * 4
    )
    assert amounts()["txn_taken"] == -500_000
    assert list(invariants.check()) == []
    less = movement("txn_less", settled - 9, currency="eur", exchange_rate=1.08345)
    told(charge_event(gift, "txn_less"), transaction_event(gift, less))
    assert "what_moved_is_what_is_booked" in {finding.invariant for finding in invariants.check()}


@pytest.mark.slow
def test_every_order_of_what_is_exchanged_ends_in_one_state(campaign: Campaign) -> None:
    gift = make_gift(campaign, 4999)
    moved = [
        exchanged("txn_taken", -4588, 0.9177),
        exchanged("txn_part", 1000, 0.8713, JANUARY),
        exchanged("txn_rest", 3404, 0.8839, JANUARY + timedelta(days=1)),
    ]
    events = [checkout_event(gift), *(dispute_event(gift, *moved[: count + 1]) for count in range(3))]
    found = set()
    for order in itertools.permutations(events):
        with transaction.atomic():
            told(*order)
            inbox.drain()
            found.add((*disputes(), disputed(), raised(), len(list(invariants.check()))))
            transaction.set_rollback(True)
    rows = [("dispute_reinstated", "txn_part", 1148), ("dispute_reinstated", "txn_rest", 3851)]
    assert found == {(*rows, ("dispute_withdrawn", "txn_taken", -4999), 0, 4999, 0)}


def test_a_return_without_its_withdrawal_in_another_currency_is_for_a_person(paid: Gift) -> None:
    returned = dispute_event(paid, movement("txn_returned", 46000, currency="eur"))
    assert told(returned) == ["quarantined"]
    reason = "it cannot be accepted: what it moved was exchanged, and it does not tell at which rate"
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

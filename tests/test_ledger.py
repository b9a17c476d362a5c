"""The ledger's one writer, and what the database refuses to have booked, whoever writes."""

import random
import threading
from collections.abc import Iterable
from dataclasses import FrozenInstanceError, asdict, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from donations import ledger
from donations.ledger import NewEntry
from donations.models import Campaign, Gift, LedgerEntry
from tests.factories import NOON, make_campaign, make_gift

pytestmark = pytest.mark.django_db
ADDING = ["gift", "offline_gift", "refund_reversal", "dispute_reinstated"]
TAKING = ["refund", "dispute_withdrawn"]
EITHER = ["fee", "adjustment"]


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def gift(campaign: Campaign) -> Gift:
    return make_gift(campaign)


def movement(of: Gift, /, kind: str = "gift", amount: int = 50000, **fields: Any) -> NewEntry:
    """A movement of a gift's money, on 18 November unless told otherwise."""
    common = {
        "campaign": of.campaign,
        "effective_at": NOON,
        "kind": kind,
        "processor": "stripe",
        "reference": f"pi_{kind}",
        "currency": of.currency,
        "amount": amount,
        "livemode": of.livemode,
        "gift": of.pk,
        "tier": of.tier,
    }
    settlement = {name: fields.pop(name) for name in list(fields) if name.startswith("settlement")}
    return replace(ledger.entry(**{**common, **fields}), **settlement)


def refunds(gift: Gift, numbers: Iterable[int]) -> list[NewEntry]:
    return [movement(gift, "refund", -1 - number, reference=f"re_{number:05d}") for number in numbers]


def rows() -> list[tuple[Any, ...]]:
    """All that stands in the ledger, but for when and in which order it was booked."""
    columns = [name for name in ledger.COLUMNS if name != "booked_at"]
    return sorted(LedgerEntry.objects.values_list(*columns), key=lambda row: row[6:9])


def refused(entry: NewEntry, words: str) -> None:
    """Assert that the database refuses an entry, in these words, and that nothing of it stands."""
    before = LedgerEntry.objects.count()
    with pytest.raises(DatabaseError, match=words), transaction.atomic():
        ledger.post([entry])
    assert LedgerEntry.objects.count() == before


# ---- what an entry is


@pytest.mark.parametrize(
    ("zone", "moment", "day", "month"),
    [
        ("America/New_York", datetime(2024, 12, 1, 4, 59, 59, tzinfo=UTC), date(2024, 11, 30), "2024-11"),
        ("America/New_York", datetime(2024, 12, 1, 5, tzinfo=UTC), date(2024, 12, 1), "2024-12"),
        ("Pacific/Kiritimati", datetime(2024, 10, 31, 10, tzinfo=UTC), date(2024, 11, 1), "2024-11"),
        # Clocks went back over midnight of the first: the month stays begun.
        ("America/St_Johns", datetime(2009, 11, 1, 3, tzinfo=UTC), date(2009, 11, 1), "2009-11"),
    ],
)
def test_an_entry_gets_its_day_and_month_in_its_campaigns_zone(
    zone: str, moment: datetime, day: date, month: str
) -> None:
    gift = make_gift(make_campaign(time_zone=zone))
    entry = movement(gift, effective_at=moment)
    assert (entry.local_date, entry.campaign_month, entry.time_zone) == (day, month, zone)
    ledger.post([entry])
    stored = LedgerEntry.objects.get()
    assert (stored.effective_at, stored.local_date, stored.campaign_month) == (moment, day, month)


def test_a_refund_keeps_its_own_day_and_its_gifts_month(gift: Gift) -> None:
    december = datetime(2024, 12, 3, tzinfo=UTC)
    entry = movement(gift, "refund", -100, effective_at=december, campaign_month="2024-11")
    assert (entry.local_date, entry.campaign_month) == (date(2024, 12, 2), "2024-11")


def test_an_entry_carries_what_it_was_given_and_nothing_else(campaign: Campaign) -> None:
    told = {
        "kind": "fee",
        "processor": "stripe",
        "reference": "txn_1",
        "currency": "USD",
        "amount": -30,
        "livemode": True,
    }
    more = {"gift": "gift_1", "tier": "500", "goal_amount": 7, "campaign_month": "2024-10", "inbox_event_id": 5,
            "settlement_currency": "EUR", "settlement_amount": -28}  # fmt: skip
    place = {
        "campaign": "general",
        "effective_at": NOON,
        "local_date": date(2024, 11, 18),
        "time_zone": "America/New_York",
    }
    nothing = {"gift": None, "tier": "", "goal_amount": 0, "campaign_month": "2024-11", "inbox_event_id": None,
               "settlement_currency": "", "settlement_amount": None}  # fmt: skip
    assert asdict(ledger.entry(campaign=campaign, effective_at=NOON, **told, **more)) == told | more | place
    assert asdict(ledger.entry(campaign=campaign, effective_at=NOON, **told)) == told | nothing | place


def test_an_entry_is_never_changed_in_memory_either(gift: Gift) -> None:
    entry = movement(gift)
    with pytest.raises(FrozenInstanceError):
        entry.amount = 1  # type: ignore[misc]


def test_every_column_of_the_table_is_written(gift: Gift) -> None:
    columns = {field.column for field in LedgerEntry._meta.concrete_fields} - {"id"}
    assert set(ledger.COLUMNS) == columns
    entry = movement(gift, goal_amount=48000, settlement_currency="EUR", settlement_amount=46000)
    ledger.post([entry])
    stored = LedgerEntry.objects.values(*ledger.COLUMNS).get()
    booked_at = stored.pop("booked_at")
    assert stored == {name: getattr(entry, name) for name in stored}
    assert abs(datetime.now(UTC) - booked_at) < timedelta(minutes=1)


# ---- posting


def test_only_what_is_new_is_returned_sorted_and_what_stands_is_passed_over(gift: Gift) -> None:
    first = [movement(gift, reference="pi_2"), *refunds(gift, [3, 1])]
    assert ledger.post(first) == sorted(first, key=lambda entry: entry.key)
    standing = rows()
    assert ledger.post(first) == []
    assert rows() == standing
    assert ledger.post([*refunds(gift, [4, 3, 2]), first[0]]) == refunds(gift, [2, 4])
    assert len(rows()) == 5


def test_nothing_to_book_asks_the_database_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert ledger.post([]) == []


def test_what_was_booked_first_stands(gift: Gift) -> None:
    first, second = movement(gift, "refund", -100), movement(gift, "refund", -200)
    assert ledger.post([first, second]) == [first]
    assert ledger.post([second]) == []
    assert LedgerEntry.objects.get().amount == -100


def test_one_reference_names_one_movement_of_each_kind_and_processor(gift: Gift) -> None:
    entries = [
        movement(gift, kind, amount, reference="re_1", processor=processor)
        for kind, amount in (("refund", -100), ("refund_reversal", 100))
        for processor in ("offline", "stripe")
    ]
    assert len(ledger.post(entries)) == 4


def test_one_refused_entry_refuses_all_that_are_posted_with_it(gift: Gift) -> None:
    with pytest.raises(DatabaseError), transaction.atomic():
        ledger.post([movement(gift), *refunds(gift, range(5)), movement(gift, "refund", 100)])
    assert rows() == []


@pytest.mark.slow
def test_thousands_of_entries_are_booked_in_chunks(
    gift: Gift, rng: random.Random, django_assert_num_queries: Any
) -> None:
    entries = refunds(gift, range(3000))
    shuffled = [*entries, *entries[:10]]
    rng.shuffle(shuffled)
    ledger.post(entries[500:510])
    with django_assert_num_queries(3):
        assert ledger.post(shuffled) == entries[:500] + entries[510:]
    assert LedgerEntry.objects.count() == 3000
    assert ledger.post(shuffled) == []


@st.composite
def batches(draw: st.DrawFn) -> list[list[int]]:
    """Twelve movements in any order, some of them again and again, split anywhere into batches."""
    order = draw(st.permutations([*range(12), *draw(st.lists(st.integers(0, 11), max_size=12))]))
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1), max_size=5)))
    return [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]


@pytest.mark.slow
@settings(max_examples=40)
@given(batches())
def test_any_order_any_repeats_and_any_batches_make_the_same_rows(split: list[list[int]]) -> None:
    with transaction.atomic():
        campaign = make_campaign()
        gifts = [make_gift(campaign, 10000, reference=f"gift_{number}") for number in range(4)]
        entries = [movement(gift, amount=10000, reference=f"pi_{gift.pk}", goal_amount=9000) for gift in gifts]
        entries += [movement(gift, "refund", -3000, reference=f"re_{gift.pk}") for gift in gifts]
        entries += [movement(gift, "fee", -300, reference=f"txn_{gift.pk}", currency="EUR") for gift in gifts]
        with transaction.atomic():
            ledger.post(entries)
            expected = rows()
            transaction.set_rollback(True)
        new = [ledger.post([entries[number] for number in batch]) for batch in split]
        assert rows() == expected
        assert sorted(entry.key for batch in new for entry in batch) == sorted(entry.key for entry in entries)
        assert all(batch == sorted(batch, key=lambda entry: entry.key) for batch in new)
        transaction.set_rollback(True)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_workers_that_book_the_same_movements_at_once_never_deadlock(gift: Gift) -> None:
    together, booked, failures = threading.Barrier(2), [], []
    entries = refunds(gift, range(2000))

    def work(order: list[NewEntry]) -> None:
        try:
            together.wait(10)
            with transaction.atomic():
                booked.extend(ledger.post(order))
        except Exception as failure:  # noqa: BLE001 (whatever it is, the test is to say so)
            failures.append(failure)
        finally:
            connection.close()

    workers = [threading.Thread(target=work, args=[order]) for order in (entries, entries[::-1])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    assert sorted(booked, key=lambda entry: entry.key) == entries


# ---- what the database refuses


@pytest.mark.parametrize(
    ("kind", "amount"),
    [(kind, amount) for kind in ADDING for amount in (0, -1)]
    + [(kind, amount) for kind in TAKING for amount in (0, 1)]
    + [(kind, 0) for kind in EITHER],
)
def test_an_amount_with_the_wrong_sign_is_refused(gift: Gift, kind: str, amount: int) -> None:
    refused(movement(gift, kind, amount), "entry_sign")


@pytest.mark.parametrize(
    ("kind", "amount"),
    [(kind, 1) for kind in ADDING] + [(kind, -1) for kind in TAKING] + [(k, a) for k in EITHER for a in (1, -1)],
)
def test_an_amount_with_the_right_sign_is_booked(gift: Gift, kind: str, amount: int) -> None:
    assert len(ledger.post([movement(gift, kind, amount)])) == 1


def test_a_kind_that_does_not_exist_is_refused(gift: Gift) -> None:
    refused(movement(gift, "tip", 100), "entry_sign")


@pytest.mark.parametrize(
    ("kind", "amount", "goal_amount"),
    [
        *(("gift", 50000, 50001), ("gift", 50000, -1), ("offline_gift", 100, 101)),
        *(("refund", -100, -100), ("refund", -100, 100), ("refund_reversal", 100, 100)),
        *(("dispute_reinstated", 100, 50), ("fee", -100, -100), ("adjustment", 100, 100)),
    ],
)
def test_more_toward_the_goal_than_came_in_is_refused(gift: Gift, kind: str, amount: int, goal_amount: int) -> None:
    refused(movement(gift, kind, amount, goal_amount=goal_amount), "entry_goal_amount")


def test_up_to_the_whole_gift_counts_toward_the_goal(gift: Gift) -> None:
    assert len(ledger.post([movement(gift, goal_amount=50000)])) == 1


@pytest.mark.parametrize(
    ("kind", "amount"), [("gift", 50000), ("refund", -1), ("dispute_withdrawn", -1), ("adjustment", 1)]
)
def test_another_currency_than_the_gifts_is_refused(gift: Gift, kind: str, amount: int) -> None:
    refused(movement(gift, kind, amount, currency="EUR"), "gift's currency and mode")


def test_a_fee_is_in_the_currency_that_it_was_settled_in(gift: Gift) -> None:
    assert len(ledger.post([movement(gift, "fee", -300, currency="EUR")])) == 1


@pytest.mark.parametrize(("kind", "amount"), [("gift", 50000), ("refund", -1), ("fee", -1)])
def test_another_mode_than_the_gifts_is_refused(gift: Gift, kind: str, amount: int) -> None:
    refused(movement(gift, kind, amount, livemode=True), "gift's currency and mode")


def test_a_gift_that_does_not_exist_is_refused(gift: Gift) -> None:
    refused(movement(gift, gift="gift_nobody"), "gift's currency and mode")


@pytest.mark.parametrize("second", ["gift", "offline_gift"])
@pytest.mark.parametrize("first", ["gift", "offline_gift"])
def test_a_second_payment_for_one_gift_is_refused(gift: Gift, first: str, second: str) -> None:
    ledger.post([movement(gift, first, reference="pi_1")])
    refused(movement(gift, second, reference="pi_2"), "one_gift_entry_a_gift|donations_ledgerentry.gift")


@pytest.mark.parametrize(("kind", "amount"), [(kind, 1) for kind in ADDING] + [(kind, -1) for kind in TAKING])
def test_readers_money_without_a_gift_is_refused(gift: Gift, kind: str, amount: int) -> None:
    refused(movement(gift, kind, amount, gift=None), "entry_has_a_gift")


@pytest.mark.parametrize("kind", EITHER)
def test_fees_and_adjustments_may_belong_to_no_gift(gift: Gift, kind: str) -> None:
    assert len(ledger.post([movement(gift, kind, -1, gift=None)])) == 1


@pytest.mark.parametrize("settlement", [{"settlement_currency": "EUR"}, {"settlement_amount": 100}])
def test_half_of_a_settlement_is_refused(gift: Gift, settlement: dict[str, Any]) -> None:
    refused(movement(gift, **settlement), "entry_settlement")


@pytest.mark.parametrize("column", ["processor", "reference", "tier"])
@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "\t=1", " pi_1", "\u00a0pi", "pi\n1", "pi\r1", "pi\x7f", "pi\u2028"]
)
def test_a_text_that_a_spreadsheet_would_act_on_is_refused(gift: Gift, column: str, text: str) -> None:
    refused(movement(gift, **{column: text}), "entry_texts_are_plain")


@pytest.mark.parametrize("column", ["processor", "reference"])
def test_an_entry_without_a_name_is_refused(gift: Gift, column: str) -> None:
    refused(movement(gift, **{column: ""}), "entry_texts_are_plain")


@pytest.mark.parametrize("text", ["500.00", "custom", "é=+-@ ü", ""])
def test_plain_texts_are_booked(gift: Gift, text: str) -> None:
    assert len(ledger.post([movement(gift, tier=text)])) == 1


def test_the_database_refuses_whoever_writes(gift: Gift) -> None:
    ledger.post([movement(gift, goal_amount=50000)])
    entry = LedgerEntry.objects.get()
    for changed in ({"reference": "pi_2"}, {"kind": "refund", "amount": 1}, {"kind": "refund", "currency": "EUR"}):
        again = LedgerEntry(**{f.attname: getattr(entry, f.attname) for f in LedgerEntry._meta.concrete_fields})
        again.pk = None
        for name, value in changed.items():
            setattr(again, name, value)
        with pytest.raises(DatabaseError), transaction.atomic():
            LedgerEntry.objects.bulk_create([again])
    assert LedgerEntry.objects.count() == 1

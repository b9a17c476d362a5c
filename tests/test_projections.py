"""Totals are functions of the ledger: in any order, any batches, and from nothing; what differs is found and mended."""

import itertools
import random
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from donations import inbox, ledger, projections
from donations.ledger import NewEntry
from donations.models import (
    Campaign,
    CampaignMonth,
    DailyRollup,
    Donor,
    Follower,
    Gift,
    GiftState,
    InboxEvent,
    MonthTotal,
    RefundRequest,
)
from donations.projections import CheckoutNews
from donations.projections.totals import DAY_KEY, DAY_SUMS, MONTH_KEY, MONTH_SUMS
from donations.selectors import refunds
from tests.factories import NOON, Event, checkout_event, confirm, deliver, make_campaign, make_gift, refund_event

pytestmark = pytest.mark.django_db
NEW_YORK = ZoneInfo("America/New_York")
Totals = dict[tuple[Any, ...], dict[str, int]]


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


def book(gifts: list[Gift], entries: list[NewEntry], news: list[CheckoutNews] | None = None) -> None:
    """Book movements, and bring the totals up to date, as the inbox does it."""
    with transaction.atomic():
        ledger.post(entries)
        projections.apply(gifts=gifts, news=news or [])


def movement(of: Gift, kind: str, amount: int, reference: str = "", **fields: Any) -> NewEntry:
    return ledger.entry(
        **{
            "campaign": of.campaign,
            "effective_at": NOON,
            "kind": kind,
            "processor": "stripe",
            "reference": reference or f"{kind}_{of.pk}",
            "gift": of.pk,
            "tier": of.tier,
            "currency": of.currency,
            "amount": amount,
            "goal_amount": of.amount if kind in ("gift", "offline_gift") else 0,
            "livemode": of.livemode,
            **fields,
        }
    )


def totals() -> dict[str, Totals]:
    """All sums that stand and are not zero, by table and key."""
    tables = (
        (MonthTotal, MONTH_KEY, MONTH_SUMS),
        (DailyRollup, DAY_KEY, DAY_SUMS),
    )
    found: dict[str, Totals] = {}
    for model, key, sums in tables:
        rows = [(tuple(row[name] for name in key), row) for row in model.objects.values(*key, *sums)]
        found[model.__name__] = {
            where: {name: row[name] for name in sums if row[name]} for where, row in rows if any(row[n] for n in sums)
        }
    return found


def states() -> dict[str, dict[str, Any]]:
    return {row.pop("gift_id"): row for row in GiftState.objects.values()}


def raised(month: str = "2024-11") -> int:
    return sum(MonthTotal.objects.filter(month=month).values_list("raised", flat=True))


@contextmanager
def undone() -> Iterator[None]:
    """Leave nothing of what happens in here."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


# ---- the law of what counts, worked out a second time and apart


@dataclass(frozen=True)
class Asked:
    """A gift, and what moves of its money: kind, amount, reference."""

    amount: int
    cover: int
    at: datetime
    tier: str
    currency: str
    livemode: bool
    moves: tuple[tuple[str, int, str], ...]

    def sum_of(self, *kinds: str) -> int:
        return sum(amount for kind, amount, _ in self.moves if kind in kinds)

    @property
    def counted(self) -> int:
        """What we still hold of it, without its fee cover."""
        held = sum(amount for kind, amount, _ in self.moves if kind != "fee")
        return max(0, min(self.amount, held))


@st.composite
def asked_gifts(draw: st.DrawFn) -> Asked:
    amount, cover = draw(st.integers(1, 100_000)), draw(st.sampled_from([0, 0, 1, 1500]))
    charged = amount + cover
    moves: list[tuple[str, int, str]] = [(draw(st.sampled_from(["gift", "offline_gift"])), charged, "pi")]
    for number, part in enumerate(draw(st.lists(st.integers(1, charged), max_size=3))):
        moves.append(("refund", -part, f"re_{number}"))
        if draw(st.booleans()):
            moves.append(("refund_reversal", part, f"re_{number}"))
    if draw(st.booleans()):
        taken = draw(st.integers(1, 2 * charged))
        moves.append(("dispute_withdrawn", -taken, "txn_1"))
        if draw(st.booleans()):
            moves.append(("dispute_reinstated", taken, "txn_2"))
    if draw(st.booleans()):
        moves.append(("fee", -draw(st.integers(1, charged)), "txn_3"))
    if draw(st.booleans()):
        moves.append(("adjustment", draw(st.integers(-charged, charged).filter(bool)), "txn_4"))
    return Asked(
        amount=amount,
        cover=cover,
        at=NOON + timedelta(days=draw(st.sampled_from([0, 1, 20, -20])), hours=draw(st.sampled_from([0, 15]))),
        tier=draw(st.sampled_from(["500.00", "custom"])),
        currency=draw(st.sampled_from(["USD", "USD", "EUR", "JPY"])),
        livemode=draw(st.sampled_from([False, False, True])),
        moves=tuple(moves),
    )


def expected(asked: dict[str, Asked]) -> dict[str, Totals]:
    months: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    days: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for gift in asked.values():
        day = gift.at.astimezone(NEW_YORK).date()
        key = ("general", f"{day:%Y-%m}", gift.livemode, gift.currency)
        refunded = -gift.sum_of("refund", "refund_reversal")
        months[key] += Counter(
            raised=gift.counted,
            gifts=int(gift.counted > 0),
            charged=gift.amount + gift.cover,
            refunded=refunded,
            refunds=int(refunded > 0),
            disputed=-gift.sum_of("dispute_withdrawn", "dispute_reinstated"),
        )
        for dimension, value in (("all", ""), ("tier", gift.tier)):
            days[*key, day, dimension, value] += Counter(raised=gift.counted, gifts=int(gift.counted > 0))
    return {
        "MonthTotal": {key: dict(sums) for key, sums in months.items() if sums},
        "DailyRollup": {key: dict(sums) for key, sums in days.items() if sums},
    }


def make_all(asked: dict[str, Asked]) -> tuple[dict[str, Gift], list[NewEntry]]:
    """The gifts, and all of their movements."""
    campaign = make_campaign()
    gifts, entries = {}, []
    for reference, gift in asked.items():
        made = make_gift(
            campaign,
            gift.amount,
            reference=reference,
            fee_cover=gift.cover,
            tier=gift.tier,
            currency=gift.currency,
            livemode=gift.livemode,
        )
        gifts[reference] = made
        month = f"{gift.at.astimezone(NEW_YORK):%Y-%m}"
        for kind, amount, name in gift.moves:
            dates = {"effective_at": gift.at, "campaign_month": month}
            currency = "CHF" if kind == "fee" else gift.currency
            entries.append(movement(made, kind, amount, f"{name}_{reference}", currency=currency, **dates))
    return gifts, entries


@pytest.mark.slow
@settings(max_examples=50)
@given(asked=st.lists(asked_gifts(), min_size=1, max_size=4), data=st.data())
def test_any_order_and_any_batches_count_the_same(asked: list[Asked], data: st.DataObject) -> None:
    named = {f"gift_{number}": gift for number, gift in enumerate(asked)}
    with undone():
        gifts, entries = make_all(named)
        order = data.draw(st.permutations(entries))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(order)), max_size=4)))
        for start, end in itertools.pairwise([0, *cuts, len(order)]):
            batch = order[start:end]
            book([gifts[reference] for reference in sorted({str(entry.gift) for entry in batch})], batch)
            assert projections.drift() == []
        assert totals() == expected(named)
        for reference, state in states().items():
            gift = named[reference]
            assert state["status"] == "confirmed"
            assert state["counted"] == gift.counted
            assert state["charged"] == gift.amount + gift.cover
            assert state["refunded"] == -gift.sum_of("refund", "refund_reversal")
            assert state["disputed"] == -gift.sum_of("dispute_withdrawn", "dispute_reinstated")
            assert (state["payment"], state["confirmed_at"]) == (f"pi_{reference}", gift.at)
        stood = (totals(), states())
        projections.rebuild()
        assert (totals(), states()) == stood


@settings(max_examples=20)
@given(st.lists(asked_gifts(), min_size=1, max_size=5))
def test_a_month_is_the_sum_of_its_days_of_its_tiers_and_of_its_gifts(asked: list[Asked]) -> None:
    with undone():
        gifts, entries = make_all({f"gift_{number}": gift for number, gift in enumerate(asked)})
        book(list(gifts.values()), entries)
        for month in MonthTotal.objects.all():
            of_month = {"month": month.month, "currency": month.currency, "livemode": month.livemode}
            for dimension in ("all", "tier"):
                days = DailyRollup.objects.filter(**of_month, dimension=dimension)
                assert sum(days.values_list("raised", flat=True)) == month.raised
                assert sum(days.values_list("gifts", flat=True)) == month.gifts
            of_month["campaign_month"] = of_month.pop("month")
            counted = GiftState.objects.filter(**of_month).values_list("counted", flat=True)
            assert (sum(counted), sum(value > 0 for value in counted)) == (month.raised, month.gifts)


def test_applying_again_changes_nothing(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    entries = [movement(gift, "gift", 50000), movement(gift, "refund", -10000)]
    book([gift], entries)
    stood = (totals(), states())
    for _ in range(3):
        book([gift], entries)
    assert (totals(), states()) == stood


def test_nothing_to_apply_asks_the_database_nothing(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        projections.apply(gifts=[])


@pytest.mark.parametrize(
    ("moves", "counted"),
    [
        ([], 50000),
        ([("refund", -1500)], 50000),  # no more than its cover was given back
        ([("refund", -1501)], 49999),
        ([("refund", -51500)], 0),
        ([("refund", -51500), ("refund_reversal", 51500)], 50000),
        ([("fee", -1800)], 50000),
        ([("dispute_withdrawn", -60000)], 0),
        ([("dispute_withdrawn", -60000), ("dispute_reinstated", 60000)], 50000),
        ([("dispute_withdrawn", -60000), ("dispute_reinstated", 51500)], 43000),
        ([("dispute_reinstated", 51500)], 50000),
        ([("refund", -51500), ("dispute_withdrawn", -51500)], 0),
        ([("adjustment", 1000)], 50000),
        ([("adjustment", -2500)], 49000),
    ],
)
def test_what_is_held_of_a_gift_counts_and_its_fee_cover_never_does(
    campaign: Campaign, moves: list[tuple[str, int]], counted: int
) -> None:
    gift = make_gift(campaign, 50000, fee_cover=1500)
    book([gift], [movement(gift, "gift", 51500), *(movement(gift, kind, amount) for kind, amount in moves)])
    assert GiftState.objects.get().counted == raised() == counted
    assert MonthTotal.objects.get().gifts == int(counted > 0)


def test_sums_are_kept_apart_by_currency_and_mode(campaign: Campaign) -> None:
    kinds = [("USD", False), ("EUR", False), ("JPY", False), ("USD", True)]
    gifts = [make_gift(campaign, 100 + n, currency=c, livemode=mode) for n, (c, mode) in enumerate(kinds)]
    book(gifts, [movement(gift, "gift", gift.amount) for gift in gifts])
    found = {(t.currency, t.livemode): (t.raised, t.gifts) for t in MonthTotal.objects.all()}
    assert found == {kind: (100 + number, 1) for number, kind in enumerate(kinds)}
    assert DailyRollup.objects.filter(dimension="all").count() == 4


def test_decembers_refund_lowers_novembers_total(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    december = datetime(2024, 12, 20, tzinfo=UTC)
    deliver(refund_event(gift, 20000, created=december))
    inbox.drain()
    assert (raised("2024-11"), raised("2024-12")) == (30000, 0)
    assert set(DailyRollup.objects.values_list("day", flat=True)) == {date(2024, 11, 18)}


def test_a_months_first_money_fixes_its_goal_once(campaign: Campaign) -> None:
    CampaignMonth.objects.create(campaign=campaign, month="2024-12", goal=700)
    gifts = [make_gift(campaign) for _ in range(3)]
    december = datetime(2024, 12, 20, tzinfo=UTC)
    book(gifts[:2], [movement(gift, "gift", 50000) for gift in gifts[:2]])
    book(gifts[2:], [movement(gifts[2], "gift", 50000, effective_at=december)])
    assert dict(CampaignMonth.objects.values_list("month", "goal")) == {"2024-11": 500000, "2024-12": 700}


# ---- what is heard of checkouts


RISING = ["awaiting", "expired", "failed"]


def heard(gift: Gift, status: str, at: datetime = NOON) -> CheckoutNews:
    return CheckoutNews(gift.pk, status, at)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(RISING)), ids="-".join)
def test_late_news_never_lower_a_status(campaign: Campaign, order: tuple[str, ...], together: bool) -> None:
    gift = make_gift(campaign)
    if together:
        book([gift], [], [heard(gift, status) for status in order])
    for place, status in enumerate(order):
        book([gift], [], [heard(gift, status)])
        highest = "failed" if together else max(order[: place + 1], key=RISING.index)
        assert GiftState.objects.get().status == highest
    book([gift], [movement(gift, "gift", 50000)])
    for status in order:
        book([gift], [], [heard(gift, status)])
    assert GiftState.objects.get().status == "confirmed"
    total = MonthTotal.objects.get()
    assert (total.raised, total.awaiting, total.awaiting_gifts) == (50000, 0, 0)


@pytest.mark.parametrize("amount", [1, 50000])
def test_money_on_its_way_is_awaited_and_does_not_count(campaign: Campaign, amount: int) -> None:
    gift = make_gift(campaign, amount, fee_cover=1500)
    book([gift], [], [heard(gift, "awaiting")])
    total = MonthTotal.objects.get()
    assert (total.raised, total.gifts, total.awaiting, total.awaiting_gifts) == (0, 0, amount, 1)
    stood = states()
    book([gift], [])
    assert states() == stood
    assert not DailyRollup.objects.exists()
    book([gift], [movement(gift, "gift", amount + 1500, effective_at=NOON + timedelta(days=20))])
    assert {month: sums.get("raised") for (_, month, *_), sums in totals()["MonthTotal"].items()} == {"2024-12": amount}


def test_money_on_its_way_stays_awaited_when_a_movement_comes_before_the_gift_itself(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    deliver(checkout_event(gift, paid=False))
    inbox.drain()
    stood = (totals(), states())
    book([gift], [movement(gift, "refund", -100)])
    assert (totals(), states()) == stood
    # A state that lost its month is found and mended, and holds up no booking until then.
    GiftState.objects.update(campaign_month="")
    book([gift], [])
    assert GiftState.objects.get().campaign_month == ""
    assert projections.drift() != []
    projections.rebuild()
    assert (totals(), states()) == stood


NEWS_AT = [NOON, NOON + timedelta(days=20)]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("order", [NEWS_AT, NEWS_AT[::-1]])
def test_money_on_its_way_is_awaited_in_the_month_that_it_was_first_heard_of(
    campaign: Campaign, order: list[datetime], together: bool
) -> None:
    gift = make_gift(campaign)
    told = [checkout_event(gift, paid=False, at=at) for at in order]
    for batch in [told] if together else [[one] for one in told]:
        deliver(*batch)
        inbox.drain()
    assert GiftState.objects.get().campaign_month == "2024-11"
    assert projections.drift() == []


def events_of(gift: Gift) -> list[Event]:
    """All that can be told of a gift, with some of it twice."""
    paid = checkout_event(gift, at=NOON)
    return [
        checkout_event(gift, paid=False, at=NOON - timedelta(hours=1)),
        checkout_event(gift, "checkout.session.expired", paid=False, at=NOON - timedelta(minutes=30)),
        checkout_event(gift, "checkout.session.async_payment_failed", paid=False, at=NOON - timedelta(minutes=10)),
        paid,
        paid,
        refund_event(gift, 20000, refund=f"re_1{gift.pk}", created=NOON + timedelta(days=1)),
        refund_event(gift, 30000, refund=f"re_2{gift.pk}", created=NOON + timedelta(days=20)),
        refund_event(
            gift,
            30000,
            refund=f"re_2{gift.pk}",
            status="failed",
            kind="refund.failed",
            created=NOON + timedelta(days=20),
            at=NOON + timedelta(days=25),
        ),
    ]


@pytest.mark.slow
@settings(max_examples=25)
@given(st.data())
def test_no_sequence_of_deliveries_makes_a_total_drift(data: st.DataObject) -> None:
    with undone():
        campaign = make_campaign()
        told = [event for amount in (50000, 60000) for event in events_of(make_gift(campaign, amount))]
        order = data.draw(st.lists(st.sampled_from(range(len(told))), min_size=1, max_size=20))
        for place, number in enumerate(order):
            deliver(told[number])
            if place % 3 == 2:
                inbox.drain()
                assert projections.drift() == []
        inbox.drain()
        assert projections.drift() == []
        stood = (totals(), states())
        projections.rebuild()
        assert totals() == stood[0]
        assert {k: v for k, v in states().items() if v["status"] != "pending"} == {
            k: v for k, v in stood[1].items() if v["status"] != "pending"
        }


# ---- rebuilding, and comparing


@pytest.fixture
def booked(campaign: Campaign) -> Campaign:
    """A month with two gifts, one of them partly refunded, money on its way, two left checkouts, and a follower."""
    gifts = [make_gift(campaign, 50000), make_gift(campaign, 30000, tier="300.00"), make_gift(campaign, 700)]
    left, failed = make_gift(campaign), make_gift(campaign)
    for gift in gifts[:2]:
        confirm(gift)
    deliver(
        refund_event(gifts[1], 10000),
        checkout_event(gifts[2], paid=False),
        checkout_event(left, "checkout.session.expired", paid=False),
        checkout_event(failed, paid=False),
        checkout_event(failed, "checkout.session.async_payment_failed"),
    )
    inbox.drain()
    follow(campaign)
    return campaign


def follow(campaign: Campaign, email: str = "reader@example.org") -> Follower:
    donor, _ = Donor.objects.get_or_create(email=email)
    follower = Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
    assert projections.confirm_follower(follower)
    return follower


def november() -> Any:
    return MonthTotal.objects.filter(month="2024-11")


def confirmed() -> Any:
    return GiftState.objects.filter(status="confirmed", tier="custom")


TAMPERING: dict[str, Callable[[], Any]] = {
    **{f"month {name}": lambda name=name: november().update(**{name: 77}) for name in MONTH_SUMS},
    **{
        f"day {name}": lambda name=name: DailyRollup.objects.filter(dimension="all").update(**{name: 77})
        for name in DAY_SUMS
    },
    "tier of a day": lambda: DailyRollup.objects.filter(value="custom").update(value="other"),
    "day of a day": lambda: DailyRollup.objects.filter(value="custom").update(day=date(2024, 11, 1)),
    "currency of a month": lambda: november().update(currency="EUR"),
    "mode of a month": lambda: november().update(livemode=True),
    "month gone": lambda: november().delete(),
    "followers' month gone": lambda: MonthTotal.objects.exclude(month="2024-11").delete(),
    "days gone": lambda: DailyRollup.objects.all().delete(),
    "one day gone": lambda: DailyRollup.objects.filter(value="custom").delete(),
    "state gone": lambda: confirmed().delete(),
    "awaiting state gone": lambda: GiftState.objects.filter(status="awaiting").delete(),
    "state status": lambda: confirmed().update(status="failed"),
    "state failed": lambda: GiftState.objects.filter(status="failed").update(status="expired"),
    "state left": lambda: GiftState.objects.filter(status="expired").update(status="pending", awaiting=77),
    "state awaited": lambda: GiftState.objects.filter(status="awaiting").update(status="expired"),
    "state month": lambda: confirmed().update(campaign_month="2024-12"),
    "state day": lambda: confirmed().update(local_date=date(2024, 11, 1)),
    "state mode": lambda: confirmed().update(livemode=True),
    "state currency": lambda: confirmed().update(currency="EUR"),
    "state tier": lambda: confirmed().update(tier="1.00"),
    "state payment": lambda: confirmed().update(payment="pi_other"),
    "state time": lambda: confirmed().update(confirmed_at=NOON + timedelta(seconds=1)),
    **{
        f"state {name}": lambda name=name: confirmed().update(**{name: 77})
        for name in ("charged", "refunded", "disputed", "counted", "awaiting")
    },
    "new month": lambda: MonthTotal.objects.create(
        campaign_id="general", month="2023-01", livemode=False, currency="USD", raised=1, changed_at=NOON
    ),
    "new day": lambda: DailyRollup.objects.create(
        campaign_id="general", month="2023-01", livemode=False, currency="USD", day=date(2023, 1, 1), gifts=1
    ),
}


def test_what_was_booked_has_no_drift(booked: Campaign) -> None:
    assert projections.drift() == []
    total = november().get()
    assert (total.raised, total.gifts, total.charged, total.refunded, total.awaiting) == (70000, 2, 80000, 10000, 700)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TAMPERING)
def test_every_tampering_is_found_said_and_mended(booked: Campaign, kind: str) -> None:
    stood = (totals(), states())
    TAMPERING[kind]()
    assert (totals(), states()) != stood
    found = projections.drift()
    assert found
    table = "giftstate" if kind.startswith(("state", "awaiting")) else "dailyrollup" if "day" in kind else "monthtotal"
    assert f"donations_{table}" in {difference.table for difference in found}
    said = StringIO()
    with pytest.raises(CommandError, match=rf"{len(found)} stored figures? differ") as failure:
        call_command("rebuild", "--check", stdout=said)
    assert failure.value.returncode == 1
    assert said.getvalue().splitlines() == [str(difference) for difference in found]
    assert (totals(), states()) != stood
    call_command("rebuild", stdout=StringIO())
    assert projections.drift() == []
    assert (totals(), states()) == stood


def test_a_comparison_that_finds_nothing_says_so_and_changes_nothing(booked: Campaign) -> None:
    stood, said = (totals(), states()), StringIO()
    call_command("rebuild", "--check", stdout=said)
    assert said.getvalue() == "every stored total is what the ledger says\n"
    assert (totals(), states()) == stood


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_what_is_booked_while_a_comparison_reads_is_no_difference(campaign: Campaign) -> None:
    threads: list[threading.Thread] = []

    def book_one() -> None:
        confirm(make_gift(campaign))
        connection.close()

    def between_two_reads(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if MonthTotal._meta.db_table in sql and not threads:  # the ledger was added up, its totals are read now
            threads.append(threading.Thread(target=book_one))
            threads[0].start()
            threads[0].join(10)
        return execute(sql, params, many, context)

    confirm(make_gift(campaign))
    with connection.execute_wrapper(between_two_reads):
        call_command("rebuild", "--check", stdout=(said := StringIO()))
    assert said.getvalue() == "every stored total is what the ledger says\n"
    assert MonthTotal.objects.get().gifts == 2


def test_a_difference_says_where_and_what(booked: Campaign) -> None:
    november().update(raised=1200, gifts=3000)
    assert [str(each) for each in projections.drift()] == [
        "donations_monthtotal campaign general, 2024-11, test mode, USD: "
        "its raised is stored as 12.00 USD, and comes to 700.00 USD; its gifts are stored as 3,000, and come to 2"
    ]


def test_a_difference_in_live_mode_is_said_to_be_there(booked: Campaign) -> None:
    sums = {"month": "2024-11", "currency": "USD", "raised": 1, "changed_at": timezone.now()}
    MonthTotal.objects.create(campaign=booked, livemode=True, **sums)
    [found] = map(str, projections.drift())
    assert found.startswith("donations_monthtotal campaign general, 2024-11, live mode, USD: ")


def test_a_difference_of_a_day_says_which_and_of_what_it_is(booked: Campaign) -> None:
    DailyRollup.objects.filter(dimension="all", gifts__gt=0).update(raised=1)
    DailyRollup.objects.filter(dimension="tier", gifts__gt=0).delete()
    found = "\n".join(map(str, projections.drift()))
    assert "general, 2024-11, test mode, USD, 2024-11-18, all tiers: its raised is stored as 0.01 USD, " in found
    assert "USD, 2024-11-18, tier custom: its raised is stored as (none), and comes to " in found


def test_a_difference_of_a_gifts_state_names_the_gift_and_what_is_and_should_be(booked: Campaign) -> None:
    gift = confirmed().get().gift_id
    confirmed().update(charged=77)
    found = projections.drift()[0]
    assert (found.table, found.key) == ("donations_giftstate", gift)
    assert found.stored == (found.rebuilt or {}) | {"charged": 77}
    assert (found.rebuilt or {})["charged"] == 50000
    assert found.words == "its charged is stored as 0.77 USD, and comes to 500.00 USD"


@pytest.mark.parametrize("state", ["quarantined", "dismissed"])
def test_what_was_told_of_a_checkout_counts_once_it_is_processed(booked: Campaign, state: str) -> None:
    events = InboxEvent.objects.filter(facts__kind="checkout", facts__status="awaiting")
    assert events.update(state=state) == 2
    assert {found.key for found in projections.drift()} >= {GiftState.objects.get(status="awaiting").gift_id}


def test_rows_of_nothing_are_no_drift(booked: Campaign) -> None:
    MonthTotal.objects.create(campaign=booked, month="2023-01", livemode=False, currency="USD", changed_at=NOON)
    DailyRollup.objects.create(
        campaign=booked, month="2023-01", livemode=False, currency="USD", day=NOON, dimension="all"
    )
    GiftState.objects.create(gift=make_gift(booked), campaign=booked, livemode=False, currency="USD", tier="custom")
    assert projections.drift() == []


def test_a_state_without_money_that_differs_is_said_and_mended(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    deliver(checkout_event(gift, "checkout.session.expired", paid=False))
    inbox.drain()
    GiftState.objects.update(status="failed")
    [difference] = projections.drift()
    assert difference.stored
    assert difference.rebuilt
    assert (difference.stored["status"], difference.rebuilt["status"]) == ("failed", "expired")
    assert str(difference) == (f"donations_giftstate {gift.pk}: its status is stored as failed, and comes to expired")
    GiftState.objects.all().delete()
    [difference] = projections.drift()
    assert (difference.key, difference.stored) == (gift.pk, None)
    projections.rebuild()
    assert projections.drift() == []
    assert GiftState.objects.get().status == "expired"


def test_differences_are_told_in_the_order_of_the_calendar(campaign: Campaign) -> None:
    for day in (18, 2, 10):
        DailyRollup.objects.create(
            campaign=campaign, month="2023-01", livemode=False, currency="USD", day=date(2023, 1, day), gifts=1
        )
    told = [difference.key.split(", ")[4] for difference in projections.drift()]
    assert told == ["2023-01-02", "2023-01-10", "2023-01-18"]


def test_of_all_that_was_heard_of_a_checkout_a_rebuild_takes_the_highest_and_the_earliest(campaign: Campaign) -> None:
    awaited, expired, untold = (make_gift(campaign) for _ in range(3))
    deliver(
        *(checkout_event(awaited, paid=False, at=at) for at in (NOON + timedelta(days=20), NOON)),
        checkout_event(expired, "checkout.session.expired", paid=False),
        checkout_event(expired, paid=False, at=NOON + timedelta(days=1)),
        checkout_event(untold, "checkout.session.expired", paid=False),
    )
    inbox.drain()
    # What was set aside tells nothing, also while it is read again.
    set_aside = {"state": "ready", "reason": "its gift is not known here", "next_try_at": NOON, "settled_at": None}
    InboxEvent.objects.filter(gift_reference=untold.pk).update(**set_aside)
    GiftState.objects.all().delete()
    projections.rebuild()
    found = {state.gift_id: (state.status, state.campaign_month) for state in GiftState.objects.all()}
    assert found == {awaited.pk: ("awaiting", "2024-11"), expired.pk: ("expired", "")}
    assert projections.drift() == []


def asked_for(work: Callable[[], object]) -> int:
    """How often something asks the database."""
    with CaptureQueriesContext(connection) as asked:
        work()
    return len(asked)


def test_many_gifts_are_compared_and_made_anew_with_as_few_statements_as_two(campaign: Campaign) -> None:
    def await_some(number: int) -> None:
        deliver(*(checkout_event(make_gift(campaign), paid=False) for _ in range(number)))
        inbox.drain()

    await_some(2)
    few = [asked_for(projections.drift), asked_for(projections.rebuild)]
    await_some(20)
    assert [asked_for(projections.drift), asked_for(projections.rebuild)] == few


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_while_totals_are_made_anew_others_read_them_and_nobody_writes(booked: Campaign) -> None:
    tables = [model._meta.db_table for model in (GiftState, MonthTotal, DailyRollup)]
    kept_out: list[str] = []

    def touch() -> None:
        try:
            for table in tables:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE NOWAIT")
                try:
                    with transaction.atomic(), connection.cursor() as cursor:
                        cursor.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE NOWAIT")
                except OperationalError:
                    kept_out.append(table)
        finally:
            connection.close()

    with transaction.atomic():
        projections.rebuild()
        other = threading.Thread(target=touch)
        other.start()
        other.join(30)
    assert kept_out == tables


def test_totals_are_made_from_nothing(booked: Campaign) -> None:
    stood = (totals(), states())
    for model in (MonthTotal, DailyRollup, GiftState):
        model.objects.all().delete()
    projections.rebuild()
    assert (totals(), states()) == stood


def test_rebuilding_an_empty_ledger_leaves_nothing() -> None:
    projections.rebuild()
    assert (totals(), states()) == ({"MonthTotal": {}, "DailyRollup": {}}, {})


def test_a_rebuild_keeps_what_was_set_aside_for_refunds(booked: Campaign) -> None:
    gift = confirmed().get().gift_id
    assert projections.reserve_refund(gift=gift, amount=20000)
    projections.rebuild()
    assert confirmed().get().refund_requested == 20000


@pytest.mark.slow
@pytest.mark.sqlite
def test_a_rebuild_copes_with_more_gifts_than_a_statement_takes_parameters(campaign: Campaign) -> None:
    common = {"campaign": campaign, "tier": "custom", "currency": "USD", "amount": 100, "livemode": False}
    gifts = Gift.objects.bulk_create(Gift(reference=f"gift_{number}", **common) for number in range(2200))
    paid, unpaid = gifts[:1100], gifts[1100:]
    book(paid, [movement(gift, "gift", 100) for gift in paid])
    deliver(*(checkout_event(gift, "checkout.session.expired", paid=False) for gift in unpaid))
    inbox.drain()
    stood = (totals(), states())
    limit = connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 1000)
    try:
        projections.rebuild()
        assert projections.drift() == []
    finally:
        connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limit)
    assert (totals(), states()) == stood


# ---- followers


def test_a_follower_is_counted_once_and_never_as_money(campaign: Campaign) -> None:
    donor = Donor.objects.create(email="waiting@example.org")
    unconfirmed = Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
    follower = follow(campaign)
    assert not projections.confirm_follower(follower)
    unconfirmed.refresh_from_db()
    assert unconfirmed.confirmed_at is None
    follower.refresh_from_db()
    assert not projections.confirm_follower(follower)
    follow(campaign, "another@example.org")
    total = MonthTotal.objects.get()
    assert (total.followers, total.raised, total.gifts) == (2, 0, 0)
    assert (total.month, follower.confirmed_month) == (follower.confirmed_month, f"{follower.confirmed_date:%Y-%m}")
    assert projections.drift() == []


def test_a_follower_who_confirms_confirms_for_nobody_else(campaign: Campaign) -> None:
    donor = Donor.objects.create(email="another@example.org")
    another = Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
    follow(campaign)
    another.refresh_from_db()
    assert (another.confirmed_at, another.confirmed_month, MonthTotal.objects.get().followers) == (None, "", 1)


def at_once(work: Callable[[], bool], times: int = 6) -> int:
    """Do something in several threads at the same moment; in how many of them it went through."""
    together, went = threading.Barrier(times), []

    def run() -> None:
        try:
            together.wait(10)
            went.append(work())
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(went) == times
    return sum(went)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_follower_who_clicks_many_times_at_once_is_counted_once(campaign: Campaign) -> None:
    donor = Donor.objects.create(email="reader@example.org")
    follower = Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
    assert at_once(lambda: projections.confirm_follower(follower)) == 1
    assert MonthTotal.objects.get().followers == 1


# ---- what our own refunds set aside


@settings(max_examples=30)
@given(st.lists(st.integers(1, 60000), max_size=8), st.integers(0, 50000))
def test_no_more_than_was_charged_is_ever_set_aside(amounts: list[int], refunded: int) -> None:
    with undone():
        gift = make_gift(make_campaign())
        entries = [movement(gift, "gift", 50000)]
        book([gift], entries + ([movement(gift, "refund", -refunded)] if refunded else []))
        reserved = 0
        for amount in amounts:
            fits = reserved + refunded + amount <= 50000
            assert projections.reserve_refund(gift=gift.pk, amount=amount) is fits
            reserved += amount * fits
        assert GiftState.objects.get().refund_requested == reserved


def test_what_staff_gave_back_by_hand_is_not_given_back_again_to_the_cent(campaign: Campaign) -> None:
    unrefunded, refunded, other = (make_gift(campaign) for _ in range(3))
    gifts = [unrefunded, refunded, other]
    book(gifts, [movement(gift, "gift", 50000) for gift in gifts])
    book(gifts[:2], [movement(gift, "adjustment", -10000) for gift in gifts[:2]])
    book([refunded], [movement(refunded, "refund", -30000)])
    for gift, most in ((unrefunded, 40000), (refunded, 10000)):
        assert not projections.reserve_refund(gift=gift.pk, amount=most + 1)
        assert projections.reserve_refund(gift=gift.pk, amount=most)
    assert not projections.reserve_refund(gift=unrefunded.pk, amount=1)
    aside = dict(GiftState.objects.values_list("gift_id", "refund_requested"))
    assert aside == {unrefunded.pk: 40000, refunded.pk: 10000, other.pk: 0}
    # A state that says that nothing was paid is believed, whatever sums stand beside it.
    GiftState.objects.filter(pk=other.pk).update(status="failed")
    assert not projections.reserve_refund(gift=other.pk, amount=1)


def test_of_two_refunds_that_were_asked_for_the_one_that_will_not_happen_is_freed_alone(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    book([gift], [movement(gift, "gift", 50000)])
    ended, going_on = (RefundRequest.objects.create(gift=gift, amount=amount) for amount in (10000, 30000))
    assert projections.reserve_refund(gift=gift.pk, amount=40000)
    assert projections.release_refund(request=ended, status="refused")
    requests = {request.pk: (request.status, request.error) for request in RefundRequest.objects.all()}
    assert requests == {ended.pk: ("refused", ""), going_on.pk: ("sending", "")}
    assert GiftState.objects.get().refund_requested == 30000


def test_what_is_left_of_a_gift_is_neither_refunded_nor_asked_for_nor_disputed(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    request = RefundRequest.objects.create(gift=gift, amount=20000, refund_id="re_ours", status="accepted")
    key = {"request": request.key}
    assert projections.reserve_refund(gift=gift.pk, amount=20000)
    deliver(refund_event(gift, 5000, refund="re_theirs"))
    inbox.drain()
    assert refunds.left_of(gift.pk) == 25000
    deliver(refund_event(gift, 20000, refund="re_ours", metadata=key))
    inbox.drain()
    assert (GiftState.objects.get().refunded, refunds.left_of(gift.pk)) == (25000, 25000)
    assert not projections.reserve_refund(gift=gift.pk, amount=25001)
    book([gift], [movement(gift, "dispute_withdrawn", -10000)])
    assert refunds.left_of(gift.pk) == 15000
    assert not projections.reserve_refund(gift=gift.pk, amount=15001)
    book([gift], [movement(gift, "dispute_reinstated", 10000)])
    deliver(refund_event(gift, 20000, refund="re_ours", status="failed", kind="refund.failed", metadata=key))
    inbox.drain()
    request.refresh_from_db()
    assert (request.status, refunds.left_of(gift.pk)) == ("failed", 45000)
    assert projections.reserve_refund(gift=gift.pk, amount=45000)
    assert refunds.left_of(gift.pk) == 0


def hear(gift: Gift, *sightings: dict[str, Any]) -> None:
    """Have refunds of a gift told and processed."""
    for each in sightings:
        deliver(refund_event(gift, each.pop("amount"), **each))
        inbox.drain()


@pytest.mark.parametrize("status", ["pending", "requires_action"])
@pytest.mark.parametrize(("end", "left"), [("succeeded", 20000), ("failed", 50000), ("canceled", 50000)])
def test_a_refund_of_the_dashboard_that_is_on_its_way_is_not_left_to_be_given_back(
    campaign: Campaign, status: str, end: str, left: int
) -> None:
    gift, another = make_gift(campaign), make_gift(campaign)
    confirm(gift)
    confirm(another)
    told: dict[str, Any] = {"amount": 30000, "refund": "re_theirs"}
    hear(gift, {**told, "status": status}, {**told, "status": status, "kind": "refund.updated"})
    assert (refunds.left_of(gift.pk), refunds.left_of(another.pk)) == (20000, 50000)
    assert not projections.reserve_refund(gift=gift.pk, amount=20001)
    assert [(each.refund, each.amount, each.is_ours) for each in refunds.on_their_way(gift.pk)] == [
        ("re_theirs", 30000, False)
    ]
    # While its events are read again, they are ready once more.
    InboxEvent.objects.filter(subject="re_theirs").update(state="ready", next_try_at=timezone.now())
    assert refunds.left_of(gift.pk) == 20000
    hear(gift, {**told, "status": end, "kind": "refund.updated"})
    assert (refunds.left_of(gift.pk), refunds.on_their_way(gift.pk)) == (left, [])
    assert projections.reserve_refund(gift=gift.pk, amount=left)


def test_a_refund_of_ours_that_is_on_its_way_counts_once_and_one_that_was_given_up_counts_still(
    campaign: Campaign,
) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    asked = RefundRequest.objects.create(gift=gift, amount=20000)
    assert projections.reserve_refund(gift=gift.pk, amount=20000)
    hear(gift, {"amount": 20000, "refund": "re_ours", "status": "pending", "metadata": {"request": asked.key}})
    asked.refresh_from_db()
    assert (asked.status, refunds.left_of(gift.pk)) == ("accepted", 30000)
    assert [each.is_ours for each in refunds.on_their_way(gift.pk)] == [True]
    assert projections.release_refund(request=asked, status="given_up")
    assert refunds.left_of(gift.pk) == 30000


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_what_is_left_is_read_after_a_booking_that_was_waited_for(campaign: Campaign) -> None:
    """A refund of ours comes back, and a larger one of the dashboard is booked with it: less is left, not more."""
    gift = make_gift(campaign)
    confirm(gift)
    asked = RefundRequest.objects.create(gift=gift, amount=10000, refund_id="re_ours", status="accepted")
    ours: dict[str, Any] = {"refund": "re_ours", "metadata": {"request": asked.key}}
    assert projections.reserve_refund(gift=gift.pk, amount=10000)
    hear(gift, {"amount": 30000}, {"amount": 10000, **ours})
    assert refunds.left_of(gift.pk) == 10000
    theirs = refund_event(gift, 15000, refund="re_theirs")
    deliver(theirs, refund_event(gift, 10000, status="failed", kind="refund.failed", **ours))
    reserved: list[bool] = []

    def reserve() -> None:
        reserved.append(projections.reserve_refund(gift=gift.pk, amount=10000))
        connection.close()

    waits = threading.Thread(target=reserve)
    with transaction.atomic():
        inbox.process_batch()
        waits.start()
        waits.join(0.5)
        assert waits.is_alive(), "it waits for the booking"
    waits.join(10)
    assert (reserved, refunds.left_of(gift.pk)) == ([False], 5000)


@pytest.mark.parametrize("status", ["awaiting", "expired", "failed"])
def test_nothing_is_set_aside_of_a_gift_that_was_not_paid(campaign: Campaign, status: str) -> None:
    gift = make_gift(campaign)
    assert not projections.reserve_refund(gift=gift.pk, amount=1)
    book([gift], [], [heard(gift, status)])
    assert not projections.reserve_refund(gift=gift.pk, amount=1)


def test_what_was_set_aside_is_kept_when_more_is_booked_and_freed_once(campaign: Campaign) -> None:
    gift, another = make_gift(campaign), make_gift(campaign)
    book([gift, another], [movement(gift, "gift", 50000), movement(another, "gift", 50000)])
    request = RefundRequest.objects.create(gift=gift, amount=30000)
    others = RefundRequest.objects.create(gift=another, amount=30000)
    assert projections.reserve_refund(gift=gift.pk, amount=30000)
    assert GiftState.objects.get(gift=another).refund_requested == 0
    book([gift], [movement(gift, "refund", -100)])
    assert GiftState.objects.get(gift=gift).refund_requested == 30000
    assert projections.release_refund(request=request, status="failed", error="x" * 1000)
    assert not projections.release_refund(request=request, status="refused")
    assert GiftState.objects.get(gift=gift).refund_requested == 0
    request.refresh_from_db()
    others.refresh_from_db()
    assert (request.status, len(request.error), others.status) == ("failed", 300, "sending")
    assert projections.reserve_refund(gift=another.pk, amount=30000)
    assert projections.release_refund(request=others, status="refused")
    others.refresh_from_db()
    assert (others.status, others.error) == ("refused", "")


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_many_refunds_asked_for_at_once_only_those_that_fit_are_set_aside(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    assert at_once(lambda: projections.reserve_refund(gift=gift.pk, amount=20000)) == 2
    assert GiftState.objects.get().refund_requested == 40000


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_whoever_frees_a_refund_waits_for_whoever_books_about_its_gift(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    assert projections.reserve_refund(gift=gift.pk, amount=20000)
    request = RefundRequest.objects.create(gift=gift, amount=20000)

    def book() -> bool:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = 200")
            try:
                return projections.release_refund(request=request, status="given_up")
            except OperationalError:
                return False

    with transaction.atomic():
        assert projections.hold_gift(gift.pk)
        assert at_once(book, times=1) == 0
    assert at_once(book, times=1) == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_workers_that_apply_many_gifts_at_once_lose_nothing_and_never_deadlock(
    campaign: Campaign, rng: random.Random
) -> None:
    zones = [campaign, make_campaign("second"), make_campaign("third")]
    gifts = [make_gift(rng.choice(zones), 100 + number) for number in range(60)]
    rng.shuffle(gifts)
    parts = [gifts[start::6] for start in range(6)]

    def work() -> bool:
        part = parts.pop()
        for start in range(0, len(part), 2):
            some = part[start : start + 2]
            book(some, [movement(gift, "gift", gift.amount) for gift in some])
        return True

    assert at_once(work) == 6
    assert raised() == sum(gift.amount for gift in gifts)
    assert projections.drift() == []

"""Money that no processor moved: entered by staff, approved by a second person, booked once, put right by entries."""

import csv
import hashlib
import itertools
import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core import mail
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from donations import exports, inbox, invariants, offline, outbox, periods, processors, projections, refunding
from donations.models import (
    Campaign,
    Donor,
    Follower,
    Gift,
    GiftState,
    InboxEvent,
    LedgerEntry,
    MonthTotal,
    OfflineRequest,
    OutboxMessage,
)
from donations.models.campaigns import SLUG
from donations.offline import EnteredAlready, OfflineRefused
from donations.processors.base import BadDelivery, Malformed
from donations.processors.offline import TEST_MODE
from donations.selectors import dashboard, finance, refunds
from tests.factories import (
    body_of,
    checkout_event,
    confirm,
    deliver,
    event,
    make_campaign,
    make_gift,
    make_recurring_gift,
    make_staff,
    refund_event,
)

pytestmark = pytest.mark.django_db
DAY = date(2024, 11, 18)
MIDNIGHT = datetime(2024, 11, 18, 5, tzinfo=UTC)  # in New York
numbers = itertools.count(1)


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def ann() -> User:
    return make_staff()


@pytest.fixture
def ben() -> User:
    return make_staff()


def enter(campaign: Campaign, user: User, amount: int = 50000, **fields: Any) -> OfflineRequest:
    """A gift by bank transfer; below the limit unless told otherwise."""
    fields = {"day": DAY, "method": "bank_transfer", "reason": "on the statement", **fields}
    fields.setdefault("reference", f"BANK {next(numbers)}")
    return offline.record_gift(campaign=campaign, amount=amount, user=user, **fields)


def adjust(of: Gift | Campaign, user: User, amount: int, **fields: Any) -> OfflineRequest:
    gift = of if isinstance(of, Gift) else None
    campaign = of.campaign if isinstance(of, Gift) else of
    fields = {"day": DAY, "reason": "it bounced", **fields}
    fields.setdefault("reference", f"RETURN {next(numbers)}")
    return offline.record_adjustment(campaign=campaign, gift=gift, amount=amount, user=user, **fields)


def gift_of(request: OfflineRequest) -> Gift:
    assert request.gift
    return request.gift


def state_of(request: OfflineRequest) -> GiftState:
    return GiftState.objects.get(pk=request.gift_id)


def raised(month: str = "2024-11") -> int:
    return sum(MonthTotal.objects.filter(month=month).values_list("raised", flat=True))


def nothing_is_booked() -> bool:
    return not (LedgerEntry.objects.exists() or InboxEvent.objects.exists() or MonthTotal.objects.exists())


# ---- entering


def test_a_gift_below_the_limit_is_booked_at_once_on_its_day(campaign: Campaign, ann: User) -> None:
    request = enter(campaign, ann, reference="BANK 7", name="Olga", message="For you")
    entry = LedgerEntry.objects.get()
    assert (entry.kind, entry.processor, entry.reference) == ("offline_gift", "offline", "test_mode:general:BANK 7")
    assert (entry.amount, entry.goal_amount, entry.currency, entry.livemode) == (50000, 50000, "USD", False)
    assert (entry.effective_at, entry.local_date, entry.campaign_month) == (MIDNIGHT, DAY, "2024-11")
    assert (request.status, request.decided_by, raised()) == ("booked", None, 50000)
    gift = gift_of(request)
    assert (gift.processor, gift.frequency, gift.tier, gift.public_name) == ("offline", "once", "500.00", "Olga")
    assert projections.drift() == []


def test_it_comes_through_the_inbox_with_no_personal_data(campaign: Campaign, ann: User) -> None:
    enter(campaign, ann, reference="BANK 7", name="Olga Secret", email="olga@example.org")
    event = InboxEvent.objects.get()
    assert (event.processor, event.origin, event.type) == ("offline", "staff", "offline_gift")
    assert (event.event_id, event.state) == ("staff:offline_gift:test_mode:general:BANK 7", "processed")
    assert event.gift_reference == Gift.objects.get().pk
    assert LedgerEntry.objects.get().inbox_event == event
    assert event.body is not None
    assert b"lga" not in bytes(event.body)
    inbox.replay(event)
    assert LedgerEntry.objects.count() == 1


def test_an_amount_of_no_tier_is_custom(campaign: Campaign, ann: User) -> None:
    assert gift_of(enter(campaign, ann, 12345)).tier == "custom"


def test_a_donor_with_an_address_gets_the_usual_receipt_with_the_day(campaign: Campaign, ann: User) -> None:
    Campaign.objects.update(time_zone="Asia/Tokyo")
    campaign.refresh_from_db()
    enter(campaign, ann, email="Olga@Example.org", name="Olga")
    assert Donor.objects.get().email == "olga@example.org"
    outbox.send_due()
    assert mail.outbox[0].to == ["olga@example.org"]
    assert "your gift of 500 $" in mail.outbox[0].body
    assert "on 18 November 2024." in mail.outbox[0].body


def test_a_donor_without_an_address_gets_none(campaign: Campaign, ann: User) -> None:
    enter(campaign, ann, name="Olga")
    assert not OutboxMessage.objects.exists()
    assert not Donor.objects.exists()


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"amount": 0}, "amount", "above zero"),
        ({"amount": -1}, "amount", "above zero"),
        ({"amount": offline.LARGEST + 1}, "amount", "largest amount"),
        ({"reference": "  "}, "reference", "Give a reference"),
        ({"reference": "A\x00B"}, "reference", "plain letters"),
        ({"reference": "A\x7fB"}, "reference", "plain letters"),
        ({"reference": "A" * 101}, "reference", "100 plain letters"),
        ({"reference": "BANK\u200b7"}, "reference", r"nobody sees \(U\+200B\): delete"),
        ({"reference": "\u202e7 KNAB"}, "reference", r"nobody sees \(U\+202E\)"),
        ({"reference": "BANK\ufe0f7"}, "reference", r"nobody sees \(U\+FE0F\)"),
        ({"reason": "by\u2066 post"}, "reason", r"The reason has .* nobody sees \(U\+2066\)"),
        ({"reason": ""}, "reason", "Give a reason"),
        ({"method": "barter"}, "method", "how the money came"),
        ({"day": date(1999, 12, 31)}, "day", "from 2000-01-01"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    campaign: Campaign, ann: User, fields: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(OfflineRefused, match=said) as refusal:
        enter(campaign, ann, **fields)
    assert refusal.value.field == field
    assert nothing_is_booked()
    assert not OfflineRequest.objects.exists()
    assert not Gift.objects.exists()


ODD = [("ISK", 1050, "Type 10 ISK or 11 ISK"), ("BHD", 1001, "Type 1 BHD or 1.010 BHD")]


@pytest.mark.parametrize(("currency", "amount", "said"), ODD)
def test_an_amount_that_the_currency_does_not_have_is_refused(ann: User, currency: str, amount: int, said: str) -> None:
    campaign = make_campaign(currency=currency)
    with pytest.raises(OfflineRefused, match=f"must be a multiple of .* {said}") as refusal:
        enter(campaign, ann, amount)
    assert refusal.value.field == "amount"
    gift = gift_of(enter(campaign, ann, 2000))
    with pytest.raises(OfflineRefused, match=said):
        adjust(gift, ann, -amount)
    adjust(gift, ann, -1500 if currency == "BHD" else -1900)
    with pytest.raises(OfflineRefused, match="must be a multiple of"):
        adjust(gift, ann, 1)
    adjust(campaign, ann, amount)


def test_all_that_is_held_of_a_gift_is_taken_and_given_again_whatever_it_is(ann: User) -> None:
    gift = make_gift(make_campaign(currency="BHD"), 1500)
    confirm(gift)
    deliver(refund_event(gift, 493))
    inbox.drain()
    with pytest.raises(OfflineRefused, match="must be a multiple of"):
        adjust(gift, ann, -1006)
    adjust(gift, ann, -1007)
    with pytest.raises(OfflineRefused, match="must be a multiple of"):
        adjust(gift, ann, 1006)
    adjust(gift, ann, 1007)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Niue"])
def test_today_is_the_campaigns_and_tomorrow_is_refused(campaign: Campaign, ann: User, zone: str) -> None:
    campaign.time_zone = zone
    campaign.save()
    today = periods.local_date(timezone.now(), zone)
    with pytest.raises(OfflineRefused, match="to today"):
        enter(campaign, ann, day=today + timedelta(days=1))
    enter(campaign, ann, day=today)
    assert LedgerEntry.objects.get().local_date == today


SAME = [("BANK 7", "BANK 7"), ("BANK 7", "  bank   7 "), ("É 7", "é 7"), ("é 7", "E\u0301 7"), ("e\u0301 7", "É 7")]


@pytest.mark.parametrize(("reference", "again"), SAME)
def test_the_same_reference_twice_is_refused_in_words(
    campaign: Campaign, ann: User, ben: User, reference: str, again: str
) -> None:
    first = enter(campaign, ann, reference=reference)
    with pytest.raises(EnteredAlready, match="7” was entered") as refusal:
        enter(campaign, ben, 99, reference=again)
    assert refusal.value.first == first
    assert (LedgerEntry.objects.count(), Gift.objects.count(), OfflineRequest.objects.count()) == (1, 1, 1)


def test_another_campaign_or_kind_may_have_the_same_reference(campaign: Campaign, ann: User) -> None:
    enter(campaign, ann, reference="7")
    enter(make_campaign("second"), ann, reference="7")
    adjust(campaign, ann, -5, reference="7")
    assert LedgerEntry.objects.count() == 3


def test_the_database_refuses_a_second_of_the_same_reference(campaign: Campaign, ann: User) -> None:
    first = enter(campaign, ann, reference="BANK 7")
    first.pk, first.reference = None, "bank 7"
    with pytest.raises(IntegrityError), transaction.atomic():
        first.save(force_insert=True)


def test_references_that_stood_beside_one_another_before_still_do(campaign: Campaign, ann: User) -> None:
    """As SQLite let É and é."""
    asked = [enter(campaign, ann, reference=f"É {number}") for number in range(3)]
    write_keys = import_module("donations.migrations.0015_references_by_mode").write_keys
    connection.check_constraints()  # PostgreSQL drops no index of a table whose checks are still to come
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX one_request_a_reference")
    OfflineRequest.objects.filter(pk=asked[1].pk).update(reference="é 0")
    OfflineRequest.objects.update(reference_key="")
    write_keys(apps, SimpleNamespace(connection=connection))
    keys = dict(OfflineRequest.objects.values_list("pk", "reference_key"))
    assert [keys[each.pk] for each in asked] == ["é 0", f"é 0\n{asked[1].pk}", "é 2"]


# ---- test and live


def test_what_was_entered_as_a_test_stands_in_nothings_way_once_the_site_is_live(
    campaign: Campaign, ann: User, ben: User, go_live: Callable[[], None]
) -> None:
    def enter_all() -> None:
        given = enter(campaign, ann, reference="BANK 7")
        adjust(gift_of(given), ann, -200, reference="RETURN 7")
        adjust(campaign, ann, 300, reference="ROUNDING")
        offline.approve(enter(campaign, ann, 10_000_01, reference="BANK 8"), user=ben)

    enter_all()
    go_live()
    enter_all()
    rows = LedgerEntry.objects.order_by("pk").values_list("livemode", "kind", "reference", "amount")
    named = [("offline_gift", "BANK 7", 50000), ("adjustment", "RETURN 7", -200), ("adjustment", "ROUNDING", 300)]
    named.append(("offline_gift", "BANK 8", 10_000_01))
    assert list(rows) == [
        *((False, kind, f"test_mode:general:{name}", amount) for kind, name, amount in named),
        *((True, kind, f"general:{name}", amount) for kind, name, amount in named),
    ]
    assert {event.event_id for event in InboxEvent.objects.filter(livemode=True)} == {
        f"staff:{kind}:general:{name}" for kind, name, _ in named
    }
    with pytest.raises(EnteredAlready):
        enter(campaign, ann, reference="BANK 7")
    assert (projections.drift(), list(invariants.check())) == ([], [])
    projections.rebuild()
    sums = MonthTotal.objects.order_by("livemode").values_list("livemode", "raised")
    assert list(sums) == [(False, 10_498_01), (True, 10_498_01)]


def test_no_live_movement_is_named_like_a_test(campaign: Campaign, ann: User, go_live: Callable[[], None]) -> None:
    go_live()
    enter(campaign, ann, reference="test_mode:general:7")
    assert LedgerEntry.objects.get().reference == "general:test_mode:general:7"
    assert not re.match(SLUG, TEST_MODE[:-1])


def test_what_an_earlier_version_booked_as_a_test_is_said_to_have_the_reference(
    campaign: Campaign, ann: User, go_live: Callable[[], None]
) -> None:
    fact = FACT | {"kind": "adjustment", "gift": "", "reference": "general:R 7"}
    body = json.dumps(BODY | {"fact": fact}).encode()
    told = {"event_id": "staff:adjustment:general:R 7", "type": "adjustment", "body": body}
    assert inbox.put(processor="offline", origin="staff", **told)
    inbox.drain()
    go_live()
    with pytest.raises(OfflineRefused, match="as a test: add something to it"):
        adjust(campaign, ann, 5, reference="R 7")
    adjust(campaign, ann, 5, reference="R 7 2024")
    assert list(LedgerEntry.objects.values_list("livemode", flat=True).order_by("pk")) == [False, True]


# ---- a second person


@pytest.fixture
def waiting(campaign: Campaign, ann: User) -> OfflineRequest:
    """A gift of one cent above the limit."""
    return enter(campaign, ann, 10_000_01, name="Olga", email="olga@example.org")


def test_a_gift_above_the_limit_waits_and_moves_nothing(waiting: OfflineRequest) -> None:
    assert waiting.status == "waiting"
    assert nothing_is_booked()
    assert not OutboxMessage.objects.exists()


@pytest.mark.parametrize(
    ("limit", "amount", "currency", "waits"),
    [
        (10000, 10_000_00, "USD", False),
        (10000, -10_000_01, "USD", True),
        (0, 1, "USD", True),
        (10000, 10_000, "JPY", False),
        (10000, 10_001, "JPY", True),
        (10, 10_000, "KWD", False),
        (10, 10_001, "KWD", True),
    ],
)
def test_the_limit_is_in_whole_units(settings: Any, limit: int, amount: int, currency: str, waits: bool) -> None:
    settings.APPROVAL_LIMIT = limit
    assert offline.needs_second_person(amount, currency) is waits


def test_another_person_approves_and_it_is_booked(waiting: OfflineRequest, ben: User) -> None:
    offline.approve(waiting, user=ben, reason="seen on the statement")
    assert (waiting.status, waiting.decided_by, waiting.decision_reason) == ("booked", ben, "seen on the statement")
    assert raised() == 10_000_01
    assert LedgerEntry.objects.get().effective_at == MIDNIGHT
    assert OutboxMessage.objects.get().kind == "receipt"


def test_nobody_approves_what_they_entered(waiting: OfflineRequest, ann: User) -> None:
    with pytest.raises(OfflineRefused, match="another person"):
        offline.approve(waiting, user=ann)
    assert nothing_is_booked()
    now = timezone.now()
    with pytest.raises(IntegrityError), transaction.atomic():
        OfflineRequest.objects.update(status="booked", decided_by=ann, decided_at=now)


def test_it_is_decided_once(waiting: OfflineRequest, ben: User) -> None:
    offline.approve(waiting, user=ben)
    with pytest.raises(OfflineRefused, match="somebody has decided"):
        offline.approve(waiting, user=make_staff())
    with pytest.raises(OfflineRefused, match="somebody has decided"):
        offline.reject(waiting, user=ben, reason="no")
    assert (LedgerEntry.objects.count(), Gift.objects.count()) == (1, 1)


def test_what_is_rejected_goes_with_the_donors_words_and_frees_its_reference(
    waiting: OfflineRequest, ann: User, ben: User
) -> None:
    with pytest.raises(OfflineRefused, match="Give a reason"):
        offline.reject(waiting, user=ben, reason=" ")
    offline.reject(waiting, user=ben, reason="typed wrongly")
    assert (waiting.status, waiting.gift, waiting.decided_by) == ("rejected", None, ben)
    assert not Gift.objects.exists()
    assert not Donor.objects.exists()
    assert nothing_is_booked()
    assert enter(waiting.campaign, ann, reference=waiting.reference).status == "booked"


@pytest.mark.parametrize("else_", ["gift", "monthly gift", "follower"])
def test_a_donor_who_gave_or_follows_otherwise_outlives_a_rejection(
    waiting: OfflineRequest, ben: User, else_: str
) -> None:
    donor = Donor.objects.get()
    if else_ == "gift":
        make_gift(waiting.campaign, donor=donor)
    elif else_ == "monthly gift":
        make_recurring_gift(waiting.campaign, donor=donor)
    else:
        Follower.objects.create(donor=donor, campaign=waiting.campaign, livemode=False)
    offline.reject(waiting, user=ben, reason="typed wrongly")
    assert Donor.objects.get() == donor


@pytest.mark.postgres
@pytest.mark.parametrize("who", ["the reader", "staff"])
@pytest.mark.django_db(transaction=True)
def test_a_donor_who_gives_at_this_very_moment_is_not_forgotten(
    waiting: OfflineRequest, ann: User, ben: User, who: str
) -> None:
    donor, kept, rejected = Donor.objects.get(), threading.Event(), threading.Event()
    raised: list[Exception] = []

    def give() -> None:
        try:
            with transaction.atomic():
                if who == "staff":
                    enter(waiting.campaign, ann, email=donor.email)
                else:
                    make_gift(waiting.campaign, donor=Donor.keep(donor.email))
                kept.set()
                rejected.wait(0.5)
        except IntegrityError as error:
            raised.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=give)
    thread.start()
    assert kept.wait(10)
    offline.reject(waiting, user=ben, reason="typed wrongly")
    rejected.set()
    thread.join()
    assert raised == []
    assert Gift.objects.get().donor == donor


def test_who_entered_it_may_take_it_back(waiting: OfflineRequest, ann: User) -> None:
    offline.reject(waiting, user=ann, reason="entered twice")
    assert waiting.status == "rejected"


def test_what_was_entered_in_the_other_mode_is_not_booked(
    waiting: OfflineRequest, ben: User, go_live: Callable[[], None]
) -> None:
    go_live()
    with pytest.raises(OfflineRefused, match="other mode"):
        offline.approve(waiting, user=ben)
    assert waiting.status == "waiting"
    assert nothing_is_booked()


# ---- putting right


def test_a_reversal_is_a_new_entry_and_the_gift_counts_no_more(campaign: Campaign, ann: User) -> None:
    given = enter(campaign, ann)
    before = LedgerEntry.objects.values().get()
    adjust(gift_of(given), ann, -50000, day=date(2024, 12, 3), reference="RETURN 7")
    entry = LedgerEntry.objects.get(kind="adjustment")
    assert (entry.amount, entry.goal_amount, entry.reference) == (-50000, 0, "test_mode:general:RETURN 7")
    assert (entry.local_date, entry.campaign_month) == (date(2024, 12, 3), "2024-11")
    assert LedgerEntry.objects.values().get(pk=before["id"]) == before
    state = state_of(given)
    assert (state.status, state.charged, state.adjusted, state.counted) == ("confirmed", 50000, -50000, 0)
    assert (raised(), raised("2024-12")) == (0, 0)
    assert projections.drift() == []


def test_no_more_is_reversed_than_is_held(campaign: Campaign, ann: User) -> None:
    gift = gift_of(enter(campaign, ann))
    adjust(gift, ann, -20000)
    assert refunds.left_of(gift.pk) == 30000
    with pytest.raises(OfflineRefused, match="No more than 300 \\$ is still held"):
        adjust(gift, ann, -30001)
    adjust(gift, ann, -30000)
    assert (OfflineRequest.objects.count(), raised()) == (3, 0)


def test_a_reversal_is_reversed_too_and_no_gift_grows(campaign: Campaign, ann: User) -> None:
    gift = gift_of(enter(campaign, ann))
    adjust(gift, ann, -20000)
    with pytest.raises(OfflineRefused, match="took 200 \\$"):
        adjust(gift, ann, 20001)
    adjust(gift, ann, 20000)
    assert raised() == 50000


def test_of_a_processors_gift_no_more_is_taken_than_is_neither_refunded_nor_asked_for(
    campaign: Campaign, ann: User
) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    deliver(refund_event(gift, 10000))
    inbox.drain()
    assert projections.reserve_refund(gift=gift.pk, amount=30000)
    with pytest.raises(OfflineRefused, match="No more than 100 \\$"):
        adjust(gift, ann, -10001)
    adjust(gift, ann, -10000)
    assert raised() == 30000
    assert projections.drift() == []


def test_what_was_given_back_by_hand_is_not_refunded_again(campaign: Campaign, ann: User) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    adjust(gift, ann, -20000)
    assert not projections.reserve_refund(gift=gift.pk, amount=30001)
    assert projections.reserve_refund(gift=gift.pk, amount=30000)


def test_an_offline_gift_has_no_refund_by_a_processor(campaign: Campaign, ann: User) -> None:
    with pytest.raises(refunding.RefundRefused, match="enter an adjustment"):
        refunding.request_refund(gift=gift_of(enter(campaign, ann)), amount=5, reason="", user=ann)
    assert GiftState.objects.get().refund_requested == 0


@pytest.mark.parametrize("amount", [-700, 700])
def test_a_campaigns_adjustment_stands_in_the_ledger_and_moves_no_bar(
    campaign: Campaign, ann: User, amount: int
) -> None:
    enter(campaign, ann)
    adjust(campaign, ann, amount, day=date(2024, 12, 1))
    entry = LedgerEntry.objects.get(kind="adjustment")
    assert (entry.gift, entry.amount, entry.campaign_month, entry.goal_amount) == (None, amount, "2024-12", 0)
    assert (raised(), raised("2024-12")) == (50000, 0)
    assert projections.drift() == []


def test_an_adjustment_that_cannot_be_is_refused_in_words(campaign: Campaign, ann: User) -> None:
    gift = gift_of(enter(campaign, ann))
    other, unpaid = make_campaign("second"), make_gift(campaign)
    entered = {"day": DAY, "reference": "R", "reason": "why", "user": ann}
    for said, fields in {
        "above zero": {"campaign": campaign, "gift": gift, "amount": 0},
        "another campaign": {"campaign": other, "gift": gift, "amount": -1},
        "not in the books": {"campaign": campaign, "gift": unpaid, "amount": -1},
        "came on 2024-11-18": {"campaign": campaign, "gift": gift, "amount": -1, "day": date(2024, 11, 17)},
    }.items():
        with pytest.raises(OfflineRefused, match=said):
            offline.record_adjustment(**{**entered, **fields})
    assert LedgerEntry.objects.count() == 1


def test_two_reversals_that_wait_are_not_both_approved(campaign: Campaign, ann: User, ben: User, settings: Any) -> None:
    gift = gift_of(enter(campaign, ann))
    settings.APPROVAL_LIMIT = 0
    first, second = adjust(gift, ann, -50000), adjust(gift, ann, -50000)
    assert (first.status, second.status) == ("waiting", "waiting")
    offline.approve(second, user=ben)
    with pytest.raises(OfflineRefused, match="No more than 0 \\$"):
        offline.approve(first, user=ben)
    assert (first.status, raised()) == ("waiting", 0)


def test_a_rejected_adjustment_leaves_its_gift(campaign: Campaign, ann: User, ben: User, settings: Any) -> None:
    gift = gift_of(enter(campaign, ann))
    settings.APPROVAL_LIMIT = 0
    asked = adjust(gift, ann, -50000)
    offline.reject(asked, user=ben, reason="no")
    assert (asked.gift, raised()) == (gift, 50000)


# ---- two at once


def at_once(work: Callable[[int], Any], times: int) -> list[Any]:
    """Do something in several threads at the same moment; what each returned, or the refusal that it met."""
    together, met = threading.Barrier(times), []

    def run(number: int) -> None:
        try:
            together.wait(10)
            met.append(work(number))
        except OfflineRefused as refusal:
            met.append(refusal)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(met) == times
    return met


def refused(met: list[Any]) -> int:
    return sum(isinstance(what, OfflineRefused) for what in met)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_many_who_approve_at_once_one_does(campaign: Campaign, ann: User) -> None:
    asked, staff = enter(campaign, ann, 10_000_01), [make_staff() for _ in range(6)]
    met = at_once(lambda n: offline.approve(OfflineRequest.objects.get(pk=asked.pk), user=staff[n]), 6)
    assert (refused(met), LedgerEntry.objects.count(), raised()) == (5, 1, 10_000_01)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_many_who_enter_the_same_reference_at_once_one_does(campaign: Campaign, ann: User) -> None:
    met = at_once(lambda n: enter(campaign, ann, reference="BANK 7"), 6)
    assert sum(isinstance(what, EnteredAlready) for what in met) == 5
    assert (LedgerEntry.objects.count(), Gift.objects.count(), raised()) == (1, 1, 50000)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_many_reversals_at_once_only_those_that_fit_are_booked(campaign: Campaign, ann: User) -> None:
    gift = gift_of(enter(campaign, ann))
    met = at_once(lambda n: adjust(gift, ann, -20000, reference=f"R{n}"), 6)
    assert (refused(met), raised()) == (4, 10000)
    assert projections.drift() == []


# ---- any sequence


steps = st.one_of(
    st.tuples(st.just("give"), st.integers(1, 90000), st.integers(0, 80)),
    st.tuples(st.just("adjust"), st.integers(-90000, 90000), st.integers(0, 80)),
    st.tuples(st.just("reverse"), st.integers(-90000, 90000), st.integers(0, 20)),
)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(steps, max_size=14))
def test_any_sequence_ends_in_the_sums_that_the_ledger_says(sequence: list[tuple[str, int, int]]) -> None:
    with transaction.atomic():
        campaign, user = make_campaign(), make_staff()
        gifts: list[tuple[Gift, str]] = []
        held: list[tuple[int, int]] = []  # of each gift: its amount, and what adjustments made of it
        for what, amount, number in sequence:
            day = date(2024, 10, 1) + timedelta(days=number)
            if what == "give":
                gifts.append((gift_of(enter(campaign, user, amount, day=day)), f"{day:%Y-%m}"))
                held.append((amount, 0))
            elif what == "adjust" and amount:
                adjust(campaign, user, amount, day=day)
            elif what == "reverse" and amount and gifts:
                of = number % len(gifts)
                was, adjusted = held[of]
                if -was <= adjusted + amount <= 0:
                    adjust(gifts[of][0], user, amount, day=date(2025, 1, 1))
                    held[of] = (was, adjusted + amount)
                else:
                    with pytest.raises(OfflineRefused):
                        adjust(gifts[of][0], user, amount, day=date(2025, 1, 1))
        for month in ("2024-10", "2024-11", "2024-12"):
            wanted = [sum(parts) for parts, (_, own) in zip(held, gifts, strict=True) if own == month]
            assert raised(month) == sum(wanted)
            assert sum(MonthTotal.objects.filter(month=month).values_list("gifts", flat=True)) == sum(map(bool, wanted))
        assert projections.drift() == []
        stood = list(GiftState.objects.order_by("pk").values())
        projections.rebuild()
        assert list(GiftState.objects.order_by("pk").values()) == stood
        assert projections.drift() == []
        transaction.set_rollback(True)


def test_events_read_again_in_any_order_end_in_the_same_books(campaign: Campaign, ann: User, rng: Any) -> None:
    gift = gift_of(enter(campaign, ann))
    adjust(gift, ann, -50000)
    adjust(gift, ann, 20000)
    enter(campaign, ann, 700)
    adjust(campaign, ann, -5)
    stood = list(LedgerEntry.objects.order_by("reference").values("kind", "reference", "amount", "campaign_month"))
    told = [(row.processor, row.event_id, row.type, bytes(row.body or b"")) for row in InboxEvent.objects.all()]
    for _ in range(4):
        with transaction.atomic():
            empty_the_books()
            rng.shuffle(told)
            for processor, event_id, kind, body in told:
                inbox.put(processor=processor, origin="staff", event_id=event_id, type=kind, body=body)
                inbox.drain()
            InboxEvent.objects.filter(state="waiting").update(next_try_at=timezone.now())
            inbox.drain()
            again = LedgerEntry.objects.order_by("reference").values("kind", "reference", "amount", "campaign_month")
            assert list(again) == stood
            assert raised() == 20700
            assert projections.drift() == []
            transaction.set_rollback(True)


def test_a_gift_and_its_reversal_in_one_batch_are_booked_at_once(campaign: Campaign, ann: User) -> None:
    gift = gift_of(enter(campaign, ann))
    adjust(gift, ann, -20000)
    told = [(row.event_id, row.type, bytes(row.body or b"")) for row in InboxEvent.objects.order_by("-pk")]
    with transaction.atomic():
        empty_the_books()
        for event_id, kind, body in told:
            # The reversal is told first, and as if it were the older one.
            older = body.replace(b'"created": "20', b'"created": "19') if kind == "adjustment" else body
            inbox.put(processor="offline", origin="staff", event_id=event_id, type=kind, body=older)
        assert inbox.process_batch() == 2
        assert [row.state for row in InboxEvent.objects.all()] == ["processed", "processed"]
        assert raised() == 30000
        transaction.set_rollback(True)


def empty_the_books() -> None:
    """As if nothing had been told: the guard of the ledger is put aside for it, inside a transaction."""
    table = " ON donations_ledgerentry" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER ledger_no_delete{table}")
    for model in (LedgerEntry, InboxEvent, GiftState):
        model.objects.all().delete()
    projections.rebuild()


# ---- what is shown of it


def rows_of(file: finance.File) -> list[dict[str, str]]:
    text = b"".join(exports.stream(file, finance.Selection())).decode()
    return list(csv.DictReader(text.splitlines()))


def test_finances_files_have_it(campaign: Campaign, ann: User) -> None:
    gift = gift_of(enter(campaign, ann, reference="BANK 7", name="Olga"))
    adjust(gift, ann, -20000, day=date(2024, 12, 3), reference="RETURN 7")
    adjust(campaign, ann, 300, day=date(2024, 12, 4), reference="ROUNDING")
    ledger = [
        [row[n] for n in ("kind", "reference", "gift", "amount", "goal_amount")] for row in rows_of(finance.LEDGER)
    ]
    assert ledger == [
        ["offline_gift", "test_mode:general:BANK 7", gift.pk, "500.00", "500.00"],
        ["adjustment", "test_mode:general:RETURN 7", gift.pk, "-200.00", "0.00"],
        ["adjustment", "test_mode:general:ROUNDING", "", "3.00", "0.00"],
    ]
    (row,) = rows_of(finance.ALL_GIFTS)
    assert (row["gift"], row["tier"], row["frequency"], row["source"]) == (gift.pk, "500.00", "once", "offline")
    assert (row["charged"], row["refunded"], row["counted"]) == ("500.00", "0.00", "300.00")


def test_the_dashboard_counts_it_and_says_what_was_reversed(campaign: Campaign, ann: User) -> None:
    kept, returned, lowered = enter(campaign, ann), enter(campaign, ann), enter(campaign, ann, 12345)
    adjust(gift_of(returned), ann, -50000)
    adjust(gift_of(lowered), ann, -345)
    glance = dashboard.glance(
        campaign=campaign, month=periods.Month(2024, 11), livemode=False, now=datetime(2024, 11, 20, tzinfo=UTC)
    )
    assert (glance.sums.raised, glance.sums.gifts, glance.days[-1]) == (62000, 2, 62000)
    assert {line.reference: line.status for line in glance.latest_gifts} == {
        kept.gift_id: "confirmed",
        returned.gift_id: "reversed",
        lowered.gift_id: "adjusted",
    }
    assert glance.health.last_received is None


# ---- what no delivery brought


def put(event_id: str, body: bytes = b"{}") -> bool:
    return inbox.put(processor="stripe", origin="sweep", event_id=event_id, type="charge.succeeded", body=body)


def test_an_event_is_put_in_once_as_a_delivery_would_be() -> None:
    body = body_of(event("charge.succeeded", {"id": "ch_1", "object": "charge"}))
    assert put("sweep:1", body)
    assert not put("sweep:1", b"other")
    row = InboxEvent.objects.get()
    assert (row.origin, row.state, bytes(row.body or b"")) == ("sweep", "ready", body)
    assert bytes(row.body_sha256) == hashlib.sha256(body).digest()
    assert inbox.drain() == 1
    row.refresh_from_db()
    assert row.state == "nothing"


@pytest.mark.django_db(transaction=True)
def test_an_event_is_put_in_outside_a_transaction_and_goes_with_one_that_is_undone() -> None:
    assert put("sweep:1")
    with transaction.atomic():
        assert put("sweep:2")
        transaction.set_rollback(True)
    assert [row.event_id for row in InboxEvent.objects.all()] == ["sweep:1"]


def test_of_many_that_are_put_in_the_new_ones_are_told() -> None:
    assert put("sweep:0007")
    events = [
        inbox.NewEvent(
            processor="stripe", origin="sweep", event_id=f"sweep:{n % 1500:04}", type="odd", body=b"[%d]" % n
        )
        for n in range(3000)
    ]
    new = inbox.put_many(events)
    assert sorted(told.event_id for told in new) == [f"sweep:{n:04}" for n in range(1500) if n != 7]
    assert InboxEvent.objects.count() == 1500
    assert inbox.put_many(events) == inbox.put_many([]) == []


def test_a_batch_is_of_one_processor(campaign: Campaign) -> None:
    """Each locks its gifts in one order: two batches of both kinds could wait for each other."""
    gift = make_gift(campaign)
    deliver(checkout_event(gift))
    fact = FACT | {"kind": "adjustment", "gift": gift.pk, "amount": -5}
    body = json.dumps(BODY | {"fact": fact}).encode()
    inbox.put(processor="offline", origin="staff", event_id="staff:1", type="adjustment", body=body)
    assert [inbox.process_batch(), inbox.process_batch(), inbox.process_batch()] == [1, 1, 0]
    assert raised() == 49995


# ---- the processor that only staff speak for


def test_nobody_delivers_offline_gifts() -> None:
    with pytest.raises(BadDelivery):
        inbox.receive(processor="offline", body=b"{}", signature="t=1,v1=00")
    with pytest.raises(BadDelivery):
        processors.get("offline").envelope(b"{}")
    assert not InboxEvent.objects.exists()


FACT = {
    "kind": "offline",
    "gift": "gift_1",
    "campaign": "general",
    "reference": "test_mode:general:7",
    "amount": 5,
    "currency": "USD",
    "occurred_at": "2024-11-18T05:00:00+00:00",
}
BODY = {"livemode": False, "created": "2024-11-18T12:00:00+00:00", "fact": FACT}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps(BODY | {"livemode": 0}).encode(),
        json.dumps(BODY | {"created": 5}).encode(),
        json.dumps(BODY | {"fact": None}).encode(),
        json.dumps(BODY | {"fact": FACT | {"amount": 1.5}}).encode(),
        json.dumps(BODY | {"fact": FACT | {"amount": True}}).encode(),
        json.dumps(BODY | {"fact": FACT | {"kind": "checkout"}}).encode(),
        json.dumps(BODY | {"fact": FACT | {"occurred_at": None}}).encode(),
    ],
)
def test_a_body_that_we_did_not_write_is_malformed(body: bytes) -> None:
    assert processors.get("offline").interpret(json.dumps(BODY).encode()).fact
    with pytest.raises(Malformed):
        processors.get("offline").interpret(body)


@pytest.mark.parametrize(
    ("fields", "state", "said"),
    [
        ({"gift": "gift_unknown"}, "waiting", "not known"),
        ({"currency": "EUR"}, "quarantined", "its gift is in USD"),
        ({"reference": "test_mode:general:other"}, "quarantined", "paid twice"),
        ({"kind": "adjustment", "gift": "gift_unknown"}, "waiting", "not booked here"),
        ({"kind": "adjustment", "currency": "EUR"}, "quarantined", "its gift is in USD"),
        ({"kind": "adjustment", "gift": "", "campaign": "unknown"}, "quarantined", "campaign is not known"),
    ],
)
def test_what_fits_no_gift_of_ours_is_kept_apart(
    campaign: Campaign, ann: User, fields: dict[str, Any], state: str, said: str
) -> None:
    gift = gift_of(enter(campaign, ann, reference="7"))
    body = json.dumps(BODY | {"fact": FACT | {"gift": gift.pk} | fields}).encode()
    assert inbox.put(processor="offline", origin="staff", event_id="staff:odd", type="odd", body=body)
    inbox.drain()
    event = InboxEvent.objects.get(event_id="staff:odd")
    assert (event.state, said in event.reason) == (state, True), event.reason
    assert LedgerEntry.objects.count() == 1


def test_a_second_reference_for_an_offline_gift_cannot_be_accepted_and_says_once_that_it_is_paid_twice(
    campaign: Campaign, ann: User
) -> None:
    gift = gift_of(enter(campaign, ann, reference="7"))
    body = json.dumps(BODY | {"fact": FACT | {"gift": gift.pk, "reference": "test_mode:general:other"}}).encode()
    inbox.put(processor="offline", origin="staff", event_id="staff:odd", type="odd", body=body)
    inbox.drain()
    odd = InboxEvent.objects.get(event_id="staff:odd")
    with pytest.raises(inbox.CannotDecide):
        inbox.accept(odd, user=ann)
    assert odd.reason == "paid twice: its gift is in the books already, under another reference"

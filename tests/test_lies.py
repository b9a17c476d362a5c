"""Each lie in the books is found by the invariant that is about it."""

import random
from collections.abc import Callable, Generator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from pytest_django import DjangoDbBlocker

from donations.invariants import entries, events, gifts
from donations.models import (
    BalanceTransaction,
    DailyRollup,
    Gift,
    GiftState,
    InboxEvent,
    LedgerEntry,
    Lookup,
    MonthStatement,
    MonthTotal,
    OfflineRequest,
    Payout,
    RecurringGift,
    RefundRequest,
)
from tests.faults.books import make_books
from tests.faults.tampering import findings, switch_guards_off, taken_back

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.usefixtures("books")]


@pytest.fixture(scope="module")
def books(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Generator[None]:
    """Books with everything in them and their guards off, made once: every test takes back what it tells."""
    with django_db_blocker.unblock():
        make_books(random.Random(7), gifts=25)
        switch_guards_off()
    yield
    with django_db_blocker.unblock():
        call_command("flush", interactive=False, verbosity=0)  # puts the guards back, too


Lie = Callable[[], Any]


def a_copy_that_was_asked_for_is_gone() -> None:
    for row in BalanceTransaction.objects.all():
        Lookup.objects.get_or_create(processor="stripe", kind="balance_transaction", object_id=row.reference)
    Lookup.objects.update(next_try_at=None)
    gone(BalanceTransaction)()


def first(model: Any, **values: Any) -> Any:
    row = model.objects.filter(**values).order_by("pk").first()
    assert row is not None, (model, values)
    return row


def changed(model: Any, where: dict[str, Any], **values: Any) -> Lie:
    """One row of a table changed, past everything that would forbid it."""
    return lambda: model.objects.filter(pk=first(model, **where).pk).update(**values)


def another_sighting() -> None:
    row = first(InboxEvent, state="processed", facts__kind="refund", facts__status="failed")
    InboxEvent.objects.filter(pk=row.pk).update(body=None, facts={**row.facts, "amount": 1})


def booked_a_week_later() -> None:
    entry = first(LedgerEntry)
    LedgerEntry.objects.filter(pk=entry.pk).update(booked_at=entry.booked_at + timedelta(days=7))


def approved_by_who_entered_it() -> None:
    """Past the constraint that forbids it, which is put aside for this."""
    is_sqlite = connection.vendor == "sqlite"
    aside = "ALTER TABLE donations_offlinerequest DROP CONSTRAINT approved_by_another_person"
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA ignore_check_constraints = ON" if is_sqlite else aside)
        try:
            OfflineRequest.objects.filter(decided_by__isnull=False).update(decided_by=F("requested_by"))
        finally:
            if is_sqlite:
                cursor.execute("PRAGMA ignore_check_constraints = OFF")


def gone(model: Any, **where: Any) -> Lie:
    return lambda: model.objects.filter(pk=first(model, **where).pk)._raw_delete(using="default")


def facts_changed(kind: str, **values: Any) -> Lie:
    def lie() -> None:
        row = first(InboxEvent, state="processed", facts__kind=kind, body__isnull=False)
        InboxEvent.objects.filter(pk=row.pk).update(facts={**row.facts, **values})

    return lie


def facts_of_one_changed(kind: str, **values: Any) -> Lie:
    """The same once its body was erased."""

    def lie() -> None:
        row = first(InboxEvent, state="processed", facts__kind=kind)
        InboxEvent.objects.filter(pk=row.pk).update(body=None, facts={**row.facts, **values})

    return lie


MUCH_LATER = datetime(2099, 11, 18, tzinfo=UTC)
PAID = {"state": "processed", "facts__kind": "paid"}
GIFT = {"kind": "gift"}
LIES: dict[str, Lie] = {
    "staff_told_of_just_this": changed(InboxEvent, {"origin": "staff"}, type="other"),
    "body_is_as_received": changed(InboxEvent, PAID | {"body__isnull": False}, body=b"{}"),
    "facts_are_what_the_body_says": changed(InboxEvent, PAID | {"body__isnull": False}, payment="pi_other"),
    "facts_agree_with_their_row": facts_of_one_changed("paid", payment="pi_other"),
    "words_are_known": facts_of_one_changed("refund", status="pendin"),
    "sightings_agree": another_sighting,
    "state_has_its_reason": changed(InboxEvent, {"state": "quarantined"}, state="dismissed"),
    "state_fits_the_facts": changed(InboxEvent, PAID, state="nothing"),
    "decided_events_stay": gone(InboxEvent, state="dismissed"),
    "processor_is_known": changed(InboxEvent, PAID, processor="other"),
    "gift_is_the_right_one": changed(InboxEvent, PAID, gift_reference="gift_other"),
    "movements_are_booked": gone(LedgerEntry, kind="refund"),
    "dispute_returns_what_it_took": changed(LedgerEntry, {"kind": "dispute_reinstated"}, amount=10**9),
    "entry_is_told_of": changed(LedgerEntry, GIFT, inbox_event=None),
    "entry_was_booked_in_time": booked_a_week_later,
    "entry_is_like_its_gift": changed(LedgerEntry, GIFT, tier="other"),
    "goal_amount_leaves_out_the_cover": changed(LedgerEntry, GIFT, goal_amount=1),
    "gift_was_paid_as_asked": changed(Gift, {"state__status": "confirmed"}, amount=1),
    "dates_are_of_the_zone": changed(LedgerEntry, GIFT, campaign_month="1999-01"),
    "entered_is_what_is_booked": gone(OfflineRequest),
    "two_people_decided": approved_by_who_entered_it,
    "state_is_what_its_entries_say": changed(GiftState, {"status": "confirmed"}, counted=1),
    "monthly_gift_is_like_its_arrangement": changed(RecurringGift, {}, livemode=True),
    "arrangement_is_what_was_told": changed(RecurringGift, {}, status="unpaid"),
    "settlements_are_kept": gone(Payout),
    "transactions_are_as_told": changed(BalanceTransaction, {}, exchange_rate="2"),
    "what_moved_is_what_is_booked": changed(LedgerEntry, {"kind": "fee"}, amount=-1),
    "payouts_are_as_told": changed(Payout, {}, reconciled=True),
    "closed_months_stay": changed(MonthStatement, {}, sha256="0"),
    "gift_is_as_it_was_asked": changed(Gift, {"state__isnull": True}, amount=1),
    "refunds_requested_are_within_the_charge": changed(RefundRequest, {}, amount=1),
    "totals_are_what_the_ledger_says": changed(MonthTotal, {"raised__gt": 0}, refunded=1),
    "one_figure_everywhere": changed(DailyRollup, {"dimension": "all", "raised__gt": 0}, raised=1),
    "nothing_belongs_to_what_is_gone": changed(LedgerEntry, GIFT, gift="gift_gone"),
}


def test_the_books_are_whole_before_anybody_lies() -> None:
    assert list(findings()) == []


@pytest.mark.parametrize("name", LIES)
def test_each_lie_is_found_by_the_invariant_that_is_about_it(name: str) -> None:
    with taken_back():
        LIES[name]()
        found = list(findings())
    assert name in {finding.invariant for finding in found}, found
    assert all(finding.words and finding.remedy.endswith(".") for finding in found)


OF_EACH_KIND: dict[str, Lie] = {
    "the entry of an offline gift": gone(LedgerEntry, kind="offline_gift"),
    "the entry of an adjustment": gone(LedgerEntry, kind="adjustment"),
    "an adjustment of no gift, to another campaign": changed(
        LedgerEntry, {"kind": "adjustment", "gift": None, "campaign": "general"}, campaign="water"
    ),
    "an adjustment of another amount": changed(LedgerEntry, {"kind": "adjustment"}, amount=-1),
    "the entry of a fee": gone(LedgerEntry, kind="fee"),
    "a fee of another amount": changed(LedgerEntry, {"kind": "fee"}, amount=-1),
    "a fee without its event": changed(LedgerEntry, {"kind": "fee"}, inbox_event=None),
    "a fee settled otherwise": changed(LedgerEntry, {"kind": "fee"}, settlement_amount=-1),
    "the entry of a dispute": gone(LedgerEntry, kind="dispute_withdrawn"),
    "a dispute's amount": changed(LedgerEntry, {"kind": "dispute_withdrawn"}, amount=-1),
    "a dispute's event": changed(LedgerEntry, {"kind": "dispute_withdrawn"}, inbox_event=None),
    "the entry of an invoice": gone(LedgerEntry, reference__startswith="pi_monthly"),
    "what of a payment is for the fee": facts_of_one_changed("paid", fee_cover=1),
    "an invoice's gift": changed(LedgerEntry, {"reference__startswith": "pi_monthly"}, campaign_month="1999-01"),
    "what an invoice's trouble is": facts_of_one_changed("invoice", trouble="x"),
    "how an invoice stands": facts_of_one_changed("invoice", status="x"),
    "how a monthly gift's checkout ended": facts_of_one_changed("monthly_checkout", status="ended"),
    "whose an invoice is": facts_changed("invoice", recurring_gift="recurring_9"),
    "whose a paid invoice is": facts_changed("invoice_paid", payment="pi_other"),
    "what an arrangement became": facts_changed("recurring", status="unpaid"),
    "what it asks by now": changed(RecurringGift, {}, now_amount=1),
    "what it asks for the fee": changed(RecurringGift, {}, now_fee_cover=1),
    "in which currency it asks": changed(RecurringGift, {}, now_currency="CHF"),
    "how often it asks": changed(RecurringGift, {}, now_interval="year"),
    "that it was ever told what it asks": changed(
        RecurringGift, {}, now_amount=None, now_fee_cover=0, now_currency="", now_interval=""
    ),
    "what an arrangement was told to ask": facts_changed("recurring", amounts=[1]),
    "what an invoice's lines ask": facts_changed("invoice", amounts=[1, 2]),
    "that an invoice is a draft": facts_changed("invoice", draft=True),
    "what a charge told": facts_changed("charge", payment="pi_other"),
    "by which transaction a charge was settled": facts_of_one_changed("charge", transaction="txn_other"),
    "that a payout went by itself": facts_of_one_changed("payout", automatic=False),
    "a transaction that is gone": gone(BalanceTransaction),
    "a transaction that is gone and was asked for once": a_copy_that_was_asked_for_is_gone,
    "a transaction's gift": changed(BalanceTransaction, {"gift__isnull": False}, gift=None),
    "a transaction's payout": changed(BalanceTransaction, {"gift__isnull": False}, payout="po_other"),
    "a payout's amount": changed(Payout, {}, amount=1),
    "the mode of one of a payout's events": changed(
        InboxEvent, {"facts__kind": "payout", "facts__status": "failed"}, body=None, livemode=True
    ),
    "a payment of what has none": changed(
        InboxEvent, {"state": "processed", "facts__kind": "payout"}, body=None, payment="pi_other"
    ),
    "a payout that is gone": gone(Payout),
    "a month that was closed": gone(MonthStatement),
    "how much staff entered": changed(OfflineRequest, {}, amount=1),
    "in which currency": changed(OfflineRequest, {}, currency="CHF"),
    "for which day": changed(OfflineRequest, {}, day=date(2024, 11, 17)),
    "of which campaign": changed(OfflineRequest, {"campaign": "general"}, campaign="water", reference="9"),
    "of which gift": changed(OfflineRequest, {"kind": "adjustment", "gift__isnull": False}, gift=None),
    "under which reference": changed(OfflineRequest, {}, reference="other"),
    "in which mode": changed(OfflineRequest, {}, livemode=True),
    "that it is booked": changed(OfflineRequest, {"decided_by": None}, status="waiting"),
    "that it was not rejected": changed(OfflineRequest, {"decided_by__isnull": False}, status="rejected"),
    "that a second person approved it": changed(
        OfflineRequest, {"decided_by__isnull": False}, decided_by=None, decided_at=None
    ),
    "when it was approved": changed(OfflineRequest, {"decided_by__isnull": False}, decided_at=MUCH_LATER),
    "when it was entered and booked": changed(OfflineRequest, {"decided_by": None}, requested_at=MUCH_LATER),
    "when it was entered to be approved": changed(
        OfflineRequest, {"decided_by__isnull": False}, requested_at=MUCH_LATER
    ),
    "what an adjustment did to its gift": changed(GiftState, {"adjusted__lt": 0}, adjusted=0),
}


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_a_lie_about_each_kind_of_money_is_found(name: str) -> None:
    with taken_back():
        OF_EACH_KIND[name]()
        assert list(findings()) != []


def test_every_invariant_of_rows_has_its_lie() -> None:
    named = {one.__name__ for room in (events, entries, gifts) for one in room.INVARIANTS}
    # The database refuses a wrong sign; the next test lets one in.
    assert named - LIES.keys() == {"signs_are_of_the_kind"}

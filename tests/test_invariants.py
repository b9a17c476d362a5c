"""The invariants of the books: whole books have no finding, and each lie in them has one."""

import random
import threading
from collections import Counter
from datetime import date, timedelta
from typing import Any

import pytest
from django.db import connection

from donations import inbox, invariants, offline, projections, recurring
from donations.invariants import entries
from donations.invariants.movements import MUST_MAKE
from donations.invariants.offline import check_offline
from donations.models import Gift, GiftState, InboxEvent, LedgerEntry, OfflineRequest, RecurringGift, guards
from donations.processors.facts import FACTS
from tests.factories import checkout_event, confirm, deliver, event, make_campaign, make_gift, make_staff, refund_event
from tests.faults.books import make_books
from tests.faults.scenes import SCENES, make_cast
from tests.faults.tampering import switch_guards_off

pytestmark = pytest.mark.django_db


# ---- whole books


@pytest.mark.slow
def test_books_that_are_whole_have_no_finding(rng: random.Random) -> None:
    make_books(rng)
    tally: Counter[str] = Counter()
    assert list(invariants.check(tally)) == []
    assert tally["inbox events"] == InboxEvent.objects.count()
    assert tally["entries"] == LedgerEntry.objects.count() > 10
    assert tally["gifts"] == Gift.objects.count()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_books_are_whole_before_and_after_whatever_is_told(name: str) -> None:
    scene = SCENES[name](make_cast())
    for told in (*scene.before, scene.event):
        deliver(told)
        assert list(invariants.check()) == []
        inbox.drain()
        assert list(invariants.check()) == []


def test_books_without_anything_have_no_finding() -> None:
    assert list(invariants.check()) == []


def test_books_stay_whole_while_events_wait_and_are_read_again() -> None:
    campaign = make_campaign()
    confirm(make_gift(campaign))
    deliver(checkout_event(make_gift(campaign)))
    assert list(invariants.check()) == []
    inbox.replay(InboxEvent.objects.order_by("pk")[0])
    assert list(invariants.check()) == []


def test_what_is_not_ours_stays_so_while_what_tells_of_it_is_read_again() -> None:
    payment = event("checkout.session.completed", {"id": "cs_x", "mode": "payment", "payment_intent": "pi_x"})
    for told in (payment, refund_event(make_gift(make_campaign()), 100, payment="pi_x")):
        deliver(told)
        inbox.drain()
    assert [*InboxEvent.objects.values_list("state", flat=True)] == ["foreign", "foreign"]
    assert inbox.read_again(states=["foreign"], types=["checkout.session.completed"]) == 1
    assert list(invariants.check()) == []


@pytest.mark.slow
def test_books_stay_whole_while_all_of_a_state_is_read_again(rng: random.Random) -> None:
    make_books(rng)
    rebuilt = [[*model.objects.order_by("pk").values()] for model in (GiftState, RecurringGift)]
    settled = {*InboxEvent.objects.filter(next_try_at=None).values_list("state", flat=True)} - {"dismissed"}
    assert settled == {"processed", "foreign", "quarantined", "nothing", "wrong_mode"}
    for state in sorted(settled):
        for types in (["checkout.session.completed"], None):  # first some, beside others that are as they were
            inbox.read_again(states=[state], types=types)
            assert (state, list(invariants.check())) == (state, [])
            assert (state, projections.drift(), recurring.drift()) == (state, [], [])
            projections.rebuild()
            recurring.rebuild()
            assert [[*model.objects.order_by("pk").values()] for model in (GiftState, RecurringGift)] == rebuilt
        inbox.drain()
        assert list(invariants.check()) == []


def test_every_kind_of_fact_says_what_it_must_have_made() -> None:
    assert set(MUST_MAKE) == set(FACTS.values())


def test_what_two_people_decided_is_whole_whatever_the_limit_is_by_now_and_is_read_in_two_queries(
    settings: Any, django_assert_num_queries: Any
) -> None:
    told = {"campaign": make_campaign(), "day": date(2024, 11, 18), "reason": "counted", "user": make_staff()}
    for number, amount in enumerate([5_000, 7_000_000, 9_000_000]):
        asked = offline.record_gift(amount=amount, method="cash", reference=f"BOX {number}", **told)
        offline.record_adjustment(amount=5, reference=f"BOX {number}", **told)
        if asked.status == "waiting":
            OfflineRequest.objects.filter(pk=asked.pk).update(requested_at=asked.requested_at - timedelta(days=9))
            offline.approve(asked, user=make_staff())
    settings.APPROVAL_LIMIT = 0
    with django_assert_num_queries(2):
        assert list(check_offline(tally := Counter())) == []
    assert tally["offline gifts and adjustments"] == 6


def test_what_waits_or_was_rejected_is_not_looked_for_in_the_ledger() -> None:
    told = {"campaign": make_campaign(), "day": date(2024, 11, 18), "reason": "counted", "user": make_staff()}
    for reference in ("BOX 1", "BOX 2"):
        asked = offline.record_gift(amount=7_000_000, method="cash", reference=reference, **told)
    offline.reject(asked, user=make_staff(), reason="nobody knows of it")
    assert list(invariants.check()) == []


def test_what_staff_entered_for_a_day_that_their_zone_left_out_is_whole() -> None:
    campaign = make_campaign(time_zone="Pacific/Apia")
    told = {"amount": 500, "reference": "BOX", "reason": "counted"}
    offline.record_adjustment(campaign=campaign, day=date(2011, 12, 30), user=make_staff(), **told)
    assert LedgerEntry.objects.get().local_date == date(2011, 12, 31)
    assert list(invariants.check()) == []


def test_an_entry_of_staff_that_was_lost_and_is_booked_anew_is_whole() -> None:
    told = {"amount": 500, "reference": "BOX", "reason": "counted", "day": date(2024, 11, 18)}
    asked = offline.record_adjustment(campaign=make_campaign(), user=make_staff(), **told)
    switch_guards_off()
    LedgerEntry.objects.all()._raw_delete(using="default")
    OfflineRequest.objects.update(requested_at=asked.requested_at - timedelta(days=9))
    InboxEvent.objects.update(received_at=asked.requested_at - timedelta(days=9))
    inbox.replay(InboxEvent.objects.get())
    guards.install()
    assert list(invariants.check()) == []


# ---- lies that are told here alone: tests.test_lies tells all others


def test_what_waits_and_says_that_it_is_booked_is_found() -> None:
    told = {"campaign": make_campaign(), "day": date(2024, 11, 18), "reason": "counted", "user": make_staff()}
    offline.record_gift(amount=7_000_000, method="cash", reference="BOX", **told)
    OfflineRequest.objects.update(status="booked")
    found = [(finding.invariant, finding.words) for finding in invariants.check()]
    words = "staff entered it, it says that it is booked, and the ledger has no such entry"
    assert found == [("entered_is_what_is_booked", words)]


@pytest.mark.parametrize("fields", [{"kind": "refund"}, {"amount": 0}, {"kind": "gift", "settlement_amount": 5}])
def test_a_sign_that_the_database_would_refuse_is_found_where_it_was_let_in(fields: dict[str, Any]) -> None:
    confirm(make_gift(make_campaign()))
    entry = LedgerEntry.objects.get()
    for name, value in fields.items():
        setattr(entry, name, value)
    alone = entries.Entry(entry, None, "", None, None)
    assert list(entries.signs_are_of_the_kind(alone)) != []


def test_a_guard_that_is_gone_is_found() -> None:
    switch_guards_off()
    found = [finding.key for finding in invariants.check()]
    assert found == [f"trigger {name}" for name in guards.missing()] != []


def test_a_row_so_odd_that_a_check_fails_is_found_and_the_others_go_on() -> None:
    campaign = make_campaign()
    deliver(checkout_event(make_gift(campaign), paid=False))
    inbox.drain()
    InboxEvent.objects.update(facts={"kind": "checkout", "gift": 1})
    found = {finding.key for finding in invariants.check()}
    assert "the check itself" in found
    assert len(found) > 1


# ---- a running site


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_what_is_booked_meanwhile_raises_no_false_alarm() -> None:
    campaign = make_campaign()
    confirm(make_gift(campaign))
    running = invariants.check(tally := Counter())

    def book() -> None:
        guards.install()
        confirm(make_gift(campaign))
        connection.close()

    switch_guards_off()
    next(running)  # a guard is missing: the snapshot was taken
    thread = threading.Thread(target=book)
    thread.start()
    thread.join(10)
    assert {finding.invariant for finding in running} == {"ledger_is_append_only"}
    assert tally["entries"] == 1
    assert LedgerEntry.objects.count() == 2


# ---- in words


@pytest.mark.parametrize(
    "table, change, words",
    [
        (
            "ledgerentry",
            "amount = 2499, goal_amount = 2499",
            "it tells of 2500.00 USD, and gift {payment} is of 24.99 USD",
        ),
        (
            "ledgerentry",
            "amount = 2499, goal_amount = 2499",
            "24.99 USD were booked, and its gift asks for 2500.00 USD",
        ),
        ("ledgerentry", "goal_amount = 5", "0.05 USD count toward the goal, and 2500.00 USD should"),
        ("ledgerentry", "livemode = TRUE", "it is of the test mode, and gift {payment} of the live one"),
        ("giftstate", "charged = 1", "its charged is stored as 0.01 USD, and comes to 2500.00 USD"),
        ("inboxevent", "state = 'nothing', next_try_at = NULL", "its state is “needs nothing”, and its facts come to"),
        ("monthtotal", "raised = 1", "the totals: 0.01 USD of 1 gifts, "),
        ("monthtotal", "raised = 1", "its raised is stored as 0.01 USD, and comes to 2500.00 USD"),
    ],
)
def test_what_is_wrong_is_told_in_the_currencys_own_units(table: str, change: str, words: str) -> None:
    confirm(make_gift(make_campaign(), 250000))
    words = words.format(payment=LedgerEntry.objects.get().reference)
    switch_guards_off()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE donations_{table} SET {change}")
    found = [finding.words for finding in invariants.check()]
    assert [each for each in found if each.startswith(words)] != [], found

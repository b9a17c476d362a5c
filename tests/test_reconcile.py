"""What was missed comes back to the cent, once, in whatever trouble; and both books are compared, one by one."""

import io
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Count, Sum
from django.utils import timezone

from donations import inbox, invariants, processors, projections, reconcile, settlements
from donations.invariants.corrections import corrected_by
from donations.invariants.events import check_events
from donations.invariants.gifts import check_gifts
from donations.invariants.settlements import check_transactions
from donations.models import (
    BalanceTransaction,
    Campaign,
    Gift,
    InboxEvent,
    LedgerEntry,
    Lookup,
    Payout,
    Reconciliation,
    RecurringGift,
    TypesRead,
)
from donations.offline import record_adjustment
from donations.processors.base import KeyRefused, ProcessorUnavailable
from donations.processors.facts import Adjusted, TransactionSeen
from donations.processors.offline import event_body
from donations.reconcile import comparison, lookups, runs, sweep
from donations.reconcile.comparison import corrected
from donations.reconcile.verdicts import CORRECTED, MISSING_HERE, Verdict
from donations.selectors import health
from tests.factories import (
    NOON,
    checkout_event,
    confirm,
    deliver,
    event,
    make_campaign,
    make_gift,
    make_payout,
    make_recurring_gift,
    make_staff,
)
from tests.plans import explained, through_all
from tests.sandbox import Sandboxed, sandbox, session_form, subscription_form

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(180)]
LONG_AGO = timedelta(days=45)


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


def seeded(box: Sandboxed, campaign: Campaign, payments: int, **plan: Any) -> list[Any]:
    """Payments of gifts of ours that nobody was told of."""
    made = box.seed(payments, gift="gift_seeded", **plan)
    for one in made:
        make_gift(campaign, one.amount, reference=one.gift)
    box.later(0)  # the payouts of those days
    return made


def paid(box: Sandboxed, campaign: Campaign, amount: int = 2500, **how: str) -> Gift:
    """A gift that was paid at the processor."""
    gift = make_gift(campaign, amount)
    form = {"client_reference_id": gift.pk, "metadata[gift]": gift.pk, "payment_intent_data[metadata][gift]": gift.pk}
    session = box.checkout(form=session_form(amount, campaign.currency.lower()) | form, replace=True)
    how_paid = box.control(f"sessions/{session['id']}/pay", **how)
    gift.checkout_id = how_paid["payment_intent"]  # not saved: where the test finds its payment
    return gift


def subscribed(box: Sandboxed, campaign: Campaign, amount: int = 1000) -> tuple[RecurringGift, str]:
    """A monthly gift whose first payment was made, and its subscription."""
    arrangement = make_recurring_gift(campaign, amount)
    form = {"metadata[recurring_gift]": arrangement.pk, "subscription_data[metadata][recurring_gift]": arrangement.pk}
    session = box.checkout(form=subscription_form(amount) | form, replace=True)
    return arrangement, box.control(f"sessions/{session['id']}/pay")["subscription"]


def run(**options: Any) -> Reconciliation:
    return reconcile.run(since=timezone.now() - LONG_AGO, **options)


def sums() -> dict[str, tuple[int, int]]:
    rows = LedgerEntry.objects.values_list("kind").annotate(Count("id"), Sum("amount")).order_by("kind")
    return {kind: (count, total) for kind, count, total in rows}


def wanted(made: list[Any]) -> dict[str, tuple[int, int]]:
    back = [one.amount for one in made if one.refund]
    found = {
        "fee": (len(made), -sum(one.fee for one in made)),
        "gift": (len(made), sum(one.amount for one in made)),
        "refund": (len(back), -sum(back)),
    }
    return {kind: both for kind, both in found.items() if both[0]}


def causes(row: Reconciliation) -> Counter[str]:
    return Counter(each["cause"] for each in row.differences)


def come_back_to_life() -> None:
    """As if the lease of whoever was killed had run out."""
    Reconciliation.objects.filter(finished_at=None).update(held_until=timezone.now())


# ---- what was missed


@pytest.mark.slow
def test_everything_that_was_missed_comes_back_to_the_cent(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 60, refund_every=5, first_days_ago=33)
    row = run()
    assert sums() == wanted(made)
    assert (row.equal, row.differences, row.unexplained) == (True, [], 0)
    assert projections.drift() == []
    assert InboxEvent.objects.exclude(state__in=["processed", "nothing"]).count() == 0


def test_what_is_older_than_the_list_of_events_is_found_by_what_was_paid(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 10, first_days_ago=40, last_days_ago=35)
    run()
    assert sums() == wanted(made)
    gift = LedgerEntry.objects.filter(kind="gift").order_by("effective_at")[0]
    assert gift.effective_at == datetime.fromtimestamp(made[0].created, UTC)
    assert set(InboxEvent.objects.filter(type="checkout.session.completed").values_list("origin", flat=True)) == {
        "sweep"
    }


@pytest.mark.slow
def test_a_second_run_finds_nothing_and_books_nothing(box: Sandboxed, campaign: Campaign) -> None:
    seeded(box, campaign, 12, refund_every=4, first_days_ago=33)
    run()
    before, rows = sums(), InboxEvent.objects.count()
    again = run()
    assert (again.unseen, again.equal) == (0, True)
    assert (sums(), InboxEvent.objects.count()) == (before, rows)


def test_what_was_delivered_is_not_stored_a_second_time(box: Sandboxed, campaign: Campaign) -> None:
    gift = paid(box, campaign)
    for told in box.all_events():
        inbox.put(processor="stripe", origin="delivery", event_id=told["id"], type=told["type"], body=_body(told))
    inbox.drain()
    row = run()
    assert {step: count["new"] for step, count in row.counts.items()} == {
        "events": 0,
        "checkouts": 0,
        "invoice_payments": 0,
        "refunds": 0,
        "disputes": 0,
        "payouts": 0,
        "transactions": 1,
    }
    assert sums()["gift"] == (1, gift.amount)


def test_events_that_nobody_delivers_within_an_hour_are_a_proof_of_silence(box: Sandboxed, campaign: Campaign) -> None:
    paid(box, campaign)
    run()
    assert not health.health().is_lost()  # it may be on its way
    seeded(box, campaign, 3, first_days_ago=2, last_days_ago=1)
    for _ in range(2):  # what is fetched is still listed as undelivered
        run()
        assert health.health().is_silent()
    _deliver({"id": "evt_now", "type": "invoice.created"})
    assert not health.health().is_silent()


def test_what_was_delivered_here_and_not_to_another_is_not_lost(box: Sandboxed, campaign: Campaign) -> None:
    seeded(box, campaign, 3, first_days_ago=2, last_days_ago=1)
    for told in box.all_events():
        _deliver(told)
    assert run().counts["events"]["listed"] > 0
    assert not health.health().is_lost()


def _deliver(told: dict[str, Any]) -> None:
    inbox.put(processor="stripe", origin="delivery", event_id=told["id"], type=told["type"], body=_body(told))


def test_a_delivery_that_comes_after_the_sweep_books_nothing_twice(box: Sandboxed, campaign: Campaign) -> None:
    paid(box, campaign)
    box.control("refunds", payment_intent=box.listed("payment_intents")[0]["id"], amount=700)
    events = box.all_events()
    box.clock.ahead += timedelta(days=31).total_seconds()
    run()
    assert not InboxEvent.objects.filter(event_id__in=[told["id"] for told in events]).exists()
    before = sums()
    for told in events:
        inbox.put(processor="stripe", origin="delivery", event_id=told["id"], type=told["type"], body=_body(told))
    inbox.drain()
    assert sums() == before
    assert before["refund"] == (1, -700)


def _body(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()


def test_monthly_gifts_that_were_missed_come_back_with_their_renewals(box: Sandboxed, campaign: Campaign) -> None:
    arrangement, subscription = subscribed(box, campaign)
    for step in ("1mo", "1mo", "2h"):
        box.advance(step)
    run()
    assert sums()["gift"] == (3, 3000)
    assert Gift.objects.filter(recurring_gift=arrangement).count() == 3
    arrangement.refresh_from_db()
    assert (arrangement.subscription, arrangement.status) == (subscription, "active")


def test_a_monthly_gift_that_went_silent_is_asked_after(box: Sandboxed, campaign: Campaign) -> None:
    arrangement, subscription = subscribed(box, campaign)
    run()
    box.control(f"subscriptions/{subscription}/cancel")
    box.forget_events()
    RecurringGift.objects.update(heard_at=timezone.now() - timedelta(days=36))
    run()
    arrangement.refresh_from_db()
    assert arrangement.status == "canceled"


def test_a_monthly_gift_that_is_as_it_was_is_not_asked_after_again_at_once(box: Sandboxed, campaign: Campaign) -> None:
    subscribed(box, campaign)
    run()
    RecurringGift.objects.update(heard_at=timezone.now() - timedelta(days=36))
    sightings = InboxEvent.objects.filter(facts__kind="recurring", origin="sweep")
    for _ in range(3):
        run()
    assert sightings.count() == 1


def test_a_monthly_gift_of_which_nothing_was_ever_told_is_asked_after(box: Sandboxed, campaign: Campaign) -> None:
    arrangement, subscription = subscribed(box, campaign)
    box.forget_events()
    run()
    arrangement.refresh_from_db()
    assert (arrangement.subscription, arrangement.status) == (subscription, "active")


@pytest.mark.slow
def test_disputes_and_refunds_of_long_ago_come_back_by_the_money_that_they_move(
    box: Sandboxed, campaign: Campaign
) -> None:
    lost, won, returned = (paid(box, campaign, amount) for amount in (2000, 3000, 4000))
    disputes = [box.control("disputes", payment_intent=gift.checkout_id) for gift in (lost, won)]
    refund = box.control("refunds", payment_intent=returned.checkout_id, amount=1500)
    box.control(f"disputes/{disputes[1]['id']}/win")
    run()
    box.control(f"refunds/{refund['id']}/fail")
    box.clock.ahead += timedelta(days=31).total_seconds()
    row = run()
    assert {kind: total for kind, (_, total) in sums().items() if kind != "fee"} == {
        "gift": 9000,
        "dispute_withdrawn": -5000,
        "dispute_reinstated": 3000,
        "refund": -1500,
        "refund_reversal": 1500,
    }
    assert (row.equal, row.differences) == (True, [])


def test_a_delayed_payment_is_awaited_and_dated_by_when_its_money_came(box: Sandboxed, campaign: Campaign) -> None:
    gift = paid(box, campaign, method="delayed")
    run()
    assert (gift.state.status, sums()) == ("awaiting", {})
    box.clock.ahead += timedelta(days=5).total_seconds()
    box.control(f"payments/{gift.checkout_id}/settle")
    moved = box.listed("balance_transactions")[0]
    box.clock.ahead += timedelta(days=31).total_seconds()
    run()
    assert LedgerEntry.objects.get(kind="gift").effective_at == datetime.fromtimestamp(moved["created"], UTC)


def test_a_delayed_payment_that_never_came_and_a_checkout_that_ran_out_are_heard_of(
    box: Sandboxed, campaign: Campaign
) -> None:
    failed, expired = paid(box, campaign, method="delayed"), make_gift(campaign, 2500)
    box.control(f"payments/{failed.checkout_id}/fail")
    session = box.checkout(form=session_form() | {"metadata[gift]": expired.pk}, replace=True)
    box.control(f"sessions/{session['id']}/expire")
    box.clock.ahead += timedelta(days=31).total_seconds()
    run()
    assert (failed.state.status, expired.state.status, sums()) == ("failed", "expired", {})


def test_payments_of_other_software_are_never_counted_and_no_difference(box: Sandboxed, campaign: Campaign) -> None:
    box.seed(5, gift="order-", first_days_ago=33)
    gift = paid(box, campaign)
    row = run()
    assert sums()["gift"] == (1, gift.amount)
    assert (row.equal, row.books["USD charge"]["agreed"]) == (True, row.books["USD charge"]["theirs"] - gift.amount)


# ---- in trouble


@pytest.mark.slow
def test_a_limit_is_respected_as_told_and_everything_is_found(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 30)
    box.control("trouble", mode="429", calls=2)
    run()
    assert sums() == wanted(made)


def test_waits_are_those_that_the_processor_asks_for(box: Sandboxed, campaign: Campaign) -> None:
    box.control("trouble", mode="429", calls=3)
    waits: list[float] = []
    settlements.ask("stripe", [("invoice", "in_1")])
    lookups.fetch("stripe", rest=waits.append)
    assert waits == [1.0, 2.0, 4.0]
    box.control("trouble", mode="down", calls=4)
    settlements.ask("stripe", [("invoice", "in_2")])
    lookups.fetch("stripe", rest=waits.append)
    assert waits[3:] == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    "told, waits",
    [
        (None, [1, 2, 4, 8, 16, 32, 60, 60, 60]),
        (1, [1, 2, 4, 8, 16, 32, 60, 60, 60]),
        (0.2, [0.2 * 2**n for n in range(9)] + [60, 60]),
        (50, [50, 60, 60, 60]),
        (100, [100, 100]),
        (3600, []),
    ],
)
def test_patience_lasts_for_about_four_minutes_and_waits_no_less_than_told(
    told: float | None, waits: list[float]
) -> None:
    def call() -> None:
        raise ProcessorUnavailable("limited", wait=told)

    waited: list[float] = []
    with pytest.raises(ProcessorUnavailable):
        sweep.patiently(call, waited.append)
    assert waited == pytest.approx(waits)


def test_a_run_is_held_however_long_it_waits(box: Sandboxed) -> None:
    naps: list[float] = []
    held = runs.begin("stripe", rest=naps.append)
    held.rest(50)
    assert (sum(naps), max(naps) <= runs.LEASE.total_seconds() / 3) == (50, True)


def test_a_run_is_held_while_it_says_its_last_word(box: Sandboxed, gift: Gift) -> None:
    _edit("DELETE FROM donations_ledgerentry WHERE kind = 'gift'")
    said: list[tuple[str, bool]] = []

    def grow_old(held: reconcile.Run) -> None:
        if held.row.step == "comparison" and held.doing:
            said.append((held.doing, held.row.held_until - timezone.now() > timedelta(seconds=30)))
        held.row.held_until = timezone.now() + timedelta(seconds=5)

    run(tell=grow_old)
    assert said == [("1 of 1 compared", True), ("what our side alone has", True)]


@pytest.mark.slow
def test_a_processor_that_stays_away_stops_the_run_which_goes_on_later(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 30)
    box.control("trouble", mode="down", path="GET /v1/checkout", status=500)
    with pytest.raises(ProcessorUnavailable):
        run(rest=lambda seconds: None)
    held = Reconciliation.objects.get()
    assert (held.step, held.finished_at, held.counts["events"]["listed"] > 0) == ("checkouts", None, True)
    assert Reconciliation.objects.get(finished_at=None).error != ""
    box.control("trouble", mode="none")
    done = run()
    assert (done.pk, done.equal, sums()) == (held.pk, True, wanted(made))


def test_a_key_that_is_refused_is_not_asked_with_again(box: Sandboxed, campaign: Campaign, settings: Any) -> None:
    settings.STRIPE_SECRET_KEY = "wrong"
    processors.get.cache_clear()
    waits: list[float] = []
    with pytest.raises(ProcessorUnavailable, match="the key was refused"):
        run(rest=waits.append)
    assert waits == []


def test_what_the_key_may_not_read_is_put_aside_and_holds_up_no_other(box: Sandboxed, settings: Any) -> None:
    settlements.ask("stripe", [("refund", "re_1"), ("refund", "re_2"), ("payment", "pi_1")])
    settings.STRIPE_SECRET_KEY = "wrong"
    processors.get.cache_clear()
    with pytest.raises(KeyRefused):
        lookups.fetch("stripe")
    for lookup in Lookup.objects.all():
        assert (lookup.attempts, "the key was refused" in lookup.last_error) == (0, True)
        assert lookup.next_try_at is not None
        assert lookup.next_try_at > timezone.now() + timedelta(minutes=59)
    assert lookups.fetch("stripe") == 0


def test_one_run_at_a_time(box: Sandboxed, campaign: Campaign) -> None:
    held = runs.begin("stripe")
    with pytest.raises(reconcile.Busy):
        run()
    come_back_to_life()
    run()
    with pytest.raises(reconcile.LostLease):
        held.keep(cursor="evt_1")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_run_that_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    """Other processes: one is killed in the middle of its work, the next goes on from where that stood."""
    url = database_for_processes(tmp_path)
    with sandbox(tmp_path) as box:
        made = box.seed(300, gift="gift_seeded", refund_every=7, first_days_ago=33)
        box.later(0)
        elsewhere(url, box, PREPARE, json.dumps({one.gift: one.amount for one in made}))
        elsewhere(url, box, KILLED, code=-signal.SIGKILL)
        before, after = elsewhere(url, box, GO_ON).splitlines()[-2:]
    held, done = json.loads(before), json.loads(after)
    assert (held["finished"], done["finished"], done["equal"]) == (False, True, True)
    assert (held["step"], held["cursor"] != "") == ("events", True)
    assert (held["pk"], done["runs"]) == (done["pk"], 1)
    assert {kind: tuple(both) for kind, both in done["sums"].items()} == wanted(made)


PREPARE = """
import json, sys
from django.core.management import call_command
from tests.factories import make_campaign, make_gift
call_command("migrate", verbosity=0)
campaign = make_campaign()
for gift, amount in json.loads(sys.argv[1]).items():
    make_gift(campaign, amount, reference=gift)
"""
KILLED = """
import os, signal
from donations import reconcile
from tests.test_reconcile import run
seen = []
def tell(held):
    seen.append(held)
    if len(seen) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
run(tell=tell)
"""
GO_ON = """
import json
from donations.models import Reconciliation
from tests.test_reconcile import come_back_to_life, run, sums
def show():
    row = Reconciliation.objects.get()
    told = {"pk": row.pk, "finished": bool(row.finished_at), "equal": row.equal, "step": row.step, "cursor": row.cursor}
    print(json.dumps(told | {"runs": Reconciliation.objects.count(), "sums": sums()}))
show()
come_back_to_life()
run()
show()
"""


def database_for_processes(folder: Path) -> str:
    """The tests' own on PostgreSQL; on SQLite, whose tests are in memory, a file."""
    if connection.vendor == "sqlite":
        return f"sqlite:///{folder}/db.sqlite3"
    return f"{os.environ['DATABASE_URL'].rsplit('/', 1)[0]}/{connection.settings_dict['NAME']}"


def elsewhere(url: str, box: Sandboxed, script: str, *arguments: str, code: int = 0) -> str:
    """Run a script in another process, on this database and with this sandbox; what it printed."""
    begin = "import django\ndjango.setup()\n"
    environment = os.environ | {"DATABASE_URL": url, "TEST_STRIPE_API_BASE": box.url}
    done = subprocess.run(
        [sys.executable, "-c", begin + script, *arguments],
        env=environment | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_thousand_events_that_were_missed_come_back(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 400, refund_every=10, first_days_ago=33)
    assert len(box.all_events()) >= 2000
    row = run()
    assert (row.equal, sums(), projections.drift()) == (True, wanted(made), [])


def test_a_list_whose_place_is_gone_is_read_from_its_beginning(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 5)
    runs.begin("stripe", since=timezone.now() - LONG_AGO).keep(step="events", cursor="evt_forgotten")
    come_back_to_life()
    run()
    assert sums() == wanted(made)


def test_an_earlier_beginning_starts_an_unfinished_run_anew(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 5, first_days_ago=40, last_days_ago=35)
    runs.begin("stripe").keep(step="lookups")
    come_back_to_life()
    run()
    assert (sums(), Reconciliation.objects.count()) == (wanted(made), 1)


# ---- a key of the other mode, for a while


def finished_ago(days: int, livemode: bool | None) -> Reconciliation:
    at = timezone.now() - timedelta(days=days)
    since = at - timedelta(days=3)
    return Reconciliation.objects.create(
        processor="stripe", livemode=livemode, since=since, started_at=at, finished_at=at, held_until=at, equal=True
    )


@pytest.mark.parametrize("of_the_other", [[], [1], [1, 0]], ids=len)
@pytest.mark.parametrize("before_that_was_kept", [False, True])
def test_a_window_follows_the_last_run_of_the_keys_own_mode(
    box: Sandboxed, of_the_other: list[int], before_that_was_kept: bool
) -> None:
    last = finished_ago(12, None if before_that_was_kept else False)
    for days in of_the_other:
        finished_ago(days, True)
    assert runs.window("stripe", timezone.now()) == last.started_at - timedelta(days=3)
    assert runs.is_due("stripe")
    assert reconcile.run().livemode is False
    assert not runs.is_due("stripe")


def test_lists_that_were_read_of_the_other_mode_are_not_taken_for_ours(box: Sandboxed) -> None:
    finished_ago(90, True)
    ours, now = finished_ago(12, False), timezone.now()
    assert runs.read_since("stripe", now) == ours.since
    assert runs.finished("stripe") == ours


def test_a_run_that_was_begun_in_the_other_mode_is_begun_anew(box: Sandboxed, campaign: Campaign) -> None:
    gift = paid(box, campaign)
    runs.begin("stripe").keep(step="comparison")
    Reconciliation.objects.update(livemode=True)
    come_back_to_life()
    assert (run().livemode, sums()["gift"], Reconciliation.objects.count()) == (False, (1, gift.amount), 1)


def test_what_came_under_the_wrong_key_is_booked_once_the_key_is_right(
    box: Sandboxed, gift: Gift, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = event("charge.updated", {"id": "ch_1", "object": "charge"}, livemode=True)
    missed = make_gift(gift.campaign)
    with monkeypatch.context() as wrong_key:
        wrong_key.setattr(processors.get("stripe"), "livemode", True)
        deliver(checkout_event(missed))
        inbox.drain()
    deliver(other)
    inbox.drain()
    assert InboxEvent.objects.filter(state="wrong_mode").count() == 2
    run()
    assert sums()["gift"] == (2, gift.amount + missed.amount)
    assert InboxEvent.objects.get(event_id=other["id"]).state == "wrong_mode"
    assert list(invariants.check()) == []


# ---- what was set aside just when its payment was booked


def test_what_was_set_aside_just_when_its_payment_was_booked_is_looked_at_again(box: Sandboxed, gift: Gift) -> None:
    box.control("refunds", payment_intent=gift.checkout_id, amount=700)
    assert run().equal
    made = sums()
    _edit("DELETE FROM donations_ledgerentry WHERE kind IN ('refund', 'fee')")
    aside = InboxEvent.objects.filter(facts__kind__in=["refund", "charge", "transaction"])
    assert aside.update(state="foreign", gift_reference="") > 2
    compared = reconcile.check(since=timezone.now() - LONG_AGO)
    assert Counter(each["cause"] for each in compared.shown()) == {"missing_here": 2}
    assert run().equal
    assert sums() == made
    assert not aside.filter(state="foreign").exists()


# ---- in a large inbox


def test_a_run_finds_what_it_asks_for_by_indexes_however_much_is_kept(box: Sandboxed, campaign: Campaign) -> None:
    gift = paid(box, campaign)
    box.control("refunds", payment_intent=gift.checkout_id, amount=700)
    foreign = box.control(f"sessions/{box.checkout(form=session_form(900), replace=True)['id']}/pay")["payment_intent"]
    box.control("refunds", payment_intent=foreign, amount=300)
    run()
    _edit("DELETE FROM donations_ledgerentry WHERE kind <> 'gift'")
    with explained("donations_inboxevent", "donations_balancetransaction") as found:
        row = run()
        list(check_events(Counter()))
        list(check_transactions(Counter()))
        list(check_gifts(Counter()))
    assert (row.unexplained, causes(row)["missing_here"]) == (2, 1)
    # The checks read their tables from end to end, by number; what they look up beside is found by its index.
    assert through_all([each for each in found if '"id" ASC LIMIT' not in each[0]]) == []


# ---- windows


def test_the_first_window_and_the_next_ones(box: Sandboxed, settings: Any) -> None:
    first = reconcile.run()
    assert first.started_at - first.since == pytest.approx(timedelta(days=30), abs=timedelta(seconds=1))
    second = reconcile.run()
    assert second.since == first.started_at - timedelta(days=3)
    assert not runs.is_due("stripe")
    Reconciliation.objects.update(started_at=timezone.now() - timedelta(minutes=60))
    assert runs.is_due("stripe")


@pytest.mark.parametrize("narrow", [["--since", "24h"], ["--since", "11d"]])
def test_a_run_that_is_asked_for_less_than_its_window_leaves_nothing_out(
    box: Sandboxed, campaign: Campaign, narrow: list[str]
) -> None:
    finished = reconcile.run()
    ago = timezone.now() - timedelta(days=13)
    Reconciliation.objects.filter(pk=finished.pk).update(started_at=ago, finished_at=ago)
    made = seeded(box, campaign, 5, first_days_ago=12, last_days_ago=10)
    call_command("reconcile", *narrow, stdout=io.StringIO())
    assert sums() == wanted(made)


@pytest.mark.parametrize(
    "text, words",
    [
        ("9999-12-31", "in the future"),
        ("2099-01-01", "in the future"),
        ("0001-01-01", "before 2000-01-01"),
        ("0001-01-01T00:00+14:00", "before 2000-01-01"),
        ("99999d", "before 2000-01-01"),
    ],
)
def test_no_run_begins_in_the_future_or_before_any_gift(box: Sandboxed, text: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("reconcile", "--since", text, stdout=io.StringIO())
    assert not Reconciliation.objects.exists()


@pytest.mark.parametrize("year", [1, 9999])
def test_an_unfinished_run_from_no_time_of_this_world_is_begun_anew(
    box: Sandboxed, campaign: Campaign, year: int
) -> None:
    gift = paid(box, campaign)
    runs.begin("stripe").keep(step="comparison", since=datetime(year, 1, 1, tzinfo=UTC))
    come_back_to_life()
    reconcile.run(since=datetime(year, 1, 1, tzinfo=UTC))
    assert (sums()["gift"], Reconciliation.objects.count()) == ((1, gift.amount), 1)
    assert reconcile.run().equal


def test_why_a_run_fails_is_kept_and_shown_whatever_it_was(box: Sandboxed) -> None:
    def fail(held: reconcile.Run) -> None:
        raise OverflowError("date value out of range")

    with pytest.raises(OverflowError):
        reconcile.run(tell=fail)
    assert health.health().reconcile_error == "OverflowError: date value out of range"
    assert not runs.is_due("stripe")  # one that fails at once is not begun anew at each tick
    assert reconcile.run().equal


def test_what_nobody_can_explain_is_compared_again_however_old_it_grows(box: Sandboxed, gift: Gift) -> None:
    _edit("UPDATE donations_ledgerentry SET amount = amount - 1, goal_amount = 0 WHERE kind = 'gift'")
    box.clock.ahead += timedelta(days=10).total_seconds()
    first = run()
    assert first.unexplained == 1
    second = reconcile.run()
    assert (second.since, second.unexplained) == (first.since, 1)
    [found] = second.differences
    adjust(gift.campaign, 2, found["reference"])
    still = reconcile.run()
    assert (still.unexplained, causes(still)) == (1, {"amount_differs": 1})
    assert "do not come to the difference" in still.differences[0]["detail"]
    assert "enter the rest as another, with /2 after the number" in still.differences[0]["remedy"]
    adjust(gift.campaign, -1, f"{found['reference']}/2")
    third = reconcile.run()
    assert (third.since, third.unexplained, causes(third)) == (first.since, 0, {"corrected": 1})
    assert reconcile.run().since == third.started_at - timedelta(days=3)


def adjust(campaign: Campaign, amount: int, reference: str) -> None:
    record_adjustment(
        campaign=campaign,
        amount=amount,
        day=timezone.now().date() - timedelta(days=1),
        reference=reference,
        reason="both books differed",
        user=make_staff(superuser=True),
    )


@pytest.mark.parametrize(
    "rate, amounts, is_corrected",
    [
        ("", [50000], True),
        ("", [48520], True),  # with its fee
        ("", [49999], False),
        ("", [50001], False),
        ("", [30000, 20000], True),
        ("", [1], False),
        ("0.5", [100000], True),
        ("0.5", [97040], True),
        ("0.5", [100003], False),
        ("0.5", [50000], False),
        ("unknown", [1], True),
        ("unknown", [-50000], False),
    ],
)
def test_adjustments_explain_a_difference_that_they_come_to(
    campaign: Campaign, rate: str, amounts: list[int], is_corrected: bool
) -> None:
    currency = "EUR" if rate else "USD"
    lacking = Verdict("charge", currency, "txn_1", "pi_1", 50000, 1480, 0, 0, MISSING_HERE)
    lacking = replace(lacking, exchange_rate=rate.removeprefix("unknown"))
    for number, amount in enumerate(amounts):
        adjust(make_campaign(f"fund-{number}", is_default=False), amount, "txn_1")
    [verdict] = corrected([lacking])
    assert verdict.cause is (CORRECTED if is_corrected else MISSING_HERE)


@pytest.mark.parametrize(
    "reference, is_corrected",
    [
        ("txn_1/2", True),
        ("txn_1/2/3", True),
        ("txn_1/the rest", True),
        ("txn_1", True),
        ("txn_12", False),
        ("txn_12/2", False),
        ("txn_1-2", False),
        ("txn_10", False),
        ("txn_1%/2", False),
        ("txnx1/2", False),
        ("TXN_1/2", False),
        ("2/txn_1", False),
        ("other:txn_1/2", False),
    ],
)
def test_a_further_adjustment_has_the_number_and_a_slash(
    campaign: Campaign, reference: str, is_corrected: bool
) -> None:
    lacking = Verdict("charge", "USD", "txn_1", "pi_1", 50000, 1480, 0, 0, MISSING_HERE)
    adjust(make_campaign("another", is_default=False), 20000, "txn_1/1")
    adjust(campaign, 30000, reference)
    [verdict] = corrected([lacking])
    assert verdict.cause is (CORRECTED if is_corrected else MISSING_HERE)


def test_a_number_that_begins_another_before_a_slash_leaves_it_its_adjustments(campaign: Campaign) -> None:
    numbers = ("txn_1", "txn_1/a", "txn_1/a/b")
    lacking = [Verdict("charge", "USD", number, "pi_1", 100, 0, 0, 0, MISSING_HERE) for number in numbers]
    adjust(campaign, 100, "txn_1/a")
    adjust(campaign, 60, "txn_1/a/b")
    adjust(campaign, 40, "txn_1/a/b/2")
    assert [each.cause for each in corrected(lacking)] == [MISSING_HERE, CORRECTED, CORRECTED]


def test_adjustments_under_a_number_are_found_by_an_index(campaign: Campaign, gift: Gift) -> None:
    adjust(campaign, 50000, "txn_1/2")
    lacking = Verdict("charge", "USD", "txn_1", "pi_1", 50000, 1480, 0, 0, MISSING_HERE)
    entry = LedgerEntry.objects.get(kind="gift")
    with explained("donations_ledgerentry") as found:
        corrected([lacking])
        corrected_by(entry)
    assert (len(found), through_all(found)) == (4, [])


def test_what_was_adjusted_as_a_test_explains_no_live_difference(
    campaign: Campaign, go_live: Callable[[], None]
) -> None:
    lacking = [Verdict("charge", "USD", f"txn_{number}", "pi_1", 50000, 1480, 0, 0, MISSING_HERE) for number in (1, 2)]
    adjust(campaign, 50000, "txn_1")
    as_before = Adjusted("", "general", "general:txn_2", 50000, "USD", NOON)  # as an earlier version named it
    body = event_body(as_before, livemode=False, created=NOON)
    assert inbox.put(processor="offline", origin="staff", event_id="staff:1", type="adjustment", body=body)
    inbox.drain()
    assert [each.cause for each in corrected(lacking)] == [CORRECTED, CORRECTED]
    go_live()
    assert [each.cause for each in corrected(lacking)] == [MISSING_HERE, MISSING_HERE]
    adjust(campaign, 50000, "txn_1")
    assert [each.cause for each in corrected(lacking)] == [CORRECTED, MISSING_HERE]


def test_a_tick_runs_once_an_hour_and_looks_up_each_time(box: Sandboxed, campaign: Campaign) -> None:
    reconcile.tick()
    paid(box, campaign)
    for told in box.events():
        inbox.put(processor="stripe", origin="delivery", event_id=told["id"], type=told["type"], body=_body(told))
    inbox.drain()
    assert "fee" not in sums()
    reconcile.tick()
    inbox.drain()
    assert (sums()["fee"][0], Reconciliation.objects.count()) == (1, 1)


# ---- what differs


@pytest.fixture
def gift(box: Sandboxed, campaign: Campaign) -> Gift:
    """A gift that both books know."""
    found = paid(box, campaign)
    assert run().equal
    return found


def test_an_amount_that_was_changed_here_is_found(box: Sandboxed, gift: Gift) -> None:
    _edit("UPDATE donations_ledgerentry SET amount = amount - 1, goal_amount = 0 WHERE kind = 'gift'")
    row = run()
    [found] = row.differences
    assert (found["cause"], found["theirs"], found["ours"]) == ("amount_differs", 2500, 2499)
    assert (row.equal, row.unexplained) == (False, 1)


def test_an_entry_that_was_removed_here_is_found(box: Sandboxed, gift: Gift) -> None:
    _edit("DELETE FROM donations_ledgerentry WHERE kind = 'fee'")
    assert causes(run()) == {"amount_differs": 1}


def test_a_movement_that_only_we_have_is_found(box: Sandboxed, gift: Gift) -> None:
    BalanceTransaction.objects.create(
        **(
            _fields(BalanceTransaction.objects.get())
            | {"reference": "txn_forged", "payment": "pi_forged", "gift": None}
        )
    )
    row = run()
    assert causes(row) == {"missing_there": 1}
    assert row.differences[0]["reference"] == "txn_forged"


def test_a_movement_that_only_we_have_is_found_on_any_page_and_second(rng: random.Random) -> None:
    """Many movements a second, so that seconds lie on two pages and on many."""
    facts = [_fact(f"txn_{number}", second) for number, second in enumerate(sorted(rng.choices(range(8), k=240)))][::-1]
    settlements.record_transactions("stripe", [(fact, "", False) for fact in facts])
    for place in range(8):
        forged = _keep(_fact("txn_forged", place))
        found, at, since = [], None, _fact("", 0).created
        pages = [facts[start : start + 20] for start in range(0, 240, 20)]
        for page in pages:
            extra, at = comparison.not_listed(
                "stripe", page, since=since, place=at, is_last=page is pages[-1], livemode=False
            )
            found += extra
        assert found == ["txn_forged"]
        forged.delete()


def _fact(reference: str, second: int) -> TransactionSeen:
    at = NOON + timedelta(seconds=second)
    return TransactionSeen(reference, "charge", "ch_1", "pi_1", 100, 3, 97, "USD", "", at, at, "")


def _keep(fact: TransactionSeen) -> BalanceTransaction:
    settlements.record_transactions("stripe", [(fact, "", False)])
    return BalanceTransaction.objects.get(reference=fact.transaction)


def test_more_differences_than_are_kept_are_counted(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 6)
    run()
    _edit("UPDATE donations_ledgerentry SET amount = amount - 1, goal_amount = 0 WHERE kind = 'gift'")
    now = timezone.now()
    compared = reconcile.Comparison(
        "stripe", now - LONG_AGO, now, differences=[{"explained": True, "cause": "waiting"}] * 998
    )
    page = processors.get("stripe").sweep("transactions", since=compared.since)
    compared.page(page)
    compared.conclude(lambda seconds: None)
    assert (compared.found, compared.unexplained, len(compared.differences)) == (len(made), len(made), 1000)


def test_what_another_process_asks_for_at_this_moment_is_explained_as_long_as_that_may_take(
    box: Sandboxed, campaign: Campaign
) -> None:
    made = seeded(box, campaign, 3)
    now = timezone.now()

    def comparison() -> reconcile.Comparison:
        compared = reconcile.Comparison("stripe", now - LONG_AGO, now)
        compared.page(processors.get("stripe").sweep("transactions", since=compared.since))
        return compared

    first = comparison()
    settlements.claim("stripe", 300)
    first.conclude(lambda seconds: None)
    assert {each["cause"] for each in first.shown()} == {"asked_for"}
    assert (first.found, first.unexplained) == (2 * len(made), 0)  # each payment, and the payout that carried it
    with time_machine.travel(timezone.now() + settlements.LEASE):
        second = comparison()
        second.conclude(lambda seconds: None)
    assert second.unexplained == first.found


def test_a_movement_that_cannot_be_read_stops_no_comparison(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 3)
    run()
    now = timezone.now()
    compared = reconcile.Comparison("stripe", now - LONG_AGO, now)
    page = processors.get("stripe").sweep("transactions", since=compared.since)
    first = next(each for each in page.sightings if each.type == "sweep.balance_transaction")
    told = json.loads(first.body)
    del told["data"]["object"]["net"]
    bad = replace(first, body=json.dumps(told).encode())
    compared.page(replace(page, sightings=tuple(bad if each is first else each for each in page.sightings)))
    listed = sum(each.type == first.type for each in page.sightings)
    assert sum(each["count"] for each in compared.sums.values()) == listed - 1 >= len(made) - 1


def test_an_entry_that_the_processor_knows_nothing_of_is_found(box: Sandboxed, gift: Gift) -> None:
    old = timezone.now() - timedelta(days=5)
    fields = _fields(LedgerEntry.objects.get(kind="gift")) | {"reference": "pi_forged", "effective_at": old}
    LedgerEntry.objects.create(**(fields | {"gift": make_gift(gift.campaign)}))
    row = run()
    assert causes(row) == {"missing_there": 1}
    [alone] = row.differences
    assert (row.books["USD gift"]["theirs"], row.books["USD gift"]["ours"]) == (0, alone["ours"]) == (0, 2500)


@pytest.mark.parametrize("overlap", [1, 3, 5])
@pytest.mark.parametrize("ahead", [0, 4], ids="{} minutes ahead".format)
def test_what_the_ledger_alone_has_is_found_by_runs_of_every_few_hours_once_three_days_have_gone_by(
    box: Sandboxed, campaign: Campaign, settings: Any, overlap: int, ahead: int
) -> None:
    """However far they look back, and where the processor's clock is ahead of ours: what was too young to be missed
    must not be too old the next time."""
    settings.RECONCILE_OVERLAP_DAYS = overlap
    begun = timezone.now() - timedelta(days=9)
    with time_machine.travel(begun):
        reconcile.run()
        confirm(make_gift(campaign), payment="pi_unknown_there", at=timezone.now() + timedelta(minutes=ahead))
    told = {}
    for hours in range(5, 120, 6):
        with time_machine.travel(begun + timedelta(hours=hours)):
            told[hours] = reconcile.run()
    assert [hours for hours, row in told.items() if row.equal] == list(range(5, 72, 6))
    assert {tuple(causes(row).items()) for hours, row in told.items() if hours > 72} == {(("missing_there", 1),)}
    young = told[5].books["USD gift"]
    assert (young["theirs"], young["ours"], young["agreed"]) == (0, 50000, -50000)


def test_money_of_days_ago_that_the_ledger_alone_has_is_found_by_the_next_run(
    box: Sandboxed, campaign: Campaign
) -> None:
    now = timezone.now()
    for days_ago in (9, 1):
        with time_machine.travel(now - timedelta(days=days_ago)):
            reconcile.run()
    confirm(make_gift(campaign), payment="pi_unknown_there", at=now - timedelta(days=6))
    assert causes(reconcile.run()) == {"missing_there": 1}


def test_what_was_booked_before_the_first_list_began_is_not_missed_there(box: Sandboxed, campaign: Campaign) -> None:
    confirm(make_gift(campaign), payment="pi_of_before", at=timezone.now() - timedelta(days=40))
    row = reconcile.run()
    assert (row.equal, causes(row)) == (True, {})


def test_what_was_paid_while_a_run_stood_still_for_days_is_not_missed_by_it(box: Sandboxed, campaign: Campaign) -> None:
    """Its list of movements was read before: the next run's has them."""

    def die(held: reconcile.Run) -> None:
        if held.row.step == "lookups":
            raise SystemExit

    begun = timezone.now() - timedelta(days=9)
    with time_machine.travel(begun), pytest.raises(SystemExit):
        run(tell=die)
    with time_machine.travel(begun + timedelta(days=1)):
        confirm(make_gift(campaign), payment="pi_of_the_day_after", at=timezone.now())
    row = run()
    assert row.started_at < begun + timedelta(hours=1)
    assert (row.equal, row.unexplained) == (True, 0)
    assert causes(run()) == {"missing_there": 1}


def test_a_quarantined_payment_is_told_with_its_reason(box: Sandboxed, campaign: Campaign) -> None:
    gift = paid(box, campaign)
    Gift.objects.filter(pk=gift.pk).update(amount=100)
    row = run()
    [found] = row.differences
    assert (found["cause"], row.equal, row.unexplained) == ("quarantined", False, 0)
    assert "25.00 USD were paid, and 1.00 USD were asked" in found["detail"]
    kept = health.health().reconcile
    assert (kept.is_equal, kept.findings, kept.explained, kept.words) == (False, 0, 1, ())


def test_a_quarantined_payment_is_a_difference_until_somebody_decides_about_it(
    box: Sandboxed, campaign: Campaign
) -> None:
    gift = paid(box, campaign)
    Gift.objects.filter(pk=gift.pk).update(amount=100)
    first = run()
    for days in (2, 4, 6, 8):
        with time_machine.travel(timezone.now() + timedelta(days=days)):
            row = reconcile.run()
        assert (causes(row), row.equal, row.since) == ({"quarantined": 1}, False, first.since)
    event = InboxEvent.objects.get(state="quarantined")
    with time_machine.travel(timezone.now() + timedelta(days=85)):
        row = reconcile.run()
    assert (causes(row), (row.started_at - row.since).days) == ({"quarantined": 1}, 90)
    inbox.dismiss(event, user=make_staff(), reason="given back by hand")
    for days in (86, 87):
        with time_machine.travel(timezone.now() + timedelta(days=days)):
            row = reconcile.run()
    assert (row.equal, row.since > first.since) == (True, True)


def test_a_payment_whose_gift_is_unknown_waits_and_is_told_so(box: Sandboxed, campaign: Campaign) -> None:
    gift = paid(box, campaign)
    Gift.objects.filter(pk=gift.pk).delete()
    row = run()
    assert (causes(row), row.equal, row.unexplained) == ({"waiting": 1}, False, 0)


def test_a_refund_on_its_way_and_one_that_never_arrived_are_no_differences(box: Sandboxed, campaign: Campaign) -> None:
    gift = paid(box, campaign)
    for outcome in ("pending", "cancel"):
        refund = box.control("refunds", payment_intent=gift.checkout_id, amount=500, outcome="pending")
        if outcome == "cancel":
            box.control(f"refunds/{refund['id']}/cancel")
    row = run()
    assert (row.differences, row.books["USD refund"]["agreed"], "refund" in sums()) == ([], -1000, False)


def test_another_settlement_currency_is_compared_by_its_rate(box: Sandboxed, campaign: Campaign) -> None:
    box.control("account", settlement_currency="eur", exchange_rate="0.93")
    paid(box, campaign, 3333)
    row = run()
    assert (row.differences, list(row.books)) == ([], ["EUR charge"])


def test_a_currency_without_decimals_is_compared_by_the_rate_of_minor_units(box: Sandboxed) -> None:
    box.control("account", settlement_currency="usd", exchange_rate="0.006731")
    tokyo = make_campaign("tokyo", currency="JPY", is_default=False)
    gift = paid(box, tokyo, 3333)
    dispute = box.control("disputes", payment_intent=gift.checkout_id)["id"]
    box.control("account", exchange_rate="0.007219")
    box.control(f"disputes/{dispute}/win")
    row = run()
    assert (row.differences, sorted(row.books)) == ([], ["USD adjustment", "USD charge"])
    assert sums()["dispute_withdrawn"][1] == -sums()["dispute_reinstated"][1] == -3333


def test_it_is_told_since_when_both_books_are_equal_or_not(box: Sandboxed, gift: Gift) -> None:
    first, second = Reconciliation.objects.get(), run()
    assert second.equal_since == first.equal_since
    _edit("DELETE FROM donations_ledgerentry WHERE kind = 'fee'")
    third = run()
    assert third.equal_since == third.finished_at
    told = Reconciliation.objects.latest("finished_at")
    assert (told.equal, told.equal_since, told.unexplained, told.unseen) == (False, third.equal_since, 1, 0)


def _edit(sql: str) -> None:
    """Straight in the table, past the guards."""
    guards = [f"DROP TRIGGER ledger_no_{what}" for what in ("update", "delete")]
    if connection.vendor == "postgresql":
        guards = ["SET CONSTRAINTS ALL IMMEDIATE", "ALTER TABLE donations_ledgerentry DISABLE TRIGGER USER"]
    with connection.cursor() as cursor:
        for statement in [*guards, sql]:
            cursor.execute(statement)


def _fields(row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in row._meta.fields if not field.primary_key}


# ---- payouts


def test_every_gift_tells_where_its_money_is(box: Sandboxed, campaign: Campaign) -> None:
    from donations.selectors.settlements import settlements_of

    gift = paid(box, campaign, card="4000000000000077")
    run()
    assert [settled.bank for settled in settlements_of(gift)] == ["on the processor’s balance, in no payout yet"]
    box.advance("4d")
    run()
    payout = Payout.objects.get()
    assert settlements_of(gift)[0].bank == f"reached the bank on {payout.arrival:%-d %B %Y}"
    box.control(f"payouts/{payout.reference}/fail")
    run()
    assert "its payout failed on " in settlements_of(gift)[0].bank
    assert "the money is back" in settlements_of(gift)[0].bank
    # What came back is carried by the next payout.
    make_payout("po_next", payout.amount, arrival=payout.arrival + timedelta(days=3))
    BalanceTransaction.objects.filter(type="payout_failure").update(payout="po_next")
    assert settlements_of(gift)[0].bank == f"reached the bank on {payout.arrival + timedelta(days=3):%-d %B %Y}"


def test_of_payouts_by_hand_the_processor_does_not_tell_what_they_carried(box: Sandboxed, campaign: Campaign) -> None:
    from donations.selectors.settlements import settlements_of

    gift = paid(box, campaign, card="4000000000000077")
    run()
    make_payout("po_hand", gift.amount, automatic=False, created=timezone.now() + timedelta(hours=1))
    assert settlements_of(gift)[0].bank.startswith("paid out by hand perhaps")


# ---- what is looked up


def test_many_lookups_are_answered_by_a_list_and_few_one_by_one(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 150, first_days_ago=0.05, last_days_ago=0, deliveries="delivered")
    calls: list[str] = []
    _count_calls(box, calls)
    settlements.ask("stripe", [("balance_transaction", one.movement) for one in made])
    assert lookups.fetch("stripe") == 150
    assert len(calls) == 2
    assert Lookup.objects.filter(next_try_at__isnull=False).count() == 0
    inbox.drain()
    assert BalanceTransaction.objects.count() == 150


def _count_calls(box: Sandboxed, calls: list[str]) -> None:
    app = box.running.server.get_app()

    def counting(environ: dict[str, Any], start_response: Any) -> Any:
        calls.append(environ["PATH_INFO"])
        return app(environ, start_response)

    box.running.server.set_app(counting)


def test_what_the_processor_does_not_know_is_asked_for_ever_later_and_in_the_end_no_more(box: Sandboxed) -> None:
    settlements.ask("stripe", [("invoice", "in_none")])
    for _ in range(12):
        Lookup.objects.update(next_try_at=timezone.now())
        lookups.fetch("stripe")
    asked = Lookup.objects.get()
    assert (asked.attempts, asked.next_try_at) == (12, None)
    assert "resource_missing" in asked.last_error


# ---- reading again


def test_what_needed_nothing_is_read_again_once_it_can_be(box: Sandboxed, campaign: Campaign) -> None:
    gift = make_gift(campaign)
    told = event("checkout.session.completed", {"id": "cs_1", "mode": "payment"})
    paying = told["data"]["object"] | {
        "metadata": {"gift": gift.pk},
        "payment_intent": "pi_1",
        "payment_status": "paid",
    }
    told["data"]["object"] = paying | {"amount_total": gift.total, "currency": "usd"}
    inbox.put(processor="stripe", origin="delivery", event_id=told["id"], type=told["type"], body=_body(told))
    # As an older version left it.
    InboxEvent.objects.update(state="nothing", next_try_at=None, settled_at=timezone.now())
    TypesRead.objects.create(processor="stripe", types=sorted(processors.get("stripe").reads - {told["type"]}))
    assert inbox.read_newly_known("stripe") == 1
    inbox.drain()
    assert sums() == {"gift": (1, gift.amount)}
    assert inbox.read_newly_known("stripe") == 0


def test_replay_reads_again_by_type_state_and_time(campaign: Campaign) -> None:
    for kind in ("charge.succeeded", "charge.updated"):
        told = event(kind, {"id": "ch_1"})
        inbox.put(processor="stripe", origin="delivery", event_id=told["id"], type=kind, body=_body(told))
    inbox.drain()
    for options, wanted_rows in (
        ({"type": ["charge.updated"]}, "1 events are read again"),
        ({"state": "foreign"}, "0 events are read again"),
        ({"since": timezone.now() + timedelta(hours=1)}, "0 events are read again"),
        ({}, "2 events are read again"),
    ):
        output = io.StringIO()
        call_command("replay", stdout=output, **options)
        assert wanted_rows in output.getvalue()


# ---- the command


def test_the_command_says_what_it_did_and_fails_on_what_it_cannot_explain(box: Sandboxed, gift: Gift) -> None:
    output = io.StringIO()
    call_command("reconcile", stdout=output)
    assert "both books say the same" in output.getvalue()
    _edit("DELETE FROM donations_ledgerentry WHERE kind = 'fee'")
    with pytest.raises(CommandError, match="1 ways of no known cause"):
        call_command("reconcile", stdout=output, since=timezone.now() - LONG_AGO)
    assert "Both books have it, with another amount. (its fee)" in output.getvalue()


def test_to_check_compares_and_changes_nothing(box: Sandboxed, campaign: Campaign) -> None:
    paid(box, campaign)
    with pytest.raises(CommandError):
        call_command("reconcile", check=True, stdout=io.StringIO())
    assert (InboxEvent.objects.count(), Lookup.objects.count(), Reconciliation.objects.count()) == (0, 0, 0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_one_line_that_changes(box: Sandboxed, gift: Gift) -> None:
    output = Terminal()
    call_command("reconcile", stdout=output)
    assert "\r\x1b[K" in output.getvalue()
    assert "balance transactions: 1 looked at" in output.getvalue()


def test_a_terminal_sees_how_far_a_mere_comparison_is(box: Sandboxed, campaign: Campaign) -> None:
    seeded(box, campaign, 3)
    output = Terminal()
    with pytest.raises(CommandError, match="of no known cause"):
        call_command("reconcile", check=True, stdout=output)
    assert re.search(r"\r\x1b\[K +\d+\.\d s  balance transactions: 9 looked at\r", output.getvalue())
    assert re.search(r"what our side alone has\n  USD ", output.getvalue())


def test_a_comparison_that_is_refused_says_that_nothing_was_changed(box: Sandboxed, settings: Any) -> None:
    settings.STRIPE_SECRET_KEY = "wrong"
    with pytest.raises(CommandError, match=r"^It stands still: .*Nothing was changed\.$") as refused:
        call_command("reconcile", check=True, stdout=io.StringIO())
    assert refused.value.returncode == 2


def test_a_terminal_sees_what_is_done_between_the_lists(box: Sandboxed, campaign: Campaign) -> None:
    made = seeded(box, campaign, 3)
    output = Terminal()
    call_command("reconcile", stdout=output)
    assert sums() == wanted(made)
    for words in ("events processed: ", "answers to what was asked for: 1", "what our side alone has"):
        assert words in output.getvalue()


def test_the_log_does_not_run_into_the_line_that_changes(box: Sandboxed, gift: Gift) -> None:
    output = Terminal()
    lines = logging.StreamHandler(output)
    logging.getLogger().addHandler(lines)
    try:
        box.control("trouble", mode="429", calls=1, path="GET /v1/payouts")
        call_command("reconcile", stdout=output)
    finally:
        logging.getLogger().removeHandler(lines)
    assert "\r\x1b[Kthe processor does not answer" in output.getvalue()
    assert not lines.filters


def test_a_run_that_is_stopped_by_hand_says_so_in_a_line_and_is_let_go(box: Sandboxed) -> None:
    class StoppedAtPayouts(Terminal):
        def write(self, text: str) -> int:
            if "payouts" in text:
                raise KeyboardInterrupt
            return super().write(text)

    with pytest.raises(CommandError, match=r"^Stopped\. What was fetched is kept") as stopped:
        call_command("reconcile", stdout=StoppedAtPayouts())
    assert stopped.value.returncode == 130
    held = Reconciliation.objects.get()
    assert (held.step, held.held_until <= timezone.now()) == ("payouts", True)


def test_fees_that_differ_are_told_of_both_sides(box: Sandboxed, gift: Gift) -> None:
    output = io.StringIO()
    _edit("UPDATE donations_ledgerentry SET amount = amount + 1 WHERE kind = 'fee'")
    with pytest.raises(CommandError):
        call_command("reconcile", stdout=output)
    fee = -sums()["fee"][1]
    assert f"theirs 25.00, ours 25.00 USD; fees: theirs 1.03, ours {fee / 100} USD" in output.getvalue()


def test_a_second_command_says_who_is_at_it(box: Sandboxed) -> None:
    runs.begin("stripe")
    with pytest.raises(CommandError, match="another run is at it") as refused:
        call_command("reconcile", stdout=io.StringIO())
    assert refused.value.returncode == 2


def test_what_was_quarantined_and_removed_from_the_inbox_is_fetched_again(box: Sandboxed) -> None:
    """That it is gone, no check of the books can see."""
    gift = paid(box, make_campaign())
    Gift.objects.filter(pk=gift.pk).update(amount=gift.amount + 1)
    run()
    [lost] = InboxEvent.objects.filter(state="quarantined")
    InboxEvent.objects.filter(pk=lost.pk)._raw_delete(using="default")
    assert list(invariants.check()) == []
    run()
    [found] = InboxEvent.objects.filter(state="quarantined")
    assert (found.event_id, found.reason) == (lost.event_id, lost.reason)

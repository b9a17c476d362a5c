"""Money that is on its way for days: what became of it is asked for, also where its news was lost.

At Stripe the movement of a bank debit is made, pending, when the debit begins, and a second one takes the money back
when it fails: https://docs.stripe.com/reports/balance-transaction-types.
"""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from donations import giving, processors, reconcile, settlements
from donations.models import Campaign, Gift, GiftState, LedgerEntry, Lookup, MonthTotal, Reconciliation, RecurringGift
from donations.offline import record_adjustment
from donations.processors.facts import TransactionSeen
from donations.reconcile import comparison, lookups
from donations.sandbox import balance
from donations.sandbox import payments as sandbox_payments
from donations.selectors.refunds import left_of, on_their_way
from tests.factories import NOON, confirm, make_campaign, make_gift, make_recurring_gift, make_staff
from tests.plans import explained, through_all
from tests.sandbox import Sandboxed, session_form, subscription_form

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(180)]


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


class Days:
    """A site and a sandbox whose time is some days from now."""

    def __init__(self, box: Sandboxed) -> None:
        self.box = box
        self.begin = timezone.now()

    def at(self, day: float) -> Any:
        return time_machine.travel(self.begin + timedelta(days=day), tick=True)

    def control(self, day: float, path: str, /, **body: Any) -> Any:
        """What happens at the processor on a day; its event is lost: the processor takes it for delivered."""
        with self.at(day):
            found = self.box.control(path, **body)
            self.lose()
        return found

    def lose(self) -> None:
        with self.box.running.sandbox.store.transaction() as tx:
            tx.db.execute(
                "UPDATE OR REPLACE lookups SET value = 'true' WHERE kind = 'event' AND name = 'delivery_success'"
            )

    def run(self, day: float, **options: Any) -> Reconciliation:
        with self.at(day):
            return reconcile.run(**options)


@pytest.fixture
def days(box: Sandboxed) -> Days:
    return Days(box)


def begun(box: Sandboxed, campaign: Campaign, method: str = "delayed") -> tuple[Gift, str]:
    """A gift of 25.00 whose checkout is complete, and its payment."""
    gift = make_gift(campaign, 2500)
    form = {"client_reference_id": gift.pk, "metadata[gift]": gift.pk, "payment_intent_data[metadata][gift]": gift.pk}
    session = box.checkout(form=session_form(2500, "usd") | form, replace=True)
    paying = {"method": method} if method else {}
    return gift, box.control(f"sessions/{session['id']}/pay", **paying)["payment_intent"]


def announce(box: Sandboxed, payment: str) -> str:
    """The pending movement of a debit, as Stripe makes it when the debit begins. Returns its charge."""
    with box.running.sandbox.store.transaction() as tx:
        charge = tx.get("charge", sandbox_payments.find(tx, payment)["latest_charge"])
        assert charge
        charge["balance_transaction"] = balance.book_charge(tx, charge)
        tx.save(charge)
        return str(charge["id"])


def take_back(box: Sandboxed, source: str, amount: int = 2500) -> str:
    """The movement that takes the money of a failed debit back."""
    with box.running.sandbox.store.transaction() as tx:
        moved = balance.book(tx, "payment_failure_refund", source, -amount, "usd", category="charge_failure")
        return str(moved["id"])


def due(identity: str, days: Days) -> float | None:
    """On which day a payment or refund is asked for next."""
    at = Lookup.objects.get(kind__in=["payment", "refund"], object_id=identity).next_try_at
    return round((at - days.begin) / timedelta(days=1), 1) if at else None


def status(gift: Gift) -> str:
    return str(GiftState.objects.get(pk=gift.pk).status)


def causes(row: Reconciliation) -> Counter[str]:
    return Counter(each["cause"] for each in row.differences)


def sums() -> dict[str, int]:
    entries = LedgerEntry.objects.exclude(kind="fee").values_list("kind", "amount")
    found = Counter[str]()
    for kind, amount in entries:
        found[kind] += amount
    return dict(found)


def moved() -> list[TransactionSeen]:
    """The movements of payments that the processor lists, the newest first."""
    source = processors.get("stripe")
    page = source.sweep("transactions", since=timezone.now() - timedelta(days=90))
    told = [source.interpret(row.body).fact for row in page.sightings]
    return [fact for fact in told if isinstance(fact, TransactionSeen) and fact.payment]


def judged(facts: list[TransactionSeen]) -> list[str]:
    """Why each movement is not in the ledger; "" for one that is."""
    return [each.cause.name if each.cause else "" for each in comparison.judge("stripe", facts, asks=False)]


def page_of(gift: Gift | RecurringGift) -> str:
    return Client().get(giving.thanks_url(gift).removeprefix("http://testserver")).text


# ---- debits


def test_a_debit_that_was_paid_is_found_though_its_news_was_lost(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    gift, payment = begun(box, campaign)
    announce(box, payment)
    row = days.run(0)
    assert (row.equal, status(gift), row.books["USD payment"]["agreed"]) == (True, "awaiting", 2500)
    days.run(4.9)
    days.control(5, f"payments/{payment}/settle")
    row = days.run(6)
    assert (row.equal, status(gift), sums()) == (True, "confirmed", {"gift": 2500})
    assert LedgerEntry.objects.filter(kind="fee").count() == 1


def test_the_movement_of_a_debit_that_is_on_its_way_is_not_said_to_be_foreign(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    _, payment = begun(box, campaign)
    announce(box, payment)
    days.run(0)
    for day in (0.1, 2):
        with days.at(day):
            assert judged(moved()) == ["awaited"]


def test_a_debit_that_failed_is_heard_of_though_its_news_was_lost(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    gift, payment = begun(box, campaign)
    days.run(0)
    month = MonthTotal.objects.get(campaign=campaign)
    assert (status(gift), month.awaiting) == ("awaiting", 2500)
    assert "Your gift is on its way" in page_of(gift)
    days.run(4.4)
    days.control(4.5, f"payments/{payment}/fail")
    row = days.run(6)
    month.refresh_from_db()
    assert (row.equal, status(gift), sums()) == (True, "failed", {})
    assert (month.awaiting, month.awaiting_gifts) == (0, 0)
    assert "on its way" not in page_of(gift)


def test_a_debit_is_asked_after_once_a_day_and_no_more_once_it_is_settled(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    _, payment = begun(box, campaign)
    days.run(0)
    assert due(payment, days) == 1
    days.run(0.9)
    assert due(payment, days) == 1
    days.run(1.1)
    assert due(payment, days) == 2.1
    days.control(2, f"payments/{payment}/settle")
    for day in (2.5, 3):
        days.run(day)
        assert due(payment, days) is None


def test_a_run_begins_to_ask_after_so_many_debits_and_the_next_one_after_the_others(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    for _ in range(3):
        begun(box, campaign)
    days.run(0)
    Lookup.objects.all().delete()
    for asked in (2, 3, 3):
        lookups.ask_after_awaiting("stripe", most=2)
        assert Lookup.objects.filter(kind="payment").count() == asked


def test_awaiting_gifts_are_found_by_indexes_however_much_is_kept(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    begun(box, campaign)
    days.run(0)
    with explained("donations_giftstate", "donations_inboxevent", "donations_lookup") as found:
        lookups.ask_after_awaiting("stripe")
    assert found
    assert through_all(found) == []


def test_a_first_monthly_payment_by_debit_that_failed_is_heard_of_though_its_news_was_lost(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    arrangement, payment = monthly(box, campaign)
    days.run(0)
    days.control(4, f"payments/{payment}/fail")
    with days.at(5):
        assert "on its way" in page_of(arrangement)
    days.run(5)
    arrangement.refresh_from_db()
    assert arrangement.status == "past_due"
    with days.at(5):
        assert "on its way" not in page_of(arrangement)


def monthly(box: Sandboxed, campaign: Campaign) -> tuple[RecurringGift, str]:
    """A monthly gift whose first payment, a debit, has begun; and that payment."""
    arrangement = make_recurring_gift(campaign, 1000)
    form = {"metadata[recurring_gift]": arrangement.pk, "subscription_data[metadata][recurring_gift]": arrangement.pk}
    session = box.checkout(form=subscription_form(1000) | form, replace=True)
    invoice = box.control(f"sessions/{session['id']}/pay", method="delayed")["invoice"]
    [payment] = box.listed("invoice_payments", invoice=invoice)
    return arrangement, payment["payment"]["payment_intent"]


def test_a_monthly_payment_by_debit_is_found_though_its_news_was_lost(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    arrangement, payment = monthly(box, campaign)
    announce(box, payment)
    row = days.run(0)
    assert (row.equal, sums(), row.books["USD payment"]["agreed"]) == (True, {}, 1000)
    days.run(4.9)
    days.control(5, f"payments/{payment}/settle")
    row = days.run(6)
    assert (row.equal, sums()) == (True, {"gift": 1000})
    assert Gift.objects.filter(recurring_gift=arrangement).count() == 1
    assert due(payment, days) is None


def test_an_invoice_that_stays_open_is_asked_after_for_a_month(box: Sandboxed, campaign: Campaign, days: Days) -> None:
    _, payment = monthly(box, campaign)
    announce(box, payment)
    days.run(0)
    for day, again in ((34, 35), (36, None)):
        days.run(day)
        assert due(payment, days) == again


# ---- refunds


def test_a_refund_that_succeeds_after_lists_end_is_booked_though_its_news_was_lost(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    _, payment = begun(box, campaign, method="")
    refund = box.control("refunds", payment_intent=payment, amount=1000, outcome="pending")
    days.run(0)
    for day in (20, 39):
        assert days.run(day).equal
    days.control(40, f"refunds/{refund['id']}/succeed")
    row = days.run(41)
    assert (row.equal, sums()) == (True, {"gift": 2500, "refund": -1000})
    assert due(refund["id"], days) is None


def test_a_refund_that_was_called_off_long_after_is_no_longer_on_its_way(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    gift, payment = begun(box, campaign, method="")
    refund = box.control("refunds", payment_intent=payment, amount=1000, outcome="pending")
    days.run(0)
    days.run(39)
    assert (len(on_their_way(gift.pk)), left_of(gift.pk)) == (1, 1500)
    with box.running.sandbox.store.transaction() as tx:  # no money moved, so that no movement tells of it
        told = tx.get("refund", refund["id"])
        assert told
        tx.save(told | {"status": "canceled"})
    days.run(41)
    assert (on_their_way(gift.pk), left_of(gift.pk), sums()) == ([], 2500, {"gift": 2500})


def test_refunds_of_other_software_are_not_asked_after(box: Sandboxed, campaign: Campaign, days: Days) -> None:
    session = box.checkout(form=session_form(900) | {"metadata[gift]": ""}, replace=True)
    payment = box.control(f"sessions/{session['id']}/pay")["payment_intent"]
    box.control("refunds", payment_intent=payment, outcome="pending")
    days.run(0)
    assert not Lookup.objects.filter(kind="refund", next_try_at__isnull=False).exists()


# ---- money that was announced and went back


def test_a_debit_that_failed_leaves_both_books_equal(box: Sandboxed, campaign: Campaign, days: Days) -> None:
    gift, payment = begun(box, campaign)
    charge = announce(box, payment)
    days.run(0)
    with days.at(4):
        box.control(f"payments/{payment}/fail")
        take_back(box, charge)
        row = reconcile.run()
        assert (row.equal, row.differences, status(gift), sums()) == (True, [], "failed", {})
        assert judged(moved()) == ["out_and_back", "out_and_back"]


def test_a_debit_that_is_given_back_by_a_refund_is_compared_with_it(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    _, payment = begun(box, campaign)
    announce(box, payment)
    box.control(f"payments/{payment}/settle")
    days.run(0)
    refund = box.control("refunds", payment_intent=payment)
    with box.running.sandbox.store.transaction() as tx:
        movement = tx.get("balance_transaction", refund["balance_transaction"])
        assert movement
        tx.save(movement | {"type": "payment_failure_refund"})
    row = days.run(0.1)
    assert (row.differences, sums()) == ([], {"gift": 2500, "refund": -2500})
    row = days.run(9, since=days.begin - timedelta(days=9))
    assert (row.differences, judged(moved())) == ([], ["", ""])


def test_a_debit_that_is_given_back_without_a_refund_is_settled_by_an_adjustment(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    _, payment = begun(box, campaign)
    charge = announce(box, payment)
    box.control(f"payments/{payment}/settle")
    days.run(0)
    reference = take_back(box, charge)
    row = days.run(0.1)
    assert (causes(row), row.unexplained) == ({"unbooked_type": 1}, 1)
    day = timezone.now().date() - timedelta(days=1)
    record_adjustment(
        campaign=campaign, amount=-2500, day=day, reference=reference, reason="returned", user=make_staff()
    )
    row = days.run(0.2)
    assert (causes(row), row.unexplained) == ({"corrected": 1}, 0)


def movement(number: int, kind: str, amount: int, source: str) -> TransactionSeen:
    """A movement of the payment pi_1 that is kept here."""
    fact = TransactionSeen(
        transaction=f"txn_{number}",
        type=kind,
        source=source,
        payment="pi_1",
        amount=amount,
        fee=0,
        net=amount,
        currency="USD",
        exchange_rate="",
        created=NOON + timedelta(days=number),
        available_on=NOON,
        payout="",
    )
    settlements.record_transactions("stripe", [(fact, "", False)])
    return fact


def test_a_gift_stands_for_the_charge_of_its_payment_that_did_not_fail(campaign: Campaign) -> None:
    first, back = movement(1, "payment", 2500, "py_1"), movement(2, "payment_failure_refund", -2500, "py_1")
    assert judged([first, back]) == ["out_and_back", "out_and_back"]
    second = movement(3, "payment", 2500, "py_2")
    assert judged([first, back, second]) == ["out_and_back", "out_and_back", "missing_here"]
    confirm(make_gift(campaign, 2500), payment="pi_1")
    assert judged([first, back, second]) == ["out_and_back", "out_and_back", ""]
    back_too = movement(4, "payment_failure_refund", -2500, "py_2")
    assert judged([first, back, second, back_too]) == ["out_and_back", "out_and_back", "", "unbooked_type"]


def test_what_took_money_back_and_does_not_name_its_charge_is_of_the_first_one(campaign: Campaign) -> None:
    confirm(make_gift(campaign, 2500), payment="pi_1")
    first, back = movement(1, "payment", 2500, "py_1"), movement(2, "payment_failure_refund", -2500, "")
    second = movement(3, "payment", 2500, "py_2")
    assert judged([first, back, second]) == ["out_and_back", "out_and_back", ""]


@pytest.mark.parametrize("reference", ["re_1", "pyr_1"])
def test_a_refund_that_nothing_told_of_is_asked_for_as_one(campaign: Campaign, reference: str) -> None:
    comparison.judge("stripe", [movement(1, "payment_refund", -500, reference)])
    assert list(Lookup.objects.values_list("kind", "object_id")) == [("refund", reference)]

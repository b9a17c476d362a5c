"""The processor's own books: fees, balance transactions and payouts, kept for reconciliation and never counted."""

import itertools
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from donations import inbox, projections
from donations.models import BalanceTransaction, Campaign, Gift, InboxEvent, LedgerEntry, Lookup, MonthTotal, Payout
from tests.factories import (
    Event,
    charge_event,
    checkout_event,
    confirm,
    deliver,
    make_campaign,
    make_gift,
    movement,
    payout_event,
    refund_event,
    transaction_event,
)

pytestmark = pytest.mark.django_db
CHARGED = movement("txn_charge", 50000, fee=1480)


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def paid(campaign: Campaign) -> Gift:
    gift = make_gift(campaign)
    confirm(gift)
    return gift


def told(*events: Event) -> list[str]:
    for one in events:
        deliver(one)
        inbox.drain()
    rows = dict(InboxEvent.objects.values_list("event_id", "state"))
    return [rows[one["id"]] for one in events]


def asked_for() -> list[tuple[str, str]]:
    return list(Lookup.objects.order_by("kind", "object_id").values_list("kind", "object_id"))


def stored(model: Any = BalanceTransaction) -> dict[str, Any]:
    row: dict[str, Any] = model.objects.values().get()
    return row


# ---- fees


def test_a_charge_that_knows_its_transaction_has_it_looked_up_once(paid: Gift) -> None:
    assert told(charge_event(paid, "txn_charge", "charge.succeeded"), charge_event(paid, "txn_charge")) == [
        "processed",
        "processed",
    ]
    assert asked_for() == [("balance_transaction", "txn_charge")]


def test_a_charge_that_does_not_know_it_yet_needs_nothing(paid: Gift) -> None:
    assert told(charge_event(paid, None, "charge.succeeded")) == ["nothing"]


def test_a_fee_is_booked_beside_its_gift_and_lowers_no_bar(paid: Gift) -> None:
    assert told(transaction_event(paid, CHARGED)) == ["processed"]
    entry = LedgerEntry.objects.get(kind="fee")
    assert (entry.reference, entry.amount, entry.gift_id, entry.campaign_month) == (
        "txn_charge",
        -1480,
        paid.pk,
        "2024-11",
    )
    assert (MonthTotal.objects.get().raised, projections.drift()) == (50000, [])


def test_a_fee_is_in_the_currency_that_it_was_settled_in(paid: Gift) -> None:
    told(transaction_event(paid, movement("txn_charge", 46000, fee=1360, currency="eur", exchange_rate=0.92)))
    entry = LedgerEntry.objects.get(kind="fee")
    assert (entry.currency, entry.amount, stored()["exchange_rate"]) == ("EUR", -1360, "0.92")


def test_a_fee_that_is_given_back_is_positive(paid: Gift) -> None:
    told(transaction_event(paid, movement("txn_back", -50000, fee=-1480, type="refund")))
    assert LedgerEntry.objects.get(kind="fee").amount == 1480


def test_a_movement_without_a_fee_is_kept_and_books_none(paid: Gift) -> None:
    told(transaction_event(paid, movement("txn_refund", -50000, type="refund")))
    assert (LedgerEntry.objects.filter(kind="fee").count(), stored()["gift_id"]) == (0, paid.pk)


def test_the_refund_and_its_failure_have_their_transactions_looked_up(paid: Gift) -> None:
    refund = refund_event(paid, 100, balance_transaction="txn_refund", failure_balance_transaction={"id": "txn_failed"})
    told(refund)
    assert asked_for() == [("balance_transaction", "txn_failed"), ("balance_transaction", "txn_refund")]


def test_every_order_of_a_payment_and_its_fee_ends_in_one_state(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    events = [
        checkout_event(gift),
        charge_event(gift, "txn_charge"),
        transaction_event(gift, CHARGED),
        transaction_event(gift, CHARGED, payout="po_1"),
    ]
    found = set()
    for order in itertools.permutations(events):
        with transaction.atomic():
            told(*order)
            inbox.drain()
            entries = LedgerEntry.objects.order_by("kind").values_list("kind", "reference", "amount")
            kept = BalanceTransaction.objects.values_list("reference", "gift", "payout", "net")
            states = frozenset(InboxEvent.objects.values_list("state", flat=True))
            found.add((tuple(entries), tuple(kept), states))
            transaction.set_rollback(True)
    fee, payment = ("fee", "txn_charge", -1480), ("gift", f"pi_{gift.pk[5:]}", 50000)
    assert found == {((fee, payment), (("txn_charge", gift.pk, "po_1", 48520),), frozenset({"processed"}))}


def test_a_transaction_that_came_needs_no_looking_up(paid: Gift) -> None:
    told(charge_event(paid, "txn_charge"), transaction_event(paid, CHARGED))
    assert list(Lookup.objects.values_list("next_try_at", flat=True)) == [None]
    told(charge_event(paid, "txn_charge", "charge.succeeded"))
    assert Lookup.objects.count() == 1


def test_the_fee_of_a_payment_that_never_comes_ends_as_not_ours(campaign: Campaign) -> None:
    stranger = make_gift(campaign)
    assert told(transaction_event(stranger, CHARGED)) == ["waiting"]
    past = InboxEvent.objects.get()
    InboxEvent.objects.update(waiting_since=past.received_at - inbox.PATIENCE, next_try_at=past.received_at)
    inbox.drain()
    assert InboxEvent.objects.get().state == "foreign"
    # It was no proof that the payment is a stranger's: a refund of it still waits.
    assert told(refund_event(stranger, 100)) == ["waiting"]


def test_the_accounts_own_fee_is_kept_and_belongs_to_no_campaign(campaign: Campaign) -> None:
    own = movement("txn_own", -200, fee=0, type="stripe_fee")
    assert told(transaction_event(None, own)) == ["processed"]
    assert (stored()["gift_id"], LedgerEntry.objects.count()) == (None, 0)


def test_a_transaction_whose_net_is_wrong_is_for_a_person(paid: Gift) -> None:
    assert told(transaction_event(paid, CHARGED | {"net": 1})) == ["quarantined"]


def test_the_database_refuses_a_transaction_whose_net_is_wrong(paid: Gift) -> None:
    told(transaction_event(paid, CHARGED))
    with pytest.raises(IntegrityError, match="net_is_what_is_left"), transaction.atomic():
        BalanceTransaction.objects.update(net=1)


# ---- payouts


def test_a_payout_is_kept_with_its_amount_and_arrival(campaign: Campaign) -> None:
    assert told(payout_event("po_1", 48520)) == ["processed"]
    row = stored(Payout)
    assert (row["status"], row["amount"], row["currency"], row["reconciled"]) == ("paid", 48520, "USD", False)


def test_a_payout_may_fail_after_it_was_paid_in_any_order(campaign: Campaign) -> None:
    steps = [
        payout_event("po_1", 48520, status="pending", kind="payout.created"),
        payout_event("po_1", 48520, status="in_transit", kind="payout.updated"),
        payout_event("po_1", 48520),
        payout_event("po_1", 48520, status="failed", kind="payout.failed"),
    ]
    found = set()
    for order in itertools.permutations(steps):
        with transaction.atomic():
            told(*order)
            found.add(stored(Payout)["status"])
            transaction.set_rollback(True)
    assert found == {"failed"}


def test_several_news_of_a_payout_in_one_batch_are_one_payout(campaign: Campaign) -> None:
    deliver(payout_event("po_1", 48520, status="in_transit", kind="payout.updated"), payout_event("po_1", 48520))
    inbox.drain()
    assert stored(Payout)["status"] == "paid"


def test_what_a_payout_carried_is_looked_up_once_it_can_be_told(campaign: Campaign) -> None:
    done = {"kind": "payout.reconciliation_completed", "reconciliation_status": "completed"}
    told(payout_event("po_1", 48520))
    assert asked_for() == []
    told(payout_event("po_1", 48520, **done), payout_event("po_by_hand", 100, automatic=False, **done))
    assert asked_for() == [("payout", "po_1")]


def test_a_payout_may_take_from_our_bank(campaign: Campaign) -> None:
    told(payout_event("po_1", -1500))
    assert stored(Payout)["amount"] == -1500

"""The processor's own books: fees, balance transactions and payouts, kept for reconciliation and never counted."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from donations import inbox, invariants, projections, settlements
from donations.booking import fees
from donations.booking.books import Books, Item
from donations.models import BalanceTransaction, Campaign, Gift, InboxEvent, LedgerEntry, Lookup, MonthTotal, Payout
from donations.processors.base import Interpretation
from donations.processors.facts import PayoutChanged, TransactionSeen
from tests.factories import (
    NOON,
    charge_event,
    checkout_event,
    confirm,
    deliver,
    make_campaign,
    make_gift,
    movement,
    payout_event,
    refund_event,
    told,
    transaction_event,
)

pytestmark = pytest.mark.django_db
DECEMBER = datetime(2024, 12, 3, 12, tzinfo=UTC)
CHARGED = movement("txn_charge", 50000, fee=1480)


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def paid(campaign: Campaign) -> Gift:
    gift = make_gift(campaign)
    confirm(gift)
    return gift


def seen(**fields: Any) -> TransactionSeen:
    """What the processor tells of a movement on our balance."""
    names = {"transaction": "txn_1", "type": "charge", "source": "ch_1", "payment": "", "payout": ""}
    money = {"amount": 100, "fee": 3, "net": 97, "currency": "USD", "exchange_rate": ""}
    return TransactionSeen(**({**names, **money, "created": NOON, "available_on": NOON} | fields))


def changed(**fields: Any) -> PayoutChanged:
    """What the processor tells of a payout."""
    common = {"payout": "po_1", "status": "paid", "amount": 97, "currency": "USD", "created": NOON, "arrival": NOON,
              "automatic": True, "reconciled": False, "occurred_at": NOON}  # fmt: skip
    return PayoutChanged(**(common | fields))


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


def test_a_fee_keeps_its_own_day_and_its_gifts_month(paid: Gift) -> None:
    told(transaction_event(paid, movement("txn_late", 50000, fee=1480, at=DECEMBER)))
    entry = LedgerEntry.objects.get(kind="fee")
    assert (entry.effective_at, entry.campaign_month) == (DECEMBER, "2024-11")
    assert (entry.settlement_amount, entry.settlement_currency) == (-1480, "USD")


def test_a_fee_is_in_the_currency_that_it_was_settled_in(paid: Gift) -> None:
    told(transaction_event(paid, movement("txn_charge", 46000, fee=1360, currency="eur", exchange_rate=0.92)))
    entry = LedgerEntry.objects.get(kind="fee")
    assert (entry.currency, entry.amount, stored()["exchange_rate"]) == ("EUR", -1360, "0.92")


def test_a_fee_that_is_given_back_is_positive(paid: Gift) -> None:
    told(transaction_event(paid, movement("txn_back", -50000, fee=-1480, type="refund")))
    assert LedgerEntry.objects.get(kind="fee").amount == 1480


def test_what_is_told_of_a_payment_is_filed_under_its_gift(paid: Gift) -> None:
    told(charge_event(paid, "txn_charge"), transaction_event(paid, CHARGED))
    assert set(InboxEvent.objects.values_list("gift_reference", flat=True)) == {paid.pk}


@pytest.mark.parametrize("livemode", [True, False])
def test_the_processors_own_books_keep_the_mode_that_it_told(livemode: bool) -> None:
    books = Books("stripe", {}, {}, {}, set())
    item = Item(InboxEvent(), Interpretation(livemode, NOON))
    fees.transaction(books, item, seen())
    fees.payout(books, item, changed())
    assert (books.transactions, books.payouts) == ([(seen(), "", livemode)], [(changed(), livemode)])


def test_a_movement_without_a_fee_is_kept_and_books_none(paid: Gift) -> None:
    told(transaction_event(paid, movement("txn_refund", -50000, type="refund")))
    assert (LedgerEntry.objects.filter(kind="fee").count(), stored()["gift_id"]) == (0, paid.pk)


def test_the_refund_and_its_failure_have_their_transactions_looked_up(paid: Gift) -> None:
    refund = refund_event(paid, 100, balance_transaction="txn_refund", failure_balance_transaction={"id": "txn_failed"})
    told(refund)
    assert asked_for() == [("balance_transaction", "txn_failed"), ("balance_transaction", "txn_refund")]


@pytest.mark.slow
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


@pytest.mark.parametrize("kind", ["settles", "charges"])
def test_the_fee_of_a_payment_that_never_comes_ends_as_not_ours(campaign: Campaign, kind: str) -> None:
    stranger = make_gift(campaign)
    asked = {"settles": transaction_event(stranger, CHARGED), "charges": charge_event(stranger, "txn_charge")}
    assert told(asked[kind]) == ["waiting"]
    past = InboxEvent.objects.get()
    assert past.reason == f"the payment that it {kind} is not booked here"
    InboxEvent.objects.update(waiting_since=past.received_at - inbox.PATIENCE, next_try_at=past.received_at)
    inbox.drain()
    assert InboxEvent.objects.get().state == "foreign"
    # It was no proof that the payment is a stranger's: a refund of it still waits.
    assert told(refund_event(stranger, 100)) == ["waiting"]


@pytest.mark.parametrize("payouts", [("", "po_1"), ("po_1", "")])
def test_of_two_that_tell_of_one_transaction_the_payout_is_kept(payouts: tuple[str, str]) -> None:
    settlements.record_transactions("stripe", [(seen(payout=payout), "", False) for payout in payouts])
    assert stored()["payout"] == "po_1"


def test_a_payout_that_is_told_later_is_added_and_one_that_is_known_stays() -> None:
    for payout in ("", "po_1", ""):
        settlements.record_transactions("stripe", [(seen(payout=payout), "", False)])
    assert stored()["payout"] == "po_1"


@pytest.mark.parametrize("at_once", [True, False])
def test_of_several_days_on_which_money_is_available_the_latest_stands_in_every_order(
    paid: Gift, at_once: bool
) -> None:
    later = CHARGED | {"available_on": CHARGED["available_on"] + 86_400}
    tellings = [transaction_event(paid, CHARGED), transaction_event(paid, later)]
    tellings.append(transaction_event(paid, CHARGED, payout="po_1"))
    found, findings = set(), []
    for order in itertools.permutations(tellings):
        with transaction.atomic():
            if at_once:
                deliver(*order)
                inbox.drain()
            else:
                told(*order)
            found.add((int(stored()["available_on"].timestamp()) - CHARGED["available_on"], stored()["payout"]))
            findings += list(invariants.check())
            transaction.set_rollback(True)
    assert (found, findings) == ({(86_400, "po_1")}, [])


def test_a_day_on_which_money_is_available_that_nobody_told_is_found(paid: Gift) -> None:
    told(transaction_event(paid, CHARGED))
    BalanceTransaction.objects.update(available_on=NOON)
    assert [each.invariant for each in invariants.check()] == ["transactions_are_as_told"]


def test_what_is_asked_for_is_due_at_once() -> None:
    settlements.ask("stripe", {("balance_transaction", "txn_1")})
    row = Lookup.objects.values().get()
    assert abs(row.pop("next_try_at") - timezone.now()) < timedelta(minutes=1)
    assert row == {"id": row["id"], "processor": "stripe", "kind": "balance_transaction", "object_id": "txn_1",
                   "cursor": "", "attempts": 0, "last_error": ""}  # fmt: skip


def test_what_is_known_is_not_asked_for_but_at_another_processor() -> None:
    settlements.record_transactions("stripe", [(seen(), "", False)])
    for processor in ("stripe", "other"):
        settlements.ask(processor, {("balance_transaction", "txn_1"), ("balance_transaction", "txn_2")})
    asked = Lookup.objects.order_by("processor", "object_id").values_list("processor", "object_id")
    assert list(asked) == [("other", "txn_1"), ("other", "txn_2"), ("stripe", "txn_2")]


def test_a_transaction_answers_its_own_lookup_and_no_other() -> None:
    others = [
        ("stripe", "balance_transaction", "txn_2"),
        ("stripe", "payout", "txn_1"),
        ("other", "balance_transaction", "txn_1"),
    ]
    for processor, kind, name in [("stripe", "balance_transaction", "txn_1"), *others]:
        settlements.ask(processor, {(kind, name)})
    settlements.record_transactions("stripe", [(seen(), "", False)])
    due = Lookup.objects.filter(next_try_at__isnull=False).values_list("processor", "kind", "object_id")
    assert sorted(due) == sorted(others)


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


@pytest.mark.slow
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


@pytest.mark.parametrize("statuses", [("in_transit", "paid"), ("paid", "in_transit")])
def test_of_several_news_of_a_payout_the_highest_stands(statuses: tuple[str, str]) -> None:
    settlements.record_payouts("stripe", [(changed(status=status), False) for status in statuses])
    assert stored(Payout)["status"] == "paid"


def test_of_one_status_the_later_arrival_stands() -> None:
    for arrival in (NOON, DECEMBER, NOON):
        settlements.record_payouts("stripe", [(changed(arrival=arrival), False)])
    assert stored(Payout)["arrival"] == DECEMBER


@pytest.mark.parametrize("told_so", [(True, False), (False, True)])
def test_a_payout_that_was_once_reconciled_stays_so(told_so: tuple[bool, bool]) -> None:
    for reconciled in told_so:
        settlements.record_payouts("stripe", [(changed(reconciled=reconciled), False)])
    assert stored(Payout)["reconciled"] is True


def test_payouts_are_told_apart_by_their_name_and_processor() -> None:
    two = [(changed(), False), (changed(payout="po_2", status="pending"), False)]
    for processor in ("stripe", "other", "stripe"):
        settlements.record_payouts(processor, two)
    assert Payout.objects.values_list("processor", "reference").distinct().count() == 4
    assert set(Payout.objects.values_list("reference", "status")) == {("po_1", "paid"), ("po_2", "pending")}


def test_what_a_payout_carried_is_looked_up_once_it_can_be_told(campaign: Campaign) -> None:
    done = {"kind": "payout.reconciliation_completed", "reconciliation_status": "completed"}
    told(payout_event("po_1", 48520))
    assert asked_for() == []
    told(payout_event("po_1", 48520, **done), payout_event("po_by_hand", 100, automatic=False, **done))
    assert asked_for() == [("payout", "po_1")]


def test_a_payout_may_take_from_our_bank(campaign: Campaign) -> None:
    told(payout_event("po_1", -1500))
    assert stored(Payout)["amount"] == -1500


def test_a_rate_that_an_earlier_version_wrote_otherwise_is_written_anew_when_read_again(
    campaign: Campaign,
) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    told(transaction_event(gift, movement("txn_1", 50000, exchange_rate=0.000061, currency="eur")))
    row = InboxEvent.objects.get(subject="txn_1")
    InboxEvent.objects.filter(pk=row.pk).update(facts={**(row.facts or {}), "exchange_rate": "6.1e-05"})
    BalanceTransaction.objects.update(exchange_rate="6.1e-05")
    inbox.replay(row)
    assert BalanceTransaction.objects.get().exchange_rate == "0.000061"
    assert {"transactions_are_as_told", "facts_are_what_the_body_says"}.isdisjoint(
        finding.invariant for finding in invariants.check()
    )

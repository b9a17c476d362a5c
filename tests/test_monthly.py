"""Monthly gifts: each paid invoice is a gift, in whatever order the processor tells of what belongs together."""

import itertools
import random
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection, transaction
from django.utils import timezone

from donations import inbox, outbox, projections, recurring
from donations.invariants.events import check_events
from donations.models import Campaign, Gift, InboxEvent, LedgerEntry, MonthTotal, OutboxMessage, RecurringGift
from tests.factories import (
    NOON,
    Event,
    deliver,
    event,
    invoice_event,
    invoice_paid_event,
    make_campaign,
    make_gift,
    make_recurring_gift,
    monthly_checkout_event,
    refund_event,
    subscription_event,
)

pytestmark = pytest.mark.django_db
DECEMBER = datetime(2024, 12, 18, 12, tzinfo=UTC)
NOBODY = {"customer_details": None}


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def monthly(campaign: Campaign) -> RecurringGift:
    """10 $ each month, of which nothing was heard yet."""
    return make_recurring_gift(campaign)


def first_month(monthly: RecurringGift) -> list[Event]:
    """What the processor tells when a monthly gift begins."""
    return [
        subscription_event(monthly, kind="customer.subscription.created"),
        monthly_checkout_event(monthly),
        invoice_event(monthly),
        invoice_paid_event(monthly),
    ]


def told(*events: Event) -> list[str]:
    """Have events delivered and processed, one after the other; the states that they end in."""
    for one in events:
        deliver(one)
        inbox.drain()
    try_again()
    rows = dict(InboxEvent.objects.values_list("event_id", "state"))
    return [rows[one["id"]] for one in events]


def try_again() -> None:
    """Have what waits looked at now."""
    InboxEvent.objects.filter(state="waiting").update(next_try_at=timezone.now())
    inbox.drain()


def booked() -> list[tuple[str, str, int, str]]:
    return sorted(LedgerEntry.objects.values_list("kind", "reference", "amount", "campaign_month"))


def raised(month: str) -> int:
    return sum(MonthTotal.objects.filter(month=month).values_list("raised", flat=True))


def final_state() -> tuple[Any, ...]:
    """All that deliveries left behind."""
    return (
        booked(),
        sorted(Gift.objects.values_list("pk", "frequency", "recurring_gift", "amount", "donor__email")),
        list(RecurringGift.objects.values_list("status", "subscription", "donor__email")),
        sorted(OutboxMessage.objects.values_list("kind", "subject_id")),
        sorted(InboxEvent.objects.values_list("event_id", "state")),
        projections.drift() + recurring.drift(),
    )


def outcome(*deliveries: Sequence[Event]) -> tuple[Any, ...]:
    """What these batches end in; afterwards all is as it was before them."""
    with transaction.atomic():
        for batch in deliveries:
            deliver(*batch)
            inbox.drain()
        try_again()
        found = final_state()
        transaction.set_rollback(True)
    return found


# ---- booking


@pytest.mark.slow
def test_a_first_month_is_booked_once_in_every_order_one_by_one_and_all_at_once(monthly: RecurringGift) -> None:
    events = first_month(monthly)
    natural = outcome(events)
    assert natural[0] == [("gift", "pi_in_1", 1000, "2024-11")]
    assert natural[2] == [("active", f"sub_{monthly.pk[10:]}", "reader@example.org")]
    assert [kind for kind, _ in natural[3]] == ["receipt"]
    assert {state for _, state in natural[4]} == {"processed"}
    assert natural[5] == []
    for order in itertools.permutations(events):
        assert outcome(order) == natural
        assert outcome(*([each] for each in order)) == natural
        assert outcome(*([each] for each in order), order) == natural, "delivered a second time"


def test_a_gift_carries_what_its_arrangement_was_asked_for(campaign: Campaign) -> None:
    fields = {"tier": "10.00", "fee_cover": 59, "public_name": "Ada", "message": "Go on", "source": "newsletter"}
    monthly = make_recurring_gift(campaign, **fields)
    told(*first_month(monthly))
    gift = Gift.objects.get()
    assert {name: getattr(gift, name) for name in fields} == fields
    assert (gift.frequency, gift.recurring_gift, gift.amount) == ("monthly", monthly, 1000)
    assert (LedgerEntry.objects.get().amount, raised("2024-11")) == (1059, 1000)


def test_a_renewal_counts_in_the_month_in_which_it_was_paid(monthly: RecurringGift) -> None:
    told(*first_month(monthly))
    renewal = [
        invoice_event(monthly, invoice="in_2", at=DECEMBER),
        invoice_paid_event(monthly, invoice="in_2", at=DECEMBER),
    ]
    assert told(*reversed(renewal)) == ["processed", "processed"]
    assert (raised("2024-11"), raised("2024-12")) == (1000, 1000)
    assert RecurringGift.objects.get().gifts.count() == 2


def test_an_invoice_that_was_changed_at_the_processor_is_booked_as_it_was_paid(campaign: Campaign) -> None:
    monthly = make_recurring_gift(campaign, fee_cover=59)
    told(*first_month(monthly)[:3], invoice_paid_event(monthly, amount_paid=2000))
    assert (booked(), raised("2024-11")) == ([("gift", "pi_in_1", 2000, "2024-11")], 2000)


def test_a_payment_in_another_currency_is_quarantined(monthly: RecurringGift) -> None:
    states = told(*first_month(monthly)[:3], invoice_paid_event(monthly, currency="eur"))
    assert (states[-1], booked()) == ("quarantined", [])
    assert "EUR" in InboxEvent.objects.get(state="quarantined").reason


def test_a_payment_of_the_other_mode_is_never_counted(campaign: Campaign, monthly: RecurringGift) -> None:
    live = make_recurring_gift(campaign, livemode=True)
    assert told(*first_month(live)) == ["wrong_mode"] * 4
    RecurringGift.objects.filter(pk=monthly.pk).update(livemode=True)
    assert told(*first_month(monthly))[-1] == "quarantined"
    assert booked() == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_invoice_of_somebody_else_on_the_same_account_is_foreign(
    monthly: RecurringGift, order: tuple[int, int]
) -> None:
    events = [invoice_event(monthly, parent=None), invoice_paid_event(monthly)]
    assert told(*(events[number] for number in order)) == ["foreign", "foreign"]
    assert booked() == []


@pytest.mark.parametrize(
    "payment",
    [
        {"type": "payment_record", "payment_record": "prec_1"},
        {"type": "out_of_band"},
        {"type": "charge", "charge": "ch_1"},
    ],
)
def test_an_invoice_that_was_paid_out_of_band_books_nothing(monthly: RecurringGift, payment: dict[str, str]) -> None:
    assert told(*first_month(monthly)[:3], invoice_paid_event(monthly, payment=payment))[-1] == "nothing"
    assert (booked(), Gift.objects.count()) == ([], 0)


def test_a_payment_whose_invoice_never_comes_is_asked_for_and_then_quarantined(monthly: RecurringGift) -> None:
    deliver(invoice_paid_event(monthly))
    inbox.drain()
    InboxEvent.objects.update(waiting_since=timezone.now() - timedelta(hours=73))
    try_again()
    assert InboxEvent.objects.get().state == "quarantined"


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_two_workers_book_each_payment_once(rng: random.Random) -> None:
    campaign = make_campaign()
    events = []
    for number in range(20):
        monthly = make_recurring_gift(campaign)
        invoice = f"in_{number}"
        events += [
            subscription_event(monthly),
            monthly_checkout_event(monthly),
            invoice_event(monthly, invoice=invoice),
            invoice_paid_event(monthly, invoice=invoice),
        ]
    rng.shuffle(events)
    deliver(*events)

    def work() -> None:
        while inbox.process_batch(7):
            pass
        connection.close()

    for _ in range(3):
        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        InboxEvent.objects.filter(state="waiting").update(next_try_at=timezone.now())
    assert set(InboxEvent.objects.values_list("state", flat=True)) == {"processed"}
    assert (len(booked()), raised("2024-11"), Gift.objects.count()) == (20, 20000, 20)
    assert projections.drift() + recurring.drift() == []


# ---- where it stands


@pytest.mark.slow
def test_the_end_outweighs_and_otherwise_the_later_word_stands_in_every_order(monthly: RecurringGift) -> None:
    hours = [NOON + timedelta(hours=number) for number in range(4)]
    life = [
        subscription_event(monthly, "active", "customer.subscription.created", at=hours[0]),
        subscription_event(monthly, "past_due", at=hours[1]),
        subscription_event(monthly, "canceled", at=hours[2]),
        subscription_event(monthly, "active", at=hours[3]),
    ]
    for order in itertools.permutations(life):
        assert outcome(order)[2][0][0] == outcome(*([each] for each in order))[2][0][0] == "canceled"
    for order in itertools.permutations(life[:2]):
        assert outcome(order)[2][0][0] == "past_due"


@pytest.mark.parametrize("status", ["active", "past_due", "unpaid", "paused", "canceled", "incomplete_expired"])
def test_a_status_is_kept_as_the_processor_has_it(monthly: RecurringGift, status: str) -> None:
    told(subscription_event(monthly, status))
    assert RecurringGift.objects.get().status == status


def test_one_whose_invoices_are_held_back_is_paused(monthly: RecurringGift) -> None:
    told(subscription_event(monthly, pause_collection={"behavior": "void"}))
    assert RecurringGift.objects.get().status == "paused"


def test_an_end_that_the_donor_asked_for_is_known_and_can_be_taken_back(monthly: RecurringGift) -> None:
    told(subscription_event(monthly, cancel_at=int(DECEMBER.timestamp())))
    assert RecurringGift.objects.get().cancel_at == DECEMBER
    told(subscription_event(monthly, at=NOON + timedelta(minutes=1)))
    assert RecurringGift.objects.get().cancel_at is None


# ---- mail


def letters() -> list[str]:
    """The subjects of what was sent by now."""
    outbox.send_due()
    return [message.subject for message in mail.outbox]


def test_a_donor_who_is_told_only_after_the_first_gift_gets_its_receipt(monthly: RecurringGift) -> None:
    created, session, invoice, paid = first_month(monthly)
    told(created, invoice, paid)
    assert letters() == []
    told(session)
    letters()
    [letter] = mail.outbox
    assert (Gift.objects.get().donor, letter.to) == (RecurringGift.objects.get().donor, ["reader@example.org"])
    assert "monthly gift" in letter.subject
    assert f"/manage/{monthly.pk}:" in letter.body


def test_a_receipt_of_a_monthly_gift_tells_the_fee_cover_apart(campaign: Campaign) -> None:
    told(*first_month(make_recurring_gift(campaign, fee_cover=61)))
    letters()
    [letter] = mail.outbox
    assert "We received 10.61 $ for “" in letter.body
    assert "your monthly gift of 10 $,\nand 0.61 $ that you added for the payment service's fee." in letter.body


def renewal_fails(monthly: RecurringGift, kind: str, number: int = 1) -> Event:
    return invoice_event(monthly, f"invoice.payment_{kind}", invoice="in_2", at=DECEMBER + timedelta(days=number))


@pytest.mark.parametrize(("kind", "words"), [("failed", "did not pay"), ("action_required", "wants you to confirm")])
def test_trouble_reaches_the_donor_once_an_invoice(monthly: RecurringGift, kind: str, words: str) -> None:
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER))
    told(*(renewal_fails(monthly, kind, number) for number in range(3)))
    assert len(letters()) == 2, "a receipt, and one letter"
    told(renewal_fails(monthly, kind, 3))
    assert len(letters()) == 2
    letter = mail.outbox[1]
    assert words in letter.body
    assert "https://pay.example.org/in_2" in letter.body
    assert f"/manage/{monthly.pk}:" in letter.body
    assert "10 $" in letter.body


DUE = {"amount_due": 2000, "currency": "usd"}


@pytest.mark.parametrize("kind", ["failed", "action_required"])
def test_a_letter_of_trouble_says_what_the_invoice_asks_for(campaign: Campaign, kind: str) -> None:
    monthly = make_recurring_gift(campaign, fee_cover=61)
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER))
    told(invoice_event(monthly, f"invoice.payment_{kind}", invoice="in_2", at=DECEMBER, **DUE))
    letters()
    assert "gift of 20 $ to" in mail.outbox[1].body
    assert "10.61" not in mail.outbox[1].body


@pytest.mark.parametrize("told_of_it", [{}, DUE | {"amount_due": 0}, DUE | {"amount_due": "x"}, DUE | {"currency": 1}])
def test_where_an_invoice_does_not_tell_what_is_due_the_letter_says_the_arrangements_amount(
    monthly: RecurringGift, told_of_it: dict[str, Any]
) -> None:
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER))
    told(invoice_event(monthly, "invoice.payment_failed", invoice="in_2", at=DECEMBER, **told_of_it))
    letters()
    assert "gift of 10 $ to" in mail.outbox[1].body


def test_an_invoice_that_an_earlier_version_stored_is_read_still_and_none_of_its_words_can_be_taken_away(
    monthly: RecurringGift,
) -> None:
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER))
    told(invoice_event(monthly, "invoice.payment_failed", invoice="in_2", at=DECEMBER, **DUE))
    row = InboxEvent.objects.get(subject="in_2")
    assert row.facts is not None
    assert list(check_events(Counter())) == []
    InboxEvent.objects.filter(pk=row.pk).update(facts=row.facts | {"amount_due": 1})
    assert len(list(check_events(Counter()))) == 1
    for gone in ("amount_due", "currency"):
        row.facts = {name: value for name, value in row.facts.items() if name != gone}
        row.save()
        found = [each.words for each in check_events(Counter())]
        assert found == ([] if gone == "currency" else ["its stored facts are not what its body says"])
    letters()
    assert "gift of 10 $ to" in mail.outbox[1].body


def test_of_an_invoice_that_was_paid_meanwhile_no_trouble_is_told(monthly: RecurringGift) -> None:
    told(*first_month(monthly), invoice_event(monthly, invoice="in_2", at=DECEMBER))
    told(invoice_paid_event(monthly, invoice="in_2", at=DECEMBER), renewal_fails(monthly, "failed"))
    letters()
    letter = OutboxMessage.objects.get(kind="unpaid")
    assert (letter.state, letter.last_error) == ("unneeded", "it was paid in the meantime")
    assert [message for message in mail.outbox if "could not be collected" in message.subject] == []


def test_while_the_first_payment_is_open_the_payment_page_tells_the_donor(monthly: RecurringGift) -> None:
    told(monthly_checkout_event(monthly), subscription_event(monthly, "incomplete"), renewal_fails(monthly, "failed"))
    assert letters() == []
    assert OutboxMessage.objects.get().state == "unneeded"


def test_before_anything_is_told_of_the_subscription_the_payment_page_tells_the_donor(monthly: RecurringGift) -> None:
    told(monthly_checkout_event(monthly), renewal_fails(monthly, "action_required"))
    assert letters() == []


def test_a_refund_of_anothers_subscription_is_foreign_at_once(monthly: RecurringGift) -> None:
    theirs = event("invoice.paid", {"id": "in_9", "parent": None})
    payment = invoice_paid_event(monthly, payment="pi_9", invoice="in_9")
    assert told(theirs, payment, refund_event(make_gift(monthly.campaign), 500, payment="pi_9"))[2] == "foreign"


def test_a_foreign_invoice_that_fails_writes_to_nobody(monthly: RecurringGift) -> None:
    assert told(event("invoice.payment_failed", {"id": "in_9", "parent": None})) == ["foreign"]
    assert not OutboxMessage.objects.exists()

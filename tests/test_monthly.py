"""Monthly gifts: each paid invoice is a gift, in whatever order the processor tells of what belongs together."""

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import connection, transaction
from django.utils import timezone

from donations import inbox, invariants, outbox, projections, recurring
from donations.invariants.events import check_events
from donations.models import (
    Campaign,
    Donor,
    Gift,
    InboxEvent,
    LedgerEntry,
    Lookup,
    MonthTotal,
    OutboxMessage,
    RecurringGift,
)
from tests.factories import (
    NOON,
    Event,
    charge_event,
    confirm,
    deliver,
    dispute_event,
    event,
    invoice_event,
    invoice_paid_event,
    items_of,
    lines_of,
    make_campaign,
    make_gift,
    make_recurring_gift,
    make_staff,
    monthly_checkout_event,
    movement,
    refund_event,
    subscription_event,
    transaction_event,
)
from tests.plans import explained, through_all

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


def told_of(one: Event) -> tuple[str, str, str]:
    """What the inbox says of an event: its state, why, and the gift or monthly gift that it is about."""
    row = InboxEvent.objects.get(event_id=one["id"])
    return row.state, row.reason, row.gift_reference


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
    assert (gift.page, gift.checkout_url, gift.refusal) == ("", "", "")
    assert (LedgerEntry.objects.get().amount, raised("2024-11")) == (1059, 1000)


def test_the_reference_of_a_monthly_payments_gift_is_the_same_in_every_version(monthly: RecurringGift) -> None:
    told(*first_month(monthly))
    assert Gift.objects.get().pk == "gift_d08286641ed942c8d0c9c052d0"


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


# ---- a price that was changed at the processor


def divided() -> list[tuple[int, int, int]]:
    """Each gift with its fee cover, and what of it counts."""
    entries = LedgerEntry.objects.order_by("pk").select_related("gift")
    return [(entry.gift.amount, entry.gift.fee_cover, entry.goal_amount) for entry in entries if entry.gift]


@pytest.fixture
def covered(campaign: Campaign) -> RecurringGift:
    """10 $ each month, and 0.59 $ for the fee."""
    return make_recurring_gift(campaign, fee_cover=59)


@pytest.mark.parametrize(
    ("amount", "lines", "gift", "cover"),
    [
        (2059, lines_of(2000, 59), 2000, 59),
        (2059, lines_of(59, 2000), 2000, 59),
        (2559, lines_of(-500, 1000, 59, 2000), 2500, 59),  # the old price is given back for the rest of the month
        (1159, lines_of(1000, 159), 1159, 0),  # the cover was changed: all is the gift
        (1000, lines_of(1000), 1000, 0),
        (1000, lines_of(1000, 0), 1000, 0),
        (59, lines_of(0, 59), 59, 0),
        (2059, lines_of(2000, 59) | {"has_more": True}, 2059, 0),
        (2059, None, 2059, 0),
        (1059, lines_of(1000, 59), 1000, 59),
        (1059, lines_of(900, 159), 1000, 59),  # of the sum that was asked for it is known
    ],
)
def test_of_a_changed_invoice_the_line_that_is_as_it_was_is_the_fee_cover(
    covered: RecurringGift, amount: int, lines: Any, gift: int, cover: int
) -> None:
    told(invoice_event(covered, status="paid", lines=lines), invoice_paid_event(covered, amount_paid=amount))
    assert divided() == [(gift, cover, gift)]
    assert raised("2024-11") == gift, "the fee cover never counts"
    assert LedgerEntry.objects.get().amount == amount, "nothing of what was paid is lost"
    assert list(invariants.check()) == []


@pytest.mark.parametrize(
    "less", [{"total": 1800}, {"starting_balance": -259}, {"total": 1900, "starting_balance": -100}]
)
def test_with_a_discount_or_a_balance_all_is_the_gift(covered: RecurringGift, less: dict[str, int]) -> None:
    """Which part it took is not told."""
    told(invoice_event(covered, status="paid", lines=lines_of(2000, 59), **less))
    told(invoice_paid_event(covered, amount_paid=1800))
    assert divided() == [(1800, 0, 1800)]


@pytest.mark.parametrize(
    ("parts", "covers"),
    [
        ((1029, 1030), [30, 30]),
        ((2058, 1), [59, 0]),  # some of each is the gift
        ((59, 2000), [2, 58]),
        ((1059, 1000), [59, 29]),  # as much as its checkout asked for: with all of its cover
    ],
)
def test_each_payment_of_a_part_has_its_share_of_the_cover_and_none_of_that_counts(
    covered: RecurringGift, parts: tuple[int, int], covers: list[int]
) -> None:
    """In every order, of an invoice that is told before, between or after."""
    invoice = invoice_event(covered, "invoice.finalized", status="open", lines=lines_of(2000, 59))
    paid = [invoice_paid_event(covered, payment=f"pi_{part}", id=f"inpay_{part}", amount_paid=part) for part in parts]
    expected = sorted((part - cover, cover, part - cover) for part, cover in zip(parts, covers, strict=True))
    for order in itertools.permutations([invoice, *paid]):
        assert sorted(changed_outcome(order)[0]) == expected
    told(invoice, *paid)
    assert raised("2024-11") == sum(parts) - sum(covers) <= 2000
    assert sum(LedgerEntry.objects.values_list("amount", flat=True)) == 2059
    assert list(invariants.check()) == projections.drift() == recurring.drift() == []


def test_a_credit_note_between_two_news_of_an_invoice_divides_nothing_otherwise(covered: RecurringGift) -> None:
    """It changes what is due and not what the invoice comes to."""
    whole = {"lines": lines_of(2000, 59), "total": 2059, "starting_balance": 0}
    before = invoice_event(covered, "invoice.finalized", status="open", amount_due=2059, **whole)
    after = invoice_event(covered, "invoice.paid", status="paid", amount_due=1800, **whole)
    paid = invoice_paid_event(covered, amount_paid=1800)
    assert changed_outcome([before, paid, after])[0] == changed_outcome([after, paid, before])[0] == [(1748, 52, 1748)]


def test_a_line_that_looks_like_the_cover_of_another_gift_is_none(monthly: RecurringGift) -> None:
    told(invoice_event(monthly, status="paid", lines=lines_of(2000, 59)), invoice_paid_event(monthly, amount_paid=2059))
    assert divided() == [(2059, 0, 2059)]


@pytest.mark.slow
def test_a_changed_price_ends_the_same_in_every_order(covered: RecurringGift) -> None:
    """While the invoice is a draft it may still change, so its payment waits for the invoice as it was at last."""
    asks = {"items": items_of(2000, 59)}
    events = [
        subscription_event(covered, items=items_of(1000, 59)),
        subscription_event(covered, at=NOON + timedelta(hours=1), **asks),
        invoice_event(covered, "invoice.created", status="draft", lines=lines_of(1000, 59)),
        invoice_event(covered, "invoice.finalized", status="open", lines=lines_of(2000, 59)),
        invoice_paid_event(covered, amount_paid=2059),
    ]
    outcomes = {json.dumps(changed_outcome(order), default=str) for order in itertools.permutations(events)}
    outcomes |= {json.dumps(changed_outcome([one], rest), default=str) for one, rest in split_off_each(events)}
    assert len(outcomes) == 1
    [found] = outcomes
    assert json.loads(found) == [[[2000, 59, 2000]], [[2000, 59, "USD", "month"]], ["processed"] * 5, []]


def split_off_each(events: list[Event]) -> list[tuple[Event, list[Event]]]:
    return [(one, [other for other in events if other is not one]) for one in events]


def changed_outcome(*deliveries: Sequence[Event]) -> list[Any]:
    with transaction.atomic():
        for batch in deliveries:
            for one in batch:
                deliver(one)
                inbox.drain()
        try_again()
        now = RecurringGift.objects.values_list("now_amount", "now_fee_cover", "now_currency", "now_interval")
        states = list(InboxEvent.objects.values_list("state", flat=True))
        found = [divided(), list(now), states, [str(each) for each in recurring.drift() + projections.drift()]]
        transaction.set_rollback(True)
    return found


def test_a_payment_of_which_a_draft_alone_is_known_asks_for_its_invoice_and_staff_need_not_wait(
    covered: RecurringGift,
) -> None:
    draft = invoice_event(covered, "invoice.created", status="draft", lines=lines_of(1000, 59))
    states = told(draft, invoice_paid_event(covered, amount_paid=2059))
    assert (states, Gift.objects.count(), Lookup.objects.count()) == (["processed", "waiting"], 0, 0)
    waits = InboxEvent.objects.get(state="waiting")
    assert (waits.reason, waits.gift_reference) == ("its invoice is known here as a draft alone", covered.pk)
    for _ in range(3):
        try_again()
    assert list(Lookup.objects.values_list("kind", "object_id")) == [("invoice", "in_1")]
    InboxEvent.objects.filter(state="waiting").update(waiting_since=timezone.now() - timedelta(hours=73))
    try_again()
    inbox.accept(InboxEvent.objects.get(state="quarantined"), user=make_staff(superuser=True))
    assert divided() == [(2000, 59, 2000)]


@pytest.mark.parametrize("known", ["nothing", "a draft"])
def test_a_payment_in_quarantine_for_want_of_its_invoice_is_booked_when_that_is_told(
    covered: RecurringGift, known: str
) -> None:
    if known == "a draft":
        told(invoice_event(covered, "invoice.created", status="draft", lines=lines_of(1000, 59)))
    payment = invoice_paid_event(covered, amount_paid=2059)
    told(payment)
    InboxEvent.objects.filter(state="waiting").update(waiting_since=timezone.now() - timedelta(hours=73))
    try_again()
    assert told_of(payment)[0] == "quarantined"
    told(invoice_event(covered, status="paid", lines=lines_of(2000, 59)))
    assert (told_of(payment)[0], divided()) == ("processed", [(2000, 59, 2000)])
    assert list(invariants.check()) == []


def test_one_batch_that_tells_all_of_an_invoice_books_its_payment_at_once(covered: RecurringGift) -> None:
    unknown = invoice_paid_event(covered, invoice="in_0")
    final = invoice_event(covered, "invoice.finalized", status="open", lines=lines_of(2000, 59))
    draft = invoice_event(covered, "invoice.created", status="draft", lines=lines_of(1000, 59))
    deliver(unknown, final, draft, invoice_paid_event(covered, amount_paid=2059))
    inbox.drain()
    assert divided() == [(2000, 59, 2000)]
    waits = InboxEvent.objects.get(state="waiting")
    assert (waits.subject, waits.reason, waits.gift_reference) == ("in_0", "its invoice is not known here", "")
    for _ in range(3):
        try_again()
    assert list(Lookup.objects.values_list("kind", "object_id")) == [("invoice", "in_0")]


def test_a_draft_that_comes_late_does_not_hide_the_invoice_that_is_final(covered: RecurringGift) -> None:
    told(invoice_event(covered, status="paid", lines=lines_of(2000, 59)))
    draft = invoice_event(covered, "invoice.created", status="draft", lines=lines_of(1000, 59))
    deliver(draft, invoice_paid_event(covered, amount_paid=2059))
    inbox.drain()
    assert divided() == [(2000, 59, 2000)]


@pytest.mark.parametrize("amount", [1059, 1000])
def test_no_payment_waits_for_the_lines_of_its_invoice_where_nothing_hangs_on_them(
    campaign: Campaign, amount: int
) -> None:
    monthly = make_recurring_gift(campaign, fee_cover=59 if amount == 1059 else 0)
    draft = invoice_event(monthly, "invoice.created", status="draft")
    assert told(draft, invoice_paid_event(monthly, amount_paid=amount)) == ["processed", "processed"]


def test_an_invoice_whose_lines_an_earlier_version_did_not_read_is_divided_as_that_version_did(
    covered: RecurringGift,
) -> None:
    told(invoice_event(covered, status="paid", lines=lines_of(2000, 59)))
    row = InboxEvent.objects.get()
    assert row.facts is not None
    InboxEvent.objects.update(facts={name: value for name, value in row.facts.items() if name != "amounts"})
    assert told(invoice_paid_event(covered, amount_paid=2059)) == ["processed"]
    assert divided() == [(2059, 0, 2059)]
    assert list(invariants.check()) == []


def test_a_payment_in_another_currency_is_quarantined(monthly: RecurringGift) -> None:
    states = told(*first_month(monthly)[:3], invoice_paid_event(monthly, currency="eur"))
    assert (states[-1], booked()) == ("quarantined", [])
    assert "EUR" in InboxEvent.objects.get(state="quarantined").reason


def test_a_payment_of_the_other_mode_is_never_counted(campaign: Campaign, monthly: RecurringGift) -> None:
    live = make_recurring_gift(campaign, livemode=True)
    assert told(*first_month(live)) == ["wrong_mode"] * 4
    RecurringGift.objects.filter(pk=monthly.pk).update(livemode=True)
    paid = first_month(monthly)
    assert told(*paid)[-1] == "quarantined"
    assert told_of(paid[-1]) == (
        "quarantined",
        "it cannot be accepted: its monthly gift is of the other mode",
        monthly.pk,
    )
    assert booked() == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_invoice_of_somebody_else_on_the_same_account_is_foreign(
    monthly: RecurringGift, order: tuple[int, int]
) -> None:
    events = [invoice_event(monthly, parent=None), invoice_paid_event(monthly)]
    assert told(*(events[number] for number in order)) == ["foreign", "foreign"]
    assert told_of(events[1]) == ("foreign", "its invoice is of no monthly gift of ours", "")
    assert booked() == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))))
def test_an_invoice_that_was_told_once_without_its_monthly_gift_is_ours_where_it_was_told_with_it(
    monthly: RecurringGift, order: tuple[int, ...]
) -> None:
    seen = [invoice_event(monthly, parent=None), invoice_event(monthly)]
    told(first_month(monthly)[0], *(seen[number] for number in order))
    assert told(invoice_paid_event(monthly)) == ["processed"]


def test_what_is_told_of_a_monthly_gift_that_is_not_known_here_waits_for_it(monthly: RecurringGift) -> None:
    events = first_month(monthly)[1:]
    RecurringGift.objects.all().delete()
    assert told(*events) == ["waiting"] * 3
    assert {told_of(each) for each in events} == {("waiting", "its monthly gift is not known here", monthly.pk)}
    make_recurring_gift(monthly.campaign, reference=monthly.pk)
    try_again()
    assert booked() == [("gift", "pi_in_1", 1000, "2024-11")]


# ---- one that is not known here, as after a restored backup


def lost(monthly: RecurringGift, *events: Event) -> dict[str, InboxEvent]:
    """What was told of a monthly gift that is not here, quarantined, by the kind of its facts."""
    RecurringGift.objects.all().delete()
    told(*events)
    InboxEvent.objects.filter(state="waiting").update(waiting_since=timezone.now() - timedelta(hours=73))
    try_again()
    assert set(InboxEvent.objects.values_list("state", flat=True)) == {"quarantined"}
    assert list(invariants.check()) == []
    return {(row.facts or {})["kind"]: row for row in InboxEvent.objects.all()}


def refusal_of(row: InboxEvent) -> str:
    with pytest.raises(inbox.CannotDecide) as refusal:
        inbox.accept(row, user=User.objects.first() or make_staff(superuser=True))
    return str(refusal.value)


@pytest.mark.parametrize("items", [items_of(1000, 59), items_of(59, 1000)])
def test_staff_who_accept_its_subscription_make_a_monthly_gift_that_is_not_known(
    covered: RecurringGift, items: dict[str, Any]
) -> None:
    asked = [covered.pk, covered.campaign_id, 1000, 59, "USD", False, "stripe"]
    began = first_month(covered)
    rows = lost(covered, subscription_event(covered, items=items), *began[1:])
    # Meanwhile another month was paid, of which everything waits.
    later = [invoice_event(covered, invoice="in_2"), invoice_paid_event(covered, invoice="in_2", at=DECEMBER)]
    assert told(*later).count("waiting") == 2
    staff = make_staff(superuser=True)
    inbox.accept(rows["recurring"], user=staff, reason="lost with the backup")
    made = RecurringGift.objects.get()
    assert [
        made.pk,
        made.campaign_id,
        made.amount,
        made.fee_cover,
        made.currency,
        made.livemode,
        made.processor,
    ] == asked
    assert (made.status, made.source, made.tier) == ("active", "accepted", "custom")
    inbox.drain()
    assert (booked(), divided()) == ([("gift", "pi_in_2", 1059, "2024-12")], [(1000, 59, 1000)]), "what waited"
    for kind in ("invoice", "invoice_paid", "monthly_checkout"):
        inbox.accept(rows[kind], user=staff)
    assert (len(booked()), raised("2024-11"), raised("2024-12")) == (2, 1000, 1000)
    assert {gift.donor.email for gift in Gift.objects.all() if gift.donor} == {"reader@example.org"}
    assert list(invariants.check()) == recurring.drift() == projections.drift() == []


def test_what_hangs_on_a_subscription_that_is_not_known_says_what_to_accept_first(covered: RecurringGift) -> None:
    rows = lost(covered, *first_month(covered)[1:])
    first = "It could not be booked: its monthly gift is not known here: accept an event of its subscription first."
    assert {refusal_of(rows["invoice"]), refusal_of(rows["monthly_checkout"])} == {first}
    assert refusal_of(rows["invoice_paid"]).endswith(
        "its invoice is not known here: accept an event of its invoice first."
    )
    assert all(row.may_be_accepted for row in InboxEvent.objects.all())
    assert not RecurringGift.objects.exists()


def test_the_subscription_of_what_is_not_known_here_is_asked_for(monthly: RecurringGift) -> None:
    RecurringGift.objects.all().delete()
    told(invoice_event(monthly), monthly_checkout_event(monthly))
    assert not Lookup.objects.exists()
    for _ in range(3):
        try_again()
    assert list(Lookup.objects.values_list("kind", "object_id")) == [("subscription", f"sub_{monthly.pk[10:]}")]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "what it asks is not told, or is no fixed sum"),
        ({"items": items_of(None)}, "what it asks is not told, or is no fixed sum"),
        ({"items": items_of(0)}, "what it asks is not told, or is no fixed sum"),
        ({"items": items_of(1000, 59), "metadata": {}}, "which part of what it asks is the fee cover is not told"),
        ({"items": items_of(1000), "metadata": {"campaign": "nowhere"}}, "its campaign is not known here"),
        (
            {"items": items_of(1000, currency="eur"), "currency": "eur"},
            "its campaign is not known here, or is in another",
        ),
    ],
)
def test_a_subscription_that_does_not_tell_enough_makes_nothing_and_says_what_to_do(
    covered: RecurringGift, fields: dict[str, Any], why: str
) -> None:
    if "metadata" in fields:
        fields = fields | {"metadata": {"recurring_gift": covered.pk} | fields["metadata"]}
    row = lost(covered, subscription_event(covered, **fields))["recurring"]
    refusal = refusal_of(row)
    assert refusal.startswith(f"It could not be booked: its monthly gift is not known here, and {why}")
    assert refusal.endswith("Enter what it brings as offline gifts.")
    assert (row.may_be_accepted, row.state, RecurringGift.objects.count()) == (False, "quarantined", 0)


def test_a_monthly_gift_that_is_made_anew_belongs_to_the_campaign_that_it_names_or_to_the_default_one(
    covered: RecurringGift,
) -> None:
    news, at = make_campaign("news"), {"items": items_of(1000)}
    one, other = make_recurring_gift(news), make_recurring_gift(news)
    nameless = subscription_event(other, **at, metadata={"recurring_gift": other.pk})
    lost(covered, subscription_event(one, **at), nameless)
    for row in InboxEvent.objects.all():
        inbox.accept(row, user=make_staff(superuser=True))
    assert dict(RecurringGift.objects.values_list("pk", "campaign")) == {one.pk: "news", other.pk: "general"}


def test_an_accepted_subscription_of_a_monthly_gift_that_is_known_changes_nothing_that_was_asked(
    covered: RecurringGift,
) -> None:
    event = subscription_event(covered, items=items_of(2000, 59))
    deliver(event)
    InboxEvent.objects.update(decision="accept", decided_by=make_staff(), decided_at=timezone.now())
    inbox.drain()
    found = RecurringGift.objects.get()
    assert (found.amount, found.source, found.now_amount) == (1000, "", 2000)


def test_another_campaign_in_the_metadata_of_a_subscription_is_nothing_wrong(covered: RecurringGift) -> None:
    """They can be changed in the processor's dashboard."""
    make_campaign("news")
    told(subscription_event(covered, metadata={"recurring_gift": covered.pk, "campaign": "news"}))
    inbox.erase_bodies(InboxEvent.objects.all())
    assert (list(invariants.check()), RecurringGift.objects.get().campaign_id) == ([], "general")


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


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_payment_is_not_set_aside_while_another_worker_hears_whose_its_invoice_is(monthly: RecurringGift) -> None:
    told(subscription_event(monthly), before_its_metadata(monthly))
    deliver(invoice_event(monthly))
    paid = invoice_paid_event(monthly)
    worker = threading.Thread(target=lambda: (deliver(paid), inbox.drain(), connection.close()))
    with transaction.atomic():
        inbox.drain()  # it has looked for the payment, and nobody sees yet what it heard
        worker.start()
        until_a_worker_waits_for_a_lock()
    worker.join(60)
    try_again()
    assert (told_of(paid)[0], len(booked())) == ("processed", 1)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_gifts_whose_donor_is_told_late_are_locked_in_the_one_order_of_all_gifts(monthly: RecurringGift) -> None:
    told(subscription_event(monthly), invoice_event(monthly), invoice_paid_event(monthly))
    first, last = monthly.gifts.get(), make_gift(monthly.campaign, reference="gift_zzz")
    confirm(last)
    deliver(monthly_checkout_event(monthly))
    deliver(refund_event(last, 100))
    worker = threading.Thread(target=lambda: (inbox.drain(), connection.close()))
    with transaction.atomic():
        Gift.objects.select_for_update().get(pk=first.pk)
        worker.start()
        until_a_worker_waits_for_a_lock()
        # Whoever waits for the first has not locked the last: two batches never hold what the other one wants.
        assert Gift.objects.select_for_update(nowait=True).get(pk=last.pk)
    worker.join(60)
    assert Gift.objects.get(pk=first.pk).donor is not None


def until_a_worker_waits_for_a_lock() -> None:
    with connection.cursor() as cursor:
        for _ in range(1000):
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone() != (0,):
                return
            time.sleep(0.01)
    raise AssertionError("no worker waits for a lock")


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


def test_a_donor_who_is_told_late_gets_no_gift_of_others(campaign: Campaign, monthly: RecurringGift) -> None:
    created, session, invoice, paid = first_month(monthly)
    other = make_recurring_gift(campaign)
    of_other = {"invoice": "in_2"}
    told(created, invoice, paid, subscription_event(other, kind="customer.subscription.created"))
    told(invoice_event(other, **of_other), invoice_paid_event(other, **of_other))
    somebody = Donor.objects.create(email="another@example.org")
    elsewhere = make_gift(campaign, recurring_gift=monthly, donor=somebody)
    told(session)
    reader = Donor.objects.get(email="reader@example.org")
    assert [gift.donor for gift in monthly.gifts.exclude(pk=elsewhere.pk)] == [reader]
    assert [gift.donor for gift in other.gifts.all()] == [None]
    assert Gift.objects.get(pk=elsewhere.pk).donor == somebody


def test_a_receipt_of_a_monthly_gift_tells_the_fee_cover_apart(campaign: Campaign) -> None:
    told(*first_month(make_recurring_gift(campaign, fee_cover=61)))
    letters()
    [letter] = mail.outbox
    assert "We received 10.61 $ for “" in letter.body
    assert "your monthly gift of 10 $,\nand 0.61 $ that you added for the payment service's fee." in letter.body


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (None, "The same amount is taken each month."),
        (items_of(1000, 61), "The same amount is taken each month."),
        (items_of(2000, 61), "As it stands now, 20.61 $ is taken each month."),
        (items_of(1000, 61, interval="year"), "As it stands now, 10.61 $ is taken each year."),
        (items_of(3000, interval_count=3), "As it stands now, 30 $ is taken every 3 months."),
    ],
)
def test_a_receipt_of_a_monthly_gift_says_what_is_taken_from_now_on(campaign: Campaign, items: Any, words: str) -> None:
    monthly = make_recurring_gift(campaign, fee_cover=61)
    told(*first_month(monthly), subscription_event(monthly, at=NOON + timedelta(days=1), items=items))
    letters()
    [letter] = mail.outbox
    assert f"{words} To change the card" in letter.body


@pytest.mark.parametrize(
    ("status", "fields", "words"),
    [
        ("canceled", {}, "Your monthly gift has ended: nothing more is taken.\n\nus"),
        ("paused", {}, "Your monthly gift is paused: nothing is taken until it goes on. To change"),
        # Late in the evening of the 17th where the campaign is.
        (
            "active",
            {"cancel_at": int(datetime(2024, 12, 18, 3, tzinfo=UTC).timestamp())},
            "ends on 17 December 2024: nothing is",
        ),
    ],
)
def test_a_receipt_of_a_monthly_gift_that_ends_says_so(
    monthly: RecurringGift, status: str, fields: dict[str, Any], words: str
) -> None:
    told(*first_month(monthly), subscription_event(monthly, status, at=NOON + timedelta(days=1), **fields))
    letters()
    [letter] = mail.outbox
    assert words in letter.body
    assert "The same amount" not in letter.body
    assert ("/manage/" in letter.body) == (status != "canceled")


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


def test_where_neither_the_invoice_nor_the_arrangement_is_as_it_began_the_letter_says_what_is_asked_now(
    monthly: RecurringGift,
) -> None:
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER, items=items_of(2000)))
    told(renewal_fails(monthly, "failed"))
    letters()
    assert "gift of 20 $ to" in mail.outbox[1].body


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
    with explained("donations_inboxevent") as found:
        letters()
    letter = OutboxMessage.objects.get(kind="unpaid")
    assert (letter.state, letter.last_error) == ("unneeded", "it was paid in the meantime")
    assert through_all(found) == []
    assert [message for message in mail.outbox if "could not be collected" in message.subject] == []


OPEN = {"status": "open", **DUE}


def test_who_was_not_told_of_a_failure_before_the_gift_ended_is_told_of_both(monthly: RecurringGift) -> None:
    told(*first_month(monthly), renewal_fails(monthly, "failed"), renewal_fails(monthly, "action_required"))
    told(subscription_event(monthly, "canceled", at=DECEMBER + timedelta(days=2)))
    letters()
    [_, letter] = mail.outbox
    assert "did not pay this month's gift of 10 $" in letter.body
    assert "Your monthly gift has ended since: nothing more is asked of you." in letter.body
    assert "/give/general/" in letter.body
    for gone in ("may try again", "pay it now", "/manage/", "https://pay.example.org/in_2"):
        assert gone not in letter.body
    assert letter_of("action") == ("unneeded", "the monthly gift has ended in the meantime")


@pytest.mark.parametrize(
    ("status", "kind", "why"),
    [
        ("paid", "invoice.paid", "it was paid in the meantime"),
        ("void", "invoice.voided", "it was called off in the meantime"),
    ],
)
@pytest.mark.parametrize("is_told_first", [False, True])
def test_of_an_invoice_that_needs_no_payment_of_the_processors_any_more_no_trouble_is_told(
    monthly: RecurringGift, status: str, kind: str, why: str, is_told_first: bool
) -> None:
    """Paid out of band, or void. What is told of it earlier and later changes nothing."""
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER))
    trouble = invoice_event(monthly, "invoice.payment_failed", invoice="in_2", at=DECEMBER, **OPEN)
    ended = invoice_event(monthly, kind, invoice="in_2", at=DECEMBER + timedelta(days=1), status=status)
    told(*([ended, trouble] if is_told_first else [trouble, ended]))
    told(invoice_event(monthly, "invoice.finalized", invoice="in_2", at=DECEMBER, status="open"))
    assert letter_of() == ("unneeded", why)


@pytest.mark.parametrize("parts", [[400], [400, 400]])
def test_of_an_invoice_that_was_paid_in_part_or_written_off_the_trouble_is_told(
    monthly: RecurringGift, parts: list[int]
) -> None:
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER))
    told(invoice_event(monthly, "invoice.marked_uncollectible", invoice="in_2", at=DECEMBER, status="uncollectible"))
    told(invoice_event(monthly, "invoice.payment_failed", invoice="in_2", at=DECEMBER, **OPEN))
    for part in parts:  # one payment, told of twice
        told(invoice_paid_event(monthly, invoice="in_2", payment="pi_part", at=DECEMBER, amount_paid=part))
    assert letter_of()[0] == "sent"
    [letter] = [sent for sent in mail.outbox if "could not be collected" in sent.subject]
    assert "did not pay 16 $ of this month's gift to" in letter.body
    assert "Nothing was taken" not in letter.body


def test_what_is_read_again_of_an_invoice_holds_meanwhile(monthly: RecurringGift) -> None:
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER))
    paid = invoice_event(monthly, "invoice.paid", invoice="in_2", at=DECEMBER + timedelta(days=1), status="paid")
    told(invoice_event(monthly, "invoice.payment_failed", invoice="in_2", at=DECEMBER, **OPEN), paid)
    InboxEvent.objects.filter(event_id=paid["id"]).update(state="ready", next_try_at=timezone.now())
    assert letter_of() == ("unneeded", "it was paid in the meantime")


def test_of_an_invoice_that_was_paid_in_parts_no_trouble_is_told(monthly: RecurringGift) -> None:
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER))
    told(invoice_event(monthly, "invoice.payment_failed", invoice="in_2", at=DECEMBER, **OPEN))
    for number, part in enumerate((400, 1600)):
        told(invoice_paid_event(monthly, invoice="in_2", payment=f"pi_{number}", at=DECEMBER, amount_paid=part))
    assert letter_of() == ("unneeded", "it was paid in the meantime")


def let_letters_grow_old(hours: float) -> None:
    """As if the letters that wait had been queued so much earlier, and it were their turn."""
    for letter in OutboxMessage.objects.filter(state="queued"):
        letter.created_at -= timedelta(hours=hours)
        letter.next_try_at = timezone.now()
        letter.save(update_fields=["created_at", "next_try_at"])


def letter_of(kind: str = "unpaid") -> tuple[str, str]:
    outbox.send_due()
    letter = OutboxMessage.objects.get(kind=kind)
    return letter.state, letter.last_error


def test_while_the_first_payment_is_open_the_payment_page_tells_the_donor(monthly: RecurringGift) -> None:
    told(monthly_checkout_event(monthly), subscription_event(monthly, "incomplete"), renewal_fails(monthly, "failed"))
    assert letter_of()[0] == "queued"
    told(subscription_event(monthly, "incomplete_expired", at=NOON + timedelta(hours=23)))
    let_letters_grow_old(23)
    assert letter_of() == ("unneeded", "its first payment never came: the payment page told the donor itself")
    assert mail.outbox == []


@pytest.mark.parametrize("kind", ["failed", "action_required"])
@pytest.mark.parametrize("before", [None, "incomplete"])
def test_a_trouble_that_is_told_before_the_subscription_reaches_the_donor_once(
    monthly: RecurringGift, kind: str, before: str | None
) -> None:
    """As of a bank debit that comes back: there the arrangement begins before its first payment."""
    if before:
        told(subscription_event(monthly, before))
    told(monthly_checkout_event(monthly), renewal_fails(monthly, kind), renewal_fails(monthly, kind, 2))
    assert letters() == []
    told(subscription_event(monthly, "past_due", at=DECEMBER))
    assert letters() == [], "it is not its turn yet"
    for _ in range(3):
        let_letters_grow_old(1)
        assert len(letters()) == 1


def test_a_trouble_that_is_told_before_the_donor_reaches_the_donor_once(monthly: RecurringGift) -> None:
    told(subscription_event(monthly, "past_due", at=DECEMBER), renewal_fails(monthly, "failed"))
    assert letter_of() == ("queued", "there is no address to send it to")
    told(monthly_checkout_event(monthly))
    let_letters_grow_old(0)
    assert len(letters()) == 1


def test_a_trouble_of_a_monthly_gift_that_was_paid_before_waits_for_no_news_of_the_subscription(
    monthly: RecurringGift,
) -> None:
    told(*first_month(monthly)[1:], renewal_fails(monthly, "failed"))
    assert len(letters()) == 2, "a receipt, and the letter"


def test_a_letter_that_waits_is_looked_at_ever_later_and_given_up_after_72_hours(monthly: RecurringGift) -> None:
    told(monthly_checkout_event(monthly), renewal_fails(monthly, "failed"))
    for age, wait in ((0, 2), (10, 10), (600, 600), (7200, 3600), (250_000, 3600)):
        OutboxMessage.objects.update(
            created_at=timezone.now() - timedelta(seconds=age), next_try_at=timezone.now(), attempts=0
        )
        assert letter_of()[0] == "queued"
        letter = OutboxMessage.objects.get()
        assert abs((letter.next_try_at - timezone.now()).total_seconds() - wait) < 1
        assert letter.attempts == 0, "those are the mail server's"
    let_letters_grow_old(72)
    assert letter_of() == (
        "unneeded",
        "after 72 hours, still: its first payment is open, as far as was told: the payment page tells the donor itself",
    )


def test_a_trouble_that_is_being_read_again_at_its_turn_is_not_lost(monthly: RecurringGift) -> None:
    told(*first_month(monthly), subscription_event(monthly, "past_due", at=DECEMBER), renewal_fails(monthly, "failed"))
    inbox.read_again(states=["processed"], types=["invoice.payment_failed"])
    assert letter_of() == ("queued", "what is wrong with the invoice is being read again")
    inbox.drain()
    let_letters_grow_old(0)
    assert letter_of()[0] == "sent"


def before_its_metadata(monthly: RecurringGift, invoice: str = "in_1") -> Event:
    """An invoice as it is told of before its subscription's metadata is on it."""
    nothing_yet = {"subscription_details": {"subscription": f"sub_{monthly.pk[10:]}", "metadata": {}}}
    return invoice_event(monthly, "invoice.created", invoice=invoice, parent=nothing_yet)


@pytest.mark.slow
def test_a_payment_is_booked_in_every_order_though_its_invoice_was_told_without_our_metadata(
    monthly: RecurringGift,
) -> None:
    told(subscription_event(monthly))
    events = [before_its_metadata(monthly), invoice_event(monthly), invoice_paid_event(monthly)]
    found = set()
    for order in itertools.permutations(events):
        with transaction.atomic():
            told(*order)
            found.add((*booked(), *told_of(events[2])[:2]))
            transaction.set_rollback(True)
    assert found == {(("gift", "pi_in_1", 1000, "2024-11"), "processed", "")}


def test_all_that_was_foreign_for_want_of_an_invoice_is_booked_and_what_is_anothers_stays(
    monthly: RecurringGift,
) -> None:
    like = make_gift(monthly.campaign, reference="gift_in_1")  # whose payment has the name of the invoice's
    of_it = [
        invoice_paid_event(monthly),
        refund_event(like, 300),
        dispute_event(like, movement("txn_taken", -700, fee=1500), amount=700),
        charge_event(like, "txn_charge", customer="cus_1"),
        transaction_event(like, movement("txn_charge", 1000, fee=59)),
    ]
    theirs = [before_its_metadata(monthly, "in_9"), invoice_paid_event(monthly, invoice="in_9")]
    bare = before_its_metadata(monthly)
    assert told(subscription_event(monthly), *theirs, bare, *of_it)[1:] == ["foreign"] * 8
    tries = dict(InboxEvent.objects.values_list("event_id", "attempts"))
    told(invoice_event(monthly))
    assert {told_of(each)[0] for each in of_it} == {"processed"}
    assert Counter(kind for kind, *_ in booked()) == Counter(gift=1, refund=1, dispute_withdrawn=1, fee=2)
    assert [told_of(each)[0] for each in (*theirs, bare)] == ["foreign"] * 3
    again = dict(InboxEvent.objects.values_list("event_id", "attempts"))
    assert {name for name in tries if again[name] > tries[name]} == {each["id"] for each in of_it}
    assert list(invariants.check()) == []


def test_what_is_woken_is_due_and_settled_no_more(monthly: RecurringGift) -> None:
    of_it = invoice_paid_event(monthly)
    told(subscription_event(monthly), before_its_metadata(monthly), of_it)
    deliver(invoice_event(monthly))
    inbox.process_batch()
    assert told_of(of_it)[0] == "waiting"
    assert list(invariants.check()) == []


def test_a_refund_of_anothers_subscription_is_foreign_at_once(monthly: RecurringGift) -> None:
    theirs = event("invoice.paid", {"id": "in_9", "parent": None})
    payment = invoice_paid_event(monthly, payment="pi_9", invoice="in_9")
    assert told(theirs, payment, refund_event(make_gift(monthly.campaign), 500, payment="pi_9"))[2] == "foreign"


def test_a_foreign_invoice_that_fails_writes_to_nobody(monthly: RecurringGift) -> None:
    assert told(event("invoice.payment_failed", {"id": "in_9", "parent": None})) == ["foreign"]
    assert not OutboxMessage.objects.exists()

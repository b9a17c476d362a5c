"""A monthly gift whose price was changed at the processor, as the sandbox plays it: from its checkout to the books."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from donations import inbox, invariants, outbox, processors, reconcile, recurring
from donations.models import Gift, InboxEvent, LedgerEntry, MonthTotal, RecurringGift
from donations.processors.base import CheckoutOrder
from tests.factories import deliver, make_campaign, make_recurring_gift
from tests.sandbox import Sandboxed

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def monthly(box: Sandboxed) -> RecurringGift:
    """10 $ each month and 0.61 $ for the fee, its first payment made and told of."""
    campaign = make_campaign()
    arrangement = make_recurring_gift(campaign, 1000, fee_cover=61)
    processor = processors.default()
    order = CheckoutOrder(
        reference=arrangement.pk,
        monthly=True,
        campaign=campaign.pk,
        campaign_name=campaign.name,
        amount=1000,
        fee_cover=61,
        currency="USD",
        success_url="http://testserver/thanks/",
        cancel_url="http://testserver/give/",
        expires_at=timezone.now() + timedelta(hours=23),
    )
    parameters = arrangement.checkout_parameters = processor.checkout_parameters(order)
    opened = processor.create_checkout(parameters, arrangement.pk, email="reader@example.org", within=5)
    arrangement.checkout_id = opened.checkout_id
    arrangement.save()
    box.control(f"sessions/{arrangement.checkout_id}/pay")
    hear(box)
    arrangement.refresh_from_db()
    return arrangement


def hear(box: Sandboxed) -> None:
    """All that the processor has to tell by now is delivered and processed."""
    known = set(InboxEvent.objects.values_list("event_id", flat=True))
    deliver(*(event for event in box.all_events() if event["id"] not in known))
    inbox.drain()
    InboxEvent.objects.filter(state="waiting").update(next_try_at=timezone.now())
    inbox.drain()


def change(box: Sandboxed, monthly: RecurringGift, amount: int, line: int = 0) -> None:
    """As somebody does it in the processor's dashboard."""
    item = box.one(f"subscriptions/{monthly.subscription}")["items"]["data"][line]
    box.control(f"subscriptions/{monthly.subscription}/price", amount=amount, item=item["id"])


def renew(box: Sandboxed) -> None:
    box.advance("1mo")
    box.advance("2h")


def given() -> list[tuple[int, int]]:
    """Each gift with its fee cover, the oldest first."""
    entries = LedgerEntry.objects.filter(kind="gift").order_by("effective_at").select_related("gift")
    assert all(entry.gift and entry.amount == entry.gift.total for entry in entries)
    assert all(entry.gift and entry.goal_amount == entry.gift.amount for entry in entries)
    return [(entry.gift.amount, entry.gift.fee_cover) for entry in entries if entry.gift]


def shown(client: Client, monthly: RecurringGift) -> str:
    return client.get(outbox.manage_url(monthly).removeprefix("http://testserver")).text


def test_a_changed_price_is_shown_and_what_it_brings_is_divided_as_its_lines_are(
    client: Client, box: Sandboxed, monthly: RecurringGift
) -> None:
    assert (given(), "10.61 $ each month" in shown(client, monthly)) == ([(1000, 61)], True)
    change(box, monthly, 2000)
    hear(box)
    assert "20.61 $ each month" in shown(client, monthly)
    renew(box)
    hear(box)
    assert given() == [(1000, 61), (2000, 61)]
    assert sorted(MonthTotal.objects.values_list("raised", flat=True)) == [1000, 2000]
    change(box, monthly, 99, line=1)
    renew(box)
    hear(box)
    monthly.refresh_from_db()
    assert given() == [(1000, 61), (2000, 61), (2099, 0)], "what of a changed cover is still meant as one, nobody knows"
    assert (monthly.total, monthly.now_amount, monthly.now_fee_cover) == (1061, 2099, 0)
    assert list(invariants.check()) == recurring.drift() == []


def test_a_payment_that_is_heard_of_before_its_invoice_is_final_is_divided_the_same(
    box: Sandboxed, monthly: RecurringGift
) -> None:
    change(box, monthly, 2000)
    renew(box)
    last = [event for event in box.all_events() if not InboxEvent.objects.filter(event_id=event["id"])]
    early = [event for event in last if event["type"] in {"invoice.created", "invoice_payment.paid"}]
    deliver(*early)
    inbox.drain()
    assert given() == [(1000, 61)]
    hear(box)
    assert given() == [(1000, 61), (2000, 61)]


def test_what_was_never_told_is_found_by_the_reconciliation(box: Sandboxed, monthly: RecurringGift) -> None:
    """After an upgrade: the facts of an earlier version, and a price that was changed before."""
    hear(box)
    change(box, monthly, 2000)
    for row in InboxEvent.objects.filter(facts__kind__in=["recurring", "invoice"]):
        row.facts = {
            n: v for n, v in (row.facts or {}).items() if n not in {"amounts", "currency", "interval", "draft"}
        }
        row.save()
    RecurringGift.objects.update(now_amount=None, now_fee_cover=0, now_currency="", now_interval="")
    assert list(invariants.check()) == []
    RecurringGift.objects.update(heard_at=timezone.now() - timedelta(days=2))
    box.forget_events()
    found = reconcile.run(since=timezone.now() - timedelta(days=40))
    monthly.refresh_from_db()
    assert (monthly.now_amount, monthly.now_fee_cover, monthly.now_interval) == (2000, 61, "month")
    assert (found.equal, Gift.objects.count()) == (True, 1)
    assert not InboxEvent.objects.filter(type="invoice.paid", origin="sweep").exists(), "its lines alone are no news"


def test_one_whose_price_went_away_and_came_back_is_as_it_is_now(box: Sandboxed, monthly: RecurringGift) -> None:
    """The last change was not delivered, and the same was told once before."""
    change(box, monthly, 2000)
    hear(box)
    change(box, monthly, 1000)
    box.forget_events()
    RecurringGift.objects.update(heard_at=timezone.now() - timedelta(days=36))
    reconcile.run(since=timezone.now() - timedelta(days=40))
    monthly.refresh_from_db()
    assert monthly.now_amount == 1000

"""What tells of a payment that was missed: it is asked for, and what had waited for it in vain is looked at again."""

from datetime import timedelta

import pytest
from django.utils import timezone

from donations import inbox, invariants, reconcile
from donations.models import Campaign, InboxEvent, Lookup
from donations.reconcile import comparison
from donations.reconcile.verdicts import OUT_AND_BACK
from tests.factories import deliver, make_campaign
from tests.sandbox import Sandboxed, session_form
from tests.test_reconcile import subscribed
from tests.test_unsettled import Days, begun, causes, moved, sums

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(180)]


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def days(box: Sandboxed) -> Days:
    return Days(box)


def missed(box: Sandboxed, campaign: Campaign, days: Days) -> str:
    """A payment of 25.00 whose news was lost, on a site that reconciles for the first time when no list has it."""
    _, payment = begun(box, campaign, method="")
    days.lose()
    days.run(40)
    assert sums() == {}
    return payment


def refund(box: Sandboxed, payment: str, days: Days, *, delivered: bool) -> None:
    """10.00 are given back in the processor's dashboard on the day after."""
    with days.at(41):
        before = len(box.all_events())
        box.control("refunds", payment_intent=payment, amount=1000)
        if delivered:
            deliver(*box.all_events()[before:])
            inbox.drain()


@pytest.mark.parametrize("delivered", [True, False])
def test_a_refund_has_its_missed_payment_asked_for_and_both_are_booked(
    box: Sandboxed, campaign: Campaign, days: Days, delivered: bool
) -> None:
    payment = missed(box, campaign, days)
    refund(box, payment, days, delivered=delivered)
    first = days.run(41.001)
    assert (causes(first), first.unexplained) == ({"waiting": 1}, 0)
    assert not Lookup.objects.filter(kind="payment").exists()
    with days.at(41.1):
        inbox.drain()
        reconcile.look_up()
        inbox.drain()
    assert sums() == {"gift": 2500, "refund": -1000}
    assert days.run(41.2).equal
    assert list(invariants.check()) == []


def test_a_refund_of_a_missed_payment_that_turns_out_to_be_foreign_is_foreign(box: Sandboxed, days: Days) -> None:
    session = box.checkout(form=session_form(2500) | {"metadata[gift]": ""}, replace=True)
    payment = box.control(f"sessions/{session['id']}/pay")["payment_intent"]
    days.lose()
    days.run(40)
    refund(box, payment, days, delivered=True)
    assert InboxEvent.objects.get(facts__kind="refund", type="refund.created").state == "waiting"
    for day in (41.01, 41.1, 41.2):
        with days.at(day):
            inbox.drain()
            reconcile.look_up()
    assert set(InboxEvent.objects.filter(facts__kind="refund").values_list("state", flat=True)) == {"foreign"}


# ---- what is in quarantine already


def given_up(days: Days) -> None:
    """What waits is quarantined by a version that asks for no payment."""
    with days.at(45):
        inbox.drain()
    assert set(InboxEvent.objects.filter(facts__kind="refund").values_list("state", flat=True)) == {"quarantined"}
    Lookup.objects.filter(kind="payment").delete()


def test_a_refund_in_quarantine_has_its_missed_payment_asked_for_by_the_run_that_compares_it(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    refund(box, missed(box, campaign, days), days, delivered=True)
    given_up(days)
    with days.at(46):
        assert [each["cause"] for each in reconcile.check().shown()] == ["quarantined"]
    assert not Lookup.objects.filter(kind="payment").exists()
    row = days.run(46)
    assert (row.equal, sums()) == (True, {"gift": 2500, "refund": -1000})
    assert list(invariants.check()) == []


def test_a_refund_in_quarantine_whose_payment_is_booked_already_is_looked_at_again(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    """Its payment was booked by an earlier version, or just while another worker held the refund."""
    refund(box, missed(box, campaign, days), days, delivered=True)
    given_up(days)
    refunds = InboxEvent.objects.filter(facts__kind="refund")
    why = refunds[0].reason
    refunds.update(reason="another worker holds it")
    days.run(45, since=days.begin)
    assert sums() == {"gift": 2500}
    refunds.update(reason=why)
    with days.at(46):
        assert [each["cause"] for each in reconcile.check().shown()] == ["quarantined"]
    assert days.run(46).equal
    assert sums() == {"gift": 2500, "refund": -1000}
    assert list(invariants.check()) == []


def test_a_monthly_payment_in_quarantine_whose_invoice_is_known_by_now_is_looked_at_again(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    """An earlier version quarantined it, and then was told of its invoice."""
    arrangement, _ = subscribed(box, campaign)
    told = {one["type"]: one for one in box.all_events()}
    late = [told.pop("invoice.paid"), *(told.pop(kind) for kind in list(told) if kind.startswith("invoice."))]
    deliver(*told.values())
    for _ in range(8):
        InboxEvent.objects.filter(state="waiting").update(next_try_at=timezone.now())
        inbox.drain()
    paid = InboxEvent.objects.filter(facts__kind="invoice_paid")
    paid.update(waiting_since=timezone.now() - timedelta(hours=73), next_try_at=timezone.now())
    inbox.drain()
    why = paid.get().reason
    assert (paid.get().state, "its invoice is not known here" in why) == ("quarantined", True)
    paid.update(reason="another worker holds it")
    deliver(*late)
    inbox.drain()
    assert sums() == {}
    paid.update(reason=why)
    assert reconcile.run().equal
    assert sums() == {"gift": arrangement.amount}
    assert list(invariants.check()) == []


def test_a_payment_that_an_earlier_version_stored_is_no_news_for_its_fee_cover_alone(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    begun(box, campaign, method="")
    days.run(0)
    [row] = InboxEvent.objects.filter(facts__kind="paid")
    InboxEvent.objects.filter(pk=row.pk).update(facts=(row.facts or {}) | {"fee_cover": 61})
    before = InboxEvent.objects.count()
    days.run(1)
    assert InboxEvent.objects.count() == before


# ---- what came to nothing while nobody heard


def test_a_refund_that_succeeded_and_failed_while_nobody_heard_is_not_booked_and_not_said_never_to_have_succeeded(
    box: Sandboxed, campaign: Campaign, days: Days
) -> None:
    _, payment = begun(box, campaign, method="")
    days.run(0)
    refunded = days.control(1, "refunds", payment_intent=payment, amount=1000)
    days.control(5, f"refunds/{refunded['id']}/fail")
    row = days.run(45)
    assert (row.equal, sums()) == (True, {"gift": 2500})
    with days.at(45):
        verdicts = comparison.judge("stripe", moved(), asks=False)
    [went, came] = [each for each in verdicts if each.type != "charge"]
    assert (went.theirs + came.theirs, went.cause, came.cause) == (0, OUT_AND_BACK, OUT_AND_BACK)
    assert "came to nothing" in OUT_AND_BACK.words

"""The inbox: what waits and for how long, what is quarantined, what staff decide, and many workers at once."""

import gc
import hashlib
import logging
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DataError, InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Sum
from django.utils import timezone

from donations import inbox, invariants, processors, projections
from donations.models import (
    Campaign,
    Donor,
    Gift,
    GiftState,
    InboxEvent,
    LedgerEntry,
    MonthTotal,
    OutboxMessage,
    TypesRead,
)
from tests.factories import (
    NOON,
    Event,
    body_of,
    charge_event,
    checkout_event,
    confirm,
    deliver,
    event,
    make_campaign,
    make_gift,
    make_staff,
    numbers,
    refund_event,
)
from tests.house import eventually

pytestmark = pytest.mark.django_db
UNKNOWN = "gift_" + "0" * 26


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


def row_of(told: Event) -> InboxEvent:
    return InboxEvent.objects.get(event_id=told["id"])


def processed(*events: Event) -> list[str]:
    """Deliver events, process what is due, and tell the states that they end in."""
    deliver(*events)
    inbox.drain()
    return [str(row_of(told).state) for told in events]


def let_pass(span: timedelta) -> None:
    """As if this much time had gone by for all that is stored."""
    InboxEvent.objects.update(received_at=F("received_at") - span)
    InboxEvent.objects.filter(next_try_at__isnull=False).update(next_try_at=F("next_try_at") - span)
    InboxEvent.objects.filter(waiting_since__isnull=False).update(waiting_since=F("waiting_since") - span)


def booked() -> list[tuple[str, str, int]]:
    return sorted(LedgerEntry.objects.values_list("kind", "reference", "amount"))


def books() -> dict[str, list[Any]]:
    """All that was made of the inbox's events."""
    totals = MonthTotal.objects.order_by("month").values()
    return {
        "ledger": list(LedgerEntry.objects.order_by("id").values()),
        "states": list(GiftState.objects.order_by("pk").values()),
        "totals": [{name: value for name, value in row.items() if name != "changed_at"} for row in totals],
        "mail": list(OutboxMessage.objects.order_by("id").values()),
        "gifts": list(Gift.objects.order_by("pk").values()),
        "donors": list(Donor.objects.order_by("id").values()),
    }


def quarantined(told: Event) -> InboxEvent:
    """Have an event processed that must end in quarantine."""
    assert processed(told) == ["quarantined"]
    return row_of(told)


def put(processor: str = "stripe", kind: str = "odd", event_id: str = "", body: bytes = b"{}") -> InboxEvent:
    """An event that no delivery brought; nothing is processed yet."""
    told = inbox.NewEvent(
        processor=processor, origin="sweep", event_id=event_id or f"sweep:{next(numbers)}", type=kind, body=body
    )
    assert inbox.put_many([told]) == [told]
    return InboxEvent.objects.get(processor=processor, event_id=told.event_id)


# ---- what is stored


def test_what_is_told_is_stored_with_its_time_and_digest_and_nothing_is_made_of_it_yet() -> None:
    began = timezone.now()
    delivered = event("customer.created", {"id": "cus_1"})
    deliver(delivered)
    put(body=b"found", kind="customer.updated")
    for row, origin, kind, body in zip(
        InboxEvent.objects.order_by("pk"),
        ("delivery", "sweep"),
        ("customer.created", "customer.updated"),
        (body_of(delivered), b"found"),
        strict=True,
    ):
        assert (row.processor, row.origin, row.type, row.state, row.attempts) == ("stripe", origin, kind, "ready", 0)
        assert (bytes(row.body or b""), bytes(row.body_sha256)) == (body, hashlib.sha256(body).digest())
        assert began <= row.received_at <= timezone.now()
        assert row.next_try_at == row.received_at
        assert (row.reason, row.subject, row.payment, row.gift_reference, row.facts) == ("", "", "", "", None)
        assert (row.waiting_since, row.settled_at, row.livemode, row.created) == (None, None, None, None)
        assert_undecided(row)


# ---- waiting


def test_a_refund_that_comes_before_its_gift_waits_and_is_woken_by_it(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    refund = refund_event(gift, 20000)
    assert processed(refund) == ["waiting"]
    row = row_of(refund)
    assert (row.reason, booked()) == ("the payment that it refunds is not booked here", [])
    assert (row.subject, row.payment, row.settled_at) == (refund["data"]["object"]["id"], f"pi_{gift.pk[5:]}", None)
    waited_since = row.waiting_since
    assert waited_since is not None
    assert timedelta(0) <= timezone.now() - waited_since < timedelta(minutes=1)
    InboxEvent.objects.filter(pk=row.pk).update(next_try_at=timezone.now() + timedelta(minutes=5))
    confirm(gift)
    row = row_of(refund)
    assert (row.state, row.reason, row.next_try_at, row.attempts) == ("processed", "", None, 2)
    assert row.settled_at is not None
    assert waited_since < row.settled_at <= timezone.now()
    assert [amount for *_, amount in booked()] == [50000, -20000]
    assert projections.drift() == []


def test_a_refund_in_one_batch_with_its_gift_does_not_wait(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    assert processed(refund_event(gift, 20000), checkout_event(gift)) == ["processed", "processed"]
    assert InboxEvent.objects.filter(waiting_since__isnull=False).count() == 0


def test_a_payment_whose_gift_is_not_known_here_waits_for_it(campaign: Campaign) -> None:
    paid = checkout_event(Gift(pk=UNKNOWN, campaign=campaign, currency="USD", amount=50000, livemode=False))
    expired = checkout_event(
        Gift(pk=UNKNOWN, campaign=campaign, currency="USD", amount=50000, livemode=False), "checkout.session.expired"
    )
    assert processed(paid, expired) == ["waiting", "waiting"]
    make_gift(campaign, pk=UNKNOWN)
    let_pass(timedelta(seconds=2))
    inbox.drain()
    assert [row_of(told).state for told in (paid, expired)] == ["processed", "processed"]
    assert GiftState.objects.get().status == "confirmed"


def test_what_waits_is_tried_after_one_second_and_then_ever_later_up_to_five_minutes(campaign: Campaign) -> None:
    refund = refund_event(make_gift(campaign), 100)
    deliver(refund)
    waits = []
    for _ in range(11):
        InboxEvent.objects.update(next_try_at=timezone.now())
        assert inbox.drain() == 1
        wait = row_of(refund).next_try_at
        assert wait is not None
        waits.append(round((wait - timezone.now()).total_seconds()))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert inbox.drain() == 0


def test_what_waited_for_72_hours_is_quarantined_and_still_woken_by_its_payment(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    refund = refund_event(gift, 20000)
    assert processed(refund) == ["waiting"]
    let_pass(timedelta(hours=71, minutes=59))
    inbox.drain()
    assert row_of(refund).state == "waiting"
    let_pass(timedelta(minutes=6))
    inbox.drain()
    row = row_of(refund)
    assert (row.state, row.reason) == (
        "quarantined",
        "after 72 hours, still: the payment that it refunds is not booked here",
    )
    deliver(checkout_event(gift))
    inbox.process_batch()
    row = row_of(refund)
    assert (row.state, row.waiting_since, row.settled_at) == ("waiting", None, None)
    inbox.drain()
    assert (row_of(refund).state, row_of(refund).reason) == ("processed", "")
    assert list(invariants.check()) == []


def test_nothing_is_woken_that_a_payment_does_not_settle(campaign: Campaign, finance: User) -> None:
    """What staff have to decide stays in quarantine, and what they have decided stays so."""
    gift = make_gift(campaign)
    other, dismissed, dear = refund_event(gift, 1, refund="re_o"), refund_event(gift, 2), refund_event(gift, 60000)
    assert processed(other, dismissed, dear) == ["waiting"] * 3
    let_pass(timedelta(hours=73))
    inbox.drain()
    inbox.dismiss(row_of(dismissed), user=finance, reason="of another shop")
    for reason in (
        "after 72 hours, still: with it, more would be refunded than was charged",
        "it cannot be accepted: it refunds EUR, and the gift is in USD",
        "it failed for 72 hours: the payment that it refunds",
        "paid twice: its invoice is not known here",
        "its gift is not known here",
    ):
        InboxEvent.objects.filter(event_id=dear["id"]).update(reason=reason)
        with transaction.atomic():
            confirm(gift)
            states = {told["id"]: row_of(told).state for told in (other, dismissed, dear)}
            transaction.set_rollback(True)
        assert list(states.values()) == ["processed", "dismissed", "quarantined"], reason


@pytest.mark.parametrize("how", ["one", "many"])
def test_what_is_read_again_after_its_72_hours_is_given_them_anew(campaign: Campaign, how: str) -> None:
    refund = refund_event(make_gift(campaign), 20000)
    processed(refund)
    let_pass(timedelta(hours=73))
    inbox.drain()
    assert row_of(refund).state == "quarantined"
    if how == "one":
        inbox.replay(row_of(refund))
    else:
        assert inbox.read_again(states=["quarantined"]) == 1
        row = row_of(refund)
        assert (row.state, row.waiting_since, row.settled_at) == ("ready", None, None)
        inbox.drain()
    row = row_of(refund)
    assert (row.state, row.reason) == ("waiting", "the payment that it refunds is not booked here")
    assert row.attempts == 1, "its tries begin anew, too"
    assert row.next_try_at < timezone.now() + timedelta(seconds=2)
    let_pass(timedelta(hours=71))
    inbox.drain()
    assert row_of(refund).state == "waiting"


def test_an_event_that_lay_for_days_before_it_was_read_is_given_its_72_hours(campaign: Campaign) -> None:
    refund = refund_event(make_gift(campaign), 20000)
    deliver(refund)
    let_pass(timedelta(days=5))
    inbox.drain()
    assert row_of(refund).state == "waiting"


# ---- what is not ours


def test_a_payment_that_names_no_gift_of_ours_is_foreign_and_so_is_its_refund(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    paid = checkout_event(gift, metadata={"order": "7"}, client_reference_id="7")
    refund, bare = refund_event(gift, 100), refund_event(gift, 100, payment_intent=None, charge="ch_1")
    assert processed(paid, bare) == ["foreign", "foreign"]
    assert {row_of(told).reason for told in (paid, bare)} == {"it does not name a gift of ours"}
    assert processed(refund) == ["foreign"]
    assert booked() == []


def test_a_refund_that_comes_before_a_foreign_payment_is_foreign_in_the_end(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    refund = refund_event(gift, 100)
    assert processed(refund) == ["waiting"]
    assert processed(checkout_event(gift, metadata={})) == ["foreign"]
    let_pass(timedelta(seconds=2))
    inbox.drain()
    assert row_of(refund).state == "foreign"


def of_another(kind: str, gift: Gift, **fields: Any) -> Event:
    """What the processor tells of a payment that other software took, by its payment or its charge."""
    payment = f"pi_{gift.pk[5:]}"
    told = {"object": "charge", "id": "ch_1", "payment_intent": payment}
    if kind.startswith("payment_intent."):
        told = {"object": "payment_intent", "id": payment}
    return event(kind, {**told, "metadata": {"order": "7"}, "customer": None, "customer_account": None, **fields})


@pytest.mark.parametrize("kind", ["payment_intent.created", "payment_intent.succeeded", "charge.succeeded"])
def test_a_refund_of_what_other_software_took_is_foreign_in_either_order(campaign: Campaign, kind: str) -> None:
    gift = make_gift(campaign)
    early, late = refund_event(gift, 100), refund_event(gift, 100)
    assert processed(early) == ["waiting"]
    assert processed(of_another(kind, gift)) == ["foreign"]
    let_pass(timedelta(seconds=2))
    assert processed(late) == ["foreign"]
    assert row_of(early).state == "foreign"


MAY_BE_OURS: list[tuple[str, dict[str, Any]]] = [
    ("payment_intent.succeeded", {"metadata": {"gift": UNKNOWN}}),
    ("charge.succeeded", {"metadata": {"gift": UNKNOWN}}),
    ("charge.succeeded", {"metadata": {"recurring_gift": "recurring_1"}}),
    # The payment of an invoice has nothing of ours on it, and a customer always.
    ("charge.succeeded", {"metadata": {}, "customer": "cus_1"}),
    ("payment_intent.succeeded", {"metadata": {}, "customer": {"id": "cus_1"}}),
    ("payment_intent.succeeded", {"metadata": {}, "customer_account": "acct_1"}),
    ("charge.refunded", {"metadata": {}, "object": "dispute"}),
    ("charge.succeeded", {"metadata": None}),
]


@pytest.mark.parametrize(("kind", "fields"), MAY_BE_OURS, ids=str)
def test_a_refund_of_what_may_be_ours_waits_for_its_gift(campaign: Campaign, kind: str, fields: dict[str, Any]) -> None:
    gift = make_gift(campaign)
    refund = refund_event(gift, 100)
    assert processed(of_another(kind, gift, **fields), refund) == ["nothing", "waiting"]
    assert processed(checkout_event(gift)) == ["processed"]
    assert row_of(refund).state == "processed"


def test_a_checkout_of_a_subscription_is_no_gift_by_itself(campaign: Campaign) -> None:
    assert processed(checkout_event(make_gift(campaign), mode="subscription", payment_intent=None)) == ["foreign"]
    assert booked() == []


SHAPELESS: list[dict[str, Any]] = [
    {"type": "account.updated", "data": {}},
    {"type": "account.updated", "created": None},
    {"type": "account.updated", "created": None, "livemode": None, "data": None},
    {"type": "v2.core.account.updated", "object": "v2.core.event", "created": "2024-09-17T06:20:52.246Z", "data": None},
]


@pytest.mark.parametrize("fields", SHAPELESS, ids=str)
def test_an_event_that_moves_no_money_needs_nothing_whatever_its_shape(fields: dict[str, Any]) -> None:
    told = event("account.updated", {"id": "acct_1"}) | fields
    assert processed(told) == ["nothing"]
    # Read again without its body, it is no more of the other mode than it was.
    InboxEvent.objects.update(body=None)
    inbox.replay(row_of(told))
    row = row_of(told)
    assert (row.state, row.reason, row.livemode is None) == ("nothing", "", "livemode" in fields)


def test_an_event_without_a_mode_is_not_of_the_other_mode_on_a_live_site(go_live: Callable[[], None]) -> None:
    told = event("account.updated", {"id": "acct_1"}) | {"livemode": None}
    go_live()
    assert processed(told) == ["nothing"]
    InboxEvent.objects.update(body=None)
    inbox.replay(row_of(told))
    assert row_of(told).state == "nothing"


def test_an_event_of_any_shape_that_tells_the_other_mode_is_marked() -> None:
    assert processed(event("account.updated", {}) | {"livemode": True, "data": None}) == ["wrong_mode"]


# ---- the other mode


@pytest.mark.parametrize("livemode", [True, False])
def test_events_of_the_other_mode_are_kept_and_never_counted(
    campaign: Campaign, go_live: Callable[[], None], livemode: bool
) -> None:
    gift = make_gift(campaign, livemode=livemode)
    if not livemode:
        go_live()
    told = [
        checkout_event(gift),
        refund_event(gift, 100),
        checkout_event(gift, "checkout.session.expired"),
        event("customer.created", {"id": "cus_1"}, livemode=livemode),
    ]
    assert processed(*told) == ["wrong_mode"] * 4
    inbox.replay(row_of(told[0]))
    rows = InboxEvent.objects.all()
    why = f"it is of the {'live' if livemode else 'test'} mode, which this site's key is not"
    assert {(row.state, row.reason, row.livemode, row.facts, bool(row.body)) for row in rows} == {
        ("wrong_mode", why, livemode, None, True)
    }
    assert (booked(), MonthTotal.objects.count(), GiftState.objects.count()) == ([], 0, 0)


def test_a_payment_for_a_gift_of_the_other_mode_is_quarantined(campaign: Campaign) -> None:
    told = checkout_event(make_gift(campaign, livemode=True))
    told["livemode"] = told["data"]["object"]["livemode"] = False
    assert quarantined(told).reason == "it cannot be accepted: its gift is of the other mode"
    assert booked() == []


# ---- what is not as its type promises

MALFORMED_CHECKOUTS: list[dict[str, Any]] = [
    {"id": None},
    {"id": "cs"},
    {"amount_total": None},
    {"amount_total": "50000"},
    {"amount_total": 500.0},
    {"amount_total": True},
    {"amount_total": 0},
    {"amount_total": -50000},
    {"amount_total": 10**12 + 1},
    {"amount_total": 2**63},
    {"amount_total": 10**300},
    {"currency": None},
    {"currency": "usdollar"},
    {"currency": "US1"},
    {"payment_intent": None},
    {"payment_intent": "pi"},
    {"payment_intent": {"id": 5}},
    {"payment_intent": "pi_" + "a" * 201},
    {"payment_status": "no_payment_required"},
    {"payment_status": ["paid"]},
]


@pytest.mark.parametrize("fields", MALFORMED_CHECKOUTS, ids=str)
def test_a_malformed_checkout_is_quarantined_with_the_reason(campaign: Campaign, fields: dict[str, Any]) -> None:
    row = quarantined(checkout_event(make_gift(campaign), **fields))
    assert row.reason.startswith("it is not as its type promises: ")
    assert (row.attempts, booked()) == (1, [])


def test_what_cannot_be_read_is_filed_under_nothing_and_the_log_names_it(
    campaign: Campaign, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    told, good = checkout_event(make_gift(campaign), amount_total="x"), checkout_event(make_gift(campaign))
    assert processed(told, good) == ["quarantined", "processed"]
    row = row_of(told)
    why = "it is not as its type promises: amount_total is not a whole number in range"
    assert (row.reason, caplog.messages) == (why, [f"inbox event {told['id']} is quarantined: {why}"])
    assert (row.livemode, row.created, row.facts, row.subject, row.payment) == (None, None, None, "", "")
    assert (row.gift_reference, row.next_try_at, row.waiting_since) == ("", None, None)
    assert row.settled_at is not None


MALFORMED_REFUNDS: list[dict[str, Any]] = [
    {"id": 7},
    {"amount": -1},
    {"amount": 10**12 + 1},
    {"amount": 10**300},
    {"amount": "1"},
    {"currency": "U"},
    {"created": None},
    {"created": 10**18},
    {"created": 0},
    {"status": None},
    {"status": "lost"},
    {"status": ["succeeded"]},
    {"status": {}},
]


@pytest.mark.parametrize("fields", MALFORMED_REFUNDS, ids=str)
def test_a_malformed_refund_is_quarantined_with_the_reason(campaign: Campaign, fields: dict[str, Any]) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    told = refund_event(gift, 100)
    told["data"]["object"] |= fields
    row = quarantined(told)
    assert row.reason.startswith("it is not as its type promises: ")
    assert (row.attempts, len(booked())) == (1, 1)


OUTSIDES: list[dict[str, Any]] = [
    {"livemode": None},
    {"livemode": "false"},
    {"created": None},
    {"created": "now"},
    {"created": 0},
    {"created": 10**12},
    {"created": 1.5},
    {"data": None},
    {"data": []},
    {"data": {}},
    {"data": {"object": None}},
    {"data": {"object": "cs_test_1"}},
]


@pytest.mark.parametrize("fields", OUTSIDES, ids=str)
def test_an_event_without_an_object_a_time_or_a_mode_is_quarantined(campaign: Campaign, fields: dict[str, Any]) -> None:
    told = checkout_event(make_gift(campaign)) | fields
    assert quarantined(told).reason.startswith("it is not as its type promises: ")


def test_the_largest_amount_is_booked_to_the_last_cent(campaign: Campaign) -> None:
    gift = make_gift(campaign, 10**12)
    assert processed(checkout_event(gift)) == ["processed"]
    assert MonthTotal.objects.get().raised == 10**12


CONTACTS: list[Any] = [
    None,
    [],
    "reader@example.org",
    {"email": None},
    {"email": 5, "name": {}},
    {"email": "İ" * 240 + "@example.org", "name": "İ" * 300},
    {"email": "a" * 300 + "@example.org", "name": "\x00\ud800\n"},
    {"email": "a@" + "a" * 300 + ".example.org"},
    {"email": "\x00reader\ud800@example.org\r\nBcc: all@example.org", "name": None},
]


@pytest.mark.parametrize("details", CONTACTS, ids=lambda details: re.sub(r"[^ -Z^-~]+", "?", str(details))[:30])
def test_whatever_the_donor_typed_at_the_processor_the_money_is_booked(campaign: Campaign, details: Any) -> None:
    told = checkout_event(make_gift(campaign), customer_details=details)
    assert processed(told) == ["processed"]
    assert MonthTotal.objects.get().raised == 50000
    assert all(donor.email.isprintable() and len(donor.email) <= 254 for donor in Donor.objects.all())


# ---- what fails


def make_poison() -> InboxEvent:
    """An event of a processor that this site no longer has: it cannot be read, whatever is tried."""
    now = timezone.now() - timedelta(seconds=1)
    return InboxEvent.objects.create(
        processor="gone",
        event_id="evt_poison",
        type="paid",
        received_at=now,
        next_try_at=now,
        body=b"{}",
        body_sha256=b"",
    )


def test_an_event_that_always_fails_stops_no_other_and_its_failure_is_recorded(campaign: Campaign) -> None:
    gifts = [make_gift(campaign) for _ in range(5)]
    poison = make_poison()
    assert processed(*[checkout_event(gift) for gift in gifts]) == ["processed"] * 5
    poison.refresh_from_db()
    assert (poison.state, poison.attempts, poison.reason) == ("ready", 1, "KeyError: 'gone'")
    assert poison.next_try_at is not None
    assert timedelta(0) < poison.next_try_at - timezone.now() <= timedelta(seconds=1)
    assert (MonthTotal.objects.get().raised, projections.drift()) == (250000, [])


def test_an_event_that_always_fails_is_tried_ever_later_and_quarantined_after_72_hours() -> None:
    poison = make_poison()
    for attempts, wait in ((1, 1), (2, 2), (3, 4)):
        InboxEvent.objects.update(next_try_at=timezone.now())
        assert inbox.drain() == 1
        poison.refresh_from_db()
        assert poison.attempts == attempts
        assert poison.next_try_at is not None
        assert round((poison.next_try_at - timezone.now()).total_seconds()) == wait
    let_pass(timedelta(hours=72))
    inbox.drain()
    poison.refresh_from_db()
    assert (poison.state, poison.next_try_at) == ("quarantined", None)
    assert poison.reason == "it failed for 72 hours: KeyError: 'gone'"
    assert poison.settled_at is not None


@pytest.mark.parametrize("how", ["never tried", "replayed", "read again"])
def test_what_fails_has_72_hours_from_its_first_failure_however_long_ago_it_was_received(how: str) -> None:
    poison = make_poison()
    if how != "never tried":
        inbox.drain()
        let_pass(timedelta(hours=73))
        inbox.drain()
        assert InboxEvent.objects.get().state == "quarantined"
    let_pass(timedelta(hours=80))
    if how == "replayed":
        inbox.replay(poison)
    if how == "read again":
        inbox.read_again(states=["quarantined"])
    inbox.drain()
    poison.refresh_from_db()
    assert (poison.state, poison.attempts, poison.reason) == ("ready", 1, "KeyError: 'gone'")
    let_pass(timedelta(hours=71, minutes=59))
    inbox.drain()
    assert InboxEvent.objects.get().state == "ready"
    let_pass(timedelta(minutes=6))
    inbox.drain()
    assert InboxEvent.objects.get().state == "quarantined"


def test_what_waits_and_fails_by_turns_has_72_hours_in_all(campaign: Campaign) -> None:
    refund = refund_event(make_gift(campaign), 100)
    deliver(refund)
    states = []
    for processor, hours in (("gone", 40), ("stripe", 31), ("gone", 2), ("gone", 0)):
        InboxEvent.objects.update(processor=processor)
        inbox.drain()
        states.append(row_of(refund).state)
        let_pass(timedelta(hours=hours))
    assert states == ["ready", "waiting", "waiting", "quarantined"]
    assert row_of(refund).reason == "it failed for 72 hours: KeyError: 'gone'"


REFUSE_ENTRY = {
    "sqlite": """
CREATE TRIGGER poison BEFORE INSERT ON donations_ledgerentry WHEN NEW.reference = 'pi_poison'
BEGIN SELECT RAISE(ABORT, 'this entry is refused'); END""",
    "postgresql": """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'this entry is refused'; END $$;
CREATE TRIGGER poison BEFORE INSERT ON donations_ledgerentry FOR EACH ROW WHEN (NEW.reference = 'pi_poison')
EXECUTE FUNCTION refuse()""",
}


def test_an_entry_that_the_database_refuses_takes_nothing_else_back(campaign: Campaign) -> None:
    good, bad = [make_gift(campaign) for _ in range(3)], make_gift(campaign)
    poison = checkout_event(bad, payment="pi_poison", customer_details={"email": "poison@example.org"})
    deliver(checkout_event(good[0]), poison, *[checkout_event(gift) for gift in good[1:]])
    with connection.cursor() as cursor:
        cursor.execute(REFUSE_ENTRY[connection.vendor])
    inbox.drain()
    row = row_of(poison)
    assert (row.state, row.attempts) == ("ready", 1)
    assert "this entry is refused" in row.reason
    assert MonthTotal.objects.get().raised == 150000
    # Nothing of the failed one is left: no state, no receipt, no donor.
    assert not GiftState.objects.filter(pk=bad.pk).exists()
    assert not OutboxMessage.objects.filter(subject_id=bad.pk).exists()
    assert not Donor.objects.filter(email="poison@example.org").exists()
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER poison{' ON donations_ledgerentry' if connection.vendor == 'postgresql' else ''}")
    let_pass(timedelta(seconds=2))
    inbox.drain()
    assert row_of(poison).state == "processed"
    assert (MonthTotal.objects.get().raised, projections.drift()) == (200000, [])


@contextmanager
def answering_entries_with(error: Exception) -> Iterator[None]:
    """As if the database answered this to whatever writes in the ledger."""

    def answer(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT INTO donations_ledgerentry"):
            raise error
        return execute(sql, params, many, context)

    with connection.execute_wrapper(answer):
        yield


def test_a_long_failure_is_recorded_as_far_as_there_is_room_and_the_log_names_its_event(
    campaign: Campaign, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    told = checkout_event(make_gift(campaign))
    with answering_entries_with(DataError("a\x00b" + 400 * "x")):
        assert processed(told) == ["ready"]
        row = row_of(told)
        # No database takes a NUL in a text that all of them must take.
        assert row.reason == f"DataError: ab{286 * 'x'}"
        assert caplog.messages == ["a batch of 1 events failed; each is tried alone", f"event {row.pk} failed"]
        let_pass(timedelta(hours=73))
        inbox.drain()
    row = row_of(told)
    assert (row.state, row.attempts) == ("quarantined", 2)
    assert (row.reason, len(row.reason)) == (f"it failed for 72 hours: DataError: ab{263 * 'x'}", 300)
    inbox.replay(row)
    assert row_of(told).state == "processed"


def test_an_event_that_fails_when_it_is_read_again_is_settled_no_more() -> None:
    make_poison()
    InboxEvent.objects.update(state="nothing", next_try_at=None, settled_at=timezone.now())
    inbox.replay(InboxEvent.objects.get())
    row = InboxEvent.objects.get()
    assert (row.state, row.reason, row.settled_at) == ("ready", "KeyError: 'gone'", None)


@pytest.mark.parametrize("away", [OperationalError("it restarts"), InterfaceError("it is closed")], ids=str)
def test_a_database_that_is_away_is_the_failure_of_no_event(
    campaign: Campaign, finance: User, caplog: pytest.LogCaptureFixture, away: Exception
) -> None:
    asked = quarantined(checkout_event(make_gift(campaign), amount_total=1))
    told = checkout_event(make_gift(campaign))
    deliver(told)
    caplog.set_level(logging.WARNING)
    caplog.clear()
    tries: list[Callable[[], object]] = [
        inbox.drain,
        lambda: inbox.process_alone(row_of(told).pk),
        lambda: inbox.accept(asked, user=finance),
    ]
    for attempt in tries:
        with answering_entries_with(away), pytest.raises(type(away)):
            attempt()
    row = row_of(told)
    assert (row.state, row.attempts, row.reason, caplog.messages) == ("ready", 0, "", [])
    assert (asked.state, asked.reason) == ("quarantined", "0.01 USD were paid, and 500.00 USD were asked")
    assert_undecided(asked)
    assert inbox.drain() == 1
    assert row_of(told).state == "processed"


# ---- batches


def test_a_batch_has_500_events_at_most_and_the_oldest_come_first(campaign: Campaign) -> None:
    told = [event("customer.created", {"id": f"cus_{number}"}) for number in range(inbox.BATCH + 1)]
    deliver(*told)
    assert inbox.process_batch() == inbox.BATCH == 500
    assert gc.isenabled(), "it is away while a batch lasts, and no longer"
    assert row_of(told[-1]).state == "ready"
    assert [inbox.process_batch(), inbox.process_batch()] == [1, 0]


def two_batches() -> None:
    """Events of two processors, each of which is a batch of its own."""
    put("stripe")
    put("offline")


def test_a_drain_ends_after_the_batch_in_which_its_time_is_up() -> None:
    two_batches()
    assert [inbox.drain(seconds=0), inbox.drain(seconds=0), inbox.drain(seconds=0)] == [1, 1, 0]
    two_batches()
    assert inbox.drain(seconds=60) == 2
    two_batches()
    assert inbox.drain() == 2


def test_one_event_is_processed_alone_and_only_while_it_is_due(campaign: Campaign) -> None:
    first, second = (checkout_event(make_gift(campaign)) for _ in range(2))
    deliver(first, second)
    identity = row_of(second).pk
    for _ in range(2):
        inbox.process_alone(identity)
        assert [(row_of(told).state, row_of(told).attempts) for told in (first, second)] == [
            ("ready", 0),
            ("processed", 1),
        ]


def test_an_event_is_booked_at_once_by_its_processor_and_its_id(campaign: Campaign) -> None:
    told, other = (checkout_event(make_gift(campaign)) for _ in range(2))
    deliver(told, other)
    namesake = put("offline", event_id=told["id"])
    inbox.book_now(processor="stripe", event_id=told["id"])
    assert booked() == [("gift", told["data"]["object"]["payment_intent"], 50000)]
    with pytest.raises(inbox.CannotBook, match="it is not as its type promises: it is not as we write it"):
        inbox.book_now(processor="offline", event_id=told["id"])
    namesake.refresh_from_db()
    assert (namesake.state, row_of(other).state) == ("quarantined", "ready")


def test_events_that_are_due_for_long_are_noticed_also_where_they_waited_for_others(campaign: Campaign) -> None:
    old = timedelta(seconds=5)
    deliver(refund_event(make_gift(campaign), 100))
    assert not inbox.is_left_lying(old)
    let_pass(timedelta(seconds=6))
    assert inbox.is_left_lying(old)
    inbox.drain()
    assert InboxEvent.objects.get().state == "waiting"
    assert not inbox.is_left_lying(old)
    let_pass(timedelta(seconds=60))
    assert inbox.is_left_lying(old)


# ---- reading again


def settled(processor: str, kind: str, count: int = 1) -> list[int]:
    """Events that needed nothing, as an older version left them."""
    keys = [put(processor, kind).pk for _ in range(count)]
    InboxEvent.objects.filter(pk__in=keys).update(state="nothing", next_try_at=None, settled_at=timezone.now())
    return keys


def ready() -> list[int]:
    return list(InboxEvent.objects.filter(state="ready").order_by("pk").values_list("pk", flat=True))


def test_what_is_read_again_is_chosen_by_state_type_time_and_processor() -> None:
    charges, payouts = settled("stripe", "charge", 2), settled("stripe", "payout")
    offline = settled("offline", "charge")
    edge = InboxEvent.objects.get(pk=charges[1]).received_at
    choices: list[tuple[dict[str, Any], list[int]]] = [
        ({"states": ["nothing"]}, charges + payouts + offline),
        ({"states": ["foreign"]}, []),
        ({"states": ["foreign", "nothing"], "types": ["charge"]}, charges + offline),
        ({"states": ["nothing"], "types": []}, []),
        ({"states": ["nothing"], "processor": "stripe"}, charges + payouts),
        ({"states": ["nothing"], "types": ["charge"], "processor": "offline"}, offline),
        ({"states": ["nothing"], "since": edge}, [charges[1], *payouts, *offline]),
        ({"states": ["nothing"], "since": edge + timedelta(microseconds=1)}, [*payouts, *offline]),
    ]
    for chosen, wanted in choices:
        assert (inbox.read_again(**chosen), ready()) == (len(wanted), wanted), chosen
        InboxEvent.objects.update(state="nothing", next_try_at=None, settled_at=timezone.now())


def test_more_than_a_batch_is_read_again_and_each_is_counted_once() -> None:
    many = 2 * inbox.BATCH + 1
    inbox.put_many(
        inbox.NewEvent(processor="stripe", origin="sweep", event_id=f"sweep:{number}", type="odd", body=b"{}")
        for number in range(many)
    )
    InboxEvent.objects.update(state="nothing", next_try_at=None, settled_at=timezone.now())
    assert inbox.read_again(states=["nothing"]) == many
    assert len(ready()) == many


def test_after_an_upgrade_only_what_the_processor_reads_newly_is_read_again() -> None:
    reads = sorted(processors.get("stripe").reads)
    old, new = reads[0], reads[-1]
    settled("stripe", old)
    [fresh], _, _ = settled("stripe", new), settled("offline", new), settled("stripe", "of.no.use")
    TypesRead.objects.create(processor="offline", types=[])
    TypesRead.objects.create(processor="stripe", types=reads[:-1])
    assert (inbox.read_newly_known("stripe"), ready()) == (1, [fresh])
    assert dict(TypesRead.objects.values_list("processor", "types")) == {"stripe": reads, "offline": []}
    assert inbox.read_newly_known("stripe") == 0


def test_what_a_process_of_the_version_before_took_meanwhile_is_read_an_hour_later() -> None:
    reads = sorted(processors.get("stripe").reads)
    TypesRead.objects.create(processor="stripe", types=reads[:-1])
    assert inbox.read_newly_known("stripe") == 0
    [fresh], _ = settled("stripe", reads[-1]), settled("stripe", reads[0])
    assert (inbox.read_newly_known("stripe"), ready()) == (0, [])
    TypesRead.objects.update(fresh_at=timezone.now() - timedelta(minutes=61))
    assert (inbox.read_newly_known("stripe"), ready()) == (1, [fresh])
    InboxEvent.objects.update(state="nothing", next_try_at=None, settled_at=timezone.now())
    assert (inbox.read_newly_known("stripe"), ready()) == (0, [])


@pytest.mark.parametrize(("ago", "forgotten"), [(None, True), (59, False), (61, True)])
def test_what_came_while_an_older_version_was_back_is_read_again_by_the_newer_one(
    ago: int | None, forgotten: bool
) -> None:
    """Not within an hour of the newer one's start: then both may be at work, and each would undo the other's."""
    reads = sorted(processors.get("stripe").reads)
    newer, now = [*reads, "read.by.a.newer"], timezone.now()
    fresh = {"fresh": newer[-1:], "fresh_at": now - timedelta(minutes=ago)} if ago else {}
    TypesRead.objects.create(processor="stripe", types=newer, **fresh)
    assert inbox.read_newly_known("stripe") == 0
    row = TypesRead.objects.get()
    assert (row.types, bool(row.fresh)) == ((reads, False) if forgotten else (newer, True))


def test_a_site_that_never_stored_what_it_reads_reads_all_of_it_again() -> None:
    reads = sorted(processors.get("stripe").reads)
    for kind in (reads[0], reads[-1], "of.no.use"):
        settled("stripe", kind)
    assert (inbox.read_newly_known("stripe"), TypesRead.objects.get().types) == (2, reads)


# ---- a body that was erased


def test_an_event_whose_body_was_erased_is_processed_from_its_facts(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    refund = refund_event(gift, 20000)
    ghost = Gift(pk=UNKNOWN, campaign=campaign, currency="USD", amount=50000, livemode=False)
    payment = checkout_event(ghost)
    assert processed(refund, payment) == ["waiting", "waiting"]
    InboxEvent.objects.update(body=None)
    make_gift(campaign, pk=UNKNOWN)
    confirm(gift)
    let_pass(timedelta(seconds=2))
    inbox.drain()
    assert [row_of(told).state for told in (refund, payment)] == ["processed", "processed"]
    assert MonthTotal.objects.get().raised == 80000


def test_reading_events_again_after_their_bodies_were_erased_changes_nothing(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    told = [checkout_event(gift), refund_event(gift, 20000), event("customer.created", {"id": "cus_1"})]
    states = processed(*told)
    before = books()
    kept = [(row.created, row.subject, row.payment, row.facts) for row in map(row_of, told)]
    InboxEvent.objects.update(body=None)
    for row in map(row_of, told):
        inbox.replay(row)
    assert [row_of(one).state for one in told] == states
    assert [(row.created, row.subject, row.payment, row.facts) for row in map(row_of, told)] == kept
    assert books() == before


def test_facts_hold_no_personal_data(campaign: Campaign) -> None:
    assert processed(checkout_event(make_gift(campaign))) == ["processed"]
    row = InboxEvent.objects.defer("body").get()
    told = " ".join(str(getattr(row, field.name)) for field in row._meta.concrete_fields if field.name != "body")
    assert Donor.objects.get().email == "reader@example.org"
    assert "reader" not in told.lower()


# ---- what staff decide


@pytest.fixture
def finance() -> User:
    return make_staff("change_inboxevent")


def test_an_accepted_payment_of_another_amount_is_booked_with_its_own_dates(campaign: Campaign, finance: User) -> None:
    gift = make_gift(campaign, 50000)
    row = quarantined(checkout_event(gift, amount_total=40000))
    assert (row.reason, row.gift_reference) == ("400.00 USD were paid, and 500.00 USD were asked", gift.pk)
    assert booked() == []
    began = timezone.now()
    inbox.accept(row, user=finance, reason=" the donor asked for it ")
    entry = LedgerEntry.objects.get()
    assert (entry.amount, entry.effective_at, entry.campaign_month) == (40000, NOON, "2024-11")
    row.refresh_from_db()
    assert (row.state, row.decision, row.decision_reason, row.decided_by, row.next_try_at) == (
        "processed",
        "accept",
        "the donor asked for it",
        finance,
        None,
    )
    assert row.decided_at is not None
    assert row.settled_at is not None
    assert began <= row.decided_at <= row.settled_at <= timezone.now()
    assert projections.drift() == []


def test_an_accepted_payment_for_a_gift_that_is_not_known_makes_the_gift(campaign: Campaign, finance: User) -> None:
    told = checkout_event(Gift(pk=UNKNOWN, campaign=campaign, currency="USD", amount=50000, livemode=False))
    assert processed(told) == ["waiting"]
    let_pass(timedelta(hours=73))
    inbox.drain()
    inbox.accept(row_of(told), user=finance)
    assert (row_of(told).decision, row_of(told).decision_reason) == ("accept", "")
    gift = Gift.objects.get()
    assert (gift.pk, gift.campaign, gift.source, gift.amount) == (UNKNOWN, campaign, "accepted", 50000)
    assert (gift.tier, gift.livemode) == ("custom", False)
    assert MonthTotal.objects.get().raised == 50000


@pytest.mark.parametrize(("fields", "cover"), [({}, 106), ({"amount_total": 107}, 106), ({"amount_total": 106}, 0)])
def test_the_fee_cover_of_an_accepted_payment_counts_no_more_than_that_of_a_gift_that_is_known(
    campaign: Campaign, finance: User, fields: dict[str, int], cover: int
) -> None:
    """Its checkout's metadata tell of it."""
    of = Gift(pk=UNKNOWN, campaign=campaign, currency="USD", amount=2500, fee_cover=106, livemode=False)
    told = checkout_event(of, **fields)
    processed(told)
    let_pass(timedelta(hours=73))
    inbox.drain()
    inbox.accept(row_of(told), user=finance)
    entry, gift = LedgerEntry.objects.get(), Gift.objects.get()
    assert (gift.fee_cover, gift.total, entry.amount) == (cover, fields.get("amount_total", 2606), gift.total)
    assert (MonthTotal.objects.get().raised, list(invariants.check())) == (gift.amount, [])


@pytest.mark.parametrize(("named", "belongs_to"), [("news", "news"), ("nothing", "general"), (None, "general")])
def test_an_accepted_payment_belongs_to_the_campaign_that_it_names_or_else_to_the_default_one(
    campaign: Campaign, finance: User, named: str | None, belongs_to: str
) -> None:
    make_campaign("news", is_default=False)
    of = Gift(pk=UNKNOWN, campaign=campaign, currency="USD", amount=50000, livemode=False)
    told = checkout_event(of, metadata={"gift": UNKNOWN} | ({"campaign": named} if named else {}))
    assert processed(told) == ["waiting"]
    assert (row_of(told).reason, row_of(told).gift_reference) == ("its gift is not known here", UNKNOWN)
    let_pass(timedelta(hours=73))
    inbox.drain()
    inbox.accept(row_of(told), user=finance)
    assert Gift.objects.get().campaign_id == belongs_to


def test_an_unknown_payment_in_another_currency_than_its_campaigns_makes_no_gift(
    campaign: Campaign, finance: User
) -> None:
    of = Gift(pk=UNKNOWN, campaign=campaign, currency="EUR", amount=50000, livemode=False)
    told = checkout_event(of)
    assert processed(told) == ["waiting"]
    let_pass(timedelta(hours=73))
    inbox.drain()
    with pytest.raises(inbox.CannotDecide):
        inbox.accept(row_of(told), user=finance)
    assert not Gift.objects.exists()


def test_news_of_a_checkout_that_is_not_known_here_wait_for_its_gift(campaign: Campaign) -> None:
    told = checkout_event(Gift(pk=UNKNOWN, campaign=campaign, currency="USD", amount=1, livemode=False), paid=False)
    assert processed(told) == ["waiting"]
    assert (row_of(told).reason, row_of(told).gift_reference) == ("its gift is not known here", UNKNOWN)


def test_a_second_payment_that_staff_keep_is_a_gift_of_its_own_with_a_reference_that_follows_from_it(
    campaign: Campaign, finance: User
) -> None:
    first = make_gift(campaign)
    confirm(first)
    inbox.accept(quarantined(checkout_event(first, payment="pi_2nd")), user=finance)
    second = Gift.objects.exclude(pk=first.pk).get()
    digest = hashlib.sha256(b"pi_2nd").hexdigest()[:26]
    assert (second.pk, second.source, second.tier) == (f"gift_{digest}", "paid twice", "custom")


def test_a_refund_that_gives_back_more_than_was_charged_can_be_accepted(campaign: Campaign, finance: User) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    refund = refund_event(gift, 60000)
    assert processed(refund) == ["waiting"]
    let_pass(timedelta(hours=73))
    inbox.drain()
    inbox.accept(row_of(refund), user=finance)
    assert [amount for *_, amount in booked()] == [50000, -60000]
    assert (MonthTotal.objects.get().raised, projections.drift()) == (0, [])


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"amount_total": "x"}, "not a whole number"), ({"currency": "eur"}, "paid in EUR, and asked in USD")],
)
def test_what_cannot_be_booked_stays_in_quarantine_and_staff_are_told_why(
    campaign: Campaign, finance: User, fields: dict[str, Any], why: str
) -> None:
    row = quarantined(checkout_event(make_gift(campaign), **fields))
    with pytest.raises(inbox.CannotDecide, match=why):
        inbox.accept(row, user=finance)
    assert InboxEvent.objects.get().state == "quarantined"
    inbox.dismiss(row, user=finance, reason="given back by hand")
    assert booked() == []


def test_an_accepted_refund_whose_gift_is_missing_is_back_in_quarantine_at_once(
    campaign: Campaign, finance: User
) -> None:
    gift = make_gift(campaign)
    refund = refund_event(gift, 100)
    assert processed(refund) == ["waiting"]
    let_pass(timedelta(hours=73))
    inbox.drain()
    row = row_of(refund)
    why = "the payment that it refunds is not booked here"
    with pytest.raises(inbox.CannotDecide, match=f"^It could not be booked: {why}[.]$"):
        inbox.accept(row, user=finance, reason="I want it")
    assert (row.state, row.reason, row.next_try_at) == ("quarantined", why, None)
    assert row_of(refund).state == "quarantined"
    assert_undecided(row_of(refund))
    confirm(gift)
    assert row_of(refund).state == "processed"
    assert_undecided(row_of(refund))


def test_an_accepted_refund_whose_gift_never_comes_can_be_dismissed(campaign: Campaign, finance: User) -> None:
    refund = refund_event(make_gift(campaign), 100)
    processed(refund)
    let_pass(timedelta(hours=73))
    inbox.drain()
    with pytest.raises(inbox.CannotDecide):
        inbox.accept(row_of(refund), user=finance)
    inbox.dismiss(row_of(refund), user=finance, reason="of another shop")
    assert (row_of(refund).state, row_of(refund).waiting_since) == ("dismissed", None)


def test_an_accept_that_failed_is_no_leave_for_a_later_one(campaign: Campaign, finance: User) -> None:
    gift = make_gift(campaign)
    refund = refund_event(gift, 60000)
    processed(refund)
    let_pass(timedelta(hours=73))
    inbox.drain()
    with pytest.raises(inbox.CannotDecide):
        inbox.accept(row_of(refund), user=finance)
    confirm(gift)
    inbox.replay(row_of(refund))
    # It gives back more than was charged, which nobody has accepted.
    assert (row_of(refund).state, [amount for *_, amount in booked()]) == ("waiting", [50000])


def test_an_event_that_fails_while_it_is_accepted_stays_in_quarantine(
    finance: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    poison = make_poison()
    InboxEvent.objects.update(state="quarantined", next_try_at=None)
    with pytest.raises(inbox.CannotDecide, match=r"^It could not be booked: KeyError: 'gone'[.]$"):
        inbox.accept(poison, user=finance)
    assert caplog.messages == [f"event {poison.pk} was to be booked at once and failed"]
    assert (poison.state, poison.reason, poison.next_try_at) == ("quarantined", "KeyError: 'gone'", None)
    assert_undecided(poison)


def test_an_event_that_turns_out_to_need_nothing_cannot_be_accepted(finance: User) -> None:
    row = put(kind="customer.created", body=body_of(event("customer.created", {"id": "cus_1"})))
    InboxEvent.objects.update(state="quarantined", next_try_at=None, reason="it was not understood")
    with pytest.raises(inbox.CannotDecide, match=r"^It could not be booked: it needs nothing[.]$"):
        inbox.accept(row, user=finance)
    assert (row.state, row.reason) == ("quarantined", "it needs nothing")
    assert_undecided(row)


def test_what_another_person_dismissed_meanwhile_is_not_told_anew_why_it_failed(
    campaign: Campaign, finance: User
) -> None:
    row = quarantined(checkout_event(make_gift(campaign), currency="eur"))
    InboxEvent.objects.update(reason="as the other person read it")

    def dismiss_first(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        """The other person is in time just before why it could not be booked is written."""
        if sql.startswith('UPDATE "donations_inboxevent" SET "reason"'):
            execute("UPDATE donations_inboxevent SET state = 'dismissed'", (), False, context)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(dismiss_first), pytest.raises(inbox.CannotDecide):
        inbox.accept(row, user=finance)
    assert (row.state, row.reason) == ("dismissed", "as the other person read it")


def test_to_read_a_dismissed_event_again_undoes_the_dismissal(campaign: Campaign, finance: User) -> None:
    row = quarantined(checkout_event(make_gift(campaign), amount_total=1))
    inbox.dismiss(row, user=finance, reason="a mistake")
    inbox.replay(row)
    row.refresh_from_db()
    assert row.state == "quarantined"
    assert_undecided(row)


def test_what_was_set_aside_for_a_dismissal_is_looked_at_again_when_that_is_undone(
    campaign: Campaign, finance: User
) -> None:
    gift = make_gift(campaign)
    row, refund = quarantined(checkout_event(gift, amount_total=1)), refund_event(gift, 1)
    assert processed(refund) == ["waiting"]
    inbox.dismiss(row, user=finance, reason="a mistake")
    InboxEvent.objects.filter(state="waiting").update(
        waiting_since=timezone.now() - timedelta(hours=73), next_try_at=timezone.now()
    )
    inbox.drain()
    assert row_of(refund).state == "foreign"
    inbox.replay(row)
    inbox.drain()
    assert row_of(refund).state == "waiting"
    assert list(invariants.check()) == []
    inbox.accept(row, user=finance, reason="it was meant so")
    inbox.drain()
    assert row_of(refund).state == "processed"


def test_to_read_an_accepted_event_again_keeps_who_accepted_it(campaign: Campaign, finance: User) -> None:
    row = quarantined(checkout_event(make_gift(campaign), amount_total=1))
    inbox.accept(row, user=finance, reason="they meant it")
    inbox.replay(row)
    row.refresh_from_db()
    assert (row.state, row.decision, row.decision_reason, row.decided_by) == (
        "processed",
        "accept",
        "they meant it",
        finance,
    )


def test_a_decision_is_about_one_event_alone(campaign: Campaign, finance: User) -> None:
    one, other, unbookable = (
        quarantined(checkout_event(make_gift(campaign), **fields))
        for fields in ({"amount_total": 1}, {"amount_total": 2}, {"currency": "eur"})
    )
    before = unbookable.reason
    inbox.dismiss(one, user=finance, reason="a test of the bank")
    inbox.dismiss(other, user=finance, reason="another test")
    with pytest.raises(inbox.CannotDecide):
        inbox.accept(unbookable, user=finance)
    inbox.replay(one)
    one.refresh_from_db()
    other.refresh_from_db()
    assert (one.state, one.reason) == ("quarantined", "0.01 USD were paid, and 500.00 USD were asked")
    assert (other.state, other.decision, other.decision_reason) == ("dismissed", "dismiss", "another test")
    with pytest.raises(inbox.CannotDecide):
        inbox.accept(unbookable, user=finance)
    one.refresh_from_db()
    assert (one.reason, unbookable.reason) == ("0.01 USD were paid, and 500.00 USD were asked", before)


def test_long_reasons_are_cut_to_what_there_is_room_for(campaign: Campaign, finance: User) -> None:
    row = quarantined(checkout_event(make_gift(campaign), amount_total=1))
    inbox.dismiss(row, user=finance, reason=f"{299 * 'x'}yz")
    row.refresh_from_db()
    assert row.decision_reason == f"{299 * 'x'}y"


def test_what_was_paid_twice_stays_that_when_it_cannot_be_accepted(campaign: Campaign, finance: User) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    row = quarantined(checkout_event(gift, payment_intent="pi_second"))
    InboxEvent.objects.filter(pk=row.pk).update(body=b"no longer an event", facts=None)
    row.refresh_from_db()
    with pytest.raises(inbox.CannotDecide):
        inbox.accept(row, user=finance)
    assert (row.state, row.reason[:12]) == ("quarantined", "paid twice: ")


def test_what_was_paid_twice_and_fails_for_long_reasons_says_so_first(campaign: Campaign, finance: User) -> None:
    row = paid_twice(make_gift(campaign))
    with answering_entries_with(DataError(400 * "x")), pytest.raises(inbox.CannotDecide):
        inbox.accept(row, user=finance)
    assert (row.reason, len(row.reason)) == (f"paid twice: DataError: {277 * 'x'}", 300)


def test_an_event_of_the_other_mode_is_filed_under_what_it_is_of_without_its_facts(campaign: Campaign) -> None:
    told = checkout_event(make_gift(campaign)) | {"livemode": True}
    assert processed(told) == ["wrong_mode"]
    row = row_of(told)
    session = told["data"]["object"]
    assert (row.livemode, row.created, row.subject, row.payment, row.facts) == (
        True,
        NOON,
        session["id"],
        session["payment_intent"],
        None,
    )


def assert_undecided(row: InboxEvent) -> None:
    assert (row.decision, row.decision_reason, row.decided_by, row.decided_at) == ("", "", None, None)


@pytest.mark.parametrize("reason", ["", " ", "\n\t"])
def test_nothing_is_dismissed_without_a_reason(campaign: Campaign, finance: User, reason: str) -> None:
    row = quarantined(checkout_event(make_gift(campaign), amount_total=1))
    words = "^Give a reason: finance will ask why this money is not in the books[.]$"
    with pytest.raises(inbox.CannotDecide, match=words):
        inbox.dismiss(row, user=finance, reason=reason)
    row.refresh_from_db()
    assert (row.state, row.decision) == ("quarantined", "")


def test_what_is_dismissed_is_closed_without_being_booked(campaign: Campaign, finance: User) -> None:
    row = quarantined(checkout_event(make_gift(campaign), amount_total=1))
    inbox.dismiss(row, user=finance, reason="a test of the bank")
    row.refresh_from_db()
    assert (row.state, row.decision, row.decision_reason, row.decided_by) == (
        "dismissed",
        "dismiss",
        "a test of the bank",
        finance,
    )
    assert (row.next_try_at, row.waiting_since) == (None, None)
    assert row.decided_at is not None
    assert timedelta(0) <= timezone.now() - row.decided_at < timedelta(minutes=1)
    assert (inbox.drain(), booked()) == (0, [])


def test_of_two_people_who_decide_one_decides(campaign: Campaign, finance: User) -> None:
    first = quarantined(checkout_event(make_gift(campaign), amount_total=40000))
    second = InboxEvent.objects.get()
    inbox.accept(first, user=finance)
    words = "^It is not in quarantine any more: somebody has decided, or it was replayed[.]$"
    with pytest.raises(inbox.CannotDecide, match=words):
        inbox.dismiss(second, user=make_staff(), reason="no")
    with pytest.raises(inbox.CannotDecide, match=words):
        inbox.accept(second, user=make_staff())
    row = InboxEvent.objects.get()
    assert (row.state, row.decision, row.decided_by) == ("processed", "accept", finance)
    assert len(booked()) == 1


@pytest.mark.parametrize("state", ["ready", "waiting", "processed", "nothing", "foreign", "wrong_mode"])
def test_only_what_is_in_quarantine_is_decided_about(campaign: Campaign, finance: User, state: str) -> None:
    now = timezone.now() if state in {"ready", "waiting"} else None
    row = quarantined(checkout_event(make_gift(campaign), amount_total=1))
    InboxEvent.objects.update(state=state, next_try_at=now)
    for decide in (inbox.accept, inbox.dismiss):
        with pytest.raises(inbox.CannotDecide):
            decide(row, user=finance, reason="because")
    assert (InboxEvent.objects.get().state, booked()) == (state, [])


def test_reading_everything_again_changes_nothing_that_is_booked(campaign: Campaign, finance: User) -> None:
    first, second, third = (make_gift(campaign) for _ in range(3))
    told = [
        checkout_event(first),
        refund_event(first, 20000, refund="re_a"),
        refund_event(first, 20000, refund="re_a", status="failed", kind="refund.failed"),
        checkout_event(second, paid=False),
        checkout_event(third, "checkout.session.expired"),
        checkout_event(first, payment="pi_again"),
        checkout_event(first, metadata={}),
    ]
    states = processed(*told)
    assert states == ["processed"] * 5 + ["quarantined", "foreign"]
    before = books()
    for _ in range(2):
        for row in map(row_of, told):
            inbox.replay(row)
        inbox.drain()
    assert [row_of(one).state for one in told] == states
    assert books() == before
    assert projections.drift() == []


# ---- paid twice


def paid_twice(gift: Gift, **fields: Any) -> InboxEvent:
    confirm(gift)
    return quarantined(checkout_event(gift, payment="pi_second", **fields))


def test_a_second_payment_for_a_gift_is_quarantined_and_counts_nothing(campaign: Campaign) -> None:
    row = paid_twice(make_gift(campaign))
    assert row.reason.startswith("paid twice")
    assert MonthTotal.objects.get().raised == 50000


def test_two_payments_for_a_gift_in_one_batch_are_told_apart_by_their_time(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    later = checkout_event(gift, payment="pi_second", at=NOON + timedelta(minutes=1))
    assert processed(later, checkout_event(gift, payment="pi_first")) == ["quarantined", "processed"]
    assert booked() == [("gift", "pi_first", 50000)]


def test_a_second_payment_that_is_kept_is_a_gift_of_its_own_once(campaign: Campaign, finance: User) -> None:
    first = make_gift(campaign)
    row = paid_twice(first)
    inbox.accept(row, user=finance)
    second = Gift.objects.exclude(pk=first.pk).get()
    first.refresh_from_db()
    assert (second.campaign, second.donor, second.amount) == (campaign, first.donor, 50000)
    assert booked() == sorted([("gift", f"pi_{first.pk[5:]}", 50000), ("gift", "pi_second", 50000)])
    before = books()
    inbox.replay(row)
    assert books() == before
    total = MonthTotal.objects.get()
    assert (total.raised, total.gifts, projections.drift()) == (100000, 2, [])


def test_the_fee_cover_of_a_second_payment_that_is_kept_counts_toward_no_goal(
    campaign: Campaign, finance: User
) -> None:
    inbox.accept(paid_twice(make_gift(campaign, 2500, fee_cover=106)), user=finance)
    assert set(LedgerEntry.objects.values_list("amount", "goal_amount")) == {(2606, 2500)}
    assert {(gift.amount, gift.fee_cover) for gift in Gift.objects.all()} == {(2500, 106)}
    assert MonthTotal.objects.get().raised == 5000


@pytest.mark.parametrize(("amount", "cover"), [(9999, 106), (107, 106), (106, 5), (50, 3), (2, 1), (1, 0)])
def test_a_second_payment_of_less_than_the_fee_cover_has_its_share_of_that(
    campaign: Campaign, finance: User, amount: int, cover: int
) -> None:
    gift = make_gift(campaign, 2500, fee_cover=106)
    inbox.accept(paid_twice(gift, amount_total=amount), user=finance)
    second = Gift.objects.exclude(pk=gift.pk).get()
    assert (second.amount, second.fee_cover) == (amount - cover, cover)
    assert (MonthTotal.objects.get().raised, list(invariants.check())) == (2500 + amount - cover, [])


def test_the_donor_of_a_second_payment_that_is_kept_gets_its_receipt(campaign: Campaign, finance: User) -> None:
    donor = Donor.objects.create(email="first@example.org")
    inbox.accept(paid_twice(make_gift(campaign, donor=donor), customer_details=None), user=finance)
    assert set(Gift.objects.values_list("donor__email", flat=True)) == {"first@example.org"}
    assert set(OutboxMessage.objects.values_list("subject_id", flat=True)) == set(
        Gift.objects.values_list("pk", flat=True)
    )


def test_the_refund_of_a_second_payment_waits_until_staff_have_decided(campaign: Campaign, finance: User) -> None:
    gift = make_gift(campaign)
    row = paid_twice(gift)
    refund = refund_event(gift, 50000, payment="pi_second")
    assert processed(refund) == ["waiting"]
    inbox.accept(row, user=finance)
    inbox.drain()
    assert row_of(refund).state == "processed"
    total = MonthTotal.objects.get()
    assert (total.raised, total.gifts, projections.drift()) == (50000, 1, [])


# ---- many at once


def at_once(*tasks: Callable[[], object]) -> list[Exception]:
    """Run these in threads that start together; what they raised."""
    raised: list[Exception] = []
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        try:
            gate.wait(10)
            task()
        except Exception as error:  # noqa: BLE001 (the caller looks at whatever it was)
            raised.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not any(thread.is_alive() for thread in threads)
    return raised


def a_month_of_events(gifts: list[Gift], rng: random.Random) -> list[Event]:
    """2,000 events about 700 gifts of half a year: paid, told of twice, refunded in steps, some of which fail."""
    days = [NOON + timedelta(days=rng.randrange(180)) for _ in gifts]
    told = [checkout_event(gift, at=day) for gift, day in zip(gifts, days, strict=True)]
    again = zip(gifts[:350], days, strict=False)
    told += [checkout_event(gift, "checkout.session.async_payment_succeeded", at=day) for gift, day in again]
    for number, gift in enumerate(gifts[:350]):
        refund = {"refund": f"re_many{number}"}
        told.append(refund_event(gift, 20000, status="pending", **refund))
        told.append(refund_event(gift, 20000, kind="refund.updated", **refund))
        if number < 100:
            told.append(refund_event(gift, 20000, status="failed", kind="refund.failed", **refund))
    told += [checkout_event(gift, "checkout.session.expired") for gift in gifts[550:]]
    rng.shuffle(told)
    return told


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_four_workers_on_2000_events_lose_none_and_add_up_to_the_cent(rng: random.Random) -> None:
    funds = [make_campaign(), make_campaign("second")]
    gifts = [Gift(campaign=rng.choice(funds), amount=50000, currency="USD", livemode=False) for _ in range(700)]
    for gift in gifts:
        gift.tier, gift.processor = "custom", "stripe"
    Gift.objects.bulk_create(gifts)
    told = a_month_of_events(gifts, rng)
    assert len(told) == 2000
    sizes = [rng.randrange(20, 120) for _ in range(4)]
    all_delivered = threading.Event()

    def bring() -> None:
        try:
            deliver(*told[1000:])
        finally:
            all_delivered.set()

    def work(size: int) -> None:
        while inbox.process_batch(size) or not all_delivered.wait(0.01):
            pass

    deliver(*told[:1000])
    assert at_once(bring, *[lambda size=size: work(size) for size in sizes]) == []
    for _ in range(5):
        let_pass(timedelta(minutes=6))
        assert at_once(*[lambda size=size: work(size) for size in sizes]) == []
    assert set(InboxEvent.objects.values_list("state", flat=True)) == {"processed"}
    assert InboxEvent.objects.count() == 2000
    kinds = dict(LedgerEntry.objects.order_by().values_list("kind").annotate(Sum("amount")))
    assert kinds == {"gift": 700 * 50000, "refund": -350 * 20000, "refund_reversal": 100 * 20000}
    sums = MonthTotal.objects.aggregate(raised=Sum("raised"), gifts=Sum("gifts"), refunds=Sum("refunds"))
    assert sums == {"raised": 700 * 50000 - 250 * 20000, "gifts": 700, "refunds": 250}
    assert OutboxMessage.objects.count() == 700
    assert projections.drift() == []


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_row_that_another_worker_holds_is_passed_over_and_not_waited_for() -> None:
    campaign = make_campaign()
    told = [checkout_event(make_gift(campaign)) for _ in range(3)]
    deliver(*told)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            InboxEvent.objects.select_for_update(no_key=True).get(event_id=told[1]["id"])
            held.set()
            let_go.wait(20)

    def pass_over() -> None:
        held.wait(10)
        try:
            assert inbox.process_batch() == 2
            assert [row_of(one).state for one in told] == ["processed", "ready", "processed"]
        finally:
            let_go.set()

    assert at_once(hold, pass_over) == []
    assert inbox.process_batch() == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["refund", "charge"])
def test_a_gift_does_not_wait_for_the_worker_that_sets_its_news_aside_and_wakes_these_after(kind: str) -> None:
    """That worker read the books before the gift was in them, and its 72 hours are over."""
    gift = make_gift(make_campaign())
    news = refund_event(gift, 20000) if kind == "refund" else charge_event(gift, "txn_1")
    assert processed(news) == ["waiting"]
    held = threading.Event()
    aside = {"state": "quarantined" if kind == "refund" else "foreign", "next_try_at": None}

    def set_aside() -> None:
        with transaction.atomic():
            row = InboxEvent.objects.select_for_update(no_key=True).get(event_id=news["id"])
            held.set()
            eventually(lambda: LedgerEntry.objects.filter(kind="gift").exists(), "the gift is booked")
            InboxEvent.objects.filter(pk=row.pk).update(reason=f"after 72 hours, still: {row.reason}", **aside)

    def pay() -> None:
        held.wait(10)
        deliver(checkout_event(gift))
        inbox.process_batch()

    assert at_once(set_aside, pay) == []
    inbox.drain()
    assert row_of(news).state == "processed"


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_several_people_who_accept_and_dismiss_at_once_one_decides() -> None:
    row = quarantined(checkout_event(make_gift(make_campaign()), amount_total=40000))
    people = [make_staff() for _ in range(6)]

    def decide(number: int) -> None:
        copy = InboxEvent.objects.get(pk=row.pk)
        if number % 2:
            inbox.accept(copy, user=people[number])
        else:
            inbox.dismiss(copy, user=people[number], reason="no")

    raised = at_once(*[lambda number=number: decide(number) for number in range(6)])
    assert [type(error) for error in raised] == [inbox.CannotDecide] * 5
    row.refresh_from_db()
    assert (row.state, len(booked())) in {("processed", 1), ("dismissed", 0)}


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_one_event_delivered_many_times_at_once_is_stored_and_booked_once() -> None:
    told = checkout_event(make_gift(make_campaign()))
    assert at_once(*[lambda: deliver(told)] * 8, *[inbox.drain] * 4) == []
    inbox.drain()
    assert (InboxEvent.objects.count(), len(booked()), MonthTotal.objects.get().raised) == (1, 1, 50000)
    assert body_of(told) == bytes(InboxEvent.objects.get().body or b"")


@pytest.mark.postgres
@pytest.mark.django_db
def test_bodies_are_compressed_by_lz4_where_the_server_knows_it() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'")
        known = cursor.fetchone()[0]
        cursor.execute(
            "SELECT attcompression FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'body'",
            [InboxEvent._meta.db_table],
        )
        assert cursor.fetchone()[0] == ("l" if known else "")

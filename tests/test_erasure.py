"""Erasing a person: nothing that is stored names them any more, and no figure changes."""

import io
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from donations import erasure, giving, inbox, invariants, offline, outbox, projections
from donations.models import (
    Campaign,
    DailyRollup,
    Donor,
    Follower,
    Gift,
    GiftState,
    InboxEvent,
    LedgerEntry,
    MonthTotal,
    OutboxMessage,
    RecurringGift,
)
from tests.factories import (
    checkout_event,
    deliver,
    event,
    invoice_event,
    invoice_paid_event,
    make_campaign,
    make_gift,
    make_recurring_gift,
    refund_event,
    subscription_event,
    told,
)

ADDRESS, NAME, WORDS = "rosa@example.org", "Rosa Reader", "For my grandmother"
LONG_AGO = timezone.now() - timedelta(days=10)
pytestmark = pytest.mark.django_db


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def rosa() -> Donor:
    return Donor.keep(ADDRESS, NAME)


def contact(address: str = "Rosa@Example.org") -> dict[str, Any]:
    """As she typed it on the payment page."""
    return {"customer_details": {"email": address, "name": NAME}}


def given_by(donor: Donor | None, campaign: Campaign, **fields: Any) -> Gift:
    gift = make_gift(campaign, donor=donor, **{"public_name": NAME, "message": WORDS, **fields})
    Gift.objects.filter(pk=gift.pk).update(created_at=LONG_AGO)
    return gift


def stored() -> Iterator[str]:
    """Every value of every table, as text in small letters."""
    for model in apps.get_models():
        for row in model._default_manager.values_list():
            for value in row:
                blob = bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode()
                yield f"{model.__name__}: {blob.decode(errors='replace')}".lower()


def naming(*texts: str) -> list[str]:
    return [value for value in stored() if any(text.lower() in value for text in texts)]


def figures() -> list[Any]:
    """What is summed, shown and exported."""
    tables = (MonthTotal, DailyRollup, GiftState, LedgerEntry)
    rows = [sorted(map(str, table.objects.values_list())) for table in tables]
    return [*rows, export("ledger"), export("gifts")]


def export(file: str) -> str:
    with NamedTemporaryFile() as written:
        call_command("export", file, "--all-modes", "--output", written.name)
        return Path(written.name).read_text()


def whole_life(campaign: Campaign, rosa: Donor) -> None:
    """Once and monthly, refunded in part, told of without an address too; and she follows two campaigns."""
    gift = given_by(rosa, campaign)
    charge = event("charge.updated", {"id": "ch_1", "object": "charge", "billing_details": {"name": NAME}})
    deliver(checkout_event(gift, payment="pi_1", **contact()))
    assert told(refund_event(gift, 100, payment="pi_1"), charge) == ["processed", "nothing"]
    monthly = make_recurring_gift(campaign, donor=rosa, public_name=NAME, message=WORDS)
    RecurringGift.objects.update(created_at=LONG_AGO)
    assert told(subscription_event(monthly, status="canceled")) == ["processed"]
    deliver(invoice_event(monthly, status="paid", customer_email=ADDRESS, customer_name=NAME))
    assert told(invoice_paid_event(monthly)) == ["processed"]
    assert Gift.objects.filter(donor=rosa).count() == 2
    for slug in ("first", "second"):
        giving.follow(campaign=make_campaign(slug), email=ADDRESS, name=NAME, source="", page="")
    giving.confirm_follower(Follower.objects.get(campaign="first"))
    InboxEvent.objects.filter(type="charge.updated").update(payment="pi_1")


def test_nothing_names_them_any_more_and_no_figure_changes(campaign: Campaign, rosa: Donor) -> None:
    whole_life(campaign, rosa)
    before = figures()
    assert len(naming(ADDRESS, NAME, WORDS)) >= 8
    erased = erasure.erase(rosa.pk)
    assert naming(ADDRESS, NAME, WORDS) == []
    assert (erased.gifts, erased.monthly_gifts, erased.followings) == (2, 1, 2)
    assert erased.events == InboxEvent.objects.filter(body=None).count() >= 4
    assert figures() == before
    assert projections.drift() == []
    assert list(invariants.check()) == []


def test_what_is_told_or_read_again_does_not_bring_them_back(campaign: Campaign, rosa: Donor) -> None:
    whole_life(campaign, rosa)
    gift = Gift.objects.get(state__payment="pi_1")
    again = checkout_event(gift, payment="pi_1", **contact())
    event_id = InboxEvent.objects.get(type=again["type"]).event_id
    erasure.erase(rosa.pk)
    before = figures()
    deliver(again | {"id": event_id})
    inbox.drain()
    for state in ("processed", "nothing"):
        call_command("replay", "--state", state, stdout=io.StringIO())
    assert naming(ADDRESS, NAME) == []
    assert figures() == before
    assert list(invariants.check()) == []


@pytest.mark.parametrize(
    "written",
    ["She wrote:\n{}", "<{}>", "mailto:{},", "a=rosa%40example.org&b", "ROSA@EXAMPLE.ORG", '"{}"', "\t{}\r\n"],
)
def test_an_address_is_found_however_it_is_written(campaign: Campaign, rosa: Donor, written: str) -> None:
    note = {"id": "cus_1", "object": "customer", "description": written.format(ADDRESS)}
    deliver(event("customer.updated", note))
    inbox.drain()
    assert erasure.erase(rosa.pk).events == 1


def test_an_address_beyond_ascii_is_found_in_capitals_and_escaped(campaign: Campaign) -> None:
    donor = Donor.keep("jörg@example.org")
    deliver(event("customer.updated", {"id": "cus_1", "object": "customer", "email": "JÖRG@example.org"}))
    inbox.drain()
    assert b"\\u00d6" in bytes(InboxEvent.objects.get().body or b"")
    assert erasure.erase(donor.pk).events == 1


def test_what_comes_about_them_later_is_erased_by_their_address(campaign: Campaign, rosa: Donor) -> None:
    told(checkout_event(given_by(rosa, campaign), **contact()))
    erasure.erase(rosa.pk)
    told(event("customer.deleted", {"id": "cus_1", "object": "customer", "email": ADDRESS}))
    assert erasure.erase_traces("Rosa@example.org").events == 1
    assert naming(ADDRESS, NAME) == []
    deliver(event("customer.deleted", {"id": "cus_1", "object": "customer", "email": ADDRESS}))
    with pytest.raises(erasure.CannotErase, match=r"manage\.py drain"):
        erasure.erase_traces(ADDRESS)
    inbox.drain()
    Donor.keep(ADDRESS)
    assert erasure.erase_traces(ADDRESS).events == 1
    assert naming(ADDRESS) == []


def test_what_comes_while_the_bodies_are_looked_at_is_found(
    campaign: Campaign, rosa: Donor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gift = given_by(rosa, campaign)
    told(checkout_event(gift, **contact()))
    look, late = (
        erasure._events_naming,
        event("customer.updated", {"id": "cus_1", "object": "customer", "email": ADDRESS}),
    )

    def looked_at(address: str, after: int = 0) -> tuple[list[int], int]:
        found = look(address, after)
        if not InboxEvent.objects.filter(event_id=late["id"]).exists():
            told(late)
        return found

    monkeypatch.setattr(erasure, "_events_naming", looked_at)
    assert erasure.erase(rosa.pk).events == 2


def test_what_was_erased_unread_is_not_read_again(campaign: Campaign, rosa: Donor) -> None:
    """Of another shop, or of the other mode: without a body it would be taken for what needs nothing."""
    other = checkout_event(make_gift(campaign), metadata={}, **contact())
    live = checkout_event(given_by(rosa, campaign), **contact()) | {"livemode": True}
    assert told(other, live) == ["foreign", "wrong_mode"]
    erasure.erase(rosa.pk)
    assert inbox.read_again(states=["foreign", "wrong_mode"]) == 0
    assert sorted(InboxEvent.objects.values_list("state", flat=True)) == ["foreign", "wrong_mode"]
    assert list(invariants.check()) == []


def test_whose_address_only_looks_like_theirs_keeps_everything(campaign: Campaign, rosa: Donor) -> None:
    others = ["marosa@example.org", "rosa@example.org.au", "rosa@example.organic", "x.rosa@example.org"]
    for address in others:
        gift = given_by(Donor.keep(address, "Another Name"), campaign)
        deliver(checkout_event(gift, payment=f"pi_{address[:3]}{len(address)}", **contact(address)))
    inbox.drain()
    erasure.erase(rosa.pk)
    assert not InboxEvent.objects.filter(body=None).exists()
    assert sorted(Donor.objects.values_list("email", flat=True)) == sorted(others)
    assert Gift.objects.filter(donor=None).count() == 0


def test_what_a_payment_page_told_of_them_is_found_by_their_address_alone(campaign: Campaign, rosa: Donor) -> None:
    """Such as a payment that another shop of the account took, or that staff dismissed."""
    told(event("checkout.session.completed", {"id": "cs_other", "object": "checkout.session", **contact()}))
    told(event("customer.updated", {"id": "cus_1", "object": "customer", "description": f"see {ADDRESS}, please"}))
    assert erasure.erase(rosa.pk).events == 2
    assert naming(ADDRESS, NAME) == []
    assert list(invariants.check()) == []


def test_an_offline_gift_stays_as_it_was_entered(campaign: Campaign, rosa: Donor, django_user_model: Any) -> None:
    staff = django_user_model.objects.create_user("finance")
    given = {"day": LONG_AGO.date(), "method": "cash", "reference": "7", "reason": "at the door", "email": ADDRESS}
    offline.record_gift(campaign=campaign, amount=5000, user=staff, name=NAME, message=WORDS, **given)
    outbox.send_due()
    before = figures()
    assert erasure.erase(rosa.pk).events == 0  # what staff told names nobody, and says by itself what was entered
    assert naming(ADDRESS, NAME) == []
    assert figures() == before
    assert list(invariants.check()) == []


def test_a_letter_that_waits_for_its_turn_is_not_written(campaign: Campaign, rosa: Donor, mailoutbox: Any) -> None:
    told(checkout_event(given_by(rosa, campaign), **contact()))
    giving.follow(campaign=campaign, email=ADDRESS, name=NAME, source="", page="")
    erasure.erase(rosa.pk)
    outbox.send_due()
    assert mailoutbox == []
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {"unneeded"}


def test_the_link_of_a_following_that_was_erased_leads_to_a_page_that_says_so(campaign: Campaign, rosa: Donor) -> None:
    giving.follow(campaign=campaign, email=ADDRESS, name=NAME, source="", page="")
    link = f"/follow/{outbox.follow_token(Follower.objects.get())}/"
    assert Client().get(link).status_code == 200
    erasure.erase(rosa.pk)
    assert Client().get(link).status_code == 404
    assert not Follower.objects.exists()


# ---- what is under way


def begun_today(campaign: Campaign, rosa: Donor) -> None:
    make_gift(campaign, donor=rosa)


def monthly_begun_today(campaign: Campaign, rosa: Donor) -> None:
    make_recurring_gift(campaign, donor=rosa)


def awaiting(campaign: Campaign, rosa: Donor) -> None:
    told(checkout_event(given_by(rosa, campaign), paid=False))


def monthly(campaign: Campaign, rosa: Donor) -> None:
    make_recurring_gift(campaign, donor=rosa, status="past_due")


def quarantined(campaign: Campaign, rosa: Donor) -> None:
    gift = given_by(rosa, campaign)
    assert told(checkout_event(gift, amount_total=1, **contact())) == ["quarantined"]


def not_looked_at(campaign: Campaign, rosa: Donor) -> None:
    deliver(checkout_event(given_by(None, campaign), **contact()))


UNDER_WAY: list[tuple[Callable[[Campaign, Donor], None], str]] = [
    (begun_today, "may be under way"),
    (monthly_begun_today, "may be under way"),
    (awaiting, "once the bank has decided"),
    (monthly, "is past due: cancel it"),
    (quarantined, "accept or dismiss"),
    (not_looked_at, "manage.py drain"),
]


@pytest.mark.parametrize(("begin", "words"), UNDER_WAY, ids=lambda value: getattr(value, "__name__", ""))
def test_nobody_is_erased_of_whom_something_is_under_way(
    campaign: Campaign, rosa: Donor, begin: Callable[[Campaign, Donor], None], words: str
) -> None:
    begin(campaign, rosa)
    before = list(stored())
    with pytest.raises(erasure.CannotErase, match=words):
        erasure.erase(rosa.pk)
    assert list(stored()) == before


# ---- the command


def test_the_command_says_how_much_named_them(campaign: Campaign, rosa: Donor) -> None:
    told(checkout_event(given_by(rosa, campaign), **contact()))
    out = io.StringIO()
    call_command("erase", str(rosa.pk), "--yes", stdout=out)
    assert out.getvalue() == (
        f"Erased donor {rosa.pk}. What named them: gifts 1, monthly gifts 0, followings 0, stored events 1.\n"
    )
    assert LedgerEntry.objects.count() == 1


@pytest.mark.parametrize(("typed", "is_erased"), [("yes\n", True), ("y\n", False), ("\n", False)])
def test_the_command_asks_first(rosa: Donor, monkeypatch: pytest.MonkeyPatch, typed: str, is_erased: bool) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    if is_erased:
        call_command("erase", str(rosa.pk), stdout=io.StringIO())
    else:
        with pytest.raises(CommandError, match=r"Nothing was erased\."):
            call_command("erase", str(rosa.pk))
    assert Donor.objects.exists() != is_erased


def test_the_command_says_why_not(campaign: Campaign, rosa: Donor) -> None:
    with pytest.raises(CommandError, match="There is no donor"):
        call_command("erase", str(rosa.pk + 1), "--yes")
    make_gift(campaign, donor=rosa)
    with pytest.raises(CommandError, match="may be under way"):
        call_command("erase", str(rosa.pk), "--yes")


@pytest.mark.parametrize(("typed", "left"), [(f" {ADDRESS} \nyes\n", 0), ("rosa\nyes\n", 1), (f"{ADDRESS}\nno\n", 1)])
def test_without_a_number_the_command_asks_for_the_address(
    rosa: Donor, monkeypatch: pytest.MonkeyPatch, typed: str, left: int
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    if left:
        with pytest.raises(CommandError, match="Nothing was erased"):
            call_command("erase")
    else:
        call_command("erase", stdout=io.StringIO())
    assert Donor.objects.count() == left

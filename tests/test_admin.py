"""Staff's rooms: who gets in where, what can be done there, and what nobody can do."""

import html
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urljoin

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Group, User
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from djmoney.money import Money

from donations import closing, inbox, invariants, offline, projections, settlements, watching
from donations.admin import amounts, reading
from donations.admin.refunds import RefundForm
from donations.models import (
    Campaign,
    CampaignMonth,
    DailyRollup,
    Donor,
    ExportRecord,
    Follower,
    Gift,
    GiftState,
    InboxEvent,
    LedgerEntry,
    MonthTotal,
    OutboxMessage,
    RecurringGift,
    RefundRequest,
    Tier,
)
from donations.periods import Month
from donations.processors.facts import TransactionSeen
from tests import factories
from tests.factories import (
    NOON,
    checkout_event,
    confirm,
    deliver,
    dispute_event,
    invoice_event,
    invoice_paid_event,
    make_campaign,
    make_gift,
    make_payout,
    make_recurring_gift,
    make_staff,
    monthly_checkout_event,
    movement,
    refund_event,
    subscription_event,
)
from tests.sandbox import Sandboxed

pytestmark = [pytest.mark.django_db, pytest.mark.page]

ROOM = "/admin/donations"


# ---- who and what


def client_of(*groups: str, superuser: bool = False, staff: bool = True) -> Client:
    user = make_staff(superuser=superuser)
    User.objects.filter(pk=user.pk).update(is_staff=staff)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


@pytest.fixture
def manager() -> Client:
    return client_of("Campaign managers")


@pytest.fixture
def finance() -> Client:
    return client_of("Finance")


@pytest.fixture
def superuser() -> Client:
    return client_of(superuser=True)


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def gift(campaign: Campaign) -> Gift:
    """A confirmed, anonymous gift of 500 $ from somebody who told a name, an address and a word."""
    donor = Donor.objects.create(email="secret@example.org", name="Sylvia Secret")
    given = make_gift(campaign, donor=donor, public_name="Sylvia Secret", message="For my village", anonymous=True)
    confirm(given)
    return given


@pytest.fixture
def quarantined(gift: Gift) -> InboxEvent:
    """A second payment for a gift that is paid."""
    told = checkout_event(gift, payment="pi_second", customer_details={"email": "second@example.org", "name": "S"})
    deliver(told)
    inbox.drain()
    event = InboxEvent.objects.get(event_id=told["id"])
    assert event.state == "quarantined"
    return event


@pytest.fixture
def monthly(campaign: Campaign) -> RecurringGift:
    """10 $ each month from somebody known by the hosted page; its renewal failed."""
    monthly = make_recurring_gift(campaign, public_name="Mona Monthly", anonymous=True)
    deliver(monthly_checkout_event(monthly), subscription_event(monthly, "past_due"))
    deliver(invoice_event(monthly), invoice_paid_event(monthly))
    deliver(invoice_event(monthly, "invoice.payment_failed", invoice="in_2"))
    inbox.drain()
    monthly.refresh_from_db()
    return monthly


@pytest.fixture
def follower(campaign: Campaign) -> Follower:
    donor = Donor.objects.create(email="follows@example.org", name="Flora Follows")
    follower = Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
    projections.confirm_follower(follower)
    return follower


def page(row: Any, action: str = "change") -> str:
    return f"{ROOM}/{row._meta.model_name}/{quote(str(row.pk))}/{action}/"


def words(response: Any) -> str:
    """What a page says: without tags, in plain spaces."""
    text = html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode()))
    return " ".join(text.replace("\u00a0", " ").split())


def campaign_fields(campaign: Campaign | None = None, **fields: str) -> dict[str, str]:
    """A campaign's form as a browser sends it, with its tiers as they stand."""
    tiers = list(campaign.tiers.order_by("frequency", "position", "amount")) if campaign else []
    sent = {
        "slug": "general",
        "name": "Newsroom",
        "description": "",
        "goal": "5000",
        "currency": "USD",
        "time_zone": "America/New_York",
        "is_open": "on",
        "tiers-TOTAL_FORMS": str(len(tiers)),
        "tiers-INITIAL_FORMS": str(len(tiers)),
        "tiers-MIN_NUM_FORMS": "0",
        "tiers-MAX_NUM_FORMS": "1000",
    }
    for number, tier in enumerate(tiers):
        sent |= {
            f"tiers-{number}-id": str(tier.pk),
            f"tiers-{number}-campaign": tier.campaign_id,
            f"tiers-{number}-frequency": tier.frequency,
            f"tiers-{number}-amount": amounts.typed_text(tier.amount_minor, str(tier.amount.currency.code)),
            f"tiers-{number}-label": tier.label,
            f"tiers-{number}-position": str(tier.position),
        }
    return sent | fields


# ---- who gets in where


# Each address, and what it answers to a manager, to finance, to staff without a group, to a superuser.
DOORS: list[tuple[str, int, int, int, int]] = [
    ("/admin/", 200, 200, 200, 200),
    (f"{ROOM}/", 200, 200, 404, 200),
    (f"{ROOM}/campaign/", 200, 403, 403, 200),
    (f"{ROOM}/campaign/add/", 200, 403, 403, 200),
    (f"{ROOM}/campaign/general/change/", 200, 403, 403, 200),
    (f"{ROOM}/campaign/general/delete/", 403, 403, 403, 200),
    (f"{ROOM}/campaign/general/history/", 200, 403, 403, 200),
    (f"{ROOM}/campaignmonth/", 200, 403, 403, 200),
    (f"{ROOM}/campaignmonth/add/", 200, 403, 403, 200),
    (f"{ROOM}/campaignmonth/MONTH/change/", 200, 403, 403, 200),
    (f"{ROOM}/campaignmonth/MONTH/delete/", 403, 403, 403, 403),
    (f"{ROOM}/gift/", 200, 200, 403, 200),
    (f"{ROOM}/gift/add/", 403, 403, 403, 403),
    (f"{ROOM}/gift/GIFT/change/", 200, 200, 403, 200),
    (f"{ROOM}/gift/GIFT/delete/", 403, 403, 403, 403),
    (f"{ROOM}/gift/GIFT/history/", 200, 200, 403, 200),
    (f"{ROOM}/gift/GIFT/refund/", 403, 200, 403, 200),
    (f"{ROOM}/recurringgift/", 200, 200, 403, 200),
    (f"{ROOM}/recurringgift/add/", 403, 403, 403, 403),
    (f"{ROOM}/recurringgift/MONTHLY/change/", 200, 200, 403, 200),
    (f"{ROOM}/recurringgift/MONTHLY/delete/", 403, 403, 403, 403),
    (f"{ROOM}/ledgerentry/", 403, 200, 403, 200),
    (f"{ROOM}/ledgerentry/add/", 403, 403, 403, 403),
    (f"{ROOM}/ledgerentry/ENTRY/change/", 403, 200, 403, 200),
    (f"{ROOM}/ledgerentry/ENTRY/delete/", 403, 403, 403, 403),
    (f"{ROOM}/payout/", 403, 200, 403, 200),
    (f"{ROOM}/payout/add/", 403, 403, 403, 403),
    (f"{ROOM}/payout/PAYOUT/change/", 403, 200, 403, 200),
    (f"{ROOM}/payout/PAYOUT/delete/", 403, 403, 403, 403),
    (f"{ROOM}/inboxevent/", 403, 200, 403, 200),
    (f"{ROOM}/inboxevent/add/", 403, 403, 403, 403),
    (f"{ROOM}/inboxevent/EVENT/change/", 403, 200, 403, 200),
    (f"{ROOM}/inboxevent/EVENT/delete/", 403, 403, 403, 403),
    (f"{ROOM}/inboxevent/EVENT/decide/", 403, 200, 403, 200),
    (f"{ROOM}/donor/", 403, 200, 403, 200),
    (f"{ROOM}/donor/add/", 403, 403, 403, 403),
    (f"{ROOM}/donor/DONOR/change/", 403, 200, 403, 200),
    (f"{ROOM}/donor/DONOR/delete/", 403, 403, 403, 403),
    (f"{ROOM}/follower/", 200, 403, 403, 200),
    (f"{ROOM}/follower/add/", 403, 403, 403, 403),
    (f"{ROOM}/follower/FOLLOWER/change/", 200, 403, 403, 200),
    (f"{ROOM}/follower/FOLLOWER/delete/", 403, 403, 403, 403),
    (f"{ROOM}/outboxmessage/", 403, 403, 403, 200),
    (f"{ROOM}/outboxmessage/MESSAGE/change/", 403, 403, 403, 200),
    (f"{ROOM}/outboxmessage/MESSAGE/delete/", 403, 403, 403, 403),
    (f"{ROOM}/exportrecord/", 403, 200, 403, 200),
    (f"{ROOM}/exportrecord/add/", 403, 403, 403, 403),
    (f"{ROOM}/exportrecord/RECORD/change/", 403, 200, 403, 200),
    (f"{ROOM}/exportrecord/RECORD/delete/", 403, 403, 403, 403),
    (f"{ROOM}/monthstatement/", 403, 200, 403, 200),
    (f"{ROOM}/monthstatement/add/", 403, 403, 403, 403),
    (f"{ROOM}/monthstatement/close/", 403, 200, 403, 200),
    (f"{ROOM}/monthstatement/STATEMENT/change/", 403, 200, 403, 200),
    (f"{ROOM}/monthstatement/STATEMENT/delete/", 403, 403, 403, 403),
    ("/admin/auth/user/", 403, 403, 403, 200),
    ("/admin/auth/group/", 403, 403, 403, 200),
    ("/staff/general/2024-11/", 200, 200, 403, 200),
]


@pytest.mark.slow
@pytest.mark.timeout(240)  # hundreds of pages
def test_each_door_opens_to_those_who_may(
    gift: Gift, quarantined: InboxEvent, follower: Follower, manager: Client, finance: Client, superuser: Client
) -> None:
    month, _ = CampaignMonth.objects.get_or_create(campaign_id="general", month="2024-11", defaults={"goal": 1})
    record = ExportRecord.objects.create(file="ledger", requested_by=make_staff())
    places = {
        "MONTH": month.pk,
        "GIFT": quote(gift.pk),
        "MONTHLY": quote(make_recurring_gift(gift.campaign).pk),
        "ENTRY": LedgerEntry.objects.get().pk,
        "EVENT": quarantined.pk,
        "DONOR": gift.donor_id,
        "FOLLOWER": follower.pk,
        "MESSAGE": OutboxMessage.objects.values_list("pk", flat=True)[0],
        "RECORD": record.pk,
        "STATEMENT": closing.close(campaign=gift.campaign, month=Month(2024, 10), user=make_staff()).pk,
        "PAYOUT": make_payout().pk,
    }
    people = (manager, finance, client_of(), superuser)
    strangers = (Client(), client_of("Finance", "Campaign managers", staff=False))
    wrong = []
    for door, *wanted in DOORS:
        address = re.sub(r"[A-Z]{2,}", lambda place: str(places[place[0]]), door)
        answers = [person.get(address).status_code for person in people]
        if answers != wanted:
            wrong.append((door, answers, wanted))
        for stranger in strangers:
            answer = stranger.get(address)
            if address.startswith("/admin/") and not (answer.status_code == 302 and "/login/" in answer["Location"]):
                wrong.append((door, [answer.status_code], [302]))
    assert not wrong


@pytest.mark.slow
def test_no_link_leads_finance_or_managers_where_they_may_not_go(
    gift: Gift, quarantined: InboxEvent, monthly: RecurringGift, follower: Follower, manager: Client, finance: Client
) -> None:
    user = make_staff()
    CampaignMonth.objects.get_or_create(campaign_id="general", month="2024-11", defaults={"goal": 1})
    ExportRecord.objects.create(file="ledger", requested_by=user)
    RefundRequest.objects.create(gift=gift, amount=500, requested_by=user)
    make_payout()
    day = NOON.date()
    for amount in (700, 2_000_000):
        offline.record_gift(
            campaign=gift.campaign, amount=amount, day=day, method="cash", reference=f"BOX {amount}", reason="a box",
            user=user,
        )  # fmt: skip
    closing.close(campaign=gift.campaign, month=Month(2024, 10), user=user)
    for person in (manager, finance):
        assert dead_links(person) == []


def dead_links(person: Client) -> list[str]:
    """The links on the admin's pages that do not answer 200, each with the page that it was found on."""
    found_on = {"/admin/": ""}
    waiting, read, dead = ["/admin/"], set[str](), []
    while waiting:
        address = waiting.pop()
        answer = person.get(address, follow=True)
        if answer.status_code != 200:
            dead.append(f"{found_on[address]}: {address} answers {answer.status_code}")
        path = address.partition("?")[0]
        if path in read or not path.startswith("/admin/"):
            continue
        read.add(path)
        for link in re.findall(r'<a [^>]*href="([^"]*)"', answer.content.decode()):
            target = urljoin(address, html.unescape(link)).partition("#")[0]
            if target.startswith("/") and target not in found_on:
                found_on[target] = address
                waiting.append(target)
    return dead


def test_what_a_person_may_not_see_is_named_without_a_link(finance: Client, superuser: Client) -> None:
    user = make_staff()
    record = ExportRecord.objects.create(file="ledger", requested_by=user)
    link = f"/admin/auth/user/{user.pk}/change/"
    for person, is_linked in ((finance, False), (superuser, True)):
        shown = person.get(page(record)).content.decode()
        assert (user.username in shown, link in shown) == (True, is_linked)
        assert 'class="form-row field-requested_by"' in shown
        assert "Requested by:" in shown


def test_a_zone_that_days_stand_in_is_kept_and_the_page_says_why(manager: Client, campaign: Campaign) -> None:
    def move_to(zone: str) -> str:
        fields = campaign_fields(Campaign.objects.get(), time_zone=zone)
        assert manager.post(page(campaign), fields).status_code == 302
        return Campaign.objects.get().time_zone

    make_gift(campaign)
    assert move_to("Asia/Tokyo") == "Asia/Tokyo"
    closing.close(campaign=campaign, month=Month(2024, 10), user=make_staff())
    assert move_to("Europe/Paris") == "Asia/Tokyo"
    assert "It cannot be changed any more: gifts, followers, offline gifts" in words(manager.get(page(campaign)))


@pytest.mark.parametrize("begun", ["gift", "follower", "adjustment"])
def test_a_zone_is_kept_from_the_first_day_that_stands_in_it(
    manager: Client, campaign: Campaign, begun: str, request: pytest.FixtureRequest
) -> None:
    if begun == "adjustment":
        user, day = make_staff(), NOON.date()
        offline.record_adjustment(campaign=campaign, amount=-500, day=day, reference="R1", reason="lost", user=user)
    else:
        request.getfixturevalue(begun)
    form = manager.get(page(campaign)).content.decode()
    assert re.search(r'<input type="text" name="time_zone"[^>]* disabled', form)


def test_totals_and_states_have_no_room() -> None:
    for model in (MonthTotal, DailyRollup, GiftState):
        assert not admin.site.is_registered(model)


def test_no_room_for_money_and_people_lets_anybody_write(superuser: Client, gift: Gift) -> None:
    request = type("Request", (), {"user": User.objects.get(is_superuser=True)})
    for model in (Gift, RecurringGift, InboxEvent, LedgerEntry, Donor, Follower, OutboxMessage, ExportRecord):
        room = admin.site.get_model_admin(model)
        assert not room.has_add_permission(request)  # type: ignore[arg-type]
        assert not room.has_change_permission(request)  # type: ignore[arg-type]
        assert not room.has_delete_permission(request)  # type: ignore[arg-type]
        assert not room.get_actions(request)  # type: ignore[arg-type]


# ---- the ledger


def test_nobody_edits_the_ledger_superusers_included(superuser: Client, gift: Gift) -> None:
    entry = LedgerEntry.objects.get()
    before = LedgerEntry.objects.values().get()
    shown = superuser.get(page(entry))
    assert b'name="_save"' not in shown.content
    assert not re.findall(r'<(?:input|select|textarea)[^>]*name="(?!csrf)', shown.content.decode().split("<main", 1)[1])
    fields = {"amount": "1", "kind": "adjustment", "_save": "Save"}
    assert superuser.post(page(entry), fields).status_code == 403
    assert superuser.post(page(entry, "delete"), {"post": "yes"}).status_code == 403
    assert superuser.post(f"{ROOM}/ledgerentry/add/", fields).status_code == 403
    action = {"action": "delete_selected", "_selected_action": str(entry.pk), "post": "yes"}
    superuser.post(f"{ROOM}/ledgerentry/", action)
    assert LedgerEntry.objects.values().get() == before


def test_an_entry_says_its_amount_and_links_to_its_gift_and_event(finance: Client, gift: Gift) -> None:
    shown = finance.get(page(LedgerEntry.objects.get()))
    assert "500 $" in words(shown)
    assert page(gift) in shown.content.decode()
    assert page(InboxEvent.objects.get()) in shown.content.decode()


@pytest.mark.parametrize("search", ["reference", "gift_id"])
def test_an_entry_is_found_by_its_reference_and_its_gift(finance: Client, gift: Gift, search: str) -> None:
    term = LedgerEntry.objects.values_list(search, flat=True).get()
    assert "1 ledger entry" in words(finance.get(f"{ROOM}/ledgerentry/", {"q": term}))
    assert "0 ledger entries" in words(finance.get(f"{ROOM}/ledgerentry/", {"q": str(term)[:-1]}))


# ---- gifts


def test_a_gift_shows_its_figures_entries_and_events(finance: Client, gift: Gift) -> None:
    deliver(refund_event(gift, 12000, refund="re_1"))
    inbox.drain()
    shown = finance.get(page(gift))
    text = words(shown)
    for figure in ("500 $", "120 $", "−120 $", "380 $", "confirmed, refunded in part"):
        assert figure in text
    assert "checkout.session.completed" in text
    assert "refund.created" in text
    for entry in LedgerEntry.objects.all():
        assert page(entry) in shown.content.decode()
    for event in InboxEvent.objects.all():
        assert page(event) in shown.content.decode()


def test_a_gift_shows_its_fee_and_where_its_money_is_and_its_payout_what_it_is_made_of(
    finance: Client, manager: Client, gift: Gift
) -> None:
    payout = make_payout()
    fact = TransactionSeen(
        "txn_1", "charge", "ch_1", "pi_1", 50000, 1480, 48520, "USD", "", NOON, NOON, payout.reference
    )
    settlements.record_transactions("stripe", [(fact, gift.pk, False)])
    shown = words(finance.get(page(gift)))
    assert "In the processor’s books" in shown
    assert "14.80 $" in shown
    assert "reached the bank on 18 November 2024" in shown
    assert "In the processor’s books" not in words(manager.get(page(gift)))
    shown = words(finance.get(page(payout)))
    assert gift.pk in shown
    assert "Together 485.20 $" in shown


def test_a_gift_names_the_payout_that_carries_it_now_and_the_one_that_it_came_back_from(
    finance: Client, gift: Gift
) -> None:
    failed, carrier = make_payout("po_1", status="failed"), make_payout("po_2")
    gone, back = ("txn_1", "charge", "ch_1", "pi_1"), ("txn_2", "payout_failure", failed.reference, "")
    for names, of_gift, payout in ((gone, gift.pk, failed), (back, "", carrier)):
        fact = TransactionSeen(*names, 50000, 0, 50000, "USD", "", NOON, NOON, payout.reference)
        settlements.record_transactions("stripe", [(fact, of_gift, False)])
    shown = finance.get(page(gift))
    assert f'<a href="{page(carrier)}">po_2</a>, after it came back from po_1' in shown.content.decode()
    assert "reached the bank on 18 November 2024" in words(shown)


def test_a_payout_is_found_by_its_id_and_by_what_it_carried(finance: Client, gift: Gift) -> None:
    payout, other = make_payout("po_1"), make_payout("po_2")
    fact = TransactionSeen("txn_1", "charge", "ch_1", "pi_1", 1, 0, 1, "USD", "", NOON, NOON, "po_1")
    settlements.record_transactions("stripe", [(fact, gift.pk, False)])
    for term in ("po_1", "txn_1"):
        shown = words(search(finance, "payout", term))
        assert payout.reference in shown
        assert other.reference not in shown


def test_a_gift_leads_finance_to_no_page_that_they_may_not_see(finance: Client, gift: Gift) -> None:
    assert f"{ROOM}/campaign/" not in finance.get(page(gift)).text


def test_a_gift_that_nothing_was_heard_of_is_pending(finance: Client, campaign: Campaign) -> None:
    gift = make_gift(campaign)
    text = words(finance.get(page(gift)))
    assert "pending" in text
    assert "Refund…" not in text
    assert "1 gift" in words(finance.get(f"{ROOM}/gift/", {"status": "pending"}))
    assert "0 gifts" in words(finance.get(f"{ROOM}/gift/", {"status": "confirmed"}))


def test_a_gift_opens_by_its_reference_as_it_reads(finance: Client, campaign: Campaign) -> None:
    gift = make_gift(campaign, reference="gift_22aaaaaaaaaaaaaaaaaaaaaaaa")  # Django reads _22 in an address as a quote
    for written in (gift.pk, quote(gift.pk)):
        assert gift.pk in words(finance.get(f"{ROOM}/gift/{written}/change/"))


def test_nobody_changes_a_gift(superuser: Client, gift: Gift) -> None:
    assert superuser.post(page(gift), {"amount": "1"}).status_code == 403
    assert superuser.post(page(gift, "delete"), {"post": "yes"}).status_code == 403
    gift.refresh_from_db()
    assert gift.amount == 50000


# ---- personal data


def test_managers_meet_no_personal_data(manager: Client, gift: Gift, follower: Follower) -> None:
    for address in (f"{ROOM}/gift/", page(gift), f"{ROOM}/follower/", page(follower), page(follower, "history")):
        answer = manager.get(address)
        assert answer.status_code == 200
        for secret in ("secret@", "Sylvia", "village", "follows@", "Flora"):
            assert secret not in answer.content.decode(), (address, secret)
    assert "anonymous" in words(manager.get(f"{ROOM}/gift/"))


def test_a_name_that_is_shown_to_the_public_is_shown_to_managers(manager: Client, gift: Gift) -> None:
    Gift.objects.update(anonymous=False)
    text = words(manager.get(page(gift)))
    assert "Sylvia Secret" in text
    assert "For my village" in text
    assert "secret@" not in text


def test_finance_sees_who_gave(finance: Client, gift: Gift) -> None:
    text = words(finance.get(page(gift)))
    assert "secret@example.org" in text
    assert "For my village" in text
    assert gift.pk in words(finance.get(page(gift.donor)))


def search(client: Client, room: str, term: str, **filters: str) -> Any:
    """Press the button of a list's search field, and go where it leads."""
    shown = client.get(f"{ROOM}/{room}/", filters).content.decode()
    form = re.search(r'id="changelist-search" method="post" action="([^"]*)"', shown)
    assert form
    return client.post(html.unescape(form[1]), {"q": term}, follow=True)


@pytest.mark.parametrize("term", ["secret@example.org", "SECRET@example.org"])
def test_only_those_who_may_see_donors_search_by_address(
    manager: Client, finance: Client, gift: Gift, term: str
) -> None:
    make_gift(gift.campaign)
    refused = words(search(manager, "gift", term))
    assert "Only those who may see donors can search by their addresses or names." in refused
    assert "2 gifts" in refused
    assert "2 gifts" in words(search(manager, "gift", "nobody@example.org"))
    assert "0 gifts" in words(manager.get(f"{ROOM}/gift/", {"q": f"donor:{gift.donor_id}"}))
    assert "1 gift" in words(search(finance, "gift", term))
    assert "email" in words(finance.get(f"{ROOM}/gift/"))
    assert "email" not in words(manager.get(f"{ROOM}/gift/"))


@pytest.mark.parametrize("term", ["Sylvia", "village", "secret", "%", "Class 4b", "gift_", ""])
def test_a_search_finds_nothing_by_what_is_not_named_in_full(
    manager: Client, gift: Gift, follower: Follower, term: str
) -> None:
    shown = words(manager.get(f"{ROOM}/gift/", {"q": term}, follow=True))
    names_somebody = term in {"Sylvia", "village", "secret", "%", "Class 4b"}
    assert ("0 gifts" if term == "gift_" else "1 gift") in shown
    assert ("it does not belong in the address of a page" in shown) == names_somebody
    refused = "Only those who may see donors can search by their addresses or names."
    assert (refused in words(search(manager, "gift", term))) == names_somebody
    assert "1 follower" in words(manager.get(f"{ROOM}/follower/", {"q": "follows@example.org"}, follow=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "term", "count"),
    [
        ("gift", "secret@example.org", "1 gift"),
        ("donor", " Secret@Example.org ", "1 donor"),
        ("donor", "sylvia secret", "1 donor"),
        ("follower", "follows@example.org", "1 follower"),
        ("follower", "Flora Follows", "1 follower"),
        ("gift", "Sylvia Secret", "1 gift"),
        ("gift", "nobody@example.org", "No donor has this address or name."),
        ("donor", "Sylvia", "No donor has this address or name."),
        ("ledgerentry", "secret@example.org", "Nothing is found here by an email address."),
        ("inboxevent", "secret@example.org", "Nothing is found here by an email address."),
    ],
)
def test_what_is_searched_for_never_stands_in_an_address(
    superuser: Client, gift: Gift, follower: Follower, room: str, term: str, count: str
) -> None:
    make_gift(gift.campaign)
    answer = search(superuser, room, term, livemode__exact="0") if room != "donor" else search(superuser, room, term)
    assert answer.status_code == 200
    assert count in words(answer)
    links = re.findall(r'(?:href|action)="([^"]*)"', answer.content.decode())
    for address in (*links, *(address for address, _ in answer.redirect_chain)):
        assert not re.search(r"secret|sylvia|flora|nobody|@|%40", address, re.IGNORECASE)
    if room != "donor":
        assert "livemode__exact=0" in answer.redirect_chain[-1][0]


@pytest.mark.parametrize(("room", "term"), [("gift", "secret@example.org"), ("donor", "Sylvia Secret")])
def test_an_address_in_the_address_of_a_page_is_not_searched_for(
    superuser: Client, gift: Gift, room: str, term: str
) -> None:
    make_gift(gift.campaign)
    answer = superuser.get(f"{ROOM}/{room}/", {"q": term, "p": "3"}, follow=True)
    assert answer.redirect_chain == [(f"{ROOM}/{room}/", 302)]
    assert "Type it into the search field" in words(answer)
    assert f'value="{term}"' not in answer.content.decode()


def test_a_search_needs_the_right_and_a_token(manager: Client, gift: Gift) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.filter(groups__name="Campaign managers").get())
    assert strict.post(f"{ROOM}/gift/", {"q": gift.pk}).status_code == 403
    assert manager.post(f"{ROOM}/donor/", {"q": "secret@example.org"}).status_code == 403
    assert manager.post(f"{ROOM}/ledgerentry/", {"q": "x"}).status_code == 403
    shown = manager.get(f"{ROOM}/gift/").content.decode()
    assert "csrfmiddlewaretoken" in shown.split('id="changelist-search"')[1].split("</form>")[0]


def test_a_search_for_what_names_nobody_keeps_its_words_and_the_filters(manager: Client, gift: Gift) -> None:
    answer = search(manager, "gift", gift.pk, status="confirmed")
    assert answer.redirect_chain == [(f"{ROOM}/gift/?status=confirmed&q={gift.pk}", 302)]
    assert "1 gift" in words(answer)


@pytest.mark.parametrize("field", ["pk", "payment", "checkout_id"])
def test_a_gift_is_found_by_its_reference_payment_and_checkout(manager: Client, gift: Gift, field: str) -> None:
    Gift.objects.update(checkout_id="cs_test_found")
    term = {"pk": gift.pk, "payment": f"pi_{gift.pk[5:]}", "checkout_id": "cs_test_found"}[field]
    assert "1 gift" in words(manager.get(f"{ROOM}/gift/", {"q": term}))


# ---- monthly gifts


def test_a_monthly_gift_shows_what_it_asks_now_beside_what_was_asked_for(
    finance: Client, monthly: RecurringGift
) -> None:
    now = {"now_amount": 2000, "now_fee_cover": 61, "now_currency": "USD", "now_interval": "month"}
    RecurringGift.objects.update(**now)
    shown = words(finance.get(page(monthly)))
    assert "20 $ each month, and 0.61 $ for the processor’s fee" in shown
    assert "10 $ each month" in shown
    listed = f"{ROOM}/recurringgift/"
    assert "20.61 $ past due" in words(finance.get(listed))
    RecurringGift.objects.update(now_interval="3 months")
    assert "20.61 $ every 3 months past due" in words(finance.get(listed))


@pytest.mark.parametrize(
    "fields",
    [
        {"subscription": "", "status": "pending"},
        {"subscription": "", "status": "expired"},
        {"status": "incomplete_expired"},
        {"status": "canceled"},
    ],
)
def test_a_monthly_gift_that_never_began_or_is_over_asks_nothing(
    finance: Client, monthly: RecurringGift, fields: dict[str, str]
) -> None:
    now = {"now_amount": 2000, "now_fee_cover": 0, "now_currency": "USD", "now_interval": "month"}
    for told in ({}, now):
        RecurringGift.objects.update(**told, **fields)
        shown = words(finance.get(page(monthly)))
        assert "Asks now: – " in shown
        assert "10 $ each month" in shown


def test_a_monthly_gift_shows_where_it_stands_its_gifts_and_what_failed(
    finance: Client, monthly: RecurringGift
) -> None:
    shown = words(finance.get(page(monthly)))
    assert "not told as a fixed sum: what was asked for is shown" in shown
    for said in ("past due", "10 $ each month", "reader@example.org", "not paid in_2 queued not paid yet"):
        assert said in shown
    assert f"{monthly.gifts.get().pk} 10 $ confirmed 2024-11" in shown
    assert "customer.subscription.updated" in shown
    deliver(invoice_paid_event(monthly, invoice="in_2"))
    inbox.drain()
    assert "not paid in_2 queued paid since" in words(finance.get(page(monthly)))


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("invoice.paid", {"status": "paid"}, "paid since"),
        ("invoice.voided", {"status": "void"}, "called off since: not asked for any more"),
        ("invoice.marked_uncollectible", {"status": "uncollectible"}, "written off, not paid"),
        ("invoice.finalized", {"status": "open"}, "not paid yet"),
        ("invoice.payment_failed", {"status": "open", "amount_due": 2000, "currency": "usd"}, "paid in part"),
    ],
)
def test_what_became_of_an_invoice_that_failed_is_said(
    finance: Client, monthly: RecurringGift, kind: str, fields: dict[str, Any], said: str
) -> None:
    deliver(invoice_event(monthly, kind, invoice="in_2", **fields))
    inbox.drain()
    if said == "paid in part":
        deliver(invoice_paid_event(monthly, invoice="in_2"))
        inbox.drain()
    assert f"not paid in_2 queued {said}" in words(finance.get(page(monthly)))


def test_a_gift_leads_to_its_monthly_gift_and_back(finance: Client, monthly: RecurringGift) -> None:
    gift = monthly.gifts.get()
    assert page(monthly) in finance.get(page(gift)).content.decode()
    assert page(gift) in finance.get(f"{ROOM}/recurringgift/{monthly.pk}/change/").content.decode()


def test_managers_see_monthly_gifts_without_their_donors(manager: Client, monthly: RecurringGift) -> None:
    for address in (page(monthly), f"{ROOM}/recurringgift/"):
        shown = words(manager.get(address))
        assert "past due" in shown
        assert "Mona" not in shown
        assert "reader@example.org" not in shown


@pytest.mark.parametrize("term", ["PK", "SUBSCRIPTION", "Reader@example.org"])
def test_a_monthly_gift_is_found_by_its_ids_and_its_donor(finance: Client, monthly: RecurringGift, term: str) -> None:
    term = {"PK": monthly.pk, "SUBSCRIPTION": monthly.subscription}.get(term, term)
    make_recurring_gift(monthly.campaign)
    found = finance.post(f"{ROOM}/recurringgift/", {"q": term}, follow=True)
    assert [row.pk for row in found.context["cl"].queryset] == [monthly.pk]


def test_those_that_failed_are_filtered_out_of_all(finance: Client, monthly: RecurringGift) -> None:
    make_recurring_gift(monthly.campaign, status="active")
    rows = finance.get(f"{ROOM}/recurringgift/?status=failing").context["cl"].queryset
    assert list(rows) == [monthly]


@pytest.mark.parametrize(
    ("room", "lookup"),
    [
        ("gift", "donor__email__startswith=s"),
        ("gift", "public_name__startswith=S"),
        ("gift", "message__contains=village"),
        ("gift", "checkout_parameters__customer_email=x"),
        ("gift", "state__payment__startswith=p"),
        ("recurringgift", "donor__email__startswith=s"),
        ("follower", "donor__name__startswith=F"),
        ("follower", "donor__id__exact=1"),
    ],
)
def test_an_address_does_not_tell_what_its_page_hides(manager: Client, gift: Gift, room: str, lookup: str) -> None:
    assert manager.get(f"{ROOM}/{room}/?{lookup}").status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "gift/?campaign__slug__exact=general&status=confirmed&livemode__exact=0",
        "recurringgift/?campaign__slug__exact=general&status=failing&livemode__exact=0",
        "ledgerentry/?campaign__slug__exact=general&kind__exact=gift&livemode__exact=0",
        "inboxevent/?state__exact=processed&livemode__exact=0",
        "inboxevent/?state__exact=all&q=x&p=1",
        "follower/?campaign__slug__exact=general&livemode__exact=0",
        "outboxmessage/?state__exact=queued&kind__exact=receipt",
        "exportrecord/?file=ledger",
        "exportrecord/?q=x",
        "monthstatement/?q=x",
        "campaignmonth/?campaign__slug__exact=general",
        "donor/?q=Sylvia+Secret",
        "gift/?status=nonsense",
        "gift/?p=999",
        "gift/?all=",
    ],
)
def test_every_filter_that_is_offered_works(superuser: Client, gift: Gift, path: str) -> None:
    make_campaign("second")
    assert superuser.get(f"{ROOM}/{path}", follow=True).status_code == 200
    base = path.split("?")[0]
    for link in re.findall(r'href="(\?[^"]+)"', superuser.get(f"{ROOM}/{base}").content.decode()):
        assert superuser.get(f"{ROOM}/{base}{html.unescape(link)}").status_code == 200, link


def test_a_mail_servers_words_are_for_those_who_may_see_donors(gift: Gift) -> None:
    OutboxMessage.objects.update(last_error="refused: secret@example.org")
    address = page(OutboxMessage.objects.get())
    permitted = Client()
    permitted.force_login(make_staff("view_outboxmessage"))
    assert "secret@" not in permitted.get(address).content.decode()
    permitted.force_login(make_staff("view_outboxmessage", "view_donor"))
    assert "secret@" in permitted.get(address).content.decode()


# ---- refunds


@pytest.fixture
def processor(box: Sandboxed) -> Iterator[list[tuple[str, int, str]]]:
    """The refunds that the sandbox was asked for: the payment, the amount, and the key."""
    calls: list[tuple[str, int, str]] = []
    ours, app = connections["default"], box.running.server.get_app()

    def recording(environ: dict[str, Any], start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("POST", "/v1/refunds"):
            form = dict(parse_qsl(body.decode()))
            calls.append((form["payment_intent"], int(form["amount"]), environ["HTTP_IDEMPOTENCY_KEY"]))
            within_transaction.append(len(ours.savepoint_ids) > 0)
        return app(environ | {"wsgi.input": io.BytesIO(body)}, start_response)

    within_transaction: list[bool] = []
    box.running.server.set_app(recording)
    yield calls
    assert not any(within_transaction), "called within a transaction"


def paid_there(box: Sandboxed, campaign: Campaign, amount: int = 50000, *, currency: str = "") -> Gift:
    """A confirmed gift whose payment the sandbox has, in a currency of its own if told so."""
    gift = make_gift(campaign, amount)
    session = box.checkout(amount, (currency or campaign.currency).lower())
    confirm(gift, payment=box.control(f"sessions/{session['id']}/pay")["payment_intent"])
    return gift


@pytest.fixture
def paid(box: Sandboxed, campaign: Campaign) -> Gift:
    return paid_there(box, campaign)


def ask(client: Client, gift: Gift, amount: str, *, left: str = "50000", reason: str = "") -> Any:
    fields = {"amount": amount, "reason": reason, "left": left, "key": RefundForm(gift, 0).fresh_key}
    return client.post(page(gift, "refund"), fields)


def test_the_page_offers_what_is_left(finance: Client, gift: Gift) -> None:
    shown = finance.get(page(gift))
    assert page(gift, "refund") in shown.content.decode()
    form = finance.get(page(gift, "refund")).content.decode()
    assert 'name="amount" value="500"' in form
    assert 'name="left" value="50000"' in form


def test_a_refund_is_asked_for_and_the_ledger_waits_for_the_event(
    finance: Client, paid: Gift, processor: list[tuple[str, int, str]]
) -> None:
    answer = ask(finance, paid, "120.50", reason="wrong amount typed")
    assert answer.status_code == 302
    assert answer["Location"] == page(paid)
    asked = RefundRequest.objects.get()
    assert (asked.amount, asked.reason, asked.status) == (12050, "wrong amount typed", "accepted")
    assert asked.requested_by_id == int(finance.session["_auth_user_id"])
    assert [(payment, amount) for payment, amount, _ in processor] == [(GiftState.objects.get().payment, 12050)]
    assert LedgerEntry.objects.count() == 1
    text = words(finance.get(page(paid)))
    assert "change when the processor’s event comes" in text
    assert "wrong amount typed" in text
    assert 'value="379.50"' in finance.get(page(paid, "refund")).content.decode()
    assert "refund of 120.50 $" in LogEntry.objects.get().change_message.replace("\u00a0", " ")


@pytest.mark.parametrize("typed", ["0", "-5", "500.01", "1.234", "abc", "", "1,00", "٥٠", "9" * 50, "0,500"])
def test_an_amount_that_cannot_be_given_back_is_refused_in_words(
    finance: Client, paid: Gift, processor: list[tuple[str, int, str]], typed: str
) -> None:
    answer = ask(finance, paid, typed, reason="kept as typed")
    assert answer.status_code == 422
    assert "kept as typed" in answer.content.decode()
    assert "errorlist" in answer.content.decode()
    assert not processor
    assert not RefundRequest.objects.exists()


@pytest.mark.parametrize(("currency", "odd", "taken"), [("ISK", "10.50", "10"), ("KWD", "1.001", "1.010")])
def test_a_refund_is_of_an_amount_that_the_processor_can_move(
    finance: Client, box: Sandboxed, processor: list[tuple[str, int, str]], currency: str, odd: str, taken: str
) -> None:
    gift = paid_there(box, make_campaign("other", currency=currency, is_default=False))
    answer = ask(finance, gift, odd)
    assert answer.status_code == 422
    assert f"In {currency} an amount must be a multiple of" in words(answer)
    assert not processor
    assert ask(finance, gift, taken).status_code == 302
    assert len(processor) == 1


def test_all_that_is_left_is_given_back_however_odd_it_is(
    finance: Client, box: Sandboxed, processor: list[tuple[str, int, str]]
) -> None:
    # No checkout takes such an amount any more; of dollars it does.
    gift = paid_there(box, make_campaign("other", currency="ISK", is_default=False), amount=50050, currency="USD")
    answer = ask(finance, gift, "500.20", left="50050")
    assert "Type a multiple of 1 ISK, or 500.50 ISK, which is all that is left of this gift." in words(answer)
    assert ask(finance, gift, "500.50", left="50050").status_code == 302
    assert [amount for _, amount, _ in processor] == [50050]


def test_what_the_payment_service_refuses_is_said_and_nothing_typed_is_lost(
    finance: Client, box: Sandboxed, paid: Gift
) -> None:
    box.control("disputes", payment_intent=GiftState.objects.get().payment)
    answer = ask(finance, paid, "100", reason="my reason")
    assert answer.status_code == 422
    assert "The payment service refused it: this payment is disputed. Answer or accept the dispute" in words(answer)
    assert "charged back" not in words(answer)
    assert 'value="100"' in answer.content.decode()
    assert 'value="my reason"' in answer.content.decode()
    assert RefundRequest.objects.get().status == "refused"
    assert GiftState.objects.get().refund_requested == 0
    assert "refused by the processor" in words(finance.get(page(paid)))


def test_a_payment_service_that_does_not_answer_is_said_too(finance: Client, box: Sandboxed, gift: Gift) -> None:
    box.control("trouble", mode="down")
    answer = ask(finance, gift, "100")
    assert answer.status_code == 302
    assert "sent again by itself" in words(finance.get(answer["Location"]))
    assert RefundRequest.objects.get().status == "sending"


def test_a_second_click_asks_for_nothing(finance: Client, paid: Gift, processor: list[tuple[str, int, str]]) -> None:
    assert ask(finance, paid, "100").status_code == 302
    again = ask(finance, paid, "100")
    assert again.status_code == 422
    assert "Since this page was opened" in words(again)
    assert 'name="left" value="40000"' in again.content.decode()
    assert len(processor) == 1
    assert ask(finance, paid, "100", left="40000").status_code == 302


def test_a_second_press_of_the_same_button_finds_the_refund_of_the_first(
    finance: Client, paid: Gift, processor: list[tuple[str, int, str]]
) -> None:
    shown = finance.get(page(paid, "refund")).content.decode()
    fields = dict(re.findall(r'name="(left|key|amount)" value="([^"]*)"', shown))
    assert finance.post(page(paid, "refund"), fields | {"amount": "100"}).status_code == 302
    # Again, changed, and as if it had been pressed before the first was booked.
    for again in ({"amount": "100"}, {"amount": "70"}, {"amount": "100", "left": "40000"}):
        answer = finance.post(page(paid, "refund"), fields | again, follow=True)
        assert answer.redirect_chain == [(page(paid), 302)]
        assert "has asked for a refund of 100 $ before, which is taken by the processor" in words(answer)
    asked = RefundRequest.objects.get()
    assert [(amount, key) for _, amount, key in processor] == [(10000, asked.key)]
    assert LogEntry.objects.count() == 1
    fresh = re.findall(r'name="key" value="([^"]*)"', finance.get(page(paid, "refund")).content.decode())
    assert fresh != [fields["key"]]


@pytest.mark.parametrize("key", ["", "refund_" + "0" * 32, "nonsense:signature"])
def test_a_refund_without_a_key_that_we_signed_is_not_asked_for(
    finance: Client, campaign: Campaign, paid: Gift, processor: list[tuple[str, int, str]], key: str
) -> None:
    of_another = RefundForm(make_gift(campaign), 0).fresh_key
    for sent in (key, of_another):
        answer = finance.post(page(paid, "refund"), {"amount": "100", "left": "50000", "key": sent})
        assert answer.status_code == 422
        assert "This page is not whole any more" in words(answer)
    assert not processor


def test_a_refund_needs_the_right_a_post_and_a_token(manager: Client, gift: Gift) -> None:
    user = make_staff("view_gift", "add_refundrequest")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(user)
    assert ask(strict, gift, "100").status_code == 403
    assert ask(manager, gift, "100").status_code == 403
    assert strict.get(page(gift, "refund"), {"amount": "100", "left": "50000"}).status_code == 200
    assert strict.delete(page(gift, "refund")).status_code in {403, 405}
    assert not RefundRequest.objects.exists()
    assert "Refund…" not in words(manager.get(page(gift)))


def test_nothing_is_offered_where_nothing_is_left(finance: Client, gift: Gift, settings: Any) -> None:
    deliver(refund_event(gift, 50000))
    inbox.drain()
    assert "Refund…" not in words(finance.get(page(gift)))
    answer = finance.get(page(gift, "refund"))
    assert answer.status_code == 302
    assert "Nothing of this gift can be given back" in words(finance.get(answer["Location"]))
    assert ask(finance, gift, "1", left="0").status_code == 422


def test_a_refund_that_is_on_its_way_is_shown_and_not_offered_again(finance: Client, gift: Gift) -> None:
    assert "Refunds on their way: –" in words(finance.get(page(gift)))
    deliver(refund_event(gift, 30000, refund="re_1", status="pending"))
    inbox.drain()
    assert "Refunds on their way: 300 $, not asked for here (re_1)" in words(finance.get(page(gift)))
    shown = words(finance.get(page(gift, "refund")))
    assert "200 $ can be given back" in shown
    assert "Other refunds on their way 300 $" in shown
    deliver(refund_event(gift, 20000, refund="re_2", status="pending"))
    inbox.drain()
    assert "Refund…" not in words(finance.get(page(gift)))
    assert ask(finance, gift, "1").status_code == 422


def test_a_refund_that_was_called_off_at_the_processor_is_said_so(finance: Client, gift: Gift) -> None:
    asked = RefundRequest.objects.create(gift=gift, amount=10000)
    assert projections.reserve_refund(gift=gift.pk, amount=10000)
    for status in ("pending", "canceled"):
        deliver(refund_event(gift, 10000, refund="re_1", status=status, metadata={"request": asked.key}))
        inbox.drain()
    shown = words(finance.get(page(gift)))
    assert "called off at the processor: nothing was given back" in shown
    assert "came back" not in shown


@pytest.mark.parametrize(
    ("refunded", "disputed", "said"),
    [
        (0, 50000, "confirmed, disputed"),
        (0, 60000, "confirmed, disputed"),
        (0, 20000, "confirmed, disputed in part"),
        (10000, 40000, "confirmed, disputed in part, refunded in part"),
        (50000, 0, "confirmed, refunded"),
    ],
)
def test_a_gift_that_is_disputed_or_refunded_is_listed_so(
    finance: Client, gift: Gift, refunded: int, disputed: int, said: str
) -> None:
    GiftState.objects.update(refunded=refunded, disputed=disputed)
    assert f"500 $ {said} " in words(finance.get(f"{ROOM}/gift/"))
    assert f"Status: {said} " in words(finance.get(page(gift)))


def test_a_gift_of_the_other_mode_is_not_refunded_with_this_key(
    finance: Client, gift: Gift, go_live: Callable[[], None]
) -> None:
    go_live()
    assert "Refund…" not in words(finance.get(page(gift)))
    assert ask(finance, gift, "1").status_code == 422


@pytest.fixture
def unanswered(gift: Gift) -> RefundRequest:
    return unanswered_of(gift)


def unanswered_of(gift: Gift) -> RefundRequest:
    """A refund of 100 $ that the payment service did not answer, so long ago that it is not sent again."""
    assert projections.reserve_refund(gift=gift.pk, amount=10000)
    asked = RefundRequest.objects.create(gift=gift, amount=10000)
    RefundRequest.objects.update(requested_at=timezone.now() - timedelta(hours=23))
    return asked


def give_up(asked: RefundRequest) -> str:
    return page(asked.gift, f"refund/{asked.pk}/give-up")


def test_a_refund_without_an_answer_is_told_on_its_gift_with_what_to_do(
    finance: Client, gift: Gift, unanswered: RefundRequest
) -> None:
    shown = words(finance.get(page(gift)))
    assert "no answer for 23 hours, and not sent again" in shown
    assert "Look for it in the payment service’s dashboard" in shown
    assert give_up(unanswered) in finance.get(page(gift)).content.decode()
    RefundRequest.objects.update(requested_at=timezone.now() - timedelta(hours=22))
    assert "no answer" not in words(finance.get(page(gift)))


def test_a_refund_that_is_not_at_the_processor_is_given_up_and_can_be_asked_for_anew(
    finance: Client, paid: Gift, processor: list[tuple[str, int, str]]
) -> None:
    unanswered = unanswered_of(paid)
    for _ in range(2):
        answer = finance.post(give_up(unanswered), follow=True)
        assert answer.redirect_chain == [(page(paid), 302)]
    unanswered.refresh_from_db()
    assert unanswered.status == "given_up"
    assert GiftState.objects.get().refund_requested == 0
    assert [entry.change_message for entry in LogEntry.objects.all()] == ["Gave up a refund of 100\u00a0$."]
    assert ask(finance, paid, "500").status_code == 302
    assert [amount for _, amount, _ in processor] == [50000]


def test_a_refund_that_was_given_up_and_comes_all_the_same_is_booked_once(
    finance: Client, gift: Gift, unanswered: RefundRequest
) -> None:
    finance.post(give_up(unanswered))
    deliver(refund_event(gift, 10000, metadata={"request": unanswered.key}))
    inbox.drain()
    state = GiftState.objects.get()
    assert (state.refunded, state.refund_requested, state.counted) == (10000, 0, 40000)
    assert "400 $ can be given back" in words(finance.get(page(gift, "refund")))
    assert projections.drift() == []


def test_only_an_unanswered_refund_is_given_up_and_by_finance_alone(
    finance: Client, manager: Client, gift: Gift, unanswered: RefundRequest, campaign: Campaign
) -> None:
    assert manager.post(give_up(unanswered)).status_code == 403
    # Who had to sign in on the way comes by GET.
    assert finance.get(give_up(unanswered)).headers["Location"] == page(gift)
    assert finance.put(give_up(unanswered)).status_code == 405
    assert finance.post(page(make_gift(campaign), f"refund/{unanswered.pk}/give-up")).status_code == 404
    RefundRequest.objects.update(requested_at=timezone.now())
    assert "is still being sent" in words(finance.post(give_up(unanswered), follow=True))
    assert RefundRequest.objects.get().status == "sending"
    assert not LogEntry.objects.exists()


def test_an_unknown_gift_has_no_refund_page(finance: Client, campaign: Campaign) -> None:
    assert finance.get(f"{ROOM}/gift/gift_nothing/refund/").status_code == 404


# ---- the inbox


def decide(client: Client, event: InboxEvent, decision: str, reason: str = "") -> Any:
    return client.post(page(event, "decide"), {"decision": decision, "reason": reason})


def test_the_list_shows_first_what_needs_a_person(finance: Client, quarantined: InboxEvent) -> None:
    text = words(finance.get(f"{ROOM}/inboxevent/"))
    assert "1 inbox event" in text
    assert "paid twice" in text
    assert "2 inbox events" in words(finance.get(f"{ROOM}/inboxevent/", {"state__exact": "all"}))
    assert "1 inbox event" in words(finance.get(f"{ROOM}/inboxevent/", {"state__exact": "quarantined"}))
    processed = InboxEvent.objects.get(state="processed")
    assert "1 inbox event" in words(finance.get(f"{ROOM}/inboxevent/", {"q": processed.event_id}))


def test_an_event_shows_its_facts_and_its_body_to_those_who_may_see_donors(
    finance: Client, quarantined: InboxEvent
) -> None:
    shown = words(finance.get(page(quarantined)))
    assert '"kind": "paid"' in shown
    assert "second@example.org" in shown
    assert "paid twice" in shown
    plain = Client()
    plain.force_login(make_staff("view_inboxevent", "change_inboxevent"))
    for address in (page(quarantined), page(quarantined, "decide")):
        text = words(plain.get(address))
        assert '"kind": "paid"' in text
        assert "second@" not in text
    assert plain.get(f"{ROOM}/inboxevent/?body__contains=second").status_code == 400


@pytest.mark.parametrize("body", [None, b"\xff\xfe not JSON", b"[" * 50_000, b'{"a": "<script>"}', rb'{"a": "\ud83d"}'])
def test_any_body_can_be_looked_at(finance: Client, quarantined: InboxEvent, body: bytes | None) -> None:
    InboxEvent.objects.filter(pk=quarantined.pk).update(body=body)
    shown = finance.get(page(quarantined))
    assert shown.status_code == 200
    assert "<script>" not in shown.content.decode().split('id="inboxevent_form"')[1].split("submit-row")[0]


def test_accepting_books_it(finance: Client, quarantined: InboxEvent) -> None:
    answer = decide(finance, quarantined, "accept", "they meant to give twice")
    assert answer.status_code == 302
    assert "accepted and booked" in words(finance.get(answer["Location"]))
    quarantined.refresh_from_db()
    assert (quarantined.state, quarantined.decision) == ("processed", "accept")
    assert quarantined.decision_reason == "they meant to give twice"
    assert quarantined.decided_by_id == int(finance.session["_auth_user_id"])
    assert LedgerEntry.objects.count() == 2
    assert "they meant to give twice" in words(finance.get(page(quarantined)))


@pytest.mark.parametrize("decision", ["accept", "dismiss", "replay"])
def test_the_banner_tells_at_once_what_a_decision_settled(
    finance: Client, quarantined: InboxEvent, decision: str
) -> None:
    watching.look()
    asked = "1 payment came for a gift that was paid already."
    assert asked in words(finance.get(page(quarantined)))
    settled = decision != "replay"  # read again, it is still paid twice
    answer = decide(finance, quarantined, decision, "asked them")
    assert (asked in words(finance.get(answer["Location"]))) == (not settled)


def test_dismissing_needs_a_reason_and_books_nothing(finance: Client, quarantined: InboxEvent) -> None:
    answer = decide(finance, quarantined, "dismiss", "  ")
    assert answer.status_code == 422
    assert "Give a reason" in words(answer)
    assert InboxEvent.objects.get(pk=quarantined.pk).state == "quarantined"
    assert decide(finance, quarantined, "dismiss", "returned by hand").status_code == 302
    quarantined.refresh_from_db()
    assert (quarantined.state, quarantined.decision_reason) == ("dismissed", "returned by hand")
    assert LedgerEntry.objects.count() == 1


def test_a_decision_that_somebody_else_has_taken_is_said(finance: Client, quarantined: InboxEvent) -> None:
    assert decide(finance, quarantined, "dismiss", "first").status_code == 302
    answer = decide(finance, quarantined, "accept", "second")
    assert answer.status_code == 422
    assert "not in quarantine any more" in words(answer)
    assert "second" in answer.content.decode()
    assert 'value="accept"' not in answer.content.decode()
    assert LedgerEntry.objects.count() == 1


def test_what_cannot_be_booked_is_said(finance: Client, campaign: Campaign, gift: Gift) -> None:
    told = checkout_event(gift, payment="pi_x", currency="eur")
    told["data"]["object"]["currency"] = "eur"
    other = make_gift(campaign)
    told["data"]["object"]["metadata"]["gift"] = told["data"]["object"]["client_reference_id"] = other.pk
    deliver(told)
    inbox.drain()
    event = InboxEvent.objects.get(event_id=told["id"])
    asked = finance.get(page(event, "decide"))
    assert "It cannot be accepted All movements of a gift are in its currency" in words(asked)
    assert "this payment cannot be booked as this gift’s. Refund it" in words(asked)
    assert "Refund it in the processor’s dashboard" in words(asked)
    answer = decide(finance, event, "accept")
    assert answer.status_code == 422
    assert "It could not be booked: it was paid in EUR" in words(answer)
    assert all('value="accept"' not in each.content.decode() for each in (asked, answer))
    assert 'value="dismiss"' in answer.content.decode()
    assert decide(finance, event, "dismiss", "given back").status_code == 302


@pytest.mark.parametrize(
    "what, instead",
    [
        ("dispute", "Enter what it is worth in the gift’s currency as an adjustment"),
        ("rate", "Enter what it is worth in the gift’s currency as an adjustment"),
        ("refund", "Enter what it is worth in the gift’s currency as an adjustment"),
        ("unreadable", "Nothing in it can be booked"),
        ("invoice", "Refund it in the processor’s dashboard"),
    ],
)
def test_what_cannot_be_accepted_says_what_to_do_instead(
    finance: Client, campaign: Campaign, what: str, instead: str
) -> None:
    gift, monthly = make_gift(campaign), make_recurring_gift(campaign)
    confirm(gift)
    deliver(invoice_event(monthly))
    told = {
        "dispute": lambda: dispute_event(gift, movement("txn_1", -46000, currency="eur"), currency="eur"),
        "rate": lambda: dispute_event(gift, movement("txn_1", 46000, currency="eur")),
        "refund": lambda: refund_event(gift, 100, currency="eur"),
        "unreadable": lambda: refund_event(gift, 100, currency="dollars"),
        "invoice": lambda: invoice_paid_event(monthly, currency="eur"),
    }[what]()
    deliver(told)
    inbox.drain()
    event = InboxEvent.objects.get(event_id=told["id"])
    asked = finance.get(page(event, "decide"))
    assert instead in words(asked)
    assert 'value="accept"' not in asked.content.decode()
    assert 'value="dismiss"' in asked.content.decode()
    with pytest.raises(inbox.CannotDecide, match=r"^It could not be booked: "):
        inbox.accept(event, user=make_staff())
    assert not event.may_be_accepted


def test_what_a_person_can_decide_is_offered_to_be_accepted(finance: Client, quarantined: InboxEvent) -> None:
    asked = finance.get(page(quarantined, "decide"))
    assert 'value="accept"' in asked.content.decode()
    assert "cannot be accepted" not in words(asked)


def test_a_reason_to_dismiss_is_asked_for_where_one_can_dismiss(
    finance: Client, gift: Gift, quarantined: InboxEvent
) -> None:
    told = refund_event(make_gift(gift.campaign), 100)
    deliver(told)
    inbox.drain()
    waiting = InboxEvent.objects.get(event_id=told["id"], state="waiting")
    asked = words(finance.get(page(waiting, "decide")))
    assert "It stays in the event’s history." in asked
    assert "dismiss" not in asked
    assert "To dismiss, you must give one." in words(finance.get(page(quarantined, "decide")))
    assert decide(finance, waiting, "replay", "the bank has told us").status_code == 302
    assert "Decided: replay. Reason: “the bank has told us”." in words(finance.get(page(waiting, "history")))


def test_the_history_tells_who_dismissed_an_event_that_was_read_again(finance: Client, quarantined: InboxEvent) -> None:
    other = client_of("Finance")
    decide(finance, quarantined, "dismiss", "returned by hand")
    decide(other, quarantined, "replay")
    quarantined.refresh_from_db()
    assert (quarantined.state, quarantined.decision, quarantined.decision_reason) == ("quarantined", "", "")
    assert "What was decided" not in words(finance.get(page(quarantined)))
    dismissed_by = User.objects.get(pk=finance.session["_auth_user_id"]).username
    history = words(finance.get(page(quarantined, "history")))
    assert "Decided: dismiss. Reason: “returned by hand”." in history
    assert f"Decided: replay. It had been dismissed by {dismissed_by} on " in history
    last = LogEntry.objects.latest("pk")
    assert last.user_id == int(other.session["_auth_user_id"])


def test_an_event_that_was_decided_about_is_missed_where_it_is_gone_until_it_is_fetched_again(
    finance: Client, quarantined: InboxEvent
) -> None:
    decide(finance, quarantined, "dismiss", "returned by hand")
    assert list(invariants.check()) == []
    InboxEvent.objects.filter(pk=quarantined.pk)._raw_delete(using="default")
    [found] = invariants.check()
    assert (found.invariant, found.key) == ("decided_events_stay", f"inbox event {quarantined}")
    told = {"event_id": quarantined.event_id, "type": quarantined.type, "body": bytes(quarantined.body or b"")}
    inbox.put(processor="stripe", origin="events_api", **told)
    inbox.drain()
    assert InboxEvent.objects.get(event_id=quarantined.event_id).state == "quarantined"
    assert list(invariants.check()) == []


def test_a_replay_says_what_became_of_it(finance: Client, quarantined: InboxEvent) -> None:
    answer = decide(finance, quarantined, "replay")
    assert answer.status_code == 302
    assert "It is now quarantined: paid twice" in words(finance.get(answer["Location"]))
    assert LedgerEntry.objects.count() == 1


def test_a_decision_needs_the_right_a_post_and_a_token(manager: Client, quarantined: InboxEvent) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(make_staff("view_inboxevent", "change_inboxevent"))
    looks_only = Client()
    looks_only.force_login(make_staff("view_inboxevent"))
    for client in (strict, looks_only, manager):
        assert decide(client, quarantined, "dismiss", "because").status_code == 403
    assert strict.get(page(quarantined, "decide"), {"decision": "accept"}).status_code == 200
    assert "Decide…" not in words(looks_only.get(page(quarantined)))
    assert decide(client_of("Finance"), quarantined, "nonsense").status_code == 422
    assert InboxEvent.objects.get(pk=quarantined.pk).state == "quarantined"


def test_an_unknown_event_has_no_decision_page(finance: Client) -> None:
    for identity in ("999999", "nonsense", "9" * 30):
        assert finance.get(f"{ROOM}/inboxevent/{identity}/decide/").status_code == 404


def test_nobody_edits_an_event(superuser: Client, quarantined: InboxEvent) -> None:
    assert superuser.post(page(quarantined), {"state": "processed"}).status_code == 403
    assert InboxEvent.objects.get(pk=quarantined.pk).state == "quarantined"


# ---- campaigns


def test_a_campaign_is_made_with_its_tiers(manager: Client) -> None:
    sent = campaign_fields(
        **{
            "goal": "1,000.50",
            "currency": "EUR",
            "is_default": "on",
            "tiers-TOTAL_FORMS": "2",
            "tiers-0-frequency": "once",
            "tiers-0-amount": "0",
            "tiers-0-position": "0",
            "tiers-1-frequency": "once",
            "tiers-1-amount": "€12.50",
            "tiers-1-position": "1",
        }
    )
    answer = manager.post(f"{ROOM}/campaign/add/", sent)
    assert answer.status_code == 302, words(answer)
    campaign = Campaign.objects.get()
    assert campaign.default_goal == Money("1000.50", "EUR")
    assert [tier.amount for tier in campaign.tiers.all()] == [Money(0, "EUR"), Money("12.50", "EUR")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"goal": "lots"}, "cannot be read as an amount"),
        ({"goal": "10.0050"}, "2 digits after the point"),
        ({"goal": "10.5", "currency": "JPY"}, "has no smaller unit"),
        ({"goal": "999999999999"}, "at most"),
        ({"goal": ""}, "This field is required"),
        ({"time_zone": "Mars/Base"}, "not a time zone"),
        ({"slug": "Capital"}, "Use small letters, digits and hyphens"),
        ({"currency": "€"}, "Select a valid choice"),
        ({"currency": "DEM"}, "Select a valid choice"),
        ({"currency": "XBC"}, "Select a valid choice"),
    ],
)
def test_a_campaign_that_cannot_be_is_refused_in_words(manager: Client, fields: dict[str, str], said: str) -> None:
    answer = manager.post(f"{ROOM}/campaign/add/", campaign_fields(**fields))
    assert answer.status_code == 200
    assert said in words(answer)
    assert not Campaign.objects.exists()


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Nope/Zone", "Europe", "../etc", "/etc/passwd", "", "\x00", "a" * 61])
def test_a_time_zone_that_cannot_be_is_refused_beside_its_field(manager: Client, campaign: Campaign, zone: str) -> None:
    for address, fields in ((page(campaign), campaign_fields(campaign)), (f"{ROOM}/campaign/add/", campaign_fields())):
        answer = manager.post(address, fields | {"slug": "general", "time_zone": zone})
        assert answer.status_code == 200
        row = re.search(r'<div class="form-row errors field-time_zone">.*?</ul>', answer.content.decode(), re.DOTALL)
        assert row
        assert "errorlist" in row[0]
    assert Campaign.objects.get().time_zone == "America/New_York"


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("0.10", "The processor takes no payment of this size"),
        ("1000000", "The processor takes no payment of this size"),
        ("x", "cannot be read as an amount"),
        ("", "This field is required"),
        ("500", "already exists"),
    ],
)
def test_a_tier_that_cannot_be_is_refused_in_words(manager: Client, campaign: Campaign, amount: str, said: str) -> None:
    sent = campaign_fields(campaign) | {
        "tiers-TOTAL_FORMS": "5",
        "tiers-4-frequency": "once",
        "tiers-4-amount": amount,
        "tiers-4-label": "A new one",
        "tiers-4-position": "9",
    }
    answer = manager.post(page(campaign), sent)
    assert answer.status_code == 200
    assert said in words(answer) or ("duplicate" in words(answer) and amount == "500")
    assert campaign.tiers.count() == 4


@pytest.mark.parametrize(
    ("currency", "amount", "said"),
    [
        ("KWD", "10.001", "In KWD an amount must be a multiple of 0.010 KWD. Type 10 KWD or 10.010 KWD."),
        ("ISK", "500.50", "In ISK an amount must be a multiple of 1 ISK. Type 500 ISK or 501 ISK."),
        ("KWD", "10.010", ""),
        ("ISK", "501", ""),
    ],
)
def test_a_tier_is_an_amount_that_the_processor_can_move(
    manager: Client, currency: str, amount: str, said: str
) -> None:
    campaign = make_campaign("other", currency=currency, is_default=False)
    new = {"tiers-TOTAL_FORMS": "5", "tiers-4-frequency": "once", "tiers-4-amount": amount, "tiers-4-position": "9"}
    answer = manager.post(page(campaign), campaign_fields(campaign, slug="other", currency=currency) | new)
    assert said in words(answer)
    assert campaign.tiers.count() == (4 if said else 5)


def test_tiers_refuse_the_same_way_while_the_campaign_is_new(manager: Client) -> None:
    tier = {"tiers-TOTAL_FORMS": "1", "tiers-0-frequency": "once", "tiers-0-amount": "0.10", "tiers-0-position": "0"}
    for fields in ({}, {"goal": "lots"}, {"currency": "nonsense"}):
        answer = manager.post(f"{ROOM}/campaign/add/", campaign_fields(**tier, **fields))
        assert answer.status_code == 200
        assert not Campaign.objects.exists()


def test_a_manager_edits_adds_and_deletes_tiers(manager: Client, campaign: Campaign) -> None:
    sent = campaign_fields(campaign) | {"tiers-1-amount": "600", "tiers-2-DELETE": "on"}
    assert manager.post(page(campaign), sent).status_code == 302
    assert [tier.amount_minor for tier in campaign.tiers.all()] == [0, 60000, 500000]


def test_the_default_goal_leaves_the_months_that_have_begun(manager: Client, campaign: Campaign) -> None:
    Campaign.objects.update(opened_at=timezone.now() - timedelta(days=70))
    answer = manager.post(page(campaign), campaign_fields(campaign, goal="8,000", name="Renamed"))
    assert answer.status_code == 302, words(answer)
    campaign.refresh_from_db()
    assert (campaign.name, campaign.default_goal) == ("Renamed", Money(8000, "USD"))
    goals = CampaignMonth.objects.filter(campaign=campaign)
    assert goals.count() in {3, 4}
    assert set(goals.values_list("goal", flat=True)) == {500000}


def test_a_change_of_anything_else_settles_no_month(manager: Client, campaign: Campaign) -> None:
    assert manager.post(page(campaign), campaign_fields(campaign, name="Renamed")).status_code == 302
    assert not CampaignMonth.objects.exists()


def test_the_slug_cannot_be_changed(manager: Client, campaign: Campaign) -> None:
    assert manager.post(page(campaign), campaign_fields(campaign, slug="other")).status_code == 302
    assert [*Campaign.objects.values_list("slug", flat=True)] == ["general"]


def test_the_currency_cannot_be_changed_once_a_gift_exists(manager: Client, campaign: Campaign) -> None:
    make_gift(campaign)
    assert "cannot be changed any more" in words(manager.get(page(campaign)))
    assert manager.post(page(campaign), campaign_fields(campaign, currency="JPY")).status_code == 302
    campaign.refresh_from_db()
    assert campaign.currency == "USD"


def test_tiers_follow_their_campaign_into_another_currency(manager: Client, campaign: Campaign) -> None:
    answer = manager.post(page(campaign), campaign_fields(campaign, currency="JPY"))
    assert answer.status_code == 302, words(answer)
    campaign.refresh_from_db()
    assert campaign.default_goal == Money(5000, "JPY")
    assert [tier.amount for tier in campaign.tiers.all()] == [Money(amount, "JPY") for amount in (0, 500, 2500, 5000)]
    assert manager.get(f"{ROOM}/campaign/").status_code == 200


def test_a_new_default_takes_the_place_of_the_old_one(manager: Client, campaign: Campaign) -> None:
    second = make_campaign("second")
    sent = campaign_fields(second, slug="second", is_default="on")
    assert manager.post(page(second), sent).status_code == 302
    assert [*Campaign.objects.filter(is_default=True).values_list("slug", flat=True)] == ["second"]
    third = campaign_fields(slug="third", is_default="on")
    assert manager.post(f"{ROOM}/campaign/add/", third).status_code == 302
    assert [*Campaign.objects.filter(is_default=True).values_list("slug", flat=True)] == ["third"]


def test_the_first_campaign_is_the_default_one_and_one_always_is(manager: Client) -> None:
    answer = manager.post(f"{ROOM}/campaign/add/", campaign_fields(), follow=True)
    assert "It is the default campaign, which / and the bar show" in words(answer)
    first = Campaign.objects.get()
    assert manager.post(f"{ROOM}/campaign/add/", campaign_fields(slug="second")).status_code == 302
    assert manager.post(page(first), campaign_fields(first)).status_code == 302
    assert [*Campaign.objects.filter(is_default=True).values_list("slug", flat=True)] == ["general"]
    assert manager.get("/").url == "/give/general/"


def test_a_campaign_in_a_currency_that_the_processor_does_not_take_any_more_can_still_be_edited(
    manager: Client,
) -> None:
    campaign = make_campaign(currency="HRK")
    assert manager.post(page(campaign), campaign_fields(campaign, currency="HRK", name="News")).status_code == 302
    assert Campaign.objects.get().name == "News"


def test_a_campaign_with_gifts_is_not_deleted_and_says_why(superuser: Client, gift: Gift, campaign: Campaign) -> None:
    shown = words(superuser.get(page(campaign, "delete")))
    assert "the gifts of Newsroom" in shown
    assert superuser.post(page(campaign, "delete"), {"post": "yes"}).status_code == 200
    assert Campaign.objects.exists()


def test_a_campaign_without_gifts_can_be_deleted(superuser: Client, campaign: Campaign) -> None:
    assert superuser.post(page(campaign, "delete"), {"post": "yes"}).status_code == 302
    assert not Campaign.objects.exists()
    assert not Tier.objects.exists()


def test_a_campaign_links_to_its_give_page_and_dashboard(manager: Client, campaign: Campaign) -> None:
    shown = manager.get(page(campaign)).content.decode()
    assert 'href="/give/general/"' in shown
    assert re.search(r'href="/staff/general/\d{4}-\d{2}/"', shown)


def test_those_who_only_look_see_a_campaign_and_its_goal(campaign: Campaign) -> None:
    month = CampaignMonth.objects.create(campaign=campaign, month="2024-11", goal=250000)
    looks_only = Client()
    looks_only.force_login(make_staff("view_campaign", "view_tier", "view_campaignmonth"))
    assert "5,000 $" in words(looks_only.get(page(campaign)))
    assert "2,500 $" in words(looks_only.get(page(month)))
    assert looks_only.post(page(campaign), campaign_fields(campaign, name="Mine")).status_code == 403


# ---- months


def test_a_month_gets_a_goal_and_marks(manager: Client, campaign: Campaign) -> None:
    sent = {"campaign": "general", "month": "2024-11", "goal": "5,000.50", "scale": "5000, 0, 2,500"}
    answer = manager.post(f"{ROOM}/campaignmonth/add/", sent)
    assert answer.status_code == 302, words(answer)
    month = CampaignMonth.objects.get()
    assert (month.goal, month.scale) == (500050, [0, 250000, 500000])
    shown = manager.get(page(month)).content.decode()
    assert 'value="5000.50"' in shown
    assert 'value="0, 2500, 5000"' in shown
    assert "November 2024" in words(manager.get(f"{ROOM}/campaignmonth/"))
    answer = manager.post(page(month), {"goal": "6000", "scale": ""})
    assert answer.status_code == 302
    month.refresh_from_db()
    assert (month.campaign_id, month.month, month.goal, month.scale) == ("general", "2024-11", 600000, [])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"goal": ""}, "This field is required"),
        ({"month": ""}, "This field is required"),
        ({"goal": "-1"}, "cannot be read as an amount"),
        ({"goal": "1.005"}, "can be read in two ways"),
        ({"month": "2024-13"}, "Write a month like 2024-11"),
        ({"scale": "0,2500,5000"}, "a comma and a space"),
        ({"scale": "0, x"}, "a comma and a space"),
        ({"scale": "500"}, "between 2 and 9 marks"),
        ({"scale": "0, 0"}, "once"),
        ({"goal": "9" * 30}, "is too large an amount"),
        ({"scale": "0, " + "9" * 40}, "is too large an amount"),
        ({"scale": "0, 2500, 5000.01"}, "ends at the goal, 5,000 $: it has no place for a mark at 5,000.01 $"),
        ({"goal": "0", "scale": "0, 2500"}, "ends at the goal, 0 $"),
        ({"campaign": "nothing"}, "Select a valid choice"),
    ],
)
def test_a_month_that_cannot_be_is_refused_in_words(
    manager: Client, campaign: Campaign, fields: dict[str, str], said: str
) -> None:
    sent = {"campaign": "general", "month": "2024-11", "goal": "5000", "scale": ""} | fields
    answer = manager.post(f"{ROOM}/campaignmonth/add/", sent)
    assert answer.status_code == 200
    assert said in words(answer)
    errors = answer.context["adminform"].form.errors
    assert [len(texts) for texts in errors.values()] == [1], errors
    assert not CampaignMonth.objects.exists()


def test_a_month_that_has_a_goal_is_not_made_twice(manager: Client, campaign: Campaign) -> None:
    CampaignMonth.objects.create(campaign=campaign, month="2024-11", goal=100)
    sent = {"campaign": "general", "month": "2024-11", "goal": "5000", "scale": ""}
    answer = manager.post(f"{ROOM}/campaignmonth/add/", sent)
    assert "already exists" in words(answer)
    assert CampaignMonth.objects.get().goal == 100


# ---- times


def test_a_time_says_that_it_is_utc_and_a_month_beside_it_its_zone(finance: Client, campaign: Campaign) -> None:
    gift = make_gift(campaign)
    confirm(gift, at=datetime(2024, 12, 1, 4, 59, tzinfo=UTC))
    entry = LedgerEntry.objects.get()
    for address in (page(gift), page(entry), f"{ROOM}/ledgerentry/"):
        said = words(finance.get(address))
        assert "Dec. 1, 2024, 4:59 a.m. UTC" in said, address
        assert "2024-11, in America/New_York" in said, address
    assert "Nov. 30, 2024, in America/New_York" in words(finance.get(page(entry)))


def test_no_page_of_the_admin_has_a_time_without_its_zone(superuser: Client, campaign: Campaign) -> None:
    gift = make_gift(campaign)
    confirm(gift, at=datetime(2024, 12, 1, 4, 59, tzinfo=UTC))
    rooms = ("gift", "ledgerentry", "inboxevent", "donor", "follower", "outboxmessage", "campaign")
    pages = [page(row) for row in (gift, campaign, LedgerEntry.objects.get(), InboxEvent.objects.get())]
    for address in (*(f"{ROOM}/{room}/" for room in rooms), *pages):
        said = words(superuser.get(address))
        assert re.findall(r"(?:[ap]\.m\.|noon|midnight)(?! UTC)", said) == [], address


def test_a_users_times_say_their_zone_too(superuser: Client) -> None:
    user = make_staff("view_gift")
    shown = superuser.get(f"/admin/auth/user/{user.pk}/change/")
    assert re.search(r"Date joined: .*? UTC", words(shown))
    assert 'name="date_joined' not in shown.content.decode()


# ---- amounts as typed


@pytest.mark.parametrize(
    ("typed", "currency", "minor"),
    [
        ("2500", "USD", 250000),
        ("2,500.5", "USD", 250050),
        (" $25 ", "USD", 2500),
        ("25 USD", "USD", 2500),
        ("0", "USD", 0),
        ("0.05", "EUR", 5),
        ("1000", "JPY", 1000),
        ("1.234", "KWD", 1234),
    ],
)
def test_typed_amounts_are_read_exactly(typed: str, currency: str, minor: int) -> None:
    assert amounts.read_amount(typed, currency) == minor
    assert amounts.read_amount(amounts.typed_text(minor, currency), currency) == minor


# ---- costs


def rows_for_every_list(number: int, campaign: Campaign) -> None:
    for _ in range(number):
        donor = Donor.objects.create(email=f"reader{next(factories.numbers)}@example.org")
        gift = make_gift(campaign, donor=donor, public_name="A")
        deliver(checkout_event(gift))
        Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
        make_recurring_gift(campaign, donor=donor)
        ExportRecord.objects.create(file="ledger", requested_by=make_staff())
        CampaignMonth.objects.create(campaign=campaign, month=f"20{CampaignMonth.objects.count():02}-01", goal=100)
    inbox.drain()


LISTS = {
    "campaign": {},
    "campaignmonth": {},
    "gift": {"livemode__exact": "0"},
    "recurringgift": {},
    "ledgerentry": {},
    "inboxevent": {"state__exact": "all"},
    "donor": {},
    "follower": {},
    "outboxmessage": {},
    "exportrecord": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("room", LISTS)
def test_a_list_costs_the_same_however_long_it_is(superuser: Client, campaign: Campaign, room: str) -> None:
    rows_for_every_list(2, campaign)
    few = queries_of(lambda: superuser.get(f"{ROOM}/{room}/", LISTS[room]))
    rows_for_every_list(10, campaign)
    many = queries_of(lambda: superuser.get(f"{ROOM}/{room}/", LISTS[room]))
    assert len(few) == len(many), [query for query in many if query not in few]
    assert len(many) <= 12


def test_a_gifts_page_costs_the_same_however_much_became_of_it(superuser: Client, gift: Gift) -> None:
    superuser.get(page(gift))
    few = queries_of(lambda: superuser.get(page(gift)))
    for number in range(6):
        deliver(refund_event(gift, 100, refund=f"re_many_{number}"))
    inbox.drain()
    assert len(queries_of(lambda: superuser.get(page(gift)))) == len(few)


def queries_of(read: Callable[[], Any]) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert read().status_code == 200
    return [query["sql"] for query in captured.captured_queries]


def test_no_list_counts_all_of_history(superuser: Client, campaign: Campaign) -> None:
    rows_for_every_list(1, campaign)
    for room in ("gift", "ledgerentry", "inboxevent"):
        for query in queries_of(lambda room=room: superuser.get(f"{ROOM}/{room}/", {**LISTS[room]})):  # type: ignore[misc]
            assert "COUNT(" not in query.upper() or f"LIMIT {reading.MOST_COUNTED + 1}" in query, query


def test_a_list_that_is_longer_than_is_counted_says_so(
    superuser: Client, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_for_every_list(4, campaign)
    monkeypatch.setattr(reading, "MOST_COUNTED", 3)
    assert "The latest 3 gifts. Filter or search for earlier ones." in words(superuser.get(f"{ROOM}/gift/"))


# ---- the strict policy


@pytest.mark.slow
def test_no_page_holds_what_the_policy_forbids(
    superuser: Client, gift: Gift, quarantined: InboxEvent, campaign: Campaign, monthly: RecurringGift
) -> None:
    addresses = [page(row) for row in (gift, quarantined, campaign, monthly, LedgerEntry.objects.all()[0])]
    addresses += [page(gift, "refund"), page(quarantined, "decide"), f"{ROOM}/campaign/add/"]
    addresses += [f"{ROOM}/{room}/" for room in LISTS]
    for address in addresses:
        answer = superuser.get(address)
        text = answer.content.decode()
        assert "script-src 'self'" in answer["Content-Security-Policy"]
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*(?:src=|application/json))", text), address


def test_facts_are_json_as_it_is_stored(finance: Client, quarantined: InboxEvent) -> None:
    shown = html.unescape(finance.get(page(quarantined)).content.decode())
    assert json.dumps(quarantined.facts, indent=2, ensure_ascii=False) in shown
    assert str(NOON.year) in shown

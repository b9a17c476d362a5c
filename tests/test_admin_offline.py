"""The room of offline gifts and adjustments: who enters, who approves, and what a second press does."""

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone

from donations import closing, offline, periods
from donations.models import Campaign, Gift, LedgerEntry, MonthTotal, OfflineRequest, OutboxMessage
from tests.factories import confirm, make_campaign, make_gift, make_staff
from tests.test_offline import DAY, adjust, enter, gift_of

pytestmark = [pytest.mark.django_db, pytest.mark.page]
ROOM = "/admin/donations/offlinerequest"


def client_of(*groups: str, superuser: bool = False) -> Client:
    user = make_staff(superuser=superuser)
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user)
    return client


def user_of(client: Client) -> User:
    return User.objects.get(pk=client.session["_auth_user_id"])


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def finance() -> Client:
    return client_of("Finance")


@pytest.fixture
def colleague() -> Client:
    return client_of("Finance")


@pytest.fixture
def waiting(campaign: Campaign, finance: Client) -> OfflineRequest:
    """A gift above the limit, entered by `finance`."""
    return enter(campaign, user_of(finance), 20_000_00, reference="BANK É 9", name="Olga")


def words(response: Any) -> str:
    text = html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode()))
    return " ".join(text.replace("\u00a0", " ").split())


def gift_fields(**fields: str) -> dict[str, str]:
    typed = {"amount": "500", "day": "2024-11-18", "method": "cheque", "reference": "CHEQUE 7", "reason": "by post"}
    return {"campaign": "general", **typed, "name": "Olga", "email": "olga@example.org", **fields}


def send(client: Client, address: str, fields: dict[str, str]) -> Any:
    return client.post(f"{ROOM}/{address}", fields, follow=True)


# ---- who gets in


@pytest.mark.parametrize("address", ["", "add/", "adjust/", "WAITING/change/", "WAITING/decide/", "BOOKED/reverse/"])
def test_the_room_is_finances(campaign: Campaign, waiting: OfflineRequest, colleague: Client, address: str) -> None:
    booked = enter(campaign, make_staff())
    place = f"{ROOM}/{address.replace('WAITING', str(waiting.pk)).replace('BOOKED', str(booked.pk))}"
    assert colleague.get(place).status_code == 200
    assert client_of(superuser=True).get(place).status_code == 200
    assert client_of("Campaign managers").get(place).status_code == 403
    assert client_of().get(place).status_code == 403
    assert Client().get(place).status_code == 302
    answer = client_of("Campaign managers").post(place, gift_fields())
    assert (answer.status_code, OfflineRequest.objects.count()) == (403, 2)


def test_nobody_edits_what_was_entered(waiting: OfflineRequest) -> None:
    superuser = client_of(superuser=True)
    before = OfflineRequest.objects.values().get()
    assert superuser.post(f"{ROOM}/{waiting.pk}/change/", {"amount": "1", "_save": "Save"}).status_code == 403
    assert superuser.post(f"{ROOM}/{waiting.pk}/delete/", {"post": "yes"}).status_code == 403
    assert OfflineRequest.objects.values().get() == before


# ---- entering


def test_finance_enters_a_gift_and_it_is_booked(campaign: Campaign, finance: Client) -> None:
    shown = words(send(finance, "add/", gift_fields(amount="1,000.50", message="For you", anonymous="on")))
    assert "It is booked: 1,000.50 $ on 2024-11-18." in shown
    gift = Gift.objects.get()
    assert (gift.amount, gift.public_name, gift.message, gift.anonymous) == (100050, "Olga", "For you", True)
    assert (MonthTotal.objects.get().raised, OutboxMessage.objects.get().subject_id) == (100050, gift.pk)
    asked = OfflineRequest.objects.get()
    assert (asked.method, asked.day, asked.requested_by) == ("cheque", DAY, user_of(finance))
    assert LogEntry.objects.get().change_message


def test_a_second_press_of_the_button_enters_nothing(campaign: Campaign, finance: Client) -> None:
    send(finance, "add/", gift_fields())
    again = send(finance, "add/", gift_fields())
    assert "Nothing was entered a second time" in words(again)
    assert again.redirect_chain == [(f"{ROOM}/{OfflineRequest.objects.get().pk}/change/", 302)]
    assert LedgerEntry.objects.count() == 1


OTHERS: list[dict[str, str]] = [
    {"amount": "501"},
    {"day": "2024-11-17"},
    {"method": "cash"},
    {"reason": "by hand"},
    {"reference": "cheque 7"},
    {"name": "Ada"},
    {"email": "ada@example.org"},
    {"email": ""},
    {"message": "For you"},
    {"anonymous": "on"},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_anything_else_under_a_reference_that_stands_is_refused_beside_its_field(
    campaign: Campaign, finance: Client, other: dict[str, str]
) -> None:
    """Two donors may stand in one statement, with one amount."""
    send(finance, "add/", gift_fields())
    refused = finance.post(f"{ROOM}/add/", gift_fields(**other))
    assert refused.status_code == 422
    said = refused.context["form"].errors["reference"][0]
    assert "the reference “CHEQUE 7” was entered" in said
    assert ": 500 $ for 2024-11-18. It is booked." in said
    assert f'value="{other.get("reference", "CHEQUE 7")}"' in refused.content.decode()
    assert LedgerEntry.objects.count() == 1


def test_the_same_of_another_person_is_no_second_press(campaign: Campaign, finance: Client, colleague: Client) -> None:
    send(finance, "add/", gift_fields())
    assert colleague.post(f"{ROOM}/add/", gift_fields()).status_code == 422


def test_a_second_press_is_known_in_whatever_letters_the_address_is_typed(campaign: Campaign, finance: Client) -> None:
    fields = gift_fields(email="Olga@Example.org", message="For you,\r\nall", anonymous="on", reason=" by  post ")
    send(finance, "add/", fields)
    assert "Nothing was entered a second time" in words(send(finance, "add/", fields))


def test_two_cheques_that_bounced_under_one_reference_are_not_taken_for_one(
    campaign: Campaign, finance: Client
) -> None:
    first, second = (enter(campaign, user_of(finance)) for _ in range(2))
    fields = {"amount": "500", "day": "2024-12-01", "reference": "STATEMENT 12", "reason": "no cover"}
    send(finance, f"{first.pk}/reverse/", fields)
    refused = finance.post(f"{ROOM}/{second.pk}/reverse/", fields)
    assert refused.status_code == 422
    said = f"An adjustment of {first.gift_id} with the reference “STATEMENT 12” was entered"
    assert said in refused.context["form"].errors["reference"][0]
    assert "needs a reference of its own, such as “STATEMENT 12/2”" in words(refused)


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"amount": "-5"}, "amount", "cannot be read"),
        ({"amount": "0"}, "amount", "above zero"),
        ({"amount": "1.0050"}, "amount", "2 digits"),
        ({"amount": "1.005"}, "amount", "can be read in two ways. Write a thousand as 1000 or 1,000"),
        ({"day": "02/03/2024"}, "day", "Type year, month and day, like this: 2024-11-18"),
        ({"day": "2024-02-30"}, "day", "valid date"),
        ({"day": "2999-01-01"}, "day", "to today"),
        ({"reason": ""}, "reason", "required"),
        ({"reference": "A\tB\x7f"}, "reference", "plain letters"),
        ({"reference": "A\x00B"}, "reference", "Null characters"),
        ({"campaign": "unknown"}, "campaign", "valid choice"),
        ({"method": "barter"}, "method", "valid choice"),
        ({"email": "olga"}, "email", "valid email"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_typed_is_lost(
    campaign: Campaign, finance: Client, fields: dict[str, str], field: str, said: str
) -> None:
    refused = finance.post(f"{ROOM}/add/", gift_fields(**fields))
    assert refused.status_code == 422
    assert said in refused.context["form"].errors[field][0]
    assert 'value="Olga"' in refused.content.decode()
    assert not Gift.objects.exists()


def test_a_gift_above_the_limit_says_that_it_waits(campaign: Campaign, finance: Client) -> None:
    shown = words(send(finance, "add/", gift_fields(amount="10000.01")))
    assert "not booked yet: 10,000.01 $ is above 10,000 $" in shown
    assert not LedgerEntry.objects.exists()


def test_the_page_says_where_everything_needs_a_second_person(
    campaign: Campaign, finance: Client, settings: Any
) -> None:
    settings.APPROVAL_LIMIT = 0
    assert "It is booked when another person has approved it." in words(finance.get(f"{ROOM}/add/"))
    assert "needs a second person, as everything here" in words(send(finance, "add/", gift_fields()))


# ---- approving


def test_a_colleague_approves(waiting: OfflineRequest, colleague: Client) -> None:
    assert "Approve or reject…" in words(colleague.get(f"{ROOM}/{waiting.pk}/change/"))
    shown = send(colleague, f"{waiting.pk}/decide/", {"decision": "approve", "reason": "on the statement"})
    assert "approved and booked, with its own day, in the books of November 2024" in words(shown)
    assert "on the statement" in words(shown)
    assert LedgerEntry.objects.get().amount == 20_000_00
    again = colleague.post(f"{ROOM}/{waiting.pk}/decide/", {"decision": "approve"})
    assert (again.status_code, LedgerEntry.objects.count()) == (422, 1)


def test_who_entered_it_is_offered_no_approval_and_given_none(waiting: OfflineRequest, finance: Client) -> None:
    page = finance.get(f"{ROOM}/{waiting.pk}/decide/")
    assert b'value="approve"' not in page.content
    refused = finance.post(f"{ROOM}/{waiting.pk}/decide/", {"decision": "approve"})
    assert (refused.status_code, "another person approves it" in words(refused)) == (422, True)
    assert not LedgerEntry.objects.exists()


def test_a_rejection_needs_a_reason_and_books_nothing(waiting: OfflineRequest, colleague: Client) -> None:
    refused = colleague.post(f"{ROOM}/{waiting.pk}/decide/", {"decision": "reject"})
    assert refused.context["form"].errors["reason"]
    shown = words(send(colleague, f"{waiting.pk}/decide/", {"decision": "reject", "reason": "never came"}))
    assert "It is rejected. Nothing was booked." in shown
    assert "never came" in shown
    assert not LedgerEntry.objects.exists()
    assert "It does not wait" in words(colleague.get(f"{ROOM}/{waiting.pk}/decide/", follow=True))


def test_what_is_of_the_other_mode_says_so_and_is_neither_approved_nor_reversed(
    campaign: Campaign, waiting: OfflineRequest, colleague: Client, go_live: Callable[[], None]
) -> None:
    booked = enter(campaign, make_staff())
    go_live()
    page = colleague.get(f"{ROOM}/{waiting.pk}/decide/")
    assert "entered in the other mode, test or live: it cannot be booked" in words(page)
    assert b'value="approve"' not in page.content
    assert b'value="reject"' in page.content
    assert "Reverse…" not in words(colleague.get(f"{ROOM}/{booked.pk}/change/"))
    assert "Adjust…" not in words(colleague.get(f"/admin/donations/gift/{booked.gift_id}/change/"))
    assert words(colleague.get(f"{ROOM}/")).count("test") >= 2
    send(colleague, f"{waiting.pk}/decide/", {"decision": "reject", "reason": "a test"})
    assert OfflineRequest.objects.get(pk=waiting.pk).status == "rejected"


def test_the_page_of_an_approval_shows_whom_it_would_thank_and_show(campaign: Campaign, finance: Client) -> None:
    donor = {"name": "Olga", "email": "olga@example.org", "message": "For you"}
    asked = enter(campaign, user_of(finance), 20_000_00, **donor)
    unnamed = enter(campaign, user_of(finance), 20_000_00, anonymous=True, **donor)
    without = enter(campaign, user_of(finance), 20_000_00)

    def facts(client: Client, of: OfflineRequest) -> str:
        return words(client.get(f"{ROOM}/{of.pk}/decide/"))

    person, colleague = Client(), client_of("Finance")
    person.force_login(make_staff("view_offlinerequest", "change_offlinerequest"))
    assert "Donor’s name Olga Donor’s email address olga@example.org Message For you" in facts(colleague, asked)
    assert "Donor’s name Olga, anonymous to the public" in facts(colleague, unnamed)
    assert "Donor’s name – Donor’s email address none: no receipt Message –" in facts(colleague, without)
    assert "Donor’s name Olga Donor’s email address given, for those" in facts(person, asked)
    assert "Donor’s name anonymous to the public" in facts(person, unnamed)
    assert "Donor’s" not in facts(colleague, adjust(campaign, user_of(finance), -20_000_00)).replace("The donor’s", "")


def test_the_dashboard_says_that_something_waits_for_approval(campaign: Campaign, colleague: Client) -> None:
    pages = f"/staff/general/{DAY:%Y-%m}/"
    assert "for approval" not in words(colleague.get(pages))
    enter(campaign, make_staff(), 20_000_00)
    assert "Offline gifts and adjustments: 1 entry waits for approval, in all campaigns." in words(colleague.get(pages))
    adjust(campaign, make_staff(), -20_000_00)
    shown = colleague.get(pages)
    assert "2 entries wait for approval, in all campaigns. See which" in words(shown)
    (link,) = re.findall(r'href="([^"]+)">See which', shown.content.decode())
    assert len(colleague.get(html.unescape(link)).context["cl"].result_list) == 2
    manager = words(client_of("Campaign managers").get(pages))
    assert "2 entries wait for approval" in manager
    assert "See which" not in manager


@pytest.mark.parametrize("right", ["add_offlinerequest", "change_offlinerequest"])
def test_to_enter_and_to_approve_are_two_rights(waiting: OfflineRequest, right: str) -> None:
    person = Client()
    person.force_login(make_staff("view_offlinerequest", right))
    may_enter = right.startswith("add")
    assert person.get(f"{ROOM}/add/").status_code == (200 if may_enter else 403)
    assert person.get(f"{ROOM}/{waiting.pk}/decide/").status_code == (403 if may_enter else 200)


# ---- putting right


def test_an_offline_gift_is_reversed_once(campaign: Campaign, finance: Client) -> None:
    given = enter(campaign, user_of(finance))
    page = finance.get(f"{ROOM}/{given.pk}/reverse/")
    today = periods.local_date(timezone.now(), campaign.time_zone)
    assert (page.context["form"].initial["amount"], page.context["form"].initial["day"]) == ("500", today)
    fields = {"amount": "500", "day": str(today), "reference": "BOUNCED 7", "reason": "no cover"}
    assert "It is booked: −500 $" in words(send(finance, f"{given.pk}/reverse/", fields))
    assert "Nothing was entered a second time" in words(send(finance, f"{given.pk}/reverse/", fields))
    another = finance.post(f"{ROOM}/{given.pk}/reverse/", fields | {"reference": "BOUNCED 8"})
    assert (another.status_code, "No more than 0 $" in words(another)) == (422, True)
    assert "Nothing of this can be reversed" in words(finance.get(f"{ROOM}/{given.pk}/reverse/", follow=True))
    assert sum(LedgerEntry.objects.values_list("amount", flat=True)) == 0
    gifts_page = words(finance.get(f"/admin/donations/gift/{given.gift_id}/change/"))
    assert "confirmed, reversed" in gifts_page
    assert "adjustment BOUNCED 7 −500 $" in gifts_page


@pytest.mark.parametrize(
    ("what", "said"), [("rejected", "It is rejected"), ("waiting", "It is waiting"), ("adjustment", "not reversed")]
)
def test_what_is_no_booked_gift_is_not_reversed_by_whatever_is_sent(
    campaign: Campaign, waiting: OfflineRequest, finance: Client, what: str, said: str
) -> None:
    asked = adjust(campaign, make_staff(), -500) if what == "adjustment" else waiting
    if what == "rejected":
        offline.reject(asked, user=make_staff(), reason="never came")
    entries = LedgerEntry.objects.count()
    assert said in words(finance.get(f"{ROOM}/{asked.pk}/reverse/", follow=True))
    fields = {"amount": "7", "day": "2024-12-01", "reference": "BOUNCED 7", "reason": "no cover"}
    assert said in words(send(finance, f"{asked.pk}/reverse/", fields))
    assert LedgerEntry.objects.count() == entries


def test_an_entry_says_what_reversed_it(campaign: Campaign, finance: Client) -> None:
    given = enter(campaign, user_of(finance))
    page, gift = f"{ROOM}/{given.pk}/change/", gift_of(given)
    assert "booked, reversed" not in words(finance.get(page))
    asked = adjust(gift, make_staff(), -20000, reference="RETURN A")
    shown = finance.get(page)
    assert "booked, reversed in part by adjustment RETURN A (−200 $)" in words(shown)
    assert f"{ROOM}/{asked.pk}/change/" in shown.content.decode()
    adjust(gift, make_staff(), -30000, reference="RETURN B")
    said = "booked, reversed by adjustment RETURN A (−200 $), adjustment RETURN B (−300 $)"
    assert said in words(finance.get(page))
    adjust(gift, make_staff(), 50000)
    assert "booked, reversed" not in words(finance.get(page))


def test_what_belongs_to_a_closed_month_says_so_and_is_booked(
    campaign: Campaign, finance: Client, colleague: Client
) -> None:
    closing.close(campaign=campaign, month=periods.Month(2024, 11), user=make_staff())
    said = "November 2024 of “Newsroom” is closed: it stands beside its statement, as restated."
    assert said in words(send(finance, "add/", gift_fields()))
    assert "is closed" not in words(send(finance, "add/", gift_fields(day="2024-12-01", reference="CHEQUE 8")))
    large = gift_fields(amount="20000", reference="CHEQUE 9")
    assert "is closed: once booked it stands beside its statement" in words(send(finance, "add/", large))
    waiting = OfflineRequest.objects.get(status="waiting")
    assert "is closed: once booked" in words(colleague.get(f"{ROOM}/{waiting.pk}/decide/"))
    assert said in words(send(colleague, f"{waiting.pk}/decide/", {"decision": "approve"}))
    assert LedgerEntry.objects.count() == 3


def test_an_adjustment_of_a_gift_is_in_its_currency_and_campaign(campaign: Campaign, finance: Client) -> None:
    make_campaign("second", currency="JPY")
    gift = make_gift(campaign)
    confirm(gift)
    assert f'value="{gift.pk}"' in finance.get(f"{ROOM}/adjust/?gift={gift.pk}").content.decode()
    fields = {"gift": gift.pk, "campaign": "second", "direction": "takes", "amount": "12.50", "day": "2024-12-01"}
    send(finance, "adjust/", fields | {"reference": "BY HAND 1", "reason": "card was gone"})
    entry = LedgerEntry.objects.get(kind="adjustment")
    assert (entry.campaign_id, entry.amount, entry.gift) == ("general", -1250, gift)
    refund = words(finance.get(f"/admin/donations/gift/{gift.pk}/refund/"))
    assert "487.50 $ can be given back" in refund


def test_an_adjustment_without_a_gift_is_the_campaigns(campaign: Campaign, finance: Client) -> None:
    fields = {"campaign": "general", "direction": "adds", "amount": "3", "day": "2024-12-01", "reason": "rounding"}
    send(finance, "adjust/", fields | {"reference": "R1"})
    entry = LedgerEntry.objects.get()
    assert (entry.gift, entry.amount, entry.campaign_month) == (None, 300, "2024-12")
    refused = finance.post(f"{ROOM}/adjust/", fields | {"reference": "R2", "gift": "gift_unknown"})
    assert "no gift of this reference" in refused.context["form"].errors["gift"][0]
    campaigns = client_of("Campaign managers").get("/admin/donations/campaign/general/change/")
    assert campaigns.context["adminform"].form.fields["currency"].disabled


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("bank_transfer", "reached the bank by transfer on 18 November 2024"),
        ("cash", "came in cash on 18 November 2024; when it was paid in is not kept here"),
        ("cheque", "came by cheque on 18 November 2024; when it was paid in is not kept here"),
    ],
)
def test_a_gift_says_how_and_when_it_came(campaign: Campaign, finance: Client, method: str, said: str) -> None:
    given, asked = enter(campaign, make_staff(), method=method), enter(campaign, make_staff(), 10_000_01, method=method)
    page = f"/admin/donations/gift/{given.gift_id}/change/"
    assert f"{said} Payment:" in words(finance.get(page))
    waits = words(finance.get(f"/admin/donations/gift/{asked.gift_id}/change/"))
    assert f"not booked, as it waits for approval; entered was: {said} Payment:" in waits
    adjust(gift_of(given), make_staff(), -50000)
    assert f"{said}; reversed since Payment:" in words(finance.get(page))


def test_an_offline_gift_offers_no_refund(campaign: Campaign, finance: Client) -> None:
    given = enter(campaign, user_of(finance))
    page = words(finance.get(f"/admin/donations/gift/{given.gift_id}/change/"))
    assert "Adjust…" in page
    assert "Refund…" not in page
    assert finance.get(f"/admin/donations/gift/{given.gift_id}/refund/").status_code == 302


# ---- the list


@pytest.mark.parametrize("term", ["BANK É 9", "bank e\u0301 9", "GIFT"])
def test_one_is_found_by_its_reference_and_its_gift(
    campaign: Campaign, waiting: OfflineRequest, finance: Client, term: str
) -> None:
    enter(campaign, make_staff(), reference="BANK 10")
    found = finance.get(f"{ROOM}/", {"q": waiting.gift_id if term == "GIFT" else term})
    assert [row.pk for row in found.context["cl"].result_list] == [waiting.pk]


def test_the_list_costs_the_same_however_long_it_is(
    campaign: Campaign, finance: Client, django_assert_max_num_queries: Any
) -> None:
    adjust(gift_of(enter(campaign, make_staff())), make_staff(), -5)
    for _ in range(8):
        enter(campaign, make_staff())
    with django_assert_max_num_queries(10):
        shown = words(finance.get(f"{ROOM}/", {"status__exact": "booked"}))
    assert "Enter an adjustment…" in shown
    assert "Enter an offline gift…" in shown


def test_no_page_holds_what_the_policy_forbids(campaign: Campaign, waiting: OfflineRequest, colleague: Client) -> None:
    booked = enter(campaign, make_staff(), day=DAY - timedelta(days=1))
    for address in ("", "add/", "adjust/", f"{waiting.pk}/change/", f"{waiting.pk}/decide/", f"{booked.pk}/reverse/"):
        text = colleague.get(f"{ROOM}/{address}").content.decode()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*(?:src=|application/json))", text), address


def test_a_form_without_its_token_enters_nothing(campaign: Campaign) -> None:
    person = Client(enforce_csrf_checks=True)
    person.force_login(make_staff("view_offlinerequest", "add_offlinerequest"))
    assert person.post(f"{ROOM}/add/", gift_fields()).status_code == 403
    assert not offline.OfflineRequest.objects.exists()

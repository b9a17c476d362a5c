"""Closed months where people meet them: the admin's room, its files, the dashboard, the command."""

import html
import re
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from donations import closing, inbox, invariants, offline
from donations.models import Campaign, ExportRecord, Gift, MonthStatement, guards
from donations.periods import Month
from tests.factories import (
    NOON,
    charge_event,
    checkout_event,
    confirm,
    deliver,
    make_campaign,
    make_gift,
    make_staff,
    refund_event,
)
from tests.faults.tampering import findings, switch_guards_off

pytestmark = pytest.mark.django_db
ROOM = "/admin/donations/monthstatement"
NOVEMBER = {"campaign": "general", "month": "2024-11", "sure": "on"}


@pytest.fixture
def gift() -> Gift:
    """One confirmed gift of 500 in November 2024."""
    paid = make_gift(make_campaign())
    confirm(paid)
    return paid


@pytest.fixture
def finance() -> Client:
    return client_of("Finance")


def client_of(group: str = "", superuser: bool = False) -> Client:
    user = make_staff(superuser=superuser)
    user.groups.set(Group.objects.filter(name=group))
    client = Client()
    client.force_login(user)
    return client


def closed(campaign: Campaign) -> MonthStatement:
    return closing.close(campaign=campaign, month=Month(2024, 11), user=make_staff())


def restate(gift: Gift) -> None:
    """Book a refund in the closed month."""
    deliver(refund_event(gift, 20000, refund="re_later", created=NOON))
    inbox.drain()


def words(answer: Any) -> str:
    text = html.unescape(re.sub(r"<[^>]+>", " ", answer.content.decode()))
    return " ".join(text.replace("\u00a0", " ").split())


# ---- the room


def test_finance_closes_a_month_and_history_says_who(finance: Client, gift: Gift) -> None:
    answer = finance.post(f"{ROOM}/close/", NOVEMBER, follow=True)
    assert "November 2024 is closed." in words(answer)
    statement = MonthStatement.objects.get()
    assert (statement.month, statement.counted, statement.rows) == ("2024-11", {"USD": 50000}, 1)
    assert answer.request["PATH_INFO"] == f"{ROOM}/{statement.pk}/change/"
    entry = LogEntry.objects.get(object_id=str(statement.pk))
    assert (entry.user, entry.get_change_message()) == (statement.closed_by, "Closed 2024-11 of general.")


def test_a_statement_of_a_month_that_finance_closed_is_missed_where_it_is_gone(finance: Client, gift: Gift) -> None:
    finance.post(f"{ROOM}/close/", NOVEMBER)
    assert list(invariants.check()) == []
    switch_guards_off()
    MonthStatement.objects.all()._raw_delete(using="default")
    assert [(found.invariant, found.key) for found in findings()] == [
        ("closed_months_stay", "statement general 2024-11")
    ]


def test_what_stands_in_the_way_is_said_beside_its_field(finance: Client, gift: Gift) -> None:
    deliver(checkout_event(make_gift(gift.campaign, 700)))
    answer = finance.post(f"{ROOM}/close/", NOVEMBER)
    assert answer.status_code == 422
    assert "1 inbox event may belong to this month" in answer.context["form"].errors["reason"][0]
    finance.post(f"{ROOM}/close/", {**NOVEMBER, "reason": "Its donor is known to us."})
    assert MonthStatement.objects.get().reason == "Its donor is known to us."
    again = finance.post(f"{ROOM}/close/", NOVEMBER)
    assert "is closed already" in again.context["form"].errors["month"][0]
    assert "not over yet" in finance.post(f"{ROOM}/close/", NOVEMBER | {"month": "2999-01"}).content.decode()
    for month in ("2024-13", "", "November"):
        assert finance.post(f"{ROOM}/close/", NOVEMBER | {"month": month}).status_code == 422


def test_a_month_is_closed_by_those_who_are_asked_once_more_alone(finance: Client, gift: Gift) -> None:
    answer = finance.post(f"{ROOM}/close/", {**NOVEMBER, "sure": ""})
    assert answer.status_code == 422
    assert "cannot be reopened. Nothing was closed." in answer.context["form"].errors["sure"][0]
    assert "frozen as they are now" in words(answer)
    assert not MonthStatement.objects.exists()


def test_the_form_begins_with_the_default_campaign(finance: Client, gift: Gift) -> None:
    make_campaign("a-first-one")
    names = re.findall(r'<option value="([^"]*)"', finance.get(f"{ROOM}/close/").content.decode())
    assert names == ["general", "a-first-one"]


def test_fees_that_are_asked_for_are_said_beside_the_reason(finance: Client, gift: Gift) -> None:
    deliver(charge_event(gift, "txn_1"))
    inbox.drain()
    answer = finance.post(f"{ROOM}/close/", NOVEMBER)
    assert "Of 1 gift of this month the fee is not booked yet" in answer.context["form"].errors["reason"][0]
    finance.post(f"{ROOM}/close/", {**NOVEMBER, "reason": "The processor is away."})
    assert MonthStatement.objects.get().open_events == 1


def test_closing_needs_the_right_and_a_token(gift: Gift) -> None:
    assert client_of("Campaign managers").post(f"{ROOM}/close/", NOVEMBER).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(make_staff(superuser=True))
    assert strict.post(f"{ROOM}/close/", NOVEMBER).status_code == 403
    assert not MonthStatement.objects.exists()


def test_a_statement_shows_as_closed_beside_restated(finance: Client, gift: Gift) -> None:
    statement = closed(gift.campaign)
    page = words(finance.get(f"{ROOM}/{statement.pk}/change/"))
    assert "Nothing was booked since for a day of this month." in page
    restate(gift)
    page = words(finance.get(f"{ROOM}/{statement.pk}/change/"))
    assert "Restated. Something was booked since for a day of this month." in page
    assert "Gift USD 1 1 500 $ 500 $ –" in page
    assert "Refund USD 0 1 0 $ −200 $ −200 $" in page
    assert "Counted by the bar USD 500 $ 300 $ −200 $" in page
    assert "re_later" in page
    assert statement.sha256 in page


def test_a_refund_of_another_month_restates_the_bar_alone_and_is_listed_there(finance: Client, gift: Gift) -> None:
    statement = closed(gift.campaign)
    deliver(refund_event(gift, 20000, refund="re_later", created=datetime(2024, 12, 18, 12, tzinfo=UTC)))
    inbox.drain()
    page = words(finance.get(f"{ROOM}/{statement.pk}/change/"))
    assert "Nothing was booked since for a day of this month." in page
    assert "Restated. A refund lowers the bar of its gift’s month" in page
    assert "Booked since for finance’s November 2024 Nothing." in page
    listed = page.partition("Booked since for the bar’s November 2024")[2]
    assert "refund −200 $ −200 $" in listed
    assert f"re_later {gift.pk}" in listed


def test_both_files_are_downloaded_and_recorded(finance: Client, gift: Gift) -> None:
    statement = closed(gift.campaign)
    restate(gift)
    files = {}
    for which in ("as-closed", "restated"):
        answer = finance.post(f"{ROOM}/{statement.pk}/{which}.csv")
        name = f"ledger-general-2024-11-{which}-test.csv"
        assert answer["Content-Disposition"] == f'attachment; filename="{name}"'
        files[which] = b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    assert files["as-closed"] == b"".join(closing.as_closed(statement))
    assert (files["as-closed"].count(b"\r\n"), files["restated"].count(b"\r\n")) == (2, 3)
    assert sorted(ExportRecord.objects.values_list("file", flat=True)) == ["as closed", "ledger"]


def test_files_are_for_those_who_may_take_them(finance: Client, gift: Gift) -> None:
    file = f"{ROOM}/{closed(gift.campaign).pk}/as-closed.csv"
    assert client_of("Campaign managers").post(file).status_code == 403
    only_looking = Client()
    only_looking.force_login(make_staff("view_monthstatement"))
    assert only_looking.post(file).status_code == 403
    # Who had to sign in on the way comes by GET.
    assert finance.get(file).headers["Location"] == file.replace("as-closed.csv", "change/")
    assert finance.put(file).status_code == 405
    assert finance.post(file.replace("as-closed", "other")).status_code == 404
    assert not ExportRecord.objects.exists()


def test_nobody_changes_or_deletes_a_statement_superusers_included(gift: Gift) -> None:
    statement, superuser = closed(gift.campaign), client_of(superuser=True)
    before = list(MonthStatement.objects.values())
    for path in ("change", "delete"):
        superuser.post(f"{ROOM}/{statement.pk}/{path}/", {"rows": "9", "post": "yes"})
    superuser.post(f"{ROOM}/", {"action": "delete_selected", "_selected_action": statement.pk, "post": "yes"})
    assert list(MonthStatement.objects.values()) == before


# ---- the dashboard


def test_the_dashboard_leads_to_closing_a_month_that_is_over(finance: Client, gift: Gift) -> None:
    link = f"{ROOM}/close/?campaign=general&amp;month=2024-11"
    assert link in finance.get("/staff/general/2024-11/").content.decode()
    assert link not in client_of("Campaign managers").get("/staff/general/2024-11/").content.decode()
    assert "monthstatement/close" not in finance.get("/staff/general/2999-11/").content.decode()
    form = finance.get(link.replace("&amp;", "&")).content.decode()
    assert 'value="2024-11"' in form
    assert '<option value="general" selected>' in form


def test_the_dashboard_of_a_closed_month_says_by_whom_and_what_is_restated(finance: Client, gift: Gift) -> None:
    statement = closed(gift.campaign)
    page = finance.get("/staff/general/2024-11/")
    closed_at = statement.closed_at.astimezone(ZoneInfo("America/New_York"))
    day = f"{closed_at.day} {closed_at:%B %Y}"
    assert f"Closed on {day} by {statement.closed_by.username}." in words(page)
    assert f"{ROOM}/{statement.pk}/change/" in page.content.decode()
    assert "Restated" not in words(page)
    assert "monthstatement/close" not in page.content.decode()
    restate(gift)
    assert "Restated: 500 $ was raised as closed" in words(finance.get("/staff/general/2024-11/"))
    assert "monthstatement" not in client_of("Campaign managers").get("/staff/general/2024-11/").content.decode()


# ---- the command


def test_what_waits_for_approval_is_named_by_page_and_command(finance: Client, gift: Gift) -> None:
    user = make_staff("add_monthstatement")
    offline.record_gift(
        campaign=gift.campaign, amount=2_000_000, day=date(2024, 11, 15), method="cash", reference="BOX 1",
        reason="a box", user=user,
    )  # fmt: skip
    named = "offline gift BOX 1 of 20,000 $ for 2024-11-15"
    assert named in finance.post(f"{ROOM}/close/", NOVEMBER).context["form"].errors["reason"][0]
    with pytest.raises(CommandError) as refused:
        run("--month=2024-11", f"--by={user.username}")
    assert named in str(refused.value)
    assert "--in-spite REASON" in str(refused.value)
    run("--month=2024-11", f"--by={user.username}", "--in-spite=It is not counted yet.")
    statement = MonthStatement.objects.get()
    assert "fees that were asked for 1" in words(finance.get(f"{ROOM}/{statement.pk}/change/")).replace(":", "")


def run(*arguments: str) -> None:
    call_command("close_month", "--campaign=general", *arguments)


def test_the_command_closes_and_verifies(gift: Gift, capsys: pytest.CaptureFixture[str]) -> None:
    user = make_staff("add_monthstatement")
    run("--month=2024-11", f"--by={user.username}")
    statement = MonthStatement.objects.get()
    assert statement.closed_by == user
    said = capsys.readouterr().out
    assert f"by {user.username}; rows 1, SHA-256 {statement.sha256}" in said
    assert "gift: rows 1, 500" in said
    restate(gift)
    run("--month=2024-11", "--verify")
    assert "Its file made anew is the same, byte for byte." in capsys.readouterr().out


def test_the_command_closes_in_the_name_of_those_who_may_alone(gift: Gift) -> None:
    gone, other = make_staff("add_monthstatement"), make_staff("view_monthstatement")
    User.objects.filter(pk=gone.pk).update(is_active=False)
    for user, remedy in (
        (gone, "switched off .* make the user active"),
        (other, "may not close a month[.] .* Finance"),
    ):
        with pytest.raises(CommandError, match=f"“{user.username}” .*{remedy}"):
            run("--month=2024-11", f"--by={user.username}")
    assert not MonthStatement.objects.exists()
    run("--month=2024-11", f"--by={make_staff(superuser=True).username}")


def test_the_command_finds_tampering(gift: Gift) -> None:
    closed(gift.campaign)
    on_table = f" ON {guards.LEDGER}" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER ledger_no_update{on_table}")
        cursor.execute(f"UPDATE {guards.LEDGER} SET reference = 'pi_other'")
    with pytest.raises(CommandError, match="does not bear out the statement of November 2024: sha256 differ"):
        run("--month=2024-11", "--verify")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--month=2024-11"], "Name who closes it"),
        (["--month=2024-11", "--by=stranger"], "Name who closes it"),
        (["--month=2999-11", "--by=BOOKKEEPER"], "not over yet"),
        (["--month=2024-11", "--by=BOOKKEEPER"], "Say it with --in-spite REASON"),
        (["--month=2024-10", "--verify"], "is not closed"),
        (["--month=nonsense", "--verify"], "write a month like 2024-11"),
        (["--campaign=nothing", "--month=2024-11", "--verify"], "There is no campaign"),
    ],
)
def test_the_command_says_what_is_wrong(gift: Gift, arguments: list[str], said: str) -> None:
    deliver(checkout_event(make_gift(gift.campaign, 700)))
    user = make_staff("add_monthstatement")
    with pytest.raises(CommandError, match=said):
        run(*[argument.replace("BOOKKEEPER", user.username) for argument in arguments])
    assert not MonthStatement.objects.exists()

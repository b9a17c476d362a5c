"""The site's health: staff's page and banner, metrics for a monitor, readiness for a load balancer."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone

from donations import health, metrics, watching
from donations.health import Result
from donations.models import Alert, CheckResult, Donor, InboxEvent, OutboxMessage, Reconciliation, RefundRequest
from donations.selectors import health as wellbeing
from donations.views import health as health_views
from tests.factories import confirm, deliver, event, make_campaign, make_gift, make_staff
from tests.faults.tampering import switch_guards_off

pytestmark = pytest.mark.django_db
TOKEN = "scraper-" + "t" * 40


def client_of(*permissions: str) -> Client:
    client = Client()
    client.force_login(make_staff("view_monthtotal", *permissions))
    return client


def words_of(page: bytes) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.decode()))


def quarantine() -> None:
    confirm(make_gift(make_campaign()), amount_total=1)


# ---- the page


def test_the_page_shows_what_is_watched_and_what_the_checks_found() -> None:
    quarantine()
    health.keep("books", Result(findings=2, words=("entry 1: wrong", "entry 2: wrong")))
    health.keep("reconcile", Result(findings=1, unseen=0))
    page = words_of(client_of().get("/staff/health/").content)
    for words in (
        "not equal: 2 findings, for 0 seconds",
        "not equal: 1 finding, for 0 seconds",
        "entry 1: wrong",
        "Quarantined 1 ",
        "Last event 0 seconds ago",
    ):
        assert words in page


def test_what_the_last_reconciliation_fetched_is_no_longer_missing_and_no_alarm(settings: Any) -> None:
    health.keep("reconcile", Result(findings=0, unseen=18))
    page = client_of().get("/staff/health/").content
    assert "Fetched by the last reconciliation, as it was not here 18 " in words_of(page)
    assert b'class="wrong"' not in page
    assert "# HELP supportsite_unseen What the last reconciliation fetched" in scrape(settings).content.decode()


def test_mail_that_failed_is_counted_and_letters_that_nobody_needed_are_not(settings: Any) -> None:
    for number, state in enumerate(["failed", "unneeded", "unneeded"]):
        OutboxMessage.objects.create(
            kind="receipt", subject_id=f"gift_{number}", state=state, next_try_at=timezone.now()
        )
    assert "Mail that could not be sent, last three days 1 " in words_of(client_of().get("/staff/health/").content)
    assert 'supportsite_mail_messages{state="failed"} 1\n' in scrape(settings).content.decode()


def test_the_page_of_a_new_site_says_that_nothing_was_checked_yet() -> None:
    page = words_of(client_of().get("/staff/health/").content)
    for words in ("not checked yet", "Last event never", "not compared yet", "Nothing has needed anybody yet."):
        assert words in page


def test_the_page_is_for_those_who_see_the_dashboard() -> None:
    assert Client().get("/staff/health/").status_code == 302
    client = Client()
    client.force_login(make_staff("view_gift"))
    assert client.get("/staff/health/").status_code == 403


def test_a_refund_without_an_answer_is_listed_with_its_gift() -> None:
    gift = make_gift(make_campaign())
    confirm(gift)
    RefundRequest.objects.create(gift=gift, amount=1)
    RefundRequest.objects.update(requested_at=timezone.now() - timedelta(hours=2))
    assert (
        f"/admin/donations/gift/{quote(gift.pk)}/change/"
        in client_of("view_gift").get("/staff/health/").content.decode()
    )
    assert "/admin/donations/gift/" not in client_of().get("/staff/health/").content.decode()


def test_the_dashboard_says_whether_the_books_are_equal_and_since_when() -> None:
    make_campaign()
    assert "Books: not checked yet." in words_of(client_of().get("/staff/", follow=True).content)
    CheckResult.objects.create(
        kind="books", due_at=timezone.now(), is_equal=True, since=timezone.now() - timedelta(hours=3)
    )
    assert "Books: equal for 3 hours." in words_of(client_of().get("/staff/", follow=True).content)


def test_what_differs_for_known_reasons_is_said_to_differ_everywhere_and_alarms_nobody(settings: Any) -> None:
    make_campaign()
    health.keep("reconcile", Result(findings=0, explained=1, unseen=0))
    differ = "differ, all explained (1)"
    assert f"against the processor’s: {differ} for 0 seconds" in words_of(
        client_of().get("/staff/", follow=True).content
    )
    assert f"The books against the processor’s {differ}, for 0 seconds" in words_of(
        client_of().get("/staff/health/").content
    )
    lines = scrape(settings).content.decode().splitlines()
    assert 'supportsite_books_equal{check="reconcile"} 0' in lines
    assert 'supportsite_books_findings{check="reconcile"} 0' in lines
    assert "supportsite_troubles 0" in lines
    assert ready() == (200, "ready", [])
    health.keep("reconcile", Result(findings=2, explained=1, unseen=0))
    assert "against the processor’s: not equal" in words_of(client_of().get("/staff/", follow=True).content)
    assert ready()[2] == ["the books are not equal"]
    health.keep("reconcile", Result(findings=0, unseen=0))
    assert "against the processor’s: equal" in words_of(client_of().get("/staff/", follow=True).content)


# ---- the banner

ROOMS = ["/staff/health/", "/staff/general/2024-11/", "/admin/"]
LINK = 'href="/admin/donations/inboxevent/?state__exact=quarantined"'


@pytest.mark.parametrize("address", ROOMS)
def test_a_trouble_stands_on_every_page_of_staff_with_a_link_for_those_who_may(address: str) -> None:
    quarantine()
    watching.look()
    page = client_of("view_inboxevent").get(address).content.decode()
    assert re.search(r'<section[^>]* role="status"[^>]*>.*1 event is in quarantine', page, re.DOTALL)
    assert LINK in page
    without = client_of().get(address).content.decode()
    assert "1 event is in quarantine" in without
    assert LINK not in without


def test_no_trouble_is_shown_to_those_who_do_not_see_the_dashboard() -> None:
    quarantine()
    watching.look()
    client = Client()
    client.force_login(make_staff("view_inboxevent"))
    assert "in quarantine and not" not in client.get("/admin/").content.decode()
    assert "in quarantine and not" not in Client().get("/admin/login/").content.decode()


def test_a_trouble_that_is_gone_leaves_the_admins_banner() -> None:
    quarantine()
    watching.look()
    Alert.objects.update(seen_at=timezone.now() - timedelta(minutes=2))
    assert "in quarantine and not" not in client_of().get("/admin/").content.decode()


def test_no_page_of_health_names_a_donor() -> None:
    quarantine()
    Donor.objects.create(email="reader@example.org", name="A Reader")
    watching.look()
    for address in ROOMS:
        assert "eader@" not in client_of("view_inboxevent").get(address).content.decode()


# ---- metrics


def scrape(settings: Any, token: str = TOKEN) -> Any:
    settings.METRICS_TOKEN = TOKEN
    return Client().get("/metrics", headers={"Authorization": f"Bearer {token}"})


def test_without_a_token_in_the_settings_there_are_no_metrics() -> None:
    assert Client().get("/metrics").status_code == 404
    assert Client().get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


@pytest.mark.parametrize(
    "sent", [None, "", "Bearer", "Bearer ", f"bearer {TOKEN}", f"Bearer {TOKEN}x", TOKEN, "Bearer é"]
)
def test_without_the_right_token_there_are_no_metrics(settings: Any, sent: str | None) -> None:
    settings.METRICS_TOKEN = TOKEN
    answer = Client().get("/metrics", headers={"Authorization": sent} if sent is not None else {})
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert b"supportsite" not in answer.content


SAMPLE = re.compile(r'([a-z_]+)(?:\{[a-z]+="[a-z_]+"\})? (-?[0-9.e+]+)')


def test_metrics_are_in_the_text_format(settings: Any) -> None:
    quarantine()
    health.keep("books", Result(findings=0))
    answer = scrape(settings)
    assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = answer.content.decode()
    assert text.endswith("\n")
    declared = re.findall(r"# TYPE ([a-z_]+) gauge\n", text)
    for line in text.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] in declared
    assert len(set(declared)) == len(declared) == len(metrics.gauges(wellbeing.health()))


def test_metrics_say_what_staff_see(settings: Any) -> None:
    quarantine()
    health.keep("books", Result(findings=0))
    health.keep("reconcile", Result(findings=3, unseen=2))
    lines = scrape(settings).content.decode().splitlines()
    for line in (
        'supportsite_inbox_events{state="quarantined"} 1',
        'supportsite_books_equal{check="books"} 1',
        'supportsite_books_equal{check="reconcile"} 0',
        'supportsite_books_findings{check="reconcile"} 3',
        "supportsite_unseen 2",
        "supportsite_troubles 2",
    ):
        assert line in lines


# ---- what was found


@pytest.mark.parametrize(
    ("kind", "command", "other"),
    [
        ("books", "manage.py check_books prints all of them", "manage.py reconcile --check"),
        ("reconcile", "manage.py reconcile --check prints all of them", "manage.py check_books"),
    ],
)
def test_beside_what_was_found_stands_the_command_that_prints_it(kind: str, command: str, other: str) -> None:
    health.keep(kind, Result(findings=1, words=("entry 1: wrong. Mend it.",)))
    page = words_of(client_of().get("/staff/health/").content)
    findings = page.partition("what was found first")[2].partition("What is watched")[0]
    assert "entry 1: wrong. Mend it." in findings
    assert command in findings
    assert other not in findings


# ---- readiness


@pytest.fixture(autouse=True)
def not_known_to_be_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_views, "_migrated", False)


def ready() -> tuple[int, str, list[str]]:
    answer = Client().get("/readyz")
    return answer.status_code, answer.json()["status"], answer.json()["problems"]


def test_a_site_that_is_well_is_ready() -> None:
    watching.check_books()
    assert ready() == (200, "ready", [])


def test_who_has_the_token_is_told_the_figures_of_the_metrics(settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN
    quarantine()
    health.keep("reconcile", Result(findings=3, unseen=2))
    assert "figures" not in Client().get("/readyz").json()
    assert "figures" not in Client().get("/readyz", headers={"Authorization": "Bearer x"}).json()
    figures = Client().get("/readyz", headers={"Authorization": f"Bearer {TOKEN}"}).json()["figures"]
    assert figures.keys() == {gauge.name for gauge in metrics.gauges(wellbeing.health())}
    assert figures["supportsite_unseen"] == 2
    assert figures["supportsite_inbox_events"]["quarantined"] == 1


def test_a_reconciliation_that_stands_still_is_shown_and_told() -> None:
    began = timezone.now() - timedelta(hours=4)
    Reconciliation.objects.create(
        processor="stripe", since=began, started_at=began, held_until=began, step="disputes", error="the key is refused"
    )
    assert "the processor was not reconciled with for three hours" in ready()[2]
    page = client_of("view_monthtotal").get("/staff/health/")
    assert "stands still: the key is refused" in words_of(page.content)
    Reconciliation.objects.update(started_at=timezone.now() - timedelta(hours=2))
    assert ready() == (200, "ready", [])
    page = client_of("view_monthtotal").get("/staff/health/")
    assert "stands still: the key is refused" in words_of(page.content)
    Reconciliation.objects.update(error="")
    page = client_of("view_monthtotal").get("/staff/health/")
    assert "stands still" not in words_of(page.content)


@pytest.mark.parametrize("minutes, late", [(59, False), (61, True)])
def test_a_reconciliation_that_does_not_begin_is_shown_and_told(settings: Any, minutes: int, late: bool) -> None:
    settings.RECONCILE_EVERY_MINUTES = 120
    health.keep("reconcile", Result(findings=0))
    CheckResult.objects.update(finished_at=timezone.now() - timedelta(hours=4, minutes=minutes))
    assert ("the processor was not reconciled with for three hours" in ready()[2]) == late
    page = client_of("view_monthtotal").get("/staff/health/")
    assert ("none has begun since" in words_of(page.content)) == late


def test_a_site_without_its_migrations_is_not_ready() -> None:
    MigrationRecorder(connection).migration_qs.filter(app="donations").latest("name").delete()
    assert ready() == (503, "unready", ["migrations are missing: migrate"])


def test_what_another_process_would_do_no_better_leaves_a_site_ready() -> None:
    switch_guards_off()
    deliver(event("payout.paid", {"id": "po_1"}))
    InboxEvent.objects.update(received_at=timezone.now() - timedelta(minutes=6))
    health.keep("books", Result(findings=1))
    CheckResult.objects.update(finished_at=timezone.now() - timedelta(hours=2))
    status, word, problems = ready()
    assert (status, word) == (200, "degraded")
    assert problems == [
        "triggers of the ledger are missing: migrate",
        "events lie unprocessed",
        "the books are not equal",
        "the books were not checked within an hour",
    ]

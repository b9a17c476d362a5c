"""The donor's page of a monthly gift, and the way on to the processor's billing portal."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.signing import Signer
from django.test import Client

from donations import outbox
from donations.models import RecurringGift
from donations.views.monthly import MEANING
from tests.factories import make_campaign, make_recurring_gift
from tests.sandbox import Sandboxed

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.page]
TWENTY = {"now_amount": 2000, "now_currency": "USD", "now_interval": "month"}
DECEMBER = datetime(2024, 12, 18, 2, tzinfo=UTC)


@pytest.fixture
def monthly() -> RecurringGift:
    return make_recurring_gift(make_campaign(), status="active", subscription="sub_1", public_name="Ada Secret")


def address(recurring: RecurringGift) -> str:
    return outbox.manage_url(recurring).removeprefix("http://testserver")


def press(client: Client, recurring: RecurringGift, origin: str = "http://testserver") -> Any:
    return client.post(address(recurring), HTTP_ORIGIN=origin)


def test_the_page_says_where_it_stands_and_names_nobody(client: Client, monthly: RecurringGift) -> None:
    answer = client.get(address(monthly))
    assert "10 $ each month" in answer.text
    assert "Active" in answer.text
    assert "Ada" not in answer.text + address(monthly)
    assert "no-store" in answer.headers["Cache-Control"]
    assert answer.cookies == {}


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (TWENTY, "20 $ each month"),
        (TWENTY | {"now_fee_cover": 61}, "20.61 $ each month"),
        (TWENTY | {"now_currency": "EUR", "now_interval": "year"}, "20 € each year"),
        (TWENTY | {"now_amount": 0, "now_interval": "3 months"}, "0 $ every 3 months"),
    ],
)
def test_the_page_says_what_is_asked_now(
    client: Client, monthly: RecurringGift, now: dict[str, Any], words: str
) -> None:
    RecurringGift.objects.update(**now)
    assert words in client.get(address(monthly)).text


@pytest.mark.parametrize("status", RecurringGift.Status)
def test_every_status_is_shown_as_it_is_and_in_words(
    client: Client, monthly: RecurringGift, status: RecurringGift.Status
) -> None:
    RecurringGift.objects.update(status=status)
    page = client.get(address(monthly)).text
    assert f"<dd>{status.label.capitalize()}</dd>" in page
    assert MEANING[status] in page
    over = status in {"canceled", "expired", "incomplete_expired"}
    assert ("<button" in page, "?frequency=monthly" in page) == (not over, over)


def test_an_end_is_the_day_where_the_campaign_is(client: Client, monthly: RecurringGift) -> None:
    RecurringGift.objects.update(cancel_at=DECEMBER)
    assert "17 December 2024, by itself" in client.get(address(monthly)).text
    RecurringGift.objects.update(status="canceled", ended_at=DECEMBER)
    page = client.get(address(monthly)).text
    assert "by itself" not in page
    assert "<dt>Ended</dt><dd>17 December 2024</dd>" in page


def test_an_address_that_we_did_not_sign_is_not_found(client: Client, monthly: RecurringGift) -> None:
    thanks = Signer(salt="donations.thanks").sign(monthly.pk)
    for token in (monthly.pk, f"{monthly.pk}:x", thanks, Signer(salt="donations.manage").sign("recurring_0")):
        assert client.get(f"/manage/{token}/").status_code == 404
        assert client.post(f"/manage/{token}/").status_code == 404


def test_its_button_leads_to_the_portal_and_from_there_back(
    client: Client, monthly: RecurringGift, box: Sandboxed
) -> None:
    RecurringGift.objects.update(subscription=box.subscribed()["subscription"])
    answer = press(client, monthly)
    assert (answer.status_code, answer.headers["Location"].startswith(f"{box.url}/portal/bps_1")) == (303, True)
    portal = box.http("GET", answer.headers["Location"].removeprefix(box.url))
    assert "Stop when this month ends" in portal.text
    assert outbox.manage_url(monthly) in portal.text


@pytest.mark.parametrize("mode", ["down", "429"])
def test_a_processor_that_does_not_answer_is_a_kind_page(
    client: Client, monthly: RecurringGift, box: Sandboxed, mode: str
) -> None:
    RecurringGift.objects.update(subscription=box.subscribed()["subscription"])
    box.control("trouble", mode=mode)
    answer = press(client, monthly)
    assert answer.status_code == 503
    assert "does not answer just now" in answer.text
    box.control("trouble", mode="none")
    assert press(client, monthly).status_code == 303


def test_a_portal_that_is_refused_is_said_to_the_donor_and_logged_with_its_remedy(
    client: Client, monthly: RecurringGift, box: Sandboxed, caplog: pytest.LogCaptureFixture
) -> None:
    answer = press(client, monthly)
    assert answer.status_code == 503
    assert "reply to one of our mails" in " ".join(answer.text.split())
    remedy = "is it switched on at the processor?"
    assert f"portal of {monthly.pk} refused ({remedy}): resource_missing" in caplog.messages


def test_a_gift_that_is_over_or_was_never_begun_asks_for_no_portal(client: Client, monthly: RecurringGift) -> None:
    for fields in ({"status": "canceled"}, {"status": "pending", "subscription": ""}):
        RecurringGift.objects.update(**fields)
        assert press(client, monthly).status_code == 200


def test_another_site_cannot_press_the_button(client: Client, monthly: RecurringGift) -> None:
    assert press(client, monthly, "https://elsewhere.example").status_code == 403


def test_the_policy_lets_the_form_lead_to_the_portal(client: Client, monthly: RecurringGift, settings: Any) -> None:
    policy = client.get(address(monthly)).headers["Content-Security-Policy"]
    [allowed] = [part for part in policy.split(";") if part.strip().startswith("form-action")]
    assert set(settings.STRIPE_CHECKOUT_ORIGINS) <= set(allowed.split())

"""The bar on other sites: what it says, who may frame it, and what an unknown or malformed request gets."""

import re
import time
from datetime import UTC, datetime
from html import unescape
from typing import Any
from xml.etree import ElementTree

import pytest
from django.test import Client

from donations.models import Campaign
from donations.selectors.bar import LOCKS
from donations.views.embed import METERS
from tests.factories import confirm, make_campaign, make_gift

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.page]
MONTH = "?month=2024-11"


@pytest.fixture(autouse=True)
def november() -> None:
    """A campaign month of November 2024 with one confirmed gift of 500."""
    METERS.kept.clear()
    campaign = make_campaign(name="News & more <free>")
    confirm(make_gift(campaign, 50000), at=datetime(2024, 11, 18, 12, tzinfo=UTC))


def test_the_bar_reads_exactly(client: Client) -> None:
    told = client.get(f"/embed/v1/meter.json{MONTH}").json()
    assert [mark["label"] for mark in told["scale"]] == ["0 $", "2,500 $", "5,000 $"]
    assert (told["raised_label"], told["label"]) == ("500 $", "NOVEMBER 2024")
    assert (told["raised"], told["goal"], told["percent"], told["fill"]) == (50000, 500000, 10, 10)
    page = client.get(f"/embed/v1/meter{MONTH}").content.decode()
    places = [page.index(words) for words in ("0 $", "2,500 $", "5,000 $", ">500 $", "NOVEMBER 2024")]
    assert places == sorted(places)


def test_the_picture_says_the_same_and_is_well_formed(client: Client) -> None:
    answer = client.get(f"/embed/v1/meter.svg{MONTH}")
    assert answer.headers["Content-Type"] == "image/svg+xml"
    texts = [node.text for node in ElementTree.fromstring(answer.content).iter() if node.text]  # noqa: S314 (our own)
    assert texts[0] == "500 $ raised of the 5,000 $ goal in November 2024"
    labels = {text for text in texts[1:] if text.strip()}
    assert labels == {"0 $", "2,500 $", "5,000 $", "500 $", "NOVEMBER 2024", "Test mode"}


@pytest.mark.parametrize("path", ["meter", "meter.json", "meter.svg"])
def test_every_shape_is_framed_cached_and_compared_alike(client: Client, path: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    first = client.get(f"/embed/v1/{path}{MONTH}")
    assert first.status_code == 200
    assert first.headers["Access-Control-Allow-Origin"] == "*"
    again = client.get(f"/embed/v1/{path}{MONTH}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert client.get(f"/embed/v1/{path}{MONTH}", headers={"If-None-Match": " * "}).status_code == 304
    assert not first.cookies
    assert client.get(f"/embed/v1/{path}?campaign=nothing").status_code == 404
    for month in ("2024-13", "2024-1", "november", "", "٢٠٢٤-١١", "2024-11\n"):
        assert client.get(f"/embed/v1/{path}", {"month": month}).status_code == 400
    for ask in (strict.post, strict.put, strict.delete):
        assert ask(f"/embed/v1/{path}").status_code == 405


def test_a_page_whose_style_sheets_moved_is_sent_anew_though_its_figures_stand(client: Client, settings: Any) -> None:
    page, told = client.get(f"/embed/v1/meter{MONTH}"), client.get(f"/embed/v1/meter.json{MONTH}")
    settings.STATIC_URL = "/static/moved/"
    METERS.kept.clear()
    again = client.get(f"/embed/v1/meter{MONTH}", headers={"If-None-Match": page.headers["ETag"]})
    assert (again.status_code, "/static/moved/donations/meter.css" in again.text) == (200, True)
    again = client.get(f"/embed/v1/meter.json{MONTH}", headers={"If-None-Match": told.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("", ""),
        ("?campaign=radio", "?campaign=radio"),
        ("?month=2024-11", "?month=2024-11"),
        ("?source=x&month=2024-11&campaign=radio", "?campaign=radio&amp;month=2024-11"),
    ],
)
def test_the_snippets_show_what_the_page_above_them_shows(client: Client, settings: Any, asked: str, kept: str) -> None:
    settings.SITE_NAME = "News & <more>"
    make_campaign("radio", goal=100000)
    frame, link = map(unescape, re.findall("<code>(.*)</code>", client.get(f"/embed/{asked}").text))
    assert frame == (
        f'<iframe src="http://testserver/embed/v1/meter{kept}" title="Reader support" width="100%" height="240" '
        'loading="lazy"></iframe>'
    )
    campaign = "radio" if "radio" in asked else "general"
    assert link == (f'<a href="http://testserver/give/{campaign}/?source=article">Support News &amp; &lt;more&gt;</a>')


def test_any_site_may_frame_the_bar_and_none_the_form(client: Client) -> None:
    bar, form = client.get("/embed/v1/meter"), client.get("/give/general/")
    assert "frame-ancestors *" in bar.headers["Content-Security-Policy"]
    assert "X-Frame-Options" not in bar.headers
    assert "frame-ancestors 'none'" in form.headers["Content-Security-Policy"]
    assert form.headers["X-Frame-Options"] == "DENY"


@pytest.mark.slow
def test_the_bar_is_at_most_a_second_behind_the_ledger(client: Client) -> None:
    assert client.get(f"/embed/v1/meter.json{MONTH}").json()["raised"] == 50000
    confirm(make_gift(Campaign.objects.get(), 1000), at=datetime(2024, 11, 19, 12, tzinfo=UTC))
    end = time.monotonic() + 1
    while time.monotonic() < end and client.get(f"/embed/v1/meter.json{MONTH}").json()["raised"] != 51000:
        time.sleep(0.02)
    assert client.get(f"/embed/v1/meter.json{MONTH}").json()["raised"] == 51000


@pytest.mark.slow
def test_what_strangers_ask_for_is_not_kept(client: Client) -> None:
    for number in range(300):
        client.get(f"/embed/v1/meter.json?campaign=nothing-{number}")
    assert len(METERS.kept) <= 1
    assert len(METERS.locks) == LOCKS

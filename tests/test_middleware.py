"""What every request passes: whom we believe about the caller, and how much we read of what they send."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from donations.middleware import TrustedProxies
from donations.models import Gift
from donations.views.embed import METERS
from tests.factories import make_campaign

ADDRESS = "203.0.113.7"


# ---- whom we believe


def believed(settings: Any, proxies: list[str], peer: str, **headers: str) -> tuple[str, str]:
    """The caller's address and scheme that the site goes by."""
    settings.TRUSTED_PROXIES = proxies
    passed: list[HttpRequest] = []

    def view(request: HttpRequest) -> HttpResponse:
        passed.append(request)
        return HttpResponse()

    TrustedProxies(view)(RequestFactory().get("/", REMOTE_ADDR=peer, **headers))
    assert not [name for name in passed[0].META if name.startswith("HTTP_X_FORWARDED")]
    return passed[0].META["REMOTE_ADDR"], passed[0].scheme or ""


def test_a_stranger_is_not_believed_about_who_they_are(settings: Any) -> None:
    said = {"HTTP_X_FORWARDED_FOR": "192.0.2.1", "HTTP_X_FORWARDED_PROTO": "https"}
    assert believed(settings, ["10.0.0.0/8"], ADDRESS, **said) == (ADDRESS, "http")
    assert believed(settings, [], "10.0.0.1", **said) == ("10.0.0.1", "http")


@pytest.mark.parametrize(
    "chain", [ADDRESS, f"192.0.2.66, {ADDRESS}", f"192.0.2.66, {ADDRESS}, 10.0.0.2", f"::ffff:x,{ADDRESS}"]
)
def test_our_proxy_is_believed_about_the_last_one_that_is_not_ours(settings: Any, chain: str) -> None:
    said = {"HTTP_X_FORWARDED_FOR": chain, "HTTP_X_FORWARDED_PROTO": "https"}
    assert believed(settings, ["10.0.0.0/8"], "10.0.0.1", **said) == (ADDRESS, "https")


@pytest.mark.parametrize("peer", ["::ffff:10.0.0.1", "::ffff:a00:1"])
def test_an_ipv4_address_that_is_written_as_ipv6_is_the_same(settings: Any, peer: str) -> None:
    assert believed(settings, [], peer) == ("10.0.0.1", "http")
    said = {"HTTP_X_FORWARDED_FOR": f"::ffff:{ADDRESS}", "HTTP_X_FORWARDED_PROTO": "https"}
    assert believed(settings, ["10.0.0.0/8"], peer, **said) == (ADDRESS, "https")


@pytest.mark.parametrize("scheme", ["", "ftp", "https, http", "HTTPS://x"])
def test_a_scheme_that_is_none_changes_nothing(settings: Any, scheme: str) -> None:
    assert believed(settings, ["10.0.0.1"], "10.0.0.1", HTTP_X_FORWARDED_PROTO=scheme) == ("10.0.0.1", "http")


# ---- how much we read


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/give/general/?sent", "/admin/login/", "/follow/x/", "/nowhere/"])
def test_a_file_that_nobody_asked_for_is_not_taken_in(client: Client, path: str) -> None:
    make_campaign()
    large = SimpleUploadedFile("x.bin", bytes(301 * 1024))
    answer = client.post(path, {"tier": "50000", "file": large}, HTTP_ORIGIN="http://testserver")
    assert (answer.status_code, answer.text) == (413, "This is more than the site takes at once.\n")
    assert not Gift.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("length", ["-1", "x", "", "٣", "1_0"])
def test_a_length_that_is_none_is_read_as_nothing(client: Client, length: str) -> None:
    make_campaign()
    answer = client.generic("POST", "/give/general/", b"tier=50000", CONTENT_LENGTH=length)
    assert answer.status_code in {400, 422}


ROOM = "/admin/donations"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path",
    [
        *(f"{ROOM}/gift/%00/change/", f"{ROOM}/gift/a%00/history/", f"{ROOM}/gift/gift_%00/refund/"),
        *(f"{ROOM}/recurringgift/%00/change/", f"{ROOM}/ledgerentry/?kind__exact=%00"),
        *(f"{ROOM}/offlinerequest/?status__exact=a%00b", f"{ROOM}/campaignmonth/?month=%00", f"{ROOM}/gift/?q=%00"),
    ],
)
def test_an_address_of_the_admins_with_a_nul_is_no_pages(path: str) -> None:
    """PostgreSQL takes no text with one, not even to compare it."""
    staff = Client()
    staff.force_login(User.objects.create_superuser("staff", password="long-enough-a-word"))
    answer = staff.get(path)
    assert (answer.status_code, answer.text) == (400, "No page has such an address.\n")


TEST_MODE = "Test mode"
EVERY_PAGE = [
    "/admin/",
    "/admin/donations/gift/",
    "/give/general/",
    "/demo/nothing/",
    "/embed/v1/meter",
    "/embed/v1/meter.svg",
]


@pytest.mark.django_db
@pytest.mark.parametrize("livemode", [False, True])
def test_every_page_says_whether_it_is_of_test_mode(go_live: Callable[[], None], livemode: bool) -> None:
    if livemode:
        go_live()
    METERS.kept.clear()
    make_campaign()
    staff = Client()
    staff.force_login(User.objects.create_superuser("staff", password="long-enough-a-word"))
    pages = {path: staff.get(path).text for path in EVERY_PAGE}
    pages["signing in"] = Client().get("/admin/login/").text
    pages["sent from elsewhere"] = staff.post("/give/general/", HTTP_ORIGIN="https://elsewhere.example").text
    assert {path for path, page in pages.items() if (TEST_MODE in page) == livemode} == set()
    METERS.kept.clear()


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/give/%00/", "/embed/v1/meter.json?campaign=%00", "/staff/%00/2024-11/"])
def test_elsewhere_an_address_with_a_nul_leads_nowhere(path: str) -> None:
    staff = Client()
    staff.force_login(User.objects.create_superuser("staff", password="long-enough-a-word"))
    assert staff.get(path).status_code == 404

"""Staff's sign-in: who tries too many passwords waits, and nobody keeps the whole site busy with them."""

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from donations.views import sign_in
from donations.views.sign_in import Failures, SignIn, network_of
from tests.factories import make_staff

LOGIN = "/admin/login/"
PASSWORD = "the right one, and long"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def attempt(name: str = "anna", address: str = "203.0.113.1") -> HttpRequest:
    return RequestFactory().post(LOGIN, {"username": name, "password": "x"}, REMOTE_ADDR=address)


def door(view: Callable[[HttpRequest], HttpResponse], clock: Clock | None = None) -> SignIn:
    return SignIn(view, Failures(clock or Clock()))


def says_no(request: HttpRequest) -> HttpResponse:
    return HttpResponse("wrong password")


def says_yes(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=302)


def refused_after(view: SignIn, *attempts: HttpRequest) -> int:
    """How many of these attempts were looked at before one was refused."""
    for number, request in enumerate(attempts):
        if view(request).status_code == 429:
            return number
    return len(attempts)


def test_a_name_that_is_written_otherwise_is_the_same_account() -> None:
    names = ["fin", "FIN ", "\uff46in", "f\uff49n", "\ufb01n", "\uff26\uff29\uff2e"]
    assert refused_after(door(says_no), *(attempt(name) for name in names)) == sign_in.MOST_FAILURES_OF_AN_ACCOUNT


# ---- through the admin


@pytest.fixture
def password() -> str:
    user = make_staff()
    user.set_password(PASSWORD)
    user.username = "anna"
    user.save()
    return PASSWORD


def post(name: str, password: str, address: str) -> Any:
    return Client().post(LOGIN, {"username": name, "password": password}, REMOTE_ADDR=address)


@pytest.mark.django_db
def test_five_wrong_passwords_for_a_name_are_looked_at_and_then_not_even_the_right_one(password: str) -> None:
    here, there = "198.51.100.1", "198.51.100.2"
    assert [post("anna", "wrong", here).status_code for _ in range(5)] == [200] * 5
    refusal = post("Anna ", password, here)
    assert refusal.status_code == 429
    assert 890 <= int(refusal["Retry-After"]) <= 900
    assert "Try again in 15 minutes" in refusal.content.decode()
    assert refusal["Cache-Control"] == "no-store"
    assert "script-src 'self'" in refusal["Content-Security-Policy"]
    assert Client().get(LOGIN, REMOTE_ADDR=here).status_code == 200
    assert post("anna", password, there).status_code == 302


@pytest.mark.django_db
def test_who_gets_in_begins_anew(password: str) -> None:
    here = "198.51.100.3"
    for _ in range(2):
        assert [post("anna", "wrong", here).status_code for _ in range(4)] == [200] * 4
        assert post("anna", password, here).status_code == 302


@pytest.mark.django_db
def test_the_address_of_the_sign_in_is_the_admins_own() -> None:
    answer = Client().get("/admin/", follow=True)
    assert answer.redirect_chain == [(f"{LOGIN}?next=/admin/", 302)]


@pytest.mark.django_db
def test_a_form_without_its_token_is_refused_with_a_way_on() -> None:
    answer = Client(enforce_csrf_checks=True).post(LOGIN, {"username": "a", "password": "b"})
    assert answer.status_code == 403
    assert "Nothing was done" in answer.text
    assert "style=" not in answer.text  # the policy lets none in


@pytest.mark.django_db
@pytest.mark.parametrize("after", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_who_signs_in_by_a_strangers_link_comes_to_staffs_rooms(password: str, after: str) -> None:
    answer = Client().post(f"{LOGIN}?{urlencode({'next': after})}", {"username": "anna", "password": password})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")


# ---- counting


def test_a_network_that_tries_many_names_is_refused_too() -> None:
    view = door(says_no)
    assert refused_after(view, *(attempt(f"name{number}") for number in range(30))) == 20
    assert view(attempt("name99", "203.0.113.2")).status_code == 200


def test_an_ipv6_network_is_one_however_many_addresses_it_has() -> None:
    view = door(says_no)
    attempts = (attempt("anna", f"2001:db8:1:2::{number:x}") for number in range(1, 10))
    assert refused_after(view, *attempts) == 5
    assert view(attempt("anna", "2001:db8:1:3::1")).status_code == 200


@pytest.mark.parametrize(
    ("address", "network"),
    [("203.0.113.9", "203.0.113.9"), ("2001:db8::1", "2001:db8::/64"), ("", ""), ("unix:", ""), ("1.2.3.4:80", "")],
)
def test_a_network_is_an_address_or_what_one_household_has(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_refusal_ends_after_a_quarter_of_an_hour_and_is_not_drawn_out_by_trying() -> None:
    clock = Clock()
    view = door(says_no, clock)
    assert refused_after(view, *(attempt() for _ in range(6))) == 5
    clock.now += 899
    answer = view(attempt())
    assert (answer.status_code, answer["Retry-After"]) == (429, "2")
    assert "in 1 minute." in answer.content.decode()
    clock.now += 1
    assert refused_after(view, *(attempt() for _ in range(6))) == 5


def test_failures_long_apart_do_not_add_up() -> None:
    clock = Clock()
    view = door(says_no, clock)
    for _ in range(30):
        assert view(attempt()).status_code == 200
        clock.now += 901


def test_what_is_remembered_is_bounded() -> None:
    failures = Failures(Clock())
    for number in range(sign_in.MOST_REMEMBERED + 10):
        failures.add({number: 1})
    assert len(failures.counts) == sign_in.MOST_REMEMBERED
    assert (failures.seconds_to_wait({0: 1}), failures.seconds_to_wait({sign_in.MOST_REMEMBERED: 1})) == (0, 901)


# ---- one at a time


def test_one_password_is_checked_at_a_time_one_waits_and_others_are_turned_away_at_once() -> None:
    inside, go_on = threading.Semaphore(0), threading.Event()
    running, most = 0, 0

    def slow(request: HttpRequest) -> HttpResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        inside.release()
        go_on.wait(10)
        running -= 1
        return HttpResponse(status=302)

    view = door(slow)
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(view(attempt()).status_code)) for _ in range(2)]
    threads[0].start()
    assert inside.acquire(timeout=10)
    threads[1].start()
    while view.places._value:
        threading.Event().wait(0.01)
    answer = view(attempt("berta", "203.0.113.7"))
    assert (answer.status_code, answer["Retry-After"]) == (429, "5")
    assert "Others are signing in just now" in answer.content.decode()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert (codes, most) == ([302, 302], 1)
    assert view(attempt()).status_code == 302


def test_who_waits_too_long_for_another_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "PATIENCE", 0.05)
    view = door(says_yes)
    with view.checking:
        assert view(attempt()).status_code == 429
    assert view(attempt()).status_code == 302


def test_a_check_that_fails_gives_its_place_back() -> None:
    def breaks(request: HttpRequest) -> HttpResponse:
        raise RuntimeError("the database is away")

    view = door(breaks)
    for _ in range(5):
        with pytest.raises(RuntimeError):
            view(attempt())


def test_the_log_names_no_one(caplog: pytest.LogCaptureFixture) -> None:
    view = door(says_no)
    refused_after(view, *(attempt() for _ in range(6)))
    assert "too many wrong passwords" in caplog.text
    assert "anna" not in caplog.text
    assert "203.0.113" not in caplog.text

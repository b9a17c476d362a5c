"""Trouble at will: limits, outages and silence, for as many calls as wanted."""

import http.client
import json
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.hands import Hands
from tests.sandbox import KEY, Sandboxed, eventually, sandbox, session_form

Json = dict[str, Any]
SESSIONS = "/v1/checkout/sessions"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandboxed]:
    with sandbox(tmp_path) as running:
        yield running


def statuses(box: Sandboxed, count: int, path: str = "/v1/events") -> list[int]:
    return [box.api("GET", path).status for _ in range(count)]


def test_a_limit_says_when_to_come_back(box: Sandboxed) -> None:
    box.control("trouble", mode="429")
    answer = box.api("GET", "/v1/events")
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert answer.json["error"]["code"] == "rate_limit"


@pytest.mark.parametrize("mode, status", [("429", 429), ("down", 503)])
def test_the_next_calls_suffer_and_those_after_them_do_not(box: Sandboxed, mode: str, status: int) -> None:
    box.control("trouble", mode=mode, calls=2)
    assert statuses(box, 3) == [status, status, 200]
    assert box.state()["trouble"] == {"mode": "none"}


def test_a_failure_is_kept_for_its_key_and_what_failed_was_not_done(box: Sandboxed) -> None:
    def create(key: str) -> Any:
        return box.api("POST", SESSIONS, session_form(), Idempotency_Key=key)

    box.control("trouble", mode="broken", calls=1)
    first, again, under_another = create("k"), create("k"), create("k-1")
    assert [first.status, again.status, under_another.status] == [500, 500, 200]
    assert first.json == again.json
    assert first.json["error"]["type"] == "api_error"
    assert [answer.headers.get("idempotent-replayed") for answer in (first, again, under_another)] == [
        None,
        "true",
        None,
    ]
    assert [session["id"] for session in box.listed("checkout/sessions")] == [under_another.json["id"]]
    # A call without a key fails once.
    box.control("trouble", mode="broken", calls=1)
    assert statuses(box, 2) == [500, 200]


def test_many_at_once_are_counted_one_by_one(box: Sandboxed) -> None:
    box.control("trouble", mode="429", calls=5)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.extend(statuses(box, 2))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] * 7 + [429] * 5


def test_what_is_more_than_so_many_a_second_is_limited(box: Sandboxed) -> None:
    hands = box.running.sandbox.trouble.clock = Hands()
    box.control("trouble", mode="429", per_second=3)
    assert statuses(box, 2) == [200, 200]
    hands.now += 0.75
    assert statuses(box, 3) == [200, 429, 429]
    hands.now += 0.25
    # The first two were a second ago; the third was not.
    assert statuses(box, 3) == [200, 200, 429]


@pytest.mark.slow
def test_the_sdk_tries_again_until_it_is_well(box: Sandboxed) -> None:
    box.control("trouble", mode="down", calls=2, status=500)
    patient = stripe.StripeClient(KEY, base_addresses={"api": box.url}, max_network_retries=2).v1
    made = patient.checkout.sessions.create(
        {
            "mode": "payment",
            "success_url": "http://site.test/",
            "line_items": [
                {"quantity": 1, "price_data": {"currency": "usd", "unit_amount": 900, "product_data": {"name": "G"}}}
            ],
        }
    )
    assert (made.amount_total, box.state()["counts"]["sessions"]) == (900, 1)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_outage_has_the_status_that_was_wanted(box: Sandboxed, status: int) -> None:
    box.control("trouble", mode="down", status=status)
    assert statuses(box, 1) == [status]


def test_some_calls_alone_can_suffer(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    box.control("trouble", mode="down", path="POST /v1/refunds")
    assert statuses(box, 1, "/v1/refunds") == [200]
    assert box.api("POST", "/v1/refunds", {"payment_intent": payment}).status == 503
    assert box.api("POST", SESSIONS, session_form()).status == 200


def test_it_hangs_up_without_an_answer_and_without_doing_it(box: Sandboxed) -> None:
    box.control("trouble", mode="drop", calls=1)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError, urllib.error.URLError)):
        box.api("POST", SESSIONS, session_form())
    assert box.state()["counts"]["sessions"] == 0
    assert statuses(box, 1) == [200]


def test_it_hangs_until_it_is_told_otherwise(box: Sandboxed) -> None:
    box.control("trouble", mode="hang")
    ended: list[str] = []

    def call() -> None:
        try:
            box.api("GET", "/v1/events")
        except OSError as error:
            ended.append(type(error).__name__)

    hanging = threading.Thread(target=call)
    hanging.start()
    time.sleep(0.2)
    assert hanging.is_alive()
    box.control("trouble", mode="none")
    hanging.join(5)
    assert len(ended) == 1


def listens(box: Sandboxed) -> bool:
    try:
        return box.api("GET", "/v1/events").status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_nothing_listens_for_a_while(box: Sandboxed) -> None:
    assert box.control("trouble", mode="refused", seconds=0.5)["mode"] == "refused"
    eventually(lambda: not listens(box))
    eventually(lambda: listens(box))
    assert box.state()["trouble"] == {"mode": "none"}
    box.control("trouble", mode="refused", seconds=0.1)
    eventually(lambda: not listens(box))
    eventually(lambda: listens(box))


def test_it_stops_at_once_even_while_it_is_away(tmp_path: Path) -> None:
    with sandbox(tmp_path) as box:
        box.control("trouble", mode="refused", seconds=300)
        eventually(lambda: not listens(box))
        began = time.monotonic()
    assert time.monotonic() - began < 3


def test_the_last_call_that_is_slow_is_as_slow_as_the_others(box: Sandboxed) -> None:
    box.control("trouble", mode="slow", seconds=0.3, calls=1)
    began = time.monotonic()
    assert statuses(box, 1) == [200]
    assert time.monotonic() - began > 0.25


BAD = [
    {"mode": "429", "calls": "0"},
    {"mode": "429", "calls": "x"},
    {"mode": "429", "per_second": "-1"},
    {"mode": "down", "status": "200"},
    {"mode": "refused", "seconds": "601"},
    {"mode": "slow", "seconds": "nan"},
    *({"mode": mode, "seconds": 2} for mode in ("down", "broken", "429", "refuse", "hang", "drop")),
]


def test_a_trouble_that_would_not_end_after_so_many_seconds_says_so(box: Sandboxed) -> None:
    body = json.dumps({"mode": "429", "seconds": 2}).encode()
    answer = box.http("POST", "/_control/trouble", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.json["error"]["param"]) == (400, "seconds")
    assert "429 lasts until it is told otherwise" in answer.json["error"]["message"]
    assert box.control("trouble", mode="none", seconds=2) == {"mode": "none"}


@pytest.mark.parametrize("body", BAD)
def test_what_is_no_trouble(box: Sandboxed, body: Json) -> None:
    answer = box.http("POST", "/_control/trouble", json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert answer.status == 400
    assert box.state()["trouble"] == {"mode": "none"}

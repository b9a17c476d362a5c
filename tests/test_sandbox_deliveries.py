"""Deliveries: signed, tried again until they arrive, and kept over a restart."""

import time
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.sandbox import SECRET, Endpoint, Sandboxed, endpoint, eventually, sandbox

FAST: dict[str, Any] = {"threads": 2, "retry_base": 0.02, "retry_cap": 0.1}
CARD_EVENTS = {
    "payment_intent.created",
    "charge.succeeded",
    "payment_intent.succeeded",
    "checkout.session.completed",
    "charge.updated",
}


def all_delivered(box: Sandboxed) -> bool:
    deliveries = box.state()["deliveries"]
    return bool(deliveries["delivered"]) and not deliveries["queued"]


def got(hooks: Endpoint, kind: str) -> int:
    return sum(event["type"] == kind for event in hooks.events())


def test_every_event_arrives_signed_and_is_then_no_longer_pending(tmp_path: Path) -> None:
    with endpoint() as hooks, sandbox(tmp_path, url=hooks.url, **FAST) as box:
        box.paid()
        eventually(lambda: all_delivered(box))
        assert {event["type"] for event in hooks.events()} == CARD_EVENTS
        for signature, body in hooks.got:
            stripe.WebhookSignature.verify_header(body.decode(), signature, SECRET, 300)
        assert {event["pending_webhooks"] for event in hooks.events()} == {1}
        assert {event["pending_webhooks"] for event in box.events()} == {0}
        assert len(box.sdk.events.list({"delivery_success": True}).data) == 5


@pytest.mark.parametrize("answer", [500, 400, 302])
def test_what_is_not_taken_is_sent_again_with_growing_waits(tmp_path: Path, answer: int) -> None:
    with endpoint(answer) as hooks, sandbox(tmp_path, url=hooks.url, **FAST) as box:
        box.sdk.checkout.sessions.expire(box.checkout()["id"])
        eventually(lambda: len(hooks.got) >= 3)
        delivery = box.state()["events"][0]["deliveries"][0]
        assert (delivery["state"], delivery["last_status"]) == ("queued", answer)
        hooks.answers[:] = [204]
        eventually(lambda: all_delivered(box))
        signatures = [signature for signature, _ in hooks.got]
        assert all("t=" in signature for signature in signatures)


def test_waits_double_up_to_a_limit(tmp_path: Path) -> None:
    with sandbox(tmp_path) as box:
        courier = box.running.sandbox.courier
        assert [courier._wait_after(attempts) for attempts in (0, 1, 2, 3, 4, 5, 99)] == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.slow
def test_a_signature_has_the_time_of_its_own_attempt(tmp_path: Path) -> None:
    with endpoint(500) as hooks, sandbox(tmp_path, url=hooks.url, threads=1, retry_base=1.1) as box:
        box.sdk.checkout.sessions.expire(box.checkout()["id"])
        eventually(lambda: len(hooks.got) >= 2)
        times = [int(signature.split(",")[0].removeprefix("t=")) for signature, _ in hooks.got]
        assert times[1] > times[0]


def test_twice_delivers_each_event_two_times(tmp_path: Path) -> None:
    with endpoint() as hooks, sandbox(tmp_path, url=hooks.url, **FAST) as box:
        box.control("deliveries", mode="twice")
        box.paid()
        eventually(lambda: all_delivered(box))
        assert {got(hooks, kind) for kind in CARD_EVENTS} == {2}


def test_never_holds_events_until_they_are_let_go(tmp_path: Path) -> None:
    with endpoint() as hooks, sandbox(tmp_path, url=hooks.url, **FAST) as box:
        box.control("deliveries", mode="never")
        box.paid()
        time.sleep(0.1)
        assert (hooks.got, box.state()["deliveries"]["held"]) == ([], 5)
        assert len(box.sdk.events.list({"delivery_success": False}).data) == 5
        assert box.control("deliveries", mode="normal", release=False)["released"] == 0
        box.checkout()
        assert box.control("deliveries", mode="twice")["released"] == 5
        eventually(lambda: all_delivered(box))
        assert len(hooks.got) == 10


def test_one_event_is_delivered_again_whatever_the_mode(tmp_path: Path) -> None:
    with endpoint() as hooks, sandbox(tmp_path, url=hooks.url, **FAST) as box:
        box.control("deliveries", mode="never")
        box.sdk.checkout.sessions.expire(box.checkout()["id"])
        event = box.events()[0]["id"]
        box.control(f"events/{event}/deliver")
        eventually(lambda: len(hooks.got) == 1)
        box.control(f"events/{event}/deliver")
        eventually(lambda: len(hooks.got) == 2)
        assert {found["id"] for found in hooks.events()} == {event}


def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with sandbox(tmp_path, **FAST) as box:
        session = box.paid()
        waiting = box.checkout()
        box.api("POST", "/v1/refunds", {"payment_intent": session["payment_intent"]}, Idempotency_Key="r")
        eventually(lambda: all(event["deliveries"][0]["attempts"] for event in box.state()["events"]))
    with endpoint() as hooks, sandbox(tmp_path, url=hooks.url, **FAST) as box:
        eventually(lambda: len(hooks.got) == 7)
        again = box.api("POST", "/v1/refunds", {"payment_intent": session["payment_intent"]}, Idempotency_Key="r")
        assert again.headers["idempotent-replayed"] == "true"
        box.later(24 * 3600 + 1)
        assert box.sdk.checkout.sessions.retrieve(waiting["id"]).status == "expired"


def test_text_of_any_script_arrives_as_it_was(tmp_path: Path) -> None:
    with endpoint() as hooks, sandbox(tmp_path, url=hooks.url, **FAST) as box:
        session = box.checkout(form={"metadata[note]": "Grüße 支持 \u202e\x00💚"})
        box.control(f"sessions/{session['id']}/expire")
        eventually(lambda: len(hooks.got) == 1)
        assert hooks.events()[0]["data"]["object"]["metadata"]["note"] == "Grüße 支持 \u202e\x00💚"

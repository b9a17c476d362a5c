"""The sandbox's controls and what they make happen."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from donations.sandbox.control import Control
from tests.sandbox import Sandboxed, sandbox

Json = dict[str, Any]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandboxed]:
    with sandbox(tmp_path) as running:
        yield running


def refused(box: Sandboxed, path: str, **body: Any) -> str:
    answer = box.http("POST", f"/_control/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert 400 <= answer.status < 500, answer.text
    return str(answer.json["error"]["message"])


def test_a_card_pays(box: Sandboxed) -> None:
    session = box.paid(email="a@example.org", name="A Reader")
    assert (session["status"], session["payment_status"], session["declined"]) == ("complete", "paid", None)
    assert session["customer_details"]["email"] == "a@example.org"
    intent = box.sdk.payment_intents.retrieve(session["payment_intent"])
    assert (intent.status, intent.amount_received) == ("succeeded", 2500)
    assert "can't be paid" in refused(box, f"sessions/{session['id']}/pay")


def test_a_declined_card_leaves_the_session_open_for_another(box: Sandboxed) -> None:
    session = box.checkout()["id"]
    first = box.control(f"sessions/{session}/pay", card="4000 0000 0000 0002")
    assert (first["status"], first["declined"]) == ("open", "Your card was declined.")
    assert box.types() == ["payment_intent.created", "charge.failed", "payment_intent.payment_failed"]
    failed = box.events()[-1]["data"]["object"]["last_payment_error"]
    assert (failed["code"], failed["decline_code"]) == ("card_declined", "generic_decline")
    second = box.control(f"sessions/{session}/pay")
    assert second["payment_intent"] == first["payment_intent"]
    assert box.types().count("payment_intent.created") == 1


def test_a_delayed_payment_settles_once(box: Sandboxed) -> None:
    session = box.paid(method="delayed")
    assert (session["status"], session["payment_status"]) == ("complete", "unpaid")
    assert box.control(f"payments/{session['payment_intent']}/settle")["status"] == "succeeded"
    assert box.sdk.checkout.sessions.retrieve(session["id"]).payment_status == "paid"
    for what in ("settle", "fail"):
        assert "processing" in refused(box, f"payments/{session['payment_intent']}/{what}")


def test_a_delayed_payment_fails(box: Sandboxed) -> None:
    session = box.paid(method="delayed")
    assert box.control(f"payments/{session['payment_intent']}/fail")["status"] == "requires_payment_method"
    after = box.sdk.checkout.sessions.retrieve(session["id"])
    assert (after.status, after.payment_status) == ("complete", "unpaid")


def test_a_refund_that_fails_gives_the_money_back(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    refund = box.control("refunds", payment_intent=payment)["id"]
    assert box.sdk.charges.list({"payment_intent": payment}).data[0].refunded
    box.control(f"refunds/{refund}/fail")
    charge = box.sdk.charges.list({"payment_intent": payment}).data[0]
    assert (charge.refunded, charge.amount_refunded) == (False, 0)
    assert box.types()[-4:] == ["refund.created", "charge.refunded", "refund.failed", "charge.updated"]
    assert "pending or succeeded" in refused(box, f"refunds/{refund}/fail")
    assert box.control("refunds", payment_intent=payment, amount=2500)["status"] == "succeeded"


def test_a_pending_refund_waits_to_be_told(box: Sandboxed) -> None:
    refund = box.control("refunds", payment_intent=box.paid()["payment_intent"], amount=500, outcome="pending")
    assert refund["status"] == "pending"
    box.later(100)
    assert box.sdk.refunds.retrieve(refund["id"]).status == "pending"
    assert box.control(f"refunds/{refund['id']}/succeed")["status"] == "succeeded"
    assert "must be pending" in refused(box, f"refunds/{refund['id']}/succeed")


def test_a_refund_fails_later_by_itself(box: Sandboxed) -> None:
    refund = box.control("refunds", payment_intent=box.paid()["payment_intent"], outcome="fail_later")
    assert refund["status"] == "succeeded"
    box.later(5)
    assert box.sdk.refunds.retrieve(refund["id"]).status == "failed"


@pytest.mark.parametrize(
    "card, first, last", [("4000000000007726", "pending", "pending"), ("4000000000005126", "succeeded", "failed")]
)
def test_some_cards_decide_how_their_refunds_go(box: Sandboxed, card: str, first: str, last: str) -> None:
    refund = box.sdk.refunds.create({"payment_intent": box.paid(card=card)["payment_intent"]})
    assert refund.status == first
    box.later(5)
    assert box.sdk.refunds.retrieve(refund.id).status == last


def test_a_card_refund_learns_its_reference_later(box: Sandboxed) -> None:
    box.control("refunds", payment_intent=box.paid()["payment_intent"])
    box.later(5)
    updated = box.events()[-1]
    assert updated["type"] == "refund.updated"
    assert updated["data"]["object"]["destination_details"]["card"]["reference_status"] == "available"


def test_the_state_shows_the_latest_of_everything(box: Sandboxed) -> None:
    session = box.paid()
    state = box.state()
    assert {name: count for name, count in state["counts"].items() if count} == {
        "sessions": 1,
        "payments": 1,
        "events": 5,
    }
    assert state["sessions"][0]["id"] == session["id"]
    assert state["events"][0]["deliveries"][0]["state"] == "queued"
    assert (state["trouble"], state["deliveries"]["mode"]) == ({"mode": "none"}, "normal")


BAD = [
    ("deliveries", {"mode": "sometimes"}),
    ("trouble", {"mode": "x"}),
    ("trouble", {"mode": "slow", "seconds": "soon"}),
    ("trouble", {"mode": "slow", "seconds": -1}),
    ("trouble", {"mode": "slow", "seconds": 1e9}),
    ("refunds", {"payment_intent": "pi_x"}),
    ("refunds", {"outcome": "x"}),
    ("refunds", {}),
    ("payments/pi_x/settle", {}),
    ("refunds/re_x/fail", {}),
    ("events/evt_x/deliver", {}),
    ("sessions/cs_x/pay", {}),
    ("nothing", {}),
]


@pytest.mark.parametrize("path, body", BAD)
def test_controls_say_what_is_wrong(box: Sandboxed, path: str, body: Json) -> None:
    assert refused(box, path, **body)


def test_a_control_takes_json_objects_only(box: Sandboxed) -> None:
    for body in (b"[1]", b"{", b'{"mode": {}}', b"[" * 100_000):
        answer = box.http("POST", "/_control/deliveries", body, {"Content-Type": "application/json"})
        assert answer.status == 400
    assert "test" not in refused(box, f"sessions/{box.checkout()['id']}/pay", card="1234")


def test_trouble_lasts_over_a_restart(tmp_path: Path) -> None:
    with sandbox(tmp_path) as box:
        box.control("trouble", mode="slow", seconds=3)
    with sandbox(tmp_path) as box:
        assert box.state()["trouble"] == {"mode": "slow", "seconds": 3}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Host": "evil.test"},
    ],
)
def test_another_sites_page_can_steer_nothing(box: Sandboxed, headers: dict[str, str]) -> None:
    answer = box.http("POST", "/_control/deliveries", b"mode=never", headers)
    assert answer.status == 403
    assert box.state()["deliveries"]["mode"] == "normal"


def test_every_control_is_documented(box: Sandboxed) -> None:
    import donations.sandbox.control as module

    documented = module.__doc__ or ""
    for pattern, _ in module.ACTIONS:
        assert pattern.replace(r"(\w+)", "…").split("…")[-1].strip("/") in documented
    assert Control.__doc__

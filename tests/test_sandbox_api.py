"""The sandbox's API, by the official SDK and by plain HTTP."""

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.sandbox import KEY, Sandboxed, sandbox, session_form

Json = dict[str, Any]
SESSIONS = "/v1/checkout/sessions"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandboxed]:
    with sandbox(tmp_path) as running:
        yield running


def sdk_session(box: Sandboxed, key: str = "gift-1", **more: Any) -> Any:
    price = {"currency": "usd", "unit_amount": 2500, "product_data": {"name": "General fund"}}
    given: Any = {
        "mode": "payment",
        "submit_type": "donate",
        "line_items": [{"quantity": 1, "price_data": price}],
        "success_url": "http://site.test/thanks?s={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://site.test/give",
        "metadata": {"gift": "gift_1"},
        "payment_intent_data": {"metadata": {"gift": "gift_1"}, "statement_descriptor_suffix": "GIFT"},
        "adaptive_pricing": {"enabled": False},
        "expires_at": int(time.time()) + 3600,
    } | more
    return box.sdk.checkout.sessions.create(given, {"idempotency_key": key})


def error(box: Sandboxed, method: str, path: str, form: Json | None = None, **headers: str) -> tuple[int, Json]:
    answer = box.api(method, path, form, **headers)
    found: Json = answer.json["error"]
    return answer.status, found


# ---- with the SDK


def test_a_session_is_created_found_and_expired(box: Sandboxed) -> None:
    session = sdk_session(box)
    assert session.url == f"{box.url}/pay/{session.id}"
    assert (session.status, session.payment_status, session.payment_intent) == ("open", "unpaid", None)
    assert box.sdk.checkout.sessions.retrieve(session.id).amount_total == 2500
    over = box.sdk.checkout.sessions.expire(session.id)
    assert (over.status, over.url) == ("expired", None)
    with pytest.raises(stripe.InvalidRequestError, match='status in \\["open"\\]'):
        box.sdk.checkout.sessions.expire(session.id)


def test_metadata_goes_where_stripe_puts_it(box: Sandboxed) -> None:
    session = box.checkout(form={"metadata[only]": "session"})
    payment = box.control(f"sessions/{session['id']}/pay")["payment_intent"]
    intent = box.sdk.payment_intents.retrieve(payment)
    charge = box.sdk.charges.retrieve(str(intent.latest_charge))
    assert session["metadata"] == {"gift": "gift_1", "campaign": "general", "only": "session"}
    assert intent.to_dict()["metadata"] == {"gift": "gift_1"} == charge.to_dict()["metadata"]


def test_a_refund_by_payment_or_charge_in_parts_until_nothing_is_left(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    refund = box.sdk.refunds.create({"payment_intent": payment, "amount": 1000, "metadata": {"request": "r1"}})
    assert (refund.status, refund.amount, refund.to_dict()["metadata"]) == ("succeeded", 1000, {"request": "r1"})
    with pytest.raises(stripe.InvalidRequestError, match=r"\$16\.00\) is greater than unrefunded .*\$15\.00"):
        box.sdk.refunds.create({"payment_intent": payment, "amount": 1600})
    assert box.sdk.refunds.create({"charge": str(refund.charge), "reason": "duplicate"}).amount == 1500
    with pytest.raises(stripe.InvalidRequestError) as refused:
        box.sdk.refunds.create({"payment_intent": payment})
    assert refused.value.code == "charge_already_refunded"
    assert [item.amount for item in box.sdk.refunds.list({"payment_intent": payment}).data] == [1500, 1000]


def test_more_than_was_paid_is_not_refunded_nor_what_was_not_paid(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    with pytest.raises(stripe.InvalidRequestError, match="greater than charge amount"):
        box.sdk.refunds.create({"payment_intent": payment, "amount": 2501})
    delayed = box.paid(method="delayed")["payment_intent"]
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        box.sdk.refunds.create({"payment_intent": delayed})


def test_the_sdk_pages_through_everything_newest_first(box: Sandboxed) -> None:
    made = [box.checkout()["id"] for _ in range(7)]
    page = box.sdk.checkout.sessions.list({"limit": 3})
    assert page.has_more
    assert [session.id for session in page.auto_paging_iter()] == made[::-1]
    before = box.sdk.checkout.sessions.list({"limit": 2, "ending_before": made[2]})
    assert ([session.id for session in before.data], before.has_more) == ([made[4], made[3]], True)


def test_sessions_are_filtered_by_payment_status_and_date(box: Sandboxed) -> None:
    paid, still_open = box.paid(), box.checkout()
    lists = box.sdk.checkout.sessions
    assert [s.id for s in lists.list({"payment_intent": paid["payment_intent"]}).data] == [paid["id"]]
    assert [s.id for s in lists.list({"status": "open"}).data] == [still_open["id"]]
    assert len(lists.list({"created": {"gte": paid["created"]}}).data) == 2
    assert lists.list({"created": {"lt": paid["created"]}}).data == []
    assert len(box.sdk.charges.list({"payment_intent": paid["payment_intent"]}).data) == 1
    assert len(box.sdk.payment_intents.list().data) == 1


def test_events_are_filtered_by_type_and_by_delivery(box: Sandboxed) -> None:
    box.paid()
    events = box.sdk.events
    assert [e.type for e in events.list({"type": "payment_intent.*"}).data] == [
        "payment_intent.succeeded",
        "payment_intent.created",
    ]
    assert [e.type for e in events.list({"types": ["charge.updated", "no.such"]}).data] == ["charge.updated"]
    assert len(events.list({"delivery_success": False}).data) == 5
    assert events.list({"delivery_success": True}).data == []
    one = events.list({"limit": 1}).data[0]
    assert events.retrieve(one.id).pending_webhooks == 1


def test_an_event_says_which_request_it_is_due_to(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    box.sdk.refunds.create({"payment_intent": payment}, {"idempotency_key": "refund_1"})
    created = next(event for event in box.events() if event["type"] == "refund.created")
    assert created["request"]["idempotency_key"] == "refund_1"
    assert created["request"]["id"].startswith("req_")
    assert box.events()[0]["request"] == {"id": None, "idempotency_key": None}


# ---- keys


def test_without_a_test_key_nothing_is_answered(box: Sandboxed) -> None:
    assert box.http("GET", "/v1/events").status == 401
    for key in ("sk_live_1234567890abcdef", "nonsense"):
        answer = box.http("GET", "/v1/events", headers={"Authorization": f"Bearer {key}"})
        assert (answer.status, answer.json["error"]["type"]) == (401, "invalid_request_error")
        assert key not in answer.text
    basic = base64.b64encode(f"{KEY}:".encode()).decode()
    assert box.http("GET", "/v1/events", headers={"Authorization": f"Basic {basic}"}).status == 200


def test_every_answer_names_its_request(box: Sandboxed) -> None:
    first, second = box.api("GET", "/v1/events"), box.api("GET", "/v1/refunds/re_x")
    assert first.headers["request-id"].startswith("req_")
    assert first.headers["request-id"] != second.headers["request-id"]


# ---- idempotency


def test_the_same_key_and_parameters_replay_the_first_answer(box: Sandboxed) -> None:
    first = box.api("POST", SESSIONS, session_form(), Idempotency_Key="k")
    again = box.api("POST", SESSIONS, dict(reversed(session_form().items())), Idempotency_Key="k")
    assert again.json == first.json
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["original-request"] == first.headers["request-id"]
    assert "idempotent-replayed" not in first.headers
    assert box.state()["counts"]["sessions"] == 1


def test_the_same_key_with_something_else_is_an_error(box: Sandboxed) -> None:
    box.api("POST", SESSIONS, session_form(), Idempotency_Key="k")
    for path, form in ((SESSIONS, session_form(900)), ("/v1/refunds", {"payment_intent": "pi_1"})):
        status, found = error(box, "POST", path, form, Idempotency_Key="k")
        assert (status, found["type"]) == (400, "idempotency_error")


def test_a_key_in_use_is_a_conflict(box: Sandboxed) -> None:
    box.control("trouble", mode="slow", seconds=30)
    slow = threading.Thread(target=box.api, args=("POST", SESSIONS, session_form()), kwargs={"Idempotency_Key": "k"})
    slow.start()
    deadline = time.monotonic() + 5
    while not box.running.sandbox.api.keys._keys and time.monotonic() < deadline:
        time.sleep(0.01)
    status, found = error(box, "POST", SESSIONS, session_form(), Idempotency_Key="k")
    assert (status, found["code"]) == (409, "idempotency_key_in_use")
    box.control("trouble", mode="none")
    slow.join(5)
    assert box.state()["counts"]["sessions"] == 1


def test_refusals_are_replayed_but_unreadable_parameters_are_not_kept(box: Sandboxed) -> None:
    small = [box.api("POST", SESSIONS, session_form(10), Idempotency_Key="small") for _ in range(2)]
    assert [answer.status for answer in small] == [400, 400]
    assert small[1].headers["idempotent-replayed"] == "true"
    assert box.api("POST", SESSIONS, session_form() | {"foo": 1}, Idempotency_Key="odd").status == 400
    assert box.api("POST", SESSIONS, session_form(), Idempotency_Key="odd").status == 200


def test_trouble_is_not_kept_as_a_keys_answer(box: Sandboxed) -> None:
    for mode, status in (("down", 503), ("429", 429), ("refuse", 400), ("none", 200)):
        box.control("trouble", mode=mode)
        assert box.api("POST", SESSIONS, session_form(), Idempotency_Key="k").status == status
    assert box.state()["counts"]["sessions"] == 1


def test_late_does_the_work_and_answers_later(box: Sandboxed) -> None:
    box.control("trouble", mode="late", seconds=30)
    late = threading.Thread(target=box.api, args=("POST", SESSIONS, session_form()))
    late.start()
    deadline = time.monotonic() + 5
    while not box.state()["counts"]["sessions"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert late.is_alive()
    box.control("trouble", mode="none")
    late.join(5)
    assert not late.is_alive()


# ---- parameters

BAD = [
    ({"foo": "1"}, "parameter_unknown", "foo"),
    ({"payment_method_types[0]": "card"}, "parameter_unknown", "payment_method_types"),
    ({"line_items[0][price_data][colour]": "red"}, "parameter_unknown", "line_items[0][price_data][colour]"),
    ({"line_items[0][price_data][unit_amount]": "12.5"}, "parameter_invalid_integer", None),
    ({"line_items[0][quantity]": "0"}, "parameter_invalid_integer", "line_items[0][quantity]"),
    ({"line_items[0][price_data][currency]": "xxx"}, None, "line_items[0][price_data][currency]"),
    ({"mode": "gift"}, None, "mode"),
    ({"mode": "setup"}, None, "mode"),
    ({"mode": "subscription"}, None, "payment_intent_data"),
    ({"discounts[0][coupon]": "x"}, None, "discounts"),
    ({"success_url": "javascript:alert(1)"}, "url_invalid", "success_url"),
    ({"success_url": ""}, "parameter_invalid_empty", "success_url"),
    ({"customer_email": "nobody"}, "email_invalid", "customer_email"),
    ({"client_reference_id": "x" * 201}, None, "client_reference_id"),
    ({"metadata[k]": "x" * 501}, None, "metadata[k]"),
    ({"payment_intent_data[statement_descriptor_suffix]": "x" * 23}, None, None),
    ({"payment_intent_data[statement_descriptor]": "x"}, None, "payment_intent_data[statement_descriptor]"),
    ({"adaptive_pricing[enabled]": "yes"}, None, "adaptive_pricing[enabled]"),
    ({"locale": "tlh"}, None, "locale"),
]


@pytest.mark.parametrize("change, code, param", BAD)
def test_what_stripe_would_not_take_is_refused(
    box: Sandboxed, change: Json, code: str | None, param: str | None
) -> None:
    status, found = error(box, "POST", SESSIONS, session_form() | change)
    assert (status, found["type"]) == (400, "invalid_request_error")
    assert found.get("code") == code
    assert param is None or found["param"] == param
    assert box.state()["counts"]["sessions"] == 0


@pytest.mark.parametrize("name", ["mode", "success_url", "line_items[0][price_data][currency]"])
def test_what_is_needed_is_asked_for(box: Sandboxed, name: str) -> None:
    form = {key: value for key, value in session_form().items() if key != name}
    status, found = error(box, "POST", SESSIONS, form)
    assert (status, found["code"], found["param"]) == (400, "parameter_missing", name)


def test_a_form_that_is_no_form_is_an_error_not_a_crash(box: Sandboxed) -> None:
    for body in (b"\xff\xfe", b"a=%ff", b"a[b=c", b"=1", b"a=1&a[b]=2", b"metadata[a][b][c][d][e][f][g][h][i]=1"):
        answer = box.http("POST", SESSIONS, body, {"Authorization": f"Bearer {KEY}"})
        assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "amount, currency, code",
    [
        (49, "usd", "amount_too_small"),
        (50, "usd", None),
        (29, "gbp", "amount_too_small"),
        (30, "gbp", None),
        (17499, "huf", "amount_too_small"),
        (0, "isk", "amount_too_small"),
        (99_999_999, "usd", None),
        (100_000_000, "usd", "amount_too_large"),
        (1005, "kwd", "invalid_charge_amount"),
        (1010, "kwd", None),
        (50050, "isk", "invalid_charge_amount"),
        (50000, "isk", None),
        (10001, "ugx", "invalid_charge_amount"),
    ],
)
def test_amounts_have_stripes_limits(box: Sandboxed, amount: int, currency: str, code: str | None) -> None:
    answer = box.api("POST", SESSIONS, session_form(amount, currency))
    assert answer.json.get("error", {}).get("code") == code


@pytest.mark.parametrize(
    "ahead, wanted",
    [(30 * 60 + 5, None), (24 * 3600, None), (29 * 60, "at least 30"), (24 * 3600 + 60, "less than 24")],
)
def test_a_session_lasts_half_an_hour_to_a_day(box: Sandboxed, ahead: int, wanted: str | None) -> None:
    answer = box.api("POST", SESSIONS, session_form() | {"expires_at": int(time.time()) + ahead})
    assert (answer.status == 200) == (wanted is None)
    assert (wanted or "") in answer.json.get("error", {}).get("message", "")


def test_an_open_session_expires_by_itself_and_a_paid_one_does_not(box: Sandboxed) -> None:
    waiting, paid = box.checkout(), box.paid()
    box.later(24 * 3600 + 1)
    assert box.types().count("checkout.session.expired") == 1
    assert box.sdk.checkout.sessions.retrieve(waiting["id"]).status == "expired"
    assert box.sdk.checkout.sessions.retrieve(paid["id"]).status == "complete"


def test_what_is_not_there_is_missing(box: Sandboxed) -> None:
    for path in ("checkout/sessions/cs_x", "payment_intents/pi_x", "charges/ch_x", "refunds/re_x", "events/evt_x"):
        status, found = error(box, "GET", f"/v1/{path}")
        assert (status, found["code"]) == (404, "resource_missing")
    assert error(box, "GET", "/v1/events?starting_after=evt_x")[1]["code"] == "resource_missing"
    assert error(box, "GET", "/v1/products")[0] == 404
    assert error(box, "GET", "/v1/events?limit=101")[0] == 400


def test_properties_are_expanded_on_request(box: Sandboxed) -> None:
    box.paid()
    listed = box.sdk.checkout.sessions.list({"expand": ["data.payment_intent.latest_charge", "data.line_items"]})
    session: Any = listed.data[0]
    assert session.payment_intent.latest_charge.amount == 2500
    assert session.line_items.data[0].description == "General fund"
    assert error(box, "GET", "/v1/events?expand[]=data.request")[0] == 400


def test_several_lines_are_one_total_in_one_currency(box: Sandboxed) -> None:
    line: Json = {"quantity": 2, "price_data][currency": "usd", "price_data][unit_amount": 100}
    more = {f"line_items[1][{name}]": value for name, value in line.items()}
    more["line_items[1][price_data][product_data][name]"] = "Fee cover"
    session = box.checkout(form=more)
    assert session["amount_total"] == 2700
    items = box.sdk.checkout.sessions.line_items.list(session["id"]).data
    assert [item.amount_total for item in items] == [2500, 200]
    status, found = error(box, "POST", SESSIONS, session_form() | more | {"line_items[1][price_data][currency]": "eur"})
    assert (status, found["param"]) == (400, "line_items")

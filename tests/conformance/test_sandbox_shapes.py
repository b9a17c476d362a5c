"""All that the sandbox answers and sends is what Stripe's description says."""

from collections.abc import Callable
from typing import Any

import pytest

from donations.sandbox import checkout, endpoints, refunds
from tests.conformance.openapi import Description
from tests.sandbox import Sandboxed, session_form

Json = dict[str, Any]


def pay(box: Sandboxed, card: str = "4242424242424242", **form: Any) -> Json:
    return box.control(f"sessions/{box.checkout(**form)['id']}/pay", card=card, email="a@example.org", name="Ä Reader")


def paid_by_card(box: Sandboxed) -> None:
    pay(box)


def declined_and_paid(box: Sandboxed) -> None:
    session = pay(box, "4000000000000002")
    pay(box, "4000000000009995")
    box.control(f"sessions/{session['id']}/pay", card="4242424242424242")


def delayed_in_dollars(box: Sandboxed) -> None:
    box.control(f"payments/{box.paid(method='delayed')['payment_intent']}/settle")


def delayed_in_euros(box: Sandboxed) -> None:
    session = box.control(f"sessions/{box.checkout(currency='eur')['id']}/pay", method="delayed")
    box.control(f"payments/{session['payment_intent']}/fail")


def expired(box: Sandboxed) -> None:
    box.checkout()
    box.later(24 * 3600 + 1)


def refunded(box: Sandboxed) -> None:
    for outcome in refunds.OUTCOMES:
        box.control("refunds", payment_intent=pay(box)["payment_intent"], amount=500, outcome=outcome)
    pending = next(refund["id"] for refund in box.state()["refunds"] if refund["status"] == "pending")
    box.control(f"refunds/{pending}/succeed")
    box.control(f"refunds/{pending}/fail")
    box.later(10)


def refunded_to_a_bank(box: Sandboxed) -> None:
    for currency in ("usd", "eur"):
        session = box.control(f"sessions/{box.checkout(currency=currency)['id']}/pay", method="delayed")
        box.control(f"payments/{session['payment_intent']}/settle")
        refund = box.api("POST", "/v1/refunds", {"payment_intent": session["payment_intent"], "metadata[a]": "1"}).json
        box.api("POST", f"/v1/refunds/{refund['id']}", {"metadata[a]": "2"})


def monthly(box: Sandboxed) -> None:
    box.subscribed(email="a@example.org", name="A Reader")
    box.advance("1mo")
    box.advance("3d")


def monthly_by_debit(box: Sandboxed) -> None:
    for what in ("settle", "fail"):
        invoice = box.subscribed(method="delayed")["invoice"]
        [payment] = box.listed("invoice_payments", invoice=invoice)
        box.control(f"payments/{payment['payment']['payment_intent']}/{what}")
    box.advance("1mo")
    box.advance("4d")


def monthly_until_the_card_declines(box: Sandboxed) -> None:
    box.subscribed(card="4000000000000341")
    box.advance("1mo")
    box.advance("3w")


def monthly_until_the_bank_asks(box: Sandboxed) -> None:
    subscription = box.subscribed(card="4000002500003155")["subscription"]
    box.advance("1mo")
    box.advance("2h")
    box.control(f"invoices/{box.one(f'subscriptions/{subscription}')['latest_invoice']}/pay", card="4000002500003155")


def monthly_with_pauses(box: Sandboxed) -> None:
    for behavior in ("void", "mark_uncollectible", "keep_as_draft"):
        subscription = box.subscribed()["subscription"]
        ends = box.one(f"subscriptions/{subscription}")["items"]["data"][0]["current_period_end"]
        pause = {"pause_collection[behavior]": behavior, "pause_collection[resumes_at]": ends + 86400}
        box.api("POST", f"/v1/subscriptions/{subscription}", pause)
    box.advance("1mo")
    box.advance("2d")


def monthly_until_the_donor_has_enough(box: Sandboxed) -> None:
    first, second = (box.subscribed()["subscription"] for _ in range(2))
    box.api("POST", f"/v1/subscriptions/{first}", {"cancel_at_period_end": "true", "metadata[why]": "enough"})
    box.api("DELETE", f"/v1/subscriptions/{second}")
    box.advance("1mo")


def monthly_paid_elsewhere(box: Sandboxed) -> None:
    subscription = box.subscribed(card="4000000000000341")["subscription"]
    box.advance("1mo")
    box.advance("2h")
    invoice = box.one(f"subscriptions/{subscription}")["latest_invoice"]
    assert box.api("POST", f"/v1/invoices/{invoice}/pay", {"paid_out_of_band": "true"}).json["status"] == "paid"


def changed_in_the_portal(box: Sandboxed) -> None:
    session = box.subscribed()
    box.api("POST", "/v1/billing_portal/sessions", {"customer": session["customer"], "return_url": "http://site.test/"})
    box.control(f"subscriptions/{session['subscription']}/card", card="4000000000000341")


def changed_in_price(box: Sandboxed) -> None:
    subscription = box.subscribed()["subscription"]
    box.control(f"subscriptions/{subscription}/price", amount=2000)
    box.advance("1mo")
    box.advance("2h")


def disputed(box: Sandboxed) -> None:
    won, lost, first_won = (box.paid()["payment_intent"] for _ in range(3))
    dispute = box.control("disputes", payment_intent=won)["id"]
    box.control(f"disputes/{dispute}/respond")
    box.control(f"disputes/{dispute}/win", amount=1000, return_fee=True)
    dispute = box.control("disputes", payment_intent=lost, amount=500, reason="duplicate")["id"]
    evidence = {"evidence[uncategorized_text]": "It was given.", "metadata[case]": "1"}
    box.api("POST", f"/v1/disputes/{dispute}", evidence | {"submit": "false"})
    box.api("POST", f"/v1/disputes/{dispute}/close")
    dispute = box.control("disputes", payment_intent=first_won)["id"]
    box.control(f"disputes/{dispute}/win")
    box.control(f"disputes/{dispute}/lose")


def disputed_by_card(box: Sandboxed) -> None:
    pay(box, "4000000000000259")
    pay(box, "4000000000001976")
    pay(box, "4000000000001976")
    box.later(5)
    first, second = (one["id"] for one in box.listed("disputes") if one["status"].startswith("warning"))
    box.control(f"disputes/{first}/close")
    box.control(f"disputes/{second}/escalate")


def paid_out(box: Sandboxed) -> None:
    refund = box.control("refunds", payment_intent=pay(box)["payment_intent"], amount=500)["id"]
    box.advance("1w")
    box.control(f"refunds/{refund}/fail")
    [payout] = box.listed("payouts")
    box.control(f"payouts/{payout['id']}/fail")
    held = box.control("payouts", hold=True)["id"]
    box.control(f"payouts/{held}/cancel")
    box.one("balance")


def captured_at_once_or_later(box: Sandboxed) -> None:
    box.control("account", capture="sync")
    pay(box)
    box.control("account", capture="async", capture_after=3600)
    pay(box, "4000000000000077")
    box.advance("2h")


def called_off(box: Sandboxed) -> None:
    refund = box.control("refunds", payment_intent=pay(box)["payment_intent"], outcome="pending")
    box.control(f"refunds/{refund['id']}/cancel")


def seeded(box: Sandboxed) -> None:
    box.seed(3, refund_every=2)
    box.seed(1, currency="jpy", seed=2)


def settled_in_dollars(box: Sandboxed) -> None:
    box.control("account", settlement_currency="usd", exchange_rate="1.08")
    payment = pay(box, currency="eur")["payment_intent"]
    box.control("disputes", payment_intent=payment)


FLOWS = (
    settled_in_dollars,
    seeded,
    monthly,
    monthly_by_debit,
    monthly_until_the_card_declines,
    monthly_until_the_bank_asks,
    monthly_with_pauses,
    monthly_until_the_donor_has_enough,
    monthly_paid_elsewhere,
    changed_in_the_portal,
    changed_in_price,
    disputed,
    disputed_by_card,
    paid_out,
    captured_at_once_or_later,
    called_off,
    paid_by_card,
    declined_and_paid,
    delayed_in_dollars,
    delayed_in_euros,
    expired,
    refunded,
    refunded_to_a_bank,
)
LISTS = (
    "balance_transactions charges checkout/sessions customers disputes events invoice_payments invoices "
    "payment_intents payouts refunds"
).split()
EXPAND = "expand[]=payment_intent.latest_charge.refunds&expand[]=line_items"


@pytest.mark.parametrize("flow", FLOWS)
def test_every_event_and_answer_of_a_flow_is_as_described(
    stripe_says: Description, box: Sandboxed, flow: Callable[[Sandboxed], None]
) -> None:
    flow(box)
    events = box.all_events()
    assert events
    assert [stripe_says.event_errors(event) for event in events] == [[]] * len(events)
    assert {event["api_version"] for event in events} == {stripe_says.version}
    for path in LISTS:
        _check_list(stripe_says, box, f"/v1/{path}")
    _check_list(stripe_says, box, "/v1/subscriptions", "?status=all")
    assert stripe_says.response_errors("GET", "/v1/balance", 200, box.one("balance")) == []


def _check_list(stripe_says: Description, box: Sandboxed, path: str, query: str = "?limit=100") -> None:
    listed = box.api("GET", path + query).json
    assert stripe_says.response_errors("GET", path, 200, listed) == []
    # An event of thirty days ago may be forgotten between the two calls.
    forgets = box.clock.seconds() - 30 * 86_400 + 60
    for item in listed["data"]:
        if path == "/v1/events" and item["created"] < forgets:
            continue
        one = box.api("GET", f"{path}/{item['id']}").json
        assert stripe_says.response_errors("GET", f"{path}/{item['id']}", 200, one) == []


def test_new_and_expanded_and_expired_sessions_are_as_described(stripe_says: Description, box: Sandboxed) -> None:
    form = session_form() | {"customer_email": "a@example.org", "locale": "de", "expires_at": ""}
    del form["expires_at"]
    session = box.api("POST", "/v1/checkout/sessions", form).json
    path = f"/v1/checkout/sessions/{session['id']}"
    assert stripe_says.response_errors("POST", "/v1/checkout/sessions", 200, session) == []
    items = box.api("GET", path + "/line_items").json
    assert stripe_says.response_errors("GET", path + "/line_items", 200, items) == []
    expanded = box.api("GET", f"{path}?{EXPAND}").json
    assert stripe_says.response_errors("GET", path, 200, expanded) == []
    over = box.api("POST", path + "/expire", {}).json
    assert stripe_says.response_errors("POST", path + "/expire", 200, over) == []


def test_expanded_payments_are_as_described(stripe_says: Description, box: Sandboxed) -> None:
    session = pay(box)
    box.control("refunds", payment_intent=session["payment_intent"], amount=500)
    path = f"/v1/checkout/sessions/{session['id']}"
    expanded = box.api("GET", f"{path}?{EXPAND}").json
    assert len(expanded["payment_intent"]["latest_charge"]["refunds"]["data"]) == 1
    assert stripe_says.response_errors("GET", path, 200, expanded) == []


ERRORS: list[tuple[str, str, Json | None, int]] = [
    ("POST", "/v1/checkout/sessions", session_form() | {"foo": "1"}, 400),
    ("POST", "/v1/checkout/sessions", session_form(10), 400),
    ("POST", "/v1/checkout/sessions", session_form() | {"mode": "setup"}, 400),
    ("POST", "/v1/refunds", {"payment_intent": "pi_x"}, 400),
    ("GET", "/v1/refunds/re_x", None, 404),
    ("GET", "/v1/nothing", None, 404),
]


@pytest.mark.parametrize("method, path, form, status", ERRORS)
def test_errors_are_as_described(
    stripe_says: Description, box: Sandboxed, method: str, path: str, form: Json | None, status: int
) -> None:
    answer = box.api(method, path, form)
    assert answer.status == status
    assert stripe_says.object_errors(answer.json, "error") == []


@pytest.mark.parametrize("mode, status", [("down", 503), ("429", 429), ("refuse", 400)])
def test_trouble_is_as_described(stripe_says: Description, box: Sandboxed, mode: str, status: int) -> None:
    box.control("trouble", mode=mode)
    answer = box.api("POST", "/v1/checkout/sessions", session_form())
    assert answer.status == status
    assert stripe_says.object_errors(answer.json, "error") == []


def test_unauthorised_and_conflicting_answers_are_as_described(stripe_says: Description, box: Sandboxed) -> None:
    box.api("POST", "/v1/checkout/sessions", session_form(), Idempotency_Key="k")
    answers = [
        box.http("GET", "/v1/events"),
        box.api("POST", "/v1/checkout/sessions", session_form(900), Idempotency_Key="k"),
    ]
    with box.running.sandbox.api.keys.holding("busy"):
        answers.append(box.api("POST", "/v1/checkout/sessions", session_form(), Idempotency_Key="busy"))
    assert [answer.status for answer in answers] == [401, 400, 409]
    assert [stripe_says.object_errors(answer.json, "error") for answer in answers] == [[]] * 3


def test_the_sandbox_knows_every_parameter_of_a_new_session(stripe_says: Description) -> None:
    known = {*checkout.FIELDS, *checkout.ELSEWHERE, "expand"}
    assert known == stripe_says.request_fields("POST", "/v1/checkout/sessions")


def test_the_sandbox_knows_every_parameter_of_a_refund(stripe_says: Description) -> None:
    known = {*refunds.FIELDS, *refunds.ELSEWHERE, "expand"}
    assert known == stripe_says.request_fields("POST", "/v1/refunds")


@pytest.mark.parametrize(
    "endpoint", endpoints.ENDPOINTS, ids=lambda endpoint: f"{endpoint.method} {endpoint.path.pattern}"
)
def test_every_endpoint_is_one_of_stripes(stripe_says: Description, endpoint: endpoints.Endpoint) -> None:
    path = endpoint.path.pattern.replace("([A-Za-z0-9_]+)", "x_1")
    assert stripe_says.request_fields(endpoint.method, path) >= {"expand"}

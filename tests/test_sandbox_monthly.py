"""Monthly gifts in the sandbox: from the first payment to the last, with what may go wrong between."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from donations.sandbox.clock import add_months, duration
from donations.sandbox.errors import ApiError
from tests.sandbox import Sandboxed, sandbox, subscription_form

Json = dict[str, Any]
DAY = 24 * 3600


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandboxed]:
    with sandbox(tmp_path) as running:
        running.control("account", payouts="manual")
        yield running


def subscription(box: Sandboxed, session: Json) -> Json:
    return box.one(f"subscriptions/{session['subscription']}")


def period(found: Json) -> tuple[int, int]:
    [item] = found["items"]["data"]
    return item["current_period_start"], item["current_period_end"]


def paid_invoices(box: Sandboxed, session: Json) -> list[Json]:
    return box.listed("invoices", subscription=session["subscription"], status="paid")


def test_the_first_payment_makes_everything(box: Sandboxed) -> None:
    session = box.subscribed(email="a@example.org", name="A Reader")
    assert (session["payment_status"], session["payment_intent"]) == ("paid", None)
    found = subscription(box, session)
    assert (found["status"], found["metadata"]) == ("active", {"recurring_gift": "recurring_1"})
    customer = box.one(f"customers/{session['customer']}")
    assert (customer["email"], customer["name"]) == ("a@example.org", "A Reader")
    invoice = box.one(f"invoices/{session['invoice']}")
    assert (invoice["status"], invoice["amount_paid"], invoice["billing_reason"]) == (
        "paid",
        1000,
        "subscription_create",
    )
    parent = invoice["parent"]["subscription_details"]
    assert parent == {"subscription": found["id"], "metadata": {"recurring_gift": "recurring_1"}}


def test_an_invoice_leads_to_its_payment_and_back(box: Sandboxed) -> None:
    session = box.subscribed()
    box.subscribed()
    [joined] = box.listed("invoice_payments", invoice=session["invoice"])
    payment = joined["payment"]["payment_intent"]
    back = box.listed("invoice_payments", **{"payment[type]": "payment_intent", "payment[payment_intent]": payment})
    assert [one["id"] for one in back] == [joined["id"]]
    assert (joined["status"], joined["amount_paid"]) == ("paid", 1000)
    expand = "?expand[]=invoice.parent.subscription_details.subscription&expand[]=payment.payment_intent.latest_charge"
    whole = box.one(f"invoice_payments/{joined['id']}{expand}")
    assert whole["invoice"]["parent"]["subscription_details"]["subscription"]["id"] == session["subscription"]
    charge = whole["payment"]["payment_intent"]["latest_charge"]
    assert box.one(f"balance_transactions/{charge['balance_transaction']}")["amount"] == 1000


def test_it_is_renewed_month_after_month_at_the_right_times(box: Sandboxed) -> None:
    session = box.subscribed()
    start, end = period(subscription(box, session))
    assert end == add_months(start, 1)
    box.advance("1mo")
    drafts = box.listed("invoices", status="draft")
    assert [draft["created"] for draft in drafts] == [end]
    box.advance("2h")
    renewed = subscription(box, session)
    assert period(renewed) == (end, add_months(start, 2))
    renewal = box.one(f"invoices/{renewed['latest_invoice']}")
    assert renewal["status_transitions"]["paid_at"] == end + 3600
    box.advance("10mo")
    assert len(paid_invoices(box, session)) == 12
    assert subscription(box, session)["status"] == "active"


def test_events_have_the_time_when_they_happened(box: Sandboxed) -> None:
    session = box.subscribed()
    end = period(subscription(box, session))[1]
    box.advance("2mo")
    happened = [(event["created"], event["type"]) for event in box.all_events()]
    assert happened == sorted(happened, key=lambda one: one[0])
    assert (end, "invoice.created") in happened
    assert (end + 3600, "invoice_payment.paid") in happened


def test_a_card_that_declines_is_tried_again_and_then_given_up(box: Sandboxed) -> None:
    session = box.subscribed(card="4000000000000341")
    end = period(subscription(box, session))[1]
    box.advance("1mo")
    box.advance("2h")
    assert subscription(box, session)["status"] == "past_due"
    tried = end + 3600
    for days in (3, 5, 7):
        invoice = box.one(f"invoices/{subscription(box, session)['latest_invoice']}")
        assert invoice["next_payment_attempt"] == (tried := tried + days * DAY)
        box.advance(f"{days}d")
    over = subscription(box, session)
    assert (over["status"], over["cancellation_details"]["reason"]) == ("canceled", "payment_failed")
    failures = [event for event in box.all_events() if event["type"] == "invoice.payment_failed"]
    assert [event["data"]["object"]["attempt_count"] for event in failures] == [1, 2, 3, 4]
    assert failures[-1]["data"]["object"]["next_payment_attempt"] is None
    box.advance("3mo")
    assert len(paid_invoices(box, session)) == 1


def test_another_card_saves_it(box: Sandboxed) -> None:
    session = box.subscribed(card="4000000000000341")
    box.advance("1mo")
    box.advance("2h")
    box.control(f"subscriptions/{session['subscription']}/card", card="4242424242424242")
    box.advance("3d")
    assert subscription(box, session)["status"] == "active"
    assert len(paid_invoices(box, session)) == 2


def test_a_bank_that_asks_waits_for_the_donor(box: Sandboxed) -> None:
    session = box.subscribed(card="4000002500003155")
    box.advance("1mo")
    box.advance("2h")
    assert box.all_events()[-2]["type"] == "invoice.payment_action_required"
    invoice = box.one(f"invoices/{subscription(box, session)['latest_invoice']}")
    assert invoice["hosted_invoice_url"] == f"{box.url}/invoice/{invoice['id']}"
    refused = box.control(f"invoices/{invoice['id']}/pay", card="4000002500003155", authenticate=False)
    assert refused["declined"]
    paid = box.control(f"invoices/{invoice['id']}/pay", card="4000002500003155")
    assert (paid["declined"], paid["status"]) == (None, "paid")
    assert subscription(box, session)["status"] == "active"


def test_a_card_that_asks_and_is_not_answered_does_not_pay(box: Sandboxed) -> None:
    session = box.checkout(form=subscription_form(), replace=True)["id"]
    answer = box.control(f"sessions/{session}/pay", card="4000002500003155", authenticate=False)
    assert (answer["status"], answer["subscription"]) == ("open", None)
    assert "authentication" in answer["declined"]


def test_it_ends_with_its_period_when_the_donor_has_enough(box: Sandboxed) -> None:
    session = box.subscribed()
    path = f"/v1/subscriptions/{session['subscription']}"
    end = period(subscription(box, session))[1]
    ending = box.api("POST", path, {"cancel_at_period_end": "true"}).json
    assert (ending["cancel_at_period_end"], ending["cancel_at"], ending["status"]) == (True, end, "active")
    assert box.control(f"subscriptions/{session['subscription']}/resume")["cancel_at"] is None
    box.control(f"subscriptions/{session['subscription']}/cancel", at_period_end=True)
    box.advance("1mo")
    over = subscription(box, session)
    assert (over["status"], over["ended_at"]) == ("canceled", end)
    assert len(box.listed("invoices")) == 1
    assert box.api("POST", path, {"cancel_at_period_end": "false"}).status == 404


def test_it_ends_at_once_by_the_sdk(box: Sandboxed) -> None:
    session = box.subscribed()
    over: Any = box.sdk.subscriptions.cancel(
        session["subscription"], {"cancellation_details": {"comment": "enough", "feedback": "other"}}
    )
    assert (over.status, over.cancellation_details.comment) == ("canceled", "enough")
    assert box.sdk.subscriptions.list().data == []
    assert len(box.sdk.subscriptions.list({"status": "canceled"}).data) == 1
    assert len(box.sdk.subscriptions.list({"status": "all", "customer": session["customer"]}).data) == 1
    box.advance("2mo")
    assert len(box.listed("invoices")) == 1


@pytest.mark.parametrize(
    "behavior, status", [("void", "void"), ("mark_uncollectible", "uncollectible"), ("keep_as_draft", "draft")]
)
def test_a_pause_collects_nothing_until_it_ends(box: Sandboxed, behavior: str, status: str) -> None:
    session = box.subscribed()
    path = f"/v1/subscriptions/{session['subscription']}"
    paused = box.api("POST", path, {"pause_collection[behavior]": behavior}).json
    assert paused["pause_collection"] == {"behavior": behavior, "resumes_at": None}
    box.advance("1mo")
    box.advance("2h")
    assert [one["status"] for one in box.listed("invoices")] == [status, "paid"]
    assert box.api("POST", path, {"pause_collection": ""}).json["pause_collection"] is None
    box.advance("1mo")
    assert [one["status"] for one in box.listed("invoices")] == ["paid", status, "paid"]


def test_a_pause_may_end_by_itself(box: Sandboxed) -> None:
    session = box.subscribed()
    ends = period(subscription(box, session))[1] - DAY
    form = {"pause_collection[behavior]": "void", "pause_collection[resumes_at]": ends}
    box.api("POST", f"/v1/subscriptions/{session['subscription']}", form)
    box.advance("1mo")
    box.advance("2h")
    assert subscription(box, session)["pause_collection"] is None
    assert len(paid_invoices(box, session)) == 2


def test_an_invoice_that_was_paid_elsewhere_moves_no_money(box: Sandboxed) -> None:
    session = box.subscribed(card="4000000000000341")
    box.advance("1mo")
    box.advance("2h")
    invoice = subscription(box, session)["latest_invoice"]
    before = box.listed("balance_transactions")
    declined = box.api("POST", f"/v1/invoices/{invoice}/pay", {})
    assert (declined.status, declined.json["error"]["type"]) == (402, "card_error")
    assert box.one(f"invoices/{invoice}")["attempt_count"] == 2
    paid = box.api("POST", f"/v1/invoices/{invoice}/pay", {"paid_out_of_band": "true"}).json
    assert (paid["status"], paid["amount_paid_off_stripe"]) == ("paid", 1000)
    assert box.types().count("invoice_payment.paid") == 0
    assert box.listed("balance_transactions") == before
    assert subscription(box, session)["status"] == "active"
    assert box.api("POST", f"/v1/invoices/{invoice}/pay", {}).status == 400


def test_a_monthly_bank_debit_is_active_while_its_money_is_on_the_way(box: Sandboxed) -> None:
    session = box.subscribed(method="delayed")
    assert (session["payment_status"], subscription(box, session)["status"]) == ("unpaid", "active")
    [joined] = box.listed("invoice_payments")
    box.control(f"payments/{joined['payment']['payment_intent']}/settle")
    assert box.types()[-1] == "checkout.session.async_payment_succeeded"
    box.advance("1mo")
    box.advance("4d")
    assert len(paid_invoices(box, session)) == 2


def test_a_monthly_bank_debit_that_fails_is_past_due(box: Sandboxed) -> None:
    session = box.subscribed(method="delayed")
    [joined] = box.listed("invoice_payments")
    box.control(f"payments/{joined['payment']['payment_intent']}/fail")
    assert subscription(box, session)["status"] == "past_due"
    assert {"invoice.payment_failed", "checkout.session.async_payment_failed"} < set(box.types())


def test_a_donor_who_is_known_is_the_same_customer(box: Sandboxed) -> None:
    first = box.subscribed(email="a@example.org")
    form = subscription_form() | {"customer": first["customer"]}
    second = box.control(f"sessions/{box.checkout(form=form, replace=True)['id']}/pay")
    assert second["customer"] == first["customer"]
    assert len(box.listed("customers", email="a@example.org")) == 1
    assert len(box.listed("subscriptions", customer=first["customer"])) == 2


BAD = [
    ({"payment_intent_data[metadata][a]": "1"}, "payment_intent_data"),
    ({"line_items[0][price_data][recurring][interval]": "decade"}, "line_items[0][price_data][recurring][interval]"),
    ({"customer": "cus_x"}, "customer"),
    ({"subscription_data[trial_period_days]": "3"}, "subscription_data[trial_period_days]"),
    ({"mode": "payment"}, "subscription_data"),
]


@pytest.mark.parametrize("change, param", BAD)
def test_what_stripe_would_not_take_is_refused(box: Sandboxed, change: Json, param: str) -> None:
    answer = box.api("POST", "/v1/checkout/sessions", subscription_form() | change)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


def cover_line() -> Json:
    """A checkout's second line: 0.59 $ each month for the fee."""
    line = {"currency]": "usd", "unit_amount]": 59, "product_data][name]": "Fees", "recurring][interval]": "month"}
    return {f"line_items[1][price_data][{name}": value for name, value in line.items()}


def with_cover(box: Sandboxed) -> Json:
    """The session of a monthly gift of 10 $ with its fee cover, the first payment made."""
    form = subscription_form() | cover_line() | {"line_items[1][quantity]": 1}
    return box.control(f"sessions/{box.checkout(form=form, replace=True)['id']}/pay")


def test_a_fee_cover_is_a_second_line_that_recurs_as_well(box: Sandboxed) -> None:
    more, paid = cover_line(), with_cover(box)
    assert box.one(f"invoices/{paid['invoice']}")["amount_paid"] == 1059
    one_time = {name: value for name, value in more.items() if "recurring" not in name}
    answer = box.api("POST", "/v1/checkout/sessions", subscription_form() | one_time | {"line_items[1][quantity]": 1})
    assert (answer.status, answer.json["error"]["param"]) == (400, "line_items")


# ---- a price that is changed


def prices(found: Json) -> list[int]:
    return [item["price"]["unit_amount"] for item in found["items"]["data"]]


def test_a_changed_price_is_told_with_what_it_was_and_asked_for_from_the_next_invoice_on(box: Sandboxed) -> None:
    session = with_cover(box)
    before = subscription(box, session)
    changed = box.control(f"subscriptions/{session['subscription']}/price", amount=2000)
    assert (prices(before), prices(changed)) == ([1000, 59], [2000, 59])
    one, other = (found["items"]["data"][0]["price"]["id"] for found in (before, changed))
    assert one != other, "prices never change"
    event = box.events()[-1]
    assert (event["type"], event["data"]["object"]) == ("customer.subscription.updated", changed)
    assert event["data"]["previous_attributes"] == {"items": {"data": before["items"]["data"]}}
    assert len(paid_invoices(box, session)) == 1, "nothing is prorated"
    box.advance("1mo")
    box.advance("2h")
    renewal = paid_invoices(box, session)[0]
    assert (renewal["amount_paid"], [line["amount"] for line in renewal["lines"]["data"]]) == (2059, [2000, 59])


def test_any_item_may_ask_another_amount_as_people_write_it(box: Sandboxed) -> None:
    session = with_cover(box)
    [_, cover] = subscription(box, session)["items"]["data"]
    changed = box.control(f"subscriptions/{session['subscription']}/price", sum="1.50", item=cover["id"])
    assert prices(changed) == [1000, 150]


def price(box: Sandboxed, found: str, **fields: Any) -> Any:
    body, kind = json.dumps(fields).encode(), {"Content-Type": "application/json"}
    return box.http("POST", f"/_control/subscriptions/{found}/price", body, kind)


@pytest.mark.parametrize(
    "fields, words",
    [({}, "amount"), ({"amount": -1}, "positive"), ({"sum": "much"}, "much"), ({"amount": 1, "item": "si_x"}, "si_x")],
)
def test_a_price_that_cannot_be_is_refused(box: Sandboxed, fields: Json, words: str) -> None:
    answer = price(box, box.subscribed()["subscription"], **fields)
    assert 400 <= answer.status < 500
    assert words in answer.json["error"]["message"]


def test_one_that_is_over_has_no_price_to_change(box: Sandboxed) -> None:
    found = box.subscribed()["subscription"]
    box.control(f"subscriptions/{found}/cancel")
    assert price(box, found, amount=1).status == 404


def test_the_dashboard_has_a_form_for_it(box: Sandboxed) -> None:
    found = box.subscribed()["subscription"]
    assert f'action="/_control/subscriptions/{found}/price"' in box.http("GET", "/").text
    box.form(f"/_control/subscriptions/{found}/price", sum="20")
    assert prices(box.one(f"subscriptions/{found}")) == [2000]


# ---- the calendar


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    "months, wanted",
    [
        (1, at(2027, 2, 28, 9, 30)),
        (2, at(2027, 3, 31, 9, 30)),
        (13, at(2028, 2, 29, 9, 30)),
        (12, at(2028, 1, 31, 9, 30)),
    ],
)
def test_a_month_ends_on_the_same_day_or_the_last(months: int, wanted: int) -> None:
    assert add_months(at(2027, 1, 31, 9, 30), months) == wanted


@pytest.mark.parametrize("text, seconds", [("2w", 14 * DAY), ("3d", 3 * DAY), ("2h", 7200), ("5m", 300), ("30s", 30)])
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert duration(text).after(1000.5) == 1000.5 + seconds


@pytest.mark.parametrize("text", ["", "1", "mo", "-1d", "1.5h", "1y", "9" * 9 + "d"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ApiError, match="no length of time"):
        duration(text)

"""The payment page and the dashboard, as a browser without JavaScript sees them."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.sandbox import Sandboxed, sandbox, subscription_form


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandboxed]:
    with sandbox(tmp_path) as running:
        yield running


def page_of(box: Sandboxed, session: str) -> str:
    return box.http("GET", f"/pay/{session}").text


def test_the_page_shows_what_is_paid_and_that_no_money_moves(box: Sandboxed) -> None:
    page = page_of(box, box.checkout(250000, form={"customer_email": "a@example.org"})["id"])
    for words in ("$2,500.00", "General fund", "No money moves", "4242 4242 4242 4242", 'value="a@example.org"'):
        assert words in page
    assert 'href="http://site.test/give"' in page


@pytest.mark.parametrize(
    "amount, currency, shown", [(2500, "jpy", "¥2,500"), (2500, "eur", "€25.00"), (2500, "czk", "25.00 CZK")]
)
def test_amounts_are_written_by_their_currency(box: Sandboxed, amount: int, currency: str, shown: str) -> None:
    assert f"<h1>{shown}</h1>" in page_of(box, box.checkout(amount, currency)["id"])


def test_paying_leads_to_the_site(box: Sandboxed) -> None:
    session = box.checkout()["id"]
    answer = box.form(f"/pay/{session}", method="card", card="4242 4242 4242 4242", email="a@example.org", name="A")
    assert answer.status == 303
    assert answer.headers["location"] == f"http://site.test/thanks?session={session}"
    paid = box.sdk.checkout.sessions.retrieve(session)
    assert paid.payment_status == "paid"
    assert paid.customer_details
    assert (paid.customer_details.email, paid.customer_details.name) == ("a@example.org", "A")


def test_a_bank_debit_leads_to_the_site_unpaid(box: Sandboxed) -> None:
    session = box.checkout()["id"]
    assert box.form(f"/pay/{session}", method="delayed", card="").status == 303
    assert box.sdk.checkout.sessions.retrieve(session).payment_status == "unpaid"


@pytest.mark.parametrize(
    "fields, words, event",
    [
        ({"card": "4000 0000 0000 0002"}, "Your card was declined.", True),
        ({"card": "4111 1111 1111 1111"}, "test cards only", False),
        ({"card": ""}, "test cards only", False),
        ({"card": "4242424242424242", "email": "nobody"}, "does not look like an email address", False),
    ],
)
def test_what_does_not_pay_says_why_and_can_be_tried_again(
    box: Sandboxed, fields: dict[str, str], words: str, event: bool
) -> None:
    session = box.checkout()["id"]
    answer = box.form(f"/pay/{session}", method="card", **({"email": "kept@example.org"} | fields))
    assert answer.status == 200
    assert words in answer.text
    assert 'role="alert"' in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert fields.get("email", "kept@example.org") in answer.text
    assert ("payment_intent.payment_failed" in box.types()) == event
    assert box.form(f"/pay/{session}", method="card", card="4242424242424242").status == 303


def test_a_session_that_is_over_says_so(box: Sandboxed) -> None:
    paid, expired = box.paid()["id"], box.checkout()["id"]
    box.control(f"sessions/{expired}/expire")
    assert "This payment is done" in page_of(box, paid)
    assert f"http://site.test/thanks?session={paid}" in page_of(box, paid)
    assert "has expired" in page_of(box, expired)
    assert "has expired" in box.form(f"/pay/{expired}", card="4242424242424242").text
    assert box.http("GET", "/pay/cs_nothing").status == 404


def test_an_expired_session_can_not_be_paid_before_anybody_noticed(box: Sandboxed) -> None:
    session = box.checkout()["id"]
    box.clock.ahead = 24 * 3600 + 1
    assert "has expired" in box.form(f"/pay/{session}", card="4242424242424242").text
    assert "checkout.session.completed" not in box.types()


def test_another_sites_page_can_not_pay(box: Sandboxed) -> None:
    session = box.checkout()["id"]
    answer = box.http("POST", f"/pay/{session}", b"card=4242424242424242", {"Origin": "http://evil.test"})
    assert answer.status == 403
    assert box.sdk.checkout.sessions.retrieve(session).status == "open"


def test_nothing_that_was_typed_becomes_html(box: Sandboxed) -> None:
    evil = "<script>alert(1)</script>\"'"
    session = box.checkout(form={"line_items[0][price_data][product_data][name]": evil})["id"]
    answer = box.form(f"/pay/{session}", card=evil, email=evil, name=evil)
    assert "<script" not in answer.text
    assert "&lt;script&gt;" in answer.text
    for path in ("/", "/pay/<script>", "/<script>"):
        assert "<script" not in box.http("GET", path).text


def test_pages_allow_no_script_and_lead_only_to_the_site(box: Sandboxed) -> None:
    session = box.checkout()["id"]
    policy = box.http("GET", f"/pay/{session}").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert policy.endswith("form-action 'self' http://site.test")
    for text in (page_of(box, session), box.http("GET", "/").text):
        assert not re.search(r"<script|<style| style=| on\w+=", text)


class Fields(HTMLParser):
    """The ids and labels of a page's fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: set[str] = set()
        self.labels: set[str] = set()
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids += [given["id"]] if "id" in given else []
        if tag == "input" and given.get("type") not in ("radio", "hidden"):
            self.fields.add(given["id"])
        if tag == "label" and "for" in given:
            self.labels.add(given["for"])


def test_every_field_has_a_label(box: Sandboxed) -> None:
    found = Fields(page_of(box, box.checkout()["id"]))
    assert found.fields == {"card", "email", "name"} <= found.labels
    assert len(found.ids) == len(set(found.ids))


def test_the_dashboard_shows_everything_and_its_buttons_work(box: Sandboxed) -> None:
    assert "No checkout yet" in box.http("GET", "/").text
    payment = box.paid()["payment_intent"]
    box.checkout()
    box.control(f"sessions/{box.checkout()['id']}/pay", method="delayed")
    assert "Settle" in box.http("GET", "/").text
    answer = box.form("/_control/refunds", payment_intent=payment, sum="5.00", outcome="pending")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    page = box.http("GET", "/").text
    for words in ("$5.00", "pending", 'value="20.00"', "checkout.session.completed", "Deliver again"):
        assert words in page
    assert box.form("/_control/trouble", mode="slow", seconds="2").status == 303
    assert box.state()["trouble"] == {"mode": "slow", "seconds": 2}


@pytest.mark.parametrize("sum_", ["0", "-1", "five", "1.005", "NaN", "1e99", "30.00"])
def test_an_odd_sum_is_not_refunded(box: Sandboxed, sum_: str) -> None:
    payment = box.paid()["payment_intent"]
    assert box.form("/_control/refunds", payment_intent=payment, sum=sum_).status == 400
    assert box.state()["counts"]["refunds"] == 0


@pytest.mark.parametrize("path, kind", [("sandbox.css", "text/css; charset=utf-8"), ("icon.svg", "image/svg+xml")])
def test_styles_are_served_and_nothing_else(box: Sandboxed, path: str, kind: str) -> None:
    assert box.http("GET", f"/static/{path}").headers["content-type"] == kind
    assert box.http("GET", "/static/../app.py").status == 404


# ---- monthly gifts


def test_a_monthly_gift_says_so_and_is_paid(box: Sandboxed) -> None:
    session = box.checkout(form=subscription_form(), replace=True)["id"]
    assert "<h1>$10.00<small> monthly</small></h1>" in page_of(box, session)
    assert box.form(f"/pay/{session}", method="card", card="4242424242424242", email="a@example.org").status == 303
    assert box.one(f"checkout/sessions/{session}")["subscription"]


@pytest.mark.parametrize("answer, status", [("true", 303), ("false", 200)])
def test_a_card_that_must_be_authenticated_asks_first(box: Sandboxed, answer: str, status: int) -> None:
    session = box.checkout()["id"]
    typed = {"method": "card", "card": "4000 0025 0000 3155", "email": "a@example.org", "name": "A <b>"}
    asked = box.form(f"/pay/{session}", **typed)
    assert (asked.status, "Complete authentication" in asked.text) == (200, True)
    assert 'value="A &lt;b&gt;"' in asked.text
    assert box.events() == []
    told = box.form(f"/pay/{session}", **typed, authenticate=answer)
    assert told.status == status
    assert ("requires authentication" in told.text) == (answer == "false")
    assert (box.one(f"checkout/sessions/{session}")["status"] == "complete") == (answer == "true")


def test_an_invoice_that_waits_can_be_paid_on_its_page(box: Sandboxed) -> None:
    session = box.subscribed(card="4000002500003155")
    box.advance("1mo")
    box.advance("2h")
    invoice = box.one(f"subscriptions/{session['subscription']}")["latest_invoice"]
    page = box.http("GET", f"/invoice/{invoice}").text
    assert "$10.00" in page
    assert "open. Tried 1 time." in page
    assert "test cards only" in box.form(f"/invoice/{invoice}", card="1").text
    assert "declined" in box.form(f"/invoice/{invoice}", card="4000000000000002").text
    assert "Complete authentication" in box.form(f"/invoice/{invoice}", card="4000002500003155").text
    paid = box.form(f"/invoice/{invoice}", card="4000002500003155", authenticate="true").text
    assert "paid. Tried 3 times." in paid
    assert "<form" not in paid
    assert box.http("GET", "/invoice/in_nothing").status == 404
    other = box.http("POST", f"/invoice/{invoice}", b"card=4242424242424242", {"Origin": "http://evil.test"})
    assert other.status == 403


def portal_of(box: Sandboxed, customer: str) -> str:
    form = {"customer": customer, "return_url": "http://site.test/donor/"}
    url: str = box.api("POST", "/v1/billing_portal/sessions", form).json["url"]
    assert url.startswith(box.url)
    return url.removeprefix(box.url)


def test_a_donor_sees_to_their_monthly_gift_in_the_portal(box: Sandboxed) -> None:
    session = box.subscribed(email="a@example.org")
    subscription = session["subscription"]
    path = portal_of(box, session["customer"])
    page = box.http("GET", path).text
    for words in (
        "$10.00, every month",
        "a@example.org",
        "The next gift is on",
        "ends in 4242",
        "http://site.test/donor/",
    ):
        assert words in page
    assert box.form(path, subscription=subscription, action="cancel").status == 303
    assert "It ends on" in box.http("GET", path).text
    assert box.one(f"subscriptions/{subscription}")["cancel_at_period_end"]
    assert box.form(path, subscription=subscription, action="resume").status == 303
    assert not box.one(f"subscriptions/{subscription}")["cancel_at_period_end"]
    assert box.form(path, subscription=subscription, action="card", card="4000 0000 0000 0341").status == 303
    assert "ends in 0341" in box.http("GET", path).text
    assert "test cards only" in box.form(path, subscription=subscription, action="card", card="1").text
    box.control(f"subscriptions/{subscription}/cancel")
    assert "It ended on" in box.http("GET", path).text


def test_a_portal_is_for_its_customer_and_for_an_hour(box: Sandboxed) -> None:
    mine, theirs = box.subscribed(), box.subscribed()
    path = portal_of(box, mine["customer"])
    assert box.form(path, subscription=theirs["subscription"], action="cancel").status == 404
    assert not box.one(f"subscriptions/{theirs['subscription']}")["cancel_at_period_end"]
    body = f"subscription={mine['subscription']}&action=cancel".encode()
    assert box.http("POST", path, body, {"Origin": "http://evil.test"}).status == 403
    box.later(3601)
    assert box.http("GET", path).status == 404
    assert box.api("POST", "/v1/billing_portal/sessions", {"customer": "cus_x"}).status == 400


def test_the_dashboard_steers_everything(box: Sandboxed) -> None:
    payment = box.paid()["payment_intent"]
    subscription = box.subscribed(card="4000000000000341")["subscription"]
    steps: list[tuple[str, dict[str, str]]] = [
        ("disputes", {"payment_intent": payment, "sum": "5.00", "inquiry": "on"}),
        ("account", {"fee_fixed": "25", "capture": "sync", "payouts": "manual", "retry_days": "1"}),
        ("trouble", {"mode": "429", "seconds": "", "calls": "2", "per_second": ""}),
        ("clock", {"advance": "1mo"}),
        ("clock", {"advance": "2h"}),
        ("payouts", {"currency": "usd", "hold": "on"}),
        ("seed", {"payments": "3", "seed": "1", "deliveries": "missed"}),
        (f"subscriptions/{subscription}/card", {"card": "4242424242424242"}),
    ]
    for path, fields in steps:
        answer = box.form(f"/_control/{path}", **fields)
        assert (answer.status, answer.headers.get("location")) == (303, "/"), (path, answer.text)
    page = box.http("GET", "/").text
    for words in ("days ahead", "warning needs response", "Escalate", "past due", "Monthly gifts (1)", "Payments (6)"):
        assert words in page, words
    for action in re.findall(r'action="(/_control/[^"]+)"', page):
        assert not re.search(r"[$<>{}]", action)
    assert 'value="2"' in page


def test_every_field_of_the_dashboard_is_in_a_label(box: Sandboxed) -> None:
    box.paid()
    box.subscribed()
    page = box.http("GET", "/").text
    without_labels = re.sub(r"<label.*?</label>", "", page, flags=re.DOTALL)
    assert not re.search(r"<select|<input(?! type=\"hidden\")", without_labels)

"""Asking to give, to follow and to refund, against a processor that answers over HTTP or not at all."""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import stripe
from django.apps import apps
from django.contrib.auth.models import User
from django.core import mail
from django.core.signing import Signer, TimestampSigner, b62_encode
from django.db import connection, transaction
from django.db.models import F
from django.test import Client
from django.utils import timezone
from djmoney.money import Money

from donations import giving, inbox, ledger, outbox, processors, projections, refunding
from donations.giving import Intent, PageUsedUp, new_page
from donations.models import (
    Campaign,
    Donor,
    Follower,
    Gift,
    GiftState,
    InboxEvent,
    MonthTotal,
    OutboxMessage,
    RecurringGift,
    RefundRequest,
    Tier,
)
from donations.processors.base import ProcessorRefused, ProcessorUnavailable
from tests.factories import (
    NOON,
    checkout_event,
    confirm,
    deliver,
    invoice_event,
    invoice_paid_event,
    lines_of,
    make_gift,
    make_recurring_gift,
    make_staff,
    monthly_checkout_event,
    refund_event,
    told,
)
from tests.sandbox import Sandboxed, eventually, sandbox

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/give/general/"


class Answers(BaseHTTPRequestHandler):
    """A processor of a few lines: it answers each call with what the test put up, and remembers the calls."""

    calls: list[tuple[str, str, str]]
    status: int
    answer: dict[str, Any]
    takes: float

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        type(self).calls.append((self.path, self.headers.get("Idempotency-Key", ""), body))
        sent = json.dumps(type(self).answer).encode()
        time.sleep(type(self).takes)
        self.send_response(type(self).status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def processor(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answers]]:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.01)  # the SDK's own wait before it tries again
    Answers.calls, Answers.status, Answers.takes = [], 200, 0
    Answers.answer = {"id": "cs_test_1", "object": "checkout.session", "url": "http://127.0.0.1:1/pay/cs_test_1"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    settings.STRIPE_API_BASE = f"http://127.0.0.1:{server.server_port}"
    processors.get.cache_clear()
    yield Answers
    server.shutdown()
    server.server_close()
    processors.get.cache_clear()


@pytest.fixture
def campaign() -> Campaign:
    fund = Campaign.objects.create(slug="general", name="News", default_goal=Money(5000, "USD"), is_default=True)
    for amount in (0, 500, 2500):
        Tier.objects.create(campaign=fund, amount=Money(amount, "USD"))
    return fund


def send(client: Client, page: str, **fields: str) -> Any:
    return client.post(URL, {"page": page, "tier": "50000"} | fields, HTTP_ORIGIN="http://testserver")


def test_a_form_sent_twice_leads_to_one_gift_and_one_checkout(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    first, second = send(client, page), send(client, page)
    assert first.status_code == second.status_code == 303
    assert first.headers["Location"] == second.headers["Location"] == processor.answer["url"]
    assert (Gift.objects.count(), len(processor.calls)) == (1, 1)


@pytest.mark.slow
def test_a_double_click_at_a_slow_processor_leads_twice_to_one_checkout(
    campaign: Campaign, settings: Any, tmp_path: Path
) -> None:
    page, answers = new_page(), []

    def click() -> None:
        answers.append(send(Client(), page))
        connection.close()

    with sandbox(tmp_path) as box:
        settings.STRIPE_API_BASE = box.url
        processors.get.cache_clear()
        # The second call comes while the first is being answered, and is told so.
        box.control("trouble", mode="slow", seconds=1, calls=1)
        first = threading.Thread(target=click)
        first.start()
        eventually(lambda: box.state()["trouble"]["mode"] == "none")  # the one slow call is under way
        click()
        first.join()
        processors.get.cache_clear()
        assert [answer.status_code for answer in answers] == [303, 303]
        assert answers[0].headers["Location"] == answers[1].headers["Location"]
        assert len(box.listed("checkout/sessions")) == 1


def test_a_retry_sends_the_same_parameters_with_the_same_key(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    processor.status = 503
    assert send(client, page, name="Reader").status_code == 503
    processor.status = 200
    assert send(client, page, name="Reader").status_code == 303
    assert len({(key, body) for _, key, body in processor.calls}) == 1
    assert Gift.objects.count() == 1


def test_a_changed_form_is_a_new_gift_and_the_old_checkout_is_closed(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    send(client, page)
    processor.answer |= {"id": "cs_test_2"}
    send(client, page, tier="250000")
    assert giving.close_superseded() == 1
    assert processor.calls[-1][0] == "/v1/checkout/sessions/cs_test_1/expire"
    assert giving.close_superseded() == 0


def test_who_follows_after_all_has_the_checkout_closed_that_the_page_opened(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    make_gift(campaign, checkout_id="cs_test_other", page="another")
    send(client, page)
    assert send(client, page, tier="0", email="reader@example.org").status_code == 200
    assert giving.close_superseded() == 1
    assert processor.calls[-1][0] == "/v1/checkout/sessions/cs_test_1/expire"


def test_who_types_0_and_then_chooses_it_as_the_page_says_follows(client: Client, campaign: Campaign) -> None:
    page = new_page()
    refused = send(client, page, tier="custom", amount="0")
    assert "choose 0 $ below" in refused.content.decode()
    assert send(client, page, tier="0", amount="0", email="reader@example.org").status_code == 200
    assert Follower.objects.count() == 1
    assert "You chose 0 $, and typed 5 as another" in send(client, page, tier="0", amount="5").text


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("\u200b", ""),
        ("\u3164 \u2800", ""),
        ("\u202egnp.evil", "gnp.evil"),
        ("Ann\r\nReader\x07", "Ann Reader"),
        (" Zoë  Ünal ", "Zoë Ünal"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d💻", "👩\u200d💻"),
    ],
)
def test_a_name_is_kept_as_staff_can_read_it(
    client: Client, campaign: Campaign, processor: type[Answers], typed: str, kept: str
) -> None:
    assert send(client, new_page(), name=typed).status_code == 303
    assert Gift.objects.get().public_name == kept


def test_a_checkout_whose_answer_was_lost_is_reused_or_ends_without_a_trace_in_the_sums(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page, processor.status = new_page(), 503
    send(client, page)
    lost = Gift.objects.get()
    processor.status = 200
    assert send(client, page, tier="250000").status_code == 303
    # Nobody knows its address, so nobody can pay it, and there is none to close; the processor lets it expire.
    assert giving.close_superseded() == 0
    deliver(checkout_event(lost, "checkout.session.expired", paid=False))
    inbox.drain()
    assert GiftState.objects.get(pk=lost).status == "expired"
    assert not MonthTotal.objects.exclude(raised=0, awaiting=0).exists()
    processor.answer |= {"id": "cs_test_3"}
    # And the first form, sent once more, is a gift of its own with a key of its own.
    assert send(client, page).status_code == 303
    assert [key.partition("-")[0] == lost.pk for _, key, _ in processor.calls] == [True, False, False]


def test_who_goes_back_without_paying_comes_to_the_same_form(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    send(client, page)
    parameters = Gift.objects.get().checkout_parameters or {}
    form = client.get(parameters["cancel_url"].removeprefix("http://testserver"))
    assert send(client, form.context["form"]["page"].value()).status_code == 303
    assert Gift.objects.count() == 1


@pytest.mark.parametrize("frequency", ["once", "monthly"])
def test_who_goes_back_and_changes_the_form_is_still_known_to_come_from_where_they_came(
    client: Client, monthly: Campaign, processor: type[Answers], frequency: str
) -> None:
    send(client, new_page(), source="article-7", frequency=frequency, monthly_tier="1000")
    asked = RecurringGift.objects.get() if frequency == "monthly" else Gift.objects.get()
    back = (asked.checkout_parameters or {})["cancel_url"].removeprefix("http://testserver")
    form = client.get(back).context["form"]
    processor.answer |= {"id": "cs_test_2"}
    send(client, form["page"].value(), tier="custom", amount="7", source=form["source"].value())
    assert Gift.objects.get(amount=700).source == "article-7"


def test_an_address_that_was_passed_on_leads_nobody_to_a_gift_that_another_paid(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    send(client, new_page())
    gift = Gift.objects.get()
    address = (gift.checkout_parameters or {})["cancel_url"].removeprefix("http://testserver")
    confirm(gift)
    processor.answer |= {"id": "cs_test_2", "url": "https://checkout.example/cs_test_2"}
    form = client.get(address).context["form"]
    assert send(client, form["page"].value()).headers["Location"] == processor.answer["url"]
    assert Gift.objects.count() == 2


def test_from_the_page_of_trouble_back_to_the_form_nothing_is_lost(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page, processor.status = new_page(), 503
    typed = {"tier": "custom", "amount": "25", "name": "Reader", "email": "reader@example.org", "message": "Go on"}
    assert send(client, page, **typed).status_code == 503
    form = send(client, page, back="1", **typed)
    assert form.status_code == 200
    assert {name: form.context["form"][name].value() for name in typed} == typed
    assert form.context["form"]["page"].value() == page
    assert not form.context["form"].errors
    assert len(processor.calls) == 1


@pytest.mark.parametrize("line_break", ["\r\n", "\r", "\n"])
def test_a_line_break_counts_as_one_character_as_browsers_count_it(
    client: Client, campaign: Campaign, processor: type[Answers], line_break: str
) -> None:
    longest = "\n".join(["a" * 40] * 12 + ["a" * 8])
    page = new_page()
    for message in (longest, longest.replace("\n", line_break)):
        assert send(client, page, message=message).status_code == 303
    # However its lines are broken, it is the same attempt.
    assert (len(longest), Gift.objects.get().message) == (500, longest)
    refused = send(client, page, message=longest.replace("\n", line_break) + "a")
    assert (refused.status_code, "500 characters at most" in refused.text) == (422, True)


def test_an_address_that_the_processor_refuses_is_said_beside_it(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    processor.status = 400
    processor.answer = {"error": {"type": "invalid_request_error", "code": "email_invalid", "message": "no"}}
    answer = send(client, new_page(), email="reader@example.invalid")
    assert answer.status_code == 422
    assert set(answer.context["form"].errors) == {"email"}


@pytest.mark.parametrize("address", ["/", "/give/"])
def test_the_short_address_takes_along_what_it_was_asked_with(client: Client, campaign: Campaign, address: str) -> None:
    assert client.get(address).headers["Location"] == URL
    assert client.get(f"{address}?source=article&tier=2500.00").headers["Location"] == (
        f"{URL}?source=article&tier=2500.00"
    )


@pytest.mark.django_db
def test_before_there_is_a_campaign_the_short_address_says_so(client: Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 404
    assert "There is no campaign to give to yet." in answer.text
    assert "To the start" not in answer.text


@pytest.mark.slow
def test_one_page_starts_so_many_checkouts_and_then_asks_for_one_more_press(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    for number in range(giving.MOST_CHECKOUTS):
        processor.answer |= {"id": f"cs_test_{number}"}
        assert send(client, page, tier="custom", amount=str(10 + number)).status_code == 303
    for _ in range(2):
        refused = send(client, page, tier="custom", amount="9", name="Kept name")
        assert refused.status_code == 422
    assert "press the button once more" in refused.text
    assert "Kept name" in refused.text
    assert len(processor.calls) == giving.MOST_CHECKOUTS
    again = refused.context["form"]["page"].value()
    processor.answer |= {"id": "cs_test_again"}
    assert send(client, again, tier="custom", amount="9", name="Kept name").status_code == 303


@pytest.mark.slow
def test_the_last_checkout_of_a_used_up_page_still_opens(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    for number in range(giving.MOST_CHECKOUTS):
        processor.answer |= {"id": f"cs_test_{number}"}
        send(client, page, tier="custom", amount=str(10 + number))
    last = send(client, page, tier="custom", amount=str(9 + giving.MOST_CHECKOUTS))
    assert last.status_code == 303
    assert Gift.objects.count() == giving.MOST_CHECKOUTS


@pytest.mark.parametrize(
    "fields",
    [
        None,
        {},
        {"tier": "custom", "amount": "25"},
        {"frequency": "monthly", "monthly_tier": "1000"},
        {"tier": "0", "email": "reader@example.org"},
        {"back": "1"},
    ],
)
def test_a_closed_campaign_says_so_once_and_takes_nothing(
    client: Client, monthly: Campaign, processor: type[Answers], fields: dict[str, str] | None
) -> None:
    Campaign.objects.update(is_open=False)
    answer = client.get(URL) if fields is None else send(client, new_page(), **fields)
    assert answer.status_code == (200 if fields is None else 422)
    assert answer.text.count("This campaign takes no gifts at the moment.") == 1
    assert "<form" not in answer.text
    assert 'role="progressbar"' in answer.text
    assert (Gift.objects.count(), RecurringGift.objects.count(), Follower.objects.count()) == (0, 0, 0)
    assert processor.calls == []


def test_a_form_is_read_and_sent_and_nothing_else(client: Client, campaign: Campaign) -> None:
    assert client.put(URL).status_code == client.delete(URL).status_code == 405


def test_the_server_and_not_the_browser_sets_the_amount(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    send(client, new_page(), amount_total="1", unit_amount="1")
    assert "[unit_amount]=50000" in processor.calls[0][2].replace("%5B", "[").replace("%5D", "]")


@pytest.mark.parametrize(
    "typed", ["1.000", "25.001", "0.10", "1000000000", "-5", "NaN", "1" + "0" * 400, "abc", "٢٥", "", "1e3", "\x00"]
)
def test_an_amount_that_is_not_plain_is_refused_in_words(
    client: Client, campaign: Campaign, processor: type[Answers], typed: str
) -> None:
    answer = send(client, new_page(), tier="custom", amount=typed, name="Kept name")
    assert answer.status_code == 422
    assert answer.context["form"].errors["amount"]
    assert "Kept name" in answer.text
    assert processor.calls == []


@pytest.mark.parametrize(("typed", "minor"), [("1,000", 100000), ("1000.50", 100050), ("$25", 2500), (" 25 ", 2500)])
def test_an_amount_is_read_as_people_write_it(
    client: Client, campaign: Campaign, processor: type[Answers], typed: str, minor: int
) -> None:
    assert send(client, new_page(), tier="custom", amount=typed).status_code == 303
    assert Gift.objects.get().amount == minor


def test_an_amount_that_the_processor_refuses_is_said_beside_the_field(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    processor.status = 400
    processor.answer = {"error": {"type": "invalid_request_error", "code": "amount_too_small", "message": "no"}}
    answer = send(client, new_page(), tier="custom", amount="25")
    assert answer.status_code == 422
    assert "too small" in answer.text
    assert Gift.objects.get().refusal


def test_an_amount_longer_than_the_field_is_refused_in_one_sentence(client: Client, campaign: Campaign) -> None:
    answer = client.post(URL, {"page": new_page(), "tier": "custom", "amount": "1" * 61})
    assert answer.status_code == 422
    assert answer.context["form"].errors.keys() == {"amount"}
    [said] = answer.context["form"].errors["amount"]
    assert said.startswith("This is too long for an amount.")


@pytest.mark.parametrize("length", [13, 30, 40])
def test_an_amount_of_many_nines_is_said_to_be_too_large(client: Client, campaign: Campaign, length: int) -> None:
    answer = client.post(URL, {"page": new_page(), "tier": "custom", "amount": "9" * length})
    assert answer.status_code == 422
    [said] = answer.context["form"].errors["amount"]
    assert said == "The largest amount that can be paid at once is 999,999.99 $."


@pytest.mark.parametrize("typed", ["0", "0.00"])
def test_who_types_nothing_is_led_to_the_choice_that_asks_for_no_money(
    client: Client, campaign: Campaign, typed: str
) -> None:
    way = "To support us without paying, choose 0 $ below."
    assert way in send(client, new_page(), tier="custom", amount=typed).context["form"].errors["amount"][0]
    campaign.tiers.filter(amount=0).delete()
    assert way not in send(client, new_page(), tier="custom", amount=typed).text


ASKED_ABOUT = [
    ({"tier": "50000", "amount": "25"}, "500 $", "25 as another amount", "give 500 $"),
    ({"tier": "50000", "amount": "1.000"}, "500 $", "1.000 as another amount", "give 500 $"),
    ({"tier": "50000", "amount": "1" * 61}, "500 $", "another amount", "give 500 $"),
    (
        {"frequency": "monthly", "monthly_tier": "1000", "monthly_amount": "25"},
        "10 $",
        "25 as another amount",
        "give 10 $ each month",
    ),
    ({"tier": "0", "amount": "5", "email": "reader@example.org"}, "0 $", "5 as another amount", "pay nothing"),
]


def filled_in(page: str) -> dict[str, str]:
    """What a browser without scripts sends of a form that is shown again."""
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    fields |= dict(re.findall(r'<input id="\w+" name="(\w+)"(?: type="email")? value="([^"]*)"', page))
    return fields | dict(re.findall(r'<input type="radio" name="(\w+)" value="(\w+)" checked', page))


@pytest.mark.parametrize(("fields", "chosen", "typed", "press"), ASKED_ABOUT)
def test_an_amount_beside_a_tier_is_asked_about_once_and_then_the_tier_is_taken(
    client: Client,
    monthly: Campaign,
    processor: type[Answers],
    fields: dict[str, str],
    chosen: str,
    typed: str,
    press: str,
) -> None:
    refused = send(client, new_page(), **fields)
    assert (refused.status_code, processor.calls, Follower.objects.count()) == (422, [], 0)
    [[said]] = refused.context["form"].errors.values()
    assert said == (
        f"You chose {chosen}, and typed {typed}. Press the button again to {press}, or choose “Other amount”."
    )
    again = filled_in(refused.text)
    assert again.items() >= fields.items()
    assert client.post(URL, again).status_code == (200 if fields.get("tier") == "0" else 303)
    given = [asked.amount for kind in (Gift, RecurringGift) for asked in kind.objects.all()]
    expected = {"500 $": [50000], "10 $": [1000], "0 $": []}[chosen]
    assert (given, Follower.objects.count()) == (expected, int(not expected))


@pytest.mark.parametrize("change", [{"tier": "250000"}, {"amount": "26"}, {"frequency": "monthly"}])
def test_another_choice_than_the_one_that_was_asked_about_is_asked_about_anew(
    client: Client, monthly: Campaign, processor: type[Answers], change: dict[str, str]
) -> None:
    refused = filled_in(send(client, new_page(), amount="25", monthly_amount="25").text)
    assert client.post(URL, refused | change).status_code == 422
    assert client.post(URL, refused | {"tier": "custom"}).status_code == 303
    assert [gift.amount for gift in Gift.objects.all()] == [2500]


def test_what_was_asked_about_is_not_asked_again_when_something_else_is_wrong(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    refused = filled_in(send(client, new_page(), amount="25").text)
    elsewhere = client.post(URL, refused | {"email": "reader"})
    assert elsewhere.context["form"].errors.keys() == {"email"}
    assert client.post(URL, filled_in(elsewhere.text) | {"email": ""}).status_code == 303


def test_what_stands_aside_is_no_part_of_the_attempt(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    for fields in ({}, {"aside": "50000 25"}, {"aside": "50000 25", "amount": "25"}):
        assert send(client, page, **fields).status_code == 303
    assert (Gift.objects.count(), len(processor.calls)) == (1, 1)


@pytest.mark.parametrize("prefix", ["", "monthly_"])
def test_what_the_script_set_aside_comes_back_with_the_form(client: Client, monthly: Campaign, prefix: str) -> None:
    again = send(client, new_page(), email="reader", **{f"{prefix}aside": "50000 25", f"{prefix}tier": "50000"})
    assert filled_in(again.text)[f"{prefix}amount"] == "25"
    emptied = send(client, new_page(), email="reader", **{f"{prefix}aside": "50000 25", f"{prefix}amount": ""})
    assert filled_in(emptied.text)[f"{prefix}amount"] == ""


def test_a_page_of_another_site_cannot_send_the_form(client: Client, campaign: Campaign) -> None:
    fields = {"page": new_page(), "tier": "50000"}
    answer = client.post(URL, fields, HTTP_ORIGIN="https://elsewhere.example")
    assert answer.status_code == 403
    assert "not sent from our page" in answer.text
    for site in ("cross-site", "same-site", "odd", ""):
        assert client.post(URL, fields, HTTP_SEC_FETCH_SITE=site).status_code == 403
    assert Gift.objects.count() == 0


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_a_page_of_ours_sends_the_form(client: Client, campaign: Campaign, processor: type[Answers], site: str) -> None:
    answer = client.post(URL, {"page": new_page(), "tier": "50000"}, HTTP_SEC_FETCH_SITE=site)
    assert (answer.status_code, Gift.objects.count()) == (303, 1)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("article-7_B", "article-7_B"),
        ("a" * 60, "a" * 60),
        ("a" * 61, ""),
        ("an article", ""),
        ("<b>", ""),
        ("artícle", ""),
        ("a\nb", ""),
        ("٧", ""),
    ],
)
def test_where_a_reader_comes_from_is_kept_where_it_is_a_plain_word(
    client: Client, campaign: Campaign, processor: type[Answers], sent: str, kept: str
) -> None:
    assert send(client, new_page(), source=sent).status_code == 303
    assert Gift.objects.get().source == kept
    assert send(client, new_page(), source=sent, tier="0", email="reader@example.org").status_code == 200
    assert Follower.objects.get().source == kept


def test_an_old_page_is_asked_for_one_more_press_and_loses_nothing(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    answer = send(client, "not-a-token", name="Kept name")
    assert answer.status_code == 422
    assert "Kept name" in answer.text
    assert send(client, answer.context["form"]["page"].value(), name="Kept name").status_code == 303


def test_nothing_to_pay_keeps_a_follower_confirmed_by_mail(client: Client, campaign: Campaign) -> None:
    assert send(client, new_page(), tier="0").status_code == 422
    assert send(client, new_page(), tier="0", email="Reader@Example.org").status_code == 200
    outbox.send_due()
    link = next(word for word in mail.outbox[0].body.split() if "/follow/" in word)
    path = link.removeprefix("http://testserver")
    assert client.get(path).status_code == 200
    assert Follower.objects.get().confirmed_at is None
    for _ in range(2):
        assert client.post(path, HTTP_ORIGIN="http://testserver").status_code == 200
    assert MonthTotal.objects.get().followers == 1
    assert projections.drift() == []
    assert Donor.objects.get().email == "reader@example.org"


def test_the_form_sets_no_cookie_and_asks_for_no_token(client: Client, campaign: Campaign) -> None:
    answer = client.get(URL)
    assert answer.cookies == {}
    assert "csrfmiddlewaretoken" not in answer.text
    assert answer.headers["Cache-Control"] == "private, max-age=0"


# ---- each month


@pytest.fixture
def monthly(campaign: Campaign) -> Campaign:
    """The campaign with monthly tiers of 10 $ and 25 $."""
    for amount in (10, 25):
        Tier.objects.create(campaign=campaign, frequency="monthly", amount=Money(amount, "USD"))
    return campaign


def send_monthly(client: Client, page: str, **fields: str) -> Any:
    """As a browser sends it: the choice that does not count comes along."""
    return send(client, page, **({"frequency": "monthly", "monthly_tier": "1000"} | fields))


def sent_to(processor: type[Answers]) -> dict[str, str]:
    return dict(parse_qsl(processor.calls[-1][2]))


def test_a_monthly_gift_is_a_subscription_of_the_amount_that_was_chosen(
    client: Client, monthly: Campaign, processor: type[Answers]
) -> None:
    assert send_monthly(client, new_page(), email="reader@example.org").status_code == 303
    recurring = RecurringGift.objects.get()
    assert (recurring.amount, recurring.tier, recurring.status, Gift.objects.count()) == (1000, "10.00", "pending", 0)
    fields = sent_to(processor)
    assert fields["mode"] == "subscription"
    assert fields["line_items[0][price_data][recurring][interval]"] == "month"
    assert fields["line_items[0][price_data][unit_amount]"] == "1000"
    assert fields["subscription_data[metadata][recurring_gift]"] == fields["client_reference_id"] == recurring.pk


def test_a_monthly_form_sent_twice_or_come_back_to_leads_to_one_checkout(
    client: Client, monthly: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    processor.status = 503
    assert send_monthly(client, page, monthly_tier="custom", monthly_amount="12.50").status_code == 503
    processor.status = 200
    send_monthly(client, page, monthly_tier="custom", monthly_amount="12.50")
    assert len({(key, body) for _, key, body in processor.calls}) == 1
    back = (RecurringGift.objects.get().checkout_parameters or {})["cancel_url"]
    form = client.get(back.removeprefix("http://testserver")).context["form"]
    assert (form.is_monthly, form["monthly_tier"].value(), form["monthly_amount"].value()) == (True, "custom", "12.50")
    send_monthly(client, form["page"].value(), monthly_tier="custom", monthly_amount="12.50")
    assert (RecurringGift.objects.count(), len(processor.calls)) == (1, 2)


@pytest.mark.parametrize("first", ["once", "monthly"])
def test_who_changes_between_once_and_monthly_leaves_one_open_checkout(
    client: Client, monthly: Campaign, processor: type[Answers], first: str
) -> None:
    page, second = new_page(), "once" if first == "monthly" else "monthly"
    send_monthly(client, page, frequency=first)
    processor.answer |= {"id": "cs_test_2"}
    send_monthly(client, page, frequency=second)
    assert (Gift.objects.count(), RecurringGift.objects.count()) == (1, 1)
    assert (giving.close_superseded(), processor.calls[-1][0]) == (1, "/v1/checkout/sessions/cs_test_1/expire")
    assert giving.close_superseded() == 0
    processor.answer |= {"id": "cs_test_3"}
    send_monthly(client, page, frequency=first)
    assert processor.calls[-1][0] == "/v1/checkout/sessions", "the first was closed: it takes another"
    assert (giving.close_superseded(), processor.calls[-1][0]) == (1, "/v1/checkout/sessions/cs_test_2/expire")


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"monthly_tier": "0"}, "monthly_tier", "not offered"),
        ({"monthly_tier": "50000"}, "monthly_tier", "not offered"),
        ({"monthly_tier": ""}, "monthly_tier", "Choose an amount"),
        ({"monthly_tier": "custom", "monthly_amount": "1.000"}, "monthly_amount", "two ways"),
        ({"monthly_tier": "custom", "monthly_amount": "1" * 61}, "monthly_amount", "too long for an amount"),
        ({"monthly_amount": "30"}, "monthly_amount", "You chose 10 $, and typed 30 as another amount."),
    ],
)
def test_what_is_wrong_with_a_monthly_choice_is_said_beside_it(
    client: Client, monthly: Campaign, processor: type[Answers], fields: dict[str, str], field: str, words: str
) -> None:
    answer = send_monthly(client, new_page(), **fields)
    assert (answer.status_code, answer.context["form"].errors.keys(), processor.calls) == (422, {field}, [])
    assert words in answer.context["form"].errors[field][0]


@pytest.mark.parametrize("frequency", ["", "once", "yearly"])
def test_the_choice_that_does_not_count_is_passed_over(
    client: Client, monthly: Campaign, processor: type[Answers], frequency: str
) -> None:
    odd = {"monthly_tier": "custom", "monthly_amount": "1.000" + "0" * 70}
    assert send_monthly(client, new_page(), frequency=frequency, **odd).status_code == 303
    assert (Gift.objects.get().amount, RecurringGift.objects.count()) == (50000, 0)
    assert send_monthly(client, new_page(), tier="x" * 30, amount="1" * 70).status_code == 303
    assert RecurringGift.objects.get().amount == 1000


def test_a_campaign_without_monthly_tiers_takes_no_monthly_gifts(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    assert "frequency" not in client.get(f"{URL}?frequency=monthly").text
    answer = send_monthly(client, new_page())
    assert answer.status_code == 422
    assert "takes no monthly gifts" in answer.text
    assert RecurringGift.objects.count() == 0


@pytest.mark.parametrize(
    ("link", "chosen"),
    [
        ("", (False, "50000", "1000")),
        ("?frequency=monthly", (True, "50000", "1000")),
        ("?frequency=monthly&tier=25.00", (True, "50000", "2500")),
        ("?tier=2500.00", (False, "250000", "1000")),
        ("?frequency=monthly&tier=2500.00", (True, "50000", "1000")),
        ("?frequency=odd&tier=custom&amount=7", (False, "custom", "1000")),
    ],
)
def test_a_link_may_choose_for_the_reader(
    client: Client, monthly: Campaign, link: str, chosen: tuple[bool, str, str]
) -> None:
    page = client.get(URL + link).context
    assert (page["form"].is_monthly, *(choice["chosen"] for choice in page["choices"])) == chosen


def test_where_no_amount_is_offered_one_is_typed(client: Client, campaign: Campaign) -> None:
    campaign.tiers.all().delete()
    assert 'value="custom" checked' in client.get(URL).text


def test_a_monthly_gift_that_has_begun_is_thanked_for_and_one_that_is_over_begins_anew(
    client: Client, monthly: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    send_monthly(client, page)
    RecurringGift.objects.update(status="active")
    assert "/thanks/recurring_" in send_monthly(client, page).headers["Location"]
    RecurringGift.objects.update(status="canceled")
    processor.answer |= {"id": "cs_test_2"}
    assert send_monthly(client, page).headers["Location"] == processor.answer["url"]
    assert RecurringGift.objects.count() == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Confirming your monthly gift"),
        ({"checkout_expires_at": timedelta(hours=-1)}, "Confirming your monthly gift"),
        ({"created_at": timedelta(minutes=-61)}, "We have not heard of your payment yet"),
        ({"status": "incomplete", "created_at": timedelta(days=-2)}, "We have not heard of your payment yet"),
        ({"status": "expired"}, "has not begun"),
        ({"status": "canceled"}, "Your monthly gift has ended"),
        ({"status": "active", "heard_at": timedelta(0)}, "Confirming your monthly gift"),
        ({"status": "active", "heard_at": timedelta(minutes=-3)}, "on its way"),
        ({"status": "past_due"}, "The first payment did not go through"),
    ],
)
def test_a_monthly_gift_is_confirmed_when_its_first_gift_is(
    client: Client, campaign: Campaign, fields: dict[str, Any], words: str
) -> None:
    # Ages count from the test's own moment, not from when the tests were collected.
    now = timezone.now()
    moments = {name: now + value for name, value in fields.items() if isinstance(value, timedelta)}
    recurring = make_recurring_gift(campaign)
    RecurringGift.objects.update(**{**fields, **moments})
    address = giving.thanks_url(recurring).removeprefix("http://testserver")
    assert words in client.get(address).text
    deliver(invoice_event(recurring), invoice_paid_event(recurring))
    inbox.drain()
    assert "Your first monthly gift of 10 $ has arrived" in client.get(address).text


# ---- the thank-you page


def thanked(client: Client, asked: Gift | RecurringGift) -> str:
    """What the thank-you page says, without the bar."""
    text = client.get(giving.thanks_url(asked).removeprefix("http://testserver")).text
    return text.partition('<div class="card">')[0]


@pytest.mark.parametrize(
    ("age", "words", "looks_again_after"),
    [
        (timedelta(0), "Confirming your gift", "3"),
        (timedelta(minutes=11), "Confirming your gift", "30"),
        (timedelta(minutes=61), "whether 500 $ was paid. If you paid, please do not pay again", "30"),
        (timedelta(days=2), "If you did not finish the payment, nothing was charged", ""),
    ],
)
def test_until_the_processor_has_spoken_no_clock_says_that_a_checkout_is_over(
    client: Client, campaign: Campaign, age: timedelta, words: str, looks_again_after: str
) -> None:
    now = timezone.now()
    gift = make_gift(campaign, checkout_expires_at=now + timedelta(hours=23) - age)
    Gift.objects.update(created_at=now - age)
    page = thanked(client, gift)
    assert words in page
    assert "This checkout is over" not in page
    assert gift.campaign_id not in page  # the way to give once more
    assert re.findall(r'http-equiv="refresh" content="(\d*)"', page) == [looks_again_after] * bool(looks_again_after)
    confirm(gift)
    assert "Your gift of 500 $ has arrived" in thanked(client, gift)


def test_whom_to_write_to_about_a_payment_that_nobody_tells_of_is_said_with_its_reference(
    client: Client, campaign: Campaign, settings: Any
) -> None:
    settings.SITE_NAME = "The Daily Ledger"
    gift = make_gift(campaign)
    Gift.objects.update(created_at=timezone.now() - timedelta(hours=2))
    assert f"Write to The Daily Ledger and name {gift.pk}." in thanked(client, gift)


def test_a_checkout_is_over_when_the_processor_says_so(client: Client, campaign: Campaign) -> None:
    gift = make_gift(campaign)
    assert told(checkout_event(gift, "checkout.session.expired")) == ["processed"]
    page = thanked(client, gift)
    assert "This checkout is over" in page
    assert 'href="/give/general/"' in page


def test_who_paid_what_staff_look_at_is_told_so_and_not_asked_to_give_again(client: Client, campaign: Campaign) -> None:
    gift, recurring = make_gift(campaign), make_recurring_gift(campaign, status="canceled")
    assert told(checkout_event(gift, amount_total=100)) == ["quarantined"]
    assert told(invoice_event(recurring), invoice_paid_event(recurring, currency="eur"))[-1] == "quarantined"
    for asked in (gift, recurring):
        page = thanked(client, asked)
        assert "We have your payment" in page
        assert "You need not do anything" in page
        assert asked.pk in page
        assert "refresh" not in page
        assert gift.campaign_id not in page
    assert "Confirming your gift" in thanked(client, make_gift(campaign))


def test_of_a_payment_that_staff_dismissed_nothing_is_promised(client: Client, campaign: Campaign) -> None:
    gift, recurring = make_gift(campaign), make_recurring_gift(campaign, status="past_due")
    assert told(checkout_event(gift, amount_total=100)) == ["quarantined"]
    assert told(invoice_event(recurring), invoice_paid_event(recurring, currency="eur"))[-1] == "quarantined"
    for row in InboxEvent.objects.filter(state="quarantined"):
        inbox.dismiss(row, user=make_staff(), reason="given back")
    for asked in (gift, recurring):
        page = thanked(client, asked)
        assert "Your payment is not counted" in page
        assert f"name {asked.pk}" in page
        assert "refresh" not in page


def test_after_a_failure_that_the_processor_keeps_the_end_of_one_checkout_says_nothing(
    client: Client, campaign: Campaign
) -> None:
    gift = make_gift(campaign, checkout_keys_spent=1)
    monthly = make_recurring_gift(campaign, checkout_keys_spent=1)
    assert told(checkout_event(gift, "checkout.session.expired", id="cs_test_other")) == ["processed"]
    assert told(monthly_checkout_event(monthly, "checkout.session.expired", id="cs_test_another")) == ["processed"]
    for asked in (gift, monthly):
        assert "Confirming your" in thanked(client, asked)


def test_a_payment_that_is_looked_at_is_not_hidden_by_a_dismissed_one(client: Client, campaign: Campaign) -> None:
    gift = make_gift(campaign)
    for _ in range(2):
        assert told(checkout_event(gift, amount_total=100)) == ["quarantined"]
    inbox.dismiss(InboxEvent.objects.order_by("pk")[0], user=make_staff(), reason="given back")
    assert "We have your payment" in thanked(client, gift)


def test_a_page_that_looks_no_more_does_not_say_that_it_does(client: Client, campaign: Campaign) -> None:
    monthly = make_recurring_gift(campaign, status="active", heard_at=timezone.now())
    RecurringGift.objects.update(created_at=timezone.now() - timedelta(hours=25))
    monthly.refresh_from_db()
    page = thanked(client, monthly)
    assert "Confirming your" in page
    assert "refresh" not in page
    assert "looks again" not in page


@pytest.mark.parametrize(
    ("paid", "page", "receipt"),
    [
        (100, "Your gift of 1 $ has arrived. It", "We received your gift of 1 $ to"),
        (330, "Your gift of 3.30 $ has arrived. It", "We received your gift of 3.30 $ to"),
        (
            5330,
            "Your gift of 50 $ has arrived, and with it 3.30 $ that you added",
            "We received 53.30 $ for “News” on 18 November 2024: your gift of 50 $,\nand 3.30 $ that you added",
        ),
    ],
)
def test_page_and_receipt_thank_for_what_was_booked_and_not_for_what_was_asked(
    client: Client, campaign: Campaign, paid: int, page: str, receipt: str
) -> None:
    gift = make_gift(campaign, 10000, fee_cover=330)
    assert told(checkout_event(gift, amount_total=paid)) == ["quarantined"]
    inbox.accept(InboxEvent.objects.get(), user=User.objects.create_user("finance"))
    assert page in thanked(client, gift)
    outbox.send_due()
    [sent] = mail.outbox
    assert receipt in sent.body


def test_a_gift_that_was_given_back_in_whole_is_not_thanked_for(client: Client, campaign: Campaign) -> None:
    gift = make_gift(campaign, 50000)
    told(checkout_event(gift), refund_event(gift, 49999, refund="re_most"))
    assert "Thank you" in thanked(client, gift)
    told(refund_event(gift, 1, refund="re_rest"))
    page = thanked(client, gift)
    assert "Your gift was given back" in page
    assert "500 $ went back to you" in page
    assert "Thank you" not in page
    told(refund_event(gift, 1, refund="re_rest", status="failed", kind="refund.failed"))
    assert "Thank you" in thanked(client, gift)


def test_what_staff_enter_of_a_gift_that_was_given_back_counts_on_its_page(client: Client, campaign: Campaign) -> None:
    gift = make_gift(campaign, 50000)
    told(checkout_event(gift), refund_event(gift, 20000))
    for reference, amount, words in (("bank", -30000, "was given back"), ("back", 30000, "Thank you")):
        adjustment = ledger.entry(
            campaign=campaign,
            effective_at=NOON,
            kind="adjustment",
            processor="offline",
            reference=f"general:{reference}",
            currency="USD",
            amount=amount,
            livemode=gift.livemode,
            gift=gift.pk,
            tier=gift.tier,
        )
        ledger.post([adjustment])
        assert words in thanked(client, gift)


def test_of_a_monthly_gift_the_first_payment_is_thanked_for_whatever_is_booked_later(
    client: Client, campaign: Campaign
) -> None:
    recurring = make_recurring_gift(campaign)
    for invoice, amount, after in (("in_2", 1000, 31), ("in_1", 500, 0)):
        at = NOON + timedelta(days=after)
        told(
            invoice_event(recurring, invoice=invoice, at=at, lines=lines_of(amount)),
            invoice_paid_event(recurring, invoice=invoice, at=at, amount_paid=amount),
        )
    assert "Your first monthly gift of 5 $ has arrived." in thanked(client, recurring)


def test_a_receipt_waits_for_its_gift_to_be_in_the_books(campaign: Campaign) -> None:
    gift = a_confirmed_gift(campaign)
    Gift.objects.update(donor=Donor.objects.create(email="reader@example.org"))
    outbox.enqueue("receipt", [gift.pk])
    outbox.send_due()
    assert (OutboxMessage.objects.get().state, mail.outbox) == ("queued", [])


# ---- refunds


def a_confirmed_gift(campaign: Campaign) -> Gift:
    gift = Gift.objects.create(
        campaign=campaign, tier="500.00", currency="USD", amount=50000, livemode=False, processor="stripe"
    )
    GiftState.objects.create(
        gift=gift,
        campaign=campaign,
        status="confirmed",
        livemode=False,
        currency="USD",
        tier="500.00",
        charged=50000,
        payment="pi_1",
    )
    return gift


def test_refunds_never_ask_for_more_than_was_charged(campaign: Campaign, processor: type[Answers]) -> None:
    gift, user = a_confirmed_gift(campaign), User.objects.create_user("finance")
    processor.answer = {"id": "re_1", "object": "refund"}
    refunding.request_refund(gift=gift, amount=30000, reason="asked", user=user)
    more = r"^That is more than is left of this gift: look at the refunds that were asked for\.$"
    with pytest.raises(refunding.RefundRefused, match=more):
        refunding.request_refund(gift=gift, amount=20001, reason="asked", user=user)
    refunding.request_refund(gift=gift, amount=20000, reason="asked", user=user)
    assert GiftState.objects.get().refund_requested == 50000


@pytest.mark.parametrize("amount", [0, -1])
def test_a_refund_of_nothing_is_refused(campaign: Campaign, processor: type[Answers], amount: int) -> None:
    with pytest.raises(refunding.RefundRefused, match=r"^Give an amount above zero\.$"):
        refunding.request_refund(gift=a_confirmed_gift(campaign), amount=amount, reason="", user=None)
    assert (RefundRequest.objects.count(), processor.calls) == (0, [])


def test_the_smallest_refund_is_asked_for_and_a_long_reason_kept_as_far_as_there_is_room(
    campaign: Campaign, processor: type[Answers]
) -> None:
    processor.answer = {"id": "re_1", "object": "refund"}
    refunding.request_refund(gift=a_confirmed_gift(campaign), amount=1, reason="x" * 300, user=None)
    kept = RefundRequest.objects.get()
    assert (kept.amount, kept.status, kept.refund_id, kept.reason) == (1, "accepted", "re_1", "x" * 200)


def test_what_was_not_paid_through_a_processor_is_given_back_by_hand(campaign: Campaign) -> None:
    gift = a_confirmed_gift(campaign)
    Gift.objects.update(processor="offline")
    gift.refresh_from_db()
    with pytest.raises(refunding.RefundRefused, match="adjustment"):
        refunding.request_refund(gift=gift, amount=500, reason="", user=None)


def test_no_caller_asks_for_a_refund_that_the_processor_cannot_move(
    campaign: Campaign, processor: type[Answers]
) -> None:
    gift = a_confirmed_gift(campaign)
    gift.currency = "ISK"
    with pytest.raises(refunding.RefundRefused, match=r"multiple of 1 ISK. Type 1 ISK\."):
        refunding.request_refund(gift=gift, amount=50, reason="", user=None)
    assert not RefundRequest.objects.exists()


def test_a_refused_refund_frees_what_it_had_set_aside(campaign: Campaign, processor: type[Answers]) -> None:
    gift = a_confirmed_gift(campaign)
    processor.status = 400
    processor.answer = {"error": {"type": "invalid_request_error", "code": "charge_already_refunded", "message": "no"}}
    with pytest.raises(refunding.RefundRefused):
        refunding.request_refund(gift=gift, amount=30000, reason="", user=None)
    assert GiftState.objects.get().refund_requested == 0
    assert RefundRequest.objects.get().status == "refused"


MORE = {"param": "amount", "message": "Refund amount ($5.00) is greater than unrefunded amount on charge ($2.00)"}
REFUSED = {
    "disputed": ({"code": "charge_disputed"}, "is disputed. Answer or accept the dispute in its dashboard"),
    "all given back": ({"code": "charge_already_refunded"}, "all of this payment was given back already. Look at"),
    "more than is left": (MORE, "less is left of this payment than was asked for. Look at its refunds"),
    "anything else": ({"code": "no_such_code"}, "its code is “no_such_code”. Look at the payment in its dashboard"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_staff_are_told_why_a_refund_is_refused_and_what_to_do(
    campaign: Campaign, processor: type[Answers], case: str
) -> None:
    told, words = REFUSED[case]
    gift = a_confirmed_gift(campaign)
    processor.status = 400
    processor.answer = {"error": {"type": "invalid_request_error", "message": "no", **told}}
    with pytest.raises(refunding.RefundRefused, match=words) as refused:
        refunding.request_refund(gift=gift, amount=500, reason="", user=None)
    kept = RefundRequest.objects.get().error
    assert words in kept
    assert "try another amount" not in f"{refused.value} {kept}"


def test_a_refund_that_got_no_answer_is_sent_again_with_its_own_key(
    campaign: Campaign, processor: type[Answers]
) -> None:
    gift = a_confirmed_gift(campaign)
    processor.status = 503
    refunding.request_refund(gift=gift, amount=30000, reason="", user=None)
    assert RefundRequest.objects.get().status == "sending"
    processor.status, processor.answer = 200, {"id": "re_1", "object": "refund"}
    let_pass(timedelta(hours=24))
    assert refunding.send_refunds_again() == 0, "the processor may have forgotten the key: it could be refunded twice"
    RefundRequest.objects.update(requested_at=timezone.now() - timedelta(minutes=2))
    assert refunding.send_refunds_again() == 1
    assert RefundRequest.objects.get().status == "accepted"
    assert len({key for _, key, _ in processor.calls}) == 1


def let_pass(span: timedelta) -> None:
    """As if this much time had gone by for all refunds."""
    RefundRequest.objects.update(requested_at=F("requested_at") - span, next_try_at=F("next_try_at") - span)


def test_a_refund_that_gets_no_answer_is_sent_ever_later(campaign: Campaign, processor: type[Answers]) -> None:
    gift = a_confirmed_gift(campaign)
    processor.status = 503
    refunding.request_refund(gift=gift, amount=30000, reason="", user=None)
    waits = []
    for _ in range(9):
        wait = RefundRequest.objects.get().next_try_at - timezone.now()
        waits.append(wait.total_seconds() / 60)
        let_pass(wait - timedelta(seconds=2))
        assert refunding.send_refunds_again() == 0
        let_pass(timedelta(seconds=3))
        assert refunding.send_refunds_again() == 1
    assert waits == pytest.approx([1, 1, 2, 4, 8, 16, 32, 60, 60], rel=0.1)


def test_an_answer_changes_the_refund_that_it_is_of_and_no_other(campaign: Campaign, processor: type[Answers]) -> None:
    processor.status = 503
    first, second = (
        refunding.request_refund(gift=a_confirmed_gift(campaign), amount=amount, reason="", user=None)
        for amount in (30000, 20000)
    )
    RefundRequest.objects.update(error="")
    refunding.send_refund(first)
    assert "503" in RefundRequest.objects.get(pk=first.pk).error
    assert RefundRequest.objects.get(pk=second.pk).error == ""
    processor.status, processor.answer = 200, {"id": "re_1", "object": "refund"}
    refunding.send_refund(first)
    rows = RefundRequest.objects.order_by("pk").values_list("status", "refund_id", "error")
    assert list(rows) == [("accepted", "re_1", ""), ("sending", "", "")]


@pytest.mark.parametrize("status", [200, 503])
def test_an_answer_that_comes_too_late_changes_nothing(
    campaign: Campaign, processor: type[Answers], status: int
) -> None:
    processor.status = 503
    asked = refunding.request_refund(gift=a_confirmed_gift(campaign), amount=30000, reason="", user=None)
    RefundRequest.objects.update(status="given_up", error="")
    processor.status, processor.answer = status, {"id": "re_1", "object": "refund"}
    refunding.send_refund(asked)
    assert RefundRequest.objects.values_list("status", "refund_id", "error").get() == ("given_up", "", "")


def test_what_has_its_answer_holds_up_no_refund_that_has_none(campaign: Campaign, processor: type[Answers]) -> None:
    processor.status = 503
    answered, _ = (
        refunding.request_refund(gift=a_confirmed_gift(campaign), amount=30000, reason="", user=None) for _ in range(2)
    )
    RefundRequest.objects.filter(pk=answered.pk).update(status="accepted")
    let_pass(timedelta(minutes=2))
    assert refunding.send_refunds_again(limit=1) == 1


def test_the_log_names_the_refund_that_could_not_be_sent(
    campaign: Campaign, processor: type[Answers], caplog: pytest.LogCaptureFixture
) -> None:
    processor.status = 503
    asked = refunding.request_refund(gift=a_confirmed_gift(campaign), amount=30000, reason="", user=None)
    caplog.clear()
    with caplog.at_level("WARNING", logger="donations.refunding"):
        refunding.send_refund(asked)
        processor.status, processor.answer = 400, {"error": {"type": "invalid_request_error", "code": "no_such_code"}}
        let_pass(timedelta(minutes=2))
        refunding.send_refunds_again()
    fault, refusal = caplog.messages
    assert fault.startswith(f"refund {asked.key} not sent: APIError: 503")
    assert refusal.startswith(f"refund {asked.key}: The payment service refused it: its code is “no_such_code”")


def test_a_refund_that_may_still_be_sent_cannot_be_given_up(campaign: Campaign, processor: type[Answers]) -> None:
    processor.status = 503
    asked = refunding.request_refund(gift=a_confirmed_gift(campaign), amount=30000, reason="", user=None)
    still = r"^This refund has its answer, or is still being sent\. Nothing was changed\.$"
    with pytest.raises(refunding.RefundRefused, match=still):
        refunding.give_up_refund(asked)
    assert (RefundRequest.objects.get().status, GiftState.objects.get().refund_requested) == ("sending", 30000)


def test_refunds_that_cannot_be_sent_do_not_hold_up_others(campaign: Campaign, processor: type[Answers]) -> None:
    processor.status = 503
    for _ in range(3):
        refunding.request_refund(gift=a_confirmed_gift(campaign), amount=30000, reason="", user=None)
    let_pass(timedelta(minutes=1))
    assert [refunding.send_refunds_again(limit=2) for _ in range(3)] == [2, 1, 0]


def test_a_refund_is_asked_for_once_under_one_key(campaign: Campaign, processor: type[Answers]) -> None:
    gift = a_confirmed_gift(campaign)
    processor.answer = {"id": "re_1", "object": "refund"}
    key = "refund_" + "a" * 32
    first = refunding.request_refund(gift=gift, amount=10000, reason="", user=None, key=key)
    with pytest.raises(refunding.AskedAlready) as again:
        refunding.request_refund(gift=gift, amount=10000, reason="", user=None, key=key)
    assert again.value.first == first
    assert str(again.value) == "This refund was asked for already. Nothing was asked for a second time."
    assert (GiftState.objects.get().refund_requested, len(refund_calls(processor))) == (10000, 1)


def refund_calls(processor: type[Answers]) -> list[str]:
    return [key for path, key, _ in processor.calls if path == "/v1/refunds"]


def at_once(*tasks: Callable[[], object]) -> list[Exception]:
    """Run these in threads that start together; what they raised."""
    raised: list[Exception] = []
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        try:
            gate.wait(10)
            task()
        except Exception as error:  # noqa: BLE001 (the caller looks at whatever it was)
            raised.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return raised


@pytest.mark.postgres
def test_two_presses_at_the_same_moment_ask_for_one_refund(campaign: Campaign, processor: type[Answers]) -> None:
    processor.answer = {"id": "re_1", "object": "refund"}
    for number in range(5):
        gift = a_confirmed_gift(campaign)
        key = f"refund_{number:032}"

        def press(gift: Gift = gift, key: str = key) -> None:
            refunding.request_refund(gift=gift, amount=10000, reason="", user=None, key=key)

        assert [type(error) for error in at_once(*[press] * 4)] == [refunding.AskedAlready] * 3
        assert refund_calls(processor).count(key) == 1
        assert GiftState.objects.get(pk=gift.pk).refund_requested == 10000


@pytest.mark.postgres
def test_processes_that_send_again_at_once_send_each_refund_once(campaign: Campaign, processor: type[Answers]) -> None:
    processor.status = 503
    for _ in range(4):
        refunding.request_refund(gift=a_confirmed_gift(campaign), amount=30000, reason="", user=None)
    let_pass(timedelta(minutes=2))
    processor.calls.clear()
    processor.status, processor.answer = 200, {"id": "re_1", "object": "refund"}
    assert at_once(*[refunding.send_refunds_again] * 4) == []
    sent = refund_calls(processor)
    assert (len(sent), len(set(sent))) == (4, 4)


# ---- refunds of a processor that keeps its failure


def a_paid_gift(campaign: Campaign, box: Sandboxed) -> Gift:
    """Paid at the sandbox with 500 $; whose payment it is, is known here."""
    gift = a_confirmed_gift(campaign)
    GiftState.objects.filter(pk=gift.pk).update(payment=box.paid(50000)["payment_intent"])
    return gift


def refunds_at(box: Sandboxed) -> list[tuple[int, str]]:
    return [(refund["amount"], refund["metadata"]["request"]) for refund in box.listed("refunds")]


@pytest.fixture
def broken(campaign: Campaign, box: Sandboxed, monkeypatch: pytest.MonkeyPatch) -> RefundRequest:
    """A refund of 100 $ of 500 $, to which the processor keeps a failure of its own as the answer."""
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.01)
    gift = a_paid_gift(campaign, box)
    box.control("trouble", mode="broken", calls=1, path="POST /v1/refunds")
    asked = refunding.request_refund(gift=gift, amount=10000, reason="", user=None)
    asked.refresh_from_db()
    assert (asked.status, asked.keys_spent, refunds_at(box)) == ("sending", 1, [])
    return asked


def sent_again(asked: RefundRequest) -> str:
    """The refund's status after one more try."""
    let_pass(timedelta(hours=1))
    assert refunding.send_refunds_again() == 1
    asked.refresh_from_db()
    return asked.status


def test_a_refund_whose_failure_the_processor_keeps_is_made_once_under_another_key(
    box: Sandboxed, broken: RefundRequest
) -> None:
    assert sent_again(broken) == "accepted"
    assert refunds_at(box) == [(10000, broken.key)]
    # Whoever was held up since then, and sends under whatever key, makes no second one.
    for spent in (0, 1):
        broken.status, broken.keys_spent = "sending", spent
        refunding.send_refund(broken)
    assert len(refunds_at(box)) == 1
    broken.refresh_from_db()
    assert (broken.status, GiftState.objects.get().refund_requested) == ("accepted", 10000)


def test_a_refund_that_was_made_before_the_failure_is_found_and_none_is_made_again(
    box: Sandboxed, broken: RefundRequest
) -> None:
    payment = GiftState.objects.get().payment
    form = {"payment_intent": payment, "amount": 10000, "metadata[request]": broken.key}
    made = box.api("POST", "/v1/refunds", form).json["id"]
    box.control("refunds", payment_intent=payment, amount=500)
    assert sent_again(broken) == "accepted"
    assert broken.refund_id == made
    assert len(box.listed("refunds")) == 2


def test_a_kept_failure_spends_the_key_of_its_own_refund_alone(
    campaign: Campaign, box: Sandboxed, broken: RefundRequest
) -> None:
    other = RefundRequest.objects.create(gift=a_paid_gift(campaign, box), amount=500)
    answered = RefundRequest.objects.create(gift=a_confirmed_gift(campaign), amount=500, status="accepted")
    RefundRequest.objects.create(gift=a_confirmed_gift(campaign), amount=500)  # not sent by now
    for asked in (other, answered):
        GiftState.objects.filter(pk=asked.gift_id).update(payment=box.paid(50000)["payment_intent"])
        box.control("trouble", mode="broken", calls=1, path="POST /v1/refunds")
        refunding.send_refund(asked)
    assert list(RefundRequest.objects.order_by("pk").values_list("keys_spent", flat=True)) == [1, 1, 0, 0]


def test_where_nobody_can_look_no_other_key_is_used(box: Sandboxed, broken: RefundRequest) -> None:
    payment = GiftState.objects.get().payment
    box.control("trouble", mode="down", path="GET /v1/refunds")
    assert sent_again(broken) == "sending"
    box.control("trouble", mode="none")
    GiftState.objects.update(payment="")
    assert sent_again(broken) == "sending", "that the list is refused says nothing of the refund"
    assert broken.error.startswith("its refunds cannot be listed: ")
    assert (broken.keys_spent, box.listed("refunds")) == (1, [])
    GiftState.objects.update(payment=payment)
    assert sent_again(broken) == "accepted"
    assert len(refunds_at(box)) == 1


def test_a_processor_that_fails_on_and_on_makes_one_refund_when_it_is_well(
    box: Sandboxed, broken: RefundRequest
) -> None:
    box.control("trouble", mode="broken", path="POST /v1/refunds")
    assert [sent_again(broken) for _ in range(3)] == ["sending"] * 3
    assert broken.keys_spent == 4
    box.control("trouble", mode="none")
    assert sent_again(broken) == "accepted"
    assert refunds_at(box) == [(10000, broken.key)]


def test_after_an_answer_that_was_lost_the_same_key_is_sent_again(
    box: Sandboxed, broken: RefundRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refund was made, and nobody heard of it: another key would make another one."""
    monkeypatch.setattr(stripe.HTTPClient, "_sleep_time_seconds", lambda *_: 0)
    box.control("trouble", mode="down", path="POST /v1/refunds")
    assert sent_again(broken) == "sending"
    assert broken.keys_spent == 1, "it is not kept, so nobody knows whether it is spent"
    box.control("trouble", mode="none")
    assert sent_again(broken) == "accepted"
    assert len(refunds_at(box)) == 1


def test_a_refund_that_was_told_while_we_looked_is_not_made_again(box: Sandboxed, broken: RefundRequest) -> None:
    RefundRequest.objects.update(status="accepted", refund_id="re_1")
    refunding.send_refund(broken)
    assert box.listed("refunds") == []


def test_of_two_who_meet_a_kept_failure_of_a_refund_one_spends_the_key(campaign: Campaign) -> None:
    asked = RefundRequest.objects.create(gift=a_confirmed_gift(campaign), amount=100)
    one, other = RefundRequest.objects.get(pk=asked.pk), RefundRequest.objects.get(pk=asked.pk)
    refunding._spend_key(one)
    refunding._spend_key(other)
    asked.refresh_from_db()
    assert asked.keys_spent == 1


@pytest.mark.postgres
def test_processes_that_send_at_once_after_a_kept_failure_make_one_refund(
    box: Sandboxed, broken: RefundRequest
) -> None:
    """Also those whose lease ran out: what they send is under one key."""
    box.control("trouble", mode="broken", calls=2, path="POST /v1/refunds")
    for _ in range(4):
        asked = [RefundRequest.objects.get(pk=broken.pk) for _ in range(4)]
        assert at_once(*[lambda one=one: refunding.send_refund(one) for one in asked]) == []  # type: ignore[misc]
    assert refunds_at(box) == [(10000, broken.key)]
    assert RefundRequest.objects.get().status == "accepted"


def test_an_address_that_grows_in_small_letters_is_refused_in_words(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    grows = "a@" + ".".join(["\u0130" * 60] * 4) + ".org"
    assert len(grows) <= 254 < len(grows.lower())
    answer = send(client, new_page(), email=grows)
    assert answer.status_code == 422
    assert "email address" in answer.content.decode()
    assert Gift.objects.count() == 0


def test_a_slow_first_press_does_not_close_the_checkout_of_the_second(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    send(client, page, tier="50000")
    first = Gift.objects.get()
    processor.answer = {"id": "cs_test_2", "object": "checkout.session", "url": "http://127.0.0.1:1/pay/cs_test_2"}
    send(client, page, tier="250000")
    second = Gift.objects.exclude(pk=first.pk).get()
    # The first request comes to its end only now.
    giving._supersede_others(first)
    second.refresh_from_db()
    assert second.superseded_at is None


# ---- the fee cover

FORMULA = "stripe=2.9%+0.30"


def test_the_server_reckons_the_fee_cover_whatever_the_browser_sends(
    client: Client, campaign: Campaign, processor: type[Answers], settings: Any
) -> None:
    settings.FEE_COVER = FORMULA
    assert send(client, new_page(), cover="on", fee_cover="1").status_code == 303
    gift = Gift.objects.get()
    assert (gift.amount, gift.fee_cover, gift.total, gift.tier) == (50000, 1524, 51524, "500.00")
    sent = processor.calls[0][2].replace("%5B", "[").replace("%5D", "]")
    assert "[unit_amount]=50000" in sent
    assert "[unit_amount]=1524" in sent


def test_ticked_or_not_is_another_attempt_and_the_same_again_is_not(
    client: Client, campaign: Campaign, processor: type[Answers], settings: Any
) -> None:
    settings.FEE_COVER = FORMULA
    page = new_page()
    for number, fields in enumerate(({}, {"cover": "on"}, {"cover": "on"})):
        processor.answer |= {"id": f"cs_test_{min(number, 1)}"}
        assert send(client, page, **fields).status_code == 303
    assert sorted(Gift.objects.values_list("fee_cover", flat=True)) == [0, 1524]
    assert len(processor.calls) == 2
    assert Gift.objects.get(fee_cover=0).superseded_at is not None


def test_who_comes_back_finds_the_box_as_they_left_it(
    client: Client, campaign: Campaign, processor: type[Answers], settings: Any
) -> None:
    settings.FEE_COVER = FORMULA
    send(client, new_page(), cover="on")
    back = (Gift.objects.get().checkout_parameters or {})["cancel_url"].removeprefix("http://testserver")
    assert 'name="cover" checked' in client.get(back).content.decode()
    assert 'name="cover" checked' not in client.get(f"{URL}?cover=on").content.decode()
    processor.status = 503
    trouble = send(client, new_page(), cover="on").content.decode()
    assert '<input type="hidden" name="cover" value="on">' in trouble
    assert 'name="cover" checked' in send(client, new_page(), cover="on", back="1").content.decode()


def test_the_box_says_its_formula_and_is_there_where_it_is_offered_alone(
    client: Client, campaign: Campaign, settings: Any
) -> None:
    for setting in (FORMULA, "stripe=2.9%+0.30 USD"):
        settings.FEE_COVER = setting
        assert "the payment service’s fee (2.9 % + 0.30 $)" in client.get(URL).content.decode()
    for setting in ("", "stripe=2.9%+0.30 EUR"):
        settings.FEE_COVER = setting
        page = client.get(URL).content.decode()
        assert 'name="cover"' not in page
        assert "cover.js" not in page


def test_a_box_that_is_gone_meanwhile_charges_nothing_that_the_reader_did_not_see(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    answer = send(client, page, cover="on")
    assert answer.status_code == 422
    assert "We no longer ask you to add the fee." in answer.content.decode()
    assert send(client, page).status_code == 303
    assert Gift.objects.get().fee_cover == 0


def test_an_amount_that_is_too_large_with_its_cover_is_refused_in_words(
    client: Client, campaign: Campaign, processor: type[Answers], settings: Any
) -> None:
    settings.FEE_COVER = FORMULA
    answer = send(client, new_page(), tier="custom", amount="999,999.99", cover="on")
    assert answer.status_code == 422
    said = answer.context["form"].errors["cover"][0]
    assert said.startswith("With the fee you would pay 1,029,866.42 $, and 999,999.99 $ is the most")
    # 970,999.69 and the fee of 29,000.30 are the most, to the cent.
    assert send(client, new_page(), tier="custom", amount="970,999.69", cover="on").status_code == 303
    assert Gift.objects.get().total == 99_999_999
    assert send(client, new_page(), tier="custom", amount="970,999.70", cover="on").status_code == 422


def test_following_costs_nothing_ticked_or_not(client: Client, campaign: Campaign, settings: Any) -> None:
    settings.FEE_COVER = FORMULA
    assert send(client, new_page(), tier="0", cover="on", email="reader@example.org").status_code == 200
    assert (Follower.objects.count(), Gift.objects.count()) == (1, 0)


def test_the_fee_is_covered_each_month_as_it_is_once(
    client: Client, monthly: Campaign, processor: type[Answers], settings: Any
) -> None:
    settings.FEE_COVER = FORMULA
    page = new_page()
    for number, fields in enumerate(({}, {"cover": "on"}, {"cover": "on"})):
        processor.answer |= {"id": f"cs_test_{min(number, 1)}"}
        assert send_monthly(client, page, **fields).status_code == 303
    plain, covered = RecurringGift.objects.order_by("fee_cover")
    assert (plain.total, covered.amount, covered.fee_cover, len(processor.calls)) == (1000, 1000, 61, 2)
    assert plain.superseded_at is not None
    fields = sent_to(processor)
    assert [fields[f"line_items[{line}][price_data][unit_amount]"] for line in (0, 1)] == ["1000", "61"]
    assert fields["line_items[1][price_data][recurring][interval]"] == "month"
    form = client.get(fields["cancel_url"].removeprefix("http://testserver")).context["form"]
    assert (form.is_monthly, form["monthly_tier"].value(), form["cover"].value()) == (True, "1000", "on")


def test_who_covers_the_fee_each_month_is_thanked_for_both_parts(client: Client, campaign: Campaign) -> None:
    recurring = make_recurring_gift(campaign, fee_cover=61)
    address = giving.thanks_url(recurring).removeprefix("http://testserver")
    assert "confirm 10.61 $ (your gift of 10 $, and 0.61 $ for the fee)" in client.get(address).text
    deliver(invoice_event(recurring), invoice_paid_event(recurring))
    inbox.drain()
    assert "first monthly gift of 10 $ has arrived, and with it 0.61 $ that you added" in client.get(address).text


def test_the_box_stands_once_below_both_choices(client: Client, monthly: Campaign, settings: Any) -> None:
    settings.FEE_COVER = FORMULA
    page = client.get(URL).text
    assert page.count('name="cover"') == 1
    assert page.index('name="monthly_amount"') < page.index('name="cover"') < page.index('name="email"')


# ---- one-time and monthly gifts of one form


def test_what_one_form_may_start_is_counted_over_both_kinds(
    client: Client, monthly: Campaign, processor: type[Answers]
) -> None:
    page = new_page()
    for number in range(giving.MOST_CHECKOUTS):
        processor.answer |= {"id": f"cs_test_{number}"}
        kind = {"frequency": "monthly", "monthly_tier": "custom"} if number % 2 else {"tier": "custom"}
        assert send(client, page, **kind, amount=str(10 + number), monthly_amount=str(10 + number)).status_code == 303
    for frequency in ("once", "monthly"):
        assert send_monthly(client, page, frequency=frequency, name="Kept name").status_code == 422
    assert len(processor.calls) == Gift.objects.count() + RecurringGift.objects.count() == giving.MOST_CHECKOUTS


@pytest.mark.parametrize(("status", "is_open"), [("incomplete", True), ("active", False), ("canceled", True)])
def test_the_form_of_a_monthly_gift_that_has_begun_is_not_come_back_to(
    campaign: Campaign, status: str, is_open: bool
) -> None:
    page = new_page()
    make_recurring_gift(campaign, page=giving.page_id_of(page), status=status)
    assert giving.is_open_page(page) is is_open


def test_who_types_nothing_each_month_is_not_led_to_a_choice_that_is_not_there(
    client: Client, monthly: Campaign
) -> None:
    answer = send_monthly(client, new_page(), monthly_tier="custom", monthly_amount="0")
    assert "without paying" not in answer.context["form"].errors["monthly_amount"][0]


# ---- the form that was shown, and what is made of it


class Earlier(TimestampSigner):
    """Signs as it was done some time ago."""

    ago = timedelta()

    def timestamp(self) -> str:
        return b62_encode(int(time.time() - self.ago.total_seconds()))


def test_a_form_may_be_sent_for_a_day(campaign: Campaign) -> None:
    signer = Earlier(salt="donations.page")
    for signer.ago, is_open in ((timedelta(hours=23, minutes=59), True), (timedelta(days=1, minutes=1), False)):
        token = signer.sign("page_1")
        assert (giving.page_id_of(token), giving.is_open_page(token)) == ("page_1" * is_open, is_open)


def intent(campaign: Campaign, page: str = "page_1", **fields: Any) -> Intent:
    plain: dict[str, Any] = {"amount": 50000, "tier": "500.00", "email": "", "name": "", "message": "", "source": ""}
    return Intent(campaign=campaign, page=page, **{**plain, "anonymous": False, **fields})


def test_every_field_that_the_reader_changes_makes_another_attempt(campaign: Campaign) -> None:
    changed = {"amount": 1, "tier": "custom", "email": "a@example.org", "name": "A", "message": "M", "fee_cover": 1}
    asked = [intent(campaign), intent(campaign, "page_2"), intent(campaign, anonymous=True)]
    asked += [intent(campaign, **{name: value}) for name, value in changed.items()]
    attempts = {one.attempt(generation) for one in asked for generation in (0, 1)}
    assert len(attempts) == 2 * len(asked)
    assert intent(campaign).attempt(0) in attempts
    # Where the reader came from is none of what was asked for.
    assert intent(campaign, source="article").attempt(0) == intent(campaign).attempt(0)


def test_what_the_reader_filled_in_is_kept_and_told_to_the_processor(
    campaign: Campaign, processor: type[Answers]
) -> None:
    said = {"name": "Ada", "message": "Go on", "source": "article", "anonymous": True}
    address = giving.start_gift(intent(campaign, email="Ada@Example.org", amount=1250, tier="custom", **said))
    gift = Gift.objects.select_related("donor").get()
    assert address == gift.checkout_url == processor.answer["url"]
    assert gift.donor is not None
    assert (gift.donor.email, gift.donor.name) == ("ada@example.org", "Ada")
    assert (gift.public_name, gift.message, gift.source, gift.anonymous) == ("Ada", "Go on", "article", True)
    assert (gift.amount, gift.tier, gift.currency, gift.fee_cover) == (1250, "custom", "USD", 0)
    assert (gift.livemode, gift.processor, gift.page, gift.checkout_id) == (False, "stripe", "page_1", "cs_test_1")
    assert gift.checkout_expires_at is not None
    left = gift.checkout_expires_at - timezone.now()
    assert timedelta(hours=22, minutes=59) < left <= timedelta(hours=23)
    assert gift.checkout_expires_at.microsecond == 0
    [(_, key, body)] = processor.calls
    sent = dict(parse_qsl(body))
    assert key == f"{gift.pk}-checkout"
    assert (sent["customer_email"], sent["success_url"]) == ("ada@example.org", giving.thanks_url(gift))
    assert sent["expires_at"] == str(int(gift.checkout_expires_at.timestamp()))
    assert sent["line_items[0][price_data][product_data][name]"] == "News"
    assert (sent["metadata[gift]"], sent["metadata[campaign]"]) == (gift.pk, "general")


def test_of_two_clicks_at_once_the_second_has_the_gift_of_the_first(
    campaign: Campaign, processor: type[Answers]
) -> None:
    # Neither has seen the other's gift when both come to keep theirs.
    asked = intent(campaign)
    first, second = (giving._add(asked, asked.attempt(0)) for _ in range(2))
    assert first == second == Gift.objects.get()


def test_who_gives_no_address_is_no_donor_and_a_name_on_file_stays(
    campaign: Campaign, processor: type[Answers]
) -> None:
    giving.start_gift(intent(campaign, name="Ada"))
    assert (Gift.objects.get().donor, Donor.objects.count()) == (None, 0)
    assert "customer_email" not in processor.calls[-1][2]
    with transaction.atomic():
        assert Donor.keep("Ada@example.org").name == ""
        assert Donor.keep("eve@example.org", "Eve").name == "Eve"
        assert Donor.keep("EVE@example.org", "Another").name == "Eve"
    assert Donor.objects.count() == 2


@pytest.mark.parametrize(
    ("currency", "fields", "query"),
    [
        ("USD", {"tier": "custom", "amount": 1250}, {"tier": "custom", "amount": "12.50"}),
        ("JPY", {"tier": "custom", "amount": 1250}, {"tier": "custom", "amount": "1250"}),
        ("USD", {"fee_cover": 1524}, {"tier": "500.00", "cover": "on"}),
        ("USD", {"monthly": True, "tier": "10.00"}, {"frequency": "monthly", "tier": "10.00"}),
        ("USD", {"source": "article-7"}, {"tier": "500.00", "source": "article-7"}),
    ],
)
def test_the_way_back_from_the_processor_leads_to_the_same_choice(
    campaign: Campaign, processor: type[Answers], currency: str, fields: dict[str, Any], query: dict[str, str]
) -> None:
    campaign.default_goal = Money(5000, currency)
    campaign.save()
    asked = intent(campaign, **fields)
    giving.start_gift(asked)
    back = urlsplit((asked.kind.objects.get().checkout_parameters or {})["cancel_url"])
    found = dict(parse_qsl(back.query))
    assert (f"{back.scheme}://{back.netloc}", back.path) == ("http://testserver", "/give/general/")
    assert giving.page_id_of(found.pop("page")) == "page_1"
    assert found == query


# ---- how long a checkout lasts, and what takes its place


def begin(asked: Intent, processor: type[Answers]) -> str:
    """Start, at a processor that gives each checkout an id of its own; the reference of what is asked for."""
    processor.answer |= {"id": f"cs_test_{len(processor.calls)}"}
    giving.start_gift(asked)
    return str(asked.kind.objects.get(attempt__isnull=False, checkout_id=processor.answer["id"]).pk)


@pytest.mark.parametrize("is_opened", [True, False])
def test_a_checkout_is_taken_up_again_only_while_there_is_time_to_pay(
    campaign: Campaign, processor: type[Answers], is_opened: bool
) -> None:
    asked = intent(campaign)
    least = timedelta(minutes=1) if is_opened else timedelta(minutes=32)
    if is_opened:
        giving.start_gift(asked)
    else:
        processor.status = 503
        with pytest.raises(ProcessorUnavailable):
            giving.start_gift(asked)
        processor.status = 200
    first = Gift.objects.get()
    Gift.objects.update(checkout_expires_at=timezone.now() + least + timedelta(seconds=20))
    giving.start_gift(asked)
    assert Gift.objects.get().checkout_id == "cs_test_1"
    Gift.objects.update(checkout_id="cs_test_1" if is_opened else None)
    Gift.objects.update(checkout_expires_at=timezone.now() + least - timedelta(seconds=1))
    processor.answer |= {"id": "cs_test_2"}
    giving.start_gift(asked)
    second = Gift.objects.exclude(pk=first.pk).get()
    assert (second.checkout_id, second.superseded_at) == ("cs_test_2", None)
    # Nor is one taken up whose end nobody knows.
    Gift.objects.update(checkout_expires_at=None)
    processor.answer |= {"id": "cs_test_3"}
    giving.start_gift(asked)
    assert Gift.objects.count() == 3


@pytest.mark.parametrize(
    ("status", "led_to"),
    [("pending", "checkout"), ("awaiting", "thanks"), ("confirmed", "thanks"), ("expired", "anew"), ("failed", "anew")],
)
def test_where_a_form_that_is_sent_again_leads_is_decided_by_what_became_of_its_gift(
    campaign: Campaign, processor: type[Answers], status: str, led_to: str
) -> None:
    first = Gift.objects.get(pk=begin(intent(campaign), processor))
    GiftState.objects.create(gift=first, campaign=campaign, status=status, livemode=False, currency="USD", tier="")
    processor.answer |= {"id": "cs_test_anew", "url": "http://127.0.0.1:1/pay/anew"}
    address = giving.start_gift(intent(campaign))
    ways = {"checkout": first.checkout_url, "thanks": giving.thanks_url(first), "anew": processor.answer["url"]}
    assert (address, Gift.objects.count()) == (ways[led_to], 2 if led_to == "anew" else 1)


@pytest.mark.slow
def test_one_attempt_begins_anew_so_often_and_no_more(campaign: Campaign, processor: type[Answers]) -> None:
    for _ in range(giving.MOST_CHECKOUTS):
        begin(intent(campaign), processor)
        Gift.objects.update(superseded_at=timezone.now())
    with pytest.raises(PageUsedUp):
        giving.start_gift(intent(campaign))
    # Nor does another one of the same form, while one of another form does.
    with pytest.raises(PageUsedUp):
        giving.start_gift(intent(campaign, monthly=True))
    assert len(processor.calls) == giving.MOST_CHECKOUTS
    begin(intent(campaign, "page_2"), processor)


def test_a_checkout_takes_the_place_of_those_of_its_own_form_and_once(
    campaign: Campaign, processor: type[Answers]
) -> None:
    elsewhere = begin(intent(campaign, "page_2"), processor)
    first = begin(intent(campaign), processor)
    second = begin(intent(campaign, monthly=True), processor)
    when = Gift.objects.get(pk=first).superseded_at
    assert when is not None
    third = begin(intent(campaign, amount=60000), processor)
    superseded = dict(Gift.objects.values_list("pk", "superseded_at"))
    assert superseded == {elsewhere: None, first: when, third: None}
    assert RecurringGift.objects.get(pk=second).superseded_at is not None


def superseded(campaign: Campaign, number: int) -> list[Gift]:
    """Gifts whose open checkouts others took the place of."""
    common = {"campaign": campaign, "tier": "custom", "currency": "USD", "amount": 100, "livemode": False}
    return [
        Gift.objects.create(
            **common,
            processor="stripe",
            checkout_id=f"cs_test_{place}",
            checkout_url="http://127.0.0.1:1/pay",
            superseded_at=timezone.now(),
        )
        for place in range(number)
    ]


def test_so_many_checkouts_are_closed_at_a_time_of_each_kind(campaign: Campaign, processor: type[Answers]) -> None:
    superseded(campaign, 23)
    make_recurring_gift(
        campaign, checkout_id="cs_test_monthly", checkout_url="http://127.0.0.1:1/pay", superseded_at=timezone.now()
    )
    assert [giving.close_superseded(limit=2), giving.close_superseded()] == [3, 20]
    assert [giving.close_superseded(), giving.close_superseded()] == [1, 0]
    assert len({path for path, _, _ in processor.calls}) == 24


def test_a_checkout_that_was_over_is_logged_and_not_asked_for_again(
    campaign: Campaign, processor: type[Answers], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "donations.giving")
    [gift] = superseded(campaign, 1)
    processor.status = 400
    processor.answer = {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "no"}}
    assert [giving.close_superseded(), giving.close_superseded()] == [1, 0]
    assert f"checkout of {gift.pk} was over already: resource_missing" in caplog.messages


def test_while_the_processor_is_away_closing_waits_for_it(campaign: Campaign, processor: type[Answers]) -> None:
    superseded(campaign, 2)
    processor.status = 503
    assert giving.close_superseded() == 2
    assert len({path for path, _, _ in processor.calls}) == 1
    processor.status = 200
    assert [giving.close_superseded(), giving.close_superseded()] == [2, 0]


# ---- a processor that says no, or nothing


def test_why_a_checkout_was_not_opened_is_logged_and_forgotten_once_it_is(
    campaign: Campaign, processor: type[Answers], caplog: pytest.LogCaptureFixture
) -> None:
    processor.status, opened = 400, processor.answer
    processor.answer = {"error": {"type": "invalid_request_error", "code": "email_invalid", "message": "no"}}
    with pytest.raises(ProcessorRefused):
        giving.start_gift(intent(campaign))
    gift = Gift.objects.get()
    assert gift.refusal.startswith("email_invalid: The payment service does not accept this email address.")
    processor.answer = {"error": {"type": "invalid_request_error", "code": "x" * 400, "message": "no"}}
    with pytest.raises(ProcessorRefused):
        giving.start_gift(intent(campaign))
    assert Gift.objects.get().refusal == "x" * 300
    processor.status = 503
    with pytest.raises(ProcessorUnavailable):
        giving.start_gift(intent(campaign))
    # Each time the log says which, and why.
    refused, _, away = [text for text in caplog.messages if gift.pk in text]
    assert refused == f"checkout of {gift.pk} refused: email_invalid"
    assert away.startswith(f"checkout of {gift.pk} not opened: APIError")
    processor.status, processor.answer = 200, opened
    giving.start_gift(intent(campaign))
    assert (Gift.objects.get().refusal, Gift.objects.get().checkout_id) == ("", "cs_test_1")


def test_a_failure_that_the_processor_keeps_is_left_behind_with_its_key(campaign: Campaign, box: Sandboxed) -> None:
    page = new_page()
    box.control("trouble", mode="broken", calls=1)
    first = send(Client(), page)
    gift = Gift.objects.get()
    assert (first.status_code, gift.checkout_keys_spent, box.listed("checkout/sessions")) == (503, 0, [])
    # The same key is answered by the same failure from here on.
    second, third = send(Client(), page), send(Client(), page)
    [session] = box.listed("checkout/sessions")
    gift = Gift.objects.get()
    assert [second.status_code, third.status_code] == [303, 303]
    assert second.headers["Location"] == third.headers["Location"] == session["url"]
    assert (gift.checkout_keys_spent, gift.checkout_id) == (1, session["id"])


def test_whoever_waited_as_long_as_a_reader_may_is_told_so_and_the_retry_has_the_same_key(
    campaign: Campaign, processor: type[Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "LONGEST_OPENING", 0.2)
    processor.takes, began = 1.0, time.monotonic()
    with pytest.raises(ProcessorUnavailable):
        giving.start_gift(intent(campaign))
    assert time.monotonic() - began < 0.8
    processor.takes = 0
    giving.start_gift(intent(campaign))
    assert [key for _, key, _ in processor.calls] == [f"{Gift.objects.get().pk}-checkout"] * 2


def test_of_two_who_meet_a_kept_failure_one_spends_the_key(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    one, other = Gift.objects.get(pk=gift.pk), Gift.objects.get(pk=gift.pk)
    giving._spend_key(one)
    giving._spend_key(other)
    assert [one.checkout_keys_spent, other.checkout_keys_spent] == [1, 1]
    giving._spend_key(one)
    assert Gift.objects.get(pk=gift.pk).checkout_keys_spent == 2


def test_the_email_is_sent_to_the_processor_and_saved_with_the_donor_alone(
    client: Client, campaign: Campaign, processor: type[Answers]
) -> None:
    send(client, new_page(), email="reader@example.org")
    [(_, _, body)] = processor.calls
    gift = Gift.objects.get()
    assert "customer_email=reader%40example.org" in body
    assert gift.donor is not None
    assert gift.donor.email == "reader@example.org"
    assert "reader@example.org" not in json.dumps(gift.checkout_parameters)


def test_an_upgrade_takes_emails_out_of_what_was_saved(campaign: Campaign) -> None:
    saved = {"mode": "payment", "customer_email": "reader@example.org"}
    gift, plain = make_gift(campaign, checkout_parameters=saved), make_gift(campaign)
    monthly = make_recurring_gift(campaign, checkout_parameters=saved)

    def execute(statement: str, params: None) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, params)

    upgrade = import_module("donations.migrations.0013_keys_that_are_spent").forget_emails
    upgrade(apps, SimpleNamespace(connection=connection, execute=execute))
    for asked in (gift, plain, monthly):
        asked.refresh_from_db()
    assert [gift.checkout_parameters, plain.checkout_parameters] == [{"mode": "payment"}, None]
    assert monthly.checkout_parameters == {"mode": "payment"}


@pytest.mark.slow
def test_who_waits_in_vain_for_the_first_of_two_clicks_is_told_so(
    campaign: Campaign, processor: type[Answers], caplog: pytest.LogCaptureFixture
) -> None:
    processor.status, began = 409, time.monotonic()
    with pytest.raises(ProcessorUnavailable):
        giving.start_gift(intent(campaign))
    assert giving.LONGEST_OPENING <= time.monotonic() - began < 4
    gift = Gift.objects.get()
    assert (gift.checkout_id, gift.checkout_url) == (None, "")
    assert any(text.startswith(f"checkout of {gift.pk} not opened") for text in caplog.messages)


# ---- addresses that we made


def test_what_an_address_stands_for_is_read_at_once_with_what_its_page_shows(
    campaign: Campaign, django_assert_num_queries: Any
) -> None:
    gift, recurring = a_confirmed_gift(campaign), make_recurring_gift(campaign)
    a_confirmed_gift(campaign)
    donor = Donor.objects.create(email="reader@example.org")
    follower = Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
    manage = Signer(salt="donations.manage").sign(recurring.pk)
    follow = Signer(salt="donations.follow").sign(follower.pk)
    thanks = {asked.pk: Signer(salt="donations.thanks").sign(asked.pk) for asked in (gift, recurring)}
    with django_assert_num_queries(4):
        thanked = giving.asked_of_thanks(thanks[gift.pk])
        assert isinstance(thanked, Gift)
        assert (thanked.pk, thanked.campaign.name, thanked.state.charged) == (gift.pk, "News", 50000)
        found = [giving.asked_of_thanks(thanks[recurring.pk]), giving.recurring_of(manage), giving.follower_of(follow)]
        assert found == [recurring, recurring, follower]
        assert {one.campaign.name for one in found if one} == {"News"}
    assert giving.asked_of_thanks(manage) is giving.recurring_of(follow) is giving.follower_of(manage) is None


# ---- following


def test_a_link_is_mailed_again_after_a_while_and_not_without_end(campaign: Campaign) -> None:
    def ask(email: str = "reader@example.org", name: str = "Ada", source: str = "article") -> None:
        giving.follow(campaign=campaign, email=email, name=name, source=source, page="")

    def mailed() -> list[int]:
        return sorted(
            OutboxMessage.objects.filter(kind="follow", subject_id=follower.pk).values_list("round", flat=True)
        )

    ask()
    follower = Follower.objects.select_related("donor").get()
    assert (follower.donor.name, follower.source, mailed()) == ("Ada", "article", [0])
    for number in range(1, giving.MOST_CONFIRMATION_MAILS):
        for more, rounds in ((20, number), (-1, number + 1)):
            asked_at = timezone.now() - giving.ASK_AGAIN_AFTER + timedelta(seconds=more)
            OutboxMessage.objects.update(created_at=asked_at)
            # What others were just sent, or this one for another reason, is no reason to wait.
            ask(f"another{number}{rounds}@example.org")
            outbox.enqueue("receipt", [str(follower.pk)], round=rounds)
            ask(name="Eve", source="another")
            assert mailed() == list(range(rounds))
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(days=1))
    ask()
    assert mailed() == list(range(giving.MOST_CONFIRMATION_MAILS))
    follower = Follower.objects.select_related("donor").get(pk=follower.pk)
    assert (follower.donor.name, follower.source) == ("Ada", "article")

"""The webhook's front door: what is stored, what is refused, and what happens while the database is away."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client

from donations import inbox, processors
from donations.models import InboxEvent, LedgerEntry
from donations.views.webhooks import LARGEST_BODY
from tests.factories import body_of, checkout_event, event, make_campaign, make_gift, numbers, signature_of

URL = "/webhooks/stripe/"
LONGEST_ID = "evt_" + "a" * 200
pytestmark = pytest.mark.django_db


def send(client: Client, body: bytes, signature: str | None = "", **headers: Any) -> int:
    """Post a delivery, signed unless told otherwise; the answer's status."""
    if signature is not None:
        headers["HTTP_STRIPE_SIGNATURE"] = signature or signature_of(body)
    return int(client.generic("POST", URL, body, content_type="application/json", **headers).status_code)


def some_body(**fields: Any) -> bytes:
    """An event of a type that needs nothing; `fields` replace its own."""
    return body_of(event("customer.created", {"id": f"cus_{next(numbers)}"}) | fields)


def assert_refused(client: Client, body: bytes, signature: str | None = "", status: int = 400) -> None:
    assert send(client, body, signature) == status
    assert InboxEvent.objects.count() == 0


def state_of(body: bytes) -> str:
    """What became of the one event that was sent as these bytes."""
    inbox.drain()
    row = InboxEvent.objects.get()
    assert bytes(row.body or b"") == body
    return str(row.state)


# ---- what is stored


def test_a_signed_event_is_stored_byte_for_byte(client: Client) -> None:
    body = b' \n{"id": "evt_1",\t"type":"a.b" , "id":"evt_2", "caf\xc3\xa9": "\\u00e9", "n": 1.50}\r\n'
    assert send(client, body) == 200
    row = InboxEvent.objects.get()
    assert (row.processor, row.event_id, row.type, row.origin, row.state) == (
        "stripe",
        "evt_2",
        "a.b",
        "delivery",
        "ready",
    )
    assert bytes(row.body or b"") == body


def test_an_endpoint_that_was_typed_without_the_last_slash_is_the_same(client: Client) -> None:
    body = some_body()
    headers = {"HTTP_STRIPE_SIGNATURE": signature_of(body)}
    answer = client.generic("POST", URL.removesuffix("/"), body, content_type="application/json", **headers)
    assert (answer.status_code, InboxEvent.objects.count()) == (200, 1)


def test_an_event_that_comes_twice_is_one_row_and_is_answered_the_same(client: Client) -> None:
    body = some_body()
    assert [send(client, body) for _ in range(3)] == [200, 200, 200]
    assert InboxEvent.objects.count() == 1


def test_the_first_body_of_an_event_stands(client: Client) -> None:
    first = some_body()
    assert send(client, first) == 200
    assert send(client, some_body(id=json.loads(first)["id"], type="other")) == 200
    assert bytes(InboxEvent.objects.get().body or b"") == first


@pytest.mark.parametrize("kind", ["customer.created", "charge.captured", "price.created", "payment_intent.succeeded"])
def test_an_event_of_another_type_is_kept_and_needs_nothing(client: Client, kind: str) -> None:
    body = some_body(type=kind)
    assert send(client, body) == 200
    assert state_of(body) == "nothing"
    assert InboxEvent.objects.get().type == kind


@pytest.mark.parametrize("kind", ["", "x" * 101, "a\x00b", "\ud800", "Zahlung für Ü", "a b", "' OR 1=1"])
def test_a_type_of_odd_characters_is_kept_under_another_name(client: Client, kind: str) -> None:
    body = some_body(type=kind)
    assert send(client, body) == 200
    assert state_of(body) == "nothing"
    assert InboxEvent.objects.get().type == "unrecognised"


@pytest.mark.parametrize("event_id", ["evt_1", LONGEST_ID, "evt_A_z_0"])
def test_ids_of_the_processors_form_are_taken(client: Client, event_id: str) -> None:
    assert send(client, some_body(id=event_id)) == 200
    assert InboxEvent.objects.get().event_id == event_id


def test_the_largest_body_is_taken_and_one_byte_more_is_not(client: Client) -> None:
    body = some_body()
    assert_refused(client, body + b" " * (LARGEST_BODY - len(body) + 1), status=413)
    assert send(client, body + b" " * (LARGEST_BODY - len(body))) == 200


def test_either_secret_is_taken_while_one_replaces_the_other(client: Client, secrets: list[str]) -> None:
    for secret in secrets:
        body = some_body()
        assert send(client, body, signature_of(body, secret=secret)) == 200
    assert InboxEvent.objects.count() == 2


@pytest.fixture
def secrets(settings: Any) -> Iterator[list[str]]:
    settings.STRIPE_WEBHOOK_SECRETS = ["whsec_new", "whsec_old"]
    processors.get.cache_clear()
    yield settings.STRIPE_WEBHOOK_SECRETS
    processors.get.cache_clear()


# ---- who signed it


def test_a_secret_that_is_not_ours_any_more_is_refused(client: Client, secrets: list[str]) -> None:
    body = some_body()
    assert_refused(client, body, signature_of(body, secret="whsec_tests"))


def test_a_delivery_without_a_signature_is_refused(client: Client) -> None:
    assert_refused(client, some_body(), None)


def test_a_body_that_was_changed_on_its_way_is_refused(client: Client) -> None:
    body = some_body()
    assert_refused(client, body.replace(b"false", b"true "), signature_of(body))


MALFORMED = [
    "SIGNED",
    "t=NOW",
    "v1=SIGNED",
    "t=NOW,v0=SIGNED",
    "t=NOW,v1=",
    "t=NOW,v1",
    "t,v1=SIGNED",
    "t=,v1=SIGNED",
    "t=soon,v1=SIGNED",
    "t=NOW.0,v1=SIGNED",
    "t=-NOW,v1=SIGNED",
    "t=NOW;v1=SIGNED",
    "t=NOW=NOW,v1=SIGNED",
    "t=NOW,t=NOW,v1=SIGNED",
    "t=NOW,t=1,v1=SIGNED",
    "t=1,t=NOW,v1=SIGNED",
    "t=+NOW,v1=SIGNED",
    "t= NOW,v1=SIGNED",
    ",,,=,==,",
    "t=NOW,v1=" + "0" * 64,
    "t=NOW,v1=SIGNEDé",
    "t=NOW,v1=☃",
    "t=٣,v1=SIGNED",
    "t=" + "9" * 5000 + ",v1=SIGNED",
    "t=NOW,v1=SIGNED" + ",v1=0" * 1000,
    " ",
]


@pytest.mark.parametrize("header", MALFORMED)
def test_a_signature_of_another_form_is_refused(client: Client, header: str) -> None:
    body = some_body()
    moment, _, signed = signature_of(body).removeprefix("t=").partition(",v1=")
    assert_refused(client, body, header.replace("NOW", moment).replace("SIGNED", signed))


def test_a_further_signature_in_the_header_does_no_harm(client: Client) -> None:
    body = some_body()
    moment, signed = signature_of(body).split(",")
    assert send(client, body, f"{moment},v1={'0' * 64},{signed},v0=abc") == 200


@pytest.mark.parametrize("seconds", [-100_000_000, -3600, -310, 310, 3600, 100_000_000])
def test_a_delivery_signed_at_another_time_is_refused(client: Client, seconds: int) -> None:
    body = some_body()
    assert_refused(client, body, signature_of(body, at=time.time() + seconds))


@pytest.mark.parametrize("seconds", [-290, 290])
def test_a_clock_that_is_a_little_wrong_is_no_reason_to_refuse(client: Client, seconds: int) -> None:
    body = some_body()
    assert send(client, body, signature_of(body, at=time.time() + seconds)) == 200


@pytest.mark.parametrize("header", ["t=+LATER,t=NOW,v1=SIGNED", "t= LATER,t=NOW,v1=SIGNED", "t=NOW,t=LATER,v1=SIGNED"])
def test_a_second_time_in_the_header_does_not_hide_one_in_the_future(client: Client, header: str) -> None:
    body, now = some_body(), int(time.time())
    signed = signature_of(body, at=now + 100_000).partition("v1=")[2]
    written = header.replace("NOW", str(now)).replace("LATER", str(now + 100_000)).replace("SIGNED", signed)
    assert_refused(client, body, written)


# ---- what is no event

NOT_EVENTS = [
    b"",
    b" ",
    b"null",
    b"true",
    b"1",
    b'"evt_1"',
    b"[]",
    b'[{"id": "evt_1", "type": "a"}]',
    b"{}",
    b"{",
    b'{"id": "evt_1", "type": "a"}{}',
    b'{"id": "evt_1", "type": "a",}',
    b"id=evt_1&type=a",
    b"\xff\xfe\x00",
    b'{"id": "evt_1", "type": "a", "x": "\xed\xa0\x80"}',
    '{"id": "evt_1", "type": "a"}'.encode("utf-16"),
    b"[" * 100_000,
    b'{"a":' * 40_000,
    b'{"id": "evt_1", "type": "a", "x": ' + b"[" * 60_000 + b"]" * 60_000 + b"}",
]


@pytest.mark.parametrize("body", NOT_EVENTS, ids=lambda body: str(body[:30]))
def test_a_signed_body_that_is_no_event_is_refused(client: Client, body: bytes) -> None:
    assert_refused(client, body)


@pytest.mark.parametrize(
    "event_id",
    [
        None,
        1,
        True,
        [],
        {},
        ["evt_1"],
        "",
        "evt_",
        "evt",
        "EVT_1",
        "cs_1",
        " evt_1",
        "evt_1\n",
        "evt_1 ",
        "evt_é",
        "evt_1\x00",
        "evt_\ud800",
        "evt_٣",
        "evt_1-2",
        "evt_1';--",
        LONGEST_ID + "a",
    ],
)
def test_an_id_of_another_form_is_refused(client: Client, event_id: object) -> None:
    assert_refused(client, some_body(id=event_id))


@pytest.mark.parametrize("kind", [None, 1, 1.5, False, [], {}, ["checkout.session.completed"]])
def test_a_type_that_is_no_text_is_refused(client: Client, kind: object) -> None:
    assert_refused(client, some_body(type=kind))


def test_an_event_without_id_or_type_is_refused(client: Client) -> None:
    for name in ("id", "type"):
        told = json.loads(some_body())
        del told[name]
        assert_refused(client, body_of(told))


# ---- what is signed, and odd


ODD = [r'"\u0000"', r'"\ud800"', "NaN", "-Infinity", "1e400", "9" * 4000, "-" + "9" * 5000]


@pytest.mark.parametrize("odd", [*ODD, r'"\udfff\ud800"', "9" * 60_000], ids=lambda odd: odd[:20])
def test_odd_values_break_nothing_wherever_they_stand(client: Client, odd: str) -> None:
    gift = make_gift(make_campaign())
    told = checkout_event(gift)
    told["data"]["object"]["customer_details"] = {"email": "ODD", "name": "ODD"}
    told["data"]["object"]["metadata"]["more"] = told["more"] = "ODD"
    body = body_of(told).replace(b'"ODD"', odd.encode())
    assert send(client, body) == 200
    assert state_of(body) == "processed"
    assert LedgerEntry.objects.get().amount == 50000


@pytest.mark.parametrize("odd", [*ODD, "[]", "{}", "null"], ids=lambda odd: odd[:20])
@pytest.mark.parametrize(
    "name", ["id", "amount_total", "currency", "payment_status", "payment_intent", "created", "livemode"]
)
def test_an_odd_value_in_a_field_that_matters_is_quarantined(client: Client, name: str, odd: str) -> None:
    told = checkout_event(make_gift(make_campaign()))
    holder = told if name in {"created", "livemode"} else told["data"]["object"]
    holder[name] = "ODD"
    body = body_of(told).replace(b'"ODD"', odd.encode())
    assert send(client, body) == 200
    assert state_of(body) == "quarantined"
    assert InboxEvent.objects.get().reason.startswith("it is not as its type promises")
    assert LedgerEntry.objects.count() == 0


@pytest.mark.parametrize("gift", ["gift_", "gift_\x00", "gift_\ud800", "", "gift_" + "a" * 65, 5, None, ["gift_1"], {}])
def test_a_reference_that_cannot_be_ours_is_foreign(client: Client, gift: object) -> None:
    body = body_of(checkout_event(make_gift(make_campaign()), metadata={"gift": gift}))
    assert send(client, body) == 200
    assert state_of(body) == "foreign"


# ---- how it is sent


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_not_allowed(client: Client, method: str) -> None:
    body = some_body()
    answer = client.generic(method, URL, body, HTTP_STRIPE_SIGNATURE=signature_of(body))
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert InboxEvent.objects.count() == 0


@pytest.mark.parametrize("length", [str(LARGEST_BODY + 1), "99999999999", "9" * 30, "-1", "١"])
def test_a_length_that_is_too_large_or_none_is_refused_unread(client: Client, length: str) -> None:
    body = some_body()
    assert send(client, body, CONTENT_LENGTH=length) == 413
    assert InboxEvent.objects.count() == 0


@pytest.mark.parametrize("length", ["", "0", "10"])
def test_a_length_that_is_too_small_gets_nothing_in(client: Client, length: str) -> None:
    body = some_body()
    assert send(client, body, CONTENT_LENGTH=length) == 400
    assert InboxEvent.objects.count() == 0


def chunked(body: bytes) -> dict[str, Any]:
    """What a server hands on of a body that came in chunks: no length, and a stream that ends with it."""
    return {"CONTENT_LENGTH": "", "wsgi.input": BytesIO(body), "wsgi.input_terminated": True}


def test_a_delivery_that_comes_in_chunks_is_stored(client: Client) -> None:
    body = some_body()
    assert send(client, body, **chunked(body)) == 200
    assert bytes(InboxEvent.objects.get().body or b"") == body


def test_chunks_are_read_up_to_the_limit_and_no_further(client: Client) -> None:
    body = some_body()
    largest, larger = (body + b" " * (size - len(body)) for size in (LARGEST_BODY, LARGEST_BODY + 100))
    headers = chunked(larger)
    assert send(client, larger, **headers) == 413
    assert len(headers["wsgi.input"].read()) == 99
    assert InboxEvent.objects.count() == 0
    assert send(client, largest, **chunked(largest)) == 200


def test_chunks_that_break_off_get_nothing_in(client: Client) -> None:
    body = some_body()
    assert send(client, body, **chunked(body[:-1])) == 400
    assert InboxEvent.objects.count() == 0


def test_the_answer_needs_no_cookie_and_no_token_of_ours(client: Client) -> None:
    strict = Client(enforce_csrf_checks=True)
    body = some_body()
    answer = strict.generic(
        "POST", URL, body, HTTP_STRIPE_SIGNATURE=signature_of(body), HTTP_ORIGIN="https://a.example"
    )
    assert (answer.status_code, answer.content, answer.cookies) == (200, b"", {})


def test_a_delivery_passes_nothing_that_is_there_for_pages(client: Client, django_assert_num_queries: Any) -> None:
    client.cookies["sessionid"] = "of-nobody"
    body = some_body()
    for signature, status in (signature_of(body), 200), ("t=1,v1=0", 400):
        with django_assert_num_queries(1 if status == 200 else 0):
            answer = client.generic("POST", URL, body, HTTP_STRIPE_SIGNATURE=signature)
        assert answer.status_code == status
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not {"X-Frame-Options", "Vary", "Set-Cookie"} & set(answer.headers)


# ---- the database is away


@contextmanager
def table_away() -> Iterator[None]:
    """The inbox cannot be written to for as long as the block lasts."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE donations_inboxevent RENAME TO away")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO donations_inboxevent")


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_stored_is_asked_for_again(client: Client) -> None:
    body = some_body()
    with table_away():
        assert send(client, body) == 503
        assert send(client, body, "t=1,v1=0") == 400
    assert send(client, body) == 200
    assert InboxEvent.objects.count() == 1


@contextmanager
def beside_the_database() -> Iterator[psycopg.Connection]:
    """Another connection to the same server, to another database."""
    parameters = connection.get_connection_params()
    names = {name: parameters[name] for name in ("host", "port", "user", "password")}
    with psycopg.connect(**names, dbname="postgres", autocommit=True) as other:
        yield other


def end_our_connection(other: psycopg.Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_connection_that_died_is_made_anew_once(client: Client) -> None:
    body = some_body()
    with beside_the_database() as other:
        end_our_connection(other)
    assert send(client, body) == 200
    assert InboxEvent.objects.count() == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_database_that_takes_no_connections_is_a_503_until_it_does(client: Client) -> None:
    body = some_body()
    name = connection.settings_dict["NAME"]
    with beside_the_database() as other:
        end_our_connection(other)
        other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            assert send(client, body) == 503
        finally:
            other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert send(client, body) == 200
    assert InboxEvent.objects.count() == 1

"""The outbox: one mail for each thing that is to be said, at most once, and nobody's address in the logs."""

import logging
import socketserver
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import import_module
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.core import mail
from django.db import connection, transaction
from django.utils import timezone

from donations import inbox, outbox
from donations.models import Campaign, Donor, Follower, Gift, OutboxMessage
from tests.factories import checkout_event, confirm, deliver, make_campaign, make_gift, refund_event
from tests.services import free_port

pytestmark = pytest.mark.django_db
READER = "reader@example.org"


# ---- a mail server


class MailServer(socketserver.ThreadingTCPServer):
    """Takes mail and remembers it. `refuses` is the word that it answers with an error, which begins with `code`;
    `hangs_up_after` a word that it does not answer at all."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MailConversation)
        self.mails: list[str] = []
        self.greeting = "220 here"
        self.refuses = ""
        self.code = "550"
        self.hangs_up_after = ""


class MailConversation(socketserver.StreamRequestHandler):
    """As much of the mail protocol as one message needs."""

    server: MailServer

    def handle(self) -> None:
        self.say(self.server.greeting)
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            if word == "DATA":
                self.say("354 go on")
                self.server.mails.append(self.text())
            if word == self.server.hangs_up_after:
                return
            if word == self.server.refuses:
                self.say(f"{self.server.code} no such person: {line}")
            else:
                self.say("250-here\r\n250 AUTH PLAIN" if word == "EHLO" else "250 fine")

    def text(self) -> str:
        lines = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line.decode())
        return "".join(lines)

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@pytest.fixture
def server(settings: Any) -> Iterator[MailServer]:
    """Real mail over a real socket."""
    server = MailServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    send_mail_to(settings, server.server_address[1])
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def send_mail_to(settings: Any, port: int) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""


# ---- what is to be sent


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


@pytest.fixture
def receipt(campaign: Campaign) -> OutboxMessage:
    """The receipt of a gift that was paid, queued."""
    confirm(make_gift(campaign))
    return OutboxMessage.objects.get()


def settled(message: OutboxMessage) -> tuple[str, int]:
    """Send what is due; the message's state and how often it was tried in vain."""
    outbox.send_due()
    message.refresh_from_db()
    return message.state, message.attempts


def let_pass(minutes: float) -> None:
    for message in OutboxMessage.objects.all():
        message.next_try_at -= timedelta(minutes=minutes)
        message.save(update_fields=["next_try_at"])


# ---- receipts


def test_a_paid_gift_gets_one_receipt_however_often_it_is_told(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    for _ in range(2):
        confirm(gift)
        confirm(gift, kind="checkout.session.async_payment_succeeded")
        outbox.send_due()
    deliver(refund_event(gift, 20000))
    inbox.drain()
    outbox.enqueue("receipt", [gift.pk])
    outbox.send_due()
    assert len(mail.outbox) == 1
    assert OutboxMessage.objects.get().state == "sent"
    assert OutboxMessage.objects.get().sent_at is not None


def test_a_receipt_says_what_was_paid_for_what_and_when(campaign: Campaign) -> None:
    gift = make_gift(campaign, 50000, fee_cover=1550)
    confirm(gift)
    outbox.send_due()
    (sent,) = mail.outbox
    assert (sent.to, sent.cc, sent.bcc) == ([READER], [], [])
    assert sent.from_email == django_settings.DEFAULT_FROM_EMAIL
    for words in ("515.50 $", "Newsroom", "18 November 2024", gift.pk):
        assert words in sent.body
    assert "your gift of 500 $,\nand 15.50 $ that you added for the payment service's fee." in sent.body


def test_a_receipt_of_a_gift_without_a_fee_cover_does_not_speak_of_one(receipt: OutboxMessage) -> None:
    outbox.send_due()
    assert "We received your gift of 500 $ to “Newsroom” on 18 November 2024." in mail.outbox[0].body
    assert "fee" not in mail.outbox[0].body


def test_in_test_mode_a_mail_says_that_no_money_has_moved(receipt: OutboxMessage) -> None:
    outbox.send_due()
    assert mail.outbox[0].subject.startswith("[test] ")
    assert "This is a test: no money has moved." in mail.outbox[0].body


def test_in_live_mode_a_mail_does_not_speak_of_tests(receipt: OutboxMessage, go_live: Callable[[], None]) -> None:
    go_live()
    outbox.send_due()
    assert "test" not in (mail.outbox[0].subject + mail.outbox[0].body).replace("testserver", "").lower()


@pytest.mark.parametrize("details", [None, {"email": None}, {"email": ""}, {"email": "nobody"}])
def test_a_gift_without_an_address_gets_no_receipt(campaign: Campaign, details: Any) -> None:
    confirm(make_gift(campaign), customer_details=details)
    assert outbox.send_due() == 0
    assert (OutboxMessage.objects.count(), mail.outbox) == (0, [])


def test_a_donor_who_was_erased_meanwhile_gets_none_and_staff_see_why(receipt: OutboxMessage) -> None:
    Donor.objects.all().delete()
    assert settled(receipt) == ("unneeded", 0)
    assert (receipt.last_error, mail.outbox) == ("there is no address to send it to", [])


@pytest.mark.parametrize("fields", [{"paid": False}, {"kind": "checkout.session.expired"}, {"amount_total": 1}])
def test_a_gift_that_was_not_paid_as_asked_gets_no_receipt(campaign: Campaign, fields: dict[str, Any]) -> None:
    confirm(make_gift(campaign), **fields)
    assert (outbox.send_due(), mail.outbox) == (0, [])


def test_a_name_of_a_campaign_with_line_breaks_cannot_add_a_header(campaign: Campaign, settings: Any) -> None:
    settings.SITE_NAME = "News & <Views>"
    Campaign.objects.update(name="News\r\nBcc: all@example.org")
    confirm(make_gift(campaign))
    outbox.send_due()
    assert mail.outbox[0].recipients() == [READER]
    assert mail.outbox[0].subject.endswith("News & <Views>")
    assert "Bcc" not in mail.outbox[0].message()


@pytest.mark.django_db(transaction=True)
def test_nothing_is_queued_by_a_booking_that_is_taken_back() -> None:
    deliver(checkout_event(make_gift(make_campaign())))
    with transaction.atomic():
        inbox.drain()
        assert OutboxMessage.objects.count() == 1
        transaction.set_rollback(True)
    assert outbox.send_due() == 0
    inbox.drain()
    assert outbox.send_due() == 1
    assert len(mail.outbox) == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_no_mail_leaves_before_its_booking_is_committed() -> None:
    deliver(checkout_event(make_gift(make_campaign())))
    booked, looked = threading.Event(), threading.Event()
    seen: list[int] = []

    def look() -> None:
        booked.wait(10)
        seen.append(outbox.send_due())
        connection.close()
        looked.set()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    with transaction.atomic():
        inbox.drain()
        booked.set()
        assert looked.wait(10)
    thread.join(10)
    assert (seen, mail.outbox) == ([0], [])
    assert (outbox.send_due(), len(mail.outbox)) == (1, 1)


# ---- a flood of strangers' addresses


@pytest.mark.slow
def test_a_flood_of_follow_mails_is_measured_by_the_hour_and_makes_no_receipt_wait(campaign: Campaign) -> None:
    most = outbox.MOST_FOLLOW_MAILS_AN_HOUR
    for number in range(most + 5):
        follower = Follower.objects.create(
            donor=Donor.objects.create(email=f"reader{number}@example.org"), campaign=campaign, livemode=False
        )
        outbox.enqueue("follow", [str(follower.pk)])
    confirm(make_gift(campaign))
    outbox.send_due(limit=1)
    assert list(OutboxMessage.objects.filter(state="sent").values_list("kind", flat=True)) == ["receipt"]
    assert outbox.send_due(limit=2 * most) == most
    assert outbox.send_due() == 0
    assert OutboxMessage.objects.filter(kind="follow", state="queued").count() == 5
    OutboxMessage.objects.filter(state="sent").update(next_try_at=timezone.now() - timedelta(minutes=61))
    assert outbox.send_due() == 5


# ---- sending, and what goes wrong


def test_a_mail_goes_out_over_a_real_connection(receipt: OutboxMessage, server: MailServer) -> None:
    assert settled(receipt) == ("sent", 0)
    (text,) = server.mails
    assert f"To: {READER}" in text


def test_a_send_that_a_crash_cut_off_is_unsure_and_never_sent_again(receipt: OutboxMessage) -> None:
    OutboxMessage.objects.update(state="sending", next_try_at=timezone.now())
    let_pass(4.9)
    assert settled(receipt) == ("sending", 0)
    let_pass(0.2)
    for _ in range(3):
        assert settled(receipt) == ("unsure", 0)
        let_pass(60 * 24)
    outbox.enqueue("receipt", [receipt.subject_id])
    assert (outbox.send_due(), mail.outbox) == (0, [])


def test_a_person_can_have_an_unsure_mail_sent_once_more(receipt: OutboxMessage) -> None:
    OutboxMessage.objects.update(state="unsure")
    outbox.enqueue("receipt", [receipt.subject_id], round=1)
    assert (outbox.send_due(), len(mail.outbox)) == (1, 1)


def test_a_mail_server_that_does_not_listen_is_tried_again_ever_later(receipt: OutboxMessage, settings: Any) -> None:
    send_mail_to(settings, free_port())
    waits = []
    for attempts in range(1, OutboxMessage.MOST_ATTEMPTS):
        assert settled(receipt) == ("queued", attempts)
        waits.append(round((receipt.next_try_at - timezone.now()).total_seconds() / 60))
        assert outbox.send_due() == 0
        let_pass(2**attempts)
    assert waits == [2, 4, 8, 16, 32, 64, 128]
    assert receipt.last_error == "ConnectionRefusedError: the mail server cannot be reached"
    assert settled(receipt) == ("failed", OutboxMessage.MOST_ATTEMPTS)
    let_pass(60 * 24)
    assert outbox.send_due() == 0


def test_a_mail_that_could_not_be_sent_goes_out_once_the_server_is_back(
    receipt: OutboxMessage, settings: Any, server: MailServer
) -> None:
    send_mail_to(settings, free_port())
    assert settled(receipt) == ("queued", 1)
    send_mail_to(settings, server.server_address[1])
    let_pass(2)
    assert settled(receipt) == ("sent", 1)
    assert (receipt.last_error, len(server.mails)) == ("", 1)


@pytest.mark.parametrize("word", ["MAIL", "RCPT", "DATA"])
def test_a_send_that_broke_off_may_have_arrived_and_is_not_repeated(
    receipt: OutboxMessage, server: MailServer, word: str
) -> None:
    server.hangs_up_after = word
    assert settled(receipt) == ("unsure", 0)
    server.hangs_up_after = ""
    let_pass(60 * 24)
    assert settled(receipt) == ("unsure", 0)
    assert len(server.mails) == (1 if word == "DATA" else 0)


def unreachable(settings: Any, server: MailServer, how: str) -> None:
    """Have the mail server be out of reach in this way."""
    if how == "gaierror":
        settings.EMAIL_HOST = "mail.invalid"
    elif how == "SMTPConnectError":
        server.greeting = "554 not today"
    elif how == "SMTPAuthenticationError":
        settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "us", "outdated"
        server.refuses, server.code = "AUTH", "535"
    elif how == "SMTPNotSupportedError":
        settings.EMAIL_USE_TLS = True
    else:  # it begins to greet, and never ends
        settings.EMAIL_TIMEOUT, server.greeting = 0.2, "220-it goes on"


@pytest.mark.parametrize(
    "how",
    [
        "gaierror",
        "SMTPConnectError",
        "SMTPAuthenticationError",
        "SMTPNotSupportedError",
        "SMTPServerDisconnected",
    ],
)
def test_a_mail_server_that_cannot_be_reached_has_sent_nothing_and_is_tried_again(
    receipt: OutboxMessage, server: MailServer, settings: Any, how: str
) -> None:
    unreachable(settings, server, how)
    assert settled(receipt) == ("queued", 1)
    assert receipt.last_error == f"{how}: the mail server cannot be reached"
    assert receipt.next_try_at > timezone.now() + timedelta(minutes=1)
    send_mail_to(settings, server.server_address[1])
    server.greeting, server.refuses, server.hangs_up_after = "220 here", "", ""
    let_pass(2)
    assert settled(receipt) == ("sent", 1)
    assert len(server.mails) == 1


@pytest.mark.parametrize(
    ("word", "code", "state", "why"),
    [
        ("RCPT", "450", "queued", "the mail server refuses the donor’s address for now (450)"),
        ("RCPT", "421", "queued", "the mail server refuses the donor’s address for now (421)"),
        ("RCPT", "550", "failed", "the mail server refuses the donor’s address for good (550): nothing was sent"),
        ("DATA", "451", "queued", "the mail server refuses the message for now (451)"),
        ("DATA", "554", "failed", "the mail server refuses the message for good (554): nothing was sent"),
        ("MAIL", "451", "queued", "the mail server refuses our own address, see MAIL_FROM (451)"),
        ("MAIL", "550", "queued", "the mail server refuses our own address, see MAIL_FROM (550)"),
    ],
)
def test_a_refusal_says_what_was_refused_and_is_repeated_where_it_may_end(
    receipt: OutboxMessage, server: MailServer, word: str, code: str, state: str, why: str
) -> None:
    server.refuses, server.code = word, code
    assert settled(receipt) == (state, int(state == "queued"))
    assert receipt.last_error == why
    server.refuses = ""
    let_pass(2)
    assert settled(receipt)[0] == ("sent" if state == "queued" else "failed")


def test_a_mail_server_that_hangs_up_after_it_took_the_message_has_sent_it(
    receipt: OutboxMessage, server: MailServer
) -> None:
    server.hangs_up_after = "QUIT"
    assert settled(receipt) == ("sent", 0)


def test_one_mail_that_fails_does_not_keep_the_others(campaign: Campaign) -> None:
    outbox.enqueue("receipt", ["gift_of_nobody"])
    outbox.enqueue("follow", ["7"])
    confirm(make_gift(campaign))
    assert (outbox.send_due(), len(mail.outbox)) == (3, 1)
    assert sorted(OutboxMessage.objects.values_list("state", flat=True)) == ["failed", "sent", "unneeded"]


def test_an_upgrade_tells_letters_that_nobody_needed_from_those_that_failed(campaign: Campaign) -> None:
    upgrade = import_module("donations.migrations.0012_letters_that_nobody_needs").tell_apart
    for error, state in (
        ("it was paid in the meantime", "failed"),
        ("the mail server refuses the message for good (554): nothing was sent", "failed"),
        ("it was paid in the meantime", "sent"),
    ):
        OutboxMessage.objects.create(
            kind="unpaid", subject_id=f"{state} {error}", state=state, last_error=error, next_try_at=timezone.now()
        )
    upgrade(apps, SimpleNamespace(connection=connection))
    assert list(OutboxMessage.objects.order_by("pk").values_list("state", flat=True)) == ["unneeded", "failed", "sent"]


def test_a_round_of_sending_takes_no_more_than_it_is_told_to(campaign: Campaign) -> None:
    deliver(*[checkout_event(make_gift(campaign)) for _ in range(5)])
    inbox.drain()
    assert [outbox.send_due(limit=3) for _ in range(3)] == [3, 2, 0]
    assert len(mail.outbox) == 5


def test_a_mail_that_had_to_queue_behind_slow_ones_is_not_taken_for_cut_off(campaign: Campaign) -> None:
    deliver(*[checkout_event(make_gift(campaign)) for _ in range(3)])
    inbox.drain()
    outbox.send_due()
    sent = list(OutboxMessage.objects.order_by("sent_at"))
    for earlier, later in pairwise(sent):
        assert earlier.sent_at is not None
        # When it began is counted from its own turn, not from when the first of them was looked at.
        assert later.next_try_at >= earlier.sent_at


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_senders_at_once_send_each_mail_once(server: MailServer) -> None:
    campaign = make_campaign()
    gifts = [make_gift(campaign) for _ in range(30)]
    deliver(*[checkout_event(gift) for gift in gifts])
    inbox.drain()
    gate = threading.Barrier(4)

    def send() -> None:
        gate.wait(10)
        while outbox.send_due(limit=7):
            pass
        connection.close()

    threads = [threading.Thread(target=send, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(server.mails) == 30
    assert all(any(gift.pk in text for text in server.mails) for gift in gifts)
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {"sent"}


# ---- the logs


def follow(campaign: Campaign) -> None:
    donor, _ = Donor.objects.get_or_create(email=READER, name="A Reader")
    follower = Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
    outbox.enqueue("follow", [str(follower.pk)])


@pytest.mark.parametrize("refuses", ["", "MAIL", "RCPT", "DATA"])
def test_the_logs_and_the_outbox_name_nobody_whatever_the_mail_server_says(
    campaign: Campaign, server: MailServer, caplog: pytest.LogCaptureFixture, refuses: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server.refuses = refuses
    confirm(make_gift(campaign))
    follow(campaign)
    outbox.send_due()
    left = {"": "sent", "MAIL": "queued"}.get(refuses, "failed")
    assert set(OutboxMessage.objects.values_list("state", flat=True)) == {left}
    assert_no_names(caplog)


def test_the_logs_name_nobody_when_a_mail_server_does_not_listen(
    campaign: Campaign, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    send_mail_to(settings, free_port())
    confirm(make_gift(campaign))
    outbox.send_due()
    assert_no_names(caplog)


@pytest.mark.parametrize(
    "email", ["reader@example.org\nBcc: x", "reader@@example.org", "reader @example.org", "rëader@é"]
)
def test_the_logs_name_nobody_whatever_the_address_looks_like(
    campaign: Campaign, server: MailServer, caplog: pytest.LogCaptureFixture, email: str
) -> None:
    caplog.set_level(logging.DEBUG)
    confirm(make_gift(campaign, donor=Donor.objects.create(email=email, name="A Reader")))
    outbox.send_due()
    assert OutboxMessage.objects.get().state in {"sent", "unsure"}
    assert_no_names(caplog)


def test_the_logs_name_nobody_while_events_are_quarantined_and_fail(
    campaign: Campaign, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gift = make_gift(campaign, public_name="A Reader", message="from the reader")
    confirm(gift, amount_total=1)
    confirm(gift, amount_total="reader")
    confirm(gift)
    confirm(gift, payment="pi_second")
    assert "quarantined" in caplog.text
    assert_no_names(caplog)


def assert_no_names(caplog: pytest.LogCaptureFixture) -> None:
    lines = caplog.text.splitlines()
    assert [line for line in lines if "reader" in line.lower() or "rëader" in line] == []
    errors = " ".join(OutboxMessage.objects.values_list("last_error", flat=True)).lower()
    assert "reader" not in errors
    assert "rëader" not in errors


def test_a_gift_is_named_by_its_reference_alone_in_what_is_printed(receipt: OutboxMessage) -> None:
    gift = Gift.objects.get()
    assert (str(gift), str(receipt)) == (gift.pk, f"receipt {gift.pk} queued")

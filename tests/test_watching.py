"""Checks are run when they are due by one process, and staff are told of what needs them: once, and once it is over."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db.models import F
from django.utils import timezone

from donations import health, inbox, outbox, processors, ticker, watching
from donations.health import Result
from donations.invariants import Finding
from donations.models import (
    Alert,
    CheckResult,
    InboxEvent,
    MonthTotal,
    OutboxMessage,
    Reconciliation,
    RefundRequest,
    TypesRead,
)
from donations.selectors import health as wellbeing
from donations.tasks import check_books as check_books_task
from donations.tasks import watch as watch_task
from tests.factories import checkout_event, confirm, deliver, event, make_campaign, make_gift
from tests.house import eventually

pytestmark = pytest.mark.django_db
STAFF = ["desk@example.org", "finance@example.org"]


@pytest.fixture(autouse=True)
def staff_mail(settings: Any) -> None:
    settings.STAFF_MAIL = STAFF


def quarantine(amount: int = 1) -> None:
    """A payment that was not what was asked."""
    campaign = make_campaign(f"fund-{InboxEvent.objects.count()}", is_default=False)
    confirm(make_gift(campaign), amount_total=amount)


def settle_all() -> None:
    InboxEvent.objects.filter(state="quarantined").update(state="dismissed")


def let_pass(minutes: float) -> None:
    for alert in Alert.objects.filter(ended_at__isnull=True):
        Alert.objects.filter(pk=alert.pk).update(seen_at=alert.seen_at - timedelta(minutes=minutes))


def mailed() -> list[str]:
    outbox.send_due()
    return [message.subject for message in mail.outbox]


# ---- checks


def test_of_two_processes_one_runs_a_check_that_is_due() -> None:
    assert watching.check_books_if_due()
    assert not watching.check_books_if_due()
    CheckResult.objects.update(due_at=timezone.now())
    assert watching.check_books_if_due()


def test_a_check_that_is_under_way_is_not_begun_by_another_process() -> None:
    assert health.claim("books")
    CheckResult.objects.update(due_at=F("due_at") - timedelta(minutes=1))
    assert not health.claim("books")
    CheckResult.objects.update(due_at=F("due_at") - timedelta(minutes=1))
    assert health.claim("books")


@pytest.mark.postgres  # two connections at once, of which one in memory would lock the other's table
@pytest.mark.django_db(transaction=True)
def test_a_check_that_takes_longer_than_its_lease_is_held_while_it_runs_and_no_longer() -> None:
    lease = timedelta(seconds=0.4)
    assert health.claim("books")
    with health.held("books", lease):
        CheckResult.objects.update(due_at=timezone.now())
        eventually(lambda: CheckResult.objects.get().due_at > timezone.now(), "it is not held")
        time.sleep(2 * lease.total_seconds())
        assert not health.claim("books")
        health.keep("books", Result(findings=0))
        kept = CheckResult.objects.get().due_at
        time.sleep(lease.total_seconds())
    assert CheckResult.objects.get().due_at == kept


def test_since_stays_while_the_answer_stays() -> None:
    health.keep("reconcile", Result(findings=0))
    equal_since = CheckResult.objects.get().since
    health.keep("reconcile", Result(findings=0, unseen=3))
    assert (CheckResult.objects.get().since, CheckResult.objects.get().unseen) == (equal_since, 3)
    health.keep("reconcile", Result(findings=2, words=("one", "two")))
    row = CheckResult.objects.get()
    assert (row.is_equal, row.findings, row.words) == (False, 2, "one\ntwo")
    assert row.since is not None
    assert row.since != equal_since


def test_celery_does_both() -> None:
    check_books_task()
    watch_task()
    assert set(CheckResult.objects.values_list("kind", flat=True)) == {"books", "deliveries"}


# ---- what is a trouble


def paid_twice() -> None:
    gift = make_gift(make_campaign())
    confirm(gift)
    confirm(gift, payment="pi_second")


def wrong_mode() -> None:
    told = checkout_event(make_gift(make_campaign()))
    told["livemode"] = True
    deliver(told)
    inbox.drain()


def unequal_books() -> None:
    confirm(make_gift(make_campaign()))
    MonthTotal.objects.update(raised=1)
    watching.check_books()


def check_long_ago() -> None:
    watching.check_books()
    CheckResult.objects.update(finished_at=timezone.now() - timedelta(minutes=61))


def unequal_to_the_processor() -> None:
    health.keep("reconcile", Result(findings=1, words=("a payment is missing",), unseen=1))


def unsure_mail() -> None:
    now = timezone.now()
    OutboxMessage.objects.create(kind="receipt", subject_id="gift_x", state="unsure", next_try_at=now)


def mail_given_up() -> None:
    now = timezone.now()
    given_up = {"kind": "receipt", "state": "failed", "attempts": 8}
    OutboxMessage.objects.create(subject_id="gift_x", next_try_at=now, **given_up)
    OutboxMessage.objects.create(subject_id="gift_y", next_try_at=now - timedelta(days=4), **given_up)
    # An address that there is not is nobody's trouble but the donor's.
    OutboxMessage.objects.create(kind="receipt", subject_id="gift_z", state="failed", attempts=1, next_try_at=now)


def unanswered_refund() -> None:
    gift = make_gift(make_campaign())
    confirm(gift)
    RefundRequest.objects.create(gift=gift, amount=1)
    RefundRequest.objects.update(requested_at=timezone.now() - timedelta(hours=2))


def silence() -> None:
    told_at(timezone.now() - timedelta(days=4), *[timedelta(hours=hour) for hour in range(0, 60, 6)])


def never_delivered() -> None:
    """Events are fetched, and not one was ever delivered."""
    told_at(timezone.now() - timedelta(hours=2), timedelta())
    InboxEvent.objects.update(origin="events_api")


def delivered_no_more() -> None:
    """A day and an hour after the only delivery, an event had to be fetched."""
    told_at(timezone.now() - timedelta(hours=26), timedelta(), timedelta(hours=25))
    InboxEvent.objects.filter(event_id="evt_1").update(origin="events_api")


def told_at(begin: Any, *after: timedelta) -> None:
    """Deliveries at these times, the first at the beginning."""
    for shift in after:
        number = InboxEvent.objects.count()
        InboxEvent.objects.create(
            processor="stripe",
            event_id=f"evt_{number}",
            type="payout.paid",
            received_at=begin + shift,
            body_sha256=b"",
            state="nothing",
        )


def lost() -> None:
    """An event of two hours ago was fetched; one was delivered before, as usual once a day."""
    told_at(timezone.now() - timedelta(days=4), *[timedelta(days=day) for day in range(4)])
    health.keep("reconcile", Result(findings=0, undelivered_at=timezone.now() - timedelta(hours=2)))


def standstill() -> None:
    began = timezone.now() - timedelta(hours=4)
    Reconciliation.objects.create(
        processor="stripe", since=began, started_at=began, held_until=began, step="events", error="the key is refused"
    )


def none_began() -> None:
    """The last reconciliation ended over four hours ago: the next one has been due for three."""
    health.keep("reconcile", Result(findings=0))
    CheckResult.objects.update(finished_at=timezone.now() - timedelta(hours=4, minutes=1))


TROUBLES: dict[str, list[Callable[[], None]]] = {
    "quarantine": [quarantine],
    "paid_twice": [paid_twice],
    "wrong_mode": [wrong_mode],
    "books_unequal": [unequal_books],
    "books_unchecked": [check_long_ago],
    "processor_unequal": [unequal_to_the_processor],
    "mail_unsure": [unsure_mail],
    "mail_given_up": [mail_given_up],
    "refund_unanswered": [unanswered_refund],
    "deliveries_silent": [silence, never_delivered, delivered_no_more, lost],
    "unreconciled": [standstill, none_began],
}


@pytest.mark.parametrize("kind, make", [(kind, make) for kind, makes in TROUBLES.items() for make in makes])
def test_each_trouble_is_told_by_mail_with_what_to_do(kind: str, make: Callable[[], None]) -> None:
    make()
    watching.look()
    alert = Alert.objects.get()
    assert alert.kind == kind
    outbox.send_due()
    letter = next(letter for letter in mail.outbox if letter.to == STAFF)
    assert letter.subject == f"[test] us: {alert.words}"
    assert alert.remedy in letter.body
    assert f"http://testserver{alert.path}" in letter.body
    assert "reader@example.org" not in letter.body


def test_payments_for_gifts_that_were_paid_already_are_counted_as_payments() -> None:
    gift = make_gift(make_campaign())
    confirm(gift)
    for payment, words in {
        "pi_second": "1 payment came for a gift that was paid already.",
        "pi_third": "2 payments came for gifts that were paid already.",
    }.items():
        confirm(gift, payment=payment)
        watching.look()
        assert Alert.objects.get().words == words


def test_what_to_do_is_said_of_one_or_of_many() -> None:
    gift = make_gift(make_campaign())
    confirm(gift)
    said = []
    for number in range(2):
        quarantine()
        confirm(gift, payment=f"pi_more_{number}")
        OutboxMessage.objects.create(
            kind="receipt", subject_id=f"gift_{number}", state="unsure", next_try_at=timezone.now()
        )
        RefundRequest.objects.create(gift=gift, amount=1)
        RefundRequest.objects.update(requested_at=timezone.now() - timedelta(hours=2))
        said.append({trouble.kind: trouble.remedy for trouble in wellbeing.troubles(wellbeing.health())})
    for kind, *words in (
        ("quarantine", "accept or dismiss it.", "accept or dismiss each of them."),
        ("paid_twice", "Refund it in", "Refund each in"),
        ("mail_unsure", "never sends it again", "never sends them again"),
        ("refund_unanswered", "whether it was made", "whether they were made"),
    ):
        for told, remedies in zip(words, said, strict=True):
            assert told in remedies[kind]


def test_a_check_that_cannot_be_ended_is_a_finding_beside_what_it_came_to() -> None:
    confirm(make_gift(make_campaign()))
    MonthTotal.objects.update(raised=1)

    def fail(finding: Finding) -> None:
        raise RuntimeError("the printer is on fire")

    with pytest.raises(RuntimeError):
        watching.check_books(fail)
    row = CheckResult.objects.get()
    assert (row.is_equal, row.findings) == (False, 2)
    assert row.words.startswith("The check could not be ended: RuntimeError.")
    assert "totals_are_what_the_ledger_says" in row.words
    assert row.due_at < timezone.now() + timedelta(minutes=11)


def test_what_an_upgrade_can_read_is_not_held_against_what_the_version_before_made_of_it() -> None:
    charge = event("charge.updated", {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"})
    deliver(charge)
    inbox.drain()
    InboxEvent.objects.update(payment="", subject="")  # as a version left it that did not read them
    reads = processors.get("stripe").reads
    TypesRead.objects.create(processor="stripe", types=sorted(reads))
    assert watching.check_books().findings
    TypesRead.objects.update(types=sorted(reads - {"charge.updated"}))
    assert not watching.check_books().findings
    inbox.drain()
    assert not watching.check_books().findings


def test_a_check_that_fails_before_it_begins_is_a_finding_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors.get("stripe"), "reads", None)  # nothing can be compared with it
    with pytest.raises(TypeError):
        watching.check_books()
    assert CheckResult.objects.get().words.startswith("The check could not be ended: TypeError.")


def test_a_well_site_has_no_trouble() -> None:
    confirm(make_gift(make_campaign()))
    watching.check_books()
    watching.look()
    assert not Alert.objects.exists()


@pytest.mark.parametrize(
    "gaps, quiet, silent",
    [
        ([6, 6, 6, 6], 23, False),
        ([6, 6, 6, 6], 25, True),
        ([0.1] * 300, 0.9, False),
        ([0.1] * 300, 1.1, True),
        ([1, 1], 1000, False),  # of three hours, nobody can say what is usual
    ],
)
def test_silence_is_four_times_the_longest_usual_gap_and_an_hour_at_least(
    gaps: list[float], quiet: float, silent: bool
) -> None:
    moments = [sum(gaps[:number]) for number in range(len(gaps) + 1)]
    begin = timezone.now() - timedelta(hours=moments[-1] + quiet)
    told_at(begin, *[timedelta(hours=moment) for moment in moments])
    watching.look()
    assert wellbeing.health().is_silent() is silent


def test_a_silence_that_was_told_of_is_not_usual() -> None:
    begin = timezone.now() - timedelta(days=9)
    told_at(begin, *[timedelta(hours=hour) for hour in range(0, 48, 6)])
    Alert.objects.create(kind="deliveries_silent", began_at=begin + timedelta(days=3), seen_at=begin)
    told_at(begin, *[timedelta(hours=hour) for hour in range(120, 180, 6)])
    watching.look()
    assert wellbeing.longest_gap() == timedelta(hours=6)
    assert wellbeing.health().is_silent()


def test_it_is_left_lying_once_whoever_did_it_is_away() -> None:
    assert not watching.is_left_lying()
    watching.check_books()
    assert not watching.is_left_lying()
    CheckResult.objects.update(due_at=timezone.now() - timedelta(minutes=11))
    assert watching.is_left_lying()
    assert watching.check_books_if_due()
    assert not watching.is_left_lying()


def test_with_redis_a_web_process_watches_while_the_workers_are_away(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticker, "_stepping_in_until", 0.0)
    settings.REDIS_URL = "redis://127.0.0.1:1"
    watching.check_books()
    quarantine()
    ticker._watch()
    assert not Alert.objects.exists()
    checked_at = CheckResult.objects.get(kind="books").finished_at
    CheckResult.objects.update(due_at=timezone.now() - timedelta(minutes=11))
    for _ in range(2):
        Alert.objects.update(words="")
        ticker._watch()
        ticker._check()
        assert Alert.objects.get().words
    assert CheckResult.objects.get(kind="books").finished_at != checked_at


def test_with_redis_a_web_process_watches_where_no_beat_was_ever_started(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ticker, "_stepping_in_until", 0.0)
    settings.REDIS_URL = "redis://127.0.0.1:1"
    quarantine()
    for started, alerts in ((time.monotonic() - 290, 0), (time.monotonic() - 310, 1)):
        monkeypatch.setattr(ticker, "_started", started)
        ticker._watch()
        ticker._check()
        assert (Alert.objects.count(), CheckResult.objects.filter(kind="books").count()) == (alerts, alerts)
    assert len([line for line in caplog.messages if "no Celery beat" in line]) == 1


def test_what_a_sweep_found_does_not_end_a_silence() -> None:
    silence()
    InboxEvent.objects.create(
        processor="stripe",
        event_id="sweep:x",
        origin="sweep",
        type="payout.paid",
        received_at=timezone.now(),
        body_sha256=b"",
        state="nothing",
    )
    watching.look()
    assert Alert.objects.get().kind == "deliveries_silent"


# ---- one mail a day while it lasts, one when it is over


def test_what_stands_for_a_day_is_told_again_once_a_day_in_the_words_of_that_day() -> None:
    quarantine()
    watching.look()
    mailed()
    for days in (1, 2):
        quarantine()
        Alert.objects.update(began_at=timezone.now() - timedelta(days=days, minutes=-1))
        watching.look()
        assert len(mailed()) == days
        Alert.objects.update(began_at=timezone.now() - timedelta(days=days))
        watching.look()
        watching.look()
        assert mailed()[days:] == [f"[test] us: still: {days + 1} events are in quarantine and not in the figures."]
    assert "It began on" in mail.outbox[-1].body


def test_what_ended_before_its_mail_of_the_day_was_sent_is_not_told_to_stand() -> None:
    quarantine()
    watching.look()
    mailed()
    Alert.objects.update(began_at=timezone.now() - timedelta(days=1))
    watching.look()
    settle_all()
    let_pass(17)
    watching.look()
    assert mailed()[1:] == ["[test] us: over: 1 event is in quarantine and not in the figures."]


def test_a_trouble_is_mailed_once_on_its_day_and_once_when_it_is_over() -> None:
    quarantine()
    watching.look()
    assert mailed() == ["[test] us: 1 event is in quarantine and not in the figures."]
    quarantine()
    watching.look()
    assert len(mailed()) == 1
    assert Alert.objects.get().words == "2 events are in quarantine and not in the figures."
    settle_all()
    let_pass(17)
    watching.look()
    watching.look()
    assert mailed()[1:] == ["[test] us: over: 2 events are in quarantine and not in the figures."]
    assert Alert.objects.get().ended_at is not None


def test_a_trouble_that_comes_and_goes_is_one_trouble() -> None:
    for _ in range(3):
        quarantine()
        watching.look()
        settle_all()
        watching.look()
    let_pass(14)
    watching.look()
    assert len(mailed()) == 1
    assert Alert.objects.get().ended_at is None


def test_a_trouble_that_comes_again_is_told_again() -> None:
    for _ in range(2):
        quarantine()
        watching.look()
        settle_all()
        let_pass(17)
        watching.look()
    assert len(mailed()) == 4
    assert Alert.objects.count() == 2


def test_a_thousand_events_in_quarantine_are_one_mail() -> None:
    now = timezone.now()
    InboxEvent.objects.bulk_create(
        InboxEvent(
            processor="stripe", event_id=f"evt_q{n}", type="x", received_at=now, body_sha256=b"", state="quarantined"
        )
        for n in range(1000)
    )
    watching.look()
    assert mailed() == ["[test] us: 1,000 events are in quarantine and not in the figures."]


def test_without_an_address_of_staff_nothing_is_mailed_and_the_alert_stands(settings: Any) -> None:
    settings.STAFF_MAIL = []
    quarantine()
    watching.look()
    assert Alert.objects.get().kind == "quarantine"
    assert not OutboxMessage.objects.exists()


def test_an_address_that_was_taken_away_meanwhile_gets_nothing(settings: Any) -> None:
    quarantine()
    watching.look()
    settings.STAFF_MAIL = []
    assert mailed() == []
    assert OutboxMessage.objects.get().state == "unneeded"


# ---- the command


def test_the_command_says_how_much_it_checked_and_keeps_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    confirm(make_gift(make_campaign()))
    call_command("check_books")
    assert "the books are whole. Looked at: 1 inbox events, 1 entries" in capsys.readouterr().out
    result = CheckResult.objects.get(kind="books")
    assert (result.is_equal, result.findings, result.checked["entries"]) == (True, 0, 1)


def test_the_command_prints_each_finding_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    confirm(make_gift(make_campaign()))
    MonthTotal.objects.update(raised=1)
    with pytest.raises(CommandError, match="things are wrong with the books"):
        call_command("check_books")
    printed = capsys.readouterr().out
    assert "totals_are_what_the_ledger_says" in printed
    assert "Run manage.py rebuild" in printed
    result = CheckResult.objects.get(kind="books")
    assert (result.is_equal, result.findings) == (False, len(printed.splitlines()))
    assert result.words.splitlines()[0] == printed.splitlines()[0]

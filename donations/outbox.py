"""Sole sender of mail, at most once: a send cut off by a crash is `unsure`, and never sent again by itself."""

import logging
import smtplib
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.signing import Signer
from django.template.loader import render_to_string
from django.utils import timezone

from donations import bulk, money, periods
from donations.models import Alert, Donor, Follower, Gift, InboxEvent, OutboxMessage, RecurringGift
from donations.models.recurring import MONTH
from donations.selectors import gifts, invoices

log = logging.getLogger(__name__)
State = OutboxMessage.State
Kind = OutboxMessage.Kind
Status = RecurringGift.Status
CUT_OFF_AFTER = timedelta(minutes=5)
# A letter that cannot be written yet waits for what it lacks, looked at ever later: news come in any order.
LONGEST_PATIENCE = timedelta(hours=72)
SHORTEST_WAIT, LONGEST_WAIT = timedelta(seconds=2), timedelta(hours=1)
# Anybody can type anybody's address and follow: the whole site asks no more strangers than this in an hour.
MOST_FOLLOW_MAILS_AN_HOUR = 200
COLUMNS = ("kind", "subject_id", "round", "state", "attempts", "next_try_at", "last_error", "created_at")
REFUSALS = (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError)


def follow_token(follower: Follower) -> str:
    """The signed text in the address that confirms a follower; it names no one."""
    return Signer(salt="donations.follow").sign(str(follower.pk))


def manage_url(recurring: RecurringGift) -> str:
    """The address at which a monthly gift is changed or stopped: whoever has it may, and it names no one."""
    return f"{settings.SITE_URL}/manage/{Signer(salt='donations.manage').sign(recurring.pk)}/"


def enqueue(kind: str, subjects: Iterable[str], round: int = 0) -> None:  # noqa: A002 (the field's name)
    """Queue one message a subject; one that is queued or sent already is passed over. Call it in the transaction."""
    now = timezone.now()
    rows = [(kind, subject, round, State.QUEUED.value, 0, now, "", now) for subject in subjects]
    bulk.insert(OutboxMessage, COLUMNS, rows, then="ON CONFLICT DO NOTHING")


def send_due(limit: int = 20) -> int:
    """Send what is due, one by one, receipts first; how many were looked at."""
    now = timezone.now()
    OutboxMessage.objects.filter(state=State.SENDING, next_try_at__lt=now - CUT_OFF_AFTER).update(state=State.UNSURE)
    due = _due(now, limit)
    for message in due:
        # The condition decides between two senders: one of them changes the row.
        claimed = OutboxMessage.objects.filter(pk=message.pk, state=State.QUEUED)
        if claimed.update(state=State.SENDING, next_try_at=timezone.now()):
            _send(message)
    return len(due)


def _due(now: datetime, limit: int) -> list[OutboxMessage]:
    """A flood of follow mails makes no receipt wait; what is over the hour's measure stays queued for the next."""
    queued = OutboxMessage.objects.filter(state=State.QUEUED, next_try_at__lte=now).order_by("next_try_at")
    due = list(queued.exclude(kind=Kind.FOLLOW)[:limit])
    follows = queued.filter(kind=Kind.FOLLOW)
    if len(due) < limit and follows.exists():
        due += follows[: min(limit - len(due), _follow_mails_left(now))]
    return due


def _follow_mails_left(now: datetime) -> int:
    # A message that was tried keeps the moment of its last try.
    tried = OutboxMessage.objects.filter(kind=Kind.FOLLOW, next_try_at__gt=now - timedelta(hours=1))
    return max(0, MOST_FOLLOW_MAILS_AN_HOUR - tried.exclude(state=State.QUEUED).count())


def _send(message: OutboxMessage) -> None:
    try:
        mail = _compose(message)
    except NothingToSend as reason:
        _settle(message, State.UNNEEDED, str(reason))
        return
    except NotYet as lack:
        _wait(message, str(lack))
        return
    except Exception as error:
        log.exception("mail %s cannot be written", message.pk)
        _settle(message, State.FAILED, str(error))
        return
    connection = get_connection()
    try:
        connection.open()
    except Exception as error:  # noqa: BLE001 (whatever it is, nothing was said of the message yet)
        _retry(message, f"{type(error).__name__}: the mail server cannot be reached")
        with suppress(Exception):
            connection.close()
        return
    mail.connection = connection
    try:
        _hand_over(message, mail)
    finally:
        # What it says to a goodbye changes nothing about a message that it took.
        with suppress(Exception):
            connection.close()


def _hand_over(message: OutboxMessage, mail: EmailMessage) -> None:
    try:
        mail.send()
    except REFUSALS as refusal:
        _heed(message, refusal)
    except Exception as error:  # noqa: BLE001 (whatever it is, it may have been sent)
        _unsure(message, error)
    else:
        OutboxMessage.objects.filter(pk=message.pk).update(state=State.SENT, sent_at=timezone.now(), last_error="")


def _heed(message: OutboxMessage, refusal: Exception) -> None:
    """The mail server said no, so nothing was sent. Its words may repeat the address; only the code is kept."""
    if isinstance(refusal, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in refusal.recipients.values()]
        code, what = max(codes, default=0), "the donor’s address"
    elif isinstance(refusal, smtplib.SMTPSenderRefused):
        # That is about us, for every message, and an operator can mend it.
        _retry(message, f"the mail server refuses our own address, see MAIL_FROM ({refusal.smtp_code})")
        return
    else:
        code, what = getattr(refusal, "smtp_code", 0), "the message"
    if 400 <= code < 500:
        _retry(message, f"the mail server refuses {what} for now ({code})")
    elif 500 <= code < 600:
        _settle(message, State.FAILED, f"the mail server refuses {what} for good ({code}): nothing was sent")
    else:
        _unsure(message, refusal)


def _unsure(message: OutboxMessage, error: Exception) -> None:
    # Its name alone goes to the log: what mail servers and the mail library say repeats the address.
    name = type(error).__name__
    log.error("mail %s may or may not have been sent: %s", message.pk, name)
    _settle(message, State.UNSURE, f"{name}: it may or may not have been sent")


def _settle(message: OutboxMessage, state: str, error: str) -> None:
    OutboxMessage.objects.filter(pk=message.pk).update(state=state, last_error=error[:300])


def _retry(message: OutboxMessage, why: str) -> None:
    """Nothing was sent, so to try again cannot send twice."""
    attempts = message.attempts + 1
    OutboxMessage.objects.filter(pk=message.pk).update(
        state=State.QUEUED if attempts < OutboxMessage.MOST_ATTEMPTS else State.FAILED,
        attempts=attempts,
        next_try_at=timezone.now() + timedelta(minutes=2**attempts),
        last_error=why[:300],
    )


def _wait(message: OutboxMessage, lack: str) -> None:
    """Nothing was said to the mail server, so to look again cannot send twice: as late again as the letter is old."""
    now = timezone.now()
    age = now - message.created_at
    if age > LONGEST_PATIENCE:
        _settle(message, State.UNNEEDED, f"after 72 hours, still: {lack}")
        return
    wait = min(LONGEST_WAIT, max(SHORTEST_WAIT, age))
    OutboxMessage.objects.filter(pk=message.pk).update(state=State.QUEUED, next_try_at=now + wait, last_error=lack)


class NothingToSend(Exception):
    """A message that is to be sent to nobody, or not any more; its text says why."""


class NotYet(Exception):
    """A message that lacks something which may still be told; its text says what."""


def _compose(message: OutboxMessage) -> EmailMessage:
    return COMPOSERS[Kind(message.kind)](message)


def _follow(message: OutboxMessage) -> EmailMessage:
    follower = Follower.objects.select_related("donor", "campaign").filter(pk=int(message.subject_id)).first()
    if follower is None:
        raise NothingToSend("who was to confirm it was erased")
    link = f"{settings.SITE_URL}/follow/{follow_token(follower)}/"
    return _mail("follow", [_address(follower.donor)], {"campaign": follower.campaign, "link": link})


def _receipt(message: OutboxMessage) -> EmailMessage:
    related = ("donor", "campaign", "state", "recurring_gift")
    gift = Gift.objects.select_related(*related).get(pk=message.subject_id)
    manage = manage_url(gift.recurring_gift) if gift.recurring_gift else ""
    context = {"campaign": gift.campaign, "gift": gift, "manage": manage, **_paid(gift), **_from_now_on(gift)}
    return _mail("receipt", [_address(gift.donor)], context)


def _paid(gift: Gift) -> dict[str, str]:
    """What was paid, in words; of a gift with a fee cover the two parts, as the ledger tells them apart."""
    received = gifts.received(gift.pk)
    if received is None:
        raise NotYet("its payment is not in the books")
    parts = {"given": received.given, "cover": received.cover} if received.is_in_parts else {}
    return {
        name: money.format_minor(minor, received.currency) for name, minor in {"paid": received.paid, **parts}.items()
    }


def _from_now_on(gift: Gift) -> dict[str, object]:
    """What becomes of the monthly gift by now, where that is not the same again each month, in words but for a day.

    `over`: it has ended, or is paused; `last_day`, by the campaign's calendar; `asks` and `often`.
    """
    recurring = gift.recurring_gift
    if recurring is None:
        return {}
    if recurring.status in RecurringGift.ENDED or recurring.status == Status.PAUSED:
        return {"over": "paused" if recurring.status == Status.PAUSED else "ended"}
    if recurring.cancel_at:
        return {"last_day": periods.local_date(recurring.cancel_at, gift.campaign.time_zone)}
    terms = recurring.terms
    if (terms.total, terms.currency, terms.interval) == (gift.state.charged, gift.currency, MONTH):
        return {}
    return {"asks": money.format_minor(terms.total, terms.currency), "often": terms.often}


def _invoice_trouble(message: OutboxMessage) -> EmailMessage:
    """What the donor of a monthly gift has to do, on the processor's page for that invoice.

    Who failed at the very first payment was told by the page that they paid on. Whether it was the first is told by
    the subscription, and who gives by the checkout: both may come after the invoice's trouble.
    """
    told = InboxEvent.objects.filter(subject=message.subject_id, state=InboxEvent.State.PROCESSED)
    told = told.exclude(subject="")  # SQLite takes the index, which holds no "", for who says that none is wanted
    standing = invoices.standings([message.subject_id])[message.subject_id]
    if standing.status == invoices.PAID:
        raise NothingToSend("it was paid in the meantime")
    if standing.status == invoices.VOID:
        raise NothingToSend("it was called off in the meantime")
    trouble = told.filter(facts__kind="invoice").exclude(facts__trouble="").order_by("-created").first()
    if trouble is None:
        raise NotYet("what is wrong with the invoice is being read again")
    recurring = RecurringGift.objects.select_related("donor", "campaign").get(pk=trouble.gift_reference)
    if recurring.status == Status.INCOMPLETE_EXPIRED:
        raise NothingToSend("its first payment never came: the payment page told the donor itself")
    if recurring.status in RecurringGift.NOT_BEGUN and not recurring.gifts.exists():
        raise NotYet("its first payment is open, as far as was told: the payment page tells the donor itself")
    has_ended = recurring.status in RecurringGift.ENDED
    if has_ended and message.kind == Kind.ACTION:
        raise NothingToSend("the monthly gift has ended in the meantime")
    if recurring.donor is None:
        raise NotYet("there is no address to send it to")
    facts = trouble.facts or {}
    # Who changed the amount at the processor is asked for another one than the gift began with.
    terms = recurring.terms
    due = facts.get("amount_due", terms.total) - standing.paid, facts.get("currency", terms.currency)
    context = {
        "campaign": recurring.campaign,
        "asked": money.format_minor(*due),
        "page": facts.get("page", ""),
        "has_ended": has_ended,
        "in_part": standing.paid > 0,
        "manage": manage_url(recurring),
    }
    return _mail(message.kind, [_address(recurring.donor)], context)


def _address(donor: Donor | None) -> str:
    if donor is None:
        raise NothingToSend("there is no address to send it to")
    return donor.email


def _alert(message: OutboxMessage) -> EmailMessage:
    """To staff: that a trouble began, still stands or is over. No personal data, since mail is kept and forwarded."""
    number, what, *_ = message.subject_id.split(":")
    if not settings.STAFF_MAIL:
        raise NothingToSend("STAFF_MAIL names nobody any more")
    alert = Alert.objects.get(pk=int(number))
    if what == "stands" and alert.ended_at:
        raise NothingToSend("it is over meanwhile")
    context = {"alert": alert, "is_over": what == "ended", "still_stands": what == "stands"}
    return _mail("alert", settings.STAFF_MAIL, context)


COMPOSERS: dict[Kind, Callable[[OutboxMessage], EmailMessage]] = {
    Kind.FOLLOW: _follow,
    Kind.RECEIPT: _receipt,
    Kind.UNPAID: _invoice_trouble,
    Kind.ACTION: _invoice_trouble,
    Kind.ALERT: _alert,
}


def _mail(template: str, addresses: list[str], context: dict[str, object]) -> EmailMessage:
    """The first line of a template is the subject; the rest is the text."""
    context |= {"site_name": settings.SITE_NAME, "site_url": settings.SITE_URL, "livemode": settings.LIVEMODE}
    subject, _, text = render_to_string(f"donations/email/{template}.txt", context).strip().partition("\n")
    return EmailMessage(subject.strip(), text.strip() + "\n", to=addresses)

"""What readers ask for: to give, to follow. Money is booked by none of it; see `inbox`.

Every call to the processor is made outside a transaction, after its key and parameters were saved.
"""

import hashlib
import json
import logging
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from urllib.parse import urlencode

from django.conf import settings
from django.core.signing import BadSignature, Signer, TimestampSigner
from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from donations import fees, money, outbox, processors, projections
from donations.fees import Formula
from donations.models import Campaign, Donor, Follower, Gift, GiftState, OutboxMessage, RecurringGift
from donations.models.campaigns import CUSTOM
from donations.processors.base import (
    AnswerKept,
    Checkout,
    CheckoutOrder,
    ProcessorBusy,
    ProcessorRefused,
    ProcessorUnavailable,
)

log = logging.getLogger(__name__)
Asked: TypeAlias = Gift | RecurringGift
KINDS: tuple[type[Asked], ...] = (Gift, RecurringGift)
PAGE_LASTS = timedelta(days=1)
CHECKOUT_LASTS = timedelta(hours=23)
SHORTEST_CHECKOUT = timedelta(minutes=32)  # the processor wants 30 min at least
LONGEST_OPENING = 3.5  # seconds, of all that is asked of the processor: a reader waits 4 at most
ASK_AGAIN_AFTER = timedelta(minutes=10)
MOST_CONFIRMATION_MAILS = 5
PAID = ("confirmed", "awaiting")
MOST_CHECKOUTS = 20  # that one form, as it was shown once, may start


# ---- the form that was shown


def new_page() -> str:
    """A token for a form that is being shown: what is sent with it, and sent again, is one attempt."""
    return page_token(secrets.token_hex(16))


def page_token(page: str) -> str:
    """The token of a form that was shown before: the reader comes back to the same attempt. It names no one."""
    return TimestampSigner(salt="donations.page").sign(page)


def page_id_of(token: str) -> str:
    """What a token stands for; empty for one that is too old, or is not ours."""
    try:
        return TimestampSigner(salt="donations.page").unsign(token, max_age=PAGE_LASTS)
    except BadSignature:
        return ""


def is_open_page(token: str) -> bool:
    """Whether a reader may come back to the form of this token.

    One that was paid is over: a reader who has its address from another would be thanked for that one's gift.
    """
    page = page_id_of(token)
    return bool(page) and not any(_begun(kind).filter(page=page).exists() for kind in KINDS)


# ---- giving


class PageUsedUp(Exception):
    """The form as it was shown has started as many checkouts as one may; a new page token starts others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A reader's filled-in form; `page` identifies the form as it was shown once.

    `amount`, and `fee_cover` which the reader adds to it, are minor units. A `monthly` one asks for an arrangement, of
    which each month makes a gift.
    """

    campaign: Campaign
    amount: int
    tier: str
    email: str
    name: str
    message: str
    anonymous: bool
    source: str
    page: str
    fee_cover: int = 0
    monthly: bool = False

    @property
    def kind(self) -> type[Asked]:
        return RecurringGift if self.monthly else Gift

    def attempt(self, generation: int) -> str:
        """The same form with the same fields is the same attempt, until its checkout is over.

        One-time and monthly gifts stand apart, so an attempt is one of its kind.
        """
        fields = [self.campaign.pk, self.amount, self.tier, self.email, self.name, self.message, self.anonymous]
        fields += [self.fee_cover]
        return hashlib.sha256(json.dumps([self.page, generation, *fields]).encode()).hexdigest()


def fee_formula(campaign: Campaign) -> Formula | None:
    """What the processor keeps of a gift to this campaign; None where donors are not asked to add it."""
    return fees.offered(settings.FEE_COVER, processor=processors.default().name, currency=campaign.currency)


def start_gift(intent: Intent) -> str:
    """The address to send the reader to: the hosted page, or the thank-you page of what is paid already.

    One-time and monthly gifts go the same way, and of all that one form asked for, one checkout is open in the end.

    Raises ProcessorUnavailable (the same call again makes no second checkout), ProcessorRefused or PageUsedUp.
    """
    asked = _asked_by(intent)
    if _is_begun(asked):
        return thanks_url(asked)
    if not asked.checkout_id:
        _open_checkout(asked)
    _supersede_others(asked)
    return asked.checkout_url


def _asked_by(intent: Intent) -> Asked:
    """The gift of an attempt: the one of an earlier submission while its checkout lasts, else a new one."""
    for generation in range(MOST_CHECKOUTS):
        attempt = intent.attempt(generation)
        asked = intent.kind.objects.filter(attempt=attempt).first()
        if asked is None:
            _ensure_room(intent.page)
            asked = _add(intent, attempt)
        if not _must_begin_anew(asked):
            return asked
    raise PageUsedUp


def _ensure_room(page: str) -> None:
    """Of several requests at once, a few may pass: the limit keeps a flood away, and counts no money."""
    if sum(kind.objects.filter(page=page).count() for kind in KINDS) >= MOST_CHECKOUTS:
        raise PageUsedUp


def _add(intent: Intent, attempt: str) -> Asked:
    try:
        with transaction.atomic():
            donor = Donor.keep(intent.email, intent.name) if intent.email else None
            asked = intent.kind(
                campaign=intent.campaign,
                donor=donor,
                tier=intent.tier,
                currency=intent.campaign.currency,
                amount=intent.amount,
                fee_cover=intent.fee_cover,
                public_name=intent.name,
                message=intent.message,
                anonymous=intent.anonymous,
                source=intent.source,
                livemode=settings.LIVEMODE,
                processor=processors.default().name,
                page=intent.page,
                attempt=attempt,
                checkout_expires_at=timezone.now().replace(microsecond=0) + CHECKOUT_LASTS,
            )
            asked.checkout_parameters = processors.default().checkout_parameters(_order(asked))
            asked.save(force_insert=True)
            return asked
    except IntegrityError:
        # A second click got here first: its gift is the one.
        return intent.kind.objects.get(attempt=attempt)


def _order(asked: Asked) -> CheckoutOrder:
    if asked.checkout_expires_at is None:
        raise ValueError("a checkout needs its end")
    give = f"{settings.SITE_URL}/give/{asked.campaign_id}/"
    choice = {"frequency": "monthly"} if _is_monthly(asked) else {}
    choice |= {"tier": asked.tier} if asked.tier != CUSTOM else {"tier": CUSTOM, "amount": _typed(asked)}
    # The reader who goes back comes to the same form: what they send then closes this checkout.
    choice["page"] = page_token(asked.page)
    if asked.fee_cover:
        choice["cover"] = "on"
    if asked.source:
        choice["source"] = asked.source
    return CheckoutOrder(
        reference=asked.pk,
        monthly=_is_monthly(asked),
        campaign=asked.campaign_id,
        campaign_name=asked.campaign.name,
        amount=asked.amount,
        fee_cover=asked.fee_cover,
        currency=asked.currency,
        success_url=thanks_url(asked),
        cancel_url=f"{give}?{urlencode(choice)}",
        expires_at=asked.checkout_expires_at,
    )


def _typed(asked: Asked) -> str:
    return money.decimal_text(asked.amount, asked.currency)


def _is_monthly(asked: Asked) -> bool:
    return isinstance(asked, RecurringGift)


# ---- where a checkout stands: it can be paid, it can't be paid any more, or what it asked for has begun

TO_BEGIN: dict[type[Asked], tuple[str, ...]] = {Gift: ("pending",), RecurringGift: RecurringGift.TO_BEGIN}
OVER: dict[type[Asked], tuple[str, ...]] = {Gift: ("failed", "expired"), RecurringGift: RecurringGift.OVER}


def _status(asked: Asked) -> str:
    if isinstance(asked, RecurringGift):
        return asked.status
    return GiftState.objects.filter(pk=asked.pk).values_list("status", flat=True).first() or "pending"


def _is_begun(asked: Asked) -> bool:
    return _status(asked) not in (*TO_BEGIN[type(asked)], *OVER[type(asked)])


def _begun(kind: type[Asked]) -> QuerySet[Any]:
    """Those that were paid, or are being paid."""
    if kind is RecurringGift:
        return RecurringGift.objects.exclude(status__in=[*RecurringGift.TO_BEGIN, *RecurringGift.OVER])
    return Gift.objects.filter(state__status__in=PAID)


def _must_begin_anew(asked: Asked) -> bool:
    """Whether this checkout can't be paid any more and another must take its place."""
    status = _status(asked)
    if status not in TO_BEGIN[type(asked)]:
        return status in OVER[type(asked)]
    left = (asked.checkout_expires_at or timezone.now()) - timezone.now()
    too_late = left < (timedelta(minutes=1) if asked.checkout_id else SHORTEST_CHECKOUT)
    return asked.superseded_at is not None or too_late


def _open_checkout(asked: Asked) -> None:
    """Ask the processor for the hosted page, with the key and parameters that were saved."""
    until = time.monotonic() + LONGEST_OPENING
    row = type(asked).objects.filter(pk=asked.pk)
    try:
        checkout = _checkout(asked, until)
    except ProcessorRefused as refusal:
        log.warning("checkout of %s refused: %s", asked.pk, refusal.code)
        row.update(refusal=str(refusal)[:300])
        raise
    except ProcessorUnavailable as fault:
        if isinstance(fault, ProcessorBusy) and _is_opened_by_another(asked, until):
            return
        log.warning("checkout of %s not opened: %s", asked.pk, fault)
        raise
    asked.checkout_id, asked.checkout_url = checkout.checkout_id, checkout.url
    row.update(checkout_id=checkout.checkout_id, checkout_url=checkout.url, refusal="")


def _checkout(asked: Asked, until: float) -> Checkout:
    """The hosted page, asked for under the key of this checkout; under the next one where that one is spent."""
    try:
        return _create_checkout(asked, until)
    except AnswerKept as fault:
        log.warning("the processor keeps its failure for the key of %s, another is taken: %s", asked.pk, fault)
        _spend_key(asked)
        return _create_checkout(asked, until)


def _create_checkout(asked: Asked, until: float) -> Checkout:
    parameters: dict[str, Any] = asked.checkout_parameters or {}
    key = f"{asked.pk}-checkout"
    return processors.get(asked.processor).create_checkout(
        parameters,
        f"{key}-{asked.checkout_keys_spent}" if asked.checkout_keys_spent else key,
        email=asked.donor.email if asked.donor else "",
        within=until - time.monotonic(),
    )


def _spend_key(asked: Asked) -> None:
    """Of two requests that meet the same failure, one counts it: both go on with the same key, to one checkout."""
    row = type(asked).objects.filter(pk=asked.pk)
    row.filter(checkout_keys_spent=asked.checkout_keys_spent).update(checkout_keys_spent=F("checkout_keys_spent") + 1)
    asked.refresh_from_db(fields=["checkout_keys_spent"])


def _is_opened_by_another(asked: Asked, until: float) -> bool:
    """Wait for the first of two clicks: it is opening this checkout now, and browsers show the second one's answer."""
    while time.monotonic() < until:
        asked.refresh_from_db(fields=["checkout_id", "checkout_url"])
        if asked.checkout_id:
            return True
        time.sleep(0.1)
    return False


def _supersede_others(asked: Asked) -> None:
    """The reader came back and changed the form: what the same page opened before is closed (see close_superseded)."""
    # Only what is older: of two requests at once, the one that changed the form last keeps its checkout.
    _supersede(asked.page, until=asked.created_at, keep=asked.pk)


def _supersede(page: str, *, until: datetime, keep: str = "") -> None:
    for kind in KINDS:
        earlier = _payable(kind).filter(page=page, superseded_at__isnull=True, created_at__lte=until)
        earlier.exclude(pk=keep).update(superseded_at=timezone.now())


def _payable(kind: type[Asked]) -> QuerySet[Any]:
    """Those whose checkout may still be paid."""
    if kind is RecurringGift:
        return RecurringGift.objects.filter(status__in=RecurringGift.TO_BEGIN)
    return Gift.objects.exclude(state__status__in=[*PAID, *OVER[Gift]])


def close_superseded(limit: int = 20) -> int:
    """Close, at the processor, checkouts that another one took the place of; how many were looked at.

    Apart from the reader's request, which waits for one call at most.
    """
    return sum(_close_superseded(kind, limit) for kind in KINDS)


def _close_superseded(kind: type[Asked], limit: int) -> int:
    superseded = kind.objects.filter(superseded_at__isnull=False).exclude(checkout_url="")[:limit]
    for asked in superseded:
        try:
            processors.get(asked.processor).expire_checkout(asked.checkout_id or "")
        except ProcessorRefused as refusal:
            log.info("checkout of %s was over already: %s", asked.pk, refusal.code)
        except ProcessorUnavailable:
            break
        # Without its address it isn't looked at again.
        kind.objects.filter(pk=asked.pk).update(checkout_url="")
    return len(superseded)


# ---- the thank-you page's address


def thanks_url(asked: Asked) -> str:
    """The address of a gift's thank-you page, or a monthly gift's; it names no one, and cannot be guessed."""
    return f"{settings.SITE_URL}/thanks/{Signer(salt='donations.thanks').sign(asked.pk)}/"


def asked_of_thanks(token: str) -> Asked | None:
    """The gift, or monthly gift, of a thank-you page, or None for an address that we did not make."""
    try:
        reference = Signer(salt="donations.thanks").unsign(token)
    except BadSignature:
        return None
    if reference.startswith("recurring_"):
        return RecurringGift.objects.select_related("campaign").filter(pk=reference).first()
    return Gift.objects.select_related("campaign", "state").filter(pk=reference).first()


# ---- managing a monthly gift


def recurring_of(token: str) -> RecurringGift | None:
    """The monthly gift of the link in its mails, or None for a link that we did not make."""
    try:
        reference = Signer(salt="donations.manage").unsign(token)
    except BadSignature:
        return None
    return RecurringGift.objects.select_related("campaign").filter(pk=reference).first()


def portal_url(recurring: RecurringGift) -> str:
    """The processor's page on which the donor changes the card or stops. It leads back to ours.

    Raises ProcessorUnavailable or ProcessorRefused.
    """
    back = outbox.manage_url(recurring)
    try:
        return processors.get(recurring.processor).portal_url(recurring.subscription, back, within=LONGEST_OPENING)
    except ProcessorRefused as refusal:
        # Nothing that the donor did: most often the portal was never switched on in the processor's dashboard.
        log.error("portal of %s refused (is it switched on at the processor?): %s", recurring.pk, refusal.code)
        raise


# ---- following


def follow(*, campaign: Campaign, email: str, name: str, source: str, page: str) -> None:
    """Keep a follower, and mail the link that confirms it. Says the same whether they follow already or not.

    Who chose to give first, and came back to the same page, has chosen otherwise: what it opened is closed.
    """
    with transaction.atomic():
        donor = Donor.keep(email, name)
        follower, _ = Follower.objects.get_or_create(
            donor=donor, campaign=campaign, livemode=settings.LIVEMODE, defaults={"source": source}
        )
        if follower.confirmed_at is None:
            _ask_to_confirm(follower)
    _supersede(page, until=timezone.now())


def _ask_to_confirm(follower: Follower) -> None:
    """One mail; another only after a while, and not without end: the address may be a stranger's."""
    asked = OutboxMessage.objects.filter(kind="follow", subject_id=str(follower.pk))
    if asked.count() >= MOST_CONFIRMATION_MAILS:
        return
    if not asked.filter(created_at__gt=timezone.now() - ASK_AGAIN_AFTER).exists():
        outbox.enqueue("follow", [str(follower.pk)], round=asked.count())


def follower_of(token: str) -> Follower | None:
    """The follower of a mailed link, or None for a link that we did not make."""
    try:
        identity = Signer(salt="donations.follow").unsign(token)
    except BadSignature:
        return None
    return Follower.objects.select_related("campaign").filter(pk=int(identity)).first()


def confirm_follower(follower: Follower) -> None:
    """Count a follower as a supporter of this month, once."""
    projections.confirm_follower(follower)

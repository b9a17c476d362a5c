"""What people ask for: to give, to follow, to have a refund. Money is booked by none of it; see `inbox`.

Every call to the processor is made outside a transaction, after its key and parameters were saved.
"""

import hashlib
import json
import logging
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth.models import User
from django.core.signing import BadSignature, Signer, TimestampSigner
from django.db import IntegrityError, transaction
from django.utils import timezone

from donations import fees, money, outbox, processors, projections
from donations.fees import Formula
from donations.models import Campaign, Donor, Follower, Gift, GiftState, OutboxMessage, RefundRequest
from donations.models.gifts import new_refund_key
from donations.processors.base import KEY_LASTS, CheckoutOrder, ProcessorBusy, ProcessorRefused, ProcessorUnavailable
from donations.selectors import refunds

log = logging.getLogger(__name__)
PAGE_LASTS = timedelta(days=1)
CHECKOUT_LASTS = timedelta(hours=23)
SHORTEST_CHECKOUT = timedelta(minutes=32)  # the processor wants 30 min at least
LONGEST_OPENING = 3.0  # seconds: a reader waits 4 at most
ASK_AGAIN_AFTER = timedelta(minutes=10)
MOST_CONFIRMATION_MAILS = 5
PAID = ("confirmed", "awaiting")
MOST_CHECKOUTS = 20  # that one form, as it was shown once, may start
SHORTEST_REFUND_WAIT = timedelta(minutes=1)  # longer than a call to the processor can take
LONGEST_REFUND_WAIT = timedelta(hours=1)


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
    return bool(page) and not Gift.objects.filter(page=page, state__status__in=PAID).exists()


# ---- giving


class PageUsedUp(Exception):
    """The form as it was shown has started as many checkouts as one may; a new page token starts others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A reader's filled-in form; `page` identifies the form as it was shown once.

    `amount`, and `fee_cover` which the reader adds to it, are minor units.
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

    def attempt(self, generation: int) -> str:
        """The same form with the same fields is the same attempt, until its checkout is over."""
        fields = [self.campaign.pk, self.amount, self.tier, self.email, self.name, self.message, self.anonymous]
        fields += [self.fee_cover]
        return hashlib.sha256(json.dumps([self.page, generation, *fields]).encode()).hexdigest()


def fee_formula(campaign: Campaign) -> Formula | None:
    """What the processor keeps of a gift to this campaign; None where donors are not asked to add it."""
    return fees.offered(settings.FEE_COVER, processor=processors.default().name, currency=campaign.currency)


def start_gift(intent: Intent) -> str:
    """The address to send the reader to: the hosted page, or the thank-you page of a gift that is paid already.

    Raises ProcessorUnavailable (the same call again makes no second checkout), ProcessorRefused or PageUsedUp.
    """
    gift = _gift_of(intent)
    if _is_over_well(gift):
        return thanks_url(gift)
    if not gift.checkout_id:
        _open_checkout(gift)
    _supersede_others(gift)
    return gift.checkout_url


def _gift_of(intent: Intent) -> Gift:
    """The gift of an attempt: the one of an earlier submission while its checkout lasts, else a new one."""
    for generation in range(MOST_CHECKOUTS):
        attempt = intent.attempt(generation)
        gift = Gift.objects.filter(attempt=attempt).first()
        if gift is None:
            _ensure_room(intent.page)
            gift = _add_gift(intent, attempt)
        if not _must_begin_anew(gift):
            return gift
    raise PageUsedUp


def _ensure_room(page: str) -> None:
    """Of several requests at once, a few may pass: the limit keeps a flood away, and counts no money."""
    if Gift.objects.filter(page=page).count() >= MOST_CHECKOUTS:
        raise PageUsedUp


def _add_gift(intent: Intent, attempt: str) -> Gift:
    try:
        with transaction.atomic():
            donor = keep_donor(intent.email, intent.name) if intent.email else None
            gift = Gift(
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
            gift.checkout_parameters = processors.default().checkout_parameters(_order(gift, intent.email))
            gift.save(force_insert=True)
            return gift
    except IntegrityError:
        # A second click got here first: its gift is the one.
        return Gift.objects.get(attempt=attempt)


def keep_donor(email: str, name: str = "") -> Donor:
    """The donor of this address; a name that is on file is left alone, since anybody can type an address."""
    return Donor.objects.get_or_create(email=email.lower(), defaults={"name": name})[0]


def _order(gift: Gift, email: str) -> CheckoutOrder:
    if gift.checkout_expires_at is None:
        raise ValueError("a checkout needs its end")
    give = f"{settings.SITE_URL}/give/{gift.campaign_id}/"
    choice = {"tier": gift.tier} if gift.tier != "custom" else {"tier": "custom", "amount": _typed(gift)}
    # The reader who goes back comes to the same form: what they send then closes this checkout.
    choice["page"] = page_token(gift.page)
    if gift.fee_cover:
        choice["cover"] = "on"
    return CheckoutOrder(
        reference=gift.pk,
        monthly=False,
        campaign=gift.campaign_id,
        campaign_name=gift.campaign.name,
        amount=gift.amount,
        fee_cover=gift.fee_cover,
        currency=gift.currency,
        email=email,
        success_url=thanks_url(gift),
        cancel_url=f"{give}?{urlencode(choice)}",
        expires_at=gift.checkout_expires_at,
    )


def _typed(gift: Gift) -> str:
    return money.decimal_text(gift.amount, gift.currency)


def _state(gift: Gift) -> str:
    return GiftState.objects.filter(pk=gift.pk).values_list("status", flat=True).first() or "pending"


def _is_over_well(gift: Gift) -> bool:
    return _state(gift) in PAID


def _must_begin_anew(gift: Gift) -> bool:
    """Whether this gift's checkout can't be paid any more and another must take its place."""
    status = _state(gift)
    if status in PAID:
        return False
    left = (gift.checkout_expires_at or timezone.now()) - timezone.now()
    too_late = left < (timedelta(minutes=1) if gift.checkout_id else SHORTEST_CHECKOUT)
    return status in {"failed", "expired"} or gift.superseded_at is not None or too_late


def _open_checkout(gift: Gift) -> None:
    """Ask the processor for the hosted page, with the key and parameters that were saved."""
    parameters: dict[str, Any] = gift.checkout_parameters or {}
    try:
        checkout = processors.get(gift.processor).create_checkout(parameters, f"{gift.pk}-checkout")
    except ProcessorRefused as refusal:
        log.warning("checkout of %s refused: %s", gift.pk, refusal.code)
        Gift.objects.filter(pk=gift.pk).update(refusal=str(refusal)[:300])
        raise
    except ProcessorUnavailable as fault:
        if isinstance(fault, ProcessorBusy) and _is_opened_by_another(gift):
            return
        log.warning("checkout of %s not opened: %s", gift.pk, fault)
        raise
    gift.checkout_id, gift.checkout_url = checkout.checkout_id, checkout.url
    Gift.objects.filter(pk=gift.pk).update(checkout_id=checkout.checkout_id, checkout_url=checkout.url, refusal="")


def _is_opened_by_another(gift: Gift) -> bool:
    """Wait for the first of two clicks: it is opening this checkout now, and browsers show the second one's answer."""
    end = time.monotonic() + LONGEST_OPENING
    while time.monotonic() < end:
        gift.refresh_from_db(fields=["checkout_id", "checkout_url"])
        if gift.checkout_id:
            return True
        time.sleep(0.1)
    return False


def _supersede_others(gift: Gift) -> None:
    """The reader came back and changed the form: what the same page opened before is closed (see close_superseded)."""
    # Only what is older: of two requests at once, the one that changed the form last keeps its checkout.
    others = Gift.objects.filter(page=gift.page, superseded_at__isnull=True).exclude(pk=gift.pk)
    earlier = others.filter(created_at__lte=gift.created_at)
    earlier.exclude(state__status__in=[*PAID, "failed", "expired"]).update(superseded_at=timezone.now())


def close_superseded(limit: int = 20) -> int:
    """Close, at the processor, checkouts that another one took the place of; how many were looked at.

    Apart from the reader's request, which waits for one call at most.
    """
    superseded = Gift.objects.filter(superseded_at__isnull=False).exclude(checkout_url="")[:limit]
    for gift in superseded:
        try:
            processors.get(gift.processor).expire_checkout(gift.checkout_id or "")
        except ProcessorRefused as refusal:
            log.info("checkout of %s was over already: %s", gift.pk, refusal.code)
        except ProcessorUnavailable:
            break
        # Without its address it isn't looked at again.
        Gift.objects.filter(pk=gift.pk).update(checkout_url="")
    return len(superseded)


# ---- the thank-you page's address


def thanks_url(gift: Gift) -> str:
    """The address of a gift's thank-you page; it names no one, and cannot be guessed."""
    return f"{settings.SITE_URL}/thanks/{Signer(salt='donations.thanks').sign(gift.pk)}/"


def gift_of_thanks(token: str) -> Gift | None:
    """The gift of a thank-you page, or None for an address that we did not make."""
    try:
        reference = Signer(salt="donations.thanks").unsign(token)
    except BadSignature:
        return None
    return Gift.objects.select_related("campaign", "state").filter(pk=reference).first()


# ---- following


def follow(*, campaign: Campaign, email: str, name: str, source: str) -> None:
    """Keep a follower, and mail the link that confirms it. Says the same whether they follow already or not."""
    with transaction.atomic():
        donor = keep_donor(email, name)
        follower, _ = Follower.objects.get_or_create(
            donor=donor, campaign=campaign, livemode=settings.LIVEMODE, defaults={"source": source}
        )
        if follower.confirmed_at is None:
            _ask_to_confirm(follower)


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


# ---- refunds


class RefundRefused(Exception):
    """A refund that can't be asked for; its text says why and what to do."""


class AskedAlready(RefundRefused):
    """A refund that was asked for before under the same key: by the first press of the button. `first` is that one."""

    def __init__(self, first: RefundRequest) -> None:
        super().__init__("This refund was asked for already. Nothing was asked for a second time.")
        self.first = first


def request_refund(*, gift: Gift, amount: int, reason: str, user: User | None, key: str = "") -> RefundRequest:
    """Ask the processor to give back `amount` minor units. The ledger changes when its event comes.

    Of two calls with one `key` the first alone asks; the other raises AskedAlready. Raises RefundRefused.
    A processor that doesn't answer leaves the request open; it is sent again, with its own key.
    """
    if amount <= 0:
        raise RefundRefused("Give an amount above zero.")
    key = key or new_refund_key()
    try:
        with transaction.atomic():
            # Its unique key decides between two at once: the second waits here until the first is committed.
            request = RefundRequest.objects.create(
                key=key,
                gift=gift,
                amount=amount,
                reason=reason[:200],
                requested_by=user,
                next_try_at=timezone.now() + SHORTEST_REFUND_WAIT,
            )
            if not projections.reserve_refund(gift=gift.pk, amount=amount):
                raise RefundRefused("That is more than is left of this gift: look at the refunds that were asked for.")
    except IntegrityError:
        first = asked_already(key)
        if first is None:
            raise
        raise AskedAlready(first) from None
    send_refund(request)
    return request


def asked_already(key: str) -> RefundRequest | None:
    """The refund that was asked for under this key."""
    return RefundRequest.objects.filter(key=key).first()


def send_refund(request: RefundRequest) -> None:
    """Send a request with the key that it was saved with; safe to repeat. Raises RefundRefused."""
    payment = GiftState.objects.values_list("payment", flat=True).get(pk=request.gift_id)
    try:
        refund_id = processors.get(request.gift.processor).refund(payment, request.amount, request.key)
    except ProcessorUnavailable as fault:
        log.warning("refund %s not sent: %s", request.key, fault)
        RefundRequest.objects.filter(pk=request.pk).update(error=str(fault)[:300])
        return
    except ProcessorRefused as refusal:
        projections.release_refund(request=request, status="refused", error=str(refusal))
        raise RefundRefused(f"The payment service refused it: {refusal.reader_text}") from refusal
    RefundRequest.objects.filter(pk=request.pk, status="sending").update(
        status="accepted", refund_id=refund_id, error=""
    )


def send_refunds_again(limit: int = 20) -> int:
    """Send requests that the processor didn't answer, each ever later; how many were sent by this call."""
    now = timezone.now()
    due = RefundRequest.objects.select_related("gift").filter(
        status="sending", next_try_at__lte=now, requested_at__gt=now - KEY_LASTS
    )
    sent = 0
    for request in due.order_by("next_try_at")[:limit]:
        if not _claim(request):
            continue
        sent += 1
        try:
            send_refund(request)
        except RefundRefused as refusal:
            log.warning("refund %s: %s", request.key, refusal)
    return sent


def _claim(request: RefundRequest) -> bool:
    """Take it for ourselves until its next try: in one minute, and as late again as it is old, up to an hour."""
    now = timezone.now()
    wait = min(LONGEST_REFUND_WAIT, max(SHORTEST_REFUND_WAIT, now - request.requested_at))
    # The condition decides between two processes: one of them changes the row.
    free = RefundRequest.objects.filter(pk=request.pk, status="sending", next_try_at__lte=now)
    return bool(free.update(next_try_at=now + wait))


def give_up_refund(request: RefundRequest) -> None:
    """Free what an unanswered request had set aside; staff looked for it at the processor, and it is not there.

    Raises RefundRefused for one that was answered, or that may still be sent. Should it exist after all, its event is
    booked as that of any refund made in the processor's own dashboard.
    """
    with transaction.atomic():
        # Locked: its event may come at this very moment.
        still_open = refunds.unanswered(now=timezone.now()).select_for_update(no_key=True)
        if not still_open.filter(pk=request.pk).exists():
            raise RefundRefused("This refund has its answer, or is still being sent. Nothing was changed.")
        projections.release_refund(request=request, status="given_up")

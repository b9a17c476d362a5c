"""What staff ask for: to give money back. Nothing is booked by it; see `inbox`.

Every call to the processor is made outside a transaction, after its key and parameters were saved.
"""

import logging
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from donations import money, processors, projections
from donations.models import Gift, GiftState, RefundRequest
from donations.models.gifts import new_refund_key
from donations.processors.base import (
    KEY_LASTS,
    MORE_THAN_LEFT,
    AnswerKept,
    ProcessorRefused,
    ProcessorUnavailable,
)
from donations.selectors import refunds

log = logging.getLogger(__name__)
SHORTEST_REFUND_WAIT = timedelta(minutes=1)  # about as long as the calls take; who overlap send under one key
LONGEST_REFUND_WAIT = timedelta(hours=1)


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
            if odd := odd_words(amount, gift.currency, left=refunds.left_of(gift.pk)):
                raise RefundRefused(odd)
            if not projections.reserve_refund(gift=gift.pk, amount=amount):
                raise RefundRefused("That is more than is left of this gift: look at the refunds that were asked for.")
    except IntegrityError:
        first = asked_already(key)
        if first is None:
            raise
        raise AskedAlready(first) from None
    send_refund(request)
    return request


def odd_words(amount: int, currency: str, *, left: int) -> str:
    """Why the processor would not give back so many minor units, and what to type; empty where it does.

    All that is left can be given back, whatever it is.
    """
    if amount == left or money.is_in_steps(amount, currency):
        return ""
    if money.is_in_steps(left, currency):
        return money.step_words(amount, currency)
    step, all_of_it = (money.format_minor(minor, currency) for minor in (money.step(currency), left))
    return f"Type a multiple of {step}, or {all_of_it}, which is all that is left of this gift."


def asked_already(key: str) -> RefundRequest | None:
    """The refund that was asked for under this key."""
    return RefundRequest.objects.filter(key=key).first()


def send_refund(request: RefundRequest) -> None:
    """Send a request with the key that is saved for it; safe to repeat, also at once. Raises RefundRefused.

    An answer that the processor keeps spends the key, and the next try goes on under another one. By then the spent one
    can make no refund any more; whether it made one before it failed is looked up before each use of another.
    """
    payment = GiftState.objects.values_list("payment", flat=True).get(pk=request.gift_id)
    try:
        refund_id = _made_before(request, payment) or _refund(request, payment)
    except ProcessorUnavailable as fault:
        log.warning("refund %s not sent: %s", request.key, fault)
        if isinstance(fault, AnswerKept):
            _spend_key(request)
        RefundRequest.objects.filter(pk=request.pk, status="sending").update(error=str(fault)[:300])
        return
    except ProcessorRefused as refusal:
        words = _refusal_words(request.gift.processor, refusal)
        projections.release_refund(request=request, status="refused", error=f"{refusal.code}: {words}")
        raise RefundRefused(f"The payment service refused it: {words}") from refusal
    RefundRequest.objects.filter(pk=request.pk, status="sending").update(
        status="accepted", refund_id=refund_id, error=""
    )


def _refund(request: RefundRequest, payment: str) -> str:
    key = f"{request.key}-{request.keys_spent}" if request.keys_spent else request.key
    return processors.get(request.gift.processor).refund(payment, request.amount, request.key, key)


def _made_before(request: RefundRequest, payment: str) -> str:
    """The refund that a spent key made though it failed; empty where there is none. Raises ProcessorUnavailable."""
    if not request.keys_spent:
        return ""
    try:
        found = processors.get(request.gift.processor).refund_of(payment, request.key)
    except ProcessorRefused as refusal:
        # Whoever cannot look does not know, and it is the list that was refused: the refund is not.
        raise ProcessorUnavailable(f"its refunds cannot be listed: {refusal.code}") from refusal
    # Or its event has come while we looked.
    return found or RefundRequest.objects.values_list("refund_id", flat=True).get(pk=request.pk)


def _spend_key(request: RefundRequest) -> None:
    """Of several who are told the same failure, one counts it: all go on with the same key, to one refund."""
    row = RefundRequest.objects.filter(pk=request.pk, status="sending", keys_spent=request.keys_spent)
    row.update(keys_spent=F("keys_spent") + 1)


REFUSALS = {
    "charge_disputed": "this payment is disputed. Answer or accept the dispute in its dashboard: "
    "if it is lost, the donor has the money back.",
    "charge_already_refunded": "all of this payment was given back already. Look at its refunds in its dashboard: "
    "one that is not here yet arrives within an hour.",
    MORE_THAN_LEFT: "less is left of this payment than was asked for. Look at its refunds in its dashboard: "
    "one that is not here yet arrives within an hour. Then ask for what is left.",
}


def _refusal_words(processor: str, refusal: ProcessorRefused) -> str:
    """Why, and what staff can do: the processor's own sentence is for readers, who may choose another amount."""
    if processor == processors.OFFLINE:
        return refusal.reader_text  # staff alone have to do with that one
    general = f"its code is “{refusal.code}”. Look at the payment in its dashboard, which says what can be done."
    return REFUSALS.get(refusal.code, general)


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
    is_ours = bool(free.update(next_try_at=now + wait))
    if is_ours:
        request.refresh_from_db(fields=["keys_spent"])  # another may have sent it since it was read
    return is_ours


def give_up_refund(request: RefundRequest) -> None:
    """Free what an unanswered request had set aside; staff looked for it at the processor, and it is not there.

    Raises RefundRefused for one that was answered, or that may still be sent. Should it exist after all, its event is
    booked as that of any refund made in the processor's own dashboard.
    """
    with transaction.atomic():
        # Its event, or its answer, may come at this very moment.
        projections.hold_gift(request.gift_id)
        still_open = refunds.unanswered(now=timezone.now()).select_for_update(no_key=True)
        if not still_open.filter(pk=request.pk).exists():
            raise RefundRefused("This refund has its answer, or is still being sent. Nothing was changed.")
        projections.release_refund(request=request, status="given_up")

"""Offline gifts and adjustments: what staff enter, what a second person approves, and how it gets into the books.

Staff write no entry. What they enter becomes an inbox event, as all money does, and is booked in the transaction in
which it is entered or approved: what cannot be booked is refused in words, and nothing stands.
"""

import logging
from datetime import date
from unicodedata import normalize

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from donations import inbox, letters, money, periods
from donations.models import Campaign, Donor, Gift, GiftState, InboxEvent, OfflineRequest, Tier
from donations.models.campaigns import CUSTOM, LARGEST_GOAL
from donations.models.offline import key_of
from donations.processors import OFFLINE
from donations.processors.facts import Adjusted, OfflineReceived
from donations.processors.offline import Told, event_body, movement
from donations.selectors import refunds

log = logging.getLogger(__name__)
Kind = OfflineRequest.Kind
Status = OfflineRequest.Status
FIRST_DAY = date(2000, 1, 1)  # no earlier month has a page
LARGEST = LARGEST_GOAL  # minor units
LONGEST_REFERENCE = 100
LONGEST_REASON = 200


class OfflineRefused(Exception):
    """What cannot be entered, approved or rejected; its text says why, `field` which of what was entered is wrong."""

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.field = field


class EnteredAlready(OfflineRefused):
    """A reference that stands already. `first` is what stands under it.

    `is_same`: the same person entered the very same, so that this is the second press of the button.
    """

    def __init__(self, first: OfflineRequest, *, is_same: bool) -> None:
        of = f" of {first.gift_id}" if first.kind == Kind.ADJUSTMENT and first.gift_id else ""
        amount = money.format_minor(first.amount, first.currency)
        super().__init__(
            f"An {first.get_kind_display()}{of} with the reference “{first.reference}” was entered for this campaign "
            f"on {first.requested_at:%Y-%m-%d} UTC: {amount} for {first.day}. It is {first.get_status_display()}. "
            "Look whether it is the same money; other money needs a reference of its own, "
            f"such as “{first.reference}/2”.",
            "reference",
        )
        self.first, self.is_same = first, is_same


# ---- entering


def record_gift(
    *,
    campaign: Campaign,
    amount: int,
    day: date,
    method: str,
    reference: str,
    reason: str,
    user: User,
    email: str = "",
    name: str = "",
    message: str = "",
    anonymous: bool = False,
) -> OfflineRequest:
    """Enter a gift of `amount` minor units that came on `day`; booked, or waiting where it is above the limit.

    The name is shown to the public unless the donor is anonymous; an address gets the receipt. Raises OfflineRefused.
    """
    request = OfflineRequest(
        kind=Kind.OFFLINE_GIFT,
        campaign=campaign,
        currency=campaign.currency,
        amount=amount,
        day=day,
        method=method,
        reference=_tidy(reference),
        reference_key=key_of(_tidy(reference)),
        reason=_tidy(reason),
        livemode=settings.LIVEMODE,
        requested_by=user,
    )
    if amount <= 0:
        raise OfflineRefused("Give an amount above zero. What was given back is an adjustment.", "amount")
    if method not in OfflineRequest.Method.values:
        raise OfflineRefused("Say how the money came.", "method")
    if not money.is_in_steps(amount, campaign.currency):
        raise OfflineRefused(money.step_words(amount, campaign.currency), "amount")
    gift = Gift(
        campaign=campaign,
        tier=_tier(campaign, amount),
        currency=campaign.currency,
        amount=amount,
        public_name=name,
        message=message,
        anonymous=anonymous,
        source=OFFLINE,
        livemode=settings.LIVEMODE,
        processor=OFFLINE,
    )
    return _enter(request, new_gift=gift, email=email)


def record_adjustment(
    *,
    campaign: Campaign,
    amount: int,
    day: date,
    reference: str,
    reason: str,
    user: User,
    gift: Gift | None = None,
) -> OfflineRequest:
    """Enter an adjustment of `amount` minor units, signed: of a gift, which it lowers or lifts again, or of a campaign.

    One of a gift moves its month's bar; one of a campaign stands in the ledger alone, and may be of any amount: it puts
    right what the processor's books have, fees among them. Raises OfflineRefused.
    """
    request = OfflineRequest(
        kind=Kind.ADJUSTMENT,
        campaign=campaign,
        gift=gift,
        currency=gift.currency if gift else campaign.currency,
        amount=amount,
        day=day,
        reference=_tidy(reference),
        reference_key=key_of(_tidy(reference)),
        reason=_tidy(reason),
        livemode=settings.LIVEMODE,
        requested_by=user,
    )
    if amount == 0:
        raise OfflineRefused("Give an amount above zero.", "amount")
    if gift and gift.campaign_id != campaign.pk:
        raise OfflineRefused(f"This gift is of another campaign: {gift.campaign}.", "gift")
    return _enter(request)


def limit_in(currency: str) -> int:
    """What one person may enter alone, minor units."""
    return int(settings.APPROVAL_LIMIT * 10 ** money.exponent(currency))


def needs_second_person(amount: int, currency: str) -> bool:
    """Whether so many minor units are above the limit of what one person may enter alone."""
    return abs(amount) > limit_in(currency)


def _enter(request: OfflineRequest, *, new_gift: Gift | None = None, email: str = "") -> OfflineRequest:
    _refuse_what_cannot_be(request)
    _refuse_second(request, new_gift, email)
    try:
        with transaction.atomic():
            if new_gift:
                new_gift.donor = Donor.keep(email, new_gift.public_name) if email else None
                new_gift.save(force_insert=True)
                request.gift = new_gift
            if not needs_second_person(request.amount, request.currency):
                request.status = Status.BOOKED
            # Its unique reference decides between two at once: the second waits here until the first is committed.
            request.save(force_insert=True)
            if request.gift and not new_gift:
                _refuse_beyond_the_gift(request)
            if request.status == Status.BOOKED:
                _book(request)
    except IntegrityError:
        _refuse_second(request, new_gift, email)
        raise
    log.info("%s %s entered by user %s: %s", request.kind, request.pk, request.requested_by_id, request.status)
    return request


def _tier(campaign: Campaign, amount: int) -> str:
    """The tier of this amount, as a gift remembers it; else that it is of the donor's own choice."""
    offered = {tier.amount_minor for tier in campaign.tiers.filter(frequency=Tier.Frequency.ONCE)}
    return money.decimal_text(amount, campaign.currency) if amount in offered else CUSTOM


# ---- what cannot be


def _tidy(text: str) -> str:
    return " ".join(normalize("NFC", text).split())


def _refuse_what_cannot_be(request: OfflineRequest) -> None:
    if abs(request.amount) > LARGEST:
        largest = money.format_minor(LARGEST, request.currency)
        raise OfflineRefused(f"The largest amount that can be entered is {largest}.", "amount")
    for field, longest in (("reference", LONGEST_REFERENCE), ("reason", LONGEST_REASON)):
        _refuse_text(getattr(request, field), field, longest)
    today = periods.local_date(timezone.now(), request.campaign.time_zone)
    if not FIRST_DAY <= request.day <= today:
        raise OfflineRefused(
            f"Give a day from {FIRST_DAY} to today, which is {today} where the campaign is.",
            "day",
        )


def _refuse_text(text: str, field: str, longest: int) -> None:
    if not text:
        raise OfflineRefused(f"Give a {field}.", field)
    # Without controls, as in the ledger, whose reference it becomes part of; spaces are tidied before.
    if len(text) > longest or letters.CONTROL.search(text):
        raise OfflineRefused(f"Write the {field} in {longest} plain letters at most.", field)
    if unseen := letters.first_unseen(text):
        raise OfflineRefused(
            f"The {field} has a character that nobody sees (U+{ord(unseen):04X}): "
            f"delete what you pasted, and type the {field}.",
            field,
        )


def _refuse_second(request: OfflineRequest, new_gift: Gift | None, email: str) -> None:
    if first := _standing(request).select_related("requested_by", "gift__donor").first():
        raise EnteredAlready(first, is_same=_entered(first) == _entered(request, new_gift, email))


def _entered(request: OfflineRequest, new_gift: Gift | None = None, email: str = "") -> list[object]:
    """All that was entered, and by whom; of one that stands it is read from its gift too."""
    typed = [getattr(request, name) for name in ("requested_by_id", "amount", "day", "method", "reference", "reason")]
    if request.kind == Kind.ADJUSTMENT:
        return [*typed, request.gift_id]
    gift = new_gift or request.gift
    if gift is None:
        return typed
    address = email.lower() if new_gift else gift.donor.email if gift.donor else ""
    return [*typed, address, gift.public_name, gift.message, gift.anonymous]


def _standing(request: OfflineRequest) -> QuerySet[OfflineRequest]:
    """What was entered in the same mode under the same reference, however it is written, and was not rejected."""
    of_kind = OfflineRequest.objects.filter(campaign=request.campaign, kind=request.kind, livemode=request.livemode)
    # As the constraint compares them.
    return of_kind.filter(reference_key=request.reference_key).exclude(status=Status.REJECTED)


def _refuse_beyond_the_gift(request: OfflineRequest) -> None:
    """Refuse what would take more than is held, or give more than was taken. The gift stays locked until the commit."""
    gift = Gift.objects.select_for_update(no_key=True).get(pk=request.gift_id)
    state = GiftState.objects.select_for_update(no_key=True).filter(pk=gift.pk).first()
    if state is None or state.status != GiftState.Status.CONFIRMED or state.local_date is None:
        raise OfflineRefused("This gift is not in the books: nothing of it can be adjusted.", "gift")
    if gift.livemode != settings.LIVEMODE:
        raise OfflineRefused("This gift is of the other mode, test or live.", "gift")
    if request.day < state.local_date:
        raise OfflineRefused(f"The gift came on {state.local_date}: give that day or a later one.", "day")
    if request.amount < -(left := refunds.left_of(gift.pk)):
        held = money.format_minor(left, gift.currency)
        raise OfflineRefused(f"No more than {held} is still held of this gift.", "amount")
    if request.amount > max(0, -state.adjusted):
        taken = money.format_minor(max(0, -state.adjusted), gift.currency)
        raise OfflineRefused(
            f"Earlier adjustments took {taken} from this gift: no more can be given again to it. "
            "Enter new money as an offline gift.",
            "amount",
        )
    # All that is left can be taken, and all that was taken be given again, whatever it is.
    whole = -left if request.amount < 0 else -state.adjusted
    if request.amount != whole and not money.is_in_steps(request.amount, gift.currency):
        raise OfflineRefused(money.step_words(abs(request.amount), gift.currency), "amount")


# ---- deciding


def approve(request: OfflineRequest, *, user: User, reason: str = "") -> None:
    """Have it booked, by another person than the one who entered it. Raises OfflineRefused; nothing is decided then."""
    if request.requested_by_id == user.pk:
        raise OfflineRefused("You entered it yourself: another person approves it.")
    try:
        with transaction.atomic():
            _decide(request, user=user, status=Status.BOOKED, reason=reason)
            if request.kind == Kind.ADJUSTMENT and request.gift:
                _refuse_beyond_the_gift(request)
            _book(request)
    finally:
        request.refresh_from_db()


def reject(request: OfflineRequest, *, user: User, reason: str) -> None:
    """Close it without booking; who entered it may do so too. Raises OfflineRefused.

    The gift made for it goes, and its donor, unless that one gave or follows otherwise.
    """
    if not _tidy(reason):
        raise OfflineRefused("Give a reason: the person who entered it will ask for it.", "reason")
    with transaction.atomic():
        gift = request.gift
        _decide(request, user=user, status=Status.REJECTED, reason=reason)
        if request.kind == Kind.OFFLINE_GIFT and gift:
            OfflineRequest.objects.filter(pk=request.pk).update(gift=None)
            # It never was in the books; with it go the donor's name and words.
            Gift.objects.filter(pk=gift.pk, processor=OFFLINE).delete()
            if gift.donor_id:
                _forget(gift.donor_id)
    request.refresh_from_db()


def _forget(donor: int) -> None:
    """Delete a donor whom no gift, no monthly gift and nobody's following names any more."""
    # Whoever names them at this moment waits for the lock, or is seen below: no gift loses its donor.
    Donor.objects.select_for_update().filter(pk=donor).first()
    Donor.objects.filter(pk=donor, gifts=None, recurringgifts=None, follows=None).delete()


def _decide(request: OfflineRequest, *, user: User, status: str, reason: str) -> None:
    # The condition decides between two people who decide at once: one of them changes the row.
    decided = OfflineRequest.objects.filter(pk=request.pk, status=Status.WAITING).update(
        status=status, decided_by=user, decided_at=timezone.now(), decision_reason=_tidy(reason)[:LONGEST_REASON]
    )
    if not decided:
        raise OfflineRefused("It does not wait for approval any more: somebody has decided.")


# ---- booking


def _book(request: OfflineRequest) -> None:
    """Put it into the inbox and have it booked, in the caller's transaction. Raises OfflineRefused."""
    if request.livemode != settings.LIVEMODE:
        raise OfflineRefused("It was entered in the other mode, test or live: it cannot be booked in this one.")
    fact = _fact(request)
    event_id = f"staff:{request.kind}:{fact.reference}"
    body = event_body(fact, livemode=request.livemode, created=timezone.now())
    staff = InboxEvent.Origin.STAFF
    if not inbox.put(processor=OFFLINE, origin=staff, event_id=event_id, type=request.kind, body=body):
        # A version before this one gave what was a test the name of what is live.
        raise OfflineRefused(
            "This reference is in the books already, as a test: add something to it, such as the year.", "reference"
        )
    try:
        inbox.book_now(processor=OFFLINE, event_id=event_id)
    except inbox.CannotBook as refusal:
        raise OfflineRefused(f"It could not be booked: {refusal}.") from refusal


def _fact(request: OfflineRequest) -> Told:
    shape = OfflineReceived if request.kind == Kind.OFFLINE_GIFT else Adjusted
    return shape(
        gift=request.gift_id or "",
        campaign=request.campaign_id,
        reference=movement(request.campaign_id, request.reference, livemode=request.livemode),
        amount=request.amount,
        currency=request.currency,
        occurred_at=periods.day_start(request.day, request.campaign.time_zone),
    )

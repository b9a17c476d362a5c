"""Erasing a person: their address, name and words, and every stored body that names them; no figure changes.

What stays tells nobody who it was: gifts, entries, facts, counted followers. The processor keeps its own.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from donations import inbox
from donations.models import Donor, Follower, Gift, GiftState, InboxEvent, RecurringGift

PAYMENT_PAGE_LASTS = timedelta(days=1)  # the processor's longest: docs.stripe.com/api/checkout/sessions
ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
PAGE = 200  # rows: each may bring a body of 256 KB
Status = RecurringGift.Status


class CannotErase(Exception):
    """A person of whom something is still under way; its text says what, and what to do."""


@dataclass(frozen=True, slots=True)
class Erased:
    """How much named them. `followings` were kept if they are counted, without whose they are."""

    gifts: int
    monthly_gifts: int
    followings: int
    events: int


def erase(donor: int) -> Erased:
    """Erase the person of this number, for good. Raises CannotErase, and Donor.DoesNotExist.

    Every stored body is looked at, a page at a time and before anything is locked: a minute for some 100,000 events.
    """
    address = Donor.objects.get(pk=donor).email
    naming, last = _events_naming(address)
    with transaction.atomic():
        # In the order of bookings. Whoever names the donor at this moment waits, or is seen as something under way.
        monthly = list(RecurringGift.objects.select_for_update().filter(donor=donor).order_by("pk"))
        gifts = list(Gift.objects.select_for_update().filter(donor=donor).order_by("pk"))
        person = Donor.objects.select_for_update().get(pk=donor)
        naming += _events_naming(address, after=last - PAGE)[0]  # what came meanwhile
        events = _bodies({*naming, *_about(gifts, monthly)})
        _refuse_what_is_under_way(person, gifts, monthly)
        _refuse_what_is_unsettled(events)
        followings = Follower.objects.filter(donor=donor)
        erased = Erased(len(gifts), len(monthly), followings.count(), inbox.erase_bodies(events))
        for rows in (Gift.objects, RecurringGift.objects):
            rows.filter(donor=donor).update(public_name="", message="")
        followings.filter(confirmed_at=None).delete()
        person.delete()
    return erased


def erase_traces(address: str) -> Erased:
    """Erase what names this address: its donor, if there is one, and the bodies that came since there is none."""
    donor = Donor.objects.filter(email=address.lower()).first()
    if donor:
        return erase(donor.pk)
    naming, _ = _events_naming(address.lower())
    with transaction.atomic():
        events = _bodies(naming)
        _refuse_what_is_unsettled(events)
        return Erased(0, 0, 0, inbox.erase_bodies(events))


def _bodies(numbers: Iterable[int]) -> QuerySet[InboxEvent]:
    """These events, where the processor's words still stand; what staff told names nobody."""
    return InboxEvent.objects.filter(pk__in=numbers, body__isnull=False).exclude(origin=InboxEvent.Origin.STAFF)


def _events_naming(address: str, after: int = 0) -> tuple[list[int], int]:
    """The numbers of stored events whose body has this address, however it was typed; and the last that was read."""
    either = "|".join(re.escape(written) for written in (address, quote(address).lower()))
    # Not as a part of another one: a@example.org is neither in aa@example.org nor in a@example.org.au.
    named = re.compile(rf"(?<![\w.+-])(?:{either})(?![\w-]|\.\w)")
    bodies = InboxEvent.objects.filter(body__isnull=False).order_by("pk").values_list("pk", "body")
    found, last = list[int](), after
    while page := list(bodies.filter(pk__gt=last)[:PAGE]):
        found += [number for number, body in page if body and named.search(_text(bytes(body)))]
        last = page[-1][0]
    return found, last


def _text(body: bytes) -> str:
    """A JSON text in small letters, as it is read: what is escaped is no part of a word beside it."""
    told = body.decode("utf-8", "replace")
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else " ", told).lower()


def _about(gifts: list[Gift], monthly: list[RecurringGift]) -> set[int]:
    """The numbers of events about what they gave: some name them without their address."""
    references = [gift.pk for gift in (*gifts, *monthly)]
    payments = list(GiftState.objects.filter(gift__in=gifts).exclude(payment="").values_list("payment", flat=True))
    events = InboxEvent.objects.values_list("pk", flat=True)
    # The indexes hold no "", and that none is wanted must be said.
    of_gifts = events.filter(gift_reference__in=references).exclude(gift_reference="")
    return {*of_gifts, *events.filter(payment__in=payments).exclude(payment="")}


def _refuse_what_is_under_way(person: Donor, gifts: list[Gift], monthly: list[RecurringGift]) -> None:
    """Else what comes next would name them anew."""
    for arrangement in monthly:
        if arrangement.status in RecurringGift.ALIVE:
            raise CannotErase(
                f"Monthly gift {arrangement.pk} is {arrangement.get_status_display()}: cancel it in the processor’s "
                "dashboard, wait until the site shows it as canceled, and erase then."
            )
    since = timezone.now() - PAYMENT_PAGE_LASTS
    states = GiftState.objects.in_bulk([gift.pk for gift in gifts])
    under_way = [gift.pk for gift in gifts if _may_be_paid(gift, states.get(gift.pk), since)]
    under_way += [gift.pk for gift in monthly if gift.status == Status.PENDING and gift.created_at > since]
    if under_way:
        raise CannotErase(
            f"The payment of {under_way[0]} may be under way: erase a day after it was begun, or, where it is "
            "awaiting, once the bank has decided."
        )
    if person.gifts.count() != len(gifts) or person.recurringgifts.count() != len(monthly):
        raise CannotErase("They have just begun to give: erase a day after that.")


def _may_be_paid(gift: Gift, state: GiftState | None, since: datetime) -> bool:
    if state is None or state.status == GiftState.Status.PENDING:
        return gift.created_at > since
    return state.status == GiftState.Status.AWAITING


def _refuse_what_is_unsettled(events: QuerySet[InboxEvent]) -> None:
    """Without their bodies they could not be booked."""
    unsettled = events.filter(state__in=["ready", "waiting", "quarantined"]).count()
    if unsettled:
        raise CannotErase(
            f"Stored events that name them are not settled ({unsettled:,}): run manage.py drain, accept or dismiss "
            "what is in quarantine, and erase then."
        )

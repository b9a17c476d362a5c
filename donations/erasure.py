"""Erasing a person: their address, name and words, and every stored body that names them; no figure changes.

What stays tells nobody who it was: gifts, entries, facts, counted followers. The processor keeps its own.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from donations import inbox
from donations.models import Donor, Follower, Gift, GiftState, InboxEvent, RecurringGift

PAYMENT_PAGE_LASTS = timedelta(days=1)  # the processor's longest: docs.stripe.com/api/checkout/sessions
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
    naming = list(_events_naming(Donor.objects.get(pk=donor).email))
    with transaction.atomic():
        # In the order of bookings. Whoever names the donor at this moment waits, or is seen as something under way.
        monthly = list(RecurringGift.objects.select_for_update().filter(donor=donor).order_by("pk"))
        gifts = list(Gift.objects.select_for_update().filter(donor=donor).order_by("pk"))
        person = Donor.objects.select_for_update().get(pk=donor)
        events = InboxEvent.objects.filter(Q(pk__in=naming) | _about(gifts, monthly))
        events = events.filter(body__isnull=False).exclude(origin=InboxEvent.Origin.STAFF)
        _refuse_what_is_under_way(person, gifts, monthly, events)
        followings = Follower.objects.filter(donor=donor)
        erased = Erased(len(gifts), len(monthly), followings.count(), inbox.erase_bodies(events))
        for rows in (Gift.objects, RecurringGift.objects):
            rows.filter(donor=donor).update(public_name="", message="")
        followings.filter(confirmed_at=None).delete()
        person.delete()
    return erased


def _events_naming(address: str) -> Iterator[int]:
    """The numbers of stored events whose body has this address, in whatever case it was typed."""
    written = {address, json.dumps(address)[1:-1].lower()}
    either = b"|".join(re.escape(one.encode()) for one in sorted(written))
    # Not as a part of another one: a@example.org is neither in aa@example.org nor in a@example.org.au.
    named = re.compile(rb"(?<![\w.+-])(?:" + either + rb")(?![\w-]|\.\w)")
    bodies, last = InboxEvent.objects.filter(body__isnull=False).order_by("pk").values_list("pk", "body"), 0
    while page := list(bodies.filter(pk__gt=last)[:PAGE]):
        yield from (number for number, body in page if body and named.search(bytes(body).lower()))
        last = page[-1][0]


def _about(gifts: list[Gift], monthly: list[RecurringGift]) -> Q:
    """Events about what they gave: some name them without their address."""
    references = [gift.pk for gift in (*gifts, *monthly)]
    payments = GiftState.objects.filter(gift__in=gifts).exclude(payment="").values_list("payment", flat=True)
    return Q(gift_reference__in=references) | Q(payment__in=list(payments))


def _refuse_what_is_under_way(
    person: Donor, gifts: list[Gift], monthly: list[RecurringGift], events: QuerySet[InboxEvent]
) -> None:
    """Else what comes next would name them anew, or could not be booked."""
    for arrangement in monthly:
        if arrangement.status in RecurringGift.ALIVE:
            raise CannotErase(
                f"Monthly gift {arrangement.pk} is {arrangement.get_status_display()}: cancel it in the processor’s "
                "dashboard, wait until the site shows it as canceled, and erase then."
            )
    since = timezone.now() - PAYMENT_PAGE_LASTS
    under_way = [gift.pk for gift in gifts if _may_be_paid(gift, since)]
    under_way += [gift.pk for gift in monthly if gift.status == Status.PENDING and gift.created_at > since]
    if under_way:
        raise CannotErase(
            f"The payment of {under_way[0]} may be under way: erase a day after it was begun, or, where it is "
            "awaiting, once the bank has decided."
        )
    unsettled = events.filter(state__in=["ready", "waiting", "quarantined"]).count()
    if unsettled:
        raise CannotErase(
            f"Stored events that name them are not settled ({unsettled:,}): run manage.py drain, accept or dismiss "
            "what is in quarantine, and erase then."
        )
    if person.gifts.count() != len(gifts) or person.recurringgifts.count() != len(monthly):
        raise CannotErase("They have just begun to give: erase a day after that.")


def _may_be_paid(gift: Gift, since: datetime) -> bool:
    state = GiftState.objects.filter(pk=gift.pk).first()
    if state is None or state.status == GiftState.Status.PENDING:
        return gift.created_at > since
    return state.status == GiftState.Status.AWAITING

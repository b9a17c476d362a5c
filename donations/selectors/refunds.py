"""The refunds that we asked for, as staff have to look after them; and what can still be given back of a gift."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import BooleanField, F, OuterRef, QuerySet, Subquery, Sum, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Greatest

from donations.models import GiftState, InboxEvent, LedgerEntry, RefundRequest
from donations.processors.base import KEY_LASTS
from donations.processors.facts import RefundChanged, fact_from_json

# As a literal: SQLite takes a partial index for no other.
IS_SENDING = RawSQL(f"{RefundRequest._meta.db_table}.status = 'sending'", (), BooleanField())  # noqa: S611 (our own name)


def unanswered(*, now: datetime, age: timedelta = KEY_LASTS) -> QuerySet[RefundRequest]:
    """Requests that got no answer for as long as `age`, the oldest first.

    By default for as long as the processor knows their keys: these are never sent again.
    """
    return RefundRequest.objects.filter(IS_SENDING, requested_at__lte=now - age).order_by("requested_at")


# ---- what is left of a gift

OPEN = [RefundRequest.Status.SENDING, RefundRequest.Status.ACCEPTED]
_open_refunds = RefundRequest.objects.filter(gift=OuterRef(OuterRef("pk")), status__in=OPEN).exclude(refund_id="")
# What we asked for and is booked stands among what was refunded, and among what was asked for. Negative.
_in_both = (
    LedgerEntry.objects.filter(
        gift=OuterRef("pk"), kind=LedgerEntry.Kind.REFUND, reference__in=_open_refunds.values("refund_id")
    )
    .order_by()
    .values("gift")
    .annotate(sum=Sum("amount"))
)
LEFT = (
    F("charged")
    + F("adjusted")
    - F("refunded")
    - F("refund_requested")
    - Coalesce(Subquery(_in_both.values("sum")), Value(0))
    - Greatest(F("disputed"), Value(0))
)
"""Of a confirmed GiftState, minor units: charged, and neither given back, nor by hand, nor disputed, nor asked for."""


def left_of(gift: str) -> int:
    """What can still be given back of a gift, minor units; 0 of one that was not paid.

    Whoever acts on it locks the gift before: it is read by several statements.
    """
    states = GiftState.objects.filter(pk=gift, status=GiftState.Status.CONFIRMED).annotate(left=LEFT)
    left = states.values_list("left", flat=True).first() or 0
    return max(0, left - sum(refund.amount for refund in on_their_way(gift) if not refund.is_ours))


@dataclass(frozen=True, slots=True)
class RefundOnItsWay:
    """A refund that the processor has told of, and that neither succeeded nor failed yet; minor units.

    `is_ours` where it was asked for here and counts among what was.
    """

    refund: str
    amount: int
    is_ours: bool


NOT_YET = {"pending", "requires_action"}


def on_their_way(gift: str) -> list[RefundOnItsWay]:
    """The refunds of a gift that are known and not in the books yet, by their ids."""
    told = InboxEvent.objects.filter(gift_reference=gift, state__in=InboxEvent.HEARD, facts__kind="refund")
    sightings: defaultdict[str, list[RefundChanged]] = defaultdict(list)
    # That no "" is wanted must be said: the index holds none.
    for facts in told.exclude(gift_reference="").values_list("facts", flat=True):
        fact = fact_from_json(facts or {})
        if isinstance(fact, RefundChanged):
            sightings[fact.refund].append(fact)
    asked_here = RefundRequest.objects.filter(gift=gift, status__in=OPEN).exclude(refund_id="")
    ours = set(asked_here.values_list("refund_id", flat=True))
    return [
        RefundOnItsWay(refund, seen[0].amount, refund in ours)
        for refund, seen in sorted(sightings.items())
        if {fact.status for fact in seen} <= NOT_YET
    ]

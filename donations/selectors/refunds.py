"""The refunds that we asked for, as staff have to look after them; and what can still be given back of a gift."""

from datetime import datetime, timedelta

from django.db.models import BooleanField, F, OuterRef, QuerySet, Subquery, Sum, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Greatest

from donations.models import GiftState, LedgerEntry, RefundRequest
from donations.processors.base import KEY_LASTS

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
    """What can still be given back of a gift, minor units; 0 of one that was not paid."""
    states = GiftState.objects.filter(pk=gift, status=GiftState.Status.CONFIRMED).annotate(left=LEFT)
    return max(0, states.values_list("left", flat=True).first() or 0)

"""The refunds that we asked for, as staff have to look after them."""

from datetime import datetime, timedelta

from django.db.models import BooleanField, QuerySet
from django.db.models.expressions import RawSQL

from donations.models import RefundRequest
from donations.processors.base import KEY_LASTS

# As a literal: SQLite takes a partial index for no other.
IS_SENDING = RawSQL(f"{RefundRequest._meta.db_table}.status = 'sending'", (), BooleanField())  # noqa: S611 (our own name)


def unanswered(*, now: datetime, age: timedelta = KEY_LASTS) -> QuerySet[RefundRequest]:
    """Requests that got no answer for as long as `age`, the oldest first.

    By default for as long as the processor knows their keys: these are never sent again.
    """
    return RefundRequest.objects.filter(IS_SENDING, requested_at__lte=now - age).order_by("requested_at")

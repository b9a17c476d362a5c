"""The refunds that we asked for, as staff have to look after them."""

from datetime import datetime

from django.db.models import BooleanField, QuerySet
from django.db.models.expressions import RawSQL

from donations.models import RefundRequest
from donations.processors.base import KEY_LASTS

# As a literal: SQLite takes a partial index for no other.
IS_SENDING = RawSQL(f"{RefundRequest._meta.db_table}.status = 'sending'", (), BooleanField())  # noqa: S611 (our own name)


def unanswered(*, now: datetime) -> QuerySet[RefundRequest]:
    """Requests that got no answer for as long as the processor knows their keys: never sent again. The oldest first."""
    return RefundRequest.objects.filter(IS_SENDING, requested_at__lte=now - KEY_LASTS).order_by("requested_at")

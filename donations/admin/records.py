"""What was sent and what was taken out: mail, and finance's files."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from donations.admin.reading import ReadOnlyAdmin, may_see_donors
from donations.models import ExportRecord, OutboxMessage


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    """Mail and where it stands. A message that a crash cut off is unsure, and is never sent again by itself.

    One that is not needed was never written: the reason stands as its last error.
    """

    list_display = ("subject_id", "kind", "state", "attempts", "created_at", "sent_at")
    list_filter = ("state", "kind")
    allowed_lookups = frozenset({"state__exact", "kind__exact"})
    ordering = ("-pk",)
    search_fields = ("subject_id",)
    search_help_text = "Search by a gift’s reference or a follower’s number, written in full."

    def found(self, request: HttpRequest, term: str) -> QuerySet[Any]:
        return OutboxMessage.objects.filter(Q(kind__in=OutboxMessage.Kind.values, subject_id=term)).values("pk")

    def get_fields(self, request: HttpRequest, obj: OutboxMessage | None = None) -> tuple[str, ...]:
        """A mail server's refusal may name the address."""
        error = ("last_error",) if may_see_donors(request.user) else ()
        return ("kind", "subject_id", "round", "state", "attempts", "next_try_at", *error, "created_at", "sent_at")


@admin.register(ExportRecord)
class ExportRecordAdmin(ReadOnlyAdmin):
    """Who took which file of finance's, and when."""

    list_display = ("requested_at", "requested_by", "file", "campaign", "period_start", "period_end")
    list_filter = ("file",)
    allowed_lookups = frozenset({"file"})
    ordering = ("-pk",)
    list_select_related = ("requested_by",)

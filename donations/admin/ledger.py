"""The ledger, to be looked at. Nobody edits it, superusers included: the database refuses, and so does this room."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.formats import date_format

from donations import processors
from donations.admin.reading import ModeFilter, ReadOnlyAdmin, link_to, month_in
from donations.charts import amount_text
from donations.models import LedgerEntry


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ReadOnlyAdmin):
    """Every movement of money, the latest booked first."""

    list_display = (
        "effective_at",
        "kind",
        "amount_shown",
        "campaign_slug",
        "month_shown",
        "mode",
        "reference",
        "gift_id",
    )
    list_filter = ("campaign", "kind", ModeFilter)
    allowed_lookups = frozenset({"campaign__slug__exact", "kind__exact", "livemode__exact"})
    ordering = ("-pk",)
    search_fields = ("reference",)
    search_help_text = "Search by a movement’s reference at the processor, or by its gift’s, written in full."

    def found(self, request: HttpRequest, term: str) -> QuerySet[Any]:
        """By the index of movements, which begins with the processor and the kind."""
        movement = Q(processor__in=[*processors.PROCESSORS], kind__in=LedgerEntry.Kind.values)
        return LedgerEntry.objects.filter(Q(gift=term) | (movement & Q(reference=term))).values("pk")

    def get_fieldsets(self, request: HttpRequest, obj: LedgerEntry | None = None) -> Any:
        movement = ("kind", "amount_shown", "goal_shown", "settlement_shown", "effective_at", "day_shown")
        belongs = ("campaign", "month_shown", "gift_shown", "tier", "mode")
        return (
            ("The movement", {"fields": movement}),
            ("Where it belongs", {"fields": belongs}),
            ("Where it is from", {"fields": ("processor", "reference", "event_shown", "booked_at")}),
        )

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Links lead to what the person may see."""
        entry: LedgerEntry = kwargs["obj"]
        entry.gift_link = link_to(entry.gift, request.user)  # type: ignore[attr-defined]  # for this page alone
        entry.event_link = link_to(entry.inbox_event, request.user)  # type: ignore[attr-defined]
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="amount")
    def amount_shown(self, entry: LedgerEntry) -> str:
        return amount_text(entry.amount, entry.currency)

    @admin.display(description="campaign month")
    def month_shown(self, entry: LedgerEntry) -> str:
        return month_in(entry.campaign_month, entry.time_zone)

    @admin.display(description="local date")
    def day_shown(self, entry: LedgerEntry) -> str:
        return f"{date_format(entry.local_date)}, in {entry.time_zone}"

    @admin.display(description="counts toward the goal")
    def goal_shown(self, entry: LedgerEntry) -> str:
        return amount_text(entry.goal_amount, entry.currency)

    @admin.display(description="settled as")
    def settlement_shown(self, entry: LedgerEntry) -> str:
        if entry.settlement_amount is None:
            return "–"
        return amount_text(entry.settlement_amount, entry.settlement_currency)

    @admin.display(description="gift")
    def gift_shown(self, entry: LedgerEntry) -> str:
        return str(getattr(entry, "gift_link", entry.gift_id or "–"))

    @admin.display(description="inbox event")
    def event_shown(self, entry: LedgerEntry) -> str:
        return str(getattr(entry, "event_link", entry.inbox_event_id or "–"))

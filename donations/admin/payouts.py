"""Payouts: what the processor transferred to our bank, and of which movements each is made."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from donations.admin.reading import ModeFilter, ReadOnlyAdmin, link_to, moment
from donations.charts import amount_text
from donations.models import BalanceTransaction, Payout
from donations.selectors.settlements import failed_at, settlements_in

MOST_SHOWN = 1000


@admin.register(Payout)
class PayoutAdmin(ReadOnlyAdmin):
    """The processor's transfers to our bank, the latest first."""

    list_display = ("created", "amount_shown", "status", "arrival", "mode", "reference")
    list_filter = ("status", ModeFilter)
    allowed_lookups = frozenset({"status__exact", "livemode__exact"})
    ordering = ("-pk",)
    search_fields = ("reference",)
    search_help_text = "Search by a payout’s id at the processor, written in full, or by the id of a movement in it."

    def found(self, request: HttpRequest, term: str) -> QuerySet[Any]:
        carried = BalanceTransaction.objects.filter(reference=term).exclude(payout="").values("payout")
        return (Payout.objects.filter(reference=term) | Payout.objects.filter(reference__in=carried)).values("pk")

    def get_fieldsets(self, request: HttpRequest, obj: Payout | None = None) -> Any:
        transfer = ("amount_shown", "status", "created", "arrival", "came_back", "automatic", "mode")
        return (("The transfer", {"fields": transfer}), ("Where it is from", {"fields": ("processor", "reference")}))

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        payout: Payout = kwargs["obj"]
        carried = settlements_in(payout)
        context["movements"] = [_line(each, request.user) for each in carried[:MOST_SHOWN]]
        context["left_out"] = max(0, len(carried) - MOST_SHOWN)
        context["carried_sum"] = amount_text(sum(each.net for each in carried), payout.currency)
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="amount")
    def amount_shown(self, payout: Payout) -> str:
        return amount_text(payout.amount, payout.currency)

    @admin.display(description="came back on")
    def came_back(self, payout: Payout) -> str:
        """One that was paid may fail after all: its money is then on the balance again."""
        return moment(failed_at(payout))


def _line(movement: BalanceTransaction, user: Any) -> dict[str, Any]:
    return {
        "type": movement.type.replace("_", " "),
        "gift": link_to(movement.gift, user),
        "amount": amount_text(movement.amount, movement.currency),
        "fee": amount_text(movement.fee, movement.currency),
        "net": amount_text(movement.net, movement.currency),
        "created": movement.created,
        "reference": movement.reference,
    }

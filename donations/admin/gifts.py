"""Gifts, each with its figures, entries and events; and the page on which a refund is asked for."""

import re
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html

from donations.admin import entering
from donations.admin.people import donor_term, donors_of
from donations.admin.reading import ModeFilter, ReadOnlyAdmin, link_to, may_see_donors, moment, month_in, page_of
from donations.admin.refunds import give_up_refund, left_to_refund, refund_page, state_of
from donations.charts import amount_text
from donations.models import Gift, GiftState, InboxEvent, LedgerEntry, OfflineRequest, RefundRequest
from donations.processors import OFFLINE
from donations.selectors import refunds
from donations.selectors.dashboard import tier_name
from donations.selectors.settlements import PAYMENTS, Settlement, settlements_of

MOST_EVENTS = 100
Status = GiftState.Status
Method = OfflineRequest.Method


class StatusFilter(admin.SimpleListFilter):
    """By status; a gift of which nothing was heard has none stored, and is pending."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in Status.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Gift]) -> QuerySet[Gift]:
        chosen = self.value()
        if chosen == Status.PENDING:
            return queryset.filter(Q(state__isnull=True) | Q(state__status=chosen))
        return queryset.filter(state__status=chosen) if chosen in Status.values else queryset


@admin.register(Gift)
class GiftAdmin(ReadOnlyAdmin):
    """What readers gave. Its amounts never change; a refund is asked for, and arrives as an entry."""

    list_display = ("created_at", "amount_shown", "status_shown", "who", "campaign_slug", "mode", "reference")
    list_filter = ("campaign", StatusFilter, ModeFilter)
    allowed_lookups = frozenset({"campaign__slug__exact", "status", "livemode__exact"})
    ordering = ("-created_at",)
    search_fields = ("reference",)

    # ---- the list

    def get_queryset(self, request: HttpRequest) -> QuerySet[Gift]:
        """With what a line shows, read for the page's own lines: a join would sort all of history with it."""
        return super().get_queryset(request).prefetch_related("state")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        searched = "a gift’s reference, or the id of its payment or checkout"
        addresses = "; or the donor’s email address or name" if may_see_donors(request.user) else ""
        changelist: Any = super().get_changelist_instance(request)
        changelist.search_help_text = f"Search by {searched}{addresses}, written in full."
        return changelist

    def found(self, request: HttpRequest, term: str) -> list[str]:
        gifts = Gift.objects.filter(Q(pk=term) | Q(checkout_id=term))
        found = {*gifts.values_list("pk", flat=True)}
        found.update(GiftState.objects.filter(payment=term).values_list("pk", flat=True))
        if may_see_donors(request.user):
            found.update(Gift.objects.filter(donor__in=donors_of(term)).values_list("pk", flat=True)[:1000])
        return sorted(found)

    def is_personal(self, term: str) -> bool:
        """A reference or an id has an underscore or a colon in it, as no name has."""
        return "@" in term or bool(re.fullmatch("[^_:]+", term))

    def impersonal(self, request: HttpRequest, term: str) -> str:
        return donor_term(request, term)

    @admin.display(description="shown as")
    def who(self, gift: Gift) -> str:
        """The name that its donor shows to the public."""
        return "anonymous" if gift.anonymous or not gift.public_name else gift.public_name

    @admin.display(description="amount")
    def amount_shown(self, gift: Gift) -> str:
        return amount_text(gift.total, gift.currency)

    @admin.display(description="status")
    def status_shown(self, gift: Gift) -> str:
        state = state_of(gift)
        label = str(Status(state.status).label)
        if state.adjusted < 0:
            label += ", reversed" if state.is_reversed else ", adjusted"
        for taken, word in ((state.disputed, "disputed"), (state.refunded, "refunded")):
            if taken > 0:
                label += f", {word}" if taken >= state.charged else f", {word} in part"
        return label

    # ---- the page of one gift

    def get_fieldsets(self, request: HttpRequest, obj: Gift | None = None) -> Any:
        """Who gave is for those who may see donors; others see what the donor shows to the public."""
        personal = may_see_donors(request.user)
        who: tuple[str, ...] = ("donor_link", "public_name", "who", "message") if personal else ("who",)
        if not personal and obj is not None and not obj.anonymous:
            who += ("message",)
        monthly = ("monthly_gift",) if obj is not None and obj.recurring_gift_id else ()
        asked = ("campaign_slug", "amount_asked", "tier_shown", "frequency", *monthly, "created_at", "source", "mode")
        figures = ("charged", "refunded", "disputed", "adjusted", "counted", "refund_requested", "on_their_way")
        times = ("campaign_month", "confirmed_at", "bank", "payment", "checkout_id", "refusal")
        return (
            ("What became of it", {"fields": ("status_shown", *figures, *times)}),
            ("What was asked for", {"fields": asked}),
            ("Who gave", {"fields": who}),
        )

    @admin.display(description="amount")
    def amount_asked(self, gift: Gift) -> str:
        if not gift.fee_cover:
            return amount_text(gift.amount, gift.currency)
        cover = amount_text(gift.fee_cover, gift.currency)
        return f"{amount_text(gift.amount, gift.currency)}, and {cover} for the processor’s fee"

    @admin.display(description="tier")
    def tier_shown(self, gift: Gift) -> str:
        return tier_name(gift.tier, gift.currency)

    @admin.display(description="monthly gift")
    def monthly_gift(self, gift: Gift) -> str:
        """Whoever may not see monthly gifts is stopped at its own page."""
        arrangement = gift.recurring_gift
        return format_html('<a href="{}">{}</a>', page_of(arrangement), arrangement.pk) if arrangement else "–"

    @admin.display
    def charged(self, gift: Gift) -> str:
        return amount_text(state_of(gift).charged, gift.currency)

    @admin.display
    def refunded(self, gift: Gift) -> str:
        return amount_text(state_of(gift).refunded, gift.currency)

    @admin.display
    def disputed(self, gift: Gift) -> str:
        return amount_text(state_of(gift).disputed, gift.currency)

    @admin.display(description="adjusted by staff")
    def adjusted(self, gift: Gift) -> str:
        return amount_text(state_of(gift).adjusted, gift.currency)

    @admin.display(description="toward the goal")
    def counted(self, gift: Gift) -> str:
        return amount_text(state_of(gift).counted, gift.currency)

    @admin.display(description="refunds asked for here")
    def refund_requested(self, gift: Gift) -> str:
        return amount_text(state_of(gift).refund_requested, gift.currency)

    @admin.display(description="refunds on their way")
    def on_their_way(self, gift: Gift) -> str:
        """Those that the processor has told of and not made yet: nothing of them is in the books."""
        where = {True: "asked for here", False: "not asked for here"}
        told = [
            f"{amount_text(each.amount, gift.currency)}, {where[each.is_ours]} ({each.refund})"
            for each in refunds.on_their_way(gift.pk)
        ]
        return "; ".join(told) or "–"

    @admin.display(description="campaign month")
    def campaign_month(self, gift: Gift) -> str:
        entry = gift.entries.first()
        zone = entry.time_zone if entry else gift.campaign.time_zone
        return month_in(state_of(gift).campaign_month, zone)

    @admin.display(description="confirmed at")
    def confirmed_at(self, gift: Gift) -> str:
        return moment(state_of(gift).confirmed_at)

    @admin.display(description="in the bank")
    def bank(self, gift: Gift) -> str:
        """Whether and when its payment reached the bank; of an offline gift, how and when staff say that it came."""
        if gift.processor == OFFLINE:
            return _came(gift)
        paid = [settled.bank for settled in settlements_of(gift) if settled.movement.type in PAYMENTS]
        return paid[-1] if paid else "–"

    @admin.display
    def payment(self, gift: Gift) -> str:
        return state_of(gift).payment or "–"

    @admin.display(description="donor")
    def donor_link(self, gift: Gift) -> str:
        """Fields are shown to those who may see donors alone, so it is a link."""
        if gift.donor is None:
            return "–"
        return format_html('<a href="{}">{}</a> {}', page_of(gift.donor), gift.donor, gift.donor.email)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """By its reference as it reads or as Django writes it in addresses."""
        return super().change_view(request, quote(reference_in(object_id)), form_url, extra_context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        gift: Gift = kwargs["obj"]
        user = request.user
        context["entries"] = [_entry_line(entry, user) for entry in gift.entries.order_by("effective_at", "pk")]
        if user.has_perm("donations.view_ledgerentry"):
            context["movements"] = [_movement_line(settled, user) for settled in settlements_of(gift)]
        context["events"] = [event_line(event, user) for event in _events_of(gift)]
        if user.has_perm("donations.view_refundrequest"):
            requests = gift.refund_requests.select_related("requested_by").order_by("requested_at", "pk")
            open_ends = set(refunds.unanswered(now=timezone.now()).filter(gift=gift).values_list("pk", flat=True))
            context["requests"] = [_request_line(asked, gift, asked.pk in open_ends) for asked in requests]
            context["may_give_up"] = user.has_perm("donations.add_refundrequest")
        if user.has_perm("donations.view_offlinerequest"):
            entered = gift.offline_requests.select_related("requested_by").order_by("requested_at", "pk")
            context["offline"] = [_offline_line(asked, user) for asked in entered]
        ours = gift.livemode == settings.LIVEMODE and state_of(gift).status == Status.CONFIRMED
        context["may_adjust"] = entering.may_enter(request) and ours
        context["may_refund"] = user.has_perm("donations.add_refundrequest") and left_to_refund(gift) > 0
        return super().render_change_form(request, context, *args, **kwargs)

    # ---- asking for a refund

    def get_urls(self) -> list[URLPattern]:
        refund = path(
            "<path:object_id>/refund/", self.admin_site.admin_view(self.refund_view), name="donations_gift_refund"
        )
        give_up = path(
            "<path:object_id>/refund/<int:asked>/give-up/",
            self.admin_site.admin_view(self.give_up_view),
            name="donations_gift_give_up_refund",
        )
        return [give_up, refund, *super().get_urls()]

    def refund_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for a refund. The processor is called outside any transaction, as `refunding` wants it."""
        return refund_page(request, self, reference_in(object_id))

    def give_up_view(self, request: HttpRequest, object_id: str, asked: int) -> HttpResponse:
        """Give up a refund that got no answer and is not at the processor."""
        return give_up_refund(request, self, reference_in(object_id), asked)


def reference_in(object_id: str) -> str:
    """The reference in an address: Django writes `gift_5Fabc`, people and other pages `gift_abc`."""
    word, _, rest = object_id.partition("_")
    raw = word in {"gift", "recurring"} and not rest.startswith("5F")
    return object_id if raw else unquote(object_id)


CAME = {
    Method.BANK_TRANSFER: "reached the bank by transfer on {}",
    Method.CASH: "came in cash on {}; when it was paid in is not kept here",
    Method.CHEQUE: "came by cheque on {}; when it was paid in is not kept here",
}


def _came(gift: Gift) -> str:
    """How and when an offline gift came, and whether that is booked, approved or taken back."""
    entered = gift.offline_requests.filter(kind=OfflineRequest.Kind.OFFLINE_GIFT).first()
    if entered is None:
        return "–"
    words = CAME[Method(entered.method)].format(date_format(entered.day, "j F Y"))
    if entered.status == OfflineRequest.Status.WAITING:
        return f"not booked, as it waits for approval; entered was: {words}"
    state = state_of(gift)
    return f"{words}; reversed since" if state.is_reversed else words


# ---- the tables of one gift


def _events_of(gift: Gift) -> QuerySet[InboxEvent]:
    """What was told of a gift, or of its payment, the body left where it is."""
    about = Q(gift_reference=gift.pk)
    if payment := state_of(gift).payment:
        about |= Q(payment=payment)
    events = InboxEvent.objects.filter(about).defer("body", "body_sha256", "facts")
    return events.order_by("received_at", "pk")[:MOST_EVENTS]


def _entry_line(entry: LedgerEntry, user: Any) -> dict[str, Any]:
    return {
        "link": link_to(entry, user, str(entry.get_kind_display())),
        "amount": amount_text(entry.amount, entry.currency),
        "toward_goal": amount_text(entry.goal_amount, entry.currency),
        "effective_at": entry.effective_at,
        "campaign_month": month_in(entry.campaign_month, entry.time_zone),
        "reference": entry.reference,
    }


def _movement_line(settled: Settlement, user: Any) -> dict[str, Any]:
    movement = settled.movement
    return {
        "type": movement.type.replace("_", " "),
        "amount": amount_text(movement.amount, movement.currency),
        "fee": amount_text(movement.fee, movement.currency),
        "net": amount_text(movement.net, movement.currency),
        "created": movement.created,
        "bank": settled.bank,
        "payout": _payout_shown(settled, user),
    }


def _payout_shown(settled: Settlement, user: Any) -> str:
    """The payout that carries a movement now, and those that it came back from."""
    if settled.payout is None:
        return settled.movement.payout or "–"
    link = link_to(settled.payout, user, settled.payout.reference)
    if not settled.came_back_from:
        return link
    return format_html("{}, after it came back from {}", link, ", then ".join(settled.came_back_from))


def event_line(event: InboxEvent, user: Any) -> dict[str, Any]:
    return {
        "link": link_to(event, user, event.type),
        "received_at": event.received_at,
        "state": event.get_state_display(),
    }


def _request_line(asked: RefundRequest, gift: Gift, unanswered: bool) -> dict[str, Any]:
    return {
        "pk": asked.pk,
        "unanswered": unanswered,
        "amount": amount_text(asked.amount, gift.currency),
        "requested_at": asked.requested_at,
        "requested_by": asked.requested_by or "–",
        "reason": asked.reason or "–",
        "status": asked.get_status_display(),
        "error": asked.error,
    }


def _offline_line(asked: OfflineRequest, user: Any) -> dict[str, Any]:
    return {
        "link": link_to(asked, user),
        "amount": amount_text(asked.amount, asked.currency),
        "requested_by": asked.requested_by,
        "reason": asked.reason,
        "status": asked.get_status_display(),
    }

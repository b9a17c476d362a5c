"""Offline gifts and adjustments: what staff entered, and what a second person decides about."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.views.decorators.http import require_http_methods

from donations import offline, periods
from donations.admin import entering
from donations.admin.reading import ModeFilter, ReadOnlyAdmin, link_to, may_see_donors, moment, page_of
from donations.charts import amount_text
from donations.models import OfflineRequest
from donations.models.offline import key_of
from donations.selectors import refunds

Kind, Status = OfflineRequest.Kind, OfflineRequest.Status
ALL_IS_BACK = "Nothing of this can be reversed: nothing of it is held any more. Look at its gift."


class DecisionForm(forms.Form):
    """A reason, and which button was pressed."""

    reason = forms.CharField(
        required=False,
        max_length=offline.LONGEST_REASON,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
        help_text="It stays with it. To reject, you must give one.",
    )
    decision = forms.ChoiceField(choices=[("approve", "Approve"), ("reject", "Reject")])


@admin.register(OfflineRequest)
class OfflineRequestAdmin(ReadOnlyAdmin):
    """What staff entered, the latest first. Nothing is edited: what was wrong is reversed by a new entry."""

    list_display = ("what", "amount_shown", "status", "campaign_slug", "reference", "entered_by", "mode")
    list_filter = ("status", "kind", "campaign", ModeFilter)
    list_select_related = ("requested_by",)
    allowed_lookups = frozenset({"status__exact", "kind__exact", "campaign__slug__exact", "livemode__exact"})
    ordering = ("-pk",)
    search_fields = ("reference",)
    search_help_text = "Search by a reference, or by a gift’s, written in full."

    def found(self, request: HttpRequest, term: str) -> QuerySet[Any]:
        return OfflineRequest.objects.filter(Q(reference_key=key_of(term)) | Q(gift=term)).values("pk")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist: Any = super().get_changelist_instance(request)
        changelist.title = "What staff entered"
        return changelist

    def has_add_permission(self, request: HttpRequest) -> bool:
        return entering.may_enter(request)

    @admin.display(description="amount")
    def amount_shown(self, asked: OfflineRequest) -> str:
        return amount_text(asked.amount, asked.currency)

    @admin.display(description="what")
    def what(self, asked: OfflineRequest) -> str:
        """With the day that it is for."""
        return f"{asked.get_kind_display().capitalize()}, {date_format(asked.day)}"

    @admin.display(description="entered by")
    def entered_by(self, asked: OfflineRequest) -> str:
        """With the day, UTC: a list has no room for the time."""
        return f"{asked.requested_by}, {asked.requested_at:%Y-%m-%d}"

    # ---- the page of one

    def get_fieldsets(self, request: HttpRequest, obj: OfflineRequest | None = None) -> Any:
        entered = ("kind", "amount_shown", "campaign", "day", "method", "reference", "reason", "gift_shown", "mode")
        decided = ("decided_by", "decided_at", "decision_reason") if obj and obj.decided_by_id else ()
        stands = ("stands", "requested_by", "requested_at", *decided)
        return (("Where it stands", {"fields": stands}), ("What was entered", {"fields": entered}))

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        asked: OfflineRequest = kwargs["obj"]
        asked.gift_link = link_to(asked.gift, request.user)  # type: ignore[attr-defined]  # for this page alone
        context["closed"] = entering.closed_words(asked) if asked.status == Status.WAITING else ""
        context["may_decide"] = may_decide(request) and asked.status == Status.WAITING
        context["may_reverse"] = entering.may_enter(request) and is_reversible(asked)
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="status")
    def stands(self, asked: OfflineRequest) -> str:
        """Its status; of an offline gift also what reversed it, whole or in part."""
        status = asked.get_status_display()
        if asked.kind != Kind.OFFLINE_GIFT or asked.status != Status.BOOKED:
            return status
        by = OfflineRequest.objects.filter(gift=asked.gift_id, kind=Kind.ADJUSTMENT, status=Status.BOOKED)
        rows = list(by.order_by("pk"))
        left = asked.amount + sum(each.amount for each in rows)
        if left >= asked.amount:
            return status
        links = format_html_join(
            ", ",
            '<a href="{}">{}</a> ({})',
            ((page_of(each), each, amount_text(each.amount, each.currency)) for each in rows),
        )
        return format_html("{}, {} by {}", status, "reversed in part" if left > 0 else "reversed", links)

    @admin.display(description="gift")
    def gift_shown(self, asked: OfflineRequest) -> str:
        return str(getattr(asked, "gift_link", asked.gift_id or "–"))

    # ---- entering, deciding, reversing

    def get_urls(self) -> list[URLPattern]:
        wrap, name = self.admin_site.admin_view, "donations_offlinerequest"
        own = [
            path("adjust/", wrap(self.adjust_view), name=f"{name}_adjust"),
            path("<path:object_id>/decide/", wrap(self.decide_view), name=f"{name}_decide"),
            path("<path:object_id>/reverse/", wrap(self.reverse_view), name=f"{name}_reverse"),
        ]
        return [*own, *super().get_urls()]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Enter an offline gift."""
        form = entering.OfflineGiftForm(request.POST if request.method == "POST" else None)
        return entering.entry_page(request, self, form, title="Enter an offline gift")

    def adjust_view(self, request: HttpRequest) -> HttpResponse:
        """Enter an adjustment, of the gift that the address names or of a campaign."""
        initial = {"gift": request.GET.get("gift", "")}
        form = entering.AdjustmentForm(request.POST if request.method == "POST" else None, initial=initial)
        return entering.entry_page(request, self, form, title="Enter an adjustment")

    def decide_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what waits for approval, and have it approved or rejected."""
        return _decide_page(request, self, object_id)

    def reverse_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Enter the adjustment that takes an offline gift back, whole or in part."""
        asked = self._found(request, object_id)
        words = cannot_reverse(asked)
        if words or (request.method != "POST" and not is_reversible(asked)):
            messages.warning(request, words or ALL_IS_BACK)
            return HttpResponseRedirect(page_of(asked))
        form = entering.ReversalForm(asked, request.POST if request.method == "POST" else None)
        facts = [*_facts(asked, request), ("Still held", amount_text(form.left, asked.currency))]
        return entering.entry_page(request, self, form, title="Reverse an offline gift", about=asked, facts=facts)

    def _found(self, request: HttpRequest, object_id: str) -> OfflineRequest:
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked: OfflineRequest | None = self.get_object(request, unquote(object_id))
        if asked is None:
            raise Http404("There is no such entry.")
        return asked


def may_decide(request: HttpRequest) -> bool:
    """Whether a person may approve or reject what others entered."""
    return bool(request.user.has_perms(["donations.view_offlinerequest", "donations.change_offlinerequest"]))


def is_of_this_mode(asked: OfflineRequest) -> bool:
    """Whether it was entered in the mode, test or live, that the site is in."""
    return asked.livemode == settings.LIVEMODE


def cannot_reverse(asked: OfflineRequest) -> str:
    """Why it cannot be reversed, in words; empty for an offline gift that is booked, in the site's own mode."""
    if asked.kind != Kind.OFFLINE_GIFT:
        return "An adjustment is not reversed: enter another adjustment, of the same gift or campaign."
    if asked.status != Status.BOOKED:
        return f"It is {asked.get_status_display()}: nothing of it is booked, so nothing can be reversed."
    return "" if is_of_this_mode(asked) else "It was entered in the other mode, test or live: it is reversed there."


def is_reversible(asked: OfflineRequest) -> bool:
    """Whether it can be reversed, and something of it is still held."""
    return not cannot_reverse(asked) and refunds.left_of(str(asked.gift_id)) > 0


def _facts(asked: OfflineRequest, request: HttpRequest) -> list[tuple[str, Any]]:
    return [
        ("What", asked),
        ("Campaign", asked.campaign),
        ("Amount", amount_text(asked.amount, asked.currency)),
        ("Mode", "live" if asked.livemode else "test"),
        ("Day", asked.day),
        ("Came by", asked.get_method_display() or "–"),
        ("Reason", asked.reason),
        ("Gift", link_to(asked.gift, request.user)),
        ("Entered by", f"{asked.requested_by}, {moment(asked.requested_at)}"),
    ]


def _donor_facts(asked: OfflineRequest, request: HttpRequest) -> list[tuple[str, Any]]:
    """Whom an approval would thank and show to the public: what the public would not see, for those who may."""
    gift = asked.gift
    if asked.kind != Kind.OFFLINE_GIFT or gift is None:
        return []
    personal = may_see_donors(request.user)
    shown = gift.public_name if personal or not gift.anonymous else ""
    anonymous = "anonymous to the public" if gift.anonymous else ""
    to = "none: no receipt"
    if gift.donor:
        to = gift.donor.email if personal else "given, for those to see who may see donors"
    return [
        ("Donor’s name", ", ".join(filter(None, (shown, anonymous))) or "–"),
        ("Donor’s email address", to),
        ("Message", (gift.message if personal or not gift.anonymous else "") or "–"),
    ]


@require_http_methods(["GET", "HEAD", "POST"])
def _decide_page(request: HttpRequest, room: OfflineRequestAdmin, object_id: str) -> HttpResponse:
    if not may_decide(request):
        raise PermissionDenied
    asked = room._found(request, object_id)
    if request.method != "POST":
        if asked.status != Status.WAITING:
            messages.warning(request, f"It does not wait for approval: it is {asked.get_status_display()}.")
            return HttpResponseRedirect(page_of(asked))
        return _decision_form_page(room, request, asked, DecisionForm())
    form = DecisionForm(request.POST)
    if form.is_valid():
        try:
            _decide(request, asked, form.cleaned_data["decision"], form.cleaned_data["reason"])
        except offline.OfflineRefused as refusal:
            form.add_error(refusal.field if refusal.field == "reason" else None, str(refusal))
        else:
            room.log_change(request, asked, f"Decided: {form.cleaned_data['decision']}.")
            return HttpResponseRedirect(page_of(asked))
    return _decision_form_page(room, request, asked, form, status=422)


def _decide(request: HttpRequest, asked: OfflineRequest, decision: str, reason: str) -> None:
    """Do it, and say what came of it. Raises OfflineRefused."""
    user: Any = request.user
    if decision == "approve":
        offline.approve(asked, user=user, reason=reason)
        month = periods.Month(asked.day.year, asked.day.month).label
        messages.success(request, f"It is approved and booked, with its own day, in the books of {month}.")
        entering.tell_of_closed_month(request, asked)
    else:
        offline.reject(asked, user=user, reason=reason)
        messages.success(request, "It is rejected. Nothing was booked.")


def _decision_form_page(
    room: OfflineRequestAdmin, request: HttpRequest, asked: OfflineRequest, form: DecisionForm, status: int = 200
) -> HttpResponse:
    context = {
        **room.admin_site.each_context(request),
        "opts": room.opts,
        "title": "Approve or reject",
        "subject": asked,
        "back": page_of(asked),
        "form": form,
        "is_gift": asked.kind == Kind.OFFLINE_GIFT,
        "is_own": asked.requested_by_id == request.user.pk,
        "is_of_this_mode": is_of_this_mode(asked),
        "closed": entering.closed_words(asked),
        "facts": [*_facts(asked, request), *_donor_facts(asked, request)],
    }
    return TemplateResponse(request, "admin/donations/offlinerequest/decide.html", context, status=status)

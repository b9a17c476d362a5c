"""Month statements: to close a month, and to see what was closed beside what its books say now. Nobody edits one."""

from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_http_methods

from donations import closing, exports
from donations.admin.reading import ModeFilter, ReadOnlyAdmin, link_to, page_of
from donations.charts import amount_text
from donations.closing import Line
from donations.models import Campaign, LedgerEntry, MonthStatement
from donations.models.campaigns import validate_month
from donations.periods import Month
from donations.selectors import statements
from donations.selectors.finance import LEDGER
from donations.views.exports import may_export, send

CLOSED, RESTATED = "as-closed", "restated"


class CloseForm(forms.Form):
    """Which month to close; `reason` closes it though something of it is not settled."""

    campaign: "forms.ModelChoiceField[Campaign]" = forms.ModelChoiceField(
        Campaign.objects.order_by("-is_default", "slug"), empty_label=None
    )
    month = forms.CharField(
        max_length=7,
        validators=[validate_month],
        widget=forms.TextInput({"class": "vTextField amount", "autocomplete": "off"}),
        help_text="Like 2024-11: the movements whose day lies in it.",
    )
    reason = forms.CharField(
        label="In spite of what is not settled, because",
        required=False,
        max_length=300,
        widget=forms.TextInput({"class": "vTextField", "autocomplete": "off"}),
        help_text="Empty, unless this page says that something is not settled. It stays in the statement.",
    )
    sure = forms.BooleanField(
        label="Close it for good",
        help_text="It cannot be undone: nobody reopens a month. Its totals, the bar’s figure and the hash of its file "
        "are frozen as they are now.",
        error_messages={
            "required": "Tick this as well: a month that is closed cannot be reopened. Nothing was closed."
        },
    )


@admin.register(MonthStatement)
class MonthStatementAdmin(ReadOnlyAdmin):
    """Closed months, the latest first; each with what was booked since."""

    list_display = ("month", "campaign_slug", "bar_shown", "mode", "closed_by", "closed_at")
    list_filter = ("campaign", ModeFilter)
    allowed_lookups = frozenset({"campaign__slug__exact", "livemode__exact"})
    ordering = ("-month", "campaign_id")
    list_select_related = ("closed_by",)
    change_list_template = "admin/donations/monthstatement/change_list.html"
    fieldsets = (
        ("What was closed", {"fields": ("campaign", "month", "mode", "rows", "newest_entry", "hash_shown")}),
        ("By whom", {"fields": ("closed_by", "closed_at", "open_shown", "reason_shown")}),
    )

    @admin.display(description="the bar showed")
    def bar_shown(self, statement: MonthStatement) -> str:
        return ", ".join(amount_text(amount, code) for code, amount in sorted(statement.counted.items())) or "–"

    @admin.display(description="SHA-256 of its ledger file")
    def hash_shown(self, statement: MonthStatement) -> str:
        return statement.sha256

    @admin.display(description="not settled: inbox events, what waited for approval, fees that were asked for")
    def open_shown(self, statement: MonthStatement) -> str:
        return f"{statement.open_events:,}"

    @admin.display(description="closed in spite of them because")
    def reason_shown(self, statement: MonthStatement) -> str:
        return statement.reason or "–"

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        close = path("close/", wrap(self.close_view), name="donations_monthstatement_close")
        file = path("<int:identity>/<str:which>.csv", wrap(self.file_view), name="donations_monthstatement_file")
        return [close, file, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"may_close": may_close(request.user), **(extra_context or {})})

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        statement: MonthStatement = kwargs["obj"]
        compared = closing.compare(statement)
        context["compared"] = compared
        context["lines"] = [_row(line, _kind(line)) for line in compared.lines]
        context["counted"] = [_row(line, "Counted by the bar") for line in compared.counted]
        context["later"] = [_entry_line(entry, request.user) for entry in compared.later]
        context["changes"] = [
            _entry_line(change.entry, request.user)
            | {"counted": _signed(change.counted, change.entry.currency), "gift": change.entry.gift_id}
            for change in compared.changes
        ]
        context["most_later"] = closing.MOST_LATER
        context["month_label"] = Month.parse(statement.month).label
        context["may_export"] = request.user.has_perm("donations.add_exportrecord")
        return super().render_change_form(request, context, *args, **kwargs)

    # ---- closing one

    def close_view(self, request: HttpRequest) -> HttpResponse:
        """Close a month for good."""
        return close_page(request, self)

    # ---- its files

    def file_view(self, request: HttpRequest, identity: int, which: str) -> HttpResponseBase:
        """The ledger file of the month, as it was closed or as it is now."""
        return statement_file(request, identity, which)


def may_close(user: Any) -> bool:
    """Whether somebody may close a month."""
    return bool(user.has_perm("donations.view_monthstatement") and user.has_perm("donations.add_monthstatement"))


@require_http_methods(["GET", "HEAD", "POST"])
def close_page(request: HttpRequest, room: MonthStatementAdmin) -> HttpResponse:
    if not may_close(request.user):
        raise PermissionDenied
    asked = {name: request.GET[name] for name in ("campaign", "month") if name in request.GET}
    form = CloseForm(request.POST) if request.method == "POST" else CloseForm(initial=asked)
    if form.is_bound and form.is_valid():
        try:
            statement = closing.close(
                campaign=form.cleaned_data["campaign"],
                month=Month.parse(form.cleaned_data["month"]),
                user=request.user,  # type: ignore[arg-type]  # the admin lets nobody in who is not a User
                in_spite_because=form.cleaned_data["reason"],
            )
        except closing.OpenEvents as refusal:
            form.add_error("reason", str(refusal))
        except closing.CannotClose as refusal:
            form.add_error("month", str(refusal))
        else:
            room.log_addition(request, statement, f"Closed {statement.month} of {statement.campaign_id}.")
            messages.success(request, f"{Month.parse(statement.month).label} is closed.")
            return HttpResponseRedirect(page_of(statement))
    return _close_form_page(room, request, form)


def _close_form_page(room: MonthStatementAdmin, request: HttpRequest, form: CloseForm) -> HttpResponse:
    back = reverse("admin:donations_monthstatement_changelist")
    context = {
        **room.admin_site.each_context(request),
        "opts": room.opts,
        "title": "Close a month",
        "subject": "All",
        "back": back,
        "form": form,
        "facts": [
            ("What is kept", "the totals per kind and currency, and the hash of the ledger file of its days"),
            ("What comes later", "stays in the ledger with its own date, and is shown beside it as restated"),
            ("Taken back", "never: a closed month is not reopened"),
        ],
    }
    status = 422 if form.errors else 200
    return TemplateResponse(request, "admin/donations/monthstatement/close.html", context, status=status)


@require_http_methods(["GET", "HEAD", "POST"])
def statement_file(request: HttpRequest, identity: int, which: str) -> HttpResponseBase:
    """Who had to sign in on the way comes by GET, and is led to the statement's page."""
    if not request.user.has_perm("donations.view_monthstatement") or not may_export(request.user):
        raise PermissionDenied
    if which not in {CLOSED, RESTATED}:
        raise Http404("There is no such file.")
    statement = get_object_or_404(MonthStatement, pk=identity)
    if request.method != "POST":
        return HttpResponseRedirect(page_of(statement))
    chosen = statements.selection_of(statement)
    return send(
        closing.as_closed(statement) if which == CLOSED else exports.stream(LEDGER, chosen),
        request=request,
        file="as closed" if which == CLOSED else LEDGER.name,
        selection=chosen,
        name=f"ledger-{statement.campaign_id}-{statement.month}-{which}",
    )


# ---- its tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure as closed and restated, in words."""

    name: str
    currency: str
    rows: tuple[str, str]
    amounts: tuple[str, str]
    difference: str
    differs: bool


def _row(line: Line, name: str) -> Row:
    return Row(
        name=name,
        currency=line.currency,
        rows=(f"{line.rows[0]:,}", f"{line.rows[1]:,}"),
        amounts=(amount_text(line.amount[0], line.currency), amount_text(line.amount[1], line.currency)),
        difference=_signed(line.difference, line.currency),
        differs=bool(line.difference) or line.rows[0] != line.rows[1],
    )


def _signed(change: int, currency: str) -> str:
    return f"{'+' if change > 0 else ''}{amount_text(change, currency)}" if change else "–"


def _kind(line: Line) -> str:
    return str(LedgerEntry.Kind(line.kind).label).capitalize()


def _entry_line(entry: LedgerEntry, user: Any) -> dict[str, Any]:
    return {
        "link": link_to(entry, user, str(entry.get_kind_display())),
        "amount": amount_text(entry.amount, entry.currency),
        "local_date": entry.local_date,
        "booked_at": entry.booked_at,
        "reference": entry.reference,
    }

"""The pages on which staff enter offline gifts and adjustments. What they mean is decided by `offline`."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from donations import offline, periods
from donations.admin.amounts import AmountField, read_amount, typed_text
from donations.admin.reading import ReadOnlyAdmin, page_of
from donations.charts import amount_text
from donations.forms import DayField
from donations.models import Campaign, Gift, OfflineRequest
from donations.models.people import LONGEST_EMAIL
from donations.selectors import refunds, statements

WIDE = {"class": "vTextField"}


def may_enter(request: HttpRequest) -> bool:
    """Whether a person may enter offline gifts and adjustments."""
    return bool(request.user.has_perms(["donations.view_offlinerequest", "donations.add_offlinerequest"]))


class EntryForm(forms.Form):
    """What every entry has. After validation, `minor` is its amount in minor units, as it is entered."""

    amount = AmountField(help_text="In the campaign’s currency, such as 250 or 1,000.50.")
    day = DayField(
        {"class": "vDateField"},
        label="Day of the money",
        help_text="When it came or went, such as 2024-11-18: it decides the month in the books. "
        "In a month that is closed it is shown as restated.",
    )
    reference = forms.CharField(
        max_length=offline.LONGEST_REFERENCE,
        widget=forms.TextInput(attrs=WIDE),
        help_text="The bank’s, the cheque’s or the receipt’s number: each once. Finance’s files have it: no names.",
    )
    reason = forms.CharField(
        max_length=offline.LONGEST_REASON,
        widget=forms.TextInput(attrs=WIDE),
        help_text="What it is, for your colleagues and auditors. No names.",
    )
    minor = 0

    def read(self, currency: str) -> None:
        """Read the typed amount, once the currency is known."""
        if "amount" in self.cleaned_data:
            try:
                self.minor = read_amount(self.cleaned_data["amount"], currency)
            except ValidationError as error:
                self.add_error("amount", error)

    def enter(self, user: Any) -> OfflineRequest:
        """Have it entered. Raises OfflineRefused."""
        raise NotImplementedError


class CampaignChoice(forms.ModelChoiceField):  # type: ignore[type-arg]  # Django's class takes no parameters when it runs
    """A campaign, with the currency that amounts of it are typed in."""

    def __init__(self) -> None:
        super().__init__(Campaign.objects.order_by("-is_default", "slug"), empty_label=None)

    def label_from_instance(self, campaign: Campaign) -> str:
        return f"{campaign.name} ({campaign.currency})"


class OfflineGiftForm(EntryForm):
    """A gift that came by bank, in cash or by cheque."""

    campaign = CampaignChoice()
    method = forms.ChoiceField(label="It came by", choices=OfflineRequest.Method.choices)
    email = forms.EmailField(
        label="Donor’s email address",
        required=False,
        max_length=LONGEST_EMAIL,
        widget=forms.EmailInput(attrs={**WIDE, "autocomplete": "off"}),
        help_text="The receipt goes there. Empty: no receipt.",
    )
    name = forms.CharField(
        label="Donor’s name",
        required=False,
        max_length=100,
        widget=forms.TextInput(attrs={**WIDE, "autocomplete": "off"}),
        help_text="Shown to the public, unless the donor is anonymous.",
    )
    message = forms.CharField(
        required=False,
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        help_text="What the donor wants to be read beside the name.",
    )
    anonymous = forms.BooleanField(required=False)
    field_order = ("campaign", "amount", "day", "method", "reference", "reason")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "campaign" in cleaned:
            self.read(cleaned["campaign"].currency)
        return cleaned

    def enter(self, user: Any) -> OfflineRequest:
        typed = {name: value for name, value in self.cleaned_data.items() if name != "amount"}
        return offline.record_gift(amount=self.minor, user=user, **typed)


class AdjustmentForm(EntryForm):
    """What puts the books right: of a gift where one is named, else of the campaign as a whole."""

    campaign = CampaignChoice()
    gift = forms.CharField(
        required=False,
        max_length=70,
        widget=forms.TextInput(attrs=WIDE),
        help_text="The reference of the gift that it is about (gift_…). Empty: the campaign’s; no bar moves then.",
    )
    direction = forms.ChoiceField(
        label="It", choices=[("takes", "takes away from what we hold"), ("adds", "adds to what we hold")]
    )
    field_order = ("gift", "campaign", "direction", "amount", "day", "reference", "reason")

    def clean_gift(self) -> Gift | None:
        typed = str(self.cleaned_data["gift"]).strip()
        if not typed:
            return None
        gift = Gift.objects.select_related("campaign").filter(pk=typed).first()
        if gift is None:
            raise ValidationError("There is no gift of this reference. Copy it from the gift’s page.")
        return gift

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if gift := cleaned.get("gift"):
            cleaned["campaign"] = gift.campaign
        if "campaign" in cleaned:
            self.read(gift.currency if gift else cleaned["campaign"].currency)
        if cleaned.get("direction") != "adds":
            self.minor = -self.minor
        return cleaned

    def enter(self, user: Any) -> OfflineRequest:
        typed = {name: self.cleaned_data[name] for name in ("campaign", "gift", "day", "reference", "reason")}
        return offline.record_adjustment(amount=self.minor, user=user, **typed)


class ReversalForm(EntryForm):
    """What takes an offline gift back. `left` is what is still held of it, minor units."""

    def __init__(self, asked: OfflineRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked = asked
        self.left = refunds.left_of(asked.gift_id) if asked.gift_id else 0
        today = periods.local_date(timezone.now(), asked.campaign.time_zone)
        self.initial = {"amount": typed_text(self.left, asked.currency), "day": today}
        self.fields["amount"].label = f"Amount ({asked.currency})"
        self.fields["amount"].help_text = f"{amount_text(self.left, asked.currency)} is still held of it."

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        self.read(self.asked.currency)
        self.minor = -self.minor
        return cleaned

    def enter(self, user: Any) -> OfflineRequest:
        typed = {name: self.cleaned_data[name] for name in ("day", "reference", "reason")}
        return offline.record_adjustment(
            campaign=self.asked.campaign, gift=self.asked.gift, amount=self.minor, user=user, **typed
        )


@require_http_methods(["GET", "HEAD", "POST"])
def entry_page(
    request: HttpRequest,
    room: ReadOnlyAdmin,
    form: EntryForm,
    *,
    title: str,
    about: OfflineRequest | None = None,
    facts: list[tuple[str, Any]] | None = None,
) -> HttpResponse:
    """Show a form, and have what was typed into it entered; `about` is what a reversal is of."""
    if not may_enter(request):
        raise PermissionDenied
    if request.method == "POST" and form.is_valid():
        try:
            entered = form.enter(request.user)
        except offline.EnteredAlready as again:
            if again.is_same:
                return _second_press(request, again.first)
            form.add_error("reference", str(again))
        except offline.OfflineRefused as refusal:
            form.add_error(refusal.field if refusal.field in form.fields else None, str(refusal))
        else:
            room.log_addition(request, entered, f"Entered: {entered.get_status_display()}.")
            _tell(request, entered)
            return HttpResponseRedirect(page_of(entered))
    context = {
        **room.admin_site.each_context(request),
        "opts": room.opts,
        "title": title,
        "subject": about,
        "back": page_of(about) if about else reverse("admin:donations_offlinerequest_changelist"),
        "form": form,
        "facts": facts or [],
        "limit": settings.APPROVAL_LIMIT,
    }
    status = 422 if request.method == "POST" else 200
    return TemplateResponse(request, "admin/donations/offlinerequest/enter.html", context, status=status)


def closed_words(asked: OfflineRequest) -> str:
    """That the month of its day is closed, and what that means for it; empty where it is not."""
    month = periods.Month(asked.day.year, asked.day.month)
    if not statements.of_month(campaign=asked.campaign_id, month=month, livemode=asked.livemode):
        return ""
    shown = "it stands" if asked.status == OfflineRequest.Status.BOOKED else "once booked it stands"
    return f"{month.label} of “{asked.campaign}” is closed: {shown} beside its statement, as restated."


def tell_of_closed_month(request: HttpRequest, asked: OfflineRequest) -> None:
    """Say so on the next page, where its month is closed."""
    if words := closed_words(asked):
        messages.warning(request, words)


def _second_press(request: HttpRequest, first: OfflineRequest) -> HttpResponse:
    messages.info(
        request,
        f"You have entered this before: it is {first.get_status_display()}. Nothing was entered a second time.",
    )
    return HttpResponseRedirect(page_of(first))


def _tell(request: HttpRequest, entered: OfflineRequest) -> None:
    amount = amount_text(entered.amount, entered.currency)
    if entered.status == OfflineRequest.Status.BOOKED:
        messages.success(request, f"It is booked: {amount} on {entered.day}.")
        tell_of_closed_month(request, entered)
        return
    limit = offline.limit_in(entered.currency)
    above = f"is above {amount_text(limit, entered.currency)}" if limit else "needs a second person, as everything here"
    messages.warning(request, f"It is entered and not booked yet: {amount} {above}. Ask a colleague to approve it.")

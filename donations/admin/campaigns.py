"""Campaigns with their tiers: what is raised for."""

from collections.abc import Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone
from djmoney.money import Money
from moneyed import get_currency

from donations import campaigning, money
from donations.admin.amounts import AmountField, read_amount, read_goal, typed_text
from donations.charts import amount_text
from donations.models import (
    Campaign,
    CampaignMonth,
    Follower,
    Gift,
    MonthStatement,
    MonthTotal,
    OfflineRequest,
    RecurringGift,
    Tier,
)
from donations.models.campaigns import currency_of
from donations.periods import Month

CURRENCIES = [(code, f"{code}, {get_currency(code).name}") for code in sorted(money.TAKEN)]

# What stands in the way of deleting a campaign, in a word each.
RAISED: tuple[tuple[Any, str], ...] = (
    (Gift, "the gifts"),
    (RecurringGift, "the monthly gifts"),
    (Follower, "the followers"),
    (CampaignMonth, "the months’ goals"),
    (OfflineRequest, "the adjustments"),
)


def is_raising(campaign: Campaign) -> bool:
    """Whether amounts in the campaign's currency stand already: each kind of gift, followers, goals, adjustments."""
    return _has_any(campaign, (model for model, _ in RAISED))


# What has its day or month by the campaign's zone.
DATED: tuple[Any, ...] = (MonthTotal, OfflineRequest, MonthStatement)


def has_days(campaign: Campaign) -> bool:
    """Whether days or months of the campaign stand already: of gifts, followers, what staff entered, closed months."""
    return _has_any(campaign, DATED)


def _has_any(campaign: Campaign, models: Iterable[Any]) -> bool:
    return any(model.objects.filter(campaign=campaign).exists() for model in models)


class CampaignForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's class takes no parameters when it runs
    """A campaign, with its goal as typed and its currency apart."""

    currency = forms.ChoiceField(choices=CURRENCIES, initial="USD")
    goal = AmountField(
        label="Default goal", help_text="What is raised for in each month that has no goal of its own; 0 is no goal."
    )

    class Meta:
        model = Campaign
        fields = ("slug", "name", "description", "time_zone", "is_default", "is_open")
        widgets: ClassVar = {"description": forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        campaign = self.instance
        self.stored_currency = ""
        if campaign.pk and not campaign._state.adding:
            self.stored_currency = campaign.currency
            self.initial["currency"] = campaign.currency
            choice = self.fields.get("currency")
            if isinstance(choice, forms.ChoiceField) and campaign.currency not in money.TAKEN:
                choice.choices = [*CURRENCIES, (campaign.currency, campaign.currency)]
            self.initial["goal"] = typed_text(campaign.default_goal_minor, campaign.currency)
            self._keep_currency_of_what_stands(campaign)
        if "time_zone" in self.fields:
            self.fields["time_zone"].help_text = "Where its months begin and end, such as Europe/Paris."
            if self.stored_currency and has_days(campaign):
                self._keep_the_zone()

    def _keep_the_zone(self) -> None:
        """Months would begin elsewhere: what is booked keeps its day, and what is closed its end."""
        self.fields["time_zone"].disabled = True
        self.fields["time_zone"].help_text = (
            "It cannot be changed any more: gifts, followers, offline gifts, adjustments or closed months have their "
            "days in it. Another zone is another campaign."
        )

    def _keep_currency_of_what_stands(self, campaign: Campaign) -> None:
        if "currency" in self.fields and is_raising(campaign):
            self.fields["currency"].disabled = True
            self.fields["currency"].help_text = (
                "It cannot be changed any more: gifts, followers, months’ goals or adjustments stand in it. "
                "Another currency is another campaign."
            )
        if "goal" in self.fields:
            self.fields[
                "goal"
            ].help_text = (
                "The goal of every month that has none of its own. Months that have begun keep the goal that they have."
            )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if self.instance._state.adding:
            # Its tiers are checked beside it, also where its goal cannot be read.
            self.instance.default_goal = Money(0, cleaned.get("currency", "USD"))
        if "goal" in cleaned and "currency" in cleaned:
            currency = cleaned["currency"]
            try:
                self.instance.default_goal = money.from_minor(read_goal(cleaned["goal"], currency), currency)
            except ValidationError as error:
                self.add_error("goal", error)
        return cleaned

    def _get_validation_exclusions(self) -> set[str]:
        """A second default is no mistake: the room takes it from the first one."""
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]  # not in the stubs
        return exclusions | {"is_default"}


class TierForm(forms.ModelForm):  # type: ignore[type-arg]
    """A tier, its amount typed in the campaign's currency."""

    amount = AmountField(help_text="In the campaign’s currency. 0 asks for no money: the reader follows by email.")

    class Meta:
        model = Tier
        fields = ("frequency", "amount", "label", "position")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stored_currency = ""
        if self.instance.pk:
            self.stored_currency = str(self.instance.amount.currency.code)
            self.initial["amount"] = typed_text(self.instance.amount_minor, self.stored_currency)

    def clean_amount(self) -> Money:
        currency = currency_of(self.instance.campaign)
        return money.from_minor(read_amount(self.cleaned_data["amount"], currency), currency)

    def has_changed(self) -> bool:
        """A tier follows its campaign into another currency, also where nobody touched it."""
        campaign = self.instance.campaign if self.instance.campaign_id else None
        moved = bool(self.stored_currency and campaign and self.stored_currency != currency_of(campaign))
        return moved or super().has_changed()


class TierForms(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """A campaign's tiers. Each is checked against the campaign as it stands in the form, saved or not."""

    def _construct_form(self, i: int, **kwargs: Any) -> Any:
        form = super()._construct_form(i, **kwargs)  # type: ignore[misc]  # not in the stubs
        form.instance.campaign = self.instance
        return form

    def add_fields(self, form: Any, index: int | None) -> None:
        """Each field has its column's name for those who do not see the table."""
        super().add_fields(form, index)
        for field in form.fields.values():
            if field.label:
                field.widget.attrs["aria-label"] = field.label


class TierInline(admin.TabularInline):  # type: ignore[type-arg]
    """The tiers on a campaign's page."""

    model = Tier
    form = TierForm
    formset = TierForms
    extra = 0
    fields = ("frequency", "amount", "label", "position")
    ordering = ("frequency", "position", "amount")


@admin.register(Campaign)
class CampaignAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """What is raised for. Its goal goes through `campaigning`, so that months that have begun keep theirs."""

    form = CampaignForm
    inlines = (TierInline,)
    actions = None
    list_display = ("name", "slug", "goal_text", "time_zone", "is_default", "is_open")
    list_filter = ("is_open",)
    ordering = ("slug",)

    def get_fieldsets(self, request: HttpRequest, obj: Campaign | None = None) -> Any:
        """Those who only look see the goal as it reads; the form's own fields are for those who edit."""
        may_edit = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        amounts = ("goal", "currency") if may_edit else ("goal_text",)
        begun = ("opened_at",) if obj else ()
        return (
            (None, {"fields": ("name", "slug", "description")}),
            ("Goal", {"fields": (*amounts, "time_zone")}),
            ("Where it is shown", {"fields": ("is_default", "is_open", *begun)}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Campaign | None = None) -> tuple[str, ...]:
        return ("slug", "opened_at", "goal_text") if obj else ("opened_at", "goal_text")

    @admin.display(description="default goal")
    def goal_text(self, campaign: Campaign) -> str:
        return amount_text(campaign.default_goal_minor, campaign.currency)

    def save_model(self, request: HttpRequest, obj: Campaign, form: CampaignForm, change: bool) -> None:
        """Save, in the transaction of the page; a new default takes the old one's place, and one there always is."""
        if obj.is_default:
            _take_the_default_from_others(obj)
        elif not Campaign.objects.filter(is_default=True).exclude(pk=obj.pk).exists():
            obj.is_default = True
            said = "It is the default campaign, which / and the bar show: one always is. Choose another by its tick."
            messages.info(request, said)
        if change and form.stored_currency == obj.currency:
            campaigning.change_default_goal(Campaign.objects.get(pk=obj.pk), obj.default_goal)
        super().save_model(request, obj, form, change)

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """What stands in the way is said in a word each; Django would list every gift."""
        standing = [
            f"{words} of {campaign}"
            for campaign in objs
            for model, words in RAISED
            if model.objects.filter(campaign=campaign).exists()
        ]
        if standing:
            return [], {}, set(), standing
        return super().get_deleted_objects(objs, request)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Links to where readers give and where managers watch."""
        campaign: Campaign | None = kwargs.get("obj")
        if campaign is not None:
            # As stored: on a page that shows errors, the campaign carries what was typed, which may be no zone at all.
            zone = Campaign.objects.values_list("time_zone", flat=True).get(pk=campaign.pk)
            context["month"] = str(Month.of(timezone.now(), zone))
            context["may_see_totals"] = request.user.has_perm("donations.view_monthtotal")
        return super().render_change_form(request, context, *args, **kwargs)


def _take_the_default_from_others(campaign: Campaign) -> None:
    """Of two people who do it at once, the second waits for the first."""
    list(Campaign.objects.order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True))
    Campaign.objects.filter(is_default=True).exclude(pk=campaign.pk).update(is_default=False)

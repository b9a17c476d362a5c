"""Campaign months with a goal of their own."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from donations import campaigning
from donations.admin.amounts import AmountField, read_goal, read_marks, typed_text
from donations.admin.reading import LinkingByRight
from donations.charts import amount_text
from donations.models import Campaign, CampaignMonth
from donations.periods import Month
from donations.selectors.bar import marks


class CampaignMonthForm(forms.ModelForm):  # type: ignore[type-arg]
    """A month's goal and marks, typed in the campaign's currency."""

    goal = AmountField(help_text="In the campaign’s currency; 0 is no goal.")
    scale = forms.CharField(
        label="Marks",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
        help_text="Of the bar, such as 0, 2500, 5000. Empty: 0, half of the goal, the goal. 0 and the goal always "
        "stand at its ends; a mark too near to another is drawn without its words.",
    )

    class Meta:
        model = CampaignMonth
        fields = ("campaign", "month")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        row = self.instance
        if row.pk:
            currency = row.campaign.currency
            self.initial["goal"] = typed_text(row.goal, currency)
            self.initial["scale"] = ", ".join(typed_text(mark, currency) for mark in row.scale)
        if "month" in self.fields:
            self.fields["month"].help_text = "Such as 2024-11."

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        campaign = cleaned.get("campaign") or (self.instance.campaign if self.instance.pk else None)
        if campaign is not None:
            for name, read in (("goal", read_goal), ("scale", read_marks)):
                if name in cleaned:
                    self._read(name, read, cleaned[name], campaign.currency)
            self._refuse_marks_above_the_goal(campaign.currency)
        return cleaned

    def _refuse_marks_above_the_goal(self, currency: str) -> None:
        row = self.instance
        if {"goal", "scale"} <= self.cleaned_data.keys() and row.scale and row.scale[-1] > row.goal:
            mark, goal = amount_text(row.scale[-1], currency), amount_text(row.goal, currency)
            self.add_error("scale", f"The bar ends at the goal, {goal}: it has no place for a mark at {mark}.")

    def _read(self, name: str, read: Any, typed: str, currency: str) -> None:
        try:
            setattr(self.instance, name, read(typed, currency))
        except ValidationError as error:
            self.add_error(name, error)

    def _get_validation_exclusions(self) -> set[str]:
        """What could not be read was said so beside its field: that the row lacks it is no second mistake."""
        exclusions: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]  # not in the stubs
        return exclusions | {"goal", "scale"}

    def _post_clean(self) -> None:
        """The typed texts are not the row's values: those were set where they were read."""
        read: dict[str, Any] = {
            name: self.cleaned_data.pop(name) for name in ("goal", "scale") if name in self.cleaned_data
        }
        super()._post_clean()  # type: ignore[misc]  # not in the stubs
        self.cleaned_data.update(read)


@admin.register(CampaignMonth)
class CampaignMonthAdmin(LinkingByRight):
    """Months with goals of their own, written by `campaigning`. None is deleted: a past month would lose its goal."""

    form = CampaignMonthForm
    actions = None
    list_display = ("month_text", "campaign", "goal_text", "marks_text")
    list_filter = ("campaign",)
    list_select_related = ("campaign",)
    ordering = ("-month", "campaign")
    readonly_once_made: ClassVar[tuple[str, ...]] = ("campaign", "month")

    def get_fields(self, request: HttpRequest, obj: CampaignMonth | None = None) -> tuple[str, ...]:
        may_edit = self.has_change_permission(request, obj) if obj else self.has_add_permission(request)
        return ("campaign", "month", *(("goal", "scale") if may_edit else ("goal_text", "marks_text")))

    def get_readonly_fields(self, request: HttpRequest, obj: CampaignMonth | None = None) -> tuple[str, ...]:
        return self.readonly_once_made if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: CampaignMonth | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[CampaignMonth]:
        return super().get_queryset(request).select_related("campaign")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """A month opens on the campaign that is the default one."""
        if db_field.name == "campaign":
            kwargs["initial"] = Campaign.objects.filter(is_default=True).first()
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    @admin.display(description="month", ordering="month")
    def month_text(self, row: CampaignMonth) -> str:
        return Month.parse(row.month).label

    @admin.display(description="goal")
    def goal_text(self, row: CampaignMonth) -> str:
        return amount_text(row.goal, row.campaign.currency)

    @admin.display(description="marks")
    def marks_text(self, row: CampaignMonth) -> str:
        currency = row.campaign.currency
        return " · ".join(amount_text(mark, currency) for mark in marks(row.scale, row.goal, currency))

    def save_model(self, request: HttpRequest, obj: CampaignMonth, form: Any, change: bool) -> None:
        obj.pk = campaigning.set_month_goal(
            campaign=obj.campaign, month=Month.parse(obj.month), goal_minor=obj.goal, scale=obj.scale
        ).pk

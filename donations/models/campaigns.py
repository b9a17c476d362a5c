"""Campaigns, their months and tiers: what a publisher raises for."""

from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator, RegexValidator
from django.db import models
from djmoney.models.fields import MoneyField
from djmoney.money import Money

from donations import money, periods

SLUG = r"\A[a-z0-9][a-z0-9-]*\Z"
LARGEST_GOAL = 10**11 - 1
"""A goal's upper limit, minor units: what the table of campaigns has room for in every currency."""
CUSTOM = "custom"
"""What stands for a tier where an amount of one's own was chosen."""


def validate_zone(name: str) -> None:
    """Refuse a time zone that the tz database does not have."""
    if not periods.is_zone(name):
        raise ValidationError(f"“{name}” is not a time zone of the tz database. Write it like Europe/Paris.")


def validate_month(text: str) -> None:
    """Refuse what is not a month such as 2024-11."""
    try:
        periods.Month.parse(text)
    except ValueError as error:
        raise ValidationError("Write a month like 2024-11.") from error


def validate_whole_minor(amount: Money) -> None:
    """Refuse an amount finer than the currency's smallest unit, or below zero."""
    try:
        minor = money.to_minor(amount)
    except ValueError as error:
        raise ValidationError(f"{amount.currency.code} has no unit that small.") from error
    if minor < 0:
        raise ValidationError("An amount cannot be negative.")


def currency_of(campaign: "Campaign") -> str:
    """The ISO code of a campaign's currency, upper case."""
    return str(campaign.default_goal.currency.code)


class Campaign(models.Model):
    """A named fund. Written by staff (admin) and by `campaigning`."""

    slug = models.SlugField(
        primary_key=True,
        max_length=50,
        validators=[RegexValidator(SLUG, "Use small letters, digits and hyphens.")],
        help_text="Part of every address and of every row in finance's files. It cannot be changed later.",
    )
    name = models.CharField(max_length=100, help_text="Readers see it above the form.")
    description = models.TextField(blank=True, validators=[MaxLengthValidator(500)], help_text="A sentence below it.")
    default_goal = MoneyField(
        max_digits=14,
        decimal_places=3,
        default_currency="USD",
        validators=[validate_whole_minor],
        help_text="The goal of every month that has none of its own.",
    )
    time_zone = models.CharField(max_length=60, default="UTC", validators=[validate_zone])
    is_default = models.BooleanField(default=False, help_text="The campaign that / and the bar show unless told.")
    is_open = models.BooleanField(default=True, help_text="Whether readers can give to it now.")
    opened_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]
        constraints = [
            models.UniqueConstraint(
                fields=["is_default"], condition=models.Q(is_default=True), name="one_default_campaign"
            ),
            models.CheckConstraint(condition=models.Q(default_goal__gte=0), name="default_goal_not_negative"),
            models.CheckConstraint(condition=models.Q(slug__regex=SLUG), name="slug_is_plain"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def currency(self) -> str:
        return currency_of(self)

    @property
    def default_goal_minor(self) -> int:
        return money.to_minor(self.default_goal)


class CampaignMonth(models.Model):
    """A month with a goal of its own. Opened by `projections` (at the first entry), edited by staff via `campaigning`.

    A month without a row has the campaign's default goal.
    """

    campaign = models.ForeignKey(Campaign, models.PROTECT, related_name="months")
    month = models.CharField(max_length=7, validators=[validate_month])
    goal = models.BigIntegerField(help_text="Minor units of the campaign's currency.")
    scale = models.JSONField(
        default=list, blank=True, help_text="Marks of the bar in minor units; empty: 0, half of the goal, the goal."
    )

    class Meta:
        ordering = ["campaign", "-month"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "month"], name="one_row_a_campaign_month"),
            models.CheckConstraint(condition=models.Q(goal__gte=0), name="goal_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id} {self.month}"


class Tier(models.Model):
    """A preset amount, per campaign and frequency. Written by staff (admin)."""

    class Frequency(models.TextChoices):
        """How often a gift is given."""

        ONCE = "once", "one time"
        MONTHLY = "monthly", "monthly"

    campaign = models.ForeignKey(Campaign, models.CASCADE, related_name="tiers")
    frequency = models.CharField(max_length=10, choices=Frequency, default=Frequency.ONCE)
    amount = MoneyField(
        max_digits=14,
        decimal_places=3,
        default_currency="USD",
        validators=[validate_whole_minor],
        help_text="0 asks for no money: the reader follows by email.",
    )
    label = models.CharField(max_length=80, blank=True, help_text="What it pays for, such as “Two days in court”.")
    position = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["campaign", "position", "amount"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "frequency", "amount"], name="one_tier_an_amount"),
            models.CheckConstraint(condition=models.Q(amount__gte=0), name="tier_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{money.format_minor(self.amount_minor, self.amount.currency.code)} {self.label}".strip()

    def clean(self) -> None:
        """Refuse another currency than the campaign's, and an amount that the processor would refuse."""
        if not self.campaign_id or self.amount is None:
            return
        if self.amount.currency.code != self.campaign.currency:
            raise ValidationError({"amount": f"This campaign raises {self.campaign.currency}."})
        lowest = money.minimum(self.campaign.currency)
        if 0 < self.amount_minor < lowest or self.amount_minor > money.maximum(self.campaign.currency):
            raise ValidationError({"amount": "The processor takes no payment of this size."})
        if not money.is_in_steps(self.amount_minor, self.campaign.currency):
            raise ValidationError({"amount": money.step_words(self.amount_minor, self.campaign.currency)})
        if not self.amount_minor and self.frequency == self.Frequency.MONTHLY:
            raise ValidationError({"amount": "To follow costs nothing each month either: make it a one-time tier."})

    @property
    def amount_minor(self) -> int:
        return money.to_minor(self.amount)

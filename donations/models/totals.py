"""Totals: what the bar and the dashboard read instead of the ledger."""

from django.db import models


class MonthTotal(models.Model):
    """A campaign month's sums, minor units. Written by `projections`, which can make it anew from the ledger."""

    campaign = models.ForeignKey("Campaign", models.PROTECT, related_name="+")
    month = models.CharField(max_length=7)
    livemode = models.BooleanField()
    currency = models.CharField(max_length=3)
    raised = models.BigIntegerField(default=0, help_text="The sum of what gifts count: what the bar shows.")
    gifts = models.IntegerField(default=0, help_text="Gifts that count more than nothing.")
    charged = models.BigIntegerField(default=0)
    refunded = models.BigIntegerField(default=0)
    refunds = models.IntegerField(default=0, help_text="Gifts of which something was given back.")
    disputed = models.BigIntegerField(default=0)
    awaiting = models.BigIntegerField(default=0, help_text="Completed checkouts whose money is still on its way.")
    awaiting_gifts = models.IntegerField(default=0)
    followers = models.IntegerField(default=0, help_text="Confirmed this month.")
    changed_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["campaign", "month", "livemode", "currency"], name="one_total_a_month")
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id} {self.month} {self.currency}"


class DailyRollup(models.Model):
    """A day's sums by the gifts' own day, for one value of one dimension. Written by `projections`.

    Dimension "all" has the value "", dimension "tier" a gift's tier. A refund changes the day of its gift, so that
    the days of a campaign month always add up to its bar.
    """

    campaign = models.ForeignKey("Campaign", models.PROTECT, related_name="+")
    month = models.CharField(max_length=7)
    livemode = models.BooleanField()
    currency = models.CharField(max_length=3)
    day = models.DateField()
    dimension = models.CharField(max_length=10)
    value = models.CharField(max_length=40, blank=True)
    raised = models.BigIntegerField(default=0)
    gifts = models.IntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["campaign", "month", "livemode", "currency", "day", "dimension", "value"],
                name="one_rollup_a_day",
            )
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id} {self.day} {self.dimension} {self.value}"

"""Month statements: what a closed month's books said when they were closed."""

from django.db import models
from django.db.models import Q


class MonthStatement(models.Model):
    """A closed month of a campaign's books, by the days of its movements. Written by `closing` alone, once.

    Never updated or deleted (see `guards`), so that a month is closed for good. Its entries are those up to
    `newest_entry`: what is booked later for the same days restates the month, and stands beside it.
    """

    campaign = models.ForeignKey("Campaign", models.PROTECT, related_name="+")
    month = models.CharField(max_length=7, help_text="Of the movements' days in the campaign's zone, like 2024-11.")
    livemode = models.BooleanField()
    totals = models.JSONField(help_text="One a kind and currency: kind, currency, rows, amount (minor units, signed).")
    counted = models.JSONField(help_text="What the bar of the same campaign month showed: currency to minor units.")
    rows = models.BigIntegerField(help_text="Rows of its ledger file.")
    sha256 = models.CharField(max_length=64, help_text="Of the bytes of its ledger file, in small hexadecimals.")
    newest_entry = models.BigIntegerField(help_text="The number of the newest ledger entry when it was closed.")
    # Among them count what staff entered and nobody had approved yet, and gifts whose fee was still being asked for:
    # each becomes an inbox event.
    open_events = models.IntegerField(default=0, help_text="Inbox events that it was closed in spite of.")
    reason = models.CharField(max_length=300, blank=True, help_text="Why it was closed in spite of them.")
    closed_by = models.ForeignKey("auth.User", models.PROTECT, related_name="+")
    closed_at = models.DateTimeField()

    class Meta:
        ordering = ["-month", "campaign"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "month", "livemode"], name="one_statement_a_month"),
            models.CheckConstraint(
                condition=Q(open_events=0) | (Q(open_events__gt=0) & ~Q(reason="")),
                name="closed_in_spite_with_a_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id} {self.month}"

"""The append-only ledger of what the processor confirmed."""

from django.db import models
from django.db.models import F, Q

from donations.letters import CONTROLS

# Texts that stand in finance's file as they are: they begin like no formula, and hold no control character.
PLAIN_TEXT = (
    r"\A[^=+@\-\u0001-\u0020\u007f-\u00a0\uff0b\uff0d\uff1d\uff20]"
    rf"[^{CONTROLS}]*\Z"
)


class LedgerEntry(models.Model):
    """One movement of money. Written by `ledger.post` alone; never updated or deleted (see `guards`).

    It carries the texts that finance's file needs, so that a million rows are read without a join.
    """

    class Kind(models.TextChoices):
        """What moved."""

        GIFT = "gift", "gift"
        OFFLINE_GIFT = "offline_gift", "offline gift"
        REFUND = "refund", "refund"
        REFUND_REVERSAL = "refund_reversal", "refund reversal"
        DISPUTE_WITHDRAWN = "dispute_withdrawn", "dispute withdrawn"
        DISPUTE_REINSTATED = "dispute_reinstated", "dispute reinstated"
        FEE = "fee", "fee"
        ADJUSTMENT = "adjustment", "adjustment"

    GIFT_KINDS = (Kind.GIFT, Kind.OFFLINE_GIFT)
    ADDING = (Kind.GIFT, Kind.OFFLINE_GIFT, Kind.REFUND_REVERSAL, Kind.DISPUTE_REINSTATED)
    GIVING_BACK = (Kind.REFUND, Kind.REFUND_REVERSAL)
    DISPUTING = (Kind.DISPUTE_WITHDRAWN, Kind.DISPUTE_REINSTATED)
    TAKING = (Kind.REFUND, Kind.DISPUTE_WITHDRAWN)

    effective_at = models.DateTimeField(help_text="When this movement happened, by the processor.")
    local_date = models.DateField(help_text="The day of effective_at in the campaign's zone.")
    campaign = models.ForeignKey("Campaign", models.PROTECT, related_name="+", db_column="campaign", db_index=False)
    campaign_month = models.CharField(max_length=7, help_text="The month of the gift that it belongs to.")
    time_zone = models.CharField(max_length=60)
    kind = models.CharField(max_length=20, choices=Kind)
    processor = models.CharField(max_length=20)
    reference = models.CharField(max_length=255)
    gift = models.ForeignKey("Gift", models.PROTECT, null=True, blank=True, related_name="entries", db_column="gift")
    tier = models.CharField(max_length=40, blank=True)
    currency = models.CharField(max_length=3)
    amount = models.BigIntegerField(help_text="Minor units, signed: what came in is positive.")
    goal_amount = models.BigIntegerField(default=0, help_text="Minor units that count toward the goal.")
    settlement_currency = models.CharField(max_length=3, blank=True)
    settlement_amount = models.BigIntegerField(null=True, blank=True)
    livemode = models.BooleanField()
    inbox_event = models.ForeignKey("InboxEvent", models.PROTECT, null=True, related_name="entries", db_index=False)
    booked_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "ledger entries"
        constraints = [
            models.UniqueConstraint(fields=["processor", "kind", "reference"], name="one_entry_a_movement"),
            models.UniqueConstraint(
                fields=["gift"], condition=Q(kind__in=["gift", "offline_gift"]), name="one_gift_entry_a_gift"
            ),
            models.CheckConstraint(
                condition=(
                    Q(kind__in=["gift", "offline_gift", "refund_reversal", "dispute_reinstated"], amount__gt=0)
                    | Q(kind__in=["refund", "dispute_withdrawn"], amount__lt=0)
                    | (Q(kind__in=["fee", "adjustment"]) & ~Q(amount=0))
                ),
                name="entry_sign",
            ),
            models.CheckConstraint(
                condition=Q(goal_amount=0)
                | Q(kind__in=["gift", "offline_gift"], goal_amount__gt=0, goal_amount__lte=F("amount")),
                name="entry_goal_amount",
            ),
            models.CheckConstraint(
                condition=Q(settlement_currency="", settlement_amount__isnull=True)
                | (~Q(settlement_currency="") & Q(settlement_amount__isnull=False)),
                name="entry_settlement",
            ),
            models.CheckConstraint(
                condition=Q(processor__regex=PLAIN_TEXT, reference__regex=PLAIN_TEXT)
                & (Q(tier="") | Q(tier__regex=PLAIN_TEXT)),
                name="entry_texts_are_plain",
            ),
            models.CheckConstraint(
                condition=Q(gift__isnull=False) | Q(kind__in=["fee", "adjustment"]), name="entry_has_a_gift"
            ),
        ]
        indexes = [
            # On PostgreSQL its texts are in the order of bytes, which a migration says: see `selectors.finance`.
            models.Index(fields=["effective_at", "processor", "kind", "reference"], name="entries_in_order"),
            models.Index(
                fields=["gift"],
                condition=~Q(kind__in=["gift", "offline_gift", "fee"]),
                name="entries_that_change_a_gift",
            ),
            models.Index(
                fields=["campaign", "livemode", "campaign_month", "-effective_at"],
                condition=Q(kind="refund"),
                name="refunds_of_a_month",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.reference}"

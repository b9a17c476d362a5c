"""What the processor's own books say: its transactions, its payouts, and what we have yet to ask it for.

For reconciliation: nothing here counts toward a goal.
"""

from django.db import models
from django.db.models import Q
from django.utils import timezone


class BalanceTransaction(models.Model):
    """A movement on our balance at the processor, as it tells it. Written by `settlements` alone.

    Amounts are minor units of the settlement's currency, signed; `fee` is what the processor kept.
    """

    processor = models.CharField(max_length=20)
    reference = models.CharField(max_length=255, help_text="The processor's id, txn_…")
    type = models.CharField(max_length=60, help_text="The processor's own word, such as charge or refund.")
    source = models.CharField(max_length=255, blank=True, help_text="What moved: a charge, refund, dispute or payout.")
    payment = models.CharField(max_length=255, blank=True, help_text="The payment that it belongs to.")
    gift = models.ForeignKey(
        "Gift", models.PROTECT, null=True, blank=True, related_name="balance_transactions", db_column="gift"
    )
    currency = models.CharField(max_length=3)
    amount = models.BigIntegerField()
    fee = models.BigIntegerField()
    net = models.BigIntegerField()
    exchange_rate = models.CharField(max_length=40, blank=True, help_text="As told: gift's to settlement's currency.")
    created = models.DateTimeField()
    available_on = models.DateTimeField()
    payout = models.CharField(max_length=255, blank=True, help_text="The payout that carried it to our bank.")
    livemode = models.BooleanField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["processor", "reference"], name="one_row_a_transaction"),
            models.CheckConstraint(condition=Q(net=models.F("amount") - models.F("fee")), name="net_is_what_is_left"),
        ]
        indexes = [
            models.Index(fields=["payout"], condition=~Q(payout=""), name="transactions_of_a_payout"),
            models.Index(fields=["payment"], condition=~Q(payment=""), name="transactions_of_a_payment"),
            models.Index(fields=["processor", "livemode", "created"], name="transactions_in_time"),
        ]

    def __str__(self) -> str:
        return f"{self.reference} {self.type}"


class Payout(models.Model):
    """The processor's transfer to our bank. Written by `settlements` alone. `paid` is an expectation: it may fail."""

    class Status(models.TextChoices):
        """In rising order: a later one is never overruled by an earlier one, whatever order news arrives in."""

        PENDING = "pending", "pending"
        IN_TRANSIT = "in_transit", "on its way"
        PAID = "paid", "paid"
        CANCELED = "canceled", "canceled"
        FAILED = "failed", "failed"

    processor = models.CharField(max_length=20)
    reference = models.CharField(max_length=255, help_text="The processor's id, po_…")
    status = models.CharField(max_length=12, choices=Status)
    currency = models.CharField(max_length=3)
    amount = models.BigIntegerField(help_text="Minor units; negative where the processor takes from our bank.")
    created = models.DateTimeField()
    arrival = models.DateTimeField(help_text="When it reaches the bank, by the processor's expectation.")
    automatic = models.BooleanField()
    reconciled = models.BooleanField(default=False, help_text="Whether the processor can tell what it carried.")
    livemode = models.BooleanField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["processor", "reference"], name="one_row_a_payout")]

    def __str__(self) -> str:
        return f"{self.reference} {self.status}"


class Lookup(models.Model):
    """Something to be asked of the processor: an event named it and did not tell it. A queue, as the inbox is.

    Asked for by `booking`, taken by `reconcile`, which puts the answer into the inbox.
    """

    class Kind(models.TextChoices):
        """What is asked for."""

        BALANCE_TRANSACTION = "balance_transaction", "balance transaction"
        INVOICE = "invoice", "invoice"
        PAYOUT_TRANSACTIONS = "payout", "transactions of a payout"

    processor = models.CharField(max_length=20)
    kind = models.CharField(max_length=20, choices=Kind)
    object_id = models.CharField(max_length=255)
    cursor = models.CharField(max_length=255, blank=True, help_text="Up to where a list has been read.")
    attempts = models.IntegerField(default=0)
    next_try_at = models.DateTimeField(default=timezone.now, null=True, help_text="Empty: it was answered.")
    last_error = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["processor", "kind", "object_id"], name="one_lookup_an_object")]
        indexes = [
            models.Index(fields=["next_try_at"], condition=Q(next_try_at__isnull=False), name="lookups_queue"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.object_id}"

"""Runs that fetch what was missed and compare both books."""

from django.db import models
from django.db.models import Q


class Reconciliation(models.Model):
    """One run. Written by `reconcile` alone. One that was killed is gone on with: it knows where it stood.

    `books` is what both sides said, by currency and type, minor units; `differences` what they disagree about.
    """

    processor = models.CharField(max_length=20)
    livemode = models.BooleanField(null=True, help_text="Of the key that it asked with; of before this was kept: none.")
    since = models.DateTimeField(help_text="From when on the processor was asked.")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    holder = models.CharField(max_length=40, help_text="Who works on it.")
    held_until = models.DateTimeField(help_text="Until then nobody else takes it up.")

    step = models.CharField(max_length=20, help_text="What is asked for now.")
    cursor = models.CharField(max_length=255, blank=True, help_text="Up to where this step's list was read.")
    counts = models.JSONField(default=dict, help_text="By step: how many were listed, how many of them were new here.")
    books = models.JSONField(default=dict)
    differences = models.JSONField(default=list)
    unexplained = models.IntegerField(default=0, help_text="How many differences nobody knows the cause of.")
    unseen = models.IntegerField(default=0, help_text="How much the processor had that was not here.")
    error = models.CharField(max_length=300, blank=True, help_text="Why it stands still.")
    equal = models.BooleanField(null=True, help_text="Whether both books said the same.")
    equal_since = models.DateTimeField(null=True, help_text="Since when `equal` is what it is.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["processor"], condition=Q(finished_at__isnull=True), name="one_reconciliation_at_a_time"
            )
        ]
        indexes = [models.Index(fields=["processor", "-finished_at"], name="reconciliations_latest")]

    def __str__(self) -> str:
        return f"{self.processor} {self.started_at:%Y-%m-%d %H:%M} UTC"

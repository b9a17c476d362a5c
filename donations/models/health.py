"""What staff are told of the site's own health: the last result of each check, and the troubles that were mailed."""

from django.db import models
from django.db.models import Q


class CheckResult(models.Model):
    """The last result of one kind of check, and when it is due next. Written by `health` alone.

    `is_equal` and `since` are empty until the check has run once; `since` is when its answer was last another one.
    """

    class Kind(models.TextChoices):
        """What was checked."""

        BOOKS = "books", "the books in themselves"
        RECONCILE = "reconcile", "the books against the processor’s"
        DELIVERIES = "deliveries", "how often the processor calls"

    kind = models.CharField(max_length=10, primary_key=True, choices=Kind)
    due_at = models.DateTimeField(help_text="When it is run next; whoever runs it moves this forward first.")
    finished_at = models.DateTimeField(null=True)
    is_equal = models.BooleanField(null=True, help_text="Whether nothing was found to be wrong.")
    since = models.DateTimeField(null=True)
    findings = models.IntegerField(default=0)
    words = models.TextField(blank=True, help_text="The first findings, one a line.")
    checked = models.JSONField(default=dict, help_text="How much was looked at, by what it is.")
    unseen = models.IntegerField(null=True, help_text="What the last run fetched as it was not here; reconcile alone.")
    undelivered_at = models.DateTimeField(
        null=True, help_text="Of when the latest event is that was not delivered for an hour; reconcile alone."
    )
    longest_gap = models.DurationField(null=True, help_text="The longest usual silence; deliveries alone.")

    def __str__(self) -> str:
        return f"{self.kind} {self.finished_at or 'never'}"


class Alert(models.Model):
    """A trouble that staff were told of, from its beginning to its end. Written by `health` alone.

    Its words hold no personal data: they are mailed.
    """

    kind = models.CharField(max_length=20)
    words = models.CharField(max_length=300)
    remedy = models.CharField(max_length=300)
    path = models.CharField(max_length=200, blank=True, help_text="The page where it is mended.")
    began_at = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="When it was last there.")
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-began_at"]
        constraints = [
            models.UniqueConstraint(fields=["kind"], condition=Q(ended_at__isnull=True), name="one_open_alert_a_kind")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.began_at:%Y-%m-%d %H:%M} UTC"

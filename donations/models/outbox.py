"""The outbox: mail to be sent, at most once."""

from typing import ClassVar

from django.db import models


class OutboxMessage(models.Model):
    """One message to one person. Written by `outbox` alone; the address is read from the donor when it is sent."""

    class Kind(models.TextChoices):
        """Which letter."""

        RECEIPT = "receipt", "receipt"
        FOLLOW = "follow", "confirm following"
        UNPAID = "unpaid", "monthly payment failed"
        ACTION = "action", "monthly payment to be authenticated"
        ALERT = "alert", "a trouble, to staff"

    OF_TROUBLE: ClassVar = {"failed": Kind.UNPAID, "action_required": Kind.ACTION}
    """The letter to the donor, by the trouble that an invoice has."""

    class State(models.TextChoices):
        """A message that a crash cut off is `unsure`, and is never sent again by itself; `unneeded`, never written."""

        QUEUED = "queued", "queued"
        SENDING = "sending", "being sent"
        SENT = "sent", "sent"
        FAILED = "failed", "failed"
        UNSURE = "unsure", "unsure"
        UNNEEDED = "unneeded", "not needed"

    MOST_ATTEMPTS = 8
    """After so many, in about four hours, a message that the mail server did not take is given up."""

    kind = models.CharField(max_length=10, choices=Kind)
    subject_id = models.CharField(
        max_length=80, help_text="What it is about: a gift, a follower, an invoice or an alert."
    )
    round = models.IntegerField(default=0, help_text="Above 0 where a person asked for it once more.")
    state = models.CharField(max_length=8, choices=State, default=State.QUEUED)
    attempts = models.IntegerField(default=0)
    next_try_at = models.DateTimeField()
    last_error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "subject_id", "round"], name="one_message_a_subject")]
        indexes = [
            models.Index(
                fields=["next_try_at"], condition=models.Q(state__in=["queued", "sending"]), name="outbox_queue"
            ),
            models.Index(
                fields=["next_try_at"],
                condition=models.Q(kind="follow") & ~models.Q(state="queued"),
                name="outbox_follow_tried",
            ),
            models.Index(
                fields=["state", "next_try_at"],
                condition=models.Q(state__in=["failed", "unsure"]),
                name="outbox_alarms",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject_id} {self.state}"

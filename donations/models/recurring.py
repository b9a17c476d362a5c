"""Monthly gifts: the arrangement at the processor that makes a gift each month."""

from django.db import models
from django.db.models import Q

from donations.models.gifts import AskedGift, moment_and_chance, to_be_closed


def new_recurring_reference() -> str:
    """A monthly gift's reference, made as a gift's is."""
    return f"recurring_{moment_and_chance()}"


class RecurringGift(AskedGift):
    """A monthly arrangement: a subscription at the processor. Written by `giving`; its state by `recurring`.

    Each invoice that is paid is a gift of its own.
    """

    class Status(models.TextChoices):
        """The processor's own words for a subscription, and two of ours: before there is one."""

        PENDING = "pending", "not begun"
        EXPIRED = "expired", "never begun"
        INCOMPLETE = "incomplete", "first payment open"
        TRIALING = "trialing", "on trial"
        ACTIVE = "active", "active"
        PAST_DUE = "past_due", "past due"
        UNPAID = "unpaid", "unpaid"
        PAUSED = "paused", "paused"
        INCOMPLETE_EXPIRED = "incomplete_expired", "first payment never came"
        CANCELED = "canceled", "canceled"

    # What the donor has to see to, and staff to know. An authentication that the bank asks for is `past_due`, too.
    FAILING = (Status.PAST_DUE, Status.UNPAID)

    reference = models.CharField(primary_key=True, max_length=70, default=new_recurring_reference, editable=False)
    status = models.CharField(max_length=20, choices=Status, default=Status.PENDING)
    subscription = models.CharField(max_length=255, blank=True, help_text="The processor's id of the arrangement.")
    heard_at = models.DateTimeField(null=True, blank=True, help_text="When the processor said what stands here.")
    cancel_at = models.DateTimeField(null=True, blank=True, help_text="When it will end, as the donor asked.")
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "monthly gift"
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="recurring_gift_is_some_money"),
            models.CheckConstraint(condition=Q(fee_cover__gte=0), name="recurring_fee_cover_not_negative"),
            models.CheckConstraint(
                condition=Q(reference__regex=r"\Arecurring_[0-9A-Za-z_.:-]+\Z"), name="recurring_reference_says_so"
            ),
        ]
        indexes = [
            # What is given each month is summed from it alone.
            models.Index(fields=["campaign", "livemode", "status", "currency", "amount"], name="recurring_sums"),
            models.Index(
                fields=["livemode"], condition=Q(status__in=["past_due", "unpaid"]), name="recurring_in_trouble"
            ),
            to_be_closed("recurring_to_close"),
        ]

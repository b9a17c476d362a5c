"""Monthly gifts: the arrangement at the processor that makes a gift each month."""

from dataclasses import dataclass

from django.db import models
from django.db.models import Q

from donations.models.gifts import AskedGift, moment_and_chance, to_be_closed


def new_recurring_reference() -> str:
    """A monthly gift's reference, made as a gift's is."""
    return f"recurring_{moment_and_chance()}"


MONTH = "month"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a monthly gift asks each period: minor units of `currency`, the fee cover apart from the gift itself."""

    amount: int
    fee_cover: int
    currency: str
    interval: str = MONTH

    @property
    def total(self) -> int:
        return self.amount + self.fee_cover

    @property
    def often(self) -> str:
        """In words: "each month", "every 3 months"."""
        return f"{'every' if self.interval[:1].isdigit() else 'each'} {self.interval}"


class RecurringGift(AskedGift):
    """A monthly arrangement: a subscription at the processor.

    Written by `giving`; its state by `recurring`, and by `booking` a donor whom the processor tells of later, and the
    whole of one that is not known here and that staff accept. Each invoice that is paid is a gift of its own. `amount`
    and `fee_cover` are what its checkout asked for, and stay; what stands in `now_…` is what the subscription asks for,
    as far as the processor told, and follows it.
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

    # While there is no subscription yet; while its first payment may still come; and those for which none came yet.
    WITHOUT_SUBSCRIPTION = (Status.PENDING, Status.EXPIRED)
    TO_BEGIN = (Status.PENDING, Status.INCOMPLETE)
    NOT_BEGUN = (*WITHOUT_SUBSCRIPTION, Status.INCOMPLETE)
    # A subscription that has ended, and all of which nothing more is to come.
    ENDED = (Status.CANCELED, Status.INCOMPLETE_EXPIRED)
    OVER = (Status.EXPIRED, *ENDED)
    # A subscription that has not ended; and those of them that are as they should be.
    ALIVE = (Status.INCOMPLETE, Status.TRIALING, Status.ACTIVE, Status.PAST_DUE, Status.UNPAID, Status.PAUSED)
    GOING_WELL = (Status.TRIALING, Status.ACTIVE)
    # What the donor has to see to, and staff to know. An authentication that the bank asks for is `past_due`, too.
    FAILING = (Status.PAST_DUE, Status.UNPAID)

    reference = models.CharField(primary_key=True, max_length=70, default=new_recurring_reference, editable=False)
    status = models.CharField(max_length=20, choices=Status, default=Status.PENDING)
    subscription = models.CharField(max_length=255, blank=True, help_text="The processor's id of the arrangement.")
    heard_at = models.DateTimeField(null=True, blank=True, help_text="When the processor said what stands here.")
    cancel_at = models.DateTimeField(null=True, blank=True, help_text="When it will end, as the donor asked.")
    ended_at = models.DateTimeField(null=True, blank=True)
    # The database's own defaults let processes of the version before go on adding monthly gifts during an upgrade.
    now_amount = models.BigIntegerField(
        null=True, blank=True, help_text="Minor units that it asks each period now, without the cover. None: not told."
    )
    now_fee_cover = models.BigIntegerField(
        default=0, db_default=0, help_text="Minor units that it asks besides, for the fee."
    )
    now_currency = models.CharField(max_length=3, blank=True, default="", db_default="")
    now_interval = models.CharField(
        max_length=20, blank=True, default="", db_default="", help_text="How long a period is: month, 3 months."
    )

    class Meta:
        verbose_name = "monthly gift"
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="recurring_gift_is_some_money"),
            models.CheckConstraint(condition=Q(fee_cover__gte=0), name="recurring_fee_cover_not_negative"),
            models.CheckConstraint(
                condition=Q(reference__regex=r"\Arecurring_[0-9A-Za-z_.:-]+\Z"), name="recurring_reference_says_so"
            ),
            models.CheckConstraint(
                condition=Q(now_amount=None, now_fee_cover=0, now_currency="", now_interval="")
                | Q(now_amount__gte=0, now_fee_cover__gte=0, now_currency__gt="", now_interval__gt=""),
                name="recurring_now_is_told_as_a_whole",
            ),
        ]
        indexes = [
            # What is given each month is summed from it alone.
            models.Index(
                fields=[
                    "campaign",
                    "livemode",
                    "status",
                    "now_interval",
                    "now_currency",
                    "currency",
                    "now_amount",
                    "amount",
                ],
                name="recurring_sums",
            ),
            models.Index(
                fields=["livemode"], condition=Q(status__in=["past_due", "unpaid"]), name="recurring_in_trouble"
            ),
            to_be_closed("recurring_to_close"),
        ]

    @property
    def asked(self) -> Terms:
        """What its checkout asked for."""
        return Terms(self.amount, self.fee_cover, self.currency)

    @property
    def terms(self) -> Terms:
        """What it asks now, where that was told; else what its checkout asked for."""
        if self.now_amount is None:
            return self.asked
        return Terms(self.now_amount, self.now_fee_cover, self.now_currency, self.now_interval)

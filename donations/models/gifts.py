"""Gifts: what a reader meant to give, what became of it, and the refunds that we asked for."""

import secrets
import time

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's 32


def new_reference() -> str:
    """A gift's reference: its millisecond, then 80 random bits; safe in an address and in the processor's metadata.

    Those of one hour lie side by side in every index, so that a batch touches few pages of a large ledger.
    """
    return f"gift_{moment_and_chance()}"


def moment_and_chance() -> str:
    moment = time.time_ns() // 1_000_000
    when = "".join(LETTERS[moment >> shift & 31] for shift in range(45, -1, -5))
    return f"{when}{''.join(secrets.choice(LETTERS) for _ in range(16))}"


def new_refund_key() -> str:
    return "refund_" + secrets.token_hex(16)


class AskedGift(models.Model):
    """What a reader asked to give, and the checkout that they were sent to: what a gift and a monthly gift share.

    Its amounts never change.
    """

    # Both tables have an index that begins with it.
    campaign = models.ForeignKey("donations.Campaign", models.PROTECT, related_name="%(class)ss", db_index=False)
    donor = models.ForeignKey("donations.Donor", models.SET_NULL, null=True, blank=True, related_name="%(class)ss")
    tier = models.CharField(max_length=40, help_text="The tier's amount as text, such as 500.00, or “custom”.")
    currency = models.CharField(max_length=3)
    amount = models.BigIntegerField(help_text="Minor units, without the fee cover.")
    fee_cover = models.BigIntegerField(default=0, help_text="Minor units that the donor added for the processor's fee.")
    public_name = models.CharField(max_length=100, blank=True)
    message = models.TextField(max_length=500, blank=True)
    anonymous = models.BooleanField(default=False)
    source = models.CharField(max_length=60, blank=True, help_text="Where the reader came from.")
    livemode = models.BooleanField()
    processor = models.CharField(max_length=20)
    created_at = models.DateTimeField(auto_now_add=True)

    page = models.CharField(max_length=64, blank=True, db_index=True, help_text="The form that was shown once.")
    attempt = models.CharField(max_length=64, unique=True, null=True, blank=True, help_text="That form and its fields.")
    checkout_parameters = models.JSONField(null=True, blank=True, help_text="Sent unchanged by every retry.")
    checkout_keys_spent = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Idempotency keys under which the processor keeps a failure of its own."
    )
    checkout_id = models.CharField(max_length=255, unique=True, null=True, blank=True)
    checkout_url = models.TextField(blank=True)
    checkout_expires_at = models.DateTimeField(null=True, blank=True)
    superseded_at = models.DateTimeField(null=True, blank=True, help_text="The reader went back and changed it.")
    refusal = models.CharField(max_length=300, blank=True, help_text="Why the processor would not start it.")

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def total(self) -> int:
        """What the donor is asked to pay, minor units."""
        return self.amount + self.fee_cover


def to_be_closed(name: str) -> models.Index:
    """The index of those whose open checkout another one took the place of."""
    return models.Index(
        fields=["superseded_at"], condition=Q(superseded_at__isnull=False) & ~Q(checkout_url=""), name=name
    )


class Gift(AskedGift):
    """A donor's one payment, as asked for; what became of it is in GiftState.

    Written by `giving`, by `offline` for what staff enter, and by `booking` where nobody typed one here: for each paid
    invoice of a monthly gift, and for a payment that staff accept. `erasure` takes out who gave it.
    """

    reference = models.CharField(primary_key=True, max_length=70, default=new_reference, editable=False)
    frequency = models.CharField(max_length=10, default="once")
    recurring_gift = models.ForeignKey(
        "RecurringGift",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="gifts",
        db_column="recurring_gift",
        db_index=False,
    )

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="gift_is_some_money"),
            models.CheckConstraint(condition=Q(fee_cover__gte=0), name="fee_cover_not_negative"),
            models.CheckConstraint(
                condition=Q(reference__regex=r"\Agift_[0-9A-Za-z_.:-]+\Z"), name="gift_reference_says_gift"
            ),
        ]
        indexes = [
            models.Index(fields=["campaign", "-created_at"], name="gifts_latest"),
            to_be_closed("gifts_to_close"),
            models.Index(
                fields=["recurring_gift"], condition=Q(recurring_gift__isnull=False), name="gifts_of_a_monthly_gift"
            ),
        ]


class GiftState(models.Model):
    """What became of a gift: a projection of its entries and of the processor's facts. Written by `projections`.

    Amounts are minor units and not negative, but `adjusted`, which is signed; `disputed` may exceed `charged`.
    A gift without a row is pending.
    """

    class Status(models.TextChoices):
        """In rising order: a later one is never overruled by an earlier one, whatever order news arrives in."""

        PENDING = "pending", "pending"
        AWAITING = "awaiting", "awaiting"
        EXPIRED = "expired", "expired"
        FAILED = "failed", "failed"
        CONFIRMED = "confirmed", "confirmed"

    gift = models.OneToOneField(Gift, models.PROTECT, primary_key=True, related_name="state")
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    campaign = models.ForeignKey("Campaign", models.PROTECT, related_name="+", db_index=False)
    campaign_month = models.CharField(max_length=7, blank=True, help_text="Of the payment; awaiting: of its checkout.")
    local_date = models.DateField(null=True, blank=True)
    livemode = models.BooleanField()
    currency = models.CharField(max_length=3)
    tier = models.CharField(max_length=40)
    payment = models.CharField(max_length=255, blank=True, help_text="The processor's id of the payment.")
    confirmed_at = models.DateTimeField(null=True, blank=True)
    charged = models.BigIntegerField(default=0)
    refunded = models.BigIntegerField(default=0)
    disputed = models.BigIntegerField(default=0)
    adjusted = models.BigIntegerField(default=0, help_text="Signed: what adjustments by staff took or gave again.")
    counted = models.BigIntegerField(default=0)
    awaiting = models.BigIntegerField(default=0)
    refund_requested = models.BigIntegerField(default=0, help_text="What our own staff asked to give back.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(refund_requested__lte=F("charged")), name="refund_within_the_charge"),
            models.CheckConstraint(condition=Q(refund_requested__gte=0), name="refund_requested_not_negative"),
            models.CheckConstraint(condition=Q(charged__gte=0), name="charged_not_negative"),
            models.CheckConstraint(condition=Q(counted__gte=0), name="counted_not_negative"),
        ]
        indexes = [
            models.Index(fields=["campaign", "livemode", "campaign_month", "-confirmed_at"], name="states_of_a_month"),
            models.Index(fields=["payment"], name="states_by_payment"),
        ]

    def __str__(self) -> str:
        return f"{self.gift_id} {self.status}"

    @property
    def is_reversed(self) -> bool:
        """Whether adjustments by staff left nothing of what was charged; also where nothing was."""
        return self.charged + self.adjusted <= 0


class RefundRequest(models.Model):
    """A refund that staff asked for. Written by `refunding`, and where it ends by `projections`, with the counter.

    The money moves when the processor's event says so.
    """

    class Status(models.TextChoices):
        """Where our request stands, not where the money is."""

        SENDING = "sending", "being sent"
        ACCEPTED = "accepted", "taken by the processor"
        REFUSED = "refused", "refused by the processor"
        FAILED = "failed", "failed later: the money came back"
        CANCELED = "canceled", "called off at the processor"
        GIVEN_UP = "given_up", "given up: it was not found at the processor"

    key = models.CharField(max_length=60, unique=True, default=new_refund_key, editable=False)
    gift = models.ForeignKey(Gift, models.PROTECT, related_name="refund_requests")
    amount = models.BigIntegerField(help_text="Minor units.")
    reason = models.CharField(max_length=200, blank=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.SENDING)
    refund_id = models.CharField(max_length=255, blank=True)
    keys_spent = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="Idempotency keys under which the processor keeps a failure of its own."
    )
    error = models.CharField(max_length=300, blank=True)
    requested_by = models.ForeignKey("auth.User", models.PROTECT, null=True, related_name="+")
    requested_at = models.DateTimeField(auto_now_add=True)
    next_try_at = models.DateTimeField(
        default=timezone.now, help_text="When it may be sent again; whoever sends it moves this forward first."
    )

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(amount__gt=0), name="refund_is_some_money")]
        indexes = [
            models.Index(fields=["next_try_at"], condition=Q(status="sending"), name="refunds_to_send_again"),
            models.Index(fields=["requested_at"], condition=Q(status="sending"), name="refunds_unanswered"),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.status}"

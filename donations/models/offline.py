"""What staff ask to have booked: money that no processor moved, and what puts the books right."""

from unicodedata import normalize

from django.db import models
from django.db.models import F, Q


def key_of(reference: str) -> str:
    """What is the same of a reference however its letters are written: large or small, é as one character or as two.

    Not left to the database: SQLite knows the capitals of ASCII alone, and PostgreSQL those of its locale.
    """
    return normalize("NFC", normalize("NFC", reference).casefold())


class OfflineRequest(models.Model):
    """An offline gift or an adjustment, as staff entered it. Written by `offline`; never edited, decided about once.

    Who gave stands with its gift, which is made with it, and goes with it where it is rejected.
    """

    class Kind(models.TextChoices):
        """What it is; the ledger's kinds."""

        OFFLINE_GIFT = "offline_gift", "offline gift"
        ADJUSTMENT = "adjustment", "adjustment"

    class Method(models.TextChoices):
        """How the money came."""

        BANK_TRANSFER = "bank_transfer", "bank transfer"
        CASH = "cash", "cash"
        CHEQUE = "cheque", "cheque"

    class Status(models.TextChoices):
        """Where it stands."""

        WAITING = "waiting", "waiting for approval"
        BOOKED = "booked", "booked"
        REJECTED = "rejected", "rejected"

    kind = models.CharField(max_length=12, choices=Kind)
    campaign = models.ForeignKey("Campaign", models.PROTECT, related_name="+")
    gift = models.ForeignKey("Gift", models.PROTECT, null=True, blank=True, related_name="offline_requests")
    currency = models.CharField(max_length=3)
    amount = models.BigIntegerField(help_text="Minor units; of an adjustment signed.")
    day = models.DateField(help_text="When the money moved, by the campaign's calendar.")
    method = models.CharField(max_length=13, choices=Method, blank=True)
    reference = models.CharField(max_length=100, help_text="The bank's, the cheque's or the receipt's.")
    reference_key = models.CharField(max_length=300, help_text="It, however its letters are written; see `key_of`.")
    reason = models.CharField(max_length=200)
    livemode = models.BooleanField()
    requested_by = models.ForeignKey("auth.User", models.PROTECT, related_name="+")
    requested_at = models.DateTimeField(auto_now_add=True)

    status = models.CharField(max_length=8, choices=Status, default=Status.WAITING)
    decided_by = models.ForeignKey("auth.User", models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)
    decision_reason = models.CharField(max_length=200, blank=True)

    class Meta:
        verbose_name = "offline gift or adjustment"
        verbose_name_plural = "offline gifts and adjustments"
        constraints = [
            models.UniqueConstraint(
                fields=["campaign", "kind", "livemode", "reference_key"],
                condition=~Q(status="rejected"),
                name="one_request_a_reference",
            ),
            models.CheckConstraint(
                condition=Q(kind="offline_gift", amount__gt=0) | (Q(kind="adjustment") & ~Q(amount=0)),
                name="offline_request_sign",
            ),
            models.CheckConstraint(
                condition=~Q(kind="offline_gift") | Q(gift__isnull=False) | Q(status="rejected"),
                name="offline_gift_has_a_gift",
            ),
            models.CheckConstraint(
                condition=Q(decided_by__isnull=True, decided_at__isnull=True, status__in=["waiting", "booked"])
                | Q(decided_by__isnull=False, decided_at__isnull=False, status__in=["booked", "rejected"]),
                name="offline_request_decided",
            ),
            models.CheckConstraint(
                condition=Q(decided_by__isnull=True) | Q(status="rejected") | ~Q(decided_by=F("requested_by")),
                name="approved_by_another_person",
            ),
        ]
        indexes = [models.Index(fields=["status"], condition=Q(status="waiting"), name="offline_to_approve")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.reference}"

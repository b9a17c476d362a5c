"""The inbox: what we were told, stored before anything is made of it. It is also the queue."""

from django.db import models
from django.db.models import Q

# How the reasons of some kinds of quarantine begin: they are told apart from the others.
PAID_TWICE = "paid twice"
GAVE_UP = "it failed for 72 hours"  # or waited and failed by turns
UNREADABLE = "it is not as its type promises"
UNBOOKABLE = "it cannot be accepted"  # what is wrong with it stays so, whoever wants it booked
STILL = "after 72 hours, still: "  # then what it waited for
# What waits for a payment or an invoice says so first. It may come yet: then nobody need decide.
WANTS_PAYMENT = "the payment that it"
WANTS_INVOICE = "its invoice is"
WANTING = tuple(f"{before}{what}" for before in (STILL, "") for what in (WANTS_PAYMENT, WANTS_INVOICE))


class InboxEvent(models.Model):
    """One thing that we were told. Written by `inbox` alone.

    `facts` and the body's SHA-256 stay when `erasure` takes the body away, which holds personal data.
    """

    class State(models.TextChoices):
        """What was made of it."""

        READY = "ready", "ready"
        WAITING = "waiting", "waiting for what it belongs to"
        PROCESSED = "processed", "processed"
        NOTHING = "nothing", "needs nothing"
        FOREIGN = "foreign", "not ours"
        WRONG_MODE = "wrong_mode", "of the other mode"
        QUARANTINED = "quarantined", "quarantined"
        DISMISSED = "dismissed", "dismissed"

    HEARD = (State.PROCESSED, State.READY)
    """With facts, what was made of it may stand: what is read again is ready once more, whatever it was."""

    STANDS = Q(state=State.PROCESSED) | Q(state=State.READY, reason="")
    """With facts, what was made of it stands: it is processed, or was and is read again.

    What was set aside and is read again keeps its reason until it is looked at; what is new has no facts.
    """

    IN_WANT = Q(state=State.QUARANTINED) & Q(*(Q(reason__startswith=each) for each in WANTING), _connector=Q.OR)
    """In quarantine only for want of a payment or an invoice; where it was accepted in vain, without the 72 hours."""

    class Origin(models.TextChoices):
        """Who told us."""

        DELIVERY = "delivery", "delivery"
        EVENTS_API = "events_api", "the processor's list of events"
        SWEEP = "sweep", "sweep"
        STAFF = "staff", "staff"

    processor = models.CharField(max_length=20)
    event_id = models.CharField(max_length=255)
    origin = models.CharField(max_length=12, choices=Origin, default=Origin.DELIVERY)
    type = models.CharField(max_length=100)
    received_at = models.DateTimeField()
    body = models.BinaryField(null=True)
    body_sha256 = models.BinaryField(max_length=32)

    state = models.CharField(max_length=12, choices=State, default=State.READY)
    next_try_at = models.DateTimeField(null=True, help_text="When it is looked at next; empty when it is settled.")
    attempts = models.IntegerField(default=0)
    waiting_since = models.DateTimeField(
        "unsettled since", null=True, help_text="When it first waited or failed; its 72 hours begin there."
    )
    reason = models.CharField(max_length=300, blank=True, help_text="Why it waits, is quarantined or failed last.")
    settled_at = models.DateTimeField(null=True)

    livemode = models.BooleanField(null=True)
    created = models.DateTimeField(null=True, help_text="The event's own time, by the processor.")
    facts = models.JSONField(null=True, help_text="What it says, typed, without personal data.")
    subject = models.CharField(max_length=255, blank=True, help_text="The object's id: cs_, pi_, re_ …")
    payment = models.CharField(max_length=255, blank=True, help_text="The payment's id that it is about.")
    gift_reference = models.CharField(max_length=70, blank=True)

    decided_by = models.ForeignKey("auth.User", models.PROTECT, null=True, related_name="+", db_index=False)
    decided_at = models.DateTimeField(null=True)
    decision = models.CharField(max_length=10, blank=True, help_text="accept or dismiss")
    decision_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["processor", "event_id"], name="one_row_an_event"),
            models.CheckConstraint(
                condition=Q(state__in=["ready", "waiting"], next_try_at__isnull=False)
                | (~Q(state__in=["ready", "waiting"]) & Q(next_try_at__isnull=True)),
                name="a_next_try_while_unsettled",
            ),
        ]
        indexes = [
            models.Index(fields=["next_try_at", "id"], condition=Q(next_try_at__isnull=False), name="inbox_queue"),
            models.Index(fields=["subject"], condition=~Q(subject=""), name="inbox_by_subject"),
            models.Index(fields=["payment"], condition=~Q(payment=""), name="inbox_by_payment"),
            models.Index(fields=["gift_reference"], condition=~Q(gift_reference=""), name="inbox_by_gift"),
            models.Index(fields=["state"], condition=Q(state__in=["quarantined", "wrong_mode"]), name="inbox_alarms"),
        ]

    def __str__(self) -> str:
        return f"{self.event_id} {self.type}"

    @property
    def stands(self) -> bool:
        """Whether what was made of it stands, where it has facts: as STANDS has it."""
        return self.state == self.State.PROCESSED or (self.state == self.State.READY and not self.reason)

    @property
    def is_in_want(self) -> bool:
        """Whether it is in quarantine only for want of a payment or an invoice."""
        return self.state == self.State.QUARANTINED and self.reason.startswith(WANTING)

    @property
    def may_be_accepted(self) -> bool:
        """Whether staff can have it booked: it is in quarantine for what a person can decide."""
        return self.state == self.State.QUARANTINED and not self.reason.startswith((UNBOOKABLE, UNREADABLE))


class TypesRead(models.Model):
    """Which types of events a processor's adapter has read here so far. Written by `inbox` alone.

    A version that reads more is noticed by it: what needed nothing is then read again; and once more an hour later, as
    processes of the version before may have gone on until then.
    """

    processor = models.CharField(primary_key=True, max_length=20)
    types = models.JSONField()
    fresh = models.JSONField(null=True, help_text="Of these, those to be read once more.")
    fresh_at = models.DateTimeField(null=True, help_text="When they were first read.")

    def __str__(self) -> str:
        return self.processor

"""What came of a gift, as its donor is told it: what was paid, on the thank-you page and in the receipt alike."""

from dataclasses import dataclass

from django.db.models import QuerySet, Sum

from donations.models import InboxEvent, LedgerEntry

State = InboxEvent.State


@dataclass(frozen=True, slots=True)
class Received:
    """What was booked as paid, minor units of `currency`; `given` is what of it counts toward the goal."""

    currency: str
    paid: int
    given: int

    @property
    def cover(self) -> int:
        return self.paid - self.given

    @property
    def is_in_parts(self) -> bool:
        """Whether gift and fee cover are told apart: where the cover takes up all, there is no gift beside it."""
        return 0 < self.given < self.paid


def received(gift: str) -> Received | None:
    """What was paid for a gift, whatever was asked; None for one that is not in the books."""
    return _first_among(LedgerEntry.objects.filter(gift=gift))


def first_received(recurring: str) -> Received | None:
    """What was paid for the first of a monthly gift's gifts; None while none is in the books."""
    return _first_among(LedgerEntry.objects.filter(gift__recurring_gift=recurring))


def _first_among(entries: QuerySet[LedgerEntry]) -> Received | None:
    booked = entries.filter(kind__in=LedgerEntry.GIFT_KINDS).order_by("effective_at", "pk")
    first = booked.values_list("currency", "amount", "goal_amount").first()
    return Received(*first) if first else None


def is_given_back(gift: str) -> bool:
    """Whether all that was paid for a gift was given back: by refunds, or in another way that staff have entered.

    What a bank took in a dispute was not given.
    """
    kinds = (*LedgerEntry.GIFT_KINDS, *LedgerEntry.GIVING_BACK, LedgerEntry.Kind.ADJUSTMENT)
    left = LedgerEntry.objects.filter(gift=gift, kind__in=kinds).aggregate(left=Sum("amount"))["left"]
    return left is not None and left <= 0


def set_aside(reference: str) -> str:
    """What a payment for this gift, or monthly gift, is instead of booked: quarantined or dismissed; empty for none."""
    payments = InboxEvent.objects.filter(gift_reference=reference, facts__kind__in=["paid", "invoice_paid"])
    aside = payments.filter(state__in=[State.QUARANTINED, State.DISMISSED])
    # Said so that SQLite takes the index, which holds no "".
    states = set(aside.exclude(gift_reference="").values_list("state", flat=True))
    return str(State.QUARANTINED if State.QUARANTINED in states else next(iter(states), ""))

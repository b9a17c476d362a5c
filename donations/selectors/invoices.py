"""What became of the invoices of monthly gifts, as far as it was told, in whatever order."""

from collections.abc import Collection
from dataclasses import dataclass, field

from donations.models import InboxEvent
from donations.processors.facts import InvoicePaid, InvoiceSeen, fact_from_json

PAID, VOID, UNCOLLECTIBLE, OPEN = "paid", "void", "uncollectible", "open"


@dataclass(slots=True)
class Standing:
    """All that was told of an invoice. Amounts are minor units of its currency; `due` is 0 where it was not told."""

    due: int = 0
    statuses: set[str] = field(default_factory=set)
    payments: dict[str, int] = field(default_factory=dict)

    @property
    def paid(self) -> int:
        """What its payments came to; one that was told of twice counts once."""
        return sum(self.payments.values())

    @property
    def status(self) -> str:
        """PAID, by whatever means, VOID, UNCOLLECTIBLE or OPEN.

        The first two are for good, and so outweigh all. Its payments tell of it before the invoice does; in part they
        leave it open.
        """
        for last in (PAID, VOID):
            if last in self.statuses:
                return last
        if self.payments and self.paid >= self.due:
            return PAID
        return UNCOLLECTIBLE if UNCOLLECTIBLE in self.statuses else OPEN


def standings(invoices: Collection[str]) -> dict[str, Standing]:
    """How each of these invoices stands, by its id."""
    found = {invoice: Standing() for invoice in invoices}
    told = InboxEvent.objects.filter(subject__in=invoices, state__in=InboxEvent.HEARD, facts__isnull=False)
    # That no "" is wanted must be said: the index holds none.
    for invoice, facts in told.exclude(subject="").values_list("subject", "facts"):
        fact, standing = fact_from_json(facts or {}), found[invoice]
        if isinstance(fact, InvoicePaid):
            standing.payments[fact.payment] = fact.amount
        elif isinstance(fact, InvoiceSeen):
            standing.statuses.add(fact.status)
            standing.due = max(standing.due, fact.amount_due)
    return found

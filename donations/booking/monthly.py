"""Monthly gifts: whose invoice it is, a gift for each payment of one, and what is heard of the arrangement."""

import hashlib
from collections.abc import Iterable
from typing import Any

from django.db.models import Q
from django.utils import timezone

from donations import bulk, outbox
from donations.booking.books import Books, Item, Outcome, State, lock, of_type, told_of
from donations.models import Donor, Gift, Lookup, OutboxMessage, RecurringGift
from donations.processors.facts import (
    InvoicePaid,
    InvoiceSeen,
    MonthlyCheckout,
    RecurringChanged,
)
from donations.recurring import news_of

Numbered = Iterable[tuple[int, Item]]
PATIENT_TRIES = 3  # an invoice is told of within seconds of its payment; then it is asked for
LETTERS = {"failed": OutboxMessage.Kind.UNPAID, "action_required": OutboxMessage.Kind.ACTION}
GIFT = (
    "reference",
    "campaign_id",
    "donor_id",
    "frequency",
    "recurring_gift",
    "tier",
    "currency",
    "amount",
    "fee_cover",
    "public_name",
    "message",
    "anonymous",
    "source",
    "livemode",
    "processor",
    "created_at",
    "page",
    "checkout_url",
    "refusal",
)


def gift_reference(payment: str) -> str:
    """The reference of a gift that nobody typed here follows from its payment: told twice, it is made once."""
    return "gift_" + hashlib.sha256(payment.encode()).hexdigest()[:26]


def owners(processor: str, items: list[Item]) -> dict[str, str]:
    """Whose the invoices are that these facts tell were paid: invoice to monthly gift, "" for what is not ours."""
    wanted = {fact.invoice for _, _, fact in of_type(enumerate(items), InvoicePaid)}
    found = {fact.invoice: fact.recurring_gift for _, _, fact in of_type(enumerate(items), InvoiceSeen)}
    settled = Q(state__in=[State.FOREIGN, State.PROCESSED])
    for row in told_of(processor, "subject", wanted - found.keys(), among=settled):
        if row.facts is None:
            found[row.subject] = ""
        elif row.facts["kind"] == "invoice":
            found[row.subject] = row.facts["recurring_gift"]
    return found


def lock_recurring(items: list[Item], owned: dict[str, str]) -> dict[str, RecurringGift]:
    """The monthly gifts that these facts touch, locked in one order, each with its campaign."""
    facts = of_type(enumerate(items), InvoiceSeen, RecurringChanged, MonthlyCheckout)
    return lock(RecurringGift, {fact.recurring_gift for _, _, fact in facts} | set(owned.values()) - {""})


def make_gifts(processor: str, items: list[Item], owned: dict[str, str], recurring: dict[str, RecurringGift]) -> None:
    """A gift for each payment of an invoice of ours, unless it is there already."""
    rows: dict[str, tuple[Any, ...]] = {}
    for _, item, fact in of_type(enumerate(items), InvoicePaid):
        arrangement = recurring.get(owned.get(fact.invoice, ""))
        if arrangement and not _stands_in_the_way(arrangement, item, fact):
            rows[gift_reference(fact.payment)] = _gift(processor, arrangement, fact)
    if rows:
        bulk.insert(Gift, GIFT, [rows[reference] for reference in sorted(rows)], then="ON CONFLICT DO NOTHING")


def _gift(processor: str, arrangement: RecurringGift, fact: InvoicePaid) -> tuple[Any, ...]:
    # An invoice over another amount was changed at the processor: what of it was meant as cover, nobody knows.
    cover = arrangement.fee_cover if fact.amount == arrangement.total else 0
    return (
        gift_reference(fact.payment),
        arrangement.campaign_id,
        arrangement.donor_id,
        "monthly",
        arrangement.pk,
        arrangement.tier,
        fact.currency,
        fact.amount - cover,
        cover,
        arrangement.public_name,
        arrangement.message,
        arrangement.anonymous,
        arrangement.source,
        arrangement.livemode,
        processor,
        timezone.now(),
        "",
        "",
        "",
    )


def _stands_in_the_way(arrangement: RecurringGift, item: Item, fact: InvoicePaid) -> str:
    if arrangement.currency != fact.currency:
        return f"it was paid in {fact.currency}, and the monthly gift is in {arrangement.currency}"
    if arrangement.livemode != item.told.livemode:
        return "its monthly gift is of the other mode"
    return ""


def gift_of_invoice(books: Books, item: Item, fact: InvoicePaid) -> Gift | Outcome:
    """The gift that an invoice's payment makes; or what becomes of the event for which there is none (yet)."""
    owner = books.owners.get(fact.invoice)
    if owner == "":
        return Outcome(State.FOREIGN, "its invoice is of no monthly gift of ours")
    if owner is None:
        if item.row.attempts >= PATIENT_TRIES:
            books.ask(Lookup.Kind.INVOICE, fact.invoice)
        return Outcome(State.WAITING, "its invoice is not known here")
    arrangement = books.recurring.get(owner)
    if arrangement is None:
        return Outcome(State.WAITING, "its monthly gift is not known here", owner)
    refusal = _stands_in_the_way(arrangement, item, fact)
    if refusal:
        return Outcome(State.QUARANTINED, refusal, owner)
    gift = books.gifts.get(gift_reference(fact.payment))
    return gift or Outcome(State.WAITING, "its gift is being booked", owner)


def heard(books: Books, item: Item, fact: InvoiceSeen | RecurringChanged | MonthlyCheckout) -> Outcome:
    """News of a monthly gift that move no money."""
    arrangement = books.recurring.get(fact.recurring_gift)
    if arrangement is None:
        return Outcome(State.WAITING, "its monthly gift is not known here", fact.recurring_gift)
    if isinstance(fact, InvoiceSeen):
        books.invoices.add(fact.invoice)
        if fact.trouble:
            books.troubles.append((LETTERS[fact.trouble], fact.invoice))
    else:
        books.recurring_news.append(news_of(fact, arrangement))
        if item.told.contact:
            books.contacts[fact.recurring_gift] = item.told.contact
    return Outcome(State.PROCESSED, gift=fact.recurring_gift)


# ---- writing


def enqueue_troubles(books: Books) -> None:
    """One letter an invoice and trouble, however often the processor tells of it."""
    for kind in sorted(LETTERS.values()):
        outbox.enqueue(kind, sorted(invoice for letter, invoice in books.troubles if letter == kind))


def keep_donors(books: Books, donors: dict[str, Donor]) -> list[str]:
    """Donors told by the hosted page after their first gift was booked; which confirmed gifts have one only now."""
    without = {ref: donor for ref, donor in donors.items() if books.recurring[ref].donor_id is None}
    if not without:
        return []
    bulk.update(RecurringGift, ("reference", "donor_id"), [(ref, donor.pk) for ref, donor in sorted(without.items())])
    found = Gift.objects.filter(recurring_gift__in=without, donor=None).order_by("pk")
    gifts = list(found.values_list("pk", "recurring_gift_id"))
    bulk.update(Gift, ("reference", "donor_id"), [(gift, without[str(owner)].pk) for gift, owner in gifts])
    for gift, owner in gifts:
        if gift in books.gifts:
            books.gifts[gift].donor = without[str(owner)]
    return [gift for gift, _ in gifts]

"""From facts to entries: which facts of a batch are booked, which wait, which are quarantined.

`inbox` alone calls `book`. All is decided with the gifts locked: two workers never decide about one gift at once.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from django.db import connection
from django.db.models import Q
from django.utils import timezone

from donations import bulk, ledger, money, outbox, projections, recurring, settlements
from donations.booking import disputes, fees, monthly, offline
from donations.booking.books import (
    Books,
    Item,
    Kind,
    Outcome,
    State,
    entries_of,
    gift_of,
    lock,
    of_type,
    quarantine,
    told_of,
    unbookable,
    wake,
)
from donations.ledger import NewEntry
from donations.models import Campaign, Donor, Gift, LedgerEntry, Lookup, RefundRequest
from donations.models.campaigns import CUSTOM, currency_of
from donations.models.inbox import PAID_TWICE
from donations.models.people import LONGEST_EMAIL
from donations.processors.facts import (
    Adjusted,
    ChargeSettled,
    CheckoutChanged,
    DisputeChanged,
    InvoicePaid,
    InvoiceSeen,
    MonthlyCheckout,
    OfflineReceived,
    Paid,
    PayoutChanged,
    RecurringChanged,
    RefundChanged,
    TransactionSeen,
    fact_from_json,
)

__all__ = ["Item", "Outcome", "book"]

CAME_BACK = {"failed", "canceled"}
ENDED_WITHOUT = {
    "failed": (RefundRequest.Status.FAILED, "the processor could not refund it"),
    "canceled": (RefundRequest.Status.CANCELED, "nothing was given back"),
}
# While the ledger is small, PostgreSQL would go through all of a processor's gifts for a list of payments; and it keeps
# a plan while the ledger grows.
ONE_BY_ONE = f"""unnest(%s::text[]) AS asked (payment), LATERAL (
  SELECT reference, gift FROM {LedgerEntry._meta.db_table}
  WHERE processor = %s AND kind = 'gift' AND reference = asked.payment LIMIT 1
) booked"""  # noqa: S608 (the only text put in is our own table name)
OF_A_PAYMENT = (Paid, InvoicePaid, RefundChanged, DisputeChanged, ChargeSettled, TransactionSeen)


def book(processor: str, items: list[Item]) -> list[Outcome]:
    """Book what can be booked of these rows, all of one processor, in the caller's transaction.

    Returns an outcome for each, in their order.
    """
    books = _open_books(processor, items)
    numbered = list(enumerate(items))
    outcomes: dict[int, Outcome] = {}
    # Payments first, so that a refund in the same batch finds its gift; by time, so that the first is the first.
    for position, item in sorted(numbered, key=lambda pair: (_rank(pair[1]), pair[1].told.created, pair[0])):
        if not isinstance(item.told.fact, RefundChanged):
            outcomes[position] = _decide(books, item)
    outcomes |= _refunds(books, numbered)
    _write(books)
    return [outcomes[position] for position, _ in numbered]


def _rank(item: Item) -> int:
    return 0 if isinstance(item.told.fact, (Paid, InvoicePaid, OfflineReceived)) else 1


def _decide(books: Books, item: Item) -> Outcome:
    return RULES[type(item.told.fact)](books, item, item.told.fact)


def _open_books(processor: str, items: list[Item]) -> Books:
    """Lock every gift that these facts touch, in one order, and only then read what stands of them."""
    invoices = monthly.told_invoices(processor, items)
    made = monthly.make_arrangements(processor, items)
    arrangements = monthly.lock_recurring(items, invoices)
    monthly.make_gifts(processor, items, invoices, arrangements)
    facts = [item.told.fact for item in items]
    named = {fact.gift for fact in facts if isinstance(fact, (Paid, CheckoutChanged, OfflineReceived, Adjusted))}
    named |= {monthly.gift_reference(fact.payment) for fact in facts if isinstance(fact, InvoicePaid)}
    named |= monthly.gifts_without_donor(items, arrangements)
    payments = {fact.payment for fact in facts if isinstance(fact, OF_A_PAYMENT)} - {""}
    gift_of_payment = _paid_for(processor, payments)
    gifts = lock(Gift, named | set(gift_of_payment.values()))
    entries: defaultdict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    for entry in entries_of(gifts, "kind", "reference", "amount") if gifts else ():
        entries[str(entry.gift_id)][entry.kind, entry.reference] = entry.amount
        if entry.kind == Kind.GIFT:
            gift_of_payment[entry.reference] = str(entry.gift_id)
    return Books(processor, gifts, gift_of_payment, entries, payments, arrangements, made, invoices)


def _paid_for(processor: str, payments: set[str]) -> dict[str, str]:
    """Which gift each of these payments was booked as."""
    if not payments:
        return {}
    listed, columns = bulk.listed(payments), ("reference", "gift")
    if connection.vendor == "postgresql":
        entries = bulk.select(LedgerEntry, "", [listed, processor], columns=columns, source=ONE_BY_ONE)
    else:
        booked = f"WHERE processor = %s AND kind = 'gift' AND {bulk.among('reference')}"
        entries = bulk.select(LedgerEntry, booked, [processor, listed], columns=columns)
    return {entry.reference: entry.gift_id or "" for entry in entries}


# ---- payments and checkouts


def _paid(books: Books, item: Item, fact: Paid) -> Outcome:
    standing = books.gift_of_payment.get(fact.payment)
    if standing:
        return Outcome(State.PROCESSED, gift=standing)
    gift = books.gifts.get(fact.gift) or (_unknown_gift(books, item, fact) if item.accepted else None)
    if gift is None:
        return Outcome(State.WAITING, "its gift is not known here", fact.gift)
    if gift.currency != fact.currency:
        return unbookable(gift.pk, f"it was paid in {fact.currency}, and asked in {gift.currency}")
    if gift.livemode != item.told.livemode:
        return unbookable(gift.pk, "its gift is of the other mode")
    if any(kind in LedgerEntry.GIFT_KINDS for kind, _ in books.entries[gift.pk]):
        if not item.accepted:
            return quarantine(gift, f"{PAID_TWICE}: this is a second payment for a gift that is paid already")
        gift = _second_gift(books, gift, fact)
    elif fact.amount != gift.total and not item.accepted:
        paid, asked = (money.with_code(amount, gift.currency) for amount in (fact.amount, gift.total))
        return quarantine(gift, f"{paid} were paid, and {asked} were asked")
    books.plan(_gift_entry(books, gift, item, fact))
    if item.told.contact and not gift.donor_id:
        books.contacts[gift.pk] = item.told.contact
    return Outcome(State.PROCESSED, gift=gift.pk)


def _invoice_paid(books: Books, item: Item, fact: InvoicePaid) -> Outcome:
    standing = books.gift_of_payment.get(fact.payment)
    if standing:
        return Outcome(State.PROCESSED, gift=standing)
    gift = monthly.gift_of_invoice(books, item, fact)
    if isinstance(gift, Outcome):
        return gift
    books.plan(_gift_entry(books, gift, item, fact))
    return Outcome(State.PROCESSED, gift=gift.pk)


def _gift_entry(books: Books, gift: Gift, item: Item, fact: Paid | InvoicePaid) -> NewEntry:
    return books.entry_of(
        gift,
        item,
        kind=Kind.GIFT,
        reference=fact.payment,
        effective_at=fact.occurred_at,
        currency=fact.currency,
        amount=fact.amount,
        goal_amount=max(0, fact.amount - gift.fee_cover),
    )


def _unknown_gift(books: Books, item: Item, fact: Paid) -> Gift | None:
    """A gift made from the payment's own words, where staff accept one that we do not know."""
    campaign = Campaign.objects.filter(pk=fact.campaign).first() or Campaign.objects.filter(is_default=True).first()
    if campaign is None or currency_of(campaign) != fact.currency:
        return None
    return _add_gift(books, campaign, fact.gift, fact, bool(item.told.livemode), "accepted", cover=fact.fee_cover)


def _second_gift(books: Books, first: Gift, fact: Paid) -> Gift:
    """A second payment that staff keep is a gift of its own; its reference follows from the payment's.

    It was made on the first one's terms: the same part of it is fee cover, and counts toward no goal.
    """
    reference, cover = monthly.gift_reference(fact.payment), monthly.cover_as_asked(first, fact.amount)
    second = _add_gift(books, first.campaign, reference, fact, first.livemode, "paid twice", cover=cover)
    if first.donor_id:
        second.donor_id = first.donor_id
        second.save(update_fields=["donor"])
    return second


def _add_gift(
    books: Books, campaign: Campaign, reference: str, fact: Paid, livemode: bool, source: str, *, cover: int = 0
) -> Gift:
    gift, _ = Gift.objects.get_or_create(
        pk=reference,
        defaults={
            "campaign": campaign,
            "tier": CUSTOM,
            "currency": fact.currency,
            "amount": fact.amount - cover,
            "fee_cover": cover,
            "source": source,
            "livemode": livemode,
            "processor": books.processor,
        },
    )
    books.gifts[gift.pk] = gift
    return gift


def _checkout(books: Books, item: Item, fact: CheckoutChanged) -> Outcome:
    if fact.gift not in books.gifts:
        return Outcome(State.WAITING, "its gift is not known here", fact.gift)
    books.news.append(projections.CheckoutNews(fact.gift, fact.status, fact.occurred_at))
    return Outcome(State.PROCESSED, gift=fact.gift)


# ---- refunds


def _refunds(books: Books, numbered: list[tuple[int, Item]]) -> dict[int, Outcome]:
    """A refund is booked when it was ever seen to succeed; its reversal when it was also seen to fail."""
    facts: list[tuple[int, Item, RefundChanged]] = of_type(numbered, RefundChanged)
    if not facts:
        return {}
    sightings: defaultdict[str, list[RefundChanged]] = defaultdict(list)
    for seen in _seen_before(books.processor, {fact.refund for _, _, fact in facts}):
        sightings[seen.refund].append(seen)
    for _, _, fact in facts:
        sightings[fact.refund].append(fact)
    facts.sort(key=lambda triple: (triple[2].created, triple[2].refund, triple[0]))
    return {position: _refund(books, item, refund, sightings[refund.refund]) for position, item, refund in facts}


def _seen_before(processor: str, refunds: set[str]) -> list[RefundChanged]:
    """Earlier sightings of these refunds, read with the gifts locked: no other worker is adding to them."""
    processed = Q(state=State.PROCESSED, facts__isnull=False)
    stored = told_of(processor, "subject", refunds, among=processed)
    facts = [fact_from_json(row.facts) for row in stored if row.facts]
    return [fact for fact in facts if isinstance(fact, RefundChanged)]


def _refund(books: Books, item: Item, fact: RefundChanged, sightings: list[RefundChanged]) -> Outcome:
    gift = gift_of(books, item, fact.payment, "refunds")
    if isinstance(gift, Outcome):
        return gift
    if fact.currency != gift.currency:
        return unbookable(gift.pk, f"it refunds {fact.currency}, and the gift is in {gift.currency}")
    entries = _refund_entries(books, gift, item, sightings)
    if not item.accepted and _exceeds(books, gift, entries):
        return Outcome(State.WAITING, "with it, more would be refunded than was charged", gift.pk)
    for entry in entries:
        books.plan(entry)
    books.ask(Lookup.Kind.BALANCE_TRANSACTION, fact.transaction, fact.failure_transaction)
    _heed_ours(sightings)
    return Outcome(State.PROCESSED, gift=gift.pk)


def _refund_entries(books: Books, gift: Gift, item: Item, sightings: list[RefundChanged]) -> list[NewEntry]:
    succeeded = [fact for fact in sightings if fact.status == "succeeded" and fact.amount]
    if not succeeded:
        return []
    first = min(succeeded, key=lambda fact: fact.occurred_at)
    common = {"reference": first.refund, "campaign_month": books.month_of(gift)}
    refund = {"kind": Kind.REFUND, "amount": -first.amount, "effective_at": first.created}
    entries = [books.entry_of(gift, item, **common, **refund)]
    came_back = [fact for fact in sightings if fact.status in CAME_BACK]
    if came_back:
        at = min(fact.occurred_at for fact in came_back)
        reversal = {"kind": Kind.REFUND_REVERSAL, "amount": first.amount, "effective_at": at}
        entries.append(books.entry_of(gift, item, **common, **reversal))
    return entries


def _exceeds(books: Books, gift: Gift, entries: list[NewEntry]) -> bool:
    held = books.entries[gift.pk]
    new = sum(entry.amount for entry in entries if (entry.kind, entry.reference) not in held)
    refunded = books.sum_of(gift.pk, *LedgerEntry.GIVING_BACK)
    return new < 0 and -(refunded + new) > books.sum_of(gift.pk, *LedgerEntry.GIFT_KINDS)


def _heed_ours(sightings: list[RefundChanged]) -> None:
    """A refund of our own that exists is not asked for again; one that failed frees what it had set aside."""
    for fact in sightings:
        if fact.request_key:
            unanswered = RefundRequest.objects.filter(key=fact.request_key, status="sending")
            unanswered.update(status="accepted", refund_id=fact.refund, error="")
        if fact.request_key and fact.status in CAME_BACK:
            for request in RefundRequest.objects.filter(key=fact.request_key):
                status, why = ENDED_WITHOUT[fact.status]
                projections.release_refund(request=request, status=status, error=why)


# ---- writing


def _write(books: Books) -> None:
    booked = ledger.post(books.planned)
    late = _keep_contacts(books)
    recurring.apply(books.recurring, books.recurring_news)
    settlements.record_transactions(books.processor, books.transactions)
    settlements.record_payouts(books.processor, books.payouts)
    settlements.ask(books.processor, books.lookups)
    # A fee changes nothing that a gift counts.
    touched = {entry.gift for entry in booked if entry.gift and entry.kind != Kind.FEE}
    touched |= {news.gift for news in books.news}
    _send(books, booked, late)
    # Last, as whoever books for the same month waits from here to the end.
    projections.apply(gifts=[books.gifts[reference] for reference in sorted(touched)], news=books.news)


def _send(books: Books, booked: list[NewEntry], late: list[str]) -> None:
    """Queue the letters, and have what waited for these payments, invoices and new monthly gifts looked at."""
    paid = [entry for entry in booked if entry.kind in LedgerEntry.GIFT_KINDS and entry.gift]
    known = {str(entry.gift) for entry in paid if books.gifts[str(entry.gift)].donor_id}
    known |= {str(entry.gift_id) for entry in entries_of(late, "kind") if entry.kind == Kind.GIFT} if late else set()
    if known:
        outbox.enqueue("receipt", sorted(known))
    monthly.enqueue_troubles(books)
    wake(books.processor, "payment", [entry.reference for entry in paid])
    wake(books.processor, "subject", books.invoices)
    wake(books.processor, "gift_reference", books.made)


def _keep_contacts(books: Books) -> list[str]:
    """The address that the donor gave on the hosted page, where they had given us none.

    Returns the gifts of monthly gifts that have a donor only now.
    """
    emails = {contact.email.lower(): contact for contact in books.contacts.values() if _is_address(contact.email)}
    if not emails:
        return []
    now = timezone.now()
    rows = [(email, contact.name, now) for email, contact in sorted(emails.items())]
    bulk.insert(Donor, ("email", "name", "created_at"), rows, then="ON CONFLICT DO NOTHING")
    kept = bulk.select(Donor, f"WHERE {bulk.among('email')}", [bulk.listed(emails)])
    donors = {donor.email: donor for donor in kept}
    known = {ref: donors[c.email.lower()] for ref, c in books.contacts.items() if c.email.lower() in donors}
    once = {reference: donor for reference, donor in sorted(known.items()) if reference in books.gifts}
    for reference, donor in once.items():
        books.gifts[reference].donor = donor
    bulk.update(Gift, ("reference", "donor_id"), [(reference, donor.pk) for reference, donor in once.items()])
    return monthly.keep_donors(books, {ref: donor for ref, donor in known.items() if ref in books.recurring})


def _is_address(email: str) -> bool:
    """Whether it can be kept: lower case may be longer than what was typed, and money waits for no address."""
    return "@" in email and len(email.lower()) <= LONGEST_EMAIL


RULES: dict[type[Any], Callable[[Books, Item, Any], Outcome]] = {
    Paid: _paid,
    CheckoutChanged: _checkout,
    InvoicePaid: _invoice_paid,
    InvoiceSeen: monthly.heard,
    RecurringChanged: monthly.heard,
    MonthlyCheckout: monthly.heard,
    DisputeChanged: disputes.disputed,
    ChargeSettled: fees.settled,
    TransactionSeen: fees.transaction,
    PayoutChanged: fees.payout,
    OfflineReceived: offline.received,
    Adjusted: offline.adjusted,
}
"""What is made of a fact, one by one. Refunds are not among them: those of a batch are decided together."""

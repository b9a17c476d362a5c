"""From facts to entries: which facts of a batch are booked, which wait, which are quarantined. Called by `inbox` alone.

Everything is decided with the gifts locked, so that two workers never decide about one gift at once.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Max
from django.utils import timezone

from donations import bulk, ledger, outbox, projections
from donations.ledger import NewEntry
from donations.models import Campaign, Donor, Gift, InboxEvent, LedgerEntry, RefundRequest
from donations.models.campaigns import currency_of
from donations.models.inbox import PAID_TWICE
from donations.processors.base import (
    CheckoutChanged,
    Contact,
    Interpretation,
    Paid,
    RefundChanged,
    fact_from_json,
)

State = InboxEvent.State
Kind = LedgerEntry.Kind
CAME_BACK = {"failed", "canceled"}
LONGEST_EMAIL = 254


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of an inbox row: its state, why, and the gift that it is about."""

    state: str
    reason: str = ""
    gift: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A claimed row with its interpretation, which has a fact."""

    row: InboxEvent
    told: Interpretation

    @property
    def accepted(self) -> bool:
        """Whether staff decided that it is booked though it surprises us."""
        return self.row.decision == "accept"


@dataclass(slots=True)
class Books:
    """What a batch knows while it decides: the gifts, locked, and what stands or is about to be booked of each."""

    processor: str
    gifts: dict[str, Gift]
    gift_of_payment: dict[str, str]
    entries: dict[str, dict[tuple[str, str], int]]
    planned: list[NewEntry] = field(default_factory=list)
    news: list[projections.CheckoutNews] = field(default_factory=list)
    contacts: dict[str, Contact] = field(default_factory=dict)

    def plan(self, entry: NewEntry) -> None:
        """Book it with the batch, unless that movement stands already."""
        held = self.entries[entry.gift or ""]
        if (entry.kind, entry.reference) not in held:
            held[entry.kind, entry.reference] = entry.amount
            self.planned.append(entry)
        if entry.kind == Kind.GIFT:
            self.gift_of_payment[entry.reference] = entry.gift or ""

    def sum_of(self, gift: str, *kinds: str) -> int:
        return sum(amount for (kind, _), amount in self.entries[gift].items() if kind in kinds)


def book(items: list[Item]) -> list[Outcome]:
    """Book what can be booked of these rows, in the caller's transaction; an outcome for each, in their order."""
    by_processor: defaultdict[str, list[tuple[int, Item]]] = defaultdict(list)
    for position, item in enumerate(items):
        by_processor[item.row.processor].append((position, item))
    outcomes: dict[int, Outcome] = {}
    for processor, numbered in sorted(by_processor.items()):
        outcomes |= _book_one_processor(processor, numbered)
    return [outcomes[position] for position in range(len(items))]


def _book_one_processor(processor: str, numbered: list[tuple[int, Item]]) -> dict[int, Outcome]:
    books = _open_books(processor, [item for _, item in numbered])
    outcomes: dict[int, Outcome] = {}
    # Payments first, so that a refund in the same batch finds its gift; by time, so that the first is the first.
    for position, item in sorted(numbered, key=lambda pair: (_rank(pair[1]), pair[1].told.created, pair[0])):
        fact = item.told.fact
        if isinstance(fact, Paid):
            outcomes[position] = _paid(books, item, fact)
        elif isinstance(fact, CheckoutChanged):
            outcomes[position] = _checkout(books, fact)
    outcomes |= _refunds(books, [(p, item) for p, item in numbered if isinstance(item.told.fact, RefundChanged)])
    _write(books)
    return outcomes


def _rank(item: Item) -> int:
    return 0 if isinstance(item.told.fact, Paid) else 1


def _open_books(processor: str, items: list[Item]) -> Books:
    """Lock every gift that these facts touch, in one order, and only then read what stands of them."""
    facts = [item.told.fact for item in items]
    named = {fact.gift for fact in facts if isinstance(fact, (Paid, CheckoutChanged))}
    payments = {fact.payment for fact in facts if isinstance(fact, (Paid, RefundChanged))}
    paid_for = LedgerEntry.objects.filter(processor=processor, kind=Kind.GIFT, reference__in=payments)
    gift_of_payment = {reference: gift or "" for reference, gift in paid_for.values_list("reference", "gift_id")}
    references = sorted(named | set(gift_of_payment.values()))
    locked = Gift.objects.filter(pk__in=references).order_by("pk").select_for_update(no_key=True)
    gifts = {gift.pk: gift for gift in locked}
    campaigns = Campaign.objects.in_bulk({gift.campaign_id for gift in gifts.values()})
    for each in gifts.values():
        each.campaign = campaigns[each.campaign_id]
    entries: defaultdict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    standing = LedgerEntry.objects.filter(gift__in=gifts).values_list("gift_id", "kind", "reference", "amount")
    for gift, kind, reference, amount in standing:
        entries[str(gift)][kind, reference] = amount
        if kind == Kind.GIFT:
            gift_of_payment[reference] = str(gift)
    return Books(processor, gifts, gift_of_payment, entries)


# ---- payments and checkouts


def _paid(books: Books, item: Item, fact: Paid) -> Outcome:
    standing = books.gift_of_payment.get(fact.payment)
    if standing:
        return Outcome(State.PROCESSED, gift=standing)
    gift = books.gifts.get(fact.gift) or (_unknown_gift(books, item, fact) if item.accepted else None)
    if gift is None:
        return Outcome(State.WAITING, "its gift is not known here", fact.gift)
    if gift.currency != fact.currency:
        return _quarantine(gift, f"it was paid in {fact.currency}, and asked in {gift.currency}")
    if gift.livemode != item.told.livemode:
        return _quarantine(gift, "its gift is of the other mode")
    if any(kind in LedgerEntry.GIFT_KINDS for kind, _ in books.entries[gift.pk]):
        if not item.accepted:
            return _quarantine(gift, f"{PAID_TWICE}: this is a second payment for a gift that is paid already")
        gift = _second_gift(books, gift, fact)
    elif fact.amount != gift.total and not item.accepted:
        return _quarantine(gift, f"{fact.amount} minor units were paid, and {gift.total} were asked")
    books.plan(_gift_entry(books, gift, item, fact))
    if item.told.contact and not gift.donor_id:
        books.contacts[gift.pk] = item.told.contact
    return Outcome(State.PROCESSED, gift=gift.pk)


def _quarantine(gift: Gift, reason: str) -> Outcome:
    return Outcome(State.QUARANTINED, reason, gift.pk)


def _gift_entry(books: Books, gift: Gift, item: Item, fact: Paid) -> NewEntry:
    return ledger.entry(
        campaign=gift.campaign,
        effective_at=fact.occurred_at,
        kind=Kind.GIFT,
        processor=books.processor,
        reference=fact.payment,
        gift=gift.pk,
        tier=gift.tier,
        currency=fact.currency,
        amount=fact.amount,
        goal_amount=max(0, fact.amount - gift.fee_cover),
        livemode=gift.livemode,
        inbox_event_id=item.row.pk,
    )


def _unknown_gift(books: Books, item: Item, fact: Paid) -> Gift | None:
    """A gift made from the payment's own words, where staff accept one that we do not know."""
    campaign = Campaign.objects.filter(pk=fact.campaign).first() or Campaign.objects.filter(is_default=True).first()
    if campaign is None or currency_of(campaign) != fact.currency:
        return None
    return _add_gift(books, campaign, fact.gift, fact, bool(item.told.livemode), "accepted")


def _second_gift(books: Books, first: Gift, fact: Paid) -> Gift:
    """A second payment that staff keep is a gift of its own; its reference follows from the payment's."""
    reference = "gift_" + hashlib.sha256(fact.payment.encode()).hexdigest()[:26]
    second = _add_gift(books, first.campaign, reference, fact, first.livemode, "paid twice")
    if first.donor_id:
        second.donor_id = first.donor_id
        second.save(update_fields=["donor"])
    return second


def _add_gift(books: Books, campaign: Campaign, reference: str, fact: Paid, livemode: bool, source: str) -> Gift:
    gift, _ = Gift.objects.get_or_create(
        pk=reference,
        defaults={
            "campaign": campaign,
            "tier": "custom",
            "currency": fact.currency,
            "amount": fact.amount,
            "source": source,
            "livemode": livemode,
            "processor": books.processor,
        },
    )
    books.gifts[gift.pk] = gift
    return gift


def _checkout(books: Books, fact: CheckoutChanged) -> Outcome:
    if fact.gift not in books.gifts:
        return Outcome(State.WAITING, "its gift is not known here", fact.gift)
    books.news.append(projections.CheckoutNews(fact.gift, fact.status, fact.occurred_at))
    return Outcome(State.PROCESSED, gift=fact.gift)


# ---- refunds


def _refunds(books: Books, numbered: list[tuple[int, Item]]) -> dict[int, Outcome]:
    """A refund is booked when it was ever seen to succeed; its reversal when it was also seen to fail."""
    if not numbered:
        return {}
    sightings: defaultdict[str, list[RefundChanged]] = defaultdict(list)
    for seen in _seen_before(books.processor, {item.told.subject for _, item in numbered}):
        sightings[seen.refund].append(seen)
    facts: list[tuple[int, Item, RefundChanged]] = []
    foreign = _foreign_payments(books, numbered)
    for position, item in numbered:
        fact = item.told.fact
        assert isinstance(fact, RefundChanged)  # noqa: S101 (for the type checker)
        facts.append((position, item, fact))
        sightings[fact.refund].append(fact)
    facts.sort(key=lambda triple: (triple[2].created, triple[2].refund, triple[0]))
    return {
        position: _refund(books, item, refund, sightings[refund.refund], foreign) for position, item, refund in facts
    }


def _seen_before(processor: str, refunds: set[str]) -> list[RefundChanged]:
    """Earlier sightings of these refunds, read with the gifts locked: no other worker is adding to them."""
    stored = InboxEvent.objects.filter(
        processor=processor, subject__in=refunds, state=State.PROCESSED, facts__isnull=False
    )
    facts = [fact_from_json(facts) for facts in stored.values_list("facts", flat=True) if facts]
    return [fact for fact in facts if isinstance(fact, RefundChanged)]


def _foreign_payments(books: Books, numbered: list[tuple[int, Item]]) -> set[str]:
    payments = {item.told.payment for _, item in numbered} - books.gift_of_payment.keys()
    rows = InboxEvent.objects.filter(processor=books.processor, payment__in=payments, state=State.FOREIGN)
    return set(rows.values_list("payment", flat=True))


def _refund(
    books: Books, item: Item, fact: RefundChanged, sightings: list[RefundChanged], foreign: set[str]
) -> Outcome:
    reference = books.gift_of_payment.get(fact.payment)
    if reference is None:
        if fact.payment in foreign:
            return Outcome(State.FOREIGN, "it refunds a payment that is not ours")
        return Outcome(State.WAITING, "the payment that it refunds is not booked here")
    gift = books.gifts.get(reference)
    if gift is None:
        # The payment was booked after the locks were taken; the next try sees it.
        return Outcome(State.WAITING, "its gift is being booked", reference)
    if fact.currency != gift.currency:
        return _quarantine(gift, f"it refunds {fact.currency}, and the gift is in {gift.currency}")
    entries = _refund_entries(books, gift, item, sightings)
    if not item.accepted and _exceeds(books, gift, entries):
        return Outcome(State.WAITING, "with it, more would be refunded than was charged", gift.pk)
    for entry in entries:
        books.plan(entry)
    _heed_ours(sightings)
    return Outcome(State.PROCESSED, gift=gift.pk)


def _refund_entries(books: Books, gift: Gift, item: Item, sightings: list[RefundChanged]) -> list[NewEntry]:
    succeeded = [fact for fact in sightings if fact.status == "succeeded" and fact.amount]
    if not succeeded:
        return []
    first = min(succeeded, key=lambda fact: fact.occurred_at)
    common: dict[str, Any] = {
        "campaign": gift.campaign,
        "processor": books.processor,
        "reference": first.refund,
        "gift": gift.pk,
        "tier": gift.tier,
        "currency": gift.currency,
        "campaign_month": _month_of_gift(books, gift),
        "livemode": gift.livemode,
        "inbox_event_id": item.row.pk,
    }
    entries = [ledger.entry(kind=Kind.REFUND, amount=-first.amount, effective_at=first.created, **common)]
    came_back = [fact for fact in sightings if fact.status in CAME_BACK]
    if came_back:
        at = min(fact.occurred_at for fact in came_back)
        entries.append(ledger.entry(kind=Kind.REFUND_REVERSAL, amount=first.amount, effective_at=at, **common))
    return entries


def _month_of_gift(books: Books, gift: Gift) -> str:
    for entry in books.planned:
        if entry.gift == gift.pk and entry.kind in LedgerEntry.GIFT_KINDS:
            return entry.campaign_month
    standing = LedgerEntry.objects.filter(gift=gift, kind__in=LedgerEntry.GIFT_KINDS)
    return str(standing.aggregate(month=Max("campaign_month"))["month"])


def _exceeds(books: Books, gift: Gift, entries: list[NewEntry]) -> bool:
    held = books.entries[gift.pk]
    new = sum(entry.amount for entry in entries if (entry.kind, entry.reference) not in held)
    refunded = books.sum_of(gift.pk, Kind.REFUND, Kind.REFUND_REVERSAL)
    return new < 0 and -(refunded + new) > books.sum_of(gift.pk, *LedgerEntry.GIFT_KINDS)


def _heed_ours(sightings: list[RefundChanged]) -> None:
    """A refund of our own that exists is not asked for again; one that failed frees what it had set aside."""
    for fact in sightings:
        if fact.request_key:
            unanswered = RefundRequest.objects.filter(key=fact.request_key, status="sending")
            unanswered.update(status="accepted", refund_id=fact.refund, error="")
        if fact.request_key and fact.status in CAME_BACK:
            for request in RefundRequest.objects.filter(key=fact.request_key):
                projections.release_refund(request=request, status="failed", error="the processor could not refund it")


# ---- writing


def _write(books: Books) -> None:
    booked = ledger.post(books.planned)
    _keep_contacts(books)
    touched = {entry.gift for entry in booked if entry.gift} | {news.gift for news in books.news}
    projections.apply(gifts=[books.gifts[reference] for reference in sorted(touched)], news=books.news)
    paid = [entry for entry in booked if entry.kind == Kind.GIFT and entry.gift]
    if paid:
        outbox.enqueue("receipt", sorted(str(entry.gift) for entry in paid if books.gifts[str(entry.gift)].donor_id))
        _wake_waiting(books, [entry.reference for entry in paid])


def _keep_contacts(books: Books) -> None:
    """The address that the donor gave on the hosted page, where they had given us none."""
    emails = {contact.email.lower(): contact for contact in books.contacts.values() if _is_address(contact.email)}
    if not emails:
        return
    now = timezone.now()
    rows = [(email, contact.name, now) for email, contact in sorted(emails.items())]
    bulk.insert(Donor, ("email", "name", "created_at"), rows, then="ON CONFLICT DO NOTHING")
    donors = {donor.email: donor for donor in Donor.objects.filter(email__in=emails)}
    known: list[tuple[str, int]] = []
    for reference, contact in sorted(books.contacts.items()):
        donor = donors.get(contact.email.lower())
        if donor:
            books.gifts[reference].donor = donor
            known.append((reference, donor.pk))
    bulk.update(Gift, ("reference", "donor_id"), known)


def _is_address(email: str) -> bool:
    """Whether it can be kept: lower case may be longer than what was typed, and money waits for no address."""
    return "@" in email and len(email.lower()) <= LONGEST_EMAIL


def _wake_waiting(books: Books, payments: list[str]) -> None:
    """Have what waited for these payments looked at now. Rows that a worker holds are passed over, never waited for."""
    waiting = InboxEvent.objects.filter(processor=books.processor, payment__in=payments, state=State.WAITING)
    free = list(waiting.select_for_update(skip_locked=True, no_key=True).values_list("pk", flat=True))
    if free:
        InboxEvent.objects.filter(pk__in=free).update(next_try_at=timezone.now())

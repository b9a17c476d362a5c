"""Monthly gifts: whose invoice it is, a gift for each payment of one, and what is heard of the arrangement."""

import hashlib
from typing import Any

from django.db.models import Q
from django.utils import timezone

from donations import bulk, outbox
from donations.booking.books import Books, Item, KnownInvoice, Outcome, State, lock, of_type, told_of, unbookable
from donations.models import Campaign, Donor, Gift, Lookup, OutboxMessage, RecurringGift
from donations.models.campaigns import currency_of
from donations.models.gifts import AskedGift
from donations.models.inbox import WANTS_INVOICE
from donations.processors.facts import InvoicePaid, InvoiceSeen, MonthlyCheckout, RecurringChanged, fact_from_json
from donations.recurring import fee_cover_among, news_of

NOT_KNOWN = "its monthly gift is not known here"
PATIENT_TRIES = 3  # an invoice is told of within seconds of its payment; then it is asked for, as a subscription is
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


def told_invoices(processor: str, items: list[Item]) -> dict[str, KnownInvoice]:
    """What was told of the invoices that these facts tell were paid, here or before."""
    wanted = {fact.invoice for _, _, fact in of_type(enumerate(items), InvoicePaid)}
    found: dict[str, KnownInvoice] = {}
    told = of_type(enumerate(items), InvoiceSeen)
    if wanted or told:
        # Else a payment could be set aside as foreign just when its invoice tells otherwise and looks for it in vain.
        bulk.hold(wanted | {fact.invoice for _, _, fact in told})
    for _, _, fact in told:
        found[fact.invoice] = _more_of(found.get(fact.invoice), _known(fact))
    settled = Q(state__in=[State.FOREIGN, State.PROCESSED])
    unknown = {invoice for invoice in wanted if invoice not in found or not found[invoice].is_final}
    for row in told_of(processor, "subject", unknown, among=settled):
        fact = fact_from_json(row.facts) if row.facts else None
        if fact is None:
            found.setdefault(row.subject, KnownInvoice(""))
        elif isinstance(fact, InvoiceSeen):
            found[row.subject] = _more_of(found.get(row.subject), _known(fact))
    return found


def _known(fact: InvoiceSeen) -> KnownInvoice:
    return KnownInvoice(fact.recurring_gift, not fact.draft, fact.amounts, fact.total)


def _more_of(one: KnownInvoice | None, other: KnownInvoice) -> KnownInvoice:
    """Of two sightings the one that tells more: ours before another's, final before a draft, with its lines."""
    if one is None:
        return other
    return max(one, other, key=lambda each: (each.recurring_gift != "", each.is_final, each.amounts, each.total))


def lock_recurring(items: list[Item], invoices: dict[str, KnownInvoice]) -> dict[str, RecurringGift]:
    """The monthly gifts that these facts touch, locked in one order, each with its campaign."""
    facts = of_type(enumerate(items), InvoiceSeen, RecurringChanged, MonthlyCheckout)
    owners = {invoice.recurring_gift for invoice in invoices.values()} - {""}
    return lock(RecurringGift, {fact.recurring_gift for _, _, fact in facts} | owners)


def gifts_without_donor(items: list[Item], recurring: dict[str, RecurringGift]) -> set[str]:
    """The gifts whose donor these facts tell only now. While their monthly gifts are locked, there come no others."""
    told = [(item, fact) for _, item, fact in of_type(enumerate(items), MonthlyCheckout) if item.told.contact]
    known = {fact.recurring_gift for _, fact in told} & recurring.keys()
    without = [reference for reference in known if recurring[reference].donor_id is None]
    if not without:
        return set()
    return set(Gift.objects.filter(recurring_gift__in=without, donor=None).values_list("pk", flat=True))


def make_arrangements(processor: str, items: list[Item]) -> set[str]:
    """The monthly gifts that are made here, of what their subscriptions tell: staff accept one that we do not know."""
    made = [_arrangement(processor, item, fact) for _, item, fact in of_type(enumerate(items), RecurringChanged)]
    new = {each.pk: each for each in made if isinstance(each, RecurringGift)}
    known = set(RecurringGift.objects.filter(pk__in=new).values_list("pk", flat=True)) if new else set()
    RecurringGift.objects.bulk_create([new[pk] for pk in sorted(new.keys() - known)], ignore_conflicts=True)
    return new.keys() - known


def _arrangement(processor: str, item: Item, fact: RecurringChanged) -> RecurringGift | str:
    """The monthly gift that a subscription which staff accept is of; or why it makes none.

    Its sum is what the subscription asks, which may have been changed since; its fee cover what the checkout asked for.
    """
    if not item.accepted:
        return "nobody has accepted it"
    if not sum(fact.amounts):
        return "what it asks is not told, or is no fixed sum"
    if len(fact.amounts) > 1 and not fact.fee_cover:
        return "which part of what it asks is the fee cover is not told"
    named = Q(pk=fact.campaign) if fact.campaign else Q(is_default=True)
    campaign = Campaign.objects.filter(named).first()
    if campaign is None or currency_of(campaign) != fact.currency:
        return "its campaign is not known here, or is in another currency"
    return RecurringGift(
        pk=fact.recurring_gift,
        campaign=campaign,
        tier="custom",
        currency=fact.currency,
        amount=sum(fact.amounts) - (fact.fee_cover if fact.fee_cover in fact.amounts else 0),
        fee_cover=fact.fee_cover,
        source="accepted",
        livemode=bool(item.told.livemode),
        processor=processor,
    )


def make_gifts(
    processor: str, items: list[Item], invoices: dict[str, KnownInvoice], recurring: dict[str, RecurringGift]
) -> None:
    """A gift for each payment of an invoice of ours, unless it is there already."""
    rows: dict[str, tuple[Any, ...]] = {}
    for _, item, fact in of_type(enumerate(items), InvoicePaid):
        invoice = invoices.get(fact.invoice, KnownInvoice(""))
        arrangement = recurring.get(invoice.recurring_gift)
        if arrangement is None or _stands_in_the_way(arrangement, item, fact):
            continue
        if not _is_divided_later(arrangement, item, fact, invoice):
            rows[gift_reference(fact.payment)] = _gift(processor, arrangement, fact, invoice)
    if rows:
        bulk.insert(Gift, GIFT, [rows[reference] for reference in sorted(rows)], then="ON CONFLICT DO NOTHING")


def _is_divided_later(arrangement: RecurringGift, item: Item, fact: InvoicePaid, invoice: KnownInvoice) -> bool:
    """Whether only the invoice as it was at last can tell what of this payment is fee cover. Staff may not wait."""
    is_known = not arrangement.fee_cover or fact.amount == arrangement.total or invoice.is_final
    return not is_known and not item.accepted


def _fee_cover(arrangement: RecurringGift, fact: InvoicePaid, invoice: KnownInvoice) -> int:
    """What of a payment is fee cover, minor units.

    It follows from the payment and its own invoice alone, and not from what the monthly gift asks by now: in whatever
    order news come, it is the same. A payment of a part of the invoice has its share of the cover. Where the lines do
    not come to what the invoice does, as with a discount, all is the gift.
    Staff who book it before the lines are known book it on the monthly gift's terms: a cover counts toward no goal.
    """
    if fact.amount == arrangement.total:
        return arrangement.fee_cover
    if not invoice.is_final:
        return cover_as_asked(arrangement, fact.amount)
    whole = sum(invoice.amounts)
    is_part = fact.amount < whole == invoice.total
    if fact.amount != whole and not is_part:
        return 0
    return _share(fee_cover_among(invoice.amounts, fact.currency, arrangement), part=fact.amount, whole=whole)


def cover_as_asked(asked: AskedGift, amount: int) -> int:
    """What of a payment of another amount than was asked is fee cover: all that was asked, or its share of that."""
    return asked.fee_cover if amount > asked.fee_cover else _share(asked.fee_cover, part=amount, whole=asked.total)


def _share(cover: int, *, part: int, whole: int) -> int:
    """A part's share of the cover, rounded up: of all parts together none of it counts. Some of each is the gift."""
    return min(-(-cover * part // whole), part - 1)


def _gift(processor: str, arrangement: RecurringGift, fact: InvoicePaid, invoice: KnownInvoice) -> tuple[Any, ...]:
    cover = _fee_cover(arrangement, fact, invoice)
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
    invoice = books.told_invoices.get(fact.invoice)
    if invoice is None:
        return _ask_for_invoice(books, item, fact, f"{WANTS_INVOICE} not known here{_first(item, 'invoice')}")
    owner = invoice.recurring_gift
    if owner == "":
        return Outcome(State.FOREIGN, "its invoice is of no monthly gift of ours")
    arrangement = books.recurring.get(owner)
    if arrangement is None:
        return Outcome(State.WAITING, f"{NOT_KNOWN}{_first(item, 'subscription')}", owner)
    refusal = _stands_in_the_way(arrangement, item, fact)
    if refusal:
        return unbookable(owner, refusal)
    if _is_divided_later(arrangement, item, fact, invoice):
        return _ask_for_invoice(books, item, fact, f"{WANTS_INVOICE} known here as a draft alone", owner)
    return books.gifts[gift_reference(fact.payment)]  # `make_gifts` has seen to it that it stands


def _ask_for_invoice(books: Books, item: Item, fact: InvoicePaid, reason: str, owner: str = "") -> Outcome:
    if item.row.attempts >= PATIENT_TRIES:
        books.ask(Lookup.Kind.INVOICE, fact.invoice)
    return Outcome(State.WAITING, reason, owner)


def heard(books: Books, item: Item, fact: InvoiceSeen | RecurringChanged | MonthlyCheckout) -> Outcome:
    """News of a monthly gift that move no money."""
    arrangement = books.recurring.get(fact.recurring_gift)
    if arrangement is None:
        return _of_none(books, item, fact)
    if isinstance(fact, InvoiceSeen):
        books.invoices.add(fact.invoice)
        if fact.trouble:
            books.troubles.append((OutboxMessage.OF_TROUBLE[fact.trouble], fact.invoice))
    else:
        books.recurring_news.append(news_of(fact, arrangement))
        if item.told.contact:
            books.contacts[fact.recurring_gift] = item.told.contact
    return Outcome(State.PROCESSED, gift=fact.recurring_gift)


def _of_none(books: Books, item: Item, fact: InvoiceSeen | RecurringChanged | MonthlyCheckout) -> Outcome:
    """What becomes of news of a monthly gift that is not known here, such as one that began after a backup."""
    if isinstance(fact, RecurringChanged) and item.accepted:
        why = _arrangement(books.processor, item, fact)
        return unbookable(fact.recurring_gift, f"{NOT_KNOWN}, and {why}. Enter what it brings as offline gifts")
    if item.row.attempts >= PATIENT_TRIES and not isinstance(fact, RecurringChanged):
        books.ask(Lookup.Kind.SUBSCRIPTION, fact.subscription)
    return Outcome(State.WAITING, f"{NOT_KNOWN}{_first(item, 'subscription')}", fact.recurring_gift)


def _first(item: Item, teller: str) -> str:
    """What staff are told who accept an event before the one that it hangs on."""
    return f": accept an event of its {teller} first" if item.accepted else ""


# ---- writing


def enqueue_troubles(books: Books) -> None:
    """One letter an invoice and trouble, however often the processor tells of it."""
    for kind in sorted(OutboxMessage.OF_TROUBLE.values()):
        outbox.enqueue(kind, sorted(invoice for letter, invoice in books.troubles if letter == kind))


def keep_donors(books: Books, donors: dict[str, Donor]) -> list[str]:
    """Donors told by the hosted page after their first gift was booked; which confirmed gifts have one only now."""
    without = {ref: donor for ref, donor in donors.items() if books.recurring[ref].donor_id is None}
    if not without:
        return []
    bulk.update(RecurringGift, ("reference", "donor_id"), [(ref, donor.pk) for ref, donor in sorted(without.items())])
    owners = {gift.pk: gift.recurring_gift_id for gift in books.gifts.values() if gift.donor_id is None}
    gifts = {gift: without[owner] for gift, owner in sorted(owners.items()) if owner in without}
    bulk.update(Gift, ("reference", "donor_id"), [(gift, donor.pk) for gift, donor in gifts.items()])
    return list(gifts)

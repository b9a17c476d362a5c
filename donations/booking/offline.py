"""What staff told of money that no processor moved, and what they put right."""

from typing import Any

from donations import ledger
from donations.booking.books import Books, Item, Kind, Outcome, State, quarantine, unbookable
from donations.ledger import NewEntry
from donations.models import Campaign, Gift, LedgerEntry
from donations.processors.facts import Adjusted, OfflineReceived


def received(books: Books, item: Item, fact: OfflineReceived) -> Outcome:
    """An offline gift: one entry, in the campaign's month of the day that it was received."""
    gift = books.gifts.get(fact.gift)
    if gift is None:
        return Outcome(State.WAITING, "its gift is not known here", fact.gift)
    if surprise := _unlike_its_gift(gift, item, fact):
        return surprise
    standing = [reference for kind, reference in books.entries[gift.pk] if kind in LedgerEntry.GIFT_KINDS]
    if standing and standing != [fact.reference]:
        return quarantine(gift, "paid twice: its gift is in the books already, under another reference")
    belongs = {"gift": gift.pk, "tier": gift.tier, "goal_amount": fact.amount}
    books.plan(_entry(books, gift.campaign, item, fact, **belongs))
    return Outcome(State.PROCESSED, gift=gift.pk)


def adjusted(books: Books, item: Item, fact: Adjusted) -> Outcome:
    """Booked whatever else moved of its gift, so that the order of movements changes nothing: `offline` has the cap."""
    if not fact.gift:
        campaign = Campaign.objects.filter(pk=fact.campaign).first()
        if campaign is None:
            return Outcome(State.QUARANTINED, "its campaign is not known here")
        books.plan(_entry(books, campaign, item, fact))
        return Outcome(State.PROCESSED)
    gift = books.gifts.get(fact.gift)
    if gift is None or not any(kind in LedgerEntry.GIFT_KINDS for kind, _ in books.entries[gift.pk]):
        return Outcome(State.WAITING, "the gift that it adjusts is not booked here", fact.gift)
    if surprise := _unlike_its_gift(gift, item, fact):
        return surprise
    month = books.month_of(gift)
    books.plan(_entry(books, gift.campaign, item, fact, gift=gift.pk, tier=gift.tier, campaign_month=month))
    return Outcome(State.PROCESSED, gift=gift.pk)


def _unlike_its_gift(gift: Gift, item: Item, fact: OfflineReceived | Adjusted) -> Outcome | None:
    if gift.currency != fact.currency:
        return unbookable(gift.pk, f"it is in {fact.currency}, and its gift is in {gift.currency}")
    if gift.livemode != item.told.livemode:
        return unbookable(gift.pk, "its gift is of the other mode")
    return None


def _entry(books: Books, campaign: Campaign, item: Item, fact: OfflineReceived | Adjusted, **belongs: Any) -> NewEntry:
    return ledger.entry(
        campaign=campaign,
        effective_at=fact.occurred_at,
        kind=Kind.OFFLINE_GIFT if isinstance(fact, OfflineReceived) else Kind.ADJUSTMENT,
        processor=books.processor,
        reference=fact.reference,
        currency=fact.currency,
        amount=fact.amount,
        livemode=bool(item.told.livemode),
        inbox_event_id=item.row.pk,
        **belongs,
    )

"""Disputes: each movement of a dispute's money is booked once, with the fee that it cost."""

from donations.booking.books import Books, Item, Kind, Outcome, State, gift_of, quarantine
from donations.booking.fees import fee_entry
from donations.models import Gift, Lookup
from donations.processors.facts import DisputeChanged, Movement


def disputed(books: Books, item: Item, fact: DisputeChanged) -> Outcome:
    """Book what this sighting tells; a dispute has no cap, and an inquiry moves nothing."""
    gift = gift_of(books, fact.payment, "disputes")
    if isinstance(gift, Outcome):
        return gift
    if fact.currency != gift.currency:
        return quarantine(gift, f"it disputes {fact.currency}, and the gift is in {gift.currency}")
    moved = [movement for movement in fact.movements if movement.amount]
    withdrawn = first_withdrawal(fact)
    if any(movement.currency != gift.currency for movement in moved) and withdrawn is None:
        return quarantine(gift, "it returns money in another currency than the gift's, and tells no withdrawal")
    for movement in moved:
        _plan(books, item, gift, movement, in_currency_of_gift(fact, movement, withdrawn))
    for movement in fact.movements:
        if movement.fee:
            books.plan(fee_entry(books, item, gift, movement))
        books.ask(Lookup.Kind.BALANCE_TRANSACTION, movement.transaction)
    return Outcome(State.PROCESSED, gift=gift.pk)


def _plan(books: Books, item: Item, gift: Gift, movement: Movement, amount: int) -> None:
    if not amount:
        return
    entry = books.entry_of(
        gift,
        item,
        kind=Kind.DISPUTE_WITHDRAWN if amount < 0 else Kind.DISPUTE_REINSTATED,
        reference=movement.transaction,
        amount=amount,
        effective_at=movement.created,
        campaign_month=books.month_of(gift),
        settlement_currency=movement.currency,
        settlement_amount=movement.amount,
    )
    books.plan(entry)


def first_withdrawal(fact: DisputeChanged) -> Movement | None:
    """What took the disputed amount away: the measure for what is told in the settlement's currency alone.

    Of several in one second it is the largest: a later one takes back no more than was returned in between.
    """
    withdrawals = [movement for movement in fact.movements if movement.amount < 0]
    return min(withdrawals, key=lambda moved: (moved.created, moved.amount, moved.transaction), default=None)


def in_currency_of_gift(fact: DisputeChanged, movement: Movement, withdrawn: Movement | None) -> int:
    """A movement in the payment's currency, minor units, signed.

    Of another settlement currency the withdrawal took the disputed amount; a part of it is that part of the amount.
    """
    if movement.currency == fact.currency or withdrawn is None:
        return movement.amount
    whole = -withdrawn.amount
    part = (2 * fact.amount * abs(movement.amount) + whole) // (2 * whole)
    return part if movement.amount > 0 else -part

"""Disputes: each movement of a dispute's money is booked once, with the fee that it cost."""

from collections.abc import Iterator
from fractions import Fraction
from math import floor

from donations import money
from donations.booking.books import Books, Item, Kind, Outcome, State, gift_of, unbookable
from donations.booking.fees import fee_entry
from donations.ledger import NewEntry
from donations.models import Gift, Lookup
from donations.processors.facts import DisputeChanged, Movement

UNTOLD = "what it moved was exchanged, and it does not tell at which rate"


def disputed(books: Books, item: Item, fact: DisputeChanged) -> Outcome:
    """Book what this sighting tells; a dispute has no cap, and an inquiry moves nothing."""
    gift = gift_of(books, item, fact.payment, "disputes")
    if isinstance(gift, Outcome):
        return gift
    if fact.currency != gift.currency:
        return unbookable(gift.pk, f"it disputes {fact.currency}, and the gift is in {gift.currency}")
    moved = list(in_currency_of_gift(fact))
    if any(amount is None for _, amount in moved):
        return unbookable(gift.pk, UNTOLD)
    for movement, amount in moved:
        if amount:
            books.plan(_entry(books, item, gift, movement, amount))
        if movement.fee:
            books.plan(fee_entry(books, item, gift, movement))
        books.ask(Lookup.Kind.BALANCE_TRANSACTION, movement.transaction)
    return Outcome(State.PROCESSED, gift=gift.pk)


def _entry(books: Books, item: Item, gift: Gift, movement: Movement, amount: int) -> NewEntry:
    return books.entry_of(
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


# ---- what a movement is in the gift's currency


def in_currency_of_gift(fact: DisputeChanged) -> Iterator[tuple[Movement, int | None]]:
    """Each movement, and what it is in the payment's currency, minor units, signed; None where nothing tells it.

    By its own exchange rate, or that of the first withdrawal; and by what the dispute had taken before, which its
    earlier movements tell. So each sighting that tells of a movement tells the same of it.
    """
    found: list[tuple[Movement, int]] = []
    rates: dict[str, Fraction] = {}
    # Of several withdrawals in one second the largest goes first: a later one takes back no more than was returned.
    for movement in sorted(fact.movements, key=lambda moved: (moved.created, moved.amount, moved.transaction)):
        amount = _amount(fact, movement, _whole(fact, movement, found), rates.get(movement.currency))
        yield movement, amount
        if amount:
            found.append((movement, amount))
        if amount and movement.amount < 0:
            rates.setdefault(movement.currency, Fraction(movement.amount, amount))


def _whole(fact: DisputeChanged, movement: Movement, found: list[tuple[Movement, int]]) -> int:
    """What a movement comes to if it takes all that is left to be taken, or returns all that was taken before.

    Before is in an earlier second: what else happens in its own may not be told yet.
    """
    before = [amount for moved, amount in found if moved.created < movement.created]
    taken = -sum(before)
    if movement.amount < 0:
        return fact.amount - taken if taken < fact.amount else fact.amount
    if any(amount < 0 for amount in before):
        return taken
    return next((-amount for _, amount in found if amount < 0), fact.amount)


def _amount(fact: DisputeChanged, movement: Movement, whole: int, rate: Fraction | None) -> int | None:
    if movement.currency == fact.currency or not movement.amount:
        return movement.amount
    sign = 1 if movement.amount > 0 else -1
    if movement.exchange_rate:
        rate = Fraction(movement.exchange_rate)
    if rate:
        return sign * _before_exchange(abs(movement.amount), rate, whole)
    return -whole if sign < 0 < whole else None


def _before_exchange(settled: int, rate: Fraction, whole: int) -> int:
    """What became so many minor units of the settlement: `whole`, where rounding alone differs; or the nearest unit."""
    if whole > 0 and abs(whole * rate - settled) < money.exchange_slack(whole * rate):
        return whole
    return floor(settled / rate + Fraction(1, 2))

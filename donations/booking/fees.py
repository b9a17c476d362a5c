"""What the processor kept of each movement, and what it transferred to our bank."""

from donations.booking.books import Books, Item, Kind, Outcome, State, gift_of
from donations.ledger import NewEntry
from donations.models import Gift, Lookup
from donations.processors.facts import ChargeSettled, Movement, PayoutChanged, TransactionSeen


def fee_entry(books: Books, item: Item, gift: Gift, movement: Movement | TransactionSeen) -> NewEntry:
    """A fee of a gift, in the settlement's currency; one that was given back is positive."""
    return books.entry_of(
        gift,
        item,
        kind=Kind.FEE,
        reference=movement.transaction,
        currency=movement.currency,
        amount=-movement.fee,
        effective_at=movement.created,
        campaign_month=books.month_of(gift),
        settlement_currency=movement.currency,
        settlement_amount=-movement.fee,
    )


def settled(books: Books, item: Item, fact: ChargeSettled) -> Outcome:
    """The payment's balance transaction is known: the fee stands there. What was never ours costs nobody a look."""
    gift = gift_of(books, item, fact.payment, "charges", at_last=State.FOREIGN)
    if isinstance(gift, Outcome):
        return gift
    books.ask(Lookup.Kind.BALANCE_TRANSACTION, fact.transaction)
    return Outcome(State.PROCESSED, gift=gift.pk)


def transaction(books: Books, item: Item, fact: TransactionSeen) -> Outcome:
    """Keep it whatever it is; where it belongs to a gift, book its fee.

    The account's own (payouts, and fees that no payment caused) belong to no campaign: they are kept, and not booked.
    """
    livemode = bool(item.told.livemode)
    gift = gift_of(books, item, fact.payment, "settles", at_last=State.FOREIGN) if fact.payment else None
    owner = gift.pk if isinstance(gift, Gift) else ""
    books.transactions.append((fact, owner, livemode))
    if isinstance(gift, Outcome):
        return gift
    if gift and fact.fee:
        books.plan(fee_entry(books, item, gift, fact))
    return Outcome(State.PROCESSED, gift=owner)


def payout(books: Books, item: Item, fact: PayoutChanged) -> Outcome:
    """A transfer to our bank; what it carried can be asked for once it is reconciled."""
    books.payouts.append((fact, bool(item.told.livemode)))
    if fact.reconciled and fact.automatic:
        books.ask(Lookup.Kind.PAYOUT_TRANSACTIONS, fact.payout)
    return Outcome(State.PROCESSED)

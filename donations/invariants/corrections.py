"""What staff put right: the ledger is append-only, so an entry of another amount stays, with adjustments beside it."""

from donations.invariants.movements import Movement
from donations.models import LedgerEntry
from donations.selectors.adjustments import under_numbers

OF_DISPUTES = frozenset({LedgerEntry.Kind.DISPUTE_WITHDRAWN, LedgerEntry.Kind.DISPUTE_REINSTATED})


def corrected_by(entry: LedgerEntry) -> int:
    """What adjustments under an entry's own number come to, minor units of its currency, signed."""
    # Of a gift nothing more is given than was taken: what lifts it is an adjustment of its campaign.
    found = under_numbers([entry.campaign_id], [entry.reference], livemode=entry.livemode)
    adjustments = found.get(entry.reference, [])
    return sum(adjustment.amount for adjustment in adjustments if adjustment.currency == entry.currency)


def is_corrected(entry: LedgerEntry, told: Movement) -> bool:
    """Whether a dispute's movement was booked with another amount than it has, and adjustments come to the difference.

    An earlier version booked what came back at another exchange rate so.
    """
    return entry.kind in OF_DISPUTES and entry.amount + corrected_by(entry) == told.amount

"""What the ledger says of a gift, as SQL, by the kinds of entries as their model groups them."""

from donations.models import LedgerEntry

Kind = LedgerEntry.Kind


def _listed(*kinds: Kind) -> str:
    """As Python writes several texts, SQL does: ('refund', 'refund_reversal')."""
    return str(tuple(map(str, kinds)))


GIFT_KINDS = _listed(*LedgerEntry.GIFT_KINDS)
NO_FEE = f"kind <> '{Kind.FEE}'"
"""What moved between the donor and us; a fee is the processor's, and changes nothing that a gift counts."""
CHANGES_A_GIFT = f"kind NOT IN {_listed(*LedgerEntry.GIFT_KINDS, Kind.FEE)}"
"""As the index of these entries has it."""

SUMS = f"""
    SUM(CASE WHEN kind IN {GIFT_KINDS} THEN amount ELSE 0 END) AS charged,
    -SUM(CASE WHEN kind IN {_listed(*LedgerEntry.GIVING_BACK)} THEN amount ELSE 0 END) AS refunded,
    -SUM(CASE WHEN kind IN {_listed(*LedgerEntry.DISPUTING)} THEN amount ELSE 0 END) AS disputed,
    SUM(CASE WHEN kind = '{Kind.ADJUSTMENT}' THEN amount ELSE 0 END) AS adjusted,
    SUM(goal_amount) AS goal,
    SUM(CASE WHEN {NO_FEE} THEN amount ELSE 0 END) AS held
"""
"""Over the entries of one gift, minor units: what was paid, given back, taken back, put right by staff (signed);
toward the goal; still held."""

COUNTED = "CASE WHEN held <= 0 OR goal <= 0 THEN 0 WHEN goal < held THEN goal ELSE held END"
"""What the bar counts of a gift, from these sums: what we still hold of it, without its fee cover."""

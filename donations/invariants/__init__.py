"""The invariants of the books, once, as code: what `check_books` runs, and the tests.

Inbox and ledger are compared movement by movement, both ways; the ledger with states and totals; these with what is
shown. So a figure on a page is what the stored events say, or there is a finding. Large tables are read a page at a
time, all of it in one snapshot, so that a running site raises no false alarm.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from donations.invariants.entries import check_entries
from donations.invariants.events import check_events
from donations.invariants.figures import (
    check_figures,
    check_guards,
    check_identity,
    check_references,
    check_statements,
    check_totals,
)
from donations.invariants.findings import Finding, Tally, one_snapshot
from donations.invariants.gifts import check_gifts, check_monthly_gifts
from donations.invariants.offline import check_offline
from donations.invariants.settlements import check_payouts, check_transactions

__all__ = ["Finding", "Tally", "check", "one_snapshot"]

PARTS: tuple[Callable[[Tally], Iterator[Finding]], ...] = (
    check_guards,
    check_identity,
    check_references,
    check_events,
    check_entries,
    check_offline,
    check_gifts,
    check_monthly_gifts,
    check_transactions,
    check_payouts,
    check_totals,
    check_statements,
    check_figures,
)


def check(tally: Tally | None = None) -> Iterator[Finding]:
    """Everything that is wrong with the books, as it is found; `tally` counts what was looked at."""
    counted = Counter[str]() if tally is None else tally
    with one_snapshot():
        for part in PARTS:
            yield from _guarded(part, counted)


def _guarded(part: Callable[[Tally], Iterator[Finding]], tally: Tally) -> Iterator[Finding]:
    """A row so odd that a check fails on it is itself a finding; the other checks go on."""
    try:
        yield from part(tally)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        yield Finding(
            invariant=part.__name__,
            key="the check itself",
            words=f"it could not be ended: {type(error).__name__}: {error}",
            remedy="Mend the other findings first, then run manage.py check_books again.",
        )

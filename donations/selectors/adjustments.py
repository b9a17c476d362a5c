"""What staff booked under the numbers of movements: adjustments whose reference is one, or is `NUMBER/…`."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from donations.models import LedgerEntry
from donations.processors import OFFLINE
from donations.processors.offline import names_in_ledger

AT_ONCE = 1000  # names in one query


def under_numbers(campaigns: Iterable[str], numbers: Iterable[str], *, livemode: bool) -> dict[str, list[LedgerEntry]]:
    """Adjustments of this mode in these campaigns under each of these numbers; a number that has none is left out.

    A campaign has each reference once, so a further adjustment has the number, a slash and more. Letters are compared
    as they are, large or small: numbers of the processor differ by that alone.
    """
    asked = list(numbers)
    names = {
        name: number
        for campaign in campaigns
        for number in asked
        for name in names_in_ledger(campaign, number, livemode=livemode)
    }
    adjustments = LedgerEntry.objects.filter(processor=OFFLINE, kind=LedgerEntry.Kind.ADJUSTMENT, livemode=livemode)
    wanted, found = list(names), defaultdict[str, list[LedgerEntry]](list)
    for start in range(0, len(wanted), AT_ONCE):
        for entry in adjustments.filter(reference__in=wanted[start : start + AT_ONCE]):
            found[names[entry.reference]].append(entry)
    # Not every order of letters has a range for what begins alike. The index leads to the adjustments, which people
    # typed one by one: those with a slash are read, and looked at here.
    for entry in adjustments.filter(reference__contains="/"):
        if entry.reference not in names and (name := _begun_with(entry.reference, names)):
            found[names[name]].append(entry)
    return dict(found)


def _begun_with(reference: str, names: Mapping[str, str]) -> str:
    """The longest of these names that the reference has before one of its slashes; "" for none."""
    begin = reference
    while "/" in begin:
        begin = begin.rpartition("/")[0]
        if begin in names:
            return begin
    return ""

"""What staff entered, against its entries in the ledger, both ways; and that two people saw what two had to see."""

from collections.abc import Iterator

from donations import money, periods
from donations.invariants.entries import CLOCKS
from donations.invariants.findings import Finding, Tally
from donations.models import LedgerEntry, OfflineRequest
from donations.processors import OFFLINE
from donations.processors.offline import names_in_ledger

ASKED = ("kind", "campaign", "gift", "currency", "amount", "day", "reference", "livemode")
DECIDED = ("requested_by", "requested_at", "decided_by", "decided_at")
BOOKED = ("kind", "reference", "campaign", "gift", "currency", "amount", "livemode", "inbox_event")
DATED = ("effective_at", "local_date", "time_zone", "inbox_event__received_at")
RESTORE = "Compare the entry and what staff entered with a backup, restore what differs, and find out who did it."
Name = tuple[str, bool, str]  # kind, whether it is live, and the reference in the ledger


def check_offline(tally: Tally) -> Iterator[Finding]:
    """Every offline gift and adjustment in the books was entered so, and by as many people as it took.

    Two queries, whatever the ledger holds: the entries are found by their index, and people type them one by one.
    """
    asked = OfflineRequest.objects.filter(status=OfflineRequest.Status.BOOKED).only(*ASKED, *DECIDED)
    without_entry = {request.pk: request for request in asked}
    tally["offline gifts and adjustments"] += len(without_entry)
    by_name = {name: request for request in without_entry.values() for name in _names(request)}
    booked = LedgerEntry.objects.filter(processor=OFFLINE).select_related("inbox_event")
    for entry in booked.only(*BOOKED, *DATED):
        request = by_name.get((entry.kind, entry.livemode, entry.reference))
        key = f"entry {entry.pk}, {entry.kind} {entry.reference}"
        if request is None:
            yield _unequal(key, "nobody entered it: what was entered was removed, or does not say that it is booked")
            continue
        without_entry.pop(request.pk, None)
        yield from (_unequal(key, words) for words in _unlike(entry, request))
        yield from (_alone(key, words) for words in _decided(entry, request))
    for number, request in without_entry.items():
        key = f"{request.get_kind_display()} {number}"
        yield _unequal(key, "staff entered it, it says that it is booked, and the ledger has no such entry")


def _names(request: OfflineRequest) -> Iterator[Name]:
    for name in names_in_ledger(request.campaign_id, request.reference, livemode=request.livemode):
        yield request.kind, request.livemode, name


def _unequal(key: str, words: str) -> Finding:
    return Finding(invariant="entered_is_what_is_booked", key=key, words=words, remedy=RESTORE)


def _alone(key: str, words: str) -> Finding:
    return Finding(invariant="two_people_decided", key=key, words=words, remedy=RESTORE)


def _unlike(entry: LedgerEntry, request: OfflineRequest) -> Iterator[str]:
    if (entry.amount, entry.currency) != (request.amount, request.currency):
        asked, booked = (money.with_code(each.amount, each.currency) for each in (request, entry))
        yield f"staff entered {asked}, and {booked} are booked"
    # By the instant: where a zone left out a day, what was entered for it is booked on the next.
    if periods.day_start(request.day, entry.time_zone) != entry.effective_at:
        yield f"staff entered it for {request.day}, and it is booked on {entry.local_date}"
    for name in ("campaign", "gift"):
        asked, booked = (getattr(each, f"{name}_id") or "(none)" for each in (request, entry))
        if asked != booked:
            yield f"staff entered it of the {name} {asked}, and it is booked of {booked}"


def _decided(entry: LedgerEntry, request: OfflineRequest) -> Iterator[str]:
    """What waited says who approved it, and that was another than who entered it.

    Its event is made as it is entered, or else as it is approved. Not by the limit, which may have been another one.
    """
    if request.decided_by_id == request.requested_by_id:
        yield "who entered it is said to have approved it"
    if entry.inbox_event is None:
        return
    told = entry.inbox_event.received_at
    if request.decided_at is None:
        if abs(told - request.requested_at) > CLOCKS:
            yield f"entered at {request.requested_at}, booked at {told}, and nobody is said to have approved it"
    elif abs(told - request.decided_at) > CLOCKS or request.decided_at < request.requested_at - CLOCKS:
        yield f"entered at {request.requested_at}, booked at {told}, and said to be approved at {request.decided_at}"

"""Gifts: what they ask for, what became of them, and the refunds that our staff asked for."""

from collections.abc import Callable, Iterator

from django.db.models import QuerySet, Sum

from donations import processors, projections
from donations.invariants.findings import Finding, Tally, pages
from donations.models import Gift, GiftState, RefundRequest
from donations.processors.base import Malformed

PAGE = 500
REBUILD = "Run manage.py rebuild: it makes states and totals anew from the ledger."
COMPARE = "Compare the gift with a backup, and with the payment in the processor’s dashboard."


def check_gifts(tally: Tally) -> Iterator[Finding]:
    """Every gift, against its checkout, its entries and its refund requests."""
    gifts: QuerySet[Gift] = Gift.objects.select_related("campaign")
    for page in pages(gifts, PAGE):
        tally["gifts"] += len(page)
        for invariant in INVARIANTS:
            yield from invariant(page)


def state_is_what_its_entries_say(gifts: list[Gift]) -> Iterator[Finding]:
    """A gift's state is rebuilt from its entries and its checkouts' facts, and is the stored one."""
    for drift in projections.state_drift(gifts):
        yield Finding(
            invariant="state_is_what_its_entries_say",
            key=f"gift {drift.key}",
            words=f"its state is stored as {drift.stored}, and comes to {drift.rebuilt}",
            remedy=REBUILD,
        )


def gift_is_as_it_was_asked(gifts: list[Gift]) -> Iterator[Finding]:
    """A gift's amount, currency and campaign are those that the processor was asked for."""
    for gift in gifts:
        if not gift.checkout_parameters:
            continue
        try:
            asked = processors.get(gift.processor).asked(gift.checkout_parameters)
        except (Malformed, KeyError):
            told: object = None
        else:
            told = (asked.reference, asked.campaign, asked.amount, asked.currency)
        if told != (gift.pk, gift.campaign_id, gift.total, gift.currency):
            words = (
                f"it is of {gift.total} {gift.currency}, and its checkout was asked for {told or 'nothing readable'}"
            )
            yield Finding(invariant="gift_is_as_it_was_asked", key=f"gift {gift.pk}", words=words, remedy=COMPARE)


def refunds_requested_are_within_the_charge(gifts: list[Gift]) -> Iterator[Finding]:
    """What we asked to give back is not more than was charged, and is the sum of the requests that may still happen."""
    open_requests = RefundRequest.objects.filter(gift__in=gifts, status__in=["sending", "accepted"])
    asked = {row["gift_id"]: int(row["sum"]) for row in open_requests.values("gift_id").annotate(sum=Sum("amount"))}
    states = GiftState.objects.filter(pk__in=gifts).values_list("pk", "refund_requested", "charged")
    standing = {gift: (requested, charged) for gift, requested, charged in states}
    for gift in sorted(asked.keys() | standing.keys()):
        requested, charged = standing.get(gift, (0, 0))
        if requested != asked.get(gift, 0) or not 0 <= requested <= charged:
            yield Finding(
                invariant="refunds_requested_are_within_the_charge",
                key=f"gift {gift}",
                words=f"refunds of {requested} are set aside of {charged} charged, and {asked.get(gift, 0)} were asked",
                remedy="Compare its refund requests with the refunds in the processor’s dashboard.",
            )


INVARIANTS: tuple[Callable[[list[Gift]], Iterator[Finding]], ...] = (
    state_is_what_its_entries_say,
    gift_is_as_it_was_asked,
    refunds_requested_are_within_the_charge,
)

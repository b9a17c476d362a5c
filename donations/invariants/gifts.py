"""Gifts: what they ask for, what became of them, and the refunds that our staff asked for."""

from collections.abc import Callable, Iterator, Sequence

from django.db.models import QuerySet, Sum

from donations import money, processors, projections, recurring
from donations.invariants.findings import Finding, Tally, pages
from donations.models import Gift, GiftState, InboxEvent, RecurringGift, RefundRequest
from donations.models.gifts import AskedGift
from donations.processors.base import Malformed

PAGE = 500
REBUILD = "Run manage.py rebuild: it makes states and totals anew from the ledger."
REBUILD_MONTHLY = "Run manage.py rebuild: it makes the states of monthly gifts anew from what the processor told."
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
        if _is_read_again(drift.key):
            continue
        yield Finding(
            invariant="state_is_what_its_entries_say",
            key=f"gift {drift.key}",
            words=_words(drift),
            remedy=REBUILD,
        )


def _words(drift: projections.Drift) -> str:
    if drift.stored is None:
        return "its state is not stored"
    return "its state is stored, and nothing comes to it" if drift.rebuilt is None else drift.words


def _is_read_again(reference: str) -> bool:
    """While an event is read again, what it told stands already."""
    ready = InboxEvent.objects.filter(gift_reference=reference, state=InboxEvent.State.READY)
    return ready.exclude(gift_reference="").exists()  # said so that SQLite takes the index, which holds no ""


def gift_is_as_it_was_asked(gifts: Sequence[AskedGift]) -> Iterator[Finding]:
    """A gift's amount, currency and campaign are those that the processor was asked for; a monthly gift's too."""
    for gift in gifts:
        if not gift.checkout_parameters:
            continue
        try:
            asked = processors.get(gift.processor).asked(gift.checkout_parameters)
        except (Malformed, KeyError):
            told, asked_for = None, "nothing readable"
        else:
            told = (asked.reference, asked.campaign, asked.amount, asked.currency)
            asked_for = f"{money.with_code(asked.amount, asked.currency)}, for {asked.reference} of {asked.campaign}"
        if told != (gift.pk, gift.campaign_id, gift.total, gift.currency):
            own = f"{money.with_code(gift.total, gift.currency)}, of {gift.campaign_id}"
            words = f"it is of {own}, and its checkout was asked for {asked_for}"
            yield Finding(invariant="gift_is_as_it_was_asked", key=f"gift {gift.pk}", words=words, remedy=COMPARE)


def refunds_requested_are_within_the_charge(gifts: list[Gift]) -> Iterator[Finding]:
    """What we asked to give back is not more than was charged, and is the sum of the requests that may still happen."""
    open_requests = RefundRequest.objects.filter(gift__in=gifts, status__in=["sending", "accepted"])
    asked = {row["gift_id"]: int(row["sum"]) for row in open_requests.values("gift_id").annotate(sum=Sum("amount"))}
    states = GiftState.objects.filter(pk__in=gifts).values_list("pk", "refund_requested", "charged")
    standing = {gift: (requested, charged) for gift, requested, charged in states}
    currencies = {gift.pk: gift.currency for gift in gifts}
    for gift in sorted(asked.keys() | standing.keys()):
        requested, charged = standing.get(gift, (0, 0))
        if requested != asked.get(gift, 0) or not 0 <= requested <= charged:
            yield Finding(
                invariant="refunds_requested_are_within_the_charge",
                key=f"gift {gift}",
                words="refunds of {} are set aside of {} charged, and {} were asked".format(
                    *(money.decimal_text(each, currencies[gift]) for each in (requested, charged, asked.get(gift, 0)))
                ),
                remedy="Compare its refund requests with the refunds in the processor’s dashboard.",
            )


def monthly_gift_is_like_its_arrangement(gifts: list[Gift]) -> Iterator[Finding]:
    """A gift of a monthly gift has its campaign, currency and mode."""
    references = {gift.recurring_gift_id for gift in gifts} - {None}
    arrangements = RecurringGift.objects.in_bulk(references)
    for gift in gifts:
        arrangement = arrangements.get(str(gift.recurring_gift_id))
        if arrangement is None:
            continue
        for name in ("campaign_id", "currency", "livemode"):
            if getattr(gift, name) != getattr(arrangement, name):
                words = f"its {name.removesuffix('_id')} is not that of its monthly gift {arrangement.pk}"
                yield Finding(
                    invariant="monthly_gift_is_like_its_arrangement",
                    key=f"gift {gift.pk}",
                    words=words,
                    remedy=COMPARE,
                )


def check_monthly_gifts(tally: Tally) -> Iterator[Finding]:
    """Every monthly gift, against its checkout and what the processor told of it."""
    for page in pages(RecurringGift.objects.all(), PAGE):
        tally["monthly gifts"] += len(page)
        yield from gift_is_as_it_was_asked(page)
    for drift in recurring.drift():
        if not _is_read_again(drift.reference):
            yield Finding(
                invariant="arrangement_is_what_was_told",
                key=f"monthly gift {drift.reference}",
                words=drift.words,
                remedy=REBUILD_MONTHLY,
            )


INVARIANTS: tuple[Callable[[list[Gift]], Iterator[Finding]], ...] = (
    state_is_what_its_entries_say,
    gift_is_as_it_was_asked,
    monthly_gift_is_like_its_arrangement,
    refunds_requested_are_within_the_charge,
)

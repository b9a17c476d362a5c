"""What events named and did not tell: asked for one by one, or, where there are many, by a list of their time."""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from donations import processors, settlements
from donations.booking.books import told_of
from donations.models import Gift, GiftState, LedgerEntry, Lookup, MonthTotal, RecurringGift
from donations.processors.base import KeyRefused, Page, ProcessorRefused, ProcessorUnavailable
from donations.processors.facts import CheckoutChanged, Fact, InvoicePaid, InvoiceSeen, RefundChanged
from donations.reconcile.runs import Rest
from donations.reconcile.sweep import patiently, store, told_by
from donations.selectors import invoices
from donations.selectors.refunds import NOT_YET

log = logging.getLogger(__name__)
Hold = Callable[[], object]
Kind = Lookup.Kind
CLAIM = 300
MANY = 100  # as many as a page of a list has
SETTLING = timedelta(hours=2)  # a transaction is older than the event that names it, but for less than this
SILENT = timedelta(days=35)  # an arrangement that is alive is told of each month
UNTOLD = timedelta(days=1)  # what it asks is no fixed sum, or an earlier version read events without it
MOST_A_RUN = 500  # payments that a run begins to ask after


def fetch(
    processor: str,
    *,
    rounds: int = 1,
    rest: Rest = time.sleep,
    hold: Hold = lambda: None,
    kinds: Iterable[str] = Lookup.Kind.values,
) -> int:
    """Ask for what is due, of these kinds, and put the answers into the inbox; how many there were. Safe beside others.

    `hold` is called after each answer: a run keeps its lease by it. Raises ProcessorUnavailable; what was not asked for
    is due as before.
    """
    done = 0
    for _ in range(rounds):
        claimed = settlements.claim(processor, CLAIM, kinds=kinds)
        if not claimed:
            break
        done += _round(processor, claimed, rest, hold)
    return done


def ask_after_silent(processor: str) -> None:
    """Have those monthly gifts asked for that should have been told of, and were not.

    Of one whose checkout is completed, nothing may ever have been told: events are listed for a month alone. And of
    what it asks by now nothing is known where an earlier version read what was told. Of one that began and brought
    nothing yet, the first payment is on its way, or has failed.
    """
    fell_silent = Q(status__in=RecurringGift.ALIVE, heard_at__lt=timezone.now() - SILENT)
    never_told = Q(status=RecurringGift.Status.PENDING, heard_at=None)
    asks_nobody_knows_what = Q(status__in=RecurringGift.ALIVE, now_amount=None, heard_at__lt=timezone.now() - UNTOLD)
    day_ago, month_ago = timezone.now() - UNTOLD, timezone.now() - SILENT
    brought_nothing = Q(~Exists(Gift.objects.filter(recurring_gift=OuterRef("pk"))), status__in=RecurringGift.ALIVE)
    brought_nothing &= Q(heard_at__lt=day_ago, created_at__gt=month_ago)
    why = fell_silent | never_told | asks_nobody_knows_what | brought_nothing
    silent = RecurringGift.objects.filter(why, processor=processor)
    silent = silent.exclude(subscription="")
    settlements.ask_again(processor, Kind.SUBSCRIPTION, silent.values_list("subscription", flat=True))


def ask_after_awaiting(processor: str, *, most: int = MOST_A_RUN) -> None:
    """Have the payments of gifts that await their money asked for in a day: so many, those of the oldest months first.

    What became of one may be told once alone, and be lost. Those that are asked for already are passed over.
    """
    left = most
    for gifts in _awaiting(processor):
        told = told_of(processor, "gift_reference", gifts, columns=("payment",))
        payments = {row.payment for row in told} - {""}
        queued = Lookup.objects.filter(processor=processor, kind=Kind.PAYMENT, object_id__in=payments)
        payments -= set(queued.filter(next_try_at__isnull=False).values_list("object_id", flat=True))
        some = sorted(payments)[:left]
        settlements.ask_again(processor, Kind.PAYMENT, some, after=settlements.UNSETTLED_FOR)
        left -= len(some)


def _awaiting(processor: str) -> Iterable[list[str]]:
    """The awaiting gifts of the key's mode, some at a time. The totals say which months have any; an index leads on."""
    livemode = processors.get(processor).livemode
    totals = MonthTotal.objects.filter(livemode=livemode, awaiting_gifts__gt=0).order_by("month", "campaign")
    for campaign, month in totals.values_list("campaign", "month").distinct():
        states = GiftState.objects.filter(campaign=campaign, livemode=livemode, campaign_month=month)
        states = states.filter(confirmed_at=None, status=GiftState.Status.AWAITING, gift__processor=processor)
        gifts = list(states.order_by("pk").values_list("pk", flat=True))
        for start in range(0, len(gifts), MANY):
            yield gifts[start : start + MANY]


def ask_after_refunds(processor: str, page: Page) -> None:
    """Have those of our refunds on a page that are on their way asked for in a day: lists reach back a month alone."""
    waiting = [fact for fact in _facts(processor, page) if isinstance(fact, RefundChanged) and fact.status in NOT_YET]
    if not waiting:
        return
    payments = {fact.payment for fact in waiting}
    entries = LedgerEntry.objects.filter(processor=processor, kind=LedgerEntry.Kind.GIFT, reference__in=payments)
    ours = set(entries.values_list("reference", flat=True))
    refunds = [fact.refund for fact in waiting if fact.payment in ours]
    settlements.ask_again(processor, Kind.REFUND, refunds, after=settlements.UNSETTLED_FOR)


def _round(processor: str, claimed: list[Lookup], rest: Rest, hold: Hold) -> int:
    left = {each.pk: each for each in claimed}
    try:
        transactions = [each for each in claimed if each.kind == Kind.BALANCE_TRANSACTION]
        if len(transactions) > MANY:
            for found in _listed(processor, transactions, rest):
                del left[found.pk]
                hold()
        refused = _one_by_one(processor, left, rest, hold)
    except ProcessorUnavailable:
        settlements.put_back(left.values())
        raise
    if refused:
        raise refused
    return len(claimed)


def _one_by_one(processor: str, left: dict[int, Lookup], rest: Rest, hold: Hold) -> KeyRefused | None:
    """Ask for each that is left. A key may be refused one kind alone: it is put aside, and the others are asked for."""
    refusals: dict[str, KeyRefused] = {}
    for each in list(left.values()):
        if each.kind not in refusals:
            try:
                _one(processor, each, rest, hold)
            except KeyRefused as refusal:
                refusals[each.kind] = refusal
        if each.kind in refusals:
            settlements.put_aside([each], str(refusals[each.kind]))
        del left[each.pk]
        hold()
    return next(iter(refusals.values()), None)


def _listed(processor: str, wanted: list[Lookup], rest: Rest) -> Iterable[Lookup]:
    """A page of a list tells as much as a hundred calls; what it does not have is left to those."""
    source, after, pages = processors.get(processor), "", 0
    since = min(each.next_try_at for each in wanted if each.next_try_at) - SETTLING
    missing = {each.object_id: each for each in wanted}
    while missing and pages <= len(wanted):
        page = patiently(partial(source.sweep, "transactions", since=since, after=after), rest)
        store(processor, page)
        told = [row.event_id.split(":")[2] for row in page.sightings]
        found = [missing.pop(identity) for identity in told if identity in missing]
        settlements.answered(found)
        yield from found
        after, pages = page.cursor, pages + 1
        if not after:
            break


def _one(processor: str, lookup: Lookup, rest: Rest, hold: Hold) -> None:
    source, after, is_settled = processors.get(processor), lookup.cursor, True
    try:
        while True:
            page = patiently(partial(source.look_up, lookup.kind, lookup.object_id, after=after), rest)
            store(processor, page)
            is_settled = not _is_on_its_way(lookup, _facts(processor, page))
            after = page.cursor
            if not after:
                break
            settlements.go_on_at(lookup, after)
            hold()
    except ProcessorRefused as refusal:
        log.warning("the processor does not tell of %s %s: %s", lookup.kind, lookup.object_id, refusal.code)
        settlements.put_off(lookup, str(refusal))
        return
    if is_settled:
        settlements.answered([lookup])
    else:
        settlements.unsettled(lookup)


# ---- what is not settled yet


def _facts(processor: str, page: Page) -> list[Fact]:
    told = [told_by(processor, row) for row in page.sightings if row.origin == "sweep"]
    return [each.fact for each in told if each and each.fact]


def _is_on_its_way(lookup: Lookup, facts: list[Fact]) -> bool:
    """Whether the answer says that the money of what was asked for has neither come nor failed to come."""
    if lookup.kind == Kind.REFUND:
        return any(isinstance(fact, RefundChanged) and fact.status in NOT_YET for fact in facts)
    if lookup.kind != Kind.PAYMENT or any(isinstance(fact, InvoicePaid) for fact in facts):
        return False
    return any(_is_awaited(fact) for fact in facts)


def _is_awaited(fact: Fact) -> bool:
    """A checkout that is unpaid, or an invoice that is open: for a month, as one may stay open for ever."""
    if isinstance(fact, InvoiceSeen):
        return fact.status == invoices.OPEN and fact.occurred_at > timezone.now() - SILENT
    return isinstance(fact, CheckoutChanged) and fact.status == "awaiting"

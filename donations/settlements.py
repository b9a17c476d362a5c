"""Sole writer of what the processor's own books say: its transactions, its payouts, and what is to be looked up."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from donations import bulk
from donations.models import BalanceTransaction, Lookup, Payout
from donations.processors.facts import PayoutChanged, TransactionSeen

RANK = {status.value: rank for rank, status in enumerate(Payout.Status)}
TRANSACTION = (
    "processor",
    "reference",
    "type",
    "source",
    "payment",
    "gift",
    "currency",
    "amount",
    "fee",
    "net",
    "exchange_rate",
    "created",
    "available_on",
    "payout",
    "livemode",
)
PAYOUT = (
    "processor",
    "reference",
    "status",
    "currency",
    "amount",
    "created",
    "arrival",
    "automatic",
    "reconciled",
    "livemode",
)
# Money never changes; whose it is, and the payout that carried it, may be told later, and in any order. When it can be
# paid out may be put off: the latest day stands. A rate is written as this version writes it.
TELL_MORE = f"""ON CONFLICT (processor, reference) DO UPDATE SET
  gift = COALESCE({BalanceTransaction._meta.db_table}.gift, excluded.gift),
  payment = CASE WHEN excluded.payment <> '' THEN excluded.payment ELSE {BalanceTransaction._meta.db_table}.payment END,
  payout = CASE WHEN excluded.payout <> '' THEN excluded.payout ELSE {BalanceTransaction._meta.db_table}.payout END,
  available_on = CASE WHEN excluded.available_on > {BalanceTransaction._meta.db_table}.available_on
    THEN excluded.available_on ELSE {BalanceTransaction._meta.db_table}.available_on END,
  exchange_rate = excluded.exchange_rate"""


def record_transactions(processor: str, seen: Iterable[tuple[TransactionSeen, str, bool]]) -> None:
    """Keep these, each with the gift that it belongs to ("" for none) and its mode; none needs looking up any more."""
    merged: dict[str, tuple[TransactionSeen, str, bool]] = {}
    for fact, gift, livemode in seen:
        before = stands = merged.get(fact.transaction)
        # Of two in one batch the one that names its payout stands: one statement writes a row once.
        if stands is None or (fact.payout and not stands[0].payout):
            stands = (fact, gift, livemode)
        if before:
            latest = max(before[0].available_on, fact.available_on)
            stands = (replace(stands[0], available_on=latest), *stands[1:])
        merged[fact.transaction] = stands
    if not merged:
        return
    rows = [_transaction(processor, *merged[reference]) for reference in sorted(merged)]
    bulk.insert(BalanceTransaction, TRANSACTION, rows, then=TELL_MORE)
    asked = Lookup.objects.filter(processor=processor, kind=Lookup.Kind.BALANCE_TRANSACTION, object_id__in=merged)
    asked.filter(next_try_at__isnull=False).update(next_try_at=None)


def _transaction(processor: str, fact: TransactionSeen, gift: str, livemode: bool) -> tuple[object, ...]:
    return (
        processor,
        fact.transaction,
        fact.type,
        fact.source,
        fact.payment,
        gift or None,
        fact.currency,
        fact.amount,
        fact.fee,
        fact.net,
        fact.exchange_rate,
        fact.created,
        fact.available_on,
        fact.payout,
        livemode,
    )


def record_payouts(processor: str, seen: Iterable[tuple[PayoutChanged, bool]]) -> None:
    """Keep these payouts: of all that was ever told of one, the highest status stands."""
    told: dict[str, list[tuple[PayoutChanged, bool]]] = {}
    for fact, livemode in seen:
        told.setdefault(fact.payout, []).append((fact, livemode))
    for reference in sorted(told):
        _record_payout(processor, told[reference])


def _record_payout(processor: str, told: list[tuple[PayoutChanged, bool]]) -> None:
    highest, livemode = max(told, key=lambda pair: (RANK[pair[0].status], pair[0].arrival))
    reconciled = any(fact.reconciled for fact, _ in told)
    row = (
        processor,
        highest.payout,
        highest.status,
        highest.currency,
        highest.amount,
        highest.created,
        highest.arrival,
        highest.automatic,
        reconciled,
        livemode,
    )
    if bulk.insert(Payout, PAYOUT, [row], then="ON CONFLICT (processor, reference) DO NOTHING RETURNING id"):
        return
    stored = Payout.objects.select_for_update(no_key=True).get(processor=processor, reference=highest.payout)
    if (RANK[highest.status], highest.arrival) > (RANK[stored.status], stored.arrival):
        stored.status, stored.arrival = highest.status, highest.arrival
    stored.reconciled = stored.reconciled or reconciled
    stored.save(update_fields=["status", "arrival", "reconciled"])


def ask(processor: str, wanted: Iterable[tuple[str, str]], *, after: timedelta = timedelta(0)) -> None:
    """Queue what is to be looked up, kind and id each; what was asked for before, or is known, is passed over.

    It is due `after` so long.
    """
    asked = sorted(wanted)
    if not asked:
        return
    known = f"WHERE processor = %s AND {bulk.among('reference')}"
    parameters = [processor, bulk.listed(name for _, name in asked)]
    found = bulk.select(BalanceTransaction, known, parameters, columns=("reference",))
    seen = {row.reference for row in found}
    due = timezone.now() + after
    rows = [(processor, kind, name, "", 0, due, "") for kind, name in asked if name not in seen]
    columns = ("processor", "kind", "object_id", "cursor", "attempts", "next_try_at", "last_error")
    bulk.insert(Lookup, columns, rows, then="ON CONFLICT DO NOTHING")


# ---- the queue of what is to be looked up

LEASE = timedelta(minutes=5)
MOST_TRIES = 12
REFUSED_FOR = timedelta(hours=1)
LONGEST_WAIT = timedelta(hours=6)
UNSETTLED_FOR = timedelta(days=1)  # money that is on its way takes days, and its news seldom gets lost


def ask_again(processor: str, kind: Lookup.Kind, identities: Iterable[str], *, after: timedelta = timedelta(0)) -> None:
    """Queue these, due `after` so long, even if they were asked for before: they may have changed since."""
    wanted = sorted(set(identities))
    ask(processor, [(str(kind), identity) for identity in wanted], after=after)
    answered = Lookup.objects.filter(processor=processor, kind=kind, object_id__in=wanted, next_try_at=None)
    answered.update(next_try_at=timezone.now() + after, attempts=0, cursor="", last_error="")


def claim(processor: str, limit: int, *, kinds: Iterable[str] = Lookup.Kind.values) -> list[Lookup]:
    """Take what is due, of these kinds. A lease, not a lock: they are asked for while no transaction is open."""
    now = timezone.now()
    with transaction.atomic():
        due = Lookup.objects.filter(processor=processor, next_try_at__lte=now, kind__in=list(kinds))
        due = due.order_by("next_try_at", "pk")
        taken = list(due.select_for_update(skip_locked=True, no_key=True)[:limit])
        Lookup.objects.filter(pk__in=[each.pk for each in taken]).update(next_try_at=now + LEASE)
    return taken


def answered(lookups: Iterable[Lookup]) -> None:
    """These are done."""
    Lookup.objects.filter(pk__in=[each.pk for each in lookups]).update(next_try_at=None, last_error="")


def unsettled(lookup: Lookup) -> None:
    """It was answered, and the answer is not the last: it is asked for again in a day."""
    again = timezone.now() + UNSETTLED_FOR
    Lookup.objects.filter(pk=lookup.pk).update(next_try_at=again, attempts=0, cursor="", last_error="")


def go_on_at(lookup: Lookup, cursor: str) -> None:
    """A list was read up to here; whoever takes it next goes on from there."""
    Lookup.objects.filter(pk=lookup.pk).update(cursor=cursor, next_try_at=timezone.now() + LEASE)


def put_back(lookups: Iterable[Lookup]) -> None:
    """Not asked for after all: they are due as before."""
    Lookup.objects.filter(pk__in=[each.pk for each in lookups]).update(next_try_at=timezone.now())


def put_aside(lookups: Iterable[Lookup], error: str) -> None:
    """They could not be asked for, through no fault of theirs: again in an hour, as often as it takes."""
    rows = Lookup.objects.filter(pk__in=[each.pk for each in lookups])
    rows.update(next_try_at=timezone.now() + REFUSED_FOR, last_error=error[:300])


def put_off(lookup: Lookup, error: str) -> None:
    """It could not be answered: again later, ever later, and in the end never."""
    tries = lookup.attempts + 1
    wait = min(LONGEST_WAIT, timedelta(seconds=30 * 2 ** min(tries, 12)))
    next_try = None if tries >= MOST_TRIES else timezone.now() + wait
    Lookup.objects.filter(pk=lookup.pk).update(attempts=tries, next_try_at=next_try, last_error=error[:300])

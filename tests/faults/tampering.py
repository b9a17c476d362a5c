"""Random single edits straight in the tables, triggers off: is each of them found by the invariants?

    python -m tests.faults.tampering --edits 10000 --seed 1

builds small books, makes one edit, runs the checks until the first finding, takes the edit back, and so on. The books
are built anew every thousand edits. DATABASE_URL names the server; without it, SQLite in memory.
"""

import argparse
import json
import logging
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django

    django.setup()
    logging.disable()  # that something was quarantined, entered and closed is what the books are made of

from django.db import DatabaseError, connection, transaction
from django.db.models import Model

from donations import invariants, periods
from donations.models import (
    BalanceTransaction,
    Campaign,
    DailyRollup,
    Follower,
    Gift,
    GiftState,
    InboxEvent,
    LedgerEntry,
    MonthStatement,
    MonthTotal,
    OfflineRequest,
    Payout,
    RecurringGift,
    RefundRequest,
    guards,
)
from donations.processors.facts import as_far_as_stored, fact_from_json
from donations.settlements import RANK
from tests.faults.books import make_books

BOOKS_LAST = 1000  # edits
GIFTS = 24
CURRENCIES = ["USD", "EUR", "JPY", "GBP"]
ZONES = ["America/New_York", "Europe/Berlin", "Asia/Tokyo", "Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"]


@dataclass(frozen=True)
class Edit:
    """One change of one row: new values by column, or None to remove it. `harmless` says why it changes nothing."""

    row: Model
    values: dict[str, Any] | None
    harmless: str = ""

    def __str__(self) -> str:
        before = {name: getattr(self.row, name) for name in self.values or {}}
        what = f"{before} -> {self.values}" if self.values is not None else "removed"
        return f"{self.row._meta.model_name} {self.row.pk}: {what}"[:600]

    def apply(self) -> None:
        rows = type(self.row)._default_manager.filter(pk=self.row.pk)
        if self.values is None:
            rows._raw_delete(using="default")
        else:
            rows.update(**self.values)


# ---- values


def amount(rng: random.Random, value: int | None) -> int:
    return (value or 0) + rng.choice([-1, 1]) * rng.choice([1, 100, rng.randrange(1, 100_000)])


def moment(rng: random.Random, value: datetime | None) -> datetime:
    shift = timedelta(seconds=rng.choice([1, 60, 3600, 86_400, rng.randrange(1, 30_000_000)]))
    return (value or datetime(2024, 11, 5, tzinfo=UTC)) + rng.choice([-1, 1]) * shift


def far_moment(rng: random.Random, value: datetime | None) -> datetime:
    """Beyond what clocks of two machines may differ by."""
    return (value or datetime(2024, 11, 5, tzinfo=UTC)) + rng.choice([-1, 1]) * timedelta(
        hours=rng.randrange(1, 10_000)
    )


def day(rng: random.Random, value: date | None) -> date:
    return (value or date(2024, 11, 5)) + timedelta(days=rng.choice([-31, -1, 1, 31]))


def month(rng: random.Random, value: str) -> str:
    return rng.choice(["2024-09", "2024-10", "2024-11", "2024-12", "2025-01", "2025-02"])


def flipped(rng: random.Random, value: bool | None) -> bool:
    return not value


def text(rng: random.Random, value: str) -> str:
    return f"{value}{rng.choice('xyz0')}" if rng.random() < 0.7 or len(value) < 2 else value[:-1]


def one_of(*choices: Any) -> Callable[[random.Random, Any], Any]:
    return lambda rng, value: rng.choice(choices)


def another(model: type[Model]) -> Callable[[random.Random, Any], Any]:
    """The key of any row of a table."""
    return lambda rng, value: rng.choice(list(model._default_manager.order_by("pk").values_list("pk", flat=True)))


def facts(rng: random.Random, value: dict[str, Any] | None) -> dict[str, Any] | None:
    """One word of the facts changed, taken away or added; or all of them gone."""
    changed = json.loads(json.dumps(value)) if value else {"kind": "paid"}
    name = rng.choice(sorted(changed))
    match rng.randrange(8):
        case 0:
            return None if value else changed
        case 1:
            del changed[name]
        case 2:
            changed["more"] = 1
        case _:
            changed[name] = _other(rng, changed[name])
    return changed


def _other(rng: random.Random, value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return amount(rng, value)
    if isinstance(value, list):
        return value[:-1] or [{}]
    try:
        return moment(rng, datetime.fromisoformat(value)).isoformat()
    except ValueError:
        return text(rng, value)


def body(rng: random.Random, value: Any) -> bytes:
    """One byte of it changed, or another amount in it."""
    changed = bytearray(bytes(value or b"{}"))
    place = rng.randrange(len(changed))
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def digest(rng: random.Random, value: Any) -> bytes:
    return body(rng, value)


Change = Callable[[random.Random, Any], Any]
STATES = one_of(*(state for state in InboxEvent.State.values if state not in {"ready", "waiting"}))

COLUMNS: dict[type[Model], dict[str, Change]] = {
    LedgerEntry: {
        "amount": amount,
        "goal_amount": amount,
        "currency": one_of(*CURRENCIES),
        "kind": one_of(*LedgerEntry.Kind.values),
        "processor": one_of("stripe", "other"),
        "reference": text,
        "gift_id": another(Gift),
        "tier": one_of("500.00", "2500.00", "custom", ""),
        "campaign_id": another(Campaign),
        "campaign_month": month,
        "local_date": day,
        "effective_at": moment,
        "booked_at": far_moment,
        "time_zone": one_of(*ZONES, "Nowhere/Land"),
        "livemode": flipped,
        "inbox_event_id": another(InboxEvent),
        "settlement": amount,
    },
    GiftState: {
        "status": one_of(*GiftState.Status.values),
        "campaign_id": another(Campaign),
        "campaign_month": month,
        "local_date": day,
        "livemode": flipped,
        "currency": one_of(*CURRENCIES),
        "tier": one_of("500.00", "2500.00", "custom"),
        "payment": text,
        "confirmed_at": moment,
        **dict.fromkeys(
            ["charged", "refunded", "disputed", "adjusted", "counted", "awaiting", "refund_requested"], amount
        ),
    },
    MonthTotal: {
        "campaign_id": another(Campaign),
        "month": month,
        "livemode": flipped,
        "currency": one_of(*CURRENCIES),
        **dict.fromkeys(["raised", "gifts", "charged", "refunded", "refunds", "disputed"], amount),
        **dict.fromkeys(["awaiting", "awaiting_gifts", "followers"], amount),
    },
    DailyRollup: {
        "campaign_id": another(Campaign),
        "month": month,
        "livemode": flipped,
        "currency": one_of(*CURRENCIES),
        "day": day,
        "dimension": one_of("all", "tier", "other"),
        "value": one_of("", "500.00", "2500.00", "custom"),
        "raised": amount,
        "gifts": amount,
    },
    InboxEvent: {
        "facts": facts,
        "body": body,
        "body_sha256": digest,
        "state": STATES,
        "created": moment,
        "livemode": flipped,
        "subject": text,
        "payment": text,
        "gift_reference": another(Gift),
        "event_id": text,
        "type": text,
        "processor": one_of("other"),
        "decision": one_of("", "accept", "dismiss"),
    },
    Gift: {
        "amount": amount,
        "fee_cover": amount,
        "currency": one_of(*CURRENCIES),
        "campaign_id": another(Campaign),
        "livemode": flipped,
        "tier": one_of("500.00", "2500.00", "custom"),
    },
    RefundRequest: {"amount": amount, "gift_id": another(Gift), "status": one_of("refused", "failed")},
    RecurringGift: {
        "amount": amount,
        "currency": one_of(*CURRENCIES),
        "campaign_id": another(Campaign),
        "status": one_of(*RecurringGift.Status.values),
        "subscription": text,
        "heard_at": moment,
        "ended_at": moment,
        "fee_cover": amount,
        "now_amount": amount,
        "now_fee_cover": amount,
        "now_currency": one_of(*CURRENCIES),
        "now_interval": one_of("month", "year", "3 months"),
    },
    BalanceTransaction: {
        "currency": one_of(*CURRENCIES),
        "fee": amount,
        "created": moment,
        "gift_id": another(Gift),
        "payout": text,
        "livemode": flipped,
    },
    Payout: {"status": one_of(*Payout.Status.values), "amount": amount, "arrival": moment, "reconciled": flipped},
    MonthStatement: {"rows": amount, "sha256": text},
    OfflineRequest: {
        "kind": one_of(*OfflineRequest.Kind.values),
        "campaign_id": another(Campaign),
        "gift_id": another(Gift),
        "currency": one_of(*CURRENCIES),
        "amount": amount,
        "day": day,
        "reference": text,
        "livemode": flipped,
        "status": one_of(*OfflineRequest.Status.values),
        "decided_at": far_moment,
        "nobody approved": one_of(None),
    },
    Follower: {"campaign_id": another(Campaign), "confirmed_month": month, "livemode": flipped},
}
WEIGHTS = {LedgerEntry: 30, InboxEvent: 25, GiftState: 12, MonthTotal: 8, DailyRollup: 8, Gift: 10, RefundRequest: 4}
REMOVED = [
    *(LedgerEntry, GiftState, MonthTotal, DailyRollup, InboxEvent, Gift, RefundRequest),
    *(OfflineRequest, BalanceTransaction, Payout, MonthStatement),
]
REMOVALS = 0.08


# ---- edits


def choose(rng: random.Random) -> Edit | None:
    """A random edit of the books; None where the choice came to nothing."""
    model = rng.choices(list(COLUMNS), [WEIGHTS.get(model, 3) for model in COLUMNS])[0]
    if not model._default_manager.exists():
        return None
    if model in REMOVED and rng.random() < REMOVALS:
        row = _row(rng, model)
        return Edit(row, None, _why_missed_by_nobody(row))
    column = rng.choice(sorted(COLUMNS[model]))
    row = _row(rng, model)
    if column == "settlement":
        return Edit(row, {"settlement_currency": "USD", "settlement_amount": amount(rng, row.amount)})  # type: ignore[attr-defined]
    if column == "nobody approved":
        return Edit(row, {"decided_by": None, "decided_at": None}) if row.decided_by_id else None  # type: ignore[attr-defined]
    before = getattr(row, column)
    if model is InboxEvent and column == "body" and before is None:
        return None
    after = COLUMNS[model][column](rng, before)
    if after == before:
        return None
    return Edit(row, {column: after}, _why_harmless(row, column, after))


def _row(rng: random.Random, model: type[Model]) -> Any:
    keys = list(model._default_manager.order_by("pk").values_list("pk", flat=True))
    return model._default_manager.get(pk=rng.choice(keys))


def _why_missed_by_nobody(row: Model) -> str:
    """What may be gone without a figure or a promise that changes."""
    if isinstance(row, (MonthTotal, DailyRollup)) and _is_zero(row):
        return "a total of nothing"
    if isinstance(row, Gift) and not (
        LedgerEntry.objects.filter(gift=row).exists()
        or GiftState.objects.filter(pk=row.pk).exists()
        or RefundRequest.objects.filter(gift=row).exists()
        or InboxEvent.objects.filter(gift_reference=row.pk, state="processed").exists()
    ):
        return "a gift that nobody paid"
    if isinstance(row, InboxEvent) and not row.decision and not _is_rested_on(row):
        is_open = row.state in {"waiting", "quarantined", "wrong_mode"}
        return f"an event that {'waits for something or somebody' if is_open else 'nothing rests on'}"
    return ""


def _is_zero(row: MonthTotal | DailyRollup) -> bool:
    sums = [name for name, change in COLUMNS[type(row)].items() if change is amount]
    return not any(getattr(row, name) for name in sums)


def _is_rested_on(row: InboxEvent) -> bool:
    """Whether an entry names it, or it alone makes a state."""
    if LedgerEntry.objects.filter(inbox_event=row).exists():
        return True
    if row.state != "processed" or not row.facts or row.facts.get("kind") != "checkout":
        return False
    state = GiftState.objects.filter(pk=row.gift_reference).first()
    return state is not None and state.status == row.facts["status"]


def _why_harmless(row: Model, column: str, after: Any) -> str:
    if isinstance(row, LedgerEntry) and column == "time_zone" and periods.is_zone(after):
        same_day = periods.local_date(row.effective_at, after) == row.local_date
        own = row.kind != "gift" or str(periods.Month.of(row.effective_at, after)) == row.campaign_month
        return "a zone in which day and month are the same" if same_day and own else ""
    if isinstance(row, (MonthTotal, DailyRollup)) and COLUMNS[type(row)][column] is not amount and _is_zero(row):
        return "a total of nothing"
    if isinstance(row, Gift) and not GiftState.objects.filter(pk=row.pk).exists() and column in {"tier", "livemode"}:
        return "not the money of a gift that nobody paid"
    if isinstance(row, LedgerEntry) and column == "inbox_event_id" and _tell_the_same(row.inbox_event_id, after):
        return "another event that tells of the same movement"
    if isinstance(row, InboxEvent) and column == "facts" and _reads_the_same(row.facts, after):
        return "facts that read the same"
    if isinstance(row, InboxEvent) and column == "facts" and _reads_as_of_before(row.facts, after):
        return "facts as a version stored them that read less"
    if isinstance(row, InboxEvent) and row.body is None and row.processor == "offline" and column == "created":
        return "when staff entered it, of an event whose body is erased: nothing is left to compare it with"
    if isinstance(row, InboxEvent) and row.body is None and column in _labels(row, after):
        return "a label of an event whose body is erased: nothing is left to compare it with"
    return ""


def _tell_the_same(one: int | None, other: int) -> bool:
    """Whether two processed events are of one object, by whose facts together its movements are told."""
    rows = InboxEvent.objects.filter(pk__in=[one, other], state="processed").exclude(subject="")
    return len({row.subject for row in rows}) == 1 and len(rows) == 2


def _reads_the_same(one: Any, other: Any) -> bool:
    """Whether an empty word was left out, say."""
    try:
        return bool(one and other) and fact_from_json(one) == fact_from_json(other)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _reads_as_of_before(one: Any, other: Any) -> bool:
    """Whether all that only a later version reads was taken away, and nothing else was changed."""
    try:
        return bool(one and other) and as_far_as_stored(fact_from_json(one), other) == fact_from_json(other)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


_OF_A_CHECKOUT: defaultdict[str, tuple[str, ...]] = defaultdict(tuple, recurring=("campaign", "fee_cover"))
_UNREPEATED: defaultdict[str, tuple[str, ...]] = defaultdict(
    tuple,
    refund=("request_key", "transaction", "failure_transaction"),
    invoice=("subscription", "page", "amount_due", "currency", "draft", "amounts", "total"),
    recurring=("amounts", "currency", "interval"),
    dispute=("status", "reason"),
    payout=("arrival",),
    transaction=("payout",),
)


def _labels(row: InboxEvent, after: Any) -> set[str]:
    """What of an event without its body nothing repeats."""
    told = {"event_id", "type", "body_sha256"}
    if row.facts and row.facts["kind"] == "checkout":
        told.add("payment")
    if row.facts and "occurred_at" not in row.facts:
        told.add("created")
    # Our own key of a refund and by which number its money moved, the page where an invoice is paid, what its lines
    # asked and came to before its gift was booked, what a monthly gift's checkout was for, what it asked before it was
    # told of again, how far the bank is with a dispute, when a payout was to arrive before it was told of again, and
    # what a telling says of the payout that another telling of the transaction names, stand nowhere else, and no money
    # depends on them any more.
    if isinstance(after, dict) and row.facts:
        unrepeated = _OF_A_CHECKOUT[row.facts["kind"]]
        if not _makes_a_state(row):
            unrepeated += _UNREPEATED[row.facts["kind"]]
        as_before = {name: value for name, value in row.facts.items() if name in unrepeated}
        repeated = {name: value for name, value in after.items() if name not in unrepeated}
        if _reads_the_same(row.facts, repeated | as_before):
            told.add("facts")
    return told


def _weight(payout: dict[str, Any]) -> tuple[int, datetime]:
    return (RANK[payout["status"]], datetime.fromisoformat(payout["arrival"]))


def _makes_a_state(row: InboxEvent) -> bool:
    """Whether a monthly gift, a payout, or the payout of a transaction stands as this event alone told of it.

    An invoice's, of the same second, does not say how.
    """
    if row.facts["kind"] == "payout":
        others = InboxEvent.objects.filter(subject=row.subject, facts__kind="payout").exclude(pk=row.pk)
        return all(_weight(row.facts) > _weight(other.facts) for other in others)
    if row.facts["kind"] == "transaction":
        others = InboxEvent.objects.filter(subject=row.subject, facts__kind="transaction").exclude(pk=row.pk)
        return not any(other.facts["payout"] for other in others)
    if row.facts["kind"] != "recurring":
        return False
    return RecurringGift.objects.filter(pk=row.gift_reference, heard_at=row.created).exists()


# ---- whether it is found


@contextmanager
def taken_back() -> Iterator[None]:
    """Whatever happens inside has never happened."""
    with transaction.atomic():
        try:
            yield
        finally:
            transaction.set_rollback(True)


def switch_guards_off() -> None:
    on_postgresql = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        for name in [*guards.NAMES, *(guards.ON_POSTGRESQL_TOO if on_postgresql else [])]:
            table = guards.LEDGER if name.startswith("ledger") else guards.STATEMENTS
            cursor.execute(f"DROP TRIGGER {name}{f' ON {table}' if on_postgresql else ''}")


def findings() -> Iterator[invariants.Finding]:
    """What is wrong, besides that the guards are off."""
    return (found for found in invariants.check() if found.invariant != "ledger_is_append_only")


@dataclass
class Report:
    """How edits fared, by what they changed."""

    fared: Counter[str]
    by_invariant: Counter[str]
    missed: list[str]
    harmless: Counter[str]

    def __str__(self) -> str:
        lines = [f"{what}: {number:,}" for what, number in sorted(self.fared.items())]
        lines += [f"  harmless by nature: {why}: {number:,}" for why, number in sorted(self.harmless.items())]
        lines += [f"  first found by {name}: {number:,}" for name, number in self.by_invariant.most_common()]
        return "\n".join([*lines, *(f"MISSED {edit}" for edit in self.missed)])


def tamper(rng: random.Random, edits: int, tell: Callable[[str], object] = lambda text: None) -> Report:
    """Make that many edits, one at a time, each on whole books."""
    report = Report(Counter(), Counter(), [], Counter())
    done = 0
    while done < edits:
        with taken_back():
            make_books(rng, gifts=GIFTS)
            switch_guards_off()
            assert list(findings()) == []
            upto = min(edits, done + BOOKS_LAST)
            while done < upto:
                done += _tamper_once(rng, report, tell)
            tell(f"{done:,} edits, {report.fared['found']:,} found, {len(report.missed)} missed")
    return report


def _tamper_once(rng: random.Random, report: Report, tell: Callable[[str], object]) -> int:
    edit = choose(rng)
    if edit is None:
        return 0
    with taken_back():
        try:
            with transaction.atomic():
                edit.apply()
        except DatabaseError:
            report.fared["refused by the database itself, not counted"] += 1
            return 0
        if edit.harmless:
            report.harmless[edit.harmless] += 1
            report.fared["harmless, not counted"] += 1
            return 0
        found = next(findings(), None)
        if found is None:
            report.missed.append(str(edit))
            tell(f"MISSED {edit}")
        else:
            report.by_invariant[found.invariant] += 1
        report.fared["found" if found else "missed"] += 1
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}, on {connection.vendor}")
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    began = time.monotonic()
    report = tamper(random.Random(options.seed), options.edits, tell=lambda text: print(text, flush=True))
    print(f"{report}\n{options.edits:,} edits in {time.monotonic() - began:.0f} s")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())

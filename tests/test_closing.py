"""Closing a month: what a statement says, that it stays, and what is shown beside it afterwards."""

import csv
import hashlib
import io
import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from donations import closing, exports, inbox, ledger, offline, projections
from donations.closing import CannotClose, OpenEvents
from donations.models import (
    Campaign,
    Gift,
    InboxEvent,
    LedgerEntry,
    Lookup,
    MonthStatement,
    MonthTotal,
    OfflineRequest,
    guards,
)
from donations.periods import Month
from donations.selectors import statements
from donations.selectors.finance import LEDGER
from tests.factories import (
    NOON,
    charge_event,
    checkout_event,
    collate_ledger,
    confirm,
    deliver,
    event,
    make_campaign,
    make_gift,
    make_staff,
    refund_event,
    told,
)

pytestmark = pytest.mark.django_db
NOVEMBER = Month(2024, 11)
DECEMBER_18 = datetime(2024, 12, 18, 12, tzinfo=UTC)


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


def close(campaign: Campaign, month: Month = NOVEMBER, **fields: Any) -> MonthStatement:
    return closing.close(campaign=campaign, month=month, user=make_staff(), **fields)


def move(gift: Gift, kind: str, amount: int, *, at: datetime = NOON, reference: str = "") -> None:
    """Book one movement of a gift, minor units."""
    month = gift.entries.filter(kind="gift").values_list("campaign_month", flat=True).first() or ""
    with transaction.atomic():
        ledger.post([entry_of(gift, kind, amount, at=at, reference=reference, campaign_month=month)])
        projections.apply(gifts=[gift])


def entry_of(gift: Gift, kind: str, amount: int, *, at: datetime = NOON, reference: str = "", **more: Any) -> Any:
    more = {"goal_amount": gift.amount if kind == "gift" else 0, "currency": gift.currency} | more
    return ledger.entry(
        campaign=gift.campaign, effective_at=at, kind=kind, processor="stripe", livemode=gift.livemode, amount=amount,
        reference=reference or f"{kind}_{gift.pk}", gift=gift.pk, tier=gift.tier, **more,
    )  # fmt: skip


def file_of(statement: MonthStatement) -> bytes:
    return b"".join(closing.as_closed(statement))


def totals_of(statement: MonthStatement) -> list[tuple[str, str, int, int]]:
    return [(each.kind, each.currency, each.rows, each.amount) for each in closing.closed_totals(statement)]


# ---- what a statement says


def test_a_statement_has_totals_rows_and_the_hash_of_the_file_that_finance_exports(campaign: Campaign) -> None:
    first, second = make_gift(campaign, 50000, fee_cover=103), make_gift(campaign, 2500)
    move(first, "gift", 50103)
    move(second, "gift", 2500)
    move(second, "refund", -500)
    move(first, "fee", -90, reference="txn_1")
    statement = close(campaign)
    assert totals_of(statement) == [("fee", "USD", 1, -90), ("gift", "USD", 2, 52603), ("refund", "USD", 1, -500)]
    assert (statement.counted, statement.rows) == ({"USD": 52000}, 4)
    chosen = statements.selection(campaign="general", month=NOVEMBER, livemode=False)
    exported = b"".join(exports.stream(LEDGER, chosen))
    assert statement.sha256 == hashlib.sha256(exported).hexdigest()
    assert file_of(statement) == exported
    assert closing.verify(statement) == []


def test_finance_goes_by_the_movements_day_and_the_bar_by_the_gifts_month(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    move(gift, "gift", 50000)
    # In New York it is still November; in UTC it is not.
    move(make_gift(campaign, 700), "gift", 700, at=datetime(2024, 12, 1, 4, 59, tzinfo=UTC))
    move(gift, "refund", -20000, at=DECEMBER_18)
    november, december = close(campaign), close(campaign, Month(2024, 12))
    assert totals_of(november) == [("gift", "USD", 2, 50700)]
    assert totals_of(december) == [("refund", "USD", 1, -20000)]
    assert (november.counted, december.counted) == ({"USD": 30700}, {})
    assert november.counted["USD"] == MonthTotal.objects.get(month="2024-11").raised


def test_sums_of_every_kind_and_currency_are_those_of_the_file(campaign: Campaign) -> None:
    gift, other = make_gift(campaign), make_gift(make_campaign("other"))
    move(gift, "gift", 50000)
    move(gift, "fee", -1400, reference="txn_1")
    with transaction.atomic():
        ledger.post([entry_of(gift, "fee", -90, reference="txn_2", currency="EUR")])
    move(other, "gift", 50000)
    move(make_gift(campaign, livemode=True), "gift", 50000)
    statement = close(campaign)
    assert totals_of(statement) == [("fee", "EUR", 1, -90), ("fee", "USD", 1, -1400), ("gift", "USD", 1, 50000)]
    lines = list(csv.DictReader(io.StringIO(file_of(statement).decode(), newline="")))
    assert sorted((line["kind"], line["currency"], line["amount"]) for line in lines) == [
        ("fee", "EUR", "-0.90"), ("fee", "USD", "-14.00"), ("gift", "USD", "500.00"),
    ]  # fmt: skip
    assert statement.counted == {"USD": 50000}


@pytest.mark.postgres
def test_a_statement_holds_in_a_database_of_another_collation(campaign: Campaign) -> None:
    collate_ledger("en-x-icu")
    for payment in ("pi_3aB", "pi_3Ab", "pi_3_x"):
        move(make_gift(campaign), "gift", 50000, reference=payment)
    statement = close(campaign)
    collate_ledger("C")
    assert closing.verify(statement) == []


def test_a_month_without_a_movement_can_be_closed_too(campaign: Campaign) -> None:
    statement = close(campaign)
    assert (statement.totals, statement.counted, statement.rows) == ([], {}, 0)
    assert closing.verify(statement) == []


# ---- what is refused


def test_a_month_is_closed_when_it_is_over_in_its_zone(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2024, 12, 1, 4, 59, 59, tzinfo=UTC)
    monkeypatch.setattr(timezone, "now", lambda: now)
    with pytest.raises(CannotClose, match="November 2024 is not over yet in America/New_York"):
        close(campaign)
    now += timedelta(seconds=1)
    assert close(campaign).closed_at == now


def test_a_closed_month_is_not_closed_again(campaign: Campaign) -> None:
    first = close(campaign)
    with pytest.raises(CannotClose, match="is closed already"):
        close(campaign)
    assert MonthStatement.objects.get() == first
    close(make_campaign("other"))
    close(campaign, Month(2024, 10))


def test_what_may_belong_to_the_month_and_is_not_settled_holds_it_open(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    deliver(checkout_event(gift))
    with pytest.raises(OpenEvents, match="1 inbox event may belong"):
        close(campaign)
    deliver(refund_event(make_gift(campaign), 500, at=DECEMBER_18), checkout_event(gift, payment="pi_second"))
    inbox.drain()
    assert set(InboxEvent.objects.values_list("state", flat=True)) == {"processed", "waiting", "quarantined"}
    with pytest.raises(OpenEvents, match="2 inbox events may belong"):
        close(campaign, in_spite_because="  ")
    statement = close(campaign, in_spite_because="The second payment was sent back.")
    assert (statement.open_events, statement.reason) == (2, "The second payment was sent back.")


def test_what_cannot_belong_to_the_month_does_not_hold_it_open(campaign: Campaign) -> None:
    other, later = make_gift(make_campaign("other")), make_gift(campaign)
    deliver(checkout_event(other), checkout_event(later, at=DECEMBER_18), event("customer.created", {"id": "cus_1"}))
    october = datetime(2024, 10, 18, tzinfo=UTC)
    deliver(refund_event(later, 500, created=october, at=october))
    statement = close(campaign, in_spite_because="not needed")
    assert (statement.open_events, statement.reason) == (0, "")


def test_what_nobody_can_read_may_belong_to_any_month(campaign: Campaign) -> None:
    deliver(event("refund.created", {"id": "re_1"}))
    assert closing.open_events(campaign=campaign, month=NOVEMBER) == 1
    inbox.drain()
    assert InboxEvent.objects.get().state == "quarantined"
    assert closing.open_events(campaign=campaign, month=NOVEMBER) == 1
    inbox.dismiss(InboxEvent.objects.get(), user=make_staff(), reason="Nothing in it.")
    assert closing.open_events(campaign=campaign, month=NOVEMBER) == 0


@pytest.mark.parametrize("day", [date(2024, 10, 3), date(2024, 11, 1), date(2024, 11, 30)])
def test_what_waits_for_approval_holds_the_month_open_and_is_named(campaign: Campaign, day: date) -> None:
    entered = enter(campaign, 2_000_000, day)
    words = (
        f"Not approved or rejected yet: offline gift {entered.reference} of 20,000 [$] for {day}[.] Settle that first"
    )
    with pytest.raises(OpenEvents, match=words):
        close(campaign)
    deliver(checkout_event(make_gift(campaign)))
    with pytest.raises(OpenEvents, match=r"^1 inbox event may belong .* Not approved .* and say why[.]$"):
        close(campaign)
    statement = close(campaign, in_spite_because="The bank has not confirmed it.")
    assert (statement.open_events, statement.reason) == (2, "The bank has not confirmed it.")


def test_an_adjustment_that_waits_holds_the_month_open_too(campaign: Campaign) -> None:
    offline.record_adjustment(
        campaign=campaign, amount=-2_000_000, day=NOON.date(), reference="R1", reason="returned", user=make_staff()
    )
    with pytest.raises(OpenEvents, match=r"adjustment R1 of −20,000 [$]"):
        close(campaign)


def test_more_that_waits_than_can_be_named_is_counted(campaign: Campaign) -> None:
    for _ in range(7):
        enter(campaign, 2_000_000)
    with pytest.raises(OpenEvents, match=r", and 2 more[.]"):
        close(campaign)


def test_what_was_decided_or_is_of_another_month_campaign_or_mode_does_not_hold_it_open(
    campaign: Campaign, settings: Any
) -> None:
    enter(campaign, 2_000_000, date(2024, 12, 1))
    enter(make_campaign("other"), 2_000_000)
    enter(campaign, 700)
    offline.approve(enter(campaign, 2_000_000), user=make_staff())
    offline.reject(enter(campaign, 2_000_000), user=make_staff(), reason="Entered twice.")
    settings.LIVEMODE = True
    enter(campaign, 2_000_000)
    settings.LIVEMODE = False
    assert close(campaign).open_events == 0


def test_fees_that_are_still_asked_for_hold_the_month_open(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "GIFTS_AT_ONCE", 2)
    gifts = [make_gift(campaign) for _ in range(3)]
    later, other, without = make_gift(campaign), make_gift(make_campaign("other")), make_gift(campaign)
    for gift in (*gifts, other, without):
        confirm(gift)
    confirm(later, at=DECEMBER_18)
    for number, gift in enumerate((*gifts, later, other)):
        told(charge_event(gift, f"txn_{number}"))
    with pytest.raises(OpenEvents, match=r"^Of 3 gifts of this month the fee is not booked yet: .* say why[.]$"):
        close(campaign)
    move(gifts[0], "fee", -90, reference="txn_0")
    Lookup.objects.filter(object_id="txn_1").update(next_try_at=None)
    assert closing.fees_looked_up(campaign=campaign, month=NOVEMBER) == 1
    assert close(campaign, in_spite_because="The processor is away.").open_events == 1


def enter(campaign: Campaign, amount: int, day: date = date(2024, 11, 18)) -> OfflineRequest:
    """An offline gift; of so many minor units that a second person must approve it, or fewer."""
    number = OfflineRequest.objects.count()
    return offline.record_gift(
        campaign=campaign, amount=amount, day=day, method="cash", reference=f"BANK {number}", reason="a box",
        user=make_staff(),
    )  # fmt: skip


# ---- afterwards


def test_later_movements_stand_beside_what_was_closed(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    confirm(gift)
    statement = close(campaign)
    before = file_of(statement)
    assert not closing.compare(statement).books_are_restated
    confirm(make_gift(campaign, 700))
    deliver(refund_event(gift, 20000, refund="re_1", created=DECEMBER_18))
    inbox.drain()
    compared = closing.compare(statement)
    assert [(line.kind, line.rows, line.amount, line.difference) for line in compared.lines] == [
        ("gift", (1, 2), (50000, 50700), 700)
    ]
    assert [(line.amount, line.difference) for line in compared.counted] == [((50000, 30700), -19300)]
    assert [entry.amount for entry in compared.later] == [700]
    assert [(change.entry.amount, change.counted) for change in compared.changes] == [(-20000, -20000), (700, 700)]
    assert compared.books_are_restated
    assert compared.bar_is_restated
    assert file_of(statement) == before
    assert closing.verify(statement) == []


def test_each_difference_of_the_bar_is_explained_to_the_cent(campaign: Campaign) -> None:
    covered, disputed, other = make_gift(campaign, 50000, fee_cover=103), make_gift(campaign, 700), make_gift(campaign)
    move(covered, "gift", 50103)
    move(disputed, "gift", 700)
    move(other, "gift", 50000, at=DECEMBER_18)
    statement = close(campaign)
    move(covered, "refund", -200, at=DECEMBER_18, reference="re_1")
    move(covered, "fee", -90, at=DECEMBER_18)
    move(other, "refund", -500, at=DECEMBER_18)
    move(disputed, "dispute_withdrawn", -900, at=DECEMBER_18)
    move(covered, "refund", -300, at=DECEMBER_18, reference="re_2")
    move(disputed, "dispute_reinstated", 400, at=DECEMBER_18)
    compared = closing.compare(statement)
    assert [(change.entry.amount, change.counted) for change in compared.changes] == [
        (400, 200), (-300, -300), (-900, -700), (-200, -97),
    ]  # fmt: skip
    assert [line.difference for line in compared.counted] == [sum(change.counted for change in compared.changes)]
    assert (compared.later, compared.books_are_restated, compared.bar_is_restated) == ((), False, True)


def test_a_kind_that_came_later_has_a_line_of_its_own(campaign: Campaign) -> None:
    gift = make_gift(campaign)
    statement = close(campaign)
    confirm(gift)
    deliver(refund_event(gift, 20000))
    inbox.drain()
    lines = closing.compare(statement).lines
    assert [(line.kind, line.rows, line.amount) for line in lines] == [
        ("gift", (0, 1), (0, 50000)), ("refund", (0, 1), (0, -20000)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("amount = amount + 1", ["totals", "sha256"]),
        ("local_date = '2024-10-31'", ["totals", "counted", "rows", "sha256"]),
        ("tier = 'other'", ["sha256"]),
        ("goal_amount = goal_amount - 1", ["counted", "sha256"]),
    ],
)
def test_tampering_with_a_closed_month_is_found(campaign: Campaign, change: str, found: list[str]) -> None:
    confirm(make_gift(campaign))
    statement = close(campaign)
    on_table = f" ON {guards.LEDGER}" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER ledger_no_update{on_table}")
        cursor.execute(f"UPDATE {guards.LEDGER} SET {change}")
    assert closing.verify(statement) == found


@pytest.mark.parametrize(
    "words",
    [
        "UPDATE donations_monthstatement SET reason = 'x'",
        "UPDATE donations_monthstatement SET month = month",
        "DELETE FROM donations_monthstatement",
        pytest.param("REPLACE INTO donations_monthstatement SELECT * FROM donations_monthstatement",
                     marks=pytest.mark.sqlite),
        pytest.param("TRUNCATE donations_monthstatement", marks=pytest.mark.postgres),
    ],
)  # fmt: skip
def test_the_database_refuses_to_change_or_reopen_a_closed_month(campaign: Campaign, words: str) -> None:
    close(campaign)
    if connection.vendor == "postgresql":
        connection.check_constraints()
    before = list(MonthStatement.objects.values())
    refused = pytest.raises(DatabaseError, match="a closed month stays closed")
    with refused, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(words)
    assert list(MonthStatement.objects.values()) == before


# ---- while others book


class Booking(threading.Thread):
    """Another connection that books one gift, and commits when it is told to; `booked` is set before that."""

    def __init__(self, gift: Gift) -> None:
        super().__init__(daemon=True)
        self.gift, self.booked, self.may_commit = gift, threading.Event(), threading.Event()

    def run(self) -> None:
        with transaction.atomic():
            ledger.post([entry_of(self.gift, "gift", self.gift.total)])
            projections.apply(gifts=[self.gift])
            self.booked.set()
            assert self.may_commit.wait(20)
        connection.close()


WAITING = """
SELECT count(*) FROM pg_locks WHERE relation = 'donations_ledgerentry'::regclass AND mode = 'ShareLock' AND NOT granted
"""


def closing_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(WAITING)
        return bool(cursor.fetchone()[0])


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_smaller_number_that_commits_after_a_larger_is_in_the_statement(campaign: Campaign) -> None:
    first, second, user = make_gift(campaign), make_gift(make_campaign("other")), make_staff()
    slow = Booking(first)
    slow.start()
    assert slow.booked.wait(20)
    move(second, "gift", 50000)
    assert list(LedgerEntry.objects.values_list("gift", flat=True)) == [second.pk]
    closed: list[MonthStatement] = []

    def work() -> None:
        closed.append(closing.close(campaign=campaign, month=NOVEMBER, user=user))
        connection.close()

    closer = threading.Thread(target=work, daemon=True)
    closer.start()
    while closer.is_alive() and not closing_waits():
        closer.join(0.01)
    slow.may_commit.set()
    slow.join(20)
    closer.join(20)
    assert LedgerEntry.objects.get(gift=first).pk < LedgerEntry.objects.get(gift=second).pk == closed[0].newest_entry
    assert totals_of(closed[0]) == [("gift", "USD", 1, 50000)]
    assert closing.verify(closed[0]) == []


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_booking_that_does_not_end_is_not_waited_for_without_end(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "LONGEST_LOCK_WAIT", timedelta(milliseconds=50))
    slow = Booking(make_gift(campaign))
    slow.start()
    assert slow.booked.wait(20)
    with pytest.raises(CannotClose, match="Nothing was closed: try again"):
        close(campaign)
    slow.may_commit.set()
    slow.join(20)
    assert not MonthStatement.objects.exists()


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_of_two_who_close_at_once_one_does(campaign: Campaign) -> None:
    users, gate, said = [make_staff(), make_staff()], threading.Barrier(2), []

    def work(user: Any) -> None:
        gate.wait(20)
        try:
            closing.close(campaign=campaign, month=NOVEMBER, user=user)
        except CannotClose as refusal:
            said.append(str(refusal))
        connection.close()

    closers = [threading.Thread(target=work, args=[user], daemon=True) for user in users]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(30)
    assert MonthStatement.objects.count() == len(said) == 1
    assert "is closed already" in said[0]

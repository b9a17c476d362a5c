"""All that deliveries leave behind, but for our own numbers and clocks: what two runs are compared by."""

from collections.abc import Iterable
from typing import Any

from django.db import connection, models

from donations.models import (
    BalanceTransaction,
    CampaignMonth,
    DailyRollup,
    Donor,
    Gift,
    GiftState,
    InboxEvent,
    LedgerEntry,
    Lookup,
    MonthTotal,
    OutboxMessage,
    Payout,
    RecurringGift,
)
from donations.projections import totals

Row = dict[str, Any]
Final = dict[str, list[Row]]


def final_state() -> Final:
    """All that the deliveries left behind, but for our own numbers and clocks."""
    return {
        "ledger": rows(LedgerEntry, {"id", "booked_at", "inbox_event_id"}),
        "states": rows(GiftState),
        "months": _without_zeros(rows(MonthTotal, {"id", "changed_at"}), totals.MONTH_SUMS),
        "days": _without_zeros(rows(DailyRollup, {"id"}), totals.DAY_SUMS),
        "goals": rows(CampaignMonth, {"id"}),
        "mail": rows(OutboxMessage, {"id", "next_try_at", "created_at"}),
        "gifts": rows(Gift, {"donor_id", "created_at"}),
        "monthly": rows(RecurringGift, {"donor_id"}),
        "transactions": rows(BalanceTransaction, {"id"}),
        "payouts": rows(Payout, {"id"}),
        # What was asked for though it came by itself depends on the order, and changes nothing.
        "lookups": [row for row in rows(Lookup, {"id", "next_try_at"}) if row["kind"] != Lookup.Kind.INVOICE],
        "donors": rows(Donor, {"id", "created_at"}),
        "inbox": rows(
            InboxEvent, {"id", "received_at", "next_try_at", "attempts", "waiting_since", "settled_at", "body"}
        ),
    }


def rows(model: type[models.Model], without: Iterable[str] = ()) -> list[Row]:
    """A table's rows. As plain SQL: the ORM would take longer over this than all that is tested here."""
    columns = [field.column for field in model._meta.concrete_fields if field.column not in without]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(columns)} FROM {model._meta.db_table}")
        return sorted((dict(zip(columns, row, strict=True)) for row in cursor.fetchall()), key=str)


def _without_zeros(found: list[Row], sums: Iterable[str]) -> list[Row]:
    """A total that nothing contributes to is as good as none."""
    return [row for row in found if any(row[name] for name in sums)]

"""What is shown, and what the tables promise as wholes: totals, the bar, the dashboard, the file, keys and guards."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache

from django.apps import apps
from django.conf import settings
from django.contrib.admin.models import ADDITION, LogEntry
from django.db import connection
from django.db.models import ForeignKey, Model
from django.utils import timezone

from donations import bulk, closing, exports, money, projections
from donations.invariants.findings import Finding, Tally
from donations.models import InboxEvent, LedgerEntry, MonthStatement, MonthTotal, guards
from donations.periods import Month
from donations.selectors import bar, dashboard
from donations.selectors.finance import ALL_GIFTS, Selection
from donations.selectors.sums import GIFT_KINDS

REBUILD = "Run manage.py rebuild: it makes states and totals anew from the ledger."
CampaignMonthKey = tuple[str, str, str]


def check_totals(tally: Tally) -> Iterator[Finding]:
    """Stored totals and rollups are what the ledger adds up to, per campaign, month, mode and currency."""
    tally["totals"] += MonthTotal.objects.count()
    for drift in projections.total_drift():
        yield Finding(
            invariant="totals_are_what_the_ledger_says",
            key=f"total of {drift.key}",
            words=drift.words,
            remedy=REBUILD,
        )


def check_guards(tally: Tally) -> Iterator[Finding]:
    """The triggers that keep ledger and statements of closed months from being changed stand."""
    for name in guards.missing():
        yield Finding(
            invariant="ledger_is_append_only",
            key=f"trigger {name}",
            words="it does not stand: what it guards can be changed",
            remedy="Run manage.py migrate, which puts it back, and find out who took it away.",
        )


# ---- closed months

MOST_STATEMENTS = 100


def check_statements(tally: Tally) -> Iterator[Finding]:
    """What a closed month's statement says, the ledger still bears out: sums, rows and its file. The latest of them."""
    for statement in MonthStatement.objects.order_by("-pk")[:MOST_STATEMENTS]:
        tally["closed months"] += 1
        for name in closing.verify(statement):
            yield Finding(
                invariant="closed_months_stay",
                key=f"statement {statement}",
                words=f"the ledger does not bear out its {name.replace('_', ' ')}",
                remedy="Compare the ledger and the statement with a backup; somebody has changed one of them.",
            )
    yield from _removed_statements()


def _removed_statements() -> Iterator[Finding]:
    """Those that were closed in the admin, by its history: a statement leaves no other trace."""
    standing = {str(number) for number in MonthStatement.objects.values_list("pk", flat=True)}
    closed = LogEntry.objects.filter(action_flag=ADDITION).filter(
        content_type__app_label="donations", content_type__model="monthstatement"
    )
    for number, name in closed.values_list("object_id", "object_repr"):
        if number not in standing:
            yield Finding(
                invariant="closed_months_stay",
                key=f"statement {name}",
                words="the admin’s history says that it was closed, and its statement is gone",
                remedy="Restore the statement from a backup, and find out who removed it.",
            )


# ---- identity


UNIQUE = {
    "one_entry_a_movement": (LedgerEntry, ("processor", "kind", "reference"), "TRUE"),
    "one_gift_entry_a_gift": (LedgerEntry, ("gift",), f"kind IN {GIFT_KINDS}"),
    "one_row_an_event": (InboxEvent, ("processor", "event_id"), "TRUE"),
}


def check_identity(tally: Tally) -> Iterator[Finding]:
    """No movement, gift or event is there twice; read from the tables, since a broken index would hide it."""
    for invariant, (model, columns, condition) in UNIQUE.items():
        for row in _doubled(model, columns, condition):
            yield Finding(
                invariant=invariant,
                key=" ".join(str(value) for value in row[:-1]),
                words=f"it is there {row[-1]} times in {model._meta.db_table}",
                remedy="Have the database’s indexes rebuilt (REINDEX), and compare both rows with a backup.",
            )


def _doubled(model: type[Model], columns: tuple[str, ...], condition: str) -> Iterable[tuple[object, ...]]:
    names, without_index = ", ".join(columns), "" if connection.vendor == "postgresql" else "NOT INDEXED"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT set_config('enable_indexscan', 'off', true)")
            cursor.execute("SELECT set_config('enable_indexonlyscan', 'off', true)")
        cursor.execute(
            f"SELECT {names}, COUNT(*) FROM {model._meta.db_table} {without_index} WHERE {condition} "  # noqa: S608 (our own names)
            f"GROUP BY {names} HAVING COUNT(*) > 1"
        )
        rows: list[tuple[object, ...]] = cursor.fetchall()
        if connection.vendor == "postgresql":
            cursor.execute("SELECT set_config('enable_indexscan', 'on', true)")
            cursor.execute("SELECT set_config('enable_indexonlyscan', 'on', true)")
    return rows


def check_references(tally: Tally) -> Iterator[Finding]:
    """Whatever a row belongs to is there: gifts of entries, events of entries, campaigns of totals, and so on."""
    for name, key, field, lost in bulk.run(_lost(), []):
        yield Finding(
            invariant="nothing_belongs_to_what_is_gone",
            key=f"{name} {key}",
            words=f"its {field} {lost} is not here",
            remedy="Restore the missing row from a backup.",
        )


@cache
def _lost() -> str:
    """One statement over every foreign key: its table's name, the row's key, the key's name, and what is not there."""
    return " UNION ALL ".join(
        _lost_by(model, field)
        for model in apps.get_app_config("donations").get_models()
        for field in model._meta.concrete_fields
        if isinstance(field, ForeignKey)
    )


def _lost_by(model: type[Model], field: "ForeignKey[object, object]") -> str:
    key, belongs_to = model._meta.pk.column, field.remote_field.model._meta.db_table
    return (
        f"SELECT '{model._meta.verbose_name}', CAST(r.{key} AS text), '{field.name}', CAST(r.{field.column} AS text) "  # noqa: S608 (our own names)
        f"FROM {model._meta.db_table} r WHERE r.{field.column} IS NOT NULL AND NOT EXISTS "
        f"(SELECT 1 FROM {belongs_to} t WHERE t.{field.target_field.column} = r.{field.column})"
    )


# ---- one figure everywhere


def check_figures(tally: Tally) -> Iterator[Finding]:
    """Over each campaign month of the site's mode, bar, dashboard, its days, its tiers and finance's file agree."""
    filed = _filed(tally)
    totals = MonthTotal.objects.filter(livemode=settings.LIVEMODE).select_related("campaign")
    stored = {(total.campaign_id, total.month, total.currency): total for total in totals}
    for key in sorted(filed.keys() | stored.keys()):
        shown = _shown(stored[key]) if key in stored else {"the totals": (0, 0)}
        shown["finance’s file"] = filed[key]
        if len(set(shown.values())) > 1:
            words = ", ".join(
                f"{name}: {money.with_code(raised, key[2])} of {gifts} gifts" for name, (raised, gifts) in shown.items()
            )
            yield Finding(invariant="one_figure_everywhere", key=" ".join(key), words=words, remedy=REBUILD)


def _filed(tally: Tally) -> defaultdict[CampaignMonthKey, tuple[int, int]]:
    """Raised, minor units, and gifts that count, by campaign month, as finance's file of gifts adds up."""
    raised: Counter[CampaignMonthKey] = Counter()
    gifts: Counter[CampaignMonthKey] = Counter()
    for row in csv.DictReader(_lines(exports.stream(ALL_GIFTS, Selection(livemode=settings.LIVEMODE)))):
        key = (row["campaign"], row["campaign_month"], row["currency"])
        counted = int(Decimal(row["counted"]).scaleb(money.exponent(row["currency"])))
        raised[key] += counted
        gifts[key] += counted > 0
        tally["rows of finance’s file"] += 1
    sums = {key: (raised[key], gifts[key]) for key in raised}
    return defaultdict(lambda: (0, 0), sums)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The file's lines. No cell has a line break in it."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\r\n")
        for line in lines:
            yield line.decode()
    if rest:
        yield rest.decode()


def _shown(total: MonthTotal) -> dict[str, tuple[int, int]]:
    """Raised and gifts, by where they are shown. Bar and dashboard show the campaign's own currency."""
    shown = {"the totals": (total.raised, total.gifts)}
    if total.currency != total.campaign.currency:
        return shown
    month = Month.parse(total.month)
    its_bar = bar.bar(total.campaign_id, month)
    glance = dashboard.glance(campaign=total.campaign, month=month, livemode=settings.LIVEMODE, now=timezone.now())
    shown["the bar"] = (its_bar.raised, its_bar.gifts)
    shown["the dashboard"] = (glance.sums.raised, glance.sums.gifts)
    shown["its days"] = (glance.days[-1] if glance.days else 0, total.gifts)
    tiers = [tier for tier in glance.tiers if tier.amount != 0]
    shown["its tiers"] = (sum(tier.raised for tier in tiers), sum(tier.supporters for tier in tiers))
    return shown

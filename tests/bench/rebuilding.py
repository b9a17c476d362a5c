"""How long every total takes to be made anew from a ledger of ten million entries, beside counting its rows."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from django.db import connection

from donations import projections
from tests.bench import material
from tests.bench.report import Result

GIFTS = (200_000, 9_523_810)  # quick, and whole: with a reversal of each twentieth gift these are ten million entries
REVERSED = 20


def measure(quick: bool) -> list[Result]:
    """The totals of a year, from nothing; the peer is PostgreSQL's own parallel count of the same rows."""
    gifts, rounds = (GIFTS[0], 3) if quick else (GIFTS[1], 5)
    entries = _fill(gifts)
    rebuilt, counted = [], []
    for _ in range(rounds):
        counted.append(_timed(lambda: _run("SELECT count(*) FROM donations_ledgerentry")))
        rebuilt.append(_timed(projections.rebuild_totals))
    return [
        Result(
            name=f"rebuild every total of {entries:,} entries, beside a parallel count(*)",
            ratio=median(mine / other for mine, other in zip(rebuilt, counted, strict=True)),
            goal=15,
            at_least=False,
            figures={
                "time": f"{median(rebuilt):.2f} s beside {median(counted):.2f} s",
                "gifts with reversals": f"1 of {REVERSED}",
            },
        )
    ]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _run(sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []


def _fill(gifts: int) -> int:
    """A year's gifts over twelve months, and a refund of each twentieth. Returns how many entries there are.

    What is measured reads the ledger alone, so there are no rows of gifts, which the database would ask for.
    """
    material.campaign()
    _run("DROP TRIGGER ledger_like_its_gift ON donations_ledgerentry")
    for (name,) in _run(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'donations_ledgerentry'::regclass AND contype = 'f'"
    ):
        _run(f'ALTER TABLE donations_ledgerentry DROP CONSTRAINT "{name}"')
    columns = (
        "effective_at, local_date, campaign, campaign_month, time_zone, kind, processor, reference, gift, tier, "
        "currency, amount, goal_amount, settlement_currency, livemode, booked_at"
    )
    moments = (
        "SELECT i, timestamptz '2024-01-01 12:00Z' + (i::float8 / %s) * interval '365 days' AS at "
        "FROM generate_series(1, %s) i"
    )
    for kind, sign, which in (("gift", 1, "TRUE"), ("refund", -1, f"i %% {REVERSED} = 0")):
        _run(
            f"INSERT INTO donations_ledgerentry ({columns}) SELECT at, at::date, 'general', to_char(at, 'YYYY-MM'), "
            f"'UTC', '{kind}', 'stripe', '{kind[:2]}_' || {material.KEY}, 'gift_' || {material.KEY}, "
            f"(ARRAY['500.00', '2500.00', 'custom'])[1 + i %% 3], 'USD', {sign} * 50000, "
            f"{50000 if sign > 0 else 0}, '', false, now() FROM ({moments}) moments WHERE {which}",
            [gifts, gifts],
        )
    _run("VACUUM ANALYZE donations_ledgerentry")
    return int(_run("SELECT count(*) FROM donations_ledgerentry")[0][0])

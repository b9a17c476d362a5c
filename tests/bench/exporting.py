"""How fast finance's file is written, what it takes of memory, and how soon it begins."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from django.conf import settings

from donations import exports
from donations.selectors.finance import LEDGER, Selection
from tests.bench import material
from tests.bench.report import Result
from tests.bench.serving import ROOT

COLUMNS = ", ".join(column.sql.removeprefix("e.") for column in LEDGER.columns)
EVERYTHING = Selection(livemode=False)


def measure(quick: bool) -> list[Result]:
    """PostgreSQL: beside `psql \\copy`, first byte, memory. SQLite: memory, with its rate as a figure."""
    entries, rounds = (20_000, 2) if quick else (1_000_000, 9)
    material.fill(1, entries)
    material.settle()  # else both are measured beside a vacuum of what was just written
    theirs, ours, first = [], [], []
    for _ in range(rounds):
        theirs.append(_psql())
        began = time.perf_counter()
        rest = exports.stream(LEDGER, EVERYTHING)
        next(rest), next(rest)  # the header, then the first rows
        first.append(time.perf_counter() - began)
        for _chunk in rest:
            pass
        ours.append(time.perf_counter() - began)
    grown, seconds = _in_a_new_process(settings.DATABASE_ADDRESS)
    with tempfile.TemporaryDirectory() as folder:
        lite_grown, lite_seconds = _sqlite(Path(folder), entries)
    return [
        Result(
            name=f"export ledger of {entries:,} entries, beside psql \\copy",
            ratio=median(mine / other for mine, other in zip(ours, theirs, strict=True)),
            goal=1.4,
            at_least=False,
            figures={"time": f"{median(ours):.2f} s beside {median(theirs):.2f} s"},
        ),
        Result(
            name="export ledger: first rows, in parts of 50 ms",
            ratio=max(first) / 0.05,
            goal=1,
            at_least=False,
            figures={"slowest of all rounds": f"{max(first) * 1000:.0f} ms"},
        ),
        Result(
            name="export ledger: growth of memory, in parts of 5 MB",
            ratio=grown / 5e6,
            goal=1,
            at_least=False,
            figures={"grown by": f"{grown / 1e6:.1f} MB", "time in a new process": f"{seconds:.2f} s"},
        ),
        Result(
            name="export ledger on SQLite: growth of memory, in parts of 5 MB",
            ratio=lite_grown / 5e6,
            goal=1,
            at_least=False,
            figures={"grown by": f"{lite_grown / 1e6:.1f} MB", "rate": f"{entries / lite_seconds:,.0f} entries/s"},
        ),
    ]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _psql() -> float:
    """Seconds that psql says it took, without its own start."""
    address = settings.DATABASE_ADDRESS.replace("postgres://", "postgresql://", 1)
    query = f"\\copy (SELECT {COLUMNS} FROM donations_ledgerentry) TO '/dev/null' CSV"
    command = ["psql", address, "-q", "-c", "\\timing on", "-c", query]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(said.split("Time:")[1].split()[0]) / 1000


def _sqlite(folder: Path, entries: int) -> tuple[int, float]:
    """The same in an SQLite file, made and read in processes of their own."""
    address = f"sqlite:///{folder}/bench.sqlite3"
    _run(address, f"make({entries})")
    return _in_a_new_process(address)


def _in_a_new_process(address: str) -> tuple[int, float]:
    """By how many bytes writing the whole file grew a process that had written a small one; and how long it took."""
    grown, seconds = _run(address, "write()").split()
    return int(grown), float(seconds)


def _run(address: str, call: str) -> str:
    """What a function of this module returns in a process of its own, on another database."""
    environment = os.environ | {"DATABASE_URL": address, "DJANGO_SETTINGS_MODULE": "tests.bench.settings"}
    program = f"import django; django.setup(); from tests.bench import exporting; print(exporting.{call})"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def write() -> str:
    """Write a file of nothing, which loads what is loaded once, and then the whole; say what the second one took."""
    for _chunk in exports.stream(LEDGER, Selection(livemode=True)):
        pass
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: a child starts with its parent's
    before = _memory("VmRSS")
    seconds = _timed(lambda: sum(len(chunk) for chunk in exports.stream(LEDGER, EVERYTHING)))
    return f"{max(0, _memory('VmHWM') - before)} {seconds}"


def _memory(name: str) -> int:
    """A figure of this process in bytes: VmRSS now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def make(entries: int) -> str:
    """An SQLite ledger of so many entries."""
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    material.campaign()
    series = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {entries}) "
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO donations_gift (reference, campaign_id, frequency, tier, currency, amount, fee_cover, "
            "public_name, message, anonymous, source, livemode, processor, created_at, page, checkout_url, refusal) "
            f"{series} SELECT 'gift_' || i, 'general', 'once', '500.00', 'USD', 50000, 0, '', '', 0, '', 0, 'stripe', "
            "'2024-11-18 12:00:00', '', '', '' FROM n"
        )
        cursor.execute(
            "INSERT INTO donations_ledgerentry (effective_at, local_date, campaign, campaign_month, time_zone, kind, "
            "processor, reference, gift, tier, currency, amount, goal_amount, settlement_currency, livemode, "
            f"booked_at) {series} SELECT '2024-11-18 12:' || printf('%02d:%02d', i / 60 % 60, i % 60), '2024-11-18', "
            "'general', '2024-11', 'America/New_York', 'gift', 'stripe', 'pi_' || i, 'gift_' || i, '500.00', 'USD', "
            "50000, 50000, '', 0, '2024-11-18 12:00:00' FROM n"
        )
    return ""

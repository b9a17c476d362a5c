"""How fast the inbox is drained: beside acknowledging, beside a transaction an event, and in a large ledger."""

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from django.conf import settings
from django.db import connection

from donations import inbox
from tests.bench import acknowledging, material
from tests.bench.report import Result
from tests.bench.serving import CORES, ROOT, serving

NEWEST = 50_000_000  # what is added to a ledger is newer than what stands in it


def measure(quick: bool) -> list[Result]:
    return [*_rates(quick), _growth(quick)]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _rates(quick: bool) -> list[Result]:
    """100,000 events of one month at once; in turn deliveries are acknowledged, and events taken one by one."""
    rounds, size, single, alone = (2, 2_000, 1_000, 200) if quick else (3, 100_000, 4_000, 400)
    drained, batched, one_by_one, acknowledged = [], [], [], []
    for turn in range(rounds):
        with serving(settings.DATABASE_ADDRESS) as server:
            acknowledging.acknowledge(server, 1)
            acknowledged.append(acknowledging.acknowledge(server, 1 if quick else 3).rate)
        forget_deliveries()
        start = 1 + turn * (size + single + alone)
        material.queue(start, size)
        drained.append(size / drained_by_workers())
        material.queue(start + size, single)
        batched.append(single / _timed(inbox.drain))
        material.queue(start + size + single, alone)
        one_by_one.append(alone / _timed(lambda: [inbox.process_batch(limit=1) for _ in range(alone)]))
    return [
        Result(
            name="drained, beside the rate of acknowledging",
            ratio=median(mine / other for mine, other in zip(drained, acknowledged, strict=True)),
            goal=1.5,
            figures={
                "drained": f"{size:,} events at {median(drained):,.0f}/s by {CORES} workers",
                "acknowledged": f"{median(acknowledged):,.0f}/s by {CORES} workers",
            },
        ),
        Result(
            name="drained in batches, beside a transaction an event",
            ratio=median(mine / other for mine, other in zip(batched, one_by_one, strict=True)),
            goal=10,
            figures={
                "in batches": f"{median(batched):,.0f}/s by one worker",
                "one by one": f"{median(one_by_one):,.0f}/s by one worker",
            },
        ),
    ]


def drained_by_workers() -> float:
    """Seconds until a worker a core, all started before, have drained what is queued."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(CORES)
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    return _timed(lambda: [_end(worker) for worker in _begun(workers)])


def _begun(workers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("drain\n")
        worker.stdin.flush()
    return workers


def _end(worker: subprocess.Popen[str]) -> None:
    if worker.wait():
        raise RuntimeError("a worker failed")


WORKER = """
import django
django.setup()
from django.db import connection
from donations import inbox
connection.ensure_connection()
print("ready", flush=True)
input()
inbox.drain()
"""


def forget_deliveries() -> None:
    """The deliveries of the load have no gifts: they are not what is drained."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE donations_inboxevent SET state = 'foreign', next_try_at = NULL WHERE state = 'ready'")
    material.settle()


def _growth(quick: bool) -> Result:
    """The same number of events in a ledger of 1,000 entries and in one of 1,000,000, in turns."""
    rounds, size, small, large = (2, 1_000, 1_000, 20_000) if quick else (7, 4_000, 1_000, 1_000_000)
    own = connection.settings_dict["NAME"]
    costs: dict[int, list[float]] = {small: [], large: []}
    for entries in costs:
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "bench{entries}" TEMPLATE "template0"')
        _enter(f"bench{entries}", migrate=True)
        material.fill(1, entries)
        material.queue(NEWEST, 500)
        inbox.drain()
        _enter(own)
    for turn in range(rounds):
        for entries, cost in costs.items():
            _enter(f"bench{entries}")
            material.queue(NEWEST + 1_000 + turn * size, size)
            material.settle()  # else the small one is planned by what it was when it was smaller still
            cost.append(_timed(inbox.drain) / size)
    _enter(own)
    return Result(
        name=f"the cost of an event at {large:,} entries, beside at {small:,}",
        ratio=median(many / few for many, few in zip(costs[large], costs[small], strict=True)),
        goal=1.3,
        at_least=False,
        figures={f"at {entries:,}": f"{median(cost) * 1e6:.0f} µs" for entries, cost in costs.items()},
    )


def _enter(database: str, *, migrate: bool = False) -> None:
    """Work in another database of the same server."""
    from django.core.management import call_command

    connection.close()
    connection.settings_dict["NAME"] = database
    if migrate:
        call_command("migrate", verbosity=0)

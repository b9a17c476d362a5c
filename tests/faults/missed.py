"""72 hours in which no event was delivered, half of them longer ago than the processor lists events: all comes back.

    python -m tests.faults.missed --events 100000

Seeds the sandbox, lets it limit calls, has `manage.py reconcile` fetch what was missed on a PostgreSQL of its own,
kills it once in the middle, and compares the ledger with what was paid, gift by gift. Prints the figures; exits 1 if a
cent is not where it belongs.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from donations.sandbox import seeding
from donations.sandbox.clock import Clock
from donations.sandbox.store import Store
from tests.services import free_port, postgres

ROOT = Path(__file__).resolve().parents[2]
EVENTS_A_PAYMENT = 5.1
STATE = "state.sqlite3"
LIST_REACHES = timedelta(days=30)
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--events", type=int, default=100_000)
    options.add_argument("--per-second", type=int, default=25, help="how many calls the processor takes")
    options.add_argument("--no-kill", action="store_true", help="leave the run alone")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, postgres() as database:
        plan = seeding.Plan(
            round(given.events / EVENTS_A_PAYMENT),
            gift="gift_seeded",
            first_days_ago=31.5,
            last_days_ago=28.5,
            refund_every=20,
        )
        made, events = seeded(Path(folder) / STATE, plan)
        return recovered(Path(folder), database.url, made, events, given)


def seeded(state: Path, plan: seeding.Plan) -> tuple[list[Any], list[int]]:
    """What was paid, and when each of its events was."""
    store = Store(state, Clock())
    made = seeding.seed(store, plan)
    with store.transaction() as tx:
        events = [row[0] for row in tx.db.execute("SELECT created FROM objects WHERE kind = 'event'")]
    store.close()
    return made, events


def recovered(folder: Path, database: str, made: list[Any], events: list[int], given: argparse.Namespace) -> int:
    with served(folder, database) as url:
        prepare(made)
        tell(url, "trouble", mode="429", per_second=given.per_second)
        began = time.monotonic()
        output = reconcile(folder, len(events), kill=not given.no_kill)
        seconds = time.monotonic() - began
        print(output)
        return report(made, events, seconds, given)


@contextmanager
def served(folder: Path, database: str) -> Iterator[str]:
    """The address of a sandbox that has the folder's state; our own processes go to it and to this database."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    os.environ |= {"DATABASE_URL": database, "DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_STRIPE_API_BASE": url}
    sandbox = start("sandbox", "--port", str(port), "--state", str(folder / STATE))
    try:
        await_answer(url)
        yield url
    finally:
        sandbox.kill()
        sandbox.wait()


def prepare(made: list[Any]) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    from donations.models import Gift
    from tests.factories import make_campaign

    campaign = make_campaign()
    common = {"campaign": campaign, "tier": "custom", "currency": "USD", "livemode": False, "processor": "stripe"}
    Gift.objects.bulk_create([Gift(reference=one.gift, amount=one.amount, **common) for one in made], batch_size=1000)


def reconcile(folder: Path, events: int, *, kill: bool) -> str:
    """Run the command until it ends; if wanted, kill it once in the middle, and start it again."""
    log = folder / "reconcile.log"
    if kill:
        first = start("reconcile", "--since", "40d", log=log)
        while stored() < min(20_000, events // 4) and first.poll() is None:
            time.sleep(0.2)
        first.send_signal(signal.SIGKILL)
        first.wait()
        print(f"killed with {stored():,} rows in the inbox")
    while True:
        log.unlink(missing_ok=True)
        code = start("reconcile", "--since", "40d", log=log).wait()
        if code != 2:  # held by the one that was killed, until its lease runs out
            return log.read_text()
        time.sleep(2)


def stored() -> int:
    from donations.models import InboxEvent

    return InboxEvent.objects.count()


def report(made: list[Any], events: list[int], seconds: float, given: argparse.Namespace) -> int:
    from donations import invariants
    from donations.models import InboxEvent, LedgerEntry, Reconciliation

    row = Reconciliation.objects.get(finished_at__isnull=False)
    wanted = {("gift", one.payment): one.amount for one in made}
    wanted |= {("refund", one.refund): -one.amount for one in made if one.refund}
    wanted |= {("fee", one.movement): -one.fee for one in made}
    booked = {
        (kind, name): amount for kind, name, amount in LedgerEntry.objects.values_list("kind", "reference", "amount")
    }
    lost = [key for key in wanted if key not in booked]
    wrong = [key for key, amount in booked.items() if wanted.get(key) != amount]
    oldest = (datetime.now(UTC) - LIST_REACHES).timestamp()
    figures = {
        "events that were not delivered": len(events),
        "of them older than the list of events": sum(created < oldest for created in events),
        "rows fetched": row.unseen,
        "movements wanted": len(wanted),
        "movements booked": len(booked),
        "lost": len(lost),
        "wrong": len(wrong),
        "cents wanted": sum(wanted.values()),
        "cents booked": sum(booked.values()),
        "unsettled rows in the inbox": InboxEvent.objects.filter(next_try_at__isnull=False).count(),
        "books equal": row.equal,
        "findings in the books": len(list(invariants.check())),
        "calls a second that the processor took": given.per_second,
        "seconds": round(seconds),
    }
    print(json.dumps(figures, indent=2))
    return int(bool(lost or wrong or not row.equal or figures["findings in the books"] or seconds > 600))


def start(command: str, *arguments: str, log: Path | None = None) -> subprocess.Popen[bytes]:
    output = log.open("ab") if log else subprocess.DEVNULL
    program = [sys.executable, "manage.py", command, *arguments, "--settings", "tests.settings"]
    return subprocess.Popen(program, cwd=ROOT, stdout=output, stderr=output)


def await_answer(url: str) -> None:
    for _ in range(300):
        try:
            OPENER.open(f"{url}/", timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the sandbox does not answer")


def tell(url: str, path: str, **body: Any) -> None:
    headers = {"Content-Type": "application/json"}
    OPENER.open(urllib.request.Request(f"{url}/_control/{path}", json.dumps(body).encode(), headers)).close()


if __name__ == "__main__":
    sys.exit(main())

"""Four workers ask for refunds of the same gifts at once: is more ever asked for than was charged?

    ./dev faults refunds [--short]

Seeds the sandbox with payments, has `manage.py reconcile` book them on a PostgreSQL of its own, and lets every worker
ask for a random part of every gift, all in the same order. Then each gift's requests, the counter beside them and the
processor's own refunds are compared with its charge; exits 1 where one is above it.
"""

import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from donations.sandbox import seeding
from tests.faults.missed import STATE, prepare, seeded, served, start
from tests.services import postgres

GIFTS, SHORT_GIFTS = 10_000, 200
WORKERS = 4


def main(words: list[str]) -> int:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    payments = SHORT_GIFTS if "--short" in words else GIFTS
    plan = seeding.Plan(payments, gift="gift_seeded", first_days_ago=3, last_days_ago=1)
    with tempfile.TemporaryDirectory() as folder, postgres(fsync="off") as database:
        made, _ = seeded(Path(folder) / STATE, plan)
        with served(Path(folder), database.url):
            prepare(made)
            start("reconcile", "--since", "5d").wait()
            began = time.monotonic()
            answers = race([one.gift for one in made], seed)
            seconds = time.monotonic() - began
            start("reconcile", "--since", "5d").wait()
            return report(made, answers, seconds)


def race(gifts: list[str], seed: int) -> Counter[str]:
    """Each worker asks for a part of each gift; how many asked and were refused, by what they were told."""
    from django.db import connection

    connection.close()  # each worker has its own
    fork = multiprocessing.get_context("fork")
    with fork.Pool(WORKERS) as pool:
        told = pool.starmap(ask_for_all, [(gifts, seed + number) for number in range(WORKERS)], chunksize=1)
    return sum(told, Counter())


def ask_for_all(gifts: list[str], seed: int) -> Counter[str]:
    from donations import refunding
    from donations.models import Gift

    rng, told = random.Random(seed), Counter[str]()
    for gift in Gift.objects.filter(pk__in=gifts).order_by("pk"):
        try:
            refunding.request_refund(gift=gift, amount=rng.randint(1, gift.amount), reason="", user=None)
        except refunding.RefundRefused as refusal:
            told["refused by the processor" if "The payment service" in str(refusal) else "refused here"] += 1
        else:
            told["asked for"] += 1
    return told


def report(made: list[Any], answers: Counter[str], seconds: float) -> int:
    from donations import invariants
    from donations.models import GiftState, LedgerEntry, RefundRequest

    charged = {one.gift: one.amount for one in made}
    asked: defaultdict[str, int] = defaultdict(int)
    for gift, amount in RefundRequest.objects.filter(status__in=["sending", "accepted"]).values_list("gift", "amount"):
        asked[gift] += amount
    counters = dict(GiftState.objects.values_list("gift", "refund_requested"))
    given: defaultdict[str, int] = defaultdict(int)
    for gift, amount in LedgerEntry.objects.filter(kind="refund").values_list("gift", "amount"):
        given[gift] -= amount
    over = [gift for gift, amount in charged.items() if max(asked[gift], given[gift]) > amount]
    apart = [gift for gift in charged if not asked[gift] == given[gift] == counters[gift]]
    findings = [str(finding) for finding in invariants.check()]
    print(
        f"{len(charged):,} gifts, {WORKERS} workers, {sum(answers.values()):,} refunds wanted in {seconds:.0f} s: "
        f"{dict(answers)}; {len(over)} gifts over their charge, {len(apart)} where requests, counter and "
        f"refunds differ, {len(findings)} findings in the books"
    )
    for problem in [*over, *apart, *findings][:20]:
        print(f"  {problem}")
    return int(bool(over or apart or findings or answers["refused by the processor"] or not answers["refused here"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Donors, processor, deliveries, staff, workers and clock against the real code, all decided by one seed.

    ./dev simulate --seed 7 --deliveries 1000000

Prints what happened and how the two books compare; exits 1 where anything was lost or counted twice, or the books are
not whole. The same seed makes the same world, and on SQLite the same run, to the last figure but the seconds.
"""

import argparse
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

PROGRESS_EVERY = 100_000
IN_MEMORY = "/dev/shm"  # noqa: S108 (a folder of our own is made in it)


def main() -> int:
    given = arguments(sys.argv[1:])
    from tests.services import free_port, postgres

    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=IN_MEMORY if Path(IN_MEMORY).is_dir() else None))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        server = stack.enter_context(postgres(fsync="off")) if given.postgres else None
        database = server.url if server else f"sqlite:///{folder}/site.sqlite3"
        return play_on(database, folder, free_port(), given)


def play_on(database: str, folder: Path, port: int, given: argparse.Namespace) -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    os.environ["TEST_STRIPE_API_BASE"] = f"http://127.0.0.1:{port}"
    os.environ["DATABASE_URL"] = database
    os.environ.pop("REDIS_URL", None)
    import django

    django.setup()
    # Each quarantined event is a line there.
    logging.getLogger("donations").setLevel(logging.CRITICAL)
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    try:
        return run(folder, port, given)
    finally:
        connection.close()


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev simulate", description="Play a world against the real code.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--deliveries", type=int, default=5_000, help="how many at least (5,000)")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own, not on SQLite in memory")
    return parser.parse_args(words)


def same_again(given: argparse.Namespace) -> str:
    """What plays the same world again: PostgreSQL's workers are at work at once, so it is another one without."""
    on = " --postgres" if given.postgres else ""
    return f"./dev simulate --seed {given.seed} --deliveries {given.deliveries}{on}"


def run(folder: Path, port: int, given: argparse.Namespace) -> int:
    from donations import invariants
    from donations.models import InboxEvent
    from tests.simulation import truth
    from tests.simulation.crew import WORKERS
    from tests.simulation.world import World

    print(f"seed {given.seed}: {same_again(given)}", flush=True)
    world, began = World(folder, port, given.seed), time.perf_counter()
    play(world, given.deliveries)
    world.finish()
    verdict, findings = truth.compare(world), list(invariants.check())
    states = {state: InboxEvent.objects.filter(state=state).count() for state in InboxEvent.State.values}
    print(f"{world.delivered:,} deliveries of {sum(states.values()):,} events in {time.perf_counter() - began:.0f} s")
    books = "equal" if world.reconciled.equal else f"{len(world.reconciled.differences)} differences"
    asked = InboxEvent.objects.filter(origin__in=["events_api", "sweep"]).count()
    print(f"asking the processor told {asked:,} things that no delivery had told by then, and both books: {books}")
    if world.crew.rounds:
        print(f"{WORKERS} workers at once, in {world.crew.rounds:,} rounds")
    print("what happened: " + ", ".join(f"{name} {count:,}" for name, count in sorted(world.done.items())))
    print("the inbox: " + ", ".join(f"{state} {count:,}" for state, count in states.items() if count))
    print(f"{verdict.movements:,} movements of money: {len(verdict.lost)} lost, "
          f"{len(verdict.counted_twice)} counted twice; {len(findings)} findings in the books")  # fmt: skip
    wrong = [*verdict.wrong, *world.reconciliation.wrong]
    for problem in [*verdict.lost, *verdict.counted_twice, *wrong, *map(str, findings)][:20]:
        print(f"  {problem}")
    unsettled = states["ready"] + states["waiting"]
    world.close()
    is_whole = world.reconciled.equal and not findings and not unsettled and not wrong
    return 0 if verdict.holds and is_whole else 1


def play(world: "World", wanted: int) -> None:  # type: ignore[name-defined]  # noqa: F821 (made once Django is set up)
    """Turn by turn: things happen, time passes, some news arrive, workers work, staff look at something again."""
    shown = 0
    while world.delivered + len(world.on_the_way) < wanted:
        for _ in range(world.rng.randint(2, 20)):
            world.happen()
        world.pass_time()
        with world.crew.at_work():
            world.deliver_due()
            for _ in range(world.rng.randint(0, 4)):
                world.staff_act()
        world.crew.work()
        for often, do in (
            (0.2, world.replay_some),
            (0.3, world.reconciliation.look_up),
            (0.15, world.reconciliation.run_in_the_middle),
            (0.3, world.wait),
        ):
            if world.rng.random() < often:
                do()
        if world.delivered - shown >= PROGRESS_EVERY:
            shown = world.delivered
            print(f"  {shown:,} deliveries …", flush=True)


if __name__ == "__main__":
    sys.exit(main())

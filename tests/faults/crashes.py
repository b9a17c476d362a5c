"""kill -9 of random processes of a grown-up house, and immediate stops of its PostgreSQL, while deliveries come in.

    ./dev faults crashes [--short]

The house is as in deploy/: granian with two workers, a Celery worker with beat inside, Redis, PostgreSQL. Whoever has
ended is started again, as a service manager would. A round is ten kills and one stop of PostgreSQL, and then as long as
it takes until deliveries are acknowledged and processed again.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sized
from pathlib import Path

from tests.faults.grown import grown, revive, set_up
from tests.house import House, eventually
from tests.services import Postgres, children

ROUNDS, SHORT_ROUNDS, KILLS = 100, 2, 10
RATE = 200  # deliveries a second
PATIENCE = 300.0


class Reaper:
    """Kills what runs, and starts what has ended."""

    def __init__(self, home: House, seed: int, heard: Sized) -> None:
        """`heard` grows with every acknowledgement: a site has started once it did."""
        self.home, self.rng, self.killed = home, random.Random(seed), Counter[str]()
        self.heard, self.heard_before = heard, 0

    def victims(self) -> list[tuple[str, int]]:
        """Every process that is up to its work, with what it is."""
        found = []
        site, worker = (self.home.processes[name].pid for name in ("site", "worker"))
        if len(self.heard) > self.heard_before:
            found += [("site master", site), *(("site worker", pid) for pid in children(site))]
        beats = [pid for pid in children(worker) if is_beat(pid)]
        pool = [pid for pid in children(worker) if pid not in beats]
        if pool:
            found += [("Celery master", worker), *(("Celery worker", pid) for pid in pool)]
        return found + [("beat", pid) for pid in beats]

    def kill_one(self) -> None:
        """Choose among kinds first, then among the processes of that kind."""
        while not (victims := self.victims()):
            self.revive()
            time.sleep(0.05)
        kind = self.rng.choice(sorted({kind for kind, _ in victims}))
        pid = self.rng.choice([pid for found, pid in victims if found == kind])
        os.kill(pid, signal.SIGKILL)
        self.killed[kind] += 1

    def revive(self) -> None:
        revive(self.home, {"site": self.launch_site, "worker": self.home.start_worker})

    def launch_site(self) -> None:
        self.heard_before = len(self.heard)
        self.home.launch_site()

    def pass_time(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.revive()
            time.sleep(0.05)


def is_beat(pid: int) -> bool:
    """Beat alone of the worker's children has let go of the pipes that they are given work through."""
    try:
        return not any("pipe:" in str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def crash(database: Postgres) -> None:
    database.stop_at_once()
    database.start()


def main(words: list[str]) -> int:
    rounds = SHORT_ROUNDS if "--short" in words else ROUNDS
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, grown(Path(folder)) as (home, database, _):
        set_up(database.url)
        from tests.faults.deliveries import Sender, deliveries, settled, verdict

        sender = Sender(home, deque(deliveries(400 * rounds)), rate=RATE, seed=seed)
        reaper, began = Reaper(home, seed, sender.acknowledged), time.monotonic()
        sender.start()
        try:
            for number in range(1, rounds + 1):
                play(reaper, database, sender)
                if number % 10 == 0:
                    print(f"  {number * KILLS} kills, {number} stops, {time.monotonic() - began:.0f} s …", flush=True)
        except KeyboardInterrupt:
            print("  interrupted: the verdict is on what was done until now", flush=True)
        finally:
            sender.stop()
        reaper.pass_time(2)
        home.await_site()
        sender.insist(reaper.revive)
        settled()
        found = verdict(sender)
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(reaper.killed.items()))
        print(f"{reaper.killed.total():,} kill -9 ({kinds})")
        print(f"{crashes_of(database)} immediate stops of PostgreSQL; {time.monotonic() - began:.0f} s under load")
        print(f"answers: {dict(sender.answers)} (0: none)")
        print(found)
        return 0 if found.holds else 1


def play(reaper: Reaper, database: Postgres, sender: "Sender") -> None:  # type: ignore[name-defined]  # noqa: F821
    """One round."""
    stops_after = reaper.rng.randrange(KILLS)
    for number in range(KILLS):
        reaper.kill_one()
        reaper.pass_time(reaper.rng.random() * 0.4)
        if number == stops_after:
            crash(database)
    heard = len(sender.acknowledged)

    def recovered() -> bool:
        reaper.revive()
        return len(sender.acknowledged) >= heard + RATE // 2

    eventually(recovered, lambda: f"deliveries are acknowledged again: {sender.answers}", PATIENCE)


def crashes_of(database: Postgres) -> int:
    """As its own log counts them."""
    return database.log.read_text(errors="replace").count("received immediate shutdown request")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))

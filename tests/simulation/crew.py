"""The workers: on PostgreSQL several at once, in threads; on SQLite one, which takes turns with all else.

SQLite lets one transaction write at a time, and a batch is one transaction: there two batches never overlap, and
whatever two workers could do is a sequence of batches, whose sizes and moments the seed chooses. On PostgreSQL the
seed chooses sizes and moments as well, and the machine chooses what overlaps.
"""

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

from django.db import connection

from donations import inbox

WORKERS = 4
SIZES = [1, 3, 20, 500]


class Crew:
    """Workers that take batches of due rows. What fails in one of them is raised where the world waits for it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.is_many = connection.vendor == "postgresql"
        self.threads = ThreadPoolExecutor(WORKERS if self.is_many else 1)
        self.busy = False
        self.rounds = 0

    def work(self) -> None:
        """Each takes a batch of some size."""
        with self.at_work(batches=1):
            pass
        if not self.is_many:
            inbox.process_batch(limit=self.rng.choice(SIZES))

    @contextmanager
    def at_work(self, batches: int = 5) -> Iterator[None]:
        """Where there are many, they work while the caller does something else; each takes so many batches."""
        if self.busy or not self.is_many:
            yield
            return
        sizes = [[self.rng.choice(SIZES) for _ in range(batches)] for _ in range(WORKERS)]
        self.busy, self.rounds = True, self.rounds + 1
        running: list[Future[None]] = [self.threads.submit(take, some) for some in sizes]
        try:
            yield
        finally:
            self.busy = False
            for each in running:
                each.result()

    def close(self) -> None:
        """Each closes its own connection."""
        everyone = Barrier(WORKERS if self.is_many else 1)
        for _ in range(everyone.parties):
            self.threads.submit(_leave, everyone)
        self.threads.shutdown()


def take(sizes: list[int]) -> None:
    """Batches of these sizes, one after the other."""
    for size in sizes:
        inbox.process_batch(limit=size)


def _leave(everyone: Barrier) -> None:
    everyone.wait()
    connection.close()

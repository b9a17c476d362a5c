"""A house as in deploy/, for faults: granian with two workers, a Celery worker with beat inside, Redis, PostgreSQL."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.house import House
from tests.services import Postgres, Redis, postgres, redis


@contextmanager
def grown(folder: Path) -> Iterator[tuple[House, Postgres, Redis]]:
    """Everything open. PostgreSQL writes every commit to the disk, as is its default."""
    with postgres() as database, redis() as broker:
        home = House(folder, database_url=database.url, redis_url=broker.url, workers=2)
        quiet(home)
        try:
            home.open()
            yield home, database, broker
        finally:
            home.close()


def revive(home: House, starts: dict[str, Callable[[], object]] | None = None) -> None:
    """As a service manager does: a unit whose main process has ended is ended as a whole, and started again."""
    for name, start in (starts or {"site": home.launch_site, "worker": home.start_worker}).items():
        if home.processes[name].poll() is not None:
            home.stop(name, signal.SIGKILL)
            start()


def quiet(home: House) -> None:
    """No log of every request, and mail that goes nowhere."""
    home.environment |= {"LOG_LEVEL": "ERROR", "EMAIL_URL": "dummymail://"}


def set_up(database_url: str) -> None:
    """Look at this database by Django in this process, too."""
    os.environ.update(DATABASE_URL=database_url, DJANGO_SETTINGS_MODULE="tests.settings", LOG_LEVEL="CRITICAL")
    import logging

    import django

    django.setup()
    logging.disable()

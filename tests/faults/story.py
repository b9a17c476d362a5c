"""The story of a storage that fails and comes back: what is acknowledged meanwhile is not lost, all else is refused."""

import signal
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.faults.grown import quiet, set_up
from tests.house import House
from tests.services import Postgres

MOST, FEW = 3_000, 100  # deliveries until a storage that fills, or that fails, must have been noticed
IN_A_ROW = 20  # refusals after which nothing will be acknowledged any more

Trouble = Callable[[House, Postgres | None], AbstractContextManager[None]]


def play(folder: Path, database: Postgres | None, trouble: Trouble, *, padding: int, may_accept: bool) -> bool:
    """Deliver before, during and after the trouble; then kill everything, start it again, and compare.

    `may_accept`: whether something may still be acknowledged meanwhile, such as what fits into the last free pages.
    """
    home = House(folder, database_url=database.url if database else f"sqlite:///{folder}/storage/db.sqlite3")
    quiet(home)
    try:
        home.open()
        set_up(home.environment["DATABASE_URL"])
        return _told(home, database, trouble, padding, may_accept)
    finally:
        home.close()


def _told(home: House, database: Postgres | None, trouble: Trouble, padding: int, may_accept: bool) -> bool:
    from tests.faults.deliveries import Sender, deliveries, settled, verdict

    sender = Sender(home, deque(), rate=1)
    sender.fresh.extend(deliveries(50))
    sender.send_all()
    before = dict(sender.answers)
    settled()
    material = deliveries(MOST if may_accept else FEW, padding=padding)
    with trouble(home, database):
        accepted, refused, others = _until_refused(sender, material)
    sender.insist(database.start_if_ended if database else lambda: None)
    settled()
    _crash(home, database)
    settled()
    found = verdict(sender)
    print(f"before: {before}; meanwhile: {accepted} acknowledged, {refused} answered 503, {others} otherwise")
    print(f"all acknowledged when told again; after a crash of site and database: {found}")
    return found.holds and set(before) == {200} and refused >= IN_A_ROW and not others and (may_accept or not accepted)


def _until_refused(sender: "Sender", material: list["Delivery"]) -> tuple[int, int, int]:  # type: ignore[name-defined]  # noqa: F821
    """Tell one after another until so many in a row were refused: how many were acknowledged, refused, else."""
    before, row = sender.answers.copy(), 0
    for delivery in material:
        heard = len(sender.acknowledged)
        sender.fresh.append(delivery)
        sender.again.clear()
        sender.send_all()
        row = 0 if len(sender.acknowledged) > heard else row + 1
        if row == IN_A_ROW:
            break
    answers = sender.answers - before
    return answers[200], answers[503], answers.total() - answers[200] - answers[503]


def _crash(home: House, database: Postgres | None) -> None:
    home.stop("site", signal.SIGKILL)
    if database:
        database.stop_at_once()
        database.start()
    home.start_site()

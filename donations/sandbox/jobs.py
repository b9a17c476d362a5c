"""What the sandbox does by itself when its clock gets there: sessions expire, refunds fail later."""

import threading
from collections.abc import Callable

from . import checkout, refunds
from .errors import ApiError
from .store import StateUnusable, Store, Tx

ACTIONS: dict[str, Callable[[Tx, str], None]] = {
    "expire_session": checkout.expire_due,
    "fail_refund": refunds.fail_due,
    "refer_refund": refunds.refer_due,
}


def run_due(store: Store, until: float) -> int:
    """Do what is due at a time of the sandbox's clock, each in a transaction of its own. Returns how much there was."""
    done = 0
    while True:
        with store.transaction() as tx:
            row = tx.db.execute("SELECT id, action, target FROM jobs WHERE at <= ? ORDER BY at, id LIMIT 1", (until,))
            job = row.fetchone()
            if job is None:
                return done
            tx.db.execute("DELETE FROM jobs WHERE id = ?", (job[0],))
            _run(tx, job[1], job[2])
        done += 1


def _run(tx: Tx, action: str, target: str) -> None:
    try:
        ACTIONS[action](tx, target)
    except ApiError:
        # Something else happened to it first.
        return


class Ticker:
    """The thread that looks what is due, twice a second."""

    def __init__(self, store: Store, *, interval: float = 0.5) -> None:
        self.store = store
        self.interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _work(self) -> None:
        while not self._stopping.wait(self.interval):
            try:
                run_due(self.store, self.store.clock.now())
            except StateUnusable:
                return

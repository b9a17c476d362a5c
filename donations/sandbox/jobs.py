"""What the sandbox does by itself when its clock gets there, and the moving of that clock."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from . import checkout, disputes, invoices, paying, payments, payouts, refunds, renewals, subscriptions
from .clock import DAY, Duration, real
from .errors import ApiError
from .store import StateUnusable, Store, Tx

ACTIONS: dict[str, Callable[[Tx, str], None]] = {
    "arrive_payout": payouts.arrive_due,
    "capture_charge": payments.capture_due,
    "dispute_fraudulent": disputes.create_due,
    "dispute_inquiry": partial(disputes.create_due, inquiry=True),
    "expire_session": checkout.expire_due,
    "fail_refund": refunds.fail_due,
    "finalize_invoice": invoices.finalize_due,
    "pay_out": payouts.pay_out_due,
    "refer_refund": refunds.refer_due,
    "renew": renewals.renew_due,
    "resume_collection": subscriptions.resume_collection_due,
    "retry_invoice": invoices.retry_due,
    "settle_payment": paying.settle_due,
}


def run_due(store: Store, until: float, *, move: bool = False) -> int:
    """Do what is due by `until`, in order, each in a transaction of its own and at its own time.

    To `move` takes the clock along, so that whoever looks in between sees a time that fits. Returns how much was done.
    """
    done = 0
    while (due := _next(store, until)) is not None:
        number, at, action, target = due
        with store.transaction(at=at) as tx:
            if not tx.db.execute("DELETE FROM jobs WHERE id = ?", (number,)).rowcount:
                continue
            if move:
                _set(store, tx, at)
            _run(tx, action, target)
        done += 1
    return done


def _next(store: Store, until: float) -> tuple[int, float, str, str] | None:
    with store.transaction() as tx:
        row = tx.db.execute(
            "SELECT id, at, action, target FROM jobs WHERE at <= ? ORDER BY at, id LIMIT 1", (until,)
        ).fetchone()
    return None if row is None else (row[0], row[1], row[2], row[3])


def _run(tx: Tx, action: str, target: str) -> None:
    tx.db.execute("SAVEPOINT job")
    try:
        ACTIONS[action](tx, target)
    except ApiError:
        # Something else happened to it first.
        tx.db.execute("ROLLBACK TO job")
    tx.db.execute("RELEASE job")


def advance(store: Store, by: Duration) -> dict[str, Any]:
    """Move the clock, and let happen on the way, in order, what is due. Returns the time, and how much was done."""
    try:
        target = by.after(store.clock.now())
        datetime.fromtimestamp(target + 100 * DAY, UTC)
    except (ValueError, OverflowError) as error:
        raise ApiError("The clock can't be moved that far.", param="advance") from error
    done = run_due(store, target, move=True)
    with store.transaction() as tx:
        _set(store, tx, target)
    return {"now": store.clock.seconds(), "ahead": store.clock.ahead, "done": done}


def _set(store: Store, tx: Tx, moment: float) -> None:
    """Have the clock show at least this moment, also after a restart."""
    store.clock.ahead = max(store.clock.ahead, moment - real())
    tx.set_setting("clock_ahead", store.clock.ahead)


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

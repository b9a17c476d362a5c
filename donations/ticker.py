"""The worker inside each web process: alone without Redis; with it, only for what workers have left lying."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import connection

from donations import giving, inbox, outbox, reconcile, refunding, watching

log = logging.getLogger(__name__)
TICK_SECONDS = 1.0
SECONDS = {"reconcile": 30.0, "watch": 30.0, "check": 30.0}
STEP_IN_AFTER = timedelta(seconds=5)

STEPPING_IN_LASTS = timedelta(minutes=30)  # longer than until our own checks would be overdue
COMES_WITHIN = timedelta(minutes=5)  # a beat that is started with the site has had a check made by then

_wake = threading.Event()
# By the monotonic clock:
_started = time.monotonic()
_stepping_in_until = 0.0


def start() -> None:
    """Start this process's daemon threads, each for what must not wait for the others."""
    ticks = {"inbox": _drain, "outbox": _send, "reconcile": _reconcile, "watch": _watch, "check": _check}
    for name, tick in ticks.items():
        threading.Thread(target=_run, args=(name, tick), name=f"ticker-{name}", daemon=True).start()


def wake() -> None:
    """Drain now rather than at the next tick; called after a delivery's commit."""
    _wake.set()


def _run(name: str, tick: Callable[[], None]) -> None:
    while True:
        if name == "inbox" and not settings.REDIS_URL:
            _wake.wait(TICK_SECONDS)
            _wake.clear()
        else:
            threading.Event().wait(SECONDS.get(name, TICK_SECONDS))
        try:
            tick()
        except Exception:
            # Whatever it was, the next tick tries again on a new connection: this thread must not end.
            log.exception("the %s ticker failed; it goes on at the next tick", name)
            connection.close()


def _drain() -> None:
    if not settings.REDIS_URL or inbox.is_left_lying(STEP_IN_AFTER):
        inbox.drain(seconds=10)


def _send() -> None:
    outbox.send_due()
    giving.close_superseded()
    refunding.send_refunds_again()


def _reconcile() -> None:
    """In a thread of its own: a run may take minutes, and mail must not wait for it."""
    if not settings.REDIS_URL or _workers_are_away():
        reconcile.tick()


def _watch() -> None:
    if not settings.REDIS_URL or _workers_are_away():
        watching.look()


def _check() -> None:
    """In a thread of its own: large books take minutes, and troubles are looked for meanwhile."""
    if not settings.REDIS_URL or _workers_are_away():
        watching.check_books_if_due()


def _workers_are_away() -> bool:
    """Whether the checks were left lying by now, or a while ago: what we did ourselves does not bring workers back.

    They are, too, where no check was ever made since we started: then no beat may ever have been.
    """
    global _stepping_in_until
    now = time.monotonic()
    never_came = now - _started > COMES_WITHIN.total_seconds() and not watching.was_ever_checked()
    if never_came or watching.is_left_lying():
        if now >= _stepping_in_until:
            log.warning("no Celery beat has the site watched (celery -A supportsite worker -B): this process does")
        _stepping_in_until = now + STEPPING_IN_LASTS.total_seconds()
    return now < _stepping_in_until

"""One deadline for a whole call: finding the address, connecting, and reading all of the answer.

A library's time limits hold for one address and for one read. A name with many dead addresses, or a server that answers
a byte at a time, would keep a reader waiting many times longer.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from donations.processors.base import ProcessorUnavailable

MOST_AT_ONCE = 64
"""Calls under way in this process, the late ones too: a processor that holds them all gets no more."""

Answer = TypeVar("Answer")
_free = threading.BoundedSemaphore(MOST_AT_ONCE)


def within(seconds: float, call: Callable[[], Answer]) -> Answer:
    """What `call` returns or raises. Raises ProcessorUnavailable where that takes longer than `seconds`.

    It runs in a thread of its own, so it must not use the database. One that is too late goes on there until its own
    limits end it, and its answer is dropped: the same call with the same key gets it.
    """
    if seconds <= 0 or not _free.acquire(blocking=False):
        raise ProcessorUnavailable("not asked: too many calls are under way" if seconds > 0 else "no time was left")
    answer: Future[Answer] = Future()
    threading.Thread(target=_run, args=(call, answer), name="processor-call", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError as late:
        raise ProcessorUnavailable(f"no whole answer within {seconds:.1f} s") from late


def _run(call: Callable[[], Answer], answer: "Future[Answer]") -> None:
    try:
        answer.set_result(call())
    except BaseException as error:  # noqa: BLE001 (whoever waits for it gets it)
        answer.set_exception(error)
    finally:
        _free.release()

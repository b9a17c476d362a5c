"""One deadline for a whole call: finding the address, connecting, and reading all of the answer.

A library's time limits hold for one address and for one read. A name with many dead addresses, or a server that answers
a byte at a time, would keep a reader waiting many times longer.

Who waits holds a thread of the site. So after the processor kept a reader waiting in vain, nobody asks it for a moment,
and then one at a time tries it; the others are told so at once. The bar, deliveries and readers do not queue behind
those who wait, and those who queued behind the first of them do not wait a second time.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from donations.processors.base import ProcessorBusy, ProcessorUnavailable

MOST_AT_ONCE = 64
"""Calls under way in this process, the late ones too: a processor that holds them all gets no more."""
LONG = 1.5
"""Seconds: whoever waited so long for nothing was kept waiting. A call that succeeds may take longer."""
RESTS = 1.0
"""Seconds for which nobody is let through after a wait for nothing: whoever queued behind it is told in these."""
TRIES = 20.0
"""Seconds for which one at a time tries after that."""

Answer = TypeVar("Answer")
_free = threading.BoundedSemaphore(MOST_AT_ONCE)


def within(seconds: float, call: Callable[[], Answer]) -> Answer:
    """What `call` returns or raises. Raises ProcessorUnavailable where that takes longer than `seconds`.

    It runs in a thread of its own, so it must not use the database. One that is too late goes on there until its own
    limits end it, and its answer is dropped: the same call with the same key gets it.
    """
    if seconds <= 0:
        raise ProcessorUnavailable("no time was left")
    with patience.asking():
        if not _free.acquire(blocking=False):
            raise ProcessorUnavailable("not asked: too many calls are under way")
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


class Patience:
    """Whether calls are made at all: all of them; none, or one at a time, since somebody waited for nothing lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_tried = threading.Lock()
        self._away_at = float("-inf")

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Make one call. Raises ProcessorUnavailable at once where it is not let through."""
        away_for = self._clock() - self._away_at
        is_trial = RESTS <= away_for < RESTS + TRIES
        if away_for < RESTS or (is_trial and not self._is_tried.acquire(blocking=False)):
            raise ProcessorUnavailable("not asked: it kept others waiting")
        try:
            with self._learning(is_trial=is_trial):
                yield
        finally:
            if is_trial:
                self._is_tried.release()

    @contextmanager
    def _learning(self, *, is_trial: bool) -> Iterator[None]:
        began = self._clock()
        try:
            yield
        except ProcessorBusy as busy:
            # The same call is under way: that says nothing of whether it will be answered, and is not waited for now.
            if is_trial:
                raise ProcessorUnavailable(str(busy)) from busy
            raise
        except Exception:
            # A refusal, or a limit, comes at once: then it is there.
            self._away_at = self._clock() if self._clock() - began >= LONG else float("-inf")
            raise
        self._away_at = float("-inf")


patience = Patience()

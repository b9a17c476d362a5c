"""Trouble at will, for the API under /v1/.

`none`; `down` (503); `429`; `refuse` (every checkout's amount); `slow` (waits, then works); `late` (works, then waits:
whoever gave up does not know that it was done). Trouble is never kept as the answer to an idempotency key.
"""

import threading
import time
from typing import Any

from .errors import ApiError, down, refused_amount, too_many
from .store import Store

MODES = ("none", "down", "slow", "late", "429", "refuse")
LONGEST = 600.0
Setting = dict[str, Any]


class Trouble:
    """What the API was told to suffer from. It lasts until it is told otherwise, also over a restart."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        with store.transaction() as tx:
            self._now: Setting = tx.setting("trouble", {"mode": "none"})

    @property
    def now(self) -> Setting:
        """`{"mode": …}`, and `seconds` where somebody waits."""
        return self._now

    def set(self, mode: str, seconds: float) -> None:
        """Begin or end a trouble; whoever waits goes on at once."""
        if mode not in MODES:
            raise ApiError(f"mode must be one of {', '.join(MODES)}", param="mode")
        if not 0 <= seconds <= LONGEST:
            raise ApiError(f"seconds must be between 0 and {LONGEST:.0f}", param="seconds")
        wanted = {"mode": mode} | ({"seconds": seconds} if mode in ("slow", "late") else {})
        with self._store.transaction() as tx:
            tx.set_setting("trouble", wanted)
        self._change(wanted)

    def stop(self) -> None:
        """Let everybody go: the sandbox is stopping."""
        self._change({"mode": "none"})

    def before(self, method: str, path: str) -> None:
        """Wait while the API is slow. Raises ApiError while it is down, limiting or refusing."""
        self._wait("slow")
        mode = self._now["mode"]
        if mode == "down":
            raise down()
        if mode == "429":
            raise too_many()
        if mode == "refuse" and (method, path) == ("POST", "/v1/checkout/sessions"):
            raise refused_amount()

    def after(self) -> None:
        """Hold back the answer to what was done."""
        self._wait("late")

    def _wait(self, mode: str) -> None:
        told = self._now
        until = time.monotonic() + told.get("seconds", 0)
        with self._changed:
            while told["mode"] == mode and self._now is told and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _change(self, wanted: Setting) -> None:
        with self._changed:
            self._now = wanted
            self._changed.notify_all()

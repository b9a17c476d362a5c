"""Trouble at will, for the API under /v1/.

    none      it is well
    down      it answers `status`, 503 unless told otherwise
    broken    it answers 500, and keeps that as the answer to the call's idempotency key
    429       it limits: every call, or what is more than `per_second`; with Retry-After
    refuse    it refuses every checkout's amount
    slow      it waits `seconds`, then works
    late      it works, then waits `seconds`: whoever gave up does not know that it was done
    hang      it never answers
    drop      it hangs up without an answer
    refused   nothing listens at all, for `seconds`; the dashboard and the controls are gone as long

All but `refused` lasts until it is told otherwise. `seconds`, 10 where none are told, is for those three alone that
name it. With `calls`, the next so many calls suffer and those after them do not; with `path`, those alone whose method
and path begin so: `POST /v1/refunds`. But for `broken`, trouble is never kept as the answer to an idempotency key.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ApiError, down, failed, refused_amount, too_many
from .store import Store

MODES = ("none", "down", "broken", "slow", "late", "429", "refuse", "hang", "drop", "refused")
WAITING = ("slow", "late", "refused")
STATUSES = (500, 502, 503, 504)
LONGEST = 600.0
MOST = 1_000_000
Setting = dict[str, Any]
WELL: Setting = {"mode": "none"}


class HungUp(ConnectionAbortedError):
    """The caller gets no answer: the server ends the connection."""


def _no_server(seconds: float) -> None:
    raise ApiError("Only a sandbox with a server of its own can be away.", param="mode")


class Trouble:
    """What the API was told to suffer from. It lasts until it is told otherwise, also over a restart."""

    def __init__(self, store: Store) -> None:
        self.leave: Callable[[float], None] = _no_server
        self.clock: Callable[[], float] = time.monotonic  # tells how many calls a second has
        self._store = store
        self._changed = threading.Condition()
        self._changes = 0
        self._recent: deque[float] = deque()
        with store.transaction() as tx:
            self._now: Setting = tx.setting("trouble", WELL)

    @property
    def now(self) -> Setting:
        """`{"mode": …}`, and what else was given that matters to it."""
        return self._now

    def set(self, given: Mapping[str, str]) -> Setting:
        """Begin or end a trouble; whoever waits goes on at once. Raises ApiError for what can't be."""
        wanted = setting(given)
        if wanted["mode"] == "refused":
            self.leave(wanted["seconds"])
            return wanted
        self._change(wanted)
        return wanted

    def stop(self) -> None:
        """Let everybody go: the sandbox is stopping."""
        with self._changed:
            self._now = WELL
            self._changes += 1
            self._changed.notify_all()

    def before(self, method: str, path: str) -> Setting:
        """Wait while the API is slow. Raises ApiError while it is down, limiting or refusing, HungUp if it hangs up.

        Returns what this call suffers from, for `after`.
        """
        told = self._told(method, path)
        mode = told["mode"]
        if mode in ("slow", "hang"):
            self._wait(told)
        if mode in ("hang", "drop"):
            raise HungUp
        if mode == "down":
            raise down(told.get("status", 503))
        if mode == "429":
            raise too_many()
        if mode == "refuse" and (method, path) == ("POST", "/v1/checkout/sessions"):
            raise refused_amount()
        return told

    def within(self, told: Setting) -> None:
        """Fail as what has begun and is at an end. Raises ApiError."""
        if told["mode"] == "broken":
            raise failed()

    def after(self, told: Setting) -> None:
        """Hold back the answer to what was done."""
        if told["mode"] == "late":
            self._wait(told)

    def _told(self, method: str, path: str) -> Setting:
        """What this call suffers from; it is counted."""
        with self._changed:
            told = self._now
            if told["mode"] == "none" or not f"{method} {path}".startswith(told.get("path", "")):
                return WELL
            if "per_second" in told and self._is_within(told["per_second"]):
                return WELL
            if "calls" not in told:
                return told
            left = told["calls"] - 1
            # Whoever waits in this trouble waits on, even if it was the last call.
            self._change(told | {"calls": left} if left else WELL, wake=False)
            return told

    def _is_within(self, limit: float) -> bool:
        now = self.clock()
        while self._recent and self._recent[0] <= now - 1:
            self._recent.popleft()
        if len(self._recent) >= limit:
            return False
        self._recent.append(now)
        return True

    def _wait(self, told: Setting) -> None:
        """Wait as long as told, or until another trouble is set."""
        until = time.monotonic() + told.get("seconds", LONGEST)
        with self._changed:
            begun = self._changes
            while self._changes == begun and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def _change(self, wanted: Setting, *, wake: bool = True) -> None:
        with self._changed:
            with self._store.transaction() as tx:
                tx.set_setting("trouble", wanted)
            self._now = wanted
            if wake:
                self._changes += 1
                self._changed.notify_all()


def setting(given: Mapping[str, str]) -> Setting:
    """A trouble as it was asked for, checked."""
    mode = given.get("mode", "")
    if mode not in MODES:
        raise ApiError(f"mode must be one of {', '.join(MODES)}", param="mode")
    wanted: Setting = {"mode": mode}
    if mode in WAITING:
        wanted["seconds"] = _number(given.get("seconds") or "10", "seconds", LONGEST)
    elif given.get("seconds") and mode != "none":
        raise ApiError(
            f"seconds is for {', '.join(WAITING)} alone: {mode} lasts until it is told otherwise. "
            "Leave seconds out, or give the next calls that suffer.",
            param="seconds",
        )
    if given.get("calls") and mode not in ("none", "refused"):
        wanted["calls"] = int(_number(given["calls"], "calls", MOST, least=1))
    if given.get("per_second") and mode == "429":
        wanted["per_second"] = _number(given["per_second"], "per_second", MOST)
    if given.get("status") and mode == "down":
        wanted["status"] = int(_number(given["status"], "status", 599))
        if wanted["status"] not in STATUSES:
            raise ApiError(f"status must be one of {', '.join(map(str, STATUSES))}", param="status")
    if given.get("path") and mode not in ("none", "refused"):
        wanted["path"] = given["path"]
    return wanted


def _number(text: str, name: str, most: float, *, least: float = 0) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise ApiError(f"{name} must be a number", param=name) from error
    if not least <= number <= most:
        raise ApiError(f"{name} must be between {least:g} and {most:.0f}", param=name)
    return number
